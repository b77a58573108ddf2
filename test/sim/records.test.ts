/** The checks of single log records must fail for each way in which a record may break what the disk promises. */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, regionId, storeId } from '../../src/base/ids.ts';
import { encodeApplyState, encodeRaftLocalState, encodeRegionLocalState } from '../../src/codec/raft-records.ts';
import type { ApplyState, RaftLocalState, RegionLocalState } from '../../src/codec/store-record.ts';
import { applyStateKey, MemoryDisk, raftStateKey, regionStateKey } from '../../src/engine/index.ts';
import type { MemoryDatabase } from '../../src/engine/memory/crash-model.ts';
import { EngineWriteBatch } from '../../src/engine/write-batch.ts';
import type { Region } from '../../src/meta/region.ts';
import { createRng } from '../../src/env/rng.ts';
import { InvariantError, Tally } from './invariants/observed.ts';
import { watchRecords } from './invariants/records.ts';

const STORE = 1;
const REGION = regionId(7);

const raft = (change: Partial<RaftLocalState> = {}): RaftLocalState => ({
  peerId: 70,
  term: 5,
  vote: 71,
  commit: 10,
  lastIndex: 12,
  ...change,
});
const applied = (appliedIndex: number, truncatedIndex = 5): ApplyState => ({
  appliedIndex,
  appliedTerm: 5,
  commitIndex: appliedIndex,
  commitTerm: 5,
  truncatedIndex,
  truncatedTerm: 5,
});
const region = (id: number, start: string, end: string, version = 1, peer = 70): Region => ({
  id: regionId(id),
  range: { start: utf8(start), end: utf8(end) },
  epoch: { version, confVer: 1 },
  peers: [{ id: peerId(peer), storeId: storeId(STORE), role: 'voter' }],
});
const state = (of: Region, name: RegionLocalState['state'] = 'normal'): RegionLocalState => ({
  state: name,
  region: of,
  mergeState: undefined,
});

type Change = (batch: EngineWriteBatch) => void;
const putRaft =
  (value: RaftLocalState): Change =>
  (batch) =>
    batch.put(raftStateKey(REGION), encodeRaftLocalState(value));
const putApplied =
  (value: ApplyState): Change =>
  (batch) =>
    batch.put(applyStateKey(REGION), encodeApplyState(value));
const putState =
  (value: RegionLocalState): Change =>
  (batch) =>
    batch.put(regionStateKey(value.region.id), encodeRegionLocalState(value));
const forgetRaft: Change = (batch) => batch.del(raftStateKey(REGION));

/** The invariants that the records break, one list entry for each record. */
function broken(...records: readonly (readonly Change[])[]): string[] {
  const disk = new MemoryDisk(createRng(1));
  const database: MemoryDatabase = disk.findOrCreate('db', true);
  const found: string[] = [];
  watchRecords(STORE, database, new Tally(), (check) => {
    try {
      check();
    } catch (error) {
      found.push(error instanceof InvariantError ? error.invariant : String(error));
    }
  });
  for (const changes of records) {
    const batch = new EngineWriteBatch();
    for (const change of changes) {
      change(batch);
    }
    database.complete(database.begin([batch], batch.bytes));
  }
  return found;
}

const WHOLE = region(7, '', '');
const HALF = region(7, 'm', '', 2);
const CHILD = region(8, '', 'm', 2, 80);
const START: readonly Change[] = [putState(state(WHOLE)), putRaft(raft()), putApplied(applied(9))];

describe('a log record', () => {
  test('may advance a replica, split it, and bury it', () => {
    expect(
      broken(
        START,
        [putRaft(raft({ commit: 11, lastIndex: 13 })), putApplied(applied(11, 9))],
        [putState(state(HALF)), putState(state(CHILD))],
        [putRaft(raft({ term: 6, vote: 0, lastIndex: 12, commit: 11 }))],
        [putState(state(HALF, 'tombstone')), forgetRaft],
        [putState(state(region(7, 'm', '', 3, 75)))],
      ),
    ).toEqual([]);
  });

  test('does not change or forget a vote or a term', () => {
    expect(broken(START, [putRaft(raft({ vote: 72 }))])).toEqual(['P1']);
    expect(broken(START, [putRaft(raft({ vote: 0 }))])).toEqual(['P1']);
    expect(broken(START, [putRaft(raft({ term: 4, vote: 0 }))])).toEqual(['P1']);
    expect(broken(START, [forgetRaft])).toEqual(['P1']);
    expect(broken(START, [putRaft(raft({ peerId: 69 }))])).toEqual(['I4']);
  });

  test('does not take positions back', () => {
    expect(broken(START, [putApplied(applied(8))])).toEqual(['R5']);
    expect(broken(START, [putApplied(applied(9, 4))])).toEqual(['R5']);
    expect(broken(START, [putRaft(raft({ commit: 9 }))])).toEqual(['R5']);
    expect(broken(START, [putState(state(region(7, '', '', 0)))])).toEqual(['I12']);
  });

  test('brings nobody back', () => {
    const buried: readonly Change[] = [putState(state(WHOLE, 'tombstone')), forgetRaft];
    expect(broken(START, buried, [putState(state(WHOLE))])).toEqual(['I4']);
  });

  test('leaves no two owners of a key', () => {
    expect(broken(START, [putState(state(CHILD))], [putState(state(HALF))])).toEqual(['I2']);
  });
});
