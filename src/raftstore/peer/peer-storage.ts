/**
 * The durable side of one peer: its log, Raft promises and the peer's view of the apply state. Implements the core's
 * synchronous `LogStorage` over the engine with an entry cache. Writing is the caller's: methods only add to a batch.
 *
 * A batch that was handed to the store's write queue counts as stored here: the queue keeps the order, the entries are
 * still in the cache until they are durable, and nothing that promises them leaves before the batch is durable.
 */
import { assert } from '../../base/assert.ts';
import { logIndex, type RegionId } from '../../base/ids.ts';
import { decodeEntry, encodeEntry, encodeRaftLocalState } from '../../codec/raft-records.ts';
import { INIT_LOG_INDEX, INIT_LOG_TERM, type ApplyState, type RaftLocalState } from '../../codec/store-record.ts';
import { CorruptionError, type Engine, type WriteBatch } from '../../env/engine.ts';
import { raftLogKey, raftStateKey } from '../../engine/keyspace.ts';
import type { Region } from '../../meta/region.ts';
import {
  COMPACTED,
  UNAVAILABLE,
  type ConfState,
  type Entry,
  type HardState,
  type LogErrorCode,
  type LogStorage,
  type Snapshot,
} from '../../raft/types.ts';
import { EntryCache } from './entry-cache.ts';

/** Encoding overhead of an entry beside its payload, for size limits. */
const ENTRY_OVERHEAD_BYTES = 16;

export const entrySizeBytes = (entry: Entry): number => entry.data.length + ENTRY_OVERHEAD_BYTES;

/** Membership of a region as the Raft core sees it. */
export function confStateOf(region: Region): ConfState {
  const voters: number[] = [];
  const votersOutgoing: number[] = [];
  const learners: number[] = [];
  const learnersNext: number[] = [];
  let joint = false;
  for (const { id, role } of region.peers) {
    switch (role) {
      case 'voter':
        voters.push(id);
        votersOutgoing.push(id);
        break;
      case 'incoming-voter':
        voters.push(id);
        joint = true;
        break;
      case 'demoting-voter':
        votersOutgoing.push(id);
        learnersNext.push(id);
        joint = true;
        break;
      case 'learner':
        learners.push(id);
        break;
    }
  }
  const sort = (ids: number[]): number[] => ids.sort((a, b) => a - b);
  return {
    voters: sort(voters),
    votersOutgoing: joint ? sort(votersOutgoing) : [],
    learners: sort(learners),
    learnersNext: sort(learnersNext),
    autoLeave: false,
  };
}

/** What an initialized region without entries starts from. */
export const initialApplyState = (): ApplyState => ({
  appliedIndex: INIT_LOG_INDEX,
  appliedTerm: INIT_LOG_TERM,
  commitIndex: INIT_LOG_INDEX,
  commitTerm: INIT_LOG_TERM,
  truncatedIndex: INIT_LOG_INDEX,
  truncatedTerm: INIT_LOG_TERM,
});

/** Apply state of a peer that has received nothing yet. */
export const EMPTY_APPLY_STATE: ApplyState = Object.freeze({
  appliedIndex: 0,
  appliedTerm: 0,
  commitIndex: 0,
  commitTerm: 0,
  truncatedIndex: 0,
  truncatedTerm: 0,
});

export interface PeerStorageOptions {
  readonly engine: Engine;
  readonly region: Region;
  readonly raftState: RaftLocalState;
  readonly applyState: ApplyState;
  /** Asked by the core when a follower needs a snapshot; null means later. */
  readonly snapshotFor: (peer: number) => Snapshot | null;
}

export class PeerStorage implements LogStorage {
  readonly #engine: Engine;
  readonly #snapshotFor: (peer: number) => Snapshot | null;
  readonly regionId: RegionId;
  /** Current descriptor; replaced, never changed. */
  region: Region;
  raftState: RaftLocalState;
  /** The apply state last reported by the apply FSM. */
  applyState: ApplyState;
  readonly cache: EntryCache = new EntryCache();
  #lastTerm: number;

  constructor(options: PeerStorageOptions) {
    this.#engine = options.engine;
    this.#snapshotFor = options.snapshotFor;
    this.regionId = options.region.id;
    this.region = options.region;
    this.raftState = options.raftState;
    this.applyState = options.applyState;
    this.#lastTerm = 0;
    if (this.raftState.lastIndex === this.applyState.truncatedIndex) {
      this.#lastTerm = this.applyState.truncatedTerm;
    } else if (this.raftState.lastIndex > 0) {
      this.#lastTerm = this.#read(this.raftState.lastIndex).term;
    }
  }

