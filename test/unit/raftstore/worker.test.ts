import { describe, expect, it } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import type { KeyRange } from '../../../src/base/key-range.ts';
import { encodeDataValue } from '../../../src/codec/data-value.ts';
import { dataKey, pendingCleanRange } from '../../../src/engine/keyspace.ts';
import type { Region } from '../../../src/meta/region.ts';
import { JobQueue } from '../../../src/raftstore/worker/job-queue.ts';
import { SPLIT_KEYS_MAX } from '../../../src/raftstore/worker/split-check.ts';
import { TtlSweeper, type ExpiredKey } from '../../../src/raftstore/worker/ttl-sweep.ts';
import { sketchRegion, StoreHarness } from '../../support/store-harness.ts';

const range = (start: string, end: string): KeyRange => ({ start: utf8(start), end: utf8(end) });
const key = (i: number): string => `k${String(i).padStart(4, '0')}`;

async function fill(s: StoreHarness, keys: readonly string[], value = 'v', expireAtSeconds = 0): Promise<void> {
  const batch = s.engine.createBatch();
  for (const each of keys) {
    batch.put(dataKey(utf8(each)), encodeDataValue(utf8(value), expireAtSeconds));
  }
  await s.wait(s.engine.write(batch));
}

const rest = (s: StoreHarness, ms = 10_000): Promise<void> => {
  const until = s.clock.monoMs() + ms;
  return s.run(() => s.clock.monoMs() > until);
};

const tasksOnDisk = async (s: StoreHarness): Promise<number> =>
  (await s.wait(s.engine.scan({ range: pendingCleanRange(), limit: 100 }))).entries.length;

describe('measuring a region', () => {
  const region = sketchRegion({ id: 1, start: 'k', end: 'l' });

  async function measure(
    config: Parameters<typeof StoreHarness.open>[0],
    keys: readonly string[],
    forced = false,
    of: Region = region,
    value = 'v'.repeat(94),
  ): Promise<{ readonly sizeBytes: number; readonly keys: number; readonly splitKeys: readonly string[] }> {
    const s = await StoreHarness.open(config);
    s.own(of);
    await fill(s, ['a', ...keys, 'z'], value);
    s.workers.checkSplit(of, forced);
    await s.run();
    const [message] = s.messages(of.id, 'split-checked');
    expect(message).toMatchObject({ epoch: of.epoch, forced });
    const { sizeBytes = 0, keys: count = 0, splitKeys = [] } = message ?? {};
    return { sizeBytes, keys: count, splitKeys: splitKeys.map(fromUtf8) };
  }

  // A pair is 1 + 5 bytes of key and 1 + 94 bytes of value, 101 in all.
  const keys = (count: number): string[] => Array.from({ length: count }, (_, i) => key(i));
  const limits = { regionMaxSizeBytes: 3000, regionSplitSizeBytes: 1010, regionMaxKeys: 1000, regionSplitKeys: 500 };

  it('counts the region’s own keys and bytes and leaves a small one whole', async () => {
    expect(await measure(limits, keys(29))).toEqual({ sizeBytes: 29 * 101, keys: 29, splitKeys: [] });
    expect(await measure(limits, [])).toEqual({ sizeBytes: 0, keys: 0, splitKeys: [] });
  });

  it('splits a large one into parts of about the wanted size', async () => {
    expect((await measure(limits, keys(30))).splitKeys).toEqual([key(10), key(20)]);
    expect((await measure(limits, keys(35))).splitKeys).toEqual([key(10), key(20), key(30)]);
  });

  it('leaves a small rest with its neighbour', async () => {
    expect((await measure(limits, keys(32))).splitKeys).toEqual([key(10), key(20)]);
  });

  it('splits by the number of keys', async () => {
    const byKeys = { regionMaxKeys: 30, regionSplitKeys: 20 };
    expect((await measure(byKeys, keys(30))).splitKeys).toEqual([]);
    expect((await measure(byKeys, keys(31))).splitKeys).toEqual([key(20)]);
    expect((await measure(byKeys, keys(65))).splitKeys).toEqual([key(20), key(40)]);
  });

  it('names a bounded number of keys', async () => {
    const { splitKeys } = await measure({ ...limits, regionMaxSizeBytes: 1010 }, keys(300));
    expect(splitKeys).toHaveLength(SPLIT_KEYS_MAX);
    expect(splitKeys[0]).toBe(key(10));
  });

  it('names the middle of any region with two keys when it is told to', async () => {
    expect((await measure({}, keys(100), true)).splitKeys).toEqual([key(50)]);
    expect((await measure({}, keys(2), true)).splitKeys).toEqual([key(1)]);
    expect((await measure({}, keys(1), true)).splitKeys).toEqual([]);
    expect((await measure({}, [], true)).splitKeys).toEqual([]);
  });

  it('finds about the middle of many keys', async () => {
    const [middle] = (await measure({}, keys(5000), true)).splitKeys;
    expect(Math.abs(Number(middle?.slice(1)) - 2500)).toBeLessThan(50);
  });

  it('never names the start of the region', async () => {
    const of = sketchRegion({ id: 1, start: key(0) });
    expect(
      (await measure({ ...limits, regionMaxSizeBytes: 50, regionSplitSizeBytes: 50 }, keys(3), false, of)).splitKeys,
    ).not.toContain(key(0));
  });
});

