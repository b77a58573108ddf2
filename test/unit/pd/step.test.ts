import { describe, expect, test } from 'vitest';
import { peerId, storeId } from '../../../src/base/ids.ts';
import { MIB } from '../../../src/base/units.ts';
import { type RegionInfo, unreportedRegion } from '../../../src/pd/cluster/region-info.ts';
import { DEFAULT_PLACEMENT_CONFIG } from '../../../src/pd/defaults.ts';
import {
  type Step,
  type StepView,
  checkStep,
  commandOf,
  confVerChanged,
  isFinished,
  timeoutMsOf,
} from '../../../src/pd/schedule/operator/step.ts';
import type { Peer } from '../../../src/meta/region.ts';
import { quorumRisk } from '../../../src/pd/schedule/operator/quorum-guard.ts';
import { makeRegion } from './world.ts';

const info = (on: readonly string[], extra: Partial<RegionInfo> = {}): RegionInfo => {
  const region = makeRegion({ id: 1, on });
  return { ...unreportedRegion(region), leader: region.peers[0], ...extra };
};

const ref = (store: number) => ({ storeId: storeId(store), peerId: peerId(100 + store) });
const view = (silent: Readonly<Record<number, number>> = {}): StepView => ({
  config: DEFAULT_PLACEMENT_CONFIG,
  silentMs: (store) => (store > 9 ? undefined : (silent[store] ?? 0)),
});

const addLearner: Step = { type: 'add-learner', ...ref(3) };
const promote: Step = { type: 'promote-learner', ...ref(3) };
const remove: Step = { type: 'remove-peer', storeId: storeId(3), peerId: peerId(103) };
const transfer: Step = { type: 'transfer-leader', toStore: storeId(2), candidates: [] };
const enter: Step = { type: 'enter-joint', promotes: [ref(3)], demotes: [ref(1)] };
const leave: Step = { type: 'leave-joint', promotes: [ref(3)], demotes: [ref(1)] };

describe('finished', () => {
  test('a learner is added when it is listed, a learner, and caught up', () => {
    expect(isFinished(addLearner, info(['1', '2']))).toBe(false);
    const added = info(['1', '2', '3L']);
    expect(isFinished(addLearner, { ...added, pendingPeers: added.region.peers.slice(2) })).toBe(false);
    expect(isFinished(addLearner, added)).toBe(true);
    expect(isFinished({ ...addLearner, peerId: peerId(999) }, added)).toBe(false);
  });

  test('a learner is promoted when it is a plain voter', () => {
    expect(isFinished(promote, info(['1', '2', '3L']))).toBe(false);
    expect(isFinished(promote, info(['1', '2', '3+']))).toBe(false);
    expect(isFinished(promote, info(['1', '2', '3']))).toBe(true);
  });

  test('a removal is finished when no peer is on the store', () => {
    expect(isFinished(remove, info(['1', '2', '3']))).toBe(false);
    expect(isFinished(remove, info(['1', '2']))).toBe(true);
  });

  test('a transfer is finished when the leader is there', () => {
    const region = info(['1', '2']);
    expect(isFinished(transfer, region)).toBe(false);
    expect(isFinished(transfer, { ...region, leader: region.region.peers[1] })).toBe(true);
    expect(isFinished(transfer, { ...region, leader: undefined })).toBe(false);
  });

  test('the joint state is entered when all listed peers changed, and left when none is between memberships', () => {
    expect(isFinished(enter, info(['1', '2', '3L']))).toBe(false);
    expect(isFinished(enter, info(['1-', '2', '3+']))).toBe(true);
    expect(isFinished(leave, info(['1-', '2', '3+']))).toBe(false);
    expect(isFinished(leave, info(['1L', '2', '3']))).toBe(true);
    expect(isFinished(leave, info(['1L', '2-', '3']))).toBe(false);
  });

  test('a split is finished when the range changed, a passive merge when the source is covered', () => {
    const source = makeRegion({ id: 1, start: '', end: 'm', on: ['1'] });
    const target = makeRegion({ id: 2, start: 'm', end: 'z', on: ['1'] });
    const passive: Step = { type: 'merge-region-passive', source, target };
    const seen = (start: string, end: string): RegionInfo =>
      unreportedRegion(makeRegion({ id: 2, start, end, on: ['1'] }));
    expect(isFinished(passive, seen('m', 'z'))).toBe(false);
    expect(isFinished(passive, seen('p', 'z'))).toBe(false);
    expect(isFinished(passive, seen('', 'z'))).toBe(true);
    const split: Step = { type: 'split-region', range: target.range, keys: [] };
    expect(isFinished(split, seen('m', 'z'))).toBe(false);
    expect(isFinished(split, seen('p', 'z'))).toBe(true);
  });
});

