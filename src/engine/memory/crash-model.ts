/**
 * A disk for the memory engine: what is durable, what a crash leaves, and which faults a disk may show. It outlives the
 * engines opened on it, as a disk outlives processes. The model follows what LevelDB was observed to do rather than
 * an idealized log:
 *
 * - a batch is one log record and survives as a whole or not at all (a torn tail drops it);
 * - a sync makes the current log segment durable up to that record; an older segment becomes durable when its
 *   contents were flushed to tables, some time after the next segment began;
 * - after a failed write the segment is misaligned: later records of it vanish at the next open, although they were
 *   acknowledged. Only an engine that stops at the first failure is safe;
 * - after a failed sync the record may or may not be there at the next open;
 * - a gap in the record numbers found at open proves silent loss, and the database is refused for good.
 *
 * All chance comes from the disk's own generator, so the same seed gives the same disk.
 */
import { assert } from '../../base/assert.ts';
import { copyBytes, equalBytes } from '../../base/bytes.ts';
import { KeyMap } from '../../base/key-map.ts';
import { EngineOpenError } from '../../env/engine.ts';
import type { Rng } from '../../env/rng.ts';
import type { EngineWriteBatch } from '../write-batch.ts';

/**
 * `kill`: the process dies, the page cache survives. `power-loss`: whatever was not synced may be gone, or a part of it.
 * `lose-unsynced`: all of it is gone. `keep-all`: nothing is, a write that was in flight included.
 */
export type CrashKind = 'kill' | 'power-loss' | 'lose-unsynced' | 'keep-all';

/**
 * What happens to the next write. `write-error` and `no-space`: rejected and not in the log. `sync-error`: rejected,
 * and perhaps there after a restart. `stuck`: never completes.
 */
export type WriteFault = 'write-error' | 'no-space' | 'sync-error' | 'stuck';

/** Bounds of a uniform delay in milliseconds. */
export type DelayRange = readonly [minMs: number, maxMs: number];

export interface DiskBehavior {
  readonly writeDelayMs: DelayRange;
  readonly readDelayMs: DelayRange;
  /** Share of reads and writes that take {@link slowDelayMs} instead. */
  readonly slowChance: number;
  readonly slowDelayMs: DelayRange;
  /** Share of writes that are visible to readers before their promise resolves. */
  readonly earlyVisibleChance: number;
  readonly writeErrorChance: number;
  readonly syncErrorChance: number;
  /** A log segment takes no further record once it holds this many bytes. */
  readonly segmentBytes: number;
  /** The disk acknowledges syncs without making anything durable. Outside every promise; for refusal tests. */
  readonly isSyncIgnored: boolean;
}

export const DISK_BEHAVIOR_DEFAULT: DiskBehavior = Object.freeze({
  writeDelayMs: [0.2, 2] as const,
  readDelayMs: [0.02, 0.2] as const,
  slowChance: 0,
  slowDelayMs: [100, 5000] as const,
  earlyVisibleChance: 0.1,
  writeErrorChance: 0,
  syncErrorChance: 0,
  segmentBytes: 64 * 1024,
  isSyncIgnored: false,
});

/** A record of the log: one physical batch. */
export interface LogRecord {
  readonly number: number;
  readonly batches: readonly EngineWriteBatch[];
  readonly bytes: number;
  /** Written completely; false while the write is in flight and after a failed sync. */
  isWritten: boolean;
  isSynced: boolean;
  /** Will be skipped at the next open. */
  isUnreadable: boolean;
}

interface Segment {
  records: LogRecord[];
  bytes: number;
  isMisaligned: boolean;
}

/** Table files: everything up to record `number`. */
interface Tables {
  readonly map: KeyMap<Uint8Array>;
  readonly number: number;
}

interface DatabaseImage {
  readonly tables: Tables;
  readonly segments: readonly Segment[];
  readonly damage: string | undefined;
}

/** Everything on a disk at one moment, for tests that roll a disk back. */
export interface DiskImage {
  readonly databases: ReadonlyMap<string, DatabaseImage>;
}

