/**
 * Every message of the raftstore in one place: what peer FSMs, apply FSMs and the store FSM receive. Mailboxes are
 * FIFO. Only `peer-message` and client commands may be refused for back-pressure; all others are never dropped.
 */
import type { PeerId, RegionId } from '../base/ids.ts';
import type { KeyRange } from '../base/key-range.ts';
import type { AdminCommand, WriteOp } from '../codec/command.ts';
import type { PeerMessage } from '../codec/peer-message.ts';
import type { RegionError } from '../codec/region-error.ts';
import type { ApplyState, Fence, MergeState } from '../codec/store-record.ts';
import type { PeerChange } from '../meta/heartbeat.ts';
import type { Peer, Region, RegionEpoch } from '../meta/region.ts';
import type { RefusedStep, StepRefusalCode } from '../meta/step-refusal.ts';
import type { ConfChangeV2, Entry, Snapshot } from '../raft/types.ts';

// ---------------------------------------------------------------------------------------------------- requests

/** Routing part of a client request. */
export interface RequestHeader {
  readonly regionId: RegionId;
  /** Epoch the client believes in; only `version` is compared for data requests. */
  readonly epoch: RegionEpoch;
  readonly peerId: PeerId;
  /** Term the client saw; 0 if none. */
  readonly term: number;
  /** Monotonic time (clock.monoMs) after which the request must not start any more. */
  readonly deadlineMonoMs: number;
}

/** Result of one WriteOp. */
export type OpResult =
  | { readonly type: 'done' }
  | { readonly type: 'compared'; readonly swapped: boolean; readonly previous: Uint8Array | undefined };

export type WriteOutcome =
  | { readonly type: 'ok'; readonly results: readonly OpResult[] }
  | { readonly type: 'refused'; readonly error: RegionError };

export interface WriteRequest {
  readonly header: RequestHeader;
  readonly ops: readonly WriteOp[];
  /** Called exactly once. */
  readonly respond: (outcome: WriteOutcome) => void;
}

export type ReadOutcome =
  /** The engine may be read now, in the same synchronous turn: getMany, scan or snapshot taken here is linearizable. */
  { readonly type: 'ok'; readonly region: Region } | { readonly type: 'refused'; readonly error: RegionError };

export interface ReadRequest {
  readonly header: RequestHeader;
  /** Keys that must lie in the region. */
  readonly keys: readonly Uint8Array[];
  /** Serve from a follower after a read index. */
  readonly replicaRead: boolean;
  /** Nothing but `keys` is read. Default false: anything of the region may be. */
  readonly isPointRead?: boolean;
  /** Of a scan that begins at the only key: its end, exclusive, empty = the end of the key space. */
  readonly scanEnd?: Uint8Array;
  /** Called exactly once. */
  readonly respond: (outcome: ReadOutcome) => void;
}

export type AdminRequestBody =
  /** Split at these keys (strictly increasing, inside the region). */
  | { readonly type: 'split'; readonly keys: readonly Uint8Array[] }
  /** Split at about the middle of the data. */
  | { readonly type: 'half-split' }
  /** One change is simple, several enter joint, none leaves joint. */
  | { readonly type: 'change-peer'; readonly changes: readonly PeerChange[] }
  | { readonly type: 'transfer-leader'; readonly peer: Peer }
  | { readonly type: 'merge'; readonly target: Region }
  /** Forgets the log up to `index`, which must be applied here. */
  | { readonly type: 'compact-log'; readonly index: number }
  | { readonly type: 'compute-hash' };

/** A named reason why an admin request was not carried out; nothing was changed. */
export interface AdminRefusal {
  readonly code: StepRefusalCode;
  readonly message: string;
}

export type AdminOutcome =
  | { readonly type: 'ok'; readonly regions: readonly Region[] }
  /** An obstacle that clients know a remedy for; `refusal` names it for operators. */
  | { readonly type: 'refused'; readonly error: RegionError; readonly refusal?: AdminRefusal }
  | { readonly type: 'rejected'; readonly refusal: AdminRefusal };

export interface AdminRequest {
  readonly regionId: RegionId;
  /** Epoch the sender believes in; undefined skips the check (internal requests). */
  readonly epoch: RegionEpoch | undefined;
  readonly body: AdminRequestBody;
  readonly respond: (outcome: AdminOutcome) => void;
}

