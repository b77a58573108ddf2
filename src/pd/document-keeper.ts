/**
 * Changes documents, placement rules and settings for one leadership, one after the other: plans on what all earlier
 * changes left, writes, then lets it take effect. Also drives what the documents ask for, and wakes those who watch.
 */
import { assert } from '../base/assert.ts';
import type { Clock } from '../env/clock.ts';
import type { Auditor } from './auditor.ts';
import type { Author, EventInput, EventType } from './cluster/events.ts';
import type { Placement } from './placement.ts';
import {
  type AnyDocument,
  type DocumentsPlan,
  type DocumentsView,
  listDocuments,
  planDeleteDocument,
  planDocuments,
} from './resource/document-plan.ts';
import type { ResourceChange, WatchedChange } from './resource/resource-store.ts';
import type { DocumentPlan } from './resource/resources.ts';
import { ruleName } from './schedule/placement/rule.ts';
import type { RulePlan } from './schedule/placement/rule-plan.ts';
import { isSwitchName } from './schedule/switches.ts';
import type { Refusal, Result } from './schedule/verdict.ts';
import type { DocumentChanges, PlainCommand } from './state/pd-state.ts';
import type { RegionLog } from './state/state-log.ts';

/** Changes of documents written per round of the reconciler; the next round goes on. */
const RECONCILE_ROUNDS_MAX = 32;

export interface DocumentKeeperOptions {
  readonly clock: Pick<Clock, 'wallMs' | 'setTimer' | 'clearTimer'>;
  readonly log: Pick<RegionLog, 'state'>;
  readonly auditor: Auditor;
  readonly placement: Placement;
  /** Runs a change of the placement logic and carries out what follows from it. */
  readonly act: <T>(change: (placement: Placement) => T) => T;
  /** Settings changed and are durable. */
  readonly onSettings: () => void;
}

export class DocumentKeeper {
  readonly #options: DocumentKeeperOptions;
  readonly #placement: Placement;
  readonly #log: DocumentKeeperOptions['log'];
  readonly #watchers = new Set<() => void>();
  /** Each change is planned on what the one before left. */
  #changes: Promise<unknown> = Promise.resolve();
  #isReconciling = false;
  #stopped = false;

  constructor(options: DocumentKeeperOptions) {
    this.#options = options;
    this.#placement = options.placement;
    this.#log = options.log;
  }

  /** Wakes everybody who waits, at once; nothing is driven any more. */
  stop(): void {
    this.#stopped = true;
    for (const wake of [...this.#watchers]) {
      wake();
    }
  }

  /** Resolves when what was begun is written or given up. */
  get settled(): Promise<unknown> {
    return this.#changes;
  }

  /** Runs a change after all earlier ones: also those of others that the documents are about. */
  inTurn<T>(run: () => Promise<T>): Promise<T> {
    const done = this.#changes.then(run);
    // The chain goes on after a failure; the caller sees it.
    this.#changes = done.catch(() => undefined);
    return done;
  }

  /**
   * Plans a change of the placement rules on what all earlier ones left, writes it, then lets it take effect. Changes of
   * rules and of documents go one after the other: either may forbid the other one.
   */
  changeRules(
    plan: (placement: Placement, version: number) => Result<RulePlan>,
    options: { readonly dryRun: boolean; readonly actor: string; readonly note: string },
  ): Promise<Result<RulePlan>> {
    return this.inTurn(async () => {
      const planned = plan(this.#placement, this.#log.state.ruleVersion);
      if (planned.type === 'refused' || planned.value.change === undefined || options.dryRun) {
        return planned;
      }
      const { change, outcome, rule } = planned.value;
      const result = await this.#options.auditor.change({ type: 'change-rules', change }, [
        {
          type: 'rule-changed',
          message: `placement rule ${ruleName(rule)} was ${outcome}`,
          actor: options.actor,
          reason: options.note,
        },
      ]);
      assert(result.type === 'done', 'another member changed the placement rules', { base: change.baseVersion });
      this.#useRules();
      return planned;
    });
  }

