import { describe, expect, it } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { regionId } from '../../../src/base/ids.ts';
import type { WriteOp } from '../../../src/codec/command.ts';
import { EntryType, type Entry } from '../../../src/raft/types.ts';
import type { EntryOutcome } from '../../../src/raftstore/msg.ts';
import {
  Aborted,
  cas,
  del,
  delRange,
  put,
  sketchRegion,
  StoreHarness,
  writeEntry,
} from '../../support/store-harness.ts';

const EPOCH = { confVer: 1, version: 1 };
const region = sketchRegion({ id: 1, start: 'b', end: 'y' });
const write = (index: number, ...ops: readonly WriteOp[]): Entry => writeEntry(index, EPOCH, ops);
const noop = (index: number, term = 6): Entry => ({ type: EntryType.Normal, term, index, data: new Uint8Array(0) });

async function store(config: Parameters<typeof StoreHarness.open>[0] = {}): Promise<StoreHarness> {
  const s = await StoreHarness.open(config);
  await s.seed(region);
  s.start(1);
  return s;
}

const DONE = { type: 'done' };
const compared = (swapped: boolean, previous?: string): unknown => ({
  type: 'compared',
  swapped,
  previous: previous === undefined ? undefined : utf8(previous),
});
const resultsOf = (outcome: EntryOutcome | undefined): readonly unknown[] =>
  outcome?.type === 'write-applied' ? outcome.results : [outcome];

describe('applying writes', () => {
  it('answers plain writes when they are executed and reports when data and apply state are durable', async () => {
    const s = await store();
    const before = s.writes;
    const outcomes = s.apply(1, [write(6, put('c', '1')), write(7, put('d', '2'))], { index: 9, term: 6 });
    s.round();
    expect(outcomes).toEqual([
      { type: 'write-applied', results: [DONE] },
      { type: 'write-applied', results: [DONE] },
    ]);
    expect(s.results(1)).toEqual([]);
    expect(s.applyConflict(regionId(1), [utf8('c')])).toBe(7);
    expect(s.applyConflict(regionId(1), [utf8('x')])).toBe(0);
    expect(s.applyConflict(regionId(1), undefined)).toBe(7);
    await s.run();
    expect(s.writes).toBe(before + 1);
    expect(s.applyConflict(regionId(1), undefined)).toBe(0);
    const expected = {
      appliedIndex: 7,
      appliedTerm: 6,
      commitIndex: 9,
      commitTerm: 6,
      truncatedIndex: 5,
      truncatedTerm: 5,
    };
    expect(s.results(1)).toEqual([{ peerId: 11, applyState: expected, results: [], keysWritten: 2, bytesWritten: 6 }]);
    expect(s.applyStateOf(1)).toEqual(expected);
    expect([s.valueOf('c'), s.valueOf('d')]).toEqual(['1', '2']);
  });

  it('completes proposals before it reports to the peer FSM', async () => {
    const s = await store();
    let reportsAtCompletion: number | undefined;
    s.toApply(regionId(1), {
      type: 'apply',
      entries: [write(6, put('c', '1'))],
      commitIndex: 6,
      commitTerm: 6,
      proposals: [{ index: 6, term: 6, complete: () => (reportsAtCompletion = s.results(1).length) }],
    });
    await s.run();
    expect(reportsAtCompletion).toBe(0);
    expect(s.results(1)).toHaveLength(1);
  });

  it('executes what arrives while batches are in flight, and reports in order', async () => {
    const s = await store();
    s.apply(1, [write(6, put('c', '1'))]);
    s.round();
    s.apply(1, [write(7, put('c', '2'))]);
    s.round();
    s.apply(1, [write(8, put('c', '3'))]);
    await s.run();
    expect(s.results(1).map((r) => r.applyState.appliedIndex)).toEqual([6, 7, 8]);
    expect(s.valueOf('c')).toBe('3');
  });

  it('refuses a stale or a newer version without effect and still advances', async () => {
    const s = await store();
    const outcomes = s.apply(1, [
      writeEntry(6, { confVer: 1, version: 2 }, [put('c', 'newer')]),
      writeEntry(7, { confVer: 1, version: 0 }, [put('c', 'older')]),
      writeEntry(8, { confVer: 9, version: 1 }, [put('d', 'other conf')]),
    ]);
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['refused', 'refused', 'write-applied']);
    expect(outcomes[0]).toEqual({ type: 'refused', error: { type: 'epoch-not-match', currentRegions: [region] } });
    expect(s.applyStateOf(1)?.appliedIndex).toBe(8);
    expect(await s.keys()).toEqual(['d']);
  });

  it.each<[string, WriteOp]>([
    ['a put below the region', put('a', '1')],
    ['a put at the end of the region', put('y', '1')],
    ['a delete outside', del('z')],
    ['a compare outside', cas('a', undefined, '1')],
    ['an expiry outside', { type: 'expire', key: utf8('a'), expireAtSeconds: 5 }],
    ['a range that begins outside', delRange('a', 'd')],
    ['a range without an end', delRange('c', '')],
  ])('refuses the whole entry for %s', async (_name, op) => {
    const s = await store();
    const outcomes = s.apply(1, [write(6, put('c', '1'), op)]);
    await s.run();
    expect(outcomes[0]).toMatchObject({ type: 'refused', error: { type: 'key-not-in-region', regionId: 1 } });
    expect(await s.keys()).toEqual([]);
    expect(s.applyStateOf(1)?.appliedIndex).toBe(6);
  });

  it('deletes keys and takes entries without data for no-ops', async () => {
    const s = await store();
    const outcomes = s.apply(1, [write(6, put('c', '1'), put('d', '2')), noop(7), write(8, del('c'), del('x'))]);
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied', 'write-applied', 'write-applied']);
    expect(await s.keys()).toEqual(['d']);
    expect(s.applyStateOf(1)?.appliedIndex).toBe(8);
  });

  it('writes a batch early when it grows too large', async () => {
    const s = await store();
    const large = 'v'.repeat(2 * 1024 * 1024);
    s.apply(
      1,
      [6, 7, 8, 9, 10].map((i) => write(i, put(`k${i}`, large))),
    );
    await s.run();
    expect(s.results(1).map((r) => r.applyState.appliedIndex)).toEqual([7, 9, 10]);
  });
});

