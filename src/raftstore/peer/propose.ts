/**
 * The gates every proposal passes on the leader (reference section 3 and wire-api 7.1) and the batching of writes: all
 * writes of one round become one Raft entry, up to the limits of the configuration.
 */
import { rangeContains, rangeCovers } from '../../base/key-range.ts';
import type { AdminCommand, WriteOp } from '../../codec/command.ts';
import { encodeRaftCommand } from '../../codec/raft-records.ts';
import type { RegionError } from '../../codec/region-error.ts';
import { epochChecks } from '../operation/region-change.ts';
import { isBiased } from '../bias.ts';
import type { EntryOutcome, OpResult, RequestHeader, WriteOutcome, WriteRequest } from '../msg.ts';
import {
  type AdminObstacle,
  adminRefused,
  entryTooLarge,
  epochNotMatch,
  epochNotMatchOf,
  keyNotInRegion,
  mergingMode,
  messageOnly,
  mismatchPeerId,
  notLeader,
  regionNotFound,
  regionNotInitialized,
  serverIsBusy,
  staleCommand,
  undetermined,
} from '../refusal.ts';
import { DATA_CHECKS } from './epoch-checker.ts';
import { fencedError } from './fence.ts';
import type { HeldRequest, RaftPeer } from './raft-peer.ts';

/** Requests one region holds back while it is in the middle of a transition. */
const HELD_REQUESTS_MAX = 10_000;

/** Static checks of a data request, in the order clients rely on. Undefined means it may go on. */
export function checkHeader(peer: RaftPeer, header: RequestHeader, needsLeader: boolean): RegionError | undefined {
  if (!peer.isActive) {
    return regionNotFound(peer.regionId);
  }
  if (header.peerId !== peer.peer.id) {
    return mismatchPeerId(header.peerId, peer.peer.id);
  }
  if (needsLeader && !peer.isLeader) {
    return notLeader(peer.regionId, peer.leaderPeer());
  }
  if (!peer.isInitialized) {
    return regionNotInitialized(peer.regionId);
  }
  if (peer.installing.type !== 'none') {
    return messageOnly(`region ${peer.regionId} is installing a snapshot`);
  }
  if (peer.fence !== undefined) {
    return fencedError(peer);
  }
  if (header.term !== 0 && header.term + 1 < peer.node.term) {
    return staleCommand();
  }
  if (header.epoch.version !== peer.region.epoch.version) {
    return epochNotMatchOf(peer);
  }
  return undefined;
}

/** Keeps a request for a moment instead of refusing it; false if it has been held long enough already. */
export function hold(
  peer: RaftPeer,
  kind: HeldRequest['kind'],
  request: HeldRequest['request'],
  header: RequestHeader,
): boolean {
  const nowMs = peer.ctx.clock.monoMs();
  if (peer.held.length >= HELD_REQUESTS_MAX || nowMs >= header.deadlineMonoMs) {
    return false;
  }
  const untilMs = Math.min(nowMs + peer.ctx.config.holdRequestMs, header.deadlineMonoMs);
  peer.held.push({ untilMs, kind, request });
  return true;
}

function opBytes(op: WriteOp): number {
  switch (op.type) {
    case 'put':
      return op.key.length + op.value.length + 16;
    case 'compare-and-swap':
      return op.key.length + op.value.length + (op.expected?.length ?? 0) + 32;
    case 'delete-range':
      return op.range.start.length + op.range.end.length + 16;
    case 'delete':
    case 'expire':
      return op.key.length + 16;
  }
}

function checkOps(peer: RaftPeer, ops: readonly WriteOp[]): RegionError | undefined {
  const { range } = peer.region;
  for (const op of ops) {
    if (op.type === 'delete-range') {
      if (!rangeCovers(range, op.range)) {
        return keyNotInRegion(op.range.start, peer.region);
      }
    } else if (!rangeContains(range, op.key)) {
      return keyNotInRegion(op.key, peer.region);
    }
  }
  return undefined;
}

