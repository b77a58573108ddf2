/** Builders of the refusals a store gives to clients; one place so that every refusal carries what its remedy needs. */
import type { PeerId, RegionId } from '../base/ids.ts';
import type { RegionError } from '../codec/region-error.ts';
import { formatEpoch, type Peer, type Region } from '../meta/region.ts';
import type { StepRefusalCode } from '../meta/step-refusal.ts';
import type { AdminOutcome, AdminRefusal } from './msg.ts';
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

export type AdminObstacle = Extract<AdminOutcome, { type: 'refused' }>;

/** An obstacle to an admin command: clients see `error`, operators the named reason. */
export const adminRefused = (
  code: StepRefusalCode,
  message: string,
  error: RegionError = messageOnly(message),
): AdminObstacle => ({ type: 'refused', error, refusal: { code, message } });

/** The named reason of any outcome but success. */
export function refusalOf(outcome: Exclude<AdminOutcome, { type: 'ok' }>): AdminRefusal {
  return outcome.type === 'rejected' ? outcome.refusal : (outcome.refusal ?? refusalOfError(outcome.error));
}

function refusalOfError(error: RegionError): AdminRefusal {
  switch (error.type) {
    case 'not-leader':
      return {
        code: 'NotLeader',
        message:
          error.leader === undefined
            ? `region ${error.regionId} has no leader here`
            : `region ${error.regionId} is led by peer ${error.leader.id} on store ${error.leader.storeId}`,
      };
    case 'region-not-found':
      return { code: 'RegionNotFound', message: `region ${error.regionId} is not on this store` };
    case 'region-not-initialized':
      return { code: 'NotInitialized', message: `the replica of region ${error.regionId} has no data yet` };
    case 'epoch-not-match': {
      const [region] = error.currentRegions;
      return {
        code: 'EpochNotMatch',
        message:
          region === undefined
            ? 'the region changed after the step was planned'
            : `region ${region.id} is at epoch ${formatEpoch(region.epoch)} now`,
      };
    }
    case 'proposal-in-merging-mode':
      return { code: 'Merging', message: `region ${error.regionId} is being merged` };
    case 'raft-entry-too-large':
      return {
        code: 'EntryTooLarge',
        message: `the command for region ${error.regionId} takes ${error.entrySizeBytes} bytes`,
      };
    case 'stale-command':
      return { code: 'Overtaken', message: 'the command lost its place in the log' };
    case 'message':
      return { code: 'Refused', message: error.message };
    default:
      return { code: 'Refused', message: error.type };
  }
}

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
