/**
 * metapb <-> the nouns of `meta/`. Going inward everything is checked and bytes are copied, because descriptors are
 * kept for long; what does not fit is refused with BadMessageError.
 */
import { copyBytes } from '../base/bytes.ts';
import { type PeerId, type RegionId, type StoreId, isSafeId, peerId, regionId, storeId } from '../base/ids.ts';
import {
  type Peer as WirePeer,
  PeerRole as WirePeerRole,
  type Region as WireRegion,
  type RegionEpoch as WireRegionEpoch,
  type Store as WireStore,
  NodeState as WireNodeState,
  StoreState as WireStoreState,
} from '../gen/metapb.ts';
import type { Peer, PeerRole, Region, RegionEpoch, Store, StoreState } from '../meta/region.ts';
import { BadMessageError } from './bad-message-error.ts';

const ROLES: readonly PeerRole[] = ['voter', 'learner', 'incoming-voter', 'demoting-voter'];

const TO_WIRE_ROLE: Readonly<Record<PeerRole, WirePeerRole>> = {
  voter: WirePeerRole.Voter,
  learner: WirePeerRole.Learner,
  'incoming-voter': WirePeerRole.IncomingVoter,
  'demoting-voter': WirePeerRole.DemotingVoter,
};

const TO_WIRE_STORE_STATE: Readonly<Record<StoreState, WireStoreState>> = {
  up: WireStoreState.Up,
  offline: WireStoreState.Offline,
  tombstone: WireStoreState.Tombstone,
};

const TO_WIRE_NODE_STATE: Readonly<Record<StoreState, WireNodeState>> = {
  up: WireNodeState.Serving,
  offline: WireNodeState.Removing,
  tombstone: WireNodeState.Removed,
};

const STORE_STATES: readonly StoreState[] = ['up', 'offline', 'tombstone'];

/** A non-negative safe integer from a message. @throws BadMessageError */
export function safeNumber(value: number, what: string): number {
  if (!isSafeId(value)) {
    throw new BadMessageError(what, new Error(`${value} is not a number between 0 and 2^53-1`));
  }
  return value;
}

export const toRegionId = (value: number): RegionId => regionId(safeNumber(value, 'region id'));
export const toStoreId = (value: number): StoreId => storeId(safeNumber(value, 'store id'));
export const toPeerId = (value: number): PeerId => peerId(safeNumber(value, 'peer id'));

/** A 64-bit identity from its decimal text. @throws BadMessageError */
export function toBigint(text: string, what: string): bigint {
  if (!/^\d{1,20}$/.test(text)) {
    throw new BadMessageError(what, new Error('not a decimal number'));
  }
  return BigInt(text);
}

export const toWirePeer = (peer: Peer): WirePeer => ({
  id: peer.id,
  storeId: peer.storeId,
  role: TO_WIRE_ROLE[peer.role],
  isWitness: false,
});

/** @throws BadMessageError for a role that does not exist and for witnesses, which hold no data */
export function fromWirePeer(peer: WirePeer): Peer {
  const role = ROLES[peer.role];
  if (role === undefined || peer.isWitness) {
    throw new BadMessageError('metapb.Peer', new Error(`role ${peer.role}, witness ${peer.isWitness}`));
  }
  return { id: toPeerId(peer.id), storeId: toStoreId(peer.storeId), role };
}

/** Absent and all-zero peers mean "none". */
export const fromWirePeerOrNone = (peer: WirePeer | undefined): Peer | undefined =>
  peer === undefined || (peer.id === 0 && peer.storeId === 0) ? undefined : fromWirePeer(peer);

export const toWireEpoch = (epoch: RegionEpoch): WireRegionEpoch => ({
  confVer: epoch.confVer,
  version: epoch.version,
});

/** An absent epoch is 0:0, older than any region's. */
export const fromWireEpoch = (epoch: WireRegionEpoch | undefined): RegionEpoch => ({
  confVer: safeNumber(epoch?.confVer ?? 0, 'conf_ver'),
  version: safeNumber(epoch?.version ?? 0, 'version'),
});

/** The keys are shared with `region`, not copied. */
export const toWireRegion = (region: Region): WireRegion => ({
  id: region.id,
  startKey: region.range.start,
  endKey: region.range.end,
  regionEpoch: toWireEpoch(region.epoch),
  peers: region.peers.map(toWirePeer),
});

export const fromWireRegion = (region: WireRegion): Region => ({
  id: toRegionId(region.id),
  range: { start: copyBytes(region.startKey), end: copyBytes(region.endKey) },
  epoch: fromWireEpoch(region.regionEpoch),
  peers: region.peers.map(fromWirePeer),
});

/** Clients look at either of the two state fields, so both are filled. */
export const toWireStore = (store: Store): WireStore => ({
  id: store.id,
  address: store.address,
  state: TO_WIRE_STORE_STATE[store.state],
  labels: store.labels.map(({ key, value }) => ({ key, value })),
  version: store.version,
  peerAddress: store.address,
  statusAddress: store.statusAddress,
  gitHash: '',
  startTimestamp: store.startTimestamp,
  deployPath: '',
  lastHeartbeat: '0',
  physicallyDestroyed: false,
  nodeState: TO_WIRE_NODE_STATE[store.state],
});

export function fromWireStore(store: WireStore): Store {
  const state = STORE_STATES[store.state];
  if (state === undefined) {
    throw new BadMessageError('metapb.Store', new Error(`state ${store.state}`));
  }
  return {
    id: toStoreId(store.id),
    address: store.address,
    statusAddress: store.statusAddress,
    state,
    labels: store.labels.map(({ key, value }) => ({ key, value })),
    version: store.version,
    startTimestamp: safeNumber(store.startTimestamp, 'start_timestamp'),
  };
}
