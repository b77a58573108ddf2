/** errorpb.Error <-> {@link RegionError}. Outward the message text is always filled; some clients read nothing else. */
import { unreachable } from '../base/assert.ts';
import { copyBytes } from '../base/bytes.ts';
import type { Error as WireError } from '../gen/errorpb.ts';
import {
  fromWirePeerOrNone,
  fromWireRegion,
  safeNumber,
  toPeerId,
  toRegionId,
  toStoreId,
  toWirePeer,
  toWireRegion,
} from './meta-wire.ts';
import { type RegionError, formatRegionError } from './region-error.ts';

export function toWireRegionError(error: RegionError): WireError {
  const message = formatRegionError(error);
  switch (error.type) {
    case 'not-leader':
      return {
        message,
        notLeader: {
          regionId: error.regionId,
          leader: error.leader === undefined ? undefined : toWirePeer(error.leader),
        },
      };
    case 'region-not-found':
      return { message, regionNotFound: { regionId: error.regionId } };
    case 'key-not-in-region':
      return {
        message,
        keyNotInRegion: {
          key: error.key,
          regionId: error.regionId,
          startKey: error.range.start,
          endKey: error.range.end,
        },
      };
    case 'epoch-not-match':
      return { message, epochNotMatch: { currentRegions: error.currentRegions.map(toWireRegion) } };
    case 'server-is-busy':
      return {
        message,
        serverIsBusy: { reason: error.reason, backoffMs: error.backoffMs, estimatedWaitMs: 0, appliedIndex: 0 },
      };
    case 'stale-command':
      return { message, staleCommand: {} };
    case 'store-not-match':
      return {
        message,
        storeNotMatch: { requestStoreId: error.requestStoreId, actualStoreId: error.actualStoreId },
      };
    case 'raft-entry-too-large':
      return { message, raftEntryTooLarge: { regionId: error.regionId, entrySize: error.entrySizeBytes } };
    case 'read-index-not-ready':
      return { message, readIndexNotReady: { regionId: error.regionId, reason: error.reason } };
    case 'proposal-in-merging-mode':
      return { message, proposalInMergingMode: { regionId: error.regionId } };
    case 'region-not-initialized':
      return { message, regionNotInitialized: { regionId: error.regionId } };
    case 'disk-full':
      return { message, diskFull: { storeId: [...error.storeIds], reason: error.reason } };
    case 'recovery-in-progress':
      return { message, RecoveryInProgress: { regionId: error.regionId } };
    case 'mismatch-peer-id':
      return { message, mismatchPeerId: { requestPeerId: error.requestPeerId, storePeerId: error.storePeerId } };
    case 'undetermined-result':
      return { message, undeterminedResult: { message: error.message } };
    case 'message':
      return { message };
    default:
      return unreachable(error);
  }
}

/**
 * Errors that only other servers raise (time stamps, flashback, witnesses, buckets) become `message`.
 *
 * @throws BadMessageError for descriptors that make no sense
 */
export function fromWireRegionError(error: WireError): RegionError {
  if (error.notLeader !== undefined) {
    const { regionId, leader } = error.notLeader;
    return { type: 'not-leader', regionId: toRegionId(regionId), leader: fromWirePeerOrNone(leader) };
  }
  if (error.regionNotFound !== undefined) {
    return { type: 'region-not-found', regionId: toRegionId(error.regionNotFound.regionId) };
  }
  if (error.keyNotInRegion !== undefined) {
    const { key, regionId, startKey, endKey } = error.keyNotInRegion;
    return {
      type: 'key-not-in-region',
      key: copyBytes(key),
      regionId: toRegionId(regionId),
      range: { start: copyBytes(startKey), end: copyBytes(endKey) },
    };
  }
  if (error.epochNotMatch !== undefined) {
    return { type: 'epoch-not-match', currentRegions: error.epochNotMatch.currentRegions.map(fromWireRegion) };
  }
  if (error.serverIsBusy !== undefined) {
    const { reason, backoffMs } = error.serverIsBusy;
    return { type: 'server-is-busy', reason, backoffMs: safeNumber(backoffMs, 'backoff_ms') };
  }
  if (error.staleCommand !== undefined) {
    return { type: 'stale-command' };
  }
  if (error.storeNotMatch !== undefined) {
    const { requestStoreId, actualStoreId } = error.storeNotMatch;
    return {
      type: 'store-not-match',
      requestStoreId: toStoreId(requestStoreId),
      actualStoreId: toStoreId(actualStoreId),
    };
  }
  if (error.raftEntryTooLarge !== undefined) {
    const { regionId, entrySize } = error.raftEntryTooLarge;
    return {
      type: 'raft-entry-too-large',
      regionId: toRegionId(regionId),
      entrySizeBytes: safeNumber(entrySize, 'entry_size'),
    };
  }
  if (error.readIndexNotReady !== undefined) {
    const { regionId, reason } = error.readIndexNotReady;
    return { type: 'read-index-not-ready', regionId: toRegionId(regionId), reason };
  }
  if (error.proposalInMergingMode !== undefined) {
    return { type: 'proposal-in-merging-mode', regionId: toRegionId(error.proposalInMergingMode.regionId) };
  }
  if (error.regionNotInitialized !== undefined) {
    return { type: 'region-not-initialized', regionId: toRegionId(error.regionNotInitialized.regionId) };
  }
  if (error.diskFull !== undefined) {
    return { type: 'disk-full', storeIds: error.diskFull.storeId.map(toStoreId), reason: error.diskFull.reason };
  }
  if (error.RecoveryInProgress !== undefined) {
    return { type: 'recovery-in-progress', regionId: toRegionId(error.RecoveryInProgress.regionId) };
  }
  if (error.mismatchPeerId !== undefined) {
    const { requestPeerId, storePeerId } = error.mismatchPeerId;
    return {
      type: 'mismatch-peer-id',
      requestPeerId: toPeerId(requestPeerId),
      storePeerId: toPeerId(storePeerId),
    };
  }
  if (error.undeterminedResult !== undefined) {
    return { type: 'undetermined-result', message: error.undeterminedResult.message };
  }
  return { type: 'message', message: error.message };
}
