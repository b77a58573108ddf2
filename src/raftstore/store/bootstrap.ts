/**
 * First start of a store: its identity record, and the first region of a cluster, written before the placement
 * service is told about it (placement 2.5). A crash in between leaves a prepared region that a retry either confirms
 * or clears.
 */
import { FULL_RANGE } from '../../base/key-range.ts';
import type { PeerId, RegionId, StoreId } from '../../base/ids.ts';
import {
  decodeStoreIdent,
  encodeApplyState,
  encodeRaftLocalState,
  encodeRegionLocalState,
  encodeStoreIdent,
} from '../../codec/raft-records.ts';
import { INIT_LOG_INDEX, INIT_LOG_TERM, type StoreIdent } from '../../codec/store-record.ts';
import type { Engine } from '../../env/engine.ts';
import { applyStateKey, raftStateKey, regionStateKey, regionStateRange, storeIdentKey } from '../../engine/keyspace.ts';
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
