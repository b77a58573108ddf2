import { afterEach, describe, expect, test, vi } from 'vitest';
import { sleep } from '../../../src/env/clock.ts';
import { realClock } from '../../../src/env/real/index.ts';
import { ManualClock } from '../../support/manual-clock.ts';

describe('sleep', () => {
  test('resolves when its time has come', async () => {
    const clock = new ManualClock();
    await clock.settle(sleep(clock, 50, 'test'));
    expect(clock.monoMs()).toBe(50);
  });

  test('rejects with the reason of its signal and leaves no timer behind', async () => {
    const clock = new ManualClock();
    const abort = new AbortController();
    const slept = sleep(clock, 50, 'test', abort.signal);
    const reason = new Error('stop');
    abort.abort(reason);
    await expect(slept).rejects.toBe(reason);
    expect(clock.pendingCount).toBe(0);
    await expect(sleep(clock, 50, 'test', abort.signal)).rejects.toBe(reason);
    expect(clock.pendingCount).toBe(0);
  });

  test('leaves no listener on its signal', async () => {
    const clock = new ManualClock();
    const { signal } = new AbortController();
    const remove = vi.spyOn(signal, 'removeEventListener');
    await clock.settle(sleep(clock, 5, 'test', signal));
    expect(remove).toHaveBeenCalledTimes(1);
  });
});

describe('realClock', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  test('never fires before the asked time has passed', async () => {
    const clock = realClock();
    for (const delayMs of [0, 0.3, 1, 1.7, 5, 12.5]) {
      const startMs = clock.monoMs();
      await sleep(clock, delayMs, 'test');
      expect(clock.monoMs() - startMs).toBeGreaterThanOrEqual(delayMs);
    }
  });

  test('does not fire cleared timers, whatever their delay', async () => {
    const clock = realClock();
    let fired = 0;
    const timers = [0, 1, 5].map((delayMs) => clock.setTimer(delayMs, () => fired++, 'test'));
    for (const timer of timers) {
      clock.clearTimer(timer);
      clock.clearTimer(timer);
    }
    await sleep(clock, 20, 'test');
    expect(fired).toBe(0);
  });

  test('fires timers longer than the platform can count at their time, not at once', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    const clock = realClock();
    const delayMs = 2 ** 31 + 5000;
    let firedAtMs: number | undefined;
    clock.setTimer(delayMs, () => (firedAtMs = clock.monoMs()), 'test');
    const startMs = clock.monoMs();
    await vi.advanceTimersByTimeAsync(2 ** 31 - 2);
    expect(firedAtMs).toBeUndefined();
    await vi.advanceTimersByTimeAsync(10_000);
    expect((firedAtMs as unknown as number) - startMs).toBeGreaterThanOrEqual(delayMs);
  });

  test('defers behind the promise reactions of the current turn', async () => {
    const clock = realClock();
    const order: string[] = [];
    const done = new Promise<void>((resolve) => {
      clock.defer(() => {
        order.push('deferred');
        resolve();
      }, 'test');
    });
    void Promise.resolve().then(() => order.push('reaction'));
    order.push('now');
    await done;
    expect(order).toEqual(['now', 'reaction', 'deferred']);
  });

  test('tells monotonic and Unix time', () => {
    const clock = realClock();
    const monoMs = clock.monoMs();
    expect(clock.monoMs()).toBeGreaterThanOrEqual(monoMs);
    expect(clock.wallMs()).toBeGreaterThan(1_600_000_000_000);
  });
});
