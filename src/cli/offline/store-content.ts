/**
 * What the records of a store say, region by region. Reads with the decoders of the store itself and never gives up at
 * a record that cannot be understood: the rest is what a person who asks has left. Judging is the business of `verify`.
 */
import { equalBytes } from '../../base/bytes.ts';
import { logIndex, type RegionId, regionId } from '../../base/ids.ts';
import type { KeyRange } from '../../base/key-range.ts';
import {
  decodeApplyState,
  decodeCleanTask,
  decodeEntry,
  decodeFence,
  decodeRaftLocalState,
  decodeRedirect,
  decodeRegionLocalState,
  decodeStarts,
} from '../../codec/raft-records.ts';
import { RecordError } from '../../codec/record.ts';
import { decodeInstallRecord, decodeStagingRecord, type StagingRecord } from '../../codec/snapshot-record.ts';
import type { ApplyState, Fence, RaftLocalState, RegionLocalState } from '../../codec/store-record.ts';
import {
  applyStateKey,
  dataRange,
  fenceKey,
  logIndexOfKey,
  pendingCleanRange,
  raftLogKey,
  raftStateKey,
  redirectKey,
  redirectRange,
  regionIdOfLocalKey,
  regionIdOfRedirectKey,
  regionIdOfStateKey,
  regionLocalRange,
  regionStateKey,
  regionStateRange,
  snapshotInstallKey,
  snapshotRaftStateKey,
  stagingIdOfKey,
  stagingRangeFrom,
  stagingRecordKey,
  storeStartsKey,
  wholeRaftLogRange,
} from '../../engine/keyspace.ts';
import { CorruptionError, type Engine } from '../../env/engine.ts';
import type { Entry } from '../../raft/types.ts';
import { reasonOf, walkRecords } from './record-walk.ts';

/** A record that is damaged, or whose bytes mean nothing to this program. */
export interface BadRecord {
  /** What it should be, for people. */
  readonly what: string;
  readonly reason: string;
}

export interface LogFacts {
  /** Entries on disk, also compacted ones that are not deleted yet. */
  readonly count: number;
  /** Keys and values. */
  readonly bytes: number;
  /** 0 without entries. */
  readonly firstIndex: number;
  readonly lastIndex: number;
  readonly lastTerm: number;
  /** Ranges of indexes that are missing between entries, both ends included; the first ones. */
  readonly gaps: readonly { readonly from: number; readonly to: number }[];
  /** Indexes at which the term goes down; the first ones. */
  readonly termDrops: readonly number[];
}

/** State of a replica on this store; `uninitialized` has voted and waits for its first snapshot. */
export type ReplicaState = RegionLocalState['state'] | 'uninitialized' | 'unreadable';

export interface RegionFacts {
  readonly id: RegionId;
  readonly state: ReplicaState;
  /** Undefined when it cannot be read, and for a replica that waits for its first snapshot. */
  readonly local: RegionLocalState | undefined;
  readonly raft: RaftLocalState | undefined;
  readonly apply: ApplyState | undefined;
  readonly snapshotRaft: RaftLocalState | undefined;
  /** The staged snapshot that a region in state `applying` is being installed from. */
  readonly stagingId: number | undefined;
  readonly fence: Fence | undefined;
  readonly log: LogFacts;
  readonly redirects: number;
  readonly bad: readonly BadRecord[];
  /** Estimate of the data on disk; 0 for replicas without data. */
  readonly approximateBytes: number;
}

export interface StagedFacts {
  readonly stagingId: number;
  /** Undefined until the transfer is complete. */
  readonly record: StagingRecord | undefined;
  readonly rows: number;
  readonly bytes: number;
}

export interface StoreFacts {
  readonly starts: number;
  readonly regions: readonly RegionFacts[];
  readonly staged: readonly StagedFacts[];
  /** Ranges of user keys that are still to be deleted. */
  readonly cleaning: readonly KeyRange[];
  readonly redirects: number;
  /** Records that belong to no region. */
  readonly bad: readonly BadRecord[];
}

/** The largest log index there can be. */
export const INDEX_MAX: number = Number.MAX_SAFE_INTEGER;
/** So many of a kind are kept, of as many as there are. */
const EXAMPLES_MAX = 16;

/** Runs `read`; a record that cannot be read becomes an entry of `bad`. @throws anything but damage */
async function attempt<T>(bad: BadRecord[], what: string, read: () => Promise<T> | T): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    pushBad(bad, what, error instanceof RecordError ? error.message : reasonOf(error));
    return undefined;
  }
}

const hasData = (state: ReplicaState): boolean => state === 'normal' || state === 'applying' || state === 'merging';

/** Whether the region owns its range on this store. */
export const isLive = (facts: RegionFacts): facts is RegionFacts & { readonly local: RegionLocalState } =>
  hasData(facts.state) && facts.local !== undefined;

