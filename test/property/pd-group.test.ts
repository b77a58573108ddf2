/** Random histories of a placement service; `PD_HISTORIES` and `PD_FIRST_SEED` choose how many and which. */
import { describe, expect, test } from 'vitest';
import { PdHistory } from '../support/pd-history.ts';

const HISTORIES = Number(process.env['PD_HISTORIES'] ?? 40);
const FIRST_SEED = Number(process.env['PD_FIRST_SEED'] ?? 1);

describe('a replicated placement service', () => {
  test(`keeps ids and timestamps unique and growing over ${HISTORIES} random histories`, async () => {
    let answers = 0;
    for (let seed = FIRST_SEED; seed < FIRST_SEED + HISTORIES; seed++) {
      const history = new PdHistory(seed);
      try {
        await history.run();
      } catch (cause) {
        throw new Error(
          `seed ${seed}: PD_FIRST_SEED=${seed} PD_HISTORIES=1 npx vitest run --project property test/property/pd-group.test.ts`,
          { cause },
        );
      }
      answers += history.timestamps.length;
    }
    expect(answers).toBeGreaterThan(HISTORIES * 10);
  });
});
