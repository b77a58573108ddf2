import { describe, expect, test } from 'vitest';
import { connectWith } from '../../../src/client/connect.ts';
import { UndeterminedResultError } from '../../../src/client/errors.ts';
import type { Braid } from '../../../src/client/kv.ts';
import { FakeCluster, type Interference, type WireError, wireRegion } from './fake-cluster.ts';

const text = (bytes: Uint8Array | undefined): string | undefined =>
  bytes === undefined ? undefined : Buffer.from(bytes).toString();

async function open(cluster: FakeCluster, options: { timeoutMs?: number } = {}): Promise<Braid> {
  return cluster.clock.drive(connectWith(cluster.env, { pd: 'pd:1', ...options }));
}

/** Answers the first `times` commands of a kind with something else than service. */
function first(times: number, what: Interference, kind?: string): FakeCluster['interfere'] {
  let left = times;
  return (command) => (left > 0 && (kind === undefined || command.kind === kind) && left-- > 0 ? what : 'serve');
}

const settle = async (cluster: FakeCluster, promise: Promise<unknown>): Promise<{ ms: number; error?: unknown }> => {
  const startMs = cluster.clock.monoMs();
  try {
    await cluster.clock.drive(promise);
    return { ms: cluster.clock.monoMs() - startMs };
  } catch (error) {
    return { ms: cluster.clock.monoMs() - startMs, error };
  }
};

describe('region errors', () => {
  const refusals: readonly [string, Partial<WireError>][] = [
    ['NotLeader without a leader', { notLeader: { regionId: 1 } }],
    ['RegionNotFound', { regionNotFound: { regionId: 1 } }],
    [
      'KeyNotInRegion',
      {
        keyNotInRegion: { key: new Uint8Array(1), regionId: 1, startKey: new Uint8Array(0), endKey: new Uint8Array(0) },
      },
    ],
    ['EpochNotMatch without regions', { epochNotMatch: { currentRegions: [] } }],
    ['ServerIsBusy', { serverIsBusy: { reason: 'queue full', backoffMs: 0, estimatedWaitMs: 0, appliedIndex: 0 } }],
    ['StaleCommand', { staleCommand: {} }],
    ['StoreNotMatch', { storeNotMatch: { requestStoreId: 1, actualStoreId: 2 } }],
    ['ReadIndexNotReady', { readIndexNotReady: { reason: 'merging', regionId: 1 } }],
    ['ProposalInMergingMode', { proposalInMergingMode: { regionId: 1 } }],
    ['RegionNotInitialized', { regionNotInitialized: { regionId: 1 } }],
    ['DiskFull', { diskFull: { storeId: [1], reason: 'no space' } }],
    ['RecoveryInProgress', { RecoveryInProgress: { regionId: 1 } }],
    ['MismatchPeerId', { mismatchPeerId: { requestPeerId: 1, storePeerId: 2 } }],
    ['a message only', { message: 'applying a snapshot' }],
  ];

  test.each(refusals)('%s is tried again until it passes, for reads and writes', async (_, regionError) => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = first(3, { regionError });
    const write = await settle(cluster, db.put('k', 'v'));
    expect(write.error).toBeUndefined();
    // Three doubling delays from 2 ms on, and for StoreNotMatch the probes of a new connection.
    expect(write.ms).toBeLessThanOrEqual(40);
    expect(cluster.get('k')).toBe('v');
    cluster.interfere = first(3, { regionError });
    expect(text(await cluster.clock.drive(db.get('k')))).toBe('v');
  });

  test.each(refusals)('%s for ever ends at the deadline, with the refusal as cause', async (_, regionError) => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = () => ({ regionError });
    const { ms, error } = await settle(cluster, db.put('k', 'v', { timeoutMs: 1000 }));
    expect(error).toMatchObject({ outcome: 'not-applied' });
    expect(String((error as Error).message)).toMatch(/put of "k" took longer than 1000 ms/);
    expect(ms).toBeGreaterThanOrEqual(1000);
    expect(ms).toBeLessThanOrEqual(1010);
    expect(cluster.get('k')).toBeUndefined();
  });

  test('delays between tries double up to a cap', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster, { timeoutMs: 10_000 });
    const times: number[] = [];
    cluster.interfere = () => {
      times.push(cluster.clock.monoMs());
      return { regionError: { proposalInMergingMode: { regionId: 1 } } };
    };
    await settle(cluster, db.put('k', 'v'));
    const gaps = times.slice(1).map((at, i) => at - (times[i] as number));
    gaps.forEach((gap, i) => expect(gap).toBeLessThanOrEqual(Math.min(500, 2 * 2 ** i) + 1));
    // With full jitter a capped delay is 250 ms on average.
    expect(times.length).toBeGreaterThan(20);
    expect(times.length).toBeLessThan(90);
  });

  test('RaftEntryTooLarge is final', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = () => ({ regionError: { raftEntryTooLarge: { regionId: 1, entrySize: 9_000_000 } } });
    const { error } = await settle(cluster, db.put('k', 'v'));
    expect(error).toMatchObject({ code: 'EntryTooLarge', outcome: 'not-applied', details: { sizeBytes: 9_000_000 } });
    expect(cluster.received).toHaveLength(1);
  });

  test('UndeterminedResult ends a write at once and is tried again for a read', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = first(1, { regionError: { undeterminedResult: { message: 'leader stepped down' } } });
    const { error } = await settle(cluster, db.put('k', 'v'));
    expect(error).toMatchObject({ code: 'UndeterminedResult', outcome: 'unknown' });
    expect(cluster.received).toHaveLength(1);
    cluster.interfere = first(1, { regionError: { undeterminedResult: { message: 'leader stepped down' } } });
    expect(await cluster.clock.drive(db.get('k'))).toBeUndefined();
  });

  test('a plain error text is final', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = () => ({ error: 'ttl is not enabled' });
    const { error } = await settle(cluster, db.put('k', 'v'));
    expect(error).toMatchObject({
      code: 'ServerRefused',
      outcome: 'not-applied',
      message: expect.stringContaining('ttl is not enabled'),
    });
  });

  test('region errors of unary commands are treated the same', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = first(2, { regionError: { notLeader: { regionId: 1 } } });
    expect(await cluster.clock.drive(db.put('k', 'v', { ifAbsent: true }))).toEqual({ written: true });
    cluster.interfere = first(2, { regionError: { regionNotFound: { regionId: 1 } } });
    expect(await cluster.clock.drive(db.ttl('k'))).toBe(Infinity);
  });
});

