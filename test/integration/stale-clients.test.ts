/**
 * A client whose idea of the regions is frozen at the old layout writes and reads through raw calls while its region is
 * merged away and while it moves to another store: no error, nothing lost, nothing stale.
 */
import { afterEach, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import type { Channel } from '../../src/env/net.ts';
import type { Context } from '../../src/gen/kvrpcpb.ts';
import { all, type Braid, type RegionInfo, type Submission } from '../../src/index.ts';
import { unaryCall } from '../../src/rpc/call.ts';
import { createGrpcNet } from '../../src/rpc/grpc/grpc-net.ts';
import { tikvMethods } from '../../src/rpc/services.ts';
import { TestCluster, waitFor } from './cluster.ts';

const CALL_MS = 5_000;
const LIMIT_MS = 60_000;

let cluster: TestCluster | undefined;
const net = createGrpcNet();

afterEach(async (context) => {
  if (context.task.result?.state === 'fail' && cluster !== undefined) {
    process.stderr.write(`${cluster.logs()}\n`);
  }
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

/** Calls the store that led `region` when it was looked at, with that region's epoch, for ever. */
class FrozenClient {
  readonly channel: Channel;
  readonly context: Context;
  readonly problems: string[] = [];
  rounds = 0;
  #isStopped = false;
  #loop: Promise<void> | undefined;

  constructor(region: RegionInfo, on: TestCluster) {
    const peer = region.peers.find((each) => each.id === region.leader?.id);
    const store = on.stores.find((each) => each.id === peer?.storeId);
    if (peer === undefined || store === undefined) {
      throw new Error('the region has no leader on a store of the cluster');
    }
    this.channel = net.dial(store.address);
    this.context = {
      regionId: region.id,
      regionEpoch: { confVer: region.epoch.confVer, version: region.epoch.version },
      peer: { id: peer.id, storeId: peer.storeId, role: 0, isWitness: false },
      term: 0,
      priority: 0,
      replicaRead: false,
      maxExecutionDurationMs: CALL_MS,
      staleRead: false,
      isRetryRequest: false,
      apiVersion: 0,
      requestSource: '',
      busyThresholdMs: 0,
      keyspaceId: 0,
      clusterId: '0',
    };
  }

  async put(key: string, value: string): Promise<string> {
    const reply = await unaryCall(
      this.channel,
      tikvMethods.rawPut,
      { context: this.context, key: utf8(key), value: utf8(value), cf: '', ttl: 0, forCas: false },
      { timeoutMs: CALL_MS },
    );
    return reply.regionError === undefined ? reply.error : JSON.stringify(reply.regionError);
  }

  async get(key: string): Promise<string> {
    const reply = await unaryCall(
      this.channel,
      tikvMethods.rawGet,
      { context: this.context, key: utf8(key), cf: '' },
      { timeoutMs: CALL_MS },
    );
    return reply.regionError === undefined ? fromUtf8(reply.value) : JSON.stringify(reply.regionError);
  }

  async scan(start: string, end: string): Promise<readonly string[]> {
    const reply = await unaryCall(
      this.channel,
      tikvMethods.rawScan,
      {
        context: this.context,
        startKey: utf8(start),
        endKey: utf8(end),
        limit: 1000,
        keyOnly: true,
        reverse: false,
        cf: '',
      },
      { timeoutMs: CALL_MS },
    );
    return reply.regionError === undefined
      ? reply.kvs.map(({ key }) => fromUtf8(key))
      : [JSON.stringify(reply.regionError)];
  }

  /** Writes and reads back a growing number under `key` until stopped. */
  start(key: string): this {
    this.#loop = (async () => {
      for (let i = 0; !this.#isStopped && this.problems.length === 0; i++) {
        const written = await this.put(key, String(i)).catch(String);
        const read = await this.get(key).catch(String);
        if (written !== '' || read !== String(i)) {
          this.problems.push(`${key} round ${i}: ${written} / ${read}`);
        }
        this.rounds++;
      }
    })();
    return this;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#loop;
  }
}

async function settled(client: Braid, submit: () => Promise<Submission>): Promise<string> {
  const submission = await waitFor('an accepted operator', submit);
  if (submission.type !== 'started') {
    throw new Error(`nothing was started: ${submission.type}`);
  }
  return (await client.admin().waitOperator(submission.operator.id, { timeoutMs: LIMIT_MS })).status;
}

const counts = async (on: TestCluster): Promise<{ redirected: number; forwarded: number }> => {
  const pages = await Promise.all(
    on.stores.map((store) => store.page<{ redirects: { redirected: number; forwarded: number } }>('/status')),
  );
  return {
    redirected: pages.reduce((sum, page) => sum + page.redirects.redirected, 0),
    forwarded: pages.reduce((sum, page) => sum + page.redirects.forwarded, 0),
  };
};

test(
  'a frozen client notices nothing of a merge',
  async () => {
    cluster = await TestCluster.start({ stores: 3 });
    const client = await cluster.client();
    const admin = client.admin();
    await admin.setSwitch('balance-leader', false);
    for (const key of ['a1', 'a2', 'z1', 'z2']) {
      await client.put(key, '0');
    }
    const [only] = await client.regions(all());
    await settled(client, () => admin.splitRegion(only?.id ?? 0, [Buffer.from('m')]));
    let [left, right] = await waitFor('two regions with leaders', async () => {
      const regions = await client.regions(all());
      return regions.length === 2 && regions.every((region) => region.leader !== undefined) ? regions : undefined;
    });
    // The leaders on two stores, so that one store has to pass requests on.
    const other = cluster.stores.find((store) => store.id !== right?.leader?.storeId)?.id ?? 0;
    if (left?.leader?.storeId === right?.leader?.storeId) {
      await settled(client, () => admin.transferLeader(left?.id ?? 0, other));
      [left, right] = await waitFor('leaders apart', async () => {
        const regions = await client.regions(all());
        return regions[0]?.leader?.storeId === other ? regions : undefined;
      });
    }
    if (left === undefined || right === undefined) {
      throw new Error('there are two regions');
    }
    const source = left;
    const target = right;
    const on = cluster;
    const clients = [
      new FrozenClient(source, on).start('a1'),
      new FrozenClient(source, on).start('a2'),
      new FrozenClient(target, on).start('z1'),
    ];
    await waitFor('some rounds', () => clients.every((each) => each.rounds > 10));
    expect(await settled(client, () => admin.mergeRegions({ source: source.id, target: target.id }))).toBe('success');
    const before = clients.map((each) => each.rounds);
    await waitFor('rounds after the merge', () => clients.every((each, i) => each.rounds > (before[i] ?? 0) + 50));
    for (const each of clients) {
      await each.stop();
      expect(each.problems).toEqual([]);
    }
    const counted = await counts(on);
    expect(counted.redirected).toBeGreaterThan(0);
    expect(counted.forwarded).toBeGreaterThan(0);
    // A scan returns what its client takes for the region, no more and no less.
    expect(await clients[0]?.scan('', '')).toEqual(['a1', 'a2']);
    expect(await clients[2]?.scan('m', '')).toEqual(['z1', 'z2']);
    // Restarted stores still know.
    for (const store of on.stores) {
      await store.restart();
    }
    const again = new FrozenClient(source, on);
    expect(await waitFor('an answer after the restart', async () => (await again.put('a1', 'x')) === '')).toBe(true);
    expect(fromUtf8((await client.get('a1')) ?? new Uint8Array())).toBe('x');
  },
  3 * LIMIT_MS,
);

test(
  'a frozen client notices nothing of the move of its leader’s replica',
  async () => {
    cluster = await TestCluster.start({ stores: 3 });
    const client = await cluster.client();
    const admin = client.admin();
    await admin.setSwitch('balance-leader', false);
    await client.put('k', '0');
    const added = await cluster.addStore();
    const [region] = await client.regions(all());
    if (region?.leader === undefined) {
      throw new Error('the region has a leader');
    }
    const from = region.leader.storeId;
    const frozen = new FrozenClient(region, cluster).start('k');
    await waitFor('some rounds', () => frozen.rounds > 10);
    expect(await settled(client, () => admin.moveRegion(region.id, { fromStore: from, toStore: added.id }))).toBe(
      'success',
    );
    const before = frozen.rounds;
    await waitFor('rounds after the move', () => frozen.problems.length > 0 || frozen.rounds > before + 50);
    await frozen.stop();
    expect(frozen.problems).toEqual([]);
    expect((await counts(cluster)).forwarded).toBeGreaterThan(0);
  },
  3 * LIMIT_MS,
);

test(
  'a frozen client of a split region is served until the threshold has passed, then told the current regions',
  async () => {
    cluster = await TestCluster.start({
      stores: 3,
      storeSettings: ['raftstore.store-heartbeat=500ms'],
      pdSettings: ['placement.proxy-threshold=15s'],
    });
    const client = await cluster.client();
    await client.put('a', '0');
    await client.put('z', '0');
    const [region] = await client.regions(all());
    if (region === undefined) {
      throw new Error('there is a region');
    }
    const frozen = new FrozenClient(region, cluster);
    const clients = [frozen.start('a'), new FrozenClient(region, cluster).start('z')];
    await waitFor('some rounds', () => clients.every((each) => each.rounds > 10));
    await settled(client, () => client.admin().splitRegion(region.id, [Buffer.from('m')]));
    const before = clients.map((each) => each.rounds);
    await waitFor('rounds after the split', () =>
      clients.every((each, i) => each.problems.length > 0 || each.rounds > (before[i] ?? 0) + 20),
    );
    for (const each of clients) {
      await each.stop();
      expect(each.problems).toEqual([]);
    }
    const on = cluster;
    await waitFor('retired redirects', async () => {
      const pages = await Promise.all(
        on.stores.map((store) => store.page<{ redirects: { regions: readonly number[] } }>('/status')),
      );
      return pages.every((page) => page.redirects.regions.length === 0);
    });
    expect(await frozen.put('a', 'late')).toContain('epochNotMatch');
    expect(fromUtf8((await client.get('a')) ?? new Uint8Array())).not.toBe('late');
  },
  3 * LIMIT_MS,
);
