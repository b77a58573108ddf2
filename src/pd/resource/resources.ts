/**
 * Partition and Assignment documents of a cluster: takes documents in, plans what they change, says which regions they
 * hold, and reconciles. Synchronous; the owner writes a planned change and hands it back through `store.apply`.
 */
import type { RegionId, StoreId } from '../../base/ids.ts';
import { rangesEqual, rangesOverlap } from '../../base/key-range.ts';
import type { Clock } from '../../env/clock.ts';
import type { Rng } from '../../env/rng.ts';
import type { Cluster, RegionClaims } from '../cluster/cluster.ts';
import type { Author } from '../cluster/events.ts';
import { Pauses } from '../cluster/pauses.ts';
import type { RegionInfo } from '../cluster/region-info.ts';
import type { OperatorController } from '../schedule/operator/controller.ts';
import type { Operator } from '../schedule/operator/operator.ts';
import type { RuleSet } from '../schedule/placement/rule-set.ts';
import { type Refusal, refuse, versionConflict } from '../schedule/verdict.ts';
import { type Admitted, type Outcome, admitDelete, admitDocument } from './admission.ts';
import { ClusterFacts } from './facts.ts';
import { parseDocument } from './parse.ts';
import {
  type Assignment,
  NO_TRIES,
  type Partition,
  RESOURCE_KINDS,
  type Resource,
  type ResourceKind,
} from './resource.ts';
import { type ResourceChange, ResourceDraft, ResourceStore } from './resource-store.ts';

/** Documents taken in one request at most. */
export const DOCUMENTS_PER_REQUEST_MAX = 1_000;
/** Makers of operators that documents ask for start with this. */
export const DOCUMENT_MAKERS = ['partition/', 'assignment/'] as const;

export interface DocumentResult<D = Resource> {
  readonly kind: string;
  readonly name: string;
  readonly outcome: Outcome | 'refused' | 'skipped';
  readonly refusal: Refusal | undefined;
  readonly warnings: readonly string[];
  readonly before: D | undefined;
  readonly after: D | undefined;
}

/** What a request means. With a refusal nothing is to be changed. */
export interface DocumentPlan {
  readonly refusal: Refusal | undefined;
  readonly results: readonly DocumentResult[];
  readonly change: ResourceChange | undefined;
}

export interface ResourcesOptions {
  readonly cluster: Cluster;
  readonly controller: OperatorController;
  readonly clock: Pick<Clock, 'monoMs' | 'wallMs'>;
  readonly rng: Rng;
}

export class Resources implements RegionClaims {
  readonly store: ResourceStore = new ResourceStore();
  readonly pauses: Pauses;
  readonly #cluster: Cluster;
  readonly #controller: OperatorController;
  readonly #clock: ResourcesOptions['clock'];
  readonly #rng: Rng;
  /** Pinned by administrators. */
  #pins: ReadonlySet<RegionId> = new Set();

  constructor(options: ResourcesOptions) {
    this.#cluster = options.cluster;
    this.#controller = options.controller;
    this.#clock = options.clock;
    this.#rng = options.rng;
    this.pauses = new Pauses(options.clock);
  }

