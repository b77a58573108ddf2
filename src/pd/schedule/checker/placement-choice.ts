/** Which store should get, or lose, a replica: isolation along the location labels first, then load. */
import type { StoreId } from '../../../base/ids.ts';
import type { Peer, Store } from '../../../meta/region.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import type { RegionInfo } from '../../cluster/region-info.ts';
import { type StoreInfo, isLowOnSpace, isolationScore } from '../../cluster/store-info.ts';
import { checkPeerTarget, checkRoom } from '../filter/store-filter.ts';
import { type Result, ok, refuse, refused } from '../verdict.ts';

/**
 * The store for one more replica of a region; `leaving` is the peer it replaces, if any. A store that separates the
 * replicas best but is only busy for the moment is waited for: settling for a worse place would have to be undone.
 */
export function chooseTarget(
  cluster: Cluster,
  info: RegionInfo,
  leaving: Peer | undefined,
  nowMs: number,
): Result<StoreId> {
  const staying = stayingStores(cluster, info, leaving);
  const candidates = cluster
    .stores()
    .filter(
      (store) =>
        checkPeerTarget(cluster, store.record.store.id, nowMs) === undefined &&
        !info.region.peers.some((peer) => peer.storeId === store.record.store.id) &&
        !isLowOnSpace(store, cluster.config),
    );
  const best = candidates.reduce<StoreInfo | undefined>(
    (found, store) => (found === undefined || isBetter(cluster, store, found, staying) ? store : found),
    undefined,
  );
  if (best === undefined) {
    return refused(
      refuse(
        'NoTargetStore',
        `no store can take another replica of region ${info.region.id}`,
        'add a store, or bring a silent one back',
        { region_id: info.region.id },
      ),
    );
  }
  const blocked = checkRoom(cluster, best.record.store.id);
  return blocked === undefined ? ok(best.record.store.id) : refused(blocked);
}

/** The peer whose loss hurts least: the worst separated one, on the fullest store. The leader is spared if possible. */
export function chooseSurplus(cluster: Cluster, info: RegionInfo): Peer | undefined {
  const voters = info.region.peers.filter((peer) => peer.role === 'voter');
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
): { readonly from: StoreId; readonly to: StoreId } | undefined {
  if (cluster.config.locationLabels.length === 0) {
    return undefined;
  }
  const worst = [...info.region.peers]
    .map((peer) => ({ peer, score: scoreOf(cluster, info, peer) }))
    .sort((a, b) => a.score - b.score || b.peer.id - a.peer.id)[0];
  if (worst === undefined) {
    return undefined;
  }
  const target = chooseTarget(cluster, info, worst.peer, nowMs);
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

function isBetter(cluster: Cluster, a: StoreInfo, b: StoreInfo, staying: readonly Store[]): boolean {
  const labels = cluster.config.locationLabels;
  const [x, y] = [a.record.store, b.record.store];
  const isolation = isolationScore(x, staying, labels) - isolationScore(y, staying, labels);
  if (isolation !== 0) {
    return isolation > 0;
  }
  const size = cluster.tree.sizeOfStoreBytes(x.id) - cluster.tree.sizeOfStoreBytes(y.id);
  if (size !== 0) {
    return size < 0;
  }
  return cluster.tree.ofStore(x.id).peers.size < cluster.tree.ofStore(y.id).peers.size;
}
