/** Paused regions: what is refused, what goes on, and what becomes of a pause when the region changes. */
import { describe, expect, test } from 'vitest';
import { FULL_RANGE, type KeyRange, formatRange } from '../../../src/base/key-range.ts';
import {
  PAUSES_MAX,
  PAUSE_MAX_MS,
  PAUSE_REASON_MAX,
  type RegionPause,
  withPause,
  withoutRange,
} from '../../../src/pd/cluster/pauses.ts';
import { PdState } from '../../../src/pd/state/pd-state.ts';
import { R, S, World, accepted, key, refusedWith } from './world.ts';

const range = (start: string, end: string): KeyRange => ({ start: key(start), end: key(end) });

const pauseOf = (start: string, end: string, over: Partial<RegionPause> = {}): RegionPause => ({
  range: range(start, end),
  regionId: R(1),
  reason: '',
  actor: 'me',
  sinceWallMs: 0,
  untilWallMs: undefined,
  ...over,
});

/** Region 1 = [-inf, m), region 2 = [m, +inf), both on stores 1 to 3 of 4. */
function pairWorld(): World {
  const world = new World({ warmupMaxMs: 0, splitMergeIntervalMs: 0 }, [1, 2, 3, 4]);
  world.region({ id: 1, start: '', end: 'm', on: ['1', '2', '3'] });
  world.region({ id: 2, start: 'm', end: '', on: ['1', '2', '3'] });
  return world;
}

/** Pauses the region as the service does once the pause is durable. */
function pause(world: World, id: number, forMs = 0): ReturnType<World['placement']['onPaused']> {
  const planned = world.placement.planPause(R(id), 'disk check', forMs, 'me');
  if (planned.type === 'refused') {
    throw new Error(planned.refusal.message);
  }
  world.placement.resources.pauses.set(withPause([], planned.value));
  return world.placement.onPaused(planned.value);
}

describe('ranges of pauses', () => {
  const shown = (pauses: readonly RegionPause[]): string[] => pauses.map((one) => formatRange(one.range));

  test('a new pause takes the place of what it covers, and a resumed part is cut out', () => {
    const both = withPause(withPause([], pauseOf('m', '')), pauseOf('', 'm'));
    expect(shown(both)).toEqual(['[-inf, m)', '[m, +inf)']);
    expect(shown(withoutRange(both, range('f', 'p')))).toEqual(['[-inf, f)', '[p, +inf)']);
    expect(shown(withoutRange([pauseOf('', '')], range('f', 'p')))).toEqual(['[-inf, f)', '[p, +inf)']);
    expect(shown(withoutRange(both, FULL_RANGE))).toEqual([]);
    expect(shown(withPause(both, pauseOf('f', 'p')))).toEqual(['[-inf, f)', '[f, p)', '[p, +inf)']);
  });

  test('pauses that are over go with the next one', () => {
    const over = pauseOf('', 'm', { untilWallMs: 10 });
    expect(shown(withPause([over], pauseOf('x', '', { sinceWallMs: 9 })))).toHaveLength(2);
    expect(shown(withPause([over], pauseOf('x', '', { sinceWallMs: 10 })))).toEqual(['[x, +inf)']);
  });

  test('there are at most so many, and one more changes nothing', () => {
    const state = new PdState();
    const text = (i: number): string => `k${String(i).padStart(6, '0')}`;
    const apply = (i: number): string =>
      state.apply({ type: 'pause-range', pause: pauseOf(text(i), text(i + 1)) }, []).type;
    for (let i = 0; i < PAUSES_MAX; i++) {
      expect(apply(i)).toBe('done');
    }
    const before = state.pauses;
    expect(apply(PAUSES_MAX)).toBe('refused');
    expect(state.pauses).toBe(before);
    // A pause in place of an older one is not one more.
    expect(apply(7)).toBe('done');
    expect(state.pauses).toHaveLength(PAUSES_MAX);
  });
});

