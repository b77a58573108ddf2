/**
 * Assignments of types InterWorkerMove, New and InWorkerSplit. A move edits the Partition's spec as a user would, one
 * edit at a time, and watches its status; what the edits mean is the Partition's own business.
 */
import type { KeyRange } from '../../base/key-range.ts';
import { isInJointState } from '../../meta/region.ts';
import { newPartition, splitNames } from './admission.ts';
import {
  type AssignmentStep,
  type StepContext,
  NOTHING,
  change,
  remainingMs,
  remove,
  respecified,
  savesRemaining,
  stay,
} from './assignment-step.ts';
import { makerOf } from './merge-phase.ts';
import { type Wish, condition, isSameRange, shapeOf } from './partition-phase.ts';
import {
  type Assignment,
  type MoveSpec,
  type NewSpec,
  type Partition,
  type PodAssignment,
  type PodStatus,
  type SplitPlan,
  type SplitSpec,
  primaryOf,
} from './resource.ts';

// --------------------------------------------------------------------------------------------------------------- move

const samePods = (a: readonly PodAssignment[], b: readonly PodAssignment[]): boolean =>
  a.length === b.length && a.every((pod, i) => pod.name === b[i]?.name && pod.type === b[i]?.type);

/** A spec with other pods; the status stays as it is until the stores have followed. */
function withPods(partition: Partition, pods: readonly PodAssignment[]): Partition {
  const { ready, conditions } = partition.status;
  const next = respecified(partition, { ...partition.spec, pods }, ready);
  return { ...next, status: { ...next.status, conditions } };
}

const podOf = (partition: Partition, pod: string): PodStatus | undefined =>
  partition.status.pods.find(([name]) => name === pod)?.[1];

const pair = (from: string, to: string): readonly (readonly [string, string])[] => [
  ['fromPod', from],
  ['toPod', to],
];

export function stepMove(assignment: Assignment, spec: MoveSpec, context: StepContext): AssignmentStep {
  const partition = context.view.partition(spec.partition);
  if (partition === undefined) {
    return stay(assignment, context, [condition('WaitingForRegions', `Partition ${spec.partition} is not known`)]);
  }
  const others = partition.spec.pods.filter(({ name }) => name !== spec.from && name !== spec.to);
  const following: PodAssignment[] = [
    { name: spec.from, type: 'primary' },
    { name: spec.to, type: 'follower' },
    ...others,
  ];
  const flipped: PodAssignment[] = [{ name: spec.from, type: 'proxy' }, { name: spec.to, type: 'primary' }, ...others];
  const moved: PodAssignment[] = [{ name: spec.to, type: 'primary' }, ...others];
  const { phase, aborting } = assignment.status;
  if (aborting) {
    // Before the new primary has the word, the move is taken back; after that, the old one is only let go earlier.
    if (phase === '') {
      return remove(assignment);
    }
    const pods = samePods(partition.spec.pods, following)
      ? [{ name: spec.from, type: 'primary' as const }, ...others]
      : moved;
    const next = withPods(partition, pods);
    // Nobody looks after the move any more: until the new primary leads, the Partition is not served as it says.
    const ready = podOf(partition, primaryOf(next.spec) ?? '') === 'primary';
    return remove(assignment, {
      puts: samePods(partition.spec.pods, pods) ? [] : [{ ...next, status: { ...next.status, ready } }],
    });
  }
  switch (phase) {
    case '': {
      if (!partition.status.ready) {
        return stay(assignment, context, [
          condition('WaitingForRegions', `Partition ${spec.partition} is not served by ${spec.from} yet`),
        ]);
      }
      const status = { phase: 'loading', parts: pair('primary', 'loading'), conditions: [] } as const;
      return change(assignment, status, { puts: [withPods(partition, following)] });
    }
    case 'loading':
      return podOf(partition, spec.to) === 'follower'
        ? change(assignment, { phase: 'following', parts: pair('primary', 'following'), conditions: [] })
        : stay(assignment, context, partition.status.conditions);
    case 'following':
      if (samePods(partition.spec.pods, following)) {
        return podOf(partition, spec.to) === 'follower'
          ? change(assignment, { conditions: [] }, { puts: [withPods(partition, flipped)] })
          : change(assignment, { phase: 'loading', parts: pair('primary', 'loading'), conditions: [] });
      }
      return podOf(partition, spec.to) === 'primary' && podOf(partition, spec.from) !== 'primary'
        ? change(assignment, {
            phase: 'proxying',
            parts: pair('proxy', 'primary'),
            remainingMs: spec.proxyThresholdMs ?? context.facts.config.proxyThresholdMs,
            conditions: [],
          })
        : stay(assignment, context, partition.status.conditions);
    case 'proxying':
      return endMove(assignment, spec, partition, moved, context);
    case 'completed':
      return NOTHING;
  }
}

function endMove(
  assignment: Assignment,
  spec: MoveSpec,
  partition: Partition,
  moved: readonly PodAssignment[],
  context: StepContext,
): AssignmentStep {
  const left = remainingMs(assignment.status, context);
  const thresholdMs = spec.proxyThresholdMs ?? context.facts.config.proxyThresholdMs;
  if (savesRemaining(assignment.status, left, thresholdMs)) {
    return change(assignment, { remainingMs: left });
  }
  if (left > 0) {
    return stay(assignment, context, partition.status.conditions);
  }
  if (!samePods(partition.spec.pods, moved)) {
    return change(assignment, { remainingMs: 0 }, { puts: [withPods(partition, moved)] });
  }
  return podOf(partition, spec.from) === undefined && podOf(partition, spec.to) === 'primary'
    ? change(assignment, { phase: 'completed', parts: pair('disconnected', 'primary'), conditions: [] })
    : stay(assignment, context, partition.status.conditions);
}

