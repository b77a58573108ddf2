import { describe, expect, test } from 'vitest';
import { MIB } from '../../../src/base/units.ts';
import { projectedLoads } from '../../../src/pd/schedule/scheduler/load.ts';
import { R, World, stepsOf } from './world.ts';

/** `count` neighboring regions with the same peers. */
function fill(world: World, count: number, on: readonly string[], sizeBytes = 10 * MIB): void {
  for (let i = 0; i < count; i++) {
    const bound = (at: number): string => (at === 0 || at === count ? '' : `k${String(at).padStart(4, '0')}`);
    world.region({ id: i + 1, start: bound(i), end: bound(i + 1), on, sizeBytes });
  }
}

function run(world: World, rounds: number): void {
  for (let i = 0; i < rounds; i++) {
    world.beatAll();
    world.placement.tickSchedulers();
    world.settle();
    world.advance(1_000);
    world.placement.tickOperators();
    world.settle();
  }
}

const leaders = (world: World): number[] =>
  projectedLoads(world.placement.cluster, world.placement.controller).map((load) => load.leaders);
const peers = (world: World): number[] =>
  projectedLoads(world.placement.cluster, world.placement.controller).map((load) => load.regions);

describe('balance-leader', () => {
  test('spreads leaders until the counts differ by no more than the tolerance, then rests', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    fill(world, 12, ['1', '2', '3']);
    expect(leaders(world)).toEqual([12, 0, 0]);
    run(world, 10);
    const counts = leaders(world);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2);
    const sent = world.sent.length;
    run(world, 5);
    expect(world.sent.length).toBe(sent);
  });

  test('counts transfers that are still running', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2]);
    fill(world, 4, ['1', '2']);
    for (let i = 0; i < 5; i++) {
      world.placement.tickSchedulers();
    }
    expect(leaders(world)).toEqual([3, 1]);
    expect(world.placement.controller.running().map(stepsOf)).toEqual([['transfer leader to store 2']]);
  });

  test('moves no leader to a store that is stopping, silent or catching up', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    fill(world, 9, ['1', '2', '3']);
    world.beat(2, { isStopping: true });
    world.advance(25_000);
    world.beat(1);
    world.beat(2, { isStopping: true });
    world.placement.tickSchedulers();
    expect(world.placement.controller.running()).toEqual([]);
  });

  test('can be switched off', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    fill(world, 12, ['1', '2', '3']);
    world.placement.switches.set('balance-leader', false);
    run(world, 3);
    expect(leaders(world)).toEqual([12, 0, 0]);
    expect(world.placement.coordinator.idleReason('balance-leader')).toBeUndefined();
  });
});

describe('balance-region', () => {
  test('fills a new store until the difference is within the tolerance, then rests', () => {
    const world = new World({ warmupMaxMs: 0, storeLimitPerMinute: 100_000 }, [1, 2, 3]);
    fill(world, 12, ['1', '2', '3']);
    world.addStore(4);
    run(world, 40);
    const counts = peers(world);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(36);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(3);
    const sent = world.sent.length;
    run(world, 5);
    expect(world.sent.length).toBe(sent);
  });

  test('leaves nearly empty regions where they are', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    fill(world, 12, ['1', '2', '3'], 1 * MIB);
    world.addStore(4);
    run(world, 10);
    expect(peers(world)).toEqual([12, 12, 12, 0]);
  });

  test('does not make the separation of replicas worse', () => {
    const world = new World({ warmupMaxMs: 0 }, []);
    for (const [id, host] of [
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
    ] as const) {
      world.addStore(id, [{ key: 'host', value: host }]);
    }
    fill(world, 8, ['1', '2', '3']);
    world.addStore(4, [{ key: 'host', value: 'a' }]);
    run(world, 40);
    for (const truth of world.regions.values()) {
      const hosts = truth.region.peers.map((peer) => ['', 'a', 'b', 'c', 'a'][peer.storeId]);
      expect(new Set(hosts)).toEqual(new Set(['a', 'b', 'c']));
    }
    expect(peers(world)[3]).toBeGreaterThan(0);
  });

  test('moves nothing that is incomplete or unhealthy', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    fill(world, 6, ['1', '2']);
    world.addStore(4);
    world.placement.tickSchedulers();
    expect(world.placement.controller.running().filter((operator) => operator.maker === 'balance-region')).toEqual([]);
    expect(world.placement.controller.runningOn(R(1))?.maker).not.toBe('balance-region');
  });
});
