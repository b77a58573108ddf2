/**
 * The program behind `npm run sim`: runs cases in this process and prints one JSON line for each, for the front end in
 * `scripts/sim.js` to count and show. Reads its orders as JSON from the command line.
 */
import { writeFileSync } from 'node:fs';
import { toJsonl } from '../../jepsen-lite/history.ts';
import { drawCase, type ProfileName, type SimCase } from './case.ts';
import { drawFullCase, FULL_PROFILES, type FullCase, type FullProfile } from './full-case.ts';
import { runFull } from './full-world.ts';
import { runLite } from './lite-world.ts';
import { drawPdCase, PD_PROFILES, type PdCase, type PdProfile } from './pd-case.ts';
import { runPd } from './pd-world.ts';
import type { RunResult } from './run-result.ts';
import { shrinkCase } from './shrink.ts';
import { runSweep } from './sweep.ts';
import { FailStop } from './store-cluster.ts';
import { tracePage } from './trace-page.ts';

type AnyProfile = ProfileName | FullProfile | PdProfile;
type WorldCase = SimCase | FullCase | PdCase;

export type Order =
  | {
      readonly type: 'seeds';
      readonly profile: AnyProfile;
      readonly first: number;
      readonly step: number;
      readonly count: number;
      readonly stopMs: number;
    }
  | { readonly type: 'draw'; readonly profile: Exclude<AnyProfile, 'sweep'>; readonly seed: number }
  | { readonly type: 'case'; readonly case: WorldCase; readonly history?: string; readonly trace?: string }
  | { readonly type: 'shrink'; readonly case: WorldCase; readonly budgetMs: number };

// A store that stops itself throws through whatever called it; inside a promise nobody is left to catch that.
process.on('unhandledRejection', (error) => {
  if (!(error instanceof FailStop)) {
    throw error;
  }
});

const print = (value: unknown): void => {
  process.stdout.write(`${JSON.stringify(value)}\n`);
};

const isFull = (profile: string): profile is FullProfile => (FULL_PROFILES as readonly string[]).includes(profile);
const isPd = (profile: string): profile is PdProfile => (PD_PROFILES as readonly string[]).includes(profile);
const isFullCase = (simCase: WorldCase): simCase is FullCase => simCase.config.world === 'full';
const isPdCase = (simCase: WorldCase): simCase is PdCase => simCase.config.world === 'pd';

export const draw = (profile: Exclude<AnyProfile, 'sweep'>, seed: number): WorldCase =>
  isPd(profile) ? drawPdCase(seed, profile) : isFull(profile) ? drawFullCase(profile, seed) : drawCase(profile, seed);

export function runCase(simCase: WorldCase, options: { readonly trace?: boolean } = {}): Promise<RunResult> {
  if (isPdCase(simCase)) {
    return runPd(simCase, options);
  }
  return isFullCase(simCase) ? runFull(simCase, options) : runLite(simCase, options);
}

/** Processor time of this process; wall time would measure what else the machine does. */
export const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

function summary(result: RunResult, usedMs: number): unknown {
  const { case: simCase, failure, stats, traceHash } = result;
  return {
    type: 'result',
    seed: simCase.seed,
    profile: simCase.profile,
    traceHash,
    stats,
    cpuMs: Math.round(usedMs),
    ...(failure === undefined ? {} : { failure, case: simCase }),
  };
}

async function main(): Promise<void> {
  const order = JSON.parse(process.argv[2] ?? '') as Order;
  switch (order.type) {
    case 'seeds': {
      const startMs = performance.now();
      for (let i = 0; i < order.count; i++) {
        const seed = order.first + i * order.step;
        if (performance.now() - startMs > order.stopMs) {
          break;
        }
        const fromMs = cpuMs();
        if (order.profile === 'sweep') {
          print(await runSweep(seed));
        } else {
          print(summary(await runCase(draw(order.profile, seed)), cpuMs() - fromMs));
        }
      }
      return;
    }
    case 'draw':
      print({ case: draw(order.profile, order.seed) });
      return;
    case 'case': {
      const fromMs = cpuMs();
      const result = await runCase(order.case, { trace: order.trace !== undefined });
      if (order.history !== undefined) {
        writeFileSync(order.history, toJsonl(result.history));
      }
      if (order.trace !== undefined) {
        writeFileSync(order.trace, tracePage(result));
      }
      print(summary(result, cpuMs() - fromMs));
      return;
    }
    case 'shrink': {
      const say = (text: string): void => print({ type: 'progress', text });
      const shrunk = isPdCase(order.case)
        ? await shrinkCase(order.case, runCase, order.budgetMs, say)
        : isFullCase(order.case)
          ? await shrinkCase(order.case, runCase, order.budgetMs, say)
          : await shrinkCase(order.case, runCase, order.budgetMs, say);
      print({ type: 'shrunk', ...shrunk });
    }
  }
}

await main();
