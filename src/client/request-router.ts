/**
 * Brings calls to the region they belong to, until one store answers or the deadline passes. Owns routing, the
 * treatment of every region error (wire-protocol rules of errorpb.Error) and the life of calls. Two rules above all:
 * a call ends exactly once, no later than its deadline; a write whose fate is unknown is never sent again.
 *
 *   start ─► routing ─► connecting/queued ─► in-flight ─► answered
 *              ▲                 │ unsent        │ refused, or lost and not a write
 *              └──── backoff ◄───┴───────────────┘
 */
import { assert, unreachable } from '../base/assert.ts';
import { EMPTY_BYTES, compareBytes } from '../base/bytes.ts';
import type { RegionId, StoreId } from '../base/ids.ts';
import type { TimerId } from '../env/clock.ts';
import { type Peer, type Region, isVoterRole } from '../meta/region.ts';
import { type RegionError, formatRegionError } from '../codec/region-error.ts';
import { backoffMs } from './backoff.ts';
import type { Call } from './call.ts';
import { ChannelPool } from './channel-pool.ts';
import { type Answer, type Command, DONE, type Reply } from './command.ts';
import {
  IMMEDIATE_RETRIES_MAX,
  LOOKUPS_MAX,
  LOOKUP_REGIONS,
  PD_TRY_TIMEOUT_MS,
  REGION_BACKOFF_CAP_MS,
  RELOADS_MAX,
  STORE_BACKOFF_CAP_MS,
} from './defaults.ts';
import {
  AbortError,
  ClientClosedError,
  DeadlineExceededError,
  EntryTooLargeError,
  QueueFullError,
  RegionRefusalError,
  ServerRefusedError,
  type TlsError,
  UnavailableError,
  UndeterminedResultError,
  briefOf,
  regionErrorCode,
  tlsErrorOf,
} from './errors.ts';
import type { PdClient } from './pd-client.ts';
import { type CachedRegion, RegionCache } from './region-cache.ts';
import type { ClientEnv, StoreConnOwner } from './store-conn.ts';
import { TimerWheel } from './timer-wheel.ts';
import { type Tracer, outcomeOf } from './trace.ts';
import { methodOf } from './wire.ts';

export interface RequestRouterOptions {
  readonly env: ClientEnv;
  readonly pd: PdClient;
  readonly queueMax: number;
  readonly maxInFlightPerStore: number;
  readonly regionCacheMax: number;
  readonly tracer?: Tracer | undefined;
}

/** The region a batch was grouped by has changed: the caller must group its keys again. */
export class RegroupSignal extends Error {
  /** Why the last try failed, if there was one. */
  override readonly cause: unknown;

  constructor(cause: unknown) {
    super('the regions of a batch have changed');
    this.cause = cause;
  }
}

/** Longest wait a busy server may ask for, ms. */
const BUSY_HINT_MS_MAX = 1000;
/** A region whose leader is unknown is asked for again no sooner than this. */
const RELOAD_INTERVAL_MS = 100;

export class RequestRouter implements StoreConnOwner {
  readonly cache: RegionCache;
  readonly #env: ClientEnv;
  readonly #pd: PdClient;
  readonly #tracer: Tracer | undefined;
  readonly #pool: ChannelPool;
  readonly #queueMax: number;
  /** Regions fetched by one look-up: as many as the cache can take without giving up the one that was asked for. */
  readonly #lookupRegions: number;
  readonly #deadlines: TimerWheel<Call>;
  #active = 0;
  #closed: ClientClosedError | undefined;
  #onIdle: (() => void)[] = [];

  /** Calls whose region is not cached. */
  #waiting: Call[] = [];
  /** Commands whose region is being asked for. */
  readonly #lookups = new Set<Command>();
  #lookupFailures = 0;
  #lookupTimer: TimerId | undefined;
  readonly #reloading = new Map<RegionId, number>();
  readonly #addresses = new Map<StoreId, string>();
  #isPrefetching = false;

