/**
 * The data interface of the SDK. A `Braid` is a cheap immutable view: `sub`, `withCodec` and `with` make further views
 * that share one connection. Bytes passed in are read before the call returns; bytes handed out belong to the caller.
 */
import { EMPTY_BYTES, concatBytes, copyBytes, keyAfter, prefixEnd } from '../base/bytes.ts';
import type { PeerId, RegionId, StoreId } from '../base/ids.ts';
import type { KeyRange } from '../base/key-range.ts';
import type { Peer, PeerRole, Region, RegionEpoch } from '../meta/region.ts';
import { AdminClient } from './admin.ts';
import { type BatchWrite, type WriteResult, getMany, writeMany } from './batch.ts';
import { type CallLimits, type ReadMode, keyText } from './call.ts';
import { type Codec, type KeyCodec, bytesCodec } from './codecs.ts';
import type { Entry } from './command.ts';
import type { ClientCore } from './core.ts';
import {
  DRAIN_MS_DEFAULT,
  ENTRY_BYTES_MAX,
  KEY_BYTES_MAX,
  REGIONS_PAGE,
  SCAN_PAGE_DEFAULT,
  SCAN_PAGE_MAX,
} from './defaults.ts';
import { BraidError, EntryTooLargeError, InvalidArgumentError } from './errors.ts';
import { type CallOptions, requireCount, requireKnownOptions, requireTimeoutMs } from './options.ts';
import { requireNonEmptyRange } from './ranges.ts';
import { Scan, rangeAfter } from './scan.ts';

/** What may be passed where a `T` is stored: where bytes are stored, a string stands for its UTF-8 bytes. */
export type Input<T> = Uint8Array extends T ? T | string : T;

export interface ReadOptions extends CallOptions {
  /** `leader` (default) reads at the leader; `follower` at another replica when one can serve. Both are linearizable. */
  readonly read?: ReadMode;
}

export interface PutOptions extends CallOptions {
  /** The entry disappears after this long, ms; rounded up to whole seconds. */
  readonly ttlMs?: number;
  /** Write only if the key has no value. */
  readonly ifAbsent?: boolean;
}

export interface PutResult {
  /** False only with `ifAbsent`, when the key had a value. */
  readonly written: boolean;
}

export interface CompareAndSwapOptions<V> extends CallOptions {
  /** The value the key must have; undefined = it must have none. Compared as encoded bytes. */
  readonly expected: Input<V> | undefined;
  /** The value to write; undefined deletes the key. */
  readonly value: Input<V> | undefined;
  readonly ttlMs?: number;
}

export interface CompareAndSwapResult<V> {
  readonly swapped: boolean;
  /** What the key held before; undefined = nothing. */
  readonly previous: V | undefined;
}

export type WriteOp<K, V> =
  | { readonly type: 'put'; readonly key: Input<K>; readonly value: Input<V>; readonly ttlMs?: number }
  | { readonly type: 'delete'; readonly key: Input<K> };

export interface WriteManyOptions extends CallOptions {
  /** `region`: writes in one region happen together or not at all. `none` (default): each for itself. Never across regions. */
  readonly atomic?: 'region' | 'none';
}

export interface DeleteRangeProgress {
  readonly regionsDone: number;
  /** Everything of the range below this raw key is deleted; undefined = the whole range. */
  readonly doneBelow: Uint8Array | undefined;
}

export interface DeleteRangeOptions extends CallOptions {
  /** Called after each region. */
  readonly onProgress?: (progress: DeleteRangeProgress) => void;
}

export interface ScanOptions<K> extends ReadOptions {
  /** Descending order. */
  readonly reverse?: boolean;
  /** Values are not read; `value` is undefined in every entry. */
  readonly keysOnly?: boolean;
  /** Entries in all. */
  readonly limit?: number;
  /** Entries fetched at a time, 1 to 10240. Default 256; fewer when values are large. */
  readonly pageSize?: number;
  /** Go on behind this key, the last one an earlier scan returned. */
  readonly resume?: Input<K>;
}

export interface KeyValue<K, V> {
  readonly key: K;
  readonly value: V;
}

/** A region as the routing sees it. Keys are raw: prefixes and codecs of a view do not apply. */
export interface RegionInfo {
  readonly id: RegionId;
  readonly range: KeyRange;
  readonly epoch: RegionEpoch;
  readonly peers: readonly PeerInfo[];
  /** Undefined while unknown. */
  readonly leader: PeerInfo | undefined;
}

