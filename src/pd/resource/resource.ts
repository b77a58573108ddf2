/**
 * Partition and Assignment documents as the placement service keeps them. A Partition names a range and the pods that
 * serve it; an Assignment is one wanted transition. Users write specs, only the placement service writes status. Values
 * are immutable; every change makes a new one with a larger resource version.
 */
import type { KeyRange } from '../../base/key-range.ts';
import { rangesEqual } from '../../base/key-range.ts';
import type { Author } from '../cluster/events.ts';

export const RESOURCE_KINDS = ['Partition', 'Assignment'] as const;
export type ResourceKind = (typeof RESOURCE_KINDS)[number];

/** Everything that can be written as a document: also what is set for the placement service itself. */
export const DOCUMENT_KINDS = ['Partition', 'Assignment', 'PlacementRule', 'Scheduler', 'Config'] as const;
export type DocumentKind = (typeof DOCUMENT_KINDS)[number];

export interface ResourceMeta {
  readonly name: string;
  /** Never used twice, also when a document of this name is deleted and created again. */
  readonly uid: string;
  /** Grows with every change of the spec. */
  readonly generation: number;
  /** Grows with every change; unique over all documents of the cluster. 0 before it was written. */
  readonly resourceVersion: number;
  readonly createdWallMs: number;
  /** Who made the latest change that was asked for, and why; undefined for documents the service made itself. */
  readonly author?: Author;
}

/** Something worth knowing about a document at the moment. Present means true. */
export interface Condition {
  readonly type: ConditionType;
  readonly message: string;
}

export const CONDITION_TYPES = [
  // Its regions are not all known, have no leader, or still have to be split or merged.
  'WaitingForRegions',
  // A pod that is to become primary, or a replica a merge needs, does not hold the data yet.
  'NotCaughtUp',
  // A region or a store it needs is not healthy.
  'Unhealthy',
  // The operator it needs was refused; the message says why. It is tried again.
  'Blocked',
  // An operator failed; the next try waits a little.
  'Retrying',
  // Too many operators failed; `retry assignment` starts again.
  'Stalled',
  // Unnamed regions between the parts belong to the merged part as well.
  'AbsorbedRanges',
  // It was deleted while it could not be taken back; it ends after the step that runs.
  'Aborting',
  // A pod left the document but keeps an ordinary replica, because there is no other store for it.
  'ReplicaKept',
] as const;
export type ConditionType = (typeof CONDITION_TYPES)[number];

// -------------------------------------------------------------------------------------------------------- partitions

export type PodRole = 'primary' | 'follower' | 'proxy';
export type PodStatus = 'starting' | 'follower' | 'primary' | 'proxy' | 'unassigning';
export type KeyEncoding = 'text' | 'hex';

export interface PodAssignment {
  /** The `name` label of a store. */
  readonly name: string;
  readonly type: PodRole;
}

export interface PartitionSpec {
  /** How it was written: `primary`/`proxy`, or `assignedPods`. Decides how spec and status are shown. */
  readonly form: 'primary' | 'pods';
  readonly range: KeyRange;
  readonly encoding: KeyEncoding;
  readonly pods: readonly PodAssignment[];
}

export interface PartitionStatus {
  /** One region has exactly the range and is served where the spec says. */
  readonly ready: boolean;
  /** What each pod has become, in the order in which they came. */
  readonly pods: readonly (readonly [pod: string, status: PodStatus])[];
  readonly conditions: readonly Condition[];
}

export interface Partition {
  readonly kind: 'Partition';
  readonly meta: ResourceMeta;
  readonly spec: PartitionSpec;
  readonly status: PartitionStatus;
}

// ------------------------------------------------------------------------------------------------------- assignments

export const ASSIGNMENT_TYPES = ['New', 'InWorkerSplit', 'InWorkerMerge', 'InterWorkerMove'] as const;
export type AssignmentType = (typeof ASSIGNMENT_TYPES)[number];

export interface NewSpec {
  readonly type: 'New';
  readonly partition: string;
  readonly primary: string;
}

export interface SplitSpec {
  readonly type: 'InWorkerSplit';
  readonly partition: string;
  readonly splitKey: Uint8Array;
  readonly encoding: KeyEncoding;
  /** Names of the left and the right part. */
  readonly names: readonly [left: string, right: string] | undefined;
}

export type GapPolicy = 'absorb' | 'reject';

export interface MergeSpec {
  readonly type: 'InWorkerMerge';
  readonly partitions: readonly string[];
  readonly mergedName: string | undefined;
  readonly gapPolicy: GapPolicy | undefined;
  /** Refuse parts whose primaries are on different pods instead of moving leadership. */
  readonly strict: boolean;
  /** Also merge what is large enough to be split again; the result stays in one region. */
  readonly force: boolean;
  /** Undefined takes the cluster's. */
  readonly proxyThresholdMs: number | undefined;
}

export interface MoveSpec {
  readonly type: 'InterWorkerMove';
  readonly partition: string;
  readonly from: string;
  readonly to: string;
  readonly proxyThresholdMs: number | undefined;
}

export type AssignmentSpec = NewSpec | SplitSpec | MergeSpec | MoveSpec;

/** Empty until the transition was planned. */
export type Phase = '' | 'loading' | 'following' | 'proxying' | 'completed';

export interface MergePlan {
  readonly mergedName: string;
  /** From the first part's start to the last part's end. */
  readonly range: KeyRange;
  /** Where the merged part is served. */
  readonly pod: string;
  /** In key order. */
  readonly parts: readonly { readonly name: string; readonly range: KeyRange }[];
  /** The part whose region takes in all others. */
  readonly target: string;
  readonly absorbed: readonly KeyRange[];
  /** Regions that end in the target, and the target itself: stores redirect requests for them. Known from `following` on. */
  readonly regions: readonly number[];
}

