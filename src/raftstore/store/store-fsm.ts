/**
 * Messages for regions without a peer on this store: create one, keep the message for a split, or tell the sender that
 * the replica is gone (reference 6.3, 7.1).
 */
import { assert } from '../../base/assert.ts';
import type { RegionId, StoreId } from '../../base/ids.ts';
import type { PeerMessage, PeerMessageBody } from '../../codec/peer-message.ts';
import { decodeRaftLocalState, decodeRegionLocalState } from '../../codec/raft-records.ts';
import type { RaftLocalState } from '../../codec/store-record.ts';
import { raftStateKey, regionStateKey } from '../../engine/keyspace.ts';
import { findPeerOnStore, isEpochStale, type Region } from '../../meta/region.ts';
import { MsgType } from '../../raft/types.ts';
import { isBiased } from '../bias.ts';
import type { StoreContext } from '../context.ts';
import { maybeDestroySource } from '../peer/snapshot-accept.ts';

export interface PeerCreator {
  /** Creates an uninitialized peer; the message is delivered to it afterwards. */
  createByMessage(message: PeerMessage, raftState: RaftLocalState): void;
}

/** Only these may bring a peer into being: votes, and heartbeats to a peer without log. */
function mayCreate(message: PeerMessage): boolean {
  if (message.body.type !== 'raft') {
    return false;
  }
  const { type, commit } = message.body.message;
  return type === MsgType.Vote || type === MsgType.PreVote || (type === MsgType.Heartbeat && commit === 0);
}

function isFirstContact(message: PeerMessage): boolean {
  return message.body.type === 'raft' && (mayCreate(message) || message.body.message.type === MsgType.App);
}

function answer(ctx: StoreContext, message: PeerMessage, region: Region, body: PeerMessageBody): void {
  ctx.transport.send({
    regionId: message.regionId,
    from: message.to,
    to: message.from,
    epoch: region.epoch,
    range: undefined,
    body,
  });
}

/**
 * A replica that is not here was removed from its region after regions had merged into it. Sources on this store that
 * wait for it to apply that merge wait in vain: their data lives on in the target's other replicas.
 */
function releaseWaitingSources(ctx: StoreContext, { regionId, to, epoch }: PeerMessage): void {
  for (const [source, target] of ctx.meta.pendingMergeTargets.get(regionId) ?? []) {
    const expected = target.peers.find((peer) => peer.storeId === ctx.storeId);
    const waiting = ctx.meta.regions.get(source);
    const own = waiting?.peers.find((peer) => peer.storeId === ctx.storeId);
    if (own !== undefined && expected?.id === to.id && isEpochStale(target.epoch, epoch)) {
      ctx.router.toPeer(source, { type: 'destroy', peerId: own.id });
    }
  }
}

export function onUnknownPeerMessage(ctx: StoreContext, creator: PeerCreator, message: PeerMessage): void {
  const { body, from, to, regionId, epoch } = message;
  if (to.storeId !== ctx.storeId) {
    ctx.log.warn({ region: regionId, toStore: to.storeId }, 'a message for another store arrived');
    return;
  }
  if (body.type === 'gc') {
    if (body.mergeTarget === undefined) {
      releaseWaitingSources(ctx, message);
    }
    return;
  }
  if (body.type === 'check-stale-peer-response' || body.type === 'want-rollback-merge') {
    return;
  }
  if (isBiased(ctx.failpoints, 'bias::ignore-first-message', regionId)) {
    return;
  }
  const bytes = ctx.engine.getSync(regionStateKey(regionId));
  if (bytes === undefined) {
    maybeCreate(ctx, creator, message);
    return;
  }
  const record = decodeRegionLocalState(bytes);
  const { region } = record;
  if (record.state !== 'tombstone') {
    if (isFirstContact(message)) {
      ctx.meta.keepMessage(message);
    }
    return;
  }
  const senderThen = findPeerOnStore(region, from.storeId);
  if (record.mergeState !== undefined) {
    if (senderThen === undefined) {
      answer(ctx, message, region, { type: 'gc', mergeTarget: undefined });
      return;
    }
    assert(senderThen.id >= from.id, 'a replica was added to a region after its merge froze the membership', {
      region: regionId,
      then: senderThen.id,
      now: from.id,
    });
    answer(ctx, message, region, { type: 'gc', mergeTarget: record.mergeState.target });
    return;
  }
  if (isEpochStale(epoch, region.epoch)) {
    if (senderThen === undefined) {
      answer(ctx, message, region, { type: 'gc', mergeTarget: undefined });
    } else if (body.type !== 'raft' || body.message.type === MsgType.Vote || body.message.type === MsgType.PreVote) {
      // Others may still be members; what was buried here is not.
      const peers = region.peers.filter((peer) => peer.storeId !== ctx.storeId);
      answer(ctx, message, region, { type: 'check-stale-peer-response', region: { ...region, peers } });
    }
    return;
  }
  const mine = findPeerOnStore(region, ctx.storeId as StoreId);
  if (mine !== undefined && to.id <= mine.id) {
    return;
  }
  maybeCreate(ctx, creator, message);
}

function maybeCreate(ctx: StoreContext, creator: PeerCreator, message: PeerMessage): void {
  const { regionId, to, range, epoch } = message;
  if (!mayCreate(message)) {
    if (isFirstContact(message)) {
      ctx.meta.keepMessage(message);
    }
    return;
  }
  if (ctx.pendingCreatePeers.has(regionId)) {
    ctx.meta.keepMessage(message);
    return;
  }
  if (range !== undefined && isRangeTaken(ctx, regionId, to.id, range, epoch)) {
    ctx.meta.keepMessage(message);
    return;
  }
  ctx.pendingCreatePeers.set(regionId, { peerId: to.id, isSplitting: false });
  const bytes = ctx.engine.getSync(raftStateKey(regionId));
  const known = bytes === undefined ? undefined : decodeRaftLocalState(bytes);
  const raftState =
    known !== undefined && known.peerId === to.id && known.lastIndex === 0
      ? known
      : { peerId: to.id, term: 0, vote: 0, commit: 0, lastIndex: 0 };
  creator.createByMessage(message, raftState);
}

/** Whether live regions occupy the range; those that merged into an older incarnation of this region are sent away. */
function isRangeTaken(
  ctx: StoreContext,
  regionId: RegionId,
  peerId: number,
  range: Region['range'],
  epoch: Region['epoch'],
): boolean {
  let taken = false;
  for (const other of ctx.meta.overlapping(range)) {
    if (other.id === regionId) {
      continue;
    }
    const { canDestroy, mergedIntoMe } = maybeDestroySource(ctx, regionId, peerId, other.id, epoch);
    if (canDestroy && mergedIntoMe) {
      // The merge began before the target had a replica here. The new replica is empty and will be restored by a
      // snapshot: one from after the merge takes the source along, one from before it lets CommitMerge do so.
      continue;
    }
    if (canDestroy) {
      const target = ctx.meta.pendingMergeTargets
        .get(regionId)
        ?.get(other.id)
        ?.peers.find((p) => p.storeId === ctx.storeId);
      ctx.router.toPeer(other.id, {
        type: 'merge-result',
        targetRegionId: regionId,
        targetPeer: target ?? {
          id: peerId as Region['peers'][number]['id'],
          storeId: ctx.storeId as StoreId,
          role: 'voter',
        },
        kind: 'stale',
      });
      continue;
    }
    taken = true;
    if (epoch.version > other.epoch.version) {
      ctx.router.toPeer(other.id, { type: 'region-overlapped' });
    }
  }
  return taken;
}
