/** The command line against a real cluster: data, import, changes of regions, answers of every reading command. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { readFileSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { braid, type Ended, Program, TemporaryDirectory, TestCluster, waitFor } from './cluster.ts';

let cluster: TestCluster;
const directory = new TemporaryDirectory();

beforeAll(async () => {
  // A fourth store, so that replicas have somewhere to move. Nothing moves unless a test says so.
  cluster = await TestCluster.start({
    stores: 3,
    storeSettings: [
      'raftstore.region-max-size=64KiB',
      'raftstore.region-split-size=32KiB',
      'raftstore.split-check=500ms',
    ],
  });
  for (const name of ['balance-leader', 'balance-region', 'merge-checker']) {
    expect((await run('ctl', 'switch', 'off', name)).code).toBe(0);
  }
  await cluster.addStore();
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
  directory[Symbol.dispose]();
});

const run = (...args: readonly string[]): Promise<Ended> => braid(args, { env: { BRAID_PD: cluster.pdAddress } });

async function json(...args: readonly string[]): Promise<Record<string, unknown>> {
  const ended = await run(...args, '-o', 'json');
  expect(ended.code, ended.stderr).toBe(0);
  return JSON.parse(ended.stdout) as Record<string, unknown>;
}

interface RegionObject {
  readonly id: number;
  readonly startKey: string | null;
  readonly endKey: string | null;
  readonly peers: readonly { readonly id: number; readonly storeId: number; readonly role: string }[];
  readonly leader: { readonly storeId: number } | null;
}

const regions = async (): Promise<readonly RegionObject[]> =>
  (await json('ctl', 'region', 'list'))['items'] as RegionObject[];
const regionOf = async (key: string): Promise<RegionObject> =>
  (await json('ctl', 'region', 'locate', key)) as unknown as RegionObject;

const byNumber = (a: number, b: number): number => a - b;

function lines(ended: Ended): { what: string; why: string; next: string } {
  const match = /^error: (.*)\nwhy: {3}(.*)\nnext: {2}(.*)\n$/m.exec(ended.stderr);
  expect(match, ended.stderr).not.toBeNull();
  const [, what = '', why = '', next = ''] = match ?? [];
  return { what, why, next };
}

describe('data', () => {
  test('put, get, cas, ttl and del do what they say', async () => {
    expect(await run('put', 'data:1', 'one')).toMatchObject({ code: 0, stdout: '' });
    expect(await run('get', 'data:1')).toMatchObject({ code: 0, stdout: 'one' });
    expect((await run('cas', 'data:1', '--expect', 'one', 'two')).code).toBe(0);
    expect((await run('cas', 'data:1', '--expect', 'one', 'three')).code).toBe(5);
    expect((await run('put', 'data:2', 'x', '--ttl', '1h')).code).toBe(0);
    const { ttlMs } = (await json('ttl', 'data:2')) as { ttlMs: number };
    expect(ttlMs).toBeGreaterThan(3_500_000);
    expect(ttlMs).toBeLessThanOrEqual(3_600_000);
    expect((await json('ttl', 'data:1'))['expires']).toBe(false);
    expect((await run('scan', '--prefix', 'data:', '-o', 'raw')).stdout).toBe('data:1\ttwo\ndata:2\tx\n');
    expect((await run('del', 'data:1')).code).toBe(0);
    expect(await run('get', 'data:1')).toMatchObject({ code: 5, stdout: '' });
  });

  test('a value over 8 MiB is refused and nothing is stored', async () => {
    const ended = await braid(['put', 'large', '-'], {
      env: { BRAID_PD: cluster.pdAddress },
      input: 'x'.repeat(8 * 1024 * 1024 + 1),
    });
    expect(ended.code).toBe(1);
    expect(lines(ended).why).toContain('EntryTooLarge');
    expect((await run('get', 'large')).code).toBe(5);
  });

  test('a value close to the limit is stored', async () => {
    const input = 'y'.repeat(7 * 1024 * 1024);
    expect((await braid(['put', 'large:2', '-'], { env: { BRAID_PD: cluster.pdAddress }, input })).code).toBe(0);
    expect((await run('get', 'large:2')).stdout).toBe(input);
    expect((await run('del', 'large:2')).code).toBe(0);
  });
});

describe('import', () => {
  const ROWS = 4000;
  const rowText = (i: number): string => `row${String(i).padStart(5, '0')}\t${i}\ttext of row ${i} ${'z'.repeat(60)}`;

  test('stores every good row over regions that split meanwhile, and refuses the bad ones', async () => {
    const file = directory.join('rows.tsv');
    const rejects = directory.join('rejects.jsonl');
    const good = Array.from({ length: ROWS }, (_, i) => rowText(i));
    good.splice(1000, 0, 'too\tfew');
    good.splice(2000, 0, '\tempty\tkey');
    good.splice(3000, 0, `${'k'.repeat(8193)}\t1\tlong key`);
    writeFileSync(file, `key\tnumber\ttext\n${good.join('\n')}\n`);
    const ended = await run('import', file, '--key-column', 'key', '--rejects', rejects, '-o', 'json');
    expect(ended.code, ended.stderr).toBe(2);
    const summary = JSON.parse(ended.stdout) as Record<string, unknown>;
    expect(summary).toMatchObject({
      rows: ROWS + 3,
      stored: ROWS,
      refused: 3,
      refusedRows: [
        { line: 1002, code: 'WrongColumnCount' },
        { line: 2002, code: 'EmptyKey' },
        { line: 3002, code: 'KeyTooLarge' },
      ],
    });
    expect(readFileSync(rejects, 'utf8').trimEnd().split('\n')).toHaveLength(3);
    const keys = (await run('scan', '--prefix', 'row', '--keys-only', '--no-headers')).stdout.trimEnd().split('\n');
    expect(keys).toEqual(Array.from({ length: ROWS }, (_, i) => `row${String(i).padStart(5, '0')}`));
    expect(JSON.parse((await run('get', 'row01234')).stdout)).toMatchObject({ number: '1234' });
    await waitFor('regions that have split', async () => (await regions()).length > 3);
  });

  test('a reader that goes away ends a scan at once', async () => {
    const scan = spawn(
      'sh',
      ['-c', `"${process.execPath}" dist/cli/main.js scan -o raw --pd ${cluster.pdAddress} | head -n 3`],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let stdout = '';
    let stderr = '';
    scan.stdout.on('data', (part) => (stdout += String(part)));
    scan.stderr.on('data', (part) => (stderr += String(part)));
    await once(scan, 'close');
    expect(stdout.trimEnd().split('\n')).toHaveLength(3);
    expect(stderr).toBe('');
  });
});

describe('regions', () => {
  test('split at a key, merge back, and every key stays', async () => {
    const before = await regionOf('row02000');
    const split = await run('ctl', 'region', 'split', String(before.id), '--key', 'row02000x', '--wait', '-o', 'json');
    expect(split.code, split.stderr).toBe(0);
    expect(JSON.parse(split.stdout)).toMatchObject({ kind: 'Operator', status: 'success' });
    const [left, right] = await waitFor('two regions', async () => {
      const pair = await Promise.all([regionOf('row02000'), regionOf('row02000x')]);
      return pair[0].id === pair[1].id ? undefined : pair;
    });
    expect([left.endKey, right.startKey]).toEqual(['row02000x', 'row02000x']);
    const merge = await run('ctl', 'region', 'merge', String(right.id), String(left.id), '--wait', '-o', 'json');
    expect(merge.code, merge.stderr).toBe(0);
    const operator = JSON.parse(merge.stdout) as { phases: { name: string; state: string }[] };
    expect(operator.phases.map((phase) => [phase.name, phase.state])).toEqual([
      ['align', 'done'],
      ['prepare', 'done'],
      ['catch-up', 'done'],
      ['commit', 'done'],
    ]);
    expect(merge.stderr).toMatch(/commit {2}done/);
    expect((await regionOf('row02000x')).id).toBe(left.id);
    expect((await run('get', 'row02001')).code).toBe(0);
  });

  test('a replica moves to another store', async () => {
    const region = await regionOf('row00001');
    const stores = (await json('ctl', 'store', 'list'))['items'] as { id: number }[];
    const to = stores
      .map((store) => store.id)
      .find((id) => region.peers.every((peer) => peer.storeId !== id)) as number;
    const from = region.peers[0]?.storeId as number;
    const moved = await run(
      'ctl',
      'region',
      'move',
      String(region.id),
      '--from',
      String(from),
      '--to',
      String(to),
      '--wait',
      '-o',
      'json',
    );
    expect(moved.code, moved.stderr).toBe(0);
    const after = (await json('ctl', 'region', 'show', String(region.id))) as unknown as RegionObject;
    expect(after.peers.map((peer) => peer.storeId).toSorted(byNumber)).toEqual(
      region.peers.map((peer) => (peer.storeId === from ? to : peer.storeId)).toSorted(byNumber),
    );
    expect((await run('get', 'row00001')).code).toBe(0);
  });

  test('leadership moves, and asking for it again changes nothing', async () => {
    const region = await regionOf('row00001');
    const to = region.peers.map((peer) => peer.storeId).find((id) => id !== region.leader?.storeId) as number;
    expect((await run('ctl', 'region', 'transfer-leader', String(region.id), '--to', String(to), '--wait')).code).toBe(
      0,
    );
    expect((await regionOf('row00001')).leader?.storeId).toBe(to);
    const again = await run('ctl', 'region', 'transfer-leader', String(region.id), '--to', String(to), '--wait');
    expect(again.code).toBe(0);
    expect(again.stderr).toContain('nothing to do');
  });

  test('a change that makes no sense is refused with 3, its reason and a next step, and nothing changes', async () => {
    const before = await regions();
    const [first, , third] = before as [RegionObject, RegionObject, RegionObject];
    const merge = await run('ctl', 'region', 'merge', String(first.id), String(third.id));
    expect(merge.code).toBe(3);
    expect(lines(merge).why).toContain('NotAdjacent');
    const split = await run('ctl', 'region', 'split', String(first.id), '--key', 'zzz');
    expect(split.code).toBe(3);
    expect(lines(split).why).toContain('KeyNotInRegion');
    const stale = await run('ctl', 'region', 'split', String(first.id), '--expect-epoch', '1:1');
    expect(stale.code).toBe(3);
    const move = await run('ctl', 'region', 'move', String(first.id), '--from', '999', '--to', '998');
    expect(move.code).toBe(3);
    const explained = await run('ctl', 'explain', 'merge', String(first.id), String(third.id));
    expect(explained.code).toBe(5);
    expect(explained.stdout).toContain('NotAdjacent');
    expect((await regions()).map((region) => region.id)).toEqual(before.map((region) => region.id));
  });

  test('a dry run shows the steps and starts nothing', async () => {
    const [first, second] = (await regions()) as [RegionObject, RegionObject];
    const planned = await json('ctl', 'region', 'merge', String(first.id), String(second.id), '--dry-run');
    expect(planned).toMatchObject({ kind: 'Operator', id: 0 });
    expect((planned['steps'] as unknown[]).length).toBeGreaterThan(0);
    expect((await json('ctl', 'operator', 'list'))['items']).toEqual([]);
  });
});

describe('reading commands', () => {
  test('work in every mode', async () => {
    const [region] = (await regions()) as [RegionObject];
    const [store] = (await json('ctl', 'store', 'list'))['items'] as [{ id: number }];
    const [operator] = (await json('ctl', 'operator', 'list', '--ended', '--limit', '1'))['items'] as [{ id: number }];
    const commands = [
      ['ctl', 'status'],
      ['ctl', 'store', 'list'],
      ['ctl', 'store', 'show', String(store.id)],
      ['ctl', 'region', 'list', '--limit', '2'],
      ['ctl', 'region', 'show', String(region.id)],
      ['ctl', 'region', 'locate', 'row00001'],
      ['ctl', 'operator', 'list'],
      ['ctl', 'operator', 'show', String(operator.id)],
      ['ctl', 'events', '--limit', '3'],
      ['ctl', 'switch', 'list'],
      ['scan', '--limit', '2'],
      ['get', 'row00001'],
      ['version'],
    ];
    for (const args of commands) {
      const asJson = await run(...args, '-o', 'json');
      expect(asJson.code, `${args.join(' ')}: ${asJson.stderr}`).toBe(0);
      expect(JSON.parse(asJson.stdout)).toMatchObject({ apiVersion: 'braid/v1' });
      const asYaml = await run(...args, '-o', 'yaml');
      expect(parse(asYaml.stdout)).toMatchObject({
        apiVersion: 'braid/v1',
        kind: (JSON.parse(asJson.stdout) as { kind: string }).kind,
      });
      const asTable = await run(...args, '-o', 'table');
      expect(asTable.stdout).toMatch(/^ *[A-Z]/);
    }
  });

  test('an object that is not there is exit code 5', async () => {
    expect((await run('ctl', 'region', 'show', '999999')).code).toBe(5);
    expect((await run('ctl', 'store', 'show', '999999')).code).toBe(5);
    expect((await run('ctl', 'operator', 'show', '999999')).code).toBe(5);
  });
});

describe('measuring', () => {
  test('a short benchmark saves a result that can be compared and leaves no keys', async () => {
    const file = directory.join('result.json');
    const ended = await run(
      'bench',
      'run',
      'mixed',
      '--clients',
      '2',
      '--keys',
      '50',
      '--duration',
      '300ms',
      '--warmup',
      '50ms',
      '--save',
      file,
      '-o',
      'json',
    );
    expect(ended.code, ended.stderr).toBe(0);
    const [cell] = (JSON.parse(ended.stdout) as { items: { perSecond: number; errors: number }[] }).items as [
      { perSecond: number; errors: number },
    ];
    expect(cell.perSecond).toBeGreaterThan(0);
    expect(cell.errors).toBe(0);
    expect((await run('bench', 'compare', file, file, '--fail-below', '0.99')).code).toBe(0);
    expect((await run('scan', '--prefix', '~braid-bench/', '--keys-only', '--no-headers')).stdout).toBe('');
  });
});

// Last, because the cluster does not come out of it whole.
describe('a cluster in trouble', () => {
  test('stores that do not answer end a command at its deadline with 4', async () => {
    const running = cluster.stores.filter((store) => store.isRunning);
    for (const store of running) {
      store.program.child.kill('SIGSTOP');
    }
    try {
      const late = await run('get', 'row00001', '--timeout', '1s');
      expect(late.code, late.stderr).toBe(4);
      expect(lines(late).what).toBe('cannot get row00001');
    } finally {
      for (const store of running) {
        store.program.child.kill('SIGCONT');
      }
    }
  });

  test('stores that are gone are named, and Ctrl-C ends the waiting with 130', async () => {
    await cluster.killAll();
    const ended = await run('get', 'row00001', '--timeout', '1s');
    expect(ended.code, ended.stderr).toBe(1);
    expect(lines(ended).why).toMatch(/Unavailable/);
    // Something listens where the stores were and never answers: the first connection proves that the command waits.
    const listeners = await Promise.all(cluster.stores.map((store) => listen(store.address)));
    try {
      const waiting = new Program(['get', 'row00001', '--timeout', '60s', '--pd', cluster.pdAddress]);
      await Promise.race(listeners.map((listener) => once(listener, 'connection')));
      const interrupted = await waiting.kill('SIGINT');
      expect(interrupted.code, interrupted.stderr).toBe(130);
    } finally {
      for (const listener of listeners) {
        listener.close();
      }
    }
  });

  test('a placement service that is gone is named', async () => {
    await cluster.pd.kill();
    const ended = await run('ctl', 'status', '--timeout', '1s');
    expect(ended.code).toBe(1);
    expect(lines(ended).why).toContain(cluster.pdAddress);
  });
});

/** Accepts connections and says nothing. */
async function listen(address: string): Promise<Server> {
  const server = createServer((socket) => {
    // The other end is killed.
    socket.on('error', () => {}).resume();
  });
  server.listen(Number(address.split(':')[1]), '127.0.0.1');
  await once(server, 'listening');
  return server;
}
