/** Documents on real processes: the examples from apply to completed under load, and every command in every mode. */
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { braid, type Ended, Program, TemporaryDirectory, TestCluster, waitFor } from './cluster.ts';
import { REAL_CONNECTOR } from '../../src/cli/session.ts';
import { type RunOutcome, runWith } from '../unit/cli/harness.ts';
import { DocumentLoad } from './document-load.ts';

const example = (name: string): string => new URL(`../../examples/${name}.yaml`, import.meta.url).pathname;
const KEYS = ['a/1', 'c/1', 'd/9', 'f/1', 'k/1', 'n/9'];

let cluster: TestCluster;
/** The program as a process of its own. */
const program = (...args: readonly string[]): Promise<Ended> => braid(args, { env: { BRAID_PD: cluster.pdAddress } });
/** The same command line in this process: a hundred of them are started below. */
const run = (...args: readonly string[]): Promise<RunOutcome> =>
  runWith(REAL_CONNECTOR, [...args, '--pd', cluster.pdAddress]);
const stdin = (input: string, ...args: readonly string[]): Promise<RunOutcome> =>
  runWith(REAL_CONNECTOR, [...args, '--pd', cluster.pdAddress], { stdin: input });

interface Shown {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: unknown;
  readonly status: unknown;
}

/** Everything a `-w -o yaml` printed about one document, repeated statuses once. */
class Recording {
  readonly #program: Program;

  constructor(...args: readonly string[]) {
    this.#program = new Program(['ctl', 'get', ...args, '-w', '-o', 'yaml'], { env: { BRAID_PD: cluster.pdAddress } });
  }

  /** Every later change will be seen. */
  async started(): Promise<this> {
    await waitFor('the watch', () => this.#program.stderr.includes('watching for changes'));
    return this;
  }

  documents(): Shown[] {
    // The last document may be printed by half.
    const text = this.#program.stdout.split(/^---$/m);
    return text
      .flatMap((one) => parseAllDocuments(one).map((document) => document.toJS() as Shown | null))
      .filter((one): one is Shown => one !== null);
  }

  statuses(): unknown[] {
    const all = this.documents().map(({ status }) => status);
    return all.filter((status, i) => i === 0 || JSON.stringify(status) !== JSON.stringify(all[i - 1]));
  }

  async end(): Promise<void> {
    await this.#program.kill('SIGKILL');
  }
}

afterEach((context) => {
  if (context.task.result?.state === 'fail') {
    process.stderr.write(`${cluster.logs()}\n`);
  }
});

describe('the merge of the examples', () => {
  beforeAll(async () => {
    cluster = await TestCluster.start({
      stores: 3,
      podNames: ['pod1', 'pod2', 'pod3'],
      pdSettings: ['placement.proxy-threshold=2s'],
    });
  });

  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
  });

  test('shows every phase in its order, and clients see no error', async () => {
    const applied = await run(
      'ctl',
      'apply',
      '-f',
      example('part1'),
      '-f',
      example('part2'),
      '--wait',
      '--timeout',
      '60s',
    );
    expect(applied.code, applied.stderr).toBe(0);
    expect((await run('ctl', 'get', 'partition', 'part1', '-o', 'yaml')).stdout).toMatch(/^status: ready$/m);
    const recording = await new Recording('assignment', 'a1').started();
    const before = JSON.parse((await run('ctl', 'region', 'list', 'a', 'o', '-o', 'json')).stdout) as {
      items: { id: number }[];
    };
    const ids = before.items.map(({ id }) => id);
    expect(ids).toHaveLength(3);
    const load = new DocumentLoad(await cluster.client({ timeoutMs: 20_000 }), KEYS);
    await waitFor('some load', () => load.operations > 100);
    const merged = await program('ctl', 'apply', '-f', example('a1'), '--wait', '--timeout', '60s');
    expect(merged.code, merged.stderr).toBe(0);
    expect(merged.stderr).toMatch(/assignment\/a1: loading.*\n(?:.*\n)*assignment\/a1: completed/);
    const subParts = (state: string): object => ({ part1: state, part2: state });
    await waitFor('the recording', () => recording.statuses().length >= 5);
    expect(recording.statuses()).toEqual([
      null,
      { merge: { status: 'loading', mergedPart: 'loading', subParts: subParts('primary') } },
      { merge: { status: 'following', mergedPart: 'follower', subParts: subParts('primary') } },
      { merge: { status: 'proxying', mergedPart: 'primary', subParts: subParts('proxy') } },
      { merge: { status: 'completed', mergedPart: 'primary', subParts: subParts('disconnected') } },
    ]);
    await recording.end();
    expect(await load.stop()).toEqual([]);
    expect(load.errors).toEqual([]);
    // Completed means that no store sends requests for the old regions on any more.
    for (const store of cluster.stores) {
      const { redirects } = await store.page<{ redirects: { regions: number[] } }>('/status');
      expect(redirects.regions.filter((id) => ids.includes(id))).toEqual([]);
    }
    const left = JSON.parse((await run('ctl', 'get', 'partition', '-o', 'json')).stdout) as { items: Shown[] };
    expect(left.items.map(({ metadata, status }) => [metadata.name, status])).toEqual([['a1-merged', 'ready']]);
  });

