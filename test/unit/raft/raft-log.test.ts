import { describe, expect, test } from 'vitest';
import { entriesSizeBytes, entrySizeBytes, limitSize, payloadsBytes } from '../../../src/raft/entry.ts';
import { RaftInvariantError } from '../../../src/raft/errors.ts';
import { COMPACTED, type Entry, MemoryStorage, UNAVAILABLE, UNLIMITED } from '../../../src/raft/index.ts';
import { RaftLog } from '../../../src/raft/raft-log.ts';
import { Unstable } from '../../../src/raft/unstable.ts';
import { confState, entriesOfTerms, entry, snapshotAt } from './lab.ts';

const silent = { debugEnabled: false, infoEnabled: false, debug() {}, info() {}, warn() {}, error() {} };

function logOn(storage: MemoryStorage, maxApplyingBytes = UNLIMITED): RaftLog {
  return new RaftLog({
    storage,
    logger: silent,
    maxApplyingBytes,
    ignoresApplySize: false,
    truncatesOnStaleAppend: false,
    commitsBeyondMessage: false,
    stableIgnoresTerm: false,
  });
}

const newLog = (maxApplyingBytes?: number): RaftLog => logOn(new MemoryStorage(), maxApplyingBytes);

/** A log with entries of these terms, all unstable. */
function logOf(...terms: number[]): RaftLog {
  const log = newLog();
  log.append(entriesOfTerms(terms));
  return log;
}

function storageAt(index: number, term: number): MemoryStorage {
  const storage = new MemoryStorage();
  storage.applySnapshot(snapshotAt(index, term, confState([1])));
  return storage;
}

const at = (entries: readonly Entry[] | number): unknown =>
  typeof entries === 'number' ? entries : entries.map((e) => `${e.term}/${e.index}`);

