/** The checks before PrepareMerge, one by one and at their borders: each alone must hold a merge back (P1 to P10). */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { logIndex, term } from '../../../src/base/ids.ts';
import type { AdminCommand } from '../../../src/codec/command.ts';
import { encodeRaftCommand } from '../../../src/codec/raft-records.ts';
import type { Peer, Region } from '../../../src/meta/region.ts';
import { EntryType, type Entry } from '../../../src/raft/types.ts';
import { checkPrepare, type PrepareView } from '../../../src/raftstore/operation/merge/prepare.ts';
import { sketchRegion, voter } from '../../support/store-harness.ts';

const GAP = 10;
const ENTRY_MAX_BYTES = 10_000;
const LAST = 100;
const NOW_MS = 1_000_000;
const DOWN_MS = 60_000;

const SOURCE = sketchRegion({ id: 1, start: 'a', end: 'm', epoch: { confVer: 3, version: 4 } });
const TARGET = sketchRegion({ id: 2, start: 'm', end: 'z', epoch: { confVer: 5, version: 6 } });

type Follower = { match: number; committed: number; state?: 'probe' | 'replicate' | 'snapshot' };

interface Sketch {
  readonly source?: Region;
  /** The target as this store knows it; null = not at all. */
  readonly local?: Region | null;
  readonly target?: Region;
  readonly followers?: readonly Follower[];
  /** The leader's own durable position. */
  readonly own?: number;
  readonly committed?: number;
  readonly firstIndex?: number;
  readonly lastSentSnapshotIndex?: number;
  readonly silentMs?: number;
  readonly entries?: ReadonlyMap<number, Partial<Entry>>;
}

const CAUGHT_UP: Follower = { match: LAST, committed: LAST };

/** What the leader on store 1 of the source says. */
function ask(sketch: Sketch = {}): string | number {
  const source = sketch.source ?? SOURCE;
  const target = sketch.target ?? TARGET;
  const local = sketch.local === undefined ? target : sketch.local;
  const followers = sketch.followers ?? [CAUGHT_UP, CAUGHT_UP];
  const own = source.peers[0] as Peer;
  const first = { match: sketch.own ?? LAST, committed: sketch.committed ?? LAST, state: 'replicate' as const };
  const views = [first, ...followers].map((follower, i) => ({
    state: 'replicate' as const,
    ...follower,
    id: (source.peers[i] as Peer).id,
  }));
  const view: PrepareView = {
    region: source,
    peer: own,
    node: {
      progress: () => views as unknown as ReturnType<PrepareView['node']['progress']>,
      lastIndex: LAST,
      firstIndex: sketch.firstIndex ?? 1,
      slice: (low, high) =>
        Array.from({ length: high - low }, (_, i) => {
          const plain: Entry = {
            type: EntryType.Normal,
            term: term(6),
            index: logIndex(low + i),
            data: new Uint8Array(0),
          };
          return { ...plain, ...sketch.entries?.get(low + i) };
        }),
    },
    lastHeardMs: new Map(source.peers.map((peer) => [peer.id, NOW_MS - (sketch.silentMs ?? 0)])),
    lastSentSnapshotIndex: sketch.lastSentSnapshotIndex ?? 0,
    ctx: {
      storeId: 1,
      clock: { monoMs: () => NOW_MS },
      config: { maxPeerDownMs: DOWN_MS, mergeMaxLogGap: GAP, entrySizeMaxBytes: ENTRY_MAX_BYTES },
      meta: { regions: new Map(local === null ? [] : [[local.id, local]]) },
    },
  };
  const check = checkPrepare(view, target);
  return check.type === 'ok' ? check.minIndex : check.refusal.code;
}

const change = (region: Region, over: Partial<Region>): Region => ({ ...region, ...over });
const withRole = (region: Region, at: number, role: Peer['role']): Region =>
  change(region, { peers: region.peers.map((peer, i) => (i === at ? { ...peer, role } : peer)) });
const admin = (command: AdminCommand): Partial<Entry> => ({
  data: encodeRaftCommand({ type: 'admin', epoch: SOURCE.epoch, command }),
});
const write = (bytes: number): Partial<Entry> => ({
  data: encodeRaftCommand({
    type: 'write',
    epoch: SOURCE.epoch,
    ops: [{ type: 'put', key: utf8('b'), value: new Uint8Array(bytes), expireAtSeconds: 0 }],
  }),
});

