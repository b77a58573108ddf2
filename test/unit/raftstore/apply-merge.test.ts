import { describe, expect, it } from 'vitest';
import { regionId } from '../../../src/base/ids.ts';
import type { AdminCommand } from '../../../src/codec/command.ts';
import type { MergeState } from '../../../src/codec/store-record.ts';
import type { Region, RegionEpoch } from '../../../src/meta/region.ts';
import { EntryType, type Entry } from '../../../src/raft/types.ts';
import type { CatchUpLogs } from '../../../src/raftstore/msg.ts';
import {
  Aborted,
  adminEntry,
  FRESH,
  plain,
  put,
  sketchRegion,
  StoreHarness,
  writeEntry,
} from '../../support/store-harness.ts';

const EPOCH = { confVer: 1, version: 1 };
const MERGING_EPOCH = { confVer: 2, version: 2 };
/** Source on the right, target on the left. */
const source = sketchRegion({ id: 2, start: 'm', end: 'y' });
const target = sketchRegion({ id: 1, start: 'b', end: 'm', epoch: { confVer: 3, version: 4 } });
const merging: Region = { ...source, epoch: MERGING_EPOCH };

const prepare = (index: number, minIndex = 6, epoch: RegionEpoch = EPOCH): Entry =>
  adminEntry(index, epoch, { type: 'prepare-merge', minIndex, target });
const rollback = (index: number, commit: number, epoch: RegionEpoch = MERGING_EPOCH): Entry =>
  adminEntry(index, epoch, { type: 'rollback-merge', commit });
const commitMerge = (
  index: number,
  more: Partial<Extract<AdminCommand, { type: 'commit-merge' }>> = {},
  epoch: RegionEpoch = target.epoch,
): Entry => adminEntry(index, epoch, { type: 'commit-merge', source: merging, commit: 6, entries: [], ...more });
const compact = (at: number, index: number): Entry => adminEntry(at, EPOCH, { type: 'compact-log', index, term: 6 });

async function store(): Promise<StoreHarness> {
  const s = await StoreHarness.open();
  await s.seed(source);
  await s.seed(target);
  s.start(2);
  s.start(1);
  return s;
}

/** A store whose source has applied PrepareMerge at index 6. */
async function prepared(): Promise<StoreHarness> {
  const s = await store();
  s.apply(2, [prepare(6)]);
  await s.run();
  return s;
}

const catchUpOf = (s: StoreHarness): CatchUpLogs => {
  const requests = s.messages(2, 'catch-up-logs');
  const last = requests[requests.length - 1];
  if (last === undefined) {
    throw new Error('the source was not asked to catch up');
  }
  return last.request;
};

