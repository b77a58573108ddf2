/** Every reason for which a leader refuses a step has a word of its own, is reported once, and changes nothing. */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { peerId, storeId } from '../../src/base/ids.ts';
import type { Region, RegionEpoch } from '../../src/meta/region.ts';
import type { AdminRequestBody } from '../../src/raftstore/msg.ts';
import { refusalOf } from '../../src/raftstore/refusal.ts';
import { MsgType } from '../../src/raft/types.ts';
import type { StoreCluster } from '../sim/store-cluster.ts';
import { expectCalm, startCluster, twoRegions } from './support.ts';

const now = (cluster: StoreCluster, region: Region): Region => cluster.region(region.id) as Region;

/** The word an operator would see. */
async function attempt(cluster: StoreCluster, region: number, body: AdminRequestBody): Promise<string> {
  const outcome = await cluster.run(cluster.admin(region, body));
  return outcome.type === 'ok' || outcome.type === 'no-leader' ? outcome.type : refusalOf(outcome).code;
}

/** Both regions led by store 1, at rest. */
async function sameLeader(cluster: StoreCluster): Promise<{ left: Region; right: Region }> {
  const { left, right } = await twoRegions(cluster);
  await cluster.mustTransferLeader(left.id, 1);
  await cluster.mustTransferLeader(right.id, 1);
  await cluster.settle();
  return { left: now(cluster, left), right: now(cluster, right) };
}

/** Refused with this word, with the epoch as before, and the region still takes writes. */
async function expectRefused(
  cluster: StoreCluster,
  region: Region,
  body: AdminRequestBody,
  code: string,
  key: string | null = 'b',
): Promise<void> {
  const { epoch } = now(cluster, region);
  expect(await attempt(cluster, region.id, body)).toBe(code);
  expect(now(cluster, region).epoch).toEqual(epoch);
  if (key !== null) {
    await cluster.mustPut(key, code);
  }
}

