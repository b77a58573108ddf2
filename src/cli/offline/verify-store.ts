/**
 * The checks of `braid offline verify` on a store: what every record must satisfy for the store to start and to keep
 * its promises. Only looks; each broken rule is a finding.
 */
import { AppError } from '../../base/app-error.ts';
import { InvariantError } from '../../base/assert.ts';
import { compareBytes, EMPTY_BYTES, keyAfter, toHex } from '../../base/bytes.ts';
import { Hash64 } from '../../base/hash.ts';
import {
  compareEnds,
  FULL_RANGE,
  intersectRanges,
  isEmptyRange,
  type KeyRange,
  rangesOverlap,
  subtractRange,
} from '../../base/key-range.ts';
import { decodeDataValue } from '../../codec/data-value.ts';
import { encodeRegionLocalState } from '../../codec/raft-records.ts';
import { RecordError } from '../../codec/record.ts';
import { INIT_LOG_INDEX } from '../../codec/store-record.ts';
import { dataRange, userKeyOf } from '../../engine/keyspace.ts';
import { CorruptionError, type Engine } from '../../env/engine.ts';
import { findPeerOnStore, formatRegion, type Region } from '../../meta/region.ts';
import { loadRegions } from '../../raftstore/store/load.ts';
import { commandOf } from './entry-text.ts';
import { walkRecords } from './record-walk.ts';
import { INDEX_MAX, isLive, readEntries, type RegionFacts, type StoreFacts } from './store-content.ts';

export type FindingCode =
  /** The write-ahead log lost acknowledged batches, or the database cannot be opened. */
  | 'DamagedDatabase'
  /** A record does not match its checksum, or its bytes mean nothing. */
  | 'BadRecord'
  /** A live replica does not list this store. */
  | 'NotOnThisStore'
  /** A live replica lacks a record that it must have. */
  | 'MissingRecord'
  /** Entries between the truncated and the last index are missing. */
  | 'LogGap'
  /** The log ends before what is committed, or goes on behind its own last index. */
  | 'LogEnd'
  /** Terms of entries go down. */
  | 'TermOrder'
  /** Applied further than committed. */
  | 'AppliedBeyondCommit'
  /** Two live replicas own the same keys. */
  | 'OverlappingRanges'
  /** Rows that no replica owns and that nobody is going to delete. */
  | 'OrphanRows'
  /** The store would refuse to start, for another reason than those above. */
  | 'WouldNotStart';

export interface Finding {
  readonly code: FindingCode;
  /** 0 when it is about no region. */
  readonly regionId: number;
  readonly detail: string;
  /** What documents say beyond that. */
  readonly more?: Readonly<Record<string, unknown>>;
}

/** What was counted in one live region. */
export interface RegionSum {
  readonly id: number;
  readonly appliedIndex: number;
  readonly keys: number;
  readonly sizeBytes: number;
  /**
   * The hash that replicas compare: of every stored pair and the region's state. Two stores at the same applied index
   * must have the same one. Undefined for a replica that is being installed.
   */
  readonly hash: string | undefined;
}

export interface Verification {
  readonly findings: readonly Finding[];
  readonly regions: readonly RegionSum[];
  readonly rows: number;
  readonly rowBytes: number;
  readonly cleaningRows: number;
}

/** Findings of one kind that are listed one by one. */
const ROW_FINDINGS_MAX = 100;
/** Places shown of rows without an owner. */
const ORPHAN_RANGES_MAX = 100;

/** The checks of one replica's records. */
export function checkRegion(facts: RegionFacts, storeId: number): Finding[] {
  const findings: Finding[] = [];
  const { id, local, raft, apply, log } = facts;
  const add = (code: FindingCode, detail: string): void => {
    findings.push({ code, regionId: id, detail });
  };
  for (const { what, reason } of facts.bad) {
    add('BadRecord', `${what}: ${reason}`);
  }
  if (!isLive(facts) || local === undefined) {
    return findings;
  }
  const peer = findPeerOnStore(local.region, storeId as Region['peers'][number]['storeId']);
  if (peer === undefined) {
    add('NotOnThisStore', `${formatRegion(local.region)} has no peer on store ${storeId}`);
  }
  if (apply === undefined) {
    add('MissingRecord', 'the apply state is missing');
    return findings;
  }
  // A split writes the regions it makes without raft states; the store makes them up at its start.
  const isFresh = raft === undefined || raft.lastIndex < INIT_LOG_INDEX || raft.peerId !== peer?.id;
  const last = isFresh ? INIT_LOG_INDEX : raft.lastIndex;
  const commit = Math.max(isFresh ? INIT_LOG_INDEX : raft.commit, apply.commitIndex);
  const first = apply.truncatedIndex + 1;
  if (last < commit || last < apply.truncatedIndex) {
    add('LogEnd', `the log ends at ${last}, but ${Math.max(commit, apply.truncatedIndex)} is committed`);
  }
  if (log.count > 0 && log.lastIndex > last) {
    add('LogEnd', `there are entries up to ${log.lastIndex} behind the last index ${last}`);
  }
  if (apply.appliedIndex > commit) {
    add('AppliedBeyondCommit', `${apply.appliedIndex} is applied, but only ${commit} committed`);
  }
  if (apply.appliedIndex < apply.truncatedIndex) {
    add('LogGap', `the log begins behind ${apply.truncatedIndex}, but only ${apply.appliedIndex} is applied`);
  }
  const present = log.count > 0 && log.lastIndex >= first;
  if (last >= first && (!present || log.firstIndex > first)) {
    add('LogGap', `entries ${first} to ${present ? log.firstIndex - 1 : last} are missing`);
  }
  if (present && log.lastIndex < last) {
    add('LogGap', `entries ${log.lastIndex + 1} to ${last} are missing`);
  }
  for (const { from, to } of log.gaps.filter((gap) => gap.to >= first)) {
    add('LogGap', `entries ${Math.max(from, first)} to ${to} are missing`);
  }
  for (const index of log.termDrops) {
    add('TermOrder', `the term of entry ${index} is smaller than the one before it`);
  }
  return findings;
}

