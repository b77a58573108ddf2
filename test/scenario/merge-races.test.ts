/**
 * Lines of the race table (`docs/merge.md`) that concern a merge only from the side: snapshots, membership, the end of
 * replicas, votes after a restart.
 */
import { describe, expect } from 'vitest';
import { findPeerOnStore, type Region } from '../../src/meta/region.ts';
import { storeId } from '../../src/base/ids.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { RegionStatus } from '../../src/raftstore/store/region-status.ts';
import { EARLY_GC, scenario, startOf } from './support/scenario.ts';

describe('races beside a merge', () => {
  scenario(
    'R43 a membership change is replayed over the configuration of a snapshot',
    { stores: 4, config: EARLY_GC, seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const old = s.capture(
        (m) =>
          m.regionId === left.id && m.to.storeId === 3 && m.body.type === 'raft' && m.body.message.type === MsgType.App,
      );
      const heal = s.c.isolate(3);
      await s.addVoter(left, 4);
      await s.remove(left, 4);
      for (let i = 0; i < 20; i++) {
        await s.put(`b${i}`, 'x');
      }
      await s.c.until('a compacted log', () =>
        [1, 2].every((store) => (s.status(store, left)?.firstIndex ?? 0) > (s.status(3, left)?.lastIndex ?? 0) + 1),
      );
      const inTheWay = [...old];
      heal();
      await s.c.until('the snapshot', () => s.status(3, left)?.region.epoch.confVer === s.epoch(left).confVer);
      for (const message of inTheWay) {
        s.deliver(message);
        await s.c.advance(2);
      }
      await s.c.settle();
      await s.lead(left, 3);
      await s.put('c', 'by the restored replica');
      await s.mergeAway(left, right);
    },
  );

  for (const busy of ['writes its log', 'installs a snapshot'] as const) {
    scenario(
      `R44 a replica is removed while it ${busy}, and does not rise again after a restart`,
      { stores: 4, config: EARLY_GC, seedsMax: 12 },
      async (s) => {
        const { left } = await s.twoRegions();
        if (busy === 'writes its log') {
          s.c.machine(3).disk.setBehavior({ writeDelayMs: [200, 400] });
          await s.put('b', 'x');
        } else {
          const heal = s.cut(left, 3);
          for (let i = 0; i < 20; i++) {
            await s.put(`b${i}`, 'x');
          }
          await s.c.until('a compacted log', () =>
            [1, 2].every((store) => (s.status(store, left)?.firstIndex ?? 0) > (s.status(3, left)?.lastIndex ?? 0) + 1),
          );
          s.c.failpoints.set('3!snapshot::before-install', { type: 'pause' });
          heal();
          await s.c.until('an installation', () => s.record(3, left)?.state === 'applying');
        }
        await s.remove(left, 3);
        await s.c.advance(s.rng.float() * 400);
        if (s.rng.chance(0.5)) {
          s.c.crash(3);
          await s.c.restart(3);
        }
        s.c.failpoints.clear();
        s.c.machine(3).disk.setBehavior({ writeDelayMs: [0.2, 2] });
        await s.untilGone(left, [3]);
        expect(s.record(3, left)?.state).toBe('tombstone');
        await s.restart(3);
        expect(s.holds(3, left)).toBe(false);
      },
    );
  }

  scenario('R43 the snapshot after a rollback arrives while PrepareMerge is being applied', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    s.c.failpoints.set(`3!apply::before-prepare-merge#${left.id}`, { type: 'pause' });
    const release = await s.prepareHeld(left, right);
    await s.c.until('it is committed on store 3', () => {
      const status = s.status(3, left);
      return (
        status !== undefined && status.commitIndex > status.appliedIndex && status.commitIndex === status.lastIndex
      );
    });
    const hearLeft = s.cut(left, 3);
    const hearRight = s.cut(right, 3);
    // The others see another target and roll back; store 3 still sees the one that was meant.
    await s.c.mustSplit('p');
    release();
    await s.c.until('the rollback', () => [1, 2].every((store) => s.status(store, left)?.state === 'normal'));
    const leader = (): RegionStatus => s.status(s.c.leaderStore(left.id) ?? 1, left) as RegionStatus;
    for (let i = 0; i < 20 && leader().firstIndex <= (s.status(3, left)?.lastIndex ?? 0) + 1; i++) {
      await s.put('b', `${i}`);
      const { appliedIndex } = leader();
      await s.c.run(s.c.admin(left.id, { type: 'compact-log', index: appliedIndex - 1 }));
    }
    hearLeft();
    await s.c.until('the snapshot is accepted', () => s.status(3, left)?.state === 'installing');
    s.c.failpoints.clear();
    await s.c.advance(500);
    hearRight();
    await s.untilState(left, 'normal');
  });

  scenario('R43 a membership change is applied behind the snapshot that follows it', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    s.c.failpoints.set(`3!apply::before-change-peer#${left.id}`, { type: 'pause' });
    const learner = await s.addLearner(left, 4);
    await s.c.until('it is committed on store 3', () => {
      const status = s.status(3, left);
      return (
        status !== undefined && status.commitIndex > status.appliedIndex && status.commitIndex === status.lastIndex
      );
    });
    const hear = s.cut(left, 3);
    await s.promote(left, learner);
    const leader = (): RegionStatus => s.status(s.c.leaderStore(left.id) ?? 1, left) as RegionStatus;
    for (let i = 0; i < 20 && leader().firstIndex <= (s.status(3, left)?.lastIndex ?? 0) + 1; i++) {
      await s.put('b', `${i}`);
      await s.c.run(s.c.admin(left.id, { type: 'compact-log', index: leader().appliedIndex - 1 }));
    }
    hear();
    await s.c.until('the snapshot is accepted', () => s.status(3, left)?.state === 'installing');
    s.c.failpoints.clear();
    // G8 compares the core with the region.
    await s.c.until('the snapshot is installed', () => s.status(3, left)?.state === 'normal');
    await s.lead(left, 3);
    await s.put('c', 'by the restored replica');
    await s.remove(left, 4);
    await s.mergeAway(left, right);
  });

  scenario('R45 results of apply arrive when the replica is already on its way out', { stores: 4 }, async (s) => {
    const { left } = await s.twoRegions();
    const late = s.actors.hold(({ store, region, msg }) => store === 3 && region === left.id && msg.type === 'applied');
    await s.c.mustSplit('c');
    await s.c.until('the split is applied on store 3', () => late.caught > 0);
    await s.remove(left, 3);
    await s.c.advance(s.rng.float() * 300);
    late.release();
    await s.untilGone(left, [3]);
    // The child of the split lives on there.
    const child = s.c.regionOf('a') as Region;
    await s.c.until('the child on store 3', () => s.holds(3, child));
    await s.addVoter(left, 3);
  });

  scenario(
    'R46 voters that have just restarted do not elect a second leader inside the lease of the first',
    { seedsMax: 6 },
    async (s) => {
      const { left } = await s.twoRegions();
      const traffic = s.traffic(['b', 'c']);
      await s.c.until('traffic', () => traffic.reads > 10);
      for (let round = 0; round < 3; round++) {
        const leader = await s.c.mustLeader(left.id);
        const others = [1, 2, 3].filter((store) => store !== leader);
        await s.restart(...others);
        const heal = s.c.isolate(leader);
        await s.c.advance(3_000);
        heal();
        await s.c.advance(1_000);
      }
    },
  );

  scenario('R47 leadership goes to a replica that has applied CommitMerge while the leader has not', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    s.traffic(['b', 'y']);
    const slow = s.actors.hold(
      ({ store, to, region, msg }) => store === 1 && to === 'apply' && region === right.id && msg.type === 'apply',
    );
    const merging = s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
    await s.c.until('CommitMerge on another store', () => [2, 3].some((store) => !s.holds(store, left)));
    const ahead = [2, 3].find((store) => !s.holds(store, left)) as number;
    s.askAdmin(1, s.now(right), {
      type: 'transfer-leader',
      peer: findPeerOnStore(s.now(right), storeId(ahead)) as Region['peers'][number],
    });
    await s.c.advance(1_500);
    slow.release();
    await s.answer(merging);
    await s.untilGone(left);
    const leader = await s.c.mustLeader(right.id);
    expect(s.status(leader, right)?.region.range.start.length).toBe(0);
  });

  scenario(
    'R52 a snapshot made right after a change of leader has the right term',
    { stores: 4, config: EARLY_GC },
    async (s) => {
      const { left, right } = await s.twoRegions();
      for (let i = 0; i < 15; i++) {
        await s.put(`b${i}`, 'x');
      }
      await s.lead(left, 2);
      const learner = await s.addLearner(left, 4);
      await s.lead(left, 3);
      await s.c.until(
        'data on store 4',
        () => (s.status(4, left)?.appliedIndex ?? 0) > 5 && s.status(4, left)?.state === 'normal',
      );
      await s.put('c', 'x');
      await s.caughtUp(left, [1, 2, 3, 4]);
      await s.promote(left, learner);
      await s.addVoter(right, 4);
      await s.mergeAway(left, right);
    },
  );

  scenario(
    'R17 a second offer of CommitMerge is applied behind the first and changes nothing',
    { config: { mergeCheckMs: 10 } },
    async (s) => {
      const { left, right } = await s.twoRegions();
      s.traffic(['b', 'y']);
      // Each store's source goes on offering while nobody has heard of the result.
      const unheard = s.actors.hold(({ region, msg }) => region === right.id && msg.type === 'applied');
      const merging = s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      await s.c.advance(1_500);
      unheard.release();
      await s.answer(merging);
      await s.untilGone(left);
      expect(s.merges.commits).toBe(3);
      expect(s.epoch(right).version).toBe(Math.max(left.epoch.version + 1, right.epoch.version) + 1);
      await s.c.mustSplit('k');
      expect(s.record(1, left)?.state).toBe('tombstone');
      expect(startOf(s.now(right))).toBe('k');
    },
  );
});
