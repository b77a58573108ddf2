/** Scripted schedules of replicas that were forgotten: how they find out, and what tombstones answer. */
import { describe, expect } from 'vitest';
import { peerId } from '../../src/base/ids.ts';
import type { PeerMessage, PeerMessageBody } from '../../src/codec/peer-message.ts';
import type { Rng } from '../../src/env/rng.ts';
import type { Peer, Region, RegionEpoch } from '../../src/meta/region.ts';
import { type Message, MsgType } from '../../src/raft/types.ts';
import { scenario, SMALL_LOG, type Scene } from './support/scene.ts';

const rawMessage = (type: MsgType, term: number): Message => ({
  type,
  to: 0,
  from: 0,
  term,
  logTerm: 0,
  index: 0,
  entries: [],
  commit: 0,
  vote: 0,
  snapshot: null,
  reject: false,
  rejectHint: 0,
  context: new Uint8Array(0),
  responses: [],
  reportedCommit: 0,
  voteCommit: 0,
  voteCommitTerm: 0,
});

interface Letter {
  readonly from: Peer;
  readonly to: Peer;
  readonly epoch: RegionEpoch;
  readonly region: Region;
  readonly body: PeerMessageBody;
}

const letter = ({ from, to, epoch, region, body }: Letter): PeerMessage => ({
  regionId: region.id,
  from,
  to,
  epoch,
  range: region.range,
  body: body.type === 'raft' ? { type: 'raft', message: { ...body.message, from: from.id, to: to.id } } : body,
});

/** What a store sends, by receiver, until the returned function is called. */
function answersOf(scene: Scene, store: number, region: number): { readonly sent: PeerMessage[]; stop(): void } {
  const sent: PeerMessage[] = [];
  const stop = scene.cluster.drop((m) => {
    if (m.from.storeId === store && m.regionId === region) {
      sent.push(m);
    }
    return false;
  });
  return { sent, stop };
}

/** The same messages in a drawn order. */
function mixed(messages: readonly PeerMessage[], rng: Rng): PeerMessage[] {
  return messages
    .map((message) => ({ message, at: rng.float() }))
    .sort((a, b) => a.at - b.at)
    .map(({ message }) => message);
}

