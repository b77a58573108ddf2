/**
 * Freezing a region for a follower (reference 11.1). Called by the apply FSM when everything it executed is durable, so
 * the engine's view is exactly the region at its applied index.
 */
import { encodeSnapshotDescriptor } from '../../codec/snapshot-record.ts';
import type { ApplyState } from '../../codec/store-record.ts';
import type { Region } from '../../meta/region.ts';
import type { Snapshot } from '../../raft/types.ts';
import type { StoreContext } from '../context.ts';
import { confStateOf } from '../peer/peer-storage.ts';
import { stopOnReadFailure } from '../worker/engine-failure.ts';

/** Takes the engine's view and registers it; what Raft gets names it. The data itself is read while it is sent. */
export function freezeRegion(
  ctx: Pick<StoreContext, 'engine' | 'snapshots' | 'abort'>,
  region: Region,
  applied: ApplyState,
): Snapshot {
  const { appliedIndex: index, appliedTerm: term } = applied;
  const snapshot = ctx.engine.snapshot();
  const snapshotId = ctx.snapshots.register({
    region,
    index,
    term,
    snapshot,
    // The replica cannot be copied from here, now or later: it must not stay its only source.
    onDamage: (error) => stopOnReadFailure(ctx, `region ${region.id} for a snapshot`, error),
    close: () => snapshot.close(),
  });
  return {
    data: encodeSnapshotDescriptor({ snapshotId, region }),
    metadata: { index, term, confState: confStateOf(region) },
  };
}
