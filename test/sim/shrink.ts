/**
 * Makes a failing case small: fewer actions, clients, keys, stores, less time, no jitter, while the same promise stays
 * broken. Greedy delta debugging over the case's data; every candidate is a complete run.
 */
import { performance } from 'node:perf_hooks';
import type { SimConfig } from './case.ts';
import type { AnyCase, RunFailure, RunResult } from './run-result.ts';

/** A case whose parts may be taken away: any world's. */
export interface ShrinkableCase extends AnyCase {
  readonly config: AnyCase['config'] & Partial<Omit<SimConfig, 'world'>>;
}

export interface Shrunk<Case extends ShrinkableCase> {
  readonly case: Case;
  readonly failure: RunFailure;
  readonly runs: number;
  readonly actionsBefore: number;
}

type Runner<Case> = (simCase: Case) => Promise<RunResult>;

/** @throws Error if the case does not fail at all. */
export async function shrinkCase<Case extends ShrinkableCase>(
  start: Case,
  run: Runner<Case>,
  budgetMs: number,
  say: (text: string) => void,
): Promise<Shrunk<Case>> {
  const deadlineMs = performance.now() + budgetMs;
  const first = (await run(start)).failure;
  if (first === undefined) {
    throw new Error('the case does not fail: there is nothing to shrink');
  }
  let best = { case: start, failure: first };
  let runs = 1;
  const attempt = async (candidate: Case): Promise<boolean> => {
    if (performance.now() > deadlineMs) {
      return false;
    }
    runs++;
    const { failure } = await run(candidate);
    if (failure?.invariant !== first.invariant) {
      return false;
    }
    best = { case: candidate, failure };
    return true;
  };
  const withSchedule = (schedule: Case['schedule']): Case => ({ ...best.case, schedule });
  const withConfig = (change: Partial<SimConfig>): Case => ({
    ...best.case,
    config: { ...best.case.config, ...change },
  });

  // Nothing after the failure matters, except that the history must be allowed to end.
  await attempt(withSchedule(best.case.schedule.filter((action) => action.atMs <= best.failure.atMs)));
  for (const kind of new Set(best.case.schedule.map((action) => action.kind))) {
    if (await attempt(withSchedule(best.case.schedule.filter((action) => action.kind !== kind)))) {
      say(`without ${kind}`);
    }
  }
  for (let size = Math.ceil(best.case.schedule.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < best.case.schedule.length; ) {
      const { schedule } = best.case;
      if (await attempt(withSchedule([...schedule.slice(0, at), ...schedule.slice(at + size)]))) {
        say(`${best.case.schedule.length} actions`);
      } else {
        at += size;
      }
    }
  }
  const simpler: readonly Partial<SimConfig>[] = [
    { isBiased: false },
    { liveness: 'heal' },
    { lateChance: 0 },
    { duplicateChance: 0 },
    { lossChance: 0 },
    { delayMs: [0.2, 1] },
    { writeDelayMs: [0.1, 1] },
    { valueBytes: 0 },
    { stores: 3 },
    { splitAtStart: 0 },
  ];
  for (const change of simpler) {
    if (await attempt(withConfig(change))) {
      say(Object.keys(change).join());
    }
  }
  for (const name of ['clients', 'keys', 'durationMs'] as const) {
    for (;;) {
      const whole: number = best.case.config[name] ?? 0;
      const half = Math.ceil(whole / 2);
      if (half === whole || !(await attempt(withConfig({ [name]: half })))) {
        break;
      }
      say(`${name} ${half}`);
    }
  }
  return { case: best.case, failure: best.failure, runs, actionsBefore: start.schedule.length };
}
