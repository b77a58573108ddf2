/**
 * tikvpb.Tikv/BatchCommands: many independent commands a message, answered in any order. Everything that completes in
 * one turn of the event loop leaves in one message.
 */
import { MIB } from '../../base/units.ts';
import { decodeBatchRequest, encodeBatchResponse } from '../../codec/batch-commands.ts';
import type { Clock } from '../../env/clock.ts';
import { type ByteStream, RpcStatus } from '../../env/net.ts';
import type {
  BatchCommandsRequest,
  BatchCommandsRequest_Request,
  BatchCommandsResponse_Response,
} from '../../gen/tikvpb.ts';
import type { CallInfo, RawKv } from './raw-kv.ts';
import type { RequestMetrics, RequestType } from './request-metrics.ts';

/** Commands per reply message, as TiKV does. */
export const REPLIES_PER_MESSAGE_MAX = 128;
/** Commands of one stream that are not answered yet; more break the stream, whose client does not keep to any limit. */
const UNANSWERED_MAX = 131_072;
/** A client that does not read its replies is cut off at this many waiting bytes. */
const UNREAD_BYTES_MAX: number = 256 * MIB;
const REQUEST_MESSAGE_BYTES_MAX: number = 256 * MIB;
/** Longest wait an `Empty` command may ask for. */
const EMPTY_DELAY_MS_MAX = 60_000;
/** TiKV answers shorter waits at once. */
const EMPTY_DELAY_MS_MIN = 10;

type Command = NonNullable<BatchCommandsRequest_Request['cmd']>;
type Reply = NonNullable<BatchCommandsResponse_Response['cmd']>;

export interface BatchStreamOptions {
  readonly kv: RawKv;
  readonly clock: Clock;
  readonly metrics: RequestMetrics;
}

export class BatchCommandsStream {
  readonly #stream: ByteStream;
  readonly #options: BatchStreamOptions;
  readonly #onEnd: (stream: BatchCommandsStream) => void;
  #ids: number[] = [];
  #replies: BatchCommandsResponse_Response[] = [];
  #unanswered = 0;
  #flushScheduled = false;
  #isBlocked = false;
  #isEnding = false;
  #isOver = false;

  constructor(stream: ByteStream, options: BatchStreamOptions, onEnd: (stream: BatchCommandsStream) => void) {
    this.#stream = stream;
    this.#options = options;
    this.#onEnd = onEnd;
    stream.onMessage = (message) => this.#onMessage(message);
    stream.onDrain = () => {
      this.#isBlocked = false;
      this.#flush();
    };
    stream.onHalfClose = () => this.end();
    stream.onEnd = () => {
      this.#isOver = true;
      this.#ids = [];
      this.#replies = [];
      this.#onEnd(this);
    };
  }

  /** Ends the stream when everything received so far is answered. */
  end(): void {
    this.#isEnding = true;
    this.#endIfDone();
  }

  #onMessage(message: Uint8Array): void {
    if (message.length > REQUEST_MESSAGE_BYTES_MAX) {
      this.#stream.cancel(RpcStatus.RESOURCE_EXHAUSTED, `a message of ${message.length} bytes is too large`);
      return;
    }
    let request: BatchCommandsRequest;
    try {
      request = decodeBatchRequest(message);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      this.#stream.cancel(RpcStatus.INVALID_ARGUMENT, `malformed BatchCommandsRequest: ${reason}`);
      return;
    }
    const { requests, requestIds } = request;
    if (requests.length !== requestIds.length) {
      this.#stream.cancel(RpcStatus.INVALID_ARGUMENT, `${requests.length} requests came with ${requestIds.length} ids`);
      return;
    }
    this.#unanswered += requests.length;
    if (this.#unanswered > UNANSWERED_MAX) {
      this.#stream.cancel(RpcStatus.RESOURCE_EXHAUSTED, `${this.#unanswered} commands of this stream are unanswered`);
      return;
    }
    const call: CallInfo = { nowMs: this.#options.clock.monoMs(), timeoutMs: undefined };
    for (let i = 0; i < requests.length; i++) {
      this.#dispatch(requestIds[i] as number, (requests[i] as BatchCommandsRequest_Request).cmd, call);
    }
  }

