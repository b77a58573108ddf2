/**
 * How well the peers of a region meet its rules. Every rule asks for `count` slots; peers are matched to slots so that
 * as many slots as possible are filled, first by peers that have the role already, then by others (augmenting paths,
 * Kuhn 1955: a slot may take a peer from an earlier slot that finds another one). Deterministic and pure.
 */
import type { PeerId, StoreId } from '../../../base/ids.ts';
import type { Peer, Store } from '../../../meta/region.ts';
import { type RegionInfo, isDown, isPending } from '../../cluster/region-info.ts';
import { distance } from '../../cluster/store-info.ts';
import type { WantedRole } from '../operator/builder.ts';
import { type PlacementRule, isVoting, meetsConstraints } from './rule.ts';
import type { RuleSegment } from './rule-set.ts';

/** One wanted replica. */
export interface Slot {
  readonly rule: PlacementRule;
  /** Undefined while no peer fills it. */
  readonly peer: Peer | undefined;
}

export interface Fit {
  readonly slots: readonly Slot[];
  /** Peers that no rule asks for. */
  readonly orphans: readonly Peer[];
}

export interface FitView {
  store(id: StoreId): Store | undefined;
  readonly locationLabels: readonly string[];
}

export const roleOf = (rule: PlacementRule): WantedRole => (isVoting(rule.role) ? 'voter' : 'learner');

/** A learner on its way to vote, or the other way round, counts as what it will be. */
const votes = (peer: Peer): boolean => peer.role === 'voter' || peer.role === 'incoming-voter';

export const hasRole = (peer: Peer, rule: PlacementRule): boolean => votes(peer) === isVoting(rule.role);

export function fitRegion(info: RegionInfo, segment: RuleSegment, view: FitView): Fit {
  const slots: { rule: PlacementRule; peer: Peer | undefined }[] = segment.rules.flatMap((rule) =>
    Array.from({ length: rule.count }, () => ({ rule, peer: undefined })),
  );
  const owner = new Map<PeerId, number>();
  const peers = [...info.region.peers].sort((a, b) => a.storeId - b.storeId || a.id - b.id);
  const allows = (rule: PlacementRule, peer: Peer, isStrict: boolean): boolean => {
    const store = view.store(peer.storeId);
    return store !== undefined && meetsConstraints(store, rule.constraints) && (!isStrict || hasRole(peer, rule));
  };
  /** Better peers first: those that need no change and lose nothing when they stay. */
  const ranked = (rule: PlacementRule): Peer[] => {
    const rank = (peer: Peer): number => {
      const leads = peer.id === info.leader?.id;
      return (
        (hasRole(peer, rule) ? 0 : 8) +
        (isDown(info, peer) ? 4 : 0) +
        (isPending(info, peer) ? 2 : 0) +
        ((rule.role === 'leader' && !leads) || (rule.role === 'follower' && leads) ? 1 : 0)
      );
    };
    return [...peers].sort((a, b) => rank(a) - rank(b));
  };
  const place = (index: number, isStrict: boolean, seen: Set<PeerId>): boolean => {
    const slot = slots[index];
    for (const peer of slot === undefined ? [] : ranked(slot.rule)) {
      if (slot === undefined || seen.has(peer.id) || !allows(slot.rule, peer, isStrict)) {
        continue;
      }
      seen.add(peer.id);
      const before = owner.get(peer.id);
      if (before === undefined || place(before, isStrict, seen)) {
        owner.set(peer.id, index);
        slot.peer = peer;
        return true;
      }
    }
    return false;
  };
  for (const isStrict of [true, false]) {
    for (const [index, slot] of slots.entries()) {
      if (slot.peer === undefined) {
        place(index, isStrict, new Set());
      }
    }
  }
  return { slots, orphans: info.region.peers.filter((peer) => !owner.has(peer.id)) };
}

/** Every slot filled by a peer of its role, and nothing besides. */
export const isMet = (fit: Fit): boolean =>
  fit.orphans.length === 0 && fit.slots.every(({ rule, peer }) => peer !== undefined && hasRole(peer, rule));

/** Whether the rules let a replica on this store lead. */
export const mayLeadBy = (segment: RuleSegment, store: Store): boolean =>
  segment.rules.some(
    ({ role, constraints }) => (role === 'voter' || role === 'leader') && meetsConstraints(store, constraints),
  );

/** Whether the rules want the lead here as much as anywhere: where one asks for the leader, only its stores. */
export function wantsLeadOn(segment: RuleSegment, store: Store): boolean {
  const first = segment.rules.find(({ role }) => role === 'leader');
  return first === undefined ? mayLeadBy(segment, store) : meetsConstraints(store, first.constraints);
}

/** What a store must be like to take the replica of a slot. */
export interface SlotTarget {
  accepts(store: Store): boolean;
  readonly locationLabels: readonly string[];
}

/** Stores for a slot beside the peers of the same rule that stay. */
export function targetOf(fit: Fit, slot: Slot, view: FitView): SlotTarget {
  const { rule } = slot;
  const locationLabels = rule.locationLabels.length > 0 ? rule.locationLabels : view.locationLabels;
  const siblings = fit.slots
    .filter((other) => other !== slot && other.rule === rule && other.peer !== undefined)
    .map((other) => view.store((other.peer as Peer).storeId))
    .filter((store): store is Store => store !== undefined);
  const level = locationLabels.findIndex((label) => label.toLowerCase() === rule.isolationLevel.toLowerCase());
  // Stores share a place of the level when they differ only below it.
  const apart = locationLabels.length - level;
  return {
    locationLabels,
    accepts: (store) =>
      meetsConstraints(store, rule.constraints) &&
      (level < 0 || siblings.every((other) => distance(store, other, locationLabels) >= apart)),
  };
}
