import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import {
  compareEnds,
  formatRange,
  FULL_RANGE,
  intersectRanges,
  isEmptyRange,
  isLeftNeighbour,
  rangeContains,
  rangeCovers,
  rangesEqual,
  rangesOverlap,
  type KeyRange,
} from '../../../src/base/key-range.ts';

const range = (start: string, end: string): KeyRange => ({ start: utf8(start), end: utf8(end) });

describe('KeyRange', () => {
  test('contains its start and not its end', () => {
    expect(rangeContains(range('b', 'd'), utf8('b'))).toBe(true);
    expect(rangeContains(range('b', 'd'), utf8('czz'))).toBe(true);
    expect(rangeContains(range('b', 'd'), utf8('d'))).toBe(false);
    expect(rangeContains(range('b', 'd'), utf8('a'))).toBe(false);
    expect(rangeContains(FULL_RANGE, new Uint8Array(0))).toBe(true);
    expect(rangeContains(range('b', ''), new Uint8Array(100).fill(0xff))).toBe(true);
  });

  test('is empty unless the start lies before the end', () => {
    expect(isEmptyRange(range('a', 'a'))).toBe(true);
    expect(isEmptyRange(range('b', 'a'))).toBe(true);
    expect(isEmptyRange(range('a', 'b'))).toBe(false);
    expect(isEmptyRange(range('a', ''))).toBe(false);
    expect(isEmptyRange(FULL_RANGE)).toBe(false);
  });

  test('ends compare with the open end last', () => {
    expect(compareEnds(utf8('a'), utf8('b'))).toBeLessThan(0);
    expect(compareEnds(utf8('z'), utf8(''))).toBeLessThan(0);
    expect(compareEnds(utf8(''), utf8('z'))).toBeGreaterThan(0);
    expect(compareEnds(utf8(''), utf8(''))).toBe(0);
  });

  test('overlaps only where keys can lie in both', () => {
    expect(rangesOverlap(range('a', 'c'), range('b', 'd'))).toBe(true);
    expect(rangesOverlap(range('a', 'b'), range('b', 'c'))).toBe(false);
    expect(rangesOverlap(range('a', ''), range('z', ''))).toBe(true);
    expect(rangesOverlap(range('', 'a'), range('b', ''))).toBe(false);
    expect(rangesOverlap(FULL_RANGE, range('x', 'y'))).toBe(true);
  });

  test('covers what lies completely inside', () => {
    expect(rangeCovers(range('a', 'd'), range('b', 'd'))).toBe(true);
    expect(rangeCovers(range('a', 'd'), range('b', ''))).toBe(false);
    expect(rangeCovers(range('b', ''), range('a', 'c'))).toBe(false);
    expect(rangeCovers(FULL_RANGE, FULL_RANGE)).toBe(true);
  });

  test('neighbours touch exactly, and an open end has no right neighbour', () => {
    expect(isLeftNeighbour(range('a', 'b'), range('b', 'c'))).toBe(true);
    expect(isLeftNeighbour(range('b', 'c'), range('a', 'b'))).toBe(false);
    expect(isLeftNeighbour(range('a', ''), range('', 'b'))).toBe(false);
  });

  test('intersects to the common part', () => {
    expect(intersectRanges(range('a', 'c'), range('b', ''))).toEqual(range('b', 'c'));
    expect(intersectRanges(FULL_RANGE, FULL_RANGE)).toEqual(FULL_RANGE);
    expect(intersectRanges(range('a', 'b'), range('b', 'c'))).toBeUndefined();
  });

  test('is equal by its ends and prints them', () => {
    expect(rangesEqual(range('a', ''), range('a', ''))).toBe(true);
    expect(rangesEqual(range('a', 'b'), range('a', ''))).toBe(false);
    expect(formatRange(range('a', ''))).toBe('[a, +inf)');
    expect(formatRange(range('', '\u0001'))).toBe('[-inf, \\x01)');
  });
});
