/**
 * Routing questions to the placement service. Knows its members, follows its leader, holds the cluster id every answer
 * must carry. Must never cache regions; that is the region cache's business.
 */
import type { RegionId, StoreId } from '../base/ids.ts';
import { sleep } from '../env/clock.ts';
import { type CallOptions as ChannelCallOptions, type Channel, RpcError, RpcStatus } from '../env/net.ts';
import { fromWireStore } from '../codec/meta-wire.ts';
import { fromWireRoute } from '../codec/pd-wire.ts';
import type { RegionRoute } from '../meta/heartbeat.ts';
import type { Store } from '../meta/region.ts';
import { unaryCall } from '../rpc/call.ts';
import type { UnaryMethod } from '../rpc/method.ts';
import { pdMethods } from '../rpc/services.ts';
import { backoffMs } from './backoff.ts';
import { PD_TRY_TIMEOUT_MS, STORE_BACKOFF_CAP_MS } from './defaults.ts';
import {
  AbortError,
  type BraidError,
  ClusterMismatchError,
  DeadlineExceededError,
  ServerRefusedError,
  type TlsError,
  UnavailableError,
  briefOf,
  tlsErrorOf,
} from './errors.ts';
import { parseEndpoint } from './options.ts';
import type { ClientEnv } from './store-conn.ts';
import type { Tracer } from './trace.ts';

export interface PdClientOptions {
  readonly env: ClientEnv;
  readonly endpoints: readonly string[];
  readonly name: string;
  readonly tracer?: Tracer | undefined;
}

export interface PdHeader {
  /** Decimal. */
  readonly clusterId: string;
  readonly senderId: number;
  readonly callerId: string;
  readonly callerComponent: string;
}

interface PdError {
  readonly type: number;
  readonly message: string;
}

interface Members {
  readonly clusterId: bigint;
  /** `host:port`; undefined during an election. */
  readonly leader: string | undefined;
  readonly addresses: readonly string[];
}

/** pdpb.ErrorType of a cluster without a first store. */
const NOT_BOOTSTRAPPED = 2;

/** How long other endpoints are waited for after the first one said who leads, if its answer is in doubt. */
const DISCOVERY_GRACE_MS = 100;

/** When answers of several endpoints are compared at the start, how long slow ones are waited for. */
const IDENTITY_GRACE_MS = 200;

export class PdClient {
  readonly #env: ClientEnv;
  readonly #name: string;
  readonly #tracer: Tracer | undefined;
  readonly #channels = new Map<string, Channel>();
  readonly #userEndpoints: ReadonlySet<string>;
  /** Endpoints in the order they are tried; the user's first, then members that introduced themselves. */
  #endpoints: readonly string[];
  #leader: string | undefined;
  #clusterId = 0n;
  /** Latest failure of each endpoint since it last worked. */
  readonly #failures = new Map<string, string>();
  /** Those of them that no retry mends. */
  readonly #tlsFailures = new Map<string, TlsError>();
  #discovery: Promise<string> | undefined;
  #isClosed = false;

  constructor(options: PdClientOptions) {
    this.#env = options.env;
    this.#name = options.name;
    this.#tracer = options.tracer;
    this.#endpoints = options.endpoints;
    this.#userEndpoints = new Set(options.endpoints);
  }

  /** 0 until an endpoint has answered. */
  get clusterId(): bigint {
    return this.#clusterId;
  }

  /** `host:port` of the leader as far as known. */
  get leader(): string | undefined {
    return this.#leader;
  }

  get endpoints(): readonly string[] {
    return this.#endpoints;
  }

