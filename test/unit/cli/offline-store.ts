/** Directories of a store and a placement member as the product leaves them, and changes of them that no product makes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { utf8 } from '../../../src/base/bytes.ts';
import { regionId } from '../../../src/base/ids.ts';
import type { CliIo } from '../../../src/cli/io.ts';
import { registerOfflineCommands } from '../../../src/cli/offline/index.ts';
import { runCli } from '../../../src/cli/program.ts';
import { connect, connectAdmin } from '../../../src/client/real.ts';
import { decodeRegionLocalState, encodeRegionLocalState } from '../../../src/codec/raft-records.ts';
import type { RegionLocalState } from '../../../src/codec/store-record.ts';
import { createLevelEngineFactory, regionStateKey } from '../../../src/engine/index.ts';
import type { Engine, WriteBatch } from '../../../src/env/engine.ts';
import type { Env } from '../../../src/env/env.ts';
import { createPinoLogger, realEnv } from '../../../src/env/real/index.ts';
import { createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import { startPd } from '../../../src/server/pd/pd-process.ts';
import { DEFAULT_STORE_CONFIG } from '../../../src/server/settings.ts';
import { startStore } from '../../../src/server/store-process.ts';
import { MemorySink, type RunOutcome } from './harness.ts';

/** What the store holds: plain text, bytes that are no text, an empty value and one that expires. */
export const ROWS: readonly (readonly [key: Uint8Array, value: Uint8Array])[] = [
  [utf8('a1'), utf8('first')],
  [Uint8Array.of(0x62, 0x00, 0xff, 0x5c), Uint8Array.of(0xff, 0xfe, 0x00)],
  [utf8('c'), utf8('')],
  [utf8('m1'), utf8('zwölf "quoted"\n')],
  [utf8('z9'), utf8('lives an hour')],
];

export const SPLIT_KEY = 'm';

/** A store that ran for a moment: two regions divided at {@link SPLIT_KEY}, the rows above, and a deletion. */
export class OfflineWorld {
  readonly root: string = mkdtempSync(join(tmpdir(), 'braid-offline-test-'));
  readonly store: string = join(this.root, 'store');
  readonly placement: string = join(this.root, 'pd');
  storeId = 0;
  /** Region ids in the order of their ranges. */
  regions: readonly number[] = [];
  #copies = 0;

  static async make(): Promise<OfflineWorld> {
    const world = new OfflineWorld();
    await runStore(world.store, world.placement, async (pd, storeId) => {
      world.storeId = storeId;
      const db = await connect({ pd: [pd], timeoutMs: 10_000 });
      const admin = await connectAdmin({ pd: [pd], timeoutMs: 10_000 });
      for (const [key, value] of ROWS) {
        await db.put(key, value, key[0] === 0x7a ? { ttlMs: 3_600_000 } : {});
      }
      await db.put('gone', 'for good');
      await db.delete('gone');
      const { id } = await db.locate('a');
      const submission = await admin.splitRegion(id, [utf8(SPLIT_KEY)]);
      if (!('operator' in submission)) {
        throw new Error('the region is divided already');
      }
      await admin.waitOperator(submission.operator.id);
      const { regions } = await admin.regions();
      world.regions = regions.map((region) => region.id);
      await admin.close();
      await db.close();
    });
    return world;
  }

  /** Runs the store of a directory, and a placement service that knows it, while `work` runs. */
  async run(
    directory: string,
    work: (pd: string, regions: () => Promise<readonly string[]>) => Promise<void>,
  ): Promise<void> {
    const placement = join(this.root, `pd-${++this.#copies}`);
    await cp(this.placement, placement, { recursive: true });
    await runStore(directory, placement, (pd, _, regions) => work(pd, regions));
  }

