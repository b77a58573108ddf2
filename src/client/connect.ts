/** Opens a connection on a given Env, so that the simulator runs the SDK as it is. */
import { ClientCore } from './core.ts';
import { type Braid, rootView } from './kv.ts';
import { type ConnectOptions, resolveOptions } from './options.ts';
import type { ClientEnv } from './store-conn.ts';

/** @throws UnavailableError with every endpoint tried, ClusterMismatchError, InvalidArgumentError */
export async function connectWith(env: ClientEnv, options: ConnectOptions): Promise<Braid> {
  return rootView(await connectCore(env, options));
}

/** The connection without the data interface, for `admin.ts`. */
export async function connectCore(env: ClientEnv, options: ConnectOptions): Promise<ClientCore> {
  const resolved = resolveOptions(options);
  const core = new ClientCore(env, resolved);
  if (!resolved.lazy) {
    try {
      await core.pd.connect(resolved.connectTimeoutMs);
    } catch (error) {
      core.destroy();
      throw error;
    }
  }
  return core;
}
