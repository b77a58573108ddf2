/**
 * What the clients of the full world do, through the real SDK, and how they record it. Each client has a role: hot
 * registers with everything the interface offers, a growing set, a list and a counter built on compare-and-swap, or
 * keys with a time to live. Key space: `e` sets, `f` lists, `g` counters, `h` expiring keys, `k` registers, and the
 * keys at the very borders, which are registers, too. In histories one character stands for one byte.
 */
import type {
  AnyRequest,
  CollectionRequest,
  HistoryRecorder,
  Request,
  Response,
  ScanPart,
  Value,
} from '../../jepsen-lite/history.ts';
import { AppError } from '../../src/base/app-error.ts';
import { UndeterminedResultError } from '../../src/client/errors.ts';
import type { Braid } from '../../src/client/kv.ts';
import type { Rng } from '../../src/env/rng.ts';
import type { ClientRole, FullConfig, ReadMode } from './full-case.ts';

/** Keys that are only ever written together, in one region: no split point lies between them. */
export const TAGS = ['k003a', 'k003b', 'k003c'] as const;
/** A batch that may straddle a border. */
const STRADDLING = ['k001', 'k002'] as const;
export const SETS = ['e'] as const;
export const LISTS = ['f0', 'f1'] as const;
export const COUNTERS = ['g0', 'g1'] as const;
export const TTL_KEYS = ['h0', 'h1', 'h2', 'h3'] as const;
/** Keys where a wrong comparison or bound shows. */
export const BORDER_KEYS = ['', '\x00', 'k\x00', 'k002\x00', '\xff', '\xff\xff\xff'] as const;
const CAS_ATTEMPTS_MAX = 6;

export const registerKey = (i: number): string => `k${String(i).padStart(3, '0')}`;
export const registerKeys = (config: FullConfig): string[] => [
  ...Array.from({ length: config.keys }, (_, i) => registerKey(i)),
  ...BORDER_KEYS,
];
/** Where regions may be split: at keys, behind them, and inside the set. */
export const splitPoints = (config: FullConfig): string[] => [
  ...registerKeys(config).filter((key) => key !== ''),
  ...Array.from({ length: config.keys }, (_, i) => `${registerKey(i)}\x00`),
  'e3',
  'e7',
  'f',
  'f1',
  'g1',
  'h2',
  'k',
  'l',
];

export const toBytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'latin1'));
export const toText = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const valueOf = (bytes: Uint8Array | undefined): Value => (bytes === undefined ? null : toText(bytes));

/** What became of an operation that was not answered. */
export class Failure {
  readonly type: 'fail' | 'info';
  readonly error: string;

  constructor(type: 'fail' | 'info', error: string) {
    this.type = type;
    this.error = error;
  }
}

export const errorCode = (error: unknown): string => (error instanceof AppError ? error.code : String(error));

/** The SDK says by the type of the error whether a write may have happened. */
const isUnknown = (error: unknown): boolean =>
  !(error instanceof AppError) || error instanceof UndeterminedResultError || error.outcome === 'unknown';

const READS: readonly AnyRequest['f'][] = ['get', 'scan', 'batch-get', 'read-set', 'read-list', 'read-counter'];

export interface WorkerOptions {
  readonly n: number;
  readonly role: ClientRole;
  readonly readMode: ReadMode;
  readonly config: FullConfig;
  readonly rng: Rng;
  readonly nowNs: () => number;
}

/** One client's stream of operations: draws them and carries them out with whatever connection it has now. */
export class ClientWork {
  readonly #options: WorkerOptions;
  #next = 1;
  readonly #seen: Map<string, string> = new Map();

  constructor(options: WorkerOptions) {
    this.#options = options;
  }

