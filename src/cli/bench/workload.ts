/**
 * Named workloads: what one operation of one client is. Everything random comes from the seed, so that every target
 * and every run sees the same keys, values and order per client.
 */
import { UsageError } from '../failure.ts';
import { closestName } from '../../client/options.ts';

/** What is measured: a connection to a running store. Operations reject when they fail. */
export interface BenchTarget {
  /** For example `braid`. */
  readonly name: string;
  put(key: Uint8Array, value: Uint8Array): Promise<void>;
  /** Linearizable. */
  get(key: Uint8Array): Promise<Uint8Array | undefined>;
  /** Linearizable per page; resolves to the number of entries read, values included. */
  scan(start: Uint8Array, end: Uint8Array, limit: number): Promise<number>;
  close(): Promise<void>;
}

export const WORKLOAD_NAMES = ['put', 'get', 'scan', 'mixed'] as const;
export type WorkloadName = (typeof WORKLOAD_NAMES)[number];

export const WORKLOAD_TEXT: Readonly<Record<WorkloadName, string>> = {
  put: 'write a random key',
  get: 'read a random key, linearizable',
  scan: 'read the next entries from a random key, values included',
  mixed: 'four reads to one write, random keys',
};

/** Share of writes in `mixed`. */
const MIXED_WRITE_SHARE = 0.2;
const KEY_DIGITS = 12;
/** Bytes at the start of every value that repeat its key's number, so that reads can be checked. */
export const VALUE_HEAD_BYTES: number = KEY_DIGITS;

export interface WorkloadSettings {
  /** Keys in the store. */
  readonly keys: number;
  readonly valueBytes: number;
  /** Entries per scan. */
  readonly scanLimit: number;
  readonly keyPrefix: string;
  readonly seed: number;
}

export function parseWorkload(text: string): WorkloadName {
  const found = WORKLOAD_NAMES.find((name) => name === text);
  if (found === undefined) {
    const closest = closestName(text, WORKLOAD_NAMES);
    throw new UsageError(
      `there is no workload ${JSON.stringify(text)}`,
      `${closest === undefined ? '' : `did you mean ${closest}? `}workloads: ${WORKLOAD_NAMES.join(', ')}`,
    );
  }
  return found;
}

/** Small fast generator with 32 bits of state (Mulberry32); good enough to spread keys, and the same everywhere. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Keys and values of a run. Values do not compress. */
export class DataSet {
  readonly settings: WorkloadSettings;
  readonly #pool: Buffer;

  constructor(settings: WorkloadSettings) {
    this.settings = settings;
    const random = seededRandom(settings.seed);
    this.#pool = Buffer.alloc(2 ** 20 + settings.valueBytes);
    for (let i = 0; i < this.#pool.length; i++) {
      this.#pool[i] = Math.floor(random() * 256);
    }
  }

  key(number: number): Uint8Array {
    return Buffer.from(this.settings.keyPrefix + String(number).padStart(KEY_DIGITS, '0'), 'latin1');
  }

  /** After every key of the data set. */
  end(): Uint8Array {
    return Buffer.from(`${this.settings.keyPrefix}~`, 'latin1');
  }

  value(number: number, random: number): Uint8Array {
    const { valueBytes } = this.settings;
    const at = Math.floor(random * 2 ** 20);
    const value = Buffer.from(this.#pool.subarray(at, at + valueBytes));
    value.write(String(number).padStart(KEY_DIGITS, '0').substring(0, valueBytes), 0, 'latin1');
    return value;
  }

  /** Whether `value` is one that {@link value} makes for this key. */
  isValueOf(number: number, value: Uint8Array): boolean {
    const { valueBytes } = this.settings;
    if (value.length !== valueBytes) {
      return false;
    }
    const head = String(number).padStart(KEY_DIGITS, '0');
    for (let i = 0; i < Math.min(valueBytes, VALUE_HEAD_BYTES); i++) {
      if (value[i] !== head.charCodeAt(i)) {
        return false;
      }
    }
    return true;
  }
}

/** A read that returned something else than what was stored. Counted as an error, never as an operation. */
export class WrongAnswerError extends Error {
  readonly code = 'WrongAnswer';
}

/** One operation of one client; rejects when it failed or the answer is wrong. */
export type Operation = (random: () => number) => Promise<void>;

export function operationOf(name: WorkloadName, target: BenchTarget, data: DataSet): Operation {
  const { keys, scanLimit } = data.settings;
  const put: Operation = (random) => {
    const number = Math.floor(random() * keys);
    return target.put(data.key(number), data.value(number, random()));
  };
  const get: Operation = async (random) => {
    const number = Math.floor(random() * keys);
    const value = await target.get(data.key(number));
    if (value === undefined || !data.isValueOf(number, value)) {
      throw new WrongAnswerError(`key ${number}: ${value === undefined ? 'absent' : 'another value'}`);
    }
  };
  switch (name) {
    case 'put':
      return put;
    case 'get':
      return get;
    case 'mixed':
      return (random) => (random() < MIXED_WRITE_SHARE ? put(random) : get(random));
    case 'scan':
      return async (random) => {
        const number = Math.floor(random() * keys);
        const found = await target.scan(data.key(number), data.end(), scanLimit);
        const expected = Math.min(scanLimit, keys - number);
        if (found !== expected) {
          throw new WrongAnswerError(`scan from key ${number}: ${found} entries instead of ${expected}`);
        }
      };
  }
}

/** Entries written at one time while a data set is loaded. */
const PRELOAD_PARALLEL = 128;

/** Writes every key once. Rejects at the first failure: a benchmark on a partial data set would lie. */
export async function preload(target: BenchTarget, data: DataSet, signal: AbortSignal): Promise<void> {
  const random = seededRandom(data.settings.seed ^ 0x5eed);
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < data.settings.keys) {
      signal.throwIfAborted();
      const number = next++;
      await target.put(data.key(number), data.value(number, random()));
    }
  };
  await Promise.all(Array.from({ length: Math.min(PRELOAD_PARALLEL, data.settings.keys) }, lane));
}
