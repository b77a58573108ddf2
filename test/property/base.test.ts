/** Laws of byte strings, ranges, units, the ordered map and the random generator. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  compareBytes,
  concatBytes,
  equalBytes,
  escapeKey,
  fromHex,
  keyAfter,
  prefixEnd,
  startsWith,
  toHex,
  unescapeKey,
} from '../../src/base/bytes.ts';
import { KeyMap } from '../../src/base/key-map.ts';
import {
  FULL_RANGE,
  intersectRanges,
  isBeforeEnd,
  isEmptyRange,
  rangeContains,
  rangeCovers,
  rangesOverlap,
  type KeyRange,
} from '../../src/base/key-range.ts';
import { logIndex, regionId } from '../../src/base/ids.ts';
import { parseDurationMs, parseSizeBytes } from '../../src/base/units.ts';
import * as keyspace from '../../src/engine/keyspace.ts';
import { createRng } from '../../src/env/rng.ts';

/** Short strings over few bytes, so that equal keys, prefixes and neighbours are common. */
const narrow = fc.array(fc.constantFrom(0x00, 0x01, 0x61, 0xfe, 0xff), { maxLength: 4 }).map((b) => Uint8Array.from(b));
const bytes = fc.oneof(narrow, fc.uint8Array({ maxLength: 40 }));
const key = narrow.filter((each) => each.length > 0);
const range: fc.Arbitrary<KeyRange> = fc.record({ start: narrow, end: narrow });
const properRange = range.filter((each) => !isEmptyRange(each));
const id = fc.maxSafeNat();

describe('bytes', () => {
  test('escaped keys read back, are printable and differ when keys differ', () => {
    fc.assert(
      fc.property(bytes, bytes, (a, b) => {
        const text = escapeKey(a);
        expect(unescapeKey(text)).toEqual(a);
        expect(text).toMatch(/^[ -~]*$/);
        expect(escapeKey(b) === text).toBe(equalBytes(a, b));
      }),
    );
  });

  test('unescapeKey never throws, and what it accepts survives a round trip', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('\\', 'x', '0', 'f', 'g', 'é', ' ') }), (text) => {
        const parsed = unescapeKey(text);
        if (parsed !== undefined) {
          expect(unescapeKey(escapeKey(parsed))).toEqual(parsed);
        }
      }),
    );
  });

  test('hex reads back', () => {
    fc.assert(
      fc.property(bytes, (a) => {
        expect(fromHex(toHex(a))).toEqual(a);
      }),
    );
  });

  test('nothing lies between a key and keyAfter of it', () => {
    fc.assert(
      fc.property(bytes, bytes, (a, b) => {
        const next = keyAfter(a);
        expect(compareBytes(a, next)).toBeLessThan(0);
        expect(compareBytes(a, b) < 0 && compareBytes(b, next) < 0).toBe(false);
      }),
    );
  });

  test('prefixEnd bounds exactly the keys with the prefix', () => {
    fc.assert(
      fc.property(narrow, narrow, (prefix, other) => {
        const inside = compareBytes(prefix, other) <= 0 && isBeforeEnd(other, prefixEnd(prefix));
        expect(inside).toBe(startsWith(other, prefix));
        expect(isBeforeEnd(concatBytes(prefix, other), prefixEnd(prefix))).toBe(true);
      }),
    );
  });
});

describe('ranges', () => {
  test('intersect where both contain the key', () => {
    fc.assert(
      fc.property(properRange, properRange, narrow, (a, b, k) => {
        const common = intersectRanges(a, b);
        const isInBoth = rangeContains(a, k) && rangeContains(b, k);
        expect(common !== undefined && rangeContains(common, k)).toBe(isInBoth);
        expect(rangesOverlap(a, b)).toBe(common !== undefined);
        if (common !== undefined) {
          expect(rangeCovers(a, common) && rangeCovers(b, common)).toBe(true);
        }
      }),
    );
  });

  test('that cover another contain every key of it', () => {
    fc.assert(
      fc.property(properRange, properRange, narrow, (outer, inner, k) => {
        expect(rangeCovers(outer, inner) && rangeContains(inner, k) && !rangeContains(outer, k)).toBe(false);
        expect(rangeCovers(FULL_RANGE, inner)).toBe(true);
      }),
    );
  });

  test('of user keys map to the stored range that holds exactly their data keys', () => {
    fc.assert(
      fc.property(properRange, narrow, (users, k) => {
        const stored = keyspace.dataRange(users);
        expect(rangeContains(stored, keyspace.dataKey(k))).toBe(rangeContains(users, k));
        expect(keyspace.userRange(stored)).toEqual(users);
      }),
    );
  });
});