describe('leader changes', () => {
  test('a refusal that names the leader is followed without delay', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('k'));
    cluster.setLeader('k', 3);
    const { ms, error } = await settle(cluster, db.put('k', 'v'));
    expect(error).toBeUndefined();
    expect(ms).toBe(0);
    expect(cluster.receivedKinds('RawPut').map(({ store }) => store)).toEqual([1, 3]);
  });

  test('many calls in flight follow the leader together', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('k'));
    cluster.setLeader('k', 2);
    await cluster.clock.drive(Promise.all(Array.from({ length: 256 }, (_, i) => db.put(`k${i}`, 'v'))));
    expect(cluster.keys()).toHaveLength(256);
    expect(cluster.receivedKinds('RawPut')).toHaveLength(512);
  });

  test('during an election replicas are asked in turn until one leads', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.setLeader('k', undefined);
    const put = db.put('k', 'v');
    await cluster.clock.advance(200);
    expect(new Set(cluster.received.map(({ store }) => store))).toEqual(new Set([1, 2, 3]));
    cluster.setLeader('k', 2);
    const { ms, error } = await settle(cluster, put);
    expect(error).toBeUndefined();
    expect(ms).toBeLessThanOrEqual(1000);
  });

  test('with the leader down, every other replica is asked although the first one knows nothing', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('k'));
    cluster.stopStore(1);
    cluster.interfere = ({ store }) => (store === 2 ? { regionError: { notLeader: { regionId: 1 } } } : 'serve');
    cluster.pdView = () => cluster.regions.map(({ region }) => ({ region, leader: region.peers[0] }));
    const put = db.put('k', 'v');
    await cluster.clock.advance(300);
    cluster.setLeader('k', 3);
    const { ms, error } = await settle(cluster, put);
    expect(error).toBeUndefined();
    expect(ms).toBeLessThanOrEqual(1000);
  });

  test('a region that the placement service showed without replicas is asked for again', async () => {
    const cluster = new FakeCluster();
    cluster.pdView = () =>
      cluster.regions.map(({ region }) => ({ region: { ...region, peers: [] }, leader: undefined }));
    const db = await open(cluster);
    const put = db.put('k', 'v');
    await cluster.clock.advance(200);
    cluster.pdView = () =>
      cluster.regions.map(({ region, leader }) => ({
        region: { ...region, epoch: { ...region.epoch, confVer: 2 } },
        leader,
      }));
    expect((await settle(cluster, put)).error).toBeUndefined();
  });

  test('a leader on a store that the client did not know is found through the placement service', async () => {
    const cluster = new FakeCluster({ stores: 4 });
    const db = await open(cluster);
    await cluster.clock.drive(db.get('k'));
    cluster.movePeer('k', 1, 4);
    const { ms, error } = await settle(cluster, db.put('k', 'v'));
    expect(error).toBeUndefined();
    expect(ms).toBeLessThanOrEqual(200);
    expect(cluster.receivedKinds('RawPut').at(-1)?.store).toBe(4);
  });

  test('reads with read follower go to other replicas and fall back to the leader', async () => {
    const cluster = new FakeCluster();
    cluster.put('k', 'v');
    const db = await open(cluster);
    await cluster.clock.drive(Promise.all(Array.from({ length: 20 }, () => db.get('k', { read: 'follower' }))));
    expect(new Set(cluster.receivedKinds('RawGet').map(({ store }) => store))).toEqual(new Set([2, 3]));
    cluster.received.length = 0;
    cluster.interfere = ({ store }) =>
      store === 1 ? 'serve' : { regionError: { regionNotInitialized: { regionId: 1 } } };
    expect(text(await cluster.clock.drive(db.get('k', { read: 'follower' })))).toBe('v');
    expect(cluster.received.at(-1)?.store).toBe(1);
  });
});