describe('PrepareMerge', () => {
  it('freezes the source: merging on disk, both counters up, nothing behind it has an effect', async () => {
    const s = await store();
    const state: MergeState = { minIndex: 6, target, commit: 7 };
    const outcomes = s.apply(2, [
      writeEntry(6, EPOCH, [put('n', '1')]),
      prepare(7),
      writeEntry(8, EPOCH, [put('n', '2')]),
      prepare(9),
      adminEntry(10, EPOCH, { type: 'batch-split', children: [] }),
    ]);
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied', 'admin-applied', 'refused', 'refused', 'refused']);
    expect(s.stateOf(2)).toEqual({ state: 'merging', region: merging, mergeState: state });
    expect(plain(s.execResults(2, 'prepare-merge'))).toEqual([{ type: 'prepare-merge', region: merging, state }]);
    expect(s.valueOf('n')).toBe('1');
    expect(s.applyStateOf(2)?.appliedIndex).toBe(10);
  });

  it('stops the store when an entry the merge needs is compacted already', async () => {
    const s = await StoreHarness.open();
    await s.seed(source, { applyState: { ...FRESH, appliedIndex: 9, commitIndex: 9, truncatedIndex: 8 } });
    s.start(2);
    s.apply(2, [prepare(10, 8)]);
    expect(() => s.round()).toThrow(Aborted);
    const fine = await StoreHarness.open();
    await fine.seed(source, { applyState: { ...FRESH, appliedIndex: 9, commitIndex: 9, truncatedIndex: 8 } });
    fine.start(2);
    fine.apply(2, [prepare(10, 9)]);
    await fine.run();
    expect(fine.stateOf(2)?.state).toBe('merging');
  });

  it('suspends log compaction, also after a restart', async () => {
    const s = await store();
    s.apply(2, [writeEntry(6, EPOCH, []), writeEntry(7, EPOCH, []), prepare(8), compact(9, 8)]);
    await s.run();
    expect(s.applyStateOf(2)).toMatchObject({ appliedIndex: 9, truncatedIndex: 5 });
    const again = await s.restart();
    again.start(2);
    const outcomes = again.apply(2, [compact(10, 8)]);
    await again.run();
    expect(outcomes[0]?.type).toBe('admin-applied');
    expect(again.applyStateOf(2)).toMatchObject({ appliedIndex: 10, truncatedIndex: 5 });
    expect(again.execResults(2, 'compact-log')).toEqual([]);
  });

  it('serves no snapshot while merging', async () => {
    const s = await prepared();
    s.toApply(regionId(2), { type: 'gen-snapshot', requestId: 1, toPeer: 22 });
    await s.run();
    expect(s.messages(2, 'snapshot-generated')).toEqual([
      { type: 'snapshot-generated', requestId: 1, snapshot: undefined },
    ]);
  });
});

describe('RollbackMerge', () => {
  it('makes the source normal again with a larger version, once', async () => {
    const s = await prepared();
    const outcomes = s.apply(2, [
      rollback(7, 6),
      rollback(8, 6),
      writeEntry(9, { confVer: 2, version: 3 }, [put('n', '1')]),
      compact(10, 7),
    ]);
    await s.run();
    const back = { ...source, epoch: { confVer: 2, version: 3 } };
    expect(outcomes.map((o) => o.type)).toEqual(['admin-applied', 'refused', 'write-applied', 'admin-applied']);
    expect(s.stateOf(2)).toEqual({ state: 'normal', region: back, mergeState: undefined });
    expect(s.execResults(2, 'rollback-merge')).toEqual([{ type: 'rollback-merge', region: back, commit: 6 }]);
    expect(s.applyStateOf(2)?.truncatedIndex).toBe(7);
  });

  it('works in the same task as the PrepareMerge it undoes', async () => {
    const s = await store();
    s.apply(2, [prepare(6), rollback(7, 6), prepare(8, 6, { confVer: 2, version: 3 })]);
    await s.run();
    expect(s.stateOf(2)).toMatchObject({ state: 'merging', mergeState: { commit: 8 } });
    const results = s.results(2).flatMap((r) => r.results.map((e) => e.type));
    expect(results).toEqual(['prepare-merge', 'rollback-merge', 'prepare-merge']);
  });

  it('stops the store when it names another attempt', async () => {
    const s = await prepared();
    s.apply(2, [rollback(7, 5)]);
    expect(() => s.round()).toThrow(Aborted);
  });
});

