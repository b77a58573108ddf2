/** Membership change (reference 10): checks at the leader, proposal through the core, effect on the peer FSM. */
import { encodeRaftCommand } from '../../codec/raft-records.ts';
import type { PeerChange } from '../../meta/heartbeat.ts';
import { findPeerOnStore, isInJointState, isVoterRole, type Peer, type Region } from '../../meta/region.ts';
import { ConfChangeTransition, ConfChangeType, type ConfChangeV2 } from '../../raft/types.ts';
import type { AdminRefusal, AdminRequest } from '../msg.ts';
import { startDestroy } from '../peer/life-cycle.ts';
import { checkAdmin, proposeBatch } from '../peer/propose.ts';
import type { RaftPeer } from '../peer/raft-peer.ts';
import { adminRefused } from '../refusal.ts';
import { changePeers, epochChecks } from './region-change.ts';

const RAFT_TYPES: Readonly<Record<PeerChange['type'], ConfChangeV2['changes'][number]['type']>> = {
  'add-voter': ConfChangeType.AddNode,
  'add-learner': ConfChangeType.AddLearnerNode,
  remove: ConfChangeType.RemoveNode,
};

/** The core's form of the same change; the region's form rides in its context. */
export function toConfChange(region: Region, changes: readonly PeerChange[]): ConfChangeV2 {
  return {
    transition: changes.length > 1 ? ConfChangeTransition.JointExplicit : ConfChangeTransition.Auto,
    changes: changes.map((c) => ({ type: RAFT_TYPES[c.type], nodeId: c.peer.id })),
    context: encodeRaftCommand({ type: 'admin', epoch: region.epoch, command: { type: 'change-peer', changes } }),
  };
}

function checkChange(peer: RaftPeer, changes: readonly PeerChange[]): AdminRefusal | undefined {
  const { region, node } = peer;
  const result = changePeers(region, changes);
  if (result.type === 'refused') {
    return result.refusal;
  }
  if (changes.length <= 1 && changes.some((c) => c.type !== 'add-voter' && c.peer.id === peer.peer.id)) {
    return {
      code: 'RemovesLeader',
      message: `peer ${peer.peer.id} leads region ${region.id}: transfer the leadership before removing or demoting it`,
    };
  }
  if (changes.length === 0 && peer.peer.role === 'demoting-voter') {
    return {
      code: 'RemovesLeader',
      message: `peer ${peer.peer.id} leads region ${region.id} and is being demoted: transfer the leadership first`,
    };
  }
  if (!isInJointState(region) && node.pendingConfIndex > peer.appliedIndex) {
    return {
      code: 'ConfChangePending',
      message: `region ${region.id} has a membership change at ${node.pendingConfIndex} and has applied ${peer.appliedIndex}`,
    };
  }
  // After the change a quorum of healthy voters must still exist, or the group would stop.
  const nowMs = peer.ctx.clock.monoMs();
  const silentMs = 2 * peer.ctx.config.electionTicks * peer.ctx.config.tickMs;
  const voters = result.region.peers.filter((p) => p.role === 'voter' || p.role === 'incoming-voter');
  const healthy = voters.filter((p) => {
    const heard = peer.lastHeardMs.get(p.id);
    const joins = findPeerOnStore(region, p.storeId) === undefined;
    return p.id === peer.peer.id || joins || (heard !== undefined && nowMs - heard <= silentMs);
  });
  if (healthy.length * 2 <= voters.length) {
    return {
      code: 'WouldLoseQuorum',
      message: `only ${healthy.length} of the ${voters.length} voters of region ${region.id} answer; the change could stop it`,
    };
  }
  if (changes.length > 0 && stopsBehindLog(peer, result.region)) {
    return {
      code: 'WouldLackLog',
      message: `too many voters of region ${region.id} after the change would be behind its compacted log; wait until they have caught up`,
    };
  }
  return undefined;
}

/**
 * Whether the new voters could not agree even on what the log no longer holds: a majority of them (of either side, when
 * the change enters a joint membership) is behind the first index and must be restored by snapshots first. Until then
 * nothing could be committed, and the loss of this replica would be the loss of the region (reference 10).
 */
