/**
 * Data of the consensus core (reference: the Raft paper; shapes follow etcd-io/raft raftpb). All ids, terms and
 * indexes are plain safe integers here; 0 means "none" for ids and "before the first" for indexes and terms.
 * Every field of a message is always present, so that objects keep one hidden class.
 */

export const EntryType = { Normal: 0, ConfChange: 1, ConfChangeV2: 2 } as const;
export type EntryType = (typeof EntryType)[keyof typeof EntryType];

/** Immutable once created; shared by log, messages and Ready. */
export interface Entry {
  readonly type: EntryType;
  readonly term: number;
  readonly index: number;
  readonly data: Uint8Array;
}

export interface HardState {
  readonly term: number;
  readonly vote: number;
  readonly commit: number;
}

export type Role = 'follower' | 'candidate' | 'pre-candidate' | 'leader';

export interface SoftState {
  readonly lead: number;
  readonly role: Role;
}

/** Membership as it stands at one log index. Non-empty `votersOutgoing` means joint. */
export interface ConfState {
  readonly voters: readonly number[];
  readonly votersOutgoing: readonly number[];
  readonly learners: readonly number[];
  readonly learnersNext: readonly number[];
  readonly autoLeave: boolean;
}

export interface SnapshotMetadata {
  readonly index: number;
  readonly term: number;
  readonly confState: ConfState;
}

export interface Snapshot {
  readonly data: Uint8Array;
  readonly metadata: SnapshotMetadata;
}

/** Numbers as in etcd's raftpb.MessageType. */
export const MsgType = {
  Hup: 0,
  Beat: 1,
  Prop: 2,
  App: 3,
  AppResp: 4,
  Vote: 5,
  VoteResp: 6,
  Snap: 7,
  Heartbeat: 8,
  HeartbeatResp: 9,
  Unreachable: 10,
  SnapStatus: 11,
  CheckQuorum: 12,
  TransferLeader: 13,
  TimeoutNow: 14,
  ReadIndex: 15,
  ReadIndexResp: 16,
  PreVote: 17,
  PreVoteResp: 18,
  StorageAppend: 19,
  StorageAppendResp: 20,
  StorageApply: 21,
  StorageApplyResp: 22,
  ForgetLeader: 23,
} as const;
export type MsgType = (typeof MsgType)[keyof typeof MsgType];

/** Reserved targets of local messages in async storage mode; never encoded. */
export const LOCAL_APPEND_THREAD = -1;
export const LOCAL_APPLY_THREAD = -2;

export interface Message {
  type: MsgType;
  to: number;
  from: number;
  term: number;
  logTerm: number;
  index: number;
  entries: readonly Entry[];
  commit: number;
  vote: number;
  snapshot: Snapshot | null;
  reject: boolean;
  rejectHint: number;
  context: Uint8Array;
  responses: readonly Message[];
  /**
   * Deviation D5: up to where the sender certainly knows entries to be committed, even after a crash: its applied index,
   * in MsgAppResp and MsgHeartbeatResp; 0 if not reported.
   */
  reportedCommit: number;
  /** Deviation D11: commit index and its term carried by vote traffic; 0 if not reported. */
  voteCommit: number;
  voteCommitTerm: number;
}

/** Numbers as in etcd's raftpb.ConfChangeType. */
export const ConfChangeType = { AddNode: 0, RemoveNode: 1, UpdateNode: 2, AddLearnerNode: 3 } as const;
export type ConfChangeType = (typeof ConfChangeType)[keyof typeof ConfChangeType];

export const ConfChangeTransition = { Auto: 0, JointImplicit: 1, JointExplicit: 2 } as const;
export type ConfChangeTransition = (typeof ConfChangeTransition)[keyof typeof ConfChangeTransition];

export interface ConfChangeSingle {
  readonly type: ConfChangeType;
  readonly nodeId: number;
}

/** No changes and transition Auto means "leave the joint configuration". */
export interface ConfChangeV2 {
  readonly transition: ConfChangeTransition;
  readonly changes: readonly ConfChangeSingle[];
  readonly context: Uint8Array;
}

export interface ReadState {
  readonly index: number;
  readonly requestContext: Uint8Array;
}

/** `LogStorage.term` and `entries` results below zero. */
export const COMPACTED = -1;
export const UNAVAILABLE = -2;
export type LogErrorCode = typeof COMPACTED | typeof UNAVAILABLE;

/**
 * Synchronous view of durable (or at least ordered) log state. Content at or beyond the core's unstable offset is
 * ignored by the core.
 */
export interface LogStorage {
  initialState(): { readonly hardState: HardState; readonly confState: ConfState };
  firstIndex(): number;
  lastIndex(): number;
  /** Term of an index in [firstIndex-1, lastIndex], else COMPACTED or UNAVAILABLE. */
  term(index: number): number;
  /** Entries [lo, hi), at least one, stopping before the encoding size exceeds `maxSize`. */
  entries(lo: number, hi: number, maxSize: number): readonly Entry[] | LogErrorCode;
  /** A snapshot for a peer, or null while one is being made. */
  snapshot(forPeer: number): Snapshot | null;
}

export interface RaftLogger {
  readonly debugEnabled: boolean;
  /** False keeps the core from formatting info lines; absent means true. */
  readonly infoEnabled?: boolean;
  debug(line: string): void;
  info(line: string): void;
  warn(line: string): void;
  error(line: string): void;
}
