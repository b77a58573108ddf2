/** braid.admin.v1.Admin: the members of the placement service itself. */
import type { ChangeMemberResponse, Member as WireMember } from '../../gen/braid/admin/v1/admin.ts';
import type { Problem } from '../../pd/cluster/statistics.ts';
import type { GroupStatus, MemberStatus } from '../../pd/group/group-loop.ts';
import type { Member } from '../../pd/group/membership.ts';
import type { Result } from '../../pd/schedule/verdict.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { adminMethods } from '../../rpc/services.ts';
import { refusalToWire } from './admin-wire.ts';
import type { Scheme } from './config.ts';
import type { ServiceContext } from './context.ts';
import { urlOf } from './discovery-service.ts';

export const memberToWire = (member: MemberStatus, scheme: Scheme): WireMember => ({
  name: member.name,
  id: member.id,
  clientUrls: [urlOf(member, scheme)],
  isLeader: member.isLeader,
  isVoter: member.isVoter,
  isAnswering: member.isAnswering ?? false,
  lag: member.lag ?? 0,
});

/** Members that do not answer: one more, and the service may stop. */
export const memberProblems = (status: GroupStatus): Problem[] =>
  status.members
    .filter((member) => member.isAnswering === false)
    .map(({ name, address }) => ({
      code: 'MemberSilent',
      message: `the placement member ${name} at ${address} does not answer`,
      hint: `start it again, or replace it: braid ctl pd member remove ${name}`,
    }));

/** Every change is written to the event list, with who asked for it. */
export function addMemberCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node, scheme } = context;
  const { group } = context.member;
  const reply = (result: Result<Member>): ChangeMemberResponse => {
    if (result.type === 'refused') {
      return { refusal: refusalToWire(result.refusal), member: undefined };
    }
    const { id, name, address } = result.value;
    const known = group.status().members.find((member) => member.id === id);
    const member = known ?? { id, name, address, isLeader: false, isVoter: false, isAnswering: false, lag: 0 };
    return { refusal: undefined, member: memberToWire(member, scheme) };
  };
  builder
    .unary(adminMethods.listMembers, (request, call) => {
      context.check(request.header, call);
      const { members, term } = group.status();
      return { members: members.map((member) => memberToWire(member, scheme)), term };
    })
    .unary(adminMethods.removeMember, async (request, call) => {
      context.check(request.header, call);
      const result = await group.removeMember(request.member, request.dryRun);
      if (result.type === 'ok' && !request.dryRun) {
        node.placement.event({
          type: 'member-removed',
          message: `the placement member ${result.value.name} was removed`,
          actor: request.header?.actor ?? '',
          reason: request.header?.reason ?? '',
        });
      }
      return reply(result);
    })
    .unary(adminMethods.transferMemberLeader, (request, call) => {
      context.check(request.header, call);
      return reply(group.transferLeader(request.member === '' ? undefined : request.member));
    });
}
