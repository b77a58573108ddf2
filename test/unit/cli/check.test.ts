import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { utf8 } from '../../../src/base/bytes.ts';
import { FakeAdmin, region, store } from './fake-admin.ts';

interface Found {
  readonly kind: string;
  readonly healthy: boolean;
  readonly items: readonly { readonly code: string; readonly subject?: string; readonly message: string }[];
}

const found = async (admin: FakeAdmin, ...args: readonly string[]): Promise<{ code: number; found: Found }> => {
  const { code, stdout } = await admin.run(['ctl', 'check', ...args, '-o', 'json']);
  return { code, found: JSON.parse(stdout) as Found };
};

const PEER = (id: number, storeId: number) => ({ id, storeId, role: 0 as const });

describe('ctl check', () => {
  test.each(['health', 'regions', 'consistency', 'config'])(
    '%s ends with 0 in every mode when all is well',
    async (what) => {
      for (const mode of ['table', 'wide', 'json', 'jsonl', 'yaml']) {
        const { code, stdout, stderr } = await new FakeAdmin().run(['ctl', 'check', what, '-o', mode]);
        expect([mode, code, code === 0 ? '' : `${stdout}${stderr}`]).toEqual([mode, 0, '']);
        if (mode === 'yaml') {
          expect(parse(stdout)).toMatchObject({ apiVersion: 'braid/v1' });
        }
      }
    },
  );

  test('completes its words and refuses others with the nearest', async () => {
    expect((await new FakeAdmin().run(['__complete', '--', 'ctl', 'check', 'con'])).stdout).toBe(
      'consistency\nconfig\n',
    );
    const wrong = await new FakeAdmin().run(['ctl', 'check', 'region']);
    expect([wrong.code, wrong.stdout]).toEqual([1, '']);
    expect(wrong.stderr).toContain('did you mean regions?');
  });
});

describe('ctl check regions', () => {
  test('finds everything that keeps a region from being as it should be, one row each, in key order', async () => {
    const admin = new FakeAdmin();
    admin.regions = [
      { ...region(9, 'x', ''), leader: undefined, reportSeen: false },
      {
        ...region(5, 'c', 'f'),
        downPeers: [{ peer: PEER(12, 2), downSeconds: 700 }],
        pendingPeers: [PEER(12, 2), PEER(13, 3)],
      },
      { ...region(2, '', 'c'), sizeBytes: 2_097_152, lastReportAgeMs: 61_000 },
      { ...region(7, 'm', 'x') },
    ];
    admin.holes = [{ startKey: utf8('f'), endKey: utf8('m') }];
    const UNDER_REPLICATED = 4;
    const OVER_REPLICATED = 5;
    admin.filtered = (filter) =>
      filter === UNDER_REPLICATED
        ? admin.regions.slice(1, 2)
        : filter === OVER_REPLICATED
          ? admin.regions.slice(3)
          : admin.regions;
    const { code, found: list } = await found(admin, 'regions');
    expect(code).toBe(5);
    expect(list).toMatchObject({ kind: 'RegionFindingList', healthy: false, regions: 4 });
    expect(list.items.map((one) => [one.code, (one as { regionId?: number }).regionId])).toEqual([
      ['StaleReport', 2],
      ['Oversized', 2],
      ['DownReplica', 5],
      ['PendingReplica', 5],
      ['MissingReplica', 5],
      ['Hole', null],
      ['ExtraReplica', 7],
      ['NoLeader', 9],
      ['NotReported', 9],
    ]);
    expect(list.items[2]).toMatchObject({ storeId: 2, message: expect.stringContaining('silent for 11m') });
    expect(list.items[5]).toMatchObject({ startKey: 'f', endKey: 'm' });
    const table = await admin.run(['ctl', 'check', 'regions', '--where', 'code=DownReplica']);
    expect(table.code).toBe(5);
    expect(table.stdout.split('\n')).toHaveLength(3);
    const patient = await found(admin, 'regions', '--stale-after', '2m');
    expect(patient.found.items.map((one) => one.code)).not.toContain('StaleReport');
  });

  test('says that sizes were not checked when nobody tells the limit', async () => {
    const admin = new FakeAdmin();
    admin.settings.set('adm:1', { 'placement.region-max-size': null });
    const { code, stderr } = await admin.run(['ctl', 'check', 'regions']);
    expect(code).toBe(0);
    expect(stderr).toContain('sizes were not checked');
  });
});