/** Takes a write into this round's batch, or answers it. `again` is true when a held request is tried a second time. */
export function addWrite(peer: RaftPeer, request: WriteRequest, again: boolean): void {
  const refuse = (error: RegionError): void => request.respond({ type: 'refused', error });
  const { header, ops } = request;
  const refusal = checkHeader(peer, header, true);
  if (refusal !== undefined) {
    const waits = refusal.type === 'not-leader' && refusal.leader === undefined && !again;
    if (!(waits && hold(peer, 'no-leader', { type: 'write', request }, header))) {
      refuse(refusal);
    }
    return;
  }
  if (peer.ctx.clock.monoMs() >= header.deadlineMonoMs) {
    refuse(messageOnly('deadline is exceeded'));
    return;
  }
  if (isBiased(peer.ctx.failpoints, 'bias::refuse-write', peer.regionId)) {
    refuse(serverIsBusy('a test says so'));
    return;
  }
  const badKey = checkOps(peer, ops);
  if (badKey !== undefined) {
    refuse(badKey);
    return;
  }
  let bytes = 0;
  for (const op of ops) {
    bytes += opBytes(op);
    if (op.type !== 'delete-range') {
      peer.load.noteKey(op.key);
    }
  }
  peer.load.noteBytes(bytes);
  const { config } = peer.ctx;
  if (bytes > config.entrySizeMaxBytes) {
    refuse(entryTooLarge(peer.regionId, bytes));
    return;
  }
  if (peer.pendingMerge !== undefined) {
    if (again || !hold(peer, 'merging', { type: 'write', request }, header)) {
      refuse(mergingMode(peer.regionId));
    }
    return;
  }
  const { term } = peer.node;
  if (peer.epochChecker.conflict(DATA_CHECKS, term) !== undefined) {
    peer.epochChecker.wait(DATA_CHECKS, term, (outcome) => {
      refuse(outcome === 'applied' ? epochNotMatchOf(peer) : staleCommand());
    });
    return;
  }
  if (
    peer.batchOps > 0 &&
    (peer.batchOps + ops.length > config.proposalBatchOpsMax || peer.batchBytes + bytes > config.proposalBatchBytesMax)
  ) {
    proposeBatch(peer);
  }
  if (peer.batchVersion !== peer.region.epoch.version) {
    // What was checked for an older version is answered by itself.
    proposeBatch(peer);
    peer.batchVersion = peer.region.epoch.version;
  }
  peer.batch.push(request);
  peer.batchOps += ops.length;
  peer.batchBytes += bytes;
  if (isBiased(peer.ctx.failpoints, 'bias::small-proposals', peer.regionId)) {
    proposeBatch(peer);
  }
}

/** Answers the requests of one write entry from the outcome of its entry. */
export function answerWrites(peer: RaftPeer, requests: readonly WriteRequest[], outcome: EntryOutcome): void {
  switch (outcome.type) {
    case 'write-applied': {
      let at = 0;
      for (const request of requests) {
        const results: readonly OpResult[] =
          requests.length === 1 ? outcome.results : outcome.results.slice(at, at + request.ops.length);
        at += request.ops.length;
        request.respond({ type: 'ok', results });
      }
      return;
    }
    case 'refused':
      answerAll(requests, { type: 'refused', error: outcome.error });
      return;
    case 'overwritten':
      answerAll(requests, { type: 'refused', error: staleCommand() });
      return;
    case 'region-removed':
      answerAll(requests, {
        type: 'refused',
        error: undetermined(`region ${peer.regionId} left this store before the write was applied here`),
      });
      return;
    case 'admin-applied':
      answerAll(requests, { type: 'refused', error: messageOnly('a write was answered as an admin command') });
      return;
  }
}

function answerAll(requests: readonly WriteRequest[], outcome: WriteOutcome): void {
  for (const request of requests) {
    request.respond(outcome);
  }
}

/** Proposes the writes collected in this round as one entry. */
export function proposeBatch(peer: RaftPeer): void {
  if (peer.batch.length === 0) {
    return;
  }
  const requests = peer.batch.splice(0);
  peer.batchOps = 0;
  peer.batchBytes = 0;
  if (peer.batchVersion !== peer.region.epoch.version) {
    // A split or PrepareMerge of an earlier leader became applied in this very round. Under its epoch the writes would
    // pass the check at apply, and those behind PrepareMerge would be lost with the source.
    answerAll(requests, { type: 'refused', error: epochNotMatchOf(peer) });
    return;
  }
  const ops = requests.length === 1 ? (requests[0] as WriteRequest).ops : requests.flatMap((r) => r.ops);
  const data = encodeRaftCommand({ type: 'write', epoch: peer.region.epoch, ops });
  const proposedAtMs = peer.ctx.leaseClock.nowMs();
  const result = peer.node.propose(data);
  if (result.type !== 'proposed') {
    answerAll(requests, {
      type: 'refused',
      error:
        // The core may have lost the leadership in this very round, before the peer's role says so.
        peer.isLeader && peer.node.leadTransferee === 0 && result.reason !== 'no-leader'
          ? messageOnly(`proposal dropped: ${result.reason}`)
          : notLeader(peer.regionId, undefined),
    });
    return;
  }
  peer.proposals.push({
    index: result.index,
    term: result.term,
    proposedAtMs,
    complete: (outcome) => answerWrites(peer, requests, outcome),
  });
}

export type AdminProposal = { readonly type: 'proposed'; readonly index: number } | AdminObstacle;

