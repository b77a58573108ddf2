import { describe, expect, test } from 'vitest';
import { R, S, World } from './world.ts';

/** Three stores, a threshold of a minute. */
function world(): World {
  return new World({ proxyThresholdMs: 60_000, storeDisconnectedMs: 20_000 }, [1, 2, 3]);
}

/** The store reports and acts on the reply, as stores do; answers what it was told to forget. */
function report(on: World, store: number, held: readonly number[]): readonly number[] {
  on.beat(store, { redirectedRegions: held.map(R) });
  return on.placement.redirects.toRetireOn(S(store));
}

describe('redirects of stores', () => {
  test('end a minute after a store first told of them, at every store', () => {
    const on = world();
    expect(report(on, 1, [7])).toEqual([]);
    on.advance(59_000);
    expect(report(on, 1, [7])).toEqual([]);
    expect(report(on, 2, [7])).toEqual([]);
    on.advance(1_000);
    expect(report(on, 1, [7, 8])).toEqual([7]);
    // The region is redirected anew, by a later change: it counts anew.
    expect(report(on, 1, [7, 8])).toEqual([]);
  });

  test('end at once when an owner says so, and are named until the store does not list them any more', () => {
    const on = world();
    report(on, 1, [7, 9]);
    on.placement.redirects.retire([7]);
    on.advance(1_000);
    expect(report(on, 1, [7, 9])).toEqual([7]);
    expect(report(on, 1, [7, 9])).toEqual([7]);
    expect(report(on, 1, [9])).toEqual([]);
  });

  test('are confirmed when every live store has reported since and lists none', () => {
    const on = world();
    const { redirects } = on.placement;
    for (const store of [1, 2, 3]) {
      report(on, store, [7]);
    }
    expect(redirects.areRetired([7])).toBe(false);
    expect(redirects.holders(7)).toEqual([S(1), S(2), S(3)]);
    redirects.retire([7]);
    redirects.retire([7]);
    on.advance(1_000);
    report(on, 1, []);
    report(on, 2, []);
    expect(redirects.areRetired([7])).toBe(false);
    expect(redirects.holders(7)).toEqual([S(3)]);
    report(on, 3, [7]);
    expect(redirects.areRetired([7])).toBe(false);
    report(on, 3, []);
    expect(redirects.areRetired([7])).toBe(true);
    expect(redirects.areRetired([8])).toBe(true);
  });

  test('of a store that is lost, or knows no redirects, keep nobody waiting', () => {
    const on = world();
    const { redirects } = on.placement;
    report(on, 1, [7]);
    report(on, 2, []);
    on.beat(3);
    redirects.retire([7]);
    on.advance(25_000);
    report(on, 2, []);
    on.beat(3);
    expect(redirects.areRetired([7])).toBe(true);
  });
});
