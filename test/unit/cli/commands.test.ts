import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { hoistLeadingFlags } from '../../../src/cli/common-options.ts';
import { ReaderGoneError } from '../../../src/cli/io.ts';
import { runCli } from '../../../src/cli/program.ts';
import { FakeCluster } from '../client/fake-cluster.ts';
import { type RunOutcome, connectorOf, runAlone, runOn } from './harness.ts';

/** The three lines of a failed command. */
function lines(outcome: RunOutcome): { error: string; why: string; next: string } {
  const match = /^error: (.+)\nwhy: {3}(.+)\nnext: {2}(.+)\n$/.exec(outcome.stderr);
  expect(match, outcome.stderr).not.toBeNull();
  const [, error = '', why = '', next = ''] = match ?? [];
  return { error, why, next };
}

describe('put, get, del', () => {
  test('a value that was put is printed as it is, without a line feed of its own', async () => {
    const cluster = new FakeCluster();
    expect(await runOn(cluster, ['put', 'user:1', 'Ada'])).toMatchObject({
      code: 0,
      stdout: '',
      stderr: 'stored user:1\n',
    });
    expect(await runOn(cluster, ['get', 'user:1'])).toMatchObject({ code: 0, stdout: 'Ada', stderr: '' });
    expect(await runOn(cluster, ['del', 'user:1'])).toMatchObject({ code: 0, stdout: '' });
    expect(await runOn(cluster, ['get', 'user:1'])).toMatchObject({
      code: 5,
      stdout: '',
      stderr: 'absent: user:1 has no value\n',
    });
  });

  test('a terminal gets a line feed after the value', async () => {
    const cluster = new FakeCluster();
    await runOn(cluster, ['put', 'k', 'v']);
    expect((await runOn(cluster, ['get', 'k'], { isTerminal: true })).stdout).toBe('v\n');
  });

  test('bytes from stdin come back unchanged', async () => {
    const cluster = new FakeCluster();
    const value = Uint8Array.from({ length: 1000 }, (_, i) => i % 256);
    await runOn(cluster, ['put', 'k', '-'], { stdin: value });
    expect(new Uint8Array((await runOn(cluster, ['get', 'k'])).stdoutBytes)).toEqual(value);
  });

  test('an empty value and a value that looks like a flag can be stored', async () => {
    const cluster = new FakeCluster();
    expect((await runOn(cluster, ['put', 'k', ''])).code).toBe(0);
    expect(await runOn(cluster, ['get', 'k'])).toMatchObject({ code: 0, stdout: '' });
    expect((await runOn(cluster, ['put', 'k', '--', '--limit'])).code).toBe(0);
    expect((await runOn(cluster, ['get', 'k'])).stdout).toBe('--limit');
    expect((await runOn(cluster, ['put', 'k', '-5'])).code).toBe(0);
    expect((await runOn(cluster, ['get', 'k'])).stdout).toBe('-5');
  });

  test('keys can be escaped, hexadecimal or base64', async () => {
    const cluster = new FakeCluster();
    await runOn(cluster, ['put', String.raw`a\x00\\`, 'v']);
    expect((await runOn(cluster, ['get', '61005c', '--key-format', 'hex'])).stdout).toBe('v');
    expect((await runOn(cluster, ['get', 'YQBc', '--key-format', 'base64'])).stdout).toBe('v');
  });

  test('--if-absent does not overwrite and says so', async () => {
    const cluster = new FakeCluster();
    await runOn(cluster, ['put', 'k', '1']);
    expect(await runOn(cluster, ['put', 'k', '2', '--if-absent', '-o', 'json'])).toMatchObject({ code: 5 });
    expect((await runOn(cluster, ['get', 'k'])).stdout).toBe('1');
  });

  test('get prints golden documents', async () => {
    const cluster = new FakeCluster();
    await runOn(cluster, ['put', 'k', 'v']);
    expect((await runOn(cluster, ['get', 'k', '-o', 'json'])).stdout).toBe(
      '{\n  "apiVersion": "braid/v1",\n  "kind": "Value",\n  "key": "k",\n  "found": true,\n  "value": "v",\n  "encoding": "utf8",\n  "sizeBytes": 1\n}\n',
    );
    expect((await runOn(cluster, ['get', 'k', '-o', 'yaml'])).stdout).toBe(
      'apiVersion: braid/v1\nkind: Value\nkey: k\nfound: true\nvalue: v\nencoding: utf8\nsizeBytes: 1\n',
    );
    expect((await runOn(cluster, ['get', 'k', '-o', 'table'])).stdout).toBe('FIELD   VALUE\nkey     k\nvalue   v\n');
    expect((await runOn(cluster, ['get', 'x', '-o', 'json'])).stdout).toBe(
      '{\n  "apiVersion": "braid/v1",\n  "kind": "Value",\n  "key": "x",\n  "found": false\n}\n',
    );
  });
});

