/**
 * The replicated part of the placement service as a state machine: commands in, results and changed records out.
 * Deterministic: no clock, no chance, no iteration order from outside, so that every member that applies the same
 * commands holds the same state. Region descriptors are not part of it: leaders report them again.
 */
import { unreachable } from '../../base/assert.ts';
import type { RegionId, StoreId } from '../../base/ids.ts';
import { FULL_RANGE, type KeyRange, rangesEqual } from '../../base/key-range.ts';
import type { Region } from '../../meta/region.ts';
import { PAUSES_MAX, type RegionPause, isPauseOver, withPause, withoutRange } from '../cluster/pauses.ts';
import type { StoreRecord } from '../cluster/store-info.ts';
import { type Resource, type ResourceKind, resourceKey } from '../resource/resource.ts';
import { type PlacementRule, ruleName } from '../schedule/placement/rule.ts';
import type { RuleChange } from '../schedule/placement/rule-plan.ts';
import { NO_SETTINGS, type RunTimeSettings, type SettingsChange } from '../settings.ts';
import type { ResourceChange } from '../resource/resource-store.ts';
import type { SchedulerRecord } from '../schedule/scheduler-settings.ts';
import type { SwitchSetting } from '../schedule/switches.ts';
import { type AuditEntry, type AuditInput, AuditLog } from './audit-log.ts';

export interface ClusterMeta {
  readonly clusterId: bigint;
  readonly bootstrapped: boolean;
  readonly maxReplicas: number;
  /** Wall clock of the bootstrap; 0 before. */
  readonly bootstrapWallMs: number;
  /** Kept to recognize a store that repeats its bootstrap after a crash. */
  readonly firstRegion: Region | undefined;
}

export interface ServiceSafePoint {
  readonly serviceId: string;
  readonly safePoint: bigint;
  /** Wall clock seconds; Number.MAX_SAFE_INTEGER = never. */
  readonly expiresAtSeconds: number;
}

/** A command, and what it means to people. */
export type PdCommand =
  | PlainCommand
  /** The entries are kept if and only if the command is carried out; without one they are kept alone. */
  | { readonly type: 'audited'; readonly command: PlainCommand | undefined; readonly audits: readonly AuditInput[] };

export type PlainCommand =
  | { readonly type: 'init-cluster'; readonly clusterId: bigint; readonly maxReplicas: number }
  | {
      readonly type: 'bootstrap';
      readonly store: StoreRecord;
      readonly region: Region;
      readonly wallMs: number;
    }
  | { readonly type: 'put-store'; readonly record: StoreRecord }
  | { readonly type: 'set-max-replicas'; readonly maxReplicas: number }
  /** Refused unless the limit is still `expected`: a member that lost its lead must not extend the window. */
  | { readonly type: 'extend-ids'; readonly expected: number; readonly limit: number }
  /** Refused unless it grows. */
  | { readonly type: 'extend-tso'; readonly savedMs: number }
  /** Refused unless the switch was set `expectVersion` times before, if that is given. */
  | ({ readonly type: 'set-switch'; readonly name: string; readonly expectVersion?: number } & SwitchSetting)
  /** Answers the effective value: safe points only grow. */
  | { readonly type: 'advance-gc-safe-point'; readonly safePoint: bigint }
  | { readonly type: 'put-service-safe-point'; readonly point: ServiceSafePoint }
  | { readonly type: 'drop-service-safe-point'; readonly serviceId: string }
  /** Partition and Assignment documents. Refused unless nothing changed since it was planned. */
  | { readonly type: 'change-resources'; readonly change: ResourceChange }
  /** A pinned region is neither split nor merged automatically. */
  | { readonly type: 'pin-region'; readonly id: RegionId; readonly pinned: boolean }
  /** Replaces pauses that overlap it, and forgets those that are over. Refused when there are too many. */
  | { readonly type: 'pause-range'; readonly pause: RegionPause }
  /** Nothing in the range is paused any more. */
  | { readonly type: 'resume-range'; readonly range: KeyRange }
  /** Pauses that are over at `wallMs` are forgotten. */
  | { readonly type: 'forget-pauses'; readonly wallMs: number }
  /** Placement rules. Refused unless nothing changed since it was planned. */
  | { readonly type: 'change-rules'; readonly change: RuleChange }
  /** A checker or scheduler. Refused unless it still has the version it was planned on. */
  | { readonly type: 'change-scheduler'; readonly record: SchedulerRecord; readonly baseVersion: number }
  /** Documents of several kinds, all of them or none. Refused unless nothing of these kinds changed since. */
  | ({ readonly type: 'change-documents' } & DocumentChanges);

