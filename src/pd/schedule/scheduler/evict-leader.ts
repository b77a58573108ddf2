/**
 * Moves leaders away from stores that administrators have set to lead nothing. Regions with down or pending peers are
 * not spared: their leader goes to a voter that is neither.
 */
import type { StoreId } from '../../../base/ids.ts';
import { type RegionInfo, isDown, isPending } from '../../cluster/region-info.ts';
import { settingsOf } from '../../cluster/store-info.ts';
import { checkLeaderTarget } from '../filter/store-filter.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import type { SchedulerContext } from './balance-leader.ts';

/** Transfers of one round; empty when nothing leads where nothing may. */
export function scheduleLeaderEviction(context: SchedulerContext): OperatorGroup[] {
  const { cluster, controller, factory } = context;
  const groups: OperatorGroup[] = [];
  // Of all such stores together.
  const transfersMax = cluster.schedulers.value('evict-leader', 'batch');
  for (const info of cluster.stores()) {
    if (!settingsOf(info).leadersEvicted) {
      continue;
    }
    for (const id of cluster.tree.ofStore(info.record.store.id).leaders) {
      if (groups.length >= transfersMax) {
        return groups;
      }
      const region = cluster.tree.get(id);
      if (region === undefined || region.merging || controller.runningOn(id) !== undefined) {
        continue;
      }
      if (cluster.claims.pausedReason(region) !== undefined) {
        continue;
      }
      const to = successor(context, region);
      const made =
        to === undefined
          ? undefined
          : factory.transferLeader(region, to, { name: 'evict-leader', kind: 'leader', priority: 'high' });
      if (made?.type === 'ok' && made.value !== undefined) {
        groups.push(made.value);
      }
    }
  }
  return groups;
}

/** The store that leads fewest regions among those whose voter could lead this one at once. */
function successor({ cluster, nowMs }: SchedulerContext, region: RegionInfo): StoreId | undefined {
  return region.region.peers
    .filter(
      (peer) =>
        peer.role === 'voter' &&
        peer.id !== region.leader?.id &&
        !isDown(region, peer) &&
        !isPending(region, peer) &&
        checkLeaderTarget(cluster, peer.storeId, nowMs) === undefined,
    )
    .map((peer) => peer.storeId)
    .sort((a, b) => cluster.tree.ofStore(a).leaders.size - cluster.tree.ofStore(b).leaders.size || a - b)[0];
}
