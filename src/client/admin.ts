/**
 * Administration of a cluster through braid.admin.v1: what the command line and the dashboard use. A request that the
 * cluster refuses becomes `RefusedError`, and nothing was changed. Changing requests are sent once; when their answer
 * is lost the error says that the outcome is unknown.
 */
import { sleep } from '../env/clock.ts';
import type { UnaryMethod } from '../rpc/method.ts';
import { RpcError, RpcStatus } from '../env/net.ts';
import { unaryCall } from '../rpc/call.ts';
import { adminMethods, processMethods } from '../rpc/services.ts';
import {
  type ClusterStatus,
  type MergeExplanation,
  type OperatorInfo,
  type PauseAnswer,
  type PlacementMember,
  type ProcessSettings,
  type RegionDetails,
  type RegionFilter,
  type RegionList,
  type RegionNeighbourhood,
  type StoreInfo,
  type StoreTarget,
  type SwitchInfo,
  type AuditPage,
  type ClusterEvents,
  type WireHeader,
  type WireRefusal,
  type WireSubmission,
  type Finding,
  type StoreSettingsChange,
  auditFromWire,
  eventsFromWire,
  explanationFromWire,
  filterToWire,
  findingFromWire,
  isEnded,
  memberFromWire,
  pauseAnswerFromWire,
  processSettingsFromWire,
  operatorFromWire,
  regionDetailsFromWire,
  regionListFromWire,
  statusFromWire,
  storeInfoFromWire,
  switchFromWire,
  targetToWire,
} from './admin-wire.ts';
import type { ClientCore } from './core.ts';
import { type DocumentCalls, Documents } from './documents.ts';
import { Rules } from './rules.ts';
import { Schedulers } from './schedulers.ts';
import { OPERATOR_WAIT_MS_MAX, ADMIN_TRY_TIMEOUT_MS, PD_TRY_TIMEOUT_MS } from './defaults.ts';
import {
  DeadlineExceededError,
  OperatorFailedError,
  RefusedError,
  ServerRefusedError,
  InvalidArgumentError,
  UnavailableError,
  tlsErrorOf,
} from './errors.ts';
import { type CallOptions, parseEndpoint, requireKnownOptions, requireTimeoutMs } from './options.ts';

export interface OperatorRequestOptions extends CallOptions {
  /** Only plan: the operator that comes back has id 0 and nothing was started. */
  readonly dryRun?: boolean;
  /** Refused unless the region (of a merge: the source) has exactly this epoch. */
  readonly expectEpoch?: { readonly confVer: number; readonly version: number };
  /** Kept with the operator. */
  readonly reason?: string;
}

/** What became of a wish for a change. */
export type Submission =
  | { readonly type: 'started'; readonly operator: OperatorInfo }
  /** The answer to a dry run. */
  | { readonly type: 'planned'; readonly operator: OperatorInfo }
  | { readonly type: 'nothing-to-do' };

export interface ListRegionsOptions extends CallOptions {
  /** First region is the one that contains this key. */
  readonly start?: Uint8Array;
  /** Exclusive. */
  readonly end?: Uint8Array;
  readonly storeId?: number;
  readonly filter?: RegionFilter;
  /** Regions in all. Default: all there are. */
  readonly limit?: number;
}

export interface WaitOperatorOptions {
  /** How long to wait, ms. Default: as long as the operator itself may take, and a little more. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Called with the first state and after every change of a step or phase. */
  readonly onProgress?: (operator: OperatorInfo) => void;
}

/** A change is refused with `Conflict` unless what it changes has this version, so that nothing unseen is overwritten. */
export interface ExpectVersion {
  readonly expectVersion?: number;
}

/** A change is refused with `EpochChanged` unless the region has exactly this epoch. */
export interface ExpectEpoch {
  readonly expectEpoch?: { readonly confVer: number; readonly version: number };
}

const expectedVersion = ({ expectVersion }: ExpectVersion): ExpectVersion =>
  expectVersion === undefined ? {} : { expectVersion };

const expectedEpoch = ({ expectEpoch }: ExpectEpoch): { expectEpoch?: { confVer: number; version: number } } =>
  expectEpoch === undefined ? {} : { expectEpoch: { ...expectEpoch } };

