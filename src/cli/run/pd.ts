/** `braid pd`: one member of the placement service. */
import { mkdir } from 'node:fs/promises';
import type { Command } from 'commander';
import { loadPdConfig } from '../../server/config.ts';
import { processFacts } from '../../server/process-service.ts';
import { MemberRemovedError, startPd } from '../../server/pd/pd-process.ts';
import type { App } from '../command.ts';
import { flag } from '../common-options.ts';
import { packageVersion } from '../package-version.ts';
import { type ExitCode, EXIT_DONE } from '../exit-code.ts';
import { announceReady, StopRequests } from './control.ts';
import { addExamples, assignments, LOG_FLAGS, logFlags, runReported, TLS_FLAGS, tlsFlags } from './frame.ts';
import { registerPdRecover } from './pd-recover.ts';
import { createRealProcess } from './real-process.ts';

interface PdFlags {
  readonly config?: string;
  readonly name?: string;
  readonly addr?: string;
  readonly advertiseAddr?: string;
  readonly dataDir?: string;
  readonly join?: string;
  readonly initialCluster?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly logLevel?: string;
  readonly logFile?: string;
  readonly set: readonly string[];
}

/** Only the owner may read what is inside. */
const DIRECTORY_MODE = 0o700;

export function registerPd(program: Command, app: App): void {
  const command = program
    .command('pd')
    // Flags behind "recover" are its own.
    .enablePositionalOptions()
    .summary('Run a member of the placement service, or recover one')
    .description(
      'Run a member of the placement service of a cluster. With a new data directory it founds a new cluster, alone or with the members of --initial-cluster, or joins an existing one with --join; later starts need neither. Flags win over environment variables, these over the configuration file, it over the defaults; see "braid config default pd" for all settings.',
    )
    .addOption(flag('--config <file>', 'configuration file (TOML)'))
    .addOption(flag('--name <name>', 'name of this member, different from those of the others (pd)'))
    .addOption(flag('--addr <address>', 'where stores, clients and other members connect (127.0.0.1:2379)'))
    .addOption(flag('--advertise-addr <address>', 'what others dial instead of --addr'))
    .addOption(flag('--data-dir <directory>', 'directory of this member (braid-pd)'))
    .addOption(flag('--join <endpoints>', 'members of the cluster to join, separated by commas'))
    .addOption(flag('--initial-cluster <list>', 'all members of a new cluster: pd1=http://host:port,pd2=...'));
  for (const option of [...TLS_FLAGS(), ...LOG_FLAGS()]) {
    command.addOption(option);
  }
  addExamples(command, [
    'braid pd --addr 127.0.0.1:2379 --data-dir pd',
    'braid pd --name pd4 --addr 10.0.0.4:2379 --data-dir pd --join http://10.0.0.1:2379,http://10.0.0.2:2379',
    'braid pd --config pd.toml --set placement.max-replicas=5',
  ]);
  registerPdRecover(command, app);
  command.action(async () => {
    const flags = command.opts<PdFlags>();
    app.exitCode = await runReported(app, 'run the placement service', () => runPd(app, flags));
  });
}

async function runPd(app: App, flags: PdFlags): Promise<ExitCode> {
  const { config, origins } = loadPdConfig({
    file: flags.config,
    env: app.io.env,
    flags: {
      'pd.name': flags.name,
      'pd.addr': flags.addr,
      'pd.advertise-addr': flags.advertiseAddr,
      'pd.data-dir': flags.dataDir,
      'pd.join': flags.join,
      'pd.initial-cluster': flags.initialCluster,
      ...tlsFlags(flags),
      ...logFlags(flags),
      ...assignments(flags.set),
    },
  });
  const { pd, placement, allocation, group } = config;
  const real = createRealProcess({ log: config.log, fields: { role: 'pd' }, tls: config.tls });
  const stops = new StopRequests(app.io.signal);
  try {
    await mkdir(pd.dataDir, { recursive: true, mode: DIRECTORY_MODE });
    const service = await startPd({
      env: real.env,
      facts: processFacts('pd', { version: packageVersion(), config, origins }),
      config: {
        name: pd.name,
        dataDir: pd.dataDir,
        listenAddress: pd.addr,
        cluster: placement,
        allocation,
        group,
        join: pd.join,
        initialCluster: pd.initialCluster,
        startTimeoutMs: pd.startTimeoutMs,
        closeGraceMs: pd.gracefulStopMs,
        scheme: config.tls.ca === '' ? 'http' : 'https',
        ...(pd.advertiseAddr === '' ? {} : { advertiseAddress: pd.advertiseAddr }),
      },
    });
    announceReady({ type: 'ready', address: service.address, statusAddress: undefined, storeId: 0 });
    await app.io.stdout.write(
      `ready: placement service at ${service.address}, cluster ${service.clusterId}, member ${pd.name}\n`,
    );
    const why = await Promise.race([stops.next(), service.removed]);
    if (why instanceof MemberRemovedError) {
      await service.close();
      throw why;
    }
    real.log.info({ reason: why.reason }, 'stopping');
    await service.close();
    return EXIT_DONE;
  } finally {
    await real.close();
    stops.close();
  }
}
