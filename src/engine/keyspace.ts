/**
 * Key layout of the one database of a store. Every key starts with a one-byte room; ids and indexes follow as eight
 * bytes, big-endian, so that byte order is numeric order. Room 0x00 belongs to the engine itself and never shows up
 * in a scan.
 *
 * ```text
 * 'c' ...                        change log (layout owned by the change stream)
 * 'd' region version             where the keys of a region of this version went; version 0: it was removed
 * 'i'                            store identity
 * 'p' n                          range cleaning still to be done
 * 'r' region 0x01 index          raft log entry
 * 'r' region 0x02                raft state (hard state, last index)
 * 'r' region 0x03                apply state
 * 'r' region 0x04                raft state a snapshot being installed will leave
 * 'r' region 0x05                which staged snapshot is being installed
 * 'r' region 0x06                why a damaged replica serves nothing
 * 's' region                     region state (descriptor, tombstone, merge state)
 * 't' staging 0x01               what a staged snapshot is
 * 't' staging 0x02 sequence      one chunk of a staged snapshot
 * 'z' user key                   user data
 * ```
 *
 * This file only builds and takes apart keys; what the values mean is the business of `codec` and `raftstore`.
 */
import { assert } from '../base/assert.ts';
import { EMPTY_BYTES } from '../base/bytes.ts';
import { logIndex, regionId, type LogIndex, type RegionId } from '../base/ids.ts';
import type { KeyRange } from '../base/key-range.ts';

/** First byte of the engine's own records; users of the engine must not touch it. */
export const ENGINE_PREFIX = 0x00;
/** First byte of the change log; the rest of those keys belongs to the change stream. */
export const CHANGE_LOG_PREFIX = 0x63;

const REDIRECT_PREFIX = 0x64;
const IDENT_PREFIX = 0x69;
const PENDING_CLEAN_PREFIX = 0x70;
const REGION_LOCAL_PREFIX = 0x72;
const REGION_STATE_PREFIX = 0x73;
const STAGING_PREFIX = 0x74;
const DATA_PREFIX = 0x7a;

const RAFT_LOG_KIND = 0x01;
const RAFT_STATE_KIND = 0x02;
const APPLY_STATE_KIND = 0x03;
const SNAPSHOT_RAFT_STATE_KIND = 0x04;
const SNAPSHOT_INSTALL_KIND = 0x05;
const FENCE_KIND = 0x06;

const STAGING_RECORD_KIND = 0x01;
const STAGED_CHUNK_KIND = 0x02;

const ID_BYTES = 8;
const LOCAL_KEY_BYTES = 1 + ID_BYTES + 1;
const RAFT_LOG_KEY_BYTES = LOCAL_KEY_BYTES + ID_BYTES;

/** Length that {@link dataKey} adds to a user key. */
export const DATA_KEY_OVERHEAD_BYTES = 1;

function writeUint64(out: Uint8Array, at: number, value: number): void {
  assert(Number.isSafeInteger(value) && value >= 0, 'number in a key is not a non-negative safe integer', { value });
  const high = Math.floor(value / 2 ** 32);
  const low = value >>> 0;
  out[at] = high >>> 24;
  out[at + 1] = high >>> 16;
  out[at + 2] = high >>> 8;
  out[at + 3] = high;
  out[at + 4] = low >>> 24;
  out[at + 5] = low >>> 16;
  out[at + 6] = low >>> 8;
  out[at + 7] = low;
}

function readUint64(bytes: Uint8Array, at: number): number {
  let high = 0;
  let low = 0;
  for (let i = 0; i < 4; i++) {
    high = high * 256 + (bytes[at + i] as number);
    low = low * 256 + (bytes[at + 4 + i] as number);
  }
  return high * 2 ** 32 + low;
}

function numberedKey(prefix: number, value: number): Uint8Array {
  const out = new Uint8Array(1 + ID_BYTES);
  out[0] = prefix;
  writeUint64(out, 1, value);
  return out;
}

function numberInKey(key: Uint8Array, prefix: number, what: string): number {
  assert(key.length === 1 + ID_BYTES && key[0] === prefix, `not a ${what} key`, { length: key.length, first: key[0] });
  return readUint64(key, 1);
}

