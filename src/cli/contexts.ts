/**
 * Named clusters of a user: a small file that says which placement endpoints a name stands for and which name is current.
 *
 * ```yaml
 * current: production
 * contexts:
 *   production:
 *     pd: [10.0.0.1:2379, 10.0.0.2:2379]
 *     tls: {ca: /etc/braid/ca.pem, cert: /etc/braid/ada.pem, key: /etc/braid/ada-key.pem}
 * ```
 *
 * Of certificates it holds only the paths.
 */
import { mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { closestName, parseEndpoint, requireScheme } from '../client/options.ts';
import { InputFileError, UsageError } from './failure.ts';
import { YamlError, parseYaml } from './output/document.ts';

/** Names of contexts: what shells leave alone. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;
export const CONTEXTS_MAX = 1_000;
const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;

/** Paths of certificates; see the flags `--tls-ca`, `--tls-cert` and `--tls-key`. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface Cluster {
  /** `host:port` each. */
  readonly pd: readonly string[];
  /** Absolute paths; undefined for plain text. */
  readonly tls: TlsFiles | undefined;
}

export interface Contexts {
  /** The one that commands use unless told otherwise. */
  readonly current: string | undefined;
  readonly byName: ReadonlyMap<string, Cluster>;
}

export const NO_CONTEXTS: Contexts = { current: undefined, byName: new Map() };

type Variables = Readonly<Record<string, string | undefined>>;

/** `BRAID_CONTEXTS`, else `contexts.yaml` in the user's configuration; undefined for a user without a home. */
export function contextsPath(env: Variables): string | undefined {
  const given = env['BRAID_CONTEXTS'];
  if (given !== undefined && given !== '') {
    return given;
  }
  const configuration = env['XDG_CONFIG_HOME'];
  if (configuration !== undefined && configuration !== '') {
    return join(configuration, 'braid', 'contexts.yaml');
  }
  const home = env['HOME'];
  return home === undefined || home === '' ? undefined : join(home, '.config', 'braid', 'contexts.yaml');
}

export function requireContextName(name: string): string {
  if (!NAME.test(name)) {
    throw new UsageError(
      `${JSON.stringify(name)} is not a name for a context`,
      'use letters, digits, "_", "." and "-", at most 63, and begin with a letter or a digit',
    );
  }
  return name;
}

/** No file is no contexts. @throws InputFileError for a file that cannot be read or says something unknown */
export async function loadContexts(env: Variables): Promise<Contexts> {
  const path = contextsPath(env);
  if (path === undefined) {
    return NO_CONTEXTS;
  }
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as { readonly code?: unknown }).code === 'ENOENT') {
      return NO_CONTEXTS;
    }
    throw new InputFileError(`${path} cannot be read: ${String(cause)}`, 'mend it, or name another in BRAID_CONTEXTS', {
      cause,
    });
  }
  try {
    const [content, ...others] = parseYaml(text);
    if (others.length > 0) {
      throw new Error('it holds more than one document');
    }
    return content === undefined ? NO_CONTEXTS : readContexts(content);
  } catch (cause) {
    const line = cause instanceof YamlError ? `:${cause.line}` : '';
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new InputFileError(`${path}${line}: ${why}`, 'mend the file, or name another in BRAID_CONTEXTS', { cause });
  }
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function fieldsOf(value: unknown, path: string, known: readonly string[]): Readonly<Record<string, unknown>> {
  if (!isObject(value)) {
    throw new Error(`${path} must have fields`);
  }
  const unknown = Object.keys(value).find((name) => !known.includes(name));
  if (unknown !== undefined) {
    throw new Error(
      `${path === 'the file' ? '' : `${path}.`}${unknown} is not known here; fields are ${known.join(', ')}`,
    );
  }
  return value;
}

/** `host:port` of each; schemes must fit the certificates. @throws InvalidArgumentError */
export function parseEndpoints(endpoints: readonly string[], tls: TlsFiles | undefined): readonly string[] {
  return endpoints.map((endpoint) => {
    requireScheme(endpoint, tls !== undefined);
    return parseEndpoint(endpoint);
  });
}

function readTls(value: unknown, path: string): TlsFiles {
  const files = fieldsOf(value, path, ['ca', 'cert', 'key']);
  const wrong = Object.entries(files).find(([, file]) => typeof file !== 'string' || !isAbsolute(file));
  if (wrong !== undefined) {
    throw new Error(`${path}.${wrong[0]} must be an absolute path`);
  }
  if (files['ca'] === undefined || (files['cert'] === undefined) !== (files['key'] === undefined)) {
    throw new Error(`${path} must name ca, and cert and key together`);
  }
  return files as unknown as TlsFiles;
}

function readContexts(content: unknown): Contexts {
  const { current, contexts } = fieldsOf(content, 'the file', ['current', 'contexts']);
  if (!isObject(contexts)) {
    throw new Error('contexts must have fields');
  }
  const byName = new Map(
    Object.entries(contexts).map(([name, value]) => {
      requireContextName(name);
      const { pd, tls } = fieldsOf(value, `contexts.${name}`, ['pd', 'tls']);
      if (!Array.isArray(pd) || pd.length === 0) {
        throw new Error(`contexts.${name}.pd must list at least one endpoint`);
      }
      const files = tls === undefined || tls === null ? undefined : readTls(tls, `contexts.${name}.tls`);
      return [name, { pd: parseEndpoints((pd as unknown[]).map(String), files), tls: files }] as const;
    }),
  );
  if (current !== undefined && current !== null && (typeof current !== 'string' || !byName.has(current))) {
    throw new Error(`current names ${JSON.stringify(current)}, which is no context`);
  }
  return { current: typeof current === 'string' ? current : undefined, byName };
}

