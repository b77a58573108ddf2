/** The Env of a server process, and the restart that gives LevelDB enough threads. */
import { spawn } from 'node:child_process';
import { createLevelEngineFactory, THREAD_POOL_SIZE_RECOMMENDED } from '../../engine/index.ts';
import type { Env } from '../../env/env.ts';
import { abortOnUncaught, createPinoLogger, parseFailpoints, type RealLogger, realEnv } from '../../env/real/index.ts';
import { createGrpcNet, type GrpcNet } from '../../rpc/grpc/grpc-net.ts';
import { loadTls, type TlsCredentials } from '../../rpc/grpc/tls-credentials.ts';
import type { LogSettings, TlsSettings } from '../../server/settings.ts';
import { watchCertificates } from './certificate-watch.ts';

/** Failpoints of a process under test, as `name=action;…`. */
const FAILPOINTS_VARIABLE = 'BRAID_FAILPOINTS';
const POOL_VARIABLE = 'UV_THREADPOOL_SIZE';

export interface RealProcess {
  readonly env: Env;
  readonly log: RealLogger;
  /** Closes connections, removes handlers, writes the log out. */
  close(): Promise<void>;
}

/** Certificates of a process; undefined for one that speaks plain text. @throws TlsFailure */
export const credentialsOf = (tls: TlsSettings): TlsCredentials | undefined =>
  tls.ca === '' ? undefined : loadTls(tls);

/** Connections that are turned away because of TLS are logged no more often than this. */
const REFUSAL_LOG_INTERVAL_MS = 1_000;

/** One line for many refusals: whoever dials wrongly dials again and again. */
function refusalLogger(log: RealLogger): (peer: string, why: string) => void {
  let lastMs = -Infinity;
  let unlogged = 0;
  return (peer, why) => {
    const nowMs = performance.now();
    if (nowMs - lastMs < REFUSAL_LOG_INTERVAL_MS) {
      unlogged++;
      return;
    }
    log.warn({ peer, why, ...(unlogged === 0 ? {} : { unlogged }) }, 'a connection was turned away by TLS');
    lastMs = nowMs;
    unlogged = 0;
  };
}

/** @throws TlsFailure */
export function createRealProcess(options: {
  readonly log: LogSettings;
  readonly fields: Readonly<Record<string, unknown>>;
  /** Default: plain text. Its files are followed while the process runs. */
  readonly tls?: TlsSettings;
  readonly blockCacheBytes?: number;
}): RealProcess {
  const { level, file } = options.log;
  const log = createPinoLogger({ level, fields: options.fields, ...(file === '' ? {} : { destination: file }) });
  const failpoints = process.env[FAILPOINTS_VARIABLE];
  let onInvariantError: (error: unknown) => void = () => undefined;
  const net: GrpcNet = createGrpcNet({
    tls: options.tls === undefined ? undefined : credentialsOf(options.tls),
    onTlsRefused: refusalLogger(log),
    onInvariantError: (error) => onInvariantError(error),
  });
  const env = realEnv({
    net,
    engines: createLevelEngineFactory(
      options.blockCacheBytes === undefined ? {} : { blockCacheBytes: options.blockCacheBytes },
    ),
    log,
    ...(failpoints === undefined ? {} : { failpoints: parseFailpoints(failpoints) }),
  });
  onInvariantError = (error): never => env.abort('bug', 'an invariant is broken in a request', error);
  const removeHandlers = abortOnUncaught(env);
  const { tls } = options;
  const stopWatching = tls === undefined || tls.ca === '' ? undefined : watchCertificates({ tls, net, log });
  return {
    env,
    log,
    close: async () => {
      stopWatching?.();
      await net.close(0);
      removeHandlers();
      log.flush();
    },
  };
}

/** Variables every store process is started with. */
export const storeEnvironment = (env: Readonly<Record<string, string | undefined>>): NodeJS.ProcessEnv => ({
  ...env,
  [POOL_VARIABLE]: env[POOL_VARIABLE] ?? String(THREAD_POOL_SIZE_RECOMMENDED),
});

/**
 * The size of libuv's thread pool is fixed before the first line of a program runs. If nobody has set it, the same
 * command is started again as a child with the right size, and this process only passes signals on.
 * @returns the child's exit code, or undefined if this process may go on itself
 */
export async function runWithThreadPool(): Promise<number | undefined> {
  if (process.env[POOL_VARIABLE] !== undefined) {
    return undefined;
  }
  const child = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    env: storeEnvironment(process.env),
    // The channel ends with this process, and the child with the channel. Its own process group keeps Ctrl-C from
    // reaching it twice.
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    detached: true,
  });
  const forward = (signal: NodeJS.Signals): void => {
    child.kill(signal);
  };
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const signal of signals) {
    process.on(signal, forward);
  }
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (exitCode, signal) => resolve(exitCode ?? (signal === 'SIGKILL' ? 137 : 1)));
  });
  for (const signal of signals) {
    process.off(signal, forward);
  }
  return code;
}
