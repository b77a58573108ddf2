import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { MIB } from '../../../src/base/units.ts';
import type { PlacementConfig } from '../../../src/pd/defaults.ts';
import type { Operator } from '../../../src/pd/schedule/operator/operator.ts';
import { R, S, World, accepted, stepsOf } from './world.ts';

const WARM: Partial<PlacementConfig> = { warmupMaxMs: 0 };

const on = (world: World, region: number): Operator | undefined => world.placement.controller.runningOn(R(region));

/** Patrols, carries commands out and reports until nothing happens any more. */
function repair(world: World, except: readonly number[] = []): void {
  for (let i = 0; i < 20; i++) {
    world.beatAll(except);
    world.placement.tickPatrol();
    world.settle();
  }
}

describe('splits', () => {
  test.each([
    ['load', 'it had too much to do'],
    ['size', 'it was too large or had too many keys'],
    ['admin', 'it was asked for'],
  ] as const)('of cause %s are noted with their cause', (cause, text) => {
    const world = new World(WARM, [1, 2, 3]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    world.placement.coordinator.noteSplit([R(1)], cause);
    world.splitTruth(1, [utf8('m')]);
    world.report(1);
    const events = world.placement.events.after(0, 100).filter(({ type }) => type === 'split');
    expect(events.map(({ message }) => message)).toEqual([`region 1 gave its left part away: ${text}`]);
  });
});

describe('learner checker', () => {
  test('does not leave a learner that documents want where it is without a vote while a voter is missing', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3L'] });
    world.placement.cluster.claims = {
      pinnedReason: () => undefined,
      pausedReason: () => undefined,
      heldReason: () => undefined,
      protects: (_, store) => store === 3,
    };
    repair(world);
    expect(world.shape(1)).toBe('1 2 3');
    world.region({ id: 2, on: ['1', '2', '4', '3L'], version: 5 });
    repair(world);
    expect(world.shape(2)).toBe('1 2 3L 4');
  });
});

