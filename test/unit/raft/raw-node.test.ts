import { describe, expect, test } from 'vitest';
import { EMPTY_BYTES, utf8 } from '../../../src/base/bytes.ts';
import {
  type Entry,
  entriesSizeBytes,
  EntryType,
  isLocalMessage,
  isResponseMessage,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  type LogStorage,
  MemoryStorage,
  type Message,
  MsgType,
  newMessage,
  type Ready,
} from '../../../src/raft/index.ts';
import { RaftInvariantError } from '../../../src/raft/errors.ts';
import { RawNode } from '../../../src/raft/raw-node.ts';
import {
  addNode,
  change,
  confState,
  configOf,
  entriesOfTerms,
  entry,
  Lab,
  LabNode,
  message,
  type NodeOptions,
  ofType,
  snapshotAt,
} from './lab.ts';

const TRIO: NodeOptions = { voters: [1, 2, 3] };

/** Storage of a founding member: a snapshot at index 5, term 1. */
function bootstrapped(): MemoryStorage {
  const storage = new MemoryStorage();
  storage.applySnapshot(snapshotAt(5, 1, confState([1])));
  return storage;
}

describe('stepping messages', () => {
  test('local message types from outside are refused', () => {
    for (const type of Object.values(MsgType)) {
      const node = new LabNode(1, TRIO);
      const m = message(type, {
        from: 2,
        to: 1,
        term: 1,
        entries: [entry(1, 1)],
        snapshot: snapshotAt(1, 1, confState([1])),
      });
      const result = node.raw.step(m);
      if (isLocalMessage(type) || type === MsgType.ForgetLeader) {
        expect(result.type, String(type)).toBe('local-message');
      } else {
        expect(result.type, String(type)).not.toBe('local-message');
      }
    }
  });

  test('answers from somebody who is not a member are refused', () => {
    for (const type of Object.values(MsgType).filter((t) => isResponseMessage(t) && !isLocalMessage(t))) {
      const node = new LabNode(1, TRIO);
      expect(node.step(type, { from: 9, term: 1, entries: [entry(1, 1)] }), String(type)).toEqual({
        type: 'peer-not-found',
      });
      expect(node.raw.term).toBe(0);
    }
  });

  test('the tables of local and response types are complete', () => {
    const local = Object.entries(MsgType)
      .filter(([, type]) => isLocalMessage(type))
      .map(([name]) => name);
    expect(local.sort()).toEqual([
      'Beat',
      'CheckQuorum',
      'Hup',
      'SnapStatus',
      'StorageAppend',
      'StorageAppendResp',
      'StorageApply',
      'StorageApplyResp',
      'Unreachable',
    ]);
    const responses = Object.entries(MsgType)
      .filter(([, type]) => isResponseMessage(type))
      .map(([name]) => name);
    expect(responses.sort()).toEqual([
      'AppResp',
      'HeartbeatResp',
      'PreVoteResp',
      'ReadIndexResp',
      'StorageAppendResp',
      'StorageApplyResp',
      'Unreachable',
      'VoteResp',
    ]);
  });
});

