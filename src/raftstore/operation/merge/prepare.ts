/**
 * PrepareMerge on the source: the checks before it is proposed (reference 4.2, P1 to P10; each has its own refusal code)
 * and what the peer FSM does once it is applied (4.4).
 *
 * ```text
 * PD: merge into T ─► P1..P10 ─► propose PrepareMerge{minIndex, target} ─► apply: Merging, epoch +1/+1
 *                                                                     └─► peer: pendingMerge, look at T (schedule.ts)
 * ```
 */
import { assert } from '../../../base/assert.ts';
import type { AdminCommand } from '../../../codec/command.ts';
import { decodeRaftCommand } from '../../../codec/raft-records.ts';
import type { MergeState } from '../../../codec/store-record.ts';
import {
  areSiblings,
  findPeerOnStore,
  formatRegion,
  isInJointState,
  regionsEqual,
  type Region,
} from '../../../meta/region.ts';
import { EntryType, type Entry } from '../../../raft/types.ts';
import type { AdminRefusal, AdminRequest } from '../../msg.ts';
import { entrySizeBytes } from '../../peer/peer-storage.ts';
import { checkAdmin, proposeAdmin } from '../../peer/propose.ts';
import type { RaftPeer } from '../../peer/raft-peer.ts';
import { answerCatchUp } from './catch-up.ts';
import { minProgress } from './min-progress.ts';
import { checkMerge } from './schedule.ts';

type Check =
  | { readonly type: 'ok'; readonly minIndex: number }
  | { readonly type: 'refused'; readonly refusal: AdminRefusal };

const refuse = (code: string, message: string): Check => ({ type: 'refused', refusal: { code, message } });

/** Entries that may stand between the slowest replica and PrepareMerge without making catch-up ambiguous (P9). */
function isHarmless(entry: Entry): boolean {
  if (entry.type !== EntryType.Normal) {
    return false;
  }
  if (entry.data.length === 0) {
    return true;
  }
  const command = decodeRaftCommand(entry.data);
  return command.type === 'write' || command.command.type === 'compute-hash' || command.command.type === 'verify-hash';
}

/** Whether two regions may be joined at all: different, adjacent, same stores with the same roles (P3, P4). */
export function checkJoinable(source: Region, target: Region): AdminRefusal | undefined {
  if (source.id === target.id) {
    return { code: 'MergeWithItself', message: `region ${source.id} cannot be merged into itself` };
  }
  if (!areSiblings(source, target)) {
    return {
      code: 'NotNeighbours',
      message: `regions ${formatRegion(source)} and ${formatRegion(target)} do not share a border`,
    };
  }
  if (source.peers.length !== target.peers.length) {
    return {
      code: 'PeersNotAligned',
      message: `region ${source.id} has ${source.peers.length} peers, region ${target.id} has ${target.peers.length}`,
    };
  }
  for (const peer of source.peers) {
    const other = findPeerOnStore(target, peer.storeId);
    if (other === undefined || other.role !== peer.role) {
      return {
        code: 'PeersNotAligned',
        message: `region ${target.id} has no ${peer.role} on store ${peer.storeId} where region ${source.id} has one`,
      };
    }
  }
  return undefined;
}

