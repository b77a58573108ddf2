/**
 * What a store can say about the target of a merge (reference 4.5): go on, wait, or impossible for good. Only a
 * permanent reason may lead to a vote for rolling the merge back.
 */
import { decodeRegionLocalState } from '../../../codec/raft-records.ts';
import { regionStateKey } from '../../../engine/keyspace.ts';
import { findPeerOnStore, isEpochStale, type Region } from '../../../meta/region.ts';
import type { StoreContext } from '../../context.ts';

export type TargetVerdict =
  | { readonly type: 'go'; readonly local: Region }
  | { readonly type: 'wait'; readonly reason: string }
  | { readonly type: 'impossible'; readonly reason: string };

const wait = (reason: string): TargetVerdict => ({ type: 'wait', reason });
const impossible = (reason: string): TargetVerdict => ({ type: 'impossible', reason });

/** @param expected the target as frozen in MergeState. The order of the tests matters: "newer here" wins over "older here". */
export function validateTarget(ctx: StoreContext, expected: Region): TargetVerdict {
  const local = ctx.meta.regions.get(expected.id);
  if (local !== undefined && local.peers.length > 0) {
    if (isEpochStale(expected.epoch, local.epoch)) {
      return impossible(`target region ${expected.id} has changed since`);
    }
    if (isEpochStale(local.epoch, expected.epoch)) {
      return wait(`target region ${expected.id} on this store is behind`);
    }
    return { type: 'go', local };
  }
  const bytes = ctx.engine.getSync(regionStateKey(expected.id));
  if (bytes === undefined) {
    return wait(`target region ${expected.id} is not on this store yet`);
  }
  const record = decodeRegionLocalState(bytes);
  const { region, state } = record;
  if (region.peers.length > 0 && isEpochStale(expected.epoch, region.epoch)) {
    return impossible(`target region ${expected.id} was destroyed here at a later epoch`);
  }
  const expectedPeer = findPeerOnStore(expected, ctx.storeId as Region['peers'][number]['storeId']);
  const recordedPeer = findPeerOnStore(region, ctx.storeId as Region['peers'][number]['storeId']);
  if (expectedPeer === undefined || recordedPeer === undefined) {
    return wait(`target region ${expected.id} has no replica on this store`);
  }
  if (recordedPeer.id === expectedPeer.id) {
    return state === 'tombstone'
      ? impossible(`the replica of target region ${expected.id} on this store was removed`)
      : wait(`target region ${expected.id} is being set up on this store`);
  }
  if (recordedPeer.id > expectedPeer.id) {
    if (region.epoch.version === 0 && region.epoch.confVer === 0) {
      return impossible(`a newer replica of target region ${expected.id} came and went on this store`);
    }
    return ctx.abort(
      `store record of target region ${expected.id} names the newer peer ${recordedPeer.id} with an older epoch`,
    );
  }
  return wait(`target region ${expected.id} has an older replica on this store`);
}
