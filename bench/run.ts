/**
 * Measures braid, and etcd where it is installed, with the same clients, keys and values on the same machine:
 *
 *   npm run bench                                      all workloads, three rounds
 *   npm run bench -- put get --clients 1,256 --rounds 1
 *   npm run bench -- --pd 127.0.0.1:2379               a running cluster instead of one of its own
 *   npm run bench -- compare before.json after.json
 *
 * Each round starts both clusters anew, one after the other, with three members and empty data directories.
 */
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import { prefix } from '../src/client/ranges.ts';
import { connect } from '../src/client/real.ts';
import { BraidTarget } from '../src/cli/bench/braid-target.ts';
import { BENCH_PREFIX, type PlanFlags, loadReport, planFlags, planOf, saveReport } from '../src/cli/bench/command.ts';
import {
  type BenchReport,
  type Ratio,
  type TargetInfo,
  cellsOf,
  differences,
  newReport,
  ratiosBetween,
  ratiosWithin,
} from '../src/cli/bench/report.ts';
import { CELL_SHAPE, formatUs, ratioShape } from '../src/cli/bench/shapes.ts';
import { type Plan, type SuiteEvents, commitOf, machineInfo, measureRound } from '../src/cli/bench/suite.ts';
import type { RunResult } from '../src/cli/bench/driver.ts';
import type { BenchTarget } from '../src/cli/bench/workload.ts';
import { formatTable } from '../src/cli/output/table.ts';
import { packageVersion } from '../src/cli/package-version.ts';
import { formatCount } from '../src/cli/text-form.ts';
import { type BraidCluster, startBraid } from './braid-cluster.ts';
import { findEtcd, startEtcd } from './etcd/etcd-cluster.ts';
import { EtcdTarget } from './etcd/etcd-target.ts';

const ROUNDS_DEFAULT = 3;
/** Connections to etcd's leader; its clients share them. */
const ETCD_CONNECTIONS = 4;
const CALL_TIMEOUT_MS = 10_000;
const root: string = fileURLToPath(new URL('..', import.meta.url));

interface RunFlags extends PlanFlags {
  readonly pd?: string;
  readonly peer: boolean;
  readonly dir: string;
  readonly save?: string;
  readonly check?: true;
}

/** What one peer needs to be measured once. */
interface Contender {
  readonly info: () => TargetInfo;
  open(directory: string): Promise<{ readonly target: BenchTarget; close(): Promise<void> }>;
}

/** What the design promises against etcd, as ratios in one run. */
const GOALS: readonly {
  readonly text: string;
  readonly workload: string;
  readonly clients: number;
  readonly isMet: (ratio: Ratio) => boolean;
}[] = [
  { text: 'puts at 256 clients at least 4x', workload: 'put', clients: 256, isMet: (r) => r.throughput >= 4 },
  {
    text: 'linearizable gets at 256 clients at least 10x',
    workload: 'get',
    clients: 256,
    isMet: (r) => r.throughput >= 10,
  },
  { text: 'median latency of one putting client at most 1x', workload: 'put', clients: 1, isMet: (r) => r.p50 <= 1 },
];

const note = (text: string): void => {
  process.stderr.write(`${text}\n`);
};

const EVENTS: SuiteEvents = {
  onStart: note,
  onResult: (result: RunResult) =>
    note(
      `  ${formatCount(result.perSecond)} ops/s, p50 ${formatUs(result.latency.p50Us)} ms, p99 ${formatUs(result.latency.p99Us)} ms, client CPU ${Math.round(result.clientCpu * 100)}%`,
    ),
  onError: (code, error) => note(`  first ${code}: ${error instanceof Error ? error.message : String(error)}`),
};

async function braidTarget(pd: string): Promise<BraidTarget> {
  return new BraidTarget(await connect({ pd: pd.split(','), name: 'braid-bench', timeoutMs: CALL_TIMEOUT_MS }));
}

function braidContender(pd: string | undefined): Contender {
  return {
    info: () => ({
      name: 'braid',
      version: packageVersion(),
      setup:
        pd === undefined
          ? 'three stores and a placement service on loopback, default settings'
          : `running cluster at ${pd}`,
    }),
    async open(directory) {
      let cluster: BraidCluster | undefined;
      if (pd === undefined) {
        cluster = await startBraid({ directory });
      }
      const target = await braidTarget(cluster?.pd ?? (pd as string));
      return {
        target,
        close: async () => {
          await target.close();
          await cluster?.stop();
        },
      };
    },
  };
}

function etcdContender(version: string): Contender {
  return {
    info: () => ({
      name: 'etcd',
      version,
      setup: `three members on loopback, default settings, ${ETCD_CONNECTIONS} connections to the leader`,
    }),
    async open(directory) {
      const cluster = await startEtcd(directory);
      const target = new EtcdTarget(cluster.leaderEndpoint, ETCD_CONNECTIONS);
      return {
        target,
        close: async () => {
          await target.close();
          await cluster.stop();
        },
      };
    },
  };
}

/** A cluster of somebody else is left without the benchmark's keys. */
async function clean(pd: string): Promise<void> {
  await using db = await connect({ pd: pd.split(','), timeoutMs: 60_000 });
  await db.deleteRange(prefix(BENCH_PREFIX));
}

