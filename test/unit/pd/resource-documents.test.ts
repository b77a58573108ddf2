/** Partition and Assignment documents: what is accepted, what is refused, with which field and reason. */
import { readFileSync } from 'node:fs';
import { parseAllDocuments } from 'yaml';
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { ENTRIES_MAX, NAME_CHARS_MAX } from '../../../src/pd/resource/fields.ts';
import { parseDocument } from '../../../src/pd/resource/parse.ts';
import { RESOURCES_MAX } from '../../../src/pd/resource/admission.ts';
import { specShown, statusShown } from '../../../src/pd/resource/render.ts';
import type { Assignment, Partition, PartitionSpec } from '../../../src/pd/resource/resource.ts';
import { DOCUMENTS_PER_REQUEST_MAX, type DocumentPlan } from '../../../src/pd/resource/resources.ts';
import { decodeResource, encodeResource } from '../../../src/pd/state/record.ts';
import { PdState } from '../../../src/pd/state/pd-state.ts';
import { World } from './world.ts';

const yaml = (text: string): unknown[] => parseAllDocuments(text).map((document) => document.toJS() as unknown);
const example = (name: string): unknown[] =>
  yaml(readFileSync(new URL(`../../../examples/${name}.yaml`, import.meta.url), 'utf8'));

/** Three pods, one region over everything. */
function world(pods: readonly string[] = ['pod1', 'pod2', 'pod3', 'srcPod', 'dstPod']): World {
  const made = new World({}, []);
  pods.forEach((pod, i) => made.addStore(i + 1, [{ key: 'name', value: pod }]));
  made.region({ id: 1, on: ['1', '2', '3'] });
  return made;
}

function apply(made: World, documents: readonly unknown[]): DocumentPlan {
  const { resources } = made.placement;
  const plan = resources.planApply(documents);
  if (plan.refusal === undefined && plan.change !== undefined) {
    resources.store.apply(plan.change);
  }
  return plan;
}

const partition = (name: string, start: string, end: string, primary = 'pod1'): unknown => ({
  kind: 'Partition',
  metadata: { name },
  spec: { range: { start, end }, primary },
});

const merge = (name: string, partitions: readonly string[], more: object = {}): unknown => ({
  kind: 'Assignment',
  metadata: { name },
  spec: { type: 'InWorkerMerge', mergeParams: { partitions, ...more } },
});

