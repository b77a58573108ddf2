import { describe, expect, test } from 'vitest';
import { connectWith } from '../../../src/client/connect.ts';
import type { Braid } from '../../../src/client/kv.ts';
import { json, tuple, u64be, utf8Codec } from '../../../src/client/codecs.ts';
import { all, prefix, range } from '../../../src/client/ranges.ts';
import { FakeCluster } from './fake-cluster.ts';

const text = (bytes: Uint8Array | undefined): string | undefined =>
  bytes === undefined ? undefined : Buffer.from(bytes).toString();

async function open(cluster: FakeCluster): Promise<Braid> {
  return cluster.clock.drive(connectWith(cluster.env, { pd: 'pd:1' }));
}

describe('point operations', () => {
  test('a value that was put is read, deleted and then absent', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    const run = async (): Promise<void> => {
      expect(await db.put('k', 'v')).toEqual({ written: true });
      expect(text(await db.get('k'))).toBe('v');
      expect(await db.has('k')).toBe(true);
      await db.delete('k');
      expect(await db.get('k')).toBeUndefined();
      expect(await db.has('k')).toBe(false);
    };
    await cluster.clock.drive(run());
  });

  test('an empty value differs from no value', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.put('k', ''));
    expect(await cluster.clock.drive(db.get('k'))).toEqual(new Uint8Array(0));
  });

  test('the empty key is a key', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.put('', 'v'));
    expect(text(await cluster.clock.drive(db.get('')))).toBe('v');
  });

  test('ifAbsent writes only once', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    expect(await cluster.clock.drive(db.put('k', '1', { ifAbsent: true }))).toEqual({ written: true });
    expect(await cluster.clock.drive(db.put('k', '2', { ifAbsent: true }))).toEqual({ written: false });
    expect(cluster.get('k')).toBe('1');
  });

  test('compareAndSwap swaps on a match, deletes on request and reports what was there', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    const { clock } = cluster;
    expect(await clock.drive(db.compareAndSwap('k', { expected: undefined, value: '1' }))).toEqual({
      swapped: true,
      previous: undefined,
    });
    const refused = await clock.drive(db.compareAndSwap('k', { expected: '0', value: '2' }));
    expect([refused.swapped, text(refused.previous)]).toEqual([false, '1']);
    const deleted = await clock.drive(db.compareAndSwap('k', { expected: '1', value: undefined }));
    expect(deleted.swapped).toBe(true);
    expect(cluster.get('k')).toBeUndefined();
  });

  test('a time to live is rounded up to seconds and reported in milliseconds', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    const { clock } = cluster;
    await clock.drive(db.put('short', 'v', { ttlMs: 1500 }));
    await clock.drive(db.put('long', 'v'));
    expect(await clock.drive(db.ttl('short'))).toBe(2000);
    expect(await clock.drive(db.ttl('long'))).toBe(Infinity);
    expect(await clock.drive(db.ttl('none'))).toBeUndefined();
  });

  test('bytes passed in may be changed at once after the call', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    const key = Buffer.from('key');
    const value = Buffer.from('value');
    const put = db.put(key, value);
    key.fill(0);
    value.fill(0);
    await cluster.clock.drive(put);
    expect(cluster.get('key')).toBe('value');
  });

  test('returned bytes are plain arrays of their own', async () => {
    const cluster = new FakeCluster();
    cluster.put('k', 'v'.repeat(100));
    const db = await open(cluster);
    const value = (await cluster.clock.drive(db.get('k'))) as Uint8Array;
    expect(Object.getPrototypeOf(value)).toBe(Uint8Array.prototype);
  });
});

