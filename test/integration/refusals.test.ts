/** Refused merges and splits of real processes, seen through the command line: named, with what helps, nothing changed. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { fromUtf8 } from '../../src/base/bytes.ts';
import { all } from '../../src/index.ts';
import { TestCluster, braid, waitFor } from './cluster.ts';

const LIMIT_MS = 60_000;
let cluster: TestCluster;

beforeAll(async () => {
  cluster = await TestCluster.start({
    stores: 3,
    storeSettings: ['raftstore.merge-max-log-gap=5', 'raftstore.log-gc-threshold=100000'],
  });
  for (const name of ['balance-leader', 'balance-region', 'merge-checker']) {
    await run('ctl', 'switch', 'off', name);
  }
}, LIMIT_MS);

afterAll(() => cluster[Symbol.asyncDispose]());

const run = (...args: string[]): ReturnType<typeof braid> => braid([...args, '--pd', cluster.pdAddress]);

interface Operator {
  readonly id: number;
  readonly status: string;
  readonly reasonCode: string;
  readonly lastRefusal: { readonly code: string; readonly hint: string; readonly count: number } | null;
}

async function operator(id: number): Promise<Operator> {
  const { stdout, stderr, code } = await run('ctl', 'operator', 'show', String(id), '-o', 'json');
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as Operator;
}

test(
  'a split without two keys ends at once with the store’s reason',
  async () => {
    const client = await cluster.client();
    const [region] = await client.regions(all());
    const before = performance.now();
    const split = await run('ctl', 'region', 'split', String(region?.id), '--wait', '--timeout', '50s');
    expect(performance.now() - before).toBeLessThan(30_000);
    expect(split.code).toBe(3);
    expect(split.stderr).toContain('NothingToSplit');
    expect(split.stderr).toContain('at least two keys');
    const events = await run('ctl', 'events');
    expect(events.stdout).toContain('step-refused');
    const [after] = await client.regions(all());
    expect(after?.epoch).toEqual(region?.epoch);
  },
  LIMIT_MS,
);

test(
  'a merge with a replica that hangs says which and how far, and succeeds once it is back',
  async () => {
    const client = await cluster.client();
    await client.put('a', '1');
    await client.put('z', '2');
    const [only] = await client.regions(all());
    expect((await run('ctl', 'region', 'split', String(only?.id), '--key', 'm', '--wait')).code).toBe(0);
    const [left, right] = await waitFor('two regions', async () => {
      const regions = await client.regions(all());
      return regions.length === 2 && regions.every((region) => region.leader !== undefined) ? regions : undefined;
    });
    if (left === undefined || right === undefined) {
      throw new Error('there are two regions');
    }
    const merge = (...more: string[]): ReturnType<typeof braid> =>
      run('ctl', 'region', 'merge', String(left.id), String(right.id), ...more);
    for (const [args, why] of [
      [['ctl', 'region', 'merge', String(left.id), String(left.id)], 'SameRegion'],
      [['ctl', 'region', 'merge', String(left.id), '4000'], 'RegionNotFound'],
    ] as const) {
      const refused = await run(...args);
      expect([refused.code, refused.stderr], why).toEqual([expect.any(Number), expect.stringContaining(why)]);
      expect(refused.code).not.toBe(0);
    }

    const hanging = cluster.stores.find(
      (store) => store.id !== left.leader?.storeId && store.id !== right.leader?.storeId,
    );
    if (hanging === undefined) {
      throw new Error('two leaders on three stores leave one');
    }
    hanging.program.child.kill('SIGSTOP');
    try {
      for (let i = 0; i < 20; i++) {
        await client.put(`b${i}`, 'x');
      }
      const started = await merge('--detach', '-o', 'json');
      expect(started.code, started.stderr).toBe(0);
      const { id } = JSON.parse(started.stdout) as Operator;
      const refused = await waitFor('a refusal', async () => {
        const now = await operator(id);
        return now.lastRefusal === null ? undefined : now;
      });
      expect(refused.status).toBe('running');
      expect(refused.lastRefusal?.code).toBe('LogGapTooLarge');
      const shown = await run('ctl', 'operator', 'show', String(id));
      expect(shown.stdout).toMatch(/store \d+ refused LogGapTooLarge.*: peer \d+ of region \d+ is at \d+/);
      expect(shown.stdout).toContain('caught up');
      const explained = await run('ctl', 'explain', 'merge', String(left.id), String(right.id));
      expect(explained.stderr).toContain('LogGapTooLarge');
      const word = await run('ctl', 'explain', 'code', 'LogGapTooLarge');
      expect(word.stdout).toContain('sent again');
      await client.put('b0', 'still writable');
      hanging.program.child.kill('SIGCONT');
      const done = await waitFor('the end', async () => {
        const now = await operator(id);
        return now.status === 'running' ? undefined : now;
      });
      expect(done.status).toBe('success');
    } finally {
      hanging.program.child.kill('SIGCONT');
    }
    expect(fromUtf8((await client.get('b0')) ?? new Uint8Array())).toBe('still writable');
    const [merged, ...others] = await client.regions(all());
    expect([merged?.id, others]).toEqual([right.id, []]);
  },
  2 * LIMIT_MS,
);
