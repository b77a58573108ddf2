/**
 * The door to the `level` package: the part of its interface in use, and what its error codes mean. No other file
 * imports it. All keys and values are byte strings.
 */
import { Level } from 'level';

/** Options of the embedded LevelDB that matter here; sizes in bytes. */
export interface NativeOptions {
  readonly createIfMissing: boolean;
  /** Fails if there is a database, before anything in it is touched. Default false. */
  readonly errorIfExists?: boolean;
  readonly writeBufferSize: number;
  readonly cacheSize: number;
  readonly maxFileSize: number;
  readonly maxOpenFiles: number;
}

export interface NativeSnapshot {
  close(): Promise<void>;
}

export interface NativeReadOptions {
  readonly snapshot?: NativeSnapshot;
}

export interface NativeIteratorOptions extends NativeReadOptions {
  readonly gte?: Uint8Array;
  readonly lt?: Uint8Array;
  readonly reverse: boolean;
  readonly values: boolean;
  /** A page of `nextv` ends after the entry that exceeds it; default 16 KiB. */
  readonly highWaterMarkBytes: number;
  readonly fillCache: boolean;
}

export interface NativeIterator {
  /** Up to `size` entries; empty at the end of the range. Fewer entries do not mean the end. */
  nextv(size: number): Promise<[Uint8Array, Uint8Array][]>;
  close(): Promise<void>;
}

export interface NativeChainedBatch {
  put(key: Uint8Array, value: Uint8Array): void;
  del(key: Uint8Array): void;
  write(options: { readonly sync: boolean }): Promise<void>;
  close(): Promise<void>;
}

/** Reads see the database as of the moment of the call. Writes that overlap are applied in any order. */
export interface NativeDatabase {
  close(): Promise<void>;
  get(key: Uint8Array, options?: NativeReadOptions): Promise<Uint8Array | undefined>;
  getSync(key: Uint8Array): Uint8Array | undefined;
  getMany(keys: readonly Uint8Array[], options?: NativeReadOptions): Promise<(Uint8Array | undefined)[]>;
  iterator(options: NativeIteratorOptions): NativeIterator;
  snapshot(): NativeSnapshot;
  approximateSize(start: Uint8Array, end: Uint8Array): Promise<number>;
  batch(): NativeChainedBatch;
}

/** Opens a database. Rejects with the package's own error; see {@link nativeErrorCode}. */
export async function openNative(path: string, options: NativeOptions): Promise<NativeDatabase> {
  const level = new Level<Uint8Array, Uint8Array>(path, { keyEncoding: 'view', valueEncoding: 'view', ...options });
  // Called in the same turn as the constructor, which would otherwise open it by itself and swallow the error.
  await level.open();
  return level as unknown as NativeDatabase;
}

/** The most specific `LEVEL_…` code of an error; the code of a failed open is in its cause. */
export function nativeErrorCode(error: unknown): string | undefined {
  let code: string | undefined;
  for (let e = error, depth = 0; e instanceof Error && depth < 4; e = e.cause, depth++) {
    const own = (e as { code?: unknown }).code;
    if (typeof own === 'string') {
      code = own;
    }
  }
  return code;
}

/** The message of the innermost cause, where LevelDB says what happened. */
export function nativeErrorMessage(error: unknown): string {
  let message = String(error);
  for (let e = error, depth = 0; e instanceof Error && depth < 4; e = e.cause, depth++) {
    message = e.message;
  }
  return message;
}
