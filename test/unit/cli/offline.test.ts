/** `braid offline inspect`, `verify` and `dump` on directories that a store and a placement member left. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parse } from 'yaml';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { logIndex, regionId } from '../../../src/base/ids.ts';
import { FrozenCopy } from '../../../src/cli/offline/frozen-copy.ts';
import { COMMON_MODES, DATA_MODES, LIST_MODES } from '../../../src/cli/output/mode.ts';
import {
  decodeApplyState,
  decodeRaftLocalState,
  encodeApplyState,
  encodeCleanTask,
  encodeRaftLocalState,
} from '../../../src/codec/raft-records.ts';
import {
  applyStateKey,
  dataKey,
  pendingCleanKey,
  raftLogKey,
  raftStateKey,
  redirectKey,
} from '../../../src/engine/index.ts';
import { encodeDataValue } from '../../../src/codec/data-value.ts';
import { openNative } from '../../../src/engine/level/native.ts';
import { FakeCluster } from '../client/fake-cluster.ts';
import { runAlone, runOn } from './harness.ts';
import { changeRecords, offline, OfflineWorld, putState, readRecords, ROWS, stateOf } from './offline-store.ts';

const DUMP_MODES = [...DATA_MODES, 'name'] as const;

let world: OfflineWorld;

beforeAll(async () => {
  world = await OfflineWorld.make();
  // A place of our own for scratch copies: what is left there was left by these tests.
  vi.stubEnv('TMPDIR', join(world.root, 'tmp'));
  mkdirSync(tmpdir());
}, 30_000);

afterAll(() => {
  vi.unstubAllEnvs();
  world.close();
});

/** Names, sizes, times and contents of all files. */
const snapshotOf = (directory: string): unknown =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .toSorted()
    .map((name) => {
      const path = join(directory, name);
      const stat = statSync(path);
      return [name, stat.mtimeMs, stat.isFile() ? readFileSync(path).toString('base64') : ''];
    });

const scratches = (): readonly string[] => readdirSync(tmpdir());

interface StoreDocument {
  readonly regions: readonly Readonly<Record<string, unknown>>[];
}

const json = <T>(text: string): T => JSON.parse(text) as T;

interface Report {
  readonly sound: boolean;
  readonly findings: readonly { readonly code: string; readonly regionId: number | null; readonly detail: string }[];
  readonly regions: readonly { readonly id: number; readonly keys: number; readonly hash: string }[];
}

async function verify(directory: string): Promise<{ code: number; report: Report }> {
  const { code, stdout, stderr } = await offline(['verify', directory, '-o', 'json']);
  expect(stdout, stderr).not.toBe('');
  return { code, report: json<Report>(stdout) };
}

const codesOf = ({ findings }: Report): readonly string[] => [...new Set(findings.map(({ code }) => code))];

