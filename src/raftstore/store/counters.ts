/** What a store has done since its start, for metrics. Grows only. */
import type { CheckResult } from '../operation/consistency.ts';

export class StoreCounters {
  /** Requests of clients with an outdated idea of a region. */
  readonly redirects: { redirected: number; forwarded: number; waited: number; refused: number } = {
    redirected: 0,
    forwarded: 0,
    waited: 0,
    refused: 0,
  };
  /** Comparisons of replicas that leaders here finished. */
  readonly checks: Record<CheckResult, number> = { consistent: 0, divergent: 0, unclear: 0, incomplete: 0 };
}
