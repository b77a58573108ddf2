/**
 * Split: by key on request, in half on request, or because the region grew too large (reference 9, placement 9.2).
 *
 * ```text
 * keys ─► ask PD for ids ─► propose BatchSplit ─► apply writes all descriptors in one batch
 *                                             └─► peer FSM: re-key the range map, create the children's peers, deliver
 *                                                 messages kept for them; the leader's children campaign at once
 * ```
 */
import { compareBytes } from '../../base/bytes.ts';
import { isBeforeEnd } from '../../base/key-range.ts';
import type { AdminRefusal, AdminRequest, SplitIdsResult } from '../msg.ts';
import type { Region } from '../../meta/region.ts';
import type { StepRefusalCode } from '../../meta/step-refusal.ts';
import { checkAdmin, proposeAdmin } from '../peer/propose.ts';
import type { RaftPeer } from '../peer/raft-peer.ts';
import { adminRefused } from '../refusal.ts';
import type { SplitCause } from '../store/counters.ts';

/** Most regions one split may create. */
export const SPLIT_KEYS_MAX = 256;

function checkKeys(peer: RaftPeer, keys: readonly Uint8Array[]): AdminRefusal | undefined {
  const { range } = peer.region;
  if (keys.length === 0 || keys.length > SPLIT_KEYS_MAX) {
    return { code: 'BadSplitKeys', message: `a split needs 1 to ${SPLIT_KEYS_MAX} keys, got ${keys.length}` };
  }
  let previous = range.start;
  for (const key of keys) {
    if (compareBytes(key, previous) <= 0 || !isBeforeEnd(key, range.end)) {
      return {
        code: 'BadSplitKeys',
        message: `split keys must be increasing and strictly inside region ${peer.regionId}`,
      };
    }
    previous = key;
  }
  return undefined;
}

/** Splits at `keys`: asks for ids first. Answers every request exactly once. */
export function startSplit(
  peer: RaftPeer,
  keys: readonly Uint8Array[],
  requests: readonly AdminRequest[],
  cause: SplitCause,
): void {
  const refusal = checkAdmin(peer, 'batch-split');
  if (refusal !== undefined) {
    for (const request of requests) {
      request.respond(refusal);
    }
    return;
  }
  const bad = checkKeys(peer, keys);
  const busy: AdminRefusal | undefined =
    peer.pendingSplit === undefined
      ? undefined
      : { code: 'SplitRunning', message: `region ${peer.regionId} is being split already` };
  const rejected = bad ?? busy;
  if (rejected !== undefined) {
    for (const request of requests) {
      request.respond({ type: 'rejected', refusal: rejected });
    }
    return;
  }
  const attempt = ++peer.splitAttempt;
  peer.pendingSplit = { attempt, keys, epochVersion: peer.region.epoch.version, requests, cause };
  const { ctx, regionId } = peer;
  ctx.pd.askBatchSplit(peer.region, keys.length, cause).then(
    (ids) => ctx.router.toPeer(regionId, { type: 'split-ids', attempt, ids, failure: '' }),
    (error: unknown) =>
      ctx.router.toPeer(regionId, { type: 'split-ids', attempt, ids: undefined, failure: String(error) }),
  );
}

/** PD answered. */
export function onSplitIds(
  peer: RaftPeer,
  attempt: number,
  ids: readonly SplitIdsResult[] | undefined,
  failure: string,
): void {
  const { pendingSplit } = peer;
  if (pendingSplit === undefined || pendingSplit.attempt !== attempt) {
    return;
  }
  peer.pendingSplit = undefined;
  const { keys, requests, cause } = pendingSplit;
  const reject = (code: StepRefusalCode, message: string): void => {
    peer.log.info({ code, message }, 'split not carried out');
    for (const request of requests) {
      request.respond({ type: 'rejected', refusal: { code, message } });
    }
  };
  if (ids === undefined) {
    reject('NoIds', `the placement service gave no ids: ${failure}`);
    return;
  }
  if (ids.length !== keys.length || ids.some((i) => i.newPeerIds.length !== peer.region.peers.length)) {
    reject('BadIds', 'the placement service gave ids for another membership');
    return;
  }
  if (pendingSplit.epochVersion !== peer.region.epoch.version) {
    reject(
      'Overtaken',
      `region ${peer.regionId} went from version ${pendingSplit.epochVersion} to ${peer.region.epoch.version} while ids were asked for`,
    );
    return;
  }
  const refusal = checkAdmin(peer, 'batch-split');
  if (refusal !== undefined) {
    for (const request of requests) {
      request.respond(refusal);
    }
    return;
  }
  const children = keys.map((splitKey, i) => {
    const { newRegionId, newPeerIds } = ids[i] as SplitIdsResult;
    return { splitKey, newRegionId, newPeerIds };
  });
  const proposal = proposeAdmin(peer, { type: 'batch-split', children }, (outcome) => {
    for (const request of requests) {
      switch (outcome.type) {
        case 'admin-applied':
          request.respond({ type: 'ok', regions: outcome.regions });
          break;
        case 'refused':
          request.respond(outcome);
          break;
        default:
          request.respond(adminRefused('Overtaken', `the split of region ${peer.regionId} lost its place in the log`));
      }
    }
  });
  if (proposal.type === 'refused') {
    for (const request of requests) {
      request.respond(proposal);
    }
    return;
  }
  peer.ctx.meta.counters.splits[cause]++;
  peer.log.info({ children: children.length, index: proposal.index, cause }, 'proposed BatchSplit');
}

/** BatchSplit is applied and durable. `regions` are all parts in key order, `derived` the one that kept this id. */
export function onSplitApplied(
  peer: RaftPeer,
  derived: Region,
  regions: readonly Region[],
  skipped: ReadonlySet<number>,
): void {
  const { ctx } = peer;
  const { meta } = ctx;
  meta.redirects.changed(peer.region, peer.regionId, ctx.clock.monoMs());
  meta.removeRange(peer.region);
  peer.region = derived;
  peer.load.reset();
  meta.regions.set(peer.regionId, derived);
  meta.insertRange(derived);
  const share = regions.length;
  peer.approximateSizeBytes = Math.floor(peer.approximateSizeBytes / share);
  peer.approximateKeys = Math.floor(peer.approximateKeys / share);
  peer.writtenSinceCheckBytes = Number.MAX_SAFE_INTEGER;
  peer.pdHeartbeatDue = peer.isLeader;
  for (const region of regions) {
    if (region.id === derived.id || skipped.has(region.id)) {
      continue;
    }
    ctx.router.createSplitPeer(region, {
      campaign: peer.isLeader,
      sizeBytes: peer.approximateSizeBytes,
      keys: peer.approximateKeys,
    });
    if (peer.fence !== undefined) {
      ctx.router.toPeer(region.id, { type: 'inherit-fence', reason: peer.fence.reason });
    }
  }
  peer.log.info({ parts: regions.length, version: derived.epoch.version }, 'split');
  if (peer.isLeader) {
    ctx.pd.reportBatchSplit(regions);
  }
}