describe('every offline command', () => {
  test('prints every mode and changes nothing, not even a time', async () => {
    const before = snapshotOf(world.store);
    // The region that was divided; the one made from it may not have a log yet.
    const left = Math.min(...world.regions);
    for (const [words, modes] of [
      [['inspect', world.store], LIST_MODES],
      [['inspect', world.store, String(left)], LIST_MODES],
      [['inspect', world.store, String(left), '--log', '..'], LIST_MODES],
      [['inspect', world.placement], LIST_MODES],
      [['verify', world.store], LIST_MODES],
      [['verify', world.placement], LIST_MODES],
      [['dump', world.store], DUMP_MODES],
    ] as const) {
      for (const mode of modes) {
        const { code, stdout, stderr } = await offline([...words, '-o', mode]);
        expect([words, mode, code], stderr).toEqual([words, mode, 0]);
        if (mode === 'json' || mode === 'yaml') {
          expect(mode === 'json' ? JSON.parse(stdout) : parse(stdout)).toMatchObject({ apiVersion: 'braid/v1' });
        }
        expect(stdout).toMatch(COMMON_MODES.includes(mode) ? /\S\n$/ : /\n$/);
      }
      expect((await offline([...words, '-o', 'xml'])).code).toBe(1);
    }
    expect(snapshotOf(world.store)).toEqual(before);
    expect(scratches()).toEqual([]);
  }, 60_000);

  test('refuses a directory that a process holds, and lets no process start on one it reads', async () => {
    const directory = await world.changed();
    // In a process of its own: one process may lock a file as often as it likes.
    const open = (): ReturnType<typeof spawn> & { readonly stdout: Readable } => {
      const script = `import { Level } from 'level';
        const db = new Level(process.argv[1]);
        await db.open().then(() => console.log('held'), (error) => console.log(error.cause.code));
        setInterval(() => {}, 1000);`;
      const words = ['--input-type=module', '-e', script, join(directory, 'db')];
      return spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    };
    {
      await using copy = await FrozenCopy.open(join(directory, 'db'));
      expect(copy.state.type).toBe('sound');
      const late = open();
      expect(String((await once(late.stdout, 'data'))[0])).toBe('LEVEL_LOCKED\n');
      late.kill('SIGKILL');
      await once(late, 'close');
    }
    const holder = open();
    try {
      await once(holder.stdout, 'data');
      for (const command of ['inspect', 'verify', 'dump']) {
        const { code, stdout, stderr } = await offline([command, directory]);
        expect([command, code, stdout]).toEqual([command, 1, '']);
        expect(stderr).toMatch(
          /^error: cannot .+\nwhy: {3}.+ is in use by a running process \(EngineOpen\)\nnext: {2}.+\n$/,
        );
      }
    } finally {
      holder.kill('SIGKILL');
      await once(holder, 'close');
    }
    expect((await offline(['verify', directory])).code).toBe(0);
  });

  test.each([
    ['nothing', (path: string) => path, 'there is no directory'],
    ['a file', (path: string) => (writeFileSync(path, ''), path), 'is no directory'],
    [
      'a foreign directory',
      (path: string) => (mkdirSync(path), writeFileSync(join(path, 'x'), ''), path),
      'is not the data directory of a store',
    ],
    [
      'the directory of braid dev',
      (path: string) => (mkdirSync(join(path, 'store-1'), { recursive: true }), path),
      'store-1',
    ],
    [
      'a first start that was not completed',
      (path: string) => (mkdirSync(join(path, 'db'), { recursive: true }), path),
      'never completed',
    ],
    [
      'a directory without its database',
      (path: string) => (
        cpSync(world.store, path, { recursive: true }), rmSync(join(path, 'db'), { recursive: true }), path
      ),
      'is missing',
    ],
    ['the database inside a directory', () => join(world.store, 'db'), 'directory above it'],
    [
      'a damaged IDENT',
      (path: string) => (cpSync(world.store, path, { recursive: true }), writeFileSync(join(path, 'IDENT'), 'x'), path),
      'is damaged',
    ],
    [
      'another store’s IDENT',
      (path: string) => (
        cpSync(world.store, path, { recursive: true }),
        writeFileSync(join(path, 'IDENT'), JSON.stringify({ format: 1, clusterId: '5', storeId: 77 })),
        path
      ),
      'of store 77 of cluster 5',
    ],
    [
      'a database without a manifest',
      (path: string) => (mkdirSync(path), writeFileSync(join(path, 'CURRENT'), 'MANIFEST-000001\n'), path),
      'half there',
    ],
  ])('names what is wrong with %s', async (name, make, words) => {
    const path = make(join(world.root, `bad-${name.replaceAll(/\W/g, '-')}`));
    for (const command of ['inspect', 'verify', 'dump']) {
      const { code, stdout, stderr } = await offline([command, path]);
      expect([command, code, stdout]).toEqual([command, 1, '']);
      expect(stderr).toMatch(/^error: cannot .+\nwhy: {3}.+ \((?:DataDir|EngineOpen)\)\nnext: {2}.+\n$/);
      expect(stderr).toContain(words);
    }
    expect(scratches()).toEqual([]);
  });

  test('refuses a database of another program', async () => {
    const path = await world.changed();
    rmSync(join(path, 'db'), { recursive: true });
    const foreign = await openNative(join(path, 'db'), {
      createIfMissing: true,
      writeBufferSize: 1 << 20,
      cacheSize: 0,
      maxFileSize: 1 << 20,
      maxOpenFiles: 64,
    });
    const batch = foreign.batch();
    batch.put(utf8('k'), utf8('v'));
    await batch.write({ sync: true });
    await foreign.close();
    const { code, stderr } = await offline(['verify', path]);
    expect([code, stderr]).toEqual([1, expect.stringContaining('another program')]);
    expect(stderr).toContain(join(path, 'db'));
  });

  test('ends at Ctrl-C, and leaves nothing behind', async () => {
    for (const command of ['inspect', 'verify', 'dump']) {
      const { code, stdout } = await offline([command, world.store], {
        signal: AbortSignal.abort(new Error('interrupted')),
      });
      expect([command, code, stdout]).toEqual([command, 130, '']);
    }
    expect(scratches()).toEqual([]);
  });

  test('says what to do when there is no place for its temporary files', async () => {
    const place = tmpdir();
    vi.stubEnv('TMPDIR', join(world.root, 'nowhere'));
    const { code, stderr } = await offline(['verify', world.store]);
    vi.stubEnv('TMPDIR', place);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/ \(Scratch\)\nnext: {2}set TMPDIR/)]);
  });

  test('of stores is refused for a placement member where it means nothing', async () => {
    expect((await offline(['dump', world.placement])).stderr).toContain('placement member');
    expect((await offline(['inspect', world.placement, '2'])).stderr).toContain('has no replicas');
  });
});

