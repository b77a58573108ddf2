/**
 * CRC-64/XZ (ECMA-182 polynomial, reflected), the checksum of TiKV's RawChecksum. Kept as two 32-bit halves: 64-bit
 * integers would cost a heap allocation per byte.
 */

const POLYNOMIAL_HIGH = 0xc96c5795;
const POLYNOMIAL_LOW = 0xd7870f42;

const TABLES: { readonly high: Uint32Array; readonly low: Uint32Array } = buildTables();

function buildTables(): { high: Uint32Array; low: Uint32Array } {
  const highs = new Uint32Array(256);
  const lows = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    let high = 0;
    let low = i;
    for (let bit = 0; bit < 8; bit++) {
      const isOdd = (low & 1) === 1;
      low = (low >>> 1) | ((high & 1) << 31);
      high >>>= 1;
      if (isOdd) {
        high ^= POLYNOMIAL_HIGH;
        low ^= POLYNOMIAL_LOW;
      }
    }
    highs[i] = high;
    lows[i] = low;
  }
  return { high: highs, low: lows };
}

export class Crc64 {
  #high = 0xffffffff;
  #low = 0xffffffff;

  update(bytes: Uint8Array): this {
    let high = this.#high;
    let low = this.#low;
    for (let i = 0; i < bytes.length; i++) {
      const index = (low ^ (bytes[i] as number)) & 0xff;
      low = ((low >>> 8) | (high << 24)) ^ (TABLES.low[index] as number);
      high = (high >>> 8) ^ (TABLES.high[index] as number);
    }
    this.#high = high;
    this.#low = low;
    return this;
  }

  digest(): bigint {
    return (BigInt(~this.#high >>> 0) << 32n) | BigInt(~this.#low >>> 0);
  }
}
