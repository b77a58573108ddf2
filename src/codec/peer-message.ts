/** Messages between stores about one region, in domain form. `peer-wire.ts` maps them to braid.peer.v1 frames. */
import type { KeyRange } from '../base/key-range.ts';
import type { RegionId } from '../base/ids.ts';
import type { Peer, Region, RegionEpoch } from '../meta/region.ts';
import type { Message } from '../raft/types.ts';

export type PeerMessageBody =
  | { readonly type: 'raft'; readonly message: Message }
  /** "You are no longer a member." With `mergeTarget`: "your region was merged into that region." */
  | { readonly type: 'gc'; readonly mergeTarget: Region | undefined }
  /** A replica that has not heard from a leader for long asks whether it is still a member. */
  | { readonly type: 'check-stale-peer' }
  | { readonly type: 'check-stale-peer-response'; readonly region: Region }
  /** A source follower has seen for good that its merge (PrepareMerge at `commit`) cannot succeed. */
  | { readonly type: 'want-rollback-merge'; readonly commit: number }
  /** To the leader: what the sender's data and descriptor hash to right behind this log index. */
  | { readonly type: 'hash-report'; readonly index: number; readonly hash: Uint8Array }
  /** Start ticking and campaign if there is no leader. */
  | { readonly type: 'wake-up' };

export interface PeerMessage {
  readonly regionId: RegionId;
  readonly from: Peer;
  readonly to: Peer;
  /** Epoch of the sender's region; 0:0 from an uninitialized peer. */
  readonly epoch: RegionEpoch;
  /** Range of the sender's region, only on messages that may create a peer (votes, heartbeats, first appends). */
  readonly range: KeyRange | undefined;
  readonly body: PeerMessageBody;
}
