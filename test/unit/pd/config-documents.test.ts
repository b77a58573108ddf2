import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { sleep } from '../../../src/env/clock.ts';
import { DEFAULT_PLACEMENT_CONFIG, type PlacementConfig } from '../../../src/pd/defaults.ts';
import type { PdNode } from '../../../src/pd/pd-node.ts';
import { configSpecShown } from '../../../src/pd/resource/config-document.ts';
import { type AnyDocument, type DocumentsPlan, nameOf } from '../../../src/pd/resource/document-plan.ts';
import { ENTRIES_MAX } from '../../../src/pd/resource/fields.ts';
import { schedulerSpecShown } from '../../../src/pd/resource/scheduler-document.ts';
import { ruleSpecShown } from '../../../src/pd/resource/rule-document.ts';
import { RULES_MAX, RULE_REPLICAS_MAX } from '../../../src/pd/schedule/placement/rule.ts';
import { SWITCHES } from '../../../src/pd/schedule/switches.ts';
import { RUN_TIME_SETTINGS, formatValue, restartHint, showSettings } from '../../../src/pd/settings.ts';
import { Machine } from './machine.ts';

const AUTHOR = { actor: 'ada', reason: 'more room' };

const rule = (name: string, spec: unknown, metadata: Record<string, unknown> = {}) => ({
  kind: 'PlacementRule',
  metadata: { name, ...metadata },
  spec,
});
const config = (spec: unknown, metadata: Record<string, unknown> = {}) => ({
  kind: 'Config',
  metadata: { name: 'placement', ...metadata },
  spec,
});
const partition = (name: string, start: string, end: string) => ({
  kind: 'Partition',
  metadata: { name },
  spec: { range: { start, end } },
});

class World {
  readonly machine: Machine = new Machine();
  node!: PdNode;

  static async start(config: Partial<PlacementConfig> = {}): Promise<World> {
    const world = new World();
    world.node = await world.machine.bootstrapped(config);
    return world;
  }

  /** Power loss, and the next process, perhaps with another file. */
  async restart(config: Partial<PlacementConfig> = {}): Promise<void> {
    this.machine.crash();
    this.node = await this.machine.start({ config });
  }

  apply(documents: readonly unknown[], dryRun = false): Promise<DocumentsPlan> {
    return this.machine.settle(this.node.documents.apply(documents, { dryRun, author: AUTHOR }));
  }

  delete(kind: string, name: string, expectVersion = 0): Promise<DocumentsPlan> {
    return this.machine.settle(
      this.node.documents.delete(kind, name, { expectVersion, dryRun: false, author: AUTHOR }),
    );
  }

  get config(): PlacementConfig {
    return this.node.placement.cluster.config;
  }

  list(kind: string, name = ''): readonly AnyDocument[] {
    const found = this.node.documents.list(kind, name);
    if ('code' in found) {
      throw new Error(found.message);
    }
    return found;
  }

  exported(): unknown[] {
    return this.list('').map((document) => ({
      kind: document.kind,
      metadata: { name: nameOf(document) },
      spec:
        document.kind === 'PlacementRule'
          ? ruleSpecShown(document.rule)
          : document.kind === 'Config'
            ? configSpecShown(document.settings)
            : document.kind === 'Scheduler'
              ? schedulerSpecShown(document)
              : undefined,
    }));
  }
}

const outcomes = ({ results }: DocumentsPlan): string[] => results.map(({ outcome }) => outcome);
const refusal = ({ refusal: found }: DocumentsPlan): [string | undefined, string | undefined] => [
  found?.code,
  found?.details['path'],
];

