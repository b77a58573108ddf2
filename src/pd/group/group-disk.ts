/**
 * The database of one member as a whole: how it is founded, taken over from an older program, joined, loaded, copied
 * into a snapshot and replaced by one. Everything here is one atomic batch or only reads.
 */
import { EMPTY_BYTES, keyAfter } from '../../base/bytes.ts';
import type { KeyRange } from '../../base/key-range.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldBytes } from '../../codec/record.ts';
import { type Engine, EngineOpenError, type EngineSnapshot } from '../../env/engine.ts';
import type { Region } from '../../meta/region.ts';
import type { HardState, Snapshot } from '../../raft/types.ts';
import type { PdState } from '../state/pd-state.ts';
import { loadRegions, loadState } from '../state/state-log.ts';
import {
  APPLIED_KEY,
  type GroupIdent,
  IDENT_KEY,
  LOG_KEYS,
  type LogPosition,
  MEMBERS_KEY,
  RAFT_KEY,
  STATE_KEYS,
  decodeApplied,
  decodeHardState,
  decodeIdent,
  encodeApplied,
  encodeHardState,
  encodeIdent,
} from './group-record.ts';
import type { SavedGroup } from './group-fsm.ts';
import { decodeSavedEntries } from './group-storage.ts';
import {
  EMPTY_MEMBERSHIP,
  type Member,
  type Membership,
  decodeMembership,
  encodeMembership,
  foundingMembership,
} from './membership.ts';

const PAGE_MAX = 1_000;
/** Largest state that is sent as a whole. */
export const SNAPSHOT_BYTES_MAX: number = 512 * 1024 * 1024;
const SNAPSHOT_VERSION = 1;

/** A group begins as if a snapshot at this position had been installed: nobody can ask for what was before. */
const FOUNDING_POSITION: LogPosition = Object.freeze({ index: 1, term: 1 });
const NO_POSITION: LogPosition = Object.freeze({ index: 0, term: 0 });

export type DiskContent =
  | { readonly type: 'empty' }
  /** Written by a program that knew no groups: the only member of its cluster. */
  | { readonly type: 'ungrouped'; readonly clusterId: bigint }
  /** `clusterId` is 0 until the first log entry of a new cluster decided it. */
  | { readonly type: 'member'; readonly ident: GroupIdent; readonly clusterId: bigint };

/** @throws EngineOpenError for a database of something else, RecordError */
export async function inspectDisk(engine: Engine): Promise<DiskContent> {
  const saved = await engine.get(IDENT_KEY);
  const { state } = await loadState(engine);
  const clusterId = state.meta?.clusterId ?? 0n;
  if (saved !== undefined) {
    const ident = decodeIdent(saved);
    return { type: 'member', ident, clusterId: clusterId === 0n ? ident.clusterId : clusterId };
  }
  return state.meta === undefined ? { type: 'empty' } : { type: 'ungrouped', clusterId };
}

/** Makes the directory that of a group of one. What it holds already becomes the first state of the group. */
export async function foundGroup(engine: Engine, member: Member, clusterId: bigint): Promise<GroupIdent> {
  const ident: GroupIdent = { memberId: member.id, name: member.name, clusterId };
  const batch = engine.createBatch();
  batch.put(IDENT_KEY, encodeIdent(ident));
  batch.put(MEMBERS_KEY, encodeMembership(foundingMembership(member)));
  batch.put(RAFT_KEY, encodeHardState({ term: FOUNDING_POSITION.term, vote: 0, commit: FOUNDING_POSITION.index }));
  batch.put(APPLIED_KEY, encodeApplied({ applied: FOUNDING_POSITION, truncated: FOUNDING_POSITION }));
  await engine.write(batch);
  return ident;
}

/** Makes an empty directory that of a member the group has admitted; the group will send it everything. */
export async function joinGroup(engine: Engine, ident: GroupIdent): Promise<void> {
  const batch = engine.createBatch();
  batch.put(IDENT_KEY, encodeIdent(ident));
  batch.put(RAFT_KEY, encodeHardState({ term: 0, vote: 0, commit: 0 }));
  batch.put(APPLIED_KEY, encodeApplied({ applied: NO_POSITION, truncated: NO_POSITION }));
  await engine.write(batch);
}

export async function renameMember(engine: Engine, ident: GroupIdent): Promise<void> {
  const batch = engine.createBatch();
  batch.put(IDENT_KEY, encodeIdent(ident));
  await engine.write(batch);
}

