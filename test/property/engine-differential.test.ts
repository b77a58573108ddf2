/**
 * The memory engine and the LevelDB engine answer every sequence of operations alike, refusals included. `ENGINE_RUNS`
 * sets the number of sequences; what crashes leave is compared in `test/contract/sync-ledger.test.ts`.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createLevelEngineFactory, createMemoryEngineFactory, MemoryDisk } from '../../src/engine/index.ts';
import type { Engine, EngineSnapshot } from '../../src/env/engine.ts';
import { realClock } from '../../src/env/real/index.ts';
import { createRng } from '../../src/env/rng.ts';

const RUNS = Number(process.env['ENGINE_RUNS'] ?? 150);
/** Entries deleted by one batch when a range is cleared. */
const CLEAR_PAGE = 4;
const SNAPSHOTS_MAX = 3;

type Changes = readonly (readonly [Uint8Array, Uint8Array | undefined])[];

const REFUSALS = [
  'a page of nothing',
  'a batch written twice',
  'a batch changed after its write',
  'a closed snapshot',
  'a missing directory',
  'a directory in use',
  'a closed engine',
] as const;

type Operation =
  | { readonly type: 'write'; readonly changes: Changes }
  /** Several writes at once, none of them awaited, with reads between them. */
  | { readonly type: 'overlap'; readonly writes: readonly Changes[] }
  /** A range is deleted page by page, as the store's cleaner does. */
  | { readonly type: 'clear'; readonly start: Uint8Array; readonly end: Uint8Array }
  | { readonly type: 'refused'; readonly what: (typeof REFUSALS)[number] }
  | { readonly type: 'get'; readonly key: Uint8Array }
  | { readonly type: 'get-many'; readonly keys: readonly Uint8Array[] }
  | {
      readonly type: 'scan';
      readonly start: Uint8Array;
      readonly end: Uint8Array;
      readonly reverse: boolean;
      readonly limit: number;
      readonly maxBytes: number;
      readonly keysOnly: boolean;
      readonly useSnapshot: boolean;
    }
  | { readonly type: 'snapshot' }
  | { readonly type: 'close-snapshot' }
  | { readonly type: 'reopen' };

// Few distinct bytes and short keys: collisions, prefixes and neighbours are what matters.
const byte = fc.constantFrom(0x01, 0x61, 0x62, 0xff);
const key = fc.array(byte, { minLength: 1, maxLength: 3 }).map((bytes) => Uint8Array.from(bytes));
const bound = fc.array(fc.constantFrom(0x00, 0x01, 0x61, 0x62, 0xff), { maxLength: 3 }).map((b) => Uint8Array.from(b));
const value = fc.uint8Array({ maxLength: 20 });

const changes = fc.array(fc.tuple(key, fc.option(value, { nil: undefined })), { maxLength: 8 });

