/** A placement service process: opens the data directory, starts the node, serves its calls, stops in order. */
import { AppError } from '../../base/app-error.ts';
import type { Env } from '../../env/env.ts';
import type { Listener } from '../../env/net.ts';
import { PdNode } from '../../pd/pd-node.ts';
import { ServiceBuilder } from '../../rpc/service-builder.ts';
import { addAdminService } from './admin-service.ts';
import { type PdConfig, type PdConfigInput, PdConfigError, pdConfig } from './config.ts';
import { ServiceContext } from './context.ts';
import { addDocumentCalls } from './document-calls.ts';
import { addHealthService } from './health-service.ts';
import { addHeartbeatStreams } from './heartbeat-stream.ts';
import { addMetaStorageService } from './meta-storage-service.ts';
import { addPdService } from './pd-service.ts';
import { addTimestampCalls } from './tso-stream.ts';

export interface PdProcess {
  /** `host:port` clients and stores reach it under. */
  readonly address: string;
  /** `http://host:port`, as members are announced. */
  readonly clientUrl: string;
  readonly clusterId: bigint;
  readonly node: PdNode;
  /** Stops serving, then the node, then closes the data directory. Idempotent. */
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
 * Starts a placement service. Resolves when it answers calls.
 * @throws PdConfigError, EngineOpenError (data directory locked, missing, damaged or of another cluster), PdListenError
 */
export async function startPd(options: { readonly env: Env; readonly config: PdConfigInput }): Promise<PdProcess> {
  const { env } = options;
  const config = pdConfig(options.config);
  const engine = await env.engines.open({ path: config.dataDir, createIfMissing: config.createIfMissing });
  let node: PdNode;
  try {
    node = await PdNode.open(env, engine, {
      placement: config.cluster,
      allocation: config.allocation,
      ...(config.clusterId === undefined ? {} : { clusterId: config.clusterId }),
    });
  } catch (cause) {
    await engine.close();
    throw cause;
  }
  try {
    return await serve(env, config, node);
  } catch (cause) {
    await node.close();
    throw cause;
  }
}

async function serve(env: Env, config: PdConfig, node: PdNode): Promise<PdProcess> {
  const log = env.log.child({ component: 'pd', member: config.name });
  const context = new ServiceContext({ node, clock: env.clock, log, name: config.name, memberId: config.memberId });
  const builder = new ServiceBuilder();
  addPdService(builder, context);
  addTimestampCalls(builder, context);
  addHeartbeatStreams(builder, context);
  addAdminService(builder, context);
  addDocumentCalls(builder, context);
  addMetaStorageService(builder, context);
  addHealthService(builder, context);
  let listener: Listener;
  try {
    listener = await env.net.listen(config.listenAddress, builder.build());
  } catch (cause) {
    throw new PdListenError(config.listenAddress, cause);
  }
  const address = config.advertiseAddress ?? listener.address;
  if (WILDCARD_HOSTS.some((host) => address.startsWith(`${host}:`))) {
    await listener.close(0);
    throw new PdConfigError(`nobody can reach ${address}: give advertiseAddress when listening on all interfaces`);
  }
  // Calls cannot arrive earlier: this runs in the turn in which the port was bound.
  context.announce({ address, boundAddress: listener.address });
  log.info({ address, dataDir: config.dataDir, clusterId: String(node.clusterId) }, 'the placement service is ready');
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closing ??= (async () => {
      await listener.close(config.closeGraceMs);
      await node.close();
      log.info({ address }, 'the placement service has stopped');
    })();
    return closing;
  };
  return {
    address,
    clientUrl: `http://${address}`,
    clusterId: node.clusterId,
    node,
    close,
    [Symbol.asyncDispose]: close,
  };
}

const WILDCARD_HOSTS = ['0.0.0.0', '[::]', '::'] as const;
