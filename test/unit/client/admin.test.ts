import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import type { AdminClient } from '../../../src/client/admin.ts';
import { connectWith } from '../../../src/client/connect.ts';
import type { OperatorInfo } from '../../../src/client/admin-wire.ts';
import { RpcError, RpcStatus } from '../../../src/env/net.ts';
import type { Method } from '../../../src/rpc/method.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { adminMethods } from '../../../src/rpc/services.ts';
import { FakeCluster, PD_ADDRESS } from './fake-cluster.ts';

type ReplyOf<M> = M extends Method<infer _Request, infer R> ? R : never;
type WireOperator = NonNullable<ReplyOf<typeof adminMethods.getOperator>['operator']>;
type WireStep = WireOperator['steps'][number];

const step = (more: Partial<WireStep> = {}): WireStep => ({
  type: 'transfer-leader',
  text: 'transfer leadership to store 2',
  state: 1,
  startedUnixMs: 0,
  finishedUnixMs: 0,
  detail: '',
  current: true,
  sends: 1,
  phase: 'transfer',
  timeoutMs: 1000,
  ...more,
});

const operator = (more: Partial<WireOperator> = {}): WireOperator => ({
  id: 5,
  regionId: 7,
  relatedRegionId: 0,
  relatedOperatorId: 0,
  desc: 'admin-transfer-leader',
  brief: 'transfer leader of region 7 to store 2',
  kinds: ['admin', 'leader'],
  priority: 2,
  status: 2,
  reasonCode: '',
  reason: '',
  hint: '',
  createdUnixMs: 1,
  startedUnixMs: 2,
  finishedUnixMs: 0,
  timeoutMs: 60_000,
  epoch: { confVer: 1, version: 2 },
  steps: [step()],
  phases: [],
  cancelable: true,
  isMergeSource: false,
  isMergeTarget: false,
  note: '',
  lastRefusal: undefined,
  ...more,
});

const refusal = {
  code: 'NotAdjacent',
  message: 'regions 1 and 3 do not touch',
  hint: 'merge neighbours',
  details: new Map([['region_id', '3']]),
};

interface Service {
  readonly cluster: FakeCluster;
  readonly admin: AdminClient;
  readonly requests: unknown[];
}

async function open(build: (builder: ServiceBuilder, requests: unknown[]) => ServiceBuilder): Promise<Service> {
  const cluster = new FakeCluster();
  const requests: unknown[] = [];
  cluster.servePd(PD_ADDRESS, () => cluster.clusterId, build(new ServiceBuilder(), requests).build());
  const db = await cluster.clock.drive(connectWith(cluster.env, { pd: PD_ADDRESS, name: 'tester' }));
  return { cluster, admin: db.admin(), requests };
}

