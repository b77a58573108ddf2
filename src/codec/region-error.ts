/**
 * Why a store did not serve a request of a region, in domain form (the content of errorpb.Error). `error-wire.ts` maps
 * it to and from bytes. Every variant means that the request had no effect, except `undetermined-result`.
 */
import { unreachable } from '../base/assert.ts';
import { escapeKey } from '../base/bytes.ts';
import type { PeerId, RegionId, StoreId } from '../base/ids.ts';
import { type KeyRange, formatRange } from '../base/key-range.ts';
import { type Peer, type Region, formatRegion } from '../meta/region.ts';

export type RegionError =
  /** `leader` is undefined during an election or a transfer. */
  | { readonly type: 'not-leader'; readonly regionId: RegionId; readonly leader: Peer | undefined }
  | { readonly type: 'region-not-found'; readonly regionId: RegionId }
  | {
      readonly type: 'key-not-in-region';
      readonly key: Uint8Array;
      readonly regionId: RegionId;
      readonly range: KeyRange;
    }
  /** Regions that now cover the requested one's old range as far as this store knows, its own first; may be empty. */
  | { readonly type: 'epoch-not-match'; readonly currentRegions: readonly Region[] }
  /** Only for sustained overload: some clients back off for seconds or give up. */
  | { readonly type: 'server-is-busy'; readonly reason: string; readonly backoffMs: number }
  /** The proposal lost its place in the log to a change of leadership. */
  | { readonly type: 'stale-command' }
  | { readonly type: 'store-not-match'; readonly requestStoreId: StoreId; readonly actualStoreId: StoreId }
  | { readonly type: 'raft-entry-too-large'; readonly regionId: RegionId; readonly entrySizeBytes: number }
  | { readonly type: 'read-index-not-ready'; readonly regionId: RegionId; readonly reason: string }
  | { readonly type: 'proposal-in-merging-mode'; readonly regionId: RegionId }
  /** The replica exists but has not received its first snapshot. */
  | { readonly type: 'region-not-initialized'; readonly regionId: RegionId }
  | { readonly type: 'disk-full'; readonly storeIds: readonly StoreId[]; readonly reason: string }
  | { readonly type: 'recovery-in-progress'; readonly regionId: RegionId }
  /** The replica was removed and added again under another id. */
  | { readonly type: 'mismatch-peer-id'; readonly requestPeerId: PeerId; readonly storePeerId: PeerId }
  /** The request may or may not have taken effect. */
  | { readonly type: 'undetermined-result'; readonly message: string }
  /** Anything without a field of its own, e.g. while a snapshot is applied; the text says what. */
  | { readonly type: 'message'; readonly message: string };

export type RegionErrorType = RegionError['type'];

/** Readable text for `errorpb.Error.message`, logs and users. */
export function formatRegionError(error: RegionError): string {
  switch (error.type) {
    case 'not-leader':
      return error.leader === undefined
        ? `peer is not leader of region ${error.regionId}, leader may be unknown`
        : `peer is not leader of region ${error.regionId}, leader is peer ${error.leader.id} on store ${error.leader.storeId}`;
    case 'region-not-found':
      return `region ${error.regionId} is not found on this store`;
    case 'key-not-in-region':
      return `key ${escapeKey(error.key)} is not in region ${error.regionId} ${formatRange(error.range)}`;
    case 'epoch-not-match':
      return error.currentRegions.length === 0
        ? 'the epoch of the region has changed'
        : `the epoch of the region has changed, current: ${error.currentRegions.map(formatRegion).join(' ')}`;
    case 'server-is-busy':
      return `server is busy: ${error.reason}`;
    case 'stale-command':
      return 'the command was overtaken by a change of leadership';
    case 'store-not-match':
      return `the request is for store ${error.requestStoreId}, this is store ${error.actualStoreId}`;
    case 'raft-entry-too-large':
      return `the write of ${error.entrySizeBytes} bytes to region ${error.regionId} is larger than one raft entry may be`;
    case 'read-index-not-ready':
      return `region ${error.regionId} cannot serve reads now: ${error.reason}`;
    case 'proposal-in-merging-mode':
      return `region ${error.regionId} is being merged and takes no writes now`;
    case 'region-not-initialized':
      return `the replica of region ${error.regionId} is not initialized yet`;
    case 'disk-full':
      return `disk is full on store ${error.storeIds.join(', ')}: ${error.reason}`;
    case 'recovery-in-progress':
      return `region ${error.regionId} is being recovered`;
    case 'mismatch-peer-id':
      return `the request is for peer ${error.requestPeerId}, this store has peer ${error.storePeerId}`;
    case 'undetermined-result':
    case 'message':
      return error.message;
    default:
      return unreachable(error);
  }
}