/** Index up to which the log is known to be committed. */
export const commitOf = ({ raft, apply }: RegionFacts): number => Math.max(raft?.commit ?? 0, apply?.commitIndex ?? 0);

/** The last log position of the replica, which elections compare. */
export function lastPosition({ log, apply }: RegionFacts): { readonly term: number; readonly index: number } {
  return log.lastIndex > (apply?.truncatedIndex ?? 0)
    ? { term: log.lastTerm, index: log.lastIndex }
    : { term: apply?.truncatedTerm ?? 0, index: apply?.truncatedIndex ?? 0 };
}

async function logFacts(engine: Engine, id: RegionId, bad: BadRecord[]): Promise<LogFacts> {
  let count = 0;
  let bytes = 0;
  let firstIndex = 0;
  let lastIndex = 0;
  let lastTerm = 0;
  const gaps: { from: number; to: number }[] = [];
  const termDrops: number[] = [];
  for await (const page of walkRecords(engine, wholeRaftLogRange(id))) {
    for (const record of page) {
      const index = logIndexOfKey(record.key);
      if (count > 0 && index !== lastIndex + 1 && gaps.length < EXAMPLES_MAX) {
        gaps.push({ from: lastIndex + 1, to: index - 1 });
      }
      firstIndex = count === 0 ? index : firstIndex;
      lastIndex = index;
      count++;
      bytes += record.key.length;
      const what = `log entry ${index} of region ${id}`;
      if (record.type !== 'record') {
        pushBad(bad, what, record.reason);
        continue;
      }
      bytes += record.value.length;
      const entry = tryEntry(record.value, index, what, bad);
      if (entry !== undefined) {
        if (entry.term < lastTerm && termDrops.length < EXAMPLES_MAX) {
          termDrops.push(index);
        }
        lastTerm = entry.term;
      }
    }
  }
  return { count, bytes, firstIndex, lastIndex, lastTerm, gaps, termDrops };
}

function pushBad(bad: BadRecord[], what: string, reason: string): void {
  if (bad.length < EXAMPLES_MAX) {
    bad.push({ what, reason });
  }
}

function tryEntry(value: Uint8Array, index: number, what: string, bad: BadRecord[]): Entry | undefined {
  try {
    const entry = decodeEntry(value);
    if (entry.index !== index) {
      pushBad(bad, what, `it says that it is entry ${entry.index}`);
    }
    return entry;
  } catch (error) {
    if (!(error instanceof RecordError)) {
      throw error;
    }
    pushBad(bad, what, error.message);
    return undefined;
  }
}

/** Everything about one region; undefined when there is no record of it. */
export async function readRegion(engine: Engine, id: RegionId): Promise<RegionFacts | undefined> {
  const bad: BadRecord[] = [];
  const record = async <T>(what: string, key: Uint8Array, decode: (bytes: Uint8Array) => T): Promise<T | undefined> =>
    attempt(bad, `${what} of region ${id}`, async () => {
      const bytes = await engine.get(key);
      return bytes === undefined ? undefined : decode(bytes);
    });
  const local = await record('the state', regionStateKey(id), decodeRegionLocalState);
  const raft = await record('the raft state', raftStateKey(id), decodeRaftLocalState);
  const isUnreadable = local === undefined && bad.length > 0;
  if (local === undefined && raft === undefined && bad.length === 0) {
    const rest = await engine.scan({ range: regionLocalRange(id), limit: 1, keysOnly: true });
    if (rest.entries.length === 0) {
      return undefined;
    }
  }
  if (local !== undefined && local.region.id !== id) {
    bad.push({ what: `the state of region ${id}`, reason: `it is that of region ${local.region.id}` });
  }
  const state: ReplicaState = isUnreadable ? 'unreadable' : (local?.state ?? 'uninitialized');
  const approximateBytes =
    local !== undefined && hasData(state) ? await engine.approximateSize(dataRange(local.region.range)) : 0;
  return {
    id,
    state,
    local,
    raft,
    apply: await record('the apply state', applyStateKey(id), decodeApplyState),
    snapshotRaft: await record('the raft state of the snapshot', snapshotRaftStateKey(id), decodeRaftLocalState),
    stagingId: (await record('the install record', snapshotInstallKey(id), decodeInstallRecord))?.stagingId,
    fence: await record('the fence', fenceKey(id), decodeFence),
    log: await logFacts(engine, id, bad),
    redirects: await countRedirects(engine, redirectsOf(id), bad),
    bad,
    approximateBytes,
  };
}

