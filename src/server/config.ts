/**
 * Reads the configuration of a process: flags over environment over file over defaults. The only importer of
 * `smol-toml`. An unknown key is an error that names the closest known one, and so is a value that makes no sense.
 */
import { readFileSync } from 'node:fs';
import { parse as parseToml, TomlError } from 'smol-toml';
import { closestName } from '../client/options.ts';
import { checkPlacementConfig } from '../pd/defaults.ts';
import { checkGroupConfig } from '../pd/group/config.ts';
import { checkRaftstoreConfig } from '../raftstore/config.ts';
import {
  ConfigError,
  isAddress,
  parseLabel,
  parseSetting,
  type PdProcessConfig,
  type Role,
  type Setting,
  settingName,
  SETTINGS,
  settingVariable,
  type StoreProcessConfig,
  type TlsSettings,
} from './settings.ts';

export type Origin = 'default' | 'file' | 'environment' | 'flag';

export interface ConfigSources {
  /** Path of the TOML file. */
  readonly file?: string | undefined;
  /** Variables `BRAID_<SECTION>__<KEY>`; other variables are not looked at. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Values by `section.key`; undefined ones are skipped. */
  readonly flags?: Readonly<Record<string, unknown>>;
}

export interface LoadedConfig<T> {
  readonly config: T;
  /** Where the value of each `section.key` comes from. */
  readonly origins: ReadonlyMap<string, Origin>;
}

interface Value {
  readonly value: unknown;
  readonly origin: Origin;
}

/** @throws ConfigError */
export function loadStoreConfig(sources: ConfigSources): LoadedConfig<StoreProcessConfig> {
  const loaded = load<StoreProcessConfig>('store', sources);
  checkStoreConfig(loaded.config);
  return loaded;
}

/** @throws ConfigError */
export function loadPdConfig(sources: ConfigSources): LoadedConfig<PdProcessConfig> {
  const loaded = load<PdProcessConfig>('pd', sources);
  const { config } = loaded;
  refuseProblem(checkPlacementConfig(config.placement));
  refuseProblem(checkGroupConfig(config.group));
  refuseWildcard('pd', config.pd.addr, config.pd.advertiseAddr);
  checkTls(config.tls);
  checkScheme('pd.join', config.pd.join, config.tls);
  checkScheme(
    'pd.initial-cluster',
    config.pd.initialCluster.map((member) => member.slice(member.indexOf('=') + 1)),
    config.tls,
  );
  return loaded;
}

function checkStoreConfig(config: StoreProcessConfig): void {
  const { server, raftstore } = config;
  refuseProblem(checkRaftstoreConfig(raftstore));
  refuseWildcard('server', server.addr, server.advertiseAddr);
  if (server.pd.length === 0) {
    throw new ConfigError(
      'server.pd names no placement service',
      'name at least one endpoint, for example --pd 127.0.0.1:2379',
    );
  }
  for (const endpoint of server.pd) {
    if (!isAddress(stripScheme(endpoint))) {
      throw new ConfigError(
        `server.pd contains "${endpoint}", which is no address`,
        'write endpoints as host:port, for example 127.0.0.1:2379',
      );
    }
  }
  checkTls(config.tls);
  checkScheme('server.pd', server.pd, config.tls);
  for (const label of server.labels) {
    if (parseLabel(label) === undefined) {
      throw new ConfigError(
        `server.labels contains "${label}"`,
        'write labels as key=value, for example --labels zone=a,host=h1',
      );
    }
  }
}

/** A process with half of its certificates would serve nobody, or everybody. */
function checkTls({ ca, cert, key }: TlsSettings): void {
  const missing = Object.entries({ ca, cert, key }).filter(([, path]) => path === '');
  if (missing.length > 0 && missing.length < 3) {
    const names = missing.map(([name]) => `tls.${name}`);
    throw new ConfigError(
      `${names.join(' and ')} ${names.length === 1 ? 'is' : 'are'} missing: ca, cert and key belong together`,
      `give ${missing.map(([name]) => `--tls-${name}`).join(' and ')}, too, or none of the three for plain text`,
    );
  }
}