describe('braid offline inspect', () => {
  test('shows identity, regions and where their logs stand', async () => {
    const { stdout } = await offline(['inspect', world.store, '-o', 'json']);
    const found = json<StoreDocument>(stdout);
    expect(found).toMatchObject({
      kind: 'OfflineStore',
      storeId: world.storeId,
      starts: 1,
      formatVersion: 1,
      problems: [],
    });
    expect(found.regions.map(({ startKey, endKey, state }) => [startKey, endKey, state])).toEqual(
      found.regions[0]?.['startKey'] === null
        ? [
            [null, 'm', 'normal'],
            ['m', null, 'normal'],
          ]
        : [
            ['m', null, 'normal'],
            [null, 'm', 'normal'],
          ],
    );
    for (const region of found.regions) {
      expect(region['appliedIndex']).toBe(region['commitIndex']);
      expect(region['lastIndex']).toBeGreaterThanOrEqual(region['commitIndex'] as number);
    }
    const names = await offline(['inspect', world.store, '-o', 'name']);
    expect(new Set(names.stdout.trim().split('\n').map(Number))).toEqual(new Set(world.regions));
  });

  test('shows the merge, the fence and the redirects of one region', async () => {
    const [left, right] = world.regions as [number, number];
    const directory = await world.changed(async (batch, engine) => {
      const [source, target] = [await stateOf(engine, left), await stateOf(engine, right)];
      putState(batch, { ...source, state: 'merging', mergeState: { minIndex: 7, commit: 9, target: target.region } });
    });
    const { stdout } = await offline(['inspect', directory, String(left), '-o', 'yaml']);
    expect(parse(stdout)).toMatchObject({
      state: 'merging',
      mergeState: { minIndex: 7, commit: 9, target: { id: right } },
      hardState: { vote: expect.any(Number) as number },
      rows: { keys: 3, bytes: 18 },
    });
    const table = await offline(['inspect', directory, String(left)]);
    expect(table.stdout).toMatch(/merging into +r\d+\[m,\+inf\)/);
    const gone = await offline(['inspect', directory, '4711', '-o', 'json']);
    expect([gone.code, json(gone.stdout)]).toMatchObject([5, { found: false }]);
  });

  test('prints log entries in words, and only those asked for', async () => {
    const id = String(Math.min(...world.regions));
    const whole = await offline(['inspect', world.store, id, '--log', '..', '-o', 'json']);
    const { items } = json<{ items: readonly { index: number; type: string; operations?: readonly object[] }[] }>(
      whole.stdout,
    );
    expect(new Set(items.map(({ type }) => type))).toEqual(new Set(['no-op', 'write', 'batch-split']));
    expect(items.flatMap(({ operations = [] }) => operations)).toContainEqual({
      type: 'put',
      key: 'a1',
      valueBytes: 5,
    });
    const first = items[0] as { index: number };
    const part = await offline([
      'inspect',
      world.store,
      id,
      '--log',
      `${first.index + 1}..${first.index + 2}`,
      '-o',
      'name',
    ]);
    expect(part.stdout).toBe(`${first.index + 1}\n${first.index + 2}\n`);
    const one = await offline(['inspect', world.store, id, '--log', String(first.index), '-o', 'name']);
    expect(one.stdout).toBe(`${first.index}\n`);
    expect((await offline(['inspect', world.store, '--log', '..'])).stderr).toContain('--log needs a region');
    for (const bad of ['9..3', 'x', '1...2', '1-2']) {
      expect((await offline(['inspect', world.store, id, '--log', bad])).code).toBe(1);
    }
  });

  test('shows what it can of a store with records that mean nothing', async () => {
    const [left, right] = world.regions as [number, number];
    const directory = await world.changed((batch) => {
      batch.put(applyStateKey(regionId(left)), utf8('junk'));
      batch.put(redirectKey(regionId(right), 1), utf8('junk'));
    });
    const { code, stdout } = await offline(['inspect', directory, '-o', 'json']);
    expect(code).toBe(0);
    const problems = json<StoreDocument>(stdout).regions.map(({ id, problems: found }) => [
      id,
      (found as object[]).length,
    ]);
    expect(new Map(problems as [number, number][])).toEqual(
      new Map([
        [left, 1],
        [right, 1],
      ]),
    );
  });

  test('shows a placement member', async () => {
    const { stdout } = await offline(['inspect', world.placement, '-o', 'json']);
    expect(json(stdout)).toMatchObject({ kind: 'OfflinePlacement', members: [{ id: 1 }], stores: 1 });
  });
});

