import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadPdConfig, loadStoreConfig, stripScheme } from '../../../src/server/config.ts';
import { configFile, configSample } from '../../../src/server/config-sample.ts';
import {
  ConfigError,
  DEFAULT_PD_PROCESS_CONFIG,
  DEFAULT_STORE_CONFIG,
  isAddress,
  parseLabel,
  settingName,
  SETTINGS,
  settingVariable,
} from '../../../src/server/settings.ts';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'braid-config-'));
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

function file(text: string): string {
  const path = join(directory, 'c.toml');
  writeFileSync(path, text);
  return path;
}

function refusal(run: () => unknown): { readonly message: string; readonly hint: string | undefined } {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError) {
      return { message: error.message.replaceAll(directory, ''), hint: error.hint };
    }
    throw error;
  }
  throw new Error('the configuration was accepted');
}

describe('precedence', () => {
  test('without sources every value is the default', () => {
    expect(loadStoreConfig({}).config).toEqual(DEFAULT_STORE_CONFIG);
    expect(loadPdConfig({}).config).toEqual(DEFAULT_PD_PROCESS_CONFIG);
  });

  test('a flag wins over the environment, it over the file, it over the default', () => {
    const path = file(
      '[raftstore]\ntick = "1s"\nleader-lease = "2s"\nmailbox-limit = 7\n[server]\naddr = "127.0.0.1:1"\n',
    );
    const env = { BRAID_RAFTSTORE__TICK: '2s', BRAID_SERVER__ADDR: '127.0.0.1:2' };
    const { config, origins } = loadStoreConfig({
      file: path,
      env,
      flags: { 'server.addr': '127.0.0.1:3', 'server.pd': undefined },
    });
    expect(config.raftstore).toMatchObject({ tickMs: 2000, leaderLeaseMs: 2000, mailboxLimit: 7, electionTicks: 10 });
    expect(config.server.addr).toBe('127.0.0.1:3');
    expect([...origins].filter(([, origin]) => origin !== 'default')).toEqual([
      ['server.addr', 'flag'],
      ['raftstore.tick', 'environment'],
      ['raftstore.leader-lease', 'file'],
      ['raftstore.mailbox-limit', 'file'],
    ]);
  });

  test('variables of the other role, of flags and of other programs are not looked at', () => {
    const env = { BRAID_PLACEMENT__MAX_REPLICAS: '5', BRAID_PD: 'x', PATH: '/bin', BRAID_RAFTSTORE__TICK: undefined };
    expect(loadStoreConfig({ env }).config).toEqual(DEFAULT_STORE_CONFIG);
    expect(loadPdConfig({ env }).config.placement.maxReplicas).toBe(5);
  });
});

