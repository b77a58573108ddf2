import { describe, expect, test } from 'vitest';
import type { PlacementConfig } from '../../../src/pd/defaults.ts';
import type { Operator } from '../../../src/pd/schedule/operator/operator.ts';
import { phaseProgress } from '../../../src/pd/schedule/operator/progress.ts';
import { MIB } from '../../../src/base/units.ts';
import { R, S, World, accepted, key, refusedWith, stepsOf } from './world.ts';

/** Region 1 = [-inf, m) and region 2 = [m, +inf). */
function mergeWorld(
  source: readonly string[],
  target: readonly string[],
  config: Partial<PlacementConfig> = {},
): World {
  const world = new World(config, [1, 2, 3, 4, 5, 6]);
  world.region({ id: 1, start: '', end: 'm', on: source });
  world.region({ id: 2, start: 'm', end: '', on: target });
  return world;
}

const phases = (world: World, operator: Operator): string =>
  phaseProgress(operator, world.placement.cluster.config)
    .map((phase) => `${phase.name}:${phase.state}`)
    .join(' ');

const running = (world: World): number[] => world.placement.controller.running().map((operator) => operator.regionId);

describe('alignment moves only the source', () => {
  const cases: [string, readonly string[], readonly string[], readonly string[]][] = [
    ['nothing to do', ['1', '2'], ['1', '2'], []],
    [
      'one replaced, the leader leaves',
      ['1', '2'],
      ['2', '3'],
      [
        'add learner on store 3',
        'transfer leader to store 2',
        'enter joint state (+3 -1)',
        'leave joint state',
        'remove peer on store 1',
      ],
    ],
    [
      'one replaced, the leader stays',
      ['1', '2', '3'],
      ['1', '2', '4'],
      ['add learner on store 4', 'enter joint state (+4 -3)', 'leave joint state', 'remove peer on store 3'],
    ],
    [
      'all replaced',
      ['1', '2', '3'],
      ['4', '5', '6'],
      [
        'add learner on store 4',
        'add learner on store 5',
        'add learner on store 6',
        'enter joint state (+4 +5 +6 -1 -2 -3)',
        // Region 2 already leads on store 4, so the lead goes to the first store without leaders.
        'transfer leader to store 5',
        'leave joint state',
        'remove peer on store 1',
        'remove peer on store 2',
        'remove peer on store 3',
      ],
    ],
    ['one missing', ['1', '2'], ['1', '2', '3'], ['add learner on store 3', 'promote learner on store 3']],
    ['one too many', ['1', '2', '3'], ['1', '2'], ['remove peer on store 3']],
    ['a learner to promote', ['1', '2', '3L'], ['1', '2', '3'], ['promote learner on store 3']],
    ['a voter to demote', ['1', '2', '3'], ['1', '2', '3L'], ['enter joint state (-3)']],
  ];

  test.each(cases)('%s', (_what, source, target, align) => {
    const world = mergeWorld(source, target);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    expect(stepsOf(operator)).toEqual([...align, 'merge region 1 into region 2']);
    expect(running(world)).toEqual([1, 2]);
    world.settle();
    expect(operator.mergeProgress.type).toBe('sent');
    const shape = (id: number): string => world.shape(id);
    expect(shape(1)).toBe(shape(2));
    expect(world.truth(2).region.epoch).toEqual({ confVer: 1, version: 1 });
    expect(world.truth(1).merging).toBe(true);
  });

  test('without joint steps additions and removals alternate', () => {
    const world = mergeWorld(['1', '2'], ['2', '3'], { jointConsensus: false });
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    expect(stepsOf(operator).slice(0, -1)).toEqual([
      'add learner on store 3',
      'promote learner on store 3',
      'transfer leader to store 2',
      'remove peer on store 1',
    ]);
    world.settle();
    expect(world.shape(1)).toBe('2 3');
  });

  test('leaders need not be together and peer ids differ', () => {
    const world = mergeWorld(['1', '2'], ['2', '1']);
    expect(stepsOf(accepted(world.placement.mergeRegions(R(1), R(2))))).toEqual(['merge region 1 into region 2']);
  });
});

