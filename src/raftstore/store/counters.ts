/** What a store has done since its start, for metrics. Grows only. */
import type { CheckResult } from '../operation/consistency.ts';

/** Why a leader splits its region: asked for, too large, too many keys, too much to do. */
export type SplitCause = 'admin' | 'size' | 'keys' | 'load';

export class StoreCounters {
  /** Requests of clients with an outdated idea of a region. */
  readonly redirects: { redirected: number; forwarded: number; waited: number; refused: number } = {
    redirected: 0,
    forwarded: 0,
    waited: 0,
    refused: 0,
  };
  /** Splits that leaders here proposed. */
  readonly splits: Record<SplitCause, number> = { admin: 0, size: 0, keys: 0, load: 0 };
  /** Comparisons of replicas that leaders here finished. */
  readonly checks: Record<CheckResult, number> = { consistent: 0, divergent: 0, unclear: 0, incomplete: 0 };
}
