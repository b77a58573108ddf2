/**
 * Documents under random disturbance: steps that stores hold back, replicas that lag, silent stores, restarts of the
 * service, edits, deletions. At every moment statuses tell only what is so; in the end, when nothing disturbs any more,
 * every document has come true.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { rangesEqual, rangesOverlap } from '../../src/base/key-range.ts';
import { parseDocument } from '../../src/pd/resource/parse.ts';
import { type Assignment, type Partition, isActive, isServed } from '../../src/pd/resource/resource.ts';
import { servingPartitions } from '../../src/pd/resource/resource-store.ts';
import { DocumentWorld } from '../unit/pd/document-world.ts';

const PODS = ['pod1', 'pod2', 'pod3', 'pod4'];
const BORDERS = ['a', 'c', 'e', 'g', 'j', 'm', 'q'];
const STEPS = ['split', 'merge', 'change-peer', 'change-peer-joint', 'transfer-leader', 'commit'] as const;

type Disturbance =
  | { readonly type: 'pass'; readonly ticks: number }
  | { readonly type: 'hold'; readonly step: (typeof STEPS)[number] }
  | { readonly type: 'release' }
  | { readonly type: 'restart' }
  | { readonly type: 'lag'; readonly region: number; readonly store: number }
  | { readonly type: 'catch-up' }
  | { readonly type: 'merge'; readonly first: number; readonly count: number }
  | { readonly type: 'move'; readonly which: number; readonly to: number }
  | { readonly type: 'split'; readonly which: number }
  | { readonly type: 'delete'; readonly which: number };

const small = fc.nat({ max: 9 });
const disturbance: fc.Arbitrary<Disturbance> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ type: fc.constant('pass' as const), ticks: fc.integer({ min: 1, max: 12 }) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('hold' as const), step: fc.constantFrom(...STEPS) }) },
  { weight: 2, arbitrary: fc.constant({ type: 'release' as const }) },
  { weight: 1, arbitrary: fc.constant({ type: 'restart' as const }) },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('lag' as const), region: small, store: fc.integer({ min: 1, max: 4 }) }),
  },
  { weight: 1, arbitrary: fc.constant({ type: 'catch-up' as const }) },
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant('merge' as const), first: small, count: fc.integer({ min: 2, max: 3 }) }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('move' as const), which: small, to: fc.nat({ max: 3 }) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('split' as const), which: small }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('delete' as const), which: small }) },
);

const ORDER = ['', 'loading', 'following', 'proxying', 'completed'];

/** One history. */
class Chaos {
  readonly made = new DocumentWorld(PODS, {
    proxyThresholdMs: 1_000,
    storeDisconnectedMs: 60_000,
    stepStoreSilentMs: 120_000,
  });
  #phases = new Map<string, string>();
  #next = 0;

  constructor() {
    const { made } = this;
    made.world.region({ id: 1, end: 'e', on: ['1', '2', '3'] });
    made.world.region({ id: 2, start: 'e', end: 'j', on: ['2', '3', '4'] });
    made.world.region({ id: 3, start: 'j', on: ['4', '1', '2'] });
    for (let i = 0; i + 1 < BORDERS.length; i++) {
      // One gap without a name.
      if (i !== 3) {
        made.apply({
          kind: 'Partition',
          metadata: { name: `p${i}` },
          spec: { range: { start: BORDERS[i], end: BORDERS[i + 1] }, primary: PODS[i % 2] },
        });
      }
    }
  }

