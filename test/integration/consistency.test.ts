/** A value changed in the files of one stopped store is found, its replica fenced, and the replica replaced. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { encodeDataValue } from '../../src/codec/data-value.ts';
import { createLevelEngineFactory, dataKey } from '../../src/engine/index.ts';
import { all } from '../../src/index.ts';
import { TestCluster, type TestStore, braid, waitFor } from './cluster.ts';

let cluster: TestCluster | undefined;

afterEach(async () => {
  await cluster?.[Symbol.asyncDispose]();
  cluster = undefined;
});

/** As a disk that returns other bytes than were written, unnoticed by its checksums. */
async function changeOffline(store: TestStore, key: string, value: string): Promise<void> {
  const engine = await createLevelEngineFactory().open({ path: join(store.dataDir, 'db'), createIfMissing: false });
  const batch = engine.createBatch();
  batch.put(dataKey(utf8(key)), encodeDataValue(utf8(value), 0));
  await engine.write(batch);
  await engine.close();
}

test('planted divergence on one of three stores', async () => {
  cluster = await TestCluster.start({
    stores: 3,
    storeSettings: [
      'raftstore.consistency-check=500ms',
      'raftstore.store-heartbeat=500ms',
      'raftstore.pd-heartbeat=1s',
    ],
  });
  const { pdAddress } = cluster;
  const client = await cluster.client();
  for (let i = 0; i < 50; i++) {
    await client.put(`key-${i}`, `value-${i}`);
  }
  const [region] = await client.regions(all());
  const victim = cluster.stores.find((store) => store.id !== region?.leader?.storeId);
  const oldPeer = region?.peers.find((peer) => peer.storeId === victim?.id);
  if (victim === undefined || oldPeer === undefined) {
    throw new Error('three stores have a follower');
  }
  await victim.stop();
  await changeOffline(victim, 'key-7', 'not what was written');
  await victim.start();

  const run = (...args: string[]): ReturnType<typeof braid> => braid([...args, '--pd', pdAddress]);
  const events = await waitFor('a new replica', async () => {
    const [now] = await client.regions(all());
    const peer = now?.peers.find((each) => each.storeId === victim.id);
    return peer !== undefined && peer.id !== oldPeer.id && peer.role === 'voter'
      ? (await run('ctl', 'events')).stdout
      : undefined;
  });
  expect(events).toContain('replica-damaged');
  expect(victim.isRunning).toBe(true);
  const healthy = await waitFor('a healthy cluster', async () => {
    const check = await run('ctl', 'check', 'consistency', '-o', 'json');
    return check.code === 0 ? check.stdout : undefined;
  });
  expect(healthy).toContain('damagedPeerIds');
  for (let i = 0; i < 50; i++) {
    expect(fromUtf8((await client.get(`key-${i}`)) ?? new Uint8Array())).toBe(`value-${i}`);
  }
  // The new replica holds what was written.
  const page = await victim.page<string>('/metrics');
  expect(page).toMatch(/braid_raftstore_fenced_replicas 0/);
  await victim.stop();
  const engine = await createLevelEngineFactory().open({ path: join(victim.dataDir, 'db'), createIfMissing: false });
  const stored = await engine.get(dataKey(utf8('key-7')));
  await engine.close();
  expect(fromUtf8((stored ?? new Uint8Array()).subarray(1))).toBe('value-7');
  rmSync(join(victim.dataDir), { recursive: true, force: true });
}, 120_000);
