import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { contextsPath, targetOf } from '../../../src/cli/contexts.ts';
import type { Connector, ConnectorOptions } from '../../../src/cli/session.ts';
import { type RunOutcome, runAlone, runWith } from './harness.ts';

let directory: string;
let file: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'braid-contexts-'));
  file = join(directory, 'deep', 'contexts.yaml');
});

afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

const context = (...args: readonly string[]): Promise<RunOutcome> =>
  runAlone(['ctl', 'context', ...args], { env: { BRAID_CONTEXTS: file } });

/** What a command asks to be connected with; how it ended if it did not come so far. */
async function connecting(...args: readonly string[]): Promise<ConnectorOptions | RunOutcome> {
  let asked: ConnectorOptions | undefined;
  const connector: Connector = {
    data: () => Promise.reject(new Error('unused')),
    admin: (options) => {
      asked = options;
      return Promise.reject(new Error('far enough'));
    },
  };
  const ended = await runWith(connector, ['ctl', 'store', 'list', ...args], { env: { BRAID_CONTEXTS: file } });
  return asked ?? ended;
}

/** The endpoints that a command asks to be connected to. */
async function dialed(...args: readonly string[]): Promise<readonly string[] | RunOutcome> {
  const found = await connecting(...args);
  return 'pd' in found ? found.pd : found;
}

describe('contexts', () => {
  test('are added, listed, used, shown, changed and removed', async () => {
    expect((await context('list', '-o', 'json')).stdout).toContain('"items": []');
    expect((await context('add', 'production', '--pd', '10.0.0.1:2379,http://10.0.0.2:2379')).code).toBe(0);
    expect((await context('add', 'test', '--pd', '127.0.0.1:1')).code).toBe(0);
    expect((await context('list')).stdout).toBe(
      'CURRENT   NAME         PD\n*         production   10.0.0.1:2379,10.0.0.2:2379\n-         test         127.0.0.1:1\n',
    );
    expect((await context('use', 'test', '-o', 'name')).stdout).toBe('test\n');
    expect(JSON.parse((await context('show', '-o', 'json')).stdout)).toMatchObject({
      kind: 'Context',
      name: 'test',
      pd: ['127.0.0.1:1'],
      from: 'context test',
    });
    expect((await context('add', 'test', '--pd', '127.0.0.1:2')).stderr).toContain('already');
    expect((await context('add', 'test', '--pd', '127.0.0.1:2', '--replace')).code).toBe(0);
    expect(JSON.parse((await context('show', 'test', '-o', 'json')).stdout)).toMatchObject({ pd: ['127.0.0.1:2'] });
    expect((await context('remove', 'test')).code).toBe(0);
    expect((await context('list', '-o', 'name')).stdout).toBe('production\n');
    // There is no current one any more.
    expect(JSON.parse((await context('show', '-o', 'json')).stdout)).toMatchObject({ name: null, from: 'default' });
    expect(statSync(file).mode & 0o077).toBe(0);
    expect(readdirSync(join(directory, 'deep'))).toEqual(['contexts.yaml']);
  });

  test('decide where commands go, unless something nearer does', async () => {
    expect(await dialed()).toEqual(['127.0.0.1:2379']);
    await context('add', 'a', '--pd', 'a:1');
    await context('add', 'b', '--pd', 'b:1,b:2');
    expect(await dialed()).toEqual(['a:1']);
    expect(await dialed('--context', 'b')).toEqual(['b:1', 'b:2']);
    expect(await dialed('--pd', 'c:1')).toEqual(['c:1']);
    expect(await dialed('--pd', 'c:1', '--context', 'b')).toMatchObject({ code: 1 });
    expect(await dialed('--context', 'bb')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('did you mean b?'),
    });
    // Flags may stand before the command.
    const ended = await runAlone(['--context', 'nobody', 'ctl', 'status'], { env: { BRAID_CONTEXTS: file } });
    expect(ended.stderr).toContain('there is no context "nobody"');
  });

  test('keep the paths of certificates, which flags replace one by one', async () => {
    const [ca, cert, key, other] = ['ca.pem', 'cert.pem', 'key.pem', 'other.pem'].map((name) => {
      const path = join(directory, name);
      writeFileSync(path, 'not looked at before somebody connects');
      return path;
    }) as [string, string, string, string];
    const files = ['--tls-ca', relative(process.cwd(), ca), '--tls-cert', cert, '--tls-key', key];
    expect((await context('add', 'secret', '--pd', 'https://s:1', ...files)).stderr).toBe('');
    expect(await connecting()).toMatchObject({ pd: ['s:1'], tls: { ca, cert, key } });
    expect(await connecting('--tls-ca', other)).toMatchObject({ tls: { ca: other, cert, key } });
    // They belong to the endpoints of the context.
    expect(await connecting('--pd', 'open:1')).toMatchObject({ pd: ['open:1'], tls: undefined });
    expect(await connecting('--pd', 'open:1', ...files)).toMatchObject({ tls: { ca, cert, key } });
    expect(JSON.parse((await context('show', 'secret', '-o', 'json')).stdout)).toMatchObject({
      tls: { ca, cert, key },
    });
    expect((await context('list', '-o', 'wide')).stdout).toContain(cert);
    expect((await context('remove', 'secret')).code).toBe(0);
    expect((await context('add', 'open', '--pd', 'https://s:1')).stderr).toMatch(
      /asks for TLS, but there are no certificates \(InvalidArgument\)\nnext: .*--tls-ca/,
    );
    expect((await context('add', 'open', '--pd', 'http://s:1', ...files)).stderr).toContain('asks for plain text');
    expect((await context('add', 'open', '--pd', 's:1', '--tls-cert', cert)).stderr).toContain('without --tls-ca');
    const missing = await context('add', 'open', '--pd', 's:1', '--tls-ca', join(directory, 'nothing.pem'));
    expect(missing.stderr).toMatch(/^error: .*\nwhy: {3}.*nothing.pem cannot be read \(InputFile\)\nnext: .*\n$/);
    expect((await context('list', '-o', 'name')).stdout).toBe('');
  });

  test.each([
    ['flag', 'flag', undefined],
    ['flag', 'variable', '--pd'],
    ['variable', 'flag', 'context b'],
    ['variable', 'variable', 'BRAID_PD'],
    ['default', 'variable', 'context b'],
    ['default', 'default', 'context a'],
  ] as const)('with --pd from %s and --context from %s it is %s', async (pdSource, contextSource, from) => {
    await context('add', 'a', '--pd', 'a:1');
    await context('add', 'b', '--pd', 'b:1');
    const target = targetOf({ pd: 'p:1', pdSource, context: 'b', contextSource }, { BRAID_CONTEXTS: file });
    if (from === undefined) {
      await expect(target).rejects.toThrow('exclude each other');
    } else {
      expect((await target).from).toBe(from);
    }
  });

  test('are offered by the completion', async () => {
    await context('add', 'production', '--pd', 'a:1');
    const complete = async (...words: readonly string[]): Promise<string> =>
      (await runAlone(['__complete', '--', ...words], { env: { BRAID_CONTEXTS: file } })).stdout;
    expect(await complete('ctl', 'context', 'use', '')).toBe('production\n');
    expect(await complete('ctl', 'store', 'list', '--context', 'pro')).toBe('production\n');
    expect(await complete('ctl', 'context', 'add', '')).toBe('');
  });

  test.each([
    [['add', 'no/slash', '--pd', 'a:1'], 'is not a name for a context'],
    [['add', 'x'], 'add --pd'],
    [['add', 'x', '--pd', 'nonsense'], 'is not an endpoint'],
    [['use', 'nobody'], 'there is no context'],
    [['remove', 'nobody'], 'there is no context'],
    [['show', 'nobody'], 'there is no context'],
  ])('%j is refused and nothing is written', async (args, why) => {
    const { code, stdout, stderr } = await context(...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toContain(why);
    expect(stderr.split('\n')).toHaveLength(4);
    expect(readdirSync(directory)).toEqual([]);
  });
});

