/**
 * Spreads traffic: moves the lead of a busy region from the store whose leaders carry most bytes to the one that
 * carries least, if that makes the busiest store less busy. The simple form of tikv/pd's hot-region scheduler: leaders
 * only, one dimension (bytes read and written per second, as leaders report them).
 */
import type { StoreId } from '../../../base/ids.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import { type RegionInfo, isHealthy, isPending, peerOn } from '../../cluster/region-info.ts';
import { checkLeaderTarget } from '../filter/store-filter.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import type { SchedulerContext } from './balance-leader.ts';

export const trafficOf = (info: RegionInfo): number => info.bytesReadPerSecond + info.bytesWrittenPerSecond;

/** Bytes per second of everything a store leads. */
export function ledTraffic(cluster: Cluster, store: StoreId): number {
  let sum = 0;
  for (const id of cluster.tree.ofStore(store).leaders) {
    const info = cluster.tree.get(id);
    sum += info === undefined ? 0 : trafficOf(info);
  }
  return sum;
}

/** At most one transfer. `isResting` answers for regions that were moved a short time ago. */
export function scheduleHotRegion(
  context: SchedulerContext,
  isResting: (info: RegionInfo) => boolean,
): OperatorGroup | undefined {
  const { cluster, controller, factory, nowMs } = context;
  const minBytesPerSecond = cluster.schedulers.value('hot-region', 'min-rate');
  const ratioMin = cluster.schedulers.value('hot-region', 'ratio');
  if (!controller.hasRoomFor('leader', 1)) {
    return undefined;
  }
  const loads = cluster
    .stores()
    .filter(({ record }) => cluster.isUsable(record.store.id, nowMs))
    .map(({ record }) => ({ id: record.store.id, traffic: ledTraffic(cluster, record.store.id) }))
    .sort((a, b) => b.traffic - a.traffic || a.id - b.id);
  const busiest = loads.find(({ id }) => !context.keepsLeaders(id));
  if (busiest === undefined || busiest.traffic < minBytesPerSecond) {
    return undefined;
  }
  const hot = [...cluster.tree.ofStore(busiest.id).leaders]
    .map((id) => cluster.tree.get(id))
    .filter((info): info is RegionInfo => info !== undefined && trafficOf(info) >= minBytesPerSecond)
    .sort((a, b) => trafficOf(b) - trafficOf(a) || a.region.id - b.region.id);
  for (const info of hot) {
    if (!isHealthy(info) || info.merging || isResting(info) || controller.runningOn(info.region.id) !== undefined) {
      continue;
    }
    if (cluster.claims.pinnedReason(info) !== undefined || cluster.claims.pausedReason(info) !== undefined) {
      continue;
    }
    for (const target of [...loads].reverse()) {
      const peer = peerOn(info, target.id);
      if (busiest.traffic < (target.traffic + trafficOf(info)) * ratioMin) {
        break;
      }
      if (
        peer?.role !== 'voter' ||
        isPending(info, peer) ||
        !cluster.rulesWantLeadOn(info, target.id) ||
        checkLeaderTarget(cluster, target.id, nowMs) !== undefined
      ) {
        continue;
      }
      const made = factory.transferLeader(info, target.id, { name: 'hot-region', kind: 'leader', priority: 'low' });
      if (made.type === 'ok' && made.value !== undefined) {
        return made.value;
      }
    }
  }
  return undefined;
}
