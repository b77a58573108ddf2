/** Seeds from the operating system. Everything after the seed is the ordinary deterministic generator. */
import { randomInt } from 'node:crypto';
import { createRng, type Rng } from '../rng.ts';

/** The largest range `randomInt` accepts. */
const SEED_LIMIT: number = 2 ** 48 - 1;

/** An unpredictable seed; log it, so that a run can be looked into. */
export const randomSeed = (): number => randomInt(SEED_LIMIT);

/** A generator with a seed from the operating system, or the given one. Not for secrets. */
export const realRng = (seed: number = randomSeed()): Rng => createRng(seed);
