/**
 * Every command of the tree in every output mode it offers, and with the exit codes it can end with. The tree itself is
 * walked: a command that is not in the table below makes this test fail.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { AppError } from '../../../src/base/app-error.ts';
import {
  AbortError,
  DeadlineExceededError,
  RefusedError,
  UnavailableError,
  UndeterminedResultError,
} from '../../../src/client/errors.ts';
import { registerOfflineCommands } from '../../../src/cli/offline/index.ts';
import { OUTPUT_MODES } from '../../../src/cli/output/mode.ts';
import { buildProgram } from '../../../src/cli/program.ts';
import { registerRunCommands } from '../../../src/cli/run/index.ts';
import type { Connector } from '../../../src/cli/session.ts';
import { FakeCluster } from '../client/fake-cluster.ts';
import { FakeAdmin } from './fake-admin.ts';
import { FakeDocuments } from './fake-documents.ts';
import { MemorySink, type RunOptions, type RunOutcome, runAlone, runOn, runWith } from './harness.ts';

const program = buildProgram(
  {
    io: {
      env: {},
      stdout: new MemorySink(),
      stderr: new MemorySink(),
      stdin: (async function* () {})(),
      isStdinTerminal: false,
      signal: new AbortController().signal,
    },
    connector: { data: () => Promise.reject(new Error('unused')), admin: () => Promise.reject(new Error('unused')) },
    exitCode: 0,
  },
  [registerRunCommands, registerOfflineCommands],
);

/** Everything that can be run: also `pd`, which has a command below it. */
function runnable(command: Command, path: readonly string[] = []): { path: string; command: Command }[] {
  const below = command.commands.flatMap((child) => runnable(child, [...path, child.name()]));
  const isRun = path.length > 0 && (command.commands.length === 0 || path.join(' ') === 'pd');
  return isRun ? [{ path: path.join(' '), command }, ...below] : below;
}

const COMMANDS = runnable(program);

let directory = '';
const file = (name: string): string => join(directory, name);

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'braid-every-'));
  writeFileSync(file('part.yaml'), 'kind: Partition\nmetadata: {name: part1}\nspec: {range: {start: a, end: c}}\n');
  writeFileSync(file('contexts.yaml'), 'current: here\ncontexts:\n  here: {pd: [adm:1]}\n');
  const result = {
    target: 'braid',
    workload: 'put',
    clients: 1,
    round: 1,
    operations: 10,
    errors: {},
    seconds: 1,
    perSecond: 10,
    perSecondMin: 10,
    perSecondMax: 10,
    latency: { minUs: 1, meanUs: 2, p50Us: 3, p90Us: 4, p99Us: 5, p999Us: 6, maxUs: 7 },
    clientCpu: 0.5,
  };
  writeFileSync(
    file('bench.json'),
    JSON.stringify({
      apiVersion: 'braid/v1',
      kind: 'BenchReport',
      startedAt: '2000-01-01T00:00:00.000Z',
      commit: 'abc',
      machine: { cpu: 'x', cores: 2, memoryBytes: 1, os: 'o', node: 'v20' },
      targets: [],
      settings: {},
      runs: [result],
    }),
  );
});

afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

type Backend = 'data' | 'admin' | 'documents' | 'nothing';

interface Row {
  readonly on: Backend;
  /** Behind the command's name. */
  readonly args: () => readonly string[];
  /** What it ends with when all goes well. Default 0. */
  readonly code?: 0 | 5;
  /** A refusal is its answer, so it ends with 5 instead of 3. */
  readonly isQuestion?: true;
  /** Prints nothing for people: what it did is a remark on stderr. */
  readonly isSilent?: true;
  readonly stdin?: string;
}

const row = (on: Backend, args: readonly string[] | (() => readonly string[]) = [], more: Partial<Row> = {}): Row => ({
  on,
  args: typeof args === 'function' ? args : () => args,
  ...more,
});
const question = { isQuestion: true } as const;
const silent = { isSilent: true } as const;