describe('braid offline verify', () => {
  test('finds nothing in a sound store, and the hash that replicas compare', async () => {
    const { code, report } = await verify(world.store);
    expect([code, report.sound, report.findings]).toEqual([0, true, []]);
    expect(report.regions.map(({ keys }) => keys)).toEqual([3, 2]);
    const copy = await world.changed(async (batch) => {
      batch.put(dataKey(utf8('a1')), encodeDataValue(utf8('First'), 0));
    });
    const other = (await verify(copy)).report;
    expect(other.regions[0]?.hash).not.toBe(report.regions[0]?.hash);
    expect(other.regions[1]?.hash).toBe(report.regions[1]?.hash);
  });

  test.each<[name: string, code: string, break_: () => Promise<string>]>([
    [
      'a hole in a log',
      'LogGap',
      () =>
        world.changed(async (batch, engine) => {
          const id = regionId(Math.min(...world.regions));
          const { lastIndex } = decodeRaftLocalState((await engine.get(raftStateKey(id))) as Uint8Array);
          batch.del(raftLogKey(id, logIndex(lastIndex - 1)));
        }),
    ],
    [
      'a log that ends before what is committed',
      'LogEnd',
      () =>
        world.changed(async (batch, engine) => {
          const id = regionId(Math.min(...world.regions));
          const raft = decodeRaftLocalState((await engine.get(raftStateKey(id))) as Uint8Array);
          batch.put(raftStateKey(id), encodeRaftLocalState({ ...raft, lastIndex: raft.lastIndex - 1 }));
        }),
    ],
    [
      'more applied than committed',
      'AppliedBeyondCommit',
      () =>
        world.changed(async (batch, engine) => {
          const id = regionId(Math.min(...world.regions));
          const apply = decodeApplyState((await engine.get(applyStateKey(id))) as Uint8Array);
          batch.put(applyStateKey(id), encodeApplyState({ ...apply, appliedIndex: apply.appliedIndex + 5 }));
        }),
    ],
    [
      'a log entry that means nothing',
      'BadRecord',
      () =>
        world.changed((batch) => {
          batch.put(raftLogKey(regionId(Math.min(...world.regions)), logIndex(7)), utf8('junk'));
        }),
    ],
    [
      'a missing apply state',
      'MissingRecord',
      () => world.changed((batch) => batch.del(applyStateKey(regionId(world.regions[0] as number)))),
    ],
    [
      'overlapping regions',
      'OverlappingRanges',
      () =>
        world.changed(async (batch, engine) => {
          const state = await stateOf(engine, world.regions[0] as number);
          putState(batch, { ...state, region: { ...state.region, range: { ...state.region.range, end: utf8('p') } } });
        }),
    ],
    [
      'a replica of another store',
      'NotOnThisStore',
      () =>
        world.changed(async (batch, engine) => {
          const state = await stateOf(engine, world.regions[0] as number);
          const peers = state.region.peers.map((peer) => ({ ...peer, storeId: 999 as typeof peer.storeId }));
          putState(batch, { ...state, region: { ...state.region, peers } });
        }),
    ],
    [
      'rows without a region',
      'OrphanRows',
      () =>
        world.changed(async (batch, engine) => {
          const state = await stateOf(engine, world.regions[0] as number);
          putState(batch, { ...state, region: { ...state.region, range: { ...state.region.range, end: utf8('b') } } });
        }),
    ],
    [
      'a row that is no value',
      'BadRecord',
      () => world.changed((batch) => batch.put(dataKey(utf8('a1')), Uint8Array.of(9))),
    ],
  ])('finds %s', async (_, code, make) => {
    const { code: exit, report } = await verify(await make());
    expect([exit, report.sound]).toEqual([5, false]);
    expect(codesOf(report)).toContain(code);
  });

  test('counts rows that are about to be deleted and does not call them lost', async () => {
    const directory = await world.changed(async (batch, engine) => {
      const state = await stateOf(engine, world.regions[0] as number);
      putState(batch, { ...state, state: 'tombstone' });
      batch.put(pendingCleanKey(1), encodeCleanTask({ range: { start: state.region.range.start, end: utf8('c') } }));
    });
    const { report } = await verify(directory);
    expect(report).toMatchObject({ rowsBeingCleaned: 2 });
    expect(report.findings).toMatchObject([
      { code: 'OrphanRows', detail: expect.stringContaining('1 rows') as string, startKey: 'c' },
    ]);
  });

  test('finds a value that does not match its checksum and reads on behind it', async () => {
    const directory = await world.changed();
    const native = await openNative(join(directory, 'db'), {
      createIfMissing: false,
      writeBufferSize: 1 << 20,
      cacheSize: 0,
      maxFileSize: 1 << 20,
      maxOpenFiles: 64,
    });
    const key = dataKey(utf8('c'));
    const stored = Uint8Array.from((await native.get(key)) as Uint8Array);
    stored[0] = (stored[0] as number) ^ 1;
    const batch = native.batch();
    batch.put(key, stored);
    await batch.write({ sync: true });
    await native.close();
    const { code, report } = await verify(directory);
    expect([code, report.findings]).toMatchObject([
      5,
      [{ code: 'BadRecord', regionId: world.regions[0], detail: expect.stringContaining('row c') as string }],
    ]);
    expect(report.regions.map(({ keys }) => keys)).toEqual([3, 2]);
    const dumped = await offline(['dump', directory, '-o', 'name']);
    expect([dumped.code, dumped.stderr]).toEqual([2, expect.stringContaining('1 damaged row missing')]);
    expect(dumped.stdout).toBe('a1\nb\\x00\\xff\\\\\nm1\nz9\n');
  });

  test('finds a damaged write-ahead log, and says that nothing behind it was checked', async () => {
    const directory = await world.changed();
    // One start more, so that the batches are in a log and not yet in a table.
    await changeRecords(directory, (batch) => batch.put(redirectKey(regionId(1), 1), utf8('x')));
    await changeRecords(directory, async (batch, engine) => {
      const first = engine.createBatch();
      first.put(redirectKey(regionId(1), 2), utf8('a'.repeat(200)));
      await engine.write(first);
      const second = engine.createBatch();
      second.put(redirectKey(regionId(1), 3), utf8('b'.repeat(200)));
      await engine.write(second);
      batch.put(redirectKey(regionId(1), 4), utf8('c'));
    });
    const [log] = readdirSync(join(directory, 'db')).filter((name) => name.endsWith('.log')) as [string];
    const bytes = readFileSync(join(directory, 'db', log));
    const at = bytes.indexOf('aaaa');
    expect(at).toBeGreaterThan(0);
    bytes[at] = 0x7a;
    writeFileSync(join(directory, 'db', log), bytes);
    const before = snapshotOf(directory);
    const { code, report } = await verify(directory);
    expect([code, codesOf(report)]).toEqual([5, ['DamagedDatabase']]);
    expect(report).toMatchObject({ opened: false });
    const inspected = await offline(['inspect', directory]);
    expect([inspected.code, inspected.stderr]).toEqual([1, expect.stringContaining('lost writes')]);
    // The store itself marks such a database; looking does not.
    expect(snapshotOf(directory)).toEqual(before);
    expect(existsSync(join(directory, 'db', 'SUSPECT'))).toBe(false);
  });
});

