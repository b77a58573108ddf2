import { describe, expect, it } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import type { AdminCommand, AdminType, SplitChild } from '../../../src/codec/command.ts';
import type { PeerChange } from '../../../src/meta/heartbeat.ts';
import type { PeerRole, Region } from '../../../src/meta/region.ts';
import {
  assertEpochMoved,
  changePeers,
  checkEpochAtApply,
  epochChecks,
  extendByMerge,
  prepareMergeRegion,
  rollbackMergeRegion,
  splitRegion,
} from '../../../src/raftstore/operation/region-change.ts';
import { sketchRegion, voter } from '../../support/store-harness.ts';

const child = (
  key: string,
  id: number,
  ids: readonly number[] = [id * 10 + 1, id * 10 + 2, id * 10 + 3],
): SplitChild => ({
  splitKey: utf8(key),
  newRegionId: id,
  newPeerIds: ids,
});

const change = (type: PeerChange['type'], id: number, store: number): PeerChange => ({ type, peer: voter(id, store) });

const roles = (region: Region): string[] => region.peers.map((peer) => `${peer.id}:${peer.role}`);

describe('splitRegion', () => {
  const parent = sketchRegion({
    id: 1,
    start: 'b',
    end: 'y',
    epoch: { confVer: 3, version: 5 },
    peers: [voter(11, 1), voter(12, 2), voter(13, 3, 'learner')],
  });

  it('keeps id and log in the rightmost part and raises every version by the number of new regions', () => {
    const result = splitRegion(parent, [child('f', 7), child('m', 8)]);
    if (result.type !== 'ok') {
      throw new Error(result.refusal.message);
    }
    const parts = result.regions.map((r) => `${r.id}[${fromUtf8(r.range.start)},${fromUtf8(r.range.end)})`);
    expect(parts).toEqual(['7[b,f)', '8[f,m)', '1[m,y)']);
    expect(result.regions.map((r) => r.epoch)).toEqual(Array(3).fill({ confVer: 3, version: 7 }));
    expect(result.derived).toBe(result.regions[2]);
  });

  it('copies the roles of the peers in order under new ids', () => {
    const result = splitRegion(parent, [child('f', 7)]);
    expect(result.type === 'ok' && roles(result.regions[0] as Region)).toEqual(['71:voter', '72:voter', '73:learner']);
    expect(result.type === 'ok' && result.regions[0]?.peers.map((p) => p.storeId)).toEqual([1, 2, 3]);
    expect(result.type === 'ok' && roles(result.derived)).toEqual(roles(parent));
  });

  it.each<[string, readonly SplitChild[], string]>([
    ['no key', [], 'NoSplitKeys'],
    ['the start of the region', [child('b', 7)], 'SplitKeyOutOfRange'],
    ['a key below the start', [child('a', 7)], 'SplitKeyOutOfRange'],
    ['the end of the region', [child('y', 7)], 'SplitKeyOutOfRange'],
    ['a key beyond the end', [child('f', 7), child('z', 8)], 'SplitKeyOutOfRange'],
    ['the same key twice', [child('f', 7), child('f', 8)], 'SplitKeysNotIncreasing'],
    ['descending keys', [child('m', 7), child('f', 8)], 'SplitKeysNotIncreasing'],
    ['too few peer ids', [child('f', 7, [71, 72])], 'PeerCountMismatch'],
    ['the id of the parent', [child('f', 1)], 'DuplicateRegionId'],
    ['one id twice', [child('f', 7), child('m', 7)], 'DuplicateRegionId'],
  ])('refuses %s', (_name, children, code) => {
    expect(splitRegion(parent, children)).toMatchObject({ type: 'refused', refusal: { code } });
  });

  it('refuses an empty key in a region without a lower bound', () => {
    const whole = sketchRegion({ id: 1 });
    expect(splitRegion(whole, [child('', 7)])).toMatchObject({ refusal: { code: 'SplitKeyOutOfRange' } });
  });
});