describe('limits', () => {
  test('a key that is too long is refused without asking the cluster', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await expect(db.get('x'.repeat(8193))).rejects.toMatchObject({
      code: 'InvalidArgument',
      details: { sizeBytes: 8193, limitBytes: 8192 },
    });
    expect(cluster.received).toEqual([]);
  });

  test('a key of exactly the limit is accepted', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await expect(cluster.clock.drive(db.put('x'.repeat(8192), 'v'))).resolves.toEqual({ written: true });
  });

  test('key and value together above the limit are refused with both sizes', async () => {
    const db = await open(new FakeCluster());
    await expect(db.put('k', new Uint8Array(8 * 1024 * 1024))).rejects.toMatchObject({
      code: 'EntryTooLarge',
      outcome: 'not-applied',
      details: { sizeBytes: 8 * 1024 * 1024 + 1, limitBytes: 8 * 1024 * 1024 },
    });
  });

  test('an unknown option names the closest valid one', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await expect(db.get('k', { timeoutMS: 5 } as object)).rejects.toMatchObject({
      code: 'InvalidArgument',
      hint: 'did you mean timeoutMs?',
    });
    await expect(connectWith(cluster.env, { pd: 'pd:1', queueMaximum: 1 } as never)).rejects.toMatchObject({
      hint: 'did you mean queueMax?',
    });
    expect(() => db.scan(all(), { revers: true } as object)).toThrow(
      expect.objectContaining({ hint: 'did you mean reverse?' }),
    );
  });

  test.each([
    ['put with a negative time to live', (db: Braid) => db.put('k', 'v', { ttlMs: -1 })],
    ['a timeout of zero', (db: Braid) => db.get('k', { timeoutMs: 0 })],
    ['a read mode that does not exist', (db: Braid) => db.get('k', { read: 'stale' as 'leader' })],
    ['a number as key', (db: Braid) => db.get(5 as unknown as string)],
    ['deleteRange of a reversed range', (db: Braid) => db.deleteRange(range('b', 'a'))],
    ['deleteRange of an empty range', (db: Braid) => db.deleteRange(range('a', 'a'))],
    ['deleteRange without a range', (db: Braid) => db.deleteRange('a' as never)],
    ['writeMany with an unknown operation', (db: Braid) => db.writeMany([{ type: 'inc', key: 'k' } as never])],
    ['writeMany atomic across regions', (db: Braid) => db.writeMany([], { atomic: 'all' as 'none' })],
  ])('%s is refused as an invalid argument', async (_, call) => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await expect(call(db)).rejects.toMatchObject({ code: 'InvalidArgument' });
    expect(cluster.received).toEqual([]);
  });

  test('a scan of a reversed range is refused at once', async () => {
    const db = await open(new FakeCluster());
    expect(() => db.scan(range('b', 'a'))).toThrow(/the range \[b, a\) is empty/);
  });

  test('one call more than the queue holds is refused', async () => {
    const cluster = new FakeCluster();
    const db = await cluster.clock.drive(connectWith(cluster.env, { pd: 'pd:1', queueMax: 2 }));
    const first = [db.put('a', '1'), db.put('b', '2')];
    await expect(db.put('c', '3')).rejects.toMatchObject({ code: 'QueueFull', outcome: 'not-applied' });
    await cluster.clock.drive(Promise.all(first));
    await expect(cluster.clock.drive(db.put('c', '3'))).resolves.toEqual({ written: true });
  });
});