describe('compare and swap', () => {
  it('sees what earlier entries and operations of the same batch wrote', async () => {
    const s = await store();
    const outcomes = s.apply(1, [
      write(6, cas('c', undefined, '1'), cas('c', '1', '2'), cas('c', '1', '3')),
      write(7, cas('c', '2', '4'), del('c'), cas('c', undefined, '5')),
    ]);
    await s.run();
    expect(resultsOf(outcomes[0])).toEqual([compared(true), compared(true, '1'), compared(false, '2')]);
    expect(resultsOf(outcomes[1])).toEqual([compared(true, '2'), DONE, compared(true)]);
    expect(s.valueOf('c')).toBe('5');
  });

  it('compares with the engine and deletes on request', async () => {
    const s = await store();
    s.apply(1, [write(6, put('c', '1'), put('d', ''))]);
    await s.run();
    const outcomes = s.apply(1, [
      write(7, cas('c', undefined, 'x'), cas('c', '1', 'ignored', { deletes: true }), cas('d', '', '2')),
    ]);
    await s.run();
    expect(resultsOf(outcomes[0])).toEqual([compared(false, '1'), compared(true, '1'), compared(true, '')]);
    expect(s.valueOf('c')).toBeUndefined();
    expect(s.valueOf('d')).toBe('2');
  });

  it('takes a value that expired at the proposer’s time for absent', async () => {
    const s = await store();
    s.apply(1, [write(6, put('c', '1', 500), put('d', '1', 500), put('e', '1', 500))]);
    await s.run();
    const outcomes = s.apply(1, [
      write(
        7,
        cas('c', '1', '2', { nowSeconds: 499 }),
        cas('d', '1', '2', { nowSeconds: 500 }),
        cas('e', undefined, '3', { nowSeconds: 500, expireAtSeconds: 900 }),
      ),
    ]);
    await s.run();
    expect(resultsOf(outcomes[0])).toEqual([compared(true, '1'), compared(false), compared(true)]);
    expect([s.valueOf('c'), s.valueOf('d'), s.valueOf('e')]).toEqual(['2', '1', '3']);
  });

  it('comes to the same result when a crash makes it run again', async () => {
    const s = await store();
    s.apply(1, [write(6, put('c', '1'))]);
    await s.run();
    const entries = [write(7, cas('c', '1', '2')), write(8, cas('c', '1', '3'), cas('c', '2', '1'))];
    s.apply(1, entries);
    s.round();
    const after = await s.restart();
    expect(after.applyStateOf(1)?.appliedIndex).toBe(6);
    after.start(1);
    const outcomes = after.apply(1, entries);
    await after.run();
    expect(outcomes.map(resultsOf)).toEqual([[compared(true, '1')], [compared(false, '2'), compared(true, '2')]]);
    expect(after.valueOf('c')).toBe('1');
  });
});

