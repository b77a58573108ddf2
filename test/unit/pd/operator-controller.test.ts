import { describe, expect, test } from 'vitest';
import type { Operator } from '../../../src/pd/schedule/operator/operator.ts';
import { phaseProgress, stepProgress } from '../../../src/pd/schedule/operator/progress.ts';
import { R, S, World, accepted, key, peersOf, refusedWith, stepsOf } from './world.ts';

const ADMIN = { actor: 'test' };

describe('a move', () => {
  function moveWorld(): World {
    const world = new World({}, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    return world;
  }

  test('replaces the peer, hands the lead over first when the leader leaves, and succeeds only on reports', () => {
    const world = moveWorld();
    const operator = accepted(world.placement.moveRegion(R(1), S(1), S(4), ADMIN));
    expect(stepsOf(operator)).toEqual([
      'add learner on store 4',
      'transfer leader to store 2',
      'enter joint state (+4 -1)',
      'leave joint state',
      'remove peer on store 1',
    ]);
    world.settle();
    expect(operator.status).toBe('success');
    expect(world.shape(1)).toBe('2 3 4');
    expect(world.truth(1).leader.storeId).toBe(2);
    expect(world.placement.controller.runningOn(R(1))).toBeUndefined();
    expect(phaseProgress(operator, world.placement.cluster.config).map((phase) => [phase.name, phase.state])).toEqual([
      ['add-learner', 'done'],
      ['transfer', 'done'],
      ['promote', 'done'],
      ['remove', 'done'],
    ]);
  });

  test('waits while the new learner is catching up and says so', () => {
    const world = moveWorld();
    const operator = accepted(world.placement.moveRegion(R(1), S(3), S(4), ADMIN));
    const [command] = world.take();
    world.truth(1).pending.add(4);
    expect(command !== undefined && world.execute(command)).toBe(true);
    world.report(1);
    expect(world.take()).toEqual([]);
    const [step] = stepProgress(operator, world.placement.cluster.config);
    expect(step).toMatchObject({
      state: 'running',
      current: true,
      sends: 1,
      detail: 'snapshot or log on its way to store 4',
    });
    world.truth(1).pending.clear();
    world.report(1);
    expect(operator.currentIndex).toBe(1);
  });

  test('one by one works as well', () => {
    const world = new World({ jointConsensus: false }, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    const operator = accepted(world.placement.moveRegion(R(1), S(1), S(4), ADMIN));
    world.settle();
    expect([operator.status, world.shape(1)]).toEqual(['success', '2 3 4']);
  });

  test('is refused when it makes no sense', () => {
    const world = moveWorld();
    const move = (region: number, from: number, to: number) =>
      refusedWith(world.placement.moveRegion(R(region), S(from), S(to), ADMIN));
    expect(move(9, 1, 4)).toBe('RegionNotFound');
    expect(move(1, 4, 3)).toBe('PeerNotFound');
    expect(move(1, 1, 2)).toBe('PeerExists');
    expect(move(1, 1, 9)).toBe('StoreNotFound');
    world.advance(25_000);
    world.beatAll([4]);
    expect(move(1, 1, 4)).toBe('StoreDisconnected');
    expect(world.take()).toEqual([]);
    expect(world.placement.controller.running()).toEqual([]);
  });

  test('uses a learner that was left behind on the new store, once it has the data', () => {
    const world = new World({}, [1, 2, 3, 4]);
    const truth = world.region({ id: 1, on: ['1', '2', '3', '4L'] });
    truth.pending.add(4);
    world.report(1);
    expect(refusedWith(world.placement.moveRegion(R(1), S(3), S(4), ADMIN))).toBe('PendingPeer');
    expect(refusedWith(world.placement.addPeer(R(1), S(4), 'voter', ADMIN))).toBe('PendingPeer');
    truth.pending.clear();
    world.report(1);
    const operator = accepted(world.placement.moveRegion(R(1), S(3), S(4), ADMIN));
    world.settle();
    expect([operator.status, world.shape(1)]).toEqual(['success', '1 2 4']);
  });

  test('to where the peer is already is nothing to do', () => {
    const world = moveWorld();
    expect(world.placement.moveRegion(R(1), S(1), S(1), ADMIN)).toEqual({ type: 'ok', value: { operator: undefined } });
  });

  test('a dry run plans and starts nothing', () => {
    const world = moveWorld();
    const operator = accepted(world.placement.moveRegion(R(1), S(1), S(4), { ...ADMIN, dryRun: true }));
    expect(operator.steps.length).toBe(5);
    expect([world.take(), world.placement.controller.running()]).toEqual([[], []]);
  });

  test('an expected epoch that is not the current one is refused', () => {
    const world = moveWorld();
    const expectEpoch = { confVer: 1, version: 2 };
    expect(refusedWith(world.placement.moveRegion(R(1), S(1), S(4), { ...ADMIN, expectEpoch }))).toBe('EpochChanged');
  });

  test('is given up when its new store falls silent for a minute', () => {
    const world = moveWorld();
    const operator = accepted(world.placement.moveRegion(R(1), S(3), S(4), ADMIN));
    world.take();
    world.advance(60_001);
    world.beatAll([4]);
    world.placement.tickOperators();
    expect([operator.status, operator.reason?.code]).toEqual(['canceled', 'StoreDisconnected']);
    expect(operator.reason?.hint).not.toBe('');
  });
});

describe('progress', () => {
  test('a membership change by somebody else cancels the operator, its own changes do not', () => {
    const world = new World({}, [1, 2, 3, 4]);
    const truth = world.region({ id: 1, on: ['1', '2', '3'] });
    const operator = accepted(world.placement.addPeer(R(1), S(4), 'voter', ADMIN));
    const [command] = world.take();
    expect(command !== undefined && world.execute(command)).toBe(true);
    world.report(1);
    expect(operator.status).toBe('started');
    const peers = truth.region.peers.filter((peer) => peer.storeId !== 3);
    truth.region = {
      ...truth.region,
      peers,
      epoch: { ...truth.region.epoch, confVer: truth.region.epoch.confVer + 1 },
    };
    world.report(1);
    expect([operator.status, operator.reason?.code]).toEqual(['canceled', 'EpochNotMatch']);
  });

  test('a new leader carries the same operator on', () => {
    const world = new World({}, [1, 2, 3, 4]);
    const truth = world.region({ id: 1, on: ['1', '2', '3'] });
    const operator = accepted(world.placement.moveRegion(R(1), S(3), S(4), ADMIN));
    world.take();
    truth.leader = truth.region.peers[1] as (typeof truth.region.peers)[number];
    truth.term++;
    world.report(1);
    const [again] = world.take();
    expect(again?.targetPeer.storeId).toBe(2);
    expect(again !== undefined && world.execute(again)).toBe(true);
    world.report(1);
    world.settle();
    expect([operator.status, world.shape(1)]).toEqual(['success', '1 2 4']);
  });

  test('an unfinished step is sent again after its interval, quick ones earlier', () => {
    const world = new World({}, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    accepted(world.placement.transferLeader(R(1), S(2), ADMIN));
    expect(world.take().length).toBe(1);
    world.advance(1_999);
    world.placement.tickOperators();
    expect(world.take()).toEqual([]);
    world.advance(1);
    world.placement.tickOperators();
    expect(world.take().length).toBe(1);
  });

  test('an operator ends with a timeout when its time is over', () => {
    const world = new World({}, [1, 2, 3]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    const operator = accepted(world.placement.transferLeader(R(1), S(2), ADMIN));
    world.advance(60_001);
    world.beatAll();
    world.placement.tickOperators();
    expect([operator.status, operator.reason?.code]).toEqual(['timeout', 'Timeout']);
    expect(world.placement.controller.runningOn(R(1))).toBeUndefined();
  });

  test('an operator whose region left the map is canceled', () => {
    const world = new World({}, [1, 2, 3]);
    world.region({ id: 1, start: '', end: 'm', on: ['1', '2', '3'], version: 2 });
    const operator = accepted(world.placement.transferLeader(R(1), S(2), ADMIN));
    world.region({ id: 2, start: '', end: 'm', on: ['1', '2', '3'], version: 3 });
    world.placement.tickOperators();
    expect([operator.status, operator.reason?.code]).toEqual(['canceled', 'RegionNotFound']);
  });

  test('a split succeeds when the range changed', () => {
    const world = new World({}, [1, 2, 3]);
    world.region({ id: 1, start: '', end: 'm', on: ['1', '2', '3'] });
    const operator = accepted(world.placement.splitRegion(R(1), [key('c'), key('b'), key('c')], ADMIN));
    const [command] = world.take();
    expect(command?.step).toEqual({ type: 'split', keys: [key('b'), key('c')] });
    world.splitTruth(1, [key('b'), key('c')]);
    world.report(1);
    expect(operator.status).toBe('success');
  });

  test('split keys outside the region, or at its start, are refused', () => {
    const world = new World({}, [1]);
    world.region({ id: 1, start: 'b', end: 'm', on: ['1'] });
    for (const bad of ['a', 'b', 'm', 'z']) {
      expect(refusedWith(world.placement.splitRegion(R(1), [key(bad)], ADMIN))).toBe('KeyNotInRegion');
    }
  });
});

describe('admission', () => {
  test('a region has at most one operator; the refusal names the running one', () => {
    const world = new World({}, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    const first = accepted(world.placement.transferLeader(R(1), S(2), ADMIN));
    const second = world.placement.moveRegion(R(1), S(3), S(4), ADMIN);
    expect(refusedWith(second)).toBe('OperatorExists');
    expect(second.type === 'refused' && second.refusal.details).toMatchObject({ operator_id: String(first.id) });
    expect(first.status).toBe('started');
  });

  test('an administrator replaces an operator of lower priority', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2'] });
    world.placement.tickPatrol();
    const repair = world.placement.controller.runningOn(R(1)) as Operator;
    expect(repair.maker).toBe('replica-checker');
    const wish = accepted(world.placement.transferLeader(R(1), S(2), ADMIN));
    expect([repair.status, repair.reason?.code]).toEqual(['replaced', 'Replaced']);
    expect(world.placement.controller.runningOn(R(1))).toBe(wish);
  });

  test('leaders are moved only to voters that are up', () => {
    const world = new World({}, [1, 2, 3]);
    const truth = world.region({ id: 1, on: ['1', '2', '3L'] });
    expect(refusedWith(world.placement.transferLeader(R(1), S(3), ADMIN))).toBe('NotAVoter');
    truth.down.add(2);
    world.report(1);
    expect(refusedWith(world.placement.transferLeader(R(1), S(2), ADMIN))).toBe('DownPeer');
    expect(refusedWith(world.placement.transferLeader(R(1), S(9), ADMIN))).toBe('PeerNotFound');
  });

  test('the last voter cannot be removed', () => {
    const world = new World({}, [1]);
    world.region({ id: 1, on: ['1'] });
    expect(refusedWith(world.placement.removePeer(R(1), S(1), ADMIN))).toBe('LastVoter');
  });

  test('no more operators than allowed run', () => {
    const world = new World({ runningOperatorsMax: 1 }, [1, 2, 3]);
    world.region({ id: 1, start: '', end: 'm', on: ['1', '2', '3'] });
    world.region({ id: 2, start: 'm', end: '', on: ['1', '2', '3'] });
    accepted(world.placement.transferLeader(R(1), S(2), ADMIN));
    expect(refusedWith(world.placement.transferLeader(R(2), S(2), ADMIN))).toBe('TooManyOperators');
  });

  test('waiting operators run when there is room again, and expire when there is none', () => {
    const world = new World({ replicaScheduleLimit: 1, warmupMaxMs: 0 }, [1, 2, 3]);
    world.region({ id: 1, start: '', end: 'm', on: ['1', '2'] });
    world.region({ id: 2, start: 'm', end: '', on: ['1', '2'] });
    world.placement.tickPatrol();
    expect(world.placement.controller.running().map((operator) => operator.regionId)).toEqual([1]);
    world.settle();
    world.placement.tickPatrol();
    expect(world.placement.controller.running().map((operator) => operator.regionId)).toEqual([2]);
  });
});

describe('ends', () => {
  test('a canceled operator is remembered with its reason and its steps', () => {
    const world = new World({}, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    const operator = accepted(world.placement.moveRegion(R(1), S(3), S(4), ADMIN));
    expect(world.placement.cancelOperator(operator, 'test')).toBeUndefined();
    expect(world.placement.controller.find(operator.id)).toBe(operator);
    expect([operator.status, operator.reason?.code]).toEqual(['canceled', 'AdminStop']);
    expect(stepProgress(operator, world.placement.cluster.config).map((step) => step.state)).toEqual([
      'failed',
      'skipped',
      'skipped',
      'skipped',
    ]);
    expect(world.placement.cancelOperator(operator, 'test')?.code).toBe('OperatorNotFound');
  });

  test('only so many ended operators are remembered, the latest first', () => {
    const world = new World({ operatorHistoryMax: 2 }, [1, 2, 3]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    const made = [2, 3, 1].map((store) => {
      const operator = accepted(world.placement.transferLeader(R(1), S(store), ADMIN));
      world.settle();
      return operator;
    });
    expect(world.placement.controller.history().map((operator) => operator.id)).toEqual([made[2]?.id, made[1]?.id]);
    expect(world.ended).toEqual(made);
  });

  test('peers are listed with the ids the tests expect', () => {
    expect(peersOf(3, ['1', '2L'])).toMatchObject([
      { id: 301, role: 'voter' },
      { id: 302, role: 'learner' },
    ]);
  });
});
