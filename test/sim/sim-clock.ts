/**
 * One machine's clock. It may run fast or slow, its wall time may jump, drift or flap, and the machine may be paused in
 * two ways: stalled (its clocks go on; what is due waits) or suspended as virtual machines are (its monotonic clock
 * stands still, too). What is overdue at the end of a pause comes in an order drawn for each pause: a process that was
 * stopped sees timers or mail first, depending on where in its event loop it stood. After `kill` nothing it armed
 * fires any more.
 */
import { assert } from '../../src/base/assert.ts';
import type { Clock, TimerId } from '../../src/env/clock.ts';
import { createRng, type Rng } from '../../src/env/rng.ts';
import type { Scheduler } from './scheduler.ts';

const WALL_START_MS = 1_700_000_000_000;
/** Distance of the phases in which a resumed machine works off what is overdue. */
const PHASE_MS = 0.002;
/** A timer may fire this much early by rounding. */
const EARLY_MS = 0.002;

/** How the wall clock differs from true time, beside its steps. Milliseconds. */
export type WallShape =
  | { readonly type: 'true' }
  /** Gains so many milliseconds per second; may be negative. */
  | { readonly type: 'drift'; readonly perSecondMs: number }
  /** Runs away up to `heightMs`, then falls back, every period. */
  | { readonly type: 'sawtooth'; readonly heightMs: number; readonly periodMs: number }
  /** Jumps there and back every period. */
  | { readonly type: 'strobe'; readonly heightMs: number; readonly periodMs: number };

type ResumeOrder = 'timers-first' | 'mail-first' | 'mixed';
const RESUME_ORDERS: readonly ResumeOrder[] = ['timers-first', 'mail-first', 'mixed'];

function offsetOf(shape: WallShape, sinceMs: number): number {
  switch (shape.type) {
    case 'true':
      return 0;
    case 'drift':
      return (sinceMs / 1000) * shape.perSecondMs;
    case 'sawtooth':
      return ((sinceMs % shape.periodMs) / shape.periodMs) * shape.heightMs;
    case 'strobe':
      return Math.floor(sinceMs / shape.periodMs) % 2 === 0 ? shape.heightMs : 0;
  }
}

export class SimClock implements Clock {
  readonly #scheduler: Scheduler;
  readonly #node: number;
  readonly #rng: Rng;
  readonly #timers: Map<number, { cancel(): void }> = new Map();
  #nextTimer = 1;
  #alive = true;
  #stalledUntilMs = 0;
  #resumeOrder: ResumeOrder = 'mixed';
  /** Monotonic milliseconds at the last change of the rate, and true time then; in the future while suspended. */
  #monoBaseMs = 0;
  #trueBaseMs = 0;
  #rate = 1;
  /** All suspensions so far, up to the end of one that lasts. */
  #suspendedMs = 0;
  #wallOffsetMs = 0;
  #wallShape: WallShape = { type: 'true' };
  #wallShapeFromMs = 0;

  constructor(scheduler: Scheduler, node: number = 0, rng: Rng = createRng(node)) {
    this.#scheduler = scheduler;
    this.#node = node;
    this.#rng = rng;
    this.#trueBaseMs = scheduler.nowMs;
    this.#monoBaseMs = scheduler.nowMs;
  }

  monoMs(): number {
    return this.#monoBaseMs + Math.max(0, this.#scheduler.nowMs - this.#trueBaseMs) * this.#rate;
  }

  wallMs(): number {
    const { nowMs } = this.#scheduler;
    return WALL_START_MS + nowMs + this.#wallOffsetMs + offsetOf(this.#wallShape, nowMs - this.#wallShapeFromMs);
  }

  /** From now on the monotonic clock runs at `rate` times true time. */
  setRate(rate: number): void {
    this.#monoBaseMs = this.monoMs();
    this.#trueBaseMs = Math.max(this.#trueBaseMs, this.#scheduler.nowMs);
    this.#rate = rate;
  }

  jumpWall(byMs: number): void {
    this.#wallOffsetMs += byMs;
  }

  /** From now on the wall clock goes this way. */
  setWallShape(shape: WallShape): void {
    this.#wallShape = shape;
    this.#wallShapeFromMs = this.#scheduler.nowMs;
  }

  /** Nothing of this machine runs for so long; its clocks go on. */
  stall(forMs: number): void {
    if (this.stalledMs === 0) {
      this.#resumeOrder = this.#rng.pick(RESUME_ORDERS);
    }
    this.#stalledUntilMs = Math.max(this.#stalledUntilMs, this.#scheduler.nowMs + forMs);
  }

  /** As `stall`, but the monotonic clock stands still meanwhile, as that of a suspended virtual machine. */
  suspend(forMs: number): void {
    this.#monoBaseMs = this.monoMs();
    const { nowMs } = this.#scheduler;
    const untilMs = Math.max(this.#trueBaseMs, nowMs + forMs);
    this.#suspendedMs += untilMs - Math.max(this.#trueBaseMs, nowMs);
    this.#trueBaseMs = untilMs;
    this.stall(forMs);
  }

  /** Its monotonic clock stands still. */
  get isSuspended(): boolean {
    return this.#trueBaseMs > this.#scheduler.nowMs;
  }

  /** True time of which suspensions are no part. */
  get awakeMs(): number {
    const { nowMs } = this.#scheduler;
    return nowMs - this.#suspendedMs + Math.max(0, this.#trueBaseMs - nowMs);
  }

  get times(): { readonly nowMs: number; readonly awakeMs: number } {
    return { nowMs: this.#scheduler.nowMs, awakeMs: this.awakeMs };
  }

  /** Milliseconds until the machine runs again; 0 if it runs. */
  get stalledMs(): number {
    return Math.max(0, this.#stalledUntilMs - this.#scheduler.nowMs);
  }

  /** Runs `fn` on this machine now or, if it is paused, when it goes on; never after `kill`. */
  deliver(fn: () => void, kind: string): void {
    if (!this.#alive) {
      return;
    }
    if (this.stalledMs > 0) {
      this.#scheduler.at(this.#untilPhase('mail'), () => this.deliver(fn, kind), { node: this.#node, kind });
    } else {
      fn();
    }
  }

  setTimer(delayMs: number, fn: () => void, tag: string): TimerId {
    assert(delayMs >= 0, 'negative delay');
    const id = this.#nextTimer++;
    const dueMs = this.monoMs() + delayMs;
    const arm = (trueMs: number): void => {
      this.#timers.set(id, this.#scheduler.at(trueMs, fire, { node: this.#node, kind: tag }));
    };
    const fire = (): void => {
      if (!this.#alive) {
        return;
      }
      if (this.stalledMs > 0) {
        arm(this.#untilPhase('timer'));
        return;
      }
      const leftMs = dueMs - this.monoMs();
      if (leftMs > EARLY_MS) {
        // The clock was suspended or slowed down since the timer was set.
        arm(leftMs / this.#rate);
        return;
      }
      this.#timers.delete(id);
      fn();
    };
    arm(delayMs / this.#rate);
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

  /** True milliseconds until something overdue of this kind has its turn after the pause. */
  #untilPhase(kind: 'timer' | 'mail'): number {
    const isSecond = this.#resumeOrder === (kind === 'timer' ? 'mail-first' : 'timers-first');
    return this.stalledMs + PHASE_MS * (isSecond ? 2 : 1);
  }
}