export interface PeerInfo {
  readonly id: PeerId;
  readonly storeId: StoreId;
  readonly role: PeerRole;
}

export interface ViewSettings<K, V> {
  readonly prefix: Uint8Array;
  readonly key: Codec<K>;
  readonly value: Codec<V>;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  readonly read: ReadMode;
}

const CALL_OPTIONS = ['timeoutMs', 'signal'] as const;
const READ_OPTIONS = [...CALL_OPTIONS, 'read'] as const;
const PUT_OPTIONS = [...CALL_OPTIONS, 'ttlMs', 'ifAbsent'] as const;
const CAS_OPTIONS = [...CALL_OPTIONS, 'expected', 'value', 'ttlMs'] as const;
const WRITE_MANY_OPTIONS = [...CALL_OPTIONS, 'atomic'] as const;
const DELETE_RANGE_OPTIONS = [...CALL_OPTIONS, 'onProgress'] as const;
const SCAN_OPTIONS = [...READ_OPTIONS, 'reverse', 'keysOnly', 'limit', 'pageSize', 'resume'] as const;
const CLOSE_OPTIONS = ['drainMs'] as const;
const CODEC_OPTIONS = ['key', 'value'] as const;

const WRITTEN: PutResult = Object.freeze({ written: true });
const NOT_WRITTEN: PutResult = Object.freeze({ written: false });

export class Braid<K = Uint8Array, V = Uint8Array> implements AsyncDisposable {
  readonly #core: ClientCore;
  readonly #view: ViewSettings<K, V>;

  /** For `connect`; views come from `sub`, `withCodec` and `with`. */
  constructor(core: ClientCore, view: ViewSettings<K, V>) {
    this.#core = core;
    this.#view = view;
  }

