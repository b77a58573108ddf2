/** pdpb <-> heartbeats, operator steps, routes and time stamps of `meta/`. */
import { unreachable } from '../base/assert.ts';
import { copyBytes } from '../base/bytes.ts';
import { term } from '../base/ids.ts';
import type {
  ConsistencyReport as WireConsistencyReport,
  RegionReport,
  StepRefusal as WireStepRefusal,
  StoreReport,
} from '../gen/braid/placement/v1/placement.ts';
import { ConfChangeType } from '../gen/eraftpb.ts';
import type { Peer as WirePeer, Region as WireRegion } from '../gen/metapb.ts';
import {
  type ChangePeer,
  CheckPolicy,
  type PeerStats,
  type RegionHeartbeatResponse,
  type Region as WireRoute,
  type RequestHeader,
  type ResponseHeader,
  type SplitID,
  type StoreStats,
  type Timestamp,
} from '../gen/pdpb.ts';
import type {
  ConsistencyReport,
  PeerChange,
  RegionHeartbeat,
  RegionHeartbeatReply,
  RegionRoute,
  RegionStep,
  SplitIds,
  StoreHeartbeat,
} from '../meta/heartbeat.ts';
import type { Peer } from '../meta/region.ts';
import { REFUSED_STEPS, type StepRefusal } from '../meta/step-refusal.ts';
import { BadMessageError } from './bad-message-error.ts';
import {
  fromWireEpoch,
  fromWirePeer,
  fromWirePeerOrNone,
  fromWireRegion,
  safeNumber,
  toPeerId,
  toRegionId,
  toStoreId,
  toWireEpoch,
  toWirePeer,
  toWireRegion,
} from './meta-wire.ts';

// ------------------------------------------------------------------------------------------------------------ headers

/** @param senderId the caller's store or member id; 0 for clients */
export const toRequestHeader = (clusterId: bigint, senderId: number): RequestHeader => ({
  clusterId: clusterId.toString(),
  senderId,
  callerId: '',
  callerComponent: '',
});

/** Header of a successful answer. */
export const toResponseHeader = (clusterId: bigint): ResponseHeader => ({ clusterId: clusterId.toString() });

// ---------------------------------------------------------------------------------------------------------- heartbeats

const required = <T>(value: T | undefined, what: string): T => {
  if (value === undefined) {
    throw new BadMessageError(what, new Error('a required part is missing'));
  }
  return value;
};

export const toWireReport = (header: RequestHeader, heartbeat: RegionHeartbeat): RegionReport => ({
  heartbeat: {
    header,
    region: toWireRegion(heartbeat.region),
    leader: toWirePeer(heartbeat.leader),
    downPeers: heartbeat.downPeers.map(({ peer, downSeconds }) => ({ peer: toWirePeer(peer), downSeconds })),
    pendingPeers: heartbeat.pendingPeers.map(toWirePeer),
    bytesWritten: heartbeat.bytesWritten,
    bytesRead: heartbeat.bytesRead,
    keysWritten: heartbeat.keysWritten,
    keysRead: heartbeat.keysRead,
    approximateSize: heartbeat.approximateSizeBytes,
    interval: { startTimestamp: heartbeat.intervalStartSeconds, endTimestamp: heartbeat.intervalEndSeconds },
    approximateKeys: heartbeat.approximateKeys,
    term: heartbeat.term,
  },
  merging: heartbeat.merging,
  refusal: heartbeat.refusal === undefined ? undefined : toWireRefusal(heartbeat.refusal),
  consistency: heartbeat.consistency === undefined ? undefined : toWireConsistency(heartbeat.consistency),
});

const toWireConsistency = ({ index, wallMs, result }: ConsistencyReport): WireConsistencyReport => ({
  index,
  unixMs: Math.max(0, Math.floor(wallMs)),
  result,
});

const RESULTS: readonly ConsistencyReport['result'][] = ['consistent', 'divergent', 'unclear', 'incomplete'];

