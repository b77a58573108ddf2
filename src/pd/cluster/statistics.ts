/** Figures and problems of the cluster as a whole, computed from the map when asked. */
import { formatRange } from '../../base/key-range.ts';
import { isInJointState } from '../../meta/region.ts';
import type { Cluster } from './cluster.ts';
import { type RegionInfo, learnersOf, votersOf } from './region-info.ts';
import { type StoreInfo, isLowOnSpace, livenessOf } from './store-info.ts';

export interface Problem {
  readonly code:
    | 'NotBootstrapped'
    | 'StoreDown'
    | 'StoreDisconnected'
    | 'StoreLowOnSpace'
    | 'RegionWithoutLeader'
    | 'RegionDownPeer'
    | 'ReplicaDamaged'
    | 'RegionDamaged'
    | 'RegionUnderReplicated'
    | 'KeySpaceHole'
    | 'TooFewStores'
    | 'MemberSilent';
  readonly message: string;
  readonly hint: string;
  readonly storeId?: number;
  readonly regionId?: number;
}

export type RegionFilter =
  | 'all'
  | 'without-leader'
  | 'down-peer'
  | 'pending-peer'
  | 'under-replicated'
  | 'over-replicated'
  | 'joint-state'
  | 'learner'
  | 'with-operator'
  | 'paused';

/** Whether a region belongs into a filtered list; `with-operator` and `paused` are answered by the caller. */
export function matchesFilter(
  info: RegionInfo,
  filter: Exclude<RegionFilter, 'with-operator' | 'paused'>,
  cluster: Cluster,
): boolean {
  switch (filter) {
    case 'all':
      return true;
    case 'without-leader':
      return info.leader === undefined;
    case 'down-peer':
      return info.downPeers.length > 0;
    case 'pending-peer':
      return info.pendingPeers.length > 0;
    case 'under-replicated':
      return votersOf(info.region).length < cluster.wantedVotersOf(info);
    case 'over-replicated':
      return votersOf(info.region).length > cluster.wantedVotersOf(info);
    case 'joint-state':
      return isInJointState(info.region);
    case 'learner':
      return learnersOf(info.region).length > 0;
  }
}

export interface RegionTotals {
  total: number;
  withoutLeader: number;
  withDownPeers: number;
  withPendingPeers: number;
  underReplicated: number;
  overReplicated: number;
  inJointState: number;
  withLearners: number;
  sizeBytes: number;
  keys: number;
}

export function regionTotals(cluster: Cluster): RegionTotals {
  const totals: RegionTotals = {
    total: 0,
    withoutLeader: 0,
    withDownPeers: 0,
    withPendingPeers: 0,
    underReplicated: 0,
    overReplicated: 0,
    inJointState: 0,
    withLearners: 0,
    sizeBytes: 0,
    keys: 0,
  };
  for (const info of cluster.tree.values()) {
    totals.total++;
    totals.withoutLeader += Number(matchesFilter(info, 'without-leader', cluster));
    totals.withDownPeers += Number(matchesFilter(info, 'down-peer', cluster));
    totals.withPendingPeers += Number(matchesFilter(info, 'pending-peer', cluster));
    totals.underReplicated += Number(matchesFilter(info, 'under-replicated', cluster));
    totals.overReplicated += Number(matchesFilter(info, 'over-replicated', cluster));
    totals.inJointState += Number(matchesFilter(info, 'joint-state', cluster));
    totals.withLearners += Number(matchesFilter(info, 'learner', cluster));
    totals.sizeBytes += info.sizeBytes;
    totals.keys += info.keys;
  }
  return totals;
}

/** Problems listed per kind at most; the rest is one more line. */
const PROBLEMS_PER_KIND_MAX = 8;

/** What keeps the cluster from being healthy, worst first. */
export function findProblems(cluster: Cluster, nowMs: number): Problem[] {
  if (!cluster.bootstrapped) {
    return [{ code: 'NotBootstrapped', message: 'the cluster has no store yet', hint: 'start a store' }];
  }
  const problems: Problem[] = [];
  for (const hole of cluster.tree.holes(PROBLEMS_PER_KIND_MAX)) {
    problems.push({
      code: 'KeySpaceHole',
      message: `no known region covers ${formatRange(hole)}`,
      hint: 'wait for the next reports; if it stays, a region has lost its quorum',
    });
  }
  problems.push(...regionProblems(cluster), ...storeProblems(cluster, nowMs));
  return problems;
}

