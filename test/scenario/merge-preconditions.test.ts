/**
 * What must keep PrepareMerge from being proposed (raftstore-scenarios.md, 1b). Every refusal leaves the region fully
 * usable, and once its cause is gone the merge succeeds.
 */
import { describe, expect } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import { findPeerOnStore, type Peer, type Region } from '../../src/meta/region.ts';
import { MsgType } from '../../src/raft/types.ts';
import { EARLY_GC, scenario, type Scenario } from './support/scenario.ts';

/** Asks until the leader has an opinion about the merge itself: it may have to apply something first. */
async function merge(s: Scenario, source: Region, target: Region): Promise<string> {
  let outcome = '';
  for (let i = 0; i < 100; i++) {
    outcome = await s.attempt(source, { type: 'merge', target: s.now(target) });
    if (!['epoch-not-match', 'message', 'not-leader', 'no-leader'].includes(outcome)) {
      break;
    }
    await s.c.advance(50);
  }
  return outcome;
}

/** The region still takes writes after a refusal. */
const stillUsable = async (s: Scenario): Promise<void> => {
  await s.put('b', 'still writable');
  expect(await s.c.mustGet('b')).toBe('still writable');
};

const mergesNow = async (s: Scenario, source: Region, target: Region): Promise<void> => {
  await s.c.settle();
  await s.c.mustMerge(source.id, target.id);
  await s.untilGone(source);
};

