import { describe, expect, it } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { regionId } from '../../../src/base/ids.ts';
import { encodeDataValue } from '../../../src/codec/data-value.ts';
import type { PeerMessage } from '../../../src/codec/peer-message.ts';
import { encodeRegionLocalState } from '../../../src/codec/raft-records.ts';
import {
  dataChunk,
  decodePairs,
  decodeSnapshotChunk,
  encodeSnapshotChunk,
  decodeSnapshotDescriptor,
  encodeSnapshotDescriptor,
  type SnapshotChunk,
} from '../../../src/codec/snapshot-record.ts';
import {
  dataKey,
  regionStateKey,
  snapshotInstallKey,
  stagedChunkKey,
  stagingRangeFrom,
} from '../../../src/engine/keyspace.ts';
import { CorruptionError } from '../../../src/env/engine.ts';
import type { Region } from '../../../src/meta/region.ts';
import { newMessage } from '../../../src/raft/message.ts';
import { MsgType } from '../../../src/raft/types.ts';
import type { SnapshotSource } from '../../../src/raftstore/context.ts';
import type { StagedSnapshot } from '../../../src/raftstore/msg.ts';
import { freezeRegion } from '../../../src/raftstore/snapshot/generate.ts';
import type { SnapshotReceiver } from '../../../src/raftstore/snapshot/receive.ts';
import { SnapshotSender } from '../../../src/raftstore/snapshot/send.ts';
import { PendingSnapshots } from '../../../src/raftstore/snapshot/snapshot-registry.ts';
import { FRESH, plain, sketchRegion, StoreHarness, voter } from '../../support/store-harness.ts';

const CHUNK_BYTES = 64;
const region = sketchRegion({ id: 1, start: 'b', end: 'y', epoch: { confVer: 2, version: 3 } });

async function fill(s: StoreHarness, pairs: Readonly<Record<string, string>>): Promise<void> {
  const batch = s.engine.createBatch();
  for (const [key, value] of Object.entries(pairs)) {
    batch.put(dataKey(utf8(key)), encodeDataValue(utf8(value), 0));
  }
  await s.wait(s.engine.write(batch));
}

interface OpenSource extends SnapshotSource {
  isClosed: boolean;
}

function sourceOf(s: StoreHarness, of: Region = region): OpenSource {
  const snapshot = s.engine.snapshot();
  const source: OpenSource = {
    region: of,
    index: 9,
    term: 6,
    snapshot,
    isClosed: false,
    close: () => {
      source.isClosed = true;
      snapshot.close();
    },
  };
  return source;
}

async function chunksOf(s: StoreHarness, source: SnapshotSource, chunkBytes = CHUNK_BYTES): Promise<SnapshotChunk[]> {
  const sender = new SnapshotSender({ engine: s.engine, source, chunkBytes });
  const chunks: SnapshotChunk[] = [];
  for (let chunk = await s.wait(sender.next()); chunk !== undefined; chunk = await s.wait(sender.next())) {
    // Over the wire and back.
    chunks.push(decodeSnapshotChunk(encodeSnapshotChunk(chunk)));
  }
  return chunks;
}

const envelope = (of: Region, to = of.peers[0]): PeerMessage => ({
  regionId: of.id,
  from: voter(12, 2),
  to: to ?? voter(11, 1),
  epoch: of.epoch,
  range: undefined,
  body: {
    type: 'raft',
    message: {
      ...newMessage(MsgType.Snap, 11, 12, 6),
      snapshot: {
        data: encodeSnapshotDescriptor({ snapshotId: 1, region: of }),
        metadata: {
          index: 9,
          term: 6,
          confState: { voters: [11, 12, 13], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
        },
      },
    },
  },
});

const KEYS = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`k${String(i).padStart(2, '0')}`, `value ${i}`]));
const NEIGHBOURS = { a: 'left', z: 'right' };

/** A sender's store with data, the receiver's store, and the chunks between them. */
async function transfer(
  chunkBytes = CHUNK_BYTES,
): Promise<{ readonly chunks: SnapshotChunk[]; readonly to: StoreHarness }> {
  const from = await StoreHarness.open();
  await fill(from, { ...KEYS, ...NEIGHBOURS });
  const chunks = await chunksOf(from, sourceOf(from), chunkBytes);
  const to = await StoreHarness.open({ cleanBatchKeys: 3 });
  await startWorkers(to);
  return { chunks, to };
}

