/** A clock that moves only when a test says so. Timers fire in order of time, then of creation. */
import type { Clock, TimerId } from '../../src/env/clock.ts';

interface Timer {
  readonly id: TimerId;
  readonly atMs: number;
  readonly fn: () => void;
}

export class ManualClock implements Clock {
  #nowMs = 0;
  #lastId = 0;
  #timers: Timer[] = [];

  monoMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  setTimer(delayMs: number, fn: () => void, _tag: string): TimerId {
    const id = ++this.#lastId as TimerId;
    this.#timers.push({ id, atMs: this.#nowMs + delayMs, fn });
    return id;
  }

  clearTimer(timer: TimerId): void {
    this.#timers = this.#timers.filter((each) => each.id !== timer);
  }

  defer(fn: () => void, tag: string): void {
    this.setTimer(0, fn, tag);
  }

  get pendingCount(): number {
    return this.#timers.length;
  }

  /** Fires the next timer, then lets all promise reactions run. False if there is none. */
  async step(): Promise<boolean> {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (next === undefined || timer.atMs < next.atMs) {
        next = timer;
      }
    }
    if (next === undefined) {
      return false;
    }
    this.clearTimer(next.id);
    this.#nowMs = Math.max(this.#nowMs, next.atMs);
    next.fn();
    await drainMicrotasks();
    return true;
  }

  /** Steps until `promise` settles and returns its value; fails if no timer is left before that. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    let isSettled = false;
    const mark = (): void => {
      isSettled = true;
    };
    promise.then(mark, mark);
    await drainMicrotasks();
    while (!isSettled) {
      if (!(await this.step())) {
        throw new Error('nothing left to happen, and the promise is still pending');
      }
    }
    return promise;
  }

  /** Steps until no timer is left. */
  async runAll(): Promise<void> {
    await drainMicrotasks();
    while (await this.step()) {
      // Each step may add timers; tests that never end are stopped by their time limit.
    }
  }
}

/** Resolves after every promise reaction that is due now, and those they cause. */
export const drainMicrotasks = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
