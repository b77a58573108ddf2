/**
 * Assignments of type InWorkerMerge: several Partitions become one. A function of the documents and of what the region
 * map shows, so that a restarted service computes the same. The chain is merged neighbor by neighbor into the region of
 * one part, the target; that a part is merged is seen by the target's range alone, never remembered.
 */
import type { StoreId } from '../../base/ids.ts';
import { type KeyRange, compareEnds, formatRange, rangeCovers, rangesEqual } from '../../base/key-range.ts';
import { compareBytes } from '../../base/bytes.ts';
import { isInJointState } from '../../meta/region.ts';
import { type RegionInfo, peerOn } from '../cluster/region-info.ts';
import type { WantedRole } from '../schedule/operator/builder.ts';
import { isAligned } from '../schedule/operator/merge-pair.ts';
import { gapsBetween, mergedNameOf, newPartition, sortedParts } from './admission.ts';
import {
  type AssignmentStep,
  NOTHING,
  type StepContext,
  change,
  remainingMs,
  remove,
  respecified,
  savesRemaining,
  stay,
} from './assignment-step.ts';
import type { Facts } from './facts.ts';
import { type Wish, condition } from './partition-phase.ts';
import {
  type Assignment,
  type Condition,
  type MergePlan,
  type MergeSpec,
  type Partition,
  type PartitionSpec,
  primaryOf,
} from './resource.ts';

export function stepMerge(assignment: Assignment, spec: MergeSpec, context: StepContext): AssignmentStep {
  const plan = assignment.status.merge;
  if (plan === undefined) {
    return begin(assignment, spec, context);
  }
  const seen = look(plan, context.facts);
  if (seen === undefined) {
    const text = `no region is known for a part of ${formatRange(plan.range)}`;
    return stay(assignment, context, [...absorbed(plan), condition('WaitingForRegions', text)]);
  }
  if (assignment.status.aborting) {
    return abort(assignment, plan, seen, context);
  }
  switch (assignment.status.phase) {
    case 'loading':
      return load(assignment, plan, seen, context);
    case 'following':
      return follow(assignment, spec, plan, seen, context);
    case 'proxying':
      return proxy(assignment, spec, plan, context);
    default:
      return NOTHING;
  }
}

const absorbed = (plan: MergePlan): Condition[] =>
  plan.absorbed.length === 0
    ? []
    : [condition('AbsorbedRanges', `the merged part also takes in ${plan.absorbed.map(formatRange).join(', ')}`)];

// ----------------------------------------------------------------------------------------------------------- planning

/** Makes the plan as soon as every part is served by a region of its own. */
function begin(assignment: Assignment, spec: MergeSpec, context: StepContext): AssignmentStep {
  const { view, facts, newUid } = context;
  const parts = sortedParts(view, spec);
  const [first, last] = [parts?.[0], parts?.at(-1)];
  if (parts === undefined || first === undefined || last === undefined) {
    return stay(assignment, context, [condition('WaitingForRegions', 'a part is not known any more')]);
  }
  const waiting = parts.find(
    (part) => !part.status.ready || !rangesEqual(regionOf(part, facts)?.region.range ?? NO_RANGE, part.spec.range),
  );
  if (waiting !== undefined) {
    const text = `Partition ${waiting.meta.name} is not served by a region of its own yet`;
    return stay(assignment, context, [condition('WaitingForRegions', text)]);
  }
  const range: KeyRange = { start: first.spec.range.start, end: last.spec.range.end };
  const regions = facts.regionsIn(range);
  if (regions === undefined || regions.some((info) => info.leader === undefined)) {
    const text = `not all regions of ${formatRange(range)} are known with their leaders`;
    return stay(assignment, context, [condition('WaitingForRegions', text)]);
  }
  const target = chooseTarget(parts, regions, facts);
  const targetLeader = regionOf(target, facts)?.leader?.storeId;
  const pod = primaryOf(target.spec) ?? (targetLeader === undefined ? undefined : facts.podOfStore(targetLeader)) ?? '';
  const encoding = parts.some((part) => part.spec.encoding === 'hex') ? 'hex' : 'text';
  const plan: MergePlan = {
    mergedName: mergedNameOf(assignment.meta.name, spec),
    range,
    pod,
    parts: parts.map((part) => ({ name: part.meta.name, range: part.spec.range })),
    target: target.meta.name,
    absorbed: gapsBetween(parts),
    regions: [],
  };
  const merged = newPartition(plan.mergedName, { form: 'primary', range, encoding, pods: [] }, newUid(), facts.wallMs);
  return change(
    assignment,
    {
      phase: 'loading',
      main: 'loading',
      parts: spec.partitions.map((name) => [name, 'primary'] as const),
      merge: plan,
      conditions: absorbed(plan),
    },
    { puts: [merged] },
  );
}

