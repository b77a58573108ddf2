/**
 * Short scripted operations for systematic sweeps: a crash after the k-th event, or the k-th message lost, duplicated
 * or late. Whatever happens, the cluster must come to rest with one owner for every key, equal replicas, every
 * acknowledged write in place, and no broken invariant on the way.
 */
import { assert } from '../../src/base/assert.ts';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import type { CrashKind } from '../../src/engine/index.ts';
import { findPeerOnStore, isInJointState, type Peer } from '../../src/meta/region.ts';
import { Invariants } from './invariants.ts';
import { type MessageFault, StoreCluster } from './store-cluster.ts';

const CONFIG = {
  pdHeartbeatMs: 500,
  maintenanceTickMs: 200,
  splitCheckMs: 60_000,
  abnormalLeaderMissingMs: 2000,
  maxLeaderMissingMs: 4000,
};
const ROWS = [
  ['a', '1'],
  ['b', '2'],
  ['m', '3'],
  ['z', '4'],
] as const;

export interface SweepScenario {
  readonly name: string;
  readonly stores: number;
  readonly config?: Readonly<Record<string, number>>;
  prepare(cluster: StoreCluster): Promise<void>;
  /** Fires the operation under test without waiting for it. */
  act(cluster: StoreCluster): void;
  /** Length of the window in which faults are tried, in virtual milliseconds. */
  readonly windowMs: number;
}

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

/** Asks for two merges at once, each from the region of the first key into that of the second. */
function mergeBoth(cluster: StoreCluster, ...pairs: readonly (readonly [source: string, target: string])[]): void {
  const wanted = pairs.map(([source, target]) => [cluster.regionOf(source), cluster.regionOf(target)] as const);
  for (const [source, target] of wanted) {
    if (source !== undefined && target !== undefined) {
      void cluster.admin(source.id, { type: 'merge', target });
    }
  }
}

const learnerOn = (cluster: StoreCluster, store: number): Peer => ({
  id: peerId(cluster.nextId()),
  storeId: storeId(store),
  role: 'learner',
});

export const SWEEP_SCENARIOS: readonly SweepScenario[] = [
  {
    name: 'split',
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
        void cluster.admin(right.id, { type: 'split', keys: [utf8('p')] });
      }
    },
  },
  {
    name: 'a new replica restored by snapshot',
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
    stores: 3,
    windowMs: 150,
    prepare: threeRegions,
    act: (cluster) => mergeBoth(cluster, ['a', 'm'], ['m', 'z']),
  },
  {
    name: 'two neighbours into one',
    stores: 3,
    windowMs: 150,
    prepare: threeRegions,
    act: (cluster) => mergeBoth(cluster, ['a', 'm'], ['z', 'm']),
  },
  {
    name: 'first election of a new cluster',
    stores: 3,
    windowMs: 2_500,
    prepare: async () => {},
    act: () => {},
  },
];

export interface SweepFault {
  readonly type: 'crash' | MessageFault;
  /** Event or message after the start of the operation. */
  readonly k: number;
  readonly victims: readonly number[];
  readonly kind: CrashKind;
}

async function start(
  scenario: SweepScenario,
  seed: number,
): Promise<{ cluster: StoreCluster; invariants: Invariants }> {
  const cluster = await StoreCluster.start({
    seed,
    stores: scenario.stores,
    config: { ...CONFIG, ...scenario.config },
  });
  const observed = (id: number) => {
    const machine = cluster.machines.get(storeId(id));
    return machine === undefined
      ? undefined
      : { id, store: machine.store, incarnation: machine.incarnation, database: machine.disk.database('db') };
  };
  const invariants = new Invariants(
    () => [...cluster.machines.keys()].map((id) => observed(id) as NonNullable<ReturnType<typeof observed>>),
    observed,
  );
  cluster.observer = invariants;
  await scenario.prepare(cluster);
  return { cluster, invariants };
}

/** How many events and messages the operation takes when nothing goes wrong. */
export async function measure(
  scenario: SweepScenario,
  seed: number,
): Promise<{ readonly events: number; readonly messages: number }> {
  const { cluster } = await start(scenario, seed);
  const { steps } = cluster.scheduler;
  const { sent } = cluster;
  scenario.act(cluster);
  await cluster.advance(scenario.windowMs);
  return { events: cluster.scheduler.steps - steps, messages: cluster.sent - sent };
}

/** Runs the scenario once with one fault. Throws when something promised does not hold. */
export async function runWithFault(
  scenario: SweepScenario,
  seed: number,
  fault: SweepFault,
): Promise<{ readonly events: number }> {
  const { cluster, invariants } = await start(scenario, seed);
  const wantsRows = scenario.name !== 'first election of a new cluster';
  const { type } = fault;
  if (type === 'crash') {
    const target = cluster.scheduler.steps + fault.k;
    scenario.act(cluster);
    await cluster.until('the chosen event', () => cluster.scheduler.steps >= target);
    for (const victim of fault.victims) {
      cluster.crash(victim, fault.kind);
    }
    await cluster.advance(700);
    for (const victim of fault.victims) {
      await cluster.restart(victim);
    }
  } else {
    const target = cluster.sent + fault.k;
    cluster.messageFault = (number) => (number === target ? type : undefined);
    scenario.act(cluster);
    await cluster.advance(scenario.windowMs + 500);
  }
  for (const [key, value] of wantsRows ? ROWS : []) {
    const found = await cluster.mustGet(key);
    assert(found === value, `key ${key} holds ${String(found)} instead of ${value}`);
  }
  await cluster.mustPut('after', 'x');
  const joint = [...cluster.machines.values()]
    .flatMap(({ store }) => store?.status() ?? [])
    .find((s) => isInJointState(s.region));
  if (joint !== undefined) {
    await cluster.mustAdmin(joint.region.id, () => ({ type: 'change-peer', changes: [] })).catch(() => undefined);
  }
  await cluster.settle();
  await cluster.checkConsistent();
  invariants.checkDisks();
  return { events: cluster.scheduler.steps };
}

/** The faults of a complete sweep, in a fixed order. */
export async function faultsOf(scenario: SweepScenario, seed: number): Promise<SweepFault[]> {
  const { events, messages } = await measure(scenario, seed);
  const all = Array.from({ length: scenario.stores }, (_, i) => i + 1);
  const faults: SweepFault[] = [];
  for (let k = 1; k <= events; k++) {
    for (const kind of ['kill', 'power-loss', 'lose-unsynced'] as const) {
      for (const victims of [[1 + (k % scenario.stores)], all]) {
        faults.push({ type: 'crash', k, victims, kind });
      }
    }
  }
  for (let k = 1; k <= messages; k++) {
    for (const type of ['drop', 'duplicate', 'delay'] as const) {
      faults.push({ type, k, victims: [], kind: 'kill' });
    }
  }
  return faults;
}
