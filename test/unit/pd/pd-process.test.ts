/** The placement process over real gRPC on loopback, with a simulated disk. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EMPTY_BYTES, utf8 } from '../../../src/base/bytes.ts';
import { MemoryDisk } from '../../../src/engine/memory/crash-model.ts';
import { createMemoryEngineFactory } from '../../../src/engine/memory/memory-engine.ts';
import type { Env } from '../../../src/env/env.ts';
import { type Channel, RpcError, RpcStatus, type StreamEnd } from '../../../src/env/net.ts';
import { NO_FAILPOINTS } from '../../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import { realClock } from '../../../src/env/real/index.ts';
import { createRng } from '../../../src/env/rng.ts';
import {
  type ChangeSchedulerRequest,
  OperatorStatus,
  RegionFilter,
  SplitPolicy,
  StoreState,
  StoreTarget,
} from '../../../src/gen/braid/admin/v1/admin.ts';
import { toWireRegion } from '../../../src/codec/meta-wire.ts';
import { ConfChangeType } from '../../../src/gen/eraftpb.ts';
import { HealthCheckResponse_ServingStatus as Serving } from '../../../src/gen/grpc/health/v1/health.ts';
import { NodeState, type Region as WireRegion, type Store as WireStore } from '../../../src/gen/metapb.ts';
import {
  ErrorType,
  type QueryRegionResponse,
  type RegionHeartbeatResponse,
  ServiceMode,
  type TsoResponse,
} from '../../../src/gen/pdpb.ts';
import type { RegionReport } from '../../../src/gen/braid/placement/v1/placement.ts';
import { type TypedStream, openStream, unaryCall } from '../../../src/rpc/call.ts';
import { type GrpcNet, createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import type { StreamMethod, UnaryMethod } from '../../../src/rpc/method.ts';
import {
  adminMethods,
  healthMethods,
  metaStorageMethods,
  pdMethods,
  placementMethods,
} from '../../../src/rpc/services.ts';
import { PdConfigError, type PdConfigInput, pdConfig } from '../../../src/server/pd/config.ts';
import { type PdProcess, startPd } from '../../../src/server/pd/pd-process.ts';
import { type RegionSpec, makeRegion } from './world.ts';

const CALL = { timeoutMs: 5_000 };

const wireStore = (id: number, address = `127.0.0.1:${20_000 + id}`): WireStore => ({
  id,
  address,
  state: 0,
  labels: [{ key: 'host', value: `h${id}` }],
  version: '8.5.0',
  peerAddress: '',
  statusAddress: '',
  gitHash: '',
  startTimestamp: 7,
  deployPath: '',
  lastHeartbeat: '0',
  physicallyDestroyed: false,
  nodeState: 0,
});

const wireRegion = (spec: RegionSpec): WireRegion => toWireRegion(makeRegion(spec));

const report = (clusterId: string, region: WireRegion, leader = 0): RegionReport => ({
  merging: false,
  heartbeat: {
    header: { clusterId, senderId: 0, callerId: '', callerComponent: '' },
    region,
    leader: region.peers[leader],
    downPeers: [],
    pendingPeers: [],
    bytesWritten: 0,
    bytesRead: 0,
    keysWritten: 0,
    keysRead: 0,
    approximateSize: 100,
    approximateKeys: 5,
    interval: { startTimestamp: 0, endTimestamp: 1 },
    term: 6,
  },
});

/** Messages of a stream in order; waits for the next one. */
class Inbox<Out, In> {
  readonly stream: TypedStream<Out, In>;
  readonly ended: Promise<StreamEnd>;
  readonly #messages: In[] = [];
  #wake: (() => void) | undefined;

  constructor(stream: TypedStream<Out, In>) {
    this.stream = stream;
    stream.onMessage = (message) => {
      this.#messages.push(message);
      this.#wake?.();
    };
    this.ended = new Promise((resolve) => {
      stream.onEnd = resolve;
    });
  }

