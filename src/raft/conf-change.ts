/**
 * Membership changes (thesis chapter 4; etcd-io/raft: confchange): how a change is encoded in an entry, what it does
 * to a configuration, and how a configuration is rebuilt from a ConfState. Everything is pure: a change either returns
 * a new membership or says why not, and the old one stays as it was.
 *
 * A change takes effect when it is applied, on every node separately. An error at that point would make replicas
 * differ, so a leader tries a change out with these functions before it proposes it.
 */
import { copyBytes, EMPTY_BYTES } from '../base/bytes.ts';
import { RaftInvariantError } from './errors.ts';
import type { InflightLimits } from './inflights.ts';
import { Progress } from './progress.ts';
import { EMPTY_MEMBERSHIP, type Membership } from './tracker.ts';
import {
  ConfChangeTransition,
  ConfChangeType,
  type ConfChangeSingle,
  type ConfChangeV2,
  type ConfState,
} from './types.ts';

export type ConfChangeResult =
  | { readonly type: 'ok'; readonly membership: Membership }
  | { readonly type: 'error'; readonly message: string };

/** The change that leaves a joint configuration. */
export const LEAVE_JOINT: ConfChangeV2 = Object.freeze({
  transition: ConfChangeTransition.Auto,
  changes: [],
  context: EMPTY_BYTES,
});

export const isLeaveJoint = (cc: ConfChangeV2): boolean =>
  cc.transition === ConfChangeTransition.Auto && cc.changes.length === 0;

/** Whether the change needs a joint configuration. */
export const needsJoint = (cc: ConfChangeV2): boolean =>
  cc.transition !== ConfChangeTransition.Auto || cc.changes.length > 1;

/** Whether a joint configuration entered by this change is left without being asked. */
export const leavesByItself = (cc: ConfChangeV2): boolean => cc.transition !== ConfChangeTransition.JointExplicit;

// ------------------------------------------------------------------------------------------------ encoding

const ENCODING_VERSION = 1;
const HEAD_BYTES = 4;
const CHANGE_BYTES = 9;
const CHANGES_MAX = 255;

/** Bytes of an entry of type ConfChangeV2 (or ConfChange, with exactly one change). Never empty. */
export function encodeConfChangeV2(cc: ConfChangeV2): Uint8Array {
  const { transition, changes, context } = cc;
  if (changes.length > CHANGES_MAX) {
    throw new RaftInvariantError('a membership change has too many parts', { changes: changes.length });
  }
  const out = new Uint8Array(HEAD_BYTES + changes.length * CHANGE_BYTES + context.length);
  const view = new DataView(out.buffer);
  out[0] = ENCODING_VERSION;
  out[1] = transition;
  out[2] = changes.length;
  let at = HEAD_BYTES;
  for (const { type, nodeId } of changes) {
    out[at] = type;
    view.setUint32(at + 1, Math.floor(nodeId / 2 ** 32));
    view.setUint32(at + 5, nodeId % 2 ** 32);
    at += CHANGE_BYTES;
  }
  out.set(context, at);
  return out;
}

