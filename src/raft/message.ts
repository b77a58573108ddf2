/**
 * Making and judging messages. Every message has all fields (one hidden class); what comes from outside is checked
 * here before any rule of the protocol sees it, and a message that fails is refused without any effect.
 */
import { EMPTY_BYTES } from '../base/bytes.ts';
import { EMPTY_ENTRIES } from './entry.ts';
import { LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MsgType, type Entry, type Message, type Snapshot } from './types.ts';

/** Shared empty list; never written to. */
export const EMPTY_MESSAGES: readonly Message[] = Object.freeze([]) as readonly Message[];

/** Largest term, index and id taken from a message: far beyond any real one, and still safe to add to. */
export const POSITION_MAX: number = 2 ** 52;

/**
 * How far a term or commit index may lie beyond the receiver's own. No real one does; taking such a term would bring
 * the group to the end of the range, and such a commit index is not the trace of a lost log.
 */
export const POSITION_JUMP_MAX: number = 2 ** 32;

export function newMessage(type: MsgType, to: number, from: number, term: number): Message {
  return {
    type,
    to,
    from,
    term,
    logTerm: 0,
    index: 0,
    entries: EMPTY_ENTRIES,
    commit: 0,
    vote: 0,
    snapshot: null,
    reject: false,
    rejectHint: 0,
    context: EMPTY_BYTES,
    responses: EMPTY_MESSAGES,
    reportedCommit: 0,
    voteCommit: 0,
    voteCommitTerm: 0,
  };
}

/** A copy that may be readdressed. */
export function copyMessage(m: Message): Message {
  return { ...m };
}

export const isLocalThread = (id: number): boolean => id === LOCAL_APPEND_THREAD || id === LOCAL_APPLY_THREAD;

/** Types that only the node itself or its threads produce. */
export function isLocalMessage(type: MsgType): boolean {
  switch (type) {
    case MsgType.Hup:
    case MsgType.Beat:
    case MsgType.Unreachable:
    case MsgType.SnapStatus:
    case MsgType.CheckQuorum:
    case MsgType.StorageAppend:
    case MsgType.StorageAppendResp:
    case MsgType.StorageApply:
    case MsgType.StorageApplyResp:
      return true;
    default:
      return false;
  }
}

/** Types that answer something; they are taken from members only. */
export function isResponseMessage(type: MsgType): boolean {
  switch (type) {
    case MsgType.AppResp:
    case MsgType.VoteResp:
    case MsgType.HeartbeatResp:
    case MsgType.Unreachable:
    case MsgType.ReadIndexResp:
    case MsgType.PreVoteResp:
    case MsgType.StorageAppendResp:
    case MsgType.StorageApplyResp:
      return true;
    default:
      return false;
  }
}

const isPosition = (value: number): boolean => Number.isSafeInteger(value) && value >= 0 && value < POSITION_MAX;

function entriesProblem(
  entries: readonly Entry[],
  previous: number,
  previousTerm: number,
  term: number,
): string | undefined {
  let lastTerm = previousTerm;
  for (let i = 0; i < entries.length; i++) {
    const entry = entries[i] as Entry;
    if (entry.index !== previous + 1 + i) {
      return `entry ${i} has index ${entry.index}, expected ${previous + 1 + i}`;
    }
    if (!isPosition(entry.term) || entry.term < lastTerm || entry.term > term) {
      return `entry ${entry.index} has term ${entry.term} after ${lastTerm} in a message of term ${term}`;
    }
    if (!(entry.type === 0 || entry.type === 1 || entry.type === 2) || !(entry.data instanceof Uint8Array)) {
      return `entry ${entry.index} has no known type or no payload`;
    }
    lastTerm = entry.term;
  }
  return undefined;
}

function proposalProblem(entries: readonly Entry[]): string | undefined {
  if (entries.length === 0) {
    return 'a proposal without entries';
  }
  for (const entry of entries) {
    if (!(entry.type === 0 || entry.type === 1 || entry.type === 2) || !(entry.data instanceof Uint8Array)) {
      return 'a proposed entry has no known type or no payload';
    }
  }
  return undefined;
}

