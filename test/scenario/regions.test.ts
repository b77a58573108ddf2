/** Split, membership, snapshot, life cycle and read scenarios (raftstore-scenarios.md, sections 2 to 7). */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import { findPeerOnStore, type Peer, type Region } from '../../src/meta/region.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { StoreCluster } from '../sim/store-cluster.ts';
import { attempt, expectCalm, startCluster, twoRegions } from './support.ts';

const learner = (cluster: StoreCluster, store: number): Peer => ({
  id: peerId(cluster.nextId()),
  storeId: storeId(store),
  role: 'learner',
});

const add = async (cluster: StoreCluster, region: number, peer: Peer): Promise<void> => {
  await cluster.mustAdmin(region, () => ({ type: 'change-peer', changes: [{ type: 'add-learner', peer }] }));
};

const promote = async (cluster: StoreCluster, region: number, peer: Peer): Promise<void> => {
  await cluster.mustAdmin(region, () => ({
    type: 'change-peer',
    changes: [{ type: 'add-voter', peer: { ...peer, role: 'voter' } }],
  }));
};

const remove = async (cluster: StoreCluster, region: number, store: number): Promise<void> => {
  await cluster.mustAdmin(region, () => ({
    type: 'change-peer',
    changes: [{ type: 'remove', peer: findPeerOnStore(cluster.region(region) as Region, storeId(store)) as Peer }],
  }));
};

const holds = (cluster: StoreCluster, store: number, region: number): boolean =>
  cluster
    .store(store)
    .status()
    .some((s) => s.region.id === region);

describe('membership and leadership', () => {
  test('a membership change compacted in its own apply batch still reaches the consensus core', async () => {
    const cluster = await startCluster({
      stores: 4,
      config: { logGcThreshold: 1, logGcCountLimit: 4, mergeMaxLogGap: 3 },
    });
    await cluster.mustTransferLeader(1, 1);
    const peer = learner(cluster, 4);
    await add(cluster, 1, peer);
    await promote(cluster, 1, peer);
    await cluster.settle();
    // Store 2 applies the removal and the compaction behind it in one go.
    cluster.failpoints.set('2!apply::before-change-peer', { type: 'pause' });
    await remove(cluster, 1, 3);
    for (let i = 0; i < 20; i++) {
      await cluster.mustPut(`a${i}`, 'x');
    }
    await cluster.advance(1_000);
    cluster.failpoints.clear();
    await cluster.settle();
    await cluster.mustTransferLeader(1, 2);
    await cluster.advance(3_000);
    expect(holds(cluster, 3, 1)).toBe(false);
    await expectCalm(cluster, { a19: 'x' });
  });
});

