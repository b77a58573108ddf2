/**
 * Documents while processes are killed: the placement service and one store after the other, in every phase of a merge
 * and of a move, with clients at work. The end is always the same, and no answer is wrong.
 */
import { afterEach, expect, test } from 'vitest';
import type { AdminClient, Braid } from '../../src/index.ts';
import { TestCluster, waitFor } from './cluster.ts';
import { DocumentLoad } from './document-load.ts';
import { LIMIT_MS, expectInOrder, partition, restartPdLeader, throughPhase } from './document-phases.ts';

const KEYS = ['c/1', 'f/1', 'k/1'];

let cluster: TestCluster | undefined;

afterEach(async (context) => {
  if (context.task.result?.state === 'fail' && cluster !== undefined) {
    process.stderr.write(`${cluster.logs()}\n`);
  }
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

async function startMerge(pdMembers = 1): Promise<{
  readonly client: Braid;
  readonly admin: AdminClient;
  readonly cluster: TestCluster;
}> {
  cluster = await TestCluster.start({
    stores: 3,
    podNames: ['pod1', 'pod2', 'pod3'],
    pdMembers,
    pdSettings: ['placement.proxy-threshold=1500ms'],
  });
  const client = await cluster.client({ timeoutMs: 30_000 });
  return { client, admin: client.admin(), cluster };
}

async function twoParts(admin: AdminClient, round: number): Promise<void> {
  await admin.documents.apply([partition(`low-${round}`, 'a', 'e'), partition(`high-${round}`, 'j', 'o')]);
  await waitFor(
    'two parts',
    async () => (await admin.documents.list({ kind: 'Partition' })).documents.every(({ settled }) => settled),
    LIMIT_MS,
  );
}

async function oneMerge(admin: AdminClient, round: number, phase: string, kill: () => Promise<void>): Promise<void> {
  await twoParts(admin, round);
  const name = `merge-${round}`;
  const seen = await throughPhase(
    admin,
    {
      kind: 'Assignment',
      metadata: { name },
      spec: { type: 'InWorkerMerge', mergeParams: { partitions: [`low-${round}`, `high-${round}`] } },
    } as never,
    phase,
    kill,
  );
  expectInOrder(seen);
  const { status, conditions } = await admin.documents.get('Assignment', name);
  expect(status).toEqual({
    merge: {
      status: 'completed',
      mergedPart: 'primary',
      subParts: { [`low-${round}`]: 'disconnected', [`high-${round}`]: 'disconnected' },
    },
  });
  expect(conditions.map(({ type }) => type)).toEqual(['AbsorbedRanges']);
  const { documents } = await admin.documents.list({ kind: 'Partition' });
  expect(documents.map(({ metadata }) => metadata.name)).toEqual([`${name}-merged`]);
  expect(documents[0]?.regions).toHaveLength(1);
  // The next round starts from the same place: the region of [a, o) loses its name and is split again.
  await admin.documents.delete('Partition', `${name}-merged`);
}

test('a merge ends the same when the placement service is killed in any phase', async () => {
  const { client, admin, cluster: running } = await startMerge();
  const load = new DocumentLoad(client, KEYS);
  for (const [round, phase] of ['loading', 'following', 'proxying'].entries()) {
    await oneMerge(admin, round, phase, async () => {
      await running.pd.kill('SIGKILL');
      await running.startPd();
    });
  }
  expect(await load.stop()).toEqual([]);
  expect(load.operations).toBeGreaterThan(100);
});

test('a merge ends the same when the leading member of three is killed in any phase', async () => {
  const { client, admin, cluster: running } = await startMerge(3);
  const load = new DocumentLoad(client, KEYS);
  for (const [round, phase] of ['loading', 'following', 'proxying'].entries()) {
    await oneMerge(admin, round, phase, () => restartPdLeader(admin, running));
  }
  expect(await load.stop()).toEqual([]);
  expect(load.operations).toBeGreaterThan(100);
});

test('a merge ends the same when a store is killed in any phase', async () => {
  const { client, admin, cluster: running } = await startMerge();
  const load = new DocumentLoad(client, KEYS);
  for (const [round, phase] of ['loading', 'following', 'proxying'].entries()) {
    await oneMerge(admin, round, phase, async () => {
      // The pod that serves, a follower, another one.
      const store = running.store(round + 1);
      await store.kill();
      await store.start();
    });
  }
  expect(await load.stop()).toEqual([]);
  expect(load.operations).toBeGreaterThan(100);
});

test('a move ends the same when the placement service, the source or the target is killed in any phase', async () => {
  cluster = await TestCluster.start({
    stores: 4,
    podNames: ['pod1', 'x', 'y', 'pod4'],
    pdSettings: ['placement.proxy-threshold=1500ms'],
  });
  const running = cluster;
  const client = await cluster.client({ timeoutMs: 30_000 });
  const admin = client.admin();
  await admin.documents.apply([
    {
      kind: 'Partition',
      metadata: { name: 'part1' },
      spec: { range: { start: 'a', end: 'o' }, assignedPods: [{ name: 'pod1', type: 'primary' }] },
    },
  ]);
  await waitFor('served', async () => (await admin.documents.get('Partition', 'part1')).settled, LIMIT_MS);
  const load = new DocumentLoad(client, KEYS);
  const restartPd = async (): Promise<void> => {
    await running.pd.kill('SIGKILL');
    await running.startPd();
  };
  const restart = (number: number) => async (): Promise<void> => {
    await running.store(number).kill();
    await running.store(number).start();
  };
  let [from, to] = ['pod1', 'pod4'];
  const kills: readonly (readonly [string, () => Promise<void>])[] = [
    ['loading', restartPd],
    ['following', restartPd],
    ['proxying', restartPd],
    ['loading', restart(1)],
    ['following', restart(4)],
    ['proxying', restart(1)],
  ];
  for (const [round, [phase, kill]] of kills.entries()) {
    const name = `move-${round}`;
    const seen = await throughPhase(
      admin,
      {
        kind: 'Assignment',
        metadata: { name },
        spec: { type: 'InterWorkerMove', moveParams: { partition: 'part1', from, to } },
      } as never,
      phase,
      kill,
    );
    expectInOrder(seen);
    const { spec, status } = await admin.documents.get('Partition', 'part1');
    expect(status).toEqual({ [to]: 'primary' });
    expect(spec['assignedPods']).toEqual([{ name: to, type: 'primary' }]);
    [from, to] = [to, from];
  }
  expect(await load.stop()).toEqual([]);
  expect(load.operations).toBeGreaterThan(100);
});
