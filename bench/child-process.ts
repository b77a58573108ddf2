/** Processes that a benchmark starts: their output is kept for errors, and every one of them is stopped. */
import { type ChildProcess, spawn } from 'node:child_process';

const OUTPUT_CHARS_MAX = 4000;
const STOP_LIMIT_MS = 20_000;

export class BenchChild {
  readonly name: string;
  readonly process: ChildProcess;
  readonly exited: Promise<void>;
  #output = '';
  #isOver = false;

  constructor(
    name: string,
    file: string,
    args: readonly string[],
    options: { readonly ipc: boolean; readonly env?: NodeJS.ProcessEnv },
  ) {
    this.name = name;
    this.process = spawn(file, args, {
      stdio: options.ipc ? ['ignore', 'pipe', 'pipe', 'ipc'] : ['ignore', 'pipe', 'pipe'],
      env: options.env ?? process.env,
    });
    const keep = (text: string): void => {
      this.#output = (this.#output + text).slice(-OUTPUT_CHARS_MAX);
    };
    this.process.stdout?.setEncoding('utf8').on('data', keep);
    this.process.stderr?.setEncoding('utf8').on('data', keep);
    this.exited = new Promise((resolve) => {
      this.process.once('close', () => {
        this.#isOver = true;
        resolve();
      });
      this.process.once('error', (error) => {
        keep(error.message);
        this.#isOver = true;
        resolve();
      });
    });
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** The end of what it wrote. */
  get output(): string {
    return this.#output;
  }

  async stop(): Promise<void> {
    if (this.#isOver) {
      return;
    }
    this.process.kill('SIGTERM');
    const timer = setTimeout(() => this.process.kill('SIGKILL'), STOP_LIMIT_MS);
    await this.exited;
    clearTimeout(timer);
  }
}

/** Asks until `check` gives an answer; its failures meanwhile are the reason if it never does. */
export async function waitFor<T>(what: string, limitMs: number, check: () => Promise<T | undefined>): Promise<T> {
  const endMs = performance.now() + limitMs;
  let reason: unknown;
  while (performance.now() < endMs) {
    try {
      const answer = await check();
      if (answer !== undefined) {
        return answer;
      }
    } catch (error) {
      reason = error;
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  }
  throw new Error(`${what} did not come within ${limitMs / 1000} s`, { cause: reason });
}
