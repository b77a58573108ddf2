/** Merges that nothing disturbs (raftstore-scenarios.md, 1a); the names carry the numbers there. */
import { describe, expect } from 'vitest';
import { compareBytes, utf8 } from '../../src/base/bytes.ts';
import { storeId } from '../../src/base/ids.ts';
import { compareEnds } from '../../src/base/key-range.ts';
import { KIB } from '../../src/base/units.ts';
import { findPeerOnStore, type Region } from '../../src/meta/region.ts';
import { MsgType } from '../../src/raft/types.ts';
import { adminEntries, scenario } from './support/scenario.ts';

const DIRECTIONS = ['left into right', 'right into left'] as const;

describe('merge: normal operation', () => {
  for (const direction of DIRECTIONS) {
    scenario(`M-01 ${direction}: one region, all data, exact epochs, tombstones`, {}, async (s) => {
      const { left, right } = await s.twoRegions(undefined);
      const [source, target] = direction === 'left into right' ? [left, right] : [right, left];
      const before = { source: s.epoch(source), target: s.epoch(target) };
      const merged = await s.c.mustMerge(source.id, target.id);
      expect(merged.epoch).toEqual({
        version: Math.max(before.source.version + 1, before.target.version) + 1,
        confVer: before.target.confVer,
      });
      await s.untilState(source, 'tombstone');
      for (const store of [1, 2, 3]) {
        const record = s.record(store, source);
        expect(record?.region.epoch).toEqual({
          version: before.source.version + 1,
          confVer: before.source.confVer + 1,
        });
        expect(record?.mergeState?.target.id).toBe(target.id);
        expect(record?.mergeState?.target.epoch).toEqual(before.target);
      }
      await s.put('b', '3');
      await s.put('y', '4');
    });
  }

  scenario('M-02 the first and the last region are no neighbours, and merging goes down to one', {}, async (s) => {
    await s.c.mustSplit('g');
    await s.c.mustSplit('p');
    await s.put('\u0000', 'low');
    await s.put('~~', 'high');
    const highest = Uint8Array.of(0xff, 0xff);
    await s.c.run(s.c.writeOnce([{ type: 'put', key: highest, value: utf8('top'), expireAtSeconds: 0 }], 'z'));
    const [first, middle, last] = ['a', 'h', 'z'].map((key) => s.c.regionOf(key) as Region) as [Region, Region, Region];
    expect(await s.attempt(first, { type: 'merge', target: last })).toBe('NotNeighbours');
    expect(await s.attempt(last, { type: 'merge', target: first })).toBe('NotNeighbours');
    await s.c.mustMerge(first.id, middle.id);
    await s.c.mustMerge(middle.id, last.id);
    const all = s.now(last);
    expect([all.range.start.length, all.range.end.length]).toEqual([0, 0]);
    expect(await s.attempt(all, { type: 'merge', target: all })).toBe('MergeWithItself');
    await s.put('m', 'between');
    await s.c.mustSplit('h');
  });

  scenario('M-03 a follower of the source finishes the merge beside the leader of the target', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.lead(right, 2);
    const foreign = s.capture((m) => m.body.type === 'want-rollback-merge');
    const proposals = s.capture((m) => m.body.type === 'raft' && m.body.message.type === MsgType.Prop);
    await s.c.mustMerge(left.id, right.id);
    await s.untilState(left, 'tombstone');
    // Nothing about the merge travels between stores but the two logs.
    expect(proposals).toEqual([]);
    expect(foreign).toEqual([]);
    expect(s.actors.posted(2, right.id, 'propose-commit-merge')).toBeGreaterThan(0);
  });

  scenario('M-04 many offers of CommitMerge have one effect', { config: { mergeCheckMs: 5 } }, async (s) => {
    const { left, right } = await s.twoRegions();
    // The target commits nothing for a while, and its leader changes in between.
    const heal = s.c.drop((m) => m.regionId === right.id && m.to.storeId !== 1 && m.from.storeId === 1);
    const before = s.epoch(right).version;
    await s.c.prepareMerge(left.id, right.id);
    await s.c.until('offers', () => s.actors.posted(1, right.id, 'propose-commit-merge') > 5);
    await s.c.until('another leader of the target', () => (s.c.leaderStore(right.id) ?? 1) !== 1);
    heal();
    await s.untilState(left, 'tombstone');
    const version = Math.max(before, left.epoch.version + 1) + 1;
    expect(s.epoch(right).version).toBe(version);
    await s.c.settle();
    expect(s.merges.commits).toBe(3);
    const offers = adminEntries(s, 1, right).filter(({ type }) => type === 'commit-merge');
    expect(offers.length).toBeGreaterThanOrEqual(1);
  });

  scenario('M-05 sizes are measured again, by whoever leads', { config: { splitCheckMs: 300 } }, async (s) => {
    const { left, right } = await s.twoRegions();
    for (let i = 0; i < 10; i++) {
      await s.put(`b${i}`, 'x');
    }
    await s.c.mustMerge(left.id, right.id);
    const keysKnown = () => s.c.heartbeats.get(right.id)?.approximateKeys;
    await s.c.until('the size of the whole', () => keysKnown() === 12);
    await s.c.settle();
    await s.lead(right, 2);
    await s.c.until(
      'the size as the new leader knows it',
      () => keysKnown() === 12 && s.status(2, right)?.approximateKeys === 12,
    );
  });

  scenario(
    'M-06 a key of the source is read from a new leader of the target, never with the old route',
    {},
    async (s) => {
      const { left, right } = await s.twoRegions();
      // Before the merge: the region of `a` knows nothing of `z`.
      expect(await s.answer(s.askRead(1, left, 'z'))).toBe('key-not-in-region');
      await s.c.mustMerge(right.id, left.id);
      await s.untilState(right, 'tombstone');
      await s.lead(left, 3);
      expect(await s.c.mustGet('z')).toBe('2');
      expect(await s.answer(s.askRead(3, left, 'z'))).toBe('epoch-not-match');
      expect(await s.answer(s.askRead(3, right, 'z'))).toBe('epoch-not-match');
    },
  );

  for (const [size, name] of [
    [56 * KIB, 'just under the budget'],
    [60 * KIB, 'just over the budget'],
  ] as const) {
    scenario(
      `M-07 and M-13 a follower lags by entries ${name} of one entry`,
      { config: { entrySizeMaxBytes: 64 * KIB, logGcSizeLimitBytes: 2 ** 30 } },
      async (s) => {
        const { left, right } = await s.twoRegions();
        await s.caughtUp(left, [1, 2, 3]);
        const heal = s.starve(left, 3, {});
        await s.put('b', 'x'.repeat(size / 2));
        await s.put('c', 'y'.repeat(size / 2));
        const outcome = await s.attempt(left, { type: 'merge', target: s.now(right) });
        if (name === 'just over the budget') {
          expect(outcome).toBe('EntriesTooLarge');
          await s.put('d', 'still writable');
          heal();
          await s.caughtUp(left, [1, 2, 3]);
          await s.c.mustMerge(left.id, right.id);
          return;
        }
        expect(outcome).toBe('ok');
        await s.untilGone(left);
        expect((await s.c.valueOn(3, 'c'))?.length).toBe(size / 2);
      },
    );
  }

  scenario('M-08 splits and merges at speed lose nothing, and versions grow', { seedsMax: 4 }, async (s) => {
    const traffic = s.traffic(['c', 'm', 't']);
    let version = 0;
    const borders = ['c', 'm', 'm\u0000', 't', 'h'];
    const rounds = s.seed === 1 ? 100 : 25;
    for (let round = 0; round < rounds; round++) {
      const border = s.rng.pick(borders);
      const [left, right] = await s.c.mustSplit(border);
      const [source, target] = s.rng.chance(0.5) ? [left, right] : [right, left];
      const merged = await s.c.mustMerge(source.id, target.id);
      expect(merged.epoch.version).toBeGreaterThan(version);
      ({ version } = merged.epoch);
    }
    expect(traffic.writes).toBeGreaterThan(rounds);
    expect(traffic.replicaReads).toBeGreaterThan(10);
  });

  scenario('M-09 who watches heartbeats sees no gap and never the source again', {}, async (s) => {
    const { left, right } = await s.twoRegions();
    await s.c.mustMerge(left.id, right.id);
    await s.untilState(left, 'tombstone');
    await s.c.until('the placement service knows the target', () => {
      const known = s.c.heartbeats.get(right.id)?.region;
      return known !== undefined && known.range.start.length === 0;
    });
    const known = s.c.heartbeats.get(right.id)?.region as Region;
    const source = s.c.heartbeats.get(left.id)?.region as Region;
    // Overlapping reports are told apart by their version.
    expect(known.epoch.version).toBeGreaterThan(source.epoch.version);
    await s.c.advance(2_000);
    expect(s.c.heartbeats.get(left.id)?.region).toBe(source);
  });

  scenario('five replicas and a learner merge like three', { stores: 6, firstPeers: FIVE_AND_LEARNER() }, async (s) => {
    const { left, right } = await s.twoRegions();
    s.traffic(['b', 'y']);
    s.c.crash(5);
    await s.c.mustMerge(left.id, right.id);
    await s.put('c', '3');
    await s.c.restart(5);
    await s.untilState(left, 'tombstone', [1, 2, 3, 4, 5, 6]);
  });

  for (const direction of DIRECTIONS) {
    scenario(`regions without data merge ${direction}, over and over`, {}, async (s) => {
      let parts = await s.c.mustSplit('k');
      for (let round = 0; round < 3; round++) {
        const [source, target] = direction === 'left into right' ? parts : [parts[1], parts[0]];
        await s.c.mustMerge(source.id, target.id);
        await s.c.mustSplit('p');
        await s.c.mustMerge((s.c.regionOf('a') as Region).id, (s.c.regionOf('z') as Region).id);
        parts = await s.c.mustSplit('k');
      }
      await s.put('a', '1');
    });
  }

  scenario('the target may end where the source begins, and begin where it ends', {}, async (s) => {
    const { left } = await s.twoRegions();
    await s.c.mustSplit('p');
    const [first, middle, last] = ['a', 'l', 'z'].map((key) => s.c.regionOf(key) as Region) as [Region, Region, Region];
    expect(first.id).toBe(left.id);
    await s.put('l', '3');
    await s.c.mustMerge(last.id, middle.id);
    await s.c.mustMerge(first.id, middle.id);
    const whole = s.now(middle);
    expect(compareBytes(whole.range.start, utf8(''))).toBe(0);
    expect(compareEnds(whole.range.end, utf8(''))).toBe(0);
    expect(whole.peers.map((p) => p.id)).toEqual(middle.peers.map((p) => p.id));
    expect(findPeerOnStore(whole, storeId(1))).toBeDefined();
  });
});

function FIVE_AND_LEARNER(): readonly (readonly [number, 'voter' | 'learner'])[] {
  return [
    [1, 'voter'],
    [2, 'voter'],
    [3, 'voter'],
    [4, 'voter'],
    [5, 'voter'],
    [6, 'learner'],
  ];
}
