/**
 * Virtual time: one heap of events for all simulated machines. Equal-time events run in an order drawn from the seed.
 * After each event all asynchronous work it created has run (the drain), so that the next event sees its effects.
 *
 * The drain runs the microtask queue in place instead of going once around the event loop: that is sound for any depth
 * of promises and costs a fraction of a microsecond when there is nothing to run, so no event needs to be exempt.
 */
import type { Rng } from '../../src/env/rng.ts';
import { TraceHash } from './trace-hash.ts';

export { SimClock } from './sim-clock.ts';

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
