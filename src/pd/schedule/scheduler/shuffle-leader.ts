/** Moves the lead of a random region to a random other voter (tikv/pd pkg/schedule/schedulers/shuffle_leader.go). */
import type { Rng } from '../../../env/rng.ts';
import { isPending, peerOn } from '../../cluster/region-info.ts';
import { checkLeaderTarget } from '../filter/store-filter.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import type { SchedulerContext } from './balance-leader.ts';
import { shuffledStores, someRegions } from './random-pick.ts';

/** At most one transfer: to a random store, of a random region that it follows. */
export function scheduleLeaderShuffle(context: SchedulerContext, rng: Rng): OperatorGroup | undefined {
  const { cluster, controller, factory, nowMs, keepsLeaders } = context;
  if (!controller.hasRoomFor('leader', 1)) {
    return undefined;
  }
  for (const to of shuffledStores(context, rng)) {
    if (checkLeaderTarget(cluster, to, nowMs) !== undefined) {
      continue;
    }
    for (const info of someRegions(context, cluster.tree.ofStore(to).peers, rng)) {
      const peer = peerOn(info, to);
      if (
        info.leader === undefined ||
        info.leader.storeId === to ||
        keepsLeaders(info.leader.storeId) ||
        peer?.role !== 'voter' ||
        isPending(info, peer) ||
        !cluster.rulesWantLeadOn(info, to)
      ) {
        continue;
      }
      const made = factory.transferLeader(info, to, { name: 'shuffle-leader', kind: 'leader', priority: 'low' });
      if (made.type === 'ok' && made.value !== undefined) {
        return made.value;
      }
    }
  }
  return undefined;
}
