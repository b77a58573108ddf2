/** Scripted schedules of membership changes, leader transfers and elections. */
import { describe, expect } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { logIndex, peerId, storeId } from '../../src/base/ids.ts';
import type { WriteBatch } from '../../src/env/engine.ts';
import { createMemoryEngineFactory, raftLogKey } from '../../src/engine/index.ts';
import { findPeerOnStore, isInJointState, type Peer } from '../../src/meta/region.ts';
import type { PeerChange } from '../../src/meta/heartbeat.ts';
import { MsgType } from '../../src/raft/types.ts';
import { SimClock } from '../sim/scheduler.ts';
import { scenario, SMALL_LOG, type Scene } from './support/scene.ts';

const change = (...changes: PeerChange[]) => ({ type: 'change-peer' as const, changes });

const termOn = (scene: Scene, store: number): number => scene.status(store, 1)?.term ?? 0;

const leaders = (scene: Scene): number[] =>
  [...scene.cluster.machines.keys()].filter((store) => scene.status(store, 1)?.role === 'leader');

/** Changes the disk of a store that is down. */
async function editDisk(scene: Scene, store: number, edit: (batch: WriteBatch) => void): Promise<void> {
  const { disk } = scene.cluster.machine(store);
  disk.crash('kill');
  const clock = new SimClock(scene.cluster.scheduler, store);
  const factory = createMemoryEngineFactory(disk, clock);
  const engine = await scene.cluster.run(factory.open({ path: 'db', createIfMissing: false }));
  const batch = engine.createBatch();
  edit(batch);
  await scene.cluster.run(engine.write(batch));
  disk.crash('kill');
}