const CALL_OPTIONS = ['timeoutMs', 'signal'] as const;
const SETTINGS: readonly (keyof StoreSettingsChange)[] = [
  'leadersEvicted',
  'leaderWeight',
  'regionWeight',
  'limitPerMinute',
  'labels',
  'replaceLabels',
];
const OPERATOR_OPTIONS = [...CALL_OPTIONS, 'dryRun', 'expectEpoch', 'reason'] as const;

/** Regions asked for in one message. */
const REGION_PAGE = 512;
/** Time left for the answer beyond what the service was asked to hold it. */
const HOLD_MARGIN_MS = 2000;
/** Wait for an operator beyond its own time limit. */
const OPERATOR_MARGIN_MS = 10_000;
/** Time between two questions, for a service that answers at once although it was asked to hold. */
const OPERATOR_POLL_MS = 50;

/** braid.admin.v1.SplitPolicy */
const SPLIT_USE_KEYS = 0;
const SPLIT_APPROXIMATE = 1;

interface WireOperatorOptions {
  readonly dryRun: boolean;
  readonly expectEpoch?: { confVer: number; version: number };
  readonly reason: string;
}

const operatorOptions = (options: OperatorRequestOptions): WireOperatorOptions => ({
  dryRun: options.dryRun ?? false,
  ...(options.expectEpoch === undefined ? {} : { expectEpoch: { ...options.expectEpoch } }),
  reason: options.reason ?? '',
});

type WhichOperator = { $case: 'id'; value: number } | { $case: 'regionId'; value: number };

const whichOperator = (which: number | { readonly regionId: number }): WhichOperator =>
  typeof which === 'number' ? { $case: 'id', value: which } : { $case: 'regionId', value: which.regionId };

function present<T>(value: T | undefined, what: string): T {
  if (value === undefined) {
    throw new ServerRefusedError(`the placement service answered without the ${what}`);
  }
  return value;
}

/** Equal as long as nothing happened that a listener would show. */
const progressKey = (operator: OperatorInfo): string =>
  JSON.stringify([
    operator.status,
    operator.steps.map((step) => [step.state, step.current, step.detail]),
    operator.phases.map((phase) => [phase.state, phase.detail]),
  ]);

function requireSuccess(operator: OperatorInfo): OperatorInfo {
  if (operator.status === 'success') {
    return operator;
  }
  const why = operator.reason === '' ? operator.reasonCode : operator.reason;
  throw new OperatorFailedError(
    `operator ${operator.id} (${operator.brief}) ended as ${operator.status}${why === '' ? '' : `: ${why}`}`,
    {
      ...(operator.hint === '' ? {} : { hint: operator.hint }),
      details: {
        operatorId: operator.id,
        regionId: operator.regionId,
        status: operator.status,
        reasonCode: operator.reasonCode,
      },
    },
  );
}

function settingsFailure(endpoint: string, cause: unknown): unknown {
  if (!(cause instanceof RpcError)) {
    return cause;
  }
  return (
    tlsErrorOf(cause) ??
    (cause.status === RpcStatus.UNAVAILABLE || cause.status === RpcStatus.DEADLINE_EXCEEDED
      ? new UnavailableError(`${endpoint} does not answer: ${cause.message}`, { cause })
      : new ServerRefusedError(`${endpoint} does not tell its settings: ${cause.message}`, { cause }))
  );
}

/** Longest reason for a change. */
export const REASON_CHARS_MAX = 512;

/** Longest name of who makes a change. */
export const ACTOR_CHARS_MAX = 128;

export class AdminClient implements AsyncDisposable {
  readonly #core: ClientCore;
  readonly #actor: string;
  readonly #reason: string;
  readonly #ownsCore: boolean;
  /** Partition and Assignment documents. */
  readonly documents: Documents;
  /** Placement rules. */
  readonly rules: Rules;
  /** Checkers and schedulers. */
  readonly schedulers: Schedulers;

