import { describe, expect, test } from 'vitest';
import { type RefusedStep, type StepRefusalCode, stepRefusal } from '../../../src/meta/step-refusal.ts';
import { stepProgress } from '../../../src/pd/schedule/operator/progress.ts';
import { R, S, World, accepted, key } from './world.ts';

function pairWorld(): World {
  const world = new World({}, [1, 2, 3]);
  world.region({ id: 1, start: '', end: 'm', on: ['1', '2'] });
  world.region({ id: 2, start: 'm', end: '', on: ['1', '2'] });
  return world;
}

/** The leader's store refuses what was sent last and reports it. */
function refuse(world: World, id: number, step: RefusedStep, code: StepRefusalCode, message = 'because'): void {
  world.placement.onRegionHeartbeat({
    ...world.heartbeatOf(id),
    refusal: stepRefusal(step, code, message, world.truth(id).region.epoch),
  });
}

const eventsOf = (world: World, type: string): string[] =>
  world.placement.events
    .after(0, 1000)
    .filter((event) => event.type === type)
    .map((event) => event.message);

describe('a step that its store refuses', () => {
  test('for a passing reason is sent again, and the reason is kept and counted', () => {
    const world = pairWorld();
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.take();
    refuse(world, 1, 'merge', 'LogGapTooLarge', 'peer 102 is at 4 of 90');
    refuse(world, 1, 'merge', 'LogGapTooLarge', 'peer 102 is at 6 of 90');
    expect(operator.status).toBe('started');
    expect(operator.lastRefusal).toMatchObject({
      code: 'LogGapTooLarge',
      message: 'peer 102 is at 6 of 90',
      storeId: 1,
      regionId: 1,
      count: 2,
      outlook: 'passing',
    });
    expect(operator.lastRefusal?.hint).toContain('caught up');
    expect(stepProgress(operator, world.placement.cluster.config).at(-1)?.detail).toBe(
      'store 1 refused (LogGapTooLarge): peer 102 is at 6 of 90',
    );
    expect(eventsOf(world, 'step-refused')).toHaveLength(1);
    world.advance(2_000);
    world.beatAll();
    world.placement.tickOperators();
    expect(world.take().map((command) => command.step.type)).toEqual(['merge']);
    refuse(world, 1, 'merge', 'TargetBehind');
    expect(operator.lastRefusal).toMatchObject({ code: 'TargetBehind', count: 1 });
    expect(eventsOf(world, 'step-refused')).toHaveLength(2);
  });

  test('is not sent again by the report of the refusal, only when its time has come', () => {
    const world = pairWorld();
    accepted(world.placement.addPeer(R(1), S(3), 'learner'));
    expect(world.take()).toHaveLength(1);
    for (let i = 0; i < 5; i++) {
      refuse(world, 1, 'change-peer', 'ConfChangePending');
      expect(world.take()).toEqual([]);
    }
    world.advance(500);
    world.placement.tickOperators();
    expect(world.take().map(({ step }) => step.type)).toEqual(['change-peer']);
  });

  test('for a lasting reason ends the operator and its partner at once', () => {
    const world = pairWorld();
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.take();
    refuse(world, 1, 'merge', 'TargetChanged', 'target region 2 is newer');
    expect([operator.status, operator.reason?.code]).toEqual(['canceled', 'StoreRefused']);
    expect(operator.reason?.text).toBe('store 1 refused (TargetChanged): target region 2 is newer');
    expect(operator.reason?.hint).toContain('ask for the merge again');
    expect([operator.related?.status, operator.related?.reason?.code]).toEqual(['canceled', 'RelatedMergeRegion']);
    expect(world.placement.controller.running()).toEqual([]);
  });

  test('a split that finds nothing to split ends without waiting for its time', () => {
    const world = pairWorld();
    const operator = accepted(world.placement.splitRegion(R(1), []));
    world.take();
    refuse(world, 1, 'split', 'NothingToSplit', 'region 1 has fewer than two keys');
    expect(operator.reason).toMatchObject({ code: 'StoreRefused' });
    expect(operator.reason?.text).toContain('NothingToSplit');
  });

  test('a membership change is matched by its kind', () => {
    const world = pairWorld();
    const operator = accepted(world.placement.addPeer(R(1), S(3), 'voter'));
    world.take();
    refuse(world, 1, 'change-peer-joint', 'WouldLoseQuorum', 'only 1 of 3 voters answers');
    expect(operator.status).toBe('started');
    expect(operator.lastRefusal?.code).toBe('WouldLoseQuorum');
  });

  test.each([
    ['of another kind', 'split' as const, true],
    ['at another epoch', 'merge' as const, false],
  ])('a refusal %s ends nothing', (_what, step, sameEpoch) => {
    const world = pairWorld();
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.take();
    const { epoch } = world.truth(1).region;
    world.placement.onRegionHeartbeat({
      ...world.heartbeatOf(1),
      refusal: stepRefusal(step, 'TargetChanged', 'old news', {
        ...epoch,
        version: epoch.version + (sameEpoch ? 0 : -1),
      }),
    });
    expect(operator.status).toBe('started');
  });

  test('nothing that a store says ends a prepared merge; the target may say what holds it up', () => {
    const world = pairWorld();
    const operator = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.settle();
    world.report(1);
    expect(operator.mergeProgress.type).toBe('prepared');
    refuse(world, 1, 'merge', 'TargetChanged');
    refuse(world, 2, 'commit-merge', 'LeaderTransferring', 'region 2 is transferring its leadership');
    expect(operator.status).toBe('started');
    expect(operator.lastRefusal).toMatchObject({ regionId: 2, step: 'commit-merge', code: 'LeaderTransferring' });
  });

  test('a refusal that arrives with the proof of success counts for nothing', () => {
    const world = pairWorld();
    const operator = accepted(world.placement.splitRegion(R(1), [key('c')]));
    const { epoch } = world.truth(1).region;
    world.take().forEach((command) => world.execute(command));
    world.placement.onRegionHeartbeat({
      ...world.heartbeatOf(1),
      refusal: stepRefusal('split', 'BadSplitKeys', 'a repeated command', epoch),
    });
    expect(operator.status).toBe('success');
  });

  test('nothing is made of a refusal when nothing is running', () => {
    const world = pairWorld();
    refuse(world, 1, 'merge', 'TargetChanged');
    expect(eventsOf(world, 'step-refused')).toEqual([]);
  });
});
