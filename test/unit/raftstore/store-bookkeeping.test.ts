import { describe, expect, test } from 'vitest';
import type { RegionId } from '../../../src/base/ids.ts';
import { MERGED_AWAY_MAX, MergedAway } from '../../../src/raftstore/store/merged-away.ts';
import { PeriodicWork } from '../../../src/raftstore/store/periodic-work.ts';

const region = (id: number): RegionId => id as RegionId;

describe('merged away', () => {
  test('is followed over chains to the first region that is known', () => {
    const merged = new MergedAway();
    merged.set(region(1), region(2));
    merged.set(region(2), region(3));
    expect(merged.follow(region(1), (id) => (id === 3 ? 'three' : undefined))).toBe('three');
    expect(merged.follow(region(1), (id) => `region ${id}`)).toBe('region 2');
    // The source itself is not asked for, and a way may end in nothing.
    expect(merged.follow(region(1), (id) => (id === 1 ? 'one' : undefined))).toBeUndefined();
    expect(merged.follow(region(3), () => 'any')).toBeUndefined();
  });

  test('a circle ends', () => {
    const merged = new MergedAway();
    merged.set(region(1), region(2));
    merged.set(region(2), region(1));
    let asked = 0;
    merged.follow(region(1), () => {
      asked++;
      return undefined;
    });
    expect(asked).toBeLessThan(100);
  });

  test('forgets the oldest beyond its limit', () => {
    const merged = new MergedAway();
    for (let source = 1; source <= MERGED_AWAY_MAX + 1; source++) {
      merged.set(region(source), region(1_000_000 + source));
    }
    expect(merged.follow(region(1), (id) => id)).toBeUndefined();
    expect(merged.follow(region(2), (id) => id)).toBe(1_000_002);
    expect(merged.follow(region(MERGED_AWAY_MAX + 1), (id) => id)).toBe(1_000_000 + MERGED_AWAY_MAX + 1);
  });
});

describe('periodic work', () => {
  test('has its first turn one interval after the start and is never made up for', () => {
    const work = new PeriodicWork({ maintenance: 10, heartbeat: 25, 'split-check': 10, consistency: 0 });
    work.start(100);
    expect(work.take('maintenance', 109)).toBe(false);
    expect(work.take('maintenance', 110)).toBe(true);
    expect(work.take('maintenance', 110)).toBe(false);
    expect(work.take('heartbeat', 200)).toBe(true);
    expect(work.take('heartbeat', 224)).toBe(false);
    expect(work.take('heartbeat', 225)).toBe(true);
  });

  test('an interval of nothing means never', () => {
    const work = new PeriodicWork({ maintenance: 10, heartbeat: 25, 'split-check': 10, consistency: 0 });
    work.start(0);
    expect(work.take('consistency', 1_000_000)).toBe(false);
  });
});