describe('CommitMerge', () => {
  it('waits for the source, then joins its range on in one batch', async () => {
    const s = await prepared();
    s.apply(2, [writeEntry(7, MERGING_EPOCH, [put('n', 'late')])]);
    await s.run();
    const carried = [prepare(6)];
    const outcomes = s.apply(1, [
      writeEntry(6, target.epoch, [put('c', '1')]),
      commitMerge(7, { entries: carried }),
      writeEntry(8, { confVer: 3, version: 5 }, [put('n', 'after')]),
    ]);
    const later = s.apply(1, [writeEntry(9, { confVer: 3, version: 5 }, [put('o', 'later task')])]);
    s.toApply(regionId(1), { type: 'gen-snapshot', requestId: 1, toPeer: 12 });
    await s.run();
    // What stands before it is written and reported, the rest waits.
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied']);
    expect(s.applyStateOf(1)?.appliedIndex).toBe(6);
    const request = catchUpOf(s);
    expect(plain(request)).toMatchObject({
      targetRegionId: 1,
      source: merging,
      commit: 6,
      flag: { sourceRegionId: 0 },
    });
    expect(request.entries).toHaveLength(1);
    // A wake-up without the flag changes nothing.
    s.toApply(regionId(1), { type: 'noop' });
    await s.run();
    expect(s.applyStateOf(1)?.appliedIndex).toBe(6);

    s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp: request });
    const before = s.writes;
    await s.run(() => s.applyStateOf(1)?.appliedIndex !== 6);
    expect(s.writes).toBe(before);
    await s.run();
    const extended = {
      ...target,
      range: { start: target.range.start, end: source.range.end },
      epoch: { confVer: 3, version: 5 },
    };
    expect(s.applies.get(2)?.fsm.isStopped).toBe(true);
    expect(s.stateOf(1)).toEqual({ state: 'normal', region: extended, mergeState: undefined });
    expect(s.stateOf(2)).toEqual({
      state: 'tombstone',
      region: merging,
      mergeState: { minIndex: 6, target, commit: 6 },
    });
    expect(plain(s.execResults(1, 'commit-merge'))).toEqual([
      { type: 'commit-merge', index: 7, region: extended, source: merging },
    ]);
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied', 'admin-applied', 'write-applied']);
    expect(later.map((o) => o.type)).toEqual(['write-applied']);
    expect([s.valueOf('n'), s.valueOf('o')]).toEqual(['after', 'later task']);
    expect(s.messages(1, 'snapshot-generated')[0]?.snapshot?.metadata.index).toBe(9);
  });

  it('asks the source only after everything before is durable', async () => {
    const s = await prepared();
    s.apply(1, [writeEntry(6, target.epoch, [put('c', '1')]), commitMerge(7)]);
    s.round();
    expect(s.messages(2, 'catch-up-logs')).toEqual([]);
    await s.run(() => s.messages(2, 'catch-up-logs').length > 0);
    expect(s.applyStateOf(1)?.appliedIndex).toBe(6);
  });

  it('takes a left neighbour in', async () => {
    const s = await StoreHarness.open();
    const left = sketchRegion({ id: 2, start: 'a', end: 'b', epoch: { confVer: 2, version: 9 } });
    await s.seed(left, { state: { state: 'merging', region: left, mergeState: { minIndex: 6, target, commit: 5 } } });
    await s.seed(target);
    s.start(2);
    s.start(1);
    s.apply(1, [commitMerge(6, { source: left, commit: 5 })]);
    await s.run();
    s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp: catchUpOf(s) });
    await s.run();
    expect(s.stateOf(1)?.region).toMatchObject({
      range: { start: left.range.start, end: target.range.end },
      epoch: { confVer: 3, version: 10 },
    });
  });

  it.each<[string, RegionEpoch]>([
    ['version', { confVer: 3, version: 3 }],
    ['confVer', { confVer: 2, version: 4 }],
  ])('has no effect when the target’s %s has changed', async (_name, epoch) => {
    const s = await prepared();
    const outcomes = s.apply(1, [commitMerge(6, {}, epoch)]);
    await s.run();
    expect(outcomes[0]?.type).toBe('refused');
    expect(s.messages(2, 'catch-up-logs')).toEqual([]);
    expect(s.stateOf(1)?.region).toEqual(target);
    expect(s.stateOf(2)?.state).toBe('merging');
  });

  it('has no effect the second time', async () => {
    const s = await prepared();
    s.apply(1, [commitMerge(6)]);
    const duplicate = s.apply(1, [commitMerge(7)]);
    await s.run();
    s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp: catchUpOf(s) });
    await s.run();
    expect(duplicate[0]?.type).toBe('refused');
    expect(s.messages(2, 'catch-up-logs')).toHaveLength(1);
  });

  it('is refused for a source that is no neighbour', async () => {
    const s = await prepared();
    const far = { ...merging, range: sketchRegion({ id: 9, start: 'p', end: 'q' }).range };
    const outcomes = s.apply(1, [commitMerge(6, { source: far })]);
    await s.run();
    expect(outcomes[0]).toMatchObject({ type: 'refused', error: { type: 'message' } });
  });

  it('stops the store when the source has no peer here', async () => {
    const s = await prepared();
    s.peers.delete(2);
    s.apply(1, [commitMerge(6)]);
    expect(() => s.round()).toThrow(Aborted);
  });

  it.each<[string, Partial<Extract<AdminCommand, { type: 'commit-merge' }>>]>([
    ['another descriptor', { source: { ...merging, epoch: { confVer: 2, version: 3 } } }],
    ['another attempt', { commit: 4 }],
  ])('stops the store when the source is on disk with %s', async (_name, more) => {
    const s = await prepared();
    s.apply(1, [commitMerge(6, more)]);
    await s.run();
    const { flag } = catchUpOf(s);
    flag.sourceRegionId = 2;
    s.toApply(regionId(1), { type: 'noop' });
    expect(() => s.round()).toThrow(Aborted);
  });

  it('stops the store when another source reports', async () => {
    const s = await prepared();
    s.apply(1, [commitMerge(6)]);
    await s.run();
    catchUpOf(s).flag.sourceRegionId = 7;
    s.toApply(regionId(1), { type: 'noop' });
    expect(() => s.round()).toThrow('source 7');
  });

  it('finishes the merge before it dies of a destroy that came meanwhile', async () => {
    const s = await prepared();
    s.apply(1, [commitMerge(6)]);
    s.toApply(regionId(1), { type: 'destroy', mergeFromSnapshot: false });
    await s.run();
    expect(s.messages(1, 'apply-destroyed')).toEqual([]);
    s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp: catchUpOf(s) });
    await s.run();
    expect(s.messages(1, 'apply-destroyed')).toHaveLength(1);
    expect(s.stateOf(2)?.state).toBe('tombstone');
  });

  it('merges two sources one after the other', async () => {
    const s = await prepared();
    const left = sketchRegion({ id: 3, start: 'a', end: 'b', epoch: { confVer: 2, version: 2 } });
    await s.seed(left, { state: { state: 'merging', region: left, mergeState: { minIndex: 6, target, commit: 5 } } });
    s.start(3);
    s.apply(1, [commitMerge(6)]);
    s.apply(1, [commitMerge(7, { source: left, commit: 5 }, { confVer: 3, version: 5 })]);
    await s.run();
    s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp: catchUpOf(s) });
    await s.run();
    const second = s.messages(3, 'catch-up-logs')[0]?.request as CatchUpLogs;
    s.toApply(regionId(3), { type: 'logs-up-to-date', catchUp: second });
    await s.run();
    expect(s.stateOf(1)?.region).toMatchObject({
      range: { start: left.range.start, end: source.range.end },
      epoch: { version: 6 },
    });
    expect(s.stateOf(3)?.state).toBe('tombstone');
  });
});

