/**
 * Stores that were away while a merge happened (raftstore-scenarios.md, 1f) and the catalogue of what they find when
 * they come back (region-merge 7.5): every line of it is a script here.
 */
import { describe, expect } from 'vitest';
import { compareBytes, fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import { dataRange, userKeyOf } from '../../src/engine/keyspace.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import type { Peer, Region } from '../../src/meta/region.ts';
import type { RedirectDecision, RequestSpan } from '../../src/raftstore/store/redirects.ts';
import { MsgType } from '../../src/raft/types.ts';
import { EARLY_GC, scenario, type Scenario } from './support/scenario.ts';

/** Writes until the log that store 3 would need is compacted on every other member. */
async function outrun(s: Scenario, region: Region, away: number): Promise<void> {
  const lastSeen = s.status(away, region)?.lastIndex ?? 0;
  for (let round = 0; round < 40; round++) {
    const members = s.memberStores(region).filter((store) => store !== away && s.c.isUp(store));
    if (members.every((store) => (s.status(store, region)?.firstIndex ?? 0) > lastSeen + 1)) {
      return;
    }
    await s.put(`b${round}`, 'x');
    await s.put(`y${round}`, 'x');
    await s.c.advance(100);
  }
  throw new Error('the log was not compacted');
}

/** Keys on a store's disk that lie in none of its regions. */
function strayKeys(s: Scenario, store: number): string[] {
  const { start, end } = dataRange({ start: utf8(''), end: utf8('') });
  const found: string[] = [];
  for (const [key] of s.c.machine(store).disk.database('db')?.view.entriesFrom(start) ?? []) {
    if (compareBytes(key, end) >= 0) {
      break;
    }
    if (s.c.store(store).regionOfKey(userKeyOf(key)) === undefined) {
      found.push(fromUtf8(userKeyOf(key)));
    }
  }
  return found;
}

describe('merge: a store that was away', () => {
  for (const role of ['leads the target', 'leads the source', 'follows'] as const) {
    for (const gc of [false, true]) {
      scenario(
        `M-60 M-61 the store that ${role} goes away and heals by ${gc ? 'snapshot' : 'log'}`,
        { config: gc ? EARLY_GC : {}, seedsMax: 12 },
        async (s) => {
          const { left, right } = await s.twoRegions();
          await s.lead(left, role === 'leads the source' ? 3 : 1);
          await s.lead(right, role === 'leads the target' ? 3 : 2);
          await s.c.settle();
          s.traffic(['c', 'w']);
          // From here on the two logs decide: no replica was behind when the merge began.
          const release = await s.prepareHeld(left, right);
          const heal = s.c.isolate(3);
          await s.c.until('leaders among the others', () =>
            [left, right].every((r) => [1, 2].some((store) => s.status(store, r)?.role === 'leader')),
          );
          release();
          await s.untilGone(left, [1, 2]);
          if (gc) {
            await outrun(s, right, 3);
          } else {
            await s.put('b', 'x');
          }
          heal();
          await s.untilGone(left);
        },
      );
    }
  }

  scenario(
    'M-61 a store that takes the source along with a snapshot redirects clients of both, after a crash as well',
    { config: EARLY_GC, seedsMax: 6 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const heal = s.c.isolate(3);
      await s.mergeAwayOn(left, right, [1, 2]);
      await outrun(s, right, 3);
      s.c.failpoints.set('3!snapshot::before-install', { type: 'pause' });
      heal();
      await s.c.until('the snapshot is accepted', () => s.record(3, right)?.state === 'applying', 120_000);
      // The source is gone and what it was is known: both came with one batch.
      expect(s.record(3, left)?.state).toBe('tombstone');
      s.c.crash(3, s.rng.chance(0.5) ? 'kill' : 'power-loss');
      s.c.failpoints.clear();
      await s.c.restart(3);
      await s.c.until('the target on store 3', () => s.status(3, right)?.state === 'normal');
      await s.untilGone(left);
      const span = (key: string): RequestSpan => ({ type: 'keys', keys: [utf8(key)] });
      const decide = (of: Region, key: string): RedirectDecision =>
        s.c.store(3).redirect({ regionId: of.id, epoch: of.epoch }, span(key));
      for (const [of, key] of [
        [left, 'b'],
        [right, 'y'],
      ] as const) {
        await s.c.until(`the old region ${of.id} is found`, () => ['forward', 'local'].includes(decide(of, key).type));
        const decision = decide(of, key);
        expect(decision.type === 'forward' || decision.type === 'local' ? decision.region.id : decision.type).toBe(
          right.id,
        );
        // Not for keys that the old region never had.
        expect(decide(of, key === 'b' ? 'y' : 'b').type).toBe('none');
      }
    },
  );

  scenario(
    'M-61 R34 a source is not merged while one of its replicas installs a snapshot',
    { stores: 4, seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      await s.addLearner(right, 4);
      s.c.failpoints.set(`4!snapshot::before-install#${left.id}`, { type: 'pause' });
      await s.addLearner(left, 4);
      await s.c.until('the source installs', () => s.status(4, left)?.state === 'installing');
      for (let i = 0; i < 20; i++) {
        await s.c.advance(100);
        expect(['PeerUnknown', 'PeerNeedsSnapshot']).toContain(
          await s.attempt(left, { type: 'merge', target: s.now(right) }),
        );
      }
      s.c.failpoints.clear();
      await s.mergeAway(left, right);
    },
  );

  scenario(
    'M-61 R34 an isolated learner heals by snapshot',
    { stores: 4, config: EARLY_GC, seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      for (const region of [left, right]) {
        await s.addLearner(region, 4);
      }
      await s.put('b', '0');
      await s.c.settle();
      await s.c.advance(1_000);
      const heal = s.c.isolate(4);
      await s.mergeAwayOn(left, right, [1, 2, 3]);
      await outrun(s, right, 4);
      heal();
      await s.untilGone(left);
    },
  );

  scenario(
    '7.5 R37 the target was split again: its snapshot does not cover the source any more',
    { config: EARLY_GC, seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const heal = s.c.isolate(3);
      await s.mergeAwayOn(left, right, [1, 2]);
      await s.c.mustSplit('k');
      const again = s.c.regionOf('a') as Region;
      expect(again.id).not.toBe(left.id);
      await outrun(s, right, 3);
      await outrun(s, again, 3);
      heal();
      await s.untilGone(left);
    },
  );

  scenario(
    '7.5 R37 the target’s snapshot covers a part of the source, and nobody else claims the rest on this store',
    { stores: 4, config: EARLY_GC, seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      await s.put('b', 'x');
      await s.put('e', 'x');
      await s.lead(left, 1);
      await s.lead(right, 2);
      const release = await s.prepareHeld(left, right);
      await s.c.until('store 3 merges', () => s.record(3, left)?.state === 'merging');
      const heal = s.c.isolate(3);
      release();
      await s.untilGone(left, [1, 2]);
      await s.c.mustSplit('d');
      const again = s.c.regionOf('a') as Region;
      await s.addVoter(again, 4);
      await s.remove(again, 3);
      await outrun(s, right, 3);
      heal();
      await s.untilGone(left);
      await s.c.until('the target on store 3', () => s.status(3, right)?.state === 'normal');
      // What the source held before the new border lies in no region of this store any more.
      await s.c.until('the rest of the source is cleaned', () => strayKeys(s, 3).length === 0);
      expect(strayKeys(s, 4)).toEqual([]);
    },
  );

  scenario('7.5 the target’s replica was removed after the merge and never applied it', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.put('b', 'x');
    const heal = s.c.isolate(3);
    await s.mergeAwayOn(left, right, [1, 2]);
    await s.addVoter(right, 4);
    await s.remove(right, 3);
    heal();
    await s.untilGone(left);
    await s.untilGone(right, [3]);
  });

  scenario(
    '7.5 R35 the target’s replica was removed and added again under a larger id',
    { config: EARLY_GC, seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const heal = s.c.isolate(3);
      await s.mergeAwayOn(left, right, [1, 2]);
      await s.remove(right, 3);
      const again = await s.addLearner(right, 3);
      heal();
      await s.untilGone(left);
      await s.c.until(
        'the new replica',
        () => s.status(3, right)?.peerId === again.id && s.status(3, right)?.state === 'normal',
      );
    },
  );

  scenario('7.5 R42 a store never had the target physically', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.addVoter(left, 4);
    const noTarget = s.cut(right, 4);
    const four: Peer = { id: peerId(s.c.nextId()), storeId: storeId(4), role: 'voter' };
    await s.c.mustAdmin(right.id, () => ({ type: 'change-peer', changes: [{ type: 'add-voter', peer: four }] }));
    await s.put('b', '0');
    await s.caughtUp(left, [1, 2, 3, 4]);
    await s.c.advance(1_000);
    await s.mergeAwayOn(left, right, [1, 2, 3]);
    await s.put('c', 'x');
    noTarget();
    await s.untilGone(left);
    await s.c.until('the target on store 4', () => s.status(4, right)?.state === 'normal');
  });

  scenario('7.5 the source’s replica was removed before the merge', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const heal = s.c.isolate(3);
    for (const region of [left, right]) {
      await s.addVoter(region, 4);
      await s.remove(region, 3);
    }
    await s.mergeAwayOn(left, right, [1, 2, 4]);
    heal();
    await s.untilGone(left);
    await s.untilGone(right, [3]);
  });

  for (const gc of [false, true]) {
    scenario(
      `7.5 two merges in a row while a store was away, healed by ${gc ? 'snapshot' : 'log'}`,
      { config: gc ? EARLY_GC : {}, seedsMax: 12 },
      async (s) => {
        await s.twoRegions();
        await s.c.mustSplit('p');
        const [first, second, third] = ['a', 'l', 'z'].map((key) => s.c.regionOf(key) as Region) as [
          Region,
          Region,
          Region,
        ];
        for (const region of [first, second, third]) {
          await s.lead(region, 1);
        }
        await s.put('l', '3');
        await s.c.settle();
        // Store 3 has everything in its logs and does not apply the second merge. The first one it must have applied:
        // what it only knows to be committed it would forget in a crash, and the second region could not go away.
        s.c.failpoints.set(`3!apply::before-commit-merge#${third.id}`, { type: 'pause' });
        await s.mergeAway(first, second);
        await s.mergeAwayOn(s.now(second), third, [1, 2]);
        const heal = s.c.isolate(3);
        if (gc) {
          await outrun(s, third, 3);
        }
        const isRestarted = s.rng.chance(0.5);
        if (isRestarted) {
          s.c.crash(3);
        }
        heal();
        if (isRestarted) {
          await s.c.restart(3);
        }
        await s.c.advance(s.rng.pick([0, 3_000]));
        s.c.failpoints.clear();
        await s.untilGone(first);
        await s.untilGone(second);
      },
    );
  }

  for (const target of [false, true]) {
    scenario(
      `M-62 R35 a removed learner of the ${target ? 'target' : 'source'} comes back when everybody has moved`,
      { stores: 7, seedsMax: 8 },
      async (s) => {
        const { left, right } = await s.twoRegions();
        const [own, other] = target ? [right, left] : [left, right];
        await s.addLearner(own, 4);
        await s.c.settle();
        s.c.crash(4);
        await s.remove(own, 4);
        // Both regions move to other stores, one replica at a time.
        for (const [from, to] of [
          [2, 5],
          [3, 6],
          [1, 7],
        ] as const) {
          for (const region of [own, other]) {
            await s.addVoter(region, to);
            await s.lead(region, to);
            await s.remove(region, from);
          }
        }
        await s.mergeAway(left, right);
        if (target) {
          await s.c.mustSplit('m');
        }
        const added = await s.addLearner(right, 4);
        await s.c.restart(4);
        await s.untilGone(left);
        await s.c.until('the new learner has its data', () => {
          const status = s.status(4, right);
          return status?.peerId === added.id && status.state === 'normal' && status.appliedIndex > 5;
        });
      },
    );
  }

  for (const way of ['its creator', 'the placement service', 'a restart'] as const) {
    scenario(
      `M-63 R35 a replica without data is left over and finds out through ${way}`,
      { stores: 4, seedsMax: 12 },
      async (s) => {
        const { left, right } = await s.twoRegions();
        const noSnapshots = s.c.drop((m) => m.body.type === 'raft' && m.body.message.type === MsgType.Snap);
        await s.addLearner(left, 4);
        await s.c.until('a replica without data', () => s.status(4, left)?.state === 'uninitialized');
        const heal = s.c.isolate(4);
        await s.remove(left, 4);
        await s.mergeAwayOn(left, right, [1, 2, 3]);
        if (way === 'a restart') {
          s.c.crash(4);
          await s.c.restart(4);
        }
        noSnapshots();
        heal();
        // Asking the others is forbidden in one way: only the placement service is left.
        const silence =
          way === 'the placement service'
            ? s.c.drop((m) => m.from.storeId === 4 && m.body.type === 'check-stale-peer')
            : () => {};
        await s.untilGone(left);
        silence();
      },
    );
  }

  scenario(
    'M-63 R35 a source waits for a replica of its target that never had data and was removed',
    { stores: 4 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      await s.addLearner(left, 4);
      await s.c.settle();
      // The leader hears that everything is applied there.
      await s.c.advance(1_000);
      const noSnapshots = s.c.drop(
        (m) =>
          m.regionId === right.id &&
          m.to.storeId === 4 &&
          m.body.type === 'raft' &&
          m.body.message.type === MsgType.Snap,
      );
      await s.addLearner(right, 4);
      await s.c.until('a replica without data', () => s.status(4, right)?.state === 'uninitialized');
      const heal = s.c.isolate(4);
      await s.mergeAwayOn(left, right, [1, 2, 3]);
      await s.remove(right, 4);
      // Nothing on the disk of store 4 tells of the target's replica.
      s.c.crash(4);
      await s.c.restart(4);
      noSnapshots();
      heal();
      await s.untilGone(left);
    },
  );

  scenario('M-64 R33 old mail of a replaced replica arrives after the merge', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const votes: PeerMessage[] = s.capture(
      (m) => m.regionId === left.id && m.from.storeId === 3 && m.body.type === 'raft',
    );
    // Store 3 campaigns with its old replica id.
    const away = s.cut(left, 3);
    await s.c.advance(4_000);
    expect(votes.length).toBeGreaterThan(0);
    await s.remove(left, 3);
    away();
    await s.untilGone(left, [3]);
    await s.addVoter(left, 3);
    await s.mergeAway(left, right);
    const replies = s.capture((m) => m.regionId === left.id && m.to.storeId === 3);
    for (const vote of votes.slice(0, 30)) {
      s.deliver(vote);
      await s.c.advance(5);
    }
    await s.c.advance(500);
    expect(replies.every((m) => m.body.type === 'gc')).toBe(true);
    expect(s.stores().some((store) => s.holds(store, left))).toBe(false);
  });

  scenario('R33 mail that would create a replica arrives for one that was told to go', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const calls = s.capture(
      (m) =>
        m.regionId === left.id &&
        m.to.storeId === 3 &&
        m.body.type === 'raft' &&
        (m.body.message.type === MsgType.Vote || m.body.message.type === MsgType.PreVote),
    );
    // Elections that store 3 is asked to take part in.
    for (const store of [2, 1, 2, 1]) {
      await s.lead(left, store);
    }
    await s.caughtUp(left, [1, 2, 3]);
    expect(calls.length).toBeGreaterThan(0);
    const away = s.cut(left, 3);
    await s.remove(left, 3);
    away();
    await s.untilGone(left, [3]);
    expect(s.record(3, left)?.state).toBe('tombstone');
    for (const call of [...calls]) {
      s.deliver(call);
      await s.c.advance(5);
      expect(s.holds(3, left)).toBe(false);
    }
    await s.addVoter(left, 3);
    await s.mergeAway(left, right);
  });

  scenario(
    'R31 a replica that missed a rollback is removed and leaves no trace of the merge',
    { stores: 4 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const release = await s.prepareHeld(left, right);
      await s.untilState(left, 'merging');
      const heal = s.cut(left, 3);
      await s.addLearner(right, 4);
      await s.remove(right, 4);
      release();
      await s.untilState(left, 'normal', [1, 2]);
      await s.remove(left, 3);
      heal();
      await s.untilGone(left, [3]);
      expect(s.record(3, left)).toMatchObject({ state: 'tombstone', mergeState: undefined });
      await s.addVoter(left, 3);
      await s.put('b', 'with a new replica');
    },
  );

  scenario('R32 the target’s new replica comes and goes without data', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const release = await s.prepareHeld(left, right);
    await s.untilState(left, 'merging');
    const noSnapshots = s.c.drop(
      (m) => m.regionId === right.id && m.body.type === 'raft' && m.body.message.type === MsgType.Snap,
    );
    await s.remove(right, 3);
    await s.untilGone(right, [3]);
    await s.addLearner(right, 3);
    await s.c.until('a replica without data', () => s.status(3, right)?.state === 'uninitialized');
    await s.remove(right, 3);
    await s.untilGone(right, [3]);
    noSnapshots();
    release();
    await s.untilState(left, 'normal');
    await s.put('b', 'after');
  });

  scenario(
    'R36 gc arrives together with the word that CommitMerge is committed',
    { isExact: true, stores: 4 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const release = await s.prepareHeld(left, right);
      await s.untilState(left, 'merging');
      const before = s.status(3, right)?.lastIndex ?? 0;
      // Store 3 gets CommitMerge, answers, and does not hear that it is committed.
      const news: PeerMessage[] = [];
      const heal = s.c.drop((m) => {
        if (m.to.storeId !== 3 || m.regionId !== right.id || m.body.type !== 'raft') {
          return false;
        }
        const { message } = m.body;
        if (message.type === MsgType.App && message.index === before && (message.entries?.length ?? 0) > 0) {
          return message.commit > before;
        }
        news.push(m);
        return true;
      });
      release();
      await s.untilGone(left, [1, 2]);
      await s.c.until('CommitMerge in the log of store 3', () => (s.status(3, right)?.lastIndex ?? 0) > before);
      const commit = s.status(3, right)?.lastIndex ?? 0;
      expect(s.record(3, left)?.state).toBe('merging');
      const told = (m: PeerMessage): boolean =>
        m.body.type === 'raft' && m.body.message.type === MsgType.Heartbeat && m.body.message.commit >= commit;
      await s.c.until('a heartbeat with the commit index', () => news.some(told));
      const heartbeat = news.findLast(told) as PeerMessage;
      await s.remove(right, 3);
      const gone = s.now(right);
      expect(s.status(3, right)?.commitIndex).toBeLessThan(commit);
      s.deliverTogether([
        heartbeat,
        { ...heartbeat, epoch: gone.epoch, range: undefined, body: { type: 'gc', mergeTarget: undefined } },
      ]);
      await s.untilGone(right, [3]);
      await s.untilGone(left, [3]);
      // The target took the source along before it went: the source is no witness against the merge.
      expect(s.record(3, left)?.mergeState?.target.id).toBe(right.id);
      heal();
    },
  );

  scenario('R36 gc and the last entries arrive together', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const waiting: PeerMessage[] = [];
    const heal = s.c.drop((m) => {
      if (m.to.storeId === 3 && (m.regionId === left.id || m.regionId === right.id)) {
        waiting.push(m);
        return true;
      }
      return false;
    });
    await s.mergeAwayOn(left, right, [1, 2]);
    await s.addVoter(right, 4);
    await s.remove(right, 3);
    heal();
    // Everything that was on its way, in one go and in any order.
    const mixed = waiting.slice(-60);
    while (mixed.length > 0) {
      s.deliver(mixed.splice(s.rng.below(mixed.length), 1)[0] as PeerMessage);
    }
    await s.untilGone(left);
    await s.untilGone(right, [3]);
  });

  scenario(
    'R30 the source is on its way out when the snapshot that covers it arrives',
    { config: EARLY_GC, seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const heal = s.c.isolate(3);
      await s.mergeAwayOn(left, right, [1, 2]);
      await s.remove(right, 3);
      const slow = s.actors.hold(
        ({ store, region, msg }) =>
          store === 3 && region === left.id && (msg.type === 'destroy' || msg.type === 'apply-destroyed'),
      );
      heal();
      await s.untilGone(right, [3]);
      await s.c.until('the source is told to go', () => slow.caught > 0);
      // A new replica of the target wants the whole range while the source is still on its way out.
      const again = await s.addLearner(right, 3);
      await s.c.advance(s.rng.pick([200, 2_000]));
      expect(s.record(3, right)?.state).toBe('tombstone');
      slow.release();
      await s.untilGone(left);
      await s.c.until(
        'the new replica',
        () => s.status(3, right)?.peerId === again.id && s.status(3, right)?.state === 'normal',
      );
    },
  );

  for (const what of ['CommitMerge in the queue of apply', 'an older snapshot in installation'] as const) {
    scenario(
      `R27 R28 a snapshot from after the merge meets ${what}`,
      { config: { ...EARLY_GC, mergeMaxLogGap: 4 }, seedsMax: 12 },
      async (s) => {
        const { left, right } = await s.twoRegions();
        if (what === 'CommitMerge in the queue of apply') {
          s.c.failpoints.set('3!apply::before-commit-merge', { type: 'pause' });
          await s.mergeAwayOn(left, right, [1, 2]);
          const heal = s.c.isolate(3);
          await outrun(s, right, 3);
          heal();
        } else {
          const heal = s.cut(right, 3);
          for (let i = 0; i < 20; i++) {
            await s.put(`x${i}`, 'x');
          }
          await outrun(s, right, 3);
          s.c.failpoints.set('3!snapshot::before-install', { type: 'pause' });
          heal();
          await s.c.until('an installation', () => s.status(3, right)?.state === 'installing');
          await s.mergeAwayOn(left, right, [1, 2]);
        }
        await s.c.advance(2_000);
        s.c.failpoints.clear();
        await s.untilGone(left);
      },
    );
  }

  scenario(
    'R25 snapshots of two neighbours that overlap arrive together',
    { stores: 4, config: EARLY_GC, seedsMax: 12 },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const noSnapshots = s.c.drop(
        (m) => m.to.storeId === 4 && m.body.type === 'raft' && m.body.message.type === MsgType.Snap,
      );
      for (const region of [left, right]) {
        await s.addLearner(region, 4);
      }
      s.c.failpoints.set('4!snapshot::before-install', { type: 'pause' });
      noSnapshots();
      await s.c.advance(s.rng.float() * 500);
      // Merged and split again around another border while the first snapshots are under way.
      const merging = s.askAdmin(s.c.leaderStore(left.id) ?? 1, s.now(left), { type: 'merge', target: s.now(right) });
      await s.c.advance(s.rng.float() * 1_000);
      s.c.failpoints.clear();
      await s.answer(merging);
      await s.c.settle(120_000);
    },
  );
});
