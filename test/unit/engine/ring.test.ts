import { describe, expect, test } from 'vitest';
import { EngineOpenError } from '../../../src/env/engine.ts';
import type { NativeDatabase } from '../../../src/engine/level/native.ts';
import { checkRing, RING_SLOTS, ringRecord, WRITE_BUFFER_BYTES } from '../../../src/engine/level/ring.ts';

/** A database that holds the ring records of these batches, later ones over earlier ones. */
function databaseAfter(numbers: Iterable<number>): NativeDatabase {
  const records = new Map<string, [Uint8Array, Uint8Array]>();
  for (const n of numbers) {
    const [key, value] = ringRecord(n, 10, 1000);
    records.set(key.join(), [key, value]);
  }
  const entries = [...records.values()];
  const unused = (): never => {
    throw new Error('not used');
  };
  return {
    iterator: () => ({ nextv: async (size: number) => entries.splice(0, size), close: async () => {} }),
    close: unused,
    get: unused,
    getSync: unused,
    getMany: unused,
    snapshot: unused,
    approximateSize: unused,
    batch: unused,
  };
}

/** The numbers 1 to `last`; of long runs only what a ring may still show. */
function* numbersTo(last: number, without: readonly number[] = []): Generator<number> {
  for (let n = Math.max(1, last - RING_SLOTS - 100); n <= last; n++) {
    if (!without.includes(n)) {
      yield n;
    }
  }
}

describe('ring of batch numbers', () => {
  test('reports the last number, from an empty database to several laps', async () => {
    for (const last of [0, 1, 2, RING_SLOTS, 2 * RING_SLOTS + 17]) {
      expect(await checkRing(databaseAfter(numbersTo(last)), 'x')).toBe(last);
    }
  });

  test('finds every single missing batch, except that losing the last one looks like a torn write', async () => {
    for (const lost of [1, 2, 99]) {
      await expect(checkRing(databaseAfter(numbersTo(100, [lost])), 'x')).rejects.toBeInstanceOf(EngineOpenError);
    }
    expect(await checkRing(databaseAfter(numbersTo(100, [100])), 'x')).toBe(99);
  });

  test('finds a batch of the current lap whose slot still shows the lap before', async () => {
    const last = RING_SLOTS + 50;
    for (const lost of [RING_SLOTS - 5, RING_SLOTS + 49]) {
      await expect(checkRing(databaseAfter(numbersTo(last, [lost])), 'x')).rejects.toThrow(/1 of the last/);
    }
  });

  test('pads tiny batches so that two memtables never hold more batches than the ring has slots', () => {
    const memoryOf = (operations: number, bytes: number): number => {
      const [key, value] = ringRecord(1, operations, bytes);
      const perOperation = 24;
      return key.length + value.length + bytes + (operations + 1) * perOperation;
    };
    for (const [operations, bytes] of [
      [1, 1],
      [1, 30],
      [2, 50],
      [5, 500],
    ] as const) {
      expect(memoryOf(operations, bytes) * RING_SLOTS).toBeGreaterThan(2 * WRITE_BUFFER_BYTES);
    }
    const [, padded] = ringRecord(1, 1, 1);
    const [, plain] = ringRecord(1, 5, 500);
    expect(padded.length).toBeGreaterThan(plain.length);
  });
});
