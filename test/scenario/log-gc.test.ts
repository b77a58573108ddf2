/** Scripted schedules of log compaction and of the cleaning of ranges. */
import { describe, expect } from 'vitest';
import { compareBytes, utf8 } from '../../src/base/bytes.ts';
import { logIndex, regionId } from '../../src/base/ids.ts';
import { dataKey, raftLogRange } from '../../src/engine/index.ts';
import { scenario, SMALL_LOG, type Scene } from './support/scene.ts';

function logEntries(scene: Scene, store: number, region: number): number {
  const { start, end } = raftLogRange(regionId(region), logIndex(0), logIndex(1_000_000));
  let count = 0;
  for (const [key] of scene.cluster.machine(store).disk.database('db')?.view.entriesFrom(start) ?? []) {
    if (compareBytes(key, end) >= 0) {
      break;
    }
    count++;
  }
  return count;
}

describe('log compaction', () => {
  scenario(
    'G-01 the log is cut at its thresholds, never beyond what is applied, and its last term is known',
    async (scene) => {
      const limit = scene.rng.pick(['entries', 'count', 'bytes'] as const);
      const cluster = await scene.start({
        config: {
          logGcThreshold: limit === 'entries' ? 5 : 1_000_000,
          logGcCountLimit: limit === 'count' ? 12 : 1_000_000,
          ...(limit === 'bytes' ? { logGcSizeLimitBytes: 600 } : {}),
        },
      });
      await scene.fill('b', 40);
      await cluster.advance(1_500);
      await cluster.settle();
      for (const store of [1, 2, 3]) {
        const s = scene.status(store, 1);
        expect(s?.firstIndex).toBeGreaterThan(6);
        expect(s?.firstIndex).toBeLessThanOrEqual((s?.appliedIndex ?? 0) + 1);
      }
      // Whoever leads next can still match a follower against the cut.
      await cluster.mustTransferLeader(1, 2);
      cluster.crash(3);
      await scene.fill('c', 3);
      await cluster.restart(3);
      await cluster.settle();
    },
  );

  scenario('G-02 a slow follower loses its place by force only', async (scene) => {
    const cluster = await scene.start({ config: { logGcThreshold: 3, logGcCountLimit: 60 } });
    const heal = cluster.isolate(3);
    await scene.fill('b', 30);
    await cluster.advance(2_000);
    const lagging = scene.status(3, 1)?.lastIndex ?? 0;
    expect(scene.status(1, 1)?.firstIndex).toBeLessThanOrEqual(lagging + 1);
    if (scene.rng.chance(0.5)) {
      await scene.fill('c', 60);
      await cluster.until('it was left behind', () => (scene.status(1, 1)?.firstIndex ?? 0) > lagging + 1);
    }
    heal();
    await cluster.settle();
  });

  scenario(
    'G-03 nothing is compacted while a region merges, and everything is again after a rollback',
    async (scene) => {
      const cluster = await scene.start({ config: { ...SMALL_LOG, logGcThreshold: 4 } });
      const { left, right } = await scene.split();
      await scene.fill('b', 3);
      cluster.failpoints.set('merge::before-commit', { type: 'pause' });
      // A compaction that is in the log behind PrepareMerge has no effect.
      const resume = scene.pause(1, 'apply::before-prepare-merge', left.id);
      const merge = cluster.admin(left.id, { type: 'merge', target: scene.region(right.id) });
      await cluster.advance(scene.rng.below(400));
      const s = scene.status(1, left.id);
      void cluster.admin(left.id, { type: 'compact-log', index: (s?.appliedIndex ?? 7) - 1 });
      await cluster.advance(scene.rng.below(400));
      resume();
      await cluster.until('the source is merging', () => scene.record(1, left.id)?.state === 'merging');
      const first = scene.status(1, left.id)?.firstIndex;
      if (scene.rng.chance(0.5)) {
        cluster.crash(1);
        await cluster.restart(1);
      }
      await cluster.advance(1_500);
      expect(scene.status(1, left.id)?.firstIndex).toBe(first);
      const leader = await cluster.mustLeader(left.id);
      const applied = scene.status(leader, left.id)?.appliedIndex ?? 7;
      expect(await scene.attempt(left.id, { type: 'compact-log', index: applied - 1 })).not.toBe('ok');
      await cluster.mustAdmin(right.id, () => ({ type: 'split', keys: [utf8('p')] }));
      cluster.failpoints.clear();
      await cluster.run(merge);
      await cluster.until('the rollback', () => scene.record(1, left.id)?.state === 'normal');
      await scene.fill('c', 30);
      await cluster.until(
        'it is compacted again',
        () => (scene.status(1, left.id)?.firstIndex ?? 0) > (first as number) + 10,
      );
    },
  );

  scenario('G-04 no log is left of a replica that ended while its log was being deleted', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: SMALL_LOG });
    await scene.addVoter(1, 4);
    await scene.fill('b', 20);
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [20, 80] });
    await scene.fill('c', 15);
    await cluster.advance(scene.rng.below(300));
    await scene.remove(1, 4);
    await cluster.advance(scene.rng.below(400));
    if (scene.rng.chance(0.6)) {
      cluster.crash(4, scene.rng.pick(['kill', 'power-loss'] as const));
      await cluster.restart(4);
    }
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [0.1, 1] });
    await scene.gone(1, 4);
    if (logEntries(scene, 4, 1) > 0) {
      cluster.crash(4);
      await cluster.restart(4);
    }
    expect(logEntries(scene, 4, 1)).toBe(0);
  });

  scenario('G-05 a start removes what lies outside all ranges, and nothing else', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: SMALL_LOG });
    const { left, right } = await scene.split();
    await scene.addLearner(right.id, 4);
    await scene.data(right.id, 4);
    // The left region is being installed when the store stops: its range counts, though its data is not there yet.
    scene.pause(4, 'snapshot::before-install', left.id);
    const isInstalling = scene.rng.chance(0.5);
    if (isInstalling) {
      await scene.addLearner(left.id, 4);
      await cluster.until('an installation', () => scene.record(4, left.id)?.state === 'applying');
    }
    const { engine } = cluster.machine(4);
    const batch = engine?.createBatch();
    for (const key of ['a9', 'b', 'jj']) {
      batch?.put(dataKey(utf8(key)), Uint8Array.of(0));
    }
    await cluster.run(
      engine?.write(batch as NonNullable<typeof batch>) ?? Promise.reject(new Error('store 4 is down')),
    );
    cluster.crash(4, 'kill');
    await cluster.restart(4);
    cluster.failpoints.clear();
    await cluster.until('the strays are gone', () => scene.leftovers(4).length === 0);
    if (isInstalling) {
      await scene.data(left.id, 4);
    }
    await cluster.settle();
    await cluster.advance(1_000);
    expect(await cluster.keysOn(4)).toEqual(isInstalling ? ['a', 'z'] : ['z']);
  });
});