describe('reads', () => {
  test('R-02 a leader that is alone stops answering before another may write', async () => {
    const cluster = await startCluster();
    await cluster.mustPut('a', 'old');
    await cluster.mustTransferLeader(1, 1);
    await cluster.settle();
    const heal = cluster.isolate(1);
    await cluster.until('another leader', () => [2, 3].some((s) => cluster.store(s).status()[0]?.role === 'leader'));
    await cluster.mustPut('a', 'new');
    const region = cluster.region(1) as Region;
    const own = findPeerOnStore(region, storeId(1)) as Peer;
    const answer = await cluster.run(
      Promise.race([
        cluster.readAt(1, region, own.id, 'a', false),
        cluster.sleep(6_000).then(() => ({ error: 'silence' }) as const),
      ]),
    );
    expect('value' in answer ? answer.value : 'no answer').not.toBe('old');
    heal();
    await expectCalm(cluster, { a: 'new' });
  });

  test('a follower that got no read index asks again, whether the question or the answer was lost', async () => {
    for (const lost of [MsgType.ReadIndex, MsgType.ReadIndexResp]) {
      const cluster = await startCluster();
      await cluster.mustTransferLeader(1, 1);
      await cluster.mustPut('k', 'value');
      let dropped = 0;
      const stop = cluster.drop(
        (message) => message.body.type === 'raft' && message.body.message.type === lost && ++dropped <= 2,
      );
      const status = cluster
        .store(2)
        .status()
        .find((each) => each.region.id === 1);
      if (status === undefined) {
        throw new Error('store 2 has a replica');
      }
      const began = cluster.scheduler.nowMs;
      const outcome = await cluster.run(
        new Promise<{ readonly type: string }>((resolve) => {
          cluster.store(2).read({
            header: {
              regionId: status.region.id,
              epoch: status.region.epoch,
              peerId: peerId(status.peerId),
              term: 0,
              deadlineMonoMs: began + 5_000,
            },
            keys: [utf8('k')],
            replicaRead: true,
            respond: resolve,
          });
        }),
      );
      stop();
      expect([outcome.type, dropped]).toEqual(['ok', expect.any(Number)]);
      expect(dropped).toBeGreaterThan(1);
      expect(cluster.scheduler.nowMs - began).toBeLessThan(3_000);
    }
  });

  test('R-09 a follower answers with at least what was acknowledged, however slow its apply is', async () => {
    const cluster = await startCluster();
    await cluster.mustTransferLeader(1, 1);
    await cluster.mustPut('a', 'old');
    await cluster.settle();
    cluster.failpoints.set('2!apply::before-write', { type: 'pause' });
    await cluster.mustPut('a', 'new');
    const region = cluster.region(1) as Region;
    const reading = cluster.readAt(2, region, (findPeerOnStore(region, storeId(2)) as Peer).id, 'a', true);
    await cluster.advance(300);
    cluster.failpoints.clear();
    expect(await cluster.run(reading)).toEqual({ value: 'new' });
  });

  test('a leader does not show less than a follower has shown', async () => {
    const cluster = await startCluster();
    await cluster.mustTransferLeader(1, 1);
    await cluster.mustPut('a', 'old');
    await cluster.settle();
    cluster.failpoints.set('1!apply::before-write', { type: 'pause' });
    const write = cluster.writeOnce([{ type: 'put', key: utf8('a'), value: utf8('new'), expireAtSeconds: 0 }], 'a');
    await cluster.advance(300);
    const region = cluster.region(1) as Region;
    const at = (store: number, replicaRead: boolean) =>
      cluster.readAt(store, region, (findPeerOnStore(region, storeId(store)) as Peer).id, 'a', replicaRead);
    expect(await cluster.run(at(2, true))).toEqual({ value: 'new' });
    const atLeader = at(1, false);
    await cluster.advance(300);
    cluster.failpoints.clear();
    expect(await cluster.run(atLeader)).toEqual({ value: 'new' });
    expect(await cluster.run(write)).toMatchObject({ type: 'ok' });
  });
});

describe('log compaction', () => {
  test('G-02 and G-03 a slow follower is left behind by force only, and not while its region merges', async () => {
    const cluster = await startCluster({ config: { logGcThreshold: 3, logGcCountLimit: 1_000 } });
    const { left, right } = await twoRegions(cluster);
    await cluster.mustTransferLeader(right.id, 1);
    const heal = cluster.isolate(3);
    for (let i = 0; i < 30; i++) {
      await cluster.mustPut(`z${i}`, 'x');
    }
    await cluster.advance(2_000);
    const status = cluster
      .store(1)
      .status()
      .find((s) => s.region.id === right.id);
    expect(status?.firstIndex).toBeLessThan((status?.lastIndex ?? 0) - 25);
    heal();
    await cluster.settle();
    cluster.failpoints.set('merge::before-commit', { type: 'pause' });
    await cluster.prepareMerge(left.id, right.id);
    const leader = cluster.leaderStore(left.id) as number;
    const merging = cluster
      .store(leader)
      .status()
      .find((s) => s.region.id === left.id);
    expect(
      await attempt(cluster, left.id, {
        type: 'compact-log',
        index: (merging?.appliedIndex ?? 2) - 1,
        term: merging?.term ?? 0,
      }),
    ).not.toBe('ok');
    cluster.failpoints.clear();
    await expectCalm(cluster, { a: '1', z: '2', z29: 'x' });
  });
});