/** Whether what every log entry holds is understood; the last thing looked at, for it reads all of them. */
export async function checkEntries(engine: Engine, facts: RegionFacts): Promise<Finding[]> {
  const findings: Finding[] = [];
  try {
    for await (const entries of readEntries(engine, facts.id, 0, INDEX_MAX)) {
      for (const entry of entries) {
        try {
          commandOf(entry);
        } catch (error) {
          if (!(error instanceof RecordError)) {
            throw error;
          }
          findings.push({
            code: 'BadRecord',
            regionId: facts.id,
            detail: `the command of log entry ${entry.index}: ${error.message}`,
          });
        }
      }
    }
  } catch (error) {
    // The record itself is a finding of the region's records already.
    if (!(error instanceof CorruptionError || error instanceof RecordError)) {
      throw error;
    }
  }
  return findings;
}

/** Live regions in key order; two that overlap are a finding. */
export function checkOverlaps(regions: readonly RegionFacts[]): Finding[] {
  const live = liveInOrder(regions);
  const findings: Finding[] = [];
  // Compared with the one before that reaches furthest, so that a wide one is found against each it covers.
  let widest: Region | undefined;
  for (const { region } of live) {
    if (widest !== undefined && rangesOverlap(widest.range, region.range)) {
      findings.push({
        code: 'OverlappingRanges',
        regionId: region.id,
        detail: `${formatRegion(region)} and ${formatRegion(widest)} own the same keys`,
        more: { otherRegionId: widest.id },
      });
    }
    if (widest === undefined || reachesFurther(region, widest)) {
      widest = region;
    }
  }
  return findings;
}

const reachesFurther = (a: Region, b: Region): boolean => compareEnds(a.range.end, b.range.end) > 0;

interface LiveRegion {
  readonly facts: RegionFacts;
  readonly region: Region;
}

export const liveInOrder = (regions: readonly RegionFacts[]): readonly LiveRegion[] =>
  regions
    .filter(isLive)
    .map((facts) => ({ facts, region: facts.local.region }))
    .toSorted((a, b) => compareBytes(a.region.range.start, b.region.range.start));

/** Ranges of user keys that no live region owns. */
export function unownedRanges(regions: readonly RegionFacts[]): readonly KeyRange[] {
  let rest: readonly KeyRange[] = [FULL_RANGE];
  for (const { region } of liveInOrder(regions)) {
    rest = rest.flatMap((range) => subtractRange(range, region.range));
  }
  return rest.filter((range) => !isEmptyRange(range));
}

interface RowSums {
  keys: number;
  sizeBytes: number;
}

/** Reads every row of a range. */
async function sumRows(
  engine: Engine,
  range: KeyRange,
  onRow: (key: Uint8Array, value: Uint8Array, stored: Uint8Array) => void,
  onBad: (key: Uint8Array, reason: string) => void,
  onPage: () => Promise<void>,
): Promise<RowSums> {
  const sums: RowSums = { keys: 0, sizeBytes: 0 };
  for await (const page of walkRecords(engine, dataRange(range))) {
    for (const record of page) {
      if (record.type === 'unreadable') {
        onBad(record.key, record.reason);
        continue;
      }
      const key = userKeyOf(record.key);
      sums.keys++;
      sums.sizeBytes += key.length;
      if (record.type === 'damaged') {
        onBad(key, record.reason);
        continue;
      }
      sums.sizeBytes += record.value.length;
      if (decodeDataValue(record.value) === undefined) {
        onBad(key, 'the bytes are no stored value');
      }
      onRow(key, record.value, record.key);
    }
    await onPage();
  }
  return sums;
}

export interface VerifyOptions {
  readonly engine: Engine;
  readonly facts: StoreFacts;
  readonly storeId: number;
  readonly formatKey: (key: Uint8Array) => string;
  /** Called now and then with the rows read so far. */
  readonly onRows: (regionsDone: number, rows: number) => Promise<void>;
}