const newSegment = (): Segment => ({ records: [], bytes: 0, isMisaligned: false });
const cloneSegment = (segment: Segment): Segment => ({
  records: segment.records.map((record) => ({ ...record })),
  bytes: segment.bytes,
  isMisaligned: segment.isMisaligned,
});

function applyRecord(map: KeyMap<Uint8Array>, record: LogRecord): void {
  for (const { keys, values } of record.batches) {
    for (let i = 0; i < keys.length; i++) {
      const value = values[i];
      if (value === undefined) {
        map.delete(keys[i] as Uint8Array);
      } else {
        map.set(keys[i] as Uint8Array, value);
      }
    }
  }
}

/** One database directory on a {@link MemoryDisk}. Only the memory engine calls it. */
export class MemoryDatabase {
  readonly path: string;
  readonly disk: MemoryDisk;
  /** What readers see. */
  view: KeyMap<Uint8Array> = new KeyMap<Uint8Array>();
  /** The engine that has the database open. */
  owner: object | undefined;
  /** Sees every record that becomes visible; calls `apply` once, which makes it so. For checkers. */
  watch: ((record: LogRecord, apply: () => void) => void) | undefined;
  #tables: Tables = { map: new KeyMap<Uint8Array>(), number: 0 };
  #flushing: Tables | undefined;
  #segments: Segment[] = [newSegment()];
  #lastNumber = 0;
  #damage: string | undefined;
  readonly #damagedValues = new WeakSet<Uint8Array>();

  constructor(disk: MemoryDisk, path: string) {
    this.disk = disk;
    this.path = path;
  }

  /** Recovers from the log and hands the database to `owner`. @throws EngineOpenError */
  open(owner: object): void {
    const { path } = this;
    if (this.owner !== undefined) {
      throw new EngineOpenError(`the database at ${path} is in use`, `stop the process that holds ${path} first`);
    }
    if (this.#damage === undefined) {
      this.#recover();
    }
    if (this.#damage !== undefined) {
      throw new EngineOpenError(
        `the database at ${path} is damaged: ${this.#damage}`,
        `keep ${path} aside for analysis and start an empty store under a new id`,
      );
    }
    this.owner = owner;
  }

  release(): void {
    this.owner = undefined;
  }

  /** Starts writing a record behind all others. */
  begin(batches: readonly EngineWriteBatch[], bytes: number): LogRecord {
    let segment = this.#segments.at(-1) as Segment;
    if (segment.bytes >= this.disk.behavior.segmentBytes) {
      segment = this.#rotate();
    }
    const record: LogRecord = {
      number: ++this.#lastNumber,
      batches,
      bytes,
      isWritten: false,
      isSynced: false,
      isUnreadable: segment.isMisaligned,
    };
    segment.records.push(record);
    segment.bytes += bytes;
    return record;
  }

  /** The record is written, synced and visible. */
  complete(record: LogRecord): void {
    record.isWritten = true;
    record.isSynced = !this.disk.behavior.isSyncIgnored;
    if (this.watch === undefined) {
      applyRecord(this.view, record);
    } else {
      this.watch(record, () => applyRecord(this.view, record));
    }
  }

  /** The write failed: the record is not in the log, and what follows in this segment cannot be read back. */
  failWrite(record: LogRecord): void {
    const segment = this.#segments.at(-1) as Segment;
    assert(segment.records.at(-1) === record, 'only the last record can fail', { number: record.number });
    segment.records.pop();
    segment.isMisaligned = true;
  }

  /** The sync failed: the record is not visible, but may be there after a restart. */
  failSync(record: LogRecord, rng: Rng): void {
    record.isWritten = rng.chance(0.5);
  }

  /** The process died or the machine lost power; decides what is left of the log. */
  crash(kind: CrashKind, rng: Rng): void {
    this.owner = undefined;
    for (const segment of this.#segments) {
      const { records } = segment;
      let kept = records.length;
      if (kind === 'keep-all') {
        for (const record of records) {
          record.isWritten = true;
        }
      } else if (kind !== 'kill') {
        const synced = records.findLastIndex((record) => record.isSynced) + 1;
        kept =
          kind === 'lose-unsynced'
            ? synced
            : rng.pick([records.length, synced, synced + rng.below(records.length - synced + 1)]);
      }
      // Half a record is no record: whether the last write system call finished decides all of it.
      segment.records = records.slice(0, kept).filter((record) => record.isWritten || rng.chance(0.5));
      for (const record of segment.records) {
        record.isWritten = true;
      }
    }
    this.view = new KeyMap<Uint8Array>();
  }