// ---------------------------------------------------------------------------------------------------- apply side

export type EntryOutcome =
  | { readonly type: 'write-applied'; readonly results: readonly OpResult[] }
  | { readonly type: 'admin-applied'; readonly regions: readonly Region[] }
  /** The entry had no effect, on all replicas alike. */
  | { readonly type: 'refused'; readonly error: RegionError; readonly refusal?: AdminRefusal }
  /** Another leader's entry took this place in the log. */
  | { readonly type: 'overwritten' }
  | { readonly type: 'region-removed' };

/** A proposal of this peer waiting for its entry to be applied. */
export interface PendingProposal {
  readonly index: number;
  readonly term: number;
  /** Called exactly once, after the batch with the entry's effects is durable. */
  readonly complete: (outcome: EntryOutcome) => void;
}

/** One-shot, single-writer flag between two apply FSMs: the source writes its id when its last write is durable and it is dead. */
export interface CatchUpFlag {
  sourceRegionId: number;
}

/** Request of a waiting target apply FSM to the source's peer FSM on the same store. */
export interface CatchUpLogs {
  readonly targetRegionId: RegionId;
  readonly source: Region;
  /** Log index of the source's PrepareMerge. */
  readonly commit: number;
  readonly entries: readonly Entry[];
  readonly flag: CatchUpFlag;
}

/** What the peer FSM must know about applied admin commands, in log order. */
export type ExecResult =
  | {
      readonly type: 'change-peer';
      readonly index: number;
      readonly confChange: ConfChangeV2;
      readonly changes: readonly PeerChange[];
      readonly region: Region;
      /** False if the command was refused at apply: the raft core must then not apply the conf change either. */
      readonly applied: boolean;
    }
  | {
      readonly type: 'split';
      readonly derived: Region;
      /** All resulting regions in key order, the derived one included. */
      readonly regions: readonly Region[];
      /** Children that must not be created here: another incarnation exists or existed on this store. */
      readonly skipped: ReadonlySet<number>;
    }
  | { readonly type: 'prepare-merge'; readonly region: Region; readonly state: MergeState }
  | { readonly type: 'commit-merge'; readonly index: number; readonly region: Region; readonly source: Region }
  | { readonly type: 'rollback-merge'; readonly region: Region; readonly commit: number }
  | { readonly type: 'compact-log'; readonly truncatedIndex: number; readonly truncatedTerm: number }
  | { readonly type: 'compute-hash'; readonly index: number; readonly hash: Uint8Array }
  | { readonly type: 'verify-hash'; readonly index: number; readonly matched: boolean; readonly isUnclear: boolean };

/** Sent to the peer FSM after the batch that contains all these effects is durable. */
export interface ApplyResult {
  readonly peerId: number;
  readonly applyState: ApplyState;
  readonly results: readonly ExecResult[];
  readonly keysWritten: number;
  readonly bytesWritten: number;
}

export type ApplyTask =
  | {
      readonly type: 'apply';
      readonly entries: readonly Entry[];
      readonly commitIndex: number;
      readonly commitTerm: number;
      readonly proposals: readonly PendingProposal[];
    }
  /** Take a snapshot of everything applied before this task, for sending. */
  | { readonly type: 'gen-snapshot'; readonly requestId: number; readonly toPeer: number }
  /** Die. Answered with `apply-destroyed`. */
  | { readonly type: 'destroy'; readonly mergeFromSnapshot: boolean }
  /** The source has applied everything up to PrepareMerge: flush, die, set the flag, wake the target. */
  | { readonly type: 'logs-up-to-date'; readonly catchUp: CatchUpLogs }
  /** Look at the catch-up flag again. */
  | { readonly type: 'noop' }
  /** A batch of this FSM is durable. */
  | { readonly type: 'batch-written'; readonly batchNumber: number }
  /** The hash asked for by a compute-hash entry is ready. */
  | { readonly type: 'hash-computed'; readonly index: number; readonly hash: Uint8Array }
  /** A page of keys the FSM asked for (delete-range). */
  | {
      readonly type: 'range-page';
      readonly entries: readonly (readonly [Uint8Array, Uint8Array])[];
      readonly more: boolean;
    };

