/** Time. Nothing outside `env/real` may touch the platform's clocks or timers. */

declare const timerBrand: unique symbol;
export type TimerId = number & { readonly [timerBrand]: 'TimerId' };

export interface Clock {
  /** Monotonic milliseconds with a fraction; for leases, timeouts and measuring. Never goes back, may drift or pause. */
  monoMs(): number;
  /** Unix time in milliseconds; may jump both ways. For TTL input and log lines only. */
  wallMs(): number;
  /** Calls `fn` once after at least `delayMs` (0 to 2^31-1). `tag` names the timer in traces. */
  setTimer(delayMs: number, fn: () => void, tag: string): TimerId;
  /** Cancels a timer; unknown and fired timers are ignored. */
  clearTimer(timer: TimerId): void;
  /** Calls `fn` after the current handler and the inputs already waiting for this turn of the event loop. */
  defer(fn: () => void, tag: string): void;
}

/** Resolves after `delayMs`. Rejects with the signal's reason when `signal` aborts first. */
export function sleep(clock: Clock, delayMs: number, tag: string, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason as Error);
      return;
    }
    const onAbort = (): void => {
      clock.clearTimer(timer);
      reject(signal?.reason as Error);
    };
    const timer = clock.setTimer(
      delayMs,
      () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      },
      tag,
    );
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
