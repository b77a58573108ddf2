/**
 * What a client does on its way to an answer, told to whoever asked for it with the option `onTrace`: which calls went
 * where and how they ended, what is tried again and why, who leads the placement service. Costs nothing without a hook.
 */
import type { ClientEnv } from './store-conn.ts';
import { briefOf } from './errors.ts';
import { RpcError, RpcStatus } from '../env/net.ts';

interface TraceEventBase {
  /** When it was over, ms since the client was made. */
  readonly atMs: number;
}

/** One message to a server and what came back. Commands to stores that share a stream are told one by one. */
export interface RpcTraceEvent extends TraceEventBase {
  readonly type: 'rpc';
  /** Full name, such as `/tikvpb.Tikv/RawGet`. */
  readonly method: string;
  /** `host:port` */
  readonly endpoint: string;
  readonly durationMs: number;
  /** `ok`, the code of a region error, or the name of a gRPC status in capitals. */
  readonly outcome: string;
  /** Empty unless it failed. */
  readonly message: string;
  readonly storeId: number | undefined;
  readonly regionId: number | undefined;
  /** Tries of the same call before this one. */
  readonly retries: number;
}

/** Something is tried again after `delayMs`. */
export interface RetryTraceEvent extends TraceEventBase {
  readonly type: 'retry';
  /** For example `get of "k"`. */
  readonly what: string;
  /** Tries so far. */
  readonly attempts: number;
  readonly delayMs: number;
  readonly reason: string;
}

/** Another member of the placement service is asked from now on. */
export interface LeaderTraceEvent extends TraceEventBase {
  readonly type: 'leader';
  /** `host:port` */
  readonly endpoint: string;
}

export type TraceEvent = RpcTraceEvent | RetryTraceEvent | LeaderTraceEvent;

/** Called synchronously; what it throws is logged and forgotten. */
export type TraceHook = (event: TraceEvent) => void;

type Untimed<E> = E extends TraceEvent ? Omit<E, 'atMs'> : never;

const STATUS_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(RpcStatus).map(([name, status]) => [status, name]),
);

export class Tracer {
  readonly #env: ClientEnv;
  readonly #hook: TraceHook;
  readonly #startMs: number;

  constructor(env: ClientEnv, hook: TraceHook) {
    this.#env = env;
    this.#hook = hook;
    this.#startMs = env.clock.monoMs();
  }

  emit(event: Untimed<TraceEvent>): void {
    try {
      this.#hook({ ...event, atMs: this.#env.clock.monoMs() - this.#startMs });
    } catch (cause) {
      this.#env.log.warn({ cause: briefOf(cause) }, 'the trace hook failed');
    }
  }

  /** Runs a call of its own and tells how it ended. */
  async call<R>(what: { readonly method: string; readonly endpoint: string }, run: () => Promise<R>): Promise<R> {
    const startMs = this.#env.clock.monoMs();
    const told = (outcome: string, message: string): void =>
      this.emit({
        type: 'rpc',
        ...what,
        durationMs: this.#env.clock.monoMs() - startMs,
        outcome,
        message,
        storeId: undefined,
        regionId: undefined,
        retries: 0,
      });
    try {
      const reply = await run();
      told('ok', '');
      return reply;
    } catch (cause) {
      told(outcomeOf(cause), cause instanceof Error ? cause.message : String(cause));
      throw cause;
    }
  }
}

/** The word for a failed call. */
export function outcomeOf(cause: unknown): string {
  if (cause instanceof RpcError) {
    return STATUS_NAMES.get(cause.status) ?? String(cause.status);
  }
  return cause instanceof Error ? cause.name : 'failed';
}
