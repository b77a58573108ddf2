/**
 * Documents of a cluster (Partition, Assignment, PlacementRule, Scheduler, Config): apply, list, delete, retry, watch. Specs and statuses are plain
 * objects in the words of the documents; the placement service alone reads and writes them.
 */
import { sleep } from '../env/clock.ts';
import type { UnaryMethod } from '../rpc/method.ts';
import { adminMethods } from '../rpc/services.ts';
import { type RegionDetails, type WireHeader, type WireRefusal, regionDetailsFromWire } from './admin-wire.ts';
import type { ClientCore } from './core.ts';
import { OPERATOR_WAIT_MS_MAX } from './defaults.ts';
import { AbortError, BraidError, RefusedError } from './errors.ts';
import type { CallOptions } from './options.ts';

type ReplyOf<M> = M extends UnaryMethod<infer _Request, infer Reply> ? Reply : never;
type WireApplied = ReplyOf<(typeof adminMethods)['applyDocuments']>;
type WireResult = WireApplied['results'][number];
type WireDocument = NonNullable<WireResult['before']>;

export type DocumentKind = 'Partition' | 'Assignment' | 'PlacementRule' | 'Scheduler' | 'Config';

export interface DocumentCondition {
  readonly type: string;
  readonly message: string;
}

export interface DocumentInfo {
  readonly kind: DocumentKind;
  readonly metadata: {
    readonly name: string;
    /** Empty for kinds that have none: PlacementRule, Scheduler and Config. */
    readonly uid: string;
    /** 0 for kinds without a uid. */
    readonly generation: number;
    readonly resourceVersion: number;
  };
  readonly createdUnixMs: number;
  readonly spec: Readonly<Record<string, unknown>>;
  /** Exactly the words of the documents; null while there is nothing to say. */
  readonly status: unknown;
  readonly conditions: readonly DocumentCondition[];
  /** Regions that serve a Partition's range at the moment. */
  readonly regions: readonly RegionDetails[];
  /** Names of the pods on the stores of these regions. */
  readonly pods: ReadonlyMap<number, string>;
  /** Of an Assignment: how long old routes are still served, ms. */
  readonly remainingMs: number;
  /** An Assignment that completed; a Partition that is served as its spec says. */
  readonly settled: boolean;
  /** Who made the latest change that was asked for, and why; empty for documents the service made itself. */
  readonly changedBy: string;
  readonly changeReason: string;
  /**
   * What else is known: of a PlacementRule its regions, of a Scheduler its parameters, of a Config every setting with its
   * value and where that comes from. Undefined for other kinds.
   */
  readonly observed: Readonly<Record<string, unknown>> | undefined;
}

export type DocumentOutcome = 'created' | 'changed' | 'unchanged' | 'deleted' | 'ending' | 'refused' | 'skipped';

export interface DocumentResult {
  readonly kind: string;
  readonly name: string;
  readonly outcome: DocumentOutcome;
  /** Why this document was refused. */
  readonly problem: { readonly code: string; readonly message: string; readonly hint: string } | undefined;
  readonly warnings: readonly string[];
  readonly before: DocumentInfo | undefined;
  readonly after: DocumentInfo | undefined;
}

export interface DocumentList {
  readonly documents: readonly DocumentInfo[];
  /** Watch from here to see every later change. */
  readonly version: number;
}

export interface DocumentChange {
  readonly version: number;
  readonly isDeleted: boolean;
  readonly document: DocumentInfo;
}

/** Some documents of a request were refused, and so nothing was changed. `results` has one entry per document. */
export class DocumentsRefusedError extends RefusedError {
  readonly results: readonly DocumentResult[];

  constructor(refusal: WireRefusal, results: readonly DocumentResult[]) {
    const refused = results.find((result) => result.outcome === 'refused');
    const about = refused === undefined || refused.name === '' ? '' : `${refused.kind} ${refused.name}: `.trimStart();
    super(refusal.code, `${about}${refusal.message}`, {
      hint: refusal.hint,
      details: { ...Object.fromEntries(refusal.details), reason: refusal.code },
    });
    this.results = results;
  }
}

/** How the calls of this file reach the placement service; `AdminClient` provides it. */
export interface DocumentCalls {
  readonly core: ClientCore;
  readonly header: () => WireHeader;
  readonly call: <Request, Reply>(
    method: UnaryMethod<Request, Reply>,
    request: Request,
    options: CallOptions | undefined,
    how: {
      readonly once: boolean;
      readonly known: readonly string[];
      readonly tryTimeoutMs?: number;
      readonly keepsRefusal?: boolean;
    },
  ) => Promise<Reply>;
}

/** Time left for the answer of a watch beyond what the service was asked to hold it. */
const HOLD_MARGIN_MS = 2_000;
/** Pause after a failed watch call. */
const WATCH_RETRY_MS = 200;

export class Documents {
  readonly #calls: DocumentCalls;

  constructor(calls: DocumentCalls) {
    this.#calls = calls;
  }

  /** Creates and changes documents, all of them or none. @throws DocumentsRefusedError */
  apply(
    documents: readonly unknown[],
    options: CallOptions & { readonly dryRun?: boolean } = {},
  ): Promise<readonly DocumentResult[]> {
    const request = {
      header: this.#calls.header(),
      documents: documents.map((document) => JSON.stringify(document) ?? 'null'),
      dryRun: options.dryRun ?? false,
    };
    return this.#results(adminMethods.applyDocuments, request, options, ['dryRun']);
  }

