/**
 * Measures a region and looks for keys to split it at. Reads page by page, one region at a time, so it never holds up
 * the store; what it finds is a proposal, the split itself checks keys again. Method: TiKV
 * `components/raftstore/src/coprocessor/split_check` (size, keys and half checkers).
 */
import { equalBytes, keyAfter } from '../../base/bytes.ts';
import { KIB } from '../../base/units.ts';
import { dataRange, userKeyOf } from '../../engine/keyspace.ts';
import type { Engine } from '../../env/engine.ts';
import type { Region } from '../../meta/region.ts';
import type { RaftstoreConfig } from '../config.ts';
import type { JobQueue } from './job-queue.ts';

const PAGE_KEYS = 2048;
const PAGE_BYTES: number = 512 * KIB;
/** Most keys one split command carries; a larger region is looked at again afterwards. */
export const SPLIT_KEYS_MAX = 10;
/** Candidates for the middle kept while scanning; beyond that every second one is dropped. */
const SAMPLES_MAX = 512;

export interface RegionMeasure {
  /** Stored key and value bytes. */
  readonly sizeBytes: number;
  readonly keys: number;
  /** Strictly increasing user keys inside the region; empty if it need not (or cannot) be split. */
  readonly splitKeys: readonly Uint8Array[];
}

/** Keeps evenly spread keys of a scan, so that the middle can be named afterwards without a second scan. */
class MiddleFinder {
  #samples: { readonly key: Uint8Array; readonly before: number }[] = [];
  #step = 1;
  #nextAt = 0;

  /** `before`: bytes of the region in front of `key`. */
  add(key: Uint8Array, before: number): void {
    if (before < this.#nextAt) {
      return;
    }
    this.#samples.push({ key, before });
    if (this.#samples.length >= SAMPLES_MAX) {
      this.#samples = this.#samples.filter((_, i) => i % 2 === 0);
      this.#step *= 2;
    }
    const last = this.#samples[this.#samples.length - 1];
    this.#nextAt = (last?.before ?? 0) + this.#step;
  }

  /** The sample closest to the middle that leaves something on its left. */
  middle(totalBytes: number): Uint8Array | undefined {
    let best: { readonly key: Uint8Array; readonly distance: number } | undefined;
    for (const { key, before } of this.#samples) {
      const distance = Math.abs(before - totalBytes / 2);
      if (before > 0 && (best === undefined || distance < best.distance)) {
        best = { key, distance };
      }
    }
    return best?.key;
  }
}

/** Collects the keys at which a part has become as large as parts should be. */
class PartFinder {
  readonly #config: RaftstoreConfig;
  readonly #keys: Uint8Array[] = [];
  #partBytes = 0;
  #partKeys = 0;

  constructor(config: RaftstoreConfig) {
    this.#config = config;
  }

  add(key: Uint8Array, bytes: number): void {
    const { regionSplitSizeBytes, regionSplitKeys } = this.#config;
    if (this.#partKeys > 0 && (this.#partBytes + bytes > regionSplitSizeBytes || this.#partKeys >= regionSplitKeys)) {
      if (this.#keys.length < SPLIT_KEYS_MAX) {
        this.#keys.push(key);
      }
      this.#partBytes = 0;
      this.#partKeys = 0;
    }
    this.#partBytes += bytes;
    this.#partKeys++;
  }

  /** A last part too small to be a region of its own stays with its neighbour. */
  result(): Uint8Array[] {
    const { regionSplitSizeBytes, regionSplitKeys } = this.#config;
    const isTailSmall = this.#partBytes * 2 < regionSplitSizeBytes && this.#partKeys * 2 < regionSplitKeys;
    return isTailSmall && this.#keys.length > 1 ? this.#keys.slice(0, -1) : this.#keys;
  }
}

/** Scans the region. With `forced` it names the middle even of a small region. */
export async function measureRegion(
  engine: Engine,
  config: RaftstoreConfig,
  region: Region,
  forced: boolean,
  queue: JobQueue,
): Promise<RegionMeasure> {
  const range = dataRange(region.range);
  const parts = new PartFinder(config);
  const middle = new MiddleFinder();
  let { start } = range;
  let sizeBytes = 0;
  let keys = 0;
  for (let more = true; more; ) {
    queue.checkpoint();
    const page = await engine.scan({ range: { start, end: range.end }, limit: PAGE_KEYS, maxBytes: PAGE_BYTES });
    for (const [stored, value] of page.entries) {
      const key = userKeyOf(stored);
      const bytes = stored.length + value.length;
      middle.add(key, sizeBytes);
      parts.add(key, bytes);
      sizeBytes += bytes;
      keys++;
      start = keyAfter(stored);
    }
    ({ more } = page);
  }
  const isTooLarge = sizeBytes > config.regionMaxSizeBytes || keys > config.regionMaxKeys;
  let splitKeys: readonly Uint8Array[] = isTooLarge ? parts.result() : [];
  if (forced) {
    const half = middle.middle(sizeBytes);
    splitKeys = half === undefined ? [] : [half];
  }
  return { sizeBytes, keys, splitKeys: splitKeys.filter((key) => !equalBytes(key, region.range.start)) };
}
