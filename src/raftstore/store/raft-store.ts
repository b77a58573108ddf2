/**
 * The store of one process: all peers and apply FSMs, their mailboxes, and the loop that runs them. The only owner of
 * asynchronous completions in this room: it turns every one of them into a message.
 *
 * ```text
 * one round:  store mail ─► peers with mail: handle, propose, take readies ─► ONE log batch ─► write queue
 *                                                                         └─► apply FSMs with tasks ─► their batches
 *             then peer messages collected in the round leave together
 * ```
 */
import { LeaseClock } from '../../raft/lease.ts';
import { assert } from '../../base/assert.ts';
import { BoundedQueue } from '../../base/bounded-queue.ts';
import type { RegionId, StoreId } from '../../base/ids.ts';
import type { PeerMessage } from '../../codec/peer-message.ts';
import { decodeFence, decodeRaftLocalState } from '../../codec/raft-records.ts';
import type { RegionError } from '../../codec/region-error.ts';
import type { RaftLocalState } from '../../codec/store-record.ts';
import type { TimerId } from '../../env/clock.ts';
import { CorruptionError, EnginePoisonedError, type Engine, type WriteBatch } from '../../env/engine.ts';
import type { Env } from '../../env/env.ts';
import { fenceKey, raftStateKey } from '../../engine/keyspace.ts';
import type { DamagedPeer, RegionHeartbeatReply } from '../../meta/heartbeat.ts';
import { findPeerOnStore, type Peer, type Region } from '../../meta/region.ts';
import { ApplyFsm, type ApplyRegistration } from '../apply/apply-fsm.ts';
import type { RaftstoreConfig } from '../config.ts';
import { isBiased } from '../bias.ts';
import { APPLY_POINTS, PEER_POINTS, STORE_POINTS } from '../crash-points.ts';
import type { PdClient, PeerTransport, Router, StoreContext } from '../context.ts';
import type {
  AdminRequest,
  ApplyTask,
  PeerMsg,
  ReadRequest,
  RequestHeader,
  StagedSnapshot,
  StoreMsg,
  WriteRequest,
} from '../msg.ts';
import { evacuate } from '../operation/transfer-leader.ts';
import { raiseFence } from '../peer/fence.ts';
import { nextToCheck } from '../operation/consistency.ts';
import { failEverything } from '../peer/propose.ts';
import { EMPTY_APPLY_STATE, initialApplyState } from '../peer/peer-storage.ts';
import { PeerFsm } from '../peer/peer-fsm.ts';
import { RaftPeer } from '../peer/raft-peer.ts';
import { epochNotMatch, refusalOf, regionNotFound, serverIsBusy } from '../refusal.ts';
import type { SnapshotReceiver } from '../snapshot/receive.ts';
import { TTL_SWEEP_DEFAULTS, TtlSweeper, type ExpiredKey } from '../worker/ttl-sweep.ts';
import { createWorkers, type StoreWorkers } from '../worker/workers.ts';
import { initialRaftState, loadRegions, type LoadedPeer } from './load.ts';
import type { StoreCounters } from './counters.ts';
import { MergedAway } from './merged-away.ts';
import { PeriodicWork } from './periodic-work.ts';
import { decideRedirect } from './redirect-decision.ts';
import { RETIRE_ALONE_THRESHOLDS, type RedirectDecision, type RequestSpan } from './redirects.ts';
import { answerLost, bodyOfStep } from './requests.ts';
import { regionStatus, type RegionStatus } from './region-status.ts';
import { onUnknownPeerMessage } from './store-fsm.ts';
import { StoreWriter } from './store-writer.ts';
import { StoreMeta, type PendingCreatePeers } from './store-meta.ts';

export type { RegionStatus } from './region-status.ts';

export interface RaftStoreOptions {
  readonly env: Env;
  readonly config: RaftstoreConfig;
  readonly storeId: number;
  readonly engine: Engine;
  readonly transport: PeerTransport;
  readonly pd: PdClient;
}

/** Everything inside a store, for checkers: to be read between two rounds and never changed. */
export interface StoreInside {
  /** Replicas that have an FSM, dying ones included. */
  readonly replicas: ReadonlyMap<RegionId, { readonly fsm: { readonly peer: RaftPeer } }>;
  readonly meta: StoreMeta;
  readonly pendingCreatePeers: PendingCreatePeers;
  /** Generated snapshots that wait to be sent. */
  readonly waitingSnapshots: { readonly size: number };
}