describe('documents as users write them', () => {
  test('the examples are taken as they stand, with a warning for a status', () => {
    const made = world();
    const plan = apply(made, [...example('part1'), ...example('part2'), ...example('a1')]);
    expect(plan.results.map(({ kind, name, outcome }) => [kind, name, outcome])).toEqual([
      ['Partition', 'part1', 'created'],
      ['Partition', 'part2', 'created'],
      ['Assignment', 'a1', 'created'],
    ]);
    expect(plan.results[0]?.warnings).toEqual(['status is written by the placement service alone and was ignored']);
    // An empty status is no status.
    expect(plan.results[2]?.warnings).toEqual([]);
    expect(made.placement.resources.store.partition('part1')?.status.ready).toBe(false);
  });

  test('a missing kind beside a range is a Partition, and status in an entry is its type', () => {
    const made = world();
    const plan = apply(made, example('move'));
    expect(plan.results[0]?.outcome).toBe('created');
    expect(plan.results[0]?.warnings).toHaveLength(2);
    expect(made.placement.resources.store.partition('part1')?.spec.pods).toEqual([{ name: 'srcPod', type: 'primary' }]);
    for (const step of ['move-2-follow', 'move-3-flip', 'move-4-end']) {
      expect(apply(made, example(step)).results[0]?.outcome).toBe('changed');
    }
    expect(made.placement.resources.store.partition('part1')?.meta.generation).toBe(4);
  });

  test('what was applied is shown in the same words', () => {
    const made = world();
    apply(made, [...example('part1'), ...example('part2'), ...example('a1')]);
    const { store } = made.placement.resources;
    for (const name of ['part1', 'part2'] as const) {
      const [written] = example(name) as [{ spec: unknown }];
      expect(specShown(store.partition(name) as Partition)).toEqual(written.spec);
    }
    const [written] = example('a1') as [{ spec: unknown }];
    expect(specShown(store.assignment('a1') as Assignment)).toEqual(written.spec);
    expect(statusShown(store.assignment('a1') as Assignment)).toBeNull();
  });

  test('hexadecimal keys, open ends, every kind of assignment', () => {
    const parsed = parseDocument({ metadata: { name: 'p' }, spec: { range: { start: '00ff', encoding: 'hex' } } });
    expect(parsed.type === 'ok' && (parsed.value.spec as PartitionSpec).range).toEqual({
      start: new Uint8Array([0, 255]),
      end: new Uint8Array(0),
    });
    const split = { type: 'InWorkerSplit', splitParams: { partition: 'p', splitKey: 'k', names: ['l', 'r'] } };
    const move = {
      type: 'InterWorkerMove',
      moveParams: { partition: 'p', from: 'x', to: 'y', proxyThreshold: '1500ms' },
    };
    for (const spec of [split, move, { type: 'New', newParams: { partition: 'p', primary: 'x' } }]) {
      const document = parseDocument({ kind: 'Assignment', metadata: { name: 'a' }, spec });
      expect(document.type, JSON.stringify(spec)).toBe('ok');
      if (document.type === 'ok') {
        const shown = specShown({ kind: 'Assignment', spec: document.value.spec } as Assignment);
        expect(shown).toEqual(spec);
      }
    }
  });

  const bad: readonly (readonly [what: string, document: unknown, code: string, path: string])[] = [
    ['no object', 7, 'InvalidDocument', 'the document'],
    ['no JSON', undefined, 'InvalidDocument', 'the document'],
    ['an unknown kind', { kind: 'Shard', metadata: { name: 'x' } }, 'UnknownKind', 'kind'],
    ['no kind', { metadata: { name: 'x' }, spec: {} }, 'InvalidDocument', 'kind'],
    ['an unknown field', { ...(partition('x', 'a', 'b') as object), extra: 1 }, 'UnknownField', 'extra'],
    [
      'an unknown field deep inside',
      { metadata: { name: 'x' }, spec: { range: { start: 'a', stop: 'b' } } },
      'UnknownField',
      'spec.range.stop',
    ],
    [
      'an unknown version',
      { apiVersion: 'v9', ...(partition('x', 'a', 'b') as object) },
      'InvalidDocument',
      'apiVersion',
    ],
    ['no name', { kind: 'Partition', metadata: {}, spec: {} }, 'InvalidDocument', 'metadata.name'],
    ['a bad name', partition('a/b', 'a', 'b'), 'InvalidDocument', 'metadata.name'],
    ['a number as key', partition('x', 1 as unknown as string, 'b'), 'InvalidDocument', 'spec.range.start'],
    ['an empty range', partition('x', 'b', 'b'), 'InvalidDocument', 'spec.range.end'],
    ['a reversed range', partition('x', 'c', 'b'), 'InvalidDocument', 'spec.range.end'],
    ['a long key', partition('x', 'a'.repeat(4097), 'b'), 'InvalidDocument', 'spec.range.start'],
    [
      'bad hexadecimal',
      { metadata: { name: 'x' }, spec: { range: { start: 'zz', encoding: 'hex' } } },
      'InvalidDocument',
      'spec.range.start',
    ],
    ['an unknown pod', partition('x', 'a', 'b', 'nowhere'), 'UnknownPod', 'spec.primary'],
    [
      'a proxy as the only copy',
      { kind: 'Partition', metadata: { name: 'x' }, spec: { range: {}, proxy: 'pod1' } },
      'InvalidDocument',
      'spec.proxy',
    ],
    [
      'two primaries',
      {
        metadata: { name: 'x' },
        spec: {
          range: {},
          assignedPods: [
            { name: 'pod1', type: 'primary' },
            { name: 'pod2', type: 'primary' },
          ],
        },
      },
      'InvalidDocument',
      'spec.assignedPods[1].type',
    ],
    [
      'a pod twice',
      {
        metadata: { name: 'x' },
        spec: {
          range: {},
          assignedPods: [
            { name: 'pod1', type: 'primary' },
            { name: 'pod1', type: 'follower' },
          ],
        },
      },
      'InvalidDocument',
      'spec.assignedPods[1].name',
    ],
    [
      'no primary',
      { metadata: { name: 'x' }, spec: { range: {}, assignedPods: [{ name: 'pod1', type: 'follower' }] } },
      'InvalidDocument',
      'spec.assignedPods',
    ],
    [
      'an unknown role',
      { metadata: { name: 'x' }, spec: { range: {}, assignedPods: [{ name: 'pod1', type: 'leader' }] } },
      'InvalidDocument',
      'spec.assignedPods[0].type',
    ],
    [
      'both ways of naming pods',
      {
        metadata: { name: 'x' },
        spec: { range: {}, primary: 'pod1', assignedPods: [{ name: 'pod1', type: 'primary' }] },
      },
      'InvalidDocument',
      'spec.primary',
    ],
    ['a merge of one', merge('a', ['part1']), 'InvalidDocument', 'spec.mergeParams.partitions'],
    ['a merge of one twice', merge('a', ['part1', 'part1']), 'InvalidDocument', 'spec.mergeParams.partitions[1]'],
    ['a merge of an unknown part', merge('a', ['part1', 'no']), 'ResourceNotFound', 'spec.mergeParams.partitions[1]'],
    [
      'a bad policy',
      merge('a', ['part1', 'part2'], { gapPolicy: 'ask' }),
      'InvalidDocument',
      'spec.mergeParams.gapPolicy',
    ],
    [
      'a bad threshold',
      merge('a', ['part1', 'part2'], { proxyThreshold: 60 }),
      'InvalidDocument',
      'spec.mergeParams.proxyThreshold',
    ],
    [
      'a gap that is refused',
      merge('a', ['part1', 'part2'], { gapPolicy: 'reject' }),
      'NonAdjacentRanges',
      'spec.mergeParams.partitions',
    ],
    [
      'a taken name',
      merge('a', ['part1', 'part2'], { mergedName: 'part1' }),
      'NameTaken',
      'spec.mergeParams.mergedName',
    ],
    ['overlapping ranges', partition('x', 'd', 'f'), 'OverlappingRange', 'spec.range'],
    ['a range around another', partition('x', '', ''), 'OverlappingRange', 'spec.range'],
    ['another range', partition('part1', 'a', 'f'), 'ImmutableField', 'spec.range'],
    [
      'an old version',
      { ...(partition('part1', 'a', 'e', 'pod2') as object), metadata: { name: 'part1', resourceVersion: 99 } },
      'Conflict',
      'metadata.resourceVersion',
    ],
    [
      'a move from elsewhere',
      {
        kind: 'Assignment',
        metadata: { name: 'm' },
        spec: { type: 'InterWorkerMove', moveParams: { partition: 'part1', from: 'pod2', to: 'pod3' } },
      },
      'InvalidDocument',
      'spec.moveParams.from',
    ],
    [
      'params of another type',
      { kind: 'Assignment', metadata: { name: 'm' }, spec: { type: 'New', mergeParams: {} } },
      'InvalidDocument',
      'spec.mergeParams',
    ],
    [
      'a split at a border',
      {
        kind: 'Assignment',
        metadata: { name: 's' },
        spec: { type: 'InWorkerSplit', splitParams: { partition: 'part1', splitKey: 'a' } },
      },
      'KeyNotInRegion',
      'spec.splitParams.splitKey',
    ],
  ];

  test.each(bad)('%s is refused, naming the field, and nothing is changed', (_, document, code, path) => {
    const made = world();
    apply(made, [partition('part1', 'a', 'e'), partition('part2', 'j', 'o')]);
    const { version } = made.placement.resources.store;
    const plan = apply(made, [partition('other', 'x', 'y'), document]);
    expect(plan.refusal?.code).toBe(code);
    expect(plan.refusal?.details['path']).toBe(path);
    expect(plan.refusal?.hint).not.toBe('');
    expect(plan.results.map(({ outcome }) => outcome)).toEqual(['skipped', 'refused']);
    expect(plan.change).toBeUndefined();
    expect(made.placement.resources.store.version).toBe(version);
  });

  test('a refusal names the other document', () => {
    const made = world();
    apply(made, [partition('part1', 'a', 'e'), partition('part2', 'j', 'o'), partition('between', 'f', 'g')]);
    expect(apply(made, [partition('x', 'd', 'f')]).refusal?.message).toContain('part1');
    const refusal = apply(made, [merge('a1', ['part1', 'part2'])]).refusal;
    expect(refusal?.code).toBe('NonAdjacentRanges');
    expect(refusal?.details['blockers']).toBe('between');
    expect(apply(made, [merge('a1', ['part1', 'between', 'part2'])]).refusal).toBeUndefined();
  });

  test('nobody takes a place between the parts of a merge, while it waits and while it runs', () => {
    const made = world();
    apply(made, [partition('part1', 'a', 'e'), partition('part2', 'j', 'o')]);
    // No region has the range of a part yet, so the Assignment has no plan: it waits for its parts.
    expect(apply(made, [merge('a1', ['part1', 'part2'])]).refusal).toBeUndefined();
    expect(made.placement.resources.store.assignment('a1')?.status.merge).toBeUndefined();
    const plan = apply(made, [partition('between', 'f', 'g')]);
    expect(plan.refusal?.code).toBe('OverlappingRange');
    expect(plan.refusal?.message).toContain('Assignment a1');
    expect(plan.change).toBeUndefined();
    expect(apply(made, [partition('beside', 'o', 'p')]).refusal).toBeUndefined();
    // Both in one request: the later one is refused, and so nothing of it is taken.
    const other = world();
    apply(other, [partition('part1', 'a', 'e'), partition('part2', 'j', 'o')]);
    const both = apply(other, [merge('a1', ['part1', 'part2']), partition('between', 'f', 'g')]);
    expect(both.refusal?.code).toBe('OverlappingRange');
    expect(other.placement.resources.store.assignment('a1')).toBeUndefined();
  });

  test('the same again changes nothing, also with the version that is shown', () => {
    const made = world();
    apply(made, [partition('part1', 'a', 'e')]);
    const before = made.placement.resources.store.partition('part1');
    const again = {
      ...(partition('part1', 'a', 'e') as object),
      metadata: { ...before?.meta, createdWallMs: undefined },
    };
    const plan = apply(made, [JSON.parse(JSON.stringify(again))]);
    expect(plan.results[0]?.outcome).toBe('unchanged');
    expect(plan.change).toBeUndefined();
    expect(made.placement.resources.store.partition('part1')).toBe(before);
  });

  test('a changed document says who asked for it and why, one that was not changed keeps what it said', () => {
    const made = world();
    const { resources } = made.placement;
    const take = (plan: DocumentPlan): void => {
      expect(plan.refusal).toBeUndefined();
      if (plan.change !== undefined) {
        resources.store.apply(plan.change);
      }
    };
    const author = (name: string): unknown => resources.store.partition(name)?.meta.author;
    const ada = { actor: 'ada', reason: 'new shop' };
    take(resources.planApply([partition('part1', 'a', 'e'), partition('part2', 'j', 'o')], ada));
    expect(author('part1')).toEqual(ada);
    const stored = resources.store.partition('part1');
    expect(stored === undefined ? undefined : decodeResource(encodeResource(stored))).toEqual(stored);
    const bob = { actor: 'bob', reason: '' };
    take(resources.planApply([partition('part1', 'a', 'e'), partition('part2', 'j', 'o', 'pod2')], bob));
    expect([author('part1'), author('part2')]).toEqual([ada, bob]);
    // Who deletes a running transition is known until it has ended.
    take(resources.planApply([partition('part2', 'j', 'o')], bob));
    take(resources.planApply([merge('a1', ['part1', 'part2'])], ada));
    expect(resources.store.assignment('a1')?.meta.author).toEqual(ada);
    expect(author('part1')).toEqual(ada);
  });

  test('a Partition under an Assignment can be neither edited nor deleted nor assigned twice', () => {
    const made = world();
    apply(made, [partition('part1', 'a', 'e'), partition('part2', 'j', 'o'), merge('a1', ['part1', 'part2'])]);
    const { resources } = made.placement;
    expect(apply(made, [partition('part1', 'a', 'e', 'pod2')]).refusal?.code).toBe('PartitionBusy');
    expect(apply(made, [merge('a2', ['part1', 'part2'])]).refusal?.code).toBe('PartitionBusy');
    expect(resources.planDelete('partition', 'part1', 0).refusal?.code).toBe('PartitionBusy');
    expect(resources.planDelete('assignment', 'a1', 77).refusal?.code).toBe('Conflict');
    expect(resources.planDelete('assignment', 'a1', 0).results[0]?.outcome).toBe('deleted');
    expect(resources.planDelete('assignment', 'nobody', 0).refusal?.code).toBe('ResourceNotFound');
    expect(resources.planRetry('a1').refusal?.code).toBe('NotStalled');
  });

  test('parts of a strict merge must be on one pod, and large ones need force', () => {
    const made = world();
    made.truth(1).sizeBytes = 97 * 1024 * 1024;
    made.report(1);
    apply(made, [partition('part1', 'a', 'e'), partition('part2', 'j', 'o', 'pod2')]);
    expect(apply(made, [merge('a1', ['part1', 'part2'], { strict: true })]).refusal?.code).toBe('NotOnePod');
    expect(apply(made, [merge('a1', ['part1', 'part2'])]).refusal?.code).toBe('MergedTooLarge');
    expect(apply(made, [merge('a1', ['part1', 'part2'], { force: true })]).refusal).toBeUndefined();
  });
});