function checkPrepare(peer: RaftPeer, target: Region): Check {
  const { region, node, ctx } = peer;
  const { config } = ctx;
  if (isInJointState(region) || isInJointState(target)) {
    return refuse('JointState', `region ${region.id} or ${target.id} is between two memberships`);
  }
  const joinable = checkJoinable(region, target);
  if (joinable !== undefined) {
    return { type: 'refused', refusal: joinable };
  }
  const local = ctx.meta.regions.get(target.id);
  if (local === undefined || local.peers.length === 0) {
    return refuse('TargetNotHere', `target region ${target.id} is not on store ${ctx.storeId}`);
  }
  if (!regionsEqual(local, target)) {
    return refuse(
      'TargetChanged',
      `target region ${target.id} is ${formatRegion(local)} here, not ${formatRegion(target)}`,
    );
  }
  const { matched, committed, inSnapshot } = minProgress(peer);
  if (inSnapshot !== undefined) {
    return refuse('PeerNeedsSnapshot', `peer ${inSnapshot} of region ${region.id} is waiting for a snapshot`);
  }
  if (matched === 0 || committed === 0) {
    return refuse('PeerUnknown', `a peer of region ${region.id} has not reported its log position yet`);
  }
  const { lastIndex } = node;
  if (lastIndex - matched > config.mergeMaxLogGap || lastIndex - committed > 2 * config.mergeMaxLogGap) {
    return refuse(
      'LogGapTooLarge',
      `the slowest peer of region ${region.id} is at ${matched} (committed ${committed}) of ${lastIndex}; at most ${config.mergeMaxLogGap} entries may be missing`,
    );
  }
  if (matched < peer.lastSentSnapshotIndex) {
    return refuse(
      'PeerBehindSnapshot',
      `a peer of region ${region.id} has acknowledged ${matched}, below ${peer.lastSentSnapshotIndex} where a snapshot may have started it`,
    );
  }
  const low = Math.min(matched, committed) + 1;
  if (low < node.firstIndex) {
    return refuse(
      'AdminInLogGap',
      `a peer of region ${region.id} is only known to have committed ${low - 1}, which is compacted already; try again when it reported more`,
    );
  }
  let carriedBytes = 0;
  for (const entry of node.slice(low, lastIndex + 1, Number.MAX_SAFE_INTEGER)) {
    if (!isHarmless(entry)) {
      return refuse(
        'AdminInLogGap',
        `entry ${entry.index} of region ${region.id} changes the region and is not known to be committed everywhere`,
      );
    }
    if (entry.index > matched) {
      carriedBytes += entrySizeBytes(entry);
    }
  }
  if (carriedBytes > config.entrySizeMaxBytes * 0.9) {
    return refuse(
      'LogGapTooLarge',
      `the entries some peer may lack are ${carriedBytes} bytes, more than one entry may carry`,
    );
  }
  // Not raised to the commit index: a leader may have committed what its own disk does not hold yet.
  return { type: 'ok', minIndex: matched + 1 };
}

/** A request to merge this region into `target`. Refusals change nothing. */
export function proposePrepareMerge(peer: RaftPeer, request: AdminRequest, target: Region): void {
  const refusal = checkAdmin(peer, 'prepare-merge');
  if (refusal !== undefined) {
    request.respond({ type: 'refused', error: refusal });
    return;
  }
  const check = checkPrepare(peer, target);
  if (check.type === 'refused') {
    peer.log.info({ code: check.refusal.code, target: target.id }, 'merge refused');
    request.respond({ type: 'rejected', refusal: check.refusal });
    return;
  }
  const command: AdminCommand = { type: 'prepare-merge', minIndex: check.minIndex, target };
  const proposal = proposeAdmin(peer, command, (outcome) => {
    switch (outcome.type) {
      case 'admin-applied':
        request.respond({ type: 'ok', regions: outcome.regions });
        return;
      case 'refused':
        request.respond({ type: 'refused', error: outcome.error });
        return;
      default:
        request.respond({
          type: 'rejected',
          refusal: { code: 'Overtaken', message: `PrepareMerge of region ${peer.regionId} lost its place in the log` },
        });
    }
  });
  if (proposal.type === 'refused') {
    request.respond({ type: 'refused', error: proposal.error });
    return;
  }
  peer.log.info({ target: target.id, minIndex: check.minIndex, index: proposal.index }, 'proposed PrepareMerge');
}

/** PrepareMerge is applied: the region is frozen from here on. */
export function onPrepareMergeApplied(peer: RaftPeer, region: Region, state: MergeState): void {
  peer.region = region;
  peer.ctx.meta.regions.set(peer.regionId, region);
  peer.lease.expire();
  assert(peer.pendingMerge === undefined, 'PrepareMerge applied while merging', { region: peer.regionId });
  peer.pendingMerge = state;
  peer.pdHeartbeatDue = peer.isLeader;
  peer.log.info({ target: state.target.id, commit: state.commit }, 'merging into the target');
  if (peer.catchUp !== undefined && peer.catchUp.commit === state.commit) {
    answerCatchUp(peer, peer.catchUp);
    return;
  }
  checkMerge(peer);
}