// ---------------------------------------------------------------------------------------------------------------- new

export function stepNew(assignment: Assignment, spec: NewSpec, context: StepContext): AssignmentStep {
  const partition = context.view.partition(spec.partition);
  if (partition === undefined) {
    return stay(assignment, context, [condition('WaitingForRegions', `Partition ${spec.partition} is not known`)]);
  }
  const primary = partition.spec.pods.find(({ type }) => type === 'primary')?.name;
  if (primary !== spec.primary) {
    const pods: PodAssignment[] = [
      { name: spec.primary, type: 'primary' },
      ...partition.spec.pods.filter(({ name, type }) => type !== 'primary' && name !== spec.primary),
    ];
    const status = { ...partition.status, ready: false };
    return change(assignment, {}, { puts: [{ ...withPods(partition, pods), status }] });
  }
  return partition.status.ready && podOf(partition, spec.primary) === 'primary'
    ? change(assignment, { phase: 'completed', conditions: [] })
    : stay(assignment, context, partition.status.conditions);
}

// -------------------------------------------------------------------------------------------------------------- split

export function stepSplit(assignment: Assignment, spec: SplitSpec, context: StepContext): AssignmentStep {
  const { view, facts } = context;
  const { status } = assignment;
  const parent = view.partition(spec.partition);
  if (parent === undefined) {
    return stay(assignment, context, [condition('WaitingForRegions', `Partition ${spec.partition} is not known`)]);
  }
  const { range } = parent.spec;
  const region = facts.regionAt(range.start);
  const plan = status.split;
  if (plan === undefined) {
    return parent.status.ready && isSameRange(region, range)
      ? beginSplit(assignment, spec, parent, context)
      : stay(assignment, context, [
          condition('WaitingForRegions', `Partition ${spec.partition} is not served by a region of its own yet`),
        ]);
  }
  const left = { start: range.start, end: spec.splitKey };
  const right = { start: spec.splitKey, end: range.end };
  const isDone =
    isSameRange(region, left) &&
    isSameRange(facts.regionAt(spec.splitKey), right) &&
    region?.leader !== undefined &&
    facts.regionAt(spec.splitKey)?.leader !== undefined;
  if (isDone) {
    return endSplit(assignment, parent, plan, context);
  }
  if (status.aborting && isSameRange(region, range)) {
    const running = region === undefined ? undefined : facts.runningOn(region);
    return region !== undefined && running?.maker === makerOf(assignment)
      ? stay(assignment, context, [], { type: 'cancel', region })
      : remove(assignment, { deletes: [...plan.names] });
  }
  if (status.phase === 'loading') {
    const isReady =
      region?.leader !== undefined &&
      !region.merging &&
      facts.runningOn(region) === undefined &&
      !isInJointState(region.region);
    return isReady && isSameRange(region, range)
      ? change(assignment, {
          phase: 'following',
          parts: plan.names.map((name) => [name, 'following'] as const),
          conditions: [],
        })
      : stay(
          assignment,
          context,
          [condition('WaitingForRegions', 'the region is busy, or its leader is not known')],
          forged([range], context),
        );
  }
  if (region === undefined || !isSameRange(region, range)) {
    return stay(
      assignment,
      context,
      [condition('WaitingForRegions', 'not all parts have a leader that reported yet')],
      forged(status.aborting ? [range] : [left, right], context),
    );
  }
  return facts.runningOn(region) === undefined && region.leader !== undefined
    ? stay(assignment, context, [], { type: 'split', region, keys: [spec.splitKey] })
    : stay(assignment, context, []);
}

/** A split that was under way before the Partition was may leave a border where none belongs: it is taken out again. */
function forged(ranges: readonly KeyRange[], { facts }: StepContext): Wish | undefined {
  for (const range of ranges) {
    const shape = shapeOf(range, facts);
    if (shape.type === 'wish') {
      return shape.wish;
    }
  }
  return undefined;
}

function beginSplit(assignment: Assignment, spec: SplitSpec, parent: Partition, context: StepContext): AssignmentStep {
  const names = splitNames(spec);
  const { range } = parent.spec;
  const encoding = parent.spec.encoding === 'hex' || spec.encoding === 'hex' ? 'hex' : 'text';
  const ranges = [
    { start: range.start, end: spec.splitKey },
    { start: spec.splitKey, end: range.end },
  ];
  const children = ranges.map((own, i) =>
    newPartition(names[i] as string, { ...parent.spec, range: own, encoding }, context.newUid(), context.facts.wallMs),
  );
  return change(
    assignment,
    {
      phase: 'loading',
      main: 'primary',
      parts: names.map((name) => [name, 'loading'] as const),
      split: { range, names },
      conditions: [],
    },
    { puts: children },
  );
}

/** Both halves have reported: the parent's name goes, its parts are served where it was. */
function endSplit(assignment: Assignment, parent: Partition, plan: SplitPlan, { view }: StepContext): AssignmentStep {
  const children = plan.names
    .map((name) => view.partition(name))
    .filter((child): child is Partition => child !== undefined)
    .map((child) => ({ ...child, status: { ...parent.status, ready: parent.status.ready, conditions: [] } }));
  const more = { puts: children, deletes: [parent.meta.name] };
  return assignment.status.phase === 'following' && !assignment.status.aborting
    ? change(
        assignment,
        {
          phase: 'completed',
          main: 'disconnected',
          parts: plan.names.map((name) => [name, 'primary'] as const),
          conditions: [],
        },
        more,
      )
    : assignment.status.aborting
      ? remove(assignment, more)
      : change(assignment, { phase: 'following', parts: plan.names.map((name) => [name, 'following'] as const) });
}
