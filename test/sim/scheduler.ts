/**
 * Virtual time: one heap of events for all simulated machines. Equal-time events run in an order drawn from the seed.
 * After each event all asynchronous work it created has run (the drain), so that the next event sees its effects.
 *
 * The drain runs the microtask queue in place instead of going once around the event loop: that is sound for any depth
 * of promises and costs a fraction of a microsecond when there is nothing to run, so no event needs to be exempt.
 */
import { assert } from '../../src/base/assert.ts';
import type { Clock, TimerId } from '../../src/env/clock.ts';
import type { Rng } from '../../src/env/rng.ts';
import { TraceHash } from './trace-hash.ts';

interface Event {
  readonly atUs: number;
  readonly tie: number;
  readonly seq: number;
  readonly run: () => void;
  readonly node: number;
  readonly kind: string;
  canceled: boolean;
}

/** What an event is called in the trace: the machine it runs on (0 = none) and its kind. */
export interface EventName {
  readonly node: number;
  readonly kind: string;
}

const ANONYMOUS: EventName = { node: 0, kind: 'event' };

const before = (a: Event, b: Event): boolean =>
  a.atUs !== b.atUs ? a.atUs < b.atUs : a.tie !== b.tie ? a.tie < b.tie : a.seq < b.seq;

/** Events run before the pump lets the process breathe (signals, garbage of its own). */
const PUMP_EVENTS = 5_000;

type TickCallback = () => void;

/** Runs all pending microtasks and next ticks of this thread. Must be called from a macrotask. */
const drainNow = (process as unknown as { readonly _tickCallback: TickCallback })._tickCallback;

export class Scheduler {
  readonly #rng: Rng;
  readonly #heap: Event[] = [];
  #nowUs = 0;
  #seq = 0;
  /** Events run so far. */
  steps = 0;
  /** Rolling hash of everything that ran. */
  readonly trace: TraceHash = new TraceHash();
  /** Called with anything an event throws; rethrow to stop the run. */
  onThrow: (error: unknown) => void = (error) => {
    throw error;
  };
  /** Called after every event and its drain. */
  afterEvent: ((node: number, kind: string) => void) | undefined;

  constructor(rng: Rng) {
    this.#rng = rng;
  }

  get nowMs(): number {
    return this.#nowUs / 1000;
  }

  /** Events waiting, canceled ones included. */
  get pending(): number {
    return this.#heap.length;
  }

  at(delayMs: number, run: () => void, name: EventName = ANONYMOUS): { cancel(): void } {
    const event: Event = {
      atUs: this.#nowUs + Math.max(0, Math.round(delayMs * 1000)),
      tie: this.#rng.u32(),
      seq: this.#seq++,
      run,
      node: name.node,
      kind: name.kind,
      canceled: false,
    };
    this.#push(event);
    return {
      cancel: () => {
        event.canceled = true;
      },
    };
  }

  /**
   * Runs events until `done` holds after one of them. Resolves true then, and false when no event is left or virtual
   * time has passed `deadlineMs`.
   */
  pump(done: () => boolean, deadlineMs: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const turn = (): void => {
        try {
          for (let i = 0; i < PUMP_EVENTS; i++) {
            if (done()) {
              resolve(true);
              return;
            }
            if (this.#nowUs > deadlineMs * 1000 || !this.#runNext()) {
              resolve(false);
              return;
            }
          }
        } catch (error) {
          reject(error);
          return;
        }
        setImmediate(turn);
      };
      setImmediate(turn);
    });
  }

  #runNext(): boolean {
    for (;;) {
      const event = this.#pop();
      if (event === undefined) {
        return false;
      }
      if (event.canceled) {
        continue;
      }
      this.#nowUs = event.atUs;
      this.steps++;
      this.trace.event(event.atUs, event.node, event.kind);
      try {
        event.run();
      } catch (error) {
        this.onThrow(error);
      }
      drainNow.call(process);
      this.afterEvent?.(event.node, event.kind);
      return true;
    }
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

const WALL_START_MS = 1_700_000_000_000;

/**
 * One machine's clock. It may run fast or slow, its wall time may jump, and the machine may be stalled: then everything
 * due waits and comes in random order when it goes on. After `kill` nothing it armed fires any more.
 */
export class SimClock implements Clock {
  readonly #scheduler: Scheduler;
  readonly #node: number;
  readonly #timers: Map<number, { cancel(): void }> = new Map();
  #nextTimer = 1;
  #alive = true;
  #stalledUntilMs = 0;
  /** Monotonic milliseconds at the last change of the rate, and true time then. */
  #monoBaseMs = 0;
  #trueBaseMs = 0;
  #rate = 1;
  #wallOffsetMs = 0;

  constructor(scheduler: Scheduler, node: number = 0) {
    this.#scheduler = scheduler;
    this.#node = node;
    this.#trueBaseMs = scheduler.nowMs;
    this.#monoBaseMs = scheduler.nowMs;
  }

  monoMs(): number {
    return this.#monoBaseMs + (this.#scheduler.nowMs - this.#trueBaseMs) * this.#rate;
  }

  wallMs(): number {
    return WALL_START_MS + this.#scheduler.nowMs + this.#wallOffsetMs;
  }

  /** From now on the monotonic clock runs at `rate` times true time. */
  setRate(rate: number): void {
    this.#monoBaseMs = this.monoMs();
    this.#trueBaseMs = this.#scheduler.nowMs;
    this.#rate = rate;
  }

  jumpWall(byMs: number): void {
    this.#wallOffsetMs += byMs;
  }

  /** Nothing of this machine runs for so long; overdue timers and mail then come in random order. */
  stall(forMs: number): void {
    this.#stalledUntilMs = Math.max(this.#stalledUntilMs, this.#scheduler.nowMs + forMs);
  }

  /** Milliseconds until the machine runs again; 0 if it runs. */
  get stalledMs(): number {
    return Math.max(0, this.#stalledUntilMs - this.#scheduler.nowMs);
  }

  /** Runs `fn` on this machine now or, if it is stalled, when it goes on; never after `kill`. */
  deliver(fn: () => void, kind: string): void {
    if (!this.#alive) {
      return;
    }
    const { stalledMs } = this;
    if (stalledMs > 0) {
      this.#scheduler.at(stalledMs + 0.001, () => this.deliver(fn, kind), { node: this.#node, kind });
    } else {
      fn();
    }
  }

  setTimer(delayMs: number, fn: () => void, tag: string): TimerId {
    assert(delayMs >= 0, 'negative delay');
    const id = this.#nextTimer++;
    const fire = (): void => {
      if (!this.#alive) {
        return;
      }
      if (this.stalledMs > 0) {
        this.#timers.set(id, this.#scheduler.at(this.stalledMs + 0.001, fire, { node: this.#node, kind: tag }));
        return;
      }
      this.#timers.delete(id);
      fn();
    };
    this.#timers.set(id, this.#scheduler.at(delayMs / this.#rate, fire, { node: this.#node, kind: tag }));
    return id as TimerId;
  }

  clearTimer(timer: TimerId): void {
    this.#timers.get(timer)?.cancel();
    this.#timers.delete(timer);
  }

  defer(fn: () => void, tag: string): void {
    this.#scheduler.at(0, () => this.deliver(fn, tag), { node: this.#node, kind: tag });
  }

  kill(): void {
    this.#alive = false;
    for (const handle of this.#timers.values()) {
      handle.cancel();
    }
    this.#timers.clear();
  }
}
