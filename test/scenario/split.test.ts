/** Scripted schedules of splits: slow replicas, children that exist already, replaced and removed ones. */
import { describe, expect } from 'vitest';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { decodeRaftLocalState } from '../../src/codec/raft-records.ts';
import { applyStateKey, raftStateKey } from '../../src/engine/index.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { Region } from '../../src/meta/region.ts';
import type { WriteOutcome } from '../../src/raftstore/msg.ts';
import { scenario, SMALL_LOG, type Scene } from './support/scene.ts';

const put = (key: string) => ({ type: 'put' as const, key: utf8(key), value: utf8('x'), expireAtSeconds: 0 });

/** Fires a split without waiting for it; `ids` of the new parts come with the answer. */
function fireSplit(scene: Scene, region: number, ...keys: string[]): Promise<unknown> {
  return scene.cluster.admin(region, { type: 'split', keys: keys.map(utf8) });
}

/** The left part, as soon as somebody has it. */
async function childOf(scene: Scene, key: string): Promise<Region> {
  await scene.cluster.until(`a leader of the part of ${key}`, () => {
    const region = scene.cluster.regionOf(key);
    return region !== undefined && region.id !== 1;
  });
  return scene.regionAt(key);
}

describe('split', () => {
  scenario('S-01 ids, epochs and ranges; keys of others are refused with the regions that have them', async (scene) => {
    const cluster = await scene.start();
    const before = scene.region(1);
    const { left, right } = await scene.split();
    expect(right.id).toBe(before.id);
    for (const part of [left, right]) {
      expect(part.epoch).toEqual({ confVer: before.epoch.confVer, version: before.epoch.version + 1 });
      expect(part.peers.map((p) => [p.storeId, p.role])).toEqual(before.peers.map((p) => [p.storeId, p.role]));
    }
    expect([left, right].map((r) => [fromUtf8(r.range.start), fromUtf8(r.range.end)])).toEqual([
      ['', 'k'],
      ['k', ''],
    ]);
    const leader = await cluster.mustLeader(right.id);
    const own = scene.peerOn(right.id, leader);
    const foreign = await cluster.run(cluster.readAt(leader, right, own.id, 'a', false));
    expect(foreign).toMatchObject({ error: { type: 'key-not-in-region' } });
    const old = await cluster.run(cluster.readAt(leader, before, own.id, 'a', false));
    expect(old).toMatchObject({
      error: { type: 'epoch-not-match', currentRegions: [{ id: right.id }, { id: left.id }] },
    });
  });

  scenario('S-02 five keys at once; senseless keys and ids are refused and change nothing', async (scene) => {
    const cluster = await scene.start();
    const parts = await cluster.mustAdmin(1, () => ({ type: 'split', keys: ['c', 'h', 'm', 'r', 'w'].map(utf8) }));
    expect(parts).toHaveLength(6);
    expect(new Set(parts.map((r) => r.epoch.version))).toEqual(new Set([6]));
    expect(new Set(parts.flatMap((r) => r.peers.map((p) => p.id))).size).toBe(18);
    await cluster.settle();
    const region = scene.regionAt('n');
    for (const keys of [['q', 'p'], ['n', 'n'], ['m'], ['r'], ['x'], ['a'], []]) {
      expect(await scene.attempt(region.id, { type: 'split', keys: keys.map(utf8) }), keys.join()).toBe('BadSplitKeys');
    }
    cluster.splitIds = { delayMs: 50, refuses: true };
    expect(await scene.attempt(region.id, { type: 'split', keys: [utf8('o')] })).toBe('NoIds');
    // The membership changes while the ids are on their way: they are for another number of peers.
    cluster.splitIds = { delayMs: 2_000, refuses: false };
    const split = fireSplit(scene, region.id, 'o');
    await cluster.advance(10);
    const victim = [1, 2, 3].find((store) => store !== cluster.leaderStore(region.id)) as number;
    await scene.remove(region.id, victim);
    const outcome = await cluster.run(split);
    expect(JSON.stringify(outcome)).toMatch(/BadIds|epoch-not-match/);
    expect(scene.region(region.id).epoch.version).toBe(region.epoch.version);
  });

  scenario('S-03 after a split an old epoch serves nothing that depends on the range', async (scene) => {
    const cluster = await scene.start();
    const before = scene.region(1);
    const { left, right } = await scene.split();
    const own = scene.peerOn(right.id, 1);
    expect(await cluster.run(cluster.readAt(1, before, own.id, 'z', false))).toMatchObject({
      error: { type: 'epoch-not-match' },
    });
    const withOldEpoch = (body: Parameters<typeof cluster.admin>[1]) =>
      cluster.run(
        new Promise<{ readonly type: string; readonly error?: { readonly type: string } }>((respond) =>
          cluster.store(1).admin({ regionId: right.id, epoch: before.epoch, body, respond }),
        ),
      );
    const written = await cluster.run(
      new Promise<WriteOutcome>((respond) =>
        cluster.store(1).write({
          header: { regionId: right.id, epoch: before.epoch, peerId: own.id, term: 0, deadlineMonoMs: 1e9 },
          ops: [put('z')],
          respond,
        }),
      ),
    );
    expect(written).toMatchObject({ error: { type: 'epoch-not-match' } });
    for (const body of [
      { type: 'split' as const, keys: [utf8('p')] },
      { type: 'merge' as const, target: left },
    ]) {
      expect(await withOldEpoch(body), body.type).toMatchObject({ error: { type: 'epoch-not-match' } });
    }
    // A membership change compares the membership counter only.
    const victim = scene.peerOn(right.id, 3);
    expect((await withOldEpoch({ type: 'change-peer', changes: [{ type: 'remove', peer: victim }] })).type).toBe('ok');
    await scene.gone(right.id, 3);
  });

  scenario(
    'S-04 writes that meet a split in flight stay out of the log; the gate orders other changes',
    async (scene) => {
      const cluster = await scene.start({ stores: 4 });
      await cluster.settle();
      const resume = scene.pause(1, 'apply::before-split', 1);
      const split = fireSplit(scene, 1, 'k');
      await cluster.until('the split is in the log', () => (cluster.hits.get('apply::before-split')?.times ?? 0) > 0);
      const last = scene.status(1, 1)?.lastIndex;
      const write = cluster.writeOnce([put('b')], 'b');
      await cluster.advance(200);
      expect(scene.status(1, 1)?.lastIndex).toBe(last);
      expect(await scene.attempt(1, { type: 'split', keys: [utf8('p')] })).toBe('message');
      expect(await scene.attempt(1, { type: 'merge', target: scene.region(1) })).not.toBe('ok');
      // Membership does not depend on the range: it may follow the split.
      const change = cluster.admin(1, {
        type: 'change-peer',
        changes: [{ type: 'add-learner', peer: scene.newPeer(4) }],
      });
      await cluster.advance(100);
      resume();
      expect(await cluster.run(write)).toMatchObject({ type: 'refused', error: { type: 'epoch-not-match' } });
      expect(await cluster.run(split)).toMatchObject({ type: 'ok' });
      expect(await cluster.run(change)).toMatchObject({ type: 'ok' });
      // A split does depend on the membership: it does not follow a change in flight.
      const resumeChange = scene.pause(1, 'apply::before-change-peer', 1);
      const removal = cluster.admin(1, {
        type: 'change-peer',
        changes: [{ type: 'remove', peer: scene.peerOn(1, 4) }],
      });
      await cluster.advance(300);
      expect(await scene.attempt(1, { type: 'split', keys: [utf8('p')] })).toBe('message');
      resumeChange();
      expect(await cluster.run(removal)).toMatchObject({ type: 'ok' });
    },
  );

  scenario("S-05 a child has a leader at once, on the store of its parent's leader", async (scene) => {
    const cluster = await scene.start();
    await cluster.mustAdmin(1, () => ({ type: 'split', keys: [utf8('k')] }));
    const at = cluster.scheduler.nowMs;
    const child = await childOf(scene, 'a');
    // Well below the shortest election timeout.
    expect(cluster.scheduler.nowMs - at).toBeLessThan(500);
    expect(cluster.leaderStore(child.id)).toBe(1);
  });

  scenario('S-06 a slow follower is a necessary voter of the child', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['b~', 'y~']);
    const resume = scene.pause(3, 'apply::before-split', 1);
    const [left] = await cluster.mustSplit('k');
    expect(scene.status(3, left.id)).toBeUndefined();
    cluster.crash(scene.rng.pick([1, 2]), scene.rng.pick(['kill', 'power-loss'] as const));
    await cluster.advance(scene.rng.below(1_500));
    resume();
    await scene.put('c', '1');
    expect(scene.record(3, left.id)?.state).toBe('normal');
    expect(cluster.snapshotsSent.size).toBe(0);
  });

  scenario('S-07 lost votes only delay the first leader of a child', async (scene) => {
    const cluster = await scene.start();
    const heal = cluster.drop(
      (m) =>
        m.regionId !== 1 &&
        m.body.type === 'raft' &&
        (m.body.message.type === MsgType.Vote || m.body.message.type === MsgType.PreVote),
    );
    await cluster.mustAdmin(1, () => ({ type: 'split', keys: [utf8('k')] }));
    await cluster.advance(scene.rng.below(4_000));
    expect(cluster.regionOf('a')).toBeUndefined();
    await scene.put('y', 'the parent works');
    heal();
    await childOf(scene, 'a');
  });

  scenario('S-08 the leader of the parent changes while it splits', async (scene) => {
    const cluster = await scene.start();
    scene.pause(1, 'apply::before-split', 1);
    const split = fireSplit(scene, 1, 'k');
    await cluster.until('the others applied it', () =>
      [2, 3].every((s) => scene.status(s, 1)?.region.epoch.version === 2),
    );
    if (scene.rng.chance(0.5)) {
      const heal = cluster.isolate(1);
      const child = await childOf(scene, 'a');
      const term = scene.status(cluster.leaderStore(child.id) as number, child.id)?.term;
      await scene.put('b', 'the child works');
      await scene.put('y', 'the parent works');
      heal();
      cluster.failpoints.clear();
      await cluster.settle();
      // A child that has a leader keeps it.
      expect(scene.status(cluster.leaderStore(child.id) as number, child.id)?.term).toBe(term);
    } else {
      await cluster.mustTransferLeader(1, 2);
      const child = await childOf(scene, 'a');
      await scene.put('b', 'the child works');
      cluster.failpoints.clear();
      await cluster.settle();
      expect([2, 3]).toContain(cluster.leaderStore(child.id));
    }
    await cluster.run(split);
  });

  scenario('S-09 a snapshot of the unsplit parent is not installed over live children', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const old = scene.holdSnapshots((m) => m.regionId === 1 && m.to.storeId === 4 && m.epoch.version === 1);
    await scene.addLearner(1, 4);
    await cluster.until('an old snapshot', () => old.held.length > 0);
    const [left] = await cluster.mustSplit('k');
    await scene.data(left.id, 4);
    await scene.put('b', 'new');
    old.release();
    await cluster.advance(scene.rng.below(300));
    expect(scene.status(4, left.id)).toMatchObject({ state: 'normal' });
    await scene.data(1, 4);
    expect(scene.region(1).epoch.version).toBe(2);
    await cluster.settle();
    expect(await cluster.valueOn(4, 'b')).toBe('new');
  });

  scenario(
    'S-10 a replica of the parent that was away shrinks by a snapshot, then its child arrives',
    async (scene) => {
      const cluster = await scene.start({ config: SMALL_LOG });
      const heal = cluster.isolate(3);
      const [left] = await cluster.mustSplit('k');
      await scene.fill('a', 20);
      await scene.fill('z', 20);
      await cluster.mustDelete('a');
      await cluster.advance(2_000);
      const child = scene.holdSnapshots((m) => m.regionId === left.id && m.to.storeId === 3);
      heal();
      await cluster.until('the parent shrank', () => scene.status(3, 1)?.region.epoch.version === 2);
      await scene.data(1, 3);
      await cluster.advance(scene.rng.below(1_000));
      child.release();
      await scene.data(left.id, 3);
      await cluster.settle();
      expect(await cluster.keysOn(3)).not.toContain('a');
      await scene.put('a', 'again');
    },
  );

  /**
   * A learner of the parent on store 4 is behind the split, while its child's peer there exists already, without data:
   * the split it applies later finds that peer.
   */
  async function uninitializedChild(
    scene: Scene,
  ): Promise<{ child: Region; releaseParent: () => void; releaseChild: () => void }> {
    const cluster = await scene.start({ stores: 4 });
    const parent = scene.holdSnapshots((m) => m.regionId === 1 && m.to.storeId === 4 && m.epoch.version === 1);
    const children = scene.holdSnapshots((m) => m.regionId !== 1 && m.to.storeId === 4);
    await scene.addLearner(1, 4);
    await cluster.until('a snapshot from before the split', () => parent.held.length > 0);
    const [child] = await cluster.mustSplit('k');
    await cluster.until('an empty child', () => scene.status(4, child.id)?.state === 'uninitialized');
    scene.pause(4, 'apply::before-split', 1);
    return { child, releaseParent: parent.release, releaseChild: children.release };
  }

  scenario('S-11 and S-15 a split replaces the empty peer that a message had created', async (scene) => {
    const { child, releaseParent } = await uninitializedChild(scene);
    const { cluster } = scene;
    const { peerId } = scene.status(4, child.id) as { peerId: number };
    releaseParent();
    await scene.data(1, 4);
    await cluster.until('the split waits', () => (cluster.hits.get('apply::before-split')?.times ?? 0) > 3);
    await scene.put('b', 'new');
    cluster.failpoints.clear();
    await cluster.until('the child has data', () => scene.status(4, child.id)?.state === 'normal');
    expect(scene.status(4, child.id)?.peerId).toBe(peerId);
    expect(scene.status(4, 1)?.region.epoch.version).toBe(2);
    await cluster.settle();
    expect(await cluster.valueOn(4, 'b')).toBe('new');
  });

  scenario('S-15 mail for the peer that was replaced has no effect on the one that replaced it', async (scene) => {
    const { child, releaseParent, releaseChild } = await uninitializedChild(scene);
    const { cluster } = scene;
    cluster.oldMail.capacity = 300;
    await cluster.advance(500);
    releaseParent();
    await scene.data(1, 4);
    const disturb = (): void => {
      if (scene.status(4, child.id)?.state !== 'normal') {
        cluster.replayOldMail(scene.rng);
        cluster.scheduler.at(0.5, disturb);
      }
    };
    disturb();
    cluster.failpoints.clear();
    // A snapshot for the old object comes in the same moments as the split that replaces it.
    cluster.scheduler.at(scene.rng.float() * 20, releaseChild);
    await scene.data(child.id, 4);
  });

  scenario('S-12 a split does not create a child that has a newer peer here', async (scene) => {
    const { child, releaseParent, releaseChild } = await uninitializedChild(scene);
    const { cluster } = scene;
    const first = scene.status(4, child.id)?.peerId;
    await scene.remove(child.id, 4);
    const again = await scene.addLearner(child.id, 4);
    await cluster.until('the newer peer', () => scene.status(4, child.id)?.peerId === again.id);
    releaseParent();
    await scene.data(1, 4);
    await cluster.advance(scene.rng.below(200));
    cluster.failpoints.clear();
    await cluster.until('the parent has split', () => scene.status(4, 1)?.region.epoch.version === 2);
    expect(again.id).toBeGreaterThan(first as number);
    expect(scene.status(4, child.id)?.peerId).toBe(again.id);
    releaseChild();
    await scene.data(child.id, 4);
    expect(scene.status(4, child.id)?.peerId).toBe(again.id);
  });

  scenario('S-12 nor one whose newer peer only left its promises here when the store died', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const parent = scene.holdSnapshots((m) => m.regionId === 1 && m.to.storeId === 4 && m.epoch.version === 1);
    const children = scene.holdSnapshots((m) => m.regionId !== 1 && m.to.storeId === 4);
    const deafen = (): (() => void) => cluster.drop((m) => m.regionId !== 1 && m.to.storeId === 4);
    // The first peer of the child is removed before store 4 hears of it: it leaves no tombstone there.
    const hear = deafen();
    await scene.addLearner(1, 4);
    await cluster.until('a snapshot from before the split', () => parent.held.length > 0);
    const [child] = await cluster.mustSplit('k');
    await scene.remove(child.id, 4);
    const again = await scene.addLearner(child.id, 4);
    hear();
    await cluster.until('the promises of the newer peer are written', () => {
      const bytes = cluster.machine(4).engine?.getSync(raftStateKey(child.id));
      return bytes !== undefined && decodeRaftLocalState(bytes).peerId === again.id;
    });
    scene.pause(4, 'apply::before-split', 1);
    parent.release();
    await scene.data(1, 4);
    const hearAgain = deafen();
    cluster.crash(4, 'kill');
    cluster.reboot(4);
    cluster.failpoints.clear();
    await cluster.until('the parent has split', () => scene.status(4, 1)?.region.epoch.version === 2);
    expect(scene.status(4, child.id)).toBeUndefined();
    hearAgain();
    children.release();
    await scene.data(child.id, 4);
    expect(scene.status(4, child.id)?.peerId).toBe(again.id);
  });

  scenario('S-13 a child that was removed here before does not rise again', async (scene) => {
    const { child, releaseParent } = await uninitializedChild(scene);
    const { cluster } = scene;
    await scene.remove(child.id, 4);
    await scene.gone(child.id, 4);
    expect(scene.record(4, child.id)?.state).toBe('tombstone');
    releaseParent();
    await scene.data(1, 4);
    cluster.failpoints.clear();
    await cluster.until('the parent has split', () => scene.status(4, 1)?.region.epoch.version === 2);
    if (scene.rng.chance(0.5)) {
      cluster.crash(4);
      await cluster.restart(4);
    }
    await cluster.settle();
    expect(scene.status(4, child.id)).toBeUndefined();
    await cluster.advance(7_000);
    expect(await cluster.keysOn(4)).toEqual(['z']);
  });

  scenario('S-14 the end of an empty child is still being written when the split comes', async (scene) => {
    const { child, releaseParent, releaseChild } = await uninitializedChild(scene);
    const { cluster } = scene;
    releaseParent();
    await scene.data(1, 4);
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [50, 300] });
    await scene.remove(child.id, 4);
    await cluster.advance(scene.rng.below(300));
    cluster.failpoints.clear();
    if (scene.rng.chance(0.5)) {
      await scene.addLearner(child.id, 4);
    }
    releaseChild();
    await cluster.settle();
  });

  for (const moved of [false, true]) {
    scenario(
      `S-16 a crash between the split and the first promise of the child${moved ? ', whose data comes by snapshot' : ''}`,
      async (scene) => {
        const cluster = await scene.start({ config: SMALL_LOG });
        const resume = scene.pause(3, 'apply::before-split', 1);
        const [left] = await cluster.mustSplit('k');
        await cluster.advance(300);
        scene.armDeath(3, 'peer::before-applied', 1);
        resume();
        await cluster.until('store 3 died', () => !cluster.isUp(3));
        const view = cluster.machine(3).disk.database('db')?.view;
        if (view?.get(applyStateKey(left.id)) !== undefined) {
          expect(view.get(raftStateKey(left.id))).toBeUndefined();
        }
        await scene.fill('b', moved ? 25 : 2);
        await cluster.advance(moved ? 2_000 : 100);
        await cluster.restart(3);
        await scene.data(left.id, 3);
      },
    );
  }

  scenario("S-17 the child's peer is replaced by a newer one while its store is slow to split", async (scene) => {
    const cluster = await scene.start();
    const resume = scene.pause(3, 'apply::before-split', 1);
    const [left] = await cluster.mustSplit('k');
    const old = scene.peerOn(left.id, 3);
    await scene.remove(left.id, 3);
    const fresh = await scene.addLearner(left.id, 3);
    expect(fresh.id).toBeGreaterThan(old.id);
    await scene.put('b', 'new');
    await cluster.advance(scene.rng.below(3_000));
    resume();
    await cluster.until('the newer peer has data', () => {
      const s = scene.status(3, left.id);
      return s?.peerId === fresh.id && s.state === 'normal';
    });
    await scene.promote(left.id, fresh);
  });

  scenario('S-19 a learner of a child knows its leader at once', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    await scene.addLearner(1, 4);
    await scene.data(1, 4);
    await cluster.settle();
    const [left] = await cluster.mustSplit('k');
    const at = cluster.scheduler.nowMs;
    await cluster.until('the learner is led', () => (scene.status(4, left.id)?.leaderPeerId ?? 0) !== 0, 5_000);
    expect(cluster.scheduler.nowMs - at).toBeLessThan(500);
  });

  scenario('S-20 no snapshots are made for a child whose store is slow to split', async (scene) => {
    const cluster = await scene.start();
    const resume = scene.pause(3, 'apply::before-split', 1);
    const [left] = await cluster.mustSplit('k');
    await scene.fill('b', 10);
    await cluster.advance(5_000);
    expect(cluster.snapshotsSent.get(`${left.id}>3`) ?? 0).toBeLessThanOrEqual(1);
    resume();
    await scene.data(left.id, 3);
  });
});