  test('what it left is exported, compared, edited and split again', async () => {
    const exported = await run('ctl', 'export');
    expect(parse(exported.stdout)).toEqual({
      apiVersion: 'braid/v1',
      kind: 'Partition',
      metadata: { name: 'a1-merged' },
      spec: { range: { start: 'a', end: 'o' }, primary: 'pod1' },
    });
    expect((await stdin(exported.stdout, 'ctl', 'diff', '-f', '-')).code).toBe(0);
    const again = await stdin(exported.stdout, 'ctl', 'apply', '-f', '-', '-o', 'jsonl');
    expect(JSON.parse(again.stdout)).toMatchObject({ kind: 'Partition', name: 'a1-merged', outcome: 'unchanged' });
    const edited = exported.stdout.replace('pod1', 'pod2');
    const diff = await stdin(edited, 'ctl', 'diff', '-f', '-');
    expect(diff.code).toBe(5);
    expect(diff.stdout).toContain('- ' + '  primary: pod1\n+ ' + '  primary: pod2');
    expect((await stdin(edited, 'ctl', 'apply', '-f', '-', '--wait', '--timeout', '60s')).code).toBe(0);
    const split = `kind: Assignment\nmetadata: {name: s1}\nspec: {type: InWorkerSplit, splitParams: {partition: a1-merged, splitKey: h, names: [low, high]}}\n`;
    const done = await stdin(split, 'ctl', 'apply', '-f', '-', '--wait', '--timeout', '60s');
    expect(done.code, done.stderr).toBe(0);
    const parts = (await run('ctl', 'get', 'partition', '--no-headers', '--columns', 'name,status')).stdout;
    expect(
      parts
        .trim()
        .split('\n')
        .map((line) => line.split(/\s+/).filter((word) => word !== '')),
    ).toEqual([
      ['high', 'ready'],
      ['low', 'ready'],
    ]);
  });

  test('bad documents are refused with the field, nothing is changed, exit code 3', async () => {
    const before = (await run('ctl', 'get', 'all', '-o', 'json')).stdout;
    for (const [name, text, code] of [
      ['spec.range', 'kind: Partition\nmetadata: {name: x}\nspec: {range: {start: b, end: z}}\n', 'OverlappingRange'],
      [
        'spec.primary',
        'kind: Partition\nmetadata: {name: x}\nspec: {range: {start: p, end: q}, primary: nowhere}\n',
        'UnknownPod',
      ],
      ['spec.rang', 'kind: Partition\nmetadata: {name: x}\nspec: {rang: {start: p, end: q}}\n', 'UnknownField'],
      [
        'metadata.resourceVersion',
        'kind: Partition\nmetadata: {name: low, resourceVersion: 1}\nspec: {range: {start: a, end: h}, primary: pod3}\n',
        'Conflict',
      ],
    ] as const) {
      const good = 'kind: Partition\nmetadata: {name: good}\nspec: {range: {start: x, end: y}}\n';
      const ended = await stdin(`${good}---\n${text}`, 'ctl', 'apply', '-f', '-');
      expect(ended.code, text).toBe(3);
      expect(ended.stderr).toMatch(
        new RegExp(`^error: cannot apply the documents\nwhy: .*${name}.*\\(Refused: ${code}\\)\nnext: .+\n$`),
      );
      expect(ended.stdout).toMatch(/good +skipped/);
    }
    const broken = await stdin('kind: [Partition\n', 'ctl', 'apply', '-f', '-');
    expect(broken.code).toBe(1);
    expect(broken.stderr).toMatch(/why: {3}stdin:\d+: /);
    expect((await run('ctl', 'apply', '-f', '/nowhere.yaml')).code).toBe(1);
    expect((await run('ctl', 'get', 'all', '-o', 'json')).stdout).toBe(before);
  });

