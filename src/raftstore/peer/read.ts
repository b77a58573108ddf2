/**
 * Linearizable reads: from the leader's lease when it is valid, else through a read index confirmed by a quorum
 * (Raft paper section 8, thesis 6.4). A read is answered in a synchronous turn in which the engine may be read: the
 * applied state then contains every write acknowledged before.
 */
import { rangeContains } from '../../base/key-range.ts';
import { isBiased } from '../bias.ts';
import type { ReadRequest } from '../msg.ts';
import {
  epochNotMatchOf,
  keyNotInRegion,
  messageOnly,
  notLeader,
  readIndexNotReady,
  serverIsBusy,
  staleCommand,
} from '../refusal.ts';
import { fencedError } from './fence.ts';
import type { PendingRead, RaftPeer } from './raft-peer.ts';
import { checkHeader, hold } from './propose.ts';

/** Reads of one region waiting for a read index. */
const PENDING_READS_MAX = 20_000;
/** A follower asks again for a read index after so many heartbeats of its leader. */
const READ_INDEX_REPEAT_HEARTBEATS = 2;

/**
 * Whether a leader may answer without asking anybody. Until it has applied an entry of its own term it may lack what
 * leaders before it answered.
 */
export const mayUseLease = (peer: RaftPeer, leaseNowMs: number): boolean =>
  peer.isLeader && peer.node.appliedInTerm() && peer.lease.isValid(leaseNowMs);

/** Handles a read now if the lease allows it, else queues it for this round's read index. */
export function addRead(peer: RaftPeer, request: ReadRequest, again: boolean): void {
  const { header } = request;
  const refusal = checkHeader(peer, header, !request.replicaRead);
  if (refusal !== undefined) {
    const waits = refusal.type === 'not-leader' && refusal.leader === undefined && !again;
    if (!(waits && hold(peer, 'no-leader', { type: 'read', request }, header))) {
      request.respond({ type: 'refused', error: refusal });
    }
    return;
  }
  const nowMs = peer.ctx.clock.monoMs();
  if (nowMs >= header.deadlineMonoMs) {
    request.respond({ type: 'refused', error: messageOnly('deadline is exceeded') });
    return;
  }
  if (isBiased(peer.ctx.failpoints, 'bias::refuse-read', peer.regionId)) {
    request.respond({ type: 'refused', error: serverIsBusy('a test says so') });
    return;
  }
  for (const key of request.keys) {
    if (!rangeContains(peer.region.range, key)) {
      request.respond({ type: 'refused', error: keyNotInRegion(key, peer.region) });
      return;
    }
  }
  if (peer.isMerging) {
    if (again || !hold(peer, 'merging', { type: 'read', request }, header)) {
      request.respond({ type: 'refused', error: readIndexNotReady(peer.regionId, 'the region is merging') });
    }
    return;
  }
  const leaseNowMs = peer.ctx.leaseClock.nowMs();
  if (mayUseLease(peer, leaseNowMs) && !isBiased(peer.ctx.failpoints, 'bias::skip-lease', peer.regionId)) {
    peer.ctx.failpoints.hit('lease::before-serve', peer.regionId);
    const answered = peer.ctx.router.applyConflict(
      peer.regionId,
      request.isPointRead === true ? request.keys : undefined,
    );
    // A follower that was given a read index may show anything committed, even what is not applied here yet: a reader
    // who saw that must not see less here.
    const waitFor = peer.sharedReadsTerm === peer.node.term ? Math.max(answered, peer.node.committed) : answered;
    if (waitFor > peer.appliedIndex) {
      // What must be seen was answered or may have been shown already; the engine shows it in a moment.
      peer.pendingReads.push({
        id: peer.nextReadId++,
        term: peer.node.term,
        sentAtMs: leaseNowMs,
        requests: [request],
        index: waitFor,
        askedAtMs: nowMs,
      });
      peer.ctx.flushWrites();
      return;
    }
    noteRead(peer, request);
    request.respond({ type: 'ok', region: peer.region });
    maybeRenew(peer, leaseNowMs);
    return;
  }
  if (peer.newReads.length >= PENDING_READS_MAX) {
    request.respond({ type: 'refused', error: readIndexNotReady(peer.regionId, 'too many reads are waiting') });
    return;
  }
  peer.newReads.push(request);
}

/** Renews the lease in the background before it runs out, so that a steady stream of reads never waits. */
function maybeRenew(peer: RaftPeer, leaseNowMs: number): void {
  const nowMs = peer.ctx.clock.monoMs();
  const lengthMs = peer.ctx.config.leaderLeaseMs;
  if (
    peer.lease.remaining(leaseNowMs) < lengthMs / 2 &&
    nowMs - peer.renewAskedAtMs > lengthMs / 4 &&
    !peer.isSplitting
  ) {
    peer.renewAskedAtMs = nowMs;
    askReadIndex(peer, []);
  }
}

const READ_CONTEXT_BYTES = 8;

function contextOf(id: number): Uint8Array {
  const out = new Uint8Array(READ_CONTEXT_BYTES);
  new DataView(out.buffer).setFloat64(0, id);
  return out;
}

/**
 * Asks for one read index for `requests`. What the core drops is refused at once: it may have lost the leadership in
 * this very round, before the peer's role says so, and for a dropped question no answer and no change of term comes.
 */