describe('cleaning ranges', () => {
  async function clean(s: StoreHarness, what: KeyRange): Promise<number> {
    const batch = s.engine.createBatch();
    const task = s.workers.addCleanTask(batch, what);
    await s.wait(s.engine.write(batch));
    s.workers.startCleaning(task);
    return task;
  }
  const letters = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];

  it('deletes the range in bounded batches and says when it is done', async () => {
    const s = await StoreHarness.open({ cleanBatchKeys: 2 });
    await fill(s, letters);
    const before = s.writes;
    await clean(s, range('b', 'g'));
    expect(s.workers.isCleaning(range('f', 'x'))).toBe(true);
    expect(s.workers.isCleaning(range('g', 'x'))).toBe(false);
    await rest(s);
    expect(await s.keys()).toEqual(['a', 'g', 'h']);
    // The note, three batches of keys, the end of the task.
    expect(s.writes).toBe(before + 5);
    expect(s.workers.isCleaning(range('f', 'x'))).toBe(false);
    expect(s.toStores).toEqual([{ type: 'range-cleaned', range: range('b', 'g') }]);
    expect(await tasksOnDisk(s)).toBe(0);
  });

  it('cleans to the end of the key space and does not leave the room of user data', async () => {
    const s = await StoreHarness.open({ cleanBatchKeys: 2 });
    await s.seed(sketchRegion({ id: 1, start: 'a', end: 'c' }));
    await fill(s, letters);
    await clean(s, range('d', ''));
    await rest(s);
    expect(await s.keys()).toEqual(['a', 'b', 'c']);
    expect(s.stateOf(1)).toBeDefined();
  });

  it('does not take the number of a task that is still on disk', async () => {
    const s = await StoreHarness.open();
    await fill(s, letters);
    const first = s.engine.createBatch();
    s.workers.addCleanTask(first, range('a', 'c'));
    await s.wait(s.engine.write(first));
    const again = await s.restart();
    const second = again.engine.createBatch();
    again.workers.startCleaning(again.workers.addCleanTask(second, range('c', 'e')));
    await again.wait(again.engine.write(second));
    expect(await tasksOnDisk(again)).toBe(2);
    again.own(sketchRegion({ id: 1, start: 'e' }));
    await again.wait(again.workers.start());
    await rest(again);
    expect(await again.keys()).toEqual(['e', 'f', 'g', 'h']);
  });

  it('does not start before it is told to', async () => {
    const s = await StoreHarness.open();
    await fill(s, letters);
    const batch = s.engine.createBatch();
    s.workers.addCleanTask(batch, range('a', 'd'));
    await s.wait(s.engine.write(batch));
    await rest(s);
    expect(await s.keys()).toEqual(letters);
    expect(s.workers.isCleaning(range('a', 'b'))).toBe(true);
  });

  it('never touches live regions', async () => {
    const s = await StoreHarness.open({ cleanBatchKeys: 2 });
    s.own(sketchRegion({ id: 1, start: 'c', end: 'e' }));
    s.own(sketchRegion({ id: 2, start: 'g', end: '' }));
    await fill(s, letters);
    await clean(s, range('', ''));
    await rest(s, 60_000);
    expect(await s.keys()).toEqual(['c', 'd', 'g', 'h']);
    expect(await tasksOnDisk(s)).toBe(0);
  });

  it('waits for the region that is just giving the range up', async () => {
    const s = await StoreHarness.open();
    const leaving = sketchRegion({ id: 1, start: 'a', end: 'e' });
    s.own(leaving);
    await fill(s, letters);
    await clean(s, range('a', 'e'));
    await rest(s, 1000);
    expect(await s.keys()).toEqual(letters);
    s.meta.removeRange(leaving);
    await rest(s, 1000);
    expect(await s.keys()).toEqual(['e', 'f', 'g', 'h']);
  });

  it('spares a region that moves in while keys are being read', async () => {
    const s = await StoreHarness.open({ cleanBatchKeys: 100 });
    await fill(s, letters);
    s.disk.setBehavior({ readDelayMs: [500, 500] });
    await clean(s, range('a', 'h'));
    s.clock.setTimer(300, () => s.own(sketchRegion({ id: 1, start: 'c', end: 'f' })), 'moves in');
    await rest(s, 60_000);
    expect(await s.keys()).toEqual(['c', 'd', 'e', 'h']);
  });

  it.each(['afterWrite', 'duringWrite'] as const)('goes on after a crash %s at every batch', async (moment) => {
    let crashes = 0;
    for (let at = 1, hasCrashed = true; hasCrashed; at++) {
      const s = await StoreHarness.open({ cleanBatchKeys: 2 });
      await fill(s, letters);
      const batch = s.engine.createBatch();
      const task = s.workers.addCleanTask(batch, range('b', 'g'));
      await s.wait(s.engine.write(batch));
      if (moment === 'afterWrite') {
        s.crashAtWrite = s.writes + at;
      } else {
        s.crashAtSubmission = s.submissions + at;
      }
      s.workers.startCleaning(task);
      await rest(s);
      hasCrashed = s.isCrashed;
      crashes += hasCrashed ? 1 : 0;
      const again = await s.restart();
      again.own(sketchRegion({ id: 1, end: 'b' }));
      again.own(sketchRegion({ id: 2, start: 'g' }));
      await again.wait(again.workers.start());
      await rest(again);
      expect(await again.keys()).toEqual(['a', 'g', 'h']);
      expect(await tasksOnDisk(again)).toBe(0);
      // A new task does not take the number of an old one.
      await clean(again, range('x', 'y'));
      await rest(again);
      expect(await tasksOnDisk(again)).toBe(0);
    }
    expect(crashes).toBe(4);
  });

  it('finds data outside every region at start', async () => {
    const s = await StoreHarness.open({ cleanBatchKeys: 2 });
    await fill(s, letters);
    s.own(sketchRegion({ id: 1, start: 'b', end: 'c' }));
    s.own(sketchRegion({ id: 2, start: 'c', end: 'e' }));
    s.own(sketchRegion({ id: 3, start: 'f', end: 'g' }));
    await s.wait(s.workers.start());
    await rest(s);
    expect(await s.keys()).toEqual(['b', 'c', 'd', 'f']);
    expect(s.toStores.map((m) => m.type === 'range-cleaned' && fromUtf8(m.range.start))).toEqual(['', 'e', 'g']);
  });

  it('adds no tasks for empty gaps', async () => {
    const s = await StoreHarness.open();
    await fill(s, ['b']);
    s.own(sketchRegion({ id: 1, start: 'b', end: 'c' }));
    const before = s.writes;
    await s.wait(s.workers.start());
    await rest(s);
    expect(s.writes).toBe(before);
  });

  it('stops in the middle and goes on at the next start', async () => {
    const s = await StoreHarness.open({ cleanBatchKeys: 1 });
    await fill(s, letters);
    s.own(sketchRegion({ id: 1, end: 'b' }));
    const before = s.writes;
    await clean(s, range('b', ''));
    await s.run(() => s.writes > before + 2);
    await s.wait(s.workers.stop());
    const left = (await s.keys()).length;
    expect(left).toBeGreaterThan(1);
    await rest(s);
    expect((await s.keys()).length).toBe(left);
    const again = await s.restart();
    again.own(sketchRegion({ id: 1, end: 'b' }));
    await again.wait(again.workers.start());
    await rest(again);
    expect(await again.keys()).toEqual(['a']);
  });
});