  #useRules(): void {
    this.#placement.cluster.setRules([...this.#log.state.rules.values()]);
  }

  // ------------------------------------------------------------------------------------------- documents of all kinds

  /** Creates and changes documents, all of them or none. */
  apply(
    documents: readonly unknown[],
    options: { readonly dryRun: boolean; readonly author: Author },
  ): Promise<DocumentsPlan> {
    return this.#changeAll(() => planDocuments(this.#view(options.author), documents), options);
  }

  /** @param expectVersion 0 is not checked */
  delete(
    kind: string,
    name: string,
    options: { readonly expectVersion: number; readonly dryRun: boolean; readonly author: Author },
  ): Promise<DocumentsPlan> {
    const { expectVersion, author } = options;
    return this.#changeAll(() => planDeleteDocument(this.#view(author), kind, name, expectVersion), options);
  }

  list(kind: string, name: string): readonly AnyDocument[] | Refusal {
    return listDocuments(this.#view(undefined), kind, name);
  }

  #view(author: Author | undefined): DocumentsView {
    const { cluster, resources } = this.#placement;
    return {
      cluster,
      resources,
      rules: this.#placement.ruleView(this.#log.state.ruleVersion),
      settings: this.#log.state.settings,
      switches: this.#log.state.switches,
      switchVersions: this.#log.state.switchVersions,
      author,
      wallMs: Math.max(0, Math.floor(this.#options.clock.wallMs())),
    };
  }

  /** A dry run and a refusal change nothing. A crash before the write is durable leaves everything as it was. */
  #changeAll(
    plan: () => DocumentsPlan,
    { dryRun, author }: { readonly dryRun: boolean; readonly author: Author },
  ): Promise<DocumentsPlan> {
    return this.inTurn(async () => {
      const planned = plan();
      if (planned.refusal === undefined && !dryRun) {
        await this.#write(planned.changes, eventsOf(planned.results, author));
      }
      return planned;
    });
  }

  async #write(changes: DocumentChanges, events: readonly EventInput[]): Promise<void> {
    const command = commandFor(changes);
    if (command === undefined) {
      return;
    }
    const result = await this.#options.auditor.change(command, events);
    assert(result.type === 'done', 'another member changed the documents', { command: command.type });
    this.#options.act((placement) => {
      if (changes.settings !== undefined) {
        this.#options.onSettings();
      }
      if (changes.schedulers !== undefined) {
        placement.cluster.setSchedulers(this.#log.state.schedulers.values());
      }
      for (const { name, enabled } of changes.switches ?? []) {
        if (isSwitchName(name)) {
          placement.switches.set(name, enabled);
        }
      }
      if (changes.rules !== undefined) {
        this.#useRules();
      }
      if (changes.resources !== undefined) {
        placement.resources.store.apply(changes.resources);
      }
    });
  }

  // ---------------------------------------------------------------------------------------- Partitions, Assignments

  /** Plans a change of Partitions and Assignments, writes it, then lets it take effect. `author`: a person asks for it. */
  change(
    plan: () => DocumentPlan,
    options: { readonly dryRun: boolean; readonly author?: Author },
  ): Promise<DocumentPlan> {
    return this.inTurn(async () => {
      const planned = plan();
      if (planned.refusal === undefined && planned.change !== undefined && !options.dryRun) {
        const events = options.author === undefined ? [] : eventsOf(planned.results, options.author);
        await this.#writeResources(planned.change, events);
      }
      return planned;
    });
  }

  /** Documents go on while there is something to write; operators are started by the last round. */
  reconcile(): Promise<void> | undefined {
    if (this.#isReconciling || this.#placement.resources.store.version === 0) {
      return undefined;
    }
    this.#isReconciling = true;
    const rounds = this.inTurn(async () => {
      for (let i = 0; i < RECONCILE_ROUNDS_MAX && !this.#stopped; i++) {
        const change = this.#options.act((placement) => placement.reconcile());
        if (change === undefined) {
          return;
        }
        await this.#writeResources(change);
      }
    });
    return rounds.finally(() => {
      this.#isReconciling = false;
    });
  }

  /** Applies what the service decides by itself. Refused is what does not fit any more when its turn comes. */
  assign(): Promise<unknown> | undefined {
    if (this.#placement.proposeAssignment() === undefined) {
      return undefined;
    }
    const plan = (): DocumentPlan => {
      const document = this.#placement.proposeAssignment();
      return this.#placement.resources.planApply(document === undefined ? [] : [document]);
    };
    return this.change(plan, { dryRun: false });
  }

  /** A crash before the write is durable leaves the documents as they were. */
  async #writeResources(change: ResourceChange, events: readonly EventInput[] = []): Promise<void> {
    const result = await this.#options.auditor.change({ type: 'change-resources', change }, events);
    assert(result.type === 'done', 'another member changed the documents', { base: change.baseVersion });
    this.#placement.resources.store.apply(change);
  }

  /** Resolves with the changes above a version, or with none of them after `waitMs`; undefined if they are forgotten. */
  async wait(version: number, waitMs: number): Promise<readonly WatchedChange[] | undefined> {
    const { store } = this.#placement.resources;
    const known = store.changesAfter(version);
    if (known?.length !== 0 || waitMs <= 0 || this.#stopped) {
      return known;
    }
    await new Promise<void>((resolve) => {
      const { clock } = this.#options;
      const timer = clock.setTimer(waitMs, () => wake(), 'pd-watch-documents');
      const wake = (): void => {
        clock.clearTimer(timer);
        stopListening();
        this.#watchers.delete(wake);
        resolve();
      };
      const stopListening = store.onChange(wake);
      this.#watchers.add(wake);
    });
    return store.changesAfter(version);
  }
}

/** One command for everything, so that all of it is changed or nothing; undefined if nothing is. */
function commandFor(changes: DocumentChanges): PlainCommand | undefined {
  const kinds = Object.keys(changes);
  if (kinds.length === 1 && changes.resources !== undefined) {
    return { type: 'change-resources', change: changes.resources };
  }
  if (kinds.length === 1 && changes.rules !== undefined) {
    return { type: 'change-rules', change: changes.rules };
  }
  return kinds.length === 0 ? undefined : { type: 'change-documents', ...changes };
}

/** Kinds of documents with events of their own. */
const EVENT_OF: Readonly<Record<string, EventType>> = {
  PlacementRule: 'rule-changed',
  Scheduler: 'scheduler-changed',
  Config: 'config-changed',
};

/** What people are told of a change of documents. */
const eventsOf = (
  results: readonly { readonly kind: string; readonly name: string; readonly outcome: string }[],
  author: Author,
): EventInput[] =>
  results
    .filter(({ outcome }) => outcome !== 'unchanged')
    .map(({ kind, name, outcome }) => ({
      type: EVENT_OF[kind] ?? 'document',
      message: `${kind} ${name} was ${outcome === 'ending' ? 'told to end' : outcome}`,
      ...author,
    }));
