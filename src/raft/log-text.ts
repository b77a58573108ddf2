/** Text of the core's log lines: names, ids, progress and configurations, worded as etcd-io/raft words them. */
import type { Progress, ProgressState } from './progress.ts';
import {
  ConfChangeTransition,
  ConfChangeType,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  MsgType,
  type ConfChangeV2,
  type ConfState,
  type Role,
} from './types.ts';

/** Node ids inside log lines and messages are hexadecimal. */
export const hexId = (id: number): string => id.toString(16);

/** Address in a message: a node, nobody or a local thread. */
export function addressText(id: number): string {
  switch (id) {
    case 0:
      return 'None';
    case LOCAL_APPEND_THREAD:
      return 'AppendThread';
    case LOCAL_APPLY_THREAD:
      return 'ApplyThread';
    default:
      return hexId(id);
  }
}

const MESSAGE_NAMES: readonly string[] = Object.entries(MsgType)
  .sort(([, a], [, b]) => a - b)
  .map(([name]) => `Msg${name}`);

export const messageTypeText = (type: MsgType): string => MESSAGE_NAMES[type] ?? `Msg(${type})`;

const ROLE_NAMES: Readonly<Record<Role, string>> = {
  follower: 'StateFollower',
  candidate: 'StateCandidate',
  leader: 'StateLeader',
  'pre-candidate': 'StatePreCandidate',
};

export const roleText = (role: Role): string => ROLE_NAMES[role];

const PROGRESS_NAMES: Readonly<Record<ProgressState, string>> = {
  probe: 'StateProbe',
  replicate: 'StateReplicate',
  snapshot: 'StateSnapshot',
};

export function progressText(p: Progress): string {
  let text = `${PROGRESS_NAMES[p.state]} match=${p.match} next=${p.next}`;
  if (p.isLearner) {
    text += ' learner';
  }
  if (p.paused) {
    text += ' paused';
  }
  if (p.pendingSnapshot > 0) {
    text += ` pendingSnap=${p.pendingSnapshot}`;
  }
  if (!p.recentActive) {
    text += ' inactive';
  }
  if (p.inflightCount > 0) {
    text += ` inflight=${p.inflightCount}${p.inflightFull ? '[full]' : ''}`;
  }
  return text;
}

const idSet = (ids: readonly number[]): string => `(${ids.map(hexId).join(' ')})`;

/** A configuration with sorted lists. */
export function configText(config: ConfState): string {
  let text = `voters=${idSet(config.voters)}`;
  if (config.votersOutgoing.length > 0) {
    text += `&&${idSet(config.votersOutgoing)}`;
  }
  if (config.learners.length > 0) {
    text += ` learners=${idSet(config.learners)}`;
  }
  if (config.learnersNext.length > 0) {
    text += ` learners_next=${idSet(config.learnersNext)}`;
  }
  return config.autoLeave ? `${text} autoleave` : text;
}

const list = (ids: readonly number[]): string => `[${[...ids].sort((a, b) => a - b).join(' ')}]`;

export function confStateText(state: ConfState): string {
  return (
    `Voters:${list(state.voters)} VotersOutgoing:${list(state.votersOutgoing)} ` +
    `Learners:${list(state.learners)} LearnersNext:${list(state.learnersNext)} AutoLeave:${state.autoLeave}`
  );
}

const TRANSITION_NAMES: Readonly<Record<ConfChangeTransition, string>> = {
  [ConfChangeTransition.Auto]: 'ConfChangeTransitionAuto',
  [ConfChangeTransition.JointImplicit]: 'ConfChangeTransitionJointImplicit',
  [ConfChangeTransition.JointExplicit]: 'ConfChangeTransitionJointExplicit',
};

const CHANGE_NAMES: Readonly<Record<ConfChangeType, string>> = {
  [ConfChangeType.AddNode]: 'ConfChangeAddNode',
  [ConfChangeType.RemoveNode]: 'ConfChangeRemoveNode',
  [ConfChangeType.UpdateNode]: 'ConfChangeUpdateNode',
  [ConfChangeType.AddLearnerNode]: 'ConfChangeAddLearnerNode',
};

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function quoteChar(c: string): string {
  switch (c) {
    case '"':
      return '\\"';
    case '\\':
      return '\\\\';
    case '\x07':
      return '\\a';
    case '\b':
      return '\\b';
    case '\f':
      return '\\f';
    case '\n':
      return '\\n';
    case '\r':
      return '\\r';
    case '\t':
      return '\\t';
    case '\v':
      return '\\v';
    default:
      break;
  }
  const code = c.codePointAt(0) as number;
  if (code < 0x20 || code === 0x7f) {
    return `\\x${code.toString(16).padStart(2, '0')}`;
  }
  if (/[\p{L}\p{M}\p{N}\p{P}\p{S}]/u.test(c) || c === ' ') {
    return c;
  }
  return code < 0x10000 ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
}

/** Length in bytes of the valid UTF-8 sequence at `at`, or 0. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const lead = bytes[at] as number;
  const length =
    lead < 0x80
      ? 1
      : lead >= 0xc2 && lead < 0xe0
        ? 2
        : lead >= 0xe0 && lead < 0xf0
          ? 3
          : lead >= 0xf0 && lead < 0xf5
            ? 4
            : 0;
  if (length === 0 || at + length > bytes.length) {
    return 0;
  }
  try {
    decoder.decode(bytes.subarray(at, at + length));
    return length;
  } catch {
    return 0;
  }
}

/** Bytes as a double-quoted string; control characters, quotes and invalid bytes escaped. */
export function quoteBytes(bytes: Uint8Array): string {
  let text = '"';
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes, at);
    if (length === 0) {
      text += `\\x${(bytes[at] as number).toString(16).padStart(2, '0')}`;
      at++;
      continue;
    }
    text += quoteChar(decoder.decode(bytes.subarray(at, at + length)));
    at += length;
  }
  return `${text}"`;
}

/** A membership change as the "ignoring conf change" line shows it. */
export function confChangeText(cc: ConfChangeV2): string {
  let text = `transition:${TRANSITION_NAMES[cc.transition]}`;
  for (const { type, nodeId } of cc.changes) {
    text += ` changes:{type:${CHANGE_NAMES[type]} node_id:${nodeId}}`;
  }
  return cc.context.length === 0 ? text : `${text} context:${quoteBytes(cc.context)}`;
}