describe('malformed messages', () => {
  const cases: [string, MsgType, Partial<Message>][] = [
    ['an unknown type', 99 as MsgType, { term: 1 }],
    ['a fractional type', 3.5 as MsgType, { term: 1 }],
    ['another addressee', MsgType.App, { term: 1, to: 3 }],
    ['an absurd term', MsgType.App, { term: 2 ** 53 }],
    ['a negative term', MsgType.App, { term: -1 }],
    ['a term that is no number', MsgType.App, { term: Number.NaN }],
    ['a term in a far future', MsgType.App, { term: 2 ** 40 }],
    ['a commit index far beyond the log', MsgType.Heartbeat, { term: 1, commit: 2 ** 40 }],
    ['an absurd index', MsgType.App, { term: 1, index: 2 ** 53 }],
    ['an infinite commit index', MsgType.Heartbeat, { term: 1, commit: Number.POSITIVE_INFINITY }],
    ['an append without term', MsgType.App, {}],
    ['a heartbeat without term', MsgType.Heartbeat, {}],
    ['a vote request without term', MsgType.Vote, {}],
    ['a response without term', MsgType.AppResp, {}],
    ['an append behind a later term', MsgType.App, { term: 1, logTerm: 2 }],
    ['entries out of order', MsgType.App, { term: 1, entries: [entry(1, 2), entry(1, 1)] }],
    ['entries with a hole', MsgType.App, { term: 1, entries: [entry(1, 1), entry(1, 3)] }],
    ['entries not behind the position', MsgType.App, { term: 1, index: 4, logTerm: 1, entries: [entry(1, 6)] }],
    ['entries of falling terms', MsgType.App, { term: 3, entries: [entry(2, 1), entry(1, 2)] }],
    ['entries of a later term than the message', MsgType.App, { term: 1, entries: [entry(2, 1)] }],
    ['an entry of an unknown type', MsgType.App, { term: 1, entries: [{ ...entry(1, 1), type: 7 as EntryType }] }],
    ['an entry without payload', MsgType.App, { term: 1, entries: [{ ...entry(1, 1), data: null as never }] }],
    ['a proposal without entries', MsgType.Prop, {}],
    ['a read without context', MsgType.ReadIndex, {}],
    ['a snapshot message without snapshot', MsgType.Snap, { term: 1 }],
    ['a snapshot without voters', MsgType.Snap, { term: 1, snapshot: snapshotAt(3, 1, confState([])) }],
    ['a snapshot of a later term', MsgType.Snap, { term: 1, snapshot: snapshotAt(3, 2, confState([1])) }],
    ['a snapshot with a bad member id', MsgType.Snap, { term: 1, snapshot: snapshotAt(3, 1, confState([1, -2])) }],
    ['no sender', MsgType.App, { term: 1, from: 0 }],
    ['a heartbeat from the node itself', MsgType.Heartbeat, { term: 1, from: 1 }],
    ['a storage response from the wrong thread', MsgType.StorageAppendResp, { term: 1, from: LOCAL_APPLY_THREAD }],
    ['an append from a local thread', MsgType.App, { term: 1, from: LOCAL_APPEND_THREAD }],
  ];
  test.each(cases)('with %s are refused with a reason and change nothing', (_, type, parts) => {
    const node = new LabNode(1, TRIO);
    node.becomeFollower(1, 2);
    node.drain();
    const before = JSON.stringify(node.raw.status());
    const result = node.step(type, { from: 2, ...parts });
    expect(result.type).toBe('malformed');
    expect(result.type === 'malformed' && result.reason.length > 10).toBe(true);
    expect(JSON.stringify(node.raw.status())).toBe(before);
    expect(node.raw.hasReady()).toBe(false);
  });

  test('that answer for positions the leader does not have are refused', () => {
    const node = new LabNode(1, TRIO);
    node.becomeQuietLeader();
    for (const [type, parts] of [
      [MsgType.AppResp, { index: 50 }],
      [MsgType.AppResp, { index: 1, reportedCommit: 50 }],
      [MsgType.HeartbeatResp, { reportedCommit: 50 }],
    ] as const) {
      expect(node.step(type, { from: 2, term: 1, ...parts }).type).toBe('malformed');
      expect(node.progress(2).match).toBe(0);
    }
  });
});