  facts(): ClusterFacts {
    const wallMs = Math.max(0, Math.floor(this.#clock.wallMs()));
    return new ClusterFacts(this.#cluster, this.#controller, { wallMs, monoMs: this.#clock.monoMs() });
  }

  /** The version it is created on is a part of it: a later leader of this process draws the same random numbers again. */
  newUid(): string {
    const words = Array.from({ length: 3 }, () => this.#rng.u32().toString(16).padStart(8, '0'));
    return `${(this.store.version + 1).toString(16).padStart(8, '0')}${words.join('')}`;
  }

  // -------------------------------------------------------------------------------------------------- documents in

  /**
   * All documents or none: the first refusal makes the whole request fail.
   * @param rules the placement rules as they are to be, if the same request changes them
   */
  planApply(documents: readonly unknown[], author?: Author, rules: RuleSet = this.#cluster.rules): DocumentPlan {
    const tooMany = refusalOfCount(documents.length);
    if (tooMany !== undefined) {
      return { refusal: tooMany, results: [], change: undefined };
    }
    const draft = new ResourceDraft(this.store);
    const facts = this.facts();
    const admission = {
      config: facts.config,
      wallMs: facts.wallMs,
      pods: facts.pods,
      sizeOf: (range: Parameters<ClusterFacts['sizeOf']>[0]) => facts.sizeOf(range),
      ruleBordersIn: (range: Parameters<ClusterFacts['sizeOf']>[0]) => rules.bordersIn(range),
      newUid: () => this.newUid(),
    };
    const results = documents.map((document): DocumentResult => {
      const parsed = parseDocument(document);
      if (parsed.type === 'refused') {
        return {
          ...nameLike(document),
          outcome: 'refused',
          refusal: parsed.refusal,
          warnings: [],
          before: undefined,
          after: undefined,
        };
      }
      const { kind, name, warnings } = parsed.value;
      return { kind, name, warnings, ...resultOf(admitDocument(draft, parsed.value, admission)) };
    });
    return planOf(authored(results, draft, author), draft);
  }

  planDelete(kind: string, name: string, expectVersion: number, author?: Author): DocumentPlan {
    const known = RESOURCE_KINDS.find((candidate) => candidate.toLowerCase() === kind.toLowerCase());
    if (known === undefined) {
      const refusal = refuse(
        'UnknownKind',
        `${kind} is not a kind of document`,
        `kinds are ${RESOURCE_KINDS.join(', ')}`,
      );
      return { refusal, results: [], change: undefined };
    }
    const draft = new ResourceDraft(this.store);
    // A transition that was not planned yet has touched nothing; the others are taken back by their reconciler.
    const admitted = admitDelete(
      draft,
      known,
      name,
      expectVersion,
      ({ spec, status }) => status.phase === '' || spec.type === 'New',
    );
    const results = [{ kind: known, name, warnings: [], ...resultOf(admitted) }];
    return planOf(authored(results, draft, author), draft);
  }

  /**
   * Forgets the failures of an Assignment, so that it goes on at once.
   * @param expectVersion refused unless it has this version; 0 = whatever it has
   */
  planRetry(name: string, author?: Author, expectVersion = 0): DocumentPlan {
    const draft = new ResourceDraft(this.store);
    const before = this.store.assignment(name);
    let admitted: Admitted;
    if (before === undefined) {
      admitted = { type: 'refused', refusal: resourceNotFound('Assignment', name) };
    } else if (expectVersion !== 0 && expectVersion !== before.meta.resourceVersion) {
      const { resourceVersion } = before.meta;
      admitted = { type: 'refused', refusal: versionConflict(`Assignment ${name}`, resourceVersion, expectVersion) };
    } else if (before.status.tries.failures === 0) {
      admitted = {
        type: 'refused',
        refusal: refuse(
          'NotStalled',
          `Assignment ${name} has not failed`,
          `look at it with "ctl describe assignment ${name}"`,
        ),
      };
    } else {
      const { lastOperatorId } = before.status.tries;
      const after: Assignment = { ...before, status: { ...before.status, tries: { ...NO_TRIES, lastOperatorId } } };
      draft.put(after);
      admitted = { type: 'ok', outcome: 'changed', before, after };
    }
    const results = [{ kind: 'Assignment', name, warnings: [], ...resultOf(admitted) }];
    return planOf(authored(results, draft, author), draft);
  }

  /** Documents of a kind, or the one of a name. */
  list(kind: string, name: string): Resource[] | Refusal {
    const kinds = RESOURCE_KINDS.filter((known) => kind === '' || known.toLowerCase() === kind.toLowerCase());
    if (kinds.length === 0) {
      return refuse('UnknownKind', `${kind} is not a kind of document`, `kinds are ${RESOURCE_KINDS.join(', ')}`);
    }
    const found = kinds
      .flatMap((known) => this.store.list(known))
      .filter((resource) => name === '' || resource.meta.name === name);
    return name !== '' && found.length === 0
      ? resourceNotFound(kinds.length === 1 ? (kinds[0] as ResourceKind) : 'document', name)
      : found;
  }

  // ----------------------------------------------------------------------------------------------------------- pins

  setPins(pins: ReadonlySet<RegionId>): void {
    this.#pins = pins;
  }

  isPinnedByHand(region: RegionId): boolean {
    return this.#pins.has(region);
  }

  /** Partitions with a part of the region's range. */
  partitionsOn(info: RegionInfo): readonly Partition[] {
    return this.store.servingIn(info.region.range);
  }

  /** The Partition that has exactly the region's range. */
  partitionOf(info: RegionInfo): Partition | undefined {
    return this.partitionsOn(info).find(({ spec }) => rangesEqual(spec.range, info.region.range));
  }

  /** Why nothing automatic may split, merge or balance a region; undefined if it may. */
  pinnedReason(info: RegionInfo): Refusal | undefined {
    if (this.store.version === 0 && this.#pins.size === 0) {
      return undefined;
    }
    const [partition] = this.partitionsOn(info);
    if (partition !== undefined) {
      return refuse(
        'RegionPinned',
        `region ${info.region.id} belongs to Partition ${partition.meta.name}`,
        'change the Partition, or split and merge it with an Assignment',
        { region_id: info.region.id, partition: partition.meta.name },
      );
    }
    return this.#pins.has(info.region.id)
      ? refuse(
          'RegionPinned',
          `region ${info.region.id} is pinned`,
          `unpin it with "ctl region pin ${info.region.id} --off"`,
          {
            region_id: info.region.id,
          },
        )
      : undefined;
  }

  /** Whether the documents want a replica on this store to stay as it is. */
  protects(info: RegionInfo, store: StoreId): boolean {
    const partitions = this.store.version === 0 ? [] : this.partitionsOn(info);
    if (partitions.length === 0) {
      return false;
    }
    const pod = this.facts().podOfStore(store);
    return (
      pod !== undefined &&
      partitions.some(
        ({ spec, status }) =>
          spec.pods.some((entry) => entry.name === pod) || status.pods.some(([name]) => name === pod),
      )
    );
  }

  /** Why an operator of somebody else may not run on a region; the controller asks before it admits one. */
  guard(operator: Operator, info: RegionInfo): Refusal | undefined {
    if (operator.maker === 'joint-state-checker') {
      return undefined;
    }
    const paused = this.pausedReason(info);
    if (paused !== undefined) {
      return paused;
    }
    if (DOCUMENT_MAKERS.some((prefix) => operator.maker.startsWith(prefix))) {
      return undefined;
    }
    const lock = this.lockOn(info);
    if (lock !== undefined && !(operator.maker === 'replica-checker' && mayBeRepaired(lock))) {
      return this.lockedReason(info);
    }
    const isSplitOrMerge = operator.steps.some(
      (step) => step.type === 'split-region' || step.type.startsWith('merge-region'),
    );
    const isAdmin = operator.maker.startsWith('admin-');
    if (isSplitOrMerge) {
      // An administrator who names the region knows about a pin by hand; a Partition would no longer be one region.
      return isAdmin && this.partitionsOn(info).length === 0 ? undefined : this.pinnedReason(info);
    }
    const taken = operator.steps.find(
      (step) =>
        (step.type === 'remove-peer' && this.protects(info, step.storeId) && this.facts().isUsable(step.storeId)) ||
        (step.type === 'transfer-leader' && this.#movesPrimary(info, step.toStore)),
    );
    return taken === undefined ? undefined : this.pinnedReason(info);
  }

  /** Why a region of a split or merge that is under way may not be changed by anybody else. */
  lockedReason(info: RegionInfo): Refusal | undefined {
    const lock = this.lockOn(info);
    return lock === undefined
      ? undefined
      : refuse(
          'RegionLocked',
          `region ${info.region.id} is being changed by Assignment ${lock.meta.name}`,
          `wait until it is completed, or delete Assignment ${lock.meta.name}`,
          { region_id: info.region.id, assignment: lock.meta.name },
        );
  }

  pausedReason(info: RegionInfo): Refusal | undefined {
    return this.pauses.refusalFor(info);
  }

  heldReason(info: RegionInfo): Refusal | undefined {
    const isFree = this.store.version === 0 || this.partitionsOn(info).length === 0;
    return this.lockedReason(info) ?? (isFree ? undefined : this.pinnedReason(info));
  }

  #movesPrimary(info: RegionInfo, toStore: StoreId): boolean {
    const facts = this.facts();
    const leader = info.leader?.storeId;
    const isLeaderUsable = leader !== undefined && facts.isUsable(leader);
    return (
      isLeaderUsable &&
      this.partitionsOn(info).some(({ spec }) => {
        const primary = spec.pods.find((pod) => pod.type === 'primary')?.name;
        return primary !== undefined && facts.storeOfPod(primary) === leader && toStore !== leader;
      })
    );
  }

  /** The split or merge that holds a region of its range. Moves hold nothing: their Partition's pods are protected. */
  lockOn(info: RegionInfo): Assignment | undefined {
    const { range } = info.region;
    return this.store.activeAssignments().find((assignment) => {
      const held = assignment.status.merge?.range ?? assignment.status.split?.range;
      return held !== undefined && rangesOverlap(held, range);
    });
  }
}

/** Replicas may be repaired until the first merge or split was sent. */
const mayBeRepaired = ({ status }: Assignment): boolean => status.phase === 'loading' || status.phase === 'following';

export const resourceNotFound = (kind: string, name: string): Refusal =>
  refuse(
    'ResourceNotFound',
    `there is no ${kind} ${name}`,
    `list them with "ctl get ${kind === 'document' ? 'all' : kind.replace(/\B[A-Z]/g, '-$&').toLowerCase()}"`,
    {
      name,
    },
  );

function resultOf(admitted: Admitted): Omit<DocumentResult, 'kind' | 'name' | 'warnings'> {
  return admitted.type === 'refused'
    ? { outcome: 'refused', refusal: admitted.refusal, before: undefined, after: undefined }
    : { outcome: admitted.outcome, refusal: undefined, before: admitted.before, after: admitted.after };
}

/** Whatever was changed and is still there says who asked for it and why. */
function authored(
  results: readonly DocumentResult[],
  draft: ResourceDraft,
  author: Author | undefined,
): readonly DocumentResult[] {
  return results.map((result) => {
    const { after, outcome } = result;
    if (
      author === undefined ||
      after === undefined ||
      (outcome !== 'created' && outcome !== 'changed' && outcome !== 'ending')
    ) {
      return result;
    }
    // A later document of the same request may have changed it again: that one is what counts.
    const latest = draft.get(after.kind, after.meta.name) ?? after;
    const signed = { ...latest, meta: { ...latest.meta, author } };
    draft.put(signed);
    return { ...result, after: { ...after, meta: signed.meta } };
  });
}

/** Why so many documents are not taken in one request; undefined if they are. */
export const refusalOfCount = (count: number): Refusal | undefined =>
  count > DOCUMENTS_PER_REQUEST_MAX
    ? refuse(
        'InvalidArgument',
        `${count} documents in one request`,
        `send at most ${DOCUMENTS_PER_REQUEST_MAX} at a time`,
      )
    : undefined;

/** What can be told about a document that could not be read. */
export function nameLike(document: unknown): { readonly kind: string; readonly name: string } {
  const text = (value: unknown): string => (typeof value === 'string' ? value.substring(0, 64) : '');
  const fields = (value: unknown): Record<string, unknown> =>
    typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  return { kind: text(fields(document)['kind']), name: text(fields(fields(document)['metadata'])['name']) };
}

function planOf(results: readonly DocumentResult[], draft: ResourceDraft): DocumentPlan {
  const first = results.find((result) => result.refusal !== undefined);
  if (first?.refusal === undefined) {
    return { refusal: undefined, results, change: draft.change() };
  }
  return {
    refusal: first.refusal,
    results: results.map((result) =>
      result.refusal === undefined ? { ...result, outcome: 'skipped', after: result.before } : result,
    ),
    change: undefined,
  };
}
