import { describe, expect, test } from 'vitest';
import { FakeAdmin } from './fake-admin.ts';

describe('pauses', () => {
  const asked = (admin: FakeAdmin): unknown[] =>
    admin.pauses.map((request) => ({ ...(request as Record<string, unknown>), header: undefined }));

  test('of a region carry their time and reason, and say what was stopped and what goes on', async () => {
    const admin = new FakeAdmin();
    const paused = await admin.run(['ctl', 'region', 'pause', '2', '--for', '10m', '--reason', 'disk check']);
    expect([paused.code, asked(admin)]).toEqual([0, [{ regionId: 2, reason: 'disk check', forMs: 600_000 }]]);
    expect(paused.stderr).toContain('operator 95 was stopped');
    expect(paused.stderr).toContain('operator 97 goes on');
    expect(paused.stdout).toMatch(/paused +by cli until 2000-01-01T00:10:00.000Z: disk check/);
    const shown = JSON.parse((await admin.run(['ctl', 'region', 'show', '2', '-o', 'json'])).stdout) as unknown;
    expect(shown).toMatchObject({ pause: { reason: 'disk check', by: 'cli', until: '2000-01-01T00:10:00.000Z' } });
    const resumed = await admin.run(['ctl', 'region', 'resume', '2']);
    expect(resumed.stdout).toMatch(/paused +no/);
    expect(resumed.stderr).toBe('');
    const again = await admin.run(['ctl', 'region', 'resume', '2', '-o', 'json']);
    expect([again.code, again.stderr]).toEqual([0, expect.stringContaining('nothing to do')]);
    expect(JSON.parse(again.stdout)).toMatchObject({ pause: null });
  });

  test('without an end say so', async () => {
    const admin = new FakeAdmin();
    const paused = await admin.run(['ctl', 'region', 'pause', '2']);
    expect(asked(admin)).toEqual([{ regionId: 2, reason: '', forMs: 0 }]);
    expect(paused.stdout).toMatch(/paused +by cli until it is resumed\n/);
  });

  test('of a scheduler carry their time', async () => {
    const admin = new FakeAdmin();
    const paused = await admin.run(['ctl', 'scheduler', 'pause', 'hot-region', '--for', '1m']);
    expect(paused.stdout).toContain('off until 2000-01-01T00:01:00.000Z');
    expect((await admin.run(['ctl', 'scheduler', 'resume', 'hot-region'])).stdout).toMatch(/hot-region +on/);
    expect(asked(admin)).toEqual([
      { name: 'hot-region', enabled: false, offMs: 60_000 },
      { name: 'hot-region', enabled: true, offMs: 0 },
    ]);
  });

  test.each([
    ['region', 'pause', '2'],
    ['region', 'resume', '2'],
    ['scheduler', 'pause', 'x'],
    ['scheduler', 'resume', 'x'],
  ])('%s %s %s that is refused says why and ends with 3', async (...words) => {
    const admin = new FakeAdmin();
    admin.refuse = 'TooManyPauses';
    const { code, stdout, stderr } = await admin.run(['ctl', ...words]);
    expect([code, stdout]).toEqual([3, '']);
    expect(stderr).toContain('TooManyPauses');
  });

  test.each([
    [['region', 'pause', 'x']],
    [['region', 'pause', '2', '--for', '10']],
    [['region', 'pause', '2', '--for', 'soon']],
    [['region', 'pause', '2', '--why', 'x']],
    [['region', 'resume']],
    [['scheduler', 'pause', 'merge-checker', '--for', '-1s']],
  ])('%j is refused before anything is asked', async (words) => {
    const admin = new FakeAdmin();
    expect(await admin.run(['ctl', ...words])).toMatchObject({ code: 1, stdout: '' });
    expect(admin.pauses).toEqual([]);
  });
});