function localKey(region: RegionId, kind: number): Uint8Array {
  const out = new Uint8Array(LOCAL_KEY_BYTES);
  out[0] = REGION_LOCAL_PREFIX;
  writeUint64(out, 1, region);
  out[1 + ID_BYTES] = kind;
  return out;
}

/** All keys with this first byte. */
export const roomRange = (prefix: number): KeyRange => ({
  start: Uint8Array.of(prefix),
  end: Uint8Array.of(prefix + 1),
});

/** Identity of the store: cluster id, store id, format version. */
export const storeIdentKey = (): Uint8Array => Uint8Array.of(IDENT_PREFIX);

/** How often the store has started. */
export const storeStartsKey = (): Uint8Array => Uint8Array.of(IDENT_PREFIX, 0x01);

/** Descriptor and life-cycle state of a region on this store. */
export const regionStateKey = (region: RegionId): Uint8Array => numberedKey(REGION_STATE_PREFIX, region);

/** Every region state of the store, in the order of region ids. */
export const regionStateRange = (): KeyRange => roomRange(REGION_STATE_PREFIX);

export function regionIdOfStateKey(key: Uint8Array): RegionId {
  return regionId(numberInKey(key, REGION_STATE_PREFIX, 'region state'));
}

export const raftStateKey = (region: RegionId): Uint8Array => localKey(region, RAFT_STATE_KIND);

export const applyStateKey = (region: RegionId): Uint8Array => localKey(region, APPLY_STATE_KIND);

/** Raft state to fall back on when a crash interrupts the installation of a snapshot. */
export const snapshotRaftStateKey = (region: RegionId): Uint8Array => localKey(region, SNAPSHOT_RAFT_STATE_KIND);

/** The record that names the staged snapshot a region in state `applying` is being installed from. */
export const snapshotInstallKey = (region: RegionId): Uint8Array => localKey(region, SNAPSHOT_INSTALL_KIND);

/** What a region was at this version, for clients that still believe in it; version 0 for a replica that was removed. */
export function redirectKey(region: RegionId, version: number): Uint8Array {
  const out = new Uint8Array(1 + 2 * ID_BYTES);
  out[0] = REDIRECT_PREFIX;
  writeUint64(out, 1, region);
  writeUint64(out, 1 + ID_BYTES, version);
  return out;
}

export const redirectRange = (): KeyRange => roomRange(REDIRECT_PREFIX);

export function regionIdOfRedirectKey(key: Uint8Array): RegionId {
  assert(key.length === 1 + 2 * ID_BYTES && key[0] === REDIRECT_PREFIX, 'not a redirect key', { length: key.length });
  return regionId(readUint64(key, 1));
}

/** Why a damaged replica serves nothing; gone with the replica. */
export const fenceKey = (region: RegionId): Uint8Array => localKey(region, FENCE_KIND);

export function raftLogKey(region: RegionId, index: LogIndex): Uint8Array {
  const out = new Uint8Array(RAFT_LOG_KEY_BYTES);
  out[0] = REGION_LOCAL_PREFIX;
  writeUint64(out, 1, region);
  out[1 + ID_BYTES] = RAFT_LOG_KIND;
  writeUint64(out, LOCAL_KEY_BYTES, index);
  return out;
}

/** Log entries of a region with `from <= index < to`. */
export const raftLogRange = (region: RegionId, from: LogIndex, to: LogIndex): KeyRange => ({
  start: raftLogKey(region, from),
  end: raftLogKey(region, to),
});

/** Every log entry of a region. */
export const wholeRaftLogRange = (region: RegionId): KeyRange => ({
  start: localKey(region, RAFT_LOG_KIND),
  end: localKey(region, RAFT_LOG_KIND + 1),
});

export function logIndexOfKey(key: Uint8Array): LogIndex {
  assert(
    key.length === RAFT_LOG_KEY_BYTES && key[0] === REGION_LOCAL_PREFIX && key[1 + ID_BYTES] === RAFT_LOG_KIND,
    'not a raft log key',
    { length: key.length, first: key[0] },
  );
  return logIndex(readUint64(key, LOCAL_KEY_BYTES));
}

