import { describe, expect, test } from 'vitest';
import { MIB } from '../../../src/base/units.ts';
import type { StoreInfo, StoreRecord } from '../../../src/pd/cluster/store-info.ts';
import type { StoreSettingsChange } from '../../../src/pd/cluster/store-settings.ts';
import { decodeStore, encodeStore } from '../../../src/pd/state/record.ts';
import { projectedLoads } from '../../../src/pd/schedule/scheduler/load.ts';
import { R, S, World, stepsOf } from './world.ts';

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

/** As the placement service does after the record was written. */
function settings(world: World, id: number, change: StoreSettingsChange): void {
  const planned = world.placement.planStoreSettings(S(id), change);
  if (planned.type === 'refused' || planned.value === undefined) {
    throw new Error('nothing was changed');
  }
  world.placement.cluster.applyStoreRecord(planned.value, world.time.monoMs());
}

describe('evict-leader', () => {
  test('empties a store of leaders, also of regions that are not healthy, and keeps it so', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    fill(world, 12, ['1', '2', '3']);
    world.truth(5).down.add(2);
    world.report(5);
    settings(world, 1, { leadersEvicted: true });
    run(world, 10);
    expect(leaders(world)[0]).toBe(0);
    expect(world.truth(5).leader.storeId).toBe(3);
    run(world, 5);
    expect(leaders(world)[0]).toBe(0);
    expect(world.placement.transferLeader(R(1), S(1))).toMatchObject({ refusal: { code: 'LeadersEvicted' } });
    settings(world, 1, { leadersEvicted: false });
    run(world, 10);
    expect(leaders(world)[0]).toBeGreaterThan(0);
  });

  test('is refused for the only store that could lead', () => {
    const world = new World({ warmupMaxMs: 0 }, [1]);
    expect(world.placement.planStoreSettings(S(1), { leadersEvicted: true })).toMatchObject({
      refusal: { code: 'TooFewStores' },
    });
  });
});

describe('hot-region', () => {
  const heat = (world: World, id: number, bytesWritten: number): void => {
    world.placement.onRegionHeartbeat({ ...world.heartbeatOf(id), bytesWritten });
  };

  test('moves the lead of busy regions apart, once per rest, and rests when it is even', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    world.placement.switches.set('balance-leader', false);
    fill(world, 3, ['1', '2', '3']);
    for (let i = 0; i < 10; i++) {
      for (const id of [1, 2, 3]) {
        heat(world, id, 20 * MIB);
      }
      world.beatAll();
      world.placement.tickSchedulers();
      world.settle();
      world.advance(1000);
    }
    expect(leaders(world)).toEqual([1, 1, 1]);
  });

  test('leaves cold regions and a single hot one where they are', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    world.placement.switches.set('balance-leader', false);
    fill(world, 3, ['1', '2', '3']);
    heat(world, 1, 200 * MIB);
    heat(world, 2, 1000);
    world.placement.tickSchedulers();
    expect(world.placement.controller.running()).toEqual([]);
  });
});

