/** What the placement services add to the codec: beliefs about regions and stores as the public protocol shows them. */
import { BadMessageError } from '../../codec/bad-message-error.ts';
import { fromWireRegion, fromWireStore, toWirePeer, toWireRegion, toWireStore } from '../../codec/meta-wire.ts';
import { fromWireStats, fromWireStoreReport } from '../../codec/pd-wire.ts';
import type { Peer as WirePeer, Region as WireRegion, Store as WireStore } from '../../gen/metapb.ts';
import { PeerRole as WirePeerRole } from '../../gen/metapb.ts';
import type { GetRegionResponse, Region as RegionEntry, ResponseHeader, StoreStats } from '../../gen/pdpb.ts';
import type { StoreHeartbeat } from '../../meta/heartbeat.ts';
import type { Region, Store } from '../../meta/region.ts';
import type { StoreReport } from '../../gen/braid/placement/v1/placement.ts';
import type { RegionInfo } from '../../pd/cluster/region-info.ts';
import type { StoreInfo } from '../../pd/cluster/store-info.ts';

const NANOSECONDS_PER_MS = 1_000_000n;

export function storeToWire(info: StoreInfo): WireStore {
  const { store, physicallyDestroyed, lastHeartbeatWallMs } = info.record;
  return {
    ...toWireStore(store),
    lastHeartbeat: String(BigInt(lastHeartbeatWallMs) * NANOSECONDS_PER_MS),
    physicallyDestroyed,
  };
}

/** The state a store claims for itself does not count: only administrators change it. @throws BadMessageError */
export function storeOf(store: WireStore | undefined): Store {
  if (store === undefined || store.address === '') {
    throw new BadMessageError('metapb.Store', new Error('a store with an address is needed'));
  }
  return { ...fromWireStore(store), state: 'up' };
}

/** @throws BadMessageError */
export function regionOf(region: WireRegion | undefined): Region {
  if (region === undefined || region.regionEpoch === undefined) {
    throw new BadMessageError('metapb.Region', new Error('a region with an epoch is needed'));
  }
  return fromWireRegion(region);
}

/** @throws BadMessageError */
export function statsOf(stats: StoreStats | undefined): StoreHeartbeat {
  if (stats === undefined || stats.storeId === 0) {
    throw new BadMessageError('pdpb.StoreStats', new Error('statistics with a store id are needed'));
  }
  return fromWireStats(stats);
}

/** @throws BadMessageError */
export function storeReportOf(report: StoreReport): StoreHeartbeat {
  statsOf(report.heartbeat?.stats);
  return fromWireStoreReport(report);
}

/** A region as routing calls return it. */
export const routeToWire = (info: RegionInfo): RegionEntry => ({
  region: toWireRegion(info.region),
  leader: info.leader === undefined ? undefined : toWirePeer(info.leader),
  downPeers: info.downPeers.map((down) => ({ peer: toWirePeer(down.peer), downSeconds: down.downSeconds })),
  pendingPeers: info.pendingPeers.map(toWirePeer),
});

/** A miss is an answer without a region. */
export const regionReply = (header: ResponseHeader, info: RegionInfo | undefined): GetRegionResponse =>
  info === undefined
    ? { header, region: undefined, leader: undefined, downPeers: [], pendingPeers: [] }
    : { header, ...routeToWire(info) };

const NO_PEER: WirePeer = { id: 0, storeId: 0, role: WirePeerRole.Voter, isWitness: false };

/** The old form of a scan wants a leader for every region, an empty one where none is known. */
export const leaderOrNone = (info: RegionInfo): WirePeer =>
  info.leader === undefined ? NO_PEER : toWirePeer(info.leader);
