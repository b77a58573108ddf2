/** Merge scenarios (raftstore-scenarios.md, section 1); the names carry their numbers there. */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import { decodeRegionLocalState } from '../../src/codec/raft-records.ts';
import { regionStateKey } from '../../src/engine/index.ts';
import { findPeerOnStore, type Region } from '../../src/meta/region.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { StoreCluster } from '../sim/store-cluster.ts';
import { attempt, expectCalm, startCluster, twoRegions } from './support.ts';

const recordOn = (cluster: StoreCluster, store: number, region: Region) => {
  const bytes = cluster.machine(store).engine?.getSync(regionStateKey(region.id));
  return bytes === undefined ? undefined : decodeRegionLocalState(bytes);
};

const epochOf = (cluster: StoreCluster, region: Region) => (cluster.region(region.id) as Region).epoch;

describe('merge: normal operation', () => {
  for (const direction of ['left into right', 'right into left'] as const) {
    test(`M-01 ${direction}: one region, all data, exact epochs, tombstones`, async () => {
      const cluster = await startCluster();
      const { left, right } = await twoRegions(cluster);
      const [source, target] = direction === 'left into right' ? [left, right] : [right, left];
      const before = { source: epochOf(cluster, source), target: epochOf(cluster, target) };
      const merged = await cluster.mustMerge(source.id, target.id);
      expect(merged.epoch).toEqual({
        version: Math.max(before.source.version + 1, before.target.version) + 1,
        confVer: before.target.confVer,
      });
      await cluster.until('tombstones everywhere', () =>
        [1, 2, 3].every((store) => recordOn(cluster, store, source)?.state === 'tombstone'),
      );
      for (const store of [1, 2, 3]) {
        const record = recordOn(cluster, store, source);
        expect(record?.region.epoch).toEqual({
          version: before.source.version + 1,
          confVer: before.source.confVer + 1,
        });
        expect(record?.mergeState?.target.id).toBe(target.id);
      }
      await cluster.mustPut('b', '3');
      await expectCalm(cluster, { a: '1', z: '2', b: '3' });
    });
  }

  test('M-02 the first and the last region are no neighbours, and merging goes down to one', async () => {
    const cluster = await startCluster();
    await cluster.mustSplit('g');
    await cluster.mustSplit('p');
    await cluster.mustPut('\u0000', 'low');
    await cluster.mustPut('~~', 'high');
    const first = cluster.regionOf('a') as Region;
    const last = cluster.regionOf('z') as Region;
    const middle = cluster.regionOf('h') as Region;
    expect(await attempt(cluster, first.id, { type: 'merge', target: last })).not.toBe('ok');
    await cluster.mustMerge(first.id, middle.id);
    await cluster.mustMerge(middle.id, last.id);
    await expectCalm(cluster, { '\u0000': 'low', '~~': 'high' });
    await cluster.mustSplit('h');
    await expectCalm(cluster, { '\u0000': 'low', '~~': 'high' });
  });

  test('M-03 a follower of the source finishes the merge beside the leader of the target', async () => {
    const cluster = await startCluster();
    const { left, right } = await twoRegions(cluster);
    await cluster.mustTransferLeader(left.id, 1);
    await cluster.mustTransferLeader(right.id, 2);
    await cluster.mustMerge(left.id, right.id);
    await expectCalm(cluster, { a: '1', z: '2' });
  });

  test('M-06 a key of the source is read from a new leader of the target', async () => {
    const cluster = await startCluster();
    const { left, right } = await twoRegions(cluster);
    await cluster.mustMerge(right.id, left.id);
    await cluster.settle();
    const leader = cluster.leaderStore(left.id) as number;
    await cluster.mustTransferLeader(left.id, (leader % 3) + 1);
    await expectCalm(cluster, { a: '1', z: '2' });
    const outcome = await cluster.run(
      new Promise<unknown>((resolve) => {
        cluster.store(cluster.leaderStore(left.id) as number).read({
          header: {
            regionId: left.id,
            epoch: left.epoch,
            peerId: findPeerOnStore(left, storeId(cluster.leaderStore(left.id) as number))?.id ?? peerId(1),
            term: 0,
            deadlineMonoMs: cluster.scheduler.nowMs + 1000,
          },
          keys: [utf8('z')],
          replicaRead: false,
          respond: resolve,
        });
      }),
    );
    expect(outcome).toMatchObject({ type: 'refused' });
  });

  test('M-08 splits and merges at changing borders lose nothing and versions grow', async () => {
    const cluster = await startCluster();
    await cluster.mustPut('m', '0');
    let version = 0;
    for (let round = 0; round < 12; round++) {
      const [left, right] = await cluster.mustSplit(['c', 'm', 'm\u0000', 't'][round % 4] as string);
      await cluster.mustPut(`r${round}`, String(round));
      const merged =
        round % 2 === 0 ? await cluster.mustMerge(left.id, right.id) : await cluster.mustMerge(right.id, left.id);
      expect(merged.epoch.version).toBeGreaterThan(version);
      ({ version } = merged.epoch);
    }
    await expectCalm(cluster, { m: '0', r0: '0', r11: '11' });
  });
});

