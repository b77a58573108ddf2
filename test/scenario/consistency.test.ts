/** Replicas whose data differ are found, fenced and kept from doing harm; the log goes on. */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { regionId } from '../../src/base/ids.ts';
import { encodeDataValue } from '../../src/codec/data-value.ts';
import { dataKey } from '../../src/engine/index.ts';
import type { RegionHeartbeat } from '../../src/meta/heartbeat.ts';
import { judge } from '../../src/raftstore/operation/consistency.ts';
import type { StoreCluster } from '../sim/store-cluster.ts';
import { startCluster } from './support.ts';

const REGION = regionId(1);

async function start(config: object = {}): Promise<StoreCluster> {
  const cluster = await startCluster({ config: { consistencyCheckMs: 300, maintenanceTickMs: 100, ...config } });
  await cluster.mustPut('a', '1');
  await cluster.settle();
  return cluster;
}

/** Changes a value on one store behind everybody's back. The continuous checks would stop the run, so they end here. */
async function damage(cluster: StoreCluster, store: number, value: string): Promise<void> {
  cluster.observer = undefined;
  const { engine } = cluster.machine(store);
  if (engine === undefined) {
    throw new Error(`store ${store} does not run`);
  }
  const batch = engine.createBatch();
  batch.put(dataKey(utf8('a')), encodeDataValue(utf8(value), 0));
  await cluster.run(engine.write(batch));
}

const statusOf = (cluster: StoreCluster, store: number) =>
  cluster
    .store(store)
    .status()
    .find((status) => status.region.id === REGION);

const fenceOf = (cluster: StoreCluster, store: number) => statusOf(cluster, store)?.fence?.reason;

const readFrom = (cluster: StoreCluster, store: number) =>
  cluster.run(
    new Promise<{ readonly type: string }>((resolve) => {
      const status = statusOf(cluster, store);
      if (status === undefined) {
        throw new Error(`store ${store} has no replica`);
      }
      cluster.store(store).read({
        header: {
          regionId: REGION,
          epoch: status.region.epoch,
          peerId: status.peerId as never,
          term: 0,
          deadlineMonoMs: cluster.scheduler.nowMs + 2_000,
        },
        keys: [utf8('a')],
        replicaRead: true,
        respond: resolve,
      });
    }),
  );

