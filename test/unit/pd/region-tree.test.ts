import { describe, expect, test } from 'vitest';
import { EMPTY_BYTES, utf8 } from '../../../src/base/bytes.ts';
import { regionId, storeId } from '../../../src/base/ids.ts';
import { FULL_RANGE, formatRange } from '../../../src/base/key-range.ts';
import { type RegionInfo, unreportedRegion } from '../../../src/pd/cluster/region-info.ts';
import { RegionTree } from '../../../src/pd/cluster/region-tree.ts';
import { type RegionSpec, makeRegion } from './world.ts';

const info = (spec: RegionSpec, term = 5): RegionInfo => {
  const region = makeRegion(spec);
  return { ...unreportedRegion(region), leader: region.peers[0], term, reportedAtMs: 1, sizeBytes: 10 };
};

const ids = (tree: RegionTree): number[] => [...tree.values()].map((known) => known.region.id);

function treeOf(...specs: RegionSpec[]): RegionTree {
  const tree = new RegionTree();
  for (const spec of specs) {
    expect(tree.offer(info(spec)).type).toBe('accepted');
  }
  return tree;
}

describe('look-ups', () => {
  const tree = treeOf(
    { id: 1, start: '', end: 'b', on: ['1'] },
    { id: 2, start: 'b', end: 'd', on: ['1'] },
    { id: 3, start: 'f', end: '', on: ['1'] },
  );

  test('a key is found in the region that contains it, starts included and ends excluded', () => {
    expect(tree.find(EMPTY_BYTES)?.region.id).toBe(1);
    expect(tree.find(utf8('b'))?.region.id).toBe(2);
    expect(tree.find(utf8('c\xff'))?.region.id).toBe(2);
    expect(tree.find(utf8('zzz'))?.region.id).toBe(3);
  });

  test('a key in a hole is found nowhere', () => {
    expect(tree.find(utf8('d'))).toBeUndefined();
    expect(tree.find(utf8('e'))).toBeUndefined();
  });

  test('neighbors touch; regions across a hole are not neighbors', () => {
    const two = tree.get(regionId(2));
    expect(two).toBeDefined();
    const around = tree.neighbours(two as RegionInfo);
    expect(around.previous?.region.id).toBe(1);
    expect(around.next).toBeUndefined();
    expect(tree.findPrevious(utf8('c'))?.region.id).toBe(1);
    expect(tree.findPrevious(utf8('g'))).toBeUndefined();
    expect(tree.findPrevious(utf8('a'))).toBeUndefined();
  });

  test('overlaps include the region the range starts in and exclude the one it ends at', () => {
    const found = (start: string, end: string): number[] =>
      tree.overlaps({ start: utf8(start), end: utf8(end) }).map((known) => known.region.id);
    expect(found('a', 'c')).toEqual([1, 2]);
    expect(found('d', 'f')).toEqual([]);
    expect(found('c', '')).toEqual([2, 3]);
    expect(found('b', 'd')).toEqual([2]);
  });

  test('a scan starts at the region containing the start key and honors its limit', () => {
    const scan = (start: string, end: string, limit: number): number[] =>
      tree.scan({ start: utf8(start), end: utf8(end) }, limit).map((known) => known.region.id);
    expect(scan('a', '', 10)).toEqual([1, 2, 3]);
    expect(scan('c', 'f', 10)).toEqual([2]);
    expect(scan('e', '', 1)).toEqual([3]);
    expect(scan('', '', 2)).toEqual([1, 2]);
  });

  test('holes are listed', () => {
    expect(tree.holes(10).map(formatRange)).toEqual(['[d, f)']);
    expect(new RegionTree().holes(10).map(formatRange)).toEqual([formatRange(FULL_RANGE)]);
    expect(
      treeOf({ id: 1, start: 'a', end: 'b', on: ['1'] })
        .holes(10)
        .map(formatRange),
    ).toEqual(['[-inf, a)', '[b, +inf)']);
  });
});

