/** Moves leaders from the store that leads most regions to the ones that lead fewest. */
import type { StoreId } from '../../../base/ids.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import { isHealthy, isPending, peerOn } from '../../cluster/region-info.ts';
import { checkLeaderTarget } from '../filter/store-filter.ts';
import type { OperatorController } from '../operator/controller.ts';
import type { OperatorFactory } from '../operator/create.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import { type StoreLoad, leaderScore, projectedLoads } from './load.ts';

export interface SchedulerContext {
  readonly cluster: Cluster;
  readonly controller: OperatorController;
  readonly factory: OperatorFactory;
  readonly nowMs: number;
  /** Whether a store is to keep what it leads, because leaders were granted to it. */
  readonly keepsLeaders: (store: StoreId) => boolean;
}

/** Regions looked at per pair of stores. */
const CANDIDATES_MAX = 64;

/** At most one transfer; undefined when leaders are spread well enough or nothing fits. */
export function scheduleLeaderBalance(context: SchedulerContext): OperatorGroup | undefined {
  if (!context.controller.hasRoomFor('leader', 1)) {
    return undefined;
  }
  const loads = projectedLoads(context.cluster, context.controller).filter((load) =>
    context.cluster.isUsable(load.storeId, context.nowMs),
  );
  const byLeaders = [...loads].sort((a, b) => leaderScore(a) - leaderScore(b) || a.storeId - b.storeId);
  for (const source of [...byLeaders].reverse()) {
    if (context.keepsLeaders(source.storeId)) {
      continue;
    }
    for (const target of byLeaders) {
      if (!isWorthIt(source, target, context.cluster.config.leaderTolerance)) {
        break;
      }
      const group = moveOneLeader(context, source.storeId, target.storeId);
      if (group !== undefined) {
        return group;
      }
    }
  }
  return undefined;
}

/** After the move the source must still lead more than the target, or the next round would move it back. */
const isWorthIt = (source: StoreLoad, target: StoreLoad, tolerance: number): boolean =>
  (source.leaders - tolerance) / source.leaderWeight > (target.leaders + tolerance) / target.leaderWeight;

function moveOneLeader(context: SchedulerContext, from: StoreId, to: StoreId): OperatorGroup | undefined {
  const { cluster, controller, factory } = context;
  if (checkLeaderTarget(cluster, to, context.nowMs) !== undefined) {
    return undefined;
  }
  let seen = 0;
  for (const id of cluster.tree.ofStore(from).leaders) {
    if (++seen > CANDIDATES_MAX) {
      return undefined;
    }
    const info = cluster.tree.get(id);
    if (info === undefined || !isHealthy(info) || info.merging || controller.runningOn(id) !== undefined) {
      continue;
    }
    if (
      cluster.claims.pinnedReason(info) !== undefined ||
      cluster.claims.pausedReason(info) !== undefined ||
      !cluster.rulesWantLeadOn(info, to)
    ) {
      continue;
    }
    const peer = peerOn(info, to);
    if (peer?.role !== 'voter' || isPending(info, peer)) {
      continue;
    }
    const made = factory.transferLeader(info, to, { name: 'balance-leader', kind: 'leader', priority: 'low' });
    if (made.type === 'ok' && made.value !== undefined) {
      return made.value;
    }
  }
  return undefined;
}
