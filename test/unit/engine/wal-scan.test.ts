import { describe, expect, test } from 'vitest';
import { concatBytes, copyBytes, utf8 } from '../../../src/base/bytes.ts';
import { maskedCrc32c, scanWal } from '../../../src/engine/level/wal-scan.ts';
import { createRng } from '../../../src/env/rng.ts';

const BLOCK_BYTES = 32 * 1024;
const HEADER_BYTES = 7;

/** A log as LevelDB writes it, and where each record begins. */
function writeLog(sizes: readonly number[]): { log: Uint8Array; offsets: number[] } {
  const parts: Uint8Array[] = [];
  const offsets: number[] = [];
  let at = 0;
  const add = (bytes: Uint8Array): void => {
    parts.push(bytes);
    at += bytes.length;
  };
  for (const [i, size] of sizes.entries()) {
    const payload = new Uint8Array(12 + size).fill(0x40 + i);
    new DataView(payload.buffer).setBigUint64(0, BigInt(i + 1), true);
    let rest = payload;
    let isFirst = true;
    do {
      let room = BLOCK_BYTES - (at % BLOCK_BYTES);
      if (room < HEADER_BYTES) {
        add(new Uint8Array(room));
        room = BLOCK_BYTES;
      }
      if (isFirst) {
        offsets.push(at);
      }
      const piece = rest.subarray(0, room - HEADER_BYTES);
      rest = rest.subarray(piece.length);
      const isLast = rest.length === 0;
      const type = isFirst ? (isLast ? 1 : 2) : isLast ? 4 : 3;
      const fragment = concatBytes(new Uint8Array(HEADER_BYTES), piece);
      fragment[6] = type;
      const view = new DataView(fragment.buffer);
      view.setUint16(4, piece.length, true);
      view.setUint32(0, maskedCrc32c(fragment.subarray(6)), true);
      add(fragment);
      isFirst = false;
    } while (rest.length > 0);
  }
  return { log: concatBytes(...parts), offsets };
}

const flipped = (log: Uint8Array, at: number): Uint8Array => {
  const out = copyBytes(log);
  out[at] = (out[at] as number) ^ 0x04;
  return out;
};

const zeroed = (log: Uint8Array, from: number, to: number): Uint8Array => copyBytes(log).fill(0, from, to);

const SIZES: readonly number[] = [100, 2000, 10, 70_000, 500, 32_761 - 12, 40, 100_000, 300];

describe('maskedCrc32c', () => {
  test('is the Castagnoli checksum, masked as in LevelDB', () => {
    // RFC 3720 B.4: the CRC-32C of 32 zero bytes is 8a9136aa; of "123456789" it is e3069283.
    const mask = (crc: number): number => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
    expect(maskedCrc32c(new Uint8Array(32))).toBe(mask(0x8a9136aa));
    expect(maskedCrc32c(utf8('123456789'))).toBe(mask(0xe3069283));
  });
});

describe('scanWal', () => {
  test('finds nothing in sound logs of any shape', () => {
    expect(scanWal(new Uint8Array(0))).toEqual({ type: 'sound' });
    expect(scanWal(writeLog(SIZES).log)).toEqual({ type: 'sound' });
    const rng = createRng(11);
    for (let round = 0; round < 20; round++) {
      const sizes = Array.from({ length: 30 }, () => rng.pick([rng.below(50), rng.below(5000), rng.below(80_000)]));
      expect(scanWal(writeLog(sizes).log)).toEqual({ type: 'sound' });
    }
    // Every distance between the end of a record and the end of its block, where a header just fits or does not.
    for (let size = BLOCK_BYTES - 2 * HEADER_BYTES - 24; size < BLOCK_BYTES - HEADER_BYTES; size++) {
      expect(scanWal(writeLog([size, 20, 20]).log)).toEqual({ type: 'sound' });
    }
  });

  test('takes a log cut anywhere in its last record for a torn tail', () => {
    for (const last of [300, 100_000]) {
      const { log, offsets } = writeLog([100, 2000, last]);
      const start = offsets.at(-1) as number;
      for (let cut = start + 7; cut < log.length; cut += 97) {
        const finding = scanWal(log.subarray(0, cut));
        expect(finding).toEqual({ type: 'torn-tail', offset: start });
      }
    }
  });

  test('takes a hole of zeros in the last record for a torn tail, wherever it lies', () => {
    // A power loss may keep later pages of an unsynced write and lose earlier ones.
    const { log, offsets } = writeLog([100, 2000, 100_000]);
    const start = offsets.at(-1) as number;
    for (let from = start; from + 4096 < log.length; from += 1111) {
      expect(scanWal(zeroed(log, from, from + 4096)).type).toBe('torn-tail');
    }
    expect(scanWal(zeroed(log, start, log.length)).type).toBe('torn-tail');
  });

  test('finds a single flipped bit in every record but the last', () => {
    const { log, offsets } = writeLog(SIZES);
    const rng = createRng(5);
    for (const [i, offset] of offsets.entries()) {
      const end = offsets[i + 1] ?? log.length;
      const places = [0, 4, 5, 6, 8, end - offset - 1, ...Array.from({ length: 20 }, () => rng.below(end - offset))];
      for (const place of places) {
        const isPadding = log[offset + place] === 0 && place > end - offset - HEADER_BYTES;
        if (!isPadding) {
          expect(scanWal(flipped(log, offset + place)).type).toBe(i < offsets.length - 1 ? 'damaged' : 'torn-tail');
        }
      }
    }
  });

  test('finds zeros over whole records in the middle', () => {
    const { log, offsets } = writeLog(SIZES);
    for (let i = 0; i + 1 < offsets.length; i++) {
      expect(scanWal(zeroed(log, offsets[i] as number, offsets[i + 1] as number)).type).toBe('damaged');
    }
  });

  test('is not misled by a log stored as a value inside a torn record', () => {
    const inner = writeLog([30, 30]).log;
    const { log, offsets } = writeLog([10, 10, 10, 2000]);
    const start = offsets.at(-1) as number;
    const torn = copyBytes(log);
    torn.set(inner, start + 200);
    expect(scanWal(torn)).toEqual({ type: 'torn-tail', offset: start });
  });
});