describe('Readies', () => {
  test('boot a single voter from a bootstrapped storage, step by step', () => {
    const raw = new RawNode(configOf(1, bootstrapped(), { applied: 5 }));
    const storage = bootstrapped();
    const node = new RawNode(configOf(1, storage, { applied: 5 }));
    expect(raw.hasReady()).toBe(false);
    node.campaign();
    const persist = (rd: Ready): Ready => {
      storage.append(rd.entries);
      node.advance();
      return rd;
    };
    expect(persist(node.ready())).toMatchObject({
      softState: { lead: 0, role: 'candidate' },
      hardState: { term: 1, vote: 1, commit: 5 },
      entries: [],
      committedEntries: [],
      mustSync: true,
    });
    expect(node.propose(utf8('foo')).type).toBe('proposed');
    expect(persist(node.ready())).toMatchObject({
      softState: { lead: 1, role: 'leader' },
      hardState: null,
      entries: [
        { term: 1, index: 6 },
        { term: 1, index: 7 },
      ],
      committedEntries: [],
      mustSync: true,
      leaderMessages: true,
    });
    expect(persist(node.ready())).toMatchObject({
      softState: null,
      hardState: { term: 1, vote: 1, commit: 7 },
      entries: [],
      committedEntries: [{ index: 6 }, { index: 7 }],
      mustSync: false,
    });
    expect(node.hasReady()).toBe(false);
  });

  test('after a restart contain the committed entries again and no hard state', () => {
    const storage = new MemoryStorage();
    storage.applySnapshot(snapshotAt(0, 0, confState([1])));
    storage.append([entry(1, 1), entry(1, 2, 'foo')]);
    storage.setHardState({ term: 1, vote: 0, commit: 1 });
    const node = new RawNode(configOf(1, storage, {}));
    const rd = node.ready();
    expect(rd).toMatchObject({ softState: null, hardState: null, entries: [], mustSync: false });
    expect(rd.committedEntries.map((e) => e.index)).toEqual([1]);
    node.advance();
    expect(node.hasReady()).toBe(false);
  });

  test('after a restart above a snapshot contain the committed entries behind it', () => {
    const storage = new MemoryStorage();
    storage.applySnapshot(snapshotAt(2, 1, confState([1, 2])));
    storage.append([entry(1, 3, 'foo')]);
    storage.setHardState({ term: 1, vote: 0, commit: 3 });
    const node = new RawNode(configOf(1, storage, { applied: 2 }));
    const rd = node.ready();
    expect(rd.committedEntries.map((e) => e.index)).toEqual([3]);
    expect(rd.hardState).toBeNull();
    node.advance();
    expect(node.hasReady()).toBe(false);
  });

  test('the status shows progress only at a leader', () => {
    const node = new LabNode(1, { voters: [1] });
    expect(node.raw.status().progress).toEqual([]);
    node.raw.campaign();
    node.drain();
    expect(node.raw.status()).toMatchObject({
      id: 1,
      role: 'leader',
      lead: 1,
      term: 1,
      vote: 1,
      committed: 1,
      applied: 1,
      progress: [{ id: 1, match: 1, next: 2, state: 'replicate', committed: 1, recentActive: true, isLearner: false }],
    });
  });

  test('a pagination after a restart skips no index although storage ignores the size hint', () => {
    const memory = new MemoryStorage();
    memory.applySnapshot(snapshotAt(0, 0, confState([1])));
    const entries = Array.from({ length: 10 }, (_, i) => entry(1, i + 1, 'a'));
    memory.append(entries);
    memory.setHardState({ term: 1, vote: 1, commit: 10 });
    const storage: LogStorage = {
      initialState: () => memory.initialState(),
      firstIndex: () => memory.firstIndex(),
      lastIndex: () => memory.lastIndex(),
      term: (i) => memory.term(i),
      entries: (lo, hi) => memory.entries(lo, hi, Number.MAX_SAFE_INTEGER),
      snapshot: () => memory.snapshot(),
    };
    for (const limit of [1, entriesSizeBytes(entries) - 2, entriesSizeBytes(entries.slice(0, 3))]) {
      const node = new RawNode(configOf(1, storage, { maxSizePerMsg: limit, maxCommittedSizePerReady: limit }));
      let next = 1;
      while (node.hasReady()) {
        for (const e of node.ready().committedEntries) {
          expect(e.index).toBe(next++);
        }
        node.advance();
      }
      expect(next).toBe(11);
    }
  });

  for (const asyncStorageWrites of [false, true]) {
    const mode = asyncStorageWrites ? 'async' : 'sync';
    test(`committed entries are handed out within their size limit, in ${mode} mode`, () => {
      const limit = 2048;
      const lab = Lab.of(3, { maxCommittedSizePerReady: limit, asyncStorageWrites });
      lab.campaign(1);
      lab.cut(1, 2);
      lab.cut(1, 3);
      for (let i = 0; i < 12; i++) {
        lab.raw(1).propose(new Uint8Array(500));
      }
      lab.recover();
      lab.raw(1).ping();
      lab.settle();
      expect(lab.committed()).toEqual([13, 13, 13]);
      for (const node of lab.nodes.values()) {
        expect(node.applied.map((e) => e.index)).toEqual(Array.from({ length: 13 }, (_, i) => i + 1));
        const sizes = node.readies.map((rd) => rd.committedEntries).filter((e) => e.length > 0);
        expect(sizes.length).toBeGreaterThan(2);
        for (const batch of sizes) {
          expect(batch.length === 1 || entriesSizeBytes(batch) <= limit).toBe(true);
        }
      }
    });
  }

  test('outstanding apply work counts against the limit in async mode', () => {
    const storage = new MemoryStorage();
    storage.applySnapshot(snapshotAt(0, 0, confState([1])));
    storage.append(Array.from({ length: 4 }, (_, i) => entry(1, i + 1, 'x'.repeat(84))));
    storage.setHardState({ term: 1, vote: 0, commit: 4 });
    const node = new RawNode(configOf(1, storage, { asyncStorageWrites: true, maxCommittedSizePerReady: 250 }));
    const first = node.ready();
    expect(first.committedEntries.map((e) => e.index)).toEqual([1, 2]);
    expect(node.hasReady()).toBe(false);
    const applyMessage = first.messages.find((m) => m.to === LOCAL_APPLY_THREAD);
    for (const response of applyMessage?.responses ?? []) {
      node.step(response);
    }
    expect(node.applied).toBe(2);
    expect(node.ready().committedEntries.map((e) => e.index)).toEqual([3, 4]);
  });

  test('a bounded log does not grow without end while a quorum is away, and applying gives the size back', () => {
    const size = 100;
    const limit = 16 * size;
    const lab = Lab.of(3, { maxUncommittedBytes: limit });
    lab.campaign(1);
    lab.isolate(1);
    for (let i = 0; i < 1024; i++) {
      lab.raw(1).propose(new Uint8Array(size));
    }
    lab.node(1).drain();
    expect(lab.raw(1).uncommittedBytes).toBe(limit);
    expect(lab.raw(1).lastIndex).toBe(1 + 16);
    lab.recover();
    lab.raw(1).ping();
    // Committed, but not applied: the size is still counted.
    lab.node(1).take();
    lab.raw(1).step(message(MsgType.AppResp, { from: 2, to: 1, term: 1, index: 17 }));
    expect(lab.raw(1).committed).toBe(17);
    expect(lab.raw(1).uncommittedBytes).toBe(limit);
    lab.settle();
    expect(lab.raw(1).uncommittedBytes).toBe(0);
  });

  test('looking does not take, taking does, and messages added meanwhile survive advance', () => {
    const node = new RawNode(configOf(1, bootstrapped(), { applied: 5 }));
    const raft = node.internals;
    const m1 = newMessage(MsgType.Heartbeat, 2, 1, 1);
    const m2 = newMessage(MsgType.Heartbeat, 3, 1, 1);
    raft.send(m1);
    expect(node.hasReady()).toBe(true);
    expect(node.hasReady()).toBe(true);
    expect(raft.messages).toEqual([m1]);
    const rd = node.ready();
    expect(rd.messages).toEqual([m1]);
    expect(raft.messages).toEqual([]);
    raft.send(m2);
    node.advance();
    expect(raft.messages).toEqual([m2]);
    expect(node.ready().messages).toEqual([m2]);
  });

  test('must be synced for entries, term and vote, and not for a commit index or nothing', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.propose(1);
    for (const rd of [...lab.nodes.values()].flatMap((n) => n.readies)) {
      const onlyCommit = rd.hardState !== null && rd.entries.length === 0;
      if (rd.entries.length > 0) {
        expect(rd.mustSync).toBe(true);
      } else if (!onlyCommit) {
        expect(rd.mustSync).toBe(false);
      }
    }
    const follower = new LabNode(2, TRIO);
    follower.step(MsgType.Vote, { from: 1, term: 1 });
    expect(follower.handleReady().mustSync).toBe(true);
    follower.step(MsgType.Heartbeat, { from: 1, term: 1 });
    expect(follower.handleReady()).toMatchObject({ mustSync: false, hardState: null });
    follower.step(MsgType.Snap, { from: 1, term: 1, snapshot: snapshotAt(9, 1, confState([1, 2, 3])) });
    expect(follower.handleReady()).toMatchObject({ mustSync: false, snapshot: { metadata: { index: 9 } } });
  });

  test('tell changes of role, leader, term, vote and commit once', () => {
    const node = new LabNode(1, TRIO);
    expect(node.raw.hasReady()).toBe(false);
    node.step(MsgType.App, { from: 2, term: 1, entries: [entry(1, 1)], commit: 1 });
    const rd = node.handleReady();
    expect(rd.softState).toEqual({ lead: 2, role: 'follower' });
    expect(rd.hardState).toEqual({ term: 1, vote: 0, commit: 1 });
    node.step(MsgType.Heartbeat, { from: 2, term: 1, commit: 1 });
    expect(node.handleReady()).toMatchObject({ softState: null, hardState: null });
  });

  test('two in a row without advance are fatal in sync mode', () => {
    const node = new RawNode(configOf(1, bootstrapped(), { applied: 5 }));
    node.campaign();
    node.ready();
    expect(() => node.ready()).toThrow(/two accepted Ready structs/);
  });

  test('advance is fatal in async mode', () => {
    const node = new RawNode(configOf(1, bootstrapped(), { applied: 5, asyncStorageWrites: true }));
    expect(() => node.advance()).toThrow(RaftInvariantError);
  });

  test('only the messages of a leader may leave before persistence', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    for (const node of lab.nodes.values()) {
      for (const rd of node.readies) {
        if (rd.leaderMessages) {
          expect(rd.messages.every((m) => m.type !== MsgType.Vote)).toBe(true);
        } else {
          expect(rd.messages.every((m) => m.type !== MsgType.App && m.type !== MsgType.Heartbeat)).toBe(true);
        }
      }
    }
    expect(lab.node(1).readies.some((rd) => rd.leaderMessages)).toBe(true);
  });
});

