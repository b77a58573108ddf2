/**
 * RollbackMerge (reference 4.13): the source becomes normal again, but only when a quorum of its voters has seen for
 * good that the merge cannot succeed. One store's opinion is not enough: it may be the one store that jumped over the
 * CommitMerge through a snapshot.
 */
import { isVoterRole, type Region } from '../../../meta/region.ts';
import { checkAdmin, proposeAdmin } from '../../peer/propose.ts';
import type { RaftPeer } from '../../peer/raft-peer.ts';
import { beforePrepare } from '../region-change.ts';

/** This peer has seen a permanent reason. */
export function voteForRollback(peer: RaftPeer): void {
  const { pendingMerge } = peer;
  if (pendingMerge === undefined || !isVoterRole(peer.peer.role)) {
    return;
  }
  if (peer.isLeader) {
    peer.rollbackVotes.add(peer.peer.id);
    maybeRollback(peer);
    return;
  }
  const leader = peer.leaderPeer();
  if (leader !== undefined) {
    peer.send(leader, { type: 'want-rollback-merge', commit: pendingMerge.commit });
  }
}

/** A follower's vote; counted only for exactly the current attempt. */
export function onWantRollbackMerge(peer: RaftPeer, from: number, commit: number): void {
  if (!peer.isLeader || peer.pendingMerge === undefined || peer.pendingMerge.commit !== commit) {
    return;
  }
  const voter = peer.region.peers.find((p) => p.id === from);
  if (voter === undefined || !isVoterRole(voter.role)) {
    return;
  }
  peer.rollbackVotes.add(from);
  maybeRollback(peer);
}

/** Majority of the voters, in both halves of a joint configuration. */
export function hasVoterQuorum(region: Region, votes: ReadonlySet<number>): boolean {
  const incoming = region.peers.filter((p) => p.role === 'voter' || p.role === 'incoming-voter');
  const outgoing = region.peers.filter((p) => p.role === 'voter' || p.role === 'demoting-voter');
  const wins = (half: readonly { readonly id: number }[]): boolean =>
    half.filter((p) => votes.has(p.id)).length * 2 > half.length;
  return wins(incoming) && wins(outgoing);
}

function maybeRollback(peer: RaftPeer): void {
  const { pendingMerge } = peer;
  if (pendingMerge === undefined || !hasVoterQuorum(peer.region, peer.rollbackVotes)) {
    return;
  }
  if (checkAdmin(peer, 'rollback-merge') !== undefined) {
    return;
  }
  const proposal = proposeAdmin(peer, { type: 'rollback-merge', commit: pendingMerge.commit }, () => {});
  if (proposal.type === 'proposed') {
    peer.log.info({ commit: pendingMerge.commit, index: proposal.index }, 'proposed RollbackMerge');
  }
}

/** RollbackMerge is applied. */
export function onRollbackMergeApplied(peer: RaftPeer, region: Region): void {
  for (const before of [peer.region, beforePrepare(peer.region)]) {
    peer.ctx.meta.redirects.changed(before, peer.regionId, peer.ctx.clock.monoMs());
  }
  peer.region = region;
  peer.ctx.meta.regions.set(peer.regionId, region);
  peer.pendingMerge = undefined;
  peer.rollbackVotes.clear();
  peer.lastCommittedPrepareMergeIndex = 0;
  if (peer.checkMergeTimer !== undefined) {
    peer.ctx.clock.clearTimer(peer.checkMergeTimer);
    peer.checkMergeTimer = undefined;
  }
  peer.pdHeartbeatDue = peer.isLeader;
  peer.log.info({}, 'merge rolled back');
}
