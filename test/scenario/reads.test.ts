/** Scripted schedules of reads: leases, read indexes, followers, and leaders that are none any more. */
import { describe, expect } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { storeId } from '../../src/base/ids.ts';
import { findPeerOnStore, type Region } from '../../src/meta/region.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { ReadOutcome } from '../../src/raftstore/msg.ts';
import { scenario, SMALL_LOG, type Scene } from './support/scene.ts';

/** The value read, or `none` for a missing key, a refusal, or silence. */
async function readAt(scene: Scene, store: number, region: Region, key: string, isReplica = false): Promise<string> {
  const { cluster } = scene;
  const peer = findPeerOnStore(region, storeId(store));
  if (peer === undefined || !cluster.isUp(store)) {
    return 'none';
  }
  const silence = cluster.sleep(6_000).then(() => ({ error: 'silence' }) as const);
  const answer = await cluster.run(Promise.race([cluster.readAt(store, region, peer.id, key, isReplica), silence]));
  return 'value' in answer ? (answer.value ?? 'none') : 'none';
}

/** How long the leader on a store takes to allow a read, in virtual milliseconds. */
async function permission(scene: Scene, store: number, region: Region): Promise<number> {
  const { cluster } = scene;
  const peer = scene.peerOn(region.id, store);
  const from = cluster.scheduler.nowMs;
  const outcome = await cluster.run(
    new Promise<ReadOutcome>((respond) =>
      cluster.store(store).read({
        header: { regionId: region.id, epoch: region.epoch, peerId: peer.id, term: 0, deadlineMonoMs: from + 5_000 },
        keys: [utf8('a')],
        replicaRead: false,
        respond,
      }),
    ),
  );
  expect(outcome.type).toBe('ok');
  return cluster.scheduler.nowMs - from;
}

const isRaft =
  (type: number) => (m: { readonly body: { readonly type: string; readonly message?: { readonly type: number } } }) =>
    m.body.type === 'raft' && m.body.message?.type === type;

