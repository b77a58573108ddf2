/** One suite for every implementation of the Engine contract in `src/env/engine.ts`. */
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Level } from 'level';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { concatBytes, equalBytes, fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { FULL_RANGE } from '../../src/base/key-range.ts';
import { createLevelEngineFactory, createMemoryEngineFactory, MemoryDisk } from '../../src/engine/index.ts';
import {
  CorruptionError,
  EngineClosedError,
  EngineOpenError,
  type Engine,
  type EngineFactory,
  type ScanPage,
} from '../../src/env/engine.ts';
import { realClock } from '../../src/env/real/index.ts';
import { createRng } from '../../src/env/rng.ts';

/** What the suite needs of an implementation besides the contract. */
interface Bench {
  readonly factory: EngineFactory;
  readonly path: string;
  /** Damages the stored value of a key, which occurs once; the engine is closed before and opened again after. */
  damageValue(key: Uint8Array, value: Uint8Array): Promise<void>;
  /** Loses a write batch in the middle of the log; the engine is closed. */
  damageLog(): Promise<void>;
  dispose(): Promise<void>;
}

async function levelBench(): Promise<Bench> {
  const root = await mkdtemp(join(tmpdir(), 'braid-engine-'));
  const path = join(root, 'db');
  const logFile = async (): Promise<string> => {
    const names = (await readdir(path)).filter((name) => name.endsWith('.log')).sort();
    return join(path, names.at(-1) as string);
  };
  return {
    factory: createLevelEngineFactory(),
    path,
    async damageValue(_key, value) {
      // Opening writes the log to a table file, whose damage LevelDB does not notice.
      await (await createLevelEngineFactory().open({ path, createIfMissing: false })).close();
      for (const name of (await readdir(path)).filter((each) => each.endsWith('.ldb'))) {
        const at = (await readFile(join(path, name))).indexOf(value);
        if (at >= 0) {
          await flipByte(join(path, name), at);
          return;
        }
      }
      throw new Error('the value is in no table file');
    },
    async damageLog() {
      const file = await logFile();
      await flipByte(file, Math.floor((await stat(file)).size / 2));
    },
    dispose: () => rm(root, { recursive: true, force: true }),
  };
}

async function memoryBench(): Promise<Bench> {
  const disk = new MemoryDisk(createRng(7));
  const path = '/virtual/db';
  return {
    factory: createMemoryEngineFactory(disk, realClock()),
    path,
    async damageValue(key) {
      expect(disk.database(path)?.damageValue(key)).toBe(true);
    },
    async damageLog() {
      expect(disk.damageLog(path)).toBeGreaterThan(0);
    },
    dispose: async () => {},
  };
}

async function flipByte(file: string, at: number): Promise<void> {
  const handle = await open(file, 'r+');
  try {
    const byte = Buffer.alloc(1);
    await handle.read(byte, 0, 1, at);
    byte[0] = (byte[0] as number) ^ 0x10;
    await handle.write(byte, 0, 1, at);
  } finally {
    await handle.close();
  }
}

const keysOf = (page: ScanPage): string[] => page.entries.map(([key]) => fromUtf8(key));
const range = (start: string, end: string) => ({ start: utf8(start), end: utf8(end) });

function put(engine: Engine, entries: Readonly<Record<string, string>>): Promise<void> {
  const batch = engine.createBatch();
  for (const [key, value] of Object.entries(entries)) {
    batch.put(utf8(key), utf8(value));
  }
  return engine.write(batch);
}

async function text(engine: Engine, key: string): Promise<string | undefined> {
  const value = await engine.get(utf8(key));
  return value === undefined ? undefined : fromUtf8(value);
}

describe.each([
  ['on LevelDB', levelBench],
  ['in memory', memoryBench],
] as const)('Engine %s', (_name, createBench) => {
  let bench: Bench;
  let engine: Engine;

  const reopen = async (): Promise<void> => {
    await engine.close();
    engine = await bench.factory.open({ path: bench.path, createIfMissing: false });
  };

  beforeEach(async () => {
    bench = await createBench();
    engine = await bench.factory.open({ path: bench.path, createIfMissing: true });
  });

  afterEach(async () => {
    await engine.close();
    await bench.dispose();
  });

  describe('write', () => {
    test('makes every operation of a batch visible at once, in order', async () => {
      await put(engine, { a: 'old', b: 'old' });
      const batch = engine.createBatch();
      batch.put(utf8('a'), utf8('1'));
      batch.put(utf8('a'), utf8('2'));
      batch.put(utf8('c'), utf8('3'));
      batch.del(utf8('c'));
      batch.del(utf8('b'));
      expect(batch.count).toBe(5);
      expect(batch.bytes).toBe(8);
      await engine.write(batch);
      expect(await text(engine, 'a')).toBe('2');
      expect(await text(engine, 'b')).toBeUndefined();
      expect(await text(engine, 'c')).toBeUndefined();
    });

    test('applies un-awaited batches in the order of the calls', async () => {
      for (let round = 0; round < 20; round++) {
        const writes: Promise<void>[] = [];
        const order: number[] = [];
        for (let i = 0; i < 50; i++) {
          writes.push(put(engine, { counter: String(i) }).then(() => void order.push(i)));
        }
        await Promise.all(writes);
        expect(await text(engine, 'counter')).toBe('49');
        expect(order).toEqual(Array.from({ length: 50 }, (_each, i) => i));
      }
    });

    test('resolves an empty batch after the batches before it', async () => {
      const order: string[] = [];
      const first = put(engine, { a: '1' }).then(() => void order.push('full'));
      const second = engine.write(engine.createBatch()).then(() => void order.push('empty'));
      await Promise.all([first, second]);
      expect(order).toEqual(['full', 'empty']);
      await engine.write(engine.createBatch());
    });

    test('does not resolve within the call', async () => {
      let done = false;
      const write = put(engine, { a: '1' }).then(() => {
        done = true;
      });
      expect(done).toBe(false);
      await write;
      expect(done).toBe(true);
    });

    test('takes batches larger than a group', async () => {
      const value = new Uint8Array(3 * 1024 * 1024).fill(1);
      const batch = engine.createBatch();
      batch.put(utf8('large'), value);
      await Promise.all([put(engine, { before: '1' }), engine.write(batch), put(engine, { after: '1' })]);
      expect((await engine.get(utf8('large')))?.length).toBe(value.length);
      expect(await text(engine, 'after')).toBe('1');
    });

    test('refuses keys in the room of the engine, empty keys, and a batch written twice', async () => {
      const batch = engine.createBatch();
      expect(() => batch.put(Uint8Array.of(0, 1), utf8('x'))).toThrow(/room of the engine/);
      expect(() => batch.del(new Uint8Array(0))).toThrow(/empty/);
      batch.put(utf8('a'), utf8('1'));
      await engine.write(batch);
      expect(() => batch.put(utf8('b'), utf8('2'))).toThrow(/changes after/);
      await expect(async () => engine.write(batch)).rejects.toThrow(/twice/);
    });
  });

  describe('reads', () => {
    test('return undefined for absent keys and empty bytes for empty values', async () => {
      await put(engine, { empty: '' });
      expect(await engine.get(utf8('absent'))).toBeUndefined();
      expect(engine.getSync(utf8('absent'))).toBeUndefined();
      expect(await engine.get(utf8('empty'))).toEqual(new Uint8Array(0));
      expect(engine.getSync(utf8('empty'))).toEqual(new Uint8Array(0));
      expect(await engine.getMany([])).toEqual([]);
    });

    test('getMany keeps the order of the keys and repeats', async () => {
      await put(engine, { a: '1', b: '2' });
      const values = await engine.getMany([utf8('b'), utf8('x'), utf8('a'), utf8('b')]);
      expect(values).toEqual([utf8('2'), undefined, utf8('1'), utf8('2')]);
    });

    test('see a write as soon as its promise has resolved', async () => {
      for (let i = 0; i < 50; i++) {
        await put(engine, { a: String(i) });
        expect(fromUtf8(engine.getSync(utf8('a')) as Uint8Array)).toBe(String(i));
        expect(await text(engine, 'a')).toBe(String(i));
      }
    });

    test('return bytes that stay unchanged when the caller changes earlier results', async () => {
      await put(engine, { a: 'value' });
      (await engine.get(utf8('a')))?.fill(0);
      (engine.getSync(utf8('a')) as Uint8Array).fill(0);
      expect(await text(engine, 'a')).toBe('value');
    });

    test('return plain byte arrays', async () => {
      await put(engine, { a: 'value' });
      const page = await engine.scan({ range: FULL_RANGE, limit: 10 });
      const results = [await engine.get(utf8('a')), engine.getSync(utf8('a')), ...page.entries.flat()];
      for (const bytes of results) {
        expect(Buffer.isBuffer(bytes)).toBe(false);
        expect(bytes).toBeInstanceOf(Uint8Array);
      }
    });
  });

  describe('scan', () => {
    beforeEach(() => put(engine, { a: '1', b: '2', c: '3', d: '4', '\u{10ffff}': '5' }));

    test('returns the half-open range in byte order', async () => {
      const page = await engine.scan({ range: range('b', 'd'), limit: 10 });
      expect(keysOf(page)).toEqual(['b', 'c']);
      expect(page.entries.map(([, value]) => fromUtf8(value))).toEqual(['2', '3']);
      expect(page.more).toBe(false);
    });

    test('runs backwards over the same range', async () => {
      expect(keysOf(await engine.scan({ range: range('b', 'd'), limit: 10, reverse: true }))).toEqual(['c', 'b']);
      expect(keysOf(await engine.scan({ range: range('bb', 'cc'), limit: 10, reverse: true }))).toEqual(['c']);
      expect(keysOf(await engine.scan({ range: FULL_RANGE, limit: 2, reverse: true }))).toEqual(['\u{10ffff}', 'd']);
    });

    test('is unbounded at empty ends and never shows records of the engine', async () => {
      const all = ['a', 'b', 'c', 'd', '\u{10ffff}'];
      expect(keysOf(await engine.scan({ range: FULL_RANGE, limit: 100 }))).toEqual(all);
      expect(keysOf(await engine.scan({ range: FULL_RANGE, limit: 100, reverse: true }))).toEqual(all.toReversed());
      const engineRoom = { start: Uint8Array.of(0), end: Uint8Array.of(1) };
      expect(await engine.scan({ range: engineRoom, limit: 100 })).toEqual({ entries: [], more: false });
    });

    test('ends a page at the limit and reports that more may follow', async () => {
      const page = await engine.scan({ range: FULL_RANGE, limit: 2 });
      expect(keysOf(page)).toEqual(['a', 'b']);
      expect(page.more).toBe(true);
      const rest = await engine.scan({ range: range('bb', 'e'), limit: 3 });
      expect(keysOf(rest)).toEqual(['c', 'd']);
      expect(rest.more).toBe(false);
    });

    test('ends a page behind the entry that reaches maxBytes', async () => {
      const page = await engine.scan({ range: FULL_RANGE, limit: 100, maxBytes: 3 });
      expect(keysOf(page)).toEqual(['a', 'b']);
      expect(page.more).toBe(true);
      const one = await engine.scan({ range: FULL_RANGE, limit: 100, maxBytes: 1 });
      expect(keysOf(one)).toEqual(['a']);
    });

    test('reads no values when only keys are asked for', async () => {
      const page = await engine.scan({ range: range('a', 'c'), limit: 10, keysOnly: true });
      expect(page.entries).toEqual([
        [utf8('a'), new Uint8Array(0)],
        [utf8('b'), new Uint8Array(0)],
      ]);
    });

    test('returns nothing for empty and inverted ranges', async () => {
      for (const empty of [range('b', 'b'), range('c', 'b'), range('x', 'y')]) {
        expect(await engine.scan({ range: empty, limit: 10 })).toEqual({ entries: [], more: false });
        expect(await engine.scan({ range: empty, limit: 10, reverse: true })).toEqual({ entries: [], more: false });
      }
    });

    test('returns many entries in one page and all entries over several pages', async () => {
      const batch = engine.createBatch();
      for (let i = 0; i < 5000; i++) {
        batch.put(utf8(`n${String(i).padStart(5, '0')}`), utf8(`value ${i}`));
      }
      await engine.write(batch);
      const one = await engine.scan({ range: range('n', 'o'), limit: 10_000, maxBytes: 10_000_000 });
      expect(one.entries.length).toBe(5000);
      expect(one.more).toBe(false);
      let start = utf8('n');
      let seen = 0;
      for (let pages = 0; pages < 100; pages++) {
        const page = await engine.scan({ range: { start, end: utf8('o') }, limit: 700 });
        seen += page.entries.length;
        if (!page.more) {
          break;
        }
        start = concatBytes(page.entries.at(-1)?.[0] as Uint8Array, Uint8Array.of(0));
      }
      expect(seen).toBe(5000);
    });

    test('is a view of the moment of the call, whatever is written meanwhile', async () => {
      for (let i = 0; i < 20; i++) {
        const writes: Promise<void>[] = [];
        const scans: Promise<ScanPage>[] = [];
        for (let n = 0; n < 10; n++) {
          writes.push(put(engine, { a: String(n), d: String(n) }));
          scans.push(engine.scan({ range: range('a', 'e'), limit: 10 }));
        }
        for (const page of await Promise.all(scans)) {
          const value = (key: string): string =>
            fromUtf8(page.entries.find(([k]) => equalBytes(k, utf8(key)))?.[1] as Uint8Array);
          expect(value('a') === value('d') || (value('a') === '1' && value('d') === '4')).toBe(true);
        }
        await Promise.all(writes);
      }
    });
  });

  describe('snapshot', () => {
    test('keeps showing the moment it was taken', async () => {
      await put(engine, { a: '1', b: '1' });
      const snapshot = engine.snapshot();
      const batch = engine.createBatch();
      batch.put(utf8('a'), utf8('2'));
      batch.del(utf8('b'));
      batch.put(utf8('c'), utf8('2'));
      await engine.write(batch);
      expect(await engine.get(utf8('a'), snapshot)).toEqual(utf8('1'));
      expect(await engine.getMany([utf8('b'), utf8('c')], snapshot)).toEqual([utf8('1'), undefined]);
      expect(keysOf(await engine.scan({ range: FULL_RANGE, limit: 10, snapshot }))).toEqual(['a', 'b']);
      expect(keysOf(await engine.scan({ range: FULL_RANGE, limit: 10 }))).toEqual(['a', 'c']);
      snapshot.close();
      snapshot.close();
      await expect(engine.get(utf8('a'), snapshot)).rejects.toThrow(/after it was closed/);
    });

    test('is independent of other snapshots', async () => {
      await put(engine, { a: '1' });
      const one = engine.snapshot();
      await put(engine, { a: '2' });
      const two = engine.snapshot();
      await put(engine, { a: '3' });
      one.close();
      expect(await engine.get(utf8('a'), two)).toEqual(utf8('2'));
      expect(await text(engine, 'a')).toBe('3');
      two.close();
    });

    test('left open does not keep the engine from closing', async () => {
      engine.snapshot();
      await reopen();
      expect(engine.health()).toEqual({ type: 'ok' });
    });
  });

  describe('size estimate', () => {
    test('of a range is a non-negative number', async () => {
      await put(engine, { a: '1', b: '2' });
      expect(await engine.approximateSize(FULL_RANGE)).toBeGreaterThanOrEqual(0);
      expect(await engine.approximateSize(range('b', 'a'))).toBe(0);
    });
  });

  describe('reopening', () => {
    test('finds everything that was acknowledged', async () => {
      for (let i = 0; i < 5; i++) {
        await put(engine, { [`k${i}`]: `v${i}`, last: String(i) });
        await reopen();
      }
      expect(await text(engine, 'k0')).toBe('v0');
      expect(await text(engine, 'last')).toBe('4');
    });

    test('waits for accepted writes at close', async () => {
      const writes = Array.from({ length: 20 }, (_each, i) => put(engine, { [`k${i}`]: 'v' }));
      await engine.close();
      await Promise.all(writes);
      engine = await bench.factory.open({ path: bench.path, createIfMissing: false });
      expect((await engine.scan({ range: FULL_RANGE, limit: 100 })).entries.length).toBe(20);
    });

    test('is refused while the database is open', async () => {
      const again = bench.factory.open({ path: bench.path, createIfMissing: false });
      await expect(again).rejects.toBeInstanceOf(EngineOpenError);
      await expect(again).rejects.toThrow(/in use/);
      await expect(again).rejects.toThrow(bench.path);
    });

    test('with createIfMissing finds the existing database', async () => {
      await put(engine, { a: '1' });
      await engine.close();
      engine = await bench.factory.open({ path: bench.path, createIfMissing: true });
      expect(await text(engine, 'a')).toBe('1');
    });

    test('of a missing database is refused and creates nothing', async () => {
      const path = `${bench.path}-missing`;
      for (let i = 0; i < 2; i++) {
        const opening = bench.factory.open({ path, createIfMissing: false });
        await expect(opening).rejects.toBeInstanceOf(EngineOpenError);
        await expect(opening).rejects.toThrow(path);
      }
    });

    test('after close every call is refused', async () => {
      await put(engine, { a: '1' });
      await engine.close();
      await engine.close();
      await expect(put(engine, { a: '2' })).rejects.toBeInstanceOf(EngineClosedError);
      await expect(engine.get(utf8('a'))).rejects.toBeInstanceOf(EngineClosedError);
      await expect(engine.getMany([utf8('a')])).rejects.toBeInstanceOf(EngineClosedError);
      await expect(engine.scan({ range: FULL_RANGE, limit: 1 })).rejects.toBeInstanceOf(EngineClosedError);
      await expect(engine.approximateSize(FULL_RANGE)).rejects.toBeInstanceOf(EngineClosedError);
      expect(() => engine.getSync(utf8('a'))).toThrow(EngineClosedError);
      expect(() => engine.snapshot()).toThrow(EngineClosedError);
    });
  });

  describe('damage', () => {
    test('of a value is found by every read of it and does not poison the engine', async () => {
      const value = Uint8Array.from({ length: 64 }, (_each, i) => (i * 73 + 41) & 0xff);
      const batch = engine.createBatch();
      batch.put(utf8('bad'), value);
      batch.put(utf8('good'), utf8('1'));
      await engine.write(batch);
      await engine.close();
      await bench.damageValue(utf8('bad'), value);
      engine = await bench.factory.open({ path: bench.path, createIfMissing: false });
      await expect(engine.get(utf8('bad'))).rejects.toBeInstanceOf(CorruptionError);
      await expect(engine.getMany([utf8('good'), utf8('bad')])).rejects.toBeInstanceOf(CorruptionError);
      await expect(engine.scan({ range: FULL_RANGE, limit: 10 })).rejects.toBeInstanceOf(CorruptionError);
      expect(() => engine.getSync(utf8('bad'))).toThrow(CorruptionError);
      expect(await text(engine, 'good')).toBe('1');
      expect(engine.health()).toEqual({ type: 'ok' });
      await put(engine, { bad: 'new' });
      expect(await text(engine, 'bad')).toBe('new');
    });

    test('in the middle of the log is never opened silently', async () => {
      await reopen();
      for (let i = 0; i < 100; i++) {
        await put(engine, { [`k${i}`]: 'x'.repeat(500) });
      }
      await engine.close();
      await bench.damageLog();
      for (let attempt = 0; attempt < 2; attempt++) {
        const opening = bench.factory.open({ path: bench.path, createIfMissing: false });
        await expect(opening).rejects.toBeInstanceOf(EngineOpenError);
        await expect(opening).rejects.toThrow(/lost/);
      }
    });
  });
});

describe('Engine on LevelDB, on its files', () => {
  let root: string;
  let path: string;
  const factory = createLevelEngineFactory();

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'braid-engine-'));
    path = join(root, 'db');
  });

  afterEach(() => rm(root, { recursive: true, force: true }));

  const filesEndingIn = async (suffix: string): Promise<string[]> =>
    (await readdir(path)).filter((name) => name.endsWith(suffix)).map((name) => join(path, name));

  async function fill(batches: number): Promise<void> {
    const engine = await factory.open({ path, createIfMissing: true });
    for (let i = 0; i < batches; i++) {
      await put(engine, { [`k${i}`]: 'x'.repeat(500), last: String(i) });
    }
    await engine.close();
  }

  test('drops a torn last batch as a whole and opens', async () => {
    await fill(10);
    const [log] = await filesEndingIn('.log');
    await truncate(log as string, (await stat(log as string)).size - 3);
    const engine = await factory.open({ path, createIfMissing: false });
    expect(await text(engine, 'k9')).toBeUndefined();
    expect(await text(engine, 'last')).toBe('8');
    await put(engine, { after: '1' });
    await engine.close();
    await (await factory.open({ path, createIfMissing: false })).close();
  });

  test('refuses a directory that lost its CURRENT file, even when it may create one', async () => {
    await fill(3);
    await rm(join(path, 'CURRENT'));
    for (const createIfMissing of [false, true]) {
      await expect(factory.open({ path, createIfMissing })).rejects.toThrow(/no CURRENT file/);
    }
    expect((await filesEndingIn('.log')).length).toBe(1);
  });

  test('refuses a database whose table file is gone', async () => {
    await fill(3);
    await (await factory.open({ path, createIfMissing: false })).close();
    await rm((await filesEndingIn('.ldb'))[0] as string);
    await expect(factory.open({ path, createIfMissing: false })).rejects.toThrow(/damaged/);
  });

  test('refuses a database whose log file is gone', async () => {
    await fill(3);
    await fill(1);
    for (const log of await filesEndingIn('.log')) {
      await rm(log);
    }
    await expect(factory.open({ path, createIfMissing: false })).rejects.toThrow(/no log file/);
  });

  test('refuses a LevelDB database of another program and leaves it as it is', async () => {
    const foreign = new Level<string, string>(path);
    await foreign.put('theirs', '1');
    await foreign.close();
    for (const createIfMissing of [false, true]) {
      await expect(factory.open({ path, createIfMissing })).rejects.toThrow(/another program/);
    }
    const again = new Level<string, string>(path);
    expect(await again.get('theirs')).toBe('1');
    await again.close();
  });

  test('refuses a directory whose files belong to something else', async () => {
    await mkdir(path);
    await writeFile(join(path, 'CURRENT'), 'nonsense');
    await expect(factory.open({ path, createIfMissing: true })).rejects.toBeInstanceOf(EngineOpenError);
  });

  test('opens after a power loss that kept later pages of the last, unacknowledged batch only', async () => {
    await fill(5);
    const [log] = await filesEndingIn('.log');
    const intact = (await stat(log as string)).size;
    const engine = await factory.open({ path, createIfMissing: false });
    const [current] = await filesEndingIn('.log');
    await put(engine, { before: '1' });
    const start = (await stat(current as string)).size;
    await put(engine, { big: 'x'.repeat(100_000) });
    await engine.close();
    expect(intact).toBeGreaterThan(0);
    const handle = await open(current as string, 'r+');
    await handle.write(new Uint8Array(8192), 0, 8192, start + 4096);
    await handle.close();
    const again = await factory.open({ path, createIfMissing: false });
    expect(await text(again, 'big')).toBeUndefined();
    expect(await text(again, 'before')).toBe('1');
    expect(await text(again, 'last')).toBe('4');
    await put(again, { after: '1' });
    await again.close();
    await (await factory.open({ path, createIfMissing: false })).close();
  });

  test.each([20, 200])('refuses for good when one bit of %i batches flips, and keeps the evidence', async (batches) => {
    await fill(batches);
    const [log] = await filesEndingIn('.log');
    await flipByte(log as string, Math.floor((await stat(log as string)).size / 2));
    const evidence = await readFile(log as string);
    for (const createIfMissing of [false, true, false]) {
      const error = await factory.open({ path, createIfMissing }).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(EngineOpenError);
      expect((error as EngineOpenError).message).toMatch(/sound records follow/);
      expect((error as EngineOpenError).hint).toMatch(/new store/);
    }
    expect(await readFile(log as string)).toEqual(evidence);
  });

  test('does not condemn a database in use when its log cannot be read consistently', async () => {
    const engine = await factory.open({ path, createIfMissing: true });
    for (let i = 0; i < 50; i++) {
      await put(engine, { [`k${i}`]: 'x'.repeat(500) });
    }
    // What another process would see of a log that changes while it reads: here, a flipped byte.
    const [log] = await filesEndingIn('.log');
    await flipByte(log as string, Math.floor((await stat(log as string)).size / 2));
    await expect(factory.open({ path, createIfMissing: false })).rejects.toThrow(/in use/);
    await flipByte(log as string, Math.floor((await stat(log as string)).size / 2));
    await engine.close();
    const again = await factory.open({ path, createIfMissing: false });
    expect(await text(again, 'k49')).toBeDefined();
    await again.close();
  });

  test('finds a gap in the batch numbers even when the text log says nothing', async () => {
    await fill(10);
    const raw = new Level<Uint8Array, Uint8Array>(path, { keyEncoding: 'view', valueEncoding: 'view' });
    // The ring record of batch 4 still says what an earlier lap of the ring wrote there: nothing.
    await raw.del(Uint8Array.of(0, 1, 0, 0, 4), { sync: true });
    await raw.close();
    for (let attempt = 0; attempt < 2; attempt++) {
      await expect(factory.open({ path, createIfMissing: false })).rejects.toThrow(
        /1 of the last 10 write batches are missing, the first of them number 4 of 10/,
      );
    }
  });

  test('completes a creation that a crash interrupted before any data file', async () => {
    const engine = await factory.open({ path, createIfMissing: true });
    await engine.close();
    for (const name of await readdir(path)) {
      if (name === 'CURRENT' || name.endsWith('.log') || name.endsWith('.ldb')) {
        await rm(join(path, name));
      }
    }
    await expect(factory.open({ path, createIfMissing: false })).rejects.toThrow(/holds no database/);
    const again = await factory.open({ path, createIfMissing: true });
    await put(again, { a: '1' });
    expect(await text(again, 'a')).toBe('1');
    await again.close();
  });
});