describe('async storage writes', () => {
  const ASYNC: NodeOptions = { ...TRIO, asyncStorageWrites: true };

  const storageMessage = (rd: Ready, to: number): Message => {
    const m = rd.messages.find((found) => found.to === to);
    if (m === undefined) {
      throw new Error('no storage message');
    }
    return m;
  };

  test('acknowledgements wait in the append message, the own one first, the report last', () => {
    const node = new LabNode(2, ASYNC);
    node.step(MsgType.App, { from: 1, term: 1, entries: entriesOfTerms([1, 1]) });
    const rd = node.raw.ready();
    expect(rd.messages).toHaveLength(1);
    const append = storageMessage(rd, LOCAL_APPEND_THREAD);
    expect(append).toMatchObject({
      type: MsgType.StorageAppend,
      term: 1,
      commit: 0,
      entries: [{ index: 1 }, { index: 2 }],
    });
    expect(append.responses.map((m) => [m.type, m.to, m.index, m.logTerm, m.term])).toEqual([
      [MsgType.AppResp, 1, 2, 0, 1],
      [MsgType.StorageAppendResp, 2, 2, 1, 1],
    ]);
  });

  test('entries are handed to apply only when they are durable', () => {
    const node = new LabNode(2, ASYNC);
    node.step(MsgType.App, { from: 1, term: 1, entries: entriesOfTerms([1]), commit: 1 });
    const rd = node.raw.ready();
    expect(rd.committedEntries).toEqual([]);
    expect(node.raw.hasReady()).toBe(false);
    const append = storageMessage(rd, LOCAL_APPEND_THREAD);
    node.storage.append(append.entries);
    const report = append.responses.at(-1) as Message;
    node.raw.step(report);
    const apply = storageMessage(node.raw.ready(), LOCAL_APPLY_THREAD);
    expect(apply.entries.map((e) => e.index)).toEqual([1]);
    expect(apply.responses).toHaveLength(1);
  });

  test('a report of an earlier term does not mark a tail durable that was replaced and came back (ABA)', () => {
    const node = new LabNode(2, ASYNC);
    const append = (from: number, term: number, entries: Entry[]): Message => {
      node.step(MsgType.App, { from, term, index: 0, logTerm: 0, entries });
      return storageMessage(node.raw.ready(), LOCAL_APPEND_THREAD);
    };
    const first = append(1, 1, [entry(1, 1, 'a')]);
    append(3, 2, [entry(2, 1, 'b')]);
    // Overwritten by the original entry: member 1 leads again.
    const third = append(1, 3, [entry(1, 1, 'a')]);
    node.raw.step(first.responses.at(-1) as Message);
    expect(node.raft.log.unstable.length).toBe(1);
    node.raw.step(third.responses.at(-1) as Message);
    expect(node.raft.log.unstable.length).toBe(0);
  });

  test('a report attests the last log position, so that a later one covers the whole tail', () => {
    const node = new LabNode(2, ASYNC);
    node.step(MsgType.App, { from: 1, term: 1, entries: [entry(1, 1)] });
    node.raw.ready();
    node.step(MsgType.App, { from: 1, term: 1, index: 1, logTerm: 1, entries: [entry(1, 2)] });
    node.raw.ready();
    node.step(MsgType.Vote, { from: 3, term: 2, index: 2, logTerm: 1 });
    const rd = node.raw.ready();
    const report = storageMessage(rd, LOCAL_APPEND_THREAD).responses.at(-1) as Message;
    expect([report.type, report.index, report.logTerm, report.term]).toEqual([MsgType.StorageAppendResp, 2, 1, 2]);
    node.raw.step(report);
    expect(node.raft.log.unstable.length).toBe(0);
  });

  test('a commit index alone asks for a lazy write', () => {
    const node = new LabNode(2, ASYNC);
    node.step(MsgType.App, { from: 1, term: 1, entries: [entry(1, 1)] });
    node.drain();
    node.step(MsgType.Heartbeat, { from: 1, term: 1, commit: 1 });
    const rd = node.raw.ready();
    const append = storageMessage(rd, LOCAL_APPEND_THREAD);
    expect([append.term, append.vote, append.commit, append.entries.length]).toEqual([1, 0, 1, 0]);
    expect(rd.mustSync).toBe(false);
  });
});

