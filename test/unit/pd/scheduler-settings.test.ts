import { describe, expect, test } from 'vitest';
import { MIB } from '../../../src/base/units.ts';
import { DEFAULT_PLACEMENT_CONFIG } from '../../../src/pd/defaults.ts';
import { parametersOf } from '../../../src/pd/schedule/parameters.ts';
import { type SchedulerChange, planSchedulerChange } from '../../../src/pd/schedule/scheduler-plan.ts';
import { type SchedulerRecord, SchedulerSettings } from '../../../src/pd/schedule/scheduler-settings.ts';
import { SWITCHES, type SwitchName } from '../../../src/pd/schedule/switches.ts';
import { type RegionSpec, R, S, World } from './world.ts';

const WARM = { warmupMaxMs: 0 };

/** Carries out changes the way the placement service does after the record was written. */
class Settings {
  readonly world: World;
  readonly records: Map<string, SchedulerRecord> = new Map();

  constructor(world: World) {
    this.world = world;
  }

  plan(name: SwitchName, change: SchedulerChange, expectVersion?: number): ReturnType<typeof planSchedulerChange> {
    return planSchedulerChange(this.world.placement.cluster, name, change, expectVersion);
  }

  change(name: SwitchName, change: SchedulerChange): void {
    const planned = this.plan(name, change);
    if (planned.type === 'refused' || planned.value.record === undefined) {
      throw new Error(`nothing was changed: ${JSON.stringify(planned)}`);
    }
    this.records.set(name, planned.value.record);
    this.world.placement.cluster.setSchedulers(this.records.values());
  }

  set(name: SwitchName, values: Readonly<Record<string, number>>): void {
    this.change(name, configure(values));
  }

  add(name: SwitchName, store?: number): void {
    this.change(name, { type: 'add', storeId: store === undefined ? undefined : S(store) });
  }

  remove(name: SwitchName, store?: number): void {
    this.change(name, { type: 'remove', storeId: store === undefined ? undefined : S(store) });
  }
}

const configure = (
  values: Readonly<Record<string, number>>,
  reset: readonly string[] | 'all' = [],
): SchedulerChange => ({
  type: 'configure',
  set: Object.entries(values).map(([name, value]) => ({ name, value })),
  reset,
});

/** `count` neighboring regions with the same peers. */
function fill(world: World, count: number, on: readonly string[], more: Partial<RegionSpec> = {}): void {
  for (let i = 0; i < count; i++) {
    const bound = (at: number): string => (at === 0 || at === count ? '' : `k${String(at).padStart(4, '0')}`);
    world.region({ id: i + 1, start: bound(i), end: bound(i + 1), on, sizeBytes: 10 * MIB, ...more });
  }
}

/** A world in which only `works` does something. */
function quiet(works: SwitchName, stores: readonly number[] = [1, 2, 3]): { world: World; settings: Settings } {
  const world = new World(WARM, stores);
  for (const { name, kind } of SWITCHES) {
    if (kind !== 'all' && name !== works) {
      world.placement.switches.set(name, false);
    }
  }
  return { world, settings: new Settings(world) };
}

function run(world: World, rounds: number, ms = 1_000): void {
  for (let i = 0; i < rounds; i++) {
    world.beatAll();
    world.placement.tickSchedulers();
    world.settle();
    world.advance(ms);
    world.placement.tickOperators();
    world.settle();
  }
}

const leadersOf = (world: World): number[] =>
  world.placement.cluster
    .stores()
    .map(({ record }) => world.placement.cluster.tree.ofStore(record.store.id).leaders.size);
const makers = (world: World): string[] => [
  ...new Set([...world.ended, ...world.placement.controller.running()].map((operator) => operator.maker)),
];