describe('replica checker', () => {
  test('grows the first region to the wanted number of replicas', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1'] });
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)).toEqual(['add learner on store 2', 'promote learner on store 2']);
    repair(world);
    expect(world.shape(1)).toBe('1 2 3');
    expect(on(world, 1)).toBeUndefined();
  });

  test('says why it cannot grow a region further', () => {
    const world = new World(WARM, [1, 2]);
    world.region({ id: 1, on: ['1', '2'] });
    repair(world);
    expect(world.shape(1)).toBe('1 2');
    expect(world.placement.coordinator.blockedReason(R(1))?.code).toBe('NoTargetStore');
  });

  test('replaces the peer on a store that is down, together with its replacement', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    world.advance(world.placement.cluster.config.storeDownMs - 1);
    world.beatAll([3]);
    world.placement.tickPatrol();
    expect(on(world, 1)).toBeUndefined();
    world.advance(1);
    world.beatAll([3]);
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)).toEqual([
      'add learner on store 4',
      'enter joint state (+4 -3)',
      'leave joint state',
      'remove peer on store 3',
    ]);
    repair(world, [3]);
    expect(world.shape(1)).toBe('1 2 4');
  });

  test('keeps the peer on a down store while there is no replacement', () => {
    const world = new World(WARM, [1, 2, 3]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    world.advance(world.placement.cluster.config.storeDownMs);
    repair(world, [3]);
    expect(world.shape(1)).toBe('1 2 3');
    expect(world.placement.coordinator.blockedReason(R(1))?.code).toBe('NoTargetStore');
  });

  test('removes the peer on a down store when there are enough others', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3', '4'] });
    world.advance(world.placement.cluster.config.storeDownMs);
    world.beatAll([2]);
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)).toEqual(['remove peer on store 2']);
  });

  test('empties a store that is being removed, its leaders included', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    const planned = world.placement.planStoreState(S(1), 'removing', false);
    if (planned.type !== 'ok' || planned.value === undefined) {
      throw new Error('the removal was refused');
    }
    world.placement.cluster.applyStoreRecord(planned.value, world.time.monoMs());
    expect(world.placement.removalBlockers(S(1)).length).toBe(1);
    expect(world.placement.planRemovals()).toEqual([]);
    repair(world);
    expect([world.shape(1), world.truth(1).leader.storeId]).toEqual(['2 3 4', 2]);
    expect(world.placement.removalBlockers(S(1))).toEqual([]);
    expect(world.placement.planRemovals().map((record) => record.store.state)).toEqual(['tombstone']);
  });

  test('removes surplus peers, sparing the leader', () => {
    const world = new World(WARM, [1, 2, 3, 4, 5]);
    world.region({ id: 1, on: ['1', '2', '3', '4', '5'] });
    repair(world);
    expect(world.truth(1).region.peers.length).toBe(3);
    expect(world.truth(1).region.peers.some((peer) => peer.storeId === 1)).toBe(true);
  });

  test('puts replicas into different places as long as there are some', () => {
    const world = new World(WARM, []);
    for (const [id, host] of [
      [1, 'a'],
      [2, 'a'],
      [3, 'b'],
      [4, 'b'],
      [5, 'c'],
    ] as const) {
      world.addStore(id, [{ key: 'HOST', value: host }]);
    }
    world.region({ id: 1, on: ['1'] });
    repair(world);
    const hosts = world.truth(1).region.peers.map((peer) => ['', 'a', 'a', 'b', 'b', 'c'][peer.storeId]);
    expect(new Set(hosts)).toEqual(new Set(['a', 'b', 'c']));
  });

  test('moves a replica when a better place appears, and only then', () => {
    const world = new World(WARM, []);
    world.addStore(1, [{ key: 'host', value: 'a' }]);
    world.addStore(2, [{ key: 'host', value: 'a' }]);
    world.addStore(3, [{ key: 'host', value: 'b' }]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    repair(world);
    expect(world.shape(1)).toBe('1 2 3');
    world.addStore(4, [{ key: 'host', value: 'a' }]);
    repair(world);
    expect(world.shape(1)).toBe('1 2 3');
    world.addStore(5, [{ key: 'host', value: 'c' }]);
    repair(world);
    expect(['1 3 5', '2 3 5']).toContain(world.shape(1));
    const before = world.sent.length;
    repair(world);
    expect(world.sent.length).toBe(before);
  });

  test('waits for the best place while it is only busy', () => {
    const world = new World(WARM, []);
    world.addStore(1, [{ key: 'host', value: 'a' }]);
    world.addStore(2, [{ key: 'host', value: 'a' }]);
    world.addStore(3, [{ key: 'host', value: 'b' }]);
    world.region({ id: 1, on: ['1'] });
    world.beat(3, { isBusy: true });
    world.placement.tickPatrol();
    expect(on(world, 1)).toBeUndefined();
    expect(world.placement.coordinator.blockedReason(R(1))?.code).toBe('StoreBusy');
    world.beat(3);
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)[0]).toBe('add learner on store 3');
  });

  test('does not fill a store that is low on space', () => {
    const world = new World(WARM, [1, 2]);
    world.region({ id: 1, on: ['1'] });
    world.beat(2, { capacityBytes: 100, availableBytes: 19 });
    world.placement.tickPatrol();
    expect(world.placement.coordinator.blockedReason(R(1))?.code).toBe('NoTargetStore');
  });
});

describe('joint-state checker', () => {
  test('brings a region out of a joint state that was left behind', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3-', '4+'], confVer: 5 });
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)).toEqual(['leave joint state']);
    repair(world);
    expect(world.shape(1)).toBe('1 2 4');
  });

  test('moves the lead away first when the leader is being demoted', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1-', '2', '3', '4+'], confVer: 5 });
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)).toEqual(['transfer leader to store 2', 'leave joint state']);
    repair(world);
    expect(world.shape(1)).toBe('2 3 4');
  });

  test('goes on even when the only voters are on stores that are silent', () => {
    const world = new World(WARM, [1, 2]);
    world.region({ id: 1, on: ['1-', '2+'], confVer: 5 });
    world.advance(25_000);
    world.beatAll([2]);
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)).toEqual(['transfer leader to store 2', 'leave joint state']);
  });
});

