/** Half-open key ranges `[start, end)`. An empty start is minus infinity; an empty end is plus infinity. */
import { EMPTY_BYTES, compareBytes, equalBytes, escapeKey } from './bytes.ts';

export interface KeyRange {
  readonly start: Uint8Array;
  /** Exclusive; empty means no upper bound. */
  readonly end: Uint8Array;
}

export const FULL_RANGE: KeyRange = Object.freeze({ start: EMPTY_BYTES, end: EMPTY_BYTES });

/** Compares two range ends, where empty sorts last. */
export function compareEnds(a: Uint8Array, b: Uint8Array): number {
  if (a.length === 0 || b.length === 0) {
    return (a.length === 0 ? 1 : 0) - (b.length === 0 ? 1 : 0);
  }
  return compareBytes(a, b);
}

/** Whether `key` lies below the range end `end` (empty = no bound). */
export const isBeforeEnd = (key: Uint8Array, end: Uint8Array): boolean =>
  end.length === 0 || compareBytes(key, end) < 0;

export const rangeContains = (range: KeyRange, key: Uint8Array): boolean =>
  compareBytes(range.start, key) <= 0 && isBeforeEnd(key, range.end);

/** Whether no key can lie in the range. */
export const isEmptyRange = (range: KeyRange): boolean =>
  range.end.length > 0 && compareBytes(range.start, range.end) >= 0;

export const rangesOverlap = (a: KeyRange, b: KeyRange): boolean =>
  isBeforeEnd(a.start, b.end) && isBeforeEnd(b.start, a.end);

export const rangesEqual = (a: KeyRange, b: KeyRange): boolean =>
  equalBytes(a.start, b.start) && equalBytes(a.end, b.end);

/** Whether `inner` lies completely inside `outer`. */
export const rangeCovers = (outer: KeyRange, inner: KeyRange): boolean =>
  compareBytes(outer.start, inner.start) <= 0 && compareEnds(inner.end, outer.end) <= 0;

/** Whether `left` ends exactly where `right` starts. */
export const isLeftNeighbour = (left: KeyRange, right: KeyRange): boolean =>
  left.end.length > 0 && equalBytes(left.end, right.start);

/** The common part; undefined if there is none. */
export function intersectRanges(a: KeyRange, b: KeyRange): KeyRange | undefined {
  const start = compareBytes(a.start, b.start) >= 0 ? a.start : b.start;
  const end = compareEnds(a.end, b.end) <= 0 ? a.end : b.end;
  const range = { start, end };
  return isEmptyRange(range) ? undefined : range;
}

/** The parts of `range` outside `taken`, in key order: none, one or two. */
export function subtractRange(range: KeyRange, taken: KeyRange): KeyRange[] {
  if (!rangesOverlap(range, taken)) {
    return [range];
  }
  const out: KeyRange[] = [];
  if (compareBytes(range.start, taken.start) < 0) {
    out.push({ start: range.start, end: taken.start });
  }
  if (taken.end.length > 0 && isBeforeEnd(taken.end, range.end)) {
    out.push({ start: taken.end, end: range.end });
  }
  return out;
}

export function formatRange(range: KeyRange): string {
  const start = range.start.length === 0 ? '-inf' : escapeKey(range.start);
  const end = range.end.length === 0 ? '+inf' : escapeKey(range.end);
  return `[${start}, ${end})`;
}