  /**
   * Deletes a document. An Assignment that cannot be taken back any more ends after the step that runs; its outcome is
   * `ending`.
   */
  async delete(
    kind: DocumentKind,
    name: string,
    options: CallOptions & { readonly expectVersion?: number; readonly dryRun?: boolean } = {},
  ): Promise<DocumentResult> {
    const request = {
      header: this.#calls.header(),
      kind,
      name,
      expectVersion: options.expectVersion ?? 0,
      dryRun: options.dryRun ?? false,
    };
    const results = await this.#results(adminMethods.deleteDocument, request, options, ['expectVersion', 'dryRun']);
    return results[0] as DocumentResult;
  }

  /** Lets an Assignment go on after it failed too often. */
  async retryAssignment(
    name: string,
    options: CallOptions & { readonly expectVersion?: number } = {},
  ): Promise<DocumentResult> {
    const request = { header: this.#calls.header(), name, expectVersion: options.expectVersion ?? 0 };
    const results = await this.#results(adminMethods.retryAssignment, request, options, ['expectVersion']);
    return results[0] as DocumentResult;
  }

  /**
   * Documents of a kind, of a name, or all. A name that is not there is refused. Without a kind only what somebody has
   * written: not the rule, the schedulers and the settings that every cluster begins with.
   */
  async list(
    options: CallOptions & { readonly kind?: DocumentKind; readonly name?: string } = {},
  ): Promise<DocumentList> {
    const request = { header: this.#calls.header(), kind: options.kind ?? '', name: options.name ?? '' };
    const reply = await this.#calls.call(adminMethods.listDocuments, request, options, {
      once: false,
      known: ['kind', 'name'],
    });
    return { documents: reply.documents.map(documentFromWire), version: reply.version };
  }

  async get(kind: DocumentKind, name: string, options?: CallOptions): Promise<DocumentInfo> {
    const { documents } = await this.list({ ...options, kind, name });
    return documents[0] as DocumentInfo;
  }

  /**
   * Every change of Partitions and Assignments above a version in its order, one by one, until the signal aborts. After a restart of the placement
   * service changes in between may be missing; then every document comes as it is now.
   */
  async *watch(options: {
    readonly afterVersion: number;
    readonly signal?: AbortSignal;
  }): AsyncGenerator<DocumentChange> {
    const { signal } = options;
    let { afterVersion } = options;
    while (signal?.aborted !== true) {
      const request = { header: this.#calls.header(), afterVersion, waitMs: OPERATOR_WAIT_MS_MAX };
      let reply: ReplyOf<(typeof adminMethods)['watchDocuments']>;
      try {
        reply = await this.#calls.call(adminMethods.watchDocuments, request, signal === undefined ? {} : { signal }, {
          once: false,
          known: [],
          tryTimeoutMs: OPERATOR_WAIT_MS_MAX + HOLD_MARGIN_MS,
        });
      } catch (error) {
        if (error instanceof AbortError || !(error instanceof BraidError) || !error.retryable) {
          throw error;
        }
        await sleep(this.#calls.core.env.clock, WATCH_RETRY_MS, 'client-watch-documents', signal);
        continue;
      }
      for (const change of reply.changes) {
        if (change.document !== undefined) {
          yield { version: change.version, isDeleted: change.deleted, document: documentFromWire(change.document) };
        }
      }
      afterVersion = reply.version;
    }
  }

  async #results<Request>(
    method: UnaryMethod<Request, WireApplied>,
    request: Request,
    options: CallOptions | undefined,
    known: readonly string[],
  ): Promise<readonly DocumentResult[]> {
    const reply = await this.#calls.call(method, request, options, { once: true, known, keepsRefusal: true });
    const results = reply.results.map(resultFromWire);
    if (reply.refusal !== undefined) {
      throw new DocumentsRefusedError(reply.refusal, results);
    }
    return results;
  }
}

const resultFromWire = (result: WireResult): DocumentResult => ({
  kind: result.kind,
  name: result.name,
  outcome: result.outcome as DocumentOutcome,
  problem:
    result.refusal === undefined
      ? undefined
      : { code: result.refusal.code, message: result.refusal.message, hint: result.refusal.hint },
  warnings: [...result.warnings],
  before: result.before === undefined ? undefined : documentFromWire(result.before),
  after: result.after === undefined ? undefined : documentFromWire(result.after),
});

const documentFromWire = (document: WireDocument): DocumentInfo => ({
  kind: document.kind as DocumentKind,
  metadata: {
    name: document.name,
    uid: document.uid,
    generation: document.generation,
    resourceVersion: document.resourceVersion,
  },
  createdUnixMs: document.createdUnixMs,
  spec: JSON.parse(document.specJson) as Readonly<Record<string, unknown>>,
  status: JSON.parse(document.statusJson) as unknown,
  conditions: document.conditions.map(({ type, message }) => ({ type, message })),
  regions: document.regions.map(regionDetailsFromWire),
  pods: new Map(document.pods),
  remainingMs: document.remainingMs,
  settled: document.settled,
  changedBy: document.changedBy,
  changeReason: document.changeReason,
  observed:
    document.observedJson === '' ? undefined : (JSON.parse(document.observedJson) as Readonly<Record<string, unknown>>),
});
