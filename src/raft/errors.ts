/**
 * What stops a Raft group for good. The core reports expected refusals as values; it throws only when its own state
 * contradicts itself, and then neither the group nor the process that hosts it may go on.
 */
import { InvariantError } from '../base/assert.ts';

/** A state the protocol excludes: acknowledged data is gone, or the program is wrong. Never caught to go on. */
export class RaftInvariantError extends InvariantError {
  constructor(what: string, details: Readonly<Record<string, unknown>> = {}) {
    super(what, details);
    this.name = 'RaftInvariantError';
  }
}

/** Always throws; typed `never` so that callers can use it as an expression. */
export function raftPanic(what: string, details?: Readonly<Record<string, unknown>>): never {
  throw new RaftInvariantError(what, details);
}
