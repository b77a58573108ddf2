/** What the store's background readers do when the engine refuses them. */
import { EngineClosedError } from '../../env/engine.ts';
import type { StoreContext } from '../context.ts';

/**
 * Stops the store from inside an asynchronous job. `abort` leaves by an exception where the process lives on (tests,
 * the simulator); nobody waits for the job, so the exception ends here.
 */
export function stopFromJob(ctx: Pick<StoreContext, 'abort'>, reason: string, cause: unknown): void {
  try {
    ctx.abort(reason, cause);
  } catch {
    // The owner of the process has been told.
  }
}

/**
 * A read failed. An orderly close of the engine ends the reader quietly; anything else (damage, a poisoned engine)
 * stops the store, because applied state that cannot be read must not be served or replicated.
 */
export function stopOnReadFailure(ctx: Pick<StoreContext, 'abort'>, what: string, cause: unknown): void {
  if (!(cause instanceof EngineClosedError)) {
    stopFromJob(ctx, `cannot read ${what}`, cause);
  }
}
