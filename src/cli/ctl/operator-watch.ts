/**
 * Shows an operator's progress on stderr while it runs: its real phases with their state and time, redrawn on a
 * terminal, one line per change elsewhere. There is no percentage, because nobody knows one.
 */
import type { AdminClient } from '../../client/admin.ts';
import type { OperatorInfo, StepRefusal } from '../../client/admin-wire.ts';
import type { Session } from '../session.ts';
import type { Sink } from '../io.ts';
import { formatAge } from '../text-form.ts';
import { refusalText } from './shapes.ts';

const REDRAW_MS = 200;

const MARKS: Readonly<Record<string, string>> = { waiting: ' ', running: '>', done: '+', failed: '!', skipped: '-' };

interface Stage {
  readonly name: string;
  readonly state: string;
  readonly startedUnixMs: number | undefined;
  readonly finishedUnixMs: number | undefined;
  readonly detail: string;
}

/** Phases, or the steps of an operator that has none. */
function stagesOf(operator: OperatorInfo): readonly Stage[] {
  return operator.phases.length > 0 ? operator.phases : operator.steps.map((step) => ({ ...step, name: step.type }));
}

function stageLine(stage: Stage, nowUnixMs: number, nameWidth: number): string {
  const ms =
    stage.startedUnixMs === undefined
      ? undefined
      : Math.max(0, (stage.finishedUnixMs ?? nowUnixMs) - stage.startedUnixMs);
  const time = ms === undefined ? '' : formatAge(ms);
  return `  ${MARKS[stage.state] ?? '?'} ${stage.name.padEnd(nameWidth)}  ${stage.state.padEnd(7)}  ${time.padStart(6)}  ${stage.detail}`.trimEnd();
}

const refusalLine = (refusal: StepRefusal): string => `  ! ${refusalText(refusal)}; ${refusal.hint}`;

/** The picture of an operator: a head line and one line per stage. */
export function operatorPicture(operator: OperatorInfo, nowUnixMs: number): string[] {
  const stages = stagesOf(operator);
  const nameWidth = Math.max(0, ...stages.map((stage) => stage.name.length));
  return [
    `operator ${operator.id}: ${operator.brief}`,
    ...stages.map((stage) => stageLine(stage, nowUnixMs, nameWidth)),
    // The line stays once it is there, so that the picture only grows.
    ...(operator.lastRefusal === undefined ? [] : [refusalLine(operator.lastRefusal)]),
  ];
}

export class OperatorDisplay {
  readonly #sink: Sink;
  readonly #nowUnixMs: () => number;
  #drawnLines = 0;
  #refusalCode: string | undefined;
  #states = new Map<string, string>();
  #latest: OperatorInfo | undefined;
  /** Writes happen one after the other; a failed one ends the drawing, not the watching. */
  #tail: Promise<void> = Promise.resolve();

  constructor(sink: Sink, nowUnixMs: () => number = Date.now) {
    this.#sink = sink;
    this.#nowUnixMs = nowUnixMs;
  }

  show(operator: OperatorInfo): void {
    this.#latest = operator;
    if (this.#sink.isTerminal) {
      this.redraw();
      return;
    }
    const nowUnixMs = this.#nowUnixMs();
    const stages = stagesOf(operator);
    const changed = stages.filter((stage) => stage.state !== 'waiting' && this.#states.get(stage.name) !== stage.state);
    if (this.#states.size === 0) {
      this.#write(`operator ${operator.id}: ${operator.brief}\n`);
    }
    this.#states = new Map(stages.map((stage) => [stage.name, stage.state]));
    const refusal = operator.lastRefusal;
    if (refusal !== undefined && refusal.code !== this.#refusalCode) {
      this.#refusalCode = refusal.code;
      this.#write(`${refusalLine(refusal)}\n`);
    }
    this.#write(changed.map((stage) => `${stageLine(stage, nowUnixMs, stage.name.length)}\n`).join(''));
  }

  /** Draws the latest state again, for the times that pass. Only on a terminal. */
  redraw(): void {
    if (!this.#sink.isTerminal || this.#latest === undefined) {
      return;
    }
    const width = this.#sink.columns > 0 ? this.#sink.columns - 1 : 200;
    const lines = operatorPicture(this.#latest, this.#nowUnixMs()).map((line) => line.substring(0, width));
    const up = this.#drawnLines === 0 ? '' : `\u001B[${this.#drawnLines}A`;
    this.#drawnLines = lines.length;
    this.#write(`${up}${lines.map((line) => `\u001B[2K${line}\n`).join('')}`);
  }

  /** Resolves when everything is written. */
  flush(): Promise<void> {
    return this.#tail;
  }

  #write(text: string): void {
    this.#tail = this.#tail.then(() => this.#sink.write(text)).catch(() => {});
  }
}

/** Waits until the operator has ended, showing it meanwhile. Throws like `waitOperator`. */
export async function watchOperator(session: Session, admin: AdminClient, id: number): Promise<OperatorInfo> {
  const display = session.options.quiet ? undefined : new OperatorDisplay(session.io.stderr);
  const timer = setInterval(() => display?.redraw(), REDRAW_MS);
  try {
    return await admin.waitOperator(id, {
      signal: session.signal,
      ...(session.isTimeoutGiven ? { timeoutMs: session.leftMs } : {}),
      onProgress: (operator) => display?.show(operator),
    });
  } finally {
    clearInterval(timer);
    await display?.flush();
    if (session.signal.aborted) {
      await session.io.stderr.write(
        `stopped watching; the operator goes on, pick it up again with: braid ctl operator show ${id} --watch\n`,
      );
    }
  }
}
