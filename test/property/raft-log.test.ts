/** The log (storage, unstable part, cursors) against a plain array. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { entriesSizeBytes, entrySizeBytes, UNLIMITED } from '../../src/raft/entry.ts';
import { MemoryStorage } from '../../src/raft/memory-storage.ts';
import { RaftLog } from '../../src/raft/raft-log.ts';
import { COMPACTED, type Entry, EntryType, UNAVAILABLE } from '../../src/raft/types.ts';

const RUNS = 1500;
const silent = { debugEnabled: false, infoEnabled: false, debug() {}, info() {}, warn() {}, error() {} };

type Op =
  | { readonly op: 'lead'; readonly sizes: readonly number[] }
  | { readonly op: 'follow'; readonly back: number; readonly sizes: readonly number[]; readonly commit: number }
  | { readonly op: 'duplicate'; readonly back: number; readonly count: number }
  | { readonly op: 'persist' }
  | { readonly op: 'durable' }
  | { readonly op: 'commit'; readonly by: number }
  | { readonly op: 'hand-out' }
  | { readonly op: 'applied' }
  | { readonly op: 'compact'; readonly by: number };

const sizes = fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 5 });
const op: fc.Arbitrary<Op> = fc.oneof(
  fc.record({ op: fc.constant('lead' as const), sizes }),
  fc.record({
    op: fc.constant('follow' as const),
    back: fc.nat({ max: 6 }),
    sizes,
    commit: fc.nat({ max: 4 }),
  }),
  fc.record({ op: fc.constant('duplicate' as const), back: fc.nat({ max: 8 }), count: fc.nat({ max: 4 }) }),
  fc.constant({ op: 'persist' } as const),
  fc.constant({ op: 'durable' } as const),
  fc.record({ op: fc.constant('commit' as const), by: fc.nat({ max: 4 }) }),
  fc.constant({ op: 'hand-out' } as const),
  fc.constant({ op: 'applied' } as const),
  fc.record({ op: fc.constant('compact' as const), by: fc.nat({ max: 4 }) }),
);

/** A log with an array beside it that holds every entry ever kept: `all[i]` has index `i + 1`. */
class Pair {
  readonly storage = new MemoryStorage();
  readonly limit: number;
  readonly log: RaftLog;
  readonly all: Entry[] = [];
  readonly applied: Entry[] = [];
  compactedTo = 0;
  term = 1;
  committed = 0;
  /** Writes handed out and not yet reported, oldest first. */
  readonly writes: { readonly index: number; readonly term: number }[] = [];
  readonly handedOut: (readonly Entry[])[] = [];

  constructor(limit: number) {
    this.limit = limit;
    this.log = new RaftLog({
      storage: this.storage,
      logger: silent,
      maxApplyingBytes: limit,
      ignoresApplySize: false,
      truncatesOnStaleAppend: false,
      commitsBeyondMessage: false,
      stableIgnoresTerm: false,
    });
  }

  run(step: Op): void {
    const { log, all } = this;
    switch (step.op) {
      case 'lead': {
        const entries = step.sizes.map((size, i) => this.entry(all.length + 1 + i, size));
        log.append(entries);
        all.push(...entries);
        return;
      }
      case 'follow': {
        // A new leader of a later term overwrites a tail that is not committed.
        const from = Math.max(this.committed, all.length - step.back);
        this.term++;
        const entries = step.sizes.map((size, i) => this.entry(from + 1 + i, size));
        const previousTerm = log.term(from);
        const result = log.maybeAppend(from, previousTerm, entries, from + step.commit);
        expect(result).toBe(from + entries.length);
        all.length = from;
        all.push(...entries);
        this.committed = Math.max(this.committed, Math.min(from + step.commit, all.length));
        // Whatever was being written of the old tail is not there any more.
        return;
      }
      case 'duplicate': {
        const from = Math.max(this.compactedTo, all.length - step.back);
        const entries = all.slice(from, from + step.count);
        expect(log.maybeAppend(from, log.term(from), entries, 0)).toBe(from + entries.length);
        return;
      }
      case 'persist': {
        const entries = log.unstable.next();
        log.unstable.acceptInProgress();
        this.storage.append(entries);
        if (log.unstable.length > 0) {
          this.writes.push({ index: log.lastIndex, term: log.lastTerm });
        }
        return;
      }
      case 'durable': {
        const write = this.writes.shift();
        if (write !== undefined && all[write.index - 1]?.term === write.term) {
          log.stableTo(write.index, write.term);
        }
        return;
      }
      case 'commit':
        this.committed = Math.min(all.length, this.committed + step.by);
        log.commitTo(this.committed);
        return;
      case 'hand-out': {
        const entries = log.nextCommitted(false);
        if (entries.length > 0) {
          log.acceptApplying((entries.at(-1) as Entry).index, entriesSizeBytes(entries), false);
          this.handedOut.push(entries);
        }
        return;
      }
      case 'applied': {
        const entries = this.handedOut.shift();
        if (entries !== undefined) {
          this.applied.push(...entries);
          log.appliedTo((entries.at(-1) as Entry).index, entriesSizeBytes(entries));
        }
        return;
      }
      case 'compact': {
        // Only what is applied and durable goes.
        const to = Math.min(log.applied, log.unstable.offset - 1, this.compactedTo + step.by);
        if (to > this.compactedTo) {
          this.storage.compact(to);
          this.compactedTo = to;
        }
        return;
      }
    }
  }

