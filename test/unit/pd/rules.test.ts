import { describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import type { Store, StoreLabel } from '../../../src/meta/region.ts';
import type { PlacementConfig } from '../../../src/pd/defaults.ts';
import type { Operator } from '../../../src/pd/schedule/operator/operator.ts';
import {
  type PlacementRule,
  RULES_MAX,
  RULE_REPLICAS_MAX,
  checkRule,
  defaultRule,
  meetsConstraints,
} from '../../../src/pd/schedule/placement/rule.ts';
import { RuleSet } from '../../../src/pd/schedule/placement/rule-set.ts';
import { R, S, World, accepted, checkedCode, refusedWith, stepsOf } from './world.ts';

const WARM: Partial<PlacementConfig> = { warmupMaxMs: 0, schedulerIntervalMs: 1 };

interface RuleSpec extends Omit<Partial<PlacementRule>, 'range'> {
  readonly start?: string;
  readonly end?: string;
}

/** A voter rule of everything, except for what is given. */
function rule(id: string, { start, end, ...spec }: RuleSpec = {}): PlacementRule {
  return {
    ...defaultRule(3),
    id,
    index: 1,
    ...spec,
    range: { start: utf8(start ?? ''), end: utf8(end ?? '') },
  };
}

const inZone = (...values: string[]): PlacementRule['constraints'] => [{ key: 'zone', op: 'in', values }];

function withLabels(world: World, labels: Readonly<Record<number, string>>): void {
  for (const [id, text] of Object.entries(labels)) {
    world.addStore(
      Number(id),
      text.split(' ').map((pair) => {
        const [key, value] = pair.split('=');
        return { key: key as string, value: value as string };
      }),
    );
  }
}

const on = (world: World, region: number): Operator | undefined => world.placement.controller.runningOn(R(region));

function repair(world: World, except: readonly number[] = []): void {
  for (let i = 0; i < 30; i++) {
    world.advance(1_500);
    world.beatAll(except);
    world.placement.tickPatrol();
    world.settle();
  }
}

const set = (world: World, ...rules: PlacementRule[]): void => world.placement.cluster.setRules(rules);

describe('which rules hold', () => {
  const namesAt = (rules: readonly PlacementRule[], key: string): string =>
    new RuleSet(rules, 3)
      .at(utf8(key))
      .rules.map(({ id, count }) => `${id}:${count}`)
      .join(' ');

  test('without rules of administrators, the wanted number of voters everywhere', () => {
    const rules = new RuleSet([], 5);
    expect(rules.at(utf8('x'))).toMatchObject({ isDefault: true, rules: [{ role: 'voter', count: 5 }] });
    expect(rules.bordersIn({ start: utf8(''), end: utf8('') })).toEqual([]);
  });

  test('a rule adds to those before it, an overriding one replaces them, in its range only', () => {
    const add = rule('copy', { start: 'b', end: 'd', role: 'learner', count: 1 });
    const replace = rule('ssd', { start: 'c', end: 'f', index: 2, override: true, count: 5 });
    const late = rule('late', { index: 3, count: 1, role: 'learner' });
    const all = [late, replace, add];
    expect(['a', 'b', 'c', 'e', 'f', 'z'].map((key) => namesAt(all, key))).toEqual([
      'default:3 late:1',
      'default:3 copy:1 late:1',
      'ssd:5 late:1',
      'ssd:5 late:1',
      'default:3 late:1',
      'default:3 late:1',
    ]);
    const borders = new RuleSet(all, 3).bordersIn({ start: utf8('b'), end: utf8('') });
    expect(borders.map(fromUtf8)).toEqual(['c', 'd', 'f']);
  });

  test('the rule default/default can be replaced like any other', () => {
    expect(namesAt([rule('default', { index: 0, count: 1 })], 'x')).toBe('default:1');
  });

  test.each([
    ['no rule that lets a replica lead', [rule('copy', { override: true, role: 'learner', count: 1 })], 'NoVoterRule'],
    ['two leaders', [rule('a', { role: 'leader', count: 1 }), rule('b', { role: 'leader', count: 1 })], 'InvalidRule'],
    ['too many replicas', [rule('a', { count: RULE_REPLICAS_MAX - 2 })], 'InvalidRule'],
    [
      'too many rules',
      Array.from({ length: RULES_MAX + 1 }, (_, i) => rule(`r${i}`, { override: true })),
      'TooManyRules',
    ],
  ] as const)('%s cannot hold', (_, rules, code) => {
    expect(checkedCode(new RuleSet(rules, 3).problem())).toBe(code);
  });
});

describe('a rule by itself', () => {
  test.each<[string, Partial<PlacementRule>]>([
    ['group', { group: 'a/b' }],
    ['id', { id: '' }],
    ['index', { index: -1 }],
    ['range', { range: { start: utf8('b'), end: utf8('a') } }],
    ['count', { count: 0 }],
    ['count', { count: RULE_REPLICAS_MAX + 1 }],
    ['count', { role: 'leader', count: 2 }],
    ['constraints', { constraints: [{ key: 'zone', op: 'in', values: [] }] }],
    ['constraints', { constraints: [{ key: 'zone', op: 'exists', values: ['a'] }] }],
    [
      'constraints',
      { constraints: Array.from({ length: 17 }, () => ({ key: 'z', op: 'exists' as const, values: [] })) },
    ],
    ['locationLabels', { locationLabels: ['zone', 'ZONE'] }],
    ['isolationLevel', { isolationLevel: 'planet' }],
  ])('names %s when that makes no sense', (field, spec) => {
    const checked = checkRule({ ...rule('r'), ...spec }, ['zone', 'host']);
    expect(refusedWith(checked)).toBe('InvalidRule');
    expect(checked.type === 'refused' && checked.refusal.details['field']).toBe(field);
  });

  test('constraints compare labels, keys without case', () => {
    const store = (...labels: StoreLabel[]): Store => ({ labels }) as unknown as Store;
    const ssd = store({ key: 'Disk', value: 'ssd' });
    const meets = (op: 'in' | 'not-in' | 'exists' | 'not-exists', values: string[], one = ssd): boolean =>
      meetsConstraints(one, [{ key: 'disk', op, values }]);
    expect([meets('in', ['hdd', 'ssd']), meets('in', ['hdd']), meets('in', ['ssd'], store())]).toEqual([
      true,
      false,
      false,
    ]);
    expect([meets('not-in', ['ssd']), meets('not-in', ['hdd']), meets('not-in', ['ssd'], store())]).toEqual([
      false,
      true,
      true,
    ]);
    expect([meets('exists', []), meets('exists', [], store())]).toEqual([true, false]);
    expect([meets('not-exists', []), meets('not-exists', [], store())]).toEqual([false, true]);
  });
});

describe('regions follow their rules', () => {
  test('voters move to stores that meet the constraints, never fewer than three', () => {
    const world = new World(WARM, []);
    withLabels(world, { 1: 'zone=a', 2: 'zone=a', 3: 'zone=a', 4: 'zone=b', 5: 'zone=b', 6: 'zone=b' });
    world.region({ id: 1, on: ['1', '2', '3'] });
    set(world, rule('b', { override: true, constraints: inZone('b') }));
    let fewest = 3;
    for (let i = 0; i < 30; i++) {
      world.advance(1_500);
      world.beatAll();
      world.placement.tickPatrol();
      world.settle();
      fewest = Math.min(fewest, world.truth(1).region.peers.filter((peer) => peer.role === 'voter').length);
    }
    expect([world.shape(1), fewest]).toEqual(['4 5 6', 3]);
    expect(on(world, 1)).toBeUndefined();
  });

  test('a learner rule adds a learner where it asks for one, and its deletion removes it', () => {
    const world = new World(WARM, []);
    withLabels(world, { 1: 'zone=a', 2: 'zone=b', 3: 'zone=c', 4: 'zone=z' });
    world.region({ id: 1, on: ['1', '2', '3'] });
    set(world, rule('copy', { role: 'learner', count: 1, constraints: inZone('z') }));
    repair(world);
    expect(world.shape(1)).toBe('1 2 3 4L');
    set(world);
    repair(world);
    expect(world.shape(1)).toBe('1 2 3');
  });

  test('roles are corrected in one change', () => {
    const world = new World(WARM, []);
    withLabels(world, { 1: 'zone=a', 2: 'zone=a', 3: 'zone=b', 4: 'zone=a' });
    world.region({ id: 1, on: ['1', '2', '3', '4L'] });
    set(
      world,
      rule('voters', { override: true, constraints: inZone('a') }),
      rule('copy', { index: 2, role: 'learner', count: 1, constraints: inZone('b') }),
    );
    world.placement.tickPatrol();
    expect(stepsOf(on(world, 1) as Operator)).toEqual(['enter joint state (+4 -3)', 'leave joint state']);
    repair(world);
    expect(world.shape(1)).toBe('1 2 3L 4');
  });

  test('a replica on a lost store is replaced by one that meets its rule', () => {
    const world = new World(WARM, []);
    withLabels(world, { 1: 'zone=a', 2: 'zone=a', 3: 'zone=a', 4: 'zone=b', 5: 'zone=a' });
    world.region({ id: 1, on: ['1', '2', '3'] });
    set(world, rule('a', { override: true, constraints: inZone('a') }));
    world.advance(world.placement.cluster.config.storeDownMs);
    repair(world, [3]);
    expect(world.shape(1)).toBe('1 2 5');
  });

  test('replicas move up over several rules when only the last of them can be filled', () => {
    const world = new World(WARM, []);
    withLabels(world, { 1: 'zone=b', 2: 'zone=a', 3: 'zone=c', 4: 'zone=c', 5: 'zone=c', 6: 'zone=a' });
    world.region({ id: 1, on: ['1', '2', '4', '5', '6'] });
    set(
      world,
      rule('any', { override: true, count: 3 }),
      rule('near', { index: 2, role: 'follower', count: 2, constraints: inZone('a', 'b') }),
      rule('lead', { index: 3, role: 'leader', count: 1, constraints: inZone('a') }),
    );
    // Store 1 serves the first rule, 2 and 6 the second: none is left for the leader, and store 3 suits only the first.
    repair(world);
    expect(world.shape(1)).toBe('1 2 3 4 5 6');
    expect([2, 6]).toContain(world.truth(1).leader.storeId);
  });

  test('says which rule lacks a store', () => {
    const world = new World(WARM, []);
    withLabels(world, { 1: 'zone=a', 2: 'zone=a', 3: 'zone=b' });
    world.region({ id: 1, on: ['1', '2', '3'] });
    set(world, rule('a', { override: true, constraints: inZone('a') }));
    repair(world);
    expect(world.shape(1)).toBe('1 2 3');
    const reason = world.placement.coordinator.blockedReason(R(1));
    expect([checkedCode(reason), reason?.details['rule']]).toEqual(['NoTargetStore', 'default/a']);
    const findings = world.placement.explainRegion(R(1)) ?? [];
    expect(findings.find(({ name }) => name === 'rule default/a')?.refusal?.message).toContain('2 of 3 voters');
  });

  test('the lead goes to the store of the leader rule, and balancing leaves it there', () => {
    const world = new World({ ...WARM, leaderTolerance: 0 }, []);
    withLabels(world, { 1: 'zone=a', 2: 'zone=b', 3: 'zone=c' });
    set(
      world,
      rule('lead', { override: true, role: 'leader', count: 1, constraints: inZone('c') }),
      rule('rest', { index: 2, role: 'follower', count: 2 }),
    );
    for (const id of [1, 2, 3, 4]) {
      const key = String.fromCharCode(96 + id);
      world.region({
        id,
        start: id === 1 ? '' : key,
        end: id === 4 ? '' : String.fromCharCode(97 + id),
        on: ['1', '2', '3'],
      });
    }
    for (let i = 0; i < 30; i++) {
      world.advance(1_500);
      world.beatAll();
      world.placement.tickPatrol();
      world.placement.tickSchedulers();
      world.settle();
    }
    expect([1, 2, 3, 4].map((id) => world.truth(id).leader.storeId)).toEqual([3, 3, 3, 3]);
    expect(refusedWith(world.placement.transferLeader(R(1), S(1)))).toBe('RuleBroken');
  });

  test('isolation keeps two replicas of a rule from sharing a place', () => {
    const world = new World(WARM, []);
    withLabels(world, { 1: 'zone=a host=1', 2: 'zone=a host=2', 3: 'zone=b host=3', 4: 'zone=b host=4' });
    world.region({ id: 1, on: ['1', '3'] });
    set(world, rule('apart', { override: true, locationLabels: ['zone', 'host'], isolationLevel: 'zone' }));
    repair(world);
    expect(world.shape(1)).toBe('1 3');
    expect(checkedCode(world.placement.coordinator.blockedReason(R(1)))).toBe('NoTargetStore');
    withLabels(world, { 5: 'zone=c host=5' });
    repair(world);
    expect(world.shape(1)).toBe('1 3 5');
  });

  test('balancing moves a replica only to a store that meets its rule', () => {
    const world = new World({ ...WARM, regionToleranceRatio: 0, locationLabels: [] }, []);
    withLabels(world, { 1: 'zone=a', 2: 'zone=a', 3: 'zone=a', 4: 'zone=b', 5: 'zone=a' });
    set(world, rule('a', { override: true, constraints: inZone('a') }));
    for (const id of [1, 2, 3, 4, 5, 6]) {
      const key = String.fromCharCode(96 + id);
      world.region({
        id,
        start: id === 1 ? '' : key,
        end: id === 6 ? '' : String.fromCharCode(97 + id),
        on: ['1', '2', '3'],
      });
    }
    for (let i = 0; i < 60; i++) {
      world.advance(2_000);
      world.beatAll();
      world.placement.tickSchedulers();
      world.settle();
    }
    const peersOn = (id: number): number => world.placement.cluster.tree.ofStore(S(id)).peers.size;
    expect(peersOn(4)).toBe(0);
    expect(peersOn(5)).toBeGreaterThan(3);
  });
});

describe('borders of rules', () => {
  test('a region across a border is split there, and the parts are not merged again', () => {
    const world = new World({ ...WARM, splitMergeIntervalMs: 0 }, [1, 2, 3]);
    world.placement.switches.set('merge-checker', true);
    world.region({ id: 1, on: ['1', '2', '3'] });
    set(world, rule('middle', { start: 'g', end: 'p', role: 'learner', count: 1, constraints: inZone('nowhere') }));
    expect(world.placement.explainRegion(R(1))?.find(({ name }) => name === 'rule-border')?.refusal?.code).toBe(
      'RuleBorder',
    );
    world.placement.tickPatrol();
    expect(on(world, 1)?.maker).toBe('split-checker');
    world.settle();
    for (const id of world.regions.keys()) {
      world.report(id);
    }
    repair(world);
    expect([...world.regions.values()].map(({ region }) => fromUtf8(region.range.start)).sort()).toEqual([
      '',
      'g',
      'p',
    ]);
    const [left, right] = [...world.regions.values()]
      .filter(({ region }) => fromUtf8(region.range.start) !== 'p')
      .map(({ region }) => region.id);
    expect(refusedWith(world.placement.mergeRegions(left as never, right as never))).toBe('RuleBorder');
  });

  test('a pinned region is left as it is', () => {
    const world = new World(WARM, [1, 2, 3]);
    world.region({ id: 1, on: ['1', '2', '3'] });
    world.placement.resources.setPins(new Set([R(1)]));
    set(world, rule('middle', { start: 'g', override: true }));
    repair(world);
    expect(world.regions.size).toBe(1);
  });
});

describe('changing rules', () => {
  test('says what will happen, and refuses what does not fit', () => {
    const world = new World(WARM, []);
    withLabels(world, { 1: 'zone=a', 2: 'zone=a', 3: 'zone=a' });
    world.region({ id: 1, on: ['1', '2', '3'] });
    const { placement } = world;
    const planned = placement.planSetRule(4, rule('new', { start: 'm', override: true, count: 1 }), undefined);
    expect(planned).toMatchObject({
      type: 'ok',
      value: { outcome: 'created', regionsToSplit: 1, change: { baseVersion: 4, version: 5 }, rule: { version: 5 } },
    });
    expect(refusedWith(placement.planSetRule(4, rule('new', { count: 99 }), undefined))).toBe('InvalidRule');
    expect(refusedWith(placement.planSetRule(4, rule('new', { override: true, role: 'learner' }), undefined))).toBe(
      'NoVoterRule',
    );
    expect(refusedWith(placement.planSetRule(4, rule('new'), 3))).toBe('Conflict');
    expect(refusedWith(placement.planDeleteRule(4, 'default', 'other', undefined))).toBe('RuleNotFound');
    set(world, { ...rule('new', { count: 1 }), version: 5 });
    expect(placement.planSetRule(5, rule('new', { count: 1 }), 5)).toMatchObject({
      value: { outcome: 'unchanged', change: undefined },
    });
    expect(placement.planDeleteRule(5, 'default', 'new', 5)).toMatchObject({
      value: { outcome: 'deleted', change: { deletes: [{ group: 'default', id: 'new' }] } },
    });
    expect(refusedWith(placement.planDeleteRule(5, 'default', 'new', 4))).toBe('Conflict');
    expect(accepted(placement.splitRegion(R(1), [utf8('k')]))).toBeDefined();
  });
});
