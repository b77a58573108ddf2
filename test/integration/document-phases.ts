/** What the tests of documents under faults share: killing in a phase, and what phases may be seen in. */
import { expect } from 'vitest';
import type { AdminClient } from '../../src/index.ts';
import { type TestCluster, waitFor } from './cluster.ts';

/** Longest wait for anything in these tests, ms. */
export const LIMIT_MS = 90_000;

export const partition = (name: string, start: string, end: string): unknown => ({
  kind: 'Partition',
  metadata: { name },
  spec: { range: { start, end }, primary: 'pod1' },
});

const phaseOf = (status: unknown): string => {
  const inner: unknown = typeof status === 'object' && status !== null ? Object.values(status)[0] : undefined;
  return typeof inner === 'object' && inner !== null ? String((inner as { status: unknown }).status) : '';
};

/** Applies a document, and kills when its Assignment has come to a phase. Resolves when it is completed. */
export async function throughPhase(
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
export function expectInOrder(seen: readonly string[]): void {
  const places = seen.map((phase) => order.indexOf(phase));
  expect(places.every((place) => place >= 0)).toBe(true);
  const withoutSteppingBack = places.filter((place, i) => !(place === 2 && places[i - 1] === 1));
  expect([...withoutSteppingBack].sort((a, b) => a - b)).toEqual(withoutSteppingBack);
  expect(seen.at(-1)).toBe('completed');
}

/** Kills the placement service, or of several members the one that leads, and starts it again. */
export async function restartPdLeader(admin: AdminClient, cluster: TestCluster): Promise<void> {
  const { members } = await admin.status();
  const leader = members.find((member) => member.isLeader)?.name ?? '';
  const number = Number(/^pd(\d?)$/.exec(leader)?.[1] || 1);
  await cluster.pdMember(number).kill('SIGKILL');
  await cluster.startPdMember(number);
}

export async function restartStore(cluster: TestCluster, number: number): Promise<void> {
  await cluster.store(number).kill();
  await cluster.store(number).start();
}
