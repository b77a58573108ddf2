/** A placement service process: opens the data directory, takes its place in the group, serves calls, stops in order. */
import { AppError } from '../../base/app-error.ts';
import type { Engine } from '../../env/engine.ts';
import type { Env } from '../../env/env.ts';
import type { Logger } from '../../env/log.ts';
import type { Listener } from '../../env/net.ts';
import type { DiskContent } from '../../pd/group/group-disk.ts';
import { foundGroup } from '../../pd/group/group-disk.ts';
import { NO_TRANSPORT } from '../../pd/group/group-loop.ts';
import type { GroupIdent } from '../../pd/group/group-record.ts';
import { openDirectory, PdMember } from '../../pd/pd-member.ts';
import type { PdNode } from '../../pd/pd-node.ts';
import { ServiceBuilder } from '../../rpc/service-builder.ts';
import { addAdminService } from './admin-service.ts';
import { type PdConfig, type PdConfigInput, PdConfigError, pdConfig } from './config.ts';
import { ServiceContext } from './context.ts';
import { addDocumentCalls } from './document-calls.ts';
import { addDiscovery, type MembersView } from './discovery-service.ts';
import { Front } from './front.ts';
import { addHeartbeatStreams } from './heartbeat-stream.ts';
import { addMetaStorageService } from './meta-storage-service.ts';
import { addPdService } from './pd-service.ts';
import { addTimestampCalls } from './tso-stream.ts';

export interface PdProcess {
  /** `host:port` clients, stores and other members reach it under. */
  readonly address: string;
  /** `http://host:port`, as members are announced. */
  readonly clientUrl: string;
  readonly clusterId: bigint;
  readonly member: PdMember;
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
export async function startPd(options: { readonly env: Env; readonly config: PdConfigInput }): Promise<PdProcess> {
  const { env } = options;
  const config = pdConfig(options.config);
  const engine = await env.engines.open({ path: config.dataDir, createIfMissing: config.createIfMissing });
  let starting: StartingPd | undefined;
  try {
    const content = await openDirectory(engine, config.clusterId);
    starting = new StartingPd(env, config, engine);
    await starting.listen();
    return await starting.start(content);
  } catch (cause) {
    await (starting?.close() ?? engine.close());
    throw cause;
  }
}

const WILDCARD_HOSTS = ['0.0.0.0', '[::]', '::'] as const;

/** A process between the first and the last of its steps. */
class StartingPd {
  readonly #env: Env;
  readonly #config: PdConfig;
  readonly #engine: Engine;
  readonly #log: Logger;
  readonly #front: Front;
  #listener: Listener | undefined;
  #address = '';
  #member: PdMember | undefined;
  #closing: Promise<void> | undefined;

  constructor(env: Env, config: PdConfig, engine: Engine) {
    this.#env = env;
    this.#config = config;
    this.#engine = engine;
    this.#log = env.log.child({ component: 'pd', member: config.name });
    this.#front = new Front(() => this.#member?.notLeader() ?? new NotReadyError());
  }

  /** @throws PdListenError, PdConfigError */
  async listen(): Promise<void> {
    const { listenAddress, advertiseAddress } = this.#config;
    const always = new ServiceBuilder();
    addDiscovery(always, { view: () => this.#view(), isClosing: () => this.#closing !== undefined });
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

  async start(content: DiskContent): Promise<PdProcess> {
    const config = this.#config;
    const ident = content.type === 'member' ? content.ident : await this.#found(content);
    const member = await PdMember.open({
      env: this.#env,
      engine: this.#engine,
      ident,
      address: this.#address,
      transport: NO_TRANSPORT,
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
      },
    });
    this.#member = member;
    if (member.isAlone) {
      await member.whenServing();
    }
    const { clusterId } = member;
    this.#log.info(
      { address: this.#address, dataDir: config.dataDir, clusterId: String(clusterId) },
      'the placement service is ready',
    );
    return {
      address: this.#address,
      clientUrl: `http://${this.#address}`,
      clusterId,
      member,
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

  #found(content: DiskContent): Promise<GroupIdent> {
    const { memberId, name } = this.#config;
    const clusterId = content.type === 'ungrouped' ? content.clusterId : 0n;
    return foundGroup(this.#engine, { id: memberId, name, address: this.#address }, clusterId);
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
    });
    addPdService(builder, context);
    addTimestampCalls(builder, context);
    addHeartbeatStreams(builder, context);
    addAdminService(builder, context);
    addDocumentCalls(builder, context);
    addMetaStorageService(builder, context);
    this.#front.serve(builder.build());
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      await this.#listener?.close(this.#config.closeGraceMs);
      this.#front.stop();
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