  /** A copy of the store's directory with `change` made to its records. */
  async changed(change?: (batch: WriteBatch, engine: Engine) => Promise<void> | void): Promise<string> {
    const directory = join(this.root, `copy-${++this.#copies}`);
    await cp(this.store, directory, { recursive: true });
    if (change !== undefined) {
      await changeRecords(directory, change);
    }
    return directory;
  }

  close(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}

async function runStore(
  directory: string,
  placement: string,
  /** `regions` tells what the store has, as `id:state`. */
  work: (pd: string, storeId: number, regions: () => Promise<readonly string[]>) => Promise<void>,
): Promise<void> {
  const [pdNet, storeNet] = [createGrpcNet(), createGrpcNet()];
  const env = (net: typeof pdNet): Env =>
    realEnv({ net, engines: createLevelEngineFactory(), log: createPinoLogger({ level: 'error' }) });
  const pd = await startPd({
    env: env(pdNet),
    config: { dataDir: placement, listenAddress: '127.0.0.1:0', cluster: { maxReplicas: 1 } },
  });
  const { server, raftstore } = DEFAULT_STORE_CONFIG;
  const store = await startStore({
    env: env(storeNet),
    config: {
      ...DEFAULT_STORE_CONFIG,
      server: { ...server, addr: '127.0.0.1:0', statusAddr: '127.0.0.1:0', dataDir: directory, pd: [pd.address] },
      raftstore: { ...raftstore, tickMs: 20, leaderLeaseMs: (raftstore.leaderLeaseMs * 20) / raftstore.tickMs },
    },
    onFatal: (error) => {
      throw error;
    },
  });
  try {
    await work(pd.address, store.storeId, async () => {
      const page = await fetch(`http://${store.statusAddress}/regions`);
      const found = (await page.json()) as readonly { readonly id: number; readonly state: string }[];
      return found.map(({ id, state }) => `${id}:${state}`);
    });
  } finally {
    await store.close({ graceful: false });
    await pd.close();
    await Promise.all([pdNet.close(0), storeNet.close(0)]);
  }
}

export async function changeRecords(
  directory: string,
  change: (batch: WriteBatch, engine: Engine) => Promise<void> | void,
): Promise<void> {
  const engine = await createLevelEngineFactory().open({ path: join(directory, 'db'), createIfMissing: false });
  const batch = engine.createBatch();
  await change(batch, engine);
  await engine.write(batch);
  await engine.close();
}

export async function readRecords<T>(directory: string, read: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await createLevelEngineFactory().open({ path: join(directory, 'db'), createIfMissing: false });
  try {
    return await read(engine);
  } finally {
    await engine.close();
  }
}

/** The state of a region as it is on disk. */
export async function stateOf(engine: Engine, region: number): Promise<RegionLocalState> {
  const bytes = await engine.get(regionStateKey(regionId(region)));
  if (bytes === undefined) {
    throw new Error(`region ${region} has no state`);
  }
  return decodeRegionLocalState(bytes);
}

export const putState = (batch: WriteBatch, state: RegionLocalState): void =>
  batch.put(regionStateKey(state.region.id), encodeRegionLocalState(state));

/** Runs `braid offline …`. With `typed` there is a terminal on which it is typed. */
export async function offline(
  args: readonly string[],
  { typed, signal }: { readonly typed?: string; readonly signal?: AbortSignal } = {},
): Promise<RunOutcome> {
  const [stdout, stderr] = [new MemorySink(), new MemorySink()];
  const io: CliIo = {
    env: {},
    stdout,
    stderr,
    stdin: (async function* () {
      yield Buffer.from(typed ?? '');
    })(),
    isStdinTerminal: typed !== undefined,
    signal: signal ?? new AbortController().signal,
  };
  const unused = (): Promise<never> => Promise.reject(new Error('nothing is connected to'));
  const code = await runCli(['offline', ...args], io, { data: unused, admin: unused }, [registerOfflineCommands]);
  return { code, stdout: stdout.text, stdoutBytes: stdout.bytes, stderr: stderr.text };
}
