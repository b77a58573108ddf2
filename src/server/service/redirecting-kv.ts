/**
 * The raw API for clients whose idea of a region is out of date (placement 13.5): a request that its region refuses for
 * that reason is carried out by the region that holds its keys now, on this store or, with one hop, on its leader's. A
 * forwarded request is never forwarded again. Clients that say they mend their own cache get the refusal, which names
 * the current regions and costs nobody a hop; so do clients that read from followers.
 *
 * Execution always goes through the region's own Raft group, so that nothing about linearizability changes. A forwarded
 * write whose answer is lost is reported as undetermined and not repeated.
 */
import { compareBytes } from '../../base/bytes.ts';
import { isBeforeEnd, type KeyRange } from '../../base/key-range.ts';
import { toWireRegionError } from '../../codec/error-wire.ts';
import { toWireEpoch, toWirePeer } from '../../codec/meta-wire.ts';
import type { Logger } from '../../env/log.ts';
import { type Channel, type Net, RpcError, RpcStatus } from '../../env/net.ts';
import type { Error as WireRegionError } from '../../gen/errorpb.ts';
import type {
  Context,
  RawBatchDeleteRequest,
  RawBatchDeleteResponse,
  RawBatchGetRequest,
  RawBatchGetResponse,
  RawBatchPutRequest,
  RawBatchPutResponse,
  RawBatchScanRequest,
  RawBatchScanResponse,
  RawCASRequest,
  RawCASResponse,
  RawChecksumRequest,
  RawChecksumResponse,
  RawDeleteRangeRequest,
  RawDeleteRangeResponse,
  RawDeleteRequest,
  RawDeleteResponse,
  RawGetKeyTTLRequest,
  RawGetKeyTTLResponse,
  RawGetRequest,
  RawGetResponse,
  RawPutRequest,
  RawPutResponse,
  RawScanRequest,
  RawScanResponse,
} from '../../gen/kvrpcpb.ts';
import type { RequestHeader } from '../../raftstore/msg.ts';
import type { StoreCounters } from '../../raftstore/store/counters.ts';
import type { RedirectDecision, RequestSpan } from '../../raftstore/store/redirects.ts';
import { unaryCall } from '../../rpc/call.ts';
import type { UnaryMethod } from '../../rpc/method.ts';
import { tikvMethods } from '../../rpc/services.ts';
import { RawKv, type CallInfo, type RawKvOptions, type Respond } from './raw-kv.ts';
import { headerOf } from './request-context.ts';

/** Metadata of a request that another store passed on. */
export const FORWARDED = 'braid-forwarded';
/** `request_source` of clients that follow refusals by themselves. */
export const SELF_ROUTING_SOURCE = 'braid';

/** Time between two looks at a region in the middle of a change. */
const LOOK_AGAIN_MS = 10;
/** Regions one request may be sent to after another: each step follows a change that happened meanwhile. */
const STEPS_MAX = 8;

/** The part of the raftstore that knows where regions went. */
export interface RedirectSource {
  redirect(header: Pick<RequestHeader, 'regionId' | 'epoch'>, span: RequestSpan): RedirectDecision;
  readonly counters: StoreCounters;
}

export interface RedirectingKvOptions extends RawKvOptions {
  readonly redirects: RedirectSource;
  readonly net: Net;
  readonly log: Logger;
  /** `host:port` of a store as the placement service knows it now. */
  readonly resolve: (storeId: number) => Promise<string>;
  /** How long a request waits while its region is in the middle of a change. */
  readonly holdMs: number;
  /** Also works for clients that could follow refusals by themselves. Default: false. */
  readonly servesSelfRouting?: boolean;
}

interface WithContext {
  readonly context?: Context | undefined;
}

interface WithRegionError {
  readonly regionError?: WireRegionError | undefined;
}

/** One kind of request: what it touches, how it is cut to what its client means, and how it is carried out. */
interface Plan<Request extends WithContext, Reply extends WithRegionError> {
  readonly method: UnaryMethod<Request, Reply>;
  readonly isWrite: boolean;
  readonly span: (request: Request) => RequestSpan;
  /** A scan would otherwise return what the client looks for in the next region as well. */
  readonly cut: (request: Request, within: KeyRange) => Request;
  readonly run: (request: Request, call: CallInfo, respond: Respond<Reply>) => void;
  readonly failed: (error: WireRegionError) => Reply;
}

