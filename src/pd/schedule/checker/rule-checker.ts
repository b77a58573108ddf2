/**
 * Brings a region to what its placement rules ask for (tikv/pd pkg/schedule/checker/rule_checker.go). One change at a
 * time, the most urgent first: replicas on lost stores, missing ones, wrong roles, replicas nobody asked for, the place
 * of the leader, better places. A replica is never removed while a rule lacks one, except together with its replacement.
 */
import type { StoreId } from '../../../base/ids.ts';
import type { Peer } from '../../../meta/region.ts';
import { type RegionInfo, isDown, isPending } from '../../cluster/region-info.ts';
import { isolationScore } from '../../cluster/store-info.ts';
import { checkLeaderTarget } from '../filter/store-filter.ts';
import type { WantedRole } from '../operator/builder.ts';
import type { Made, Maker } from '../operator/create.ts';
import { type Fit, type Slot, hasRole, roleOf, targetOf } from '../placement/fit.ts';
import { isVoting, meetsConstraints, ruleName } from '../placement/rule.ts';
import { type Refusal, type Result, ok, refuse, refused } from '../verdict.ts';
import type { CheckerContext } from './checkers.ts';
import { chooseTarget, stayingStores } from './placement-choice.ts';

/** What the rule checker needs from its caller: which peers are lost, and which stores have room for another one. */
export interface RuleCheckerView {
  readonly isLost: (peer: Peer) => boolean;
  readonly canTake: (store: StoreId) => boolean;
  readonly maker: Maker;
}

export function checkRules(info: RegionInfo, context: CheckerContext, view: RuleCheckerView): Result<Made> {
  const fit = context.cluster.fit(info);
  const repairs: readonly (() => Result<Made>)[] = [
    () => replaceLost(info, fit, context, view),
    () => fillSlots(info, fit, context, view),
  ];
  let refusal: Refusal | undefined;
  for (const repair of repairs) {
    const made = repair();
    if (made.type === 'ok' && made.value !== undefined) {
      return made;
    }
    refusal ??= made.type === 'refused' ? made.refusal : undefined;
  }
  const isComplete = refusal === undefined;
  const made = correctRoles(info, fit, context, view, isComplete);
  if (!isComplete) {
    return made.type === 'ok' && made.value !== undefined ? made : refused(refusal as Refusal);
  }
  for (const step of [
    () => made,
    () => removeOrphan(info, fit, context, view),
    () => placeLeader(info, fit, context, view),
  ]) {
    const next = step();
    if (next.type === 'refused' || next.value !== undefined) {
      return next;
    }
  }
  return improve(info, fit, context, view);
}

const NOTHING: Result<Made> = ok(undefined);

/** Roles of all peers as they are. */
const rolesNow = (info: RegionInfo): Map<StoreId, WantedRole> =>
  new Map(info.region.peers.map((peer) => [peer.storeId, peer.role === 'learner' ? 'learner' : 'voter']));

/** A store for the replica of a slot. */
function placeFor(
  info: RegionInfo,
  fit: Fit,
  slot: Slot,
  leaving: Peer | undefined,
  { cluster, nowMs }: CheckerContext,
  view: RuleCheckerView,
): Result<StoreId> {
  const target = chooseTarget(cluster, info, leaving, nowMs, view.canTake, targetOf(fit, slot, cluster.fitView()));
  return target.type === 'refused' && target.refusal.code === 'NoTargetStore' ? refused(lacking(info, slot)) : target;
}

const lacking = (info: RegionInfo, { rule }: Slot): Refusal =>
  refuse(
    'NoTargetStore',
    `no store can take the ${rule.role} of region ${info.region.id} that rule ${ruleName(rule)} asks for`,
    'add a store with fitting labels, label one, or change the rule',
    { region_id: info.region.id, rule: ruleName(rule) },
  );

