/** The region cache against a list that is searched from end to end. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareBytes } from '../../src/base/bytes.ts';
import { peerId, regionId, storeId } from '../../src/base/ids.ts';
import { isBeforeEnd, rangeContains, rangesOverlap } from '../../src/base/key-range.ts';
import { RegionCache } from '../../src/client/region-cache.ts';
import { type Peer, type Region, epochsEqual, isEpochStale } from '../../src/meta/region.ts';

const RUNS = Number(process.env['FC_RUNS'] ?? 500);

const key = (n: number): Uint8Array => (n < 0 ? new Uint8Array(0) : Uint8Array.of(n));
const KEYS = 12;

interface ModelEntry {
  readonly region: Region;
  leader: Peer | undefined;
}

class Model {
  entries: ModelEntry[] = [];

  insert(region: Region, leader: Peer | undefined): boolean {
    const same = this.entries.find((entry) => entry.region.id === region.id);
    if (same !== undefined && isEpochStale(region.epoch, same.region.epoch)) {
      return false;
    }
    if (same !== undefined && epochsEqual(region.epoch, same.region.epoch)) {
      if (leader !== undefined) {
        same.leader = same.region.peers.find((peer) => peer.id === leader.id);
      }
      return true;
    }
    const overlaps = (entry: ModelEntry): boolean => rangesOverlap(entry.region.range, region.range);
    if (this.entries.some((entry) => overlaps(entry) && entry.region.epoch.version > region.epoch.version)) {
      return false;
    }
    this.entries = this.entries.filter((entry) => !overlaps(entry) && entry.region.id !== region.id);
    this.entries.push({ region, leader: region.peers.find((peer) => peer.id === leader?.id) });
    return true;
  }

  locate(at: Uint8Array): ModelEntry | undefined {
    return this.entries.find((entry) => rangeContains(entry.region.range, at));
  }

  locateBefore(end: Uint8Array): ModelEntry | undefined {
    return this.entries.find(
      ({ region: { range } }) =>
        compareBytes(range.start, end) < 0 && (range.end.length === 0 || compareBytes(end, range.end) <= 0),
    );
  }

  drop(id: number): void {
    this.entries = this.entries.filter((entry) => entry.region.id !== id);
  }
}

const peers = (id: number): Peer[] =>
  [1, 2, 3].map((store) => ({ id: peerId(id * 10 + store), storeId: storeId(store), role: 'voter' }));

/** A pair with equal epoch and id describes one region only, so the range is a function of both. */
const arbRegion: fc.Arbitrary<Region> = fc
  .record({
    id: fc.integer({ min: 1, max: 6 }),
    version: fc.integer({ min: 1, max: 8 }),
    confVer: fc.integer({ min: 1, max: 3 }),
  })
  .map(({ id, version, confVer }) => {
    const a = (id * 7 + version * 5) % KEYS;
    const b = (id * 3 + version * 11) % KEYS;
    const [low, high] = a < b ? [a, b] : [b, a];
    return {
      id: regionId(id),
      range: { start: key(low - 1), end: high === low || high === KEYS - 1 ? key(-1) : key(high) },
      epoch: { confVer, version },
      peers: peers(id),
    };
  });

type Step =
  | { readonly type: 'insert'; readonly region: Region; readonly leaderStore: number }
  | { readonly type: 'drop'; readonly at: number }
  | { readonly type: 'refused'; readonly at: number; readonly current: readonly Region[]; readonly store: number }
  | { readonly type: 'set-leader'; readonly at: number; readonly store: number }
  | { readonly type: 'forget-leader'; readonly at: number };

const at = fc.integer({ min: -1, max: KEYS - 1 });
const arbStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('insert' as const),
      region: arbRegion,
      leaderStore: fc.integer({ min: 0, max: 4 }),
    }),
  },
  fc.record({ type: fc.constant('drop' as const), at }),
  fc.record({
    type: fc.constant('refused' as const),
    at,
    current: fc.array(arbRegion, { maxLength: 3 }),
    store: fc.integer({ min: 1, max: 3 }),
  }),
  fc.record({ type: fc.constant('set-leader' as const), at, store: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ type: fc.constant('forget-leader' as const), at }),
);

const leaderOn = (region: Region, store: number): Peer | undefined =>
  region.peers.find((peer) => peer.storeId === store);