describe('the source reports that it is complete', () => {
  it('flushes, dies, then sets the flag, then wakes the target', async () => {
    const s = await prepared();
    const catchUp: CatchUpLogs = {
      targetRegionId: regionId(1),
      source: merging,
      commit: 6,
      entries: [],
      flag: { sourceRegionId: 0 },
    };
    const late = s.apply(2, [writeEntry(7, MERGING_EPOCH, [put('n', '1')])]);
    s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp });
    const after = s.apply(2, [writeEntry(8, MERGING_EPOCH, [put('n', '2')])]);
    s.round();
    expect(catchUp.flag.sourceRegionId).toBe(0);
    expect(s.applies.get(2)?.fsm.isStopped).toBe(false);
    await s.run();
    expect(catchUp.flag.sourceRegionId).toBe(2);
    expect(s.applies.get(2)?.fsm.isStopped).toBe(true);
    expect([late[0]?.type, after[0]?.type]).toEqual(['write-applied', 'region-removed']);
    expect(s.applyStateOf(2)?.appliedIndex).toBe(7);
  });

  it.each<[string, number]>([['has not applied PrepareMerge', 7]])(
    'stops the store when it %s',
    async (_name, commit) => {
      const s = await prepared();
      const catchUp: CatchUpLogs = {
        targetRegionId: regionId(1),
        source: merging,
        commit,
        entries: [],
        flag: { sourceRegionId: 0 },
      };
      s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp });
      expect(() => s.round()).toThrow(Aborted);
    },
  );

  it('stops the store when it is not merging', async () => {
    const s = await store();
    const catchUp: CatchUpLogs = {
      targetRegionId: regionId(1),
      source,
      commit: 5,
      entries: [],
      flag: { sourceRegionId: 0 },
    };
    s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp });
    expect(() => s.round()).toThrow(Aborted);
  });
});