describe('the table of settings', () => {
  test('its limits hold the defaults, and what they allow can be written and read again', async () => {
    const world = await World.start();
    const all = Object.fromEntries(
      RUN_TIME_SETTINGS.map((setting) => [
        setting.name,
        formatValue(setting, DEFAULT_PLACEMENT_CONFIG[setting.property]),
      ]),
    );
    expect(outcomes(await world.apply([config(all)]))).toEqual(['created']);
    expect(world.config).toEqual(DEFAULT_PLACEMENT_CONFIG);
    const [shown] = world.list('Config');
    expect(shown?.kind === 'Config' && configSpecShown(shown.settings)).toEqual(all);
  });

  test('names every setting of the service: it changes at run time or says what to do instead', () => {
    const text = readFileSync(new URL('../../../docs/config.md', import.meta.url), 'utf8');
    for (const property of Object.keys(DEFAULT_PLACEMENT_CONFIG)) {
      const setting = RUN_TIME_SETTINGS.find((known) => known.property === property);
      const name =
        setting?.name ?? property.replace(/(?:Ms|Bytes)$/, '').replaceAll(/[A-Z]/g, (x) => `-${x.toLowerCase()}`);
      expect(setting !== undefined || restartHint(name) !== undefined, property).toBe(true);
      expect(text, 'a file writes it the same way').toContain(`\n${name} = `);
    }
  });

  test.each(RUN_TIME_SETTINGS.filter(({ kind }) => kind !== 'boolean' && kind !== 'labels'))(
    '$name has limits that are refused with their path',
    async (setting) => {
      const world = await World.start();
      for (const value of [setting.min - 1, setting.max + 1]) {
        const text = value < 0 ? '-1ms' : formatValue(setting, value);
        const plan = await world.apply([config({ [setting.name]: setting.kind === 'integer' ? value : text })]);
        expect(refusal(plan)).toEqual(['InvalidDocument', `spec.${setting.name}`]);
      }
      expect(world.list('Config')).toMatchObject([{ settings: { version: 0 } }]);
    },
  );
});

