/**
 * The only storage interface. Semantics every implementation must have (and the contract suite checks):
 * - a batch is atomic and, once its promise resolves, durable against power loss;
 * - batches become visible and durable in the order of the `write` calls, however many are waiting;
 * - reads see every batch whose promise has resolved; a batch still in flight may or may not be visible;
 * - every value carries a checksum bound to its key, verified on every read;
 * - after any write, sync or open error the engine is poisoned: all later calls reject and `onPoisoned` fires once.
 */
import type { KeyRange } from '../base/key-range.ts';
import { AppError } from '../base/app-error.ts';

export interface WriteBatch {
  /** The bytes are taken over, not copied: do not change them before the write resolved. */
  put(key: Uint8Array, value: Uint8Array): void;
  del(key: Uint8Array): void;
  /** Operations so far. */
  readonly count: number;
  /** Sum of key and value lengths so far. */
  readonly bytes: number;
}

/** A frozen view of the engine. Must be closed; pins disk space until then. */
export interface EngineSnapshot {
  close(): void;
}

export interface ScanOptions {
  readonly range: KeyRange;
  /** Descending key order. Default false. */
  readonly reverse?: boolean;
  /** Page ends after this many entries (at least 1). */
  readonly limit: number;
  /** Page ends after the entry that reaches this many key and value bytes. Default 1 MiB. */
  readonly maxBytes?: number;
  /** Values come back empty and are not read. Default false. */
  readonly keysOnly?: boolean;
  readonly snapshot?: EngineSnapshot;
}

export interface ScanPage {
  readonly entries: readonly (readonly [Uint8Array, Uint8Array])[];
  /** Whether the page ended at `limit` or `maxBytes` with keys possibly left in the range. */
  readonly more: boolean;
}

export type EngineHealth = { readonly type: 'ok' } | { readonly type: 'poisoned'; readonly reason: string };

export interface Engine {
  createBatch(): WriteBatch;
  /** Enqueues a batch behind all earlier ones; resolves when it is durable. An empty batch resolves in order, too. */
  write(batch: WriteBatch): Promise<void>;
  /** Blocking read of one small record; about 6 µs when cached. Not for user-facing bulk reads. */
  getSync(key: Uint8Array): Uint8Array | undefined;
  get(key: Uint8Array, snapshot?: EngineSnapshot): Promise<Uint8Array | undefined>;
  /** Reads as of the moment of the call; results in the order of `keys`. */
  getMany(keys: readonly Uint8Array[], snapshot?: EngineSnapshot): Promise<(Uint8Array | undefined)[]>;
  /** One bounded page in key order, a consistent view of the moment of the call or of the snapshot. */
  scan(options: ScanOptions): Promise<ScanPage>;
  snapshot(): EngineSnapshot;
  /** Estimated bytes on disk in a key range; recent writes may be missing. */
  approximateSize(range: KeyRange): Promise<number>;
  health(): EngineHealth;
  /** Called once, synchronously, when the engine becomes poisoned. */
  onPoisoned(listener: (reason: string) => void): void;
  /** Waits for accepted writes, then closes. Idempotent. */
  close(): Promise<void>;
}

export interface EngineOptions {
  /** Directory of the database. */
  readonly path: string;
  /** Only bootstrap may create a database; everything else must find one. */
  readonly createIfMissing: boolean;
}

export interface EngineFactory {
  open(options: EngineOptions): Promise<Engine>;
}

/** The directory is locked by another process, missing, damaged or of another cluster; details say which. */
export class EngineOpenError extends AppError {
  constructor(message: string, hint: string, cause?: unknown) {
    super('EngineOpen', message, { hint, cause });
  }
}

/** A record's checksum does not match its key and content. */
export class CorruptionError extends AppError {
  constructor(message: string, details: Readonly<Record<string, unknown>>) {
    super('Corruption', message, {
      details,
      hint: 'the disk returned damaged data: take the store out of the cluster and let it be re-replicated',
    });
  }
}

/** The engine stopped after an earlier fault. */
export class EnginePoisonedError extends AppError {
  constructor(reason: string, cause?: unknown) {
    super('EnginePoisoned', `storage stopped after a fault: ${reason}`, { outcome: 'unknown', cause });
  }
}

/** The engine was closed in an orderly way. */
export class EngineClosedError extends AppError {
  constructor() {
    super('EngineClosed', 'storage is closed', { hint: 'the process is stopping; call another store' });
  }
}
