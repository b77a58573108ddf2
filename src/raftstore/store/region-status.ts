/** What a store says about one of its replicas to people and tools. */
import type { Fence } from '../../codec/store-record.ts';
import type { Region } from '../../meta/region.ts';
import type { FinishedCheck } from '../operation/consistency.ts';
import type { RaftPeer } from '../peer/raft-peer.ts';

/** One region's line in `RaftStore.status`. */
export interface RegionStatus {
  readonly region: Region;
  readonly peerId: number;
  readonly role: string;
  readonly term: number;
  readonly leaderPeerId: number;
  readonly appliedIndex: number;
  readonly commitIndex: number;
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly state: 'normal' | 'merging' | 'installing' | 'uninitialized' | 'leaving';
  readonly approximateSizeBytes: number;
  readonly approximateKeys: number;
  /** Set when the replica's data differ from the others': it serves nothing. */
  readonly fence: Fence | undefined;
  /** The latest comparison of all replicas that this one led. */
  readonly check: FinishedCheck | undefined;
}

export function regionStatus(peer: RaftPeer): RegionStatus {
  const { node } = peer;
  return {
    region: peer.region,
    peerId: peer.peer.id,
    role: peer.role,
    term: node.term,
    leaderPeerId: peer.lead,
    appliedIndex: peer.appliedIndex,
    commitIndex: node.committed,
    firstIndex: node.firstIndex,
    lastIndex: node.lastIndex,
    state: stateOf(peer),
    approximateSizeBytes: peer.approximateSizeBytes,
    approximateKeys: peer.approximateKeys,
    fence: peer.fence,
    check: peer.finishedCheck,
  };
}

function stateOf(peer: RaftPeer): RegionStatus['state'] {
  if (!peer.isActive) {
    return 'leaving';
  }
  if (!peer.isInitialized) {
    return 'uninitialized';
  }
  if (peer.installing.type !== 'none') {
    return 'installing';
  }
  return peer.pendingMerge === undefined ? 'normal' : 'merging';
}
