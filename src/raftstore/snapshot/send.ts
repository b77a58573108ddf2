/**
 * Cuts a frozen region into chunks for a transfer. The transport pulls: a slow receiver keeps the engine view open, but
 * no chunk is read before it is wanted.
 */
import { assert } from '../../base/assert.ts';
import { keyAfter } from '../../base/bytes.ts';
import { dataChunk, TransferHash, type SnapshotChunk, type StoredPair } from '../../codec/snapshot-record.ts';
import { dataRange } from '../../engine/keyspace.ts';
import { CorruptionError, type Engine } from '../../env/engine.ts';
import type { SnapshotSource } from '../context.ts';

const PAGE_KEYS = 4096;

const pairBytes = ([key, value]: StoredPair): number => key.length + value.length;

export interface SnapshotSenderOptions {
  readonly engine: Engine;
  readonly source: SnapshotSource;
  /** Most key and value bytes of a chunk; a single larger pair travels alone. */
  readonly chunkBytes: number;
}

export class SnapshotSender implements AsyncIterable<SnapshotChunk> {
  readonly #options: SnapshotSenderOptions;
  readonly #hash: TransferHash = new TransferHash();
  readonly #end: Uint8Array;
  /** Next stored key to read. */
  #start: Uint8Array;
  #waiting: StoredPair[] = [];
  #isExhausted = false;
  #isDone = false;
  #isReading = false;
  #sequence = 0;
  #keys = 0;
  #sizeBytes = 0;

  constructor(options: SnapshotSenderOptions) {
    assert(options.chunkBytes > 0, 'snapshot chunks need a size');
    this.#options = options;
    const range = dataRange(options.source.region.range);
    this.#start = range.start;
    this.#end = range.end;
  }

  /**
   * The next chunk, the end chunk last, then undefined. Closes the source when it is done. One call at a time. Rejects
   * when the engine cannot be read; the caller gives the transfer up then.
   */
  async next(): Promise<SnapshotChunk | undefined> {
    if (this.#isDone) {
      return undefined;
    }
    assert(!this.#isReading, 'two chunks of a snapshot are read at once');
    this.#isReading = true;
    try {
      while (this.#waiting.length === 0 && !this.#isExhausted) {
        await this.#readPage();
      }
    } finally {
      this.#isReading = false;
    }
    if (this.#isDone) {
      return undefined;
    }
    const pairs = this.#cut();
    const sequence = this.#sequence++;
    if (pairs.length === 0) {
      this.close();
      return { type: 'end', sequence, keys: this.#keys, sizeBytes: this.#sizeBytes, digest: this.#hash.digest() };
    }
    const chunk = dataChunk(sequence, pairs);
    this.#hash.add(chunk.payload);
    return chunk;
  }

  async *[Symbol.asyncIterator](): AsyncIterator<SnapshotChunk> {
    try {
      for (let chunk = await this.next(); chunk !== undefined; chunk = await this.next()) {
        yield chunk;
      }
    } finally {
      this.close();
    }
  }

  /** Gives the engine view back; further calls of `next` yield nothing. */
  close(): void {
    if (!this.#isDone) {
      this.#isDone = true;
      this.#waiting = [];
      this.#options.source.close();
    }
  }

  async #readPage(): Promise<void> {
    const { engine, source, chunkBytes } = this.#options;
    const page = await engine
      .scan({
        range: { start: this.#start, end: this.#end },
        limit: PAGE_KEYS,
        maxBytes: chunkBytes,
        snapshot: source.snapshot,
      })
      .catch((error: unknown) => {
        if (error instanceof CorruptionError) {
          source.onDamage?.(error);
        }
        throw error;
      });
    const last = page.entries[page.entries.length - 1];
    if (last !== undefined) {
      this.#start = keyAfter(last[0]);
      this.#waiting.push(...page.entries);
    }
    this.#isExhausted = !page.more;
  }

  /** Takes the pairs of one chunk out of those read. */
  #cut(): StoredPair[] {
    let bytes = 0;
    let count = 0;
    for (const pair of this.#waiting) {
      const size = pairBytes(pair);
      if (count > 0 && bytes + size > this.#options.chunkBytes) {
        break;
      }
      bytes += size;
      count++;
    }
    this.#keys += count;
    this.#sizeBytes += bytes;
    return this.#waiting.splice(0, count);
  }
}
