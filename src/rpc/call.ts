/** Typed calls over the network seam, seen from the caller. */
import { BadMessageError } from '../codec/bad-message-error.ts';
import type { ByteStream, CallOptions, Channel, StreamEnd } from '../env/net.ts';
import { RpcStatus, type RpcStatusCode } from '../env/net.ts';
import { type MessageCodec, type StreamMethod, type UnaryMethod, decodeMessage } from './method.ts';

/**
 * One call, one reply. Rejects with RpcError, or with BadMessageError when the reply cannot be decoded. The reply's
 * byte fields are views of the received message.
 */
export async function unaryCall<Request, Reply>(
  channel: Channel,
  method: UnaryMethod<Request, Reply>,
  request: Request,
  options: CallOptions,
): Promise<Reply> {
  const reply = await channel.unary(method.path, method.request.encode(request), options);
  return decodeMessage(method.reply, reply, method.path);
}

const ignore = (): void => undefined;

/**
 * One end of a typed stream; the rules of ByteStream hold. A message that cannot be decoded breaks the stream with
 * INTERNAL and is not delivered, nor is anything after it but `onEnd`.
 */
export class TypedStream<Out, In> {
  onMessage: (message: In) => void = ignore;
  onHalfClose: () => void = ignore;
  onDrain: () => void = ignore;
  onEnd: (end: StreamEnd) => void = ignore;
  readonly #bytes: ByteStream;
  readonly #out: MessageCodec<Out>;
  #broken = false;

  /** Takes over the callbacks of `bytes`. */
  constructor(
    bytes: ByteStream,
    codecs: { readonly out: MessageCodec<Out>; readonly in: MessageCodec<In>; readonly path: string },
  ) {
    this.#bytes = bytes;
    this.#out = codecs.out;
    bytes.onMessage = (message): void => {
      if (this.#broken) {
        return;
      }
      let decoded: In;
      try {
        decoded = decodeMessage(codecs.in, message, codecs.path);
      } catch (error) {
        this.#broken = true;
        bytes.cancel(RpcStatus.INTERNAL, error instanceof BadMessageError ? error.message : 'malformed message');
        return;
      }
      this.onMessage(decoded);
    };
    bytes.onHalfClose = (): void => {
      if (!this.#broken) {
        this.onHalfClose();
      }
    };
    bytes.onDrain = (): void => this.onDrain();
    bytes.onEnd = (end): void => this.onEnd(end);
  }

  get bufferedBytes(): number {
    return this.#bytes.bufferedBytes;
  }

  /** False means: stop until `onDrain`. */
  send(message: Out): boolean {
    return this.#bytes.send(this.#out.encode(message));
  }

  end(): void {
    this.#bytes.end();
  }

  cancel(status: RpcStatusCode, message: string): void {
    this.#bytes.cancel(status, message);
  }
}

/**
 * Opens a stream of any kind. For a server-stream method send the one request and call `end()`; for a client-stream
 * method the one reply arrives through `onMessage`. Set the callbacks synchronously.
 */
export function openStream<Request, Reply>(
  channel: Channel,
  method: StreamMethod<Request, Reply>,
  options: { readonly metadata?: Readonly<Record<string, string>> } = {},
): TypedStream<Request, Reply> {
  return new TypedStream(channel.stream(method.path, options), {
    out: method.request,
    in: method.reply,
    path: method.path,
  });
}
