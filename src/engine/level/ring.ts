/**
 * The ring of batch numbers, which uncovers silent loss inside the write-ahead log. LevelDB skips damaged parts of its
 * log at open without an error, so a batch in the middle can vanish while later ones stay. Every physical batch
 * therefore carries a record `ring/(n mod R) = n` with its number `n`. At open the last R numbers must be complete.
 *
 * Only batches that are still in the log can vanish that way, which is at most what two memtables hold. The ring must
 * not be overwritten within that window, hence `R x (least memory of a batch) >= 2 memtables`; batches too small for
 * that carry padding in their ring record. Losing the very last batch looks like a torn write and is accepted: it
 * leaves no trace, and it was acknowledged only if the disk broke its promise exactly there.
 */
import { assert } from '../../base/assert.ts';
import { seal, SEAL_BYTES, unseal } from '../checksum.ts';
import { ENGINE_PREFIX } from '../keyspace.ts';
import type { NativeDatabase } from './native.ts';
import { SuspectDatabaseError } from './suspect.ts';

/** Size of a memtable; LevelDB keeps at most two, each with its own log. */
export const WRITE_BUFFER_BYTES: number = 8 * 1024 * 1024;
/** R: how many of the last batch numbers stay on record. */
export const RING_SLOTS: number = 128 * 1024;

const RING_KIND = 0x01;
const RING_KEY_BYTES = 5;
const NUMBER_BYTES = 8;
/** Least memory of one operation in a memtable besides key and value: lengths, sequence number, skip-list node. */
const OPERATION_MEMORY_BYTES = 24;
/** Least memory of a physical batch. One slot in sixteen is spare for batches that straddle a memtable switch. */
const BATCH_MEMORY_BYTES_MIN = 136;
const RING_PAGE_ENTRIES = 1000;
const RING_PAGE_BYTES = 1024 * 1024;

assert(RING_SLOTS * BATCH_MEMORY_BYTES_MIN > 2 * WRITE_BUFFER_BYTES, 'the ring is shorter than two memtables');

function ringKey(n: number): Uint8Array {
  const slot = n % RING_SLOTS;
  return Uint8Array.of(ENGINE_PREFIX, RING_KIND, slot >>> 16, (slot >>> 8) & 0xff, slot & 0xff);
}

/**
 * The key and stored value that batch number `n` carries.
 * @param operations operations of the batch besides the ring record
 * @param bytes key and value bytes of those operations
 */
export function ringRecord(n: number, operations: number, bytes: number): readonly [Uint8Array, Uint8Array] {
  const own = RING_KEY_BYTES + SEAL_BYTES + NUMBER_BYTES + OPERATION_MEMORY_BYTES;
  const padding = Math.max(0, BATCH_MEMORY_BYTES_MIN - own - operations * OPERATION_MEMORY_BYTES - bytes);
  const payload = new Uint8Array(NUMBER_BYTES + padding);
  new DataView(payload.buffer).setFloat64(0, n);
  const key = ringKey(n);
  return [key, seal(key, payload)];
}

/**
 * Reads the ring of an opened database.
 * @returns the number of the last batch; 0 if none was ever written
 * @throws SuspectDatabaseError if batches are missing, CorruptionError if a ring record itself is damaged
 */
export async function checkRing(database: NativeDatabase, path: string): Promise<number> {
  const numbers = new Float64Array(RING_SLOTS);
  let last = 0;
  const iterator = database.iterator({
    gte: Uint8Array.of(ENGINE_PREFIX, RING_KIND),
    lt: Uint8Array.of(ENGINE_PREFIX, RING_KIND + 1),
    reverse: false,
    values: true,
    highWaterMarkBytes: RING_PAGE_BYTES,
    fillCache: false,
  });
  try {
    for (;;) {
      const page = await iterator.nextv(RING_PAGE_ENTRIES);
      if (page.length === 0) {
        break;
      }
      for (const [key, value] of page) {
        const payload = unseal(key, value);
        const n = new DataView(payload.buffer, payload.byteOffset, NUMBER_BYTES).getFloat64(0);
        const slot = ((key[2] as number) << 16) | ((key[3] as number) << 8) | (key[4] as number);
        numbers[slot] = n;
        last = Math.max(last, n);
      }
    }
  } finally {
    await iterator.close();
  }
  let missing = 0;
  let firstMissing = 0;
  for (let n = Math.max(1, last - RING_SLOTS + 1); n <= last; n++) {
    if (numbers[n % RING_SLOTS] !== n) {
      firstMissing = missing === 0 ? n : firstMissing;
      missing++;
    }
  }
  if (missing > 0) {
    throw new SuspectDatabaseError(
      path,
      `${missing} of the last ${Math.min(last, RING_SLOTS)} write batches are missing, the first of them number ${firstMissing} of ${last}`,
    );
  }
  return last;
}
