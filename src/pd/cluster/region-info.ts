/**
 * What the placement service believes about one region: the descriptor plus what its leader last said. Values are
 * immutable. Only heartbeats and the persisted map make them; nothing here decides.
 */
import type { StoreId } from '../../base/ids.ts';
import type { ConsistencyReport, RegionHeartbeat } from '../../meta/heartbeat.ts';
import { type Peer, type Region, findPeer, findPeerOnStore, isInJointState, regionsEqual } from '../../meta/region.ts';

export interface DownPeer {
  readonly peer: Peer;
  readonly downSeconds: number;
}

export interface RegionInfo {
  readonly region: Region;
  /** Undefined while unknown, e.g. after a restart. */
  readonly leader: Peer | undefined;
  /** 0 while unknown. */
  readonly term: number;
  readonly downPeers: readonly DownPeer[];
  readonly pendingPeers: readonly Peer[];
  /** 0 while unknown; a region whose leader measured it has at least 1. */
  readonly sizeBytes: number;
  readonly keys: number;
  /** The leader said that PrepareMerge was applied and neither committed nor rolled back yet. */
  readonly merging: boolean;
  /** The latest comparison of its replicas that a leader told of. */
  readonly consistency: ConsistencyReport | undefined;
  readonly bytesWrittenPerSecond: number;
  readonly bytesReadPerSecond: number;
  /** Monotonic time of the leader's last accepted report in this process; undefined before the first. */
  readonly reportedAtMs: number | undefined;
}

/** Flow figures at or above this are garbage from a counter that went backwards. */
const FLOW_BYTES_MAX = 2 ** 50;

function perSecond(bytes: number, seconds: number): number {
  return bytes >= FLOW_BYTES_MAX || seconds <= 0 ? 0 : Math.round(bytes / seconds);
}

/** The belief that follows from a leader's report; `previous` is the belief about the same id, if any. */
export function regionInfoFromHeartbeat(
  heartbeat: RegionHeartbeat,
  previous: RegionInfo | undefined,
  nowMs: number,
): RegionInfo {
  const seconds = heartbeat.intervalEndSeconds - heartbeat.intervalStartSeconds;
  return {
    // Unchanged descriptors are shared, so that a million reports of the same regions keep no bytes.
    region:
      previous !== undefined && regionsEqual(previous.region, heartbeat.region) ? previous.region : heartbeat.region,
    leader: heartbeat.leader,
    term: heartbeat.term,
    downPeers: heartbeat.downPeers,
    pendingPeers: heartbeat.pendingPeers,
    sizeBytes: heartbeat.approximateSizeBytes > 0 ? heartbeat.approximateSizeBytes : (previous?.sizeBytes ?? 1),
    keys: heartbeat.approximateSizeBytes > 0 ? heartbeat.approximateKeys : (previous?.keys ?? 0),
    merging: heartbeat.merging,
    consistency: heartbeat.consistency ?? previous?.consistency,
    bytesWrittenPerSecond: perSecond(heartbeat.bytesWritten, seconds),
    bytesReadPerSecond: perSecond(heartbeat.bytesRead, seconds),
    reportedAtMs: nowMs,
  };
}

/** A region that is known by its descriptor only: loaded from disk, or named by a store in a split report. */
export function unreportedRegion(region: Region): RegionInfo {
  return {
    region,
    leader: undefined,
    term: 0,
    downPeers: [],
    pendingPeers: [],
    sizeBytes: 0,
    keys: 0,
    merging: false,
    consistency: undefined,
    bytesWrittenPerSecond: 0,
    bytesReadPerSecond: 0,
    reportedAtMs: undefined,
  };
}

export const votersOf = (region: Region): readonly Peer[] =>
  region.peers.filter((p) => p.role === 'voter' || p.role === 'incoming-voter');

export const learnersOf = (region: Region): readonly Peer[] => region.peers.filter((p) => p.role === 'learner');

export const peerOn = (info: RegionInfo, store: StoreId): Peer | undefined => findPeerOnStore(info.region, store);

export const isPending = (info: RegionInfo, peer: Peer): boolean => info.pendingPeers.some((p) => p.id === peer.id);

export const isDown = (info: RegionInfo, peer: Peer): boolean => info.downPeers.some((d) => d.peer.id === peer.id);

/** No down peer, no pending peer, not between two memberships, leader known. */
export const isHealthy = (info: RegionInfo): boolean =>
  info.leader !== undefined &&
  info.downPeers.length === 0 &&
  info.pendingPeers.length === 0 &&
  !isInJointState(info.region);

/** The leader as the descriptor lists it now (its role may have changed since the report named it). */
export function leaderPeer(info: RegionInfo): Peer | undefined {
  return info.leader === undefined ? undefined : findPeer(info.region, info.leader.id);
}
