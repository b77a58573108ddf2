/**
 * The connection to one store: a health probe first, then one stream on which everything issued in one turn of the
 * event loop leaves together. Must never decide where a command goes or whether it is tried again; it tells its owner
 * how each ended: answered, never sent, or sent without an answer.
 *
 *        first call            probe served                     stream ends, answers stop
 *   idle ──────────► connecting ────────────► open ───────────────────────────────────► down
 *                        │ probe failed                                                  │ next probe due and wanted
 *                        └──────────────► down ◄── failed ── probing ◄───────────────────┘
 *                                                              └── served ──► open
 *
 * Calls are accepted while idle, connecting and open. A message is only handed to a stream whose connection a probe
 * has just shown to work, so that "sent" is rarely said of a write that never left this process.
 */
import { BoundedQueue } from '../base/bounded-queue.ts';
import type { StoreId } from '../base/ids.ts';
import type { TimerId } from '../env/clock.ts';
import type { Env } from '../env/env.ts';
import { type ByteStream, type Channel, RpcError, RpcStatus, type StreamEnd } from '../env/net.ts';
import { backoffCeilingMs } from './backoff.ts';
import type { Call } from './call.ts';
import { type Reply, payloadBytes } from './command.ts';
import {
  BATCH_BYTES_TARGET,
  BATCH_COMMANDS_MAX,
  PROBE_TIMEOUT_MS,
  STALL_MS,
  STORE_BACKOFF_CAP_MS,
} from './defaults.ts';
import { ServerRefusedError, briefOf } from './errors.ts';
import type { Tracer } from './trace.ts';
import {
  ANY_CLUSTER,
  BATCH_METHOD,
  HEALTH_METHOD,
  callUnary,
  decodeReplies,
  encodeCalls,
  probeHealth,
} from './wire.ts';

/** Calls taken back while queued are swept out once there are more of them than this and than calls still wanted. */
const RELEASED_MAX = 256;

/** Time by which the transport's deadline of a unary call lies behind the call's own. */
const UNARY_MARGIN_MS = 100;

export type ClientEnv = Pick<Env, 'clock' | 'rng' | 'net' | 'log'>;

/** Who hears how calls ended. Every call given to `enqueue` comes back exactly once unless it is released before. */
export interface StoreConnOwner {
  onReply(call: Call, reply: Reply): void;
  /** The store certainly never saw the call. */
  onUnsent(call: Call, cause: unknown): void;
  /** The call was sent and no answer will come. */
  onLost(call: Call, cause: unknown): void;
  /** `host:port` of the store; `refresh` says that the one given last time did not work. */
  addressOf(store: StoreId, refresh: boolean): Promise<string>;
}

export interface StoreConnOptions {
  readonly env: ClientEnv;
  readonly storeId: StoreId;
  readonly maxInFlight: number;
  /** Upper bound of calls the owner has at all. */
  readonly queueMax: number;
  readonly tracer?: Tracer | undefined;
  readonly clusterId: () => string;
  readonly owner: StoreConnOwner;
}

type State =
  | { readonly type: 'idle' }
  | { readonly type: 'connecting' }
  | { readonly type: 'open'; readonly channel: Channel }
  /** Silent, but not broken: writes that were sent still wait for their answers, everything else goes elsewhere. */
  | { readonly type: 'stalled'; readonly channel: Channel; readonly cause: unknown }
  | { readonly type: 'down'; readonly untilMs: number; readonly attempt: number; readonly cause: unknown }
  | { readonly type: 'probing'; readonly attempt: number; readonly cause: unknown }
  | { readonly type: 'closed' };