  test('every command answers in every mode with its exit code', async () => {
    const file = new TemporaryDirectory();
    writeFileSync(file.join('low.yaml'), (await run('ctl', 'export', 'partition', 'low')).stdout);
    const same = file.join('low.yaml');
    const commands: readonly (readonly string[])[] = [
      ['ctl', 'get', 'partition'],
      ['ctl', 'get', 'partition', 'low'],
      ['ctl', 'get', 'assignment'],
      ['ctl', 'get', 'all'],
      ['ctl', 'get'],
      ['ctl', 'describe', 'partition', 'low'],
      ['ctl', 'describe', 'assignment', 's1'],
      ['ctl', 'export'],
      ['ctl', 'apply', '-f', same],
      ['ctl', 'apply', '-f', same, '--dry-run'],
      ['ctl', 'diff', '-f', same],
      ['ctl', 'delete', 'partition', 'low', '--dry-run'],
    ];
    for (const command of commands) {
      for (const mode of ['table', 'wide', 'json', 'jsonl', 'yaml', 'name']) {
        const ended = await run(...command, '-o', mode);
        const what = `${command.join(' ')} -o ${mode}: ${ended.stderr}`;
        expect(ended.code, what).toBe(0);
        if (mode === 'json') {
          expect(JSON.parse(ended.stdout), what).toBeTypeOf('object');
        } else if (mode === 'yaml') {
          expect(
            parseAllDocuments(ended.stdout).flatMap(({ errors }) => errors),
            what,
          ).toEqual([]);
        } else if (mode === 'jsonl') {
          for (const line of ended.stdout.split('\n').filter((one) => one !== '')) {
            expect(JSON.parse(line), what).toBeTypeOf('object');
          }
        } else if (mode === 'name' && command[1] !== 'diff') {
          expect(ended.stdout, what).toMatch(/^(?:(?:partition|assignment)\/\S+\n)+$/);
        }
      }
    }
    const refused: readonly (readonly [number, readonly string[]])[] = [
      [5, ['ctl', 'get', 'partition', 'nobody']],
      [5, ['ctl', 'describe', 'assignment', 'nobody']],
      [5, ['ctl', 'export', 'partition', 'nobody']],
      [3, ['ctl', 'delete', 'partition', 'nobody', '--yes']],
      [3, ['ctl', 'delete', 'partition', 'low']],
      [3, ['ctl', 'delete', 'partition', 'low', '--yes', '--expect-version', '1']],
      [3, ['ctl', 'retry', 'assignment', 's1']],
      [1, ['ctl', 'get', 'shard']],
      [1, ['ctl', 'apply']],
      [1, ['ctl', 'apply', '-f', same, '--wait', '--detach']],
    ];
    for (const [code, command] of refused) {
      for (const mode of ['table', 'json', 'yaml', 'name']) {
        const ended = await run(...command, '-o', mode);
        expect(ended.code, `${command.join(' ')} -o ${mode}: ${ended.stderr}`).toBe(code);
        expect(ended.stderr).toMatch(/^error: .*\nwhy: {3}.*\nnext: {2}.*\n$/);
      }
    }
    expect((await run('ctl', 'delete', 'partition', 'low', '--yes')).code).toBe(0);
    file[Symbol.dispose]();
  });

  test('waiting ends with exit code 4 when the time is over, and a watch when it is told to', async () => {
    const impossible =
      'kind: Assignment\nmetadata: {name: slow}\nspec: {type: New, newParams: {partition: high, primary: pod3}}\n';
    const third = cluster.store(3);
    await third.kill();
    try {
      const ended = await stdin(impossible, 'ctl', 'apply', '-f', '-', '--wait', '--timeout', '2s');
      expect(ended.code, ended.stderr).toBe(4);
      expect((await run('ctl', 'get', 'assignment', 'slow', '-w', '--timeout', '1s')).code).toBe(0);
    } finally {
      await third.start();
    }
    const client = await cluster.client();
    await waitFor('completed', async () => (await client.admin().documents.get('Assignment', 'slow')).settled);
  });

