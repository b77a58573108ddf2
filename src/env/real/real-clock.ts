/** The platform's clocks and timers behind the Clock seam. */
import type { Clock, TimerId } from '../clock.ts';

/** `setTimeout` fires after 1 ms, with only a warning, when asked for more. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

type Handle =
  | { readonly type: 'timeout'; readonly timeout: NodeJS.Timeout }
  | { readonly type: 'immediate'; readonly immediate: NodeJS.Immediate };

class RealClock implements Clock {
  readonly #handles = new Map<TimerId, Handle>();
  #lastId = 0;

  monoMs(): number {
    return performance.now();
  }

  wallMs(): number {
    return Date.now();
  }

  setTimer(delayMs: number, fn: () => void, _tag: string): TimerId {
    const id = ++this.#lastId as TimerId;
    this.#arm(id, this.monoMs() + delayMs, delayMs, fn);
    return id;
  }

  clearTimer(timer: TimerId): void {
    const handle = this.#handles.get(timer);
    this.#handles.delete(timer);
    if (handle?.type === 'timeout') {
      clearTimeout(handle.timeout);
    } else if (handle !== undefined) {
      clearImmediate(handle.immediate);
    }
  }

  defer(fn: () => void, _tag: string): void {
    setImmediate(fn);
  }

  #arm(id: TimerId, dueMs: number, delayMs: number, fn: () => void): void {
    const fire = (): void => {
      // The platform counts from the start of its turn and may fire early; long delays come in several parts.
      const leftMs = dueMs - this.monoMs();
      if (leftMs > 0) {
        this.#arm(id, dueMs, leftMs, fn);
        return;
      }
      this.#handles.delete(id);
      fn();
    };
    const handle: Handle =
      delayMs <= 0
        ? { type: 'immediate', immediate: setImmediate(fire) }
        : { type: 'timeout', timeout: setTimeout(fire, Math.min(Math.ceil(delayMs), TIMEOUT_MS_MAX)) };
    this.#handles.set(id, handle);
  }
}

/** A clock on real time. Its timers keep the process alive until they fire or are cleared. */
export const realClock = (): Clock => new RealClock();