describe('merge: what must be refused, and works once the cause is gone', () => {
  test('M-10 a follower lags beyond the limit', async () => {
    const cluster = await startCluster({ config: { mergeMaxLogGap: 5 } });
    const { left, right } = await twoRegions(cluster);
    await cluster.mustTransferLeader(left.id, 1);
    await cluster.mustTransferLeader(right.id, 1);
    const heal = cluster.isolate(3);
    for (let i = 0; i < 10; i++) {
      await cluster.mustPut(`b${i}`, 'x');
    }
    expect(await attempt(cluster, left.id, { type: 'merge', target: cluster.region(right.id) as Region })).toBe(
      'LogGapTooLarge',
    );
    await cluster.mustPut('b', 'still writable');
    heal();
    await cluster.settle();
    await cluster.mustMerge(left.id, right.id);
    await expectCalm(cluster, { b: 'still writable', b9: 'x', z: '2' });
  });

  test('M-16 and M-17 other stores, other roles, no neighbour, itself', async () => {
    const cluster = await startCluster({ stores: 4 });
    const { left, right } = await twoRegions(cluster);
    const learner = { id: peerId(cluster.nextId()), storeId: storeId(4), role: 'learner' as const };
    await cluster.mustAdmin(left.id, () => ({
      type: 'change-peer',
      changes: [{ type: 'add-learner', peer: learner }],
    }));
    expect(await attempt(cluster, left.id, { type: 'merge', target: cluster.region(right.id) as Region })).not.toBe(
      'ok',
    );
    expect(await attempt(cluster, left.id, { type: 'merge', target: cluster.region(left.id) as Region })).not.toBe(
      'ok',
    );
    await cluster.mustAdmin(left.id, () => ({ type: 'change-peer', changes: [{ type: 'remove', peer: learner }] }));
    await cluster.settle();
    await cluster.mustMerge(left.id, right.id);
    await expectCalm(cluster, { a: '1', z: '2' });
  });
});

describe('merge: rollback', () => {
  for (const trigger of ['split', 'peer'] as const) {
    test(`M-30 the target changes (${trigger}) before CommitMerge: the source is normal again, with exact epochs`, async () => {
      const cluster = await startCluster({ stores: 4 });
      const { left, right } = await twoRegions(cluster);
      const before = epochOf(cluster, left);
      cluster.failpoints.set('merge::before-commit', { type: 'pause' });
      await cluster.prepareMerge(left.id, right.id);
      if (trigger === 'split') {
        await cluster.mustAdmin(right.id, () => ({ type: 'split', keys: [utf8('p')] }));
      } else {
        const learner = { id: peerId(cluster.nextId()), storeId: storeId(4), role: 'learner' as const };
        await cluster.mustAdmin(right.id, () => ({
          type: 'change-peer',
          changes: [{ type: 'add-learner', peer: learner }],
        }));
      }
      cluster.failpoints.delete('merge::before-commit');
      await cluster.until('the merge is rolled back', () =>
        [1, 2, 3].every((store) => recordOn(cluster, store, left)?.state === 'normal'),
      );
      expect(epochOf(cluster, left)).toEqual({ version: before.version + 2, confVer: before.confVer + 1 });
      await cluster.mustPut('b', 'after');
      await expectCalm(cluster, { a: '1', b: 'after', z: '2' });
    });
  }

  test('M-36 two regions that merge into each other end with one or two, never stuck', async () => {
    const cluster = await startCluster();
    const { left, right } = await twoRegions(cluster);
    const both = Promise.all([
      cluster.admin(left.id, { type: 'merge', target: right }),
      cluster.admin(right.id, { type: 'merge', target: left }),
    ]);
    await cluster.run(both);
    await cluster.mustPut('b', '3');
    await cluster.mustPut('y', '4');
    await expectCalm(cluster, { a: '1', b: '3', y: '4', z: '2' });
  });
});

