/** An in-memory network on virtual time. Addresses can be down (refuse at once) or dark (swallow everything). */
import type { Clock } from '../../../src/env/clock.ts';
import {
  type ByteStream,
  type CallOptions,
  type Channel,
  type Listener,
  type Net,
  RpcError,
  RpcStatus,
  type RpcStatusCode,
  type ServiceTable,
  type StreamEnd,
} from '../../../src/env/net.ts';

interface Host {
  services: ServiceTable;
  reach: 'up' | 'down' | 'dark';
  readonly streams: Set<StreamHalf>;
}

class StreamHalf implements ByteStream {
  onMessage: (message: Uint8Array) => void = () => {};
  onHalfClose: () => void = () => {};
  onDrain: () => void = () => {};
  onEnd: (end: StreamEnd) => void = () => {};
  other: StreamHalf | undefined;
  ended = false;
  isFull = false;
  readonly #net: FakeNet;

  constructor(net: FakeNet) {
    this.#net = net;
  }

  get bufferedBytes(): number {
    return 0;
  }

  send(message: Uint8Array): boolean {
    const { other } = this;
    if (this.ended || other === undefined) {
      return true;
    }
    const copy = new Uint8Array(message);
    this.#net.later(() => {
      if (!other.ended) {
        other.onMessage(copy);
      }
    });
    return !this.isFull;
  }

  end(): void {
    const { other } = this;
    this.#net.later(() => {
      if (other !== undefined && !other.ended) {
        other.onHalfClose();
      }
    });
  }

  cancel(status: RpcStatusCode, message: string): void {
    this.finish({ status, message });
    this.other?.finish({ status, message });
  }

  finish(end: StreamEnd): void {
    if (!this.ended) {
      this.ended = true;
      this.#net.later(() => this.onEnd(end));
    }
  }
}

export class FakeNet implements Net {
  readonly #clock: Clock;
  readonly #hosts = new Map<string, Host>();
  /** Calls of each method, for assertions. */
  readonly calls: Map<string, number> = new Map<string, number>();
  dials = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  later(fn: () => void): void {
    this.#clock.defer(fn, 'fake-net');
  }

  serve(address: string, services: ServiceTable): void {
    this.#hosts.set(address, { services, reach: 'up', streams: new Set() });
  }

  /** `down` breaks what is open and refuses what comes; `dark` leaves everything open and answers nothing. */
  setReach(address: string, reach: 'up' | 'down' | 'dark'): void {
    const host = this.#host(address);
    host.reach = reach;
    if (reach === 'down') {
      this.breakStreams(address);
    }
  }

  isUp(address: string): boolean {
    return this.#hosts.get(address)?.reach === 'up';
  }

  breakStreams(address: string): void {
    const host = this.#host(address);
    for (const stream of host.streams) {
      stream.cancel(RpcStatus.UNAVAILABLE, 'connection reset');
    }
    host.streams.clear();
  }

  #host(address: string): Host {
    const host = this.#hosts.get(address);
    if (host === undefined) {
      throw new Error(`no host ${address}`);
    }
    return host;
  }

  dial(address: string): Channel {
    this.dials++;
    const open = new Set<StreamHalf>();
    let closed = false;
    const pending = new Set<(error: RpcError) => void>();
    return {
      address,
      unary: (method, request, call) =>
        new Promise<Uint8Array>((resolve, reject) => {
          this.calls.set(method, (this.calls.get(method) ?? 0) + 1);
          const fail = (error: RpcError): void => {
            pending.delete(fail);
            this.#clock.clearTimer(timer);
            reject(error);
          };
          pending.add(fail);
          const timer = this.#clock.setTimer(
            call.timeoutMs,
            () => fail(new RpcError(RpcStatus.DEADLINE_EXCEEDED, `no answer within ${call.timeoutMs} ms`)),
            'fake-unary',
          );
          call.signal?.addEventListener('abort', () => fail(new RpcError(RpcStatus.CANCELLED, 'aborted')), {
            once: true,
          });
          if (closed) {
            fail(new RpcError(RpcStatus.CANCELLED, 'channel closed', { sent: false }));
            return;
          }
          this.later(() => {
            if (!pending.has(fail)) {
              return;
            }
            this.#deliver(address, method, request, call, resolve, fail, () => {
              pending.delete(fail);
              this.#clock.clearTimer(timer);
            });
          });
        }),
      stream: (method) => {
        this.calls.set(method, (this.calls.get(method) ?? 0) + 1);
        const near = new StreamHalf(this);
        const far = new StreamHalf(this);
        near.other = far;
        far.other = near;
        open.add(near);
        const host = this.#hosts.get(address);
        if (host === undefined || host.reach === 'down') {
          near.finish({ status: RpcStatus.UNAVAILABLE, message: 'connection refused' });
        } else if (host.reach === 'up') {
          const handler = host.services.stream.get(method);
          if (handler === undefined) {
            near.finish({ status: RpcStatus.UNIMPLEMENTED, message: 'unknown method' });
          } else {
            host.streams.add(near);
            handler(far, { peer: 'client', metadata: {}, timeoutMs: undefined });
          }
        }
        return near;
      },
      close: () => {
        closed = true;
        for (const stream of open) {
          stream.cancel(RpcStatus.CANCELLED, 'channel closed');
        }
        for (const fail of [...pending]) {
          fail(new RpcError(RpcStatus.CANCELLED, 'channel closed'));
        }
      },
    };
  }

  #deliver(
    address: string,
    method: string,
    request: Uint8Array,
    call: CallOptions,
    resolve: (reply: Uint8Array) => void,
    fail: (error: RpcError) => void,
    done: () => void,
  ): void {
    const host = this.#hosts.get(address);
    if (host === undefined || host.reach === 'down') {
      fail(new RpcError(RpcStatus.UNAVAILABLE, 'connection refused', { sent: false }));
      return;
    }
    if (host.reach === 'dark') {
      return;
    }
    const handler = host.services.unary.get(method);
    if (handler === undefined) {
      fail(new RpcError(RpcStatus.UNIMPLEMENTED, 'unknown method'));
      return;
    }
    handler(new Uint8Array(request), { peer: 'client', metadata: {}, timeoutMs: call.timeoutMs }).then(
      (reply) =>
        this.later(() => {
          // A host that went dark in between swallows the answer.
          if (host.reach !== 'dark') {
            done();
            resolve(reply);
          }
        }),
      (error: unknown) => fail(error instanceof RpcError ? error : new RpcError(RpcStatus.UNKNOWN, String(error))),
    );
  }

  listen(): Promise<Listener> {
    throw new Error('the fake network serves through serve()');
  }
}
