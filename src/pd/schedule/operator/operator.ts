/**
 * A plan for one region: ordered steps, and how far it has come. Owns its status and its times; decides nothing about
 * admission or sending. It advances only on what a leader's report shows.
 */
import { assert } from '../../../base/assert.ts';
import type { RegionId, StoreId } from '../../../base/ids.ts';
import type { RegionEpoch } from '../../../meta/region.ts';
import type { StepRefusal } from '../../../meta/step-refusal.ts';
import type { RegionInfo } from '../../cluster/region-info.ts';
import type { PlacementConfig } from '../../defaults.ts';
import { type EndReason, type EndStatus, type OperatorStatus, isEnd, mayBecome } from './status.ts';
import { type Step, confVerChanged, isFinished, timeoutMsOf } from './step.ts';

/** What an operator is about; the first of this list that it has decides which limit it counts against. */
export type OperatorKind = 'admin' | 'merge' | 'replica' | 'split' | 'region' | 'leader';

export type Priority = 'low' | 'medium' | 'high' | 'urgent';

export const PRIORITY_ORDER: Readonly<Record<Priority, number>> = { low: 0, medium: 1, high: 2, urgent: 3 };

const LIMIT_ORDER: readonly OperatorKind[] = ['admin', 'merge', 'replica', 'split', 'region', 'leader'];

export interface OperatorPlan {
  readonly region: RegionInfo;
  /** Who made it, a stable word. */
  readonly maker: string;
  /** What it does, a short sentence without a period. */
  readonly brief: string;
  readonly kinds: readonly OperatorKind[];
  readonly priority: Priority;
  readonly steps: readonly Step[];
  /** Given by whoever asked; empty for none. */
  readonly note?: string;
}

export interface StepTimes {
  startedWallMs: number;
  finishedWallMs: number;
  startedMs: number;
  sends: number;
  /** Last thing known about the step; empty for nothing. */
  detail: string;
}

export interface Times {
  readonly monoMs: number;
  readonly wallMs: number;
}

/** How far a merge has come, as the reports of its source tell. */
export type MergeProgress =
  | { readonly type: 'aligning' }
  /** The command was sent at least once, when the source had this epoch; PrepareMerge may have been proposed. */
  | { readonly type: 'sent'; readonly epoch: RegionEpoch }
  /** A report shows that PrepareMerge was applied. */
  | { readonly type: 'prepared'; readonly epoch: RegionEpoch; readonly wallMs: number }
  | { readonly type: 'committed'; readonly preparedWallMs: number; readonly wallMs: number }
  | { readonly type: 'rolled-back'; readonly preparedWallMs: number; readonly wallMs: number };

/** The last thing a store would not do for an operator. */
export interface OperatorRefusal extends StepRefusal {
  readonly regionId: RegionId;
  readonly storeId: StoreId;
  /** Of the latest one. */
  readonly wallMs: number;
  /** Refusals with the same word in a row. */
  readonly count: number;
}

export class Operator {
  readonly id: number;
  readonly regionId: RegionId;
  /** The region's epoch when the plan was made. */
  readonly epoch: RegionEpoch;
  readonly maker: string;
  readonly brief: string;
  readonly kinds: readonly OperatorKind[];
  readonly priority: Priority;
  readonly steps: readonly Step[];
  readonly note: string;
  readonly created: Times;
  readonly sizeBytes: number;
  timeoutMs: number;
  /** The other half of a merge. */
  related: Operator | undefined;
  mergeProgress: MergeProgress = { type: 'aligning' };
  lastRefusal: OperatorRefusal | undefined;
  readonly stepTimes: readonly StepTimes[];
  #status: OperatorStatus = 'created';
  #reason: EndReason | undefined;
  #startedWallMs = 0;
  #startedMs = 0;
  #finishedWallMs = 0;
  #current = 0;

  constructor(id: number, plan: OperatorPlan, config: PlacementConfig, now: Times) {
    assert(plan.steps.length > 0, 'an operator needs steps', { maker: plan.maker });
    this.id = id;
    this.regionId = plan.region.region.id;
    this.epoch = plan.region.region.epoch;
    this.maker = plan.maker;
    this.brief = plan.brief;
    this.kinds = plan.kinds;
    this.priority = plan.priority;
    this.steps = plan.steps;
    this.note = plan.note ?? '';
    this.created = now;
    this.sizeBytes = plan.region.sizeBytes;
    this.timeoutMs = plan.steps.reduce((sum, step) => sum + timeoutMsOf(step, plan.region.sizeBytes, config), 0);
    this.stepTimes = plan.steps.map(() => ({
      startedWallMs: 0,
      finishedWallMs: 0,
      startedMs: 0,
      sends: 0,
      detail: '',
    }));
  }

