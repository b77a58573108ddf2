/** Typed calls over the network seam, seen from the server: turns handlers into the seam's table of byte handlers. */
import { AppError } from '../base/app-error.ts';
import { assert } from '../base/assert.ts';
import { BadMessageError } from '../codec/bad-message-error.ts';
import {
  RpcError,
  RpcStatus,
  type ServerCall,
  type ServiceTable,
  type StreamHandler,
  type UnaryHandler,
} from '../env/net.ts';
import { TypedStream } from './call.ts';
import { type StreamMethod, type UnaryMethod, decodeMessage } from './method.ts';

/** The request's byte fields are views of the received message: copy what is kept longer than the call. */
export type TypedUnaryHandler<Request, Reply> = (request: Request, call: ServerCall) => Promise<Reply> | Reply;
/** Must set the stream's callbacks before it returns. */
export type TypedStreamHandler<Request, Reply> = (stream: TypedStream<Reply, Request>, call: ServerCall) => void;

/**
 * Status for an error thrown by a handler. RpcErrors keep theirs; what another server may answer is UNAVAILABLE, and
 * everything else UNKNOWN with the text.
 */
export function toRpcError(error: unknown): RpcError {
  if (error instanceof RpcError) {
    return error;
  }
  if (error instanceof BadMessageError) {
    return new RpcError(RpcStatus.INVALID_ARGUMENT, error.message, { cause: error });
  }
  if (error instanceof AppError) {
    const status = error.retry === 'route' ? RpcStatus.UNAVAILABLE : RpcStatus.UNKNOWN;
    return new RpcError(status, `${error.code}: ${error.message}`, { cause: error });
  }
  return new RpcError(RpcStatus.UNKNOWN, error instanceof Error ? error.message : String(error), { cause: error });
}

/** Collects handlers; each method may be given once. */
export class ServiceBuilder {
  readonly #unary = new Map<string, UnaryHandler>();
  readonly #stream = new Map<string, StreamHandler>();

  unary<Request, Reply>(method: UnaryMethod<Request, Reply>, handler: TypedUnaryHandler<Request, Reply>): this {
    return this.rawUnary(method.path, async (bytes, call) => {
      try {
        const request = decodeMessage(method.request, bytes, method.path);
        return method.reply.encode(await handler(request, call));
      } catch (error) {
        throw toRpcError(error);
      }
    });
  }

  /** For client-stream methods: send the one reply, then `end()`. For server-stream methods: one message arrives. */
  stream<Request, Reply>(method: StreamMethod<Request, Reply>, handler: TypedStreamHandler<Request, Reply>): this {
    return this.rawStream(method.path, (bytes, call) => {
      handler(new TypedStream(bytes, { out: method.reply, in: method.request, path: method.path }), call);
    });
  }

  /** Bytes in, bytes out, for methods with a codec of their own. */
  rawUnary(path: string, handler: UnaryHandler): this {
    this.#claim(path);
    this.#unary.set(path, handler);
    return this;
  }

  rawStream(path: string, handler: StreamHandler): this {
    this.#claim(path);
    this.#stream.set(path, handler);
    return this;
  }

  /** Takes over all handlers of another table, e.g. to serve several services on one port. */
  merge(table: ServiceTable): this {
    for (const [path, handler] of table.unary) {
      this.rawUnary(path, handler);
    }
    for (const [path, handler] of table.stream) {
      this.rawStream(path, handler);
    }
    return this;
  }

  build(): ServiceTable {
    return { unary: new Map(this.#unary), stream: new Map(this.#stream) };
  }

  #claim(path: string): void {
    assert(path.startsWith('/'), 'a method path starts with a slash', { path });
    assert(!this.#unary.has(path) && !this.#stream.has(path), 'a method has one handler', { path });
  }
}
