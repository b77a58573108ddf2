/**
 * Recovery of a placement service whose majority is lost for good: one member that is left becomes a group of one.
 *
 * What the lost members decided after the last message that reached this one is unknown, and so is whether they told
 * somebody. Hence everything in the log counts as decided, also what was never known to be committed, and whatever must
 * not repeat jumps: ids, timestamps and versions of documents. Everything happens in one batch: a crash before it leaves
 * the member as it was, after it the new group. (The idea is that of tikv/pd's pd-recover and etcd's forced new cluster.)
 */
import { AppError } from '../../base/app-error.ts';
import { encodeRegion } from '../../codec/raft-records.ts';
import type { Engine, WriteBatch } from '../../env/engine.ts';
import { decodeConfChangeV2 } from '../../raft/conf-change.ts';
import { type Entry, EntryType } from '../../raft/types.ts';
import type { PdCommand, PdRecordKey, PdState } from '../state/pd-state.ts';
import { regionKey } from '../state/record.ts';
import { writeRecord } from '../state/state-log.ts';
import { inspectDisk, loadGroup } from './group-disk.ts';
import {
  APPLIED_KEY,
  MEMBERS_KEY,
  RAFT_KEY,
  decodeGroupEntry,
  encodeApplied,
  encodeHardState,
  logKey,
} from './group-record.ts';
import {
  type Member,
  type Membership,
  encodeMembership,
  findMember,
  foundingMembership,
  updatedMembership,
} from './membership.ts';

/** How far ids jump unless told otherwise: far more than the lost members can have given out meanwhile. */
export const RECOVERY_IDS_AHEAD_DEFAULT = 1_000_000_000;
/** A window of ids is a thousand by default; fewer than some windows would be no safety. */
export const RECOVERY_IDS_AHEAD_MIN = 10_000;
export const RECOVERY_IDS_AHEAD_MAX: number = 2 ** 48;
/** How far timestamps jump unless told otherwise; covers reservations and clocks that differ by minutes. */
export const RECOVERY_TIME_AHEAD_MS_DEFAULT: number = 10 * 60_000;
export const RECOVERY_TIME_AHEAD_MS_MIN = 10_000;
export const RECOVERY_TIME_AHEAD_MS_MAX: number = 30 * 24 * 3_600_000;
/** Versions of documents jump by this, so that nobody holds a version that will be given again. */
export const RECOVERY_VERSIONS_AHEAD = 1_000_000;

/** The directory is not one a placement service can be recovered from. */
export class RecoveryRefusedError extends AppError {
  constructor(message: string, hint: string) {
    super('Refused', message, { hint });
  }
}

export interface RecoveryOptions {
  /** Unix time now, ms. */
  readonly wallMs: number;
  readonly idsAhead: number;
  readonly timeAheadMs: number;
  /** Only say what would change. */
  readonly isDryRun: boolean;
}

/** What was changed, or would be. */
export interface Recovery {
  readonly clusterId: bigint;
  readonly survivor: Member;
  /** Members that can never come back. */
  readonly lost: readonly Member[];
  /** Entries of the log that nobody knew to be committed and that count now. */
  readonly unconfirmedEntries: number;
  /** All ids given out from now on are larger. */
  readonly ids: { readonly before: number; readonly after: number };
  /** All timestamps given out from now on are later; Unix time, ms. */
  readonly timeMs: { readonly before: number; readonly after: number };
  readonly documentVersion: { readonly before: number; readonly after: number };
}

/**
 * Makes a member a group of one. The engine stays open.
 * @throws RecoveryRefusedError, EngineOpenError, RecordError
 */