describe('a Config document', () => {
  test('takes effect at once, survives power loss, and going back gives the values of the file', async () => {
    const world = await World.start({ leaderScheduleLimit: 7 });
    const set = {
      'leader-schedule-limit': 2,
      'store-down': '10m',
      'location-labels': ['zone'],
      'joint-consensus': false,
    };
    expect(outcomes(await world.apply([config(set)]))).toEqual(['created']);
    const wanted = { leaderScheduleLimit: 2, storeDownMs: 600_000, locationLabels: ['zone'], jointConsensus: false };
    expect(world.config).toMatchObject(wanted);
    expect(outcomes(await world.apply([config(set)]))).toEqual(['unchanged']);
    await world.restart({ leaderScheduleLimit: 7 });
    expect(world.config).toMatchObject(wanted);
    expect(world.list('Config')).toMatchObject([{ settings: { version: 1, author: AUTHOR } }]);
    expect(outcomes(await world.delete('Config', 'placement'))).toEqual(['deleted']);
    expect(world.config).toEqual({ ...DEFAULT_PLACEMENT_CONFIG, leaderScheduleLimit: 7 });
    expect(refusal(await world.delete('config', 'placement'))[0]).toBe('ResourceNotFound');
    await world.restart({ leaderScheduleLimit: 7 });
    expect(world.config.leaderScheduleLimit).toBe(7);
  });

  test('limits of running operators and intervals of waiting loops change with it', async () => {
    const world = await World.start({ storeCheckMs: 3_600_000, patrolIntervalMs: 60_000 });
    const { controller, coordinator } = world.node.placement;
    expect(controller.hasRoomFor('leader', 4)).toBe(true);
    let rounds = 0;
    const patrol = coordinator.patrolRound.bind(coordinator);
    coordinator.patrolRound = () => {
      rounds++;
      patrol();
    };
    await world.apply([config({ 'leader-schedule-limit': 1, 'patrol-interval': '100ms' })]);
    expect([controller.hasRoomFor('leader', 1), controller.hasRoomFor('leader', 2)]).toEqual([true, false]);
    await world.machine.settle(sleep(world.machine.clock, 1_050, 'test'));
    expect(rounds).toBe(10);
  });

  test('is what parameters of schedulers have as their default, and they take its place', async () => {
    const world = await World.start();
    const change = (set: { name: string; value: number }[], reset: string[]) =>
      world.machine.settle(
        world.node.schedulers.change(
          'balance-leader',
          { type: 'configure', set, reset },
          { dryRun: false, expectVersion: undefined, ...AUTHOR },
        ),
      );
    await world.apply([config({ 'leader-schedule-limit': 2 })]);
    await change([{ name: 'limit', value: 3 }], []);
    expect(world.config.leaderScheduleLimit).toBe(3);
    await world.apply([config({ 'leader-schedule-limit': 5 })]);
    await world.restart();
    expect(world.config.leaderScheduleLimit).toBe(3);
    await change([], ['limit']);
    expect(world.config.leaderScheduleLimit).toBe(5);
  });

  test('says where every value comes from', async () => {
    const world = await World.start({ leaderScheduleLimit: 7, maxReplicas: 5 });
    await world.apply([config({ 'store-down': '10m' })]);
    await world.restart({ leaderScheduleLimit: 7, maxReplicas: 1 });
    const { fileConfig, placement } = world.node;
    const shown = showSettings(fileConfig, placement.cluster.baseConfig, new Map([['store-down', 600_000]]), {
      regionScheduleLimit: 9,
    });
    const of = (name: string) => shown.find((setting) => setting.name === name);
    expect(shown).toHaveLength(RUN_TIME_SETTINGS.length);
    expect(of('store-down')).toMatchObject({ value: '10m', source: 'run-time', otherwise: '5m' });
    expect(of('leader-schedule-limit')).toMatchObject({ value: 7, source: 'file' });
    expect(of('max-replicas')).toMatchObject({ value: 5, source: 'cluster' });
    expect(of('region-schedule-limit')).toMatchObject({ value: 9, source: 'scheduler', otherwise: 2048 });
    expect(of('merge-schedule-limit')).toMatchObject({ value: 8, source: 'default' });
  });

  test('values that do not fit the file of a later leader have no effect, and that is said', async () => {
    const world = await World.start();
    await world.apply([config({ 'store-down': '1m', 'leader-schedule-limit': 1 })]);
    await world.restart({ storeDisconnectedMs: 120_000, stepStoreSilentMs: 120_000 });
    expect(world.config).toMatchObject({ storeDownMs: 300_000, leaderScheduleLimit: 4 });
    const [event] = world.node.placement.events.after(0, 10).filter(({ type }) => type === 'config-changed');
    expect(event?.message).toContain('store-down must be larger than store-disconnected');
  });

  test.each<[string, unknown, string, string]>([
    ['an unknown setting', { 'max-replicass': 3 }, 'UnknownField', 'spec.max-replicass'],
    ['text for a number', { 'max-replicas': '3' }, 'InvalidDocument', 'spec.max-replicas'],
    ['a duration without unit', { 'store-down': 600 }, 'InvalidDocument', 'spec.store-down'],
    ['a broken whole number', { 'leader-tolerance': 1.5 }, 'InvalidDocument', 'spec.leader-tolerance'],
    ['a value that is empty', { 'store-down': null }, 'InvalidDocument', 'spec.store-down'],
    ['labels that are no list', { 'location-labels': 'zone' }, 'InvalidDocument', 'spec.location-labels'],
    ['a label twice', { 'location-labels': ['zone', 'Zone'] }, 'InvalidDocument', 'spec.location-labels'],
    [
      'too many labels',
      { 'location-labels': Array.from({ length: 17 }, (_, i) => `l${i}`) },
      'InvalidDocument',
      'spec.location-labels',
    ],
    [
      'more replicas than rules may ask for',
      { 'max-replicas': RULE_REPLICAS_MAX + 1 },
      'InvalidDocument',
      'spec.max-replicas',
    ],
    ['values that contradict the rest', { 'store-down': '10s' }, 'InvalidDocument', 'spec.store-down'],
    ['a setting of the stores', { 'region-max-size': '1GiB' }, 'NeedsRestart', 'spec.region-max-size'],
    ['a setting of the group', { 'election-ticks': 20 }, 'NeedsRestart', 'spec.election-ticks'],
    ['a setting of ids', { 'id-window': 20 }, 'NeedsRestart', 'spec.id-window'],
    ['the history of events', { 'event-history-max': 20 }, 'NeedsRestart', 'spec.event-history-max'],
    ['no spec', undefined, 'InvalidDocument', 'spec'],
  ])('with %s is refused with the path, and nothing changes', async (_, spec, code, path) => {
    const world = await World.start();
    const plan = await world.apply([config(spec), partition('p', 'a', 'b')]);
    expect([...refusal(plan), outcomes(plan)]).toEqual([code, path, ['refused', 'skipped']]);
    expect(world.config).toEqual(DEFAULT_PLACEMENT_CONFIG);
    expect(world.list('')).toEqual([]);
  });

  test('has one name and no uid', async () => {
    const world = await World.start();
    expect(refusal(await world.apply([{ kind: 'Config', metadata: { name: 'other' }, spec: {} }]))[1]).toBe(
      'metadata.name',
    );
    expect(refusal(await world.apply([config({}, { uid: 'x' })]))[1]).toBe('metadata.uid');
    expect(refusal(await world.delete('Config', 'other'))[0]).toBe('ResourceNotFound');
    expect(world.node.documents.list('Config', 'other')).toMatchObject({ code: 'ResourceNotFound' });
  });

  test('is refused when it has changed since', async () => {
    const world = await World.start();
    await world.apply([config({ 'leader-tolerance': 2 }, { resourceVersion: 0 })]);
    const late = await world.apply([config({ 'leader-tolerance': 3 }, { resourceVersion: 0 })]);
    expect(refusal(late)).toEqual(['Conflict', 'metadata.resourceVersion']);
    expect(refusal(await world.delete('Config', 'placement', 9))[0]).toBe('Conflict');
    await world.apply([config({ 'leader-tolerance': 3 }, { resourceVersion: 1 })]);
    expect(world.config.leaderTolerance).toBe(3);
  });

  test('a dry run changes nothing', async () => {
    const world = await World.start();
    expect(outcomes(await world.apply([config({ 'leader-tolerance': 2 })], true))).toEqual(['created']);
    expect(world.config.leaderTolerance).toBe(1);
  });

  test('the number of replicas is not changed behind its back', async () => {
    const world = await World.start();
    await world.apply([config({ 'max-replicas': 5 })]);
    expect(world.node.placement.cluster.rules.at(new Uint8Array(0)).rules[0]?.count).toBe(5);
    const refused = await world.machine.settle(world.node.setMaxReplicas(1));
    expect(refused?.code).toBe('Conflict');
    await world.delete('Config', 'placement');
    expect(world.config.maxReplicas).toBe(3);
    expect(await world.machine.settle(world.node.setMaxReplicas(1))).toBeUndefined();
  });
});

