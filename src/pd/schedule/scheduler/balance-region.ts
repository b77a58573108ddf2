/** Moves replicas from the store with the most data to those with less, never to a worse place. */
import type { StoreId } from '../../../base/ids.ts';
import { type RegionInfo, isHealthy, peerOn } from '../../cluster/region-info.ts';
import { isLowOnSpace, isolationScore } from '../../cluster/store-info.ts';
import { scoreOf, stayingStores } from '../checker/placement-choice.ts';
import { checkPeerTarget, checkRoom } from '../filter/store-filter.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import type { SchedulerContext } from './balance-leader.ts';
import { REPLICA_COST_BYTES, type StoreLoad, projectedLoads, regionScore } from './load.ts';

/** Regions looked at per pair of stores. */
const CANDIDATES_MAX = 64;

/** At most one move; undefined when data is spread well enough or nothing fits. */
export function scheduleRegionBalance(context: SchedulerContext): OperatorGroup | undefined {
  const { cluster, controller } = context;
  if (!controller.hasRoomFor('region', 1)) {
    return undefined;
  }
  const loads = projectedLoads(cluster, controller).filter((load) => cluster.isUsable(load.storeId, context.nowMs));
  const bySize = [...loads].sort((a, b) => regionScore(a) - regionScore(b) || a.storeId - b.storeId);
  const tolerance = averageSizeBytes(loads) * cluster.config.regionToleranceRatio;
  for (const source of [...bySize].reverse()) {
    for (const target of bySize) {
      if (regionScore(source) - regionScore(target) <= tolerance) {
        break;
      }
      const group = isOpen(context, target.storeId) ? moveOneReplica(context, source, target) : undefined;
      if (group !== undefined) {
        return group;
      }
    }
  }
  return undefined;
}

function averageSizeBytes(loads: readonly StoreLoad[]): number {
  const regions = loads.reduce((sum, load) => sum + load.regions, 0);
  const size = loads.reduce((sum, load) => sum + load.sizeBytes, 0);
  return regions === 0 ? 0 : size / regions + REPLICA_COST_BYTES;
}

function isOpen(context: SchedulerContext, store: StoreId): boolean {
  const info = context.cluster.store(store);
  return (
    info !== undefined &&
    checkPeerTarget(context.cluster, store, context.nowMs) === undefined &&
    checkRoom(context.cluster, store) === undefined &&
    !isLowOnSpace(info, context.cluster.config)
  );
}

function moveOneReplica(context: SchedulerContext, source: StoreLoad, target: StoreLoad): OperatorGroup | undefined {
  const { cluster, factory } = context;
  let seen = 0;
  for (const id of cluster.tree.ofStore(source.storeId).peers) {
    if (++seen > CANDIDATES_MAX) {
      return undefined;
    }
    const info = cluster.tree.get(id);
    if (info === undefined || !fits(context, info, source, target)) {
      continue;
    }
    const made = factory.move(info, source.storeId, target.storeId, {
      name: 'balance-region',
      kind: 'region',
      priority: 'low',
    });
    if (made.type === 'ok' && made.value !== undefined) {
      return made.value;
    }
  }
  return undefined;
}

/** Only quiet, complete regions, only if the difference stays positive, only to a place that is at least as good. */
function fits(context: SchedulerContext, info: RegionInfo, source: StoreLoad, target: StoreLoad): boolean {
  const { cluster, controller } = context;
  const leaving = peerOn(info, source.storeId);
  const store = cluster.store(target.storeId)?.record.store;
  if (
    leaving === undefined ||
    store === undefined ||
    !isHealthy(info) ||
    info.merging ||
    controller.runningOn(info.region.id) !== undefined ||
    cluster.claims.protects(info, source.storeId) ||
    cluster.claims.pausedReason(info) !== undefined ||
    peerOn(info, target.storeId) !== undefined ||
    !cluster.isFullyReplicated(info) ||
    !cluster.rulesLetMove(info, source.storeId, target.storeId)
  ) {
    return false;
  }
  // The source must not be the emptier one afterwards, or the next round would move something back.
  const cost = info.sizeBytes + REPLICA_COST_BYTES;
  if (regionScore(source) - cost / source.regionWeight < regionScore(target) + cost / target.regionWeight) {
    return false;
  }
  const others = stayingStores(cluster, info, leaving);
  return isolationScore(store, others, cluster.config.locationLabels) >= scoreOf(cluster, info, leaving);
}