export class StoreConn {
  readonly storeId: StoreId;
  readonly #env: ClientEnv;
  readonly #owner: StoreConnOwner;
  readonly #maxInFlight: number;
  readonly #clusterId: () => string;
  readonly #tracer: Tracer | undefined;
  #state: State = { type: 'idle' };
  #address: string | undefined;
  #channel: Channel | undefined;
  #stream: ByteStream | undefined;
  #streamIsFull = false;
  readonly #queue: BoundedQueue<Call>;
  readonly #inFlight = new Map<number, Call>();
  #nextRequestId = 1;
  /** Calls in the queue that their owner took back, at most. */
  #released = 0;
  #flushScheduled = false;
  #lastHeardMs = 0;
  #stallTimer: TimerId | undefined;
  #stallProbeRuns = false;

  constructor(options: StoreConnOptions) {
    this.storeId = options.storeId;
    this.#env = options.env;
    this.#owner = options.owner;
    this.#maxInFlight = options.maxInFlight;
    this.#clusterId = options.clusterId;
    this.#tracer = options.tracer;
    this.#queue = new BoundedQueue(options.queueMax);
  }

  /** Whether calls may be enqueued now. */
  get isAvailable(): boolean {
    const { type } = this.#state;
    return type === 'open' || type === 'idle' || type === 'connecting';
  }

  get isOpen(): boolean {
    return this.#state.type === 'open';
  }

  get address(): string | undefined {
    return this.#address;
  }

  /** Why the store is not available; undefined while it is. */
  get downCause(): unknown {
    const { type } = this.#state;
    return type === 'down' || type === 'probing' || type === 'stalled' ? this.#state.cause : undefined;
  }

  enqueue(call: Call): void {
    if (!this.isAvailable) {
      this.#owner.onUnsent(call, this.downCause);
      return;
    }
    call.phase = this.#state.type === 'open' ? 'queued' : 'connecting';
    call.conn = this;
    // The owner admits no more calls than the queue holds.
    this.#queue.forcePush(call);
    if (this.#state.type === 'open') {
      this.#scheduleFlush();
    } else if (this.#state.type === 'idle') {
      this.#state = { type: 'connecting' };
      void this.#connect(0);
    }
  }

  /** The owner ends the call by itself (deadline, abort), before changing its phase; a late answer is dropped. */
  release(call: Call): void {
    if (call.phase === 'in-flight') {
      this.#inFlight.delete(call.requestId);
      this.#leaveIfStalledForNothing();
    } else {
      // It stays in the queue until a flush skips it, because its phase is no longer `queued`.
      this.#released++;
      if (this.#released > RELEASED_MAX && this.#released * 2 > this.#queue.length) {
        this.#released = 0;
        for (const queued of this.#queue.drain()) {
          if (queued !== call && this.#isHeld(queued)) {
            this.#queue.forcePush(queued);
          }
        }
      }
    }
    if (this.#queue.length > 0 && this.#state.type === 'open') {
      this.#scheduleFlush();
    }
  }

  /** Probes a store that is down, once its delay is over. Called by whoever would like to use it. */
  probeIfDue(): void {
    if (this.#state.type === 'down' && this.#env.clock.monoMs() >= this.#state.untilMs) {
      const { attempt, cause } = this.#state;
      this.#state = { type: 'probing', attempt: attempt + 1, cause };
      void this.#connect(attempt + 1);
    }
  }

  /** The address turned out to belong to another store: ask again before the next use. */
  distrustAddress(cause: unknown): void {
    if (this.#state.type === 'open') {
      this.#address = undefined;
      this.#goDown(cause, 0);
    }
  }

  close(cause: unknown): void {
    if (this.#state.type === 'closed') {
      return;
    }
    this.#state = { type: 'closed' };
    this.#disconnect();
    this.#returnAll(cause);
  }

