/**
 * A scripted scenario on many seeds. Each seed draws its own delays of messages and disks, duplicated messages and the
 * order of simultaneous events; the script is the same. The invariants run throughout, and at the end everything heals
 * and the cluster must come to rest with one owner for every key and nothing left over.
 *
 * `SCENARIO_SEEDS=500` runs more seeds, `SCENARIO_FIRST_SEED=17 SCENARIO_SEEDS=1` one of them again.
 */
import { expect, test } from 'vitest';
import { compareBytes, fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { peerId, storeId } from '../../../src/base/ids.ts';
import type { PeerMessage } from '../../../src/codec/peer-message.ts';
import { decodeRegionLocalState } from '../../../src/codec/raft-records.ts';
import type { RegionLocalState } from '../../../src/codec/store-record.ts';
import type { FailpointName } from '../../../src/env/failpoint-names.ts';
import { createRng, type Rng } from '../../../src/env/rng.ts';
import { dataRange, regionStateKey, userKeyOf } from '../../../src/engine/index.ts';
import { findPeerOnStore, isInJointState, type Peer, type Region } from '../../../src/meta/region.ts';
import type { RaftstoreConfig } from '../../../src/raftstore/config.ts';
import type { AdminRequestBody } from '../../../src/raftstore/msg.ts';
import type { RegionStatus } from '../../../src/raftstore/store/raft-store.ts';
import type { ClusterOptions, StoreCluster } from '../../sim/store-cluster.ts';
import { attempt, expectCalm, startCluster } from '../support.ts';
import { Actors } from './actors.ts';
import { Traffic } from './traffic.ts';

const setting = (name: string, standard: number): number => {
  const text = process.env[name];
  const value = text === undefined ? standard : Number(text);
  if (!Number.isInteger(value) || value < 1) {
    throw new Error(`${name} must be a positive whole number, not ${text}`);
  }
  return value;
};

const SEEDS: number = setting('SCENARIO_SEEDS', 10);
const FIRST_SEED: number = setting('SCENARIO_FIRST_SEED', 1);
/** Wall-clock time one seed of one scenario may take. */
const SEED_LIMIT_MS = 5_000;
/** Time that cleaning of ranges given up may take. */
const CLEANING_MS = 7_000;

/** Compact early, so that whoever was away needs a snapshot. */
export const SMALL_LOG: Partial<RaftstoreConfig> = { logGcThreshold: 2, logGcCountLimit: 10, mergeMaxLogGap: 5 };

export function scenario(name: string, script: (scene: Scene) => Promise<void>): void {
  test(
    name,
    async () => {
      for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
        const scene = new Scene(seed);
        try {
          await script(scene);
          await scene.end();
        } catch (error) {
          const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
          throw new Error(`with SCENARIO_FIRST_SEED=${seed} SCENARIO_SEEDS=1: ${text}\n${scene.describe()}`, {
            cause: error,
          });
        }
      }
    },
    10_000 + SEEDS * SEED_LIMIT_MS,
  );
}

export class Scene {
  readonly seed: number;
  readonly rng: Rng;
  readonly #rows: Map<string, string | undefined> = new Map();
  readonly #traffic: Traffic[] = [];
  readonly #releases: (() => void)[] = [];
  #cluster: StoreCluster | undefined;
  #actors: Actors | undefined;

  constructor(seed: number) {
    this.seed = seed;
    this.rng = createRng(seed).fork('scene');
  }

  get cluster(): StoreCluster {
    if (this.#cluster === undefined) {
      throw new Error('the scenario has not started a cluster');
    }
    return this.#cluster;
  }

  get actors(): Actors {
    if (this.#actors === undefined) {
      throw new Error('the scenario has not started a cluster');
    }
    return this.#actors;
  }

  describe(): string {
    return this.#cluster?.describe() ?? 'no cluster';
  }

  // ------------------------------------------------------------------------------------------ setting the stage

