/** The dialing side: one connection to one address, opened by the first call and reopened as long as calls come. */
import { isIP } from 'node:net';
import { checkServerIdentity } from 'node:tls';
import {
  type ChannelCredentials,
  Client,
  type ClientDuplexStream,
  type ServiceError,
  type StatusObject,
  credentials,
} from '@grpc/grpc-js';
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
import type { TlsCredentials } from './tls-credentials.ts';
import { diagnose, mayBeTls, splitAddress } from './tls-diagnosis.ts';
import type { TlsFailure } from '../tls-failure.ts';
import { toCallError, toMetadata, toStreamEnd } from './status.ts';

type Breaker = () => void;

const NOTHING_TO_EXPLAIN: Promise<undefined> = Promise.resolve(undefined);

/** gRPC insists on announcing a name, which an address is not; servers of ours do not look at it. */
const NAME_OF_ADDRESSES = 'braid';

function channelCredentials(address: string, tls: TlsCredentials | undefined): ChannelCredentials {
  if (tls === undefined) {
    return credentials.createInsecure();
  }
  const { host } = splitAddress(address);
  return credentials.createFromSecureContext(tls.context, {
    checkServerIdentity: (_announced, certificate) => checkServerIdentity(host, certificate),
  });
}

const nameSettings = (address: string, tls: TlsCredentials | undefined): Record<string, string> =>
  tls !== undefined && isIP(splitAddress(address).host) !== 0
    ? { 'grpc.ssl_target_name_override': NAME_OF_ADDRESSES }
    : {};

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
  #diagnosis: Promise<TlsFailure | undefined> | undefined;
  #isClosed = false;

  constructor(address: string, options: ResolvedGrpcNetOptions, onClosed: (channel: GrpcChannel) => void) {
    this.address = address;
    this.#options = options;
    this.#onClosed = onClosed;
    this.#client = new Client(address, channelCredentials(address, options.tls), {
      ...channelSettings(options),
      ...nameSettings(address, options.tls),
    });
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
            this.#explain(error.details).then(
              (failure) => reject(toCallError(error, failure)),
              () => reject(toCallError(error, undefined)),
            );
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
      const finishWith = (failure?: TlsFailure): void => {
        ended = toStreamEnd(status, failure);
        finishIfBoth();
      };
      // Streams are opened again and again by their owners; only those that should be encrypted are worth a look.
      if (this.#options.tls === undefined) {
        finishWith();
      } else {
        this.#explain(status.details).then(finishWith, () => finishWith());
      }
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

  /** Why TLS stood in the way, if it did. Takes no time unless it may have. */
  #explain(details: string): Promise<TlsFailure | undefined> {
    if (this.#isClosed || !mayBeTls(details)) {
      return NOTHING_TO_EXPLAIN;
    }
    // One look for all calls that failed together.
    this.#diagnosis ??= diagnose(this.address, this.#options.tls).finally(() => {
      this.#diagnosis = undefined;
    });
    return this.#diagnosis;
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
