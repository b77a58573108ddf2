/**
 * Named moments in the code where tests and the fault harness can interfere. A disabled registry costs one property
 * read per point. Names are `room::moment`, listed in `failpoint-names.ts` so that a typo is an error.
 */
import type { FailpointName } from './failpoint-names.ts';

export type FailpointAction =
  /** Stop the process as a crash would. */
  | { readonly type: 'crash' }
  /** Report an I/O or protocol failure at this point, in the point's own way. */
  | { readonly type: 'fail' }
  /** Hold the step back; the owner tries again at its next round. */
  | { readonly type: 'pause' };

export interface Failpoints {
  /** The action to take at this point now; undefined nearly always. `key` narrows a point, e.g. to a region id. */
  hit(name: FailpointName, key?: number): FailpointAction | undefined;
}

export const NO_FAILPOINTS: Failpoints = { hit: () => undefined };
