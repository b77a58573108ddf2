/**
 * A streaming 64-bit hash for detecting accidental differences between replicas and damaged transfers. It is two
 * MurmurHash3 x86_32 lanes (Austin Appleby, public domain) with different seeds and constants over the same bytes.
 * Not for hostile input and not a substitute for the engine's per-record checksums.
 */

const LANE_A1 = 0xcc9e2d51 | 0;
const LANE_A2 = 0x1b873593;
const LANE_B1 = 0x239b961b;
const LANE_B2 = 0xab0e9789 | 0;

export const HASH64_BYTES = 8;

function finish(h: number): number {
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return h ^ (h >>> 16);
}

export class Hash64 {
  #a = 0x9747b28c | 0;
  #b = 0x2f0b4c47;
  #bytes = 0;

  #word(k: number): void {
    let a = Math.imul(k, LANE_A1);
    a = (a << 15) | (a >>> 17);
    a = this.#a ^ Math.imul(a, LANE_A2);
    a = (a << 13) | (a >>> 19);
    this.#a = (Math.imul(a, 5) + 0xe6546b64) | 0;
    let b = Math.imul(k, LANE_B1);
    b = (b << 16) | (b >>> 16);
    b = this.#b ^ Math.imul(b, LANE_B2);
    b = (b << 17) | (b >>> 15);
    this.#b = (Math.imul(b, 5) + 0x561ccd1b) | 0;
  }

  /** Adds one byte string; its length is part of the hash, so that neighbouring strings cannot trade bytes. */
  update(bytes: Uint8Array): this {
    const { length } = bytes;
    this.#word(length);
    const whole = length - (length % 4);
    let i = 0;
    for (; i < whole; i += 4) {
      this.#word(
        (bytes[i] as number) |
          ((bytes[i + 1] as number) << 8) |
          ((bytes[i + 2] as number) << 16) |
          ((bytes[i + 3] as number) << 24),
      );
    }
    if (i < length) {
      let k = 0;
      for (let shift = 0; i < length; i++, shift += 8) {
        k |= (bytes[i] as number) << shift;
      }
      this.#word(k);
    }
    this.#bytes += length;
    return this;
  }

  /** The hash of everything added so far, big-endian; the object may be updated further. */
  digest(): Uint8Array {
    let a = finish(this.#a ^ this.#bytes);
    let b = finish(this.#b ^ this.#bytes);
    a = (a + b) | 0;
    b = (b + a) | 0;
    return Uint8Array.of(a >>> 24, a >>> 16, a >>> 8, a, b >>> 24, b >>> 16, b >>> 8, b);
  }
}

/** The hash of one byte string. */
export const hash64 = (bytes: Uint8Array): Uint8Array => new Hash64().update(bytes).digest();
