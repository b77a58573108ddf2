/**
 * L1, I21, I22: at every true instant at most one store would answer a lease read for a key, it has committed whatever
 * was acknowledged before, no newer leader of the region exists, and no merge of the region has begun. Who would answer is computed from the inside of
 * the replicas, so that no client has to ask at the wrong moment.
 */
import { rangesOverlap } from '../../../src/base/key-range.ts';
import type { Region } from '../../../src/meta/region.ts';
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
}

/** Whether a read that arrived now would be answered without asking anybody. */
export const wouldAnswer = (peer: RaftPeer): boolean =>
  peer.isActive &&
  peer.isInitialized &&
  peer.installing.type === 'none' &&
  peer.isLeader &&
  !peer.isMerging &&
  peer.lease.isValid(peer.ctx.leaseClock.nowMs()) &&
  peer.node.appliedInTerm();

export class LeaseChecks {
  /** Replicas that call themselves leader, by store and region; those of a dead process stay until they are met. */
  readonly #leaders: Map<number, Map<number, Leader>> = new Map();
  readonly #machine: (store: number) => ObservedMachine | undefined;
  readonly #acknowledged: (region: number) => number;
  readonly #mergesAt: (region: number) => number | undefined;
  readonly #tally: Tally;
  /** Grows when a leader, or the range of one, comes or goes. */
  #generation = 1;

  /**
   * @param acknowledged highest index of the region whose outcome a client was told
   * @param mergesAt index of the PrepareMerge that is committed and not rolled back
   */
  constructor(
    machine: (store: number) => ObservedMachine | undefined,
    acknowledged: (region: number) => number,
    mergesAt: (region: number) => number | undefined,
    tally: Tally,
  ) {
    this.#machine = machine;
    this.#acknowledged = acknowledged;
    this.#mergesAt = mergesAt;
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
      leaders.set(peer.regionId, { store, incarnation, peer, region, rivals: [], generation: 0 });
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
      for (const other of this.#rivalsOf(leader)) {
        this.#checkPair(leader, answers, other);
      }
    }
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
