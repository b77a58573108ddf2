/**
 * Checksums of stored values. LevelDB neither verifies nor reports bit rot in blocks and in the log, so every value
 * is stored as `crc32 (4 bytes, little-endian) ‖ payload`. The checksum covers the length of the key, the key and the
 * payload: a value that ends up under another key does not pass.
 */
import { crc32 } from 'node:zlib';
import { toHex } from '../base/bytes.ts';
import { CorruptionError } from '../env/engine.ts';

/** Bytes that {@link seal} puts in front of a value. */
export const SEAL_BYTES = 4;

const KEY_BYTES_IN_ERROR_MAX = 64;

function checksumOf(key: Uint8Array, payload: Uint8Array): number {
  const keyCrc = crc32(key, key.length);
  // zlib returns 0 instead of the running value for an empty buffer, depending on where it lies in memory.
  return payload.length === 0 ? keyCrc : crc32(payload, keyCrc);
}

/** A new buffer with the checksum in front of `value`. */
export function seal(key: Uint8Array, value: Uint8Array): Uint8Array {
  const out = new Uint8Array(SEAL_BYTES + value.length);
  const crc = checksumOf(key, value);
  out[0] = crc;
  out[1] = crc >>> 8;
  out[2] = crc >>> 16;
  out[3] = crc >>> 24;
  out.set(value, SEAL_BYTES);
  return out;
}

/**
 * The payload of a sealed value, as a plain view of the same memory.
 * @throws CorruptionError if it is too short or does not match its checksum.
 */
export function unseal(key: Uint8Array, sealed: Uint8Array): Uint8Array {
  if (sealed.length < SEAL_BYTES) {
    throw corruption(key, 'the stored value is shorter than its checksum');
  }
  // Not `subarray`: LevelDB hands out Buffers, and a Buffer's views are Buffers again.
  const payload = new Uint8Array(sealed.buffer, sealed.byteOffset + SEAL_BYTES, sealed.length - SEAL_BYTES);
  const stored =
    ((sealed[0] as number) |
      ((sealed[1] as number) << 8) |
      ((sealed[2] as number) << 16) |
      ((sealed[3] as number) << 24)) >>>
    0;
  if (checksumOf(key, payload) !== stored) {
    throw corruption(key, 'the stored value does not match its checksum');
  }
  return payload;
}

/** The error for damage at a key; it names the key in hex, cut to a printable length, and never the value. */
export function corruption(key: Uint8Array, what: string): CorruptionError {
  const shown = key.subarray(0, KEY_BYTES_IN_ERROR_MAX);
  return new CorruptionError(what, { key: toHex(shown), keyBytes: key.length });
}
