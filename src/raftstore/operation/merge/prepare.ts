/**
 * PrepareMerge on the source: the checks before it is proposed (reference 4.2, P1 to P10; each has its own refusal code.
 * P11 does not arise: nothing of a region lives outside its log)
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
  isEpochStale,
  isInJointState,
  regionsEqual,
  type Region,
} from '../../../meta/region.ts';
import type { StepRefusalCode } from '../../../meta/step-refusal.ts';
import { EntryType, type Entry } from '../../../raft/types.ts';
import type { AdminRefusal, AdminRequest } from '../../msg.ts';
import { entrySizeBytes } from '../../peer/peer-storage.ts';
import { checkAdmin, proposeAdmin } from '../../peer/propose.ts';
import type { RaftPeer } from '../../peer/raft-peer.ts';
import { answerCatchUp } from './catch-up.ts';
import { minProgress, type ProgressView } from './min-progress.ts';
import { checkMerge } from './schedule.ts';

export type Check =
  | { readonly type: 'ok'; readonly minIndex: number }
  | { readonly type: 'refused'; readonly refusal: AdminRefusal };

const refuse = (code: StepRefusalCode, message: string): Check => ({ type: 'refused', refusal: { code, message } });

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

/** What the checks look at of the source's leader. */
export interface PrepareView extends ProgressView {
  readonly region: Region;
  readonly node: ProgressView['node'] & Pick<RaftPeer['node'], 'lastIndex' | 'firstIndex' | 'slice'>;
  readonly lastHeardMs: ReadonlyMap<number, number>;
  readonly lastSentSnapshotIndex: number;
  readonly ctx: {
    readonly storeId: number;
    readonly clock: Pick<RaftPeer['ctx']['clock'], 'monoMs'>;
    readonly config: Pick<RaftPeer['ctx']['config'], 'maxPeerDownMs' | 'mergeMaxLogGap' | 'entrySizeMaxBytes'>;
    readonly meta: { readonly regions: ReadonlyMap<Region['id'], Region> };
  };
}

/** The fellow peer that was not heard from for the longest time. */
function longestSilence(
  peer: PrepareView,
): { readonly id: number; readonly storeId: number; readonly silentMs: number } | undefined {
  const nowMs = peer.ctx.clock.monoMs();
  let longest: { readonly id: number; readonly storeId: number; readonly silentMs: number } | undefined;
  for (const { id, storeId } of peer.region.peers) {
    const silentMs = id === peer.peer.id ? 0 : nowMs - (peer.lastHeardMs.get(id) ?? nowMs);
    if (longest === undefined || silentMs > longest.silentMs) {
      longest = { id, storeId, silentMs };
    }
  }
  return longest;
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

/** P1 to P10, in the order in which their answers are worth most; changes nothing. */
export function checkPrepare(peer: PrepareView, target: Region): Check {
  const { region, node, ctx } = peer;
  const { config } = ctx;
  for (const each of [region, target]) {
    if (isInJointState(each)) {
      return refuse('JointState', `region ${each.id} is between two memberships: ${formatRegion(each)}`);
    }
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
    // Older here: this store is slow, and will be told. Newer, or another region altogether: the plan is out of date.
    const isBehind = isEpochStale(local.epoch, target.epoch) && !isEpochStale(target.epoch, local.epoch);
    return refuse(
      isBehind ? 'TargetBehind' : 'TargetChanged',
      `target region ${target.id} is ${formatRegion(local)} on store ${ctx.storeId}, not ${formatRegion(target)}`,
    );
  }
  const down = longestSilence(peer);
  if (down !== undefined && down.silentMs >= config.maxPeerDownMs) {
    return refuse(
      'PeerDown',
      `peer ${down.id} of region ${region.id} on store ${down.storeId} was not heard for ${Math.floor(down.silentMs / 1000)} s`,
    );
  }
  const { matched, committed, inSnapshot, slowest } = minProgress(peer);
  if (inSnapshot !== undefined) {
    return refuse('PeerNeedsSnapshot', `peer ${inSnapshot} of region ${region.id} is waiting for a snapshot`);
  }
  if (matched === 0 || committed === 0) {
    return refuse('PeerUnknown', `peer ${slowest} of region ${region.id} has not reported its log position yet`);
  }
  const { lastIndex } = node;
  if (lastIndex - matched > config.mergeMaxLogGap || lastIndex - committed > 2 * config.mergeMaxLogGap) {
    return refuse(
      'LogGapTooLarge',
      `peer ${slowest} of region ${region.id} is at ${matched} (committed ${committed}) of ${lastIndex}; at most ${config.mergeMaxLogGap} entries may be missing`,
    );
  }
  if (matched < peer.lastSentSnapshotIndex) {
    return refuse(
      'PeerBehindSnapshot',
      `peer ${slowest} of region ${region.id} has acknowledged ${matched}, below ${peer.lastSentSnapshotIndex} where a snapshot may have started it`,
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
      'EntriesTooLarge',
      `the entries that peer ${slowest} of region ${region.id} may lack are ${carriedBytes} bytes, more than 90 % of the ${config.entrySizeMaxBytes} of an entry`,
    );
  }
  // Not raised to the commit index: a leader may have committed what its own disk does not hold yet.
  return { type: 'ok', minIndex: matched + 1 };
}

/** A request to merge this region into `target`. Refusals change nothing. */
export function proposePrepareMerge(peer: RaftPeer, request: AdminRequest, target: Region): void {
  const refusal = checkAdmin(peer, 'prepare-merge');
  if (refusal !== undefined) {
    request.respond(refusal);
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
        request.respond(outcome);
        return;
      default:
        request.respond({
          type: 'rejected',
          refusal: { code: 'Overtaken', message: `PrepareMerge of region ${peer.regionId} lost its place in the log` },
        });
    }
  });
  if (proposal.type === 'refused') {
    request.respond(proposal);
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
