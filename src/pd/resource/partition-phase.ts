/**
 * What a Partition needs next: one region with exactly its range, its replicas and leader where the document says, and
 * a status that tells how far it is. A function of the document and of what the region map shows; it keeps nothing.
 */
import { compareBytes } from '../../base/bytes.ts';
import type { StoreId } from '../../base/ids.ts';
import { type KeyRange, compareEnds, formatRange, rangesEqual } from '../../base/key-range.ts';
import { type Peer, isInJointState } from '../../meta/region.ts';
import { type RegionInfo, isPending, peerOn, votersOf } from '../cluster/region-info.ts';
import type { WantedRole } from '../schedule/operator/builder.ts';
import type { Facts } from './facts.ts';
import {
  type Condition,
  type ConditionType,
  type Partition,
  type PartitionStatus,
  type PodAssignment,
  type PodStatus,
  conditionsEqual,
  primaryOf,
} from './resource.ts';

/** An operator that a document asks for. */
export type Wish =
  | { readonly type: 'split'; readonly region: RegionInfo; readonly keys: readonly Uint8Array[] }
  | { readonly type: 'merge'; readonly source: RegionInfo; readonly target: RegionInfo }
  | { readonly type: 'transfer'; readonly region: RegionInfo; readonly to: StoreId }
  | {
      readonly type: 'reshape';
      readonly region: RegionInfo;
      readonly wanted: ReadonlyMap<StoreId, WantedRole>;
      readonly brief: string;
    }
  /** Another store takes over the replica; which one is chosen by placement. */
  | { readonly type: 'replace'; readonly region: RegionInfo; readonly store: StoreId }
  | { readonly type: 'cancel'; readonly region: RegionInfo };

export interface PartitionStep {
  readonly status: PartitionStatus;
  /** Carried out only when the status is as it was. */
  readonly wish: Wish | undefined;
}

export const condition = (type: ConditionType, message: string): Condition => ({ type, message });

// ------------------------------------------------------------------------------------------------ one region per range

export type Shape =
  | { readonly type: 'one'; readonly region: RegionInfo }
  | { readonly type: 'wait'; readonly condition: Condition }
  | { readonly type: 'wish'; readonly wish: Wish };

/** Splits at the borders of a range, then merges what is divided inside, until one region has exactly this range. */
export function shapeOf(range: KeyRange, facts: Facts): Shape {
  const regions = facts.regionsIn(range);
  const [first, last] = [regions?.[0], regions?.at(-1)];
  if (regions === undefined || first === undefined || last === undefined) {
    return waiting(`no region is known for a part of ${formatRange(range)}`);
  }
  const keys: Uint8Array[] = [];
  if (compareBytes(first.region.range.start, range.start) < 0) {
    keys.push(range.start);
  }
  const isCutAtEnd = compareEnds(range.end, last.region.range.end) < 0;
  if (isCutAtEnd && (keys.length === 0 || first === last)) {
    keys.push(range.end);
  }
  if (keys.length > 0) {
    const region = compareBytes(first.region.range.start, range.start) < 0 ? first : last;
    return whenFree(region, facts, range, { type: 'split', region, keys });
  }
  if (first === last) {
    return { type: 'one', region: first };
  }
  const second = regions[1] as RegionInfo;
  const [source, target] = first.sizeBytes <= second.sizeBytes ? [first, second] : [second, first];
  const busy = regions.find((info) => facts.runningOn(info) !== undefined || info.merging);
  return busy === undefined
    ? whenFree(source, facts, range, { type: 'merge', source, target })
    : { type: 'wait', condition: bordersMissing(range) };
}

const waiting = (message: string): Shape => ({ type: 'wait', condition: condition('WaitingForRegions', message) });

function whenFree(info: RegionInfo, facts: Facts, range: KeyRange, wish: Wish): Shape {
  if (info.leader === undefined) {
    return waiting(`region ${info.region.id} has no known leader`);
  }
  if (info.merging || facts.runningOn(info) !== undefined) {
    return { type: 'wait', condition: bordersMissing(range) };
  }
  return { type: 'wish', wish };
}

const bordersMissing = (range: KeyRange): Condition =>
  condition('WaitingForRegions', `no region has exactly the range ${formatRange(range)} yet`);

// -------------------------------------------------------------------------------------------------------- one step on

