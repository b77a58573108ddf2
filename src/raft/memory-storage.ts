/**
 * A LogStorage in memory, for tests and tools. Holds one dummy entry (the last compacted or snapshotted position), the
 * entries behind it, a snapshot and the hard state. Semantics of etcd-io/raft: storage.go.
 */
import { EMPTY_BYTES } from '../base/bytes.ts';
import { EMPTY_ENTRIES, limitSize } from './entry.ts';
import { raftPanic } from './errors.ts';
import { EMPTY_CONF_STATE } from './tracker.ts';
import {
  COMPACTED,
  UNAVAILABLE,
  type ConfState,
  type Entry,
  type HardState,
  type LogErrorCode,
  type LogStorage,
  type Snapshot,
} from './types.ts';

export const EMPTY_SNAPSHOT: Snapshot = Object.freeze({
  data: EMPTY_BYTES,
  metadata: Object.freeze({ index: 0, term: 0, confState: EMPTY_CONF_STATE }),
});

export type StorageResult = { readonly type: 'ok' } | { readonly type: 'error'; readonly message: string };

const DONE: StorageResult = Object.freeze({ type: 'ok' });

export class MemoryStorage implements LogStorage {
  #hardState: HardState = { term: 0, vote: 0, commit: 0 };
  #snapshot: Snapshot = EMPTY_SNAPSHOT;
  #dummyIndex = 0;
  #dummyTerm = 0;
  #entries: Entry[] = [];

  initialState(): { readonly hardState: HardState; readonly confState: ConfState } {
    return { hardState: this.#hardState, confState: this.#snapshot.metadata.confState };
  }

  firstIndex(): number {
    return this.#dummyIndex + 1;
  }

  lastIndex(): number {
    return this.#dummyIndex + this.#entries.length;
  }

  term(index: number): number {
    if (index < this.#dummyIndex) {
      return COMPACTED;
    }
    if (index === this.#dummyIndex) {
      return this.#dummyTerm;
    }
    return this.#entries[index - this.#dummyIndex - 1]?.term ?? UNAVAILABLE;
  }

  entries(lo: number, hi: number, maxSize: number): readonly Entry[] | LogErrorCode {
    if (lo <= this.#dummyIndex) {
      return COMPACTED;
    }
    if (hi > this.lastIndex() + 1) {
      raftPanic(`entries' hi(${hi}) is out of bound lastindex(${this.lastIndex()})`);
    }
    if (this.#entries.length === 0) {
      return UNAVAILABLE;
    }
    return limitSize(this.#entries.slice(lo - this.#dummyIndex - 1, hi - this.#dummyIndex - 1), maxSize);
  }

  snapshot(_forPeer = 0): Snapshot | null {
    return this.#snapshot;
  }

  /** All entries behind the dummy. */
  allEntries(): readonly Entry[] {
    return this.#entries.length === 0 ? EMPTY_ENTRIES : this.#entries.slice();
  }

  setHardState(hardState: HardState): void {
    this.#hardState = { ...hardState };
  }

  /** Replaces the stored suffix from the first new index on; a part at or below the dummy is cut off. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    const last = entries[entries.length - 1];
    if (first === undefined || last === undefined || last.index <= this.#dummyIndex) {
      return;
    }
    const kept = first.index <= this.#dummyIndex ? entries.slice(this.#dummyIndex + 1 - first.index) : entries;
    const at = (kept[0] as Entry).index - this.#dummyIndex - 1;
    if (at > this.#entries.length) {
      raftPanic(`missing log entry [last: ${this.lastIndex()}, append at: ${(kept[0] as Entry).index}]`);
    }
    // Lists that were handed out are copies, so this one may change in place.
    this.#entries.length = at;
    for (const entry of kept) {
      this.#entries.push(entry);
    }
  }

  /** Drops everything up to and including `index`; its term stays known. */
  compact(index: number): StorageResult {
    if (index <= this.#dummyIndex) {
      return { type: 'error', message: 'requested index is unavailable due to compaction' };
    }
    if (index > this.lastIndex()) {
      raftPanic(`compact ${index} is out of bound lastindex(${this.lastIndex()})`);
    }
    this.#dummyTerm = this.term(index);
    this.#entries = this.#entries.slice(index - this.#dummyIndex);
    this.#dummyIndex = index;
    return DONE;
  }

  /** Replaces everything by a snapshot. */
  applySnapshot(snapshot: Snapshot): StorageResult {
    const stored = this.#snapshot.metadata.index;
    if (stored !== 0 && stored >= snapshot.metadata.index) {
      return { type: 'error', message: 'requested index is older than the existing snapshot' };
    }
    this.#snapshot = snapshot;
    this.#dummyIndex = snapshot.metadata.index;
    this.#dummyTerm = snapshot.metadata.term;
    this.#entries = [];
    return DONE;
  }

  /** Makes a snapshot of the state at `index`, which must be in the log; it is what `snapshot` returns from now on. */
  createSnapshot(index: number, confState: ConfState | null, data: Uint8Array): Snapshot {
    if (index < this.#snapshot.metadata.index || index > this.lastIndex()) {
      raftPanic(`snapshot ${index} is out of bound lastindex(${this.lastIndex()})`);
    }
    this.#snapshot = {
      data,
      metadata: { index, term: this.term(index), confState: confState ?? this.#snapshot.metadata.confState },
    };
    return this.#snapshot;
  }
}
