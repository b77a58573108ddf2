/**
 * The source's regular look at its merge (reference 4.5): every source peer, leader or not, tries to hand CommitMerge
 * to the target peer on its own store, or finds out that the merge has become impossible.
 */
import { assert } from '../../../base/assert.ts';
import type { Entry } from '../../../raft/types.ts';
import { findPeerOnStore, type Region } from '../../../meta/region.ts';
import type { RaftPeer } from '../../peer/raft-peer.ts';
import { noteObstacle } from '../../peer/report.ts';
import { voteForRollback } from './rollback.ts';
import { minProgress } from './min-progress.ts';
import { validateTarget } from './validate-target.ts';

/** Runs one look and arranges the next; the timer dies with the merge. */
export function checkMerge(peer: RaftPeer): void {
  const { ctx } = peer;
  if (!peer.isActive || peer.pendingMerge === undefined) {
    return;
  }
  if (peer.checkMergeTimer !== undefined) {
    ctx.clock.clearTimer(peer.checkMergeTimer);
  }
  peer.checkMergeTimer = ctx.clock.setTimer(
    ctx.config.mergeCheckMs,
    () => {
      peer.checkMergeTimer = undefined;
      ctx.router.toPeer(peer.regionId, { type: 'check-merge' });
    },
    'check-merge',
  );
  if (peer.installing.type !== 'none') {
    // The others rolled this merge back and went on: what they sent replaces it, and the log of the merge is gone.
    return;
  }
  const { target } = peer.pendingMerge;
  const verdict = validateTarget(ctx, target);
  switch (verdict.type) {
    case 'wait':
      peer.log.debug({ reason: verdict.reason }, 'merge waits');
      noteObstacle(peer, 'merge', { code: 'TargetBehind', message: verdict.reason });
      return;
    case 'impossible':
      peer.log.info({ reason: verdict.reason }, 'merge cannot succeed any more');
      noteObstacle(peer, 'merge', { code: 'TargetChanged', message: verdict.reason });
      voteForRollback(peer);
      return;
    case 'go':
      handToTarget(peer, verdict.local);
  }
}

function handToTarget(peer: RaftPeer, target: Region): void {
  const { ctx, pendingMerge } = peer;
  assert(pendingMerge !== undefined, 'no merge to hand over');
  if (ctx.failpoints.hit('merge::before-commit', peer.regionId) !== undefined) {
    return;
  }
  const targetPeer = findPeerOnStore(target, peer.peer.storeId);
  if (targetPeer === undefined) {
    return;
  }
  const entries = carriedEntries(peer, pendingMerge.minIndex, pendingMerge.commit);
  ctx.router.toPeer(target.id, {
    type: 'propose-commit-merge',
    expectedEpoch: pendingMerge.target.epoch,
    targetPeerId: targetPeer.id,
    command: { type: 'commit-merge', source: peer.region, commit: pendingMerge.commit, entries },
  });
}

/** All entries some replica may lack; a leader knows how far its followers are, others carry everything from minIndex on. */
function carriedEntries(peer: RaftPeer, minIndex: number, commit: number): readonly Entry[] {
  const low = peer.isLeader ? Math.max(minProgress(peer).matched + 1, minIndex) : minIndex;
  if (low > commit) {
    return [];
  }
  const entries = peer.node.slice(low, commit + 1, Number.MAX_SAFE_INTEGER);
  assert(
    entries.length === commit + 1 - low && entries[0]?.index === low,
    'entries of the merge gap are not readable any more',
    { region: peer.regionId, low, commit, got: entries.length },
  );
  return entries;
}
