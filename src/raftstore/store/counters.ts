/** What a store has done since its start, for metrics. Grows only. */
import type { CheckResult } from '../operation/consistency.ts';

export class StoreCounters {
  /** Comparisons of replicas that leaders here finished. */
  readonly checks: Record<CheckResult, number> = { consistent: 0, divergent: 0, unclear: 0, incomplete: 0 };
}
