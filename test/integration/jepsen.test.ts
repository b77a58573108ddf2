/** The harness for real processes: a short run with kill -9, and that a falsified history does not pass. */
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { checkHistory } from '../../jepsen-lite/checkers.ts';
import { parseJsonl } from '../../jepsen-lite/history.ts';
import { runReal } from '../../jepsen-lite/real/run.ts';
import { ensureBuilt } from './cluster.ts';

let directory: string | undefined;

afterEach(() => {
  if (directory !== undefined) {
    rmSync(directory, { recursive: true, force: true });
  }
});

test('a hot range that splits, merges and moves under kill -9 shows no wrong result', async () => {
  ensureBuilt();
  directory = mkdtempSync(join(tmpdir(), 'braid-jepsen-'));
  const lines: string[] = [];
  const summary = await runReal({
    directory,
    seed: 11,
    faultsMs: 15_000,
    stores: 4,
    clients: 6,
    rate: 200,
    plan: { killEveryMs: 6000, pauseEveryMs: 0, killPd: false, killAll: false, regionsMax: 5 },
    onProgress: (line) => lines.push(line),
  });
  expect(summary.problems, lines.join('\n')).toEqual([]);
  expect(summary.verdict).toBe('pass');
  expect(summary.outages).toBeGreaterThan(0);
  expect(existsSync(join(directory, 'report.html'))).toBe(true);

  // One more answer that nobody can have been given.
  const file = join(directory, 'history.jsonl');
  const events = parseJsonl(readFileSync(file, 'utf8'));
  const { i, t } = events.at(-1) as { i: number; t: number };
  const process = 1_000_000;
  const request = { f: 'get', key: 'hot/0000/k00' };
  appendFileSync(file, `${JSON.stringify({ i: i + 1, t, process, type: 'invoke', request })}\n`);
  const response = { f: 'get', value: 'never written' };
  appendFileSync(file, `${JSON.stringify({ i: i + 2, t, process, type: 'ok', response })}\n`);
  expect(checkHistory(parseJsonl(readFileSync(file, 'utf8'))).problems).toHaveLength(1);
});