const fromWireConsistency = (wire: WireConsistencyReport): ConsistencyReport => ({
  index: safeNumber(wire.index, 'index'),
  wallMs: safeNumber(wire.unixMs, 'unix_ms'),
  result: RESULTS.find((word) => word === wire.result) ?? 'incomplete',
});

const toWireRefusal = ({ step, code, message, hint, outlook, epoch }: StepRefusal): WireStepRefusal => ({
  step,
  code,
  message,
  hint,
  lasting: outlook === 'lasting',
  epoch: toWireEpoch(epoch),
});

/** A step this program does not know is no step it has sent. */
function fromWireRefusal(wire: WireStepRefusal): StepRefusal | undefined {
  const step = REFUSED_STEPS.find((word) => word === wire.step);
  return step === undefined
    ? undefined
    : {
        step,
        code: wire.code,
        message: wire.message,
        hint: wire.hint,
        outlook: wire.lasting ? 'lasting' : 'passing',
        epoch: fromWireEpoch(required(wire.epoch, 'step refusal')),
      };
}

/** @throws BadMessageError when region or leader is missing */
export function fromWireReport(report: RegionReport): RegionHeartbeat {
  const wire = required(report.heartbeat, 'region report');
  const refusal = report.refusal === undefined ? undefined : fromWireRefusal(report.refusal);
  return {
    region: fromWireRegion(required(wire.region, 'region heartbeat')),
    leader: fromWirePeer(required(wire.leader, 'region heartbeat')),
    term: term(safeNumber(wire.term, 'term')),
    downPeers: wire.downPeers.map(({ peer, downSeconds }) => ({
      peer: fromWirePeer(required(peer, 'down peer')),
      downSeconds: safeNumber(downSeconds, 'down_seconds'),
    })),
    pendingPeers: wire.pendingPeers.map(fromWirePeer),
    approximateSizeBytes: safeNumber(wire.approximateSize, 'approximate_size'),
    approximateKeys: safeNumber(wire.approximateKeys, 'approximate_keys'),
    bytesWritten: safeNumber(wire.bytesWritten, 'bytes_written'),
    keysWritten: safeNumber(wire.keysWritten, 'keys_written'),
    bytesRead: safeNumber(wire.bytesRead, 'bytes_read'),
    keysRead: safeNumber(wire.keysRead, 'keys_read'),
    merging: report.merging,
    ...(refusal === undefined ? {} : { refusal }),
    ...(report.consistency === undefined ? {} : { consistency: fromWireConsistency(report.consistency) }),
    intervalStartSeconds: safeNumber(wire.interval?.startTimestamp ?? 0, 'interval'),
    intervalEndSeconds: safeNumber(wire.interval?.endTimestamp ?? 0, 'interval'),
  };
}

export const toWireStats = (heartbeat: StoreHeartbeat): StoreStats => ({
  storeId: heartbeat.storeId,
  capacity: heartbeat.capacityBytes,
  available: heartbeat.availableBytes,
  regionCount: heartbeat.regionCount,
  sendingSnapCount: heartbeat.sendingSnapshots,
  receivingSnapCount: heartbeat.receivingSnapshots,
  startTime: heartbeat.startTimeSeconds,
  applyingSnapCount: heartbeat.applyingSnapshots,
  isBusy: heartbeat.isBusy,
  usedSize: heartbeat.usedBytes,
  bytesWritten: 0,
  keysWritten: 0,
  bytesRead: 0,
  keysRead: 0,
  slowScore: 0,
  isStopping: heartbeat.isStopping,
});

export const fromWireStats = (stats: StoreStats): StoreHeartbeat => ({
  storeId: toStoreId(stats.storeId),
  capacityBytes: safeNumber(stats.capacity, 'capacity'),
  availableBytes: safeNumber(stats.available, 'available'),
  usedBytes: safeNumber(stats.usedSize, 'used_size'),
  regionCount: stats.regionCount,
  sendingSnapshots: stats.sendingSnapCount,
  receivingSnapshots: stats.receivingSnapCount,
  applyingSnapshots: stats.applyingSnapCount,
  startTimeSeconds: stats.startTime,
  isBusy: stats.isBusy,
  isStopping: stats.isStopping,
});

