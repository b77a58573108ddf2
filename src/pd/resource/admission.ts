/**
 * Decides whether a document that makes sense by itself fits the cluster and the other documents, and plans the change
 * that it means. Works on a draft, so that the documents of one file may build on each other; refusing one leaves no trace.
 */
import { formatRange, intersectRanges, isEmptyRange, rangesEqual, rangesOverlap } from '../../base/key-range.ts';
import { compareBytes, escapeKey } from '../../base/bytes.ts';
import { formatBytes } from '../../base/units.ts';
import { type Refusal, refuse } from '../schedule/verdict.ts';
import type { PlacementConfig } from '../defaults.ts';
import type { ParsedDocument } from './parse.ts';
import {
  type Assignment,
  type AssignmentSpec,
  type MergeSpec,
  type Partition,
  type PartitionSpec,
  type Resource,
  type ResourceKind,
  type ResourceMeta,
  NO_ASSIGNMENT_STATUS,
  NO_PARTITION_STATUS,
  isActive,
  partitionsOf,
  primaryOf,
  specsEqual,
} from './resource.ts';
import type { ResourceDraft, ResourceView } from './resource-store.ts';
import type { KeyRange } from '../../base/key-range.ts';

/** What admission has to know about the cluster. */
export interface AdmissionFacts {
  readonly config: PlacementConfig;
  readonly wallMs: number;
  /** Names of all pods, sorted. */
  readonly pods: readonly string[];
  readonly sizeOf: (range: KeyRange) => number;
  /** Keys strictly inside a range at which placement rules change. */
  readonly ruleBordersIn: (range: KeyRange) => readonly Uint8Array[];
  readonly newUid: () => string;
}

export type Outcome = 'created' | 'changed' | 'unchanged' | 'deleted' | 'ending';

export type Admitted =
  | {
      readonly type: 'ok';
      readonly outcome: Outcome;
      readonly before: Resource | undefined;
      readonly after: Resource | undefined;
    }
  | { readonly type: 'refused'; readonly refusal: Refusal };

const no = (refusal: Refusal): Admitted => ({ type: 'refused', refusal });

/** Documents of both kinds together at most. */
export const RESOURCES_MAX = 20_000;

export function admitDocument(draft: ResourceDraft, document: ParsedDocument, facts: AdmissionFacts): Admitted {
  const before = draft.get(document.kind, document.name);
  const refusal = checkVersion(document, before);
  if (refusal !== undefined) {
    return no(refusal);
  }
  if (before !== undefined && specsEqual(before.spec, document.spec)) {
    return { type: 'ok', outcome: 'unchanged', before, after: before };
  }
  if (before === undefined && draft.size >= RESOURCES_MAX) {
    return no(
      refuse('TooManyResources', `there are ${RESOURCES_MAX} documents already`, 'delete completed Assignments'),
    );
  }
  const planned =
    document.kind === 'Partition'
      ? planPartition(draft, document, before as Partition | undefined, facts)
      : planAssignment(draft, document, before as Assignment | undefined, facts);
  if ('code' in planned) {
    return no(planned);
  }
  draft.put(planned);
  return { type: 'ok', outcome: before === undefined ? 'created' : 'changed', before, after: planned };
}

function checkVersion(document: ParsedDocument, before: Resource | undefined): Refusal | undefined {
  const { resourceVersion, uid } = document;
  const isOther = uid !== undefined && before !== undefined && uid !== before.meta.uid;
  const isStale = resourceVersion !== undefined && resourceVersion !== (before?.meta.resourceVersion ?? 0);
  if (!isOther && !isStale) {
    return undefined;
  }
  const path = isOther ? 'metadata.uid' : 'metadata.resourceVersion';
  const now = before === undefined ? 'does not exist' : `has the version ${before.meta.resourceVersion}`;
  return refuse(
    'Conflict',
    `${path} is not the current one: ${document.kind} ${document.name} ${now}`,
    'get the document again and repeat your change, or leave the field out',
    { path, name: document.name, resource_version: before?.meta.resourceVersion ?? 0 },
  );
}

