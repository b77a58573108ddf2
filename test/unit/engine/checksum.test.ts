import { describe, expect, test } from 'vitest';
import { copyBytes, utf8 } from '../../../src/base/bytes.ts';
import { seal, SEAL_BYTES, unseal } from '../../../src/engine/checksum.ts';
import { CorruptionError } from '../../../src/env/engine.ts';

describe('sealed values', () => {
  test('open to the bytes that were sealed, empty ones included', () => {
    for (const value of [new Uint8Array(0), utf8('x'), new Uint8Array(1000).fill(9), Buffer.from('buffer')]) {
      expect(unseal(utf8('key'), seal(utf8('key'), value))).toEqual(new Uint8Array(value));
    }
    expect(seal(utf8('key'), utf8('x')).length).toBe(SEAL_BYTES + 1);
  });

  test('open the same wherever an empty value lies in memory', () => {
    const sealed = seal(utf8('key'), new Uint8Array(0));
    const inside = new Uint8Array(16);
    inside.set(sealed, 3);
    expect(unseal(utf8('key'), inside.subarray(3, 3 + sealed.length)).length).toBe(0);
    expect(unseal(utf8('key'), Buffer.from(sealed)).length).toBe(0);
  });

  test('do not open with any single bit flipped', () => {
    const sealed = seal(utf8('key'), utf8('some value'));
    for (let bit = 0; bit < sealed.length * 8; bit++) {
      const damaged = copyBytes(sealed);
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(() => unseal(utf8('key'), damaged)).toThrow(CorruptionError);
    }
  });

  test('do not open under another key, even if key and value join to the same bytes', () => {
    expect(() => unseal(utf8('kez'), seal(utf8('key'), utf8('v')))).toThrow(CorruptionError);
    expect(() => unseal(utf8('ab'), seal(utf8('a'), utf8('bc')).with(4, 0x63).subarray(0, 5))).toThrow(CorruptionError);
  });

  test('do not open when cut short, and the error names the key but not the value', () => {
    const sealed = seal(utf8('key'), utf8('secret'));
    for (let length = 0; length < sealed.length; length++) {
      expect(() => unseal(utf8('key'), sealed.subarray(0, length))).toThrow(CorruptionError);
    }
    let caught: unknown;
    try {
      unseal(utf8('key'), sealed.subarray(0, 6));
    } catch (error) {
      caught = error;
    }
    expect((caught as CorruptionError).details['key']).toBe('6b6579');
    expect(JSON.stringify((caught as CorruptionError).details)).not.toContain('secret');
  });
});