/** The next status, and what to do if it is the same as before. */
export function stepPartition(partition: Partition, facts: Facts): PartitionStep {
  const { spec, status } = partition;
  const shape = shapeOf(spec.range, facts);
  if (shape.type !== 'one') {
    const conditions = [shape.type === 'wait' ? shape.condition : bordersMissing(spec.range)];
    // A status that was reached says where the range is served; a region that is unknown for a moment takes nothing away.
    return { status: { ...status, conditions }, wish: shape.type === 'wish' ? shape.wish : undefined };
  }
  const { region } = shape;
  if (region.leader === undefined) {
    const conditions = [condition('WaitingForRegions', `region ${region.region.id} has no known leader`)];
    return { status: { ...status, conditions }, wish: undefined };
  }
  return isMoving(partition) ? stepPods(partition, region, facts) : stepWords(partition, region, facts);
}

/** Pods are looked at one by one if the document says so, and while an Assignment moves the Partition between them. */
function isMoving({ spec, status }: Partition): boolean {
  const primary = primaryOf(spec);
  return (
    spec.form === 'pods' ||
    spec.pods.length > 1 ||
    status.pods.some(([name, value]) => name !== primary && value !== 'primary')
  );
}

/** Keeps the old value when nothing changed, so that the caller sees at once that there is nothing to write. */
function statusOf(
  before: PartitionStatus,
  ready: boolean,
  pods: PartitionStatus['pods'],
  conditions: readonly Condition[],
): PartitionStatus {
  const same =
    before.ready === ready &&
    conditionsEqual(before.conditions, conditions) &&
    before.pods.length === pods.length &&
    before.pods.every(([name, value], i) => name === pods[i]?.[0] && value === pods[i]?.[1]);
  return same ? before : { ready, pods, conditions };
}

const isLeaderOn = (info: RegionInfo, store: StoreId | undefined): boolean =>
  store !== undefined && info.leader?.storeId === store && !isInJointState(info.region);

/** A Partition written with `primary`: ready once its region is served there. Passing elections take nothing away. */
function stepWords(partition: Partition, region: RegionInfo, facts: Facts): PartitionStep {
  const { spec, status } = partition;
  const pod = primaryOf(spec);
  const store = pod === undefined ? undefined : facts.storeOfPod(pod);
  const isThere = pod === undefined || isLeaderOn(region, store);
  const conditions: Condition[] = [];
  let wish: Wish | undefined;
  if (pod !== undefined && store === undefined) {
    conditions.push(condition('Unhealthy', `no store is called ${pod} any more`));
  } else if (store !== undefined && !isThere) {
    const lead = bringPrimary(region, store, undefined, facts);
    if (lead.condition !== undefined) {
      conditions.push(lead.condition);
    }
    wish = lead.wish;
  }
  const pods: PartitionStatus['pods'] =
    pod === undefined ? [] : isThere ? [[pod, 'primary']] : status.pods.filter(([name]) => name === pod);
  const ready = isThere || (status.ready && pods.length > 0);
  return { status: statusOf(status, ready, pods, conditions), wish };
}

interface Lead {
  readonly wish: Wish | undefined;
  readonly condition: Condition | undefined;
}

const notCaughtUp = (message: string): Lead => ({ wish: undefined, condition: condition('NotCaughtUp', message) });

/**
 * Makes the replica on `store` lead. `demoted` is the store whose replica becomes a learner when the new primary takes
 * its vote over; undefined lets the replica that leads now keep or lose its vote as the number of voters demands.
 */
function bringPrimary(region: RegionInfo, store: StoreId, demoted: StoreId | undefined, facts: Facts): Lead {
  const id = region.region.id;
  if (!facts.isUsable(store)) {
    return { wish: undefined, condition: condition('Unhealthy', `store ${store} does not answer`) };
  }
  if (isInJointState(region.region) || facts.runningOn(region) !== undefined || region.merging) {
    return { wish: undefined, condition: undefined };
  }
  const peer = peerOn(region, store);
  if (peer !== undefined && isPending(region, peer)) {
    return notCaughtUp(`the replica of region ${id} on store ${store} is still catching up`);
  }
  if (peer?.role === 'voter') {
    return { wish: { type: 'transfer', region, to: store }, condition: undefined };
  }
  const wanted = rolesOf(region);
  wanted.set(store, 'voter');
  const leaving = demoted ?? region.leader?.storeId;
  if (demoted !== undefined) {
    wanted.set(demoted, 'learner');
  } else if (leaving !== undefined && votersOf(region.region).length >= facts.config.maxReplicas) {
    wanted.delete(leaving);
  }
  return {
    wish: { type: 'reshape', region, wanted, brief: `lead region ${id} from store ${store}` },
    condition: undefined,
  };
}

