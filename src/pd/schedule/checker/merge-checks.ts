/**
 * Everything that speaks against a merge, in a fixed order, each with a name. Used by the request of an administrator,
 * by the automatic merge checker and by the explanation of both (tikv/pd pkg/schedule/checker/merge_checker.go).
 */
import type { RegionId } from '../../../base/ids.ts';
import { areSiblings, isInJointState } from '../../../meta/region.ts';
import { compareBytes, escapeKey } from '../../../base/bytes.ts';
import { formatBytes } from '../../../base/units.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import type { RegionInfo } from '../../cluster/region-info.ts';
import { checkUsable } from '../filter/store-filter.ts';
import type { OperatorController } from '../operator/controller.ts';
import { isAligned } from '../operator/merge-pair.ts';
import { ruleName } from '../placement/rule.ts';
import { type Refusal, refuse, regionNotFound } from '../verdict.ts';

export interface MergeCheckContext {
  readonly cluster: Cluster;
  readonly controller: OperatorController;
  readonly nowMs: number;
  /** When this process started, monotonic. */
  readonly startedMs: number;
  /** When ids for a split of the region were handed out, monotonic; undefined = not remembered. */
  splitAtMs(id: RegionId): number | undefined;
}

export interface Check {
  readonly name: string;
  /** Undefined when it passed. */
  readonly refusal: Refusal | undefined;
}

/** All checks with their outcome; later ones assume nothing about earlier ones except that both regions exist. */
export function mergeChecks(
  context: MergeCheckContext,
  sourceId: RegionId,
  targetId: RegionId,
  automatic: boolean,
): readonly Check[] {
  const source = context.cluster.tree.get(sourceId);
  const target = context.cluster.tree.get(targetId);
  const checks: Check[] = [
    { name: 'source-known', refusal: source === undefined ? regionNotFound(sourceId) : undefined },
    { name: 'target-known', refusal: target === undefined ? regionNotFound(targetId) : undefined },
    { name: 'different-regions', refusal: checkDifferent(sourceId, targetId) },
  ];
  if (source === undefined || target === undefined || sourceId === targetId) {
    return checks;
  }
  checks.push({ name: 'neighbors', refusal: checkNeighbors(source, target) });
  for (const [side, info] of [
    ['source', source],
    ['target', target],
  ] as const) {
    checks.push(
      { name: `${side}-not-paused`, refusal: context.cluster.claims.pausedReason(info) },
      { name: `${side}-not-held`, refusal: automatic ? undefined : context.cluster.claims.heldReason(info) },
      { name: `${side}-has-leader`, refusal: checkLeader(info) },
      { name: `${side}-not-joint`, refusal: checkJoint(info) },
      { name: `${side}-no-down-peer`, refusal: checkDown(info) },
      { name: `${side}-no-pending-peer`, refusal: checkPending(info) },
      { name: `${side}-not-damaged`, refusal: checkDamage(context, info) },
      { name: `${side}-not-merging`, refusal: checkMerging(info) },
      { name: `${side}-no-operator`, refusal: checkOperator(context, info, automatic) },
    );
  }
  checks.push(
    { name: 'target-stores-usable', refusal: checkStores(context, source, target) },
    { name: 'no-rule-border', refusal: checkRuleBorder(context, source, target) },
    { name: 'merged-size', refusal: checkMergedSize(context, source, target) },
  );
  if (automatic) {
    checks.push(...automaticChecks(context, source, target));
  }
  return checks;
}

export const firstRefusal = (checks: readonly Check[]): Refusal | undefined =>
  checks.find((check) => check.refusal !== undefined)?.refusal;