/** A lost replica that no rule asks for, or that does not vote, goes; any other one only together with another. */
function replaceLost(info: RegionInfo, fit: Fit, context: CheckerContext, view: RuleCheckerView): Result<Made> {
  const orphan = fit.orphans.find((peer) => view.isLost(peer));
  const isComplete = fit.slots.every((slot) => slot.peer !== undefined);
  if (orphan !== undefined && (isComplete || orphan.role === 'learner')) {
    return context.factory.removePeer(info, orphan.storeId, view.maker);
  }
  const slot = fit.slots.find(({ peer }) => peer !== undefined && view.isLost(peer));
  if (slot?.peer === undefined) {
    return NOTHING;
  }
  if (slot.peer.role === 'learner') {
    return context.factory.removePeer(info, slot.peer.storeId, view.maker);
  }
  // A voter that is to become a learner leaves its vote to a missing voter first.
  const missingVoter = fit.slots.find(({ peer, rule }) => peer === undefined && isVoting(rule.role));
  const goal = isVoting(slot.rule.role) || missingVoter === undefined ? slot : missingVoter;
  const target = placeFor(info, fit, goal, slot.peer, context, view);
  if (target.type === 'refused') {
    return target;
  }
  const wanted = rolesNow(info);
  wanted.delete(slot.peer.storeId);
  wanted.set(target.value, roleOf(goal.rule));
  return context.factory.reshape(
    info,
    wanted,
    `move region ${info.region.id} from store ${slot.peer.storeId} to store ${target.value}`,
    view.maker,
  );
}

/** The first missing replica that a store can take. */
function fillSlots(info: RegionInfo, fit: Fit, context: CheckerContext, view: RuleCheckerView): Result<Made> {
  let refusal: Refusal | undefined;
  for (const slot of fit.slots.filter(({ peer }) => peer === undefined)) {
    for (const wanted of reachable(slot, fit, context, view)) {
      const made = fillSlot(info, fit, wanted, context, view);
      if (made.type === 'ok') {
        return made;
      }
      refusal ??= made.refusal;
    }
  }
  return refusal === undefined ? NOTHING : refused(refusal);
}

/**
 * The slot itself and, if no store fits it, those whose replicas may take its place, directly or by making room for one
 * another: then one of these is to be filled, and all move up (an alternating path, as in the matching of the fit).
 */
function reachable(slot: Slot, fit: Fit, context: CheckerContext, view: RuleCheckerView): readonly Slot[] {
  const found = [slot];
  for (const wanted of found) {
    for (const other of fit.slots) {
      const { peer, rule } = other;
      if (
        peer !== undefined &&
        rule !== wanted.rule &&
        !found.includes(other) &&
        isAllowed(wanted, peer, context) &&
        !view.isLost(peer)
      ) {
        found.push(other);
      }
    }
  }
  return found;
}

function isAllowed({ rule }: Slot, peer: Peer, { cluster }: CheckerContext): boolean {
  const store = cluster.store(peer.storeId)?.record.store;
  return store !== undefined && meetsConstraints(store, rule.constraints);
}

/** A replica that no rule asks for gives its place in the quorum to the missing one, so that voters stay as many. */
function fillSlot(
  info: RegionInfo,
  fit: Fit,
  slot: Slot,
  context: CheckerContext,
  view: RuleCheckerView,
): Result<Made> {
  const leaving = fit.orphans.find(
    (peer) =>
      (peer.role !== 'learner') === isVoting(slot.rule.role) && !context.cluster.claims.protects(info, peer.storeId),
  );
  const target = placeFor(info, fit, slot, leaving, context, view);
  if (target.type === 'refused') {
    return target;
  }
  const wanted = rolesNow(info).set(target.value, roleOf(slot.rule));
  const what = `add ${slot.rule.role} of region ${info.region.id} on store ${target.value}`;
  if (leaving !== undefined) {
    const swapped = new Map(wanted);
    swapped.delete(leaving.storeId);
    const brief = `${what} in place of the one on store ${leaving.storeId}`;
    const made = context.factory.reshape(info, swapped, brief, view.maker);
    // Without the one that leaves nobody could lead: it goes when somebody can.
    if (made.type === 'ok' || made.refusal.code !== 'NoLeaderCandidate') {
      return made;
    }
  }
  return context.factory.reshape(info, wanted, what, view.maker);
}

