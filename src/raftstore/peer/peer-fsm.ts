/**
 * Dispatch of one peer FSM: a message in, effects out through the context. It decides nothing itself; the modules of
 * `peer/` and `operation/` do. One round is: `handle` for each message fetched at its start, then `endRound`.
 */
import { unreachable } from '../../base/assert.ts';
import type { WriteBatch } from '../../env/engine.ts';
import { onSplitIds, startSplit } from '../operation/batch-split.ts';
import { proposeChangePeer } from '../operation/conf-change.ts';
import { startConsistencyCheck, tickConsistencyCheck } from '../operation/consistency.ts';
import { onCatchUpLogs } from '../operation/merge/catch-up.ts';
import { onMergeResult, onSourceApplyStopped, proposeCommitMerge } from '../operation/merge/commit.ts';
import { proposePrepareMerge } from '../operation/merge/prepare.ts';
import { checkMerge } from '../operation/merge/schedule.ts';
import { transferLeader } from '../operation/transfer-leader.ts';
import { isBiased } from '../bias.ts';
import type { AdminRequest, PeerMsg } from '../msg.ts';
import { adminRefused, epochNotMatch, epochNotMatchOf, regionNotFound, serverIsBusy } from '../refusal.ts';
import { isEpochStale } from '../../meta/region.ts';
import { fence, leaveLead } from './fence.ts';
import { onApplied } from './handle-applied.ts';
import { onPeerMessage } from './handle-message.ts';
import { collectReady, mustWait, onPersisted } from './handle-ready.ts';
import {
  checkStale,
  continueDestroy,
  onApplyDestroyed,
  onDestroyedOnDisk,
  onPdRegion,
  startDestroy,
} from './life-cycle.ts';
import { maybeCompactLog } from './log-gc.ts';
import { addWrite, checkAdmin, proposeAdmin, proposeBatch, retryHeld } from './propose.ts';
import type { RaftPeer } from './raft-peer.ts';
import { addRead, repeatReadIndex, sendReadIndex, serveReads } from './read.ts';
import { noteRefusal, reportIfDue } from './report.ts';
import { acceptSnapshot, onSnapshotInstalled, onSnapshotPersisted } from './snapshot-accept.ts';

export class PeerFsm {
  readonly peer: RaftPeer;

  constructor(peer: RaftPeer) {
    this.peer = peer;
  }

  get isDead(): boolean {
    return this.peer.life.type === 'dead';
  }

