/**
 * Systematic crashes: a short scenario is run once to learn how many events it takes, then again with a crash after
 * the k-th event, for every k of the chosen stride. Whatever the moment, the cluster must come to rest with one owner
 * for every key, equal replicas and every acknowledged write in place.
 */
import { describe, expect, test } from 'vitest';
import { peerId, storeId } from '../../src/base/ids.ts';
import type { CrashKind } from '../../src/engine/index.ts';
import { findPeerOnStore } from '../../src/meta/region.ts';
import { StoreCluster } from './store-cluster.ts';

const CONFIG = { pdHeartbeatMs: 500, maintenanceTickMs: 200, splitCheckMs: 60_000, abnormalLeaderMissingMs: 2000, maxLeaderMissingMs: 4000 };
const ROWS = [['a', '1'], ['b', '2'], ['m', '3'], ['z', '4']] as const;

interface Scenario {
  readonly name: string;
  readonly stores: number;
  prepare(cluster: StoreCluster): Promise<void>;
  /** Fires the operation under test without waiting for it. */
  act(cluster: StoreCluster): void;
  /** Length of the window in which crashes are tried, in virtual milliseconds. */
  readonly windowMs: number;
  check?(cluster: StoreCluster): void;
}

const twoRegions = async (cluster: StoreCluster): Promise<void> => {
  for (const [key, value] of ROWS) {
    await cluster.mustPut(key, value);
  }
  await cluster.mustSplit('k');
  await cluster.settle();
};

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'split',
    stores: 3,
    windowMs: 60,
    prepare: async (cluster) => {
      for (const [key, value] of ROWS) {
        await cluster.mustPut(key, value);
      }
      await cluster.settle();
    },
    act: (cluster) => {
      void cluster.admin(1, { type: 'split', keys: [Buffer.from('k')] });
    },
  },
  {
    name: 'merge',
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
      cluster.failpoints.delete('merge::before-commit');
      const right = cluster.regionOf('z');
      if (right !== undefined) {
        void cluster.admin(right.id, { type: 'split', keys: [Buffer.from('p')] });
      }
    },
  },
  {
    name: 'a new replica restored by snapshot',
    stores: 4,
    windowMs: 700,
    prepare: async (cluster) => {
      await twoRegions(cluster);
    },
    act: (cluster) => {
      const right = cluster.regionOf('z');
      if (right !== undefined && findPeerOnStore(right, storeId(4)) === undefined) {
        const peer = { id: peerId(cluster.nextId()), storeId: storeId(4), role: 'learner' as const };
        void cluster.admin(right.id, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] });
      }
    },
  },
];

/** Steps until the window of the scenario has passed, without a crash. */
async function countSteps(scenario: Scenario, seed: number): Promise<number> {
  const cluster = await StoreCluster.start({ seed, stores: scenario.stores, config: CONFIG });
  await scenario.prepare(cluster);
  const before = cluster.scheduler.steps;
  scenario.act(cluster);
  await cluster.advance(scenario.windowMs);
  return cluster.scheduler.steps - before;
}

async function crashAt(scenario: Scenario, seed: number, k: number, victims: readonly number[], kind: CrashKind): Promise<void> {
  const cluster = await StoreCluster.start({ seed, stores: scenario.stores, config: CONFIG });
  await scenario.prepare(cluster);
  const target = cluster.scheduler.steps + k;
  scenario.act(cluster);
  await cluster.until('the chosen event', () => cluster.scheduler.steps >= target);
  for (const victim of victims) {
    cluster.crash(victim, kind);
  }
  await cluster.advance(700);
  for (const victim of victims) {
    await cluster.restart(victim);
  }
  for (const [key, value] of ROWS) {
    expect(await cluster.mustGet(key), `key ${key}`).toBe(value);
  }
  await cluster.mustPut('after', 'x');
  await cluster.settle();
  await cluster.checkConsistent();
}

const STRIDE = Number(process.env['SIM_STRIDE'] ?? 1);

describe('crash sweeps', () => {
  for (const scenario of SCENARIOS) {
    test(`${scenario.name}: one store or all stores crash after any event`, async () => {
      const steps = await countSteps(scenario, 11);
      expect(steps).toBeGreaterThan(50);
      let runs = 0;
      for (let k = 1; k <= steps; k += STRIDE) {
        const all = Array.from({ length: scenario.stores }, (_, i) => i + 1);
        const victims = runs % 3 === 2 ? all : [1 + (runs % scenario.stores)];
        const kind = runs % 2 === 0 ? 'power-loss' : 'kill';
        try {
          await crashAt(scenario, 11, k, victims, kind);
        } catch (error) {
          throw new Error(`${scenario.name}, crash (${kind}) of ${victims.join(',')} after event ${k}`, { cause: error });
        }
        runs++;
      }
      expect(runs).toBeGreaterThan(5);
    });
  }
});