describe('batches', () => {
  test('commands of one turn leave in one message', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('warm'));
    cluster.batchSizes.length = 0;
    await cluster.clock.drive(Promise.all(Array.from({ length: 100 }, (_, i) => db.put(`k${i}`, 'v'))));
    expect(cluster.batchSizes).toEqual([100]);
  });

  test('a message holds at most 128 commands', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('warm'));
    cluster.batchSizes.length = 0;
    await cluster.clock.drive(Promise.all(Array.from({ length: 300 }, (_, i) => db.get(`k${i}`))));
    expect(cluster.batchSizes).toEqual([128, 128, 44]);
  });

  test('no more commands than allowed are in flight at one store', async () => {
    const cluster = new FakeCluster();
    const db = await cluster.clock.drive(connectWith(cluster.env, { pd: 'pd:1', maxInFlightPerStore: 10 }));
    await cluster.clock.drive(Promise.all(Array.from({ length: 35 }, (_, i) => db.get(`k${i}`))));
    expect(cluster.batchSizes).toEqual([10, 10, 10, 5]);
  });

  test('getMany answers in the order asked, with holes and repeated keys, over regions', async () => {
    const cluster = new FakeCluster({ splits: ['g', 'p'] });
    for (const key of ['a', 'h', 'z']) {
      cluster.put(key, key.toUpperCase());
    }
    const db = await open(cluster);
    const values = await cluster.clock.drive(db.getMany(['z', 'a', 'none', 'h', 'a']));
    expect(values.map(text)).toEqual(['Z', 'A', undefined, 'H', 'A']);
    expect(values[1]).not.toBe(values[4]);
    expect(cluster.receivedKinds('RawBatchGet')).toHaveLength(3);
  });

  test('getMany of nothing asks nobody', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    expect(await cluster.clock.drive(db.getMany([]))).toEqual([]);
    expect(cluster.received).toEqual([]);
  });

  test('writeMany sends one command of each kind to each region', async () => {
    const cluster = new FakeCluster({ splits: ['m'] });
    cluster.put('c', 'old');
    const db = await open(cluster);
    const results = await cluster.clock.drive(
      db.writeMany([
        { type: 'put', key: 'z', value: '1' },
        { type: 'delete', key: 'c' },
        { type: 'put', key: 'a', value: '2', ttlMs: 1000 },
        { type: 'put', key: 'b', value: '3' },
      ]),
    );
    expect(results).toEqual(Array.from({ length: 4 }, () => ({ type: 'written' })));
    expect(cluster.keys()).toEqual(['a', 'b', 'z']);
    expect(cluster.receivedKinds('RawBatchPut')).toHaveLength(2);
    expect(cluster.receivedKinds('RawBatchDelete')).toHaveLength(1);
    expect(await cluster.clock.drive(db.ttl('a'))).toBe(1000);
    expect(await cluster.clock.drive(db.ttl('b'))).toBe(Infinity);
  });

  test('of several writes to one key the last one counts, even when it is a delete', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(
      db.writeMany([
        { type: 'put', key: 'a', value: '1' },
        { type: 'put', key: 'a', value: '2' },
        { type: 'put', key: 'b', value: '1' },
        { type: 'delete', key: 'b' },
      ]),
    );
    expect(cluster.get('a')).toBe('2');
    expect(cluster.get('b')).toBeUndefined();
  });

  test('an atomic batch of puts and deletes is refused', async () => {
    const db = await open(new FakeCluster());
    const ops = [
      { type: 'put', key: 'a', value: '1' },
      { type: 'delete', key: 'b' },
    ] as const;
    await expect(db.writeMany(ops, { atomic: 'region' })).rejects.toMatchObject({ code: 'InvalidArgument' });
  });

  test('an atomic batch goes to a region in one command whatever its size, and is refused above the limit', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    const value = new Uint8Array(1024 * 1024);
    const ops = (count: number) =>
      Array.from({ length: count }, (_, i) => ({ type: 'put', key: `k${i}`, value }) as const);
    await cluster.clock.drive(db.writeMany(ops(7), { atomic: 'region' }));
    expect(cluster.receivedKinds('RawBatchPut')).toHaveLength(1);
    const results = await cluster.clock.drive(db.writeMany(ops(9), { atomic: 'region' }));
    expect(results[0]).toMatchObject({ type: 'failed', error: { code: 'EntryTooLarge', outcome: 'not-applied' } });
    expect(cluster.receivedKinds('RawBatchPut')).toHaveLength(1);
  });

  test('writes of a region that fails are reported one by one, the others are done', async () => {
    const cluster = new FakeCluster({ splits: ['m'] });
    const left = cluster.regionOf('a').region.id;
    const db = await open(cluster);
    cluster.interfere = ({ regionId }) => (regionId === left ? { error: 'no' } : 'serve');
    const results = await cluster.clock.drive(
      db.writeMany([
        { type: 'put', key: 'a', value: '1' },
        { type: 'put', key: 'z', value: '1' },
      ]),
    );
    expect(results).toMatchObject([{ type: 'failed', error: { code: 'ServerRefused' } }, { type: 'written' }]);
  });
});

