/** Time for leases: the faster of two clocks. */
import { describe, expect, test } from 'vitest';
import { Lease, LeaseClock } from '../../../src/raft/lease.ts';

class Clocks {
  mono = 1000;
  wall = 1_700_000_000_000;

  monoMs(): number {
    return this.mono;
  }

  wallMs(): number {
    return this.wall;
  }

  pass(monoMs: number, wallMs: number = monoMs): void {
    this.mono += monoMs;
    this.wall += wallMs;
  }
}

describe('the lease clock', () => {
  test('is the monotonic clock while both agree, whatever the wall clock is rounded to', () => {
    const clocks = new Clocks();
    const clock = new LeaseClock(clocks);
    let truth = 0;
    for (let i = 0; i < 10_000; i++) {
      truth += 0.3;
      clocks.mono = 1000 + truth;
      clocks.wall = 1_700_000_000_000 + Math.floor(truth);
      expect(clock.nowMs()).toBe(clocks.mono);
    }
  });

  test('a lease ends during a suspend that only the wall clock shows', () => {
    const clocks = new Clocks();
    const clock = new LeaseClock(clocks);
    const lease = new Lease(800);
    lease.renew(clock.nowMs(), 1);
    clocks.pass(100);
    expect(lease.isValid(clock.nowMs())).toBe(true);
    clocks.pass(0, 5000);
    expect(lease.isValid(clock.nowMs())).toBe(false);
    // An answer to what was sent before does not bring it back.
    lease.renew(1100, 1);
    expect(lease.isValid(clock.nowMs())).toBe(false);
  });

  test('a wall clock that is set back changes nothing, one set forward again counts', () => {
    const clocks = new Clocks();
    const clock = new LeaseClock(clocks);
    clocks.pass(10, -60_000);
    expect(clock.nowMs()).toBe(1010);
    clocks.pass(10);
    expect(clock.nowMs()).toBe(1020);
    clocks.pass(0, 50);
    expect(clock.nowMs()).toBe(1070);
  });

  test('never goes back', () => {
    const clocks = new Clocks();
    const clock = new LeaseClock(clocks);
    let last = clock.nowMs();
    for (let i = 0; i < 1000; i++) {
      clocks.pass(i % 3, ((i * 7919) % 200) - 100);
      const now = clock.nowMs();
      expect(now).toBeGreaterThanOrEqual(last);
      last = now;
    }
  });
});
