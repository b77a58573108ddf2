/**
 * Starts, kills, pauses and restarts the processes of a real cluster: one placement service and several stores of the
 * built program on free loopback ports, each with its own directory and log file. Whatever ends without having been
 * told to is remembered: it decides the verdict of a run.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isReadyMessage } from '../../src/cli/run/control.ts';

const PROGRAM: string = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const READY_LIMIT_MS = 60_000;
const OUTPUT_CHARS_MAX = 8000;

/** A process ended although nobody had stopped it. */
export interface UnexpectedEnd {
  readonly name: string;
  readonly code: number | undefined;
  readonly signal: string | undefined;
  readonly output: string;
}

/** One member of the cluster through all its lives. */
export class Member {
  readonly name: string;
  readonly #args: () => readonly string[];
  readonly #onUnexpectedEnd: (end: UnexpectedEnd) => void;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #isExpected = true;
  #isPaused = false;
  #output = '';
  /** Fixed by the first start, so that a member comes back where it was. */
  address = '127.0.0.1:0';
  /** Of a store, once it has joined. */
  storeId = 0;

  constructor(name: string, args: () => readonly string[], onUnexpectedEnd: (end: UnexpectedEnd) => void) {
    this.name = name;
    this.#args = args;
    this.#onUnexpectedEnd = onUnexpectedEnd;
  }

  get isRunning(): boolean {
    return this.#child !== undefined;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** Resolves when the member serves. @throws if it ends before, or does not come up within a minute. */
  async start(): Promise<void> {
    const child = spawn(process.execPath, [PROGRAM, ...this.#args(), '--addr', this.address], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: { ...process.env, UV_THREADPOOL_SIZE: '8' },
    });
    this.#child = child;
    this.#isExpected = false;
    const keep = (text: string): void => {
      this.#output = (this.#output + text).slice(-OUTPUT_CHARS_MAX);
    };
    child.stdout?.setEncoding('utf8').on('data', keep);
    child.stderr?.setEncoding('utf8').on('data', keep);
    this.#ended = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        this.#child = undefined;
        this.#isPaused = false;
        if (!this.#isExpected) {
          this.#onUnexpectedEnd({
            name: this.name,
            code: code ?? undefined,
            signal: signal ?? undefined,
            output: this.#output,
          });
        }
        resolve();
      });
    });
    let timer: NodeJS.Timeout | undefined;
    const ready = new Promise<'ready'>((resolve) => {
      child.on('message', (message) => {
        if (isReadyMessage(message)) {
          this.address = message.address;
          this.storeId = message.storeId;
          resolve('ready');
        }
      });
    });
    const limit = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), READY_LIMIT_MS);
    });
    const outcome = await Promise.race([ready, limit, this.#ended.then(() => 'ended' as const)]);
    clearTimeout(timer);
    // Killed while it was starting: the nemesis was quicker.
    if (outcome !== 'ready' && !this.#isExpected) {
      throw new Error(`${this.name} did not start (${outcome}): ${this.#output}`);
    }
  }

  /** As if the process had been struck by lightning; what the kernel was given stays. */
  async kill(): Promise<void> {
    this.#isExpected = true;
    this.#child?.kill('SIGKILL');
    await this.#ended;
  }

  /** The kernel goes on answering for it: others see an open, silent connection. */
  pause(): void {
    this.#isPaused = this.#child?.kill('SIGSTOP') ?? false;
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
    this.#isPaused = false;
  }
}

export interface ProcessesOptions {
  readonly directory: string;
  readonly stores: number;
  /** `section.key=value` for every store, and for the placement service. */
  readonly storeSettings: readonly string[];
  readonly pdSettings: readonly string[];
}

export class Processes {
  readonly pd: Member;
  readonly stores: readonly Member[];
  readonly unexpected: UnexpectedEnd[] = [];

  constructor(options: ProcessesOptions) {
    if (!existsSync(PROGRAM)) {
      throw new Error('dist/cli/main.js is missing; run "npm run build" first');
    }
    const logs = join(options.directory, 'log');
    mkdirSync(logs, { recursive: true });
    const member = (name: string, args: () => readonly string[], settings: readonly string[]): Member =>
      new Member(
        name,
        () => [
          ...args(),
          ...['--data-dir', join(options.directory, name)],
          ...['--log-file', join(logs, `${name}.log`)],
          ...settings.flatMap((setting) => ['--set', setting]),
        ],
        (end) => this.unexpected.push(end),
      );
    this.pd = member('pd', () => ['pd'], options.pdSettings);
    this.stores = Array.from({ length: options.stores }, (_, i) =>
      member(
        `store-${i + 1}`,
        () => ['server', ...['--pd', this.pd.address], ...['--status-addr', '']],
        options.storeSettings,
      ),
    );
  }

  get all(): readonly Member[] {
    return [this.pd, ...this.stores];
  }

  async start(): Promise<void> {
    await this.pd.start();
    await Promise.all(this.stores.map((store) => store.start()));
  }

  /** Ends everything at once. Idempotent. */
  async stop(): Promise<void> {
    await Promise.all(this.all.map((member) => member.kill()));
  }
}
