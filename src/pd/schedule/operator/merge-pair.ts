/**
 * Rules of the two operators of a merge: when the regions are aligned, what a report of the source says about the
 * state of the merge, and when the pair must be given up. Once the source has applied PrepareMerge only the stores
 * decide between commit and rollback; the placement service watches.
 */
import { rangesEqual } from '../../../base/key-range.ts';
import { type Region, type RegionEpoch, epochsEqual, findPeerOnStore, isInJointState } from '../../../meta/region.ts';
import type { RegionInfo } from '../../cluster/region-info.ts';
import type { EndReason } from './status.ts';
import type { StepView } from './step.ts';

/** Same stores, same roles; ids differ by nature and leaders need not be together. */
export function isAligned(source: Region, target: Region): boolean {
  return (
    source.peers.length === target.peers.length &&
    !isInJointState(source) &&
    !isInJointState(target) &&
    source.peers.every((peer) => findPeerOnStore(target, peer.storeId)?.role === peer.role)
  );
}

export type SourceReport = 'unchanged' | 'prepared' | 'rolled-back' | 'changed';

/**
 * What the source's report says, given its epoch when the merge command was sent. PrepareMerge adds one to both
 * counters, RollbackMerge one more to the version; everything else means that something else happened to the region.
 */
export function readSourceReport(sent: RegionEpoch, sourceRange: Region['range'], info: RegionInfo): SourceReport {
  const version = info.region.epoch.version - sent.version;
  const confVer = info.region.epoch.confVer - sent.confVer;
  if (!rangesEqual(sourceRange, info.region.range)) {
    return 'changed';
  }
  if (version === 0 && confVer === 0) {
    return info.merging ? 'prepared' : 'unchanged';
  }
  if (version === 1 && confVer === 1) {
    return 'prepared';
  }
  return version >= 2 && confVer >= 1 ? 'rolled-back' : 'changed';
}

export type MergeReadiness =
  | { readonly type: 'ready' }
  /** Not yet; the step stays where it is. */
  | { readonly type: 'wait'; readonly why: string }
  | { readonly type: 'give-up'; readonly reason: EndReason };

/** Whether the merge command may be sent: both regions as planned, aligned and healthy. */
export function checkReadiness(
  source: RegionInfo,
  target: RegionInfo | undefined,
  planned: Region,
  view: StepView,
): MergeReadiness {
  const sick = checkPairHealth(source, target, planned, view);
  if (sick !== undefined) {
    return { type: 'give-up', reason: sick };
  }
  if (target === undefined || !epochsEqual(target.region.epoch, planned.epoch)) {
    return { type: 'give-up', reason: targetChanged(planned) };
  }
  if (!isAligned(source.region, target.region)) {
    return {
      type: 'give-up',
      reason: {
        code: 'StepStale',
        text: `the peers of region ${source.region.id} do not match those of region ${planned.id}`,
        hint: 'ask for the merge again',
      },
    };
  }
  for (const info of [source, target]) {
    const [pending] = info.pendingPeers;
    if (pending !== undefined) {
      return {
        type: 'wait',
        why: `peer ${pending.id} of region ${info.region.id} on store ${pending.storeId} is catching up`,
      };
    }
    if (info.leader === undefined) {
      return { type: 'wait', why: `region ${info.region.id} has no leader` };
    }
  }
  return { type: 'ready' };
}

/** Why a pair whose merge command was not sent yet must make room for repair; undefined while it need not. */
export function checkPairHealth(
  source: RegionInfo,
  target: RegionInfo | undefined,
  planned: Region,
  view: StepView,
): EndReason | undefined {
  if (target === undefined) {
    return targetChanged(planned);
  }
  for (const info of [source, target]) {
    const [down] = info.downPeers;
    if (down !== undefined) {
      return unhealthy(info, down.peer.storeId);
    }
    for (const peer of info.region.peers) {
      const silentMs = view.silentMs(peer.storeId);
      if (silentMs === undefined || silentMs > view.config.stepStoreSilentMs) {
        return unhealthy(info, peer.storeId);
      }
    }
  }
  return undefined;
}

export const targetChanged = (planned: Region): EndReason => ({
  code: 'TargetChanged',
  text: `region ${planned.id} was split, merged or changed its peers meanwhile`,
  hint: 'look at the regions and ask for the merge again if it is still wanted',
});

const unhealthy = (info: RegionInfo, store: number): EndReason => ({
  code: 'RegionUnhealthy',
  text: `region ${info.region.id} lost contact with its peer on store ${store}`,
  hint: `bring store ${store} back, or wait until its replicas were replaced, then ask again`,
});