const newMeta = (name: string, facts: AdmissionFacts): ResourceMeta => ({
  name,
  uid: facts.newUid(),
  generation: 1,
  resourceVersion: 0,
  createdWallMs: facts.wallMs,
});

/** A changed spec; the version is given when the change is planned. */
export function withSpec(partition: Partition, spec: PartitionSpec): Partition {
  return { ...partition, spec, meta: { ...partition.meta, generation: partition.meta.generation + 1 } };
}

export const newPartition = (name: string, spec: PartitionSpec, uid: string, wallMs: number): Partition => ({
  kind: 'Partition',
  meta: { name, uid, generation: 1, resourceVersion: 0, createdWallMs: wallMs },
  spec,
  status: NO_PARTITION_STATUS,
});

// --------------------------------------------------------------------------------------------------------- partitions

function planPartition(
  view: ResourceView,
  document: ParsedDocument,
  before: Partition | undefined,
  facts: AdmissionFacts,
): Partition | Refusal {
  const spec = document.spec as PartitionSpec;
  const refusal =
    checkPods(spec, before, facts) ??
    (before === undefined
      ? (checkOverlap(view, document.name, spec.range) ?? checkRuleBorders('spec.range', spec.range, facts))
      : checkChange(view, before, spec));
  if (refusal !== undefined) {
    return refusal;
  }
  if (before !== undefined) {
    const changed = withSpec(before, spec);
    if (before.spec.form !== spec.form) {
      // The other way of writing has another status; it is found anew from what the regions show.
      return { ...changed, status: NO_PARTITION_STATUS };
    }
    const isReady = before.status.ready && primaryOf(before.spec) === primaryOf(spec);
    return { ...changed, status: { ...before.status, ready: isReady } };
  }
  return { kind: 'Partition', meta: newMeta(document.name, facts), spec, status: NO_PARTITION_STATUS };
}

function podPath(spec: PartitionSpec, i: number): string {
  return spec.form === 'pods' ? `spec.assignedPods[${i}].name` : `spec.${spec.pods[i]?.type ?? 'primary'}`;
}

const unknownPod = (path: string, pod: string, facts: AdmissionFacts): Refusal =>
  refuse(
    'UnknownPod',
    `${path} names ${pod}, which is no pod`,
    facts.pods.length === 0
      ? 'give stores a label name=…, for example braid server --labels name=pod1'
      : `pods are the name labels of the stores: ${facts.pods.join(', ')}`,
    { path, pod },
  );

function checkPods(spec: PartitionSpec, before: Partition | undefined, facts: AdmissionFacts): Refusal | undefined {
  for (const [i, pod] of spec.pods.entries()) {
    if (!facts.pods.includes(pod.name)) {
      return unknownPod(podPath(spec, i), pod.name, facts);
    }
  }
  if (primaryOf(spec) !== undefined) {
    return undefined;
  }
  const path = spec.form === 'pods' ? 'spec.assignedPods' : 'spec.primary';
  if (spec.pods.some((pod) => pod.type === 'proxy')) {
    return refuse(
      'InvalidDocument',
      `${spec.form === 'pods' ? path : 'spec.proxy'} has a proxy but nothing it could forward to: a proxy may not be the only copy`,
      'name a primary as well',
      { path: spec.form === 'pods' ? path : 'spec.proxy' },
    );
  }
  if (spec.form === 'pods' || (before !== undefined && primaryOf(before.spec) !== undefined)) {
    return refuse('InvalidDocument', `${path} names no primary`, 'name exactly one primary', { path });
  }
  return undefined;
}

function checkOverlap(view: ResourceView, name: string, range: KeyRange): Refusal | undefined {
  for (const other of view.servingIn(range)) {
    if (other.meta.name !== name) {
      const shared = intersectRanges(other.spec.range, range);
      return refuse(
        'OverlappingRange',
        `spec.range overlaps Partition ${other.meta.name} in ${shared === undefined ? '' : formatRange(shared)}`,
        `choose a range beside ${formatRange(other.spec.range)}, or delete Partition ${other.meta.name} first`,
        { path: 'spec.range', other: other.meta.name },
      );
    }
  }
  // What lies between the parts of a merge is taken in with them, also while the merge waits for its parts.
  for (const assignment of view.activeAssignments()) {
    const held = mergedRangeOf(view, assignment);
    if (held !== undefined && rangesOverlap(held, range)) {
      return refuse(
        'OverlappingRange',
        `spec.range lies in ${formatRange(held)}, which Assignment ${assignment.meta.name} merges`,
        `wait until it has ended, or delete Assignment ${assignment.meta.name} first`,
        { path: 'spec.range', other: assignment.meta.name },
      );
    }
  }
  return undefined;
}

