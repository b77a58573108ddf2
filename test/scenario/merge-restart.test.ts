/**
 * Processes that stop in the middle of a merge (raftstore-scenarios.md, 1e) and the crash table of `docs/merge.md`: one
 * script per line, with one store stopping and with all stores stopping there.
 */
import { describe, expect } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { storeId } from '../../src/base/ids.ts';
import type { Peer, Region } from '../../src/meta/region.ts';
import type { Hold, Post } from './support/actors.ts';
import { adminEntries, EARLY_GC, scenario, type Scenario } from './support/scenario.ts';

const ALL = [1, 2, 3] as const;

const isApplied =
  (region: Region, type: string) =>
  ({ region: of, msg }: Post): boolean =>
    of === region.id && msg.type === 'applied' && msg.result.results.some((result) => result.type === type);

/** Lets every victim come to the point where a message is held, stops all of them there and starts them again. */
async function stopAt(
  s: Scenario,
  victims: readonly number[],
  filter: (post: Post) => boolean,
): Promise<() => Promise<void>> {
  const holds = new Map<number, Hold>();
  for (const store of victims) {
    holds.set(
      store,
      s.actors.hold((post) => post.store === store && filter(post)),
    );
  }
  return async () => {
    await s.c.until(
      `stores ${victims.join()} are at the point`,
      () => [...holds.values()].every((h) => h.caught > 0),
      120_000,
    );
    for (const store of victims) {
      s.c.crash(store, s.rng.chance(0.5) ? 'kill' : 'power-loss');
    }
    for (const hold of holds.values()) {
      hold.release();
    }
    if (victims.length < 3) {
      // The others go on without the victim for a while.
      await s.c.advance(s.rng.pick([0, 300, 3_000]));
    }
    for (const store of victims) {
      await s.c.restart(store);
    }
  };
}

const noMerging = (s: Scenario, source: Region, stores: readonly number[] = ALL): Promise<void> =>
  s.c.until(
    'a decision everywhere',
    () => stores.every((store) => ['normal', 'tombstone'].includes(s.record(store, source)?.state ?? '')),
    120_000,
  );

describe('merge: restart', () => {
  scenario('M-50 all stores restart while the source is merging', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    const release = await s.prepareHeld(left, right);
    await s.untilState(left, 'merging');
    await s.restart(...ALL);
    expect(ALL.map((store) => s.record(store, left)?.state)).toEqual(['merging', 'merging', 'merging']);
    expect(ALL.map((store) => s.record(store, right)?.state)).toEqual(['normal', 'normal', 'normal']);
    await s.c.mustLeader(left.id);
    release();
    await s.untilGone(left);
  });

  scenario(
    'M-51 R53 the restarted leader of a merging source refuses writes, changes and compaction',
    {},
    async (s) => {
      const { left, right } = await s.twoRegions();
      const heal = s.starve(left, 3, {});
      await s.put('b', 'x');
      const release = await s.prepareHeld(left, right);
      await s.untilState(left, 'merging', [1, 2]);
      await s.restart(1);
      await s.c.mustLeader(left.id);
      await s.lead(left, 1).catch(() => undefined);
      const leader = await s.c.mustLeader(left.id);
      await s.c.until(
        'the leader is in its term',
        () => s.status(leader, left)?.commitIndex === s.status(leader, left)?.lastIndex,
      );
      const now = s.status(leader, left)?.region as Region;
      expect(await s.answer(s.askWrite(leader, now, 'b', 'no'))).toBe('proposal-in-merging-mode');
      const peer: Peer = { id: s.c.nextId() as Peer['id'], storeId: storeId(4), role: 'learner' };
      for (const body of [
        { type: 'split', keys: [utf8('c')] },
        { type: 'change-peer', changes: [{ type: 'add-learner', peer }] },
        { type: 'compact-log', index: (s.status(leader, left)?.appliedIndex ?? 2) - 1 },
        { type: 'merge', target: s.now(right) },
      ] as const) {
        expect(await s.answer(s.askAdmin(leader, now, body))).toBe('proposal-in-merging-mode');
      }
      expect(await s.answer(s.askRead(leader, now, 'a'))).toBe('read-index-not-ready');
      // The target's leader has to be on a store whose source can hear the others.
      await s.lead(right, 2);
      release();
      await s.untilGone(left);
      expect(await s.c.valueOn(3, 'b')).toBe('x');
      heal();
    },
  );

  scenario(
    'M-52 everything restarts after a merge whose target left a store that was away',
    { stores: 4 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const heal = s.c.isolate(3);
      await s.mergeAwayOn(left, right, [1, 2]);
      await s.remove(right, 3);
      await s.addVoter(right, 4);
      for (const store of [1, 2, 3, 4]) {
        s.c.crash(store);
      }
      heal();
      for (const store of [1, 2, 3, 4]) {
        await s.c.restart(store);
      }
      await s.untilGone(left);
      await s.untilGone(right, [3]);
      await s.c.advance(8_000);
      expect(await s.c.keysOn(3)).toEqual([]);
    },
  );
});

