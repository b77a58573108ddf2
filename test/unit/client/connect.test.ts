import { describe, expect, test } from 'vitest';
import { connectWith } from '../../../src/client/connect.ts';
import type { Braid } from '../../../src/client/kv.ts';
import { all } from '../../../src/client/ranges.ts';
import { FakeCluster } from './fake-cluster.ts';

const open = (cluster: FakeCluster, pd: string | string[] = 'pd:1'): Promise<Braid> =>
  cluster.clock.drive(connectWith(cluster.env, { pd }));

describe('connect', () => {
  test('an unreachable placement service is named with every endpoint and its failure', async () => {
    const cluster = new FakeCluster();
    const startMs = cluster.clock.monoMs();
    const connecting = connectWith(cluster.env, { pd: ['nowhere:1', 'nowhere:2'], connectTimeoutMs: 700 });
    await expect(cluster.clock.drive(connecting)).rejects.toMatchObject({
      code: 'Unavailable',
      message: expect.stringMatching(/nowhere:1 \(.*connection refused.*\).*nowhere:2 \(.*connection refused.*\)/),
      details: { tried: [{ endpoint: 'nowhere:1' }, { endpoint: 'nowhere:2' }] },
    });
    expect(cluster.clock.monoMs() - startMs).toBeLessThanOrEqual(700);
  });

  test('a dark placement endpoint does not keep a good one from being used', async () => {
    const cluster = new FakeCluster();
    cluster.servePd('dark:1');
    cluster.net.setReach('dark:1', 'dark');
    const startMs = cluster.clock.monoMs();
    const db = await open(cluster, ['dark:1', 'pd:1']);
    await cluster.clock.drive(db.put('k', 'v'));
    expect(cluster.get('k')).toBe('v');
    expect(cluster.clock.monoMs() - startMs).toBeLessThanOrEqual(2300);
  });

  test('endpoints of two clusters are refused', async () => {
    const cluster = new FakeCluster();
    cluster.servePd('other:1', () => 99n);
    await expect(open(cluster, ['pd:1', 'other:1'])).rejects.toMatchObject({
      code: 'ClusterMismatch',
      message: expect.stringMatching(/pd:1 is of cluster 77.*other:1 is of cluster 99/),
    });
  });

  test('a service that turns into another cluster is refused', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.clusterId = 78n;
    await expect(cluster.clock.drive(db.regions(all()))).rejects.toMatchObject({ code: 'ClusterMismatch' });
  });

  test('it waits for a placement leader to be elected', async () => {
    const cluster = new FakeCluster();
    cluster.pdLeaderUrl = undefined;
    const connecting = connectWith(cluster.env, { pd: 'pd:1' });
    await cluster.clock.advance(500);
    cluster.pdLeaderUrl = 'http://pd:1';
    await expect(cluster.clock.drive(connecting)).resolves.toBeDefined();
  });

  test('the leader of the placement service is followed to an address the user did not give', async () => {
    const cluster = new FakeCluster();
    cluster.servePd('pd:2');
    cluster.pdLeaderUrl = 'http://pd:2';
    const db = await open(cluster);
    await cluster.clock.drive(db.put('k', 'v'));
    cluster.pdLeaderUrl = 'http://pd:1';
    cluster.net.setReach('pd:2', 'down');
    expect(await cluster.clock.drive(db.regions(all()))).toHaveLength(1);
  });

  test('a lazy connection asks nobody before the first call', async () => {
    const cluster = new FakeCluster();
    const db = await connectWith(cluster.env, { pd: 'pd:1', lazy: true });
    expect(cluster.net.dials).toBe(0);
    await cluster.clock.drive(db.put('k', 'v'));
    expect(cluster.get('k')).toBe('v');
  });

  test.each([
    ['no endpoint', { pd: [] }],
    ['an endpoint without a port', { pd: 'localhost' }],
    ['an endpoint with a path', { pd: 'http://localhost:1/x' }],
    ['a negative timeout', { pd: 'pd:1', timeoutMs: -1 }],
    ['no options at all', undefined],
  ])('%s is refused', async (_, options) => {
    const cluster = new FakeCluster();
    await expect(connectWith(cluster.env, options as never)).rejects.toMatchObject({ code: 'InvalidArgument' });
  });

  test('endpoints may be written with a scheme and in one string', async () => {
    const cluster = new FakeCluster();
    cluster.servePd('pd:2');
    await expect(open(cluster, 'http://pd:1/, pd:2')).resolves.toBeDefined();
  });
});

