/** `braid server`: one store process. */
import type { Command } from 'commander';
import { loadStoreConfig } from '../../server/config.ts';
import { startStore, type StoreProcess } from '../../server/store-process.ts';
import type { AppError } from '../../base/app-error.ts';
import type { App } from '../command.ts';
import { flag } from '../common-options.ts';
import { packageVersion } from '../package-version.ts';
import { type ExitCode, EXIT_DONE, EXIT_FAILURE } from '../exit-code.ts';
import { announceReady, StopRequests } from './control.ts';
import { addExamples, assignments, LOG_FLAGS, logFlags, runReported, TLS_FLAGS, tlsFlags } from './frame.ts';
import { createRealProcess, credentialsOf, runWithThreadPool } from './real-process.ts';

interface ServerFlags {
  readonly config?: string;
  readonly pd?: string;
  readonly addr?: string;
  readonly advertiseAddr?: string;
  readonly statusAddr?: string;
  readonly dataDir?: string;
  readonly labels?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly logLevel?: string;
  readonly logFile?: string;
  readonly set: readonly string[];
}

export function registerServer(program: Command, app: App): void {
  const command = program
    .command('server')
    .summary('Run one store of a cluster')
    .description(
      'Run one store of a cluster. The first store creates the cluster. Flags win over environment variables, these over the configuration file, it over the defaults; see "braid config default store" for all settings.',
    )
    .addOption(flag('--config <file>', 'configuration file (TOML)'))
    .addOption(flag('--pd <endpoints>', 'placement endpoints as host:port, separated by commas'))
    .addOption(flag('--addr <address>', 'where clients and other stores connect (127.0.0.1:20160)'))
    .addOption(flag('--advertise-addr <address>', 'what others dial instead of --addr'))
    .addOption(flag('--status-addr <address>', 'HTTP status pages (127.0.0.1:20180), empty for none'))
    .addOption(flag('--data-dir <directory>', 'directory of this store (braid-store)'))
    .addOption(flag('--labels <list>', 'place of the store, for example zone=a,host=h1'));
  for (const option of [...TLS_FLAGS(), ...LOG_FLAGS()]) {
    command.addOption(option);
  }
  addExamples(command, [
    'braid server --pd 127.0.0.1:2379 --data-dir store1',
    'braid server --config store.toml --labels zone=a',
    'braid server --pd 10.0.0.1:2379 --addr 10.0.0.5:20160 --tls-ca ca.pem --tls-cert store.pem --tls-key store-key.pem',
    'braid server --pd 127.0.0.1:2379 --addr 127.0.0.1:20161 --status-addr 127.0.0.1:20181 --data-dir store2',
  ]);
  command.action(async () => {
    const flags = command.opts<ServerFlags>();
    app.exitCode = await runReported(app, 'run the store', () => runServer(app, flags));
  });
}

async function runServer(app: App, flags: ServerFlags): Promise<ExitCode> {
  const { config, origins } = loadStoreConfig({
    file: flags.config,
    env: app.io.env,
    flags: {
      'server.pd': flags.pd,
      'server.addr': flags.addr,
      'server.advertise-addr': flags.advertiseAddr,
      'server.status-addr': flags.statusAddr,
      'server.data-dir': flags.dataDir,
      'server.labels': flags.labels,
      ...tlsFlags(flags),
      ...logFlags(flags),
      ...assignments(flags.set),
    },
  });
  credentialsOf(config.tls);
  // Only now: a mistake in the configuration is reported by the process the user started.
  const code = await runWithThreadPool();
  if (code !== undefined) {
    return code as ExitCode;
  }
  const real = createRealProcess({
    log: config.log,
    fields: { role: 'store' },
    tls: config.tls,
    blockCacheBytes: config.storage.blockCacheBytes,
  });
  const stops = new StopRequests(app.io.signal);
  let fatal: AppError | undefined;
  let onFatal: () => void = () => undefined;
  const failed = new Promise<void>((resolve) => {
    onFatal = resolve;
  });
  const giveUp = new AbortController();
  let store: StoreProcess | undefined;
  try {
    const starting = startStore({
      env: real.env,
      config,
      origins,
      version: packageVersion(),
      signal: giveUp.signal,
      onFatal: (error) => {
        fatal ??= error;
        onFatal();
      },
    });
    const stop = stops.next();
    // A stop request during the start ends the process without ceremony: nothing was promised yet.
    const first = await Promise.race([starting, stop]);
    if ('reason' in first) {
      giveUp.abort(new Error('stopping'));
      starting.then(
        (late) => late.close({ graceful: false }),
        () => undefined,
      );
      return EXIT_FAILURE;
    }
    store = first;
    announceReady({
      type: 'ready',
      address: store.address,
      statusAddress: store.statusAddress,
      storeId: store.storeId,
    });
    await app.io.stdout.write(`ready: store ${store.storeId} at ${store.address}, cluster ${store.clusterId}\n`);
    const why = await Promise.race([stop, failed]);
    if (why === undefined) {
      await store.close({ graceful: false });
      throw fatal as unknown as AppError;
    }
    real.log.info({ reason: why.reason, graceful: why.graceful }, 'stopping');
    const running = store;
    stops.next().then(
      () => running.close({ graceful: false }),
      () => undefined,
    );
    await store.close({ graceful: why.graceful });
    return EXIT_DONE;
  } finally {
    await real.close();
    stops.close();
  }
}
