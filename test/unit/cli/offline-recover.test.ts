/** `braid offline unsafe-recover`: its decisions, and what it writes into the directory of a real store. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parse } from 'yaml';
import { utf8 } from '../../../src/base/bytes.ts';
import { logIndex, peerId, regionId, storeId } from '../../../src/base/ids.ts';
import {
  lostMajority,
  planRecovery,
  type RecoverPlan,
  soleVoterRegion,
  type Survivor,
} from '../../../src/cli/offline/recover-plan.ts';
import { BACKUP_FILE, TERMS_AHEAD } from '../../../src/cli/offline/recover-write.ts';
import type { RegionFacts } from '../../../src/cli/offline/store-content.ts';
import { LIST_MODES } from '../../../src/cli/output/mode.ts';
import { connect } from '../../../src/client/real.ts';
import type { AdminCommand } from '../../../src/codec/command.ts';
import {
  decodeApplyState,
  decodeRaftLocalState,
  encodeEntry,
  encodeFence,
  encodeRaftCommand,
  encodeRaftLocalState,
  encodeStoreIdent,
} from '../../../src/codec/raft-records.ts';
import { applyStateKey, fenceKey, raftLogKey, raftStateKey, storeIdentKey } from '../../../src/engine/index.ts';
import type { Engine, WriteBatch } from '../../../src/env/engine.ts';
import type { Peer, PeerRole, Region } from '../../../src/meta/region.ts';
import { EntryType } from '../../../src/raft/types.ts';
import { readStoreIdent } from '../../../src/raftstore/store/bootstrap.ts';
import { loadRegions } from '../../../src/raftstore/store/load.ts';
import { changeRecords, offline, OfflineWorld, putState, readRecords, ROWS, stateOf } from './offline-store.ts';

// ------------------------------------------------------------------------------------------------ decisions

const peersOn = (...on: readonly (number | readonly [number, PeerRole])[]): Peer[] =>
  on.map((each) => {
    const [store, role] = typeof each === 'number' ? ([each, 'voter'] as const) : each;
    return { id: peerId(100 + store), storeId: storeId(store), role };
  });

const regionOf = (
  id: number,
  peers: readonly Peer[],
  range: readonly [string, string] = ['', ''],
  version = 3,
): Region => ({
  id: regionId(id),
  range: { start: utf8(range[0]), end: utf8(range[1]) },
  epoch: { confVer: 5, version },
  peers,
});

interface Shape {
  readonly term?: number;
  readonly last?: number;
  readonly applied?: number;
  readonly state?: 'normal' | 'merging' | 'applying';
  readonly target?: Region;
  readonly isFenced?: boolean;
  readonly hasGap?: boolean;
}

/** A replica with entries 11 to `last`, all of `term`. */
function replica(region: Region, onStore: number, shape: Shape = {}): RegionFacts {
  const { term = 7, last = 20, applied = last, state = 'normal', target, isFenced = false, hasGap = false } = shape;
  return {
    id: region.id,
    state,
    local: {
      state,
      region,
      mergeState: target === undefined ? undefined : { minIndex: 11, commit: 15, target },
    },
    raft: { peerId: 100 + onStore, term, vote: 0, commit: applied, lastIndex: last },
    apply: {
      appliedIndex: applied,
      appliedTerm: term,
      commitIndex: applied,
      commitTerm: term,
      truncatedIndex: 10,
      truncatedTerm: 6,
    },
    snapshotRaft: undefined,
    stagingId: undefined,
    fence: isFenced ? { peerId: 100 + onStore, index: 12, reason: 'divergent', wallMs: 1 } : undefined,
    log: {
      count: last - 10,
      bytes: 100,
      firstIndex: 11,
      lastIndex: last,
      lastTerm: term,
      gaps: hasGap ? [{ from: 14, to: 15 }] : [],
      termDrops: [],
    },
    redirects: 0,
    bad: [],
    approximateBytes: 0,
  };
}

