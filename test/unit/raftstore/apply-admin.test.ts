import { describe, expect, it } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { regionId } from '../../../src/base/ids.ts';
import type { SplitChild } from '../../../src/codec/command.ts';
import { encodeRaftCommand, encodeRegionLocalState } from '../../../src/codec/raft-records.ts';
import { decodeSnapshotDescriptor } from '../../../src/codec/snapshot-record.ts';
import { dataKey, pendingCleanRange, regionStateKey } from '../../../src/engine/keyspace.ts';
import type { PeerChange } from '../../../src/meta/heartbeat.ts';
import { regionsEqual, type Region, type RegionEpoch } from '../../../src/meta/region.ts';
import { encodeConfChangeV2 } from '../../../src/raft/conf-change.ts';
import { ConfChangeTransition, ConfChangeType, EntryType, type Entry } from '../../../src/raft/types.ts';
import type { PendingCreate } from '../../../src/raftstore/store/store-meta.ts';
import {
  Aborted,
  adminEntry,
  FRESH,
  put,
  sketchRegion,
  StoreHarness,
  voter,
  writeEntry,
} from '../../support/store-harness.ts';

const EPOCH = { confVer: 1, version: 1 };
const region = sketchRegion({ id: 1, start: 'b', end: 'y' });

async function store(from: Region = region): Promise<StoreHarness> {
  const s = await StoreHarness.open();
  await s.seed(from);
  s.start(from.id);
  return s;
}

const child = (key: string, id: number): SplitChild => ({
  splitKey: utf8(key),
  newRegionId: id,
  newPeerIds: [id * 10 + 1, id * 10 + 2, id * 10 + 3],
});

const split = (index: number, children: readonly SplitChild[], epoch: RegionEpoch = EPOCH): Entry =>
  adminEntry(index, epoch, { type: 'batch-split', children });

describe('batch-split', () => {
  it('writes all parts and their apply states in one batch', async () => {
    const s = await store();
    const before = s.writes;
    const outcomes = s.apply(1, [split(6, [child('f', 7), child('m', 8)])]);
    await s.run();
    expect(s.writes).toBe(before + 1);
    const epoch = { confVer: 1, version: 3 };
    for (const [id, start, end] of [
      [7, 'b', 'f'],
      [8, 'f', 'm'],
      [1, 'm', 'y'],
    ] as const) {
      expect(s.stateOf(id)).toEqual({
        state: 'normal',
        region: sketchRegion({ id, start, end, epoch }),
        mergeState: undefined,
      });
    }
    expect(s.applyStateOf(7)).toEqual(FRESH);
    expect(s.applyStateOf(8)).toEqual(FRESH);
    expect(s.applyStateOf(1)?.appliedIndex).toBe(6);
    const [result] = s.execResults(1, 'split');
    expect(result?.derived.id).toBe(1);
    expect(result?.regions.map((r) => r.id)).toEqual([7, 8, 1]);
    expect(result?.skipped.size).toBe(0);
    expect(outcomes[0]).toEqual({ type: 'admin-applied', regions: result?.regions });
    expect(s.ctx.pendingCreatePeers.get(regionId(7))).toEqual({ peerId: 71, isSplitting: true });
  });

  it('goes on with the derived region: the old range and epoch are refused', async () => {
    const s = await store();
    const outcomes = s.apply(1, [
      split(6, [child('f', 7)]),
      writeEntry(7, EPOCH, [put('g', 'old epoch')]),
      writeEntry(8, { confVer: 1, version: 2 }, [put('c', 'not mine')]),
      writeEntry(9, { confVer: 1, version: 2 }, [put('g', 'mine')]),
      split(10, [child('m', 9)]),
    ]);
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['admin-applied', 'refused', 'refused', 'write-applied', 'refused']);
    expect(outcomes[2]).toMatchObject({ error: { type: 'key-not-in-region' } });
    expect(await s.keys()).toEqual(['g']);
    expect(s.stateOf(9)).toBeUndefined();
  });

  it('has no effect when its keys do not fit', async () => {
    const s = await store();
    const outcomes = s.apply(1, [split(6, [child('z', 7)])]);
    await s.run();
    expect(outcomes[0]).toMatchObject({ type: 'refused', error: { type: 'message' } });
    expect(s.stateOf(1)?.region).toEqual(region);
    expect(s.stateOf(7)).toBeUndefined();
    expect(s.ctx.pendingCreatePeers.size).toBe(0);
    expect(s.applyStateOf(1)?.appliedIndex).toBe(6);
  });

  it('is all or nothing over a crash', async () => {
    const s = await store();
    s.crashAtWrite = s.writes + 1;
    s.apply(1, [split(6, [child('f', 7)])]);
    await s.run();
    const after = await s.restart();
    expect(after.applyStateOf(1)?.appliedIndex).toBe(6);
    expect(after.stateOf(7)?.state).toBe('normal');
    const lost = await store();
    lost.apply(1, [split(6, [child('f', 7)])]);
    lost.round();
    const again = await lost.restart();
    expect(again.applyStateOf(1)?.appliedIndex).toBe(5);
    expect(again.stateOf(7)).toBeUndefined();
    again.start(1);
    again.apply(1, [split(6, [child('f', 7)])]);
    await again.run();
    expect(again.stateOf(7)?.state).toBe('normal');
  });
});