describe('cas', () => {
  test('swaps only what is expected, and prints what is there', async () => {
    const cluster = new FakeCluster();
    expect(await runOn(cluster, ['cas', 'k', '--absent', '1'])).toMatchObject({ code: 0 });
    expect(await runOn(cluster, ['cas', 'k', '--absent', '2'])).toMatchObject({
      code: 5,
      stdout: 'FIELD      VALUE\nkey        k\nswapped    no\nprevious   1\n',
    });
    expect(await runOn(cluster, ['cas', 'k', '--expect', '1', '2'])).toMatchObject({ code: 0 });
    expect((await runOn(cluster, ['get', 'k'])).stdout).toBe('2');
    const refused = await runOn(cluster, ['cas', 'k', '--expect', '1', '3', '-o', 'json']);
    expect(JSON.parse(refused.stdout)).toMatchObject({ swapped: false, previous: '2' });
  });

  test('needs exactly one expectation', async () => {
    for (const args of [
      ['cas', 'k', 'v'],
      ['cas', 'k', 'v', '--absent', '--expect', 'x'],
    ]) {
      const outcome = await runAlone(args);
      expect(outcome.code).toBe(1);
      expect(lines(outcome).next).toContain('--expect');
    }
  });
});

describe('scan', () => {
  const loaded = async (): Promise<FakeCluster> => {
    const cluster = new FakeCluster({ splits: ['c', 'e'] });
    for (const key of ['a', 'b', 'c', 'd', 'e', 'f']) {
      await runOn(cluster, ['put', key, key.toUpperCase()]);
    }
    return cluster;
  };

  test('prints a range over regions in order, END excluded', async () => {
    const cluster = await loaded();
    expect((await runOn(cluster, ['scan', 'b', 'e'])).stdout).toBe('KEY   VALUE\nb     B\nc     C\nd     D\n');
    expect((await runOn(cluster, ['scan', 'b', 'e', '--no-headers'])).stdout).toBe('b   B\nc   C\nd   D\n');
    expect((await runOn(cluster, ['scan', '--reverse', '--limit', '2', '-o', 'raw'])).stdout).toBe('f\tF\ne\tE\n');
    expect((await runOn(cluster, ['scan', '--prefix', 'd', '--keys-only', '-o', 'jsonl'])).stdout).toBe(
      '{"key":"d"}\n',
    );
    expect((await runOn(cluster, ['scan', 'e', '-o', 'name'])).stdout).toBe('e\nf\n');
  });

  test('writes valid documents while it reads', async () => {
    const cluster = await loaded();
    const items = [
      { key: 'e', value: 'E', encoding: 'utf8' },
      { key: 'f', value: 'F', encoding: 'utf8' },
    ];
    const expected = { apiVersion: 'braid/v1', kind: 'EntryList', items };
    expect(JSON.parse((await runOn(cluster, ['scan', 'e', '--page-size', '1', '-o', 'json'])).stdout)).toEqual(
      expected,
    );
    expect(parse((await runOn(cluster, ['scan', 'e', '--page-size', '1', '-o', 'yaml'])).stdout)).toEqual(expected);
  });

  test('an empty result is an empty list and exit code 0', async () => {
    const cluster = new FakeCluster();
    expect(await runOn(cluster, ['scan'])).toMatchObject({
      code: 0,
      stdout: 'KEY   VALUE\n',
      stderr: 'no entries in the range\n',
    });
    expect(JSON.parse((await runOn(cluster, ['scan', '-o', 'json'])).stdout)).toMatchObject({ items: [] });
  });

  test('a reader that goes away ends the scan without an error', async () => {
    const cluster = await loaded();
    const errors: string[] = [];
    const code = await cluster.clock.drive(
      runCli(
        ['scan', '-o', 'raw'],
        {
          env: {},
          stdout: { isTerminal: false, columns: 0, write: () => Promise.reject(new ReaderGoneError()) },
          stderr: {
            isTerminal: false,
            columns: 0,
            write: (text) => {
              errors.push(String(text));
              return Promise.resolve();
            },
          },
          stdin: (async function* () {})(),
          isStdinTerminal: false,
          signal: new AbortController().signal,
        },
        connectorOf(cluster.env, 'pd:1'),
        [],
      ),
    );
    expect([code, errors]).toEqual([0, []]);
  });
});