const survivor = (id: number, regions: readonly RegionFacts[], tails: Survivor['tails'] = new Map()): Survivor => ({
  directory: `s${id}`,
  ident: { clusterId: 1n, storeId: id },
  regions,
  tails,
  recovered: new Set(),
});

const plan = (survivors: readonly Survivor[], lost: readonly number[], epochAhead = 0): RecoverPlan =>
  planRecovery(survivors, { lostStores: new Set(lost), epochAhead });

/** `store:action`, with the code of a refusal. */
const brief = ({ regions }: RecoverPlan): readonly string[] =>
  regions.map(
    ({ region, chosen, action }) =>
      `${region.id}@${chosen.ident.storeId}:${action.type === 'refused' ? action.code : action.type}`,
  );

describe('a region', () => {
  test('has lost its majority when half of the voters are gone, in either half of a joint configuration', () => {
    const lost = new Set([2, 3]);
    expect(lostMajority(regionOf(1, peersOn(1, 2, 3)), lost)).toBe(true);
    expect(lostMajority(regionOf(1, peersOn(1, 2)), lost)).toBe(true);
    expect(lostMajority(regionOf(1, peersOn(1, 2, 4)), lost)).toBe(false);
    // Learners do not count.
    expect(lostMajority(regionOf(1, peersOn(1, 4, 5, [2, 'learner'], [3, 'learner'])), lost)).toBe(false);
    expect(lostMajority(regionOf(1, peersOn([1, 'learner'], 2)), lost)).toBe(true);
    // From 1, 4, 5 to 1, 2, 3: the old half has its majority, the new one has not; and the reverse.
    const joint = (a: PeerRole, b: PeerRole): Region => regionOf(1, peersOn(1, [2, a], [3, a], [4, b], [5, b]));
    expect(lostMajority(joint('incoming-voter', 'demoting-voter'), lost)).toBe(true);
    expect(lostMajority(joint('demoting-voter', 'incoming-voter'), lost)).toBe(true);
    expect(lostMajority(joint('incoming-voter', 'demoting-voter'), new Set([2]))).toBe(false);
  });

  test('goes on with one voter outside any joint configuration, at a later epoch', () => {
    const region = regionOf(1, peersOn([1, 'demoting-voter'], [2, 'incoming-voter'], 3));
    const [self] = region.peers as [Peer];
    expect(soleVoterRegion(region, self, 0)).toMatchObject({
      peers: [{ id: 101, storeId: 1, role: 'voter' }],
      epoch: { confVer: 8, version: 3 },
    });
    expect(soleVoterRegion(region, self, 10).epoch).toEqual({ confVer: 18, version: 13 });
  });
});

