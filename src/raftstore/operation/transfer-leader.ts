/** Leader transfer: which target is acceptable, and the request to the core (reference 10, raft-core 11). */
import type { Peer } from '../../meta/region.ts';
import type { AdminRefusal, AdminRequest } from '../msg.ts';
import type { RaftPeer } from '../peer/raft-peer.ts';
import { adminRefused, notLeader } from '../refusal.ts';

function refusalFor(peer: RaftPeer, target: Peer): AdminRefusal | undefined {
  const found = peer.region.peers.find((p) => p.id === target.id);
  if (found === undefined) {
    return { code: 'UnknownPeer', message: `peer ${target.id} is not a member of region ${peer.regionId}` };
  }
  if (found.role === 'learner' || found.role === 'demoting-voter') {
    return {
      code: 'NotAVoter',
      message: `peer ${target.id} of region ${peer.regionId} is a ${found.role} and cannot lead`,
    };
  }
  if (peer.divergentPeers.has(target.id)) {
    return {
      code: 'ReplicaDamaged',
      message: `the data of peer ${target.id} of region ${peer.regionId} differ from the others'`,
    };
  }
  for (const view of peer.node.progress()) {
    if (view.state === 'snapshot') {
      return { code: 'SnapshotPending', message: `peer ${view.id} of region ${peer.regionId} is receiving a snapshot` };
    }
    if (view.id === target.id && view.match + peer.ctx.config.leaderTransferMaxLogLag < peer.node.lastIndex) {
      return {
        code: 'TargetLags',
        message: `peer ${target.id} is at ${view.match} of ${peer.node.lastIndex} and would stop the region for too long`,
      };
    }
    if (view.id === target.id && peer.node.pendingConfIndex > view.committed) {
      return {
        code: 'ConfChangePending',
        message: `peer ${target.id} may not have applied the last membership change yet`,
      };
    }
  }
  return undefined;
}

export function transferLeader(peer: RaftPeer, request: AdminRequest, target: Peer): void {
  if (!peer.isLeader || !peer.isActive) {
    request.respond({ type: 'refused', error: notLeader(peer.regionId, peer.leaderPeer()) });
    return;
  }
  if (target.id === peer.peer.id) {
    request.respond({ type: 'ok', regions: [peer.region] });
    return;
  }
  const refusal = refusalFor(peer, target);
  if (refusal !== undefined) {
    request.respond({ type: 'rejected', refusal });
    return;
  }
  peer.log.info({ to: target.id, toStore: target.storeId }, 'transferring the leadership');
  peer.node.transferLeader(target.id);
  request.respond(
    peer.node.leadTransferee === target.id || !peer.isLeader
      ? { type: 'ok', regions: [peer.region] }
      : adminRefused('TransferNotStarted', `region ${peer.regionId} did not start the transfer to peer ${target.id}`),
  );
}

/**
 * Moves the leadership to the most advanced other voter, for a store that is about to stop or a replica that is fenced.
 * @param except peers that must not lead
 */
export function evacuate(peer: RaftPeer, except: ReadonlySet<number> = peer.divergentPeers): void {
  if (!peer.isLeader || !peer.isActive || peer.node.leadTransferee !== 0) {
    return;
  }
  let best: { readonly id: number; readonly match: number } | undefined;
  for (const view of peer.node.progress()) {
    const member = peer.region.peers.find((p) => p.id === view.id);
    if (
      view.id !== peer.peer.id &&
      !except.has(view.id) &&
      member?.role === 'voter' &&
      view.recentActive &&
      (best === undefined || view.match > best.match)
    ) {
      best = view;
    }
  }
  if (best !== undefined) {
    peer.node.transferLeader(best.id);
  }
}