/** Everything a restarting member continues with. @throws EngineOpenError, RecordError */
export async function loadGroup(engine: Engine): Promise<SavedGroup> {
  const [raft, applied, members] = await engine.getMany([RAFT_KEY, APPLIED_KEY, MEMBERS_KEY]);
  if (raft === undefined || applied === undefined) {
    throw new EngineOpenError(
      'the data directory of the placement service is incomplete',
      'restore it as a whole, or remove the member and join it again with an empty directory',
    );
  }
  const { state } = await loadState(engine);
  const position = decodeApplied(applied);
  const entries = decodeSavedEntries((await readAll(engine, LOG_KEYS)).map(([, value]) => value));
  return {
    hardState: decodeHardState(raft),
    membership: members === undefined ? EMPTY_MEMBERSHIP : decodeMembership(members),
    applied: position.applied,
    truncated: position.truncated,
    entries,
    state,
  };
}

/** Region descriptors as of the last batch that was written; some may be outdated or overlap. */
export const loadGroupRegions = (engine: Engine): Promise<readonly Region[]> => loadRegions(engine);

// ------------------------------------------------------------------------------------------------------- snapshots

/**
 * The whole replicated state at the position the database is at. Applied position, membership and state are written in
 * the same batches, so one view of the engine shows them together.
 */
export async function makeSnapshot(engine: Engine): Promise<Snapshot | undefined> {
  const view = engine.snapshot();
  try {
    const [applied, members] = await engine.getMany([APPLIED_KEY, MEMBERS_KEY], view);
    if (applied === undefined || members === undefined) {
      return undefined;
    }
    const { index, term } = decodeApplied(applied).applied;
    const { confState } = decodeMembership(members);
    const pairs = await readAll(engine, STATE_KEYS, view);
    const data = encodeRecord(SNAPSHOT_VERSION, [pairs.flat()]);
    return data.length > SNAPSHOT_BYTES_MAX ? undefined : { data, metadata: { index, term, confState } };
  } finally {
    view.close();
  }
}

/** Replaces everything by a snapshot in one batch. A crash before it leaves the old state, after it the new one. */
export async function installSnapshot(
  engine: Engine,
  snapshot: Snapshot,
  hardState: HardState,
): Promise<{ readonly state: PdState; readonly membership: Membership }> {
  const { index, term } = snapshot.metadata;
  const { fields } = decodeRecord(snapshot.data, 'snapshot of the placement service', SNAPSHOT_VERSION, 1);
  const pairs = fieldArray(fields[0], 'snapshot').map((part) => fieldBytes(part, 'a part of a snapshot'));
  if (pairs.length % 2 !== 0) {
    throw new RecordError('a snapshot of the placement service has a key without a value');
  }
  const old = [...(await readAll(engine, STATE_KEYS)), ...(await readAll(engine, LOG_KEYS))];
  const batch = engine.createBatch();
  for (const [key] of old) {
    batch.del(key);
  }
  for (let i = 0; i < pairs.length; i += 2) {
    batch.put(pairs[i] as Uint8Array, pairs[i + 1] as Uint8Array);
  }
  const position = { index, term };
  batch.put(RAFT_KEY, encodeHardState(hardState));
  batch.put(APPLIED_KEY, encodeApplied({ applied: position, truncated: position }));
  await engine.write(batch);
  const members = await engine.get(MEMBERS_KEY);
  const { state } = await loadState(engine);
  return { state, membership: members === undefined ? EMPTY_MEMBERSHIP : decodeMembership(members) };
}

/** The form in which a snapshot without content travels: its data follows on a stream of its own. */
export const withoutData = (snapshot: Snapshot): Snapshot => ({ ...snapshot, data: EMPTY_BYTES });

async function readAll(
  engine: Engine,
  range: KeyRange,
  snapshot?: EngineSnapshot,
): Promise<(readonly [Uint8Array, Uint8Array])[]> {
  const all: (readonly [Uint8Array, Uint8Array])[] = [];
  let { start } = range;
  for (;;) {
    const page = await engine.scan({
      range: { start, end: range.end },
      limit: PAGE_MAX,
      ...(snapshot === undefined ? {} : { snapshot }),
    });
    all.push(...page.entries);
    const last = page.entries.at(-1);
    if (!page.more || last === undefined) {
      return all;
    }
    start = keyAfter(last[0]);
  }
}