const TABLE: Readonly<Record<string, Row>> = {
  get: row('data', ['k']),
  put: row('data', ['k', 'v2'], silent),
  del: row('data', ['k'], silent),
  cas: row('data', ['k', '--expect', 'v', 'w'], silent),
  scan: row('data'),
  ttl: row('data', ['k']),
  import: row('data', ['-', '--format', 'tsv', '--key-column', 'id'], { stdin: 'id\tname\n1\tAda\n' }),
  'ctl completion': row('nothing', ['bash']),
  'ctl status': row('admin'),
  'ctl check': row('admin'),
  'ctl store list': row('admin'),
  'ctl store show': row('admin', ['1'], question),
  'ctl store drain': row('admin', ['2', '--yes', '--detach']),
  'ctl store cancel-drain': row('admin', ['2']),
  'ctl store remove': row('admin', ['2', '--yes']),
  'ctl store label': row('admin', ['2', 'zone=a']),
  'ctl store weight': row('admin', ['2', '--leader', '2']),
  'ctl store limit': row('admin', ['2', '10']),
  'ctl store evict-leaders': row('admin', ['2']),
  'ctl region list': row('admin'),
  'ctl region show': row('admin', ['2'], question),
  'ctl region locate': row('admin', ['x'], question),
  'ctl region siblings': row('admin', ['4'], question),
  'ctl region top': row('admin'),
  'ctl region holes': row('admin'),
  'ctl region split': row('admin', ['2', '--key', 'c']),
  'ctl region merge': row('admin', ['4', '2']),
  'ctl region move': row('admin', ['2', '--from', '1', '--to', '3']),
  'ctl region pin': row('admin', ['2']),
  'ctl region pause': row('admin', ['2']),
  'ctl region resume': row('admin', ['2']),
  'ctl region scatter': row('admin', ['2']),
  'ctl region transfer-leader': row('admin', ['2', '--to', '2'], silent),
  'ctl operator list': row('admin'),
  'ctl operator show': row('admin', ['95'], question),
  'ctl operator history': row('admin'),
  'ctl operator add': row('admin', ['transfer-leader', '2', '2'], silent),
  'ctl operator cancel': row('admin', ['95']),
  'ctl apply': row('documents', () => ['-f', file('part.yaml')]),
  'ctl diff': row('documents', () => ['-f', file('part.yaml')], silent),
  'ctl move': row('documents', ['part1', '--to', 'pod2']),
  'ctl get': row('documents', [], question),
  'ctl describe': row('documents', ['partition', 'part1'], question),
  'ctl delete': row('documents', ['partition', 'part1', '--yes']),
  'ctl export': row('documents', [], question),
  'ctl retry assignment': row('documents', ['a1']),
  'ctl rule list': row('admin'),
  'ctl rule get': row('admin', ['r1'], question),
  'ctl rule set': row('admin', ['r1', '--role', 'voter', '--count', '3']),
  'ctl rule delete': row('admin', ['r1', '--yes']),
  'ctl pd member list': row('admin'),
  'ctl pd member remove': row('admin', ['silent', '--yes']),
  'ctl pd member transfer-leader': row('admin', ['pd2']),
  'ctl context list': row('nothing'),
  'ctl context show': row('nothing'),
  'ctl context add': row('nothing', ['other', '--pd', 'o:1', '--replace']),
  'ctl context use': row('nothing', ['here']),
  'ctl context remove': row('nothing', ['here']),
  'ctl events': row('admin'),
  'ctl heat': row('admin'),
  'ctl maintenance log': row('admin'),
  'ctl switch list': row('admin'),
  'ctl switch on': row('admin', ['merge-checker']),
  'ctl switch off': row('admin', ['merge-checker']),
  'ctl scheduler list': row('admin'),
  'ctl scheduler pause': row('admin', ['merge-checker', '--for', '5m']),
  'ctl scheduler resume': row('admin', ['merge-checker']),
  'ctl scheduler add': row('admin', ['grant-leader', '--store', '2']),
  'ctl scheduler remove': row('admin', ['hot-region']),
  'ctl scheduler config': row('admin', ['hot-region']),
  'ctl checker list': row('admin'),
  'ctl checker pause': row('admin', ['merge-checker', '--for', '5m']),
  'ctl checker resume': row('admin', ['merge-checker']),
  'ctl checker config': row('admin', ['merge-checker', 'limit=2', '--reset', 'split-merge-interval']),
  'ctl explain merge': row('admin', ['4', '2'], { code: 5, ...question }),
  'ctl explain region': row('admin', ['2'], question),
  'ctl explain store': row('admin', ['2'], { code: 5, ...question }),
  'ctl explain scheduler': row('admin', ['balance-leader'], question),
  'ctl explain code': row('nothing'),
  'bench compare': row('nothing', () => [file('bench.json'), file('bench.json')]),
  version: row('nothing'),
};