  get status(): OperatorStatus {
    return this.#status;
  }

  get reason(): EndReason | undefined {
    return this.#reason;
  }

  get startedWallMs(): number {
    return this.#startedWallMs;
  }

  get finishedWallMs(): number {
    return this.#finishedWallMs;
  }

  /** Index of the running step; the number of steps once all are finished. */
  get currentIndex(): number {
    return this.#current;
  }

  get currentStep(): Step | undefined {
    return this.steps[this.#current];
  }

  get hasEnded(): boolean {
    return isEnd(this.#status);
  }

  get isMergeSource(): boolean {
    return this.steps.at(-1)?.type === 'merge-region';
  }

  get isMergeTarget(): boolean {
    return this.steps.at(-1)?.type === 'merge-region-passive';
  }

  /** The kind whose limit this operator counts against. */
  get limitKind(): OperatorKind {
    const kind = LIMIT_ORDER.find((k) => this.kinds.includes(k));
    assert(kind !== undefined, 'an operator needs a kind', { maker: this.maker });
    return kind;
  }

  /** Whether stopping it here surely stops it in the stores, too. */
  get isCancelable(): boolean {
    const progress = (this.isMergeTarget ? this.related : this)?.mergeProgress;
    return !this.hasEnded && (progress === undefined || progress.type === 'aligning');
  }

  start(now: Times): boolean {
    if (!this.#become('started')) {
      return false;
    }
    this.#startedMs = now.monoMs;
    this.#startedWallMs = now.wallMs;
    this.#enter(now);
    return true;
  }

  /** Ends the operator; false if it had ended before or may not end this way. */
  end(status: EndStatus, reason: EndReason | undefined, now: Times): boolean {
    assert(status === 'success' || reason !== undefined, 'an end without success needs a reason', {
      operator: this.id,
    });
    if (!this.#become(status)) {
      return false;
    }
    this.#reason = reason;
    this.#finishedWallMs = now.wallMs;
    return true;
  }

  /** Passes over all steps that the report shows as finished. True when none is left. */
  advance(info: RegionInfo, now: Times): boolean {
    assert(info.region.id === this.regionId, 'report of another region');
    assert(this.#status === 'started', 'only started operators advance', { operator: this.id });
    let step = this.currentStep;
    while (step !== undefined && isFinished(step, info)) {
      this.#leave(now);
      step = this.currentStep;
    }
    return step === undefined;
  }

  /** Marks the last step of a merge source as done: its proof is in the report of the target. */
  finishMerge(now: Times): void {
    assert(this.isMergeSource && this.#current === this.steps.length - 1, 'not in its merge step', {
      operator: this.id,
    });
    this.#leave(now);
  }

  isOverdue(nowMs: number): boolean {
    return this.#status === 'started' && nowMs - this.#startedMs > this.timeoutMs;
  }

  isExpired(nowMs: number, expiryMs: number): boolean {
    return this.#status === 'created' && nowMs - this.created.monoMs > expiryMs;
  }

  /** Membership changes that the steps up to the current one account for. */
  confVerChanged(info: RegionInfo): number {
    let sum = 0;
    for (const step of this.steps.slice(0, this.#current + 1)) {
      sum += confVerChanged(step, info.region);
    }
    return sum;
  }

  #become(status: OperatorStatus): boolean {
    if (!mayBecome(this.#status, status)) {
      return false;
    }
    this.#status = status;
    return true;
  }

  #enter(now: Times): void {
    const times = this.stepTimes[this.#current];
    if (times !== undefined) {
      times.startedMs = now.monoMs;
      times.startedWallMs = now.wallMs;
    }
  }

  #leave(now: Times): void {
    const times = this.stepTimes[this.#current];
    assert(times !== undefined, 'leaving a step that does not exist', { operator: this.id });
    times.finishedWallMs = now.wallMs;
    times.detail = '';
    this.#current++;
    this.#enter(now);
  }
}