describe('a crash in the middle of a merge', () => {
  const noop = (index: number): Entry => ({ type: EntryType.Normal, term: 6, index, data: new Uint8Array(0) });
  const sourceLog = [writeEntry(6, EPOCH, [put('n', '1')]), prepare(7)];
  const targetLog = [writeEntry(6, target.epoch, [put('c', '1')]), commitMerge(7, { commit: 7 }), noop(8)];

  /** Plays both logs with whatever the disk holds; the peers answer catch-up requests once the source is complete. */
  async function play(s: StoreHarness): Promise<void> {
    const unapplied = (id: number, log: readonly Entry[]): Entry[] =>
      log.filter((entry) => entry.index > (s.applyStateOf(id)?.appliedIndex ?? 0));
    const isSourceAlive = s.stateOf(2)?.state !== 'tombstone';
    if (isSourceAlive) {
      s.start(2);
      const left = unapplied(2, sourceLog);
      if (left.length > 0) {
        s.apply(2, left);
      }
    }
    s.start(1);
    const left = unapplied(1, targetLog);
    if (left.length > 0) {
      s.apply(1, left);
    }
    await s.run();
    const [asked] = s.messages(2, 'catch-up-logs');
    if (asked !== undefined && !s.isCrashed) {
      s.toApply(regionId(2), { type: 'logs-up-to-date', catchUp: asked.request });
      await s.run();
    }
  }

  it('leads to the same end wherever it happens', async () => {
    const crashes = { afterWrite: 0, duringWrite: 0 };
    for (const moment of ['afterWrite', 'duringWrite'] as const) {
      for (let at = 1, hasCrashed = true; hasCrashed; at++) {
        const s = await StoreHarness.open();
        await s.seed(source);
        await s.seed(target);
        if (moment === 'afterWrite') {
          s.crashAtWrite = s.writes + at;
        } else {
          s.crashAtSubmission = s.submissions + at;
        }
        await play(s);
        hasCrashed = s.isCrashed;
        crashes[moment] += hasCrashed ? 1 : 0;
        let end = s;
        if (hasCrashed) {
          end = await s.restart();
          await play(end);
        }
        expect(end.stateOf(1)).toMatchObject({
          state: 'normal',
          region: { range: { end: source.range.end }, epoch: { version: 5 } },
        });
        expect(end.stateOf(2)).toMatchObject({
          state: 'tombstone',
          region: merging,
          mergeState: { commit: 7, target },
        });
        expect(end.applyStateOf(1)?.appliedIndex).toBe(8);
        expect(await end.keys()).toEqual(['c', 'n']);
      }
    }
    // The source's batch, the target's batch before the wait, and the merge itself.
    expect(crashes).toEqual({ afterWrite: 3, duringWrite: 3 });
  });
});