describe('the raft log', () => {
  test('finds the first entry that differs or is new', () => {
    const cases: [Entry[], string[]][] = [
      [[], ['1/1', '2/2', '3/3']],
      [
        [entry(1, 1), entry(2, 2)],
        ['1/1', '2/2', '3/3'],
      ],
      [[entry(3, 3)], ['1/1', '2/2', '3/3']],
      [entriesOfTerms([1, 2, 3, 4, 4]), ['1/1', '2/2', '3/3', '4/4', '4/5']],
      [
        [entry(2, 2), entry(3, 3), entry(4, 4)],
        ['1/1', '2/2', '3/3', '4/4'],
      ],
      [
        [entry(4, 1), entry(4, 2)],
        ['4/1', '4/2'],
      ],
      [
        [entry(1, 2), entry(4, 3)],
        ['1/1', '1/2', '4/3'],
      ],
      [
        [entry(1, 3), entry(2, 4)],
        ['1/1', '2/2', '1/3', '2/4'],
      ],
    ];
    for (const [entries, expected] of cases) {
      const log = logOf(1, 2, 3);
      const first = entries[0];
      const previous = first === undefined ? 3 : first.index - 1;
      expect(log.maybeAppend(previous, log.term(previous), entries, 0)).toBe(previous + entries.length);
      expect(at(log.slice(1, log.lastIndex + 1, UNLIMITED))).toEqual(expected);
    }
  });

  test('guesses where logs part by the term of the other side, also beyond both ends', () => {
    const full = logOf(2, 2, 5, 5, 5);
    const cases: [number, number, { index: number; term: number }][] = [
      [5, 6, { index: 5, term: 5 }],
      [5, 5, { index: 5, term: 5 }],
      [5, 4, { index: 2, term: 2 }],
      [5, 2, { index: 2, term: 2 }],
      [5, 1, { index: 0, term: 0 }],
      [1, 2, { index: 1, term: 2 }],
      [1, 1, { index: 0, term: 0 }],
      [0, 0, { index: 0, term: 0 }],
      [7, 4, { index: 7, term: 0 }],
    ];
    for (const [index, term, expected] of cases) {
      expect(full.findConflictByTerm(index, term), `index ${index} term ${term}`).toEqual(expected);
    }
    const compacted = logOn(storageAt(200, 3));
    compacted.append([entry(3, 201), entry(5, 202)]);
    expect(compacted.findConflictByTerm(202, 4)).toEqual({ index: 201, term: 3 });
    expect(compacted.findConflictByTerm(200, 3)).toEqual({ index: 200, term: 3 });
    expect(compacted.findConflictByTerm(202, 2)).toEqual({ index: 199, term: 0 });
    expect(compacted.findConflictByTerm(150, 9)).toEqual({ index: 150, term: 0 });
  });

  test('calls a log up to date by its last term first, then by its length', () => {
    const log = logOf(1, 2, 3);
    const cases: [number, number, boolean][] = [
      [2, 4, true],
      [3, 4, true],
      [4, 4, true],
      [2, 2, false],
      [3, 2, false],
      [4, 2, false],
      [2, 3, false],
      [3, 3, true],
      [4, 3, true],
    ];
    for (const [index, term, expected] of cases) {
      expect(log.isUpToDate(index, term), `${term}/${index}`).toBe(expected);
    }
  });

  test('appends behind its end and replaces a conflicting suffix from the first or a later entry', () => {
    const cases: [Entry[], string[], number][] = [
      [[], ['1/1', '2/2'], 3],
      [[entry(2, 3)], ['1/1', '2/2', '2/3'], 3],
      [[entry(2, 1)], ['2/1'], 1],
      [[entry(3, 2), entry(3, 3)], ['1/1', '3/2', '3/3'], 2],
    ];
    for (const [entries, expected, offset] of cases) {
      const storage = new MemoryStorage();
      storage.append(entriesOfTerms([1, 2]));
      const log = logOn(storage);
      log.append(entries);
      expect(at(log.slice(1, log.lastIndex + 1, UNLIMITED))).toEqual(expected);
      expect(log.unstable.offset).toBe(offset);
    }
  });

  test('a follower append needs a matching position and commits no further than its own last entry', () => {
    const cases: [number, number, number, Entry[], number, number][] = [
      // previous term, previous index, leader commit, entries, result, committed
      [2, 3, 3, [entry(4, 4)], -1, 1],
      [3, 4, 3, [entry(4, 5)], -1, 1],
      [3, 3, 3, [], 3, 3],
      [3, 3, 4, [], 3, 3],
      [3, 3, 2, [], 3, 2],
      [3, 3, 0, [], 3, 1],
      [0, 0, 3, [], 0, 1],
      [3, 3, 3, [entry(4, 4)], 4, 3],
      [3, 3, 4, [entry(4, 4)], 4, 4],
      [3, 3, 5, [entry(4, 4)], 4, 4],
      [3, 3, 5, [entry(4, 4), entry(4, 5)], 5, 5],
      [2, 2, 3, [entry(4, 3)], 3, 3],
      [1, 1, 3, [entry(4, 2)], 2, 2],
    ];
    for (const [term, index, commit, entries, result, committed] of cases) {
      const log = logOf(1, 2, 3);
      log.commitTo(1);
      expect(log.maybeAppend(index, term, entries, commit)).toBe(result);
      expect(log.committed).toBe(committed);
    }
    const log = logOf(1, 2, 3);
    log.commitTo(1);
    expect(() => log.maybeAppend(0, 0, [entry(4, 1)], 4)).toThrow(RaftInvariantError);
  });

  test('keeps terms, matching, unstable part and appends across a compaction', () => {
    const storage = new MemoryStorage();
    storage.append(Array.from({ length: 750 }, (_, i) => entry(i + 1, i + 1)));
    const log = logOn(storage);
    log.append(Array.from({ length: 250 }, (_, i) => entry(751 + i, 751 + i)));
    log.commitTo(1000);
    log.appliedTo(1000, 0);
    storage.compact(500);
    expect(log.lastIndex).toBe(1000);
    expect(log.firstIndex).toBe(501);
    for (let i = 500; i <= 1000; i++) {
      expect(log.term(i)).toBe(i);
      expect(log.matchesTerm(i, i)).toBe(true);
    }
    expect(log.term(499)).toBe(COMPACTED);
    expect(log.unstable.next()).toHaveLength(250);
    expect(log.unstable.next()[0]?.index).toBe(751);
    log.append([entry(1000, 1001)]);
    expect(log.lastIndex).toBe(1001);
    expect(at(log.slice(501, 502, UNLIMITED))).toEqual(['501/501']);
  });

  /** Snapshot at 3, entries 4 to 6 of term 1, 4 durable, committed 5. */
  function tailLog(applied: number, applying: number, paused: boolean, snapshot: boolean): RaftLog {
    const storage = storageAt(3, 1);
    storage.append([entry(1, 4)]);
    const log = logOn(storage, 100);
    log.append([entry(1, 5), entry(1, 6)]);
    log.stableTo(4, 1);
    log.commitTo(5);
    log.appliedTo(applied, 0);
    log.acceptApplying(applying, paused ? 100 : 0, true);
    if (!paused && log.applyingPaused) {
      log.appliedTo(applied, 0);
    }
    if (snapshot) {
      log.restore(snapshotAt(7, 1, confState([1])));
    }
    return log;
  }
  const tailCases: [number, number, boolean, boolean, boolean, string[]][] = [
    // applied, applying, allow unstable, paused, snapshot, handed out
    [3, 3, true, false, false, ['1/4', '1/5']],
    [3, 4, true, false, false, ['1/5']],
    [3, 5, true, false, false, []],
    [4, 4, true, false, false, ['1/5']],
    [4, 5, true, false, false, []],
    [5, 5, true, false, false, []],
    [3, 3, false, false, false, ['1/4']],
    [3, 4, false, false, false, []],
    [4, 4, false, false, false, []],
    [3, 3, true, true, false, []],
    [3, 3, true, false, true, []],
  ];

  test('tells whether committed entries are waiting to be handed out', () => {
    for (const [applied, applying, allowUnstable, paused, snapshot, out] of tailCases) {
      const log = tailLog(applied, applying, paused, snapshot);
      expect(log.hasNextCommitted(allowUnstable), `${applied} ${applying} ${allowUnstable}`).toBe(out.length > 0);
    }
  });

  test('hands out committed entries that are durable or allowed to be unstable', () => {
    for (const [applied, applying, allowUnstable, paused, snapshot, out] of tailCases) {
      const log = tailLog(applied, applying, paused, snapshot);
      expect(at(log.nextCommitted(allowUnstable)), `${applied} ${applying} ${allowUnstable}`).toEqual(out);
    }
  });

  test('pauses applying when the outstanding size reaches the limit or the batch was cut short', () => {
    const make = (): RaftLog => {
      const log = newLog(100);
      log.append(entriesOfTerms([1, 1, 1]));
      log.commitTo(3);
      return log;
    };
    const cases: [number, number, boolean][] = [
      [3, 99, false],
      [3, 100, true],
      [3, 101, true],
      [2, 10, true],
      [1, 100, true],
    ];
    for (const [index, bytes, paused] of cases) {
      const log = make();
      log.acceptApplying(index, bytes, true);
      expect(log.applyingPaused, `${index} ${bytes}`).toBe(paused);
      expect(log.applying).toBe(index);
    }
    const log = make();
    log.stableTo(2, 1);
    log.acceptApplying(2, 10, false);
    expect(log.applyingPaused).toBe(false);
  });

  test('applied entries give their size back, never below zero, and end the pause', () => {
    const log = newLog(100);
    log.append(entriesOfTerms([1, 1, 1]));
    log.commitTo(3);
    log.acceptApplying(3, 150, true);
    expect(log.applyingPaused).toBe(true);
    log.appliedTo(1, 20);
    expect([log.applyingBytes, log.applyingPaused]).toEqual([130, true]);
    log.appliedTo(2, 31);
    expect([log.applyingBytes, log.applyingPaused]).toEqual([99, false]);
    log.appliedTo(3, 1000);
    expect(log.applyingBytes).toBe(0);
    expect(() => log.appliedTo(2, 0)).toThrow(RaftInvariantError);
    expect(() => log.appliedTo(4, 0)).toThrow(RaftInvariantError);
  });

  test('gives out exactly the entries that are not in storage', () => {
    for (const unstable of [3, 1]) {
      const all = entriesOfTerms([1, 2]);
      const storage = new MemoryStorage();
      storage.append(all.slice(0, unstable - 1));
      const log = logOn(storage);
      log.append(all.slice(unstable - 1));
      const next = log.unstable.next();
      expect(next).toHaveLength(2 - (unstable - 1));
      log.unstable.acceptInProgress();
      expect(log.unstable.next()).toEqual([]);
      const last = next.at(-1);
      if (last !== undefined) {
        log.stableTo(last.index, last.term);
      }
      expect(log.unstable.offset).toBe(3);
    }
  });

  test('the commit index never decreases and never passes the end', () => {
    const log = logOf(1, 2, 3);
    log.commitTo(2);
    log.commitTo(3);
    expect(log.committed).toBe(3);
    log.commitTo(1);
    expect(log.committed).toBe(3);
    expect(() => log.commitTo(4)).toThrow(/tocommit\(4\) is out of range/);
  });

  test('a durability report with another index or term is ignored', () => {
    const cases: [number, number, number][] = [
      [1, 1, 2],
      [2, 2, 3],
      [2, 1, 1],
      [3, 1, 1],
    ];
    for (const [index, term, offset] of cases) {
      const log = logOf(1, 2);
      log.stableTo(index, term);
      expect(log.unstable.offset).toBe(offset);
    }
  });

  test('a durability report above a snapshot is ignored below the unstable part', () => {
    const cases: [number, number, Entry[], number][] = [
      [6, 2, [], 6],
      [5, 2, [], 6],
      [4, 2, [], 6],
      [6, 3, [], 6],
      [6, 2, [entry(2, 6)], 7],
      [5, 2, [entry(2, 6)], 6],
      [4, 2, [entry(2, 6)], 6],
      [6, 3, [entry(2, 6)], 6],
    ];
    for (const [index, term, entries, offset] of cases) {
      const log = logOn(storageAt(5, 2));
      log.append(entries);
      log.stableTo(index, term);
      expect(log.unstable.offset, `${term}/${index}`).toBe(offset);
    }
  });

  test('compaction leaves the rest and reports what is out of bounds', () => {
    const storage = new MemoryStorage();
    storage.append(Array.from({ length: 1000 }, (_, i) => entry(1, i + 1)));
    const log = logOn(storage);
    log.commitTo(1000);
    log.appliedTo(1000, 0);
    for (const [index, left] of [
      [300, 700],
      [500, 500],
      [800, 200],
      [900, 100],
    ] as const) {
      expect(storage.compact(index).type).toBe('ok');
      expect(log.slice(log.firstIndex, log.lastIndex + 1, UNLIMITED)).toHaveLength(left);
    }
    expect(storage.compact(300)).toEqual({
      type: 'error',
      message: 'requested index is unavailable due to compaction',
    });
    expect(() => storage.compact(1001)).toThrow(RaftInvariantError);
  });

  test('starts right behind a snapshot', () => {
    const log = logOn(storageAt(1000, 1000));
    expect(log.firstIndex).toBe(1001);
    expect(log.lastIndex).toBe(1000);
    expect(log.committed).toBe(1000);
    expect(log.unstable.offset).toBe(1001);
    expect(log.term(1000)).toBe(1000);
    expect(log.slice(1001, 1001, UNLIMITED)).toEqual([]);
  });

  test('slicing below the first index is compacted, beyond the last one fatal', () => {
    const log = logOn(storageAt(100, 1));
    log.append(Array.from({ length: 100 }, (_, i) => entry(1, 101 + i)));
    expect(log.slice(99, 110, UNLIMITED)).toBe(COMPACTED);
    expect(log.slice(100, 110, UNLIMITED)).toBe(COMPACTED);
    expect(at(log.slice(101, 102, UNLIMITED))).toEqual(['1/101']);
    expect(log.slice(201, 201, UNLIMITED)).toEqual([]);
    expect(() => log.slice(101, 202, UNLIMITED)).toThrow(RaftInvariantError);
    expect(() => log.slice(103, 102, UNLIMITED)).toThrow(RaftInvariantError);
  });

  test('knows the term of the compacted position and of every entry, and nothing else', () => {
    const log = logOn(storageAt(100, 1));
    log.append(Array.from({ length: 99 }, (_, i) => entry(i + 1, 101 + i)));
    expect(log.term(99)).toBe(COMPACTED);
    expect(log.term(100)).toBe(1);
    expect(log.term(150)).toBe(50);
    expect(log.term(199)).toBe(99);
    expect(log.term(200)).toBe(UNAVAILABLE);
    expect(log.termOrZero(99)).toBe(0);
  });

  test('an unstable snapshot hides the terms of storage', () => {
    const log = logOn(storageAt(100, 1));
    log.restore(snapshotAt(105, 2, confState([1])));
    expect(log.term(99)).toBe(COMPACTED);
    expect(log.term(100)).toBe(COMPACTED);
    expect(log.term(104)).toBe(COMPACTED);
    expect(log.term(105)).toBe(2);
    expect(log.term(106)).toBe(UNAVAILABLE);
  });

  test('slices across the border of storage under one size limit, always at least one entry', () => {
    const size = entrySizeBytes(entry(1, 1));
    const storage = storageAt(100, 1);
    storage.append(Array.from({ length: 100 }, (_, i) => entry(1, 101 + i)));
    const log = logOn(storage);
    log.append(Array.from({ length: 100 }, (_, i) => entry(1, 201 + i)));
    const indexes = (lo: number, hi: number, max: number): number[] => {
      const found = log.slice(lo, hi, max);
      return typeof found === 'number' ? [found] : found.map((e) => e.index);
    };
    expect(indexes(199, 203, UNLIMITED)).toEqual([199, 200, 201, 202]);
    expect(indexes(199, 203, 0)).toEqual([199]);
    expect(indexes(199, 203, size)).toEqual([199]);
    expect(indexes(199, 203, size + 1)).toEqual([199]);
    expect(indexes(199, 203, 2 * size)).toEqual([199, 200]);
    expect(indexes(199, 203, 3 * size - 1)).toEqual([199, 200]);
    expect(indexes(199, 203, 3 * size)).toEqual([199, 200, 201]);
    expect(indexes(201, 203, 0)).toEqual([201]);
    expect(indexes(201, 203, 2 * size)).toEqual([201, 202]);
    expect(indexes(150, 152, UNLIMITED)).toEqual([150, 151]);
    expect(indexes(250, 252, UNLIMITED)).toEqual([250, 251]);
  });

  test('pages concatenate to the whole slice and are filled to the limit', () => {
    const storage = storageAt(50, 1);
    storage.append(Array.from({ length: 30 }, (_, i) => entry(1, 51 + i, 'x'.repeat(i % 7))));
    const log = logOn(storage);
    log.append(Array.from({ length: 30 }, (_, i) => entry(1, 81 + i, 'x'.repeat(i % 5))));
    const limit = 100;
    const pages: Entry[] = [];
    for (let next = 51; next <= log.lastIndex; ) {
      const page = log.slice(next, log.lastIndex + 1, limit) as readonly Entry[];
      expect(page.length).toBeGreaterThan(0);
      if (next + page.length <= log.lastIndex) {
        const following = log.slice(next + page.length, next + page.length + 1, UNLIMITED);
        expect(entriesSizeBytes(page) + entriesSizeBytes(following as readonly Entry[])).toBeGreaterThan(limit);
      }
      expect(page.length === 1 || entriesSizeBytes(page) <= limit).toBe(true);
      pages.push(...page);
      next += page.length;
    }
    expect(pages).toEqual(log.slice(51, log.lastIndex + 1, UNLIMITED));
  });
});

