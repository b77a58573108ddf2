/**
 * `braid dev`: a whole cluster on this machine, for trying things out. Every member is a real process of this same
 * program; their data stays, so the next start continues where this one ended.
 *
 * ```text
 * <data-dir>/dev.json               ports of the cluster
 * <data-dir>/pd.toml, store.toml    settings, small regions among them; may be edited
 * <data-dir>/pd/, store-1/, ...     data; further placement members in pd-2/, pd-3/
 * <data-dir>/log/                   one log file per member
 * ```
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { EXIT_CODE_BUG, EXIT_CODE_STORAGE } from '../../base/assert.ts';
import { AppError } from '../../base/app-error.ts';
import { formatBytes, KIB, MIB } from '../../base/units.ts';
import { connect } from '../../client/real.ts';
import { configFile } from '../../server/config-sample.ts';
import { DEFAULT_STORE_CONFIG } from '../../server/settings.ts';
import type { App } from '../command.ts';
import { count, flag, sizeBytes, words } from '../common-options.ts';
import { type ExitCode, EXIT_DONE, EXIT_FAILURE } from '../exit-code.ts';
import { StopRequests } from './control.ts';
import { addExamples, runReported } from './frame.ts';
import { Member, type MemberExit } from './member.ts';

/** Longest wait for the replicas of all regions at the start, and between looks. */
const REPLICAS_LIMIT_MS = 15_000;
const REPLICAS_POLL_MS = 50;
const HOST = '127.0.0.1';
const PORT_BASE_DEFAULT = 2379;
/** Status pages of store N are at this distance from its own port. */
const STATUS_PORT_DISTANCE = 20;
const STORES_DEFAULT = 3;
const STORES_MAX: number = STATUS_PORT_DISTANCE - 1;
/** Placement members but the first are behind the ports of the stores. */
const PD_PORT_DISTANCE: number = 2 * STATUS_PORT_DISTANCE;
const PD_MEMBERS_MAX = 5;
/** Small, so that a few megabytes already show how regions split, move and merge. */
const REGION_SIZE_DEFAULT_BYTES: number = 1 * MIB;
const SMALL_REGION_BYTES: number = 512 * KIB;
/** Below this a region is merged with its neighbour: an eighth of the size at which it is split. */
const MERGE_SIZE_PART = 8;
const READY_LIMIT_MS = 60_000;
const STOP_LIMIT_MS = 15_000;
const MAX_REPLICAS = 3;

interface DevFlags {
  readonly dataDir: string;
  readonly stores?: number;
  readonly pdMembers?: number;
  readonly portBase?: number;
  readonly regionSize?: number;
  readonly smallRegions?: boolean;
  readonly addStore?: boolean;
  readonly podNames?: readonly string[];
}

interface DevRecord {
  readonly portBase: number;
  readonly pdMembers: number;
  /** Names of the stores as pods, in the order of their numbers; further ones are pod4, pod5 … */
  readonly podNames: readonly string[];
}

class DevError extends AppError {
  constructor(message: string, hint: string) {
    super('Dev', message, { hint });
  }
}

const pdAddress = (portBase: number, n: number): string =>
  `${HOST}:${n === 1 ? portBase : portBase + PD_PORT_DISTANCE + n}`;
const pdAddresses = ({ portBase, pdMembers }: Pick<DevRecord, 'portBase' | 'pdMembers'>): string[] =>
  Array.from({ length: pdMembers }, (_, i) => pdAddress(portBase, i + 1));
const storeAddress = (portBase: number, n: number): string => `${HOST}:${portBase + n}`;
const statusAddress = (portBase: number, n: number): string => `${HOST}:${portBase + n + STATUS_PORT_DISTANCE}`;

