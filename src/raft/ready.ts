/** What a group member wants done, and the results of its calls. All values are handed over to the caller. */
import type { Entry, HardState, Message, ReadState, SoftState, Snapshot } from './types.ts';
import type { ProgressState } from './progress.ts';
import type { ConfState, Role } from './types.ts';

/** Why a proposal or a read was certainly not taken. */
export type DropReason =
  | 'no-leader'
  | 'not-leader'
  | 'removed'
  | 'transferring'
  | 'uncommitted-limit'
  | 'too-many-reads';

export type StepResult =
  | { readonly type: 'ok' }
  /** A type that only the node itself produces. */
  | { readonly type: 'local-message' }
  /** An answer from somebody who is not a member here. */
  | { readonly type: 'peer-not-found' }
  | { readonly type: 'dropped'; readonly reason: DropReason }
  /** Not a message of this protocol; nothing changed. */
  | { readonly type: 'malformed'; readonly reason: string };

/**
 * `proposed`: appended at (index, term); it succeeded iff the entry applied at that index has that term. `dropped`:
 * certainly not appended by this call. `refused` (D9): the change is not allowed now. `forwarded`: sent to the leader,
 * no answer will come.
 */
export type ProposeResult =
  | { readonly type: 'proposed'; readonly index: number; readonly term: number }
  | { readonly type: 'dropped'; readonly reason: DropReason }
  | { readonly type: 'refused'; readonly reason: string }
  | { readonly type: 'forwarded'; readonly reason: string; readonly to: number };

/**
 * The changes since the previous Ready. What must happen with it, and in which order, is in docs/raft.md.
 */
export interface Ready {
  /** Role or leader, if one of them changed. */
  readonly softState: SoftState | null;
  /** Term, vote and commit, if one of them changed. */
  readonly hardState: HardState | null;
  /** New log entries; they replace the stored suffix from their first index on. */
  readonly entries: readonly Entry[];
  /** Replaces log and state machine. Never together with entries. */
  readonly snapshot: Snapshot | null;
  /** To be applied, in order. In async mode the same list is in the apply message. */
  readonly committedEntries: readonly Entry[];
  /** For other members and, in async mode, at most one message for each local thread, last, append before apply. */
  readonly messages: readonly Message[];
  /**
   * True: messages to other members may leave at once. False: not before everything this Ready wants stored, and what
   * earlier ones wanted stored, is durable.
   */
  readonly leaderMessages: boolean;
  readonly readStates: readonly ReadState[];
  /** Entries, term or vote must be synced. Not set for a snapshot alone, which must be synced as well (D4). */
  readonly mustSync: boolean;
}

/** A leader's view of one member, itself included. */
export interface ProgressView {
  id: number;
  match: number;
  next: number;
  state: ProgressState;
  /** Commit index the member reported (D5), 0 if unknown; the leader's own is its commit index. */
  committed: number;
  recentActive: boolean;
  isLearner: boolean;
  /** Index of the snapshot the member is waiting for; 0 if none. */
  pendingSnapshot: number;
}

/** For people and tests; allocates. */
export interface RaftStatus {
  readonly id: number;
  readonly term: number;
  readonly vote: number;
  readonly committed: number;
  readonly applied: number;
  readonly lead: number;
  readonly role: Role;
  readonly leadTransferee: number;
  readonly config: ConfState;
  /** Empty unless leader. */
  readonly progress: readonly ProgressView[];
}

export const OK: StepResult = Object.freeze({ type: 'ok' });
export const LOCAL_MESSAGE: StepResult = Object.freeze({ type: 'local-message' });
export const PEER_NOT_FOUND: StepResult = Object.freeze({ type: 'peer-not-found' });

export const dropped = (reason: DropReason): { readonly type: 'dropped'; readonly reason: DropReason } => ({
  type: 'dropped',
  reason,
});
