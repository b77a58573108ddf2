import { describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { FULL_RANGE, type KeyRange } from '../../../src/base/key-range.ts';
import { createRng } from '../../../src/env/rng.ts';
import { type LoadLimits, LoadWatch, SAMPLES_MIN } from '../../../src/raftstore/peer/load-watch.ts';

const LIMITS: LoadLimits = { loadSplitQps: 100, loadSplitFlowBytes: 0, loadSplitDetectMs: 3_000 };

/** Looks once a second while `second` says what is asked for; the first key that is named, and when. */
function watch(
  second: (watch: LoadWatch, n: number) => void,
  limits: Partial<LoadLimits> = {},
  range: KeyRange = FULL_RANGE,
): { readonly key: string; readonly atMs: number } | undefined {
  const load = new LoadWatch({ ...LIMITS, ...limits }, createRng(7));
  load.look(0, range);
  for (let n = 1; n <= 20; n++) {
    second(load, n);
    const key = load.look(n * 1_000, range);
    if (key !== undefined) {
      return { key: fromUtf8(key), atMs: n * 1_000 };
    }
  }
  return undefined;
}

const keyOf = (i: number): Uint8Array => utf8(`k${String(i).padStart(3, '0')}`);
const spread = (count: number) => (load: LoadWatch) => {
  for (let i = 0; i < count; i++) {
    load.noteKey(keyOf(Math.floor((i * 1000) / count)));
  }
};

describe('LoadWatch', () => {
  test('names a key near the middle of the load once it was high for long enough', () => {
    const found = watch(spread(400));
    expect(found?.atMs).toBe(3_000);
    expect(Number(found?.key.slice(1))).toBeGreaterThan(350);
    expect(Number(found?.key.slice(1))).toBeLessThan(650);
  });

  test('halves the load, not the keys', () => {
    const found = watch((load) => {
      for (let i = 0; i < 400; i++) {
        load.noteKey(keyOf(i % 4 === 0 ? i : 900 + (i % 100)));
      }
    });
    expect(Number(found?.key.slice(1))).toBeGreaterThan(899);
  });

  test('leaves a region alone that stays at the limit, or pauses in between', () => {
    expect(watch(spread(100))).toBeUndefined();
    expect(watch((load, n) => spread(n % 3 === 0 ? 50 : 400)(load))).toBeUndefined();
  });

  test('does nothing for a single hot key: no split would help', () => {
    expect(
      watch((load) => {
        for (let i = 0; i < 400; i++) {
          load.noteKey(keyOf(i % 10 === 0 ? i : 500));
        }
      }),
    ).toBeUndefined();
  });

  test('does not cut what is scanned as a whole', () => {
    const scans = (end: (i: number) => Uint8Array) =>
      watch((load) => {
        for (let i = 0; i < 400; i++) {
          load.noteKey(keyOf(i), end(i));
        }
      });
    expect(scans(() => utf8('z'))).toBeUndefined();
    expect(scans((i) => keyOf(i + 2))).toBeDefined();
  });

  test('counts bytes as well; 0 switches a limit off', () => {
    const large = (load: LoadWatch): void => {
      spread(60)(load);
      load.noteBytes(5_000_000);
    };
    expect(watch(large)).toBeUndefined();
    expect(watch(large, { loadSplitFlowBytes: 1_000_000 })).toBeDefined();
    expect(watch(large, { loadSplitQps: 0, loadSplitFlowBytes: 1_000_000 })).toBeDefined();
    expect(watch(spread(400), { loadSplitQps: 0 })).toBeUndefined();
  });

  test('names only keys inside the region, never its first one, and needs enough of them', () => {
    const range = { start: keyOf(0), end: keyOf(500) };
    const found = watch(spread(400), {}, range);
    expect(Number(found?.key.slice(1))).toBeLessThan(400);
    expect(watch(spread(400), {}, { start: keyOf(999), end: utf8('') })).toBeUndefined();
    const load = new LoadWatch({ ...LIMITS, loadSplitQps: 1, loadSplitDetectMs: 0 }, createRng(1));
    load.look(0, FULL_RANGE);
    for (let i = 0; i < SAMPLES_MIN - 1; i++) {
      load.noteKey(keyOf(i));
    }
    expect(load.look(1_000, FULL_RANGE)).toBeUndefined();
  });

  test('forgets everything when the region changed', () => {
    const load = new LoadWatch(LIMITS, createRng(7));
    load.look(0, FULL_RANGE);
    for (let n = 1; n <= 5; n++) {
      spread(400)(load);
      load.reset();
      expect(load.look(n * 1_000, FULL_RANGE)).toBeUndefined();
    }
  });
});
