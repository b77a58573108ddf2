/** `ctl operator add` and `history`: each change by name, what is asked of the service, and what is refused before. */
import { describe, expect, test } from 'vitest';
import { FakeAdmin } from './fake-admin.ts';

const REQUESTS: readonly (readonly [args: readonly string[], request: object])[] = [
  [['transfer-leader', '2', '3'], { regionId: 2, toStore: 3 }],
  [['transfer-peer', '2', '1', '3'], { regionId: 2, fromStore: 1, toStore: 3 }],
  [['add-peer', '2', '3'], { regionId: 2, storeId: 3, learner: false }],
  [['add-learner', '2', '3'], { regionId: 2, storeId: 3, learner: true }],
  [['remove-peer', '2', '3'], { regionId: 2, storeId: 3 }],
  [['merge-region', '4', '2'], { sourceId: 4, targetId: 2 }],
  [['split-region', '2', 'c', 'd'], { regionId: 2 }],
  [['split-region', '2'], { regionId: 2, keys: [] }],
  [['scatter-region', '2'], { regionId: 2 }],
];

describe('operator add', () => {
  test.each(REQUESTS)('%j', async (args, request) => {
    const admin = new FakeAdmin();
    const { code, stderr } = await admin.run(['ctl', 'operator', 'add', ...args, '--reason', 'drill', '--dry-run']);
    expect(code, stderr).toBe(0);
    expect(admin.changes).toHaveLength(1);
    expect(admin.changes[0]).toMatchObject({ ...request, options: { dryRun: true, reason: 'drill' } });
  });

  test('keys are read in the format that was asked for', async () => {
    const admin = new FakeAdmin();
    await admin.run(['ctl', 'operator', 'add', 'split-region', '2', '6364', '--key-format', 'hex']);
    expect(admin.changes[0]).toMatchObject({ keys: [new Uint8Array([0x63, 0x64])] });
  });

  test.each([
    [['transfer-leadr', '2', '3'], 'did you mean transfer-leader?'],
    [['add-peer', '2'], 'braid ctl operator add add-peer REGION STORE'],
    [['scatter-region', '2', '3'], 'takes 0 arguments'],
    [['remove-peer', 'two', '3'], 'two'],
    [['add-peer', '2', '-'], 'store'],
  ])('%j is refused before anything is asked', async (args, words) => {
    const admin = new FakeAdmin();
    const { code, stderr, stdout } = await admin.run(['ctl', 'operator', 'add', ...args]);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(words);
    expect(admin.changes).toEqual([]);
  });

  test('a refusal of the service ends with 3 and its words', async () => {
    const admin = new FakeAdmin();
    admin.refuse = 'LastVoter';
    const { code, stderr } = await admin.run(['ctl', 'operator', 'add', 'remove-peer', '2', '1']);
    expect(code).toBe(3);
    expect(stderr).toContain('LastVoter');
  });
});

test('history is what list --ended shows', async () => {
  const admin = new FakeAdmin();
  const history = await admin.run(['ctl', 'operator', 'history', '-o', 'json']);
  const list = await admin.run(['ctl', 'operator', 'list', '--ended', '-o', 'json']);
  expect(history.code).toBe(0);
  expect(JSON.parse(history.stdout)).toEqual(JSON.parse(list.stdout));
  expect(history.stdout).not.toBe((await admin.run(['ctl', 'operator', 'list', '-o', 'json'])).stdout);
});
