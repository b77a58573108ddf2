/** Runs command lines without a process: streams in memory, clusters of the SDK's own tests. */
import { connectCore, connectWith } from '../../../src/client/connect.ts';
import { AdminClient } from '../../../src/client/admin.ts';
import type { CliIo, Sink } from '../../../src/cli/io.ts';
import { runCli } from '../../../src/cli/program.ts';
import type { Connector, ConnectorOptions } from '../../../src/cli/session.ts';
import type { ClientEnv } from '../../../src/client/store-conn.ts';
import type { FakeCluster } from '../client/fake-cluster.ts';

export class MemorySink implements Sink {
  readonly isTerminal: boolean;
  readonly columns: number;
  readonly #parts: Buffer[] = [];

  constructor(isTerminal = false, columns = 0) {
    this.isTerminal = isTerminal;
    this.columns = columns;
  }

  write(data: string | Uint8Array): Promise<void> {
    this.#parts.push(Buffer.from(data as Uint8Array));
    return Promise.resolve();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }

  get text(): string {
    return this.bytes.toString('utf8');
  }
}

export interface RunOptions {
  readonly stdin?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
  readonly isTerminal?: boolean;
  readonly signal?: AbortSignal;
}

export interface RunOutcome {
  readonly code: number;
  readonly stdout: string;
  readonly stdoutBytes: Buffer;
  readonly stderr: string;
}

const NO_CLUSTER: Connector = {
  data: () => Promise.reject(new Error('this command must not connect')),
  admin: () => Promise.reject(new Error('this command must not connect')),
};

export async function runWith(
  connector: Connector,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunOutcome> {
  const stdout = new MemorySink(options.isTerminal ?? false, options.isTerminal === true ? 80 : 0);
  const stderr = new MemorySink(options.isTerminal ?? false, options.isTerminal === true ? 80 : 0);
  const io: CliIo = {
    env: options.env ?? {},
    stdout,
    stderr,
    stdin: (async function* () {
      yield Buffer.from((options.stdin ?? '') as Uint8Array);
    })(),
    isStdinTerminal: false,
    signal: options.signal ?? new AbortController().signal,
  };
  const code = await runCli(args, io, connector, []);
  return { code, stdout: stdout.text, stdoutBytes: stdout.bytes, stderr: stderr.text };
}

/** A command that must end before it connects. */
export const runAlone = (args: readonly string[], options?: RunOptions): Promise<RunOutcome> =>
  runWith(NO_CLUSTER, args, options);

export function connectorOf(env: ClientEnv, pd: string): Connector {
  const options = ({ timeoutMs, onTrace }: ConnectorOptions): Parameters<typeof connectWith>[1] => ({
    pd: [pd],
    name: 'braid-cli',
    timeoutMs,
    connectTimeoutMs: timeoutMs,
    ...(onTrace === undefined ? {} : { onTrace }),
  });
  return {
    data: (given) => connectWith(env, options(given)),
    admin: async (given) => new AdminClient(await connectCore(env, options(given)), { owns: true }),
  };
}

/** A command against a cluster on virtual time. It must not touch files. */
export const runOn = (cluster: FakeCluster, args: readonly string[], options?: RunOptions): Promise<RunOutcome> =>
  cluster.clock.drive(runWith(connectorOf(cluster.env, 'pd:1'), args, options));
