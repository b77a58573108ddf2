/**
 * Delays between tries: exponential from a base to a cap with full jitter ("Exponential Backoff And Jitter", AWS
 * architecture blog), so that clients which failed together do not come back together.
 */
import type { Rng } from '../env/rng.ts';
import { BACKOFF_BASE_MS } from './defaults.ts';

/** Exponents above this exceed every cap in use; the limit keeps the power finite. */
const EXPONENT_MAX = 20;

/** The longest delay before try number `attempt + 1`, in ms; `attempt` counts failures so far and starts at 0. */
export const backoffCeilingMs = (attempt: number, capMs: number): number =>
  Math.min(capMs, BACKOFF_BASE_MS * 2 ** Math.min(attempt, EXPONENT_MAX));

/** A uniformly random delay in [0, ceiling). */
export const backoffMs = (rng: Rng, attempt: number, capMs: number): number =>
  rng.float() * backoffCeilingMs(attempt, capMs);