/** All checks of a store whose database could be opened. */
export async function verifyStore({ engine, facts, storeId, formatKey, onRows }: VerifyOptions): Promise<Verification> {
  const findings: Finding[] = facts.bad.map(({ what, reason }) => ({
    code: 'BadRecord',
    regionId: 0,
    detail: `${what}: ${reason}`,
  }));
  const sums: RegionSum[] = [];
  let rows = 0;
  let rowBytes = 0;
  let badRows = 0;
  const live = liveInOrder(facts.regions);
  for (const region of facts.regions) {
    findings.push(...checkRegion(region, storeId), ...(await checkEntries(engine, region)));
  }
  findings.push(...checkOverlaps(facts.regions));
  const badRow = (regionId: number) => (key: Uint8Array, reason: string) => {
    badRows++;
    if (badRows <= ROW_FINDINGS_MAX) {
      findings.push({ code: 'BadRecord', regionId, detail: `row ${formatKey(key)}: ${reason}` });
    }
  };
  for (const [done, { facts: one, region }] of live.entries()) {
    const hash = new Hash64();
    const before = rows;
    let seen = 0;
    const sum = await sumRows(
      engine,
      region.range,
      (_key, value, stored) => {
        hash.update(stored).update(value);
        seen++;
      },
      badRow(region.id),
      () => onRows(done, before + seen),
    );
    rows += sum.keys;
    rowBytes += sum.sizeBytes;
    const { local } = one;
    sums.push({
      id: region.id,
      appliedIndex: one.apply?.appliedIndex ?? 0,
      ...sum,
      hash:
        one.state === 'applying' || local === undefined
          ? undefined
          : toHex(hash.update(encodeRegionLocalState(local)).digest()),
    });
  }
  const outside = await checkOrphans(engine, facts, formatKey, badRow(0), () => onRows(live.length, rows));
  findings.push(...outside.findings);
  if (badRows > ROW_FINDINGS_MAX) {
    findings.push({
      code: 'BadRecord',
      regionId: 0,
      detail: `${badRows - ROW_FINDINGS_MAX} more rows cannot be read`,
    });
  }
  if (findings.length === 0) {
    findings.push(...(await checkStart(engine, storeId)));
  }
  return { findings, regions: sums, rows, rowBytes, cleaningRows: outside.cleaningRows };
}

/** Rows that no live region owns: findings unless they are about to be deleted anyway. */
async function checkOrphans(
  engine: Engine,
  facts: StoreFacts,
  formatKey: (key: Uint8Array) => string,
  onBad: (key: Uint8Array, reason: string) => void,
  onPage: () => Promise<void>,
): Promise<{ readonly findings: readonly Finding[]; readonly cleaningRows: number }> {
  const findings: Finding[] = [];
  let cleaningRows = 0;
  let left = 0;
  for (const unowned of unownedRanges(facts.regions)) {
    const dirty = facts.cleaning.map((task) => intersectRanges(unowned, task)).filter((range) => range !== undefined);
    for (const range of dirty) {
      cleaningRows += (await sumRows(engine, range, () => {}, onBad, onPage)).keys;
    }
    let rest: readonly KeyRange[] = [unowned];
    for (const task of facts.cleaning) {
      rest = rest.flatMap((range) => subtractRange(range, task));
    }
    for (const range of rest) {
      let first: Uint8Array = EMPTY_BYTES;
      let last: Uint8Array = EMPTY_BYTES;
      const sum = await sumRows(
        engine,
        range,
        (key) => {
          first = first.length === 0 ? key : first;
          last = key;
        },
        onBad,
        onPage,
      );
      if (sum.keys === 0) {
        continue;
      }
      if (findings.length >= ORPHAN_RANGES_MAX) {
        left += sum.keys;
        continue;
      }
      findings.push({
        code: 'OrphanRows',
        regionId: 0,
        detail: `${sum.keys} rows (${sum.sizeBytes} bytes) from ${formatKey(first)} to ${formatKey(last)} belong to no region of this store`,
        more: {
          startKey: formatKey(first),
          endKey: formatKey(keyAfter(last)),
          keys: sum.keys,
          sizeBytes: sum.sizeBytes,
        },
      });
    }
  }
  if (left > 0) {
    findings.push({ code: 'OrphanRows', regionId: 0, detail: `${left} more rows in other places belong to no region` });
  }
  return { findings, cleaningRows };
}

/**
 * Loads the regions as the store itself does at its start. It deletes leftovers in passing, which happens in the
 * scratch copy.
 */
async function checkStart(engine: Engine, storeId: number): Promise<Finding[]> {
  try {
    await loadRegions(engine, storeId);
    return [];
  } catch (error) {
    if (!(error instanceof AppError || error instanceof InvariantError)) {
      throw error;
    }
    return [{ code: 'WouldNotStart', regionId: 0, detail: error.message }];
  }
}