describe('views', () => {
  test('sub puts its prefix before keys and takes it off results', async () => {
    const cluster = new FakeCluster();
    cluster.put('other', 'x');
    const db = await open(cluster);
    const users = db.sub('users/').sub('eu/');
    await cluster.clock.drive(users.put('ann', '1'));
    expect(cluster.get('users/eu/ann')).toBe('1');
    const entries = await cluster.clock.drive(users.scan(all()).toArray());
    expect(entries.map(({ key }) => text(key))).toEqual(['ann']);
    await cluster.clock.drive(users.deleteRange(all()));
    expect(cluster.keys()).toEqual(['other']);
  });

  test('the prefix counts for the length of keys', async () => {
    const db = await open(new FakeCluster());
    await expect(db.sub('p').get('x'.repeat(8192))).rejects.toMatchObject({ hint: 'the prefix of the view counts' });
  });

  test('codecs give keys and values types in every call', async () => {
    const cluster = new FakeCluster();
    const db = (await open(cluster)).withCodec({ key: tuple(utf8Codec, u64be), value: json<{ n: number }>() });
    const { clock } = cluster;
    await clock.drive(db.put(['a', 2n], { n: 2 }));
    await clock.drive(db.put(['a', 10n], { n: 10 }));
    expect(await clock.drive(db.get(['a', 2n]))).toEqual({ n: 2 });
    expect(
      await clock.drive(
        db.getMany([
          ['a', 10n],
          ['b', 1n],
        ]),
      ),
    ).toEqual([{ n: 10 }, undefined]);
    expect(await clock.drive(db.compareAndSwap(['a', 2n], { expected: { n: 2 }, value: { n: 3 } }))).toEqual({
      swapped: true,
      previous: { n: 2 },
    });
    const entries = await clock.drive(db.scan(prefix(tuple(utf8Codec, u64be).prefix('a'))).toArray());
    expect(entries).toEqual([
      { key: ['a', 2n], value: { n: 3 } },
      { key: ['a', 10n], value: { n: 10 } },
    ]);
  });

  test('a value that the codec cannot decode rejects the call', async () => {
    const cluster = new FakeCluster();
    cluster.put('k', '{broken');
    const db = (await open(cluster)).withCodec({ value: json() });
    await expect(cluster.clock.drive(db.get('k'))).rejects.toMatchObject({ code: 'Codec' });
  });

  test('with changes the defaults of its view only', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = () => 'ignore';
    await expect(cluster.clock.drive(db.with({ timeoutMs: 50 }).get('k'))).rejects.toThrow('50 ms');
    await expect(cluster.clock.drive(db.get('k'))).rejects.toThrow('5000 ms');
  });
});

describe('deleteRange', () => {
  test('it goes region by region and reports progress', async () => {
    const cluster = new FakeCluster({ splits: ['g', 'p'] });
    for (const key of ['a', 'b', 'h', 'q', 'z']) {
      cluster.put(key, 'v');
    }
    const db = await open(cluster);
    const progress: [number, string | undefined][] = [];
    const done = await cluster.clock.drive(
      db.deleteRange(range('b', 'r'), { onProgress: (p) => progress.push([p.regionsDone, text(p.doneBelow)]) }),
    );
    expect(done).toEqual({ regionsDone: 3 });
    expect(progress).toEqual([
      [1, 'g'],
      [2, 'p'],
      [3, undefined],
    ]);
    expect(cluster.keys()).toEqual(['a', 'z']);
  });

  test('it stops between regions when its signal aborts', async () => {
    const cluster = new FakeCluster({ splits: ['g', 'p'] });
    const db = await open(cluster);
    const abort = new AbortController();
    const running = db.deleteRange(all(), { signal: abort.signal, onProgress: () => abort.abort(new Error('enough')) });
    await expect(cluster.clock.drive(running)).rejects.toMatchObject({ code: 'Aborted', outcome: 'not-applied' });
    expect(cluster.receivedKinds('RawDeleteRange')).toHaveLength(1);
  });

  test('a merge in between does not leave the rest undone', async () => {
    const cluster = new FakeCluster({ splits: ['g', 'p'] });
    for (const key of ['a', 'h', 'q']) {
      cluster.put(key, 'v');
    }
    const db = await open(cluster);
    const running = db.deleteRange(all(), {
      onProgress: ({ regionsDone }) => {
        if (regionsDone === 1) {
          cluster.mergeAt('g');
          cluster.split('c');
        }
      },
    });
    await cluster.clock.drive(running);
    expect(cluster.keys()).toEqual([]);
  });
});

describe('routing information', () => {
  test('locate and regions tell range, epoch and leader', async () => {
    const cluster = new FakeCluster({ splits: ['m'] });
    const db = await open(cluster);
    const found = await cluster.clock.drive(db.locate('x'));
    expect(found).toMatchObject({ epoch: { confVer: 1, version: 2 }, leader: { storeId: 1, role: 'voter' } });
    expect(text(found.range.start)).toBe('m');
    const regions = await cluster.clock.drive(db.regions(range('a', 'b')));
    expect(regions.map(({ id }) => id)).toEqual([cluster.regionOf('a').region.id]);
    expect(await cluster.clock.drive(db.regions(all()))).toHaveLength(2);
  });

  test('regions of a large cluster are fetched page by page', async () => {
    const splits = Array.from({ length: 600 }, (_, i) => `k${String(i).padStart(4, '0')}`);
    const cluster = new FakeCluster({ splits });
    const db = await open(cluster);
    const regions = await cluster.clock.drive(db.regions(all()));
    expect(regions).toHaveLength(601);
    expect(new Set(regions.map(({ id }) => id)).size).toBe(601);
  });
});
