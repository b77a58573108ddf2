/**
 * Ids for stores, regions and peers: one sequence, given out only below a limit that was made durable before. A crash
 * wastes the rest of a window, which is fine; no id is ever given twice (tikv/pd pkg/id).
 */
import { assert } from '../../base/assert.ts';

export class IdAllocator {
  readonly #window: number;
  /** Last id given out. */
  #last: number;
  /** Last id that may be given out. */
  #limit: number;

  /** @param durableLimit the limit found on disk: everything up to it may have been given out by an earlier process. */
  constructor(durableLimit: number, window: number) {
    assert(Number.isSafeInteger(durableLimit) && durableLimit >= 0, 'id limit must be a non-negative safe integer');
    assert(Number.isSafeInteger(window) && window > 0, 'id window must be a positive integer');
    this.#window = window;
    this.#last = durableLimit;
    this.#limit = durableLimit;
  }

  /** Ids that can be given out at once. */
  get available(): number {
    return this.#limit - this.#last;
  }

  get limit(): number {
    return this.#limit;
  }

  /** Whether it is time to extend the window, long before it is used up. */
  get isLow(): boolean {
    return this.available * 2 < this.#window;
  }

  /** The first of `count` consecutive ids; undefined when the window is too short (see {@link nextLimit}). */
  take(count: number): number | undefined {
    assert(Number.isSafeInteger(count) && count > 0, 'id count must be a positive integer', { count });
    if (this.available < count) {
      return undefined;
    }
    const first = this.#last + 1;
    this.#last += count;
    assert(this.#last <= this.#limit, 'ids beyond the durable limit');
    return first;
  }

  /** The limit to make durable so that a whole window, or `count` ids if that is more, is available. */
  nextLimit(count: number): number {
    const limit = this.#limit + Math.max(this.#window, count);
    assert(Number.isSafeInteger(limit), 'id space exhausted');
    return limit;
  }

  /** The new limit is durable. */
  extend(durableLimit: number): void {
    assert(durableLimit >= this.#limit, 'the id limit only grows', { durableLimit, limit: this.#limit });
    this.#limit = durableLimit;
  }
}
