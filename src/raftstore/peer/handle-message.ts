/** What a live replica does with messages from other stores (reference 7.2, 7.3, 7.4). */
import { assert } from '../../base/assert.ts';
import type { PeerMessage } from '../../codec/peer-message.ts';
import { findPeerOnStore, isEpochStale, type Region, type RegionEpoch } from '../../meta/region.ts';
import { MsgType } from '../../raft/types.ts';
import { onHashReport } from '../operation/consistency.ts';
import { onWantRollbackMerge } from '../operation/merge/rollback.ts';
import { validateTarget } from '../operation/merge/validate-target.ts';
import { startDestroy } from './life-cycle.ts';
import type { RaftPeer } from './raft-peer.ts';

export function onPeerMessage(peer: RaftPeer, message: PeerMessage): void {
  const { body, from, to, epoch } = message;
  if (!peer.isActive) {
    return;
  }
  if (to.id < peer.peer.id) {
    return;
  }
  if (to.id > peer.peer.id) {
    // A newer incarnation was created here: this one is history. The message is repeated by its sender.
    startDestroy(peer, false, `a message for the newer peer ${to.id} arrived`);
    return;
  }
  switch (body.type) {
    case 'gc':
      if (body.mergeTarget === undefined) {
        onGc(peer, epoch, to.id);
      } else {
        onGcWithTarget(peer, body.mergeTarget);
      }
      return;
    case 'check-stale-peer':
      onCheckStalePeer(peer, message);
      return;
    case 'check-stale-peer-response':
      onCheckStalePeerResponse(peer, body.region);
      return;
    case 'want-rollback-merge':
      onWantRollbackMerge(peer, from.id, body.commit);
      return;
    case 'wake-up':
      return;
    case 'hash-report':
      onHashReport(peer, from.id, body.index, body.hash);
      return;
    case 'raft':
      break;
  }
  const raftMessage = body.message;
  if (raftMessage.type === MsgType.Snap) {
    peer.log.warn({}, 'a snapshot message arrived outside the snapshot stream');
    return;
  }
  if (peer.isInitialized && epoch.version > 0 && isEpochStale(epoch, peer.region.epoch) && isOutsider(peer, message)) {
    // The sender was removed and does not know it.
    peer.send(from, { type: 'gc', mergeTarget: undefined });
    return;
  }
  if (!peer.isInitialized) {
    peer.rememberPeer(from);
    if (isEpochStale(peer.heardEpoch, epoch)) {
      peer.heardEpoch = epoch;
    }
  } else if (peer.region.peers.some((p) => p.id === from.id)) {
    peer.lastHeardMs.set(from.id, peer.ctx.clock.monoMs());
  } else {
    peer.rememberPeer(from);
  }
  if (peer.installing.type !== 'none' && raftMessage.type !== MsgType.Heartbeat && raftMessage.type !== MsgType.App) {
    return;
  }
  if (raftMessage.type === MsgType.ReadIndex && peer.isLeader) {
    peer.sharedReadsTerm = peer.node.term;
  }
  const result = peer.node.step(raftMessage);
  if (result.type !== 'ok') {
    peer.log.debug({ type: raftMessage.type, result: JSON.stringify(result) }, 'raft message refused');
  }
}

/** Whether a message comes from a store that has no peer in this region and is not campaigning knowledge we lack. */
function isOutsider(peer: RaftPeer, message: PeerMessage): boolean {
  return findPeerOnStore(peer.region, message.from.storeId) === undefined;
}

/** "You are not a member any more": believed only if the sender knows a newer epoch and names exactly this replica. */
function onGc(peer: RaftPeer, epoch: RegionEpoch, target: number): void {
  if (target !== peer.peer.id || !isEpochStale(peer.knownEpoch, epoch)) {
    return;
  }
  // Not at once: entries that are already committed (perhaps a CommitMerge) must reach apply first.
  peer.ctx.router.toPeer(peer.regionId, { type: 'destroy', peerId: peer.peer.id });
}

/** "Your region was merged into `target`." */
function onGcWithTarget(peer: RaftPeer, target: Region): void {
  const { ctx, regionId } = peer;
  const { meta } = ctx;
  let sources = meta.pendingMergeTargets.get(target.id);
  if (sources === undefined) {
    sources = new Map();
    meta.pendingMergeTargets.set(target.id, sources);
  }
  const recorded = sources.get(regionId);
  assert(
    recorded === undefined || recorded.epoch.version === target.epoch.version,
    'a source was told about two different merges',
    { region: regionId, target: target.id, recorded: recorded?.epoch.version, told: target.epoch.version },
  );
  // Without the range: what the target covered then says nothing about what its later snapshots cover.
  sources.set(regionId, { targetId: target.id, epoch: target.epoch, peers: target.peers });
  meta.targetsMap.set(regionId, target.id);
  const live = meta.regions.get(target.id);
  if (live !== undefined && live.peers.length > 0) {
    if (isEpochStale(target.epoch, live.epoch)) {
      peer.ctx.router.toPeer(regionId, { type: 'destroy', peerId: peer.peer.id });
    }
    return;
  }
  const verdict = validateTarget(ctx, target);
  if (verdict.type === 'impossible') {
    peer.ctx.router.toPeer(regionId, { type: 'destroy', peerId: peer.peer.id });
  }
}

/** A fellow peer without a leader asks whether it still counts. */
function onCheckStalePeer(peer: RaftPeer, message: PeerMessage): void {
  if (!peer.isInitialized) {
    return;
  }
  const { from, epoch } = message;
  if (peer.region.peers.some((p) => p.id === from.id)) {
    peer.send(from, { type: 'check-stale-peer-response', region: peer.region });
    return;
  }
  // An asker with a descriptor can weigh our epoch against its own. An uninitialized one cannot, and we may simply be
  // behind the change that added it: only a leader that is certainly current may send it away.
  const isCertain =
    epoch.version > 0
      ? isEpochStale(epoch, peer.region.epoch)
      : peer.isLeader && peer.node.appliedInTerm() && peer.lease.isValid(peer.ctx.leaseClock.nowMs());
  if (isCertain) {
    peer.send(from, { type: 'gc', mergeTarget: undefined });
  }
}

/** Somebody's newer idea of the membership: go on asking those who are in it. */
function onCheckStalePeerResponse(peer: RaftPeer, region: Region): void {
  const listed = region.peers.some((p) => p.id === peer.peer.id);
  if (!listed && peer.isInitialized && isEpochStale(peer.region.epoch, region.epoch)) {
    peer.ctx.router.toPeer(peer.regionId, { type: 'destroy', peerId: peer.peer.id });
    return;
  }
  if (listed && (!peer.isInitialized || region.epoch.confVer > peer.region.epoch.confVer)) {
    for (const other of region.peers) {
      if (other.id !== peer.peer.id && peer.findPeer(other.id) === undefined) {
        peer.rememberPeer(other);
        peer.send(other, { type: 'check-stale-peer' });
      }
    }
  }
}
