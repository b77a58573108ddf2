/**
 * The engine in memory, for the simulator and fast tests. Same contract as the one on LevelDB, on a {@link MemoryDisk}
 * instead of files. Every completion arrives through the clock, never within the call. Calls of an engine whose disk
 * crashed stay unsettled for ever: a dead process runs no error handlers.
 */
import { assert } from '../../base/assert.ts';
import { compareBytes, copyBytes, EMPTY_BYTES } from '../../base/bytes.ts';
import type { KeyMap } from '../../base/key-map.ts';
import { isBeforeEnd, isEmptyRange, type KeyRange } from '../../base/key-range.ts';
import type { Clock } from '../../env/clock.ts';
import {
  EngineClosedError,
  type Engine,
  type EngineFactory,
  type EngineHealth,
  type EngineOptions,
  type EngineSnapshot,
  type ScanOptions,
  type ScanPage,
  type WriteBatch,
} from '../../env/engine.ts';
import { corruption } from '../checksum.ts';
import { EngineGate } from '../engine-gate.ts';
import { SCAN_BYTES_DEFAULT, userScanRange } from '../scan-range.ts';
import { EngineWriteBatch } from '../write-batch.ts';
import { WriteQueue, type WriteGroup } from '../write-queue.ts';
import type { LogRecord, MemoryDatabase, MemoryDisk } from './crash-model.ts';

/** Bytes an operation takes in the log besides key and value. */
const RECORD_OVERHEAD_BYTES = 12;

const never = <T>(): Promise<T> => new Promise<T>(() => {});

class MemorySnapshot implements EngineSnapshot {
  readonly database: MemoryDatabase;
  readonly #onClose: (snapshot: MemorySnapshot) => void;
  #map: KeyMap<Uint8Array> | undefined;

  constructor(database: MemoryDatabase, onClose: (snapshot: MemorySnapshot) => void) {
    this.database = database;
    this.#map = database.view.clone();
    this.#onClose = onClose;
  }

  get map(): KeyMap<Uint8Array> {
    assert(this.#map !== undefined, 'a snapshot is read after it was closed');
    return this.#map;
  }

  close(): void {
    this.#map = undefined;
    this.#onClose(this);
  }
}

class MemoryGroup implements WriteGroup {
  readonly #batches: EngineWriteBatch[] = [];
  readonly #commit: (batches: readonly EngineWriteBatch[], bytes: number) => Promise<void>;
  #bytes = 0;

  constructor(commit: (batches: readonly EngineWriteBatch[], bytes: number) => Promise<void>) {
    this.#commit = commit;
  }

  append(batch: EngineWriteBatch): void {
    this.#batches.push(batch);
    this.#bytes += batch.bytes + batch.count * RECORD_OVERHEAD_BYTES;
  }

  commit(): Promise<void> {
    return this.#commit(this.#batches, this.#bytes);
  }
}

class MemoryEngine implements Engine {
  readonly #database: MemoryDatabase;
  readonly #disk: MemoryDisk;
  readonly #clock: Clock;
  readonly #gate = new EngineGate();
  readonly #queue: WriteQueue;
  readonly #snapshots = new Set<MemorySnapshot>();
  #running = 0;
  #onIdle: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(database: MemoryDatabase, disk: MemoryDisk, clock: Clock) {
    this.#database = database;
    this.#disk = disk;
    this.#clock = clock;
    database.open(this);
    this.#queue = new WriteQueue(this.#gate, () => new MemoryGroup((batches, bytes) => this.#commit(batches, bytes)));
  }

  createBatch(): WriteBatch {
    return new EngineWriteBatch();
  }

  write(batch: WriteBatch): Promise<void> {
    assert(batch instanceof EngineWriteBatch, 'a batch of another engine');
    const isSilent = !this.#isAlive && this.#gate.refusal() === undefined;
    return isSilent ? never() : this.#queue.write(batch);
  }

  getSync(key: Uint8Array): Uint8Array | undefined {
    this.#gate.check();
    if (!this.#isAlive) {
      throw new EngineClosedError();
    }
    return this.#valueOf(key, this.#database.view);
  }

  get(key: Uint8Array, snapshot?: EngineSnapshot): Promise<Uint8Array | undefined> {
    return this.#read(() => this.#valueOf(key, this.#mapOf(snapshot)));
  }

