/** Reads the routing part of a request and refuses what is not for this store, in TiKV's order of checks (wire 7.1). */
import { peerId, regionId, storeId } from '../../base/ids.ts';
import type { RegionError } from '../../codec/region-error.ts';
import type { Context } from '../../gen/kvrpcpb.ts';
import type { RequestHeader } from '../../raftstore/msg.ts';

/** Requests without a limit of their own must start within this time. */
export const REQUEST_START_MS_MAX = 60_000;

export interface StoreIdentity {
  /** Decimal text, as it is on the wire. */
  readonly clusterId: string;
  readonly storeId: number;
}

const NO_EPOCH = Object.freeze({ confVer: 0, version: 0 });

/** Undefined if the request is for this store. Region, peer, leadership, term and epoch are checked by the region itself. */
export function refuseContext(context: Context | undefined, self: StoreIdentity): RegionError | undefined {
  const clusterId = context?.clusterId ?? '0';
  if (clusterId !== '0' && clusterId !== self.clusterId) {
    return { type: 'message', message: `the request is for cluster ${clusterId}, this is cluster ${self.clusterId}` };
  }
  const requested = context?.peer?.storeId ?? 0;
  return requested === self.storeId
    ? undefined
    : { type: 'store-not-match', requestStoreId: storeId(requested), actualStoreId: storeId(self.storeId) };
}

/**
 * @param nowMs monotonic time of the request's arrival
 * @param callTimeoutMs time left until the caller's own deadline, if it has one
 */
export function headerOf(context: Context, nowMs: number, callTimeoutMs: number | undefined): RequestHeader {
  const own = context.maxExecutionDurationMs;
  const limitMs = own > 0 && own < REQUEST_START_MS_MAX ? own : REQUEST_START_MS_MAX;
  return {
    regionId: regionId(context.regionId),
    epoch: context.regionEpoch ?? NO_EPOCH,
    peerId: peerId(context.peer?.id ?? 0),
    term: context.term,
    deadlineMonoMs: nowMs + (callTimeoutMs !== undefined && callTimeoutMs < limitMs ? callTimeoutMs : limitMs),
  };
}

/** TiKV's numbers of modes; clients of mode V1TTL announce themselves as V1. */
const API_VERSION_V1TTL = 1;

/** What is wrong with the mode or column family of a request. */
export function refuseMode(context: Context | undefined, cf: string): string | undefined {
  if (context !== undefined && context.apiVersion > API_VERSION_V1TTL) {
    return 'Api version in request does not match with TiKV storage: this store serves API V1 only';
  }
  // TiKV's other two families hold data of transactions, which this store does not have.
  return cf === '' || cf === 'default' ? undefined : `invalid cf name: ${cf}`;
}
