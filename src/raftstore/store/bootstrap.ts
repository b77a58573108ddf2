/**
 * First start of a store: its identity record, and the first region of a cluster, written before the placement
 * service is told about it (placement 2.5). A crash in between leaves a prepared region that a retry either confirms
 * or clears.
 */
import { AppError } from '../../base/app-error.ts';
import { FULL_RANGE } from '../../base/key-range.ts';
import type { PeerId, RegionId, StoreId } from '../../base/ids.ts';
import {
  decodeStarts,
  decodeStoreIdent,
  encodeApplyState,
  encodeRaftLocalState,
  encodeRegionLocalState,
  encodeStarts,
  encodeStoreIdent,
} from '../../codec/raft-records.ts';
import { INIT_LOG_INDEX, INIT_LOG_TERM, type StoreIdent } from '../../codec/store-record.ts';
import type { Engine } from '../../env/engine.ts';
import {
  applyStateKey,
  raftStateKey,
  regionStateKey,
  regionStateRange,
  storeIdentKey,
  storeStartsKey,
} from '../../engine/keyspace.ts';
import { INITIAL_EPOCH, type Region } from '../../meta/region.ts';
import { initialApplyState } from '../peer/peer-storage.ts';

/** Writes the identity of a new store. */
export async function bootstrapStore(engine: Engine, ident: StoreIdent): Promise<void> {
  const batch = engine.createBatch();
  batch.put(storeIdentKey(), encodeStoreIdent(ident));
  await engine.write(batch);
}

/** Undefined for a directory in which no store was set up yet. */
export async function readStoreIdent(engine: Engine): Promise<StoreIdent | undefined> {
  const bytes = await engine.get(storeIdentKey());
  return bytes === undefined ? undefined : decodeStoreIdent(bytes);
}

/**
 * Counts a start, durably and before anything else happens. The placement service remembers the largest count of each
 * store: a disk that comes back as it was before an earlier start is told by its smaller count.
 * @returns how often the store has started, this time included
 */
export async function countStart(engine: Engine): Promise<number> {
  const stored = await engine.get(storeStartsKey());
  const starts = (stored === undefined ? 0 : decodeStarts(stored)) + 1;
  const batch = engine.createBatch();
  batch.put(storeStartsKey(), encodeStarts(starts));
  await engine.write(batch);
  return starts;
}

/** The disk of the store shows an older state than one it has been running with. */
export class StoreRolledBackError extends AppError {
  constructor(storeId: number, reason: string) {
    super('StoreRolledBack', `store ${storeId} must not start: ${reason}`, {
      hint: 'an old copy of its disk was restored, so it has forgotten votes and writes it confirmed: keep the directory aside, remove the store from the cluster and start an empty one',
      details: { storeId },
    });
  }
}

/** The region of a new cluster: the whole key space, one voter. */
export const firstRegion = (region: RegionId, peer: PeerId, store: StoreId): Region => ({
  id: region,
  range: FULL_RANGE,
  epoch: INITIAL_EPOCH,
  peers: [{ id: peer, storeId: store, role: 'voter' }],
});

/** Writes the first region durably; it serves nothing before the placement service accepted it. */
export async function prepareFirstRegion(engine: Engine, region: Region): Promise<void> {
  const [peer] = region.peers;
  const batch = engine.createBatch();
  batch.put(regionStateKey(region.id), encodeRegionLocalState({ state: 'normal', region, mergeState: undefined }));
  batch.put(applyStateKey(region.id), encodeApplyState(initialApplyState()));
  batch.put(
    raftStateKey(region.id),
    encodeRaftLocalState({
      peerId: peer?.id ?? 0,
      term: INIT_LOG_TERM,
      vote: 0,
      commit: INIT_LOG_INDEX,
      lastIndex: INIT_LOG_INDEX,
    }),
  );
  await engine.write(batch);
}

/** Ids of the regions recorded on this store. */
export async function recordedRegions(engine: Engine): Promise<number> {
  const page = await engine.scan({ range: regionStateRange(), limit: 2, keysOnly: true });
  return page.entries.length;
}

/** Drops a prepared first region because another store bootstrapped the cluster. */
export async function clearFirstRegion(engine: Engine, region: RegionId): Promise<void> {
  const batch = engine.createBatch();
  batch.del(regionStateKey(region));
  batch.del(applyStateKey(region));
  batch.del(raftStateKey(region));
  await engine.write(batch);
}
