/**
 * CommitMerge on the target (reference 4.6, 4.11) and the source's end (4.12).
 */
import { assert } from '../../../base/assert.ts';
import type { RegionId } from '../../../base/ids.ts';
import type { AdminCommand } from '../../../codec/command.ts';
import { epochsEqual, findPeerOnStore, type Peer, type Region, type RegionEpoch } from '../../../meta/region.ts';
import type { MergeResultKind } from '../../msg.ts';
import { startDestroy } from '../../peer/life-cycle.ts';
import { checkAdmin, proposeAdmin } from '../../peer/propose.ts';
import type { RaftPeer } from '../../peer/raft-peer.ts';
import { noteObstacle } from '../../peer/report.ts';
import { refusalOf } from '../../refusal.ts';
import { beforePrepare } from '../region-change.ts';
import { checkJoinable } from './prepare.ts';

/**
 * A source peer on this store offers its merge. What stands in the way is told the placement service only: the source
 * tries again at its next look, and finds a changed epoch by itself. Duplicates are harmless: the first to apply changes the version,
 * the others fail their epoch check.
 */
export function proposeCommitMerge(
  peer: RaftPeer,
  expectedEpoch: RegionEpoch,
  targetPeerId: number,
  command: Extract<AdminCommand, { type: 'commit-merge' }>,
): void {
  if (peer.peer.id !== targetPeerId || !peer.isLeader || !epochsEqual(peer.region.epoch, expectedEpoch)) {
    return;
  }
  const joinable = checkJoinable(command.source, peer.region);
  if (joinable !== undefined) {
    peer.log.warn({ source: command.source.id, code: joinable.code }, 'CommitMerge refused');
    noteObstacle(peer, 'commit-merge', joinable);
    return;
  }
  const refusal = checkAdmin(peer, 'commit-merge');
  if (refusal !== undefined) {
    const reason = refusalOf(refusal);
    peer.log.debug({ source: command.source.id, code: reason.code }, 'CommitMerge cannot be proposed now');
    noteObstacle(peer, 'commit-merge', reason);
    return;
  }
  const proposal = proposeAdmin(peer, command, () => {});
  if (proposal.type === 'refused') {
    noteObstacle(peer, 'commit-merge', refusalOf(proposal));
  } else {
    peer.log.info(
      { source: command.source.id, carried: command.entries.length, index: proposal.index },
      'proposed CommitMerge',
    );
  }
}

/** CommitMerge is applied and durable: this region now owns the source's range. One critical section on the store map. */
export function onCommitMergeApplied(peer: RaftPeer, region: Region, source: Region): void {
  const { ctx } = peer;
  const { meta } = ctx;
  const localSource = meta.regions.get(source.id);
  assert(localSource !== undefined, 'the merged source is not in the region map', { source: source.id });
  meta.removeRange(localSource);
  meta.removeRange(peer.region);
  meta.regions.delete(source.id);
  for (const before of [peer.region, source, beforePrepare(source)]) {
    meta.redirects.changed(before, peer.regionId, ctx.clock.monoMs());
  }
  peer.region = region;
  meta.regions.set(peer.regionId, region);
  meta.insertRange(region);
  ctx.router.setMergedInto(source.id, peer.regionId);
  peer.approximateSizeBytes = 0;
  peer.approximateKeys = 0;
  peer.writtenSinceCheckBytes = Number.MAX_SAFE_INTEGER;
  peer.pdHeartbeatDue = peer.isLeader;
  peer.log.info({ source: source.id, version: region.epoch.version }, 'merged the source');
  const sent = ctx.router.toPeer(source.id, {
    type: 'merge-result',
    targetRegionId: peer.regionId,
    targetPeer: peer.peer,
    kind: 'target-log',
  });
  assert(sent, 'the merged source has no peer FSM', { source: source.id });
}

/** The target tells this source how its merge ended on this store. */
export function onMergeResult(peer: RaftPeer, targetRegionId: RegionId, targetPeer: Peer, kind: MergeResultKind): void {
  const { pendingMerge } = peer;
  if (kind !== 'stale' && pendingMerge !== undefined) {
    if (pendingMerge.target.id !== targetRegionId && kind !== 'target-log') {
      // This replica missed that its merge was rolled back and that its region was merged elsewhere later: the snapshot
      // of that later target takes it along.
      peer.pendingMerge = undefined;
    } else {
      const listed = findPeerOnStore(pendingMerge.target, targetPeer.storeId);
      assert(
        pendingMerge.target.id === targetRegionId && listed !== undefined && listed.id <= targetPeer.id,
        'a merge result from a target this source does not merge into',
        { region: peer.regionId, target: targetRegionId },
      );
    }
  }
  switch (kind) {
    case 'target-log':
    case 'target-snapshot-step2':
      assert(peer.isInitialized, 'an uninitialized source was merged', { region: peer.regionId });
      assert(peer.installing.type === 'none', 'a source was merged while it installs a snapshot', {
        region: peer.regionId,
      });
      if (peer.fence !== undefined) {
        // A crash before this arrives: the next comparison of the target's replicas finds the same.
        peer.ctx.router.toPeer(targetRegionId, { type: 'inherit-fence', reason: peer.fence.reason });
      }
      startDestroy(peer, true, `merged into region ${targetRegionId}`);
      return;
    case 'target-snapshot-step1':
      assert(peer.installing.type === 'none', 'a source was merged while it installs a snapshot', {
        region: peer.regionId,
      });
      if (peer.life.type !== 'active') {
        return;
      }
      peer.life = { type: 'merging-away' };
      if (!peer.ctx.router.toApply(peer.regionId, { type: 'destroy', mergeFromSnapshot: true })) {
        onSourceApplyStopped(peer);
      }
      return;
    case 'stale':
      if (peer.life.type === 'active' || peer.life.type === 'merging-away') {
        startDestroy(peer, false, `region ${targetRegionId} holds newer data of this range`);
      }
  }
}

/** The apply FSM of a source that dies with its target's snapshot has stopped: the target may persist the snapshot. */
export function onSourceApplyStopped(peer: RaftPeer): void {
  for (const [target, sources] of peer.ctx.meta.atomicSnapRegions) {
    if (sources.has(peer.regionId)) {
      sources.set(peer.regionId, true);
      peer.ctx.router.wake(target);
      return;
    }
  }
}
