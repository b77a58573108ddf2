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
import { type EventInput, EventList, type EventType, auditOf, eventsOfReport } from './cluster/events.ts';
import type { RegionInfo } from './cluster/region-info.ts';
import type { StoreRecord } from './cluster/store-info.ts';
import type { StoreSettingsChange } from './cluster/store-settings.ts';
import type { PlacementConfig } from './defaults.ts';
import { type Check, firstRefusal, mergeChecks } from './schedule/checker/merge-checks.ts';
import { proposeMerge } from './resource/assigner.ts';
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
import type { AuditEntry, AuditInput } from './state/audit-log.ts';
import { StorePlanner, type StoreTarget, storeRemoved } from './store-planner.ts';

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
  /** Pending events to be kept in the audit log: `events.settle` follows. */
  readonly audits: readonly PendingAudit[];
}

export interface PendingAudit {
  /** Of the event. */
  readonly sequence: number;
  readonly audit: AuditInput;
}

/** Common part of all requests of administrators. */
export interface RequestOptions {
  /** Only plan. */
  readonly dryRun?: boolean;
  /** Refuse unless the region has exactly this epoch. */
  readonly expectEpoch?: RegionEpoch;
  readonly note?: string;
  /** Who asks; what a person asks for is kept in the audit log. */
  readonly actor?: string;
}

/** Undefined operator: the wish is fulfilled already. */
export interface Submitted {
  readonly operator: Operator | undefined;
}

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
  readonly #stores: StorePlanner;
  readonly #clock: PlacementOptions['clock'];
  #saves: Region[] = [];
  #deletes: RegionId[] = [];
  #audits: PendingAudit[] = [];

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
    this.#stores = new StorePlanner({
      cluster: this.cluster,
      clock,
      coordinator: this.coordinator,
      controller: this.controller,
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
    const effects = {
      commands: this.controller.takeOutbox(),
      saves: this.#saves,
      deletes: this.#deletes,
      audits: this.#audits,
    };
    this.#saves = [];
    this.#deletes = [];
    this.#audits = [];
    return effects;
  }

  /** @param audit its number in the audit log, if it is kept there */
  event(event: EventInput, audit?: number): void {
    this.events.add(event, this.#clock.wallMs(), audit);
  }

  /** Something that the audit log keeps already. */
  kept({ wallMs, type, message, actor, reason, sequence }: AuditEntry): void {
    this.events.add({ type: type as EventType, message, actor, reason }, wallMs, sequence);
  }

  /** An event that is to be kept in the audit log, although what it tells of changes nothing that is durable. */
  auditedEvent(event: EventInput): void {
    const wallMs = this.#clock.wallMs();
    this.#audits.push({ sequence: this.events.add(event, wallMs, 'pending'), audit: auditOf(event, wallMs) });
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

  /** See {@link StorePlanner.planPutStore}. */
  planPutStore(store: Store, starts: number | undefined): Result<StoreRecord> {
    return this.#stores.planPutStore(store, starts);
  }

  /** See {@link StorePlanner.planStoreState}. */
  planStoreState(
    id: StoreId,
    target: StoreTarget,
    physicallyDestroyed: boolean,
    expectVersion?: number,
  ): Result<StoreRecord | undefined> {
    return this.#stores.planStoreState(id, target, physicallyDestroyed, expectVersion);
  }

  /** See {@link StorePlanner.planStoreSettings}. */
  planStoreSettings(id: StoreId, change: StoreSettingsChange, expectVersion?: number): Result<StoreRecord | undefined> {
    return this.#stores.planStoreSettings(id, change, expectVersion);
  }

  /** See {@link StorePlanner.planRemovals}. */
  planRemovals(): StoreRecord[] {
    return this.#stores.planRemovals();
  }

  /** See {@link StorePlanner.removalBlockers}. */
  removalBlockers(id: StoreId): Refusal[] {
    return this.#stores.removalBlockers(id);
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

  /**
   * Stops a running or waiting operator and, for a merge, its partner.
   * @param reason given, if only as an empty text, when a person asks: that is kept in the audit log
   */
  cancelOperator(operator: Operator, actor: string, reason?: string): Refusal | undefined {
    if (reason !== undefined && !operator.hasEnded) {
      this.auditedEvent({
        type: 'operator-canceled',
        message: `operator ${operator.id} (${operator.brief}) was told to stop`,
        regionId: operator.regionId,
        operatorId: operator.id,
        actor,
        reason,
      });
    }
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
  planPause(
    id: RegionId,
    reason: string,
    forMs: number,
    actor: string,
    expectEpoch?: RegionEpoch,
  ): Result<RegionPause> {
    const info = this.cluster.tree.get(id);
    if (info === undefined) {
      return refused(regionNotFound(id));
    }
    const changed = this.epochRefusal(info, expectEpoch);
    if (changed !== undefined) {
      return refused(changed);
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

  /** Why a change that was made for another epoch of the region is not carried out. */
  epochRefusal({ region }: RegionInfo, expected: RegionEpoch | undefined): Refusal | undefined {
    return expected === undefined || epochsEqual(expected, region.epoch)
      ? undefined
      : refuse(
          'EpochChanged',
          `region ${region.id} has epoch ${formatEpoch(region.epoch)}, not ${formatEpoch(expected)}`,
          'look at the region again',
          { region_id: region.id, epoch: formatEpoch(region.epoch), expected_epoch: formatEpoch(expected) },
        );
  }

  #request(id: RegionId, options: RequestOptions, make: (info: RegionInfo) => Result<Made>): Result<Submitted> {
    const info = this.cluster.tree.get(id);
    if (info === undefined) {
      return refused(regionNotFound(id));
    }
    const changed = this.epochRefusal(info, options.expectEpoch);
    if (changed !== undefined) {
      return refused(changed);
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
    const event: EventInput = {
      type: 'operator-started',
      message: `operator ${operator.id}: ${operator.brief}`,
      regionId: operator.regionId,
      operatorId: operator.id,
      actor: options.actor ?? operator.maker,
      reason: options.note ?? '',
    };
    if (options.actor === undefined) {
      this.event(event);
    } else {
      this.auditedEvent(event);
    }
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

const admin = (what: string, options: RequestOptions): Maker => ({
  name: `admin-${what}`,
  kind: 'admin',
  priority: 'urgent',
  ...(options.note === undefined ? {} : { note: options.note }),
});
