/** Consistency check (reference 12.2): replicas hash their data at the same log index and compare with the leader's. */
import { checkAdmin, proposeAdmin } from '../peer/propose.ts';
import type { RaftPeer } from '../peer/raft-peer.ts';

export function startConsistencyCheck(peer: RaftPeer): void {
  if (peer.isLeader && checkAdmin(peer, 'compute-hash') === undefined) {
    proposeAdmin(peer, { type: 'compute-hash' }, () => {});
  }
}

/** The hash at `index` is known here; the leader publishes its own for comparison. */
export function onHashComputed(peer: RaftPeer, index: number, hash: Uint8Array): void {
  peer.lastHashIndex = index;
  if (peer.isLeader && checkAdmin(peer, 'verify-hash') === undefined) {
    proposeAdmin(peer, { type: 'verify-hash', index, hash }, () => {});
  }
}

export function onHashVerified(peer: RaftPeer, index: number, matched: boolean): void {
  if (!matched) {
    peer.ctx.abort(`the data of region ${peer.regionId} at log index ${index} differs from its leader's`);
  }
}
