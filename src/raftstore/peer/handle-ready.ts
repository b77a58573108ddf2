/**
 * Takes what the Raft core wants done (its Ready, async storage mode) and turns it into effects, in the order the
 * protocol needs (reference 2.3, raft-core 15):
 *
 * ```text
 * role hooks ─► commit hook (merge and split: lease) ─► leader messages leave ─► read states
 *            ─► entries and hard state join the round's log batch; what promises them waits for it
 *            ─► committed entries go to the apply FSM
 * ```
 */
import { assert } from '../../base/assert.ts';
import { equalBytes } from '../../base/bytes.ts';
import { regionId } from '../../base/ids.ts';
import { subtractRange } from '../../base/key-range.ts';
import { decodeRegionLocalState, encodeApplyState, encodeRegionLocalState } from '../../codec/raft-records.ts';
import { decodeSnapshotDescriptor } from '../../codec/snapshot-record.ts';
import type { WriteBatch } from '../../env/engine.ts';
import { applyStateKey, raftLogKey, raftStateKey, regionStateKey } from '../../engine/keyspace.ts';
import { logIndex } from '../../base/ids.ts';
import {
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  MsgType,
  type Entry,
  type HardState,
  type Message,
  type Snapshot,
} from '../../raft/types.ts';
import type { Region } from '../../meta/region.ts';
import type { PendingProposal } from '../msg.ts';
import { isBiased } from '../bias.ts';
import { beforePrepare } from '../operation/region-change.ts';
import { putRedirect } from '../store/redirects.ts';
import { onBecomeLeader, onStepDown } from './role.ts';
import { onReadState, serveReads } from './read.ts';
import type { QueuedProposal, RaftPeer } from './raft-peer.ts';

/** Whether taking a ready must wait: the peer is on its way out, or a snapshot is in the middle of something. */
export function mustWait(peer: RaftPeer): boolean {
  if (!peer.isActive || peer.installing.type === 'persisting' || peer.installing.type === 'installing') {
    return true;
  }
  if (peer.installing.type !== 'accepted') {
    return false;
  }
  // A snapshot replaces the state machine: everything handed to apply must be applied, everything written durable, and
  // the apply FSM of every source region that dies with it stopped.
  if (peer.lastApplyingIndex !== peer.appliedIndex || peer.generating.type === 'waiting' || peer.inflight.length > 0) {
    return true;
  }
  const sources = peer.ctx.meta.atomicSnapRegions.get(peer.regionId);
  return sources !== undefined && [...sources.values()].some((stopped) => !stopped);
}

/**
 * Collects one ready. Returns true if something was added to `batch`, so that the round must write it and post
 * `persisted` for `peer.readyNumber` afterwards.
 */
export function collectReady(peer: RaftPeer, batch: WriteBatch): boolean {
  if (mustWait(peer) || !peer.node.hasReady()) {
    return false;
  }
  const { node } = peer;
  const ready = node.ready();
  if (ready.softState !== null) {
    const wasLeader = peer.role === 'leader';
    peer.role = ready.softState.role;
    peer.lead = ready.softState.lead;
    if (peer.role === 'leader' && !wasLeader) {
      onBecomeLeader(peer);
    } else if (peer.role !== 'leader' && wasLeader) {
      onStepDown(peer);
    }
  }
  if (node.committed > peer.seenCommit) {
    onCommit(peer, peer.seenCommit, node.committed);
    peer.seenCommit = node.committed;
  }
  for (const read of ready.readStates) {
    onReadState(peer, read.requestContext, read.index);
  }

  let append: Message | undefined;
  const held: Message[] = [];
  for (const message of ready.messages) {
    if (message.to === LOCAL_APPEND_THREAD) {
      append = message;
    } else if (message.to === LOCAL_APPLY_THREAD) {
      handToApply(peer, message);
    } else if (ready.leaderMessages) {
      sendRaft(peer, message);
    } else {
      held.push(message);
    }
  }

  const snapshot = append?.snapshot ?? null;
  const entries = append?.entries ?? [];
  const hardState = append === undefined ? null : hardStateOf(append);
  const promisesChanged =
    hardState !== null &&
    (hardState.term !== peer.storage.raftState.term || hardState.vote !== peer.storage.raftState.vote);
  const written = entries.length > 0 || promisesChanged || snapshot !== null;
  if (snapshot !== null) {
    acceptedSnapshotToBatch(peer, batch, snapshot, hardState);
    if (entries.length > 0) {
      // Entries behind the snapshot that came before this round; their acknowledgement leaves with the same batch.
      peer.storage.append(batch, entries, null);
    }
  } else if (written) {
    peer.storage.append(batch, entries, hardState);
  } else if (hardState !== null) {
    // A commit index alone may be written lazily, with whatever comes next; apply persists it as well.
    peer.storage.raftState = {
      ...peer.storage.raftState,
      commit: Math.max(peer.storage.raftState.commit, hardState.commit),
    };
  }
  const responses = append?.responses ?? [];
  if (written || responses.length > 0 || held.length > 0) {
    peer.readyNumber++;
    peer.inflight.push({ number: peer.readyNumber, written, responses, held, snapshot });
    if (!written) {
      releaseUnwritten(peer);
    }
  }
  askForSnapshot(peer);
  return written;
}

