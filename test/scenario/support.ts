/** What the scripted scenarios share: a cluster with continuous invariants, and the usual first steps. */
import { expect } from 'vitest';
import { storeId } from '../../src/base/ids.ts';
import type { Region } from '../../src/meta/region.ts';
import type { RaftstoreConfig } from '../../src/raftstore/config.ts';
import { Invariants } from '../sim/invariants.ts';
import { type ClusterOptions, StoreCluster } from '../sim/store-cluster.ts';

export const CONFIG: Partial<RaftstoreConfig> = {
  pdHeartbeatMs: 500,
  maintenanceTickMs: 200,
  splitCheckMs: 60_000,
  abnormalLeaderMissingMs: 2_000,
  maxLeaderMissingMs: 4_000,
  logGcThreshold: 1_000_000,
  mergeCheckMs: 100,
};

export async function startCluster(options: Partial<ClusterOptions> = {}): Promise<StoreCluster> {
  const cluster = await StoreCluster.start({
    seed: 7,
    stores: 3,
    ...options,
    config: { ...CONFIG, ...options.config },
  });
  const observed = (id: number) => {
    const machine = cluster.machines.get(storeId(id));
    return machine === undefined
      ? undefined
      : { id, store: machine.store, incarnation: machine.incarnation, database: machine.disk.database('db') };
  };
  const all = () => [...cluster.machines.keys()].map((id) => observed(id) as NonNullable<ReturnType<typeof observed>>);
  cluster.observer = new Invariants(all, observed);
  await cluster.mustLeader(1);
  return cluster;
}

/** Two regions around `k` with a row in each; the right one keeps the id of the first region. */
export async function twoRegions(cluster: StoreCluster): Promise<{ left: Region; right: Region }> {
  await cluster.mustPut('a', '1');
  await cluster.mustPut('z', '2');
  const [left, right] = await cluster.mustSplit('k');
  await cluster.settle();
  return { left, right };
}

/** At rest, equal everywhere, and the given rows are there. */
export async function expectCalm(
  cluster: StoreCluster,
  rows: Readonly<Record<string, string | undefined>>,
): Promise<void> {
  for (const [key, value] of Object.entries(rows)) {
    expect(await cluster.mustGet(key), `key ${key}`).toBe(value);
  }
  await cluster.settle();
  await cluster.checkConsistent();
}

/** What one attempt of an admin request came to, in one word. */
export async function attempt(
  cluster: StoreCluster,
  region: number,
  body: Parameters<StoreCluster['admin']>[1],
): Promise<string> {
  const outcome = await cluster.run(cluster.admin(region, body));
  return outcome.type === 'rejected'
    ? outcome.refusal.code
    : outcome.type === 'refused'
      ? outcome.error.type
      : outcome.type;
}