const rolesOf = (region: RegionInfo): Map<StoreId, WantedRole> =>
  new Map(region.region.peers.map((peer) => [peer.storeId, peer.role === 'learner' ? 'learner' : 'voter']));

// ------------------------------------------------------------------------------------------------------- assigned pods

/** A Partition written with `assignedPods`: every pod has a status of its own. */
function stepPods(partition: Partition, region: RegionInfo, facts: Facts): PartitionStep {
  const { spec, status } = partition;
  const before = new Map(status.pods);
  const pods = podsNow(partition, region, facts);
  const now = new Map(pods);
  const primary = primaryOf(spec);
  // With a scalar status it is served as long as some pod serves it.
  const ready =
    spec.form === 'pods'
      ? primary !== undefined && now.get(primary) === 'primary'
      : [...now.values()].includes('primary');
  const plan = planPods(partition, region, before, facts);
  const next = statusOf(
    status,
    ready,
    plan.kept === undefined ? pods : pods.filter(([name]) => name !== plan.kept),
    plan.conditions,
  );
  return { status: next, wish: plan.wish };
}

/** What each pod is now: those of the spec first, then those on their way out. */
function podsNow(partition: Partition, region: RegionInfo, facts: Facts): (readonly [string, PodStatus])[] {
  const { spec, status } = partition;
  const before = new Map(status.pods);
  const primary = primaryOf(spec);
  const isTaken = isLeaderOn(region, primary === undefined ? undefined : facts.storeOfPod(primary));
  const pods = new Map<string, PodStatus>();
  const put = (pod: string, value: PodStatus | undefined): void => {
    if (value !== undefined) {
      pods.set(pod, value);
    }
  };
  // Pods keep the order in which they came, so that a status reads the same from step to step.
  for (const pod of [...before.keys(), ...spec.pods.map(({ name }) => name)]) {
    if (pods.has(pod)) {
      continue;
    }
    const store = facts.storeOfPod(pod);
    const peer = store === undefined ? undefined : peerOn(region, store);
    const entry = spec.pods.find(({ name }) => name === pod);
    put(pod, entry === undefined ? leavingStatus(peer) : podStatus(entry, peer, before.get(pod), region, isTaken));
  }
  return [...pods];
}

/** A pod that the spec names no more is shown until its replica is gone. */
const leavingStatus = (peer: Peer | undefined): PodStatus | undefined =>
  peer === undefined ? undefined : 'unassigning';

function podStatus(
  entry: PodAssignment,
  peer: Peer | undefined,
  before: PodStatus | undefined,
  region: RegionInfo,
  isTaken: boolean,
): PodStatus {
  const holdsData = peer !== undefined && !isPending(region, peer);
  switch (entry.type) {
    case 'primary':
      // Until the new primary leads, it is what it was; a passing election does not take the word away.
      if (isTaken) {
        return 'primary';
      }
      if (before === 'primary' && peer !== undefined) {
        return 'primary';
      }
      return before === 'follower' || (before === undefined && holdsData) ? 'follower' : 'starting';
    case 'proxy':
      return isTaken || before === undefined
        ? 'proxy'
        : before === 'primary' || before === 'follower'
          ? before
          : 'proxy';
    case 'follower':
      if (before === 'primary' && !isTaken) {
        return 'primary';
      }
      return holdsData && before !== undefined ? 'follower' : 'starting';
  }
}

interface PodPlan {
  readonly wish: Wish | undefined;
  readonly conditions: readonly Condition[];
  /** A pod on its way out whose replica stays, without its name in the status. */
  readonly kept: string | undefined;
}