describe('values', () => {
  test('durations, sizes, numbers, lists and switches are read from text and from TOML', () => {
    const path = file(
      '[raftstore]\nsplit-check = "1m"\nregion-max-size = "1GiB"\nregion-split-size = 1048576\n[storage]\nenable-ttl = false\n[server]\nlabels = ["zone=a", "host=h1"]\npd = ["a:1"]\n',
    );
    const { config } = loadStoreConfig({
      file: path,
      env: { BRAID_STORAGE__BLOCK_CACHE: '32MiB', BRAID_SERVER__PD: 'b:1, c:2' },
    });
    expect(config.raftstore).toMatchObject({
      splitCheckMs: 60_000,
      regionMaxSizeBytes: 2 ** 30,
      regionSplitSizeBytes: 2 ** 20,
    });
    expect(config.storage).toEqual({ enableTtl: false, blockCacheBytes: 32 * 2 ** 20, capacityBytes: 0 });
    expect(config.server).toMatchObject({ labels: ['zone=a', 'host=h1'], pd: ['b:1', 'c:2'] });
    expect(loadPdConfig({ flags: { 'placement.low-space-ratio': '0.5' } }).config.placement.lowSpaceRatio).toBe(0.5);
  });

  test.each([
    [
      'tick = 100',
      ':2: raftstore.tick must be a duration with its unit, such as "250ms", "10s" or "5m", up to 24 days, not 100',
    ],
    ['tick = "0s"', ':2: raftstore.tick must be longer than 0, not "0s"'],
    ['mailbox-limit = 1.5', ':2: raftstore.mailbox-limit must be a whole number, not 1.5'],
    ['mailbox-limit = 0', ':2: raftstore.mailbox-limit must be larger than 0, not 0'],
    [
      'region-max-size = "96MB/s"',
      ':2: raftstore.region-max-size must be a size with its unit, such as "512KiB" or "8MiB", not "96MB/s"',
    ],
  ])('[raftstore] %s is refused', (line, message) => {
    expect(refusal(() => loadStoreConfig({ file: file(`[raftstore]\n${line}\n`) })).message).toBe(`/c.toml${message}`);
  });

  test('0 is accepted where it has a meaning', () => {
    const { config } = loadStoreConfig({ flags: { 'raftstore.consistency-check': 0, 'server.graceful-stop': '0' } });
    expect(config.raftstore.consistencyCheckMs).toBe(0);
    expect(config.server.gracefulStopMs).toBe(0);
  });

  test('broken relations between settings are refused', () => {
    expect(refusal(() => loadStoreConfig({ flags: { 'raftstore.leader-lease': '5s' } }))).toEqual({
      message: 'leaderLeaseMs must not exceed the election timeout minus one tick',
      hint: 'change leaderLeaseMs or the setting it is compared with',
    });
    expect(refusal(() => loadPdConfig({ flags: { 'placement.store-down': '1s' } })).message).toBe(
      'storeDownMs must be larger than storeDisconnectedMs',
    );
  });

  test('half of the certificates, and schemes that contradict them, are refused', () => {
    const all = { 'tls.ca': 'ca.pem', 'tls.cert': 'c.pem', 'tls.key': 'k.pem' };
    expect(loadStoreConfig({ flags: { ...all, 'server.pd': 'https://a:1' } }).config.tls).toEqual({
      ca: 'ca.pem',
      cert: 'c.pem',
      key: 'k.pem',
    });
    for (const load of [loadStoreConfig, loadPdConfig]) {
      expect(refusal(() => load({ flags: { ...all, 'tls.key': '' } }))).toEqual({
        message: 'tls.key is missing: ca, cert and key belong together',
        hint: 'give --tls-key, too, or none of the three for plain text',
      });
    }
    expect(refusal(() => loadStoreConfig({ flags: { 'server.pd': 'a:1,https://b:1' } })).message).toBe(
      'server.pd contains https://b:1, but there are no certificates',
    );
    expect(refusal(() => loadStoreConfig({ flags: { ...all, 'server.pd': 'http://b:1' } })).hint).toBe(
      'write https:// or host:port',
    );
    expect(refusal(() => loadPdConfig({ flags: { 'pd.join': 'https://b:1' } })).message).toContain('pd.join');
    expect(refusal(() => loadPdConfig({ flags: { 'pd.initial-cluster': 'pd=https://b:1' } })).message).toContain(
      'pd.initial-cluster contains https://b:1',
    );
  });

  test('addresses nobody can dial, bad labels and bad endpoints are refused', () => {
    expect(refusal(() => loadStoreConfig({ flags: { 'server.addr': '0.0.0.0:1' } })).hint).toContain(
      '--advertise-addr',
    );
    expect(
      loadStoreConfig({ flags: { 'server.addr': '0.0.0.0:1', 'server.advertise-addr': 'h:1' } }).config.server.addr,
    ).toBe('0.0.0.0:1');
    expect(refusal(() => loadStoreConfig({ flags: { 'server.labels': 'zone' } })).message).toBe(
      'server.labels contains "zone"',
    );
    expect(refusal(() => loadStoreConfig({ flags: { 'server.pd': 'host' } })).message).toBe(
      'server.pd contains "host", which is no address',
    );
    expect(refusal(() => loadStoreConfig({ flags: { 'server.pd': '' } })).message).toBe(
      'server.pd names no placement service',
    );
    expect(refusal(() => loadStoreConfig({ flags: { 'server.addr': 'nohost' } })).message).toContain(
      'must be an address, host:port',
    );
    expect(refusal(() => loadStoreConfig({ flags: { 'log.level': 'loud' } })).message).toContain(
      'must be one of debug, info, warn, error, silent',
    );
  });

  test('what an address is', () => {
    expect(['h:1', '127.0.0.1:65535', '[::1]:20160', 'a.b-c:0'].filter(isAddress)).toHaveLength(4);
    expect(['h', ':1', 'h:65536', 'http://h:1', 'h:1/', 'a b:1', '::1:5'].filter(isAddress)).toEqual([]);
    expect(stripScheme('http://h:1/')).toBe('h:1');
    expect(parseLabel('zone=a')).toEqual({ key: 'zone', value: 'a' });
    expect(parseLabel('zone=a=b')).toBeUndefined();
  });
});

