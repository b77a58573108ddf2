/**
 * Assembles the Env of a real process. The engine factory and the network come from their own rooms and are handed in
 * by the server. Owns the way a process stops when going on could corrupt data.
 */
import { EXIT_CODE_BUG, EXIT_CODE_STORAGE } from '../../base/assert.ts';
import type { EngineFactory } from '../engine.ts';
import type { Env } from '../env.ts';
import { NO_FAILPOINTS } from '../failpoints.ts';
import type { Net } from '../net.ts';
import { createPinoLogger, type RealLogger } from './pino-logger.ts';
import { realClock } from './real-clock.ts';
import { createFailpoints, type FailpointRule } from './real-failpoints.ts';
import { randomSeed, realRng } from './real-rng.ts';

export interface RealEnvOptions {
  readonly net: Net;
  readonly engines: EngineFactory;
  /** Default: JSON lines of level `info` on standard error. */
  readonly log?: RealLogger;
  /** Default: from the operating system; written to the log either way. */
  readonly seed?: number;
  /** Default: none. */
  readonly failpoints?: readonly FailpointRule[];
}

/** The Env of a process that serves real users. */
export function realEnv(options: RealEnvOptions): Env {
  const log = options.log ?? createPinoLogger();
  const seed = options.seed ?? randomSeed();
  log.debug({ seed }, 'random numbers seeded');
  const rules = options.failpoints ?? [];
  return {
    clock: realClock(),
    rng: realRng(seed),
    net: options.net,
    engines: options.engines,
    failpoints: rules.length === 0 ? NO_FAILPOINTS : createFailpoints(rules, () => die(log)),
    log,
    abort: (kind, reason, cause) => abort(log, kind, reason, cause),
  };
}

function abort(log: RealLogger, kind: 'bug' | 'storage', reason: string, cause: unknown): never {
  log.error({ kind, reason, ...(cause === undefined ? {} : { cause }) }, 'the process stops to protect its data');
  log.flush();
  process.exit(kind === 'bug' ? EXIT_CODE_BUG : EXIT_CODE_STORAGE);
}

/** As a crash: no handlers, no flushing of anything but the log. */
function die(log: RealLogger): never {
  log.flush();
  process.kill(process.pid, 'SIGKILL');
  // The signal is delivered before the call returns to this thread; the loop only tells the compiler so.
  for (;;) {}
}

/**
 * Turns exceptions that nobody caught and rejections that nobody handled into `env.abort('bug')`. Returns a function
 * that removes the handlers.
 */
export function abortOnUncaught(env: Env): () => void {
  const onException = (error: unknown): never => env.abort('bug', 'an exception was not caught', error);
  const onRejection = (reason: unknown): never => env.abort('bug', 'a rejected promise was not handled', reason);
  process.on('uncaughtException', onException);
  process.on('unhandledRejection', onRejection);
  return () => {
    process.off('uncaughtException', onException);
    process.off('unhandledRejection', onRejection);
  };
}
