import { describe, expect, test } from 'vitest';
import { StoreCluster } from './store-cluster.ts';

const FAST = { pdHeartbeatMs: 500, maintenanceTickMs: 200, splitCheckMs: 500 };

describe('a cluster of stores on virtual time', () => {
  test('writes are readable and identical on all replicas', async () => {
    const cluster = await StoreCluster.start({ seed: 1, stores: 3, config: FAST });
    await cluster.mustPut('a', '1');
    await cluster.mustPut('b', '2');
    await cluster.mustDelete('a');
    expect(await cluster.mustGet('a')).toBeUndefined();
    expect(await cluster.mustGet('b')).toBe('2');
    await cluster.settle();
    await cluster.checkConsistent();
    for (const store of [1, 2, 3]) {
      expect(await cluster.valueOn(store, 'b')).toBe('2');
    }
  });

  test('a split makes two regions that both serve', async () => {
    const cluster = await StoreCluster.start({ seed: 2, stores: 3, config: FAST });
    await cluster.mustPut('a', '1');
    await cluster.mustPut('m', '2');
    const [left, right] = await cluster.mustSplit('k');
    expect(left.id).not.toBe(right.id);
    await cluster.mustPut('a', '3');
    await cluster.mustPut('z', '4');
    expect(await cluster.mustGet('a')).toBe('3');
    expect(await cluster.mustGet('m')).toBe('2');
    await cluster.settle();
    await cluster.checkConsistent();
  });

  test('a merge joins two regions without losing a write', async () => {
    for (const seed of [3, 4, 5, 6]) {
      const cluster = await StoreCluster.start({ seed, stores: 3, config: FAST });
      await cluster.mustPut('a', '1');
      await cluster.mustPut('z', '2');
      const [left, right] = await cluster.mustSplit('k');
      await cluster.mustPut('b', '3');
      await cluster.settle();
      const merged =
        seed % 2 === 0 ? await cluster.mustMerge(left.id, right.id) : await cluster.mustMerge(right.id, left.id);
      expect(merged.range.start.length).toBe(0);
      expect(merged.range.end.length).toBe(0);
      await cluster.mustPut('c', '4');
      for (const [key, value] of [
        ['a', '1'],
        ['b', '3'],
        ['c', '4'],
        ['z', '2'],
      ] as const) {
        expect(await cluster.mustGet(key)).toBe(value);
      }
      await cluster.settle();
      await cluster.checkConsistent();
    }
  });

  test('all stores restart at once and lose nothing', async () => {
    const cluster = await StoreCluster.start({ seed: 7, stores: 3, config: FAST });
    for (let i = 0; i < 20; i++) {
      await cluster.mustPut(`k${i}`, `v${i}`);
    }
    await cluster.mustSplit('k5');
    for (const store of [1, 2, 3]) {
      cluster.crash(store);
    }
    for (const store of [1, 2, 3]) {
      await cluster.restart(store);
    }
    for (let i = 0; i < 20; i++) {
      expect(await cluster.mustGet(`k${i}`)).toBe(`v${i}`);
    }
    await cluster.settle();
    await cluster.checkConsistent();
  });

  test('a new replica catches up by snapshot and an old one is removed', async () => {
    const cluster = await StoreCluster.start({ seed: 8, stores: 4, config: FAST });
    for (let i = 0; i < 50; i++) {
      await cluster.mustPut(`k${i}`, `v${i}`);
    }
    const added = { id: cluster.nextId() as never, storeId: 4 as never, role: 'learner' as const };
    await cluster.mustAdmin(1, () => ({ type: 'change-peer', changes: [{ type: 'add-learner', peer: added }] }));
    await cluster.until('the learner has the data', () =>
      cluster
        .store(4)
        .status()
        .some((s) => s.state === 'normal' && s.appliedIndex > 5),
    );
    await cluster.mustAdmin(1, () => ({
      type: 'change-peer',
      changes: [{ type: 'add-voter', peer: { ...added, role: 'voter' } }],
    }));
    await cluster.mustTransferLeader(1, 4);
    const leaving = cluster.region(1)?.peers.find((p) => p.storeId === 1);
    await cluster.mustAdmin(1, () => ({ type: 'change-peer', changes: [{ type: 'remove', peer: leaving as never }] }));
    await cluster.until('store 1 has no replica', () => cluster.store(1).status().length === 0);
    await cluster.mustPut('after', 'x');
    await cluster.settle();
    await cluster.checkConsistent();
    await cluster.until('store 1 has no data', () => true);
    expect(await cluster.mustGet('k7')).toBe('v7');
  });
});
