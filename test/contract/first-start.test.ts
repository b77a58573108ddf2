/**
 * The very first start of a store on real files dies after each thing its files saw (created, flushed, synced, renamed),
 * with and without a power cut. The next start must find its way: one store id, one first region, which the placement
 * service knows. `FIRST_START_STRIDE=1` tries every point, `FIRST_START_PART=2/5` a fifth of them.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { createRng } from '../../src/env/rng.ts';
import { buildLedger, cutPower, parseLedger } from '../support/sync-ledger.ts';

const STARTER = fileURLToPath(new URL('../support/first-starter.ts', import.meta.url));
const STRIDE = Number(process.env['FIRST_START_STRIDE'] ?? 17);
const [PART, PARTS] = (process.env['FIRST_START_PART'] ?? '1/1').split('/').map(Number) as [number, number];
/** For every point, with room for a busy machine. */
const LIMIT_MS = 1_200_000;

const root = mkdtempSync(join(tmpdir(), 'braid-first-'));
const library = buildLedger(root);
let runs = 0;

interface Home {
  readonly data: string;
  readonly pd: string;
  readonly ledger: string;
}

interface Outcome {
  readonly store: number;
  readonly regions: readonly number[];
}

function newHome(): Home {
  const home = join(root, String(runs++));
  mkdirSync(home);
  return { data: join(home, 'data'), pd: join(home, 'pd.json'), ledger: join(home, 'ledger') };
}

/** Starts the store; undefined if it died at the line of the ledger it was to die at. */
function start({ data, pd, ledger }: Home, dieAt?: number): Outcome | undefined {
  const { signal, status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', STARTER, data, pd], {
    env: {
      ...process.env,
      ...(library === undefined ? {} : { LD_PRELOAD: library }),
      SYNC_LEDGER: ledger,
      SYNC_LEDGER_DIR: data,
      ...(dieAt === undefined ? {} : { SYNC_LEDGER_KILL: String(dieAt) }),
    },
    timeout: 60_000,
    encoding: 'utf8',
  });
  if (signal === 'SIGKILL' && dieAt !== undefined) {
    return undefined;
  }
  expect(status, stderr).toBe(0);
  return JSON.parse(stdout) as Outcome;
}

afterAll(() => rmSync(root, { recursive: true, force: true }));

// Needs Linux and a C compiler; a notice says so where they are missing.
describe.runIf(library !== undefined)('the first start of the first store', () => {
  test('that dies at any point is finished by the next one', { timeout: LIMIT_MS }, () => {
    const calm = newHome();
    expect(start(calm)).toEqual({ store: 1, regions: [2] });
    const points = parseLedger(readFileSync(calm.ledger, 'utf8')).length;
    expect(points).toBeGreaterThan(30);
    for (let k = 1 + (PART - 1) * STRIDE; k <= points; k += STRIDE * PARTS) {
      for (const losesPower of [false, true]) {
        const where = `after line ${k}${losesPower ? ' with a power cut' : ''}`;
        const home = newHome();
        expect(start(home, k), where).toBeUndefined();
        if (losesPower) {
          cutPower(home.data, parseLedger(readFileSync(home.ledger, 'utf8')), createRng(k));
        }
        const again = start(home);
        const { first } = JSON.parse(readFileSync(home.pd, 'utf8')) as { first: { region: number; store: number } };
        expect(again, where).toEqual({ store: first.store, regions: [first.region] });
        if (losesPower) {
          expect(start(home), where).toEqual(again);
        }
      }
    }
    if (STRIDE === 1) {
      process.stderr.write(`${points} points of the first start\n`);
    }
  });
});
