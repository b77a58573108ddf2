/** What the program says when it is started with something that cannot work: one clear reason and the way out. */
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { braid, type Ended, freePort, Program, TemporaryDirectory, TestCluster } from './cluster.ts';

let cluster: TestCluster;

beforeAll(async () => {
  cluster = await TestCluster.start({ stores: 1, pdSettings: ['placement.max-replicas=1'] });
});

afterAll(async () => {
  await cluster[Symbol.asyncDispose]();
});

let directory: TemporaryDirectory;
let programs: Program[] = [];

afterEach(async () => {
  await Promise.all(programs.filter((program) => program.isRunning).map((program) => program.kill()));
  programs = [];
  directory?.[Symbol.dispose]();
});

const temporary = (): TemporaryDirectory => {
  directory = new TemporaryDirectory();
  return directory;
};

/** A store on free ports with its own directory, run to its end. */
const server = (dataDir: string, pd: string, ...more: readonly string[]): Promise<Ended> =>
  braid([
    'server',
    '--addr',
    '127.0.0.1:0',
    '--status-addr',
    '',
    '--data-dir',
    dataDir,
    '--pd',
    pd,
    '--log-level',
    'silent',
    ...more,
  ]);

/** All errors are three lines. */
function lines(ended: Ended): { readonly what: string; readonly why: string; readonly next: string } {
  const match = /^error: (.*)\nwhy: {3}(.*)\nnext: {2}(.*)\n$/.exec(ended.stderr);
  expect(match, ended.stderr).not.toBeNull();
  const [, what = '', why = '', next = ''] = match ?? [];
  return { what, why, next };
}

describe('flags and settings', () => {
  test('an unknown flag is refused and the closest one named', async () => {
    const ended = await braid(['server', '--data-dri', 'x']);
    expect(ended.code).toBe(1);
    expect(lines(ended)).toMatchObject({
      what: "unknown option '--data-dri'",
      next: expect.stringContaining('--data-dir') as string,
    });
  });

  test('an unknown key in a file is refused with its line and the closest one', async () => {
    const file = temporary().join('store.toml');
    writeFileSync(file, '[raftstore]\n# a remark\ntik = "100ms"\n');
    const ended = await braid(['server', '--config', file]);
    expect(ended.code).toBe(1);
    expect(lines(ended)).toEqual({
      what: 'cannot run the store',
      why: `${file}:3: unknown key raftstore.tik (Config)`,
      next: 'did you mean raftstore.tick?',
    });
  });

  test('an unknown variable and a value without unit are refused', async () => {
    const variable = await braid(['server'], { env: { BRAID_RAFTSTORE__TIKC: '100ms' } });
    expect(lines(variable)).toMatchObject({
      why: 'the environment variable BRAID_RAFTSTORE__TIKC names no setting (Config)',
      next: 'did you mean BRAID_RAFTSTORE__TICK?',
    });
    const value = await braid(['pd', '--set', 'placement.store-down=300']);
    expect(lines(value).why).toBe(
      'the flag for placement.store-down must be a duration with its unit, such as "250ms", "10s" or "5m", up to 24 days, not "300" (Config)',
    );
  });

  test('the samples pass their own check', async () => {
    const place = temporary();
    for (const role of ['store', 'pd']) {
      const sample = await braid(['config', 'default', role]);
      expect(sample.code).toBe(0);
      writeFileSync(place.join(`${role}.toml`), sample.stdout);
      expect(await braid(['config', 'check', role, place.join(`${role}.toml`)])).toMatchObject({ code: 0 });
    }
  });

  test('help of every command has examples', async () => {
    for (const command of ['dev', 'server', 'pd']) {
      const { code, stdout } = await braid([command, '--help']);
      expect(code).toBe(0);
      expect(stdout).toMatch(new RegExp(`Examples:\n {2}braid ${command}`));
    }
  });
});

