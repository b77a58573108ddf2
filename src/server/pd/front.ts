/**
 * The port of a placement member. Calls that any member answers are always there; all others reach the services of the
 * node that serves at this moment, or are refused with the name of the leader. When the node stops, its streams end.
 */
import { assert } from '../../base/assert.ts';
import {
  type ByteStream,
  RpcError,
  RpcStatus,
  type ServiceTable,
  type StreamHandler,
  type UnaryHandler,
} from '../../env/net.ts';
import type { Method } from '../../rpc/method.ts';
import { adminMethods, metaStorageMethods, pdMethods, placementMethods } from '../../rpc/services.ts';

/** Services of which some calls only the leader answers. */
const LEADER_SERVICES: readonly Readonly<Record<string, Method<never, never>>>[] = [
  pdMethods,
  placementMethods,
  adminMethods,
  metaStorageMethods,
] as unknown as readonly Readonly<Record<string, Method<never, never>>>[];

const EMPTY_TABLE: ServiceTable = { unary: new Map(), stream: new Map() };

export class Front {
  /** Why this member does not serve, for callers. */
  readonly #refusal: () => Error;
  /** Services of the serving node. */
  #current: ServiceTable = EMPTY_TABLE;
  #isServing = false;
  readonly #streams = new Set<ByteStream>();

  constructor(refusal: () => Error) {
    this.#refusal = refusal;
  }

  /** From now on calls go to these services. */
  serve(services: ServiceTable): void {
    const known = new Set(LEADER_SERVICES.flatMap((methods) => Object.values(methods).map(({ path }) => path)));
    for (const path of [...services.unary.keys(), ...services.stream.keys()]) {
      assert(known.has(path), 'a service of the leader is not offered on the port', { path });
    }
    this.#current = services;
    this.#isServing = true;
  }

  /** Refuses calls from now on and breaks the streams. */
  stop(): void {
    this.#current = EMPTY_TABLE;
    this.#isServing = false;
    const { message } = this.#notServing();
    for (const stream of [...this.#streams]) {
      stream.cancel(RpcStatus.UNAVAILABLE, message);
    }
    this.#streams.clear();
  }

  /** The port's table. @param always calls that this member answers in any state */
  table(always: ServiceTable): ServiceTable {
    const unary = new Map(always.unary);
    const stream = new Map(always.stream);
    for (const methods of LEADER_SERVICES) {
      for (const { path, kind } of Object.values(methods)) {
        if (unary.has(path) || stream.has(path)) {
          continue;
        }
        if (kind === 'unary') {
          unary.set(path, this.#unaryHandler(path));
        } else {
          stream.set(path, this.#streamHandler(path));
        }
      }
    }
    return { unary, stream };
  }

  #unaryHandler(path: string): UnaryHandler {
    return (request, call) => {
      const handler = this.#current.unary.get(path);
      return handler === undefined ? Promise.reject(this.#refuse(path)) : handler(request, call);
    };
  }

  #streamHandler(path: string): StreamHandler {
    return (stream, call) => {
      const handler = this.#current.stream.get(path);
      if (handler === undefined) {
        const { status, message } = this.#refuse(path);
        stream.cancel(status, message);
        return;
      }
      this.#streams.add(stream);
      handler(stream, call);
      const { onEnd } = stream;
      stream.onEnd = (end) => {
        this.#streams.delete(stream);
        onEnd(end);
      };
    };
  }

  #refuse(path: string): RpcError {
    return this.#isServing
      ? new RpcError(RpcStatus.UNIMPLEMENTED, `this service has no call ${path}`)
      : this.#notServing();
  }

  #notServing(): RpcError {
    const cause = this.#refusal();
    return new RpcError(RpcStatus.UNAVAILABLE, cause.message, { cause });
  }
}
