/** Planted defects must fit the source they change; measuring them takes long (`npm run sim -- --defects`). */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { DEFECTS } from '../../scripts/sim-defects.js';
import { runFrontEnd } from './front-end.ts';

describe('planted defects', () => {
  test('each changes exactly one place of the source', () => {
    const misfits = DEFECTS.filter(({ file, find, replace }) => {
      const text = readFileSync(fileURLToPath(new URL(`../../${file}`, import.meta.url)), 'utf8');
      return text.split(find).length !== 2 || find === replace;
    });
    expect(misfits.map(({ name }) => name)).toEqual([]);
    expect(DEFECTS.length).toBeGreaterThanOrEqual(25);
  });

  for (const name of ['read-index-not-awaited', 'cas-ignores-expected']) {
    test(`${name} is found within a few seeds`, async () => {
      const { code, output } = await runFrontEnd(['--profile', 'lite', '--seeds', '12', '--defect', name]);
      expect(code, output).toBe(1);
      // The clients' histories show it, or sooner the replicas and answers beside the model of their log.
      expect(output).toMatch(/: (linearizable|R7|I21) at /);
    });
  }
});
