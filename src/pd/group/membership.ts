/**
 * Who belongs to the group of the placement service. Part of the replicated state: it changes only when an entry is
 * applied, in the same way on every member.
 */
import { assert } from '../../base/assert.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldInt } from '../../codec/record.ts';
import { type AuditInput, packAudit, unpackAudit } from '../state/audit-log.ts';
import { ConfChangeType, type ConfChangeV2, type ConfState } from '../../raft/types.ts';

/** Names of members: what people type, and what file systems and shells leave alone. */
export const MEMBER_NAME_PATTERN: RegExp = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;
/** More members make every change slower and nothing safer. */
export const MEMBERS_MAX = 9;

export interface Member {
  /** Never 0, never given to another member again. */
  readonly id: number;
  /** Unique, for people. */
  readonly name: string;
  /** `host:port` for clients, stores and the other members. */
  readonly address: string;
}

export interface Membership {
  /** In the order of their ids. */
  readonly members: readonly Member[];
  readonly confState: ConfState;
  /** The highest id ever given; ids up to it that are not in `members` were removed. */
  readonly lastId: number;
  /** Changes since the group was founded. */
  readonly version: number;
}

export const NO_CONF_STATE: ConfState = Object.freeze({
  voters: Object.freeze([]),
  votersOutgoing: Object.freeze([]),
  learners: Object.freeze([]),
  learnersNext: Object.freeze([]),
  autoLeave: false,
});

/** What a member that has just joined knows. */
export const EMPTY_MEMBERSHIP: Membership = Object.freeze({
  members: Object.freeze([]),
  confState: NO_CONF_STATE,
  lastId: 0,
  version: 0,
});

/** The group of one that founds a cluster. */
export const foundingMembership = (member: Member): Membership => ({
  members: [member],
  confState: { ...NO_CONF_STATE, voters: [member.id] },
  lastId: member.id,
  version: 0,
});

export const findMember = (membership: Membership, id: number): Member | undefined =>
  membership.members.find((member) => member.id === id);

export const memberNamed = (membership: Membership, name: string): Member | undefined =>
  membership.members.find((member) => member.name === name);

export const isVoter = (membership: Membership, id: number): boolean => membership.confState.voters.includes(id);

/** Whether `id` once belonged to the group and was removed. */
export const wasRemoved = (membership: Membership, id: number): boolean =>
  id <= membership.lastId && findMember(membership, id) === undefined;

/** Whether this member alone is the majority, now and in any configuration on its way. */
export const isSoleVoter = ({ confState }: Membership, id: number): boolean =>
  confState.voters.length === 1 && confState.voters[0] === id && confState.votersOutgoing.length === 0;

const byId = (a: Member, b: Member): number => a.id - b.id;

/** The membership after a committed change. @param confState what the core says the change led to */
export function changedMembership(before: Membership, change: ConfChangeV2, confState: ConfState): Membership {
  let { members, lastId } = before;
  for (const { type, nodeId } of change.changes) {
    switch (type) {
      case ConfChangeType.RemoveNode:
        members = members.filter((member) => member.id !== nodeId);
        break;
      case ConfChangeType.AddLearnerNode: {
        const joining = decodeMember(change.context);
        assert(joining.id === nodeId, 'a joining member is described by its change', { id: nodeId });
        members = [...members.filter((member) => member.id !== nodeId), joining].sort(byId);
        lastId = Math.max(lastId, nodeId);
        break;
      }
      case ConfChangeType.AddNode:
        assert(
          members.some((member) => member.id === nodeId),
          'only a member is promoted',
          { id: nodeId },
        );
        break;
      case ConfChangeType.UpdateNode:
        break;
    }
  }
  return { members, confState, lastId, version: before.version + 1 };
}

/** The membership after a member announced another name or address. Unknown ids change nothing. */
export const updatedMembership = (before: Membership, updated: Member): Membership => ({
  ...before,
  members: before.members.map((member) => (member.id === updated.id ? updated : member)),
  version: before.version + 1,
});

/** What people are told of a change; undefined if it does not say. */
export function auditOfChange({ changes: [first], context }: ConfChangeV2): AuditInput | undefined {
  if (context.length === 0 || first === undefined) {
    return undefined;
  }
  const isRemoval = first.type === ConfChangeType.RemoveNode;
  const { fields } = decodeRecord(context, 'membership change', VERSION, isRemoval ? 1 : 3);
  const packed = isRemoval ? fields[0] : fields[3];
  return packed === undefined ? undefined : unpackAudit(packed);
}

/** What a removal carries. */
export const encodeRemoval = (audit: AuditInput): Uint8Array => encodeRecord(VERSION, [packAudit(audit)]);

// ------------------------------------------------------------------------------------------------------- records

const VERSION = 1;

function fieldText(value: unknown, what: string): string {
  if (typeof value !== 'string') {
    throw new RecordError(`${what} is not text`);
  }
  return value;
}

const packMember = ({ id, name, address }: Member): unknown[] => [id, name, address];

function unpackMember(fields: readonly unknown[]): Member {
  return {
    id: fieldInt(fields[0], 'member id'),
    name: fieldText(fields[1], 'member name'),
    address: fieldText(fields[2], 'member address'),
  };
}

/** @param audit what people are told of its joining; part of the change alone */
export const encodeMember = (member: Member, audit?: AuditInput): Uint8Array =>
  encodeRecord(VERSION, [...packMember(member), ...(audit === undefined ? [] : [packAudit(audit)])]);

export const decodeMember = (bytes: Uint8Array): Member =>
  unpackMember(decodeRecord(bytes, 'member', VERSION, 3).fields);

export function encodeMembership({ members, confState, lastId, version }: Membership): Uint8Array {
  const { voters, votersOutgoing, learners, learnersNext, autoLeave } = confState;
  return encodeRecord(VERSION, [
    members.map(packMember),
    voters,
    votersOutgoing,
    learners,
    learnersNext,
    autoLeave,
    lastId,
    // Absent in records of older programs.
    ...(version === 0 ? [] : [version]),
  ]);
}

export function decodeMembership(bytes: Uint8Array): Membership {
  const { fields } = decodeRecord(bytes, 'membership', VERSION, 7);
  const ids = (value: unknown, what: string): number[] => fieldArray(value, what).map((id) => fieldInt(id, what));
  return {
    members: fieldArray(fields[0], 'members').map((member) => unpackMember(fieldArray(member, 'member'))),
    confState: {
      voters: ids(fields[1], 'voters'),
      votersOutgoing: ids(fields[2], 'outgoing voters'),
      learners: ids(fields[3], 'learners'),
      learnersNext: ids(fields[4], 'next learners'),
      autoLeave: fields[5] === true,
    },
    lastId: fieldInt(fields[6], 'last member id'),
    version: fields[7] === undefined ? 0 : fieldInt(fields[7], 'version of the membership'),
  };
}
