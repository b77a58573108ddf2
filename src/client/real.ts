/** Opens connections of a real process: real clock, real chance, gRPC. The only file of the room that knows them. */
import { SILENT_LOGGER } from '../env/log.ts';
import { realClock } from '../env/real/real-clock.ts';
import { realRng } from '../env/real/real-rng.ts';
import { createGrpcNet } from '../rpc/grpc/grpc-net.ts';
import { AdminClient } from './admin.ts';
import { connectCore } from './connect.ts';
import { type Braid, rootView } from './kv.ts';
import { type TlsCredentials, loadTls } from '../rpc/grpc/tls-credentials.ts';
import { tlsErrorOf } from './errors.ts';
import { type ConnectOptions, type TlsOptions, requireTlsOptions } from './options.ts';
import type { ClientEnv } from './store-conn.ts';

/** @throws TlsError */
function credentialsOf(tls: TlsOptions | undefined): TlsCredentials | undefined {
  const given = requireTlsOptions(tls);
  try {
    return given === undefined ? undefined : loadTls(given);
  } catch (error) {
    throw tlsErrorOf(error) ?? error;
  }
}

const realClientEnv = ({ tls }: ConnectOptions): ClientEnv => ({
  clock: realClock(),
  rng: realRng(),
  net: createGrpcNet({ tls: credentialsOf(tls) }),
  log: SILENT_LOGGER,
});

/**
 * Connects to a cluster: `await using db = await connect({ pd: ['127.0.0.1:2379'] })`. Rejects when no placement
 * endpoint answers within `connectTimeoutMs`, naming each with its failure, or when TLS keeps it from answering.
 * @throws TlsError, UnavailableError, ClusterMismatchError, InvalidArgumentError
 */
export async function connect(options: ConnectOptions): Promise<Braid> {
  return rootView(await connectCore(realClientEnv(options ?? {}), options));
}

/** Connects to the administration service of a cluster; takes the options of `connect`. */
export async function connectAdmin(options: ConnectOptions): Promise<AdminClient> {
  return new AdminClient(await connectCore(realClientEnv(options ?? {}), options), { owns: true });
}