describe('expire', () => {
  const expire = (key: string, expireAtSeconds: number): WriteOp => ({
    type: 'expire',
    key: utf8(key),
    expireAtSeconds,
  });

  it('removes a key only if it still has exactly this expiry', async () => {
    const s = await store();
    s.apply(1, [write(6, put('c', '1', 500), put('d', '1', 500), put('e', '1'), put('f', '1', 500))]);
    await s.run();
    s.apply(1, [
      write(7, put('d', '2', 600), expire('c', 500), expire('d', 500), expire('e', 0), expire('g', 500)),
      write(8, put('f', '2'), expire('f', 500)),
    ]);
    await s.run();
    expect(await s.keys()).toEqual(['d', 'e', 'f']);
    expect([s.valueOf('d'), s.valueOf('f')]).toEqual(['2', '2']);
  });
});

describe('delete-range', () => {
  const letters = ['c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'];
  async function filled(): Promise<StoreHarness> {
    const s = await store({ cleanBatchKeys: 2 });
    s.apply(1, [write(6, ...letters.map((key) => put(key, '1')))]);
    await s.run();
    return s;
  }

  it('removes pages in batches of their own and advances with the last one', async () => {
    const s = await filled();
    const outcomes = s.apply(1, [write(7, delRange('d', 'i')), write(8, put('e', 'new'))]);
    const before = s.writes;
    await s.run(() => s.writes === before + 2);
    expect(s.applyStateOf(1)?.appliedIndex).toBe(6);
    expect(outcomes).toEqual([]);
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied', 'write-applied']);
    expect(await s.keys()).toEqual(['c', 'e', 'i', 'j']);
    expect(s.valueOf('e')).toBe('new');
    expect(s.applyStateOf(1)?.appliedIndex).toBe(8);
    // Five keys deleted, one written.
    expect(s.results(1).at(-1)?.keysWritten).toBe(6);
  });

  it('keeps the order of operations inside one entry', async () => {
    const s = await filled();
    const outcomes = s.apply(1, [
      write(
        7,
        put('k', 'gone'),
        cas('d', '1', '2'),
        delRange('c', 'm'),
        cas('d', undefined, '3'),
        put('l', 'stays'),
        delRange('e', 'e'),
      ),
      write(8, cas('e', undefined, 'after')),
    ]);
    await s.run();
    expect(resultsOf(outcomes[0])).toEqual([DONE, compared(true, '1'), DONE, compared(true), DONE, DONE]);
    expect(resultsOf(outcomes[1])).toEqual([compared(true)]);
    expect(await s.keys()).toEqual(['d', 'e', 'l']);
    expect(s.valueOf('d')).toBe('3');
  });

  it('deletes several ranges and everything up to the end of an open region', async () => {
    const s = await StoreHarness.open({ cleanBatchKeys: 2 });
    await s.seed(sketchRegion({ id: 1 }));
    s.start(1);
    s.apply(1, [write(6, ...letters.map((key) => put(key, '1')))]);
    s.apply(1, [write(7, delRange('', 'e'), delRange('h', ''))]);
    await s.run();
    expect(await s.keys()).toEqual(['e', 'f', 'g']);
  });

  it('is finished by a second execution after a crash at any write', async () => {
    const entries = [write(7, put('k', '1'), delRange('d', 'i'), put('f', 'new')), write(8, cas('f', 'new', 'newer'))];
    let crashes = 0;
    for (let at = 1, hasCrashed = true; hasCrashed; at++) {
      const s = await filled();
      s.crashAtWrite = s.writes + at;
      s.apply(1, entries);
      await s.run();
      hasCrashed = s.isCrashed;
      crashes += hasCrashed ? 1 : 0;
      const after = await s.restart();
      const { appliedIndex } = after.applyStateOf(1) ?? { appliedIndex: 0 };
      after.start(1);
      const left = entries.filter((entry) => entry.index > appliedIndex);
      if (left.length > 0) {
        after.apply(1, left);
        await after.run();
      }
      expect(after.valueOf('f')).toBe('newer');
      expect(await after.keys()).toEqual(['c', 'f', 'i', 'j', 'k']);
    }
    // Two pages of keys, and the batch with the rest of them and both entries.
    expect(crashes).toBe(3);
  });
});