describe('splits and merges', () => {
  test('a split is learnt from the refusal, without delay and without the placement service', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('a'));
    const lookups = cluster.net.calls.get('/pdpb.PD/ScanRegions');
    cluster.split('m');
    const { ms, error } = await settle(cluster, Promise.all([db.put('a', '1'), db.put('z', '2')]));
    expect(error).toBeUndefined();
    expect(ms).toBe(0);
    expect(cluster.keys()).toEqual(['a', 'z']);
    expect(cluster.net.calls.get('/pdpb.PD/ScanRegions')).toBe(lookups);
  });

  test('a merge is learnt through the placement service', async () => {
    const cluster = new FakeCluster({ splits: ['m'] });
    const db = await open(cluster);
    await cluster.clock.drive(Promise.all([db.get('a'), db.get('z')]));
    cluster.mergeAt('m');
    const { ms, error } = await settle(cluster, Promise.all([db.put('a', '1'), db.put('z', '2')]));
    expect(error).toBeUndefined();
    expect(ms).toBeLessThanOrEqual(10);
  });

  test('a placement service that lags behind does not bring old regions back', async () => {
    const cluster = new FakeCluster({ splits: ['m'] });
    const db = await open(cluster);
    await cluster.clock.drive(Promise.all([db.get('a'), db.get('z')]));
    const old = cluster.regions.map(({ region, leader }) => ({ region, leader }));
    cluster.mergeAt('m');
    cluster.pdView = () => old;
    const put = db.put('z', '1');
    expect((await settle(cluster, put)).error).toBeUndefined();
    const late = db.put('a', '2');
    await cluster.clock.advance(300);
    cluster.pdView = undefined;
    const { error } = await settle(cluster, late);
    expect(error).toBeUndefined();
    expect(cluster.keys()).toEqual(['a', 'z']);
  });

  test.each([1, 2, 3])('a cache of %i regions keeps the one that was looked up', async (regionCacheMax) => {
    const cluster = new FakeCluster({ splits: ['c', 'f', 'm', 't'] });
    const db = await cluster.clock.drive(connectWith(cluster.env, { pd: 'pd:1', regionCacheMax, timeoutMs: 1_000 }));
    for (const key of ['a', 'd', 'z', 'g', 'a']) {
      const { error } = await settle(cluster, db.put(key, key));
      expect(error).toBeUndefined();
    }
  });

  test('a store that is behind the client is asked again a little later', async () => {
    const cluster = new FakeCluster({ splits: ['m'] });
    const db = await open(cluster);
    await cluster.clock.drive(db.get('z'));
    const { region } = cluster.regionOf('z');
    const old = wireRegion({ ...region, epoch: { confVer: 1, version: 1 } });
    cluster.interfere = first(2, { regionError: { epochNotMatch: { currentRegions: [old] } } });
    const { ms, error } = await settle(cluster, db.put('z', 'v'));
    expect(error).toBeUndefined();
    expect(ms).toBeGreaterThan(0);
    expect(cluster.receivedKinds('RawPut').map(({ store }) => store)).toEqual([1, 1, 1]);
  });

  test('a batch whose region splits on the way is grouped again', async () => {
    const cluster = new FakeCluster();
    for (const key of ['a', 'n', 'z']) {
      cluster.put(key, key);
    }
    const db = await open(cluster);
    await cluster.clock.drive(db.get('a'));
    cluster.split('m');
    cluster.split('t');
    const values = await cluster.clock.drive(db.getMany(['z', 'n', 'a']));
    expect(values.map(text)).toEqual(['z', 'n', 'a']);
    const results = await cluster.clock.drive(
      db.writeMany(
        ['a', 'n', 'z'].map((key) => ({ type: 'put', key, value: 'new' }) as const),
        { atomic: 'region' },
      ),
    );
    expect(results.every(({ type }) => type === 'written')).toBe(true);
    expect(cluster.get('n')).toBe('new');
  });

  test('topology changes under load lose and double nothing', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    const names = Array.from({ length: 200 }, (_, i) => `k${String(i).padStart(3, '0')}`);
    const writes = names.map((key) => db.put(key, key));
    const changes = [
      () => cluster.split('k050'),
      () => cluster.setLeader('k060', 2),
      () => cluster.split('k150'),
      () => cluster.setLeader('k199', 3),
      () => cluster.mergeAt('k050'),
      () => cluster.mergeAt('k150'),
    ];
    let n = 0;
    cluster.interfere = () => {
      if (n++ % 60 === 59) {
        changes.shift()?.();
      }
      return 'serve';
    };
    await cluster.clock.drive(Promise.all(writes));
    expect(cluster.keys()).toEqual(names);
    const values = await cluster.clock.drive(Promise.all(names.map((key) => db.get(key))));
    expect(values.map(text)).toEqual(names);
  });
});

