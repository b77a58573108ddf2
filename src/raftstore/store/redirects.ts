/**
 * Where the keys of a region went that clients may still believe in (placement 13.5). Every change of a region's range
 * leaves a record of what the region was: written in the batch that applies the change, so it is there exactly when the
 * change is. A replica that is removed leaves the region and the leader it knew last.
 *
 * A record says nothing about data. It only tells that a request for (region, version) may be carried out as a request
 * for whatever region of this store holds its keys now, through that region's own Raft group; and for a scan, which
 * range the client thinks it is reading.
 *
 * Records carry no time when apply writes them, so that every replica writes the same. The store notes beside them, at
 * its next maintenance, when it noticed the latest change of a region, by its wall clock; the age goes on from there
 * after a restart. A crash before that note lets the age begin anew, and so does a wall clock that was set back.
 */
import { compareBytes, equalBytes, keyAfter } from '../../base/bytes.ts';
import type { RegionId } from '../../base/ids.ts';
import { intersectRanges, type KeyRange, rangeContains, rangeCovers } from '../../base/key-range.ts';
import { decodeRedirect, encodeRedirect } from '../../codec/raft-records.ts';
import type { Redirect } from '../../codec/store-record.ts';
import { redirectKey, redirectRange, regionIdOfRedirectKey } from '../../engine/keyspace.ts';
import type { Engine, WriteBatch } from '../../env/engine.ts';
import type { Peer, Region } from '../../meta/region.ts';

/** What a request touches. */
export type RequestSpan =
  | { readonly type: 'keys'; readonly keys: readonly Uint8Array[] }
  /** All of these ranges or nothing. */
  | { readonly type: 'ranges'; readonly ranges: readonly KeyRange[] }
  /** Scans: from an end that must lie in the region, as far as the region goes. */
  | { readonly type: 'scans'; readonly from: 'start' | 'end'; readonly ranges: readonly KeyRange[] };

export type RedirectDecision =
  /** No redirect applies: the refusal stands. */
  | { readonly type: 'none' }
  /** The keys are not in one region of this store any more: the refusal names the current ones. */
  | { readonly type: 'split-up' }
  /** The region is in the middle of a change: ask again in a moment. */
  | { readonly type: 'wait' }
  | { readonly type: 'local'; readonly region: Region; readonly peer: Peer; readonly within: KeyRange | undefined }
  | { readonly type: 'forward'; readonly region: Region; readonly peer: Peer; readonly within: KeyRange | undefined };

/** What became of one region id, in memory. */
interface Trail {
  /** Ranges it had, by version. */
  readonly ranges: Map<number, { readonly range: KeyRange; readonly newRegionId: RegionId }>;
  removed: { readonly region: Region; readonly leader: Peer | undefined } | undefined;
  sinceMs: number;
}

/** In the key of the note when a change was noticed: no region ever has this version. */
const NOTICED_VERSION = Number.MAX_SAFE_INTEGER;
/** Region ids remembered; the oldest go first. */
const TRAILS_MAX = 10_000;
/** Versions of one region remembered. */
const VERSIONS_MAX = 64;
/** A store forgets by itself after so many thresholds. */
export const RETIRE_ALONE_THRESHOLDS = 10;

/** Adds the record of what `before` was to the batch that changes it. */
export function putRedirect(batch: WriteBatch, before: Region, newRegionId: RegionId): void {
  batch.put(
    redirectKey(before.id, before.epoch.version),
    encodeRedirect({ type: 'range', version: before.epoch.version, range: before.range, newRegionId }),
  );
}

/** Adds what a removed replica knew to the batch that writes its tombstone. */
export function putRemoval(batch: WriteBatch, region: Region, leader: Peer | undefined): void {
  batch.put(redirectKey(region.id, 0), encodeRedirect({ type: 'removed', region, leader }));
}

export class Redirects {
  readonly #trails = new Map<RegionId, Trail>();
  /** Regions whose latest change has no note of its time on disk. */
  readonly #undated = new Set<RegionId>();
  /** Keys of what was forgotten to make room. */
  #garbage: Uint8Array[] = [];

  /** Reads what earlier lives of the store left. @param now monotonic and wall clock, ms */
  async load(engine: Engine, now: { readonly monoMs: number; readonly wallMs: number }): Promise<void> {
    const noticed = new Map<RegionId, number>();
    let range = redirectRange();
    for (let more = true; more; ) {
      const page = await engine.scan({ range, limit: 512 });
      for (const [key, value] of page.entries) {
        const id = regionIdOfRedirectKey(key);
        const redirect = decodeRedirect(value);
        if (redirect.type === 'noticed') {
          noticed.set(id, redirect.wallMs);
        } else {
          this.#note(id, redirect, now.monoMs);
        }
        range = { start: keyAfter(key), end: range.end };
      }
      ({ more } = page);
    }
    for (const [id, wallMs] of noticed) {
      const trail = this.#trails.get(id);
      if (trail !== undefined) {
        trail.sinceMs = now.monoMs - Math.max(0, now.wallMs - wallMs);
        this.#undated.delete(id);
      }
    }
  }