describe('membership changes accounted for', () => {
  test.each([
    ['add-learner before', addLearner, ['1', '2'], 0],
    ['add-learner after', addLearner, ['1', '2', '3L'], 1],
    ['promote before', promote, ['1', '2', '3L'], 0],
    ['promote after', promote, ['1', '2', '3'], 1],
    ['remove before', remove, ['1', '2', '3'], 0],
    ['remove after', remove, ['1', '2'], 1],
    ['transfer', transfer, ['1', '2'], 0],
    ['enter before', enter, ['1', '2', '3L'], 0],
    ['enter half way', enter, ['1', '2', '3+'], 0],
    ['enter after', enter, ['1-', '2', '3+'], 2],
    ['enter when the demoted peer is already gone', enter, ['2', '3'], 2],
    ['leave before', leave, ['1-', '2', '3+'], 0],
    ['leave after', leave, ['1L', '2', '3'], 2],
  ] as const)('%s', (_what, step, on, expected) => {
    expect(confVerChanged(step, makeRegion({ id: 1, on }))).toBe(expected);
  });

  test('a removal whose store holds another peer by now counts as done', () => {
    expect(confVerChanged({ ...remove, peerId: peerId(1) }, makeRegion({ id: 1, on: ['1', '3'] }))).toBe(1);
    expect(confVerChanged({ ...remove, peerId: undefined }, makeRegion({ id: 1, on: ['1', '3'] }))).toBe(0);
  });
});

describe('staleness', () => {
  test('a learner cannot be added where another peer sits, where it votes already, or on a silent or unknown store', () => {
    expect(checkStep({ ...addLearner, peerId: peerId(9) }, info(['1', '3L']), view())?.code).toBe('StepStale');
    expect(checkStep(addLearner, info(['1', '3']), view())?.code).toBe('StepStale');
    expect(checkStep(addLearner, info(['1']), view({ 3: 60_001 }))?.code).toBe('StoreDisconnected');
    expect(checkStep(addLearner, info(['1']), view({ 3: 60_000 }))).toBeUndefined();
    expect(checkStep({ type: 'add-learner', storeId: storeId(10), peerId: peerId(1) }, info(['1']), view())?.code).toBe(
      'StepStale',
    );
  });

  test('a joint change does not begin while a learner it promotes is on a silent store, and goes on once it has', () => {
    expect(checkStep(enter, info(['1', '2', '3L']), view({ 3: 60_001 }))?.code).toBe('StoreDisconnected');
    expect(checkStep(enter, info(['1', '2', '3L']), view({ 1: 60_001 }))).toBeUndefined();
    expect(checkStep(enter, info(['1-', '2', '3+']), view({ 3: 60_001 }))).toBeUndefined();
  });

  test('a peer that leads cannot be removed', () => {
    expect(checkStep({ ...remove, storeId: storeId(1) }, info(['1', '3']), view())?.code).toBe('StepStale');
    expect(checkStep(remove, info(['1', '3']), view())).toBeUndefined();
  });

  test('the lead goes only to a voter that is up; one good candidate is enough', () => {
    expect(checkStep(transfer, info(['1', '2L']), view())?.code).toBe('StepStale');
    expect(checkStep(transfer, info(['1', '3']), view())?.code).toBe('StepStale');
    expect(checkStep(transfer, info(['1', '2']), view({ 2: 90_000 }))?.code).toBe('StoreDisconnected');
    const down = info(['1', '2']);
    const peer = down.region.peers[1];
    expect(
      checkStep(transfer, { ...down, downPeers: peer === undefined ? [] : [{ peer, downSeconds: 1 }] }, view())?.code,
    ).toBe('StepStale');
    expect(checkStep({ ...transfer, candidates: [storeId(3)] }, info(['1', '2L', '3']), view())).toBeUndefined();
  });

  test('a joint step needs all listed peers before it or all behind it, and no foreign one inside', () => {
    expect(checkStep(enter, info(['1', '2', '3L']), view())).toBeUndefined();
    expect(checkStep(enter, info(['1', '2']), view())?.code).toBe('StepStale');
    expect(checkStep(enter, info(['1-', '2', '3L']), view())?.code).toBe('StepStale');
    expect(checkStep(enter, info(['1', '2-', '3L']), view())?.code).toBe('StepStale');
    expect(checkStep(enter, info(['1', '2', '3']), view())?.code).toBe('StepStale');
  });

  test('the joint state is not left while that would demote the leader', () => {
    const region = info(['1-', '2', '3+']);
    expect(checkStep(leave, region, view())?.code).toBe('StepStale');
    expect(checkStep(leave, { ...region, leader: region.region.peers[1] }, view())).toBeUndefined();
  });
});

