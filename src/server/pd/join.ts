/**
 * How a member with an empty directory finds its place: it founds a cluster, or is admitted to one. Of several members
 * that start together with the same list the first one founds; it does so only when a majority of the list says that it
 * belongs to no cluster, so that a founder that lost its data cannot found a second one beside the members it left.
 */
import { AppError } from '../../base/app-error.ts';
import { PdClient } from '../../client/pd-client.ts';
import { type Clock, sleep } from '../../env/clock.ts';
import type { Logger } from '../../env/log.ts';
import type { Net } from '../../env/net.ts';
import type { Rng } from '../../env/rng.ts';
import type { GroupIdent } from '../../pd/group/group-record.ts';
import type { Member } from '../../pd/group/membership.ts';
import type { RefusalCode } from '../../pd/schedule/verdict.ts';
import { unaryCall } from '../../rpc/call.ts';
import { groupMethods, pdMethods } from '../../rpc/services.ts';
import type { NamedAddress } from './config.ts';

export interface JoinEnv {
  readonly net: Net;
  readonly clock: Clock;
  readonly rng: Rng;
  readonly log: Logger;
}

/** The member was not admitted, or nobody could be asked. */
export class JoinError extends AppError {
  constructor(code: string, message: string, hint: string, cause?: unknown) {
    super(code, message, { hint, cause });
  }
}

/** Deadline of one question to another member, and the pause before everybody is asked again. */
const PROBE_TIMEOUT_MS = 1_000;
const PROBE_PAUSE_MS = 250;
/** The refusal that passes by itself: members join one at a time. */
const MEMBERSHIP_CHANGING: RefusalCode = 'MembershipChanging';

export type Placing = { readonly type: 'found' } | { readonly type: 'join'; readonly endpoints: readonly string[] };

/**
 * What the first of a list of initial members does with its empty directory.
 * @throws JoinError when too few of the others answer in time
 */
export async function chooseFounding(
  env: JoinEnv,
  others: readonly NamedAddress[],
  timeoutMs: number,
): Promise<Placing> {
  const deadlineMs = env.clock.monoMs() + timeoutMs;
  const needed = Math.floor((others.length + 1) / 2);
  for (;;) {
    const answers = await Promise.all(others.map((other) => clusterOf(env, other.address)));
    const endpoints = others.filter((_, i) => (answers[i] ?? 0n) > 0n).map(({ address }) => address);
    if (endpoints.length > 0) {
      return { type: 'join', endpoints };
    }
    if (answers.filter((answer) => answer === 0n).length >= needed) {
      return { type: 'found' };
    }
    if (env.clock.monoMs() + PROBE_PAUSE_MS >= deadlineMs) {
      const silent = others
        .filter((_, i) => answers[i] === undefined)
        .map(({ name, address }) => `${name} at ${address}`);
      throw new JoinError(
        'MembersSilent',
        `a new cluster is founded only when a majority of its members answers; silent: ${silent.join(', ')}`,
        'start the other members of --initial-cluster as well',
      );
    }
    await sleep(env.clock, PROBE_PAUSE_MS, 'pd-founding');
  }
}

/** 0 for a member without a cluster, undefined if nobody answers. */
async function clusterOf(env: JoinEnv, address: string): Promise<bigint | undefined> {
  const channel = env.net.dial(address);
  try {
    const reply = await unaryCall(
      channel,
      pdMethods.getMembers,
      { header: undefined },
      { timeoutMs: PROBE_TIMEOUT_MS },
    );
    return BigInt(reply.header?.clusterId ?? 0);
  } catch {
    return undefined;
  } finally {
    channel.close();
  }
}

/** Asks the leader behind `endpoints` for a place. @throws JoinError */
export async function askToJoin(
  env: JoinEnv,
  options: { readonly endpoints: readonly string[]; readonly self: NamedAddress; readonly timeoutMs: number },
): Promise<GroupIdent> {
  const { endpoints, self, timeoutMs } = options;
  const deadlineMs = env.clock.monoMs() + timeoutMs;
  const client = new PdClient({ env, endpoints, name: 'braid-pd' });
  try {
    for (;;) {
      const leftMs = Math.max(1, deadlineMs - env.clock.monoMs());
      const { refusal, memberId, clusterId } = await client.call(groupMethods.join, self, { timeoutMs: leftMs });
      if (refusal === undefined) {
        return { memberId, name: self.name, clusterId: BigInt(clusterId) };
      }
      const { code, message, hint } = refusal;
      if (code !== MEMBERSHIP_CHANGING || env.clock.monoMs() + PROBE_PAUSE_MS >= deadlineMs) {
        throw new JoinError(code, message, hint);
      }
      await sleep(env.clock, PROBE_PAUSE_MS, 'pd-join');
    }
  } catch (cause) {
    if (cause instanceof JoinError || !(cause instanceof AppError)) {
      throw cause;
    }
    throw new JoinError(
      'JoinFailed',
      `no cluster was joined through ${endpoints.join(', ')}: ${cause.message}`,
      'check that the members named with --join or --initial-cluster run and have a leader',
      cause,
    );
  } finally {
    client.close();
  }
}

/** Tells the leader this member's new name or address. @throws AppError */
export async function announceMember(
  env: JoinEnv,
  options: {
    readonly endpoints: readonly string[];
    readonly clusterId: bigint;
    readonly self: Member;
    readonly timeoutMs: number;
  },
): Promise<void> {
  const { endpoints, clusterId, self, timeoutMs } = options;
  const client = new PdClient({ env, endpoints, name: 'braid-pd' });
  try {
    await client.call(
      groupMethods.updateMember,
      { clusterId: String(clusterId), memberId: self.id, name: self.name, address: self.address },
      { timeoutMs },
    );
  } finally {
    client.close();
  }
}