export function registerDev(program: Command, app: App): void {
  const command = program
    .command('dev')
    .summary('Run a whole cluster on this machine, for trying things out')
    .description(
      'Run a placement service and several stores as processes on this machine. Data is kept between starts. ' +
        `Regions split at ${formatBytes(REGION_SIZE_DEFAULT_BYTES)} instead of ${formatBytes(DEFAULT_STORE_CONFIG.raftstore.regionMaxSizeBytes)}, so that little data already makes many regions.`,
    )
    .addOption(flag('--data-dir <directory>', 'where everything is kept').default('./braid-data'))
    .addOption(
      flag('--stores <n>', 'number of stores; at least as many as the directory already has')
        .default(undefined, '3')
        .argParser(count(1, STORES_MAX)),
    )
    .addOption(
      flag('--pd-members <n>', 'members of the placement service; at least as many as the directory already has')
        .default(undefined, '1')
        .argParser(count(1, PD_MEMBERS_MAX)),
    )
    .addOption(
      flag('--port-base <port>', 'port of the placement service; stores use the ones behind it')
        .default(undefined, String(PORT_BASE_DEFAULT))
        .argParser(count(1024, 65_000)),
    )
    .addOption(
      flag('--region-size <size>', 'size at which regions split')
        .default(undefined, formatBytes(REGION_SIZE_DEFAULT_BYTES))
        .argParser(sizeBytes),
    )
    .addOption(new Option('--small-regions', `short for --region-size ${formatBytes(SMALL_REGION_BYTES)}`))
    .addOption(
      flag('--pod-names <names>', 'names of the stores in documents, separated by commas')
        .default(undefined, 'pod1,pod2,pod3')
        .argParser(words),
    )
    .addOption(new Option('--add-store', 'run one more store for the cluster that runs in this directory'));
  addExamples(command, [
    'braid dev',
    'braid dev --pd-members 3',
    'braid dev --stores 5 --data-dir /tmp/five --port-base 12379',
    'braid dev --small-regions',
    'braid dev --add-store',
  ]);
  command.action(async () => {
    const flags = command.opts<DevFlags>();
    const task = flags.addStore === true ? 'add a store' : 'run the cluster';
    app.exitCode = await runReported(app, task, () =>
      flags.addStore === true ? addStore(app, flags) : runCluster(app, flags),
    );
  });
}

// ------------------------------------------------------------------------------------------------- directory

const recordPath = (dataDir: string): string => join(dataDir, 'dev.json');

function readRecord(dataDir: string): DevRecord | undefined {
  if (!existsSync(recordPath(dataDir))) {
    return undefined;
  }
  try {
    const record = JSON.parse(readFileSync(recordPath(dataDir), 'utf8')) as Partial<DevRecord>;
    if (typeof record.portBase === 'number') {
      return { portBase: record.portBase, pdMembers: record.pdMembers ?? 1, podNames: record.podNames ?? [] };
    }
  } catch {
    // Reported below, with the way out.
  }
  throw new DevError(`${recordPath(dataDir)} is damaged`, 'delete this file; the ports are then chosen anew');
}

/** Numbers of the stores whose data lies in the directory. */
function storesIn(dataDir: string): number[] {
  return existsSync(dataDir)
    ? readdirSync(dataDir)
        .map((name) => /^store-(\d+)$/.exec(name)?.[1])
        .filter((n) => n !== undefined)
        .map(Number)
        .sort((a, b) => a - b)
    : [];
}

/** Settings are written once; a region size given later replaces them. */
function writeSettings(dataDir: string, flags: DevFlags, stores: number): void {
  const given = flags.regionSize ?? (flags.smallRegions === true ? SMALL_REGION_BYTES : undefined);
  const storeFile = join(dataDir, 'store.toml');
  const pdFile = join(dataDir, 'pd.toml');
  if (given === undefined && existsSync(storeFile) && existsSync(pdFile)) {
    return;
  }
  const size = given ?? REGION_SIZE_DEFAULT_BYTES;
  if (size < 64 * KIB) {
    throw new DevError(`regions of ${formatBytes(size)} are too small`, 'give --region-size at least 64KiB');
  }
  const remark = '# Written by "braid dev". Your changes are kept unless a region size is given on the command line.\n';
  writeFileSync(
    storeFile,
    remark +
      configFile('store', {
        'server.graceful-stop': 2_000,
        'raftstore.pd-heartbeat': 2_000,
        'raftstore.store-heartbeat': 2_000,
        'raftstore.split-check': 1_000,
        'raftstore.region-max-size': size,
        'raftstore.region-split-size': Math.floor(size / 2),
      }),
  );
  writeFileSync(
    pdFile,
    remark +
      configFile('pd', {
        'placement.max-replicas': Math.min(MAX_REPLICAS, stores),
        'placement.merge-source-size-max': Math.floor(size / MERGE_SIZE_PART),
        'placement.region-max-size': size,
      }),
  );
}

