/**
 * The placement service as a store uses it: calls that follow the leader, and one stream that carries region reports
 * there and operator steps back. Loses nothing that matters when the service is away: reports are repeated on the next
 * connection, calls fail within their deadline and their callers try again.
 */
import { AppError } from '../base/app-error.ts';
import type { RegionId, StoreId } from '../base/ids.ts';
import { BadMessageError } from '../codec/bad-message-error.ts';
import { fromWireStore, toRegionId, toWireRegion, toWireStore } from '../codec/meta-wire.ts';
import {
  fromWireReply,
  fromWireRoute,
  fromWireSplitIds,
  toRequestHeader,
  toWireReport,
  toWireStoreReport,
} from '../codec/pd-wire.ts';
import { UnavailableError } from '../client/errors.ts';
import { PdClient as RoutingClient } from '../client/pd-client.ts';
import { StoreRolledBackError } from '../raftstore/store/bootstrap.ts';
import { STORE_STARTS } from './transport/identity.ts';
import type { Clock, TimerId } from '../env/clock.ts';
import type { Logger } from '../env/log.ts';
import { type Channel, type Net, RpcError, RpcStatus } from '../env/net.ts';
import type { Rng } from '../env/rng.ts';
import type { RegionReport } from '../gen/braid/placement/v1/placement.ts';
import { ErrorType, type RegionHeartbeatResponse, type RequestHeader, SplitReason } from '../gen/pdpb.ts';
import type { RegionHeartbeat, RegionHeartbeatReply, StoreHeartbeat } from '../meta/heartbeat.ts';
import type { Region, Store } from '../meta/region.ts';
import type { PdClient } from '../raftstore/context.ts';
import type { SplitIdsResult } from '../raftstore/msg.ts';
import type { SplitCause } from '../raftstore/store/counters.ts';
import { openStream, type TypedStream } from '../rpc/call.ts';
import type { UnaryMethod } from '../rpc/method.ts';
import { pdMethods, placementMethods } from '../rpc/services.ts';

/** Deadline of one question to the placement service. */
/** The public protocol has one word for too many bytes and too many keys. */
const SPLIT_REASONS: Readonly<Record<SplitCause, SplitReason>> = {
  admin: SplitReason.ADMIN,
  size: SplitReason.SIZE,
  keys: SplitReason.SIZE,
  load: SplitReason.LOAD,
};
const CALL_TIMEOUT_MS = 5_000;
/** How long one attempt of a starting store may take before the reason is logged. */
const CONNECT_ROUND_MS = 3_000;
/** Bounds of the pause before the report stream is opened again. */
const STREAM_PAUSE_MIN_MS = 100;
const STREAM_PAUSE_MAX_MS = 2_000;
/** Reports that a slow service has not taken yet; more wait here, the latest of each region. */
const STREAM_BUFFER_MAX_BYTES: number = 4 * 1024 * 1024;
/** Reports older than this are not repeated on a new connection: the region may have a leader elsewhere by now. */
const REPEAT_AGE_MAX_MS = 30_000;

/** The placement service answered, and the answer is no. */
export class PlacementRefusedError extends AppError {
  readonly type: ErrorType;

  constructor(call: string, type: ErrorType, message: string, hint: string) {
    super('PlacementRefused', `${call}: ${message}`, { hint, details: { type } });
    this.type = type;
  }
}

/** The store was removed from the cluster for good. */
export class StoreRemovedError extends AppError {
  constructor(storeId: number) {
    super('StoreRemoved', `store ${storeId} was removed from the cluster and cannot come back`, {
      hint: 'its data is replicated elsewhere: delete the data directory and start an empty store',
      details: { storeId },
    });
  }
}

export interface StorePdOptions {
  readonly env: { readonly net: Net; readonly clock: Clock; readonly rng: Rng; readonly log: Logger };
  readonly endpoints: readonly string[];
}

type StreamState =
  | { readonly type: 'closed' }
  | { readonly type: 'connecting' }
  | { readonly type: 'pausing'; readonly timer: TimerId }
  | {
      readonly type: 'open';
      readonly leader: string;
      readonly channel: Channel;
      readonly stream: TypedStream<RegionReport, RegionHeartbeatResponse>;
    };

interface Report {
  readonly heartbeat: RegionHeartbeat;
  readonly atMs: number;
}

