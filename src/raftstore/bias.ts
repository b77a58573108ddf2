/**
 * Sites where a test bends what the program chooses by itself: refuse with an error that may be tried again, take the
 * slow path, shrink a buffer, do a step later or twice. Whatever a site does is allowed at any time, only seldom
 * chosen; so nothing may break however often they fire (the idea of FoundationDB's BUGGIFY). Inert without a registry
 * of failpoints; names are stable and start with `bias::`.
 */
import type { FailpointName } from '../env/failpoint-names.ts';
import type { Failpoints } from '../env/failpoints.ts';

export type BiasName = Extract<FailpointName, `bias::${string}`>;

export const isBiasName = (name: FailpointName): name is BiasName => name.startsWith('bias::');

/** Whether the site fires now; `key` is the region it works for. */
export const isBiased = (failpoints: Failpoints, name: BiasName, key?: number): boolean =>
  failpoints.hit(name, key)?.type === 'fail';
