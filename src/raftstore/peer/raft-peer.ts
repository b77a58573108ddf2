/**
 * The state of one replica on this store: its Raft group member, its durable storage and everything the operations
 * (propose, read, split, merge, snapshot, destroy) need to remember. Only the peer FSM of the region touches it; the
 * modules of `peer/` and `operation/` are its methods, grouped by subject.
 */
import { assert } from '../../base/assert.ts';
import type { RegionId } from '../../base/ids.ts';
import type { PeerMessage, PeerMessageBody } from '../../codec/peer-message.ts';
import type { ApplyState, Fence, MergeState, RaftLocalState } from '../../codec/store-record.ts';
import type { TimerId } from '../../env/clock.ts';
import type { Logger } from '../../env/log.ts';
import { findPeer, type Peer, type Region, type RegionEpoch } from '../../meta/region.ts';
import type { StepRefusal } from '../../meta/step-refusal.ts';
import { RawNode } from '../../raft/raw-node.ts';
import type { Message, Role, Snapshot } from '../../raft/types.ts';
import type { StoreContext } from '../context.ts';
import type { SplitCause } from '../store/counters.ts';
import type { FinishedCheck, RunningCheck } from '../operation/consistency.ts';
import type { AdminRequest, CatchUpLogs, PendingProposal, ReadRequest, StagedSnapshot, WriteRequest } from '../msg.ts';
import { EpochChecker } from './epoch-checker.ts';
import { Lease } from '../../raft/lease.ts';
import { LoadWatch } from './load-watch.ts';
import { PeerStorage } from './peer-storage.ts';

/** Where the replica is in its life. Only an active one takes Raft readies and messages. */
export type PeerLife =
  | { readonly type: 'active' }
  /** PrepareMerge is applied and the target takes over: the apply FSM is stopping, the data stays. */
  | { readonly type: 'merging-away' }
  /** On the way to a tombstone; `applyStopped` and a drained write queue are both needed before it is written. */
  | { readonly type: 'removing'; readonly keepData: boolean; readonly applyStopped: boolean }
  /** The tombstone batch is in flight. */
  | { readonly type: 'destroying'; readonly keepData: boolean }
  | { readonly type: 'dead' };

/** A snapshot of another leader on its way into this replica. */
export type Installing =
  | { readonly type: 'none' }
  /** Stepped into Raft; its ready is not taken yet. */
  | { readonly type: 'accepted'; readonly region: Region; readonly staged: StagedSnapshot }
  | {
      readonly type: 'persisting';
      readonly region: Region;
      readonly staged: StagedSnapshot;
      readonly oldRegion: Region;
      /** What clients may still believe of the keys; on disk with the same batch. */
      readonly former: readonly Region[];
      /** Noted with the same batch; to be started once it is durable. */
      readonly cleanTasks: readonly number[];
    }
  | { readonly type: 'installing'; readonly region: Region; readonly staged: StagedSnapshot };

/** A snapshot of this replica for a follower. */
export type Generating =
  | { readonly type: 'none' }
  /** The core asked for one; the task leaves behind this round's apply task. */
  | { readonly type: 'wanted'; readonly toPeer: number }
  | { readonly type: 'waiting'; readonly requestId: number; readonly toPeer: number }
  | { readonly type: 'ready'; readonly toPeer: number; readonly snapshot: Snapshot };

/** A Raft ready handed to the write queue. */
export interface InflightReady {
  readonly number: number;
  /** False if nothing of it needs the disk; it only waits for its predecessors. */
  readonly written: boolean;
  /** Raft messages to release: to other peers, or to the own core. */
  readonly responses: readonly Message[];
  /** Messages of a non-leader that may leave only now. */
  readonly held: readonly Message[];
  readonly snapshot: Snapshot | null;
}

/** A proposal whose entry is in the log and not yet handed to apply. */
export interface QueuedProposal extends PendingProposal {
  /** On the lease clock. */
  readonly proposedAtMs: number;
}

/** A read waiting for a read index or for apply. */
export interface PendingRead {
  readonly id: number;
  readonly term: number;
  /** On the lease clock. */
  readonly sentAtMs: number;
  readonly requests: readonly ReadRequest[];
  /** 0 until confirmed. */
  index: number;
  /** When the leader was asked last. */
  askedAtMs: number;
}

/** A request held back because the region is in the middle of something. */
export interface HeldRequest {
  readonly untilMs: number;
  readonly kind: 'merging' | 'no-leader';
  readonly request:
    | { readonly type: 'write'; readonly request: WriteRequest }
    | { readonly type: 'read'; readonly request: ReadRequest };
}

/** A split proposed for which ids were asked. */
export interface PendingSplit {
  readonly attempt: number;
  readonly keys: readonly Uint8Array[];
  readonly epochVersion: number;
  readonly requests: readonly AdminRequest[];
  readonly cause: SplitCause;
}

export interface RaftPeerOptions {
  readonly ctx: StoreContext;
  readonly peer: Peer;
  readonly region: Region;
  readonly raftState: RaftLocalState;
  readonly applyState: ApplyState;
  readonly mergeState: MergeState | undefined;
  /** The process restarted (as opposed to a brand-new replica): promises of a lease may be forgotten. */
  readonly restarted: boolean;
}

