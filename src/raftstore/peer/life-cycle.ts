/**
 * The end of a replica (reference 2.6) and how a forgotten one finds out that it is no longer wanted (7.4).
 *
 * ```text
 * active ─► removing ─(apply FSM stopped, no write in flight)─► destroying ─(tombstone durable)─► dead
 * ```
 */
import { assert } from '../../base/assert.ts';
import { logIndex } from '../../base/ids.ts';
import { encodeRegionLocalState } from '../../codec/raft-records.ts';
import { applyStateKey, fenceKey, raftLogKey, raftStateKey, regionStateKey } from '../../engine/keyspace.ts';
import { buriedRegion, isEpochStale, type Region } from '../../meta/region.ts';
import { epochNotMatch, regionNotFound } from '../refusal.ts';
import { putRemoval } from '../store/redirects.ts';
import { failEverything } from './propose.ts';
import type { RaftPeer } from './raft-peer.ts';

/**
 * Starts the destruction. `keepData` when the range now belongs to another region (merge); then also the range index
 * is not touched, because the target has rewritten it.
 */
export function startDestroy(peer: RaftPeer, keepData: boolean, reason: string): void {
  if (peer.life.type === 'removing' || peer.life.type === 'destroying' || peer.life.type === 'dead') {
    return;
  }
  if (peer.installing.type === 'persisting' || peer.installing.type === 'installing') {
    peer.destroyAfterInstall = true;
    return;
  }
  if (peer.ctx.meta.atomicSnapRegions.has(peer.regionId)) {
    // Sources are waiting for this peer's snapshot; the accepted snapshot must be decided first.
    peer.destroyAfterInstall = true;
    return;
  }
  peer.log.info({ reason, keepData }, 'destroying the replica');
  const applyAlreadyGone = peer.life.type === 'merging-away' ? !hasApply(peer) : !peer.isInitialized;
  peer.life = { type: 'removing', keepData, applyStopped: applyAlreadyGone };
  if (peer.installing.type === 'accepted') {
    peer.ctx.workers.discardStaged(peer.installing.staged.stagingId);
    peer.ctx.meta.pendingSnapshotRegions.delete(peer.regionId);
    peer.installing = { type: 'none' };
  }
  if (!applyAlreadyGone && !peer.ctx.router.toApply(peer.regionId, { type: 'destroy', mergeFromSnapshot: false })) {
    peer.life = { type: 'removing', keepData, applyStopped: true };
  }
  continueDestroy(peer);
}

function hasApply(peer: RaftPeer): boolean {
  return peer.ctx.router.hasApply(peer.regionId);
}

/** The apply FSM is gone. */
export function onApplyDestroyed(peer: RaftPeer): void {
  if (peer.life.type === 'removing') {
    peer.life = { ...peer.life, applyStopped: true };
    continueDestroy(peer);
  }
}

/** Writes the tombstone as soon as nothing of this peer is in flight any more. */
export function continueDestroy(peer: RaftPeer): void {
  const { life, ctx, regionId } = peer;
  if (life.type !== 'removing' || !life.applyStopped || peer.inflight.some((r) => r.written)) {
    return;
  }
  assert(!ctx.meta.atomicSnapRegions.has(regionId), 'destroying a peer that owns an atomic snapshot', { regionId });
  ctx.meta.pendingSnapshotRegions.delete(regionId);
  if (!peer.isInitialized) {
    const known = ctx.meta.regions.get(regionId);
    if (known !== undefined && known.peers.length > 0) {
      // A split created the initialized region under this id; this FSM was replaced and owns nothing any more.
      peer.life = { type: 'dead' };
      return;
    }
    const pending = ctx.pendingCreatePeers.get(regionId);
    if (pending !== undefined && pending.peerId === peer.peer.id && pending.isSplitting) {
      peer.life = { type: 'dead' };
      finish(peer, life.keepData);
      return;
    }
  }
  if (!peer.isInitialized) {
    // Until the tombstone is visible on disk, a split must find the slot taken by somebody it may not replace.
    ctx.pendingCreatePeers.set(regionId, { peerId: 0, isSplitting: false });
  }
  const batch = ctx.engine.createBatch();
  const region = buriedRegion(peer.region, peer.peer);
  batch.put(
    regionStateKey(regionId),
    encodeRegionLocalState({ state: 'tombstone', region, mergeState: life.keepData ? peer.pendingMerge : undefined }),
  );
  batch.del(raftStateKey(regionId));
  if (peer.isInitialized && !life.keepData) {
    putRemoval(batch, peer.region, peer.leaderPeer());
    ctx.meta.redirects.removed(peer.region, peer.leaderPeer(), ctx.clock.monoMs());
  }
  batch.del(applyStateKey(regionId));
  batch.del(fenceKey(regionId));
  const { storage } = peer;
  for (let i = Math.min(peer.gcFromIndex, storage.firstIndex()); i <= storage.lastIndex(); i++) {
    batch.del(raftLogKey(regionId, logIndex(i)));
  }
  const cleanTask =
    life.keepData || !peer.isInitialized ? undefined : ctx.workers.addCleanTask(batch, peer.region.range);
  peer.life = { type: 'destroying', keepData: life.keepData };
  const { peer: me } = peer;
  ctx.write(batch, () => {
    // A crash before this point repeats nothing: the tombstone and the clean task are in one batch.
    ctx.router.toPeer(regionId, { type: 'destroyed-on-disk', peerId: me.id });
    if (cleanTask !== undefined) {
      ctx.workers.startCleaning(cleanTask);
    }
  });
}