  constructor(options: RequestRouterOptions) {
    this.#env = options.env;
    this.#pd = options.pd;
    this.#tracer = options.tracer;
    this.#queueMax = options.queueMax;
    this.#lookupRegions = Math.max(1, Math.min(LOOKUP_REGIONS, Math.floor(options.regionCacheMax / 2)));
    this.cache = new RegionCache(options.regionCacheMax);
    this.#deadlines = new TimerWheel(options.env.clock, 'client-deadline', (call) => this.#onDeadline(call));
    this.#pool = new ChannelPool({
      env: options.env,
      maxInFlightPerStore: options.maxInFlightPerStore,
      queueMax: options.queueMax,
      tracer: options.tracer,
      clusterId: () => String(options.pd.clusterId),
      owner: this,
    });
  }

  /** Calls accepted and not yet ended. */
  get active(): number {
    return this.#active;
  }

  start(call: Call): void {
    if (this.#closed !== undefined) {
      call.phase = 'done';
      call.onError(this.#closed);
      return;
    }
    if (call.signal?.aborted === true) {
      call.phase = 'done';
      call.onError(new AbortError(`${call.describe()} was aborted before it started`, { cause: call.signal.reason }));
      return;
    }
    if (this.#active >= this.#queueMax) {
      call.phase = 'done';
      call.onError(
        new QueueFullError(`${call.describe()} was not accepted: ${this.#active} calls wait for answers already`),
      );
      return;
    }
    this.#active++;
    this.#deadlines.add(call, this.#env.clock.monoMs());
    if (call.signal !== undefined) {
      call.onAbort = () => this.#onAbort(call);
      call.signal.addEventListener('abort', call.onAbort, { once: true });
    }
    this.#dispatch(call);
  }

  /** Resolves when no call is active. */
  idle(): Promise<void> {
    return this.#active === 0 ? Promise.resolve() : new Promise((resolve) => this.#onIdle.push(resolve));
  }

  /** Refuses new calls from now on. */
  stopAccepting(): void {
    this.#closed ??= new ClientClosedError('the client is closed');
  }

  /** Ends every call now. */
  destroy(): void {
    this.stopAccepting();
    if (this.#lookupTimer !== undefined) {
      this.#env.clock.clearTimer(this.#lookupTimer);
      this.#lookupTimer = undefined;
    }
    this.#pool.close(this.#closed);
    this.#waiting = [];
    // What the connections did not hand back waits for a route, a delay or nothing at all.
    this.#deadlines.drain().forEach((call) => this.#fail(call, this.#closedError(call, false)));
  }

  // ------------------------------------------------------------------------------------------------------- dispatch

  #dispatch(call: Call): void {
    const entry = this.#locate(call.command);
    if (entry === undefined) {
      call.phase = 'routing';
      this.#waiting.push(call);
      this.#pumpLookups();
      return;
    }
    if (call.command.type === 'locate') {
      call.entry = entry;
      this.#answer(call, entry, DONE);
      return;
    }
    if (!coversBatch(entry, call.command)) {
      this.#fail(call, new RegroupSignal(call.cause));
      return;
    }
    if (entry.needsReload) {
      this.#reload(entry);
    }
    const peer = this.#choosePeer(entry, call);
    call.entry = entry;
    call.rotation = entry.rotation;
    call.peer = peer;
    if (peer === undefined) {
      entry.needsReload = true;
      const tlsError = this.#tlsErrorOfAll(entry);
      if (tlsError !== undefined) {
        this.#fail(call, tlsError);
        return;
      }
      this.#retryLater(call, this.#noStoreError(entry), 0);
      return;
    }
    this.#pool.conn(peer.storeId).enqueue(call);
  }

  #locate(command: Command): CachedRegion | undefined {
    if (command.type === 'scan' && command.reverse) {
      return this.cache.locateBefore(command.range.end);
    }
    return this.cache.locate(routingKey(command));
  }

  /** Where to send a call now; undefined if no store of the region can be reached. */
  #choosePeer(entry: CachedRegion, call: Call): Peer | undefined {
    const { leader } = entry;
    if (call.read === 'follower') {
      const follower = this.#chooseFollower(entry);
      if (follower !== undefined) {
        return follower;
      }
    }
    if (leader !== undefined) {
      const conn = this.#pool.conn(leader.storeId);
      if (conn.isAvailable) {
        return leader;
      }
      conn.probeIfDue();
      entry.needsReload = true;
    }
    const { peers } = entry.region;
    for (let i = 0; i < peers.length; i++) {
      const peer = peers[(entry.rotation + i) % peers.length] as Peer;
      if (peer === leader || !isVoterRole(peer.role)) {
        continue;
      }
      const conn = this.#pool.conn(peer.storeId);
      if (conn.isAvailable) {
        return peer;
      }
      conn.probeIfDue();
    }
    return undefined;
  }

  #chooseFollower(entry: CachedRegion): Peer | undefined {
    const followers = entry.region.peers.filter(
      (peer) => peer !== entry.leader && isVoterRole(peer.role) && this.#pool.isAvailable(peer.storeId),
    );
    return followers.length === 0 ? undefined : this.#env.rng.pick(followers);
  }

  /** Certificates that no store of the region takes do not become better by waiting. */
  #tlsErrorOfAll(entry: CachedRegion): TlsError | undefined {
    const errors = entry.region.peers
      .filter(({ role }) => isVoterRole(role))
      .map(({ storeId }) => tlsErrorOf(this.#pool.conn(storeId).downCause));
    return errors.includes(undefined) ? undefined : errors[0];
  }

  #noStoreError(entry: CachedRegion): UnavailableError {
    const tried = entry.region.peers.map(({ storeId }) => {
      const conn = this.#pool.conn(storeId);
      return { store: storeId, address: conn.address, failure: briefOf(conn.downCause ?? 'not tried') };
    });
    const list = tried.map(
      ({ store, address, failure }) => `store ${store} at ${address ?? 'unknown address'} (${failure})`,
    );
    return new UnavailableError(`no store of region ${entry.region.id} can be reached; tried ${list.join(', ')}`, {
      details: { regionId: entry.region.id, tried },
    });
  }

  // -------------------------------------------------------------------------------------------------------- answers

  onReply(call: Call, reply: Reply): void {
    const { entry } = call;
    assert(entry !== undefined, 'a reply belongs to a routed call');
    if (this.#tracer !== undefined) {
      this.#traceReply(call, reply);
    }
    switch (reply.type) {
      case 'refused':
        this.#onRefused(call, entry, reply.error);
        return;
      case 'failed':
        this.#fail(call, new ServerRefusedError(`${call.describe()} was refused by ${call.where()}: ${reply.message}`));
        return;
      default: {
        const { peer } = call;
        // An answer proves who leads, unless any replica may serve.
        if (call.read === 'leader' && peer !== undefined && entry.leader !== peer && entry.inCache) {
          this.cache.setLeader(entry, peer);
        }
        this.#answer(call, entry, reply);
      }
    }
  }

  #answer(call: Call, entry: CachedRegion, answer: Answer): void {
    this.#end(call);
    try {
      call.onAnswer(answer, entry);
    } catch (error) {
      call.onError(error);
    }
  }

  onUnsent(call: Call, cause: unknown): void {
    this.#retryAfterFailure(call, cause);
  }

  onLost(call: Call, cause: unknown): void {
    this.#traceRpc(call, outcomeOf(cause), briefOf(cause));
    if (this.#closed !== undefined && cause === this.#closed) {
      this.#fail(call, this.#closedError(call, true));
    } else if (call.isWrite) {
      this.#fail(
        call,
        new UndeterminedResultError(
          `${call.describe()} was sent to ${call.where()}, then the connection broke: ${briefOf(cause)}`,
          {
            cause,
          },
        ),
      );
    } else {
      this.#retryAfterFailure(call, cause);
    }
  }

  #traceReply(call: Call, reply: Reply): void {
    switch (reply.type) {
      case 'refused':
        this.#traceRpc(call, regionErrorCode(reply.error), formatRegionError(reply.error));
        return;
      case 'failed':
        this.#traceRpc(call, 'ServerRefused', reply.message);
        return;
      default:
        this.#traceRpc(call, 'ok', '');
    }
  }

  /** Tells of a command that had been sent. */
  #traceRpc(call: Call, outcome: string, message: string): void {
    if (this.#tracer === undefined) {
      return;
    }
    const storeId = call.peer?.storeId;
    this.#tracer.emit({
      type: 'rpc',
      method: methodOf(call.command),
      endpoint: (storeId === undefined ? undefined : this.#addresses.get(storeId)) ?? 'unknown',
      durationMs: this.#env.clock.monoMs() - call.sentMs,
      outcome,
      message,
      storeId,
      regionId: call.entry?.region.id,
      retries: call.attempts,
    });
  }

  #traceRetry(call: Call, cause: unknown, delayMs: number): void {
    this.#tracer?.emit({
      type: 'retry',
      what: call.describe(),
      attempts: call.attempts,
      delayMs,
      reason: briefOf(cause),
    });
  }

  #retryAfterFailure(call: Call, cause: unknown): void {
    if (this.#closed !== undefined && cause === this.#closed) {
      this.#fail(call, this.#closedError(call, false));
      return;
    }
    if (call.entry !== undefined) {
      call.entry.needsReload = true;
    }
    const where = call.where();
    this.#retryLater(call, new UnavailableError(`${where} cannot be reached: ${briefOf(cause)}`, { cause }), 0);
  }

  async addressOf(store: StoreId, refresh: boolean): Promise<string> {
    const known = this.#addresses.get(store);
    if (known === undefined) {
      return this.#askAddress(store);
    }
    if (refresh) {
      // The next try uses what comes back; this one does not wait for a placement service that may be away.
      this.#askAddress(store).catch(() => {});
    }
    return known;
  }

  async #askAddress(store: StoreId): Promise<string> {
    const { address, state } = await this.#pd.getStore(store, PD_TRY_TIMEOUT_MS);
    if (state === 'tombstone') {
      this.#addresses.delete(store);
      throw new UnavailableError(`store ${store} has been removed from the cluster`);
    }
    this.#addresses.set(store, address);
    return address;
  }

  /** Learns the addresses of all stores at once, so that a leader may move while the placement service is away. */
  #prefetchAddresses(region: Region): void {
    if (this.#isPrefetching || region.peers.every(({ storeId }) => this.#addresses.has(storeId))) {
      return;
    }
    this.#isPrefetching = true;
    this.#pd.getAllStores(PD_TRY_TIMEOUT_MS).then(
      (stores) => {
        this.#isPrefetching = false;
        for (const { id, address, state } of stores) {
          if (state !== 'tombstone') {
            this.#addresses.set(id, address);
          }
        }
      },
      () => {
        // Only a convenience: the first call to a store asks for its address itself.
        this.#isPrefetching = false;
      },
    );
  }

  #onRefused(call: Call, entry: CachedRegion, error: RegionError): void {
    const peer = call.peer as Peer;
    const cause = new RegionRefusalError(error, call.where());
    if (error.type === 'raft-entry-too-large') {
      this.#fail(
        call,
        new EntryTooLargeError(`${call.describe()}: ${cause.message}`, {
          cause,
          details: { sizeBytes: error.entrySizeBytes },
        }),
      );
      return;
    }
    if (error.type === 'undetermined-result' && call.isWrite) {
      this.#fail(call, new UndeterminedResultError(`${call.describe()}: ${cause.message}`, { cause }));
      return;
    }
    if (call.read === 'follower') {
      // Whatever kept the follower from serving, the leader decides.
      call.read = 'leader';
    }
    if (!entry.inCache) {
      // Another call has learnt better meanwhile.
      this.#retryNow(call, cause);
      return;
    }
    switch (error.type) {
      case 'not-leader':
        this.#onNotLeader(call, entry, peer, error.leader, cause);
        return;
      case 'epoch-not-match':
        if (this.cache.learnEpochs(entry, error.currentRegions, peer.storeId) === 'updated') {
          this.#retryNow(call, cause);
        } else {
          this.#retryLater(call, cause, 0);
        }
        return;
      case 'region-not-found':
      case 'key-not-in-region':
      case 'mismatch-peer-id':
        this.cache.drop(entry);
        this.#retryLater(call, cause, 0);
        return;
      case 'store-not-match':
        this.cache.drop(entry);
        this.#addresses.delete(peer.storeId);
        this.#pool.conn(peer.storeId).distrustAddress(cause);
        this.#retryLater(call, cause, 0);
        return;
      case 'stale-command':
      case 'region-not-initialized':
      case 'message':
        this.#tryNextReplica(call, entry, peer);
        this.#retryLater(call, cause, 0);
        return;
      case 'server-is-busy':
        this.#retryLater(call, cause, Math.min(error.backoffMs, BUSY_HINT_MS_MAX));
        return;
      case 'read-index-not-ready':
      case 'proposal-in-merging-mode':
      case 'disk-full':
      case 'recovery-in-progress':
      case 'undetermined-result':
        this.#retryLater(call, cause, 0);
        return;
      default:
        unreachable(error);
    }
  }

  #onNotLeader(call: Call, entry: CachedRegion, asked: Peer, leader: Peer | undefined, cause: unknown): void {
    if (leader === undefined || leader.id === asked.id) {
      this.#tryNextReplica(call, entry, asked);
      this.#retryLater(call, cause, 0);
      return;
    }
    const isKnownPeer = this.cache.setLeader(entry, leader);
    if (isKnownPeer && this.#pool.isAvailable(leader.storeId)) {
      this.#retryNow(call, cause);
      return;
    }
    // The named leader is down or not among the known peers; other replicas may know more.
    if (call.rotation === entry.rotation) {
      entry.rotation++;
    }
    entry.needsReload = true;
    this.#retryLater(call, cause, 0);
  }

  /** Many calls fail together when a leader goes; only the first of them moves on to the next replica. */
  #tryNextReplica(call: Call, entry: CachedRegion, asked: Peer): void {
    const { leader } = entry;
    const isStillBelieved = leader !== undefined && leader.id !== asked.id && this.#pool.isAvailable(leader.storeId);
    if (call.rotation === entry.rotation && !isStillBelieved) {
      this.cache.forgetLeader(entry);
    }
  }

  // -------------------------------------------------------------------------------------------------------- retries

  /** For refusals that named a better route. */
  #retryNow(call: Call, cause: unknown): void {
    if (call.immediate >= IMMEDIATE_RETRIES_MAX) {
      this.#retryLater(call, cause, 0);
      return;
    }
    call.cause = cause;
    call.attempts++;
    call.immediate++;
    this.#traceRetry(call, cause, 0);
    this.#dispatch(call);
  }

  #retryLater(call: Call, cause: unknown, atLeastMs: number): void {
    call.cause = cause;
    call.attempts++;
    call.immediate = 0;
    call.phase = 'backoff';
    const delayMs = Math.max(atLeastMs, backoffMs(this.#env.rng, call.backoffs, REGION_BACKOFF_CAP_MS));
    call.backoffs++;
    if (this.#env.clock.monoMs() + delayMs >= call.dueMs) {
      // The deadline comes first and ends the call.
      return;
    }
    this.#traceRetry(call, cause, delayMs);
    call.backoffTimer = this.#env.clock.setTimer(
      delayMs,
      () => {
        call.backoffTimer = undefined;
        this.#dispatch(call);
      },
      'client-backoff',
    );
  }

  // -------------------------------------------------------------------------------------------------------- look-ups

  #pumpLookups(): void {
    if (this.#lookupTimer !== undefined) {
      return;
    }
    // After a failure one look-up at a time finds out whether the placement service is back.
    const most = this.#lookupFailures > 0 ? 1 : LOOKUPS_MAX;
    const free = most - this.#lookups.size;
    if (free <= 0) {
      return;
    }
    const candidates = this.#waiting.filter((call) => call.phase === 'routing' && !this.#lookups.has(call.command));
    // Spread over the list: neighbours are often answered by the same look-up.
    const step = Math.max(1, Math.floor(candidates.length / free));
    for (let i = 0; i < candidates.length && this.#lookups.size < most; i += step) {
      void this.#lookup((candidates[i] as Call).command);
    }
  }

  async #lookup(command: Command): Promise<void> {
    this.#lookups.add(command);
    let failure: unknown;
    try {
      if (command.type === 'scan' && command.reverse) {
        await this.loadBefore(command.range.end, PD_TRY_TIMEOUT_MS);
      } else {
        await this.load(routingKey(command), this.#lookupRegions, PD_TRY_TIMEOUT_MS);
      }
    } catch (cause) {
      failure = cause;
    }
    this.#lookups.delete(command);
    if (this.#closed !== undefined && this.#active === 0) {
      return;
    }
    const waiting = this.#waiting.filter((call) => call.phase === 'routing');
    this.#waiting = [];
    if (failure !== undefined) {
      this.#lookupFailures++;
      const delayMs = backoffMs(this.#env.rng, this.#lookupFailures, STORE_BACKOFF_CAP_MS);
      const attempts = this.#lookupFailures;
      const what = 'the search for a region';
      this.#tracer?.emit({ type: 'retry', what, attempts, delayMs, reason: briefOf(failure) });
      for (const call of waiting) {
        call.cause = failure;
      }
      this.#waiting = waiting;
      this.#lookupTimer ??= this.#env.clock.setTimer(
        delayMs,
        () => {
          this.#lookupTimer = undefined;
          this.#pumpLookups();
        },
        'client-lookup',
      );
      return;
    }
    this.#lookupFailures = 0;
    for (const call of waiting) {
      if (this.#locate(call.command) !== undefined) {
        this.#dispatch(call);
      } else if (call.command === command) {
        // The placement service knows no region here, or an older one than the cache does.
        const what = new UnavailableError(`the placement service names no current region for ${call.describe()}`);
        this.#retryLater(call, what, 0);
      } else {
        this.#waiting.push(call);
      }
    }
    this.#pumpLookups();
  }

  /** Fetches the region that contains `key` and some that follow, and caches them. */
  async load(key: Uint8Array, count: number, timeoutMs: number): Promise<void> {
    for (const route of await this.#pd.scanRegions(key, EMPTY_BYTES, count, timeoutMs)) {
      this.cache.insert(route.region, route.leader);
      this.#prefetchAddresses(route.region);
    }
  }

  /** Fetches the region of the keys directly below `end`, which must not be empty. */
  async loadBefore(end: Uint8Array, timeoutMs: number): Promise<void> {
    const at = await this.#pd.getRegion(end, timeoutMs);
    const route =
      at !== undefined && compareBytes(at.region.range.start, end) === 0
        ? await this.#pd.getPreviousRegion(end, timeoutMs)
        : at;
    if (route !== undefined) {
      this.cache.insert(route.region, route.leader);
    }
  }

  /** Asks for a region again while calls go on with what is known. */
  #reload(entry: CachedRegion): void {
    const { id, range } = entry.region;
    const notBefore = this.#reloading.get(id) ?? 0;
    const nowMs = this.#env.clock.monoMs();
    if (nowMs < notBefore) {
      return;
    }
    if (this.#reloading.size >= RELOADS_MAX) {
      for (const [other, until] of this.#reloading) {
        if (until <= nowMs) {
          this.#reloading.delete(other);
        }
      }
      if (this.#reloading.size >= RELOADS_MAX) {
        return;
      }
    }
    entry.needsReload = false;
    this.#reloading.set(id, Infinity);
    const done = (): void => {
      this.#reloading.set(id, this.#env.clock.monoMs() + RELOAD_INTERVAL_MS);
    };
    this.#pd.getRegion(range.start, PD_TRY_TIMEOUT_MS).then(
      (route) => {
        done();
        if (route !== undefined) {
          this.cache.insert(route.region, route.leader);
        }
      },
      () => {
        // The cached view stays; the next failed try asks again.
        done();
      },
    );
  }

  // --------------------------------------------------------------------------------------------------------- endings

  #onDeadline(call: Call): void {
    const { phase } = call;
    const wasSent = phase === 'in-flight';
    if (wasSent) {
      this.#traceRpc(call, 'DEADLINE_EXCEEDED', `no answer within ${call.timeoutMs} ms`);
    }
    const tries = `${call.attempts + (wasSent ? 1 : 0)} ${call.attempts + (wasSent ? 1 : 0) === 1 ? 'try' : 'tries'}`;
    const last = call.cause === undefined ? '' : `; last failure: ${briefOf(call.cause)}`;
    const text = `${call.describe()} took longer than ${call.timeoutMs} ms (${phase}, ${tries}, ${call.where()})${last}`;
    const details = { phase, attempts: call.attempts, timeoutMs: call.timeoutMs, regionId: call.entry?.region.id };
    const options = { cause: call.cause, details };
    if (wasSent) {
      this.#fail(
        call,
        new DeadlineExceededError(text, {
          ...options,
          outcome: call.isWrite ? 'unknown' : 'not-applied',
          ...(call.isWrite
            ? { hint: 'the write may or may not have happened: read the key before writing again' }
            : {}),
        }),
      );
      return;
    }
    const unavailable =
      call.cause instanceof UnavailableError
        ? new UnavailableError(text, { ...options, details: { ...details, ...call.cause.details } })
        : phase === 'routing'
          ? this.#pd.unavailableError(call.describe())
          : undefined;
    this.#fail(call, unavailable ?? new DeadlineExceededError(text, options));
  }

  #onAbort(call: Call): void {
    const wasSent = call.phase === 'in-flight';
    if (wasSent) {
      this.#traceRpc(call, 'CANCELLED', 'aborted by the caller');
    }
    this.#fail(
      call,
      new AbortError(`${call.describe()} was aborted (${call.phase}, ${call.where()})`, {
        cause: call.signal?.reason,
        outcome: wasSent && call.isWrite ? 'unknown' : 'not-applied',
      }),
    );
  }

  #closedError(call: Call, wasSent: boolean): ClientClosedError {
    return new ClientClosedError(`${call.describe()} was cut off because the client was closed`, {
      outcome: wasSent && call.isWrite ? 'unknown' : 'not-applied',
    });
  }

  #fail(call: Call, error: unknown): void {
    this.#end(call);
    call.onError(error);
  }

  #end(call: Call): void {
    assert(call.phase !== 'done', 'a call ends once');
    call.conn?.release(call);
    call.phase = 'done';
    call.conn = undefined;
    this.#deadlines.remove(call);
    if (call.backoffTimer !== undefined) {
      this.#env.clock.clearTimer(call.backoffTimer);
      call.backoffTimer = undefined;
    }
    if (call.onAbort !== undefined) {
      call.signal?.removeEventListener('abort', call.onAbort);
      call.onAbort = undefined;
    }
    this.#active--;
    if (this.#active === 0 && this.#onIdle.length > 0) {
      const waiting = this.#onIdle;
      this.#onIdle = [];
      for (const resolve of waiting) {
        resolve();
      }
    }
  }
}

/** The key that decides which region a command goes to. */
function routingKey(command: Command): Uint8Array {
  switch (command.type) {
    case 'batch-get':
    case 'batch-delete':
      return command.keys[0] as Uint8Array;
    case 'batch-put':
      return (command.entries[0] as { key: Uint8Array }).key;
    case 'scan':
    case 'delete-range':
      return command.range.start;
    default:
      return command.key;
  }
}

/** Keys are sorted, so a region with the first and the last of them has them all. */
function coversBatch(entry: CachedRegion, command: Command): boolean {
  switch (command.type) {
    case 'batch-get':
    case 'batch-delete':
      return entry.contains(command.keys.at(-1) as Uint8Array);
    case 'batch-put':
      return entry.contains((command.entries.at(-1) as { key: Uint8Array }).key);
    default:
      return true;
  }
}