  /** The error to give a user when routing did not succeed; undefined if the service answers. */
  unavailableError(what: string): UnavailableError | undefined {
    if (this.#failures.size === 0) {
      return undefined;
    }
    const tried = this.#endpoints.map((endpoint) => ({
      endpoint,
      failure: this.#failures.get(endpoint) ?? 'not tried',
    }));
    const list = tried.map(({ endpoint, failure }) => `${endpoint} (${failure})`).join(', ');
    return new UnavailableError(`${what}: the placement service cannot be reached; tried ${list}`, {
      hint: 'check that the service runs and that the option pd names its host and port',
      details: { tried },
    });
  }

  /** Finds the members and the leader and fixes the cluster id. Endpoints of different clusters are refused. */
  async connect(timeoutMs: number): Promise<void> {
    const deadlineMs = this.#env.clock.monoMs() + timeoutMs;
    await this.#compareIdentities(Math.min(timeoutMs, PD_TRY_TIMEOUT_MS));
    await this.#retrying('connect', deadlineMs, undefined, async () => {
      await this.#findLeader();
    });
  }

  async getRegion(key: Uint8Array, timeoutMs: number): Promise<RegionRoute | undefined> {
    const reply = await this.#ask(
      pdMethods.getRegion,
      { header: this.#header(), regionKey: key, needBuckets: false },
      timeoutMs,
    );
    return fromWireRoute(reply);
  }

  /** The region directly left of the one that contains `key`. */
  async getPreviousRegion(key: Uint8Array, timeoutMs: number): Promise<RegionRoute | undefined> {
    const reply = await this.#ask(
      pdMethods.getPrevRegion,
      { header: this.#header(), regionKey: key, needBuckets: false },
      timeoutMs,
    );
    return fromWireRoute(reply);
  }

  async getRegionById(id: RegionId, timeoutMs: number): Promise<RegionRoute | undefined> {
    const reply = await this.#ask(
      pdMethods.getRegionByID,
      { header: this.#header(), regionId: id, needBuckets: false },
      timeoutMs,
    );
    return fromWireRoute(reply);
  }

  /** At most `limit` regions in key order, beginning with the one that contains `start`. An empty end means no bound. */
  async scanRegions(
    start: Uint8Array,
    end: Uint8Array,
    limit: number,
    timeoutMs: number,
  ): Promise<readonly RegionRoute[]> {
    const request = { header: this.#header(), startKey: start, endKey: end, limit };
    const { regions } = await this.#ask(pdMethods.scanRegions, request, timeoutMs);
    return regions.map(fromWireRoute).filter((route) => route !== undefined);
  }

  /** Rejects for ids that the placement service never gave out. */
  async getStore(id: StoreId, timeoutMs: number): Promise<Store> {
    const { store } = await this.#ask(pdMethods.getStore, { header: this.#header(), storeId: id }, timeoutMs);
    if (store === undefined) {
      throw new ServerRefusedError(`the placement service knows no store ${id}`);
    }
    return fromWireStore(store);
  }

  async getAllStores(timeoutMs: number): Promise<readonly Store[]> {
    const request = { header: this.#header(), excludeTombstoneStores: false };
    return (await this.#ask(pdMethods.getAllStores, request, timeoutMs)).stores.map(fromWireStore);
  }

  /**
   * Calls the leader, follows leader changes and tries again until the deadline. Only for calls that may be repeated,
   * unless `once` is set: then a request that may have arrived is not sent again.
   */
  async call<Request, Reply>(
    method: UnaryMethod<Request, Reply>,
    request: Request,
    options: {
      readonly timeoutMs: number;
      readonly signal?: AbortSignal;
      readonly once?: boolean;
      readonly tryTimeoutMs?: number;
      readonly metadata?: Readonly<Record<string, string>>;
    },
  ): Promise<Reply> {
    const deadlineMs = this.#env.clock.monoMs() + options.timeoutMs;
    return this.#retrying(method.path, deadlineMs, options.signal, async (leftMs) => {
      const address = this.#leader ?? (await this.#findLeader());
      try {
        const timeoutMs = Math.min(leftMs, options.tryTimeoutMs ?? PD_TRY_TIMEOUT_MS);
        const reply = await this.#unary(address, method, request, {
          timeoutMs,
          ...(options.signal === undefined ? {} : { signal: options.signal }),
          ...(options.metadata === undefined ? {} : { metadata: options.metadata }),
        });
        this.#noteSuccess(address);
        return reply;
      } catch (cause) {
        if (options.signal?.aborted === true) {
          throw new AbortError(`${method.path} was aborted`, {
            cause: options.signal.reason,
            outcome: options.once === true ? 'unknown' : 'not-applied',
          });
        }
        if (isRoutingFailure(cause)) {
          this.#noteFailure(address, cause);
          if (options.once === true && !isRefusedByFollower(cause) && !(cause instanceof RpcError && !cause.sent)) {
            throw new UnavailableError(
              `${method.path} was sent to ${address}, then the call failed: ${briefOf(cause)}`,
              {
                cause,
                outcome: 'unknown',
                hint: 'the request may have been carried out: look before sending it again',
              },
            );
          }
          throw cause;
        }
        throw cause instanceof RpcError ? refusalOf(method.path, cause) : cause;
      }
    });
  }

  /** A call of pdpb.PD: as `call`, and a header error becomes an exception. */
  async #ask<Request, Reply extends { readonly header?: { readonly error?: PdError | undefined } | undefined }>(
    method: UnaryMethod<Request, Reply>,
    request: Request,
    timeoutMs: number,
  ): Promise<Reply> {
    const reply = await this.call(method, request, { timeoutMs });
    const error = reply.header?.error;
    if (error !== undefined && error.type === NOT_BOOTSTRAPPED) {
      throw new UnavailableError('the cluster has no store yet', {
        hint: 'start a store; the first one creates the first region',
      });
    }
    if (error !== undefined && error.type !== 0) {
      throw new ServerRefusedError(`${method.path}: ${error.message}`, { details: { type: error.type } });
    }
    return reply;
  }

  close(): void {
    this.#isClosed = true;
    for (const channel of this.#channels.values()) {
      channel.close();
    }
    this.#channels.clear();
  }

  #header(): PdHeader {
    return { clusterId: String(this.#clusterId), senderId: 0, callerId: this.#name, callerComponent: 'braidkv' };
  }

  /** Asks one endpoint who the members are. */
  async #members(endpoint: string, timeoutMs: number): Promise<Members> {
    const reply = await this.#unary(endpoint, pdMethods.getMembers, { header: this.#header() }, { timeoutMs });
    const clusterId = BigInt(reply.header?.clusterId ?? 0);
    if (clusterId === 0n) {
      throw new RpcError(RpcStatus.UNAVAILABLE, 'the endpoint names no cluster');
    }
    const addressOf = (member: { readonly clientUrls: readonly string[] } | undefined): string | undefined =>
      member?.clientUrls[0] === undefined ? undefined : parseEndpoint(member.clientUrls[0]);
    return {
      clusterId,
      leader: addressOf(reply.leader),
      addresses: reply.members.map(addressOf).filter((address) => address !== undefined),
    };
  }

  #unary<Request, Reply>(
    address: string,
    method: UnaryMethod<Request, Reply>,
    request: Request,
    options: ChannelCallOptions,
  ): Promise<Reply> {
    const call = (): Promise<Reply> => unaryCall(this.#channel(address), method, request, options);
    return this.#tracer === undefined ? call() : this.#tracer.call({ method: method.path, endpoint: address }, call);
  }

  #channel(address: string): Channel {
    let channel = this.#channels.get(address);
    if (channel === undefined) {
      channel = this.#env.net.dial(address);
      this.#channels.set(address, channel);
    }
    return channel;
  }

  #noteSuccess(address: string): void {
    this.#failures.delete(address);
    this.#tlsFailures.delete(address);
  }

  #noteFailure(address: string, cause: unknown): void {
    this.#failures.set(address, briefOf(cause));
    const tlsError = tlsErrorOf(cause);
    if (tlsError === undefined) {
      this.#tlsFailures.delete(address);
    } else {
      this.#tlsFailures.set(address, tlsError);
    }
    if (this.#leader === address) {
      this.#leader = undefined;
    }
    if (
      cause instanceof RpcError &&
      (cause.status === RpcStatus.UNAVAILABLE || cause.status === RpcStatus.DEADLINE_EXCEEDED)
    ) {
      // A fresh channel next time: the transport's own reconnect delays must not add to ours.
      this.#channels.get(address)?.close();
      this.#channels.delete(address);
    }
  }

  /** Runs `step` until it succeeds, fails for good or the deadline passes. */
  async #retrying<R>(
    what: string,
    deadlineMs: number,
    signal: AbortSignal | undefined,
    step: (leftMs: number) => Promise<R>,
  ): Promise<R> {
    for (let attempt = 0; ; attempt++) {
      const leftMs = deadlineMs - this.#env.clock.monoMs();
      try {
        // A first try is made even when nearly no time is left, so that its failure can be named.
        return await step(Math.max(1, leftMs));
      } catch (cause) {
        if (!isRoutingFailure(cause) || this.#isClosed || signal?.aborted === true) {
          throw cause;
        }
        const delayMs = attempt === 0 ? 0 : backoffMs(this.#env.rng, attempt, STORE_BACKOFF_CAP_MS);
        if (this.#env.clock.monoMs() + delayMs >= deadlineMs) {
          throw (
            this.unavailableError(what) ??
            new DeadlineExceededError(`${what} got no answer from the placement service in time: ${briefOf(cause)}`, {
              cause,
            })
          );
        }
        this.#tracer?.emit({ type: 'retry', what, attempts: attempt + 1, delayMs, reason: briefOf(cause) });
        if (delayMs > 0) {
          await sleep(this.#env.clock, delayMs, 'client-pd-backoff', signal);
        }
      }
    }
  }

  /** One search for all callers that need one. */
  #findLeader(): Promise<string> {
    this.#discovery ??= this.#discover().finally(() => {
      this.#discovery = undefined;
    });
    return this.#discovery;
  }

  /**
   * Asks all endpoints at once who leads and takes the first answer that names a member which did not fail lately. One
   * that did fail is taken when nobody names another soon: it may be back, or its followers do not know yet.
   */
  async #discover(): Promise<string> {
    let last: unknown = new RpcError(RpcStatus.UNAVAILABLE, 'no member of the placement service names a leader');
    let doubtful: { readonly members: Members; readonly leader: string } | undefined;
    const endpoints = this.#endpoints;
    const grace = new AbortController();
    const found = await new Promise<{ readonly members: Members; readonly leader: string } | undefined>(
      (resolve, reject) => {
        let open = endpoints.length;
        const settle = (): void => {
          open--;
          if (open === 0) {
            resolve(doubtful);
          }
        };
        const answered = (endpoint: string, members: Members): void => {
          this.#acceptIdentity(endpoint, members.clusterId);
          const { leader } = members;
          if (leader === undefined) {
            this.#failures.set(endpoint, 'knows no leader');
          } else if (this.#failures.has(leader) && leader !== endpoint) {
            doubtful ??= { members, leader };
          } else {
            resolve({ members, leader });
          }
          // Those that do not answer soon after the first one are not waited for.
          sleep(this.#env.clock, DISCOVERY_GRACE_MS, 'client-discovery', grace.signal).then(
            () => resolve(doubtful),
            () => undefined,
          );
        };
        for (const endpoint of endpoints) {
          this.#members(endpoint, PD_TRY_TIMEOUT_MS)
            .then(
              (members) => {
                if (members.leader !== undefined) {
                  this.#noteSuccess(endpoint);
                }
                answered(endpoint, members);
              },
              (cause: unknown) => {
                this.#noteFailure(endpoint, cause);
                last = cause;
              },
            )
            .then(settle, reject);
        }
      },
    ).finally(() => grace.abort());
    if (found === undefined) {
      this.#throwIfTls();
      // Whatever the endpoints said, none of them is a member that knows the leader, and that may change.
      throw new RpcError(RpcStatus.UNAVAILABLE, briefOf(last), { cause: last });
    }
    this.#acceptMembers(found.members, found.leader);
    return found.leader;
  }

  /** Certificates that no endpoint takes do not become better by waiting; one that answers is reason to go on. */
  #throwIfTls(): void {
    const [first] = this.#tlsFailures.values();
    if (first !== undefined && this.#endpoints.every((endpoint) => this.#tlsFailures.has(endpoint))) {
      throw first;
    }
  }

  #acceptIdentity(endpoint: string, clusterId: bigint): void {
    if (this.#clusterId === 0n) {
      this.#clusterId = clusterId;
    } else if (clusterId !== this.#clusterId) {
      throw new ClusterMismatchError(
        `${endpoint} belongs to cluster ${clusterId}, but this client to cluster ${this.#clusterId}`,
        {
          details: { endpoint, clusterId: String(clusterId), expected: String(this.#clusterId) },
        },
      );
    }
  }

  #acceptMembers(members: Members, leader: string): void {
    if (leader !== this.#leader) {
      this.#env.log.info({ leader }, 'placement leader found');
      this.#tracer?.emit({ type: 'leader', endpoint: leader });
    }
    this.#leader = leader;
    const introduced = members.addresses.filter((address) => !this.#endpoints.includes(address));
    this.#endpoints = [...this.#endpoints, ...introduced].filter(
      // A member that left stays only if nobody was introduced in its place or the user named it.
      (address) => address === leader || members.addresses.includes(address) || this.#userEndpoints.has(address),
    );
  }

  /** Asks every endpoint for its cluster; endpoints that do not answer soon after the first one are not waited for. */
  async #compareIdentities(timeoutMs: number): Promise<void> {
    const seen = new Map<bigint, string>();
    let answered: () => void = () => {};
    const first = new Promise<void>((resolve) => {
      answered = resolve;
    });
    const asked = Promise.all(
      this.#endpoints.map(async (endpoint) => {
        try {
          const members = await this.#members(endpoint, timeoutMs);
          seen.set(members.clusterId, endpoint);
          this.#noteSuccess(endpoint);
          answered();
        } catch (cause) {
          this.#noteFailure(endpoint, cause);
        }
      }),
    );
    const grace = new AbortController();
    await Promise.race([
      asked,
      first.then(() => sleep(this.#env.clock, IDENTITY_GRACE_MS, 'client-identity', grace.signal)),
    ]);
    grace.abort();
    if (seen.size > 1) {
      const list = [...seen].map(([id, endpoint]) => `${endpoint} is of cluster ${id}`).join(', ');
      throw new ClusterMismatchError(`the placement endpoints belong to different clusters: ${list}`);
    }
  }
}

/** Failures that another endpoint, or the same one a little later, may not have. */
function isRoutingFailure(cause: unknown): boolean {
  return (
    cause instanceof RpcError &&
    (cause.status === RpcStatus.UNAVAILABLE ||
      cause.status === RpcStatus.DEADLINE_EXCEEDED ||
      cause.status === RpcStatus.CANCELLED ||
      isRefusedByFollower(cause))
  );
}

/** Members that do not lead say so in words. */
const isRefusedByFollower = (cause: unknown): boolean =>
  cause instanceof RpcError && /not leader|no leader|not primary|is not served/.test(cause.message);

function refusalOf(what: string, cause: RpcError): BraidError {
  if (/mismatch cluster id/.test(cause.message)) {
    return new ClusterMismatchError(`${what}: ${cause.message}`, { cause });
  }
  return new ServerRefusedError(`${what}: ${cause.message}`, { cause, details: { status: cause.status } });
}
