/** The nouns of a cluster: Region, Peer, Store, RegionEpoch. Values are immutable; replace them, never change them. */
import { equalBytes, escapeKey } from '../base/bytes.ts';
import { isLeftNeighbour, type KeyRange } from '../base/key-range.ts';
import type { PeerId, RegionId, StoreId } from '../base/ids.ts';

/** Membership counter and range counter of a region. A fresh region has `{confVer: 1, version: 1}`. */
export interface RegionEpoch {
  readonly confVer: number;
  readonly version: number;
}

/** `incoming-voter` and `demoting-voter` exist only inside a joint configuration. */
export type PeerRole = 'voter' | 'learner' | 'incoming-voter' | 'demoting-voter';

/** A replica. Ids are unique in the cluster and only grow: a re-added replica always has a larger id. */
export interface Peer {
  readonly id: PeerId;
  readonly storeId: StoreId;
  readonly role: PeerRole;
}

/** A key range and its replicas. A region with no peers is an uninitialized one that only knows its id. */
export interface Region {
  readonly id: RegionId;
  readonly range: KeyRange;
  readonly epoch: RegionEpoch;
  readonly peers: readonly Peer[];
}

export type StoreState = 'up' | 'offline' | 'tombstone';

export interface StoreLabel {
  readonly key: string;
  readonly value: string;
}

/** A store process as the placement service knows it. */
export interface Store {
  readonly id: StoreId;
  /** `host:port` of the client and peer service, without a scheme. */
  readonly address: string;
  /** `host:port` of the status HTTP service; empty if there is none. */
  readonly statusAddress: string;
  readonly state: StoreState;
  readonly labels: readonly StoreLabel[];
  readonly version: string;
  /** Start time of the process, Unix seconds. */
  readonly startTimestamp: number;
}

export const INITIAL_EPOCH: RegionEpoch = Object.freeze({ confVer: 1, version: 1 });

export const epochsEqual = (a: RegionEpoch, b: RegionEpoch): boolean =>
  a.confVer === b.confVer && a.version === b.version;

/** Whether `a` is behind `b` in either counter. Not a total order: both directions can hold at once. */
export const isEpochStale = (a: RegionEpoch, b: RegionEpoch): boolean => a.version < b.version || a.confVer < b.confVer;

export const findPeer = (region: Region, peer: PeerId): Peer | undefined => region.peers.find((p) => p.id === peer);

export const findPeerOnStore = (region: Region, store: StoreId): Peer | undefined =>
  region.peers.find((p) => p.storeId === store);

/**
 * The descriptor a tombstone keeps: the last one known, with the dead replica itself in it, so that no later message can
 * bring the same replica back, whatever epoch it carries.
 */
export const buriedRegion = (region: Region, dead: Peer): Region =>
  findPeer(region, dead.id) === undefined ? { ...region, peers: [...region.peers, dead] } : region;

export const isVoterRole = (role: PeerRole): boolean => role !== 'learner';

/** Whether the region is between two memberships (joint consensus). */
export const isInJointState = (region: Region): boolean =>
  region.peers.some((p) => p.role === 'incoming-voter' || p.role === 'demoting-voter');

/** Whether the regions share exactly one border and differ in id. */
export const areSiblings = (a: Region, b: Region): boolean =>
  a.id !== b.id && (isLeftNeighbour(a.range, b.range) || isLeftNeighbour(b.range, a.range));

/** Deep equality of descriptors. */
export function regionsEqual(a: Region, b: Region): boolean {
  return (
    a.id === b.id &&
    equalBytes(a.range.start, b.range.start) &&
    equalBytes(a.range.end, b.range.end) &&
    epochsEqual(a.epoch, b.epoch) &&
    a.peers.length === b.peers.length &&
    a.peers.every((peer, i) => {
      const other = b.peers[i] as Peer;
      return peer.id === other.id && peer.storeId === other.storeId && peer.role === other.role;
    })
  );
}

export const formatEpoch = (epoch: RegionEpoch): string => `${epoch.confVer}:${epoch.version}`;

/** One-line text for logs: `r7[a,e)@2:5{11@1,12@2,13@3L}`. */
export function formatRegion(region: Region): string {
  const mark: Record<PeerRole, string> = { voter: '', learner: 'L', 'incoming-voter': '+', 'demoting-voter': '-' };
  const peers = region.peers.map((p) => `${p.id}@${p.storeId}${mark[p.role]}`).join(',');
  const end = region.range.end.length === 0 ? '+inf' : escapeKey(region.range.end);
  return `r${region.id}[${escapeKey(region.range.start)},${end})@${formatEpoch(region.epoch)}{${peers}}`;
}
