/** Options of `connect` and of single calls: checking, defaults, and the nearest valid name for a misspelled one. */
import type { Logger } from '../env/log.ts';
import {
  CONNECT_TIMEOUT_MS_DEFAULT,
  IN_FLIGHT_PER_STORE_DEFAULT,
  QUEUE_MAX_DEFAULT,
  REGION_CACHE_MAX_DEFAULT,
  TIMEOUT_MS_DEFAULT,
  TIMEOUT_MS_MAX,
} from './defaults.ts';
import { InvalidArgumentError } from './errors.ts';
import type { TraceHook } from './trace.ts';

/** Certificates for an encrypted cluster: each a path of a PEM file, or its content as bytes. */
export interface TlsOptions {
  /** Certificates of the authorities that sign those of the cluster. */
  readonly ca: string | Uint8Array;
  /** Certificate of this client. Servers of braid demand one; leave it out, with `key`, for others that do not. */
  readonly cert?: string | Uint8Array;
  /** Private key of `cert`. */
  readonly key?: string | Uint8Array;
}

export interface ConnectOptions {
  /** Placement endpoints as `host:port`, one or more of the same cluster. `https://host:port` demands `tls`. */
  readonly pd: readonly string[] | string;
  /** Default: plain text. Files are read once, by `connect`. */
  readonly tls?: TlsOptions;
  /** Shown in the servers' logs. */
  readonly name?: string;
  /** Deadline of every call, ms. Default 5000. */
  readonly timeoutMs?: number;
  /** Deadline of `connect` itself, ms. Default 5000. */
  readonly connectTimeoutMs?: number;
  /** True returns without contacting the cluster; the first call does. */
  readonly lazy?: boolean;
  /** Unanswered calls before `QueueFullError`. Default 65536. */
  readonly queueMax?: number;
  /** Unanswered commands per store; more wait in the client. Default 4096. */
  readonly maxInFlightPerStore?: number;
  /** Regions remembered. Default 100000. */
  readonly regionCacheMax?: number;
  /** Where the SDK reports reconnects and route changes. Default: nowhere. */
  readonly log?: Logger;
  /** Told what the client does on its way to an answer: calls, retries, leaders. Default: nobody. */
  readonly onTrace?: TraceHook;
}

export interface CallOptions {
  /** Deadline of this call, ms. */
  readonly timeoutMs?: number;
  /** Ends the call at once when it aborts. A write that was already sent then has an unknown outcome. */
  readonly signal?: AbortSignal;
}

export interface ResolvedOptions {
  readonly pd: readonly string[];
  readonly name: string;
  readonly timeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly lazy: boolean;
  readonly queueMax: number;
  readonly maxInFlightPerStore: number;
  readonly regionCacheMax: number;
  readonly log: Logger | undefined;
  readonly onTrace: TraceHook | undefined;
}

const CONNECT_OPTION_NAMES: readonly (keyof ConnectOptions)[] = [
  'pd',
  'tls',
  'name',
  'timeoutMs',
  'connectTimeoutMs',
  'lazy',
  'queueMax',
  'maxInFlightPerStore',
  'regionCacheMax',
  'log',
  'onTrace',
];

export function resolveOptions(options: ConnectOptions): ResolvedOptions {
  if (options === undefined) {
    throw new InvalidArgumentError('connect needs options', {
      hint: "for example connect({ pd: ['127.0.0.1:2379'] })",
    });
  }
  requireKnownOptions('connect', options, CONNECT_OPTION_NAMES);
  return {
    pd: endpoints(options.pd, requireTlsOptions(options.tls) !== undefined),
    name: options.name ?? 'braid-client',
    timeoutMs: requireTimeoutMs(options.timeoutMs, 'timeoutMs') ?? TIMEOUT_MS_DEFAULT,
    connectTimeoutMs: requireTimeoutMs(options.connectTimeoutMs, 'connectTimeoutMs') ?? CONNECT_TIMEOUT_MS_DEFAULT,
    lazy: options.lazy ?? false,
    queueMax: requireCount(options.queueMax, 'queueMax') ?? QUEUE_MAX_DEFAULT,
    maxInFlightPerStore:
      requireCount(options.maxInFlightPerStore, 'maxInFlightPerStore') ?? IN_FLIGHT_PER_STORE_DEFAULT,
    regionCacheMax: requireCount(options.regionCacheMax, 'regionCacheMax') ?? REGION_CACHE_MAX_DEFAULT,
    log: options.log,
    onTrace: requireHook(options.onTrace),
  };
}

/** `host:port` of an endpoint that may be written with a scheme; throws when it is not an address. */
export function parseEndpoint(text: string): string {
  const match = /^(?:https?:\/\/)?([^/\s]+:(\d{1,5}))\/?$/.exec(text.trim());
  if (match === null || Number(match[2]) > 65_535) {
    throw new InvalidArgumentError(`${JSON.stringify(text)} is not an endpoint`, {
      hint: 'write placement endpoints as host:port, for example 127.0.0.1:2379',
    });
  }
  return match[1] as string;
}