describe('a region that is damaged on disk', () => {
  it('stops the store that is to send it, instead of failing for ever', async () => {
    const from = await StoreHarness.open();
    await fill(from, KEYS);
    const frozen = freezeRegion(from.ctx, region, {
      appliedIndex: 9,
      appliedTerm: 6,
      commitIndex: 9,
      commitTerm: 6,
      truncatedIndex: 5,
      truncatedTerm: 5,
    });
    expect(from.disk.database(from.disk.paths[0] as string)?.damageValue(dataKey(utf8('k07')))).toBe(true);
    const source = from.workers.snapshots.take(decodeSnapshotDescriptor(frozen.data).snapshotId) as SnapshotSource;
    // The view was taken before: what is read through it is the stored value all the same.
    const sender = new SnapshotSender({
      engine: from.engine,
      source: { ...source, snapshot: from.engine.snapshot() },
      chunkBytes: CHUNK_BYTES,
    });
    const read = async (): Promise<void> => {
      for (let chunk = await sender.next(); chunk !== undefined; chunk = await sender.next()) {
        expect(chunk.sequence).toBeLessThan(50);
      }
    };
    await expect(from.wait(read())).rejects.toBeInstanceOf(CorruptionError);
    expect(from.aborted).toContain('for a snapshot');
  });
});

const startWorkers = (s: StoreHarness): Promise<void> => s.wait(s.workers.start());

async function receive(
  s: StoreHarness,
  receiver: SnapshotReceiver,
  chunks: readonly SnapshotChunk[],
): Promise<StagedSnapshot | string> {
  for (const chunk of chunks) {
    const verdict = await s.wait(receiver.accept(chunk));
    if (verdict.type !== 'staged') {
      return verdict.type === 'complete' ? verdict.staged : verdict.reason;
    }
  }
  return 'more expected';
}

const stagedKeys = async (s: StoreHarness): Promise<number> =>
  (await s.wait(s.engine.scan({ range: stagingRangeFrom(0), limit: 1000, keysOnly: true }))).entries.length;

/** Long enough for background jobs, short of the regular sweep. */
const rest = (s: StoreHarness, ms = 10_000): Promise<void> => {
  const until = s.clock.monoMs() + ms;
  return s.run(() => s.clock.monoMs() > until);
};

describe('sending', () => {
  it('cuts the range into chunks of bounded size with an end that adds up', async () => {
    const s = await StoreHarness.open();
    await fill(s, { ...KEYS, ...NEIGHBOURS });
    const source = sourceOf(s);
    const chunks = await chunksOf(s, source);
    const end = chunks.at(-1);
    expect(chunks.map((chunk) => chunk.sequence)).toEqual(chunks.map((_, i) => i));
    expect(chunks.length).toBeGreaterThan(5);
    const pairs = chunks.flatMap((chunk) => (chunk.type === 'data' ? [decodePairs(chunk.payload)] : []));
    for (const part of pairs) {
      expect(part.reduce((sum, [k, v]) => sum + k.length + v.length, 0)).toBeLessThanOrEqual(CHUNK_BYTES);
    }
    expect(pairs.flat().map(([key]) => fromUtf8(key.subarray(1)))).toEqual(Object.keys(KEYS));
    const sizeBytes = pairs.flat().reduce((sum, [k, v]) => sum + k.length + v.length, 0);
    expect(end).toMatchObject({ type: 'end', keys: 20, sizeBytes });
    expect(source.isClosed).toBe(true);
  });

  it('sends a value larger than a chunk alone', async () => {
    const s = await StoreHarness.open();
    await fill(s, { c: 'small', d: 'x'.repeat(500), e: 'small' });
    const chunks = await chunksOf(s, sourceOf(s));
    expect(chunks.map((chunk) => (chunk.type === 'data' ? decodePairs(chunk.payload).length : 'end'))).toEqual([
      1,
      1,
      1,
      'end',
    ]);
  });

  it('sends an empty region as an end alone', async () => {
    const s = await StoreHarness.open();
    await fill(s, NEIGHBOURS);
    expect(await chunksOf(s, sourceOf(s))).toMatchObject([{ type: 'end', sequence: 0, keys: 0, sizeBytes: 0 }]);
  });

  it('sends the frozen state whatever is written meanwhile', async () => {
    const s = await StoreHarness.open();
    await fill(s, { c: 'old', d: 'old' });
    const source = sourceOf(s);
    await fill(s, { c: 'new', e: 'new' });
    const chunks = await chunksOf(s, source, 1000);
    const pairs = chunks.flatMap((chunk) => (chunk.type === 'data' ? decodePairs(chunk.payload) : []));
    expect(pairs.map(([key, value]) => [fromUtf8(key), fromUtf8(value.subarray(1))])).toEqual([
      ['zc', 'old'],
      ['zd', 'old'],
    ]);
  });

  it('closes the source when it is given up', async () => {
    const s = await StoreHarness.open();
    await fill(s, KEYS);
    const source = sourceOf(s);
    const sender = new SnapshotSender({ engine: s.engine, source, chunkBytes: CHUNK_BYTES });
    await s.wait(sender.next());
    sender.close();
    expect(source.isClosed).toBe(true);
    expect(await sender.next()).toBeUndefined();
  });

  it('closes the source when the consumer of the iterator stops', async () => {
    const s = await StoreHarness.open();
    await fill(s, KEYS);
    const source = sourceOf(s);
    const iterate = async (): Promise<number> => {
      let seen = 0;
      for await (const chunk of new SnapshotSender({ engine: s.engine, source, chunkBytes: CHUNK_BYTES })) {
        seen += chunk.type === 'data' ? 1 : 0;
        if (seen === 2) {
          break;
        }
      }
      return seen;
    };
    expect(await s.wait(iterate())).toBe(2);
    expect(source.isClosed).toBe(true);
  });
});