  test('a pinned region is shown as such', async () => {
    const id = String(
      (JSON.parse((await run('ctl', 'region', 'locate', 'zz', '-o', 'json')).stdout) as { id: number }).id,
    );
    expect((await run('ctl', 'region', 'pin', id)).code).toBe(0);
    expect((await run('ctl', 'region', 'list')).stdout).toMatch(/pinned/);
    expect((await run('ctl', 'region', 'pin', id)).stderr).toContain('nothing to do');
    expect((await run('ctl', 'region', 'pin', id, '--off')).code).toBe(0);
    expect((await run('ctl', 'region', 'pin', '999999')).code).toBe(3);
  });
});

describe('the move of the examples', () => {
  beforeAll(async () => {
    cluster = await TestCluster.start({
      stores: 4,
      podNames: ['srcPod', 'x', 'y', 'dstPod'],
      pdSettings: ['placement.proxy-threshold=2s'],
    });
  });

  afterAll(async () => {
    await cluster[Symbol.asyncDispose]();
  });

  test('by hand, edit by edit, goes through every status without an error for clients', async () => {
    expect((await run('ctl', 'apply', '-f', example('move'), '--wait', '--timeout', '60s')).code).toBe(0);
    const recording = await new Recording('partition', 'part1').started();
    const load = new DocumentLoad(await cluster.client({ timeoutMs: 20_000 }), KEYS);
    const client = await cluster.client();
    const until = (status: object): Promise<unknown> =>
      waitFor(
        JSON.stringify(status),
        async () =>
          JSON.stringify((await client.admin().documents.get('Partition', 'part1')).status) === JSON.stringify(status),
      );
    await waitFor('some load', () => load.operations > 100);
    await run('ctl', 'apply', '-f', example('move-2-follow'));
    await until({ srcPod: 'primary', dstPod: 'follower' });
    await run('ctl', 'apply', '-f', example('move-3-flip'));
    await until({ srcPod: 'proxy', dstPod: 'primary' });
    await run('ctl', 'apply', '-f', example('move-4-end'));
    await until({ dstPod: 'primary' });
    await waitFor('the recording', () => recording.statuses().length >= 6);
    expect(recording.statuses()).toEqual([
      { srcPod: 'primary' },
      { srcPod: 'primary', dstPod: 'starting' },
      { srcPod: 'primary', dstPod: 'follower' },
      { srcPod: 'proxy', dstPod: 'primary' },
      { srcPod: 'unassigning', dstPod: 'primary' },
      { dstPod: 'primary' },
    ]);
    await recording.end();
    expect(await load.stop()).toEqual([]);
    expect(load.errors).toEqual([]);
  });

  test('back by an Assignment, with its own phases', async () => {
    const text = readFileSync(example('m1'), 'utf8')
      .replace('from: srcPod', 'from: dstPod')
      .replace('to: dstPod', 'to: srcPod')
      .replace('5s', '1s');
    const recording = await new Recording('assignment', 'm1').started();
    const load = new DocumentLoad(
      await cluster.client({ timeoutMs: 20_000 }),
      KEYS.map((key) => `${key}/second`),
    );
    const done = await stdin(text, 'ctl', 'apply', '-f', '-', '--wait', '--timeout', '60s');
    expect(done.code, done.stderr).toBe(0);
    await waitFor('the recording', () => recording.statuses().length >= 5);
    const move = (status: string, fromPod: string, toPod: string): object => ({ move: { status, fromPod, toPod } });
    expect(recording.statuses()).toEqual([
      null,
      move('loading', 'primary', 'loading'),
      move('following', 'primary', 'following'),
      move('proxying', 'proxy', 'primary'),
      move('completed', 'disconnected', 'primary'),
    ]);
    await recording.end();
    expect(await load.stop()).toEqual([]);
    expect(load.errors).toEqual([]);
  });

  test('by one command', async () => {
    const moved = await run(
      'ctl',
      'move',
      'part1',
      '--to',
      'x',
      '--proxy-threshold',
      '100ms',
      '--wait',
      '--timeout',
      '60s',
    );
    expect(moved.code, moved.stderr).toBe(0);
    expect((await run('ctl', 'get', 'partition', 'part1', '--columns', 'status', '--no-headers')).stdout).toBe(
      'x primary\n',
    );
    expect((await run('ctl', 'move', 'part1', '--to', 'nowhere')).code).toBe(3);
    expect((await run('ctl', 'move', 'part1', '--from', 'y', '--to', 'dstPod')).code).toBe(3);
    expect((await run('ctl', 'move', 'nobody', '--to', 'dstPod')).code).toBe(3);
  });
});
