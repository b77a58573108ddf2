/** Clusters of real processes: crashes, restarts, orderly stops. */
import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { EXIT_CODE_STORAGE } from '../../src/base/assert.ts';
import { AppError } from '../../src/base/app-error.ts';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { Context, type RawGetResponse } from '../../src/gen/kvrpcpb.ts';
import { all, type Braid } from '../../src/index.ts';
import { unaryCall } from '../../src/rpc/call.ts';
import { createGrpcNet } from '../../src/rpc/grpc/grpc-net.ts';
import { tikvMethods } from '../../src/rpc/services.ts';
import { braid, TestCluster, type TestStore, waitFor } from './cluster.ts';

const KIB = 1024;
/** Small regions, so that a few hundred kilobytes make several of them. */
const SMALL_REGIONS = [
  'raftstore.region-max-size=96KiB',
  'raftstore.region-split-size=48KiB',
  'raftstore.split-check=200ms',
];

const text = (bytes: Uint8Array | undefined): string | undefined => (bytes === undefined ? undefined : fromUtf8(bytes));

let cluster: TestCluster | undefined;

afterEach(async (context) => {
  if (context.task.result?.state === 'fail' && cluster !== undefined) {
    process.stderr.write(`${cluster.logs()}\n`);
  }
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

async function contents(client: Braid): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const { key, value } of client.scan(all())) {
    found.set(fromUtf8(key), fromUtf8(value));
  }
  return found;
}

/** Writers of unique keys that note what was acknowledged and what may or may not have happened. */
class Load {
  readonly acknowledged = new Map<string, string>();
  readonly uncertain = new Set<string>();
  readonly #client: Braid;
  readonly #workers: Promise<void>[];
  #isStopped = false;

  constructor(client: Braid, workers: number) {
    this.#client = client;
    this.#workers = Array.from({ length: workers }, (_, worker) => this.#run(worker));
  }

  async #run(worker: number): Promise<void> {
    for (let i = 0; !this.#isStopped; i++) {
      const key = `load/${worker}/${String(i).padStart(6, '0')}`;
      try {
        await this.#client.put(key, `value of ${key}`);
        this.acknowledged.set(key, `value of ${key}`);
      } catch (error) {
        if (!(error instanceof AppError)) {
          throw error;
        }
        if (error.outcome === 'unknown') {
          this.uncertain.add(key);
        }
      }
    }
  }

  /** Waits until so many more writes were acknowledged. */
  async progress(count: number): Promise<void> {
    const goal = this.acknowledged.size + count;
    await waitFor(`${count} more acknowledged writes`, () => this.acknowledged.size >= goal);
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#workers);
  }

  /** What is wrong with what a reader sees. */
  problems(found: ReadonlyMap<string, string>): string[] {
    const lost = [...this.acknowledged]
      .filter(([key, value]) => found.get(key) !== value)
      .map(([key]) => `lost ${key}`);
    const invented = [...found.keys()]
      .filter((key) => key.startsWith('load/') && !this.acknowledged.has(key) && !this.uncertain.has(key))
      .map((key) => `nobody acknowledged ${key}`);
    return [...lost, ...invented];
  }
}

/** Flips a bit of the last copy of `marker` in the table files of a store that is not running. Data lies behind the Raft log. */
function damage(store: TestStore, marker: Uint8Array): void {
  const places = readdirSync(join(store.dataDir, 'db'))
    .filter((name) => name.endsWith('.ldb'))
    .map((name) => join(store.dataDir, 'db', name))
    .map((path) => ({ path, bytes: readFileSync(path) }))
    .map(({ path, bytes }) => ({ path, bytes, at: bytes.lastIndexOf(marker) }))
    .filter(({ at }) => at >= 0);
  expect(places.length).toBeGreaterThan(0);
  for (const { path, bytes, at } of places) {
    bytes[at + 10] = (bytes[at + 10] ?? 0) ^ 1;
    writeFileSync(path, bytes);
  }
}

