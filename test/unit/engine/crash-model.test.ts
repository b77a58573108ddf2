import { describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { FULL_RANGE } from '../../../src/base/key-range.ts';
import { createMemoryEngineFactory, MemoryDisk, type DiskBehavior } from '../../../src/engine/index.ts';
import { EngineOpenError, EnginePoisonedError, type Engine } from '../../../src/env/engine.ts';
import { createRng } from '../../../src/env/rng.ts';
import { drainMicrotasks, ManualClock } from '../../support/manual-clock.ts';

const PATH = '/virtual';
const SEEDS: readonly number[] = Array.from({ length: 60 }, (_each, i) => i);

function bench(seed: number, behavior: Partial<DiskBehavior> = {}) {
  const clock = new ManualClock();
  const disk = new MemoryDisk(createRng(seed), behavior);
  const open = (createIfMissing = false): Promise<Engine> =>
    clock.settle(createMemoryEngineFactory(disk, clock).open({ path: PATH, createIfMissing }));
  return { clock, disk, open };
}

function put(engine: Engine, i: number, bytes = 10): Promise<void> {
  const batch = engine.createBatch();
  batch.put(utf8(`a${String(i).padStart(4, '0')}`), new Uint8Array(bytes).fill(i));
  batch.put(utf8(`b${String(i).padStart(4, '0')}`), new Uint8Array(bytes).fill(i));
  return engine.write(batch);
}

/** Numbers of the batches that are there; fails if half a batch is. */
async function present(clock: ManualClock, engine: Engine): Promise<number[]> {
  const numbersOf = async (prefix: string): Promise<number[]> => {
    const range = { start: utf8(prefix), end: utf8(`${prefix}~`) };
    const page = await clock.settle(engine.scan({ range, limit: 10_000 }));
    return page.entries.map(([key]) => Number(fromUtf8(key).replace(/^\D/, '')));
  };
  const [a, b] = [await numbersOf('a'), await numbersOf('b')];
  expect(a).toEqual(b);
  return a;
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_each, i) => i);

