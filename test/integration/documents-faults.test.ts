/**
 * Documents while processes are killed: the placement service and one store after the other, in every phase of a merge
 * and of a move, with clients at work. The end is always the same, and no answer is wrong.
 */
import { afterEach, expect, test } from 'vitest';
import type { AdminClient, Braid } from '../../src/index.ts';
import { TestCluster, waitFor } from './cluster.ts';
import { DocumentLoad } from './document-load.ts';

const KEYS = ['c/1', 'f/1', 'k/1'];
const LIMIT_MS = 90_000;

let cluster: TestCluster | undefined;

afterEach(async (context) => {
  if (context.task.result?.state === 'fail' && cluster !== undefined) {
    process.stderr.write(`${cluster.logs()}\n`);
  }
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

const partition = (name: string, start: string, end: string): unknown => ({
  kind: 'Partition',
  metadata: { name },
  spec: { range: { start, end }, primary: 'pod1' },
});

const phaseOf = (status: unknown): string => {
  const inner: unknown = typeof status === 'object' && status !== null ? Object.values(status)[0] : undefined;
  return typeof inner === 'object' && inner !== null ? String((inner as { status: unknown }).status) : '';
};

/** Applies a document, and kills when its Assignment has come to a phase. Resolves when it is completed. */
async function throughPhase(
  admin: AdminClient,
  document: { readonly metadata: { readonly name: string } },
  phase: string,
  kill: () => Promise<void>,
): Promise<readonly string[]> {
  const { name } = document.metadata;
  const { version } = await admin.documents.list();
  const seen: string[] = [];
  const ended = new AbortController();
  const watching = (async () => {
    for await (const change of admin.documents.watch({ afterVersion: version, signal: ended.signal })) {
      if (change.document.metadata.name === name) {
        const now = phaseOf(change.document.status);
        if (seen.at(-1) !== now) {
          seen.push(now);
        }
        if (change.document.settled) {
          return;
        }
      }
    }
  })();
  await admin.documents.apply([document]);
  await waitFor(`${name} is ${phase}`, () => seen.includes(phase), LIMIT_MS);
  await kill();
  const timer = setTimeout(() => ended.abort(), LIMIT_MS);
  await watching;
  clearTimeout(timer);
  return seen;
}

const order = ['', 'loading', 'following', 'proxying', 'completed'];
/** Phases come in order; a restarted service may have been too quick for the watch to see them all. */
function expectInOrder(seen: readonly string[]): void {
  const places = seen.map((phase) => order.indexOf(phase));
  expect(places.every((place) => place >= 0)).toBe(true);
  const withoutSteppingBack = places.filter((place, i) => !(place === 2 && places[i - 1] === 1));
  expect([...withoutSteppingBack].sort((a, b) => a - b)).toEqual(withoutSteppingBack);
  expect(seen.at(-1)).toBe('completed');
}

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
    await oneMerge(admin, round, phase, async () => {
      const { members } = await admin.status();
      const leader = members.find((member) => member.isLeader)?.name ?? '';
      const number = Number(/^pd(\d)$/.exec(leader)?.[1]);
      await running.pdMember(number).kill('SIGKILL');
      await running.startPdMember(number);
    });
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
