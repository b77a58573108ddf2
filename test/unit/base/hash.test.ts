import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { toHex, utf8 } from '../../../src/base/bytes.ts';
import { Hash64, hash64 } from '../../../src/base/hash.ts';

describe('Hash64', () => {
  it('gives the same bytes on every platform', () => {
    expect(toHex(hash64(utf8('')))).toMatchInlineSnapshot(`"7c086ea8d91e2010"`);
    expect(toHex(hash64(utf8('braid')))).toMatchInlineSnapshot(`"f986fff40c2dd88f"`);
    expect(toHex(new Hash64().update(utf8('region')).update(utf8('merge')).digest())).toMatchInlineSnapshot(
      `"258e0679543afe3a"`,
    );
  });

  it('tells where one string ends and the next begins', () => {
    const of = (...parts: string[]): string => toHex(parts.reduce((h, p) => h.update(utf8(p)), new Hash64()).digest());
    const all = [of('ab', 'c'), of('a', 'bc'), of('abc'), of('abc', ''), of('', 'abc'), of('ab', 'c', '')];
    expect(new Set(all).size).toBe(all.length);
  });

  it('notices every single flipped bit', () => {
    const bytes = utf8('the quick brown fox');
    const seen = new Set([toHex(hash64(bytes))]);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = new Uint8Array(bytes);
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7));
      seen.add(toHex(hash64(changed)));
    }
    expect(seen.size).toBe(bytes.length * 8 + 1);
  });

  it('notices the same high bit flipped in two words', () => {
    const bytes = new Uint8Array(64);
    const seen = new Set([toHex(hash64(bytes))]);
    for (let a = 3; a < 64; a += 4) {
      for (let b = a + 4; b < 64; b += 4) {
        const changed = new Uint8Array(bytes);
        changed[a] = 0x80;
        changed[b] = 0x80;
        seen.add(toHex(hash64(changed)));
      }
    }
    expect(seen.size).toBe(1 + (16 * 15) / 2);
  });

  it('depends only on the content', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 40 })), (parts) => {
        const a = new Hash64();
        const b = new Hash64();
        for (const part of parts) {
          a.update(part);
          b.update(Buffer.from(part));
          b.digest();
        }
        expect(a.digest()).toEqual(b.digest());
      }),
    );
  });
});