function planPods(
  partition: Partition,
  region: RegionInfo,
  before: ReadonlyMap<string, PodStatus>,
  facts: Facts,
): PodPlan {
  const { spec } = partition;
  const nothing: PodPlan = { wish: undefined, conditions: [], kept: undefined };
  const wish = (made: Wish | undefined, ...conditions: readonly Condition[]): PodPlan => ({
    wish: made,
    conditions,
    kept: undefined,
  });
  const unknown = spec.pods.find(({ name }) => facts.storeOfPod(name) === undefined);
  if (unknown !== undefined) {
    return wish(undefined, condition('Unhealthy', `no store is called ${unknown.name} any more`));
  }
  const primary = primaryOf(spec) as string;
  const store = facts.storeOfPod(primary) as StoreId;
  if (!isLeaderOn(region, store)) {
    return planPrimary(partition, region, before, store, facts);
  }
  if (facts.runningOn(region) !== undefined || region.merging) {
    return nothing;
  }
  const missing = spec.pods.find(
    ({ name, type }) => type === 'follower' && peerOn(region, facts.storeOfPod(name) as StoreId) === undefined,
  );
  if (missing !== undefined) {
    const to = facts.storeOfPod(missing.name) as StoreId;
    if (!facts.isUsable(to)) {
      return wish(undefined, condition('Unhealthy', `pod ${missing.name} (store ${to}) does not answer`));
    }
    const wanted = rolesOf(region).set(to, 'learner');
    return wish({ type: 'reshape', region, wanted, brief: `follow region ${region.region.id} on store ${to}` });
  }
  const slow = spec.pods.find(({ name }) => {
    const peer = peerOn(region, facts.storeOfPod(name) as StoreId);
    return peer !== undefined && isPending(region, peer);
  });
  if (slow !== undefined) {
    return wish(undefined, condition('NotCaughtUp', `pod ${slow.name} is still catching up`));
  }
  return planLeaving(partition, region, before, facts);
}

/** The primary of the spec does not lead yet. It may only take over when it follows already, or when nobody has led. */
function planPrimary(
  partition: Partition,
  region: RegionInfo,
  before: ReadonlyMap<string, PodStatus>,
  store: StoreId,
  facts: Facts,
): PodPlan {
  const { spec } = partition;
  const primary = primaryOf(spec) as string;
  const old = [...before].find(([, value]) => value === 'primary')?.[0];
  const isHandover = old !== undefined && old !== primary;
  if (isHandover && before.get(primary) !== 'follower') {
    const text = `pod ${primary} may become primary when it follows; it is ${before.get(primary) ?? 'not assigned'}`;
    return { wish: undefined, conditions: [condition('NotCaughtUp', text)], kept: undefined };
  }
  const oldStore = old === undefined ? undefined : facts.storeOfPod(old);
  const staysAs = spec.pods.find(({ name }) => name === old)?.type;
  const demoted =
    isHandover && staysAs !== undefined && oldStore !== undefined && peerOn(region, oldStore)?.role === 'voter'
      ? oldStore
      : undefined;
  const lead = bringPrimary(region, store, demoted, facts);
  return { wish: lead.wish, conditions: lead.condition === undefined ? [] : [lead.condition], kept: undefined };
}

/** Removes the replica of a pod that was shown as `unassigning`; one that counts gets a replacement first. */
function planLeaving(
  partition: Partition,
  region: RegionInfo,
  before: ReadonlyMap<string, PodStatus>,
  facts: Facts,
): PodPlan {
  for (const [pod, value] of before) {
    const store = facts.storeOfPod(pod);
    const peer = store === undefined ? undefined : peerOn(region, store);
    if (
      value !== 'unassigning' ||
      store === undefined ||
      peer === undefined ||
      partition.spec.pods.some(({ name }) => name === pod)
    ) {
      continue;
    }
    if (peer.role === 'learner' || votersOf(region.region).length > facts.config.maxReplicas) {
      const wanted = rolesOf(region);
      wanted.delete(store);
      const brief = `take region ${region.region.id} from store ${store}`;
      return { wish: { type: 'reshape', region, wanted, brief }, conditions: [], kept: undefined };
    }
    // A learner that an administrator or an earlier step left here becomes a voter before this vote goes.
    const learner = region.region.peers.find(
      (other) => other.role === 'learner' && !isPending(region, other) && other.storeId !== store,
    );
    if (learner !== undefined) {
      const wanted = rolesOf(region).set(learner.storeId, 'voter');
      wanted.delete(store);
      const brief = `replace store ${store} of region ${region.region.id} by store ${learner.storeId}`;
      return { wish: { type: 'reshape', region, wanted, brief }, conditions: [], kept: undefined };
    }
    if (facts.hasSpareStore(region, store)) {
      return { wish: { type: 'replace', region, store }, conditions: [], kept: undefined };
    }
    const text = `pod ${pod} keeps an ordinary replica of region ${region.region.id}: no other store could take it`;
    return { wish: undefined, conditions: [condition('ReplicaKept', text)], kept: pod };
  }
  return { wish: undefined, conditions: [], kept: undefined };
}

export const isSameRange = (info: RegionInfo | undefined, range: KeyRange): boolean =>
  info !== undefined && rangesEqual(info.region.range, range);