  #dispatch(id: number, command: Command | undefined, call: CallInfo): void {
    const { kv, clock, metrics } = this.#options;
    if (command === undefined) {
      // A command of another program's version: it must be answered, and this is TiKV's way to do it.
      this.#reply(id, undefined);
      return;
    }
    const done = (type: RequestType, reply: Reply, isFailed: boolean): void => {
      metrics.done(type, clock.monoMs() - call.nowMs, isFailed);
      this.#reply(id, reply);
    };
    switch (command.$case) {
      case 'RawGet':
        kv.rawGet(command.value, call, (value) =>
          done('raw_get', { $case: 'RawGet', value }, value.regionError !== undefined),
        );
        return;
      case 'RawPut':
        kv.rawPut(command.value, call, (value) =>
          done('raw_put', { $case: 'RawPut', value }, value.regionError !== undefined),
        );
        return;
      case 'RawDelete':
        kv.rawDelete(command.value, call, (value) =>
          done('raw_delete', { $case: 'RawDelete', value }, value.regionError !== undefined),
        );
        return;
      case 'RawBatchGet':
        kv.rawBatchGet(command.value, call, (value) =>
          done('raw_batch_get', { $case: 'RawBatchGet', value }, value.regionError !== undefined),
        );
        return;
      case 'RawBatchPut':
        kv.rawBatchPut(command.value, call, (value) =>
          done('raw_batch_put', { $case: 'RawBatchPut', value }, value.regionError !== undefined),
        );
        return;
      case 'RawBatchDelete':
        kv.rawBatchDelete(command.value, call, (value) =>
          done('raw_batch_delete', { $case: 'RawBatchDelete', value }, value.regionError !== undefined),
        );
        return;
      case 'RawScan':
        kv.rawScan(command.value, call, (value) =>
          done('raw_scan', { $case: 'RawScan', value }, value.regionError !== undefined),
        );
        return;
      case 'RawBatchScan':
        kv.rawBatchScan(command.value, call, (value) =>
          done('raw_batch_scan', { $case: 'RawBatchScan', value }, value.regionError !== undefined),
        );
        return;
      case 'RawDeleteRange':
        kv.rawDeleteRange(command.value, call, (value) =>
          done('raw_delete_range', { $case: 'RawDeleteRange', value }, value.regionError !== undefined),
        );
        return;
      case 'RawCoprocessor':
        kv.rawCoprocessor(command.value, call, (value) => done('other', { $case: 'RawCoprocessor', value }, false));
        return;
      case 'GetHealthFeedback':
        kv.getHealthFeedback(command.value, call, (value) =>
          done('other', { $case: 'GetHealthFeedback', value }, false),
        );
        return;
      case 'Empty': {
        const { testId, delayTime } = command.value;
        const answer = (): void => done('other', { $case: 'Empty', value: { testId } }, false);
        if (delayTime < EMPTY_DELAY_MS_MIN) {
          answer();
        } else {
          clock.setTimer(Math.min(delayTime, EMPTY_DELAY_MS_MAX), answer, 'empty-command');
        }
      }
    }
  }

  #reply(id: number, cmd: Reply | undefined): void {
    if (this.#isOver) {
      return;
    }
    this.#ids.push(id);
    this.#replies.push({ cmd });
    if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      // The rest of this turn may answer more commands.
      queueMicrotask(() => {
        this.#flushScheduled = false;
        this.#flush();
      });
    }
  }

  #flush(): void {
    if (this.#isOver || this.#isBlocked) {
      if (this.#isBlocked && this.#stream.bufferedBytes > UNREAD_BYTES_MAX) {
        this.#stream.cancel(RpcStatus.RESOURCE_EXHAUSTED, 'the client does not read its replies');
      }
      return;
    }
    let at = 0;
    const { length } = this.#ids;
    while (at < length && !this.#isBlocked) {
      const to = Math.min(at + REPLIES_PER_MESSAGE_MAX, length);
      const isAll = at === 0 && to === length;
      const message = encodeBatchResponse({
        responses: isAll ? this.#replies : this.#replies.slice(at, to),
        requestIds: isAll ? this.#ids : this.#ids.slice(at, to),
        transportLayerLoad: 0,
      });
      this.#isBlocked = !this.#stream.send(message);
      at = to;
    }
    this.#unanswered -= at;
    this.#ids = at === length ? [] : this.#ids.slice(at);
    this.#replies = at === length ? [] : this.#replies.slice(at);
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#isEnding && !this.#isOver && this.#unanswered === 0) {
      this.#stream.end();
    }
  }
}