describe('membership', () => {
  scenario('C-01 a learner becomes a voter, then leaves; the counters say so', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    scene.traffic(['m~', 'n~']);
    const peer = await scene.addLearner(1, 4);
    expect(scene.region(1).epoch.confVer).toBe(2);
    await scene.data(1, 4);
    expect(await cluster.valueOn(4, 'a')).toBe('1');
    await scene.promote(1, peer);
    expect(scene.region(1).epoch.confVer).toBe(3);
    expect(scene.peerOn(1, 4).role).toBe('voter');
    await scene.remove(1, 4);
    expect(scene.region(1).epoch).toEqual({ confVer: 4, version: 1 });
    await scene.gone(1, 4);
    expect(scene.record(4, 1)).toMatchObject({ state: 'tombstone', mergeState: undefined });
  });

  scenario('C-02 changes that make no sense are refused and change nothing', async (scene) => {
    await scene.start({ stores: 5 });
    const learner = await scene.addLearner(1, 4);
    await scene.cluster.settle();
    const { epoch } = scene.region(1);
    const own = scene.peerOn(1, 1);
    const other = scene.peerOn(1, 2);
    const stranger: Peer = { id: peerId(77), storeId: storeId(5), role: 'voter' };
    const senseless: readonly (readonly [string, readonly PeerChange[]])[] = [
      ['RoleUnchanged', [{ type: 'add-learner', peer: learner }]],
      ['RoleUnchanged', [{ type: 'add-voter', peer: other }]],
      ['StoreHasPeer', [{ type: 'add-learner', peer: { ...other, id: peerId(78) } }]],
      ['PeerOnOtherStore', [{ type: 'add-learner', peer: { ...other, storeId: storeId(5) } }]],
      ['PeerNotFound', [{ type: 'remove', peer: stranger }]],
      ['PeerNotFound', [{ type: 'remove', peer: { ...other, id: peerId(79) } }]],
      ['RemovesLeader', [{ type: 'remove', peer: own }]],
      ['RemovesLeader', [{ type: 'add-learner', peer: { ...own, role: 'learner' } }]],
      ['NotInJointState', []],
      [
        'VoterRemovedInJoint',
        [
          { type: 'add-voter', peer: learner },
          { type: 'remove', peer: other },
        ],
      ],
      [
        'DuplicateChange',
        [
          { type: 'add-voter', peer: learner },
          { type: 'remove', peer: learner },
        ],
      ],
    ];
    for (const [code, changes] of senseless) {
      expect(await scene.attempt(1, change(...changes)), code).toBe(code);
    }
    expect(scene.region(1).epoch).toEqual(epoch);
  });

  scenario('C-03 one change at a time, and none before a new leader has applied its term', async (scene) => {
    const cluster = await scene.start({ stores: 5 });
    scene.pause(1, 'apply::before-change-peer', 1);
    const first = cluster.admin(1, change({ type: 'add-learner', peer: scene.newPeer(4) }));
    await cluster.until('it is in the log', () => (cluster.hits.get('apply::before-change-peer')?.times ?? 0) > 0);
    expect(await scene.attempt(1, change({ type: 'add-learner', peer: scene.newPeer(5) }))).toBe('message');
    cluster.failpoints.clear();
    expect(await cluster.run(first)).toMatchObject({ type: 'ok' });
    await cluster.settle();
    // Nobody but the old leader applies anything more; then that leader dies.
    for (const store of [2, 3, 4]) {
      scene.pause(store, 'apply::before-write', 1);
    }
    await scene.put('b', '1');
    await cluster.advance(300);
    cluster.crash(1);
    await cluster.until('another leader', () => leaders(scene).length > 0);
    expect(await scene.attempt(1, change({ type: 'add-learner', peer: scene.newPeer(5) }))).toBe('message');
    cluster.failpoints.clear();
    await scene.addLearner(1, 5);
  });

  scenario('C-04 a leader that finds itself removed answers everybody and leaves the others working', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['m~', 'n~'], 5);
    await cluster.mustTransferLeader(1, 2);
    scene.pause(1, 'apply::before-change-peer', 1);
    await scene.remove(1, 1);
    await cluster.until('the rest applied it', () => scene.status(3, 1)?.region.peers.length === 2);
    const silent = cluster.isolate(2);
    // Store 1 believes in the old membership and tries to lead; store 3 knows better.
    const gc = scene.hold((m) => m.body.type === 'gc');
    await cluster.advance(4_000);
    cluster.failpoints.clear();
    await scene.gone(1, 1);
    gc.release();
    silent();
    await scene.put('b', 'two are enough');
  });

  scenario(
    'C-04 and C-10 a leader that is being demoted hands over before the joint membership is left',
    async (scene) => {
      const cluster = await scene.start({ stores: 4 });
      const fresh = await scene.addLearner(1, 4);
      await scene.data(1, 4);
      const own = scene.peerOn(1, 1);
      await scene.mustChange(1, [
        { type: 'add-voter', peer: { ...fresh, role: 'voter' } },
        { type: 'add-learner', peer: { ...own, role: 'learner' } },
      ]);
      scene.traffic(['m~']);
      await cluster.mustTransferLeader(1, 1);
      expect(await scene.attempt(1, change())).toBe('RemovesLeader');
      await cluster.mustTransferLeader(1, scene.rng.pick([2, 3, 4]));
      await cluster.settle();
      expect(await scene.attempt(1, change())).toBe('ok');
      await scene.remove(1, 1);
      await scene.gone(1, 1);
    },
  );

  scenario('C-05 a change that would leave no quorum alive is refused', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const [deaf, other] = scene.rng.pick([[2, 3] as const, [3, 2] as const]);
    cluster.crash(deaf);
    await cluster.advance(5_000);
    const victim = scene.peerOn(1, other);
    expect(await scene.attempt(1, change({ type: 'remove', peer: victim }))).toBe('WouldLoseQuorum');
    // Two replicas, one dead: the dead one cannot be outvoted, the living one must not go.
    await scene.mustChange(1, [{ type: 'remove', peer: scene.peerOn(1, deaf) }]);
    cluster.crash(other);
    await cluster.advance(800);
    const outcome = await scene.attempt(1, change({ type: 'remove', peer: victim }));
    expect(outcome).not.toBe('ok');
    await cluster.restart(other);
    await cluster.restart(deaf);
    await scene.gone(1, deaf);
  });

  scenario('C-05 a quorum of replicas that lack the compacted log is not made', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: SMALL_LOG });
    const deaf = cluster.drop(
      (m) => m.to.storeId === 3 && m.body.type === 'raft' && m.body.message.type === MsgType.App,
    );
    const snapshots = scene.holdSnapshots((m) => m.to.storeId === 3);
    await scene.fill('b', 30);
    await cluster.advance(2_000);
    const { firstIndex } = scene.status(1, 1) as { firstIndex: number };
    expect(scene.status(3, 1)?.lastIndex).toBeLessThan(firstIndex);
    // Of {1, 3} both would have to agree, and 3 cannot hold what the log of 1 no longer has.
    expect(await scene.attempt(1, change({ type: 'remove', peer: scene.peerOn(1, 2) }))).toBe('WouldLackLog');
    await scene.put('c', 'still writable');
    snapshots.release();
    deaf();
    await cluster.settle();
    await scene.remove(1, 2);
  });

  for (const size of [3, 5] as const) {
    scenario(`C-06 a change while the leader of ${size} is in the minority makes no second group`, async (scene) => {
      const firstPeers = Array.from({ length: size }, (_, i) => [i + 1, 'voter'] as const);
      const cluster = await scene.start({ stores: size + 1, firstPeers });
      scene.traffic(['m~', 'n~'], 4);
      const minority = size === 3 ? [1] : [1, 2];
      const heal = cluster.drop((m) => minority.includes(m.from.storeId) !== minority.includes(m.to.storeId));
      const region = scene.region(1);
      const victim = findPeerOnStore(region, storeId(size)) as Peer;
      const lost = cluster.admin(1, change({ type: 'remove', peer: victim }));
      await cluster.until('a leader of the majority', () => leaders(scene).some((store) => !minority.includes(store)));
      await scene.remove(1, 1);
      await scene.put('b', 'majority');
      await cluster.advance(scene.rng.below(2_000));
      heal();
      await cluster.run(lost);
      await scene.gone(1, 1);
      expect(scene.region(1).peers).toHaveLength(size - 1);
      expect(scene.region(1).peers.some((p) => p.storeId === size)).toBe(true);
    });
  }

  scenario(
    'C-07 a follower removed while away goes when it comes back, and does not disturb the others',
    async (scene) => {
      const cluster = await scene.start();
      await cluster.settle();
      const term = termOn(scene, 1);
      const heal = cluster.isolate(3);
      await scene.remove(1, 3);
      await cluster.advance(scene.rng.below(6_000));
      heal();
      await scene.gone(1, 3);
      expect(termOn(scene, 1)).toBe(term);
      expect(cluster.leaderStore(1)).toBe(1);
    },
  );

  scenario('C-08 a learner is promoted before its first snapshot arrives', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const snapshots = scene.holdSnapshots((m) => m.to.storeId === 4);
    const peer = await scene.addLearner(1, 4);
    await cluster.until('a snapshot on its way', () => snapshots.held.length > 0);
    await scene.promote(1, peer);
    await scene.put('b', '1');
    await cluster.advance(scene.rng.below(3_000));
    snapshots.release();
    await scene.data(1, 4);
    await cluster.settle();
    expect(scene.status(4, 1)?.region.peers.find((p) => p.storeId === 4)?.role).toBe('voter');
    // It counts: with it, any three of the four do.
    cluster.crash(3);
    await scene.put('c', '1');
  });

  scenario(
    'C-09 requests, ticks and results that meet a dying replica are answered and have no effect',
    async (scene) => {
      const cluster = await scene.start();
      scene.traffic(['m~', 'n~'], 8);
      const slow = scene.rng.pick([1, 40, 200]);
      cluster.machine(3).disk.setBehavior({ writeDelayMs: [slow, 2 * slow] });
      const resume = scene.pause(3, 'apply::before-write', 1);
      await cluster.advance(scene.rng.below(100));
      await scene.remove(1, 3);
      cluster.scheduler.at(scene.rng.below(400), resume);
      await scene.gone(1, 3);
      cluster.machine(3).disk.setBehavior({ writeDelayMs: [0.1, 1] });
      await cluster.advance(7_000);
      expect(await cluster.keysOn(3)).toEqual([]);
    },
  );
});