/** What a request for documents changes, by kind; absent parts stay as they are. */
export interface DocumentChanges {
  readonly resources?: ResourceChange;
  readonly rules?: RuleChange;
  readonly settings?: SettingsChange;
  readonly schedulers?: readonly SchedulerWrite[];
  readonly switches?: readonly { readonly name: string; readonly enabled: boolean }[];
}

/** A checker or scheduler as it is to be, on the version it was planned on. */
export interface SchedulerWrite {
  readonly record: SchedulerRecord;
  readonly baseVersion: number;
}

export type PdResult =
  /** `firstAudit`: number of the first entry that was kept with the change. */
  | { readonly type: 'done'; readonly firstAudit?: number }
  | {
      readonly type: 'refused';
      readonly reason: 'exists' | 'not-current' | 'not-bootstrapped' | 'invalid' | 'too-many';
    };

/** Which record a command changed; the log writes exactly these. */
export type PdRecordKey =
  | { readonly type: 'meta' }
  | { readonly type: 'store'; readonly id: StoreId }
  | { readonly type: 'first-region'; readonly region: Region }
  | { readonly type: 'ids' }
  | { readonly type: 'tso' }
  | { readonly type: 'switches' }
  | { readonly type: 'gc' }
  | { readonly type: 'resource'; readonly kind: ResourceKind; readonly name: string }
  | { readonly type: 'resource-version' }
  | { readonly type: 'pins' }
  | { readonly type: 'pauses' }
  | { readonly type: 'rules' }
  | { readonly type: 'schedulers' }
  | { readonly type: 'settings' }
  /** An entry that came or went. */
  | { readonly type: 'audit'; readonly sequence: number };

/** The members of a setting alone. */
const settingOf = ({ enabled, untilWallMs }: SwitchSetting): SwitchSetting =>
  untilWallMs === undefined ? { enabled } : { enabled, untilWallMs };

const DONE: PdResult = { type: 'done' };

/** Whether a change was planned on what is there. */
const isNext = (change: { readonly baseVersion: number; readonly version: number }, current: number): boolean =>
  change.baseVersion === current && change.version > current;

export class PdState {
  #meta: ClusterMeta | undefined;
  readonly #stores = new Map<StoreId, StoreRecord>();
  #idLimit = 0;
  #tsoSavedMs = 0;
  readonly #switches = new Map<string, SwitchSetting>();
  readonly #switchVersions = new Map<string, number>();
  #gcSafePoint = 0n;
  readonly #serviceSafePoints = new Map<string, ServiceSafePoint>();
  readonly #resources = new Map<string, Resource>();
  #resourceVersion = 0;
  readonly #pins = new Set<RegionId>();
  #pauses: readonly RegionPause[] = [];
  readonly #rules = new Map<string, PlacementRule>();
  #ruleVersion = 0;
  readonly #schedulers = new Map<string, SchedulerRecord>();
  #settings: RunTimeSettings = NO_SETTINGS;
  readonly #audit = new AuditLog();

  get meta(): ClusterMeta | undefined {
    return this.#meta;
  }

  get stores(): ReadonlyMap<StoreId, StoreRecord> {
    return this.#stores;
  }

  get idLimit(): number {
    return this.#idLimit;
  }

  get tsoSavedMs(): number {
    return this.#tsoSavedMs;
  }

  get switches(): ReadonlyMap<string, SwitchSetting> {
    return this.#switches;
  }

  /** How often each switch was set; absent = never. */
  get switchVersions(): ReadonlyMap<string, number> {
    return this.#switchVersions;
  }

  get gcSafePoint(): bigint {
    return this.#gcSafePoint;
  }

