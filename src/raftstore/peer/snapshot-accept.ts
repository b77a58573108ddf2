/**
 * Accepting and finishing a snapshot from the leader (reference 6.1, 6.2, 11.3), including the removal of regions that
 * were merged into this one while this store was away.
 */
import { assert } from '../../base/assert.ts';
import type { RegionId } from '../../base/ids.ts';
import { rangesOverlap } from '../../base/key-range.ts';
import type { PeerMessage } from '../../codec/peer-message.ts';
import { decodeSnapshotDescriptor } from '../../codec/snapshot-record.ts';
import { regionsEqual, type Region, type RegionEpoch } from '../../meta/region.ts';
import type { StoreContext } from '../context.ts';
import type { StagedSnapshot } from '../msg.ts';
import { startDestroy } from './life-cycle.ts';
import { liftFence } from './fence.ts';
import type { RaftPeer } from './raft-peer.ts';

export interface SourceVerdict {
  readonly canDestroy: boolean;
  /** The source was merged into exactly the target incarnation in question. */
  readonly mergedIntoMe: boolean;
}

/** Whether a source may go because a snapshot (or creation) of `target` at `epoch` already contains it. */
export function maybeDestroySource(
  ctx: StoreContext,
  target: RegionId,
  targetPeerId: number,
  source: RegionId,
  epoch: RegionEpoch,
): SourceVerdict {
  const record = ctx.meta.pendingMergeTargets.get(target)?.get(source);
  if (record === undefined || epoch.version <= record.epoch.version) {
    return { canDestroy: false, mergedIntoMe: false };
  }
  const peer = record.peers.find((p) => p.storeId === ctx.storeId);
  return { canDestroy: true, mergedIntoMe: peer?.id === targetPeerId };
}

/** Decides about a received snapshot; false means it was dropped (Raft will send another). */
export function acceptSnapshot(peer: RaftPeer, message: PeerMessage, staged: StagedSnapshot): boolean {
  const { ctx, regionId } = peer;
  const { meta } = ctx;
  const drop = (reason: string): false => {
    peer.log.info({ reason }, 'snapshot dropped');
    ctx.workers.discardStaged(staged.stagingId);
    return false;
  };
  if (message.body.type !== 'raft' || message.body.message.snapshot === null) {
    return drop('not a snapshot message');
  }
  const raftMessage = message.body.message;
  const { snapshot } = raftMessage;
  assert(snapshot !== null, 'snapshot vanished');
  const { region } = decodeSnapshotDescriptor(snapshot.data);
  if (!peer.isActive || peer.installing.type !== 'none') {
    return drop('the replica is busy');
  }
  if (!region.peers.some((p) => p.id === peer.peer.id)) {
    return drop('this replica is not a member in the snapshot');
  }
  const known = meta.regions.get(regionId);
  if (known === undefined || !regionsEqual(known, peer.region)) {
    assert(!peer.isInitialized, 'the region map disagrees with its peer', { regionId });
    return drop('this replica was replaced by a split');
  }
  if (!peer.isInitialized && ctx.pendingCreatePeers.get(regionId)?.isSplitting === true) {
    return drop('a split is creating this replica');
  }
  if (meta.atomicSnapRegions.has(regionId)) {
    return drop('another snapshot is waiting for its sources');
  }
  for (const [otherId, other] of meta.pendingSnapshotRegions) {
    if (otherId !== regionId && rangesOverlap(other.range, region.range)) {
      return drop(`a snapshot of region ${otherId} occupies the range`);
    }
  }
  if (ctx.workers.isCleaning(region.range)) {
    return drop('the range is still being cleaned');
  }
  const ready =
    peer.generating.type !== 'waiting' &&
    peer.lastApplyingIndex === peer.appliedIndex &&
    peer.node.committed === peer.lastApplyingIndex;
  const sources: { readonly region: Region; readonly mergedIntoMe: boolean }[] = [];
  let blocked: string | undefined;
  for (const other of meta.overlapping(region.range)) {
    if (other.id === regionId) {
      continue;
    }
    if (ctx.workers.isInstalling(other.id)) {
      // It learned that it is merged while its own data were on their way here: those come first.
      blocked = `region ${other.id} is installing a snapshot in the range`;
      continue;
    }
    const { canDestroy, mergedIntoMe } = maybeDestroySource(ctx, regionId, peer.peer.id, other.id, region.epoch);
    if (ready && canDestroy) {
      sources.push({ region: other, mergedIntoMe });
      continue;
    }
    blocked = `region ${other.id} occupies the range`;
    if (!canDestroy && region.epoch.version > other.epoch.version) {
      ctx.router.toPeer(other.id, { type: 'region-overlapped' });
    }
  }
  if (blocked !== undefined) {
    return drop(blocked);
  }
  const before = peer.node.pendingSnapshotIndex;
  const result = peer.node.step(raftMessage);
  if (result.type !== 'ok' || peer.node.pendingSnapshotIndex === before || peer.node.pendingSnapshotIndex === 0) {
    return drop('Raft had no use for it');
  }
  meta.pendingSnapshotRegions.set(regionId, region);
  peer.installing = { type: 'accepted', region, staged };
  if (!peer.isInitialized) {
    // A region that dies with this snapshot may still have a split in its queue that gives birth to this very replica.
    ctx.pendingCreatePeers.set(regionId, { peerId: peer.peer.id, isSplitting: false, hasSnapshot: true });
  }
  if (sources.length > 0) {
    const waiting = new Map<RegionId, boolean>();
    meta.atomicSnapRegions.set(regionId, waiting);
    for (const { region: source, mergedIntoMe } of sources) {
      waiting.set(source.id, false);
      meta.destroyedForSnapshot.set(source.id, { needAtomic: mergedIntoMe });
      const sent = ctx.router.toPeer(source.id, {
        type: 'merge-result',
        targetRegionId: regionId,
        targetPeer: peer.peer,
        kind: mergedIntoMe ? 'target-snapshot-step1' : 'stale',
      });
      if (!sent) {
        assert(!mergedIntoMe, 'the source of an atomic snapshot has no peer FSM', { source: source.id });
        waiting.delete(source.id);
        meta.destroyedForSnapshot.delete(source.id);
      }
    }
    if (waiting.size === 0) {
      meta.atomicSnapRegions.delete(regionId);
    }
  }
  return true;
}

