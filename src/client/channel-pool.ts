/** One connection per store, made on first use. */
import type { StoreId } from '../base/ids.ts';
import type { Tracer } from './trace.ts';
import { StoreConn, type ClientEnv, type StoreConnOwner } from './store-conn.ts';

export interface ChannelPoolOptions {
  readonly env: ClientEnv;
  readonly maxInFlightPerStore: number;
  readonly queueMax: number;
  readonly tracer?: Tracer | undefined;
  readonly clusterId: () => string;
  readonly owner: StoreConnOwner;
}

export class ChannelPool {
  readonly #options: ChannelPoolOptions;
  readonly #conns = new Map<StoreId, StoreConn>();

  constructor(options: ChannelPoolOptions) {
    this.#options = options;
  }

  conn(storeId: StoreId): StoreConn {
    const known = this.#conns.get(storeId);
    if (known !== undefined) {
      return known;
    }
    const { env, maxInFlightPerStore, queueMax, tracer, clusterId, owner } = this.#options;
    const conn = new StoreConn({ env, storeId, maxInFlight: maxInFlightPerStore, queueMax, tracer, clusterId, owner });
    this.#conns.set(storeId, conn);
    return conn;
  }

  isAvailable(storeId: StoreId): boolean {
    return this.#conns.get(storeId)?.isAvailable ?? true;
  }

  close(cause: unknown): void {
    for (const conn of this.#conns.values()) {
      conn.close(cause);
    }
    this.#conns.clear();
  }
}