  /** Flips a bit of the stored value: reading it fails its checksum from now on. False if the key is absent. */
  damageValue(key: Uint8Array): boolean {
    const value = this.view.get(key) ?? this.#tables.map.get(key);
    if (value === undefined) {
      return false;
    }
    const damaged = copyBytes(value);
    this.#damagedValues.add(damaged);
    for (const map of [this.view, this.#tables.map, this.#flushing?.map]) {
      if (map?.get(key) === value) {
        map.set(key, damaged);
      }
    }
    for (const record of this.#segments.flatMap((segment) => segment.records)) {
      for (const { keys, values } of record.batches) {
        for (const [i, candidate] of keys.entries()) {
          if (values[i] === value && equalBytes(candidate, key)) {
            values[i] = damaged;
          }
        }
      }
    }
    return true;
  }

  isDamaged(value: Uint8Array): boolean {
    return this.#damagedValues.has(value);
  }

  /**
   * Makes a run of records in the middle of the log unreadable: the next open skips them silently and keeps later
   * ones. Returns how many; 0 if the log is too short.
   */
  damageLog(rng: Rng): number {
    const records = this.#segments.flatMap((segment) => segment.records).filter((record) => record.isWritten);
    if (records.length < 2) {
      return 0;
    }
    const from = rng.below(records.length - 1);
    const count = 1 + rng.below(records.length - 1 - from);
    for (const record of records.slice(from, from + count)) {
      record.isUnreadable = true;
    }
    return count;
  }

  /** Makes every later open fail, as a lost or unreadable file of LevelDB does. */
  damageFiles(what: string): void {
    this.#damage = what;
  }

  saveImage(): DatabaseImage {
    return {
      tables: { map: this.#tables.map.clone(), number: this.#tables.number },
      segments: this.#segments.map(cloneSegment),
      damage: this.#damage,
    };
  }

  restoreImage(image: DatabaseImage): void {
    this.owner = undefined;
    this.#tables = { map: image.tables.map.clone(), number: image.tables.number };
    this.#flushing = undefined;
    this.#segments = image.segments.map(cloneSegment);
    this.#damage = image.damage;
  }

  /** Starts a new segment. The previous one is being flushed to tables; the one before that has become durable. */
  #rotate(): Segment {
    if (this.#flushing !== undefined) {
      this.#tables = this.#flushing;
      this.#segments = this.#segments.filter((segment) => {
        const last = segment.records.at(-1);
        return last !== undefined && last.number > this.#tables.number;
      });
    }
    this.#flushing = { map: this.view.clone(), number: this.#lastNumber };
    const segment = newSegment();
    this.#segments.push(segment);
    return segment;
  }

  /** Replays the log; ends with an empty log and everything in tables, as LevelDB does. */
  #recover(): void {
    const map = this.#tables.map.clone();
    let number = this.#tables.number;
    for (const record of this.#segments.flatMap((segment) => segment.records)) {
      if (record.isUnreadable || !record.isWritten || record.number <= this.#tables.number) {
        continue;
      }
      if (record.number !== number + 1) {
        this.#damage = `it lost acknowledged writes: batch ${number + 1} is missing before batch ${record.number}`;
        return;
      }
      applyRecord(map, record);
      number = record.number;
    }
    this.#tables = { map, number };
    this.#flushing = undefined;
    this.#segments = [newSegment()];
    this.#lastNumber = number;
    this.view = map.clone();
  }
}

/** All databases of one machine, by path. */
export class MemoryDisk {
  readonly #crashRng: Rng;
  readonly #delayRng: Rng;
  readonly #faultRng: Rng;
  readonly #databases = new Map<string, MemoryDatabase>();
  #behavior: DiskBehavior;
  #nextFault: WriteFault | undefined;