const NO_RANGE: KeyRange = { start: new Uint8Array([0]), end: new Uint8Array([0]) };

const regionOf = (part: Partition, facts: Facts): RegionInfo | undefined => facts.regionAt(part.spec.range.start);

/** The part that needs the fewest bytes copied to where it is; then the larger one, then the leftmost. */
function chooseTarget(parts: readonly Partition[], regions: readonly RegionInfo[], facts: Facts): Partition {
  const costOf = (info: RegionInfo): number =>
    regions.reduce((sum, other) => {
      const missing = info.region.peers.filter((peer) => peerOn(other, peer.storeId) === undefined).length;
      return sum + missing * Math.max(1, other.sizeBytes);
    }, 0);
  let best: { readonly part: Partition; readonly cost: number; readonly size: number } | undefined;
  for (const part of parts) {
    const info = regionOf(part, facts);
    if (info !== undefined) {
      const candidate = { part, cost: costOf(info), size: info.sizeBytes };
      if (
        best === undefined ||
        candidate.cost < best.cost ||
        (candidate.cost === best.cost && candidate.size > best.size)
      ) {
        best = candidate;
      }
    }
  }
  return best?.part ?? (parts[0] as Partition);
}

// ------------------------------------------------------------------------------------------------------------ looking

interface Seen {
  readonly target: RegionInfo;
  /** Regions of the range that are not the target, in key order. */
  readonly others: readonly RegionInfo[];
  /** The target has taken in another region already. */
  readonly hasBegun: boolean;
  /** Parts inside the target's range. */
  readonly merged: ReadonlySet<string>;
}

function look(plan: MergePlan, facts: Facts): Seen | undefined {
  const regions = facts.regionsIn(plan.range);
  const own = plan.parts.find((part) => part.name === plan.target);
  const target = own === undefined ? undefined : facts.regionAt(own.range.start);
  if (regions === undefined || target === undefined || own === undefined) {
    return undefined;
  }
  const { range } = target.region;
  return {
    target,
    others: regions.filter((info) => info !== target),
    hasBegun: !rangesEqual(range, own.range) && rangeCovers(range, own.range),
    merged: new Set(plan.parts.filter((part) => rangeCovers(range, part.range)).map((part) => part.name)),
  };
}

/** A merge of this Assignment was sent and may still be committed. */
const isSent = (info: RegionInfo, facts: Facts): boolean => {
  const running = facts.runningOn(info);
  return (
    info.merging || (running !== undefined && (running.isMergeSource || running.isMergeTarget) && !running.isCancelable)
  );
};

// ------------------------------------------------------------------------------------------------------------ loading

/** What keeps the regions from being merged one after the other; no conditions and no wish when nothing does. */
interface Alignment {
  readonly aligned: boolean;
  readonly conditions: readonly Condition[];
  readonly wish: Wish | undefined;
}

function align(plan: MergePlan, seen: Seen, facts: Facts): Alignment {
  const wait = (type: 'WaitingForRegions' | 'NotCaughtUp' | 'Unhealthy', message: string): Alignment => ({
    aligned: false,
    conditions: [condition(type, message)],
    wish: undefined,
  });
  const podStore = facts.storeOfPod(plan.pod);
  const target = alignOne(seen.target, undefined, podStore, facts);
  if (target !== undefined) {
    return 'wish' in target ? { aligned: false, conditions: [], wish: target.wish } : wait(target.type, target.message);
  }
  let waiting: Problem | undefined;
  for (const source of seen.others) {
    const problem = alignOne(source, seen.target, podStore, facts);
    if (problem !== undefined && 'wish' in problem) {
      // The others are aligned at the same time: each tick starts one more of them.
      return { aligned: false, conditions: [], wish: problem.wish };
    }
    waiting ??= problem;
  }
  return waiting === undefined
    ? { aligned: true, conditions: [], wish: undefined }
    : wait(waiting.type, waiting.message);
}

interface Problem {
  readonly type: 'WaitingForRegions' | 'NotCaughtUp' | 'Unhealthy';
  readonly message: string;
}