describe('removed replicas', () => {
  scenario('a tombstone from before it was added sends no replica away that waits for its data', async (scene) => {
    const cluster = await scene.start({ stores: 5 });
    await scene.addVoter(1, 4);
    await scene.remove(1, 2);
    await scene.gone(1, 2);
    const snapshots = scene.holdSnapshots((m) => m.to.storeId === 5);
    const waiting = await scene.addLearner(1, 5);
    await cluster.until('a replica without data', () => scene.status(5, 1)?.state === 'uninitialized');
    // Store 2 is a member again and does not know: whoever asks there meets the tombstone.
    const silence = cluster.drop((m) => m.to.storeId === 2 && m.from.storeId !== 5);
    await scene.addLearner(1, 2);
    const noLeader = cluster.drop((m) => m.to.storeId === 5 && m.body.type === 'raft');
    await cluster.advance(15_000);
    expect(scene.status(5, 1)?.peerId).toBe(waiting.id);
    noLeader();
    silence();
    snapshots.release();
    await scene.data(1, 5);
    expect(scene.status(5, 1)?.peerId).toBe(waiting.id);
  });

  scenario('T-01 a removed replica comes back under a larger id, never under its own', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    cluster.oldMail.capacity = 2_000;
    const ids: number[] = [];
    for (let round = 0; round < 3; round++) {
      const peer = await scene.addLearner(1, 4);
      ids.push(peer.id);
      if (scene.rng.chance(0.7)) {
        await scene.data(1, 4);
      }
      await scene.remove(1, 4);
    }
    await scene.gone(1, 4);
    for (let i = 0; i < 200; i++) {
      cluster.replayOldMail(scene.rng);
      await cluster.advance(1);
    }
    await scene.gone(1, 4);
    const last = await scene.addLearner(1, 4);
    await scene.data(1, 4);
    expect(scene.status(4, 1)?.peerId).toBe(last.id);
    expect(last.id).toBeGreaterThan(Math.max(...ids));
  });

  scenario('T-02 a crash between the tombstone and the end of its cleaning', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: { cleanBatchKeys: 2 } });
    await scene.fill('b', 20);
    await scene.addLearner(1, 4);
    await scene.data(1, 4);
    await cluster.settle();
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [10, 40] });
    await scene.remove(1, 4);
    await cluster.until('a tombstone', () => scene.record(4, 1)?.state === 'tombstone');
    await cluster.advance(scene.rng.below(120));
    cluster.crash(4, scene.rng.pick(['kill', 'power-loss'] as const));
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [0.1, 1] });
    await cluster.restart(4);
    await cluster.until('nothing is left', () => scene.status(4, 1) === undefined && scene.leftovers(4).length === 0);
  });

  for (const hasData of [true, false]) {
    scenario(
      `T-03 a replica ${hasData ? 'with' : 'without'} data whose whole group was replaced while it slept`,
      async (scene) => {
        const cluster = await scene.start({ stores: 7 });
        let sleeper = 3;
        const gate = scene.holdSnapshots((m) => m.to.storeId === 7);
        if (!hasData) {
          sleeper = 7;
          await scene.addLearner(1, 7);
          await cluster.until('an empty replica', () => scene.status(7, 1)?.state === 'uninitialized');
        }
        const heal = cluster.isolate(sleeper);
        for (const store of [4, 5, 6]) {
          await scene.addVoter(1, store);
        }
        await cluster.mustTransferLeader(1, 4);
        for (const store of new Set([sleeper, 1, 2, 3])) {
          await scene.remove(1, store);
        }
        await cluster.advance(scene.rng.below(3_000));
        // Sometimes only the placement service is left to ask.
        const silent = scene.rng.chance(0.3) ? cluster.drop((m) => m.to.storeId === sleeper) : () => {};
        heal();
        gate.release();
        await scene.gone(1, sleeper, 120_000);
        silent();
        expect(scene.region(1).peers.map((p) => Number(p.storeId))).toEqual([4, 5, 6]);
      },
    );
  }

  scenario('T-04 a learner removed behind its back asks and goes, also after a restart', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    await scene.addLearner(1, 4);
    await scene.data(1, 4);
    const heal = cluster.isolate(4);
    await scene.remove(1, 4);
    await cluster.advance(scene.rng.below(3_000));
    if (scene.rng.chance(0.5)) {
      cluster.crash(4);
      await cluster.restart(4);
    }
    heal();
    // A read that it forwards is answered, one way or the other.
    const s = scene.status(4, 1);
    if (s !== undefined && s.state === 'normal') {
      const answer = cluster.readAt(4, s.region, peerId(s.peerId), 'a', true);
      expect(await cluster.run(answer)).toMatchObject({ error: {} });
    }
    await scene.gone(1, 4);
  });

  scenario('T-05 the last living node does not delete itself', async (scene) => {
    const cluster = await scene.start();
    await cluster.settle();
    cluster.crash(2);
    cluster.crash(3);
    // Long enough to ask everybody, the placement service included, several times.
    await cluster.advance(15_000);
    expect(scene.status(1, 1)?.state).toBe('normal');
    expect(scene.status(1, 1)?.role).not.toBe('leader');
    expect(await cluster.valueOn(1, 'a')).toBe('1');
    await cluster.restart(2);
    await scene.put('b', '1');
  });

  scenario('T-08 a replica that ends slowly gets mail, and its store restarts meanwhile', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: SMALL_LOG });
    scene.traffic(['m~', 'n~'], 4);
    cluster.oldMail.capacity = 300;
    await scene.addVoter(1, 4);
    await cluster.advance(300);
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [100, 400] });
    const held = scene.actors.hold((post) => post.store === 4 && post.msg.type === 'apply-destroyed');
    await scene.remove(1, 4);
    for (let i = 0; i < 100; i++) {
      cluster.replayOldMail(scene.rng);
      await cluster.advance(2);
    }
    if (scene.rng.chance(0.5)) {
      cluster.crash(4);
      await cluster.restart(4);
    }
    held.release();
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [0.1, 1] });
    await scene.gone(1, 4);
    expect(scene.record(4, 1)?.state).toBe('tombstone');
  });

  scenario('T-09 mail for two incarnations in one round', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const old = await scene.addLearner(1, 4);
    await scene.data(1, 4);
    const mail = scene.hold((m) => m.to.storeId === 4);
    await scene.put('b', '1');
    await cluster.advance(300);
    await scene.remove(1, 4);
    const fresh = await scene.addLearner(1, 4);
    await cluster.until('mail for both', () => [old.id, fresh.id].every((id) => mail.held.some((m) => m.to.id === id)));
    mail.held.splice(0, mail.held.length, ...mixed(mail.held, scene.rng));
    mail.release();
    await cluster.until('the newer one has data', () => {
      const s = scene.status(4, 1);
      return s?.peerId === fresh.id && s.state === 'normal';
    });
  });

  scenario('T-10 an empty replica that was removed stays away; a newer one may come', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    cluster.oldMail.capacity = 1_000;
    const gate = scene.holdSnapshots((m) => m.to.storeId === 4);
    const old = await scene.addLearner(1, 4);
    await cluster.until('an empty replica', () => scene.status(4, 1)?.state === 'uninitialized');
    await scene.remove(1, 4);
    await scene.gone(1, 4);
    expect(scene.record(4, 1)).toMatchObject({ state: 'tombstone', region: { peers: [{ id: old.id }] } });
    for (let i = 0; i < 100; i++) {
      cluster.replayOldMail(scene.rng);
      await cluster.advance(1);
    }
    expect(scene.status(4, 1)).toBeUndefined();
    gate.release();
    await scene.addLearner(1, 4);
    await scene.data(1, 4);
  });

  scenario(
    'T-11 what the placement service says counts only if it is not older than what the replica knows',
    async (scene) => {
      const cluster = await scene.start({ stores: 4 });
      await scene.addLearner(1, 4);
      await scene.data(1, 4);
      await cluster.settle();
      const heal = cluster.isolate(4);
      const answer = scene.rng.pick(['older', 'unknown', 'listed', 'newer without it'] as const);
      const region = scene.region(1);
      const others = region.peers.filter((p) => p.storeId !== 4);
      const newer = { ...region.epoch, confVer: region.epoch.confVer + 1 };
      const told: Record<typeof answer, Region | undefined> = {
        older: { ...region, epoch: { confVer: 1, version: 1 }, peers: others },
        unknown: undefined,
        listed: region,
        'newer without it': { ...region, epoch: newer, peers: others },
      };
      if (answer === 'newer without it') {
        await scene.remove(1, 4);
      }
      cluster.regionAnswer = () => told[answer];
      await cluster.advance(15_000);
      expect(scene.status(4, 1)?.state).toBe(answer === 'newer without it' ? undefined : 'normal');
      heal();
    },
  );
});