/** From the first to the last part of a merge; undefined for other Assignments, and while a part is not known. */
function mergedRangeOf(view: ResourceView, { spec, status }: Assignment): KeyRange | undefined {
  if (spec.type !== 'InWorkerMerge') {
    return undefined;
  }
  const parts = status.merge === undefined ? sortedParts(view, spec) : undefined;
  const [first, last] = [parts?.[0], parts?.at(-1)];
  return first === undefined || last === undefined
    ? status.merge?.range
    : { start: first.spec.range.start, end: last.spec.range.end };
}

/** A Partition is one region, and a region has one list of placement rules. */
function checkRuleBorders(path: string, range: KeyRange, facts: AdmissionFacts): Refusal | undefined {
  const [border] = facts.ruleBordersIn(range);
  return border === undefined
    ? undefined
    : refuse(
        'RuleBorder',
        `${path}: placement rules change at ${escapeKey(border)}, inside ${formatRange(range)}`,
        'choose a range on one side of it, or change the rules: braid ctl rule list',
        { path },
      );
}

function checkChange(view: ResourceView, before: Partition, spec: PartitionSpec): Refusal | undefined {
  if (!rangesEqual(before.spec.range, spec.range)) {
    return refuse(
      'ImmutableField',
      `spec.range of Partition ${before.meta.name} is ${formatRange(before.spec.range)} and cannot be edited`,
      'split or merge it with an Assignment, or delete it and create another one',
      { path: 'spec.range' },
    );
  }
  return lockedRefusal(view, before.meta.name, 'spec');
}

export function lockedRefusal(view: ResourceView, partition: string, path: string): Refusal | undefined {
  const lock = view.lockOf(partition);
  return lock === undefined
    ? undefined
    : refuse(
        'PartitionBusy',
        `${path}: Partition ${partition} is being changed by Assignment ${lock.meta.name}`,
        `wait until it is completed, or delete Assignment ${lock.meta.name}`,
        { path, assignment: lock.meta.name },
      );
}

// -------------------------------------------------------------------------------------------------------- assignments

function planAssignment(
  view: ResourceView,
  document: ParsedDocument,
  before: Assignment | undefined,
  facts: AdmissionFacts,
): Assignment | Refusal {
  if (before !== undefined) {
    return refuse(
      'ImmutableField',
      `spec of Assignment ${document.name} cannot be edited`,
      'delete it and apply the document again, or give the new one another name',
      { path: 'spec' },
    );
  }
  const spec = document.spec as AssignmentSpec;
  const refusal = checkAssignment(view, document.name, spec, facts);
  return refusal ?? { kind: 'Assignment', meta: newMeta(document.name, facts), spec, status: NO_ASSIGNMENT_STATUS };
}

function checkAssignment(
  view: ResourceView,
  name: string,
  spec: AssignmentSpec,
  facts: AdmissionFacts,
): Refusal | undefined {
  switch (spec.type) {
    case 'New':
      return (
        checkPart(view, spec.partition, 'spec.newParams.partition') ??
        (facts.pods.includes(spec.primary) ? undefined : unknownPod('spec.newParams.primary', spec.primary, facts))
      );
    case 'InWorkerSplit':
      return checkPart(view, spec.partition, 'spec.splitParams.partition') ?? checkSplit(view, spec);
    case 'InWorkerMerge':
      return checkMerge(view, name, spec, facts);
    case 'InterWorkerMove':
      return checkPart(view, spec.partition, 'spec.moveParams.partition') ?? checkMove(view, spec, facts);
  }
}