  /** `owns` decides whether `close` closes the connection, too. */
  constructor(
    core: ClientCore,
    options: { readonly owns: boolean; readonly actor?: string; readonly reason?: string },
  ) {
    this.#core = core;
    this.#ownsCore = options.owns;
    this.#actor = options.actor ?? core.options.name;
    this.#reason = options.reason ?? '';
    const calls: DocumentCalls = {
      core,
      header: () => this.#header(),
      call: (method, request, callOptions, how) => this.#call(method, request, callOptions, how),
    };
    this.documents = new Documents(calls);
    this.rules = new Rules(calls);
    this.schedulers = new Schedulers(calls);
  }

  /**
   * The same client, whose changes are recorded with this reason: in the list of events, and in the documents that are
   * changed. Shares the connection, which stays with this one.
   * @throws InvalidArgumentError above {@link REASON_CHARS_MAX} characters
   */
  withReason(reason: string): AdminClient {
    if (reason.length > REASON_CHARS_MAX) {
      throw new InvalidArgumentError(
        `the reason has ${reason.length} characters, at most ${REASON_CHARS_MAX} are kept`,
        {
          hint: 'give a shorter reason',
        },
      );
    }
    return new AdminClient(this.#core, { owns: false, actor: this.#actor, reason });
  }

  /**
   * The same client, whose changes are recorded as those of `actor`: in the list of events, the audit log, and the
   * documents that are changed. Shares the connection, which stays with this one.
   * @throws InvalidArgumentError for an empty name, and above {@link ACTOR_CHARS_MAX} characters
   */
  withActor(actor: string): AdminClient {
    if (actor === '' || actor.length > ACTOR_CHARS_MAX) {
      throw new InvalidArgumentError(`${actor.length} characters are no name of who makes a change`, {
        hint: `give 1 to ${ACTOR_CHARS_MAX} characters`,
      });
    }
    return new AdminClient(this.#core, { owns: false, actor, reason: this.#reason });
  }

  /** `host:port` of the placement leader, as far as known. */
  get leader(): string | undefined {
    return this.#core.pd.leader;
  }

  get clusterId(): bigint {
    return this.#core.pd.clusterId;
  }

  async status(options?: CallOptions): Promise<ClusterStatus> {
    return statusFromWire(await this.#read(adminMethods.getStatus, { header: this.#header() }, options));
  }

  /** Members of the placement service, as its leader sees them. */
  async placementMembers(options?: CallOptions): Promise<readonly PlacementMember[]> {
    return (await this.placementMembership(options)).members;
  }

  /** The members together with the version of the membership, which grows with every change of it. */
  async placementMembership(
    options?: CallOptions,
  ): Promise<{ readonly members: readonly PlacementMember[]; readonly version: number }> {
    const { members, version } = await this.#read(adminMethods.listMembers, { header: this.#header() }, options);
    return { members: members.map(memberFromWire), version };
  }

  /**
   * The settings that the process at `address` runs with, a store or a placement member, asked directly.
   * @param address `host:port` or a URL
   * @throws UnavailableError, TlsError, ServerRefusedError for a server that is not of braid
   */
  async settings(address: string, options: CallOptions = {}): Promise<ProcessSettings> {
    const method = processMethods.getSettings;
    requireKnownOptions(method.path, options, CALL_OPTIONS);
    this.#core.requireOpen(method.path, options.signal);
    const timeoutMs = requireTimeoutMs(options.timeoutMs, 'timeoutMs') ?? this.#core.options.timeoutMs;
    const endpoint = parseEndpoint(address);
    const channel = this.#core.env.net.dial(endpoint);
    const limits = { timeoutMs, ...(options.signal === undefined ? {} : { signal: options.signal }) };
    const ask = (): ReturnType<typeof unaryCall<object, Parameters<typeof processSettingsFromWire>[0]>> =>
      unaryCall(channel, method, {}, limits);
    const { tracer } = this.#core;
    try {
      const what = { method: method.path, endpoint };
      return processSettingsFromWire(await (tracer === undefined ? ask() : tracer.call(what, ask)));
    } catch (cause) {
      throw settingsFailure(endpoint, cause);
    } finally {
      channel.close();
    }
  }

  /**
   * Takes a member out of the placement service for good.
   * @param member name or id
   * @param options `expectVersion`: of the membership
   * @throws RefusedError, for example `WouldLoseQuorum` or `MemberIsLeader`
   */
  async removePlacementMember(
    member: string,
    options: CallOptions & ExpectVersion & { readonly dryRun?: boolean } = {},
  ): Promise<PlacementMember> {
    const request = {
      header: this.#header(),
      member,
      dryRun: options.dryRun ?? false,
      ...expectedVersion(options),
    };
    const reply = await this.#change(adminMethods.removeMember, request, options, ['dryRun', 'expectVersion']);
    return memberFromWire(present(reply.member, 'member'));
  }

  /**
   * Lets another member of the placement service lead; resolves when the handover has begun.
   * @param member name or id; without it the service chooses
   * @param options `expectVersion`: of the membership
   */
  async transferPlacementLeader(member?: string, options: CallOptions & ExpectVersion = {}): Promise<PlacementMember> {
    const request = { header: this.#header(), member: member ?? '', ...expectedVersion(options) };
    const reply = await this.#change(adminMethods.transferMemberLeader, request, options, ['expectVersion']);
    return memberFromWire(present(reply.member, 'member'));
  }

  async stores(options: CallOptions & { readonly includeRemoved?: boolean } = {}): Promise<readonly StoreInfo[]> {
    const request = { header: this.#header(), includeRemoved: options.includeRemoved ?? false };
    return (await this.#read(adminMethods.listStores, request, options, ['includeRemoved'])).stores.map(
      storeInfoFromWire,
    );
  }

  async store(id: number, options?: CallOptions): Promise<StoreInfo> {
    const reply = await this.#read(adminMethods.getStore, { header: this.#header(), storeId: id }, options);
    return storeInfoFromWire(present(reply.store, 'store'));
  }

  async setStoreState(
    id: number,
    target: StoreTarget,
    options: CallOptions & ExpectVersion & { readonly physicallyDestroyed?: boolean; readonly dryRun?: boolean } = {},
  ): Promise<StoreInfo> {
    const request = {
      header: this.#header(),
      storeId: id,
      target: targetToWire(target),
      physicallyDestroyed: options.physicallyDestroyed ?? false,
      dryRun: options.dryRun ?? false,
      ...expectedVersion(options),
    };
    const reply = await this.#change(adminMethods.setStoreState, request, options, [
      'physicallyDestroyed',
      'dryRun',
      'expectVersion',
    ]);
    return storeInfoFromWire(present(reply.store, 'store'));
  }

  /** Changes labels, weights, limits, and whether a store leads; they survive restarts. */
  async setStoreSettings(
    id: number,
    change: StoreSettingsChange,
    options: CallOptions & ExpectVersion = {},
  ): Promise<StoreInfo> {
    requireKnownOptions('setStoreSettings', change, SETTINGS);
    const request = {
      header: this.#header(),
      storeId: id,
      ...(change.leadersEvicted === undefined ? {} : { leadersEvicted: change.leadersEvicted }),
      ...(change.leaderWeight === undefined ? {} : { leaderWeight: change.leaderWeight }),
      ...(change.regionWeight === undefined ? {} : { regionWeight: change.regionWeight }),
      ...(typeof change.limitPerMinute === 'number' ? { limitPerMinute: change.limitPerMinute } : {}),
      clearLimit: change.limitPerMinute === null,
      labels: Object.entries(change.labels ?? {}).map(([key, value]) => ({ key, value })),
      replaceLabels: change.replaceLabels ?? false,
      ...expectedVersion(options),
    };
    const reply = await this.#change(adminMethods.setStoreSettings, request, options, ['expectVersion']);
    return storeInfoFromWire(present(reply.store, 'store'));
  }

  /** What is, or is not, done about a region, a store, or a checker or scheduler, and why. Changes nothing. */
  async explain(
    what: { readonly regionId: number } | { readonly storeId: number } | { readonly scheduler: string },
    options: CallOptions = {},
  ): Promise<readonly Finding[]> {
    const which =
      'regionId' in what
        ? ({ $case: 'regionId', value: what.regionId } as const)
        : 'storeId' in what
          ? ({ $case: 'storeId', value: what.storeId } as const)
          : ({ $case: 'scheduler', value: what.scheduler } as const);
    const reply = await this.#read(adminMethods.explain, { header: this.#header(), which }, options);
    return reply.findings.map(findingFromWire);
  }

  /** Moves a region's replicas to the least used stores. */
  scatterRegion(regionId: number, options: OperatorRequestOptions = {}): Promise<Submission> {
    return this.#submit(
      adminMethods.scatterRegion,
      { header: this.#header(), regionId, options: operatorOptions(options) },
      options,
    );
  }

  /** Regions in key order with the gaps between them. */
  async regions(options: ListRegionsOptions = {}): Promise<RegionList> {
    requireKnownOptions('regions', options, [...CALL_OPTIONS, 'start', 'end', 'storeId', 'filter', 'limit']);
    const regions: RegionDetails[] = [];
    const holes: RegionList['holes'][number][] = [];
    const limit = options.limit ?? Infinity;
    let start = options.start ?? new Uint8Array(0);
    for (;;) {
      const reply = await this.#read(
        adminMethods.listRegions,
        {
          header: this.#header(),
          limit: Math.min(REGION_PAGE, limit - regions.length),
          start,
          end: options.end ?? new Uint8Array(0),
          storeId: options.storeId ?? 0,
          filter: filterToWire(options.filter ?? 'all'),
        },
        options,
        ['start', 'end', 'storeId', 'filter', 'limit'],
      );
      const page = regionListFromWire(reply);
      regions.push(...page.regions);
      holes.push(...page.holes);
      if (!reply.more || regions.length >= limit) {
        return { regions, holes, more: reply.more };
      }
      start = new Uint8Array(reply.nextStart);
    }
  }

  /** One region by id or by a key in it, with its neighbours. */
  async region(which: number | { readonly key: Uint8Array }, options?: CallOptions): Promise<RegionNeighbourhood> {
    const reply = await this.#read(
      adminMethods.getRegion,
      {
        header: this.#header(),
        which:
          typeof which === 'number'
            ? { $case: 'id' as const, value: which }
            : { $case: 'key' as const, value: which.key },
      },
      options,
    );
    return {
      region: regionDetailsFromWire(present(reply.region, 'region')),
      previous: reply.previous === undefined ? undefined : regionDetailsFromWire(reply.previous),
      next: reply.next === undefined ? undefined : regionDetailsFromWire(reply.next),
    };
  }

  /** Replaces the replica on one store by one on another. */
  moveRegion(
    regionId: number,
    move: { readonly fromStore: number; readonly toStore: number },
    options: OperatorRequestOptions = {},
  ): Promise<Submission> {
    return this.#submit(
      adminMethods.moveRegion,
      { header: this.#header(), regionId, ...move, options: operatorOptions(options) },
      options,
    );
  }

  /** Merges the source into the touching target, which keeps its id. */
  mergeRegions(
    merge: { readonly source: number; readonly target: number },
    options: OperatorRequestOptions = {},
  ): Promise<Submission> {
    return this.#submit(
      adminMethods.mergeRegion,
      { header: this.#header(), sourceId: merge.source, targetId: merge.target, options: operatorOptions(options) },
      options,
    );
  }

  /** Splits at the given keys, or in the middle if none are given. */
  splitRegion(
    regionId: number,
    keys: readonly Uint8Array[] = [],
    options: OperatorRequestOptions = {},
  ): Promise<Submission> {
    return this.#submit(
      adminMethods.splitRegion,
      {
        header: this.#header(),
        regionId,
        policy: keys.length > 0 ? SPLIT_USE_KEYS : SPLIT_APPROXIMATE,
        keys: [...keys],
        options: operatorOptions(options),
      },
      options,
    );
  }

