/**
 * What a running command works with: its options, the printer, and connections opened on first use. Closes what it
 * opened, whatever way the command ends.
 */
import { ACTOR_CHARS_MAX, type AdminClient } from '../client/admin.ts';
import type { Braid } from '../client/kv.ts';
import { connect, connectAdmin } from '../client/real.ts';
import type { TraceHook } from '../client/trace.ts';
import { CommandTrace } from './command-trace.ts';
import type { CommonOptions } from './common-options.ts';
import { type FlagSource, type Target, type TlsFiles, targetOf } from './contexts.ts';
import type { CliIo } from './io.ts';
import { Printer } from './output/printer.ts';

/** Where the values of these flags come from. */
export interface OptionSources {
  readonly timeout: FlagSource;
  readonly pd: FlagSource;
  readonly context: FlagSource;
}

/** How a session reaches a cluster; tests put their own in. */
export interface Connector {
  data(options: ConnectorOptions): Promise<Braid>;
  admin(options: ConnectorOptions): Promise<AdminClient>;
}

export interface ConnectorOptions {
  readonly pd: readonly string[];
  /** Undefined speaks plain text. */
  readonly tls: TlsFiles | undefined;
  readonly timeoutMs: number;
  /** Told what the client does; undefined unless somebody wants to know. */
  readonly onTrace: TraceHook | undefined;
}

const CLIENT_NAME = 'braid-cli';

const connectOptions = (options: ConnectorOptions): Parameters<typeof connect>[0] => ({
  pd: options.pd,
  ...(options.tls === undefined ? {} : { tls: options.tls }),
  name: CLIENT_NAME,
  timeoutMs: options.timeoutMs,
  connectTimeoutMs: options.timeoutMs,
  ...(options.onTrace === undefined ? {} : { onTrace: options.onTrace }),
});

/** Who makes a change, for the audit log: what people say, else who is logged in. */
const actorOf = ({ BRAID_ACTOR, USER, LOGNAME, USERNAME }: CliIo['env']): string =>
  BRAID_ACTOR || (USER || LOGNAME || USERNAME || CLIENT_NAME).substring(0, ACTOR_CHARS_MAX);

export const REAL_CONNECTOR: Connector = {
  data: (options) => connect(connectOptions(options)),
  admin: (options) => connectAdmin(connectOptions(options)),
};

export class Session implements AsyncDisposable {
  readonly io: CliIo;
  readonly options: CommonOptions;
  readonly printer: Printer;
  /** Whether the user named a deadline; without one, long work may take as long as it takes. */
  readonly isTimeoutGiven: boolean;
  /** What `--verbose` and `--debug` say; undefined without them. */
  readonly trace: CommandTrace | undefined;
  readonly #sources: OptionSources;
  readonly #connector: Connector;
  readonly #startMs = performance.now();
  #db: Braid | undefined;
  #admin: AdminClient | undefined;

  constructor(io: CliIo, options: CommonOptions, sources: OptionSources, connector: Connector) {
    this.io = io;
    this.options = options;
    this.isTimeoutGiven = sources.timeout !== 'default';
    this.#sources = sources;
    this.#connector = connector;
    this.trace =
      options.verbose || options.debug
        ? new CommandTrace(io, { isDebug: options.debug, elapsedMs: () => this.elapsedMs })
        : undefined;
    this.printer = new Printer(io, {
      mode: options.output,
      hasHead: options.headers,
      columns: options.columns,
      sortBy: options.sortBy,
      where: options.where ?? [],
      limit: options.limit,
      fields: options.fields,
      isQuiet: options.quiet,
    });
  }

  get signal(): AbortSignal {
    return this.io.signal;
  }

  /** What is left of `--timeout`, at least 1 ms. */
  get leftMs(): number {
    return Math.max(1, this.options.timeout - (performance.now() - this.#startMs));
  }

  /** Time since the command began. */
  get elapsedMs(): number {
    return performance.now() - this.#startMs;
  }

  /** The data interface; its calls share the command's deadline and end at Ctrl-C. */
  async db(): Promise<Braid> {
    this.#db ??= await this.#connector.data(await this.#connectorOptions());
    return this.#db.with({ timeoutMs: this.leftMs, signal: this.signal });
  }

  /** Changes made through it carry who makes them, and the command's `--reason`, if it has one. */
  async admin(): Promise<AdminClient> {
    this.#admin ??= await this.#connector.admin(await this.#connectorOptions());
    const { reason } = this.options;
    const admin = this.#admin.withActor(actorOf(this.io.env));
    return reason === undefined || reason === '' ? admin : admin.withReason(reason);
  }

  /** Deadline and interruption for one call of {@link admin}. */
  limits(): { readonly timeoutMs: number; readonly signal: AbortSignal } {
    return { timeoutMs: this.leftMs, signal: this.signal };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db?.close({ drainMs: 0 });
    await this.#admin?.close();
  }

  /** The cluster the command talks to, and what named it. @throws UsageError, InputFileError */
  target(): Promise<Target> {
    const { pd, context, tlsCa, tlsCert, tlsKey } = this.options;
    const { pd: pdSource, context: contextSource } = this.#sources;
    const tls = {
      ...(tlsCa === undefined ? {} : { ca: tlsCa }),
      ...(tlsCert === undefined ? {} : { cert: tlsCert }),
      ...(tlsKey === undefined ? {} : { key: tlsKey }),
    };
    return targetOf({ pd, pdSource, context, contextSource, tls }, this.io.env);
  }

  async #connectorOptions(): Promise<ConnectorOptions> {
    const { pd, tls, from } = await this.target();
    this.trace?.say(
      `asking ${pd.join(', ')} (${from}), ${tls === undefined ? 'not encrypted' : `encrypted by ${tls.ca}`}`,
    );
    return { pd, tls, timeoutMs: this.leftMs, onTrace: this.trace?.hook };
  }
}
