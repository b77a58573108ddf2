/**
 * The data directory of a store and its first start: whose it is, and what must be durable before anybody is told.
 *
 * ```text
 * <data-dir>/IDENT   cluster id and store id as JSON; written last, so it proves that the database below is complete
 * <data-dir>/db/     the database; locked by the process that uses it
 * ```
 */
import { mkdir, open, readFile, rename, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '../base/app-error.ts';
import { isSafeId, peerId, regionId, type StoreId } from '../base/ids.ts';
import { rangesEqual, FULL_RANGE } from '../base/key-range.ts';
import { decodeApplyState, decodeRegionLocalState } from '../codec/raft-records.ts';
import { INIT_LOG_INDEX, type StoreIdent } from '../codec/store-record.ts';
import { applyStateKey, regionStateRange } from '../engine/keyspace.ts';
import type { Engine, EngineFactory } from '../env/engine.ts';
import type { Logger } from '../env/log.ts';
import { epochsEqual, INITIAL_EPOCH, type Region, type Store } from '../meta/region.ts';
import {
  bootstrapStore,
  clearFirstRegion,
  countStart,
  firstRegion,
  prepareFirstRegion,
  readStoreIdent,
} from '../raftstore/store/bootstrap.ts';
import type { StorePd } from './pd-client.ts';

export const IDENT_FILE = 'IDENT';
export const DATABASE = 'db';
export const IDENT_FORMAT = 1;
/** Only the owner may read user data. */
const DIRECTORY_MODE = 0o700;

/** The directory belongs to another cluster than the placement service it was started with. */
export class DirectoryClusterMismatchError extends AppError {
  constructor(path: string, own: bigint, service: bigint) {
    super('ClusterMismatch', `${path} belongs to cluster ${own}, but the placement service is of cluster ${service}`, {
      hint: "start with the --pd of the directory's cluster, or choose another --data-dir for a new store of this cluster",
      details: { path, directoryClusterId: String(own), serviceClusterId: String(service) },
    });
  }
}

/** The directory contradicts itself or cannot be used. */
export class DataDirError extends AppError {
  constructor(message: string, hint: string, cause?: unknown) {
    super('DataDir', message, { hint, ...(cause === undefined ? {} : { cause }) });
  }
}

export interface OpenedDataDir {
  readonly engine: Engine;
  readonly ident: StoreIdent;
  /** Whether this is the first start. */
  readonly isNew: boolean;
  /** How often the store has started, this time included. */
  readonly starts: number;
}

/**
 * Opens the directory of a store, creating it at the first start with a new store id.
 * @throws DirectoryClusterMismatchError, DataDirError, EngineOpenError (locked, damaged, of another program)
 */
export async function openDataDir(options: {
  readonly path: string;
  readonly engines: EngineFactory;
  readonly pd: Pick<StorePd, 'clusterId' | 'allocIds'>;
  readonly log: Logger;
}): Promise<OpenedDataDir> {
  const { path, engines, pd, log } = options;
  try {
    await mkdir(path, { recursive: true, mode: DIRECTORY_MODE });
  } catch (cause) {
    throw new DataDirError(
      `the data directory ${path} cannot be created: ${cause instanceof Error ? cause.message : String(cause)}`,
      'choose a directory this user may write to with --data-dir',
      cause,
    );
  }
  const recorded = await readIdentFile(path);
  refuseOtherCluster(path, recorded, pd.clusterId);
  // Without IDENT the first start was not completed, and nothing was promised to anybody from this directory.
  const engine = await engines.open({ path: join(path, DATABASE), createIfMissing: recorded === undefined });
  try {
    const stored = await readStoreIdent(engine);
    refuseOtherCluster(path, stored, pd.clusterId);
    if (recorded !== undefined) {
      if (stored === undefined || stored.storeId !== recorded.storeId) {
        throw new DataDirError(
          `${path} is the directory of store ${recorded.storeId}, but its database is ${stored === undefined ? 'empty' : `of store ${stored.storeId}`}`,
          'restore the directory as a whole, or start an empty store with another --data-dir',
        );
      }
      return { engine, ident: stored, isNew: false, starts: await countStart(engine) };
    }
    const ident = stored ?? (await createIdent(engine, pd));
    await writeIdentFile(path, ident);
    log.info({ path, storeId: ident.storeId, clusterId: String(ident.clusterId) }, 'a new store was created');
    return { engine, ident, isNew: true, starts: await countStart(engine) };
  } catch (cause) {
    await engine.close();
    throw cause;
  }
}

async function createIdent(engine: Engine, pd: Pick<StorePd, 'clusterId' | 'allocIds'>): Promise<StoreIdent> {
  const [storeId] = await pd.allocIds(1);
  if (storeId === undefined) {
    throw new DataDirError('the placement service gave no store id', 'start the store again');
  }
  const ident = { clusterId: pd.clusterId, storeId };
  await bootstrapStore(engine, ident);
  return ident;
}

function refuseOtherCluster(path: string, ident: StoreIdent | undefined, clusterId: bigint): void {
  if (ident !== undefined && ident.clusterId !== clusterId) {
    throw new DirectoryClusterMismatchError(path, ident.clusterId, clusterId);
  }
}

/** Undefined if there is none. @throws DataDirError */
export async function readIdentFile(path: string): Promise<StoreIdent | undefined> {
  const file = join(path, IDENT_FILE);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    if ((cause as { code?: unknown }).code === 'ENOENT') {
      return undefined;
    }
    throw new DataDirError(
      `${file} cannot be read: ${String(cause)}`,
      'check the permissions of the data directory',
      cause,
    );
  }
  let record: { format?: unknown; clusterId?: unknown; storeId?: unknown };
  try {
    record = JSON.parse(text) as typeof record;
  } catch (cause) {
    throw new DataDirError(`${file} is damaged`, 'keep the directory aside and start an empty store', cause);
  }
  if (record.format !== IDENT_FORMAT) {
    throw new DataDirError(
      `${file} has format ${String(record.format)}, this program knows ${IDENT_FORMAT}`,
      'start the version of the program that wrote this directory',
    );
  }
  const { clusterId, storeId } = record;
  if (typeof clusterId !== 'string' || !/^\d+$/.test(clusterId) || typeof storeId !== 'number' || !isSafeId(storeId)) {
    throw new DataDirError(`${file} is damaged`, 'keep the directory aside and start an empty store');
  }
  return { clusterId: BigInt(clusterId), storeId };
}

