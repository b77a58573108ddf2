/** What changes when this peer wins or loses the leadership of its region. */
import { addRead } from './read.ts';
import { retryHeld } from './propose.ts';
import type { RaftPeer } from './raft-peer.ts';

export function onBecomeLeader(peer: RaftPeer): void {
  const nowMs = peer.ctx.clock.monoMs();
  peer.log.info({ term: peer.node.term, region: peer.regionId }, 'became leader');
  peer.epochChecker.reset(peer.node.term);
  peer.lease.suspect(peer.ctx.leaseClock.nowMs());
  // What the previous leader sent is unknown: no follower is trusted to hold entries from before this point (P8).
  peer.lastSentSnapshotIndex = peer.node.lastIndex;
  peer.lastHeardMs.clear();
  for (const { id } of peer.region.peers) {
    peer.lastHeardMs.set(id, nowMs);
  }
  peer.rollbackVotes.clear();
  peer.pdHeartbeatDue = true;
  retryHeld(peer, (request, again) => addRead(peer, request, again), undefined);
}

export function onStepDown(peer: RaftPeer): void {
  peer.log.info({ term: peer.node.term, lead: peer.lead }, 'lost the leadership');
  peer.lease.expire();
  peer.lostLeadAtMs = peer.ctx.clock.monoMs();
  peer.epochChecker.reset(peer.node.term);
  peer.rollbackVotes.clear();
  if (peer.generating.type === 'ready') {
    peer.ctx.snapshots.dropOf(peer.generating.snapshot);
    peer.generating = { type: 'none' };
  }
}
