/** `braid bench`: measures a running cluster and compares results. */
import { readFile, writeFile } from 'node:fs/promises';
import { type Command, InvalidArgumentError, type Option } from 'commander';
import { fileURLToPath } from 'node:url';
import { prefix } from '../../client/ranges.ts';
import { type App, addCommand } from '../command.ts';
import { count, duration, flag, sizeBytes, words } from '../common-options.ts';
import { EXIT_DONE, EXIT_NO, EXIT_PARTLY } from '../exit-code.ts';
import { InputFileError } from '../failure.ts';
import { COMMON_MODES } from '../output/mode.ts';
import { packageVersion } from '../package-version.ts';
import { formatCount } from '../text-form.ts';
import { BraidTarget } from './braid-target.ts';
import { type BenchReport, cellsOf, differences, newReport, parseReport, ratiosBetween } from './report.ts';
import { CELL_SHAPE, formatUs, ratioShape } from './shapes.ts';
import { type Plan, commitOf, machineInfo, measureRound } from './suite.ts';
import { WORKLOAD_NAMES, WORKLOAD_TEXT, parseWorkload } from './workload.ts';

export interface PlanFlags {
  readonly clients: readonly number[];
  readonly valueSize: number;
  readonly keys: number;
  readonly scanLimit: number;
  readonly duration: number;
  readonly warmup: number;
  readonly rounds: number;
  readonly seed: number;
}

const CLIENTS_DEFAULT: readonly number[] = [1, 64, 256];
const CLIENTS_MAX = 10_000;
const KEYS_DEFAULT = 10_000;
const KEYS_MAX = 100_000_000;
const VALUE_BYTES_DEFAULT = 256;
const VALUE_BYTES_MAX: number = 1024 * 1024;
const SCAN_LIMIT_DEFAULT = 100;
const DURATION_MS_DEFAULT = 10_000;
const WARMUP_MS_DEFAULT = 2000;
const ROUNDS_MAX = 100;
/** The benchmark's own part of the key space; removed before and after a run. */
export const BENCH_PREFIX = '~braid-bench/';

/** Flags of a measurement; also those of bench/run.ts. */
export const planFlags = (roundsDefault: number): Option[] => [
  flag('--clients <counts>', 'numbers of clients, separated by commas')
    .default(CLIENTS_DEFAULT, CLIENTS_DEFAULT.join(','))
    .argParser((text) => words(text).map(count(1, CLIENTS_MAX))),
  flag('--value-size <size>', 'bytes per value')
    .default(VALUE_BYTES_DEFAULT)
    .argParser((text) => boundedSize(text)),
  flag('--keys <count>', 'keys in the data set').default(KEYS_DEFAULT).argParser(count(1, KEYS_MAX)),
  flag('--scan-limit <count>', 'entries per scan').default(SCAN_LIMIT_DEFAULT).argParser(count(1, 10_000)),
  flag('--duration <duration>', 'measured time per run').default(DURATION_MS_DEFAULT, '10s').argParser(duration),
  flag('--warmup <duration>', 'time before it that does not count')
    .default(WARMUP_MS_DEFAULT, '2s')
    .argParser(duration),
  flag('--rounds <count>', 'repetitions; the median is shown').default(roundsDefault).argParser(count(1, ROUNDS_MAX)),
  flag('--seed <number>', 'of keys and values')
    .default(1)
    .argParser(count(0, 2 ** 31)),
];

function boundedSize(text: string): number {
  const bytes = sizeBytes(text);
  if (bytes < 1 || bytes > VALUE_BYTES_MAX) {
    throw new InvalidArgumentError('Write a size from 1 byte to 1MiB.');
  }
  return bytes;
}

export function planOf(workloads: readonly string[], flags: PlanFlags): Plan {
  return {
    workloads: workloads.length === 0 ? WORKLOAD_NAMES : workloads.map(parseWorkload),
    clients: flags.clients,
    data: {
      keys: flags.keys,
      valueBytes: flags.valueSize,
      scanLimit: flags.scanLimit,
      keyPrefix: BENCH_PREFIX,
      seed: flags.seed,
    },
    warmupMs: flags.warmup,
    durationMs: flags.duration,
    rounds: flags.rounds,
  };
}