/** A scheme that contradicts the certificates is a mistake, not a wish. */
function checkScheme(name: string, endpoints: readonly string[], tls: TlsSettings): void {
  const wrong = endpoints.find((endpoint) => endpoint.trim().startsWith(tls.ca === '' ? 'https://' : 'http://'));
  if (wrong !== undefined) {
    throw new ConfigError(
      tls.ca === ''
        ? `${name} contains ${wrong}, but there are no certificates`
        : `${name} contains ${wrong}, but with certificates nobody is dialed in plain text`,
      tls.ca === ''
        ? 'give --tls-ca, --tls-cert and --tls-key, or write http:// or host:port'
        : 'write https:// or host:port',
    );
  }
}

/** Endpoints may be written with `http://`, as TiKV tools do. */
export const stripScheme = (endpoint: string): string => endpoint.replace(/^https?:\/\//, '').replace(/\/$/, '');

function refuseProblem(problem: string | undefined): void {
  if (problem !== undefined) {
    const [property = ''] = /^\w+/.exec(problem) ?? [];
    throw new ConfigError(problem, `change ${property} or the setting it is compared with`);
  }
}

/** Nobody can dial "all addresses". */
function refuseWildcard(section: string, addr: string, advertiseAddr: string): void {
  if (advertiseAddr === '' && /^(?:0\.0\.0\.0|\[::\]):/.test(addr)) {
    throw new ConfigError(
      `${section}.addr ${addr} is not an address that others can dial`,
      'set advertise-addr to the name or address of this machine, for example --advertise-addr 10.0.0.5:20160',
    );
  }
}

function load<T>(role: Role, sources: ConfigSources): LoadedConfig<T> {
  const values = new Map<string, Value>();
  for (const setting of SETTINGS[role]) {
    values.set(settingName(setting), { value: setting.initial, origin: 'default' });
  }
  if (sources.file !== undefined) {
    readFile(role, sources.file, values);
  }
  readEnvironment(role, sources.env ?? {}, values);
  readFlags(role, sources.flags ?? {}, values);
  const config: Record<string, Record<string, unknown>> = {};
  for (const setting of SETTINGS[role]) {
    (config[setting.section] ??= {})[setting.property] = values.get(settingName(setting))?.value;
  }
  const origins = new Map([...values].map(([name, { origin }]) => [name, origin]));
  return { config: config as T, origins };
}

// ------------------------------------------------------------------------------------------------- file

function readFile(role: Role, path: string, values: Map<string, Value>): void {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ConfigError(
      `cannot read the configuration file ${path}: ${cause instanceof Error ? cause.message : String(cause)}`,
      'check the path given with --config',
      cause,
    );
  }
  let sections: Record<string, unknown>;
  try {
    sections = parseToml(text, { unsafeKeyBehaviour: 'throw' });
  } catch (cause) {
    const where = cause instanceof TomlError ? `${path}:${cause.line}:${cause.column}` : path;
    const [what = ''] = (cause instanceof Error ? cause.message : String(cause)).split('\n');
    throw new ConfigError(`${where}: ${what}`, 'the file must be TOML: sections in brackets, then key = value', cause);
  }
  const lines = new LineFinder(path, text);
  const bySection = groupSettings(role);
  for (const [section, content] of Object.entries(sections)) {
    const known = bySection.get(section);
    if (known === undefined) {
      throw unknownSection(role, section, content, [...bySection.keys()], lines);
    }
    if (content === null || typeof content !== 'object' || Array.isArray(content)) {
      throw new ConfigError(
        `${lines.of('', section)}: ${section} must be a section`,
        `write [${section}] on a line of its own`,
      );
    }
    for (const [key, raw] of Object.entries(content)) {
      const setting = known.get(key);
      if (setting === undefined) {
        throw unknownKey(lines.of(section, key), `${section}.${key}`, allNames(role));
      }
      accept(setting, raw, 'file', `${lines.of(section, key)}: ${settingName(setting)}`, values);
    }
  }
}

function groupSettings(role: Role): Map<string, Map<string, Setting>> {
  const sections = new Map<string, Map<string, Setting>>();
  for (const setting of SETTINGS[role]) {
    const section = sections.get(setting.section) ?? new Map<string, Setting>();
    section.set(setting.key, setting);
    sections.set(setting.section, section);
  }
  return sections;
}

const allNames = (role: Role): string[] => SETTINGS[role].map(settingName);

function unknownKey(where: string, name: string, known: readonly string[]): ConfigError {
  // A key that exists in another section is the likelier mistake than one with similar letters.
  const key = name.slice(name.indexOf('.') + 1);
  const closest = known.find((other) => other.endsWith(`.${key}`)) ?? closestName(name, known);
  return new ConfigError(
    `${where}: unknown key ${name}`,
    closest === undefined ? 'see docs/config.md for all keys' : `did you mean ${closest}?`,
  );
}