describe('tombstones and gc messages', () => {
  const EPOCHS = ['older', 'equal', 'newer'] as const;
  const IDS = ['smaller', 'equal', 'larger'] as const;
  const BODIES: readonly PeerMessageBody[] = [
    { type: 'raft', message: rawMessage(MsgType.Vote, 9) },
    { type: 'raft', message: rawMessage(MsgType.PreVote, 9) },
    { type: 'raft', message: rawMessage(MsgType.App, 9) },
    { type: 'raft', message: rawMessage(MsgType.Heartbeat, 9) },
    { type: 'check-stale-peer' },
    { type: 'wake-up' },
    { type: 'gc', mergeTarget: undefined },
  ];

  /** Store 4 had a replica that was removed; `own` is what it was. */
  async function buried(scene: Scene): Promise<{ own: Peer; grave: Region }> {
    const { cluster } = scene;
    const own = await scene.addLearner(1, 4);
    await scene.data(1, 4);
    await cluster.settle();
    await scene.remove(1, 4);
    await scene.gone(1, 4);
    const grave = scene.record(4, 1)?.region as Region;
    expect(grave.peers.map((p) => Number(p.storeId))).toEqual([1, 2, 3, 4]);
    cluster.isolate(4);
    // What was on its way from before.
    await cluster.advance(200);
    return { own, grave };
  }

  scenario(
    'T-06 a tombstone answers by epoch, sender and kind of message, and only a newer member is created',
    async (scene) => {
      const cluster = await scene.start({ stores: 5, network: { duplicateChance: 0 } });
      const { own, grave } = await buried(scene);
      const answers = answersOf(scene, 4, 1);
      const epochOf = (kind: (typeof EPOCHS)[number]): RegionEpoch => ({
        version: grave.epoch.version,
        confVer: grave.epoch.confVer + EPOCHS.indexOf(kind) - 1,
      });
      const stranger = scene.newPeer(5);
      for (const body of BODIES) {
        for (const kind of EPOCHS) {
          for (const id of IDS) {
            for (const from of [scene.peerOn(1, 1), stranger]) {
              // A larger id with an epoch that is not older is a new member; that is T-01.
              if (id === 'larger' && kind !== 'older') {
                continue;
              }
              answers.sent.length = 0;
              const to = { ...own, id: peerId(own.id + IDS.indexOf(id) - 1) };
              cluster.filters.clear();
              const block = cluster.drop((m) => {
                if (m.from.storeId === 4) {
                  answers.sent.push(m);
                }
                return m.from.storeId === 4 || m.to.storeId === 4;
              });
              scene.deliver(letter({ from, to, epoch: epochOf(kind), region: grave, body }));
              await cluster.advance(60);
              block();
              cluster.isolate(4);
              const isMember = from !== stranger;
              const isVote =
                body.type === 'raft' && (body.message.type === MsgType.Vote || body.message.type === MsgType.PreVote);
              const expected =
                body.type === 'gc' || kind !== 'older'
                  ? []
                  : isMember
                    ? isVote || body.type !== 'raft'
                      ? ['check-stale-peer-response']
                      : []
                    : ['gc'];
              const what = `${body.type === 'raft' ? body.message.type : body.type} ${kind} ${id} ${isMember}`;
              expect(
                answers.sent.map((m) => m.body.type),
                what,
              ).toEqual(expected);
              expect(scene.status(4, 1), what).toBeUndefined();
            }
          }
        }
      }
    },
  );

  scenario('T-07 a gc message is believed only if it is newer and names the very replica', async (scene) => {
    const cluster = await scene.start();
    await cluster.settle();
    const region = scene.region(1);
    const [leader, own] = [scene.peerOn(1, 1), scene.peerOn(1, 3)];
    const gc = (to: Peer, confVer: number): void => {
      const epoch = { version: region.epoch.version, confVer };
      scene.deliver(letter({ from: leader, to, epoch, region, body: { type: 'gc', mergeTarget: undefined } }));
    };
    gc(own, region.epoch.confVer);
    gc(own, region.epoch.confVer - 1);
    gc({ ...own, id: peerId(own.id - 1) }, region.epoch.confVer + 5);
    await cluster.advance(2_000);
    expect(scene.status(3, 1)).toMatchObject({ state: 'normal', peerId: own.id });
    // A true one: what is committed is applied first, as far as the store knows it.
    const resume = scene.pause(3, 'apply::before-change-peer', 1);
    await scene.put('b', '1');
    await scene.remove(1, 3);
    await cluster.advance(scene.rng.below(1_000));
    resume();
    await scene.gone(1, 3);
    expect(scene.record(3, 1)?.state).toBe('tombstone');
  });
});
