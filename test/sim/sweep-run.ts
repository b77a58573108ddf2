/**
 * Systematic sweeps over short operations: a process dies at its k-th effect, in the middle of whatever it was doing; a
 * store or all of them die after the k-th event; the k-th message is lost, duplicated or late. Each death comes with
 * every outcome its disk may have. Whatever happens, the cluster must come to rest with one owner for every key, equal
 * replicas, every acknowledged write in place, and no broken invariant on the way.
 *
 * An engine has one synced batch in flight, so a death leaves a disk with or without that batch, and nothing between:
 * `keep-all` and `lose-unsynced` are these two; `power-loss` draws for every store by itself when several die.
 */
import { assert } from '../../src/base/assert.ts';
import { storeId } from '../../src/base/ids.ts';
import type { CrashKind } from '../../src/engine/index.ts';
import { isInJointState } from '../../src/meta/region.ts';
import { Invariants } from './invariants.ts';
import { type MessageFault, StoreCluster } from './store-cluster.ts';
import { ROWS, type SweepScenario } from './sweep-scenarios.ts';

const CONFIG = {
  pdHeartbeatMs: 500,
  maintenanceTickMs: 200,
  splitCheckMs: 60_000,
  abnormalLeaderMissingMs: 2000,
  maxLeaderMissingMs: 4000,
};
const OUTCOMES: readonly CrashKind[] = ['keep-all', 'power-loss', 'lose-unsynced'];
/** How long the dead stay away. */
const DOWN_MS = 700;
/** Time for an operation to end that met a fault which nobody has to restart for. */
const MESSAGE_FAULT_MS = 500;

export type SweepFault =
  /** The store that is about to perform the k-th effect dies instead, alone or with all others. */
  | { readonly type: 'effect'; readonly k: number; readonly dies: 'one' | 'all'; readonly kind: CrashKind }
  | { readonly type: 'event'; readonly k: number; readonly victims: readonly number[]; readonly kind: CrashKind }
  | { readonly type: MessageFault; readonly k: number };

/** What an operation takes when nothing goes wrong. */
export interface SweepSize {
  readonly effects: number;
  readonly events: number;
  readonly messages: number;
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

/** Counts what the operation takes; throws if it has not ended within its window: the sweep would miss its end. */
export async function measure(scenario: SweepScenario, seed: number): Promise<SweepSize> {
  const { cluster } = await start(scenario, seed);
  const { effects, sent } = cluster;
  const { steps } = cluster.scheduler;
  scenario.act(cluster);
  await cluster.advance(scenario.windowMs);
  assert(scenario.isDone(cluster), `${scenario.name} takes longer than its window\n${cluster.describe()}`);
  return { effects: cluster.effects - effects, events: cluster.scheduler.steps - steps, messages: cluster.sent - sent };
}

/** Lets the chosen processes die at the chosen point and start again. */
async function strike(cluster: StoreCluster, scenario: SweepScenario, fault: SweepFault): Promise<void> {
  let dead: readonly number[] = [];
  switch (fault.type) {
    case 'effect': {
      const target = cluster.effects + fault.k;
      cluster.effectFault = (number, store) => {
        if (number !== target) {
          return false;
        }
        dead = fault.dies === 'all' ? [...cluster.machines.keys()] : [store];
        for (const victim of dead) {
          cluster.crash(victim, fault.kind);
        }
        return true;
      };
      scenario.act(cluster);
      await cluster.until('the chosen effect', () => dead.length > 0);
      break;
    }
    case 'event': {
      const target = cluster.scheduler.steps + fault.k;
      scenario.act(cluster);
      await cluster.until('the chosen event', () => cluster.scheduler.steps >= target);
      dead = fault.victims;
      for (const victim of dead) {
        cluster.crash(victim, fault.kind);
      }
      break;
    }
    default: {
      const target = cluster.sent + fault.k;
      cluster.messageFault = (number) => (number === target ? fault.type : undefined);
      scenario.act(cluster);
      await cluster.advance(scenario.windowMs + MESSAGE_FAULT_MS);
      return;
    }
  }
  await cluster.advance(DOWN_MS);
  for (const victim of dead) {
    await cluster.restart(victim);
  }
}

/** Runs the scenario once with one fault. Throws when something promised does not hold. */
export async function runWithFault(
  scenario: SweepScenario,
  seed: number,
  fault: SweepFault,
): Promise<{ readonly events: number }> {
  const { cluster, invariants } = await start(scenario, seed);
  await strike(cluster, scenario, fault);
  await scenario.afterwards?.(cluster);
  for (const [key, value] of scenario.hasRows ? ROWS : []) {
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
export function faultsOf(scenario: SweepScenario, { effects, events, messages }: SweepSize): SweepFault[] {
  const all = Array.from({ length: scenario.stores }, (_, i) => i + 1);
  const faults: SweepFault[] = [];
  for (let k = 1; k <= effects; k++) {
    for (const kind of OUTCOMES) {
      faults.push({ type: 'effect', k, dies: 'one', kind }, { type: 'effect', k, dies: 'all', kind });
    }
  }
  for (let k = 1; k <= events; k++) {
    for (const kind of OUTCOMES) {
      const victims = [1 + (k % scenario.stores)];
      faults.push({ type: 'event', k, victims, kind }, { type: 'event', k, victims: all, kind });
    }
  }
  for (let k = 1; k <= messages; k++) {
    for (const type of ['drop', 'duplicate', 'delay'] as const) {
      faults.push({ type, k });
    }
  }
  return faults;
}