describe('a split meets a child that another store created first', () => {
  interface Case {
    readonly name: string;
    readonly slot: PendingCreate | undefined;
    readonly onDisk: boolean;
    readonly expected: 'created' | 'skipped' | 'abort';
    readonly slotAfter: PendingCreate | undefined;
  }
  const splitting = { peerId: 71, isSplitting: true };
  const cases: readonly Case[] = [
    { name: 'nothing there', slot: undefined, onDisk: false, expected: 'created', slotAfter: splitting },
    {
      name: 'the uninitialized peer of this very child',
      slot: { peerId: 71, isSplitting: false },
      onDisk: false,
      expected: 'created',
      slotAfter: splitting,
    },
    {
      name: 'an uninitialized peer with another id',
      slot: { peerId: 99, isSplitting: false },
      onDisk: false,
      expected: 'skipped',
      slotAfter: { peerId: 99, isSplitting: false },
    },
    {
      name: 'a peer that another split is creating',
      slot: { peerId: 71, isSplitting: true },
      onDisk: false,
      expected: 'skipped',
      slotAfter: splitting,
    },
    { name: 'a record on disk', slot: undefined, onDisk: true, expected: 'skipped', slotAfter: undefined },
    {
      name: 'another id and a record on disk',
      slot: { peerId: 99, isSplitting: false },
      onDisk: true,
      expected: 'skipped',
      slotAfter: { peerId: 99, isSplitting: false },
    },
    {
      name: 'this very child and a record on disk',
      slot: { peerId: 71, isSplitting: false },
      onDisk: true,
      expected: 'abort',
      slotAfter: splitting,
    },
  ];

  it.each(cases)('$name: $expected', async ({ slot, onDisk, expected, slotAfter }) => {
    const s = await store();
    const tombstone = sketchRegion({ id: 7, start: 'b', end: 'd', epoch: { confVer: 9, version: 9 } });
    if (onDisk) {
      const batch = s.engine.createBatch();
      batch.put(
        regionStateKey(regionId(7)),
        encodeRegionLocalState({ state: 'tombstone', region: tombstone, mergeState: undefined }),
      );
      await s.wait(s.engine.write(batch));
    }
    if (slot !== undefined) {
      s.ctx.pendingCreatePeers.set(regionId(7), slot);
    }
    s.apply(1, [writeEntry(6, EPOCH, [put('c', 'in the child'), put('n', 'in the rest')])]);
    await s.run();
    s.apply(1, [split(7, [child('f', 7), child('m', 8)])]);
    if (expected === 'abort') {
      expect(() => s.round()).toThrow(Aborted);
      return;
    }
    await s.run(() => s.execResults(1, 'split').length > 0);
    const [result] = s.execResults(1, 'split');
    expect(s.ctx.pendingCreatePeers.get(regionId(7))).toEqual(slotAfter);
    expect(s.stateOf(8)?.state).toBe('normal');
    expect(s.ctx.pendingCreatePeers.get(regionId(8))).toEqual({ peerId: 81, isSplitting: true });
    if (expected === 'created') {
      expect([...(result?.skipped ?? [])]).toEqual([]);
      expect(s.stateOf(7)?.state).toBe('normal');
      expect(s.workers.isCleaning(sketchRegion({ id: 7, start: 'b', end: 'f' }).range)).toBe(false);
      return;
    }
    expect([...(result?.skipped ?? [])]).toEqual([7]);
    expect(s.stateOf(7)?.region).toEqual(onDisk ? tombstone : undefined);
    // The peer FSM takes the derived region over a little later; only then the child's range is nobody's.
    await s.run(() => s.clock.monoMs() > 200);
    expect(await s.keys()).toEqual(['c', 'n']);
    s.meta.removeRange(region);
    s.own({ ...(result?.derived as Region) });
    await s.run();
    expect(await s.keys()).toEqual(['n']);
    expect(s.toStores.map((m) => m.type === 'range-cleaned' && fromUtf8(m.range.end))).toEqual(['f']);
    const left = await s.wait(s.engine.scan({ range: pendingCleanRange(), limit: 1 }));
    expect(left.entries).toEqual([]);
  });
});

