/**
 * Liveness after the faults. Uniformly random faults heal everything in the end and hide whoever depends on it, so a
 * part of the histories first heals only what is needed: a core of stores that has a quorum of every region while one
 * store outside stays broken for good, or everything but one slow disk or slow network card (gray failure). Every region
 * must then elect, commit and serve within the bound. Afterwards all heal, and at rest nobody may go on electing or
 * sending.
 */
import { findPeerOnStore, type Region } from '../../src/meta/region.ts';
import type { Rng } from '../../src/env/rng.ts';
import { EntryType } from '../../src/raft/types.ts';
import type { RaftStore } from '../../src/raftstore/store/raft-store.ts';
import type { LivenessMode } from './case.ts';
import type { StoreCluster } from './store-cluster.ts';

/** Events the cluster may need to come to rest; more is a hot loop. Per store. */
const SETTLE_EVENTS_MAX = 400_000;
/** Quiet time that is watched at rest. */
const WATCH_MS = 3_000;
const TERM_GROWTH_MAX = 3;
/** Messages of one replica a second at rest: heartbeats, their answers, and some. */
const IDLE_MESSAGES_MAX = 60;

/** A promise of liveness that does not hold. */
export class LivenessError extends Error {}

/** A region as some replica knows it. */
interface KnownRegion {
  readonly region: Region;
  /** Its log holds a membership change that is not applied: it may take effect or not. */
  readonly isChanging: boolean;
}

function knownRegions(store: RaftStore): KnownRegion[] {
  return [...store.inspect().replicas.values()].flatMap(({ fsm }) => {
    const { region, node, appliedIndex } = fsm.peer;
    if (region.peers.length === 0) {
      return [];
    }
    if (!fsm.peer.isActive) {
      // On its way out: its log may be gone from the disk already, and nothing of it is applied any more.
      return [{ region, isChanging: false }];
    }
    const from = Math.max(appliedIndex + 1, node.firstIndex);
    const open = from > node.lastIndex ? [] : node.slice(from, node.lastIndex + 1, Number.MAX_SAFE_INTEGER);
    return [{ region, isChanging: open.some(({ type }) => type !== EntryType.Normal) }];
  });
}

/** The store outside the core; undefined if every store is needed by some region. */
function outsider(regions: readonly KnownRegion[], stores: readonly number[], rng: Rng): number | undefined {
  const isSpare = (store: number): boolean =>
    regions.every(({ region, isChanging }) => {
      // Whoever else leaves may leave too few without this one, a learner that is promoted for it included.
      if (isChanging && region.peers.some((p) => p.storeId === store)) {
        return false;
      }
      const halves = [
        region.peers.filter((p) => p.role === 'voter' || p.role === 'demoting-voter'),
        region.peers.filter((p) => p.role === 'voter' || p.role === 'incoming-voter'),
      ];
      return halves.every((half) => half.filter((p) => p.storeId !== store).length > Math.floor(half.length / 2));
    });
  const spare = stores.filter(isSpare);
  return spare.length === 0 ? undefined : rng.pick(spare);
}

/**
 * Leaves a fault in place for good; returns what takes it back, and what it was. Call it when everything else is healed
 * and every store runs.
 */
export function breakForGood(
  cluster: StoreCluster,
  mode: Exclude<LivenessMode, 'heal'>,
  rng: Rng,
): { readonly what: string; readonly outside: number | undefined; heal(): void } | undefined {
  const stores: readonly number[] = [...cluster.machines.keys()];
  if (mode === 'gray') {
    const store = rng.pick(stores);
    const { disk } = cluster.machine(store);
    if (rng.chance(0.5)) {
      const delayMs = rng.pick([30, 100, 300]);
      disk.setBehavior({ writeDelayMs: [delayMs, delayMs * 2] });
      return { what: `slow-disk`, outside: undefined, heal: () => disk.setBehavior({ writeDelayMs: [0.1, 1] }) };
    }
    const lateMs = rng.pick([20, 50, 150]);
    const delayOf = (m: { readonly from: { readonly storeId: number }; readonly to: { readonly storeId: number } }) =>
      m.from.storeId === store || m.to.storeId === store ? lateMs : 0;
    cluster.delays.add(delayOf);
    return { what: 'slow-link', outside: undefined, heal: () => void cluster.delays.delete(delayOf) };
  }
  // Whatever any store believes its regions to be.
  const regions = [...cluster.machines.values()].flatMap(({ store }) =>
    store === undefined ? [] : knownRegions(store),
  );
  const store = outsider(regions, stores, rng);
  if (store === undefined) {
    return undefined;
  }
  switch (rng.below(4)) {
    case 0:
      cluster.crash(store, 'power-loss');
      return { what: 'outside-down', outside: store, heal: () => cluster.reboot(store) };
    case 1:
      return { what: 'outside-cut-off', outside: store, heal: cluster.isolate(store) };
    case 2:
      return { what: 'outside-mute', outside: store, heal: cluster.drop((m) => m.from.storeId === store) };
    default:
      return { what: 'outside-deaf', outside: store, heal: cluster.drop((m) => m.to.storeId === store) };
  }
}

/**
 * A region without a leader, of those that the stores know; undefined if all are led. What the store outside the core
 * believes does not count: it may hold regions that the others have merged away.
 */
export function leaderless(cluster: StoreCluster, outside: number | undefined): string | undefined {
  for (const { id, store } of cluster.machines.values()) {
    if (id === outside) {
      continue;
    }
    for (const { region } of store?.status() ?? []) {
      const isMember = findPeerOnStore(region, id) !== undefined;
      if (isMember && region.peers.length > 0 && cluster.leaderStore(region.id) === undefined) {
        return `region ${region.id}`;
      }
    }
  }
  return undefined;
}

/** Counts events between two moments. */
export function assertFewEvents(cluster: StoreCluster, sinceSteps: number): void {
  const used = cluster.scheduler.steps - sinceSteps;
  if (used > SETTLE_EVENTS_MAX * cluster.machines.size) {
    throw new LivenessError(`coming to rest took ${used} events: something works in circles`);
  }
}

/** Watches a cluster at rest: terms stay, and messages are those of an idle cluster. */
export async function assertQuiet(cluster: StoreCluster): Promise<void> {
  const terms = (): Map<number, number> => {
    const found = new Map<number, number>();
    for (const { store } of cluster.machines.values()) {
      for (const { region, term } of store?.status() ?? []) {
        found.set(region.id, Math.max(found.get(region.id) ?? 0, term));
      }
    }
    return found;
  };
  const replicas = [...cluster.machines.values()].reduce((sum, { store }) => sum + (store?.regionCount() ?? 0), 0);
  const before = terms();
  const { sent } = cluster;
  await cluster.advance(WATCH_MS);
  for (const [region, term] of terms()) {
    const growth = term - (before.get(region) ?? term);
    if (growth > TERM_GROWTH_MAX) {
      throw new LivenessError(`region ${region} goes on electing at rest: its term grew by ${growth}`);
    }
  }
  const messages = cluster.sent - sent;
  const bound = (IDLE_MESSAGES_MAX * replicas * WATCH_MS) / 1000;
  if (messages > bound) {
    throw new LivenessError(`at rest ${messages} messages were sent in ${WATCH_MS} ms, ${bound} are enough`);
  }
}