  get isInitialized(): boolean {
    return this.region.peers.length > 0;
  }

  initialState(): { readonly hardState: HardState; readonly confState: ConfState } {
    const { term, vote, commit } = this.raftState;
    return { hardState: { term, vote, commit }, confState: confStateOf(this.region) };
  }

  firstIndex(): number {
    return this.applyState.truncatedIndex + 1;
  }

  lastIndex(): number {
    return this.raftState.lastIndex;
  }

  term(index: number): number {
    const { truncatedIndex, truncatedTerm } = this.applyState;
    if (index === truncatedIndex) {
      return truncatedTerm;
    }
    if (index < truncatedIndex) {
      return COMPACTED;
    }
    const last = this.raftState.lastIndex;
    if (index > last) {
      return UNAVAILABLE;
    }
    if (index === last) {
      return this.#lastTerm;
    }
    return (this.cache.get(index) ?? this.#read(index)).term;
  }

  entries(lo: number, hi: number, maxSize: number): readonly Entry[] | LogErrorCode {
    if (lo <= this.applyState.truncatedIndex) {
      return COMPACTED;
    }
    if (hi > this.raftState.lastIndex + 1) {
      return UNAVAILABLE;
    }
    const out: Entry[] = [];
    let size = 0;
    for (let index = lo; index < hi; index++) {
      const entry = this.cache.get(index) ?? this.#read(index);
      size += entrySizeBytes(entry);
      if (out.length > 0 && size > maxSize) {
        break;
      }
      out.push(entry);
    }
    return out;
  }

  snapshot(forPeer: number): Snapshot | null {
    return this.#snapshotFor(forPeer);
  }

  /** Adds entries (replacing the stored suffix from their first index on) and the new Raft state to `batch`. */
  append(batch: WriteBatch, entries: readonly Entry[], hardState: HardState | null): void {
    let { lastIndex } = this.raftState;
    const first = entries[0];
    if (first !== undefined) {
      assert(first.index <= lastIndex + 1 && first.index > this.applyState.truncatedIndex, 'append leaves a hole', {
        region: this.regionId,
        first: first.index,
        lastIndex,
      });
      const newLast = entries[entries.length - 1] as Entry;
      for (const entry of entries) {
        batch.put(raftLogKey(this.regionId, logIndex(entry.index)), encodeEntry(entry));
      }
      for (let stale = newLast.index + 1; stale <= lastIndex; stale++) {
        batch.del(raftLogKey(this.regionId, logIndex(stale)));
      }
      lastIndex = newLast.index;
      this.#lastTerm = newLast.term;
      this.cache.append(entries);
    }
    const { peerId, term, vote, commit } = this.raftState;
    this.raftState = {
      peerId,
      term: hardState?.term ?? term,
      vote: hardState === null ? vote : hardState.vote,
      commit: Math.max(commit, hardState?.commit ?? 0),
      lastIndex,
    };
    this.putRaftState(batch);
  }

  putRaftState(batch: WriteBatch): void {
    batch.put(raftStateKey(this.regionId), encodeRaftLocalState(this.raftState));
  }

  /** Replaces everything by an accepted snapshot at (`index`, `term`); the caller deletes the old log entries. */
  resetTo(region: Region, index: number, term: number, hardState: HardState): void {
    this.region = region;
    this.cache.clear();
    this.#lastTerm = term;
    this.applyState = {
      appliedIndex: index,
      appliedTerm: term,
      commitIndex: index,
      commitTerm: term,
      truncatedIndex: index,
      truncatedTerm: term,
    };
    this.raftState = {
      peerId: this.raftState.peerId,
      term: Math.max(hardState.term, term),
      vote: hardState.vote,
      commit: Math.max(hardState.commit, index),
      lastIndex: index,
    };
  }

  #read(index: number): Entry {
    const bytes = this.#engine.getSync(raftLogKey(this.regionId, logIndex(index)));
    if (bytes === undefined) {
      throw new CorruptionError(`log entry ${index} of region ${this.regionId} is missing`, {
        regionId: this.regionId,
        index,
      });
    }
    const entry = decodeEntry(bytes);
    if (entry.index !== index) {
      throw new CorruptionError(`log entry ${index} of region ${this.regionId} holds index ${entry.index}`, {
        regionId: this.regionId,
        index,
      });
    }
    return entry;
  }
}
