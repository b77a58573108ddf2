/** What the SDK says about its writes, held against what the stores did, under random faults and topology changes. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { AppError } from '../../src/base/app-error.ts';
import { connectWith } from '../../src/client/connect.ts';
import type { Braid } from '../../src/client/kv.ts';
import { all } from '../../src/client/ranges.ts';
import { FakeCluster, type Interference } from '../unit/client/fake-cluster.ts';

const RUNS = Number(process.env['FC_RUNS'] ?? 200);

const KEYS = 24;
const name = (i: number): string => `k${String(i).padStart(2, '0')}`;

const arbInterference: fc.Arbitrary<Interference> = fc.oneof(
  { weight: 12, arbitrary: fc.constant<Interference>('serve') },
  fc.constantFrom<Interference>('break', 'serve-and-break', 'serve-silently', 'ignore'),
  fc.constantFrom<Interference>(
    { regionError: { notLeader: { regionId: 1 } } },
    { regionError: { regionNotFound: { regionId: 1 } } },
    { regionError: { epochNotMatch: { currentRegions: [] } } },
    { regionError: { proposalInMergingMode: { regionId: 1 } } },
    { regionError: { staleCommand: {} } },
    { regionError: { undeterminedResult: { message: 'lost' } } },
    { regionError: { serverIsBusy: { reason: 'full', backoffMs: 5, estimatedWaitMs: 0, appliedIndex: 0 } } },
    { regionError: {} },
  ),
);

type Event =
  | { readonly type: 'split' | 'merge'; readonly key: number }
  | { readonly type: 'leader'; readonly key: number; readonly store: number | undefined }
  | { readonly type: 'stop' | 'start' | 'dark' | 'break'; readonly store: number }
  | { readonly type: 'pd'; readonly reach: 'up' | 'down' | 'dark' };

const arbKey = fc.integer({ min: 1, max: KEYS - 1 });
const arbStore = fc.integer({ min: 1, max: 3 });
const arbEvent: fc.Arbitrary<Event> = fc.oneof(
  fc.record({ type: fc.constantFrom('split' as const, 'merge' as const), key: arbKey }),
  fc.record({ type: fc.constant('leader' as const), key: arbKey, store: fc.option(arbStore, { nil: undefined }) }),
  fc.record({
    type: fc.constantFrom('stop' as const, 'start' as const, 'dark' as const, 'break' as const),
    store: arbStore,
  }),
  fc.record({
    type: fc.constant('pd' as const),
    reach: fc.constantFrom('up' as const, 'down' as const, 'dark' as const),
  }),
);

function happen(cluster: FakeCluster, event: Event): void {
  switch (event.type) {
    case 'split': {
      const { range } = cluster.regionOf(name(event.key)).region;
      if (Buffer.from(range.start).toString() !== name(event.key)) {
        cluster.split(name(event.key));
      }
      return;
    }
    case 'merge': {
      const border = Buffer.from(cluster.regionOf(name(event.key)).region.range.start).toString();
      if (border !== '') {
        cluster.mergeAt(border);
      }
      return;
    }
    case 'leader':
      cluster.setLeader(name(event.key), event.store);
      return;
    case 'stop':
      cluster.stopStore(event.store);
      return;
    case 'start':
      cluster.startStore(event.store);
      return;
    case 'dark':
      cluster.net.setReach(cluster.addressOf(event.store), 'dark');
      return;
    case 'break':
      cluster.net.breakStreams(cluster.addressOf(event.store));
      return;
    case 'pd':
      cluster.net.setReach('pd:1', event.reach);
  }
}

function heal(cluster: FakeCluster): void {
  [1, 2, 3].forEach((store) => cluster.startStore(store));
  cluster.net.setReach('pd:1', 'up');
  cluster.interfere = () => 'serve';
  for (const found of cluster.regions) {
    found.leader ??= found.region.peers[0];
  }
}

/** One write with a value of its own; resolves to what the client knows of it. */
async function write(db: Braid, kind: number, key: string, value: string): Promise<'done' | 'not-applied' | 'unknown'> {
  try {
    if (kind === 0) {
      await db.put(key, value);
    } else if (kind === 1) {
      const result = await db.put(key, value, { ifAbsent: true });
      return result.written ? 'done' : 'not-applied';
    } else {
      const [result] = await db.writeMany([{ type: 'put', key, value }]);
      if (result?.type === 'failed') {
        return result.error.outcome;
      }
    }
    return 'done';
  } catch (error) {
    return error instanceof AppError ? error.outcome : 'unknown';
  }
}

test('a write reported as done happened once, one reported as not applied never, and an unknown one at most once', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(arbInterference, { minLength: 1, maxLength: 60 }),
      fc.array(fc.tuple(fc.integer({ min: 0, max: 400 }), arbEvent), { maxLength: 25 }),
      fc.array(
        fc.tuple(
          fc.integer({ min: 0, max: 2 }),
          fc.integer({ min: 0, max: KEYS - 1 }),
          fc.integer({ min: 0, max: 100 }),
        ),
        {
          minLength: 1,
          maxLength: 60,
        },
      ),
      async (interferences, events, writes) => {
        const cluster = new FakeCluster({ splits: [name(12)] });
        const { clock } = cluster;
        const db = await clock.drive(connectWith(cluster.env, { pd: 'pd:1', timeoutMs: 3000 }));
        let n = 0;
        cluster.interfere = () => interferences[n++ % interferences.length] ?? 'serve';
        for (const [atMs, event] of events) {
          clock.setTimer(atMs, () => happen(cluster, event), 'event');
        }
        clock.setTimer(1500, () => heal(cluster), 'heal');
        const startMs = clock.monoMs();
        const outcomes = writes.map(([kind, key, afterMs], i) => ({
          value: `v${i}`,
          outcome: new Promise<'done' | 'not-applied' | 'unknown'>((resolve) => {
            clock.setTimer(afterMs, () => void write(db, kind, name(key), `v${i}`).then(resolve), 'write');
          }),
        }));
        await clock.drive(Promise.all(outcomes.map(({ outcome }) => outcome)));
        // Nothing outlives its deadline by more than the width of a timer slot.
        expect(clock.monoMs() - startMs).toBeLessThanOrEqual(100 + 3000 + 10);
        for (const { value, outcome } of outcomes) {
          const times = cluster.writes.get(value) ?? 0;
          const known = await outcome;
          expect(times, `${value} was reported as ${known}`).toBeLessThanOrEqual(1);
          if (known !== 'unknown') {
            expect(times, `${value} was reported as ${known}`).toBe(known === 'done' ? 1 : 0);
          }
        }
        // Afterwards the same connection works, whatever it went through.
        heal(cluster);
        const seen = await clock.drive(db.scan(all(), { pageSize: 5, timeoutMs: 20_000 }).toArray());
        expect(seen.map(({ key }) => Buffer.from(key).toString())).toEqual(cluster.keys());
        await clock.drive(db.close());
        await clock.advance(5000);
        expect(clock.pendingTimers).toBe(0);
      },
    ),
    { numRuns: RUNS },
  );
});
