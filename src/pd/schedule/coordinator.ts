/**
 * Decides when anything automatic happens: warm-up after a start, the patrol that asks the checkers about region after
 * region, the rounds of the schedulers. Schedulers propose; the operator controller disposes.
 */
import type { RegionId, StoreId } from '../../base/ids.ts';
import { isInJointState } from '../../meta/region.ts';
import type { Rng } from '../../env/rng.ts';
import type { Cluster } from '../cluster/cluster.ts';
import type { RegionInfo } from '../cluster/region-info.ts';
import { CHECKERS, type Checker, type CheckerContext } from './checker/checkers.ts';
import type { MergeCheckContext } from './checker/merge-checks.ts';
import type { OperatorController } from './operator/controller.ts';
import type { OperatorFactory } from './operator/create.ts';
import type { OperatorGroup } from './operator/waiting-queue.ts';
import { type SchedulerContext, scheduleLeaderBalance } from './scheduler/balance-leader.ts';
import { scheduleRegionBalance } from './scheduler/balance-region.ts';
import { scheduleLeaderEviction } from './scheduler/evict-leader.ts';
import { scheduleLeaderGrant } from './scheduler/grant-leader.ts';
import { scheduleHotRegion } from './scheduler/hot-region.ts';
import { scheduleRandomMerge } from './scheduler/random-merge.ts';
import { scheduleLeaderShuffle } from './scheduler/shuffle-leader.ts';
import { scheduleRegionShuffle } from './scheduler/shuffle-region.ts';
import type { BatchOwner, RoundOwner } from './parameters.ts';
import { type SwitchName, type Switches, switchInfo } from './switches.ts';
import type { Refusal } from './verdict.ts';

export interface WarmupState {
  readonly done: boolean;
  readonly reportedRegions: number;
  readonly knownRegions: number;
  readonly elapsedMs: number;
}

export interface CoordinatorOptions {
  readonly cluster: Cluster;
  readonly controller: OperatorController;
  readonly factory: OperatorFactory;
  readonly switches: Switches;
  readonly nowMs: () => number;
  /** Chance of the schedulers that move things at random. */
  readonly rng: Rng;
}

/** Why a store splits a region: somebody asked for it, it is too large, or it has too much to do. */
export type SplitCause = 'admin' | 'size' | 'load';

/** Remembered splits; the oldest are forgotten beyond this. */
const SPLITS_MAX = 65_536;
/** Remembered reasons why a region was not repaired. */
const BLOCKED_MAX = 4_096;
/** A region whose repair was not admitted is not planned again before this. */
const BLOCKED_RETRY_MS = 1_000;

interface Blocked {
  readonly refusal: Refusal;
  readonly retryAtMs: number;
}

export class Coordinator {
  readonly #cluster: Cluster;
  readonly #controller: OperatorController;
  readonly #factory: OperatorFactory;
  readonly #switches: Switches;
  readonly #nowMs: () => number;
  readonly #startedMs: number;
  readonly #splits = new Map<RegionId, { readonly atMs: number; readonly cause: SplitCause | undefined }>();
  readonly #blocked = new Map<RegionId, Blocked>();
  /** When the lead of a region was moved because of its traffic. */
  readonly #movedForTraffic = new Map<RegionId, number>();
  readonly #rng: Rng;
  /** When a scheduler had its latest round. */
  readonly #roundAtMs = new Map<RoundOwner, number>();
  #cursor: Uint8Array = new Uint8Array(0);
  #warm = false;

  constructor(options: CoordinatorOptions) {
    this.#cluster = options.cluster;
    this.#controller = options.controller;
    this.#factory = options.factory;
    this.#switches = options.switches;
    this.#nowMs = options.nowMs;
    this.#startedMs = options.nowMs();
    this.#rng = options.rng;
  }