/** All in one change: a region never votes with fewer than before or after. Nobody stops voting while one is missing. */
function correctRoles(
  info: RegionInfo,
  fit: Fit,
  context: CheckerContext,
  view: RuleCheckerView,
  isComplete: boolean,
): Result<Made> {
  const wrong = fit.slots.filter(
    ({ peer, rule }) => peer !== undefined && !hasRole(peer, rule) && (isComplete || isVoting(rule.role)),
  );
  if (wrong.length === 0) {
    return NOTHING;
  }
  const wanted = rolesNow(info);
  for (const { peer, rule } of wrong as readonly { peer: Peer; rule: Slot['rule'] }[]) {
    if (isPending(info, peer) || isDown(info, peer)) {
      // Without its data it could not vote; without it the others would.
      return NOTHING;
    }
    wanted.set(peer.storeId, roleOf(rule));
  }
  return context.factory.reshape(info, wanted, `change roles of region ${info.region.id}`, view.maker);
}

function removeOrphan(info: RegionInfo, fit: Fit, context: CheckerContext, view: RuleCheckerView): Result<Made> {
  const removable = fit.orphans.filter((peer) => !context.cluster.claims.protects(info, peer.storeId));
  // The leader goes last: its removal moves the lead.
  const orphan = removable.find((peer) => peer.id !== info.leader?.id) ?? removable[0];
  return orphan === undefined ? NOTHING : context.factory.removePeer(info, orphan.storeId, view.maker);
}

/** The lead belongs to the slot of the rule that asks for it, and never to a follower. */
function placeLeader(
  info: RegionInfo,
  fit: Fit,
  { cluster, factory, nowMs }: CheckerContext,
  view: RuleCheckerView,
): Result<Made> {
  const { leader } = info;
  if (leader === undefined || cluster.claims.protects(info, leader.storeId)) {
    return NOTHING;
  }
  const slotOfLeader = fit.slots.find(({ peer }) => peer?.id === leader.id);
  const first = fit.slots.find(({ rule }) => rule.role === 'leader');
  const isRight = first === undefined ? slotOfLeader?.rule.role !== 'follower' : slotOfLeader === first;
  if (isRight) {
    return NOTHING;
  }
  const candidates = [first, ...fit.slots.filter(({ rule }) => rule.role === 'voter')];
  for (const slot of candidates) {
    const peer = slot?.peer;
    if (slot !== first && slotOfLeader?.rule.role !== 'follower') {
      // The wanted leader cannot lead now; any other voter is as good as the one that does.
      break;
    }
    if (
      peer?.role === 'voter' &&
      !isPending(info, peer) &&
      !isDown(info, peer) &&
      checkLeaderTarget(cluster, peer.storeId, nowMs) === undefined
    ) {
      return factory.transferLeader(info, peer.storeId, { ...view.maker, priority: 'medium' });
    }
  }
  return NOTHING;
}

/** A store that meets the rule and separates the replicas better, if there is one. */
function improve(info: RegionInfo, fit: Fit, context: CheckerContext, view: RuleCheckerView): Result<Made> {
  const { cluster } = context;
  const fitView = cluster.fitView();
  for (const slot of fit.slots) {
    const { peer } = slot;
    const wanted = targetOf(fit, slot, fitView);
    const store = peer === undefined ? undefined : fitView.store(peer.storeId);
    if (
      peer === undefined ||
      store === undefined ||
      wanted.locationLabels.length === 0 ||
      cluster.claims.protects(info, peer.storeId)
    ) {
      continue;
    }
    const target = chooseTarget(cluster, info, peer, context.nowMs, view.canTake, wanted);
    const better = target.type === 'ok' ? fitView.store(target.value) : undefined;
    const others = stayingStores(cluster, info, peer);
    if (
      better !== undefined &&
      (!wanted.accepts(store) ||
        isolationScore(better, others, wanted.locationLabels) > isolationScore(store, others, wanted.locationLabels))
    ) {
      return context.factory.move(info, peer.storeId, better.id, { ...view.maker, priority: 'medium' });
    }
  }
  return NOTHING;
}
