/**
 * What happens around a merge to requests, reads and the FSMs themselves (raftstore-scenarios.md, 1g), and merges that
 * cross each other, splits, leader transfers, membership and compaction (region-merge 8).
 */
import { describe, expect } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import type { Peer, Region } from '../../src/meta/region.ts';
import { adminEntries, EARLY_GC, scenario, startOf, type Scenario } from './support/scenario.ts';

/** Answers that tell a client for certain that nothing happened, or that something did. */
const DEFINITE = new Set([
  'ok',
  'epoch-not-match',
  'proposal-in-merging-mode',
  'region-not-found',
  'read-index-not-ready',
  'not-leader',
  'stale-command',
  'message',
]);

describe('merge: requests and FSMs', () => {
  for (const stage of ['merge-result', 'apply-destroyed', 'destroyed-on-disk', 'logs-up-to-date'] as const) {
    scenario(`M-70 R54 requests reach a source that is dying (${stage} late): each is answered once`, {}, async (s) => {
      const { left, right } = await s.twoRegions();
      const held = s.actors.hold(({ store, region, msg }) => store === 1 && region === left.id && msg.type === stage);
      const source = s.now(left);
      const tickets = [];
      await s.c.prepareMerge(left.id, right.id);
      for (let i = 0; i < 20; i++) {
        const newest = s.c.region(left.id) ?? source;
        for (const region of [source, newest]) {
          tickets.push(
            s.askWrite(1, region, 'b', 'must not appear'),
            s.askRead(1, region, 'a'),
            s.askRead(1, region, 'a', true),
            s.askAdmin(1, region, { type: 'split', keys: [utf8('c')] }),
            s.askAdmin(1, region, { type: 'compact-log', index: 6 }),
            s.askAdmin(1, region, { type: 'merge', target: right }),
          );
        }
        await s.c.advance(10);
      }
      held.release();
      await s.untilGone(left);
      for (const ticket of tickets) {
        expect(DEFINITE).toContain(await s.answer(ticket));
      }
      s.expectRow('b', undefined);
    });
  }

  scenario(
    'M-70 R54 a write that comes in the round in which a new leader applies an inherited PrepareMerge has no effect',
    {},
    async (s) => {
      const { left, right } = await s.twoRegions();
      const source = s.now(left);
      // It is applied on every disk, and no replica has heard of that.
      const held = s.actors.hold(
        ({ region, msg }) =>
          region === left.id &&
          msg.type === 'applied' &&
          msg.result.results.some((result) => result.type === 'prepare-merge'),
      );
      s.askAdmin(1, source, { type: 'merge', target: s.now(right) });
      await s.c.until('PrepareMerge is applied on all stores', () => held.caught === 3);
      await s.lead(left, 2);
      const tickets = ['b', 'c'].map((key) => s.askWrite(2, source, key, 'must not appear'));
      held.release();
      for (const ticket of tickets) {
        expect(['epoch-not-match', 'proposal-in-merging-mode']).toContain(await s.answer(ticket));
      }
      await s.mergeAway(left, right);
      s.expectRow('b', undefined);
      s.expectRow('c', undefined);
    },
  );

  scenario('M-71 R21 a source that lingers after CommitMerge serves nobody', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    // One that knows the route: a read is served from it before, and never once the target owns the range.
    expect(await s.answer(s.askRead(1, left, 'a'))).toBe('ok');
    const held = s.actors.hold(({ region, msg }) => region === left.id && msg.type === 'merge-result');
    await s.c.prepareMerge(left.id, right.id);
    await s.c.until('CommitMerge on all stores', () =>
      [1, 2, 3].every((store) => s.status(store, right)?.region.range.start.length === 0),
    );
    await s.put('a', 'through the target');
    for (const store of [1, 2, 3]) {
      expect(s.holds(store, left)).toBe(true);
      for (const region of [
        left,
        { ...left, epoch: { version: left.epoch.version + 1, confVer: left.epoch.confVer + 1 } },
      ]) {
        for (const replica of [false, true]) {
          expect(await s.answer(s.askRead(store, region, 'a', replica))).not.toBe('ok');
        }
        expect(await s.answer(s.askWrite(store, region, 'a', 'through the source'))).not.toBe('ok');
      }
    }
    held.release();
    await s.untilGone(left);
    expect(await s.answer(s.askRead(1, left, 'a'))).toBe('epoch-not-match');
  });

  scenario(
    'M-72 R14 proposals around PrepareMerge, CommitMerge and RollbackMerge',
    { stores: 4, isExact: true },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const old = s.now(left);
      s.c.failpoints.set('apply::before-prepare-merge', { type: 'pause' });
      const before = s.askWrite(1, old, 'b', 'before');
      const release = () => s.c.failpoints.delete(`merge::before-commit#${left.id}`);
      s.c.failpoints.set(`merge::before-commit#${left.id}`, { type: 'pause' });
      const prepare = s.askAdmin(1, old, { type: 'merge', target: s.now(right) });
      await s.c.until('PrepareMerge is in the log', () =>
        adminEntries(s, 1, left).some(({ type }) => type === 'prepare-merge'),
      );
      const behind = s.askWrite(1, old, 'b', 'behind');
      const peer: Peer = { id: peerId(s.c.nextId()), storeId: storeId(4), role: 'learner' };
      const change = s.askAdmin(1, old, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] });
      expect(await s.answer(before)).toBe('ok');
      expect(await s.answer(change)).toBe('message');
      expect(behind.answers).toEqual([]);
      s.c.failpoints.delete('apply::before-prepare-merge');
      expect(await s.answer(prepare)).toBe('ok');
      expect(await s.answer(behind)).toBe('epoch-not-match');
      await s.untilState(left, 'merging');
      expect(await s.answer(s.askWrite(1, s.now(left), 'b', 'merging'))).toBe('proposal-in-merging-mode');
      expect(await s.answer(s.askRead(1, s.now(left), 'b'))).toBe('read-index-not-ready');
      // RollbackMerge in flight: still merging, then open again with a new epoch.
      s.c.failpoints.set('apply::before-rollback-merge', { type: 'pause' });
      const merging = s.now(left);
      await s.addLearner(right, 4);
      await s.remove(right, 4);
      release();
      await s.c.until('RollbackMerge is in the log', () =>
        adminEntries(s, 1, left).some(({ type }) => type === 'rollback-merge'),
      );
      expect(await s.answer(s.askWrite(1, merging, 'b', 'rolling back'))).toBe('proposal-in-merging-mode');
      s.c.failpoints.delete('apply::before-rollback-merge');
      await s.untilState(left, 'normal');
      await s.c.settle();
      expect(await s.answer(s.askWrite(1, merging, 'b', 'old epoch'))).toBe('epoch-not-match');
      // CommitMerge in flight: a write of the target waits, and its epoch has changed then.
      s.c.failpoints.set('apply::before-commit-merge', { type: 'pause' });
      const target = s.now(right);
      await s.lead(left, 1);
      await s.c.prepareMerge(left.id, right.id);
      await s.c.until('CommitMerge is in the log', () =>
        adminEntries(s, 1, right).some(({ type }) => type === 'commit-merge'),
      );
      const waiting = s.askWrite(1, target, 'y', 'waits');
      await s.c.advance(300);
      expect(waiting.answers).toEqual([]);
      s.c.failpoints.clear();
      expect(await s.answer(waiting)).toBe('epoch-not-match');
      await s.untilGone(left);
      s.expectRow('b', 'before');
      s.expectRow('y', undefined);
    },
  );

  scenario('M-73 a write batched before the merge is visible through the target', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    const writes = Array.from({ length: 8 }, (_, i) => s.askWrite(1, s.now(left), `b${i}`, 'x'));
    const prepare = s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
    expect(await s.answer(prepare)).toBe('ok');
    for (const [i, write] of writes.entries()) {
      expect(await s.answer(write)).toBe('ok');
      s.expectRow(`b${i}`, 'x');
    }
    await s.untilGone(left);
  });

  for (const moment of ['before PrepareMerge', 'between prepare and rollback', 'after CommitMerge'] as const) {
    scenario(`M-75 replicas compare their data ${moment}`, { stores: 4 }, async (s) => {
      const { left, right } = await s.twoRegions();
      s.traffic(['b', 'y']);
      const hashed = (region: Region): number => s.actors.posted(1, region.id, 'hash-computed');
      const check = (region: Region): void => {
        s.askAdmin(s.c.leaderStore(region.id) ?? 1, s.now(region), { type: 'compute-hash' });
      };
      if (moment === 'before PrepareMerge') {
        check(left);
        s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
        await s.c.advance(500);
        await s.mergeAway(left, right);
        expect(s.actors.posted(1, left.id, 'hash-computed')).toBeGreaterThan(0);
        return;
      }
      if (moment === 'between prepare and rollback') {
        const release = await s.prepareHeld(left, right);
        await s.untilState(left, 'merging');
        check(left);
        await s.addLearner(right, 4);
        release();
        await s.untilState(left, 'normal');
        check(left);
        await s.c.until('hashes', () => hashed(left) > 0);
        return;
      }
      await s.mergeAway(left, right);
      check(right);
      await s.c.until('hashes', () => hashed(right) > 0);
      // A replica whose data differs would have stopped its store, which the end of every scenario notices.
      await s.c.advance(1_000);
    });
  }

  scenario(
    'R22 R23 nobody reads old data of the source while another store writes through the target',
    { seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      await s.lead(right, 2);
      await s.c.settle();
      const traffic = s.traffic(['b', 'c']);
      await s.c.until('traffic', () => traffic.writes > 5 && traffic.reads > 5);
      // The source's leader learns the results of apply late; everybody else is quick.
      const slow = s.actors.hold(
        ({ store, region, msg }) =>
          store === 1 &&
          (region === left.id || region === right.id) &&
          (msg.type === 'applied' || msg.type === 'apply'),
      );
      s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
      await s.c.until('the merge on the other stores', () => [2, 3].every((store) => !s.holds(store, left)), 120_000);
      const written = traffic.writes;
      await s.c.until('writes through the target', () => traffic.writes > written + 10);
      slow.release();
      await s.untilGone(left);
      expect(traffic.replicaReads).toBeGreaterThan(0);
    },
  );

  scenario('R-13 lease and read index are back after a rollback', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const release = await s.prepareHeld(left, right);
    await s.untilState(left, 'merging');
    expect(await s.answer(s.askRead(1, s.now(left), 'a'))).not.toBe('ok');
    await s.addLearner(right, 4);
    release();
    await s.untilState(left, 'normal');
    await s.c.settle();
    const leader = await s.c.mustLeader(left.id);
    expect(await s.answer(s.askRead(leader, s.now(left), 'a'))).toBe('ok');
    expect(await s.answer(s.askRead(leader, s.now(left), 'a', true))).toBe('ok');
  });

  scenario('R20 a source replica campaigns while its target takes it in', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.lead(right, 2);
    s.traffic(['b']);
    const held = s.actors.hold(
      ({ store, region, msg }) => store === 3 && region === left.id && msg.type === 'merge-result',
    );
    await s.c.prepareMerge(left.id, right.id);
    // The source's leader falls silent in the middle.
    s.c.crash(1);
    await s.c.advance(4_000);
    held.release();
    await s.c.restart(1);
    await s.untilGone(left);
  });
});