function askReadIndex(peer: RaftPeer, requests: readonly ReadRequest[]): void {
  const id = peer.nextReadId++;
  const sentAtMs = peer.ctx.leaseClock.nowMs();
  const askedAtMs = peer.ctx.clock.monoMs();
  const result = peer.node.readIndex(contextOf(id));
  if (result.type === 'ok') {
    // The confirmation comes with the next ready, even from a single voter.
    peer.pendingReads.push({ id, term: peer.node.term, sentAtMs, requests, index: 0, askedAtMs });
    return;
  }
  const error =
    result.type === 'dropped' && result.reason === 'too-many-reads'
      ? readIndexNotReady(peer.regionId, 'too many reads are waiting')
      : notLeader(peer.regionId, undefined);
  for (const request of requests) {
    request.respond({ type: 'refused', error });
  }
}

/** One read index for all reads of this round that the lease could not serve. */
export function sendReadIndex(peer: RaftPeer): void {
  if (peer.newReads.length > 0) {
    const requests = peer.newReads.splice(0);
    if (!peer.isLeader && peer.lead === 0) {
      for (const request of requests) {
        request.respond({ type: 'refused', error: notLeader(peer.regionId, undefined) });
      }
      return;
    }
    askReadIndex(peer, requests);
  }
}

/**
 * Asks again for read indexes that a follower's leader has not given: the question or its answer was lost. It is the
 * same question under the same id, so whichever answer comes first serves the reads: each names an index at least as
 * large as what was acknowledged when they came. A leader asks nobody; its heartbeats repeat what waits.
 */
export function repeatReadIndex(peer: RaftPeer): void {
  if (peer.isLeader || peer.lead === 0 || peer.pendingReads.length === 0) {
    return;
  }
  const nowMs = peer.ctx.clock.monoMs();
  const { heartbeatTicks, tickMs } = peer.ctx.config;
  for (const read of peer.pendingReads) {
    if (
      read.index === 0 &&
      read.term === peer.node.term &&
      nowMs - read.askedAtMs >= READ_INDEX_REPEAT_HEARTBEATS * heartbeatTicks * tickMs
    ) {
      read.askedAtMs = nowMs;
      peer.node.readIndex(contextOf(read.id));
    }
  }
}

/** The core confirmed a read index. */
export function onReadState(peer: RaftPeer, context: Uint8Array, index: number): void {
  if (context.byteLength !== READ_CONTEXT_BYTES) {
    // Nothing this replica asked for: another store sent a request that makes no sense, in this one's name.
    peer.log.warn({ bytes: context.byteLength }, 'a read index with a context of a wrong length');
    return;
  }
  const id = new DataView(context.buffer, context.byteOffset, context.byteLength).getFloat64(0);
  const read = peer.pendingReads.find((r) => r.id === id);
  if (read === undefined || read.index !== 0) {
    // The second answer to a question that was asked twice says nothing that the first did not.
    return;
  }
  read.index = index;
  if (peer.isLeader && read.term === peer.node.term && !peer.isMerging && !peer.isSplitting) {
    peer.ctx.failpoints.hit('lease::before-renew', peer.regionId);
    peer.lease.renew(read.sentAtMs, read.term);
  }
}

/** Answers confirmed reads whose index is applied, and gives up on those that lost their leader. */
export function serveReads(peer: RaftPeer): void {
  if (peer.pendingReads.length === 0 || !peer.isActive) {
    // A replica on its way out shows nothing more: its range may be cleaned. What waits is answered at its end.
    return;
  }
  const nowMs = peer.ctx.clock.monoMs();
  const leaseNowMs = peer.ctx.leaseClock.nowMs();
  const rest: PendingRead[] = [];
  for (const read of peer.pendingReads) {
    if (read.term !== peer.node.term && read.index === 0) {
      for (const request of read.requests) {
        request.respond({ type: 'refused', error: staleCommand() });
      }
    } else if (
      read.index !== 0 &&
      peer.appliedIndex >= read.index &&
      !peer.isMerging &&
      peer.installing.type === 'none'
    ) {
      // While a snapshot is installed the applied index is already the snapshot's, the data is not.
      for (const request of read.requests) {
        serve(peer, request);
      }
    } else {
      const waiting = read.requests.filter((request) => {
        if (nowMs < request.header.deadlineMonoMs) {
          return true;
        }
        request.respond({
          type: 'refused',
          error: readIndexNotReady(peer.regionId, 'no quorum confirmed the read in time'),
        });
        return false;
      });
      if (
        waiting.length > 0 ||
        (read.requests.length === 0 && leaseNowMs - read.sentAtMs < peer.ctx.config.leaderLeaseMs)
      ) {
        rest.push({ ...read, requests: waiting });
        if (waiting.length > 0 && read.index > peer.appliedIndex) {
          // What the read must see may be held back only because nobody waited for it so far.
          peer.ctx.flushWrites();
        }
      }
    }
  }
  peer.pendingReads.length = 0;
  peer.pendingReads.push(...rest);
}

/** Counts a read before it is served; a leader's count says how busy the region is. */
function noteRead(peer: RaftPeer, { keys, scanEnd }: ReadRequest): void {
  peer.flowKeysRead += keys.length;
  if (peer.isLeader) {
    for (const key of keys) {
      peer.load.noteKey(key, scanEnd);
    }
  }
}

function serve(peer: RaftPeer, request: ReadRequest): void {
  const { region } = peer;
  if (peer.fence !== undefined) {
    request.respond({ type: 'refused', error: fencedError(peer) });
    return;
  }
  if (request.header.epoch.version !== region.epoch.version) {
    request.respond({ type: 'refused', error: epochNotMatchOf(peer) });
    return;
  }
  noteRead(peer, request);
  request.respond({ type: 'ok', region });
}
