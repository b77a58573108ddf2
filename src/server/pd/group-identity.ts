/** How members of the placement service introduce themselves to each other: metadata of their calls. */
import { RpcError, RpcStatus, type ServerCall } from '../../env/net.ts';
import { type Member, type Membership, wasRemoved } from '../../pd/group/membership.ts';

const CLUSTER_ID = 'braid-cluster-id';
const FROM_ID = 'braid-from-member';
const FROM_NAME = 'braid-from-name';
const FROM_ADDRESS = 'braid-from-address';
const TO_ID = 'braid-to-member';

/** Who a member is at this moment. */
export interface GroupIdentity {
  /** 0 before the cluster has one. */
  readonly clusterId: bigint;
  readonly self: Member;
  readonly membership: Membership;
}

/** Words in the refusal of a member that was removed, by which it recognizes that. */
export const REMOVED_WORDS = 'was removed from the cluster';

export const groupMetadata = (identity: GroupIdentity, to: Member): Readonly<Record<string, string>> => ({
  [CLUSTER_ID]: String(identity.clusterId),
  [FROM_ID]: String(identity.self.id),
  [FROM_NAME]: identity.self.name,
  [FROM_ADDRESS]: identity.self.address,
  [TO_ID]: String(to.id),
});

/**
 * The calling member. An address may have been given to another member, or another cluster, since the caller learned
 * it, and a message for somebody else must never be stepped.
 * @throws RpcError FAILED_PRECONDITION
 */
export function checkMember(call: ServerCall, identity: GroupIdentity): Member {
  const { metadata } = call;
  const { clusterId, self, membership } = identity;
  if (clusterId === 0n || metadata[CLUSTER_ID] !== String(clusterId) || metadata[TO_ID] !== String(self.id)) {
    throw new RpcError(
      RpcStatus.FAILED_PRECONDITION,
      `this is member ${self.id} of cluster ${clusterId}, not member ${metadata[TO_ID] ?? '?'} of cluster ${metadata[CLUSTER_ID] ?? '?'}`,
    );
  }
  const from: Member = {
    id: Number(metadata[FROM_ID]),
    name: metadata[FROM_NAME] ?? '',
    address: metadata[FROM_ADDRESS] ?? '',
  };
  if (!Number.isSafeInteger(from.id) || from.id <= 0 || from.address === '') {
    throw new RpcError(RpcStatus.FAILED_PRECONDITION, 'the calling member does not say which one it is');
  }
  refuseRemoved(membership, from);
  return from;
}

/** @throws RpcError FAILED_PRECONDITION */
export function refuseRemoved(membership: Membership, from: Member): void {
  if (wasRemoved(membership, from.id)) {
    throw new RpcError(RpcStatus.FAILED_PRECONDITION, `member ${from.id} (${from.name}) ${REMOVED_WORDS}`);
  }
}
