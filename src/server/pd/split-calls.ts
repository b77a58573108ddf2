/** Splits and scatters that clients ask for: operators are started and, for splits, waited for. */
import { compareBytes, copyBytes, equalBytes } from '../../base/bytes.ts';
import { type RegionId, isSafeId, regionId } from '../../base/ids.ts';
import type { Operator } from '../../pd/schedule/operator/operator.ts';
import type { ServiceContext } from './context.ts';

/** A split that is refused because the region is busy is tried again after this, as long as there is time. */
const RETRY_MS = 100;

/**
 * Makes every key a region border. Returns when all are, or when the time is over; keys that are borders already count
 * as done.
 */
export async function splitRegions(
  context: ServiceContext,
  splitKeys: readonly Uint8Array[],
  budgetMs: number,
): Promise<{ readonly percentage: number; readonly newRegions: number[] }> {
  const { node, clock } = context;
  const { tree } = node.placement.cluster;
  const keys = splitKeys.map(copyBytes).sort(compareBytes);
  const before = new Set<RegionId>();
  for (const info of tree.values()) {
    before.add(info.region.id);
  }
  const deadlineMs = clock.monoMs() + budgetMs;
  let missing = keys.filter((key) => !isBorder(context, key));
  while (missing.length > 0 && clock.monoMs() < deadlineMs && !node.isClosed) {
    const operators = startSplits(context, missing);
    const leftMs = deadlineMs - clock.monoMs();
    if (operators.length === 0) {
      await new Promise<void>((resolve) =>
        clock.setTimer(Math.min(RETRY_MS, Math.max(1, leftMs)), resolve, 'pd-split-retry'),
      );
    } else {
      await Promise.all(operators.map((operator) => node.waitForOperator(operator, Math.max(1, leftMs))));
    }
    missing = keys.filter((key) => !isBorder(context, key));
  }
  const newRegions = new Set<RegionId>();
  for (const key of keys) {
    for (const info of [tree.findPrevious(key), tree.find(key)]) {
      if (info !== undefined && !before.has(info.region.id)) {
        newRegions.add(info.region.id);
      }
    }
  }
  const done = keys.length - missing.length;
  return { percentage: keys.length === 0 ? 100 : Math.floor((done * 100) / keys.length), newRegions: [...newRegions] };
}

function isBorder(context: ServiceContext, key: Uint8Array): boolean {
  const info = context.node.placement.cluster.tree.find(key);
  return info !== undefined && equalBytes(info.region.range.start, key);
}

/** One operator per region that contains keys; regions that cannot be split now are left for the next round. */
function startSplits(context: ServiceContext, keys: readonly Uint8Array[]): Operator[] {
  const { node } = context;
  const byRegion = new Map<RegionId, Uint8Array[]>();
  for (const key of keys) {
    const info = node.placement.cluster.tree.find(key);
    if (info !== undefined) {
      byRegion.set(info.region.id, [...(byRegion.get(info.region.id) ?? []), key]);
    }
  }
  const operators: Operator[] = [];
  for (const [id, inside] of byRegion) {
    const result = node.act((placement) => placement.splitRegion(id, inside));
    if (result.type === 'ok' && result.value.operator !== undefined) {
      operators.push(result.value.operator);
    }
  }
  return operators;
}

/** Starts scattering; answers the ids that could not be scattered. */
export function scatterRegions(context: ServiceContext, ids: readonly number[], group: string): number[] {
  return ids.filter((id) => {
    if (!isSafeId(id)) {
      return true;
    }
    const result = context.node.act((placement) => placement.scatterRegion(regionId(id), group));
    return result.type === 'refused';
  });
}