interface PeerSlot {
  readonly fsm: PeerFsm;
  readonly mailbox: BoundedQueue<PeerMsg>;
  scheduled: boolean;
  /** Store tick up to which the group was brought. */
  tickedTo: number;
  /** Ticks until the group needs one by itself. */
  dueIn: number;
}

interface ApplySlot {
  readonly fsm: ApplyFsm;
  readonly mailbox: ApplyTask[];
  scheduled: boolean;
}

/** Delay of `bias.ts`, for tests only. */
const DEFERRED_ROUND_MS = 3;
/** How long the removal of expired values may wait for its region; the next pass tries again. */
const EXPIRE_DEADLINE_MS = 5_000;

export class RaftStore implements Router {
  readonly #env: Env;
  readonly #config: RaftstoreConfig;
  readonly #engine: Engine;
  readonly #transport: PeerTransport;
  readonly #ctx: StoreContext;
  readonly #writer: StoreWriter;
  readonly #workers: StoreWorkers;
  readonly #sweeper: TtlSweeper;
  readonly #peers: Map<RegionId, PeerSlot> = new Map();
  readonly #applies: Map<RegionId, ApplySlot> = new Map();
  readonly #mergedAway = new MergedAway();
  readonly #periodic: PeriodicWork;
  #storeMail: StoreMsg[] = [];
  #dirtyPeers: PeerSlot[] = [];
  #dirtyApplies: ApplySlot[] = [];
  #roundScheduled = false;
  #running = false;
  #stopped = false;
  #tick = 0;
  /** The region checked last. */
  #checkedRegion = 0;
  #timer: TimerId | undefined;
  readonly storeId: number;