describe('settings of stores', () => {
  test('survive the store announcing itself again, and a removal that is taken back', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3, 4]);
    settings(world, 1, { leadersEvicted: true, leaderWeight: 2, labels: [{ key: 'zone', value: 'a' }] });
    const { store } = (world.placement.cluster.store(S(1)) as StoreInfo).record;
    const again = world.placement.planPutStore({ ...store, labels: [{ key: 'host', value: 'h' }] }, undefined);
    expect(again).toMatchObject({
      value: {
        settings: { leadersEvicted: true, leaderWeight: 2 },
        store: {
          labels: [
            { key: 'zone', value: 'a' },
            { key: 'host', value: 'h' },
          ],
        },
      },
    });
    const removing = world.placement.planStoreState(S(1), 'removing', false);
    expect(removing).toMatchObject({ value: { settings: { leadersEvicted: true, removal: { peers: 0 } } } });
    const record = (removing as { value: StoreRecord }).value;
    expect(decodeStore(encodeStore(record))).toEqual(record);
    world.placement.cluster.applyStoreRecord(record, 0);
    expect(world.placement.planStoreState(S(1), 'up', false)).toMatchObject({
      value: { settings: { leadersEvicted: true, removal: undefined } },
    });
  });

  test.each([
    [{ leaderWeight: 0 }],
    [{ regionWeight: 101 }],
    [{ limitPerMinute: -1 }],
    [{ limitPerMinute: 1.5 }],
    [{ labels: [{ key: 'a b', value: 'x' }] }],
    [{ labels: [{ key: 'a', value: 'x'.repeat(200) }] }],
  ] satisfies [StoreSettingsChange][])('%j is refused', (change) => {
    const world = new World({}, [1, 2]);
    expect(world.placement.planStoreSettings(S(1), change)).toMatchObject({ refusal: { code: 'InvalidArgument' } });
  });

  test('a limit of its own replaces that of the cluster, 0 is none', () => {
    const world = new World({ warmupMaxMs: 0, storeLimitPerMinute: 60 }, [1, 2]);
    fill(world, 8, ['1'], 100 * MIB);
    const started = (): number => {
      world.placement.tickPatrol();
      return world.placement.controller.running().length;
    };
    expect(started()).toBe(1);
    settings(world, 2, { limitPerMinute: 0 });
    world.advance(2000);
    world.beatAll();
    expect(started()).toBe(8);
  });
});

describe('explanations', () => {
  test('of a region tell what each checker would do', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    world.region({ id: 1, on: ['1', '2'] });
    const findings = world.placement.explainRegion(R(1)) ?? [];
    expect(findings.find((one) => one.name === 'replica-checker')?.detail).toMatch(/^would add/);
    expect(findings.find((one) => one.name === 'merge-checker')?.refusal?.code).toBe('SwitchedOff');
    expect(world.placement.controller.running()).toEqual([]);
    expect(world.placement.explainRegion(R(77))).toBeUndefined();
  });

  test('of a store tell what it takes and what blocks its removal', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    world.beat(1, { isBusy: true });
    const named = (name: string): string | undefined =>
      world.placement.explainStore(S(1))?.find((one) => one.name === name)?.refusal?.code;
    expect(named('has-room')).toBe('StoreBusy');
    expect(named('usable')).toBeUndefined();
    world.advance(25_000);
    expect(named('usable')).toBe('StoreDisconnected');
    expect(world.placement.explainStore(S(9))).toBeUndefined();
  });

  test('of a scheduler compare the stores', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    fill(world, 4, ['1', '2', '3']);
    const findings = world.placement.explainScheduler('balance-leader') ?? [];
    const names = findings.map((one) => one.name);
    expect(names.slice(0, 5)).toEqual(['switched-on', 'limit', 'store-1', 'store-2', 'store-3']);
    expect(names.slice(5).every((name) => name.startsWith('parameter '))).toBe(true);
    expect(findings[2]?.detail).toContain('4 leaders');
    world.placement.switches.set('scheduling', false);
    expect(world.placement.explainScheduler('balance-leader')?.[0]?.refusal?.code).toBe('Idle');
    expect(world.placement.explainScheduler('nonsense')).toBeUndefined();
  });
});

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

  test('spreads empty regions as well', () => {
    const world = new World({ warmupMaxMs: 0 }, [1, 2, 3]);
    fill(world, 40, ['1', '2', '3'], 1);
    world.addStore(4);
    run(world, 80);
    const counts = peers(world);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(3);
  });

  test('gives a store with half the weight half the data', () => {
    const world = new World({ warmupMaxMs: 0, storeLimitPerMinute: 0 }, [1, 2, 3]);
    fill(world, 40, ['1', '2', '3']);
    world.addStore(4);
    settings(world, 4, { regionWeight: 0.5 });
    run(world, 80);
    const [one, two, three, four] = peers(world) as [number, number, number, number];
    expect(Math.abs((one + two + three) / 3 - 2 * four)).toBeLessThanOrEqual(6);
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