test('nothing in the way: the first entry that somebody may lack is the one behind the slowest', () => {
  expect(ask()).toBe(LAST + 1);
  expect(ask({ followers: [{ match: 95, committed: 90 }, CAUGHT_UP] })).toBe(96);
  expect(ask({ own: 97 })).toBe(98);
});

describe('P1: neither side between two memberships', () => {
  test('source', () => {
    for (const role of ['incoming-voter', 'demoting-voter'] as const) {
      expect(ask({ source: withRole(SOURCE, 1, role), target: withRole(TARGET, 1, role) })).toBe('JointState');
      expect(ask({ source: withRole(SOURCE, 1, role) })).toBe('JointState');
    }
  });
  test('target', () => {
    expect(ask({ target: withRole(TARGET, 1, 'incoming-voter') })).toBe('JointState');
  });
});

describe('P2: the target here is exactly the one that was planned', () => {
  const newer = { confVer: 5, version: 7 };
  const older = { confVer: 4, version: 6 };
  test.each([
    ['not here', null, 'TargetNotHere'],
    ['here without data', change(TARGET, { peers: [] }), 'TargetNotHere'],
    ['older here', change(TARGET, { epoch: older }), 'TargetBehind'],
    ['newer here', change(TARGET, { epoch: newer }), 'TargetChanged'],
    ['newer in one and older in the other', change(TARGET, { epoch: { confVer: 4, version: 7 } }), 'TargetChanged'],
    ['of the same epoch with another range', change(TARGET, { range: SOURCE.range }), 'TargetChanged'],
    [
      'of the same epoch with other peers',
      change(TARGET, { peers: [voter(29, 1), voter(22, 2), voter(23, 3)] }),
      'TargetChanged',
    ],
  ] as const)('%s', (_what, local, code) => {
    expect(ask({ local })).toBe(code);
  });
});

describe('P3: two different regions that touch', () => {
  test.each([
    ['itself', SOURCE, 'MergeWithItself'],
    ['a gap between them', sketchRegion({ id: 2, start: 'n', end: 'z' }), 'NotNeighbours'],
    ['overlap', sketchRegion({ id: 2, start: 'l', end: 'z' }), 'NotNeighbours'],
    ['the ends of the key space', sketchRegion({ id: 2, start: 'x', end: '' }), 'NotNeighbours'],
  ] as const)('%s', (_what, target, code) => {
    expect(ask({ target })).toBe(code);
  });
  test('an open end does not touch an open start', () => {
    expect(
      ask({
        source: change(SOURCE, { range: { start: utf8('m'), end: utf8('') } }),
        target: sketchRegion({ id: 2, start: '', end: 'c' }),
      }),
    ).toBe('NotNeighbours');
  });
  test('on either side', () => {
    expect(ask({ target: sketchRegion({ id: 2, start: '', end: 'a' }) })).toBe(LAST + 1);
  });
});

describe('P4: the same stores in the same roles', () => {
  test('another number of peers', () => {
    const more = change(TARGET, { peers: [...TARGET.peers, voter(24, 4)] });
    expect(ask({ target: more })).toBe('PeersNotAligned');
  });
  test('as many peers, one on another store', () => {
    const elsewhere = change(TARGET, { peers: [voter(21, 1), voter(22, 2), voter(24, 4)] });
    expect(ask({ target: elsewhere })).toBe('PeersNotAligned');
  });
  test('the same stores, one in another role', () => {
    expect(ask({ target: withRole(TARGET, 2, 'learner') })).toBe('PeersNotAligned');
    expect(ask({ source: withRole(SOURCE, 2, 'learner') })).toBe('PeersNotAligned');
    expect(ask({ source: withRole(SOURCE, 2, 'learner'), target: withRole(TARGET, 2, 'learner') })).toBe(LAST + 1);
  });
});

test('P5: nobody waits for a snapshot, however far it is', () => {
  expect(ask({ followers: [CAUGHT_UP, { ...CAUGHT_UP, state: 'snapshot' }] })).toBe('PeerNeedsSnapshot');
  expect(ask({ followers: [CAUGHT_UP, { ...CAUGHT_UP, state: 'probe' }] })).toBe(LAST + 1);
});