function hardStateOf(append: Message): HardState | null {
  return append.term === 0 && append.vote === 0 && append.commit === 0
    ? null
    : { term: append.term, vote: append.vote, commit: append.commit };
}

/** Releases readies at the head of the queue that need no disk. */
function releaseUnwritten(peer: RaftPeer): void {
  while (peer.inflight.length > 0 && peer.inflight[0]?.written === false) {
    release(peer);
  }
}

function release(peer: RaftPeer): void {
  const ready = peer.inflight.shift();
  assert(ready !== undefined, 'release without a ready in flight');
  for (const message of ready.held) {
    sendRaft(peer, message);
  }
  for (const message of ready.responses) {
    if (message.to === peer.peer.id) {
      peer.node.step(message);
    } else {
      sendRaft(peer, message);
    }
  }
}

/** The log batch of ready `number` is durable: whatever promises it may leave now. Returns a durable snapshot, if it held one. */
export function onPersisted(peer: RaftPeer, number: number): Snapshot | null {
  let snapshot: Snapshot | null = null;
  while (peer.inflight.length > 0 && (peer.inflight[0]?.number ?? number + 1) <= number) {
    snapshot = peer.inflight[0]?.snapshot ?? snapshot;
    release(peer);
  }
  releaseUnwritten(peer);
  evictCache(peer);
  return snapshot;
}

/** Entries in the cache that are durable and applied are kept only up to this many bytes per region. */
const CACHE_KEEP_BYTES = 256 * 1024;

export function evictCache(peer: RaftPeer): void {
  const { cache } = peer.storage;
  const isFull = cache.bytes > CACHE_KEEP_BYTES;
  if (
    (isFull || isBiased(peer.ctx.failpoints, 'bias::drop-entry-cache', peer.regionId)) &&
    peer.inflight.length === 0
  ) {
    cache.evictTo(peer.appliedIndex);
  }
}

/** Sends a message of the core to a fellow peer. */
function sendRaft(peer: RaftPeer, message: Message): void {
  const to = peer.findPeer(message.to);
  if (to === undefined) {
    peer.log.debug({ to: message.to, type: message.type }, 'no address for a raft message');
    return;
  }
  if (message.type === MsgType.Snap) {
    sendSnapshot(peer, message);
    return;
  }
  if (message.type === MsgType.TimeoutNow) {
    // The target may win at any later time of this term, without waiting for the lease.
    peer.lease.forbid(peer.node.term);
  }
  const creates =
    message.type === MsgType.Vote ||
    message.type === MsgType.PreVote ||
    (message.type === MsgType.Heartbeat && message.commit === 0);
  peer.ctx.transport.send(peer.envelope(to, { type: 'raft', message }, creates));
}

function sendSnapshot(peer: RaftPeer, message: Message): void {
  const { snapshot } = message;
  const to = peer.findPeer(message.to);
  assert(snapshot !== null && to !== undefined, 'snapshot message without a snapshot');
  const { index } = snapshot.metadata;
  const { snapshotId } = decodeSnapshotDescriptor(snapshot.data);
  const source = peer.ctx.snapshots.take(snapshotId);
  const { ctx, regionId: region } = peer;
  const done = (ok: boolean): void => {
    ctx.router.toPeer(region, { type: 'snapshot-sent', toPeer: to.id, index, ok });
  };
  if (source === undefined) {
    done(false);
    return;
  }
  peer.lastSentSnapshotIndex = Math.max(peer.lastSentSnapshotIndex, index);
  peer.log.info({ to: to.id, toStore: to.storeId, index }, 'sending a snapshot');
  ctx.transport.sendSnapshot(peer.envelope(to, { type: 'raft', message }, true), source, done);
}