/** The batch that makes this region `applying` (and its sources tombstones) is durable. */
export function onSnapshotPersisted(peer: RaftPeer): void {
  assert(peer.installing.type === 'persisting', 'snapshot persisted out of turn');
  const { region, staged, oldRegion, former, cleanTasks } = peer.installing;
  const { ctx, regionId } = peer;
  const { meta } = ctx;
  const sources = meta.atomicSnapRegions.get(regionId);
  meta.atomicSnapRegions.delete(regionId);
  for (const source of sources?.keys() ?? []) {
    const dead = meta.regions.get(source);
    assert(dead !== undefined, 'a source of an atomic snapshot is gone', { source });
    meta.removeRange(dead);
    meta.regions.delete(source);
    meta.destroyedForSnapshot.delete(source);
    ctx.router.setMergedInto(source, regionId);
    ctx.router.toPeer(source, {
      type: 'merge-result',
      targetRegionId: regionId,
      targetPeer: peer.peer,
      kind: 'target-snapshot-step2',
    });
  }
  if (oldRegion.peers.length > 0) {
    meta.removeRange(oldRegion);
  }
  for (const before of former) {
    meta.redirects.changed(before, regionId, ctx.clock.monoMs());
  }
  meta.pendingSnapshotRegions.delete(regionId);
  meta.regions.set(regionId, region);
  meta.insertRange(region);
  ctx.pendingCreatePeers.delete(regionId);
  peer.installing = { type: 'installing', region, staged };
  if (peer.pendingMerge !== undefined) {
    // The others rolled the merge back and went on: a snapshot of the source itself is an implicit rollback.
    peer.pendingMerge = undefined;
    peer.rollbackVotes.clear();
  }
  for (const task of cleanTasks) {
    ctx.workers.startCleaning(task);
  }
  ctx.workers.installSnapshot(region, peer.peer.id, staged);
}

/** The data is in place and the region is `normal` on disk. */
export function onSnapshotInstalled(peer: RaftPeer, sizeBytes: number, keys: number): void {
  assert(peer.installing.type === 'installing', 'snapshot installed out of turn');
  peer.installing = { type: 'none' };
  peer.approximateSizeBytes = sizeBytes;
  peer.approximateKeys = keys;
  peer.log.info({ index: peer.appliedIndex, keys }, 'snapshot installed');
  liftFence(peer);
  peer.ctx.router.registerApply({
    peerId: peer.peer.id,
    region: peer.region,
    applyState: peer.storage.applyState,
    isMerging: false,
  });
  if (peer.destroyAfterInstall) {
    peer.destroyAfterInstall = false;
    startDestroy(peer, false, 'the replica was removed while a snapshot was being installed');
  }
}