/** Common gates of admin commands: leader, initialized, not merging, epoch checker, applied in this term. */
export function checkAdmin(peer: RaftPeer, type: AdminCommand['type']): AdminObstacle | undefined {
  if (!peer.isActive) {
    return { type: 'refused', error: regionNotFound(peer.regionId) };
  }
  if (!peer.isLeader) {
    return { type: 'refused', error: notLeader(peer.regionId, peer.leaderPeer()) };
  }
  if (peer.installing.type !== 'none') {
    return adminRefused('InstallingSnapshot', `region ${peer.regionId} is installing a snapshot`);
  }
  if (peer.pendingMerge !== undefined && type !== 'rollback-merge') {
    return adminRefused(
      'Merging',
      `region ${peer.regionId} is being merged into region ${peer.pendingMerge.target.id}`,
      mergingMode(peer.regionId),
    );
  }
  if (peer.fence !== undefined && (type === 'batch-split' || type === 'prepare-merge' || type === 'commit-merge')) {
    return adminRefused(
      'ReplicaDamaged',
      `the data of peer ${peer.peer.id}, which leads region ${peer.regionId}, differ from the others'`,
    );
  }
  const checks = epochChecks(type);
  const changes = checks.checksVersion || checks.checksConfVer;
  if (changes && !peer.node.appliedInTerm()) {
    return adminRefused(
      'ApplyNotCaughtUp',
      `the leader of region ${peer.regionId} has applied ${peer.appliedIndex} and no entry of its term ${peer.node.term} yet`,
    );
  }
  const conflict = peer.epochChecker.conflict(checks, peer.node.term);
  if (conflict !== undefined) {
    return adminRefused('CommandInFlight', `${conflict} of region ${peer.regionId} is in flight`);
  }
  if (peer.node.leadTransferee !== 0) {
    return adminRefused(
      'LeaderTransferring',
      `region ${peer.regionId} is transferring its leadership to peer ${peer.node.leadTransferee}`,
    );
  }
  return undefined;
}

/** Proposes an admin command as a normal entry. The caller has run {@link checkAdmin}. */
export function proposeAdmin(
  peer: RaftPeer,
  command: AdminCommand,
  complete: (outcome: EntryOutcome) => void,
): AdminProposal {
  const data = encodeRaftCommand({ type: 'admin', epoch: peer.region.epoch, command });
  if (data.length > peer.ctx.config.entrySizeMaxBytes) {
    return adminRefused(
      'EntryTooLarge',
      `${command.type} of region ${peer.regionId} takes ${data.length} bytes, more than the ${peer.ctx.config.entrySizeMaxBytes} of an entry`,
      entryTooLarge(peer.regionId, data.length),
    );
  }
  proposeBatch(peer);
  const proposedAtMs = peer.ctx.leaseClock.nowMs();
  const result = peer.node.propose(data);
  if (result.type !== 'proposed') {
    return adminRefused('ProposalDropped', `the proposal of ${command.type} was dropped: ${result.reason}`);
  }
  peer.epochChecker.proposed(command.type, epochChecks(command.type), result.index, result.term);
  peer.proposals.push({ index: result.index, term: result.term, proposedAtMs, complete });
  return { type: 'proposed', index: result.index };
}

/** Looks again at held requests: those whose obstacle is gone are handled, those that waited long enough refused. */
export function retryHeld(
  peer: RaftPeer,
  retryRead: (request: Extract<HeldRequest['request'], { type: 'read' }>['request'], again: boolean) => void,
  mergedInto: (() => RegionError | undefined) | undefined,
): void {
  if (peer.held.length === 0) {
    return;
  }
  const nowMs = peer.ctx.clock.monoMs();
  const held = peer.held.splice(0);
  for (const item of held) {
    const blocked = item.kind === 'merging' ? peer.pendingMerge !== undefined : !peer.isLeader && peer.lead === 0;
    const redirect = mergedInto?.();
    if (redirect !== undefined) {
      item.request.request.respond({ type: 'refused', error: redirect });
    } else if (blocked && nowMs < item.untilMs && peer.isActive) {
      peer.held.push(item);
    } else if (item.request.type === 'write') {
      addWrite(peer, item.request.request, true);
    } else {
      retryRead(item.request.request, true);
    }
  }
}

/** Answers everything that waits inside this peer; used when it dies. */
export function failEverything(peer: RaftPeer, error: RegionError): void {
  for (const item of peer.held.splice(0)) {
    item.request.request.respond({ type: 'refused', error });
  }
  for (const request of peer.batch.splice(0)) {
    request.respond({ type: 'refused', error });
  }
  for (const proposal of peer.proposals.splice(0)) {
    proposal.complete({ type: 'region-removed' });
  }
  for (const read of peer.pendingReads.splice(0)) {
    for (const request of read.requests) {
      request.respond({ type: 'refused', error });
    }
  }
  for (const request of peer.newReads.splice(0)) {
    request.respond({ type: 'refused', error });
  }
  for (const request of peer.halfSplitRequests.splice(0)) {
    request.respond({ type: 'refused', error });
  }
  for (const request of peer.pendingSplit?.requests ?? []) {
    request.respond({ type: 'refused', error });
  }
  peer.pendingSplit = undefined;
  peer.epochChecker.reset(0);
}

export const emptyEpochNotMatch = (): RegionError => epochNotMatch([]);
