import { describe, expect, test } from 'vitest';
import { IdAllocator } from '../../../src/pd/ids/id-allocator.ts';
import {
  LOGICAL_MAX,
  TimestampOracle,
  composeTimestamp,
  splitTimestamp,
} from '../../../src/pd/tso/timestamp-oracle.ts';

describe('IdAllocator', () => {
  test('gives nothing before a window is durable, then exactly the window', () => {
    const ids = new IdAllocator(0, 10);
    expect(ids.take(1)).toBeUndefined();
    expect(ids.isLow).toBe(true);
    ids.extend(ids.nextLimit(1));
    expect(ids.take(4)).toBe(1);
    expect(ids.take(6)).toBe(5);
    expect(ids.take(1)).toBeUndefined();
  });

  test('a new process starts above everything an earlier one may have given out', () => {
    const first = new IdAllocator(0, 10);
    first.extend(first.nextLimit(1));
    first.take(1);
    const second = new IdAllocator(first.limit, 10);
    second.extend(second.nextLimit(1));
    expect(second.take(1)).toBe(11);
  });

  test('a large request gets a window of its own size', () => {
    const ids = new IdAllocator(0, 10);
    expect(ids.nextLimit(250)).toBe(250);
    ids.extend(250);
    expect(ids.take(250)).toBe(1);
  });

  test('asks for more when half of the window is gone', () => {
    const ids = new IdAllocator(0, 10);
    ids.extend(10);
    ids.take(5);
    expect(ids.isLow).toBe(false);
    ids.take(1);
    expect(ids.isLow).toBe(true);
  });
});

describe('TimestampOracle', () => {
  const started = (wallMs: number, savedMs = 0): TimestampOracle => {
    const oracle = new TimestampOracle(savedMs, 5_000);
    oracle.start(oracle.plan(wallMs));
    return oracle;
  };
  const next = (oracle: TimestampOracle, count = 1): bigint => {
    const verdict = oracle.serve(count);
    if (verdict.type !== 'ok') {
      throw new Error('no timestamp');
    }
    return composeTimestamp(verdict.last);
  };

  test('serves nothing before it was started', () => {
    expect(new TimestampOracle(0, 5_000).serve(1)).toEqual({ type: 'wait' });
  });

  test('a block ends at the timestamp that is returned', () => {
    const oracle = started(1_000);
    const first = next(oracle);
    expect(next(oracle, 10) - first).toBe(10n);
  });

  test('the bit form has 18 logical bits and round trips', () => {
    expect(composeTimestamp({ physical: 1, logical: 2 })).toBe(262_146n);
    expect(splitTimestamp(composeTimestamp({ physical: 1_700_000_000_123, logical: 77 }))).toEqual({
      physical: 1_700_000_000_123,
      logical: 77,
    });
  });

  test('follows the clock, and stands still when the clock goes back', () => {
    const oracle = started(1_000);
    oracle.tick(1_200);
    expect(oracle.physical).toBe(1_200);
    const before = next(oracle);
    oracle.tick(300);
    expect(oracle.physical).toBe(1_200);
    expect(next(oracle)).toBeGreaterThan(before);
  });

  test('never reaches its durable reservation', () => {
    const oracle = started(1_000);
    expect(oracle.saved).toBe(6_000);
    expect(oracle.tick(7_000)).toBe(12_000);
    expect(oracle.physical).toBe(1_000);
    oracle.extend(12_000);
    oracle.tick(7_000);
    expect(oracle.physical).toBe(7_000);
  });

  test('asks for a longer reservation early enough to be never late', () => {
    const oracle = started(1_000);
    expect(oracle.tick(3_000)).toBeUndefined();
    expect(oracle.tick(3_500)).toBe(8_500);
  });

  test('a full logical counter moves the physical part on by one, but not beyond the reservation', () => {
    const oracle = new TimestampOracle(0, 2);
    oracle.start(oracle.plan(1_000));
    expect(oracle.serve(LOGICAL_MAX)).toMatchObject({ type: 'ok', last: { physical: 1_000, logical: LOGICAL_MAX } });
    expect(oracle.serve(1)).toMatchObject({ type: 'ok', last: { physical: 1_001, logical: 1 } });
    expect(oracle.serve(LOGICAL_MAX)).toEqual({ type: 'wait' });
  });

  test('a new process starts above everything an earlier one may have given out, even when the clock went back', () => {
    const first = started(10_000);
    const last = next(first, LOGICAL_MAX);
    const second = started(4_000, first.saved);
    expect(next(second)).toBeGreaterThan(last);
    expect(second.physical).toBe(first.saved + 1);
  });
});
