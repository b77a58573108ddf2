/** Which store should get, or lose, a replica: isolation along the location labels first, then load. */
import type { StoreId } from '../../../base/ids.ts';
import type { Peer, Store } from '../../../meta/region.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import type { RegionInfo } from '../../cluster/region-info.ts';
import { type StoreInfo, isLowOnSpace, isolationScore } from '../../cluster/store-info.ts';
import { checkPeerTarget, checkRoom } from '../filter/store-filter.ts';
import type { SlotTarget } from '../placement/fit.ts';
import { type Refusal, type Result, ok, refuse, refused } from '../verdict.ts';

/**
 * The store for one more replica of a region; `leaving` is the peer it replaces, if any, and `wanted` what a placement
 * rule asks of the store: of the stores that separate the
 * replicas best the least loaded one with room. `canTake` answers for the limits of operators. If all of them are only
 * busy for the moment they are waited for: settling for a worse place would have to be undone.
 */
export function chooseTarget(
  cluster: Cluster,
  info: RegionInfo,
  leaving: Peer | undefined,
  nowMs: number,
  canTake: (store: StoreId) => boolean,
  wanted: SlotTarget = { accepts: () => true, locationLabels: cluster.config.locationLabels },
): Result<StoreId> {
  const staying = stayingStores(cluster, info, leaving);
  const { locationLabels } = wanted;
  let bestScore = -1;
  let best: StoreInfo[] = [];
  for (const candidate of cluster.stores()) {
    const { store } = candidate.record;
    if (
      checkPeerTarget(cluster, store.id, nowMs) !== undefined ||
      info.region.peers.some((peer) => peer.storeId === store.id) ||
      isLowOnSpace(candidate, cluster.config) ||
      !wanted.accepts(store)
    ) {
      continue;
    }
    const score = isolationScore(store, staying, locationLabels);
    if (score > bestScore) {
      bestScore = score;
      best = [];
    }
    if (score === bestScore) {
      best.push(candidate);
    }
  }
  best.sort((a, b) => compareLoad(cluster, a.record.store, b.record.store));
  const [first] = best;
  if (first === undefined) {
    return refused(
      refuse(
        'NoTargetStore',
        `no store can take another replica of region ${info.region.id}`,
        'add a store, or bring a silent one back',
        { region_id: info.region.id },
      ),
    );
  }
  const open = best.filter(({ record }) => checkRoom(cluster, record.store.id) === undefined);
  const chosen = open.find(({ record }) => canTake(record.store.id)) ?? open[0];
  // Without tokens anywhere the first is named: admission says then what it waits for.
  return chosen === undefined
    ? refused(checkRoom(cluster, first.record.store.id) as Refusal)
    : ok(chosen.record.store.id);
}

/** The peer whose loss hurts least: the worst separated one, on the fullest store. The leader is spared if possible. */
export function chooseSurplus(cluster: Cluster, info: RegionInfo): Peer | undefined {
  const voters = info.region.peers.filter(
    (peer) => peer.role === 'voter' && !cluster.claims.protects(info, peer.storeId),
  );
  const rank = (peer: Peer): readonly [number, number, number, number] => {
    const store = cluster.store(peer.storeId)?.record.store;
    const others = stayingStores(cluster, info, peer);
    return [
      store === undefined ? -1 : isolationScore(store, others, cluster.config.locationLabels),
      peer.id === info.leader?.id ? 1 : 0,
      -cluster.tree.sizeOfStoreBytes(peer.storeId),
      -peer.id,
    ];
  };
  return [...voters].sort((a, b) => {
    const [x, y] = [rank(a), rank(b)];
    return x[0] - y[0] || x[1] - y[1] || x[2] - y[2] || x[3] - y[3];
  })[0];
}

/** A move that separates the replicas better, if there is one. */
export function findBetterPlace(
  cluster: Cluster,
  info: RegionInfo,
  nowMs: number,
  canTake: (store: StoreId) => boolean,
): { readonly from: StoreId; readonly to: StoreId } | undefined {
  if (cluster.config.locationLabels.length === 0) {
    return undefined;
  }
  const worst = info.region.peers
    .filter((peer) => !cluster.claims.protects(info, peer.storeId))
    .map((peer) => ({ peer, score: scoreOf(cluster, info, peer) }))
    .sort((a, b) => a.score - b.score || b.peer.id - a.peer.id)[0];
  // Nothing is better than being as far from every other replica as stores can be: most regions end here.
  if (worst === undefined || worst.score >= (info.region.peers.length - 1) * cluster.bestIsolation) {
    return undefined;
  }
  const target = chooseTarget(cluster, info, worst.peer, nowMs, canTake);
  if (target.type === 'refused') {
    return undefined;
  }
  const store = cluster.store(target.value)?.record.store;
  const others = stayingStores(cluster, info, worst.peer);
  return store !== undefined && isolationScore(store, others, cluster.config.locationLabels) > worst.score
    ? { from: worst.peer.storeId, to: target.value }
    : undefined;
}

export function scoreOf(cluster: Cluster, info: RegionInfo, peer: Peer): number {
  const store = cluster.store(peer.storeId)?.record.store;
  return store === undefined
    ? 0
    : isolationScore(store, stayingStores(cluster, info, peer), cluster.config.locationLabels);
}

/** Stores that hold the region's other peers. */
export function stayingStores(cluster: Cluster, info: RegionInfo, leaving: Peer | undefined): Store[] {
  return info.region.peers
    .filter((peer) => peer.id !== leaving?.id)
    .map((peer) => cluster.store(peer.storeId)?.record.store)
    .filter((store): store is Store => store !== undefined);
}

/** Less data first, then fewer regions, then the smaller id. */
const compareLoad = (cluster: Cluster, a: Store, b: Store): number =>
  cluster.tree.sizeOfStoreBytes(a.id) - cluster.tree.sizeOfStoreBytes(b.id) ||
  cluster.tree.ofStore(a.id).peers.size - cluster.tree.ofStore(b.id).peers.size ||
  a.id - b.id;
