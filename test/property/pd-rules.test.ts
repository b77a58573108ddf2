/**
 * Random rules, stores and regions, with stores that die meanwhile: the rule checker comes to rest, then the rules are
 * met as far as stores allow, and on the way no region has fewer voters than both before and after.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isInJointState } from '../../src/meta/region.ts';
import { hasRole } from '../../src/pd/schedule/placement/fit.ts';
import {
  type LabelConstraint,
  type PlacementRule,
  RULE_ROLES,
  defaultRule,
  meetsConstraints,
} from '../../src/pd/schedule/placement/rule.ts';
import { R, S, World } from '../unit/pd/world.ts';

const ZONES = ['a', 'b', 'c'];

const constraint: fc.Arbitrary<LabelConstraint> = fc.oneof(
  fc.record({
    key: fc.constant('zone'),
    op: fc.constantFrom('in' as const, 'not-in' as const),
    values: fc.uniqueArray(fc.constantFrom(...ZONES), { minLength: 1, maxLength: 2 }),
  }),
  fc.record({
    key: fc.constant('ssd'),
    op: fc.constantFrom('exists' as const, 'not-exists' as const),
    values: fc.constant([]),
  }),
);

const rule: fc.Arbitrary<Omit<PlacementRule, 'id'>> = fc.record({
  group: fc.constantFrom('default', 'x'),
  index: fc.nat(3),
  override: fc.boolean(),
  range: fc.constant(defaultRule(3).range),
  role: fc.constantFrom(...RULE_ROLES),
  count: fc.integer({ min: 1, max: 3 }),
  constraints: fc.array(constraint, { maxLength: 1 }),
  locationLabels: fc.constantFrom([], ['zone']),
  isolationLevel: fc.constant(''),
  version: fc.constant(1),
});

describe('the rule checker', () => {
  test('comes to rest with the rules met as far as stores allow', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ zone: fc.constantFrom(...ZONES), ssd: fc.boolean() }), { minLength: 3, maxLength: 7 }),
        fc.array(rule, { minLength: 1, maxLength: 4 }),
        fc.uniqueArray(fc.nat(6), { minLength: 1, maxLength: 4 }),
        fc.option(fc.nat(6), { nil: undefined }),
        (stores, drawn, peers, dead) => {
          const rules = drawn.map((one, i) => ({ ...one, id: `r${i}`, count: one.role === 'leader' ? 1 : one.count }));
          const world = new World({ warmupMaxMs: 0 }, []);
          for (const [i, { zone, ssd }] of stores.entries()) {
            const labels = [{ key: 'zone', value: zone }, ...(ssd ? [{ key: 'ssd', value: '1' }] : [])];
            world.addStore(i + 1, labels);
          }
          const on = [...new Set(peers.map((n) => String((n % stores.length) + 1)))];
          world.region({ id: 1, on });
          const { cluster } = world.placement;
          cluster.setRules(rules);
          fc.pre(cluster.rules.problem() === undefined);
          const deadStore = dead === undefined || on.length < 3 ? undefined : Number(on.at(-1));
          world.advance(cluster.config.storeDownMs);
          const before = on.length;
          const wanted = cluster.wantedVotersOf(cluster.tree.find(new Uint8Array(0)) as never);
          for (let i = 0; i < 60; i++) {
            world.advance(1_500);
            world.beatAll(deadStore === undefined ? [] : [deadStore]);
            world.placement.tickPatrol();
            world.settle();
            const { region } = world.truth(1);
            expect(region.peers.filter(({ role }) => role === 'voter').length).toBeGreaterThanOrEqual(
              Math.min(before, wanted),
            );
          }
          const info = cluster.tree.get(R(1));
          expect(world.placement.controller.runningOn(R(1)), 'nothing runs any more').toBeUndefined();
          if (info === undefined || isInJointState(info.region)) {
            throw new Error('the region is not at rest');
          }
          const fit = cluster.fit(info);
          for (const slot of fit.slots.filter(({ peer }) => peer === undefined)) {
            const spare = cluster
              .stores()
              .find(
                ({ record: { store } }) =>
                  store.id !== deadStore &&
                  meetsConstraints(store, slot.rule.constraints) &&
                  !info.region.peers.some((peer) => peer.storeId === store.id),
              );
            expect(spare, `a store for ${slot.rule.role}`).toBeUndefined();
          }
          if (fit.slots.every(({ peer }) => peer !== undefined && peer.storeId !== S(deadStore ?? 0))) {
            expect(fit.orphans).toEqual([]);
            expect(fit.slots.every(({ peer, rule: one }) => peer !== undefined && hasRole(peer, one))).toBe(true);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
