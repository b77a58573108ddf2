/**
 * Decides by itself that two small Partitions become one, and writes an Assignment that says so, as a user could have.
 * What it decides is visible, can be deleted, and goes the way of every Assignment.
 */
import { isLeftNeighbour } from '../../base/key-range.ts';
import type { RegionInfo } from '../cluster/region-info.ts';
import { type MergeCheckContext, mergeChecks } from '../schedule/checker/merge-checks.ts';
import { isSameRange } from './partition-phase.ts';
import { type Partition, primaryOf } from './resource.ts';
import { type ResourceStore, servingPartitions } from './resource-store.ts';

/** Names of its Assignments start with this. */
export const ASSIGNER_PREFIX = 'auto-merge-';

/** Checks about pins: named regions are pinned against everything but this. */
const PIN_CHECKS: ReadonlySet<string> = new Set(['source-not-pinned', 'target-not-pinned']);

/** The next Assignment to apply; undefined while one of its own is active, or nothing is small enough. */
export function proposeMerge(
  store: ResourceStore,
  merge: MergeCheckContext,
  regionOf: (partition: Partition) => RegionInfo | undefined,
): unknown {
  if (store.activeAssignments().some(({ meta }) => meta.name.startsWith(ASSIGNER_PREFIX))) {
    return undefined;
  }
  const partitions = servingPartitions(store);
  for (const [i, left] of partitions.entries()) {
    const right = partitions[i + 1];
    if (right !== undefined && fits(left, right, store, merge, regionOf)) {
      return {
        kind: 'Assignment',
        metadata: { name: `${ASSIGNER_PREFIX}${store.version + 1}` },
        spec: {
          type: 'InWorkerMerge',
          mergeParams: { partitions: [left.meta.name, right.meta.name], gapPolicy: 'reject', strict: true },
        },
      };
    }
  }
  return undefined;
}

/** Side by side on one pod, at rest, and small by the rules of all automatic merges. */
function fits(
  left: Partition,
  right: Partition,
  store: ResourceStore,
  merge: MergeCheckContext,
  regionOf: (partition: Partition) => RegionInfo | undefined,
): boolean {
  const [source, target] = [regionOf(left), regionOf(right)];
  return (
    isLeftNeighbour(left.spec.range, right.spec.range) &&
    primaryOf(left.spec) !== undefined &&
    primaryOf(left.spec) === primaryOf(right.spec) &&
    [left, right].every(
      ({ status, spec, meta }) => status.ready && spec.pods.length === 1 && store.lockOf(meta.name) === undefined,
    ) &&
    source !== undefined &&
    target !== undefined &&
    isSameRange(source, left.spec.range) &&
    isSameRange(target, right.spec.range) &&
    mergeChecks(merge, source.region.id, target.region.id, true).every(
      ({ name, refusal }) => refusal === undefined || PIN_CHECKS.has(name),
    )
  );
}