/** Atomic and durable: a crash leaves the file whole or absent. */
async function writeIdentFile(path: string, ident: StoreIdent): Promise<void> {
  const record = { format: IDENT_FORMAT, clusterId: String(ident.clusterId), storeId: ident.storeId };
  const temporary = join(path, `${IDENT_FILE}.tmp`);
  const handle = await open(temporary, 'w', 0o600);
  try {
    await handle.writeFile(`${JSON.stringify(record)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, join(path, IDENT_FILE));
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

// ------------------------------------------------------------------------------------------------- first region

/**
 * Makes sure that the cluster has a first region. Of several stores that start together one wins; the others drop the
 * region they prepared. A crash in between leaves a prepared region that the next start confirms or drops.
 */
export async function joinCluster(options: {
  readonly engine: Engine;
  readonly pd: Pick<StorePd, 'isBootstrapped' | 'bootstrap' | 'allocIds' | 'getRegionById'>;
  readonly store: Store;
  readonly log: Logger;
}): Promise<void> {
  const { engine, pd, store, log } = options;
  const prepared = await preparedRegion(engine, store.id);
  if (await pd.isBootstrapped()) {
    if (prepared !== undefined) {
      await settlePrepared(options, prepared);
    }
    return;
  }
  const region = prepared ?? (await prepare(options));
  if (await pd.bootstrap(store, region)) {
    log.info({ region: region.id }, 'the cluster was created');
  } else {
    await settlePrepared(options, region);
  }
}

async function prepare(options: {
  readonly engine: Engine;
  readonly pd: Pick<StorePd, 'allocIds'>;
  readonly store: Store;
}): Promise<Region> {
  const [region, peer] = await options.pd.allocIds(2);
  if (region === undefined || peer === undefined) {
    throw new DataDirError('the placement service gave no ids for the first region', 'start the store again');
  }
  const first = firstRegion(regionId(region), peerId(peer), options.store.id);
  await prepareFirstRegion(options.engine, first);
  return first;
}

/** The answer to our own Bootstrap may have been lost, so the region's id decides whose it is. */
async function settlePrepared(
  options: { readonly engine: Engine; readonly pd: Pick<StorePd, 'getRegionById'>; readonly log: Logger },
  region: Region,
): Promise<void> {
  if ((await options.pd.getRegionById(region.id)) === undefined) {
    await clearFirstRegion(options.engine, region.id);
    options.log.info({ region: region.id }, 'another store created the cluster');
  }
}

/** A first region that was written here and has never served anything. */
async function preparedRegion(engine: Engine, storeId: StoreId): Promise<Region | undefined> {
  const { entries } = await engine.scan({ range: regionStateRange(), limit: 2 });
  const [only, other] = entries;
  if (only === undefined || other !== undefined) {
    return undefined;
  }
  const { state, region } = decodeRegionLocalState(only[1]);
  const [peer] = region.peers;
  const isFirst =
    state === 'normal' &&
    rangesEqual(region.range, FULL_RANGE) &&
    epochsEqual(region.epoch, INITIAL_EPOCH) &&
    region.peers.length === 1 &&
    peer?.storeId === storeId;
  const applied = isFirst ? await engine.get(applyStateKey(region.id)) : undefined;
  return applied !== undefined && decodeApplyState(applied).appliedIndex === INIT_LOG_INDEX ? region : undefined;
}

// ------------------------------------------------------------------------------------------------- space

/** Size and free space of the file system below a directory. */
export async function fileSystemSpace(
  path: string,
): Promise<{ readonly capacityBytes: number; readonly availableBytes: number }> {
  const { bsize, blocks, bavail } = await statfs(path);
  return { capacityBytes: bsize * blocks, availableBytes: bsize * bavail };
}