describe('braid offline dump', () => {
  test('prints every row in key order with the time at which it expires', async () => {
    const { stdout, stderr } = await offline(['dump', world.store]);
    const rows = stdout
      .trim()
      .split('\n')
      .map((line) => json<Record<string, string>>(line));
    expect(rows.map(({ key }) => key)).toEqual(['a1', 'b\\x00\\xff\\\\', 'c', 'm1', 'z9']);
    expect(rows.map(({ encoding }) => encoding)).toEqual(['utf8', 'base64', 'utf8', 'utf8', 'utf8']);
    expect(rows.map(({ expireAt }) => expireAt !== undefined)).toEqual([false, false, false, false, true]);
    expect(stderr).toContain('may have acknowledged newer ones');
  });

  test('keeps to a region, a range and a limit', async () => {
    const keys = async (...flags: string[]): Promise<string[]> =>
      (await offline(['dump', world.store, '-o', 'name', ...flags])).stdout.split('\n').slice(0, -1);
    expect(await keys('--region', String(world.regions[1]))).toEqual(['m1', 'z9']);
    expect(await keys('--start', 'c', '--end', 'n')).toEqual(['c', 'm1']);
    expect(await keys('--limit', '2')).toHaveLength(2);
    expect(await keys('--start', 'm', '--region', String(world.regions[0]))).toEqual([]);
    expect((await offline(['dump', world.store, '--region', '4711'])).code).toBe(5);
    expect((await offline(['dump', world.store, '--start', 'b', '--end', 'a'])).code).toBe(1);
  });

  test('leaves out what has expired, and says what is not in the rows yet', async () => {
    const id = regionId(Math.min(...world.regions));
    const directory = await world.changed(async (batch, engine) => {
      batch.put(dataKey(utf8('old')), encodeDataValue(utf8('x'), 1000));
      const apply = decodeApplyState((await engine.get(applyStateKey(id))) as Uint8Array);
      batch.put(applyStateKey(id), encodeApplyState({ ...apply, appliedIndex: apply.appliedIndex - 1 }));
    });
    const { code, stdout, stderr } = await offline(['dump', directory]);
    expect(code).toBe(0);
    expect(stdout).not.toContain('"old"');
    expect(stderr).toContain('1 expired row left out');
    expect(stderr).toContain(`region ${id} has 1 log entries that are not in its rows yet, 1 of them`);
  });

  test('comes back by import: every byte, and the time to live', async () => {
    for (const format of ['escaped', 'hex', 'base64']) {
      for (const values of ['auto', 'escaped', 'hex', 'base64']) {
        const { stdout } = await offline(['dump', world.store, '--key-format', format, '--value-format', values]);
        const cluster = new FakeCluster();
        const imported = await runOn(
          cluster,
          ['import', '-', '--format', 'rows', '--key-format', format, '-o', 'json'],
          { stdin: stdout },
        );
        expect([imported.code, json(imported.stdout)], imported.stderr).toMatchObject([
          0,
          { stored: ROWS.length, refused: 0 },
        ]);
        for (const [key, value] of ROWS) {
          const { stdoutBytes } = await runOn(cluster, [
            'get',
            '--key-format',
            'hex',
            Buffer.from(key).toString('hex'),
          ]);
          expect(fromUtf8(key) + stdoutBytes.toString('hex')).toBe(fromUtf8(key) + Buffer.from(value).toString('hex'));
        }
        const { ttlMs } = json<{ ttlMs: number }>((await runOn(cluster, ['ttl', 'z9', '-o', 'json'])).stdout);
        expect(ttlMs).toBeGreaterThan(0);
        expect(ttlMs).toBeLessThanOrEqual(3_600_000);
      }
    }
  }, 60_000);
});

