/**
 * A random history over a cluster of stores: one client per key writes unique values and reads, while regions split,
 * merge, move and change leaders, stores crash and the network loses, delays and duplicates messages. At the end all
 * faults heal, the cluster must come to rest, replicas must be equal, and every key must hold its last acknowledged
 * value or a later one whose outcome stayed unknown. All choices come from the seed.
 */
import { assert } from '../../src/base/assert.ts';
import { compareBytes, utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import { isLeftNeighbour } from '../../src/base/key-range.ts';
import type { Rng } from '../../src/env/rng.ts';
import { findPeerOnStore, formatRegion, isInJointState, type Peer, type Region } from '../../src/meta/region.ts';
import type { RaftstoreConfig } from '../../src/raftstore/config.ts';
import { StoreCluster } from './store-cluster.ts';

export interface ChaosProfile {
  readonly stores: number;
  readonly keys: number;
  readonly durationMs: number;
  /** Relative weights of what the nemesis does next. */
  readonly weights: Readonly<Record<NemesisAction, number>>;
  readonly meanActionMs: number;
  readonly lossChance: number;
  readonly duplicateChance: number;
  readonly delayMs: readonly [number, number];
  readonly config?: Partial<RaftstoreConfig>;
}

export type NemesisAction = 'split' | 'merge' | 'transfer' | 'move' | 'crash' | 'isolate' | 'compact' | 'rest';

export interface ChaosResult {
  readonly acknowledged: number;
  readonly unknown: number;
  readonly reads: number;
  readonly actions: Readonly<Record<string, number>>;
  readonly steps: number;
}

const CHAOS_CONFIG: Partial<RaftstoreConfig> = {
  pdHeartbeatMs: 500,
  maintenanceTickMs: 200,
  splitCheckMs: 1000,
  abnormalLeaderMissingMs: 3000,
  maxLeaderMissingMs: 6000,
  logGcThreshold: 5,
  logGcCountLimit: 40,
  mergeMaxLogGap: 10,
};

interface KeyModel {
  /** Values that the key may hold now, in order of issue; the first is the last acknowledged one. */
  possible: (string | undefined)[];
  next: number;
  busy: boolean;
}

class Chaos {
  readonly cluster: StoreCluster;
  readonly profile: ChaosProfile;
  readonly rng: Rng;
  readonly keys: Map<string, KeyModel> = new Map();
  readonly healers: (() => void)[] = [];
  readonly actions: Record<string, number> = {};
  acknowledged = 0;
  unknown = 0;
  reads = 0;
  stopping = false;
  problem: string | undefined;

  constructor(cluster: StoreCluster, profile: ChaosProfile, rng: Rng) {
    this.cluster = cluster;
    this.profile = profile;
    this.rng = rng;
    for (let i = 0; i < profile.keys; i++) {
      this.keys.set(`k${String(i).padStart(3, '0')}`, { possible: [undefined], next: 1, busy: false });
    }
  }

  count(action: string): void {
    this.actions[action] = (this.actions[action] ?? 0) + 1;
  }

  /** One client: for ever a write or a read of its key, until told to stop. */
  async client(key: string, rng: Rng): Promise<void> {
    const model = this.keys.get(key) as KeyModel;
    while (!this.stopping) {
      await this.cluster.sleep(5 + rng.below(60));
      if (this.stopping) {
        return;
      }
      model.busy = true;
      if (rng.chance(0.35)) {
        await this.#read(key, model);
      } else {
        await this.#write(key, model, rng);
      }
      model.busy = false;
    }
  }

  async #write(key: string, model: KeyModel, rng: Rng): Promise<void> {
    const isDelete = rng.chance(0.1);
    const value = isDelete ? undefined : `${key}-${model.next}`;
    model.next++;
    const op = isDelete
      ? ({ type: 'delete', key: utf8(key) } as const)
      : ({ type: 'put', key: utf8(key), value: utf8(value as string), expireAtSeconds: 0 } as const);
    model.possible.push(value);
    const outcome = await Promise.race([
      this.cluster.writeOnce([op], key),
      this.cluster.sleep(3000).then(() => ({ type: 'timeout' }) as const),
    ]);
    if (outcome.type === 'ok') {
      this.acknowledged++;
      model.possible = [value];
    } else if (outcome.type === 'timeout' || (outcome.type === 'refused' && outcome.error.type === 'undetermined-result')) {
      this.unknown++;
    } else {
      model.possible.pop();
    }
  }

  async #read(key: string, model: KeyModel): Promise<void> {
    const outcome = await Promise.race([
      this.cluster.readOnce(key),
      this.cluster.sleep(3000).then(() => ({ error: 'timeout' }) as const),
    ]);
    if ('error' in outcome) {
      return;
    }
    this.reads++;
    const at = model.possible.lastIndexOf(outcome.value);
    if (at < 0) {
      this.problem ??= `${this.cluster.scheduler.nowMs.toFixed(1)} ms: read of ${key} gave ${String(outcome.value)}, possible were ${model.possible.map(String).join(', ')}`;
      return;
    }
    // What was read has happened; values issued before it cannot come back.
    model.possible = model.possible.slice(at);
  }

  leaders(): Region[] {
    const out = new Map<number, Region>();
    for (const { store } of this.cluster.machines.values()) {
      for (const s of store?.status() ?? []) {
        if (s.role === 'leader' && s.region.peers.length > 0) {
          const known = out.get(s.region.id);
          if (known === undefined || known.epoch.version < s.region.epoch.version || known.epoch.confVer < s.region.epoch.confVer) {
            out.set(s.region.id, s.region);
          }
        }
      }
    }
    return [...out.values()].sort((a, b) => compareBytes(a.range.start, b.range.start));
  }

  async nemesis(): Promise<void> {
    const { weights, meanActionMs } = this.profile;
    const names = Object.keys(weights) as NemesisAction[];
    const total = names.reduce((sum, name) => sum + weights[name], 0);
    while (!this.stopping) {
      await this.cluster.sleep(1 + this.rng.below(2 * meanActionMs));
      if (this.stopping) {
        return;
      }
      let draw = this.rng.float() * total;
      let action: NemesisAction = 'rest';
      for (const name of names) {
        draw -= weights[name];
        if (draw < 0) {
          action = name;
          break;
        }
      }
      this.act(action);
    }
  }

  act(action: NemesisAction): void {
    const regions = this.leaders();
    const { rng, cluster } = this;
    switch (action) {
      case 'split': {
        if (regions.length === 0 || regions.length >= 8) {
          return;
        }
        const region = rng.pick(regions);
        const key = rng.pick([...this.keys.keys()]);
        this.fire(region.id, { type: 'split', keys: [utf8(key)] }, action);
        return;
      }
      case 'merge': {
        const pairs: (readonly [Region, Region])[] = [];
        for (const a of regions) {
          for (const b of regions) {
            if (isLeftNeighbour(a.range, b.range)) {
              pairs.push([a, b], [b, a]);
            }
          }
        }
        if (pairs.length > 0) {
          const [source, target] = rng.pick(pairs);
          // The placement service's part of the bargain: no merge while a peer of either region may not exist yet.
          if (!this.isHealthy(source) || !this.isHealthy(target)) {
            this.count('merge:pending');
            return;
          }
          const aligned = source.peers.length === target.peers.length && source.peers.every((p) => findPeerOnStore(target, p.storeId)?.role === p.role);
          if (aligned) {
            this.fire(source.id, { type: 'merge', target }, action);
          } else {
            this.align(source, target);
          }
        }
        return;
      }
      case 'transfer': {
        if (regions.length > 0) {
          const region = rng.pick(regions);
          this.fire(region.id, { type: 'transfer-leader', peer: rng.pick(region.peers) }, action);
        }
        return;
      }
      case 'move':
        if (regions.length > 0) {
          this.move(rng.pick(regions));
        }
        return;
      case 'crash': {
        const up = [...cluster.machines.keys()].filter((id) => cluster.isUp(id));
        if (up.length * 2 > cluster.machines.size + 1) {
          const id = rng.pick(up);
          this.count(action);
          cluster.crash(id, rng.chance(0.5) ? 'kill' : 'power-loss');
          cluster.scheduler.at(10 + rng.below(4000), () => {
            this.reboot(id);
          });
        }
        return;
      }
      case 'isolate': {
        const id = rng.pick([...cluster.machines.keys()]);
        const heal = rng.chance(0.7)
          ? cluster.isolate(id)
          : cluster.drop((m) => (rng.chance(0.5) ? m.from.storeId === id : m.to.storeId === id));
        this.count(action);
        this.healers.push(heal);
        cluster.scheduler.at(50 + rng.below(4000), heal);
        return;
      }
      case 'compact':
      case 'rest':
    }
  }

  /** The newest report of the region is about exactly this descriptor and names no pending peer. */
  isHealthy(region: Region): boolean {
    const heartbeat = this.cluster.heartbeats.get(region.id);
    return (
      heartbeat !== undefined && formatRegion(heartbeat.region) === formatRegion(region) && heartbeat.pendingPeers.length === 0
    );
  }

  reboot(id: number): void {
    if (!this.cluster.isUp(id)) {
      this.cluster.reboot(id);
    }
  }

  fire(region: number, body: Parameters<StoreCluster['admin']>[1], action: string): void {
    this.cluster.admin(region, body).then(
      (outcome) => {
        if (outcome.type === 'ok') {
          this.count(action);
        } else if (outcome.type === 'rejected') {
          this.count(`${action}:${outcome.refusal.code}`);
        }
      },
      () => {},
    );
  }

  /** One random step of moving a region: add a learner, promote one, or remove a peer that does not lead. */
  move(region: Region): void {
    const { cluster, rng } = this;
    if (isInJointState(region)) {
      this.fire(region.id, { type: 'change-peer', changes: [] }, 'move');
      return;
    }
    const learners = region.peers.filter((p) => p.role === 'learner');
    const free = [...cluster.machines.keys()].filter((id) => findPeerOnStore(region, id) === undefined);
    if (learners.length > 0 && rng.chance(0.7)) {
      const peer = rng.pick(learners);
      this.fire(region.id, { type: 'change-peer', changes: [{ type: 'add-voter', peer: { ...peer, role: 'voter' } }] }, 'move');
      return;
    }
    if (region.peers.length <= 3 && free.length > 0) {
      const peer: Peer = { id: peerId(cluster.nextId()), storeId: rng.pick(free), role: 'learner' };
      this.fire(region.id, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] }, 'move');
      return;
    }
    const leader = cluster.leaderStore(region.id);
    const removable = region.peers.filter((p) => p.storeId !== leader && (region.peers.length > 3 || p.role === 'learner'));
    if (removable.length > 0) {
      this.fire(region.id, { type: 'change-peer', changes: [{ type: 'remove', peer: rng.pick(removable) }] }, 'move');
    }
  }

  /** One step towards the same stores and roles for both regions. */
  align(source: Region, target: Region): void {
    const { cluster } = this;
    const missing = target.peers.find((p) => findPeerOnStore(source, p.storeId) === undefined);
    if (missing !== undefined) {
      const peer: Peer = { id: peerId(cluster.nextId()), storeId: missing.storeId, role: 'learner' };
      this.fire(source.id, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] }, 'align');
      return;
    }
    const learner = source.peers.find((p) => p.role === 'learner' && findPeerOnStore(target, p.storeId)?.role === 'voter');
    if (learner !== undefined) {
      this.fire(source.id, { type: 'change-peer', changes: [{ type: 'add-voter', peer: { ...learner, role: 'voter' } }] }, 'align');
      return;
    }
    const extra = source.peers.find((p) => findPeerOnStore(target, p.storeId) === undefined);
    if (extra !== undefined) {
      if (cluster.leaderStore(source.id) === extra.storeId) {
        const other = source.peers.find((p) => p.role === 'voter' && p !== extra);
        if (other !== undefined) {
          this.fire(source.id, { type: 'transfer-leader', peer: other }, 'align');
        }
      } else {
        this.fire(source.id, { type: 'change-peer', changes: [{ type: 'remove', peer: extra }] }, 'align');
      }
    }
  }
}

