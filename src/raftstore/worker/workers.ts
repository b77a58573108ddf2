/**
 * Slow work beside the FSMs: measuring regions, installing and discarding snapshots, cleaning ranges. Jobs of one kind
 * run one at a time, in bounded steps; their results go back as messages. Nothing here changes the state of a region
 * except by the documented last batch of an installation.
 */
import { AppError } from '../../base/app-error.ts';
import type { RegionId } from '../../base/ids.ts';
import type { KeyRange } from '../../base/key-range.ts';
import type { PeerMessage } from '../../codec/peer-message.ts';
import { decodeStagingRecord } from '../../codec/snapshot-record.ts';
import { stagingRecordKey } from '../../engine/keyspace.ts';
import type { TimerId } from '../../env/clock.ts';
import { EngineClosedError, type WriteBatch } from '../../env/engine.ts';
import type { Region } from '../../meta/region.ts';
import type { StoreContext, Workers } from '../context.ts';
import type { StagedSnapshot } from '../msg.ts';
import { installRegion, recordInstall, removeStaging, stagingAreas, stagingOf } from '../snapshot/install.ts';
import { SnapshotInbox, type SnapshotReceiver } from '../snapshot/receive.ts';
import { PendingSnapshots } from '../snapshot/snapshot-registry.ts';
import { RangeCleaner } from './clean-range.ts';
import { stopFromJob } from './engine-failure.ts';
import { JobQueue } from './job-queue.ts';
import { measureRegion } from './split-check.ts';

/** How often generated snapshots nobody took are aged, and the age at which they are closed. */
const SNAPSHOT_SWEEP_MS = 30_000;
const SNAPSHOT_SWEEPS_MAX = 4;
/** Generated snapshots waiting at once, in sends that may run at once. */
const SNAPSHOTS_PER_SEND = 2;

/** A snapshot cannot be received now. The sender's Raft group tries again by itself. */
export class SnapshotRefusedError extends AppError {
  constructor(reason: string) {
    super('SnapshotRefused', reason, { retry: 'backoff', hint: 'the sender generates another snapshot later' });
  }
}

export type WorkersEnv = Pick<
  StoreContext,
  'engine' | 'config' | 'clock' | 'log' | 'meta' | 'failpoints' | 'router' | 'abort'
>;

export class StoreWorkers implements Workers {
  readonly #ctx: WorkersEnv & Pick<StoreContext, 'write'>;
  readonly #splitChecks: JobQueue;
  readonly #installs: JobQueue;
  readonly #discards: JobQueue;
  readonly #cleaner: RangeCleaner;
  readonly #inbox: SnapshotInbox;
  readonly #installing = new Set<RegionId>();
  #sweepTimer: TimerId | undefined;
  #isStopped = false;
  /** Snapshots generated here and waiting to be sent. */
  readonly snapshots: PendingSnapshots;

  constructor(env: WorkersEnv) {
    const ctx = {
      ...env,
      // A batch refused because the store is closing never completes; everything that waits for it ends with the process.
      write: (batch: WriteBatch, done: () => void): void => {
        env.engine.write(batch).then(done, (cause: unknown) => {
          if (!(cause instanceof EngineClosedError)) {
            stopFromJob(env, 'a background write failed', cause);
          }
        });
      },
    };
    this.#ctx = ctx;
    this.#splitChecks = new JobQueue(ctx, 'measuring regions');
    this.#installs = new JobQueue(ctx, 'installing snapshots');
    this.#discards = new JobQueue(ctx, 'discarding snapshots');
    this.#cleaner = new RangeCleaner(ctx);
    this.#inbox = new SnapshotInbox(ctx, (stagingId) => this.discardStaged(stagingId));
    this.snapshots = new PendingSnapshots({
      sourcesMax: SNAPSHOTS_PER_SEND * env.config.snapshotSendsMax,
      sweepsMax: SNAPSHOT_SWEEPS_MAX,
    });
  }

  /**
   * Removes what a crash left in the staging area, takes up interrupted clean tasks and looks for data outside all
   * regions. Call it once, when the region map is complete and interrupted installations were queued again.
   */
  async start(): Promise<void> {
    const { engine } = this.#ctx;
    const areas = await stagingAreas(engine);
    for (const stagingId of areas) {
      if (!this.#isBeingInstalled(stagingId)) {
        this.discardStaged(stagingId);
      }
    }
    this.#inbox.open((areas[areas.length - 1] ?? 0) + 1);
    await this.#cleaner.resume();
    this.#armSweep();
  }

