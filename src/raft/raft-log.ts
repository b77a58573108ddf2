/**
 * The log as the core sees it: storage overlaid by the unstable part, and three cursors
 * `applied <= applying <= committed <= lastIndex`. Source: Raft paper 5.3, 5.4; etcd-io/raft: log.go.
 *
 * Owns no rule of elections or replication. A term it cannot know is a negative code, never 0: where terms are
 * compared, "unknown" must not match.
 */
import { EMPTY_ENTRIES, entriesSizeBytes, limitSize, UNLIMITED } from './entry.ts';
import { raftPanic } from './errors.ts';
import {
  COMPACTED,
  UNAVAILABLE,
  type Entry,
  type LogErrorCode,
  type LogStorage,
  type RaftLogger,
  type Snapshot,
} from './types.ts';
import { Unstable } from './unstable.ts';

export interface RaftLogOptions {
  readonly storage: LogStorage;
  readonly logger: RaftLogger;
  /** Encoding bytes of committed entries that may be handed out and not yet acknowledged as applied. */
  readonly maxApplyingBytes: number;
  /** Planted defects, all false in production. */
  readonly ignoresApplySize: boolean;
  readonly truncatesOnStaleAppend: boolean;
  readonly commitsBeyondMessage: boolean;
  readonly stableIgnoresTerm: boolean;
}

export class RaftLog {
  readonly #options: RaftLogOptions;
  readonly #storage: LogStorage;
  readonly #logger: RaftLogger;
  readonly unstable: Unstable;
  /** Term of the entry at `unstable.offset - 1`, or -1 if it has to be asked for. */
  #termBeforeUnstable = -1;
  committed: number;
  /** Handed out for applying. */
  applying: number;
  /** Acknowledged as applied. */
  applied: number;
  #applyingBytes = 0;
  #applyingPaused = false;

  constructor(options: RaftLogOptions) {
    this.#options = options;
    this.#storage = options.storage;
    this.#logger = options.logger;
    const first = options.storage.firstIndex();
    this.unstable = new Unstable(options.storage.lastIndex() + 1, options.logger, !options.stableIgnoresTerm);
    this.committed = first - 1;
    this.applying = first - 1;
    this.applied = first - 1;
  }

  get firstIndex(): number {
    const { snapshot } = this.unstable;
    return snapshot === null ? this.#storage.firstIndex() : snapshot.metadata.index + 1;
  }

  get lastIndex(): number {
    return this.unstable.end - 1;
  }

  get lastTerm(): number {
    return this.#mustTerm(this.lastIndex);
  }

  /** Encoding bytes handed out and not yet applied. */
  get applyingBytes(): number {
    return this.#applyingBytes;
  }

  get applyingPaused(): boolean {
    return this.#applyingPaused;
  }

  /** Term of the entry at `index`; COMPACTED or UNAVAILABLE (negative) if the log does not know it. */
  term(index: number): number {
    const unstable = this.unstable.term(index);
    if (unstable >= 0) {
      return unstable;
    }
    const { offset, snapshot } = this.unstable;
    if (index >= offset) {
      return UNAVAILABLE;
    }
    if (snapshot !== null) {
      return COMPACTED;
    }
    if (index === offset - 1) {
      if (this.#termBeforeUnstable < 0) {
        this.#termBeforeUnstable = this.#storage.term(index);
      }
      return this.#termBeforeUnstable;
    }
    return this.#storage.term(index);
  }

