/** The SDK against real stores and a real placement service in this process, over gRPC. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { type Braid, type Submission, all, connect, json, prefix, range } from '../../src/index.ts';
import { type TestCluster, startCluster } from '../../src/testing/index.ts';

const text = (bytes: Uint8Array | undefined): string | undefined =>
  bytes === undefined ? undefined : Buffer.from(bytes).toString();

/** The cluster refuses changes for as long as a region is not in the state they need. */
async function carryOut(db: Braid, submit: () => Promise<Submission>): Promise<void> {
  const submission = await vi.waitFor(submit, { timeout: 20_000, interval: 50 });
  if (submission.type === 'started') {
    await db.admin().waitOperator(submission.operator.id, { timeoutMs: 30_000 });
  }
}

describe('a cluster of three stores', () => {
  let cluster: TestCluster;
  let db: Braid;

  beforeAll(async () => {
    cluster = await startCluster({ stores: 3 });
    db = await cluster.connect();
  });

  afterAll(async () => {
    await cluster.close();
  });

  test('every region has three replicas on three stores', async () => {
    const [region] = await db.regions(all());
    expect(new Set(region?.peers.map(({ storeId }) => storeId)).size).toBe(3);
  });

  test('point operations, compare-and-swap and time to live', async () => {
    const view = db.sub('point/');
    expect(await view.get('k')).toBeUndefined();
    await view.put('k', 'v');
    expect(text(await view.get('k'))).toBe('v');
    expect(await view.has('k')).toBe(true);
    expect(await view.put('k', 'w', { ifAbsent: true })).toEqual({ written: false });
    const refused = await view.compareAndSwap('k', { expected: 'x', value: 'y' });
    expect([refused.swapped, text(refused.previous)]).toEqual([false, 'v']);
    expect((await view.compareAndSwap('k', { expected: 'v', value: 'y' })).swapped).toBe(true);
    await view.put('t', 'v', { ttlMs: 100_000 });
    const ttl = (await view.ttl('t')) ?? 0;
    expect(ttl).toBeGreaterThan(90_000);
    expect(ttl).toBeLessThanOrEqual(100_000);
    expect(await view.ttl('k')).toBe(Infinity);
    await view.delete('k');
    expect(await view.ttl('k')).toBeUndefined();
  });

  test('batches, scans and range deletion', async () => {
    const view = db.sub('many/').withCodec({ value: json<number>() });
    const names = Array.from({ length: 1000 }, (_, i) => `k${String(i).padStart(4, '0')}`);
    const results = await view.writeMany(names.map((key, i) => ({ type: 'put', key, value: i }) as const));
    expect(results.every(({ type }) => type === 'written')).toBe(true);
    expect(await view.getMany(['k0001', 'none', 'k0999'])).toEqual([1, undefined, 999]);
    const up = await view.scan(all(), { pageSize: 100 }).toArray();
    expect(up.map(({ value }) => value)).toEqual(names.map((_, i) => i));
    const down = await view.scan(prefix('k05'), { reverse: true, limit: 3 }).toArray();
    expect(down.map(({ value }) => value)).toEqual([599, 598, 597]);
    await view.deleteRange(range('k0100', 'k0900'));
    expect(await view.scan(all()).toArray()).toHaveLength(200);
  });

  test('a split, a leader transfer and a merge happen under reads and writes without an error', async () => {
    const view = db.sub('moving/');
    const admin = await cluster.admin();
    const names = Array.from({ length: 64 }, (_, i) => `k${String(i).padStart(2, '0')}`);
    let isRunning = true;
    let rounds = 0;
    const load = (async (): Promise<void> => {
      while (isRunning) {
        const value = String(rounds);
        await Promise.all(names.map((key) => view.put(key, value)));
        const values = await Promise.all(names.map((key) => view.get(key)));
        expect(values.map(text)).toEqual(names.map(() => value));
        rounds++;
      }
    })();
    const change = async (): Promise<void> => {
      const { id } = await view.locate('k32');
      await carryOut(db, () => admin.splitRegion(id, [utf8('moving/k32')]));
      await expect.poll(() => db.regions(prefix('moving/')), { timeout: 20_000, interval: 20 }).toHaveLength(2);
      const [left, right] = await db.regions(prefix('moving/'));
      const other = right?.peers.find((peer) => peer.storeId !== right.leader?.storeId);
      await carryOut(db, () => admin.transferLeader(right?.id ?? 0, other?.storeId ?? 0));
      await carryOut(db, () => admin.mergeRegions({ source: left?.id ?? 0, target: right?.id ?? 0 }));
      await expect.poll(() => db.regions(prefix('moving/')), { timeout: 20_000, interval: 20 }).toHaveLength(1);
    };
    try {
      await change();
    } finally {
      isRunning = false;
    }
    await load;
    expect(rounds).toBeGreaterThan(0);
  });

  test('the loss of one store is survived by the same connection', async () => {
    const view = db.sub('loss/');
    await view.put('k', '1');
    const { leader } = await view.locate('k');
    const store = cluster.stores.find(({ id }) => id === leader?.storeId);
    await cluster.stopStore(store?.number ?? 0);
    expect(text(await view.get('k', { timeoutMs: 20_000 }))).toBe('1');
    await view.put('k', '2', { timeoutMs: 20_000 });
    await cluster.startStore(store?.number ?? 0);
    expect(text(await view.get('k'))).toBe('2');
  });
});

test('connecting to a port where nobody listens names it', async () => {
  await expect(connect({ pd: ['127.0.0.1:1'], connectTimeoutMs: 500 })).rejects.toMatchObject({
    code: 'Unavailable',
    message: expect.stringContaining('127.0.0.1:1'),
  });
});

describe('a cluster with three placement members', () => {
  test('goes on when the one that leads is stopped, and takes it back', async () => {
    await using cluster = await startCluster({ stores: 1, pdMembers: 3 });
    expect(cluster.pd).toHaveLength(3);
    const db = await cluster.connect({ timeoutMs: 20_000 });
    await db.put('a', '1');
    const leader = cluster.pdMembers.find(({ isLeader }) => isLeader);
    expect(leader?.isRunning).toBe(true);
    await cluster.stopPdMember(leader?.number ?? 0);
    await using late = await connect({ pd: cluster.pd, timeoutMs: 20_000, connectTimeoutMs: 20_000 });
    expect(text(await late.get('a'))).toBe('1');
    await cluster.startPdMember(leader?.number ?? 0);
    await vi.waitFor(
      async () => {
        const members = await db.admin().placementMembers({ timeoutMs: 5_000 });
        expect(members.every((member) => member.isAnswering && member.isVoter)).toBe(true);
        expect(members.find((member) => member.isLeader)?.name).not.toBe(leader?.name);
      },
      { timeout: 20_000, interval: 100 },
    );
  });
});