  /** Enough regions, of all stores, have reported, or enough time has passed. Stays done once it is. */
  warmup(): WarmupState {
    const { tree, config } = this.#cluster;
    const elapsedMs = this.#nowMs() - this.#startedMs;
    if (!this.#warm && this.#cluster.bootstrapped) {
      this.#warm = elapsedMs >= config.warmupMaxMs || this.#enoughReports();
    }
    return { done: this.#warm, reportedRegions: tree.reportedCount, knownRegions: tree.size, elapsedMs };
  }

  /** Ids for a split were handed out: parent and children are young, whether or not the split succeeds. */
  noteSplit(regions: readonly RegionId[], cause?: SplitCause): void {
    for (const id of regions) {
      this.#splits.delete(id);
      this.#splits.set(id, { atMs: this.#nowMs(), cause });
    }
    for (const id of this.#splits.keys()) {
      if (this.#splits.size <= SPLITS_MAX) {
        return;
      }
      this.#splits.delete(id);
    }
  }

  /** Why the region was split lately, as its store said when it asked for ids. */
  splitCause(id: RegionId): SplitCause | undefined {
    return this.#splits.get(id)?.cause;
  }

  mergeContext(): MergeCheckContext {
    return {
      cluster: this.#cluster,
      controller: this.#controller,
      nowMs: this.#nowMs(),
      startedMs: this.#startedMs,
      splitAtMs: (id) => this.#splits.get(id)?.atMs,
    };
  }

  /** Why a checker could not do what it wanted for a region; undefined if it could, or wanted nothing. */
  blockedReason(region: RegionId): Refusal | undefined {
    return this.#blocked.get(region)?.refusal;
  }

  /** Why a switched-on part does nothing now; undefined if it works. */
  idleReason(name: SwitchName): string | undefined {
    if (!this.#cluster.bootstrapped) {
      return 'the cluster is not bootstrapped';
    }
    if (name !== 'scheduling' && !this.#switches.isOn('scheduling')) {
      return 'scheduling is switched off';
    }
    if (!this.#cluster.schedulers.isPresent(name)) {
      return switchInfo(name).isOptional === true ? 'it was not added' : 'it was removed';
    }
    return this.warmup().done ? undefined : 'waiting for the regions to report';
  }

  #isActive(name: SwitchName): boolean {
    return this.#switches.isOn(name) && this.idleReason(name) === undefined;
  }

