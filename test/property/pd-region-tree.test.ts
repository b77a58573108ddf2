/** Region reports of a random history of splits, merges and membership changes, delivered in any order. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareBytes, equalBytes } from '../../src/base/bytes.ts';
import { type RegionId, peerId, regionId, storeId } from '../../src/base/ids.ts';
import { type KeyRange, FULL_RANGE, rangeContains, rangesOverlap } from '../../src/base/key-range.ts';
import type { Region } from '../../src/meta/region.ts';
import { type RegionInfo, unreportedRegion } from '../../src/pd/cluster/region-info.ts';
import { RegionTree } from '../../src/pd/cluster/region-tree.ts';

const KEYS: readonly Uint8Array[] = Array.from({ length: 16 }, (_unused, i) => Uint8Array.of(i * 16 + 1));
const PROBES: readonly Uint8Array[] = [
  new Uint8Array(0),
  ...KEYS,
  ...KEYS.map((key) => Uint8Array.of((key[0] as number) + 3)),
];

type Change =
  | { readonly type: 'split'; readonly pick: number; readonly key: number }
  | { readonly type: 'merge'; readonly pick: number; readonly left: boolean }
  | { readonly type: 'conf'; readonly pick: number }
  | { readonly type: 'election'; readonly pick: number };

const change: fc.Arbitrary<Change> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ type: fc.constant('split' as const), pick: fc.nat(), key: fc.nat(KEYS.length - 1) }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('merge' as const), pick: fc.nat(), left: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('conf' as const), pick: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('election' as const), pick: fc.nat() }) },
);

interface True {
  readonly region: Region;
  readonly term: number;
}

/** The truth, and every report that any leader could ever have sent about it. */
class History {
  readonly live = new Map<RegionId, True>();
  readonly reports: RegionInfo[] = [];
  #nextId = 2;

  constructor() {
    const region: Region = {
      id: regionId(1),
      range: FULL_RANGE,
      epoch: { confVer: 1, version: 1 },
      peers: [{ id: peerId(1), storeId: storeId(1), role: 'voter' }],
    };
    this.#set(region, 1);
  }

  #set(region: Region, term: number): void {
    this.live.set(region.id, { region, term });
    this.reports.push({ ...unreportedRegion(region), leader: region.peers[0], term, reportedAtMs: 1 });
  }

  #pick(n: number): True {
    const sorted = [...this.live.values()];
    return sorted[n % sorted.length] as True;
  }

  apply(step: Change): void {
    const { region, term } = this.#pick(step.pick);
    switch (step.type) {
      case 'election':
        this.#set(region, term + 1);
        return;
      case 'conf':
        this.#set({ ...region, epoch: { ...region.epoch, confVer: region.epoch.confVer + 1 } }, term);
        return;
      case 'split':
        this.#split(region, term, KEYS[step.key] as Uint8Array);
        return;
      case 'merge':
        this.#merge(region, step.left);
    }
  }

  #split(region: Region, term: number, key: Uint8Array): void {
    if (!rangeContains(region.range, key) || equalBytes(key, region.range.start)) {
      return;
    }
    const epoch = { ...region.epoch, version: region.epoch.version + 1 };
    const child: Region = {
      ...region,
      id: regionId(this.#nextId++),
      range: { start: region.range.start, end: key },
      epoch,
    };
    this.#set({ ...region, range: { start: key, end: region.range.end }, epoch }, term);
    this.#set(child, 6);
  }

  /** The source prepares (and may report that), then the target takes over. */
  #merge(source: Region, left: boolean): void {
    const target = [...this.live.values()].find(({ region }) =>
      left
        ? region.range.end.length > 0 && equalBytes(region.range.end, source.range.start)
        : source.range.end.length > 0 && equalBytes(region.range.start, source.range.end),
    );
    const known = this.live.get(source.id);
    if (target === undefined || known === undefined) {
      return;
    }
    const prepared = { ...source, epoch: { confVer: source.epoch.confVer + 1, version: source.epoch.version + 1 } };
    this.#set(prepared, known.term);
    const range: KeyRange = left
      ? { start: target.region.range.start, end: source.range.end }
      : { start: source.range.start, end: target.region.range.end };
    this.live.delete(source.id);
    const version = Math.max(prepared.epoch.version, target.region.epoch.version) + 1;
    this.#set({ ...target.region, range, epoch: { ...target.region.epoch, version } }, target.term);
  }
}

function expectNoOverlap(tree: RegionTree): void {
  const all = [...tree.values()];
  for (const [i, info] of all.entries()) {
    const next = all[i + 1];
    if (next !== undefined) {
      expect(compareBytes(info.region.range.start, next.region.range.start)).toBeLessThan(0);
      expect(rangesOverlap(info.region.range, next.region.range)).toBe(false);
    }
    expect(tree.get(info.region.id)).toBe(info);
  }
  expect(tree.size).toBe(all.length);
}

const versionAt = (tree: RegionTree, key: Uint8Array): number => tree.find(key)?.region.epoch.version ?? 0;

describe('region tree under reports in any order', () => {
  test('never holds overlapping regions, never goes back in version for a key, and ends at the truth', () => {
    fc.assert(
      fc.property(
        fc.array(change, { maxLength: 40 }),
        fc.array(fc.nat(), { maxLength: 120 }),
        (changes, deliveries) => {
          const history = new History();
          changes.forEach((step) => history.apply(step));
          const tree = new RegionTree();
          for (const n of deliveries) {
            const report = history.reports[n % history.reports.length] as RegionInfo;
            const before = PROBES.map((key) => versionAt(tree, key));
            const known = tree.get(report.region.id);
            const verdict = tree.offer(report);
            expectNoOverlap(tree);
            for (const [i, key] of PROBES.entries()) {
              const after = versionAt(tree, key);
              // A hole may open where an evicted region reached farther than the new one; it never fills with older news.
              expect(after === 0 || after >= (before[i] as number)).toBe(true);
              if (verdict.type === 'accepted' && rangeContains(report.region.range, key)) {
                expect(tree.find(key)).toBe(report);
              }
            }
            if (verdict.type === 'stale') {
              expect(tree.get(report.region.id)).toBe(known);
            }
          }
          for (const { region, term } of history.live.values()) {
            tree.offer({ ...unreportedRegion(region), leader: region.peers[0], term, reportedAtMs: 2 });
          }
          expectNoOverlap(tree);
          expect(new Set([...tree.values()].map((info) => info.region.id))).toEqual(new Set(history.live.keys()));
          expect(tree.holes(9)).toEqual([]);
          for (const { region } of history.live.values()) {
            expect(tree.get(region.id)?.region).toEqual(region);
          }
        },
      ),
      { numRuns: 400 },
    );
  });

  test('its sets per store agree with a count from scratch', () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 30 }), fc.array(fc.nat(), { maxLength: 60 }), (changes, deliveries) => {
        const history = new History();
        changes.forEach((step) => history.apply(step));
        const tree = new RegionTree();
        for (const n of deliveries) {
          tree.offer(history.reports[n % history.reports.length] as RegionInfo);
        }
        const ids = new Set([...tree.values()].map((info) => info.region.id));
        expect(tree.ofStore(storeId(1)).peers).toEqual(ids);
        expect(tree.ofStore(storeId(1)).leaders).toEqual(ids);
        expect(tree.reportedCount).toBe(ids.size);
      }),
      { numRuns: 100 },
    );
  });
});