  /** The value of a key; undefined if it has none. Linearizable. */
  get(key: Input<K>, options?: ReadOptions): Promise<V | undefined> {
    return this.#attempt(() =>
      this.#core.run({ type: 'get', key: this.#key(key) }, this.#limits(options, 'get', READ_OPTIONS), (answer) =>
        answer.type === 'value' && answer.value !== undefined ? this.#view.value.decode(answer.value) : undefined,
      ),
    );
  }

  /** Values in the order of the keys, undefined where a key has none. Each key is read linearizably, not all at one moment. */
  async getMany(keys: readonly Input<K>[], options?: ReadOptions): Promise<(V | undefined)[]> {
    const limits = this.#limits(options, 'getMany', READ_OPTIONS);
    this.#core.requireOpen('getMany', limits.signal);
    const raw = keys.map((key) => this.#key(key));
    const values = await getMany(this.#core, raw, limits);
    return values.map((value) => (value === undefined ? undefined : this.#view.value.decode(value)));
  }

  /** Whether a key has a value. Does not transfer the value. */
  has(key: Input<K>, options?: ReadOptions): Promise<boolean> {
    return this.#attempt(() => {
      const start = this.#key(key);
      const range = { start, end: keyAfter(start) };
      return this.#core.run(
        { type: 'scan', range, limit: 1, keysOnly: true, reverse: false },
        this.#limits(options, 'has', READ_OPTIONS),
        (answer) => answer.type === 'entries' && answer.entries.length > 0,
      );
    });
  }

  /** Remaining time to live in ms (whole seconds), Infinity if the entry never expires, undefined if there is none. */
  ttl(key: Input<K>, options?: ReadOptions): Promise<number | undefined> {
    return this.#attempt(() =>
      this.#core.run({ type: 'ttl', key: this.#key(key) }, this.#limits(options, 'ttl', READ_OPTIONS), (answer) => {
        if (answer.type !== 'ttl' || answer.seconds === undefined) {
          return undefined;
        }
        return answer.seconds === 0 ? Infinity : answer.seconds * 1000;
      }),
    );
  }

  put(key: Input<K>, value: Input<V>, options?: PutOptions): Promise<PutResult> {
    return this.#attempt(() => {
      const rawKey = this.#key(key);
      const rawValue = this.#value(value, rawKey);
      const limits = this.#limits(options, 'put', PUT_OPTIONS);
      const ttlSeconds = ttlSecondsOf(options?.ttlMs);
      if (options?.ifAbsent === true) {
        return this.#core.run(
          { type: 'compare-and-swap', key: rawKey, expected: undefined, value: rawValue, ttlSeconds },
          limits,
          (answer) => (answer.type === 'swap' && answer.swapped ? WRITTEN : NOT_WRITTEN),
        );
      }
      return this.#core.run({ type: 'put', key: rawKey, value: rawValue, ttlSeconds }, limits, () => WRITTEN);
    });
  }

  /** Removes a key. Removing one that has no value succeeds. */
  delete(key: Input<K>, options?: CallOptions): Promise<void> {
    return this.#attempt(() =>
      this.#core.run(
        { type: 'delete', key: this.#key(key) },
        this.#limits(options, 'delete', CALL_OPTIONS),
        () => undefined,
      ),
    );
  }

  /** Writes or deletes if the key holds exactly what is expected. Safe beside all other writes. */
  compareAndSwap(key: Input<K>, options: CompareAndSwapOptions<V>): Promise<CompareAndSwapResult<V>> {
    return this.#attempt(() => {
      const limits = this.#limits(options, 'compareAndSwap', CAS_OPTIONS);
      const rawKey = this.#key(key);
      const { expected, value } = options;
      return this.#core.run(
        {
          type: 'compare-and-swap',
          key: rawKey,
          expected: expected === undefined ? undefined : this.#value(expected, rawKey),
          value: value === undefined ? undefined : this.#value(value, rawKey),
          ttlSeconds: ttlSecondsOf(options.ttlMs),
        },
        limits,
        (answer) => ({
          swapped: answer.type === 'swap' && answer.swapped,
          previous:
            answer.type === 'swap' && answer.previous !== undefined
              ? this.#view.value.decode(answer.previous)
              : undefined,
        }),
      );
    });
  }

  /**
   * Many writes with one result each, in the order of `ops`. When a key occurs more than once its last write counts and
   * the others share its result. Rejects only for invalid arguments; failures are results.
   */
  async writeMany(ops: readonly WriteOp<K, V>[], options?: WriteManyOptions): Promise<readonly WriteResult[]> {
    const limits = this.#limits(options, 'writeMany', WRITE_MANY_OPTIONS);
    this.#core.requireOpen('writeMany', limits.signal);
    const atomic = options?.atomic ?? 'none';
    if (atomic !== 'region' && atomic !== 'none') {
      throw new InvalidArgumentError(`atomic must be 'region' or 'none', got ${JSON.stringify(atomic)}`, {
        hint: 'writes in different regions are never atomic',
      });
    }
    const writes = ops.map((op): BatchWrite => {
      const key = this.#key(op.key);
      switch (op.type) {
        case 'put':
          return { key, value: this.#value(op.value, key), ttlSeconds: ttlSecondsOf(op.ttlMs) };
        case 'delete':
          return { key, value: undefined, ttlSeconds: 0 };
        default:
          throw new InvalidArgumentError(
            `an operation of writeMany has the type 'put' or 'delete', got ${JSON.stringify(op)}`,
          );
      }
    });
    return writeMany(this.#core, writes, atomic, limits);
  }

  /**
   * Deletes every key of a range, region by region; the deadline holds for each region. Not one atomic step: readers
   * may see keys disappear in between. After a failure, call it again.
   */
  async deleteRange(range: KeyRange, options?: DeleteRangeOptions): Promise<{ readonly regionsDone: number }> {
    requireNonEmptyRange(range, 'deleteRange');
    requireKnownOptions('deleteRange', options, DELETE_RANGE_OPTIONS);
    let rest: KeyRange | undefined = this.#range(range);
    let regionsDone = 0;
    while (rest !== undefined) {
      const limits = this.#limits(options, 'deleteRange', DELETE_RANGE_OPTIONS);
      this.#core.requireOpen('deleteRange', limits.signal);
      const { start, end }: KeyRange = rest;
      const reached: Uint8Array = await this.#core.run(
        { type: 'delete-range', range: { start, end } },
        limits,
        (_, { region }) => region.range.end,
      );
      regionsDone++;
      rest = nextPart(reached, end);
      options?.onProgress?.({ regionsDone, doneBelow: rest?.start });
    }
    return { regionsDone };
  }

  /** Entries of a range in key order, read page by page while iterating. Nothing is read before the first step. */
  scan(range: KeyRange, options: ScanOptions<K> & { readonly keysOnly: true }): Scan<KeyValue<K, undefined>, K>;
  scan(range: KeyRange, options?: ScanOptions<K>): Scan<KeyValue<K, V>, K>;
  scan(range: KeyRange, options: ScanOptions<K> = {}): Scan<KeyValue<K, V | undefined>, K> {
    requireNonEmptyRange(range, 'scan');
    requireKnownOptions('scan', options, SCAN_OPTIONS);
    const reverse = options.reverse ?? false;
    const whole = this.#range(range);
    const keysOnly = options.keysOnly ?? false;
    const { prefix, key, value } = this.#view;
    return new Scan({
      core: this.#core,
      range: options.resume === undefined ? whole : rangeAfter(whole, this.#key(options.resume), reverse),
      reverse,
      keysOnly,
      limit: options.limit === 0 ? 0 : requireCount(options.limit, 'limit'),
      pageSize: requireCount(options.pageSize, 'pageSize', SCAN_PAGE_MAX) ?? SCAN_PAGE_DEFAULT,
      limits: () => this.#limits(options, 'scan', SCAN_OPTIONS),
      decode: ([rawKey, rawValue]: Entry) => ({
        key: key.decode(prefix.length === 0 ? rawKey : rawKey.subarray(prefix.length)),
        value: keysOnly ? undefined : value.decode(rawValue),
      }),
    });
  }

  /** The region that holds a key, as far as this client knows; asks the placement service only if it does not know. */
  locate(key: Input<K>, options?: CallOptions): Promise<RegionInfo> {
    return this.#attempt(() =>
      this.#core.run(
        { type: 'locate', key: this.#key(key) },
        this.#limits(options, 'locate', CALL_OPTIONS),
        (_, entry) => regionInfo(entry.region, entry.leader),
      ),
    );
  }

  /** The regions of a range in key order, fresh from the placement service. */
  async regions(range: KeyRange, options?: CallOptions): Promise<readonly RegionInfo[]> {
    requireNonEmptyRange(range, 'regions');
    const found: RegionInfo[] = [];
    let rest: KeyRange | undefined = this.#range(range);
    while (rest !== undefined) {
      const limits = this.#limits(options, 'regions', CALL_OPTIONS);
      this.#core.requireOpen('regions', limits.signal);
      const { start, end }: KeyRange = rest;
      const routes = await this.#core.pd.scanRegions(start, end, REGIONS_PAGE, limits.timeoutMs);
      for (const route of routes) {
        found.push(regionInfo(route.region, route.leader));
      }
      const last = routes.at(-1);
      rest = last === undefined || routes.length < REGIONS_PAGE ? undefined : nextPart(last.region.range.end, end);
    }
    return found;
  }

  /** A view of the keys that start with `prefix`, which is put before every key and taken off every returned one. */
  sub(prefix: string | Uint8Array): Braid<K, V> {
    return new Braid(this.#core, {
      ...this.#view,
      prefix: concatBytes(this.#view.prefix, bytesCodec.encode(prefix as Uint8Array)),
    });
  }

  /** A view with other types of keys or values. */
  withCodec<K2 = K, V2 = V>(codecs: { readonly key?: KeyCodec<K2>; readonly value?: Codec<V2> }): Braid<K2, V2> {
    requireKnownOptions('withCodec', codecs, CODEC_OPTIONS);
    const { key, value } = this.#view;
    return new Braid<K2, V2>(this.#core, {
      ...this.#view,
      key: codecs.key ?? (key as unknown as Codec<K2>),
      value: codecs.value ?? (value as unknown as Codec<V2>),
    });
  }

  /** A view with other defaults for the calls made through it. */
  with(options: ReadOptions): Braid<K, V> {
    requireKnownOptions('with', options, READ_OPTIONS);
    return new Braid(this.#core, {
      ...this.#view,
      timeoutMs: requireTimeoutMs(options.timeoutMs, 'timeoutMs') ?? this.#view.timeoutMs,
      signal: options.signal ?? this.#view.signal,
      read: requireReadMode(options.read) ?? this.#view.read,
    });
  }

  /** Administration of the cluster over this connection. Closing it leaves the connection open. */
  admin(): AdminClient {
    return new AdminClient(this.#core, { owns: false });
  }

  /** Takes no new calls, waits up to `drainMs` (default 5000) for running ones, then ends the rest. Closes all views. */
  close(options: { readonly drainMs?: number } = {}): Promise<void> {
    requireKnownOptions('close', options, CLOSE_OPTIONS);
    return this.#core.close(options.drainMs ?? DRAIN_MS_DEFAULT);
  }

  /** Ends everything now; running calls fail with `ClientClosedError`. */
  destroy(): void {
    this.#core.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Invalid arguments reject like every other failure instead of throwing. */
  #attempt<R>(start: () => Promise<R>): Promise<R> {
    try {
      return start();
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new BraidError('Internal', String(error)));
    }
  }

  #key(key: Input<K>): Uint8Array {
    const { prefix } = this.#view;
    const encoded = this.#view.key.encode(key as K);
    const raw = prefix.length > 0 ? concatBytes(prefix, encoded) : encoded === key ? copyBytes(encoded) : encoded;
    if (raw.length > KEY_BYTES_MAX) {
      throw new InvalidArgumentError(`the key has ${raw.length} bytes, at most ${KEY_BYTES_MAX} are possible`, {
        hint: prefix.length > 0 ? 'the prefix of the view counts' : 'use a hash of long names as key',
        details: { sizeBytes: raw.length, limitBytes: KEY_BYTES_MAX },
      });
    }
    return raw;
  }

  #value(value: Input<V>, key: Uint8Array): Uint8Array {
    const encoded = this.#view.value.encode(value as V);
    const sizeBytes = key.length + encoded.length;
    if (sizeBytes > ENTRY_BYTES_MAX) {
      throw new EntryTooLargeError(
        `key and value of ${keyText(key)} have ${sizeBytes} bytes together, at most ${ENTRY_BYTES_MAX} are possible`,
        { details: { sizeBytes, limitBytes: ENTRY_BYTES_MAX } },
      );
    }
    return encoded === value ? copyBytes(encoded) : encoded;
  }

  /** The view's part of the key space that a range means. */
  #range(range: KeyRange): KeyRange {
    const { prefix } = this.#view;
    if (prefix.length === 0) {
      return { start: copyBytes(range.start), end: copyBytes(range.end) };
    }
    return {
      start: concatBytes(prefix, range.start),
      end: range.end.length === 0 ? prefixEnd(prefix) : concatBytes(prefix, range.end),
    };
  }

  #limits(options: ReadOptions | undefined, call: string, known: readonly string[]): CallLimits {
    const view = this.#view;
    const nowMs = this.#core.env.clock.monoMs();
    if (options === undefined) {
      return { dueMs: nowMs + view.timeoutMs, timeoutMs: view.timeoutMs, signal: view.signal, read: view.read };
    }
    requireKnownOptions(call, options, known);
    const timeoutMs = requireTimeoutMs(options.timeoutMs, 'timeoutMs') ?? view.timeoutMs;
    return {
      dueMs: nowMs + timeoutMs,
      timeoutMs,
      signal: options.signal ?? view.signal,
      read: requireReadMode(options.read) ?? view.read,
    };
  }
}

