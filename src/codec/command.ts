/**
 * What a Raft entry of a region carries (the replicated command), in domain form. `command-record.ts` turns it into
 * bytes. Apply must be deterministic: everything that depends on time (expiry) is decided by the proposer and carried.
 */
import type { KeyRange } from '../base/key-range.ts';
import type { PeerChange } from '../meta/heartbeat.ts';
import type { Region, RegionEpoch } from '../meta/region.ts';
import type { Entry } from '../raft/types.ts';

/** Expiry in Unix seconds; 0 means the value never expires. */
export type ExpireAtSeconds = number;

export type WriteOp =
  | {
      readonly type: 'put';
      readonly key: Uint8Array;
      readonly value: Uint8Array;
      readonly expireAtSeconds: ExpireAtSeconds;
    }
  | { readonly type: 'delete'; readonly key: Uint8Array }
  /** Not atomic against reads: keys may disappear page by page. Both bounds lie inside the region. */
  | { readonly type: 'delete-range'; readonly range: KeyRange }
  /** Writes (or deletes) only if the current value equals `expected`; undefined expects absence. */
  | {
      readonly type: 'compare-and-swap';
      readonly key: Uint8Array;
      readonly expected: Uint8Array | undefined;
      readonly value: Uint8Array;
      readonly expireAtSeconds: ExpireAtSeconds;
      readonly deletes: boolean;
      /** Proposer's wall clock in Unix seconds: values expired at this time count as absent. */
      readonly nowSeconds: number;
    }
  /** Removes the key only if it still holds a value with exactly this expiry (background removal of expired values). */
  | { readonly type: 'expire'; readonly key: Uint8Array; readonly expireAtSeconds: ExpireAtSeconds };

export interface SplitChild {
  readonly splitKey: Uint8Array;
  readonly newRegionId: number;
  /** One new peer id for each peer of the parent, in the parent's order. */
  readonly newPeerIds: readonly number[];
}

/** Admin commands change regions instead of data. Epoch rules: reference table 1.2 (TiKV admin_cmd_epoch_lookup). */
export type AdminCommand =
  /** Keys strictly increasing and inside the region. The derived region keeps id and log and is the rightmost part. */
  | { readonly type: 'batch-split'; readonly children: readonly SplitChild[] }
  | { readonly type: 'prepare-merge'; readonly minIndex: number; readonly target: Region }
  | {
      readonly type: 'commit-merge';
      /** The source's descriptor after its PrepareMerge was applied. */
      readonly source: Region;
      /** Log index of the source's PrepareMerge: the identity of this merge attempt. */
      readonly commit: number;
      /** Source entries that some source replica may lack, ending at `commit`; may be empty. */
      readonly entries: readonly Entry[];
    }
  | { readonly type: 'rollback-merge'; readonly commit: number }
  | { readonly type: 'compact-log'; readonly index: number; readonly term: number }
  | { readonly type: 'compute-hash' }
  | { readonly type: 'verify-hash'; readonly index: number; readonly hash: Uint8Array }
  /** Carried in the context of a ConfChangeV2 entry. One change is simple, several enter joint, none leaves it. */
  | { readonly type: 'change-peer'; readonly changes: readonly PeerChange[] };

export type AdminType = AdminCommand['type'];

/** Payload of one Raft entry. An entry with empty data is the leader's no-op. */
export type RaftCommand =
  | { readonly type: 'write'; readonly epoch: RegionEpoch; readonly ops: readonly WriteOp[] }
  | { readonly type: 'admin'; readonly epoch: RegionEpoch; readonly command: AdminCommand };
