import { describe, expect, test } from 'vitest';
import { Lease } from '../../../src/raft/lease.ts';

describe('Lease', () => {
  test('counts from when the question was asked, and never becomes shorter by an older answer', () => {
    const lease = new Lease(800);
    expect(lease.isValid(0)).toBe(false);
    lease.renew(1_000, 3);
    expect([lease.isValid(1_799), lease.isValid(1_800), lease.remaining(1_500)]).toEqual([true, false, 300]);
    lease.renew(900, 3);
    expect(lease.isValid(1_799)).toBe(true);
  });

  test('ends at once when it expires by order, and when it is under suspicion only newer questions renew it', () => {
    const lease = new Lease(800);
    lease.renew(1_000, 3);
    lease.suspect(1_100);
    lease.renew(1_050, 3);
    expect(lease.isValid(1_100)).toBe(false);
    lease.renew(1_100, 3);
    expect(lease.isValid(1_200)).toBe(true);
    lease.expire();
    expect(lease.isValid(1_200)).toBe(false);
  });

  test('is void for the rest of a term in which somebody was told to take over', () => {
    const lease = new Lease(800);
    lease.renew(1_000, 3);
    lease.forbid(3);
    lease.renew(1_100, 3);
    expect(lease.isValid(1_100)).toBe(false);
    lease.renew(1_200, 4);
    expect(lease.isValid(1_300)).toBe(true);
  });
});