describe('leases', () => {
  for (const voters of [1, 3] as const) {
    scenario(`R-01 a lease comes from writes and from read indexes, with ${voters} voters`, async (scene) => {
      const firstPeers = Array.from({ length: voters }, (_, i) => [i + 1, 'voter'] as const);
      const cluster = await scene.start({ stores: 3, firstPeers });
      await scene.put('b', '1');
      await cluster.settle();
      await scene.put('b', '2');
      await cluster.settle();
      expect(await permission(scene, 1, scene.region(1))).toBe(0);
      // Heartbeats alone do not renew it; the first read asks a quorum, the next one is free again.
      await cluster.advance(2_000);
      const asked = await permission(scene, 1, scene.region(1));
      expect(voters === 1 ? asked >= 0 : asked > 0).toBe(true);
      expect(await permission(scene, 1, scene.region(1))).toBe(0);
    });
  }

  scenario('R-02 a leader that is alone stops answering before another may write', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['m~', 'n~'], 4);
    await cluster.advance(300);
    const region = scene.region(1);
    const heal = cluster.isolate(1);
    await cluster.until('another leader', () => [2, 3].some((s) => scene.status(s, 1)?.role === 'leader'));
    await scene.put('a', 'new');
    expect(await readAt(scene, 1, region, 'a')).not.toBe('1');
    heal();
  });

  scenario('R-03 after it asked another to take over, a leader trusts no lease', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['m~'], 3);
    await cluster.advance(200);
    const region = scene.region(1);
    const takeOver = scene.hold(isRaft(MsgType.TimeoutNow));
    await scene.attempt(1, { type: 'transfer-leader', peer: scene.peerOn(1, 2) });
    await cluster.until('the request to take over', () => takeOver.held.length > 0);
    // The old leader gives up waiting, or not; then it is cut off, and the request arrives at last.
    await cluster.advance(scene.rng.below(1_800));
    const isOld = cluster.leaderStore(1) === 1;
    const heal = cluster.isolate(1);
    takeOver.release();
    await cluster.until('another leader', () => [2, 3].some((s) => scene.status(s, 1)?.role === 'leader'));
    await scene.put('a', 'new');
    if (isOld) {
      expect(await readAt(scene, 1, region, 'a')).not.toBe('1');
    }
    heal();
  });

  scenario('R-03 and R-04 leases and read indexes between transfers that fail', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['m~', 'n~'], 6);
    for (let round = 0; round < 4; round++) {
      const lost = cluster.drop(isRaft(MsgType.TimeoutNow));
      const target = scene.rng.pick([1, 2, 3]);
      await scene.attempt(1, { type: 'transfer-leader', peer: scene.peerOn(1, target) });
      await cluster.advance(scene.rng.below(1_500));
      lost();
      if (scene.rng.chance(0.4)) {
        await scene.depose(1);
      }
    }
  });

  scenario('R-07 a voter that restarts does not help a second leader inside the lease of the first', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['m~'], 4);
    const away = cluster.isolate(2);
    await cluster.advance(2_500);
    const region = scene.region(1);
    // Store 3 forgets whom it followed; from now on it hears store 2 only, which would lead at once.
    cluster.crash(3, scene.rng.pick(['kill', 'power-loss'] as const));
    away();
    const apart = cluster.isolate(1);
    const from = cluster.scheduler.nowMs;
    await cluster.restart(3);
    await cluster.until('another leader', () => [2, 3].some((s) => scene.status(s, 1)?.role === 'leader'));
    expect(cluster.scheduler.nowMs - from).toBeGreaterThan(800);
    await scene.put('a', 'new');
    expect(await readAt(scene, 1, region, 'a')).not.toBe('1');
    apart();
  });

  scenario('R-18 clocks that drift up to the bound', async (scene) => {
    const cluster = await scene.start();
    for (const machine of cluster.machines.values()) {
      machine.rate = 0.95 + scene.rng.float() * 0.1;
      machine.clock.setRate(machine.rate);
    }
    scene.traffic(['m~', 'n~'], 5);
    for (let round = 0; round < 3; round++) {
      await scene.depose(1);
      await cluster.advance(scene.rng.below(1_200));
    }
  });
});

