/**
 * Makes documents true, step by step: looks at a document and at the region map, writes what changed, and only when
 * nothing is to be written asks for an operator. Level-triggered: nothing it needs after a restart is kept here.
 */
import type { Clock } from '../../env/clock.ts';
import type { OperatorController } from '../schedule/operator/controller.ts';
import type { Maker, OperatorFactory } from '../schedule/operator/create.ts';
import type { Operator } from '../schedule/operator/operator.ts';
import type { OperatorGroup } from '../schedule/operator/waiting-queue.ts';
import { type Refusal, type Result, ok } from '../schedule/verdict.ts';
import {
  type AssignmentStep,
  NOTHING,
  type Redirects,
  type StepContext,
  backoffMs,
  change,
} from './assignment-step.ts';
import type { ClusterFacts } from './facts.ts';
import { makerOf, stepMerge } from './merge-phase.ts';
import { stepMove, stepNew, stepSplit } from './move-phase.ts';
import { type Wish, condition, stepPartition } from './partition-phase.ts';
import { type Assignment, type Condition, type Partition, type Resource } from './resource.ts';
import { type ResourceChange, ResourceDraft } from './resource-store.ts';
import type { Resources } from './resources.ts';

export interface ReconcilerOptions {
  readonly resources: Resources;
  readonly controller: OperatorController;
  readonly factory: OperatorFactory;
  readonly clock: Pick<Clock, 'monoMs'>;
  readonly redirects: Redirects;
}

/** Partitions looked at per round, of those at rest and of the others. Also bounds what is written in one piece. */
const PARTITIONS_PER_ROUND_MAX = 256;
/** Documents whose refusals are remembered. */
const BLOCKED_MAX = 1_024;
/** Refusals in a row after which a document says so. */
const BLOCKED_AFTER = 5;

interface Blocked {
  readonly refusal: Refusal;
  readonly times: number;
}

/** Takes a bounded number of items per round, others the next time. */
class RoundRobin {
  #next = 0;

  *take<T>(items: readonly T[]): Iterable<T> {
    for (let i = 0; i < Math.min(PARTITIONS_PER_ROUND_MAX, items.length); i++) {
      yield items[this.#next++ % items.length] as T;
    }
    this.#next %= Math.max(1, items.length);
  }
}

export class Reconciler {
  readonly #resources: Resources;
  readonly #controller: OperatorController;
  readonly #factory: OperatorFactory;
  readonly #clock: ReconcilerOptions['clock'];
  readonly #redirects: Redirects;
  /** When the remaining time of a document was last written, monotonic; for those this process has seen. */
  readonly #savedAtMs = new Map<string, { readonly remainingMs: number; readonly atMs: number }>();
  readonly #blocked = new Map<string, Blocked>();
  readonly #settled = new RoundRobin();
  readonly #unsettled = new RoundRobin();

  constructor(options: ReconcilerOptions) {
    this.#resources = options.resources;
    this.#controller = options.controller;
    this.#factory = options.factory;
    this.#clock = options.clock;
    this.#redirects = options.redirects;
  }

  /** Whether there is anything to look at. */
  get isIdle(): boolean {
    return this.#resources.store.version === 0;
  }

  /**
   * One look at the documents that may need something. What is to be written comes back as one change; operators that
   * the others wished for were started.
   */
  round(): ResourceChange | undefined {
    const { store } = this.#resources;
    const facts = this.#resources.facts();
    const draft = new ResourceDraft(store);
    const touched = new Set<string>();
    for (const resource of this.#due()) {
      const step = this.#step(resource, facts);
      const names = [
        ...step.puts.map((put) => `${put.kind}/${put.meta.name}`),
        ...step.deletes.map(({ kind, name }) => `${kind}/${name}`),
      ];
      // Two documents that want to change a third one take turns.
      if (names.length > 0) {
        if (!names.some((name) => touched.has(name))) {
          step.puts.forEach((put) => draft.put(put));
          step.deletes.forEach(({ kind, name }) => draft.delete(kind, name));
          names.forEach((name) => touched.add(name));
        }
      } else if (step.wish !== undefined) {
        this.#carryOut(resource, step.wish, facts);
      }
    }
    return draft.change();
  }

  *#due(): Iterable<Resource> {
    const { store } = this.#resources;
    const active = store.activeAssignments();
    this.#forget(active);
    yield* active;
    // Splits and merges hold the Partitions they are about; of a move the Partition itself does the work.
    const held = new Set(
      active.flatMap(({ spec, status }) =>
        spec.type === 'InWorkerMerge'
          ? status.merge === undefined
            ? []
            : [...spec.partitions, status.merge.mergedName]
          : spec.type === 'InWorkerSplit' && status.split !== undefined
            ? [spec.partition, ...status.split.names]
            : [],
      ),
    );
    const partitions = store.partitions().filter(({ meta }) => !held.has(meta.name));
    const settled = partitions.filter((partition) => isSettled(partition));
    const unsettled = partitions.filter((partition) => !isSettled(partition));
    yield* this.#unsettled.take(unsettled);
    yield* this.#settled.take(settled);
  }