describe('membership and compaction', () => {
  scenario('C-01 a change compacted in its own apply batch still reaches the consensus core', async (scene) => {
    const cluster = await scene.start({
      stores: 4,
      config: { logGcThreshold: 1, logGcCountLimit: 4, mergeMaxLogGap: 3 },
    });
    await scene.addVoter(1, 4);
    await cluster.settle();
    // Store 2 applies the removal and the compaction behind it in one go.
    const resume = scene.pause(2, 'apply::before-change-peer', 1);
    await scene.remove(1, 3);
    await scene.fill('b', 20);
    await cluster.advance(1_000);
    resume();
    await cluster.settle();
    await cluster.mustTransferLeader(1, 2);
    await cluster.advance(3_000);
    await scene.gone(1, 3);
  });
});

describe('joint membership', () => {
  /** Two of three voters are replaced in one step, which is not finished yet. */
  async function enterJoint(scene: Scene): Promise<void> {
    const cluster = await scene.start({ stores: 5 });
    const fresh = [await scene.addLearner(1, 4), await scene.addLearner(1, 5)];
    await scene.data(1, 4);
    await scene.data(1, 5);
    const old = [2, 3].map((store) => scene.peerOn(1, store));
    const { confVer } = scene.region(1).epoch;
    await scene.mustChange(1, [
      ...fresh.map((peer) => ({ type: 'add-voter' as const, peer: { ...peer, role: 'voter' as const } })),
      ...old.map((peer) => ({ type: 'add-learner' as const, peer: { ...peer, role: 'learner' as const } })),
    ]);
    expect(scene.region(1).epoch.confVer).toBe(confVer + 4);
    expect(isInJointState(scene.region(1))).toBe(true);
    await cluster.settle();
  }

  /** Elections may have been won by one that is to go: it is no leader for the time after. */
  async function finish(scene: Scene): Promise<void> {
    await scene.cluster.mustTransferLeader(1, scene.rng.pick([1, 4, 5]));
    await scene.cluster.settle();
    await scene.cluster.until('the joint membership is left', () => {
      if (scene.cluster.scheduler.steps % 500 === 0) {
        void scene.cluster.admin(1, change());
      }
      return !isInJointState(scene.region(1));
    });
    for (const store of [2, 3]) {
      await scene.remove(1, store);
      await scene.gone(1, store);
    }
    expect(scene.region(1).peers.map((p) => [Number(p.storeId), p.role])).toEqual([
      [1, 'voter'],
      [4, 'voter'],
      [5, 'voter'],
    ]);
  }

  scenario('C-10 two of three are replaced at once; nothing but leaving is allowed in between', async (scene) => {
    await enterJoint(scene);
    const { cluster } = scene;
    scene.traffic(['m~', 'n~']);
    expect(await scene.attempt(1, change({ type: 'remove', peer: scene.peerOn(1, 4) }))).toBe('InJointState');
    const two: readonly PeerChange[] = [
      { type: 'remove', peer: scene.peerOn(1, 2) },
      { type: 'remove', peer: scene.peerOn(1, 3) },
    ];
    expect(await scene.attempt(1, change(...two))).toBe('InJointState');
    await scene.put('b', '1');
    for (const store of cluster.machines.keys()) {
      cluster.crash(store, scene.rng.pick(['kill', 'power-loss'] as const));
    }
    for (const store of cluster.machines.keys()) {
      await cluster.restart(store);
    }
    await cluster.mustLeader(1);
    expect(isInJointState(scene.region(1))).toBe(true);
    await scene.put('c', '1');
    await finish(scene);
  });

  scenario('C-10 both majorities are needed, and a leader may come from either side', async (scene) => {
    await enterJoint(scene);
    const { cluster } = scene;
    scene.traffic(['m~', 'n~']);
    const next = scene.rng.pick([4, 5]);
    await cluster.mustTransferLeader(1, next);
    cluster.crash(next);
    await cluster.until('another leader', () => leaders(scene).some((store) => store !== next));
    await cluster.restart(next);
    // One side without its majority stops the region, whatever the other has.
    const side = scene.rng.pick([[2, 3] as const, [4, 5] as const]);
    const heal = cluster.drop((m) => side.some((s) => s === m.from.storeId || s === m.to.storeId));
    await cluster.advance(3_000);
    const write = cluster.writeOnce([{ type: 'put', key: utf8('q'), value: utf8('x'), expireAtSeconds: 0 }], 'q');
    const outcome = await cluster.run(Promise.race([write, cluster.sleep(3_000).then(() => ({ type: 'silence' }))]));
    expect(outcome.type).not.toBe('ok');
    heal();
    await finish(scene);
  });

  scenario('C-10 a region in a joint membership is not merged', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const { left, right } = await scene.split();
    const fresh = await scene.addLearner(left.id, 4);
    await scene.data(left.id, 4);
    await scene.mustChange(left.id, [
      { type: 'add-voter', peer: { ...fresh, role: 'voter' } },
      { type: 'add-learner', peer: { ...scene.peerOn(left.id, 3), role: 'learner' } },
    ]);
    await cluster.settle();
    expect(await scene.attempt(left.id, { type: 'merge', target: scene.region(right.id) })).not.toBe('ok');
    expect(await scene.attempt(right.id, { type: 'merge', target: scene.region(left.id) })).not.toBe('ok');
    await scene.put('b', 'still writable');
    await cluster.mustAdmin(left.id, () => change());
    await scene.remove(left.id, 3);
  });
});

