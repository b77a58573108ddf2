/**
 * Deterministic chance. The generator is sfc32 (Chris Doty-Humphrey, PractRand); forks are independent streams named
 * by a label, so that drawing more numbers in one place leaves the others' numbers unchanged.
 */
import { assert } from '../base/assert.ts';

export interface Rng {
  /** Uniform in [0, 2^32). */
  u32(): number;
  /** Uniform integer in [0, n), 1 <= n <= 2^32. */
  below(n: number): number;
  /** Uniform in [0, 1). */
  float(): number;
  /** True with probability `p`. */
  chance(p: number): boolean;
  /** A random element; the list must not be empty. */
  pick<T>(items: readonly T[]): T;
  /** An independent stream that depends only on this generator's seed and `label`, not on numbers drawn so far. */
  fork(label: string): Rng;
}

function hashLabel(label: string, seed: number): number {
  let h = (seed ^ 0x811c9dc5) >>> 0;
  for (let i = 0; i < label.length; i++) {
    h = Math.imul(h ^ label.charCodeAt(i), 0x01000193) >>> 0;
  }
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b) >>> 0;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35) >>> 0;
  return (h ^ (h >>> 16)) >>> 0;
}

class Sfc32 implements Rng {
  readonly #seed: readonly [number, number, number];
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(s0: number, s1: number, s2: number) {
    this.#seed = [s0, s1, s2];
    this.#a = s0 | 0;
    this.#b = s1 | 0;
    this.#c = s2 | 0;
    for (let i = 0; i < 12; i++) {
      this.u32();
    }
  }

  u32(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + t) | 0;
    return t >>> 0;
  }

  below(n: number): number {
    assert(Number.isSafeInteger(n) && n >= 1 && n <= 2 ** 32, 'rng bound out of range', { n });
    return Math.floor((this.u32() / 2 ** 32) * n);
  }

  float(): number {
    return this.u32() / 2 ** 32;
  }

  chance(p: number): boolean {
    return this.float() < p;
  }

  pick<T>(items: readonly T[]): T {
    assert(items.length > 0, 'pick from an empty list');
    return items[this.below(items.length)] as T;
  }

  fork(label: string): Rng {
    const [s0, s1, s2] = this.#seed;
    return new Sfc32(hashLabel(label, s0), hashLabel(label, s1 ^ 0x9e3779b9), hashLabel(label, s2 ^ 0x7f4a7c15));
  }
}

/** A generator for a seed (any safe integer). Equal seeds give equal numbers on every platform. */
export function createRng(seed: number): Rng {
  const low = seed >>> 0;
  const high = Math.floor(seed / 2 ** 32) >>> 0;
  return new Sfc32(low, high, 0xdeadbeef);
}