describe('limits', () => {
  test('a request has so many documents, a list so many entries, a name so many characters', () => {
    const made = world();
    const many = Array.from({ length: DOCUMENTS_PER_REQUEST_MAX + 1 }, (_, i) => partition(`p${i}`, `a${i}`, `a${i}x`));
    expect(apply(made, many).refusal?.code).toBe('InvalidArgument');
    const parts = Array.from({ length: ENTRIES_MAX + 1 }, (_, i) => `p${i}`);
    expect(apply(made, [merge('a', parts)]).refusal?.details['path']).toBe('spec.mergeParams.partitions');
    expect(apply(made, [partition('n'.repeat(NAME_CHARS_MAX + 1), 'a', 'b')]).refusal?.details['path']).toBe(
      'metadata.name',
    );
    expect(apply(made, [partition('n'.repeat(NAME_CHARS_MAX), 'a', 'b')]).refusal).toBeUndefined();
  });

  test('a cluster has so many documents', () => {
    const made = world();
    apply(made, [partition('first', 'a', 'b')]);
    const [first] = [...made.placement.resources.store.all()];
    const copies = Array.from({ length: RESOURCES_MAX }, (_, i) => ({
      ...(first as Partition),
      meta: { ...(first as Partition).meta, name: `p${i}` },
      spec: { ...(first as Partition).spec, range: { start: utf8(`c${i}`), end: utf8(`c${i} `) } },
    }));
    made.placement.resources.store.load(copies, 1);
    expect(apply(made, [partition('more', 'x', 'y')]).refusal?.code).toBe('TooManyResources');
    expect(apply(made, [partition('p7', 'c7', 'c7 ')]).results[0]?.outcome).toBe('unchanged');
  });
});

