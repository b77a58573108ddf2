import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { UsageError } from '../../../src/cli/failure.ts';
import {
  KEY_FORMATS,
  formatAge,
  formatCount,
  formatEnd,
  formatKey,
  formatStart,
  parseId,
  parseKey,
  showValue,
} from '../../../src/cli/text-form.ts';

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
const NOTHING = new Uint8Array(0);

describe('keys', () => {
  test.each(KEY_FORMATS)('every key printed as %s can be pasted back', (format) => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (key) => {
        expect(parseKey(formatKey(key, format), format)).toEqual(new Uint8Array(key));
      }),
    );
  });

  test('the ends of the key space have names', () => {
    expect([formatStart(NOTHING, 'hex'), formatEnd(NOTHING, 'hex')]).toEqual(['-inf', '+inf']);
    expect([formatStart(bytes(97), 'escaped'), formatEnd(bytes(98), 'hex')]).toEqual(['a', '62']);
  });

  test.each([
    ['escaped', String.raw`a\q`],
    ['escaped', 'a\\'],
    ['hex', 'abc'],
    ['hex', 'zz'],
    ['base64', 'YQ'],
    ['base64', '!!!!'],
  ] as const)('%s text %s is refused with a way out', (format, text) => {
    expect(() => parseKey(text, format)).toThrow(UsageError);
    try {
      parseKey(text, format);
    } catch (error) {
      expect((error as UsageError).hint).toMatch(/--key-format|padding/);
    }
  });
});

describe('values', () => {
  test('are text when that loses nothing', () => {
    expect(showValue(new TextEncoder().encode('käse'), 'auto')).toEqual({ text: 'käse', encoding: 'utf8' });
    expect(showValue(bytes(0xff, 0x00), 'auto')).toEqual({ text: '/wA=', encoding: 'base64' });
  });

  test('keep a byte order mark', () => {
    expect(showValue(bytes(0xef, 0xbb, 0xbf, 97), 'auto').text).toBe('\uFEFFa');
  });

  test('have the form that is asked for', () => {
    expect(showValue(bytes(97, 0), 'hex').text).toBe('6100');
    expect(showValue(bytes(97, 0), 'escaped').text).toBe(String.raw`a\x00`);
    expect(showValue(bytes(97, 0xff), 'utf8').text).toBe('a\uFFFD');
  });
});

describe('ids', () => {
  test('are whole numbers from 1 that JavaScript can hold', () => {
    expect(parseId('7', 'region')).toBe(7);
    expect(parseId(String(Number.MAX_SAFE_INTEGER), 'region')).toBe(Number.MAX_SAFE_INTEGER);
    for (const text of ['0', '-1', '1.5', 'x', '', '9007199254740992', '99999999999999999999']) {
      expect(() => parseId(text, 'region')).toThrow(/is not a region id/);
    }
  });
});

test.each([
  [0, '0ms'],
  [999.4, '999ms'],
  [1000, '1.0s'],
  [59_949, '59.9s'],
  [65_000, '1m05s'],
  [7_620_000, '2h07m'],
  [3 * 86_400_000 + 4 * 3_600_000, '3d4h'],
])('%d ms read as %s', (ms, text) => {
  expect(formatAge(ms)).toBe(text);
});

test.each([
  [0, '0'],
  [999, '999'],
  [1000, '1,000'],
  [1234567.4, '1,234,567'],
])('the digits of %d are grouped', (n, text) => {
  expect(formatCount(n)).toBe(text);
});
