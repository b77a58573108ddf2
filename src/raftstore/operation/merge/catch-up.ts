/**
 * The source's part in CommitMerge (reference 4.8, 4.9): complete the local log from the entries the target carried,
 * apply through PrepareMerge, stop, and let the target go on.
 */
import { assert } from '../../../base/assert.ts';
import type { CatchUpLogs } from '../../msg.ts';
import type { RaftPeer } from '../../peer/raft-peer.ts';

/** The target's apply FSM on this store waits for this source. */
export function onCatchUpLogs(peer: RaftPeer, request: CatchUpLogs): void {
  assert(peer.life.type === 'active', 'a source on its way out was asked to catch up', { region: peer.regionId });
  assert(request.source.id === peer.regionId, 'catch-up request for another region');
  assert(peer.catchUp === undefined, 'a second catch-up request', { region: peer.regionId });
  if (peer.pendingMerge !== undefined && peer.pendingMerge.commit === request.commit) {
    answerCatchUp(peer, request);
    return;
  }
  // The match is on the index of PrepareMerge, not on "is merging": an older attempt that was rolled back may still be
  // ahead of this one in the local log.
  peer.node.appendCommitted(request.entries, request.commit);
  peer.catchUp = { ...request, entries: [] };
}

/** PrepareMerge of exactly this attempt is applied here: nothing more happens in this region on this store. */
export function answerCatchUp(peer: RaftPeer, request: CatchUpLogs): void {
  assert(
    peer.pendingMerge?.target.id === request.targetRegionId,
    'the merge target of the catch-up request is another region',
    { region: peer.regionId, expected: peer.pendingMerge?.target.id, got: request.targetRegionId },
  );
  peer.catchUp = undefined;
  peer.life = { type: 'merging-away' };
  const sent = peer.ctx.router.toApply(peer.regionId, { type: 'logs-up-to-date', catchUp: request });
  assert(sent, 'the source has no apply FSM to stop', { region: peer.regionId });
}
