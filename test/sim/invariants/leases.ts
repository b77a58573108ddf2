/**
 * L1, I21, I22: at every true instant at most one store would answer a lease read for a key, it has committed whatever
 * was acknowledged before, no newer leader of the region exists, no merge of the region has begun, and no lease grows
 * while a split waits to be applied. Who would answer is computed from the inside of the replicas, so that no client has
 * to ask at the wrong moment.
 */
import { rangesOverlap } from '../../../src/base/key-range.ts';
import type { Region } from '../../../src/meta/region.ts';
import { mayUseLease } from '../../../src/raftstore/peer/read.ts';
import type { RaftPeer } from '../../../src/raftstore/peer/raft-peer.ts';
import { type ObservedMachine, type Tally, violated } from './observed.ts';

interface Leader {
  readonly store: number;
  readonly incarnation: number;
  readonly peer: RaftPeer;
  /** The descriptor it had when it was looked at last. */
  region: Region;
  /** Leaders of the same region or of overlapping ranges, as of a generation. */
  rivals: readonly Leader[];
  generation: number;
  /** The lease it had when a split was committed that it has not applied. */
  splitting: { readonly index: number; readonly boundMs: number } | undefined;
}

/** Rounding of clocks. */
const ROUNDING_MS = 0.01;

/** Whether a read that arrived now would be answered without asking anybody. */
export const wouldAnswer = (peer: RaftPeer): boolean =>
  peer.isActive &&
  peer.isInitialized &&
  peer.installing.type === 'none' &&
  !peer.isMerging &&
  mayUseLease(peer, peer.ctx.leaseClock.nowMs());

export class LeaseChecks {
  /** Replicas that call themselves leader, by store and region; those of a dead process stay until they are met. */
  readonly #leaders: Map<number, Map<number, Leader>> = new Map();
  readonly #machine: (store: number) => ObservedMachine | undefined;
  readonly #acknowledged: (region: number) => number;
  readonly #mergesAt: (region: number) => number | undefined;
  readonly #splitAt: (region: number) => number;
  readonly #tally: Tally;
  /** Grows when a leader, or the range of one, comes or goes. */
  #generation = 1;

  /**
   * @param acknowledged highest index of the region whose outcome a client was told
   * @param mergesAt index of the PrepareMerge that is committed and not rolled back
   * @param splitAt index of the newest committed split; 0 if there is none
   */
  constructor(
    machine: (store: number) => ObservedMachine | undefined,
    acknowledged: (region: number) => number,
    mergesAt: (region: number) => number | undefined,
    splitAt: (region: number) => number,
    tally: Tally,
  ) {
    this.#machine = machine;
    this.#acknowledged = acknowledged;
    this.#mergesAt = mergesAt;
    this.#splitAt = splitAt;
    this.#tally = tally;
  }

  observe(machine: ObservedMachine, peer: RaftPeer): void {
    let leaders = this.#leaders.get(machine.id);
    if (leaders === undefined) {
      leaders = new Map();
      this.#leaders.set(machine.id, leaders);
    }
    const known = leaders.get(peer.regionId);
    const { region } = peer;
    if (!peer.isLeader) {
      if (leaders.delete(peer.regionId)) {
        this.#generation++;
      }
    } else if (known?.peer !== peer) {
      const { id: store, incarnation } = machine;
      leaders.set(peer.regionId, { store, incarnation, peer, region, rivals: [], generation: 0, splitting: undefined });
      this.#generation++;
    } else if (known.region !== region) {
      known.region = region;
      this.#generation++;
    }
  }

  /** Ranges and leaders change rarely, and this is asked after every event. */
  #rivalsOf(leader: Leader): readonly Leader[] {
    if (leader.generation !== this.#generation) {
      leader.generation = this.#generation;
      leader.rivals = [...this.#leaders.values()]
        .flatMap((others) => [...others.values()])
        .filter(
          (other) =>
            other !== leader &&
            (other.peer.regionId === leader.peer.regionId || rangesOverlap(leader.region.range, other.region.range)),
        );
    }
    return leader.rivals;
  }

  /** After a round of this store: only its own replicas can have come into conflict with others. */
  check(store: number): void {
    for (const leader of this.#leaders.get(store)?.values() ?? []) {
      const answers = wouldAnswer(leader.peer);
      if (answers) {
        this.#tally.add('leases');
        if (!leader.peer.node.appliedInTerm()) {
          violated('L1', `${nameOf(leader)} would answer a read and has applied no entry of its term yet`);
        }
        const acknowledged = this.#acknowledged(leader.peer.regionId);
        if (leader.peer.node.committed < acknowledged) {
          violated(
            'L1',
            `${nameOf(leader)} would answer a read and knows nothing behind ${leader.peer.node.committed}; ${acknowledged} is acknowledged`,
          );
        }
        const mergesAt = this.#mergesAt(leader.peer.regionId);
        if (mergesAt !== undefined) {
          violated(
            'L1',
            `${nameOf(leader)} would answer a read although its PrepareMerge is committed at ${mergesAt}: the target may take writes elsewhere`,
          );
        }
      }
      this.#checkSplitting(leader);
      for (const other of this.#rivalsOf(leader)) {
        this.#checkPair(leader, answers, other);
      }
    }
  }

  /**
   * From the commit of a split on the children may be led elsewhere, by replicas that heard of it earlier: until the
   * leader of the parent has applied it, its lease for the old range must run out.
   */
  #checkSplitting(leader: Leader): void {
    const { peer } = leader;
    const { node } = peer;
    const index = this.#splitAt(peer.regionId);
    if (index <= peer.appliedIndex || index > node.committed || node.termAt(index) !== node.term) {
      leader.splitting = undefined;
      return;
    }
    const nowMs = peer.ctx.leaseClock.nowMs();
    const boundMs = nowMs + peer.lease.remaining(nowMs);
    if (leader.splitting?.index !== index) {
      leader.splitting = { index, boundMs };
    } else if (peer.lease.isValid(nowMs) && boundMs > leader.splitting.boundMs + ROUNDING_MS) {
      violated('L1', `${nameOf(leader)} renews its lease although it has not applied the split committed at ${index}`);
    }
    this.#tally.add('splitting leases');
  }

  #checkPair(leader: Leader, answers: boolean, other: Leader): void {
    const isSame = leader.peer.regionId === other.peer.regionId;
    const [older, newer] = leader.peer.node.term < other.peer.node.term ? [leader, other] : [other, leader];
    if (isSame && (older === leader ? answers : wouldAnswer(older.peer)) && this.#isAlive(leader, other)) {
      violated('L1', `${nameOf(older)} would answer a read although ${nameOf(newer)} leads`);
    }
    if (answers && !isSame && wouldAnswer(other.peer) && this.#isAlive(leader, other)) {
      violated('L1', `both would answer a read at once: ${nameOf(leader)} and ${nameOf(other)}`);
    }
  }

  /** Whether the processes of the replicas still run; forgets those of others. */
  #isAlive(...leaders: readonly Leader[]): boolean {
    return leaders.every((leader) => {
      const machine = this.#machine(leader.store);
      const alive = machine?.store !== undefined && machine.incarnation === leader.incarnation;
      if (!alive) {
        this.#leaders.get(leader.store)?.delete(leader.peer.regionId);
        this.#generation++;
      }
      return alive;
    });
  }
}

const nameOf = ({ store, peer }: Leader): string =>
  `peer ${peer.peer.id} of region ${peer.regionId} on store ${store} (term ${peer.node.term}, version ${peer.region.epoch.version})`;
