/**
 * Notices that a region has had too much to do for some time, and names the key that halves the load. Counts what its
 * leader serves and keeps a sample of the keys; a split must balance the sample and cut few of the scans (TiKV
 * `components/raftstore/src/store/worker/split_controller.rs`, scores "balance" and "contained"). One number is
 * counted down per key; everything else happens for a sampled key or once per look.
 */
import { compareBytes, copyBytes, equalBytes } from '../../base/bytes.ts';
import { type KeyRange, rangeContains } from '../../base/key-range.ts';
import type { Rng } from '../../env/rng.ts';

export interface LoadLimits {
  /** Keys read and written per second; 0 = no limit. */
  readonly loadSplitQps: number;
  /** Bytes read and written per second; 0 = no limit. */
  readonly loadSplitFlowBytes: number;
  /** How long either has to be exceeded. */
  readonly loadSplitDetectMs: number;
}

/** Keys kept at most. */
export const SAMPLES_MAX = 128;
/** Fewer samples say nothing. */
export const SAMPLES_MIN = 20;
/** Difference of the sides relative to all samples that a split may leave: 0 halves, 1 moves everything to one side. */
export const BALANCE_MAX = 0.5;
/** Share of scans that a split may cut. */
export const CONTAINED_MAX = 0.5;
/** Samples drawn per kept one, so that the whole time is represented. */
const DRAWN_PER_KEPT = 4;

/** What was read or written: one key, or all keys from `key` to `end`. */
interface Sample {
  readonly key: Uint8Array;
  /** Exclusive; undefined for a single key. */
  readonly end: Uint8Array | undefined;
}

export class LoadWatch {
  readonly #limits: LoadLimits;
  readonly #rng: Rng;
  #keys = 0;
  #bytes = 0;
  #skip = 1;
  #drawn = 0;
  #samples: Sample[] = [];
  #lookedAtMs: number | undefined;
  #hotSinceMs: number | undefined;

  constructor(limits: LoadLimits, rng: Rng) {
    this.#limits = limits;
    this.#rng = rng;
  }

  get #isOff(): boolean {
    return this.#limits.loadSplitQps === 0 && this.#limits.loadSplitFlowBytes === 0;
  }

  /** Takes note of a key that was asked for; the key is copied if it is kept. */
  noteKey(key: Uint8Array, end?: Uint8Array): void {
    this.#keys++;
    if (--this.#skip <= 0 && !this.#isOff) {
      this.#sample(key, end);
    }
  }

  noteBytes(bytes: number): void {
    this.#bytes += bytes;
  }

  #sample(key: Uint8Array, end: Uint8Array | undefined): void {
    const { loadSplitQps, loadSplitDetectMs } = this.#limits;
    const expected = (Math.max(loadSplitQps, SAMPLES_MAX) * loadSplitDetectMs) / 1000;
    const stride = Math.max(1, Math.floor(expected / (SAMPLES_MAX * DRAWN_PER_KEPT)));
    // Regular steps could follow the rhythm of the clients.
    this.#skip = 1 + this.#rng.below(2 * stride - 1);
    this.#drawn++;
    const at = this.#samples.length < SAMPLES_MAX ? this.#samples.length : this.#rng.below(this.#drawn);
    if (at < SAMPLES_MAX) {
      this.#samples[at] = { key: copyBytes(key), end: end === undefined ? undefined : copyBytes(end) };
    }
  }

  /** The region is another one, or is led elsewhere. */
  reset(): void {
    this.#keys = 0;
    this.#bytes = 0;
    this.#lookedAtMs = undefined;
    this.#forget();
  }

  #forget(): void {
    this.#hotSinceMs = undefined;
    this.#samples = [];
    this.#drawn = 0;
    this.#skip = 1;
  }

  /** The key to split the region at; undefined while there is no reason to, or none would help. Call it regularly. */
  look(nowMs: number, range: KeyRange): Uint8Array | undefined {
    const { loadSplitQps, loadSplitFlowBytes, loadSplitDetectMs } = this.#limits;
    const [keys, bytes, since] = [this.#keys, this.#bytes, this.#lookedAtMs];
    this.#keys = 0;
    this.#bytes = 0;
    this.#lookedAtMs = nowMs;
    if (this.#isOff || since === undefined || nowMs <= since) {
      return undefined;
    }
    const perSecond = 1000 / (nowMs - since);
    const isHot =
      (loadSplitQps > 0 && keys * perSecond > loadSplitQps) ||
      (loadSplitFlowBytes > 0 && bytes * perSecond > loadSplitFlowBytes);
    if (!isHot) {
      this.#forget();
      return undefined;
    }
    this.#hotSinceMs ??= since;
    if (nowMs - this.#hotSinceMs < loadSplitDetectMs) {
      return undefined;
    }
    const key = chooseKey(this.#samples, range);
    this.#forget();
    return key;
  }
}

/** The sampled key with the best balance and the fewest scans across it; undefined if no key is good enough. */
function chooseKey(samples: readonly Sample[], range: KeyRange): Uint8Array | undefined {
  const inside = samples.filter(({ key }) => rangeContains(range, key)).sort((a, b) => compareBytes(a.key, b.key));
  if (inside.length < SAMPLES_MIN) {
    return undefined;
  }
  let best: { readonly key: Uint8Array; readonly score: number } | undefined;
  for (const [i, { key }] of inside.entries()) {
    // Everything in front of the key goes to the left: nothing would, at the first key.
    if (i === 0 || equalBytes(key, (inside[i - 1] as Sample).key) || equalBytes(key, range.start)) {
      continue;
    }
    const cut = inside.filter((one) => one.end !== undefined && isAcross(one.key, one.end, key)).length;
    const left =
      i - inside.slice(0, i).filter((one) => one.end !== undefined && isAcross(one.key, one.end, key)).length;
    const right = inside.length - i;
    const balance = Math.abs(left - right) / Math.max(1, left + right);
    const contained = cut / inside.length;
    if (balance > BALANCE_MAX || contained > CONTAINED_MAX) {
      continue;
    }
    if (best === undefined || balance + contained < best.score) {
      best = { key, score: balance + contained };
    }
  }
  return best?.key;
}

/** Whether a scan reads on both sides of a key. An empty end is the end of the key space. */
const isAcross = (start: Uint8Array, end: Uint8Array, key: Uint8Array): boolean =>
  compareBytes(start, key) < 0 && (end.length === 0 || compareBytes(key, end) < 0);
