/**
 * A table of services whose handlers come later: a store must be bound to its port before it can tell the placement
 * service its address, and only then it learns what it serves. Until then calls are answered UNAVAILABLE.
 */
import { RpcError, RpcStatus, type ServiceTable, type StreamHandler, type UnaryHandler } from '../../env/net.ts';
import type { Method } from '../../rpc/method.ts';

export class DeferredServices {
  #services: ServiceTable | undefined;
  readonly #reason: string;

  constructor(reason: string) {
    this.#reason = reason;
  }

  /** Handlers for these methods that pass calls on once {@link open} was called. */
  table(methods: readonly Pick<Method<never, never>, 'path' | 'kind'>[]): ServiceTable {
    const unary = new Map<string, UnaryHandler>();
    const stream = new Map<string, StreamHandler>();
    for (const { path, kind } of methods) {
      if (kind === 'unary') {
        unary.set(path, async (request, call) => {
          const handler = this.#services?.unary.get(path);
          if (handler === undefined) {
            throw this.#refusal(path);
          }
          return handler(request, call);
        });
      } else {
        stream.set(path, (bytes, call) => {
          const handler = this.#services?.stream.get(path);
          if (handler === undefined) {
            const { status, message } = this.#refusal(path);
            bytes.cancel(status, message);
          } else {
            handler(bytes, call);
          }
        });
      }
    }
    return { unary, stream };
  }

  open(services: ServiceTable): void {
    this.#services = services;
  }

  #refusal(path: string): RpcError {
    return this.#services === undefined
      ? new RpcError(RpcStatus.UNAVAILABLE, this.#reason)
      : new RpcError(RpcStatus.UNIMPLEMENTED, `${path} is not served here`);
  }
}
