/** The refusal of everything in `codec/` that reads messages of another process. */
import { AppError } from '../base/app-error.ts';

/** Bytes from another process that are not the message they should be, or one with numbers above 2^53-1. */
export class BadMessageError extends AppError {
  /** @param what names the message, e.g. `/pdpb.PD/GetRegion` or `metapb.Region`. */
  constructor(what: string, cause: unknown) {
    super('BadMessage', `malformed ${what}: ${cause instanceof Error ? cause.message : String(cause)}`, {
      details: { message: what },
      hint: 'the other end may run an incompatible version or another program',
      cause,
    });
  }
}
