/** Assertions, ids, errors, the bounded queue and the ordered map. */
import { describe, expect, test } from 'vitest';
import { AppError } from '../../../src/base/app-error.ts';
import { assert, InvariantError, unreachable } from '../../../src/base/assert.ts';
import { BoundedQueue } from '../../../src/base/bounded-queue.ts';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { isSafeId, logIndex, nextIndex, peerId, regionId, storeId, term } from '../../../src/base/ids.ts';
import { KeyMap } from '../../../src/base/key-map.ts';

describe('assert', () => {
  test('throws with its details when the condition fails, and only then', () => {
    assert(true, 'fine');
    expect(() => assert(false, 'broken', { region: 7 })).toThrow(new InvariantError('broken', { region: 7 }));
    expect(() => assert(0, 'broken', { region: 7 })).toThrow('broken (region=7)');
    expect(() => unreachable({ type: 'new' } as never)).toThrow(/unreachable variant/);
  });
});

describe('ids', () => {
  test('are non-negative safe integers', () => {
    for (const make of [regionId, storeId, peerId, term, logIndex]) {
      expect(make(0)).toBe(0);
      expect(make(Number.MAX_SAFE_INTEGER)).toBe(Number.MAX_SAFE_INTEGER);
      for (const bad of [-1, 1.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
        expect(() => make(bad)).toThrow(InvariantError);
        expect(isSafeId(bad)).toBe(false);
      }
    }
    expect(nextIndex(logIndex(4))).toBe(5);
    expect(() => nextIndex(logIndex(Number.MAX_SAFE_INTEGER))).toThrow(InvariantError);
  });
});

describe('AppError', () => {
  test('never retries and is not applied unless told otherwise', () => {
    const error = new AppError('Code', 'text');
    expect(error).toMatchObject({ name: 'Code', code: 'Code', retry: 'never', outcome: 'not-applied', details: {} });
    expect(error.retryable).toBe(false);
    expect(error.hint).toBeUndefined();
    expect('cause' in error).toBe(false);
    expect(new AppError('Code', 'text', { retry: 'route' }).retryable).toBe(true);
  });
});

describe('BoundedQueue', () => {
  test('keeps order and refuses beyond its limit', () => {
    const queue = new BoundedQueue<number>(2);
    expect([queue.push(1), queue.push(2), queue.push(3)]).toEqual([true, true, false]);
    expect(queue.isFull).toBe(true);
    queue.forcePush(4);
    expect([queue.shift(), queue.shift(), queue.shift(), queue.shift()]).toEqual([1, 2, 4, undefined]);
    expect(queue.length).toBe(0);
    expect(() => new BoundedQueue(0)).toThrow(InvariantError);
  });

  test('keeps order over many pushes and shifts, and drains', () => {
    const queue = new BoundedQueue<number>(1000);
    let next = 0;
    for (let i = 0; i < 900; i++) {
      expect(queue.push(i)).toBe(true);
      if (i % 3 === 0) {
        expect(queue.shift()).toBe(next++);
      }
    }
    expect(queue.length).toBe(600);
    expect(queue.drain()).toEqual(Array.from({ length: 600 }, (_each, i) => i + next));
    expect(queue.length).toBe(0);
  });
});

describe('KeyMap', () => {
  const mapOf = (...keys: readonly string[]): KeyMap<string> => {
    const map = new KeyMap<string>();
    for (const key of keys) {
      map.set(utf8(key), key);
    }
    return map;
  };
  const valuesOf = (entries: Iterable<[Uint8Array, string]>): string[] => [...entries].map(([, value]) => value);

  test('finds neighbours of keys that are there and that are not', () => {
    const map = mapOf('b', 'd', 'f');
    const at = (entry: [Uint8Array, string] | undefined): string | undefined => entry && fromUtf8(entry[0]);
    expect([at(map.floor(utf8('d'))), at(map.floor(utf8('e'))), at(map.floor(utf8('a')))]).toEqual([
      'd',
      'd',
      undefined,
    ]);
    expect([at(map.lower(utf8('d'))), at(map.lower(utf8('b')))]).toEqual(['b', undefined]);
    expect([at(map.ceiling(utf8('d'))), at(map.ceiling(utf8('e'))), at(map.ceiling(utf8('g')))]).toEqual([
      'd',
      'f',
      undefined,
    ]);
    expect([at(map.higher(utf8('d'))), at(map.higher(utf8('f')))]).toEqual(['f', undefined]);
    expect(at(map.last())).toBe('f');
    expect(mapOf().last()).toBeUndefined();
  });

  test('iterates upwards from a start and downwards below an end', () => {
    const map = mapOf('a', 'b', 'c', 'd');
    expect(valuesOf(map.entriesFrom(utf8('b')))).toEqual(['b', 'c', 'd']);
    expect(valuesOf(map.entriesFrom(utf8('bb')))).toEqual(['c', 'd']);
    expect(valuesOf(map.entriesBelow(utf8('c')))).toEqual(['b', 'a']);
    expect(valuesOf(map.entriesBelow(utf8('cc')))).toEqual(['c', 'b', 'a']);
    expect(valuesOf(map.entriesBelow(new Uint8Array(0)))).toEqual(['d', 'c', 'b', 'a']);
  });

  test('clones change independently', () => {
    const map = mapOf(...Array.from({ length: 500 }, (_each, i) => String(i)));
    const clone = map.clone();
    map.set(utf8('1'), 'changed');
    map.delete(utf8('2'));
    clone.set(utf8('3'), 'changed in the clone');
    expect([clone.get(utf8('1')), clone.get(utf8('2')), map.get(utf8('3'))]).toEqual(['1', '2', '3']);
    expect([map.size, clone.size]).toEqual([499, 500]);
    clone.clear();
    expect([map.size, clone.size]).toEqual([499, 0]);
  });
});
