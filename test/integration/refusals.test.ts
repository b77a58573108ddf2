/** Refused merges and splits of real processes, seen through the command line: named, with what helps, nothing changed. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { fromUtf8 } from '../../src/base/bytes.ts';
import { all } from '../../src/index.ts';
import { REAL_CONNECTOR } from '../../src/cli/session.ts';
import { type RunOutcome, runWith } from '../unit/cli/harness.ts';
import { TestCluster, type TestStore, braid, waitFor } from './cluster.ts';

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
}, 2 * LIMIT_MS);

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

test(
  'every merge that cannot be is refused by name, as a plan and in earnest, and changes nothing',
  async () => {
    await using own = await TestCluster.start({
      stores: 4,
      podNames: ['pod1', 'pod2', 'pod3', 'pod4'],
      storeSettings: [
        'raftstore.max-peer-down=20s',
        'raftstore.split-check=500ms',
        // Sizes are measured again when an eighth of this was written.
        'raftstore.region-split-size=1MiB',
        'raftstore.pd-heartbeat=1s',
        'raftstore.log-gc-threshold=100000',
      ],
      pdSettings: ['placement.store-disconnected=6s', 'placement.merged-size-max=256KiB'],
    });
    const ask = (...args: string[]): Promise<RunOutcome> => runWith(REAL_CONNECTOR, [...args, '--pd', own.pdAddress]);
    const must = async (...args: string[]): Promise<RunOutcome> => {
      const outcome = await ask(...args);
      expect(outcome.code, `${args.join(' ')}: ${outcome.stderr}`).toBe(0);
      return outcome;
    };
    const apply = async (document: string): Promise<void> => {
      const { code, stderr } = await runWith(REAL_CONNECTOR, ['ctl', 'apply', '-f', '-', '--pd', own.pdAddress], {
        stdin: document,
      });
      expect(code, stderr).toBe(0);
    };
    for (const name of ['balance-leader', 'balance-region', 'replica-checker', 'hot-region']) {
      await must('ctl', 'scheduler', 'pause', name);
    }
    const client = await own.client();
    for (const at of ['a', 'c', 'e', 'g']) {
      await client.put(at, 'x');
    }
    const [whole] = await client.regions(all());
    await waitFor('three replicas', async () => {
      const [region] = await client.regions(all());
      return region?.peers.length === 3;
    });
    let right = whole?.id as number;
    for (const at of ['b', 'd', 'f']) {
      await must('ctl', 'region', 'split', String(right), '--key', at, '--wait', '--timeout', '30s');
      right = (await client.locate(at)).id;
    }
    const ids = async (): Promise<string[]> => (await client.regions(all())).map(({ id }) => String(id));
    const [one, two, three, four] = (await ids()) as [string, string, string, string];

    /** Everything a merge could have changed. */
    const state = async (): Promise<unknown> => {
      const regions = await client.regions(all());
      const operators = JSON.parse((await must('ctl', 'operator', 'list', '--ended', '-o', 'json')).stdout) as unknown;
      const running = JSON.parse((await must('ctl', 'operator', 'list', '-o', 'json')).stdout) as unknown;
      return [regions.map(({ id, range, epoch, peers }) => ({ id, range, epoch, peers })), operators, running];
    };
    const isRefused = async (source: string, target: string, code: string, words = ''): Promise<void> => {
      const before = await state();
      for (const plan of [['--dry-run'], []]) {
        const { code: exit, stdout, stderr } = await ask('ctl', 'region', 'merge', source, target, ...plan);
        expect([exit, stdout], `${source} into ${target} ${plan.join('')}: ${stderr}`).toEqual([3, '']);
        expect(stderr).toContain(code);
        expect(stderr).toContain(words);
      }
      const explained = await ask('ctl', 'explain', 'merge', source, target, '-o', 'json');
      expect(explained.code).toBe(5);
      expect(explained.stdout).toContain(code);
      expect(await state()).toEqual(before);
    };
    const refusalShown = (source: string, target: string, code: string): Promise<boolean> =>
      waitFor(
        `${code} of ${source} into ${target}`,
        async () => (await ask('ctl', 'explain', 'merge', source, target)).stdout.includes(code),
        LIMIT_MS,
      );

    await isRefused(one, three, 'NotAdjacent');
    await isRefused(one, one, 'SameRegion');
    await isRefused(one, '4000', 'RegionNotFound', '4000');
    await isRefused('4000', one, 'RegionNotFound', '4000');

    // Paused, as source and as target.
    await must('ctl', 'region', 'pause', one, '--reason', 'disk check');
    expect((await must('ctl', 'region', 'list', '--filter', 'paused', '-o', 'name')).stdout.trim()).toMatch(
      new RegExp(`${one}$`),
    );
    await isRefused(one, two, 'RegionPaused', 'disk check');
    await isRefused(two, one, 'RegionPaused', 'disk check');

    await must('ctl', 'region', 'resume', one);

    // Held by documents: by a Partition, then by an Assignment, which waits for a region that is paused again.
    for (const [name, range] of [
      ['left', 'start: "", end: b'],
      ['middle', 'start: b, end: d'],
    ] as const) {
      await apply(`kind: Partition\nmetadata: {name: ${name}}\nspec: {range: {${range}}, primary: pod1}\n`);
    }
    await waitFor('Partitions at rest', async () => {
      const shown = await Promise.all(
        ['left', 'middle'].map((name) => ask('ctl', 'get', 'partition', name, '-o', 'yaml')),
      );
      const running = await ask('ctl', 'operator', 'list', '-o', 'name');
      return shown.every(({ stdout }) => /^status: ready$/m.test(stdout)) && running.stdout === '';
    });
    await isRefused(two, three, 'RegionPinned', 'Partition middle');
    await isRefused(three, two, 'RegionPinned', 'Partition middle');
    await must('ctl', 'region', 'pause', one);
    await apply(
      'kind: Assignment\nmetadata: {name: join}\nspec: {type: InWorkerMerge, mergeParams: {partitions: [left, middle]}}\n',
    );
    await refusalShown(two, three, 'RegionLocked');
    await isRefused(two, three, 'RegionLocked', 'Assignment join');
    await isRefused(three, two, 'RegionLocked', 'Assignment join');
    for (const [kind, name] of [
      ['assignment', 'join'],
      ['partition', 'left'],
      ['partition', 'middle'],
    ] as const) {
      await must('ctl', 'delete', kind, name, '--yes');
    }
    await must('ctl', 'region', 'resume', one);

    // A store that the source lacks and that cannot take a replica, then a peer that is down.
    const regionFour = (await client.regions(all())).find(({ id }) => String(id) === four);
    const has = ({ id }: TestStore): boolean => regionFour?.peers.some(({ storeId }) => storeId === id) === true;
    const [here, spare] = [own.stores.find(has), own.stores.find((store) => !has(store))];
    if (here === undefined || spare === undefined) {
      throw new Error('three replicas on four stores leave one store out');
    }
    await must('ctl', 'region', 'move', four, '--from', String(here.id), '--to', String(spare.id), '--wait');
    await spare.kill();
    await refusalShown(three, four, `store ${spare.id} is disconnected`);
    await isRefused(three, four, 'StoreDisconnected', `store ${spare.id}`);
    await refusalShown(three, four, 'DownPeer');
    await isRefused(three, four, 'DownPeer', `store ${spare.id}`);
    await isRefused(four, three, 'DownPeer', `store ${spare.id}`);
    await spare.start();
    // Back for all regions: what is checked before the size may no longer speak against a merge, not even for a moment.
    await waitFor(
      'every replica has caught up',
      async () => {
        const plans = await Promise.all([
          ask('ctl', 'explain', 'merge', three, four),
          ask('ctl', 'explain', 'merge', one, two),
        ]);
        const unwell = await Promise.all(
          ['pending-peer', 'down-peer'].map((filter) =>
            must('ctl', 'region', 'list', '--filter', filter, '-o', 'name'),
          ),
        );
        return plans.every(({ code }) => code === 0) && unwell.every(({ stdout }) => stdout.trim() === '');
      },
      LIMIT_MS,
    );

    // Too large together.
    const big = new Uint8Array(8 * 1024).fill(7);
    for (let i = 0; i < 40; i++) {
      await client.put(`a${String(i).padStart(3, '0')}`, big);
    }
    await refusalShown(one, two, 'MergedTooLarge');
    await isRefused(one, two, 'MergedTooLarge', 'together');

    // What nothing speaks against is merged, the missing replica included.
    await must('ctl', 'region', 'merge', three, four, '--wait', '--timeout', '60s');
    expect(await ids()).toEqual([one, two, four]);
    expect(fromUtf8((await client.get('e')) ?? new Uint8Array())).toBe('x');
  },
  3 * LIMIT_MS,
);
