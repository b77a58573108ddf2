import { beforeEach, describe, expect, test } from 'vitest';
import { EMPTY_BYTES, fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { regionId } from '../../../src/base/ids.ts';
import { dataKey } from '../../../src/engine/keyspace.ts';
import type { KvPair } from '../../../src/gen/kvrpcpb.ts';
import { Crc64 } from '../../../src/server/service/crc64.ts';
import { READ_BATCH_KEYS_MAX } from '../../../src/server/service/read-batcher.ts';
import { CLUSTER, context, KvFixture, REGION, STORE } from './kv-fixture.ts';

let store: KvFixture;

beforeEach(async () => {
  store = await KvFixture.open();
});

const get = (key: string, change: Parameters<typeof context>[0] = {}, cf = '') =>
  store.ask(store.kv.rawGet, { context: context(change), key: utf8(key), cf });
const put = (key: string, value: string, ttl = 0) =>
  store.ask(store.kv.rawPut, { context: context(), key: utf8(key), value: utf8(value), cf: '', ttl, forCas: false });
const scan = (startKey: string, endKey: string, more: { limit?: number; reverse?: boolean; keyOnly?: boolean } = {}) =>
  store.ask(store.kv.rawScan, {
    context: context(),
    startKey: utf8(startKey),
    endKey: utf8(endKey),
    limit: 100,
    reverse: false,
    keyOnly: false,
    cf: '',
    ...more,
  });
const cas = (key: string, expected: string | undefined, value: string, more: { delete?: boolean; ttl?: number } = {}) =>
  store.ask(store.kv.rawCompareAndSwap, {
    context: context(),
    key: utf8(key),
    value: utf8(value),
    previousNotExist: expected === undefined,
    previousValue: utf8(expected ?? ''),
    cf: '',
    ttl: 0,
    delete: false,
    ...more,
  });
const pairs = (kvs: readonly KvPair[]): string[] => kvs.map(({ key, value }) => `${fromUtf8(key)}=${fromUtf8(value)}`);

describe('checks before the region is asked', () => {
  test('a request for another store is StoreNotMatch, one without a peer as well', async () => {
    const other = await get('k', { peer: { id: 9, storeId: 5, role: 0, isWitness: false } });
    expect(other.regionError).toMatchObject({ storeNotMatch: { requestStoreId: 5, actualStoreId: STORE } });
    expect((await get('k', { peer: undefined })).regionError?.storeNotMatch).toBeDefined();
    expect((await store.ask(store.kv.rawGet, { key: utf8('k'), cf: '' })).regionError?.storeNotMatch).toBeDefined();
    expect(store.reads).toHaveLength(0);
  });

  test('a request for another cluster gets a region error with text only, the own id and 0 pass', async () => {
    const refused = await get('k', { clusterId: '78' });
    expect(refused.regionError?.message).toBe('the request is for cluster 78, this is cluster 77');
    expect((await get('k', { clusterId: CLUSTER })).regionError).toBeUndefined();
  });

  test('V2 and unknown column families are refused in the text of the answer', async () => {
    expect((await get('k', { apiVersion: 2 })).error).toContain('Api version in request does not match');
    expect((await get('k', { apiVersion: 1 })).error).toBe('');
    expect((await get('k', {}, 'default')).error).toBe('');
    expect((await get('k', {}, 'lock')).error).toBe('invalid cf name: lock');
    const batch = await store.ask(store.kv.rawBatchGet, { context: context(), keys: [utf8('k')], cf: 'write' });
    expect(batch.pairs.map(({ error }) => error?.abort)).toEqual(['invalid cf name: write']);
  });

  test('routing and deadlines reach the region', async () => {
    await store.clock.settle(new Promise<void>((resolve) => store.clock.setTimer(500, resolve, 't')));
    await get('k', { term: 8, replicaRead: true, maxExecutionDurationMs: 2000 });
    await get('k');
    expect(store.reads[0]).toMatchObject({
      header: { regionId: 2, epoch: REGION.epoch, peerId: 9, term: 8, deadlineMonoMs: 2500 },
      replicaRead: true,
    });
    expect(store.reads[1]?.header.deadlineMonoMs).toBeGreaterThanOrEqual(60_000);
    store.kv.rawGet(
      { context: context({ maxExecutionDurationMs: 9_000 }), key: utf8('k'), cf: '' },
      { nowMs: 0, timeoutMs: 100 },
      () => {},
    );
    expect(store.reads[2]?.header.deadlineMonoMs).toBe(100);
  });

  test('every refusal of a region is passed on with its readable text', async () => {
    store.refusal = { type: 'not-leader', regionId: regionId(2), leader: undefined };
    const reply = await get('k');
    expect(reply.regionError).toMatchObject({
      notLeader: { regionId: 2 },
      message: expect.stringContaining('not leader') as string,
    });
    expect((await put('k', 'v')).regionError?.notLeader).toBeDefined();
    expect((await scan('b', '')).regionError?.notLeader).toBeDefined();
  });
});

describe('point reads and writes', () => {
  test('found, empty and missing values differ', async () => {
    await put('k1', 'v1');
    await put('k2', '');
    expect(await get('k1')).toMatchObject({ value: expect.anything() as unknown, notFound: false, error: '' });
    expect(fromUtf8((await get('k1')).value)).toBe('v1');
    expect(await get('k2')).toMatchObject({ notFound: false });
    expect((await get('k2')).value).toHaveLength(0);
    expect(await get('k3')).toMatchObject({ notFound: true });
  });

  test('a key outside the region is KeyNotInRegion', async () => {
    expect((await get('z')).regionError?.keyNotInRegion).toMatchObject({ regionId: 2 });
  });

  test('reads allowed in one turn go to the engine together and are answered alone', async () => {
    const calls: number[] = [];
    const getMany = store.engine.getMany.bind(store.engine);
    store.engine.getMany = (keys, snapshot) => {
      calls.push(keys.length);
      return getMany(keys, snapshot);
    };
    await put('c001', 'one');
    const replies: (string | undefined)[] = [];
    const count = READ_BATCH_KEYS_MAX + 3;
    for (let i = 0; i < count; i++) {
      const key = `c${String(i).padStart(3, '0')}`;
      store.kv.rawGet(
        { context: context(), key: utf8(key), cf: '' },
        { nowMs: 0, timeoutMs: undefined },
        ({ notFound, value }) => {
          replies[i] = notFound ? undefined : fromUtf8(value);
        },
      );
    }
    await store.clock.runAll();
    expect(calls).toEqual([READ_BATCH_KEYS_MAX, 3]);
    expect(replies.filter((reply) => reply !== undefined)).toEqual(['one']);
    expect(replies).toHaveLength(count);
  });

  test('batch get keeps the order asked for and leaves missing keys out', async () => {
    await put('k1', 'a');
    await put('k3', 'c');
    const keys = ['k3', 'k2', 'k1', 'k3'].map(utf8);
    const reply = await store.ask(store.kv.rawBatchGet, { context: context(), keys, cf: '' });
    expect(pairs(reply.pairs)).toEqual(['k3=c', 'k1=a', 'k3=c']);
  });

  test('keys above the limit are refused, with TiKV words', async () => {
    expect((await put('k'.repeat(17), 'v')).error).toBe('max key size exceeded, size: 17, limit: 16');
    expect((await get('k'.repeat(17))).error).toBe('');
    expect(store.writes).toHaveLength(0);
  });

  test('batches: last duplicate wins, empty ones are refused, ttls must fit', async () => {
    const batchPut = (texts: readonly string[], ttls: number[]) =>
      store.ask(store.kv.rawBatchPut, {
        context: context(),
        pairs: texts.map((text, i) => ({ key: utf8(text), value: utf8(String(i)) })),
        cf: '',
        ttl: 5,
        forCas: false,
        ttls,
      });
    expect((await batchPut([], [])).error).toBe('the batch has no pairs');
    expect((await batchPut(['k1', 'k2'], [1, 2, 3])).error).toBe('the batch has 2 pairs, but 3 ttls');
    expect((await batchPut(['k1', 'k2', 'k1'], [])).error).toBe('');
    expect(fromUtf8((await get('k1')).value)).toBe('2');
    expect(store.writes).toHaveLength(1);
    await batchPut(['k1', 'k2'], [100]);
    const now = store.nowSeconds();
    expect(store.writes[1]?.ops.map((op) => (op.type === 'put' ? op.expireAtSeconds : 0))).toEqual([
      now + 100,
      now + 100,
    ]);
    await batchPut(['k1', 'k2'], [0, 7]);
    expect(store.writes[2]?.ops.map((op) => (op.type === 'put' ? op.expireAtSeconds : 0))).toEqual([0, now + 7]);
    const empty = await store.ask(store.kv.rawBatchDelete, { context: context(), keys: [], cf: '', forCas: false });
    expect(empty.error).toBe('the batch has no keys');
    await store.ask(store.kv.rawBatchDelete, {
      context: context(),
      keys: [utf8('k1'), utf8('k2')],
      cf: '',
      forCas: false,
    });
    expect(await get('k1')).toMatchObject({ notFound: true });
  });

  test('deleting is idempotent', async () => {
    await put('k1', 'v');
    const del = () => store.ask(store.kv.rawDelete, { context: context(), key: utf8('k1'), cf: '', forCas: false });
    expect(await del()).toMatchObject({ error: '' });
    expect(await del()).toMatchObject({ error: '' });
    expect(await get('k1')).toMatchObject({ notFound: true });
  });
});

describe('time to live', () => {
  const ttlOf = (key: string) => store.ask(store.kv.rawGetKeyTTL, { context: context(), key: utf8(key), cf: '' });

  test('is turned into an absolute time before it is proposed, and expired values are invisible at once', async () => {
    await put('k1', 'v', 10);
    const op = store.writes[0]?.ops[0];
    expect(op).toMatchObject({ type: 'put', expireAtSeconds: store.nowSeconds() + 10 });
    await put('k2', 'v');
    expect(await ttlOf('k1')).toMatchObject({ ttl: 10, notFound: false });
    expect(await ttlOf('k2')).toMatchObject({ ttl: 0, notFound: false });
    await store.clock.settle(new Promise<void>((resolve) => store.clock.setTimer(10_000, resolve, 't')));
    expect(await ttlOf('k1')).toMatchObject({ ttl: 0, notFound: true });
    expect(await get('k1')).toMatchObject({ notFound: true });
    const batch = await store.ask(store.kv.rawBatchGet, { context: context(), keys: [utf8('k1'), utf8('k2')], cf: '' });
    expect(pairs(batch.pairs)).toEqual(['k2=v']);
    expect(pairs((await scan('b', '')).kvs)).toEqual(['k2=v']);
    expect(pairs((await scan('b', '', { keyOnly: true })).kvs)).toEqual(['k2=']);
    expect(await cas('k1', undefined, 'w')).toMatchObject({ succeed: true, previousNotExist: true });
  });

  test('is refused when switched off, and when it reaches beyond what can be stored', async () => {
    expect((await put('k1', 'v', Number.MAX_SAFE_INTEGER)).error).toContain('too large');
    store = await KvFixture.open({ enableTtl: false });
    expect((await put('k1', 'v', 1)).error).toBe('ttl is not enabled, but get put request with ttl');
    expect((await put('k1', 'v', 0)).error).toBe('');
  });
});

describe('compare and swap', () => {
  test('answers with the old state whether it swapped or not', async () => {
    expect(await cas('k', undefined, 'a')).toMatchObject({ succeed: true, previousNotExist: true });
    const lost = await cas('k', undefined, 'b');
    expect(lost).toMatchObject({ succeed: false, previousNotExist: false });
    expect(fromUtf8(lost.previousValue)).toBe('a');
    expect(await cas('k', 'x', 'b')).toMatchObject({ succeed: false });
    expect(await cas('k', 'a', '')).toMatchObject({ succeed: true, previousNotExist: false });
    // An empty value is a value, not absence.
    expect(await cas('k', undefined, 'c')).toMatchObject({
      succeed: false,
      previousNotExist: false,
      previousValue: EMPTY_BYTES,
    });
    expect(await cas('k', '', 'c')).toMatchObject({ succeed: true });
  });

  test('deletes on a match', async () => {
    await put('k', 'a');
    expect(await cas('k', 'a', 'ignored', { delete: true })).toMatchObject({ succeed: true });
    expect(await get('k')).toMatchObject({ notFound: true });
    expect(await cas('k', undefined, '', { delete: true })).toMatchObject({ succeed: true, previousNotExist: true });
  });

  test('a region error stays a region error', async () => {
    store.refusal = { type: 'undetermined-result', message: 'who knows' };
    expect(await cas('k', undefined, 'a')).toMatchObject({ regionError: { message: 'who knows' }, succeed: false });
  });
});

describe('scans', () => {
  beforeEach(async () => {
    for (const key of ['a', 'b', 'c', 'd', 'e', 'x', 'y', 'z']) {
      await store.put(key, key.toUpperCase());
    }
  });

  test('forward: from a key in the region to the end given or to the end of the region', async () => {
    expect(pairs((await scan('b', 'd')).kvs)).toEqual(['b=B', 'c=C']);
    expect(pairs((await scan('c', '')).kvs)).toEqual(['c=C', 'd=D', 'e=E', 'x=X']);
    expect(pairs((await scan('c', 'zzz')).kvs)).toEqual(['c=C', 'd=D', 'e=E', 'x=X']);
    expect(pairs((await scan('b', '', { limit: 2 })).kvs)).toEqual(['b=B', 'c=C']);
    expect((await scan('b', '', { limit: 0 })).kvs).toEqual([]);
    expect((await scan('d', 'c')).kvs).toEqual([]);
    expect((await scan('a', '')).regionError?.keyNotInRegion).toBeDefined();
    expect((await scan('y', '')).regionError?.keyNotInRegion).toBeDefined();
  });

  test('reverse: below an exclusive upper bound, which may be the end of the region', async () => {
    expect(pairs((await scan('e', 'b', { reverse: true })).kvs)).toEqual(['d=D', 'c=C', 'b=B']);
    expect(pairs((await scan('y', '', { reverse: true, limit: 2 })).kvs)).toEqual(['x=X', 'e=E']);
    expect(pairs((await scan('d', 'a', { reverse: true })).kvs)).toEqual(['c=C', 'b=B']);
    expect((await scan('b', '', { reverse: true })).kvs).toEqual([]);
    expect((await scan('yy', '', { reverse: true })).regionError?.keyNotInRegion).toBeDefined();
    expect((await scan('a', '', { reverse: true })).regionError?.keyNotInRegion).toBeDefined();
    // No bound at all is only the end of the last region.
    expect((await scan('', '', { reverse: true })).regionError?.keyNotInRegion).toBeDefined();
    store.region = { ...REGION, range: { start: utf8('b'), end: EMPTY_BYTES } };
    expect(pairs((await scan('', '', { reverse: true, limit: 3 })).kvs)).toEqual(['z=Z', 'y=Y', 'x=X']);
    store.region = { ...REGION, range: { start: EMPTY_BYTES, end: utf8('c') } };
    expect(pairs((await scan('c', '', { reverse: true })).kvs)).toEqual(['b=B', 'a=A']);
  });

  test('a page of the engine never shortens a result', async () => {
    const COUNT = 2500;
    for (let i = 0; i < COUNT; i++) {
      await store.put(`m${String(i).padStart(5, '0')}`, i % 2 === 0 ? 'old' : 'new', i % 2 === 0 ? 1 : 0);
    }
    expect((await scan('m', 'n', { limit: 1200 })).kvs).toHaveLength(1200);
    expect((await scan('m', 'n', { limit: 10_000 })).kvs).toHaveLength(COUNT / 2);
    const reverse = (await scan('n', 'm', { limit: 10_000, reverse: true })).kvs;
    expect(reverse).toHaveLength(COUNT / 2);
    expect(fromUtf8(reverse[0]?.key ?? EMPTY_BYTES)).toBe('m02499');
  });

  test('all pages of one scan show one moment', async () => {
    const COUNT = 1500;
    const last = `m${String(COUNT - 1).padStart(5, '0')}`;
    for (let i = 0; i < COUNT; i++) {
      await store.put(`m${String(i).padStart(5, '0')}`, 'v');
    }
    const reply = new Promise<readonly KvPair[]>((resolve) => {
      store.kv.rawScan(
        {
          context: context(),
          startKey: utf8('m'),
          endKey: utf8('n'),
          limit: 10_000,
          reverse: false,
          keyOnly: false,
          cf: '',
        },
        { nowMs: 0, timeoutMs: undefined },
        ({ kvs }) => resolve(kvs),
      );
    });
    const batch = store.engine.createBatch();
    batch.del(dataKey(utf8(last)));
    await store.clock.settle(store.engine.write(batch));
    expect(await get(last)).toMatchObject({ notFound: true });
    expect(await store.clock.settle(reply)).toHaveLength(COUNT);
  });

  test('batch scan concatenates its ranges, an open end reaches to the next start', async () => {
    const batchScan = (ranges: readonly (readonly [string, string])[], eachLimit: number, reverse = false) =>
      store.ask(store.kv.rawBatchScan, {
        context: context(),
        ranges: ranges.map(([startKey, endKey]) => ({ startKey: utf8(startKey), endKey: utf8(endKey) })),
        eachLimit,
        keyOnly: false,
        cf: '',
        reverse,
      });
    expect(
      pairs(
        (
          await batchScan(
            [
              ['b', ''],
              ['d', ''],
            ],
            10,
          )
        ).kvs,
      ),
    ).toEqual(['b=B', 'c=C', 'd=D', 'e=E', 'x=X']);
    expect(
      pairs(
        (
          await batchScan(
            [
              ['b', ''],
              ['d', ''],
            ],
            1,
          )
        ).kvs,
      ),
    ).toEqual(['b=B', 'd=D']);
    expect(
      (
        await batchScan(
          [
            ['d', ''],
            ['b', ''],
          ],
          1,
        )
      ).kvs[0]?.error?.abort,
    ).toContain('not in order');
    expect(
      pairs(
        (
          await batchScan(
            [
              ['e', 'd'],
              ['c', 'b'],
            ],
            9,
            true,
          )
        ).kvs,
      ),
    ).toEqual(['d=D', 'b=B']);
  });

  test('delete range takes only what lies in the region', async () => {
    const deleteRange = (start: string, end: string) =>
      store.ask(store.kv.rawDeleteRange, { context: context(), startKey: utf8(start), endKey: utf8(end), cf: '' });
    expect((await deleteRange('d', 'c')).error).toContain('not below its end');
    expect((await deleteRange('d', 'd')).error).toContain('not below its end');
    expect((await deleteRange('c', '')).regionError?.keyNotInRegion).toBeDefined();
    expect(await deleteRange('c', 'e')).toMatchObject({ error: '' });
    expect(pairs((await scan('b', '')).kvs)).toEqual(['b=B', 'e=E', 'x=X']);
  });

  test('the checksum is the xor of CRC-64/XZ over the pairs', async () => {
    // The check value of the CRC catalogue.
    expect(new Crc64().update(utf8('123456789')).digest()).toBe(0x995dc9bbdf1939fan);
    const checksum = (startKey: string, endKey: string) =>
      store.ask(store.kv.rawChecksum, {
        context: context(),
        algorithm: 0,
        ranges: [{ startKey: utf8(startKey), endKey: utf8(endKey) }],
      });
    const expected = new Crc64().update(utf8('bB')).digest() ^ new Crc64().update(utf8('cC')).digest();
    expect(await checksum('b', 'd')).toMatchObject({
      checksum: String(expected),
      totalKvs: 2,
      totalBytes: 4,
      error: '',
    });
  });

  test('a checksum that ends behind its region is cut there, and one that starts outside is refused', async () => {
    const checksum = (startKey: string, endKey: string) =>
      store.ask(store.kv.rawChecksum, {
        context: context(),
        algorithm: 0,
        ranges: [{ startKey: utf8(startKey), endKey: utf8(endKey) }],
      });
    const region = await checksum('b', 'y');
    expect(region.totalKvs).toBeGreaterThan(0);
    expect(await checksum('b', 'zz')).toEqual(region);
    expect(await checksum('b', '')).toEqual(region);
    expect((await checksum('zz', '')).regionError?.keyNotInRegion).toBeDefined();
  });
});

describe('damage', () => {
  test('a value that cannot be read stops the store and is never served as missing', async () => {
    await store.putRaw('k', Uint8Array.of(99, 1, 2));
    expect((await get('k')).regionError?.message).toContain('cannot read');
    expect((await scan('b', '')).regionError?.message).toContain('cannot read');
    const batch = await store.ask(store.kv.rawBatchGet, { context: context(), keys: [utf8('k')], cf: '' });
    expect(batch.regionError?.message).toContain('cannot read');
    expect(store.damage).toHaveLength(3);
  });

  test('a closed engine gives a region error', async () => {
    await store.clock.settle(store.engine.close());
    expect((await get('k')).regionError?.message).toContain('closed');
    expect((await scan('b', '')).regionError?.message).toContain('closed');
    expect(store.damage).toEqual([]);
  });
});

describe('split', () => {
  const split = (keys: readonly string[], isRawKv = true) =>
    store.ask(store.kv.splitRegion, { context: context(), splitKey: EMPTY_BYTES, splitKeys: keys.map(utf8), isRawKv });

  test('keys are sorted, doubles dropped, the new regions returned', async () => {
    const reply = await split(['e', 'c', 'e']);
    expect(reply.regions.map(({ id }) => id)).toEqual([2]);
    const [request] = store.admins;
    expect(request).toMatchObject({
      regionId: 2,
      epoch: REGION.epoch,
      body: { type: 'split', keys: [utf8('c'), utf8('e')] },
    });
  });

  test('transactional and empty keys, and refusals, are told', async () => {
    expect((await split(['c'], false)).errors[0]?.abort).toContain('raw keys');
    expect((await split([''])).errors[0]?.abort).toBe('a split key is empty');
    store.adminOutcome = { type: 'rejected', refusal: { code: 'NothingToSplit', message: 'too small' } };
    expect((await split(['c'])).errors[0]?.abort).toBe('NothingToSplit: too small');
    store.adminOutcome = { type: 'refused', error: { type: 'region-not-found', regionId: regionId(2) } };
    expect((await split(['c'])).regionError?.regionNotFound).toBeDefined();
  });
});
