/** Traffic between the members of the placement service: a link to each other member, and the calls they make here. */
import type { Clock } from '../../env/clock.ts';
import type { Logger } from '../../env/log.ts';
import { type Net, RpcError, RpcStatus } from '../../env/net.ts';
import type { Rng } from '../../env/rng.ts';
import { describeMember } from '../../pd/group/errors.ts';
import type { GroupTransport, PdGroup } from '../../pd/group/group-loop.ts';
import { type Member, type Membership, wasRemoved } from '../../pd/group/membership.ts';
import type { Message } from '../../raft/types.ts';
import { unaryCall } from '../../rpc/call.ts';
import { type ServiceBuilder, toRpcError } from '../../rpc/service-builder.ts';
import { groupMethods } from '../../rpc/services.ts';
import { checkMember, type GroupIdentity, groupMetadata, refuseRemoved } from './group-identity.ts';
import { GroupLink } from './group-link.ts';

/** Deadline of sending the whole state to one member. */
const SNAPSHOT_TIMEOUT_MS = 60_000;

export interface GroupTransportOptions {
  readonly env: { readonly net: Net; readonly clock: Clock; readonly rng: Rng; readonly log: Logger };
  readonly identity: () => GroupIdentity;
  readonly onUnreachable: (id: number) => void;
  readonly onRemoved: () => void;
}

export class RpcGroupTransport implements GroupTransport {
  readonly #options: GroupTransportOptions;
  readonly #links = new Map<number, GroupLink>();
  readonly #dirty = new Set<GroupLink>();
  #isClosed = false;

  constructor(options: GroupTransportOptions) {
    this.#options = options;
  }

  send(to: Member, message: Message): void {
    if (this.#isClosed) {
      return;
    }
    let link = this.#links.get(to.id);
    if (link !== undefined && link.address !== to.address) {
      link.close();
      this.#dirty.delete(link);
      link = undefined;
    }
    if (link === undefined) {
      const { env, identity, onUnreachable, onRemoved } = this.#options;
      link = new GroupLink({ env, identity, onUnreachable, onRemoved, to });
      this.#links.set(to.id, link);
    }
    link.send(message);
    this.#dirty.add(link);
  }

  flush(): void {
    for (const link of this.#dirty) {
      link.flush();
    }
    this.#dirty.clear();
    const { membership } = this.#options.identity();
    if (this.#links.size > membership.members.length) {
      this.#closeRemoved(membership);
    }
  }

  #closeRemoved(membership: Membership): void {
    for (const [id, link] of this.#links) {
      if (wasRemoved(membership, id)) {
        link.close();
        this.#links.delete(id);
      }
    }
  }

  sendSnapshot(to: Member, message: Message, done: (ok: boolean) => void): void {
    const { env, identity } = this.#options;
    const channel = env.net.dial(to.address);
    unaryCall(channel, groupMethods.installSnapshot, [message], {
      timeoutMs: SNAPSHOT_TIMEOUT_MS,
      metadata: groupMetadata(identity(), to),
    }).then(
      () => {
        channel.close();
        done(true);
      },
      (cause: unknown) => {
        channel.close();
        env.log.warn(
          { to: describeMember(to), reason: cause instanceof Error ? cause.message : String(cause) },
          'the state could not be sent to another placement member',
        );
        done(false);
      },
    );
  }

  close(): void {
    this.#isClosed = true;
    for (const link of this.#links.values()) {
      link.close();
    }
  }
}

/** Adds the calls of other members. @param options.group undefined while this member has no place in a group */
export function addGroupTraffic(
  builder: ServiceBuilder,
  options: { readonly identity: () => GroupIdentity; readonly group: () => PdGroup | undefined },
): void {
  const { identity } = options;
  const group = (): PdGroup => {
    const running = options.group();
    if (running === undefined) {
      throw new RpcError(RpcStatus.UNAVAILABLE, 'this member is starting');
    }
    return running;
  };
  const take = (from: Member, messages: readonly Message[]): void => {
    refuseRemoved(identity().membership, from);
    for (const message of messages) {
      if (message.from !== from.id) {
        throw new RpcError(RpcStatus.INVALID_ARGUMENT, `member ${from.id} sends a message of member ${message.from}`);
      }
      group().receive(message, from);
    }
  };
  builder.stream(groupMethods.raft, (stream, call) => {
    const orCancel = (step: () => void): void => {
      try {
        step();
      } catch (cause) {
        const error = toRpcError(cause);
        stream.cancel(error.status, error.message);
      }
    };
    orCancel(() => {
      group();
      const from = checkMember(call, identity());
      stream.onMessage = (messages) => orCancel(() => take(from, messages));
    });
    stream.onHalfClose = () => stream.end();
  });
  builder.unary(groupMethods.installSnapshot, (messages, call) => {
    group();
    take(checkMember(call, identity()), messages);
    return {};
  });
}