describe('merge: slow, isolated and restarted replicas', () => {
  test('M-40 a source replica is completed from what CommitMerge carries', async () => {
    const cluster = await startCluster();
    const { left, right } = await twoRegions(cluster);
    await cluster.mustTransferLeader(left.id, 1);
    await cluster.mustTransferLeader(right.id, 1);
    const heal = cluster.drop(
      (m) =>
        m.regionId === left.id && m.to.storeId === 3 && m.body.type === 'raft' && m.body.message.type === MsgType.App,
    );
    await cluster.mustPut('b', 'carried');
    await cluster.mustMerge(left.id, right.id);
    await cluster.until('store 3 has it', () =>
      cluster
        .store(3)
        .status()
        .every((s) => s.region.id !== left.id),
    );
    expect(await cluster.valueOn(3, 'b')).toBe('carried');
    heal();
    cluster.crash(3);
    await cluster.restart(3);
    await expectCalm(cluster, { a: '1', b: 'carried', z: '2' });
  });

  test('M-41 a source replica has everything but never learned that it is committed', async () => {
    const cluster = await startCluster();
    const { left, right } = await twoRegions(cluster);
    await cluster.mustTransferLeader(left.id, 1);
    await cluster.mustTransferLeader(right.id, 1);
    let appends = 0;
    const heal = cluster.drop((m) => {
      if (m.to.storeId !== 3 || m.body.type !== 'raft') {
        return false;
      }
      return m.regionId === right.id ? m.body.message.type === MsgType.App : ++appends > 1;
    });
    await cluster.prepareMerge(left.id, right.id);
    await cluster.advance(2_000);
    heal();
    for (const store of [1, 2, 3]) {
      cluster.crash(store);
    }
    for (const store of [1, 2, 3]) {
      await cluster.restart(store);
    }
    await cluster.until(
      'the source is gone everywhere',
      () =>
        [1, 2, 3].every((s) =>
          cluster
            .store(s)
            .status()
            .every((r) => r.region.id !== left.id),
        ),
      120_000,
    );
    await expectCalm(cluster, { a: '1', z: '2' });
  });

  test('M-50 and M-51 all stores restart while the source is merging: it stays closed and the merge finishes', async () => {
    const cluster = await startCluster();
    const { left, right } = await twoRegions(cluster);
    cluster.failpoints.set('merge::before-commit', { type: 'pause' });
    await cluster.prepareMerge(left.id, right.id);
    await cluster.advance(500);
    for (const store of [1, 2, 3]) {
      cluster.crash(store);
    }
    for (const store of [1, 2, 3]) {
      await cluster.restart(store);
    }
    await cluster.mustLeader(left.id);
    expect([1, 2, 3].map((store) => recordOn(cluster, store, left)?.state)).toEqual(['merging', 'merging', 'merging']);
    const refused = await cluster.run(
      cluster.writeOnce([{ type: 'put', key: utf8('b'), value: utf8('no'), expireAtSeconds: 0 }], 'b'),
    );
    expect(refused.type).not.toBe('ok');
    expect(await attempt(cluster, left.id, { type: 'split', keys: [utf8('c')] })).not.toBe('ok');
    cluster.failpoints.delete('merge::before-commit');
    await expectCalm(cluster, { a: '1', b: undefined, z: '2' });
    expect((cluster.regionOf('a') as Region).id).toBe(right.id);
  });

  for (const gc of [false, true]) {
    test(`M-60 and M-61 a store that was away heals by ${gc ? 'snapshot' : 'log'}`, async () => {
      const cluster = await startCluster({
        config: gc ? { logGcThreshold: 2, logGcCountLimit: 5, mergeMaxLogGap: 4 } : {},
      });
      const { left, right } = await twoRegions(cluster);
      await cluster.mustTransferLeader(left.id, 1);
      await cluster.mustTransferLeader(right.id, 2);
      const heal = cluster.isolate(3);
      await cluster.mustMerge(left.id, right.id);
      for (let i = 0; i < 20; i++) {
        await cluster.mustPut(`b${i}`, 'x');
      }
      await cluster.advance(3_000);
      heal();
      await expectCalm(cluster, { a: '1', b19: 'x', z: '2' });
      expect(
        cluster
          .store(3)
          .status()
          .map((s) => Number(s.region.id)),
      ).toEqual([Number(right.id)]);
    });
  }

  test('M-46 two neighbours merge into one target while a store is away', async () => {
    const cluster = await startCluster();
    await twoRegions(cluster);
    await cluster.mustSplit('p');
    const [left, middle, right] = ['a', 'l', 'z'].map((key) => cluster.regionOf(key) as Region) as [
      Region,
      Region,
      Region,
    ];
    for (const region of [left, middle, right]) {
      await cluster.mustTransferLeader(region.id, 1);
    }
    const heal = cluster.isolate(3);
    await cluster.mustMerge(left.id, middle.id);
    await cluster.mustMerge(right.id, middle.id);
    heal();
    await expectCalm(cluster, { a: '1', z: '2' });
  });
});