/** What only a process of its own can show, and the test that starts it. */
const ELSEWHERE: Readonly<Record<string, readonly [file: string, proof: RegExp]>> = {
  __complete: ['test/unit/cli/ctl.test.ts', /'__complete'/],
  'bench run': ['test/integration/cli.test.ts', /'bench',\s*'run'/],
  dev: ['test/integration/dev.test.ts', /'dev'/],
  server: ['test/integration/cluster.ts', /'server'/],
  pd: ['test/integration/cluster.ts', /'pd'/],
  'pd recover': ['test/unit/cli/pd-recover.test.ts', /'pd', 'recover'[\s\S]*of LIST_MODES/],
  'offline inspect': ['test/unit/cli/offline.test.ts', /'inspect', world.store\], LIST_MODES/],
  'offline verify': ['test/unit/cli/offline.test.ts', /'verify', world.store\], LIST_MODES/],
  'offline dump': ['test/unit/cli/offline.test.ts', /'dump', world.store\], DUMP_MODES/],
  'offline unsafe-recover': ['test/unit/cli/offline-recover.test.ts', /'unsafe-recover'[\s\S]*of LIST_MODES/],
  'config default': ['test/integration/bad-input.test.ts', /'config', 'default'/],
  'config check': ['test/integration/bad-input.test.ts', /'config', 'check'/],
};

const modesOf = (command: Command): readonly string[] => {
  const text = command.options.find(({ long }) => long === '--output')?.description ?? '';
  return /: ([a-z, ]+)$/.exec(text)?.[1]?.split(', ') ?? [];
};

function run(
  path: string,
  { on, args, stdin }: Row,
  more: readonly string[],
  connector?: Connector,
): Promise<RunOutcome> {
  // A command may write its contexts: every run has a file of its own.
  const contexts = file(`contexts-${++runs}.yaml`);
  writeFileSync(contexts, readFileSync(file('contexts.yaml')));
  const options: RunOptions = { env: { BRAID_CONTEXTS: contexts }, stdin: stdin ?? '' };
  const words = [...path.split(' '), ...args(), ...more];
  if (connector !== undefined) {
    return runWith(connector, words, options);
  }
  switch (on) {
    case 'nothing':
      return runAlone(words, options);
    case 'admin':
      return new FakeAdmin().run(words, options);
    case 'documents':
      return new FakeDocuments().run(words, options);
    case 'data': {
      // On virtual time, where files cannot be read.
      const cluster = new FakeCluster();
      return runOn(cluster, ['put', 'k', 'v']).then(() => runOn(cluster, words, { stdin: stdin ?? '' }));
    }
  }
}
let runs = 0;

const isDocument = (value: unknown): boolean => {
  const { apiVersion, kind } = value as { readonly apiVersion?: unknown; readonly kind?: unknown };
  return apiVersion === 'braid/v1' && typeof kind === 'string' && /^[A-Z][A-Za-z]+$/.test(kind);
};