function checkPart(view: ResourceView, name: string, path: string): Refusal | undefined {
  if (view.partition(name) === undefined) {
    return refuse(
      'ResourceNotFound',
      `${path} names ${name}, and there is no such Partition`,
      'apply the Partition first',
      {
        path,
        partition: name,
      },
    );
  }
  return lockedRefusal(view, name, path);
}

export const splitNames = (spec: Extract<AssignmentSpec, { type: 'InWorkerSplit' }>): readonly [string, string] =>
  spec.names ?? [`${spec.partition}-1`, `${spec.partition}-2`];

function checkSplit(view: ResourceView, spec: Extract<AssignmentSpec, { type: 'InWorkerSplit' }>): Refusal | undefined {
  const range = view.partition(spec.partition)?.spec.range;
  if (range === undefined) {
    return undefined;
  }
  const left = { start: range.start, end: spec.splitKey };
  const right = { start: spec.splitKey, end: range.end };
  const isInside = compareBytes(range.start, spec.splitKey) < 0 && !isEmptyRange(left) && !isEmptyRange(right);
  if (!isInside) {
    return refuse(
      'KeyNotInRegion',
      `spec.splitParams.splitKey does not lie inside Partition ${spec.partition} ${formatRange(range)}`,
      'give a key behind its start and before its end',
      { path: 'spec.splitParams.splitKey' },
    );
  }
  return splitNames(spec)
    .filter((name) => view.partition(name) !== undefined)
    .map((name) => nameTaken('spec.splitParams.names', name))[0];
}

const nameTaken = (path: string, name: string): Refusal =>
  refuse('NameTaken', `${path}: there is a Partition ${name} already`, 'choose other names, or delete it first', {
    path,
    name,
  });

function checkMove(
  view: ResourceView,
  spec: Extract<AssignmentSpec, { type: 'InterWorkerMove' }>,
  facts: AdmissionFacts,
): Refusal | undefined {
  for (const side of ['from', 'to'] as const) {
    if (!facts.pods.includes(spec[side])) {
      return unknownPod(`spec.moveParams.${side}`, spec[side], facts);
    }
  }
  const partition = view.partition(spec.partition);
  const primary = partition === undefined ? undefined : primaryOf(partition.spec);
  return primary === spec.from
    ? undefined
    : refuse(
        'InvalidDocument',
        `spec.moveParams.from is not the primary of Partition ${spec.partition}, ${primary === undefined ? 'which has none' : `${primary} is`}`,
        'move it from its primary',
        { path: 'spec.moveParams.from' },
      );
}

export const mergedNameOf = (assignment: string, spec: MergeSpec): string => spec.mergedName ?? `${assignment}-merged`;

/** Parts in key order; undefined if one of them does not exist. */
export function sortedParts(view: ResourceView, spec: MergeSpec): Partition[] | undefined {
  const parts = spec.partitions.map((name) => view.partition(name));
  if (parts.some((part) => part === undefined)) {
    return undefined;
  }
  return (parts as Partition[]).sort((a, b) => compareBytes(a.spec.range.start, b.spec.range.start));
}

/** Ranges between consecutive parts. */
export function gapsBetween(parts: readonly Partition[]): KeyRange[] {
  const gaps: KeyRange[] = [];
  for (const [i, part] of parts.entries()) {
    const next = parts[i + 1];
    if (next !== undefined) {
      const gap = { start: part.spec.range.end, end: next.spec.range.start };
      if (!isEmptyRange(gap)) {
        gaps.push(gap);
      }
    }
  }
  return gaps;
}

function checkMerge(view: ResourceView, name: string, spec: MergeSpec, facts: AdmissionFacts): Refusal | undefined {
  const path = 'spec.mergeParams.partitions';
  for (const [i, part] of spec.partitions.entries()) {
    const refusal = checkPart(view, part, `${path}[${i}]`);
    if (refusal !== undefined) {
      return refusal;
    }
  }
  const parts = sortedParts(view, spec);
  const [first, last] = [parts?.[0], parts?.at(-1)];
  if (parts === undefined || first === undefined || last === undefined) {
    return undefined;
  }
  const mergedName = mergedNameOf(name, spec);
  if (view.partition(mergedName) !== undefined) {
    return nameTaken('spec.mergeParams.mergedName', mergedName);
  }
  const pods = new Set(parts.map((part) => primaryOf(part.spec)));
  if (spec.strict && pods.size > 1) {
    return refuse(
      'NotOnePod',
      `${path}: the parts are served by ${[...pods].map((pod) => pod ?? 'any pod').join(', ')}`,
      'move them to one pod first, or leave strict out',
      { path },
    );
  }
  return (
    checkGaps(view, spec, parts) ??
    checkRuleBorders(path, { start: first.spec.range.start, end: last.spec.range.end }, facts) ??
    checkSize(spec, { start: first.spec.range.start, end: last.spec.range.end }, facts)
  );
}

