/** Bounded steps that background jobs are made of. */
import { keyAfter } from '../../base/bytes.ts';
import { isEmptyRange, type KeyRange } from '../../base/key-range.ts';
import type { WriteBatch } from '../../env/engine.ts';
import type { StoreContext } from '../context.ts';
import type { JobQueue } from './job-queue.ts';

/** Resolves when the batch is durable. */
export const writeBatch = (ctx: Pick<StoreContext, 'write'>, batch: WriteBatch): Promise<void> =>
  new Promise((resolve) => ctx.write(batch, resolve));

/**
 * Deletes every stored key of a range in batches of at most `batchKeys`, each durable before the next. The caller knows
 * that nothing else writes to the range. A crash leaves a part; deleting again is harmless.
 */
export async function deleteStoredRange(
  ctx: Pick<StoreContext, 'engine' | 'write'>,
  range: KeyRange,
  batchKeys: number,
  queue: JobQueue,
): Promise<void> {
  let { start } = range;
  for (let more = true; more && !isEmptyRange({ start, end: range.end }); ) {
    queue.checkpoint();
    const page = await ctx.engine.scan({ range: { start, end: range.end }, limit: batchKeys, keysOnly: true });
    const batch = ctx.engine.createBatch();
    for (const [key] of page.entries) {
      batch.del(key);
      start = keyAfter(key);
    }
    if (batch.count > 0) {
      await writeBatch(ctx, batch);
    }
    ({ more } = page);
  }
}
