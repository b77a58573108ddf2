/** The dialing side: one connection to one address, opened by the first call and reopened as long as calls come. */
import { Client, type ClientDuplexStream, type ServiceError, type StatusObject, credentials } from '@grpc/grpc-js';
import {
  type ByteStream,
  type CallOptions,
  type Channel,
  RpcError,
  RpcStatus,
  type RpcStatusCode,
  type StreamEnd,
} from '../../env/net.ts';
import { GrpcStream } from './grpc-stream.ts';
import { type ResolvedGrpcNetOptions, channelSettings } from './options.ts';
import { fromBuffer, toBuffer } from './raw-message.ts';
import { toCallError, toMetadata, toStreamEnd } from './status.ts';

type Breaker = () => void;

/** A stream that is over as soon as its owner has set the callbacks. */
function endedStream(end: StreamEnd): ByteStream {
  const nothing = (): void => undefined;
  const stream = new GrpcStream({
    call: { write: () => true, end: nothing, on: nothing },
    sendBufferHighBytes: 0,
    abort: nothing,
  });
  queueMicrotask(() => stream.finish(end));
  return stream;
}

export class GrpcChannel implements Channel {
  readonly address: string;
  readonly #options: ResolvedGrpcNetOptions;
  readonly #client: Client;
  /** Breaks each running call or stream. */
  readonly #running = new Set<Breaker>();
  readonly #onClosed: (channel: GrpcChannel) => void;
  #isClosed = false;

  constructor(address: string, options: ResolvedGrpcNetOptions, onClosed: (channel: GrpcChannel) => void) {
    this.address = address;
    this.#options = options;
    this.#onClosed = onClosed;
    this.#client = new Client(address, credentials.createInsecure(), channelSettings(options));
  }

  unary(method: string, request: Uint8Array, call: CallOptions): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) {
        reject(new RpcError(RpcStatus.CANCELLED, `the channel to ${this.address} is closed`, { sent: false }));
        return;
      }
      const { signal } = call;
      if (signal?.aborted === true) {
        reject(new RpcError(RpcStatus.CANCELLED, 'canceled by the caller', { sent: false, cause: signal.reason }));
        return;
      }
      const breakCall = (): void => running.cancel();
      const running = this.#client.makeUnaryRequest(
        method,
        toBuffer,
        fromBuffer,
        request,
        toMetadata(call.metadata),
        { deadline: Date.now() + call.timeoutMs },
        (error: ServiceError | null, reply?: Uint8Array) => {
          this.#running.delete(breakCall);
          signal?.removeEventListener('abort', breakCall);
          if (error !== null) {
            reject(toCallError(error));
          } else if (reply === undefined) {
            reject(new RpcError(RpcStatus.INTERNAL, 'the call ended without a reply'));
          } else {
            resolve(reply);
          }
        },
      );
      this.#running.add(breakCall);
      signal?.addEventListener('abort', breakCall, { once: true });
    });
  }

  stream(method: string, options: { readonly metadata?: Readonly<Record<string, string>> } = {}): ByteStream {
    if (this.#isClosed) {
      return endedStream({ status: RpcStatus.CANCELLED, message: `the channel to ${this.address} is closed` });
    }
    const call: ClientDuplexStream<Uint8Array, Uint8Array> = this.#client.makeBidiStreamRequest(
      method,
      toBuffer,
      fromBuffer,
      toMetadata(options.metadata),
      {},
    );
    const abort = (status: RpcStatusCode, message: string): void => {
      call.call?.cancelWithStatus(status, message);
    };
    const stream = new GrpcStream({ call, sendBufferHighBytes: this.#options.sendBufferHighBytes, abort });
    const breakStream = (): void => stream.cancel(RpcStatus.CANCELLED, `the channel to ${this.address} was closed`);
    // Messages that arrived before the status may still wait in Node's buffer; its end event comes behind them.
    let ended: StreamEnd | undefined;
    let isDrained = false;
    const finishIfBoth = (): void => {
      if (ended !== undefined && isDrained) {
        this.#running.delete(breakStream);
        stream.finish(ended);
      }
    };
    call.on('status', (status: StatusObject) => {
      ended = toStreamEnd(status);
      finishIfBoth();
    });
    call.on('end', () => {
      isDrained = true;
      finishIfBoth();
    });
    // Only keeps the process alive: the status event that follows says the same.
    call.on('error', () => undefined);
    this.#running.add(breakStream);
    return stream;
  }

  close(): void {
    if (this.#isClosed) {
      return;
    }
    this.#isClosed = true;
    for (const breakCall of [...this.#running]) {
      breakCall();
    }
    this.#client.close();
    this.#onClosed(this);
  }
}