export const toWireStoreReport = (header: RequestHeader, heartbeat: StoreHeartbeat): StoreReport => ({
  heartbeat: { header, stats: toWireStats(heartbeat) },
  damagedPeers: (heartbeat.damagedPeers ?? []).map(({ regionId, peerId, index, reason }) => ({
    regionId,
    peerId,
    index,
    unclear: reason === 'unclear',
  })),
  redirects: heartbeat.redirectedRegions === undefined ? undefined : { regionIds: [...heartbeat.redirectedRegions] },
});

export const fromWireStoreReport = (report: StoreReport): StoreHeartbeat => ({
  ...fromWireStats(required(required(report.heartbeat, 'store report').stats, 'store report')),
  damagedPeers: report.damagedPeers.map((wire) => ({
    regionId: toRegionId(wire.regionId),
    peerId: toPeerId(wire.peerId),
    index: safeNumber(wire.index, 'index'),
    reason: wire.unclear ? 'unclear' : 'divergent',
  })),
  ...(report.redirects === undefined ? {} : { redirectedRegions: report.redirects.regionIds.map(toRegionId) }),
});

// --------------------------------------------------------------------------------------------------------------- steps

const TO_WIRE_CHANGE: Readonly<Record<PeerChange['type'], ConfChangeType>> = {
  'add-voter': ConfChangeType.AddNode,
  'add-learner': ConfChangeType.AddLearnerNode,
  remove: ConfChangeType.RemoveNode,
};

/** By number of ConfChangeType. */
const CHANGES: readonly PeerChange['type'][] = ['add-voter', 'remove', 'add-learner'];

const toWireChange = (change: PeerChange): ChangePeer => ({
  peer: toWirePeer(change.peer),
  changeType: TO_WIRE_CHANGE[change.type],
});

function fromWireChange(change: ChangePeer): PeerChange {
  return {
    type: required(CHANGES[change.changeType], 'change type'),
    peer: fromWirePeer(required(change.peer, 'peer change')),
  };
}

function toWireStep(step: RegionStep): Partial<RegionHeartbeatResponse> {
  switch (step.type) {
    case 'change-peer':
      return { changePeer: toWireChange(step.change) };
    case 'change-peer-joint':
      return { changePeerV2: { changes: step.changes.map(toWireChange) } };
    case 'transfer-leader':
      return { transferLeader: { peer: toWirePeer(step.peer), peers: step.candidates.map(toWirePeer) } };
    case 'merge':
      return { merge: { target: toWireRegion(step.target) } };
    case 'split': {
      const policy = step.keys.length === 0 ? CheckPolicy.APPROXIMATE : CheckPolicy.USEKEY;
      return { splitRegion: { policy, keys: [...step.keys] } };
    }
    default:
      return unreachable(step);
  }
}

export const toWireReply = (header: ResponseHeader, reply: RegionHeartbeatReply): RegionHeartbeatResponse => ({
  header,
  regionId: reply.regionId,
  regionEpoch: toWireEpoch(reply.epoch),
  targetPeer: toWirePeer(reply.targetPeer),
  ...toWireStep(reply.step),
});

function fromWireStep(wire: RegionHeartbeatResponse): RegionStep | undefined {
  if (wire.changePeer !== undefined) {
    return { type: 'change-peer', change: fromWireChange(wire.changePeer) };
  }
  if (wire.changePeerV2 !== undefined) {
    return { type: 'change-peer-joint', changes: wire.changePeerV2.changes.map(fromWireChange) };
  }
  if (wire.transferLeader !== undefined) {
    return {
      type: 'transfer-leader',
      peer: fromWirePeer(required(wire.transferLeader.peer, 'leader transfer')),
      candidates: wire.transferLeader.peers.map(fromWirePeer),
    };
  }
  if (wire.merge !== undefined) {
    return { type: 'merge', target: fromWireRegion(required(wire.merge.target, 'merge')) };
  }
  if (wire.splitRegion !== undefined) {
    // Any policy without keys leaves the choice to the store.
    const { policy, keys } = wire.splitRegion;
    return { type: 'split', keys: policy === CheckPolicy.USEKEY ? keys.map((key) => copyBytes(key)) : [] };
  }
  return undefined;
}

