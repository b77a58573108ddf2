/** The serving side: one port with a table of byte handlers. The port does TLS, so gRPC always sees plain bytes. */
import {
  type Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { InvariantError } from '../../base/assert.ts';
import {
  type Listener,
  RpcError,
  RpcStatus,
  type RpcStatusCode,
  type ServerCall,
  type ServiceTable,
  type StreamEnd,
  type StreamHandler,
  type UnaryHandler,
} from '../../env/net.ts';
import { GrpcStream } from './grpc-stream.ts';
import { type ResolvedGrpcNetOptions, serverSettings } from './options.ts';
import { Port } from './port.ts';
import type { TlsCredentials } from './tls-credentials.ts';
import { fromBuffer, toBuffer } from './raw-message.ts';
import { fromMetadata, toMetadata } from './status.ts';

type UnaryCall = ServerUnaryCall<Uint8Array, Uint8Array>;
type DuplexCall = ServerDuplexStream<Uint8Array, Uint8Array>;

/** Reads metadata and deadline only when asked: most calls never look at them. */
class GrpcServerCall implements ServerCall {
  readonly #call: { readonly metadata: Metadata; getPeer(): string; getDeadline(): Date | number };

  constructor(call: { readonly metadata: Metadata; getPeer(): string; getDeadline(): Date | number }) {
    this.#call = call;
  }

  get peer(): string {
    return this.#call.getPeer();
  }

  get metadata(): Readonly<Record<string, string>> {
    return fromMetadata(this.#call.metadata);
  }

  get timeoutMs(): number | undefined {
    const deadline = this.#call.getDeadline();
    const atMs = typeof deadline === 'number' ? deadline : deadline.getTime();
    return Number.isFinite(atMs) ? Math.max(0, atMs - Date.now()) : undefined;
  }
}

interface StatusError {
  readonly code: RpcStatusCode;
  readonly details: string;
}

function toStatusError(error: unknown): StatusError {
  if (error instanceof RpcError) {
    return { code: error.status, details: error.message };
  }
  return { code: RpcStatus.UNKNOWN, details: error instanceof Error ? error.message : String(error) };
}

const isInvariantError = (error: unknown): boolean =>
  error instanceof InvariantError || (error instanceof Error && error.cause instanceof InvariantError);

/** The HTTP/2 stream below a grpc-js server call, which its public interface does not show. */
function resetHttp2Stream(call: DuplexCall): void {
  const inner = (call as unknown as { readonly call?: { readonly stream?: { close(code: number): void } } }).call;
  const HTTP2_CANCEL = 8;
  inner?.stream?.close(HTTP2_CANCEL);
}

/** The status queues behind unsent messages; a reader that stopped reading must not keep a broken stream alive. */
function resetWhenStuck(call: DuplexCall, stream: GrpcStream, flushMs: number): void {
  let unsentBytes = stream.bufferedBytes;
  const timer = setInterval(() => {
    if (stream.bufferedBytes > 0 && stream.bufferedBytes === unsentBytes) {
      resetHttp2Stream(call);
    }
    unsentBytes = stream.bufferedBytes;
  }, flushMs);
  call.once('close', () => clearInterval(timer));
}

export interface GrpcListener extends Listener {
  /** For connections from now on. */
  renewTls(tls: TlsCredentials): void;
}

/**
 * Serves until closed.
 *
 * Rejects if the address cannot be bound. The returned address names the real port.
 */
export async function listenGrpc(
  address: string,
  services: ServiceTable,
  options: ResolvedGrpcNetOptions,
): Promise<GrpcListener> {
  const server = new Server(serverSettings(options));
  for (const [path, handler] of services.unary) {
    server.register(path, serveUnary(handler, options), toBuffer, fromBuffer, 'unary');
  }
  for (const [path, handler] of services.stream) {
    server.register(path, serveStream(handler, options), toBuffer, fromBuffer, 'bidi');
  }
  const grpc = server.createConnectionInjector(ServerCredentials.createInsecure());
  const port = new Port({
    onHttp2: (socket) => grpc.injectConnection(socket),
    onHttp1: options.onHttpRequest,
    tls: options.tls,
    onTlsRefused: options.onTlsRefused,
  });
  const bound = await port.bind(address);
  return {
    address: bound,
    renewTls: (tls) => port.renewTls(tls),
    close: async (graceMs) => {
      const closed = port.close(graceMs);
      // Tells callers to go elsewhere and lets their running calls finish.
      grpc.drain(graceMs);
      await closed;
      server.forceShutdown();
    },
  };
}

function serveUnary(handler: UnaryHandler, options: ResolvedGrpcNetOptions) {
  return (call: UnaryCall, reply: sendUnaryData<Uint8Array>): void => {
    const refuse = (error: unknown): void => {
      if (isInvariantError(error)) {
        options.onInvariantError(error);
      }
      reply(toStatusError(error));
    };
    try {
      handler(call.request, new GrpcServerCall(call)).then((bytes) => reply(null, bytes), refuse);
    } catch (error) {
      refuse(error);
    }
  };
}

function serveStream(handler: StreamHandler, options: ResolvedGrpcNetOptions) {
  return (call: DuplexCall): void => {
    let outcome: StreamEnd | undefined;
    const breakCall = (status: RpcStatusCode, message: string): void => {
      outcome ??= { status, message };
      call.emit('error', { code: status, details: message });
      resetWhenStuck(call, stream, options.cancelFlushMs);
    };
    const stream = new GrpcStream({
      call: {
        write: (message, done) => call.write(message, done),
        end: () => {
          outcome ??= { status: RpcStatus.OK, message: '' };
          call.end();
        },
        on: (event, listener) => call.on(event, listener),
      },
      sendBufferHighBytes: options.sendBufferHighBytes,
      abort: breakCall,
    });
    call.on('end', () => stream.halfClosed());
    // Comes once at the end of every call, however it ended.
    call.on('cancelled', () =>
      stream.finish(outcome ?? { status: RpcStatus.CANCELLED, message: 'the caller is gone' }),
    );
    // Clients wait for the initial metadata before they count a stream as open.
    call.sendMetadata(toMetadata(undefined));
    try {
      handler(stream, new GrpcServerCall(call));
    } catch (error) {
      if (isInvariantError(error)) {
        options.onInvariantError(error);
      }
      const { code, details } = toStatusError(error);
      stream.cancel(code, details);
    }
  };
}