const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ type: fc.constant('write' as const), changes }) },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('overlap' as const),
      writes: fc.array(changes, { minLength: 2, maxLength: 6 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('clear' as const), start: bound, end: bound }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('refused' as const), what: fc.constantFrom(...REFUSALS) }) },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('get' as const), key }) },
  {
    weight: 1,
    arbitrary: fc.record({ type: fc.constant('get-many' as const), keys: fc.array(key, { maxLength: 5 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('scan' as const),
      start: bound,
      end: bound,
      reverse: fc.boolean(),
      limit: fc.integer({ min: 1, max: 10 }),
      maxBytes: fc.integer({ min: 1, max: 60 }),
      keysOnly: fc.boolean(),
      useSnapshot: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ type: 'snapshot' as const }) },
  { weight: 1, arbitrary: fc.constant({ type: 'close-snapshot' as const }) },
  { weight: 1, arbitrary: fc.constant({ type: 'reopen' as const }) },
);

type Open = (options: { readonly elsewhere: boolean }) => Promise<Engine>;

/** What a refusal says to programs: its code, or the broken condition. */
async function refusalOf(call: () => unknown): Promise<unknown> {
  try {
    await call();
    return 'not refused';
  } catch (error) {
    return (error as { code?: unknown }).code ?? (error as Error).message;
  }
}

/** One engine and what a run keeps of it. */
class Subject {
  engine: Engine;
  readonly #open: Open;
  #snapshots: EngineSnapshot[] = [];

  constructor(engine: Engine, open: Open) {
    this.engine = engine;
    this.#open = open;
  }

  #write(changed: Changes): Promise<void> {
    const batch = this.engine.createBatch();
    for (const [k, v] of changed) {
      if (v === undefined) {
        batch.del(k);
      } else {
        batch.put(k, v);
      }
    }
    return this.engine.write(batch);
  }

  /** The order in which the writes were acknowledged; a read in between must be of a state between two of them. */
  async #overlap(writes: readonly Changes[]): Promise<unknown> {
    const order: number[] = [];
    const reads: Promise<unknown>[] = [];
    await Promise.all(
      writes.map((changed, i) => {
        const written = this.#write(changed).then(() => order.push(i));
        const [first] = changed;
        if (first !== undefined) {
          reads.push(this.engine.get(first[0]));
        }
        return written;
      }),
    );
    await Promise.all(reads);
    return order;
  }

  async #clear(start: Uint8Array, end: Uint8Array): Promise<unknown> {
    for (let pages = 1; ; pages++) {
      const page = await this.engine.scan({ range: { start, end }, limit: CLEAR_PAGE, keysOnly: true });
      await this.#write(page.entries.map(([k]) => [k, undefined] as const));
      if (!page.more) {
        return pages;
      }
    }
  }

  async #refused(what: (typeof REFUSALS)[number]): Promise<unknown> {
    const { engine } = this;
    const range = { start: Uint8Array.of(0x61), end: Uint8Array.of(0x62) };
    const batch = engine.createBatch();
    batch.put(Uint8Array.of(0x61), Uint8Array.of(1));
    switch (what) {
      case 'a page of nothing':
        return refusalOf(() => engine.scan({ range, limit: 0 }));
      case 'a batch written twice':
        await engine.write(batch);
        return refusalOf(() => engine.write(batch));
      case 'a batch changed after its write':
        await engine.write(batch);
        return refusalOf(() => batch.put(Uint8Array.of(0x62), Uint8Array.of(1)));
      case 'a closed snapshot': {
        const snapshot = engine.snapshot();
        snapshot.close();
        return [
          await refusalOf(() => engine.get(Uint8Array.of(0x61), snapshot)),
          await refusalOf(() => engine.scan({ range, limit: 1, snapshot })),
        ];
      }
      case 'a missing directory':
        return refusalOf(() => this.#open({ elsewhere: true }));
      case 'a directory in use':
        return refusalOf(() => this.#open({ elsewhere: false }));
      case 'a closed engine': {
        this.#snapshots = [];
        await engine.close();
        const says = [
          await refusalOf(() => engine.write(batch)),
          await refusalOf(() => engine.get(Uint8Array.of(0x61))),
          await refusalOf(() => engine.getSync(Uint8Array.of(0x61))),
          await refusalOf(() => engine.getMany([Uint8Array.of(0x61)])),
          await refusalOf(() => engine.scan({ range, limit: 1 })),
          await refusalOf(() => engine.snapshot()),
          await refusalOf(() => engine.approximateSize(range)),
          await refusalOf(() => engine.close()),
        ];
        this.engine = await this.#open({ elsewhere: false });
        return says;
      }
    }
  }

  /** Performs an operation; the result is comparable between engines. */
  async perform(step: Operation): Promise<unknown> {
    const { engine } = this;
    switch (step.type) {
      case 'write': {
        const batch = engine.createBatch();
        for (const [k, v] of step.changes) {
          if (v === undefined) {
            batch.del(k);
          } else {
            batch.put(k, v);
          }
        }
        return [batch.count, batch.bytes, await engine.write(batch)];
      }
      case 'overlap':
        return this.#overlap(step.writes);
      case 'clear':
        return this.#clear(step.start, step.end);
      case 'refused':
        return this.#refused(step.what);
      case 'get':
        return [await engine.get(step.key, this.#snapshots.at(-1)), engine.getSync(step.key)];
      case 'get-many':
        return engine.getMany(step.keys);
      case 'scan': {
        const { start, end, reverse, limit, maxBytes, keysOnly } = step;
        const snapshot = step.useSnapshot ? this.#snapshots.at(0) : undefined;
        const options = { range: { start, end }, reverse, limit, maxBytes, keysOnly };
        return engine.scan(snapshot === undefined ? options : { ...options, snapshot });
      }
      case 'snapshot':
        if (this.#snapshots.length < SNAPSHOTS_MAX) {
          this.#snapshots.push(engine.snapshot());
        }
        return undefined;
      case 'close-snapshot':
        this.#snapshots.shift()?.close();
        return undefined;
      case 'reopen':
        this.#snapshots = [];
        await engine.close();
        this.engine = await this.#open({ elsewhere: false });
        return undefined;
    }
  }
}

describe('engines', () => {
  let root: string;
  let runs = 0;

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'braid-engine-'));
  });

  afterAll(() => rm(root, { recursive: true, force: true }));

  async function openLevel(): Promise<Subject> {
    const path = join(root, String(runs++));
    const factory = createLevelEngineFactory({ blockCacheBytes: 1024 * 1024 });
    return new Subject(await factory.open({ path, createIfMissing: true }), ({ elsewhere }) =>
      factory.open({ path: elsewhere ? `${path}-missing` : path, createIfMissing: false }),
    );
  }

  async function openMemory(): Promise<Subject> {
    const disk = new MemoryDisk(createRng(1), { writeDelayMs: [0, 0], readDelayMs: [0, 0], segmentBytes: 100 });
    const factory = createMemoryEngineFactory(disk, realClock());
    return new Subject(await factory.open({ path: 'x', createIfMissing: true }), ({ elsewhere }) =>
      factory.open({ path: elsewhere ? 'x-missing' : 'x', createIfMissing: false }),
    );
  }

  test('answer every sequence of operations alike', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { minLength: 1, maxLength: 40 }), async (steps) => {
        const [level, memory] = await Promise.all([openLevel(), openMemory()]);
        try {
          for (const step of steps) {
            const [expected, actual] = await Promise.all([level.perform(step), memory.perform(step)]);
            expect(actual).toEqual(expected);
          }
          const all = { range: { start: new Uint8Array(0), end: new Uint8Array(0) }, limit: 1_000 };
          expect(await memory.engine.scan(all)).toEqual(await level.engine.scan(all));
        } finally {
          await Promise.all([level.engine.close(), memory.engine.close()]);
        }
      }),
      { numRuns: RUNS },
    );
  });

  test.each(REFUSALS)('refuse alike: %s', async (what) => {
    const [level, memory] = await Promise.all([openLevel(), openMemory()]);
    const said = await Promise.all([
      level.perform({ type: 'refused', what }),
      memory.perform({ type: 'refused', what }),
    ]);
    await Promise.all([level.engine.close(), memory.engine.close()]);
    expect(said[1]).toEqual(said[0]);
    // Only closing twice is no mistake.
    const accepted = [said[0]].flat().filter((word) => word === 'not refused');
    expect(accepted.length).toBe(what === 'a closed engine' ? 1 : 0);
  });
});
