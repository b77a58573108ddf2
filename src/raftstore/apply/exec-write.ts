/**
 * Executes the data operations of one entry. Writes are buffered on top of the engine until the apply batch is handed
 * over, so that later operations of the same batch read them. Nothing here may depend on anything but the entry and the
 * state of the region: every replica must come to the same bytes.
 */
import { assert } from '../../base/assert.ts';
import { copyBytes, equalBytes } from '../../base/bytes.ts';
import { isEmptyRange, rangeContains, rangeCovers, type KeyRange } from '../../base/key-range.ts';
import { KeyMap } from '../../base/key-map.ts';
import type { WriteOp } from '../../codec/command.ts';
import { decodeDataValue, encodeDataValue, isExpired, type DataValue } from '../../codec/data-value.ts';
import type { RegionError } from '../../codec/region-error.ts';
import { dataKey } from '../../engine/keyspace.ts';
import type { Engine, WriteBatch } from '../../env/engine.ts';
import type { Region } from '../../meta/region.ts';
import type { OpResult } from '../msg.ts';
import { keyNotInRegion } from '../refusal.ts';

const DONE: OpResult = Object.freeze({ type: 'done' });

/** User data written by entries that are executed but not yet in the engine. */
export class WriteBuffer {
  readonly #engine: Engine;
  /** Buffers handed over earlier whose batches may not be in the engine yet, oldest first. */
  readonly #below: () => readonly WriteBuffer[];
  readonly #keys: Uint8Array[] = [];
  /** Stored forms; undefined deletes. */
  readonly #values: (Uint8Array | undefined)[] = [];
  /** Position of the newest write per key; built when the first operation needs to read. */
  #newest: KeyMap<number> | undefined;
  #indexed = 0;
  /** Ranges whose keys in the engine count as deleted already. */
  readonly #deletedRanges: KeyRange[] = [];
  #bytes = 0;

  constructor(engine: Engine, below: () => readonly WriteBuffer[] = () => []) {
    this.#engine = engine;
    this.#below = below;
  }

  get count(): number {
    return this.#keys.length;
  }

  /** Key and value bytes buffered. */
  get bytes(): number {
    return this.#bytes;
  }

  put(key: Uint8Array, stored: Uint8Array): void {
    this.#keys.push(key);
    this.#values.push(stored);
    this.#bytes += key.length + stored.length;
  }

  delete(key: Uint8Array): void {
    this.#keys.push(key);
    this.#values.push(undefined);
    this.#bytes += key.length;
  }

  /** From here on keys of the range count as absent; the caller deletes those in the engine page by page. */
  deleteRange(range: KeyRange): void {
    const end = this.#keys.length;
    for (let i = 0; i < end; i++) {
      if (rangeContains(range, this.#keys[i] as Uint8Array)) {
        this.delete(this.#keys[i] as Uint8Array);
      }
    }
    this.#deletedRanges.push(range);
  }

  /** The stored form of a key as the next operation must see it. */
  read(key: Uint8Array): Uint8Array | undefined {
    const at = this.#index().get(key);
    if (at !== undefined) {
      return this.#values[at];
    }
    if (this.#deletedRanges.some((range) => rangeContains(range, key))) {
      return undefined;
    }
    const below = this.#below();
    for (let i = below.length - 1; i >= 0; i--) {
      const older = (below[i] as WriteBuffer).#newestOf(key);
      if (older !== undefined) {
        return older.value;
      }
    }
    return this.#engine.getSync(dataKey(key));
  }

  /** Whether the buffer writes one of the keys. */
  touches(keys: readonly Uint8Array[]): boolean {
    const index = this.#index();
    return keys.some((key) => index.has(key));
  }

  #newestOf(key: Uint8Array): { readonly value: Uint8Array | undefined } | undefined {
    const at = this.#index().get(key);
    return at === undefined ? undefined : { value: this.#values[at] };
  }

  #index(): KeyMap<number> {
    this.#newest ??= new KeyMap();
    for (; this.#indexed < this.#keys.length; this.#indexed++) {
      this.#newest.set(this.#keys[this.#indexed] as Uint8Array, this.#indexed);
    }
    return this.#newest;
  }

  /** Adds everything to `batch` in order. */
  drainTo(batch: WriteBatch): void {
    for (let i = 0; i < this.#keys.length; i++) {
      const key = dataKey(this.#keys[i] as Uint8Array);
      const value = this.#values[i];
      if (value === undefined) {
        batch.del(key);
      } else {
        batch.put(key, value);
      }
    }
  }
}

/** The first key or range of an entry that the region does not own; undefined if it owns all. */
export function checkOpsInRegion(ops: readonly WriteOp[], region: Region): RegionError | undefined {
  const { range } = region;
  for (const op of ops) {
    if (op.type === 'delete-range') {
      if (!rangeCovers(range, op.range)) {
        return keyNotInRegion(op.range.start, region);
      }
    } else if (!rangeContains(range, op.key)) {
      return keyNotInRegion(op.key, region);
    }
  }
  return undefined;
}

/** The ranges that the entry deletes, without empty ones. */
export const deletedRanges = (ops: readonly WriteOp[]): KeyRange[] =>
  ops.flatMap((op) => (op.type === 'delete-range' && !isEmptyRange(op.range) ? [op.range] : []));

function readValue(buffer: WriteBuffer, key: Uint8Array): DataValue | undefined {
  const stored = buffer.read(key);
  if (stored === undefined) {
    return undefined;
  }
  const value = decodeDataValue(stored);
  assert(value !== undefined, 'a stored value has no known form', { bytes: stored.length });
  return value;
}

function compareAndSwap(buffer: WriteBuffer, op: Extract<WriteOp, { type: 'compare-and-swap' }>): OpResult {
  const found = readValue(buffer, op.key);
  const current = found === undefined || isExpired(found.expireAtSeconds, op.nowSeconds) ? undefined : found.value;
  const swapped =
    current === undefined || op.expected === undefined ? current === op.expected : equalBytes(current, op.expected);
  const previous = current === undefined ? undefined : copyBytes(current);
  if (swapped) {
    if (op.deletes) {
      buffer.delete(op.key);
    } else {
      buffer.put(op.key, encodeDataValue(op.value, op.expireAtSeconds));
    }
  }
  return { type: 'compared', swapped, previous };
}

/** Executes the operations in order; one result each. */
export function executeOps(ops: readonly WriteOp[], buffer: WriteBuffer): OpResult[] {
  return ops.map((op): OpResult => {
    switch (op.type) {
      case 'put':
        buffer.put(op.key, encodeDataValue(op.value, op.expireAtSeconds));
        return DONE;
      case 'delete':
        buffer.delete(op.key);
        return DONE;
      case 'delete-range':
        if (!isEmptyRange(op.range)) {
          buffer.deleteRange(op.range);
        }
        return DONE;
      case 'compare-and-swap':
        return compareAndSwap(buffer, op);
      case 'expire': {
        const found = readValue(buffer, op.key);
        if (found !== undefined && op.expireAtSeconds !== 0 && found.expireAtSeconds === op.expireAtSeconds) {
          buffer.delete(op.key);
        }
        return DONE;
      }
    }
  });
}