function expectForm(mode: string, stdout: string, { isSilent }: Row): void {
  switch (mode) {
    case 'json':
      expect(isDocument(JSON.parse(stdout))).toBe(true);
      break;
    case 'yaml':
      expect(isDocument(parse(stdout))).toBe(true);
      break;
    case 'jsonl':
      for (const line of stdout.split('\n').filter((text) => text !== '')) {
        expect(JSON.parse(line)).toBeTypeOf('object');
      }
      break;
    case 'name':
      expect(stdout === '' || stdout.endsWith('\n')).toBe(true);
      expect(stdout).not.toMatch(/[{}]/);
      break;
    case 'raw':
      break;
    default:
      // Tables: a head in capitals, no borders, nothing behind the last column.
      expect(stdout).not.toMatch(/[ \t]+\n/);
      if (isSilent !== true) {
        expect(stdout).toMatch(/\S\n$/);
      }
  }
}

test('the table has every command that can be run, and no other', () => {
  const known = [...Object.keys(TABLE), ...Object.keys(ELSEWHERE)];
  expect(known.toSorted()).toEqual(COMMANDS.map(({ path }) => path).toSorted());
});

test.each(Object.entries(ELSEWHERE))('%s is run by a test of its own', (_, [path, proof]) => {
  const place = new URL(`../../../${path}`, import.meta.url);
  expect(existsSync(place)).toBe(true);
  expect(readFileSync(place, 'utf8')).toMatch(proof);
});

const CASES = COMMANDS.flatMap(({ path, command }) => {
  const found = TABLE[path];
  return found === undefined ? [] : [[path, command, found] as const];
});

describe('every output mode', () => {
  test.each(CASES)('of %s', async (path, command, found) => {
    const modes = modesOf(command);
    expect(modes.length).toBeGreaterThan(0);
    for (const mode of modes) {
      const { code, stdout, stderr } = await run(path, found, ['-o', mode]);
      expect([mode, code, code === (found.code ?? 0) ? '' : stderr]).toEqual([mode, found.code ?? 0, '']);
      expectForm(mode, stdout, found);
    }
    const other = OUTPUT_MODES.find((mode) => !modes.includes(mode)) ?? 'xml';
    expect(await run(path, found, ['-o', other])).toMatchObject({ code: 1, stdout: '' });
  });
});

const refusing = (error: Error): Connector => ({
  data: () => Promise.reject(error),
  admin: () => Promise.reject(error),
});

describe('every exit code', () => {
  const connecting = CASES.filter(([, , { on }]) => on !== 'nothing');

  test.each(connecting)('of %s when the cluster does not do it', async (path, _, found) => {
    const refused = found.isQuestion === true ? 5 : 3;
    for (const [error, code] of [
      [new UnavailableError('nobody is there'), 1],
      [new AppError('Strange', 'm'), 1],
      [new TypeError('a bug'), 1],
      [new RefusedError('NotNow', 'm'), refused],
      [new DeadlineExceededError('m'), 4],
      [new UndeterminedResultError('m'), 4],
      [new AbortError('m'), 130],
    ] as const) {
      const ended = await run(path, found, [], refusing(error));
      expect([String(error), ended.code, ended.stdout]).toEqual([String(error), code, '']);
      expect(ended.stderr).toMatch(/^error: cannot .+\nwhy: {3}.+ \(.+\)\nnext: {2}.+\n$/);
    }
  });

  test.each(CASES)('of %s when it is not understood', async (path, command, found) => {
    const unknown = await run(path, found, ['--no-such-flag']);
    expect([unknown.code, unknown.stdout]).toEqual([1, '']);
    expect(unknown.stderr.split('\n')).toHaveLength(4);
    if (command.registeredArguments.some((argument) => argument.required)) {
      const bare: Row = { ...found, args: () => [] };
      const missing = await run(path, bare, []);
      expect([missing.code, missing.stdout]).toEqual([1, '']);
    }
    const help = await run(path, { ...found, args: () => [] }, ['--help']);
    expect([help.code, help.stderr]).toEqual([0, '']);
    expect(help.stdout).toContain(`Examples:\n  `);
  });
});
