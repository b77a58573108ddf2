/**
 * What a member keeps on disk besides the state itself, and what its log entries hold.
 *
 * ```text
 * 'group/ident'        who this member is; written once, proves that the directory belongs to a group
 * 'group/raft'         term, vote and commit index
 * 'group/applied'      last applied entry, and where the log begins
 * 'group/log/' index   log entries
 * 'pd/members'         the membership; like everything below 'pd/' part of the state and of its snapshots
 * ```
 */
import { concatBytes, prefixEnd, utf8 } from '../../base/bytes.ts';
import type { KeyRange } from '../../base/key-range.ts';
import { decodeRegion, encodeRegion } from '../../codec/raft-records.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldBytes, fieldInt } from '../../codec/record.ts';
import { type RegionId, regionId } from '../../base/ids.ts';
import type { Region } from '../../meta/region.ts';
import type { HardState } from '../../raft/types.ts';
import { decodeCommand, encodeCommand } from '../state/command-record.ts';
import type { PdCommand } from '../state/pd-state.ts';
import { type Member, decodeMember, encodeMember } from './membership.ts';

const VERSION = 1;

export const IDENT_KEY: Uint8Array = utf8('group/ident');
export const RAFT_KEY: Uint8Array = utf8('group/raft');
export const APPLIED_KEY: Uint8Array = utf8('group/applied');
export const MEMBERS_KEY: Uint8Array = utf8('pd/members');

const LOG_PREFIX = utf8('group/log/');
const STATE_PREFIX = utf8('pd/');

export const LOG_KEYS: KeyRange = { start: LOG_PREFIX, end: prefixEnd(LOG_PREFIX) };
/** Everything that is replicated. */
export const STATE_KEYS: KeyRange = { start: STATE_PREFIX, end: prefixEnd(STATE_PREFIX) };

export function logKey(index: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(index));
  return concatBytes(LOG_PREFIX, out);
}

/** Who a directory belongs to. Only the name may change. */
export interface GroupIdent {
  readonly memberId: number;
  readonly name: string;
  /** 0 in the directory of the founder: the cluster id is the first thing its log decides. */
  readonly clusterId: bigint;
}

export const encodeIdent = ({ memberId, name, clusterId }: GroupIdent): Uint8Array =>
  encodeRecord(VERSION, [memberId, name, String(clusterId)]);

export function decodeIdent(bytes: Uint8Array): GroupIdent {
  const { fields } = decodeRecord(bytes, 'member identity', VERSION, 3);
  const [id, name, clusterId] = fields;
  if (typeof name !== 'string' || typeof clusterId !== 'string' || !/^\d+$/u.test(clusterId)) {
    throw new RecordError('the identity of the member is damaged');
  }
  return { memberId: fieldInt(id, 'member id'), name, clusterId: BigInt(clusterId) };
}

export const encodeHardState = ({ term, vote, commit }: HardState): Uint8Array =>
  encodeRecord(VERSION, [term, vote, commit]);

export function decodeHardState(bytes: Uint8Array): HardState {
  const { fields } = decodeRecord(bytes, 'raft state', VERSION, 3);
  return {
    term: fieldInt(fields[0], 'term'),
    vote: fieldInt(fields[1], 'vote'),
    commit: fieldInt(fields[2], 'commit'),
  };
}

export interface LogPosition {
  readonly index: number;
  readonly term: number;
}

export interface AppliedRecord {
  readonly applied: LogPosition;
  /** The entry before the first one kept. */
  readonly truncated: LogPosition;
}

export const encodeApplied = ({ applied, truncated }: AppliedRecord): Uint8Array =>
  encodeRecord(VERSION, [applied.index, applied.term, truncated.index, truncated.term]);

export function decodeApplied(bytes: Uint8Array): AppliedRecord {
  const { fields } = decodeRecord(bytes, 'applied position', VERSION, 4);
  return {
    applied: { index: fieldInt(fields[0], 'applied index'), term: fieldInt(fields[1], 'applied term') },
    truncated: { index: fieldInt(fields[2], 'truncated index'), term: fieldInt(fields[3], 'truncated term') },
  };
}

// ------------------------------------------------------------------------------------------------------- log entries

export interface RegionChanges {
  readonly saves: readonly Region[];
  readonly deletes: readonly RegionId[];
}

/** What a normal entry asks for. */
export type GroupCommand =
  | { readonly type: 'command'; readonly command: PdCommand }
  /** Region descriptors for whoever leads next. */
  | { readonly type: 'regions'; readonly changes: RegionChanges }
  /** A member announces a new address. */
  | { readonly type: 'member'; readonly member: Member };

export interface GroupEntry {
  /** Term of the leader that proposed it. An entry of another term has no effect. */
  readonly term: number;
  readonly command: GroupCommand;
}

const KIND_COMMAND = 1;
const KIND_REGIONS = 2;
const KIND_MEMBER = 3;

export function encodeGroupEntry({ term, command }: GroupEntry): Uint8Array {
  switch (command.type) {
    case 'command':
      return encodeRecord(VERSION, [KIND_COMMAND, term, encodeCommand(command.command)]);
    case 'regions':
      return encodeRecord(VERSION, [
        KIND_REGIONS,
        term,
        command.changes.saves.map(encodeRegion),
        command.changes.deletes,
      ]);
    case 'member':
      return encodeRecord(VERSION, [KIND_MEMBER, term, encodeMember(command.member)]);
  }
}

/** @throws RecordError for entries that only a newer program knows */
export function decodeGroupEntry(bytes: Uint8Array): GroupEntry {
  const { fields: f } = decodeRecord(bytes, 'entry of the placement log', VERSION, 3);
  const term = fieldInt(f[1], 'term of the proposer');
  switch (f[0]) {
    case KIND_COMMAND:
      return { term, command: { type: 'command', command: decodeCommand(fieldBytes(f[2], 'command')) } };
    case KIND_REGIONS:
      return {
        term,
        command: {
          type: 'regions',
          changes: {
            saves: fieldArray(f[2], 'regions').map((region) => decodeRegion(fieldBytes(region, 'region'))),
            deletes: fieldArray(f[3], 'deleted regions').map((id) => regionId(fieldInt(id, 'region id'))),
          },
        },
      };
    case KIND_MEMBER:
      return { term, command: { type: 'member', member: decodeMember(fieldBytes(f[2], 'member')) } };
    default:
      throw new RecordError(`the placement log holds an entry of the unknown kind ${String(f[0])}`);
  }
}