  async next(): Promise<In> {
    while (this.#messages.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#messages.shift() as In;
  }
}

describe('placement process', () => {
  let net: GrpcNet;
  let disk: MemoryDisk;
  let pd: PdProcess;
  let channel: Channel;

  function makeEnv(): Env {
    const clock = realClock();
    return {
      clock,
      rng: createRng(4),
      net,
      engines: createMemoryEngineFactory(disk, clock),
      failpoints: NO_FAILPOINTS,
      log: SILENT_LOGGER,
      abort: (_kind, reason, cause) => {
        throw new Error(`aborted: ${reason}`, { cause });
      },
    };
  }

  async function start(): Promise<void> {
    pd = await startPd({ env: makeEnv(), config: { dataDir: 'pd', listenAddress: '127.0.0.1:0', closeGraceMs: 50 } });
    channel = net.dial(pd.address);
  }

  beforeEach(async () => {
    net = createGrpcNet();
    disk = new MemoryDisk(createRng(2), { writeDelayMs: [0, 1], readDelayMs: [0, 1] });
    await start();
  });

  afterEach(async () => {
    await pd.close();
    await net.close(0);
  });

  const header = () => ({ clusterId: String(pd.clusterId), senderId: 0, callerId: '', callerComponent: '' });
  const adminHeader = () => ({ clusterId: String(pd.clusterId), actor: 'tester' });

  function ask<Request, Reply>(method: UnaryMethod<Request, Reply>, request: Omit<Request, 'header'>): Promise<Reply> {
    return unaryCall(channel, method, { header: header(), ...request } as Request, CALL);
  }

  function admin<Request, Reply>(
    method: UnaryMethod<Request, Reply>,
    request: Omit<Request, 'header'>,
  ): Promise<Reply> {
    return unaryCall(channel, method, { header: adminHeader(), ...request } as Request, CALL);
  }

  const open = <Request, Reply>(method: StreamMethod<Request, Reply>): Inbox<Request, Reply> =>
    new Inbox(openStream(channel, method));

  /** Stores 1, 2 and 3 and the first region 2 led by store 1, or the given regions. */
  async function cluster(
    specs: readonly RegionSpec[] = [{ id: 2, on: ['1', '2', '3'], version: 2 }],
  ): Promise<Inbox<RegionReport, RegionHeartbeatResponse>> {
    // Stores ask for their ids before they use them; the ids below 1000 are the ones these tests write down.
    await ask(pdMethods.allocID, { count: 999 });
    await ask(pdMethods.bootstrap, { store: wireStore(1), region: wireRegion({ id: 2, on: ['1'] }) });
    for (const id of [1, 2, 3]) {
      expect((await ask(pdMethods.putStore, { store: wireStore(id) })).header?.error).toBeUndefined();
    }
    const reports = open(placementMethods.regionReports);
    for (const spec of specs) {
      reports.stream.send(report(String(pd.clusterId), wireRegion(spec)));
    }
    const last = specs.at(-1) as RegionSpec;
    await until(async () => {
      const found = await ask(pdMethods.getRegionByID, { regionId: last.id, needBuckets: false });
      return found.leader !== undefined;
    });
    return reports;
  }

  async function until(condition: () => Promise<boolean>): Promise<void> {
    for (let i = 0; i < 2_000; i++) {
      if (await condition()) {
        return;
      }
    }
    throw new Error('the condition never became true');
  }

  test('members are announced with a URL that has a scheme, and the cluster runs as one service', async () => {
    const members = await unaryCall(channel, pdMethods.getMembers, { header: undefined }, CALL);
    expect(members.header?.clusterId).toBe(String(pd.clusterId));
    expect(members.leader?.clientUrls).toEqual([`http://${pd.address}`]);
    expect(members.members).toEqual([members.leader]);
    expect(members.leader?.memberId).not.toBe('0');
    const info = await unaryCall(channel, pdMethods.getClusterInfo, { header: undefined }, CALL);
    expect(info.serviceModes).toEqual([ServiceMode.PD_SVC_MODE]);
  });

  test('health is serving and the registry of other services is empty', async () => {
    expect((await unaryCall(channel, healthMethods.check, { service: '' }, CALL)).status).toBe(Serving.SERVING);
    const reply = await unaryCall(
      channel,
      metaStorageMethods.get,
      {
        header: { clusterId: String(pd.clusterId), source: '' },
        key: utf8('/ms/'),
        rangeEnd: utf8('/ms0'),
        limit: 0,
        revision: 0,
      },
      CALL,
    );
    expect([reply.kvs, reply.header?.error]).toEqual([[], undefined]);
  });

  test('a data directory that is in use, of another cluster or missing is refused with a hint', async () => {
    const second = (config: Partial<PdConfigInput>) =>
      startPd({ env: makeEnv(), config: { dataDir: 'pd', listenAddress: '127.0.0.1:0', ...config } });
    const refusal = { code: 'EngineOpen', hint: expect.stringMatching(/./u) };
    await expect(second({})).rejects.toMatchObject(refusal);
    await expect(second({ dataDir: 'elsewhere', createIfMissing: false })).rejects.toMatchObject(refusal);
    await pd.close();
    await expect(second({ clusterId: pd.clusterId + 1n })).rejects.toMatchObject(refusal);
    await start();
  });

  test('an address that is taken or that nobody can reach is refused, and the data directory is free afterwards', async () => {
    const taken = startPd({ env: makeEnv(), config: { dataDir: 'other', listenAddress: pd.address } });
    await expect(taken).rejects.toMatchObject({ code: 'Listen', hint: expect.stringContaining('another address') });
    const unreachable = startPd({ env: makeEnv(), config: { dataDir: 'other', listenAddress: '0.0.0.0:0' } });
    await expect(unreachable).rejects.toMatchObject({
      code: 'BadConfig',
      message: expect.stringContaining('advertiseAddress'),
    });
    const config = { dataDir: 'other', listenAddress: '0.0.0.0:0', advertiseAddress: 'pd.example:2379' };
    await using advertised = await startPd({ env: makeEnv(), config });
    expect([advertised.address, advertised.clientUrl]).toEqual(['pd.example:2379', 'http://pd.example:2379']);
  });

  test.each([
    ['no replicas', { cluster: { maxReplicas: 0 } }],
    ['down before disconnected', { cluster: { storeDownMs: 10, storeDisconnectedMs: 20 } }],
    ['a member id of 0', { memberId: 0 }],
    ['no directory', { dataDir: '' }],
    ['a cluster id beyond 2^53', { clusterId: 2n ** 53n }],
  ])('settings that cannot work are refused: %s', (_what, input) => {
    expect(() => pdConfig({ dataDir: 'x', ...input })).toThrow(PdConfigError);
  });

  test('calls for another cluster or another member are refused', async () => {
    const wrong = { clusterId: '12345', senderId: 0, callerId: '', callerComponent: '' };
    await expect(
      unaryCall(channel, pdMethods.getRegion, { header: wrong, regionKey: EMPTY_BYTES, needBuckets: false }, CALL),
    ).rejects.toMatchObject({
      status: RpcStatus.FAILED_PRECONDITION,
      message: expect.stringContaining('mismatch cluster id'),
    });
    const forwarded = (host: string) =>
      unaryCall(
        channel,
        pdMethods.isBootstrapped,
        { header: header() },
        { ...CALL, metadata: { 'pd-forwarded-host': host } },
      );
    await expect(forwarded('http://10.9.9.9:2379')).rejects.toMatchObject({ status: RpcStatus.UNAVAILABLE });
    expect((await forwarded(`http://${pd.address}`)).bootstrapped).toBe(false);
  });

  test('before the bootstrap calls say so, after it the first region serves every key', async () => {
    expect((await ask(pdMethods.getRegion, { regionKey: utf8('k'), needBuckets: false })).header?.error?.type).toBe(
      ErrorType.NOT_BOOTSTRAPPED,
    );
    expect(
      (await ask(pdMethods.bootstrap, { store: wireStore(1), region: wireRegion({ id: 2, on: ['1'] }) })).header?.error,
    ).toBeUndefined();
    const again = await ask(pdMethods.bootstrap, { store: wireStore(4), region: wireRegion({ id: 5, on: ['4'] }) });
    expect(again.header?.error?.type).toBe(ErrorType.ALREADY_BOOTSTRAPPED);
    const found = await ask(pdMethods.getRegion, { regionKey: utf8('k'), needBuckets: false });
    expect([found.region?.id, found.leader]).toEqual([2, undefined]);
  });

  test('stores are listed; an unknown one fails the call because old clients ignore header errors', async () => {
    await cluster();
    const stores = await ask(pdMethods.getAllStores, { excludeTombstoneStores: true });
    expect(stores.stores.map((store) => [store.id, store.nodeState])).toEqual(
      [1, 2, 3].map((id) => [id, NodeState.Serving]),
    );
    expect((await ask(pdMethods.getStore, { storeId: 2 })).store?.address).toBe('127.0.0.1:20002');
    await expect(ask(pdMethods.getStore, { storeId: 99 })).rejects.toBeInstanceOf(RpcError);
    const duplicate = await ask(pdMethods.putStore, { store: wireStore(9, '127.0.0.1:20002') });
    expect(duplicate.header?.error?.type).toBe(ErrorType.DUPLICATED_ENTRY);
  });

  test('ids come in blocks and the last one is answered', async () => {
    const one = await ask(pdMethods.allocID, { count: 0 });
    const ten = await ask(pdMethods.allocID, { count: 10 });
    expect([one.count, ten.count, ten.id - one.id]).toEqual([1, 10, 10]);
  });

  test('look-ups by key, by id, in order and in batches agree', async () => {
    const reports = await cluster([
      { id: 2, start: 'm', end: '', on: ['1', '2', '3'], version: 2 },
      { id: 3, start: '', end: 'c', on: ['1', '2', '3'], version: 2 },
      { id: 4, start: 'c', end: 'k', on: ['1', '2', '3'], version: 2 },
    ]);
    const one = async (regionKey: string) =>
      (await ask(pdMethods.getRegion, { regionKey: utf8(regionKey), needBuckets: false })).region?.id;
    expect([await one(''), await one('c'), await one('l'), await one('zz')]).toEqual([3, 4, undefined, 2]);
    const previous = await ask(pdMethods.getPrevRegion, { regionKey: utf8('d'), needBuckets: false });
    expect([previous.region?.id, previous.leader?.storeId]).toEqual([3, 1]);
    const scan = await ask(pdMethods.scanRegions, { startKey: utf8('b'), endKey: EMPTY_BYTES, limit: 2 });
    expect(scan.regions.map((entry) => entry.region?.id)).toEqual([3, 4]);
    expect([scan.regionMetas.length, scan.leaders.length]).toEqual([2, 2]);
    const ranges = [
      { startKey: utf8('a'), endKey: utf8('b') },
      { startKey: utf8('b'), endKey: utf8('d') },
    ];
    const batch = await ask(pdMethods.batchScanRegions, {
      ranges,
      limit: 10,
      needBuckets: false,
      containAllKeyRange: true,
    });
    expect(batch.regions.map((entry) => entry.region?.id)).toEqual([3, 4]);
    const hole = await ask(pdMethods.batchScanRegions, {
      ranges: [{ startKey: utf8('d'), endKey: utf8('n') }],
      limit: 10,
      needBuckets: false,
      containAllKeyRange: true,
    });
    expect(hole.header?.error?.type).toBe(ErrorType.REGIONS_NOT_CONTAIN_ALL_KEY_RANGE);
    const unsorted = await ask(pdMethods.batchScanRegions, {
      ranges: ranges.toReversed(),
      limit: 10,
      needBuckets: false,
      containAllKeyRange: false,
    });
    expect(unsorted.header?.error?.type).toBe(ErrorType.UNKNOWN);
    reports.stream.end();
    expect((await reports.ended).status).toBe(RpcStatus.OK);
  });

  test('a batch of look-ups has exactly one answer per key, in order, on one stream', async () => {
    await cluster([
      { id: 2, start: 'm', end: '', on: ['1'], version: 2 },
      { id: 3, start: '', end: 'c', on: ['1'], version: 2 },
    ]);
    const queries = open(pdMethods.queryRegion);
    const query = (keys: readonly string[], prevKeys: readonly string[], ids: readonly number[]): void => {
      queries.stream.send({
        header: header(),
        needBuckets: true,
        ids: [...ids],
        keys: keys.map(utf8),
        prevKeys: prevKeys.map(utf8),
      });
    };
    query(['a', 'd', 'z'], ['z'], [3, 77]);
    query([], [], []);
    const first: QueryRegionResponse = await queries.next();
    expect([first.keyIdMap, first.prevKeyIdMap, new Set(first.regionsById.keys())]).toEqual([
      [3, 0, 2],
      [0],
      new Set([2, 3]),
    ]);
    expect(first.regionsById.get(2)?.leader?.storeId).toBe(1);
    const second = await queries.next();
    expect([second.keyIdMap, second.prevKeyIdMap, second.regionsById.size]).toEqual([[], [], 0]);
    queries.stream.send({
      header: { ...header(), clusterId: '9' },
      needBuckets: false,
      ids: [],
      keys: [],
      prevKeys: [],
    });
    expect((await queries.ended).status).toBe(RpcStatus.FAILED_PRECONDITION);
  });

  test('timestamps grow over streams and restarts; a stream ends after its last answer', async () => {
    const value = (reply: TsoResponse): bigint =>
      BigInt(reply.timestamp?.physical ?? 0) * 2n ** 18n + BigInt(reply.timestamp?.logical ?? 0);
    let last = 0n;
    for (let life = 0; life < 2; life++) {
      const tso = open(pdMethods.tso);
      for (const count of [1, 10, 1_000]) {
        tso.stream.send({ header: header(), count, dcLocation: '' });
      }
      tso.stream.end();
      for (const count of [1, 10, 1_000]) {
        const reply = await tso.next();
        expect(reply.count).toBe(count);
        expect(value(reply) - BigInt(count) >= last).toBe(true);
        last = value(reply);
      }
      expect((await tso.ended).status).toBe(RpcStatus.OK);
      await pd.close();
      await start();
    }
  });

  test('a malformed report is told so, an outdated one is dropped silently', async () => {
    const reports = await cluster();
    reports.stream.send(report(String(pd.clusterId), wireRegion({ id: 2, on: ['1'], version: 1 })));
    const region = wireRegion({ id: 2, on: ['1', '2'], version: 9 });
    reports.stream.send(report(String(pd.clusterId), { ...region, startKey: utf8('b'), endKey: utf8('a') }));
    const answer = await reports.next();
    expect([answer.regionId, answer.header?.error?.type]).toEqual([2, ErrorType.INVALID_VALUE]);
    expect((await ask(pdMethods.getRegionByID, { regionId: 2, needBuckets: false })).region?.regionEpoch?.version).toBe(
      2,
    );
  });

  test('the public heartbeat stream works like the own one', async () => {
    await cluster();
    const heartbeats = open(pdMethods.regionHeartbeat);
    const { heartbeat } = report(String(pd.clusterId), wireRegion({ id: 2, on: ['1', '2', '3'], version: 3 }));
    heartbeats.stream.send(heartbeat as NonNullable<typeof heartbeat>);
    await until(
      async () =>
        (await ask(pdMethods.getRegionByID, { regionId: 2, needBuckets: false })).region?.regionEpoch?.version === 3,
    );
    const submitted = await admin(adminMethods.transferLeader, { regionId: 2, toStore: 3, options: undefined });
    expect(submitted.refusal).toBeUndefined();
    expect((await heartbeats.next()).transferLeader?.peer?.storeId).toBe(3);
  });

  test('an administrator merges: the command goes out, the report of the target ends it, waiting tells how', async () => {
    const reports = await cluster([
      { id: 2, start: 'm', end: '', on: ['1', '2', '3'], version: 2 },
      { id: 3, start: '', end: 'm', on: ['1', '2', '3'], version: 2 },
    ]);
    const submitted = await admin(adminMethods.mergeRegion, { sourceId: 3, targetId: 2, options: undefined });
    expect(submitted.refusal).toBeUndefined();
    const id = submitted.operator?.id ?? 0;
    expect(submitted.operator?.phases.map((phase) => phase.name)).toEqual(['align', 'prepare', 'catch-up', 'commit']);
    const command = await reports.next();
    expect([command.regionId, command.merge?.target?.id, command.targetPeer?.storeId]).toEqual([3, 2, 1]);
    const waiting = admin(adminMethods.getOperator, { which: { $case: 'id', value: id }, waitMs: 4_000 });
    reports.stream.send(report(String(pd.clusterId), wireRegion({ id: 2, on: ['1', '2', '3'], version: 4 })));
    const ended = await waiting;
    expect(ended.operator?.status).toBe(OperatorStatus.OPERATOR_STATUS_SUCCESS);
    const finished = await admin(adminMethods.finishedOperators, { limit: 0, regionId: 0, sinceUnixMs: 0 });
    expect(new Set(finished.operators.map((operator) => operator.regionId))).toEqual(new Set([2, 3]));
    const missing = await admin(adminMethods.getRegion, { which: { $case: 'id', value: 3 } });
    expect(missing.refusal).toMatchObject({ code: 'RegionNotFound' });
    const events = await admin(adminMethods.listEvents, { afterSequence: 0, afterTerm: 0, limit: 0 });
    expect(events.events.map((event) => event.type)).toContain('merge');
    expect((await ask(pdMethods.getOperator, { regionId: 3 })).status).toBe(0);
  });

  test('refusals are values with a code, a message and a hint', async () => {
    await cluster();
    const refused = await admin(adminMethods.mergeRegion, { sourceId: 2, targetId: 2, options: undefined });
    expect(refused.refusal).toMatchObject({ code: 'SameRegion' });
    expect(refused.refusal?.hint).not.toBe('');
    expect(refused.operator).toBeUndefined();
    const noKeys = await admin(adminMethods.splitRegion, {
      regionId: 2,
      policy: SplitPolicy.SPLIT_POLICY_USE_KEYS,
      keys: [],
      options: undefined,
    });
    expect(noKeys.refusal?.code).toBe('NoSplitKeys');
    const unknown = await admin(adminMethods.cancelOperator, { which: { $case: 'id', value: 4_711 } });
    expect(unknown.refusal?.code).toBe('OperatorNotFound');
    const explained = await admin(adminMethods.explainMerge, { sourceId: 2, targetId: 9, automatic: false });
    expect([explained.allowed, explained.checks.find((check) => !check.passed)?.refusal?.code]).toEqual([
      false,
      'RegionNotFound',
    ]);
  });

  test('a move is shown step by step and can be canceled', async () => {
    const reports = await cluster([{ id: 2, on: ['1', '2'], version: 2 }]);
    const moved = await admin(adminMethods.moveRegion, {
      regionId: 2,
      fromStore: 2,
      toStore: 3,
      options: { dryRun: true, expectEpoch: undefined, reason: '' },
    });
    expect([moved.operator?.id, moved.operator?.steps.length]).toEqual([0, 4]);
    const started = await admin(adminMethods.moveRegion, {
      regionId: 2,
      fromStore: 2,
      toStore: 3,
      options: { dryRun: false, expectEpoch: undefined, reason: 'test' },
    });
    const command = await reports.next();
    expect(command.changePeer?.changeType).toBe(ConfChangeType.AddLearnerNode);
    const running = await admin(adminMethods.listOperators, { kind: 'admin', includeWaiting: true });
    expect(running.operators.map((operator) => [operator.id, operator.note])).toEqual([[started.operator?.id, 'test']]);
    expect(running.operators[0]?.steps.map((step) => step.current)).toEqual([true, false, false, false]);
    const canceled = await admin(adminMethods.cancelOperator, { which: { $case: 'regionId', value: 2 } });
    expect([canceled.operator?.status, canceled.operator?.reasonCode]).toEqual([
      OperatorStatus.OPERATOR_STATUS_CANCELED,
      'AdminStop',
    ]);
  });

  test('status, stores, regions and switches are shown', async () => {
    await cluster();
    const stats = {
      storeId: 1,
      capacity: 1_000,
      available: 600,
      regionCount: 1,
      sendingSnapCount: 0,
      receivingSnapCount: 0,
      startTime: 7,
      applyingSnapCount: 0,
      isBusy: false,
      usedSize: 400,
      bytesWritten: 0,
      keysWritten: 0,
      bytesRead: 0,
      keysRead: 0,
      interval: undefined,
      slowScore: 0,
      isStopping: false,
    };
    expect((await ask(pdMethods.storeHeartbeat, { stats })).state).toBe(NodeState.Serving);
    const status = await admin(adminMethods.getStatus, {});
    expect(status).toMatchObject({
      clusterId: String(pd.clusterId),
      bootstrapped: true,
      stores: { up: 3, capacityBytes: 1_000 },
      regions: { total: 1, holes: 0, reported: 1 },
      problems: [],
    });
    const stores = await admin(adminMethods.listStores, { includeRemoved: false });
    expect(stores.stores.map((store) => [store.state, store.regionCount, store.leaderCount])).toEqual([
      [StoreState.STORE_STATE_UP, 1, 1],
      [StoreState.STORE_STATE_UP, 1, 0],
      [StoreState.STORE_STATE_UP, 1, 0],
    ]);
    const regions = await admin(adminMethods.listRegions, {
      limit: 0,
      start: EMPTY_BYTES,
      end: EMPTY_BYTES,
      storeId: 2,
      filter: RegionFilter.REGION_FILTER_ALL,
    });
    expect([regions.regions.map((region) => region.id), regions.more]).toEqual([[2], false]);
    const tooFew = await admin(adminMethods.setStoreState, {
      storeId: 3,
      target: StoreTarget.STORE_TARGET_REMOVING,
      physicallyDestroyed: false,
      dryRun: false,
    });
    expect(tooFew.refusal?.code).toBe('TooFewStores');
    const switched = await admin(adminMethods.setSwitch, { name: 'merge-checker', enabled: true, offMs: 0 });
    expect(switched.switch?.enabled).toBe(true);
    expect((await admin(adminMethods.setSwitch, { name: 'x', enabled: true, offMs: 0 })).refusal?.code).toBe(
      'UnknownSwitch',
    );
    const rule = {
      group: 'default',
      id: 'ssd',
      index: 1,
      override: true,
      start: utf8('m'),
      end: EMPTY_BYTES,
      role: 'voter',
      count: 3,
      constraints: [{ key: 'disk', op: 'in', values: ['ssd'] }],
      locationLabels: [],
      isolationLevel: '',
      version: 0,
    };
    const set = (change: Partial<typeof rule>, dryRun: boolean, expectVersion?: number) =>
      admin(adminMethods.setRule, {
        rule: { ...rule, ...change },
        dryRun,
        reason: '',
        ...(expectVersion === undefined ? {} : { expectVersion }),
      });
    expect(await set({}, true)).toMatchObject({ outcome: 'created', regionsToSplit: 1 });
    expect((await set({}, false, 0)).rule?.version).toBe(1);
    expect((await set({ role: 'chief' }, false)).refusal?.code).toBe('InvalidRule');
    expect((await set({ constraints: [{ key: 'disk', op: 'like', values: [] }] }, false)).refusal?.code).toBe(
      'InvalidRule',
    );
    const rules = await admin(adminMethods.listRules, { group: '', id: '' });
    expect(rules.rules.map(({ group, id, version }) => [group, id, version])).toEqual([
      ['default', 'default', 0],
      ['default', 'ssd', 1],
    ]);
    const at = await admin(adminMethods.listRules, { group: '', id: '', key: utf8('a') });
    expect(at.rules.map(({ id }) => id)).toEqual(['default']);
    const gone = await admin(adminMethods.deleteRule, { group: 'default', id: 'ssd', dryRun: false, reason: '' });
    expect(gone.outcome).toBe('deleted');
    expect((await admin(adminMethods.listRules, { group: 'default', id: 'ssd' })).refusal?.code).toBe('RuleNotFound');
    const all = await admin(adminMethods.listSwitches, {});
    expect(all.switches.find((info) => info.name === 'merge-checker')?.enabled).toBe(true);
  });

  test('what administrators change is in the audit log with who and why; a stale version is refused', async () => {
    await cluster();
    const because = { header: { ...adminHeader(), reason: 'why' } };
    const stale = { confVer: 9, version: 9 };
    const settings = { storeId: 2, leaderWeight: 2, clearLimit: false, labels: [], replaceLabels: false };
    const codes = [
      await admin(adminMethods.setStoreSettings, { ...settings, ...because, expectVersion: 1 }),
      await admin(adminMethods.setStoreState, {
        storeId: 2,
        target: StoreTarget.STORE_TARGET_REMOVING,
        physicallyDestroyed: true,
        dryRun: false,
        expectVersion: 1,
      }),
      await admin(adminMethods.setSwitch, { name: 'merge-checker', enabled: true, offMs: 0, expectVersion: 1 }),
      await admin(adminMethods.pinRegion, { regionId: 2, pinned: true, expectEpoch: stale }),
      await admin(adminMethods.pauseRegion, { regionId: 2, reason: '', forMs: 0, expectEpoch: stale }),
      await admin(adminMethods.resumeRegion, { regionId: 2, expectEpoch: stale }),
      await admin(adminMethods.transferMemberLeader, { member: '', expectVersion: 99 }),
      await admin(adminMethods.removeMember, { member: 'pd', dryRun: false, expectVersion: 99 }),
    ].map(({ refusal }) => refusal?.code);
    const epoch = Array.from({ length: 3 }, () => 'EpochChanged');
    expect(codes).toEqual(['Conflict', 'Conflict', 'Conflict', ...epoch, 'Conflict', 'Conflict']);
    const before = await admin(adminMethods.listAudit, { afterSequence: 0, limit: 0 });
    const changed = await admin(adminMethods.setStoreSettings, { ...settings, ...because, expectVersion: 0 });
    expect([changed.refusal, changed.store?.settingsVersion]).toEqual([undefined, 1]);
    await admin(adminMethods.setSwitch, { name: 'merge-checker', enabled: true, offMs: 0, ...because });
    await admin(adminMethods.pinRegion, { regionId: 2, pinned: true, ...because });
    await admin(adminMethods.pauseRegion, { regionId: 2, reason: '', forMs: 0, ...because });
    await admin(adminMethods.resumeRegion, { regionId: 2, ...because });
    await admin(adminMethods.transferLeader, { regionId: 2, toStore: 3, options: undefined, ...because });
    await admin(adminMethods.cancelOperator, { which: { $case: 'regionId', value: 2 }, ...because });
    const { entries, lastSequence } = await admin(adminMethods.listAudit, {
      afterSequence: before.lastSequence,
      limit: 0,
    });
    expect(entries.map(({ type }) => type)).toEqual([
      'store-settings',
      'switch',
      'region-pinned',
      'region-paused',
      'region-paused',
      'operator-started',
      'operator-canceled',
    ]);
    expect(entries.every(({ actor, reason }) => actor === 'tester' && reason === 'why')).toBe(true);
    expect(entries.map(({ regionId, storeId }) => [regionId, storeId]).slice(0, 3)).toEqual([
      [0, 2],
      [0, 0],
      [2, 0],
    ]);
    // Page by page it is the same, and the list of events names the same numbers.
    const page = await admin(adminMethods.listAudit, { afterSequence: lastSequence - 2, limit: 1 });
    expect(page.entries.map(({ sequence }) => sequence)).toEqual([lastSequence - 1]);
    const { events } = await admin(adminMethods.listEvents, { afterSequence: 0, afterTerm: 0, limit: 0 });
    expect(events.flatMap(({ auditSequence }) => (auditSequence === 0 ? [] : [auditSequence]))).toEqual(
      Array.from({ length: lastSequence }, (_, i) => i + 1),
    );
  });

  test('schedulers are configured, added and removed; a dry run says what would be', async () => {
    await cluster();
    const change = (
      name: string,
      what: NonNullable<ChangeSchedulerRequest['change']>,
      dryRun = false,
      version?: number,
    ) =>
      admin(adminMethods.changeScheduler, {
        name,
        change: what,
        dryRun,
        ...(version === undefined ? {} : { expectVersion: version }),
      });
    const named = async (name: string) =>
      (await admin(adminMethods.listSchedulers, {})).schedulers.find((one) => one.name === name);
    const batch = (value: number): NonNullable<ChangeSchedulerRequest['change']> => ({
      $case: 'configure',
      value: { set: [{ name: 'batch', value }], reset: [], resetAll: false },
    });
    const add = (storeId: number) => ({ $case: 'add', value: { storeId } }) as const;
    const remove = (storeId: number) => ({ $case: 'remove', value: { storeId } }) as const;

    const dry = await change('balance-leader', batch(9), true);
    expect([dry.changed, dry.scheduler?.version]).toEqual([true, 1]);
    expect(dry.scheduler?.parameters.find(({ name }) => name === 'batch')).toMatchObject({
      value: 9,
      defaultValue: 4,
      min: 1,
      max: 64,
      unit: 'count',
    });
    expect((await named('balance-leader'))?.parameters.find(({ name }) => name === 'batch')?.value).toBe(4);
    expect((await change('balance-leader', batch(9), false, 0)).refusal).toBeUndefined();
    expect(await change('balance-leader', batch(9))).toMatchObject({ changed: false, scheduler: { version: 1 } });
    expect((await change('balance-leader', batch(8), false, 0)).refusal?.code).toBe('Conflict');
    expect((await change('balance-leader', batch(65))).refusal?.code).toBe('OutOfRange');
    expect((await change('nonsense', batch(1))).refusal?.code).toBe('UnknownSwitch');
    expect((await change('merge-checker', add(0))).refusal?.code).toBe('NotAScheduler');

    expect((await named('shuffle-leader'))?.state).toBe('not-added');
    expect(
      (await admin(adminMethods.setSwitch, { name: 'shuffle-leader', enabled: true, offMs: 0 })).refusal?.code,
    ).toBe('NotAdded');
    expect((await change('grant-leader', add(2))).scheduler).toMatchObject({ state: 'on', storeIds: [2] });
    expect((await change('evict-leader', add(2))).refusal?.code).toBe('LeadersGranted');
    expect((await change('grant-leader', remove(2))).scheduler).toMatchObject({ state: 'not-added', storeIds: [] });

    expect(await change('evict-leader', add(2), true)).toMatchObject({ changed: true, scheduler: { storeIds: [2] } });
    expect((await named('evict-leader'))?.storeIds).toEqual([]);
    expect((await change('evict-leader', add(2), false, 7)).refusal?.code).toBe('Conflict');
    expect((await change('evict-leader', add(9))).refusal?.code).toBe('StoreNotFound');
    expect((await change('evict-leader', add(2))).changed).toBe(true);
    expect((await admin(adminMethods.getStore, { storeId: 2 })).store?.leadersEvicted).toBe(true);
    expect((await change('grant-leader', add(2))).refusal?.code).toBe('LeadersEvicted');
    expect(await change('evict-leader', remove(2))).toMatchObject({ changed: true, scheduler: { storeIds: [] } });
    expect((await admin(adminMethods.getStore, { storeId: 2 })).store?.leadersEvicted).toBe(false);

    expect((await change('balance-region', remove(0))).scheduler?.state).toBe('removed');
    expect((await change('balance-region', add(0))).scheduler?.state).toBe('on');
    expect((await change('evict-leader', remove(0))).scheduler?.state).toBe('removed');
    expect((await change('evict-leader', add(2))).refusal?.code).toBe('NotAdded');
  });

  test('clients split at keys and the answer comes when the regions exist', async () => {
    const reports = await cluster();
    const splitting = ask(pdMethods.splitRegions, { splitKeys: [utf8('m'), utf8('c')], retryLimit: 0 });
    const command = await reports.next();
    expect(command.splitRegion?.keys).toEqual([utf8('c'), utf8('m')].map((bytes) => Buffer.from(bytes)));
    const ids = await ask(pdMethods.askBatchSplit, {
      region: wireRegion({ id: 2, on: ['1', '2', '3'], version: 2 }),
      splitCount: 2,
      reason: 0,
    });
    const [a, b] = ids.ids.map((id) => id.newRegionId) as [number, number];
    await ask(pdMethods.reportBatchSplit, {
      regions: [
        wireRegion({ id: a, start: '', end: 'c', on: ['1', '2', '3'], version: 4 }),
        wireRegion({ id: b, start: 'c', end: 'm', on: ['1', '2', '3'], version: 4 }),
        wireRegion({ id: 2, start: 'm', end: '', on: ['1', '2', '3'], version: 4 }),
      ],
    });
    reports.stream.send(
      report(String(pd.clusterId), wireRegion({ id: 2, start: 'm', end: '', on: ['1', '2', '3'], version: 4 })),
    );
    const done = await splitting;
    expect([done.finishedPercentage, done.regionsId.sort((x, y) => x - y)]).toEqual([100, [a, b]]);
  });
});