/** Syncing costs nothing on a file system in memory, which makes every figure of writes worthless. */
function fileSystemOf(directory: string): string {
  const NAMES: Readonly<Record<number, string>> = {
    0xef53: 'ext4',
    0x58465342: 'xfs',
    0x9123683e: 'btrfs',
    0x794c7630: 'overlayfs',
    0x01021994: 'tmpfs',
  };
  const { type } = statfsSync(directory);
  return NAMES[type] ?? `type 0x${type.toString(16)}`;
}

async function measure(plan: Plan, flags: RunFlags, signal: AbortSignal): Promise<BenchReport> {
  const etcd = flags.peer ? findEtcd() : undefined;
  if (flags.peer && etcd === undefined) {
    note('etcd is not on the PATH, only braid is measured');
  }
  const contenders = [braidContender(flags.pd), ...(etcd === undefined ? [] : [etcdContender(etcd)])];
  mkdirSync(flags.dir, { recursive: true });
  const fileSystem = fileSystemOf(flags.dir);
  if (fileSystem === 'tmpfs') {
    note(`${flags.dir} lies in memory: writes are not synced to a disk there; choose another one with --dir`);
  }
  const startedAt = new Date().toISOString();
  const runs: RunResult[] = [];
  for (let round = 1; round <= plan.rounds; round++) {
    for (const contender of contenders) {
      const directory = mkdtempSync(join(flags.dir, 'bench-'));
      try {
        const { target, close } = await contender.open(directory);
        try {
          runs.push(...(await measureRound(target, plan, round, signal, EVENTS)));
        } finally {
          await close();
        }
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    }
  }
  if (flags.pd !== undefined) {
    await clean(flags.pd);
  }
  return newReport({
    startedAt,
    commit: commitOf(root),
    machine: { ...machineInfo(), fileSystem },
    targets: contenders.map((contender) => contender.info()),
    settings: { ...plan.data, warmupMs: plan.warmupMs, durationMs: plan.durationMs, rounds: plan.rounds },
    runs,
  });
}

function printReport(report: BenchReport): Ratio[] {
  process.stdout.write(formatTable(CELL_SHAPE.columns, cellsOf(report), true));
  const ratios = ratiosWithin(report, 'braid', 'etcd');
  if (ratios.length > 0) {
    process.stdout.write(`\n${formatTable(ratioShape('etcd', 'braid').columns, ratios, true)}`);
  }
  return ratios;
}

/** Prints each goal that was measured; false if one is missed. */
function printGoals(ratios: readonly Ratio[]): boolean {
  const rows = GOALS.flatMap((goal) => {
    const ratio = ratios.find((r) => r.workload === goal.workload && r.clients === goal.clients);
    return ratio === undefined ? [] : [{ goal, ratio, isMet: goal.isMet(ratio) }];
  });
  if (rows.length > 0) {
    process.stdout.write(
      `\n${formatTable(
        [
          { head: 'goal', cell: (row: (typeof rows)[number]) => row.goal.text },
          { head: 'throughput', cell: (row) => `${row.ratio.throughput.toFixed(2)}x`, align: 'right' },
          { head: 'p50', cell: (row) => `${row.ratio.p50.toFixed(2)}x`, align: 'right' },
          { head: 'met', cell: (row) => (row.isMet ? 'yes' : 'no') },
        ],
        rows,
        true,
      )}`,
    );
  }
  return rows.every((row) => row.isMet);
}

const program = new Command('bench').description('Measures braid beside etcd on this machine.');
const run = program
  .command('run [workloads...]', { isDefault: true })
  .description('measure; workloads are put, get, scan, mixed, all of them without a name')
  .addOption(new Option('--pd <endpoints>', 'measure this running cluster instead of starting one'))
  .addOption(new Option('--no-peer', 'do not measure etcd'))
  .addOption(
    new Option('--dir <directory>', 'where data directories are made; must be on a disk').default(
      join(root, '.tmp'),
      '.tmp',
    ),
  )
  .addOption(new Option('--save <file>', 'write the whole result there'))
  .addOption(new Option('--check', 'exit code 5 when a goal is missed'));
for (const option of planFlags(ROUNDS_DEFAULT)) {
  run.addOption(option);
}
run.action(async (names: string[], flags: RunFlags) => {
  const interruption = new AbortController();
  process.once('SIGINT', () => interruption.abort(new Error('interrupted')));
  const report = await measure(planOf(names, flags), { ...flags, dir: resolve(flags.dir) }, interruption.signal);
  if (flags.save !== undefined) {
    await saveReport(report, flags.save);
    note(`saved as ${flags.save}`);
  }
  const areGoalsMet = printGoals(printReport(report));
  if (cellsOf(report).some((cell) => cell.errors > 0)) {
    process.exitCode = 2;
  } else if (flags.check === true && !areGoalsMet) {
    process.exitCode = 5;
  }
});
program
  .command('compare <before> <after>')
  .description('compare two saved results')
  .action(async (beforeFile: string, afterFile: string) => {
    const before = await loadReport(beforeFile);
    const after = await loadReport(afterFile);
    for (const difference of differences(before, after)) {
      note(`not the same in both: ${difference}`);
    }
    process.stdout.write(formatTable(ratioShape('before', 'after').columns, ratiosBetween(before, after), true));
  });
await program.parseAsync();
