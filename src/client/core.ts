/** What all views of one connection share: the env, the router, the placement client and their end of life. */
import { Call, type CallLimits } from './call.ts';
import type { Answer, Command } from './command.ts';
import { AbortError, ClientClosedError } from './errors.ts';
import type { ResolvedOptions } from './options.ts';
import { PdClient } from './pd-client.ts';
import type { CachedRegion } from './region-cache.ts';
import { RequestRouter } from './request-router.ts';
import type { ClientEnv } from './store-conn.ts';
import { Tracer } from './trace.ts';

export class ClientCore {
  readonly env: ClientEnv;
  readonly options: ResolvedOptions;
  readonly pd: PdClient;
  readonly router: RequestRouter;
  /** Undefined unless somebody wants to know. */
  readonly tracer: Tracer | undefined;
  #ended: Promise<void> | undefined;

  constructor(env: ClientEnv, options: ResolvedOptions) {
    this.env = options.log === undefined ? env : { ...env, log: options.log };
    this.options = options;
    const tracer = options.onTrace === undefined ? undefined : new Tracer(this.env, options.onTrace);
    this.tracer = tracer;
    this.pd = new PdClient({ env: this.env, endpoints: options.pd, name: options.name, tracer });
    this.router = new RequestRouter({
      env: this.env,
      pd: this.pd,
      tracer,
      queueMax: options.queueMax,
      maxInFlightPerStore: options.maxInFlightPerStore,
      regionCacheMax: options.regionCacheMax,
    });
  }

  /** Runs one command and maps its answer; what `map` throws rejects the promise. */
  run<R>(command: Command, limits: CallLimits, map: (answer: Answer, entry: CachedRegion) => R): Promise<R> {
    return new Promise((resolve, reject) => {
      this.router.start(new Call(command, limits, (answer, entry) => resolve(map(answer, entry)), reject));
    });
  }

  /** The region of a key, from the cache if it is there. */
  locate(key: Uint8Array, limits: CallLimits): Promise<CachedRegion> {
    return this.run({ type: 'locate', key }, limits, (_, entry) => entry);
  }

  /** Throws unless the client is in use and the signal has not fired; for work that is not one call. */
  requireOpen(what: string, signal: AbortSignal | undefined): void {
    if (this.#ended !== undefined) {
      throw new ClientClosedError(`${what}: the client is closed`);
    }
    if (signal?.aborted === true) {
      throw new AbortError(`${what} was aborted`, { cause: signal.reason });
    }
  }

  /** Stops accepting, waits up to `drainMs` for running calls, then ends the rest. The first call decides. */
  close(drainMs: number): Promise<void> {
    this.#ended ??= this.#close(drainMs);
    return this.#ended;
  }

  destroy(): void {
    this.#ended ??= Promise.resolve();
    this.router.destroy();
    this.pd.close();
  }

  async #close(drainMs: number): Promise<void> {
    this.router.stopAccepting();
    if (this.router.active > 0 && drainMs > 0) {
      await new Promise<void>((resolve) => {
        const timer = this.env.clock.setTimer(drainMs, resolve, 'client-drain');
        void this.router.idle().then(() => {
          this.env.clock.clearTimer(timer);
          resolve();
        });
      });
    }
    this.router.destroy();
    this.pd.close();
  }
}