describe('P6: every position is known', () => {
  test('what it has acknowledged', () => {
    expect(ask({ followers: [CAUGHT_UP, { match: 0, committed: LAST }] })).toBe('PeerUnknown');
  });
  test('what it has committed', () => {
    expect(ask({ followers: [CAUGHT_UP, { match: LAST, committed: 0 }] })).toBe('PeerUnknown');
  });
});

describe('P7: nobody lacks more than the gap', () => {
  test('of entries, the leader itself included', () => {
    const at = (match: number) => ask({ followers: [CAUGHT_UP, { match, committed: LAST }] });
    expect(at(LAST - GAP)).toBe(LAST - GAP + 1);
    expect(at(LAST - GAP - 1)).toBe('LogGapTooLarge');
    expect(ask({ own: LAST - GAP - 1 })).toBe('LogGapTooLarge');
  });
  test('of the knowledge that they are committed: twice as much, by the leader’s own commit index as well', () => {
    const at = (committed: number) => ask({ followers: [CAUGHT_UP, { match: LAST, committed }] });
    expect(at(LAST - 2 * GAP)).toBe(LAST + 1);
    expect(at(LAST - 2 * GAP - 1)).toBe('LogGapTooLarge');
    expect(ask({ committed: LAST - 2 * GAP - 1 })).toBe('LogGapTooLarge');
  });
});

test('P8: nobody may have been started by a later snapshot than it has acknowledged', () => {
  const followers = [CAUGHT_UP, { match: 95, committed: 95 }];
  expect(ask({ followers, lastSentSnapshotIndex: 95 })).toBe(96);
  expect(ask({ followers, lastSentSnapshotIndex: 96 })).toBe('PeerBehindSnapshot');
});

describe('P9: between the slowest and the end nothing changes the region', () => {
  const split: AdminCommand = { type: 'compact-log', index: logIndex(50), term: term(6) } as unknown as AdminCommand;
  const behind = [CAUGHT_UP, { match: 95, committed: 92 }];

  test('neither a command for the region nor a membership change', () => {
    for (const bad of [admin(split), { type: EntryType.ConfChangeV2, data: utf8('x') }]) {
      expect(ask({ followers: behind, entries: new Map([[93, bad]]) })).toBe('AdminInLogGap');
      expect(ask({ followers: behind, entries: new Map([[LAST, bad]]) })).toBe('AdminInLogGap');
      // Everybody has committed it.
      expect(ask({ followers: behind, entries: new Map([[92, bad]]) })).toBe(96);
    }
  });

  test('writes and comparisons of replicas do not', () => {
    const entries = new Map([
      [93, write(10)],
      [94, admin({ type: 'compute-hash' } as unknown as AdminCommand)],
      [99, write(10)],
    ]);
    expect(ask({ followers: behind, entries })).toBe(96);
  });

  test('nor what is compacted already and so cannot be looked at', () => {
    expect(ask({ followers: behind, firstIndex: 93 })).toBe(96);
    expect(ask({ followers: behind, firstIndex: 94 })).toBe('AdminInLogGap');
  });
});

test('P10: what somebody lacks fits into nine tenths of an entry', () => {
  const followers = [CAUGHT_UP, { match: 98, committed: 90 }];
  const of = (index: number, bytes: number) => ask({ followers, entries: new Map([[index, write(bytes)]]) });
  expect(of(99, 0.8 * ENTRY_MAX_BYTES)).toBe(99);
  expect(of(99, 0.95 * ENTRY_MAX_BYTES)).toBe('EntriesTooLarge');
  // Not carried: the slowest has it.
  expect(of(98, 0.95 * ENTRY_MAX_BYTES)).toBe(99);
});

test('nobody was silent for long', () => {
  expect(ask({ silentMs: DOWN_MS - 1 })).toBe(LAST + 1);
  expect(ask({ silentMs: DOWN_MS })).toBe('PeerDown');
});

test('R3: the first entry to carry is not raised to what the group has committed', () => {
  expect(ask({ own: 95, followers: [CAUGHT_UP, CAUGHT_UP] })).toBe(96);
  expect(ask({ followers: [CAUGHT_UP, { match: 92, committed: 99 }] })).toBe(93);
});