export class StorePd implements PdClient {
  readonly #options: StorePdOptions;
  readonly #client: RoutingClient;
  #storeId = 0;
  #stream: StreamState = { type: 'closed' };
  #isStarted = false;
  #pauses = 0;
  /** Latest report of each region. */
  readonly #reports = new Map<RegionId, Report>();
  /** Regions whose latest report was not given to the stream yet. */
  readonly #unsent = new Set<RegionId>();
  #flushScheduled = false;
  /** A step for a region of this store. Set before {@link start}. */
  onStep: (reply: RegionHeartbeatReply) => void = () => undefined;
  /** This store is not a member any more. Set before {@link start}. */
  onRemoved: () => void = () => undefined;

  constructor(options: StorePdOptions) {
    this.#options = options;
    this.#client = new RoutingClient({ env: options.env, endpoints: options.endpoints, name: 'braid-store' });
  }

  /** 0 before {@link connect}. */
  get clusterId(): bigint {
    return this.#client.clusterId;
  }

  /** Whether reports reach the placement service at present. */
  get isStreaming(): boolean {
    return this.#stream.type === 'open';
  }

  // ------------------------------------------------------------------------------------------------- start and stop

  /**
   * Waits until the placement service answers; an aborted `signal` ends the wait at its next round.
   * @throws UnavailableError naming every endpoint, ClusterMismatchError
   */
  async connect(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const { clock, log } = this.#options.env;
    const deadlineMs = clock.monoMs() + timeoutMs;
    for (;;) {
      const leftMs = deadlineMs - clock.monoMs();
      try {
        await this.#client.connect(Math.max(1, Math.min(leftMs, CONNECT_ROUND_MS)));
        return;
      } catch (cause) {
        if (!(cause instanceof UnavailableError)) {
          throw cause;
        }
        if (clock.monoMs() + CONNECT_ROUND_MS / 2 >= deadlineMs || signal?.aborted === true) {
          throw new UnavailableError(cause.message, {
            cause,
            details: cause.details,
            hint: 'check that "braid pd" runs and that --pd names its host and port',
          });
        }
        log.warn({ reason: cause.message }, 'waiting for the placement service');
      }
    }
  }

  /** Opens the report stream and keeps it open. */
  start(storeId: number): void {
    this.#storeId = storeId;
    this.#isStarted = true;
    this.#connectStream();
  }

  close(): void {
    const stream = this.#stream;
    this.#isStarted = false;
    this.#stream = { type: 'closed' };
    if (stream.type === 'open') {
      stream.channel.close();
    } else if (stream.type === 'pausing') {
      this.#options.env.clock.clearTimer(stream.timer);
    }
    this.#client.close();
  }

  // ------------------------------------------------------------------------------------------------- start-up calls

