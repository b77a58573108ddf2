/** Virtual time for the SDK's tests: timers fire only when the test drives the clock, in order of their due moment. */
import type { Clock, TimerId } from '../../../src/env/clock.ts';

interface Timer {
  readonly id: number;
  readonly dueMs: number;
  readonly fn: () => void;
}

/** Steps one `drive` may take before the test is declared stuck. */
const STEPS_MAX = 200_000;

export class VirtualClock implements Clock {
  #nowMs = 1000;
  #nextId = 1;
  #timers: Timer[] = [];
  #deferred: (() => void)[] = [];

  monoMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  setTimer(delayMs: number, fn: () => void, _tag: string): TimerId {
    const id = this.#nextId++;
    this.#timers.push({ id, dueMs: this.#nowMs + delayMs, fn });
    return id as TimerId;
  }

  clearTimer(timer: TimerId): void {
    this.#timers = this.#timers.filter((t) => t.id !== timer);
  }

  defer(fn: () => void, _tag: string): void {
    this.#deferred.push(fn);
  }

  get pendingTimers(): number {
    return this.#timers.length;
  }

  /** Runs everything due until `promise` settles, advancing time when nothing else is left to do. */
  async drive<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const watched = promise.finally(() => {
      settled = true;
    });
    watched.catch(() => {});
    for (let step = 0; step < STEPS_MAX; step++) {
      await microtasks();
      if (settled) {
        return watched;
      }
      if (!this.#runDeferred() && !this.#fireNext(Infinity)) {
        throw new Error('the test is stuck: nothing is scheduled and the promise is not settled');
      }
    }
    throw new Error(`the promise did not settle within ${STEPS_MAX} steps`);
  }

  /** Runs everything due within the next `ms`. */
  async advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    for (let step = 0; step < STEPS_MAX; step++) {
      await microtasks();
      if (!this.#runDeferred() && !this.#fireNext(untilMs)) {
        this.#nowMs = untilMs;
        return;
      }
    }
    throw new Error(`more than ${STEPS_MAX} steps in ${ms} ms`);
  }

  #runDeferred(): boolean {
    if (this.#deferred.length === 0) {
      return false;
    }
    const batch = this.#deferred;
    this.#deferred = [];
    for (const fn of batch) {
      fn();
    }
    return true;
  }

  #fireNext(untilMs: number): boolean {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.dueMs <= untilMs && (next === undefined || timer.dueMs < next.dueMs)) {
        next = timer;
      }
    }
    if (next === undefined) {
      return false;
    }
    this.clearTimer(next.id as TimerId);
    this.#nowMs = Math.max(this.#nowMs, next.dueMs);
    next.fn();
    return true;
  }
}

/** Lets every promise reaction that is ready run. */
const microtasks = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