// ------------------------------------------------------------------------------------------------- members

/** Member `n` of the placement service. The first one founds the cluster, the others join it at their first start. */
function startPdMember(app: App, dataDir: string, record: DevRecord, n: number): Member {
  const addresses = pdAddresses(record);
  const name = n === 1 ? 'pd' : `pd-${n}`;
  const title = record.pdMembers === 1 ? 'placement service' : `placement member ${n}`;
  return new Member({
    name: title,
    args: [
      'pd',
      ...['--name', name],
      ...['--addr', addresses[n - 1] as string],
      ...['--data-dir', join(dataDir, name)],
      ...['--config', join(dataDir, 'pd.toml')],
      ...['--log-file', join(dataDir, 'log', `${name}.log`)],
      ...(n === 1 ? [] : ['--join', addresses.filter((_, i) => i !== n - 1).join(',')]),
    ],
    onErrorLine: (line) => void app.io.stderr.write(`${title}: ${line}\n`),
  });
}

/** What documents call store `n`. */
const podName = (names: readonly string[], n: number): string => names[n - 1] ?? `pod${n}`;

function checkPodNames(names: readonly string[]): void {
  const bad = names.find((name) => !/^[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/.test(name));
  if (bad !== undefined) {
    throw new DevError(`${JSON.stringify(bad)} is not a name of a pod`, 'use letters, digits, dashes and dots');
  }
  const all = Array.from({ length: STORES_MAX }, (_, i) => podName(names, i + 1));
  const twice = all.find((name, i) => all.indexOf(name) !== i);
  if (twice !== undefined) {
    throw new DevError(`two stores would be called ${twice}`, 'give each store a name of its own with --pod-names');
  }
}

function startStoreMember(app: App, dataDir: string, record: DevRecord, n: number): Member {
  const { portBase, podNames } = record;
  return new Member({
    name: `store ${n}`,
    args: [
      'server',
      ...['--pd', pdAddresses(record).join(',')],
      ...['--addr', storeAddress(portBase, n)],
      ...['--status-addr', statusAddress(portBase, n)],
      ...['--data-dir', join(dataDir, `store-${n}`)],
      ...['--labels', `name=${podName(podNames, n)}`],
      ...['--config', join(dataDir, 'store.toml')],
      ...['--log-file', join(dataDir, 'log', `store-${n}.log`)],
    ],
    onErrorLine: (line) => void app.io.stderr.write(`store ${n}: ${line}\n`),
  });
}

/** Why a member ended, in words. */
function describeExit(exit: MemberExit): string {
  if (exit.signal !== undefined) {
    return `was ended by ${exit.signal}`;
  }
  switch (exit.code) {
    case EXIT_CODE_BUG:
      return `stopped with exit code ${EXIT_CODE_BUG}: a broken invariant`;
    case EXIT_CODE_STORAGE:
      return `stopped with exit code ${EXIT_CODE_STORAGE}: a storage fault`;
    default:
      return `stopped with exit code ${exit.code ?? 'unknown'}`;
  }
}

/** @returns the id of a store */
async function waitReady(member: Member, dataDir: string): Promise<number> {
  const limit = timeLimit(READY_LIMIT_MS);
  const result = await Promise.race([member.ready(), limit.passed]);
  limit.clear();
  if (result === undefined || !('type' in result)) {
    const why = result === undefined ? `is not ready after ${READY_LIMIT_MS / 1000} s` : describeExit(result);
    throw new DevError(`the ${member.name} ${why}`, `see its lines above and the log files in ${join(dataDir, 'log')}`);
  }
  return result.storeId;
}

function timeLimit(ms: number): { readonly passed: Promise<undefined>; clear(): void } {
  let timer: NodeJS.Timeout | undefined;
  const passed = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined);
  });
  return { passed, clear: () => clearTimeout(timer) };
}