export class RaftPeer {
  readonly ctx: StoreContext;
  readonly log: Logger;
  readonly regionId: RegionId;
  /** This replica's own descriptor entry; the role follows the region. */
  peer: Peer;
  readonly storage: PeerStorage;
  readonly node: RawNode;

  life: PeerLife = { type: 'active' };
  destroyAfterInstall = false;
  installing: Installing = { type: 'none' };
  generating: Generating = { type: 'none' };
  nextRequestId = 1;

  // --- ready and persistence
  role: Role = 'follower';
  lead = 0;
  readyNumber = 0;
  readonly inflight: InflightReady[] = [];
  /** Last index handed to apply. */
  lastApplyingIndex: number;
  readonly pendingApplyAcks: { readonly lastIndex: number; readonly response: Message }[] = [];
  seenCommit: number;

  // --- proposals
  readonly batch: WriteRequest[] = [];
  batchOps = 0;
  batchBytes = 0;
  /** Version of the region for which the writes in `batch` were checked. */
  batchVersion = 0;
  readonly proposals: QueuedProposal[] = [];
  readonly epochChecker: EpochChecker = new EpochChecker();
  readonly held: HeldRequest[] = [];

  // --- reads
  readonly lease: Lease;
  readonly newReads: ReadRequest[] = [];
  readonly pendingReads: PendingRead[] = [];
  /**
   * Starts at random: answers to an earlier life of this replica, or to another replica, must not look like answers to
   * this one's reads.
   */
  nextReadId: number;
  /** Term in which this leader gave a read index to a follower; 0 if in none. */
  sharedReadsTerm = 0;
  /** Monotonic time of the newest read index asked for only to renew the lease. */
  renewAskedAtMs = 0;

  // --- merge
  pendingMerge: MergeState | undefined;
  catchUp: CatchUpLogs | undefined;
  readonly rollbackVotes: Set<number> = new Set();
  lastCommittedPrepareMergeIndex = 0;
  lastCommittedSplitIndex = 0;
  /** Highest index of a snapshot sent in this leadership; the last index on becoming leader. */
  lastSentSnapshotIndex = 0;
  checkMergeTimer: TimerId | undefined;

  // --- split
  pendingSplit: PendingSplit | undefined;
  splitAttempt = 0;
  splitCheckRunning = false;
  readonly halfSplitRequests: AdminRequest[] = [];
  /** Children of a split that this store's peers should campaign for if this peer becomes leader. */
  approximateSizeBytes = 0;
  approximateKeys = 0;
  /** Bytes written since the size was last measured. */
  writtenSinceCheckBytes = 0;
  flowBytesWritten = 0;
  flowKeysWritten = 0;
  flowBytesRead = 0;
  flowKeysRead = 0;
  readonly load: LoadWatch;

  // --- liveness
  /** Monotonic time of the last end of a leadership; undefined if this replica never led in this process. */
  lostLeadAtMs: number | undefined;
  leaderMissingSinceMs: number | undefined;
  lastStaleCheckMs = 0;
  /** When each fellow peer was last heard from (leader only). */
  readonly lastHeardMs: Map<number, number> = new Map();
  readonly peersBefore: Map<number, Peer> = new Map();
  /** While there is no data: the newest epoch in which somebody spoke to this replica as a member. */
  heardEpoch: RegionEpoch = { confVer: 0, version: 0 };
  pdHeartbeatDue = false;
  /** The last heartbeat named pending peers. */
  hadPending = false;
  lastPdHeartbeatMs = 0;
  /** The last step of an operator that was refused and not reported yet. */
  refusalToReport: StepRefusal | undefined;
  /** The last one reported, not to report the same again and again. */
  reportedRefusal: StepRefusal | undefined;
  gcFromIndex: number;
  lastHashIndex = 0;

  // --- consistency
  /** The check this leader has under way. */
  check: RunningCheck | undefined;
  finishedCheck: FinishedCheck | undefined;
  /** Peers whose data differed from the majority's at the latest check. */
  divergentPeers: ReadonlySet<number> = new Set();
  /** See fence.ts. */
  fence: Fence | undefined;

