/**
 * What the FSMs of a store may use: the effects side of "messages in, effects out". All methods return at once; the
 * store loop carries effects out and feeds completions back as messages. FSMs never await.
 */
import type { LeaseClock } from '../raft/lease.ts';
import type { RegionId } from '../base/ids.ts';
import type { KeyRange } from '../base/key-range.ts';
import type { PeerMessage } from '../codec/peer-message.ts';
import type { Clock } from '../env/clock.ts';
import type { CorruptionError, Engine, EngineSnapshot, WriteBatch } from '../env/engine.ts';
import type { Failpoints } from '../env/failpoints.ts';
import type { Logger } from '../env/log.ts';
import type { Rng } from '../env/rng.ts';
import type { RegionHeartbeat, StoreHeartbeat } from '../meta/heartbeat.ts';
import type { Region } from '../meta/region.ts';
import type { Snapshot } from '../raft/types.ts';
import type { ApplyRegistration } from './apply/apply-fsm.ts';
import type { RaftstoreConfig } from './config.ts';
import type { ApplyTask, PeerMsg, SplitIdsResult, StagedSnapshot, StoreMsg } from './msg.ts';
import type { SplitCause } from './store/counters.ts';
import type { PendingCreatePeers, StoreMeta } from './store/store-meta.ts';

/** Mailboxes. Messages are handled in a later round of the store loop, in order. */
export interface Router {
  /** Never refuses; false if there is no such peer FSM (the message is dropped, requests in it are answered). */
  toPeer(region: RegionId, msg: PeerMsg): boolean;
  toApply(region: RegionId, task: ApplyTask): boolean;
  toStore(msg: StoreMsg): void;
  hasPeer(region: RegionId): boolean;
  hasApply(region: RegionId): boolean;
  /** See {@link ApplyFsm.conflictIndex}; 0 without an apply FSM. */
  applyConflict(region: RegionId, keys: readonly Uint8Array[] | undefined): number;
  /** Creates the apply FSM of a region, replacing one that is there. */
  registerApply(registration: ApplyRegistration): void;
  /** Removes the peer FSM; what is left in its mailbox is answered with RegionNotFound. */
  closePeer(region: RegionId, peerId: number): void;
  /** Lets the peer take part in the next round although it has no mail. */
  wake(region: RegionId): void;
  /** Remembers where a merged region went, so that late requests learn the new route. */
  setMergedInto(source: RegionId, target: RegionId): void;
  /** Creates the peer and apply FSM of a region born from a split here, replacing an uninitialized peer. */
  createSplitPeer(
    region: Region,
    options: { readonly campaign: boolean; readonly sizeBytes: number; readonly keys: number },
  ): void;
  /** The live region on this store that took `source` in. */
  mergedInto(source: RegionId): Region | undefined;
}

/** Store-to-store messages. Sending may drop silently: Raft repeats what matters. */
export interface PeerTransport {
  send(message: PeerMessage): void;
  /** Streams a generated snapshot; `done` is called exactly once. The message is the MsgSnap envelope. */
  sendSnapshot(message: PeerMessage, source: SnapshotSource, done: (ok: boolean) => void): void;
  /** Store loop calls this at the end of each round: everything sent so far may leave. */
  flush(): void;
}

/** A frozen region to stream: pages of raw (stored) key/value pairs in key order. Closed by whoever finishes with it. */
export interface SnapshotSource {
  readonly region: Region;
  readonly index: number;
  readonly term: number;
  readonly snapshot: EngineSnapshot;
  /** Called by whoever reads the region and finds it damaged; stops the store. */
  readonly onDamage?: (error: CorruptionError) => void;
  close(): void;
}

/** The placement service as a store uses it. Failures are reported by rejection; nothing here blocks a round. */
export interface PdClient {
  regionHeartbeat(heartbeat: RegionHeartbeat): void;
  /** @returns regions whose redirects may be forgotten */
  storeHeartbeat(heartbeat: StoreHeartbeat): Promise<readonly RegionId[]>;
  askBatchSplit(region: Region, count: number, cause: SplitCause): Promise<readonly SplitIdsResult[]>;
  reportBatchSplit(regions: readonly Region[]): void;
  getRegionById(region: RegionId): Promise<Region | undefined>;
}

/** Snapshots generated for followers and not yet sent. */
export interface SnapshotRegistry {
  /** Keeps a source until it is taken, dropped or too old; returns its id. The registry closes what is not taken. */
  register(source: SnapshotSource): number;
  /** Hands over the source (the taker closes it); undefined if it is unknown, taken or expired. */
  take(snapshotId: number): SnapshotSource | undefined;
  /** Closes and forgets the source behind a snapshot that will not be sent. */
  dropOf(snapshot: Snapshot): void;
}

/** Slow work outside the FSMs, one bounded job at a time per kind; completions come back as messages. */
export interface Workers {
  /** Measures a region and looks for split keys; answers with `split-checked`. */
  checkSplit(region: Region, forced: boolean): void;
  /** Adds the durable note that `staged` is being installed for `region` to the batch that makes the region `applying`. */
  recordInstall(batch: WriteBatch, region: Region, staged: StagedSnapshot): void;
  /** Installs a staged snapshot (region state is `applying` on disk); answers with `snapshot-installed`. */
  installSnapshot(region: Region, peerId: number, staged: StagedSnapshot): void;
  /** Whether a staged snapshot is being copied into the region's range. */
  isInstalling(region: RegionId): boolean;
  /** Drops a staged snapshot that nobody will install. */
  discardStaged(stagingId: number): void;
  /**
   * Adds a durable clean task for a range of user keys to `batch`; the deletion itself starts when the caller's batch
   * is durable (`startCleaning`), runs in bounded batches and resumes after a crash.
   */
  addCleanTask(batch: WriteBatch, range: KeyRange): number;
  startCleaning(taskId: number): void;
  /** Whether some pending clean task touches the range. */
  isCleaning(range: KeyRange): boolean;
}

export interface StoreContext {
  readonly storeId: number;
  readonly config: RaftstoreConfig;
  readonly clock: Clock;
  /** For leases alone: it notices suspended machines. */
  readonly leaseClock: LeaseClock;
  readonly rng: Rng;
  readonly log: Logger;
  readonly failpoints: Failpoints;
  readonly engine: Engine;
  readonly meta: StoreMeta;
  readonly pendingCreatePeers: PendingCreatePeers;
  readonly router: Router;
  readonly transport: PeerTransport;
  readonly pd: PdClient;
  readonly workers: Workers;
  readonly snapshots: SnapshotRegistry;
  /** Writes a batch in order with all other writes of the store; `done` runs when it is durable. A failed write stops the process. */
  write(batch: WriteBatch, done: () => void): void;
  /**
   * As `write`, but nobody waits for it soon: it joins the next batch that somebody waits for, or leaves by itself after
   * a few milliseconds. The order with all other writes of the store stays that of the calls.
   */
  writeLazily(batch: WriteBatch, done: () => void): void;
  /** Lets lazy writes leave now. */
  flushWrites(): void;
  /** Fail-stop. */
  abort(reason: string, cause?: unknown): never;
}
