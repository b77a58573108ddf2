/**
 * Whether a change of the group's members is possible now, as pure functions of what the leader sees. One change at a
 * time; a new member is a learner until it has caught up; nothing is changed that would leave fewer answering voters
 * than a majority.
 */
import type { ProgressView } from '../../raft/ready.ts';
import { ConfChangeTransition, ConfChangeType, type ConfChangeV2 } from '../../raft/types.ts';
import { EMPTY_BYTES } from '../../base/bytes.ts';
import { type Author, auditOf } from '../cluster/events.ts';
import { type Refusal, type Result, ok, refuse, refused, versionConflict } from '../schedule/verdict.ts';
import type { AuditInput } from '../state/audit-log.ts';
import {
  MEMBERS_MAX,
  MEMBER_NAME_PATTERN,
  type Member,
  type Membership,
  encodeMember,
  encodeRemoval,
  findMember,
  isVoter,
  memberNamed,
} from './membership.ts';

/** What the leader knows of its group. */
export interface GroupView {
  /** The leader itself. */
  readonly self: number;
  readonly membership: Membership;
  readonly progress: readonly ProgressView[];
  readonly commitIndex: number;
  /** A change is on its way. */
  readonly isChanging: boolean;
  /** Whether a member was heard from within the last election timeout. */
  readonly isAnswering: (id: number) => boolean;
}

/** A learner that lags by more entries is not promoted, and nobody that lags by more takes over the lead. */
export const LAG_MAX = 128;

export const describeChange = (change: ConfChangeV2): string =>
  change.changes.map(({ type, nodeId }) => `${CHANGE_WORDS[type]} ${nodeId}`).join(', ');

const CHANGE_WORDS: Readonly<Record<ConfChangeType, string>> = {
  [ConfChangeType.AddNode]: 'promote',
  [ConfChangeType.RemoveNode]: 'remove',
  [ConfChangeType.UpdateNode]: 'update',
  [ConfChangeType.AddLearnerNode]: 'add',
};

const single = (type: ConfChangeType, nodeId: number, context: Uint8Array = EMPTY_BYTES): ConfChangeV2 => ({
  transition: ConfChangeTransition.Auto,
  changes: [{ type, nodeId }],
  context,
});

const isCaughtUp = (view: GroupView, id: number): boolean =>
  view.isAnswering(id) &&
  view.progress.some(({ id: each, match }) => each === id && match > 0 && match + LAG_MAX >= view.commitIndex);

const changing = (): Refusal =>
  refuse('MembershipChanging', 'another change of the members is in progress', 'try again in a moment');

/** A change, and what people are told of it. */
interface AuditedChange {
  readonly change: ConfChangeV2;
  readonly audit: AuditInput;
}

export type JoinPlan =
  | ({ readonly type: 'add'; readonly member: Member } & AuditedChange)
  /** A learner of this name never came up: it goes first, because its id must not be used again. */
  | ({ readonly type: 'replace'; readonly old: Member } & AuditedChange);

/** Who asks for a change of the members, when, and on which version of the membership it was made. */
export interface MemberChangeOptions {
  readonly author?: Author;
  /** Refused unless the membership has this version. */
  readonly expectVersion?: number;
}

const removal = (id: number, audit: AuditInput): AuditedChange => ({
  change: single(ConfChangeType.RemoveNode, id, encodeRemoval(audit)),
  audit,
});

const removedAudit = ({ name }: Member, author: Author | undefined, wallMs: number): AuditInput =>
  auditOf({ type: 'member-removed', message: `the placement member ${name} was removed`, ...author }, wallMs);

/** Why a change that was made for another membership is not carried out. */
const membershipConflict = ({ membership }: GroupView, expected: number | undefined): Refusal | undefined =>
  expected === undefined || expected === membership.version
    ? undefined
    : versionConflict('the membership of the placement service', membership.version, expected);

/** Admits a member with an empty directory. */
export function planJoin(
  view: GroupView,
  joining: { readonly name: string; readonly address: string },
  wallMs = 0,
): Result<JoinPlan> {
  const { membership } = view;
  const { name, address } = joining;
  if (!MEMBER_NAME_PATTERN.test(name)) {
    return refused(
      refuse(
        'InvalidArgument',
        `"${name}" is no name for a member`,
        'use letters, digits, "-", "_" and ".", at most 63',
      ),
    );
  }
  if (address === '') {
    return refused(refuse('InvalidArgument', 'a member needs an address', 'give the address the others dial'));
  }
  const named = memberNamed(membership, name);
  if (named !== undefined && isVoter(membership, named.id)) {
    return refused(
      refuse(
        'MemberExists',
        `member ${name} belongs to the cluster already, and the directory that wants to join as ${name} is empty`,
        `if its data is lost, remove it first: braid ctl pd member remove ${name}`,
        { member: name, member_id: named.id },
      ),
    );
  }
  const neighbour = membership.members.find((member) => member.address === address && member.name !== name);
  if (neighbour !== undefined) {
    return refused(
      refuse(
        'MemberExists',
        `member ${neighbour.name} has the address ${address}`,
        'give every member an address of its own',
        {
          member: neighbour.name,
          member_id: neighbour.id,
        },
      ),
    );
  }
  if (view.isChanging) {
    return refused(changing());
  }
  if (named !== undefined) {
    const audit = removedAudit(named, { actor: '', reason: 'it never came up, and joins again' }, wallMs);
    return ok({ type: 'replace', old: named, ...removal(named.id, audit) });
  }
  if (membership.members.length >= MEMBERS_MAX) {
    return refused(
      refuse('TooManyMembers', `the cluster has ${MEMBERS_MAX} placement members already`, 'remove one first'),
    );
  }
  const member: Member = { id: membership.lastId + 1, name, address };
  const message = `the placement member ${name} joined at ${address}`;
  const audit = auditOf({ type: 'member-added', message }, wallMs);
  return ok({
    type: 'add',
    member,
    audit,
    change: single(ConfChangeType.AddLearnerNode, member.id, encodeMember(member, audit)),
  });
}