  getMany(keys: readonly Uint8Array[], snapshot?: EngineSnapshot): Promise<(Uint8Array | undefined)[]> {
    return this.#read(() => {
      const map = this.#mapOf(snapshot);
      return keys.map((key) => this.#valueOf(key, map));
    });
  }

  scan(options: ScanOptions): Promise<ScanPage> {
    return this.#read(() => this.#scan(options));
  }

  snapshot(): EngineSnapshot {
    this.#gate.check();
    const snapshot = new MemorySnapshot(this.#database, (closed) => this.#snapshots.delete(closed));
    this.#snapshots.add(snapshot);
    return snapshot;
  }

  approximateSize(range: KeyRange): Promise<number> {
    return this.#read(() => {
      const { start, end } = userScanRange(range);
      let bytes = 0;
      for (const [key, value] of this.#database.view.entriesFrom(start)) {
        if (!isBeforeEnd(key, end)) {
          break;
        }
        bytes += key.length + value.length;
      }
      return bytes;
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

  get #isAlive(): boolean {
    return this.#database.owner === this;
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
    if (this.#isAlive) {
      this.#database.release();
    }
    this.#gate.finishClosing();
  }

  #commit(batches: readonly EngineWriteBatch[], bytes: number): Promise<void> {
    if (!this.#isAlive) {
      return never();
    }
    const record = this.#database.begin(batches, bytes);
    const fault = this.#disk.takeWriteFault();
    const delayMs = this.#disk.writeDelayMs();
    if (fault !== undefined) {
      return this.#failCommit(record, fault, delayMs);
    }
    const isEarly = this.#disk.isEarlyVisible();
    return new Promise((resolve) => {
      if (isEarly) {
        this.#after(delayMs / 2, 'engine-sync', () => {
          // Timers of a real clock may fire late and out of order; what is resolved must never be applied again.
          if (!record.isWritten) {
            this.#database.complete(record);
          }
        });
      }
      this.#after(delayMs, 'engine-write', () => {
        if (!record.isWritten) {
          this.#database.complete(record);
        }
        resolve();
      });
    });
  }

  #failCommit(record: LogRecord, fault: string, delayMs: number): Promise<void> {
    if (fault === 'stuck') {
      return never();
    }
    return new Promise((_resolve, reject) => {
      this.#after(delayMs, 'engine-write', () => {
        if (fault === 'sync-error') {
          this.#disk.failSync(this.#database, record);
        } else {
          this.#database.failWrite(record);
        }
        reject(new Error(`injected ${fault}`));
      });
    });
  }

  /** Computes a result now and delivers it, or the error, after the delay of a read. */
  #read<T>(body: () => T): Promise<T> {
    const refusal = this.#gate.refusal();
    if (refusal !== undefined) {
      return Promise.reject(refusal);
    }
    if (!this.#isAlive) {
      return never();
    }
    let result: { readonly value: T } | { readonly error: unknown };
    try {
      result = { value: body() };
    } catch (error) {
      result = { error };
    }
    this.#running++;
    return new Promise((resolve, reject) => {
      this.#after(this.#disk.readDelayMs(), 'engine-read', () => {
        if ('error' in result) {
          reject(result.error);
        } else {
          resolve(result.value);
        }
        this.#running--;
        if (this.#running === 0) {
          this.#onIdle?.();
        }
      });
    });
  }

  /** Like a timer, but nothing happens any more once the disk has crashed. */
  #after(delayMs: number, tag: string, fn: () => void): void {
    this.#clock.setTimer(
      delayMs,
      () => {
        if (this.#isAlive) {
          fn();
        }
      },
      tag,
    );
  }

  #mapOf(snapshot: EngineSnapshot | undefined): KeyMap<Uint8Array> {
    if (snapshot === undefined) {
      return this.#database.view;
    }
    assert(snapshot instanceof MemorySnapshot && snapshot.database === this.#database, 'a snapshot of another engine');
    return snapshot.map;
  }

  #valueOf(key: Uint8Array, map: KeyMap<Uint8Array>): Uint8Array | undefined {
    const value = map.get(key);
    return value === undefined ? undefined : this.#checked(key, value);
  }

  /** A copy of a stored value, as reading a file would give. */
  #checked(key: Uint8Array, value: Uint8Array): Uint8Array {
    if (this.#database.isDamaged(value)) {
      throw corruption(key, 'the stored value does not match its checksum');
    }
    return copyBytes(value);
  }

  #scan(options: ScanOptions): ScanPage {
    const { limit, maxBytes = SCAN_BYTES_DEFAULT, keysOnly = false, reverse = false } = options;
    assert(limit >= 1, 'a scan page needs room for one entry', { limit });
    const range = userScanRange(options.range);
    const map = this.#mapOf(options.snapshot);
    const entries: [Uint8Array, Uint8Array][] = [];
    if (isEmptyRange(range)) {
      return { entries, more: false };
    }
    let bytes = 0;
    for (const [key, stored] of reverse ? map.entriesBelow(range.end) : map.entriesFrom(range.start)) {
      if (reverse ? compareBytes(key, range.start) < 0 : !isBeforeEnd(key, range.end)) {
        break;
      }
      const value = keysOnly ? EMPTY_BYTES : this.#checked(key, stored);
      entries.push([copyBytes(key), value]);
      bytes += key.length + value.length;
      if (entries.length >= limit || bytes >= maxBytes) {
        return { entries, more: true };
      }
    }
    return { entries, more: false };
  }
}

/**
 * Engines on a simulated disk.
 * @param clock delivers completions; an incarnation's own clock, so that they end with it
 */
export function createMemoryEngineFactory(disk: MemoryDisk, clock: Clock): EngineFactory {
  return {
    open(options: EngineOptions): Promise<Engine> {
      return new Promise((resolve, reject) => {
        clock.setTimer(
          disk.readDelayMs(),
          () => {
            try {
              const database = disk.findOrCreate(options.path, options.createIfMissing);
              resolve(new MemoryEngine(database, disk, clock));
            } catch (error) {
              reject(error);
            }
          },
          'engine-open',
        );
      });
    },
  };
}
