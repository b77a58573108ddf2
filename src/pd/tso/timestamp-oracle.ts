/**
 * Timestamps that only grow: physical milliseconds << 18 | logical. Invariants: `saved` only grows; physical only
 * grows; physical < saved; no pair is given twice, not even across a crash, because everything below `saved` may have
 * been given out and a new process starts above it (tikv/pd pkg/tso).
 */
import { assert } from '../../base/assert.ts';

const LOGICAL_BITS = 18;
export const LOGICAL_MAX: number = 2 ** LOGICAL_BITS - 1;
/** The physical part moves to the clock only when the clock is ahead by more than this. */
const UPDATE_GUARD_MS = 1;

export interface Timestamp {
  readonly physical: number;
  readonly logical: number;
}

export type ServeVerdict =
  /** The last timestamp of the block; its first one is `logical - count + 1`. */
  | { readonly type: 'ok'; readonly last: Timestamp }
  /** Not yet started, or the reservation must grow first: tick, persist, try again. */
  | { readonly type: 'wait' };

/** The 64-bit form used on the wire and in commit timestamps. */
export const composeTimestamp = (ts: Timestamp): bigint =>
  (BigInt(ts.physical) << BigInt(LOGICAL_BITS)) | BigInt(ts.logical);

export function splitTimestamp(ts: bigint): Timestamp {
  return { physical: Number(ts >> BigInt(LOGICAL_BITS)), logical: Number(ts & BigInt(LOGICAL_MAX)) };
}

export class TimestampOracle {
  readonly #windowMs: number;
  #saved: number;
  #physical = 0;
  #logical = 0;
  #serving = false;

  /** @param durableSavedMs the reservation found on disk, 0 if there is none. */
  constructor(durableSavedMs: number, windowMs: number) {
    assert(Number.isSafeInteger(durableSavedMs) && durableSavedMs >= 0, 'saved timestamp must be a safe integer');
    assert(windowMs > UPDATE_GUARD_MS, 'timestamp window too short', { windowMs });
    this.#saved = durableSavedMs;
    this.#windowMs = windowMs;
  }

  get saved(): number {
    return this.#saved;
  }

  get physical(): number {
    return this.#physical;
  }

  /**
   * First physical time to serve after a start, and the reservation that must be durable before `start` is called with
   * it. Always above everything an earlier process can have given out, even when the clock went back.
   */
  plan(wallMs: number): { readonly physical: number; readonly save: number } {
    assert(!this.#serving, 'the oracle is serving already');
    const wall = Math.floor(wallMs);
    const physical = wall - this.#saved < UPDATE_GUARD_MS ? this.#saved + UPDATE_GUARD_MS : wall;
    return { physical, save: physical + this.#windowMs };
  }

  /** The planned reservation is durable. */
  start(planned: { readonly physical: number; readonly save: number }): void {
    assert(
      planned.save > planned.physical && planned.physical > this.#saved,
      'planned timestamps must lie above all old ones',
    );
    this.#saved = planned.save;
    this.#physical = planned.physical;
    this.#logical = 0;
    this.#serving = true;
  }

  /**
   * Follows the wall clock. Returns the reservation that should be made durable now, or undefined; until `saved` was
   * called with it the physical part does not move beyond the old reservation.
   */
  tick(wallMs: number): number | undefined {
    if (!this.#serving) {
      return undefined;
    }
    const wall = Math.floor(wallMs);
    let next = this.#physical;
    if (wall - this.#physical > UPDATE_GUARD_MS) {
      next = wall;
    } else if (this.#logical > LOGICAL_MAX / 2) {
      next = this.#physical + 1;
    }
    if (next > this.#physical && next < this.#saved) {
      this.#physical = next;
      this.#logical = 0;
    }
    return this.#saved - next <= this.#windowMs / 2 ? next + this.#windowMs : undefined;
  }

  /** A reservation asked for by `tick` is durable. */
  extend(durableSavedMs: number): void {
    this.#saved = Math.max(this.#saved, durableSavedMs);
  }

  /** Takes `count` timestamps, 1 to {@link LOGICAL_MAX}. */
  serve(count: number): ServeVerdict {
    assert(Number.isSafeInteger(count) && count >= 1 && count <= LOGICAL_MAX, 'timestamp count out of range', {
      count,
    });
    if (!this.#serving) {
      return { type: 'wait' };
    }
    if (this.#logical + count > LOGICAL_MAX) {
      if (this.#physical + 1 >= this.#saved) {
        return { type: 'wait' };
      }
      this.#physical++;
      this.#logical = 0;
    }
    this.#logical += count;
    assert(this.#physical < this.#saved, 'a timestamp beyond the durable reservation');
    return { type: 'ok', last: { physical: this.#physical, logical: this.#logical } };
  }
}
