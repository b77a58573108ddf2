/** Compaction of the Raft log (reference 12.1): the leader proposes it, every replica deletes after applying it. */
import { logIndex } from '../../base/ids.ts';
import { raftLogKey } from '../../engine/keyspace.ts';
import { isBiased } from '../bias.ts';
import { checkAdmin, proposeAdmin } from './propose.ts';
import type { RaftPeer } from './raft-peer.ts';

/** Entries deleted per batch. */
const DELETE_BATCH_MAX = 4096;

/** Looks whether the log can be cut and proposes it. */
export function maybeCompactLog(peer: RaftPeer): void {
  if (!peer.isLeader || !peer.isActive || checkAdmin(peer, 'compact-log') !== undefined) {
    return;
  }
  const { config } = peer.ctx;
  const { node, appliedIndex } = peer;
  const first = node.firstIndex;
  let replicated = appliedIndex;
  for (const view of node.progress()) {
    replicated = Math.min(replicated, view.match);
  }
  let target = replicated;
  const total = appliedIndex - first + 1;
  const isEager = total > 2 && isBiased(peer.ctx.failpoints, 'bias::eager-log-gc', peer.regionId);
  if (isEager || total > config.logGcCountLimit || peer.storage.cache.bytes > config.logGcSizeLimitBytes) {
    // Slow followers lose their place and will need a snapshot.
    target = Math.max(target, first + Math.floor(total / 2));
  } else if (replicated < first + config.logGcThreshold) {
    return;
  }
  // One entry stays, so that the term at the cut is known from the log as well.
  target -= 1;
  if (target < first || target > appliedIndex) {
    return;
  }
  const term = peer.storage.term(target);
  if (term > 0) {
    proposeAdmin(peer, { type: 'compact-log', index: target, term }, () => {});
  }
}

/** CompactLog is applied: delete what is behind the cut, in bounded batches. A crash leaves entries that the next start deletes. */
export function onCompactLogApplied(peer: RaftPeer, truncatedIndex: number): void {
  const { ctx, regionId } = peer;
  peer.storage.cache.evictTo(truncatedIndex);
  while (peer.gcFromIndex <= truncatedIndex) {
    const batch = ctx.engine.createBatch();
    const end = Math.min(truncatedIndex, peer.gcFromIndex + DELETE_BATCH_MAX - 1);
    for (let index = peer.gcFromIndex; index <= end; index++) {
      batch.del(raftLogKey(regionId, logIndex(index)));
    }
    peer.gcFromIndex = end + 1;
    ctx.write(batch, () => {});
  }
}
