/**
 * A cluster comes into being: the placement service founds its group, three stores start at once, get their ids, write
 * who they are, prepare a first region each, and one of them wins. The sweep lets a process die at its k-th effect,
 * before that effect takes place, or after the k-th event, with every outcome its disk may have; or breaks the
 * connection that carries the k-th packet. A supervisor starts the dead again. In the end there is one cluster with one
 * first region on three stores, every id was given once, nothing is left of prepared regions that lost, and clients are
 * served.
 */
import { assert } from '../../src/base/assert.ts';
import { compareBytes, fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { decodeRegionLocalState, decodeStoreIdent } from '../../src/codec/raft-records.ts';
import type { CrashKind } from '../../src/engine/index.ts';
import { regionStateRange, storeIdentKey } from '../../src/engine/keyspace.ts';
import { drawFullCase, type FullConfig } from './full-case.ts';
import { FullCluster, type Machine, PD_NODE } from './full-cluster.ts';

const STORES = 3;
const OUTCOMES: readonly CrashKind[] = ['keep-all', 'power-loss', 'lose-unsynced'];
/** Time after which a supervisor looks for dead processes. */
const SUPERVISE_MS = 150;
const REST_MS = 120_000;
const LOOK_MS = 20;

export type BootstrapFault =
  | { readonly type: 'effect'; readonly k: number; readonly dies: 'one' | 'all'; readonly kind: CrashKind }
  /** Node 100 is the placement service. */
  | { readonly type: 'event'; readonly k: number; readonly victims: readonly number[]; readonly kind: CrashKind }
  | { readonly type: 'reset'; readonly k: number };

export interface BootstrapSize {
  readonly effects: number;
  readonly events: number;
}

function configOf(seed: number): FullConfig {
  return {
    ...drawFullCase('full', seed).config,
    stores: STORES,
    lossChance: 0,
    delayMs: [0.2, 2],
    writeDelayMs: [0.1, 1],
    pdWriteDelayMs: [0.1, 1],
    oldMail: 0,
    splitKeys: 0,
    balance: false,
    automaticMerge: false,
    storeDownMs: 30_000,
  };
}

class Bootstrap {
  readonly cluster: FullCluster;
  #looked = -Infinity;

  constructor(seed: number) {
    this.cluster = new FullCluster(seed, configOf(seed));
  }

  /** Everything starts; whatever dies is started again. */
  act(): void {
    const { cluster } = this;
    const supervise = (): void => {
      cluster.bootPd();
      for (const id of cluster.machines.keys()) {
        cluster.bootStore(id);
      }
      cluster.scheduler.at(SUPERVISE_MS, supervise, { node: 0, kind: 'supervise' });
    };
    supervise();
  }

  crash(node: number, kind: CrashKind): void {
    if (node === PD_NODE) {
      this.cluster.crashPd(kind);
    } else {
      this.cluster.crashStore(node, kind);
    }
  }

  async until(what: string, done: () => boolean): Promise<void> {
    const { cluster } = this;
    if (!(await cluster.scheduler.pump(done, cluster.scheduler.nowMs + REST_MS))) {
      throw new Error(`not within ${REST_MS} ms: ${what}\n${cluster.describe()}`);
    }
  }

  async settle<T>(what: string, promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const settle = (): void => {
      isSettled = true;
    };
    promise.then(settle, settle);
    await this.until(what, () => isSettled);
    return promise;
  }

  /** The cluster exists and all stores serve, whether or not the region has its replicas. */
  get hasStarted(): boolean {
    const { machines } = this.cluster;
    return (
      [...machines.values()].every(({ store }) => store !== undefined) &&
      [...machines.values()].some(({ store }) => store?.status().some(({ role }) => role === 'leader') === true)
    );
  }

  get #isComplete(): boolean {
    const statuses = [...this.cluster.machines.values()].map(({ store }) => store?.status() ?? []);
    return statuses.every(
      ([only, ...others]) =>
        only?.state === 'normal' &&
        others.length === 0 &&
        only.region.peers.length === STORES &&
        only.region.peers.every(({ role }) => role === 'voter'),
    );
  }

  /** Waits until the cluster is whole and checks it. */
  async check(): Promise<void> {
    const { cluster } = this;
    await this.until('one region on three stores', () => {
      const { nowMs } = cluster.scheduler;
      if (nowMs - this.#looked < LOOK_MS) {
        return false;
      }
      this.#looked = nowMs;
      return this.#isComplete;
    });
    const { braid } = await this.settle('a client connects', cluster.connect('client-1'));
    await this.settle('a write', braid.put(utf8('k'), utf8('v')));
    const value = await this.settle('a read', braid.get(utf8('k')));
    assert(value !== undefined && fromUtf8(value) === 'v', 'the first write is not there');
    assert(cluster.failStops.length === 0, cluster.failStops.join('; '));
    const ids = [...cluster.machines.values()].map((machine) => this.#checkDisk(machine));
    assert(new Set(ids.map(({ region }) => region)).size === 1, 'stores hold different first regions');
    assert(new Set(ids.map(({ store }) => store)).size === STORES, 'two stores share an id');
    assert(new Set(ids.map(({ clusterId }) => clusterId)).size === 1, 'stores belong to different clusters');
    cluster.invariants.checkDisks();
  }

  /** Who the store is, and the one region on its disk. */
  #checkDisk(machine: Machine): { readonly store: number; readonly clusterId: bigint; readonly region: number } {
    const view = machine.disk.database('db')?.view;
    const ident = view?.get(storeIdentKey());
    assert(view !== undefined && ident !== undefined, `machine ${machine.id} does not know who it is`);
    const { storeId, clusterId } = decodeStoreIdent(ident);
    assert(storeId === machine.storeId, `machine ${machine.id} runs as another store than its disk says`);
    const { start, end } = regionStateRange();
    const regions: number[] = [];
    for (const [key, value] of view.entriesFrom(start)) {
      if (compareBytes(key, end) >= 0) {
        break;
      }
      regions.push(decodeRegionLocalState(value).region.id);
    }
    assert(regions.length === 1, `machine ${machine.id} has records of regions ${regions.join()}`);
    return { store: storeId, clusterId, region: regions[0] as number };
  }
}