/** Checks that protect against merging what was just split, or what would be split again. */
function automaticChecks(context: MergeCheckContext, source: RegionInfo, target: RegionInfo): Check[] {
  const { config } = context.cluster;
  return [
    { name: 'source-not-pinned', refusal: context.cluster.claims.pinnedReason(source) },
    { name: 'target-not-pinned', refusal: context.cluster.claims.pinnedReason(target) },
    { name: 'merge-limit', refusal: checkMergeLimit(context) },
    { name: 'started-long-ago', refusal: checkStarted(context) },
    { name: 'source-not-recently-split', refusal: checkRecentlySplit(context, source) },
    { name: 'target-not-recently-split', refusal: checkRecentlySplit(context, target) },
    {
      name: 'source-small',
      refusal:
        source.sizeBytes > 0 &&
        source.sizeBytes <= config.mergeSourceSizeMaxBytes &&
        source.keys <= config.mergeSourceKeysMax
          ? undefined
          : refuse(
              'TooLarge',
              `region ${source.region.id} has ${source.sizeBytes === 0 ? 'an unknown size' : formatBytes(source.sizeBytes)}`,
              `only regions up to ${formatBytes(config.mergeSourceSizeMaxBytes)} are merged by themselves`,
              { region_id: source.region.id },
            ),
    },
    { name: 'source-fully-replicated', refusal: checkReplicated(context, source) },
    { name: 'target-fully-replicated', refusal: checkReplicated(context, target) },
    { name: 'not-split-again', refusal: checkSplitAgain(context, source, target) },
  ];
}

const about = (info: RegionInfo): Record<string, number> => ({ region_id: info.region.id });

function checkDifferent(source: RegionId, target: RegionId): Refusal | undefined {
  return source === target
    ? refuse('SameRegion', `region ${source} cannot be merged with itself`, 'name one of its neighbors as the target', {
        region_id: source,
      })
    : undefined;
}

function checkNeighbors(source: RegionInfo, target: RegionInfo): Refusal | undefined {
  return areSiblings(source.region, target.region)
    ? undefined
    : refuse(
        'NotAdjacent',
        `regions ${source.region.id} and ${target.region.id} do not touch`,
        'merge neighbor by neighbor; show a region to see its neighbors',
        { source_id: source.region.id, target_id: target.region.id },
      );
}

function checkLeader(info: RegionInfo): Refusal | undefined {
  return info.leader !== undefined
    ? undefined
    : refuse(
        'NoLeader',
        `region ${info.region.id} has no known leader`,
        'wait until its leader has reported',
        about(info),
      );
}

function checkJoint(info: RegionInfo): Refusal | undefined {
  return isInJointState(info.region)
    ? refuse(
        'JointState',
        `region ${info.region.id} is between two memberships`,
        'wait until it has left the joint state',
        about(info),
      )
    : undefined;
}

function checkDown(info: RegionInfo): Refusal | undefined {
  const [down] = info.downPeers;
  return down === undefined
    ? undefined
    : refuse(
        'DownPeer',
        `peer ${down.peer.id} of region ${info.region.id} on store ${down.peer.storeId} is down`,
        `bring store ${down.peer.storeId} back or wait until the peer was replaced`,
        { ...about(info), store_id: down.peer.storeId },
      );
}

function checkPending(info: RegionInfo): Refusal | undefined {
  const [pending] = info.pendingPeers;
  return pending === undefined
    ? undefined
    : refuse(
        'PendingPeer',
        `peer ${pending.id} of region ${info.region.id} on store ${pending.storeId} is still catching up`,
        'wait until it caught up',
        { ...about(info), store_id: pending.storeId },
      );
}

function checkDamage({ cluster }: MergeCheckContext, { region }: RegionInfo): Refusal | undefined {
  const damaged = region.peers.find((peer) => cluster.damageOf(region.id, peer) !== undefined);
  return damaged === undefined
    ? undefined
    : refuse(
        'ReplicaDamaged',
        `the data of peer ${damaged.id} of region ${region.id} on store ${damaged.storeId} differ from the others'`,
        'wait until the replica was replaced',
        { region_id: region.id, store_id: damaged.storeId },
      );
}

function checkMerging(info: RegionInfo): Refusal | undefined {
  return info.merging
    ? refuse(
        'MergeInProgress',
        `region ${info.region.id} is being merged already`,
        'wait until that merge ended',
        about(info),
      )
    : undefined;
}

/** An administrator's merge replaces operators of lower priority; an automatic one takes second place to all. */
function checkOperator(context: MergeCheckContext, info: RegionInfo, automatic: boolean): Refusal | undefined {
  const running = context.controller.runningOn(info.region.id);
  if (running === undefined || (!automatic && running.priority !== 'urgent' && running.isCancelable)) {
    return undefined;
  }
  return refuse(
    'OperatorExists',
    `region ${info.region.id} already has operator ${running.id} (${running.brief})`,
    'wait until it ended, or cancel it',
    { ...about(info), operator_id: running.id },
  );
}