describe('a merge is refused', () => {
  test('with a region that does not touch it, with itself, and with peers that do not match', async () => {
    const cluster = await startCluster({ stores: 4 });
    await cluster.mustSplit('g');
    await cluster.mustSplit('p');
    await cluster.settle();
    const [first, middle, last] = ['a', 'h', 'z'].map((key) => cluster.regionOf(key) as Region) as [
      Region,
      Region,
      Region,
    ];
    await expectRefused(cluster, first, { type: 'merge', target: last }, 'NotNeighbours');
    await expectRefused(cluster, first, { type: 'merge', target: first }, 'MergeWithItself');
    const learner = { id: peerId(cluster.nextId()), storeId: storeId(4), role: 'learner' as const };
    await cluster.mustAdmin(middle.id, () => ({
      type: 'change-peer',
      changes: [{ type: 'add-learner', peer: learner }],
    }));
    await cluster.settle();
    await expectRefused(cluster, first, { type: 'merge', target: now(cluster, middle) }, 'PeersNotAligned');
  });

  test('while a region is between two memberships', async () => {
    const cluster = await startCluster({ stores: 4 });
    const { left, right } = await sameLeader(cluster);
    const joint: Region = {
      ...right,
      peers: right.peers.map((peer, i) => (i === 2 ? { ...peer, role: 'demoting-voter' } : peer)),
    };
    await expectRefused(cluster, left, { type: 'merge', target: joint }, 'JointState');
  });

  test('when the target is older or newer here than planned, and when it is not here at all', async () => {
    const cluster = await startCluster();
    const { left, right } = await sameLeader(cluster);
    const at = (epoch: Partial<RegionEpoch>): Region => ({ ...right, epoch: { ...right.epoch, ...epoch } });
    await expectRefused(
      cluster,
      left,
      { type: 'merge', target: at({ version: right.epoch.version + 1 }) },
      'TargetBehind',
    );
    await expectRefused(
      cluster,
      left,
      { type: 'merge', target: at({ version: right.epoch.version - 1 }) },
      'TargetChanged',
    );
    const unknown: Region = { ...right, id: (right.id + 5000) as Region['id'] };
    await expectRefused(cluster, left, { type: 'merge', target: unknown }, 'TargetNotHere');
    await cluster.mustMerge(left.id, right.id);
    await expectCalm(cluster, { a: '1', z: '2', b: 'TargetNotHere' });
  });

  test('with a peer that was not heard for long', async () => {
    const cluster = await startCluster({ config: { maxPeerDownMs: 3_000 } });
    const { left, right } = await sameLeader(cluster);
    const heal = cluster.isolate(3);
    await cluster.advance(4_000);
    await expectRefused(cluster, left, { type: 'merge', target: now(cluster, right) }, 'PeerDown');
    heal();
    await cluster.settle();
    await cluster.mustMerge(left.id, right.id);
    await expectCalm(cluster, { a: '1', b: 'PeerDown', z: '2' });
  });

  test('with a follower that lacks more bytes than one entry may carry', async () => {
    const cluster = await startCluster({ config: { entrySizeMaxBytes: 4096, mergeMaxLogGap: 50 } });
    const { left, right } = await sameLeader(cluster);
    const heal = cluster.isolate(3);
    for (let i = 0; i < 4; i++) {
      await cluster.mustPut(`b${i}`, 'x'.repeat(1500));
    }
    await expectRefused(cluster, left, { type: 'merge', target: now(cluster, right) }, 'EntriesTooLarge');
    heal();
    await cluster.settle();
    await cluster.mustMerge(left.id, right.id);
    await expectCalm(cluster, { a: '1', z: '2' });
  });

  test('with a follower that may not have committed the last change of the region', async () => {
    const cluster = await startCluster({ config: { mergeMaxLogGap: 50 } });
    const { right } = await sameLeader(cluster);
    const heal = cluster.isolate(3);
    const [left] = await cluster.mustSplit('p');
    const rightmost = cluster.regionOf('z') as Region;
    expect(rightmost.id).toBe(right.id);
    // Two regions share the border now; the one whose split the third store has not seen may not be a source yet.
    const outcome = await attempt(cluster, rightmost.id, { type: 'merge', target: now(cluster, left) });
    expect(['AdminInLogGap', 'PeerUnknown', 'PeerBehindSnapshot']).toContain(outcome);
    heal();
    await cluster.settle();
    await cluster.mustMerge(rightmost.id, left.id);
    await expectCalm(cluster, { a: '1', z: '2' });
  });

  test('while another change of the region is in its log, and while it is being merged itself', async () => {
    const cluster = await startCluster();
    const { left, right } = await sameLeader(cluster);
    const stop = cluster.drop(
      (message) =>
        message.regionId === left.id && message.body.type === 'raft' && message.body.message.type === MsgType.AppResp,
    );
    const split = cluster.admin(left.id, { type: 'split', keys: [utf8('c')] });
    await cluster.advance(200);
    await expectRefused(cluster, left, { type: 'merge', target: now(cluster, right) }, 'CommandInFlight', null);
    stop();
    await cluster.run(split);
    await cluster.settle();
    const source = cluster.regionOf('d') as Region;
    cluster.failpoints.set('merge::before-commit', { type: 'pause' });
    await cluster.prepareMerge(source.id, right.id);
    await cluster.advance(200);
    await expectRefused(cluster, source, { type: 'merge', target: now(cluster, right) }, 'Merging', null);
    cluster.failpoints.delete('merge::before-commit');
    await expectCalm(cluster, { a: '1', z: '2' });
  });
});

describe('a refused step', () => {
  test('is reported at once and once, with the word, the numbers and the epoch', async () => {
    const cluster = await startCluster({ config: { mergeMaxLogGap: 5, pdHeartbeatMs: 60_000 } });
    const { left, right } = await sameLeader(cluster);
    const heal = cluster.isolate(3);
    for (let i = 0; i < 10; i++) {
      await cluster.mustPut(`b${i}`, 'x');
    }
    const reports: unknown[] = [];
    cluster.onRegionHeartbeat = (heartbeat) => {
      if (heartbeat.region.id === left.id) {
        reports.push(heartbeat.refusal);
      }
    };
    const leader = cluster.store(1);
    const step = {
      regionId: left.id,
      epoch: now(cluster, left).epoch,
      targetPeer: left.peers[0] as Region['peers'][number],
      step: { type: 'merge' as const, target: now(cluster, right) },
    };
    leader.onStep(step);
    await cluster.advance(300);
    expect(reports).toEqual([
      expect.objectContaining({
        step: 'merge',
        code: 'LogGapTooLarge',
        outlook: 'passing',
        epoch: now(cluster, left).epoch,
        message: expect.stringMatching(
          /^peer \d+ of region \d+ is at \d+ \(committed \d+\) of \d+; at most 5 entries may be missing$/,
        ) as string,
      }),
    ]);
    leader.onStep({ ...step, step: { type: 'split', keys: [utf8('zz')] } });
    leader.onStep({
      ...step,
      step: { type: 'transfer-leader', peer: { ...step.targetPeer, id: peerId(999) }, candidates: [] },
    });
    await cluster.advance(300);
    expect(reports.at(-1)).toMatchObject({ step: 'transfer-leader', code: 'UnknownPeer', outlook: 'lasting' });
    heal();
    await cluster.settle();
    await expectCalm(cluster, { a: '1', z: '2' });
  });
});