describe('a merge that is committed', () => {
  test('ends both operators with success when the target covers the source, and the source leaves the map', () => {
    const world = mergeWorld(['1', '2', '3'], ['1', '2', '4']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    expect(phases(world, operator)).toBe('align:running prepare:waiting catch-up:waiting commit:waiting');
    world.settle();
    expect(phases(world, operator)).toBe('align:done prepare:running catch-up:waiting commit:waiting');
    world.report(1);
    expect(phases(world, operator)).toBe('align:done prepare:done catch-up:running commit:waiting');
    expect(operator.isCancelable).toBe(false);
    world.commitMerge(1, 2);
    world.report(2);
    expect(phases(world, operator)).toBe('align:done prepare:done catch-up:done commit:done');
    expect([operator.status, operator.related?.status]).toEqual(['success', 'success']);
    expect(running(world)).toEqual([]);
    expect(world.placement.cluster.tree.get(R(1))).toBeUndefined();
    expect(world.placement.cluster.tree.find(key('a'))?.region.id).toBe(2);
    expect(world.placement.takeEffects().deletes).toContain(1);
  });

  test('succeeds as well when no report of the prepared source ever arrived', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.take().forEach((command) => world.execute(command));
    world.commitMerge(1, 2);
    world.report(2);
    expect([operator.status, operator.related?.status]).toEqual(['success', 'success']);
    expect(phases(world, operator)).toBe('align:done prepare:done catch-up:done commit:done');
  });

  test('a late report of the source is refused', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    accepted(world.placement.mergeRegions(R(1), R(2)));
    world.settle();
    const late = world.heartbeatOf(1);
    world.commitMerge(1, 2);
    world.report(2);
    expect(world.placement.onRegionHeartbeat(late)).toMatchObject({ type: 'stale', reason: 'overlap-version' });
  });

  test('the prepared source is not asked again and not canceled by its own epoch change', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.settle();
    for (let i = 0; i < 10; i++) {
      world.advance(5_000);
      world.beatAll();
      world.report(1);
      world.report(2);
      world.placement.tickOperators();
    }
    expect(world.take()).toEqual([]);
    expect(operator.status).toBe('started');
  });
});