describe('configuration and start', () => {
  test('bad configurations are refused', () => {
    const bad: NodeOptions[] = [
      { heartbeatTick: 0 },
      { electionTick: 1, heartbeatTick: 1 },
      { maxInflightMsgs: 0 },
      { maxInflightBytes: 10, maxSizePerMsg: 100 },
      { maxUncommittedBytes: -1 },
      { leaseReads: true },
    ];
    for (const options of bad) {
      expect(() => new LabNode(1, { ...TRIO, ...options }), JSON.stringify(options)).toThrow(RaftInvariantError);
    }
    for (const id of [0, -1, 1.5, 2 ** 53]) {
      expect(() => new LabNode(id, TRIO)).toThrow(RaftInvariantError);
    }
  });

  test('stored state that contradicts itself is fatal', () => {
    expect(() => new LabNode(1, { ...TRIO, terms: [1], hardState: { commit: 2 } })).toThrow(
      /state.commit 2 is out of range/,
    );
    expect(() => new LabNode(1, { ...TRIO, terms: [1, 1], hardState: { commit: 1 }, applied: 2 })).toThrow(
      RaftInvariantError,
    );
    const storage = new MemoryStorage();
    storage.applySnapshot(snapshotAt(5, 5, confState([1])));
    storage.setHardState({ term: 5, vote: 0, commit: 3 });
    expect(() => new LabNode(1, { storage })).toThrow(RaftInvariantError);
    // A term behind the log would let this member lead a term that is over.
    expect(() => new LabNode(1, { ...TRIO, terms: [1, 3], hardState: { term: 2 } })).toThrow(/behind its log/);
  });

  test('a member that failed must not be used any more', () => {
    const node = new LabNode(1, { voters: [1] });
    expect(() => node.raw.applyConfChange(change([{ type: 1, nodeId: 1 }]))).toThrow(RaftInvariantError);
    expect(() => node.raw.tick()).toThrow(/used after it failed/);
    expect(() => node.step(MsgType.App, { from: 2, term: 1 })).toThrow(RaftInvariantError);
  });

  test('term, vote and commit survive a restart', () => {
    const node = new LabNode(2, { ...TRIO, terms: [1, 1] });
    node.step(MsgType.Vote, { from: 3, term: 2, index: 2, logTerm: 1 });
    node.step(MsgType.Heartbeat, { from: 3, term: 2, commit: 1 });
    node.drain();
    node.restart();
    expect([node.raw.term, node.raw.vote, node.raw.committed]).toEqual([2, 3, 1]);
    node.step(MsgType.Vote, { from: 1, term: 2, index: 9, logTerm: 1 });
    expect(ofType(node.take(), MsgType.VoteResp)[0]?.reject).toBe(true);
  });
});