describe('merging descriptors', () => {
  const left = sketchRegion({ id: 1, end: 'k', epoch: { confVer: 4, version: 9 } });
  const right = sketchRegion({ id: 2, start: 'k', end: 'p', epoch: { confVer: 2, version: 6 } });

  it('joins a right neighbour on with the larger version plus one and the confVer of the target', () => {
    expect(extendByMerge(left, right)).toMatchObject({
      type: 'ok',
      region: { id: 1, range: { start: utf8(''), end: utf8('p') }, epoch: { confVer: 4, version: 10 } },
    });
  });

  it('joins a left neighbour on', () => {
    expect(extendByMerge(right, left)).toMatchObject({
      type: 'ok',
      region: { id: 2, range: { start: utf8(''), end: utf8('p') }, epoch: { confVer: 2, version: 10 } },
    });
  });

  it('refuses regions without a common border', () => {
    const far = sketchRegion({ id: 3, start: 'q' });
    expect(extendByMerge(left, far)).toMatchObject({ refusal: { code: 'NotSiblings' } });
    expect(extendByMerge(left, left)).toMatchObject({ refusal: { code: 'NotSiblings' } });
  });

  it('does not take plus infinity and minus infinity for a common border', () => {
    const last = sketchRegion({ id: 4, start: 'q' });
    const first = sketchRegion({ id: 5, end: 'b' });
    expect(extendByMerge(last, first)).toMatchObject({ refusal: { code: 'NotSiblings' } });
    expect(extendByMerge(first, last)).toMatchObject({ refusal: { code: 'NotSiblings' } });
  });

  it('raises both counters at PrepareMerge and the version at RollbackMerge', () => {
    expect(prepareMergeRegion(left).epoch).toEqual({ confVer: 5, version: 10 });
    expect(rollbackMergeRegion(left).epoch).toEqual({ confVer: 4, version: 10 });
  });
});

describe('changePeers', () => {
  const region = sketchRegion({
    id: 1,
    epoch: { confVer: 2, version: 1 },
    peers: [voter(11, 1), voter(12, 2), voter(13, 3, 'learner')],
  });
  const changed = (changes: readonly PeerChange[], from: Region = region): Region => {
    const result = changePeers(from, changes);
    if (result.type !== 'ok') {
      throw new Error(result.refusal.message);
    }
    return result.region;
  };

  it('adds, promotes, demotes and removes single peers', () => {
    expect(roles(changed([change('add-voter', 14, 4)]))).toEqual([...roles(region), '14:voter']);
    expect(roles(changed([change('add-learner', 14, 4)]))).toEqual([...roles(region), '14:learner']);
    expect(roles(changed([change('add-voter', 13, 3)]))).toEqual(['11:voter', '12:voter', '13:voter']);
    expect(roles(changed([change('add-learner', 12, 2)]))).toEqual(['11:voter', '12:learner', '13:learner']);
    const removed = changed([change('remove', 12, 2)]);
    expect(roles(removed)).toEqual(['11:voter', '13:learner']);
    expect(removed.epoch).toEqual({ confVer: 3, version: 1 });
  });

  it('enters and leaves a joint configuration', () => {
    const joint = changed([change('add-voter', 13, 3), change('add-learner', 12, 2), change('add-voter', 14, 4)]);
    expect(roles(joint)).toEqual(['11:voter', '12:demoting-voter', '13:incoming-voter', '14:incoming-voter']);
    expect(joint.epoch).toEqual({ confVer: 5, version: 1 });
    const left = changed([], joint);
    expect(roles(left)).toEqual(['11:voter', '12:learner', '13:voter', '14:voter']);
    expect(left.epoch).toEqual({ confVer: 8, version: 1 });
  });

  const wholeJoint = changed([change('add-voter', 13, 3), change('add-voter', 14, 4)]);

  it.each<[string, Region, readonly PeerChange[], string]>([
    ['a peer that is not there', region, [change('remove', 15, 5)], 'PeerNotFound'],
    ['another peer on the store', region, [change('remove', 99, 2)], 'PeerNotFound'],
    ['a second peer on a store', region, [change('add-voter', 99, 2)], 'StoreHasPeer'],
    ['a known id on another store', region, [change('add-voter', 11, 9)], 'PeerOnOtherStore'],
    ['a role the peer has', region, [change('add-voter', 11, 1)], 'RoleUnchanged'],
    ['a learner as learner', region, [change('add-learner', 13, 3)], 'RoleUnchanged'],
    ['a voter in a joint change', region, [change('remove', 12, 2), change('add-voter', 14, 4)], 'VoterRemovedInJoint'],
    ['one store twice', region, [change('remove', 13, 3), change('add-voter', 14, 3)], 'DuplicateChange'],
    ['a second change while joint', wholeJoint, [change('add-voter', 15, 5)], 'InJointState'],
    ['leaving without being joint', region, [], 'NotInJointState'],
    ['the last voter', sketchRegion({ id: 1, peers: [voter(11, 1)] }), [change('remove', 11, 1)], 'NoVoterLeft'],
  ])('refuses %s', (_name, from, changes, code) => {
    expect(changePeers(from, changes)).toMatchObject({ type: 'refused', refusal: { code } });
  });
});

