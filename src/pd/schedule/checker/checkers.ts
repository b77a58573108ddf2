/**
 * Checkers repair one region at a time. Each looks at a region and answers with an operator, with the reason why it
 * would like to do something but cannot, or with nothing. They run in the order of {@link CHECKERS}; the first that has
 * something to say wins.
 */
import type { StoreId } from '../../../base/ids.ts';
import type { Peer } from '../../../meta/region.ts';
import { isInJointState } from '../../../meta/region.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import { type RegionInfo, isPending, learnersOf, votersOf } from '../../cluster/region-info.ts';
import { livenessOf } from '../../cluster/store-info.ts';
import type { Made, Maker, OperatorFactory } from '../operator/create.ts';
import type { OperatorKind } from '../operator/operator.ts';
import type { OperatorGroup } from '../operator/waiting-queue.ts';
import type { SwitchName } from '../switches.ts';
import type { Refusal, Result } from '../verdict.ts';
import { type MergeCheckContext, firstRefusal, mergeChecks } from './merge-checks.ts';
import { chooseSurplus, chooseTarget, findBetterPlace } from './placement-choice.ts';
import { checkRules } from './rule-checker.ts';

export interface CheckerContext {
  readonly cluster: Cluster;
  readonly factory: OperatorFactory;
  readonly nowMs: number;
  readonly merge: MergeCheckContext;
}

export type CheckerVerdict =
  | { readonly type: 'nothing' }
  | { readonly type: 'operator'; readonly group: OperatorGroup }
  | { readonly type: 'blocked'; readonly refusal: Refusal };

export interface Checker {
  /** Also the maker of its operators. */
  readonly name: SwitchName;
  /** What its operators count as. */
  readonly kind: OperatorKind;
  check(info: RegionInfo, context: CheckerContext): CheckerVerdict;
}

const NOTHING: CheckerVerdict = { type: 'nothing' };

function verdictOf(made: Result<Made>): CheckerVerdict {
  if (made.type === 'refused') {
    return { type: 'blocked', refusal: made.refusal };
  }
  return made.value === undefined ? NOTHING : { type: 'operator', group: made.value };
}

/** A region left between two memberships, e.g. because its operator was canceled, is brought out of it. */
const jointStateChecker: Checker = {
  name: 'joint-state-checker',
  kind: 'replica',
  check: (info, { factory }) =>
    isInJointState(info.region)
      ? verdictOf(factory.leaveJoint(info, { name: 'joint-state-checker', kind: 'replica', priority: 'high' }))
      : NOTHING,
};

/** A region across a border of placement rules is split there, because a region has one list of rules. */
const splitChecker: Checker = {
  name: 'split-checker',
  kind: 'split',
  check: (info, { cluster, factory }) => {
    const borders = cluster.rules.bordersIn(info.region.range);
    if (borders.length === 0) {
      return NOTHING;
    }
    const pinned = cluster.claims.pinnedReason(info);
    // What is left is split by the next operator.
    return pinned === undefined
      ? verdictOf(
          factory.split(info, borders.slice(0, cluster.schedulers.value('split-checker', 'batch')), {
            name: 'split-checker',
            kind: 'split',
            priority: 'medium',
          }),
        )
      : NOTHING;
  },
};

/** A learner left behind becomes a voter if one is missing, and is removed if not. */
const learnerChecker: Checker = {
  name: 'learner-checker',
  kind: 'replica',
  check: (info, { cluster, factory, nowMs }) => {
    const maker: Maker = { name: 'learner-checker', kind: 'replica', priority: 'medium' };
    if (!cluster.rulesOf(info).isDefault) {
      return NOTHING;
    }
    for (const learner of learnersOf(info.region)) {
      if (votersOf(info.region).length >= cluster.config.maxReplicas) {
        if (cluster.claims.protects(info, learner.storeId)) {
          continue;
        }
        return verdictOf(factory.removePeer(info, learner.storeId, maker));
      }
      if (!isPending(info, learner) && cluster.isUsable(learner.storeId, nowMs)) {
        return verdictOf(factory.addPeer(info, learner.storeId, 'voter', maker));
      }
    }
    return NOTHING;
  },
};