  async isBootstrapped(): Promise<boolean> {
    return (await this.#ask(pdMethods.isBootstrapped, { header: this.#header() })).bootstrapped;
  }

  /** Ids nobody else has. */
  async allocIds(count: number): Promise<readonly number[]> {
    const { id, count: given } = await this.#ask(pdMethods.allocID, { header: this.#header(), count });
    return Array.from({ length: given }, (_, i) => id - given + 1 + i);
  }

  /** False if another store was first. May be repeated: the service compares. */
  async bootstrap(store: Store, region: Region): Promise<boolean> {
    try {
      await this.#ask(pdMethods.bootstrap, {
        header: this.#header(),
        store: toWireStore(store),
        region: toWireRegion(region),
      });
      return true;
    } catch (cause) {
      if (cause instanceof PlacementRefusedError && cause.type === ErrorType.ALREADY_BOOTSTRAPPED) {
        return false;
      }
      throw cause;
    }
  }

  /**
   * @param starts how often the store has started, this time included; lets the service notice an old disk
   * @throws StoreRemovedError, StoreRolledBackError, PlacementRefusedError
   */
  async putStore(store: Store, starts?: number): Promise<void> {
    try {
      await this.#ask(
        pdMethods.putStore,
        { header: this.#header(), store: toWireStore(store) },
        starts === undefined ? undefined : { [STORE_STARTS]: String(starts) },
      );
    } catch (cause) {
      if (cause instanceof PlacementRefusedError && cause.type === ErrorType.STORE_TOMBSTONE) {
        throw new StoreRemovedError(store.id);
      }
      // A store with an id of its own has no other value in this call that could be refused.
      if (cause instanceof PlacementRefusedError && cause.type === ErrorType.INVALID_VALUE) {
        throw new StoreRolledBackError(store.id, cause.message);
      }
      throw cause;
    }
  }

  async getStore(id: StoreId): Promise<Store> {
    const { store } = await this.#ask(pdMethods.getStore, { header: this.#header(), storeId: id });
    if (store === undefined) {
      throw new RpcError(RpcStatus.NOT_FOUND, `the placement service knows no store ${id}`);
    }
    return fromWireStore(store);
  }

  // ------------------------------------------------------------------------------------------------- of a running store

  async getRegionById(region: RegionId): Promise<Region | undefined> {
    const reply = await this.#ask(pdMethods.getRegionByID, {
      header: this.#header(),
      regionId: region,
      needBuckets: false,
    });
    return fromWireRoute(reply)?.region;
  }

  async askBatchSplit(region: Region, count: number, cause: SplitCause): Promise<readonly SplitIdsResult[]> {
    const { ids } = await this.#ask(pdMethods.askBatchSplit, {
      header: this.#header(),
      region: toWireRegion(region),
      splitCount: count,
      reason: SPLIT_REASONS[cause],
    });
    return ids.map(fromWireSplitIds);
  }

  /** A remark only: heartbeats are what changes the map. */
  reportBatchSplit(regions: readonly Region[]): void {
    this.#ask(pdMethods.reportBatchSplit, { header: this.#header(), regions: regions.map(toWireRegion) }).catch(
      (cause: unknown) => this.#options.env.log.debug({ cause }, 'a split was not reported'),
    );
  }

  /** @returns regions whose redirects the store may forget */
  async storeHeartbeat(heartbeat: StoreHeartbeat): Promise<readonly RegionId[]> {
    this.#forgetOldReports();
    try {
      const reply = await this.#client.call(
        placementMethods.reportStore,
        toWireStoreReport(this.#header(), heartbeat),
        { timeoutMs: CALL_TIMEOUT_MS },
      );
      checkHeader(placementMethods.reportStore.path, reply.heartbeat?.header);
      this.#followLeader();
      return reply.retireRedirects.map(toRegionId);
    } catch (cause) {
      if (cause instanceof PlacementRefusedError && cause.type === ErrorType.STORE_TOMBSTONE) {
        this.onRemoved();
      }
      throw cause;
    }
  }

  regionHeartbeat(heartbeat: RegionHeartbeat): void {
    this.#reports.set(heartbeat.region.id, { heartbeat, atMs: this.#options.env.clock.monoMs() });
    this.#unsent.add(heartbeat.region.id);
    if (!this.#flushScheduled && this.#stream.type === 'open') {
      this.#flushScheduled = true;
      queueMicrotask(() => {
        this.#flushScheduled = false;
        this.#flushReports();
      });
    }
  }

  // ------------------------------------------------------------------------------------------------- report stream

  #flushReports(): void {
    if (this.#stream.type !== 'open') {
      return;
    }
    const { stream } = this.#stream;
    const header = this.#header();
    for (const region of this.#unsent) {
      if (stream.bufferedBytes > STREAM_BUFFER_MAX_BYTES) {
        return;
      }
      this.#unsent.delete(region);
      const report = this.#reports.get(region);
      if (report !== undefined) {
        stream.send(toWireReport(header, report.heartbeat));
      }
    }
  }

  #connectStream(): void {
    this.#stream = { type: 'connecting' };
    // Only the leader answers this, so it is there and serves.
    this.#client.call(pdMethods.isBootstrapped, { header: this.#header() }, { timeoutMs: CALL_TIMEOUT_MS }).then(
      () => {
        const { leader } = this.#client;
        if (this.#stream.type === 'connecting') {
          if (leader === undefined) {
            this.#pauseStream('no leader is known');
          } else {
            this.#openStream(leader);
          }
        }
      },
      (cause: unknown) => {
        if (this.#stream.type === 'connecting') {
          this.#pauseStream(cause instanceof Error ? cause.message : String(cause));
        }
      },
    );
  }

  /** A leader that was stopped does not end its streams: the reports must not go on to it when another one leads. */
  #followLeader(): void {
    const { leader } = this.#client;
    if (this.#stream.type === 'open' && leader !== undefined && leader !== this.#stream.leader) {
      const { channel } = this.#stream;
      this.#openStream(leader);
      channel.close();
    }
  }

  #openStream(leader: string): void {
    const { net, log } = this.#options.env;
    const channel = net.dial(leader);
    const stream = openStream(channel, placementMethods.regionReports);
    this.#stream = { type: 'open', leader, channel, stream };
    stream.onMessage = (reply) => {
      this.#pauses = 0;
      this.#onReply(reply);
    };
    stream.onDrain = () => this.#flushReports();
    stream.onHalfClose = () => stream.cancel(RpcStatus.CANCELLED, 'the placement service ended the stream');
    stream.onEnd = (end) => {
      if (this.#stream.type === 'open' && this.#stream.stream === stream) {
        channel.close();
        this.#pauseStream(`${leader}: ${end.message}`);
      }
    };
    log.debug({ leader }, 'reporting regions to the placement service');
    this.#forgetOldReports();
    for (const region of this.#reports.keys()) {
      this.#unsent.add(region);
    }
    this.#flushReports();
  }

  #forgetOldReports(): void {
    const nowMs = this.#options.env.clock.monoMs();
    for (const [region, { atMs }] of this.#reports) {
      if (nowMs - atMs > REPEAT_AGE_MAX_MS) {
        this.#reports.delete(region);
        this.#unsent.delete(region);
      }
    }
  }

  #pauseStream(reason: string): void {
    const { clock, rng, log } = this.#options.env;
    if (!this.#isStarted) {
      this.#stream = { type: 'closed' };
      return;
    }
    const limitMs = Math.min(STREAM_PAUSE_MIN_MS * 2 ** this.#pauses, STREAM_PAUSE_MAX_MS);
    this.#pauses++;
    if (Number.isInteger(Math.log2(this.#pauses))) {
      log.warn({ reason, pauses: this.#pauses }, 'no connection to the placement service');
    }
    const timer = clock.setTimer(limitMs * (0.5 + rng.float() / 2), () => this.#connectStream(), 'pd-stream-pause');
    this.#stream = { type: 'pausing', timer };
  }

  #onReply(reply: RegionHeartbeatResponse): void {
    const { log } = this.#options.env;
    const error = reply.header?.error;
    if (error !== undefined && error.type !== ErrorType.OK) {
      log.warn({ region: reply.regionId, reason: error.message }, 'the placement service refused a region report');
      if (error.type === ErrorType.STORE_TOMBSTONE) {
        this.onRemoved();
      }
      return;
    }
    try {
      const step = fromWireReply(reply);
      if (step !== undefined) {
        this.onStep(step);
      }
    } catch (cause) {
      if (!(cause instanceof BadMessageError)) {
        throw cause;
      }
      log.warn({ region: reply.regionId, cause }, 'an operator step cannot be read');
    }
  }

  // ------------------------------------------------------------------------------------------------- calls

  #header(): RequestHeader {
    return toRequestHeader(this.clusterId, this.#storeId);
  }

  /** @throws PlacementRefusedError for an error in the answer's header */
  async #ask<
    Request,
    Reply extends {
      readonly header?:
        | { readonly error?: { readonly type: ErrorType; readonly message: string } | undefined }
        | undefined;
    },
  >(
    method: UnaryMethod<Request, Reply>,
    request: Request,
    metadata?: Readonly<Record<string, string>>,
  ): Promise<Reply> {
    const reply = await this.#client.call(method, request, {
      timeoutMs: CALL_TIMEOUT_MS,
      ...(metadata === undefined ? {} : { metadata }),
    });
    checkHeader(method.path, reply.header);
    return reply;
  }
}

/** @throws PlacementRefusedError for an error in the answer's header */
function checkHeader(
  path: string,
  header: { readonly error?: { readonly type: ErrorType; readonly message: string } | undefined } | undefined,
): void {
  const error = header?.error;
  if (error !== undefined && error.type !== ErrorType.OK) {
    throw new PlacementRefusedError(
      path,
      error.type,
      error.message,
      'see "braid ctl status" for the state of the cluster',
    );
  }
}