describe('commands', () => {
  test('nothing is sent while the new learner is on its way', () => {
    expect(commandOf(addLearner, info(['1', '2']))).toMatchObject({
      type: 'change-peer',
      change: { type: 'add-learner' },
    });
    expect(commandOf(addLearner, info(['1', '2', '3L']))).toBeUndefined();
  });

  test('several changes enter a joint state, none leaves it, a lone one is made directly', () => {
    expect(commandOf(enter, info(['1', '2', '3L']))).toMatchObject({
      type: 'change-peer-joint',
      changes: [
        { type: 'add-voter', peer: { id: 103 } },
        { type: 'add-learner', peer: { id: 101 } },
      ],
    });
    expect(commandOf(leave, info(['1-', '2', '3+']))).toEqual({ type: 'change-peer-joint', changes: [] });
    expect(commandOf({ type: 'enter-joint', promotes: [], demotes: [ref(2)] }, info(['1', '2']))).toMatchObject({
      type: 'change-peer',
      change: { type: 'add-learner', peer: { id: 102 } },
    });
  });

  test('no learner is promoted while it lacks data or is silent', () => {
    const ready = info(['1', '2', '3L']);
    const behind = { ...ready, pendingPeers: ready.region.peers.slice(2) };
    expect(commandOf(promote, ready)).toMatchObject({ type: 'change-peer' });
    expect(commandOf(promote, behind)).toBeUndefined();
    expect(commandOf(enter, ready)).toMatchObject({ type: 'change-peer-joint' });
    expect(commandOf(enter, behind)).toBeUndefined();
    const silent = { ...ready, downPeers: ready.region.peers.slice(2).map((peer) => ({ peer, downSeconds: 9 })) };
    expect(commandOf(promote, silent)).toBeUndefined();
  });

  test('the lead is offered to voters only', () => {
    const command = commandOf({ ...transfer, candidates: [storeId(3)] }, info(['1', '2L', '3']));
    expect(command).toMatchObject({ type: 'transfer-leader', peer: { storeId: 3 }, candidates: [{ storeId: 3 }] });
  });
});

describe('time limits', () => {
  const config = DEFAULT_PLACEMENT_CONFIG;
  test('quick steps take a minute or 0.6 s per MiB, copying steps ten minutes or 6 s per MiB', () => {
    expect(timeoutMsOf(transfer, 0, config)).toBe(60_000);
    expect(timeoutMsOf(transfer, 200 * MIB, config)).toBe(120_000);
    expect(timeoutMsOf(addLearner, 0, config)).toBe(600_000);
    expect(timeoutMsOf(addLearner, 200 * MIB, config)).toBe(1_200_000);
  });

  test('joint steps get one quick limit per member and one more, merges ten', () => {
    const region = makeRegion({ id: 1, on: ['1'] });
    expect(timeoutMsOf(enter, 0, config)).toBe(180_000);
    expect(timeoutMsOf({ type: 'merge-region', source: region, target: region }, 0, config)).toBe(600_000);
  });
});

describe('quorum guard', () => {
  const silentFor = DEFAULT_PLACEMENT_CONFIG.stepStoreSilentMs + 1;
  const demote: Step = { type: 'enter-joint', promotes: [], demotes: [ref(1)] };

  test('nobody stops voting while those who stay are no majority', () => {
    const region = info(['1', '2', '3']);
    const peers = region.region.peers;
    expect(quorumRisk(demote, region, view())).toBeUndefined();
    expect(quorumRisk(demote, region, view({ 3: silentFor }))).toContain('store 3');
    expect(quorumRisk(demote, { ...region, pendingPeers: peers.slice(2) }, view())).toContain('store 3');
    expect(
      quorumRisk(demote, { ...region, downPeers: [{ peer: peers[2] as Peer, downSeconds: 9 }] }, view()),
    ).toContain('no majority');
    const out: Step = { type: 'remove-peer', storeId: storeId(1), peerId: peerId(101) };
    expect(quorumRisk(out, region, view({ 3: silentFor }))).toContain('store 3');
    // Without the silent one the others are a majority.
    expect(quorumRisk(remove, region, view({ 3: silentFor }))).toBeUndefined();
    // A learner does not count.
    expect(quorumRisk(out, info(['1L', '2', '3']), view({ 4: silentFor }))).toBeUndefined();
  });

  test('a joint change is weighed on both sides, and a promotion by the larger number', () => {
    const region = info(['1', '2', '3L', '4']);
    expect(quorumRisk(enter, region, view({ 4: silentFor }))).toBeUndefined();
    expect(quorumRisk(enter, region, view({ 2: silentFor, 3: silentFor }))).toContain('store 2, 3');
    expect(quorumRisk(promote, info(['1', '2', '3L']), view({ 2: silentFor, 3: silentFor }))).toContain('store 2, 3');
  });

  test('a region that lost its majority is not kept from help', () => {
    const lost = DEFAULT_PLACEMENT_CONFIG.storeDownMs + 1;
    expect(quorumRisk(demote, info(['1', '2', '3']), view({ 2: lost, 3: lost }))).toBeUndefined();
  });

  test('what changes no vote is never held back', () => {
    for (const step of [addLearner, transfer]) {
      expect(quorumRisk(step, info(['1', '2']), view({ 2: silentFor }))).toBeUndefined();
    }
  });
});
