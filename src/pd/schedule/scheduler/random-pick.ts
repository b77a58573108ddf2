/** Chance for the schedulers that move things for tests: which region of a store, in which order stores are asked. */
import type { RegionId, StoreId } from '../../../base/ids.ts';
import type { Rng } from '../../../env/rng.ts';
import { type RegionInfo, isHealthy } from '../../cluster/region-info.ts';
import type { SchedulerContext } from './balance-leader.ts';

/** Regions tried per store and call; what does not fit now may fit in the next round. */
const TRIES_MAX = 16;

/** Stores that can be asked to do something, in a random order. */
export const shuffledStores = ({ cluster, nowMs }: SchedulerContext, rng: Rng): StoreId[] =>
  shuffled(
    cluster
      .stores()
      .map(({ record }) => record.store.id)
      .filter((id) => cluster.isUsable(id, nowMs)),
    rng,
  );

/** Some regions of a store that nothing else is done with, in a random order. */
export function someRegions(context: SchedulerContext, ids: ReadonlySet<RegionId>, rng: Rng): RegionInfo[] {
  const { cluster, controller } = context;
  return sample([...ids], TRIES_MAX, rng)
    .map((id) => cluster.tree.get(id))
    .filter(
      (info): info is RegionInfo =>
        info !== undefined &&
        isHealthy(info) &&
        !info.merging &&
        controller.runningOn(info.region.id) === undefined &&
        cluster.claims.pinnedReason(info) === undefined &&
        cluster.claims.pausedReason(info) === undefined,
    );
}

const shuffled = <T>(items: readonly T[], rng: Rng): T[] => sample(items, items.length, rng);

/** The first `count` places of a Fisher-Yates shuffle. */
function sample<T>(items: readonly T[], count: number, rng: Rng): T[] {
  const left = [...items];
  const taken: T[] = [];
  while (taken.length < count && left.length > 0) {
    const at = rng.below(left.length);
    taken.push(left[at] as T);
    left[at] = left.at(-1) as T;
    left.pop();
  }
  return taken;
}
