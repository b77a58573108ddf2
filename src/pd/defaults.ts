/**
 * Settings of the placement service: one interface, one set of defaults, one check of the relations between them.
 * Every duration is in milliseconds, every size in bytes. Nothing here is read from the environment.
 */
import { assert } from '../base/assert.ts';
import { MIB } from '../base/units.ts';

/** When and how regions are repaired, balanced, moved and merged. */
export interface PlacementConfig {
  /** Wanted voters per region. */
  readonly maxReplicas: number;
  /** Store labels from the widest to the narrowest failure domain, compared without case. */
  readonly locationLabels: readonly string[];
  /** Change several peers in one joint step; off means one by one. */
  readonly jointConsensus: boolean;

  /** Silence after which a store counts as disconnected: nothing is sent to it, nothing is repaired yet. */
  readonly storeDisconnectedMs: number;
  /** Silence after which a store counts as down and its replicas are replaced. */
  readonly storeDownMs: number;
  /** A step that needs a store silent for this long is given up. */
  readonly stepStoreSilentMs: number;
  /** Interval of checks that turn an empty removing store into a removed one. */
  readonly storeCheckMs: number;
  /** A store's last heartbeat is written to disk at most this often. */
  readonly storeHeartbeatSaveMs: number;
  /** Used share of the capacity above which a store receives no more replicas. */
  readonly lowSpaceRatio: number;

  /** Most running operators by what they mainly do; a merge pair counts two. */
  readonly leaderScheduleLimit: number;
  readonly regionScheduleLimit: number;
  readonly replicaScheduleLimit: number;
  readonly mergeScheduleLimit: number;
  /** Most running operators of all kinds, those of administrators included. */
  readonly runningOperatorsMax: number;
  /** Most waiting operators per maker. */
  readonly waitingPerMakerMax: number;
  /** Peers of regions above 20 MiB that may be added to, or removed from, one store per minute. */
  readonly storeLimitPerMinute: number;
  /** A store sending, receiving or applying more snapshots takes part in no more region moves. */
  readonly storeSnapshotsMax: number;
  /** A store with more pending peers receives no more. */
  readonly storePendingPeersMax: number;

  /** An operator that was not started this long after it was made is dropped. */
  readonly operatorExpiryMs: number;
  /** Shortest time limit of quick steps, and the part added per MiB of region. */
  readonly fastStepMs: number;
  readonly fastStepMsPerMib: number;
  /** Shortest time limit of steps that copy data, and the part added per MiB of region. */
  readonly slowStepMs: number;
  readonly slowStepMsPerMib: number;
  /** Interval of the loop that sends unfinished steps again. */
  readonly pushIntervalMs: number;
  /** Time until an unfinished quick step is sent again. */
  readonly pushQuickMs: number;
  /** Time until any other unfinished step is sent again. */
  readonly pushSlowMs: number;
  /** Ended operators kept for inspection. */
  readonly operatorHistoryMax: number;
  /** Events kept for inspection. */
  readonly eventHistoryMax: number;

  /** Interval of the patrol that looks for regions to repair. */
  readonly patrolIntervalMs: number;
  /** Regions looked at per patrol round. */
  readonly patrolBatchMax: number;
  /** Interval of the balancing schedulers. */
  readonly schedulerIntervalMs: number;
  /** Share of known regions, and of each store's regions, that must have reported before anything is scheduled … */
  readonly warmupReportedRatio: number;
  /** … unless this time has passed since the start. */
  readonly warmupMaxMs: number;

  /** Leaders a store may have above another one before a leader is moved. */
  readonly leaderTolerance: number;
  /** Balancing moves a region only if the difference exceeds this multiple of the average region size. */
  readonly regionToleranceRatio: number;

  /** Interval of looks at documents that are not as they should be. */
  readonly reconcileIntervalMs: number;
  /** How long old routes are still served after a merge or a move of a Partition. */
  readonly proxyThresholdMs: number;

  /** A region is not merged automatically this long after it was split, nor after this process started. */
  readonly splitMergeIntervalMs: number;
  /** Larger regions are never a source of an automatic merge. */
  readonly mergeSourceSizeMaxBytes: number;
  readonly mergeSourceKeysMax: number;
  /** Two regions are never merged, by nobody, if together they are larger than this. */
  readonly mergedSizeMaxBytes: number;
  /** Size and keys at which stores split a region; an automatic merge never comes near. */
  readonly regionMaxSizeBytes: number;
  readonly regionMaxKeys: number;
}

