/**
 * Form of a user value on disk: one flag byte, then a 6-byte big-endian expiry in Unix seconds if flag bit 0 is set,
 * then the user's bytes.
 */
import { assert } from '../base/assert.ts';

const FLAG_PLAIN = 0;
const FLAG_EXPIRES = 1;
const EXPIRY_BYTES = 6;
const EXPIRY_MAX: number = 2 ** 48 - 1;

export interface DataValue {
  /** A view of the stored bytes. */
  readonly value: Uint8Array;
  /** Unix seconds; 0 means never. */
  readonly expireAtSeconds: number;
}

export function encodeDataValue(value: Uint8Array, expireAtSeconds: number): Uint8Array {
  if (expireAtSeconds === 0) {
    const out = Buffer.allocUnsafe(1 + value.length);
    out[0] = FLAG_PLAIN;
    out.set(value, 1);
    return out;
  }
  assert(expireAtSeconds > 0 && expireAtSeconds <= EXPIRY_MAX, 'expiry out of range', { expireAtSeconds });
  const out = Buffer.allocUnsafe(1 + EXPIRY_BYTES + value.length);
  out[0] = FLAG_EXPIRES;
  out.writeUIntBE(expireAtSeconds, 1, EXPIRY_BYTES);
  out.set(value, 1 + EXPIRY_BYTES);
  return out;
}

/** Undefined if the bytes are not a stored value (which only damage can cause). */
export function decodeDataValue(stored: Uint8Array): DataValue | undefined {
  const flag = stored[0];
  if (flag === FLAG_PLAIN) {
    return { value: stored.subarray(1), expireAtSeconds: 0 };
  }
  if (flag !== FLAG_EXPIRES || stored.length < 1 + EXPIRY_BYTES) {
    return undefined;
  }
  let expireAtSeconds = 0;
  for (let i = 1; i <= EXPIRY_BYTES; i++) {
    expireAtSeconds = expireAtSeconds * 256 + (stored[i] as number);
  }
  return { value: stored.subarray(1 + EXPIRY_BYTES), expireAtSeconds };
}

/** Whether a value with this expiry counts as absent at `nowSeconds`. */
export const isExpired = (expireAtSeconds: number, nowSeconds: number): boolean =>
  expireAtSeconds !== 0 && expireAtSeconds <= nowSeconds;
