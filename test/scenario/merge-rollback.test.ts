/** Merges that cannot succeed (raftstore-scenarios.md, 1c): when a source gives up, who decides, and what it is after. */
import { describe, expect } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { storeId } from '../../src/base/ids.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import { findPeerOnStore, type Peer, type Region } from '../../src/meta/region.ts';
import { adminEntries, EARLY_GC, scenario, type Scenario } from './support/scenario.ts';

const isVote = (m: PeerMessage): boolean => m.body.type === 'want-rollback-merge';

/** A membership change and its opposite: only the epoch of the target is different afterwards. */
const touch = async (s: Scenario, target: Region, store: number): Promise<void> => {
  await s.addLearner(target, store);
  await s.remove(target, store);
};

describe('merge: rollback', () => {
  for (const trigger of ['a split', 'a new peer', 'a joint membership'] as const) {
    scenario(`M-30 the target changes by ${trigger} before CommitMerge`, { stores: 4 }, async (s) => {
      const { left, right } = await s.twoRegions();
      const traffic = s.traffic(['b', 'y']);
      let four: Peer | undefined;
      if (trigger === 'a joint membership') {
        // The source has the same learner, so that the merge may begin.
        await s.addLearner(left, 4);
        four = await s.addLearner(right, 4);
        await s.c.until('the learners have data', () =>
          [left, right].every((r) => (s.status(4, r)?.appliedIndex ?? 0) > 5),
        );
      }
      const before = s.epoch(left);
      const release = await s.prepareHeld(left, right);
      await s.untilState(left, 'merging');
      if (trigger === 'a split') {
        await s.c.mustAdmin(right.id, () => ({ type: 'split', keys: [utf8('p')] }));
      } else if (trigger === 'a new peer') {
        await s.addLearner(right, 4);
      } else {
        await s.c.mustAdmin(right.id, () => ({
          type: 'change-peer',
          changes: [
            { type: 'add-voter', peer: { ...(four as Peer), role: 'voter' } },
            { type: 'add-learner', peer: { ...(findPeerOnStore(right, storeId(3)) as Peer), role: 'learner' } },
          ],
        }));
      }
      release();
      await s.untilState(left, 'normal');
      expect(s.epoch(left)).toEqual({ version: before.version + 2, confVer: before.confVer + 1 });
      const written = traffic.acknowledged('b');
      await s.c.until('writes of the source', () => traffic.acknowledged('b') > written);
      if (trigger === 'a joint membership') {
        await s.c.mustAdmin(right.id, () => ({ type: 'change-peer', changes: [] }));
      }
      expect(s.merges.commits).toBe(0);
    });
  }

  scenario('M-31 only the leader wants it: three rounds', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    for (let round = 0; round < 3; round++) {
      await s.lead(left, 1);
      await s.c.settle();
      const before = s.epoch(left);
      const release = await s.prepareHeld(left, right);
      const others = s.c.drop(isVote);
      await touch(s, right, 4);
      release();
      // The leader's own vote is not enough, however often it looks.
      await s.c.advance(1_500);
      expect(s.record(1, left)?.state).toBe('merging');
      const leader = s.c.leaderStore(left.id) as number;
      expect(await s.answer(s.askWrite(leader, s.now(left), 'b', 'no'))).toBe('proposal-in-merging-mode');
      others();
      await s.untilState(left, 'normal');
      expect(s.epoch(left).version).toBe(before.version + 2);
      await s.put('b', String(round));
    }
  });

  scenario('M-32 R13 a vote for an older attempt counts for nothing', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const votes = s.capture(isVote);
    const release = await s.prepareHeld(left, right);
    await s.untilState(left, 'merging');
    await touch(s, right, 4);
    release();
    await s.untilState(left, 'normal');
    await s.lead(left, 1);
    await s.c.settle();
    expect(votes.length).toBeGreaterThan(0);
    const again = await s.prepareHeld(left, right);
    await s.untilState(left, 'merging');
    for (const vote of [...votes]) {
      s.deliver(vote);
      await s.c.advance(20);
    }
    await s.c.advance(500);
    expect(s.record(1, left)?.state).toBe('merging');
    again();
    await s.untilGone(left);
  });

  scenario(
    'M-33 a learner never votes',
    {
      stores: 4,
      firstPeers: [
        [1, 'voter'],
        [2, 'voter'],
        [3, 'learner'],
      ],
    },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const votes = s.capture(isVote);
      const silent = s.c.drop((m) => isVote(m) && m.from.storeId === 2);
      const release = await s.prepareHeld(left, right);
      await s.untilState(left, 'merging');
      await touch(s, right, 4);
      release();
      await s.c.advance(1_500);
      expect(s.record(1, left)?.state).toBe('merging');
      expect(votes.filter((m) => m.from.storeId === 3)).toEqual([]);
      silent();
      await s.untilState(left, 'normal');
    },
  );

  scenario('M-34 the next PrepareMerge waits until the rollback is applied', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const release = await s.prepareHeld(left, right);
    await s.untilState(left, 'merging');
    s.c.failpoints.set('1!apply::before-rollback-merge', { type: 'pause' });
    await touch(s, right, 4);
    release();
    await s.c.until('RollbackMerge at the leader', () =>
      adminEntries(s, 1, left).some(({ type }) => type === 'rollback-merge'),
    );
    const leader = s.c.leaderStore(left.id);
    if (leader === 1) {
      const answer = await s.answer(
        s.askAdmin(1, s.status(1, left)?.region as Region, { type: 'merge', target: s.now(right) }),
      );
      expect(answer).toBe('proposal-in-merging-mode');
    }
    expect(adminEntries(s, 1, left).filter(({ type }) => type === 'prepare-merge')).toHaveLength(1);
    s.c.failpoints.clear();
    await s.untilState(left, 'normal');
    await s.mergeAway(left, right);
  });

  scenario(
    'M-35 a follower behind a rollback is restored by a snapshot and forgets the merge',
    { stores: 4, config: EARLY_GC },
    async (s) => {
      const { left, right } = await s.twoRegions();
      await s.caughtUp(left, [1, 2, 3]);
      const release = await s.prepareHeld(left, right);
      await s.untilState(left, 'merging');
      const heal = s.cut(left, 3);
      await touch(s, right, 4);
      release();
      await s.untilState(left, 'normal', [1, 2]);
      for (let i = 0; i < 20; i++) {
        await s.put(`b${i}`, 'x');
      }
      await s.c.until('a compacted log', () =>
        [1, 2].some((store) => (s.status(store, left)?.firstIndex ?? 0) > (s.status(3, left)?.lastIndex ?? 0) + 1),
      );
      expect(s.status(3, left)?.state).toBe('merging');
      heal();
      await s.c.until('store 3 is normal', () => s.status(3, left)?.state === 'normal');
      await s.restart(3);
      expect(s.record(3, left)).toMatchObject({ state: 'normal', mergeState: undefined });
      await s.c.settle();
      await s.lead(left, 3);
      await s.put('b', 'by the new leader');
    },
  );

  for (const leaders of ['one store', 'two stores'] as const) {
    scenario(`M-36 R16 two regions merge into each other, led by ${leaders}`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      if (leaders === 'two stores') {
        await s.lead(right, 2);
      }
      await s.c.settle();
      s.traffic(['b', 'y']);
      const both = [
        s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) }),
        s.askAdmin(leaders === 'one store' ? 1 : 2, s.now(right), { type: 'merge', target: s.now(left) }),
      ];
      for (const ticket of both) {
        await s.answer(ticket);
      }
      await s.c.until('one region, or two normal ones', () => {
        const states = [left, right].map((r) => [1, 2, 3].map((store) => s.record(store, r)?.state));
        return states.every((of) => of.every((state) => state === 'normal' || state === 'tombstone'));
      });
    });
  }

  scenario('M-37 a split of the target is in flight: CommitMerge is not proposed', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    const release = await s.prepareHeld(left, right);
    await s.untilState(left, 'merging');
    s.c.failpoints.set('apply::before-split', { type: 'pause' });
    const splits = () => adminEntries(s, 1, right).filter(({ type }) => type === 'batch-split').length;
    const splitsBefore = splits();
    const split = s.askAdmin(1, s.now(right), { type: 'split', keys: [utf8('p')] });
    await s.c.until('the split is in the log', () => splits() > splitsBefore);
    const offersBefore = s.actors.posted(1, right.id, 'propose-commit-merge');
    release();
    await s.c.until('offers', () => s.actors.posted(1, right.id, 'propose-commit-merge') > offersBefore + 3);
    expect(adminEntries(s, 1, right).some(({ type }) => type === 'commit-merge')).toBe(false);
    s.c.failpoints.clear();
    expect(await s.answer(split)).toBe('ok');
    await s.untilState(left, 'normal');
  });

  scenario(
    'M-37 CommitMerge is in flight: a split or a new peer of the target is not proposed',
    { stores: 4 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      s.c.failpoints.set('apply::before-commit-merge', { type: 'pause' });
      await s.c.prepareMerge(left.id, right.id);
      await s.c.until('CommitMerge is in the log', () =>
        adminEntries(s, 1, right).some(({ type }) => type === 'commit-merge'),
      );
      expect(await s.attempt(right, { type: 'split', keys: [utf8('p')] })).not.toBe('ok');
      const peer: Peer = { id: s.c.nextId() as Peer['id'], storeId: storeId(4), role: 'learner' };
      expect(await s.attempt(right, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] })).not.toBe('ok');
      s.c.failpoints.clear();
      await s.untilGone(left);
      expect(s.now(right).range.start.length).toBe(0);
    },
  );

  scenario(
    'R15 every order of CommitMerge, a split and a new peer of the target ends in one of two ways',
    { stores: 4 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      s.traffic(['b', 'y']);
      const release = await s.prepareHeld(left, right);
      const peer: Peer = { id: s.c.nextId() as Peer['id'], storeId: storeId(4), role: 'learner' };
      const now = s.now(right);
      const acts = [
        () => release(),
        () => void s.askAdmin(1, now, { type: 'split', keys: [utf8('p')] }),
        () => void s.askAdmin(1, now, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] }),
      ];
      while (acts.length > 0) {
        acts.splice(s.rng.below(acts.length), 1)[0]?.();
        await s.c.advance(s.rng.float() * s.rng.pick([0.5, 5, 120]));
      }
      await s.c.until('a decision', () =>
        [1, 2, 3].every((store) => ['normal', 'tombstone'].includes(s.record(store, left)?.state ?? '')),
      );
    },
  );

  for (const point of ['prepare', 'rollback'] as const) {
    scenario(
      `R10 a second attempt waits until a slow replica has applied the ${point} of the first`,
      { stores: 4 },
      async (s) => {
        const { left, right } = await s.twoRegions();
        s.c.failpoints.set(`3!apply::before-${point}-merge#${left.id}`, { type: 'pause' });
        const release = await s.prepareHeld(left, right);
        await touch(s, right, 4);
        release();
        await s.untilState(left, 'normal', [1, 2]);
        await s.put('b', 'between the attempts');
        await s.c.until('the rollback is in the log of store 3', () =>
          adminEntries(s, 3, left).some(
            ({ type, index }) => type === 'rollback-merge' && (s.status(3, left)?.commitIndex ?? 0) >= index,
          ),
        );
        await s.caughtUp(left, [1, 2]);
        // Store 3 knows that the first attempt is over, and would forget it in a crash.
        for (let i = 0; i < 10; i++) {
          await s.c.advance(100);
          expect(await s.attempt(left, { type: 'merge', target: s.now(right) })).toBe('AdminInLogGap');
        }
        s.c.crash(3, 'lose-unsynced');
        s.c.failpoints.clear();
        await s.restart(3);
        await s.mergeAway(left, right);
        expect(await s.c.valueOn(3, 'b')).toBe('between the attempts');
      },
    );
  }

  scenario('R12 a target that is behind on most stores is waited for', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    for (const store of [2, 3]) {
      s.c.failpoints.set(`${store}!apply::before-split#${left.id}`, { type: 'pause' });
    }
    const votes = s.capture(isVote);
    // The part next to the source keeps the id; only the leader's store has applied its new epoch.
    await s.c.mustAdmin(left.id, () => ({ type: 'split', keys: [utf8('c')] }));
    await s.c.until('the leader knows', () => s.status(1, left)?.region.epoch.version !== left.epoch.version);
    s.c.failpoints.set(`merge::before-commit#${right.id}`, { type: 'pause' });
    await s.c.until('the source is frozen', () => {
      if (s.status(1, right)?.state === 'normal') {
        s.askAdminOnce(1, right, left);
      }
      return [1, 2, 3].every((store) => s.record(store, right)?.state === 'merging');
    });
    await s.c.advance(1_000);
    expect(votes).toEqual([]);
    s.c.failpoints.clear();
    await s.untilGone(right);
    expect(s.merges.rollbacks).toBe(0);
  });

  scenario('R12 what is between leaders for a moment is no reason to give up', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    const votes = s.capture(isVote);
    const release = await s.prepareHeld(left, right);
    const still = s.c.drop((m) => m.regionId === right.id);
    release();
    await s.c.advance(4_000);
    expect(s.record(1, left)?.state).toBe('merging');
    still();
    await s.untilGone(left);
    expect(votes).toEqual([]);
    expect(s.merges.rollbacks).toBe(0);
  });

  scenario('the leader of a merging source changes, before and after the target changed', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const release = await s.prepareHeld(left, right);
    await s.untilState(left, 'merging');
    await s.lead(left, 2);
    if (s.rng.chance(0.5)) {
      await touch(s, right, 4);
      await s.lead(left, 3);
      release();
      await s.untilState(left, 'normal');
    } else {
      await s.lead(left, 3);
      release();
      await s.untilGone(left);
    }
  });
});