/** One region: healthy, on the target's stores with the same roles, led from the common pod. */
function alignOne(
  info: RegionInfo,
  target: RegionInfo | undefined,
  podStore: StoreId | undefined,
  facts: Facts,
): Problem | { readonly wish: Wish } | undefined {
  const { id } = info.region;
  if (info.leader === undefined || info.reportedAtMs === undefined) {
    return { type: 'WaitingForRegions', message: `region ${id} has no known leader` };
  }
  const [down] = info.downPeers;
  if (down !== undefined) {
    return { type: 'Unhealthy', message: `the replica of region ${id} on store ${down.peer.storeId} is down` };
  }
  const silent = info.region.peers.find((peer) => !facts.isUsable(peer.storeId));
  if (silent !== undefined) {
    return { type: 'Unhealthy', message: `store ${silent.storeId} with a replica of region ${id} does not answer` };
  }
  const [pending] = info.pendingPeers;
  if (pending !== undefined) {
    return { type: 'NotCaughtUp', message: `the replica of region ${id} on store ${pending.storeId} is catching up` };
  }
  if (facts.runningOn(info) !== undefined || info.merging || isInJointState(info.region)) {
    return { type: 'NotCaughtUp', message: `region ${id} is being brought to its place` };
  }
  if (target !== undefined && !isAligned(info.region, target.region)) {
    const wanted = new Map<StoreId, WantedRole>(
      target.region.peers.map((peer) => [peer.storeId, peer.role === 'learner' ? 'learner' : 'voter']),
    );
    return {
      wish: {
        type: 'reshape',
        region: info,
        wanted,
        brief: `bring region ${id} to the stores of region ${target.region.id}`,
      },
    };
  }
  if (podStore !== undefined && info.leader.storeId !== podStore && peerOn(info, podStore)?.role === 'voter') {
    return { wish: { type: 'transfer', region: info, to: podStore } };
  }
  return undefined;
}

function load(assignment: Assignment, plan: MergePlan, seen: Seen, context: StepContext): AssignmentStep {
  const { facts } = context;
  const alignment = align(plan, seen, facts);
  if (seen.hasBegun || seen.others.length === 0 || alignment.aligned) {
    // Requests for the target's own old route may be redirected as well.
    const regions = [...seen.others, seen.target].map((info) => info.region.id);
    const known = [...new Set([...plan.regions, ...regions])];
    return change(assignment, {
      phase: 'following',
      main: 'follower',
      merge: { ...plan, regions: known },
      conditions: absorbed(plan),
    });
  }
  return stay(assignment, context, [...absorbed(plan), ...alignment.conditions], alignment.wish);
}

// ---------------------------------------------------------------------------------------------------------- following

const thresholdOf = (spec: MergeSpec, facts: Facts): number => spec.proxyThresholdMs ?? facts.config.proxyThresholdMs;

/** A Partition whose requests are forwarded to the merged one on the same pod. */
function asProxy(part: Partition, pod: string): Partition {
  if (pod === '') {
    return part;
  }
  const form: PartitionSpec['form'] = part.spec.form;
  const pods = [{ name: pod, type: 'proxy' as const }];
  const made = respecified(part, { ...part.spec, form, pods }, true);
  return form === 'pods' ? { ...made, status: { ...made.status, pods: [[pod, 'proxy']] } } : made;
}

const isProxy = (part: Partition | undefined): boolean =>
  part?.spec.pods.every((pod) => pod.type === 'proxy') === true && part.spec.pods.length > 0;

/** Changes of the parts that became proxies. */
function proxiesOf(names: readonly string[], plan: MergePlan, { view }: StepContext): Partition[] {
  return names
    .map((name) => view.partition(name))
    .filter((part): part is Partition => part !== undefined && !isProxy(part))
    .map((part) => asProxy(part, plan.pod));
}

function follow(
  assignment: Assignment,
  spec: MergeSpec,
  plan: MergePlan,
  seen: Seen,
  context: StepContext,
): AssignmentStep {
  const { facts, view } = context;
  const { status } = assignment;
  if (seen.others.length === 0 && rangesEqual(seen.target.region.range, plan.range)) {
    const merged = view.partition(plan.mergedName);
    const names = plan.parts.map((part) => part.name);
    const puts = proxiesOf(names, plan, context);
    return change(
      assignment,
      {
        phase: 'proxying',
        main: 'primary',
        parts: status.parts.map(([name]) => [name, 'proxy'] as const),
        remainingMs: thresholdOf(spec, facts),
        conditions: absorbed(plan),
      },
      { puts: merged === undefined ? puts : [...puts, served(merged, plan.pod)] },
    );
  }
  // The target's own part answers under its old route until the whole range is served.
  const done = plan.parts.map((part) => part.name).filter((name) => name !== plan.target && seen.merged.has(name));
  const fresh = done.filter((name) => status.parts.find(([part]) => part === name)?.[1] !== 'proxy');
  if (fresh.length > 0) {
    const parts = status.parts.map(([name, state]) => [name, done.includes(name) ? 'proxy' : state] as const);
    return change(assignment, { parts }, { puts: proxiesOf(fresh, plan, context) });
  }
  const sent = [seen.target, ...seen.others].some((info) => isSent(info, facts));
  const isRunning = facts.runningOn(seen.target) !== undefined;
  if (sent || isRunning) {
    return stay(assignment, context, absorbed(plan));
  }
  const next = nextSource(seen, plan);
  const alignment = align(plan, { ...seen, others: seen.hasBegun && next !== undefined ? [next] : seen.others }, facts);
  if (!seen.hasBegun && !alignment.aligned) {
    return change(assignment, {
      phase: 'loading',
      main: 'loading',
      conditions: [...absorbed(plan), ...alignment.conditions],
    });
  }
  if (!alignment.aligned) {
    return stay(assignment, context, [...absorbed(plan), ...alignment.conditions], alignment.wish);
  }
  return next === undefined
    ? stay(assignment, context, absorbed(plan))
    : stay(assignment, context, absorbed(plan), { type: 'merge', source: next, target: seen.target });
}