  handle(msg: PeerMsg): void {
    const { peer } = this;
    switch (msg.type) {
      case 'peer-message':
        onPeerMessage(peer, msg.message);
        return;
      case 'write':
        addWrite(peer, msg.request, false);
        return;
      case 'read':
        addRead(peer, msg.request, false);
        return;
      case 'admin':
        this.#onAdmin(msg.request);
        return;
      case 'propose-commit-merge':
        proposeCommitMerge(peer, msg.expectedEpoch, msg.targetPeerId, msg.command);
        return;
      case 'raft-tick':
        if (peer.isActive) {
          peer.node.advanceTicks(msg.ticks);
          retryHeld(peer, (request, again) => addRead(peer, request, again), undefined);
          repeatReadIndex(peer);
          serveReads(peer);
        }
        return;
      case 'check-merge':
        checkMerge(peer);
        return;
      case 'maintenance-tick':
        this.#maintain();
        return;
      case 'pd-heartbeat-tick':
        peer.pdHeartbeatDue = peer.isLeader && !isBiased(peer.ctx.failpoints, 'bias::skip-heartbeat', peer.regionId);
        return;
      case 'split-check-tick':
        this.#checkSplit();
        return;
      case 'persisted':
        if (msg.peerId === peer.peer.id) {
          const snapshot = onPersisted(peer, msg.readyNumber);
          if (snapshot !== null) {
            onSnapshotPersisted(peer);
          }
          continueDestroy(peer);
        }
        return;
      case 'applied':
        onApplied(peer, msg.result);
        return;
      case 'apply-destroyed':
        if (msg.peerId === peer.peer.id) {
          if (msg.mergeFromSnapshot) {
            onSourceApplyStopped(peer);
          } else {
            onApplyDestroyed(peer);
          }
        }
        return;
      case 'catch-up-logs':
        onCatchUpLogs(peer, msg.request);
        return;
      case 'merge-result':
        onMergeResult(peer, msg.targetRegionId, msg.targetPeer, msg.kind);
        return;
      case 'region-overlapped':
        this.#onOverlapped();
        return;
      case 'destroy':
        if (msg.peerId === peer.peer.id && peer.isActive) {
          startDestroy(peer, false, 'it is not a member any more');
        }
        return;
      case 'destroyed-on-disk':
        onDestroyedOnDisk(peer, msg.peerId);
        return;
      case 'snapshot-generated':
        if (peer.generating.type === 'waiting' && peer.generating.requestId === msg.requestId) {
          peer.generating =
            msg.snapshot === undefined
              ? { type: 'none' }
              : { type: 'ready', toPeer: peer.generating.toPeer, snapshot: msg.snapshot };
          if (peer.isLeader && peer.isActive) {
            // Heartbeat answers make the core try again and find the snapshot.
            peer.node.ping();
          }
        } else if (msg.snapshot !== undefined) {
          peer.ctx.snapshots.dropOf(msg.snapshot);
        }
        return;
      case 'snapshot-sent':
        if (peer.isActive) {
          peer.node.reportSnapshot(msg.toPeer, msg.ok);
        }
        return;
      case 'snapshot-received':
        if (msg.message.to.id === peer.peer.id) {
          acceptSnapshot(peer, msg.message, msg.staged);
        } else {
          peer.ctx.workers.discardStaged(msg.staged.stagingId);
          onPeerMessage(peer, { ...msg.message, body: { type: 'wake-up' } });
        }
        return;
      case 'snapshot-installed':
        if (msg.peerId === peer.peer.id) {
          onSnapshotInstalled(peer, msg.sizeBytes, msg.keys);
        }
        return;
      case 'split-checked':
        this.#onSplitChecked(msg);
        return;
      case 'split-ids':
        onSplitIds(peer, msg.attempt, msg.ids, msg.failure);
        return;
      case 'unreachable':
        for (const member of peer.region.peers) {
          if (member.storeId === msg.storeId && peer.isActive) {
            peer.node.reportUnreachable(member.id);
          }
        }
        return;
      case 'pd-region':
        onPdRegion(peer, msg.region);
        return;
      case 'inherit-fence':
        fence(peer, peer.appliedIndex, msg.reason);
        return;
      case 'step-refused':
        noteRefusal(peer, msg.step, msg.refusal);
        return;
      default:
        unreachable(msg);
    }
  }

  /** Ends the peer's part of a round; true if `batch` got something whose durability must be reported back. */
  endRound(batch: WriteBatch): boolean {
    const { peer } = this;
    proposeBatch(peer);
    sendReadIndex(peer);
    const written = collectReady(peer, batch);
    serveReads(peer);
    reportIfDue(peer);
    peer.checkInvariants();
    return written;
  }

  /** Whether another round is needed although no mail arrived. */
  get hasMore(): boolean {
    return !mustWait(this.peer) && this.peer.node.hasReady();
  }