describe('parameters', () => {
  test('every part that has some has a default inside its range, under a name of its own', () => {
    const config = DEFAULT_PLACEMENT_CONFIG;
    for (const { name } of SWITCHES) {
      const specs = parametersOf(name);
      expect(new Set(specs.map((spec) => spec.name)).size).toBe(specs.length);
      for (const spec of specs) {
        expect(spec.description).not.toBe('');
        expect(spec.minOf(config)).toBeLessThanOrEqual(spec.defaultOf(config));
        expect(spec.maxOf(config)).toBeGreaterThanOrEqual(spec.defaultOf(config));
      }
    }
  });

  test('are the settings of the service and the numbers of the schedulers unless somebody changes them', () => {
    const settings = new SchedulerSettings(DEFAULT_PLACEMENT_CONFIG);
    expect(settings.overrides()).toEqual({});
    expect([settings.value('balance-leader', 'tolerance'), settings.value('balance-leader', 'batch')]).toEqual([1, 4]);
    expect([settings.value('evict-leader', 'batch'), settings.value('split-checker', 'batch')]).toEqual([8, 16]);
    expect([settings.value('hot-region', 'ratio'), settings.value('hot-region', 'min-rate')]).toEqual([1.25, MIB]);
    expect(settings.value('hot-region', 'rest')).toBe(60_000);
  });

  test('take the place of the setting they stand for, and give it back', () => {
    const { world, settings } = quiet('merge-checker');
    const config = () => world.placement.cluster.config;
    world.placement.cluster.setMaxReplicas(5);
    settings.set('merge-checker', { 'max-merge-region-size': MIB, limit: 2 });
    settings.set('balance-leader', { tolerance: 7 });
    expect(config()).toMatchObject({
      mergeSourceSizeMaxBytes: MIB,
      mergeScheduleLimit: 2,
      leaderTolerance: 7,
      maxReplicas: 5,
      splitMergeIntervalMs: DEFAULT_PLACEMENT_CONFIG.splitMergeIntervalMs,
    });
    settings.change('merge-checker', configure({ limit: 4 }, ['max-merge-region-size']));
    settings.change('balance-leader', configure({}, 'all'));
    expect(config()).toEqual({ ...DEFAULT_PLACEMENT_CONFIG, ...WARM, maxReplicas: 5, mergeScheduleLimit: 4 });
    expect(settings.records.get('balance-leader')).toMatchObject({ version: 2, parameters: [] });
  });

  test('that are unknown, out of range, broken or given twice leave everything as it was', () => {
    const { settings, world } = quiet('balance-leader');
    const refusal = (name: SwitchName, change: SchedulerChange, expect?: number): unknown => {
      const planned = settings.plan(name, change, expect);
      return planned.type === 'refused' ? planned.refusal : undefined;
    };
    const { runningOperatorsMax, regionMaxSizeBytes } = world.placement.cluster.config;
    expect(refusal('balance-leader', configure({ batch: 2, tolerence: 3 }))).toMatchObject({
      code: 'UnknownParameter',
      hint: 'it has tolerance, batch, limit, interval',
    });
    expect(refusal('learner-checker', configure({ batch: 2 }))).toMatchObject({ code: 'UnknownParameter' });
    expect(refusal('balance-leader', configure({}, ['x']))).toMatchObject({ code: 'UnknownParameter' });
    expect(refusal('balance-leader', configure({ batch: 0 }))).toMatchObject({
      code: 'OutOfRange',
      message: expect.stringContaining('below the smallest value, 1') as unknown,
    });
    expect(refusal('balance-leader', configure({ limit: runningOperatorsMax + 1 }))).toMatchObject({
      message: expect.stringContaining(`above the largest value, ${runningOperatorsMax}`) as unknown,
    });
    expect(refusal('merge-checker', configure({ 'max-merge-region-size': regionMaxSizeBytes + 1 }))).toMatchObject({
      details: { max: String(regionMaxSizeBytes) },
    });
    for (const value of [1.5, Number.NaN, Infinity, -Infinity]) {
      expect(refusal('balance-leader', configure({ batch: value }))).toMatchObject({ code: 'OutOfRange' });
    }
    const twice = { name: 'batch', value: 2 };
    expect(refusal('balance-leader', { type: 'configure', set: [twice, twice], reset: [] })).toMatchObject({
      code: 'InvalidArgument',
    });
    settings.set('balance-leader', { batch: 2 });
    expect(refusal('balance-leader', configure({ batch: 3 }), 0)).toMatchObject({ code: 'Conflict' });
    expect(refusal('balance-leader', configure({ batch: 3 }), 1)).toBeUndefined();
    expect(settings.plan('balance-leader', configure({ batch: 2 }))).toMatchObject({ value: { record: undefined } });
  });

  test('that a service with narrower limits finds count as the nearest allowed value', () => {
    const settings = new SchedulerSettings({ ...DEFAULT_PLACEMENT_CONFIG, regionMaxSizeBytes: 8 * MIB });
    settings.load([
      {
        name: 'merge-checker',
        version: 3,
        presence: undefined,
        stores: [],
        parameters: [['max-merge-region-size', 50 * MIB]],
      },
      { name: 'a-part-of-a-newer-program', version: 1, presence: undefined, stores: [], parameters: [['x', 1]] },
    ]);
    expect(settings.value('merge-checker', 'max-merge-region-size')).toBe(8 * MIB);
    expect(settings.overrides()).toEqual({ mergeSourceSizeMaxBytes: 8 * MIB });
  });
});

