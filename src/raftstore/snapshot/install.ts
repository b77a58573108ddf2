/**
 * Installs staged snapshots. The batch that accepted the snapshot made the region `applying` and named the staging area
 * ({@link recordInstall}); from then on the range belongs to nobody else. Here the range is wiped, the chunks are copied
 * and a last batch makes the region `normal`. Before that batch a crash repeats everything from the staged chunks;
 * after it, the staging area is unnamed garbage that the next start removes.
 */
import { assert } from '../../base/assert.ts';
import type { RegionId } from '../../base/ids.ts';
import { decodeRegionLocalState, encodeRegionLocalState } from '../../codec/raft-records.ts';
import {
  decodeInstallRecord,
  decodePairs,
  decodeStagingRecord,
  encodeInstallRecord,
  type StagingRecord,
} from '../../codec/snapshot-record.ts';
import {
  dataRange,
  regionStateKey,
  snapshotInstallKey,
  stagedChunkKey,
  stagingIdOfKey,
  stagingRange,
  stagingRangeFrom,
  stagingRecordKey,
} from '../../engine/keyspace.ts';
import type { Engine, WriteBatch } from '../../env/engine.ts';
import { regionsEqual, type Region } from '../../meta/region.ts';
import type { StoreContext } from '../context.ts';
import type { StagedSnapshot } from '../msg.ts';
import { deleteStoredRange, writeBatch } from '../worker/engine-steps.ts';
import type { JobQueue } from '../worker/job-queue.ts';

/** How long an installation held back by a failpoint waits before it looks again. */
const PAUSE_RETRY_MS = 10;

type InstallContext = Pick<StoreContext, 'config' | 'engine' | 'write' | 'abort' | 'log' | 'failpoints' | 'clock'>;

/** Adds the note that `staged` is being installed for the region; goes into the batch that makes it `applying`. */
export function recordInstall(batch: WriteBatch, region: Region, staged: StagedSnapshot): void {
  assert(regionsEqual(region, staged.region), 'the staged snapshot is of another descriptor', { region: region.id });
  batch.put(snapshotInstallKey(region.id), encodeInstallRecord({ stagingId: staged.stagingId }));
}

/** The staging area a region is being installed from; undefined if it is not being installed. */
export function stagingOf(engine: Engine, region: RegionId): number | undefined {
  const bytes = engine.getSync(snapshotInstallKey(region));
  return bytes === undefined ? undefined : decodeInstallRecord(bytes).stagingId;
}

function readStagingRecord(ctx: InstallContext, region: RegionId, stagingId: number): StagingRecord {
  const bytes = ctx.engine.getSync(stagingRecordKey(stagingId));
  if (bytes === undefined) {
    return ctx.abort(`region ${region} is being installed from staging area ${stagingId}, which is not complete`);
  }
  return decodeStagingRecord(bytes);
}

async function waitWhilePaused(ctx: InstallContext, region: RegionId, queue: JobQueue): Promise<void> {
  while (ctx.failpoints.hit('snapshot::before-install', region)?.type === 'pause') {
    queue.checkpoint();
    await new Promise<void>((resolve) => ctx.clock.setTimer(PAUSE_RETRY_MS, resolve, 'install-paused'));
  }
}

/**
 * Installs the snapshot noted for the region. Returns what was installed, or undefined if the region is not `applying`
 * any more. Damaged staged chunks stop the store: the old data is gone already.
 */
export async function installRegion(
  ctx: InstallContext,
  region: RegionId,
  queue: JobQueue,
): Promise<StagedSnapshot | undefined> {
  await waitWhilePaused(ctx, region, queue);
  const stateBytes = await ctx.engine.get(regionStateKey(region));
  const state = stateBytes === undefined ? undefined : decodeRegionLocalState(stateBytes);
  const stagingId = stagingOf(ctx.engine, region);
  if (state?.state !== 'applying' || stagingId === undefined) {
    ctx.log.warn({ region, state: state?.state }, 'nothing to install');
    return undefined;
  }
  const record = readStagingRecord(ctx, region, stagingId);
  if (!regionsEqual(record.region, state.region)) {
    return ctx.abort(`staging area ${stagingId} does not hold the snapshot that region ${region} accepted`);
  }
  ctx.failpoints.hit('install::before-wipe', region);
  await deleteStoredRange(ctx, dataRange(state.region.range), ctx.config.cleanBatchKeys, queue);
  ctx.failpoints.hit('install::after-wipe', region);
  const keys = await copyChunks(ctx, stagingId, record, queue);
  if (keys !== record.keys) {
    return ctx.abort(`staging area ${stagingId} holds ${keys} keys instead of ${record.keys}`);
  }
  const batch = ctx.engine.createBatch();
  batch.put(
    regionStateKey(region),
    encodeRegionLocalState({ state: 'normal', region: state.region, mergeState: undefined }),
  );
  batch.del(snapshotInstallKey(region));
  batch.del(stagingRecordKey(stagingId));
  await writeBatch(ctx, batch);
  ctx.failpoints.hit('install::after-state', region);
  return { stagingId, region: state.region, sizeBytes: record.sizeBytes, keys: record.keys };
}

async function copyChunks(
  ctx: InstallContext,
  stagingId: number,
  record: StagingRecord,
  queue: JobQueue,
): Promise<number> {
  let keys = 0;
  for (let sequence = 0; sequence < record.chunks; sequence++) {
    queue.checkpoint();
    const payload = await ctx.engine.get(stagedChunkKey(stagingId, sequence));
    if (payload === undefined) {
      return ctx.abort(`chunk ${sequence} of staging area ${stagingId} is missing`);
    }
    const batch = ctx.engine.createBatch();
    for (const [key, value] of decodePairs(payload)) {
      batch.put(key, value);
      keys++;
    }
    await writeBatch(ctx, batch);
    ctx.failpoints.hit('install::after-chunk', record.region.id);
  }
  return keys;
}

/** Removes one staging area in bounded batches. */
export const removeStaging = (ctx: InstallContext, stagingId: number, queue: JobQueue): Promise<void> =>
  deleteStoredRange(ctx, stagingRange(stagingId), ctx.config.cleanBatchKeys, queue);

/** Ids of every staging area on disk, ascending. */
export async function stagingAreas(engine: Engine): Promise<number[]> {
  const found: number[] = [];
  for (let from = 0; ; ) {
    const page = await engine.scan({ range: stagingRangeFrom(from), limit: 1, keysOnly: true });
    const [first] = page.entries;
    if (first === undefined) {
      return found;
    }
    const id = stagingIdOfKey(first[0]);
    found.push(id);
    from = id + 1;
  }
}