export function registerBenchCommands(program: Command, app: App): void {
  const bench = program
    .command('bench')
    .summary('Measure a cluster')
    .description('Measures a running cluster with named workloads and compares results.')
    .helpGroup('Measuring:');
  addCommand<PlanFlags & { save?: string }>(bench, app, {
    usage: 'run [workloads...]',
    summary: 'Measure throughput and latency of a running cluster',
    details: `Workloads: ${WORKLOAD_NAMES.map((name) => `${name} (${WORKLOAD_TEXT[name]})`).join('; ')}. All of them without a name. Its keys start with ${BENCH_PREFIX} and are removed before and afterwards.`,
    arguments: { workloads: WORKLOAD_NAMES.join(', ') },
    examples: ['braid bench run put --clients 64', 'braid bench run --duration 30s --rounds 3 --save after.json'],
    modes: COMMON_MODES,
    mode: 'table',
    options: [...planFlags(1), flag('--save <file>', 'write the whole result there, for bench compare')],
    task: () => 'measure the cluster',
    run: async (session, names, flags) => {
      const plan = planOf(names, flags);
      const db = (await session.db()).with({ timeoutMs: session.options.timeout });
      const target = new BraidTarget(db);
      const startedAt = new Date().toISOString();
      await db.deleteRange(prefix(BENCH_PREFIX));
      const runs = [];
      try {
        for (let round = 1; round <= plan.rounds; round++) {
          const results = await measureRound(target, plan, round, session.signal, {
            onStart: (text) => void session.printer.note(text).catch(() => {}),
            onResult: (result) =>
              void session.printer
                .note(
                  `  ${formatCount(result.perSecond)} ops/s, p50 ${formatUs(result.latency.p50Us)} ms, p99 ${formatUs(result.latency.p99Us)} ms`,
                )
                .catch(() => {}),
            onError: (code, error) =>
              void session.printer
                .note(`  first ${code}: ${error instanceof Error ? error.message : String(error)}`)
                .catch(() => {}),
          });
          runs.push(...results);
        }
      } finally {
        // Not with the command's signal, which may have aborted: the keys are the benchmark's own.
        await db.deleteRange(prefix(BENCH_PREFIX), { signal: new AbortController().signal });
      }
      const report = newReport({
        startedAt,
        commit: commitOf(fileURLToPath(new URL('.', import.meta.url))),
        machine: machineInfo(),
        targets: [{ name: target.name, version: packageVersion(), setup: `running cluster at ${session.options.pd}` }],
        settings: { ...plan.data, warmupMs: plan.warmupMs, durationMs: plan.durationMs, rounds: plan.rounds },
        runs,
      });
      if (flags.save !== undefined) {
        await saveReport(report, flags.save);
        await session.printer.note(`saved as ${flags.save}`);
      }
      const cells = cellsOf(report);
      await session.printer.list(CELL_SHAPE, cells, {
        commit: report.commit,
        machine: report.machine,
        settings: report.settings,
      });
      return cells.some((cell) => cell.errors > 0) ? EXIT_PARTLY : EXIT_DONE;
    },
  });
  addCommand<{ failBelow?: number }>(bench, app, {
    usage: 'compare <before> <after>',
    summary: 'Compare two saved results',
    details: 'Throughput above 1x is more, latency below 1x is sooner.',
    arguments: { before: 'file of the earlier result', after: 'file of the later one' },
    examples: [
      'braid bench compare before.json after.json',
      'braid bench compare main.json branch.json --fail-below 0.9',
    ],
    modes: COMMON_MODES,
    mode: 'table',
    options: [
      flag('--fail-below <ratio>', 'exit code 5 if any throughput fell below this multiple').argParser((text) => {
        const ratio = Number(text);
        if (!(ratio > 0)) {
          throw new InvalidArgumentError('Write a ratio such as 0.9.');
        }
        return ratio;
      }),
    ],
    task: ([before, after]) => `compare ${before} with ${after}`,
    run: async (session, [beforeFile, afterFile], flags) => {
      const before = await loadReport(beforeFile as string);
      const after = await loadReport(afterFile as string);
      for (const difference of differences(before, after)) {
        await session.printer.note(`not the same in both: ${difference}`);
      }
      const ratios = ratiosBetween(before, after);
      if (ratios.length === 0) {
        throw new InputFileError(
          'the files have no run in common',
          'measure the same workloads with the same numbers of clients',
        );
      }
      await session.printer.list(ratioShape('before', 'after'), ratios, { before: before.commit, after: after.commit });
      const worst = Math.min(...ratios.map((ratio) => ratio.throughput));
      if (flags.failBelow !== undefined && worst < flags.failBelow) {
        await session.printer.note(`the lowest throughput is ${worst.toFixed(2)}x, below ${flags.failBelow}x`);
        return EXIT_NO;
      }
      return EXIT_DONE;
    },
  });
}

export async function saveReport(report: BenchReport, file: string): Promise<void> {
  try {
    await writeFile(file, `${JSON.stringify(report, undefined, 2)}\n`);
  } catch (error) {
    throw new InputFileError(
      `${file} cannot be written: ${(error as NodeJS.ErrnoException).code ?? String(error)}`,
      'name another file',
      { cause: error },
    );
  }
}

export async function loadReport(file: string): Promise<BenchReport> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new InputFileError(
      `${file} cannot be read: ${code === 'ENOENT' ? 'there is no such file' : code}`,
      'check the path',
      { cause: error },
    );
  }
  return parseReport(text, file);
}
