/**
 * Sweeps over every effect, event and message of short operations; by default a stride keeps them short. `SIM_STRIDE=1`
 * runs all and says how many there are, `SIM_PART=2/5` a fifth of them, `SIM_SWEEP_SEED=12` another schedule.
 */
import { describe, expect, test } from 'vitest';
import { bootstrapFaults, measureBootstrap, runBootstrap } from './bootstrap-sweep.ts';
import { measurePd, pdFaults, runPdFault } from './pd-sweep.ts';
import { faultsOf, measure, runWithFault } from './sweep-run.ts';
import { SWEEP_SCENARIOS } from './sweep-scenarios.ts';

const STRIDE = Number(process.env['SIM_STRIDE'] ?? 23);
const [PART, PARTS] = (process.env['SIM_PART'] ?? '1/1').split('/').map(Number) as [number, number];
const SEED = Number(process.env['SIM_SWEEP_SEED'] ?? 11);

/** Runs every so many faults, and says how many there are when none is left out. */
async function sweep<T>(
  name: string,
  size: object,
  faults: readonly T[],
  run: (fault: T) => Promise<unknown>,
): Promise<void> {
  expect(faults.length).toBeGreaterThan(50);
  let ran = 0;
  for (let n = (PART - 1) * STRIDE; n < faults.length; n += STRIDE * PARTS) {
    const fault = faults[n] as T;
    ran++;
    try {
      await run(fault);
    } catch (error) {
      throw new Error(`${name} with ${JSON.stringify(fault)}`, { cause: error });
    }
  }
  if (STRIDE === 1) {
    process.stderr.write(`${JSON.stringify({ name, ...size, faults: faults.length, ran })}\n`);
  }
}

describe('sweeps', () => {
  for (const scenario of SWEEP_SCENARIOS) {
    test(`${scenario.name}: death at any effect and after any event, any message lost, doubled or late`, async () => {
      const size = await measure(scenario, SEED);
      await sweep(scenario.name, size, faultsOf(scenario, size), (fault) => runWithFault(scenario, SEED, fault));
    });
  }

  test('a cluster comes into being: death at any effect and after any event, any connection broken', async () => {
    const size = await measureBootstrap(SEED);
    await sweep('bootstrap', size, bootstrapFaults(size), (fault) => runBootstrap(SEED, fault));
  });

  test('the placement service hands over: death at any effect and after any event, any message lost, doubled or late', async () => {
    const size = await measurePd(SEED);
    await sweep('placement handover', size, pdFaults(size), (fault) => runPdFault(SEED, fault));
  });
});