describe('the plan', () => {
  const five = regionOf(1, peersOn(1, 2, 3, 4, 5));

  test('leaves regions with their majority alone', () => {
    const healthy = plan(
      [survivor(1, [replica(regionOf(1, peersOn(1, 2, 4)), 1), replica(regionOf(2, peersOn(1)), 1)])],
      [2],
    );
    expect([brief(healthy), healthy.healthy]).toEqual([[], 2]);
  });

  test('takes the replica with the latest term, then the longest log', () => {
    const at = (a: Shape, b: Shape): readonly string[] =>
      brief(plan([survivor(1, [replica(five, 1, a)]), survivor(4, [replica(five, 4, b)])], [2, 3, 5]));
    expect(at({ term: 7, last: 30 }, { term: 8, last: 20 })).toEqual(['1@4:recover']);
    expect(at({ term: 8, last: 21 }, { term: 8, last: 20 })).toEqual(['1@1:recover']);
    expect(at({ term: 8, last: 21, isFenced: true }, { term: 8, last: 20 })).toEqual(['1@4:recover']);
  });

  test('judges by what the best replica says of its members', () => {
    // Store 1 missed that the region moved to stores 4, 6 and 7.
    const moved = { ...regionOf(1, peersOn(4, 6, 7)), epoch: { confVer: 11, version: 3 } };
    const survivors = [
      survivor(1, [replica(regionOf(1, peersOn(1, 2, 3)), 1)]),
      survivor(4, [replica(moved, 4, { term: 9 })]),
    ];
    expect(brief(plan(survivors, [2, 3]))).toEqual([]);
  });

  test('refuses what it cannot know or must not touch', () => {
    const three = regionOf(1, peersOn(1, 2, 3));
    expect(brief(plan([survivor(1, [replica(five, 1)])], [2, 3, 5]))).toEqual(['1@1:DirectoryMissing']);
    expect(brief(plan([survivor(1, [replica(three, 1, { isFenced: true })])], [2, 3]))).toEqual(['1@1:Fenced']);
    expect(brief(plan([survivor(1, [replica(three, 1, { hasGap: true })])], [2, 3]))).toEqual(['1@1:Damaged']);
    const stale = regionOf(1, peersOn(1, 2, 3), ['', ''], 3);
    const newer = regionOf(9, peersOn(4, 2, 3), ['m', ''], 4);
    expect(brief(plan([survivor(1, [replica(stale, 1)]), survivor(4, [replica(newer, 4)])], [2, 3]))).toEqual([
      '1@1:Overtaken',
      '9@4:recover',
    ]);
  });

  test('lets a store start first that installs a snapshot or has a range change to apply', () => {
    const three = regionOf(1, peersOn(1, 2, 3));
    expect(brief(plan([survivor(1, [replica(three, 1, { state: 'applying' })])], [2, 3]))).toEqual(['1@1:start-first']);
    const tail = (...types: readonly AdminCommand['type'][]): readonly string[] =>
      brief(plan([survivor(1, [replica(three, 1, { applied: 15 })], new Map([[1, new Set(types)]]))], [2, 3]));
    expect(tail('batch-split')).toEqual(['1@1:start-first']);
    expect(tail('commit-merge')).toEqual(['1@1:start-first']);
    // Membership changes were proposed for members that are gone; the raised epoch refuses them.
    expect(tail('change-peer', 'compact-log', 'compute-hash')).toEqual(['1@1:recover']);
  });

  test('lets a merge source go on only when its target is recovered, too', () => {
    const target = regionOf(2, peersOn(1, 2, 3), ['m', '']);
    const source = regionOf(1, peersOn(1, 2, 3), ['', 'm'], 4);
    const merging = replica(source, 1, { state: 'merging', target });
    expect(brief(plan([survivor(1, [merging, replica(target, 1)])], [2, 3]))).toEqual(['1@1:recover', '2@1:recover']);
    expect(brief(plan([survivor(1, [merging])], [2, 3]))).toEqual(['1@1:MergePrepared']);
    // Members changed since the merge was prepared, the range did not: it can never be committed.
    const changed = { ...target, peers: peersOn(1, 4, 5), epoch: { confVer: 6, version: 3 } };
    expect(
      brief(plan([survivor(1, [merging, replica(changed, 1)]), survivor(4, []), survivor(5, [])], [2, 3])),
    ).toEqual(['1@1:recover']);
    const living = { ...target, peers: peersOn(1, 4, 5) };
    expect(brief(plan([survivor(1, [merging, replica(living, 1)])], [2, 3]))).toEqual(['1@1:MergePrepared']);
    const committing = new Map([[2, new Set(['commit-merge' as const])]]);
    expect(brief(plan([survivor(1, [merging, replica(target, 1, { applied: 15 })], committing)], [2, 3]))).toEqual([
      '1@1:start-first',
      '2@1:start-first',
    ]);
  });
});

// ------------------------------------------------------------------------------------------------ directories

let world: OfflineWorld;
const [LOST_A, LOST_B] = [801, 802];
const LOST = `${LOST_A},${LOST_B}`;

beforeAll(async () => {
  world = await OfflineWorld.make();
}, 30_000);

afterAll(() => {
  world.close();
});

