/**
 * The engine on LevelDB. Owns the database handle, its iterators and snapshots; adds what LevelDB lacks: order of
 * writes, group commit, fail-stop, checksums and a check of the log at open.
 *
 * LevelDB runs on libuv's thread pool, four threads by default and shared with file system and name lookups. The
 * process should start with `UV_THREADPOOL_SIZE` at {@link THREAD_POOL_SIZE_RECOMMENDED} or set the variable before
 * the first asynchronous call; otherwise readers queue behind synced writes.
 */
import { assert } from '../../base/assert.ts';
import { EMPTY_BYTES } from '../../base/bytes.ts';
import { isEmptyRange, type KeyRange } from '../../base/key-range.ts';
import type {
  Engine,
  EngineFactory,
  EngineHealth,
  EngineOptions,
  EngineSnapshot,
  ScanOptions,
  ScanPage,
  WriteBatch,
} from '../../env/engine.ts';
import { corruption, seal, unseal } from '../checksum.ts';
import { EngineGate } from '../engine-gate.ts';
import { SCAN_BYTES_DEFAULT, userScanRange } from '../scan-range.ts';
import { EngineWriteBatch } from '../write-batch.ts';
import { WriteQueue, type WriteGroup } from '../write-queue.ts';
import {
  nativeErrorCode,
  nativeErrorMessage,
  type NativeChainedBatch,
  type NativeDatabase,
  type NativeIterator,
  type NativeSnapshot,
} from './native.ts';
import { openChecked } from './open.ts';
import { ringRecord } from './ring.ts';

/** Value of `UV_THREADPOOL_SIZE` for a store process: one writer, compaction waits, and concurrent readers. */
export const THREAD_POOL_SIZE_RECOMMENDED = 16;
/** Cache of uncompressed table blocks. */
export const BLOCK_CACHE_BYTES_DEFAULT: number = 64 * 1024 * 1024;

/** Entries that one native call may return; keeps a call in the thread pool short. */
const PAGE_ENTRIES_MAX = 1024;
const PAGE_BYTES_MAX = 1024 * 1024;
/** Above every key: keys of users are compared with it only for size estimates. */
const LAST_KEY: Uint8Array = new Uint8Array(64).fill(0xff);

export interface LevelEngineConfig {
  /** Bytes of cached table blocks per database. Default {@link BLOCK_CACHE_BYTES_DEFAULT}. */
  readonly blockCacheBytes?: number;
}

class LevelSnapshot implements EngineSnapshot {
  readonly #onClose: (snapshot: LevelSnapshot) => void;
  #native: NativeSnapshot | undefined;

  constructor(native: NativeSnapshot, onClose: (snapshot: LevelSnapshot) => void) {
    this.#native = native;
    this.#onClose = onClose;
  }

  get native(): NativeSnapshot {
    assert(this.#native !== undefined, 'a snapshot is read after it was closed');
    return this.#native;
  }

  close(): void {
    if (this.#native !== undefined) {
      // Ends once reads that use it have finished; releasing a snapshot does no I/O and cannot fail.
      void this.#native.close();
      this.#native = undefined;
      this.#onClose(this);
    }
  }
}

const readOptions = (snapshot: EngineSnapshot | undefined): { snapshot: NativeSnapshot } | undefined => {
  if (snapshot === undefined) {
    return undefined;
  }
  assert(snapshot instanceof LevelSnapshot, 'a snapshot of another engine');
  return { snapshot: snapshot.native };
};

/** One physical batch: filled while the one before it is being synced. */
class LevelGroup implements WriteGroup {
  readonly #batch: NativeChainedBatch;
  readonly #takeNumber: () => number;
  #operations = 0;
  #bytes = 0;

  constructor(batch: NativeChainedBatch, takeNumber: () => number) {
    this.#batch = batch;
    this.#takeNumber = takeNumber;
  }

  append(batch: EngineWriteBatch): void {
    const { keys, values } = batch;
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as Uint8Array;
      const value = values[i];
      if (value === undefined) {
        this.#batch.del(key);
      } else {
        this.#batch.put(key, seal(key, value));
      }
    }
    this.#operations += batch.count;
    this.#bytes += batch.bytes;
  }

  commit(): Promise<void> {
    const [key, value] = ringRecord(this.#takeNumber(), this.#operations, this.#bytes);
    this.#batch.put(key, value);
    return this.#batch.write({ sync: true });
  }
}

class LevelEngine implements Engine {
  readonly #database: NativeDatabase;
  readonly #gate = new EngineGate();
  readonly #queue: WriteQueue;
  readonly #snapshots = new Set<LevelSnapshot>();
  #lastNumber: number;
  #running = 0;
  #onIdle: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(database: NativeDatabase, lastNumber: number) {
    this.#database = database;
    this.#lastNumber = lastNumber;
    const takeNumber = (): number => ++this.#lastNumber;
    this.#queue = new WriteQueue(this.#gate, () => new LevelGroup(database.batch(), takeNumber));
  }

  createBatch(): WriteBatch {
    return new EngineWriteBatch();
  }

  write(batch: WriteBatch): Promise<void> {
    assert(batch instanceof EngineWriteBatch, 'a batch of another engine');
    return this.#queue.write(batch);
  }

