import { describe, expect, test } from 'vitest';
import { parseParameter, parameterText } from '../../../src/cli/ctl/parameter-text.ts';
import type { SchedulerParameter } from '../../../src/client/schedulers.ts';
import { FakeAdmin } from './fake-admin.ts';

const MIB = 1024 * 1024;
const ctl = (admin: FakeAdmin, ...words: readonly string[]) => admin.run(['ctl', ...words]);

describe('ctl scheduler list and ctl checker list', () => {
  test('show what takes part, what does not, and what is not as by default', async () => {
    const admin = new FakeAdmin();
    await ctl(admin, 'checker', 'config', 'merge-checker', 'limit=2', 'max-merge-region-size=8MiB');
    const { stdout } = await ctl(admin, 'scheduler', 'list');
    expect(stdout).toMatch(/^NAME +KIND +STATE +STORES +CHANGED +IDLE BECAUSE +WHAT\n/);
    expect(stdout).toMatch(/merge-checker +checker +off +- +max-merge-region-size=8MiB limit=2 +- +does merge-checker/);
    expect(stdout).toMatch(/hot-region +scheduler +off until 2000-01-01T00:01:00.000Z/);
    expect(stdout).toMatch(/grant-leader +scheduler +not added/);
    expect(stdout).toMatch(/balance-leader +scheduler +removed/);
    const checkers = await ctl(admin, 'checker', 'list', '-o', 'name');
    expect(checkers.stdout).toBe('merge-checker\nlearner-checker\n');
    const json = JSON.parse((await ctl(admin, 'scheduler', 'list', '-o', 'json')).stdout) as { items: unknown[] };
    expect(json).toMatchObject({ kind: 'SchedulerList' });
    expect(json.items[1]).toMatchObject({
      name: 'merge-checker',
      kind: 'checker',
      enabled: false,
      state: 'off',
      version: 1,
      parameters: [{ name: 'max-merge-region-size', value: 8 * MIB, default: 4 * MIB, isDefault: false }, {}, {}],
    });
  });
});

describe('ctl scheduler config', () => {
  test('shows every parameter with its value, default, range and unit', async () => {
    const admin = new FakeAdmin();
    const { stdout } = await ctl(admin, 'scheduler', 'config', 'merge-checker');
    expect(stdout).toMatch(/^PARAMETER +VALUE +DEFAULT +RANGE +UNIT +WHAT\n/);
    expect(stdout).toMatch(/max-merge-region-size +4MiB +4MiB +0B to 96MiB +bytes/);
    expect(stdout).toMatch(/split-merge-interval +5m +5m +0ms to 7d +milliseconds/);
    const json = JSON.parse((await ctl(admin, 'checker', 'config', 'merge-checker', '-o', 'json')).stdout) as unknown;
    expect(json).toMatchObject({
      kind: 'SchedulerConfig',
      name: 'merge-checker',
      version: 0,
      items: [{ name: 'max-merge-region-size', value: 4 * MIB, min: 0, max: 96 * MIB, unit: 'bytes' }, {}, {}],
    });
    const none = await ctl(admin, 'checker', 'config', 'learner-checker');
    expect([none.code, none.stderr]).toEqual([0, expect.stringContaining('learner-checker has no parameters')]);
    expect(admin.schedulers.changes).toEqual([]);
  });

  test('sets values with their units, all in one request, and says the version', async () => {
    const admin = new FakeAdmin();
    const { code, stdout, stderr } = await ctl(
      admin,
      'checker',
      'config',
      'merge-checker',
      'max-merge-region-size=8MiB',
      'split-merge-interval=90s',
      '--reset',
      'limit',
      '--expect-version',
      '0',
      '--reason',
      'night load',
    );
    expect([code, admin.schedulers.reasons]).toEqual([0, ['night load']]);
    expect(admin.schedulers.changes).toMatchObject([
      {
        name: 'merge-checker',
        change: {
          $case: 'configure',
          value: {
            set: [
              { name: 'max-merge-region-size', value: 8 * MIB },
              { name: 'split-merge-interval', value: 90_000 },
            ],
            reset: ['limit'],
            resetAll: false,
          },
        },
        dryRun: false,
        expectVersion: 0,
      },
    ]);
    expect(stdout).toMatch(/split-merge-interval +90s +5m/);
    expect(stderr).toContain('merge-checker has version 1');
  });

  test('gives back one parameter or all, and a dry run changes nothing', async () => {
    const admin = new FakeAdmin();
    await ctl(admin, 'scheduler', 'config', 'hot-region', 'ratio=2', 'min-rate=4MiB/s');
    const dry = await ctl(admin, 'scheduler', 'config', 'hot-region', '--reset', '--dry-run');
    expect(dry.stdout).toMatch(/ratio +1\.25 +1\.25/);
    expect(dry.stderr).toContain('dry run: nothing was changed');
    expect((await ctl(admin, 'scheduler', 'config', 'hot-region')).stdout).toMatch(/min-rate +4MiB\/s +1MiB\/s/);
    await ctl(admin, 'scheduler', 'config', 'hot-region', '--reset');
    expect((await ctl(admin, 'scheduler', 'config', 'hot-region')).stdout).toMatch(/ratio +1\.25 +1\.25/);
    expect(admin.schedulers.changes.at(-1)).toMatchObject({
      change: { value: { resetAll: true, reset: [], set: [] } },
    });
  });

  test.each([
    [['merge-checker', 'limt=2'], 'did you mean limit?'],
    [['merge-checker', '--reset', 'limt'], 'did you mean limit?'],
    [['merge-chekcer', 'limit=2'], 'did you mean merge-checker?'],
    [['merge-checker', 'limit'], 'write parameter=value'],
    [['merge-checker', '=2'], 'write parameter=value'],
    [['merge-checker', 'limit=2', 'limit=3'], 'give it once'],
    [['merge-checker', 'limit=-1'], 'a whole number, from 0 to 4096'],
    [['merge-checker', 'limit=1.5'], 'a whole number, from 0 to 4096'],
    [['merge-checker', 'limit='], 'a whole number, from 0 to 4096'],
    [['merge-checker', 'split-merge-interval=300'], 'a time such as 500ms or 5m, from 0ms to 7d'],
    [['merge-checker', 'max-merge-region-size=big'], 'a size such as 4MiB, from 0B to 96MiB'],
    [['hot-region', 'ratio=1e3'], 'a number such as 1.5, from 1 to 100'],
    [['learner-checker', 'limit=1'], 'it has none'],
    [['merge-checker', '--dry-run'], 'give parameter=value, or --reset'],
    [['merge-checker', '--expect-version', '3'], 'give parameter=value, or --reset'],
  ])('%j is refused before anything is asked to change', async (words, hint) => {
    const admin = new FakeAdmin();
    const { code, stdout, stderr } = await ctl(admin, 'scheduler', 'config', ...words);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(hint);
    expect(admin.schedulers.changes).toEqual([]);
  });

  test('says why it was refused and ends with 3', async () => {
    const admin = new FakeAdmin();
    admin.refuse = 'OutOfRange';
    const { code, stdout, stderr } = await ctl(admin, 'scheduler', 'config', 'merge-checker', 'limit=5000');
    expect([code, stdout]).toEqual([3, '']);
    expect(stderr).toMatch(/^error: cannot configure merge-checker.*\nwhy: .*OutOfRange/);
  });
});