/** Runs one history; throws with a description when something promised did not hold. */
export async function runChaos(seed: number, profile: ChaosProfile): Promise<ChaosResult> {
  const cluster = await StoreCluster.start({
    seed,
    stores: profile.stores,
    config: { ...CHAOS_CONFIG, ...profile.config },
  });
  await cluster.mustLeader(1);
  cluster.setNetwork({ lossChance: profile.lossChance, duplicateChance: profile.duplicateChance, delayMs: profile.delayMs });
  const rng = cluster.rng.fork('chaos');
  const chaos = new Chaos(cluster, profile, rng.fork('nemesis'));
  const clients = [...chaos.keys.keys()].map((key) => chaos.client(key, rng.fork(`client-${key}`)));
  const nemesis = chaos.nemesis();
  await cluster.advance(profile.durationMs);
  chaos.stopping = true;
  for (const heal of chaos.healers) {
    heal();
  }
  cluster.filters.clear();
  cluster.setNetwork({ lossChance: 0, duplicateChance: 0, delayMs: [0.2, 2] });
  await cluster.run(Promise.all([...clients, nemesis]));
  for (const id of cluster.machines.keys()) {
    if (!cluster.isUp(id)) {
      await cluster.restart(storeId(id));
    }
  }
  assert(chaos.problem === undefined, chaos.problem ?? '');
  assert(cluster.failStops.length === 0, `a store stopped: ${cluster.failStops.join('; ')}`);
  await settleAll(cluster);
  for (const [key, model] of chaos.keys) {
    const value = await cluster.mustGet(key);
    assert(model.possible.includes(value), `${key} holds ${String(value)}, possible were ${model.possible.map(String).join(', ')}`);
  }
  await cluster.settle();
  await cluster.checkConsistent();
  return {
    acknowledged: chaos.acknowledged,
    unknown: chaos.unknown,
    reads: chaos.reads,
    actions: chaos.actions,
    steps: cluster.scheduler.steps,
  };
}

/** Joint configurations left half-way are left; then everything must come to rest. */
async function settleAll(cluster: StoreCluster): Promise<void> {
  await cluster.settle(120_000);
}

export const MERGE_STORM: ChaosProfile = {
  stores: 4,
  keys: 12,
  durationMs: 20_000,
  weights: { split: 6, merge: 10, transfer: 2, move: 3, crash: 1, isolate: 1, compact: 0, rest: 1 },
  meanActionMs: 120,
  lossChance: 0.01,
  duplicateChance: 0.02,
  delayMs: [0.2, 6],
};
