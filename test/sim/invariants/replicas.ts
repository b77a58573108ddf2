/**
 * Checks on the inside of every replica of a store, after each of its rounds: E1, R1, R3, R4, R5, R6, G1, G3, G8, I1,
 * I3, I4, I12, L2, P1. What became committed in the round is handed to the model first, by whoever knows it first.
 */
import { CorruptionError } from '../../../src/env/engine.ts';
import { rangesOverlap } from '../../../src/base/key-range.ts';
import { formatRegion, type Region } from '../../../src/meta/region.ts';
import { EntryType, type ConfState } from '../../../src/raft/types.ts';
import type { RaftPeer } from '../../../src/raftstore/peer/raft-peer.ts';
import type { RaftStore } from '../../../src/raftstore/store/raft-store.ts';
import type { CommittedLog } from './committed-log.ts';
import { type DurableState, raftStateOn } from './durable.ts';
import type { Evidence } from './evidence.ts';
import { type LeaseChecks, wouldAnswer } from './leases.ts';
import { halvesOf, hasQuorum, type ObservedMachine, type Tally, violated } from './observed.ts';
import type { RegionModel } from './region-model.ts';

interface ConfTime {
  readonly conf: ConfState;
  /** Monotonic time of the replica. */
  readonly untilMs: number;
}

/** What was last seen of a replica. */
interface Seen {
  readonly incarnation: number;
  readonly peer: RaftPeer;
  readonly peerId: number;
  term: number;
  vote: number;
  commit: number;
  applied: number;
  version: number;
  confVer: number;
  first: number;
  last: number;
  isLeader: boolean;
  needsApply: boolean;
  wasInitialized: boolean;
  /** When its lease was looked at, on its own monotonic clock. */
  leaseSeenMs: number;
  region: Region | undefined;
  confState: ConfState;
  /** Configurations in force within the last lease, newest first: what was decided by them may still count. */
  confs: readonly ConfTime[];
  /** Membership changes in the own term of a leader. */
  confIndexes: number[];
}

export interface Grave {
  readonly peerId: number;
  readonly incarnation: number;
  isBuried: boolean;
}

export interface ReplicaOptions {
  readonly log: CommittedLog;
  readonly model: RegionModel;
  readonly durable: DurableState;
  readonly evidence: Evidence;
  readonly leases: LeaseChecks;
  readonly graves: ReadonlyMap<string, Grave>;
  /** Whether the replica let others believe it is in this term. */
  readonly promisedTerm: (store: number, region: number, peer: number) => number;
  readonly hasAcknowledged: (store: number, region: number, peer: number, index: number, term: number) => boolean;
  readonly tally: Tally;
}

const STORES_MAX = 64;
const seenKey = (store: number, region: number): number => region * STORES_MAX + store;

const needsApply = (peer: RaftPeer): boolean => peer.isInitialized && peer.isActive && peer.installing.type === 'none';

/** Most replicas are as they were after the round before: nothing of them can have become wrong. */
const isUnchanged = (seen: Seen, machine: ObservedMachine, peer: RaftPeer): boolean =>
  seen.peer === peer &&
  seen.incarnation === machine.incarnation &&
  seen.last === peer.node.lastIndex &&
  seen.first === peer.node.firstIndex &&
  seen.commit === peer.node.committed &&
  seen.applied === peer.appliedIndex &&
  seen.term === peer.node.term &&
  seen.vote === peer.node.vote &&
  seen.isLeader === peer.isLeader &&
  seen.region === peer.region &&
  seen.confState === peer.node.confState &&
  seen.needsApply === needsApply(peer) &&
  peer.fence === undefined;
/** Time between two looks at the lease of one leader. */
const LEASE_LOOK_MS = 10;
/** Term of a replica that is seen for the first time. */
const NEVER_SEEN = -1;

const isSameSet = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((id) => b.includes(id));

export class ReplicaChecks {
  readonly #options: ReplicaOptions;
  readonly #seen: Map<number, Seen> = new Map();
  /** `region/term` → the life of the replica that led. */
  readonly #leaders: Map<string, RaftPeer> = new Map();
  /** False once something was missed: a cluster that was watched from the middle on. */
  #hasModel = true;
  #checksLeases = true;

  constructor(options: ReplicaOptions) {
    this.#options = options;
  }

  get hasModel(): boolean {
    return this.#hasModel;
  }

  ignoreModel(): void {
    this.#hasModel = false;
  }

  ignoreLeases(): void {
    this.#checksLeases = false;
  }