/** Reverse of {@link encodeConfChangeV2}; empty data is the change that leaves a joint configuration. Undefined for anything else. */
export function tryDecodeConfChangeV2(data: Uint8Array): ConfChangeV2 | undefined {
  if (data.length === 0) {
    return LEAVE_JOINT;
  }
  const transition = data[1] as ConfChangeTransition;
  const count = data[2] ?? 0;
  const end = HEAD_BYTES + count * CHANGE_BYTES;
  if (data[0] !== ENCODING_VERSION || data.length < end || transition > ConfChangeTransition.JointExplicit) {
    return undefined;
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const changes: ConfChangeSingle[] = [];
  for (let at = HEAD_BYTES; at < end; at += CHANGE_BYTES) {
    const type = data[at] as ConfChangeType;
    const nodeId = view.getUint32(at + 1) * 2 ** 32 + view.getUint32(at + 5);
    if (type > ConfChangeType.AddLearnerNode || !Number.isSafeInteger(nodeId)) {
      return undefined;
    }
    changes.push({ type, nodeId });
  }
  return { transition, changes, context: data.length === end ? EMPTY_BYTES : copyBytes(data.subarray(end)) };
}

/** @throws RaftInvariantError for bytes that no proposer of this program wrote. */
export function decodeConfChangeV2(data: Uint8Array): ConfChangeV2 {
  const cc = tryDecodeConfChangeV2(data);
  if (cc === undefined) {
    throw new RaftInvariantError('a membership change cannot be decoded', { bytes: data.length });
  }
  return cc;
}

// ------------------------------------------------------------------------------------------------ applying

/** A configuration in the making. */
interface Draft {
  readonly voters: Set<number>;
  readonly outgoing: Set<number>;
  readonly learners: Set<number>;
  readonly learnersNext: Set<number>;
  readonly progress: Map<number, Progress>;
  readonly lastIndex: number;
  readonly limits: InflightLimits;
  autoLeave: boolean;
}

const error = (message: string): ConfChangeResult => ({ type: 'error', message });

const sorted = (ids: Iterable<number>): number[] => [...ids].sort((a, b) => a - b);

function draftOf(base: Membership, lastIndex: number, limits: InflightLimits): Draft {
  const { config } = base;
  const progress = new Map<number, Progress>();
  for (const p of base.progress) {
    progress.set(p.id, p.clone());
  }
  return {
    voters: new Set(config.voters),
    outgoing: new Set(config.votersOutgoing),
    learners: new Set(config.learners),
    learnersNext: new Set(config.learnersNext),
    progress,
    lastIndex,
    limits,
    autoLeave: config.autoLeave,
  };
}

/** First contradiction in a configuration, or undefined. */
function contradiction(draft: Draft): string | undefined {
  const { voters, outgoing, learners, learnersNext, progress } = draft;
  for (const ids of [voters, outgoing, learners, learnersNext]) {
    for (const id of sorted(ids)) {
      if (!progress.has(id)) {
        return `no progress for ${id}`;
      }
    }
  }
  for (const id of sorted(learnersNext)) {
    if (!outgoing.has(id)) {
      return `${id} is in LearnersNext, but not Voters[1]`;
    }
    if (progress.get(id)?.isLearner === true) {
      return `${id} is in LearnersNext, but is already marked as learner`;
    }
  }
  for (const id of sorted(learners)) {
    if (outgoing.has(id)) {
      return `${id} is in Learners and Voters[1]`;
    }
    if (voters.has(id)) {
      return `${id} is in Learners and Voters[0]`;
    }
    if (progress.get(id)?.isLearner !== true) {
      return `${id} is in Learners, but is not marked as learner`;
    }
  }
  if (outgoing.size === 0) {
    if (learnersNext.size > 0) {
      return 'cfg.LearnersNext must be nil when not joint';
    }
    if (draft.autoLeave) {
      return 'AutoLeave must be false when not joint';
    }
  }
  return undefined;
}

function finish(draft: Draft): ConfChangeResult {
  const problem = contradiction(draft);
  if (problem !== undefined) {
    return error(problem);
  }
  const config: ConfState = {
    voters: sorted(draft.voters),
    votersOutgoing: sorted(draft.outgoing),
    learners: sorted(draft.learners),
    learnersNext: sorted(draft.learnersNext),
    autoLeave: draft.autoLeave,
  };
  const progress = [...draft.progress.values()].sort((a, b) => a.id - b.id);
  return { type: 'ok', membership: { config, progress } };
}

function addProgress(draft: Draft, id: number, isLearner: boolean): void {
  (isLearner ? draft.learners : draft.voters).add(id);
  const progress = new Progress(id, Math.max(draft.lastIndex, 1), isLearner, draft.limits);
  // Counted as heard from, so that a quorum check right after the change does not depose the leader.
  progress.recentActive = true;
  draft.progress.set(id, progress);
}

function makeVoter(draft: Draft, id: number): void {
  const progress = draft.progress.get(id);
  if (progress === undefined) {
    addProgress(draft, id, false);
    return;
  }
  progress.isLearner = false;
  draft.learners.delete(id);
  draft.learnersNext.delete(id);
  draft.voters.add(id);
}

function makeLearner(draft: Draft, id: number): void {
  const progress = draft.progress.get(id);
  if (progress === undefined) {
    addProgress(draft, id, true);
    return;
  }
  if (progress.isLearner) {
    return;
  }
  removeMember(draft, id);
  draft.progress.set(id, progress);
  if (draft.outgoing.has(id)) {
    // Still votes in the outgoing half: it becomes a learner when the joint configuration is left.
    draft.learnersNext.add(id);
  } else {
    progress.isLearner = true;
    draft.learners.add(id);
  }
}

function removeMember(draft: Draft, id: number): void {
  if (!draft.progress.has(id)) {
    return;
  }
  draft.voters.delete(id);
  draft.learners.delete(id);
  draft.learnersNext.delete(id);
  if (!draft.outgoing.has(id)) {
    draft.progress.delete(id);
  }
}

/** Applies the operations in order; returns what is wrong with the outcome. */
function operate(draft: Draft, changes: readonly ConfChangeSingle[]): string | undefined {
  for (const { type, nodeId } of changes) {
    if (nodeId === 0) {
      continue;
    }
    switch (type) {
      case ConfChangeType.AddNode:
        makeVoter(draft, nodeId);
        break;
      case ConfChangeType.AddLearnerNode:
        makeLearner(draft, nodeId);
        break;
      case ConfChangeType.RemoveNode:
        removeMember(draft, nodeId);
        break;
      case ConfChangeType.UpdateNode:
        break;
      default:
        return `unexpected conf type ${String(type)}`;
    }
  }
  return draft.voters.size === 0 ? 'removed all voters' : undefined;
}

/** Where a change starts from. `lastIndex` is where new members are probed first. */
export interface ConfChangeBase {
  readonly membership: Membership;
  readonly lastIndex: number;
  readonly limits: InflightLimits;
}

function open(base: ConfChangeBase): Draft | string {
  const draft = draftOf(base.membership, base.lastIndex, base.limits);
  return contradiction(draft) ?? draft;
}

/** One change of at most one voter, outside joint configurations. */
export function simpleChange(base: ConfChangeBase, changes: readonly ConfChangeSingle[]): ConfChangeResult {
  const draft = open(base);
  if (typeof draft === 'string') {
    return error(draft);
  }
  if (draft.outgoing.size > 0) {
    return error("can't apply simple config change in joint config");
  }
  const problem = operate(draft, changes);
  if (problem !== undefined) {
    return error(problem);
  }
  const before = base.membership.config.voters;
  let differences = before.filter((id) => !draft.voters.has(id)).length;
  for (const id of draft.voters) {
    if (!before.includes(id)) {
      differences++;
    }
  }
  if (differences > 1) {
    return error('more than one voter changed without entering joint config');
  }
  return finish(draft);
}

/** Enters a joint configuration: the present voters become the outgoing half, the changes make the incoming one. */
export function enterJoint(
  base: ConfChangeBase,
  autoLeave: boolean,
  changes: readonly ConfChangeSingle[],
): ConfChangeResult {
  const draft = open(base);
  if (typeof draft === 'string') {
    return error(draft);
  }
  if (draft.outgoing.size > 0) {
    return error('config is already joint');
  }
  if (draft.voters.size === 0) {
    return error("can't make a zero-voter config joint");
  }
  for (const id of draft.voters) {
    draft.outgoing.add(id);
  }
  const problem = operate(draft, changes);
  if (problem !== undefined) {
    return error(problem);
  }
  draft.autoLeave = autoLeave;
  return finish(draft);
}

/** Leaves a joint configuration: only the incoming half remains. */
export function leaveJoint(base: ConfChangeBase): ConfChangeResult {
  const draft = open(base);
  if (typeof draft === 'string') {
    return error(draft);
  }
  if (draft.outgoing.size === 0) {
    return error("can't leave a non-joint config");
  }
  for (const id of draft.learnersNext) {
    draft.learners.add(id);
    const progress = draft.progress.get(id);
    if (progress !== undefined) {
      progress.isLearner = true;
    }
  }
  draft.learnersNext.clear();
  for (const id of draft.outgoing) {
    if (!draft.voters.has(id) && !draft.learners.has(id)) {
      draft.progress.delete(id);
    }
  }
  draft.outgoing.clear();
  draft.autoLeave = false;
  return finish(draft);
}

/** Applies any change in the way its form asks for. */
export function changeMembership(base: ConfChangeBase, cc: ConfChangeV2): ConfChangeResult {
  if (isLeaveJoint(cc)) {
    return leaveJoint(base);
  }
  return needsJoint(cc) ? enterJoint(base, leavesByItself(cc), cc.changes) : simpleChange(base, cc.changes);
}

/** Rebuilds the membership that `state` describes. Errors mean that the ConfState contradicts itself. */
export function restoreMembership(state: ConfState, lastIndex: number, limits: InflightLimits): ConfChangeResult {
  const add = (nodeId: number): ConfChangeSingle => ({ type: ConfChangeType.AddNode, nodeId });
  const learn = (nodeId: number): ConfChangeSingle => ({ type: ConfChangeType.AddLearnerNode, nodeId });
  const remove = (nodeId: number): ConfChangeSingle => ({ type: ConfChangeType.RemoveNode, nodeId });
  const { voters, votersOutgoing, learners, learnersNext } = state;
  const incoming = [
    ...votersOutgoing.map(remove),
    ...voters.map(add),
    ...learners.map(learn),
    ...learnersNext.map(learn),
  ];
  let result: ConfChangeResult = { type: 'ok', membership: EMPTY_MEMBERSHIP };
  const oneByOne = votersOutgoing.length === 0 ? incoming : votersOutgoing.map(add);
  for (const change of oneByOne) {
    result = simpleChange({ membership: result.membership, lastIndex, limits }, [change]);
    if (result.type === 'error') {
      return result;
    }
  }
  if (votersOutgoing.length > 0) {
    result = enterJoint({ membership: result.membership, lastIndex, limits }, state.autoLeave, incoming);
  }
  if (result.type === 'ok' && !confStatesEquivalent(result.membership.config, state)) {
    return error('the restored configuration differs from the one it was restored from');
  }
  return result;
}

/** Equal as sets. */
export function confStatesEquivalent(a: ConfState, b: ConfState): boolean {
  const same = (x: readonly number[], y: readonly number[]): boolean => {
    const left = sorted(new Set(x));
    const right = sorted(new Set(y));
    return left.length === right.length && left.every((id, i) => id === right[i]);
  };
  return (
    a.autoLeave === b.autoLeave &&
    same(a.voters, b.voters) &&
    same(a.votersOutgoing, b.votersOutgoing) &&
    same(a.learners, b.learners) &&
    same(a.learnersNext, b.learnersNext)
  );
}
