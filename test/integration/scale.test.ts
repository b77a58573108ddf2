/** Real processes: three stores become six and three again, with some two hundred regions, under load. */
import { afterEach, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { type Braid, all } from '../../src/index.ts';
import { TestCluster, braid, waitFor } from './cluster.ts';

const REGIONS = 210;
const KEYS_PER_REGION = 4;
const LIMIT_MS = 150_000;
const REPLICAS = 3;

let cluster: TestCluster | undefined;

afterEach(async (context) => {
  if (context.task.result?.state === 'fail' && cluster !== undefined) {
    process.stderr.write(`${cluster.logs()}\n`);
  }
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

const keyOf = (n: number): string => `k${String(n).padStart(6, '0')}`;
const boundary = (n: number): Uint8Array => utf8(keyOf(n * KEYS_PER_REGION));

/** Writes and reads until stopped; a wrong answer or an error is a problem. */
async function load(client: Braid, isOver: () => boolean, problems: string[]): Promise<number> {
  let rounds = 0;
  while (!isOver()) {
    const key = keyOf((rounds * 7919) % (REGIONS * KEYS_PER_REGION));
    try {
      await client.put(key, `load ${rounds}`);
      const value = await client.get(key);
      if (value === undefined || fromUtf8(value) !== `load ${rounds}`) {
        problems.push(`${key} lost round ${rounds}`);
      }
    } catch (error) {
      problems.push(`${key}: ${String(error)}`);
    }
    rounds++;
  }
  return rounds;
}

test('3 stores become 6 and 3 again: balanced, complete all the time, nothing lost', { timeout: 400_000 }, async () => {
  cluster = await TestCluster.start({
    stores: 3,
    pdSettings: [
      'placement.scheduler-interval=50ms',
      'placement.store-check=1s',
      'placement.store-limit-per-minute=100000',
    ],
    storeSettings: ['raftstore.pd-heartbeat=2s', 'raftstore.store-heartbeat=1s'],
  });
  const running = cluster;
  const client = await cluster.client({ timeoutMs: 30_000 });
  const admin = client.admin();
  for (let n = 0; n < REGIONS * KEYS_PER_REGION; n += 100) {
    await client.writeMany(
      Array.from({ length: Math.min(100, REGIONS * KEYS_PER_REGION - n) }, (_, i) => ({
        type: 'put' as const,
        key: keyOf(n + i),
        value: `first ${n + i}`,
      })),
    );
  }
  const [whole] = await client.regions(all());
  const submission = await admin.splitRegion(
    whole?.id ?? 0,
    Array.from({ length: REGIONS - 1 }, (_, i) => boundary(i + 1)),
  );
  if (submission.type === 'started') {
    await admin.waitOperator(submission.operator.id, { timeoutMs: LIMIT_MS });
  }
  await waitFor(
    'all regions',
    async () => (await admin.status()).regions.total >= REGIONS && (await admin.status()).regions.withoutLeader === 0,
  );

  const problems: string[] = [];
  let isOver = false;
  const working = load(client, () => isOver, problems);
  // The placement service sees every membership: voters must never be fewer than wanted.
  let fewest = REPLICAS;
  const watching = (async () => {
    while (!isOver) {
      const { regions } = await admin.regions();
      for (const region of regions) {
        const voters = region.peers.filter((peer) => peer.role === 'voter' || peer.role === 'incoming-voter').length;
        fewest = Math.min(fewest, voters);
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  })();

  const isEven = async (count: number): Promise<boolean> => {
    const stores = (await admin.stores()).filter((store) => store.state === 'up');
    const total = (await admin.status()).regions.total;
    const even = (values: readonly number[], mean: number): boolean =>
      values.every((value) => Math.abs(value - mean) <= Math.max(2, mean * 0.1));
    return (
      stores.length === count &&
      even(
        stores.map((store) => store.regionCount),
        (total * REPLICAS) / count,
      ) &&
      even(
        stores.map((store) => store.leaderCount),
        total / count,
      )
    );
  };

  try {
    const added = [await cluster.addStore(), await cluster.addStore(), await cluster.addStore()];
    await waitFor('six even stores', () => isEven(6), LIMIT_MS);

    // Two drains by hand of the SDK, one through the program with its progress.
    const [first, second, third] = added.map((store) => store.id) as [number, number, number];
    const command = braid(
      ['ctl', 'store', 'drain', String(first), '--yes', '--wait', '--timeout', '140s', '--pd', running.pdAddress],
      { limitMs: LIMIT_MS },
    );
    await admin.setStoreState(second, 'removing');
    await admin.setStoreState(third, 'removing');
    const drained = await command;
    expect(drained.stderr).toMatch(/replicas left, \d+ % done in /);
    expect(drained.code).toBe(0);
    await waitFor(
      'three removed stores',
      async () =>
        (await admin.stores({ includeRemoved: true })).filter((store) => store.state === 'removed').length === 3,
      LIMIT_MS,
    );
    await Promise.all(added.map((store) => store.stop()));
    await waitFor('three even stores', () => isEven(3), LIMIT_MS);
  } finally {
    isOver = true;
  }
  const rounds = await working;
  await watching;
  expect(problems).toEqual([]);
  expect(rounds).toBeGreaterThan(100);
  expect(fewest).toBe(REPLICAS);
  let count = 0;
  for await (const { value } of client.scan(all())) {
    expect(fromUtf8(value)).toMatch(/^(first|load) \d+$/);
    count++;
  }
  expect(count).toBe(REGIONS * KEYS_PER_REGION);
});
