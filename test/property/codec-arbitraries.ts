/** Random domain values for the codec properties. */
import fc from 'fast-check';
import { type PeerId, type RegionId, type StoreId, peerId, regionId, storeId } from '../../src/base/ids.ts';
import type { KeyRange } from '../../src/base/key-range.ts';
import type { AdminCommand, RaftCommand, WriteOp } from '../../src/codec/command.ts';
import type { PeerMessage, PeerMessageBody } from '../../src/codec/peer-message.ts';
import type { RegionError } from '../../src/codec/region-error.ts';
import type { RegionLocalState } from '../../src/codec/store-record.ts';
import type { PeerChange, RegionHeartbeat, RegionStep } from '../../src/meta/heartbeat.ts';
import type { Peer, Region, RegionEpoch, Store } from '../../src/meta/region.ts';
import type { Entry, EntryType, Message, MsgType, Snapshot } from '../../src/raft/types.ts';

/** Small numbers, numbers around the bounds of the encodings, and any safe integer. */
export const safeInt: fc.Arbitrary<number> = fc.oneof(
  fc.nat(300),
  fc.constantFrom(127, 128, 2 ** 14, 2 ** 21, 2 ** 28 - 1, 2 ** 28, 2 ** 31, 2 ** 32, 2 ** 35, 2 ** 49, 2 ** 53 - 1),
  fc.maxSafeNat(),
);
export const bytes: fc.Arbitrary<Uint8Array> = fc.uint8Array({ maxLength: 40 });
/** Sometimes long enough to make a writer grow. */
export const longBytes: fc.Arbitrary<Uint8Array> = fc.oneof(bytes, fc.uint8Array({ maxLength: 3000 }));

const asRegionId = safeInt.map((n): RegionId => regionId(n));
const asStoreId = safeInt.map((n): StoreId => storeId(n));
const asPeerId = safeInt.map((n): PeerId => peerId(n));

export const peer: fc.Arbitrary<Peer> = fc.record({
  id: asPeerId,
  storeId: asStoreId,
  role: fc.constantFrom('voter', 'learner', 'incoming-voter', 'demoting-voter'),
});
export const epoch: fc.Arbitrary<RegionEpoch> = fc.record({ confVer: safeInt, version: safeInt });
export const range: fc.Arbitrary<KeyRange> = fc.record({ start: bytes, end: bytes });
export const region: fc.Arbitrary<Region> = fc.record({
  id: asRegionId,
  range,
  epoch,
  peers: fc.array(peer, { maxLength: 4 }),
});
export const store: fc.Arbitrary<Store> = fc.record({
  id: asStoreId,
  address: fc.string(),
  statusAddress: fc.string(),
  state: fc.constantFrom('up', 'offline', 'tombstone'),
  labels: fc.array(fc.record({ key: fc.string(), value: fc.string() }), { maxLength: 3 }),
  version: fc.string(),
  startTimestamp: safeInt,
});

export const entry: fc.Arbitrary<Entry> = fc.record({
  type: fc.constantFrom<EntryType[]>(0, 1, 2),
  term: safeInt,
  index: safeInt,
  data: longBytes,
});
const ids = fc.array(safeInt, { maxLength: 4 });
const snapshot: fc.Arbitrary<Snapshot> = fc.record({
  data: longBytes,
  metadata: fc.record({
    index: safeInt,
    term: safeInt,
    confState: fc.record({
      voters: ids,
      votersOutgoing: ids,
      learners: ids,
      learnersNext: ids,
      autoLeave: fc.boolean(),
    }),
  }),
});

/** Types that travel between stores. */
const travelling: MsgType[] = [2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 18];

export const raftMessage: fc.Arbitrary<Message> = fc.record({
  type: fc.constantFrom(...travelling),
  to: safeInt,
  from: safeInt,
  term: safeInt,
  logTerm: safeInt,
  index: safeInt,
  entries: fc.array(entry, { maxLength: 4 }),
  commit: safeInt,
  vote: safeInt,
  snapshot: fc.option(snapshot),
  reject: fc.boolean(),
  rejectHint: safeInt,
  context: bytes,
  responses: fc.constant([]),
  reportedCommit: safeInt,
  voteCommit: safeInt,
  voteCommitTerm: safeInt,
});

const body: fc.Arbitrary<PeerMessageBody> = fc.oneof(
  fc.record({ type: fc.constant('raft' as const), message: raftMessage }),
  fc.record({ type: fc.constant('gc' as const), mergeTarget: fc.option(region, { nil: undefined }) }),
  fc.record({ type: fc.constant('check-stale-peer' as const) }),
  fc.record({ type: fc.constant('check-stale-peer-response' as const), region }),
  fc.record({ type: fc.constant('want-rollback-merge' as const), commit: safeInt }),
  fc.record({ type: fc.constant('wake-up' as const) }),
  fc.record({ type: fc.constant('hash-report' as const), index: safeInt, hash: fc.uint8Array({ maxLength: 16 }) }),
);

export const peerMessage: fc.Arbitrary<PeerMessage> = fc.record({
  regionId: asRegionId,
  from: peer,
  to: peer,
  epoch,
  range: fc.option(range, { nil: undefined }),
  body,
});