describe('keyspace', () => {
  test('raft log keys order as their numbers do and read back', () => {
    fc.assert(
      fc.property(id, id, id, id, (r1, i1, r2, i2) => {
        const a = keyspace.raftLogKey(regionId(r1), logIndex(i1));
        const b = keyspace.raftLogKey(regionId(r2), logIndex(i2));
        expect(Math.sign(compareBytes(a, b))).toBe(Math.sign(r1 - r2 || i1 - i2));
        expect(keyspace.logIndexOfKey(a)).toBe(i1);
        expect(keyspace.regionIdOfLocalKey(a)).toBe(r1);
      }),
    );
  });
});

describe('units', () => {
  test('whole numbers with a unit read as that many units', () => {
    const number = fc.integer({ min: 0, max: 1_000_000 });
    fc.assert(
      fc.property(number, (n) => {
        expect(parseDurationMs(`${n}s`)).toBe(n * 1000);
        expect(parseSizeBytes(`${n}MiB`)).toBe(n * 1024 * 1024);
      }),
    );
  });

  test('any text is a number or refused', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        for (const parsed of [parseDurationMs(text), parseSizeBytes(text)]) {
          expect(parsed === undefined || (Number.isFinite(parsed) && parsed >= 0)).toBe(true);
        }
      }),
    );
  });
});

describe('KeyMap', () => {
  test('agrees with a sorted list', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(key, fc.nat())), narrow, (entries, probe) => {
        const map = new KeyMap<number>();
        const model = new Map<string, [Uint8Array, number]>();
        for (const [k, v] of entries) {
          map.set(k, v);
          model.set(toHex(k), [k, v]);
        }
        const sorted = [...model.values()].toSorted(([a], [b]) => compareBytes(a, b));
        expect([...map.entries()]).toEqual(sorted);
        expect([...map.entriesFrom(probe)]).toEqual(sorted.filter(([k]) => compareBytes(k, probe) >= 0));
        expect([...map.entriesBelow(probe)]).toEqual(sorted.filter(([k]) => isBeforeEnd(k, probe)).toReversed());
        expect(map.floor(probe)).toEqual(sorted.findLast(([k]) => compareBytes(k, probe) <= 0));
        expect(map.lower(probe)).toEqual(sorted.findLast(([k]) => compareBytes(k, probe) < 0));
        expect(map.ceiling(probe)).toEqual(sorted.find(([k]) => compareBytes(k, probe) >= 0));
        expect(map.higher(probe)).toEqual(sorted.find(([k]) => compareBytes(k, probe) > 0));
      }),
    );
  });
});

describe('Rng', () => {
  test('draws within its bounds, and the same for the same seed', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.integer({ min: 1, max: 2 ** 32 }), (seed, n) => {
        const [a, b] = [createRng(seed), createRng(seed)];
        for (let i = 0; i < 20; i++) {
          const drawn = a.below(n);
          expect(Number.isInteger(drawn) && drawn >= 0 && drawn < n).toBe(true);
          expect(b.below(n)).toBe(drawn);
        }
      }),
    );
  });

  test('forks depend on seed and label only', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), fc.string(), fc.nat({ max: 50 }), (seed, label, draws) => {
        const [fresh, used] = [createRng(seed), createRng(seed)];
        for (let i = 0; i < draws; i++) {
          used.u32();
        }
        expect(used.fork(label).u32()).toBe(fresh.fork(label).u32());
      }),
    );
  });
});