  getSync(key: Uint8Array): Uint8Array | undefined {
    this.#gate.check();
    let stored: Uint8Array | undefined;
    try {
      stored = this.#database.getSync(key);
    } catch (error) {
      throw readError(key, error);
    }
    return stored === undefined ? undefined : unseal(key, stored);
  }

  get(key: Uint8Array, snapshot?: EngineSnapshot): Promise<Uint8Array | undefined> {
    return this.#read(async () => {
      const stored = await this.#database.get(key, readOptions(snapshot)).catch((error: unknown) => {
        throw readError(key, error);
      });
      return stored === undefined ? undefined : unseal(key, stored);
    });
  }

  getMany(keys: readonly Uint8Array[], snapshot?: EngineSnapshot): Promise<(Uint8Array | undefined)[]> {
    return this.#read(async () => {
      if (keys.length === 0) {
        return [];
      }
      const stored = await this.#database.getMany(keys, readOptions(snapshot)).catch((error: unknown) => {
        throw readError(keys[0] as Uint8Array, error);
      });
      return stored.map((value, i) => (value === undefined ? undefined : unseal(keys[i] as Uint8Array, value)));
    });
  }

  scan(options: ScanOptions): Promise<ScanPage> {
    return this.#read(async () => {
      assert(options.limit >= 1, 'a scan page needs room for one entry', { limit: options.limit });
      const range = userScanRange(options.range);
      if (isEmptyRange(range)) {
        return { entries: [], more: false };
      }
      const maxBytes = options.maxBytes ?? SCAN_BYTES_DEFAULT;
      const keysOnly = options.keysOnly ?? false;
      const iterator = this.#database.iterator({
        gte: range.start,
        ...(range.end.length === 0 ? {} : { lt: range.end }),
        reverse: options.reverse ?? false,
        values: !keysOnly,
        highWaterMarkBytes: Math.min(maxBytes, PAGE_BYTES_MAX),
        fillCache: true,
        ...readOptions(options.snapshot),
      });
      try {
        return await readPage(iterator, options.limit, maxBytes, keysOnly);
      } catch (error) {
        throw readError(range.start, error);
      } finally {
        await iterator.close();
      }
    });
  }

  snapshot(): EngineSnapshot {
    this.#gate.check();
    const snapshot = new LevelSnapshot(this.#database.snapshot(), (closed) => this.#snapshots.delete(closed));
    this.#snapshots.add(snapshot);
    return snapshot;
  }

  approximateSize(range: KeyRange): Promise<number> {
    return this.#read(async () => {
      const { start, end } = userScanRange(range);
      if (isEmptyRange({ start, end })) {
        return 0;
      }
      return this.#database.approximateSize(start, end.length === 0 ? LAST_KEY : end);
    });
  }

  health(): EngineHealth {
    return this.#gate.health();
  }

  onPoisoned(listener: (reason: string) => void): void {
    this.#gate.onPoisoned(listener);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#gate.startClosing();
    await this.#queue.whenIdle();
    if (this.#running > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    for (const snapshot of this.#snapshots) {
      snapshot.close();
    }
    await this.#database.close();
    this.#gate.finishClosing();
  }

  /** Runs a read and counts it, so that close can wait. The call into the database happens before this returns. */
  async #read<T>(body: () => Promise<T>): Promise<T> {
    this.#gate.check();
    this.#running++;
    try {
      return await body();
    } finally {
      this.#running--;
      if (this.#running === 0) {
        this.#onIdle?.();
      }
    }
  }
}

async function readPage(
  iterator: NativeIterator,
  limit: number,
  maxBytes: number,
  keysOnly: boolean,
): Promise<ScanPage> {
  const entries: [Uint8Array, Uint8Array][] = [];
  let bytes = 0;
  for (;;) {
    const found = await iterator.nextv(Math.min(limit - entries.length, PAGE_ENTRIES_MAX));
    if (found.length === 0) {
      return { entries, more: false };
    }
    for (const [nativeKey, stored] of found) {
      const key = new Uint8Array(nativeKey.buffer, nativeKey.byteOffset, nativeKey.length);
      const value = keysOnly ? EMPTY_BYTES : unseal(key, stored);
      entries.push([key, value]);
      bytes += key.length + value.length;
      if (entries.length >= limit || bytes >= maxBytes) {
        return { entries, more: true };
      }
    }
  }
}

/** Read faults do not poison the engine: only the replica that owns the key has to stop. */
function readError(key: Uint8Array, error: unknown): unknown {
  const code = nativeErrorCode(error);
  return code === 'LEVEL_CORRUPTION' || code === 'LEVEL_IO_ERROR'
    ? corruption(key, `the database cannot read its files: ${nativeErrorMessage(error)}`)
    : error;
}

/** Engines on LevelDB directories. */
export function createLevelEngineFactory(config: LevelEngineConfig = {}): EngineFactory {
  return {
    async open(options: EngineOptions): Promise<Engine> {
      const opened = await openChecked(options, config.blockCacheBytes ?? BLOCK_CACHE_BYTES_DEFAULT);
      return new LevelEngine(opened.database, opened.lastNumber);
    },
  };
}
