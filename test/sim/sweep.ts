/** One run of the profile `sweep`: the seed chooses scenario, fault and schedule, so that consecutive seeds cover all. */
import { faultsOf, measure, runWithFault, type SweepFault } from './sweep-run.ts';
import { SWEEP_SCENARIOS } from './sweep-scenarios.ts';
import { InvariantError } from './invariants.ts';

const FAULTS: Map<string, SweepFault[]> = new Map();

export async function runSweep(seed: number): Promise<unknown> {
  const scenario = SWEEP_SCENARIOS[seed % SWEEP_SCENARIOS.length];
  if (scenario === undefined) {
    throw new Error('there are no scenarios');
  }
  const round = Math.floor(seed / SWEEP_SCENARIOS.length);
  const schedule = 11 + Math.floor(round / 1_000);
  const stats = {
    events: 0,
    virtualMs: 0,
    ok: 1,
    failed: 0,
    unknown: 0,
    actions: {} as Record<string, number>,
    checks: {},
  };
  const fromMs = performance.now();
  const result = { type: 'result', seed, profile: 'sweep', traceHash: '', stats };
  let what = scenario.name;
  let k = 0;
  try {
    const key = `${scenario.name}/${schedule}`;
    const faults = FAULTS.get(key) ?? faultsOf(scenario, await measure(scenario, schedule));
    FAULTS.set(key, faults);
    // A stride that shares no factor with most lengths visits every fault before it repeats one.
    const fault = faults[(round * 101) % faults.length] as SweepFault;
    what = `${scenario.name}, ${JSON.stringify(fault)}`;
    ({ k } = fault);
    stats.actions[`${scenario.name}, ${fault.type}`] = 1;
    stats.events = (await runWithFault(scenario, schedule, fault)).events;
    return { ...result, cpuMs: performance.now() - fromMs };
  } catch (error) {
    return {
      ...result,
      cpuMs: performance.now() - fromMs,
      failure: {
        invariant: error instanceof InvariantError ? error.invariant : 'sweep',
        message: `${what}: ${error instanceof Error ? error.message : String(error)}`,
        atMs: 0,
        event: k,
      },
    };
  }
}