/** The port is probed before any member starts, so that the message can name the flag. */
async function requireFree(address: string, portBase: number): Promise<void> {
  const port = Number(address.slice(address.lastIndexOf(':') + 1));
  const server = createServer();
  const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
    server.once('error', resolve);
    server.listen(port, HOST, () => server.close(() => resolve(undefined)));
  });
  if (error !== undefined) {
    throw new DevError(
      error.code === 'EADDRINUSE'
        ? `the port ${address} is in use`
        : `the port ${address} cannot be used: ${error.message}`,
      `stop the program that uses it (another "braid dev"?), or choose other ports: --port-base ${portBase + 10_000 > 65_000 ? 12_379 : portBase + 10_000}`,
    );
  }
}

// ------------------------------------------------------------------------------------------------- running

async function runCluster(app: App, flags: DevFlags): Promise<ExitCode> {
  const { dataDir } = flags;
  const record = readRecord(dataDir);
  const portBase = flags.portBase ?? record?.portBase ?? PORT_BASE_DEFAULT;
  const present = storesIn(dataDir);
  const wanted = flags.stores ?? Math.max(STORES_DEFAULT, present.length);
  const numbers = Array.from({ length: Math.max(wanted, present[present.length - 1] ?? 0) }, (_, i) => i + 1);
  if (numbers.length > STORES_MAX) {
    throw new DevError(`${dataDir} has ${numbers.length} stores`, `"braid dev" runs at most ${STORES_MAX}`);
  }
  const pdMembers = Math.max(flags.pdMembers ?? 1, record?.pdMembers ?? 1);
  for (const address of [
    ...pdAddresses({ portBase, pdMembers }),
    ...numbers.flatMap((n) => [storeAddress(portBase, n), statusAddress(portBase, n)]),
  ]) {
    await requireFree(address, portBase);
  }
  mkdirSync(join(dataDir, 'log'), { recursive: true });
  writeSettings(dataDir, flags, numbers.length);
  const podNames = flags.podNames ?? record?.podNames ?? [];
  checkPodNames(podNames);
  const now: DevRecord = { portBase, pdMembers, podNames };
  writeFileSync(recordPath(dataDir), `${JSON.stringify(now)}\n`);

  const stops = new StopRequests(app.io.signal);
  const pds: Member[] = [];
  const stores: Member[] = [];
  const stop = stops.next();
  let isStopping = false;
  try {
    const started = (async () => {
      for (let n = 1; n <= pdMembers; n++) {
        pds.push(startPdMember(app, dataDir, now, n));
      }
      await Promise.all(pds.map((pd) => waitReady(pd, dataDir)));
      stores.push(...numbers.map((n) => startStoreMember(app, dataDir, now, n)));
      const ids = await Promise.all(stores.map((store) => waitReady(store, dataDir)));
      await waitUsable(now);
      return ids;
    })();
    started.catch(() => undefined);
    const ids = await Promise.race([started, stop]);
    if (Array.isArray(ids)) {
      const members = [...pds, ...stores];
      for (const member of members) {
        void member.exited().then((exit) => {
          if (!isStopping) {
            void app.io.stderr.write(
              `the ${member.name} ${describeExit(exit)}; the others keep running, see ${join(dataDir, 'log')}\n`,
            );
          }
        });
      }
      await app.io.stdout.write(welcome(dataDir, now, ids));
      // Members that crash are only reported: whoever tries things out wants to see what happens.
      const allGone = Promise.all(members.map((member) => member.exited())).then(() => undefined);
      const why = await Promise.race([stop, allGone]);
      if (why === undefined) {
        throw new DevError('every process of the cluster has stopped', `see the log files in ${join(dataDir, 'log')}`);
      }
      await app.io.stderr.write('stopping the cluster; its data stays\n');
    }
    return Array.isArray(ids) ? EXIT_DONE : EXIT_FAILURE;
  } finally {
    isStopping = true;
    // Moving leaders would be in vain, every store stops.
    await Promise.all(stores.map((store) => store.stop({ graceful: false, limitMs: STOP_LIMIT_MS })));
    await Promise.all(pds.map((pd) => pd.stop({ graceful: false, limitMs: STOP_LIMIT_MS })));
    stops.close();
  }
}