  /** A process has ended and its store begins anew: replicas without data that left nothing on the disk never were. */
  onBoot(machine: ObservedMachine): void {
    for (const [key, seen] of this.#seen) {
      const region = Math.floor(key / STORES_MAX);
      const isForgotten = (): boolean =>
        machine.database === undefined || raftStateOn(machine.database.view, region)?.peerId !== seen.peerId;
      if (seenKey(machine.id, region) === key && !seen.wasInitialized && isForgotten()) {
        this.#seen.delete(key);
      }
    }
  }

  check(machine: ObservedMachine, store: RaftStore): void {
    this.learnCommits(store);
    let mapChanged = false;
    for (const { fsm } of store.inspect().replicas.values()) {
      try {
        mapChanged = this.#checkPeer(machine, store, fsm.peer) || mapChanged;
      } catch (error) {
        // A rotten entry of the log: the store itself finds it when it reads there, and what it does then is judged.
        if (!(error instanceof CorruptionError)) {
          throw error;
        }
      }
    }
    if (mapChanged) {
      this.#checkMap(machine, store);
    }
    this.#checkPendingSnapshots(machine, store);
    if (this.#checksLeases) {
      this.#options.leases.check(machine.id);
    }
    this.#options.tally.add('rounds');
  }

  /** Hands to the model what replicas of this store know to be committed and nobody knew before. */
  learnCommits(store: RaftStore): void {
    const { model, log } = this.#options;
    if (!this.#hasModel) {
      return;
    }
    for (const { fsm } of store.inspect().replicas.values()) {
      const { peer } = fsm;
      const { node, regionId } = peer;
      let known = model.regions.get(regionId);
      if (!peer.isInitialized || node.committed <= (known?.index ?? 0)) {
        continue;
      }
      if (known === undefined) {
        const { epoch } = peer.region;
        if (model.regions.size === 0 && (epoch.version !== 1 || epoch.confVer !== 1)) {
          this.#hasModel = false;
          return;
        }
        known = model.seed(peer.region);
        if (node.committed <= known.index) {
          continue;
        }
      }
      const from = known.index + 1;
      const entries = node.slice(from, node.committed + 1, Number.MAX_SAFE_INTEGER);
      if (entries[0]?.index !== from || entries.length !== node.committed + 1 - from) {
        violated(
          'R2',
          `peer ${peer.peer.id} of region ${regionId} has committed ${node.committed}, of which nobody had ${from}`,
        );
      }
      for (const entry of entries) {
        log.append(regionId, entry, node.term);
        model.commit(regionId, entry);
      }
      this.#options.tally.add('commits', entries.length);
      this.#checkCommitter(peer);
      this.#checkDurable(peer);
    }
  }