describe('MemoryDisk', () => {
  test.each(['kill', 'power-loss'] as const)('keeps every acknowledged batch through a %s', async (kind) => {
    let withUnacknowledged = 0;
    for (const seed of SEEDS) {
      const { clock, disk, open } = bench(seed, { segmentBytes: 100, earlyVisibleChance: 0.5 });
      const engine = await open(true);
      let acknowledged = 0;
      for (let i = 0; i < 12; i++) {
        void put(engine, i).then(() => acknowledged++);
        await drainMicrotasks();
        if (i % 2 === 0) {
          await clock.step();
        }
      }
      disk.crash(kind);
      await clock.runAll();
      const before = acknowledged;
      const again = await open();
      const found = await present(clock, again);
      expect(found).toEqual(upTo(found.length));
      expect(found.length).toBeGreaterThanOrEqual(before);
      withUnacknowledged += found.length > before ? 1 : 0;
    }
    // Both fates of a write in flight must occur, or the model would be kinder or harsher than a disk.
    expect(withUnacknowledged).toBeGreaterThan(0);
    expect(withUnacknowledged).toBeLessThan(SEEDS.length);
  });

  test('never settles calls of an engine whose disk crashed', async () => {
    const { clock, disk, open } = bench(1);
    const engine = await open(true);
    const settled: string[] = [];
    const track = (name: string, promise: Promise<unknown>): void => {
      promise.then(
        () => settled.push(name),
        () => settled.push(name),
      );
    };
    track('write', put(engine, 1));
    track('get', engine.get(utf8('a')));
    await drainMicrotasks();
    disk.crash('kill');
    track('late write', put(engine, 2));
    track('late get', engine.get(utf8('a')));
    track('late scan', engine.scan({ range: FULL_RANGE, limit: 1 }));
    await clock.runAll();
    expect(settled).toEqual([]);
    const again = await open();
    expect((await present(clock, again)).includes(2)).toBe(false);
  });

  test('fails a write, poisons the engine, and acknowledged batches are there after reopening', async () => {
    for (const fault of ['write-error', 'no-space', 'sync-error'] as const) {
      const survivors = new Set<number>();
      for (const seed of SEEDS) {
        const { clock, disk, open } = bench(seed);
        const engine = await open(true);
        await clock.settle(put(engine, 0));
        let poisoned = 0;
        engine.onPoisoned(() => poisoned++);
        disk.failNextWrite(fault);
        const failing = put(engine, 1);
        await expect(clock.settle(failing)).rejects.toBeInstanceOf(EnginePoisonedError);
        await expect(put(engine, 2)).rejects.toBeInstanceOf(EnginePoisonedError);
        await expect(engine.get(utf8('a0000'))).rejects.toBeInstanceOf(EnginePoisonedError);
        expect(() => engine.getSync(utf8('a0000'))).toThrow(EnginePoisonedError);
        expect(poisoned).toBe(1);
        await clock.settle(engine.close());
        expect(engine.health().type).toBe('poisoned');
        const again = await open();
        const found = await present(clock, again);
        expect([[0], [0, 1]]).toContainEqual(found);
        survivors.add(found.length);
      }
      // A failed sync leaves the batch in limbo; a failed write never leaves it.
      expect([...survivors].toSorted((a, b) => a - b)).toEqual(fault === 'sync-error' ? [1, 2] : [1]);
    }
  });

  test('a stuck write never completes and holds back those behind it', async () => {
    const { clock, disk, open } = bench(3);
    const engine = await open(true);
    disk.failNextWrite('stuck');
    let settled = 0;
    void put(engine, 0).finally(() => settled++);
    await drainMicrotasks();
    void put(engine, 1).finally(() => settled++);
    await clock.runAll();
    expect(settled).toBe(0);
  });

  test('a disk that ignores syncs loses writes at power loss, and a hole is found at open', async () => {
    let holes = 0;
    let losses = 0;
    for (const seed of SEEDS) {
      const { clock, disk, open } = bench(seed, { isSyncIgnored: true, segmentBytes: 100 });
      const engine = await open(true);
      for (let i = 0; i < 20; i++) {
        await clock.settle(put(engine, i));
      }
      disk.crash('power-loss');
      try {
        const found = await present(clock, await open());
        expect(found).toEqual(upTo(found.length));
        losses += found.length < 20 ? 1 : 0;
      } catch (error) {
        expect(error).toBeInstanceOf(EngineOpenError);
        expect(disk.paths).toEqual([PATH]);
        holes++;
      }
    }
    expect(losses).toBeGreaterThan(0);
    expect(holes).toBeGreaterThan(0);
  });

  test('refuses a damaged log every time it is opened', async () => {
    for (const seed of SEEDS) {
      const { clock, disk, open } = bench(seed);
      const engine = await open(true);
      for (let i = 0; i < 10; i++) {
        await clock.settle(put(engine, i));
      }
      expect(disk.damageLog(PATH)).toBeGreaterThan(0);
      await clock.settle(engine.close());
      await expect(open()).rejects.toThrow(/lost acknowledged writes/);
      await expect(open()).rejects.toThrow(/lost acknowledged writes/);
    }
  });

  test('damages one value only, and overwriting heals it', async () => {
    const { clock, disk, open } = bench(5);
    let engine = await open(true);
    await clock.settle(put(engine, 1));
    expect(disk.database(PATH)?.damageValue(utf8('absent'))).toBe(false);
    expect(disk.database(PATH)?.damageValue(utf8('a0001'))).toBe(true);
    for (let round = 0; round < 2; round++) {
      await expect(clock.settle(engine.get(utf8('a0001')))).rejects.toThrow(/checksum/);
      expect(engine.getSync(utf8('b0001'))).toEqual(new Uint8Array(10).fill(1));
      await clock.settle(engine.close());
      engine = await open();
    }
    await clock.settle(put(engine, 1));
    expect(engine.getSync(utf8('a0001'))).toEqual(new Uint8Array(10).fill(1));
  });

  test('rolls back to an image and forgets everything at a wipe', async () => {
    const { clock, disk, open } = bench(6);
    const engine = await open(true);
    await clock.settle(put(engine, 0));
    const image = disk.saveImage();
    await clock.settle(put(engine, 1));
    disk.crash('power-loss');
    expect(await present(clock, await open())).toEqual([0, 1]);
    disk.crash('kill');
    disk.restoreImage(image);
    expect(await present(clock, await open())).toEqual([0]);
    disk.crash('kill');
    disk.restoreImage(image);
    expect(await present(clock, await open())).toEqual([0]);
    disk.wipe();
    await expect(open()).rejects.toBeInstanceOf(EngineOpenError);
    expect(await present(clock, await open(true))).toEqual([]);
  });

  test('gives the same run for the same seed', async () => {
    const run = async (seed: number): Promise<string> => {
      const { clock, disk, open } = bench(seed, { slowChance: 0.2, segmentBytes: 100 });
      const engine = await open(true);
      for (let i = 0; i < 10; i++) {
        void put(engine, i);
        await clock.step();
      }
      disk.crash('power-loss');
      return JSON.stringify([clock.monoMs(), await present(clock, await open())]);
    };
    for (const seed of SEEDS) {
      expect(await run(seed)).toBe(await run(seed));
    }
  });
});
