/** Public protocol <-> domain, for the placement service. Bytes that are kept are copied here, once. */
import { copyBytes } from '../../base/bytes.ts';
import { peerId, regionId, storeId, term } from '../../base/ids.ts';
import { unreachable } from '../../base/assert.ts';
import { RpcError, RpcStatus } from '../../env/net.ts';
import { ConfChangeType } from '../../gen/eraftpb.ts';
import {
  NodeState,
  PeerRole as WirePeerRole,
  type Peer as WirePeer,
  type Region as WireRegion,
  type Store as WireStore,
  StoreState as WireStoreState,
} from '../../gen/metapb.ts';
import {
  type ChangePeer,
  CheckPolicy,
  type GetRegionResponse,
  type PeerStats,
  type RegionHeartbeatRequest,
  type RegionHeartbeatResponse,
  type Region as RegionEntry,
  type ResponseHeader,
  type StoreStats,
} from '../../gen/pdpb.ts';
import type { PeerChange, RegionHeartbeat, RegionHeartbeatReply, StoreHeartbeat } from '../../meta/heartbeat.ts';
import type { Peer, PeerRole, Region, RegionEpoch, Store, StoreState } from '../../meta/region.ts';
import type { RegionInfo } from '../../pd/cluster/region-info.ts';
import type { StoreInfo } from '../../pd/cluster/store-info.ts';

const ROLE_TO_WIRE: Readonly<Record<PeerRole, WirePeerRole>> = {
  voter: WirePeerRole.Voter,
  learner: WirePeerRole.Learner,
  'incoming-voter': WirePeerRole.IncomingVoter,
  'demoting-voter': WirePeerRole.DemotingVoter,
};

const ROLE_FROM_WIRE: ReadonlyMap<number, PeerRole> = new Map([
  [WirePeerRole.Voter, 'voter'],
  [WirePeerRole.Learner, 'learner'],
  [WirePeerRole.IncomingVoter, 'incoming-voter'],
  [WirePeerRole.DemotingVoter, 'demoting-voter'],
]);

/** The message lacks something it must have, or holds a value that has no meaning. */
export const malformed = (what: string): RpcError => new RpcError(RpcStatus.INVALID_ARGUMENT, what, { sent: true });

export const peerToWire = (peer: Peer): WirePeer => ({
  id: peer.id,
  storeId: peer.storeId,
  role: ROLE_TO_WIRE[peer.role],
  isWitness: false,
});

export function peerFromWire(peer: WirePeer): Peer {
  const role = ROLE_FROM_WIRE.get(peer.role);
  if (role === undefined) {
    throw malformed(`unknown peer role ${peer.role}`);
  }
  return { id: peerId(peer.id), storeId: storeId(peer.storeId), role };
}

const NO_PEER: WirePeer = { id: 0, storeId: 0, role: WirePeerRole.Voter, isWitness: false };

export const epochToWire = (epoch: RegionEpoch): RegionEpoch => ({ confVer: epoch.confVer, version: epoch.version });

export const regionToWire = (region: Region): WireRegion => ({
  id: region.id,
  startKey: region.range.start,
  endKey: region.range.end,
  regionEpoch: epochToWire(region.epoch),
  peers: region.peers.map(peerToWire),
});

export function regionFromWire(region: WireRegion | undefined): Region {
  if (region === undefined || region.regionEpoch === undefined) {
    throw malformed('a region with an epoch is needed');
  }
  return {
    id: regionId(region.id),
    range: { start: copyBytes(region.startKey), end: copyBytes(region.endKey) },
    epoch: epochToWire(region.regionEpoch),
    peers: region.peers.map(peerFromWire),
  };
}

const NODE_STATES: Readonly<Record<StoreState, NodeState>> = {
  up: NodeState.Serving,
  offline: NodeState.Removing,
  tombstone: NodeState.Removed,
};

const STORE_STATES: Readonly<Record<StoreState, WireStoreState>> = {
  up: WireStoreState.Up,
  offline: WireStoreState.Offline,
  tombstone: WireStoreState.Tombstone,
};

export const nodeStateOf = (state: StoreState): NodeState => NODE_STATES[state];

export function storeToWire(info: StoreInfo): WireStore {
  const { store, physicallyDestroyed, lastHeartbeatWallMs } = info.record;
  return {
    id: store.id,
    address: store.address,
    peerAddress: store.address,
    statusAddress: store.statusAddress,
    state: STORE_STATES[store.state],
    nodeState: NODE_STATES[store.state],
    labels: store.labels.map((label) => ({ key: label.key, value: label.value })),
    version: store.version,
    gitHash: '',
    deployPath: '',
    startTimestamp: store.startTimestamp,
    lastHeartbeat: String(BigInt(lastHeartbeatWallMs) * 1_000_000n),
    physicallyDestroyed,
  };
}

/** The state a store claims for itself does not count: only administrators change it. */
export function storeFromWire(store: WireStore | undefined): Store {
  if (store === undefined || store.address === '') {
    throw malformed('a store with an address is needed');
  }
  return {
    id: storeId(store.id),
    address: store.address,
    statusAddress: store.statusAddress,
    state: 'up',
    labels: store.labels.map((label) => ({ key: label.key, value: label.value })),
    version: store.version,
    startTimestamp: store.startTimestamp,
  };
}