describe('the unstable part', () => {
  const make = (offset: number, entries: Entry[], snapshot?: [number, number]): Unstable => {
    const unstable = new Unstable(offset, silent, true);
    if (snapshot !== undefined) {
      unstable.restore(snapshotAt(snapshot[0], snapshot[1], confState([1])));
    }
    if (entries.length > 0) {
      unstable.truncateAndAppend(entries);
    }
    return unstable;
  };

  test('begins behind its snapshot', () => {
    expect(make(5, [entry(1, 5)]).snapshot).toBeNull();
    expect(make(5, [], [4, 1]).offset).toBe(5);
  });

  test('ends behind its last entry', () => {
    expect(make(5, [entry(1, 5), entry(1, 6)]).end).toBe(7);
    expect(make(5, []).end).toBe(5);
    expect(make(0, [], [4, 1]).end).toBe(5);
  });

  test('knows the terms of its entries and of its snapshot only', () => {
    const unstable = make(0, [entry(3, 5)], [4, 1]);
    expect([3, 4, 5, 6].map((i) => unstable.term(i))).toEqual([-1, 1, 3, -1]);
    expect(make(5, [entry(1, 5)]).term(4)).toBe(-1);
  });

  test('a snapshot replaces everything', () => {
    const unstable = make(5, [entry(1, 5)]);
    unstable.acceptInProgress();
    unstable.restore(snapshotAt(6, 2, confState([1])));
    expect(unstable).toMatchObject({ offset: 7, offsetInProgress: 7, length: 0, snapshotInProgress: false });
    expect(unstable.nextSnapshot()?.metadata.index).toBe(6);
  });

  test('hands out each entry once', () => {
    const unstable = make(5, [entry(1, 5), entry(1, 6)]);
    expect(unstable.next()).toHaveLength(2);
    unstable.acceptInProgress();
    expect(unstable.next()).toEqual([]);
    unstable.truncateAndAppend([entry(1, 7)]);
    expect(unstable.next().map((e) => e.index)).toEqual([7]);
    expect(unstable.hasNext).toBe(true);
  });

  test('hands out a snapshot once', () => {
    const unstable = make(0, [], [4, 1]);
    expect(unstable.nextSnapshot()).not.toBeNull();
    unstable.acceptInProgress();
    expect(unstable.nextSnapshot()).toBeNull();
    expect(unstable.snapshot).not.toBeNull();
  });

  test('marks entries stable by index and term', () => {
    const cases: [number, number, number, number][] = [
      // index, term, offset, length
      [5, 1, 6, 1],
      [6, 1, 7, 0],
      [6, 2, 5, 2],
      [4, 1, 5, 2],
      [7, 1, 5, 2],
    ];
    for (const [index, term, offset, length] of cases) {
      const unstable = make(5, [entry(1, 5), entry(1, 6)]);
      unstable.acceptInProgress();
      unstable.stableTo(index, term);
      expect([unstable.offset, unstable.length]).toEqual([offset, length]);
      expect(unstable.offsetInProgress).toBe(7);
    }
    const withSnapshot = make(0, [entry(1, 5)], [4, 1]);
    withSnapshot.stableTo(4, 1);
    expect(withSnapshot.length).toBe(1);
  });

  test('ignores the report of a snapshot that was replaced by a newer one', () => {
    const unstable = make(0, [], [4, 1]);
    unstable.acceptInProgress();
    unstable.restore(snapshotAt(9, 1, confState([1])));
    expect(unstable.stableSnapTo(4)).toBe(false);
    expect(unstable.nextSnapshot()?.metadata.index).toBe(9);
    unstable.acceptInProgress();
    expect(unstable.stableSnapTo(9)).toBe(true);
    expect(unstable.snapshot).toBeNull();
  });

  test('truncates without touching lists that were handed out', () => {
    const cases: [Entry[], string[], number, number][] = [
      [[entry(1, 7)], ['1/5', '1/6', '1/7'], 5, 7],
      [[entry(2, 5)], ['2/5'], 5, 5],
      [[entry(2, 4), entry(2, 5)], ['2/4', '2/5'], 4, 4],
      [[entry(2, 6)], ['1/5', '2/6'], 5, 6],
    ];
    for (const [entries, expected, offset, inProgress] of cases) {
      const unstable = make(5, [entry(1, 5), entry(1, 6)]);
      const handedOut = unstable.next();
      unstable.acceptInProgress();
      unstable.truncateAndAppend(entries);
      expect(at(unstable.slice(unstable.offset, unstable.end))).toEqual(expected);
      expect([unstable.offset, unstable.offsetInProgress]).toEqual([offset, inProgress]);
      expect(at(handedOut)).toEqual(['1/5', '1/6']);
    }
  });

  test('drops a long stable prefix and keeps its indexes', () => {
    const unstable = make(1, entriesOfTerms(Array.from({ length: 100 }, () => 1)));
    unstable.stableTo(60, 1);
    expect(unstable.at(61).index).toBe(61);
    expect(unstable.length).toBe(40);
    unstable.truncateAndAppend([entry(1, 101)]);
    expect(unstable.term(101)).toBe(1);
  });
});