describe('what is not known', () => {
  test('a key is refused with its line and the closest one', () => {
    expect(refusal(() => loadStoreConfig({ file: file('# x\n[server]\n\n[raftstore]\nsplit-chek = "1s"\n') }))).toEqual(
      {
        message: '/c.toml:5: unknown key raftstore.split-chek',
        hint: 'did you mean raftstore.split-check?',
      },
    );
  });

  test('a key of another section is named with that section', () => {
    expect(refusal(() => loadStoreConfig({ file: file('[server]\nenable-ttl = true\n') })).hint).toBe(
      'did you mean storage.enable-ttl?',
    );
  });

  test('a dotted key has a line, too', () => {
    expect(refusal(() => loadStoreConfig({ file: file('raftstore.tick = "1s"\nraftstore.tok = 1\n') })).message).toBe(
      '/c.toml:2: unknown key raftstore.tok',
    );
  });

  test('a key outside all sections, a misspelt section and a section of the other role are refused', () => {
    expect(refusal(() => loadStoreConfig({ file: file('addr = "h:1"\n') }))).toEqual({
      message: '/c.toml:1: unknown key addr',
      hint: expect.stringContaining('server.addr') as string,
    });
    expect(refusal(() => loadStoreConfig({ file: file('[raftstor]\n') }))).toEqual({
      message: '/c.toml:1: unknown section [raftstor]',
      hint: 'did you mean [raftstore]?',
    });
    expect(refusal(() => loadStoreConfig({ file: file('[placement]\nmax-replicas = 3\n') })).message).toBe(
      '/c.toml:1: the section [placement] belongs into the file of "braid pd"',
    );
  });

  test('a variable and a flag are refused', () => {
    expect(refusal(() => loadStoreConfig({ env: { BRAID_RAFTSTORE__MAILBOXLIMIT: '1' } }))).toEqual({
      message: 'the environment variable BRAID_RAFTSTORE__MAILBOXLIMIT names no setting',
      hint: 'did you mean BRAID_RAFTSTORE__MAILBOX_LIMIT?',
    });
    expect(refusal(() => loadPdConfig({ flags: { 'pd.adr': 'h:1' } })).message).toBe('--set: unknown key pd.adr');
  });

  test('a broken file names its line, a missing one its path', () => {
    expect(refusal(() => loadStoreConfig({ file: file('[server]\naddr = \n') })).message).toMatch(/^\/c\.toml:2:\d+: /);
    expect(refusal(() => loadStoreConfig({ file: join(directory, 'none.toml') })).message).toContain('/none.toml');
  });
});

describe('samples', () => {
  test('every key of a sample has its default, a meaning and a variable, and loading it changes nothing', () => {
    for (const role of ['store', 'pd'] as const) {
      const sample = configSample(role);
      const load = role === 'store' ? loadStoreConfig : loadPdConfig;
      expect(load({ file: file(sample) }).config).toEqual(load({}).config);
      for (const setting of SETTINGS[role]) {
        expect(setting.description, settingName(setting)).toMatch(/^\S.{8,}[.]$/);
        expect(sample).toContain(`# Environment: ${settingVariable(setting)}\n${setting.key} = `);
      }
      expect(new Set(SETTINGS[role].map(settingVariable)).size).toBe(SETTINGS[role].length);
    }
  });

  test('every property of the configuration has a key', () => {
    const properties = (config: object): string[] =>
      Object.entries(config).flatMap(([section, content]) =>
        Object.keys(content as object).map((property) => `${section}.${property}`),
      );
    expect(SETTINGS.store.map((s) => `${s.section}.${s.property}`).sort()).toEqual(
      properties(DEFAULT_STORE_CONFIG).sort(),
    );
    expect(SETTINGS.pd.map((s) => `${s.section}.${s.property}`).sort()).toEqual(
      properties(DEFAULT_PD_PROCESS_CONFIG).sort(),
    );
  });

  test('a file with some values is read back', () => {
    const text = configFile('store', {
      'server.graceful-stop': 1500,
      'raftstore.region-max-size': 3 * 2 ** 20,
      'server.labels': ['zone=a'],
    });
    expect(text).toBe(
      '[server]\nlabels = ["zone=a"]\ngraceful-stop = "1500ms"\n\n[raftstore]\nregion-max-size = "3MiB"\n',
    );
    // The part size must shrink with it.
    expect(refusal(() => loadStoreConfig({ file: file(text) })).message).toContain('regionSplitSizeBytes');
  });

  test('docs/config.md contains both samples as they are', () => {
    const page = readFileSync(new URL('../../../docs/config.md', import.meta.url), 'utf8');
    expect(page).toContain(`\`\`\`toml\n${configSample('store')}\`\`\``);
    expect(page).toContain(`\`\`\`toml\n${configSample('pd')}\`\`\``);
  });
});
