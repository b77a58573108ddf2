/**
 * `--watch` of commands that only look: the command runs again every second and its output is printed when it differs
 * from the last one. Every look is a run of its own, so it follows the placement service wherever that goes.
 */
import { setTimeout } from 'node:timers/promises';
import type { App } from './command.ts';
import type { CommonOptions } from './common-options.ts';
import { type ExitCode, EXIT_DEADLINE, EXIT_DONE, EXIT_FAILURE } from './exit-code.ts';
import type { CliIo, Sink } from './io.ts';

const INTERVAL_MS = 1000;
const CLEAR_SCREEN = '\u001B[H\u001B[2J';
/** Looks that fail because nobody answers are tried again this often in a row. */
const FAILURES_MAX = 60;

/** Keeps what is written. */
class Held implements Sink {
  readonly isTerminal: boolean;
  readonly columns: number;
  readonly #parts: Buffer[] = [];

  constructor(like: Sink) {
    this.isTerminal = like.isTerminal;
    this.columns = like.columns;
  }

  write(data: string | Uint8Array): Promise<void> {
    this.#parts.push(Buffer.from(data));
    return Promise.resolve();
  }

  get text(): string {
    return Buffer.concat(this.#parts).toString();
  }
}

/** Between two looks: documents of YAML are separated, tables redrawn on a terminal and set apart elsewhere. */
function between(options: CommonOptions, out: Sink, isFirst: boolean): string {
  if (options.output === 'table' || options.output === 'wide') {
    return out.isTerminal ? CLEAR_SCREEN : isFirst ? '' : '\n';
  }
  return options.output === 'yaml' && !isFirst ? '---\n' : '';
}

/** Until Ctrl-C or the deadline, which are its usual ends; or until a look is refused. */
export async function watch(
  app: App,
  options: CommonOptions,
  isTimeoutGiven: boolean,
  look: (app: App) => Promise<ExitCode>,
): Promise<ExitCode> {
  const { io } = app;
  const endMs = isTimeoutGiven ? performance.now() + options.timeout : Infinity;
  let shown: string | undefined;
  let failures = 0;
  for (;;) {
    const [out, err] = [new Held(io.stdout), new Held(io.stderr)];
    const held: CliIo = { ...ioOf(io), stdout: out, stderr: err };
    const code = await look({ ...app, io: held });
    if (io.signal.aborted) {
      return EXIT_DONE;
    }
    failures = code === EXIT_FAILURE || code === EXIT_DEADLINE ? failures + 1 : 0;
    const isOver = failures > FAILURES_MAX || (failures > 0 && shown === undefined);
    if (out.text !== '' && out.text !== shown) {
      await io.stdout.write(between(options, io.stdout, shown === undefined) + out.text);
      shown = out.text;
    }
    if (isOver || failures === 1 || shown === undefined || options.verbose || options.debug) {
      await io.stderr.write(err.text);
    }
    if (isOver || (failures === 0 && out.text === '' && code !== EXIT_DONE)) {
      return code;
    }
    const waitMs = Math.min(INTERVAL_MS, endMs - performance.now());
    if (waitMs <= 0) {
      return EXIT_DONE;
    }
    await rest(waitMs, io.signal);
  }
}

/** The parts of a process' streams by value: the getters of the real one must not be copied as they are now. */
const ioOf = (io: CliIo): Omit<CliIo, 'stdout' | 'stderr'> => ({
  env: io.env,
  stdin: io.stdin,
  isStdinTerminal: io.isStdinTerminal,
  signal: io.signal,
});

/** Resolves early when the signal aborts: that is the only way in which the timer can fail. */
export const rest = (ms: number, signal: AbortSignal): Promise<void> =>
  setTimeout(ms, undefined, { signal }).catch(() => undefined);
