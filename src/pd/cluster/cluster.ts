/**
 * The cluster as the placement service serves it: stores and the region map. Synchronous; durable changes arrive
 * through `apply…` calls after they were written, volatile ones through heartbeats.
 */
import { assert } from '../../base/assert.ts';
import type { RegionId, StoreId } from '../../base/ids.ts';
import { isEmptyRange } from '../../base/key-range.ts';
import type { DamagedPeer, RegionHeartbeat, StoreHeartbeat } from '../../meta/heartbeat.ts';
import { type Peer, type Region, epochsEqual, findPeer } from '../../meta/region.ts';
import type { PlacementConfig } from '../defaults.ts';
import { NO_SETTINGS, type RunTimeSettings, effectiveSettings } from '../settings.ts';
import {
  type Fit,
  type FitView,
  fitRegion,
  isMet,
  mayLeadBy,
  targetOf,
  wantsLeadOn,
} from '../schedule/placement/fit.ts';
import type { PlacementRule } from '../schedule/placement/rule.ts';
import { RuleSet, type RuleSegment, wantedVoters } from '../schedule/placement/rule-set.ts';
import { type SchedulerRecord, SchedulerSettings } from '../schedule/scheduler-settings.ts';
import type { Refusal } from '../schedule/verdict.ts';
import { type RegionInfo, learnersOf, regionInfoFromHeartbeat, unreportedRegion, votersOf } from './region-info.ts';
import { type OfferVerdict, RegionTree, type StaleReason } from './region-tree.ts';
import {
  type StoreInfo,
  type StoreLiveness,
  type StoreRecord,
  isUp,
  isolationScore,
  livenessOf,
} from './store-info.ts';

/** Why a region report was dropped without asking the map. */
export type MalformedReport =
  | 'no-peers'
  | 'no-leader'
  | 'leader-not-a-peer'
  | 'empty-range'
  | 'store-removed'
  | 'zero-id';

export type ReportVerdict =
  | {
      readonly type: 'accepted';
      readonly info: RegionInfo;
      readonly previous: RegionInfo | undefined;
      readonly evicted: readonly RegionInfo[];
      /** The descriptor differs from the one known before and must be written. */
      readonly save: boolean;
    }
  | { readonly type: 'stale'; readonly reason: StaleReason; readonly known: RegionInfo }
  | { readonly type: 'malformed'; readonly reason: MalformedReport };

/** What documents and administrators want left alone. */
export interface RegionClaims {
  /** Why nothing automatic may split, merge or balance a region; undefined if it may. */
  pinnedReason(info: RegionInfo): Refusal | undefined;
  /** Whether a replica on a living store must stay as it is. */
  protects(info: RegionInfo, store: StoreId): boolean;
  /** Why nothing at all may be done with a region but to bring it out of a joint state; undefined if it is not paused. */
  pausedReason(info: RegionInfo): Refusal | undefined;
  /** Why nobody but a document may split or merge a region, naming the document; undefined if none holds it. */
  heldReason(info: RegionInfo): Refusal | undefined;
}

export class Cluster {
  /** Set once by the owner of the documents. */
  claims: RegionClaims = {
    pinnedReason: () => undefined,
    protects: () => false,
    pausedReason: () => undefined,
    heldReason: () => undefined,
  };
  readonly tree: RegionTree = new RegionTree();
  /** What administrators have set for checkers and schedulers. */
  readonly schedulers: SchedulerSettings;
  /** Without what is set at run time. */
  #base: PlacementConfig;
  #settings: RunTimeSettings['values'] = NO_SETTINGS.values;
  #config: PlacementConfig;
  #rules: RuleSet;
  readonly #stores = new Map<StoreId, StoreInfo>();
  #bootstrapped = false;
  /** Undefined until asked for, and after stores changed. */
  #bestIsolation: number | undefined;

  constructor(config: PlacementConfig) {
    this.#base = config;
    this.#config = config;
    this.schedulers = new SchedulerSettings(config);
    this.#rules = new RuleSet([], config.maxReplicas);
  }

  /** The settings in force: those that administrators have changed at run time included. */
  get config(): PlacementConfig {
    return this.#config;
  }

  /** Takes over what administrators have set for checkers and schedulers. */
  setSchedulers(records: Iterable<SchedulerRecord>): void {
    this.schedulers.load(records);
    this.#reconfigure();
  }

  /** The wanted number of voters as administrators last set it. */
  setMaxReplicas(maxReplicas: number): void {
    assert(Number.isSafeInteger(maxReplicas) && maxReplicas >= 1, 'max replicas must be a positive integer');
    this.#base = { ...this.#base, maxReplicas };
    this.#reconfigure();
  }

