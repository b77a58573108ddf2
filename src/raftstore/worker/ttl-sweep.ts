/**
 * Finds values whose time has run out. Reads never show them; this slow scan only gives their space back. The owner of
 * the callback proposes an `expire` operation per key, which removes the key only if it still holds the value with the
 * expiry seen here, so a value written meanwhile is safe.
 */
import { keyAfter, copyBytes } from '../../base/bytes.ts';
import type { RegionId } from '../../base/ids.ts';
import { KIB } from '../../base/units.ts';
import { decodeDataValue, isExpired } from '../../codec/data-value.ts';
import { dataRange, userKeyOf } from '../../engine/keyspace.ts';
import type { TimerId } from '../../env/clock.ts';
import type { Region } from '../../meta/region.ts';
import type { StoreContext } from '../context.ts';
import { stopOnReadFailure } from './engine-failure.ts';

export interface ExpiredKey {
  readonly key: Uint8Array;
  readonly expireAtSeconds: number;
}

export interface TtlSweeperOptions {
  /** Pause between two pages. */
  readonly pageIntervalMs: number;
  /** Pause between two passes over the store. */
  readonly passIntervalMs: number;
  /** Keys read per page, and thereby the most expired keys of one callback. */
  readonly pageKeys: number;
  /** Only these regions are looked at: those whose leader is here and can propose. */
  readonly isLeader: (region: RegionId) => boolean;
  /** Never called with an empty list. */
  readonly onExpired: (region: Region, keys: readonly ExpiredKey[]) => void;
}

export const TTL_SWEEP_DEFAULTS: Pick<TtlSweeperOptions, 'pageIntervalMs' | 'passIntervalMs' | 'pageKeys'> =
  Object.freeze({
    pageIntervalMs: 100,
    passIntervalMs: 600_000,
    pageKeys: 512,
  });

const PAGE_BYTES: number = 256 * KIB;

type SweepContext = Pick<StoreContext, 'engine' | 'clock' | 'meta' | 'abort'>;

export class TtlSweeper {
  readonly #ctx: SweepContext;
  readonly #options: TtlSweeperOptions;
  #timer: TimerId | undefined;
  #isStopped = false;
  /** User key where the pass continues. */
  #from: Uint8Array = new Uint8Array(0);
  #reading: Promise<void> | undefined;

  constructor(ctx: SweepContext, options: TtlSweeperOptions) {
    this.#ctx = ctx;
    this.#options = options;
  }

  start(): void {
    this.#arm(this.#options.passIntervalMs);
  }

  /** No callback runs after this resolved. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#timer !== undefined) {
      this.#ctx.clock.clearTimer(this.#timer);
    }
    await this.#reading;
  }

  #arm(delayMs: number): void {
    if (!this.#isStopped) {
      this.#timer = this.#ctx.clock.setTimer(
        delayMs,
        () => {
          this.#timer = undefined;
          this.#reading = this.#step();
        },
        'ttl-sweep',
      );
    }
  }

  /** Reads one page of the next region led here, or ends the pass. */
  async #step(): Promise<void> {
    const { pageIntervalMs, passIntervalMs } = this.#options;
    const region = this.#nextRegion();
    if (region === undefined) {
      this.#from = new Uint8Array(0);
      this.#arm(passIntervalMs);
      return;
    }
    try {
      await this.#readPage(region);
    } catch (cause) {
      stopOnReadFailure(this.#ctx, `values of region ${region.id}`, cause);
      return;
    }
    this.#arm(this.#from.length === 0 ? passIntervalMs : pageIntervalMs);
  }

  /** The first region led here that reaches beyond the position; moves the position into it. */
  #nextRegion(): Region | undefined {
    for (const region of this.#ctx.meta.overlapping({ start: this.#from, end: new Uint8Array(0) })) {
      if (this.#options.isLeader(region.id)) {
        if (Buffer.compare(region.range.start, this.#from) > 0) {
          this.#from = region.range.start;
        }
        return region;
      }
    }
    return undefined;
  }

  async #readPage(region: Region): Promise<void> {
    const { engine, clock } = this.#ctx;
    const page = await engine.scan({
      range: dataRange({ start: this.#from, end: region.range.end }),
      limit: this.#options.pageKeys,
      maxBytes: PAGE_BYTES,
    });
    const nowSeconds = Math.floor(clock.wallMs() / 1000);
    const expired: ExpiredKey[] = [];
    for (const [stored, bytes] of page.entries) {
      const value = decodeDataValue(bytes);
      if (value !== undefined && isExpired(value.expireAtSeconds, nowSeconds)) {
        expired.push({ key: copyBytes(userKeyOf(stored)), expireAtSeconds: value.expireAtSeconds });
      }
    }
    const last = page.entries[page.entries.length - 1];
    this.#from = page.more && last !== undefined ? keyAfter(userKeyOf(last[0])) : region.range.end;
    if (expired.length > 0 && !this.#isStopped) {
      this.#options.onExpired(region, expired);
    }
  }
}