describe('a paused region', () => {
  test('refuses every request of an administrator by name, planned or not, and nothing is started', () => {
    const world = pairWorld();
    pause(world, 1);
    const { placement } = world;
    for (const options of [{}, { dryRun: true }]) {
      for (const result of [
        placement.moveRegion(R(1), S(1), S(4), options),
        placement.addPeer(R(1), S(4), 'voter', options),
        placement.removePeer(R(1), S(3), options),
        placement.transferLeader(R(1), S(2), options),
        placement.splitRegion(R(1), [key('c')], options),
        placement.scatterRegion(R(1), '', options),
        placement.mergeRegions(R(1), R(2), options),
        placement.mergeRegions(R(2), R(1), options),
      ]) {
        expect(refusedWith(result)).toBe('RegionPaused');
      }
    }
    expect([placement.controller.running(), world.take()]).toEqual([[], []]);
    const checks = placement.explainMerge(R(2), R(1), false);
    expect(checks.filter(({ refusal }) => refusal !== undefined)).toMatchObject([
      { name: 'target-not-paused', refusal: { code: 'RegionPaused', message: expect.stringContaining('disk check') } },
    ]);
    // Its neighbor is free.
    accepted(placement.transferLeader(R(2), S(2)));
  });

  test('is not repaired, balanced, evicted or merged, and explanations say why', () => {
    const world = pairWorld();
    world.placement.switches.set('merge-checker', true);
    pause(world, 1);
    const truth = world.truth(1);
    const { epoch, peers } = truth.region;
    truth.region = { ...truth.region, epoch: { ...epoch, confVer: 2 }, peers: peers.slice(0, 2) };
    world.report(1);
    world.placement.cluster.applyStoreRecord(
      {
        ...(world.placement.cluster.store(S(1))?.record as NonNullable<
          ReturnType<typeof world.placement.cluster.store>
        >['record']),
        settings: {
          leadersEvicted: true,
          leaderWeight: 1,
          regionWeight: 1,
          limitPerMinute: undefined,
          removal: undefined,
          version: 0,
        },
      },
      0,
    );
    for (let i = 0; i < 5; i++) {
      world.advance(1_000);
      world.beatAll();
      world.placement.tickPatrol();
      world.placement.tickSchedulers();
      world.placement.tickOperators();
      expect(world.placement.controller.running().filter(({ regionId }) => regionId === 1)).toEqual([]);
    }
    // The neighbor's leader left all the same: one region that must not move does not hold up the others.
    expect(world.placement.controller.runningOn(R(2))?.maker).toBe('evict-leader');
    expect(world.placement.coordinator.blockedReason(R(1))?.code).toBe('RegionPaused');
    const findings = world.placement.explainRegion(R(1)) ?? [];
    const refused = new Map(findings.map(({ name, refusal }) => [name, refusal?.code]));
    expect(refused.get('not-paused')).toBe('RegionPaused');
    expect(refused.get('replica-checker')).toBe('RegionPaused');
    expect(refused.get('merge-into-2')).toBe('RegionPaused');
    // Without the pause the same region is repaired at once.
    world.placement.resources.pauses.set([]);
    world.placement.tickPatrol();
    expect(world.placement.controller.runningOn(R(1))?.maker).toBe('replica-checker');
  });

  test('loses its running operator; the half of a merge takes the other one along', () => {
    const world = pairWorld();
    const transfer = accepted(world.placement.transferLeader(R(1), S(2)));
    expect(pause(world, 1)).toEqual({ stopped: [transfer], going: [] });
    expect([transfer.status, transfer.reason?.code]).toEqual(['canceled', 'AdminStop']);
    world.placement.resources.pauses.set([]);
    world.region({ id: 1, start: '', end: 'm', on: ['1', '2', '4'], confVer: 2 });
    const merge = accepted(world.placement.mergeRegions(R(1), R(2)));
    const { stopped } = pause(world, 2);
    expect(stopped).toEqual([merge.related]);
    expect(merge.hasEnded).toBe(true);
    expect(world.placement.controller.running()).toEqual([]);
  });

  test('keeps a merge that the stores have begun; the region that comes out is paused as a whole', () => {
    const world = pairWorld();
    const merge = accepted(world.placement.mergeRegions(R(1), R(2)));
    world.settle();
    world.report(1);
    expect(merge.isCancelable).toBe(false);
    expect(pause(world, 1)).toEqual({ stopped: [], going: [merge] });
    world.commitMerge(1, 2);
    world.report(2);
    expect(merge.status).toBe('success');
    expect(refusedWith(world.placement.splitRegion(R(2), [key('x')]))).toBe('RegionPaused');
  });

  test('is still brought out of a joint state', () => {
    const world = pairWorld();
    const truth = world.truth(1);
    truth.region = {
      ...truth.region,
      epoch: { ...truth.region.epoch, confVer: 9 },
      peers: truth.region.peers.map((peer, i) => (i === 2 ? { ...peer, role: 'demoting-voter' as const } : peer)),
    };
    world.report(1);
    pause(world, 1);
    world.placement.tickPatrol();
    expect(world.placement.controller.runningOn(R(1))?.maker).toBe('joint-state-checker');
    world.settle();
    expect(world.shape(1)).toBe('1 2 3L');
    world.placement.tickPatrol();
    expect(world.placement.controller.runningOn(R(1))).toBeUndefined();
  });

  test('that is split leaves both parts paused; one can be resumed alone', () => {
    const world = pairWorld();
    pause(world, 1);
    const [child] = world.splitTruth(1, [key('f')]);
    world.report(1);
    world.report(child as number);
    const isPaused = (id: number): boolean =>
      refusedCode(world.placement.transferLeader(R(id), S(2), { dryRun: true })) === 'RegionPaused';
    expect([isPaused(1), isPaused(child as number), isPaused(2)]).toEqual([true, true, false]);
    const left = withoutRange([pauseOf('', 'm')], world.truth(1).region.range);
    world.placement.resources.pauses.set(left);
    expect([isPaused(1), isPaused(child as number)]).toEqual([false, true]);
  });

  test('is free by itself when its time is over', () => {
    const world = pairWorld();
    pause(world, 1, 5_000);
    world.advance(4_999);
    expect(refusedWith(world.placement.transferLeader(R(1), S(2)))).toBe('RegionPaused');
    world.advance(1);
    world.beatAll();
    accepted(world.placement.transferLeader(R(1), S(2)));
  });
});

