/**
 * Token buckets that bound how fast replicas are added to and removed from one store (tikv/pd pkg/core/storelimit).
 * Regions below 1 MiB are free, so that merging empty regions is never throttled.
 */
import type { StoreId } from '../../../base/ids.ts';
import { MIB } from '../../../base/units.ts';
import { type Step } from './step.ts';

/** Tokens for one large region. */
const LARGE_COST = 1000;
const SMALL_COST = 200;
const LARGE_BYTES = 20 * MIB;
const FREE_BYTES = 1 * MIB;

export type LimitDirection = 'add' | 'remove';

function costOf(sizeBytes: number): number {
  if (sizeBytes <= FREE_BYTES) {
    return 0;
  }
  return sizeBytes > LARGE_BYTES ? LARGE_COST : SMALL_COST;
}

interface Bucket {
  tokens: number;
  atMs: number;
}

/** Tokens an operator needs, by store and direction. */
export interface LimitUse {
  readonly storeId: StoreId;
  readonly direction: LimitDirection;
  readonly tokens: number;
}

/** What one replica of this size costs. */
export const peerUse = (storeId: StoreId, direction: LimitDirection, sizeBytes: number): LimitUse => ({
  storeId,
  direction,
  tokens: costOf(sizeBytes),
});

export function limitUses(steps: readonly Step[], sizeBytes: number): LimitUse[] {
  const uses: LimitUse[] = [];
  for (const step of steps) {
    if (step.type === 'add-learner' || step.type === 'remove-peer') {
      uses.push(peerUse(step.storeId, step.type === 'add-learner' ? 'add' : 'remove', sizeBytes));
    }
  }
  return uses;
}

export class StoreLimits {
  readonly #perMinuteOf: (store: StoreId) => number;
  readonly #buckets = new Map<string, Bucket>();

  /** @param perMinuteOf large peers per minute and direction of a store as set now; 0 = no limit */
  constructor(perMinuteOf: (store: StoreId) => number) {
    this.#perMinuteOf = perMinuteOf;
  }

  /** The first store and direction that lacks tokens for all uses together; undefined when all fit. Takes nothing. */
  lacking(uses: readonly LimitUse[], nowMs: number): LimitUse | undefined {
    const wanted = new Map<string, number>();
    for (const use of uses) {
      const key = `${use.direction}/${use.storeId}`;
      const sum = (wanted.get(key) ?? 0) + use.tokens;
      wanted.set(key, sum);
      if (sum > 0 && this.#refill(use, nowMs).tokens < sum) {
        return use;
      }
    }
    return undefined;
  }

  take(uses: readonly LimitUse[], nowMs: number): void {
    for (const use of uses) {
      if (use.tokens > 0) {
        this.#refill(use, nowMs).tokens -= use.tokens;
      }
    }
  }

  #refill({ direction, storeId }: LimitUse, nowMs: number): Bucket {
    const key = `${direction}/${storeId}`;
    const perMinute = this.#perMinuteOf(storeId);
    if (perMinute === 0) {
      return { tokens: Infinity, atMs: nowMs };
    }
    const perSecond = (LARGE_COST * perMinute) / 60;
    const capacity = Math.max(LARGE_COST, perSecond);
    const bucket = this.#buckets.get(key) ?? { tokens: capacity, atMs: nowMs };
    bucket.tokens = Math.min(capacity, bucket.tokens + ((nowMs - bucket.atMs) / 1000) * perSecond);
    bucket.atMs = nowMs;
    this.#buckets.set(key, bucket);
    return bucket;
  }
}
