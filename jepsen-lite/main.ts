/**
 * Breaks a real cluster while clients use it, and judges what they were told:
 *
 *   npm run jepsen -- --duration 10m --kill-every 15s          stores are killed, regions split, merge and move
 *   npm run jepsen -- --duration 2m --pause-every 20s --kill-pd --kill-all --seed 7
 *   npm run jepsen -- --recheck .tmp/jepsen/run-1               judges a kept history again
 *
 * Exit codes: 0 pass; 1 a wrong result; 2 no progress after healing; 3 a member ended by itself; 4 the run proves
 * nothing; 5 the environment failed.
 */
import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import { formatUs } from '../src/cli/bench/shapes.ts';
import { count, duration } from '../src/cli/common-options.ts';
import { formatTable } from '../src/cli/output/table.ts';
import { checkHistory } from './checkers.ts';
import { parseJsonl } from './history.ts';
import { type LatencyRow, runReal, type RunSummary, type Verdict } from './real/run.ts';

const ROOT: string = fileURLToPath(new URL('..', import.meta.url));
const EXIT_CODES: Readonly<Record<Verdict, number>> = {
  pass: 0,
  'wrong-result': 1,
  'no-progress': 2,
  crash: 3,
  vacuous: 4,
  invalid: 5,
};

interface Flags {
  readonly duration: number;
  readonly killEvery: number;
  readonly pauseEvery: number;
  readonly killPd: boolean;
  readonly killAll: boolean;
  readonly stores: number;
  readonly clients: number;
  readonly rate: number;
  readonly regionsMax: number;
  readonly seed: number;
  readonly dir: string;
  readonly recheck?: string;
}

function print(summary: RunSummary): void {
  const { verdict, operations, seconds, keys, undecided, unknown, failed, errors, outages, changes } = summary;
  process.stdout.write(
    `${operations} operations on ${keys} keys in ${seconds} s (${unknown} with unknown outcome, ${failed} refused, ${undecided} keys undecided); ${outages} outages\n`,
  );
  process.stdout.write(
    `${changes.map(({ kind, done, other }) => `${kind}: ${done} done, ${other} ended otherwise`).join('; ')}\n`,
  );
  process.stdout.write(
    `errors: ${
      Object.entries(errors)
        .map(([code, n]) => `${code} ${n}`)
        .join(', ') || 'none'
    }\n\n`,
  );
  process.stdout.write(
    formatTable(
      [
        { head: 'when', cell: (row: LatencyRow) => row.when },
        { head: 'kind', cell: (row) => row.kind },
        { head: 'answers', cell: (row) => row.answered, align: 'right' },
        { head: 'failed', cell: (row) => row.failed, align: 'right' },
        { head: 'p50-ms', cell: (row) => formatUs(row.latency.p50Us), align: 'right' },
        { head: 'p99-ms', cell: (row) => formatUs(row.latency.p99Us), align: 'right' },
        { head: 'max-ms', cell: (row) => formatUs(row.latency.maxUs), align: 'right' },
      ],
      summary.latencies,
      true,
    ),
  );
  const PROBLEMS_SHOWN = 5;
  for (const problem of summary.problems.slice(0, PROBLEMS_SHOWN)) {
    process.stdout.write(`\n${problem}\n`);
  }
  process.stdout.write(`\nverdict: ${verdict}\n`);
}

function recheck(directory: string): void {
  const { problems, operations, keys, undecided } = checkHistory(
    parseJsonl(readFileSync(join(directory, 'history.jsonl'), 'utf8')),
    { ttlSlackNs: 1e9 },
  );
  for (const problem of problems) {
    process.stdout.write(`${problem.promise}: ${problem.text}\n`);
  }
  process.stdout.write(
    `${operations} operations on ${keys} keys, ${undecided.length} undecided: ${problems.length === 0 ? 'pass' : `${problems.length} problems`}\n`,
  );
  process.exitCode = problems.length === 0 ? 0 : EXIT_CODES['wrong-result'];
}

async function main(flags: Flags): Promise<void> {
  if (flags.recheck !== undefined) {
    recheck(flags.recheck);
    return;
  }
  mkdirSync(flags.dir, { recursive: true });
  const directory = mkdtempSync(join(resolve(flags.dir), `seed-${flags.seed}-`));
  process.stderr.write(`everything about this run is kept in ${directory}\n`);
  const summary = await runReal({
    directory,
    seed: flags.seed,
    faultsMs: flags.duration,
    stores: flags.stores,
    clients: flags.clients,
    rate: flags.rate,
    plan: {
      killEveryMs: flags.killEvery,
      pauseEveryMs: flags.pauseEvery,
      killPd: flags.killPd,
      killAll: flags.killAll,
      regionsMax: flags.regionsMax,
    },
    onProgress: (line) => process.stderr.write(`${line}\n`),
  });
  print(summary);
  process.exitCode = EXIT_CODES[summary.verdict];
}

const program = new Command('jepsen')
  .description('Breaks a real cluster while clients use it, and judges what they were told.')
  .addOption(new Option('--duration <time>', 'how long faults last').default(60_000, '1m').argParser(duration))
  .addOption(
    new Option('--kill-every <time>', 'mean interval of kill -9 of a store; 0s = never')
      .default(15_000, '15s')
      .argParser(duration),
  )
  .addOption(
    new Option('--pause-every <time>', 'mean interval of SIGSTOP of a store; 0s = never')
      .default(0, '0s')
      .argParser(duration),
  )
  .addOption(new Option('--kill-pd', 'the placement service is killed, too').default(false))
  .addOption(new Option('--kill-all', 'now and then everything is killed at once').default(false))
  .addOption(new Option('--stores <count>', 'stores; regions have three replicas').default(4).argParser(count(3, 9)))
  .addOption(new Option('--clients <count>', 'clients').default(8).argParser(count(1, 12)))
  .addOption(new Option('--rate <count>', 'operations per second, as a goal').default(500).argParser(count(1, 5000)))
  .addOption(new Option('--regions-max <count>', 'more are merged').default(6).argParser(count(2, 16)))
  .addOption(new Option('--seed <number>', 'of everything drawn').default(1).argParser(count(0, 2 ** 31)))
  .addOption(
    new Option('--dir <directory>', 'where runs are kept; must be on a disk').default(
      join(ROOT, '.tmp', 'jepsen'),
      '.tmp/jepsen',
    ),
  )
  .addOption(new Option('--recheck <directory>', 'only judge the history of this run again'))
  .action((_, command: Command) => main(command.opts<Flags>()));
await program.parseAsync();
