import { beforeEach, describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { peerId, regionId, storeId } from '../../../src/base/ids.ts';
import { createMemoryEngineFactory, MemoryDisk } from '../../../src/engine/index.ts';
import type { Region } from '../../../src/meta/region.ts';
import { sketchRegion } from '../../support/store-harness.ts';
import {
  clampSpan,
  putRedirect,
  putRemoval,
  Redirects,
  type RequestSpan,
} from '../../../src/raftstore/store/redirects.ts';
import { redirectRange } from '../../../src/engine/keyspace.ts';
import type { WriteBatch } from '../../../src/env/engine.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { createRng } from '../../../src/env/rng.ts';

const R = (id: number, start: string, end: string, version = 1): Region =>
  sketchRegion({ id, start, end, epoch: { confVer: 1, version } });

describe('what a store remembers of regions', () => {
  let redirects: Redirects;
  beforeEach(() => {
    redirects = new Redirects();
  });

  test('is the range of every version, and where the keys went', () => {
    redirects.changed(R(1, 'a', 'm', 3), regionId(2), 0);
    redirects.changed(R(1, 'a', 'k', 5), regionId(1), 0);
    expect(redirects.rangeOf(regionId(1), 3)).toMatchObject({ newRegionId: 2, range: { end: utf8('m') } });
    expect(redirects.rangeOf(regionId(1), 5)).toMatchObject({ newRegionId: 1, range: { end: utf8('k') } });
    expect(redirects.rangeOf(regionId(1), 4)).toBeUndefined();
    expect(redirects.rangeOf(regionId(2), 3)).toBeUndefined();
    expect(redirects.ids()).toEqual([1]);
  });

  test('ends by age, counted from the latest change', () => {
    redirects.changed(R(1, 'a', 'm', 3), regionId(2), 1_000);
    redirects.removed(R(4, 'x', 'z'), undefined, 5_000);
    expect(redirects.olderThan(4_000, 5_000)).toEqual([1]);
    redirects.changed(R(1, 'a', 'k', 5), regionId(1), 6_000);
    expect(redirects.olderThan(4_000, 8_000)).toEqual([]);
    expect(redirects.isFresh(regionId(1), 100, 7_000)).toBe(true);
    expect(redirects.isFresh(regionId(1), 100, 7_001)).toBe(false);
  });

  test('comes back from disk, and is gone from there when it is retired', async () => {
    const clock = new ManualClock();
    const disk = new MemoryDisk(createRng(1));
    const engine = await clock.settle(
      createMemoryEngineFactory(disk, clock).open({ path: 'db', createIfMissing: true }),
    );
    const batch = engine.createBatch();
    const leader = { id: peerId(13), storeId: storeId(3), role: 'voter' as const };
    putRedirect(batch, R(1, 'a', 'm', 3), regionId(2));
    putRemoval(batch, R(1, 'a', 'k', 7), leader);
    putRedirect(batch, R(9, '', '', 1), regionId(9));
    await clock.settle(engine.write(batch));
    await clock.settle(redirects.load(engine, { monoMs: 0, wallMs: 0 }));
    expect(redirects.rangeOf(regionId(1), 3)?.newRegionId).toBe(2);
    expect(redirects.removalOf(regionId(1))).toMatchObject({ leader, region: { epoch: { version: 7 } } });
    const gone = engine.createBatch();
    redirects.retire([regionId(1), regionId(77)], gone);
    await clock.settle(engine.write(gone));
    expect(redirects.ids()).toEqual([9]);
    const again = new Redirects();
    await clock.settle(again.load(engine, { monoMs: 0, wallMs: 0 }));
    expect(again.ids()).toEqual([9]);
    await clock.settle(engine.close());
  });
});

describe('the age of what is remembered', () => {
  const NOW = 1_700_000_000_000;

  async function store(): Promise<{
    readonly write: (fill: (batch: WriteBatch) => void) => Promise<void>;
    readonly load: (monoMs: number, wallMs: number) => Promise<Redirects>;
    readonly keys: () => Promise<number>;
  }> {
    const clock = new ManualClock();
    const engine = await clock.settle(
      createMemoryEngineFactory(new MemoryDisk(createRng(1)), clock).open({ path: 'db', createIfMissing: true }),
    );
    return {
      write: (fill) => {
        const batch = engine.createBatch();
        fill(batch);
        return clock.settle(engine.write(batch));
      },
      load: async (monoMs, wallMs) => {
        const redirects = new Redirects();
        await clock.settle(redirects.load(engine, { monoMs, wallMs }));
        return redirects;
      },
      keys: async () =>
        (await clock.settle(engine.scan({ range: redirectRange(), limit: 100_000, keysOnly: true }))).entries.length,
    };
  }

  test('goes on over a restart, by the wall clock', async () => {
    const { write, load } = await store();
    const first = new Redirects();
    first.changed(R(1, 'a', 'm', 3), regionId(2), 1_000);
    await write((batch) => {
      putRedirect(batch, R(1, 'a', 'm', 3), regionId(2));
      first.maintain(batch, { monoMs: 1_500, wallMs: NOW + 500 });
    });
    // Noticed at NOW; the monotonic clock of the next life begins somewhere else.
    const second = await load(70, NOW + 4_000);
    expect(second.olderThan(4_000, 70)).toEqual([1]);
    expect(second.olderThan(4_001, 70)).toEqual([]);
    expect(second.isFresh(regionId(1), 400, 70)).toBe(true);
    expect(second.isFresh(regionId(1), 400, 71)).toBe(false);
    // And over the next one, though nothing had to be written again.
    await write((batch) => {
      second.maintain(batch, { monoMs: 80, wallMs: NOW + 4_010 });
      expect(batch.count).toBe(0);
    });
    expect((await load(0, NOW + 9_000)).olderThan(9_000, 0)).toEqual([1]);
  });

  test('begins anew when a crash came before the note, when the wall clock was set back, and with a later change', async () => {
    const { write, load } = await store();
    await write((batch) => putRedirect(batch, R(1, 'a', 'm', 3), regionId(2)));
    const undated = await load(50, NOW);
    expect(undated.olderThan(1, 50)).toEqual([]);
    await write((batch) => undated.maintain(batch, { monoMs: 60, wallMs: NOW + 10 }));
    const back = await load(0, NOW - 60_000);
    expect([back.olderThan(1, 0), back.olderThan(0, 0)]).toEqual([[], [1]]);
    back.changed(R(1, 'a', 'k', 5), regionId(1), 30_000);
    await write((batch) => {
      putRedirect(batch, R(1, 'a', 'k', 5), regionId(1));
      back.maintain(batch, { monoMs: 30_000, wallMs: NOW - 30_000 });
    });
    expect((await load(0, NOW - 20_000)).olderThan(10_001, 0)).toEqual([]);
  });

  test('does not keep on disk what was forgotten to make room, and a retired region leaves nothing', async () => {
    const { write, load, keys } = await store();
    const redirects = new Redirects();
    const VERSIONS = 70;
    await write((batch) => {
      for (let version = 1; version <= VERSIONS; version++) {
        putRedirect(batch, R(1, 'a', 'm', version), regionId(1));
        redirects.changed(R(1, 'a', 'm', version), regionId(1), 0);
      }
    });
    expect(await keys()).toBe(VERSIONS);
    await write((batch) => redirects.maintain(batch, { monoMs: 0, wallMs: NOW }));
    // 64 versions are remembered, and when the last one was noticed.
    expect(await keys()).toBe(65);
    expect(redirects.rangeOf(regionId(1), 6)).toBeUndefined();
    expect(redirects.rangeOf(regionId(1), 7)).toBeDefined();
    const again = await load(0, NOW);
    await write((batch) => again.retire([regionId(1)], batch));
    expect(await keys()).toBe(0);

    const REGIONS = 10_001;
    const many = new Redirects();
    await write((batch) => {
      for (let id = 1; id <= REGIONS; id++) {
        putRedirect(batch, R(id, 'a', 'm', 1), regionId(id));
        many.changed(R(id, 'a', 'm', 1), regionId(id), 0);
      }
    });
    await write((batch) => many.maintain(batch, { monoMs: 0, wallMs: NOW }));
    expect([many.ids().length, many.ids()[0], await keys()]).toEqual([10_000, 2, 20_000]);
  });
});

describe('what a client means with a request', () => {
  const old = { start: utf8('d'), end: utf8('m') };
  const scan = (start: string, end: string, from: 'start' | 'end' = 'start'): RequestSpan => ({
    type: 'scans',
    from,
    ranges: [{ start: utf8(start), end: utf8(end) }],
  });

  test.each([
    ['a scan that ends in the region', scan('e', 'f'), { start: 'e', end: 'f' }],
    ['a scan beyond the region ends with it', scan('e', 'z'), { start: 'e', end: 'm' }],
    ['a scan without end', scan('e', ''), { start: 'e', end: 'm' }],
    ['a scan from outside is for another region', scan('a', 'f'), undefined],
    ['a reverse scan begins with it', scan('a', 'm', 'end'), { start: 'd', end: 'm' }],
    ['a reverse scan from outside is for another region', scan('a', 'z', 'end'), undefined],
  ] as const)('%s', (_what, span, wanted) => {
    const got = clampSpan(span, old);
    expect(got?.type === 'scans' ? got.ranges : undefined).toEqual(
      wanted === undefined ? undefined : [{ start: utf8(wanted.start), end: utf8(wanted.end) }],
    );
  });

  test('keys and ranges to delete lie in it as a whole, or the request is for another region', () => {
    expect(clampSpan({ type: 'keys', keys: [utf8('d'), utf8('e')] }, old)).toBeDefined();
    expect(clampSpan({ type: 'keys', keys: [utf8('d'), utf8('m')] }, old)).toBeUndefined();
    expect(clampSpan({ type: 'ranges', ranges: [{ start: utf8('d'), end: utf8('m') }] }, old)).toBeDefined();
    expect(clampSpan({ type: 'ranges', ranges: [{ start: utf8('d'), end: utf8('n') }] }, old)).toBeUndefined();
  });
});