describe('sweeping expired values', () => {
  const PASS_MS = 1000;

  async function sweep(
    s: StoreHarness,
    leaders: readonly number[],
  ): Promise<{
    readonly found: { readonly region: number; readonly keys: readonly ExpiredKey[] }[];
    readonly sweeper: TtlSweeper;
  }> {
    const found: { region: number; keys: readonly ExpiredKey[] }[] = [];
    const sweeper = new TtlSweeper(s.ctx, {
      passIntervalMs: PASS_MS,
      pageIntervalMs: 10,
      pageKeys: 2,
      isLeader: (id) => leaders.includes(id),
      onExpired: (region, keys) => found.push({ region: region.id, keys }),
    });
    sweeper.start();
    await rest(s, PASS_MS + 500);
    return { found, sweeper };
  }

  it('reports what has expired in the regions led here, page by page, pass after pass', async () => {
    const s = await StoreHarness.open();
    const now = Math.floor(s.clock.wallMs() / 1000);
    s.own(sketchRegion({ id: 1, start: 'b', end: 'f' }));
    s.own(sketchRegion({ id: 2, start: 'f', end: 'h' }));
    s.own(sketchRegion({ id: 3, start: 'h' }));
    await fill(s, ['a', 'b', 'd', 'e', 'g', 'h', 'k'], 'v', now - 5);
    await fill(s, ['c', 'i'], 'v', now + 1000);
    await fill(s, ['j'], 'v');
    const { found, sweeper } = await sweep(s, [1, 3]);
    const flat = found.flatMap(({ region, keys }) => keys.map((k) => `${region}${fromUtf8(k.key)}`));
    expect(flat).toEqual(['1b', '1d', '1e', '3h', '3k']);
    expect(Math.max(...found.map(({ keys }) => keys.length))).toBe(2);
    expect(found[0]?.keys[0]?.expireAtSeconds).toBe(now - 5);
    await s.run(() => found.flatMap(({ keys }) => keys).length >= 10);
    await sweeper.stop();
    await rest(s, 5 * PASS_MS);
    expect(found.flatMap(({ keys }) => keys)).toHaveLength(10);
  });

  it('does nothing on a store without leaders', async () => {
    const s = await StoreHarness.open();
    s.own(sketchRegion({ id: 1 }));
    await fill(s, ['a'], 'v', 1);
    const { found, sweeper } = await sweep(s, []);
    expect(found).toEqual([]);
    await sweeper.stop();
  });
});

