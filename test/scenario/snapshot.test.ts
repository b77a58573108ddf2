/** Scripted schedules of snapshots: late, doubled, overlapping, interrupted and damaged ones. */
import { describe, expect } from 'vitest';
import { assert } from '../../src/base/assert.ts';
import { compareBytes } from '../../src/base/bytes.ts';
import type { KeyRange } from '../../src/base/key-range.ts';
import { MsgType } from '../../src/raft/types.ts';
import { logIndex, regionId } from '../../src/base/ids.ts';
import { raftLogRange, stagingRangeFrom } from '../../src/engine/index.ts';
import type { FailpointName } from '../../src/env/failpoint-names.ts';
import { scenario, SMALL_LOG, type Scene } from './support/scene.ts';

/** Entries of a region's log on a store's disk. */
const logEntries = (scene: Scene, store: number, region: number): number =>
  rowsIn(scene, store, raftLogRange(regionId(region), logIndex(0), logIndex(1_000_000)));

/** Rows of received snapshots on a store's disk. */
const stagedRows = (scene: Scene, store: number): number => rowsIn(scene, store, stagingRangeFrom(0));

function rowsIn(scene: Scene, store: number, { start, end }: KeyRange): number {
  let count = 0;
  for (const [key] of scene.cluster.machine(store).disk.database('db')?.view.entriesFrom(start) ?? []) {
    if (compareBytes(key, end) >= 0) {
      break;
    }
    count++;
  }
  return count;
}

/** Store 3 is cut off until the others have compacted what it lacks. Returns what brings it back. */
async function leaveBehind(scene: Scene, store: number): Promise<() => void> {
  const heal = scene.cluster.isolate(store);
  await scene.fill('b', 25);
  await scene.cluster.until(`store ${store} needs a snapshot`, () => {
    const lagging = scene.status(store, 1)?.lastIndex ?? 0;
    const leader = scene.cluster.leaderStore(1);
    return leader !== undefined && (scene.status(leader, 1)?.firstIndex ?? 0) > lagging + 1;
  });
  return heal;
}