export const regionError: fc.Arbitrary<RegionError> = fc.oneof(
  fc.record({
    type: fc.constant('not-leader' as const),
    regionId: asRegionId,
    leader: fc.option(peer, { nil: undefined }),
  }),
  fc.record({ type: fc.constant('region-not-found' as const), regionId: asRegionId }),
  fc.record({ type: fc.constant('key-not-in-region' as const), key: bytes, regionId: asRegionId, range }),
  fc.record({ type: fc.constant('epoch-not-match' as const), currentRegions: fc.array(region, { maxLength: 3 }) }),
  fc.record({ type: fc.constant('server-is-busy' as const), reason: fc.string(), backoffMs: safeInt }),
  fc.record({ type: fc.constant('stale-command' as const) }),
  fc.record({ type: fc.constant('store-not-match' as const), requestStoreId: asStoreId, actualStoreId: asStoreId }),
  fc.record({ type: fc.constant('raft-entry-too-large' as const), regionId: asRegionId, entrySizeBytes: safeInt }),
  fc.record({ type: fc.constant('read-index-not-ready' as const), regionId: asRegionId, reason: fc.string() }),
  fc.record({ type: fc.constant('proposal-in-merging-mode' as const), regionId: asRegionId }),
  fc.record({ type: fc.constant('region-not-initialized' as const), regionId: asRegionId }),
  fc.record({
    type: fc.constant('disk-full' as const),
    storeIds: fc.array(asStoreId, { maxLength: 3 }),
    reason: fc.string(),
  }),
  fc.record({ type: fc.constant('recovery-in-progress' as const), regionId: asRegionId }),
  fc.record({ type: fc.constant('mismatch-peer-id' as const), requestPeerId: asPeerId, storePeerId: asPeerId }),
  fc.record({ type: fc.constant('undetermined-result' as const), message: fc.string() }),
  fc.record({ type: fc.constant('message' as const), message: fc.string() }),
);

const change: fc.Arbitrary<PeerChange> = fc.record({
  type: fc.constantFrom('add-voter', 'add-learner', 'remove'),
  peer,
});

export const step: fc.Arbitrary<RegionStep> = fc.oneof(
  fc.record({ type: fc.constant('change-peer' as const), change }),
  fc.record({ type: fc.constant('change-peer-joint' as const), changes: fc.array(change, { maxLength: 3 }) }),
  fc.record({
    type: fc.constant('transfer-leader' as const),
    peer,
    candidates: fc.array(peer, { maxLength: 3 }),
  }),
  fc.record({ type: fc.constant('merge' as const), target: region }),
  fc.record({ type: fc.constant('split' as const), keys: fc.array(bytes, { maxLength: 3 }) }),
);

export const heartbeat: fc.Arbitrary<RegionHeartbeat> = fc.record({
  region,
  leader: peer,
  term: safeInt as fc.Arbitrary<RegionHeartbeat['term']>,
  downPeers: fc.array(fc.record({ peer, downSeconds: safeInt }), { maxLength: 2 }),
  pendingPeers: fc.array(peer, { maxLength: 2 }),
  approximateSizeBytes: safeInt,
  approximateKeys: safeInt,
  bytesWritten: safeInt,
  keysWritten: safeInt,
  bytesRead: safeInt,
  keysRead: safeInt,
  merging: fc.boolean(),
  intervalStartSeconds: safeInt,
  intervalEndSeconds: safeInt,
});

/** A cluster id or hash of up to 64 bits. */
export const uint64: fc.Arbitrary<bigint> = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

const expiry = fc.nat(2 ** 31);

const writeOp: fc.Arbitrary<WriteOp> = fc.oneof(
  fc.record({ type: fc.constant('put' as const), key: bytes, value: longBytes, expireAtSeconds: expiry }),
  fc.record({ type: fc.constant('delete' as const), key: bytes }),
  fc.record({ type: fc.constant('delete-range' as const), range }),
  fc.record({
    type: fc.constant('compare-and-swap' as const),
    key: bytes,
    expected: fc.option(bytes, { nil: undefined }),
    value: bytes,
    expireAtSeconds: expiry,
    deletes: fc.boolean(),
    nowSeconds: expiry,
  }),
  fc.record({ type: fc.constant('expire' as const), key: bytes, expireAtSeconds: expiry }),
);

const adminCommand: fc.Arbitrary<AdminCommand> = fc.oneof(
  fc.record({
    type: fc.constant('batch-split' as const),
    children: fc.array(fc.record({ splitKey: bytes, newRegionId: safeInt, newPeerIds: ids }), { maxLength: 3 }),
  }),
  fc.record({ type: fc.constant('prepare-merge' as const), minIndex: safeInt, target: region }),
  fc.record({
    type: fc.constant('commit-merge' as const),
    source: region,
    commit: safeInt,
    entries: fc.array(entry, { maxLength: 3 }),
  }),
  fc.record({ type: fc.constant('rollback-merge' as const), commit: safeInt }),
  fc.record({ type: fc.constant('compact-log' as const), index: safeInt, term: safeInt }),
  fc.record({ type: fc.constant('compute-hash' as const) }),
  fc.record({ type: fc.constant('verify-hash' as const), index: safeInt, hash: bytes }),
  fc.record({ type: fc.constant('change-peer' as const), changes: fc.array(change, { maxLength: 3 }) }),
);

export const raftCommand: fc.Arbitrary<RaftCommand> = fc.oneof(
  fc.record({ type: fc.constant('write' as const), epoch, ops: fc.array(writeOp, { maxLength: 5 }) }),
  fc.record({ type: fc.constant('admin' as const), epoch, command: adminCommand }),
);

export const regionLocalState: fc.Arbitrary<RegionLocalState> = fc.record({
  state: fc.constantFrom('normal', 'applying', 'merging', 'tombstone'),
  region,
  mergeState: fc.option(fc.record({ minIndex: safeInt, target: region, commit: safeInt }), { nil: undefined }),
});
