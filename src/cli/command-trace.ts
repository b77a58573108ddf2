/**
 * What `--verbose` and `--debug` say on stderr about the way of a command: where it asks, who leads, what is tried again
 * and why; with `--debug` also every call it made. Fed by the SDK's hook `onTrace`, so it shows what really happened.
 */
import type { RpcTraceEvent, TraceEvent, TraceHook } from '../client/trace.ts';
import type { CliIo } from './io.ts';
import { type Column, formatTable } from './output/table.ts';

/** Latest calls that `--debug` prints. */
export const CALLS_SHOWN_MAX = 200;
/** Printed length of what a server said about a failure. */
const MESSAGE_CHARS_MAX = 160;

interface CallRow {
  readonly atMs: number;
  readonly event: RpcTraceEvent;
}

const milliseconds = (ms: number): string => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

const COLUMNS: readonly Column<CallRow>[] = [
  { head: 'at', cell: ({ atMs }) => milliseconds(atMs), align: 'right' },
  { head: 'method', cell: ({ event }) => event.method.replace(/^\//, '') },
  { head: 'endpoint', cell: ({ event }) => event.endpoint },
  { head: 'took', cell: ({ event }) => milliseconds(event.durationMs), align: 'right' },
  { head: 'outcome', cell: ({ event }) => event.outcome },
  { head: 'store', cell: ({ event }) => event.storeId ?? '', align: 'right' },
  { head: 'region', cell: ({ event }) => event.regionId ?? '', align: 'right' },
  { head: 'retries', cell: ({ event }) => event.retries, align: 'right' },
  { head: 'message', cell: ({ event }) => oneLine(event.message) },
];

const oneLine = (text: string): string => {
  const line = text.replace(/\s*[\r\n]+\s*/g, '; ').trim();
  return line.length <= MESSAGE_CHARS_MAX ? line : `${line.substring(0, MESSAGE_CHARS_MAX)}…`;
};

const plural = (count: number, one: string, many: string): string => `${count} ${count === 1 ? one : many}`;

export class CommandTrace {
  readonly #io: CliIo;
  readonly #isDebug: boolean;
  readonly #elapsedMs: () => number;
  /** The latest calls, oldest first. */
  readonly #calls: CallRow[] = [];
  readonly #endpoints = new Set<string>();
  #callCount = 0;
  #failedCount = 0;
  #retryCount = 0;
  #isFinished = false;

  /** @param elapsedMs time since the command began */
  constructor(io: CliIo, options: { readonly isDebug: boolean; readonly elapsedMs: () => number }) {
    this.#io = io;
    this.#isDebug = options.isDebug;
    this.#elapsedMs = options.elapsedMs;
  }

  /** For the SDK. */
  readonly hook: TraceHook = (event: TraceEvent) => {
    if (this.#isFinished) {
      // Calls that are cut off while the connection closes are no part of the command.
      return;
    }
    switch (event.type) {
      case 'leader':
        this.say(`the placement service is led by ${event.endpoint}`);
        break;
      case 'retry':
        this.#retryCount++;
        this.say(
          `${event.what} is tried again ${event.delayMs < 1 ? 'at once' : `in ${milliseconds(event.delayMs)}`} after ${plural(event.attempts, 'try', 'tries')}: ${oneLine(event.reason)}`,
        );
        break;
      case 'rpc':
        this.#callCount++;
        this.#endpoints.add(event.endpoint);
        if (event.outcome !== 'ok') {
          this.#failedCount++;
        }
        if (this.#isDebug) {
          this.#calls.push({ atMs: this.#elapsedMs() - event.durationMs, event });
          if (this.#calls.length > CALLS_SHOWN_MAX) {
            this.#calls.shift();
          }
        }
        break;
    }
  };

  /** A line that begins with the time since the command began. */
  say(text: string): void {
    // Nobody waits for it; a reader that went away is no failure of the command.
    this.#io.stderr.write(`[${milliseconds(this.#elapsedMs())}] ${text}\n`).catch(() => undefined);
  }

  /** The sum at the end, and with `--debug` the calls. */
  async finish(): Promise<void> {
    if (this.#isFinished) {
      return;
    }
    this.#isFinished = true;
    if (this.#callCount === 0) {
      this.say('ended without asking anybody');
      return;
    }
    const failed = this.#failedCount === 0 ? '' : `, ${this.#failedCount} of them failed`;
    this.say(
      `ended after ${plural(this.#callCount, 'call', 'calls')} to ${plural(this.#endpoints.size, 'endpoint', 'endpoints')}${failed}, ${plural(this.#retryCount, 'retry', 'retries')}`,
    );
    if (this.#isDebug) {
      const head =
        this.#callCount > this.#calls.length
          ? `the last ${this.#calls.length} of ${this.#callCount} calls:\n`
          : 'calls:\n';
      await this.#io.stderr.write(head + formatTable(COLUMNS, this.#calls, true)).catch(() => undefined);
    }
  }
}