describe('broken connections', () => {
  test('a write that was sent is undetermined and is not sent again, reads are', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('warm'));
    cluster.interfere = first(1, 'break', 'RawPut');
    const [put, get] = [db.put('k', 'v'), db.get('k')];
    const { error } = await settle(cluster, put);
    expect(error).toBeInstanceOf(UndeterminedResultError);
    expect(error).toMatchObject({
      outcome: 'unknown',
      retryable: false,
      hint: expect.stringContaining('read the key'),
    });
    expect(await cluster.clock.drive(get)).toBeUndefined();
    expect(cluster.receivedKinds('RawPut')).toHaveLength(1);
  });

  test('a write that was done before the connection broke is undetermined as well', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = first(1, 'serve-and-break');
    const { error } = await settle(cluster, db.put('k', 'v'));
    expect(error).toMatchObject({ code: 'UndeterminedResult' });
    expect(cluster.get('k')).toBe('v');
  });

  test('a compareAndSwap whose answer is lost is undetermined', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = first(1, 'serve-and-break');
    const { error } = await settle(cluster, db.compareAndSwap('k', { expected: undefined, value: 'v' }));
    expect(error).toMatchObject({ code: 'UndeterminedResult', outcome: 'unknown' });
    expect(cluster.receivedKinds('RawCompareAndSwap')).toHaveLength(1);
  });

  test('writes that had not been sent are sent elsewhere', async () => {
    const cluster = new FakeCluster();
    const db = await cluster.clock.drive(connectWith(cluster.env, { pd: 'pd:1', maxInFlightPerStore: 1 }));
    await cluster.clock.drive(db.get('warm'));
    cluster.interfere = first(1, 'break');
    const puts = ['a', 'b', 'c'].map((key) => db.put(key, 'v'));
    const outcomes = await cluster.clock.drive(Promise.allSettled(puts));
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
  });

  test('a store that is down at the first contact costs no undetermined write', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.stopStore(1);
    const put = db.put('k', 'v');
    await cluster.clock.advance(100);
    cluster.setLeader('k', 2);
    const { error } = await settle(cluster, put);
    expect(error).toBeUndefined();
    expect(cluster.received.every(({ store }) => store !== 1)).toBe(true);
  });

  test('a restarted store is used again', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.put('k', '1'));
    cluster.stopStore(1);
    const put = db.put('k', '2');
    await cluster.clock.advance(1500);
    cluster.startStore(1);
    const { ms, error } = await settle(cluster, put);
    expect(error).toBeUndefined();
    expect(ms).toBeLessThanOrEqual(2000);
    expect(cluster.get('k')).toBe('2');
  });

  test('with every store down the error lists them with their failures', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    for (const store of [1, 2, 3]) {
      cluster.stopStore(store);
    }
    const { ms, error } = await settle(cluster, db.put('k', 'v'));
    expect(error).toMatchObject({ code: 'Unavailable', outcome: 'not-applied' });
    expect((error as Error).message).toMatch(/store1:1.*store2:1.*store3:1/);
    expect(ms).toBeLessThanOrEqual(5010);
  });

  test('a store that moved to another address is found there', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.put('k', '1'));
    cluster.stopStore(1);
    cluster.moveStore(1, 'elsewhere:9');
    const { error } = await settle(cluster, db.put('k', '2'));
    expect(error).toBeUndefined();
    expect(cluster.get('k')).toBe('2');
  });

  test('one failing store is probed in the rhythm of one store, however many calls wait', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    for (const store of [1, 2, 3]) {
      cluster.stopStore(store);
    }
    const calls = Array.from({ length: 100 }, (_, i) => db.get(`k${i}`));
    await cluster.clock.drive(Promise.allSettled(calls));
    // Doubling from 2 ms to 1 s makes about 14 probes of each of the three stores in 5 s.
    expect(cluster.net.calls.get('/grpc.health.v1.Health/Check')).toBeLessThan(60);
  });
});

