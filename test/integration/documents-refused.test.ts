/** Documents that make no sense, through the command line: named with field and reason, and nothing is changed by them. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { REAL_CONNECTOR } from '../../src/cli/session.ts';
import { type RunOutcome, runWith } from '../unit/cli/harness.ts';
import { braid, TestCluster, waitFor } from './cluster.ts';

let cluster: TestCluster;

/** The command line in this process: dozens of them are run. */
const stdin = (input: string, ...args: readonly string[]): Promise<RunOutcome> =>
  runWith(REAL_CONNECTOR, [...args, '--pd', cluster.pdAddress], { stdin: input });

const partition = (name: string, spec: string, metadata = ''): string =>
  `kind: Partition\nmetadata: {name: ${name}${metadata}}\nspec: ${spec}\n`;
const assignment = (name: string, spec: string): string =>
  `kind: Assignment\nmetadata: {name: ${name}}\nspec: ${spec}\n`;
const merge = (params: string): string => assignment('bad', `{type: InWorkerMerge, mergeParams: ${params}}`);
const split = (params: string): string => assignment('bad', `{type: InWorkerSplit, splitParams: ${params}}`);
const move = (params: string): string => assignment('bad', `{type: InterWorkerMove, moveParams: ${params}}`);
const pods = (...entries: readonly string[]): string =>
  `{range: {start: p, end: q}, assignedPods: [${entries.map((entry) => `{${entry}}`).join(', ')}]}`;

/** What is there before: three Partitions, of which two do not touch and the third one lies between them. */
const THERE = [
  partition('low', '{range: {start: a, end: e}, primary: pod1}'),
  partition('mid', '{range: {start: g, end: i}, primary: pod2}'),
  partition('high', '{range: {start: j, end: o}, primary: pod1}'),
].join('---\n');

const BAD: readonly (readonly [what: string, document: string, code: string, path: string, reason: RegExp])[] = [
  ['an unknown kind', 'kind: Shard\nmetadata: {name: bad}\nspec: {}\n', 'UnknownKind', 'kind', /Partition/],
  ['no kind', 'metadata: {name: bad}\nspec: {type: New}\n', 'InvalidDocument', 'kind', /missing|Partition/],
  [
    'an unknown field',
    partition('bad', '{rang: {start: p, end: q}}'),
    'UnknownField',
    'spec.rang',
    /not a known field/,
  ],
  [
    'an unknown field of the metadata',
    partition('bad', '{range: {start: p, end: q}}', ', label: x'),
    'UnknownField',
    'metadata.label',
    /not a known field/,
  ],
  [
    'an unknown field of parameters',
    merge('{partitions: [low, mid], into: x}'),
    'UnknownField',
    'spec.mergeParams.into',
    /not a known field/,
  ],
  [
    'a range that overlaps',
    partition('bad', '{range: {start: b, end: z}}'),
    'OverlappingRange',
    'spec.range',
    /overlaps Partition low/,
  ],
  ['a range without keys', partition('bad', '{range: {start: q, end: p}}'), 'InvalidDocument', 'spec.range', /./],
  [
    'an unknown pod',
    partition('bad', '{range: {start: p, end: q}, primary: nowhere}'),
    'UnknownPod',
    'spec.primary',
    /nowhere, which is no pod/,
  ],
  [
    'an unknown pod in a list',
    partition('bad', pods('name: pod1, type: primary', 'name: nowhere, type: follower')),
    'UnknownPod',
    'spec.assignedPods[1].name',
    /nowhere/,
  ],
  [
    'two primaries',
    partition('bad', pods('name: pod1, type: primary', 'name: pod2, type: primary')),
    'InvalidDocument',
    'spec.assignedPods',
    /primar/,
  ],
  [
    'no primary',
    partition('bad', pods('name: pod1, type: follower')),
    'InvalidDocument',
    'spec.assignedPods',
    /names no primary/,
  ],
  [
    'a pod twice',
    partition('bad', pods('name: pod1, type: primary', 'name: pod1, type: follower')),
    'InvalidDocument',
    'spec.assignedPods[1]',
    /./,
  ],
  [
    'a proxy as the only copy',
    partition('bad', pods('name: pod1, type: proxy')),
    'InvalidDocument',
    'spec.assignedPods',
    /proxy may not be the only copy/,
  ],
  [
    'a proxy as the only copy, in the other form',
    partition('bad', '{range: {start: p, end: q}, proxy: pod1}'),
    'InvalidDocument',
    'spec.proxy',
    /proxy may not be the only copy/,
  ],
  [
    'an unknown role',
    partition('bad', pods('name: pod1, type: leader')),
    'InvalidDocument',
    'spec.assignedPods[0].type',
    /primary, follower, proxy/,
  ],
  [
    'a version that is not the latest',
    partition('low', '{range: {start: a, end: e}, primary: pod3}', ', resourceVersion: 1'),
    'Conflict',
    'metadata.resourceVersion',
    /./,
  ],
  [
    'another range of a Partition',
    partition('low', '{range: {start: a, end: d}, primary: pod1}'),
    'ImmutableField',
    'spec.range',
    /cannot be edited/,
  ],
  [
    'a merge over a Partition of somebody else',
    merge('{partitions: [low, high]}'),
    'NonAdjacentRanges',
    'spec.mergeParams.partitions',
    /between the parts lies Partition mid/,
  ],
  [
    'a merge over a gap that is not wanted',
    merge('{partitions: [low, mid], gapPolicy: reject}'),
    'NonAdjacentRanges',
    'spec.mergeParams.partitions',
    /gapPolicy is reject/,
  ],
  ['a merge of one part', merge('{partitions: [low]}'), 'InvalidDocument', 'spec.mergeParams.partitions', /two/],
  [
    'a merge of a part with itself',
    merge('{partitions: [low, low]}'),
    'InvalidDocument',
    'spec.mergeParams.partitions',
    /./,
  ],
  [
    'a merge of an unknown part',
    merge('{partitions: [low, nobody]}'),
    'ResourceNotFound',
    'spec.mergeParams.partitions[1]',
    /nobody/,
  ],
  [
    'a strict merge of parts on two pods',
    merge('{partitions: [low, mid], strict: true}'),
    'NotOnePod',
    'spec.mergeParams.partitions',
    /pod1, pod2/,
  ],
  [
    'a merge into a name that is taken',
    merge('{partitions: [low, mid], mergedName: high}'),
    'NameTaken',
    'spec.mergeParams.mergedName',
    /high already/,
  ],
  [
    'a split outside of the range',
    split('{partition: low, splitKey: z}'),
    'KeyNotInRegion',
    'spec.splitParams.splitKey',
    /does not lie inside/,
  ],
  [
    'a split at the start of the range',
    split('{partition: low, splitKey: a}'),
    'KeyNotInRegion',
    'spec.splitParams.splitKey',
    /does not lie inside/,
  ],
  [
    'a move from a pod that is not the primary',
    move('{partition: low, from: pod2, to: pod3}'),
    'InvalidDocument',
    'spec.moveParams.from',
    /is not the primary/,
  ],
  [
    'a move to an unknown pod',
    move('{partition: low, from: pod1, to: nowhere}'),
    'UnknownPod',
    'spec.moveParams.to',
    /nowhere/,
  ],
  [
    'a new Partition that is not there',
    assignment('bad', '{type: New, newParams: {partition: nobody, primary: pod1}}'),
    'ResourceNotFound',
    'spec.newParams.partition',
    /nobody/,
  ],
  ['an unknown type of Assignment', assignment('bad', '{type: Swap}'), 'InvalidDocument', 'spec.type', /InWorkerMerge/],
  [
    'parameters of another type',
    assignment('bad', '{type: New, mergeParams: {partitions: [low, mid]}}'),
    '[A-Za-z]+',
    'spec.',
    /./,
  ],
];

