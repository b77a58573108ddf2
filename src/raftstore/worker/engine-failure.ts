/** What the store's background readers do when the engine refuses them. */
import { EngineClosedError } from '../../env/engine.ts';
import type { StoreContext } from '../context.ts';

/**
 * A read failed. An orderly close of the engine ends the reader quietly; anything else (damage, a poisoned engine)
 * stops the store, because applied state that cannot be read must not be served or replicated.
 */
export function stopOnReadFailure(ctx: Pick<StoreContext, 'abort'>, what: string, cause: unknown): void {
  if (!(cause instanceof EngineClosedError)) {
    ctx.abort(`cannot read ${what}`, cause);
  }
}