function unknownSection(
  role: Role,
  section: string,
  content: unknown,
  known: readonly string[],
  lines: LineFinder,
): ConfigError {
  const isSection = content !== null && typeof content === 'object' && !Array.isArray(content);
  const where = lines.of('', section);
  if (!isSection) {
    return unknownKey(where, section, allNames(role));
  }
  const other: Role = role === 'store' ? 'pd' : 'store';
  if (SETTINGS[other].some((setting) => setting.section === section)) {
    return new ConfigError(
      `${where}: the section [${section}] belongs into the file of ${other === 'pd' ? '"braid pd"' : '"braid server"'}`,
      'give each role a file of its own',
    );
  }
  const closest = closestName(section, known);
  return new ConfigError(
    `${where}: unknown section [${section}]`,
    closest === undefined
      ? `sections are ${known.map((name) => `[${name}]`).join(', ')}`
      : `did you mean [${closest}]?`,
  );
}

/** Finds the line of a key, for messages only: the parser does not report where values came from. */
class LineFinder {
  readonly #path: string;
  readonly #lines: readonly string[];

  constructor(path: string, text: string) {
    this.#path = path;
    this.#lines = text.split('\n');
  }

  /** `path:line` of `key` in `section`, or of the section's head if the key is written in some other way. */
  of(section: string, key: string): string {
    let current = '';
    let head: number | undefined;
    for (const [index, line] of this.#lines.entries()) {
      const opened = /^\s*\[\s*([^\]]+?)\s*\]/.exec(line);
      if (opened !== null) {
        current = (opened[1] as string).replaceAll('"', '');
        if (current === section || (section === '' && current === key)) {
          head ??= index;
        }
        continue;
      }
      const assigned = /^\s*("?)([\w.-]+)\1\s*=/.exec(line);
      const name = assigned?.[2];
      if (
        name !== undefined &&
        ((current === section && name === key) || (current === '' && name === `${section}.${key}`))
      ) {
        return `${this.#path}:${index + 1}`;
      }
    }
    return head === undefined ? this.#path : `${this.#path}:${head + 1}`;
  }
}

// ------------------------------------------------------------------------------------------------- environment, flags

function readEnvironment(
  role: Role,
  env: Readonly<Record<string, string | undefined>>,
  values: Map<string, Value>,
): void {
  const own = new Map(SETTINGS[role].map((setting) => [settingVariable(setting), setting]));
  const others = new Set(SETTINGS[role === 'store' ? 'pd' : 'store'].map(settingVariable));
  for (const [name, raw] of Object.entries(env)) {
    // Single underscores are variables of flags; the command line reads those.
    if (raw === undefined || !/^BRAID_[A-Z]+__/.test(name)) {
      continue;
    }
    const setting = own.get(name);
    if (setting !== undefined) {
      accept(setting, raw, 'environment', `the environment variable ${name}`, values);
    } else if (!others.has(name)) {
      const closest = closestName(name, [...own.keys()]);
      throw new ConfigError(
        `the environment variable ${name} names no setting`,
        closest === undefined ? 'see docs/config.md for all keys' : `did you mean ${closest}?`,
      );
    }
  }
}

function readFlags(role: Role, flags: Readonly<Record<string, unknown>>, values: Map<string, Value>): void {
  const known = new Map(SETTINGS[role].map((setting) => [settingName(setting), setting]));
  for (const [name, raw] of Object.entries(flags)) {
    if (raw === undefined) {
      continue;
    }
    const setting = known.get(name);
    if (setting === undefined) {
      throw unknownKey('--set', name, [...known.keys()]);
    }
    accept(setting, raw, 'flag', `the flag for ${name}`, values);
  }
}

function accept(setting: Setting, raw: unknown, origin: Origin, where: string, values: Map<string, Value>): void {
  const parsed = parseSetting(setting, raw);
  if ('problem' in parsed) {
    const shown = typeof raw === 'string' ? `"${raw}"` : JSON.stringify(raw);
    throw new ConfigError(`${where} ${parsed.problem}, not ${shown}`, `correct the value of ${settingName(setting)}`);
  }
  values.set(settingName(setting), { value: parsed.value, origin });
}
