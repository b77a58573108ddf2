/** The memory engine and the LevelDB engine answer every sequence of operations alike. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createLevelEngineFactory, createMemoryEngineFactory, MemoryDisk } from '../../src/engine/index.ts';
import type { Engine, EngineSnapshot } from '../../src/env/engine.ts';
import { realClock } from '../../src/env/real/index.ts';
import { createRng } from '../../src/env/rng.ts';

const RUNS = 150;
const SNAPSHOTS_MAX = 3;

type Operation =
  | { readonly type: 'write'; readonly changes: readonly (readonly [Uint8Array, Uint8Array | undefined])[] }
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

const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      type: fc.constant('write' as const),
      changes: fc.array(fc.tuple(key, fc.option(value, { nil: undefined })), { maxLength: 8 }),
    }),
  },
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

/** One engine and what a run keeps of it. */
class Subject {
  engine: Engine;
  readonly #reopen: () => Promise<Engine>;
  #snapshots: EngineSnapshot[] = [];

  constructor(engine: Engine, reopen: () => Promise<Engine>) {
    this.engine = engine;
    this.#reopen = reopen;
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
        this.engine = await this.#reopen();
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
    const open = (createIfMissing: boolean): Promise<Engine> => factory.open({ path, createIfMissing });
    return new Subject(await open(true), () => open(false));
  }

  async function openMemory(): Promise<Subject> {
    const disk = new MemoryDisk(createRng(1), { writeDelayMs: [0, 0], readDelayMs: [0, 0], segmentBytes: 100 });
    const factory = createMemoryEngineFactory(disk, realClock());
    const open = (createIfMissing: boolean): Promise<Engine> => factory.open({ path: 'x', createIfMissing });
    return new Subject(await open(true), () => open(false));
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
        } finally {
          await Promise.all([level.engine.close(), memory.engine.close()]);
        }
      }),
      { numRuns: RUNS },
    );
  });
});
