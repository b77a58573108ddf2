/**
 * Writes protobuf from the end to the start, so that the length of a nested message is known when its prefix is
 * written. Callers therefore write the last field first and repeated fields from the last element to the first.
 */
import { assert } from '../base/assert.ts';

const TWO_32: number = 2 ** 32;
const TWO_28: number = 2 ** 28;
const CAPACITY_MIN = 256;

function varintOf(value: bigint): number[] {
  const bytes: number[] = [];
  let rest = value;
  for (; rest > 0x7fn; rest >>= 7n) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
  }
  bytes.push(Number(rest));
  return bytes;
}

export class WireWriter {
  #buf: Uint8Array;
  /** Start of what is written so far. */
  #pos: number;
  /** The decimal number written last: cluster ids repeat from command to command. */
  #decimal = '0';
  #decimalVarint: readonly number[] = [];

  /** @param capacityBytes estimate of the final size; more is allocated when needed. */
  constructor(capacityBytes: number) {
    this.#buf = Buffer.allocUnsafe(Math.max(capacityBytes, CAPACITY_MIN));
    this.#pos = this.#buf.length;
  }

  /** Bytes written so far: remember it before a nested message and give it to `section`. */
  get size(): number {
    return this.#buf.length - this.#pos;
  }

  /** Ends a nested message whose content began at `sizeBefore`. */
  section(tag: number, sizeBefore: number): void {
    this.#uint32(this.size - sizeBefore);
    this.#uint32(tag);
  }

  /** Always writes the field, also if empty. */
  bytes(tag: number, value: Uint8Array): void {
    this.#reserve(value.length);
    this.#pos -= value.length;
    this.#buf.set(value, this.#pos);
    this.#uint32(value.length);
    this.#uint32(tag);
  }

  /** Nothing if empty, as proto3 wants it. */
  optionalBytes(tag: number, value: Uint8Array): void {
    if (value.length > 0) {
      this.bytes(tag, value);
    }
  }

  optionalString(tag: number, value: string): void {
    if (value.length > 0) {
      this.bytes(tag, Buffer.from(value, 'utf8'));
    }
  }

  /** A non-negative safe integer; nothing if 0. */
  optionalNumber(tag: number, value: number): void {
    if (value !== 0) {
      this.number(value);
      this.#uint32(tag);
    }
  }

  /** Any 64-bit number as decimal text; nothing if 0. */
  optionalDecimal(tag: number, text: string): void {
    if (text !== '0') {
      if (text !== this.#decimal) {
        this.#decimal = text;
        this.#decimalVarint = varintOf(BigInt.asUintN(64, BigInt(text)));
      }
      const varint = this.#decimalVarint;
      this.#reserve(varint.length);
      for (let i = varint.length - 1; i >= 0; i--) {
        this.#buf[--this.#pos] = varint[i] as number;
      }
      this.#uint32(tag);
    }
  }

  optionalBool(tag: number, value: boolean): void {
    if (value) {
      this.#uint32(1);
      this.#uint32(tag);
    }
  }

  /** A varint without a tag, for packed fields. */
  number(value: number): void {
    assert(Number.isSafeInteger(value) && value >= 0, 'only non-negative safe integers are written', { value });
    if (value < TWO_28) {
      this.#uint32(value);
      return;
    }
    // The four low groups fit in 28 bits, the rest is below 2^25.
    this.#varintHigh(value % TWO_28, Math.floor(value / TWO_28));
  }

  /** What was written; the writer must not be used any more. */
  finish(): Uint8Array {
    return this.#buf.subarray(this.#pos);
  }

  #varintHigh(low28: number, rest: number): void {
    this.#uint32(rest);
    this.#reserve(4);
    const buf = this.#buf;
    buf[--this.#pos] = (low28 >>> 21) | 0x80;
    buf[--this.#pos] = ((low28 >>> 14) & 0x7f) | 0x80;
    buf[--this.#pos] = ((low28 >>> 7) & 0x7f) | 0x80;
    buf[--this.#pos] = (low28 & 0x7f) | 0x80;
  }

  #uint32(value: number): void {
    assert(value < TWO_32, 'a length or tag fits in 32 bits');
    this.#reserve(5);
    const buf = this.#buf;
    if (value < 0x80) {
      buf[--this.#pos] = value;
    } else if (value < 0x4000) {
      buf[--this.#pos] = value >>> 7;
      buf[--this.#pos] = (value & 0x7f) | 0x80;
    } else if (value < 0x200000) {
      buf[--this.#pos] = value >>> 14;
      buf[--this.#pos] = ((value >>> 7) & 0x7f) | 0x80;
      buf[--this.#pos] = (value & 0x7f) | 0x80;
    } else if (value < TWO_28) {
      buf[--this.#pos] = value >>> 21;
      buf[--this.#pos] = ((value >>> 14) & 0x7f) | 0x80;
      buf[--this.#pos] = ((value >>> 7) & 0x7f) | 0x80;
      buf[--this.#pos] = (value & 0x7f) | 0x80;
    } else {
      buf[--this.#pos] = value >>> 28;
      buf[--this.#pos] = ((value >>> 21) & 0x7f) | 0x80;
      buf[--this.#pos] = ((value >>> 14) & 0x7f) | 0x80;
      buf[--this.#pos] = ((value >>> 7) & 0x7f) | 0x80;
      buf[--this.#pos] = (value & 0x7f) | 0x80;
    }
  }

  #reserve(count: number): void {
    if (this.#pos >= count) {
      return;
    }
    const size = this.size;
    const grown = Buffer.allocUnsafe(Math.max(this.#buf.length * 2, size + count + CAPACITY_MIN));
    grown.set(this.#buf.subarray(this.#pos), grown.length - size);
    this.#pos = grown.length - size;
    this.#buf = grown;
  }
}
