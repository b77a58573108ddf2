/**
 * One leadership of the placement service without its network: owns the clocks of the placement logic, id windows and
 * timestamps, and writes through the replicated log. Everything that must be durable first is awaited here, so that the
 * logic behind stays synchronous. A member that gains the lead again starts another one. Runs on any Env, so the
 * simulator can run it unchanged.
 */
import { InvariantError, assert } from '../base/assert.ts';
import { AppError } from '../base/app-error.ts';
import { type RegionId, type StoreId, peerId, regionId } from '../base/ids.ts';
import type { TimerId } from '../env/clock.ts';
import { sleep } from '../env/clock.ts';
import type { Env } from '../env/env.ts';
import type { RegionHeartbeat, RegionHeartbeatReply, SplitIds, StoreHeartbeat } from '../meta/heartbeat.ts';
import { type Region, type RegionEpoch, type Store, isEpochStale, regionsEqual } from '../meta/region.ts';
import type { ReportVerdict } from './cluster/cluster.ts';
import { Auditor } from './auditor.ts';
import type { Author } from './cluster/events.ts';
import type { StoreRecord } from './cluster/store-info.ts';
import type { StoreSettingsChange } from './cluster/store-settings.ts';
import { type AllocationConfig, type PlacementConfig, checkPlacementConfig } from './defaults.ts';
import { DocumentKeeper } from './document-keeper.ts';
import { IdAllocator } from './ids/id-allocator.ts';
import { PauseKeeper } from './pause-keeper.ts';
import { SchedulerKeeper } from './scheduler-keeper.ts';
import { Placement } from './placement.ts';
import type { SplitCause } from './schedule/coordinator.ts';
import type { Operator } from './schedule/operator/operator.ts';
import type { SwitchName } from './schedule/switches.ts';
import { SWITCH_OFF_MAX_MS, isSwitchName } from './schedule/switches.ts';
import { type Refusal, type Result, ok, refuse, refused, regionNotFound, versionConflict } from './schedule/verdict.ts';
import type { PdCommand, PdResult, PdState, ServiceSafePoint } from './state/pd-state.ts';
import type { RegionLog } from './state/state-log.ts';
import { type StoreChangeOptions, StoreKeeper, type StoreStateOptions } from './store-keeper.ts';
import type { StoreTarget } from './store-planner.ts';
import { LOGICAL_MAX, type Timestamp, TimestampOracle } from './tso/timestamp-oracle.ts';

export interface PdNodeConfig {
  readonly placement: PlacementConfig;
  readonly allocation: AllocationConfig;
  /** Cluster id of a new cluster; undefined draws one. */
  readonly clusterId?: bigint;
}

/** The service cannot give timestamps at the moment. */
export class TimestampUnavailableError extends AppError {
  constructor() {
    super('TimestampUnavailable', 'no timestamps are reserved', { retry: 'backoff', hint: 'try again' });
  }
}

/** Ids handed out by one call at most. */
const IDS_PER_CALL_MAX = 1_000_000;
/** Regions remembered so that their refused splits are noted once. */
const SPLITS_REFUSED_MAX = 4_096;
/** Children of one split at most. */
const SPLIT_COUNT_MAX = 1_024;
/** Cluster ids stay below 2^53 so that clients may keep them in doubles. */
const CLUSTER_ID_HIGH = 2 ** 20;

export interface SwitchOptions {
  /** How long it is to be off; 0 = until it is switched on. Nothing to one that is switched on. */
  readonly offMs?: number;
  readonly reason?: string;
  /** Refused unless it was set so often before. */
  readonly expectVersion?: number;
}

/** Takes the commands for one store; false means that it cannot take any at the moment. */
export type CommandSink = (reply: RegionHeartbeatReply) => boolean;

/** What the node must know of the lead of its member. */
export interface Leadership {
  /** Whether an answer as the leader is allowed at this moment: the lease is valid. */
  isHeld(): boolean;
  /** Why it is not, naming the leader. */
  refusal(): AppError;
}