describe('staleness', () => {
  test('after a split the first report of a child evicts the stale parent and leaves a hole until its sibling reports', () => {
    const tree = treeOf({ id: 1, on: ['1'], version: 3 });
    const verdict = tree.offer(info({ id: 2, start: '', end: 'm', on: ['1'], version: 4 }));
    expect(verdict.type === 'accepted' && verdict.evicted.map((gone) => gone.region.id)).toEqual([1]);
    expect(tree.find(utf8('z'))).toBeUndefined();
    tree.offer(info({ id: 1, start: 'm', end: '', on: ['1'], version: 4 }));
    expect(ids(tree)).toEqual([2, 1]);
    expect(tree.holes(9)).toEqual([]);
  });

  test('a late report of the parent with its old range is refused after its child was seen', () => {
    const tree = treeOf(
      { id: 1, start: 'm', end: '', on: ['1'], version: 4 },
      { id: 2, start: '', end: 'm', on: ['1'], version: 4 },
    );
    const verdict = tree.offer(info({ id: 1, on: ['1'], version: 3 }));
    expect(verdict).toMatchObject({ type: 'stale', reason: 'overlap-version' });
    expect(ids(tree)).toEqual([2, 1]);
  });

  test('the report of a merge target evicts the source, and a late report of the source is refused', () => {
    const tree = treeOf(
      { id: 1, start: '', end: 'm', on: ['1'], version: 6 },
      { id: 2, start: 'm', end: '', on: ['1'], version: 5 },
    );
    expect(tree.offer(info({ id: 2, start: '', end: '', on: ['1'], version: 7 }))).toMatchObject({ type: 'accepted' });
    expect(ids(tree)).toEqual([2]);
    expect(tree.offer(info({ id: 1, start: '', end: 'm', on: ['1'], version: 6 }))).toMatchObject({
      type: 'stale',
      reason: 'overlap-version',
    });
  });

  test('membership counters of different regions are never compared', () => {
    const tree = treeOf({ id: 1, on: ['1'], version: 3, confVer: 50 });
    expect(tree.offer(info({ id: 2, start: '', end: 'm', on: ['1'], version: 4, confVer: 2 })).type).toBe('accepted');
  });

  test('the report of the first region, arriving late, does not swallow later regions', () => {
    const tree = treeOf({ id: 2, start: '', end: 'm', on: ['1'], version: 2 });
    expect(tree.offer(info({ id: 1, on: ['1'], version: 1, confVer: 1 })).type).toBe('stale');
    expect(ids(tree)).toEqual([2]);
  });

  test.each([
    ['an older version', { version: 2 }, 9, 'own-version'],
    ['an older membership', { confVer: 4 }, 9, 'own-conf-ver'],
    ['an older term', {}, 4, 'own-term'],
  ] as const)('a report of the same region with %s is refused', (_what, older, atTerm, reason) => {
    const tree = treeOf({ id: 1, on: ['1'], version: 3, confVer: 5 });
    const verdict = tree.offer(info({ id: 1, on: ['1'], version: 3, confVer: 5, ...older }, atTerm));
    expect(verdict).toMatchObject({ type: 'stale', reason });
  });

  test('a report without a term is not compared by term', () => {
    const tree = treeOf({ id: 1, on: ['1'], version: 3 });
    expect(tree.offer(info({ id: 1, on: ['1'], version: 3 }, 0)).type).toBe('accepted');
  });

  test('equal versions that overlap: the last report wins', () => {
    const tree = treeOf({ id: 1, start: '', end: 'm', on: ['1'], version: 3 });
    expect(tree.offer(info({ id: 2, start: 'a', end: 'z', on: ['1'], version: 3 })).type).toBe('accepted');
    expect(ids(tree)).toEqual([2]);
  });

  test('one newer overlapping region is enough to refuse a report', () => {
    const tree = treeOf(
      { id: 1, start: '', end: 'm', on: ['1'], version: 3 },
      { id: 2, start: 'm', end: '', on: ['1'], version: 9 },
    );
    expect(tree.offer(info({ id: 3, start: 'a', end: 'z', on: ['1'], version: 5 }))).toMatchObject({ type: 'stale' });
    expect(ids(tree)).toEqual([1, 2]);
  });

  test('a region made anew by disaster recovery displaces newer ones, but never as the whole key space', () => {
    const tree = treeOf({ id: 1, start: '', end: 'm', on: ['1'], version: 3 });
    expect(tree.offer(info({ id: 7, start: 'a', end: 'm', on: ['1'], version: 1, confVer: 1 })).type).toBe('accepted');
    expect(ids(tree)).toEqual([7]);
  });
});

describe('sets per store', () => {
  test('they follow every change of peers, leader, pending peers and size', () => {
    const tree = treeOf({ id: 1, start: '', end: 'm', on: ['1', '2', '3L'] });
    const sets = (store: number) => tree.ofStore(storeId(store));
    expect([sets(1).leaders.size, sets(2).peers.size, sets(3).learners.size]).toEqual([1, 1, 1]);
    const moved = info({ id: 1, start: '', end: 'm', on: ['2', '4'], confVer: 4 });
    tree.offer({ ...moved, sizeBytes: 30, pendingPeers: moved.region.peers.slice(1) });
    expect([sets(1).peers.size, sets(1).leaders.size, sets(2).leaders.size, sets(4).pending.size]).toEqual([
      0, 0, 1, 1,
    ]);
    expect([tree.sizeOfStoreBytes(storeId(1)), tree.sizeOfStoreBytes(storeId(4))]).toEqual([0, 30]);
    tree.remove(regionId(1));
    expect([sets(2).peers.size, sets(4).pending.size, tree.sizeOfStoreBytes(storeId(4)), tree.reportedCount]).toEqual([
      0, 0, 0, 0,
    ]);
  });
});