describe('snapshots', () => {
  scenario(
    'P-01 a new and a lagging replica get data, membership and log positions, also from a new leader',
    async (scene) => {
      const cluster = await scene.start({ stores: 4, config: SMALL_LOG });
      scene.traffic(['m~']);
      const heal = await leaveBehind(scene, 3);
      const peer = await scene.addLearner(1, 4);
      if (scene.rng.chance(0.5)) {
        await cluster.mustTransferLeader(1, 2);
      }
      heal();
      await scene.data(1, 4);
      await scene.promote(1, peer);
      await cluster.until('store 3 caught up', () => scene.status(3, 1)?.region.epoch.confVer === 3);
      // Whoever was restored knows enough to lead.
      await cluster.settle();
      await cluster.mustTransferLeader(1, scene.rng.pick([3, 4]));
      await scene.put('c', 'after');
    },
  );

  scenario('P-02 and P-03 old snapshots that arrive after newer ones, or all at once, are ignored', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: SMALL_LOG });
    const first = scene.holdSnapshots((m) => m.from.storeId === 1);
    await scene.addLearner(1, 4);
    await cluster.until('a snapshot of store 1', () => first.held.length > 0);
    const together = scene.rng.chance(0.5);
    const second = together ? scene.holdSnapshots((m) => m.from.storeId === 2) : undefined;
    cluster.crash(1);
    await cluster.until('another leader', () => [2, 3].some((store) => scene.status(store, 1)?.role === 'leader'));
    const next = cluster.leaderStore(1) as number;
    await scene.fill('b', 15);
    if (second === undefined || next !== 2) {
      await scene.data(1, 4);
      expect(scene.status(4, 1)?.appliedIndex).toBeGreaterThan(scene.status(4, 1)?.firstIndex ?? 0);
    } else {
      await cluster.until('a snapshot of store 2', () => second.held.length > 0);
      second.release();
    }
    const applied = scene.status(4, 1)?.appliedIndex ?? 0;
    first.release();
    await cluster.advance(scene.rng.below(500));
    expect(scene.status(4, 1)?.appliedIndex).toBeGreaterThanOrEqual(applied);
    await cluster.restart(1);
  });

  scenario('P-03 appends and heartbeats overtake a snapshot, and come twice', async (scene) => {
    const cluster = await scene.start({ config: SMALL_LOG, network: { duplicateChance: 0.3 } });
    scene.traffic(['m~', 'n~']);
    const heal = await leaveBehind(scene, 3);
    const snapshots = scene.holdSnapshots((m) => m.to.storeId === 3);
    heal();
    for (let round = 0; round < 3; round++) {
      await cluster.until('a snapshot', () => snapshots.held.length > 0);
      await scene.put(`c${round}`, 'x');
      await scene.depose(1);
    }
    snapshots.release();
    await cluster.settle();
  });

  scenario('P-03 entries that come while an accepted snapshot waits for apply are kept with it', async (scene) => {
    const cluster = await scene.start({ config: SMALL_LOG });
    // Entries that are being applied hold the snapshot back.
    const writes = scene.actors.hold(({ store, region, msg }) => store === 3 && region === 1 && msg.type === 'applied');
    await scene.put('a', 'held');
    await cluster.until('something applied on store 3', () => writes.caught > 0);
    const heal = await leaveBehind(scene, 3);
    const snapshots = scene.holdSnapshots((m) => m.to.storeId === 3);
    heal();
    await cluster.until('a snapshot', () => snapshots.held.length > 0);
    // An answer that is late lets the leader go on behind the snapshot before it was told that it is stored.
    const answers = scene.hold(
      ({ regionId, from, body }) =>
        regionId === 1 && from.storeId === 3 && body.type === 'raft' && body.message.type === MsgType.HeartbeatResp,
    );
    await cluster.advance(scene.rng.below(300));
    snapshots.release();
    await cluster.until('the snapshot is accepted', () => scene.status(3, 1)?.state === 'installing');
    await cluster.advance(20);
    answers.release();
    await scene.fill('d', 4);
    await cluster.advance(500 + scene.rng.below(300));
    writes.release();
    await scene.put('e', 'after');
    // It has everything it says it has: also after a restart, also as leader.
    cluster.crash(3);
    await cluster.restart(3);
    await cluster.settle();
    await cluster.mustTransferLeader(1, 3);
    await scene.put('f', 'later');
  });

  scenario('P-04 of two snapshots that overlap, from before and after a split, one at most is taken', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const parents = scene.holdSnapshots((m) => m.regionId === 1 && m.to.storeId === 4 && m.epoch.version === 1);
    const children = scene.holdSnapshots((m) => m.regionId !== 1 && m.to.storeId === 4);
    await scene.addLearner(1, 4);
    await cluster.until('a snapshot of the parent', () => parents.held.length > 0);
    const [left] = await cluster.mustSplit('k');
    await cluster.until('a snapshot of the child', () => children.held.length > 0);
    const resume = scene.pause(4, 'snapshot::before-install');
    const [one, two] = scene.rng.chance(0.5) ? [parents, children] : [children, parents];
    one.release();
    cluster.scheduler.at(scene.rng.pick([0, 0, 0.5, 5, 50]), two.release);
    await cluster.advance(200);
    const installing = [1, left.id].filter((region) => scene.status(4, region)?.state === 'installing');
    expect(installing.length).toBeLessThanOrEqual(1);
    resume();
    await scene.data(1, 4);
    await scene.data(left.id, 4);
  });

  for (const moment of ['pending', 'installing'] as const) {
    scenario(`P-05 a newer replica is wanted while the snapshot of the old one is ${moment}`, async (scene) => {
      const cluster = await scene.start({ stores: 4 });
      const snapshots = scene.holdSnapshots((m) => m.to.storeId === 4);
      const resume = scene.pause(4, 'snapshot::before-install');
      const old = await scene.addLearner(1, 4);
      await cluster.until('a snapshot', () => snapshots.held.length > 0);
      if (moment === 'installing') {
        snapshots.release();
        await cluster.until('the installation', () => scene.status(4, 1)?.state === 'installing');
      }
      await scene.remove(1, 4);
      const fresh = await scene.addLearner(1, 4);
      expect(fresh.id).toBeGreaterThan(old.id);
      await scene.put('b', 'new');
      await cluster.advance(scene.rng.below(2_000));
      snapshots.release();
      await cluster.advance(scene.rng.below(200));
      resume();
      await cluster.until('the newer replica has data', () => {
        const s = scene.status(4, 1);
        return s?.peerId === fresh.id && s.state === 'normal';
      });
      await cluster.settle();
      expect(await cluster.valueOn(4, 'b')).toBe('new');
    });
  }

  const CRASHES: readonly FailpointName[] = [
    'peer::before-snapshot-received',
    'peer::after-snapshot-received',
    'round::before-log-write',
    'peer::before-persisted',
    'peer::after-persisted',
    'write::before-submit',
    'snapshot::before-install',
    'peer::before-snapshot-installed',
    'peer::after-snapshot-installed',
  ];

  scenario(
    'P-06 and P-07 a crash at any moment of taking a snapshot, and another while it is repeated',
    async (scene) => {
      const cluster = await scene.start({ stores: 4, config: { ...SMALL_LOG, snapshotChunkBytes: 64 } });
      const heal = await leaveBehind(scene, 3);
      const gate = scene.holdSnapshots((m) => m.to.storeId === 3);
      heal();
      await cluster.until('a snapshot', () => gate.held.length > 0);
      const point = CRASHES[(scene.seed - 1) % CRASHES.length] as FailpointName;
      scene.armDeath(3, point);
      gate.release();
      await cluster.until(`store 3 dies at ${point}`, () => !cluster.isUp(3));
      await cluster.advance(scene.rng.below(1_000));
      scene.armDeath(3, scene.rng.pick(CRASHES));
      cluster.reboot(3);
      await cluster.until(
        'store 3 died again, or lives',
        () => !cluster.isUp(3) || scene.status(3, 1)?.state === 'normal',
      );
      cluster.failpoints.clear();
      await cluster.restart(3);
      await cluster.until('the data', () => {
        const s = scene.status(3, 1);
        return s?.state === 'normal' && s.appliedIndex >= (scene.status(1, 1)?.firstIndex ?? Number.MAX_VALUE) - 1;
      });
      await cluster.settle();
      expect(await cluster.valueOn(3, 'b24')).toBe('b-24');
    },
  );

  scenario(
    'P-07 a crash during the installation: the staged snapshot is installed at the next start',
    async (scene) => {
      const cluster = await scene.start({ config: SMALL_LOG });
      const heal = await leaveBehind(scene, 3);
      scene.pause(3, 'snapshot::before-install');
      heal();
      await cluster.until('the installation', () => scene.status(3, 1)?.state === 'installing');
      await cluster.until('its record', () => scene.record(3, 1)?.state === 'applying');
      cluster.crash(3, scene.rng.pick(['kill', 'power-loss'] as const));
      // Nobody can send it again.
      const deaf = cluster.isolate(3);
      cluster.failpoints.clear();
      await cluster.restart(3);
      await scene.data(1, 3);
      expect(await cluster.valueOn(3, 'b20')).toBe('b-20');
      deaf();
    },
  );

  scenario('P-08 a snapshot that is there in the moment its replica dies leaves nothing staged', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const store = cluster.store(4);
    // The news that all is staged is kept back, to come behind the news that the tombstone is written: in one round.
    const told: (() => void)[] = [];
    const tell = store.snapshotReceived.bind(store);
    store.snapshotReceived = (message, staged) => void told.push(() => tell(message, staged));
    const { engine } = cluster.machine(4);
    assert(engine !== undefined, 'store 4 runs');
    const write = engine.write.bind(engine);
    engine.write = async (batch) => {
      await write(batch);
      queueMicrotask(() => queueMicrotask(() => queueMicrotask(tellIfDead)));
    };
    const tellIfDead = (): void => {
      if (scene.record(4, 1)?.state === 'tombstone') {
        told.splice(0).forEach((each) => each());
      }
    };
    await scene.addLearner(1, 4);
    await cluster.until('a staged snapshot', () => told.length > 0);
    expect(stagedRows(scene, 4)).toBeGreaterThan(0);
    await scene.remove(1, 4);
    await scene.gone(1, 4);
    await cluster.until('nothing staged', () => told.length === 0 && stagedRows(scene, 4) === 0);
  });

  scenario('P-08 a snapshot that is persisted slowly: nothing else happens to its replica meanwhile', async (scene) => {
    const cluster = await scene.start({ stores: 4 });
    const gate = scene.holdSnapshots((m) => m.to.storeId === 4);
    await scene.addLearner(1, 4);
    await cluster.until('a snapshot', () => gate.held.length > 0);
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [200, 600] });
    gate.release();
    await cluster.advance(scene.rng.below(300));
    await scene.put('b', 'x');
    const isRemoved = scene.rng.chance(0.6);
    if (isRemoved) {
      await scene.remove(1, 4);
    }
    await cluster.advance(scene.rng.below(1_500));
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [0.1, 1] });
    await (isRemoved ? scene.gone(1, 4) : scene.data(1, 4));
  });

  scenario('P-09 deleting an old range late takes no key of a region installed there later', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: { cleanBatchKeys: 1 } });
    await scene.fill('b', 20);
    await scene.addLearner(1, 4);
    await scene.data(1, 4);
    await cluster.settle();
    cluster.machine(4).disk.setBehavior({ writeDelayMs: [20, 60] });
    await scene.remove(1, 4);
    await cluster.mustDelete('b3');
    await scene.put('b3', 'new');
    await scene.addLearner(1, 4);
    if (scene.rng.chance(0.4)) {
      await cluster.advance(scene.rng.below(500));
      cluster.crash(4);
      await cluster.restart(4);
    }
    await scene.data(1, 4);
    await cluster.settle();
    expect(await cluster.valueOn(4, 'b3')).toBe('new');
    await cluster.advance(7_000);
    expect(await cluster.keysOn(4)).toHaveLength(22);
  });

  scenario('P-10 a snapshot that became useless while it was made or sent is made again', async (scene) => {
    const cluster = await scene.start({ stores: 5, config: SMALL_LOG });
    scene.traffic(['m~']);
    const gate = scene.holdSnapshots((m) => m.to.storeId === 4);
    const peer = await scene.addLearner(1, 4);
    if (scene.rng.chance(0.5)) {
      await cluster.until('a snapshot', () => gate.held.length > 0);
    }
    const event = scene.rng.pick(['compaction', 'new leader', 'membership', 'broken connection'] as const);
    if (event === 'compaction') {
      await scene.fill('b', 30);
    } else if (event === 'new leader') {
      await scene.depose(1);
    } else if (event === 'membership') {
      await scene.addLearner(1, 5);
      await scene.promote(1, peer);
    } else {
      const heal = cluster.isolate(4);
      await cluster.advance(scene.rng.below(2_000));
      heal();
      cluster.crash(4);
      await cluster.restart(4);
    }
    gate.release();
    await scene.data(1, 4);
    await cluster.settle();
  });

  scenario('P-11 a snapshot asked for while apply is slow holds all that was applied before', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: SMALL_LOG });
    scene.traffic(['m~', 'n~'], 6);
    const resume = scene.pause(1, 'apply::before-write', 1);
    await cluster.advance(200);
    const learner = cluster.admin(1, {
      type: 'change-peer',
      changes: [{ type: 'add-learner', peer: scene.newPeer(4) }],
    });
    await cluster.advance(scene.rng.below(300));
    resume();
    await cluster.run(learner);
    cluster.machine(1).disk.setBehavior({ writeDelayMs: [30, 90] });
    await cluster.until('data on store 4', () => scene.status(4, 1)?.state === 'normal');
    cluster.machine(1).disk.setBehavior({ writeDelayMs: [0.1, 1] });
    await cluster.settle();
  });

  scenario(
    'P-12 no read is served by a replica whose snapshot is being installed; afterwards it shows it',
    async (scene) => {
      const cluster = await scene.start({ config: SMALL_LOG });
      const heal = await leaveBehind(scene, 3);
      await scene.put('a', 'new');
      const resume = scene.pause(3, 'snapshot::before-install');
      heal();
      await cluster.until('the installation', () => scene.status(3, 1)?.state === 'installing');
      const own = scene.peerOn(1, 3);
      for (const isReplicaRead of [true, false]) {
        const answer = await cluster.run(cluster.readAt(3, scene.region(1), own.id, 'a', isReplicaRead));
        expect(answer).toMatchObject({ error: {} });
      }
      resume();
      await scene.data(1, 3);
      await cluster.until('a follower with a leader', () => (scene.status(3, 1)?.leaderPeerId ?? 0) !== 0);
      expect(await cluster.run(cluster.readAt(3, scene.region(1), own.id, 'a', true))).toEqual({ value: 'new' });
    },
  );

  scenario('P-13 nothing of the old log is left on a replica that was restored', async (scene) => {
    const cluster = await scene.start({ config: SMALL_LOG });
    cluster.machine(3).disk.setBehavior({ writeDelayMs: [5, 60] });
    await scene.fill('c', 25);
    const heal = await leaveBehind(scene, 3);
    heal();
    await cluster.until('it was restored', () => (scene.status(3, 1)?.firstIndex ?? 0) > 30);
    await cluster.settle();
    await cluster.advance(2_000);
    for (const store of [1, 2, 3]) {
      const s = scene.status(store, 1);
      expect(logEntries(scene, store, 1), `store ${store}`).toBe((s?.lastIndex ?? 0) - (s?.firstIndex ?? 0) + 1);
    }
  });

  scenario('P-14 a damaged snapshot is noticed and made again', async (scene) => {
    const cluster = await scene.start({ stores: 4, config: { snapshotChunkBytes: 64 } });
    await scene.fill('b', 20);
    let damaged = 0;
    cluster.damageChunk = (chunk) => {
      if (damaged >= 3 || scene.rng.chance(0.6)) {
        return chunk;
      }
      damaged++;
      if (chunk.type === 'end') {
        return { ...chunk, keys: chunk.keys + 1 };
      }
      const payload = Uint8Array.from(chunk.payload);
      const at = scene.rng.below(payload.length);
      payload[at] = (payload[at] as number) ^ (1 << scene.rng.below(8));
      return { ...chunk, payload };
    };
    await scene.addLearner(1, 4);
    await scene.data(1, 4);
    await cluster.settle();
    if (damaged > 0) {
      expect(cluster.snapshotsSent.get('1>4')).toBeGreaterThan(1);
    }
    expect(await cluster.keysOn(4)).toHaveLength(22);
  });
});