describe('change-peer', () => {
  const confChange = (changes: readonly PeerChange[], epoch: RegionEpoch): Uint8Array =>
    encodeConfChangeV2({
      transition: changes.length > 1 ? ConfChangeTransition.JointExplicit : ConfChangeTransition.Auto,
      changes: changes.map((c) => ({
        type: c.type === 'remove' ? ConfChangeType.RemoveNode : ConfChangeType.AddNode,
        nodeId: c.peer.id,
      })),
      context: encodeRaftCommand({ type: 'admin', epoch, command: { type: 'change-peer', changes } }),
    });
  const entry = (index: number, changes: readonly PeerChange[], epoch: RegionEpoch = EPOCH): Entry => ({
    type: EntryType.ConfChangeV2,
    term: 6,
    index,
    data: confChange(changes, epoch),
  });
  const add: PeerChange = { type: 'add-voter', peer: voter(14, 4) };

  it('writes the new membership and hands the conf change to the peer FSM', async () => {
    const s = await store();
    const outcomes = s.apply(1, [entry(6, [add])]);
    await s.run();
    const changed = { ...region, peers: [...region.peers, voter(14, 4)], epoch: { confVer: 2, version: 1 } };
    expect(s.stateOf(1)).toEqual({ state: 'normal', region: changed, mergeState: undefined });
    expect(s.execResults(1, 'change-peer')).toMatchObject([
      { index: 6, applied: true, region: changed, changes: [add], confChange: { changes: [{ nodeId: 14 }] } },
    ]);
    expect(outcomes).toEqual([{ type: 'admin-applied', regions: [changed] }]);
  });

  it('compares only confVer, and only exactly', async () => {
    const s = await store();
    const outcomes = s.apply(1, [
      entry(6, [add], { confVer: 0, version: 1 }),
      entry(7, [add], { confVer: 2, version: 1 }),
      entry(8, [add], { confVer: 1, version: 77 }),
    ]);
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['refused', 'refused', 'admin-applied']);
    expect(s.execResults(1, 'change-peer').map((r) => [r.index, r.applied])).toEqual([
      [6, false],
      [7, false],
      [8, true],
    ]);
  });

  it('tells the Raft core about a change that does not fit', async () => {
    const s = await store();
    const outcomes = s.apply(1, [entry(6, [{ type: 'remove', peer: voter(99, 9) }])]);
    await s.run();
    expect(outcomes[0]).toMatchObject({ type: 'refused' });
    expect(s.execResults(1, 'change-peer')).toMatchObject([{ applied: false, region }]);
    expect(s.stateOf(1)?.region).toEqual(region);
  });

  it('refuses a conf change without a command', async () => {
    const s = await store();
    const data = encodeConfChangeV2({ transition: ConfChangeTransition.Auto, changes: [], context: new Uint8Array(0) });
    s.apply(1, [{ type: EntryType.ConfChangeV2, term: 6, index: 6, data }]);
    await s.run();
    expect(s.execResults(1, 'change-peer')).toMatchObject([{ applied: false, changes: [] }]);
  });

  it('applies nothing behind the removal of this peer', async () => {
    const s = await store();
    const self: PeerChange = { type: 'remove', peer: voter(11, 1) };
    const outcomes = s.apply(1, [
      writeEntry(6, EPOCH, [put('c', '1')]),
      entry(7, [self]),
      writeEntry(8, EPOCH, [put('c', '2')]),
    ]);
    const later = s.apply(1, [writeEntry(9, EPOCH, [put('c', '3')])]);
    s.toApply(regionId(1), { type: 'gen-snapshot', requestId: 1, toPeer: 12 });
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied', 'admin-applied', 'region-removed']);
    expect(later.map((o) => o.type)).toEqual(['region-removed']);
    expect(s.valueOf('c')).toBe('1');
    expect(s.applyStateOf(1)?.appliedIndex).toBe(7);
    // A restart must find the end of this replica, whether or not its peer FSM came to write it.
    expect(s.stateOf(1)).toMatchObject({
      state: 'tombstone',
      region: { epoch: { confVer: 2, version: 1 } },
      mergeState: undefined,
    });
    // The dead replica stays in its own tombstone: its id must never live again.
    expect(s.stateOf(1)?.region.peers.map((p) => p.id)).toEqual([12, 13, 11]);
    expect(s.messages(1, 'snapshot-generated')).toEqual([
      { type: 'snapshot-generated', requestId: 1, snapshot: undefined },
    ]);
    expect(s.applies.get(1)?.fsm.isStopped).toBe(false);
    s.toApply(regionId(1), { type: 'destroy', mergeFromSnapshot: false });
    await s.run();
    expect(s.applies.get(1)?.fsm.isStopped).toBe(true);
    expect(s.messages(1, 'apply-destroyed')).toHaveLength(1);
  });

  it('stops the store when the command comes in a normal entry', async () => {
    const s = await store();
    s.apply(1, [adminEntry(6, EPOCH, { type: 'change-peer', changes: [add] })]);
    expect(() => s.round()).toThrow(Aborted);
  });
});