  /** What this process and the cluster began with, without what is set at run time. */
  get baseConfig(): PlacementConfig {
    return this.#base;
  }

  /** Takes over what administrators have set at run time; answers why it has no effect, if so. */
  setSettings(values: RunTimeSettings['values']): string | undefined {
    this.#settings = values;
    return this.#reconfigure();
  }

  #reconfigure(): string | undefined {
    const { config, problem } = effectiveSettings(this.#base, this.#settings);
    this.schedulers.configure(config);
    this.#config = { ...config, ...this.schedulers.overrides() };
    this.#rules = new RuleSet(this.#rules.rules, config.maxReplicas);
    // It depends on the location labels.
    this.#bestIsolation = undefined;
    return problem;
  }

  get rules(): RuleSet {
    return this.#rules;
  }

  /** Takes over the placement rules that administrators have set. */
  setRules(rules: readonly PlacementRule[]): void {
    this.#rules = new RuleSet(rules, this.config.maxReplicas);
  }

  /** The rules of a region; of its first key while it lies across a border of rules. */
  rulesOf(info: RegionInfo): RuleSegment {
    return this.#rules.at(info.region.range.start);
  }

  /** How the region's peers meet its rules. */
  fit(info: RegionInfo): Fit {
    return fitRegion(info, this.rulesOf(info), this.fitView());
  }

