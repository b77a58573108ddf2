/**
 * When the work of a store that comes back at intervals is due. Work that is late is done once, and its next turn counts
 * from then: a store that stalled does not make up for what it missed.
 */

export type PeriodicJob = 'maintenance' | 'heartbeat' | 'split-check' | 'consistency';

export class PeriodicWork {
  /** In milliseconds; 0 = never. */
  readonly #intervals: Readonly<Record<PeriodicJob, number>>;
  readonly #dues: Record<PeriodicJob, number> = { maintenance: 0, heartbeat: 0, 'split-check': 0, consistency: 0 };

  constructor(intervals: Readonly<Record<PeriodicJob, number>>) {
    this.#intervals = intervals;
  }

  /** The first turn of everything comes one interval from now. Times are those of the monotonic clock. */
  start(nowMs: number): void {
    for (const job of Object.keys(this.#dues) as PeriodicJob[]) {
      this.#dues[job] = nowMs + this.#intervals[job];
    }
  }

  /** Whether it is the turn of `job`; if so, the next turn is one interval from now. */
  take(job: PeriodicJob, nowMs: number): boolean {
    if (this.#intervals[job] <= 0 || nowMs < this.#dues[job]) {
      return false;
    }
    this.#dues[job] = nowMs + this.#intervals[job];
    return true;
  }
}
