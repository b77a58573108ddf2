/** Two of three stores are gone for good: the third goes on with what it has, and new stores receive replicas of it. */
import { rmSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { fromUtf8 } from '../../src/base/bytes.ts';
import { type Braid, all } from '../../src/index.ts';
import { TestCluster, type TestStore, braid, waitFor } from './cluster.ts';

const ROWS = 200;
/** The whole story, with the build. */
const LIMIT_MS = 120_000;

let cluster: TestCluster | undefined;

afterEach(async () => {
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

interface Row {
  readonly key: string;
  readonly value: string;
}

const rowsOf = (jsonl: string): Row[] =>
  jsonl
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Row);

async function expectRows(client: Braid, rows: readonly Row[]): Promise<void> {
  for (const { key, value } of rows) {
    expect([key, fromUtf8((await client.get(key)) ?? new Uint8Array())]).toEqual([key, value]);
  }
}

test(
  'the majority of every region is lost for good',
  async () => {
    cluster = await TestCluster.start({
      stores: 3,
      storeSettings: ['raftstore.store-heartbeat=500ms', 'raftstore.pd-heartbeat=1s'],
    });
    const { pdAddress } = cluster;
    const ctl = (...words: readonly string[]): ReturnType<typeof braid> => braid(['ctl', ...words, '--pd', pdAddress]);
    const client = await cluster.client({ timeoutMs: 20_000 });
    const [first] = await client.regions(all());
    const split = await ctl('region', 'split', String(first?.id), '--key', 'key-100', '--wait', '--timeout', '30s');
    expect(split.code, split.stderr).toBe(0);
    for (let i = 0; i < ROWS; i++) {
      await client.put(`key-${String(i).padStart(3, '0')}`, `value-${i}`);
    }

    const [survivor, ...lost] = cluster.stores as [TestStore, TestStore, TestStore];
    const lostIds = lost.map(({ id }) => id).join(',');
    await Promise.all(lost.map((store) => store.kill()));
    lost.forEach(({ dataDir }) => rmSync(dataDir, { recursive: true }));
    const recover = (...flags: readonly string[]): ReturnType<typeof braid> =>
      braid(['offline', 'unsafe-recover', survivor.dataDir, '--lost-stores', lostIds, '-o', 'json', ...flags]);

    // Nothing can be committed any more, and nothing is touched while the store runs.
    const running = await recover('--i-understand-data-loss', '--yes');
    expect([running.code, running.stderr]).toEqual([1, expect.stringContaining('in use by a running process')]);
    await survivor.kill();
    const verified = await braid(['offline', 'verify', survivor.dataDir]);
    expect(verified.code, verified.stdout).toBe(0);
    const before = await braid(['offline', 'dump', survivor.dataDir]);
    const had = rowsOf(before.stdout);
    // Each row was acknowledged by two of three stores; this one may lack the last of them, not more.
    expect(had.length).toBeGreaterThan(ROWS / 2);

    const planned = await recover('--dry-run');
    expect(planned.code, planned.stderr).toBe(0);
    const recovered = await recover('--i-understand-data-loss', '--yes');
    expect(recovered.code, recovered.stderr).toBe(0);
    expect(JSON.parse(recovered.stdout)).toEqual({ ...(JSON.parse(planned.stdout) as object), dryRun: false });
    expect(JSON.parse(recovered.stdout)).toMatchObject({
      kind: 'UnsafeRecovery',
      recovered: 2,
      startFirst: 0,
      refused: 0,
    });

    // No replica is put on the lost stores any more.
    for (const { id } of lost) {
      const drained = await ctl('store', 'drain', String(id), '--destroyed', '--yes', '--detach');
      expect(drained.code, drained.stderr).toBe(0);
    }

    // It leads alone, and the placement service believes it.
    await survivor.start();
    await expectRows(client, had);
    await client.put('key-after', 'written alone');
    await waitFor('a leader of every region', async () => {
      const status = JSON.parse((await ctl('status', '-o', 'json')).stdout) as {
        readonly regions: { readonly total: number; readonly withoutLeader: number };
      };
      return status.regions.total === 2 && status.regions.withoutLeader === 0;
    });

    // Empty stores take the places of the lost ones, and serve alone in the end.
    await Promise.all([cluster.addStore(), cluster.addStore()]);
    await cluster.waitReplicated(3);
    await survivor.kill();
    await expectRows(client, [...had, { key: 'key-after', value: 'written alone' }]);
  },
  LIMIT_MS,
);