describe('ctl scheduler add and remove', () => {
  test('name the store, the version and the reason', async () => {
    const admin = new FakeAdmin();
    const added = await ctl(admin, 'scheduler', 'add', 'grant-leader', '--store', '2', '--reason', 'cache');
    expect(added.stdout).toMatch(/grant-leader +scheduler +on +2 /);
    const removed = await ctl(admin, 'scheduler', 'remove', 'grant-leader', '--expect-version', '1', '--dry-run');
    expect(removed.stderr).toContain('dry run');
    expect(admin.schedulers.changes).toMatchObject([
      { name: 'grant-leader', change: { $case: 'add', value: { storeId: 2 } }, dryRun: false },
      { name: 'grant-leader', change: { $case: 'remove', value: { storeId: 0 } }, dryRun: true, expectVersion: 1 },
    ]);
    expect(admin.schedulers.reasons).toEqual(['cache', '']);
  });

  test('refuse unknown names with the nearest one, and broken ids', async () => {
    const admin = new FakeAdmin();
    const unknown = await ctl(admin, 'scheduler', 'add', 'grant-leder');
    expect([unknown.code, unknown.stderr]).toEqual([1, expect.stringContaining('did you mean grant-leader?')]);
    expect((await ctl(admin, 'scheduler', 'add', 'grant-leader', '--store', 'x')).code).toBe(1);
    expect(admin.schedulers.changes).toEqual([]);
  });
});

describe('ctl checker', () => {
  test('pauses and resumes checkers, and points to the other noun for schedulers', async () => {
    const admin = new FakeAdmin();
    expect((await ctl(admin, 'checker', 'pause', 'merge-checker', '--for', '1m')).stdout).toContain('off until');
    expect((await ctl(admin, 'checker', 'resume', 'merge-checker')).stdout).toMatch(/merge-checker +on/);
    for (const words of [['pause'], ['resume'], ['config']]) {
      const other = await ctl(admin, 'checker', ...words, 'hot-region');
      expect([other.code, other.stdout]).toEqual([1, '']);
      expect(other.stderr).toContain('braid ctl scheduler');
    }
    expect(admin.pauses).toHaveLength(2);
  });
});

test('a value that is printed can be given back', () => {
  const of = (unit: SchedulerParameter['unit']): SchedulerParameter => ({
    name: 'x',
    unit,
    description: '',
    value: 1,
    default: 1,
    min: 0,
    max: 9,
  });
  const values = [0, 1, 7, 999, 1000, 1024, 1536, 60_000, 90_000, 86_400_000, 4 * MIB, 3 * 1024 ** 4 + 1];
  for (const unit of ['count', 'bytes', 'bytes-per-second', 'milliseconds'] as const) {
    for (const value of values) {
      expect(parseParameter(of(unit), parameterText(value, unit))).toBe(value);
    }
  }
  expect(parseParameter(of('ratio'), parameterText(1.25, 'ratio'))).toBe(1.25);
});
