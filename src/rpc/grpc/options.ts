/** Settings of the gRPC transport, and what they become in grpc-js. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { KIB, MIB } from '../../base/units.ts';
import type { TlsCredentials } from './tls-credentials.ts';

export interface GrpcNetOptions {
  /** Idle time after which a connection is probed. */
  readonly keepaliveTimeMs?: number;
  /** How long an unanswered probe may take before the connection counts as broken. */
  readonly keepaliveTimeoutMs?: number;
  /** Bounds of the wait between attempts to reconnect; short, so that a restarted store is reachable at once. */
  readonly reconnectBackoffMinMs?: number;
  readonly reconnectBackoffMaxMs?: number;
  /** A stream with more unsent bytes than this answers `send` with false. */
  readonly sendBufferHighBytes?: number;
  /** Receive window of each stream and connection on the dialing side. */
  readonly receiveWindowBytes?: number;
  /** A broken server stream that sends nothing for so long, although messages wait, is reset. */
  readonly cancelFlushMs?: number;
  /** Answers HTTP/1.1 requests on the same ports; without it such connections are dropped by the gRPC server. */
  readonly onHttpRequest?: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;
  /**
   * Certificates for everything this network dials and serves; callers of its listeners must have one of the same
   * authority. Default: plain text.
   */
  readonly tls?: TlsCredentials | undefined;
  /** Told about connections that were turned away because of TLS; `peer` is `host:port`. Default: nobody. */
  readonly onTlsRefused?: (peer: string, why: string) => void;
  /** Told about broken invariants in handlers, so that the owner can stop the process. Default: rethrown as uncaught. */
  readonly onInvariantError?: (error: unknown) => void;
}

export type ResolvedGrpcNetOptions = Required<GrpcNetOptions>;

export const GRPC_NET_DEFAULTS: Omit<
  ResolvedGrpcNetOptions,
  'onInvariantError' | 'onHttpRequest' | 'tls' | 'onTlsRefused'
> = {
  keepaliveTimeMs: 10_000,
  keepaliveTimeoutMs: 5_000,
  reconnectBackoffMinMs: 50,
  reconnectBackoffMaxMs: 1_000,
  sendBufferHighBytes: 512 * KIB,
  receiveWindowBytes: 4 * MIB,
  cancelFlushMs: 1_000,
};

export function resolveGrpcNetOptions(options: GrpcNetOptions): ResolvedGrpcNetOptions {
  return {
    onHttpRequest: undefined,
    tls: undefined,
    onTlsRefused: (): void => undefined,
    onInvariantError: (error): void => {
      setImmediate(() => {
        throw error;
      });
    },
    ...GRPC_NET_DEFAULTS,
    ...options,
  };
}

/** Settings that both sides share. Message sizes are limited by the protocols above, not here. */
const commonSettings = (options: ResolvedGrpcNetOptions): Record<string, number> => ({
  'grpc.max_receive_message_length': -1,
  'grpc.max_send_message_length': -1,
  'grpc.keepalive_time_ms': options.keepaliveTimeMs,
  'grpc.keepalive_timeout_ms': options.keepaliveTimeoutMs,
  'grpc.enable_channelz': 0,
  'grpc-node.flow_control_window': options.receiveWindowBytes,
});

export const channelSettings = (options: ResolvedGrpcNetOptions): Record<string, number> => ({
  ...commonSettings(options),
  'grpc.initial_reconnect_backoff_ms': options.reconnectBackoffMinMs,
  'grpc.max_reconnect_backoff_ms': options.reconnectBackoffMaxMs,
  // The SDK and the raftstore decide about retries; a hidden one could repeat a write.
  'grpc.enable_retries': 0,
  // Every channel has its own connection, so that closing one breaks nobody else.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
});

export const serverSettings = (options: ResolvedGrpcNetOptions): Record<string, number> => commonSettings(options);
