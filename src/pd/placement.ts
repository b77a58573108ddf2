/**
 * The placement logic as a whole: reports in, commands and changed records out. Synchronous and deterministic; owns the
 * region map, the operators and the checkers. It never touches disk or network: the owner takes the effects after each
 * call and carries them out.
 */
import type { RegionId, StoreId } from '../base/ids.ts';
import { compareBytes, keyAfter } from '../base/bytes.ts';
import type { Clock } from '../env/clock.ts';
import type { Rng } from '../env/rng.ts';
import type { RegionHeartbeat, StoreHeartbeat } from '../meta/heartbeat.ts';
import { type Region, type RegionEpoch, type Store, epochsEqual, formatEpoch } from '../meta/region.ts';
import { Cluster, type ReportVerdict } from './cluster/cluster.ts';
import { PAUSE_MAX_MS, PAUSE_REASON_MAX, type RegionPause } from './cluster/pauses.ts';
import { type EventInput, EventList, eventsOfReport } from './cluster/events.ts';
import type { RegionInfo } from './cluster/region-info.ts';
import {
  DEFAULT_STORE_SETTINGS,
  type StoreInfo,
  type StoreRecord,
  isUp,
  livenessOf,
  mergeLabels,
  settingsOf,
} from './cluster/store-info.ts';
import { type StoreSettingsChange, changedRecord, problemOfSettings, sameRecord } from './cluster/store-settings.ts';
import type { PlacementConfig } from './defaults.ts';
import { type Check, firstRefusal, mergeChecks } from './schedule/checker/merge-checks.ts';
import { proposeMerge } from './resource/assigner.ts';
import { POD_LABEL, podNameOf } from './resource/facts.ts';
import { ClusterRedirects } from './resource/redirects.ts';
import { Reconciler } from './resource/reconciler.ts';
import type { ResourceChange } from './resource/resource-store.ts';
import type { Partition } from './resource/resource.ts';
import { Resources } from './resource/resources.ts';
import { Coordinator, type SplitCause } from './schedule/coordinator.ts';
import {
  type ExplainContext,
  type Finding,
  explainRegion,
  explainScheduler,
  explainStore,
} from './schedule/explain.ts';
import { checkLeaderTarget } from './schedule/filter/store-filter.ts';
import type { WantedRole } from './schedule/operator/builder.ts';
import { OperatorController, type OutgoingCommand } from './schedule/operator/controller.ts';
import { type Made, type Maker, OperatorFactory } from './schedule/operator/create.ts';
import type { Operator } from './schedule/operator/operator.ts';
import type { OperatorGroup } from './schedule/operator/waiting-queue.ts';
import type { PlacementRule } from './schedule/placement/rule.ts';
import { notAdded } from './schedule/scheduler-plan.ts';
import { type RulePlan, type RulePlanView, planDeleteRule, planSetRule } from './schedule/placement/rule-plan.ts';
import { type SwitchName, Switches, isSwitchName } from './schedule/switches.ts';
import {
  type Refusal,
  type Result,
  ok,
  refuse,
  refused,
  regionNotFound,
  storeNotFound,
  unknownSwitch,
} from './schedule/verdict.ts';

export interface PlacementOptions {
  readonly config: PlacementConfig;
  readonly clock: Pick<Clock, 'monoMs' | 'wallMs'>;
  readonly rng: Rng;
  /** A fresh cluster-wide id; undefined when none is reserved at the moment. */
  readonly takeId: () => number | undefined;
  /** Called once for every operator that ended. */
  readonly onOperatorEnd?: (operator: Operator) => void;
}

/** What the owner has to do after a call, in no particular order. */
export interface PlacementEffects {
  readonly commands: readonly OutgoingCommand[];
  /** Descriptors to write; losing them in a crash is harmless. */
  readonly saves: readonly Region[];
  readonly deletes: readonly RegionId[];
}

/** Common part of all requests of administrators. */
export interface RequestOptions {
  /** Only plan. */
  readonly dryRun?: boolean;
  /** Refuse unless the region has exactly this epoch. */
  readonly expectEpoch?: RegionEpoch;
  readonly note?: string;
  readonly actor?: string;
}

