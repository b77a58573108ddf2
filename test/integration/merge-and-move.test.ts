/** Merging and moving regions of real processes while clients read and write, and while every process is killed. */
import { afterEach, describe, expect, test } from 'vitest';
import { fromUtf8 } from '../../src/base/bytes.ts';
import { all, type Braid, type OperatorInfo, type RegionInfo, type Submission } from '../../src/index.ts';
import { TestCluster, waitFor } from './cluster.ts';

const LIMIT_MS = 60_000;

let cluster: TestCluster | undefined;

afterEach(async (context) => {
  if (context.task.result?.state === 'fail' && cluster !== undefined) {
    process.stderr.write(`${cluster.logs()}\n`);
  }
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

/** One writer and reader per key: values are numbers that only grow, one outstanding call per key. */
class Registers {
  readonly problems: string[] = [];
  writes = 0;
  reads = 0;
  readonly #client: Braid;
  readonly #loops: Promise<void>[];
  #isStopped = false;

  constructor(client: Braid, keys: readonly string[]) {
    this.#client = client;
    this.#loops = keys.map((key) => this.#run(key));
  }

  async #run(key: string): Promise<void> {
    let last = -1;
    for (let i = 0; !this.#isStopped; i++) {
      try {
        await this.#client.put(key, String(i));
        last = i;
        this.writes++;
        const value = await this.#client.get(key);
        this.reads++;
        if (value === undefined || Number(fromUtf8(value)) !== last) {
          this.problems.push(`${key}: wrote ${last}, read ${value === undefined ? 'nothing' : fromUtf8(value)}`);
          return;
        }
      } catch (error) {
        this.problems.push(`${key}: ${String(error)}`);
        return;
      }
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await Promise.all(this.#loops);
  }
}

const keyOf = (i: number): string => `key/${String(i).padStart(4, '0')}`;

/** As the placement service knows it now; the client's own route may be older. */
async function regionOf(client: Braid, key: string): Promise<RegionInfo> {
  const regions = await client.regions(all());
  const found = regions.findLast((region) => Buffer.compare(region.range.start, Buffer.from(key)) <= 0);
  if (found === undefined) {
    throw new Error(`no region holds ${key}`);
  }
  return found;
}

async function settled(client: Braid, submit: () => Promise<Submission>): Promise<OperatorInfo> {
  // Refused while a region is in another transition: asked again until the limit.
  const submission = await waitFor('an accepted operator', submit);
  if (submission.type !== 'started') {
    throw new Error(`nothing was started: ${submission.type}`);
  }
  return client.admin().waitOperator(submission.operator.id, { timeoutMs: LIMIT_MS });
}

async function split(client: Braid, key: string): Promise<void> {
  const { id } = await regionOf(client, key);
  await settled(client, () => client.admin().splitRegion(id, [Buffer.from(key)]));
  await waitFor(`a region that starts at ${key}`, async () =>
    (await client.regions(all())).some((region) => fromUtf8(region.range.start) === key),
  );
}

describe('regions under load', () => {
  test('a merge of regions on different stores aligns, prepares and commits without an error for clients', async () => {
    cluster = await TestCluster.start({ stores: 4, pdSettings: [] });
    const client = await cluster.client({ timeoutMs: 20_000 });
    await split(client, keyOf(50));
    const left = await regionOf(client, keyOf(0));
    const right = await regionOf(client, keyOf(99));
    const admin = client.admin();
    // Put one replica of the left region on the store the right one is not on, so that they must be aligned first.
    const free = cluster.stores.map((store) => store.id).find((id) => !right.peers.some((peer) => peer.storeId === id));
    if (free !== undefined && !left.peers.some((peer) => peer.storeId === free)) {
      const from = left.peers[0]?.storeId as number;
      await settled(client, () => admin.moveRegion(left.id, { fromStore: from, toStore: free }));
    }
    const load = new Registers(
      client,
      Array.from({ length: 20 }, (_, i) => keyOf(i * 5)),
    );
    const done = await settled(client, () => admin.mergeRegions({ source: left.id, target: right.id }));
    expect(done.status).toBe('success');
    const merged = await waitFor('one region', async () => {
      const regions = await client.regions(all());
      return regions.length === 1 ? regions[0] : undefined;
    });
    await load.stop();
    expect(load.problems).toEqual([]);
    expect(load.writes).toBeGreaterThan(100);
    expect(merged.id).toBe(right.id);
    expect(merged.epoch.version).toBeGreaterThan(right.epoch.version);
  });

  test('a leader’s replica moves to a fourth store without an error for clients', async () => {
    cluster = await TestCluster.start({ stores: 3 });
    const client = await cluster.client({ timeoutMs: 20_000 });
    const added = await cluster.addStore();
    const region = await regionOf(client, keyOf(0));
    const load = new Registers(
      client,
      Array.from({ length: 20 }, (_, i) => keyOf(i)),
    );
    const from = region.leader?.storeId ?? region.peers[0]?.storeId ?? 0;
    const done = await settled(client, () =>
      client.admin().moveRegion(region.id, { fromStore: from, toStore: added.id }),
    );
    expect(done.status).toBe('success');
    await load.stop();
    expect(load.problems).toEqual([]);
    const after = (await client.admin().region(region.id)).region.peers.map((peer) => peer.storeId);
    expect(after).not.toContain(from);
    expect(after).toContain(added.id);
  });

  test('a merge in which every process is killed and restarted finishes or is rolled back', async () => {
    cluster = await TestCluster.start({ stores: 3 });
    const client = await cluster.client({ timeoutMs: 30_000 });
    for (let i = 0; i < 100; i++) {
      await client.put(keyOf(i), `value ${i}`);
    }
    for (let round = 0; round < 3; round++) {
      await waitFor('a split', async () => {
        await split(client, keyOf(50)).catch(() => undefined);
        return (await client.regions(all())).length === 2;
      });
      const left = await regionOf(client, keyOf(0));
      const right = await regionOf(client, keyOf(99));
      const submission = await waitFor('an accepted merge', () =>
        client.admin().mergeRegions({ source: left.id, target: right.id }),
      );
      expect(submission.type).toBe('started');
      await new Promise((resolve) => setImmediate(resolve));
      await Promise.all([cluster.killAll(), cluster.pd.kill()]);
      await cluster.startPd();
      await cluster.startAll();
      await cluster.waitReplicated(3);
      const running = cluster;
      await waitFor('no region in the middle of a merge', async () => {
        const views = (await Promise.all(running.stores.map((store) => store.regions()))).flat();
        return views.length > 0 && views.every((view) => view.state === 'normal');
      });
      let count = 0;
      for await (const { key, value } of client.scan(all())) {
        expect(fromUtf8(value)).toBe(`value ${Number(fromUtf8(key).slice(4))}`);
        count++;
      }
      expect(count).toBe(100);
      await waitFor('one region again', async () => {
        const regions = await client.regions(all());
        if (regions.length === 1) {
          return true;
        }
        await client
          .admin()
          .mergeRegions({ source: left.id, target: right.id })
          .catch(() => undefined);
        return undefined;
      });
    }
  });
});