function regionProblems(cluster: Cluster): Problem[] {
  const found: Problem[] = [];
  const count = { leader: 0, down: 0, under: 0, damaged: 0 };
  for (const info of cluster.tree.values()) {
    const wanted = cluster.wantedVotersOf(info);
    const regionId = info.region.id;
    if (info.leader === undefined) {
      count.leader++;
      if (count.leader <= PROBLEMS_PER_KIND_MAX) {
        found.push({
          code: 'RegionWithoutLeader',
          message: `region ${regionId} has no known leader`,
          hint: 'check that most of its stores are up',
          regionId,
        });
      }
    }
    const [down] = info.downPeers;
    if (down !== undefined && ++count.down <= PROBLEMS_PER_KIND_MAX) {
      found.push({
        code: 'RegionDownPeer',
        message: `region ${regionId} lost contact with its peer on store ${down.peer.storeId}`,
        hint: `check store ${down.peer.storeId}`,
        regionId,
        storeId: down.peer.storeId,
      });
    }
    for (const peer of info.region.peers) {
      const damage = cluster.damageOf(regionId, peer);
      if (damage !== undefined && ++count.damaged <= PROBLEMS_PER_KIND_MAX) {
        found.push({
          code: damage.reason === 'unclear' ? 'RegionDamaged' : 'ReplicaDamaged',
          message:
            damage.reason === 'unclear'
              ? `the replicas of region ${regionId} hold different data behind log index ${damage.index} and no majority agrees; store ${peer.storeId} serves none of it`
              : `the replica of region ${regionId} on store ${peer.storeId} differs from the others behind log index ${damage.index} and serves nothing`,
          hint:
            damage.reason === 'unclear'
              ? 'compare the stores with a backup, keep the right replica and remove the others'
              : `it is replaced automatically; look for a failing disk in store ${peer.storeId}`,
          regionId,
          storeId: peer.storeId,
        });
      }
    }
    if (votersOf(info.region).length < wanted && ++count.under <= PROBLEMS_PER_KIND_MAX) {
      found.push({
        code: 'RegionUnderReplicated',
        message: `region ${regionId} has ${votersOf(info.region).length} of ${wanted} voters`,
        hint: 'it is repaired automatically when enough stores are up',
        regionId,
      });
    }
  }
  return found;
}

function storeProblems(cluster: Cluster, nowMs: number): Problem[] {
  const found: Problem[] = [];
  const usable = cluster.stores().filter((store) => cluster.isUsable(store.record.store.id, nowMs)).length;
  if (usable < cluster.config.maxReplicas) {
    found.push({
      code: 'TooFewStores',
      message: `${usable} usable stores cannot hold ${cluster.config.maxReplicas} replicas`,
      hint: 'add stores',
    });
  }
  for (const store of cluster.stores()) {
    found.push(...problemsOfStore(store, cluster, nowMs));
  }
  return found;
}

function problemsOfStore(store: StoreInfo, cluster: Cluster, nowMs: number): Problem[] {
  const storeId = store.record.store.id;
  if (store.record.store.state === 'tombstone') {
    return [];
  }
  const liveness = livenessOf(store, cluster.config, nowMs);
  if (liveness !== 'up') {
    return [
      {
        code: liveness === 'down' ? 'StoreDown' : 'StoreDisconnected',
        message: `store ${storeId} at ${store.record.store.address} has been silent for ${Math.floor((nowMs - store.seenAtMs) / 1000)} s`,
        hint: `check the process and the network of store ${storeId}`,
        storeId,
      },
    ];
  }
  return isLowOnSpace(store, cluster.config)
    ? [
        {
          code: 'StoreLowOnSpace',
          message: `store ${storeId} is low on space`,
          hint: 'add a store or free space',
          storeId,
        },
      ]
    : [];
}