  constructor(rng: Rng, behavior: Partial<DiskBehavior> = {}) {
    this.#crashRng = rng.fork('crash');
    this.#delayRng = rng.fork('delay');
    this.#faultRng = rng.fork('fault');
    this.#behavior = { ...DISK_BEHAVIOR_DEFAULT, ...behavior };
  }

  get behavior(): DiskBehavior {
    return this.#behavior;
  }

  /** Changes how the disk behaves from now on. */
  setBehavior(change: Partial<DiskBehavior>): void {
    this.#behavior = { ...this.#behavior, ...change };
  }

  /** Lets the next write of any database fail in this way. */
  failNextWrite(fault: WriteFault): void {
    this.#nextFault = fault;
  }

  /** Takes back a fault that has not struck yet. */
  clearFaults(): void {
    this.#nextFault = undefined;
  }

  /** Paths of the databases on this disk, in order of creation. */
  get paths(): readonly string[] {
    return [...this.#databases.keys()];
  }

  /** The database at `path`, for damaging it. */
  database(path: string): MemoryDatabase | undefined {
    return this.#databases.get(path);
  }

  /** @throws EngineOpenError if it is missing and must not be created. */
  findOrCreate(path: string, createIfMissing: boolean): MemoryDatabase {
    let database = this.#databases.get(path);
    if (database === undefined) {
      if (!createIfMissing) {
        throw new EngineOpenError(`there is no directory ${path}`, 'a new store must be bootstrapped first');
      }
      database = new MemoryDatabase(this, path);
      this.#databases.set(path, database);
    }
    return database;
  }

  /**
   * Ends every engine on this disk as a crash would: calls of theirs never settle, and what was not durable may be
   * gone. The databases can be opened again afterwards.
   */
  crash(kind: CrashKind): void {
    for (const database of this.#databases.values()) {
      if (database.owner !== undefined) {
        database.crash(kind, this.#crashRng);
      }
    }
  }

  /** A write whose sync failed; see {@link MemoryDatabase.failSync}. */
  failSync(database: MemoryDatabase, record: LogRecord): void {
    database.failSync(record, this.#faultRng);
  }

  /** Damages a random stretch of a log; see {@link MemoryDatabase.damageLog}. */
  damageLog(path: string): number {
    return this.#databases.get(path)?.damageLog(this.#faultRng) ?? 0;
  }

  /** Replaces the disk by an empty one. */
  wipe(): void {
    for (const database of this.#databases.values()) {
      database.release();
    }
    this.#databases.clear();
  }

  saveImage(): DiskImage {
    return { databases: new Map([...this.#databases].map(([path, database]) => [path, database.saveImage()])) };
  }

  /** Puts an old image back; every engine must have been crashed or closed. */
  restoreImage(image: DiskImage): void {
    this.wipe();
    for (const [path, databaseImage] of image.databases) {
      this.findOrCreate(path, true).restoreImage(databaseImage);
    }
  }

  readDelayMs(): number {
    return this.#delayMs(this.#behavior.readDelayMs);
  }

  writeDelayMs(): number {
    return this.#delayMs(this.#behavior.writeDelayMs);
  }

  /** Whether the write being completed becomes visible before it is acknowledged. */
  isEarlyVisible(): boolean {
    return this.#behavior.earlyVisibleChance > 0 && this.#delayRng.chance(this.#behavior.earlyVisibleChance);
  }

  /** The fault of the write that starts now. */
  takeWriteFault(): WriteFault | undefined {
    const fault = this.#nextFault;
    if (fault !== undefined) {
      this.#nextFault = undefined;
      return fault;
    }
    if (this.#behavior.writeErrorChance > 0 && this.#faultRng.chance(this.#behavior.writeErrorChance)) {
      return 'write-error';
    }
    return this.#behavior.syncErrorChance > 0 && this.#faultRng.chance(this.#behavior.syncErrorChance)
      ? 'sync-error'
      : undefined;
  }

  #delayMs(range: DelayRange): number {
    const isSlow = this.#behavior.slowChance > 0 && this.#delayRng.chance(this.#behavior.slowChance);
    const [min, max] = isSlow ? this.#behavior.slowDelayMs : range;
    return min + this.#delayRng.float() * (max - min);
  }
}