describe('starting a store', () => {
  test('names every placement endpoint it tried', async () => {
    const port = await freePort();
    const ended = await server(temporary().join('data'), `127.0.0.1:${port}`, '--set', 'server.start-timeout=1s');
    expect(ended.code).toBe(1);
    const { why, next } = lines(ended);
    expect(why).toContain(`127.0.0.1:${port}`);
    expect(why).toContain('(Unavailable)');
    expect(next).toContain('--pd');
    expect(readdirSync(directory.path)).toEqual([]);
  });

  test('says that a store is not a placement service', async () => {
    const ended = await server(temporary().join('data'), cluster.store(1).address, '--set', 'server.start-timeout=1s');
    expect(ended.code).toBe(1);
    expect(lines(ended).why).toContain(cluster.store(1).address);
  });

  test('refuses a directory of another cluster', async () => {
    const place = temporary();
    const pd = new Program(['pd', '--addr', '127.0.0.1:0', '--data-dir', place.join('pd'), '--log-level', 'silent']);
    programs.push(pd);
    const [, other = ''] = await pd.line(/^ready: placement service at (\S+),/m);
    const args = [
      'server',
      '--addr',
      '127.0.0.1:0',
      '--status-addr',
      '',
      '--data-dir',
      place.join('data'),
      '--log-level',
      'silent',
    ];
    const store = new Program([...args, '--pd', other]);
    programs.push(store);
    await store.line(/^ready: store/m);
    await store.kill();
    const ended = await braid([...args, '--pd', cluster.pdAddress]);
    expect(ended.code).toBe(1);
    expect(lines(ended).why).toMatch(
      /data belongs to cluster \d+, but the placement service is of cluster \d+ \(ClusterMismatch\)$/,
    );
    expect(lines(ended).next).toContain('--data-dir');
  });

  test('refuses a directory that another process uses', async () => {
    const ended = await server(cluster.store(1).dataDir, cluster.pdAddress);
    expect(ended.code).toBe(1);
    expect(lines(ended).why).toContain('is in use');
    expect(lines(ended).next).toContain('its own data directory');
  });

  test('refuses a port in use', async () => {
    const taken = createServer();
    const port = await new Promise<number>((resolve) => {
      taken.listen(0, '127.0.0.1', () => resolve((taken.address() as { port: number }).port));
    });
    const ended = await braid([
      'server',
      '--addr',
      `127.0.0.1:${port}`,
      '--status-addr',
      '',
      '--data-dir',
      temporary().join('data'),
      '--pd',
      cluster.pdAddress,
      '--log-level',
      'silent',
    ]);
    await new Promise((resolve) => taken.close(resolve));
    expect(ended.code).toBe(1);
    expect(lines(ended).why).toContain(`127.0.0.1:${port}`);
    expect(lines(ended).next).toContain('--addr');
  });

  test('refuses a database that lost its contents instead of starting empty', async () => {
    await using own = await TestCluster.start({ stores: 1, pdSettings: ['placement.max-replicas=1'] });
    const store = own.store(1);
    await store.kill();
    rmSync(join(store.dataDir, 'db', 'CURRENT'));
    const ended = await server(store.dataDir, own.pdAddress);
    expect(ended.code).toBe(1);
    expect(lines(ended).why).toContain('(EngineOpen)');
    rmSync(join(store.dataDir, 'db'), { recursive: true });
    expect((await server(store.dataDir, own.pdAddress)).code).toBe(1);
  });

  test('refuses an address it could not be reached under', async () => {
    const ended = await braid(['server', '--addr', '0.0.0.0:0', '--pd', cluster.pdAddress]);
    expect(ended.code).toBe(1);
    expect(lines(ended).next).toContain('--advertise-addr');
  });
});

describe('importing', () => {
  test('a corrupt row is named and the others go in', async () => {
    const file = temporary().join('rows.tsv');
    writeFileSync(file, 'a\t1\nb\nc\t3\n');
    const ended = await braid(['import', file, '--no-header', '--key-column', '1', '--pd', cluster.pdAddress]);
    expect(ended.code).toBe(2);
    expect(ended.stdout).toMatch(/^ *2 +WrongColumnCount/m);
    expect((await braid(['get', 'c', '--pd', cluster.pdAddress])).code).toBe(0);
  });
});
