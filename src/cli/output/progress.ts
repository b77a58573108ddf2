/**
 * Progress on stderr: a line that is redrawn on a terminal, a plain line now and then elsewhere. Only real figures: a
 * bar appears when the total is known, never a guess.
 */
import type { Sink } from '../io.ts';
import { formatAge, formatCount } from '../text-form.ts';

const REDRAW_MS = 100;
const PLAIN_LINE_MS = 10_000;
const BAR_WIDTH = 24;
const CLEAR_LINE = '\r\u001B[2K';

export interface ProgressState {
  /** What is done of `total`, in any unit. */
  readonly done: number;
  /** 0 when unknown. */
  readonly total: number;
  /** What is counted, for example `rows`. */
  readonly unit: string;
  readonly count: number;
  /** Added at the end, for example `3 rejected`; empty for nothing. */
  readonly remark: string;
}

/** One line without a line feed, at most `columns` wide when that is not 0. */
export function formatProgress(state: ProgressState, elapsedMs: number, columns: number): string {
  const perSecond = elapsedMs > 0 ? (state.count / elapsedMs) * 1000 : 0;
  const share = state.total > 0 ? Math.min(1, state.done / state.total) : undefined;
  const parts: string[] = [];
  if (share !== undefined) {
    const filled = Math.floor(share * BAR_WIDTH);
    parts.push(
      `[${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}] ${String(Math.floor(share * 100)).padStart(3)}%`,
    );
  }
  parts.push(`${formatCount(state.count)} ${state.unit}`, `${formatCount(perSecond)}/s`);
  if (share !== undefined && share > 0 && share < 1) {
    parts.push(`${formatAge((elapsedMs / share) * (1 - share))} left`);
  }
  if (state.remark !== '') {
    parts.push(state.remark);
  }
  const line = parts.join('  ');
  return columns > 0 && line.length >= columns ? line.slice(0, columns - 1) : line;
}

export class ProgressLine {
  readonly #sink: Sink;
  readonly #isQuiet: boolean;
  readonly #nowMs: () => number;
  readonly #startMs: number;
  #drawnMs: number;
  #isDrawn = false;

  constructor(sink: Sink, isQuiet: boolean, nowMs: () => number = () => performance.now()) {
    this.#sink = sink;
    this.#isQuiet = isQuiet;
    this.#nowMs = nowMs;
    this.#startMs = nowMs();
    this.#drawnMs = this.#startMs;
  }

  get elapsedMs(): number {
    return this.#nowMs() - this.#startMs;
  }

  /** Call it as often as you like; it draws only when it is time. */
  async update(state: () => ProgressState): Promise<void> {
    const now = this.#nowMs();
    const interval = this.#sink.isTerminal ? REDRAW_MS : PLAIN_LINE_MS;
    if (this.#isQuiet || now - this.#drawnMs < interval) {
      return;
    }
    this.#drawnMs = now;
    const line = formatProgress(state(), this.elapsedMs, this.#sink.columns);
    if (this.#sink.isTerminal) {
      this.#isDrawn = true;
      await this.#sink.write(`${CLEAR_LINE}${line}`);
    } else {
      await this.#sink.write(`${line}\n`);
    }
  }

  /** Removes the line from the terminal. */
  async clear(): Promise<void> {
    if (this.#isDrawn) {
      this.#isDrawn = false;
      await this.#sink.write(CLEAR_LINE);
    }
  }
}