  entry(index: number, size: number): Entry {
    return { type: EntryType.Normal, term: this.term, index, data: new Uint8Array(size) };
  }

  check(): void {
    const { log, all, compactedTo } = this;
    expect(log.lastIndex).toBe(all.length);
    expect(log.firstIndex).toBe(compactedTo + 1);
    expect(log.committed).toBe(this.committed);
    expect(log.applied <= log.applying && log.applying <= log.committed && log.committed <= log.lastIndex).toBe(true);
    expect(log.unstable.offset).toBeLessThanOrEqual(log.unstable.offsetInProgress);
    for (let index = 0; index <= all.length + 1; index++) {
      const expected = index < compactedTo ? COMPACTED : index > all.length ? UNAVAILABLE : (all[index - 1]?.term ?? 0);
      expect(log.term(index), `term of ${index}`).toBe(expected);
    }
    expect(log.slice(compactedTo + 1, all.length + 1, UNLIMITED)).toEqual(all.slice(compactedTo));
    for (const limit of [0, this.limit, 90]) {
      for (let lo = compactedTo + 1; lo <= all.length; lo += 3) {
        expect(log.slice(lo, all.length + 1, limit)).toEqual(prefix(all.slice(lo - 1), limit));
      }
    }
    expect(this.applied).toEqual(all.slice(0, this.applied.length));
  }
}

/** The longest prefix within the limit, at least one entry. */
function prefix(entries: readonly Entry[], limit: number): Entry[] {
  const out: Entry[] = [];
  let size = 0;
  for (const entry of entries) {
    size += entrySizeBytes(entry);
    if (out.length > 0 && size > limit) {
      break;
    }
    out.push(entry);
  }
  return out;
}

describe('the raft log', () => {
  test('behaves like an array whatever is appended, overwritten, persisted, applied and compacted', () => {
    fc.assert(
      fc.property(fc.array(op, { maxLength: 40 }), fc.integer({ min: 1, max: 200 }), (ops, limit) => {
        const pair = new Pair(limit);
        for (const step of ops) {
          pair.run(step);
          pair.check();
        }
      }),
      { numRuns: RUNS },
    );
  });

  test('hands every committed entry out once and in order', () => {
    fc.assert(
      fc.property(fc.array(op, { minLength: 10, maxLength: 60 }), fc.integer({ min: 1, max: 120 }), (ops, limit) => {
        const pair = new Pair(limit);
        for (const step of ops) {
          pair.run(step);
        }
        // Everything becomes durable, committed and applied.
        pair.run({ op: 'commit', by: pair.all.length });
        pair.writes.length = 0;
        pair.run({ op: 'persist' });
        pair.writes.splice(0, Math.max(0, pair.writes.length - 1));
        pair.run({ op: 'durable' });
        for (let turn = 0; turn <= 2 * pair.all.length + 2; turn++) {
          pair.run({ op: 'hand-out' });
          pair.run({ op: 'applied' });
        }
        expect(pair.applied).toEqual(pair.all);
        expect([pair.log.applyingBytes, pair.log.applyingPaused]).toEqual([0, false]);
      }),
      { numRuns: RUNS },
    );
  });
});