describe('learner checker', () => {
  test('promotes a learner that was left behind when a voter is missing', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3L'] });
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)).toEqual(['promote learner on store 3']);
    repair(world);
    expect(world.shape(1)).toBe('1 2 3');
  });

  test('removes a learner that nobody needs', () => {
    const world = new World(WARM, [1, 2, 3, 4]);
    world.region({ id: 1, on: ['1', '2', '3', '4L'] });
    repair(world);
    expect(world.shape(1)).toBe('1 2 3');
  });

  test('leaves a learner alone that is still catching up', () => {
    const world = new World(WARM, [1, 2, 3]);
    const truth = world.region({ id: 1, on: ['1', '2', '3L'] });
    truth.pending.add(3);
    world.report(1);
    world.placement.tickPatrol();
    expect(on(world, 1)).toBeUndefined();
  });
});

describe('merge checker', () => {
  function small(config: Partial<PlacementConfig> = {}): World {
    const world = new World({ ...WARM, splitMergeIntervalMs: 1_000, ...config }, [1, 2, 3]);
    world.region({ id: 1, start: '', end: 'h', on: ['1', '2', '3'], sizeBytes: 3 * MIB });
    world.region({ id: 2, start: 'h', end: 'p', on: ['1', '2', '3'], sizeBytes: 1 * MIB });
    world.region({ id: 3, start: 'p', end: '', on: ['1', '2', '3'], sizeBytes: 5 * MIB });
    world.placement.switches.set('merge-checker', true);
    world.advance(1_000);
    world.beatAll();
    return world;
  }

  test('is off unless it is switched on', () => {
    const world = small();
    world.placement.switches.set('merge-checker', false);
    world.placement.tickPatrol();
    expect(world.placement.controller.running()).toEqual([]);
  });

  test('merges a small region into the smaller neighbor', () => {
    const world = small();
    world.truth(1).keys = 50_000;
    world.report(1);
    world.placement.tickPatrol();
    const operator = on(world, 2) as Operator;
    expect([operator.isMergeSource, operator.related?.regionId]).toEqual([true, 1]);
  });

  test.each([
    ['RecentlySplit', (world: World) => world.placement.coordinator.noteSplit([R(1), R(2), R(3)])],
    [
      'PendingPeer',
      (world: World) => {
        for (const id of [1, 2, 3]) {
          world.truth(id).pending.add(3);
          world.report(id);
        }
      },
    ],
    [
      'TooLarge',
      (world: World) => {
        for (const id of [1, 2, 3]) {
          world.truth(id).sizeBytes = 5 * MIB;
          world.report(id);
        }
      },
    ],
  ])('refuses with %s', (code, prepare) => {
    const world = small();
    prepare(world);
    world.placement.tickPatrol();
    expect(world.placement.controller.running()).toEqual([]);
    expect(world.placement.coordinator.blockedReason(R(2))?.code).toBe(code);
  });

  test('refuses soon after a start', () => {
    const world = small({ splitMergeIntervalMs: 2_000 });
    world.placement.tickPatrol();
    expect(world.placement.coordinator.blockedReason(R(2))?.code).toBe('RecentlyStarted');
  });

  test('refuses what would be split again', () => {
    const world = small({ regionMaxSizeBytes: 4 * MIB });
    world.placement.tickPatrol();
    expect(world.placement.coordinator.blockedReason(R(2))?.code).toBe('WouldSplitAgain');
  });
});

