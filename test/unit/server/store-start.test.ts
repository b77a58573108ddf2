/** First start, restarts and refusals of a store, against a real placement service on the memory engine. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { AppError } from '../../../src/base/app-error.ts';
import { regionId, storeId, term } from '../../../src/base/ids.ts';
import { createMemoryEngineFactory, MemoryDisk } from '../../../src/engine/index.ts';
import type { Env } from '../../../src/env/env.ts';
import { NO_FAILPOINTS } from '../../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import { realClock } from '../../../src/env/real/index.ts';
import { createRng } from '../../../src/env/rng.ts';
import type { RegionHeartbeat, RegionHeartbeatReply, StoreHeartbeat } from '../../../src/meta/heartbeat.ts';
import type { Region, Store } from '../../../src/meta/region.ts';
import { readStoreIdent, StoreRolledBackError, recordedRegions } from '../../../src/raftstore/store/bootstrap.ts';
import { type GrpcNet, createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import { joinCluster, openDataDir } from '../../../src/server/data-dir.ts';
import { startPd, type PdProcess } from '../../../src/server/pd/pd-process.ts';
import { PlacementRefusedError, StorePd, StoreRemovedError } from '../../../src/server/pd-client.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';

const WAIT = { timeout: 5_000, interval: 2 };
const clock = realClock();

let directory: string;
let net: GrpcNet;
let disk: MemoryDisk;
let pd: PdProcess;
let pdDisk: MemoryDisk;
let clients: StorePd[];

const envOn = (machine: MemoryDisk): Env => ({
  clock,
  rng: createRng(5),
  net,
  engines: createMemoryEngineFactory(machine, clock),
  failpoints: NO_FAILPOINTS,
  log: SILENT_LOGGER,
  abort: (_kind, reason, cause) => {
    throw new Error(`aborted: ${reason}`, { cause });
  },
});

const newDisk = (): MemoryDisk => new MemoryDisk(createRng(9), { readDelayMs: [0, 0], writeDelayMs: [0, 0] });
const startService = (address = '127.0.0.1:0'): Promise<PdProcess> =>
  startPd({
    env: envOn(pdDisk),
    config: { dataDir: 'pd', listenAddress: address, closeGraceMs: 20, cluster: { storeCheckMs: 20, warmupMaxMs: 0 } },
  });

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'braid-store-'));
  net = createGrpcNet();
  disk = newDisk();
  pdDisk = newDisk();
  clients = [];
  pd = await startService();
});

afterEach(async () => {
  for (const client of clients) {
    client.close();
  }
  await pd.close();
  await net.close(0);
  rmSync(directory, { recursive: true });
});

async function client(endpoints: readonly string[] = [pd.address]): Promise<StorePd> {
  const made = new StorePd({ env: envOn(disk), endpoints });
  clients.push(made);
  await made.connect(3_000);
  return made;
}

const openDir = (service: StorePd, path = directory) =>
  openDataDir({ path, engines: envOn(disk).engines, pd: service, log: SILENT_LOGGER });

const storeOf = (id: number, address = `127.0.0.1:${2000 + id}`): Store => ({
  id: storeId(id),
  address,
  statusAddress: '',
  state: 'up',
  labels: [{ key: 'zone', value: 'a' }],
  version: '8.5.0',
  startTimestamp: 1,
});

const statsOf = (id: number): StoreHeartbeat => ({
  storeId: storeId(id),
  capacityBytes: 1,
  availableBytes: 1,
  usedBytes: 0,
  regionCount: 0,
  sendingSnapshots: 0,
  receivingSnapshots: 0,
  applyingSnapshots: 0,
  startTimeSeconds: 1,
  isBusy: false,
  isStopping: false,
});

async function codeOf(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof AppError) {
      return error.code;
    }
    throw error;
  }
  return 'none';
}

describe('the data directory', () => {
  test('a new one gets a store id, an old one keeps it', async () => {
    const service = await client();
    const first = await openDir(service);
    expect(first).toMatchObject({ isNew: true, ident: { clusterId: pd.clusterId } });
    expect(JSON.parse(readFileSync(join(directory, 'IDENT'), 'utf8'))).toEqual({
      format: 1,
      clusterId: String(pd.clusterId),
      storeId: first.ident.storeId,
    });
    await first.engine.close();
    const second = await openDir(service);
    expect(second).toMatchObject({ isNew: false, ident: first.ident });
    await second.engine.close();
  });

  test('a crash between the database and the file IDENT keeps the store id', async () => {
    const service = await client();
    const first = await openDir(service);
    await first.engine.close();
    rmSync(join(directory, 'IDENT'));
    const second = await openDir(service);
    expect(second.ident).toEqual(first.ident);
    expect(existsSync(join(directory, 'IDENT'))).toBe(true);
    await second.engine.close();
  });

  test('of another cluster, with a lost database, or damaged is refused', async () => {
    const service = await client();
    const { engine } = await openDir(service);
    await engine.close();
    const foreign = { clusterId: pd.clusterId + 1n, allocIds: () => Promise.resolve([9]) };
    await expect(
      openDataDir({ path: directory, engines: envOn(disk).engines, pd: foreign, log: SILENT_LOGGER }),
    ).rejects.toThrow(
      `belongs to cluster ${pd.clusterId}, but the placement service is of cluster ${pd.clusterId + 1n}`,
    );
    // The same without the file: the database knows as well.
    const ident = readFileSync(join(directory, 'IDENT'));
    rmSync(join(directory, 'IDENT'));
    expect(
      await codeOf(openDataDir({ path: directory, engines: envOn(disk).engines, pd: foreign, log: SILENT_LOGGER })),
    ).toBe('ClusterMismatch');
    writeFileSync(join(directory, 'IDENT'), ident);
    // A database that has gone is never created anew under the old identity.
    const empty = envOn(newDisk()).engines;
    expect(await codeOf(openDataDir({ path: directory, engines: empty, pd: service, log: SILENT_LOGGER }))).toBe(
      'EngineOpen',
    );
    for (const text of [
      '{',
      '{"format":2}',
      '{"format":1,"clusterId":5,"storeId":1}',
      '{"format":1,"clusterId":"5","storeId":-1}',
    ]) {
      writeFileSync(join(directory, 'IDENT'), text);
      expect(await codeOf(openDir(service))).toBe('DataDir');
    }
    writeFileSync(join(directory, 'file'), '');
    expect(await codeOf(openDir(service, join(directory, 'file', 'below')))).toBe('DataDir');
  });
});

describe('joining a cluster', () => {
  async function join_(
    name: string,
    service: StorePd,
  ): Promise<{ regions: number; store: Store; close: () => Promise<void> }> {
    const path = join(directory, name);
    const { engine, ident } = await openDir(service, path);
    const store = storeOf(ident.storeId);
    await joinCluster({ engine, pd: service, store, log: SILENT_LOGGER });
    return { regions: await recordedRegions(engine), store, close: () => engine.close() };
  }

  test('of stores that start together one creates the first region', async () => {
    const services = await Promise.all([client(), client(), client()]);
    const joined = await Promise.all(services.map((service, i) => join_(`s${i}`, service)));
    expect(joined.map(({ regions }) => regions).sort((a, b) => a - b)).toEqual([0, 0, 1]);
    for (const { store } of joined) {
      await services[0]?.putStore(store);
    }
    const first = await services[0]?.getStore(joined[2]?.store.id ?? storeId(0));
    expect(first).toMatchObject({ labels: [{ key: 'zone', value: 'a' }] });
    await Promise.all(joined.map(({ close }) => close()));
  });

  test('a crash before the answer to Bootstrap is repaired by the next start', async () => {
    const service = await client();
    const { engine, ident } = await openDir(service);
    const store = storeOf(ident.storeId);
    const lost = {
      isBootstrapped: () => Promise.resolve(false),
      allocIds: (count: number) => service.allocIds(count),
      getRegionById: () => Promise.reject(new Error('not reached')),
      bootstrap: async (s: Store, r: Region) => {
        await service.bootstrap(s, r);
        throw new Error('the answer was lost');
      },
    };
    await expect(joinCluster({ engine, pd: lost, store, log: SILENT_LOGGER })).rejects.toThrow('the answer was lost');
    await joinCluster({ engine, pd: service, store, log: SILENT_LOGGER });
    expect(await recordedRegions(engine)).toBe(1);
    expect(await service.isBootstrapped()).toBe(true);
    await engine.close();
  });

  test('a prepared region is dropped when another store was first', async () => {
    const service = await client();
    const { engine, ident } = await openDir(service, join(directory, 'late'));
    const unreached = {
      isBootstrapped: () => Promise.resolve(false),
      allocIds: (count: number) => service.allocIds(count),
      getRegionById: (id: Region['id']) => service.getRegionById(id),
      bootstrap: () => Promise.reject(new Error('crash')),
    };
    const store = storeOf(ident.storeId);
    await expect(joinCluster({ engine, pd: unreached, store, log: SILENT_LOGGER })).rejects.toThrow('crash');
    const winner = await join_('winner', service);
    await joinCluster({ engine, pd: service, store, log: SILENT_LOGGER });
    expect([await recordedRegions(engine), winner.regions]).toEqual([0, 1]);
    expect(await readStoreIdent(engine)).toEqual(ident);
    await engine.close();
    await winner.close();
  });
});

describe('the placement service as seen by a store', () => {
  const FIRST: Region = {
    id: regionId(2),
    range: { start: new Uint8Array(0), end: new Uint8Array(0) },
    epoch: { confVer: 1, version: 1 },
    peers: [{ id: 3 as never, storeId: storeId(1), role: 'voter' }],
  };
  const report = (version: number): RegionHeartbeat => ({
    region: { ...FIRST, epoch: { confVer: 1, version } },
    leader: FIRST.peers[0] as Region['peers'][number],
    term: term(6),
    downPeers: [],
    pendingPeers: [],
    approximateSizeBytes: 1,
    approximateKeys: 1,
    bytesWritten: 0,
    keysWritten: 0,
    bytesRead: 0,
    keysRead: 0,
    merging: false,
    intervalStartSeconds: 0,
    intervalEndSeconds: 1,
  });

  async function bootstrapped(): Promise<StorePd> {
    const service = await client();
    await service.allocIds(100);
    expect(await service.bootstrap(storeOf(1), FIRST)).toBe(true);
    await service.putStore(storeOf(1));
    return service;
  }

  test('an address where nobody answers is named, with the way out', async () => {
    const alone = new StorePd({ env: envOn(disk), endpoints: ['127.0.0.1:1', '127.0.0.1:2'] });
    clients.push(alone);
    const error = await alone.connect(300).then(
      () => undefined,
      (cause: unknown) => cause,
    );
    expect(error).toMatchObject({
      code: 'Unavailable',
      message: expect.stringMatching(/127\.0\.0\.1:1 .*127\.0\.0\.1:2 /) as string,
      hint: expect.stringContaining('--pd') as string,
    });
  });

  test('a service that is no placement service is not waited for', async () => {
    const listener = await net.listen('127.0.0.1:0', new ServiceBuilder().build());
    const wrong = new StorePd({ env: envOn(disk), endpoints: [listener.address] });
    clients.push(wrong);
    await expect(wrong.connect(300)).rejects.toThrow(listener.address);
  });

  test('ids are consecutive and never given twice', async () => {
    const service = await client();
    const ids = [...(await service.allocIds(3)), ...(await service.allocIds(2))];
    expect(new Set(ids).size).toBe(5);
    expect(ids[2]).toBe((ids[0] ?? 0) + 2);
  });

  test('reports arrive, steps come back, and both survive a restart of the service', async () => {
    const service = await bootstrapped();
    const steps: RegionHeartbeatReply[] = [];
    service.onStep = (step) => steps.push(step);
    service.start(1);
    service.regionHeartbeat(report(2));
    const versionSeen = (): number | undefined => pd.node.placement.cluster.tree.get(regionId(2))?.region.epoch.version;
    await vi.waitFor(() => expect(versionSeen()).toBe(2), WAIT);
    const { address } = pd;
    await pd.close();
    await vi.waitFor(() => expect(service.isStreaming).toBe(false), WAIT);
    pd = await startService(address);
    // Nobody sends anything again: the latest report is repeated on the new connection.
    const leaderSeen = (): number | undefined => pd.node.placement.cluster.tree.get(regionId(2))?.leader?.id;
    await vi.waitFor(() => expect(leaderSeen()).toBe(3), WAIT);
    expect(await service.getRegionById(regionId(2))).toMatchObject({ id: 2, epoch: { version: 2 } });
    expect(await service.getRegionById(regionId(99))).toBeUndefined();
    expect(steps).toEqual([]);
  });

  test('split ids are asked for and refused for an outdated region', async () => {
    const service = await bootstrapped();
    service.start(1);
    service.regionHeartbeat(report(3));
    await vi.waitFor(() => expect(pd.node.placement.cluster.tree.get(regionId(2))?.region.epoch.version).toBe(3), WAIT);
    const ids = await service.askBatchSplit(report(3).region, 2, 'load');
    expect(ids).toHaveLength(2);
    expect(ids.every(({ newPeerIds }) => newPeerIds.length === 1)).toBe(true);
    await expect(service.askBatchSplit(report(1).region, 1, 'size')).rejects.toBeInstanceOf(PlacementRefusedError);
  });

  test('a store with an older copy of its disk is told so', async () => {
    const service = await bootstrapped();
    await service.putStore({ ...storeOf(5), startTimestamp: 10 }, 3);
    await expect(service.putStore({ ...storeOf(5), startTimestamp: 20 }, 3)).rejects.toBeInstanceOf(
      StoreRolledBackError,
    );
    await service.putStore({ ...storeOf(5), startTimestamp: 20 }, 4);
  });

  test('a removed store is told so', async () => {
    const service = await bootstrapped();
    await service.putStore(storeOf(5));
    const how = { physicallyDestroyed: true, dryRun: false, actor: 'test' };
    expect(await pd.node.setStoreState(storeId(5), 'removing', how)).toBeUndefined();
    await vi.waitFor(
      () => expect(pd.node.placement.cluster.store(storeId(5))?.record.store.state).toBe('tombstone'),
      WAIT,
    );
    await expect(service.putStore(storeOf(5))).rejects.toBeInstanceOf(StoreRemovedError);
    let isTold = false;
    service.onRemoved = () => {
      isTold = true;
    };
    await expect(service.storeHeartbeat(statsOf(5))).rejects.toBeInstanceOf(PlacementRefusedError);
    expect(isTold).toBe(true);
  });
});