describe('receiving', () => {
  it('stages every chunk durably away from live data', async () => {
    const { chunks, to } = await transfer();
    const receiver = to.workers.receiveSnapshot(envelope(region));
    expect(to.workers.load.receiving).toBe(1);
    const staged = await receive(to, receiver, chunks);
    expect(plain(staged)).toMatchObject({ region: plain(region), keys: 20 });
    expect(to.workers.load.receiving).toBe(0);
    expect(await to.keys()).toEqual([]);
    expect(await stagedKeys(to)).toBe(chunks.length);
  });

  type Spoil = (chunks: SnapshotChunk[]) => readonly SnapshotChunk[];
  const payloadOf = (chunk: SnapshotChunk | undefined): Uint8Array =>
    chunk?.type === 'data' ? chunk.payload : new Uint8Array(0);
  const replace = (chunks: readonly SnapshotChunk[], at: number, chunk: SnapshotChunk): SnapshotChunk[] =>
    chunks.map((each, i) => (i === at ? chunk : each));
  const resequence = (chunks: readonly SnapshotChunk[]): SnapshotChunk[] =>
    chunks.map((chunk, sequence) => ({ ...chunk, sequence }));
  const pair = (key: string, value = 'v'): readonly [Uint8Array, Uint8Array] => [
    dataKey(utf8(key)),
    encodeDataValue(utf8(value), 0),
  ];

  it.each<[string, Spoil, string]>([
    [
      'a flipped byte',
      (chunks) => {
        const payload = new Uint8Array(payloadOf(chunks[2]));
        payload[9] = (payload[9] as number) ^ 0x40;
        return replace(chunks, 2, { ...(chunks[2] as Extract<SnapshotChunk, { type: 'data' }>), payload });
      },
      'chunk 2 is damaged',
    ],
    [
      'two chunks swapped',
      (c) => [c[0], c[2], c[1], ...c.slice(3)] as SnapshotChunk[],
      'chunk 2 came where 1 was expected',
    ],
    [
      'two chunks swapped and renumbered',
      (c) => resequence([c[0], c[2], c[1], ...c.slice(3)] as SnapshotChunk[]),
      'keys are out of order',
    ],
    ['a chunk twice', (c) => [c[0], c[0], ...c.slice(1)] as SnapshotChunk[], 'chunk 0 came where 1 was expected'],
    ['a chunk missing', (c) => c.filter((_, i) => i !== 3), 'chunk 4 came where 3 was expected'],
    [
      'a chunk missing and renumbered',
      (c) => resequence(c.filter((_, i) => i !== 3)),
      'the transfer does not add up to what was sent',
    ],
    [
      'the tail cut off',
      (c) => resequence([...c.slice(0, 4), c.at(-1) as SnapshotChunk]),
      'the transfer does not add up to what was sent',
    ],
    [
      'a chunk of another transfer',
      (c) => replace(c, 2, dataChunk(2, [pair('k03', 'other')])),
      'keys are out of order',
    ],
    ['a key outside the region', () => [dataChunk(0, [pair('a')])], 'a key lies outside the region'],
    ['a key behind the region', () => [dataChunk(0, [pair('c'), pair('y')])], 'a key lies outside the region'],
    [
      'a key of another room',
      () => [dataChunk(0, [[utf8('s'), encodeDataValue(utf8('v'), 0)]])],
      'a key lies outside the region',
    ],
    ['a value of no known form', () => [dataChunk(0, [[dataKey(utf8('c')), utf8('x')]])], 'a value has no known form'],
    ['an empty chunk', () => [dataChunk(0, [])], 'a chunk without keys'],
    ['the same key twice', () => [dataChunk(0, [pair('c'), pair('c')])], 'keys are out of order'],
    ['a huge chunk', () => [dataChunk(0, [pair('c', 'x'.repeat(9 * 1024 * 1024))])], 'chunk 0 has 9437197 bytes'],
    [
      'noise with a right digest',
      () => {
        const chunk = dataChunk(0, []);
        const payload = utf8('noise');
        return [{ ...chunk, payload, digest: new Uint8Array(0) }];
      },
      'chunk 0 is damaged',
    ],
  ])('refuses %s and removes what was staged', async (_name, spoil, reason) => {
    const { chunks, to } = await transfer();
    const receiver = to.workers.receiveSnapshot(envelope(region));
    expect(await receive(to, receiver, spoil(chunks))).toBe(reason);
    await rest(to);
    expect(await stagedKeys(to)).toBe(0);
    expect(to.workers.load.receiving).toBe(0);
    expect(await to.wait(receiver.accept(chunks[0] as SnapshotChunk))).toEqual({
      type: 'refused',
      reason: 'the transfer is over',
    });
    // The next attempt succeeds.
    const again = to.workers.receiveSnapshot(envelope(region));
    expect(await receive(to, again, chunks)).toMatchObject({ keys: 20 });
  });

  it('removes everything when it is given up, even while a chunk is being written', async () => {
    const { chunks, to } = await transfer();
    const receiver = to.workers.receiveSnapshot(envelope(region));
    await to.wait(receiver.accept(chunks[0] as SnapshotChunk));
    const writing = receiver.accept(chunks[1] as SnapshotChunk);
    receiver.abort();
    expect(await to.wait(writing)).toEqual({ type: 'refused', reason: 'the transfer was given up' });
    await rest(to);
    expect(await stagedKeys(to)).toBe(0);
  });

  it('takes a bounded number of transfers and one per region', async () => {
    const to = await StoreHarness.open({ snapshotReceivesMax: 2 });
    expect(() => to.workers.receiveSnapshot(envelope(region))).toThrow('not ready');
    await startWorkers(to);
    const first = to.workers.receiveSnapshot(envelope(region));
    expect(() => to.workers.receiveSnapshot(envelope(region))).toThrow('is being received');
    to.workers.receiveSnapshot(envelope({ ...region, id: regionId(2) }));
    expect(() => to.workers.receiveSnapshot(envelope({ ...region, id: regionId(3) }))).toThrow('too many');
    first.abort();
    to.workers.receiveSnapshot(envelope({ ...region, id: regionId(3) }));
  });

  it('refuses an envelope that does not belong to its descriptor', async () => {
    const to = await StoreHarness.open();
    await startWorkers(to);
    const good = envelope(region);
    expect(() => to.workers.receiveSnapshot({ ...good, regionId: regionId(5) })).toThrow('not for peer 11 of region 5');
    expect(() => to.workers.receiveSnapshot(envelope(region, voter(99, 1)))).toThrow('not for peer 99');
    expect(() => to.workers.receiveSnapshot({ ...good, body: { type: 'wake-up' } })).toThrow('no snapshot');
  });
});