  /** Refusals are answers like any other; only what is done must be right. */
  #offer(spec: object): void {
    const name = `x${this.#next++}`;
    const { resources } = this.made.world.placement;
    const document = { kind: 'Assignment', metadata: { name }, spec };
    if (resources.planApply([document]).refusal === undefined) {
      this.made.apply(document);
    }
  }

  run(one: Disturbance): void {
    const { made } = this;
    const names = servingPartitions(made.store).map(({ meta }) => meta.name);
    const pick = (n: number): string => names[n % names.length] ?? '';
    switch (one.type) {
      case 'pass':
        this.pass(one.ticks);
        return;
      case 'hold':
        made.held.add(one.step);
        return;
      case 'release':
        made.held.clear();
        return;
      case 'restart':
        made.restart();
        return;
      case 'lag': {
        const truths = [...made.world.regions.values()];
        const truth = truths[one.region % truths.length];
        if (truth !== undefined && truth.leader.storeId !== one.store && !truth.merging) {
          truth.pending.add(one.store);
          made.world.report(truth.region.id);
        }
        return;
      }
      case 'catch-up':
        this.#catchUp();
        return;
      case 'merge': {
        const at = one.first % names.length;
        this.#offer({ type: 'InWorkerMerge', mergeParams: { partitions: names.slice(at, at + one.count) } });
        return;
      }
      case 'move': {
        const primary = made.store.partition(pick(one.which))?.spec.pods.find(({ type }) => type === 'primary')?.name;
        this.#offer({
          type: 'InterWorkerMove',
          moveParams: { partition: pick(one.which), from: primary, to: PODS[one.to] },
        });
        return;
      }
      case 'split': {
        const start = made.store.partition(pick(one.which))?.spec.range.start ?? new Uint8Array(0);
        this.#offer({
          type: 'InWorkerSplit',
          splitParams: {
            partition: pick(one.which),
            splitKey: `${new TextDecoder().decode(start)}5`,
            names: [`l${this.#next}`, `r${this.#next}`],
          },
        });
        return;
      }
      case 'delete': {
        const active = made.store.activeAssignments();
        const chosen = active[one.which % Math.max(1, active.length)];
        if (chosen !== undefined) {
          made.delete('Assignment', chosen.meta.name);
        }
      }
    }
  }

  #catchUp(): void {
    for (const [id, truth] of this.made.world.regions) {
      truth.pending.clear();
      this.made.world.report(id);
    }
  }

  pass(ticks: number): void {
    for (let i = 0; i < ticks; i++) {
      this.made.tick();
      this.check();
    }
  }

  check(): void {
    const { made } = this;
    const serving = servingPartitions(made.store);
    serving.forEach((one, i) => {
      const next = serving[i + 1];
      expect(next !== undefined && rangesOverlap(one.spec.range, next.spec.range), `${one.meta.name} overlaps`).toBe(
        false,
      );
    });
    for (const assignment of made.store.list('Assignment') as Assignment[]) {
      this.#checkPhase(assignment);
      const plan = assignment.status.merge;
      if (plan !== undefined && assignment.status.main === 'primary') {
        const merged = [...made.world.regions.values()].find(({ region }) => rangesEqual(region.range, plan.range));
        // Later Assignments may change what was merged, but not before this one is completed.
        expect(merged !== undefined || !isActive(assignment), `${assignment.meta.name} says primary`).toBe(true);
      }
    }
  }

  #checkPhase({ meta, status }: Assignment): void {
    const before = ORDER.indexOf(this.#phases.get(meta.name) ?? '');
    const now = ORDER.indexOf(status.phase);
    expect(
      now >= before || (before === 2 && now === 1),
      `${meta.name} went from ${ORDER[before]} to ${status.phase}`,
    ).toBe(true);
    this.#phases.set(meta.name, status.phase);
  }

  /** Nothing disturbs any more. */
  calm(): void {
    const { made } = this;
    made.held.clear();
    this.#catchUp();
    for (const { meta, status } of made.store.activeAssignments()) {
      if (status.tries.failures > 0) {
        made.retry(meta.name);
      }
    }
    made.until(
      'everything',
      () =>
        made.store.activeAssignments().length === 0 &&
        made.store.partitions().every((one) => isServed(one) && this.#isLedFromItsPod(one)) &&
        [...made.world.regions.values()].every(
          ({ region }) => region.peers.filter(({ role }) => role === 'voter').length === 3 && region.peers.length === 3,
        ) &&
        made.world.placement.controller.running().length === 0,
      3_000,
    );
    this.check();
  }

  /** By the truth, not by what the service believes. */
  #isLedFromItsPod({ spec }: Partition): boolean {
    const truth = [...this.made.world.regions.values()].find(({ region }) => rangesEqual(region.range, spec.range));
    const primary = spec.pods.find(({ type }) => type === 'primary')?.name;
    return truth !== undefined && PODS[truth.leader.storeId - 1] === primary;
  }
}

describe('documents', () => {
  test('come true whatever disturbs them on the way', () => {
    const completed = new Map<string, number>();
    fc.assert(
      fc.property(fc.array(disturbance, { minLength: 5, maxLength: 60 }), (disturbances) => {
        const chaos = new Chaos();
        disturbances.forEach((one) => chaos.run(one));
        chaos.calm();
        for (const { spec, status } of chaos.made.store.list('Assignment') as Assignment[]) {
          if (status.phase === 'completed') {
            completed.set(spec.type, (completed.get(spec.type) ?? 0) + 1);
          }
        }
      }),
      { numRuns: 100 },
    );
    // Histories in which nothing comes to an end would prove little.
    for (const type of ['InWorkerMerge', 'InWorkerSplit', 'InterWorkerMove']) {
      expect(completed.get(type) ?? 0, type).toBeGreaterThan(5);
    }
  }, 120_000);

  test('of any shape are taken or refused with the path of a field, and never break anything', () => {
    const word = fc.constantFrom(
      'kind',
      'metadata',
      'spec',
      'status',
      'range',
      'start',
      'end',
      'name',
      'type',
      'assignedPods',
      'primary',
      'mergeParams',
      'partitions',
      'Partition',
      'Assignment',
      'InWorkerMerge',
      'a',
      '',
    );
    const { document } = fc.letrec<{ document: unknown }>((tie) => ({
      document: fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        word,
        fc.constantFrom<unknown>(null, undefined, true, 0, -1, 1.5, Number.NaN),
        fc.array(tie('document'), { maxLength: 3 }),
        fc.dictionary(word, tie('document'), { maxKeys: 5 }),
      ),
    }));
    fc.assert(
      fc.property(document, (value) => {
        const parsed = parseDocument(value);
        if (parsed.type === 'refused') {
          expect(parsed.refusal.message).not.toBe('');
          expect(parsed.refusal.details['path']).toBeTypeOf('string');
        } else {
          expect(parsed.value.name).not.toBe('');
        }
      }),
      { numRuns: 2_000 },
    );
  });
});