/** Ids of all regions with any record, ascending. */
export async function regionIds(engine: Engine): Promise<RegionId[]> {
  const ids = new Set<RegionId>();
  for await (const page of walkRecords(engine, regionStateRange())) {
    for (const { key } of page) {
      ids.add(regionIdOfStateKey(key));
    }
  }
  // Replicas without a state have a vote; their other records are skipped without being read.
  const local = { start: regionLocalRange(regionId(0)).start, end: regionStateRange().start };
  for (let { start } = local; ; ) {
    const page = await engine.scan({ range: { start, end: local.end }, limit: 1, keysOnly: true });
    const [first] = page.entries;
    if (first === undefined) {
      return [...ids].toSorted((a, b) => a - b);
    }
    const id = regionIdOfLocalKey(first[0]);
    ids.add(id);
    start = regionLocalRange(id).end;
  }
}

const redirectsOf = (id: RegionId): KeyRange => ({
  start: redirectKey(id, 0),
  end: redirectKey(regionId(id + 1), 0),
});

async function countRedirects(engine: Engine, range: KeyRange, bad: BadRecord[]): Promise<number> {
  let count = 0;
  for await (const page of walkRecords(engine, range)) {
    count += page.length;
    for (const record of page) {
      await attempt(bad, `a redirect of region ${regionIdOfRedirectKey(record.key)}`, () =>
        record.type === 'record' ? decodeRedirect(record.value) : Promise.reject(damageOf(record.reason)),
      );
    }
  }
  return count;
}

const damageOf = (reason: string): CorruptionError => new CorruptionError(reason, {});

async function stagedFacts(engine: Engine, bad: BadRecord[]): Promise<readonly StagedFacts[]> {
  const found = new Map<number, { record: StagingRecord | undefined; rows: number; bytes: number }>();
  for await (const page of walkRecords(engine, stagingRangeFrom(0))) {
    for (const walked of page) {
      const id = stagingIdOfKey(walked.key);
      const facts = found.get(id) ?? { record: undefined, rows: 0, bytes: 0 };
      found.set(id, facts);
      facts.rows++;
      facts.bytes += walked.key.length + (walked.type === 'record' ? walked.value.length : 0);
      if (walked.type !== 'record') {
        bad.push({ what: `a record of staged snapshot ${id}`, reason: walked.reason });
      } else if (equalBytes(walked.key, stagingRecordKey(id))) {
        facts.record = await attempt(bad, `the description of staged snapshot ${id}`, () =>
          decodeStagingRecord(walked.value),
        );
      }
    }
  }
  return [...found].map(([stagingId, facts]) => ({ stagingId, ...facts }));
}

async function cleaningRanges(engine: Engine, bad: BadRecord[]): Promise<readonly KeyRange[]> {
  const ranges: KeyRange[] = [];
  for await (const page of walkRecords(engine, pendingCleanRange())) {
    for (const walked of page) {
      const task = await attempt(bad, 'a range that is being cleaned', () =>
        walked.type === 'record' ? decodeCleanTask(walked.value) : Promise.reject(damageOf(walked.reason)),
      );
      if (task !== undefined) {
        ranges.push(task.range);
      }
    }
  }
  return ranges;
}

/** @param onRegion called before each region is read, with how many of how many are done */
export async function readStore(
  engine: Engine,
  onRegion: (done: number, total: number) => Promise<void>,
): Promise<StoreFacts> {
  const bad: BadRecord[] = [];
  const ids = await regionIds(engine);
  const regions: RegionFacts[] = [];
  for (const [done, id] of ids.entries()) {
    await onRegion(done, ids.length);
    const facts = await readRegion(engine, id);
    if (facts !== undefined) {
      regions.push(facts);
    }
  }
  const starts = await attempt(bad, 'the count of starts', async () => {
    const bytes = await engine.get(storeStartsKey());
    return bytes === undefined ? 0 : decodeStarts(bytes);
  });
  return {
    starts: starts ?? 0,
    regions,
    staged: await stagedFacts(engine, bad),
    cleaning: await cleaningRanges(engine, bad),
    redirects: await countRedirects(engine, redirectRange(), []),
    bad,
  };
}

/** Log entries of a region from `from` to `to`, both included, page by page. @throws CorruptionError, RecordError */
export async function* readEntries(
  engine: Engine,
  id: RegionId,
  from: number,
  to: number,
): AsyncGenerator<readonly Entry[], void, undefined> {
  const whole = wholeRaftLogRange(id);
  const end = to >= INDEX_MAX ? whole.end : raftLogKey(id, logIndex(to + 1));
  for await (const page of walkRecords(engine, { start: raftLogKey(id, logIndex(from)), end })) {
    yield page.map((record) => {
      if (record.type !== 'record') {
        const index = logIndexOfKey(record.key);
        throw new CorruptionError(`log entry ${index} cannot be read: ${record.reason}`, { index });
      }
      return decodeEntry(record.value);
    });
  }
}