/** The store's regions as if two more stores had replicas. */
const shared = (more?: (batch: WriteBatch, engine: Engine) => Promise<void> | void): Promise<string> =>
  world.changed(async (batch, engine) => {
    for (const id of world.regions) {
      const state = await stateOf(engine, id);
      const peers = [
        ...state.region.peers,
        { id: peerId(9000 + id), storeId: storeId(LOST_A), role: 'voter' as const },
        { id: peerId(9500 + id), storeId: storeId(LOST_B), role: 'voter' as const },
      ];
      putState(batch, { ...state, region: { ...state.region, peers } });
    }
    await more?.(batch, engine);
  });

const recover = (directory: string, ...flags: readonly string[]): ReturnType<typeof offline> =>
  offline(['unsafe-recover', directory, '--lost-stores', LOST, ...flags]);

const membersIn = (directory: string): Promise<readonly (readonly number[])[]> =>
  readRecords(directory, async (engine) => {
    const states = await Promise.all(world.regions.map((id) => stateOf(engine, id)));
    return states.map(({ region }) => region.peers.map((peer) => peer.storeId));
  });

/** Adds an entry behind the log of a region that nobody knows to be committed. */
async function appendEntry(batch: WriteBatch, engine: Engine, id: number, command: AdminCommand): Promise<void> {
  const key = raftStateKey(regionId(id));
  const raft = decodeRaftLocalState((await engine.get(key)) as Uint8Array);
  const { region } = await stateOf(engine, id);
  const index = raft.lastIndex + 1;
  const data = encodeRaftCommand({ type: 'admin', epoch: region.epoch, command });
  batch.put(
    raftLogKey(regionId(id), logIndex(index)),
    encodeEntry({ type: EntryType.Normal, term: raft.term, index, data }),
  );
  batch.put(key, encodeRaftLocalState({ ...raft, lastIndex: index }));
}

