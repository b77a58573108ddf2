/**
 * M1, I8, I28: at rest nothing waits anywhere. Every queue, promise to a client, note about a transition, snapshot and
 * staged chunk has found its end.
 */
import { compareBytes } from '../../../src/base/bytes.ts';
import { pendingCleanRange, stagingRangeFrom } from '../../../src/engine/index.ts';
import type { RaftPeer } from '../../../src/raftstore/peer/raft-peer.ts';
import type { RaftStore } from '../../../src/raftstore/store/raft-store.ts';
import type { DiskView } from './durable.ts';
import type { ObservedMachine } from './observed.ts';

const listsOf = (peer: RaftPeer): Readonly<Record<string, number>> => ({
  'ready in flight': peer.inflight.length,
  'unacknowledged application': peer.pendingApplyAcks.length,
  'write to propose': peer.batch.length,
  'waiting proposal': peer.proposals.length,
  'held request': peer.held.length,
  'new read': peer.newReads.length,
  'waiting read': peer.pendingReads.filter((read) => read.requests.length > 0).length,
  'waiting split': (peer.pendingSplit === undefined ? 0 : 1) + peer.halfSplitRequests.length,
  'catch-up request': peer.catchUp === undefined ? 0 : 1,
  'merge under way': peer.pendingMerge === undefined ? 0 : 1,
  'vote for a rollback': peer.rollbackVotes.size,
  'timer of a merge': peer.checkMergeTimer === undefined ? 0 : 1,
});

function leftoversOf(store: RaftStore): string[] {
  const out: string[] = [];
  const inside = store.inspect();
  for (const { fsm } of inside.replicas.values()) {
    const { peer } = fsm;
    for (const [what, count] of Object.entries(listsOf(peer))) {
      if (count > 0) {
        out.push(`${count} ${what} of region ${peer.regionId}`);
      }
    }
  }
  const { meta } = inside;
  const maps = {
    'snapshot on its way': meta.pendingSnapshotRegions.size,
    'snapshot that waits for sources': meta.atomicSnapRegions.size,
    'region that dies with a snapshot': meta.destroyedForSnapshot.size,
    'creation under way': inside.pendingCreatePeers.size,
    'snapshot nobody fetched': inside.waitingSnapshots.size,
  };
  for (const [what, count] of Object.entries(maps)) {
    if (count > 0) {
      out.push(`${count} ${what}`);
    }
  }
  return out;
}

function countIn(view: DiskView, range: { readonly start: Uint8Array; readonly end: Uint8Array }): number {
  let count = 0;
  for (const [key] of view.entriesFrom(range.start)) {
    if (compareBytes(key, range.end) >= 0) {
      break;
    }
    count++;
  }
  return count;
}

/** What still waits although the cluster is at rest; empty if nothing does. */
export function unrest(machines: readonly ObservedMachine[]): string[] {
  return machines.flatMap(({ id, store, database }) => {
    const found = store === undefined ? [] : leftoversOf(store);
    const staged = database === undefined ? 0 : countIn(database.view, stagingRangeFrom(0));
    const tasks = database === undefined ? 0 : countIn(database.view, pendingCleanRange());
    return [
      ...found,
      ...(staged > 0 ? [`${staged} staged rows of snapshots`] : []),
      ...(tasks > 0 ? [`${tasks} ranges to clean`] : []),
    ].map((text) => `store ${id}: ${text}`);
  });
}
