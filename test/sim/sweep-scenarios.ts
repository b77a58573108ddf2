/** Short scripted operations for the systematic sweeps of `sweep-run.ts`. */
import { assert } from '../../src/base/assert.ts';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import { findPeerOnStore, isInJointState, type Peer, type Region } from '../../src/meta/region.ts';
import type { RegionStatus } from '../../src/raftstore/store/raft-store.ts';
import type { StoreCluster } from './store-cluster.ts';

export const ROWS = [
  ['a', '1'],
  ['b', '2'],
  ['m', '3'],
  ['z', '4'],
] as const;

/** Logs are compacted early: whoever was away needs a snapshot. */
const EARLY_GC = { logGcThreshold: 2, logGcCountLimit: 5, mergeMaxLogGap: 4 } as const;

export interface SweepScenario {
  readonly name: string;
  readonly stores: number;
  readonly config?: Readonly<Record<string, number>>;
  prepare(cluster: StoreCluster): Promise<void>;
  /** Fires the operation under test without waiting for it. */
  act(cluster: StoreCluster): void;
  /** Length of the window in which faults are tried, in virtual milliseconds. The operation has ended by then. */
  readonly windowMs: number;
  /** Whether the operation has reached its end on every store. */
  isDone(cluster: StoreCluster): boolean;
  /** What makes the cluster whole again if the operation was cut short. */
  afterwards?(cluster: StoreCluster): Promise<void>;
  /** Whether {@link ROWS} were written before the operation. */
  readonly hasRows: boolean;
}

const statusOn = (cluster: StoreCluster, store: number): readonly RegionStatus[] =>
  cluster.machines.get(storeId(store))?.store?.status() ?? [];

/** Every store runs exactly so many replicas, all of them at rest. */
const hasReplicas = (cluster: StoreCluster, ...counts: readonly number[]): boolean =>
  counts.every((count, i) => {
    const found = statusOn(cluster, i + 1);
    return found.length === count && found.every(({ state }) => state === 'normal');
  });

const isJoint = (cluster: StoreCluster, store: number, { id }: Region): boolean =>
  statusOn(cluster, store).some(({ region }) => region.id === id && isInJointState(region));

const putRows = async (cluster: StoreCluster): Promise<void> => {
  for (const [key, value] of ROWS) {
    await cluster.mustPut(key, value);
  }
};

const twoRegions = async (cluster: StoreCluster): Promise<void> => {
  await putRows(cluster);
  await cluster.mustSplit('k');
  await cluster.settle();
};

const threeRegions = async (cluster: StoreCluster): Promise<void> => {
  await twoRegions(cluster);
  await cluster.mustSplit('p');
  await cluster.settle();
};

/**
 * Asks for several merges at once, each from the region of the first key into that of the second, and goes on asking for
 * those that were refused or rolled back, as an operator does, until one region is left.
 */
async function mergeUntilOne(cluster: StoreCluster, pairs: readonly (readonly [string, string])[]): Promise<void> {
  for (let i = 0; i < 500 && !hasReplicas(cluster, 1, 1, 1); i++) {
    const wanted = pairs.map(([source, target]) => [cluster.regionOf(source), cluster.regionOf(target)] as const);
    for (const [source, target] of wanted) {
      if (source !== undefined && target !== undefined && source.id !== target.id) {
        void cluster.admin(source.id, { type: 'merge', target });
      }
    }
    await cluster.sleep(60);
  }
}

const untilOne = (cluster: StoreCluster): Promise<void> =>
  cluster.until('one region', () => hasReplicas(cluster, 1, 1, 1), 120_000);

const learnerOn = (cluster: StoreCluster, store: number): Peer => ({
  id: peerId(cluster.nextId()),
  storeId: storeId(store),
  role: 'learner',
});