/** A connection without prefix, with bytes as keys and values. */
export function rootView(core: ClientCore): Braid {
  return new Braid(core, {
    prefix: EMPTY_BYTES,
    key: bytesCodec,
    value: bytesCodec,
    timeoutMs: core.options.timeoutMs,
    signal: undefined,
    read: 'leader',
  });
}

function nextPart(reached: Uint8Array, end: Uint8Array): KeyRange | undefined {
  const isEnd = reached.length === 0 || (end.length > 0 && Buffer.compare(reached, end) >= 0);
  return isEnd ? undefined : { start: reached, end };
}

function requireReadMode(read: ReadMode | undefined): ReadMode | undefined {
  if (read !== undefined && read !== 'leader' && read !== 'follower') {
    throw new InvalidArgumentError(`read must be 'leader' or 'follower', got ${JSON.stringify(read)}`);
  }
  return read;
}

/** Longest time to live, in seconds: expiry times stay exact numbers. */
const TTL_SECONDS_MAX = 2 ** 40;

function ttlSecondsOf(ttlMs: number | undefined): number {
  if (ttlMs === undefined) {
    return 0;
  }
  if (!(typeof ttlMs === 'number' && ttlMs > 0 && ttlMs / 1000 <= TTL_SECONDS_MAX)) {
    throw new InvalidArgumentError(`ttlMs must be a positive number of milliseconds, got ${String(ttlMs)}`, {
      hint: 'leave ttlMs out for an entry that never expires',
    });
  }
  return Math.ceil(ttlMs / 1000);
}

const peerInfo = ({ id, storeId, role }: Peer): PeerInfo => ({ id, storeId, role });

function regionInfo(region: Region, leader: Peer | undefined): RegionInfo {
  return {
    id: region.id,
    range: region.range,
    epoch: region.epoch,
    peers: region.peers.map(peerInfo),
    leader: leader === undefined ? undefined : peerInfo(leader),
  };
}