describe('proposals', () => {
  async function outcomesOf(
    entries: readonly Entry[],
    proposals: readonly (readonly [index: number, term: number])[],
    then?: (s: StoreHarness) => void,
  ): Promise<string[]> {
    const s = await store();
    const outcomes: string[] = [];
    const last = entries[entries.length - 1] as Entry;
    s.toApply(regionId(1), {
      type: 'apply',
      entries,
      commitIndex: last.index,
      commitTerm: last.term,
      proposals: proposals.map(([index, term], i) => ({ index, term, complete: ({ type }) => (outcomes[i] = type) })),
    });
    then?.(s);
    await s.run();
    return outcomes;
  }

  it('gets the outcome of the entry with its index and term', async () => {
    expect(await outcomesOf([write(6, put('c', '1'))], [[6, 6]])).toEqual(['write-applied']);
  });

  it('is overwritten by an entry of another term at its index', async () => {
    expect(await outcomesOf([noop(6, 7)], [[6, 6]])).toEqual(['overwritten']);
  });

  it('is overwritten by an entry of a later term before its index', async () => {
    expect(
      await outcomesOf(
        [noop(6, 7)],
        [
          [9, 6],
          [7, 7],
        ],
      ),
    ).toEqual(['overwritten']);
  });

  it('is answered when the FSM dies first', async () => {
    const outcomes = await outcomesOf(
      [noop(6)],
      [
        [6, 6],
        [9, 6],
      ],
      (s) => {
        s.toApply(regionId(1), { type: 'destroy', mergeFromSnapshot: false });
      },
    );
    expect(outcomes).toEqual(['write-applied', 'region-removed']);
  });
});

describe('stopping', () => {
  it('writes what was executed before it answers a destroy, and answers everything after it', async () => {
    const s = await store();
    const fsm = s.applies.get(1)?.fsm;
    const first = s.apply(1, [write(6, put('c', '1'))]);
    s.toApply(regionId(1), { type: 'destroy', mergeFromSnapshot: true });
    const second = s.apply(1, [write(7, put('c', '2'))]);
    s.toApply(regionId(1), { type: 'gen-snapshot', requestId: 4, toPeer: 12 });
    await s.run();
    expect(fsm?.isStopped).toBe(true);
    expect(first[0]?.type).toBe('write-applied');
    expect(second[0]?.type).toBe('region-removed');
    expect(s.valueOf('c')).toBe('1');
    expect(s.toPeers.map(({ msg }) => msg.type)).toEqual(['applied', 'snapshot-generated', 'apply-destroyed']);
    expect(s.messages(1, 'apply-destroyed')).toEqual([
      { type: 'apply-destroyed', peerId: 11, mergeFromSnapshot: true },
    ]);
    expect(s.apply(1, [write(7, put('c', '3'))])).toEqual([]);
    await s.run();
    expect(s.valueOf('c')).toBe('1');
  });

  it('stops the store over a hole in the log', async () => {
    const s = await store();
    s.apply(1, [noop(7)]);
    expect(() => s.round()).toThrow(Aborted);
    expect(s.aborted).toContain('entry 7');
  });

  it('stops the store over an entry it cannot read', async () => {
    const s = await store();
    s.apply(1, [{ type: EntryType.Normal, term: 6, index: 6, data: utf8('nonsense') }]);
    expect(() => s.round()).toThrow(Aborted);
  });

  it('keeps the commit position on disk until the log handed over again passes it', async () => {
    const s = await store();
    s.apply(1, [noop(6)], { index: 9, term: 6 });
    await s.run();
    const again = await s.restart();
    again.start(1);
    again.apply(1, [noop(7)]);
    await again.run();
    expect(again.applyStateOf(1)).toMatchObject({ appliedIndex: 7, commitIndex: 9, commitTerm: 6 });
    again.apply(1, [noop(8, 7), noop(9, 7), noop(10, 7)]);
    await again.run();
    expect(again.applyStateOf(1)).toMatchObject({ appliedIndex: 10, commitIndex: 10, commitTerm: 7 });
  });

  it('stops the store when the commit position goes back', async () => {
    const s = await store();
    s.apply(1, [noop(6)], { index: 9, term: 6 });
    s.apply(1, [noop(7)], { index: 8, term: 6 });
    expect(() => s.round()).toThrow('commit position goes back');
  });
});

describe('failpoints', () => {
  it('hold a write back until they are released', async () => {
    const s = await store();
    s.points.held.add('apply::before-write');
    const outcomes = s.apply(1, [noop(6), write(7, put('c', '1')), noop(8)]);
    await s.run(() => s.clock.monoMs() > 100);
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied']);
    expect(s.applyStateOf(1)?.appliedIndex).toBe(6);
    s.points.held.clear();
    await s.run();
    expect(outcomes.map((o) => o.type)).toEqual(['write-applied', 'write-applied', 'write-applied']);
  });
});