/** The tombstone is durable. */
export function onDestroyedOnDisk(peer: RaftPeer, peerId: number): void {
  if (peer.life.type !== 'destroying' || peer.peer.id !== peerId) {
    return;
  }
  const { keepData } = peer.life;
  peer.life = { type: 'dead' };
  finish(peer, keepData);
}

function finish(peer: RaftPeer, keepData: boolean): void {
  const { ctx, regionId } = peer;
  const { meta } = ctx;
  const redirect = keepData ? ctx.router.mergedInto(regionId) : undefined;
  failEverything(peer, redirect === undefined ? regionNotFound(regionId) : epochNotMatch([redirect]));
  if (!keepData && peer.isInitialized && meta.hasRange(peer.region)) {
    meta.removeRange(peer.region);
  }
  const known = meta.regions.get(regionId);
  if (known !== undefined && (!keepData || known === peer.region || known.peers.length === 0)) {
    meta.regions.delete(regionId);
  }
  meta.pendingMergeTargets.delete(regionId);
  const target = meta.targetsMap.get(regionId);
  meta.targetsMap.delete(regionId);
  if (target !== undefined) {
    const sources = meta.pendingMergeTargets.get(target);
    sources?.delete(regionId);
    if (sources?.size === 0) {
      meta.pendingMergeTargets.delete(target);
    }
  }
  const forSnapshot = meta.destroyedForSnapshot.get(regionId);
  if (forSnapshot !== undefined) {
    assert(!forSnapshot.needAtomic, 'a source of an atomic snapshot destroyed itself alone', { regionId });
    meta.destroyedForSnapshot.delete(regionId);
    for (const [targetId, sources] of meta.atomicSnapRegions) {
      if (sources.delete(regionId) && sources.size === 0) {
        meta.atomicSnapRegions.delete(targetId);
      }
      ctx.router.wake(targetId);
    }
  }
  const pending = ctx.pendingCreatePeers.get(regionId);
  if (pending !== undefined && (pending.peerId === peer.peer.id || pending.peerId === 0) && !pending.isSplitting) {
    ctx.pendingCreatePeers.delete(regionId);
  }
  if (peer.generating.type === 'ready') {
    ctx.snapshots.dropOf(peer.generating.snapshot);
  }
  if (peer.checkMergeTimer !== undefined) {
    ctx.clock.clearTimer(peer.checkMergeTimer);
  }
  ctx.router.closePeer(regionId, peer.peer.id);
  peer.log.info({ keepData }, 'replica destroyed');
}

/** Regular look at the leader: asks fellow peers, then the placement service, whether this replica still counts. */
export function checkStale(peer: RaftPeer): void {
  const { ctx } = peer;
  const nowMs = ctx.clock.monoMs();
  const { abnormalLeaderMissingMs, maxLeaderMissingMs } = ctx.config;
  // A learner never campaigns and so never forgets a leader: one that is silent for long is as good as none.
  if (peer.lead !== 0 && !peer.isLeader && !peer.lastHeardMs.has(peer.lead)) {
    // It may have been heard last before this replica had its first snapshot.
    peer.lastHeardMs.set(peer.lead, nowMs);
  }
  const heardMs = peer.lead === 0 ? undefined : peer.lastHeardMs.get(peer.lead);
  const isLed = peer.lead !== 0 && (heardMs === undefined || nowMs - heardMs < abnormalLeaderMissingMs);
  if (!peer.isActive || peer.installing.type !== 'none' || peer.isLeader || (isLed && peer.isInitialized)) {
    peer.leaderMissingSinceMs = undefined;
    return;
  }
  peer.leaderMissingSinceMs ??= heardMs ?? nowMs;
  const missingMs = nowMs - peer.leaderMissingSinceMs;
  if (missingMs < abnormalLeaderMissingMs || nowMs - peer.lastStaleCheckMs < abnormalLeaderMissingMs) {
    return;
  }
  peer.lastStaleCheckMs = nowMs;
  peer.log.warn({ missingMs: Math.round(missingMs) }, 'no leader for long, asking whether this replica still counts');
  peer.broadcast({ type: 'check-stale-peer' });
  askAboutTarget(peer);
  if (missingMs >= maxLeaderMissingMs) {
    ctx.pd.getRegionById(peer.regionId).then(
      (region) => ctx.router.toPeer(peer.regionId, { type: 'pd-region', region }),
      (error: unknown) => peer.log.warn({ error: String(error) }, 'the placement service could not be asked'),
    );
  }
}

/**
 * This replica was told that its region has merged into another one, and waits for that one's replica on this store to
 * do it. If that replica never had data and was removed, nobody here is left to learn so: ask in its name.
 */
function askAboutTarget(peer: RaftPeer): void {
  const { meta, storeId, transport } = peer.ctx;
  const target = meta.targetsMap.get(peer.regionId);
  const pending = target === undefined ? undefined : meta.pendingMergeTargets.get(target)?.get(peer.regionId);
  const expected = pending?.peers.find((one) => one.storeId === storeId);
  if (pending === undefined || expected === undefined || meta.regions.has(pending.targetId)) {
    return;
  }
  for (const to of pending.peers) {
    if (to.storeId !== storeId) {
      transport.send({
        regionId: pending.targetId,
        from: expected,
        to,
        epoch: pending.epoch,
        range: undefined,
        body: { type: 'check-stale-peer' },
      });
    }
  }
}

/** PD's word is final only if it is not older than ours and does not list this replica. */
export function onPdRegion(peer: RaftPeer, region: Region | undefined): void {
  if (region === undefined || !peer.isActive || isEpochStale(region.epoch, peer.knownEpoch)) {
    return;
  }
  if (!region.peers.some((p) => p.id === peer.peer.id)) {
    startDestroy(peer, false, 'the placement service does not list this replica');
  }
}