  /** Ends all jobs at their next step and waits for them. What is unfinished is taken up at the next start. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#sweepTimer !== undefined) {
      this.#ctx.clock.clearTimer(this.#sweepTimer);
    }
    this.#inbox.close();
    await Promise.all([this.#splitChecks.stop(), this.#installs.stop(), this.#discards.stop(), this.#cleaner.stop()]);
    this.snapshots.close();
  }

  /** Figures for heartbeats. */
  get load(): { readonly receiving: number; readonly installing: number; readonly cleaning: number } {
    return { receiving: this.#inbox.receiving, installing: this.#installs.length, cleaning: this.#cleaner.pending };
  }

  // -------------------------------------------------------------------------------------------------- Workers

  checkSplit(region: Region, forced: boolean): void {
    const { engine, config, router } = this.#ctx;
    this.#splitChecks.push(async () => {
      const measure = await measureRegion(engine, config, region, forced, this.#splitChecks);
      router.toPeer(region.id, { type: 'split-checked', epoch: region.epoch, forced, ...measure });
    });
  }

  recordInstall(batch: WriteBatch, region: Region, staged: StagedSnapshot): void {
    recordInstall(batch, region, staged);
  }

  installSnapshot(region: Region, peerId: number, staged: StagedSnapshot): void {
    if (this.#installing.has(region.id)) {
      return;
    }
    this.#installing.add(region.id);
    this.#installs.push(async () => {
      const installed = await installRegion(this.#ctx, region.id, this.#installs);
      this.#installing.delete(region.id);
      if (installed !== undefined) {
        const { sizeBytes, keys } = installed;
        this.#ctx.router.toPeer(region.id, { type: 'snapshot-installed', peerId, sizeBytes, keys });
      }
      this.discardStaged(staged.stagingId);
    });
  }

  isInstalling(region: RegionId): boolean {
    return this.#installing.has(region);
  }

  discardStaged(stagingId: number): void {
    this.#discards.push(() => removeStaging(this.#ctx, stagingId, this.#discards));
  }

  addCleanTask(batch: WriteBatch, range: KeyRange): number {
    return this.#cleaner.add(batch, range);
  }

  startCleaning(taskId: number): void {
    this.#cleaner.start(taskId);
  }

  isCleaning(range: KeyRange): boolean {
    return this.#cleaner.isCleaning(range);
  }

  // -------------------------------------------------------------------------------------------------- snapshots

  /** The staged snapshot a region in state `applying` was being installed from. */
  stagedFor(region: RegionId): StagedSnapshot | undefined {
    const { engine } = this.#ctx;
    const stagingId = stagingOf(engine, region);
    const bytes = stagingId === undefined ? undefined : engine.getSync(stagingRecordKey(stagingId));
    if (stagingId === undefined || bytes === undefined) {
      return undefined;
    }
    const record = decodeStagingRecord(bytes);
    return { stagingId, region: record.region, sizeBytes: record.sizeBytes, keys: record.keys };
  }

  /** Begins a transfer announced by its MsgSnap envelope. @throws SnapshotRefusedError */
  receiveSnapshot(message: PeerMessage): SnapshotReceiver {
    const verdict = this.#inbox.begin(message);
    if (verdict.type === 'refused') {
      throw new SnapshotRefusedError(verdict.reason);
    }
    return verdict.receiver;
  }

  #isBeingInstalled(stagingId: number): boolean {
    const bytes = this.#ctx.engine.getSync(stagingRecordKey(stagingId));
    return bytes !== undefined && stagingOf(this.#ctx.engine, decodeStagingRecord(bytes).region.id) === stagingId;
  }

  #armSweep(): void {
    this.#sweepTimer = this.#ctx.clock.setTimer(
      SNAPSHOT_SWEEP_MS,
      () => {
        if (!this.#isStopped) {
          this.snapshots.sweep();
          this.#armSweep();
        }
      },
      'snapshot-sweep',
    );
  }
}

export const createWorkers = (env: WorkersEnv): StoreWorkers => new StoreWorkers(env);