  get serviceSafePoints(): ReadonlyMap<string, ServiceSafePoint> {
    return this.#serviceSafePoints;
  }

  /** Documents by kind and name. */
  get resources(): ReadonlyMap<string, Resource> {
    return this.#resources;
  }

  /** The largest version given to a document so far. */
  get resourceVersion(): number {
    return this.#resourceVersion;
  }

  get pins(): ReadonlySet<RegionId> {
    return this.#pins;
  }

  /** In key order, without overlaps. */
  get pauses(): readonly RegionPause[] {
    return this.#pauses;
  }

  /** Placement rules by name. */
  get rules(): ReadonlyMap<string, PlacementRule> {
    return this.#rules;
  }

  /** The largest version given to a rule so far. */
  get ruleVersion(): number {
    return this.#ruleVersion;
  }

  /** Checkers and schedulers that were changed, by name. */
  get schedulers(): ReadonlyMap<string, SchedulerRecord> {
    return this.#schedulers;
  }

  /** Settings of the service that are set at run time. */
  get settings(): RunTimeSettings {
    return this.#settings;
  }

  /** What people changed and what was removed. */
  get audit(): Pick<AuditLog, 'entries' | 'after' | 'get' | 'lastSequence' | 'bytes'> {
    return this.#audit;
  }

  /** Keeps entries about a change that is applied in the same batch. @returns the number of the first one */
  note(audits: readonly AuditInput[], touched: PdRecordKey[]): number | undefined {
    const changed: number[] = [];
    const [first] = audits.map((input) => this.#audit.append(input, changed));
    touched.push(...changed.map((sequence) => ({ type: 'audit', sequence }) as const));
    return first;
  }

  /** Applies one command; `touched` collects the records that changed. */
  apply(command: PdCommand, touched: PdRecordKey[]): PdResult {
    if (command.type !== 'audited') {
      return this.#apply(command, touched);
    }
    const result = command.command === undefined ? DONE : this.#apply(command.command, touched);
    if (result.type === 'refused') {
      return result;
    }
    const firstAudit = this.note(command.audits, touched);
    return firstAudit === undefined ? result : { ...result, firstAudit };
  }

  #apply(command: PlainCommand, touched: PdRecordKey[]): PdResult {
    switch (command.type) {
      case 'init-cluster':
        return this.#initCluster(command.clusterId, command.maxReplicas, touched);
      case 'bootstrap':
        return this.#bootstrap(command, touched);
      case 'put-store':
        this.#stores.set(command.record.store.id, command.record);
        touched.push({ type: 'store', id: command.record.store.id });
        return DONE;
      case 'set-max-replicas':
        return this.#setMaxReplicas(command.maxReplicas, touched);
      case 'extend-ids':
        if (this.#idLimit !== command.expected || command.limit <= this.#idLimit) {
          return { type: 'refused', reason: 'not-current' };
        }
        this.#idLimit = command.limit;
        touched.push({ type: 'ids' });
        return DONE;
      case 'extend-tso':
        if (command.savedMs <= this.#tsoSavedMs) {
          return { type: 'refused', reason: 'not-current' };
        }
        this.#tsoSavedMs = command.savedMs;
        touched.push({ type: 'tso' });
        return DONE;
      case 'set-switch': {
        const version = this.#switchVersions.get(command.name) ?? 0;
        if (command.expectVersion !== undefined && command.expectVersion !== version) {
          return { type: 'refused', reason: 'not-current' };
        }
        this.#switches.set(command.name, settingOf(command));
        this.#switchVersions.set(command.name, version + 1);
        touched.push({ type: 'switches' });
        return DONE;
      }
      case 'advance-gc-safe-point':
        if (command.safePoint > this.#gcSafePoint) {
          this.#gcSafePoint = command.safePoint;
          touched.push({ type: 'gc' });
        }
        return DONE;
      case 'put-service-safe-point':
        this.#serviceSafePoints.set(command.point.serviceId, command.point);
        touched.push({ type: 'gc' });
        return DONE;
      case 'drop-service-safe-point':
        this.#serviceSafePoints.delete(command.serviceId);
        touched.push({ type: 'gc' });
        return DONE;
      case 'change-resources':
        return this.#changeResources(command.change, touched);
      case 'pin-region':
        if (command.pinned) {
          this.#pins.add(command.id);
        } else {
          this.#pins.delete(command.id);
        }
        touched.push({ type: 'pins' });
        return DONE;
      case 'pause-range': {
        const pauses = withPause(this.#pauses, command.pause);
        if (pauses.length > PAUSES_MAX) {
          return { type: 'refused', reason: 'too-many' };
        }
        return this.#setPauses(pauses, touched);
      }
      case 'resume-range':
        return this.#setPauses(withoutRange(this.#pauses, command.range), touched);
      case 'forget-pauses':
        return this.#setPauses(
          this.#pauses.filter((pause) => !isPauseOver(pause, command.wallMs)),
          touched,
        );
      case 'change-rules':
        return this.#changeRules(command.change, touched);
      case 'change-scheduler': {
        const { record } = command;
        if (!this.#isNextScheduler(command)) {
          return { type: 'refused', reason: 'not-current' };
        }
        this.#schedulers.set(record.name, record);
        touched.push({ type: 'schedulers' });
        return DONE;
      }
      case 'change-documents':
        return this.#changeDocuments(command, touched);
      default:
        return unreachable(command);
    }
  }

