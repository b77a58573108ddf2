/**
 * Clients that read and write a small hot range of a real cluster and record what they were told. Keys live in
 * generations: after some seconds a fresh set of keys takes over, so that no key collects more operations than the
 * search for a linearization can order.
 */
import type { Braid } from '../../src/client/kv.ts';
import type { Rng } from '../../src/env/rng.ts';
import type { HistoryRecorder, Request } from '../history.ts';
import { errorCode, outcomeOf, perform } from '../perform.ts';

export const KEYS = 16;
const GENERATION_MS = 10_000;
/** Regions are split at plain keys only, so the keys of a pair always lie in one region. */
const PAIRS = 2;
const TTL_SECONDS: readonly number[] = [1, 2, 3];
const VALUE_BYTES = 200;
const READ_FROM_FOLLOWER = 0.3;
const PAGE_SIZES: readonly number[] = [1, 3, 100];

const two = (n: number): string => String(n).padStart(2, '0');
export const generationPrefix = (generation: number): string => `hot/${String(generation).padStart(4, '0')}/`;
export const plainKey = (generation: number, n: number): string => `${generationPrefix(generation)}k${two(n)}`;
/** Between two plain keys. */
const pairKeys = (generation: number, pair: number): readonly [string, string] => {
  const after = plainKey(generation, 4 + 5 * pair);
  return [`${after}/a`, `${after}/b`];
};
const ttlKey = (generation: number, n: number): string => `${plainKey(generation, 2 + n)}/ttl`;
export const counterKey = (generation: number): string => `${generationPrefix(generation)}k10/count`;

export interface Latency {
  readonly startMs: number;
  readonly endMs: number;
  readonly kind: 'read' | 'write';
  readonly isOk: boolean;
}

export interface CounterTotals {
  acknowledged: number;
  unknown: number;
}

/** All clients together. Every completed operation is one line of the history and one latency. */
export class Workload {
  readonly latencies: Latency[] = [];
  readonly errors: Map<string, number> = new Map();
  readonly counters: Map<string, CounterTotals> = new Map();
  readonly #history: HistoryRecorder;
  readonly #startMs: number = performance.now();
  #nextValue = 0;
  #isStopped = false;

  constructor(history: HistoryRecorder) {
    this.#history = history;
  }