describe('leader transfer', () => {
  scenario('C-11 leadership is not given to learners, strangers, or those that lag', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: { ...SMALL_LOG, leaderTransferMaxLogLag: 10 } });
    const learner = await scene.addLearner(1, 4);
    await cluster.settle();
    const transfer = (peer: Peer) => scene.attempt(1, { type: 'transfer-leader', peer });
    expect(await transfer(learner)).toBe('NotAVoter');
    expect(await transfer({ ...learner, id: peerId(77) })).toBe('UnknownPeer');
    const heal = cluster.isolate(3);
    await scene.fill('b', 15);
    expect(await transfer(scene.peerOn(1, 3))).toMatch(/TargetLags|SnapshotPending/);
    await scene.fill('c', 15);
    await cluster.advance(2_000);
    const snapshots = scene.holdSnapshots((m) => m.to.storeId === 3);
    heal();
    await cluster.until('a snapshot on its way', () => snapshots.held.length > 0);
    // Whoever waits for a snapshot would wait longer without its leader.
    expect(await transfer(scene.peerOn(1, 2))).toBe('SnapshotPending');
    expect(cluster.leaderStore(1)).toBe(1);
    snapshots.release();
    await cluster.settle();
    await cluster.mustTransferLeader(1, 3);
  });

  scenario(
    'C-11 writes during a transfer are refused, not lost, and an aborted transfer restores service',
    async (scene) => {
      const cluster = await scene.start();
      scene.traffic(['m~', 'n~'], 4);
      await cluster.advance(300);
      const heal = scene.rng.chance(0.5)
        ? cluster.isolate(2)
        : cluster.drop((m) => m.body.type === 'raft' && m.body.message.type === MsgType.TimeoutNow);
      await scene.attempt(1, { type: 'transfer-leader', peer: scene.peerOn(1, 2) });
      // An election timeout without a successor, and the old leader goes on.
      await scene.put('b', '1');
      expect(cluster.leaderStore(1)).toBe(1);
      heal();
      await cluster.mustTransferLeader(1, 2);
      await scene.put('c', '1');
    },
  );

  for (const behind of ['leader', 'transferee'] as const) {
    scenario(`C-12 leadership moves while the ${behind} has not applied a membership change`, async (scene) => {
      const cluster = await scene.start({ stores: 4 });
      scene.traffic(['m~'], 2);
      scene.pause(behind === 'leader' ? 1 : 2, 'apply::before-change-peer', 1);
      const victim = scene.rng.pick([2, 3]);
      const transferee = scene.peerOn(1, 2);
      const removal = cluster.admin(1, change({ type: 'remove', peer: scene.peerOn(1, victim) }));
      await cluster.advance(scene.rng.below(300));
      await scene.attempt(1, { type: 'transfer-leader', peer: transferee });
      await cluster.advance(scene.rng.below(2_000));
      cluster.failpoints.clear();
      await cluster.run(removal);
      await cluster.until('a leader that is a voter', () => {
        const leader = cluster.leaderStore(1);
        return leader !== undefined && findPeerOnStore(scene.region(1), storeId(leader))?.role === 'voter';
      });
      await scene.put('b', '1');
      if (!scene.region(1).peers.some((p) => p.storeId === victim)) {
        await scene.gone(1, victim);
      }
    });

    scenario(`C-12 leadership moves while the ${behind} has not applied a split`, async (scene) => {
      const cluster = await scene.start();
      scene.traffic(['b~', 'y~'], 3);
      scene.pause(behind === 'leader' ? 1 : 2, 'apply::before-split', 1);
      const split = cluster.admin(1, { type: 'split', keys: [utf8('k')] });
      await cluster.advance(scene.rng.below(300));
      await scene.attempt(1, { type: 'transfer-leader', peer: scene.peerOn(1, 2) });
      await cluster.advance(scene.rng.below(2_000));
      cluster.failpoints.clear();
      await cluster.run(split);
      await scene.put('b', '1');
      await scene.put('y', '1');
    });
  }
});