const GOOD = partition('good', '{range: {start: x, end: y}}');

/** Documents as they are, and regions with their epochs. */
async function everything(): Promise<readonly string[]> {
  const documents = await stdin('', 'ctl', 'get', 'all', '-o', 'json');
  const regions = await stdin('', 'ctl', 'region', 'list', '--fields', 'id,startKey,endKey,epoch', '-o', 'json');
  expect([documents.code, regions.code]).toEqual([0, 0]);
  return [documents.stdout, regions.stdout];
}

describe('bad documents', () => {
  let before: readonly string[];

  beforeAll(async () => {
    cluster = await TestCluster.start({ stores: 3, podNames: ['pod1', 'pod2', 'pod3'] });
    const applied = await stdin(THERE, 'ctl', 'apply', '-f', '-', '--wait', '--timeout', '60s');
    expect(applied.code, applied.stderr).toBe(0);
    // Replicas and leaders come to rest, so that nothing but a document could change a region.
    for (const name of ['balance-leader', 'balance-region', 'merge-checker', 'split-checker']) {
      await stdin('', 'ctl', 'switch', 'off', name);
    }
    await waitFor('nothing moves any more', async () => {
      const { stdout } = await stdin('', 'ctl', 'operator', 'list', '-o', 'name');
      const [first, second] = [await everything(), await everything()];
      return stdout === '' && JSON.stringify(first) === JSON.stringify(second);
    });
    before = await everything();
  });

  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
  });

  const escaped = (text: string): string => text.replace(/[.[\]]/g, '\\$&');

  test.each(BAD)('%s: refused with field and reason, exit code 3', async (_, text, code, path, reason) => {
    const first = new RegExp(
      `^error: cannot apply the documents\nwhy: .*${escaped(path)}.*\\(Refused: ${code}\\)\nnext: {2}\\S.*\n$`,
    );
    const alone = await stdin(text, 'ctl', 'apply', '-f', '-');
    expect([alone.code, alone.stderr]).toEqual([3, expect.stringMatching(first)]);
    expect(alone.stderr).toMatch(reason);
    // One bad document keeps the good ones back as well.
    const among = await stdin(`${GOOD}---\n${text}`, 'ctl', 'apply', '-f', '-', '-o', 'json');
    expect(among.code).toBe(3);
    const { items } = JSON.parse(among.stdout) as {
      readonly items: readonly { readonly outcome: string; readonly problem?: { readonly code: string } }[];
    };
    expect(items.map(({ outcome }) => outcome)).toEqual(['skipped', 'refused']);
    expect(items[1]?.problem?.code).toMatch(new RegExp(`^${code}$`));
    for (const words of [
      ['ctl', 'apply', '--dry-run'],
      ['ctl', 'diff'],
    ]) {
      expect((await stdin(text, ...words, '-f', '-')).code).toBe(3);
    }
  });

  test('the program itself says the same', async () => {
    const ended = await braid(['ctl', 'apply', '-f', '-', '--pd', cluster.pdAddress], {
      input: merge('{partitions: [low, high]}'),
    });
    expect([ended.code, ended.stderr]).toEqual([3, expect.stringContaining('(Refused: NonAdjacentRanges)')]);
  });

  test('nothing of them has changed anything', async () => {
    expect(await everything()).toEqual(before);
    const events = await stdin('', 'ctl', 'events', '--where', 'type=document', '-o', 'json');
    const { items } = JSON.parse(events.stdout) as { readonly items: readonly { readonly message: string }[] };
    expect(items.map(({ message }) => message)).toEqual([
      'Partition low was created',
      'Partition mid was created',
      'Partition high was created',
    ]);
  });
});
