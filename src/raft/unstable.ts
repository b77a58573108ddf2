/**
 * The part of the log that is not known to be durable: entries from `offset` on and perhaps a snapshot in front of
 * them. It hides whatever the storage holds at or beyond `offset`.
 *
 * ```text
 *   durable │ in progress (handed to a write) │ new
 *           offset                            offsetInProgress          offset + length
 * ```
 * Lists that were handed out are never changed: handing out copies, truncating replaces.
 */
import { EMPTY_ENTRIES } from './entry.ts';
import type { Entry, RaftLogger, Snapshot } from './types.ts';

/** Dead slots at the head are dropped when there are more than this many and they are more than half. */
const COMPACT_SLOTS = 32;

export class Unstable {
  readonly #logger: RaftLogger;
  readonly #checksTerm: boolean;
  snapshot: Snapshot | null = null;
  snapshotInProgress = false;
  offset: number;
  offsetInProgress: number;
  #entries: Entry[] = [];
  #head = 0;

  constructor(offset: number, logger: RaftLogger, checksTerm: boolean) {
    this.#logger = logger;
    this.#checksTerm = checksTerm;
    this.offset = offset;
    this.offsetInProgress = offset;
  }

  get length(): number {
    return this.#entries.length - this.#head;
  }

  /** Index behind the last entry. */
  get end(): number {
    return this.offset + this.#entries.length - this.#head;
  }

  at(index: number): Entry {
    return this.#entries[this.#head + index - this.offset] as Entry;
  }

  /** Term of `index` if it is an unstable entry or the unstable snapshot; -1 otherwise. */
  term(index: number): number {
    if (index >= this.offset) {
      const entry = this.#entries[this.#head + index - this.offset];
      return entry === undefined ? -1 : entry.term;
    }
    return this.snapshot !== null && this.snapshot.metadata.index === index ? this.snapshot.metadata.term : -1;
  }

  get hasNext(): boolean {
    return this.end > this.offsetInProgress;
  }

  /** Entries not handed to a write yet; a list of its own. */
  next(): readonly Entry[] {
    return this.end > this.offsetInProgress ? this.slice(this.offsetInProgress, this.end) : EMPTY_ENTRIES;
  }

  /** The snapshot if it was not handed to a write yet. */
  nextSnapshot(): Snapshot | null {
    return this.snapshotInProgress ? null : this.snapshot;
  }

  acceptInProgress(): void {
    this.offsetInProgress = Math.max(this.offsetInProgress, this.end);
    if (this.snapshot !== null) {
      this.snapshotInProgress = true;
    }
  }

  /** Entries [lo, hi), both within the unstable part; a list of its own. */
  slice(lo: number, hi: number): Entry[] {
    return this.#entries.slice(this.#head + lo - this.offset, this.#head + hi - this.offset);
  }

  /** Everything up to (index, term) is durable. Returns the term at that index if it was believed, else -1. */
  stableTo(index: number, term: number): number {
    const known = this.term(index);
    if (known < 0) {
      if (this.#logger.infoEnabled !== false) {
        this.#logger.info(`entry at index ${index} missing from unstable log; ignoring`);
      }
      return -1;
    }
    if (index < this.offset) {
      if (this.#logger.infoEnabled !== false) {
        this.#logger.info(`entry at index ${index} matched unstable snapshot; ignoring`);
      }
      return -1;
    }
    if (known !== term && this.#checksTerm) {
      // The entry was replaced while its predecessor was being written; the write of the new one reports later.
      if (this.#logger.infoEnabled !== false) {
        this.#logger.info(
          `entry at (index,term)=(${index},${term}) mismatched with entry at (${index},${known}) in unstable log; ignoring`,
        );
      }
      return -1;
    }
    this.#head += index + 1 - this.offset;
    this.offset = index + 1;
    this.offsetInProgress = Math.max(this.offsetInProgress, this.offset);
    const dead = this.#head;
    if (dead === this.#entries.length) {
      this.#entries = [];
      this.#head = 0;
    } else if (dead > COMPACT_SLOTS && dead * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(dead);
      this.#head = 0;
    }
    return known;
  }

  /** True if `index` is the snapshot that was waiting; it is gone then. */
  stableSnapTo(index: number): boolean {
    if (this.snapshot === null || this.snapshot.metadata.index !== index) {
      return false;
    }
    this.snapshot = null;
    this.snapshotInProgress = false;
    return true;
  }

  /** A snapshot replaces the log. */
  restore(snapshot: Snapshot): void {
    this.offset = snapshot.metadata.index + 1;
    this.offsetInProgress = this.offset;
    this.#entries = [];
    this.#head = 0;
    this.snapshot = snapshot;
    this.snapshotInProgress = false;
  }

  /** Adds entries, first dropping what is at or behind their first index. */
  truncateAndAppend(entries: readonly Entry[]): void {
    const first = (entries[0] as Entry).index;
    if (first === this.end) {
      for (let i = 0; i < entries.length; i++) {
        this.#entries.push(entries[i] as Entry);
      }
      return;
    }
    if (first <= this.offset) {
      if (this.#logger.infoEnabled !== false) {
        this.#logger.info(`replace the unstable entries from index ${first}`);
      }
      this.#entries = entries.slice();
      this.#head = 0;
      this.offset = first;
      this.offsetInProgress = first;
      return;
    }
    if (this.#logger.infoEnabled !== false) {
      this.#logger.info(`truncate the unstable entries before index ${first}`);
    }
    this.#entries = this.slice(this.offset, first).concat(entries);
    this.#head = 0;
    this.offsetInProgress = Math.min(this.offsetInProgress, first);
  }
}
