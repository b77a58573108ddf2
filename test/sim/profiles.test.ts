/** A bounded run of every profile, and the proof that seeds replay. Longer runs: docs/testing.md. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { checkHistory } from '../../jepsen-lite/checkers.ts';
import { HistoryFormatError, parseJsonl } from '../../jepsen-lite/history.ts';
import { runFrontEnd } from './front-end.ts';

const folder = mkdtempSync(join(tmpdir(), 'sim-'));
afterAll(() => rmSync(folder, { recursive: true }));

const RUNS: readonly (readonly [profile: string, seeds: number])[] = [
  ['lite', 40],
  ['merge-storm', 15],
  ['move-storm', 12],
  ['membership', 12],
  ['clock', 15],
  ['disk', 15],
  ['overload', 5],
  ['lossy', 8],
  ['disaster', 8],
  ['unsafe-clock', 6],
  ['chaos', 2],
  ['chaos-snapshots', 2],
  ['chaos-orders', 2],
  ['chaos-starved', 2],
  ['full', 4],
  ['pd-chaos', 6],
];

/** Points that no history can pass, and why. */
const UNREACHABLE_POINTS: ReadonlyMap<string, string> = new Map([
  ['test::point', 'exists for the tests of the registry'],
  ['peer::before-inherit-fence', 'only damaged data is fenced; scenario "the fence goes with the data"'],
  ['peer::after-inherit-fence', 'as above'],
  ['apply::before-verify-hash', 'a verdict is proposed only when replicas differ, which no sound history shows'],
]);

describe('random histories', () => {
  /** Points that no profile so far has passed. */
  let missed: ReadonlySet<string> | undefined;

  for (const [profile, seeds] of RUNS) {
    test(`${profile}: ${seeds} seeds keep every promise`, async () => {
      const { code, output } = await runFrontEnd(['--profile', profile, '--seeds', String(seeds), '--jobs', '2']);
      expect(code, output).toBe(0);
      expect(output).toContain(`${profile}: ${seeds} histories, 0 failed`);
      const line = /^points never passed: (.*)$/m.exec(output)?.[1];
      if (line !== undefined) {
        const here = new Set(line.split(', '));
        missed = missed === undefined ? here : new Set([...missed].filter((name) => here.has(name)));
      }
      // A run in which nothing was split, merged, answered or compared proves nothing.
      const count = (name: string): number => Number(new RegExp(`\\b${name} (\\d+)`).exec(output)?.[1] ?? 0);
      for (const name of [
        ...(profile === 'lossy' || profile === 'disaster' ? ['refused-damaged', 'refused-rolled-back'] : ['split']),
        'status',
        'replicas',
        // Where damage is beyond what can be borne, the rules about single entries are not looked at.
        ...(profile === 'disaster' ? [] : ['entries']),
        ...(profile === 'pd-chaos' ? [] : ['log records']),
        // In so few histories nobody may restart who has promised something.
        ...(profile === 'unsafe-clock' ? [] : ['promises']),
        ...(profile === 'pd-chaos'
          ? ['crash-pd', 'pd-commands', 'pd-timestamps', 'converged']
          : profile === 'unsafe-clock'
            ? []
            : ['crash']),
      ]) {
        expect(count(name), `${name} in ${output}`).toBeGreaterThan(0);
      }
      if (profile === 'lite') {
        expect(count('children'), 'some splits make several regions').toBeGreaterThan(count('splits'));
      }
      expect(Number(/(\d+) operations/.exec(output)?.[1])).toBeGreaterThan(seeds * 10);
    });
  }

  test('a seed of the sweep runs again, also one in which store 3 led before it was cut off', async () => {
    const { code, output } = await runFrontEnd(['--profile', 'sweep', '--seed', '300008']);
    expect(code, output).toBe(0);
    expect(output).toContain('sweep: 1 histories, 0 failed');
    expect((await runFrontEnd(['--profile', 'sweep', '--seed', '300008', '--shrink'])).code).toBe(2);
  });

  test('a lasting fault is chosen while a replica is on its way out and its log is gone', async () => {
    const { code, output } = await runFrontEnd(['--profile', 'merge-storm', '--seed', '203086']);
    expect(code, output).toBe(0);
  });

  test('together they pass every failpoint of the program', () => {
    expect(
      [...(missed ?? ['no profile has run'])].filter((name) => !UNREACHABLE_POINTS.has(name) && name !== 'none'),
    ).toEqual([]);
  });
});

describe('the placement service alone', () => {
  test('pd: 300 seeds keep PD1 and end in order', async () => {
    const { code, output } = await runFrontEnd(['--profile', 'pd', '--seeds', '300', '--jobs', '2']);
    expect(code, output).toBe(0);
    expect(output).toContain('pd: 300 histories, 0 failed');
    const count = (name: string): number => Number(new RegExp(`\\b${name} (\\d+)`).exec(output)?.[1] ?? 0);
    for (const name of ['crash-pd', 'merge:committed', 'executed:split', 'pd-quorums', 'pd-timestamps', 'pd-ids']) {
      expect(count(name), `${name} in ${output}`).toBeGreaterThan(100);
    }
  });
});