describe('ttl', () => {
  test('tells how long an entry lives on', async () => {
    const cluster = new FakeCluster();
    await runOn(cluster, ['put', 'k', 'v', '--ttl', '90s']);
    expect((await runOn(cluster, ['ttl', 'k', '-o', 'raw'])).stdout).toBe('90000\n');
    expect((await runOn(cluster, ['ttl', 'k'])).stdout).toBe('FIELD   VALUE\nkey     k\nttl     1m30s\n');
    await runOn(cluster, ['put', 'k', 'v']);
    expect(JSON.parse((await runOn(cluster, ['ttl', 'k', '-o', 'json'])).stdout)).toMatchObject({ expires: false });
    expect((await runOn(cluster, ['ttl', 'absent'])).code).toBe(5);
  });
});

describe('bad input', () => {
  const KEY_8_KIB_AND_1 = 'k'.repeat(8193);

  test.each([
    [['gte', 'k'], /unknown command 'gte'/, /Did you mean get\?/],
    [['ctl', 'regoin', 'list'], /unknown command 'regoin'/, /Did you mean region\?/],
    [['get', 'k', '--timout', '1s'], /unknown option '--timout'/, /Did you mean --timeout\?/],
    [['get'], /missing required argument 'key'/, /braid get --help/],
    [['get', 'a', 'b'], /too many arguments/, /braid get --help/],
    [['get', 'k', '-o', 'jsno'], /Did you mean json\?/, /--help/],
    [['get', 'k', '--timeout', '10'], /unit/, /--help/],
    [['scan', '--limit', '0'], /whole number from 1/, /--help/],
    [['scan', '--limit', '1e3'], /whole number from 1/, /--help/],
    [['put', 'k', 'v', '--ttl', 'soon'], /duration/, /--help/],
    [['ctl', 'region', 'move', '2', '--from', '1'], /--to/, /--help/],
  ])('%j is refused as a whole', async (args, error, next) => {
    const outcome = await runAlone(args);
    expect(outcome).toMatchObject({ code: 1, stdout: '' });
    const said = lines(outcome);
    expect(said.error).toMatch(error);
    expect(said.next).toMatch(next);
  });

  test.each([
    [['get', ''], /empty/],
    [['put', KEY_8_KIB_AND_1, 'v'], /8193 bytes, at most 8192/],
    [['get', KEY_8_KIB_AND_1], /8193 bytes, at most 8192/],
    [['scan', KEY_8_KIB_AND_1], /8193 bytes/],
    [['scan', 'b', 'a'], /reversed/],
    [['scan', 'a', 'a'], /empty/],
    [['scan', 'a', '--prefix', 'b'], /exclude each other/],
    [['get', String.raw`a\y`], /backslash/],
    [['get', 'xyz', '--key-format', 'hex'], /hexadecimal/],
    [['ctl', 'region', 'show', 'seven'], /not a region id/],
    [['ctl', 'store', 'show', '0'], /not a store id/],
    [['ctl', 'region', 'split', '2', '--key', ''], /empty/],
    [['ctl', 'region', 'merge', '4', '2', '--wait', '--detach'], /exclude each other/],
    [['ctl', 'region', 'merge', '4', '2', '--expect-epoch', '3'], /not an epoch/],
    [['bench', 'run', 'puts'], /no workload "puts"/],
    [['bench', 'compare', '/nonexistent/a.json', '/nonexistent/b.json'], /no such file/],
    [['import', 'x.tsv'], /which column is the key/],
    [['import', '/nonexistent/a.tsv', '--key-column', 'k'], /no such file/],
    [['import', 'a.txt', '--key-column', 'k'], /format/],
    [['ctl', 'explain', 'code', 'Undetermined'], /no error code/],
  ])('%j is explained before anything is sent', async (args, why) => {
    const outcome = await runAlone(args);
    expect(outcome).toMatchObject({ code: 1, stdout: '' });
    expect(lines(outcome).why).toMatch(why);
  });

  test('a value over 8 MiB is refused and nothing is stored', async () => {
    const cluster = new FakeCluster();
    const outcome = await runOn(cluster, ['put', 'k', '-'], { stdin: new Uint8Array(8 * 1024 * 1024 + 1) });
    expect(outcome.code).toBe(1);
    expect(lines(outcome).why).toContain('EntryTooLarge');
    expect(cluster.get('k')).toBeUndefined();
  });

  test('a cluster that does not answer is named with the way out', async () => {
    const cluster = new FakeCluster();
    cluster.net.setReach('pd:1', 'down');
    const outcome = await runOn(cluster, ['get', 'k']);
    expect(outcome.code).toBe(1);
    expect(lines(outcome).why).toContain('Unavailable');
  });

  test('a deadline is exit code 4, also of a write whose outcome is unknown', async () => {
    const cluster = new FakeCluster();
    await runOn(cluster, ['put', 'k', '1']);
    cluster.interfere = () => 'ignore';
    const read = await runOn(cluster, ['get', 'k', '--timeout', '2s']);
    expect(read.code).toBe(4);
    cluster.interfere = () => 'serve-and-break';
    const written = await runOn(cluster, ['put', 'k', '2', '--timeout', '2s']);
    expect(written.code).toBe(4);
    expect(lines(written).next).toMatch(/read/);
  });

  test('Ctrl-C is exit code 130', async () => {
    const cluster = new FakeCluster();
    const controller = new AbortController();
    cluster.interfere = () => {
      controller.abort(new Error('interrupted'));
      return 'ignore';
    };
    expect((await runOn(cluster, ['get', 'k'], { signal: controller.signal })).code).toBe(130);
  });
});