describe('installing', () => {
  /** The batch with which the peer FSM accepts a staged snapshot. */
  async function accept(s: StoreHarness, staged: StagedSnapshot, withCrash = false): Promise<void> {
    const batch = s.engine.createBatch();
    batch.put(
      regionStateKey(staged.region.id),
      encodeRegionLocalState({ state: 'applying', region: staged.region, mergeState: undefined }),
    );
    s.workers.recordInstall(batch, staged.region, staged);
    await s.wait(s.engine.write(batch));
    if (!withCrash) {
      s.own(staged.region);
    }
  }

  async function staged(): Promise<{ readonly s: StoreHarness; readonly snapshot: StagedSnapshot }> {
    const { chunks, to } = await transfer();
    const old = Object.fromEntries(Array.from({ length: 7 }, (_, i) => [`old${i}`, 'stale']));
    await fill(to, { ...NEIGHBOURS, ...old, k05: 'stale' });
    const snapshot = await receive(to, to.workers.receiveSnapshot(envelope(region)), chunks);
    if (typeof snapshot === 'string') {
      throw new Error(snapshot);
    }
    return { s: to, snapshot };
  }

  /** Regions without which the neighbours' keys would be garbage to a starting store. */
  const ownNeighbours = (s: StoreHarness): void => {
    s.own(sketchRegion({ id: 8, end: 'b' }));
    s.own(sketchRegion({ id: 9, start: 'y' }));
  };

  const expectInstalled = async (s: StoreHarness): Promise<void> => {
    expect(plain(s.stateOf(1))).toEqual({ state: 'normal', region: plain(region), mergeState: undefined });
    expect(await s.keys()).toEqual(['a', ...Object.keys(KEYS), 'z']);
    expect(s.valueOf('k05')).toBe('value 5');
    expect(s.engine.getSync(snapshotInstallKey(regionId(1)))).toBeUndefined();
    expect(await stagedKeys(s)).toBe(0);
  };

  it('replaces the range by the staged data and becomes normal last', async () => {
    const { s, snapshot } = await staged();
    await accept(s, snapshot);
    s.workers.installSnapshot(region, 11, snapshot);
    await s.run(() => s.messages(1, 'snapshot-installed').length > 0);
    expect(s.messages(1, 'snapshot-installed')).toEqual([
      { type: 'snapshot-installed', peerId: 11, sizeBytes: snapshot.sizeBytes, keys: 20 },
    ]);
    await rest(s);
    await expectInstalled(s);
  });

  it('runs once however often it is asked for', async () => {
    const { s, snapshot } = await staged();
    await accept(s, snapshot);
    s.workers.installSnapshot(region, 11, snapshot);
    s.workers.installSnapshot(region, 11, snapshot);
    await rest(s);
    expect(s.messages(1, 'snapshot-installed')).toHaveLength(1);
  });

  it.each(['afterWrite', 'duringWrite'] as const)(
    'is taken up again after a crash %s at every batch',
    async (moment) => {
      let crashes = 0;
      for (let at = 1, hasCrashed = true; hasCrashed; at++) {
        const { s, snapshot } = await staged();
        await accept(s, snapshot);
        if (moment === 'afterWrite') {
          s.crashAtWrite = s.writes + at;
        } else {
          s.crashAtSubmission = s.submissions + at;
        }
        s.workers.installSnapshot(region, 11, snapshot);
        await rest(s);
        hasCrashed = s.isCrashed;
        crashes += hasCrashed ? 1 : 0;
        const again = await s.restart();
        again.own(region);
        ownNeighbours(again);
        if (again.stateOf(1)?.state === 'applying') {
          const left = again.workers.stagedFor(regionId(1));
          expect(plain(left)).toEqual(plain(snapshot));
          again.workers.installSnapshot(region, 11, left as StagedSnapshot);
        }
        await startWorkers(again);
        await rest(again);
        await expectInstalled(again);
      }
      // Wiping eight keys by threes, the chunks, the last batch, and the staging area by threes.
      expect(crashes).toBeGreaterThan(10);
    },
  );

  it('stops the store when a staged chunk is gone', async () => {
    const { s, snapshot } = await staged();
    await accept(s, snapshot);
    const batch = s.engine.createBatch();
    batch.del(stagedChunkKey(snapshot.stagingId, 2));
    await s.wait(s.engine.write(batch));
    s.workers.installSnapshot(region, 11, snapshot);
    await rest(s);
    expect(s.aborted).toContain('chunk 2');
    expect(s.stateOf(1)?.state).toBe('applying');
    expect(s.messages(1, 'snapshot-installed')).toEqual([]);
  });

  it('does nothing for a region that is not applying', async () => {
    const { s, snapshot } = await staged();
    await s.seed(region, { applyState: FRESH });
    s.workers.installSnapshot(region, 11, snapshot);
    await rest(s);
    expect(s.messages(1, 'snapshot-installed')).toEqual([]);
    expect(await s.keys()).toContain('old3');
    expect(await stagedKeys(s)).toBe(0);
  });

  it('waits for its failpoint', async () => {
    const { s, snapshot } = await staged();
    await accept(s, snapshot);
    s.points.held.add('snapshot::before-install');
    s.workers.installSnapshot(region, 11, snapshot);
    await rest(s, 1000);
    expect(await s.keys()).toContain('old3');
    s.points.held.clear();
    await rest(s);
    await expectInstalled(s);
  });

  it('removes at start what a broken transfer left, and nothing that is being installed', async () => {
    const { s, snapshot } = await staged();
    await accept(s, snapshot, true);
    const { chunks } = await transfer();
    const other = { ...region, id: regionId(2) };
    const broken = s.workers.receiveSnapshot(envelope(other));
    await s.wait(broken.accept(chunks[0] as SnapshotChunk));
    const complete = { ...region, id: regionId(3) };
    await receive(s, s.workers.receiveSnapshot(envelope(complete)), chunks);
    const again = await s.restart();
    again.own(region);
    await startWorkers(again);
    await rest(again, 1000);
    expect(await stagedKeys(again)).toBe(chunks.length);
    expect(again.workers.stagedFor(regionId(1))?.stagingId).toBe(snapshot.stagingId);
    // New transfers do not collide with what is still there.
    const next = again.workers.receiveSnapshot(envelope(other));
    expect(next.stagingId).toBeGreaterThan(snapshot.stagingId);
  });

  it('discards a staged snapshot nobody wants', async () => {
    const { s, snapshot } = await staged();
    s.workers.discardStaged(snapshot.stagingId);
    await rest(s);
    expect(await stagedKeys(s)).toBe(0);
    expect(s.workers.stagedFor(regionId(1))).toBeUndefined();
  });
});

