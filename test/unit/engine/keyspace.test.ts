import { describe, expect, test } from 'vitest';
import { compareBytes, fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { logIndex, regionId } from '../../../src/base/ids.ts';
import { FULL_RANGE, isEmptyRange, rangeContains, rangesOverlap } from '../../../src/base/key-range.ts';
import * as keyspace from '../../../src/engine/keyspace.ts';

const REGION = regionId(7);
const LARGEST = Number.MAX_SAFE_INTEGER;

describe('keyspace', () => {
  test('orders raft log keys by region, then by index', () => {
    const numbers = [0, 1, 255, 256, 65_535, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40 + 3, LARGEST];
    const keys = numbers.flatMap((region) =>
      numbers.map((index) => keyspace.raftLogKey(regionId(region), logIndex(index))),
    );
    expect(keys.toSorted(compareBytes)).toEqual(keys);
  });

  test('reads back what it builds', () => {
    for (const n of [0, 1, 256, 2 ** 32 + 5, LARGEST]) {
      expect(keyspace.logIndexOfKey(keyspace.raftLogKey(REGION, logIndex(n)))).toBe(n);
      expect(keyspace.regionIdOfLocalKey(keyspace.raftLogKey(regionId(n), logIndex(1)))).toBe(n);
      expect(keyspace.regionIdOfLocalKey(keyspace.applyStateKey(regionId(n)))).toBe(n);
      expect(keyspace.regionIdOfStateKey(keyspace.regionStateKey(regionId(n)))).toBe(n);
      expect(keyspace.pendingCleanNumber(keyspace.pendingCleanKey(n))).toBe(n);
    }
    expect(fromUtf8(keyspace.userKeyOf(keyspace.dataKey(utf8('user'))))).toBe('user');
  });

  test('refuses keys of another room', () => {
    expect(() => keyspace.logIndexOfKey(keyspace.raftStateKey(REGION))).toThrow();
    expect(() => keyspace.regionIdOfStateKey(keyspace.pendingCleanKey(1))).toThrow();
    expect(() => keyspace.userKeyOf(keyspace.raftStateKey(REGION))).toThrow();
  });

  test('covers exactly the asked log entries with a log range', () => {
    const range = keyspace.raftLogRange(REGION, logIndex(5), logIndex(300));
    const isInside = (index: number): boolean => rangeContains(range, keyspace.raftLogKey(REGION, logIndex(index)));
    expect([4, 5, 299, 300].map(isInside)).toEqual([false, true, true, false]);
    expect(rangeContains(keyspace.wholeRaftLogRange(REGION), keyspace.raftLogKey(REGION, logIndex(LARGEST)))).toBe(
      true,
    );
    expect(rangeContains(keyspace.wholeRaftLogRange(REGION), keyspace.raftStateKey(REGION))).toBe(false);
  });

  test('keeps everything local to a region in one range and everything else out of it', () => {
    const range = keyspace.regionLocalRange(REGION);
    const local = [
      keyspace.raftLogKey(REGION, logIndex(0)),
      keyspace.raftLogKey(REGION, logIndex(LARGEST)),
      keyspace.raftStateKey(REGION),
      keyspace.applyStateKey(REGION),
      keyspace.snapshotRaftStateKey(REGION),
    ];
    const foreign = [
      keyspace.raftLogKey(regionId(6), logIndex(LARGEST)),
      keyspace.snapshotRaftStateKey(regionId(6)),
      keyspace.raftLogKey(regionId(8), logIndex(0)),
      keyspace.regionStateKey(REGION),
      keyspace.dataKey(utf8('x')),
    ];
    expect(local.map((key) => rangeContains(range, key))).toEqual(local.map(() => true));
    expect(foreign.map((key) => rangeContains(range, key))).toEqual(foreign.map(() => false));
    expect(new Set(local.map((key) => key.join())).size).toBe(local.length);
  });

  test('gives every room a range of its own', () => {
    const rooms = [
      keyspace.roomRange(keyspace.ENGINE_PREFIX),
      keyspace.changeLogRange(),
      keyspace.pendingCleanRange(),
      keyspace.regionStateRange(),
      keyspace.regionLocalRange(REGION),
      keyspace.dataRange(FULL_RANGE),
      { start: keyspace.storeIdentKey(), end: Uint8Array.of(...keyspace.storeIdentKey(), 0) },
    ];
    for (const [i, a] of rooms.entries()) {
      expect(isEmptyRange(a)).toBe(false);
      for (const b of rooms.slice(i + 1)) {
        expect(rangesOverlap(a, b)).toBe(false);
      }
    }
  });

  test('maps user ranges with open ends to the whole room of data and back', () => {
    const half = { start: utf8('m'), end: FULL_RANGE.end };
    const bounded = { start: utf8('a'), end: utf8('b') };
    for (const range of [FULL_RANGE, half, bounded]) {
      expect(keyspace.userRange(keyspace.dataRange(range))).toEqual(range);
    }
    const last = keyspace.dataKey(new Uint8Array(100).fill(0xff));
    expect(rangeContains(keyspace.dataRange(FULL_RANGE), last)).toBe(true);
    expect(rangeContains(keyspace.dataRange(half), last)).toBe(true);
    expect(rangeContains(keyspace.dataRange(half), keyspace.dataKey(utf8('l')))).toBe(false);
    expect(rangeContains(keyspace.dataRange(bounded), keyspace.dataKey(utf8('b')))).toBe(false);
  });

  test('keeps the order of user keys', () => {
    const users = [new Uint8Array(0), Uint8Array.of(0), utf8('a'), utf8('aa'), utf8('b'), Uint8Array.of(0xff, 0xff)];
    const keys = users.map(keyspace.dataKey);
    expect(keys.toSorted(compareBytes)).toEqual(keys);
  });
});