describe('read indexes', () => {
  scenario('R-05 reads that wait at a leader when it loses its place', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['m~', 'n~'], 8);
    const resume = scene.pause(1, 'apply::before-write', 1);
    await cluster.advance(200 + scene.rng.below(400));
    const heal = scene.rng.chance(0.5) ? cluster.isolate(1) : () => {};
    if (scene.rng.chance(0.5)) {
      await scene.attempt(1, { type: 'transfer-leader', peer: scene.peerOn(1, 2) });
    }
    await cluster.advance(scene.rng.below(2_000));
    resume();
    heal();
  });

  scenario('R-06 a read behind an acknowledged write sees it, whatever read is still waiting', async (scene) => {
    const cluster = await scene.start();
    const region = scene.region(1);
    const own = scene.peerOn(1, 2);
    const answers = scene.hold((m) => m.to.storeId === 2 && isRaft(MsgType.ReadIndexResp)(m));
    const early = cluster.readAt(2, region, own.id, 'a', true);
    await cluster.advance(100);
    await scene.put('a', 'new');
    const late = cluster.readAt(2, region, own.id, 'a', true);
    await cluster.advance(100);
    expect(answers.held.length).toBeGreaterThan(1);
    // Newest first: the later read must not be taken for the earlier one.
    answers.held.reverse();
    answers.release();
    expect(await cluster.run(late)).toEqual({ value: 'new' });
    expect(['1', 'new']).toContain(((await cluster.run(early)) as { value: string }).value);
  });

  scenario('R-08 reads are answered when the region, the leader or the term goes away', async (scene) => {
    const cluster = await scene.start();
    const region = scene.region(1);
    const own = scene.peerOn(1, 3);
    const lost = cluster.drop(isRaft(MsgType.ReadIndexResp));
    const waiting = [1, 2, 3].map(() => cluster.readAt(3, region, own.id, 'a', true));
    await cluster.advance(50);
    const event = scene.rng.pick(['removed', 'new leader', 'nothing'] as const);
    if (event === 'removed') {
      await scene.remove(1, 3);
    } else if (event === 'new leader') {
      await scene.depose(1);
    }
    for (const read of waiting) {
      expect(await cluster.run(read, 10_000)).toMatchObject({ error: {} });
    }
    lost();
  });

  scenario('R-09 a follower answers with at least what was acknowledged, however slow its apply is', async (scene) => {
    const cluster = await scene.start({ network: { duplicateChance: 0.2 } });
    scene.traffic(['m~', 'n~'], 4);
    const resume = scene.pause(2, 'apply::before-write', 1);
    await scene.put('a', 'new');
    const region = scene.region(1);
    const reading = cluster.readAt(2, region, scene.peerOn(1, 2).id, 'a', true);
    // Requests nobody can make sense of disturb no others.
    const leader = scene.peerOn(1, 1);
    for (const context of [new Uint8Array(0), new Uint8Array(3), new Uint8Array(8).fill(255)]) {
      scene.deliver({
        regionId: region.id,
        from: scene.peerOn(1, 3),
        to: leader,
        epoch: region.epoch,
        range: undefined,
        body: { type: 'raft', message: readIndexMessage(3, leader.id, context) },
      });
    }
    await cluster.advance(300);
    resume();
    expect(await cluster.run(reading)).toEqual({ value: 'new' });
  });

  scenario(
    'R-09 a follower that got no read index asks again, whether the question or the answer was lost',
    async (scene) => {
      const cluster = await scene.start({ network: { duplicateChance: 0 } });
      await cluster.settle();
      const lost = scene.rng.pick([MsgType.ReadIndex, MsgType.ReadIndexResp]);
      let dropped = 0;
      cluster.drop((message) => isRaft(lost)(message) && ++dropped <= 2);
      const from = cluster.scheduler.nowMs;
      const region = scene.region(1);
      const answer = await cluster.run(cluster.readAt(2, region, scene.peerOn(1, 2).id, 'a', true));
      expect(answer).toEqual({ value: '1' });
      expect(dropped).toBeGreaterThan(1);
      expect(cluster.scheduler.nowMs - from).toBeLessThan(3_500);
    },
  );

  scenario('R-10 new leaders and their followers show everything from before', async (scene) => {
    await scene.start();
    scene.traffic(['m~', 'n~'], 6);
    for (let round = 0; round < 4; round++) {
      const next = scene.rng.pick([1, 2, 3]);
      await scene.put('a', `round-${round}`);
      const region = scene.region(1);
      await scene.attempt(1, { type: 'transfer-leader', peer: scene.peerOn(1, next) });
      const seen = await readAt(scene, next, region, 'a', scene.rng.chance(0.5));
      expect(['none', `round-${round}`]).toContain(seen);
    }
  });

  scenario('a leader does not show less than a follower has shown', async (scene) => {
    const cluster = await scene.start();
    const resume = scene.pause(1, 'apply::before-write', 1);
    const write = cluster.writeOnce([{ type: 'put', key: utf8('b'), value: utf8('new'), expireAtSeconds: 0 }], 'b');
    await cluster.advance(500);
    const region = scene.region(1);
    expect(await readAt(scene, 2, region, 'b', true)).toBe('new');
    const atLeader = cluster.readAt(1, region, scene.peerOn(1, 1).id, 'b', false);
    await cluster.advance(300);
    resume();
    expect(await cluster.run(atLeader)).toEqual({ value: 'new' });
    expect(await cluster.run(write)).toMatchObject({ type: 'ok' });
  });
});