describe('time', () => {
  test('advancing many ticks equals as many single ticks', () => {
    const make = (): Lab => {
      const lab = Lab.of(3, { checkQuorum: true, preVote: true, heartbeatTick: 2, voteGraceTicks: 7 });
      lab.node(1).raft.graceTicks = 0;
      return lab;
    };
    for (const steps of [[1], [2, 3, 5], [7, 1, 40, 3], [100, 1000]]) {
      for (const role of ['follower', 'leader'] as const) {
        const [a, b] = [make().node(1), make().node(1)];
        for (const node of [a, b]) {
          if (role === 'leader') {
            node.becomeQuietLeader();
          }
        }
        for (const n of steps) {
          a.raw.advanceTicks(n);
          for (let i = 0; i < n; i++) {
            b.raw.tick();
          }
          expect(JSON.stringify(a.raw.status())).toBe(JSON.stringify(b.raw.status()));
          expect([a.raft.electionElapsed, a.raft.heartbeatElapsed]).toEqual([
            b.raft.electionElapsed,
            b.raft.heartbeatElapsed,
          ]);
          expect(a.take()).toEqual(b.take());
        }
      }
    }
  });

  test('the next event is never later than announced', () => {
    const node = new LabNode(1, { ...TRIO, heartbeatTick: 3 });
    for (let i = 0; i < 100; i++) {
      const due = node.raw.ticksToNextEvent();
      expect(due).toBeGreaterThanOrEqual(1);
      node.raw.advanceTicks(due - 1);
      expect(node.take()).toEqual([]);
      node.raw.tick();
      if (i === 0) {
        expect(node.raw.role).toBe('candidate');
        node.drain();
        node.step(MsgType.VoteResp, { from: 2, term: 1 });
      }
      node.take();
    }
    const learner = new LabNode(2, { voters: [1], learners: [2] });
    expect(learner.raw.ticksToNextEvent()).toBe(Number.MAX_SAFE_INTEGER);
    learner.raw.advanceTicks(1000);
    expect(learner.raw.role).toBe('follower');
  });
});

