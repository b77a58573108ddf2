/**
 * Base of every error that reaches a user, a client or another process. `code` is the same word on the wire, in logs,
 * in the docs and on the command line.
 */

/** How a caller may try again: never, after refreshing its route, or after waiting. */
export type RetryKind = 'never' | 'route' | 'backoff';

/** What is known about the effect of the failed call. */
export type Outcome = 'not-applied' | 'unknown';

export interface AppErrorOptions {
  readonly retry?: RetryKind;
  readonly outcome?: Outcome;
  readonly details?: Readonly<Record<string, unknown>>;
  /** What the user should do next, as a sentence or a command. */
  readonly hint?: string;
  readonly cause?: unknown;
}

export class AppError extends Error {
  readonly code: string;
  readonly retry: RetryKind;
  readonly outcome: Outcome;
  readonly details: Readonly<Record<string, unknown>>;
  readonly hint: string | undefined;

  constructor(code: string, message: string, options: AppErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = code;
    this.code = code;
    this.retry = options.retry ?? 'never';
    this.outcome = options.outcome ?? 'not-applied';
    this.details = options.details ?? {};
    this.hint = options.hint;
  }

  get retryable(): boolean {
    return this.retry !== 'never';
  }
}
