/**
 * Moves a random replica to a random store (tikv/pd pkg/schedule/schedulers/shuffle_region.go): never one that a document
 * protects, never against the placement rules, never to a place that separates the replicas worse.
 */
import type { StoreId } from '../../../base/ids.ts';
import type { Rng } from '../../../env/rng.ts';
import { type RegionInfo, peerOn } from '../../cluster/region-info.ts';
import { isolationScore } from '../../cluster/store-info.ts';
import { scoreOf, stayingStores } from '../checker/placement-choice.ts';
import { checkPeerTarget, checkRoom } from '../filter/store-filter.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import type { SchedulerContext } from './balance-leader.ts';
import { shuffledStores, someRegions } from './random-pick.ts';

/** At most one move. */
export function scheduleRegionShuffle(context: SchedulerContext, rng: Rng): OperatorGroup | undefined {
  const { cluster, controller, factory, nowMs } = context;
  if (!controller.hasRoomFor('region', 1)) {
    return undefined;
  }
  const stores = shuffledStores(context, rng);
  const targets = stores.filter(
    (id) => checkPeerTarget(cluster, id, nowMs) === undefined && checkRoom(cluster, id) === undefined,
  );
  for (const from of stores) {
    for (const info of someRegions(context, cluster.tree.ofStore(from).peers, rng)) {
      const to = targets.find((id) => fits(context, info, from, id));
      const made =
        to === undefined
          ? undefined
          : factory.move(info, from, to, { name: 'shuffle-region', kind: 'region', priority: 'low' });
      if (made?.type === 'ok' && made.value !== undefined) {
        return made.value;
      }
    }
  }
  return undefined;
}

function fits({ cluster, keepsLeaders }: SchedulerContext, info: RegionInfo, from: StoreId, to: StoreId): boolean {
  const leaving = peerOn(info, from);
  const store = cluster.store(to)?.record.store;
  if (
    leaving === undefined ||
    store === undefined ||
    peerOn(info, to) !== undefined ||
    // The lead would go with the replica.
    (info.leader?.storeId === from && keepsLeaders(from)) ||
    cluster.claims.protects(info, from) ||
    !cluster.isFullyReplicated(info) ||
    !cluster.rulesLetMove(info, from, to)
  ) {
    return false;
  }
  const others = stayingStores(cluster, info, leaving);
  return isolationScore(store, others, cluster.config.locationLabels) >= scoreOf(cluster, info, leaving);
}