/** The merged part with its pod: it is served. */
const served = (merged: Partition, pod: string): Partition =>
  respecified(merged, { ...merged.spec, pods: pod === '' ? [] : [{ name: pod, type: 'primary' }] }, true);

/** The smaller one of the two neighbors of the target; gaps come before the part behind them anyway. */
function nextSource(seen: Seen, plan: MergePlan): RegionInfo | undefined {
  const { range } = seen.target.region;
  const left = seen.others.find(
    ({ region }) => region.range.end.length > 0 && compareBytes(region.range.end, range.start) === 0,
  );
  const right =
    range.end.length === 0
      ? undefined
      : seen.others.find(({ region }) => compareBytes(region.range.start, range.end) === 0);
  const inside = [left, right].filter(
    (info): info is RegionInfo =>
      info !== undefined &&
      compareBytes(plan.range.start, info.region.range.start) <= 0 &&
      compareEnds(info.region.range.end, plan.range.end) <= 0,
  );
  return inside.toSorted((a, b) => a.sizeBytes - b.sizeBytes)[0];
}

// ----------------------------------------------------------------------------------------------------------- proxying

function proxy(assignment: Assignment, spec: MergeSpec, plan: MergePlan, context: StepContext): AssignmentStep {
  const { facts, redirects } = context;
  const { status } = assignment;
  const left = remainingMs(status, context);
  if (savesRemaining(status, left, thresholdOf(spec, facts))) {
    return change(assignment, { remainingMs: left });
  }
  if (left > 0) {
    return stay(assignment, context, absorbed(plan));
  }
  redirects.retire(plan.regions);
  if (!redirects.areRetired(plan.regions)) {
    return stay(assignment, context, [
      ...absorbed(plan),
      condition('WaitingForRegions', 'stores still redirect old requests'),
    ]);
  }
  return change(
    assignment,
    {
      phase: 'completed',
      parts: status.parts.map(([name]) => [name, 'disconnected'] as const),
      remainingMs: 0,
      conditions: absorbed(plan),
    },
    { deletes: plan.parts.map((part) => part.name) },
  );
}

// ----------------------------------------------------------------------------------------------------------- aborting

/**
 * Deleted: what is not merged keeps its name; what is merged gets a Partition of the merged range. A merge that was sent
 * is waited for, because only the stores know how it ends.
 */
function abort(assignment: Assignment, plan: MergePlan, seen: Seen, context: StepContext): AssignmentStep {
  const { facts, view } = context;
  const all = [seen.target, ...seen.others];
  const cancelable = all.find(
    (info) => facts.runningOn(info)?.isCancelable === true && facts.runningOn(info)?.maker === makerOf(assignment),
  );
  if (cancelable !== undefined) {
    return stay(assignment, context, absorbed(plan), { type: 'cancel', region: cancelable });
  }
  const unknown = all.find((info) => info.reportedAtMs === undefined);
  if (unknown !== undefined || all.some((info) => isSent(info, facts))) {
    return stay(assignment, context, absorbed(plan));
  }
  const merged = view.partition(plan.mergedName);
  if (!seen.hasBegun || merged === undefined) {
    return remove(assignment, { deletes: [plan.mergedName] });
  }
  const range = seen.target.region.range;
  const kept = served({ ...merged, spec: { ...merged.spec, range } }, plan.pod);
  const gone = plan.parts.filter((part) => rangeCovers(range, part.range)).map((part) => part.name);
  return remove(assignment, { puts: [kept], deletes: gone });
}

export const makerOf = ({ kind, meta }: { readonly kind: string; readonly meta: { readonly name: string } }): string =>
  `${kind.toLowerCase()}/${meta.name}`;