  get generation(): number {
    return Math.floor((performance.now() - this.#startMs) / GENERATION_MS);
  }

  /** Pairs of every generation so far, for the check of atomic batches. */
  tagGroups(): string[][] {
    return Array.from({ length: this.generation + 1 }, (_, generation) =>
      Array.from({ length: PAIRS }, (__, pair) => [...pairKeys(generation, pair)]),
    ).flat();
  }

  /** Every key that the history may name, without those that expire. */
  keys(): string[] {
    return Array.from({ length: this.generation + 1 }, (_, generation) => [
      ...Array.from({ length: KEYS }, (__, n) => plainKey(generation, n)),
      ...Array.from({ length: PAIRS }, (__, pair) => pairKeys(generation, pair)).flat(),
    ]).flat();
  }

  stop(): void {
    this.#isStopped = true;
  }

  /** One client until `stop`. @param meanGapMs mean pause between an answer and the next request */
  async run(client: Braid, rng: Rng, meanGapMs: number): Promise<void> {
    let process = this.#history.newProcess();
    const seen = new Map<string, string>();
    while (!this.#isStopped) {
      await new Promise((resolve) => {
        setTimeout(resolve, rng.float() * 2 * meanGapMs);
      });
      const isCounter = rng.chance(0.06);
      process = isCounter
        ? await this.#count(client, process)
        : (await this.#one(client, process, this.#draw(rng, seen), rng, seen)).process;
    }
  }

  /** Reads the counter and writes the next number if nobody was quicker. */
  async #count(client: Braid, process: number): Promise<number> {
    const key = counterKey(this.generation);
    const totals = this.counters.get(key) ?? { acknowledged: 0, unknown: 0 };
    this.counters.set(key, totals);
    const read = await this.#one(client, process, { f: 'get', key }, undefined);
    if (read.response?.f !== 'get') {
      return read.process;
    }
    const { value } = read.response;
    const request: Request = { f: 'cas', key, expected: value, value: String(Number(value ?? '0') + 1) };
    const swap = await this.#one(client, read.process, request, undefined);
    if (swap.outcome === 'info') {
      totals.unknown++;
    } else if (swap.response?.f === 'cas' && swap.response.swapped) {
      totals.acknowledged++;
    }
    return swap.process;
  }

  async #one(client: Braid, process: number, request: Request, rng: Rng | undefined, seen?: Map<string, string>) {
    const kind: Latency['kind'] = ['get', 'scan', 'batch-get'].includes(request.f) ? 'read' : 'write';
    const startMs = performance.now();
    this.#history.invoke(process, request);
    try {
      const response = await perform(client, request, {
        read: rng?.chance(READ_FROM_FOLLOWER) === true ? 'follower' : 'leader',
        pageSize: request.f === 'scan' && request.isAtomic ? 100 : (rng?.pick(PAGE_SIZES) ?? 100),
      });
      this.latencies.push({ startMs, endMs: performance.now(), kind, isOk: true });
      this.#history.ok(process, response);
      if (request.f === 'get' && response.f === 'get' && response.value !== null) {
        seen?.set(request.key, response.value);
      }
      return { process, response, outcome: 'ok' as const };
    } catch (error) {
      const code = errorCode(error);
      this.errors.set(code, (this.errors.get(code) ?? 0) + 1);
      this.latencies.push({ startMs, endMs: performance.now(), kind, isOk: false });
      const outcome = outcomeOf(request, error);
      if (outcome === 'info') {
        this.#history.info(process, code);
        return { process: this.#history.newProcess(), response: undefined, outcome };
      }
      this.#history.fail(process, code);
      return { process, response: undefined, outcome };
    }
  }

  #value(): string {
    const head = `v${this.#nextValue++}`;
    return head.padEnd(VALUE_BYTES, '.');
  }

  #draw(rng: Rng, seen: ReadonlyMap<string, string>): Request {
    const generation = this.generation;
    const prefix = generationPrefix(generation);
    const n = rng.below(KEYS);
    const key = plainKey(generation, n);
    const [tagA, tagB] = pairKeys(generation, rng.below(PAIRS));
    const kind = rng.float();
    if (kind < 0.36) {
      return { f: 'get', key };
    }
    if (kind < 0.66) {
      return { f: 'put', key, value: this.#value() };
    }
    if (kind < 0.74) {
      return { f: 'cas', key, expected: seen.get(key) ?? null, value: this.#value() };
    }
    if (kind < 0.79) {
      return { f: 'delete', key };
    }
    if (kind < 0.84) {
      const value = this.#value();
      return {
        f: 'batch',
        pairs: [
          [tagA, value],
          [tagB, value],
        ],
        isAtomic: true,
      };
    }
    if (kind < 0.88) {
      return { f: 'scan', start: tagA, end: `${tagB}\u0000`, limit: 10, isAtomic: true };
    }
    if (kind < 0.93) {
      return {
        f: 'scan',
        start: rng.chance(0.5) ? prefix : key,
        end: `${prefix}~`,
        limit: rng.pick([2, 7, 100]),
        isAtomic: false,
      };
    }
    if (kind < 0.95) {
      // Away from counters and keys that expire: their checks know no deleted ranges.
      const first = 4 + (n % 5);
      return { f: 'delete-range', start: plainKey(generation, first), end: plainKey(generation, first + 2) };
    }
    const expiring = ttlKey(generation, rng.below(2));
    return rng.chance(0.5)
      ? { f: 'put', key: expiring, value: this.#value(), ttlSeconds: rng.pick(TTL_SECONDS) }
      : { f: 'get', key: expiring };
  }
}