describe('while the placement service is away', () => {
  test('known regions are served', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.put('a', '1'));
    cluster.net.setReach('pd:1', 'down');
    await cluster.clock.drive(db.put('b', '2'));
    cluster.setLeader('a', 3);
    const startMs = cluster.clock.monoMs();
    await cluster.clock.drive(db.put('c', '3'));
    expect(cluster.clock.monoMs() - startMs).toBeLessThanOrEqual(10);
    expect(cluster.keys()).toEqual(['a', 'b', 'c']);
  });

  test('a restarted store is found again at its old address', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.put('a', '1'));
    cluster.net.setReach('pd:1', 'dark');
    cluster.stopStore(1);
    const put = db.put('b', '2');
    await cluster.clock.advance(300);
    cluster.startStore(1);
    const startMs = cluster.clock.monoMs();
    await cluster.clock.drive(put);
    expect(cluster.clock.monoMs() - startMs).toBeLessThanOrEqual(1000);
  });

  test('a call to an unknown region ends at its deadline and names the endpoints', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.net.setReach('pd:1', 'down');
    const startMs = cluster.clock.monoMs();
    await expect(cluster.clock.drive(db.put('k', 'v', { timeoutMs: 800 }))).rejects.toMatchObject({
      code: 'Unavailable',
      outcome: 'not-applied',
      message: expect.stringContaining('pd:1 (Rpc: connection refused)'),
    });
    expect(cluster.clock.monoMs() - startMs).toBeLessThanOrEqual(810);
  });

  test('calls wait for it to come back', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.net.setReach('pd:1', 'down');
    const puts = Promise.all(Array.from({ length: 50 }, (_, i) => db.put(`k${i}`, 'v')));
    await cluster.clock.advance(1500);
    cluster.net.setReach('pd:1', 'up');
    const startMs = cluster.clock.monoMs();
    await cluster.clock.drive(puts);
    expect(cluster.clock.monoMs() - startMs).toBeLessThanOrEqual(2100);
    expect(cluster.keys()).toHaveLength(50);
  });

  test('a cold client asks for many regions with few questions', async () => {
    const splits = Array.from({ length: 100 }, (_, i) => `k${String(i).padStart(3, '0')}`);
    const cluster = new FakeCluster({ splits });
    const db = await open(cluster);
    await cluster.clock.drive(Promise.all(splits.map((key) => db.put(key, 'v'))));
    expect(cluster.keys()).toHaveLength(100);
    expect(cluster.net.calls.get('/pdpb.PD/ScanRegions')).toBeLessThanOrEqual(32);
  });
});

describe('end of life', () => {
  test('close waits for running calls', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    const put = db.put('k', 'v');
    await cluster.clock.drive(db.close());
    await expect(put).resolves.toEqual({ written: true });
    expect(cluster.clock.pendingTimers).toBe(0);
  });

  test('close ends calls that do not finish in time, with what is known of their outcome', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('warm'));
    cluster.interfere = () => 'ignore';
    const startMs = cluster.clock.monoMs();
    const calls = Promise.allSettled([db.put('k', 'v'), db.get('k')]);
    await cluster.clock.drive(db.close({ drainMs: 100 }));
    expect(cluster.clock.monoMs() - startMs).toBeLessThanOrEqual(110);
    expect(await calls).toMatchObject([
      { reason: { code: 'ClientClosed', outcome: 'unknown' } },
      { reason: { code: 'ClientClosed', outcome: 'not-applied' } },
    ]);
    expect(cluster.clock.pendingTimers).toBe(0);
  });

  test('destroy ends calls in every phase at once', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(db.get('warm'));
    cluster.interfere = ({ kind }) => (kind === 'RawPut' ? { regionError: { notLeader: { regionId: 1 } } } : 'ignore');
    const calls = [db.put('backoff', 'v'), db.get('in-flight')];
    await cluster.clock.advance(20);
    calls.push(db.delete('queued') as Promise<never>);
    const outcomes = Promise.allSettled(calls);
    db.destroy();
    expect(await outcomes).toMatchObject(calls.map(() => ({ reason: { code: 'ClientClosed' } })));
    await cluster.clock.advance(10_000);
    expect(cluster.clock.pendingTimers).toBe(0);
  });

  test('destroy ends calls that wait for a route', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    cluster.net.setReach('pd:1', 'dark');
    const put = db.put('k', 'v');
    await cluster.clock.advance(50);
    db.destroy();
    await expect(put).rejects.toMatchObject({ code: 'ClientClosed', outcome: 'not-applied' });
    await cluster.clock.advance(10_000);
    expect(cluster.clock.pendingTimers).toBe(0);
  });

  test('calls after close are refused in all views', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    const view = db.sub('x');
    await cluster.clock.drive(db.close());
    for (const call of [
      view.get('k'),
      view.getMany(['k']),
      view.writeMany([]),
      view.deleteRange(all()),
      view.regions(all()),
    ]) {
      await expect(call).rejects.toMatchObject({ code: 'ClientClosed' });
    }
    await expect(view.scan(all()).toArray()).rejects.toMatchObject({ code: 'ClientClosed' });
  });

  test('closing twice is fine, and so is destroying a closed client', async () => {
    const cluster = new FakeCluster();
    const db = await open(cluster);
    await cluster.clock.drive(Promise.all([db.close(), db.close()]));
    db.destroy();
  });

  test('await using closes the connection at the end of the block', async () => {
    const cluster = new FakeCluster();
    let outside: Braid | undefined;
    const run = async (): Promise<void> => {
      await using db = await connectWith(cluster.env, { pd: 'pd:1' });
      outside = db;
      await db.put('k', 'v');
    };
    await cluster.clock.drive(run());
    expect(cluster.get('k')).toBe('v');
    await expect(outside?.get('k')).rejects.toMatchObject({ code: 'ClientClosed' });
  });
});
