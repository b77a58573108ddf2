/**
 * The opposite of evict-leader (tikv/pd pkg/schedule/schedulers/grant_leader.go): brings the lead of every region that
 * has a voter there to the stores it was added for. A region that one of them leads already stays where it is.
 */
import type { StoreId } from '../../../base/ids.ts';
import { type RegionInfo, isDown, isPending, peerOn } from '../../cluster/region-info.ts';
import { checkLeaderTarget } from '../filter/store-filter.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import type { SchedulerContext } from './balance-leader.ts';

/** Regions looked at per store and round. */
const CANDIDATES_MAX = 1_024;

/** Transfers of one round; empty when everything that can be led there is. */
export function scheduleLeaderGrant(context: SchedulerContext): OperatorGroup[] {
  const { cluster, factory } = context;
  const groups: OperatorGroup[] = [];
  const transfersMax = cluster.schedulers.value('grant-leader', 'batch');
  const { stores } = cluster.schedulers.record('grant-leader');
  for (const store of stores) {
    if (checkLeaderTarget(cluster, store, context.nowMs) !== undefined) {
      continue;
    }
    const { peers, leaders } = cluster.tree.ofStore(store);
    let seen = 0;
    for (const id of peers) {
      if (leaders.has(id)) {
        continue;
      }
      if (groups.length >= transfersMax || ++seen > CANDIDATES_MAX) {
        break;
      }
      const info = cluster.tree.get(id);
      if (info === undefined || !mayLeadThere(context, info, store)) {
        continue;
      }
      const made = factory.transferLeader(info, store, { name: 'grant-leader', kind: 'leader', priority: 'high' });
      // Two of the stores may have a voter of the region: the first one gets it.
      if (made.type === 'ok' && made.value !== undefined && !groups.some(([one]) => one.regionId === id)) {
        groups.push(made.value);
      }
    }
  }
  return groups;
}

function mayLeadThere({ cluster, controller, keepsLeaders }: SchedulerContext, info: RegionInfo, to: StoreId): boolean {
  const peer = peerOn(info, to);
  return (
    info.leader !== undefined &&
    !keepsLeaders(info.leader.storeId) &&
    !info.merging &&
    controller.runningOn(info.region.id) === undefined &&
    cluster.claims.pinnedReason(info) === undefined &&
    cluster.claims.pausedReason(info) === undefined &&
    cluster.rulesWantLeadOn(info, to) &&
    peer?.role === 'voter' &&
    !isPending(info, peer) &&
    !isDown(info, peer)
  );
}