  #unique(): string {
    return `${this.#options.n}:${this.#next++}`;
  }

  // ------------------------------------------------------------------------------------------ drawing

  draw(): AnyRequest {
    const { role, rng, config } = this.#options;
    const isRead = rng.chance(config.reads);
    switch (role) {
      case 'register':
        return isRead ? this.#drawRead() : this.#drawWrite();
      case 'set':
        return isRead
          ? { f: 'read-set', key: SETS[0] }
          : { f: 'add', key: SETS[0], element: `${rng.below(10)}${this.#unique()}` };
      case 'list': {
        const key = rng.pick(LISTS);
        return isRead ? { f: 'read-list', key } : { f: 'append', key, element: this.#unique() };
      }
      case 'counter': {
        const key = rng.pick(COUNTERS);
        return isRead ? { f: 'read-counter', key } : { f: 'increment', key, by: 1 + rng.below(3) };
      }
      case 'ttl': {
        const key = rng.pick(TTL_KEYS);
        if (isRead) {
          return rng.chance(0.7)
            ? { f: 'get', key }
            : { f: 'scan', start: 'h', end: 'i', limit: 100, isAtomic: false, reverse: rng.chance(0.5) };
        }
        if (rng.chance(0.1)) {
          return { f: 'delete', key };
        }
        return { f: 'put', key, value: this.#unique(), ttlSeconds: rng.pick([2, 4, 8, 30]) };
      }
    }
  }

  #key(): string {
    const { rng, config } = this.#options;
    return rng.chance(0.85) ? registerKey(rng.below(config.keys)) : rng.pick(BORDER_KEYS);
  }

  #drawRead(): Request {
    const { rng } = this.#options;
    const kind = rng.float();
    if (kind < 0.65) {
      return { f: 'get', key: this.#key() };
    }
    if (kind < 0.75) {
      return { f: 'batch-get', keys: rng.chance(0.5) ? TAGS : [...TAGS, this.#key()], isAtomic: false };
    }
    const limit = rng.pick([1, 2, 3, 4, 8, 100]);
    const reverse = rng.chance(0.4);
    if (rng.chance(0.2)) {
      return { f: 'scan', start: '', end: 'e', limit, isAtomic: false, reverse };
    }
    const points = splitPoints(this.#options.config).filter((key) => key >= 'k');
    const a = rng.pick(points);
    const b = rng.chance(0.4) ? '' : rng.pick(points);
    const [start, end] = b === '' || a < b ? [a, b] : [b, a];
    return { f: 'scan', start, end: start === end ? `${end}\x00` : end, limit, isAtomic: false, reverse };
  }

  #drawWrite(): Request {
    const { rng, config } = this.#options;
    const key = this.#key();
    const value = this.#unique();
    const kind = rng.float();
    if (kind < 0.55) {
      return { f: 'put', key, value };
    }
    if (kind < 0.65) {
      return { f: 'delete', key };
    }
    if (kind < 0.82) {
      return { f: 'cas', key, expected: this.#seen.get(key) ?? null, value: rng.chance(0.1) ? null : value };
    }
    if (kind < 0.91) {
      return { f: 'batch', pairs: TAGS.map((tag) => [tag, value] as const), isAtomic: true };
    }
    if (kind < 0.95) {
      return { f: 'batch', pairs: STRADDLING.map((tag) => [tag, value] as const), isAtomic: false };
    }
    const i = rng.below(config.keys);
    return { f: 'delete-range', start: registerKey(i), end: registerKey(i + rng.pick([1, 2, 4])) };
  }

  // ------------------------------------------------------------------------------------------ doing

  /** Carries an operation out. Never rejects: what went wrong is a {@link Failure}. */
  async perform(braid: Braid, request: AnyRequest): Promise<Response | Failure> {
    try {
      switch (request.f) {
        case 'get':
        case 'put':
        case 'delete':
        case 'cas':
        case 'batch':
        case 'batch-get':
        case 'delete-range':
        case 'scan':
          return await this.#performKv(braid, request);
        default:
          return await this.#performCollection(braid, request);
      }
    } catch (error) {
      return new Failure(!READS.includes(request.f) && isUnknown(error) ? 'info' : 'fail', errorCode(error));
    }
  }

  #mode(): { readonly read: 'leader' | 'follower' } {
    const { readMode, rng } = this.#options;
    return { read: readMode === 'mixed' ? rng.pick(['leader', 'follower'] as const) : readMode };
  }

  async #performKv(braid: Braid, request: Request): Promise<Response | Failure> {
    switch (request.f) {
      case 'get': {
        const value = valueOf(await braid.get(toBytes(request.key), this.#mode()));
        if (value === null) {
          this.#seen.delete(request.key);
        } else {
          this.#seen.set(request.key, value);
        }
        return { f: 'get', value };
      }
      case 'put':
        await braid.put(
          toBytes(request.key),
          toBytes(request.value),
          request.ttlSeconds === undefined ? {} : { ttlMs: request.ttlSeconds * 1000 },
        );
        return { f: 'done' };
      case 'delete':
        await braid.delete(toBytes(request.key));
        return { f: 'done' };
      case 'cas': {
        const { swapped, previous } = await braid.compareAndSwap(toBytes(request.key), {
          expected: request.expected === null ? undefined : toBytes(request.expected),
          value: request.value === null ? undefined : toBytes(request.value),
        });
        return { f: 'cas', swapped, actual: valueOf(previous) };
      }
      case 'batch':
        return writeBatch(braid, request.pairs);
      case 'batch-get': {
        const values = await braid.getMany(
          request.keys.map((key) => toBytes(key)),
          this.#mode(),
        );
        return { f: 'batch-get', values: values.map(valueOf) };
      }
      case 'delete-range':
        return deleteRange(braid, request);
      case 'scan':
        return this.#scan(braid, request);
    }
  }

  async #scan(braid: Braid, request: Extract<Request, { f: 'scan' }>): Promise<Response> {
    const { rng, nowNs } = this.#options;
    const { start, end, limit } = request;
    const reverse = request.reverse === true;
    const scan = braid.scan(
      { start: toBytes(start), end: toBytes(end) },
      { limit, reverse, pageSize: rng.pick([1, 2, 4, 64]), ...this.#mode() },
    );
    const rows: (readonly [string, string])[] = [];
    const parts: ScanPart[] = [];
    let at = reverse ? end : start;
    /** Reads from where the scan stands up to `to`, some time between the two moments. */
    const cover = (to: string, callNs: number, returnNs: number): void => {
      if (at !== to) {
        parts.push({ start: reverse ? to : at, end: reverse ? at : to, callNs, returnNs });
        at = to;
      }
    };
    let beforeNs = nowNs();
    let callNs = beforeNs;
    for await (const { entries } of scan.pages()) {
      const returnNs = nowNs();
      const first = toText((entries[0] as { readonly key: Uint8Array }).key);
      // Which of two pages spoke for the keys between their entries, the SDK does not say.
      cover(reverse ? `${first}\x00` : first, beforeNs, returnNs);
      for (const { key, value } of entries) {
        rows.push([toText(key), toText(value)]);
      }
      const last = (rows.at(-1) as readonly [string, string])[0];
      cover(reverse ? last : `${last}\x00`, callNs, returnNs);
      // The next page is asked for as soon as this one has arrived.
      beforeNs = callNs;
      callNs = returnNs;
    }
    if (rows.length < limit) {
      cover(reverse ? start : end, beforeNs, nowNs());
    }
    return { f: 'scan', rows, coveredTo: at, parts };
  }

  async #performCollection(braid: Braid, request: CollectionRequest): Promise<Response | Failure> {
    switch (request.f) {
      case 'add':
        await braid.put(toBytes(`${request.key}${request.element}`), toBytes(request.element));
        return { f: 'done' };
      case 'read-set': {
        const elements: string[] = [];
        const reverse = this.#options.rng.chance(0.3);
        for await (const { value } of braid.scan(
          { start: toBytes(request.key), end: toBytes('f') },
          { reverse, pageSize: this.#options.rng.pick([10, 50, 256]), ...this.#mode() },
        )) {
          elements.push(toText(value));
        }
        return { f: 'elements', elements };
      }
      case 'append':
        return replace(braid, request.key, (old) => (old === null ? request.element : `${old},${request.element}`));
      case 'read-list': {
        const value = valueOf(await braid.get(toBytes(request.key), this.#mode()));
        return { f: 'elements', elements: value === null ? [] : value.split(',') };
      }
      case 'increment':
        return replace(braid, request.key, (old) => String(Number(old ?? '0') + request.by));
      case 'read-counter': {
        const value = valueOf(await braid.get(toBytes(request.key), this.#mode()));
        return { f: 'count', count: Number(value ?? '0') };
      }
    }
  }
}

/** Changes a value by compare-and-swap until nobody else was faster; gives up, without effect, after some attempts. */
async function replace(braid: Braid, key: string, change: (old: Value) => string): Promise<Response | Failure> {
  const raw = toBytes(key);
  let old = valueOf(await braid.get(raw));
  for (let attempt = 0; attempt < CAS_ATTEMPTS_MAX; attempt++) {
    const { swapped, previous } = await braid.compareAndSwap(raw, {
      expected: old === null ? undefined : toBytes(old),
      value: toBytes(change(old)),
    });
    if (swapped) {
      return { f: 'done' };
    }
    old = valueOf(previous);
  }
  return new Failure('fail', 'others were faster');
}

/** A batch took effect in parts if some regions took theirs: then nobody knows what holds for the whole. */
async function writeBatch(braid: Braid, pairs: readonly (readonly [string, string])[]): Promise<Response | Failure> {
  const results = await braid.writeMany(
    pairs.map(([key, value]) => ({ type: 'put' as const, key: toBytes(key), value: toBytes(value) })),
    { atomic: 'region' },
  );
  const errors = results.flatMap((result) => (result.type === 'failed' ? [result.error] : []));
  const [first] = errors;
  if (first === undefined) {
    return { f: 'done' };
  }
  const isNothing = errors.length === results.length && !errors.some(isUnknown);
  return new Failure(isNothing ? 'fail' : 'info', errorCode(first));
}

async function deleteRange(
  braid: Braid,
  { start, end }: { readonly start: string; readonly end: string },
): Promise<Response | Failure> {
  let regionsDone = 0;
  try {
    await braid.deleteRange(
      { start: toBytes(start), end: toBytes(end) },
      {
        onProgress: (progress) => {
          ({ regionsDone } = progress);
        },
      },
    );
    return { f: 'done' };
  } catch (error) {
    return new Failure(regionsDone > 0 || isUnknown(error) ? 'info' : 'fail', errorCode(error));
  }
}

export interface OperationCounts {
  ok: number;
  failed: number;
  unknown: number;
}

/** Writes an outcome down. Returns the process number to go on with: one of unknown outcome never acts again. */
export function recordOutcome(
  history: HistoryRecorder,
  process: number,
  outcome: Response | Failure,
  counts: OperationCounts,
): number {
  if (!(outcome instanceof Failure)) {
    counts.ok++;
    history.ok(process, outcome);
    return process;
  }
  if (outcome.type === 'fail') {
    counts.failed++;
    history.fail(process, outcome.error);
    return process;
  }
  counts.unknown++;
  history.info(process, outcome.error);
  return history.newProcess();
}