/** Undefined operator: the wish is fulfilled already. */
export interface Submitted {
  readonly operator: Operator | undefined;
}

/** Where an administrator wants a store. */
export type StoreTarget = 'up' | 'removing' | 'removed';

export class Placement {
  readonly cluster: Cluster;
  readonly controller: OperatorController;
  readonly coordinator: Coordinator;
  readonly switches: Switches;
  readonly events: EventList;
  readonly resources: Resources;
  readonly redirects: ClusterRedirects;
  readonly #reconciler: Reconciler;
  readonly #factory: OperatorFactory;
  readonly #clock: PlacementOptions['clock'];
  #saves: Region[] = [];
  #deletes: RegionId[] = [];

  constructor(options: PlacementOptions) {
    const { clock } = options;
    this.#clock = clock;
    this.switches = new Switches(clock);
    this.cluster = new Cluster(options.config);
    this.events = new EventList(options.config.eventHistoryMax);
    this.controller = new OperatorController({
      cluster: this.cluster,
      clock,
      rng: options.rng.fork('waiting-queue'),
      guard: (operator, info) => this.resources.guard(operator, info),
      onEnd: (operator) => {
        this.#onOperatorEnd(operator);
        options.onOperatorEnd?.(operator);
      },
      onRefused: (operator) => this.#onRefused(operator),
    });
    this.resources = new Resources({
      cluster: this.cluster,
      controller: this.controller,
      clock,
      rng: options.rng.fork('documents'),
    });
    this.cluster.claims = this.resources;
    const nowMs = (): number => clock.monoMs();
    this.#factory = new OperatorFactory({
      cluster: this.cluster,
      controller: this.controller,
      nowMs,
      takeId: options.takeId,
    });
    this.redirects = new ClusterRedirects({
      cluster: this.cluster,
      nowMs,
      isKept: (region) => this.#isInAssignment(region),
    });
    this.#reconciler = new Reconciler({
      resources: this.resources,
      controller: this.controller,
      factory: this.#factory,
      clock,
      redirects: this.redirects,
    });
    this.coordinator = new Coordinator({
      cluster: this.cluster,
      controller: this.controller,
      factory: this.#factory,
      switches: this.switches,
      nowMs,
      rng: options.rng.fork('schedulers'),
    });
  }

  // ----------------------------------------------------------------------------------------------- messages in

  /** Takes over what an earlier process wrote. Descriptors that a newer one displaces are deleted. */
  load(stores: readonly StoreRecord[], regions: readonly Region[], bootstrapped: boolean): void {
    for (const record of stores) {
      this.cluster.applyStoreRecord(record, this.#clock.monoMs());
    }
    for (const region of regions) {
      const verdict = this.cluster.loadRegion(region);
      if (verdict.type === 'stale') {
        this.#deletes.push(region.id);
      } else {
        this.#deletes.push(...verdict.evicted.map((info) => info.region.id));
      }
    }
    if (bootstrapped) {
      this.cluster.markBootstrapped();
    }
  }

  /** The bootstrap is durable. */
  bootstrapped(store: StoreRecord, region: Region): void {
    this.cluster.applyStoreRecord(store, this.#clock.monoMs());
    this.cluster.loadRegion(region);
    this.cluster.markBootstrapped();
    this.event({ type: 'bootstrap', message: `store ${store.store.id} founded the cluster`, storeId: store.store.id });
  }

  /** A leader reports. Accepting a report and all that follows from it is one synchronous act. */
  onRegionHeartbeat(heartbeat: RegionHeartbeat): ReportVerdict {
    const verdict = this.cluster.heartbeatRegion(heartbeat, this.#clock.monoMs());
    if (verdict.type === 'accepted') {
      this.#accept(verdict);
      this.controller.onRegion(verdict.info, heartbeat.refusal !== undefined);
      if (heartbeat.refusal !== undefined) {
        this.controller.onRefusal(verdict.info, heartbeat.refusal);
      }
    }
    return verdict;
  }

  /** A store names the parts of a split it applied. */
  onSplitReport(regions: readonly Region[]): void {
    for (const verdict of this.cluster.learnSplit(regions)) {
      if (verdict.type === 'accepted') {
        this.#accept(verdict);
      }
    }
  }

  /** Refused when the store is unknown or was removed. */
  onStoreHeartbeat(heartbeat: StoreHeartbeat): Refusal | undefined {
    const known = this.cluster.store(heartbeat.storeId);
    if (known === undefined) {
      return storeNotFound(heartbeat.storeId);
    }
    if (known.record.store.state === 'tombstone') {
      return storeRemoved(heartbeat.storeId);
    }
    const before = known.stats?.damagedPeers ?? [];
    this.cluster.heartbeatStore(heartbeat, this.#clock.monoMs());
    for (const { regionId, peerId, index } of heartbeat.damagedPeers ?? []) {
      if (!before.some((damaged) => damaged.regionId === regionId && damaged.peerId === peerId)) {
        this.event({
          type: 'replica-damaged',
          message: `peer ${peerId} of region ${regionId} differs from the others behind log index ${index} and serves nothing`,
          regionId,
          storeId: heartbeat.storeId,
        });
      }
    }
    return undefined;
  }

  #accept(verdict: Extract<ReportVerdict, { type: 'accepted' }>): void {
    if (verdict.save) {
      this.#saves.push(verdict.info.region);
    }
    this.#deletes.push(...verdict.evicted.map((info) => info.region.id));
    for (const event of eventsOfReport(verdict.info, verdict.previous, verdict.evicted)) {
      const cause = event.type === 'split' ? this.coordinator.splitCause(verdict.info.region.id) : undefined;
      this.event(cause === undefined ? event : { ...event, message: `${event.message}: ${SPLIT_CAUSES[cause]}` });
    }
  }

  /** Sends again, times out, starts waiting operators. Call it every `pushIntervalMs`. */
  tickOperators(): void {
    this.controller.tick();
  }

  /** Looks for regions to repair. Call it every `patrolIntervalMs`. */
  tickPatrol(): void {
    this.coordinator.patrolRound();
  }

  /** Balances. Call it every `schedulerIntervalMs`. */
  tickSchedulers(): void {
    this.coordinator.schedulerRound();
  }

  /**
   * Looks at documents that are not as they should be. What is to be written comes back; nothing else of them happens
   * before it is. Call it every `reconcileIntervalMs`.
   */
  reconcile(): ResourceChange | undefined {
    return this.cluster.bootstrapped && !this.#reconciler.isIdle ? this.#reconciler.round() : undefined;
  }

  /** An Assignment that the service makes by itself, to be applied like one of a user. Call it every `schedulerIntervalMs`. */
  proposeAssignment(): unknown {
    const { store } = this.resources;
    if (
      store.version === 0 ||
      !this.switches.isOn('assigner') ||
      this.coordinator.idleReason('assigner') !== undefined
    ) {
      return undefined;
    }
    const regionOf = ({ spec }: Partition): RegionInfo | undefined => this.cluster.tree.find(spec.range.start);
    return proposeMerge(store, this.coordinator.mergeContext(), regionOf);
  }

  /** Everything to be carried out since the last call. */
  takeEffects(): PlacementEffects {
    const effects = { commands: this.controller.takeOutbox(), saves: this.#saves, deletes: this.#deletes };
    this.#saves = [];
    this.#deletes = [];
    return effects;
  }

  event(event: EventInput): void {
    this.events.add(event, this.#clock.wallMs());
  }

  /** An Assignment that is under way says itself when the redirects of its regions end. */
  #isInAssignment(region: RegionId): boolean {
    return this.resources.store
      .activeAssignments()
      .some(({ status }) => status.merge?.regions.includes(region) === true);
  }

  #onRefused({ id, brief, lastRefusal, maker }: Operator): void {
    if (lastRefusal !== undefined) {
      const { code, message, regionId, storeId } = lastRefusal;
      this.event({
        type: 'step-refused',
        message: `store ${storeId} refused a step of operator ${id} (${brief}): ${code}: ${message}`,
        regionId,
        storeId,
        operatorId: id,
        actor: maker,
      });
    }
  }

  #onOperatorEnd(operator: Operator): void {
    const end = operator.reason === undefined ? operator.status : `${operator.status}: ${operator.reason.text}`;
    this.event({
      type: 'operator-ended',
      message: `operator ${operator.id} (${operator.brief}) ended with ${end}`,
      regionId: operator.regionId,
      operatorId: operator.id,
      actor: operator.maker,
    });
  }

  // --------------------------------------------------------------------------------------------------- stores

  /**
   * The record to write for a store that announces itself, or why it may not join.
   * @param starts how often the store has started, this time included; undefined if it does not say
   */
  planPutStore(store: Store, starts: number | undefined): Result<StoreRecord> {
    if (store.id === 0) {
      return refused(refuse('InvalidArgument', 'a store id must not be 0', 'ask for an id first'));
    }
    const known = this.cluster.store(store.id)?.record;
    if (known?.store.state === 'tombstone') {
      return refused(storeRemoved(store.id));
    }
    if (known !== undefined && starts !== undefined && isRolledBack(known, store, starts)) {
      return refused(storeRolledBack(store.id, starts, known.starts ?? 0));
    }
    for (const other of this.cluster.stores()) {
      const { record } = other;
      const lives = record.store.state !== 'tombstone' && !record.physicallyDestroyed;
      if (lives && record.store.id !== store.id && record.store.address === store.address) {
        return refused(
          refuse(
            'DuplicateAddress',
            `store ${record.store.id} already has the address ${store.address}`,
            `if its data is gone, remove store ${record.store.id} as physically destroyed first; else use another address`,
            { store_id: record.store.id },
          ),
        );
      }
      const pod = podNameOf(store.labels);
      if (lives && record.store.id !== store.id && pod !== undefined && podNameOf(record.store.labels) === pod) {
        return refused(
          refuse(
            'DuplicatePod',
            `store ${record.store.id} already has the label ${POD_LABEL}=${pod}`,
            'documents name stores by this label: give every store another one',
            { store_id: record.store.id },
          ),
        );
      }
    }
    const latestStarts = starts ?? known?.starts;
    return ok({
      store: {
        ...store,
        state: known?.store.state ?? 'up',
        labels: known === undefined ? store.labels : mergeLabels(known.store.labels, store.labels),
      },
      physicallyDestroyed: known?.physicallyDestroyed ?? false,
      lastHeartbeatWallMs: known?.lastHeartbeatWallMs ?? 0,
      ...(latestStarts === undefined ? {} : { starts: latestStarts }),
      ...(known?.settings === undefined ? {} : { settings: known.settings }),
    });
  }

  /** The record to write so that a store goes where an administrator wants it; undefined if it is there. */
  planStoreState(id: StoreId, target: StoreTarget, physicallyDestroyed: boolean): Result<StoreRecord | undefined> {
    const info = this.cluster.store(id);
    if (info === undefined) {
      return refused(storeNotFound(id));
    }
    switch (target) {
      case 'up':
        return this.#planUp(info);
      case 'removing':
        return this.#planRemoving(info, physicallyDestroyed);
      case 'removed':
        return this.#planRemoved(info, physicallyDestroyed);
    }
  }

  #planUp({ record }: StoreInfo): Result<StoreRecord | undefined> {
    const { id, state } = record.store;
    if (state === 'up') {
      return ok(undefined);
    }
    if (state === 'tombstone') {
      return refused(storeRemoved(id));
    }
    if (record.physicallyDestroyed) {
      return refused(
        refuse(
          'PhysicallyDestroyed',
          `store ${id} is marked as destroyed`,
          'start a new store with an empty directory',
          {
            store_id: id,
          },
        ),
      );
    }
    return ok({
      ...record,
      store: { ...record.store, state: 'up' },
      settings: { ...(record.settings ?? DEFAULT_STORE_SETTINGS), removal: undefined },
    });
  }

  #planRemoving({ record }: StoreInfo, physicallyDestroyed: boolean): Result<StoreRecord | undefined> {
    const { id, state } = record.store;
    if (state === 'tombstone') {
      return refused(storeRemoved(id));
    }
    if (state === 'offline' && (record.physicallyDestroyed || !physicallyDestroyed)) {
      return ok(undefined);
    }
    const staying = this.cluster.stores().filter((other) => isUp(other) && other.record.store.id !== id).length;
    const { maxReplicas } = this.cluster.config;
    if (!physicallyDestroyed && staying < maxReplicas) {
      return refused(
        refuse(
          'TooFewStores',
          `without store ${id} only ${staying} stores are left for ${maxReplicas} replicas`,
          'add a store first',
          { store_id: id, stores_left: staying, max_replicas: maxReplicas },
        ),
      );
    }
    const settings = record.settings ?? DEFAULT_STORE_SETTINGS;
    const removal = settings.removal ?? {
      sinceWallMs: Math.floor(this.#clock.wallMs()),
      peers: this.cluster.tree.ofStore(id).peers.size,
      sizeBytes: this.cluster.tree.sizeOfStoreBytes(id),
    };
    return ok({
      ...record,
      store: { ...record.store, state: 'offline' },
      physicallyDestroyed,
      settings: { ...settings, removal },
    });
  }

  /** The record to write for changed settings or labels of a store; undefined if nothing changes. */
  planStoreSettings(id: StoreId, change: StoreSettingsChange): Result<StoreRecord | undefined> {
    const info = this.cluster.store(id);
    if (info === undefined) {
      return refused(storeNotFound(id));
    }
    if (info.record.store.state === 'tombstone') {
      return refused(storeRemoved(id));
    }
    const problem = problemOfSettings(change);
    if (problem !== undefined) {
      return refused(problem);
    }
    const record = changedRecord(info.record, change);
    if (
      record.settings?.leadersEvicted === true &&
      this.cluster.schedulers.record('grant-leader').stores.includes(id)
    ) {
      return refused(
        refuse(
          'LeadersGranted',
          `grant-leader brings leaders to store ${id}`,
          `end that first: braid ctl scheduler remove grant-leader --store ${id}`,
          { store_id: id },
        ),
      );
    }
    if (record.settings?.leadersEvicted === true && settingsOf(info).leadersEvicted === false) {
      const nowMs = this.#clock.monoMs();
      const others = this.cluster
        .stores()
        .filter(
          (other) =>
            other.record.store.id !== id && checkLeaderTarget(this.cluster, other.record.store.id, nowMs) === undefined,
        );
      if (others.length === 0) {
        return refused(
          refuse(
            'TooFewStores',
            `no other store could lead the regions of store ${id}`,
            'let another store lead first',
            {
              store_id: id,
            },
          ),
        );
      }
    }
    return ok(sameRecord(record, info.record) ? undefined : record);
  }

  #planRemoved(info: StoreInfo, physicallyDestroyed: boolean): Result<StoreRecord | undefined> {
    const { id, state } = info.record.store;
    if (state === 'tombstone') {
      return ok(undefined);
    }
    if (livenessOf(info, this.cluster.config, this.#clock.monoMs()) !== 'down') {
      return refused(
        refuse('StoreNotDown', `store ${id} still reports`, 'let it be emptied: set it to removing', { store_id: id }),
      );
    }
    const peers = this.cluster.tree.ofStore(id).peers.size;
    if (peers > 0) {
      return refused(
        refuse('PeersLeft', `${peers} regions still have a peer on store ${id}`, 'set it to removing and wait', {
          store_id: id,
          peers,
        }),
      );
    }
    return ok({ ...info.record, store: { ...info.record.store, state: 'tombstone' }, physicallyDestroyed });
  }

  /** Records of removing stores that are empty and may be marked as removed. */
  planRemovals(): StoreRecord[] {
    if (!this.coordinator.warmup().done) {
      return [];
    }
    return this.cluster
      .stores()
      .filter(
        ({ record }) => record.store.state === 'offline' && this.cluster.tree.ofStore(record.store.id).peers.size === 0,
      )
      .map(({ record }) => ({ ...record, store: { ...record.store, state: 'tombstone' } }));
  }

  /** What a changed or new placement rule means. */
  planSetRule(version: number, rule: PlacementRule, expectVersion: number | undefined): Result<RulePlan> {
    return planSetRule(this.ruleView(version), rule, expectVersion);
  }

  planDeleteRule(version: number, group: string, id: string, expectVersion: number | undefined): Result<RulePlan> {
    return planDeleteRule(this.ruleView(version), group, id, expectVersion);
  }

  /** What changes of rules are planned on; `version` is the largest one given to a rule so far. */
  ruleView(version: number): RulePlanView {
    return {
      cluster: this.cluster,
      version,
      partitionAround: (key) =>
        this.resources.store
          .servingIn({ start: key, end: keyAfter(key) })
          .find(({ spec }) => compareBytes(spec.range.start, key) < 0)?.meta.name,
    };
  }

  /** What keeps a removing store from being removed, most common causes first. */
  removalBlockers(id: StoreId): Refusal[] {
    const info = this.cluster.store(id);
    if (info === undefined || info.record.store.state !== 'offline') {
      return [];
    }
    const blockers: Refusal[] = [];
    for (const region of [...this.cluster.tree.ofStore(id).peers].slice(0, BLOCKERS_MAX)) {
      const running = this.controller.runningOn(region);
      const reason = this.coordinator.blockedReason(region);
      const leader = this.cluster.tree.get(region)?.leader;
      if (running !== undefined) {
        blockers.push(
          refuse('PeersLeft', `operator ${running.id} (${running.brief}) is running on region ${region}`, 'wait', {
            region_id: region,
            operator_id: running.id,
          }),
        );
      } else if (reason !== undefined) {
        blockers.push(reason);
      } else if (leader === undefined) {
        blockers.push(
          refuse('NoLeader', `region ${region} has no known leader`, 'check its stores', { region_id: region }),
        );
      } else {
        blockers.push(refuse('PeersLeft', `region ${region} has a peer on store ${id}`, 'wait', { region_id: region }));
      }
    }
    return blockers;
  }

  // ------------------------------------------------------------------------------------ requests of administrators

  moveRegion(id: RegionId, from: StoreId, to: StoreId, options: RequestOptions = {}): Result<Submitted> {
    return this.#request(id, options, (info) => this.#factory.move(info, from, to, admin('move-region', options)));
  }

  addPeer(id: RegionId, store: StoreId, role: WantedRole, options: RequestOptions = {}): Result<Submitted> {
    return this.#request(id, options, (info) => this.#factory.addPeer(info, store, role, admin('add-peer', options)));
  }

  removePeer(id: RegionId, store: StoreId, options: RequestOptions = {}): Result<Submitted> {
    return this.#request(id, options, (info) => this.#factory.removePeer(info, store, admin('remove-peer', options)));
  }

  transferLeader(id: RegionId, to: StoreId, options: RequestOptions = {}): Result<Submitted> {
    return this.#request(id, options, (info) =>
      this.#factory.transferLeader(info, to, admin('transfer-leader', options)),
    );
  }

  /** No keys: in the middle, as the store estimates it. */
  splitRegion(id: RegionId, keys: readonly Uint8Array[], options: RequestOptions = {}): Result<Submitted> {
    return this.#request(id, options, (info) => this.#factory.split(info, keys, admin('split-region', options)));
  }

  mergeRegions(source: RegionId, target: RegionId, options: RequestOptions = {}): Result<Submitted> {
    const refusal = firstRefusal(this.explainMerge(source, target, false));
    if (refusal !== undefined) {
      return refused(refusal);
    }
    const targetInfo = this.cluster.tree.get(target);
    if (targetInfo === undefined) {
      return refused(regionNotFound(target));
    }
    return this.#request(source, options, (info) =>
      this.#factory.merge(info, targetInfo, admin('merge-region', options)),
    );
  }

  /** All checks of a merge with their outcome. */
  explainMerge(source: RegionId, target: RegionId, automatic: boolean): readonly Check[] {
    return mergeChecks(this.coordinator.mergeContext(), source, target, automatic);
  }

  explainRegion(id: RegionId): Finding[] | undefined {
    const info = this.cluster.tree.get(id);
    return info === undefined ? undefined : explainRegion(this.#explainContext(), info);
  }

  explainStore(id: StoreId): Finding[] | undefined {
    return this.cluster.store(id) === undefined
      ? undefined
      : explainStore(this.#explainContext(), id, this.removalBlockers(id));
  }

  /** Undefined for an unknown name. */
  explainScheduler(name: string): Finding[] | undefined {
    return explainScheduler(this.#explainContext(), name);
  }

  #explainContext(): ExplainContext {
    return {
      cluster: this.cluster,
      controller: this.controller,
      coordinator: this.coordinator,
      factory: this.#factory,
      switches: this.switches,
      nowMs: this.#clock.monoMs(),
    };
  }

  /** Moves a region's replicas to the least used stores that separate them as well. Used by the scatter calls. */
  scatterRegion(id: RegionId, group: string, options: RequestOptions = {}): Result<Submitted> {
    return this.#request(id, { note: group, ...options }, (info) =>
      this.#factory.reshape(info, this.#scattered(info), `scatter region ${id}`, {
        name: 'scatter-region',
        kind: 'region',
        priority: 'high',
        note: options.note ?? group,
      }),
    );
  }

  /** Stops a running or waiting operator and, for a merge, its partner. */
  cancelOperator(operator: Operator, actor: string): Refusal | undefined {
    const canceled = this.controller.cancel(operator, {
      code: 'AdminStop',
      text: `stopped by ${actor}`,
      hint: operator.isCancelable
        ? ''
        : 'the merge was already sent to the stores: they commit it or roll it back by themselves',
    });
    return canceled
      ? undefined
      : refuse('OperatorNotFound', `operator ${operator.id} has ended already`, 'show it to see how', {
          operator_id: operator.id,
        });
  }

  /**
   * The pause to write for a region.
   * @param forMs how long; 0 = until it is resumed
   */
  planPause(id: RegionId, reason: string, forMs: number, actor: string): Result<RegionPause> {
    const info = this.cluster.tree.get(id);
    if (info === undefined) {
      return refused(regionNotFound(id));
    }
    if (reason.length > PAUSE_REASON_MAX) {
      return refused(
        refuse('InvalidArgument', `a reason of ${reason.length} characters`, `give at most ${PAUSE_REASON_MAX}`),
      );
    }
    if (!Number.isSafeInteger(forMs) || forMs < 0 || forMs > PAUSE_MAX_MS) {
      return refused(
        refuse(
          'InvalidArgument',
          `${forMs} ms is no length of a pause`,
          `give at most ${PAUSE_MAX_MS / 86_400_000} days`,
        ),
      );
    }
    const sinceWallMs = Math.max(0, Math.floor(this.#clock.wallMs()));
    const untilWallMs = forMs === 0 ? undefined : sinceWallMs + forMs;
    return ok({ range: info.region.range, regionId: id, reason, actor, sinceWallMs, untilWallMs });
  }

  /**
   * A pause is durable: what runs on the regions of its range is stopped, except merges that the stores finish by
   * themselves. Answers the operators that were stopped and those that go on.
   */
  onPaused({ range, actor }: RegionPause): { readonly stopped: Operator[]; readonly going: Operator[] } {
    const out: { readonly stopped: Operator[]; readonly going: Operator[] } = { stopped: [], going: [] };
    for (const { region } of this.cluster.tree.scan(range, Number.POSITIVE_INFINITY)) {
      const running = this.controller.runningOn(region.id);
      if (running === undefined || running.maker === 'joint-state-checker') {
        continue;
      }
      if (running.isCancelable) {
        const text = `region ${region.id} was paused by ${actor}`;
        this.controller.cancel(running, {
          code: 'AdminStop',
          text,
          hint: `resume it with "ctl region resume ${region.id}"`,
        });
        out.stopped.push(running);
      } else {
        out.going.push(running);
      }
    }
    return out;
  }

  /** Checks a switch name from outside. A scheduler that takes no part is switched neither on nor off. */
  switchName(name: string): Result<SwitchName> {
    if (!isSwitchName(name)) {
      return refused(unknownSwitch(name));
    }
    const absent = notAdded(this.cluster, name);
    return absent === undefined ? ok(name) : refused(absent);
  }

  #request(id: RegionId, options: RequestOptions, make: (info: RegionInfo) => Result<Made>): Result<Submitted> {
    const info = this.cluster.tree.get(id);
    if (info === undefined) {
      return refused(regionNotFound(id));
    }
    if (options.expectEpoch !== undefined && !epochsEqual(options.expectEpoch, info.region.epoch)) {
      return refused(
        refuse(
          'EpochChanged',
          `region ${id} has epoch ${formatEpoch(info.region.epoch)}, not ${formatEpoch(options.expectEpoch)}`,
          'look at the region again',
          { region_id: id },
        ),
      );
    }
    if (info.merging) {
      return refused(
        refuse('MergeInProgress', `region ${id} is being merged`, 'wait until the merge ended', { region_id: id }),
      );
    }
    const paused = this.resources.pausedReason(info);
    if (paused !== undefined) {
      return refused(paused);
    }
    const made = make(info);
    if (made.type === 'refused') {
      return made;
    }
    return made.value === undefined ? ok({ operator: undefined }) : this.#submit(made.value, options);
  }

  #submit(group: OperatorGroup, options: RequestOptions): Result<Submitted> {
    const [operator] = group;
    if (options.dryRun === true) {
      const problem = this.controller.refusalOf(group);
      return problem === undefined ? ok({ operator }) : refused(problem);
    }
    const refusal = this.controller.submit(group);
    if (refusal !== undefined) {
      return refused(refusal);
    }
    this.event({
      type: 'operator-started',
      message: `operator ${operator.id}: ${operator.brief}`,
      regionId: operator.regionId,
      operatorId: operator.id,
      actor: options.actor ?? operator.maker,
    });
    return ok({ operator });
  }

  /** For every voter the usable store with the fewest peers, its own store winning ties. */
  #scattered(info: RegionInfo): Map<StoreId, WantedRole> {
    const wanted = new Map<StoreId, WantedRole>();
    const nowMs = this.#clock.monoMs();
    const peersOn = (id: StoreId): number =>
      this.cluster.tree.ofStore(id).peers.size - (info.region.peers.some((peer) => peer.storeId === id) ? 1 : 0);
    for (const peer of info.region.peers) {
      const candidates = this.cluster
        .stores()
        .map(({ record }) => record.store.id)
        .filter((id) => !wanted.has(id) && (id === peer.storeId || !info.region.peers.some((p) => p.storeId === id)))
        .filter(
          (id) =>
            id === peer.storeId ||
            (this.cluster.isUsable(id, nowMs) && this.cluster.rulesLetMove(info, peer.storeId, id)),
        )
        .sort((a, b) => peersOn(a) - peersOn(b) || Number(b === peer.storeId) - Number(a === peer.storeId) || a - b);
      wanted.set(candidates[0] ?? peer.storeId, peer.role === 'learner' ? 'learner' : 'voter');
    }
    return wanted;
  }
}

