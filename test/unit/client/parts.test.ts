import { describe, expect, test } from 'vitest';
import { compareBytes, utf8 } from '../../../src/base/bytes.ts';
import { createRng } from '../../../src/env/rng.ts';
import { backoffCeilingMs, backoffMs } from '../../../src/client/backoff.ts';
import { bytesCodec, json, tuple, u64be, utf8Codec } from '../../../src/client/codecs.ts';
import { closestName, parseEndpoint } from '../../../src/client/options.ts';
import { all, from, prefix, range } from '../../../src/client/ranges.ts';
import { TimerWheel, type WheelItem } from '../../../src/client/timer-wheel.ts';
import { VirtualClock } from './virtual-clock.ts';

describe('codecs', () => {
  test('u64be sorts like its numbers and refuses what it cannot hold', () => {
    const numbers = [0n, 1n, 255n, 256n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n];
    numbers.forEach((n) => expect(u64be.decode(u64be.encode(n))).toBe(n));
    numbers.slice(1).forEach((n, i) => {
      expect(compareBytes(u64be.encode(numbers[i] as bigint), u64be.encode(n))).toBeLessThan(0);
    });
    expect(() => u64be.encode(-1n)).toThrow(/0 to 2\^64-1/);
    expect(() => u64be.encode(2n ** 64n)).toThrow(/0 to 2\^64-1/);
    expect(() => u64be.encode(5 as never)).toThrow(/bigint/);
    expect(() => u64be.decode(new Uint8Array(7))).toThrow(/8 bytes/);
  });

  test('utf8 refuses bytes that are no text', () => {
    expect(utf8Codec.decode(utf8Codec.encode('grüße'))).toBe('grüße');
    expect(() => utf8Codec.decode(Uint8Array.of(0xff))).toThrow(/not UTF-8/);
    expect(() => utf8Codec.encode(1 as never)).toThrow(/takes a string/);
  });

  test('json validates what it reads', () => {
    const codec = json((value): number => {
      if (typeof value !== 'number') {
        throw new TypeError('not a number');
      }
      return value;
    });
    expect(codec.decode(codec.encode(5))).toBe(5);
    expect(() => codec.decode(utf8('"5"'))).toThrow('not a number');
    expect(() => json().encode(undefined)).toThrow(/no JSON form/);
  });

  test('bytes takes strings, too, and nothing else', () => {
    expect(bytesCodec.encode('a' as never)).toEqual(utf8('a'));
    expect(() => bytesCodec.encode(null as never)).toThrow(/got null/);
  });

  test('tuples sort element by element, a shorter element before a longer one', () => {
    const codec = tuple(bytesCodec, u64be);
    const ordered: [Uint8Array, bigint][] = [
      [Uint8Array.of(), 9n],
      [Uint8Array.of(0), 0n],
      [Uint8Array.of(0), 1n],
      [Uint8Array.of(0, 0), 0n],
      [Uint8Array.of(0, 255), 0n],
      [Uint8Array.of(1), 5n],
      [Uint8Array.of(1, 0), 0n],
      [Uint8Array.of(255), 0n],
      [Uint8Array.of(255, 255), 0n],
    ];
    ordered.forEach((value) => expect(codec.decode(codec.encode(value))).toEqual(value));
    ordered.slice(1).forEach((value, i) => {
      expect(compareBytes(codec.encode(ordered[i] as [Uint8Array, bigint]), codec.encode(value))).toBeLessThan(0);
    });
  });

  test('a tuple prefix covers exactly the tuples that start with its elements', () => {
    const codec = tuple(utf8Codec, utf8Codec);
    const { start, end } = prefix(codec.prefix('a'));
    const isInside = (bytes: Uint8Array): boolean => compareBytes(start, bytes) <= 0 && compareBytes(bytes, end) < 0;
    expect(isInside(codec.encode(['a', '']))).toBe(true);
    expect(isInside(codec.encode(['a', '\u{10ffff}']))).toBe(true);
    expect(isInside(codec.encode(['aa', '']))).toBe(false);
    expect(isInside(codec.encode(['', 'a']))).toBe(false);
  });

  test.each([
    ['cut off', utf8('a')],
    ['an escape that does not exist', Uint8Array.of(0, 5)],
    ['too few elements', tuple(utf8Codec).encode(['a'])],
    ['too many elements', tuple(utf8Codec, utf8Codec, utf8Codec).encode(['a', 'b', 'c'])],
  ])('a key that is no tuple is refused: %s', (_, bytes) => {
    expect(() => tuple(utf8Codec, utf8Codec).decode(bytes)).toThrow(expect.objectContaining({ code: 'Codec' }));
  });

  test('tuples of the wrong length are refused', () => {
    expect(() => tuple(utf8Codec).encode(['a', 'b'] as never)).toThrow(/1 elements/);
    expect(() => tuple(utf8Codec).prefix(...(['a', 'b'] as unknown as [string]))).toThrow(/1 elements/);
  });
});

describe('ranges', () => {
  test('strings are UTF-8 and ends are exclusive', () => {
    expect(prefix('ab')).toEqual({ start: utf8('ab'), end: utf8('ac') });
    expect(prefix(Uint8Array.of(1, 0xff))).toEqual({ start: Uint8Array.of(1, 0xff), end: Uint8Array.of(2) });
    expect(prefix(Uint8Array.of(0xff)).end).toHaveLength(0);
    expect(range('a', 'b')).toEqual({ start: utf8('a'), end: utf8('b') });
    expect(from('a')).toEqual({ start: utf8('a'), end: new Uint8Array(0) });
    expect(all()).toEqual({ start: new Uint8Array(0), end: new Uint8Array(0) });
  });

  test('a codec types the bounds, and undefined leaves one open', () => {
    expect(range(5n, undefined, u64be)).toEqual({ start: u64be.encode(5n), end: new Uint8Array(0) });
  });
});

