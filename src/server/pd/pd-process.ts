/** A placement service process: opens the data directory, takes its place in the group, serves calls, stops in order. */
import { AppError } from '../../base/app-error.ts';
import type { TimerId } from '../../env/clock.ts';
import type { Engine } from '../../env/engine.ts';
import type { Env } from '../../env/env.ts';
import type { Logger } from '../../env/log.ts';
import type { Listener } from '../../env/net.ts';
import type { DiskContent } from '../../pd/group/group-disk.ts';
import { foundGroup, joinGroup, renameMember } from '../../pd/group/group-disk.ts';
import type { GroupIdent } from '../../pd/group/group-record.ts';
import { EMPTY_MEMBERSHIP } from '../../pd/group/membership.ts';
import { MemberRemovedError, openDirectory, PdMember } from '../../pd/pd-member.ts';
import type { PdNode } from '../../pd/pd-node.ts';
import { ServiceBuilder } from '../../rpc/service-builder.ts';
import { addProcessService, type ProcessFacts } from '../process-service.ts';
import { addAdminService } from './admin-service.ts';
import { type PdConfig, type PdConfigInput, PdConfigError, parseInitialCluster, pdConfig } from './config.ts';
import { ServiceContext } from './context.ts';
import { addDocumentCalls } from './document-calls.ts';
import { addRuleCalls } from './rule-calls.ts';
import { addSchedulerCalls } from './scheduler-calls.ts';
import { addDiscovery, type MembersView } from './discovery-service.ts';
import { Front } from './front.ts';
import type { GroupIdentity } from './group-identity.ts';
import { addGroupTraffic, RpcGroupTransport } from './group-transport.ts';
import { addHeartbeatStreams } from './heartbeat-stream.ts';
import { announceMember, askToJoin, chooseFounding, type Placing } from './join.ts';
import { addMemberCalls } from './member-calls.ts';
import { addMembershipCalls } from './membership-calls.ts';
import { addMetaStorageService } from './meta-storage-service.ts';
import { addPdService } from './pd-service.ts';
import { addTimestampCalls } from './tso-stream.ts';

export { MemberRemovedError };