describe('compact-log', () => {
  const compact = (at: number, index: number, term = 6): Entry =>
    adminEntry(at, { confVer: 0, version: 0 }, { type: 'compact-log', index, term });

  it('moves the truncated position with the apply state and tells the peer FSM', async () => {
    const s = await store();
    s.apply(
      1,
      [6, 7, 8].map((i) => writeEntry(i, EPOCH, [put('c', String(i))])),
    );
    s.apply(1, [compact(9, 8)]);
    await s.run();
    expect(s.applyStateOf(1)).toMatchObject({ appliedIndex: 9, truncatedIndex: 8, truncatedTerm: 6 });
    expect(s.execResults(1, 'compact-log')).toEqual([{ type: 'compact-log', truncatedIndex: 8, truncatedTerm: 6 }]);
  });

  it('does nothing at or below the first index', async () => {
    const s = await store();
    const outcomes = s.apply(1, [writeEntry(6, EPOCH, []), compact(7, 6), compact(8, 3)]);
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied', 'admin-applied', 'admin-applied']);
    expect(s.execResults(1, 'compact-log')).toEqual([]);
    expect(s.applyStateOf(1)?.truncatedIndex).toBe(5);
  });

  it('refuses to compact what is not applied or has no term', async () => {
    const s = await store();
    const outcomes = s.apply(1, [writeEntry(6, EPOCH, []), writeEntry(7, EPOCH, []), compact(8, 8), compact(9, 7, 0)]);
    await s.run();
    expect(outcomes.slice(2).map((o) => o.type)).toEqual(['refused', 'refused']);
    expect(s.applyStateOf(1)).toMatchObject({ appliedIndex: 9, truncatedIndex: 5 });
  });
});