  /** Adds to `batch` when the latest changes were noticed, and the removal of what was forgotten to make room. */
  maintain(batch: WriteBatch, now: { readonly monoMs: number; readonly wallMs: number }): void {
    for (const id of this.#undated) {
      const sinceMs = this.#trails.get(id)?.sinceMs ?? now.monoMs;
      const wallMs = Math.max(0, Math.floor(now.wallMs - (now.monoMs - sinceMs)));
      batch.put(redirectKey(id, NOTICED_VERSION), encodeRedirect({ type: 'noticed', wallMs }));
    }
    this.#undated.clear();
    for (const key of this.#garbage) {
      batch.del(key);
    }
    this.#garbage = [];
  }

  /** A region changed its range, or its keys went to another region. */
  changed(before: Region, newRegionId: RegionId, nowMs: number): void {
    const { version } = before.epoch;
    this.#note(before.id, { type: 'range', version, range: before.range, newRegionId }, nowMs);
  }

  removed(region: Region, leader: Peer | undefined, nowMs: number): void {
    this.#note(region.id, { type: 'removed', region, leader }, nowMs);
  }

  /** Region ids with records, for store reports. */
  ids(): RegionId[] {
    return [...this.#trails.keys()];
  }

  /** Forgets regions, in memory and in `batch`. */
  retire(ids: readonly RegionId[], batch: WriteBatch): void {
    for (const id of ids) {
      const trail = this.#trails.get(id);
      if (trail !== undefined) {
        this.#trails.delete(id);
        this.#undated.delete(id);
        for (const key of keysOfTrail(id, trail)) {
          batch.del(key);
        }
      }
    }
  }

  /** Regions whose records are older than `ageMs`. */
  olderThan(ageMs: number, nowMs: number): RegionId[] {
    return [...this.#trails].filter(([, trail]) => nowMs - trail.sinceMs >= ageMs).map(([id]) => id);
  }

  /** Whether the region changed so lately that clients may not know. Retired regions are not there at all. */
  isFresh(id: RegionId, thresholdMs: number, nowMs: number): boolean {
    const trail = this.#trails.get(id);
    return trail !== undefined && nowMs - trail.sinceMs <= thresholdMs * RETIRE_ALONE_THRESHOLDS;
  }

  /** What the region was at this version, if that is remembered. */
  rangeOf(id: RegionId, version: number): { readonly range: KeyRange; readonly newRegionId: RegionId } | undefined {
    return this.#trails.get(id)?.ranges.get(version);
  }

  removalOf(id: RegionId): Trail['removed'] {
    return this.#trails.get(id)?.removed;
  }

  #note(id: RegionId, redirect: Exclude<Redirect, { type: 'noticed' }>, nowMs: number): void {
    let trail = this.#trails.get(id);
    if (trail === undefined) {
      trail = { ranges: new Map(), removed: undefined, sinceMs: nowMs };
      if (this.#trails.size >= TRAILS_MAX) {
        const [oldest] = this.#trails;
        if (oldest !== undefined) {
          this.#trails.delete(oldest[0]);
          this.#undated.delete(oldest[0]);
          this.#garbage.push(...keysOfTrail(...oldest));
        }
      }
      this.#trails.set(id, trail);
    }
    trail.sinceMs = nowMs;
    this.#undated.add(id);
    if (redirect.type === 'removed') {
      trail.removed = { region: redirect.region, leader: redirect.leader };
      return;
    }
    trail.ranges.set(redirect.version, { range: redirect.range, newRegionId: redirect.newRegionId });
    if (trail.ranges.size > VERSIONS_MAX) {
      const oldest = Math.min(...trail.ranges.keys());
      trail.ranges.delete(oldest);
      this.#garbage.push(redirectKey(id, oldest));
    }
  }
}

const keysOfTrail = (id: RegionId, { ranges }: Trail): Uint8Array[] =>
  [0, ...ranges.keys(), NOTICED_VERSION].map((version) => redirectKey(id, version));

/** Whether everything the request touches lies in `range`. */
export function spanIsIn(span: RequestSpan, range: KeyRange): boolean {
  return span.type === 'keys'
    ? span.keys.every((key) => rangeContains(range, key))
    : span.ranges.every((each) => rangeCovers(range, each));
}

/** The part of the request that its client thinks lies in a region with this range; undefined if it cannot think so. */
export function clampSpan(span: RequestSpan, range: KeyRange): RequestSpan | undefined {
  if (span.type !== 'scans') {
    return spanIsIn(span, range) ? span : undefined;
  }
  const ranges = span.ranges.map((each) => intersectRanges(each, range));
  const isAnchored = ranges.every(
    (each, i) => each !== undefined && equalBytes(each[span.from], (span.ranges[i] as KeyRange)[span.from]),
  );
  return isAnchored ? { ...span, ranges: ranges as readonly KeyRange[] } : undefined;
}

/** A key inside the span, to find its region by. */
export function firstKeyOf(span: RequestSpan): Uint8Array | undefined {
  const keys = span.type === 'keys' ? span.keys : span.ranges.map((range) => range.start);
  return keys.reduce<Uint8Array | undefined>(
    (first, key) => (first === undefined || compareBytes(key, first) < 0 ? key : first),
    undefined,
  );
}