describe('the consistency check', () => {
  test('runs by itself and finds nothing wrong with healthy replicas', async () => {
    const cluster = await start();
    const leader = cluster.leaderStore(REGION) as number;
    await cluster.until('a finished check', () => statusOf(cluster, leader)?.check?.result === 'consistent');
    expect(cluster.store(leader).counters.checks).toMatchObject({ divergent: 0, unclear: 0 });
    expect([1, 2, 3].map((store) => fenceOf(cluster, store))).toEqual([undefined, undefined, undefined]);
  });

  test('goes round the regions of a store', async () => {
    const cluster = await start();
    await cluster.mustSplit('g');
    await cluster.mustSplit('p');
    await cluster.until('checks of all regions', () => {
      const checked = [1, 2, 3].flatMap((store) =>
        cluster
          .store(store)
          .status()
          .filter((status) => status.check !== undefined),
      );
      return new Set(checked.map((status) => status.region.id)).size === 3;
    });
  });

  test('fences a follower that differs; it serves and leads nothing, over restarts, while the others go on', async () => {
    const cluster = await start();
    await cluster.mustTransferLeader(REGION, 1);
    await damage(cluster, 3, 'wrong');
    const reports: RegionHeartbeat[] = [];
    cluster.onRegionHeartbeat = (heartbeat) => reports.push(heartbeat);
    await cluster.until('the fence', () => fenceOf(cluster, 3) === 'divergent');
    expect([fenceOf(cluster, 1), fenceOf(cluster, 2)]).toEqual([undefined, undefined]);
    expect(cluster.store(3).damagedPeers()).toMatchObject([{ regionId: REGION, reason: 'divergent' }]);
    expect(reports.some((report) => report.consistency?.result === 'divergent')).toBe(true);
    expect(await readFrom(cluster, 3)).toMatchObject({ type: 'refused', error: { type: 'message' } });
    await cluster.mustPut('b', '2');
    expect(await cluster.mustGet('a')).toBe('1');
    cluster.crash(3);
    await cluster.restart(3);
    expect(fenceOf(cluster, 3)).toBe('divergent');
    // Its vote still counts: without store 2 the region needs it, and only store 1 may lead.
    const heal = cluster.isolate(2);
    await cluster.mustPut('c', '3');
    await cluster.advance(5_000);
    expect(cluster.leaderStore(REGION)).toBe(1);
    heal();
    // Leadership is not given to it.
    await cluster.advance(3_000);
    const outcome = await cluster.run(
      cluster.admin(REGION, {
        type: 'transfer-leader',
        peer: statusOf(cluster, 1)?.region.peers.find((peer) => peer.storeId === 3) as never,
      }),
    );
    await cluster.advance(3_000);
    expect(outcome.type === 'rejected' ? outcome.refusal.code : 'started').toMatch(/ReplicaDamaged|started/);
    expect(cluster.leaderStore(REGION)).not.toBe(3);
  });

  test('moves the leadership away from a leader that differs', async () => {
    const cluster = await start();
    await cluster.mustTransferLeader(REGION, 2);
    await damage(cluster, 2, 'wrong');
    await cluster.until('the fence', () => fenceOf(cluster, 2) === 'divergent');
    await cluster.until('another leader', () => {
      const leader = cluster.leaderStore(REGION);
      return leader !== undefined && leader !== 2;
    });
    expect(await cluster.mustGet('a')).toBe('1');
    await cluster.mustPut('b', '2');
  });

  test('fences all when no majority agrees on anything', async () => {
    const cluster = await start();
    await damage(cluster, 2, 'wrong');
    await damage(cluster, 3, 'wrong as well, but otherwise');
    await cluster.until('three fences', () => [1, 2, 3].every((store) => fenceOf(cluster, store) === 'unclear'));
    for (const store of [1, 2, 3]) {
      expect(await readFrom(cluster, store)).toMatchObject({ type: 'refused' });
    }
  });

  test('a replica that is away is no reason for a verdict; the others are compared', async () => {
    const cluster = await start();
    const leader = cluster.leaderStore(REGION) as number;
    const away = (leader % 3) + 1;
    const heal = cluster.isolate(away);
    await cluster.advance(1_000);
    const before = statusOf(cluster, leader)?.check?.index ?? 0;
    await cluster.advance(15_000);
    expect(statusOf(cluster, leader)?.check).toMatchObject({ result: 'consistent' });
    expect(statusOf(cluster, leader)?.check?.index).toBeGreaterThan(before);
    heal();
    await cluster.settle();
    expect([1, 2, 3].map((store) => fenceOf(cluster, store))).toEqual([undefined, undefined, undefined]);
  });

  test('the fence goes with the data: to both parts of a split, and to the target of a merge', async () => {
    const cluster = await start();
    await cluster.mustTransferLeader(REGION, 1);
    await damage(cluster, 3, 'wrong');
    await cluster.until('the fence', () => fenceOf(cluster, 3) === 'divergent');
    const [left, right] = await cluster.mustSplit('g');
    const fenced = (region: { readonly id: number }, store: number): string | undefined =>
      cluster
        .store(store)
        .status()
        .find((status) => status.region.id === region.id)?.fence?.reason;
    await cluster.until('both parts fenced', () => [left, right].every((part) => fenced(part, 3) === 'divergent'));
    expect([left, right].flatMap((part) => [fenced(part, 1), fenced(part, 2)])).toEqual(Array(4).fill(undefined));
    await cluster.mustTransferLeader(left.id, 1);
    await cluster.mustMerge(left.id, right.id);
    await cluster.until('the target fenced', () => fenced(right, 3) === 'divergent');
    expect([fenced(right, 1), fenced(right, 2)]).toEqual([undefined, undefined]);
    await cluster.mustPut('b', '2');
  });

  test('the fence goes with the replica: a new one on the same store is whole', async () => {
    const cluster = await start();
    await cluster.mustTransferLeader(REGION, 1);
    await damage(cluster, 3, 'wrong');
    await cluster.until('the fence', () => fenceOf(cluster, 3) === 'divergent');
    const bad = statusOf(cluster, 1)?.region.peers.find((peer) => peer.storeId === 3);
    if (bad === undefined) {
      throw new Error('store 3 has a peer');
    }
    await cluster.mustAdmin(REGION, () => ({ type: 'change-peer', changes: [{ type: 'remove', peer: bad }] }));
    await cluster.until('no replica', () => statusOf(cluster, 3) === undefined);
    const fresh = { id: cluster.nextId() as typeof bad.id, storeId: bad.storeId, role: 'voter' as const };
    await cluster.mustAdmin(REGION, () => ({ type: 'change-peer', changes: [{ type: 'add-voter', peer: fresh }] }));
    await cluster.until('a new replica', () => statusOf(cluster, 3)?.state === 'normal');
    await cluster.settle();
    expect(fenceOf(cluster, 3)).toBeUndefined();
    await cluster.checkConsistent();
  });
});

describe('the verdict', () => {
  const hashes = (list: Readonly<Record<number, string>>): Map<number, Uint8Array> =>
    new Map(Object.entries(list).map(([id, text]) => [Number(id), utf8(text)]));

  test.each([
    [[1, 2, 3], [1, 2, 3], { 1: 'x', 2: 'x', 3: 'x' }, 'consistent', []],
    [[1, 2, 3], [1, 2, 3], { 1: 'x', 2: 'x' }, 'consistent', []],
    [[1, 2, 3], [1, 2, 3], { 1: 'x', 2: 'x', 3: 'y' }, 'divergent', [3]],
    [[1, 2, 3], [1, 2, 3], { 1: 'y', 2: 'x', 3: 'x' }, 'divergent', [1]],
    [[1, 2, 3], [1, 2, 3], { 1: 'x', 2: 'y', 3: 'z' }, 'unclear', []],
    [[1, 2, 3], [1, 2, 3], { 1: 'x', 2: 'y' }, 'incomplete', []],
    [[1, 2, 3], [1, 2, 3], { 1: 'x' }, 'incomplete', []],
    [[1, 2], [1, 2], { 1: 'x', 2: 'y' }, 'unclear', []],
    [[1], [1], { 1: 'x' }, 'consistent', []],
    // A learner has no vote, but may differ.
    [[1, 2, 3], [1, 2, 3, 4], { 1: 'x', 2: 'x', 3: 'x', 4: 'y' }, 'divergent', [4]],
    [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], { 1: 'x', 2: 'x', 3: 'x', 4: 'y', 5: 'z' }, 'divergent', [4, 5]],
    [[1, 2, 3, 4], [1, 2, 3, 4], { 1: 'x', 2: 'x', 3: 'y', 4: 'y' }, 'unclear', []],
  ] as const)('voters %j of %j with %j: %s', (voters, members, reports, result, divergent) => {
    expect(judge(voters, members, hashes(reports))).toMatchObject({ result, divergent });
  });
});