export function statsFromWire(stats: StoreStats | undefined): StoreHeartbeat {
  if (stats === undefined || stats.storeId === 0) {
    throw malformed('store statistics with a store id are needed');
  }
  return {
    storeId: storeId(stats.storeId),
    capacityBytes: stats.capacity,
    availableBytes: stats.available,
    usedBytes: stats.usedSize,
    regionCount: stats.regionCount,
    sendingSnapshots: stats.sendingSnapCount,
    receivingSnapshots: stats.receivingSnapCount,
    applyingSnapshots: stats.applyingSnapCount,
    startTimeSeconds: stats.startTime,
    isBusy: stats.isBusy,
    isStopping: stats.isStopping,
  };
}

export const statsToWire = (stats: StoreHeartbeat): StoreStats => ({
  storeId: stats.storeId,
  capacity: stats.capacityBytes,
  available: stats.availableBytes,
  usedSize: stats.usedBytes,
  regionCount: stats.regionCount,
  sendingSnapCount: stats.sendingSnapshots,
  receivingSnapCount: stats.receivingSnapshots,
  applyingSnapCount: stats.applyingSnapshots,
  startTime: stats.startTimeSeconds,
  isBusy: stats.isBusy,
  isStopping: stats.isStopping,
  bytesWritten: 0,
  keysWritten: 0,
  bytesRead: 0,
  keysRead: 0,
  interval: undefined,
  slowScore: 0,
});

const downToWire = (info: RegionInfo): PeerStats[] =>
  info.downPeers.map((down) => ({ peer: peerToWire(down.peer), downSeconds: down.downSeconds }));

/** A region as routing calls return it. */
export const routeToWire = (info: RegionInfo): RegionEntry => ({
  region: regionToWire(info.region),
  leader: info.leader === undefined ? undefined : peerToWire(info.leader),
  downPeers: downToWire(info),
  pendingPeers: info.pendingPeers.map(peerToWire),
});

/** A miss is an answer without a region. */
export const regionReply = (header: ResponseHeader, info: RegionInfo | undefined): GetRegionResponse =>
  info === undefined
    ? { header, region: undefined, leader: undefined, downPeers: [], pendingPeers: [] }
    : { header, ...routeToWire(info) };

/** The old form wants a leader for every region, an empty one where none is known. */
export const leaderOrNone = (info: RegionInfo): WirePeer => (info.leader === undefined ? NO_PEER : peerToWire(info.leader));

export function heartbeatFromWire(request: RegionHeartbeatRequest, merging: boolean): RegionHeartbeat {
  if (request.leader === undefined) {
    throw malformed('a region heartbeat needs a leader');
  }
  return {
    region: regionFromWire(request.region),
    leader: peerFromWire(request.leader),
    term: term(request.term),
    downPeers: request.downPeers.map((down) => ({
      peer: peerFromWire(down.peer ?? NO_PEER),
      downSeconds: down.downSeconds,
    })),
    pendingPeers: request.pendingPeers.map(peerFromWire),
    approximateSizeBytes: request.approximateSize,
    approximateKeys: request.approximateKeys,
    bytesWritten: request.bytesWritten,
    keysWritten: request.keysWritten,
    bytesRead: request.bytesRead,
    keysRead: request.keysRead,
    merging,
    intervalStartSeconds: request.interval?.startTimestamp ?? 0,
    intervalEndSeconds: request.interval?.endTimestamp ?? 0,
  };
}

const CHANGE_TYPES: Readonly<Record<PeerChange['type'], ConfChangeType>> = {
  'add-voter': ConfChangeType.AddNode,
  'add-learner': ConfChangeType.AddLearnerNode,
  remove: ConfChangeType.RemoveNode,
};

const changeToWire = (change: PeerChange): ChangePeer => ({
  peer: peerToWire(change.peer),
  changeType: CHANGE_TYPES[change.type],
});

/** A command for the leader of a region. */
export function commandToWire(header: ResponseHeader, reply: RegionHeartbeatReply): RegionHeartbeatResponse {
  const common = {
    header,
    regionId: reply.regionId,
    regionEpoch: epochToWire(reply.epoch),
    targetPeer: peerToWire(reply.targetPeer),
  };
  const { step } = reply;
  switch (step.type) {
    case 'change-peer':
      return { ...common, changePeer: changeToWire(step.change) };
    case 'change-peer-joint':
      return { ...common, changePeerV2: { changes: step.changes.map(changeToWire) } };
    case 'transfer-leader':
      return { ...common, transferLeader: { peer: peerToWire(step.peer), peers: step.candidates.map(peerToWire) } };
    case 'merge':
      return { ...common, merge: { target: regionToWire(step.target) } };
    case 'split':
      return {
        ...common,
        splitRegion: {
          policy: step.keys.length === 0 ? CheckPolicy.APPROXIMATE : CheckPolicy.USEKEY,
          keys: [...step.keys],
        },
      };
    default:
      return unreachable(step);
  }
}
