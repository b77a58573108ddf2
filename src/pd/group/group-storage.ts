/**
 * The log of one member as its Raft core sees it. It is short (applied entries are dropped soon), so all of it is in
 * memory; the durable copy is written by the batches the FSM fills. A batch handed to the write queue counts as stored:
 * the queue keeps the order, and nothing that promises its content leaves before it is durable.
 */
import { assert } from '../../base/assert.ts';
import { decodeEntry, encodeEntry } from '../../codec/raft-records.ts';
import type { WriteBatch } from '../../env/engine.ts';
import { MemoryStorage } from '../../raft/memory-storage.ts';
import type { ConfState, Entry, HardState, LogErrorCode, LogStorage, Snapshot } from '../../raft/types.ts';
import { EMPTY_BYTES } from '../../base/bytes.ts';
import { type LogPosition, encodeHardState, logKey, RAFT_KEY } from './group-record.ts';

/** Encoded bytes of an entry beside its payload, about. */
const ENTRY_OVERHEAD_BYTES = 32;

export interface SavedLog {
  readonly hardState: HardState;
  readonly confState: ConfState;
  readonly truncated: LogPosition;
  /** In order, the first one directly behind `truncated`. */
  readonly entries: readonly Entry[];
}

/** @throws RecordError */
export const decodeSavedEntries = (values: readonly Uint8Array[]): Entry[] => values.map(decodeEntry);

export class GroupStorage implements LogStorage {
  readonly #memory: MemoryStorage = new MemoryStorage();
  #hardState: HardState;
  #truncated: LogPosition;
  #bytes = 0;
  /** A member asked for a snapshot that is not there. */
  #wanted = false;
  #snapshot: Snapshot | undefined;

  constructor(saved: SavedLog) {
    this.#memory.applySnapshot({
      data: EMPTY_BYTES,
      metadata: { ...saved.truncated, confState: saved.confState },
    });
    this.#memory.append(saved.entries);
    this.#memory.setHardState(saved.hardState);
    this.#hardState = saved.hardState;
    this.#truncated = saved.truncated;
    this.#bytes = sizeOf(saved.entries);
    assert(
      saved.entries.every((entry, i) => entry.index === saved.truncated.index + 1 + i),
      'the log on disk has a hole',
      { from: saved.truncated.index },
    );
  }

  // ---------------------------------------------------------------------------------------------- the core's view

  initialState(): { readonly hardState: HardState; readonly confState: ConfState } {
    return this.#memory.initialState();
  }

  firstIndex(): number {
    return this.#memory.firstIndex();
  }

  lastIndex(): number {
    return this.#memory.lastIndex();
  }

  term(index: number): number {
    return this.#memory.term(index);
  }

  entries(lo: number, hi: number, maxSize: number): readonly Entry[] | LogErrorCode {
    return this.#memory.entries(lo, hi, maxSize);
  }

  /** A snapshot that reaches the kept log, or null while one is being made. A member only takes one that lists it. */
  snapshot(forPeer: number): Snapshot | null {
    if (this.#snapshot !== undefined && this.#snapshot.metadata.index >= this.#truncated.index) {
      const { voters, learners } = this.#snapshot.metadata.confState;
      if (voters.includes(forPeer) || learners.includes(forPeer)) {
        return this.#snapshot;
      }
    }
    this.#snapshot = undefined;
    this.#wanted = true;
    return null;
  }

  // ---------------------------------------------------------------------------------------------- the FSM's view

  get hardState(): HardState {
    return this.#hardState;
  }

  get truncated(): LogPosition {
    return this.#truncated;
  }

  /** Bytes of the entries kept. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether a snapshot was asked for since the last call. */
  takeWanted(): boolean {
    const wanted = this.#wanted;
    this.#wanted = false;
    return wanted;
  }

  offerSnapshot(snapshot: Snapshot | undefined): void {
    this.#snapshot = snapshot;
  }

  /** Adds new entries, which replace the suffix from their first index on, and promises to `batch`. */
  append(batch: WriteBatch, entries: readonly Entry[], hardState: HardState | undefined): void {
    const first = entries[0];
    const last = entries[entries.length - 1];
    if (first !== undefined && last !== undefined) {
      for (let index = last.index + 1; index <= this.lastIndex(); index++) {
        batch.del(logKey(index));
      }
      if (first.index <= this.lastIndex()) {
        this.#bytes -= sizeOf(this.#from(first.index));
      }
      this.#memory.append(entries);
      this.#bytes += sizeOf(entries);
      for (const entry of entries) {
        batch.put(logKey(entry.index), encodeEntry(entry));
      }
    }
    if (hardState !== undefined) {
      this.#hardState = hardState;
      this.#memory.setHardState(hardState);
      batch.put(RAFT_KEY, encodeHardState(hardState));
    }
  }

  /** A commit index alone is written with whatever comes next. */
  noteCommit(commit: number): void {
    this.#hardState = { ...this.#hardState, commit: Math.max(commit, this.#hardState.commit) };
  }

  /** Drops everything up to and including `index`. */
  compact(batch: WriteBatch, index: number): void {
    assert(index > this.#truncated.index && index <= this.lastIndex(), 'compaction outside the log', { index });
    const term = this.term(index);
    for (let at = this.#truncated.index + 1; at <= index; at++) {
      batch.del(logKey(at));
    }
    this.#memory.compact(index);
    this.#truncated = { index, term };
    this.#bytes = sizeOf(this.#from(index + 1));
  }

  /** The log is what a snapshot left: nothing but its position. The installation wrote that already. */
  reset(snapshot: Snapshot, hardState: HardState): void {
    this.#memory.applySnapshot(snapshot);
    this.#memory.setHardState(hardState);
    this.#hardState = hardState;
    this.#truncated = { index: snapshot.metadata.index, term: snapshot.metadata.term };
    this.#bytes = 0;
    this.#snapshot = undefined;
  }

  #from(index: number): readonly Entry[] {
    return this.#memory.allEntries().filter((entry) => entry.index >= index);
  }
}

function sizeOf(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) {
    bytes += entry.data.length + ENTRY_OVERHEAD_BYTES;
  }
  return bytes;
}
