/**
 * Merges a random region into a random neighbor (tikv/pd pkg/schedule/schedulers/random_merge.go), however large or young
 * both are: stores may split the result again, which is the point. What forbids a merge that an administrator asks for
 * forbids this one, too.
 */
import type { Rng } from '../../../env/rng.ts';
import type { RegionInfo } from '../../cluster/region-info.ts';
import { type MergeCheckContext, firstRefusal, mergeChecks } from '../checker/merge-checks.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import type { SchedulerContext } from './balance-leader.ts';
import { shuffledStores, someRegions } from './random-pick.ts';

/** At most one merge; its two operators come together. */
export function scheduleRandomMerge(
  context: SchedulerContext,
  merge: MergeCheckContext,
  rng: Rng,
): OperatorGroup | undefined {
  const { cluster, controller, factory } = context;
  if (!controller.hasRoomFor('merge', 2)) {
    return undefined;
  }
  for (const store of shuffledStores(context, rng)) {
    for (const source of someRegions(context, cluster.tree.ofStore(store).leaders, rng)) {
      const { previous, next } = cluster.tree.neighbours(source);
      const targets = [previous, next].filter((info): info is RegionInfo => info !== undefined);
      for (const target of targets.length === 2 && rng.chance(0.5) ? targets.reverse() : targets) {
        const made = mayMerge(context, merge, source, target)
          ? factory.merge(source, target, { name: 'random-merge', kind: 'merge', priority: 'low' })
          : undefined;
        if (made?.type === 'ok' && made.value !== undefined) {
          return made.value;
        }
      }
    }
  }
  return undefined;
}

const mayMerge = (
  { cluster, controller }: SchedulerContext,
  merge: MergeCheckContext,
  source: RegionInfo,
  target: RegionInfo,
): boolean =>
  controller.runningOn(target.region.id) === undefined &&
  cluster.claims.pinnedReason(target) === undefined &&
  cluster.isFullyReplicated(source) &&
  cluster.isFullyReplicated(target) &&
  firstRefusal(mergeChecks(merge, source.region.id, target.region.id, false)) === undefined;