describe('AdminClient', () => {
  test('a refusal becomes an error with its stable word, and nothing is sent twice', async () => {
    const { cluster, admin, requests } = await open((builder, log) =>
      builder.unary(adminMethods.mergeRegion, (request) => {
        log.push(request);
        return { refusal, nothingToDo: false };
      }),
    );
    await expect(
      cluster.clock.drive(admin.mergeRegions({ source: 1, target: 3 }, { reason: 'test' })),
    ).rejects.toMatchObject({
      code: 'Refused',
      reason: 'NotAdjacent',
      message: 'regions 1 and 3 do not touch',
      hint: 'merge neighbours',
      details: { region_id: '3' },
    });
    expect(requests).toMatchObject([
      {
        header: { clusterId: '77', actor: 'tester' },
        sourceId: 1,
        targetId: 3,
        options: { dryRun: false, reason: 'test' },
      },
    ]);
  });

  test('submissions tell whether something was started, planned or not needed', async () => {
    const { cluster, admin } = await open((builder) =>
      builder.unary(adminMethods.transferLeader, ({ toStore, options }) =>
        toStore === 1
          ? { nothingToDo: true }
          : { operator: operator({ id: options?.dryRun === true ? 0 : 5 }), nothingToDo: false },
      ),
    );
    const { clock } = cluster;
    expect(await clock.drive(admin.transferLeader(7, 1))).toEqual({ type: 'nothing-to-do' });
    expect(await clock.drive(admin.transferLeader(7, 2))).toMatchObject({
      type: 'started',
      operator: { id: 5, status: 'running' },
    });
    expect(await clock.drive(admin.transferLeader(7, 2, { dryRun: true }))).toMatchObject({
      type: 'planned',
      operator: { id: 0 },
    });
  });

  test('a change whose answer is lost is not repeated and its outcome is unknown', async () => {
    let calls = 0;
    const { cluster, admin } = await open((builder) =>
      builder.unary(adminMethods.moveRegion, () => {
        calls++;
        throw new RpcError(RpcStatus.UNAVAILABLE, 'connection reset');
      }),
    );
    await expect(cluster.clock.drive(admin.moveRegion(7, { fromStore: 1, toStore: 2 }))).rejects.toMatchObject({
      code: 'Unavailable',
      outcome: 'unknown',
    });
    expect(calls).toBe(1);
  });

  test('a change sent to a member that does not lead is sent to the leader', async () => {
    let calls = 0;
    const { cluster, admin } = await open((builder) =>
      builder.unary(adminMethods.splitRegion, ({ keys, policy }) => {
        if (calls++ === 0) {
          throw new RpcError(RpcStatus.UNAVAILABLE, 'not leader');
        }
        expect([keys.map((key) => Buffer.from(key).toString()), policy]).toEqual([['m'], 0]);
        return { operator: operator(), nothingToDo: false };
      }),
    );
    expect(await cluster.clock.drive(admin.splitRegion(7, [utf8('m')]))).toMatchObject({ type: 'started' });
    expect(calls).toBe(2);
  });

  test('waitOperator reports each change once and returns the successful end', async () => {
    const states = [
      operator(),
      operator(),
      operator({ steps: [step({ detail: 'snapshot in flight' })] }),
      operator({ status: 3, steps: [step({ state: 2, current: false })] }),
    ];
    const { cluster, admin } = await open((builder) =>
      builder.unary(adminMethods.getOperator, () => ({ operator: states.length > 1 ? states.shift() : states[0] })),
    );
    const seen: OperatorInfo[] = [];
    const end = await cluster.clock.drive(admin.waitOperator(5, { onProgress: (each) => seen.push(each) }));
    expect(end.status).toBe('success');
    expect(seen.map(({ status, steps }) => [status, steps[0]?.detail])).toEqual([
      ['running', ''],
      ['running', 'snapshot in flight'],
      ['success', ''],
    ]);
  });

  test('waitOperator lets the service hold the answer when nobody watches', async () => {
    let asked = 0;
    const { cluster, admin } = await open((builder) =>
      builder.unary(adminMethods.getOperator, async ({ waitMs }) => {
        asked++;
        if (waitMs > 0) {
          await new Promise<void>((resolve) => cluster.clock.setTimer(5000, resolve, 'hold'));
          return { operator: operator({ status: 3 }) };
        }
        return { operator: operator() };
      }),
    );
    await cluster.clock.drive(admin.waitOperator(5));
    expect(asked).toBe(2);
  });

  test('waitOperator throws when the operator failed, with its reason', async () => {
    const { cluster, admin } = await open((builder) =>
      builder.unary(adminMethods.getOperator, () => ({
        operator: operator({
          status: 7,
          reasonCode: 'StoreDisconnected',
          reason: 'store 2 is silent',
          hint: 'look at store 2',
        }),
      })),
    );
    await expect(cluster.clock.drive(admin.waitOperator(5))).rejects.toMatchObject({
      code: 'OperatorFailed',
      message: expect.stringMatching(/ended as timeout: store 2 is silent/),
      hint: 'look at store 2',
      details: { reasonCode: 'StoreDisconnected' },
    });
  });

  test('waitOperator ends at its deadline and says that the operator goes on', async () => {
    const { cluster, admin } = await open((builder) =>
      builder.unary(adminMethods.getOperator, () => ({ operator: operator() })),
    );
    const startMs = cluster.clock.monoMs();
    await expect(
      cluster.clock.drive(admin.waitOperator(5, { timeoutMs: 700, onProgress: () => {} })),
    ).rejects.toMatchObject({
      code: 'DeadlineExceeded',
      hint: 'it goes on; look at it again with its id 5',
    });
    expect(cluster.clock.monoMs() - startMs).toBeLessThanOrEqual(800);
  });

  test('regions are collected over pages with the holes between them', async () => {
    const region = (id: number) => ({
      id,
      startKey: Uint8Array.of(id),
      endKey: Uint8Array.of(id + 1),
      epoch: { confVer: 1, version: id },
      peers: [{ id: id * 10, storeId: 1, role: 1 as const }],
      term: 3,
      sizeBytes: 5,
      keys: 6,
      downPeers: [],
      pendingPeers: [],
      operatorId: 0,
      merging: false,
      bytesWrittenPerSecond: 0,
      bytesReadPerSecond: 0,
      lastReportAgeMs: 0,
      reportSeen: false,
      pinned: false,
      partition: '',
      consistency: undefined,
      damagedPeerIds: [],
    });
    const { cluster, admin, requests } = await open((builder, log) =>
      builder.unary(adminMethods.listRegions, (request) => {
        log.push(request);
        return request.start.length === 0
          ? {
              regions: [region(1)],
              more: true,
              nextStart: Uint8Array.of(2),
              holes: [{ startKey: Uint8Array.of(2), endKey: Uint8Array.of(5) }],
            }
          : { regions: [region(5)], more: false, nextStart: new Uint8Array(0), holes: [] };
      }),
    );
    const list = await cluster.clock.drive(admin.regions({ filter: 'learner' }));
    expect(list.regions).toMatchObject([
      {
        id: 1,
        leader: undefined,
        operatorId: undefined,
        lastReportAgeMs: undefined,
        peers: [{ id: 10, storeId: 1, role: 'learner' }],
      },
      { id: 5 },
    ]);
    expect(list.holes).toEqual([{ start: Uint8Array.of(2), end: Uint8Array.of(5) }]);
    expect(requests).toMatchObject([{ filter: 7 }, { filter: 7 }]);
  });

  test('an unknown option is refused before anything is sent', async () => {
    const { admin } = await open((builder) => builder);
    await expect(admin.mergeRegions({ source: 1, target: 2 }, { dryrun: true } as object)).rejects.toMatchObject({
      code: 'InvalidArgument',
      hint: 'did you mean dryRun?',
    });
  });

  test('an aborted wait ends at once', async () => {
    const { cluster, admin } = await open((builder) =>
      builder.unary(adminMethods.getOperator, () => new Promise(() => {})),
    );
    const abort = new AbortController();
    const waiting = admin.waitOperator(5, { signal: abort.signal });
    await cluster.clock.advance(10);
    abort.abort(new Error('enough'));
    const startMs = cluster.clock.monoMs();
    await expect(cluster.clock.drive(waiting)).rejects.toMatchObject({ code: 'Aborted' });
    expect(cluster.clock.monoMs()).toBe(startMs);
  });
});