  /** A cluster whose first region is led by store 1 and holds `a` and `z`. */
  async start(options: Partial<Omit<ClusterOptions, 'seed'>> = {}): Promise<StoreCluster> {
    const { rng } = this;
    const cluster = await startCluster({
      ...options,
      seed: this.seed,
      network: {
        delayMs: rng.pick([[0.2, 2] as const, [0.1, 8] as const, [1, 25] as const]),
        duplicateChance: rng.pick([0, 0, 0.05]),
        ...options.network,
      },
    });
    this.#cluster = cluster;
    this.#attachActors(cluster);
    const writeDelayMs = rng.pick([[0.1, 1] as const, [0.1, 1] as const, [0.5, 8] as const, [2, 20] as const]);
    for (const { disk } of cluster.machines.values()) {
      disk.setBehavior({ writeDelayMs });
    }
    await cluster.mustTransferLeader(1, 1);
    await this.put('a', '1');
    await this.put('z', '2');
    return cluster;
  }

  /** Messages between the actors of a store pass through {@link actors}; in most seeds some of them starve. */
  #attachActors(cluster: StoreCluster): void {
    const { rng } = this;
    const unfairness = rng.pick([
      { chance: 0, maxMs: 0 },
      { chance: 0.02, maxMs: 20 },
      { chance: 0.1, maxMs: 5 },
      { chance: 0.01, maxMs: 150 },
    ]);
    const actors = new Actors(cluster, rng.fork('actors'), unfairness);
    this.#actors = actors;
    const { observer } = cluster;
    cluster.observer = {
      afterEvent: (node, kind) => observer?.afterEvent(node, kind),
      onSend: (message, store) => observer?.onSend(message, store),
      onReceive: (message, store) => observer?.onReceive?.(message, store),
      beforeDeath: (store) => observer?.beforeDeath?.(store),
      onBoot: (store) => {
        observer?.onBoot(store);
        actors.attach(store, cluster.store(store));
      },
    };
    for (const id of cluster.machines.keys()) {
      actors.attach(id, cluster.store(id));
    }
  }

  /** Two regions around `k`, both led by store 1; the right one keeps the id of the first region. */
  async split(key: string = 'k'): Promise<{ left: Region; right: Region }> {
    const [left, right] = await this.cluster.mustSplit(key);
    await this.cluster.settle();
    await this.cluster.mustTransferLeader(left.id, 1);
    await this.cluster.mustTransferLeader(right.id, 1);
    return { left: this.region(left.id), right: this.region(right.id) };
  }

  async put(key: string, value: string): Promise<void> {
    await this.cluster.mustPut(key, value);
    this.#rows.set(key, value);
  }

  /** Writes `count` rows `prefix0`, `prefix1` … */
  async fill(prefix: string, count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      await this.put(`${prefix}${i}`, `${prefix}-${i}`);
    }
  }

  /** Clients that read and write `keys` until the end; what they saw must be linearizable. */
  traffic(keys: readonly string[], clients: number = 3): Traffic {
    const traffic = new Traffic(this.cluster, this.rng.fork(`traffic-${this.#traffic.length}`), keys, clients);
    this.#traffic.push(traffic);
    return traffic;
  }

  // ------------------------------------------------------------------------------------------ membership

  newPeer(store: number, role: Peer['role'] = 'learner'): Peer {
    return { id: peerId(this.cluster.nextId()), storeId: storeId(store), role };
  }

  async addLearner(region: number, store: number): Promise<Peer> {
    const peer = this.newPeer(store);
    await this.mustChange(region, [{ type: 'add-learner', peer }]);
    return peer;
  }

  async promote(region: number, peer: Peer): Promise<void> {
    await this.mustChange(region, [{ type: 'add-voter', peer: { ...peer, role: 'voter' } }]);
  }

  /** A new voter with all data. */
  async addVoter(region: number, store: number): Promise<Peer> {
    const peer = await this.addLearner(region, store);
    await this.data(region, store);
    await this.promote(region, peer);
    return peer;
  }

  async remove(region: number, store: number): Promise<void> {
    const peer = findPeerOnStore(this.region(region), storeId(store));
    if (peer === undefined) {
      throw new Error(`region ${region} has no peer on store ${store}`);
    }
    await this.mustChange(region, [{ type: 'remove', peer }]);
  }

  async mustChange(
    region: number,
    changes: Extract<AdminRequestBody, { type: 'change-peer' }>['changes'],
  ): Promise<void> {
    const [after] = await this.cluster.mustAdmin(region, () => ({ type: 'change-peer', changes }));
    const { confVer } = after?.epoch ?? { confVer: 0 };
    await this.cluster.until('the leader shows the change', () => {
      const leader = this.cluster.leaderStore(region);
      return leader !== undefined && (this.status(leader, region)?.region.epoch.confVer ?? 0) >= confVer;
    });
  }

  attempt(region: number, body: AdminRequestBody): Promise<string> {
    return attempt(this.cluster, region, body);
  }

  /** Cuts the leader of a region off until another one leads; no transfer, which a pending snapshot would forbid. */
  async depose(region: number): Promise<number> {
    const { cluster } = this;
    const old = await cluster.mustLeader(region);
    const heal = cluster.isolate(old);
    await cluster.until('another leader', () => (cluster.leaderStore(region) ?? old) !== old);
    heal();
    return cluster.leaderStore(region) as number;
  }

  // ------------------------------------------------------------------------------------------ looking

  region(id: number): Region {
    const region = this.cluster.region(id);
    if (region === undefined) {
      throw new Error(`no store knows region ${id}`);
    }
    return region;
  }

  regionAt(key: string): Region {
    const region = this.cluster.regionOf(key);
    if (region === undefined) {
      throw new Error(`nobody leads a region of ${key}`);
    }
    return region;
  }

  peerOn(region: number, store: number): Peer {
    const peer = findPeerOnStore(this.region(region), storeId(store));
    if (peer === undefined) {
      throw new Error(`region ${region} has no peer on store ${store}`);
    }
    return peer;
  }

  /** The replica of a region on a store; undefined if the store is down or has none. */
  status(store: number, region: number): RegionStatus | undefined {
    return this.cluster.isUp(store)
      ? this.cluster
          .store(store)
          .status()
          .find((s) => s.region.id === region)
      : undefined;
  }

  /** What the disk of a store says about a region. */
  record(store: number, region: number): RegionLocalState | undefined {
    const bytes = this.cluster.machine(store).engine?.getSync(regionStateKey(region as Region['id']));
    return bytes === undefined ? undefined : decodeRegionLocalState(bytes);
  }

  /** Waits until the store has a replica of the region with data. */
  async data(region: number, store: number): Promise<void> {
    await this.cluster.until(`data of region ${region} on store ${store}`, () => {
      const s = this.status(store, region);
      return s?.state === 'normal' && s.region.peers.length > 0;
    });
  }

  /** Waits until the store has no replica of the region, not even a dying one. */
  async gone(region: number, store: number, limitMs: number = 60_000): Promise<void> {
    await this.cluster.until(
      `region ${region} left store ${store}`,
      () => this.status(store, region) === undefined,
      limitMs,
    );
  }

  /** User keys on a store's disk that lie in none of its regions. */
  leftovers(store: number): string[] {
    const machine = this.cluster.machine(store);
    const { start, end } = dataRange({ start: utf8(''), end: utf8('') });
    const out: string[] = [];
    for (const [key] of machine.disk.database('db')?.view.entriesFrom(start) ?? []) {
      if (compareBytes(key, end) >= 0) {
        break;
      }
      if (machine.store?.regionOfKey(userKeyOf(key)) === undefined) {
        out.push(fromUtf8(userKeyOf(key)));
      }
    }
    return out;
  }

  // ------------------------------------------------------------------------------------------ interfering

  /** Holds a step back until the returned function is called. */
  pause(store: number, point: FailpointName, region?: number): () => void {
    const key = `${store}!${point}${region === undefined ? '' : `#${region}`}`;
    this.cluster.failpoints.set(key, { type: 'pause' });
    return () => {
      this.cluster.failpoints.delete(key);
    };
  }

  /** The process dies when it next passes the point; waits for that. */
  async dieAt(store: number, point: FailpointName, region?: number): Promise<void> {
    this.armDeath(store, point, region);
    await this.cluster.until(`store ${store} dies at ${point}`, () => !this.cluster.isUp(store));
  }

  /** The process dies when it next passes the point. */
  armDeath(store: number, point: FailpointName, region?: number): void {
    const key = `${store}!${point}${region === undefined ? '' : `#${region}`}`;
    this.cluster.failpoints.set(key, { type: 'crash' });
  }

  /** Messages that match wait until they are released; each is delivered then, in the order it came. */
  hold(filter: (message: PeerMessage) => boolean): { readonly held: PeerMessage[]; release(): void } {
    const { cluster } = this;
    const held: PeerMessage[] = [];
    const stop = cluster.drop((message) => {
      if (!filter(message)) {
        return false;
      }
      held.push(message);
      return true;
    });
    return {
      held,
      release: () => {
        stop();
        for (const message of held) {
          this.deliver(message);
        }
      },
    };
  }

  /** Received snapshots that match are told to their stores only after `release`. */
  holdSnapshots(filter: (message: PeerMessage) => boolean): { readonly held: PeerMessage[]; release(): void } {
    const held: PeerMessage[] = [];
    let release: () => void = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { cluster } = this;
    const before = cluster.snapshotGate;
    cluster.snapshotGate = async (message) => {
      await before?.(message);
      if (filter(message)) {
        held.push(message);
        await released;
      }
    };
    this.#releases.push(release);
    return { held, release };
  }

  /** Hands a message to its store now, whatever the network is like. */
  deliver(message: PeerMessage): void {
    const machine = this.cluster.machine(message.to.storeId);
    machine.clock.deliver(() => {
      this.cluster.observer?.onReceive?.(message, machine.id);
      machine.store?.receive(message);
    }, 'mail');
  }

  // ------------------------------------------------------------------------------------------ the end

  /** Everything heals; then liveness, equal replicas, no transition and no data left. */
  async end(): Promise<void> {
    const { cluster } = this;
    this.actors.calm();
    for (const release of this.#releases) {
      release();
    }
    cluster.filters.clear();
    cluster.failpoints.clear();
    cluster.setNetwork({ lossChance: 0, duplicateChance: 0, lateChance: 0, delayMs: [0.2, 2] });
    for (const [id, machine] of cluster.machines) {
      machine.disk.setBehavior({ writeDelayMs: [0.1, 1] });
      machine.rate = 1;
      machine.clock.setRate(1);
      if (!cluster.isUp(id)) {
        await cluster.restart(id);
      }
    }
    for (const traffic of this.#traffic) {
      await cluster.advance(1_500);
      await traffic.stop();
    }
    await this.#leaveJoint();
    await cluster.settle(120_000);
    await expectCalm(cluster, Object.fromEntries(this.#rows));
    for (const { id, store } of cluster.machines.values()) {
      const inTransition = (store?.status() ?? []).filter((s) => s.state !== 'normal');
      expect(
        inTransition.map((s) => `region ${s.region.id} on store ${id} is ${s.state}`),
        'I26',
      ).toEqual([]);
    }
    for (const id of cluster.machines.keys()) {
      await cluster.until(`the notes of store ${id} are empty`, () =>
        Object.values(cluster.store(id).bookkeeping()).every((n) => n === 0),
      );
    }
    const waiting = [...cluster.machines.keys()].filter((id) => this.leftovers(id).length > 0);
    if (waiting.length > 0) {
      await cluster.advance(CLEANING_MS);
    }
    for (const id of cluster.machines.keys()) {
      expect(this.leftovers(id), `I9 on store ${id}`).toEqual([]);
    }
    for (const traffic of this.#traffic) {
      traffic.judge();
    }
  }

  async #leaveJoint(): Promise<void> {
    const { cluster } = this;
    const joint = (): Region[] =>
      [...cluster.machines.values()]
        .flatMap(({ store }) => store?.status() ?? [])
        .filter((s) => s.role === 'leader' && isInJointState(s.region))
        .map((s) => s.region);
    for (let round = 0; round < 20; round++) {
      const regions = joint();
      for (const region of regions) {
        await this.attempt(region.id, { type: 'change-peer', changes: [] });
      }
      if (regions.length === 0) {
        return;
      }
      await cluster.advance(500);
    }
  }
}
