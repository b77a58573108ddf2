/**
 * Virtual time: one heap of events for all simulated machines. Equal-time events run in an order drawn from the seed.
 * After each event all asynchronous work it created has run (`drain`), so that the next event sees its effects.
 */
import { assert } from '../../src/base/assert.ts';
import type { Clock, TimerId } from '../../src/env/clock.ts';
import type { Rng } from '../../src/env/rng.ts';

interface Event {
  readonly atUs: number;
  readonly tie: number;
  readonly seq: number;
  readonly run: () => void;
  canceled: boolean;
}

const before = (a: Event, b: Event): boolean =>
  a.atUs !== b.atUs ? a.atUs < b.atUs : a.tie !== b.tie ? a.tie < b.tie : a.seq < b.seq;

export class Scheduler {
  readonly #rng: Rng;
  readonly #heap: Event[] = [];
  #nowUs = 0;
  #seq = 0;
  /** Events run so far. */
  steps = 0;

  constructor(rng: Rng) {
    this.#rng = rng;
  }

  get nowMs(): number {
    return this.#nowUs / 1000;
  }

  at(delayMs: number, run: () => void): { cancel(): void } {
    const event: Event = {
      atUs: this.#nowUs + Math.max(0, Math.round(delayMs * 1000)),
      tie: this.#rng.u32(),
      seq: this.#seq++,
      run,
      canceled: false,
    };
    this.#push(event);
    return {
      cancel: () => {
        event.canceled = true;
      },
    };
  }

  /** Runs the next event; false if there is none. */
  async step(): Promise<boolean> {
    const event = this.#pop();
    if (event === undefined) {
      return false;
    }
    this.#nowUs = event.atUs;
    if (!event.canceled) {
      this.steps++;
      event.run();
      await new Promise<void>((resolve) => {
        setImmediate(resolve);
      });
    }
    return true;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    heap.push(event);
    let i = heap.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, heap[parent] as Event)) {
        break;
      }
      heap[i] = heap[parent] as Event;
      i = parent;
    }
    heap[i] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) {
      return top;
    }
    let i = 0;
    for (;;) {
      const left = 2 * i + 1;
      if (left >= heap.length) {
        break;
      }
      const right = left + 1;
      const child = right < heap.length && before(heap[right] as Event, heap[left] as Event) ? right : left;
      if (!before(heap[child] as Event, last)) {
        break;
      }
      heap[i] = heap[child] as Event;
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

/** One machine's clock. After `kill` nothing it armed fires any more. */
export class SimClock implements Clock {
  readonly #scheduler: Scheduler;
  readonly #timers: Map<number, { cancel(): void }> = new Map();
  #nextTimer = 1;
  #alive = true;

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  monoMs(): number {
    return this.#scheduler.nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#scheduler.nowMs;
  }

  setTimer(delayMs: number, fn: () => void, _tag: string): TimerId {
    assert(delayMs >= 0, 'negative delay');
    const id = this.#nextTimer++;
    const handle = this.#scheduler.at(delayMs, () => {
      this.#timers.delete(id);
      if (this.#alive) {
        fn();
      }
    });
    this.#timers.set(id, handle);
    return id as TimerId;
  }

  clearTimer(timer: TimerId): void {
    this.#timers.get(timer)?.cancel();
    this.#timers.delete(timer);
  }

  defer(fn: () => void, _tag: string): void {
    this.#scheduler.at(0, () => {
      if (this.#alive) {
        fn();
      }
    });
  }

  kill(): void {
    this.#alive = false;
    for (const handle of this.#timers.values()) {
      handle.cancel();
    }
    this.#timers.clear();
  }
}
