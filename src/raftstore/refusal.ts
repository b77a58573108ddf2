/** Builders of the refusals a store gives to clients; one place so that every refusal carries what its remedy needs. */
import type { PeerId, RegionId } from '../base/ids.ts';
import type { RegionError } from '../codec/region-error.ts';
import type { Peer, Region } from '../meta/region.ts';
import type { RaftPeer } from './peer/raft-peer.ts';

export const notLeader = (region: RegionId, leader: Peer | undefined): RegionError => ({
  type: 'not-leader',
  regionId: region,
  leader,
});

export const regionNotFound = (region: RegionId): RegionError => ({ type: 'region-not-found', regionId: region });

export const regionNotInitialized = (region: RegionId): RegionError => ({
  type: 'region-not-initialized',
  regionId: region,
});

export const mismatchPeerId = (requestPeerId: PeerId, storePeerId: PeerId): RegionError => ({
  type: 'mismatch-peer-id',
  requestPeerId,
  storePeerId,
});

/** Own region first; an empty list tells the client to ask the placement service. */
export const epochNotMatch = (currentRegions: readonly Region[]): RegionError => ({
  type: 'epoch-not-match',
  currentRegions,
});

export const keyNotInRegion = (key: Uint8Array, region: Region): RegionError => ({
  type: 'key-not-in-region',
  key,
  regionId: region.id,
  range: region.range,
});

export const staleCommand = (): RegionError => ({ type: 'stale-command' });

export const serverIsBusy = (reason: string): RegionError => ({ type: 'server-is-busy', reason, backoffMs: 0 });

export const mergingMode = (region: RegionId): RegionError => ({ type: 'proposal-in-merging-mode', regionId: region });

export const readIndexNotReady = (region: RegionId, reason: string): RegionError => ({
  type: 'read-index-not-ready',
  regionId: region,
  reason,
});

export const entryTooLarge = (region: RegionId, sizeBytes: number): RegionError => ({
  type: 'raft-entry-too-large',
  regionId: region,
  entrySizeBytes: sizeBytes,
});

export const undetermined = (message: string): RegionError => ({ type: 'undetermined-result', message });

export const messageOnly = (message: string): RegionError => ({ type: 'message', message });

/** Epoch mismatch of a peer: its own region first, then the live regions of this store that overlap nothing of it but touch it. */
export function epochNotMatchOf(peer: RaftPeer): RegionError {
  const { region, ctx } = peer;
  const regions: Region[] = [region];
  if (peer.isInitialized) {
    const left = region.range.start.length === 0 ? undefined : ctx.meta.regionEndingAt(region.range.start);
    const right = region.range.end.length === 0 ? undefined : ctx.meta.regionOfKey(region.range.end);
    for (const neighbour of [left, right]) {
      if (neighbour !== undefined && neighbour.id !== region.id) {
        regions.push(neighbour);
      }
    }
  }
  return epochNotMatch(regions);
}