describe('generated snapshots that wait to be sent', () => {
  const source = (closed: string[], name: string): SnapshotSource => ({
    region,
    index: 1,
    term: 1,
    snapshot: { close: () => {} },
    close: () => {
      closed.push(name);
    },
  });

  it('are taken once', () => {
    const closed: string[] = [];
    const pending = new PendingSnapshots({ sourcesMax: 2, sweepsMax: 2 });
    const id = pending.register(source(closed, 'a'));
    expect(pending.take(id)?.index).toBe(1);
    expect(pending.take(id)).toBeUndefined();
    expect(closed).toEqual([]);
  });

  it('give way to newer ones and to time', () => {
    const closed: string[] = [];
    const pending = new PendingSnapshots({ sourcesMax: 2, sweepsMax: 2 });
    for (const name of ['a', 'b', 'c']) {
      pending.register(source(closed, name));
    }
    expect(closed).toEqual(['a']);
    pending.sweep();
    pending.register(source(closed, 'd'));
    expect(closed).toEqual(['a', 'b']);
    pending.sweep();
    expect(closed).toEqual(['a', 'b', 'c']);
    expect(pending.size).toBe(1);
    pending.close();
    expect(closed).toEqual(['a', 'b', 'c', 'd']);
    pending.register(source(closed, 'e'));
    expect(closed.at(-1)).toBe('e');
  });

  it('are dropped by the snapshot that names them', () => {
    const closed: string[] = [];
    const pending = new PendingSnapshots({ sourcesMax: 2, sweepsMax: 2 });
    const snapshotId = pending.register(source(closed, 'a'));
    const metadata = {
      index: 1,
      term: 1,
      confState: { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false },
    };
    const snapshot = { data: encodeSnapshotDescriptor({ snapshotId, region }), metadata };
    pending.dropOf(snapshot);
    pending.dropOf(snapshot);
    expect(closed).toEqual(['a']);
  });

  it('are closed after some time by the workers', async () => {
    const s = await StoreHarness.open();
    await startWorkers(s);
    const closed: string[] = [];
    s.workers.snapshots.register(source(closed, 'a'));
    await rest(s, 60_000);
    expect(closed).toEqual([]);
    await rest(s, 120_000);
    expect(closed).toEqual(['a']);
    await s.wait(s.workers.stop());
  });
});