/** Atomic: a crash leaves the old file or the new one. */
export async function saveContexts(env: Variables, { current, byName }: Contexts): Promise<void> {
  const path = contextsPath(env);
  if (path === undefined) {
    throw new UsageError('there is no place for contexts: HOME is not set', 'name a file in BRAID_CONTEXTS');
  }
  if (byName.size > CONTEXTS_MAX) {
    throw new UsageError(`there are ${CONTEXTS_MAX} contexts already`, 'remove one with "braid ctl context remove"');
  }
  const content = {
    ...(current === undefined ? {} : { current }),
    contexts: Object.fromEntries(
      [...byName].map(([name, { pd, tls }]) => [name, { pd, ...(tls === undefined ? {} : { tls }) }]),
    ),
  };
  try {
    await mkdir(dirname(path), { recursive: true, mode: DIRECTORY_MODE });
    const temporary = `${path}.${process.pid}.tmp`;
    const handle = await open(temporary, 'w', FILE_MODE);
    try {
      await handle.writeFile(stringify(content));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    throw new InputFileError(
      `${path} cannot be written: ${cause instanceof Error ? cause.message : String(cause)}`,
      'check its permissions, or name another file in BRAID_CONTEXTS',
      { cause },
    );
  }
}

/** @throws UsageError with the nearest name */
export function clusterOf({ byName }: Contexts, name: string): Cluster {
  const found = byName.get(name);
  if (found === undefined) {
    const names = [...byName.keys()];
    const closest = closestName(name, names);
    throw new UsageError(
      `there is no context ${JSON.stringify(name)}`,
      closest === undefined
        ? names.length === 0
          ? 'add one with "braid ctl context add NAME --pd ENDPOINTS"'
          : `contexts are ${names.join(', ')}`
        : `did you mean ${closest}?`,
    );
  }
  return found;
}

// ------------------------------------------------------------------------------------------------------ which cluster

/** Where the value of a flag comes from. */
export type FlagSource = 'flag' | 'variable' | 'default';

export interface Wanted {
  readonly pd: string;
  readonly pdSource: FlagSource;
  readonly context: string | undefined;
  readonly contextSource: FlagSource;
  /** What flags and variables say, as it was typed. */
  readonly tls?: Partial<TlsFiles>;
}

/** A cluster, and what named it. */
export interface Target extends Cluster {
  /** `--pd`, `BRAID_PD`, `context NAME` or `default`. */
  readonly from: string;
  readonly context: string | undefined;
}

const split = (endpoints: string): readonly string[] => endpoints.split(',').map((endpoint) => endpoint.trim());

/**
 * The cluster a command talks to. A flag wins over variables, `BRAID_PD` over `BRAID_CONTEXT`, a variable over the
 * current context, that over the default. Certificates of a context belong to its endpoints; flags and variables
 * replace them one by one.
 */
export async function targetOf(wanted: Wanted, env: Variables): Promise<Target> {
  const { pd, pdSource, context, contextSource } = wanted;
  const inContext = (name: string, contexts: Contexts): Target => {
    const cluster = clusterOf(contexts, name);
    return { pd: cluster.pd, tls: tlsFiles(wanted.tls, cluster.tls), from: `context ${name}`, context: name };
  };
  const named = async (name: string): Promise<Target> => inContext(name, await loadContexts(env));
  const typed = (from: string): Target => ({
    pd: split(pd),
    tls: tlsFiles(wanted.tls, undefined),
    from,
    context: undefined,
  });
  if (pdSource === 'flag' && contextSource === 'flag') {
    throw new UsageError('--pd and --context exclude each other', 'leave one of them out');
  }
  if (pdSource === 'flag') {
    return typed('--pd');
  }
  if (contextSource === 'flag') {
    return named(context ?? '');
  }
  if (pdSource === 'variable') {
    return typed('BRAID_PD');
  }
  if (contextSource === 'variable') {
    return named(context ?? '');
  }
  const contexts = await loadContexts(env);
  return contexts.current === undefined ? typed('default') : inContext(contexts.current, contexts);
}

/** What was given wins over what the context says; paths become absolute. @throws UsageError */
function tlsFiles(given: Partial<TlsFiles> | undefined, known: TlsFiles | undefined): TlsFiles | undefined {
  const path = (name: keyof TlsFiles): string | undefined => {
    const file = given?.[name];
    return file === undefined || file === '' ? known?.[name] : resolve(file);
  };
  const [ca, cert, key] = [path('ca'), path('cert'), path('key')];
  if (ca === undefined) {
    if (cert !== undefined || key !== undefined) {
      throw new UsageError(
        `--tls-${cert === undefined ? 'key' : 'cert'} is given without --tls-ca`,
        'add --tls-ca with the certificate of the authority of the cluster',
      );
    }
    return undefined;
  }
  return { ca, ...(cert === undefined ? {} : { cert }), ...(key === undefined ? {} : { key }) };
}