/** Merges on stores 1 and 2 while nobody hears of store 3, until the logs it would need are gone. */
async function mergeWithoutStore3(cluster: StoreCluster, [from, into]: readonly [string, string]): Promise<void> {
  const source = cluster.regionOf(from);
  const target = cluster.regionOf(into);
  assert(source !== undefined && target !== undefined, 'no regions');
  const led = (id: number): boolean => [1, 2].includes(cluster.leaderStore(id) ?? 0);
  // Were store 3 to lead when it is cut off, the others would be too far ahead of it for a merge.
  for (const region of [source, target]) {
    for (let i = 0; i < 50 && !led(region.id); i++) {
      const peer = findPeerOnStore(region, storeId(1));
      assert(peer !== undefined, 'no replica on store 1');
      void cluster.admin(region.id, { type: 'transfer-leader', peer });
      await cluster.advance(100);
    }
  }
  cluster.isolate(3);
  await cluster.until('leaders among the others', () => led(source.id) && led(target.id));
  const holds = (store: number): boolean => statusOn(cluster, store).some(({ region }) => region.id === source.id);
  for (let i = 0; i < 100 && (holds(1) || holds(2)); i++) {
    const state = statusOn(cluster, cluster.leaderStore(source.id) ?? 0).find((s) => s.region.id === source.id)?.state;
    const current = cluster.region(target.id);
    if (state === 'normal' && current !== undefined) {
      await cluster.run(cluster.admin(source.id, { type: 'merge', target: current }));
    }
    await cluster.advance(100);
  }
  assert(!holds(1) && !holds(2), 'the merge did not take place');
  const indexOn = (store: number, of: 'firstIndex' | 'lastIndex'): number =>
    statusOn(cluster, store).find(({ region }) => region.id === target.id)?.[of] ?? 0;
  for (let i = 0; i < 40; i++) {
    await cluster.mustPut(`${into}${i}`, 'x');
    if ([1, 2].every((store) => indexOn(store, 'firstIndex') > indexOn(3, 'lastIndex') + 1)) {
      return;
    }
    await cluster.advance(100);
  }
  throw new Error('the log was not compacted');
}