/** Whether the refusal means that the client does not know where its keys are. */
function isMisrouted(error: WireRegionError): boolean {
  return (
    error.regionNotFound !== undefined ||
    error.epochNotMatch !== undefined ||
    error.mismatchPeerId !== undefined ||
    error.notLeader !== undefined ||
    error.proposalInMergingMode !== undefined ||
    error.readIndexNotReady !== undefined
  );
}

const uncut = <Request>(request: Request): Request => request;
const keysOf = (keys: readonly Uint8Array[]): RequestSpan => ({ type: 'keys', keys });

const smallerEnd = (end: Uint8Array, limit: Uint8Array): Uint8Array =>
  end.length !== 0 && isBeforeEnd(end, limit) ? end : limit;
const largerStart = (start: Uint8Array, limit: Uint8Array): Uint8Array =>
  compareBytes(start, limit) >= 0 ? start : limit;

/** A reverse scan names its upper bound first. */
const scanRange = (startKey: Uint8Array, endKey: Uint8Array, reverse: boolean): KeyRange =>
  reverse ? { start: endKey, end: startKey } : { start: startKey, end: endKey };

const cutScan = (endKey: Uint8Array, reverse: boolean, within: KeyRange): Uint8Array =>
  reverse ? largerStart(endKey, within.start) : smallerEnd(endKey, within.end);

export class RedirectingKv extends RawKv {
  readonly #options: RedirectingKvOptions;
  readonly #channels = new Map<number, Channel>();

  constructor(options: RedirectingKvOptions) {
    super(options);
    this.#options = options;
  }

  close(): void {
    for (const channel of this.#channels.values()) {
      channel.close();
    }
    this.#channels.clear();
  }

  // ------------------------------------------------------------------------------------------------- requests

  override rawGet(request: RawGetRequest, call: CallInfo, respond: Respond<RawGetResponse>): void {
    this.#first(this.#get, request, call, respond);
  }

  override rawGetKeyTTL(request: RawGetKeyTTLRequest, call: CallInfo, respond: Respond<RawGetKeyTTLResponse>): void {
    this.#first(this.#ttl, request, call, respond);
  }

  override rawBatchGet(request: RawBatchGetRequest, call: CallInfo, respond: Respond<RawBatchGetResponse>): void {
    this.#first(this.#batchGet, request, call, respond);
  }

  override rawScan(request: RawScanRequest, call: CallInfo, respond: Respond<RawScanResponse>): void {
    this.#first(this.#scan, request, call, respond);
  }

  override rawBatchScan(request: RawBatchScanRequest, call: CallInfo, respond: Respond<RawBatchScanResponse>): void {
    this.#first(this.#batchScan, request, call, respond);
  }

  override rawChecksum(request: RawChecksumRequest, call: CallInfo, respond: Respond<RawChecksumResponse>): void {
    this.#first(this.#checksum, request, call, respond);
  }

  override rawPut(request: RawPutRequest, call: CallInfo, respond: Respond<RawPutResponse>): void {
    this.#first(this.#put, request, call, respond);
  }

  override rawBatchPut(request: RawBatchPutRequest, call: CallInfo, respond: Respond<RawBatchPutResponse>): void {
    this.#first(this.#batchPut, request, call, respond);
  }

  override rawDelete(request: RawDeleteRequest, call: CallInfo, respond: Respond<RawDeleteResponse>): void {
    this.#first(this.#delete, request, call, respond);
  }

  override rawBatchDelete(
    request: RawBatchDeleteRequest,
    call: CallInfo,
    respond: Respond<RawBatchDeleteResponse>,
  ): void {
    this.#first(this.#batchDelete, request, call, respond);
  }

  override rawDeleteRange(
    request: RawDeleteRangeRequest,
    call: CallInfo,
    respond: Respond<RawDeleteRangeResponse>,
  ): void {
    this.#first(this.#deleteRange, request, call, respond);
  }