describe('consistency check', () => {
  const compute = (index: number): Entry => adminEntry(index, EPOCH, { type: 'compute-hash' });
  const verify = (at: number, index: number, hash: Uint8Array): Entry =>
    adminEntry(at, EPOCH, { type: 'verify-hash', index, hash });

  async function hashOf(entries: readonly Entry[], from: Region = region): Promise<Uint8Array> {
    const s = await store(from);
    s.apply(1, entries);
    await s.run();
    const [result] = s.execResults(1, 'compute-hash');
    expect(result?.index).toBe(entries.find((e) => e.data.length > 0 && e.index === result?.index)?.index);
    return result?.hash ?? new Uint8Array(0);
  }

  it('hashes exactly what was applied before the command', async () => {
    const base = [writeEntry(6, EPOCH, [put('c', '1'), put('d', '2')])];
    const expected = await hashOf([...base, compute(7)]);
    expect(expected).toHaveLength(8);
    expect(await hashOf([...base, compute(7), writeEntry(8, EPOCH, [put('e', 'later')])])).toEqual(expected);
    expect(await hashOf([writeEntry(6, EPOCH, [put('c', '1'), put('d', '3')]), compute(7)])).not.toEqual(expected);
    expect(await hashOf([writeEntry(6, EPOCH, [put('c', '1')]), compute(7)])).not.toEqual(expected);
    expect(await hashOf([...base, compute(7)], { ...region, epoch: { confVer: 2, version: 1 } })).not.toEqual(expected);
  });

  it('leaves out keys of neighbours', async () => {
    const s = await store();
    const batch = s.engine.createBatch();
    batch.put(dataKey(utf8('a')), utf8('foreign'));
    await s.wait(s.engine.write(batch));
    s.apply(1, [writeEntry(6, EPOCH, [put('c', '1')]), compute(7)]);
    await s.run();
    expect(s.execResults(1, 'compute-hash')[0]?.hash).toEqual(
      await hashOf([writeEntry(6, EPOCH, [put('c', '1')]), compute(7)]),
    );
  });

  it('compares with the leader’s hash before or after its own is ready', async () => {
    const good = await hashOf([compute(6)]);
    const bad = utf8('deadbeef');
    for (const [hash, matched] of [
      [good, true],
      [bad, false],
    ] as const) {
      const together = await store();
      together.apply(1, [compute(6), verify(7, 6, hash)]);
      await together.run();
      expect(together.execResults(1, 'verify-hash')).toEqual([
        { type: 'verify-hash', index: 6, matched, isUnclear: false },
      ]);
      const apart = await store();
      apart.apply(1, [compute(6)]);
      await apart.run();
      apart.apply(1, [verify(7, 6, hash)]);
      await apart.run();
      expect(apart.execResults(1, 'verify-hash')).toEqual([
        { type: 'verify-hash', index: 6, matched, isUnclear: false },
      ]);
    }
  });

  it('ignores hashes of other indexes', async () => {
    const s = await store();
    s.apply(1, [compute(6), compute(7), verify(8, 6, utf8('deadbeef')), verify(9, 3, utf8('deadbeef'))]);
    await s.run();
    expect(s.execResults(1, 'verify-hash')).toEqual([]);
    expect(s.execResults(1, 'compute-hash').at(-1)?.index).toBe(7);
  });

  it('gives a check up when a newer one begins', async () => {
    const s = await store();
    s.apply(1, [compute(6)]);
    s.round();
    s.disk.setBehavior({ readDelayMs: [1000, 1000] });
    s.apply(1, [compute(7)]);
    await s.run();
    expect(s.execResults(1, 'compute-hash').map((r) => r.index)).toEqual([6, 7]);
    s.apply(1, [compute(8), writeEntry(9, EPOCH, []), compute(10)]);
    await s.run();
    expect(s.execResults(1, 'compute-hash').map((r) => r.index)).toEqual([6, 7, 10]);
  });

  it('never reports a hash before its command is durable', async () => {
    const s = await store();
    s.apply(1, [compute(6)]);
    await s.run();
    const report = s.results(1).find((r) => r.results.some((e) => e.type === 'compute-hash'));
    expect(report?.applyState.appliedIndex).toBe(6);
  });
});

describe('gen-snapshot', () => {
  it('freezes everything applied before it, with index, term and membership', async () => {
    const s = await store({
      ...region,
      peers: [voter(11, 1), voter(12, 2, 'incoming-voter'), voter(13, 3, 'learner')],
    });
    s.apply(1, [writeEntry(6, EPOCH, [put('c', '1')], 7)]);
    s.toApply(regionId(1), { type: 'gen-snapshot', requestId: 3, toPeer: 13 });
    s.apply(1, [writeEntry(7, EPOCH, [put('c', '2')], 7)]);
    await s.run();
    const [message] = s.messages(1, 'snapshot-generated');
    const { snapshot } = message ?? {};
    expect(message?.requestId).toBe(3);
    expect(snapshot?.metadata).toEqual({
      index: 6,
      term: 7,
      confState: { voters: [11, 12], votersOutgoing: [11], learners: [13], learnersNext: [], autoLeave: false },
    });
    const { snapshotId, region: described } = decodeSnapshotDescriptor(snapshot?.data ?? new Uint8Array(0));
    expect(regionsEqual(described, s.stateOf(1)?.region as Region)).toBe(true);
    const source = s.workers.snapshots.take(snapshotId);
    expect([source?.index, source?.term]).toEqual([6, 7]);
    const bytes = await s.wait(s.engine.get(dataKey(utf8('c')), source?.snapshot));
    expect(fromUtf8(bytes?.subarray(1) ?? new Uint8Array(0))).toBe('1');
    expect(s.valueOf('c')).toBe('2');
    source?.close();
  });

  it('comes behind an applied state at once when nothing is pending', async () => {
    const s = await store();
    s.toApply(regionId(1), { type: 'gen-snapshot', requestId: 1, toPeer: 13 });
    s.round();
    expect(s.messages(1, 'snapshot-generated')[0]?.snapshot?.metadata).toMatchObject({ index: 5, term: 5 });
  });
});