describe('a PlacementRule document', () => {
  const SSD = { range: { start: 'g', end: 'p' }, role: 'voter', count: 3, index: 1, override: true };

  test('is the rule that "ctl rule" knows, and survives power loss', async () => {
    const world = await World.start();
    expect(outcomes(await world.apply([rule('ssd', SSD)]))).toEqual(['created']);
    expect(world.node.placement.cluster.rules.get('default', 'ssd')).toMatchObject({ count: 3, version: 1 });
    expect(outcomes(await world.apply([rule('default/ssd', SSD)]))).toEqual(['unchanged']);
    expect(outcomes(await world.apply([rule('ssd', { ...SSD, count: 1 }, { resourceVersion: 1 })]))).toEqual([
      'changed',
    ]);
    expect(refusal(await world.apply([rule('ssd', SSD, { resourceVersion: 1 })]))).toEqual([
      'Conflict',
      'metadata.resourceVersion',
    ]);
    await world.restart();
    expect(world.list('PlacementRule', 'ssd')).toMatchObject([{ rule: { count: 1, version: 2 } }]);
    expect(world.list('PlacementRule').map(nameOf)).toEqual(['default/default', 'default/ssd']);
    expect(outcomes(await world.delete('PlacementRule', 'default/ssd', 2))).toEqual(['deleted']);
    expect(refusal(await world.delete('PlacementRule', 'default/ssd'))[0]).toBe('RuleNotFound');
  });

  test.each<[string, unknown, string, string]>([
    ['an unknown field', { ...SSD, colour: 'red' }, 'UnknownField', 'spec.colour'],
    ['an unknown role', { ...SSD, role: 'boss' }, 'InvalidDocument', 'spec.role'],
    ['no count', { role: 'voter' }, 'InvalidDocument', 'spec.count'],
    ['too many replicas', { ...SSD, count: 99 }, 'InvalidRule', 'spec.count'],
    ['an empty range', { ...SSD, range: { start: 'b', end: 'a' } }, 'InvalidRule', 'spec.range'],
    ['an index out of range', { ...SSD, index: -1 }, 'InvalidRule', 'spec.index'],
    [
      'an unknown comparison',
      { ...SSD, constraints: [{ key: 'a', op: 'like' }] },
      'InvalidDocument',
      'spec.constraints[0].op',
    ],
    [
      'a condition without values',
      { ...SSD, constraints: [{ key: 'a', op: 'in' }] },
      'InvalidRule',
      'spec.constraints',
    ],
    [
      'too many conditions',
      { ...SSD, constraints: Array.from({ length: ENTRIES_MAX + 1 }, () => ({ key: 'a', op: 'exists' })) },
      'InvalidDocument',
      'spec.constraints',
    ],
    ['isolation by another label', { ...SSD, isolationLevel: 'room' }, 'InvalidRule', 'spec.isolationLevel'],
  ])('with %s is refused with the path, and nothing changes', async (_, spec, code, path) => {
    const world = await World.start();
    const plan = await world.apply([config({ 'leader-tolerance': 2 }), rule('ssd', spec)]);
    expect([...refusal(plan), outcomes(plan)]).toEqual([code, path, ['skipped', 'refused']]);
    expect(world.list('')).toEqual([]);
    expect(world.config.leaderTolerance).toBe(1);
  });

  test.each(['a/b/c', '/a', 'a/', '', 'ümlaut'])('%j is no name of a rule', async (name) => {
    const world = await World.start();
    expect(refusal(await world.apply([rule(name, SSD)]))[1]).toBe('metadata.name');
  });

  test('rules of one file are judged together, in any order', async () => {
    const world = await World.start();
    const learners = rule('default', { role: 'learner', count: 1 });
    expect(refusal(await world.apply([learners]))[0]).toBe('NoVoterRule');
    const voters = rule('lead', { role: 'voter', count: 3, index: 1 });
    expect(outcomes(await world.apply([learners, voters]))).toEqual(['created', 'created']);
    const many = Array.from({ length: RULES_MAX }, (_, i) =>
      rule(`r${i}`, { role: 'voter', count: 1, override: true }),
    );
    expect(refusal(await world.apply(many))[0]).toBe('TooManyRules');
    expect(world.list('').map(nameOf)).toEqual(['default/default', 'default/lead']);
  });

  test('a new Partition and a new border in one file do not cut each other', async () => {
    const world = await World.start();
    const cut = await world.apply([partition('p', 'a', 'm'), rule('ssd', SSD)]);
    expect([cut.refusal?.code, outcomes(cut)]).toEqual(['RuleBorder', ['refused', 'skipped']]);
    const fits = await world.apply([partition('p', 'a', 'g'), rule('ssd', SSD), config({ 'leader-tolerance': 2 })]);
    expect(outcomes(fits)).toEqual(['created', 'created', 'created']);
    expect(refusal(await world.apply([rule('other', { ...SSD, range: { start: 'c', end: 'd' } })]))[0]).toBe(
      'RuleBorder',
    );
    await world.restart();
    expect(world.list('').map(nameOf)).toEqual(['p', 'default/ssd', 'placement']);
  });

  test('location labels that a rule isolates by stay, and so does the sum of replicas', async () => {
    const world = await World.start();
    await world.apply([
      rule('ssd', { ...SSD, isolationLevel: 'rack' }),
      rule('copy', { role: 'learner', count: 12, index: 0 }),
    ]);
    expect(refusal(await world.apply([config({ 'location-labels': ['zone'] })]))).toEqual([
      'InvalidRule',
      'spec.location-labels',
    ]);
    expect(refusal(await world.apply([config({ 'max-replicas': 5 })]))[0]).toBe('InvalidRule');
    // A rule may use a label that the same file makes a location label.
    const room = rule('ssd', { ...SSD, isolationLevel: 'room' });
    expect(outcomes(await world.apply([room, config({ 'location-labels': ['room'] })]))).toEqual([
      'changed',
      'created',
    ]);
    expect(refusal(await world.delete('Config', 'placement'))[0]).toBe('InvalidRule');
  });
});

