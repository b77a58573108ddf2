/**
 * Hash of a region's content at one log index: the stored pairs of its range and its region record, read page by page
 * from an engine snapshot. Replicas that applied the same log get the same hash (reference 12.2).
 */
import { equalBytes, keyAfter } from '../../base/bytes.ts';
import { Hash64 } from '../../base/hash.ts';
import type { KeyRange } from '../../base/key-range.ts';
import { KIB } from '../../base/units.ts';
import { dataRange } from '../../engine/keyspace.ts';
import type { EngineSnapshot } from '../../env/engine.ts';
import type { StoreContext } from '../context.ts';
import { sleep } from '../../env/clock.ts';
import { stopOnReadFailure } from './engine-failure.ts';

/** One page is hashed in one turn of the event loop: about a millisecond. */
const PAGE_KEYS = 512;
const PAGE_BYTES: number = 128 * KIB;
/** Rest after a page, in times that its page took: hashing takes at most a tenth of the process. */
const REST_FACTOR = 9;

export interface HashJobOptions {
  readonly ctx: Pick<StoreContext, 'engine' | 'abort' | 'clock'>;
  /** Log index of the command; everything before it is durable and visible in the engine. */
  readonly index: number;
  readonly range: KeyRange;
  /** Encoded region record at that index. */
  readonly regionState: Uint8Array;
  /** Called once unless the job is cancelled. */
  readonly done: (hash: Uint8Array) => void;
}

/** One running or finished computation. Starts with its construction. */
export class HashJob {
  readonly index: number;
  readonly #options: HashJobOptions;
  readonly #snapshot: EngineSnapshot;
  #isCancelled = false;
  #hash: Uint8Array | undefined;
  #expected: Uint8Array | undefined;

  constructor(options: HashJobOptions) {
    this.index = options.index;
    this.#options = options;
    this.#snapshot = options.ctx.engine.snapshot();
    void this.#run();
  }

  /** Frees the snapshot at the next page; `done` is not called any more. */
  cancel(): void {
    this.#isCancelled = true;
  }

  /** No majority agrees on any hash: every replica is suspect. */
  get isUnclear(): boolean {
    return this.#expected?.length === 0;
  }

  /** Takes the result in; tells whether it matches if a hash was expected already. */
  finish(hash: Uint8Array): boolean | undefined {
    this.#hash = hash;
    return this.#expected === undefined ? undefined : equalBytes(hash, this.#expected);
  }

  /** The leader's hash; tells whether it matches, or undefined while the own one is being computed. */
  expect(hash: Uint8Array): boolean | undefined {
    this.#expected = hash;
    return this.#hash === undefined ? undefined : equalBytes(hash, this.#hash);
  }

  async #run(): Promise<void> {
    const { ctx, range, regionState, done, index } = this.#options;
    const hash = new Hash64();
    try {
      const whole = dataRange(range);
      let { start } = whole;
      for (let more = true; more && !this.#isCancelled; ) {
        const startedMs = ctx.clock.monoMs();
        const page = await ctx.engine.scan({
          range: { start, end: whole.end },
          limit: PAGE_KEYS,
          maxBytes: PAGE_BYTES,
          snapshot: this.#snapshot,
        });
        for (const [key, value] of page.entries) {
          hash.update(key).update(value);
          start = keyAfter(key);
        }
        more = page.more;
        if (more) {
          await sleep(ctx.clock, (ctx.clock.monoMs() - startedMs) * REST_FACTOR, 'consistency-rest');
        }
      }
    } catch (cause) {
      stopOnReadFailure(ctx, `a region for its hash at ${index}`, cause);
      return;
    } finally {
      this.#snapshot.close();
    }
    if (!this.#isCancelled) {
      done(hash.update(regionState).digest());
    }
  }
}
