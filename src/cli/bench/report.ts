/**
 * The result file of a benchmark: settings, machine, commit and one entry per run; and what is derived from it: medians
 * over rounds, ratios between two targets in one file, ratios between two files. Nothing here measures.
 */
import { API_VERSION } from '../output/document.ts';
import { InputFileError } from '../failure.ts';
import { type WorkloadName, type WorkloadSettings, WORKLOAD_NAMES } from './workload.ts';
import type { LatencySummary, RunResult } from './driver.ts';

export interface MachineInfo {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly os: string;
  readonly node: string;
  /** Under the data directories, when the benchmark made them. */
  readonly fileSystem?: string;
}

export interface TargetInfo {
  readonly name: string;
  readonly version: string;
  /** How it was set up, in words. */
  readonly setup: string;
}

export interface BenchReport {
  readonly apiVersion: string;
  readonly kind: 'BenchReport';
  readonly startedAt: string;
  /** Git commit of the measured source; `unknown` outside a checkout, `-dirty` with local changes. */
  readonly commit: string;
  readonly machine: MachineInfo;
  readonly targets: readonly TargetInfo[];
  readonly settings: WorkloadSettings & {
    readonly warmupMs: number;
    readonly durationMs: number;
    readonly rounds: number;
  };
  readonly runs: readonly RunResult[];
}

export function newReport(parts: Omit<BenchReport, 'apiVersion' | 'kind'>): BenchReport {
  return { apiVersion: API_VERSION, kind: 'BenchReport', ...parts };
}

/** One workload at one number of clients on one target, over all rounds. */
export interface Cell {
  readonly target: string;
  readonly workload: WorkloadName;
  readonly clients: number;
  readonly rounds: number;
  /** Median over the rounds, and the rounds' lowest and highest. */
  readonly perSecond: number;
  readonly perSecondLow: number;
  readonly perSecondHigh: number;
  /** Medians over the rounds, except for the maximum, which is the highest of all. */
  readonly latency: LatencySummary;
  readonly errors: number;
  readonly clientCpu: number;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  if (sorted.length === 0) {
    return 0;
  }
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** In the order in which the runs first appear. */
export function cellsOf(report: BenchReport): Cell[] {
  const groups = new Map<string, RunResult[]>();
  for (const run of report.runs) {
    const name = cellName(run);
    const group = groups.get(name);
    if (group === undefined) {
      groups.set(name, [run]);
    } else {
      group.push(run);
    }
  }
  return [...groups.values()].map((runs) => {
    const first = runs[0] as RunResult;
    const of = (pick: (latency: LatencySummary) => number): number => median(runs.map((run) => pick(run.latency)));
    const throughputs = runs.map((run) => run.perSecond);
    return {
      target: first.target,
      workload: first.workload,
      clients: first.clients,
      rounds: runs.length,
      perSecond: median(throughputs),
      perSecondLow: Math.min(...throughputs),
      perSecondHigh: Math.max(...throughputs),
      latency: {
        minUs: of((l) => l.minUs),
        meanUs: of((l) => l.meanUs),
        p50Us: of((l) => l.p50Us),
        p90Us: of((l) => l.p90Us),
        p99Us: of((l) => l.p99Us),
        p999Us: of((l) => l.p999Us),
        maxUs: Math.max(...runs.map((run) => run.latency.maxUs)),
      },
      errors: runs.reduce((sum, run) => sum + Object.values(run.errors).reduce((a, b) => a + b, 0), 0),
      clientCpu: median(runs.map((run) => run.clientCpu)),
    };
  });
}

const cellName = (run: { target: string; workload: string; clients: number }): string =>
  `${run.target} ${run.workload} ${run.clients}`;

/** Throughput and latency of one cell as multiples of another one's. */
export interface Ratio {
  readonly workload: WorkloadName;
  readonly clients: number;
  readonly base: Cell;
  readonly other: Cell;
  /** Above 1: `other` does more. */
  readonly throughput: number;
  /** Below 1: `other` answers sooner. */
  readonly p50: number;
  readonly p99: number;
}

const divide = (a: number, b: number): number => (b === 0 ? Number.NaN : a / b);

const ratioOf = (base: Cell, other: Cell): Ratio => ({
  workload: other.workload,
  clients: other.clients,
  base,
  other,
  throughput: divide(other.perSecond, base.perSecond),
  p50: divide(other.latency.p50Us, base.latency.p50Us),
  p99: divide(other.latency.p99Us, base.latency.p99Us),
});

/** `target` against `peer` within one report; empty when the peer was not measured. */
export function ratiosWithin(report: BenchReport, target: string, peer: string): Ratio[] {
  const cells = cellsOf(report);
  return cells
    .filter((cell) => cell.target === target)
    .flatMap((cell) => {
      const base = cells.find((c) => c.target === peer && c.workload === cell.workload && c.clients === cell.clients);
      return base === undefined ? [] : [ratioOf(base, cell)];
    });
}

/** The cells that both reports have, the second against the first. */
export function ratiosBetween(before: BenchReport, after: BenchReport): Ratio[] {
  const known = new Map(cellsOf(before).map((cell) => [cellName(cell), cell]));
  return cellsOf(after).flatMap((cell) => {
    const base = known.get(cellName(cell));
    return base === undefined ? [] : [ratioOf(base, cell)];
  });
}

/** What makes two reports hard to compare; empty when nothing does. */
export function differences(before: BenchReport, after: BenchReport): string[] {
  const out: string[] = [];
  const check = (what: string, a: string | number, b: string | number): void => {
    if (a !== b) {
      out.push(`${what}: ${a} and ${b}`);
    }
  };
  check('processor', before.machine.cpu, after.machine.cpu);
  check('cores', before.machine.cores, after.machine.cores);
  check('Node', before.machine.node, after.machine.node);
  check('keys', before.settings.keys, after.settings.keys);
  check('value bytes', before.settings.valueBytes, after.settings.valueBytes);
  check('entries per scan', before.settings.scanLimit, after.settings.scanLimit);
  check('duration in ms', before.settings.durationMs, after.settings.durationMs);
  return out;
}

/** Reads a result file; refuses anything else with the field that is wrong. */
export function parseReport(text: string, file: string): BenchReport {
  const refuse = (what: string): never => {
    throw new InputFileError(
      `${file} is no benchmark result: ${what}`,
      'give a file that "braid bench run --save FILE" wrote',
    );
  };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return refuse(error instanceof Error ? error.message : String(error));
  }
  const report = value as Partial<BenchReport>;
  if (typeof value !== 'object' || value === null || report.kind !== 'BenchReport') {
    return refuse('its kind is not BenchReport');
  }
  if (report.apiVersion !== API_VERSION) {
    return refuse(`its apiVersion is ${String(report.apiVersion)}, this program reads ${API_VERSION}`);
  }
  if (!Array.isArray(report.runs) || report.machine === undefined || report.settings === undefined) {
    return refuse('runs, machine or settings are missing');
  }
  for (const run of report.runs as Partial<RunResult>[]) {
    const isRun =
      typeof run.target === 'string' &&
      WORKLOAD_NAMES.includes(run.workload as WorkloadName) &&
      Number.isFinite(run.clients) &&
      Number.isFinite(run.perSecond) &&
      Number.isFinite(run.latency?.p99Us);
    if (!isRun) {
      return refuse('a run lacks target, workload, clients, perSecond or latency');
    }
  }
  return value as BenchReport;
}
