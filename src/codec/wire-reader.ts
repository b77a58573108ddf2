/**
 * Reads protobuf by hand for the few messages where the generated code costs too much. Byte fields come out as views.
 * Every read is checked against the end of the input; malformed input throws a plain Error, which the callers in this
 * room turn into BadMessageError.
 */
import { EMPTY_BYTES, fromUtf8 } from '../base/bytes.ts';

export const WireType = { Varint: 0, Fixed64: 1, Bytes: 2, Fixed32: 5 } as const;

const TWO_32: number = 2 ** 32;
/** Upper halves of numbers up to 2^53-1 fit in so many bits. */
const SAFE_HIGH_MAX: number = 2 ** 21 - 1;
const VARINT_BYTES_MAX = 10;

export class WireReader {
  readonly #buf: Uint8Array;
  readonly #end: number;
  #pos = 0;
  /** Upper 32 bits of the varint read last. */
  #high = 0;
  /** The 64-bit number turned into text last: cluster ids repeat from command to command. */
  #textLow = 0;
  #textHigh = 0;
  #text = '0';

  constructor(bytes: Uint8Array) {
    this.#buf = bytes;
    this.#end = bytes.length;
  }

  get length(): number {
    return this.#end;
  }

  /** Whether fields are left before `end`. Throws if the last one went beyond it. */
  isBefore(end: number): boolean {
    if (this.#pos > end) {
      throw new Error('a field reaches beyond the end of its message');
    }
    return this.#pos < end;
  }

  /** Field number and wire type as one number. */
  tag(): number {
    const tag = this.uint32();
    if (tag >>> 3 === 0) {
      throw new Error('field number 0');
    }
    return tag;
  }

  /** The low 32 bits of a varint, unsigned. */
  uint32(): number {
    const first = this.#buf[this.#pos];
    if (first !== undefined && first < 0x80) {
      this.#pos++;
      this.#high = 0;
      return first;
    }
    return this.#longVarint();
  }

  int32(): number {
    return this.uint32() | 0;
  }

  bool(): boolean {
    return this.uint32() !== 0 || this.#high !== 0;
  }

  /** Throws above 2^53-1. */
  uint64(): number {
    const low = this.uint32();
    if (this.#high > SAFE_HIGH_MAX) {
      throw new Error('a number is larger than 2^53-1');
    }
    return this.#high * TWO_32 + low;
  }

  /** For amounts where anything above 2^53-1 means the same as 2^53-1. */
  uint64Saturated(): number {
    const low = this.uint32();
    return this.#high > SAFE_HIGH_MAX ? Number.MAX_SAFE_INTEGER : this.#high * TWO_32 + low;
  }

  /** All 64 bits as a decimal number. */
  uint64Text(): string {
    const low = this.uint32();
    const high = this.#high;
    if (low !== this.#textLow || high !== this.#textHigh) {
      this.#textLow = low;
      this.#textHigh = high;
      this.#text =
        high <= SAFE_HIGH_MAX ? String(high * TWO_32 + low) : ((BigInt(high) << 32n) | BigInt(low)).toString();
    }
    return this.#text;
  }

  /** Reads the length of a field and gives the position behind the field. */
  sectionEnd(): number {
    const length = this.uint32();
    const end = length + this.#pos;
    if (end > this.#end || this.#high !== 0) {
      throw new Error('a field reaches beyond the end');
    }
    return end;
  }

  /** A view of the input. */
  bytes(): Uint8Array {
    const end = this.sectionEnd();
    const start = this.#pos;
    this.#pos = end;
    // Half the cost of subarray, which for Buffers runs through a subclass.
    return end === start ? EMPTY_BYTES : new Uint8Array(this.#buf.buffer, this.#buf.byteOffset + start, end - start);
  }

  /** Bytes that do not keep the input alive. Small ones share blocks with each other: allocating each costs more. */
  bytesCopy(): Uint8Array {
    const view = this.bytes();
    if (view.length === 0) {
      return view;
    }
    const { buffer, byteOffset } = Buffer.allocUnsafe(view.length);
    const copy = new Uint8Array(buffer, byteOffset, view.length);
    copy.set(view);
    return copy;
  }

  string(): string {
    const bytes = this.bytes();
    return bytes.length === 0 ? '' : fromUtf8(bytes);
  }

  /** Skips the value of a field. Groups are refused: none of our contracts has ever had one. */
  skip(tag: number): void {
    switch (tag & 7) {
      case WireType.Varint:
        this.uint32();
        return;
      case WireType.Fixed64:
        this.#advance(8);
        return;
      case WireType.Bytes:
        this.#pos = this.sectionEnd();
        return;
      case WireType.Fixed32:
        this.#advance(4);
        return;
      default:
        throw new Error(`unexpected wire type ${tag & 7}`);
    }
  }

  #advance(count: number): void {
    if (this.#pos + count > this.#end) {
      throw new Error('a field reaches beyond the end');
    }
    this.#pos += count;
  }

  #longVarint(): number {
    let low = 0;
    let high = 0;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      if (this.#pos >= this.#end) {
        throw new Error('a number reaches beyond the end');
      }
      const byte = this.#buf[this.#pos++] as number;
      const bits = byte & 0x7f;
      if (i < 4) {
        low |= bits << (7 * i);
      } else if (i === 4) {
        low |= bits << 28;
        high |= bits >>> 4;
      } else {
        high |= bits << (7 * i - 32);
      }
      if (byte < 0x80) {
        this.#high = high >>> 0;
        return low >>> 0;
      }
    }
    throw new Error('a number has more than 10 bytes');
  }
}
