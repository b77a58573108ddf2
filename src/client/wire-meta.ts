/** Wire forms of regions, peers, stores and region errors, in the domain's words. */
import { copyBytes } from '../base/bytes.ts';
import { peerId, regionId, storeId } from '../base/ids.ts';
import type { RegionError } from '../codec/region-error.ts';
import type { RegionRoute } from '../meta/heartbeat.ts';
import type { Peer, PeerRole, Region, Store, StoreState } from '../meta/region.ts';
import type { Method } from '../rpc/method.ts';
import type { pdMethods, tikvMethods } from '../rpc/services.ts';

type ReplyOf<M> = M extends Method<infer _Request, infer R> ? R : never;
type WireRegionReply = ReplyOf<typeof pdMethods.getRegion>;
type WireRegion = NonNullable<WireRegionReply['region']>;
type WirePeer = WireRegion['peers'][number];
type WireStore = NonNullable<ReplyOf<typeof pdMethods.getStore>['store']>;
type WireError = NonNullable<ReplyOf<typeof tikvMethods.rawGet>['regionError']>;

const ROLES: readonly PeerRole[] = ['voter', 'learner', 'incoming-voter', 'demoting-voter'];
const STORE_STATES: readonly StoreState[] = ['up', 'offline', 'tombstone'];

export const roleToWire = (role: PeerRole): 0 | 1 | 2 | 3 => ROLES.indexOf(role) as 0 | 1 | 2 | 3;

export const peerFromWire = (peer: WirePeer): Peer => ({
  id: peerId(peer.id),
  storeId: storeId(peer.storeId),
  role: ROLES[peer.role] ?? 'voter',
});

export const regionFromWire = (region: WireRegion): Region => ({
  id: regionId(region.id),
  range: { start: copyBytes(region.startKey), end: copyBytes(region.endKey) },
  epoch: { confVer: region.regionEpoch?.confVer ?? 0, version: region.regionEpoch?.version ?? 0 },
  peers: region.peers.map(peerFromWire),
});

/** Undefined when the reply names no region. */
export function routeFromWire(reply: {
  readonly region?: WireRegion | undefined;
  readonly leader?: WirePeer | undefined;
  readonly downPeers: readonly { readonly peer?: WirePeer | undefined }[];
  readonly pendingPeers: readonly WirePeer[];
}): RegionRoute | undefined {
  const { region, leader } = reply;
  if (region === undefined || region.id === 0) {
    return undefined;
  }
  return {
    region: regionFromWire(region),
    leader: leader === undefined || leader.id === 0 ? undefined : peerFromWire(leader),
    downPeers: reply.downPeers.flatMap(({ peer }) => (peer === undefined ? [] : [peerFromWire(peer)])),
    pendingPeers: reply.pendingPeers.map(peerFromWire),
  };
}

export const storeFromWire = (store: WireStore): Store => ({
  id: storeId(store.id),
  address: store.address,
  statusAddress: store.statusAddress,
  state: STORE_STATES[store.state] ?? 'up',
  labels: store.labels.map(({ key, value }) => ({ key, value })),
  version: store.version,
  startTimestamp: store.startTimestamp,
});

export function regionErrorFromWire(error: WireError): RegionError {
  const id = (value: number): ReturnType<typeof regionId> => regionId(value);
  if (error.notLeader !== undefined) {
    const { leader } = error.notLeader;
    return {
      type: 'not-leader',
      regionId: id(error.notLeader.regionId),
      leader: leader === undefined || leader.id === 0 ? undefined : peerFromWire(leader),
    };
  }
  if (error.regionNotFound !== undefined) {
    return { type: 'region-not-found', regionId: id(error.regionNotFound.regionId) };
  }
  if (error.keyNotInRegion !== undefined) {
    const { key, startKey, endKey } = error.keyNotInRegion;
    return {
      type: 'key-not-in-region',
      key: copyBytes(key),
      regionId: id(error.keyNotInRegion.regionId),
      range: { start: copyBytes(startKey), end: copyBytes(endKey) },
    };
  }
  if (error.epochNotMatch !== undefined) {
    return { type: 'epoch-not-match', currentRegions: error.epochNotMatch.currentRegions.map(regionFromWire) };
  }
  if (error.serverIsBusy !== undefined) {
    return { type: 'server-is-busy', reason: error.serverIsBusy.reason, backoffMs: error.serverIsBusy.backoffMs };
  }
  if (error.staleCommand !== undefined) {
    return { type: 'stale-command' };
  }
  if (error.storeNotMatch !== undefined) {
    return {
      type: 'store-not-match',
      requestStoreId: storeId(error.storeNotMatch.requestStoreId),
      actualStoreId: storeId(error.storeNotMatch.actualStoreId),
    };
  }
  if (error.raftEntryTooLarge !== undefined) {
    return {
      type: 'raft-entry-too-large',
      regionId: id(error.raftEntryTooLarge.regionId),
      entrySizeBytes: error.raftEntryTooLarge.entrySize,
    };
  }
  if (error.readIndexNotReady !== undefined) {
    return {
      type: 'read-index-not-ready',
      regionId: id(error.readIndexNotReady.regionId),
      reason: error.readIndexNotReady.reason,
    };
  }
  if (error.proposalInMergingMode !== undefined) {
    return { type: 'proposal-in-merging-mode', regionId: id(error.proposalInMergingMode.regionId) };
  }
  if (error.regionNotInitialized !== undefined) {
    return { type: 'region-not-initialized', regionId: id(error.regionNotInitialized.regionId) };
  }
  if (error.diskFull !== undefined) {
    return { type: 'disk-full', storeIds: error.diskFull.storeId.map(storeId), reason: error.diskFull.reason };
  }
  if (error.RecoveryInProgress !== undefined) {
    return { type: 'recovery-in-progress', regionId: id(error.RecoveryInProgress.regionId) };
  }
  if (error.mismatchPeerId !== undefined) {
    return {
      type: 'mismatch-peer-id',
      requestPeerId: peerId(error.mismatchPeerId.requestPeerId),
      storePeerId: peerId(error.mismatchPeerId.storePeerId),
    };
  }
  if (error.undeterminedResult !== undefined) {
    return { type: 'undetermined-result', message: error.undeterminedResult.message || error.message };
  }
  return { type: 'message', message: error.message };
}