  #onAdmin(request: AdminRequest): void {
    const { peer } = this;
    const { body, epoch } = request;
    if (!peer.isActive) {
      request.respond({ type: 'refused', error: regionNotFound(peer.regionId) });
      return;
    }
    if (isBiased(peer.ctx.failpoints, 'bias::refuse-admin', peer.regionId)) {
      request.respond({ type: 'refused', error: serverIsBusy('a test says so') });
      return;
    }
    const usesEpoch = body.type !== 'transfer-leader' && body.type !== 'compute-hash' && body.type !== 'compact-log';
    if (usesEpoch && epoch !== undefined && peer.isLeader) {
      const membershipOnly = body.type === 'change-peer';
      const differs =
        epoch.confVer !== peer.region.epoch.confVer || (!membershipOnly && epoch.version !== peer.region.epoch.version);
      if (differs) {
        request.respond({
          type: 'refused',
          error: isEpochStale(epoch, peer.region.epoch) ? epochNotMatchOf(peer) : epochNotMatch([peer.region]),
        });
        return;
      }
    }
    switch (body.type) {
      case 'split':
        startSplit(peer, body.keys, [request], 'admin');
        return;
      case 'half-split': {
        const refusal = checkAdmin(peer, 'batch-split');
        if (refusal !== undefined) {
          request.respond(refusal);
          return;
        }
        peer.halfSplitRequests.push(request);
        peer.ctx.workers.checkSplit(peer.region, true);
        return;
      }
      case 'change-peer':
        proposeChangePeer(peer, request, body.changes);
        return;
      case 'transfer-leader':
        transferLeader(peer, request, body.peer);
        return;
      case 'merge':
        proposePrepareMerge(peer, request, body.target);
        return;
      case 'compact-log': {
        const { index } = body;
        const isApplied = index >= peer.node.firstIndex && index <= peer.appliedIndex;
        const refusal = isApplied
          ? checkAdmin(peer, 'compact-log')
          : adminRefused('Refused', `entry ${index} of region ${peer.regionId} is not there, or not applied yet`);
        const proposal =
          refusal ?? proposeAdmin(peer, { type: 'compact-log', index, term: peer.node.termAt(index) }, () => {});
        request.respond(proposal.type === 'proposed' ? { type: 'ok', regions: [peer.region] } : proposal);
        return;
      }
      case 'compute-hash':
        request.respond(
          startConsistencyCheck(peer)
            ? { type: 'ok', regions: [peer.region] }
            : (checkAdmin(peer, 'compute-hash') ??
                adminRefused('Refused', `region ${peer.regionId} cannot be checked now`)),
        );
        return;
      default:
        unreachable(body);
    }
  }

  #maintain(): void {
    const { peer } = this;
    if (isBiased(peer.ctx.failpoints, 'bias::skip-maintenance', peer.regionId)) {
      return;
    }
    checkStale(peer);
    maybeCompactLog(peer);
    tickConsistencyCheck(peer);
    leaveLead(peer);
    if (peer.installing.type === 'none' && peer.pendingMerge !== undefined && peer.checkMergeTimer === undefined) {
      checkMerge(peer);
    }
  }

  /** Measures the region if enough was written since the last time. */
  #checkSplit(): void {
    const { peer } = this;
    const { config } = peer.ctx;
    if (
      !peer.isLeader ||
      !peer.isActive ||
      peer.splitCheckRunning ||
      peer.pendingMerge !== undefined ||
      peer.pendingSplit !== undefined
    ) {
      peer.load.reset();
      return;
    }
    const hotKey = peer.load.look(peer.ctx.clock.monoMs(), peer.region.range);
    if (hotKey !== undefined) {
      startSplit(peer, [hotKey], [], 'load');
      return;
    }
    if (peer.writtenSinceCheckBytes < config.regionSplitSizeBytes / 8 && peer.approximateSizeBytes > 0) {
      return;
    }
    peer.splitCheckRunning = true;
    peer.writtenSinceCheckBytes = 0;
    peer.ctx.workers.checkSplit(peer.region, false);
  }

  #onSplitChecked(msg: Extract<PeerMsg, { type: 'split-checked' }>): void {
    const { peer } = this;
    if (!msg.forced) {
      peer.splitCheckRunning = false;
    }
    if (msg.epoch.version === peer.region.epoch.version) {
      const changed =
        peer.approximateSizeBytes === 0 ||
        Math.abs(peer.approximateSizeBytes - msg.sizeBytes) > peer.ctx.config.regionSplitSizeBytes / 10;
      // PD takes zero for "unknown"; an empty region is reported as one byte.
      peer.approximateSizeBytes = Math.max(1, msg.sizeBytes);
      peer.approximateKeys = msg.keys;
      peer.pdHeartbeatDue = peer.pdHeartbeatDue || (changed && peer.isLeader);
    }
    if (!msg.forced && isBiased(peer.ctx.failpoints, 'bias::split-check-again', peer.regionId)) {
      peer.writtenSinceCheckBytes = peer.ctx.config.regionSplitSizeBytes;
    }
    const requests = msg.forced ? peer.halfSplitRequests.splice(0) : [];
    if (msg.epoch.version !== peer.region.epoch.version) {
      for (const request of requests) {
        request.respond({ type: 'refused', error: epochNotMatchOf(peer) });
      }
      return;
    }
    if (msg.splitKeys.length > 0) {
      const cause = msg.sizeBytes > peer.ctx.config.regionMaxSizeBytes ? 'size' : 'keys';
      startSplit(peer, msg.splitKeys, requests, msg.forced ? 'admin' : cause);
      return;
    }
    for (const request of requests) {
      request.respond({
        type: 'rejected',
        refusal: {
          code: 'NothingToSplit',
          message: `region ${peer.regionId} has fewer than two keys (${msg.keys} keys, ${msg.sizeBytes} bytes)`,
        },
      });
    }
  }

  /** A snapshot elsewhere needs this range: find out whether this replica still belongs to a group. */
  #onOverlapped(): void {
    const { peer } = this;
    if (!peer.isActive) {
      return;
    }
    // It must not campaign before its time: candidates forget their leader, and with it the promise not to elect another
    // while that leader's lease may last. Two followers that did so at once would depose a leader that still serves.
    peer.broadcast({ type: 'check-stale-peer' });
  }
}