describe('elections and logs', () => {
  scenario('C-13 entries commit without the disk of their leader, and survive it', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['m~', 'n~'], 4);
    cluster.machine(1).disk.setBehavior({ writeDelayMs: [300, 700] });
    await cluster.advance(scene.rng.below(2_000));
    await cluster.until('the leader commits what it has not persisted', () => {
      const s = scene.status(1, 1);
      return s?.role !== 'leader' || s.commitIndex > s.appliedIndex;
    });
    cluster.crash(1, 'power-loss');
    await cluster.until('another leader', () => [2, 3].some((store) => scene.status(store, 1)?.role === 'leader'));
    await scene.put('b', '1');
    cluster.machine(1).disk.setBehavior({ writeDelayMs: [0.1, 1] });
    await cluster.restart(1);
  });

  scenario('C-14 a follower that was alone does not raise the term of the others', async (scene) => {
    const cluster = await scene.start();
    await cluster.settle();
    const term = termOn(scene, 1);
    const heal = cluster.isolate(3);
    await cluster.advance(2_000 + scene.rng.below(15_000));
    heal();
    await cluster.settle();
    expect(termOn(scene, 3)).toBe(term);
    expect(cluster.leaderStore(1)).toBe(1);
  });

  scenario('C-14 two of five alone raise no term, with the leader inside or outside', async (scene) => {
    const firstPeers = Array.from({ length: 5 }, (_, i) => [i + 1, 'voter'] as const);
    const cluster = await scene.start({ stores: 5, firstPeers });
    scene.traffic(['m~']);
    await cluster.settle();
    const term = termOn(scene, 1);
    const pair = scene.rng.pick([[4, 5] as const, [1, 2] as const]);
    const inPair = (store: number): boolean => pair.some((s) => s === store);
    const heal = cluster.drop((m) => inPair(m.from.storeId) !== inPair(m.to.storeId));
    await cluster.advance(8_000);
    expect(Math.max(...pair.map((store) => termOn(scene, store)))).toBe(term);
    await scene.put('b', 'the majority works');
    heal();
    await cluster.settle();
    // One election if the leader was cut off, none otherwise.
    expect(termOn(scene, 3)).toBeGreaterThanOrEqual(inPair(1) ? term + 1 : term);
    if (!inPair(1)) {
      expect(termOn(scene, 3)).toBe(term);
      expect(cluster.leaderStore(1)).toBe(1);
    }
  });

  scenario('C-15 a restart takes up every position that was promised, on one store or all', async (scene) => {
    const cluster = await scene.start();
    scene.traffic(['m~', 'n~'], 5);
    for (let round = 0; round < 3; round++) {
      await cluster.advance(scene.rng.below(600));
      const victims = scene.rng.pick([[1], [2, 3], [1, 2, 3]] as const);
      for (const store of victims) {
        cluster.crash(store, scene.rng.pick(['kill', 'power-loss'] as const));
      }
      for (const store of victims) {
        await cluster.restart(store);
        const s = scene.status(store, 1);
        expect(s?.appliedIndex).toBeLessThanOrEqual(s?.commitIndex ?? 0);
        expect(s?.commitIndex).toBeLessThanOrEqual(s?.lastIndex ?? 0);
      }
      await cluster.mustLeader(1);
    }
  });

  scenario('C-15 a store whose log lost a committed entry does not start', async (scene) => {
    const cluster = await scene.start();
    await scene.fill('b', 5);
    await cluster.settle();
    const { commitIndex } = scene.status(3, 1) as { commitIndex: number };
    const key = raftLogKey(scene.region(1).id, logIndex(commitIndex));
    const entry = cluster.machine(3).engine?.getSync(key) as Uint8Array;
    cluster.crash(3, 'kill');
    await editDisk(scene, 3, (batch) => batch.del(key));
    await expect(cluster.restart(3)).rejects.toThrow(/committed/);
    await editDisk(scene, 3, (batch) => batch.put(key, entry));
    await cluster.restart(3);
  });
});
