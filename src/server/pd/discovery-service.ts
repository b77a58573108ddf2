/** What every member of the placement service answers, in any state: who is who, and whether it is alive. */
import { HealthCheckResponse_ServingStatus as Status } from '../../gen/grpc/health/v1/health.ts';
import { type Member as WireMember, ServiceMode } from '../../gen/pdpb.ts';
import type { Member } from '../../pd/group/membership.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { healthMethods, pdMethods } from '../../rpc/services.ts';
import type { Scheme } from './config.ts';

/** What is known at this moment. */
export interface MembersView {
  /** 0 on a member that has not joined its cluster yet. */
  readonly clusterId: bigint;
  readonly members: readonly Member[];
  readonly leader: Member | undefined;
}

export const urlOf = (member: Member, scheme: Scheme): string => `${scheme}://${member.address}`;

/** Clients need URLs with a scheme: old ones dial exactly their host part. */
const memberToWire = (member: Member, scheme: Scheme): WireMember => ({
  name: member.name,
  memberId: String(member.id),
  peerUrls: [urlOf(member, scheme)],
  clientUrls: [urlOf(member, scheme)],
  leaderPriority: 0,
  deployPath: '',
  binaryVersion: '',
  gitHash: '',
});

export function addDiscovery(
  builder: ServiceBuilder,
  options: { readonly view: () => MembersView; readonly isClosing: () => boolean; readonly scheme: Scheme },
): void {
  const { view, isClosing, scheme } = options;
  builder
    .unary(pdMethods.getMembers, () => {
      const { clusterId, members, leader } = view();
      const wireLeader = leader === undefined ? undefined : memberToWire(leader, scheme);
      return {
        header: { clusterId: String(clusterId), error: undefined },
        members: members.map((member) => memberToWire(member, scheme)),
        leader: wireLeader,
        etcdLeader: wireLeader,
      };
    })
    .unary(pdMethods.getClusterInfo, () => ({
      header: { clusterId: String(view().clusterId), error: undefined },
      serviceModes: [ServiceMode.PD_SVC_MODE],
      tsoUrls: [],
    }));
  const status = (): { status: Status } => ({ status: isClosing() ? Status.NOT_SERVING : Status.SERVING });
  builder.unary(healthMethods.check, () => status());
  builder.stream(healthMethods.watch, (stream) => {
    // The status changes only when the process stops, which ends the stream.
    stream.onMessage = () => {
      stream.send(status());
    };
  });
}