  #mustTerm(index: number): number {
    const term = this.term(index);
    return term >= 0 ? term : raftPanic('the term of an entry that must exist is unknown', { index, code: term });
  }

  /** Term at `index` for log lines and comparisons where unknown may print as 0. */
  termOrZero(index: number): number {
    const term = this.term(index);
    return term < 0 ? 0 : term;
  }

  /** Whether the entry at `index` is known and has `term`. */
  matchesTerm(index: number, term: number): boolean {
    return this.term(index) === term;
  }

  /** Whether a log that ends at (`index`, `term`) is at least as complete as this one (paper 5.4.1). */
  isUpToDate(index: number, term: number): boolean {
    const lastTerm = this.lastTerm;
    return term > lastTerm || (term === lastTerm && index >= this.lastIndex);
  }

  // ---------------------------------------------------------------------------------------------- reading

  /** Entries from `index` on within `maxSize` encoding bytes, at least one if there is any. */
  entriesFrom(index: number, maxSize: number): readonly Entry[] | LogErrorCode {
    return index > this.lastIndex ? EMPTY_ENTRIES : this.slice(index, this.lastIndex + 1, maxSize);
  }

  /**
   * Entries [lo, hi), cut to `maxSize` encoding bytes, at least one. COMPACTED if `lo` is gone.
   * @throws RaftInvariantError if `hi` is beyond the log.
   */
  slice(lo: number, hi: number, maxSize: number): readonly Entry[] | LogErrorCode {
    if (lo > hi) {
      raftPanic(`invalid slice ${lo} > ${hi}`);
    }
    if (hi > this.lastIndex + 1) {
      raftPanic(`slice[${lo},${hi}) out of bound [${this.firstIndex},${this.lastIndex}]`);
    }
    if (lo === hi) {
      return EMPTY_ENTRIES;
    }
    const { offset } = this.unstable;
    if (lo >= offset) {
      return limitSize(this.unstable.slice(lo, hi), maxSize);
    }
    if (lo < this.firstIndex) {
      return COMPACTED;
    }
    const cut = Math.min(hi, offset);
    const stored = this.#storage.entries(lo, cut, maxSize);
    if (typeof stored === 'number') {
      return stored === UNAVAILABLE ? raftPanic(`entries[${lo}:${cut}) is unavailable from storage`) : stored;
    }
    if (stored.length === 0) {
      raftPanic('storage returned no entries although at least one was asked for', { lo, hi: cut });
    }
    // The storage may ignore the size hint, so the limit is decided here, the same way wherever the entries lie.
    const limited = limitSize(stored, maxSize);
    if (limited.length < cut - lo || hi <= offset) {
      return limited;
    }
    if (maxSize >= UNLIMITED) {
      return limited.concat(this.unstable.slice(offset, hi));
    }
    const size = entriesSizeBytes(limited);
    if (size >= maxSize) {
      return limited;
    }
    const rest = limitSize(this.unstable.slice(offset, hi), maxSize - size);
    // `limitSize` always leaves one entry; behind stored ones it must not cross the limit.
    return rest.length === 1 && size + entriesSizeBytes(rest) > maxSize ? limited : limited.concat(rest);
  }

  /** The snapshot to send to `peer`; null if it is being made. */
  snapshot(peer: number): Snapshot | null {
    return this.unstable.snapshot ?? this.#storage.snapshot(peer);
  }

  // ---------------------------------------------------------------------------------------------- appending

  /** Appends behind a position that is known to match. */
  append(entries: readonly Entry[]): void {
    if (entries.length === 0) {
      return;
    }
    const after = (entries[0] as Entry).index - 1;
    if (after < this.committed) {
      raftPanic(`after(${after}) is out of range [committed(${this.committed})]`);
    }
    if (after < this.unstable.offset - 1) {
      this.#termBeforeUnstable = -1;
    }
    this.unstable.truncateAndAppend(entries);
  }

  /**
   * A follower's append (paper 5.3). Returns the index of the last entry of the message, or -1 if the previous entry
   * does not match. Entries the log already has are left alone: a duplicated or overtaken append must not truncate.
   */
  maybeAppend(previous: number, previousTerm: number, entries: readonly Entry[], commit: number): number {
    if (!this.matchesTerm(previous, previousTerm)) {
      return -1;
    }
    const lastNew = previous + entries.length;
    const from = this.#options.truncatesOnStaleAppend
      ? Math.min(entries.length, Math.max(0, this.committed - previous))
      : this.#firstDifference(entries);
    if (from < entries.length) {
      const index = previous + 1 + from;
      if (index <= this.committed) {
        raftPanic(`entry ${index} conflict with committed entry [committed(${this.committed})]`);
      }
      this.append(from === 0 ? entries : entries.slice(from));
    }
    // Entries behind the message may be a divergent tail, so its last index bounds what it commits.
    this.commitTo(Math.min(commit, this.#options.commitsBeyondMessage ? this.lastIndex : lastNew));
    return lastNew;
  }

  /** Position in `entries` of the first one this log does not have. */
  #firstDifference(entries: readonly Entry[]): number {
    for (let i = 0; i < entries.length; i++) {
      const { index, term } = entries[i] as Entry;
      if (!this.matchesTerm(index, term)) {
        if (index <= this.lastIndex && this.#logger.infoEnabled !== false) {
          this.#logger.info(
            `found conflict at index ${index} [existing term: ${this.termOrZero(index)}, conflicting term: ${term}]`,
          );
        }
        return i;
      }
    }
    return entries.length;
  }

  /**
   * Largest index at or below `index` whose term is at most `term`, walking down; an unknown term stops the walk too.
   * The hint of rejected appends, used on both sides so that one round trip skips a whole term.
   */
  findConflictByTerm(index: number, term: number): { readonly index: number; readonly term: number } {
    for (let at = index; at > 0; at--) {
      const ours = this.term(at);
      if (ours < 0) {
        return { index: at, term: 0 };
      }
      if (ours <= term) {
        return { index: at, term: ours };
      }
    }
    return { index: 0, term: 0 };
  }

  // ---------------------------------------------------------------------------------------------- cursors

  /** Raises the commit index. Beyond the log means that acknowledged data disappeared here: nothing may go on. */
  commitTo(index: number): void {
    if (index <= this.committed) {
      return;
    }
    if (index > this.lastIndex) {
      raftPanic(
        `tocommit(${index}) is out of range [lastIndex(${this.lastIndex})]. Was the raft log corrupted, truncated, or lost?`,
      );
    }
    this.committed = index;
  }

  appliedTo(index: number, bytes: number): void {
    if (index > this.committed || index < this.applied) {
      raftPanic(`applied(${index}) is out of range [prevApplied(${this.applied}), committed(${this.committed})]`);
    }
    this.applied = index;
    this.applying = Math.max(this.applying, index);
    this.#applyingBytes = Math.max(0, this.#applyingBytes - bytes);
    this.#applyingPaused = this.#applyingBytes >= this.#options.maxApplyingBytes;
  }

  /** Entries up to `index` of `bytes` encoding size were handed out. */
  acceptApplying(index: number, bytes: number, allowUnstable: boolean): void {
    if (index > this.committed || index < this.applying) {
      raftPanic(`applying(${index}) is out of range [prevApplying(${this.applying}), committed(${this.committed})]`);
    }
    this.applying = index;
    this.#applyingBytes += bytes;
    // The second condition: the next entry was left out because it would have crossed the limit.
    this.#applyingPaused =
      this.#applyingBytes >= this.#options.maxApplyingBytes || index < this.#maxAppliable(allowUnstable);
    if (this.#options.ignoresApplySize) {
      this.#applyingPaused = false;
    }
  }

  #maxAppliable(allowUnstable: boolean): number {
    return allowUnstable ? this.committed : Math.min(this.committed, this.unstable.offset - 1);
  }

  hasNextCommitted(allowUnstable: boolean): boolean {
    return (
      !this.#applyingPaused && this.unstable.snapshot === null && this.#maxAppliable(allowUnstable) > this.applying
    );
  }

  /** Committed entries that were not handed out yet, within what may be outstanding. */
  nextCommitted(allowUnstable: boolean): readonly Entry[] {
    if (!this.hasNextCommitted(allowUnstable)) {
      return EMPTY_ENTRIES;
    }
    const room = this.#options.ignoresApplySize ? UNLIMITED : this.#options.maxApplyingBytes - this.#applyingBytes;
    const entries = this.slice(this.applying + 1, this.#maxAppliable(allowUnstable) + 1, room);
    return typeof entries === 'number'
      ? raftPanic('committed entries that are not applied were compacted', { from: this.applying + 1 })
      : entries;
  }

  stableTo(index: number, term: number): void {
    const known = this.unstable.stableTo(index, term);
    if (known >= 0) {
      this.#termBeforeUnstable = known;
    }
  }

  stableSnapTo(index: number): void {
    this.unstable.stableSnapTo(index);
  }

  /** A snapshot replaces everything, a divergent tail included. */
  restore(snapshot: Snapshot): void {
    const { index, term } = snapshot.metadata;
    if (this.#logger.infoEnabled !== false) {
      this.#logger.info(`log [${this.describe()}] starts to restore snapshot [index: ${index}, term: ${term}]`);
    }
    this.committed = index;
    this.unstable.restore(snapshot);
    this.#termBeforeUnstable = term;
  }

  describe(): string {
    const { offset, offsetInProgress, length } = this.unstable;
    return (
      `committed=${this.committed}, applied=${this.applied}, applying=${this.applying}, ` +
      `unstable.offset=${offset}, unstable.offsetInProgress=${offsetInProgress}, len(unstable.Entries)=${length}`
    );
  }
}
