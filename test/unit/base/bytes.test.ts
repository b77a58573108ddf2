import { describe, expect, test } from 'vitest';
import {
  compareBytes,
  concatBytes,
  copyBytes,
  equalBytes,
  escapeKey,
  fromHex,
  fromUtf8,
  keyAfter,
  prefixEnd,
  startsWith,
  toHex,
  unescapeKey,
  utf8,
} from '../../../src/base/bytes.ts';

describe('bytes', () => {
  test('compare as unsigned numbers, a prefix before its extensions', () => {
    const sorted = [[], [0], [0, 0], [0, 0xff], [0x7f], [0x80], [0xff], [0xff, 0]].map((bytes) =>
      Uint8Array.from(bytes),
    );
    expect(sorted.toReversed().toSorted(compareBytes)).toEqual(sorted);
  });

  test('compare like the native comparison around the length where that takes over', () => {
    const words = Array.from({ length: 30 }, (_, length) => [
      Buffer.alloc(length, 1),
      Buffer.concat([Buffer.alloc(Math.max(0, length - 1), 1), Buffer.of(2)]),
      Buffer.concat([Buffer.alloc(length, 1), Buffer.of(0)]),
    ]).flat();
    for (const a of words) {
      for (const b of words) {
        expect(Math.sign(compareBytes(a, b))).toBe(Buffer.compare(a, b));
        expect(equalBytes(a, b)).toBe(a.equals(b));
      }
    }
  });

  test('are equal by content only', () => {
    expect(equalBytes(utf8('ab'), Buffer.from('ab'))).toBe(true);
    expect(equalBytes(utf8('ab'), utf8('ac'))).toBe(false);
    expect(equalBytes(utf8('ab'), utf8('abc'))).toBe(false);
    expect(equalBytes(new Uint8Array(0), new Uint8Array(0))).toBe(true);
  });

  test('copies own their memory, even copies of a Buffer', () => {
    const original = Buffer.from('abc');
    const copy = copyBytes(original.subarray(1));
    original.fill(0);
    expect(fromUtf8(copy)).toBe('bc');
    expect(Buffer.isBuffer(copy)).toBe(false);
  });

  test('concatBytes joins any number of parts', () => {
    expect(concatBytes()).toEqual(new Uint8Array(0));
    expect(fromUtf8(concatBytes(utf8('a'), new Uint8Array(0), utf8('bc')))).toBe('abc');
  });

  test('startsWith accepts the empty prefix and the whole', () => {
    expect(startsWith(utf8('abc'), new Uint8Array(0))).toBe(true);
    expect(startsWith(utf8('abc'), utf8('abc'))).toBe(true);
    expect(startsWith(utf8('abc'), utf8('abcd'))).toBe(false);
    expect(startsWith(utf8('abc'), utf8('b'))).toBe(false);
  });

  test('keyAfter is the next key: nothing fits in between', () => {
    expect(keyAfter(utf8('a'))).toEqual(Uint8Array.of(0x61, 0));
    expect(keyAfter(new Uint8Array(0))).toEqual(Uint8Array.of(0));
  });

  test('prefixEnd is empty when there is no bound', () => {
    expect(prefixEnd(new Uint8Array(0))).toEqual(new Uint8Array(0));
    expect(prefixEnd(Uint8Array.of(0xff, 0xff))).toEqual(new Uint8Array(0));
    expect(prefixEnd(Uint8Array.of(0x61, 0xff))).toEqual(Uint8Array.of(0x62));
    expect(prefixEnd(Uint8Array.of(0x61, 0x00))).toEqual(Uint8Array.of(0x61, 0x01));
  });

  test('prefixEnd leaves its argument as it is', () => {
    const prefix = Uint8Array.of(1, 2);
    prefixEnd(prefix);
    expect(prefix).toEqual(Uint8Array.of(1, 2));
  });

  test('hex goes both ways and refuses anything else', () => {
    expect(toHex(Uint8Array.of(0, 0x0f, 0xff))).toBe('000fff');
    expect(fromHex('000fFF')).toEqual(Uint8Array.of(0, 0x0f, 0xff));
    expect(fromHex('')).toEqual(new Uint8Array(0));
    for (const text of ['0', '0g', ' 00', '0x00']) {
      expect(fromHex(text)).toBeUndefined();
    }
  });

  test.each([
    ['plain text', [...utf8('plain text')]],
    ['back\\\\slash', [...utf8('back\\slash')]],
    ['\\x00\\xff', [0, 0xff]],
    ['', []],
  ])('%j stands for its bytes', (text, bytes) => {
    expect(escapeKey(Uint8Array.from(bytes))).toBe(text);
    expect(unescapeKey(text)).toEqual(Uint8Array.from(bytes));
  });

  test('unescapeKey takes other characters as their UTF-8 bytes', () => {
    expect(unescapeKey('é\u{1f600}')).toEqual(utf8('é\u{1f600}'));
  });

  test.each(['\\', 'a\\', '\\x', '\\x0', '\\xg0', '\\n'])('%j is a broken escape', (text) => {
    expect(unescapeKey(text)).toBeUndefined();
  });
});