/** Asks the apply FSM for a snapshot behind everything handed to it so far. */
function askForSnapshot(peer: RaftPeer): void {
  if (peer.generating.type === 'wanted') {
    const { toPeer } = peer.generating;
    const requestId = peer.nextRequestId++;
    peer.generating = { type: 'waiting', requestId, toPeer };
    if (!peer.ctx.router.toApply(peer.regionId, { type: 'gen-snapshot', requestId, toPeer })) {
      peer.generating = { type: 'none' };
    }
  }
}

/** Hands committed entries and the proposals waiting for them to the apply FSM. */
function handToApply(peer: RaftPeer, message: Message): void {
  const { entries } = message;
  const last = entries[entries.length - 1] as Entry;
  assert(last.index > peer.lastApplyingIndex, 'entries handed to apply twice', { index: last.index });
  assert(entries[0]?.index === peer.lastApplyingIndex + 1, 'entries handed to apply leave a hole', {
    first: entries[0]?.index,
    lastApplying: peer.lastApplyingIndex,
  });
  const proposals: PendingProposal[] = [];
  let renewFrom: QueuedProposal | undefined;
  for (let head = peer.proposals[0]; head !== undefined; head = peer.proposals[0]) {
    // A proposal of an earlier leadership may have a higher index than those of this one that queue behind it. Nothing
    // of its term can follow an entry of a later term, so it is lost, and must not keep the others from their entries.
    if (head.index > last.index && head.term >= last.term) {
      break;
    }
    const proposal = peer.proposals.shift() as QueuedProposal;
    proposals.push(proposal);
    if (proposal.term === peer.node.term) {
      renewFrom = proposal;
    }
  }
  if (renewFrom !== undefined && peer.isLeader && !peer.isMerging && !peer.isSplitting) {
    peer.lease.renew(renewFrom.proposedAtMs, renewFrom.term);
  }
  peer.lastApplyingIndex = last.index;
  for (const response of message.responses) {
    peer.pendingApplyAcks.push({ lastIndex: last.index, response });
  }
  const { commitIndex, commitTerm } = commitPosition(peer, last);
  peer.ctx.router.toApply(peer.regionId, { type: 'apply', entries, commitIndex, commitTerm, proposals });
}

/** Commit index to record with the applied entries: as far as it is certainly in the durable log. */
function commitPosition(_peer: RaftPeer, last: Entry): { commitIndex: number; commitTerm: number } {
  return { commitIndex: last.index, commitTerm: last.term };
}

/** The commit index moved; runs before any message of the ready leaves (reference 5.2). */
function onCommit(peer: RaftPeer, oldCommit: number, newCommit: number): void {
  const { term } = peer.node;
  const merge = peer.epochChecker.proposedIndex('prepare-merge', term);
  if (merge !== undefined && merge > oldCommit && merge <= newCommit) {
    // Once followers know that PrepareMerge is committed the target may take writes for this range elsewhere: no read
    // may be served here from the lease any more, and no earlier message may renew it.
    peer.lastCommittedPrepareMergeIndex = merge;
    peer.lease.suspect(peer.ctx.leaseClock.nowMs());
  }
  const split = peer.epochChecker.proposedIndex('batch-split', term);
  if (split !== undefined && split > oldCommit && split <= newCommit) {
    peer.lastCommittedSplitIndex = split;
  }
}

/** Steps the core's apply acknowledgements up to what is applied. */
export function acknowledgeApplied(peer: RaftPeer): void {
  while (peer.pendingApplyAcks.length > 0 && (peer.pendingApplyAcks[0]?.lastIndex ?? 0) <= peer.appliedIndex) {
    const ack = peer.pendingApplyAcks.shift();
    if (ack !== undefined && peer.isActive) {
      peer.node.step(ack.response);
    }
  }
  serveReads(peer);
}

/**
 * An accepted snapshot: everything the replica was is replaced, and the sources that die with it become tombstones in
 * the same batch. A crash before this batch leaves everything as it was; after it, the installation is resumed.
 */