/** A learner that has caught up becomes a voter. Undefined if there is nothing to do now. */
export function planPromotion(view: GroupView): ConfChangeV2 | undefined {
  if (view.isChanging) {
    return undefined;
  }
  const ready = view.membership.confState.learners.find((id) => isCaughtUp(view, id));
  return ready === undefined ? undefined : single(ConfChangeType.AddNode, ready);
}

/** @param which name or id */
export function findWhich(membership: Membership, which: string): Result<Member> {
  const member =
    memberNamed(membership, which) ?? (/^\d+$/u.test(which) ? findMember(membership, Number(which)) : undefined);
  return member === undefined
    ? refused(
        refuse('MemberNotFound', `there is no placement member ${which}`, 'list them: braid ctl pd member list', {
          member: which,
        }),
      )
    : ok(member);
}

export function planRemoval(
  view: GroupView,
  which: string,
  options: MemberChangeOptions = {},
  wallMs = 0,
): Result<{ readonly member: Member } & AuditedChange> {
  const { membership } = view;
  const conflict = membershipConflict(view, options.expectVersion);
  if (conflict !== undefined) {
    return refused(conflict);
  }
  const found = findWhich(membership, which);
  if (found.type === 'refused') {
    return found;
  }
  const { id, name } = found.value;
  if (id === view.self) {
    return refused(
      membership.members.length === 1
        ? refuse('WouldLoseQuorum', `${name} is the only placement member`, 'join another one first', { member: name })
        : refuse('MemberIsLeader', `${name} leads`, 'let another one lead first: braid ctl pd member transfer-leader', {
            member: name,
          }),
    );
  }
  if (view.isChanging) {
    return refused(changing());
  }
  if (isVoter(membership, id)) {
    const left = membership.confState.voters.filter((voter) => voter !== id);
    const answering = left.filter((voter) => view.isAnswering(voter));
    const needed = Math.floor(left.length / 2) + 1;
    if (answering.length < needed) {
      const silent = left.filter((voter) => !answering.includes(voter));
      return refused(
        refuse(
          'WouldLoseQuorum',
          `without ${name} only ${answering.length} of ${left.length} members would answer, ${needed} are needed`,
          `bring back or remove ${silent.map((voter) => findMember(membership, voter)?.name ?? voter).join(', ')} first`,
          { member: name, answering: answering.length, needed },
        ),
      );
    }
  }
  return ok({ member: found.value, ...removal(id, removedAudit(found.value, options.author, wallMs)) });
}

/** Chooses who leads next. @param which name or id; undefined takes the voter that is furthest */
export function planTransfer(
  view: GroupView,
  which: string | undefined,
  options: MemberChangeOptions = {},
): Result<Member> {
  const { membership } = view;
  const conflict = membershipConflict(view, options.expectVersion);
  if (conflict !== undefined) {
    return refused(conflict);
  }
  if (which !== undefined) {
    const found = findWhich(membership, which);
    if (found.type === 'refused') {
      return found;
    }
    const { id, name } = found.value;
    if (id === view.self) {
      return found;
    }
    if (!isVoter(membership, id) || !isCaughtUp(view, id)) {
      return refused(
        refuse(
          'MemberNotReady',
          isVoter(membership, id) ? `${name} is silent or lags behind` : `${name} is not a voter yet`,
          'look at the members: braid ctl pd member list',
          { member: name },
        ),
      );
    }
    return found;
  }
  let best: ProgressView | undefined;
  for (const candidate of view.progress) {
    if (
      candidate.id !== view.self &&
      isVoter(membership, candidate.id) &&
      isCaughtUp(view, candidate.id) &&
      (best === undefined || candidate.match > best.match)
    ) {
      best = candidate;
    }
  }
  const member = best === undefined ? undefined : findMember(membership, best.id);
  return member === undefined
    ? refused(
        refuse(
          'MemberNotReady',
          'no other member could lead at the moment',
          'look at the members: braid ctl pd member list',
        ),
      )
    : ok(member);
}
