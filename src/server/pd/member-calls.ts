/** braid.admin.v1.Admin: the members of the placement service itself. */
import type { ChangeMemberResponse, Member as WireMember, RequestHeader } from '../../gen/braid/admin/v1/admin.ts';
import type { Author } from '../../pd/cluster/events.ts';
import type { Problem } from '../../pd/cluster/statistics.ts';
import type { GroupStatus, MemberStatus } from '../../pd/group/group-loop.ts';
import type { MemberChangeOptions } from '../../pd/group/membership-change.ts';
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

const optionsOf = ({
  header,
  expectVersion,
}: {
  readonly header?: RequestHeader | undefined;
  readonly expectVersion?: number | undefined;
}): MemberChangeOptions & { readonly author: Author } => ({
  author: {
    actor: header === undefined || header.actor === '' ? 'an administrator' : header.actor,
    reason: header?.reason ?? '',
  },
  ...(expectVersion === undefined ? {} : { expectVersion }),
});

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
      return {
        members: members.map((member) => memberToWire(member, scheme)),
        term,
        version: group.membership.version,
      };
    })
    .unary(adminMethods.removeMember, async (request, call) => {
      context.check(request.header, call);
      const result = await group.removeMember(request.member, request.dryRun, optionsOf(request));
      if (result.type === 'ok' && result.value.audit !== undefined) {
        node.placement.kept(result.value.audit);
      }
      return reply(result);
    })
    .unary(adminMethods.transferMemberLeader, async (request, call) => {
      context.check(request.header, call);
      const options = optionsOf(request);
      const planned = group.planTransfer(request.member === '' ? undefined : request.member, options);
      if (planned.type === 'refused' || planned.value.id === group.id) {
        return reply(planned);
      }
      // Kept first: a member that hands the lead over cannot write any more.
      const message = `the lead of the placement service is to go to ${planned.value.name}`;
      await node.auditor.change(undefined, [{ type: 'member-leader', message, ...options.author }]);
      return reply(group.transferLeader(planned.value.name, options));
    });
}
