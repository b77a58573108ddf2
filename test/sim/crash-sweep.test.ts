/** Sweeps over every event and message of short scenarios; by default a stride keeps them short (`SIM_STRIDE=1`: all). */
import { describe, expect, test } from 'vitest';
import { faultsOf, runWithFault, SWEEP_SCENARIOS } from './sweep-scenarios.ts';

const STRIDE = Number(process.env['SIM_STRIDE'] ?? 13);
const SEED = 11;

describe('sweeps', () => {
  for (const scenario of SWEEP_SCENARIOS) {
    test(`${scenario.name}: a crash after any event, any message lost, doubled or late`, async () => {
      const faults = await faultsOf(scenario, SEED);
      expect(faults.length).toBeGreaterThan(50);
      for (let n = 0; n < faults.length; n += STRIDE) {
        const fault = faults[n] as (typeof faults)[number];
        try {
          await runWithFault(scenario, SEED, fault);
        } catch (error) {
          throw new Error(`${scenario.name} with ${JSON.stringify(fault)}`, { cause: error });
        }
      }
    });
  }
});
