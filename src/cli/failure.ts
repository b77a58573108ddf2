/**
 * Errors of the command line and their three lines on stderr: what failed with its object, why with the stable code,
 * and what to do next. Never prints to stdout, never shows a stack unless asked.
 */
import { inspect } from 'node:util';
import { AppError, type AppErrorOptions } from '../base/app-error.ts';

/** The command as typed makes no sense; nothing was sent. */
export class UsageError extends AppError {
  declare readonly code: 'Usage';

  constructor(message: string, hint: string, options: Omit<AppErrorOptions, 'hint'> = {}) {
    super('Usage', message, { ...options, hint });
  }
}

/** A file of the user cannot be read or makes no sense as a whole. */
export class InputFileError extends AppError {
  declare readonly code: 'InputFile';

  constructor(message: string, hint: string, options: Omit<AppErrorOptions, 'hint'> = {}) {
    super('InputFile', message, { ...options, hint });
  }
}

const CAUSES_MAX = 8;
/** Longest first line; what is named there may be a key of 8 KiB. */
const TASK_CHARS_MAX = 160;

/** What to do when the error itself does not say. */
const NEXT_STEPS: Readonly<Record<string, string>> = {
  Unavailable: 'check that the cluster runs and that --pd names it; "braid dev" starts one',
  DeadlineExceeded: 'try again with a longer --timeout, or look at "braid ctl status"',
  UndeterminedResult: 'the change may or may not have happened: read it before you try again',
  EntryTooLarge: 'store large values in several keys',
  ClusterMismatch: 'name only placement endpoints of one cluster with --pd',
  Tls: 'look at --tls-ca, --tls-cert and --tls-key',
  Refused: 'see "braid ctl status"',
};

/**
 * The three lines of a failed command, each ending in a line feed. `task` completes "cannot …". With `debug` the stacks
 * of the error and its causes follow.
 */
export function formatFailure(task: string, error: unknown, debug: boolean): string {
  const code = error instanceof AppError ? error.code : 'Internal';
  // A refusal carries the cluster's own word for why.
  const reason: unknown = error instanceof AppError && 'reason' in error ? error.reason : undefined;
  const message = error instanceof Error ? error.message : String(error);
  const words = typeof reason === 'string' ? `${code}: ${reason}` : code;
  const hint =
    (error instanceof AppError ? error.hint : undefined) ??
    NEXT_STEPS[code] ??
    'run the command again with --debug and report it';
  let text = `error: cannot ${shorten(oneLine(task))}\n`;
  text += `why:   ${oneLine(message)} (${words})\n`;
  text += `next:  ${oneLine(hint)}\n`;
  if (debug) {
    text += stacks(error);
  }
  return text;
}

/** The three lines of a command that was not understood. */
export function formatUsageFailure(message: string, next: string): string {
  return `error: ${oneLine(message)}\nwhy:   the command was not understood, nothing was sent (Usage)\nnext:  ${oneLine(next)}\n`;
}

function stacks(error: unknown): string {
  let text = '';
  let current: unknown = error;
  for (let depth = 0; depth < CAUSES_MAX && current !== undefined; depth++) {
    text += `${depth === 0 ? '' : 'caused by: '}${current instanceof Error ? (current.stack ?? current.message) : inspect(current)}\n`;
    current = current instanceof Error ? current.cause : undefined;
  }
  return text;
}

function oneLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, '; ').trim();
}

function shorten(text: string): string {
  return text.length <= TASK_CHARS_MAX ? text : `${text.substring(0, TASK_CHARS_MAX)}…`;
}