/** Undefined for an answer that asks for nothing. @throws BadMessageError */
export function fromWireReply(wire: RegionHeartbeatResponse): RegionHeartbeatReply | undefined {
  const step = fromWireStep(wire);
  if (step === undefined) {
    return undefined;
  }
  return {
    regionId: toRegionId(wire.regionId),
    epoch: fromWireEpoch(wire.regionEpoch),
    targetPeer: fromWirePeer(required(wire.targetPeer, 'operator step')),
    step,
  };
}

// -------------------------------------------------------------------------------------------------------------- splits

export const toWireSplitIds = (ids: SplitIds): SplitID => ({
  newRegionId: ids.newRegionId,
  newPeerIds: [...ids.newPeerIds],
});

export const fromWireSplitIds = (ids: SplitID): SplitIds => ({
  newRegionId: toRegionId(ids.newRegionId),
  newPeerIds: ids.newPeerIds.map(toPeerId),
});

// -------------------------------------------------------------------------------------------------------------- routes

const toWireDown = (peer: Peer): PeerStats => ({ peer: toWirePeer(peer), downSeconds: 0 });

export const toWireRoute = (route: RegionRoute): WireRoute => ({
  region: toWireRegion(route.region),
  leader: route.leader === undefined ? undefined : toWirePeer(route.leader),
  downPeers: route.downPeers.map(toWireDown),
  pendingPeers: route.pendingPeers.map(toWirePeer),
});

/** What all answers about one region have in common. */
export interface WireRouteLike {
  readonly region?: WireRegion | undefined;
  readonly leader?: WirePeer | undefined;
  readonly downPeers: readonly PeerStats[];
  readonly pendingPeers: readonly WirePeer[];
}

/** Undefined when the answer names no region. @throws BadMessageError */
export function fromWireRoute(route: WireRouteLike): RegionRoute | undefined {
  if (route.region === undefined || route.region.id === 0) {
    return undefined;
  }
  return {
    region: fromWireRegion(route.region),
    leader: fromWirePeerOrNone(route.leader),
    downPeers: route.downPeers.map(({ peer }) => fromWirePeer(required(peer, 'down peer'))),
    pendingPeers: route.pendingPeers.map(fromWirePeer),
  };
}

// --------------------------------------------------------------------------------------------------------- time stamps

/** Bits of the counter inside one millisecond. */
export const TSO_LOGICAL_BITS = 18;
const TSO_LOGICAL_MASK: bigint = (1n << BigInt(TSO_LOGICAL_BITS)) - 1n;

/** @param tso Unix milliseconds in the upper bits, counter in the lower {@link TSO_LOGICAL_BITS} */
export const toWireTimestamp = (tso: bigint): Timestamp => ({
  physical: Number(tso >> BigInt(TSO_LOGICAL_BITS)),
  logical: Number(tso & TSO_LOGICAL_MASK),
  suffixBits: 0,
});

/** @throws BadMessageError when the counter does not fit */
export function fromWireTimestamp(timestamp: Timestamp): bigint {
  const logical = BigInt(safeNumber(timestamp.logical, 'logical'));
  if (logical > TSO_LOGICAL_MASK) {
    throw new BadMessageError(
      'pdpb.Timestamp',
      new Error(`logical ${logical} needs more than ${TSO_LOGICAL_BITS} bits`),
    );
  }
  return (BigInt(safeNumber(timestamp.physical, 'physical')) << BigInt(TSO_LOGICAL_BITS)) | logical;
}