function snapshotProblem(snapshot: Snapshot | null, term: number): string | undefined {
  if (snapshot === null) {
    return 'a snapshot message without a snapshot';
  }
  const { index, term: snapshotTerm, confState } = snapshot.metadata;
  if (!isPosition(index) || !isPosition(snapshotTerm) || index === 0 || snapshotTerm > term) {
    return `a snapshot at index ${index} and term ${snapshotTerm} in a message of term ${term}`;
  }
  if (confState.voters.length === 0) {
    return 'a snapshot without voters';
  }
  for (const ids of [confState.voters, confState.votersOutgoing, confState.learners, confState.learnersNext]) {
    if (!ids.every((id) => isPosition(id) && id > 0)) {
      return 'a snapshot with a member id out of range';
    }
  }
  return undefined;
}

/**
 * What is wrong with a message for node `self`, or undefined. Checks form only: known type, addressee, numbers in
 * range, entries in order, parts the type needs.
 */
export function messageProblem(m: Message, self: number): string | undefined {
  const { type, from, term } = m;
  if (!Number.isInteger(type) || type < MsgType.Hup || type > MsgType.ForgetLeader) {
    return `unknown message type ${String(type)}`;
  }
  if (m.to !== self) {
    return `addressed to ${m.to}, not to ${self}`;
  }
  if (!isPosition(term) || !isPosition(m.index) || !isPosition(m.logTerm)) {
    return `term ${term}, index ${m.index} or log term ${m.logTerm} is out of range`;
  }
  if (!isPosition(m.commit) || !isPosition(m.rejectHint) || !isPosition(m.vote)) {
    return `commit ${m.commit}, hint ${m.rejectHint} or vote ${m.vote} is out of range`;
  }
  if (!isPosition(m.reportedCommit) || !isPosition(m.voteCommit) || !isPosition(m.voteCommitTerm)) {
    return 'a reported commit index is out of range';
  }
  if (from < 0) {
    const expected =
      type === MsgType.StorageAppendResp
        ? LOCAL_APPEND_THREAD
        : type === MsgType.StorageApplyResp
          ? LOCAL_APPLY_THREAD
          : 0;
    return from === expected ? undefined : `message type ${type} from the local thread ${from}`;
  }
  if (!isPosition(from) || from === 0) {
    return `sender ${from} is out of range`;
  }
  switch (type) {
    case MsgType.StorageAppendResp:
    case MsgType.StorageApplyResp:
      // Refused as local by the caller.
      return undefined;
    case MsgType.AppResp:
    case MsgType.VoteResp:
    case MsgType.PreVoteResp:
      // A refused pre-vote of a node that has never seen a term is the only answer at term 0.
      return term === 0 && !(type === MsgType.PreVoteResp && m.reject) ? 'a response without a term' : undefined;
    default:
      break;
  }
  if (from === self && type !== MsgType.Prop && type !== MsgType.ReadIndex && type !== MsgType.TransferLeader) {
    return `message type ${type} from the node itself`;
  }
  switch (type) {
    case MsgType.App:
      if (term === 0 || m.logTerm > term) {
        return `an append of term ${term} behind an entry of term ${m.logTerm}`;
      }
      return entriesProblem(m.entries, m.index, m.logTerm, term);
    case MsgType.Prop:
      return proposalProblem(m.entries);
    case MsgType.Snap:
      return term === 0 ? 'a snapshot without a term' : snapshotProblem(m.snapshot, term);
    case MsgType.ReadIndex:
    case MsgType.ReadIndexResp:
      return m.entries.length === 1 ? undefined : `a read request with ${m.entries.length} contexts`;
    case MsgType.Heartbeat:
    case MsgType.HeartbeatResp:
    case MsgType.Vote:
    case MsgType.PreVote:
    case MsgType.TimeoutNow:
      return term === 0 ? `message type ${type} without a term` : undefined;
    default:
      return undefined;
  }
}
