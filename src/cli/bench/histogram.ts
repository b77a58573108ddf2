/**
 * Latency histogram with a fixed relative error, after the idea of HdrHistogram (Gil Tene): values up to 2^7 are counted
 * exactly, above that every power of two is divided into 2^7 buckets, so a value is known to 0.8 %. Recording is an
 * index computation and an increment; nothing is allocated, nothing is averaged away.
 */
import { assert } from '../../base/assert.ts';

const SUB_BITS = 7;
const SUB = 2 ** SUB_BITS;
/** Values are microseconds; 2^36 µs are 19 hours. */
const MAX_BITS = 36;
const BUCKETS = SUB * (MAX_BITS - SUB_BITS + 1);
const MAX_VALUE = 2 ** MAX_BITS - 1;

function bucketOf(value: number): number {
  if (value < SUB) {
    return value;
  }
  // Position of the highest bit; exact for safe integers because the value is above 2^7 and below 2^36.
  const high = value >= 2 ** 31 ? 31 - Math.clz32(Math.floor(value / 32)) + 5 : 31 - Math.clz32(value);
  const shift = high - SUB_BITS;
  return SUB * (shift + 1) + (Math.floor(value / 2 ** shift) - SUB);
}

/** The highest value counted in a bucket. */
function bucketTop(bucket: number): number {
  if (bucket < SUB) {
    return bucket;
  }
  const shift = Math.floor(bucket / SUB) - 1;
  return ((bucket % SUB) + SUB + 1) * 2 ** shift - 1;
}

export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sum = 0;
  #min = Infinity;
  #max = 0;

  get count(): number {
    return this.#count;
  }

  get max(): number {
    return this.#max;
  }

  get min(): number {
    return this.#count === 0 ? 0 : this.#min;
  }

  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** `valueUs` is rounded down to whole microseconds and held to 19 hours. */
  record(valueUs: number): void {
    const value = Math.min(MAX_VALUE, Math.max(0, Math.floor(valueUs)));
    const bucket = bucketOf(value);
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1;
    this.#count++;
    this.#sum += value;
    this.#min = Math.min(this.#min, value);
    this.#max = Math.max(this.#max, value);
  }

  /** The value that `share` (0 to 1) of all values do not exceed, to 0.8 %; 0 when there are none. */
  quantile(share: number): number {
    assert(share >= 0 && share <= 1, 'a quantile is a share from 0 to 1', { share });
    const rank = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.#counts[bucket] as number;
      if (seen >= rank) {
        return Math.min(bucketTop(bucket), this.#max);
      }
    }
    return 0;
  }

  add(other: Histogram): void {
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      this.#counts[bucket] = (this.#counts[bucket] as number) + (other.#counts[bucket] as number);
    }
    this.#count += other.#count;
    this.#sum += other.#sum;
    this.#min = Math.min(this.#min, other.#min);
    this.#max = Math.max(this.#max, other.#max);
  }
}
