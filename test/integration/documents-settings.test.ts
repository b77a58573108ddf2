/** Placement rules, schedulers and settings as documents of a real cluster: they take effect, and outlive every process. */
import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { connectAdmin } from '../../src/index.ts';
import { type Ended, TestCluster, braid, waitFor } from './cluster.ts';

const DOCUMENTS = `
kind: PlacementRule
metadata: {name: default/single}
spec:
  range: {start: a, end: b}
  role: voter
  count: 1
  index: 1
  override: true
---
kind: Scheduler
metadata: {name: merge-checker}
spec:
  enabled: true
  parameters: {limit: 3}
---
kind: Config
metadata: {name: placement}
spec:
  max-replicas: 2
  patrol-interval: 20ms
`;

test('documents of rules, schedulers and settings hold at once, over a change of the lead and restarts of all members', async () => {
  await using cluster = await TestCluster.start({ stores: 3, pdMembers: 3 });
  const ctl = (args: readonly string[]): Promise<Ended> =>
    braid(['ctl', ...args, '--pd', cluster.pdAddress, '--timeout', '30s'], { limitMs: 60_000 });
  const file = cluster.directory.join('documents.yaml');
  writeFileSync(file, DOCUMENTS);

  const bad = cluster.directory.join('bad.yaml');
  writeFileSync(bad, DOCUMENTS.replace('max-replicas: 2', 'max-replicas: 99'));
  const refused = await ctl(['apply', '-f', bad]);
  expect(refused.code, refused.stderr).toBe(3);
  expect(refused.stderr).toContain('spec.max-replicas must not be 99');
  expect((await ctl(['get', '-o', 'name'])).stdout).toBe('');

  const applied = await ctl(['apply', '-f', file, '--reason', 'a test']);
  expect(applied.code, applied.stderr).toBe(0);
  expect(applied.stdout.match(/created/g)).toHaveLength(3);

  const admin = await connectAdmin({ pd: cluster.pdAddress.split(','), timeoutMs: 20_000 });
  const votersOf = async (): Promise<Readonly<Record<string, number>>> => {
    const { regions } = await admin.regions();
    return Object.fromEntries(
      regions.map((region) => [Buffer.from(region.range.start).toString(), region.peers.length]),
    );
  };
  try {
    await waitFor('one replica of the range of the rule, two of the others', async () => {
      const voters = await votersOf();
      return Object.keys(voters).length === 3 && voters[''] === 2 && voters['a'] === 1 && voters['b'] === 2;
    });
    const holds = async (): Promise<void> => {
      expect((await ctl(['get', '-o', 'name'])).stdout).toBe(
        'placement-rule/default/single\nscheduler/merge-checker\nconfig/placement\n',
      );
      const same = await ctl(['diff', '-f', file]);
      expect(same.code, same.stdout + same.stderr).toBe(0);
      const { stdout } = await ctl(['describe', 'config', 'placement']);
      expect(stdout).toMatch(/\nmax-replicas +2 +run-time +3 /);
      expect(stdout).toMatch(/\nmerge-schedule-limit +3 +scheduler +8 /);
      expect(stdout).toMatch(/last change +by .*: a test/);
    };
    await holds();

    const leader = (await admin.placementMembers()).find((member) => member.isLeader);
    const number = [1, 2, 3].find((n) => leader?.name === `pd${n}`) ?? 1;
    await cluster.pdMember(number).kill();
    await holds();

    await Promise.all([1, 2, 3].filter((n) => n !== number).map((n) => cluster.pdMember(n).kill()));
    await cluster.startPd();
    await holds();

    expect((await ctl(['delete', 'config', 'placement', '--yes'])).code).toBe(0);
    await waitFor('three replicas again', async () => {
      const voters = await votersOf();
      return voters['a'] === 1 && voters[''] === 3 && voters['b'] === 3;
    });
  } finally {
    await admin.close();
  }
}, 180_000);
