/**
 * What becomes of a request that its region refused because the client's idea of it is out of date (placement 13.5).
 *
 * ```text
 * region here and merging ─────────────────────────► wait for the outcome
 * region here at this version, led elsewhere since ─► forward to its leader (a move)
 * record of (region, version), keys in one region ──► that region: here if this replica leads it, else its leader
 * replica removed ─────────────────────────────────► the leader known last
 * ```
 *
 * Nothing is answered from here: whoever executes the request does so through the region's own Raft group and checks.
 */
import type { RegionId } from '../../base/ids.ts';
import type { KeyRange } from '../../base/key-range.ts';
import type { StoreContext } from '../context.ts';
import type { RequestHeader } from '../msg.ts';
import type { RaftPeer } from '../peer/raft-peer.ts';
import { clampSpan, firstKeyOf, type RedirectDecision, type RequestSpan, spanIsIn } from './redirects.ts';

/**
 * A voter that handed the lead over passes requests on for this long only: after a plain change of leader clients
 * should learn the new one soon. One that is being removed does so until it is gone.
 */
const FORMER_LEADER_MS = 5_000;

/** What the decision looks at of a store and of its replicas. */
export interface RedirectContext {
  readonly clock: Pick<StoreContext['clock'], 'monoMs'>;
  readonly config: Pick<StoreContext['config'], 'proxyThresholdMs'>;
  readonly meta: Pick<StoreContext['meta'], 'redirects' | 'regionOfKey'>;
}
export type RedirectPeer = Readonly<
  Pick<
    RaftPeer,
    | 'isInitialized'
    | 'isActive'
    | 'isLeader'
    | 'region'
    | 'peer'
    | 'pendingMerge'
    | 'lostLeadAtMs'
    | 'fence'
    | 'leaderPeer'
  >
>;

const NONE: RedirectDecision = { type: 'none' };
const WAIT: RedirectDecision = { type: 'wait' };

export function decideRedirect(
  ctx: RedirectContext,
  peerOf: (region: RegionId) => RedirectPeer | undefined,
  header: Pick<RequestHeader, 'regionId' | 'epoch'>,
  span: RequestSpan,
): RedirectDecision {
  const { regionId } = header;
  const { version } = header.epoch;
  const { redirects } = ctx.meta;
  if (ctx.config.proxyThresholdMs === 0) {
    return NONE;
  }
  const nowMs = ctx.clock.monoMs();
  const peer = peerOf(regionId);
  if (peer !== undefined && peer.isInitialized) {
    if (!peer.isActive) {
      return WAIT;
    }
    const current = peer.region.epoch.version;
    if (peer.pendingMerge !== undefined && (version === current || version === current - 1)) {
      return WAIT;
    }
    if (version === current) {
      return atFormerLeader(peer, nowMs, ctx.config.proxyThresholdMs);
    }
  }
  const past = redirects.rangeOf(regionId, version);
  if (past !== undefined && redirects.isFresh(regionId, ctx.config.proxyThresholdMs, nowMs)) {
    return byKey(ctx, peerOf, span, past);
  }
  return atRemoved(ctx, regionId, version, nowMs);
}

function atFormerLeader(peer: RedirectPeer, nowMs: number, thresholdMs: number): RedirectDecision {
  if (peer.isLeader) {
    // Refused for another reason, e.g. the peer id of an earlier replica on this store.
    return { type: 'local', region: peer.region, peer: peer.peer, within: undefined };
  }
  if (peer.lostLeadAtMs === undefined || peer.fence !== undefined) {
    return NONE;
  }
  const { role } = peer.peer;
  const limitMs = role === 'voter' || role === 'incoming-voter' ? Math.min(FORMER_LEADER_MS, thresholdMs) : thresholdMs;
  if (nowMs - peer.lostLeadAtMs > limitMs) {
    return NONE;
  }
  const leader = peer.leaderPeer();
  return leader === undefined ? WAIT : { type: 'forward', region: peer.region, peer: leader, within: undefined };
}

function byKey(
  ctx: RedirectContext,
  peerOf: (region: RegionId) => RedirectPeer | undefined,
  span: RequestSpan,
  past: { readonly range: KeyRange; readonly newRegionId: RegionId },
): RedirectDecision {
  const believed = clampSpan(span, past.range);
  const key = believed === undefined ? undefined : firstKeyOf(believed);
  if (believed === undefined || key === undefined) {
    return NONE;
  }
  const region = ctx.meta.regionOfKey(key);
  if (region === undefined) {
    const removed = ctx.meta.redirects.removalOf(past.newRegionId);
    return removed?.leader !== undefined && spanIsIn(believed, removed.region.range)
      ? { type: 'forward', region: removed.region, peer: removed.leader, within: past.range }
      : NONE;
  }
  if (!spanIsIn(believed, region.range)) {
    return { type: 'split-up' };
  }
  const peer = peerOf(region.id);
  if (peer === undefined || !peer.isActive || peer.pendingMerge !== undefined) {
    return WAIT;
  }
  if (peer.isLeader) {
    return { type: 'local', region, peer: peer.peer, within: past.range };
  }
  const leader = peer.leaderPeer();
  return leader === undefined ? WAIT : { type: 'forward', region, peer: leader, within: past.range };
}

function atRemoved(ctx: RedirectContext, regionId: RegionId, version: number, nowMs: number): RedirectDecision {
  const { redirects } = ctx.meta;
  const removed = redirects.removalOf(regionId);
  return removed?.leader !== undefined &&
    removed.region.epoch.version === version &&
    redirects.isFresh(regionId, ctx.config.proxyThresholdMs, nowMs)
    ? { type: 'forward', region: removed.region, peer: removed.leader, within: undefined }
    : NONE;
}