  transferLeader(regionId: number, toStore: number, options: OperatorRequestOptions = {}): Promise<Submission> {
    return this.#submit(
      adminMethods.transferLeader,
      { header: this.#header(), regionId, toStore, options: operatorOptions(options) },
      options,
    );
  }

  addPeer(
    regionId: number,
    storeId: number,
    options: OperatorRequestOptions & { readonly learner?: boolean } = {},
  ): Promise<Submission> {
    return this.#submit(
      adminMethods.addPeer,
      {
        header: this.#header(),
        regionId,
        storeId,
        learner: options.learner ?? false,
        options: operatorOptions(options),
      },
      options,
      ['learner'],
    );
  }

  removePeer(regionId: number, storeId: number, options: OperatorRequestOptions = {}): Promise<Submission> {
    return this.#submit(
      adminMethods.removePeer,
      { header: this.#header(), regionId, storeId, options: operatorOptions(options) },
      options,
    );
  }

  /** Running operators. */
  async operators(
    options: CallOptions & { readonly kind?: string; readonly includeWaiting?: boolean } = {},
  ): Promise<readonly OperatorInfo[]> {
    const request = {
      header: this.#header(),
      kind: options.kind ?? '',
      includeWaiting: options.includeWaiting ?? true,
    };
    return (await this.#read(adminMethods.listOperators, request, options, ['kind', 'includeWaiting'])).operators.map(
      operatorFromWire,
    );
  }

  /** One operator, running or ended not too long ago. */
  operator(which: number | { readonly regionId: number }, options: CallOptions = {}): Promise<OperatorInfo> {
    return this.#operator(which, 0, options);
  }

  /** Ended operators, latest first. */
  async finishedOperators(
    options: CallOptions & { readonly limit?: number; readonly regionId?: number; readonly sinceUnixMs?: number } = {},
  ): Promise<readonly OperatorInfo[]> {
    const request = {
      header: this.#header(),
      limit: options.limit ?? 0,
      regionId: options.regionId ?? 0,
      sinceUnixMs: options.sinceUnixMs ?? 0,
    };
    const reply = await this.#read(adminMethods.finishedOperators, request, options, [
      'limit',
      'regionId',
      'sinceUnixMs',
    ]);
    return reply.operators.map(operatorFromWire);
  }

  /** The operator as it ended. One that is not `cancelable` is only forgotten; the stores finish the merge. */
  async cancelOperator(which: number | { readonly regionId: number }, options?: CallOptions): Promise<OperatorInfo> {
    const reply = await this.#change(
      adminMethods.cancelOperator,
      { header: this.#header(), which: whichOperator(which) },
      options,
    );
    return operatorFromWire(present(reply.operator, 'operator'));
  }

  /**
   * Waits until an operator has ended and returns it. Throws `OperatorFailedError` when it ended without success,
   * `DeadlineExceededError` when it still runs at the deadline; waiting less never stops the operator.
   */
  async waitOperator(id: number, options: WaitOperatorOptions = {}): Promise<OperatorInfo> {
    requireKnownOptions('waitOperator', options, ['timeoutMs', 'signal', 'onProgress']);
    requireTimeoutMs(options.timeoutMs, 'timeoutMs');
    const { clock } = this.#core.env;
    const startMs = clock.monoMs();
    const { signal, onProgress } = options;
    const callOptions = signal === undefined ? {} : { signal };
    let latest = await this.#operator(id, 0, callOptions);
    const deadlineMs = startMs + (options.timeoutMs ?? latest.timeoutMs + OPERATOR_MARGIN_MS);
    let seen = '';
    for (;;) {
      const now = progressKey(latest);
      if (now !== seen) {
        seen = now;
        onProgress?.(latest);
      }
      if (isEnded(latest.status)) {
        return requireSuccess(latest);
      }
      const leftMs = deadlineMs - clock.monoMs();
      if (leftMs <= 0) {
        throw new DeadlineExceededError(
          `operator ${id} (${latest.brief}) still runs after ${Math.round(clock.monoMs() - startMs)} ms`,
          {
            hint: `it goes on; look at it again with its id ${id}`,
            details: { operatorId: id, status: latest.status },
          },
        );
      }
      // With a listener, ask often enough for it to see the steps; without one, let the service hold the answer.
      const holdMs = onProgress === undefined ? Math.min(leftMs, OPERATOR_WAIT_MS_MAX) : 0;
      if (holdMs < OPERATOR_POLL_MS) {
        await sleep(clock, Math.min(leftMs, OPERATOR_POLL_MS), 'client-operator-poll', signal);
      }
      latest = await this.#operator(id, Math.floor(holdMs), callOptions);
    }
  }

  /** All checks of a merge with their outcome; changes nothing. */
  async explainMerge(
    merge: { readonly source: number; readonly target: number },
    options: CallOptions & { readonly automatic?: boolean } = {},
  ): Promise<MergeExplanation> {
    const request = {
      header: this.#header(),
      sourceId: merge.source,
      targetId: merge.target,
      automatic: options.automatic ?? false,
    };
    return explanationFromWire(await this.#read(adminMethods.explainMerge, request, options, ['automatic']));
  }

  /** Checkers and schedulers that can be switched off. */
  async switches(options?: CallOptions): Promise<readonly SwitchInfo[]> {
    return (await this.#read(adminMethods.listSwitches, { header: this.#header() }, options)).switches.map(
      switchFromWire,
    );
  }

  /** @param options `offMs`: how long one that is switched off stays so; without it until it is switched on */
  async setSwitch(
    name: string,
    enabled: boolean,
    options: CallOptions & ExpectVersion & { readonly offMs?: number } = {},
  ): Promise<SwitchInfo> {
    const request = {
      header: this.#header(),
      name,
      enabled,
      offMs: options.offMs ?? 0,
      ...expectedVersion(options),
    };
    const reply = await this.#change(adminMethods.setSwitch, request, options, ['offMs', 'expectVersion']);
    return switchFromWire(present(reply.switch, 'switch'));
  }

  /** Keeps a region from being split or merged automatically, or lets it again. @returns whether that changed anything */
  async pinRegion(regionId: number, pinned: boolean, options: CallOptions & ExpectEpoch = {}): Promise<boolean> {
    const request = { header: this.#header(), regionId, pinned, ...expectedEpoch(options) };
    return (await this.#change(adminMethods.pinRegion, request, options, ['expectEpoch'])).changed;
  }

  /**
   * Stops everything that the placement service does with a region, requests of administrators included. Its data is
   * served as before. The pause belongs to the region's keys and survives restarts.
   */
  async pauseRegion(
    regionId: number,
    options: CallOptions & ExpectEpoch & { readonly reason?: string; readonly forMs?: number } = {},
  ): Promise<PauseAnswer> {
    const request = {
      header: this.#header(),
      regionId,
      reason: options.reason ?? '',
      forMs: options.forMs ?? 0,
      ...expectedEpoch(options),
    };
    const known = ['reason', 'forMs', 'expectEpoch'];
    return pauseAnswerFromWire(await this.#change(adminMethods.pauseRegion, request, options, known));
  }

  /** Takes all of the region's keys out of their pauses. */
  async resumeRegion(regionId: number, options: CallOptions & ExpectEpoch = {}): Promise<PauseAnswer> {
    const request = { header: this.#header(), regionId, ...expectedEpoch(options) };
    return pauseAnswerFromWire(await this.#change(adminMethods.resumeRegion, request, options, ['expectEpoch']));
  }

  /**
   * What happened in the cluster, latest last. `afterTerm` is the lead that `afterSequence` counts in, as an earlier
   * answer named it: under another leader numbers begin again and every event is new.
   */
  async events(
    options: CallOptions & {
      readonly afterSequence?: number;
      readonly afterTerm?: number;
      readonly limit?: number;
    } = {},
  ): Promise<ClusterEvents> {
    const request = {
      header: this.#header(),
      afterSequence: options.afterSequence ?? 0,
      afterTerm: options.afterTerm ?? 0,
      limit: options.limit ?? 0,
    };
    const known = ['afterSequence', 'afterTerm', 'limit'];
    return eventsFromWire(await this.#read(adminMethods.listEvents, request, options, known));
  }

  /**
   * What people changed and what was removed, oldest first: kept with the state of the placement service, over restarts
   * and changes of its lead. One answer holds at most 1000 entries; ask again behind the last one.
   */
  async audit(
    options: CallOptions & { readonly afterSequence?: number; readonly limit?: number } = {},
  ): Promise<AuditPage> {
    const request = { header: this.#header(), afterSequence: options.afterSequence ?? 0, limit: options.limit ?? 0 };
    return auditFromWire(await this.#read(adminMethods.listAudit, request, options, ['afterSequence', 'limit']));
  }

  /** Waits up to `drainMs` (default 0) for running calls. A client made by `Braid.admin` leaves the connection open. */
  close(options: { readonly drainMs?: number } = {}): Promise<void> {
    requireKnownOptions('close', options, ['drainMs']);
    return this.#ownsCore ? this.#core.close(options.drainMs ?? 0) : Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #header(): WireHeader {
    return { clusterId: String(this.#core.pd.clusterId), actor: this.#actor, reason: this.#reason };
  }

  async #operator(
    which: number | { readonly regionId: number },
    waitMs: number,
    options: CallOptions,
  ): Promise<OperatorInfo> {
    const request = { header: this.#header(), which: whichOperator(which), waitMs };
    const reply = await this.#call(adminMethods.getOperator, request, options, {
      once: false,
      known: [],
      tryTimeoutMs: waitMs + HOLD_MARGIN_MS,
    });
    return operatorFromWire(present(reply.operator, 'operator'));
  }

  async #submit<Request>(
    method: UnaryMethod<Request, WireSubmission>,
    request: Request,
    options: OperatorRequestOptions,
    more: readonly string[] = [],
  ): Promise<Submission> {
    const reply = await this.#change(method, request, options, [...OPERATOR_OPTIONS, ...more]);
    if (reply.nothingToDo) {
      return { type: 'nothing-to-do' };
    }
    const operator = operatorFromWire(present(reply.operator, 'operator'));
    return { type: options.dryRun === true ? 'planned' : 'started', operator };
  }

  #read<Request, Reply>(
    method: UnaryMethod<Request, Reply>,
    request: Request,
    options: CallOptions | undefined,
    more: readonly string[] = [],
  ): Promise<Reply> {
    return this.#call(method, request, options, { once: false, known: more });
  }

  #change<Request, Reply>(
    method: UnaryMethod<Request, Reply>,
    request: Request,
    options: CallOptions | undefined,
    more: readonly string[] = [],
  ): Promise<Reply> {
    return this.#call(method, request, options, { once: true, known: more });
  }

  async #call<Request, Reply>(
    method: UnaryMethod<Request, Reply>,
    request: Request,
    options: CallOptions | undefined,
    how: {
      readonly once: boolean;
      readonly known: readonly string[];
      readonly tryTimeoutMs?: number;
      /** The answer says more about a refusal than its reason. */
      readonly keepsRefusal?: boolean;
    },
  ): Promise<Reply> {
    requireKnownOptions(method.path, options, [...CALL_OPTIONS, ...how.known]);
    this.#core.requireOpen(method.path, options?.signal);
    // A question is asked again elsewhere when the leader does not answer; a change is sent once and waited for.
    const tryTimeoutMs =
      how.tryTimeoutMs ?? (how.once ? Math.max(PD_TRY_TIMEOUT_MS, options?.timeoutMs ?? 0) : ADMIN_TRY_TIMEOUT_MS);
    const timeoutMs = Math.max(
      requireTimeoutMs(options?.timeoutMs, 'timeoutMs') ?? this.#core.options.timeoutMs,
      how.tryTimeoutMs ?? 0,
    );
    const reply = await this.#core.pd.call(method, request, {
      timeoutMs,
      tryTimeoutMs,
      once: how.once,
      ...(options?.signal === undefined ? {} : { signal: options.signal }),
    });
    const { refusal } = reply as { readonly refusal?: WireRefusal | undefined };
    if (refusal !== undefined && how.keepsRefusal !== true) {
      throw new RefusedError(refusal.code, refusal.message, {
        ...(refusal.hint === '' ? {} : { hint: refusal.hint }),
        details: { ...Object.fromEntries(refusal.details), reason: refusal.code },
      });
    }
    return reply;
  }
}