describe('a Scheduler document', () => {
  const scheduler = (name: string, spec: unknown, metadata: Record<string, unknown> = {}) => ({
    kind: 'Scheduler',
    metadata: { name, ...metadata },
    spec,
  });

  test('sets the switch and the parameters at once, for good; what it does not name has its default', async () => {
    const world = await World.start();
    const set = {
      enabled: true,
      parameters: { 'max-merge-region-size': '1MiB', 'split-merge-interval': '1h', limit: 2 },
    };
    expect(outcomes(await world.apply([scheduler('merge-checker', set)]))).toEqual(['created']);
    const { switches } = world.node.placement;
    expect(switches.isOn('merge-checker')).toBe(true);
    const wanted = { mergeSourceSizeMaxBytes: 2 ** 20, splitMergeIntervalMs: 3_600_000, mergeScheduleLimit: 2 };
    expect(world.config).toMatchObject(wanted);
    expect(outcomes(await world.apply([scheduler('merge-checker', set, { resourceVersion: 2 })]))).toEqual([
      'unchanged',
    ]);
    await world.restart();
    expect(world.config).toMatchObject(wanted);
    expect(world.node.placement.switches.isOn('merge-checker')).toBe(true);
    expect(world.list('').map((one) => one.kind === 'Scheduler' && schedulerSpecShown(one))).toEqual([
      { enabled: true, parameters: { ...set.parameters } },
    ]);
    expect(outcomes(await world.apply([scheduler('merge-checker', { parameters: { limit: 2 } })]))).toEqual([
      'changed',
    ]);
    expect(world.config).toMatchObject({ mergeSourceSizeMaxBytes: 4 * 2 ** 20, mergeScheduleLimit: 2 });
    expect(world.node.placement.switches.isOn('merge-checker')).toBe(false);
    expect(outcomes(await world.delete('Scheduler', 'merge-checker'))).toEqual(['deleted']);
    expect(world.config).toEqual(DEFAULT_PLACEMENT_CONFIG);
    expect(refusal(await world.delete('Scheduler', 'merge-checker'))[0]).toBe('ResourceNotFound');
    expect(world.list('Scheduler')).toHaveLength(SWITCHES.length);
  });

  test.each<[string, string, unknown, string, string]>([
    ['a name of nothing', 'balance', {}, 'UnknownSwitch', 'metadata.name'],
    ['an unknown field', 'hot-region', { on: true }, 'UnknownField', 'spec.on'],
    ['an unknown parameter', 'hot-region', { parameters: { speed: 1 } }, 'UnknownField', 'spec.parameters.speed'],
    ['a value out of range', 'balance-leader', { parameters: { batch: 65 } }, 'OutOfRange', 'spec.parameters.batch'],
    ['text for a number', 'balance-leader', { parameters: { batch: 'x' } }, 'InvalidDocument', 'spec.parameters.batch'],
    [
      'a size without unit',
      'hot-region',
      { parameters: { 'min-rate': 9 } },
      'InvalidDocument',
      'spec.parameters.min-rate',
    ],
    ['a duration without unit', 'hot-region', { parameters: { rest: '9' } }, 'InvalidDocument', 'spec.parameters.rest'],
    ['a word for a switch', 'hot-region', { enabled: 'on' }, 'InvalidDocument', 'spec.enabled'],
    ['a switch of what was not added', 'shuffle-leader', { enabled: false }, 'NotAdded', 'spec.enabled'],
  ])('with %s is refused with the path, and nothing changes', async (_, name, spec, code, path) => {
    const world = await World.start();
    const plan = await world.apply([config({ 'leader-tolerance': 2 }), scheduler(name, spec)]);
    expect([...refusal(plan), outcomes(plan)]).toEqual([code, path, ['skipped', 'refused']]);
    expect(world.list('')).toEqual([]);
  });

  test('is refused when its parameters have changed since, and leaves a pause alone', async () => {
    const world = await World.start();
    await world.machine.settle(world.node.setSwitch('hot-region', false, 'me', { offMs: 60_000 }));
    const set = scheduler('hot-region', { enabled: true, parameters: { ratio: 2 } });
    expect(outcomes(await world.apply([set]))).toEqual(['created']);
    expect(world.node.placement.switches.isOn('hot-region')).toBe(false);
    const late = await world.apply([scheduler('hot-region', {}, { resourceVersion: 1 })]);
    expect(refusal(late)).toEqual(['Conflict', 'metadata.resourceVersion']);
    expect(refusal(await world.delete('Scheduler', 'hot-region', 9))[0]).toBe('Conflict');
  });

  test('and a request to configure at the same moment are planned one on the other', async () => {
    const world = await World.start();
    const { schedulers, documents } = world.node;
    const done = await world.machine.settle(
      Promise.all([
        documents.apply([scheduler('balance-leader', { parameters: { batch: 2 } })], { dryRun: false, author: AUTHOR }),
        schedulers.change(
          'balance-leader',
          { type: 'configure', set: [{ name: 'limit', value: 3 }], reset: [] },
          { dryRun: false, expectVersion: undefined, ...AUTHOR },
        ),
      ]),
    );
    expect(done[1]).toMatchObject({ type: 'ok', value: { baseVersion: 1 } });
    expect(world.list('Scheduler', 'balance-leader')).toMatchObject([
      {
        record: {
          version: 2,
          parameters: [
            ['batch', 2],
            ['limit', 3],
          ],
        },
      },
    ]);
  });
});