describe('M-53 merge: crash table', () => {
  for (const victims of [[3], ALL] as const) {
    const who = victims.length === 1 ? 'one store' : 'all stores';

    scenario(`C1 ${who}: PrepareMerge is in the log and not applied`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      for (const store of victims) {
        s.crashAt(store, 'apply::before-prepare-merge', left);
      }
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      for (const store of victims) {
        await s.untilDown(store);
      }
      for (const store of victims) {
        await s.c.restart(store);
      }
      await s.mergeAway(left, right);
    });

    scenario(`C2 ${who}: PrepareMerge is applied and the peer has not heard`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      const stop = await stopAt(s, victims, isApplied(left, 'prepare-merge'));
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      await stop();
      for (const store of victims) {
        if (s.holds(store, left)) {
          expect(s.record(store, left)?.state).toBe('merging');
        }
      }
      await s.untilGone(left);
    });

    scenario(`C3 R6 ${who}: a compaction behind PrepareMerge is committed and not applied`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      await s.put('b', 'x');
      await s.put('c', 'x');
      await s.caughtUp(left, ALL);
      const heal = s.starve(left, 2, {});
      await s.put('d', 'carried');
      const { appliedIndex } = s.status(1, left) as { appliedIndex: number };
      s.c.failpoints.set('apply::before-compact-log', { type: 'pause' });
      s.c.failpoints.set(`merge::before-commit#${left.id}`, { type: 'pause' });
      // The leader has not seen the result of PrepareMerge when the compaction is proposed.
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      s.askAdmin(1, s.now(left), { type: 'compact-log', index: appliedIndex });
      await s.c.until('the compaction is in the log behind PrepareMerge', () => {
        const types = adminEntries(s, 1, left).map(({ type }) => type);
        return types.at(-1) === 'compact-log' && types.at(-2) === 'prepare-merge';
      });
      await s.untilState(left, 'merging', [1, 3]);
      for (const store of victims) {
        s.c.crash(store);
      }
      s.c.failpoints.delete('apply::before-compact-log');
      for (const store of victims) {
        await s.c.restart(store);
      }
      await s.c.advance(1_000);
      // The target's leader has to be on a store whose source can hear the others.
      await s.lead(right, 1);
      for (const store of [1, 3]) {
        // What the merge may have to carry is still there.
        expect(s.status(store, left)?.firstIndex ?? 0).toBeLessThanOrEqual(appliedIndex);
      }
      s.c.failpoints.clear();
      await s.untilGone(left);
      heal();
      expect(await s.c.valueOn(2, 'd')).toBe('carried');
    });

    scenario(`C4 ${who}: the target waits in CommitMerge`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      const stop = await stopAt(s, victims, ({ region, msg }) => region === left.id && msg.type === 'catch-up-logs');
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      await stop();
      await s.untilGone(left);
    });

    scenario(`C5 ${who}: carried entries are in the log and not applied`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      const heal = s.starve(left, 3, {});
      await s.put('b', 'x');
      const stop = await stopAt(
        s,
        [3],
        ({ region, to, msg }) => region === left.id && to === 'apply' && msg.type === 'apply',
      );
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      const others = victims.length === 1 ? [] : [1, 2];
      await s.c.until('CommitMerge', () => s.actors.posted(3, left.id, 'catch-up-logs') > 0);
      for (const store of others) {
        s.c.crash(store);
      }
      await stop();
      for (const store of others) {
        await s.c.restart(store);
      }
      heal();
      await s.untilGone(left);
      expect(await s.c.valueOn(3, 'b')).toBe('x');
    });

    scenario(`C6 ${who}: the source has stopped and the batch of CommitMerge is not written`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      const stop = await stopAt(s, victims, ({ region, msg }) => region === right.id && msg.type === 'noop');
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      await stop();
      await s.untilGone(left);
    });

    scenario(`C7 ${who}: CommitMerge is applied and the peers have not heard`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      const stop = await stopAt(s, victims, isApplied(right, 'commit-merge'));
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      await stop();
      for (const store of victims) {
        expect(s.record(store, left)).toMatchObject({ state: 'tombstone', mergeState: { target: { id: right.id } } });
        expect(s.holds(store, left)).toBe(false);
        expect(s.hasRaftRecords(store, left)).toBe(false);
      }
      await s.untilGone(left);
    });

    for (const point of [
      'step 1 is on its way',
      'the source has stopped',
      'the snapshot waits to be installed',
      'step 2 is on its way',
    ] as const) {
      scenario(
        `C8 R26 ${who}: a snapshot of the target takes the source along, ${point}`,
        { config: EARLY_GC },
        async (s) => {
          const { left, right } = await s.twoRegions();
          const heal = s.c.isolate(3);
          await s.mergeAwayOn(left, right, [1, 2]);
          for (let i = 0; i < 15; i++) {
            await s.put(`b${i}`, 'x');
          }
          await s.c.until('a compacted log', () =>
            [1, 2].every(
              (store) => (s.status(store, right)?.firstIndex ?? 0) > (s.status(3, right)?.lastIndex ?? 0) + 1,
            ),
          );
          let atPoint = (): boolean => s.record(3, right)?.state === 'applying';
          let hold: Hold | undefined;
          if (point === 'the snapshot waits to be installed') {
            s.c.failpoints.set('3!snapshot::before-install', { type: 'pause' });
          } else {
            hold = s.actors.hold(
              ({ store, region, msg }) =>
                store === 3 &&
                region === left.id &&
                (point === 'the source has stopped'
                  ? msg.type === 'apply-destroyed'
                  : msg.type === 'merge-result' &&
                    msg.kind ===
                      (point === 'step 1 is on its way' ? 'target-snapshot-step1' : 'target-snapshot-step2')),
            );
            atPoint = () => (hold?.caught ?? 0) > 0;
          }
          heal();
          await s.c.until('store 3 is at the point', atPoint, 120_000);
          await s.c.advance(60);
          for (const store of victims) {
            s.c.crash(store, s.rng.chance(0.5) ? 'kill' : 'power-loss');
          }
          hold?.release();
          s.c.failpoints.clear();
          for (const store of victims) {
            await s.c.restart(store);
          }
          if (point === 'step 1 is on its way' || point === 'the source has stopped') {
            // Nothing of the snapshot was on disk: the source lives, whatever comes next.
            expect(['merging', 'normal']).toContain(s.record(3, left)?.state);
          } else {
            expect(s.record(3, left)?.state).toBe('tombstone');
          }
          await s.untilGone(left);
          await s.c.until('the target on store 3', () => s.status(3, right)?.state === 'normal');
          expect(await s.c.valueOn(3, 'b14')).toBe('x');
        },
      );
    }

    scenario(`C9 ${who}: RollbackMerge is applied and the peer has not heard`, { stores: 4 }, async (s) => {
      const { left, right } = await s.twoRegions();
      const release = await s.prepareHeld(left, right);
      await s.untilState(left, 'merging');
      const stop = await stopAt(s, victims, isApplied(left, 'rollback-merge'));
      await s.addLearner(right, 4);
      release();
      await stop();
      for (const store of victims) {
        expect(s.record(store, left)?.state).toBe('normal');
      }
      await s.untilState(left, 'normal');
      await s.put('b', 'after');
    });

    scenario(`C10 ${who}: a stale source is a tombstone and its data is not deleted yet`, { stores: 4 }, async (s) => {
      const { left, right } = await s.twoRegions();
      await s.put('b', 'x');
      const heal = s.c.isolate(3);
      await s.mergeAwayOn(left, right, [1, 2]);
      await s.remove(right, 3);
      s.crashAt(3, 'peer::before-destroyed-on-disk', left);
      heal();
      await s.untilDown(3);
      for (const store of victims) {
        s.c.crash(store);
      }
      for (const store of victims) {
        await s.c.restart(store);
      }
      expect(s.record(3, left)?.state).toBe('tombstone');
      await s.untilGone(left);
      await s.untilGone(right, [3]);
      await s.c.advance(8_000);
      expect(await s.c.keysOn(3)).toEqual([]);
    });

    scenario(`C11 ${who}: the process stops at any step of the loop while two regions merge`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      s.traffic(['b', 'y']);
      const points = [
        'round::before-log-write',
        'round::after-log-write',
        'round::before-applies',
        'round::after-applies',
        'round::before-flush',
        'write::before-submit',
        'write::before-done',
        'write::after-done',
        'peer::before-persisted',
        'peer::after-applied',
        'peer::before-propose-commit-merge',
        'peer::after-propose-commit-merge',
        'peer::after-catch-up-logs',
        'peer::after-merge-result',
        'apply-task::before-logs-up-to-date',
        'apply-task::after-logs-up-to-date',
        'apply-task::before-noop',
        'apply-task::after-noop',
        'apply-task::after-batch-written',
      ] as const;
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      await s.c.advance(s.rng.float() * 15);
      for (const store of victims) {
        s.crashAt(store, s.rng.pick(points));
      }
      await s.c.advance(s.rng.pick([20, 200, 1_000]));
      s.c.failpoints.clear();
      for (const store of victims) {
        if (!s.c.isUp(store)) {
          await s.c.restart(store);
        }
      }
      await noMerging(s, left);
      await s.mergeAway(left, right);
    });
  }
});