describe('what a parameter changes', () => {
  test('the batch and the tolerance of balance-leader', () => {
    const { world, settings } = quiet('balance-leader');
    fill(world, 12, ['1', '2', '3']);
    settings.set('balance-leader', { batch: 1 });
    world.placement.tickSchedulers();
    expect(world.placement.controller.running()).toHaveLength(1);
    settings.set('balance-leader', { batch: 64, limit: 2 });
    world.placement.tickSchedulers();
    expect(world.placement.controller.running()).toHaveLength(2);
    settings.change('balance-leader', configure({ tolerance: 5 }, 'all'));
    run(world, 10);
    expect(leadersOf(world)).toEqual([10, 1, 1]);
    settings.change('balance-leader', configure({}, 'all'));
    run(world, 10);
    expect(leadersOf(world)[0]).toBeLessThan(7);
  });

  test('the interval: rounds are left out until it is over', () => {
    const { world, settings } = quiet('balance-leader');
    fill(world, 12, ['1', '2', '3']);
    settings.set('balance-leader', { batch: 1, interval: 3_000 });
    const moved: number[] = [];
    for (let round = 0; round < 8; round++) {
      run(world, 1, 500);
      moved.push(12 - (leadersOf(world)[0] as number));
    }
    expect(moved).toEqual([1, 1, 1, 1, 1, 1, 2, 2]);
    settings.change('balance-leader', configure({}, ['interval']));
    world.placement.tickSchedulers();
    world.settle();
    world.placement.tickSchedulers();
    world.settle();
    expect(leadersOf(world)[0]).toBeLessThanOrEqual(8);
  });

  test('the tolerance of balance-region and its limit', () => {
    const { world, settings } = quiet('balance-region', [1, 2, 3, 4]);
    fill(world, 9, ['1', '2', '3']);
    settings.set('balance-region', { tolerance: 20 });
    run(world, 5);
    expect(makers(world)).toEqual([]);
    settings.change('balance-region', configure({ limit: 0 }, ['tolerance']));
    run(world, 5);
    expect(makers(world)).toEqual([]);
    settings.set('balance-region', { limit: 1 });
    run(world, 5);
    expect(makers(world)).toEqual(['balance-region']);
  });

  test('the batch of evict-leader', () => {
    const { world, settings } = quiet('evict-leader');
    fill(world, 12, ['1', '2', '3']);
    settings.set('evict-leader', { batch: 2 });
    const planned = world.placement.planStoreSettings(S(1), { leadersEvicted: true });
    expect(planned.type).toBe('ok');
    if (planned.type === 'ok' && planned.value !== undefined) {
      world.placement.cluster.applyStoreRecord(planned.value, 0);
    }
    world.placement.tickSchedulers();
    expect(world.placement.controller.running()).toHaveLength(2);
  });

  test('the smallest rate and the ratio of hot-region', () => {
    const { world, settings } = quiet('hot-region');
    fill(world, 2, ['1', '2', '3']);
    const heat = (): void => {
      for (const id of [1, 2]) {
        world.placement.onRegionHeartbeat({ ...world.heartbeatOf(id), bytesWritten: 20 * MIB });
      }
    };
    const hot = (): string[] => {
      for (let i = 0; i < 5; i++) {
        heat();
        run(world, 1);
      }
      return makers(world);
    };
    settings.set('hot-region', { 'min-rate': 50 * MIB });
    expect(hot()).toEqual([]);
    settings.set('hot-region', { 'min-rate': MIB, ratio: 3 });
    expect(hot()).toEqual([]);
    settings.change('hot-region', configure({}, 'all'));
    expect(hot()).toEqual(['hot-region']);
  });

  test('the limit of replica-checker', () => {
    const { world, settings } = quiet('replica-checker', [1, 2, 3]);
    fill(world, 5, ['1', '2']);
    settings.set('replica-checker', { limit: 2 });
    world.placement.tickPatrol();
    expect(world.placement.controller.running()).toHaveLength(2);
  });
});