  #setPauses(pauses: readonly RegionPause[], touched: PdRecordKey[]): PdResult {
    this.#pauses = pauses;
    touched.push({ type: 'pauses' });
    return DONE;
  }

  #initCluster(clusterId: bigint, maxReplicas: number, touched: PdRecordKey[]): PdResult {
    if (this.#meta !== undefined) {
      return { type: 'refused', reason: 'exists' };
    }
    this.#meta = { clusterId, bootstrapped: false, maxReplicas, bootstrapWallMs: 0, firstRegion: undefined };
    touched.push({ type: 'meta' });
    return DONE;
  }

  #bootstrap(command: Extract<PlainCommand, { type: 'bootstrap' }>, touched: PdRecordKey[]): PdResult {
    const { store, region } = command;
    if (this.#meta === undefined || this.#meta.bootstrapped) {
      return { type: 'refused', reason: 'exists' };
    }
    const [peer, ...others] = region.peers;
    const valid =
      store.store.id > 0 &&
      region.id > 0 &&
      rangesEqual(region.range, FULL_RANGE) &&
      region.epoch.version >= 1 &&
      region.epoch.confVer >= 1 &&
      peer !== undefined &&
      others.length === 0 &&
      peer.id > 0 &&
      peer.storeId === store.store.id;
    if (!valid) {
      return { type: 'refused', reason: 'invalid' };
    }
    this.#meta = { ...this.#meta, bootstrapped: true, bootstrapWallMs: command.wallMs, firstRegion: region };
    this.#stores.set(store.store.id, store);
    touched.push({ type: 'meta' }, { type: 'store', id: store.store.id }, { type: 'first-region', region });
    return DONE;
  }

  #setMaxReplicas(maxReplicas: number, touched: PdRecordKey[]): PdResult {
    if (this.#meta === undefined || !Number.isSafeInteger(maxReplicas) || maxReplicas < 1) {
      return { type: 'refused', reason: 'invalid' };
    }
    this.#meta = { ...this.#meta, maxReplicas };
    touched.push({ type: 'meta' });
    return DONE;
  }

  #changeResources(change: ResourceChange, touched: PdRecordKey[]): PdResult {
    if (!isNext(change, this.#resourceVersion)) {
      return { type: 'refused', reason: 'not-current' };
    }
    for (const { kind, name } of change.deletes) {
      this.#resources.delete(resourceKey(kind, name));
      touched.push({ type: 'resource', kind, name });
    }
    for (const resource of change.puts) {
      this.#resources.set(resourceKey(resource.kind, resource.meta.name), resource);
      touched.push({ type: 'resource', kind: resource.kind, name: resource.meta.name });
    }
    this.#resourceVersion = change.version;
    touched.push({ type: 'resource-version' });
    return DONE;
  }

  #changeRules(change: RuleChange, touched: PdRecordKey[]): PdResult {
    if (!isNext(change, this.#ruleVersion)) {
      return { type: 'refused', reason: 'not-current' };
    }
    for (const name of change.deletes) {
      this.#rules.delete(ruleName(name));
    }
    for (const rule of change.puts) {
      this.#rules.set(ruleName(rule), rule);
    }
    this.#ruleVersion = change.version;
    touched.push({ type: 'rules' });
    return DONE;
  }

  #isNextScheduler({ record, baseVersion }: SchedulerWrite): boolean {
    return isNext({ baseVersion, version: record.version }, this.#schedulers.get(record.name)?.version ?? 0);
  }

  #changeDocuments(changes: DocumentChanges, touched: PdRecordKey[]): PdResult {
    const { resources, rules, settings, schedulers = [], switches = [] } = changes;
    const isCurrent =
      (resources === undefined || isNext(resources, this.#resourceVersion)) &&
      (rules === undefined || isNext(rules, this.#ruleVersion)) &&
      schedulers.every((write) => this.#isNextScheduler(write)) &&
      (settings === undefined ||
        isNext({ baseVersion: settings.baseVersion, version: settings.settings.version }, this.#settings.version));
    if (!isCurrent) {
      return { type: 'refused', reason: 'not-current' };
    }
    if (resources !== undefined) {
      this.#changeResources(resources, touched);
    }
    if (rules !== undefined) {
      this.#changeRules(rules, touched);
    }
    if (settings !== undefined) {
      this.#settings = settings.settings;
      touched.push({ type: 'settings' });
    }
    for (const { record } of schedulers) {
      this.#schedulers.set(record.name, record);
      touched.push({ type: 'schedulers' });
    }
    for (const { name, enabled } of switches) {
      this.#switches.set(name, { enabled });
      this.#switchVersions.set(name, (this.#switchVersions.get(name) ?? 0) + 1);
      touched.push({ type: 'switches' });
    }
    return DONE;
  }

  /** Takes over what an earlier process wrote; only for loading. */
  restore(saved: SavedState): void {
    this.#meta = saved.meta;
    for (const record of saved.stores) {
      this.#stores.set(record.store.id, record);
    }
    this.#idLimit = saved.idLimit;
    this.#tsoSavedMs = saved.tsoSavedMs;
    for (const [name, setting] of saved.switches) {
      this.#switches.set(name, setting);
    }
    for (const [name, version] of saved.switchVersions) {
      this.#switchVersions.set(name, version);
    }
    this.#gcSafePoint = saved.gcSafePoint;
    for (const point of saved.serviceSafePoints) {
      this.#serviceSafePoints.set(point.serviceId, point);
    }
    for (const resource of saved.resources) {
      this.#resources.set(resourceKey(resource.kind, resource.meta.name), resource);
    }
    this.#resourceVersion = saved.resourceVersion;
    for (const id of saved.pins) {
      this.#pins.add(id);
    }
    this.#pauses = saved.pauses;
    for (const rule of saved.rules.rules) {
      this.#rules.set(ruleName(rule), rule);
    }
    this.#ruleVersion = saved.rules.version;
    for (const record of saved.schedulers) {
      this.#schedulers.set(record.name, record);
    }
    this.#settings = saved.settings ?? NO_SETTINGS;
    this.#audit.restore(saved.audit);
  }
}

export interface SavedState {
  readonly meta: ClusterMeta | undefined;
  readonly stores: readonly StoreRecord[];
  readonly idLimit: number;
  readonly tsoSavedMs: number;
  readonly switches: readonly (readonly [string, SwitchSetting])[];
  readonly switchVersions: readonly (readonly [string, number])[];
  readonly gcSafePoint: bigint;
  readonly serviceSafePoints: readonly ServiceSafePoint[];
  readonly resources: readonly Resource[];
  readonly resourceVersion: number;
  readonly pins: readonly RegionId[];
  readonly pauses: readonly RegionPause[];
  readonly rules: SavedRules;
  readonly schedulers: readonly SchedulerRecord[];
  /** Absent before anything was ever set at run time. */
  readonly settings?: RunTimeSettings | undefined;
  readonly audit: readonly AuditEntry[];
}

export interface SavedRules {
  readonly version: number;
  readonly rules: readonly PlacementRule[];
}
