/** A placement service and three stores as processes of the built program, with default settings, for one measurement. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { connect, connectAdmin } from '../src/client/real.ts';
import { isReadyMessage } from '../src/cli/run/control.ts';
import { BenchChild, waitFor } from './child-process.ts';

const STORES = 3;
const READY_LIMIT_MS = 60_000;
const PROGRAM: string = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

export interface BraidCluster {
  /** `host:port` of the placement service. */
  readonly pd: string;
  stop(): Promise<void>;
}

export interface BraidClusterOptions {
  readonly directory: string;
  /** Settings as `section.key=value` for every store. */
  readonly storeSettings?: readonly string[];
  readonly pdSettings?: readonly string[];
}

/** Resolves when a read through the SDK was answered and the first region has all its replicas. */
export async function startBraid(options: BraidClusterOptions): Promise<BraidCluster> {
  if (!existsSync(PROGRAM)) {
    throw new Error('dist/cli/main.js is missing; run "npm run build" first');
  }
  const children: BenchChild[] = [];
  const stop = async (): Promise<void> => {
    const [pd, ...stores] = children;
    await Promise.all(stores.map((store) => store.stop()));
    await pd?.stop();
  };
  const start = async (name: string, args: readonly string[]): Promise<string> => {
    const child = new BenchChild(
      name,
      process.execPath,
      [PROGRAM, ...args, '--log-file', join(options.directory, `${name}.log`)],
      {
        ipc: true,
        env: { ...process.env, UV_THREADPOOL_SIZE: process.env['UV_THREADPOOL_SIZE'] ?? '8' },
      },
    );
    children.push(child);
    const ready = new Promise<string>((resolve) => {
      child.process.on('message', (message) => {
        if (isReadyMessage(message)) {
          resolve(message.address);
        }
      });
    });
    const address = await Promise.race([ready, child.exited]);
    if (address === undefined) {
      throw new Error(`${name} has ended: ${child.output}`);
    }
    return address;
  };
  const set = (settings: readonly string[] = []): string[] => settings.flatMap((setting) => ['--set', setting]);
  try {
    const pd = await start('pd', [
      'pd',
      '--addr',
      '127.0.0.1:0',
      '--data-dir',
      join(options.directory, 'pd'),
      ...set(options.pdSettings),
    ]);
    await Promise.all(
      Array.from({ length: STORES }, (_, i) =>
        start(`store-${i + 1}`, [
          'server',
          ...['--pd', pd],
          ...['--addr', '127.0.0.1:0'],
          ...['--status-addr', ''],
          ...['--data-dir', join(options.directory, `store-${i + 1}`)],
          ...set(options.storeSettings),
        ]),
      ),
    );
    await using db = await connect({ pd, timeoutMs: READY_LIMIT_MS, connectTimeoutMs: READY_LIMIT_MS });
    await db.get('ready?');
    await using admin = await connectAdmin({ pd, timeoutMs: READY_LIMIT_MS });
    await waitFor('a full set of replicas', READY_LIMIT_MS, async () => {
      const { regions } = await admin.regions();
      const isFull = regions.every(
        (region) =>
          region.peers.length === STORES &&
          region.pendingPeers.length === 0 &&
          region.peers.every((peer) => peer.role === 'voter'),
      );
      return isFull && regions.length > 0 ? true : undefined;
    });
    return { pd, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
