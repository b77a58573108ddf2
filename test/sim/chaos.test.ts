import { describe, expect, test } from 'vitest';
import { MERGE_STORM, runChaos } from './chaos.ts';

const FIRST = Number(process.env['SIM_SEED'] ?? 1);
const COUNT = Number(process.env['SIM_SEEDS'] ?? 20);

describe('random histories', () => {
  for (let seed = FIRST; seed < FIRST + COUNT; seed++) {
    test(`merge storm, seed ${seed}`, async () => {
      const result = await runChaos(seed, MERGE_STORM);
      expect(result.acknowledged).toBeGreaterThan(50);
      if (process.env['SIM_PRINT'] !== undefined) {
        process.stdout.write(`${JSON.stringify(result)}\n`);
      }
    });
  }
});