describe('merge: what must be refused, and works once the cause is gone', () => {
  scenario('M-10 a follower lags beyond the limit', { config: { mergeMaxLogGap: 5 } }, async (s) => {
    const { left, right } = await s.twoRegions();
    const heal = s.c.isolate(3);
    for (let i = 0; i < 10; i++) {
      await s.put(`b${i}`, 'x');
    }
    expect(await merge(s, left, right)).toBe('LogGapTooLarge');
    await stillUsable(s);
    heal();
    await mergesNow(s, left, right);
  });

  scenario('M-11 a follower holds a split without knowing that it is committed', { isExact: true }, async (s) => {
    const { left, right } = await s.twoRegions();
    const heal = s.starve(left, 3, { App: 1 });
    await s.c.mustSplit('c');
    await s.c.until('the split on two stores', () =>
      [1, 2].every((store) => s.status(store, left)?.region.epoch.version !== left.epoch.version),
    );
    expect(await merge(s, left, right)).toBe('AdminInLogGap');
    await s.put('d', 'still writable');
    heal();
    await mergesNow(s, left, right);
  });

  const gaps: Readonly<Record<string, (s: Scenario, left: Region) => Promise<unknown>>> = {
    'a compaction': async (s, left) => {
      const { appliedIndex } = s.status(1, left) as { appliedIndex: number };
      expect(await s.attempt(left, { type: 'compact-log', index: appliedIndex - 1 })).toBe('ok');
      await s.c.until('the compaction', () => (s.status(1, left)?.firstIndex ?? 0) >= appliedIndex - 1);
    },
    'a membership change': async (s, left) => {
      const peer = await s.addLearner(left, 4);
      await s.remove(left, 4);
      await s.untilGone({ ...left, peers: [peer] }, [4]);
    },
    'an earlier merge': async (s, left) => {
      const first = s.c.regionOf('a') as Region;
      expect(first.id).not.toBe(left.id);
      await s.c.mustMerge(first.id, left.id);
      await s.untilState(first, 'tombstone', [1, 2]);
    },
  };
  for (const [what, happens] of Object.entries(gaps)) {
    scenario(`M-12 a follower lacks ${what}`, { stores: 4 }, async (s) => {
      await s.twoRegions();
      await s.c.mustSplit('c');
      const [left, right] = [s.c.regionOf('d') as Region, s.c.regionOf('z') as Region];
      const first = s.c.regionOf('a') as Region;
      for (const region of [first, left, right]) {
        await s.lead(region, 1);
      }
      await s.c.settle();
      const heal = s.cut(left, 3);
      const source = what === 'an earlier merge' ? left : s.now(left);
      await happens(s, source);
      expect(['AdminInLogGap', 'PeerBehindSnapshot']).toContain(await merge(s, left, right));
      await s.put('d', 'still writable');
      heal();
      await mergesNow(s, left, right);
    });
  }

  scenario(
    'M-14 a learner is the one that lags',
    {
      stores: 2,
      firstPeers: [
        [1, 'voter'],
        [2, 'learner'],
      ],
      config: { mergeMaxLogGap: 5 },
    },
    async (s) => {
      const { left, right } = await s.twoRegions(undefined);
      const heal = s.c.isolate(2);
      for (let i = 0; i < 10; i++) {
        await s.put(`b${i}`, 'x');
      }
      expect(await merge(s, left, right)).toBe('LogGapTooLarge');
      heal();
      await mergesNow(s, left, right);
    },
  );

  scenario('M-15 the request knows an older target, or comes again after a rollback and a split', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    const old = s.now(right);
    await s.c.mustSplit('p');
    await s.lead(right, 1);
    const near = s.c.regionOf('l') as Region;
    await s.lead(near, 1);
    expect(await s.attempt(left, { type: 'merge', target: old })).not.toBe('ok');
    await stillUsable(s);
    // The operator that led to a rolled-back merge is repeated after the target has changed once more.
    const operator = s.now(near);
    const release = await s.prepareHeld(left, near);
    await s.c.mustSplit('m');
    release();
    await s.untilState(left, 'normal');
    await s.c.mustLeader(left.id);
    expect(await s.attempt(left, { type: 'merge', target: operator })).not.toBe('ok');
    await stillUsable(s);
    await mergesNow(s, left, s.c.regionOf('l') as Region);
  });

  scenario('M-16 other stores, other roles, or between two memberships', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    const learner = await s.addLearner(left, 4);
    expect(await merge(s, left, right)).toBe('PeersNotAligned');
    await s.c.settle();
    const voter = findPeerOnStore(s.now(right), storeId(3)) as Peer;
    // The same stores with other roles: the target has a voter on 4 and a learner on 3.
    const four: Peer = { id: peerId(s.c.nextId()), storeId: storeId(4), role: 'learner' };
    await s.c.mustAdmin(right.id, () => ({ type: 'change-peer', changes: [{ type: 'add-learner', peer: four }] }));
    await s.c.settle();
    await s.c.mustAdmin(right.id, () => ({
      type: 'change-peer',
      changes: [
        { type: 'add-voter', peer: { ...four, role: 'voter' } },
        { type: 'add-learner', peer: { ...voter, role: 'learner' } },
      ],
    }));
    await s.caughtUp(right, [1, 2, 3, 4]);
    expect(await merge(s, left, right)).toBe('JointState');
    expect(await merge(s, right, left)).toBe('JointState');
    await s.c.mustAdmin(right.id, () => ({ type: 'change-peer', changes: [] }));
    await s.caughtUp(right, [1, 2, 3, 4]);
    expect(await merge(s, left, right)).toBe('PeersNotAligned');
    await stillUsable(s);
    await s.c.mustAdmin(left.id, () => ({
      type: 'change-peer',
      changes: [
        { type: 'add-voter', peer: { ...learner, role: 'voter' } },
        { type: 'add-learner', peer: { ...(findPeerOnStore(left, storeId(3)) as Peer), role: 'learner' } },
      ],
    }));
    await s.c.mustAdmin(left.id, () => ({ type: 'change-peer', changes: [] }));
    await mergesNow(s, left, right);
  });

  scenario('M-17 no neighbour, itself, or a made-up neighbour of the same name', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    expect(await merge(s, left, left)).toBe('MergeWithItself');
    await s.c.mustSplit('p');
    await s.lead(right, 1);
    expect(await merge(s, left, right)).toBe('NotNeighbours');
    const invented = { ...s.now(right), range: { start: utf8('k'), end: utf8('') } };
    expect(await s.attempt(left, { type: 'merge', target: invented })).toBe('TargetChanged');
    await stillUsable(s);
    await mergesNow(s, left, s.c.regionOf('l') as Region);
  });

  scenario('M-18 the target exists on the leader’s store only on paper', { stores: 4 }, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.addVoter(left, 4);
    const noTarget = s.cut(right, 4);
    const four: Peer = { id: peerId(s.c.nextId()), storeId: storeId(4), role: 'voter' };
    await s.c.mustAdmin(right.id, () => ({ type: 'change-peer', changes: [{ type: 'add-voter', peer: four }] }));
    for (const region of [left, right]) {
      await s.remove(region, 3);
    }
    await s.lead(left, 4);
    expect(await merge(s, left, right)).toBe('TargetNotHere');
    await s.put('b', 'still writable');
    // From a leader whose store has the target it is accepted; the store without it is healed by a snapshot.
    await s.lead(left, 1);
    await s.caughtUp(left, [1, 2, 4]);
    await s.c.prepareMerge(left.id, right.id);
    await s.c.until('the merge on two stores', () => [1, 2].every((store) => !s.holds(store, left)));
    noTarget();
    await s.untilGone(left);
    await s.c.until('the target on store 4', () => s.status(4, right)?.state === 'normal');
  });

  scenario('M-19 a follower waits for a snapshot', { config: EARLY_GC }, async (s) => {
    const { left, right } = await s.twoRegions();
    const heal = s.cut(left, 3);
    for (let i = 0; i < 20; i++) {
      await s.put(`b${i}`, 'x');
    }
    await s.c.until(
      'a compacted log',
      () => (s.status(1, left)?.firstIndex ?? 0) > (s.status(3, left)?.lastIndex ?? 0) + 1,
    );
    s.c.failpoints.set('3!snapshot::before-install', { type: 'pause' });
    heal();
    await s.c.until('an installation', () => s.status(3, left)?.state === 'installing');
    expect(['PeerNeedsSnapshot', 'LogGapTooLarge', 'PeerBehindSnapshot', 'AdminInLogGap']).toContain(
      await merge(s, left, right),
    );
    await stillUsable(s);
    s.c.failpoints.clear();
    await s.c.settle();
    await s.c.prepareMerge(left.id, right.id);
    await s.untilGone(left);
  });

  scenario('M-20 the leader has not applied an entry of its term', { isExact: true }, async (s) => {
    const { left, right } = await s.twoRegions();
    const behind = s.actors.hold((p) => p.store === 2 && p.to === 'apply' && p.region === left.id);
    await s.lead(left, 2);
    expect(await s.attempt(left, { type: 'merge', target: s.now(right) })).toBe('message');
    behind.release();
    await stillUsable(s);
    await mergesNow(s, left, right);
  });

  scenario('R4 a fresh leader does not trust what its predecessor sent', { config: EARLY_GC }, async (s) => {
    const { left, right } = await s.twoRegions();
    const heal = s.cut(left, 3);
    for (let i = 0; i < 20; i++) {
      await s.put(`b${i}`, 'x');
    }
    await s.c.until(
      'a compacted log',
      () => (s.status(1, left)?.firstIndex ?? 0) > (s.status(3, left)?.lastIndex ?? 0) + 1,
    );
    heal();
    await s.c.until('a snapshot', () => s.status(3, left)?.state === 'installing');
    await s.lead(left, 2);
    await s.lead(left, 1);
    // At once: whatever is answered, nobody may be lost.
    await merge(s, left, right);
    await s.mergeAway(left, right);
  });

  scenario(
    'P8 R4 a fresh leader refuses while a follower has not reached the entry it began with',
    { isExact: true, config: { maxSizePerMsgBytes: 1 } },
    async (s) => {
      const { left, right } = await s.twoRegions();
      const heal = s.cut(left, 3);
      const last = s.status(3, left)?.lastIndex ?? 0;
      for (let i = 0; i < 4; i++) {
        await s.put(`b${i}`, 'x');
      }
      await s.lead(left, 2);
      heal();
      // Its position is known and inside the permitted gap, but the leader before may have sent it a later snapshot.
      const slow = s.c.drop(
        ({ regionId, to, body }) =>
          regionId === left.id &&
          to.storeId === 3 &&
          body.type === 'raft' &&
          body.message.type === MsgType.App &&
          body.message.index === last + 1,
      );
      await s.c.until('one more entry', () => s.status(3, left)?.lastIndex === last + 1);
      let answer = 'PeerUnknown';
      for (let i = 0; i < 100 && answer === 'PeerUnknown'; i++) {
        await s.c.advance(50);
        answer = await merge(s, left, right);
      }
      expect(answer).toBe('PeerBehindSnapshot');
      await stillUsable(s);
      slow();
      await mergesNow(s, left, right);
    },
  );

  scenario('R2 a learner that is behind is waited for', { stores: 4, config: { mergeMaxLogGap: 5 } }, async (s) => {
    const { left, right } = await s.twoRegions();
    for (const region of [left, right]) {
      await s.addLearner(region, 4);
    }
    await s.c.settle();
    // Heartbeats have told the leader what the learner knows to be committed.
    await s.put('b', '0');
    await s.c.settle();
    await s.c.advance(1_000);
    const heal = s.cut(left, 4);
    await s.put('b', '1');
    await s.put('c', '2');
    // Inside the limit: it will be completed from what CommitMerge carries.
    await s.c.prepareMerge(left.id, right.id);
    await s.untilGone(left);
    expect(await s.c.valueOn(4, 'c')).toBe('2');
    heal();
  });
});