describe('reads beside splits, merges and removals', () => {
  scenario(
    "R-11 the parent's leader has not applied the split, and the child takes writes elsewhere",
    async (scene) => {
      const cluster = await scene.start();
      scene.traffic(['b~', 'y~'], 4);
      const before = scene.region(1);
      scene.pause(1, 'apply::before-split', 1);
      const split = cluster.admin(1, { type: 'split', keys: [utf8('k')] });
      await cluster.until('a leader of the child', () => {
        const region = cluster.regionOf('a');
        return region !== undefined && region.id !== 1;
      });
      await scene.put('a', 'new');
      expect(await readAt(scene, 1, before, 'a')).not.toBe('1');
      expect(await readAt(scene, 1, before, 'a', true)).not.toBe('1');
      cluster.failpoints.clear();
      await cluster.run(split);
    },
  );

  scenario(
    "R-12 the source's leader is late to notice its merge, and the target takes writes elsewhere",
    async (scene) => {
      const cluster = await scene.start();
      const { left, right } = await scene.split();
      await cluster.mustTransferLeader(right.id, 2);
      await cluster.settle();
      scene.traffic(['b~', 'y~'], 4);
      await cluster.advance(200);
      scene.pause(1, 'apply::before-prepare-merge', left.id);
      const merge = cluster.admin(left.id, { type: 'merge', target: scene.region(right.id) });
      await cluster.until('the target has it', () => cluster.regionOf('a')?.id === right.id);
      await scene.put('a', 'new');
      for (const isReplica of [false, true]) {
        expect(await readAt(scene, 1, left, 'a', isReplica)).not.toBe('1');
      }
      cluster.failpoints.clear();
      await cluster.run(merge);
    },
  );

  scenario('R-13 after a rollback leases and read indexes are there again', async (scene) => {
    const cluster = await scene.start();
    const { left, right } = await scene.split();
    cluster.failpoints.set('merge::before-commit', { type: 'pause' });
    await cluster.prepareMerge(left.id, right.id);
    const merging = scene.region(left.id);
    expect(await readAt(scene, 1, merging, 'a')).toBe('none');
    await cluster.mustAdmin(right.id, () => ({ type: 'split', keys: [utf8('p')] }));
    cluster.failpoints.clear();
    await cluster.until('the rollback', () => [1, 2, 3].every((s) => scene.record(s, left.id)?.state === 'normal'));
    await scene.put('b', '1');
    await cluster.settle();
    const region = scene.region(left.id);
    expect(await readAt(scene, cluster.leaderStore(left.id) as number, region, 'b')).toBe('1');
    expect(await readAt(scene, 2, region, 'b', true)).toBe('1');
    expect(await permission(scene, cluster.leaderStore(left.id) as number, region)).toBe(0);
  });

  scenario('R-15 and R-16 whoever read here before reads nothing old after splits, merges and moves', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: SMALL_LOG });
    scene.traffic(['b~', 'k~', 'y~'], 6);
    const { left, right } = await scene.split();
    const olds = [left, right];
    const peer = await scene.addLearner(left.id, 4);
    await scene.data(left.id, 4);
    await scene.remove(left.id, 4);
    await scene.addLearner(left.id, 4);
    await scene.data(left.id, 4);
    await scene.remove(left.id, 4);
    await cluster.settle().catch(() => {});
    await cluster.mustMerge(left.id, right.id);
    await scene.put('a', 'new');
    for (const store of [1, 2, 3, 4]) {
      for (const old of [...olds, { ...left, peers: [...left.peers, peer] }]) {
        expect(await readAt(scene, store, old, 'a', scene.rng.chance(0.5))).not.toBe('1');
      }
    }
  });
});

function readIndexMessage(from: number, to: number, context: Uint8Array) {
  return {
    type: MsgType.ReadIndex,
    to,
    from,
    term: 0,
    logTerm: 0,
    index: 0,
    entries: [{ type: 0 as const, term: 0, index: 0, data: context }],
    commit: 0,
    vote: 0,
    snapshot: null,
    reject: false,
    rejectHint: 0,
    context,
    responses: [],
    reportedCommit: 0,
    voteCommit: 0,
    voteCommitTerm: 0,
  };
}