describe('schedulers that are added and removed', () => {
  const code = (planned: ReturnType<typeof planSchedulerChange>): string | undefined =>
    planned.type === 'refused' ? planned.refusal.code : undefined;

  test('are all there by default, but for those that are added for a purpose', () => {
    const { world } = quiet('balance-leader');
    const absent = SWITCHES.filter(({ name }) => !world.placement.cluster.schedulers.isPresent(name));
    expect(absent.map(({ name }) => name)).toEqual([
      'grant-leader',
      'shuffle-leader',
      'shuffle-region',
      'random-merge',
    ]);
  });

  test('do nothing once removed, until they are added again', () => {
    const { world, settings } = quiet('balance-leader');
    fill(world, 12, ['1', '2', '3']);
    settings.remove('balance-leader');
    expect(world.placement.coordinator.idleReason('balance-leader')).toBe('it was removed');
    expect(world.placement.switchName('balance-leader')).toMatchObject({ refusal: { code: 'NotAdded' } });
    expect(world.placement.explainScheduler('balance-leader')?.[0]?.refusal).toMatchObject({
      code: 'NotAdded',
      hint: 'add it: braid ctl scheduler add balance-leader',
    });
    run(world, 5);
    expect(leadersOf(world)).toEqual([12, 0, 0]);
    settings.add('balance-leader');
    run(world, 5);
    expect(leadersOf(world)[0]).toBeLessThan(12);
  });

  test('are no checkers, and not everything at once', () => {
    const { settings } = quiet('balance-leader');
    for (const type of ['add', 'remove'] as const) {
      const planned = settings.plan('merge-checker', { type, storeId: undefined });
      expect(planned).toMatchObject({
        refusal: {
          code: 'NotAScheduler',
          hint: expect.stringContaining(
            `braid ctl checker ${type === 'add' ? 'resume' : 'pause'} merge-checker`,
          ) as unknown,
        },
      });
      expect(code(settings.plan('scheduling', { type, storeId: undefined }))).toBe('NotAScheduler');
    }
    expect(code(settings.plan('shuffle-leader', { type: 'add', storeId: S(1) }))).toBe('InvalidArgument');
    expect(settings.plan('balance-leader', { type: 'add', storeId: undefined })).toMatchObject({
      value: { record: undefined },
    });
    expect(settings.plan('shuffle-leader', { type: 'remove', storeId: undefined })).toMatchObject({
      value: { record: undefined },
    });
  });

  describe('grant-leader', () => {
    test('brings every lead that is possible to its store, and balance-leader takes none away', () => {
      const { world, settings } = quiet('grant-leader', [1, 2, 3, 4]);
      world.placement.switches.set('balance-leader', true);
      fill(world, 10, ['1', '2', '3']);
      // It has no voter there.
      world.region({ id: 50, start: 'k0009', on: ['1', '2', '4'], version: 2 });
      world.regions.delete(R(10));
      const [pending, down] = [world.truth(3), world.truth(4)];
      pending.pending.add(3);
      down.down.add(3);
      world.report(3);
      world.report(4);
      settings.add('grant-leader', 3);
      run(world, 12);
      for (const { region, leader } of world.regions.values()) {
        const leadsThere = !['3', '4', '50'].includes(String(region.id));
        expect(leader.storeId === 3, `region ${region.id}`).toBe(leadsThere);
      }
      pending.pending.delete(3);
      world.report(3);
      run(world, 5);
      expect(pending.leader.storeId).toBe(3);
      expect(makers(world)).toContain('grant-leader');
      settings.remove('grant-leader', 3);
      run(world, 10);
      expect(world.placement.cluster.tree.ofStore(S(3)).leaders.size).toBeLessThan(7);
    });

    test('moves no lead between two of its stores', () => {
      const { world, settings } = quiet('grant-leader');
      fill(world, 6, ['1', '2', '3']);
      settings.add('grant-leader', 2);
      run(world, 6);
      settings.add('grant-leader', 3);
      const sent = world.sent.length;
      run(world, 6);
      expect([leadersOf(world), world.sent.length]).toEqual([[0, 6, 0], sent]);
      expect(settings.records.get('grant-leader')?.stores).toEqual([2, 3]);
      settings.remove('grant-leader');
      expect(world.placement.cluster.schedulers.isPresent('grant-leader')).toBe(false);
    });

    test('names a store that may lead, and such a store is not set to lead nothing', () => {
      const { world, settings } = quiet('grant-leader');
      const add = (id: number | undefined): string | undefined =>
        code(settings.plan('grant-leader', { type: 'add', storeId: id === undefined ? undefined : S(id) }));
      expect([add(undefined), add(9), add(2)]).toEqual(['InvalidArgument', 'StoreNotFound', undefined]);
      const evicted = world.placement.planStoreSettings(S(2), { leadersEvicted: true });
      if (evicted.type === 'ok' && evicted.value !== undefined) {
        world.placement.cluster.applyStoreRecord(evicted.value, 0);
      }
      expect(add(2)).toBe('LeadersEvicted');
      settings.add('grant-leader', 1);
      expect(world.placement.planStoreSettings(S(1), { leadersEvicted: true })).toMatchObject({
        refusal: { code: 'LeadersGranted' },
      });
    });

    test('holds nothing while it is paused', () => {
      const { world, settings } = quiet('grant-leader');
      world.placement.switches.set('balance-leader', true);
      fill(world, 9, ['1', '2', '3']);
      settings.add('grant-leader', 2);
      run(world, 6);
      expect(leadersOf(world)).toEqual([0, 9, 0]);
      world.placement.switches.set('grant-leader', false);
      run(world, 10);
      expect(Math.max(...leadersOf(world))).toBeLessThanOrEqual(5);
    });
  });

  test('shuffle-leader moves leaders for ever, only to voters that have caught up', () => {
    const { world, settings } = quiet('shuffle-leader');
    fill(world, 4, ['1', '2', '3L']);
    world.truth(1).pending.add(2);
    world.report(1);
    settings.add('shuffle-leader');
    run(world, 20);
    expect(world.ended.length).toBeGreaterThan(10);
    expect(world.ended.every(({ steps }) => steps.every((step) => step.type === 'transfer-leader'))).toBe(true);
    expect(world.ended.some(({ regionId }) => regionId === R(1))).toBe(false);
    expect(leadersOf(world)[2]).toBe(0);
    const count = world.ended.length;
    settings.remove('shuffle-leader');
    run(world, 5);
    expect(world.ended.length).toBeLessThanOrEqual(count + 1);
  });

  test('shuffle-region moves replicas of complete regions, never to a store that has one', () => {
    const { world, settings } = quiet('shuffle-region', [1, 2, 3, 4, 5]);
    fill(world, 4, ['1', '2', '3']);
    world.region({ id: 9, start: 'k0003', on: ['1', '2'], version: 2 });
    world.regions.delete(R(4));
    settings.add('shuffle-region');
    run(world, 20);
    expect(world.ended.length).toBeGreaterThan(5);
    expect(world.truth(9).region.peers.map(({ storeId }) => storeId)).toEqual([1, 2]);
    const homes = [1, 2, 3].map((id) => world.truth(id).region.peers.map(({ storeId }) => storeId));
    expect(homes.every((stores) => new Set(stores).size === 3)).toBe(true);
    expect(homes).not.toEqual([
      [1, 2, 3],
      [1, 2, 3],
      [1, 2, 3],
    ]);
  });

  test('random-merge merges neighbors that the merge checker would not, but none that is held', () => {
    const { world, settings } = quiet('random-merge');
    fill(world, 2, ['1', '2', '3'], { sizeBytes: 50 * MIB });
    world.placement.coordinator.noteSplit([R(1), R(2)]);
    world.placement.tickSchedulers();
    expect(makers(world)).toEqual([]);
    world.placement.resources.setPins(new Set([R(2)]));
    settings.add('random-merge');
    world.placement.tickSchedulers();
    expect(makers(world)).toEqual([]);
    world.placement.resources.setPins(new Set());
    settings.set('merge-checker', { limit: 0 });
    world.placement.tickSchedulers();
    expect(makers(world)).toEqual([]);
    settings.change('merge-checker', configure({}, 'all'));
    world.placement.tickSchedulers();
    expect(makers(world)).toEqual(['random-merge']);
    expect(world.placement.controller.running()).toHaveLength(2);
  });
});

describe('the explanation of a scheduler', () => {
  test('tells the parameters in force', () => {
    const { world, settings } = quiet('merge-checker');
    settings.set('merge-checker', { 'max-merge-region-size': 2 * MIB });
    const findings = world.placement.explainScheduler('merge-checker') ?? [];
    const detailOf = (name: string): string | undefined =>
      findings.find((one) => one.name === `parameter ${name}`)?.detail;
    expect(detailOf('max-merge-region-size')).toMatch(/^2\.0 MiB, by default 4\.0 MiB: /);
    expect(detailOf('limit')).toMatch(/^8, the default: /);
    expect(detailOf('split-merge-interval')).toMatch(/^5m0s, the default: /);
  });
});