describe('a merge that is not committed', () => {
  test('a rollback cancels both operators and says that nothing was lost', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.settle();
    world.report(1);
    world.splitTruth(2, [key('p')]);
    world.report(2);
    expect(operator.status).toBe('started');
    world.rollbackMerge(1);
    world.report(1);
    expect([operator.status, operator.reason?.code]).toEqual(['canceled', 'RolledBack']);
    expect([operator.related?.status, operator.related?.reason?.code]).toEqual(['canceled', 'RelatedMergeRegion']);
    expect(phases(world, operator)).toBe('align:done prepare:done catch-up:failed rollback:done');
    expect(running(world)).toEqual([]);
  });

  test('a rollback is recognized even when the prepared state was never reported', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.take().forEach((command) => world.execute(command));
    world.rollbackMerge(1);
    world.report(1);
    expect(operator.reason?.code).toBe('RolledBack');
  });

  test.each([
    ['while the source is aligned', ['1', '2', '3']],
    ['after the command was sent but not seen to be prepared', ['1', '2', '4']],
  ])('a target that splits ends the pair %s', (_when, source) => {
    const world = mergeWorld(source, ['1', '2', '4']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.take();
    world.splitTruth(2, [key('p')]);
    world.report(2);
    expect([operator.status, operator.related?.status]).toEqual(['canceled', 'canceled']);
    expect(operator.related?.reason?.code).toBe('TargetChanged');
    expect(running(world)).toEqual([]);
  });

  test('a target that splits unseen is noticed before the command is sent', () => {
    const world = mergeWorld(['1', '2'], ['1', '2', '3']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.splitTruth(2, [key('p')]);
    const child = [...world.regions.keys()].find((id) => id > 100);
    world.report(child as number);
    world.settle();
    expect(operator.status).toBe('canceled');
    expect(world.sent.some((command) => command.step.type === 'merge')).toBe(false);
  });

  test('a source that splits while it is aligned ends the pair', () => {
    const world = mergeWorld(['1', '2'], ['1', '2', '3']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.take();
    world.splitTruth(1, [key('c')]);
    world.report(1);
    expect([operator.status, operator.reason?.code]).toEqual(['canceled', 'EpochNotMatch']);
    expect(running(world)).toEqual([]);
  });

  test('a region that loses a peer before the command was sent makes room for repair', () => {
    for (const sick of [1, 2]) {
      const world = mergeWorld(['1', '2', '3'], ['1', '2', '4']);
      const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
      world.take();
      world.truth(sick).down.add(2);
      world.report(sick);
      const ended = sick === 1 ? operator : operator.related;
      expect([ended?.status, ended?.reason?.code]).toEqual(['canceled', 'RegionUnhealthy']);
      expect(running(world)).toEqual([]);
    }
  });

  test('a region that loses a peer after the merge was prepared is left to the stores', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.settle();
    world.report(1);
    world.truth(2).down.add(2);
    world.report(2);
    world.placement.tickOperators();
    expect(operator.status).toBe('started');
  });

  test('a peer that is still catching up holds the command back', () => {
    const world = mergeWorld(['1', '2'], ['1', '2', '3']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.truth(2).pending.add(3);
    world.report(2);
    world.settle();
    expect(operator.currentStep?.type).toBe('merge-region');
    expect(operator.stepTimes.at(-1)?.detail).toContain('catching up');
    expect(world.sent.some((command) => command.step.type === 'merge')).toBe(false);
    world.truth(2).pending.clear();
    world.report(2);
    world.advance(5_000);
    world.beatAll();
    world.placement.tickOperators();
    world.settle();
    expect(operator.mergeProgress.type).toBe('sent');
  });

  test('the command is sent again while the source has not prepared', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    expect(world.take().map((command) => command.step.type)).toEqual(['merge']);
    world.advance(1_999);
    world.report(1);
    expect(world.take()).toEqual([]);
    world.advance(1);
    world.placement.tickOperators();
    expect(world.take().map((command) => command.step.type)).toEqual(['merge']);
    expect(operator.stepTimes.at(-1)?.sends).toBe(2);
  });

  test('both operators time out together, with the time of the source', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    expect(operator.related?.timeoutMs).toBe(operator.timeoutMs);
    world.advance(operator.timeoutMs + 1);
    world.beatAll();
    world.placement.tickOperators();
    expect([operator.status, operator.related?.status]).toEqual(['timeout', 'timeout']);
    expect(running(world)).toEqual([]);
  });

  test.each([1, 2])('canceling the operator of region %i cancels both', (region) => {
    const world = mergeWorld(['1', '2'], ['1', '2', '3']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    const one = world.placement.controller.runningOn(R(region)) as Operator;
    expect(one.isCancelable).toBe(true);
    expect(world.placement.cancelOperator(one, 'test')).toBeUndefined();
    expect([operator.status, operator.related?.status]).toEqual(['canceled', 'canceled']);
    expect(running(world)).toEqual([]);
  });

  test('canceling after the command was sent says that it cannot be undone', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    expect(operator.isCancelable).toBe(false);
    world.placement.cancelOperator(operator, 'test');
    expect(operator.reason?.hint).toContain('commit it or roll it back');
  });
});

