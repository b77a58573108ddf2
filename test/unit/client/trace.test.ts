import { describe, expect, test } from 'vitest';
import { connectWith } from '../../../src/client/connect.ts';
import type { RpcTraceEvent, TraceEvent } from '../../../src/client/trace.ts';
import { FakeCluster } from './fake-cluster.ts';

const BUSY = { serverIsBusy: { reason: 'too many', backoffMs: 0, estimatedWaitMs: 0, appliedIndex: 0 } };

const rpcs = (events: readonly TraceEvent[]): readonly RpcTraceEvent[] =>
  events.filter((event): event is RpcTraceEvent => event.type === 'rpc');

describe('onTrace', () => {
  test('is told of every call, with its endpoint, time, region and outcome', async () => {
    const cluster = new FakeCluster();
    const events: TraceEvent[] = [];
    const db = await cluster.clock.drive(
      connectWith(cluster.env, { pd: 'pd:1', onTrace: (event) => void events.push(event) }),
    );
    await cluster.clock.drive(db.put('k', 'v'));
    await cluster.clock.drive(db.compareAndSwap('k', { expected: 'v', value: 'w' }));
    expect(events.filter(({ type }) => type === 'leader')).toMatchObject([{ endpoint: 'pd:1' }]);
    const seen = rpcs(events);
    expect(seen.map(({ method }) => method)).toEqual(
      expect.arrayContaining([
        '/pdpb.PD/GetMembers',
        '/pdpb.PD/ScanRegions',
        '/grpc.health.v1.Health/Check',
        '/tikvpb.Tikv/RawPut',
        '/tikvpb.Tikv/RawCompareAndSwap',
      ]),
    );
    expect(seen.every(({ outcome, durationMs, atMs }) => outcome === 'ok' && durationMs >= 0 && atMs >= 0)).toBe(true);
    const put = seen.find(({ method }) => method.endsWith('/RawPut')) as RpcTraceEvent;
    const { id, leader } = await cluster.clock.drive(db.locate('k'));
    expect(put).toMatchObject({ storeId: leader?.storeId, regionId: id, retries: 0, message: '' });
    expect(put.endpoint).toMatch(/^[a-z]+\d*:\d+$/);
  });

  test('is told what is tried again and why, and of calls that get no answer', async () => {
    const cluster = new FakeCluster();
    const events: TraceEvent[] = [];
    const db = await cluster.clock.drive(
      connectWith(cluster.env, { pd: 'pd:1', onTrace: (event) => void events.push(event) }),
    );
    let refusals = 2;
    cluster.interfere = () => (refusals-- > 0 ? { regionError: BUSY } : 'serve');
    await cluster.clock.drive(db.put('k', 'v'));
    const puts = rpcs(events).filter(({ method }) => method.endsWith('/RawPut'));
    expect(puts.map(({ outcome, retries }) => [outcome, retries])).toEqual([
      ['ServerIsBusy', 0],
      ['ServerIsBusy', 1],
      ['ok', 2],
    ]);
    expect(puts[0]?.message).toContain('too many');
    const retries = events.filter((event) => event.type === 'retry');
    expect(retries).toMatchObject([
      { what: 'put of "k"', attempts: 1, reason: expect.stringContaining('ServerIsBusy') },
      { attempts: 2 },
    ]);
    cluster.interfere = () => 'ignore';
    await expect(cluster.clock.drive(db.get('k', { timeoutMs: 300 }))).rejects.toMatchObject({
      code: 'DeadlineExceeded',
    });
    expect(rpcs(events).at(-1)).toMatchObject({ method: '/tikvpb.Tikv/RawGet', outcome: 'DEADLINE_EXCEEDED' });
  });

  test('a placement service that is away is seen endpoint by endpoint', async () => {
    const cluster = new FakeCluster();
    const events: TraceEvent[] = [];
    const connecting = connectWith(cluster.env, {
      pd: ['nowhere:1', 'nowhere:2'],
      connectTimeoutMs: 500,
      onTrace: (event) => void events.push(event),
    });
    await expect(cluster.clock.drive(connecting)).rejects.toMatchObject({ code: 'Unavailable' });
    expect(new Set(rpcs(events).map(({ endpoint }) => endpoint))).toEqual(new Set(['nowhere:1', 'nowhere:2']));
    expect(rpcs(events).every(({ outcome }) => outcome === 'UNAVAILABLE')).toBe(true);
    expect(events.filter(({ type }) => type === 'retry').length).toBeGreaterThan(0);
  });

  test('a hook that throws does not disturb the client, and one that is no function is refused', async () => {
    const cluster = new FakeCluster();
    const onTrace = (): never => {
      throw new Error('a bug of the user');
    };
    const db = await cluster.clock.drive(connectWith(cluster.env, { pd: 'pd:1', onTrace }));
    await cluster.clock.drive(db.put('k', 'v'));
    expect(cluster.get('k')).toBe('v');
    await expect(
      connectWith(cluster.env, { pd: 'pd:1', onTrace: 'loud' as unknown as () => void }),
    ).rejects.toMatchObject({ code: 'InvalidArgument' });
  });
});