describe('documents in the durable state', () => {
  test('a document survives being written and read, bytes included', () => {
    const made = world();
    apply(made, [partition('part1', 'a', 'e'), partition('part2', 'j', 'o'), merge('a1', ['part1', 'part2'])]);
    for (const resource of made.placement.resources.store.all()) {
      expect(decodeResource(encodeResource(resource))).toEqual(resource);
    }
    expect(made.placement.resources.store.partition('part1')?.spec.range.start).toEqual(utf8('a'));
  });

  test('a change that was planned on another state is refused as a whole', () => {
    const made = world();
    const state = new PdState();
    const first = made.placement.resources.planApply([partition('part1', 'a', 'e')]).change;
    const second = made.placement.resources.planApply([partition('part2', 'j', 'o')]).change;
    if (first === undefined || second === undefined) {
      throw new Error('nothing was planned');
    }
    expect(state.apply({ type: 'change-resources', change: first }, [])).toEqual({ type: 'done' });
    const touched: never[] = [];
    expect(state.apply({ type: 'change-resources', change: second }, touched)).toEqual({
      type: 'refused',
      reason: 'not-current',
    });
    expect(touched).toEqual([]);
    expect([...state.resources.keys()]).toEqual(['Partition/part1']);
    expect(state.resourceVersion).toBe(first.version);
  });

  test('watchers see every change in its order, and are told when some are forgotten', () => {
    const made = world();
    const { store } = made.placement.resources;
    apply(made, [partition('part1', 'a', 'e')]);
    const from = store.version;
    apply(made, [partition('part2', 'j', 'o')]);
    apply(made, [partition('part2', 'j', 'o', 'pod2')]);
    const deletion = made.placement.resources.planDelete('Partition', 'part1', 0).change;
    store.apply(deletion as NonNullable<typeof deletion>);
    expect(store.changesAfter(from)?.map(({ type, resource }) => [type, resource.meta.name])).toEqual([
      ['put', 'part2'],
      ['put', 'part2'],
      ['deleted', 'part1'],
    ]);
    store.load([], store.version + 10);
    expect(store.changesAfter(from)).toBeUndefined();
  });
});