  fitView(): FitView {
    return { store: (id) => this.#stores.get(id)?.record.store, locationLabels: this.config.locationLabels };
  }

  /** Voters that the rules of the region ask for. */
  wantedVotersOf(info: RegionInfo): number {
    return wantedVoters(this.rulesOf(info));
  }

  /** Exactly the replicas that the rules ask for. */
  isFullyReplicated(info: RegionInfo, rules: RuleSet = this.#rules): boolean {
    const segment = rules.at(info.region.range.start);
    return segment.isDefault
      ? votersOf(info.region).length === this.config.maxReplicas && learnersOf(info.region).length === 0
      : isMet(fitRegion(info, segment, this.fitView()));
  }

  /** Whether the rules let a replica of the region on this store lead. */
  rulesLetLead(info: RegionInfo, id: StoreId): boolean {
    const segment = this.rulesOf(info);
    const store = this.#stores.get(id)?.record.store;
    return segment.isDefault || (store !== undefined && mayLeadBy(segment, store));
  }

  /** Whether balancing may move the lead of the region to this store. */
  rulesWantLeadOn(info: RegionInfo, id: StoreId): boolean {
    const segment = this.rulesOf(info);
    const store = this.#stores.get(id)?.record.store;
    return segment.isDefault || (store !== undefined && wantsLeadOn(segment, store));
  }

  /** Whether the rules let the replica on `from` be on `to` instead. */
  rulesLetMove(info: RegionInfo, from: StoreId, to: StoreId): boolean {
    if (this.rulesOf(info).isDefault) {
      return true;
    }
    const fit = this.fit(info);
    const slot = fit.slots.find(({ peer }) => peer?.storeId === from);
    const store = this.#stores.get(to)?.record.store;
    return slot !== undefined && store !== undefined && targetOf(fit, slot, this.fitView()).accepts(store);
  }

  get bootstrapped(): boolean {
    return this.#bootstrapped;
  }

  markBootstrapped(): void {
    this.#bootstrapped = true;
  }

  /** Takes over a durable store record, keeping the volatile part of what is known about the store. */
  applyStoreRecord(record: StoreRecord, nowMs: number): void {
    const known = this.#stores.get(record.store.id);
    this.#bestIsolation = undefined;
    this.#stores.set(record.store.id, { record, stats: known?.stats, seenAtMs: known?.seenAtMs ?? nowMs });
  }

  dropStore(id: StoreId): void {
    assert(this.tree.ofStore(id).peers.size === 0, 'a store with replicas must not be forgotten', { store: id });
    this.#bestIsolation = undefined;
    this.#stores.delete(id);
  }

  /** The isolation score of a replica that is as far from one other replica as any two stores are. */
  get bestIsolation(): number {
    this.#bestIsolation ??= this.#farthest();
    return this.#bestIsolation;
  }

  #farthest(): number {
    const stores = [...this.#stores.values()].map(({ record }) => record.store);
    const { locationLabels } = this.config;
    return stores.reduce(
      (best, a, i) =>
        stores.slice(i + 1).reduce((far, b) => Math.max(far, isolationScore(a, [b], locationLabels)), best),
      0,
    );
  }

  store(id: StoreId): StoreInfo | undefined {
    return this.#stores.get(id);
  }

  /** All stores in the order of their ids. */
  stores(): StoreInfo[] {
    return [...this.#stores.values()].sort((a, b) => a.record.store.id - b.record.store.id);
  }

  /** Undefined for an unknown store. */
  liveness(id: StoreId, nowMs: number): StoreLiveness | undefined {
    const info = this.#stores.get(id);
    return info === undefined ? undefined : livenessOf(info, this.config, nowMs);
  }

  /** Whether the store may be told to do something: up, and heard from recently. */
  isUsable(id: StoreId, nowMs: number): boolean {
    const info = this.#stores.get(id);
    return info !== undefined && isUp(info) && livenessOf(info, this.config, nowMs) === 'up';
  }

  /** Takes a store's heartbeat. False if the store is unknown. */
  heartbeatStore(stats: StoreHeartbeat, nowMs: number): boolean {
    const known = this.#stores.get(stats.storeId);
    if (known === undefined) {
      return false;
    }
    this.#stores.set(stats.storeId, { record: known.record, stats, seenAtMs: nowMs });
    return true;
  }

  /** Takes a leader's report about its region. */
  heartbeatRegion(heartbeat: RegionHeartbeat, nowMs: number): ReportVerdict {
    const malformed = this.#malformed(heartbeat);
    if (malformed !== undefined) {
      return { type: 'malformed', reason: malformed };
    }
    const info = regionInfoFromHeartbeat(heartbeat, this.tree.get(heartbeat.region.id), nowMs);
    return toReport(info, this.tree.offer(info));
  }

  /**
   * Takes the descriptors that a store named after it applied a split. This closes the hole that the shrunken parent
   * leaves until every child has a leader; nothing older than what is known gets in, and a known leader is kept.
   * The parent is offered first: its children would otherwise evict it together with its leader.
   */
  learnSplit(regions: readonly Region[]): ReportVerdict[] {
    const known = regions.filter((region) => this.tree.get(region.id) !== undefined);
    const fresh = regions.filter((region) => this.tree.get(region.id) === undefined);
    return [...known, ...fresh].map((region) => this.#learnRegion(region));
  }

  #learnRegion(region: Region): ReportVerdict {
    if (region.id === 0 || region.peers.length === 0 || isEmptyRange(region.range)) {
      return { type: 'malformed', reason: region.peers.length === 0 ? 'no-peers' : 'empty-range' };
    }
    const known = this.tree.get(region.id);
    if (known === undefined) {
      const info = unreportedRegion(region);
      return toReport(info, this.tree.offer(info));
    }
    if (region.epoch.version <= known.region.epoch.version || region.epoch.confVer < known.region.epoch.confVer) {
      return { type: 'stale', reason: 'own-version', known };
    }
    const leader = known.leader === undefined ? undefined : findPeer(region, known.leader.id);
    const info: RegionInfo = { ...known, region, leader };
    return toReport(info, this.tree.offer(info));
  }

  /** What the peer's own store says is wrong with its data; undefined for nothing. */
  damageOf(region: RegionId, peer: Peer): DamagedPeer | undefined {
    const found = this.store(peer.storeId)?.stats?.damagedPeers;
    return found?.find((damaged) => damaged.regionId === region && damaged.peerId === peer.id);
  }

  /** Takes a descriptor that was persisted by an earlier process. */
  loadRegion(region: Region): OfferVerdict {
    return this.tree.offer(unreportedRegion(region));
  }

  #malformed(heartbeat: RegionHeartbeat): MalformedReport | undefined {
    const { region, leader } = heartbeat;
    if (region.id === 0) {
      return 'zero-id';
    }
    if (region.peers.length === 0) {
      return 'no-peers';
    }
    if (leader.id === 0) {
      return 'no-leader';
    }
    if (findPeer(region, leader.id)?.storeId !== leader.storeId) {
      return 'leader-not-a-peer';
    }
    if (isEmptyRange(region.range)) {
      return 'empty-range';
    }
    return this.#stores.get(leader.storeId)?.record.store.state === 'tombstone' ? 'store-removed' : undefined;
  }
}

function toReport(info: RegionInfo, verdict: OfferVerdict): ReportVerdict {
  if (verdict.type === 'stale') {
    return verdict;
  }
  const { previous, evicted } = verdict;
  const save =
    previous === undefined ||
    evicted.length > 0 ||
    !epochsEqual(previous.region.epoch, info.region.epoch) ||
    previous.region.peers.length !== info.region.peers.length;
  return { type: 'accepted', info, previous, evicted, save };
}