const refusedCode = (result: ReturnType<World['placement']['moveRegion']>): string | undefined =>
  result.type === 'refused' ? result.refusal.code : undefined;

describe('a request to pause', () => {
  test('is refused for an unknown region, a long reason and a wrong time', () => {
    const { placement } = pairWorld();
    const plan = (id: number, reason: string, forMs: number): string => {
      const planned = placement.planPause(R(id), reason, forMs, 'me');
      return planned.type === 'ok' ? 'ok' : refusedWith(planned);
    };
    expect(plan(9, '', 0)).toBe('RegionNotFound');
    expect(plan(1, 'x'.repeat(PAUSE_REASON_MAX), PAUSE_MAX_MS)).toBe('ok');
    expect(plan(1, 'x'.repeat(PAUSE_REASON_MAX + 1), 0)).toBe('InvalidArgument');
    expect(plan(1, '', PAUSE_MAX_MS + 1)).toBe('InvalidArgument');
    expect(plan(1, '', -1)).toBe('InvalidArgument');
    expect(plan(1, '', 0.5)).toBe('InvalidArgument');
  });
});

describe('switches', () => {
  test('go off for a time and on again by themselves', () => {
    const world = pairWorld();
    const { switches } = world.placement;
    const until = world.time.wallMs() + 1_000;
    switches.set('balance-leader', false, until);
    expect([switches.isOn('balance-leader'), switches.offUntilWallMs('balance-leader')]).toEqual([false, until]);
    world.advance(1_000);
    expect([switches.isOn('balance-leader'), switches.offUntilWallMs('balance-leader')]).toEqual([true, undefined]);
    switches.set('balance-leader', false);
    expect([switches.isOn('balance-leader'), switches.offUntilWallMs('balance-leader')]).toEqual([false, undefined]);
  });
});

describe('regions that documents hold', () => {
  const apply = (world: World, document: unknown): void => {
    const { refusal, change } = world.placement.resources.planApply([document]);
    if (refusal !== undefined || change === undefined) {
      throw new Error(refusal?.message ?? 'nothing changed');
    }
    world.placement.resources.store.apply(change);
  };

  test('are not merged by hand, as source or target, planned or not; the refusal names the document', () => {
    const world = pairWorld();
    apply(world, { kind: 'Partition', metadata: { name: 'users' }, spec: { range: { start: 'm', end: '' } } });
    for (const options of [{}, { dryRun: true }]) {
      for (const [source, target] of [
        [1, 2],
        [2, 1],
      ] as const) {
        const result = world.placement.mergeRegions(R(source), R(target), options);
        expect(refusedWith(result)).toBe('RegionPinned');
        expect(result).toMatchObject({ refusal: { details: { partition: 'users' }, message: /Partition users/ } });
      }
    }
    expect(world.take()).toEqual([]);
  });
});