test('what is exported can be applied to an empty cluster, and says the same there', async () => {
  const world = await World.start();
  await world.apply([
    rule('ssd', {
      range: { start: '00ff', end: 'ff00', encoding: 'hex' },
      role: 'follower',
      count: 2,
      index: 3,
      constraints: [
        { key: 'disk', op: 'in', values: ['ssd', 'nvme'] },
        { key: 'old', op: 'not-exists' },
      ],
      locationLabels: ['zone', 'rack'],
      isolationLevel: 'zone',
    }),
    rule('tenants/a', { range: { start: 'straße' }, role: 'learner', count: 1 }),
    { kind: 'Scheduler', metadata: { name: 'merge-checker' }, spec: { enabled: true, parameters: { limit: 2 } } },
    { kind: 'Scheduler', metadata: { name: 'balance-region' }, spec: { enabled: false } },
    config({ 'max-replicas': 5, 'merged-size-max': '700MiB', 'low-space-ratio': 0.75, 'warmup-max': '0ms' }),
  ]);
  const exported = world.exported();
  expect(exported).toHaveLength(5);
  const other = await World.start();
  expect(outcomes(await other.apply(JSON.parse(JSON.stringify(exported)) as unknown[]))).toEqual(
    exported.map(() => 'created'),
  );
  expect(other.exported()).toEqual(exported);
  expect(outcomes(await other.apply(exported))).toEqual(exported.map(() => 'unchanged'));
});
