/**
 * A fenced replica: its data differ from what the others hold, or nobody can say whose data are right. It serves
 * nothing, never becomes leader, gives no snapshots and takes no part in splits and merges, but goes on voting and
 * taking entries, so that the region keeps its quorum until the placement service has replaced the replica. The fence
 * is on disk before anybody relies on it and ends with the replica, or with a whole new copy of the data.
 */
import type { Fence } from '../../codec/store-record.ts';
import { encodeFence } from '../../codec/raft-records.ts';
import type { RegionError } from '../../codec/region-error.ts';
import { fenceKey } from '../../engine/keyspace.ts';
import { evacuate } from '../operation/transfer-leader.ts';
import { messageOnly, notLeader } from '../refusal.ts';
import type { RaftPeer } from './raft-peer.ts';

export function fence(peer: RaftPeer, index: number, reason: Fence['reason']): void {
  if (peer.fence !== undefined) {
    return;
  }
  const { ctx } = peer;
  raiseFence(peer, { peerId: peer.peer.id, index, reason, wallMs: Math.floor(ctx.clock.wallMs()) });
  peer.log.error({ index, reason }, 'this replica is fenced: its data differ from those of the others');
  const batch = ctx.engine.createBatch();
  // A crash before this is durable: the next check finds the same.
  batch.put(fenceKey(peer.regionId), encodeFence(peer.fence as unknown as Fence));
  ctx.write(batch, () => {});
  leaveLead(peer);
}

/** Without the disk: also for what a restart finds. */
export function raiseFence(peer: RaftPeer, found: Fence): void {
  peer.fence = found;
  peer.node.barred = true;
  peer.lease.expire();
  peer.pdHeartbeatDue = peer.isLeader;
}

/** The replica has a whole new copy of the data. */
export function liftFence(peer: RaftPeer): void {
  if (peer.fence === undefined) {
    return;
  }
  peer.fence = undefined;
  peer.node.barred = false;
  const { ctx } = peer;
  const batch = ctx.engine.createBatch();
  // A crash before this is durable leaves the fence: the replica is replaced although it need not be.
  batch.del(fenceKey(peer.regionId));
  ctx.write(batch, () => {});
  peer.log.info({}, 'the fence is lifted: the data came anew');
}

/** A leader whose data are wrong hands over to one whose are not. Call it again until somebody took over. */
export function leaveLead(peer: RaftPeer): void {
  if (peer.isLeader && peer.fence?.reason === 'divergent') {
    evacuate(peer, peer.divergentPeers);
  }
}

/** What a request for a fenced replica is answered. */
export function fencedError(peer: RaftPeer): RegionError {
  return peer.isLeader && peer.fence?.reason === 'divergent'
    ? notLeader(peer.regionId, undefined)
    : messageOnly(`the replica of region ${peer.regionId} on this store is fenced: its data differ from the others`);
}