describe('the memory storage', () => {
  const make = (): MemoryStorage => {
    const storage = storageAt(3, 3);
    storage.append([entry(4, 4), entry(5, 5)]);
    return storage;
  };

  test('knows the term of its dummy and of its entries', () => {
    const storage = make();
    expect([2, 3, 4, 5, 6].map((i) => storage.term(i))).toEqual([COMPACTED, 3, 4, 5, UNAVAILABLE]);
  });

  test('returns entries within a size, at least one', () => {
    const storage = make();
    storage.append([entry(6, 6)]);
    expect(storage.entries(3, 5, UNLIMITED)).toBe(COMPACTED);
    expect(at(storage.entries(4, 7, UNLIMITED))).toEqual(['4/4', '5/5', '6/6']);
    expect(at(storage.entries(4, 7, 0))).toEqual(['4/4']);
    expect(at(storage.entries(4, 7, 32))).toEqual(['4/4', '5/5']);
    expect(() => storage.entries(4, 8, UNLIMITED)).toThrow(RaftInvariantError);
    expect(storageAt(3, 3).entries(4, 4, UNLIMITED)).toBe(UNAVAILABLE);
  });

  test('knows its last index', () => {
    const storage = make();
    expect(storage.lastIndex()).toBe(5);
    storage.append([entry(5, 6)]);
    expect(storage.lastIndex()).toBe(6);
  });

  test('knows its first index', () => {
    const storage = make();
    expect(storage.firstIndex()).toBe(4);
    storage.compact(4);
    expect(storage.firstIndex()).toBe(5);
  });

  test('compacts up to and including an index', () => {
    const storage = make();
    expect(storage.compact(3).type).toBe('error');
    expect(storage.compact(5).type).toBe('ok');
    expect([storage.firstIndex(), storage.lastIndex(), storage.term(5)]).toEqual([6, 5, 5]);
  });

  test('makes snapshots of positions in its log', () => {
    const storage = make();
    const made = storage.createSnapshot(4, confState([1, 2]), new Uint8Array(1));
    expect(made.metadata).toEqual({ index: 4, term: 4, confState: confState([1, 2]) });
    expect(storage.snapshot()).toBe(made);
    expect(() => storage.createSnapshot(9, null, new Uint8Array(0))).toThrow(RaftInvariantError);
  });

  test('appends, replaces a suffix, ignores what is compacted and refuses a hole', () => {
    const cases: [Entry[], string[]][] = [
      [
        [entry(1, 1), entry(2, 2)],
        ['4/4', '5/5'],
      ],
      [
        [entry(3, 3), entry(4, 4), entry(5, 5)],
        ['4/4', '5/5'],
      ],
      [[entry(3, 3), entry(6, 4)], ['6/4']],
      [[entry(6, 4)], ['6/4']],
      [
        [entry(4, 4), entry(5, 5), entry(5, 6)],
        ['4/4', '5/5', '5/6'],
      ],
      [[entry(5, 6)], ['4/4', '5/5', '5/6']],
    ];
    for (const [entries, expected] of cases) {
      const storage = make();
      storage.append(entries);
      expect(at(storage.allEntries())).toEqual(expected);
    }
    expect(() => make().append([entry(6, 7)])).toThrow(RaftInvariantError);
  });

  test('takes newer snapshots only', () => {
    const storage = make();
    expect(storage.applySnapshot(snapshotAt(9, 9, confState([1]))).type).toBe('ok');
    expect([storage.firstIndex(), storage.lastIndex()]).toEqual([10, 9]);
    expect(storage.applySnapshot(snapshotAt(8, 9, confState([1])))).toEqual({
      type: 'error',
      message: 'requested index is older than the existing snapshot',
    });
  });
});

describe('entry sizes', () => {
  test('a size limit leaves at least one entry', () => {
    const entries = entriesOfTerms([4, 5, 6]);
    const size = entrySizeBytes(entries[0] as Entry);
    expect(limitSize(entries, UNLIMITED)).toBe(entries);
    expect(limitSize(entries, 0)).toHaveLength(1);
    expect(limitSize(entries, 2 * size)).toHaveLength(2);
    expect(limitSize(entries, 2 * size + 1)).toHaveLength(2);
    expect(limitSize(entries, 3 * size - 1)).toHaveLength(2);
    expect(limitSize(entries, 3 * size)).toHaveLength(3);
    expect(limitSize([], 0)).toEqual([]);
  });

  test('an empty payload counts as nothing, an empty entry as something', () => {
    expect(payloadsBytes([entry(1, 1)])).toBe(0);
    expect(payloadsBytes([entry(1, 1, 'ab'), entry(1, 2, 'c')])).toBe(3);
    expect(entrySizeBytes(entry(1, 1))).toBeGreaterThan(0);
  });
});