// ---------------------------------------------------------------------------------------------------- peer side

export type MergeResultKind = 'target-log' | 'target-snapshot-step1' | 'target-snapshot-step2' | 'stale';

/** A snapshot whose chunks are staged in the engine, complete and verified. */
export interface StagedSnapshot {
  /** Names the staging area; unique on this store. */
  readonly stagingId: number;
  readonly region: Region;
  readonly sizeBytes: number;
  readonly keys: number;
}

export type PeerMsg =
  | { readonly type: 'peer-message'; readonly message: PeerMessage }
  | { readonly type: 'write'; readonly request: WriteRequest }
  | { readonly type: 'read'; readonly request: ReadRequest }
  | { readonly type: 'admin'; readonly request: AdminRequest }
  /** From the source peer on this store: propose CommitMerge if you are leader; no answer. */
  | {
      readonly type: 'propose-commit-merge';
      readonly expectedEpoch: RegionEpoch;
      readonly targetPeerId: number;
      readonly command: Extract<AdminCommand, { type: 'commit-merge' }>;
    }
  | { readonly type: 'raft-tick'; readonly ticks: number }
  | { readonly type: 'check-merge' }
  | { readonly type: 'maintenance-tick' }
  | { readonly type: 'pd-heartbeat-tick' }
  | { readonly type: 'split-check-tick' }
  | { readonly type: 'persisted'; readonly peerId: number; readonly readyNumber: number }
  | { readonly type: 'applied'; readonly result: ApplyResult }
  | { readonly type: 'apply-destroyed'; readonly peerId: number; readonly mergeFromSnapshot: boolean }
  | { readonly type: 'catch-up-logs'; readonly request: CatchUpLogs }
  | {
      readonly type: 'merge-result';
      readonly targetRegionId: RegionId;
      readonly targetPeer: Peer;
      readonly kind: MergeResultKind;
    }
  /** A snapshot of another region needs the range: find out whether this peer still belongs to anyone. */
  | { readonly type: 'region-overlapped' }
  /** Destroy this incarnation (sent to oneself so that committed entries reach apply first). */
  | { readonly type: 'destroy'; readonly peerId: number }
  | { readonly type: 'destroyed-on-disk'; readonly peerId: number }
  | { readonly type: 'snapshot-generated'; readonly requestId: number; readonly snapshot: Snapshot | undefined }
  | { readonly type: 'snapshot-sent'; readonly toPeer: number; readonly index: number; readonly ok: boolean }
  | { readonly type: 'snapshot-received'; readonly message: PeerMessage; readonly staged: StagedSnapshot }
  | { readonly type: 'snapshot-installed'; readonly peerId: number; readonly sizeBytes: number; readonly keys: number }
  | {
      readonly type: 'split-checked';
      readonly epoch: RegionEpoch;
      readonly sizeBytes: number;
      readonly keys: number;
      readonly splitKeys: readonly Uint8Array[];
      /** Answers an explicit half-split request even when nothing can be split. */
      readonly forced: boolean;
    }
  | {
      readonly type: 'split-ids';
      readonly attempt: number;
      readonly ids: readonly SplitIdsResult[] | undefined;
      readonly failure: string;
    }
  | { readonly type: 'unreachable'; readonly storeId: number }
  /** PD's view of this region, asked for by a peer without a leader. */
  | { readonly type: 'pd-region'; readonly region: Region | undefined }
  /** Data of a fenced replica on this store belong to this region now. */
  | { readonly type: 'inherit-fence'; readonly reason: Fence['reason'] }
  /** A step of an operator was not carried out: tell the placement service. */
  | { readonly type: 'step-refused'; readonly step: RefusedStep; readonly refusal: AdminRefusal };

export interface SplitIdsResult {
  readonly newRegionId: number;
  readonly newPeerIds: readonly number[];
}

/** Messages for the store FSM. */
export type StoreMsg =
  /** For a region without a peer FSM. */
  | { readonly type: 'peer-message'; readonly message: PeerMessage }
  | { readonly type: 'range-cleaned'; readonly range: KeyRange };