describe('the file', () => {
  test.each([
    ['current: a\n', 'contexts must have fields'],
    ['contexts:\n  a: {pd: [x:1]}\ncurrent: b\n', 'current names "b", which is no context'],
    ['contexts:\n  a: {pd: []}\n', 'contexts.a.pd must list at least one endpoint'],
    ['contexts:\n  a: {pd: [x:1], user: me}\n', 'contexts.a.user is not known here; fields are pd'],
    ['contexts: {}\nusers: {}\n', 'users is not known here; fields are current, contexts'],
    ['contexts:\n  a: [\n', 'contexts.yaml:'],
    ['contexts:\n  a: {pd: [nonsense]}\n', 'is not an endpoint'],
  ])('%j is refused with its reason, and stays as it is', async (text, why) => {
    file = join(directory, 'contexts.yaml');
    writeFileSync(file, text);
    for (const args of [['list'], ['add', 'x', '--pd', 'x:1']]) {
      const { code, stderr } = await context(...args);
      expect(code).toBe(1);
      expect(stderr).toContain(why);
      expect(stderr).toContain(file);
    }
    expect(readFileSync(file, 'utf8')).toBe(text);
  });

  test('is found by the variable, then in the configuration of the user, then at home', () => {
    expect(contextsPath({ BRAID_CONTEXTS: '/x', XDG_CONFIG_HOME: '/c', HOME: '/h' })).toBe('/x');
    expect(contextsPath({ XDG_CONFIG_HOME: '/c', HOME: '/h' })).toBe('/c/braid/contexts.yaml');
    expect(contextsPath({ HOME: '/h' })).toBe('/h/.config/braid/contexts.yaml');
    expect(contextsPath({})).toBeUndefined();
  });

  test('that can have no place is said so', async () => {
    const ended = await runAlone(['ctl', 'context', 'add', 'x', '--pd', 'x:1']);
    expect([ended.code, ended.stderr]).toEqual([1, expect.stringContaining('BRAID_CONTEXTS')]);
  });
});