  private constructor(options: RaftStoreOptions) {
    const { env, config, storeId, engine, transport, pd } = options;
    this.#env = env;
    this.#config = config;
    this.#engine = engine;
    this.#transport = this.#biased(transport);
    this.#periodic = new PeriodicWork({
      maintenance: config.maintenanceTickMs,
      heartbeat: config.pdHeartbeatMs,
      'split-check': config.splitCheckMs,
      consistency: config.consistencyCheckMs,
    });
    this.storeId = storeId;
    this.#writer = new StoreWriter({
      engine,
      clock: env.clock,
      failpoints: env.failpoints,
      isStopped: () => this.#stopped,
      run: (done) => this.#guard(done),
      onFailure: (error) => {
        this.#running = false;
        this.#env.abort('storage', `a write failed: ${String(error)}`, error);
      },
    });
    const meta = new StoreMeta();
    const pendingCreatePeers: PendingCreatePeers = new Map();
    const log = env.log.child({ store: storeId });
    this.#workers = createWorkers({
      engine,
      config,
      clock: env.clock,
      log,
      meta,
      failpoints: env.failpoints,
      router: this,
      abort: (reason, cause) => this.#abort(reason, cause),
    });
    this.#ctx = {
      storeId,
      config,
      clock: env.clock,
      leaseClock: new LeaseClock(env.clock),
      rng: env.rng.fork(`store-${storeId}`),
      log,
      failpoints: env.failpoints,
      engine,
      meta,
      pendingCreatePeers,
      router: this,
      transport: this.#transport,
      pd,
      workers: this.#workers,
      snapshots: this.#workers.snapshots,
      write: (batch, done) => this.#writer.write(batch, done),
      writeLazily: (batch, done) => this.#writer.writeLazily(batch, done),
      flushWrites: () => this.#writer.flush(),
      abort: (reason, cause) => this.#abort(reason, cause),
    };
    this.#sweeper = new TtlSweeper(this.#ctx, {
      ...TTL_SWEEP_DEFAULTS,
      isLeader: (region) => this.#peers.get(region)?.fsm.peer.isLeader === true,
      onExpired: (region, keys) => this.#removeExpired(region, keys),
    });
  }

  /** A transport that sends a message twice when a test wants it. */
  #biased(transport: PeerTransport): PeerTransport {
    return {
      send: (message) => {
        transport.send(message);
        if (isBiased(this.#env.failpoints, 'bias::send-twice', message.regionId)) {
          transport.send(message);
        }
      },
      sendSnapshot: (message, source, done) => transport.sendSnapshot(message, source, done),
      flush: () => transport.flush(),
    };
  }

  /** Gives back the space of values whose time has run out; each is removed only if nothing newer took its place. */
  #removeExpired(region: Region, keys: readonly ExpiredKey[]): void {
    const peer = findPeerOnStore(region, this.storeId as StoreId);
    if (peer === undefined) {
      return;
    }
    this.write({
      header: {
        regionId: region.id,
        epoch: region.epoch,
        peerId: peer.id,
        term: 0,
        deadlineMonoMs: this.#env.clock.monoMs() + EXPIRE_DEADLINE_MS,
      },
      ops: keys.map(({ key, expireAtSeconds }) => ({ type: 'expire', key, expireAtSeconds })),
      respond: () => {},
    });
  }

  /** Loads every region of the store. Nothing moves before {@link start}. */
  static async open(options: RaftStoreOptions): Promise<RaftStore> {
    const store = new RaftStore(options);
    const { failpoints } = options.env;
    failpoints.hit('boot::before-load');
    const loaded = await loadRegions(options.engine, options.storeId);
    failpoints.hit('boot::after-load');
    await store.#ctx.meta.redirects.load(options.engine, store.#now());
    for (const [source, target] of loaded.merged) {
      store.#mergedAway.set(source, target);
    }
    for (const peer of loaded.peers) {
      store.#restore(peer);
    }
    await store.#workers.start();
    failpoints.hit('boot::after-workers');
    return store;
  }

  #restore(loaded: LoadedPeer): void {
    const { region, peer, raftState, applyState, mergeState, state } = loaded;
    const { meta } = this.#ctx;
    meta.regions.set(region.id, region);
    meta.insertRange(region);
    const raftPeer = new RaftPeer({
      ctx: this.#ctx,
      peer,
      region,
      raftState,
      applyState,
      mergeState: state === 'merging' ? mergeState : undefined,
      restarted: true,
    });
    const fenceBytes = this.#engine.getSync(fenceKey(region.id));
    const fence = fenceBytes === undefined ? undefined : decodeFence(fenceBytes);
    if (fence?.peerId === peer.id) {
      raiseFence(raftPeer, fence);
    }
    this.#addPeer(raftPeer);
    if (state === 'applying') {
      const staged = this.#workers.stagedFor(region.id);
      assert(staged !== undefined, 'a region is installing a snapshot that is not staged', { region: region.id });
      raftPeer.installing = { type: 'installing', region, staged };
      this.#workers.installSnapshot(region, peer.id, staged);
      return;
    }
    this.registerApply({ peerId: peer.id, region, applyState, isMerging: state === 'merging' });
    if (state === 'merging') {
      this.toPeer(region.id, { type: 'check-merge' });
    }
  }

  /** Starts ticking and taking rounds. */
  start(): void {
    assert(!this.#running, 'the store was started twice');
    this.#running = true;
    this.#periodic.start(this.#env.clock.monoMs());
    for (const slot of this.#peers.values()) {
      this.#schedulePeer(slot);
    }
    this.#armTick();
    this.#scheduleRound();
    this.#sweeper.start();
  }

  /** Stops at once, as far as promises to others go; requests still waiting are answered as undetermined or not found. */
  async stop(): Promise<void> {
    if (this.#stopped) {
      return;
    }
    this.#stopped = true;
    this.#running = false;
    if (this.#timer !== undefined) {
      this.#env.clock.clearTimer(this.#timer);
    }
    for (const [region, slot] of this.#peers) {
      for (const msg of slot.mailbox.drain()) {
        answerLost(msg, regionNotFound(region));
      }
      failEverything(slot.fsm.peer, regionNotFound(region));
    }
    this.#writer.flush();
    await this.#sweeper.stop();
    await this.#workers.stop();
  }

  // -------------------------------------------------------------------------------------------- requests from outside

  write(request: WriteRequest): void {
    const slot = this.#peers.get(request.header.regionId);
    if (slot === undefined || this.#stopped) {
      request.respond({ type: 'refused', error: this.#unknownRegion(request.header.regionId) });
    } else if (!slot.mailbox.push({ type: 'write', request })) {
      request.respond({
        type: 'refused',
        error: serverIsBusy(`region ${request.header.regionId} has too many requests waiting`),
      });
    } else {
      this.#schedulePeer(slot);
    }
  }

  read(request: ReadRequest): void {
    const slot = this.#peers.get(request.header.regionId);
    if (slot === undefined || this.#stopped) {
      request.respond({ type: 'refused', error: this.#unknownRegion(request.header.regionId) });
    } else if (!slot.mailbox.push({ type: 'read', request })) {
      request.respond({
        type: 'refused',
        error: serverIsBusy(`region ${request.header.regionId} has too many requests waiting`),
      });
    } else {
      this.#schedulePeer(slot);
    }
  }

  /** What a read that was allowed found. */
  noteBytesRead(region: RegionId, bytes: number): void {
    const peer = this.#peers.get(region)?.fsm.peer;
    if (peer !== undefined) {
      peer.flowBytesRead += bytes;
      peer.load.noteBytes(bytes);
    }
  }

  admin(request: AdminRequest): void {
    if (this.#stopped || !this.toPeer(request.regionId, { type: 'admin', request })) {
      request.respond({ type: 'refused', error: this.#unknownRegion(request.regionId) });
    }
  }

  /** A message from another store. Dropped when the region's mailbox is full. */
  receive(message: PeerMessage): void {
    if (this.#stopped) {
      return;
    }
    const slot = this.#peers.get(message.regionId);
    if (slot === undefined || slot.fsm.isDead) {
      this.toStore({ type: 'peer-message', message });
    } else if (slot.mailbox.push({ type: 'peer-message', message })) {
      this.#schedulePeer(slot);
    }
  }

  /** Sizes of the notes about transitions; all zero at rest. For tests and diagnosis. */
  bookkeeping(): Readonly<Record<string, number>> {
    return { ...this.#ctx.meta.notes(), pendingCreatePeers: this.#ctx.pendingCreatePeers.size };
  }

  /** Prepares to receive the chunks of a snapshot announced by `message`; throws if there are too many already. */
  receiveSnapshot(message: PeerMessage): SnapshotReceiver {
    return this.#workers.receiveSnapshot(message);
  }

  /** All chunks are staged. */
  snapshotReceived(message: PeerMessage, staged: StagedSnapshot): void {
    if (!this.toPeer(message.regionId, { type: 'snapshot-received', message, staged })) {
      this.#workers.discardStaged(staged.stagingId);
    }
  }

  /** A step of an operator from the placement service. A refusal goes back with the next report of the region's leader. */
  onStep(reply: RegionHeartbeatReply): void {
    const { step, regionId, epoch } = reply;
    const body = bodyOfStep(step);
    this.admin({
      regionId,
      epoch,
      body,
      respond: (outcome) => {
        if (outcome.type !== 'ok') {
          const refusal = refusalOf(outcome);
          this.#ctx.log.info(
            { region: regionId, step: step.type, code: refusal.code, why: refusal.message },
            'operator step refused',
          );
          if (this.#peers.has(regionId)) {
            this.toPeer(regionId, { type: 'step-refused', step: step.type, refusal });
          }
        }
      },
    });
  }

  /** The connection to a store broke. */
  storeUnreachable(storeId: number): void {
    for (const [region, slot] of this.#peers) {
      if (slot.fsm.peer.isLeader && slot.fsm.peer.region.peers.some((p) => p.storeId === storeId)) {
        this.toPeer(region, { type: 'unreachable', storeId });
      }
    }
  }

  leaderCount(): number {
    let count = 0;
    for (const { fsm } of this.#peers.values()) {
      if (fsm.peer.isLeader && fsm.peer.isActive) {
        count++;
      }
    }
    return count;
  }

  /** Leaders of regions that have another voter to take over. */
  movableLeaderCount(): number {
    let count = 0;
    for (const { fsm } of this.#peers.values()) {
      const { peer } = fsm;
      if (
        peer.isLeader &&
        peer.isActive &&
        peer.region.peers.some((p) => p.id !== peer.peer.id && p.role === 'voter')
      ) {
        count++;
      }
    }
    return count;
  }

  get counters(): StoreCounters {
    return this.#ctx.meta.counters;
  }

  regionCount(): number {
    return this.#peers.size;
  }

  /** Background work under way, for store reports. */
  load(): StoreWorkers['load'] {
    return this.#workers.load;
  }

  /** Where a refused request of an outdated client may be carried out instead. */
  redirect(header: Pick<RequestHeader, 'regionId' | 'epoch'>, span: RequestSpan): RedirectDecision {
    return decideRedirect(this.#ctx, (region) => this.#peers.get(region)?.fsm.peer, header, span);
  }

  /** Regions whose earlier selves this store still answers for. */
  redirectedRegions(): readonly RegionId[] {
    return this.#ctx.meta.redirects.ids();
  }

  /** The placement service, or time, says that nobody believes in these any more. */
  retireRedirects(regions: readonly RegionId[]): void {
    const batch = this.#engine.createBatch();
    this.#ctx.meta.redirects.retire(regions, batch);
    this.#writeIfAny(batch);
  }

  #writeIfAny(batch: WriteBatch): void {
    if (batch.count > 0) {
      this.#writer.write(batch, () => {});
    }
  }

  #now(): { readonly monoMs: number; readonly wallMs: number } {
    return { monoMs: this.#env.clock.monoMs(), wallMs: this.#env.clock.wallMs() };
  }

  /** Asks every leader here to hand over; call repeatedly until {@link movableLeaderCount} is zero. */
  transferAllLeaders(): void {
    for (const slot of this.#peers.values()) {
      evacuate(slot.fsm.peer);
      this.#schedulePeer(slot);
    }
  }

  /** See {@link StoreInside}. */
  inspect(): StoreInside {
    return {
      replicas: this.#peers,
      meta: this.#ctx.meta,
      pendingCreatePeers: this.#ctx.pendingCreatePeers,
      waitingSnapshots: this.#workers.snapshots,
    };
  }

  status(): RegionStatus[] {
    return Array.from(this.#peers.values(), ({ fsm }) => regionStatus(fsm.peer));
  }

  /** Replicas here whose data differ from the others', for store reports. */
  damagedPeers(): readonly DamagedPeer[] {
    const out: DamagedPeer[] = [];
    for (const { fsm } of this.#peers.values()) {
      const { fence, peer, regionId } = fsm.peer;
      if (fence !== undefined) {
        out.push({ regionId, peerId: peer.id, index: fence.index, reason: fence.reason });
      }
    }
    return out;
  }

  /** The live regions of this store; for checks and tools. */
  regionsByKey(): Region[] {
    return [...this.#ctx.meta.initialized()];
  }

  /** The region on this store that contains `key`. */
  regionOfKey(key: Uint8Array): Region | undefined {
    return this.#ctx.meta.regionOfKey(key);
  }

  #unknownRegion(region: RegionId): RegionError {
    const target = this.mergedInto(region);
    return target === undefined ? regionNotFound(region) : epochNotMatch([target]);
  }

  // -------------------------------------------------------------------------------------------- Router

  toPeer(region: RegionId, msg: PeerMsg): boolean {
    const slot = this.#peers.get(region);
    if (slot === undefined) {
      answerLost(msg, this.#unknownRegion(region));
      return false;
    }
    slot.mailbox.forcePush(msg);
    this.#schedulePeer(slot);
    return true;
  }

  toApply(region: RegionId, task: ApplyTask): boolean {
    const slot = this.#applies.get(region);
    if (slot === undefined) {
      if (task.type === 'apply') {
        for (const proposal of task.proposals) {
          proposal.complete({ type: 'region-removed' });
        }
      }
      return false;
    }
    slot.mailbox.push(task);
    if (!slot.scheduled) {
      slot.scheduled = true;
      this.#dirtyApplies.push(slot);
    }
    this.#scheduleRound();
    return true;
  }

  toStore(msg: StoreMsg): void {
    this.#storeMail.push(msg);
    this.#scheduleRound();
  }

  hasPeer(region: RegionId): boolean {
    return this.#peers.has(region);
  }

  hasApply(region: RegionId): boolean {
    return this.#applies.has(region);
  }

  applyConflict(region: RegionId, keys: readonly Uint8Array[] | undefined): number {
    return this.#applies.get(region)?.fsm.conflictIndex(keys) ?? 0;
  }

  registerApply(registration: ApplyRegistration): void {
    this.#applies.set(registration.region.id, {
      fsm: new ApplyFsm(this.#ctx, registration),
      mailbox: [],
      scheduled: false,
    });
  }

  closePeer(region: RegionId, peerId: number): void {
    const slot = this.#peers.get(region);
    if (slot === undefined || slot.fsm.peer.peer.id !== peerId) {
      return;
    }
    this.#peers.delete(region);
    this.#applies.delete(region);
    for (const msg of slot.mailbox.drain()) {
      if (msg.type === 'peer-message' && msg.message.to.id > peerId) {
        // Mail for a newer incarnation of the replica.
        this.toStore({ type: 'peer-message', message: msg.message });
      } else {
        this.#lose(region, msg);
      }
    }
  }

  /** Mail for a replica that is gone, and for nobody else: requests are answered, a staged snapshot is removed. */
  #lose(region: RegionId, msg: PeerMsg): void {
    answerLost(msg, this.#unknownRegion(region));
    if (msg.type === 'snapshot-received') {
      this.#workers.discardStaged(msg.staged.stagingId);
    }
  }

  wake(region: RegionId): void {
    const slot = this.#peers.get(region);
    if (slot !== undefined) {
      this.#schedulePeer(slot);
    }
  }

  setMergedInto(source: RegionId, target: RegionId): void {
    this.#mergedAway.set(source, target);
  }

  mergedInto(source: RegionId): Region | undefined {
    return this.#mergedAway.follow(source, (id) => {
      const live = this.#ctx.meta.regions.get(id);
      return live !== undefined && live.peers.length > 0 ? live : undefined;
    });
  }

  createSplitPeer(
    region: Region,
    options: { readonly campaign: boolean; readonly sizeBytes: number; readonly keys: number },
  ): void {
    const ctx = this.#ctx;
    const self = findPeerOnStore(region, this.storeId as StoreId);
    assert(self !== undefined, 'a split child has no peer on this store', { region: region.id });
    let previous: RaftLocalState | undefined;
    const existing = this.#peers.get(region.id);
    if (existing !== undefined) {
      const { peer } = existing.fsm;
      assert(!peer.isInitialized, 'a split child exists already', { region: region.id });
      previous = peer.storage.raftState;
      peer.life = { type: 'dead' };
      this.closePeer(region.id, peer.peer.id);
    } else {
      const bytes = this.#engine.getSync(raftStateKey(region.id));
      previous = bytes === undefined ? undefined : decodeRaftLocalState(bytes);
    }
    ctx.failpoints.hit('split::before-create', region.id);
    const raftPeer = new RaftPeer({
      ctx,
      peer: self,
      region,
      raftState: initialRaftState(self.id, previous),
      applyState: initialApplyState(),
      mergeState: undefined,
      restarted: false,
    });
    raftPeer.approximateSizeBytes = options.sizeBytes;
    raftPeer.approximateKeys = options.keys;
    raftPeer.writtenSinceCheckBytes = Number.MAX_SAFE_INTEGER;
    const batch = this.#engine.createBatch();
    raftPeer.storage.putRaftState(batch);
    this.#writer.write(batch, () => {});
    ctx.meta.regions.set(region.id, region);
    ctx.meta.insertRange(region);
    ctx.pendingCreatePeers.delete(region.id);
    this.#addPeer(raftPeer);
    this.registerApply({ peerId: self.id, region, applyState: initialApplyState(), isMerging: false });
    for (const message of ctx.meta.takeMessages(region.id, self.id)) {
      this.toPeer(region.id, { type: 'peer-message', message });
    }
    ctx.failpoints.hit('split::after-create', region.id);
    const mayCampaign = options.campaign && !isBiased(ctx.failpoints, 'bias::no-campaign-after-split', region.id);
    if (mayCampaign && raftPeer.node.term === raftPeer.storage.raftState.term && raftPeer.lead === 0) {
      raftPeer.node.campaign();
    }
  }

  // -------------------------------------------------------------------------------------------- the loop

  #addPeer(peer: RaftPeer): void {
    const slot: PeerSlot = {
      fsm: new PeerFsm(peer),
      mailbox: new BoundedQueue(this.#config.mailboxLimit),
      scheduled: false,
      tickedTo: this.#tick,
      dueIn: 1,
    };
    this.#peers.set(peer.regionId, slot);
    this.#schedulePeer(slot);
  }

  #createByMessage(message: PeerMessage, raftState: RaftLocalState): void {
    const region: Region = {
      id: message.regionId,
      range: { start: new Uint8Array(0), end: new Uint8Array(0) },
      epoch: { confVer: 0, version: 0 },
      peers: [],
    };
    const peer: Peer = { id: message.to.id, storeId: this.storeId as StoreId, role: message.to.role };
    const raftPeer = new RaftPeer({
      ctx: this.#ctx,
      peer,
      region,
      raftState,
      applyState: EMPTY_APPLY_STATE,
      mergeState: undefined,
      restarted: raftState.term > 0,
    });
    raftPeer.rememberPeer(message.from);
    raftPeer.heardEpoch = message.epoch;
    this.#ctx.meta.regions.set(region.id, region);
    this.#ctx.log.info({ region: region.id, peer: peer.id }, 'created a replica for a message');
    this.#addPeer(raftPeer);
    this.toPeer(region.id, { type: 'peer-message', message });
  }

  #schedulePeer(slot: PeerSlot): void {
    if (!slot.scheduled) {
      slot.scheduled = true;
      this.#dirtyPeers.push(slot);
    }
    this.#scheduleRound();
  }

  #scheduleRound(): void {
    if (!this.#roundScheduled && this.#running) {
      this.#roundScheduled = true;
      const run = (): void => {
        this.#roundScheduled = false;
        if (this.#running) {
          this.#guard(() => this.#round());
        }
      };
      if (isBiased(this.#env.failpoints, 'bias::defer-round')) {
        this.#env.clock.setTimer(DEFERRED_ROUND_MS, run, 'store-round');
      } else {
        this.#env.clock.defer(run, 'store-round');
      }
    }
  }

  /** Anything thrown by an FSM is a broken invariant or damaged data: the process must not go on. */
  #guard(run: () => void): void {
    try {
      run();
    } catch (error) {
      if (error instanceof CorruptionError || error instanceof EnginePoisonedError) {
        this.#running = false;
        this.#env.abort('storage', error.message, error);
      }
      this.#abort(error instanceof Error ? error.message : String(error), error);
    }
  }

  #abort(reason: string, cause?: unknown): never {
    this.#running = false;
    const damaged = cause instanceof CorruptionError || cause instanceof EnginePoisonedError;
    return this.#env.abort(damaged ? 'storage' : 'bug', reason, cause);
  }

  #round(): void {
    const { failpoints } = this.#env;
    failpoints.hit('round::before-round');
    const storeMail = this.#storeMail;
    this.#storeMail = [];
    for (const msg of storeMail) {
      const { before, after } = STORE_POINTS[msg.type];
      failpoints.hit(before);
      this.#onStoreMsg(msg);
      failpoints.hit(after);
    }
    const peers = this.#dirtyPeers;
    this.#dirtyPeers = [];
    for (const slot of peers) {
      slot.scheduled = false;
      const { fsm } = slot;
      const owed = this.#tick - slot.tickedTo;
      if (owed > 0 && !fsm.isDead) {
        // Before any message the group is brought to the current tick: lease checks read its counters.
        slot.tickedTo = this.#tick;
        const { before, after } = PEER_POINTS['raft-tick'];
        failpoints.hit(before, fsm.peer.regionId);
        fsm.handle({ type: 'raft-tick', ticks: owed });
        failpoints.hit(after, fsm.peer.regionId);
      }
      for (const msg of slot.mailbox.drain()) {
        if (fsm.isDead) {
          this.#afterDeath(fsm.peer.regionId, fsm.peer.peer.id, msg);
        } else {
          const { before, after } = PEER_POINTS[msg.type];
          failpoints.hit(before, fsm.peer.regionId);
          fsm.handle(msg);
          failpoints.hit(after, fsm.peer.regionId);
        }
      }
    }
    const batch = this.#engine.createBatch();
    const written: { readonly region: RegionId; readonly peerId: number; readonly readyNumber: number }[] = [];
    for (const slot of peers) {
      const { fsm } = slot;
      if (fsm.isDead) {
        continue;
      }
      if (fsm.endRound(batch)) {
        written.push({ region: fsm.peer.regionId, peerId: fsm.peer.peer.id, readyNumber: fsm.peer.readyNumber });
      }
      const { peer } = fsm;
      slot.dueIn = peer.held.length > 0 || peer.pendingReads.length > 0 ? 1 : Math.max(1, peer.node.ticksToNextEvent());
      if (fsm.hasMore) {
        this.#schedulePeer(slot);
      }
    }
    failpoints.hit('round::after-peers');
    if (written.length > 0) {
      failpoints.hit('round::before-log-write');
      this.#writer.write(batch, () => {
        failpoints.hit('round::after-log-write');
        for (const { region, peerId, readyNumber } of written) {
          this.toPeer(region, { type: 'persisted', peerId, readyNumber });
        }
      });
    }
    failpoints.hit('round::before-applies');
    this.#runApplies();
    failpoints.hit('round::after-applies');
    failpoints.hit('round::before-flush');
    this.#transport.flush();
    failpoints.hit('round::after-flush');
  }

  #afterDeath(region: RegionId, peerId: number, msg: PeerMsg): void {
    if (msg.type === 'peer-message' && msg.message.to.id > peerId) {
      this.toStore({ type: 'peer-message', message: msg.message });
    } else {
      this.#lose(region, msg);
    }
  }

  #runApplies(): void {
    const { failpoints } = this.#env;
    const applies = this.#dirtyApplies;
    this.#dirtyApplies = [];
    for (const slot of applies) {
      slot.scheduled = false;
      const tasks = slot.mailbox.splice(0);
      for (const task of tasks) {
        const { before, after } = APPLY_POINTS[task.type];
        failpoints.hit(before, slot.fsm.regionId);
        slot.fsm.handle(task);
        failpoints.hit(after, slot.fsm.regionId);
      }
      slot.fsm.endRound();
    }
  }

  #onStoreMsg(msg: StoreMsg): void {
    switch (msg.type) {
      case 'peer-message':
        if (this.#peers.has(msg.message.regionId)) {
          this.toPeer(msg.message.regionId, { type: 'peer-message', message: msg.message });
        } else {
          onUnknownPeerMessage(
            this.#ctx,
            { createByMessage: (m, raftState) => this.#createByMessage(m, raftState) },
            msg.message,
          );
        }
        return;
      case 'range-cleaned':
        return;
    }
  }

  #armTick(): void {
    this.#timer = this.#env.clock.setTimer(
      this.#config.tickMs,
      () => {
        if (this.#running) {
          this.#guard(() => this.#onTick());
          this.#armTick();
        }
      },
      'raft-tick',
    );
  }

  /** One tick, however late: a stall must not look like silence of the leader. */
  #onTick(): void {
    this.#env.failpoints.hit('round::before-tick');
    this.#tick++;
    const nowMs = this.#env.clock.monoMs();
    const maintain = this.#periodic.take('maintenance', nowMs);
    const heartbeat = this.#periodic.take('heartbeat', nowMs);
    const splitCheck = this.#periodic.take('split-check', nowMs);
    for (const slot of this.#peers.values()) {
      const { mailbox } = slot;
      if (maintain) {
        mailbox.forcePush({ type: 'maintenance-tick' });
      }
      if (heartbeat) {
        mailbox.forcePush({ type: 'pd-heartbeat-tick' });
      }
      if (splitCheck) {
        mailbox.forcePush({ type: 'split-check-tick' });
      }
      if (maintain || heartbeat || splitCheck || this.#tick - slot.tickedTo >= slot.dueIn) {
        this.#schedulePeer(slot);
      }
    }
    if (maintain) {
      const { redirects } = this.#ctx.meta;
      const batch = this.#engine.createBatch();
      redirects.maintain(batch, this.#now());
      redirects.retire(redirects.olderThan(RETIRE_ALONE_THRESHOLDS * this.#config.proxyThresholdMs, nowMs), batch);
      this.#writeIfAny(batch);
    }
    if (this.#periodic.take('consistency', nowMs)) {
      this.#checkNextRegion();
    }
  }

  /** Compares the replicas of one region led here, each in turn. A check under way is not joined by another. */
  #checkNextRegion(): void {
    const chosen = nextToCheck(
      Array.from(this.#peers.values(), ({ fsm }) => fsm.peer),
      this.#checkedRegion,
    );
    if (chosen !== undefined) {
      this.#checkedRegion = chosen;
      this.toPeer(chosen, {
        type: 'admin',
        request: { regionId: chosen, epoch: undefined, body: { type: 'compute-hash' }, respond: () => {} },
      });
    }
  }
}