export interface SplitPlan {
  readonly range: KeyRange;
  readonly names: readonly [left: string, right: string];
}

/** Counts failures, so that a restarted service goes on where the last one was. */
export interface Tries {
  readonly failures: number;
  /** Wall clock before which nothing is tried. */
  readonly retryAtWallMs: number;
  /** The latest operator that was counted. */
  readonly lastOperatorId: number;
  readonly reason: string;
}

export const NO_TRIES: Tries = { failures: 0, retryAtWallMs: 0, lastOperatorId: 0, reason: '' };

export interface AssignmentStatus {
  readonly phase: Phase;
  /** `mergedPart` of a merge, `fromPart` of a split; of a move the two pods are in `parts`. */
  readonly main: string;
  /** `subParts` of a merge, `splits` of a split, `fromPod` and `toPod` of a move. */
  readonly parts: readonly (readonly [name: string, state: string])[];
  readonly merge: MergePlan | undefined;
  readonly split: SplitPlan | undefined;
  /** Time for which old routes are still served, as of the last write. */
  readonly remainingMs: number;
  readonly tries: Tries;
  /** Deleted by a user after it could not be taken back. */
  readonly aborting: boolean;
  readonly conditions: readonly Condition[];
}

export interface Assignment {
  readonly kind: 'Assignment';
  readonly meta: ResourceMeta;
  readonly spec: AssignmentSpec;
  readonly status: AssignmentStatus;
}

export type Resource = Partition | Assignment;

export const NO_PARTITION_STATUS: PartitionStatus = { ready: false, pods: [], conditions: [] };

export const NO_ASSIGNMENT_STATUS: AssignmentStatus = {
  phase: '',
  main: '',
  parts: [],
  merge: undefined,
  split: undefined,
  remainingMs: 0,
  tries: NO_TRIES,
  aborting: false,
  conditions: [],
};

export const resourceKey = (kind: ResourceKind, name: string): string => `${kind}/${name}`;

export const primaryOf = (spec: PartitionSpec): string | undefined =>
  spec.pods.find((pod) => pod.type === 'primary')?.name;

/** Whether a Partition is served just as its spec says. */
export function isServed({ spec, status }: Partition): boolean {
  if (spec.form === 'primary') {
    return status.ready;
  }
  const now = new Map(status.pods);
  return status.ready && now.size === spec.pods.length && spec.pods.every(({ name, type }) => now.get(name) === type);
}

export const isActive = (assignment: Assignment): boolean => assignment.status.phase !== 'completed';

/** Partitions an Assignment is about, those it makes included. */
export function partitionsOf({ spec, status }: Assignment): readonly string[] {
  switch (spec.type) {
    case 'InWorkerMerge':
      return status.merge === undefined ? spec.partitions : [...spec.partitions, status.merge.mergedName];
    case 'InWorkerSplit':
      return status.split === undefined ? [spec.partition] : [spec.partition, ...status.split.names];
    case 'New':
    case 'InterWorkerMove':
      return [spec.partition];
  }
}

/** Partitions that an active Assignment has made and that are not served yet; they overlap those they come from. */
export function hiddenPartitionsOf({ spec, status }: Assignment): readonly string[] {
  if (status.phase === 'completed') {
    return [];
  }
  if (spec.type === 'InWorkerMerge') {
    return status.merge === undefined ? [] : [status.merge.mergedName];
  }
  return spec.type === 'InWorkerSplit' && status.split !== undefined ? status.split.names : [];
}

/** Whether two specs wish the same; how keys were written does not count. */
export function specsEqual(a: Resource['spec'], b: Resource['spec']): boolean {
  return canonical(a) === canonical(b);
}

export function partitionSpecsEqual(a: PartitionSpec, b: PartitionSpec): boolean {
  return rangesEqual(a.range, b.range) && canonical(a) === canonical(b);
}

const canonical = (spec: object): string => {
  const { encoding: _encoding, ...rest } = spec as Record<string, unknown>;
  return toJson(rest);
};

export const conditionsEqual = (a: readonly Condition[], b: readonly Condition[]): boolean =>
  a.length === b.length && a.every((x, i) => x.type === b[i]?.type && x.message === b[i]?.message);

// ---------------------------------------------------------------------------------------------------- stored form

/** JSON in which bytes are `{"$hex": "…"}`. Fields are written in sorted order, so that equal values give equal text. */
export function toJson(value: unknown): string {
  return JSON.stringify(pack(value));
}

export function fromJson(text: string): unknown {
  return unpack(JSON.parse(text));
}

function pack(value: unknown): unknown {
  if (value instanceof Uint8Array) {
    return { $hex: Buffer.from(value.buffer, value.byteOffset, value.length).toString('hex') };
  }
  if (Array.isArray(value)) {
    return value.map(pack);
  }
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value)
        .filter(([, field]) => field !== undefined)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, field]) => [name, pack(field)]),
    );
  }
  return value;
}

function unpack(value: unknown): unknown {
  if (Array.isArray(value)) {
    return value.map(unpack);
  }
  if (typeof value === 'object' && value !== null) {
    const { $hex } = value as { readonly $hex?: unknown };
    if (typeof $hex === 'string') {
      return new Uint8Array(Buffer.from($hex, 'hex'));
    }
    return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, unpack(field)]));
  }
  return value;
}
