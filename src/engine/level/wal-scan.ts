/**
 * Reads LevelDB's write-ahead logs before LevelDB does, because opening replays and deletes them and reports damage at
 * most in a text file. Tells a torn tail from silent damage:
 *
 * Exactly one physical batch is in flight at any time, so only the last record of a log can be incomplete, and it was
 * never acknowledged. A sound record that begins behind a damaged one proves that the damaged one had been synced and
 * acknowledged. LevelDB would drop it, and with it the rest of its block, and go on.
 *
 * Format: `google/leveldb:doc/log_format.md`. Blocks of 32 KiB; a record is split into fragments, each with a header of
 * masked CRC-32C (4 bytes), length (2 bytes) and type (1 byte), all little-endian.
 */

/** What is known of a log file. */
export type WalFinding =
  | { readonly type: 'sound' }
  /** The last record is incomplete: a write that was in flight when the process or machine stopped. */
  | { readonly type: 'torn-tail'; readonly offset: number }
  /** Acknowledged records are damaged. */
  | { readonly type: 'damaged'; readonly offset: number };

const BLOCK_BYTES = 32 * 1024;
const HEADER_BYTES = 7;
const FULL = 1;
const FIRST = 2;
const MIDDLE = 3;
const LAST = 4;
/** A record starts with the sequence number (8 bytes) and the count (4 bytes) of its batch. */
const BATCH_HEADER_BYTES = 12;

const CRC32C_POLYNOMIAL = 0x82f63b78;
const CRC_MASK_DELTA = 0xa282ead8;

function crc32cTable(): Uint32Array {
  const table = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    let c = i;
    for (let bit = 0; bit < 8; bit++) {
      c = (c & 1) === 1 ? (c >>> 1) ^ CRC32C_POLYNOMIAL : c >>> 1;
    }
    table[i] = c;
  }
  return table;
}

const TABLE: Uint32Array = crc32cTable();

/** The checksum that the log stores for `bytes`: CRC-32C, rotated and shifted so that it can be stored beside data. */
export function maskedCrc32c(bytes: Uint8Array): number {
  let c = 0xffffffff;
  for (let i = 0; i < bytes.length; i++) {
    c = (c >>> 8) ^ (TABLE[(c ^ (bytes[i] as number)) & 0xff] as number);
  }
  c = ~c >>> 0;
  return (((c >>> 15) | (c << 17)) + CRC_MASK_DELTA) >>> 0;
}

interface Fragment {
  readonly type: number;
  /** Offset of the payload in the file. */
  readonly start: number;
  /** Offset behind the payload. */
  readonly end: number;
}

class WalScanner {
  readonly #log: Uint8Array;
  readonly #view: DataView;
  #damageOffset: number | undefined;
  /** Sequence number of the last sound batch; batches only count upwards. */
  #lastSequence = -1n;
  #isInsideRecord = false;

  constructor(log: Uint8Array) {
    this.#log = log;
    this.#view = new DataView(log.buffer, log.byteOffset, log.length);
  }

  scan(): WalFinding {
    let recordOffset = 0;
    for (let block = 0; block < this.#log.length; block += BLOCK_BYTES) {
      const blockEnd = Math.min(block + BLOCK_BYTES, this.#log.length);
      let at = block;
      while (at + HEADER_BYTES <= blockEnd) {
        const fragment = this.#fragmentAt(at, blockEnd);
        if (fragment === undefined) {
          this.#damageOffset ??= this.#isInsideRecord ? recordOffset : at;
          at = this.#findRecord(at, blockEnd) ?? blockEnd;
          continue;
        }
        const startsRecord = fragment.type === FULL || fragment.type === FIRST;
        if (startsRecord && (this.#damageOffset !== undefined || this.#isInsideRecord)) {
          return { type: 'damaged', offset: this.#damageOffset ?? recordOffset };
        }
        if (startsRecord) {
          recordOffset = at;
          this.#lastSequence = this.#sequenceOf(fragment) ?? this.#lastSequence;
        } else if (!this.#isInsideRecord) {
          this.#damageOffset ??= at;
        }
        this.#isInsideRecord = fragment.type === FIRST || fragment.type === MIDDLE;
        at = fragment.end;
      }
    }
    if (this.#damageOffset !== undefined || this.#isInsideRecord) {
      return { type: 'torn-tail', offset: this.#damageOffset ?? recordOffset };
    }
    return { type: 'sound' };
  }

  /** The fragment whose header lies at `at`; undefined if it is not sound. */
  #fragmentAt(at: number, blockEnd: number): Fragment | undefined {
    const length = this.#view.getUint16(at + 4, true);
    const type = this.#log[at + 6] as number;
    const end = at + HEADER_BYTES + length;
    if (type < FULL || type > LAST || end > blockEnd) {
      return undefined;
    }
    // The checksum covers the type byte and the payload, which lie side by side.
    const isSound = maskedCrc32c(this.#log.subarray(at + 6, end)) === this.#view.getUint32(at, true);
    return isSound ? { type, start: at + HEADER_BYTES, end } : undefined;
  }

  /**
   * The next offset in the block, behind a damaged header, where a sound record begins. A header can be damaged in its
   * length, so every offset is tried; a batch header with a later sequence number must follow, so that a stored value
   * that happens to contain a log is not taken for one.
   */
  #findRecord(damagedAt: number, blockEnd: number): number | undefined {
    for (let at = damagedAt + 1; at + HEADER_BYTES + BATCH_HEADER_BYTES <= blockEnd; at++) {
      const type = this.#log[at + 6] as number;
      if (type !== FULL && type !== FIRST) {
        continue;
      }
      const fragment = this.#fragmentAt(at, blockEnd);
      const sequence = fragment === undefined ? undefined : this.#sequenceOf(fragment);
      if (sequence !== undefined && sequence > this.#lastSequence) {
        return at;
      }
    }
    return undefined;
  }

  #sequenceOf(fragment: Fragment): bigint | undefined {
    return fragment.end - fragment.start < BATCH_HEADER_BYTES
      ? undefined
      : this.#view.getBigUint64(fragment.start, true);
  }
}

/** Examines the bytes of one log file. */
export const scanWal = (log: Uint8Array): WalFinding => new WalScanner(log).scan();