  constructor(options: RaftPeerOptions) {
    const { ctx, peer, region, raftState, applyState, mergeState, restarted } = options;
    const { config } = ctx;
    this.ctx = ctx;
    this.regionId = region.id;
    this.peer = peer;
    this.log = ctx.log.child({ region: region.id, peer: peer.id });
    this.pendingMerge = mergeState;
    this.lease = new Lease(config.leaderLeaseMs);
    this.load = new LoadWatch(config, ctx.rng.fork(`load-${region.id}`));
    this.nextReadId = ctx.rng.below(2 ** 32) * 2 ** 20 + 1;
    this.lastApplyingIndex = applyState.appliedIndex;
    this.gcFromIndex = applyState.truncatedIndex + 1;
    this.storage = new PeerStorage({
      engine: ctx.engine,
      region,
      raftState,
      applyState,
      snapshotFor: (to) => this.#takeSnapshot(to),
    });
    const { log } = this;
    this.node = new RawNode({
      id: peer.id,
      electionTick: config.electionTicks,
      heartbeatTick: config.heartbeatTicks,
      storage: this.storage,
      applied: applyState.appliedIndex,
      random: (n) => ctx.rng.below(n),
      logger: {
        debugEnabled: log.debugEnabled,
        debug: (line) => log.debug({}, line),
        info: (line) => log.debug({}, line),
        warn: (line) => log.warn({}, line),
        error: (line) => log.error({}, line),
      },
      asyncStorageWrites: true,
      preVote: true,
      checkQuorum: true,
      stepDownOnRemoval: true,
      maxSizePerMsg: config.maxSizePerMsgBytes,
      maxInflightMsgs: config.maxInflightMsgs,
      maxInflightBytes: config.maxInflightBytes,
      maxUncommittedBytes: config.maxUncommittedBytes,
      maxCommittedSizePerReady: config.maxCommittedPerReadyBytes,
      disableProposalForwarding: true,
      disableConfChangeValidation: false,
      reportCommit: true,
      commitByVote: true,
      voteGraceTicks: restarted ? config.electionTicks : 0,
      skipBcastCommit: false,
    });
    this.seenCommit = this.node.committed;
  }

  get region(): Region {
    return this.storage.region;
  }

  set region(region: Region) {
    this.storage.region = region;
    for (const peer of region.peers) {
      this.peersBefore.set(peer.id, peer);
    }
    const self = findPeer(region, this.peer.id);
    if (self !== undefined) {
      this.peer = self;
    }
  }

  get isActive(): boolean {
    return this.life.type === 'active';
  }

  get isLeader(): boolean {
    return this.role === 'leader';
  }

  get isInitialized(): boolean {
    return this.storage.isInitialized;
  }

  get appliedIndex(): number {
    return this.storage.applyState.appliedIndex;
  }

  /** PrepareMerge is committed (applied or not) and not rolled back: no lease, no read index, no proposals. */
  get isMerging(): boolean {
    return this.pendingMerge !== undefined || this.lastCommittedPrepareMergeIndex > this.appliedIndex;
  }

  get isSplitting(): boolean {
    return this.lastCommittedSplitIndex > this.appliedIndex;
  }

  /** The descriptor entry of a fellow peer, also of one that has left or that an uninitialized peer heard from. */
  findPeer(id: number): Peer | undefined {
    return this.region.peers.find((p) => p.id === id) ?? this.peersBefore.get(id);
  }

  /** What this replica knows of its membership; news that are older than this say nothing about it. */
  get knownEpoch(): RegionEpoch {
    return this.isInitialized ? this.region.epoch : this.heardEpoch;
  }

  rememberPeer(peer: Peer): void {
    this.peersBefore.set(peer.id, peer);
  }

  leaderPeer(): Peer | undefined {
    return this.lead === 0 ? undefined : this.findPeer(this.lead);
  }

  /** Wraps a body into an envelope. */
  envelope(to: Peer, body: PeerMessageBody, withRange: boolean): PeerMessage {
    return {
      regionId: this.regionId,
      from: this.peer,
      to,
      epoch: this.region.epoch,
      range: withRange && this.isInitialized ? this.region.range : undefined,
      body,
    };
  }

  send(to: Peer, body: PeerMessageBody): void {
    this.ctx.transport.send(this.envelope(to, body, false));
  }

  broadcast(body: PeerMessageBody): void {
    for (const peer of this.isInitialized ? this.region.peers : this.peersBefore.values()) {
      if (peer.id !== this.peer.id) {
        this.send(peer, body);
      }
    }
  }

  #takeSnapshot(to: number): Snapshot | null {
    const state = this.generating;
    if (state.type === 'ready') {
      // Made for one follower, good for any that it lists. The one it was made for may never ask again (it caught up
      // through the log), and must not keep the others waiting.
      const { metadata } = state.snapshot;
      const { voters, votersOutgoing, learners, learnersNext } = metadata.confState;
      const stillUseful =
        metadata.index >= this.storage.applyState.truncatedIndex &&
        this.region.peers.some((p) => p.id === to) &&
        [voters, votersOutgoing, learners, learnersNext].some((ids) => ids.includes(to));
      this.generating = { type: 'none' };
      if (stillUseful) {
        return state.snapshot;
      }
      this.ctx.snapshots.dropOf(state.snapshot);
    }
    if (
      this.generating.type === 'none' &&
      this.isActive &&
      this.pendingMerge === undefined &&
      this.fence === undefined
    ) {
      this.generating = { type: 'wanted', toPeer: to };
    }
    return null;
  }

  /** Asserts what must hold between rounds. */
  checkInvariants(): void {
    assert(this.lastApplyingIndex >= this.appliedIndex, 'applied index is beyond what was handed to apply', {
      region: this.regionId,
      lastApplyingIndex: this.lastApplyingIndex,
      applied: this.appliedIndex,
    });
  }
}