describe('a job queue', () => {
  const ctx = {
    abort: (reason: string): never => {
      throw new Error(reason);
    },
  };

  it('runs one job at a time in order', async () => {
    const queue = new JobQueue(ctx, 'test');
    const log: string[] = [];
    for (const name of ['a', 'b', 'c']) {
      queue.push(async () => {
        log.push(`${name} begins`);
        await Promise.resolve();
        log.push(`${name} ends`);
      });
    }
    expect(queue.length).toBeGreaterThan(0);
    await queue.idle();
    expect(log).toEqual(['a begins', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
    expect(queue.length).toBe(0);
  });

  it('ends the running job at its next checkpoint and forgets the rest when it stops', async () => {
    const queue = new JobQueue(ctx, 'test');
    let steps = 0;
    let others = 0;
    queue.push(async () => {
      for (;;) {
        queue.checkpoint();
        steps++;
        await Promise.resolve();
      }
    });
    queue.push(async () => {
      others++;
    });
    await queue.stop();
    const seen = steps;
    await Promise.resolve();
    expect(steps).toBe(seen);
    expect(others).toBe(0);
    queue.push(async () => {
      others++;
    });
    await queue.idle();
    expect(others).toBe(0);
  });

  it('stops the store over a failed job', async () => {
    let reason = '';
    const failing = new JobQueue(
      {
        abort: (text: string): never => {
          reason = text;
          throw new Error(text);
        },
      },
      'test jobs',
    );
    let others = 0;
    failing.push(() => Promise.reject(new Error('broken')));
    failing.push(async () => {
      others++;
    });
    await failing.idle();
    expect(reason).toContain('test jobs');
    expect(others).toBe(0);
  });
});
