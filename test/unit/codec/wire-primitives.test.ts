import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InvariantError } from '../../../src/base/assert.ts';
import { concatBytes, toHex, utf8 } from '../../../src/base/bytes.ts';
import { WireReader } from '../../../src/codec/wire-reader.ts';
import { WireWriter } from '../../../src/codec/wire-writer.ts';

const MAX = Number.MAX_SAFE_INTEGER;
/** 2^53 and 2^64-1 as varints. */
const TWO_53 = Uint8Array.of(0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10);
const UINT64_MAX = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01);

const numberBytes = (value: number): Uint8Array => {
  const w = new WireWriter(0);
  w.number(value);
  return w.finish();
};

describe('WireReader and WireWriter', () => {
  test('numbers of every length survive', () => {
    for (let bits = 0; bits <= 53; bits++) {
      for (const value of [2 ** bits - 1, Math.min(2 ** bits, MAX), Math.min(2 ** bits + 1, MAX)]) {
        expect(new WireReader(numberBytes(value)).uint64()).toBe(value);
        expect(numberBytes(value).length).toBe(Math.max(1, Math.ceil(value.toString(2).length / 7)));
      }
    }
  });

  test('numbers above 2^53-1 are refused, saturated or kept as text, as the caller asks', () => {
    expect(() => new WireReader(TWO_53).uint64()).toThrow(/2\^53-1/);
    expect(new WireReader(TWO_53).uint64Saturated()).toBe(MAX);
    expect(new WireReader(TWO_53).uint64Text()).toBe('9007199254740992');
    expect(new WireReader(UINT64_MAX).uint64Saturated()).toBe(MAX);
    expect(new WireReader(UINT64_MAX).uint64Text()).toBe('18446744073709551615');
    expect(new WireReader(UINT64_MAX).int32()).toBe(-1);
    expect(new WireReader(TWO_53).bool()).toBe(true);
  });

  test('decimal texts of 64 bits survive, repeated or not', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }), { minLength: 1, maxLength: 3 }), (values) => {
        const texts = [...values, ...values].map(String);
        const w = new WireWriter(0);
        for (const text of texts.toReversed()) {
          w.optionalDecimal(8, text);
        }
        const r = new WireReader(w.finish());
        const read: string[] = [];
        while (r.isBefore(r.length)) {
          expect(r.tag()).toBe(8);
          read.push(r.uint64Text());
        }
        expect(read).toEqual(texts);
      }),
    );
  });

  test('only non-negative safe integers are written', () => {
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
      expect(() => numberBytes(bad)).toThrow(InvariantError);
    }
  });

  test('a writer grows beyond its first estimate and keeps what was written', () => {
    const w = new WireWriter(1);
    const part = new Uint8Array(1000).fill(7);
    for (let i = 0; i < 20; i++) {
      w.bytes(10, part);
    }
    const r = new WireReader(w.finish());
    let parts = 0;
    while (r.isBefore(r.length)) {
      expect(r.tag()).toBe(10);
      expect(toHex(r.bytes())).toBe(toHex(part));
      parts++;
    }
    expect(parts).toBe(20);
  });

  test('fields with default values are not written', () => {
    const w = new WireWriter(0);
    w.optionalBytes(10, new Uint8Array(0));
    w.optionalString(10, '');
    w.optionalNumber(8, 0);
    w.optionalBool(8, false);
    w.optionalDecimal(8, '0');
    expect(w.finish().length).toBe(0);
  });

  test('views share memory with the input, copies do not', () => {
    const input = concatBytes(Uint8Array.of(2), utf8('ab'));
    const view = new WireReader(input).bytes();
    const copy = new WireReader(input).bytesCopy();
    input.fill(0x7a);
    expect(toHex(view)).toBe('7a7a');
    expect(toHex(copy)).toBe(toHex(utf8('ab')));
  });

  test('reading beyond the end, beyond a message, or a number without end is refused', () => {
    expect(() => new WireReader(Uint8Array.of(0x80)).uint32()).toThrow(/beyond the end/);
    expect(() => new WireReader(new Uint8Array(0)).uint32()).toThrow(/beyond the end/);
    expect(() => new WireReader(new Uint8Array(11).fill(0x80)).uint32()).toThrow(/more than 10 bytes/);
    expect(() => new WireReader(Uint8Array.of(3, 1, 2)).bytes()).toThrow(/beyond the end/);
    expect(() => new WireReader(Uint8Array.of(1, 2)).skip(5)).toThrow(/beyond the end/);
    expect(() => new WireReader(Uint8Array.of(1, 2)).skip(1)).toThrow(/beyond the end/);
    expect(() => new WireReader(Uint8Array.of(1, 2)).skip(3)).toThrow(/wire type 3/);
    expect(() => new WireReader(Uint8Array.of(0)).tag()).toThrow(/field number 0/);
    const nested = new WireReader(Uint8Array.of(1, 2, 9, 9));
    const end = nested.sectionEnd();
    nested.bytes();
    expect(() => nested.isBefore(end)).toThrow(/end of its message/);
  });

  test('a length of more than 32 bits is refused', () => {
    const length = Uint8Array.of(0x81, 0x80, 0x80, 0x80, 0x80, 0x20, 0);
    expect(() => new WireReader(length).bytes()).toThrow(/beyond the end/);
  });

  test('every wire type but groups can be skipped', () => {
    const r = new WireReader(Uint8Array.of(0x80, 1, 1, 2, 3, 4, 5, 6, 7, 8, 2, 0, 0, 1, 2, 3, 4, 0x2a));
    for (const wireType of [0, 1, 2, 5]) {
      r.skip(wireType);
    }
    expect(r.uint32()).toBe(0x2a);
    expect(r.isBefore(r.length)).toBe(false);
  });
});
