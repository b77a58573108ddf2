/**
 * The part that both ends of a gRPC stream share: counts unsent bytes, turns Node's stream events into the callbacks of
 * the seam, and makes sure that nothing is delivered after the end, which is reported once.
 */
import type { ByteStream, RpcStatusCode, StreamEnd } from '../../env/net.ts';

/** What is used of grpc-js duplex streams. */
interface GrpcDuplex {
  write(message: Uint8Array, done: (error?: Error | null) => void): boolean;
  end(): unknown;
  on(event: 'data', listener: (message: Uint8Array) => void): unknown;
}

export interface GrpcStreamOwner {
  readonly call: GrpcDuplex;
  readonly sendBufferHighBytes: number;
  /** Breaks the call; must lead to `finish` later. */
  readonly abort: (status: RpcStatusCode, message: string) => void;
}

const ignore = (): void => undefined;

export class GrpcStream implements ByteStream {
  onMessage: (message: Uint8Array) => void = ignore;
  onHalfClose: () => void = ignore;
  onDrain: () => void = ignore;
  onEnd: (end: StreamEnd) => void = ignore;
  readonly #owner: GrpcStreamOwner;
  #bufferedBytes = 0;
  #isOverHigh = false;
  #isFinished = false;
  #isSendClosed = false;

  constructor(owner: GrpcStreamOwner) {
    this.#owner = owner;
    owner.call.on('data', (message) => {
      if (!this.#isFinished) {
        this.onMessage(message);
      }
    });
  }

  get bufferedBytes(): number {
    return this.#bufferedBytes;
  }

  send(message: Uint8Array): boolean {
    if (this.#isFinished || this.#isSendClosed) {
      return true;
    }
    const size = message.length;
    this.#bufferedBytes += size;
    this.#owner.call.write(message, () => this.#written(size));
    if (this.#bufferedBytes > this.#owner.sendBufferHighBytes) {
      this.#isOverHigh = true;
      return false;
    }
    return true;
  }

  end(): void {
    if (!this.#isFinished && !this.#isSendClosed) {
      this.#isSendClosed = true;
      this.#owner.call.end();
    }
  }

  cancel(status: RpcStatusCode, message: string): void {
    if (!this.#isFinished) {
      this.#isSendClosed = true;
      this.#owner.abort(status, message);
    }
  }

  /** For the owner: the other end will send no more. */
  halfClosed(): void {
    if (!this.#isFinished) {
      this.onHalfClose();
    }
  }

  /** For the owner: the call is over. Only the first call counts. */
  finish(end: StreamEnd): void {
    if (!this.#isFinished) {
      this.#isFinished = true;
      this.#bufferedBytes = 0;
      this.onEnd(end);
    }
  }

  #written(size: number): void {
    if (this.#isFinished) {
      return;
    }
    this.#bufferedBytes -= size;
    if (this.#isOverHigh && this.#bufferedBytes * 2 <= this.#owner.sendBufferHighBytes) {
      this.#isOverHigh = false;
      this.onDrain();
    }
  }
}
