/** A whole measurement of one target: load the data, then every workload with every number of clients. */
import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem, type as osType } from 'node:os';
import { type OnError, type RunResult, runWorkload } from './driver.ts';
import type { MachineInfo } from './report.ts';
import { type BenchTarget, DataSet, type WorkloadName, type WorkloadSettings, preload } from './workload.ts';

export interface Plan {
  readonly workloads: readonly WorkloadName[];
  readonly clients: readonly number[];
  readonly data: WorkloadSettings;
  readonly warmupMs: number;
  readonly durationMs: number;
  readonly rounds: number;
}

export interface SuiteEvents {
  readonly onStart: (text: string) => void;
  readonly onResult: (result: RunResult) => void;
  readonly onError: OnError;
}

/** One round on one target. The data set is written first, so that every read finds its key. */
export async function measureRound(
  target: BenchTarget,
  plan: Plan,
  round: number,
  signal: AbortSignal,
  events: SuiteEvents,
): Promise<readonly RunResult[]> {
  const data = new DataSet(plan.data);
  events.onStart(
    `${target.name}, round ${round} of ${plan.rounds}: writing ${plan.data.keys} keys of ${plan.data.valueBytes} bytes`,
  );
  await preload(target, data, signal);
  const results: RunResult[] = [];
  for (const workload of plan.workloads) {
    for (const clients of plan.clients) {
      events.onStart(`${target.name}, round ${round} of ${plan.rounds}: ${workload}, ${clients} clients`);
      const settings = { workload, clients, warmupMs: plan.warmupMs, durationMs: plan.durationMs };
      const result = await runWorkload(target, data, settings, round, signal, events.onError);
      events.onResult(result);
      results.push(result);
    }
  }
  return results;
}

export function machineInfo(): MachineInfo {
  const list = cpus();
  return {
    cpu: list[0]?.model.trim() ?? 'unknown',
    cores: list.length,
    memoryBytes: totalmem(),
    os: `${osType()} ${release()}`,
    node: process.version,
  };
}

/** The commit of the checkout this program runs from. */
export function commitOf(directory: string): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: directory, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const commit = git('rev-parse', '--short=12', 'HEAD');
    return git('status', '--porcelain', '--untracked-files=no') === '' ? commit : `${commit}-dirty`;
  } catch {
    return 'unknown';
  }
}