  /** Only documents that are still there are remembered. */
  #forget(active: readonly Assignment[]): void {
    const uids = new Set(active.map(({ meta }) => meta.uid));
    for (const uid of this.#savedAtMs.keys()) {
      if (!uids.has(uid)) {
        this.#savedAtMs.delete(uid);
      }
    }
    if (this.#blocked.size > BLOCKED_MAX) {
      this.#blocked.clear();
    }
  }

  #step(resource: Resource, facts: ClusterFacts): AssignmentStep {
    if (resource.kind === 'Partition') {
      const { status, wish } = stepPartition(resource, facts);
      const blocked = wish === undefined ? undefined : this.#blockedCondition(resource);
      const next = blocked === undefined ? status : { ...status, conditions: [...status.conditions, blocked] };
      const changed = JSON.stringify(next) !== JSON.stringify(resource.status);
      return changed ? { puts: [{ ...resource, status: next }], deletes: [] } : { ...NOTHING, wish };
    }
    const counted = this.#countEnded(resource, facts);
    if (counted !== undefined) {
      return counted;
    }
    const context: StepContext = {
      view: this.#resources.store,
      facts,
      redirects: this.#redirects,
      newUid: () => this.#resources.newUid(),
      sinceSavedMs: this.#sinceSaved(resource),
      blocked: this.#blockedCondition(resource),
    };
    const { spec } = resource;
    switch (spec.type) {
      case 'InWorkerMerge':
        return stepMerge(resource, spec, context);
      case 'InterWorkerMove':
        return stepMove(resource, spec, context);
      case 'New':
        return stepNew(resource, spec, context);
      case 'InWorkerSplit':
        return stepSplit(resource, spec, context);
    }
  }

  #sinceSaved({ meta, status }: Assignment): number {
    const nowMs = this.#clock.monoMs();
    const known = this.#savedAtMs.get(meta.uid);
    if (known === undefined || known.remainingMs !== status.remainingMs) {
      this.#savedAtMs.set(meta.uid, { remainingMs: status.remainingMs, atMs: nowMs });
      return 0;
    }
    return nowMs - known.atMs;
  }

  #blockedCondition({ meta }: Resource): Condition | undefined {
    const blocked = this.#blocked.get(meta.uid);
    return blocked === undefined || blocked.times < BLOCKED_AFTER
      ? undefined
      : condition('Blocked', `${blocked.refusal.code}: ${blocked.refusal.message}`);
  }

  /** Counts operators of the Assignment that ended since the last one that was counted. */
  #countEnded(assignment: Assignment, facts: ClusterFacts): AssignmentStep | undefined {
    const maker = makerOf(assignment);
    const { tries } = assignment.status;
    const ended = this.#controller.history().find((operator) => operator.maker === maker && isCounted(operator));
    if (ended === undefined || ended.id <= tries.lastOperatorId) {
      return undefined;
    }
    if (ended.status === 'success') {
      return tries.failures === 0
        ? undefined
        : change(assignment, { tries: { failures: 0, retryAtWallMs: 0, lastOperatorId: ended.id, reason: '' } });
    }
    const failures = tries.failures + 1;
    const retryAtWallMs = facts.wallMs + backoffMs(failures);
    const reason = ended.reason?.text ?? ended.status;
    return change(assignment, { tries: { failures, retryAtWallMs, lastOperatorId: ended.id, reason } });
  }

  // ---------------------------------------------------------------------------------------------------------- wishes

  #carryOut(resource: Resource, wish: Wish, facts: ClusterFacts): void {
    const refusal = this.#submit(wish, { name: makerOf(resource), kind: 'admin', priority: 'high' }, facts);
    const { uid } = resource.meta;
    if (refusal === undefined) {
      this.#blocked.delete(uid);
    } else {
      this.#blocked.set(uid, { refusal, times: (this.#blocked.get(uid)?.times ?? 0) + 1 });
    }
  }

  #submit(wish: Wish, maker: Maker, facts: ClusterFacts): Refusal | undefined {
    const made = this.#make(wish, maker, facts);
    if (made.type === 'refused') {
      return made.refusal;
    }
    return made.value === undefined ? undefined : this.#controller.submit(made.value);
  }

  #make(wish: Wish, maker: Maker, facts: ClusterFacts): Result<OperatorGroup | undefined> {
    switch (wish.type) {
      case 'split':
        return this.#factory.split(wish.region, wish.keys, maker);
      case 'merge':
        return this.#factory.merge(wish.source, wish.target, maker);
      case 'transfer':
        return this.#factory.transferLeader(wish.region, wish.to, maker);
      case 'reshape':
        return this.#factory.reshape(wish.region, wish.wanted, wish.brief, maker);
      case 'replace': {
        const target = facts.spareStore(wish.region, wish.store);
        return target.type === 'refused' ? target : this.#factory.move(wish.region, wish.store, target.value, maker);
      }
      case 'cancel': {
        const running = this.#controller.runningOn(wish.region.region.id);
        if (running !== undefined) {
          this.#controller.cancel(running, { code: 'AdminStop', text: `${maker.name} was deleted`, hint: '' });
        }
        return ok(undefined);
      }
    }
  }
}

/** Operators that were replaced or canceled on purpose say nothing about whether the next one would work. */
const isCounted = (operator: Operator): boolean =>
  operator.status !== 'replaced' && !(operator.status === 'canceled' && operator.reason?.code === 'AdminStop');

const isSettled = ({ status }: Partition): boolean =>
  status.ready &&
  status.conditions.length === 0 &&
  !status.pods.some(([, value]) => value === 'unassigning' || value === 'starting');
