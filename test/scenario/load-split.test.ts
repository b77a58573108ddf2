/** A region with too much to do is split where it helps. */
import { describe, expect } from 'vitest';
import { fromUtf8 } from '../../src/base/bytes.ts';
import type { RaftstoreConfig } from '../../src/raftstore/config.ts';
import { scenario, type Scene } from './support/scene.ts';

const LIMITS: Partial<RaftstoreConfig> = { loadSplitQps: 40, loadSplitDetectMs: 1_000, splitCheckMs: 200 };
const keyOf = (i: number): string => `k${String(i).padStart(2, '0')}`;

/** Splits by cause, of all stores. */
function splits({ cluster }: Scene): { readonly load: number; readonly others: number } {
  const all = [...cluster.machines.values()].flatMap(({ store }) =>
    store === undefined ? [] : [store.counters.splits],
  );
  return {
    load: all.reduce((sum, { load }) => sum + load, 0),
    others: all.reduce((sum, { admin, size, keys }) => sum + admin + size + keys, 0),
  };
}

/** Reads and writes for so long, faster than the limit; `key` says what. */
async function press(
  { cluster }: Scene,
  forMs: number,
  key: (i: number) => string,
  done: () => boolean,
): Promise<void> {
  const untilMs = cluster.scheduler.nowMs + forMs;
  for (let i = 0; cluster.scheduler.nowMs < untilMs && !done(); i++) {
    if (i % 3 === 0) {
      await cluster.mustPut(key(i), String(i));
    } else {
      await cluster.run(Promise.race([cluster.readOnce(key(i)), cluster.sleep(200)]));
    }
  }
}

function isDivided({ cluster }: Scene): boolean {
  const [left, right] = [cluster.regionOf('a'), cluster.regionOf('z')];
  return left !== undefined && right !== undefined && left.id !== right.id;
}

describe('split by load', () => {
  scenario('L-01 a hot region is divided near the middle of its load', async (scene) => {
    const cluster = await scene.start({ config: LIMITS });
    await press(
      scene,
      20_000,
      (i) => keyOf((i * 37) % 100),
      () => isDivided(scene),
    );
    const [left, right] = [scene.regionAt('a'), scene.regionAt('z')];
    expect(left.id).not.toBe(right.id);
    const border = fromUtf8(left.range.end);
    expect(border >= keyOf(20) && border <= keyOf(80), border).toBe(true);
    expect(splits(scene)).toMatchObject({ others: 0 });
    expect(splits(scene).load).toBeGreaterThan(0);
    await cluster.settle();
  });

  scenario('L-02 one hot key, or little to do, splits nothing', async (scene) => {
    const cluster = await scene.start({ config: LIMITS });
    await press(
      scene,
      2_500,
      () => keyOf(50),
      () => false,
    );
    expect(splits(scene)).toEqual({ load: 0, others: 0 });
    for (let i = 0; i < 30; i++) {
      await cluster.mustPut(keyOf(i * 3), 'x');
      await cluster.advance(100);
    }
    expect(splits(scene)).toEqual({ load: 0, others: 0 });
  });
});