describe('deadlines', () => {
  test('a hanging server holds a call no longer than its deadline', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = () => 'ignore';
    const { ms, error } = await settle(cluster, db.put('k', 'v', { timeoutMs: 300 }));
    expect(error).toMatchObject({
      code: 'DeadlineExceeded',
      outcome: 'unknown',
      details: { phase: 'in-flight', attempts: 0 },
    });
    expect(ms).toBeGreaterThanOrEqual(300);
    expect(ms).toBeLessThan(310);
  });

  test('a read that passes its deadline in flight was not applied', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = () => 'ignore';
    const { error } = await settle(cluster, db.get('k', { timeoutMs: 300 }));
    expect(error).toMatchObject({ code: 'DeadlineExceeded', outcome: 'not-applied' });
  });

  test('a unary command that hangs ends at its deadline, too', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = () => 'serve-silently';
    const { ms, error } = await settle(cluster, db.put('k', 'v', { ifAbsent: true, timeoutMs: 300 }));
    expect(error).toMatchObject({ code: 'DeadlineExceeded', outcome: 'unknown' });
    expect(ms).toBeLessThan(310);
  });

  test('a store that takes everything and answers nothing is avoided after a probe, and reads go on elsewhere', async () => {
    const cluster = new FakeCluster();
    cluster.put('k', 'v');
    const db = await open(cluster);
    await cluster.clock.drive(db.get('k'));
    cluster.net.setReach('store1:1', 'dark');
    const get = db.get('k');
    const put = settle(cluster, db.put('x', 'y'));
    await cluster.clock.advance(500);
    cluster.setLeader('k', 2);
    const read = await settle(cluster, get);
    expect(read.error).toBeUndefined();
    // 1 s of silence, 1 s for the probe, half a second gone before.
    expect(read.ms).toBeLessThanOrEqual(1600);
    // Nobody else can say what became of the write: it waits for its answer as long as it may.
    const late = await put;
    expect(late.error).toMatchObject({ code: 'DeadlineExceeded', outcome: 'unknown' });
    expect(late.ms).toBeGreaterThan(4900);
  });

  test('a store that was silent for a while is used again over the same connection', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('k'));
    const { dials } = cluster.net;
    cluster.net.setReach('store1:1', 'dark');
    const put = settle(cluster, db.put('x', 'y'));
    await cluster.clock.advance(2500);
    cluster.net.setReach('store1:1', 'up');
    await cluster.clock.advance(2100);
    expect((await settle(cluster, db.put('z', '1'))).error).toBeUndefined();
    expect(cluster.net.dials).toBe(dials);
    await put;
  });

  test('a call that waits behind a full store ends in the queue, certainly not applied', async () => {
    const cluster = new FakeCluster();
    const db = await cluster.clock.drive(
      connectWith(cluster.env, { pd: 'pd:1', maxInFlightPerStore: 1, timeoutMs: 200 }),
    );
    await cluster.clock.drive(db.get('warm'));
    cluster.interfere = () => 'ignore';
    const outcomes = await cluster.clock.drive(Promise.allSettled([db.put('a', '1'), db.put('b', '2')]));
    expect(outcomes).toMatchObject([
      { reason: { outcome: 'unknown', details: { phase: 'in-flight' } } },
      { reason: { outcome: 'not-applied', details: { phase: 'queued' } } },
    ]);
  });

  test('calls that expire while queued do not pile up', async () => {
    const cluster = new FakeCluster();
    const db = await cluster.clock.drive(
      connectWith(cluster.env, { pd: 'pd:1', maxInFlightPerStore: 1, timeoutMs: 50 }),
    );
    await cluster.clock.drive(db.get('warm'));
    cluster.interfere = () => 'ignore';
    for (let round = 0; round < 20; round++) {
      await cluster.clock.drive(Promise.allSettled(Array.from({ length: 500 }, (_, i) => db.put(`k${i}`, 'v'))));
    }
    cluster.interfere = () => 'serve';
    await cluster.clock.drive(db.put('last', 'v'));
    expect(cluster.get('last')).toBe('v');
    // Of each round only the one in flight was ever sent.
    expect(cluster.receivedKinds('RawPut').length).toBeLessThan(60);
  });

  test('an aborted call ends at once', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('warm'));
    cluster.interfere = () => 'ignore';
    const abort = new AbortController();
    const put = db.put('k', 'v', { signal: abort.signal });
    const get = db.get('k', { signal: abort.signal });
    await cluster.clock.advance(10);
    abort.abort(new Error('user left'));
    expect(await Promise.allSettled([put, get])).toMatchObject([
      { reason: { code: 'Aborted', outcome: 'unknown', cause: new Error('user left') } },
      { reason: { code: 'Aborted', outcome: 'not-applied' } },
    ]);
    await expect(db.get('k', { signal: abort.signal })).rejects.toMatchObject({ code: 'Aborted' });
  });

  test('an answer that comes after the deadline is ignored', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.interfere = first(1, 'serve-silently');
    expect((await settle(cluster, db.put('k', 'v', { timeoutMs: 100 }))).error).toMatchObject({ outcome: 'unknown' });
    expect(text(await cluster.clock.drive(db.get('k')))).toBe('v');
  });

  test('no timer is left when no call is running', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(Promise.all([db.put('a', '1'), db.get('b')]));
    await cluster.clock.advance(20_000);
    expect(cluster.clock.pendingTimers).toBe(0);
  });
});