describe('flags and environment', () => {
  test('a flag wins over its twin, the twin over the default', async () => {
    const env = { BRAID_OUTPUT: 'json' };
    expect((await runAlone(['version', '-o', 'yaml'], { env })).stdout).toContain('apiVersion: braid/v1');
    // Commander reads twins from the process itself.
    process.env['BRAID_OUTPUT'] = 'json';
    try {
      expect(JSON.parse((await runAlone(['version'])).stdout)).toMatchObject({ kind: 'Version' });
    } finally {
      delete process.env['BRAID_OUTPUT'];
    }
  });

  test('common flags may stand before the command', async () => {
    expect(JSON.parse((await runAlone(['-o', 'json', 'version'])).stdout)).toMatchObject({ kind: 'Version' });
    expect(hoistLeadingFlags(['--pd', 'x:1', '-q', 'put', 'k', '--', '-v'])).toEqual([
      'put',
      'k',
      '--pd',
      'x:1',
      '-q',
      '--',
      '-v',
    ]);
    expect(hoistLeadingFlags(['--pd=x:1', 'get', 'k'])).toEqual(['get', 'k', '--pd=x:1']);
    expect(hoistLeadingFlags(['--version'])).toEqual(['--version']);
  });
});

describe('help', () => {
  test('is on stdout with exit code 0 when asked for, on stderr with 1 when a word is missing', async () => {
    const asked = await runAlone(['--help']);
    expect(asked).toMatchObject({ code: 0, stderr: '' });
    expect(asked.stdout).toContain('Usage: braid');
    const missing = await runAlone(['ctl']);
    expect(missing).toMatchObject({ code: 1, stdout: '' });
    expect(missing.stderr).toContain('Usage: braid ctl');
  });

  test.each([
    ['get'],
    ['put'],
    ['del'],
    ['cas'],
    ['scan'],
    ['ttl'],
    ['import'],
    ['version'],
    ['ctl', 'status'],
    ['ctl', 'events'],
    ['ctl', 'store', 'list'],
    ['ctl', 'store', 'show'],
    ['ctl', 'region', 'list'],
    ['ctl', 'region', 'show'],
    ['ctl', 'region', 'locate'],
    ['ctl', 'region', 'split'],
    ['ctl', 'region', 'merge'],
    ['ctl', 'region', 'move'],
    ['ctl', 'region', 'transfer-leader'],
    ['ctl', 'operator', 'list'],
    ['ctl', 'operator', 'show'],
    ['ctl', 'operator', 'cancel'],
    ['ctl', 'explain', 'merge'],
    ['ctl', 'explain', 'code'],
    ['ctl', 'rule', 'list'],
    ['ctl', 'rule', 'get'],
    ['ctl', 'rule', 'set'],
    ['ctl', 'rule', 'delete'],
    ['ctl', 'switch', 'list'],
    ['ctl', 'switch', 'on'],
    ['bench', 'run'],
    ['bench', 'compare'],
  ])('of %s has two examples and every common flag', async (...path) => {
    const { code, stdout } = await runAlone([...path, '--help']);
    expect(code).toBe(0);
    const examples = stdout.split('Examples:\n')[1] ?? '';
    const shown = examples
      .split('\n')
      .filter((line) => line.startsWith(`  braid ${path.join(' ')}`) || line.includes(' braid '));
    expect(shown.length).toBeGreaterThanOrEqual(2);
    for (const name of ['--pd', '--output', '--timeout', '--key-format', '--no-headers', '--quiet']) {
      expect(stdout).toContain(name);
    }
  });

  test('--version and version agree', async () => {
    const { stdout } = await runAlone(['--version']);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expect((await runAlone(['version'])).stdout).toContain(stdout.trim());
  });
});