export interface PdProcess {
  /** `host:port` clients, stores and other members reach it under. */
  readonly address: string;
  /** `http://host:port` or `https://host:port`, as members are announced. */
  readonly clientUrl: string;
  readonly clusterId: bigint;
  readonly member: PdMember;
  /** Resolves when this member was removed from its cluster: the process has nothing left to do. */
  readonly removed: Promise<MemberRemovedError>;
  /** What serves at this moment. @throws NotLeaderError on a member that does not */
  readonly node: PdNode;
  /** Stops serving, then the member, then closes the data directory. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** The listen address cannot be used. */
export class PdListenError extends AppError {
  constructor(address: string, cause: unknown) {
    super(
      'Listen',
      `the placement service cannot listen on ${address}: ${cause instanceof Error ? cause.message : String(cause)}`,
      {
        hint: 'choose another address, or stop the process that uses it',
        cause,
      },
    );
  }
}

/**
 * Starts a member of the placement service. Resolves when it takes part in its group; a member alone serves by then.
 * @throws PdConfigError, EngineOpenError (data directory locked, missing, damaged or of another cluster), PdListenError,
 *   MemberRemovedError
 */
export async function startPd(options: {
  readonly env: Env;
  readonly config: PdConfigInput;
  /** What it says about itself to whoever asks; default: nothing. */
  readonly facts?: ProcessFacts;
}): Promise<PdProcess> {
  const { env } = options;
  const config = pdConfig(options.config);
  const engine = await env.engines.open({ path: config.dataDir, createIfMissing: config.createIfMissing });
  let starting: StartingPd | undefined;
  try {
    const content = await openDirectory(engine, config.clusterId);
    starting = new StartingPd(env, config, engine, options.facts ?? NO_FACTS);
    await starting.listen();
    return await starting.start(content);
  } catch (cause) {
    await (starting?.close() ?? engine.close());
    throw cause;
  }
}

/** How long a leader that stops waits for another one. */
const HAND_OVER_LIMIT_MS = 1_000;
/** Deadline of telling the leader a new address, and the pause before looking whether it was taken. */
const ANNOUNCE_TIMEOUT_MS = 3_000;
const ANNOUNCE_PAUSE_MS = 1_000;

const NO_FACTS: ProcessFacts = { version: '', role: 'pd', settings: [] };

const WILDCARD_HOSTS = ['0.0.0.0', '[::]', '::'] as const;

/** A process between the first and the last of its steps. */
class StartingPd {
  readonly #env: Env;
  readonly #config: PdConfig;
  readonly #engine: Engine;
  readonly #facts: ProcessFacts;
  readonly #log: Logger;
  readonly #front: Front;
  #listener: Listener | undefined;
  #address = '';
  #member: PdMember | undefined;
  #transport: RpcGroupTransport | undefined;
  #announcing: TimerId | undefined;
  #closing: Promise<void> | undefined;
  #tellRemoved: (error: MemberRemovedError) => void = () => undefined;
  readonly #removed: Promise<MemberRemovedError> = new Promise((resolve) => {
    this.#tellRemoved = resolve;
  });

  constructor(env: Env, config: PdConfig, engine: Engine, facts: ProcessFacts) {
    this.#env = env;
    this.#config = config;
    this.#engine = engine;
    this.#facts = facts;
    this.#log = env.log.child({ component: 'pd', member: config.name });
    this.#front = new Front(() => this.#member?.notLeader() ?? new NotReadyError());
  }

  /** @throws PdListenError, PdConfigError */
  async listen(): Promise<void> {
    const { listenAddress, advertiseAddress, scheme } = this.#config;
    const always = new ServiceBuilder();
    addDiscovery(always, { view: () => this.#view(), isClosing: () => this.#closing !== undefined, scheme });
    addGroupTraffic(always, { identity: () => this.#identity(), group: () => this.#member?.group });
    addMembershipCalls(always, () => this.#member);
    addProcessService(always, this.#facts);
    try {
      this.#listener = await this.#env.net.listen(listenAddress, this.#front.table(always.build()));
    } catch (cause) {
      throw new PdListenError(listenAddress, cause);
    }
    const address = advertiseAddress ?? this.#listener.address;
    if (WILDCARD_HOSTS.some((host) => address.startsWith(`${host}:`))) {
      throw new PdConfigError(`nobody can reach ${address}: give advertiseAddress when listening on all interfaces`);
    }
    this.#address = address;
  }

  #view(): MembersView {
    const member = this.#member;
    return member === undefined
      ? { clusterId: 0n, members: [], leader: undefined }
      : { clusterId: member.clusterId, members: member.group.membership.members, leader: member.leader };
  }

  #identity(): GroupIdentity {
    const member = this.#member;
    const { name } = this.#config;
    const address = this.#address;
    return member === undefined
      ? { clusterId: 0n, self: { id: 0, name, address }, membership: EMPTY_MEMBERSHIP }
      : { clusterId: member.clusterId, self: { id: member.id, name, address }, membership: member.group.membership };
  }

  /** @throws JoinError, MemberRemovedError, EngineOpenError */
  async start(content: DiskContent): Promise<PdProcess> {
    const config = this.#config;
    const ident = await this.#takePlace(content);
    const transport = new RpcGroupTransport({
      env: { ...this.#env, log: this.#log, rng: this.#env.rng.fork('pd-transport') },
      identity: () => this.#identity(),
      onUnreachable: (id) => this.#member?.group.unreachable(id),
      onRemoved: () => this.#onRemoved(),
    });
    this.#transport = transport;
    const member = await PdMember.open({
      env: this.#env,
      engine: this.#engine,
      ident,
      address: this.#address,
      transport,
      restarted: content.type !== 'empty',
      config: {
        placement: config.cluster,
        allocation: config.allocation,
        group: config.group,
        ...(config.clusterId === undefined ? {} : { clusterId: config.clusterId }),
      },
      events: {
        onServing: (node) => this.#serve(node),
        onStopped: () => this.#front.stop(),
        onRemoved: () => this.#onRemoved(),
      },
    });
    this.#member = member;
    if (member.isAlone) {
      await member.whenServing();
    }
    this.#announceAddress();
    const { clusterId } = member;
    this.#log.info(
      { address: this.#address, dataDir: config.dataDir, clusterId: String(clusterId), memberId: member.id },
      'the placement service is ready',
    );
    return {
      address: this.#address,
      clientUrl: `${config.scheme}://${this.#address}`,
      clusterId,
      member,
      removed: this.#removed,
      get node(): PdNode {
        const { node } = member;
        if (node === undefined) {
          throw member.notLeader();
        }
        return node;
      },
      close: () => this.close(),
      [Symbol.asyncDispose]: () => this.close(),
    };
  }

  /** Who this directory is, after its first start at the latest. */
  async #takePlace(content: DiskContent): Promise<GroupIdent> {
    const { name, memberId } = this.#config;
    switch (content.type) {
      case 'member': {
        const ident = { ...content.ident, name };
        if (content.ident.name !== name) {
          await renameMember(this.#engine, ident);
        }
        return ident;
      }
      case 'ungrouped':
        return foundGroup(this.#engine, { id: memberId, name, address: this.#address }, content.clusterId);
      case 'empty': {
        const placing = await this.#choosePlace();
        if (placing.type === 'found') {
          return foundGroup(this.#engine, { id: memberId, name, address: this.#address }, 0n);
        }
        this.#log.info({ through: placing.endpoints }, 'joining a cluster');
        const ident = await askToJoin(this.#env, {
          endpoints: placing.endpoints,
          self: { name, address: this.#address },
          timeoutMs: this.#config.startTimeoutMs,
        });
        // A crash before this leaves an admitted member that never comes up; its next attempt replaces it.
        await joinGroup(this.#engine, ident);
        return ident;
      }
    }
  }

  async #choosePlace(): Promise<Placing> {
    const { join, initialCluster, name, startTimeoutMs } = this.#config;
    if (join.length > 0) {
      return { type: 'join', endpoints: join };
    }
    const members = parseInitialCluster(initialCluster) ?? [];
    const others = members.filter((member) => member.name !== name);
    if (others.length === 0) {
      return { type: 'found' };
    }
    return members[0]?.name === name
      ? chooseFounding(this.#env, others, startTimeoutMs)
      : { type: 'join', endpoints: others.map(({ address }) => address) };
  }

  /** Until the leader knows it, the others dial the address this member had before. */
  #announceAddress(): void {
    const member = this.#member;
    if (member === undefined || member.isAlone || this.#closing !== undefined) {
      return;
    }
    const { members } = member.group.membership;
    const known = members.find(({ id }) => id === member.id);
    const self = { id: member.id, name: this.#config.name, address: this.#address };
    if (known === undefined || (known.address === self.address && known.name === self.name)) {
      return;
    }
    const again = (): void => {
      this.#announcing = this.#env.clock.setTimer(ANNOUNCE_PAUSE_MS, () => this.#announceAddress(), 'pd-announce');
    };
    announceMember(this.#env, {
      endpoints: members.map(({ address }) => address),
      clusterId: member.clusterId,
      self,
      timeoutMs: ANNOUNCE_TIMEOUT_MS,
    }).then(again, (cause: unknown) => {
      this.#log.debug({ cause }, 'the new address of this member was not taken yet');
      again();
    });
  }

  #onRemoved(): void {
    this.#front.stop();
    this.#tellRemoved(new MemberRemovedError(this.#config.name));
  }

  #serve(node: PdNode): void {
    const member = this.#member;
    const listener = this.#listener;
    if (member === undefined || listener === undefined || this.#closing !== undefined) {
      return;
    }
    const builder = new ServiceBuilder();
    const context = new ServiceContext({
      node,
      member,
      clock: this.#env.clock,
      log: this.#log,
      hosts: [this.#address, listener.address],
      scheme: this.#config.scheme,
    });
    addPdService(builder, context);
    addTimestampCalls(builder, context);
    addHeartbeatStreams(builder, context);
    addAdminService(builder, context);
    addDocumentCalls(builder, context);
    addRuleCalls(builder, context);
    addSchedulerCalls(builder, context);
    addMemberCalls(builder, context);
    addMetaStorageService(builder, context);
    this.#front.serve(builder.build());
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      if (this.#announcing !== undefined) {
        this.#env.clock.clearTimer(this.#announcing);
      }
      await this.#member?.handOver(HAND_OVER_LIMIT_MS);
      await this.#listener?.close(this.#config.closeGraceMs);
      this.#front.stop();
      this.#transport?.close();
      await (this.#member?.close() ?? this.#engine.close());
      this.#log.info({ address: this.#address }, 'the placement service has stopped');
    })();
    return this.#closing;
  }
}

/** The member has no place in a cluster yet. */
class NotReadyError extends AppError {
  constructor() {
    super('NotReady', 'not leader: this member is starting', {
      retry: 'route',
      hint: 'ask again, or ask another member',
    });
  }
}