describe('options', () => {
  test('the closest name is found unless nothing is close', () => {
    expect(closestName('timeout', ['timeoutMs', 'queueMax'])).toBe('timeoutMs');
    expect(closestName('TTL', ['ttlMs', 'ifAbsent'])).toBe('ttlMs');
    expect(closestName('xyzzyplugh', ['pd', 'log'])).toBeUndefined();
  });

  test('endpoints keep host and port', () => {
    expect(parseEndpoint('http://10.0.0.1:2379/')).toBe('10.0.0.1:2379');
    expect(parseEndpoint('[::1]:2379')).toBe('[::1]:2379');
    expect(() => parseEndpoint('host:99999')).toThrow(/not an endpoint/);
  });
});

describe('backoff', () => {
  test('the ceiling doubles from 2 ms to its cap', () => {
    expect([0, 1, 2, 7, 8, 9, 500].map((n) => backoffCeilingMs(n, 500))).toEqual([2, 4, 8, 256, 500, 500, 500]);
  });

  test('delays are spread over the whole ceiling', () => {
    const rng = createRng(3);
    const delays = Array.from({ length: 1000 }, () => backoffMs(rng, 20, 500));
    expect(Math.min(...delays)).toBeLessThan(25);
    expect(Math.max(...delays)).toBeGreaterThan(475);
    expect(delays.every((ms) => ms >= 0 && ms < 500)).toBe(true);
  });
});

describe('TimerWheel', () => {
  interface Item extends WheelItem {
    readonly name: string;
  }
  const item = (name: string, dueMs: number): Item => ({
    name,
    dueMs,
    wheelSlot: -1,
    wheelPrevious: undefined,
    wheelNext: undefined,
  });

  function wheelOf(clock: VirtualClock): { wheel: TimerWheel<Item>; fired: [string, number][] } {
    const fired: [string, number][] = [];
    const wheel = new TimerWheel<Item>(clock, 'test', (due) => fired.push([due.name, clock.monoMs() - due.dueMs]));
    return { wheel, fired };
  }

  test('items fire at most one slot late and never early, in whatever order they were added', async () => {
    const clock = new VirtualClock();
    const { wheel, fired } = wheelOf(clock);
    const now = clock.monoMs();
    [5000, 3, 0, 40_000, 3.5, 8191, 8192, 8193, 20_000].forEach((ms) => wheel.add(item(String(ms), now + ms), now));
    await clock.advance(60_000);
    expect(fired.map(([name]) => Number(name)).toSorted((a, b) => a - b)).toEqual([
      0, 3, 3.5, 5000, 8191, 8192, 8193, 20_000, 40_000,
    ]);
    fired.forEach(([, lateMs]) => {
      expect(lateMs).toBeGreaterThanOrEqual(0);
      expect(lateMs).toBeLessThanOrEqual(8);
    });
    expect(clock.pendingTimers).toBe(0);
  });

  test('removed items do not fire, wherever in their slot they are', async () => {
    const clock = new VirtualClock();
    const { wheel, fired } = wheelOf(clock);
    const now = clock.monoMs();
    const items = ['a', 'b', 'c', 'd'].map((name) => item(name, now + 100));
    items.forEach((each) => wheel.add(each, now));
    wheel.remove(items[1] as Item);
    wheel.remove(items[3] as Item);
    wheel.remove(items[1] as Item);
    expect(wheel.size).toBe(2);
    await clock.advance(200);
    expect(fired.map(([name]) => name).toSorted()).toEqual(['a', 'c']);
  });

  test('a handler may add and remove items', async () => {
    const clock = new VirtualClock();
    const fired: string[] = [];
    const now = clock.monoMs();
    const [a, b, c] = [item('a', now + 10), item('b', now + 10), item('c', now + 30)];
    const wheel: TimerWheel<Item> = new TimerWheel<Item>(clock, 'test', (due) => {
      fired.push(due.name);
      if (fired.length === 1) {
        wheel.remove(due === a ? b : a);
        wheel.add(c, clock.monoMs());
      }
    });
    wheel.add(a, now);
    wheel.add(b, now);
    await clock.advance(100);
    expect(fired).toHaveLength(2);
    expect(fired[1]).toBe('c');
  });

  test('an item added after a long idle time fires in time', async () => {
    const clock = new VirtualClock();
    const { wheel, fired } = wheelOf(clock);
    await clock.advance(1_000_000);
    const now = clock.monoMs();
    wheel.add(item('late', now + 50), now);
    await clock.advance(58);
    expect(fired).toHaveLength(1);
  });

  test('drain returns what has not fired and stops the timer', () => {
    const clock = new VirtualClock();
    const { wheel } = wheelOf(clock);
    const now = clock.monoMs();
    wheel.add(item('a', now + 10), now);
    wheel.add(item('b', now + 9000), now);
    expect(
      wheel
        .drain()
        .map(({ name }) => name)
        .toSorted(),
    ).toEqual(['a', 'b']);
    expect([wheel.size, clock.pendingTimers]).toEqual([0, 0]);
  });
});