describe('deviations', () => {
  test('a candidate whose own vote is not durable does not become leader on the votes of others (D1)', () => {
    const node = new LabNode(1, { ...TRIO, asyncStorageWrites: true });
    node.raw.campaign();
    const rd = node.raw.ready();
    expect(rd.leaderMessages).toBe(false);
    for (const from of [2, 3]) {
      node.step(MsgType.VoteResp, { from, term: 1 });
    }
    expect(node.raw.role).toBe('candidate');
    const append = rd.messages.find((m) => m.to === LOCAL_APPEND_THREAD);
    node.raw.step(append?.responses[0] as Message);
    expect(node.raw.role).toBe('leader');
    const upstream = new LabNode(1, { ...TRIO, asyncStorageWrites: true, requireOwnVote: false });
    upstream.raw.campaign();
    upstream.raw.ready();
    for (const from of [2, 3]) {
      upstream.step(MsgType.VoteResp, { from, term: 1 });
    }
    expect(upstream.raw.role).toBe('leader');
  });

  test('a candidate that crashed with a stalled disk cannot lead the same term twice (D1)', () => {
    // The member asks for votes, but nothing of it is durable when it crashes.
    const run = (requireOwnVote: boolean): string => {
      const node = new LabNode(1, { ...TRIO, asyncStorageWrites: true, requireOwnVote });
      node.raw.campaign();
      node.raw.ready();
      const votes = (): void => {
        node.step(MsgType.VoteResp, { from: 2, term: 1 });
        node.step(MsgType.VoteResp, { from: 3, term: 1 });
      };
      votes();
      const first = node.raw.role;
      node.restart();
      node.raw.campaign();
      node.drain();
      votes();
      return `${first} then ${node.raw.role} at term ${node.raw.term}`;
    };
    expect(run(true)).toBe('candidate then leader at term 1');
    expect(run(false)).toBe('leader then leader at term 1');
  });

  test('a restarted member neither votes nor campaigns within its grace ticks, except for a transfer (D13)', () => {
    const node = new LabNode(2, { ...TRIO, voteGraceTicks: 10 });
    const ask = (): Message[] => {
      node.step(MsgType.Vote, { from: 3, term: 5, index: 9, logTerm: 4 });
      node.step(MsgType.PreVote, { from: 3, term: 6, index: 9, logTerm: 4 });
      return node.take();
    };
    expect(ask()).toEqual([]);
    expect(node.raw.term).toBe(0);
    node.raw.campaign();
    expect(node.raw.role).toBe('follower');
    node.raw.advanceTicks(9);
    expect(ask()).toEqual([]);
    node.step(MsgType.Heartbeat, { from: 1, term: 1 });
    node.raft.lead = 0;
    node.take();
    node.raw.tick();
    expect(ask().map((m) => m.type)).toEqual([MsgType.VoteResp, MsgType.PreVoteResp]);
    const alone = new LabNode(1, { voters: [1], voteGraceTicks: 10 });
    alone.raw.campaign();
    expect(alone.raw.role).toBe('candidate');
    const target = new LabNode(2, { ...TRIO, voteGraceTicks: 10 });
    target.step(MsgType.TimeoutNow, { from: 1, term: 1 });
    expect(target.raw.role).toBe('candidate');
  });

  test('a lower-term heartbeat or append is answered only where quorum checks or pre-votes need it', () => {
    for (const [options, answered] of [
      [{}, 0],
      [{ checkQuorum: true }, 1],
      [{ preVote: true }, 1],
    ] as const) {
      const node = new LabNode(1, { ...TRIO, ...options });
      node.becomeFollower(5);
      node.take();
      node.step(MsgType.Heartbeat, { from: 2, term: 4 });
      expect(ofType(node.take(), MsgType.AppResp), JSON.stringify(options)).toHaveLength(answered);
    }
  });

  test('a non-leader with a committed entry learns so from refused votes, and a candidate with a new change steps back (D11)', () => {
    const node = new LabNode(1, { ...TRIO, commitByVote: true });
    const cc = {
      type: EntryType.ConfChangeV2,
      term: 1,
      index: 2,
      data: Uint8Array.of(1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4),
    };
    node.step(MsgType.App, { from: 2, term: 1, entries: [entry(1, 1), cc] });
    node.drain();
    node.raw.campaign();
    node.drain();
    expect(node.raw.role).toBe('candidate');
    node.step(MsgType.VoteResp, { from: 3, term: 2, reject: true, voteCommit: 2, voteCommitTerm: 1 });
    expect([node.raw.committed, node.raw.role]).toEqual([2, 'follower']);
    // An entry of another term at that index proves nothing.
    const other = new LabNode(1, { ...TRIO, commitByVote: true, terms: [1, 1] });
    other.step(MsgType.Vote, { from: 3, term: 2, index: 9, logTerm: 2, voteCommit: 2, voteCommitTerm: 2 });
    expect(other.raw.committed).toBe(0);
  });
});