  async #connect(attempt: number): Promise<void> {
    let channel: Channel | undefined;
    try {
      const address = await this.#owner.addressOf(this.storeId, attempt > 0);
      if (this.#isClosed()) {
        return;
      }
      this.#address = address;
      // A fresh channel for every try: the transport's own reconnect delays must not add to ours.
      channel = this.#env.net.dial(address);
      await this.#probe(channel);
    } catch (cause) {
      channel?.close();
      if (!this.#isClosed()) {
        this.#goDown(cause, attempt);
      }
      return;
    }
    if (this.#isClosed()) {
      channel.close();
      return;
    }
    if (attempt > 0) {
      this.#env.log.info({ storeId: this.storeId, address: this.#address }, 'store is reachable again');
    }
    this.#channel = channel;
    this.#state = { type: 'open', channel };
    this.#lastHeardMs = this.#env.clock.monoMs();
    this.#flush();
  }

  #probe(channel: Channel): Promise<void> {
    const probe = (): Promise<void> => probeHealth(channel, PROBE_TIMEOUT_MS);
    return this.#tracer === undefined
      ? probe()
      : this.#tracer.call({ method: HEALTH_METHOD, endpoint: channel.address }, probe);
  }

  #isClosed(): boolean {
    return this.#state.type === 'closed';
  }

  /**
   * The store does not answer, not even a probe. Reads are asked elsewhere; a write that was sent can only be answered
   * here, and giving the connection up would make its outcome unknown before its deadline.
   */
  #stall(channel: Channel, cause: unknown): void {
    this.#env.log.warn(
      { storeId: this.storeId, address: this.#address, cause: briefOf(cause) },
      'store does not answer',
    );
    this.#state = { type: 'stalled', channel, cause };
    const reads = [...this.#inFlight.values()].filter((call) => !call.isWrite);
    for (const call of reads) {
      this.#inFlight.delete(call.requestId);
    }
    this.#returnCalls(reads, cause);
    this.#leaveIfStalledForNothing();
    if (this.#state.type === 'stalled') {
      this.#armStallTimer(STALL_MS);
    }
  }

  #leaveIfStalledForNothing(): void {
    if (this.#state.type === 'stalled' && this.#inFlight.size === 0) {
      this.#goDown(this.#state.cause, 0);
    }
  }

  /** It was heard again. */
  #resume(channel: Channel): void {
    this.#env.log.info({ storeId: this.storeId, address: this.#address }, 'store answers again');
    this.#state = { type: 'open', channel };
    this.#lastHeardMs = this.#env.clock.monoMs();
    this.#flush();
  }

  /** Nothing can be sent now. Everything held goes back to the owner, who finds other routes. */
  #goDown(cause: unknown, attempt: number): void {
    const ceiling = backoffCeilingMs(attempt, STORE_BACKOFF_CAP_MS);
    const untilMs = this.#env.clock.monoMs() + (ceiling / 2) * (1 + this.#env.rng.float());
    if (attempt === 0) {
      this.#env.log.warn(
        { storeId: this.storeId, address: this.#address, cause: briefOf(cause) },
        'store is not reachable',
      );
    }
    this.#state = { type: 'down', untilMs, attempt, cause };
    this.#disconnect();
    this.#returnAll(cause);
  }

  #disconnect(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    this.#streamIsFull = false;
    stream?.cancel(RpcStatus.CANCELLED, 'connection given up');
    this.#channel?.close();
    this.#channel = undefined;
    if (this.#stallTimer !== undefined) {
      this.#env.clock.clearTimer(this.#stallTimer);
      this.#stallTimer = undefined;
    }
  }

  #returnAll(cause: unknown): void {
    const lost = [...this.#inFlight.values()];
    this.#inFlight.clear();
    this.#returnCalls(lost, cause);
  }

  /** Hands back sent calls that will get no answer here, and everything that was not sent yet. */
  #returnCalls(lost: readonly Call[], cause: unknown): void {
    const unsent = this.#queue.drain().filter((call) => this.#isHeld(call));
    this.#released = 0;
    for (const call of lost) {
      call.conn = undefined;
      this.#owner.onLost(call, cause);
    }
    for (const call of unsent) {
      // A handler of an earlier call may have ended this one.
      if (this.#isHeld(call)) {
        call.conn = undefined;
        this.#owner.onUnsent(call, cause);
      }
    }
  }

  #isHeld(call: Call): boolean {
    return call.conn === this && (call.phase === 'queued' || call.phase === 'connecting');
  }

  #scheduleFlush(): void {
    if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      this.#env.clock.defer(this.#runFlush, 'client-flush');
    }
  }

  readonly #runFlush = (): void => {
    this.#flushScheduled = false;
    this.#flush();
  };

  #flush(): void {
    const state = this.#state;
    if (state.type !== 'open') {
      return;
    }
    while (this.#queue.length > 0 && this.#inFlight.size < this.#maxInFlight && !this.#streamIsFull) {
      const batch: Call[] = [];
      let bytes = 0;
      while (
        batch.length < BATCH_COMMANDS_MAX &&
        bytes < BATCH_BYTES_TARGET &&
        this.#inFlight.size < this.#maxInFlight
      ) {
        const call = this.#queue.shift();
        if (call === undefined) {
          break;
        }
        if (!this.#isHeld(call)) {
          this.#released = Math.max(0, this.#released - 1);
          continue;
        }
        call.phase = 'in-flight';
        call.sentMs = this.#env.clock.monoMs();
        call.requestId = this.#nextRequestId++;
        this.#inFlight.set(call.requestId, call);
        if (call.isUnary) {
          void this.#sendUnary(state.channel, call);
        } else {
          batch.push(call);
          bytes += payloadBytes(call.command);
        }
      }
      if (batch.length > 0) {
        const clusterId = this.#stream === undefined ? this.#clusterId() : ANY_CLUSTER;
        const message = encodeCalls(batch, clusterId, this.#env.clock.monoMs());
        this.#streamIsFull = !this.#openStream(state.channel).send(message);
      }
    }
    this.#watchForStall();
  }

  #openStream(channel: Channel): ByteStream {
    if (this.#stream !== undefined) {
      return this.#stream;
    }
    const stream = channel.stream(BATCH_METHOD);
    this.#stream = stream;
    stream.onMessage = (message) => {
      if (this.#stream === stream) {
        this.#onMessage(message);
      }
    };
    stream.onDrain = () => {
      if (this.#stream === stream) {
        this.#streamIsFull = false;
        this.#flush();
      }
    };
    stream.onHalfClose = () => {};
    stream.onEnd = (end) => {
      if (this.#stream === stream) {
        this.#stream = undefined;
        this.#goDown(endCause(end), 0);
      }
    };
    return stream;
  }

  #onMessage(message: Uint8Array): void {
    this.#lastHeardMs = this.#env.clock.monoMs();
    if (this.#state.type === 'stalled') {
      this.#resume(this.#state.channel);
    }
    try {
      decodeReplies(message, this.#onReply);
    } catch (cause) {
      // The rest of the stream cannot be trusted; what was sent is lost.
      this.#goDown(cause, 0);
      return;
    }
    if (this.#queue.length > 0) {
      this.#scheduleFlush();
    }
  }

  readonly #onReply = (id: number, reply: Reply): void => {
    const call = this.#inFlight.get(id);
    if (call !== undefined) {
      this.#inFlight.delete(id);
      call.conn = undefined;
      this.#owner.onReply(call, reply);
    }
  };

  async #sendUnary(channel: Channel, call: Call): Promise<void> {
    const id = call.requestId;
    // The call's own deadline comes first and words the error.
    const timeoutMs = Math.max(0, Math.ceil(call.dueMs - this.#env.clock.monoMs())) + UNARY_MARGIN_MS;
    let reply: Reply | undefined;
    let cause: unknown;
    try {
      reply = await callUnary(channel, call, this.#clusterId(), timeoutMs, this.#env.clock.monoMs());
    } catch (error) {
      cause = error;
    }
    if (this.#inFlight.get(id) !== call) {
      return;
    }
    this.#inFlight.delete(id);
    call.conn = undefined;
    this.#lastHeardMs = this.#env.clock.monoMs();
    if (reply !== undefined) {
      this.#owner.onReply(call, reply);
    } else if (cause instanceof RpcError && !cause.sent) {
      this.#owner.onUnsent(call, cause);
      this.#breakIfCurrent(channel, cause);
    } else if (cause instanceof RpcError && isRefusal(cause)) {
      this.#owner.onReply(call, { type: 'failed', message: cause.message });
    } else {
      this.#owner.onLost(call, cause);
      if (cause instanceof RpcError && cause.status === RpcStatus.UNAVAILABLE) {
        this.#breakIfCurrent(channel, cause);
      }
    }
    if (this.#queue.length > 0) {
      this.#scheduleFlush();
    }
  }

  #breakIfCurrent(channel: Channel, cause: unknown): void {
    if ((this.#state.type === 'open' || this.#state.type === 'stalled') && this.#state.channel === channel) {
      this.#goDown(cause, 0);
    }
  }

  /** While answers are owed, silence leads to a probe, and a failed probe to giving the connection up. */
  #watchForStall(): void {
    if (this.#stallTimer === undefined && this.#inFlight.size > 0) {
      this.#lastHeardMs = Math.max(this.#lastHeardMs, this.#env.clock.monoMs());
      this.#armStallTimer(this.#lastHeardMs + STALL_MS - this.#env.clock.monoMs());
    }
  }

  #armStallTimer(afterMs: number): void {
    const waitMs = Math.max(1, afterMs);
    this.#stallTimer = this.#env.clock.setTimer(waitMs, this.#onStallTimer, 'client-stall');
  }

  readonly #onStallTimer = (): void => {
    this.#stallTimer = undefined;
    if ((this.#state.type !== 'open' && this.#state.type !== 'stalled') || this.#inFlight.size === 0) {
      return;
    }
    const quietMs = this.#env.clock.monoMs() - this.#lastHeardMs;
    if (quietMs < STALL_MS) {
      this.#armStallTimer(STALL_MS - quietMs);
    } else if (!this.#stallProbeRuns) {
      void this.#probeStalled(this.#state.channel);
    }
  };

  async #probeStalled(channel: Channel): Promise<void> {
    this.#stallProbeRuns = true;
    let failure: unknown;
    try {
      await this.#probe(channel);
    } catch (cause) {
      failure = cause;
    }
    this.#stallProbeRuns = false;
    const state = this.#state;
    if ((state.type !== 'open' && state.type !== 'stalled') || state.channel !== channel) {
      return;
    }
    if (failure === undefined) {
      this.#lastHeardMs = this.#env.clock.monoMs();
      if (state.type === 'stalled') {
        this.#resume(channel);
      }
      this.#watchForStall();
    } else if (state.type === 'stalled') {
      this.#armStallTimer(STALL_MS);
    } else {
      this.#stall(
        channel,
        new RpcError(RpcStatus.UNAVAILABLE, `no answers for ${STALL_MS} ms, and ${briefOf(failure)}`),
      );
    }
  }
}

/** Statuses with which a server turns a call away before it does anything. */
function isRefusal(error: RpcError): boolean {
  return (
    error.status === RpcStatus.INVALID_ARGUMENT ||
    error.status === RpcStatus.UNIMPLEMENTED ||
    error.status === RpcStatus.PERMISSION_DENIED ||
    error.status === RpcStatus.FAILED_PRECONDITION
  );
}

function endCause(end: StreamEnd): unknown {
  if (end.status === RpcStatus.INVALID_ARGUMENT || end.status === RpcStatus.UNIMPLEMENTED) {
    return new ServerRefusedError(`the store ended the stream: ${end.message}`);
  }
  return new RpcError(
    end.status === RpcStatus.OK ? RpcStatus.UNAVAILABLE : end.status,
    end.status === RpcStatus.OK ? 'the store ended the stream' : `the stream broke: ${end.message}`,
  );
}
