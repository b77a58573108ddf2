/**
 * The network seam: calls and streams of byte messages by method name. `rpc/grpc` implements it with gRPC, the
 * simulator with virtual links. Messages are always encoded bytes, so that two "machines" never share objects.
 */
import { AppError } from '../base/app-error.ts';

/** gRPC status codes in use. */
export const RpcStatus = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
} as const;
export type RpcStatusCode = (typeof RpcStatus)[keyof typeof RpcStatus];

/** A call ended with a status other than OK. `sent` is false only if the request certainly never left this process. */
export class RpcError extends AppError {
  readonly status: RpcStatusCode;
  readonly sent: boolean;

  constructor(
    status: RpcStatusCode,
    message: string,
    options: { readonly sent?: boolean; readonly cause?: unknown } = {},
  ) {
    super('Rpc', message, {
      retry: status === RpcStatus.UNAVAILABLE ? 'backoff' : 'never',
      outcome: options.sent === false ? 'not-applied' : 'unknown',
      details: { status },
      cause: options.cause,
    });
    this.status = status;
    this.sent = options.sent ?? true;
  }
}

/** How a stream ended. */
export interface StreamEnd {
  readonly status: RpcStatusCode;
  readonly message: string;
}

/**
 * One end of a bidirectional stream. Set the callbacks synchronously after getting the stream. Messages keep their
 * order. Nothing is delivered after `onEnd`, which is called exactly once.
 */
export interface ByteStream {
  /** Queues a message. False means the buffer is over its high-water mark: stop until `onDrain`. Ignored after the end. */
  send(message: Uint8Array): boolean;
  /** Bytes queued locally and not yet handed to the transport; 0 if unknown. */
  readonly bufferedBytes: number;
  /** No more messages from this end; on a server also finishes the call with OK. */
  end(): void;
  /** Breaks the stream at once with a status. */
  cancel(status: RpcStatusCode, message: string): void;
  onMessage: (message: Uint8Array) => void;
  /** The other end will send no more messages. */
  onHalfClose: () => void;
  onDrain: () => void;
  onEnd: (end: StreamEnd) => void;
}

export interface CallOptions {
  /** Milliseconds from now after which the call fails with DEADLINE_EXCEEDED. Always required: nothing waits for ever. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
  readonly metadata?: Readonly<Record<string, string>>;
}

export interface Channel {
  readonly address: string;
  /** @param method full name such as `/pdpb.PD/GetRegion`. Rejects with {@link RpcError}. */
  unary(method: string, request: Uint8Array, call: CallOptions): Promise<Uint8Array>;
  /** Opens a stream; connection failures arrive through `onEnd`. */
  stream(method: string, options?: { readonly metadata?: Readonly<Record<string, string>> }): ByteStream;
  /** Breaks all calls and streams. Idempotent. */
  close(): void;
}

export interface ServerCall {
  /** Address of the caller, for logs. */
  readonly peer: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Milliseconds left until the caller's deadline; undefined if it set none. */
  readonly timeoutMs: number | undefined;
}

/** Rejecting with an {@link RpcError} sends its status; anything else becomes UNKNOWN with the error's message. */
export type UnaryHandler = (request: Uint8Array, call: ServerCall) => Promise<Uint8Array>;
export type StreamHandler = (stream: ByteStream, call: ServerCall) => void;

/** Handlers by full method name. Calls to other methods end with UNIMPLEMENTED. */
export interface ServiceTable {
  readonly unary: ReadonlyMap<string, UnaryHandler>;
  readonly stream: ReadonlyMap<string, StreamHandler>;
}

export interface Listener {
  /** `host:port` as bound; the port is real even when 0 was asked for. */
  readonly address: string;
  /** Stops accepting, lets running calls finish for up to `graceMs`, then breaks the rest. */
  close(graceMs: number): Promise<void>;
}

export interface Net {
  /** Never fails by itself; calls on the channel do. */
  dial(address: string): Channel;
  /** Rejects if the address cannot be bound. */
  listen(address: string, services: ServiceTable): Promise<Listener>;
}