  /**
   * R4: only a leader makes an entry committed, and only one of its own term; what is before it is committed with it
   * (Raft paper 5.4.2). Everybody else hears of it.
   */
  #checkCommitter(peer: RaftPeer): void {
    const { node, regionId } = peer;
    const index = node.committed;
    const where = `peer ${peer.peer.id} of region ${regionId}`;
    if (node.role !== 'leader' && this.#seen.get(seenKey(peer.ctx.storeId, regionId))?.isLeader === true) {
      // It led when the round began, committed, and heard of a higher term in the same round.
      return;
    }
    if (node.role !== 'leader') {
      violated('R4', `${where} takes entry ${index} for committed, which no leader has committed (${node.role})`);
    }
    if (node.termAt(index) !== node.term) {
      violated(
        'R4',
        `${where} leads in term ${node.term} and commits entry ${index} of term ${node.termAt(index)} by counting its copies`,
      );
    }
  }

  /** R4: what a leader commits in its own term is on the disks of a quorum of each half of its configuration. */
  #checkDurable(peer: RaftPeer): void {
    const { node, regionId } = peer;
    const index = node.committed;
    if (node.role !== 'leader' || node.termAt(index) !== node.term) {
      return;
    }
    const { durable, hasAcknowledged } = this.#options;
    // A voter may have acknowledged the entry, have applied its own removal in front of it, and be gone.
    const holds = (id: number): boolean => {
      const voter = peer.findPeer(id);
      return (
        voter !== undefined &&
        (durable.holds(voter.storeId, regionId, id, index, node.term) ||
          (durable.isTombstone(voter.storeId, regionId) &&
            hasAcknowledged(voter.storeId, regionId, id, index, node.term)))
      );
    };
    const quorumOf = ({ voters, votersOutgoing }: ConfState): boolean => hasQuorum(voters, votersOutgoing, holds);
    const before = this.#seen.get(seenKey(peer.ctx.storeId, regionId))?.confState;
    if (!quorumOf(node.confState) && (before === undefined || before === node.confState || !quorumOf(before))) {
      const { voters, votersOutgoing } = node.confState;
      const all = [...new Set([...voters, ...votersOutgoing])];
      violated(
        'R4',
        `peer ${peer.peer.id} commits entry ${index} of region ${regionId} in term ${node.term}; of voters [${voters}] and [${votersOutgoing}] only [${all.filter(holds)}] have it on disk`,
      );
    }
    this.#options.tally.add('durable quorums');
  }

  // ------------------------------------------------------------------------------------------ one replica

  /** True if the region map of the store may have changed. */
  #checkPeer(machine: ObservedMachine, store: RaftStore, peer: RaftPeer): boolean {
    const { leases } = this.#options;
    const { node, region, regionId } = peer;
    const key = seenKey(machine.id, regionId);
    const peerId = peer.peer.id;
    leases.observe(machine, peer);
    const known = this.#seen.get(key);
    if (known !== undefined && isUnchanged(known, machine, peer) && (!known.needsApply || store.hasApply(regionId))) {
      this.#checkLease(peer, known);
      return false;
    }
    const where = `peer ${peerId} of region ${regionId} on store ${machine.id}`;
    if (peer.fence !== undefined) {
      violated('I11', `the data of ${where} differ from the others' (${peer.fence.reason})`);
    }
    this.#checkPositions(peer, where);
    let seen = known;
    const isNew = seen === undefined || seen.peer !== peer || seen.incarnation !== machine.incarnation;
    if (isNew) {
      if (seen !== undefined && seen.incarnation === machine.incarnation) {
        this.#checkReplaced(seen, where);
      }
      this.#checkNewLife(machine, peer, seen, where);
    } else if (seen !== undefined && seen.applied > 0) {
      this.#checkNothingGoesBack(peer, seen, where);
    }
    if (seen === undefined || isNew) {
      seen = newSeen(machine, peer);
      this.#seen.set(key, seen);
    }
    const regionChanged = seen.region !== region;
    const confChanged = seen.confState !== node.confState;
    const isBack = needsApply(peer) && !seen.needsApply;
    if ((regionChanged || confChanged || isBack) && peer.isInitialized) {
      this.#checkDescriptor(peer, where);
    }
    if (confChanged) {
      const nowMs = peer.ctx.clock.monoMs();
      const keptMs = 2 * peer.ctx.config.leaderLeaseMs;
      const kept = seen.confs.filter(({ untilMs }) => nowMs - untilMs <= keptMs);
      seen.confs = [{ conf: seen.confState, untilMs: nowMs }, ...kept];
      seen.confState = node.confState;
    }
    if (peer.isLeader) {
      this.#checkLeader(peer, seen, where);
      this.#checkLease(peer, seen);
    }
    if (node.committed > seen.commit) {
      this.#checkCommittedTerm(peer, where);
      // Only the model knows what a merge has finished, and it is ignored where too much was lost.
      if (this.#hasModel && !isNew && !seen.isLeader && node.role !== 'leader') {
        const known = this.#options.model.regions.get(regionId);
        this.#options.evidence.checkCommitHeard(peer, known?.merging?.commit ?? known?.mergedInto?.commit ?? 0);
      }
    }
    seen.needsApply = needsApply(peer);
    if (seen.needsApply && !store.hasApply(regionId)) {
      violated('I3', `${where} is live and has nobody to apply its log`);
    }
    seen.isLeader = peer.isLeader;
    seen.term = node.term;
    seen.vote = node.vote;
    seen.commit = node.committed;
    seen.applied = peer.appliedIndex;
    seen.version = region.epoch.version;
    seen.confVer = region.epoch.confVer;
    seen.last = node.lastIndex;
    seen.first = node.firstIndex;
    seen.wasInitialized ||= peer.isInitialized;
    seen.region = region;
    return regionChanged;
  }

  /** L2. Nothing but time changes most leases between two rounds, and so they are looked at now and then. */
  #checkLease(peer: RaftPeer, seen: Seen): void {
    const nowMs = peer.ctx.clock.monoMs();
    if (this.#checksLeases && peer.isLeader && nowMs - seen.leaseSeenMs >= LEASE_LOOK_MS && wouldAnswer(peer)) {
      seen.leaseSeenMs = nowMs;
      this.#options.evidence.checkLease(peer, recentConfs(peer, seen));
    }
  }

  /** R6: order of the log positions. */
  #checkPositions(peer: RaftPeer, where: string): void {
    const { node } = peer;
    // A replica that ends gives up the snapshot it had accepted; its log was restored to that and means nothing any more.
    if (!peer.isInitialized || !peer.isActive || peer.installing.type !== 'none') {
      return;
    }
    const { appliedIndex } = peer;
    if (appliedIndex > node.committed || node.committed > node.lastIndex || node.firstIndex > appliedIndex + 1) {
      violated(
        'R6',
        `${where}: first ${node.firstIndex}, applied ${appliedIndex}, commit ${node.committed}, last ${node.lastIndex}`,
      );
    }
  }

  /** I27: an accepted snapshot is not forgotten with the replica that accepted it. */
  #checkReplaced({ peer, peerId }: Seen, where: string): void {
    if (peer.installing.type !== 'none' && peer.life.type === 'active') {
      violated('I27', `${where} replaces peer ${peerId}, whose snapshot is ${peer.installing.type}`);
    }
  }

  #checkNewLife(machine: ObservedMachine, peer: RaftPeer, seen: Seen | undefined, where: string): void {
    const peerId = peer.peer.id;
    const grave = this.#options.graves.get(`${machine.id}/${peer.regionId}`);
    if (
      grave !== undefined &&
      peerId <= grave.peerId &&
      (grave.isBuried || grave.incarnation !== machine.incarnation)
    ) {
      // G6, I4: what was removed stays removed. (The FSM of a replica outlives its record by a moment.)
      violated('I4', `${where} lives after the tombstone of peer ${grave.peerId}`);
    }
    if (seen === undefined) {
      return;
    }
    if (peerId < seen.peerId) {
      violated('I4', `${where} follows peer ${seen.peerId}`);
    }
    const promised = this.#options.promisedTerm(machine.id, peer.regionId, peerId);
    if (seen.peerId === peerId && peer.node.term < promised) {
      violated('R5', `${where} forgot term ${promised}, has ${peer.node.term}`);
    }
  }

  /** R5, I12: within a life nothing goes back. */
  #checkNothingGoesBack(peer: RaftPeer, seen: Seen, where: string): void {
    const { node, region } = peer;
    if (node.term < seen.term || node.committed < seen.commit || peer.appliedIndex < seen.applied) {
      violated(
        'R5',
        `${where} went back: term ${seen.term} to ${node.term}, commit ${seen.commit} to ${node.committed}, applied ${seen.applied} to ${peer.appliedIndex}`,
      );
    }
    if (node.term === seen.term && seen.vote !== 0 && node.vote !== seen.vote) {
      violated('P1', `${where} voted for ${seen.vote} in term ${node.term}, and now for ${node.vote}`);
    }
    if (region.epoch.version < seen.version || region.epoch.confVer < seen.confVer) {
      violated('I12', `the epoch of ${where} went back to ${formatRegion(region)}`);
    }
  }

  /** G1, G8: the descriptor is one that the log made, and the core goes by the same membership. */
  #checkDescriptor(peer: RaftPeer, where: string): void {
    const { region, node } = peer;
    if (this.#hasModel) {
      this.#options.model.checkDescriptor(region, where);
    }
    if (!peer.isActive || peer.installing.type !== 'none') {
      return;
    }
    const { voters, outgoing } = halvesOf(region);
    const { confState } = node;
    if (!isSameSet(voters, confState.voters) || !isSameSet(outgoing, confState.votersOutgoing)) {
      violated(
        'G8',
        `the core of ${where} counts voters [${confState.voters}] and [${confState.votersOutgoing}], the region is ${formatRegion(region)}`,
      );
    }
  }

  /** R1, R3 for a new leader; G8 for what a leader adds to its log. */
  #checkLeader(peer: RaftPeer, seen: Seen, where: string): void {
    const { node, regionId } = peer;
    const key = `${regionId}/${node.term}`;
    const other = this.#leaders.get(key);
    if (other !== undefined && other.peer.id !== peer.peer.id) {
      violated('R1', `peers ${other.peer.id} and ${peer.peer.id} both lead region ${regionId} in term ${node.term}`);
    }
    if (other !== undefined && other !== peer && this.#hasModel) {
      violated('R1', `${where} leads in term ${node.term}, in which it has led in an earlier life`);
    }
    this.#leaders.set(key, peer);
    if (!seen.isLeader || seen.term !== node.term) {
      this.#checkComplete(peer, where);
      if (seen.term !== NEVER_SEEN) {
        const committed = this.#hasModel ? this.#options.model.halvesAt(regionId, seen.commit) : undefined;
        this.#options.evidence.checkElection(peer, recentConfs(peer, seen), committed);
      }
      seen.confIndexes = [];
    }
    const from = Math.max(seen.isLeader ? seen.last : 0, node.applied) + 1;
    if (node.lastIndex >= from) {
      for (const entry of node.slice(from, node.lastIndex + 1, Number.MAX_SAFE_INTEGER)) {
        if (entry.type !== EntryType.Normal && entry.term === node.term) {
          seen.confIndexes.push(entry.index);
        }
      }
    }
    seen.confIndexes = seen.confIndexes.filter((index) => index > node.applied);
    if (seen.confIndexes.length > 1) {
      violated('G8', `${where} has membership changes [${seen.confIndexes}] in flight, applied is ${node.applied}`);
    }
  }

  /**
   * R3: a new leader has every entry that was committed in earlier terms. One of an old term that learns late of its
   * election may lack what its successors committed; it can commit nothing itself.
   */
  #checkComplete(peer: RaftPeer, where: string): void {
    const { log, tally } = this.#options;
    const { node, regionId } = peer;
    const last = log.lastBefore(regionId, node.term);
    if (node.lastIndex < last) {
      violated('R3', `${where} leads in term ${node.term} with entries up to ${node.lastIndex}; ${last} is committed`);
    }
    for (let index = Math.max(node.firstIndex, log.first(regionId)); index <= last; index++) {
      const term = node.termAt(index);
      if (term !== log.term(regionId, index)) {
        violated(
          'R3',
          `${where} leads in term ${node.term}; its entry ${index} is of term ${term}, committed was one of term ${log.term(regionId, index)}`,
        );
      }
    }
    tally.add('elections');
  }

  /** R2: the newest committed entry is the one that was committed. */
  #checkCommittedTerm(peer: RaftPeer, where: string): void {
    const { node, regionId } = peer;
    const known = this.#options.log.term(regionId, node.committed);
    const own = node.termAt(node.committed);
    if (known !== undefined && own >= 0 && own !== known) {
      violated(
        'R2',
        `${where} takes its entry ${node.committed} of term ${own} for committed; that is one of term ${known}`,
      );
    }
  }

  // ------------------------------------------------------------------------------------------ one store

  /** I1, G3: no two live replicas of a store overlap, and the map has exactly the initialized ones. */
  #checkMap(machine: ObservedMachine, store: RaftStore): void {
    let last: Region | undefined;
    for (const region of store.regionsByKey()) {
      if (last !== undefined && rangesOverlap(last.range, region.range)) {
        violated('I1', `store ${machine.id} holds ${formatRegion(last)} and ${formatRegion(region)}`);
      }
      last = region;
    }
    this.#options.tally.add('status');
  }

  /** G3: an accepted snapshot overlaps nothing but regions that end with it. */
  #checkPendingSnapshots(machine: ObservedMachine, store: RaftStore): void {
    const { meta } = store.inspect();
    for (const [id, region] of meta.pendingSnapshotRegions) {
      for (const other of meta.overlapping(region.range)) {
        if (other.id !== id && !meta.destroyedForSnapshot.has(other.id)) {
          violated(
            'G3',
            `store ${machine.id} accepts a snapshot of ${formatRegion(region)} over ${formatRegion(other)}`,
          );
        }
      }
      this.#options.tally.add('accepted snapshots');
    }
  }
}

/** Configurations by which something may have been decided that counts now. */
const recentConfs = ({ node }: RaftPeer, { confs }: Seen): readonly ConfState[] => [
  node.confState,
  ...confs.map(({ conf }) => conf),
];

function newSeen(machine: ObservedMachine, peer: RaftPeer): Seen {
  const { node, region } = peer;
  return {
    incarnation: machine.incarnation,
    peer,
    peerId: peer.peer.id,
    term: NEVER_SEEN,
    vote: 0,
    commit: 0,
    applied: 0,
    version: region.epoch.version,
    confVer: region.epoch.confVer,
    first: 0,
    last: 0,
    isLeader: false,
    needsApply: false,
    wasInitialized: false,
    leaseSeenMs: Number.NEGATIVE_INFINITY,
    region: undefined,
    confState: node.confState,
    confs: [],
    confIndexes: [],
  };
}