function checkGaps(view: ResourceView, spec: MergeSpec, parts: readonly Partition[]): Refusal | undefined {
  const gaps = gapsBetween(parts);
  const path = 'spec.mergeParams.partitions';
  const blockers = gaps.flatMap((gap) => view.servingIn(gap));
  if (blockers.length > 0) {
    const names = blockers.map((other) => other.meta.name).join(', ');
    return refuse(
      'NonAdjacentRanges',
      `${path}: between the parts lies ${blockers.length === 1 ? 'Partition' : 'Partitions'} ${names}`,
      `add ${names} to the list, or merge only what lies side by side`,
      { path, blockers: names },
    );
  }
  if (gaps.length > 0 && spec.gapPolicy === 'reject') {
    const ranges = gaps.map(formatRange).join(', ');
    return refuse(
      'NonAdjacentRanges',
      `${path}: nothing names ${ranges} between the parts, and gapPolicy is reject`,
      'name a Partition there and add it, or write gapPolicy: absorb',
      { path, blockers: ranges },
    );
  }
  return undefined;
}

function checkSize(spec: MergeSpec, range: KeyRange, facts: AdmissionFacts): Refusal | undefined {
  const size = facts.sizeOf(range);
  const { mergedSizeMaxBytes, regionMaxSizeBytes } = facts.config;
  const limit = spec.force ? mergedSizeMaxBytes : Math.min(mergedSizeMaxBytes, regionMaxSizeBytes);
  if (size <= limit) {
    return undefined;
  }
  return refuse(
    'MergedTooLarge',
    `spec.mergeParams.partitions: the parts hold ${formatBytes(size)} together, more than ${formatBytes(limit)}`,
    size <= mergedSizeMaxBytes
      ? 'write force: true to keep the result in one region all the same'
      : 'merge fewer parts: no region may become as large',
    { path: 'spec.mergeParams.partitions', limit },
  );
}

// ----------------------------------------------------------------------------------------------------------- deleting

/** Plans a deletion. An Assignment that cannot be taken back ends by itself after the step that runs. */
export function admitDelete(
  draft: ResourceDraft,
  kind: ResourceKind,
  name: string,
  expectVersion: number,
  canEndNow: (assignment: Assignment) => boolean,
): Admitted {
  const before = draft.get(kind, name);
  if (before === undefined) {
    return no(
      refuse('ResourceNotFound', `there is no ${kind} ${name}`, `list them with "ctl get ${kind.toLowerCase()}"`),
    );
  }
  if (expectVersion !== 0 && expectVersion !== before.meta.resourceVersion) {
    return no(
      refuse(
        'Conflict',
        `${kind} ${name} has the version ${before.meta.resourceVersion}, not ${expectVersion}`,
        'look at it again',
        {
          resource_version: before.meta.resourceVersion,
        },
      ),
    );
  }
  if (before.kind === 'Partition') {
    const refusal = lockedRefusal(draft, name, 'metadata.name');
    if (refusal !== undefined) {
      return no(refusal);
    }
  } else if (isActive(before) && !canEndNow(before)) {
    const after: Assignment = { ...before, status: { ...before.status, aborting: true } };
    if (!before.status.aborting) {
      draft.put(after);
    }
    return { type: 'ok', outcome: 'ending', before, after };
  }
  draft.delete(kind, name);
  return { type: 'ok', outcome: 'deleted', before, after: undefined };
}

export const namesPartition = (assignment: Assignment, partition: string): boolean =>
  partitionsOf(assignment).includes(partition);