/** The region that a raft log, raft state or apply state key belongs to. */
export function regionIdOfLocalKey(key: Uint8Array): RegionId {
  assert(key.length >= LOCAL_KEY_BYTES && key[0] === REGION_LOCAL_PREFIX, 'not a region-local key', { first: key[0] });
  return regionId(readUint64(key, 1));
}

/** Raft log, raft state, apply state and snapshot raft state of one region, for destroying a peer. */
export const regionLocalRange = (region: RegionId): KeyRange => ({
  start: localKey(region, 0x00),
  end: localKey(region, 0xff),
});

/** A range of data that was given up and is still to be deleted; `n` is unique on the store. */
export const pendingCleanKey = (n: number): Uint8Array => numberedKey(PENDING_CLEAN_PREFIX, n);

export const pendingCleanRange = (): KeyRange => roomRange(PENDING_CLEAN_PREFIX);

export const pendingCleanNumber = (key: Uint8Array): number => numberInKey(key, PENDING_CLEAN_PREFIX, 'pending clean');

function stagingKey(staging: number, kind: number): Uint8Array {
  const out = new Uint8Array(LOCAL_KEY_BYTES);
  out[0] = STAGING_PREFIX;
  writeUint64(out, 1, staging);
  out[1 + ID_BYTES] = kind;
  return out;
}

/** Description of a staged snapshot; staging ids are unique on the store. */
export const stagingRecordKey = (staging: number): Uint8Array => stagingKey(staging, STAGING_RECORD_KIND);

export function stagedChunkKey(staging: number, sequence: number): Uint8Array {
  const out = new Uint8Array(RAFT_LOG_KEY_BYTES);
  out.set(stagingKey(staging, STAGED_CHUNK_KIND));
  writeUint64(out, LOCAL_KEY_BYTES, sequence);
  return out;
}

/** Description and chunks of one staged snapshot. */
export const stagingRange = (staging: number): KeyRange => ({
  start: stagingKey(staging, 0x00),
  end: stagingKey(staging, 0xff),
});

/** Everything staged on the store, from `staging` on. */
export const stagingRangeFrom = (staging: number): KeyRange => ({
  start: stagingKey(staging, 0x00),
  end: Uint8Array.of(STAGING_PREFIX + 1),
});

/** The staging id in a key of the staging room. */
export function stagingIdOfKey(key: Uint8Array): number {
  assert(key.length >= LOCAL_KEY_BYTES && key[0] === STAGING_PREFIX, 'not a staging key', { first: key[0] });
  return readUint64(key, 1);
}

/** Every change log record. */
export const changeLogRange = (): KeyRange => roomRange(CHANGE_LOG_PREFIX);

/** Where the value of a user key is stored. */
export function dataKey(userKey: Uint8Array): Uint8Array {
  const out = new Uint8Array(userKey.length + DATA_KEY_OVERHEAD_BYTES);
  out[0] = DATA_PREFIX;
  out.set(userKey, DATA_KEY_OVERHEAD_BYTES);
  return out;
}

/** The user key inside a {@link dataKey}; a view of the same memory. */
export function userKeyOf(key: Uint8Array): Uint8Array {
  assert(key[0] === DATA_PREFIX, 'not a data key', { first: key[0] });
  return key.subarray(DATA_KEY_OVERHEAD_BYTES);
}

/** Stored keys of a range of user keys; an open end stops before the next room. */
export const dataRange = (range: KeyRange): KeyRange => ({
  start: dataKey(range.start),
  end: range.end.length === 0 ? Uint8Array.of(DATA_PREFIX + 1) : dataKey(range.end),
});

/** The user keys of a range of stored keys; reverse of {@link dataRange}. */
export function userRange(range: KeyRange): KeyRange {
  const isOpen = range.end.length === 1 && range.end[0] === DATA_PREFIX + 1;
  return { start: userKeyOf(range.start), end: isOpen ? EMPTY_BYTES : userKeyOf(range.end) };
}
