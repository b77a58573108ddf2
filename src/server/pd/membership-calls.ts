/** braid.pd.v1.Group/Join and UpdateMember, as the leader answers them. */
import { RpcError, RpcStatus } from '../../env/net.ts';
import type { PdMember } from '../../pd/pd-member.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { groupMethods } from '../../rpc/services.ts';

export function addMembershipCalls(builder: ServiceBuilder, member: () => PdMember | undefined): void {
  const running = (): PdMember => {
    const found = member();
    if (found === undefined) {
      throw new RpcError(RpcStatus.UNAVAILABLE, 'not leader: this member is starting');
    }
    return found;
  };
  builder.unary(groupMethods.join, async ({ name, address }) => {
    const { group, clusterId, node } = running();
    const result = await group.addMember({ name, address });
    if (result.type === 'refused') {
      const { code, message, hint } = result.refusal;
      return { refusal: { code, message, hint }, clusterId: '0', memberId: 0 };
    }
    if (result.value.audit !== undefined) {
      node?.placement.kept(result.value.audit);
    }
    return { refusal: undefined, clusterId: String(clusterId), memberId: result.value.id };
  });
  builder.unary(groupMethods.updateMember, async (request) => {
    const { group, clusterId } = running();
    const { memberId: id, name, address } = request;
    if (BigInt(request.clusterId) !== clusterId || !group.membership.members.some((known) => known.id === id)) {
      throw new RpcError(RpcStatus.FAILED_PRECONDITION, `cluster ${clusterId} has no placement member ${id}`);
    }
    await group.updateMember({ id, name, address });
    return {};
  });
}