describe('braid offline unsafe-recover', () => {
  test('shows its plan in every mode and changes nothing', async () => {
    const directory = await shared();
    for (const mode of LIST_MODES) {
      const { code, stdout, stderr } = await recover(directory, '--dry-run', '-o', mode);
      expect([mode, code, stderr]).toEqual([mode, 0, 'dry run: nothing was changed\n']);
      expect(stdout).toMatch(/\S\n$/);
      if (mode === 'json' || mode === 'yaml') {
        expect(mode === 'json' ? JSON.parse(stdout) : parse(stdout)).toMatchObject({
          apiVersion: 'braid/v1',
          kind: 'UnsafeRecovery',
          dryRun: true,
          recovered: 2,
          refused: 0,
          regions: [{ action: 'recover', lostPeers: [{ storeId: LOST_A }, { storeId: LOST_B }] }, {}],
        });
      }
    }
    expect(await membersIn(directory)).toEqual([
      [world.storeId, LOST_A, LOST_B],
      [world.storeId, LOST_A, LOST_B],
    ]);
    expect(existsSync(join(directory, BACKUP_FILE))).toBe(false);
  }, 30_000);

  test('does nothing unless the loss is understood and the name of the store is typed', async () => {
    const directory = await shared();
    const unaware = await recover(directory, '--yes');
    expect([unaware.code, unaware.stderr]).toEqual([1, expect.stringContaining('--i-understand-data-loss')]);
    const unasked = await recover(directory, '--i-understand-data-loss');
    expect([unasked.code, unasked.stderr]).toEqual([1, expect.stringContaining('add --yes')]);
    expect(unasked.stderr).toMatch(/^REGION .+\n.+goes on alone.+\n.+goes on alone.+\nerror: .+\nwhy: .+\nnext: .+\n$/);
    const understood = ['unsafe-recover', directory, '--lost-stores', LOST, '--i-understand-data-loss'];
    const wrong = await offline(understood, { typed: 'store-77\n' });
    expect([wrong.code, wrong.stderr]).toEqual([3, expect.stringContaining('can never come back')]);
    expect(await membersIn(directory)).toContainEqual([world.storeId, LOST_A, LOST_B]);
    const right = await offline(understood, { typed: `store-${world.storeId}\n` });
    expect(right.code, right.stderr).toBe(0);
    expect(await membersIn(directory)).toEqual([[world.storeId], [world.storeId]]);
    const again = await recover(directory, '--i-understand-data-loss', '--yes');
    expect([again.code, again.stderr]).toEqual([0, expect.stringContaining('nothing was changed')]);
  });

  test('leaves a store that loads, at later epochs and terms, and a note of every record it replaced', async () => {
    const directory = await shared();
    const records = (): Promise<unknown> =>
      readRecords(directory, async (engine) => {
        const id = regionId(Math.min(...world.regions));
        const [raft, apply] = await engine.getMany([raftStateKey(id), applyStateKey(id)]);
        return {
          epoch: (await stateOf(engine, id)).region.epoch,
          raft: decodeRaftLocalState(raft as Uint8Array),
          apply: decodeApplyState(apply as Uint8Array),
        };
      });
    const before = (await records()) as { epoch: { confVer: number; version: number }; raft: { term: number } };
    expect((await recover(directory, '--i-understand-data-loss', '--yes', '--reason', 'flood')).code).toBe(0);
    expect(await records()).toEqual({
      ...before,
      epoch: { confVer: before.epoch.confVer + 2, version: before.epoch.version },
      raft: { ...before.raft, term: before.raft.term + TERMS_AHEAD, vote: 0 },
    });
    const loaded = await readRecords(directory, (engine) => loadRegions(engine, world.storeId));
    expect(loaded.peers.map(({ region }) => region.peers.length)).toEqual([1, 1]);
    const notes = readFileSync(join(directory, BACKUP_FILE), 'utf8').trim().split('\n');
    expect(notes.map((line) => JSON.parse(line) as unknown)).toMatchObject(
      world.regions.map((id) => ({
        regionId: id,
        action: 'recover',
        reason: 'flood',
        before: expect.stringContaining(`@${LOST_A}`) as string,
      })),
    );
    expect((await offline(['verify', directory])).code).toBe(0);
  });

  test('raises epochs further when told to', async () => {
    const directory = await shared();
    expect((await recover(directory, '--i-understand-data-loss', '--yes', '--epoch-ahead', '50')).code).toBe(0);
    const [left] = world.regions as [number];
    const [was, is] = await Promise.all(
      [world.store, directory].map((path) => readRecords(path, (engine) => stateOf(engine, left))),
    );
    expect(is?.region.epoch.version).toBe((was?.region.epoch.version ?? 0) + 50);
    // Regions that were recovered before are raised once more, others are not.
    expect((await recover(directory, '--i-understand-data-loss', '--yes', '--epoch-ahead', '7')).code).toBe(0);
    const again = await readRecords(directory, (engine) => stateOf(engine, left));
    expect(again.region.epoch).toEqual({
      confVer: (is?.region.epoch.confVer ?? 0) + 8,
      version: (is?.region.epoch.version ?? 0) + 7,
    });
    const untouched = await recover(await world.changed(), '--dry-run', '--epoch-ahead', '7', '-o', 'json');
    expect(JSON.parse(untouched.stdout)).toMatchObject({ recovered: 0, untouched: 2 });
  });

  test('declares a log with a range change committed and asks for a start', async () => {
    const id = Math.min(...world.regions);
    const directory = await shared((batch, engine) =>
      appendEntry(batch, engine, id, {
        type: 'batch-split',
        children: [{ splitKey: utf8('x'), newRegionId: 700, newPeerIds: [701, 702, 703] }],
      }),
    );
    const { code, stdout, stderr } = await recover(directory, '--i-understand-data-loss', '--yes', '-o', 'json');
    expect([code, JSON.parse(stdout)], stderr).toMatchObject([2, { recovered: 1, startFirst: 1 }]);
    expect(stderr).toContain('start it, give it some seconds');
    const { raft, apply } = await readRecords(directory, async (engine) => ({
      raft: decodeRaftLocalState((await engine.get(raftStateKey(regionId(id)))) as Uint8Array),
      apply: decodeApplyState((await engine.get(applyStateKey(regionId(id)))) as Uint8Array),
    }));
    expect([raft.commit, apply.commitIndex]).toEqual([raft.lastIndex, raft.lastIndex]);
    expect(apply.appliedIndex).toBe(raft.lastIndex - 1);

    // The store applies it without a majority, for it is committed now; what came of it is recovered, too.
    const states = (): Promise<number> =>
      readRecords(directory, async (engine) => (await loadRegions(engine, world.storeId)).peers.length);
    expect(await states()).toBe(2);
    await world.run(directory, (_, regions) =>
      vi.waitFor(async () => expect(await regions()).toContain('700:normal'), 10_000),
    );
    expect(await states()).toBe(3);
    const second = await recover(directory, '--i-understand-data-loss', '--yes', '-o', 'json');
    expect([second.code, JSON.parse(second.stdout)], second.stderr).toMatchObject([0, { recovered: 2, untouched: 1 }]);
    await world.run(directory, async (pd) => {
      await using db = await connect({ pd: [pd], timeoutMs: 10_000 });
      for (const [key, value] of ROWS) {
        expect(Buffer.from((await db.get(key)) ?? utf8('absent'))).toEqual(Buffer.from(value));
      }
      expect((await db.locate('y')).id).toBe(id);
      expect((await db.locate('m1')).id).toBe(700);
      await db.put('m2', 'written after all');
    });
  }, 30_000);

  test('ends a merge whose target went on alone, however far it had come', async () => {
    const source = Math.min(...world.regions);
    const target = Math.max(...world.regions);
    const directory = await shared();
    await changeRecords(directory, async (batch, engine) => {
      const { lastIndex } = decodeRaftLocalState((await engine.get(raftStateKey(regionId(source)))) as Uint8Array);
      const { region } = await stateOf(engine, target);
      await appendEntry(batch, engine, source, { type: 'prepare-merge', minIndex: lastIndex + 1, target: region });
    });
    const first = await recover(directory, '--i-understand-data-loss', '--yes', '-o', 'json');
    expect([first.code, JSON.parse(first.stdout)], first.stderr).toMatchObject([2, { recovered: 1, startFirst: 1 }]);
    await world.run(directory, (_, regions) =>
      vi.waitFor(async () => expect(await regions()).toContain(`${source}:merging`), 10_000),
    );
    const second = await recover(directory, '--i-understand-data-loss', '--yes', '-o', 'json');
    expect([second.code, JSON.parse(second.stdout)], second.stderr).toMatchObject([
      0,
      { recovered: 1, untouched: 1, regions: [{ id: source, state: 'merging' }] },
    ]);
    await world.run(directory, async (pd, regions) => {
      await vi.waitFor(async () => expect(await regions()).toContain(`${source}:normal`), 10_000);
      await using db = await connect({ pd: [pd], timeoutMs: 10_000 });
      for (const [key, value] of ROWS) {
        expect(Buffer.from((await db.get(key)) ?? utf8('absent'))).toEqual(Buffer.from(value));
        await db.put(key, 'written again');
      }
    });
    expect((await offline(['verify', directory])).code).toBe(0);
  }, 60_000);

  test('changes nothing when every region is refused', async () => {
    const directory = await shared(async (batch) => {
      for (const id of world.regions) {
        batch.put(fenceKey(regionId(id)), encodeFence({ peerId: 1, index: 5, reason: 'unclear', wallMs: 1 }));
      }
      await Promise.resolve();
    });
    const { code, stdout } = await recover(directory, '--i-understand-data-loss', '--yes');
    expect([code, stdout]).toEqual([3, expect.stringContaining('Fenced: its data')]);
    expect(await membersIn(directory)).toContainEqual([world.storeId, LOST_A, LOST_B]);
  });

  test('of two surviving stores takes the one that knows more and leaves the other', async () => {
    const OTHER = 803;
    const id = Math.min(...world.regions);
    // Both survive of five replicas; the other store has one entry more of one region.
    const five =
      (own: number) =>
      async (batch: WriteBatch, engine: Engine): Promise<void> => {
        for (const region of world.regions) {
          const state = await stateOf(engine, region);
          const ids = [world.storeId, OTHER, LOST_A, LOST_B, 804];
          const peers = ids.map((store, i) => ({
            id: peerId(9000 + i),
            storeId: storeId(store),
            role: 'voter' as const,
          }));
          putState(batch, { ...state, region: { ...state.region, peers } });
          const key = raftStateKey(regionId(region));
          const raft = decodeRaftLocalState((await engine.get(key)) as Uint8Array);
          batch.put(key, encodeRaftLocalState({ ...raft, peerId: 9000 + ids.indexOf(own) }));
        }
      };
    const first = await world.changed(five(world.storeId));
    const second = await world.changed(five(OTHER));
    await changeRecords(second, async (batch, engine) => {
      const { clusterId } = (await readStoreIdent(engine)) as { clusterId: bigint };
      batch.put(storeIdentKey(), encodeStoreIdent({ clusterId, storeId: OTHER }));
      writeFileSync(join(second, 'IDENT'), JSON.stringify({ format: 1, clusterId: String(clusterId), storeId: OTHER }));
      await appendEntry(batch, engine, id, { type: 'compute-hash' });
    });
    const flags = ['--lost-stores', `${LOST},804`, '--i-understand-data-loss'];
    const alone = await offline(['unsafe-recover', first, ...flags, '--yes', '-o', 'json']);
    expect([alone.code, JSON.parse(alone.stdout)]).toMatchObject([3, { regions: [{ code: 'DirectoryMissing' }, {}] }]);
    const both = await offline(['unsafe-recover', first, second, ...flags, '-o', 'json'], {
      typed: `store-${[world.storeId, OTHER].join(',store-')}\n`,
    });
    expect(both.code, both.stderr).toBe(0);
    const membersOf = async (directory: string): Promise<readonly number[]> =>
      (await readRecords(directory, (engine) => stateOf(engine, id))).region.peers.map((peer) => peer.storeId);
    expect([await membersOf(first), await membersOf(second)]).toEqual([
      [world.storeId, OTHER, LOST_A, LOST_B, 804],
      [OTHER],
    ]);
    // The region that both know equally well stays where the smaller store id is.
    const other = world.regions.find((region) => region !== id) as number;
    const states = await Promise.all(
      [first, second].map((path) => readRecords(path, (engine) => stateOf(engine, other))),
    );
    expect(states.map(({ region }) => region.peers.length)).toEqual([1, 5]);
  });

  test('refuses directories that do not go together', async () => {
    const directory = await shared();
    const twice = await offline(['unsafe-recover', directory, world.store, '--lost-stores', LOST, '--dry-run']);
    expect([twice.code, twice.stderr]).toEqual([1, expect.stringContaining('are both of store')]);
    const own = await offline(['unsafe-recover', directory, '--lost-stores', `${world.storeId}`, '--dry-run']);
    expect([own.code, own.stderr]).toEqual([1, expect.stringContaining('is not lost')]);
    const member = await offline(['unsafe-recover', world.placement, '--lost-stores', LOST, '--dry-run']);
    expect([member.code, member.stderr]).toEqual([1, expect.stringContaining('pd recover')]);
    for (const flags of [
      ['--lost-stores', 'two'],
      ['--lost-stores', '0'],
      [],
      ['--lost-stores', '2', '--epoch-ahead', '-1'],
    ]) {
      expect((await offline(['unsafe-recover', directory, '--dry-run', ...flags])).code).toBe(1);
    }
  });
});