function stopsBehindLog(peer: RaftPeer, after: Region): boolean {
  const { node, region } = peer;
  if (region.peers.filter((p) => isVoterRole(p.role)).length === 1) {
    // A single voter decides alone who joins it.
    return false;
  }
  const matched = new Map(node.progress().map((view) => [view.id, view.match]));
  const agreed = (voters: readonly Peer[]): number => {
    const sorted = voters.map((p) => matched.get(p.id) ?? 0).sort((a, b) => b - a);
    return sorted[Math.floor(sorted.length / 2)] ?? 0;
  };
  const incoming = after.peers.filter((p) => p.role === 'voter' || p.role === 'incoming-voter');
  const outgoing = after.peers.filter((p) => p.role === 'voter' || p.role === 'demoting-voter');
  return Math.min(agreed(incoming), agreed(outgoing)) + 1 < node.firstIndex;
}

export function proposeChangePeer(peer: RaftPeer, request: AdminRequest, changes: readonly PeerChange[]): void {
  const refusal = checkAdmin(peer, 'change-peer');
  if (refusal !== undefined) {
    request.respond(refusal);
    return;
  }
  const rejected = checkChange(peer, changes);
  if (rejected !== undefined) {
    request.respond({ type: 'rejected', refusal: rejected });
    return;
  }
  proposeBatch(peer);
  const proposedAtMs = peer.ctx.leaseClock.nowMs();
  const result = peer.node.proposeConfChange(toConfChange(peer.region, changes));
  if (result.type !== 'proposed') {
    request.respond(
      adminRefused('ProposalDropped', `the membership change of region ${peer.regionId} was refused: ${result.reason}`),
    );
    return;
  }
  peer.epochChecker.proposed('change-peer', epochChecks('change-peer'), result.index, result.term);
  peer.log.info(
    { index: result.index, changes: changes.map((c) => `${c.type} ${c.peer.id}@${c.peer.storeId}`).join(', ') },
    'proposed a membership change',
  );
  peer.proposals.push({
    index: result.index,
    term: result.term,
    proposedAtMs,
    complete: (outcome) => {
      switch (outcome.type) {
        case 'admin-applied':
          request.respond({ type: 'ok', regions: outcome.regions });
          return;
        case 'refused':
          request.respond(outcome);
          return;
        default:
          request.respond(
            adminRefused('Overtaken', `the membership change of region ${peer.regionId} lost its place in the log`),
          );
      }
    },
  });
}

/**
 * A membership change was applied (or refused at apply) on this replica.
 * @param firstIndex of the log before the batch that applied it
 */
export function onChangePeerApplied(
  peer: RaftPeer,
  index: number,
  confChange: ConfChangeV2,
  region: Region,
  applied: boolean,
  firstIndex: number,
): void {
  if (!applied) {
    return;
  }
  const { ctx } = peer;
  if (index >= firstIndex && index > peer.node.pendingSnapshotIndex) {
    // Below the first index, or below a snapshot that is accepted, the configuration already came with the snapshot.
    peer.node.applyConfChange(confChange);
  }
  const before = peer.region;
  peer.region = region;
  ctx.meta.regions.set(peer.regionId, region);
  if (peer.isLeader) {
    peer.pdHeartbeatDue = true;
    const nowMs = ctx.clock.monoMs();
    for (const { id } of region.peers) {
      if (!peer.lastHeardMs.has(id)) {
        peer.lastHeardMs.set(id, nowMs);
      }
    }
    for (const { id } of before.peers) {
      if (!region.peers.some((p) => p.id === id)) {
        peer.lastHeardMs.delete(id);
      }
    }
    if (
      peer.generating.type === 'ready' &&
      !region.peers.some((p) => p.id === (peer.generating as { toPeer: number }).toPeer)
    ) {
      ctx.snapshots.dropOf(peer.generating.snapshot);
      peer.generating = { type: 'none' };
    }
  }
  for (const removed of before.peers) {
    if (removed.id !== peer.peer.id && peer.isLeader && !region.peers.some((p) => p.id === removed.id)) {
      // It gets no Raft messages any more; tell it, so that it does not have to find out.
      peer.send(removed, { type: 'gc', mergeTarget: undefined });
    }
  }
  if (!region.peers.some((p) => p.id === peer.peer.id)) {
    startDestroy(peer, false, 'removed by a membership change');
  }
}
