/** Domain forms of the records a store keeps beside user data. `raft-records.ts` turns them into bytes. */
import type { KeyRange } from '../base/key-range.ts';
import type { RegionId } from '../base/ids.ts';
import type { Peer, Region } from '../meta/region.ts';

/** `applying`: a snapshot was accepted and is being installed. `tombstone`: the replica is gone from this store. */
export type PeerState = 'normal' | 'applying' | 'merging' | 'tombstone';

/** Frozen view of a merge at the source, from PrepareMerge on. */
export interface MergeState {
  /** First log index that some replica may have lacked when PrepareMerge was proposed. */
  readonly minIndex: number;
  /** Full descriptor of the target as the source's leader knew it. */
  readonly target: Region;
  /** Log index of the PrepareMerge entry: the identity of the attempt. */
  readonly commit: number;
}

/** Written with every change of descriptor. In a tombstone `mergeState` means "merged into that target". */
export interface RegionLocalState {
  readonly state: PeerState;
  readonly region: Region;
  readonly mergeState: MergeState | undefined;
}

/** Written in the same batch as the data it describes. */
export interface ApplyState {
  readonly appliedIndex: number;
  readonly appliedTerm: number;
  /** Commit index known when the batch was written, and the term of that entry. */
  readonly commitIndex: number;
  readonly commitTerm: number;
  /** Last compacted entry; the log starts right behind it. */
  readonly truncatedIndex: number;
  readonly truncatedTerm: number;
}

/** For clients whose idea of a region is out of date; see raftstore/store/redirects.ts. */
export type Redirect =
  /** The region had this range at this version; its keys are found in `newRegionId` now, or in what came of that. */
  | { readonly type: 'range'; readonly version: number; readonly range: KeyRange; readonly newRegionId: RegionId }
  /** The replica was removed from this store; `leader` led the region then. */
  | { readonly type: 'removed'; readonly region: Region; readonly leader: Peer | undefined }
  /** When this store noticed the latest of the others about the region, Unix milliseconds of its clock. */
  | { readonly type: 'noticed'; readonly wallMs: number };

/** Written when a replica was found to differ from the others: it serves nothing and never leads from then on. */
export interface Fence {
  /** The replica it is about; a later incarnation has other data. */
  readonly peerId: number;
  /** Log index behind which the data differ. */
  readonly index: number;
  /** `divergent`: a majority agrees on other data. `unclear`: no majority agrees on anything. */
  readonly reason: 'divergent' | 'unclear';
  /** When it was found, Unix milliseconds of this store. */
  readonly wallMs: number;
}

/** Raft promises of a replica: written with log entries, before any message that depends on them leaves. */
export interface RaftLocalState {
  /** The replica these promises belong to; a later incarnation must not inherit a vote. */
  readonly peerId: number;
  readonly term: number;
  /** Peer id voted for in `term`; 0 if none. */
  readonly vote: number;
  readonly commit: number;
  readonly lastIndex: number;
}

export interface StoreIdent {
  readonly clusterId: bigint;
  readonly storeId: number;
}

/** A range of user keys that no live region owns any more and that is being deleted in the background. */
export interface CleanTask {
  readonly range: KeyRange;
}

/** Log index and term of an initialized region without entries (TiKV RAFT_INIT_LOG_INDEX/TERM). */
export const INIT_LOG_INDEX = 5;
export const INIT_LOG_TERM = 5;