/** Ids and timestamps. */
export interface AllocationConfig {
  /** Ids reserved on disk at a time. */
  readonly idWindow: number;
  /** How far ahead of the timestamps given out the reservation on disk reaches. */
  readonly tsoWindowMs: number;
  /** Interval at which the timestamp follows the wall clock. */
  readonly tsoUpdateMs: number;
  /** Rounds of waiting for a timestamp before the call fails. */
  readonly tsoWaitRoundsMax: number;
}

export const DEFAULT_PLACEMENT_CONFIG: PlacementConfig = Object.freeze({
  maxReplicas: 3,
  locationLabels: Object.freeze(['zone', 'rack', 'host']),
  jointConsensus: true,
  storeDisconnectedMs: 20_000,
  storeDownMs: 300_000,
  stepStoreSilentMs: 60_000,
  storeCheckMs: 10_000,
  storeHeartbeatSaveMs: 300_000,
  lowSpaceRatio: 0.8,
  leaderScheduleLimit: 4,
  regionScheduleLimit: 2048,
  replicaScheduleLimit: 64,
  mergeScheduleLimit: 8,
  runningOperatorsMax: 4096,
  waitingPerMakerMax: 5,
  storeLimitPerMinute: 60,
  storeSnapshotsMax: 64,
  storePendingPeersMax: 64,
  operatorExpiryMs: 3_000,
  fastStepMs: 60_000,
  fastStepMsPerMib: 600,
  slowStepMs: 600_000,
  slowStepMsPerMib: 6_000,
  pushIntervalMs: 500,
  pushQuickMs: 2_000,
  pushSlowMs: 5_000,
  operatorHistoryMax: 1_024,
  eventHistoryMax: 4_096,
  patrolIntervalMs: 50,
  patrolBatchMax: 128,
  schedulerIntervalMs: 500,
  warmupReportedRatio: 0.9,
  warmupMaxMs: 60_000,
  leaderTolerance: 1,
  regionToleranceRatio: 2,
  reconcileIntervalMs: 200,
  proxyThresholdMs: 60_000,
  splitMergeIntervalMs: 300_000,
  mergeSourceSizeMaxBytes: 4 * MIB,
  mergeSourceKeysMax: 40_000,
  mergedSizeMaxBytes: 512 * MIB,
  regionMaxSizeBytes: 96 * MIB,
  regionMaxKeys: 960_000,
});

export const DEFAULT_ALLOCATION_CONFIG: AllocationConfig = Object.freeze({
  idWindow: 1_000,
  tsoWindowMs: 5_000,
  tsoUpdateMs: 50,
  tsoWaitRoundsMax: 10,
});

/** Checks relations between settings; returns a sentence naming the broken one, or undefined. */
export function checkPlacementConfig(config: PlacementConfig): string | undefined {
  if (!Number.isSafeInteger(config.maxReplicas) || config.maxReplicas < 1) {
    return 'maxReplicas must be a positive integer';
  }
  if (config.storeDownMs <= config.storeDisconnectedMs) {
    return 'storeDownMs must be larger than storeDisconnectedMs';
  }
  if (config.stepStoreSilentMs < config.storeDisconnectedMs) {
    return 'stepStoreSilentMs must not be smaller than storeDisconnectedMs';
  }
  if (config.lowSpaceRatio <= 0 || config.lowSpaceRatio > 1) {
    return 'lowSpaceRatio must be above 0 and at most 1';
  }
  if (config.warmupReportedRatio < 0 || config.warmupReportedRatio > 1) {
    return 'warmupReportedRatio must be between 0 and 1';
  }
  if (config.pushQuickMs > config.pushSlowMs) {
    return 'pushQuickMs must not exceed pushSlowMs';
  }
  if (config.mergeSourceSizeMaxBytes > config.regionMaxSizeBytes) {
    return 'mergeSourceSizeMaxBytes must not exceed regionMaxSizeBytes';
  }
  if (config.patrolBatchMax < 1 || config.operatorHistoryMax < 1 || config.eventHistoryMax < 1) {
    return 'patrolBatchMax, operatorHistoryMax and eventHistoryMax must be at least 1';
  }
  return undefined;
}

const defaultProblem = checkPlacementConfig(DEFAULT_PLACEMENT_CONFIG);
assert(defaultProblem === undefined, `default configuration is inconsistent: ${defaultProblem ?? ''}`);