describe('braid import --format rows', () => {
  test('refuses lines that are no rows and passes over what has expired', async () => {
    const lines = [
      { key: 'a', value: 'x', encoding: 'utf8' },
      { key: 'b', value: 'x', expireAt: '2000-01-01T00:00:00.000Z' },
      { key: 'c', value: 'x', expireAt: 'soon' },
      { key: 'd', value: 'zz', encoding: 'hex' },
      { key: String.raw`\q`, value: 'x' },
      { key: '', value: 'x' },
      { value: 'x' },
      { key: 'e' },
      { key: 'f', value: 'x', color: 'red' },
      { key: 'g', value: 'x', encoding: 'rot13' },
      { key: 'k'.repeat(9000), value: 'x' },
    ];
    const { code, stdout, stderr } = await runAlone(['import', '-', '--format', 'rows', '--dry-run', '-o', 'json'], {
      stdin: lines.map((line) => `${JSON.stringify(line)}\n`).join(''),
    });
    expect([code, json(stdout)]).toMatchObject([
      2,
      { rows: 10, refused: 9, refusedByCode: { NotARow: 6, EmptyKey: 1, NoKeyField: 1, KeyTooLarge: 1 } },
    ]);
    expect(stderr).toContain('1 rows have expired');
  });

  test('takes no flags of columns, and other formats need the key column', async () => {
    for (const flags of [
      ['--key-column', 'k'],
      ['--value-columns', 'v'],
      ['--value-as', 'raw'],
      ['--delimiter', ';'],
      ['--header'],
    ]) {
      expect((await runAlone(['import', '-', '--format', 'rows', '--dry-run', ...flags], { stdin: '' })).code).toBe(1);
    }
    const { code, stderr } = await runAlone(['import', '-', '--format', 'tsv', '--dry-run'], { stdin: '' });
    expect([code, stderr]).toEqual([1, expect.stringContaining('--key-column')]);
  });
});

test('records are read as the store reads them', async () => {
  // The fixture is what it claims to be: the tests above would pass on an empty store as well.
  const states = await readRecords(world.store, (engine) =>
    Promise.all(world.regions.map((id) => stateOf(engine, id))),
  );
  expect(states.map(({ state, region }) => [state, region.peers.map(({ storeId }) => storeId)])).toEqual([
    ['normal', [world.storeId]],
    ['normal', [world.storeId]],
  ]);
});