describe('the epoch table', () => {
  const region = sketchRegion({ id: 1, epoch: { confVer: 4, version: 7 } });
  const target = sketchRegion({ id: 2, start: 'k' });
  const commands: Readonly<Record<AdminType, AdminCommand>> = {
    'batch-split': { type: 'batch-split', children: [] },
    'prepare-merge': { type: 'prepare-merge', minIndex: 1, target },
    'commit-merge': { type: 'commit-merge', source: target, commit: 1, entries: [] },
    'rollback-merge': { type: 'rollback-merge', commit: 1 },
    'compact-log': { type: 'compact-log', index: 1, term: 1 },
    'compute-hash': { type: 'compute-hash' },
    'verify-hash': { type: 'verify-hash', index: 1, hash: utf8('h') },
    'change-peer': { type: 'change-peer', changes: [] },
  };
  /** Which of the two counters each command compares and moves: c for confVer, v for version. */
  const table: Readonly<Record<AdminType, readonly [checks: string, changes: string]>> = {
    'batch-split': ['vc', 'v'],
    'prepare-merge': ['vc', 'vc'],
    'commit-merge': ['vc', 'v'],
    'rollback-merge': ['vc', 'v'],
    'compact-log': ['', ''],
    'compute-hash': ['', ''],
    'verify-hash': ['', ''],
    'change-peer': ['c', 'c'],
  };

  it.each(Object.keys(table) as AdminType[])('decides for %s', (type) => {
    const [checks, changes] = table[type];
    const row = epochChecks(type);
    expect([row.checksVersion, row.checksConfVer]).toEqual([checks.includes('v'), checks.includes('c')]);
    expect([row.changesVersion, row.changesConfVer]).toEqual([changes.includes('v'), changes.includes('c')]);
    const run = (confVer: number, version: number): boolean =>
      checkEpochAtApply({ type: 'admin', epoch: { confVer, version }, command: commands[type] }, region) === undefined;
    expect(run(4, 7)).toBe(true);
    // Neither an older nor a newer epoch is accepted where the counter is compared.
    for (const version of [6, 8]) {
      expect(run(4, version)).toBe(!checks.includes('v'));
    }
    for (const confVer of [3, 5]) {
      expect(run(confVer, 7)).toBe(!checks.includes('c'));
    }
    const assertMoved = (confVer: number, version: number): void =>
      assertEpochMoved(type, region, { ...region, epoch: { confVer: 4 + confVer, version: 7 + version } });
    const moves: readonly [number, number] = [changes.includes('c') ? 1 : 0, changes.includes('v') ? 1 : 0];
    expect(() => assertMoved(...moves)).not.toThrow();
    expect(() => assertMoved(1 - moves[0], moves[1])).toThrow('epoch');
    expect(() => assertMoved(moves[0], 1 - moves[1])).toThrow('epoch');
  });

  it('compares only the version for data and names the current region', () => {
    const run = (confVer: number, version: number): unknown =>
      checkEpochAtApply({ type: 'write', epoch: { confVer, version }, ops: [] }, region);
    expect(run(9, 7)).toBeUndefined();
    expect(run(4, 6)).toEqual({ type: 'epoch-not-match', currentRegions: [region] });
    expect(run(4, 8)).toEqual({ type: 'epoch-not-match', currentRegions: [region] });
  });

  it('knows every role a peer can have', () => {
    const all: readonly PeerRole[] = ['voter', 'learner', 'incoming-voter', 'demoting-voter'];
    const mixed = sketchRegion({ id: 1, peers: all.map((role, i) => voter(11 + i, 1 + i, role)) });
    const result = changePeers(mixed, []);
    expect(result.type === 'ok' && roles(result.region)).toEqual(['11:voter', '12:learner', '13:voter', '14:learner']);
  });
});