describe('several members of the placement service', () => {
  test('pd-members: 60 seeds keep PD1 and PD2 and end in order', async () => {
    const { code, output } = await runFrontEnd(['--profile', 'pd-members', '--seeds', '60', '--jobs', '2']);
    expect(code, output).toBe(0);
    const count = (name: string): number => Number(new RegExp(`\\b${name} (\\d+)`).exec(output)?.[1] ?? 0);
    for (const name of ['lead', 'crash-pd', 'cut-pd', 'transfer-pd', 'join-pd', 'replace-pd', 'merge:committed']) {
      expect(count(name), `${name} in ${output}`).toBeGreaterThan(3);
    }
    for (const name of ['documents:restarted', 'pd-documents', 'pd-phase:InWorkerMerge:completed', 'pd-quorums']) {
      expect(count(name), `${name} in ${output}`).toBeGreaterThan(3);
    }
  });
});

describe('placement rules', () => {
  test('pd-rules: 40 seeds end as the rules ask for', async () => {
    const { code, output } = await runFrontEnd(['--profile', 'pd-rules', '--seeds', '40', '--jobs', '2']);
    expect(code, output).toBe(0);
    const count = (name: string): number => Number(new RegExp(`\\b${name} (\\d+)`).exec(output)?.[1] ?? 0);
    for (const name of ['set-rule', 'delete-rule', 'executed:change-peer-joint', 'pd-rules', 'crash-pd']) {
      expect(count(name), `${name} in ${output}`).toBeGreaterThan(20);
    }
  });
});

describe('determinism', () => {
  test.each([
    ['full', 2],
    ['pd', 60],
    ['pd-members', 12],
    ['pd-rules', 20],
  ])('%s: %i seeds give the same trace whatever ran before them', async (profile, seeds) => {
    const hashes = async (jobs: number): Promise<string[]> => {
      const args = ['--profile', profile, '--seeds', String(seeds), '--first-seed', '31', '--jobs', String(jobs)];
      const { code, output } = await runFrontEnd([...args, '--hashes']);
      expect(code, output).toBe(0);
      return output
        .split('\n')
        .filter((line) => /^\S+ \d+ [0-9a-f]{16}$/.test(line))
        .sort();
    };
    const alone = await hashes(1);
    expect(alone.length).toBe(seeds);
    expect(await hashes(2)).toEqual(alone);
  });

  test('200 seeds give the same trace in a fresh process and after other seeds', async () => {
    const sorted = (byRun: Map<string, string>): string[] =>
      [...byRun].map(([run, hash]) => `${run} ${hash}`).sort((a, b) => (a < b ? -1 : 1));
    const hashes = async (args: readonly string[]): Promise<Map<string, string>> => {
      const { code, output } = await runFrontEnd([...args, '--profile', 'lite', '--hashes']);
      expect(code, output).toBe(0);
      return new Map(
        [...output.matchAll(/^lite (\d+) ([0-9a-f]{16})$/gm)].map((m) => [m[1] as string, m[2] as string]),
      );
    };
    // Two workers run every second seed each; one worker runs all of them in a row: different predecessors, same traces.
    const two = await hashes(['--seeds', '200', '--first-seed', '501', '--jobs', '2']);
    const four = await hashes(['--seeds', '200', '--first-seed', '501', '--jobs', '3']);
    expect(two.size).toBe(200);
    expect(new Set(two.values()).size).toBe(200);
    expect(sorted(four)).toEqual(sorted(two));
  });
});

describe('recorded histories', () => {
  test('changing one byte makes the checkers fail', async () => {
    const path = join(folder, 'history.jsonl');
    const { code, output } = await runFrontEnd(['--profile', 'lite', '--seed', '3', '--history', path]);
    expect(code, output).toBe(0);
    const text = readFileSync(path, 'utf8');
    expect(checkHistory(parseJsonl(text)).problems).toEqual([]);
    // A value that was read becomes one that nobody wrote; every single one of them must be noticed.
    const answers = [...text.matchAll(/"type":"ok","response":\{"f":"get","value":"\d/g)];
    expect(answers.length).toBeGreaterThan(10);
    for (const match of answers) {
      const at = match.index + match[0].length - 1;
      const changed = `${text.slice(0, at)}x${text.slice(at + 1)}`;
      expect(checkHistory(parseJsonl(changed)).problems.length, `byte ${at}`).toBeGreaterThan(0);
    }
    // And damage to the form of a line is no history at all.
    const broken = text.replace('"type":"invoke"', '"type":"invoze"');
    expect(() => checkHistory(parseJsonl(broken))).toThrow(HistoryFormatError);
  });
});