/** What it takes until all stores serve. */
export async function measureBootstrap(seed: number): Promise<BootstrapSize> {
  const world = new Bootstrap(seed);
  world.act();
  await world.until('all stores serve', () => world.hasStarted);
  const size = { effects: world.cluster.effects, events: world.cluster.scheduler.steps };
  await world.check();
  return size;
}

export async function runBootstrap(seed: number, fault: BootstrapFault): Promise<void> {
  const world = new Bootstrap(seed);
  const { cluster } = world;
  const everybody = [PD_NODE, ...cluster.machines.keys()];
  let struck = false;
  if (fault.type === 'event') {
    world.act();
    await world.until('the chosen event', () => cluster.scheduler.steps >= fault.k);
    for (const victim of fault.victims) {
      world.crash(victim, fault.kind);
    }
    struck = true;
  } else {
    cluster.onEffect = (number, host) => {
      if (number !== fault.k) {
        return false;
      }
      struck = true;
      if (fault.type === 'effect') {
        for (const victim of fault.dies === 'all' ? everybody : [host.node]) {
          world.crash(victim, fault.kind);
        }
      }
      return fault.type === 'reset';
    };
    world.act();
    await world.until('the chosen effect', () => struck);
  }
  await world.check();
}

/** The faults of a complete sweep, in a fixed order. */
export function bootstrapFaults({ effects, events }: BootstrapSize): BootstrapFault[] {
  const everybody = [PD_NODE, ...Array.from({ length: STORES }, (_, i) => i + 1)];
  const faults: BootstrapFault[] = [];
  for (let k = 1; k <= effects; k++) {
    for (const kind of OUTCOMES) {
      faults.push({ type: 'effect', k, dies: 'one', kind }, { type: 'effect', k, dies: 'all', kind });
    }
    faults.push({ type: 'reset', k });
  }
  for (let k = 1; k <= events; k++) {
    const kind = OUTCOMES[k % OUTCOMES.length] as CrashKind;
    faults.push({ type: 'event', k, victims: [everybody[k % everybody.length] as number], kind });
    faults.push({ type: 'event', k, victims: everybody, kind });
  }
  return faults;
}
