/** Tunables of a store. Durations in milliseconds, sizes in bytes. Relations between them are asserted at start. */
import { assert } from '../base/assert.ts';
import { KIB, MIB } from '../base/units.ts';

export interface RaftstoreConfig {
  /** Length of one raft tick. */
  readonly tickMs: number;
  /** Ticks between a leader's heartbeats. */
  readonly heartbeatTicks: number;
  /** Ticks without a leader before an election; the random range is [n, 2n). */
  readonly electionTicks: number;
  /** Longest time a leader answers reads without asking its followers; below the election timeout minus one tick. */
  readonly leaderLeaseMs: number;
  /** Largest encoded command. */
  readonly entrySizeMaxBytes: number;
  /** Most operations merged into one Raft entry, and their most bytes. */
  readonly proposalBatchOpsMax: number;
  readonly proposalBatchBytesMax: number;
  /** Client requests waiting in one region; beyond that the answer is ServerIsBusy. */
  readonly mailboxLimit: number;
  readonly maxSizePerMsgBytes: number;
  readonly maxInflightMsgs: number;
  readonly maxInflightBytes: number;
  readonly maxUncommittedBytes: number;
  readonly maxCommittedPerReadyBytes: number;
  /** Recent entries kept in memory per store. */
  readonly entryCacheMaxBytes: number;
  /** Time between looks at the state of a merge. */
  readonly mergeCheckMs: number;
  /** Most entries a source replica may lag when its region is merged; below logGcCountLimit. */
  readonly mergeMaxLogGap: number;
  readonly maintenanceTickMs: number;
  /** Compact the log when this many entries are replicated everywhere. */
  readonly logGcThreshold: number;
  /** Compact regardless of slow followers above this many entries or bytes. */
  readonly logGcCountLimit: number;
  readonly logGcSizeLimitBytes: number;
  readonly pdHeartbeatMs: number;
  readonly storeHeartbeatMs: number;
  readonly splitCheckMs: number;
  /** Split a region larger than this … */
  readonly regionMaxSizeBytes: number;
  readonly regionMaxKeys: number;
  /** … into parts of about this size. */
  readonly regionSplitSizeBytes: number;
  readonly regionSplitKeys: number;
  /** Split a region whose leader reads and writes more keys, or bytes, per second than this … 0 = no limit. */
  readonly loadSplitQps: number;
  readonly loadSplitFlowBytes: number;
  /** … for so long. */
  readonly loadSplitDetectMs: number;
  readonly snapshotChunkBytes: number;
  readonly snapshotSendsMax: number;
  readonly snapshotReceivesMax: number;
  /** Keys deleted per batch when cleaning ranges. */
  readonly cleanBatchKeys: number;
  /** Without a leader for this long a peer asks its fellow peers … */
  readonly abnormalLeaderMissingMs: number;
  /** … and after this long the placement service whether it is still a member. */
  readonly maxLeaderMissingMs: number;
  /** Silence after which a peer is reported as down. */
  readonly maxPeerDownMs: number;
  /** How long a request for a region in the middle of a transition is held before it is refused. */
  readonly holdRequestMs: number;
  /** How long requests of clients with an outdated idea of a region are carried out for them, 0 = never. */
  readonly proxyThresholdMs: number;
  /** How long such a request waits while its region is in the middle of a merge or has no leader. */
  readonly proxyHoldMs: number;
  /** Time between two consistency checks that leaders of this store start, one region after the other; 0 switches them off. */
  readonly consistencyCheckMs: number;
  readonly leaderTransferMaxLogLag: number;
  /** Largest user key. */
  readonly keySizeMaxBytes: number;
}

export const DEFAULT_RAFTSTORE_CONFIG: RaftstoreConfig = Object.freeze({
  tickMs: 100,
  heartbeatTicks: 2,
  electionTicks: 10,
  leaderLeaseMs: 800,
  entrySizeMaxBytes: 8 * MIB,
  proposalBatchOpsMax: 1024,
  proposalBatchBytesMax: 1 * MIB,
  mailboxLimit: 20_000,
  maxSizePerMsgBytes: 1 * MIB,
  maxInflightMsgs: 256,
  maxInflightBytes: 32 * MIB,
  maxUncommittedBytes: 64 * MIB,
  maxCommittedPerReadyBytes: 16 * MIB,
  entryCacheMaxBytes: 64 * MIB,
  mergeCheckMs: 100,
  mergeMaxLogGap: 10,
  maintenanceTickMs: 1000,
  logGcThreshold: 512,
  logGcCountLimit: 65_536,
  logGcSizeLimitBytes: 64 * MIB,
  pdHeartbeatMs: 10_000,
  storeHeartbeatMs: 5_000,
  splitCheckMs: 2_000,
  regionMaxSizeBytes: 96 * MIB,
  regionMaxKeys: 960_000,
  regionSplitSizeBytes: 64 * MIB,
  regionSplitKeys: 640_000,
  loadSplitQps: 10_000,
  loadSplitFlowBytes: 30 * MIB,
  loadSplitDetectMs: 10_000,
  snapshotChunkBytes: 256 * KIB,
  snapshotSendsMax: 8,
  snapshotReceivesMax: 8,
  cleanBatchKeys: 4096,
  abnormalLeaderMissingMs: 60_000,
  maxLeaderMissingMs: 180_000,
  maxPeerDownMs: 600_000,
  holdRequestMs: 50,
  proxyThresholdMs: 60_000,
  proxyHoldMs: 500,
  consistencyCheckMs: 30_000,
  leaderTransferMaxLogLag: 128,
  keySizeMaxBytes: 8 * KIB,
});

/** Checks relations between settings; returns a sentence naming the broken one, or undefined. */
export function checkRaftstoreConfig(config: RaftstoreConfig): string | undefined {
  if (config.electionTicks <= config.heartbeatTicks) {
    return 'electionTicks must be larger than heartbeatTicks';
  }
  if (config.leaderLeaseMs > (config.electionTicks - 1) * config.tickMs) {
    return 'leaderLeaseMs must not exceed the election timeout minus one tick';
  }
  if (config.mergeMaxLogGap >= config.logGcCountLimit) {
    return 'mergeMaxLogGap must be smaller than logGcCountLimit';
  }
  if (config.maxInflightBytes < config.maxSizePerMsgBytes) {
    return 'maxInflightBytes must be at least maxSizePerMsgBytes';
  }
  if (config.regionSplitSizeBytes > config.regionMaxSizeBytes) {
    return 'regionSplitSizeBytes must not exceed regionMaxSizeBytes';
  }
  if (config.abnormalLeaderMissingMs > config.maxLeaderMissingMs) {
    return 'abnormalLeaderMissingMs must not exceed maxLeaderMissingMs';
  }
  return undefined;
}

const defaultProblem = checkRaftstoreConfig(DEFAULT_RAFTSTORE_CONFIG);
assert(defaultProblem === undefined, `default configuration is inconsistent: ${defaultProblem ?? ''}`);