function apply(cache: RegionCache, model: Model, step: Step): void {
  switch (step.type) {
    case 'insert': {
      const leader = leaderOn(step.region, step.leaderStore);
      const inserted = cache.insert(step.region, leader);
      expect(inserted !== undefined).toBe(model.insert(step.region, leader));
      return;
    }
    case 'drop': {
      const entry = cache.locate(key(step.at));
      if (entry !== undefined) {
        cache.drop(entry);
        expect(entry.inCache).toBe(false);
        model.drop(entry.region.id);
      }
      return;
    }
    case 'refused': {
      const entry = cache.locate(key(step.at));
      if (entry === undefined) {
        return;
      }
      const own = step.current.find((region) => region.id === entry.region.id);
      const lesson = cache.learnEpochs(entry, step.current, storeId(step.store));
      if (
        own !== undefined &&
        (isEpochStale(own.epoch, entry.region.epoch) || epochsEqual(own.epoch, entry.region.epoch))
      ) {
        expect(lesson).toBe('store-behind');
        return;
      }
      model.drop(entry.region.id);
      let inserted = false;
      for (const region of step.current) {
        const known = model.entries.find((each) => each.region.id === region.id);
        const leader =
          known !== undefined && epochsEqual(known.region.epoch, region.epoch)
            ? undefined
            : leaderOn(region, step.store);
        inserted = model.insert(region, leader) || inserted;
      }
      expect(lesson).toBe(inserted ? 'updated' : 'dropped');
      return;
    }
    case 'set-leader': {
      const entry = cache.locate(key(step.at));
      const same = model.locate(key(step.at));
      if (entry !== undefined && same !== undefined) {
        // Store 4 stands for a peer that the cached view does not have.
        const leader = leaderOn(entry.region, step.store) ?? {
          id: peerId(999),
          storeId: storeId(4),
          role: 'voter' as const,
        };
        expect(cache.setLeader(entry, leader)).toBe(step.store !== 4);
        same.leader = leaderOn(same.region, step.store);
      }
      return;
    }
    case 'forget-leader': {
      const entry = cache.locate(key(step.at));
      const same = model.locate(key(step.at));
      if (entry !== undefined && same !== undefined) {
        cache.forgetLeader(entry);
        same.leader = undefined;
      }
      return;
    }
  }
}

function compare(cache: RegionCache, model: Model): void {
  expect(cache.size).toBe(model.entries.length);
  for (let n = -1; n < KEYS; n++) {
    expect(cache.locate(key(n))?.region).toEqual(model.locate(key(n))?.region);
    expect(cache.locate(key(n))?.leader?.id).toBe(model.locate(key(n))?.leader?.id);
    if (n >= 0) {
      expect(cache.locateBefore(key(n))?.region).toEqual(model.locateBefore(key(n))?.region);
    }
  }
  const entries = cache.entries();
  entries.slice(1).forEach((entry, i) => {
    const left = entries[i];
    expect(left?.region.range.end.length).toBeGreaterThan(0);
    expect(isBeforeEnd(left?.region.range.start ?? key(-1), entry.region.range.start)).toBe(true);
    expect(compareBytes(left?.region.range.end ?? key(-1), entry.region.range.start)).toBeLessThanOrEqual(0);
  });
  for (const entry of entries) {
    expect(entry.inCache).toBe(true);
    expect(cache.byId(entry.region.id)).toBe(entry);
    if (entry.leader !== undefined) {
      // Routing compares peers by identity.
      expect(entry.region.peers).toContain(entry.leader);
    }
  }
}

describe('RegionCache', () => {
  test('it agrees with an exhaustive search after any history', () => {
    fc.assert(
      fc.property(fc.array(arbStep, { maxLength: 40 }), (steps) => {
        const cache = new RegionCache(1000);
        const model = new Model();
        for (const step of steps) {
          apply(cache, model, step);
          compare(cache, model);
        }
      }),
      { numRuns: RUNS },
    );
  });

  test('no region is ever replaced by an older view of itself', () => {
    fc.assert(
      fc.property(fc.array(arbRegion, { maxLength: 40 }), (regions) => {
        const cache = new RegionCache(1000);
        const newest = new Map<number, Region>();
        for (const region of regions) {
          cache.insert(region, undefined);
          for (const entry of cache.entries()) {
            const before = newest.get(entry.region.id);
            if (before !== undefined && cache.byId(before.id) !== undefined) {
              expect(isEpochStale(entry.region.epoch, before.epoch)).toBe(false);
            }
          }
          newest.clear();
          cache.entries().forEach((entry) => newest.set(entry.region.id, entry.region));
        }
      }),
      { numRuns: RUNS },
    );
  });

  test('it never holds more regions than it may, and always the one just inserted', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5 }),
        fc.array(fc.integer({ min: 0, max: 60 }), { minLength: 1, maxLength: 80 }),
        (max, order) => {
          const cache = new RegionCache(max);
          for (const n of order) {
            const region: Region = {
              id: regionId(n + 1),
              range: { start: key(n), end: key(n + 1) },
              epoch: { confVer: 1, version: 1 },
              peers: peers(n + 1),
            };
            cache.insert(region, undefined);
            expect(cache.size).toBeLessThanOrEqual(max);
            expect(cache.locate(key(n))?.region.id).toBe(n + 1);
          }
        },
      ),
      { numRuns: RUNS },
    );
  });
});