  override rawCompareAndSwap(request: RawCASRequest, call: CallInfo, respond: Respond<RawCASResponse>): void {
    this.#first(this.#cas, request, call, respond);
  }

  readonly #get: Plan<RawGetRequest, RawGetResponse> = {
    method: tikvMethods.rawGet,
    isWrite: false,
    span: ({ key }) => keysOf([key]),
    cut: uncut,
    run: (request, call, respond) => super.rawGet(request, call, respond),
    failed: (regionError) => ({ regionError, error: '', value: new Uint8Array(0), notFound: false }),
  };
  readonly #ttl: Plan<RawGetKeyTTLRequest, RawGetKeyTTLResponse> = {
    method: tikvMethods.rawGetKeyTTL,
    isWrite: false,
    span: ({ key }) => keysOf([key]),
    cut: uncut,
    run: (request, call, respond) => super.rawGetKeyTTL(request, call, respond),
    failed: (regionError) => ({ regionError, error: '', ttl: 0, notFound: false }),
  };
  readonly #batchGet: Plan<RawBatchGetRequest, RawBatchGetResponse> = {
    method: tikvMethods.rawBatchGet,
    isWrite: false,
    span: ({ keys }) => keysOf(keys),
    cut: uncut,
    run: (request, call, respond) => super.rawBatchGet(request, call, respond),
    failed: (regionError) => ({ regionError, pairs: [] }),
  };
  readonly #scan: Plan<RawScanRequest, RawScanResponse> = {
    method: tikvMethods.rawScan,
    isWrite: false,
    span: ({ startKey, endKey, reverse }) => ({
      type: 'scans',
      from: reverse ? 'end' : 'start',
      ranges: [scanRange(startKey, endKey, reverse)],
    }),
    cut: (request, within) => ({ ...request, endKey: cutScan(request.endKey, request.reverse, within) }),
    run: (request, call, respond) => super.rawScan(request, call, respond),
    failed: (regionError) => ({ regionError, kvs: [] }),
  };
  readonly #batchScan: Plan<RawBatchScanRequest, RawBatchScanResponse> = {
    method: tikvMethods.rawBatchScan,
    isWrite: false,
    span: ({ ranges, reverse }) => ({
      type: 'scans',
      from: reverse ? 'end' : 'start',
      ranges: ranges.map(({ startKey, endKey }) => scanRange(startKey, endKey, reverse)),
    }),
    cut: (request, within) => ({
      ...request,
      ranges: request.ranges.map(({ startKey, endKey }) => ({
        startKey,
        endKey: cutScan(endKey, request.reverse, within),
      })),
    }),
    run: (request, call, respond) => super.rawBatchScan(request, call, respond),
    failed: (regionError) => ({ regionError, kvs: [] }),
  };
  readonly #checksum: Plan<RawChecksumRequest, RawChecksumResponse> = {
    method: tikvMethods.rawChecksum,
    isWrite: false,
    span: ({ ranges }) => ({
      type: 'scans',
      from: 'start',
      ranges: ranges.map(({ startKey, endKey }) => ({ start: startKey, end: endKey })),
    }),
    cut: (request, within) => ({
      ...request,
      ranges: request.ranges.map(({ startKey, endKey }) => ({ startKey, endKey: smallerEnd(endKey, within.end) })),
    }),
    run: (request, call, respond) => super.rawChecksum(request, call, respond),
    failed: (regionError) => ({ regionError, error: '', checksum: '0', totalKvs: 0, totalBytes: 0 }),
  };
  readonly #put: Plan<RawPutRequest, RawPutResponse> = {
    method: tikvMethods.rawPut,
    isWrite: true,
    span: ({ key }) => keysOf([key]),
    cut: uncut,
    run: (request, call, respond) => super.rawPut(request, call, respond),
    failed: (regionError) => ({ regionError, error: '' }),
  };
  readonly #batchPut: Plan<RawBatchPutRequest, RawBatchPutResponse> = {
    method: tikvMethods.rawBatchPut,
    isWrite: true,
    span: ({ pairs }) => keysOf(pairs.map(({ key }) => key)),
    cut: uncut,
    run: (request, call, respond) => super.rawBatchPut(request, call, respond),
    failed: (regionError) => ({ regionError, error: '' }),
  };
  readonly #delete: Plan<RawDeleteRequest, RawDeleteResponse> = {
    method: tikvMethods.rawDelete,
    isWrite: true,
    span: ({ key }) => keysOf([key]),
    cut: uncut,
    run: (request, call, respond) => super.rawDelete(request, call, respond),
    failed: (regionError) => ({ regionError, error: '' }),
  };
  readonly #batchDelete: Plan<RawBatchDeleteRequest, RawBatchDeleteResponse> = {
    method: tikvMethods.rawBatchDelete,
    isWrite: true,
    span: ({ keys }) => keysOf(keys),
    cut: uncut,
    run: (request, call, respond) => super.rawBatchDelete(request, call, respond),
    failed: (regionError) => ({ regionError, error: '' }),
  };
  readonly #deleteRange: Plan<RawDeleteRangeRequest, RawDeleteRangeResponse> = {
    method: tikvMethods.rawDeleteRange,
    isWrite: true,
    span: ({ startKey, endKey }) => ({ type: 'ranges', ranges: [{ start: startKey, end: endKey }] }),
    cut: uncut,
    run: (request, call, respond) => super.rawDeleteRange(request, call, respond),
    failed: (regionError) => ({ regionError, error: '' }),
  };
  readonly #cas: Plan<RawCASRequest, RawCASResponse> = {
    method: tikvMethods.rawCompareAndSwap,
    isWrite: true,
    span: ({ key }) => keysOf([key]),
    cut: uncut,
    run: (request, call, respond) => super.rawCompareAndSwap(request, call, respond),
    failed: (regionError) => ({
      regionError,
      error: '',
      succeed: false,
      previousNotExist: false,
      previousValue: new Uint8Array(0),
    }),
  };

  // ------------------------------------------------------------------------------------------------- redirection

  #first<Request extends WithContext, Reply extends WithRegionError>(
    plan: Plan<Request, Reply>,
    request: Request,
    call: CallInfo,
    respond: Respond<Reply>,
  ): void {
    const { context } = request;
    if (
      context === undefined ||
      context.replicaRead ||
      (context.requestSource === SELF_ROUTING_SOURCE && this.#options.servesSelfRouting !== true)
    ) {
      plan.run(request, call, respond);
      return;
    }
    plan.run(request, call, (reply) => {
      const { regionError } = reply;
      if (regionError === undefined || !isMisrouted(regionError)) {
        respond(reply);
      } else {
        this.#redirect(plan, { request, context, call, respond, isCounted: false, steps: 0 }, reply);
      }
    });
  }

  /** Carries the request out where its keys are now; `refusal` is the answer if that cannot be. */
  #redirect<Request extends WithContext, Reply extends WithRegionError>(
    plan: Plan<Request, Reply>,
    work: Work<Request, Reply>,
    refusal: Reply,
  ): void {
    const { request, context, call, respond } = work;
    const { redirects, clock, holdMs } = this.#options;
    const header = headerOf(context, call.nowMs, call.timeoutMs);
    const decision = redirects.redirect(header, plan.span(request));
    const { redirects: counts } = redirects.counters;
    const nowMs = clock.monoMs();
    if (++work.steps > STEPS_MAX + holdMs / LOOK_AGAIN_MS || nowMs >= header.deadlineMonoMs) {
      respond(refusal);
      return;
    }
    switch (decision.type) {
      case 'none':
        respond(refusal);
        return;
      case 'split-up':
        counts.refused++;
        respond(refusal);
        return;
      case 'wait':
        if (nowMs - call.nowMs >= holdMs) {
          counts.refused++;
          respond(refusal);
          return;
        }
        counts.waited += work.isCounted ? 0 : 1;
        work.isCounted = true;
        clock.setTimer(LOOK_AGAIN_MS, () => this.#redirect(plan, work, refusal), 'redirect-wait');
        return;
      case 'local': {
        counts.redirected++;
        plan.run(rewritten(plan, work, decision), call, (reply) => this.#onReply(plan, work, reply));
        return;
      }
      case 'forward':
        if (call.isForwarded === true) {
          respond(refusal);
          return;
        }
        counts.forwarded++;
        this.#forward(plan, work, decision, header.deadlineMonoMs - nowMs).then(
          (reply) => this.#onReply(plan, work, reply),
          (cause: unknown) => this.#onLost(plan, work, refusal, cause),
        );
    }
  }

  #onReply<Request extends WithContext, Reply extends WithRegionError>(
    plan: Plan<Request, Reply>,
    work: Work<Request, Reply>,
    reply: Reply,
  ): void {
    const { regionError } = reply;
    if (regionError !== undefined && (isMisrouted(regionError) || regionError.storeNotMatch !== undefined)) {
      // The region moved on in this very moment, or has no leader yet.
      this.#options.clock.setTimer(LOOK_AGAIN_MS, () => this.#redirect(plan, work, reply), 'redirect-again');
    } else {
      work.respond(reply);
    }
  }

  async #forward<Request extends WithContext, Reply extends WithRegionError>(
    plan: Plan<Request, Reply>,
    work: Work<Request, Reply>,
    decision: Extract<RedirectDecision, { type: 'forward' }>,
    timeoutMs: number,
  ): Promise<Reply> {
    const channel = await this.#channelTo(decision.peer.storeId);
    return unaryCall(channel, plan.method, rewritten(plan, work, decision), {
      timeoutMs,
      metadata: { [FORWARDED]: '1' },
    });
  }

  /** No answer came. A read may be asked again; what became of a write nobody knows. */
  #onLost<Request extends WithContext, Reply extends WithRegionError>(
    plan: Plan<Request, Reply>,
    work: Work<Request, Reply>,
    refusal: Reply,
    cause: unknown,
  ): void {
    const text = cause instanceof Error ? cause.message : String(cause);
    this.#options.log.debug({ reason: text }, 'a forwarded request was not answered');
    const neverSent = cause instanceof UnresolvedError || (cause instanceof RpcError && !cause.sent);
    const isLate = this.#options.clock.monoMs() - work.call.nowMs >= this.#options.holdMs;
    if (plan.isWrite && !neverSent) {
      work.respond(
        plan.failed(
          toWireRegionError({
            type: 'undetermined-result',
            message: `the region moved to another store, which did not answer: ${text}`,
          }),
        ),
      );
    } else if (isLate || (cause instanceof RpcError && cause.status === RpcStatus.DEADLINE_EXCEEDED)) {
      work.respond(refusal);
    } else {
      this.#options.clock.setTimer(LOOK_AGAIN_MS, () => this.#redirect(plan, work, refusal), 'redirect-again');
    }
  }

  async #channelTo(storeId: number): Promise<Channel> {
    let address: string;
    try {
      address = await this.#options.resolve(storeId);
    } catch (cause) {
      throw new UnresolvedError(`store ${storeId} has no known address`, { cause });
    }
    const known = this.#channels.get(storeId);
    if (known !== undefined && known.address === address) {
      return known;
    }
    known?.close();
    const channel = this.#options.net.dial(address);
    this.#channels.set(storeId, channel);
    return channel;
  }
}

/** The other store's address is not known: nothing was sent. */
class UnresolvedError extends Error {}

interface Work<Request, Reply> {
  readonly request: Request;
  readonly context: Context;
  readonly call: CallInfo;
  readonly respond: Respond<Reply>;
  isCounted: boolean;
  steps: number;
}

function rewritten<Request extends WithContext, Reply extends WithRegionError>(
  plan: Plan<Request, Reply>,
  { request, context }: Work<Request, Reply>,
  { region, peer, within }: Extract<RedirectDecision, { type: 'local' | 'forward' }>,
): Request {
  return {
    ...(within === undefined ? request : plan.cut(request, within)),
    context: {
      ...context,
      regionId: region.id,
      regionEpoch: toWireEpoch(region.epoch),
      peer: toWirePeer(peer),
      term: 0,
    },
  };
}
