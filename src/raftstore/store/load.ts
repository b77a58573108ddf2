/**
 * Restart (reference 2.7): reads every region record and decides what to bring back. Nothing is started here. A log
 * that contradicts its own apply state stops the store: acknowledged data has disappeared.
 */
import { assert } from '../../base/assert.ts';
import { logIndex, type RegionId } from '../../base/ids.ts';
import {
  decodeApplyState,
  decodeEntry,
  decodeRaftLocalState,
  decodeRegionLocalState,
} from '../../codec/raft-records.ts';
import {
  INIT_LOG_INDEX,
  INIT_LOG_TERM,
  type ApplyState,
  type MergeState,
  type PeerState,
  type RaftLocalState,
} from '../../codec/store-record.ts';
import { CorruptionError, type Engine } from '../../env/engine.ts';
import {
  applyStateKey,
  raftLogKey,
  raftLogRange,
  raftStateKey,
  regionIdOfStateKey,
  regionLocalRange,
  regionStateRange,
} from '../../engine/keyspace.ts';
import { findPeerOnStore, type Peer, type Region } from '../../meta/region.ts';

/** Records read per page. */
const PAGE_RECORDS = 512;
/** Left-over log entries deleted per batch. */
const DELETE_BATCH_MAX = 4096;

export interface LoadedPeer {
  readonly state: Exclude<PeerState, 'tombstone'>;
  readonly region: Region;
  readonly peer: Peer;
  readonly raftState: RaftLocalState;
  readonly applyState: ApplyState;
  readonly mergeState: MergeState | undefined;
}

export interface LoadedStore {
  readonly peers: readonly LoadedPeer[];
  /** source -> target of merges this store took part in. */
  readonly merged: ReadonlyMap<RegionId, RegionId>;
}

export async function loadRegions(engine: Engine, storeId: number): Promise<LoadedStore> {
  const peers: LoadedPeer[] = [];
  const merged = new Map<RegionId, RegionId>();
  let range = regionStateRange();
  for (;;) {
    const page = await engine.scan({ range, limit: PAGE_RECORDS });
    for (const [key, value] of page.entries) {
      const id = regionIdOfStateKey(key);
      const record = decodeRegionLocalState(value);
      if (record.state === 'tombstone') {
        if (record.mergeState !== undefined) {
          merged.set(id, record.mergeState.target.id);
        }
        await wipeLeftovers(engine, record.region);
        continue;
      }
      const peer = findPeerOnStore(record.region, storeId as Peer['storeId']);
      assert(peer !== undefined, 'a live region record does not list this store', { region: id, storeId });
      const { raftState, applyState } = await loadLog(engine, id, peer);
      peers.push({
        state: record.state,
        region: record.region,
        peer,
        raftState,
        applyState,
        mergeState: record.mergeState,
      });
    }
    const last = page.entries[page.entries.length - 1];
    if (!page.more || last === undefined) {
      return { peers, merged };
    }
    range = { start: afterKey(last[0]), end: range.end };
  }
}

function afterKey(key: Uint8Array): Uint8Array {
  const out = new Uint8Array(key.length + 1);
  out.set(key);
  return out;
}

/** Raft state to continue from when an older record (an uninitialized peer's promises, or none) is there. */
export function initialRaftState(peer: number, previous: RaftLocalState | undefined): RaftLocalState {
  const own = previous !== undefined && previous.peerId === peer ? previous : undefined;
  const term = Math.max(own?.term ?? 0, INIT_LOG_TERM);
  return {
    peerId: peer,
    term,
    vote: own !== undefined && own.term === term ? own.vote : 0,
    commit: INIT_LOG_INDEX,
    lastIndex: INIT_LOG_INDEX,
  };
}

async function loadLog(
  engine: Engine,
  region: RegionId,
  peer: Peer,
): Promise<{ raftState: RaftLocalState; applyState: ApplyState }> {
  const applyBytes = await engine.get(applyStateKey(region));
  if (applyBytes === undefined) {
    throw new CorruptionError(`the apply state of region ${region} is missing`, { region });
  }
  const applyState = decodeApplyState(applyBytes);
  const raftBytes = await engine.get(raftStateKey(region));
  let raftState = raftBytes === undefined ? undefined : decodeRaftLocalState(raftBytes);
  if (raftState === undefined || raftState.lastIndex < INIT_LOG_INDEX || raftState.peerId !== peer.id) {
    // A split wrote the region; its first Raft state was not written before the crash.
    raftState = initialRaftState(peer.id, raftState);
  }
  const { commitIndex, commitTerm, appliedIndex, truncatedIndex, truncatedTerm } = applyState;
  const commit = Math.max(raftState.commit, commitIndex, appliedIndex);
  if (raftState.lastIndex < commit || raftState.lastIndex < truncatedIndex) {
    throw new CorruptionError(
      `the log of region ${region} ends at ${raftState.lastIndex}, but ${commit} is committed: acknowledged data is missing`,
      { region, lastIndex: raftState.lastIndex, commit },
    );
  }
  if (commitIndex > truncatedIndex || (commitIndex === truncatedIndex && commitTerm !== truncatedTerm)) {
    const bytes =
      commitIndex === truncatedIndex ? undefined : await engine.get(raftLogKey(region, logIndex(commitIndex)));
    if (bytes === undefined || decodeEntry(bytes).term !== commitTerm) {
      throw new CorruptionError(
        `log entry ${commitIndex} of region ${region} is not the committed one of term ${commitTerm}`,
        {
          region,
          commitIndex,
          commitTerm,
        },
      );
    }
  }
  await deleteRange(engine, raftLogRange(region, logIndex(0), logIndex(truncatedIndex + 1)));
  return { raftState: { ...raftState, commit }, applyState };
}

/**
 * What a crash during destruction left of a dead replica's log. The raft state may belong to somebody else by now: a
 * newer replica of the region that has voted and waits for its first snapshot. Its promises must survive.
 */
async function wipeLeftovers(engine: Engine, tombstone: Region): Promise<void> {
  const bytes = await engine.get(raftStateKey(tombstone.id));
  const state = bytes === undefined ? undefined : decodeRaftLocalState(bytes);
  const isOfNewer =
    state !== undefined && state.lastIndex === 0 && tombstone.peers.every((peer) => peer.id < state.peerId);
  if (!isOfNewer) {
    await deleteRange(engine, regionLocalRange(tombstone.id));
  }
}

async function deleteRange(engine: Engine, range: { start: Uint8Array; end: Uint8Array }): Promise<void> {
  for (;;) {
    const page = await engine.scan({ range, limit: DELETE_BATCH_MAX, keysOnly: true });
    if (page.entries.length === 0) {
      return;
    }
    const batch = engine.createBatch();
    for (const [key] of page.entries) {
      batch.del(key);
    }
    await engine.write(batch);
    if (!page.more) {
      return;
    }
  }
}