function acceptedSnapshotToBatch(
  peer: RaftPeer,
  batch: WriteBatch,
  snapshot: Snapshot,
  hardState: HardState | null,
): void {
  assert(peer.installing.type === 'accepted', 'a snapshot that was not accepted reached persistence');
  const { region, staged } = peer.installing;
  const { index, term } = snapshot.metadata;
  const { region: described } = decodeSnapshotDescriptor(snapshot.data);
  assert(
    described.id === region.id && equalBytes(described.range.start, region.range.start),
    'the accepted snapshot is not the one Raft took',
  );
  const oldRegion = peer.region;
  const old = peer.storage;
  for (let i = old.firstIndex(); i <= old.lastIndex(); i++) {
    batch.del(raftLogKey(peer.regionId, logIndex(i)));
  }
  const promises = hardState ?? { term: old.raftState.term, vote: old.raftState.vote, commit: index };
  old.resetTo(region, index, term, promises);
  peer.region = region;
  old.putRaftState(batch);
  batch.put(applyStateKey(peer.regionId), encodeApplyState(old.applyState));
  batch.put(
    regionStateKey(peer.regionId),
    encodeRegionLocalState({ state: 'applying', region, mergeState: undefined }),
  );
  peer.ctx.workers.recordInstall(batch, region, staged);
  const cleanTasks = giveUpOutside(peer, oldRegion, region, batch);
  const former = formerSelves(peer, oldRegion, region);
  for (const before of former) {
    putRedirect(batch, before, peer.regionId);
  }
  for (const source of peer.ctx.meta.atomicSnapRegions.get(peer.regionId)?.keys() ?? []) {
    const dead = peer.ctx.meta.regions.get(source);
    assert(dead !== undefined, 'a source of an atomic snapshot is gone', { source });
    batch.put(
      regionStateKey(regionId(source)),
      encodeRegionLocalState({ state: 'tombstone', region: dead, mergeState: undefined }),
    );
    batch.del(raftStateKey(regionId(source)));
    batch.del(applyStateKey(regionId(source)));
  }
  // What was proposed here in the range the snapshot covers may or may not be part of it.
  for (let head = peer.proposals[0]; head !== undefined && head.index <= index; head = peer.proposals[0]) {
    peer.proposals.shift();
    head.complete({ type: 'region-removed' });
  }
  peer.lastApplyingIndex = index;
  peer.gcFromIndex = index + 1;
  peer.pendingApplyAcks.length = 0;
  peer.installing = { type: 'persisting', region, staged, oldRegion, former, cleanTasks };
}

/**
 * What the old descriptor and the sources that go with the snapshot hold outside the new range belongs to nobody here
 * any more: the region was split behind what this store has seen. Noted in the batch that gives the ranges up, so that
 * no crash leaves the data behind; answers the tasks to start once it is durable.
 */
function giveUpOutside(peer: RaftPeer, oldRegion: Region, region: Region, batch: WriteBatch): number[] {
  const { meta, workers } = peer.ctx;
  const left = oldRegion.peers.length === 0 ? [] : [oldRegion.range];
  for (const source of meta.atomicSnapRegions.get(peer.regionId)?.keys() ?? []) {
    const dead = meta.regions.get(source);
    assert(dead !== undefined, 'a source of an atomic snapshot is gone', { source });
    left.push(dead.range);
  }
  return left.flatMap((range) => subtractRange(range, region.range)).map((piece) => workers.addCleanTask(batch, piece));
}

/**
 * What clients may still believe of the keys that a snapshot brings: its region and the sources that go with it, as
 * this store knew them. Versions in between, which it missed, are unknown here; other stores have records of them.
 */
function formerSelves(peer: RaftPeer, oldRegion: Region, region: Region): Region[] {
  const { engine, meta } = peer.ctx;
  const former: Region[] = [];
  if (oldRegion.peers.length > 0 && oldRegion.epoch.version !== region.epoch.version) {
    former.push(oldRegion, ...(peer.pendingMerge === undefined ? [] : [beforePrepare(oldRegion)]));
  }
  for (const source of meta.atomicSnapRegions.get(peer.regionId)?.keys() ?? []) {
    const dead = meta.regions.get(source);
    assert(dead !== undefined, 'a source of an atomic snapshot is gone', { source });
    const bytes = engine.getSync(regionStateKey(regionId(source)));
    const isMerging = bytes !== undefined && decodeRegionLocalState(bytes).state === 'merging';
    former.push(dead, ...(isMerging ? [beforePrepare(dead)] : []));
  }
  return former;
}
