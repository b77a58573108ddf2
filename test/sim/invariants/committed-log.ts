/**
 * Every entry that was ever committed in a region, as the checker saw it first, kept across all crashes. R2 and R3 are
 * comparisons with it.
 */
import { encodeEntry } from '../../../src/codec/raft-records.ts';
import type { Entry } from '../../../src/raft/types.ts';
import { hashBytes, violated } from './observed.ts';

interface RegionLog {
  /** Index of the first entry kept. */
  readonly first: number;
  readonly terms: number[];
  readonly hashes: number[];
  /** Term of the replica that was first seen to know it as committed: the leader's, or a later one. */
  readonly seenIn: number[];
}

export class CommittedLog {
  readonly #regions: Map<number, RegionLog> = new Map();

  /** Highest index known to be committed; 0 if the region is unknown. */
  last(region: number): number {
    const log = this.#regions.get(region);
    return log === undefined ? 0 : log.first + log.terms.length - 1;
  }

  /** Highest index that was committed in an earlier term than `term`; 0 if there is none. */
  lastBefore(region: number, term: number): number {
    const log = this.#regions.get(region);
    let count = log?.seenIn.length ?? 0;
    while (count > 0 && (log?.seenIn[count - 1] as number) >= term) {
      count--;
    }
    return log === undefined || count === 0 ? 0 : log.first + count - 1;
  }

  first(region: number): number {
    return this.#regions.get(region)?.first ?? 0;
  }

  /** @param term the term of the replica that knows it */
  append(region: number, entry: Entry, term: number): void {
    let log = this.#regions.get(region);
    if (log === undefined) {
      log = { first: entry.index, terms: [], hashes: [], seenIn: [] };
      this.#regions.set(region, log);
    }
    const expected = log.first + log.terms.length;
    if (entry.index !== expected) {
      violated('R2', `region ${region} committed entry ${entry.index} right after ${expected - 1}`);
    }
    if (log.terms.length > 0 && entry.term < (log.terms[log.terms.length - 1] as number)) {
      violated('R2', `region ${region}: term ${entry.term} at ${entry.index} follows a higher one`);
    }
    log.terms.push(entry.term);
    log.hashes.push(hashBytes(encodeEntry(entry)));
    log.seenIn.push(term);
  }

  /** Undefined if nothing is known about the index. */
  term(region: number, index: number): number | undefined {
    const log = this.#regions.get(region);
    return log?.terms[index - log.first];
  }

  /** R2: what a replica's disk holds at a committed index is what was committed there. True if it could be compared. */
  compare(region: number, index: number, encoded: Uint8Array, who: string): boolean {
    const log = this.#regions.get(region);
    const known = log?.hashes[index - log.first];
    if (known !== undefined && known !== hashBytes(encoded)) {
      violated('R2', `entry ${index} of region ${region} on ${who} is not what was committed there`);
    }
    return known !== undefined;
  }
}
