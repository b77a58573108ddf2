/**
 * A source replica that is slow (raftstore-scenarios.md, 1d): it is completed from what CommitMerge carries, in whatever
 * order its own log, its own apply and the target's request reach it.
 */
import { describe, expect } from 'vitest';
import type { Region } from '../../src/meta/region.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { Post } from './support/actors.ts';
import { adminEntries, scenario, type Scenario } from './support/scenario.ts';

/** Raft positions of a replica's log on disk must explain what is applied (R7). */
const expectSoundLog = (s: Scenario, store: number, region: Region): void => {
  const status = s.status(store, region);
  if (status !== undefined) {
    expect(status.appliedIndex).toBeLessThanOrEqual(status.lastIndex);
    expect(status.appliedIndex).toBeLessThanOrEqual(status.commitIndex);
  }
};

describe('merge: slow source replicas', () => {
  scenario('M-40 a source replica is completed from what CommitMerge carries', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    const heal = s.starve(left, 3, {});
    await s.put('b', 'carried');
    await s.c.prepareMerge(left.id, right.id);
    await s.untilGone(left, [3]);
    expect(await s.c.valueOn(3, 'b')).toBe('carried');
    heal();
    await s.restart(3);
    expect(s.record(3, left)?.state).toBe('tombstone');
    expect(s.hasRaftRecords(3, left)).toBe(false);
  });

  scenario('R8 a replica that does not know the leader’s term is never completed by a merge', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.lead(right, 2);
    await s.c.settle();
    const heal = s.cut(left, 3);
    await s.put('b', 'in the old term');
    await s.lead(left, 2);
    await s.put('c', 'in the new term');
    // Store 3 knows neither the terms nor the entries: what it may have got from earlier leaders nobody can say.
    await s.c.advance(500);
    expect(['PeerUnknown', 'PeerBehindSnapshot']).toContain(
      await s.attempt(left, { type: 'merge', target: s.now(right) }),
    );
    heal();
    await s.mergeAway(left, right);
    expect(await s.c.valueOn(3, 'c')).toBe('in the new term');
    await s.restart(3);
  });

  scenario('M-41 R9 a source replica has everything but never learned that it is committed', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.caughtUp(left, [1, 2, 3]);
    const source = s.starve(left, 3, { App: 1 });
    const target = s.starve(right, 3, {});
    await s.c.prepareMerge(left.id, right.id);
    await s.untilGone(left, [1, 2]);
    source();
    target();
    await s.restart(1, 2, 3);
    await s.untilGone(left);
  });

  const orders: Readonly<Record<string, (s: Scenario, left: Region) => () => void>> = {
    'PrepareMerge first': (s, left) => {
      const held = s.actors.hold(
        ({ store, region, msg }) => store === 3 && region === left.id && msg.type === 'catch-up-logs',
      );
      return () => held.release();
    },
    'catch-up first, entries later': (s, left) => s.starve(left, 3, {}),
    'catch-up first, the result of apply later': (s, left) => {
      const held = s.actors.hold(
        ({ store, region, msg }) => store === 3 && region === left.id && msg.type === 'applied',
      );
      return () => held.release();
    },
  };
  for (const [order, begin] of Object.entries(orders)) {
    scenario(`M-42 ${order}: the target is released once`, { isExact: true }, async (s) => {
      const { left, right } = await s.twoRegions();
      const end = begin(s, left);
      await s.put('b', 'x');
      await s.c.prepareMerge(left.id, right.id);
      await s.c.until('the request to catch up', () => s.actors.posted(3, left.id, 'catch-up-logs') === 1);
      await s.c.advance(300);
      end();
      await s.untilGone(left);
      for (const store of [1, 2, 3]) {
        expect(s.actors.posted(store, left.id, 'catch-up-logs')).toBe(1);
        expect(s.actors.posted(store, left.id, 'logs-up-to-date')).toBe(1);
      }
      expect(await s.c.valueOn(3, 'b')).toBe('x');
    });
  }

  scenario('M-43 R7 a store stops when its source is complete and its target was not told', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    const heal = s.starve(left, 3, {});
    await s.put('b', 'x');
    const held = s.actors.hold(
      ({ store, region, msg }) => store === 3 && region === left.id && msg.type === 'logs-up-to-date',
    );
    await s.c.prepareMerge(left.id, right.id);
    await s.c.until('the source of store 3 is complete', () => held.caught > 0);
    heal();
    expectSoundLog(s, 3, left);
    s.c.crash(3);
    held.release();
    await s.c.restart(3);
    expectSoundLog(s, 3, left);
    await s.untilGone(left);
    expect(await s.c.valueOn(3, 'b')).toBe('x');
  });

  scenario('R7 a store stops between appending the carried entries and applying them', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    const heal = s.starve(left, 3, {});
    await s.put('b', 'x');
    const held = s.actors.hold(
      ({ store, region, to, msg }) => store === 3 && region === left.id && to === 'apply' && msg.type === 'apply',
    );
    await s.c.prepareMerge(left.id, right.id);
    await s.c.until('the carried entries are about to be applied', () => held.caught > 0);
    heal();
    s.c.crash(3, 'power-loss');
    held.release();
    await s.c.restart(3);
    expectSoundLog(s, 3, left);
    await s.untilGone(left);
    expect(await s.c.valueOn(3, 'b')).toBe('x');
  });

  scenario('M-44 R3 the source leader’s disk stands still while PrepareMerge commits', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.lead(right, 2);
    await s.c.settle();
    s.expectRow('b', 'x');
    s.c.machine(1).disk.setBehavior({ writeDelayMs: [6_000, 6_000] });
    const write = s.askWrite(1, s.now(left), 'b', 'x');
    const prepare = s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
    await s.c.until('PrepareMerge is applied on a follower', () =>
      [2, 3].some(
        (store) => s.record(store, left)?.state === 'merging' || s.record(store, left)?.state === 'tombstone',
      ),
    );
    // What is not on its own disk the leader has not applied.
    expect(s.record(1, left)?.state).toBe('normal');
    await s.restart(1, 2, 3);
    s.c.machine(1).disk.setBehavior({ writeDelayMs: [0.2, 2] });
    await s.untilGone(left);
    expect(write.answers.concat(prepare.answers).length).toBeLessThanOrEqual(2);
  });

  for (const type of [
    'catch-up-logs',
    'logs-up-to-date',
    'noop',
    'apply-destroyed',
    'merge-result',
  ] as const satisfies Post['msg']['type'][]) {
    scenario(`M-45 R19 the waiting target misses no wake-up: ${type} comes late`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      s.traffic(['b', 'y']);
      const held = s.actors.hold(({ msg, region }) => msg.type === type && (region === left.id || region === right.id));
      await s.c.prepareMerge(left.id, right.id);
      await s.c.advance(s.rng.float() * 300);
      held.release();
      await s.untilGone(left);
    });
  }

  scenario('M-46 R18 two neighbours merge into one target that a store hears nothing of', {}, async (s) => {
    await s.twoRegions();
    await s.c.mustSplit('p');
    const [left, middle, right] = ['a', 'l', 'z'].map((key) => s.c.regionOf(key) as Region) as [Region, Region, Region];
    for (const region of [left, middle, right]) {
      await s.lead(region, 1);
    }
    await s.put('l', '3');
    s.traffic(['b', 'm', 'y']);
    const heal = s.cut(middle, 3);
    await s.mergeAwayOn(left, middle, [1, 2]);
    await s.mergeAwayOn(right, middle, [1, 2]);
    heal();
    await s.untilGone(left);
    await s.untilGone(right);
  });

  scenario(
    'R18 two neighbours merge into one target at once, and the target waits twice in one batch',
    {},
    async (s) => {
      await s.twoRegions();
      await s.c.mustSplit('p');
      const [left, middle, right] = ['a', 'l', 'z'].map((key) => s.c.regionOf(key) as Region) as [
        Region,
        Region,
        Region,
      ];
      for (const region of [left, middle, right]) {
        await s.lead(region, 1);
      }
      await s.c.settle();
      const slow = s.actors.hold(
        ({ store, to, region, msg }) => store === 3 && to === 'apply' && region === middle.id && msg.type === 'apply',
      );
      s.traffic(['b', 'm', 'y']);
      await s.mergeAwayOn(left, middle, [1, 2]);
      await s.mergeAwayOn(right, middle, [1, 2]);
      slow.release();
      await s.untilGone(left);
      await s.untilGone(right);
    },
  );

  scenario(
    'M-47 the target’s replica on a store is promoted later than its source’s',
    {
      stores: 3,
      firstPeers: [
        [1, 'voter'],
        [2, 'voter'],
        [3, 'learner'],
      ],
    },
    async (s) => {
      const { left, right } = await s.twoRegions();
      await s.promote(left, s.now(left).peers.find((p) => p.storeId === 3) as Region['peers'][number]);
      await s.caughtUp(left, [1, 2, 3]);
      const heal = s.cut(right, 3);
      await s.promote(right, s.now(right).peers.find((p) => p.storeId === 3) as Region['peers'][number]);
      await s.mergeAwayOn(left, right, [1, 2]);
      heal();
      await s.untilGone(left);
      await s.c.settle();
      await s.lead(right, 3);
      await s.put('b', 'by store 3');
    },
  );

  for (const victims of [[3], [1, 2, 3]] as const) {
    scenario(
      `M-48 ${victims.length === 1 ? 'one store stops' : 'all stores stop'} between the batch of CommitMerge and the end of the source`,
      {},
      async (s) => {
        const { left, right } = await s.twoRegions();
        await s.put('b', 'x');
        for (const store of victims) {
          s.crashAt(store, 'peer::before-merge-result', left);
        }
        const prepare = s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
        for (const store of victims) {
          await s.untilDown(store);
        }
        for (const store of victims) {
          await s.c.restart(store);
        }
        for (const store of victims) {
          expect(s.record(store, left)).toMatchObject({ state: 'tombstone', mergeState: { target: { id: right.id } } });
          expect(s.record(store, right)?.region.range.start.length).toBe(0);
          expect(s.holds(store, left)).toBe(false);
          expect(s.hasRaftRecords(store, left)).toBe(false);
          expect(await s.c.valueOn(store, 'b')).toBe('x');
        }
        expect(prepare.answers.length).toBeLessThanOrEqual(1);
      },
    );
  }

  scenario('the carried entries arrive while the log of the source brings the same', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    // Everything for the source on store 3 is late by turns; what CommitMerge carries overtakes some of it.
    const late = s.c.drop(
      (m) => m.regionId === left.id && m.to.storeId === 3 && m.body.type === 'raft' && s.rng.chance(0.6),
    );
    s.traffic(['b', 'c']);
    for (let i = 0; i < 5; i++) {
      await s.put(`d${i}`, 'x');
    }
    await s.mergeAwayOn(left, right, [1, 2]);
    late();
    await s.untilGone(left);
    expect(adminEntries(s, 3, right).some(({ type }) => type === 'commit-merge')).toBe(true);
    expect(await s.c.valueOn(3, 'd4')).toBe('x');
  });

  scenario('a learner without any entry of the last minute is completed as well', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    for (const region of [left, right]) {
      await s.addLearner(region, 4);
    }
    await s.put('b', '0');
    await s.c.settle();
    await s.c.advance(1_000);
    const heal = s.c.drop(
      (m) =>
        m.regionId === left.id && m.to.storeId === 4 && m.body.type === 'raft' && m.body.message.type === MsgType.App,
    );
    await s.put('b', 'x');
    await s.mergeAway(left, right);
    expect(await s.c.valueOn(4, 'b')).toBe('x');
    heal();
  });
});
