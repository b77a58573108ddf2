/** What the phases of all Assignments share: how a step is described, conditions, and the rest of the proxy time. */
import type { Facts } from './facts.ts';
import { type Wish, condition } from './partition-phase.ts';
import {
  type Assignment,
  type AssignmentStatus,
  type Condition,
  type Partition,
  type PartitionSpec,
  type Resource,
  type ResourceKind,
  conditionsEqual,
} from './resource.ts';
import type { ResourceView } from './resource-store.ts';

/** What stores do about requests for regions that are gone; see the redirects of `docs/merge.md`. */
export interface Redirects {
  /** Asks all live stores to forget their redirects of these regions. Idempotent. */
  retire(regions: readonly number[]): void;
  /** Whether all live stores have. A store that is down, or knows no redirects, has nothing to forget. */
  areRetired(regions: readonly number[]): boolean;
}

export interface StepContext {
  readonly view: ResourceView;
  readonly facts: Facts;
  readonly redirects: Redirects;
  readonly newUid: () => string;
  /** Time since the document's remaining time was last written, or since this process first saw it. */
  readonly sinceSavedMs: number;
  /** The operator it wished for was refused several times in a row. */
  readonly blocked: Condition | undefined;
}

/** Puts and deletes are written together; the wish is carried out only when there is nothing to write. */
export interface AssignmentStep {
  readonly puts: readonly Resource[];
  readonly deletes: readonly { readonly kind: ResourceKind; readonly name: string }[];
  readonly wish?: Wish | undefined;
}

export const NOTHING: AssignmentStep = { puts: [], deletes: [] };

/** The Assignment with a changed status and all that is written with it. */
export function change(
  assignment: Assignment,
  status: Partial<AssignmentStatus>,
  more: { readonly puts?: readonly Resource[]; readonly deletes?: readonly string[] } = {},
): AssignmentStep {
  const next: Assignment = { ...assignment, status: { ...assignment.status, ...status } };
  return {
    puts: [next, ...(more.puts ?? [])],
    deletes: (more.deletes ?? []).map((name) => ({ kind: 'Partition' as const, name })),
  };
}

/** Ends an Assignment that was deleted. */
export function remove(
  assignment: Assignment,
  more: { readonly puts?: readonly Resource[]; readonly deletes?: readonly string[] } = {},
): AssignmentStep {
  return {
    puts: more.puts ?? [],
    deletes: [
      { kind: 'Assignment', name: assignment.meta.name },
      ...(more.deletes ?? []).map((name) => ({ kind: 'Partition' as const, name })),
    ],
  };
}

/** Failures in a row after which only a user starts an Assignment again. */
export const FAILURES_MAX = 10;
const BACKOFF_MS = 1_000;
const BACKOFF_MS_MAX = 60_000;

export const backoffMs = (failures: number): number =>
  Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** Math.max(0, failures - 1));

/** Why nothing may be tried at the moment. */
function restOf({ tries }: AssignmentStatus, facts: Facts): Condition | undefined {
  if (tries.failures >= FAILURES_MAX) {
    return condition('Stalled', `${tries.failures} operators failed, the last one: ${tries.reason}`);
  }
  return tries.retryAtWallMs > facts.wallMs
    ? condition('Retrying', `operator ${tries.lastOperatorId} failed: ${tries.reason}`)
    : undefined;
}

/** Conditions that stay for the whole life of an Assignment. */
function lasting({ status }: Assignment): Condition[] {
  const conditions: Condition[] = [];
  if (status.aborting) {
    conditions.push(condition('Aborting', 'it was deleted and ends after the step that runs'));
  }
  return conditions;
}

/** Stays in its phase: says what it waits for, or wishes for an operator unless that has to rest. */
export function stay(
  assignment: Assignment,
  { facts, blocked }: StepContext,
  conditions: readonly Condition[],
  wish?: Wish,
): AssignmentStep {
  const rest = wish === undefined ? undefined : (restOf(assignment.status, facts) ?? blocked);
  const isResting = rest !== undefined && rest !== blocked;
  const all = [...lasting(assignment), ...conditions, ...(rest === undefined ? [] : [rest])];
  if (!conditionsEqual(all, assignment.status.conditions)) {
    const written = change(assignment, { conditions: all });
    return written;
  }
  return isResting ? NOTHING : { ...NOTHING, wish };
}

/** How long old routes are still served, after the time that has passed since it was written. */
export function remainingMs(status: AssignmentStatus, context: StepContext): number {
  return Math.max(0, status.remainingMs - Math.max(0, Math.floor(context.sinceSavedMs)));
}

/** The remaining time is written in steps, so that a restarted service goes on counting where the last one was. */
export function savesRemaining(status: AssignmentStatus, now: number, thresholdMs: number): boolean {
  const step = Math.min(5_000, Math.max(200, thresholdMs / 12));
  return now < status.remainingMs && (now === 0 || status.remainingMs - now >= step);
}

/** A Partition with another spec. */
export const respecified = (partition: Partition, spec: PartitionSpec, ready: boolean): Partition => ({
  ...partition,
  spec,
  meta: { ...partition.meta, generation: partition.meta.generation + 1 },
  status: { ...partition.status, ready, conditions: [] },
});