export async function recoverGroup(engine: Engine, options: RecoveryOptions): Promise<Recovery> {
  const content = await inspectDisk(engine);
  if (content.type === 'empty') {
    throw new RecoveryRefusedError('the directory is empty', 'name the directory of a member that is left');
  }
  if (content.type === 'ungrouped') {
    throw new RecoveryRefusedError('this member has always been alone', 'start it as usual');
  }
  const saved = await loadGroup(engine);
  const before = saved.membership;
  const survivor = findMember(before, content.ident.memberId);
  if (before.members.length === 0) {
    throw new RecoveryRefusedError(
      'this member was still joining and has no state yet',
      'recover from another member that is left',
    );
  }
  if (survivor === undefined) {
    throw new RecoveryRefusedError(
      `the member ${content.ident.name} was removed from its cluster`,
      'recover from a member that belongs to it',
    );
  }
  if (saved.state.meta === undefined) {
    throw new RecoveryRefusedError('the cluster was never founded', 'remove the directory and found it again');
  }
  const batch = engine.createBatch();
  const { state } = saved;
  const idsBefore = state.idLimit;
  const replayed = replay(batch, state, before, saved.entries, saved.applied.index);
  const membership: Membership = {
    ...foundingMembership(findMember(replayed, survivor.id) ?? survivor),
    lastId: replayed.lastId,
    version: replayed.version + 1,
  };
  const lost = lostMembers(before, survivor.id);
  if (lost.length === 0) {
    throw new RecoveryRefusedError('this member is alone: no other can be lost', 'start it as usual');
  }
  const ids = { before: idsBefore, after: Math.max(state.idLimit, largestStoreId(state)) + options.idsAhead };
  const timeMs = {
    before: state.tsoSavedMs,
    after: Math.max(state.tsoSavedMs, Math.floor(options.wallMs)) + options.timeAheadMs,
  };
  const documentVersion = {
    before: state.resourceVersion,
    after: state.resourceVersion + RECOVERY_VERSIONS_AHEAD,
  };
  const jumps: readonly PdCommand[] = [
    { type: 'extend-ids', expected: state.idLimit, limit: ids.after },
    { type: 'extend-tso', savedMs: timeMs.after },
    {
      type: 'change-resources',
      change: { baseVersion: documentVersion.before, version: documentVersion.after, puts: [], deletes: [] },
    },
  ];
  for (const command of jumps) {
    carryOut(batch, state, command);
  }
  const last = saved.entries.at(-1) ?? saved.truncated;
  const position = last.index > saved.applied.index ? { index: last.index, term: last.term } : saved.applied;
  for (const entry of saved.entries) {
    batch.del(logKey(entry.index));
  }
  batch.put(MEMBERS_KEY, encodeMembership(membership));
  batch.put(APPLIED_KEY, encodeApplied({ applied: position, truncated: position }));
  batch.put(
    RAFT_KEY,
    encodeHardState({
      // A vote of the old group counts for nothing in the new one, and its terms are over.
      term: Math.max(saved.hardState.term, position.term) + 1,
      vote: 0,
      commit: position.index,
    }),
  );
  if (!options.isDryRun) {
    await engine.write(batch);
  }
  const known = Math.max(saved.hardState.commit, saved.applied.index);
  return {
    clusterId: content.clusterId,
    survivor,
    lost,
    unconfirmedEntries: saved.entries.filter(({ index }) => index > known).length,
    ids,
    timeMs,
    documentVersion,
  };
}

/** Carries out what the log holds behind the applied position. Who belongs to the group is decided by the caller. */
function replay(
  batch: WriteBatch,
  state: PdState,
  before: Membership,
  entries: readonly Entry[],
  applied: number,
): Membership {
  let membership = before;
  for (const entry of entries) {
    if (entry.index <= applied || entry.data.length === 0) {
      continue;
    }
    if (entry.type !== EntryType.Normal) {
      const given = decodeConfChangeV2(entry.data).changes.map(({ nodeId }) => nodeId);
      // Ids of members are never given again, not even those of a change that may not have been made.
      membership = { ...membership, lastId: Math.max(membership.lastId, ...given) };
      continue;
    }
    const { term, command } = decodeGroupEntry(entry.data);
    if (term !== entry.term) {
      continue;
    }
    switch (command.type) {
      case 'command':
        carryOut(batch, state, command.command);
        break;
      case 'regions':
        for (const region of command.changes.saves) {
          batch.put(regionKey(region.id), encodeRegion(region));
        }
        for (const id of command.changes.deletes) {
          batch.del(regionKey(id));
        }
        break;
      case 'member':
        membership = updatedMembership(membership, command.member);
        break;
    }
  }
  return membership;
}

function carryOut(batch: WriteBatch, state: PdState, command: PdCommand): void {
  const touched: PdRecordKey[] = [];
  state.apply(command, touched);
  for (const key of touched) {
    writeRecord(state, key, batch);
  }
}

const lostMembers = ({ members }: Membership, survivor: number): readonly Member[] =>
  members.filter(({ id }) => id !== survivor);

function largestStoreId(state: PdState): number {
  let largest = 0;
  for (const id of state.stores.keys()) {
    largest = Math.max(largest, id);
  }
  return largest;
}