describe('ctl check config', () => {
  const codes = async (admin: FakeAdmin): Promise<readonly (readonly [string, string | undefined])[]> => {
    const { code, found: list } = await found(admin, 'config');
    expect(code).toBe(list.items.length === 0 ? 0 : 5);
    expect(list).toMatchObject({ kind: 'ConfigFindingList', processes: 6 });
    return list.items.map((one) => [one.code, one.subject] as const);
  };

  test('finds versions and settings that differ, and names the odd one out', async () => {
    const admin = new FakeAdmin();
    admin.versions = { '127.0.0.1:20162': '0.0.9' };
    admin.settings.set('127.0.0.1:20163', { 'raftstore.tick': 200, 'raftstore.snapshot-sends-max': 9 });
    admin.settings.set('adm:2', { 'group.tick': 50 });
    expect(await codes(admin)).toEqual([
      ['VersionDiffers', 'store 2'],
      ['SettingDiffers', 'store 3'],
      ['SettingDiffers', 'member pd2'],
    ]);
    const { found: list } = await found(admin, 'config');
    expect(list.items[1]).toMatchObject({
      setting: 'raftstore.tick',
      message: 'raftstore.tick is 200 (file), elsewhere 100',
    });
  });

  test('finds labels that are missing or given twice', async () => {
    const admin = new FakeAdmin();
    const labels = (more: Readonly<Record<string, string>>) =>
      Object.entries(more).map(([key, value]) => ({ key, value }));
    admin.stores = [
      { ...store(1), labels: labels({ host: 'h1', zone: 'a', name: 'pod1' }) },
      { ...store(2), labels: labels({ host: 'h2', zone: 'b', name: 'pod1' }) },
      { ...store(3), labels: labels({ host: 'h3' }) },
    ];
    expect(await codes(admin)).toEqual([
      ['LabelMissing', 'store 3'],
      ['LabelTwice', 'store 2'],
    ]);
  });

  test('finds region sizes that do not fit those of the placement service, and merges that would be split', async () => {
    const admin = new FakeAdmin();
    admin.settings.set('127.0.0.1:20161', { 'raftstore.region-max-size': 4_000_000 });
    for (const address of ['adm:1', 'adm:2', 'adm:3']) {
      admin.settings.set(address, { 'placement.merge-source-size-max': 600_000 });
    }
    expect(await codes(admin)).toEqual([
      ['SettingDiffers', 'store 1'],
      ['RegionSizeDiffers', 'store 1'],
      ['MergeSizeTooLarge', 'cluster'],
    ]);
  });

  test('what is set at run time wins over the files of the members', async () => {
    const admin = new FakeAdmin();
    admin.config = { 'merge-source-size-max': '600KiB', 'location-labels': ['host', 'rack'] };
    admin.settings.set('adm:2', { 'placement.merge-source-size-max': 1, 'placement.location-labels': ['zone'] });
    admin.stores = admin.stores.map((one, i) => ({
      ...one,
      labels: i === 0 ? [...one.labels, { key: 'rack', value: 'r1' }, { key: 'zone', value: 'a' }] : one.labels,
    }));
    expect(await codes(admin)).toEqual([
      ['LabelMissing', 'store 2'],
      ['LabelMissing', 'store 3'],
      ['MergeSizeTooLarge', 'cluster'],
    ]);
  });

  test('finds even numbers of members, too few stores, and processes that do not answer', async () => {
    const admin = new FakeAdmin();
    admin.members = admin.members.slice(0, 2);
    admin.stores = admin.stores.slice(0, 2);
    const even = await found(admin, 'config');
    expect(even.found.items.map((one) => one.code)).toEqual(['TooFewStores', 'EvenMembers']);
    const silent = new FakeAdmin();
    silent.net.setReach('127.0.0.1:20162', 'down');
    expect(await codes(silent)).toEqual([['NoAnswer', 'store 2']]);
  });
});