export interface PdNodeOptions {
  readonly env: Env;
  readonly config: PdNodeConfig;
  /** Writes in the term of this leadership only. */
  readonly log: RegionLog;
  /** Region descriptors written by earlier leaders; some may be outdated or overlap. */
  readonly regions: readonly Region[];
  readonly leadership: Leadership;
}

/** Something that is done again and again; the interval may change while it waits. */
interface Loop {
  readonly intervalMs: () => number;
  armedMs: number;
  readonly arm: () => void;
  timer: TimerId | undefined;
}

export class PdNode {
  readonly placement: Placement;
  readonly clusterId: bigint;
  readonly startedMs: number;
  readonly #env: Env;
  readonly #config: PdNodeConfig;
  readonly #log: RegionLog;
  readonly #leadership: Leadership;
  readonly pauses: PauseKeeper;
  readonly schedulers: SchedulerKeeper;
  readonly documents: DocumentKeeper;
  readonly #ids: IdAllocator;
  #extendingIds: Promise<void> | undefined;
  readonly #oracle: TimestampOracle;
  #extendingTso: Promise<void> | undefined;
  readonly #sinks = new Map<StoreId, CommandSink>();
  readonly #timers = new Set<TimerId>();
  readonly #loops: Loop[] = [];
  readonly #operatorWaiters = new Map<number, Set<() => void>>();
  /** Keeps in the audit log what people change. */
  readonly auditor: Auditor;
  readonly #stores: StoreKeeper;
  /** Pinned regions of which it was noted that they are not split. */
  readonly #splitsRefused = new Set<RegionId>();
  #closed = false;

  private constructor(options: PdNodeOptions, clusterId: bigint) {
    const { env, config, log } = options;
    this.#env = env;
    this.#config = config;
    this.#log = log;
    this.#leadership = options.leadership;
    this.clusterId = clusterId;
    this.startedMs = env.clock.monoMs();
    this.#ids = new IdAllocator(log.state.idLimit, config.allocation.idWindow);
    this.#oracle = new TimestampOracle(log.state.tsoSavedMs, config.allocation.tsoWindowMs);
    this.placement = new Placement({
      config: config.placement,
      clock: env.clock,
      rng: env.rng.fork('pd-placement'),
      takeId: () => this.#takeId(),
      onOperatorEnd: (operator) => this.#wakeWaiters(operator),
    });
    this.auditor = new Auditor({ clock: env.clock, log, placement: this.placement });
    this.#stores = new StoreKeeper({ clock: env.clock, auditor: this.auditor, placement: this.placement });
    this.pauses = new PauseKeeper({
      clock: env.clock,
      log,
      auditor: this.auditor,
      act: (change) => this.act(change),
    });
    this.documents = new DocumentKeeper({
      clock: env.clock,
      log,
      auditor: this.auditor,
      placement: this.placement,
      act: (change) => this.act(change),
      onSettings: () => this.#useSettings(),
    });
    this.schedulers = new SchedulerKeeper({
      log,
      placement: this.placement,
      auditor: this.auditor,
      inTurn: (run) => this.documents.inTurn(run),
    });
  }

  /**
   * Starts on the state the log holds, which must be that of all earlier leaders, and starts the clocks.
   * @throws NotLeaderError, LeadershipLostError if the lead is gone before everything is in place
   */
  static async start(options: PdNodeOptions): Promise<PdNode> {
    const { env, config, log, regions } = options;
    const problem = checkPlacementConfig(config.placement);
    assert(problem === undefined, `placement configuration is inconsistent: ${problem ?? ''}`);
    const node = new PdNode(options, await identify(env, log, config));
    try {
      await node.#start(log.state, regions);
    } catch (cause) {
      node.stop();
      throw cause;
    }
    return node;
  }