describe('entries that arrive outside Raft', () => {
  const follower = (): LabNode => {
    const node = new LabNode(2, {
      ...TRIO,
      asyncStorageWrites: true,
      terms: [1, 1, 1],
      hardState: { commit: 1, vote: 1 },
    });
    node.drain();
    return node;
  };

  test('are appended, persisted, committed and applied in the ordinary way, once', () => {
    const node = follower();
    node.raw.appendCommitted([entry(1, 3), entry(2, 4), entry(2, 5)], 5);
    expect([node.raw.term, node.raw.vote, node.raw.lead, node.raw.committed]).toEqual([2, 0, 0, 5]);
    expect(node.raw.hasReady()).toBe(true);
    expect(node.raw.applied).toBe(1);
    const rd = node.raw.ready();
    expect(rd.entries.map((e) => e.index)).toEqual([4, 5]);
    expect(rd.hardState).toEqual({ term: 2, vote: 0, commit: 5 });
    // Applied only when durable; what was durable before goes first.
    expect(rd.committedEntries.map((e) => e.index)).toEqual([2, 3]);
    for (const m of rd.messages) {
      node.storage.append(m.to === LOCAL_APPEND_THREAD ? m.entries : []);
      for (const response of m.responses) {
        node.raw.step(response);
      }
    }
    node.drain();
    expect(node.applied.map((e) => e.index).at(-1)).toBe(5);
    node.raw.appendCommitted([entry(1, 3), entry(2, 4), entry(2, 5)], 5);
    expect(node.raw.hasReady()).toBe(false);
  });

  test('replace a divergent uncommitted tail', () => {
    const node = follower();
    node.raw.appendCommitted([entry(1, 2), entry(2, 3)], 3);
    node.drain();
    expect(node.terms()).toEqual([1, 1, 2]);
  });

  test('may be none: then only the commit index moves', () => {
    const node = follower();
    node.raw.appendCommitted([], 3);
    expect([node.raw.committed, node.raw.term]).toEqual([3, 1]);
    node.raw.appendCommitted([], 2);
    expect(node.raw.committed).toBe(3);
  });

  test('end a candidacy and are fatal with a hole or beyond what was carried', () => {
    const node = follower();
    node.raw.campaign();
    node.raw.appendCommitted([entry(1, 3), entry(1, 4)], 4);
    expect([node.raw.role, node.raw.committed]).toEqual(['follower', 4]);
    expect(() => follower().raw.appendCommitted([entry(1, 5)], 5)).toThrow(RaftInvariantError);
    expect(() => follower().raw.appendCommitted([], 4)).toThrow(RaftInvariantError);
  });
});

describe('views', () => {
  test('read the log without moving anything', () => {
    const node = new LabNode(1, { ...TRIO, terms: [1, 1, 2], hardState: { commit: 1 } });
    node.storage.compact(1);
    node.restart(1);
    expect([node.raw.firstIndex, node.raw.lastIndex, node.raw.termAt(1), node.raw.termAt(0)]).toEqual([2, 3, 1, -1]);
    expect(node.raw.slice(2, 4, 1000).map((e) => e.index)).toEqual([2, 3]);
    expect(node.raw.slice(1, 4, 1000)).toEqual([]);
    expect(node.raw.slice(2, 9, 1000)).toEqual([]);
    expect(node.raw.slice(3, 3, 1000)).toEqual([]);
  });

  test('tell whether commit and apply have reached the current term', () => {
    const lab = Lab.of(3);
    expect([lab.raw(1).committedInTerm(), lab.raw(1).appliedInTerm()]).toEqual([true, true]);
    lab.ignore(MsgType.App);
    lab.campaign(1);
    expect([lab.raw(1).committedInTerm(), lab.raw(1).appliedInTerm(), lab.raw(2).committedInTerm()]).toEqual([
      false,
      false,
      false,
    ]);
    lab.recover();
    lab.raw(1).ping();
    lab.settle();
    expect([lab.raw(1).committedInTerm(), lab.raw(1).appliedInTerm(), lab.raw(2).appliedInTerm()]).toEqual([
      true,
      true,
      true,
    ]);
    expect([lab.raw(1).isJoint, lab.raw(1).isLearner]).toEqual([false, false]);
  });

  test('of progress reuse the objects they are given', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    const out = [...lab.raw(1).progress()];
    const [first] = out;
    lab.propose(1);
    expect(lab.raw(1).forEachProgressInto(out)).toBe(3);
    expect(out[0]).toBe(first);
    expect(first?.match).toBe(2);
    expect(lab.raw(2).forEachProgressInto(out)).toBe(0);
    expect(lab.raw(1).proposeConfChange(change([addNode(2)])).type).toBe('proposed');
    expect(EMPTY_BYTES).toHaveLength(0);
  });
});

describe('giving up the lead', () => {
  test('makes a leader a follower of its term without a leader, and leaves others as they are', () => {
    const node = new LabNode(1, { voters: [1] });
    node.raw.stepDown();
    expect(node.raw.role).toBe('follower');
    node.raw.campaign();
    node.drain();
    const { term } = node.raw;
    expect(node.raw.role).toBe('leader');
    node.raw.stepDown();
    expect([node.raw.role, node.raw.term, node.raw.lead]).toEqual(['follower', term, 0]);
    expect(node.raw.propose(utf8('x'))).toEqual({ type: 'dropped', reason: 'no-leader' });
    node.raw.campaign();
    node.drain();
    expect([node.raw.role, node.raw.term]).toEqual(['leader', term + 1]);
  });
});