describe('warm-up and switches', () => {
  test('nothing is scheduled until most regions have reported', () => {
    const world = new World({}, [1, 2, 3]);
    const regions = ['', 'h', 'p'].map((start, i) => ({
      id: i + 1,
      start,
      end: ['h', 'p', ''][i] as string,
      on: ['1'],
    }));
    const fresh = new World({}, [1, 2, 3]);
    for (const spec of regions) {
      fresh.placement.cluster.loadRegion(world.region(spec).region);
    }
    fresh.placement.tickPatrol();
    expect(fresh.placement.coordinator.warmup()).toMatchObject({ done: false, reportedRegions: 0, knownRegions: 3 });
    for (const spec of regions) {
      expect(fresh.placement.controller.running()).toEqual([]);
      fresh.region(spec);
      fresh.placement.tickPatrol();
    }
    expect(fresh.placement.coordinator.warmup().done).toBe(true);
    expect(fresh.placement.controller.running().length).toBe(3);
  });

  test('after the longest time scheduling starts anyway', () => {
    const world = new World({ warmupMaxMs: 1_000 }, [1]);
    world.placement.cluster.loadRegion(new World({}, [1]).region({ id: 1, on: ['1'] }).region);
    expect(world.placement.coordinator.warmup().done).toBe(false);
    world.advance(1_000);
    expect(world.placement.coordinator.warmup().done).toBe(true);
  });

  test('requests of administrators run during the warm-up', () => {
    const world = new World({}, [1, 2, 3]);
    world.placement.cluster.loadRegion(world.region({ id: 9, start: 'x', end: 'y', on: ['1'] }).region);
    world.region({ id: 1, start: '', end: 'm', on: ['1', '2'] });
    accepted(world.placement.transferLeader(R(1), S(2)));
  });

  test('a switch stops its checker, and scheduling stops all of them', () => {
    for (const name of ['replica-checker', 'scheduling'] as const) {
      const world = new World(WARM, [1, 2, 3]);
      world.region({ id: 1, on: ['1'] });
      world.placement.switches.set(name, false);
      world.placement.tickPatrol();
      expect(world.placement.controller.running()).toEqual([]);
      world.placement.switches.set(name, true);
      world.placement.tickPatrol();
      expect(world.placement.controller.running().length).toBe(1);
    }
  });

  test('the patrol looks at a bounded number of regions per round and comes around', () => {
    const world = new World({ ...WARM, patrolBatchMax: 2 }, [1, 2, 3]);
    for (const [i, start] of ['', 'b', 'c', 'd', 'e'].entries()) {
      world.region({ id: i + 1, start, end: ['b', 'c', 'd', 'e', ''][i] as string, on: ['1'] });
    }
    const count = (): number => world.placement.controller.running().length;
    world.placement.tickPatrol();
    expect(count()).toBe(2);
    world.placement.tickPatrol();
    expect(count()).toBe(4);
    world.placement.tickPatrol();
    expect(count()).toBe(5);
  });

  test('a repair that the store limit forbids is tried again later', () => {
    const world = new World({ ...WARM, storeLimitPerMinute: 60 }, [1, 2]);
    const bounds = ['', ...'bcdefgh', ''];
    for (let i = 0; i < 8; i++) {
      world.region({
        id: i + 1,
        start: bounds[i] as string,
        end: bounds[i + 1] as string,
        on: ['1'],
        sizeBytes: 10 * MIB,
      });
    }
    world.placement.tickPatrol();
    // Five small additions a minute, the sixth is refused.
    expect(world.placement.controller.running().length).toBe(5);
    expect(world.placement.coordinator.blockedReason(R(6))?.code).toBe('StoreLimit');
    world.settle();
    world.advance(60_000);
    world.beatAll();
    world.placement.tickPatrol();
    expect(world.placement.controller.running().length).toBe(3);
  });

  test('a store without tokens does not hold repairs back while another one is as good', () => {
    const world = new World({ ...WARM, storeLimitPerMinute: 60 }, [1, 2, 3]);
    const bounds = ['', ...'bcdefgh', ''];
    for (let i = 0; i < 8; i++) {
      world.region({
        id: i + 1,
        start: bounds[i] as string,
        end: bounds[i + 1] as string,
        on: ['1'],
        sizeBytes: 10 * MIB,
      });
    }
    world.placement.tickPatrol();
    // Five additions to each of the two stores; every one of the eight regions has its operator.
    expect(world.placement.controller.running().length).toBe(8);
  });

  test('replicas leave a dead store at the pace at which others can take them', () => {
    const world = new World({ ...WARM, maxReplicas: 1, storeLimitPerMinute: 60, storeDownMs: 30_000 }, [1, 2, 3, 4]);
    const bounds = ['', ...'bcdefghijk', ''];
    for (let i = 0; i < 11; i++) {
      world.region({
        id: i + 1,
        start: bounds[i] as string,
        end: bounds[i + 1] as string,
        on: ['2', '1'],
        sizeBytes: 10 * MIB,
      });
    }
    world.advance(40_000);
    world.beatAll([1]);
    world.placement.tickPatrol();
    expect(world.placement.controller.running().length).toBe(11);
  });
});
