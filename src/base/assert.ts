/**
 * Assertions that stay on in production. A failed assertion means the program contradicts itself, and going on could
 * corrupt replicas, so the owner of the process stops it (exit code {@link EXIT_CODE_BUG}).
 * Never assert on input from outside; refuse that with an `AppError` or a refusal value instead.
 */

/** Process exit code reserved for broken invariants. */
export const EXIT_CODE_BUG = 70;
/** Process exit code reserved for storage faults (write, sync or checksum errors). */
export const EXIT_CODE_STORAGE = 74;

/** An internal contradiction. Whoever catches it may only log and stop the process. */
export class InvariantError extends Error {
  readonly details: Readonly<Record<string, unknown>>;

  constructor(what: string, details: Readonly<Record<string, unknown>> = {}) {
    const keys = Object.keys(details);
    super(keys.length === 0 ? what : `${what} (${keys.map((k) => `${k}=${String(details[k])}`).join(', ')})`);
    this.name = 'InvariantError';
    this.details = details;
  }
}

/** Throws {@link InvariantError} unless `condition` holds. */
export function assert(
  condition: unknown,
  what: string,
  details?: Readonly<Record<string, unknown>>,
): asserts condition {
  if (!condition) {
    throw new InvariantError(what, details);
  }
}

/** Ends an exhaustive switch over a union; reaching it at run time is an invariant violation. */
export function unreachable(value: never, what = 'unreachable variant'): never {
  throw new InvariantError(what, { value: JSON.stringify(value) });
}
