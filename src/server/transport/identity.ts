/** How stores introduce themselves to each other: metadata of every store-to-store call. */
import { RpcError, RpcStatus, type ServerCall } from '../../env/net.ts';
import type { StoreIdentity } from '../service/request-context.ts';

const CLUSTER_ID = 'braid-cluster-id';
const FROM_STORE = 'braid-from-store';
const TO_STORE = 'braid-to-store';
/** In PutStore: how often the store has started, this time included. */
export const STORE_STARTS = 'braid-store-starts';

export const callMetadata = (self: StoreIdentity, toStore: number): Readonly<Record<string, string>> => ({
  [CLUSTER_ID]: self.clusterId,
  [FROM_STORE]: String(self.storeId),
  [TO_STORE]: String(toStore),
});

/** The start counter of a PutStore; undefined if the caller sends none, as stores of other programs. */
export const startsOf = (text: string | undefined): number | undefined =>
  text !== undefined && /^[1-9]\d{0,14}$/.test(text) ? Number(text) : undefined;

/**
 * The id of the calling store. An address may have been given to another store since the caller looked it up, and a
 * message for somebody else must never be stepped.
 * @throws RpcError FAILED_PRECONDITION
 */
export function checkCaller(call: ServerCall, self: StoreIdentity): number {
  const { [CLUSTER_ID]: cluster, [FROM_STORE]: from, [TO_STORE]: to } = call.metadata;
  if (cluster !== self.clusterId || to !== String(self.storeId)) {
    throw new RpcError(
      RpcStatus.FAILED_PRECONDITION,
      `this is store ${self.storeId} of cluster ${self.clusterId}, not store ${to ?? '?'} of cluster ${cluster ?? '?'}`,
    );
  }
  const store = Number(from);
  if (!Number.isSafeInteger(store) || store <= 0) {
    throw new RpcError(RpcStatus.FAILED_PRECONDITION, 'the calling store does not say which one it is');
  }
  return store;
}