export const SWEEP_SCENARIOS: readonly SweepScenario[] = [
  {
    name: 'split',
    hasRows: true,
    isDone: (cluster) => hasReplicas(cluster, 2, 2, 2),
    stores: 3,
    windowMs: 60,
    prepare: async (cluster) => {
      await putRows(cluster);
      await cluster.settle();
    },
    act: (cluster) => {
      void cluster.admin(1, { type: 'split', keys: [utf8('k')] });
    },
  },
  {
    name: 'merge',
    hasRows: true,
    isDone: (cluster) => hasReplicas(cluster, 1, 1, 1),
    stores: 3,
    windowMs: 80,
    prepare: twoRegions,
    act: (cluster) => {
      const left = cluster.regionOf('a');
      const right = cluster.regionOf('z');
      if (left !== undefined && right !== undefined) {
        void cluster.admin(left.id, { type: 'merge', target: right });
      }
    },
  },
  {
    name: 'rollback of a merge whose target changed',
    hasRows: true,
    isDone: (cluster) => hasReplicas(cluster, 3, 3, 3),
    stores: 3,
    windowMs: 400,
    prepare: async (cluster) => {
      await twoRegions(cluster);
      cluster.failpoints.set('merge::before-commit', { type: 'pause' });
      const left = cluster.regionOf('a');
      const right = cluster.regionOf('z');
      if (left !== undefined && right !== undefined) {
        await cluster.prepareMerge(left.id, right.id);
      }
    },
    act: (cluster) => {
      const right = cluster.regionOf('z');
      if (right !== undefined) {
        void cluster.admin(right.id, { type: 'split', keys: [utf8('p')] });
      }
      // CommitMerge is held until the target has changed everywhere.
      void cluster.sleep(40).then(() => cluster.failpoints.delete('merge::before-commit'));
    },
  },
  {
    name: 'a new replica restored by snapshot',
    hasRows: true,
    isDone: (cluster) => hasReplicas(cluster, 2, 2, 2, 1),
    stores: 4,
    windowMs: 700,
    prepare: twoRegions,
    act: (cluster) => {
      const right = cluster.regionOf('z');
      if (right !== undefined && findPeerOnStore(right, storeId(4)) === undefined) {
        void cluster.admin(right.id, {
          type: 'change-peer',
          changes: [{ type: 'add-learner', peer: learnerOn(cluster, 4) }],
        });
      }
    },
  },
  {
    name: 'joint replacement of a voter',
    hasRows: true,
    isDone: (cluster) => {
      const right = cluster.regionOf('z');
      return right !== undefined && [1, 2, 3, 4].every((store) => isJoint(cluster, store, right));
    },
    stores: 4,
    windowMs: 120,
    prepare: async (cluster) => {
      await twoRegions(cluster);
      const learner = learnerOn(cluster, 4);
      const right = cluster.regionOf('z');
      assert(right !== undefined, 'no region');
      await cluster.mustAdmin(right.id, () => ({
        type: 'change-peer',
        changes: [{ type: 'add-learner', peer: learner }],
      }));
      await cluster.settle();
    },
    act: (cluster) => {
      const right = cluster.regionOf('z');
      const learner = right?.peers.find((p) => p.role === 'learner');
      const leader = right === undefined ? undefined : cluster.leaderStore(right.id);
      const out = right?.peers.find((p) => p.role === 'voter' && p.storeId !== leader);
      if (right !== undefined && learner !== undefined && out !== undefined) {
        void cluster.admin(right.id, {
          type: 'change-peer',
          changes: [
            { type: 'add-voter', peer: { ...learner, role: 'voter' } },
            { type: 'add-learner', peer: { ...out, role: 'learner' } },
          ],
        });
      }
    },
  },
  {
    name: 'removal of a replica',
    hasRows: true,
    isDone: (cluster) => hasReplicas(cluster, 2, 2, 2, 0),
    stores: 4,
    windowMs: 120,
    prepare: async (cluster) => {
      await twoRegions(cluster);
      const right = cluster.regionOf('z');
      assert(right !== undefined, 'no region');
      await cluster.mustAdmin(right.id, () => ({
        type: 'change-peer',
        changes: [{ type: 'add-learner', peer: learnerOn(cluster, 4) }],
      }));
      await cluster.settle();
    },
    act: (cluster) => {
      const right = cluster.regionOf('z');
      const victim = right?.peers.find((p) => p.storeId === 4);
      if (right !== undefined && victim !== undefined) {
        void cluster.admin(right.id, { type: 'change-peer', changes: [{ type: 'remove', peer: victim }] });
      }
    },
  },
  {
    // B is the target of one merge and the source of another at the same time.
    name: 'chained merges',
    hasRows: true,
    isDone: (cluster) => hasReplicas(cluster, 1, 1, 1),
    stores: 3,
    windowMs: 500,
    prepare: threeRegions,
    act: (cluster) => {
      void mergeUntilOne(cluster, [
        ['a', 'm'],
        ['m', 'z'],
      ]);
    },
    afterwards: untilOne,
  },
  {
    name: 'two neighbours into one',
    hasRows: true,
    isDone: (cluster) => hasReplicas(cluster, 1, 1, 1),
    stores: 3,
    windowMs: 500,
    prepare: threeRegions,
    act: (cluster) => {
      void mergeUntilOne(cluster, [
        ['a', 'm'],
        ['z', 'm'],
      ]);
    },
    afterwards: untilOne,
  },
  {
    // Store 3 misses the merge and its log: the snapshot of the target covers the source, which goes with it.
    name: 'a snapshot takes a merged source along',
    hasRows: true,
    isDone: (cluster) => hasReplicas(cluster, 1, 1, 1),
    stores: 3,
    config: EARLY_GC,
    windowMs: 2_600,
    prepare: async (cluster) => {
      await twoRegions(cluster);
      await mergeWithoutStore3(cluster, ['a', 'z']);
    },
    act: (cluster) => cluster.filters.clear(),
    afterwards: untilOne,
  },
  {
    name: 'first election of a new cluster',
    hasRows: false,
    isDone: (cluster) => cluster.leaderStore(1) !== undefined,
    stores: 3,
    windowMs: 2_500,
    prepare: async () => {},
    act: () => {},
  },
];