function requireHook(hook: TraceHook | undefined): TraceHook | undefined {
  if (hook !== undefined && typeof hook !== 'function') {
    throw new InvalidArgumentError('the option onTrace must be a function', {
      hint: 'for example onTrace: (event) => console.error(event)',
    });
  }
  return hook;
}

const TLS_OPTION_NAMES: readonly (keyof TlsOptions)[] = ['ca', 'cert', 'key'];

/** Only the form; what the files hold is looked at when the connection is made. */
export function requireTlsOptions(tls: TlsOptions | undefined): TlsOptions | undefined {
  if (tls === undefined) {
    return undefined;
  }
  requireKnownOptions('connect in tls', tls, TLS_OPTION_NAMES);
  if (tls.ca === undefined) {
    throw new InvalidArgumentError('the option tls lacks ca, the certificate of the authority of the cluster', {
      hint: "for example connect({ pd, tls: { ca: 'ca.pem', cert: 'client.pem', key: 'client-key.pem' } })",
    });
  }
  for (const name of TLS_OPTION_NAMES) {
    const value: unknown = tls[name];
    if (value !== undefined && !(typeof value === 'string' && value !== '') && !(value instanceof Uint8Array)) {
      throw new InvalidArgumentError(`tls.${name} must be a path or bytes`, {
        hint: 'name a PEM file, or give its content as a Uint8Array',
      });
    }
  }
  return tls;
}

/** Refuses `https://` without certificates, and `http://` with them: neither would be what is written. */
export function requireScheme(endpoint: string, hasTls: boolean): void {
  const scheme = /^https?(?=:\/\/)/.exec(endpoint.trim())?.[0];
  if (scheme === 'https' && !hasTls) {
    throw new InvalidArgumentError(`${endpoint} asks for TLS, but there are no certificates`, {
      hint: 'give the option tls (on the command line --tls-ca, --tls-cert and --tls-key), or write host:port',
    });
  }
  if (scheme === 'http' && hasTls) {
    throw new InvalidArgumentError(`${endpoint} asks for plain text, but certificates are given`, {
      hint: 'write https:// or host:port, or leave the certificates out',
    });
  }
}

function endpoints(pd: unknown, hasTls: boolean): readonly string[] {
  const list = typeof pd === 'string' ? pd.split(',') : pd;
  if (!Array.isArray(list) || list.length === 0) {
    throw new InvalidArgumentError('the option pd must list at least one placement endpoint', {
      hint: "for example connect({ pd: ['127.0.0.1:2379'] })",
    });
  }
  for (const entry of list) {
    requireScheme(String(entry), hasTls);
  }
  return [...new Set(list.map((entry) => parseEndpoint(String(entry))))];
}

/** Refuses an unknown name and names the closest valid one. Undefined options are fine. */
export function requireKnownOptions(call: string, options: object | undefined, known: readonly string[]): void {
  if (options === undefined) {
    return;
  }
  if (options === null || typeof options !== 'object') {
    throw new InvalidArgumentError(`the options of ${call} must be an object`);
  }
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) {
      const closest = closestName(name, known);
      throw new InvalidArgumentError(`${call} has no option ${JSON.stringify(name)}`, {
        hint: closest === undefined ? `valid options: ${known.join(', ')}` : `did you mean ${closest}?`,
        details: { option: name, ...(closest === undefined ? {} : { closest }) },
      });
    }
  }
}

/** Positive milliseconds within the platform's timer range; undefined passes through. */
export function requireTimeoutMs(value: number | undefined, name: string): number | undefined {
  if (value !== undefined && !(typeof value === 'number' && value > 0 && value <= TIMEOUT_MS_MAX)) {
    throw new InvalidArgumentError(
      `${name} must be a number of milliseconds from 1 to ${TIMEOUT_MS_MAX}, got ${String(value)}`,
    );
  }
  return value;
}

/** A positive integer; undefined passes through. */
export function requireCount(
  value: number | undefined,
  name: string,
  max: number = Number.MAX_SAFE_INTEGER,
): number | undefined {
  if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1 && value <= max)) {
    throw new InvalidArgumentError(`${name} must be an integer from 1 to ${max}, got ${String(value)}`);
  }
  return value;
}

/** The known word with the smallest edit distance, unless even that one is another word altogether. */
export function closestName(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Infinity;
  for (const name of known) {
    const distance = editDistance(word.toLowerCase(), name.toLowerCase());
    if (distance < bestDistance) {
      bestDistance = distance;
      best = name;
    }
  }
  return best !== undefined && bestDistance <= Math.max(2, Math.floor(Math.max(word.length, best.length) / 2))
    ? best
    : undefined;
}

/** Levenshtein distance with two rows. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(substitution, (previous[j] as number) + 1, (row[j - 1] as number) + 1));
    }
    previous = row;
  }
  return previous[b.length] as number;
}