const SPLIT_CAUSES: Readonly<Record<SplitCause, string>> = {
  admin: 'it was asked for',
  size: 'it was too large or had too many keys',
  load: 'it had too much to do',
};

/** Blockers listed per store at most. */
const BLOCKERS_MAX = 16;

const admin = (what: string, options: RequestOptions): Maker => ({
  name: `admin-${what}`,
  kind: 'admin',
  priority: 'urgent',
  ...(options.note === undefined ? {} : { note: options.note }),
});

/**
 * A start has a larger count than all before it, unless the same process repeats its announcement. A disk that was
 * put back to an earlier state counts from there again.
 */
const isRolledBack = (known: StoreRecord, store: Store, starts: number): boolean =>
  known.starts !== undefined &&
  (starts < known.starts || (starts === known.starts && store.startTimestamp !== known.store.startTimestamp));

const storeRolledBack = (id: StoreId, starts: number, known: number): Refusal =>
  refuse(
    'StoreRolledBack',
    `store ${id} announces its start number ${starts}, but has started ${known} times: its disk shows an older state`,
    'keep its directory aside, remove the store and start an empty one',
    { store_id: id, starts, known_starts: known },
  );

const storeRemoved = (id: StoreId): Refusal =>
  refuse('StoreRemoved', `store ${id} was removed from the cluster`, 'start a new store with an empty directory', {
    store_id: id,
  });