  async #start(state: PdState, regions: readonly Region[]): Promise<void> {
    const { placement } = this;
    assert(state.meta !== undefined, 'the cluster record exists once the node was identified');
    placement.cluster.setMaxReplicas(state.meta.maxReplicas);
    placement.cluster.setRules([...state.rules.values()]);
    this.#useSettings();
    for (const [name, setting] of state.switches) {
      if (isSwitchName(name)) {
        placement.switches.set(name, setting.enabled, setting.untilWallMs);
      }
    }
    this.schedulers.load();
    placement.load([...state.stores.values()], regions, state.meta.bootstrapped);
    placement.resources.store.load(state.resources.values(), state.resourceVersion);
    placement.resources.setPins(new Set(state.pins));
    placement.resources.pauses.set(state.pauses);
    this.#pump();
    await this.#extendIds(1);
    const planned = this.#oracle.plan(this.#env.clock.wallMs());
    await this.#propose({ type: 'extend-tso', savedMs: planned.save });
    this.#oracle.start(planned);
    const { allocation } = this.#config;
    const schedule = (): PlacementConfig => placement.cluster.config;
    this.#every(
      () => allocation.tsoUpdateMs,
      'pd-tso',
      () => this.#tickTimestamps(),
    );
    this.#every(
      () => schedule().pushIntervalMs,
      'pd-push',
      () => placement.tickOperators(),
    );
    this.#every(
      () => schedule().patrolIntervalMs,
      'pd-patrol',
      () => placement.tickPatrol(),
    );
    this.#every(
      () => schedule().schedulerIntervalMs,
      'pd-schedule',
      () => placement.tickSchedulers(),
    );
    this.#every(
      () => schedule().schedulerIntervalMs,
      'pd-assigner',
      () => this.#inBackground(this.documents.assign()),
    );
    this.#every(
      () => schedule().reconcileIntervalMs,
      'pd-documents',
      () => this.#inBackground(this.documents.reconcile()),
    );
    this.#every(
      () => schedule().storeCheckMs,
      'pd-stores',
      () => this.#removeEmptyStores(),
    );
    this.#every(
      () => schedule().storeCheckMs,
      'pd-pauses',
      () => this.#inBackground(this.pauses.forgetOver()),
    );
  }

  get isClosed(): boolean {
    return this.#closed;
  }

  get isBootstrapped(): boolean {
    return this.placement.cluster.bootstrapped;
  }

  /** Whether this node may answer at this moment; to be asked after the last wait before an answer. */
  get isLeading(): boolean {
    return !this.#closed && this.#leadership.isHeld();
  }

  /** @throws NotLeaderError */
  requireLead(): void {
    if (!this.isLeading) {
      throw this.#leadership.refusal();
    }
  }

  /** Stops the clocks and serves nothing any more, at once. Idempotent. */
  stop(): void {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    for (const timer of this.#timers) {
      this.#env.clock.clearTimer(timer);
    }
    this.#timers.clear();
    for (const waiters of this.#operatorWaiters.values()) {
      for (const wake of waiters) {
        wake();
      }
    }
    this.documents.stop();
  }

  /** Stops and waits for what is being written. */
  async close(): Promise<void> {
    this.stop();
    await this.#stores.flush();
    await this.documents.settled;
    await this.auditor.written();
    await this.#log.flush();
  }

  // ---------------------------------------------------------------------------------------------------- reports

  onRegionHeartbeat(heartbeat: RegionHeartbeat): ReportVerdict {
    return this.act((placement) => placement.onRegionHeartbeat(heartbeat));
  }

  onStoreHeartbeat(heartbeat: StoreHeartbeat): Refusal | undefined {
    const refusal = this.act((placement) => placement.onStoreHeartbeat(heartbeat));
    const record = this.placement.cluster.store(heartbeat.storeId)?.record;
    const wallMs = Math.floor(this.#env.clock.wallMs());
    if (
      refusal === undefined &&
      record !== undefined &&
      wallMs - record.lastHeartbeatWallMs >= this.placement.cluster.config.storeHeartbeatSaveMs
    ) {
      this.#background(this.#stores.noteHeartbeat(heartbeat.storeId, wallMs));
    }
    return refusal;
  }

  onSplitReport(regions: readonly Region[]): void {
    this.act((placement) => placement.onSplitReport(regions));
  }

  /** Commands for `store` go to `sink` from now on; the returned function undoes exactly this binding. */
  bindStore(store: StoreId, sink: CommandSink): () => void {
    this.#sinks.set(store, sink);
    return () => {
      if (this.#sinks.get(store) === sink) {
        this.#sinks.delete(store);
      }
    };
  }

  /** Runs `change` on the placement logic and carries out what follows from it. A broken invariant stops the process. */
  act<T>(change: (placement: Placement) => T): T {
    try {
      const result = change(this.placement);
      this.#pump();
      return result;
    } catch (cause) {
      if (cause instanceof InvariantError) {
        this.#env.abort('bug', cause.message, cause);
      }
      throw cause;
    }
  }

  /** Carries out effects. Commands for stores without a stream are lost: the push loop sends them again. */
  #pump(): void {
    const { commands, saves, deletes, audits } = this.placement.takeEffects();
    this.auditor.note(audits);
    for (const { storeId, reply } of commands) {
      this.#sinks.get(storeId)?.(reply);
    }
    for (const region of saves) {
      this.#log.saveRegion(region);
    }
    for (const id of deletes) {
      if (this.placement.cluster.tree.get(id) === undefined) {
        this.#log.deleteRegion(id);
      }
    }
  }

  // ------------------------------------------------------------------------------------------------ cluster life

  /**
   * First store and first region. Refused with AlreadyBootstrapped when another store was first; a store that repeats
   * its own bootstrap, because it crashed or lost the answer, is told that it succeeded.
   */
  async bootstrap(store: Store, region: Region): Promise<Refusal | undefined> {
    const record: StoreRecord = {
      store: { ...store, state: 'up' },
      physicallyDestroyed: false,
      lastHeartbeatWallMs: 0,
    };
    const result = await this.#propose({
      type: 'bootstrap',
      store: record,
      region,
      wallMs: Math.max(0, Math.floor(this.#env.clock.wallMs())),
    });
    if (result.type === 'done') {
      this.act((placement) => placement.bootstrapped(record, region));
      return undefined;
    }
    const first = this.#log.state.meta?.firstRegion;
    if (result.reason === 'exists' && first !== undefined && regionsEqual(first, region)) {
      return undefined;
    }
    return result.reason === 'exists'
      ? refuse('AlreadyBootstrapped', 'the cluster exists already', 'join it: drop the prepared first region')
      : refuse(
          'InvalidArgument',
          'the first region must cover everything, with one peer on the first store and ids above 0',
          'ask for ids first',
        );
  }

  /** The region the cluster was founded with; a store that repeats its bootstrap recognizes its own. */
  get firstRegion(): Region | undefined {
    return this.#log.state.meta?.firstRegion;
  }

  /** A store announces itself; `starts` counts its starts, this one included. */
  async putStore(store: Store, starts?: number): Promise<Refusal | undefined> {
    if (!this.isBootstrapped) {
      return notBootstrapped();
    }
    return this.#stores.put(store, starts);
  }

  /** An administrator wants a store emptied, gone or back. */
  setStoreState(id: StoreId, target: StoreTarget, options: StoreStateOptions): Promise<Refusal | undefined> {
    return this.#stores.setState(id, target, options);
  }

  /** An administrator changes settings or labels of a store. */
  setStoreSettings(
    id: StoreId,
    change: StoreSettingsChange,
    options: StoreChangeOptions,
  ): Promise<Refusal | undefined> {
    return this.#stores.setSettings(id, change, options);
  }

  #removeEmptyStores(): void {
    for (const { store } of this.placement.planRemovals()) {
      this.#background(this.#stores.removeEmpty(store.id));
    }
  }

  /** Ids for `count` children of a region whose descriptor must be the current one. */
  async askBatchSplit(region: Region, count: number, cause?: SplitCause): Promise<Result<SplitIds[]>> {
    const checked = this.#checkSplit(region, count);
    if (checked !== undefined) {
      return refused(checked);
    }
    const first = await this.allocIds(count * (1 + region.peers.length));
    if (first.type === 'refused') {
      return first;
    }
    let next = first.value;
    const ids = Array.from({ length: count }, () => ({
      newRegionId: regionId(next++),
      newPeerIds: region.peers.map(() => peerId(next++)),
    }));
    this.placement.coordinator.noteSplit([region.id, ...ids.map((split) => split.newRegionId)], cause);
    return ok(ids);
  }

  /** A store asks again and again about a region that is too large; once is enough to know. */
  #noteSplitRefused(region: RegionId, refusal: Refusal): void {
    if (!this.#splitsRefused.has(region)) {
      if (this.#splitsRefused.size >= SPLITS_REFUSED_MAX) {
        this.#splitsRefused.clear();
      }
      this.#splitsRefused.add(region);
      this.placement.event({ type: 'step-refused', message: `not split: ${refusal.message}`, regionId: region });
    }
  }

  #checkSplit(region: Region, count: number): Refusal | undefined {
    if (!Number.isSafeInteger(count) || count < 1 || count > SPLIT_COUNT_MAX) {
      return refuse('InvalidArgument', `${count} is not a number of children`, `ask for 1 to ${SPLIT_COUNT_MAX}`);
    }
    const known = this.placement.cluster.tree.get(region.id);
    if (known === undefined) {
      return regionNotFound(region.id);
    }
    if (isEpochStale(region.epoch, known.region.epoch)) {
      return refuse(
        'EpochChanged',
        `the split of region ${region.id} was asked with an old epoch`,
        'look at the region again',
        {
          region_id: region.id,
        },
      );
    }
    const running = this.placement.controller.runningOn(region.id);
    // Only splits that somebody asked for divide a pinned region; the size of a region is no reason.
    const { resources } = this.placement;
    const paused = resources.pausedReason(known);
    if (paused !== undefined) {
      this.#noteSplitRefused(region.id, paused);
      return paused;
    }
    const pinned = resources.pinnedReason(known) ?? resources.lockedReason(known);
    if (pinned !== undefined && running?.steps.some((step) => step.type === 'split-region') !== true) {
      this.#noteSplitRefused(region.id, pinned);
      return pinned;
    }
    if (running !== undefined && (running.isMergeSource || running.isMergeTarget)) {
      return refuse('MergeInProgress', `region ${region.id} is being merged`, 'wait until the merge ended', {
        region_id: region.id,
        operator_id: running.id,
      });
    }
    return undefined;
  }

  // ------------------------------------------------------------------------------------------- ids and timestamps

  /** The first of `count` consecutive ids. */
  async allocIds(count: number): Promise<Result<number>> {
    if (!Number.isSafeInteger(count) || count < 1 || count > IDS_PER_CALL_MAX) {
      return refused(
        refuse('InvalidArgument', `${count} ids cannot be given out at once`, `ask for 1 to ${IDS_PER_CALL_MAX}`),
      );
    }
    for (;;) {
      this.requireLead();
      const first = this.#ids.take(count);
      if (first !== undefined) {
        if (this.#ids.isLow) {
          this.#background(this.#extendIds(1));
        }
        return ok(first);
      }
      // Others may take from the new window first; each round adds at least what this caller needs.
      await this.#extendIds(count);
    }
  }

  #takeId(): number | undefined {
    if (!this.isLeading) {
      return undefined;
    }
    const id = this.#ids.take(1);
    if (this.#ids.isLow) {
      this.#background(this.#extendIds(1));
    }
    return id;
  }

  /** Makes a longer window durable; calls at the same time share one write. */
  #extendIds(count: number): Promise<void> {
    this.#extendingIds ??= this.#writeIdLimit(count).finally(() => {
      this.#extendingIds = undefined;
    });
    return this.#extendingIds;
  }

  async #writeIdLimit(count: number): Promise<void> {
    const limit = this.#ids.nextLimit(count);
    const result = await this.#propose({ type: 'extend-ids', expected: this.#ids.limit, limit });
    assert(result.type === 'done', 'another member extended the id window', { limit });
    this.#ids.extend(limit);
  }

  /** The last of `count` timestamps. @throws TimestampUnavailableError, NotLeaderError */
  async timestamps(count: number): Promise<Timestamp> {
    assert(count >= 1 && count <= LOGICAL_MAX, 'timestamp count out of range', { count });
    for (let round = 0; round < this.#config.allocation.tsoWaitRoundsMax && !this.#closed; round++) {
      // A lease that has just run out may come back at the next answer of the majority.
      if (this.isLeading) {
        const verdict = this.#oracle.serve(count);
        if (verdict.type === 'ok') {
          return verdict.last;
        }
        this.#tickTimestamps();
      }
      if (this.#extendingTso === undefined) {
        await sleep(this.#env.clock, this.#config.allocation.tsoUpdateMs, 'pd-tso-wait');
      } else {
        await this.#extendingTso;
      }
    }
    this.requireLead();
    throw new TimestampUnavailableError();
  }

  #tickTimestamps(): void {
    const save = this.#oracle.tick(this.#env.clock.wallMs());
    if (save !== undefined && this.#extendingTso === undefined) {
      this.#extendingTso = this.#propose({ type: 'extend-tso', savedMs: save })
        .then((result) => {
          if (result.type === 'done') {
            this.#oracle.extend(save);
          }
        })
        .finally(() => {
          this.#extendingTso = undefined;
        });
      this.#background(this.#extendingTso);
    }
  }

  // ------------------------------------------------------------------------------------- switches and settings

  async setSwitch(
    name: SwitchName,
    enabled: boolean,
    actor: string,
    options: SwitchOptions = {},
  ): Promise<Refusal | undefined> {
    const { offMs = 0, reason = '', expectVersion } = options;
    if (!Number.isSafeInteger(offMs) || offMs < 0 || offMs > SWITCH_OFF_MAX_MS || (enabled && offMs > 0)) {
      return refuse(
        'InvalidArgument',
        `${name} cannot be ${enabled ? 'on' : 'off'} for ${offMs} ms`,
        `a switch goes off for at most ${SWITCH_OFF_MAX_MS / 86_400_000} days`,
      );
    }
    const untilWallMs = Math.floor(this.#env.clock.wallMs()) + offMs;
    const until = offMs === 0 ? '' : ` for ${Math.ceil(offMs / 1_000)} s`;
    const result = await this.auditor.change(
      {
        type: 'set-switch',
        name,
        enabled,
        ...(offMs === 0 ? {} : { untilWallMs }),
        ...(expectVersion === undefined ? {} : { expectVersion }),
      },
      [{ type: 'switch', message: `${name} was switched ${enabled ? 'on' : 'off'}${until}`, actor, reason }],
    );
    if (result.type === 'refused') {
      return versionConflict(`the switch ${name}`, this.switchVersion(name), expectVersion ?? 0, { name });
    }
    this.placement.switches.set(name, enabled, offMs === 0 ? undefined : untilWallMs);
    return undefined;
  }

  /** How often a switch was set. */
  switchVersion(name: SwitchName): number {
    return this.#log.state.switchVersions.get(name) ?? 0;
  }

  /** What this process was started with, from flags, environment, file and defaults. */
  get fileConfig(): PlacementConfig {
    return this.#config.placement;
  }

  /** What the cluster remembers of its founding. A Config document wins over it, so it is refused beside one. */
  async setMaxReplicas(maxReplicas: number): Promise<Refusal | undefined> {
    if (this.#log.state.settings.values.has('max-replicas')) {
      return refuse(
        'Conflict',
        'max-replicas is set by the Config document placement',
        'change it there: braid ctl export config, then braid ctl apply',
      );
    }
    const result = await this.auditor.change({ type: 'set-max-replicas', maxReplicas }, [
      { type: 'replica-count', message: `the cluster is to have ${maxReplicas} replicas of everything` },
    ]);
    if (result.type === 'refused') {
      return refuse('InvalidArgument', `${maxReplicas} is not a number of replicas`, 'give a positive integer');
    }
    this.placement.cluster.setMaxReplicas(maxReplicas);
    return undefined;
  }

  // ------------------------------------------------------------------------------------------------- documents

  changeRules(...args: Parameters<DocumentKeeper['changeRules']>): ReturnType<DocumentKeeper['changeRules']> {
    return this.documents.changeRules(...args);
  }

  changeDocuments(...args: Parameters<DocumentKeeper['change']>): ReturnType<DocumentKeeper['change']> {
    return this.documents.change(...args);
  }

  waitForDocuments(...args: Parameters<DocumentKeeper['wait']>): ReturnType<DocumentKeeper['wait']> {
    return this.documents.wait(...args);
  }

  /** Whether the pin was not as wanted before. Of a region that is not known, only a pin that was set can be taken back. */
  async pinRegion(id: RegionId, pinned: boolean, author: Author, expectEpoch?: RegionEpoch): Promise<Result<boolean>> {
    const info = this.placement.cluster.tree.get(id);
    const changed = info === undefined ? undefined : this.placement.epochRefusal(info, expectEpoch);
    if (changed !== undefined) {
      return refused(changed);
    }
    if (this.placement.resources.isPinnedByHand(id) === pinned) {
      return ok(false);
    }
    const message = `region ${id} was ${pinned ? 'pinned' : 'unpinned'}`;
    await this.auditor.change({ type: 'pin-region', id, pinned }, [
      { type: 'region-pinned', message, regionId: id, ...author },
    ]);
    this.placement.resources.setPins(new Set(this.#log.state.pins));
    return ok(true);
  }

  /** What people changed and what was removed, whoever led then. */
  get audit(): PdState['audit'] {
    return this.#log.state.audit;
  }

  // ---------------------------------------------------------------------------------------------- safe points

  get gcSafePoint(): bigint {
    return this.#log.state.gcSafePoint;
  }

  /** Moves the safe point forward; answers the effective one, which is the old one if that is larger. */
  async advanceGcSafePoint(safePoint: bigint): Promise<bigint> {
    await this.#propose({ type: 'advance-gc-safe-point', safePoint });
    return this.#log.state.gcSafePoint;
  }

  /** Registers, moves or (ttl <= 0) drops the safe point of a service; answers the lowest live one. */
  async updateServiceSafePoint(
    serviceId: string,
    ttlSeconds: number,
    safePoint: bigint,
  ): Promise<ServiceSafePoint | undefined> {
    const nowSeconds = Math.max(0, Math.floor(this.#env.clock.wallMs() / 1000));
    const lowest = lowestSafePoint(this.#log.state, nowSeconds);
    if (ttlSeconds <= 0) {
      await this.#propose({ type: 'drop-service-safe-point', serviceId });
    } else if (safePoint >= this.#log.state.gcSafePoint && (lowest === undefined || safePoint >= lowest.safePoint)) {
      const expiresAtSeconds = Math.min(Number.MAX_SAFE_INTEGER, nowSeconds + ttlSeconds);
      await this.#propose({ type: 'put-service-safe-point', point: { serviceId, safePoint, expiresAtSeconds } });
    }
    return lowestSafePoint(this.#log.state, nowSeconds);
  }

  // -------------------------------------------------------------------------------------------------- operators

  /** Resolves when the operator has ended, or after `waitMs`. */
  async waitForOperator(operator: Operator, waitMs: number): Promise<void> {
    if (operator.hasEnded || waitMs <= 0 || this.#closed) {
      return;
    }
    const waiters = this.#operatorWaiters.get(operator.id) ?? new Set();
    this.#operatorWaiters.set(operator.id, waiters);
    await new Promise<void>((resolve) => {
      const { clock } = this.#env;
      const timer = clock.setTimer(waitMs, () => wake(), 'pd-wait-operator');
      const wake = (): void => {
        clock.clearTimer(timer);
        waiters.delete(wake);
        resolve();
      };
      waiters.add(wake);
    });
    if (waiters.size === 0) {
      this.#operatorWaiters.delete(operator.id);
    }
  }

  #wakeWaiters(operator: Operator): void {
    for (const wake of this.#operatorWaiters.get(operator.id) ?? []) {
      wake();
    }
  }

  // ------------------------------------------------------------------------------------------------- machinery

  #propose(command: PdCommand): Promise<PdResult> {
    return this.#log.propose(command);
  }

  /** Repeats `fn` until the node is closed; effects of the placement logic are carried out after each round. */
  #every(intervalMs: () => number, tag: string, fn: () => void): void {
    const loop: Loop = { intervalMs, armedMs: 0, arm: () => arm(), timer: undefined };
    const arm = (): void => {
      if (this.#closed) {
        return;
      }
      loop.armedMs = intervalMs();
      const timer = this.#env.clock.setTimer(
        loop.armedMs,
        () => {
          this.#timers.delete(timer);
          loop.timer = undefined;
          if (this.isLeading) {
            this.act(fn);
          }
          arm();
        },
        tag,
      );
      loop.timer = timer;
      this.#timers.add(timer);
    };
    this.#loops.push(loop);
    arm();
  }

  /** Settings set at run time take effect: also the intervals of what is waiting now. */
  #useSettings(): void {
    const problem = this.placement.cluster.setSettings(this.#log.state.settings.values);
    if (problem !== undefined) {
      this.#env.log.warn({ problem }, 'settings made at run time do not fit the configuration and have no effect');
      this.placement.event({
        type: 'config-changed',
        message: `what was set at run time does not fit the configuration of this member and has no effect: ${problem}`,
      });
    }
    for (const loop of this.#loops) {
      if (loop.timer !== undefined && loop.armedMs !== loop.intervalMs()) {
        this.#env.clock.clearTimer(loop.timer);
        this.#timers.delete(loop.timer);
        loop.arm();
      }
    }
  }

  #inBackground(work: Promise<unknown> | undefined): void {
    if (work !== undefined) {
      this.#background(work);
    }
  }

  /** Lets a write go on alone. It fails only together with the lead, or with the engine, which then stops the process. */
  #background(work: Promise<unknown>): void {
    work.catch((cause: unknown) => {
      if (this.isLeading) {
        this.#env.log.warn({ cause }, 'a background write of the placement service failed');
      }
    });
  }
}

/** Finds the cluster id, or makes it: the first thing the log of a new cluster decides. */
async function identify(env: Env, log: RegionLog, config: PdNodeConfig): Promise<bigint> {
  const known = log.state.meta?.clusterId;
  if (known !== undefined) {
    return known;
  }
  const rng = env.rng.fork('pd-cluster-id');
  const clusterId = config.clusterId ?? BigInt(1 + rng.below(CLUSTER_ID_HIGH)) * 2n ** 32n + BigInt(rng.u32());
  const result = await log.propose({ type: 'init-cluster', clusterId, maxReplicas: config.placement.maxReplicas });
  assert(result.type === 'done', 'a new data directory has no cluster record');
  return clusterId;
}

function lowestSafePoint(state: PdState, nowSeconds: number): ServiceSafePoint | undefined {
  let lowest: ServiceSafePoint | undefined;
  for (const point of state.serviceSafePoints.values()) {
    if (point.expiresAtSeconds > nowSeconds && (lowest === undefined || point.safePoint < lowest.safePoint)) {
      lowest = point;
    }
  }
  return lowest;
}

const notBootstrapped = (): Refusal =>
  refuse('NotBootstrapped', 'the cluster has no first store yet', 'bootstrap it with a first store');
