/** Documents of placement rules, schedulers and settings: the commands against a placement service on a simulated disk. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { toWireRegion } from '../../../src/codec/meta-wire.ts';
import { MemoryDisk } from '../../../src/engine/memory/crash-model.ts';
import { createMemoryEngineFactory } from '../../../src/engine/memory/memory-engine.ts';
import type { Env } from '../../../src/env/env.ts';
import { NO_FAILPOINTS } from '../../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import { realClock } from '../../../src/env/real/index.ts';
import { createRng } from '../../../src/env/rng.ts';
import { unaryCall } from '../../../src/rpc/call.ts';
import { type GrpcNet, createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import { pdMethods } from '../../../src/rpc/services.ts';
import { type PdProcess, startPd } from '../../../src/server/pd/pd-process.ts';
import type { CliIo } from '../../../src/cli/io.ts';
import { LIST_MODES } from '../../../src/cli/output/mode.ts';
import { runCli } from '../../../src/cli/program.ts';
import type { Connector } from '../../../src/cli/session.ts';
import { makeRegion } from '../pd/world.ts';
import { MemorySink, type RunOptions, type RunOutcome, connectorOf, runWith } from './harness.ts';

let net: GrpcNet;
let disk: MemoryDisk;
let pd: PdProcess;
let directory = '';

const EXAMPLE = new URL('../../../examples/placement.yaml', import.meta.url);

async function start(): Promise<void> {
  const clock = realClock();
  const env: Env = {
    clock,
    rng: createRng(4),
    net,
    engines: createMemoryEngineFactory(disk, clock),
    failpoints: NO_FAILPOINTS,
    log: SILENT_LOGGER,
    abort: (_kind, reason, cause) => {
      throw new Error(`aborted: ${reason}`, { cause });
    },
  };
  const cluster = { leaderScheduleLimit: 6 };
  pd = await startPd({ env, config: { dataDir: 'pd', listenAddress: '127.0.0.1:0', closeGraceMs: 50, cluster } });
}

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'braid-settings-'));
  net = createGrpcNet();
  disk = new MemoryDisk(createRng(2));
  await start();
  const channel = net.dial(pd.address);
  const header = { clusterId: String(pd.clusterId), senderId: 0, callerId: '', callerComponent: '' };
  const store = {
    id: 1,
    address: '127.0.0.1:20161',
    state: 0,
    labels: [],
    version: '1',
    peerAddress: '',
    statusAddress: '',
    gitHash: '',
    startTimestamp: 7,
    deployPath: '',
    lastHeartbeat: '0',
    physicallyDestroyed: false,
    nodeState: 0,
  } as const;
  const call = { timeoutMs: 5_000 };
  await unaryCall(channel, pdMethods.allocID, { header, count: 99 }, call);
  const region = toWireRegion(makeRegion({ id: 2, on: ['1'] }));
  await unaryCall(channel, pdMethods.bootstrap, { header, store: { ...store, labels: [] }, region }, call);
});

afterEach(async () => {
  await pd.close();
  await net.close(0);
  rmSync(directory, { recursive: true, force: true });
});

const file = (text: string): string => {
  const path = join(directory, 'documents.yaml');
  writeFileSync(path, text);
  return path;
};

const connector = (): Connector =>
  connectorOf({ clock: realClock(), rng: createRng(1), net, log: SILENT_LOGGER }, pd.address);

const ctl = (args: readonly string[], options?: RunOptions): Promise<RunOutcome> =>
  runWith(connector(), ['ctl', ...args], options);

const apply = (text: string, ...more: string[]): Promise<RunOutcome> =>
  ctl(['apply', '-f', '-', '-q', ...more], { stdin: text });

const CONFIG = 'kind: Config\nmetadata: {name: placement}\nspec:\n';

describe('documents about the service itself', () => {
  test('are applied, shown, compared, exported, applied again and deleted; a restart keeps them', async () => {
    const example = readFileSync(EXAMPLE, 'utf8');
    const dry = await apply(example, '--dry-run');
    expect(dry.stdout.match(/created/g), dry.stderr).toHaveLength(3);
    expect((await ctl(['get', '-o', 'name'])).stdout).toBe('');
    const done = await ctl(['apply', '-f', '-', '--reason', 'new disks'], { stdin: example });
    expect([done.code, done.stderr]).toEqual([0, '']);
    const types = ['rule-changed', 'scheduler-changed', 'config-changed'];
    const told = async (...flags: string[]): Promise<unknown[]> => {
      const { items } = JSON.parse((await ctl(['events', '-o', 'json', ...flags])).stdout) as {
        items: { type: string; reason: string; message: string }[];
      };
      return items.filter(({ type }) => types.includes(type)).map(({ type, reason }) => [type, reason]);
    };
    const wanted = types.map((type) => [type, 'new disks']);
    expect(await told()).toEqual(wanted);
    await pd.close();
    await start();
    expect(await told('--audit')).toEqual(wanted);
    const names = await ctl(['get', '-o', 'name']);
    expect(names.stdout).toBe('placement-rule/default/hot\nscheduler/merge-checker\nconfig/placement\n');
    const exported = await ctl(['export']);
    const plain = (text: string): unknown[] =>
      parseAllDocuments(text).map((one) => {
        const { kind, metadata, spec } = one.toJS() as Record<string, unknown>;
        return { kind, metadata, spec };
      });
    expect(plain(exported.stdout)).toEqual(plain(example));
    const again = await ctl(['apply', '-f', '-', '-q'], { stdin: exported.stdout });
    expect(again.stdout.match(/unchanged/g)).toHaveLength(3);
    expect((await ctl(['diff', '-f', '-'], { stdin: exported.stdout })).code).toBe(0);
    const diff = await ctl(['diff', '-f', file(example.replace('store-down: 10m', 'store-down: 15m'))]);
    expect([diff.code, diff.stdout]).toEqual([5, expect.stringMatching(/- +store-down: 10m\n\+ +store-down: 15m/)]);
    for (const [kind, name] of [
      ['placement-rule', 'default/hot'],
      ['rule', 'hot'],
      ['checker', 'merge-checker'],
      ['config', 'placement'],
    ] as const) {
      const one = await ctl(['export', kind, name]);
      expect([kind, one.code, plain(one.stdout).length]).toEqual([kind, 0, 1]);
    }
    expect((await ctl(['delete', 'config', 'placement'])).code).toBe(3);
    for (const args of [
      ['rule', 'hot'],
      ['scheduler', 'merge-checker'],
      ['config', 'placement'],
    ]) {
      expect((await ctl(['delete', ...args, '--yes'])).stdout).toContain('deleted');
    }
    expect((await ctl(['export'])).stdout).toBe('');
  });

  test('describe says of every setting where it comes from', async () => {
    expect((await apply(`${CONFIG}  store-down: 10m\n`, '--reason', 'slow disks')).code).toBe(0);
    const { stdout } = await ctl(['describe', 'config', 'placement']);
    expect(stdout).toMatch(/last change +by \S+.*: slow disks/);
    expect(stdout).toMatch(/\nstore-down +10m +run-time +5m +100ms +168h\n/);
    expect(stdout).toMatch(/\nleader-schedule-limit +6 +file +6 +0 +100000\n/);
    expect(stdout).toMatch(/\nmax-replicas +3 +default +3 +1 +15\n/);
    const { stdout: json } = await ctl(['describe', 'config', 'placement', '-o', 'json']);
    const { observed } = JSON.parse(json) as { observed: { settings: { name: string; source: string }[] } };
    expect(observed.settings.find(({ name }) => name === 'store-down')?.source).toBe('run-time');
    expect((await ctl(['describe', 'scheduler', 'balance-leader'])).stdout).toMatch(/\nlimit +6 +6 +0 +\d+ /);
    expect((await ctl(['describe', 'rule', 'default'])).stdout).toContain('[-inf, +inf) 3 voters');
    const { stdout: what } = await ctl(['get', 'config']);
    expect(what).toMatch(/Config +placement +store-down=10m +-\n/);
  });

  test.each([
    ['  max-replicas: 99\n', 'spec.max-replicas must not be 99', 'give 1 to 15'],
    ['  max-replica: 3\n', 'spec.max-replica is not a known setting', 'max-replicas'],
    ['  region-max-size: 1GiB\n', 'spec.region-max-size cannot change while the service runs', 'restart them'],
  ])('a bad one is refused in three lines with code 3, and nothing changes: %j', async (text, why, next) => {
    const rule = 'kind: PlacementRule\nmetadata: {name: x}\nspec: {role: learner, count: 1}\n---\n';
    const { code, stderr } = await apply(`${rule}${CONFIG}${text}`);
    expect([code, stderr.trim().split('\n').length]).toEqual([3, 3]);
    expect(stderr).toContain(why);
    expect(stderr).toContain(next);
    expect((await ctl(['get', '-o', 'name'])).stdout).toBe('');
  });

  test('absent ones and unknown kinds end with 5 and 1', async () => {
    expect((await ctl(['get', 'rule', 'none'])).code).toBe(5);
    expect((await ctl(['get', 'config', 'other'])).code).toBe(5);
    expect((await ctl(['describe', 'scheduler', 'none'])).code).toBe(5);
    expect((await ctl(['get', 'placement-rul'])).stderr).toContain('did you mean placement-rule?');
    expect((await ctl(['delete', 'config', 'placement', '--yes'])).code).toBe(3);
  });

  test('a version that is not the current one is refused', async () => {
    const at = (version: number): string =>
      `kind: Config\nmetadata: {name: placement, resourceVersion: ${version}}\nspec: {leader-tolerance: ${version + 2}}\n`;
    expect((await apply(at(0))).code).toBe(0);
    expect(await apply(at(0))).toMatchObject({ code: 3, stderr: expect.stringContaining('Conflict') as string });
    expect((await apply(at(1))).code).toBe(0);
    expect((await ctl(['delete', 'config', 'placement', '--yes', '--expect-version', '1'])).code).toBe(3);
    expect((await ctl(['delete', 'config', 'placement', '--yes', '--expect-version', '2'])).code).toBe(0);
  });

  test.each(LIST_MODES)('every kind has the output mode %s', async (mode) => {
    await apply(readFileSync(EXAMPLE, 'utf8'));
    for (const args of [
      ['get', 'rule'],
      ['get', 'scheduler'],
      ['get', 'config'],
      ['get', 'config', 'placement'],
      ['describe', 'rule', 'hot'],
      ['describe', 'scheduler', 'merge-checker'],
      ['describe', 'config', 'placement'],
      ['export', 'scheduler'],
      ['export', 'config'],
    ]) {
      const { code, stdout, stderr } = await ctl([...args, '-o', mode]);
      expect([args, code, stderr]).toEqual([args, 0, '']);
      expect(stdout.length, args.join(' ')).toBeGreaterThan(0);
    }
  });

  test.each([['config'], ['all']])(
    'a watch of %s prints every change once, deletions too',
    async (kind) => {
      const ended = new AbortController();
      const stdout = new MemorySink();
      const io: CliIo = {
        env: {},
        stdout,
        stderr: new MemorySink(),
        stdin: (async function* () {})(),
        isStdinTerminal: false,
        signal: ended.signal,
      };
      const watching = runCli(['ctl', 'get', kind, '-w', '-o', 'jsonl'], io, connector(), []);
      const printed = (of: string): unknown[] =>
        stdout.text
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => JSON.parse(line) as { kind: string; deleted?: boolean; spec: Record<string, unknown> })
          .filter((row) => row.kind === of)
          .map(({ spec, deleted }) => (of === 'Config' ? spec['leader-tolerance'] : (deleted ?? false)));
      const until = (wanted: readonly unknown[]): Promise<void> =>
        vi.waitFor(() => expect(printed('Config').slice(-wanted.length)).toEqual(wanted), { timeout: 15_000 });
      const rule = 'kind: PlacementRule\nmetadata: {name: default/x}\nspec: {role: learner, count: 1}\n';
      await apply(`${CONFIG}  leader-tolerance: 2\n---\n${rule}`);
      await until([2]);
      await apply(`${CONFIG}  leader-tolerance: 3\n`);
      await ctl(['delete', 'rule', 'x', '--yes']);
      await until([2, 3]);
      const rules = kind === 'all' ? [false, true] : [];
      await vi.waitFor(() => expect(printed('PlacementRule')).toEqual(rules), { timeout: 15_000 });
      ended.abort();
      expect(await watching).toBe(130);
    },
    60_000,
  );
});