describe('refusals change nothing', () => {
  function refusal(world: World, source: number, target: number): string {
    const before = running(world);
    const code = refusedWith(world.placement.mergeRegions(R(source), R(target)));
    expect(running(world)).toEqual(before);
    return code;
  }

  test('unknown regions, the same region, regions that do not touch', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    world.splitTruth(2, [key('p')]).forEach((child) => world.report(child));
    world.report(2);
    expect(refusal(world, 9, 2)).toBe('RegionNotFound');
    expect(refusal(world, 1, 9)).toBe('RegionNotFound');
    expect(refusal(world, 1, 1)).toBe('SameRegion');
    expect(refusal(world, 1, 2)).toBe('NotAdjacent');
  });

  test('the last and the first region of the key space do not touch', () => {
    const world = new World({}, [1]);
    world.region({ id: 1, start: '', end: 'b', on: ['1'] });
    world.region({ id: 2, start: 'y', end: '', on: ['1'] });
    expect(refusal(world, 1, 2)).toBe('NotAdjacent');
    expect(refusal(world, 2, 1)).toBe('NotAdjacent');
  });

  test.each([1, 2])('a down peer, a pending peer, a joint state, a prepared merge of region %i', (sick) => {
    const world = mergeWorld(['1', '2', '3'], ['1', '2', '3']);
    const truth = world.truth(sick);
    truth.down.add(2);
    world.report(sick);
    expect(refusal(world, 1, 2)).toBe('DownPeer');
    truth.down.clear();
    truth.pending.add(3);
    world.report(sick);
    expect(refusal(world, 1, 2)).toBe('PendingPeer');
    truth.pending.clear();
    truth.merging = true;
    world.report(sick);
    expect(refusal(world, 1, 2)).toBe('MergeInProgress');
    truth.merging = false;
    truth.region = {
      ...truth.region,
      peers: truth.region.peers.map((peer) => (peer.storeId === 3 ? { ...peer, role: 'demoting-voter' } : peer)),
      epoch: { ...truth.region.epoch, confVer: 2 },
    };
    world.report(sick);
    expect(refusal(world, 1, 2)).toBe('JointState');
  });

  test('a region that another merge holds', () => {
    const world = mergeWorld(['1', '2'], ['1', '2', '3']);
    world.splitTruth(2, [key('p')]).forEach((child) => world.report(child));
    world.report(2);
    const middle = world.placement.cluster.tree.find(key('n'))?.region.id as number;
    accepted(world.placement.mergeRegions(R(1), R(middle)));
    expect(refusal(world, 2, middle)).toBe('OperatorExists');
    expect(refusal(world, middle, 2)).toBe('OperatorExists');
  });

  test('a target on a store that is silent or being emptied, when the source would have to go there', () => {
    const world = mergeWorld(['1', '2'], ['2', '3']);
    world.advance(20_000);
    world.beatAll([3]);
    expect(refusal(world, 1, 2)).toBe('StoreDisconnected');
  });

  test('regions that are too large together', () => {
    const world = mergeWorld(['1', '2'], ['1', '2'], { mergedSizeMaxBytes: 100 * MIB });
    world.truth(1).sizeBytes = 60 * MIB;
    world.truth(2).sizeBytes = 41 * MIB;
    world.report(1);
    world.report(2);
    expect(refusal(world, 1, 2)).toBe('MergedTooLarge');
  });

  test('the merge of an administrator ignores young splits, an automatic one does not', () => {
    const world = mergeWorld(['1', '2', '3'], ['1', '2', '3'], { splitMergeIntervalMs: 10_000 });
    world.advance(10_000);
    world.beatAll();
    world.placement.coordinator.noteSplit([R(1)]);
    const failed = world.placement.explainMerge(R(1), R(2), true).filter((check) => check.refusal !== undefined);
    expect(failed.map((check) => [check.name, check.refusal?.code])).toEqual([
      ['source-not-recently-split', 'RecentlySplit'],
    ]);
    expect(world.placement.explainMerge(R(1), R(2), false).every((check) => check.refusal === undefined)).toBe(true);
    accepted(world.placement.mergeRegions(R(1), R(2)));
  });

  test('a merge alone on one region is not admitted', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const operator = accepted(world.placement.mergeRegions(R(1), R(2), { dryRun: true }));
    expect(world.placement.controller.submit([operator])?.code).toBe('LonelyMerge');
    expect(world.placement.controller.submit([operator.related as Operator])?.code).toBe('LonelyMerge');
    expect(running(world)).toEqual([]);
  });

  test('neither half is installed when the other one cannot be', () => {
    const world = mergeWorld(['1', '2'], ['1', '2']);
    const source = accepted(world.placement.mergeRegions(R(1), R(2), { dryRun: true }));
    accepted(world.placement.transferLeader(R(2), S(2)));
    expect(world.placement.controller.submit([source, source.related as Operator])?.code).toBe('OperatorExists');
    expect(running(world)).toEqual([2]);
    expect(source.status).toBe('created');
  });
});
