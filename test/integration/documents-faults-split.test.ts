/**
 * New Partitions and splits while processes are killed: the leading member of the placement service and one store after
 * the other, in every phase, with clients at work. The end is always the same, and no answer is wrong.
 */
import { afterEach, expect, test } from 'vitest';
import type { AdminClient } from '../../src/index.ts';
import { TestCluster, waitFor } from './cluster.ts';
import { DocumentLoad } from './document-load.ts';
import { LIMIT_MS, expectInOrder, partition, restartPdLeader, restartStore, throughPhase } from './document-phases.ts';

const KEYS = ['c/1', 'f/1', 'k/1'];
/** Before it is planned, while it is prepared, and while the region is split. */
const SPLIT_PHASES = ['', 'loading', 'following'] as const;

let cluster: TestCluster | undefined;

afterEach(async (context) => {
  if (context.task.result?.state === 'fail' && cluster !== undefined) {
    process.stderr.write(`${cluster.logs()}\n`);
  }
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

async function start(pdMembers: number): Promise<{
  readonly running: TestCluster;
  readonly admin: AdminClient;
  readonly load: DocumentLoad;
}> {
  cluster = await TestCluster.start({ stores: 3, podNames: ['pod1', 'pod2', 'pod3'], pdMembers });
  const client = await cluster.client({ timeoutMs: 30_000 });
  return { running: cluster, admin: client.admin(), load: new DocumentLoad(client, KEYS) };
}

const partitions = async (
  admin: AdminClient,
): Promise<Awaited<ReturnType<AdminClient['documents']['list']>>['documents']> =>
  (await admin.documents.list({ kind: 'Partition' })).documents;

/** Waits until everything that was applied is served as it says. */
async function served(admin: AdminClient): Promise<void> {
  await waitFor(
    'every Partition is served',
    async () => (await partitions(admin)).every(({ settled }) => settled),
    LIMIT_MS,
  );
}

/** Splits [a, o) once and puts it together again. */
async function oneSplit(admin: AdminClient, round: number, phase: string, kill: () => Promise<void>): Promise<void> {
  const whole = `whole-${round}`;
  await admin.documents.apply([partition(whole, 'a', 'o')]);
  await served(admin);
  const name = `split-${round}`;
  const seen = await throughPhase(
    admin,
    {
      metadata: { name },
      kind: 'Assignment',
      spec: { type: 'InWorkerSplit', splitParams: { partition: whole, splitKey: 'f' } },
    } as never,
    phase,
    kill,
  );
  expectInOrder(seen);
  expect((await admin.documents.get('Assignment', name)).status).toEqual({
    split: {
      status: 'completed',
      fromPart: 'disconnected',
      splits: { [`${whole}-1`]: 'primary', [`${whole}-2`]: 'primary' },
    },
  });
  await served(admin);
  const parts = await partitions(admin);
  expect(parts.map(({ metadata, spec }) => [metadata.name, spec['range']])).toEqual([
    [`${whole}-1`, { start: 'a', end: 'f' }],
    [`${whole}-2`, { start: 'f', end: 'o' }],
  ]);
  const regions = parts.map((part) => part.regions.map(({ id }) => id));
  expect(regions.map((ids) => ids.length)).toEqual([1, 1]);
  expect(regions[0]).not.toEqual(regions[1]);
  for (const part of parts) {
    await admin.documents.delete('Partition', part.metadata.name);
  }
}

/** A Partition of its own for every round, served by `from` first and by `to` in the end. */
async function oneNew(
  admin: AdminClient,
  round: number,
  [from, to]: readonly [string, string],
  kill: () => Promise<void>,
): Promise<void> {
  const name = `new-${round}`;
  const part = `part-${round}`;
  const isHeld = async (pod: string): Promise<boolean> => {
    const [only] = (await partitions(admin)).filter(({ metadata }) => metadata.name === part);
    const leader = only?.regions[0]?.leader?.storeId;
    return only?.settled === true && leader !== undefined && only.pods.get(leader) === pod;
  };
  // Not served yet when the Assignment comes: borders and leader are made while processes die.
  await admin.documents.apply([
    { kind: 'Partition', metadata: { name: part }, spec: { range: { start: 'b', end: 'm' }, primary: from } },
  ]);
  const seen = await throughPhase(
    admin,
    {
      metadata: { name },
      kind: 'Assignment',
      spec: { type: 'New', newParams: { partition: part, primary: to } },
    } as never,
    '',
    kill,
  );
  expectInOrder(seen);
  expect((await admin.documents.get('Assignment', name)).status).toEqual({ new: { status: 'completed' } });
  await waitFor(`${part} is served by ${to}`, () => isHeld(to), LIMIT_MS);
  const [only] = await partitions(admin);
  expect(only?.spec).toEqual({ range: { start: 'b', end: 'm' }, primary: to });
  expect(only?.regions).toHaveLength(1);
  await admin.documents.delete('Partition', part);
}

const finish = async (load: DocumentLoad): Promise<void> => {
  expect(await load.stop()).toEqual([]);
  expect(load.operations).toBeGreaterThan(100);
};

test('a split ends the same when the leading member of three is killed in any phase', async () => {
  const { running, admin, load } = await start(3);
  for (const [round, phase] of SPLIT_PHASES.entries()) {
    await oneSplit(admin, round, phase, () => restartPdLeader(admin, running));
  }
  await finish(load);
});

test('a split ends the same when a store is killed in any phase', async () => {
  const { running, admin, load } = await start(1);
  for (const [round, phase] of SPLIT_PHASES.entries()) {
    // The pod that serves, and the others.
    await oneSplit(admin, round, phase, () => restartStore(running, round + 1));
  }
  await finish(load);
});

test('a new Partition comes to its pod when the leading member of three is killed meanwhile', async () => {
  const { running, admin, load } = await start(3);
  for (const [round, pods] of (
    [
      ['pod1', 'pod2'],
      ['pod2', 'pod3'],
    ] as const
  ).entries()) {
    await oneNew(admin, round, pods, () => restartPdLeader(admin, running));
  }
  await finish(load);
});

test('a new Partition comes to its pod when the old, the new or another store is killed meanwhile', async () => {
  const { running, admin, load } = await start(1);
  for (const [round, pods] of (
    [
      ['pod1', 'pod2'],
      ['pod2', 'pod1'],
      ['pod1', 'pod2'],
    ] as const
  ).entries()) {
    await oneNew(admin, round, pods, () => restartStore(running, round + 1));
  }
  await finish(load);
});