/** New peers must never be brought to a store that is silent or being emptied. */
function checkStores(context: MergeCheckContext, source: RegionInfo, target: RegionInfo): Refusal | undefined {
  const aligned = isAligned(source.region, target.region);
  for (const peer of target.region.peers) {
    const refusal = checkUsable(context.cluster, peer.storeId, context.nowMs);
    if (refusal !== undefined && !(aligned && refusal.code === 'StoreRemoving')) {
      return refusal;
    }
  }
  return undefined;
}

/** A region has one list of rules: what crosses a border of theirs would be split there at once. */
function checkRuleBorder({ cluster }: MergeCheckContext, source: RegionInfo, target: RegionInfo): Refusal | undefined {
  const [left, right] =
    compareBytes(source.region.range.start, target.region.range.start) < 0 ? [source, target] : [target, source];
  const [border] = cluster.rules.bordersIn({ start: left.region.range.start, end: right.region.range.end });
  return border === undefined
    ? undefined
    : refuse(
        'RuleBorder',
        `placement rules change at ${escapeKey(border)}, inside regions ${source.region.id} and ${target.region.id} together`,
        'look at the rules: braid ctl rule list',
        { source_id: source.region.id, target_id: target.region.id },
      );
}

function checkMergedSize(context: MergeCheckContext, source: RegionInfo, target: RegionInfo): Refusal | undefined {
  const sum = source.sizeBytes + target.sizeBytes;
  const limit = context.cluster.config.mergedSizeMaxBytes;
  return sum <= limit
    ? undefined
    : refuse(
        'MergedTooLarge',
        `regions ${source.region.id} and ${target.region.id} hold ${formatBytes(sum)} together`,
        `no region may become larger than ${formatBytes(limit)} by merging`,
        { source_id: source.region.id, target_id: target.region.id, limit },
      );
}

function checkMergeLimit(context: MergeCheckContext): Refusal | undefined {
  return context.controller.hasRoomFor('merge', 2)
    ? undefined
    : refuse(
        'MergeLimit',
        'as many merges as allowed are running',
        'wait, or allow more: braid ctl checker config merge-checker limit=N',
      );
}

function checkStarted(context: MergeCheckContext): Refusal | undefined {
  const interval = context.cluster.config.splitMergeIntervalMs;
  return context.nowMs - context.startedMs >= interval
    ? undefined
    : refuse(
        'RecentlyStarted',
        'this placement service has just started and does not know which regions were split recently',
        'wait for split-merge-interval (braid ctl checker config merge-checker), or merge by hand',
        { interval_ms: interval },
      );
}

function checkRecentlySplit(context: MergeCheckContext, info: RegionInfo): Refusal | undefined {
  const at = context.splitAtMs(info.region.id);
  const interval = context.cluster.config.splitMergeIntervalMs;
  return at === undefined || context.nowMs - at >= interval
    ? undefined
    : refuse(
        'RecentlySplit',
        `region ${info.region.id} was split ${Math.floor((context.nowMs - at) / 1000)} s ago`,
        'wait for split-merge-interval (braid ctl checker config merge-checker), or merge by hand',
        { ...about(info), interval_ms: interval },
      );
}

function checkReplicated(context: MergeCheckContext, info: RegionInfo): Refusal | undefined {
  const segment = context.cluster.rulesOf(info);
  return context.cluster.isFullyReplicated(info)
    ? undefined
    : refuse(
        'NotFullyReplicated',
        segment.isDefault
          ? `region ${info.region.id} does not have exactly ${context.cluster.config.maxReplicas} voters and no learners`
          : `region ${info.region.id} does not have the replicas that ${segment.rules.map(ruleName).join(', ')} ask for`,
        'wait until it was repaired',
        about(info),
      );
}

/** The sum must stay clear of the size at which stores split, or merging and splitting would alternate for ever. */
function checkSplitAgain(context: MergeCheckContext, source: RegionInfo, target: RegionInfo): Refusal | undefined {
  const { regionMaxSizeBytes, regionMaxKeys } = context.cluster.config;
  const size = source.sizeBytes + target.sizeBytes;
  return size < regionMaxSizeBytes && source.keys + target.keys < regionMaxKeys
    ? undefined
    : refuse(
        'WouldSplitAgain',
        `regions ${source.region.id} and ${target.region.id} together would be split again`,
        'nothing to do: they are large enough',
        { source_id: source.region.id, target_id: target.region.id },
      );
}