const threeRegions = async (s: Scenario): Promise<[Region, Region, Region]> => {
  await s.twoRegions();
  await s.c.mustSplit('p');
  await s.put('l', '3');
  const regions = ['a', 'l', 'z'].map((key) => s.c.regionOf(key) as Region) as [Region, Region, Region];
  for (const region of regions) {
    await s.lead(region, 1);
  }
  await s.c.settle();
  return regions.map((r) => s.now(r)) as [Region, Region, Region];
};

/** Every region ends merged or normal; nothing hangs. */
const decided = (s: Scenario, regions: readonly Region[]): Promise<void> =>
  s.c.until(
    'every merge is decided',
    () =>
      regions.every((region) =>
        s.stores().every((store) => ['normal', 'tombstone', undefined].includes(s.record(store, region)?.state)),
      ),
    120_000,
  );

describe('merge: crossing other operations', () => {
  scenario('R16 A into B while B into C is asked', {}, async (s) => {
    const [a, b, c] = await threeRegions(s);
    s.traffic(['d', 'm', 'y']);
    const asks: (() => unknown)[] = [
      () => s.askAdmin(1, s.now(a), { type: 'merge', target: s.now(b) }),
      () => s.askAdmin(1, s.now(b), { type: 'merge', target: s.now(c) }),
    ];
    if (s.rng.chance(0.5)) {
      asks.reverse();
    }
    for (const ask of asks) {
      ask();
      await s.c.advance(s.rng.float() * s.rng.pick([0.5, 5, 60, 200]));
    }
    await decided(s, [a, b, c]);
  });

  scenario('A into B is held, B disappears into C: A is normal again', {}, async (s) => {
    const [a, b, c] = await threeRegions(s);
    const before = s.epoch(a);
    const release = await s.prepareHeld(a, b);
    await s.untilState(a, 'merging');
    await s.mergeAway(b, c);
    release();
    await s.untilState(a, 'normal');
    expect(s.epoch(a)).toEqual({ version: before.version + 2, confVer: before.confVer + 1 });
    await s.mergeAway(a, c);
  });

  scenario('B goes into C only when A is in B on every disk', {}, async (s) => {
    const [a, b, c] = await threeRegions(s);
    // Store 3 knows that A's merge is committed. If it died now it would not know any more, and nobody could tell it
    // once B is gone: A would stand in the way of C's snapshot for ever.
    s.c.failpoints.set(`3!apply::before-commit-merge#${b.id}`, { type: 'pause' });
    await s.mergeAwayOn(a, b, [1, 2]);
    await s.c.until('store 3 knows', () => {
      const status = s.status(3, b);
      return status !== undefined && status.commitIndex === status.lastIndex && status.appliedIndex < status.lastIndex;
    });
    for (let i = 0; i < 20; i++) {
      await s.c.advance(100);
      expect(await s.attempt(b, { type: 'merge', target: s.now(c) })).toBe('AdminInLogGap');
    }
    s.c.crash(3, 'lose-unsynced');
    s.c.failpoints.clear();
    await s.restart(3);
    await s.untilGone(a);
    await s.mergeAway(b, c);
  });

  scenario('three regions in a circle of merges', {}, async (s) => {
    const [a, b, c] = await threeRegions(s);
    s.traffic(['d', 'm', 'y']);
    for (const [source, target] of [
      [a, b],
      [b, a],
      [b, c],
      [c, b],
    ] as const) {
      s.askAdmin(1, s.now(source), { type: 'merge', target: s.now(target) });
      await s.c.advance(s.rng.float() * 3);
    }
    await decided(s, [a, b, c]);
  });

  scenario('merge, split, merge at speed with restarts', { seedsMax: 8 }, async (s) => {
    await s.twoRegions();
    s.traffic(['b', 'm', 'y']);
    for (let round = 0; round < 8; round++) {
      const [source, target] = s.rng.chance(0.5) ? ['a', 'z'] : ['z', 'a'];
      const regions = [s.c.regionOf(source), s.c.regionOf(target)];
      if (regions[0] !== undefined && regions[1] !== undefined && regions[0].id !== regions[1].id) {
        const leader = s.c.leaderStore(regions[0].id);
        if (leader !== undefined) {
          s.askAdmin(leader, regions[0], { type: 'merge', target: regions[1] });
        }
      } else if (regions[0] !== undefined) {
        const leader = s.c.leaderStore(regions[0].id);
        if (leader !== undefined) {
          s.askAdmin(leader, regions[0], { type: 'split', keys: [utf8(s.rng.pick(['g', 'k', 'p']))] });
        }
      }
      await s.c.advance(s.rng.float() * s.rng.pick([5, 100, 600]));
      if (s.rng.chance(0.4)) {
        await s.restart(1 + s.rng.below(3));
      }
    }
  });

  scenario('the target is being split when the source asks to merge into it', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    s.traffic(['b', 'y']);
    s.c.failpoints.set(`${1 + s.rng.below(3)}!apply::before-split`, { type: 'pause' });
    const target = s.now(right);
    s.askAdmin(1, target, { type: 'split', keys: [utf8('p')] });
    await s.c.advance(s.rng.float() * 10);
    s.askAdmin(1, s.now(left), { type: 'merge', target });
    await s.c.advance(500);
    s.c.failpoints.clear();
    await decided(s, [left, right]);
    await s.c.until('the split', () => startOf(s.c.regionOf('z') ?? target) === 'p', 60_000);
  });

  scenario('the leader of the target moves all the time', { seedsMax: 12 }, async (s) => {
    const { left, right } = await s.twoRegions();
    s.traffic(['b', 'y']);
    await s.c.prepareMerge(left.id, right.id);
    for (let i = 0; i < 20 && s.stores().some((store) => s.holds(store, left)); i++) {
      const leader = s.c.leaderStore(right.id);
      const to = s.now(right).peers[s.rng.below(3)];
      if (leader !== undefined && to !== undefined) {
        s.askAdmin(leader, s.now(right), { type: 'transfer-leader', peer: to });
      }
      await s.c.advance(s.rng.float() * 30);
    }
    await s.untilGone(left);
    expect(s.merges.rollbacks).toBe(0);
  });

  scenario('logs are compacted all the time', { config: EARLY_GC, seedsMax: 12 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const traffic = s.traffic(['b', 'c', 'x', 'y']);
    await s.c.until('many entries', () => traffic.writes > 60);
    await s.mergeAway(left, right);
  });

  scenario('the target of a merge enters and leaves a joint membership', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    s.traffic(['b', 'y']);
    const learner = await s.addLearner(right, 4);
    await s.c.until('data', () => (s.status(4, right)?.appliedIndex ?? 0) > 5);
    const three = s.now(right).peers.find((p) => p.storeId === 3) as Peer;
    const joint = s.askAdmin(1, s.now(right), {
      type: 'change-peer',
      changes: [
        { type: 'add-voter', peer: { ...learner, role: 'voter' } },
        { type: 'add-learner', peer: { ...three, role: 'learner' } },
      ],
    });
    s.askAdmin(1, s.now(left), { type: 'merge', target: s.now(right) });
    await s.answer(joint);
    await s.c.mustAdmin(right.id, () => ({ type: 'change-peer', changes: [] }));
    await decided(s, [left]);
    expect(s.merges.commits).toBe(0);
  });
});