describe('a cluster of processes', () => {
  test('serves put, get, delete and scan, and keeps everything over a power cut of all stores', async () => {
    cluster = await TestCluster.start({ storeSettings: SMALL_REGIONS });
    const client = await cluster.client({ timeoutMs: 30_000 });
    const expected = new Map<string, string>();
    for (let i = 0; i < 400; i++) {
      const key = `row/${String(i).padStart(4, '0')}`;
      expected.set(key, `${key} ${'x'.repeat(KIB)}`);
    }
    await Promise.all([...expected].map(([key, value]) => client.put(key, value)));
    await client.delete('row/0007');
    expected.delete('row/0007');
    expect(text(await client.get('row/0123'))).toBe(expected.get('row/0123'));
    expect(await client.get('row/0007')).toBeUndefined();
    await waitFor('regions to split', async () => (await client.regions(all())).length >= 4);
    expect(await contents(client)).toEqual(expected);

    await cluster.killAll();
    await cluster.startAll();
    expect(await contents(client)).toEqual(expected);
    await client.put('row/after', 'x');
    expect(text(await client.get('row/after'))).toBe('x');

    // The placement service as well, and from the beginning.
    await cluster.killAll();
    await cluster.pd.kill();
    await cluster.startPd();
    await cluster.startAll();
    await cluster.waitReplicated(3);
    expect((await contents(client)).size).toBe(expected.size + 1);
  });

  test('loses no acknowledged write when the leader is killed under load', async () => {
    cluster = await TestCluster.start({ storeSettings: SMALL_REGIONS });
    const client = await cluster.client({ timeoutMs: 30_000 });
    const load = new Load(client, 16);
    await load.progress(300);
    const victim = await cluster.leaderOf(client, 'load/0/000000');
    await victim.kill();
    await load.progress(300);
    await victim.start();
    await load.progress(300);
    await load.stop();
    expect(load.problems(await contents(client))).toEqual([]);
    await cluster.waitReplicated(3);
    // The store that was away serves the same data when the others have gone silent.
    const reader = await cluster.client({ timeoutMs: 30_000 });
    await cluster.store(victim.number === 1 ? 2 : 1).kill();
    expect(load.problems(await contents(reader))).toEqual([]);
  });

  test('goes on when a follower is killed, and stops answering writes without a majority', async () => {
    cluster = await TestCluster.start();
    const client = await cluster.client({ timeoutMs: 20_000 });
    const leader = await cluster.leaderOf(client, 'k');
    const followers = cluster.stores.filter((store) => store !== leader);
    await followers[0]?.kill();
    await client.put('k', 'with two');
    await followers[1]?.kill();
    const outcome = await client.put('k', 'alone', { timeoutMs: 2_000 }).then(
      () => 'written',
      (error: unknown) => (error instanceof AppError ? error.code : String(error)),
    );
    expect(['DeadlineExceeded', 'UndeterminedResult', 'Unavailable']).toContain(outcome);
    await followers[0]?.start();
    const value = await waitFor('a value', async () => text(await client.get('k')));
    expect(['with two', 'alone']).toContain(value);
    await client.put('k', 'again');
    expect(text(await client.get('k'))).toBe('again');
  });

  test('a leader that slept does not answer from the past', async () => {
    cluster = await TestCluster.start();
    const client = await cluster.client({ timeoutMs: 30_000 });
    await client.put('k', 'before');
    const leader = await cluster.leaderOf(client, 'k');
    const { id, epoch, leader: peer } = await client.locate('k');
    const net = createGrpcNet();
    const channel = net.dial(leader.address);
    const read = (): Promise<RawGetResponse> =>
      unaryCall(
        channel,
        tikvMethods.rawGet,
        {
          context: Context.create({ regionId: id, regionEpoch: epoch, peer: { ...peer, role: 0 } }),
          key: utf8('k'),
          cf: '',
        },
        { timeoutMs: 60_000 },
      );
    try {
      expect(text((await read()).value)).toBe('before');
      leader.program.child.kill('SIGSTOP');
      // These wait in the sleeper's socket and are the first thing it sees when it wakes up.
      const asleep = Array.from({ length: 20 }, read);
      const others = await cluster.client({ timeoutMs: 30_000 });
      await waitFor('a write through another leader', () =>
        others.put('k', 'after', { timeoutMs: 2_000 }).then(
          () => true,
          () => undefined,
        ),
      );
      leader.program.child.kill('SIGCONT');
      for (const reply of await Promise.all(asleep)) {
        if (reply.regionError === undefined) {
          expect(text(reply.value)).toBe('after');
        }
      }
    } finally {
      leader.program.child.kill('SIGCONT');
      await net.close(0);
    }
    expect(text(await client.get('k'))).toBe('after');
  });

  test('an orderly stop moves leaders away first and ends with exit code 0', async () => {
    cluster = await TestCluster.start({ storeSettings: SMALL_REGIONS });
    const client = await cluster.client({ timeoutMs: 20_000 });
    const load = new Load(client, 4);
    await load.progress(200);
    const store: TestStore = await cluster.leaderOf(client, 'load/0/000000');
    const ended = await store.stop();
    expect(ended.code).toBe(0);
    await load.progress(200);
    await load.stop();
    expect(cluster.logs()).not.toContain('nobody took over');
    expect(load.problems(await contents(client))).toEqual([]);
    expect(load.uncertain.size).toBe(0);
  });

  test('a new store receives replicas, and the status pages tell', async () => {
    cluster = await TestCluster.start({
      stores: 3,
      storeSettings: SMALL_REGIONS,
      pdSettings: ['placement.max-replicas=4'],
    });
    const client = await cluster.client({ timeoutMs: 20_000 });
    await Promise.all(
      Array.from({ length: 200 }, (_, i) => client.put(`row/${String(i).padStart(4, '0')}`, 'x'.repeat(KIB))),
    );
    const fourth = await cluster.addStore();
    await cluster.waitReplicated(4);
    const status = await fourth.page<{ storeId: number; serving: boolean; regions: number }>('/status');
    expect(status).toMatchObject({ storeId: fourth.id, serving: true });
    expect(status.regions).toBeGreaterThan(0);
    expect(await fourth.page('/config')).toMatchObject({
      storage: { 'api-version': 1, 'enable-ttl': true },
      settings: {
        'raftstore.region-max-size': { value: 96 * KIB, origin: 'flag' },
        'raftstore.tick': { origin: 'default' },
      },
    });
    const leader = await cluster.leaderOf(client, 'row/0000');
    const metrics = await leader.page<string>('/metrics');
    expect(metrics).toMatch(/^braid_grpc_msg_duration_seconds_count\{type="raw_put"\} [1-9]\d*$/m);
    expect(metrics).toMatch(/^braid_raftstore_region_count\{type="leader"\} [1-9]\d*$/m);
    const [region] = await fourth.regions();
    expect(await fourth.page(`/regions/${region?.id}`)).toMatchObject({ id: region?.id });
    expect(await fourth.page('/regions/999999')).toMatchObject({ error: 'no region 999999 on this store' });
  });

  test('a store whose disk returns damaged data stops with the exit code for storage faults', async () => {
    cluster = await TestCluster.start({ stores: 1, pdSettings: ['placement.max-replicas=1'] });
    const client = await cluster.client({ timeoutMs: 20_000 });
    const store = cluster.store(1);
    // Random, so that compression leaves it as it is, and larger than a block, so that no copy refers to another one.
    const marker = randomBytes(8 * KIB);
    await client.put('k', marker);
    // The value is acknowledged with the Raft log; a read waits until it is in its own place as well.
    await client.get('k');
    // A restart moves the write-ahead log into table files, which are not checked when they are opened.
    await store.restart();
    await store.kill();
    damage(store, marker);
    await store.start();
    const failure = client.get('k', { timeoutMs: 3_000 }).then(
      () => 'a value',
      () => 'an error',
    );
    expect((await store.program.ended).code).toBe(EXIT_CODE_STORAGE);
    expect(await failure).toBe('an error');
    expect(cluster.logs()).toContain('the process stops to protect its data');
  });

  test('the command line reads and writes', async () => {
    cluster = await TestCluster.start({ stores: 1, pdSettings: ['placement.max-replicas=1'] });
    const pd = ['--pd', cluster.pdAddress];
    expect(await braid(['put', 'greeting', 'hello', ...pd])).toMatchObject({ code: 0 });
    expect(await braid(['get', 'greeting', ...pd])).toMatchObject({ code: 0, stdout: 'hello' });
    expect(await braid(['get', 'nothing', ...pd])).toMatchObject({ code: 5 });
  });
});