/** What the placement rules ask for; by default the wanted number of replicas, on stores that are neither down nor being emptied, in different places. */
const replicaChecker: Checker = {
  name: 'replica-checker',
  kind: 'replica',
  check: (info, context) => {
    const maker: Maker = { name: 'replica-checker', kind: 'replica', priority: 'high' };
    const damaged = info.region.peers.find(
      (peer) => context.cluster.damageOf(info.region.id, peer)?.reason === 'divergent',
    );
    if (!context.cluster.rulesOf(info).isDefault) {
      return checkByRules(info, damaged, context, maker);
    }
    if (damaged !== undefined) {
      return replaceDamaged(info, damaged, context, maker);
    }
    const bad = info.region.peers.find((peer) => isLost(peer, context));
    if (bad !== undefined) {
      return replace(info, bad, context, maker);
    }
    const { maxReplicas } = context.cluster.config;
    if (info.region.peers.length < maxReplicas) {
      const target = chooseTarget(context.cluster, info, undefined, context.nowMs, tokens(info, context));
      return target.type === 'refused'
        ? { type: 'blocked', refusal: target.refusal }
        : verdictOf(context.factory.addPeer(info, target.value, 'voter', maker));
    }
    if (votersOf(info.region).length > maxReplicas) {
      const surplus = chooseSurplus(context.cluster, info);
      return surplus === undefined ? NOTHING : verdictOf(context.factory.removePeer(info, surplus.storeId, maker));
    }
    const better = findBetterPlace(context.cluster, info, context.nowMs, tokens(info, context));
    return better === undefined
      ? NOTHING
      : verdictOf(context.factory.move(info, better.from, better.to, { ...maker, priority: 'medium' }));
  },
};

const tokens =
  (info: RegionInfo, { merge }: CheckerContext) =>
  (store: StoreId): boolean =>
    merge.controller.canTakePeer(store, info.sizeBytes);

/** Whether the peer's store is gone: down for long, being emptied, removed or unknown. */
function isLost(peer: Peer, { cluster, nowMs }: CheckerContext): boolean {
  const store = cluster.store(peer.storeId);
  return (
    store === undefined || store.record.store.state !== 'up' || livenessOf(store, cluster.config, nowMs) === 'down'
  );
}

/** A surplus or non-voting replica is simply removed; any other one only together with its replacement. */
function replace(info: RegionInfo, bad: Peer, context: CheckerContext, maker: Maker): CheckerVerdict {
  const voters = votersOf(info.region).length;
  if (bad.role === 'learner' || voters > context.cluster.config.maxReplicas) {
    return verdictOf(context.factory.removePeer(info, bad.storeId, maker));
  }
  const target = chooseTarget(context.cluster, info, bad, context.nowMs, tokens(info, context));
  return target.type === 'refused'
    ? { type: 'blocked', refusal: target.refusal }
    : verdictOf(context.factory.move(info, bad.storeId, target.value, maker));
}

/**
 * A replica with wrong data is worth nothing as a copy, so it may go before its replacement comes; on a cluster without a
 * spare store it must, because a store takes one replica of a region. A leader hands over by itself first.
 */
function replaceDamaged(info: RegionInfo, damaged: Peer, context: CheckerContext, maker: Maker): CheckerVerdict {
  if (info.leader?.id === damaged.id) {
    return NOTHING;
  }
  const replaced = replace(info, damaged, context, maker);
  return replaced.type === 'blocked' && votersOf(info.region).length >= SAFE_VOTERS
    ? verdictOf(context.factory.removePeer(info, damaged.storeId, maker))
    : replaced;
}

/** Enough voters that a damaged one may go before its replacement comes. */
const SAFE_VOTERS = 3;

function checkByRules(
  info: RegionInfo,
  damaged: Peer | undefined,
  context: CheckerContext,
  maker: Maker,
): CheckerVerdict {
  const isBad = damaged !== undefined && damaged.id !== info.leader?.id;
  const verdict = verdictOf(
    checkRules(info, context, {
      maker,
      canTake: tokens(info, context),
      isLost: (peer) => isLost(peer, context) || (isBad && peer.id === damaged.id),
    }),
  );
  return verdict.type === 'blocked' && isBad && votersOf(info.region).length >= SAFE_VOTERS
    ? verdictOf(context.factory.removePeer(info, damaged.storeId, maker))
    : verdict;
}

/** Merges a small region into the smaller of its neighbors. */
const mergeChecker: Checker = {
  name: 'merge-checker',
  kind: 'merge',
  check: (info, { cluster, factory, merge }) => {
    const { previous, next } = cluster.tree.neighbours(info);
    const refusals: Refusal[] = [];
    const allowed: RegionInfo[] = [];
    for (const target of [next, previous]) {
      if (target !== undefined) {
        const refusal = firstRefusal(mergeChecks(merge, info.region.id, target.region.id, true));
        if (refusal === undefined) {
          allowed.push(target);
        } else {
          refusals.push(refusal);
        }
      }
    }
    // The next neighbor wins unless the previous one is strictly smaller.
    const [first, second] = allowed;
    const target = first !== undefined && second !== undefined && second.sizeBytes < first.sizeBytes ? second : first;
    if (target === undefined) {
      const [refusal] = refusals;
      return refusal === undefined ? NOTHING : { type: 'blocked', refusal };
    }
    return verdictOf(factory.merge(info, target, { name: 'merge-checker', kind: 'merge', priority: 'medium' }));
  },
};

/** In the order they are asked. */
export const CHECKERS: readonly Checker[] = [
  jointStateChecker,
  splitChecker,
  learnerChecker,
  replicaChecker,
  mergeChecker,
];