  #enoughReports(): boolean {
    const { tree, config } = this.#cluster;
    if (tree.reportedCount < tree.size * config.warmupReportedRatio) {
      return false;
    }
    return this.#cluster.stores().every(({ record }) => {
      const { peers } = tree.ofStore(record.store.id);
      let reported = 0;
      for (const id of peers) {
        reported += tree.get(id)?.reportedAtMs === undefined ? 0 : 1;
      }
      return reported >= peers.size * config.warmupReportedRatio;
    });
  }

  /** Looks at the next regions in key order and starts repairs. Call it every `patrolIntervalMs`. */
  patrolRound(): void {
    const active = CHECKERS.filter((checker) => this.#isActive(checker.name));
    if (active.length === 0) {
      return;
    }
    const { config, tree } = this.#cluster;
    const batch = tree.scan({ start: this.#cursor, end: new Uint8Array(0) }, config.patrolBatchMax);
    const last = batch.at(-1);
    this.#cursor =
      batch.length < config.patrolBatchMax || last === undefined ? new Uint8Array(0) : last.region.range.end;
    const context: CheckerContext = {
      cluster: this.#cluster,
      factory: this.#factory,
      nowMs: this.#nowMs(),
      merge: this.mergeContext(),
    };
    for (const info of batch) {
      const isBusy =
        info.leader === undefined || info.merging || this.#controller.runningOn(info.region.id) !== undefined;
      if (isBusy) {
        continue;
      }
      const paused = this.#cluster.claims.pausedReason(info);
      if (paused !== undefined && !isInJointState(info.region)) {
        this.#remember(info.region.id, { refusal: paused, retryAtMs: context.nowMs });
      } else if (context.nowMs >= (this.#blocked.get(info.region.id)?.retryAtMs ?? 0)) {
        this.#checkRegion(info, active, context);
      }
    }
  }

  #checkRegion(info: RegionInfo, active: readonly Checker[], context: CheckerContext): void {
    this.#blocked.delete(info.region.id);
    for (const checker of active) {
      if (!this.#controller.acceptsFrom(checker.name, checker.kind)) {
        continue;
      }
      const verdict = checker.check(info, context);
      switch (verdict.type) {
        case 'nothing':
          break;
        case 'blocked':
          this.#remember(info.region.id, { refusal: verdict.refusal, retryAtMs: context.nowMs });
          return;
        case 'operator': {
          const refusal = this.#controller.offer(verdict.group);
          if (refusal !== undefined) {
            this.#remember(info.region.id, { refusal, retryAtMs: context.nowMs + BLOCKED_RETRY_MS });
          }
          return;
        }
      }
    }
  }

  #remember(region: RegionId, blocked: Blocked): void {
    this.#blocked.set(region, blocked);
    for (const id of this.#blocked.keys()) {
      if (this.#blocked.size <= BLOCKED_MAX) {
        return;
      }
      this.#blocked.delete(id);
    }
  }

  /** One round of all schedulers. Call it every `schedulerIntervalMs`. */
  schedulerRound(): void {
    const context: SchedulerContext = {
      cluster: this.#cluster,
      controller: this.#controller,
      factory: this.#factory,
      nowMs: this.#nowMs(),
      keepsLeaders: this.#keepsLeaders(),
    };
    if (this.#isDue('evict-leader')) {
      this.#offerAll(scheduleLeaderEviction(context));
    }
    if (this.#isDue('grant-leader')) {
      this.#offerAll(scheduleLeaderGrant(context));
    }
    if (this.#isDue('hot-region')) {
      this.#hotRound(context);
    }
    this.#round('balance-leader', () => scheduleLeaderBalance(context));
    this.#round('balance-region', () => scheduleRegionBalance(context));
    this.#round('shuffle-leader', () => scheduleLeaderShuffle(context, this.#rng));
    this.#round('shuffle-region', () => scheduleRegionShuffle(context, this.#rng));
    this.#round('random-merge', () => scheduleRandomMerge(context, this.mergeContext(), this.#rng));
  }

  /** Stores that leaders were granted to keep them while the scheduler that brings them works. */
  #keepsLeaders(): (store: StoreId) => boolean {
    const { stores } = this.#cluster.schedulers.record('grant-leader');
    return stores.length > 0 && this.#isActive('grant-leader') ? (store) => stores.includes(store) : () => false;
  }

  /** Whether the scheduler works and its next round has come; notes the round. */
  #isDue(name: RoundOwner): boolean {
    if (!this.#isActive(name)) {
      return false;
    }
    const nowMs = this.#nowMs();
    const { schedulerIntervalMs } = this.#cluster.config;
    const lastMs = this.#roundAtMs.get(name) ?? -Infinity;
    // The nearest round of the common clock: a timer that is a little early must not cost a whole round.
    const waitMs = this.#cluster.schedulers.value(name, 'interval') - schedulerIntervalMs / 2;
    if (waitMs > schedulerIntervalMs / 2 && nowMs - lastMs < waitMs) {
      return false;
    }
    this.#roundAtMs.set(name, nowMs);
    return true;
  }

  /** Up to a batch of operators of one scheduler. */
  #round(name: RoundOwner & BatchOwner, propose: () => OperatorGroup | undefined): void {
    if (this.#isDue(name)) {
      this.#offerUpTo(this.#cluster.schedulers.value(name, 'batch'), propose);
    }
  }

  #hotRound(context: SchedulerContext): void {
    const restMs = this.#cluster.schedulers.value('hot-region', 'rest');
    const isResting = (info: RegionInfo): boolean =>
      context.nowMs < (this.#movedForTraffic.get(info.region.id) ?? -Infinity) + restMs;
    const group = scheduleHotRegion(context, isResting);
    if (group !== undefined && this.#controller.offer(group) === undefined) {
      this.#noteMoved(group[0].regionId, context.nowMs, restMs);
    }
  }

  #noteMoved(region: RegionId, nowMs: number, restMs: number): void {
    for (const [id, atMs] of this.#movedForTraffic) {
      if (atMs + restMs <= nowMs) {
        this.#movedForTraffic.delete(id);
      }
    }
    this.#movedForTraffic.set(region, nowMs);
  }

  #offerAll(groups: readonly OperatorGroup[]): void {
    for (const group of groups) {
      if (this.#controller.offer(group) !== undefined) {
        return;
      }
    }
  }

  #offerUpTo(max: number, propose: () => OperatorGroup | undefined): void {
    for (let i = 0; i < max; i++) {
      const group = propose();
      if (group === undefined || this.#controller.offer(group) !== undefined) {
        return;
      }
    }
  }
}