/**
 * A read through the SDK proves that there is a leader. Then the first region still has to grow to all its replicas:
 * whoever kills a store right after the start must not hit the only one. Data of an earlier start may lack a store for
 * good, so this wait is bounded.
 */
async function waitUsable(record: DevRecord): Promise<void> {
  await using client = await connect({ pd: pdAddresses(record), name: 'braid-dev', timeoutMs: READY_LIMIT_MS });
  await client.get(new Uint8Array(0));
  const admin = client.admin();
  const limit = performance.now() + REPLICAS_LIMIT_MS;
  while (performance.now() < limit) {
    const { maxReplicas, stores } = await admin.status();
    const { regions } = await admin.regions();
    const wanted = Math.min(maxReplicas, stores.up);
    const isComplete = ({ peers, pendingPeers }: (typeof regions)[number]): boolean =>
      pendingPeers.length === 0 && peers.filter((peer) => peer.role === 'voter').length >= wanted;
    if (regions.every(isComplete)) {
      return;
    }
    await new Promise((resolve) => {
      setTimeout(resolve, REPLICAS_POLL_MS);
    });
  }
}

function welcome(dataDir: string, record: DevRecord, ids: readonly number[]): string {
  const { portBase, podNames } = record;
  const pd = pdAddresses(record).join(',');
  const option = portBase === PORT_BASE_DEFAULT ? '' : ` --pd ${pd}`;
  const lines = [
    `placement service  ${pd}`,
    ...ids.map(
      (id, i) =>
        `store ${i + 1}            ${storeAddress(portBase, i + 1)}  id ${id}, ${podName(podNames, i + 1)}, status http://${statusAddress(portBase, i + 1)}/status`,
    ),
    `data               ${dataDir}`,
    `ready: braid put/get with --pd ${pd}`,
    `try:   braid put greeting hello${option} && braid get greeting${option}`,
    'Ctrl-C stops the cluster; its data stays.',
  ];
  return `${lines.join('\n')}\n`;
}

async function addStore(app: App, flags: DevFlags): Promise<ExitCode> {
  const { dataDir } = flags;
  const record = readRecord(dataDir);
  if (record === undefined) {
    throw new DevError(
      `there is no cluster in ${dataDir}`,
      'start one with "braid dev", or name its directory with --data-dir',
    );
  }
  const { portBase } = record;
  const present = storesIn(dataDir);
  const n = (present[present.length - 1] ?? 0) + 1;
  if (n > STORES_MAX) {
    throw new DevError(`${dataDir} has ${present.length} stores`, `"braid dev" runs at most ${STORES_MAX}`);
  }
  await requireFree(storeAddress(portBase, n), portBase);
  await requireFree(statusAddress(portBase, n), portBase);
  const stops = new StopRequests(app.io.signal);
  const stop = stops.next();
  const member = startStoreMember(app, dataDir, record, n);
  try {
    const why = await Promise.race([waitReady(member, dataDir).then(() => undefined), stop]);
    if (why !== undefined) {
      return EXIT_FAILURE;
    }
    await app.io.stdout.write(
      `ready: store ${n} at ${storeAddress(portBase, n)}, status http://${statusAddress(portBase, n)}/status\nCtrl-C stops it; the next "braid dev" starts it with the others.\n`,
    );
    const exit = await Promise.race([stop.then(() => undefined), member.exited()]);
    if (exit !== undefined) {
      throw new DevError(`the ${member.name} ${describeExit(exit)}`, `see ${join(dataDir, 'log', `store-${n}.log`)}`);
    }
    return EXIT_DONE;
  } finally {
    await member.stop({ graceful: true, limitMs: STOP_LIMIT_MS });
    stops.close();
  }
}
