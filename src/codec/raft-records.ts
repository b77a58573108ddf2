/** Stored and replicated records of the raftstore: domain form <-> bytes. Golden-byte tests pin every version. */
import { peerId, regionId, storeId } from '../base/ids.ts';
import type { PeerChange } from '../meta/heartbeat.ts';
import type { Peer, PeerRole, Region, RegionEpoch } from '../meta/region.ts';
import type { Entry, EntryType } from '../raft/types.ts';
import type { AdminCommand, RaftCommand, SplitChild, WriteOp } from './command.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldBytes, fieldInt } from './record.ts';
import type {
  ApplyState,
  Fence,
  CleanTask,
  MergeState,
  PeerState,
  RaftLocalState,
  Redirect,
  RegionLocalState,
  StoreIdent,
} from './store-record.ts';

const VERSION = 1;

const ROLES: readonly PeerRole[] = ['voter', 'learner', 'incoming-voter', 'demoting-voter'];
const PEER_STATES: readonly PeerState[] = ['normal', 'applying', 'merging', 'tombstone'];
const CHANGE_TYPES: readonly PeerChange['type'][] = ['add-voter', 'remove', 'add-learner'];

function oneOf<T>(list: readonly T[], value: unknown, what: string): T {
  const found = list[fieldInt(value, what)];
  if (found === undefined) {
    throw new RecordError(`${what} has the unknown value ${String(value)}`);
  }
  return found;
}

// ------------------------------------------------------------------------------------------------ region parts

const packPeer = (peer: Peer): unknown[] => [peer.id, peer.storeId, ROLES.indexOf(peer.role)];

function unpackPeer(value: unknown): Peer {
  const f = fieldArray(value, 'peer');
  return {
    id: peerId(fieldInt(f[0], 'peer id')),
    storeId: storeId(fieldInt(f[1], 'store id')),
    role: oneOf(ROLES, f[2], 'peer role'),
  };
}

const packRegion = (region: Region): unknown[] => [
  region.id,
  region.range.start,
  region.range.end,
  region.epoch.confVer,
  region.epoch.version,
  region.peers.map(packPeer),
];

function unpackEpoch(confVer: unknown, version: unknown): RegionEpoch {
  return { confVer: fieldInt(confVer, 'confVer'), version: fieldInt(version, 'version') };
}

function unpackRegion(value: unknown): Region {
  const f = fieldArray(value, 'region');
  return {
    id: regionId(fieldInt(f[0], 'region id')),
    range: { start: fieldBytes(f[1], 'start key'), end: fieldBytes(f[2], 'end key') },
    epoch: unpackEpoch(f[3], f[4]),
    peers: fieldArray(f[5], 'peers').map(unpackPeer),
  };
}

/** Deterministic: equal regions give equal bytes. */
export const encodeRegion = (region: Region): Uint8Array => encodeRecord(VERSION, packRegion(region));

export function decodeRegion(bytes: Uint8Array): Region {
  return unpackRegion(decodeRecord(bytes, 'region', VERSION, 6).fields);
}

// ------------------------------------------------------------------------------------------------ local records

const packMergeState = (state: MergeState): unknown[] => [state.minIndex, packRegion(state.target), state.commit];

function unpackMergeState(value: unknown): MergeState {
  const f = fieldArray(value, 'merge state');
  return { minIndex: fieldInt(f[0], 'min index'), target: unpackRegion(f[1]), commit: fieldInt(f[2], 'commit') };
}

/** Deterministic: replicas with equal state write equal bytes (the consistency check hashes them). */
export function encodeRegionLocalState(state: RegionLocalState): Uint8Array {
  return encodeRecord(VERSION, [
    PEER_STATES.indexOf(state.state),
    packRegion(state.region),
    state.mergeState === undefined ? null : packMergeState(state.mergeState),
  ]);
}

export function decodeRegionLocalState(bytes: Uint8Array): RegionLocalState {
  const { fields } = decodeRecord(bytes, 'region state', VERSION, 3);
  return {
    state: oneOf(PEER_STATES, fields[0], 'peer state'),
    region: unpackRegion(fields[1]),
    mergeState: fields[2] === null ? undefined : unpackMergeState(fields[2]),
  };
}

export function encodeApplyState(state: ApplyState): Uint8Array {
  return encodeRecord(VERSION, [
    state.appliedIndex,
    state.appliedTerm,
    state.commitIndex,
    state.commitTerm,
    state.truncatedIndex,
    state.truncatedTerm,
  ]);
}

export function decodeApplyState(bytes: Uint8Array): ApplyState {
  const { fields: f } = decodeRecord(bytes, 'apply state', VERSION, 6);
  return {
    appliedIndex: fieldInt(f[0], 'applied index'),
    appliedTerm: fieldInt(f[1], 'applied term'),
    commitIndex: fieldInt(f[2], 'commit index'),
    commitTerm: fieldInt(f[3], 'commit term'),
    truncatedIndex: fieldInt(f[4], 'truncated index'),
    truncatedTerm: fieldInt(f[5], 'truncated term'),
  };
}

export function encodeRedirect(redirect: Redirect): Uint8Array {
  switch (redirect.type) {
    case 'range':
      return encodeRecord(VERSION, [
        0,
        redirect.version,
        redirect.range.start,
        redirect.range.end,
        redirect.newRegionId,
      ]);
    case 'removed':
      return encodeRecord(VERSION, [1, packRegion(redirect.region), redirect.leader?.id ?? 0]);
    case 'noticed':
      return encodeRecord(VERSION, [2, redirect.wallMs, 0]);
  }
}

export function decodeRedirect(bytes: Uint8Array): Redirect {
  const { fields: f } = decodeRecord(bytes, 'redirect', VERSION, 3);
  const type = fieldInt(f[0], 'type');
  if (type === 2) {
    return { type: 'noticed', wallMs: fieldInt(f[1], 'time') };
  }
  if (type === 0) {
    return {
      type: 'range',
      version: fieldInt(f[1], 'version'),
      range: { start: fieldBytes(f[2], 'start key'), end: fieldBytes(f[3], 'end key') },
      newRegionId: regionId(fieldInt(f[4], 'region id')),
    };
  }
  const region = unpackRegion(f[1]);
  const leader = fieldInt(f[2], 'leader');
  return { type: 'removed', region, leader: region.peers.find((peer) => peer.id === leader) };
}

const FENCE_REASONS: readonly Fence['reason'][] = ['divergent', 'unclear'];

export const encodeFence = (fence: Fence): Uint8Array =>
  encodeRecord(VERSION, [fence.peerId, fence.index, FENCE_REASONS.indexOf(fence.reason), fence.wallMs]);

export function decodeFence(bytes: Uint8Array): Fence {
  const { fields: f } = decodeRecord(bytes, 'fence', VERSION, 4);
  return {
    peerId: fieldInt(f[0], 'peer id'),
    index: fieldInt(f[1], 'index'),
    reason: FENCE_REASONS[fieldInt(f[2], 'reason')] ?? 'unclear',
    wallMs: fieldInt(f[3], 'time'),
  };
}

export function encodeRaftLocalState(state: RaftLocalState): Uint8Array {
  return encodeRecord(VERSION, [state.peerId, state.term, state.vote, state.commit, state.lastIndex]);
}

export function decodeRaftLocalState(bytes: Uint8Array): RaftLocalState {
  const { fields: f } = decodeRecord(bytes, 'raft state', VERSION, 5);
  return {
    peerId: fieldInt(f[0], 'peer id'),
    term: fieldInt(f[1], 'term'),
    vote: fieldInt(f[2], 'vote'),
    commit: fieldInt(f[3], 'commit'),
    lastIndex: fieldInt(f[4], 'last index'),
  };
}

export const encodeStoreIdent = (ident: StoreIdent): Uint8Array =>
  encodeRecord(VERSION, [ident.clusterId.toString(), ident.storeId]);

export function decodeStoreIdent(bytes: Uint8Array): StoreIdent {
  const { fields: f } = decodeRecord(bytes, 'store identity', VERSION, 2);
  if (typeof f[0] !== 'string' || !/^\d+$/.test(f[0])) {
    throw new RecordError('store identity has no cluster id');
  }
  return { clusterId: BigInt(f[0]), storeId: fieldInt(f[1], 'store id') };
}

/** How often a store has started. */
export const encodeStarts = (starts: number): Uint8Array => encodeRecord(VERSION, [starts]);

export const decodeStarts = (bytes: Uint8Array): number =>
  fieldInt(decodeRecord(bytes, 'start counter', VERSION, 1).fields[0], 'start counter');

export const encodeCleanTask = (task: CleanTask): Uint8Array =>
  encodeRecord(VERSION, [task.range.start, task.range.end]);

export function decodeCleanTask(bytes: Uint8Array): CleanTask {
  const { fields: f } = decodeRecord(bytes, 'clean task', VERSION, 2);
  return { range: { start: fieldBytes(f[0], 'start key'), end: fieldBytes(f[1], 'end key') } };
}

// ------------------------------------------------------------------------------------------------ log entries

const packEntry = (entry: Entry): unknown[] => [entry.type, entry.term, entry.index, entry.data];

function unpackEntry(value: unknown): Entry {
  const f = fieldArray(value, 'entry');
  const type = fieldInt(f[0], 'entry type');
  if (type > 2) {
    throw new RecordError(`entry has the unknown type ${type}`);
  }
  return {
    type: type as EntryType,
    term: fieldInt(f[1], 'entry term'),
    index: fieldInt(f[2], 'entry index'),
    data: fieldBytes(f[3], 'entry data'),
  };
}

export const encodeEntry = (entry: Entry): Uint8Array => encodeRecord(VERSION, packEntry(entry));

export const decodeEntry = (bytes: Uint8Array): Entry =>
  unpackEntry(decodeRecord(bytes, 'log entry', VERSION, 4).fields);

// ------------------------------------------------------------------------------------------------ commands

const OP_PUT = 0;
const OP_DELETE = 1;
const OP_DELETE_RANGE = 2;
const OP_CAS = 3;
const OP_EXPIRE = 4;

function packOp(op: WriteOp): unknown[] {
  switch (op.type) {
    case 'put':
      return op.expireAtSeconds === 0 ? [OP_PUT, op.key, op.value] : [OP_PUT, op.key, op.value, op.expireAtSeconds];
    case 'delete':
      return [OP_DELETE, op.key];
    case 'delete-range':
      return [OP_DELETE_RANGE, op.range.start, op.range.end];
    case 'compare-and-swap':
      return [OP_CAS, op.key, op.expected ?? null, op.value, op.expireAtSeconds, op.deletes, op.nowSeconds];
    case 'expire':
      return [OP_EXPIRE, op.key, op.expireAtSeconds];
  }
}

function unpackOp(value: unknown): WriteOp {
  const f = fieldArray(value, 'operation');
  const key = fieldBytes(f[1], 'key');
  switch (f[0]) {
    case OP_PUT:
      return {
        type: 'put',
        key,
        value: fieldBytes(f[2], 'value'),
        expireAtSeconds: f[3] === undefined ? 0 : fieldInt(f[3], 'expiry'),
      };
    case OP_DELETE:
      return { type: 'delete', key };
    case OP_DELETE_RANGE:
      return { type: 'delete-range', range: { start: key, end: fieldBytes(f[2], 'end key') } };
    case OP_CAS:
      return {
        type: 'compare-and-swap',
        key,
        expected: f[2] === null ? undefined : fieldBytes(f[2], 'expected value'),
        value: fieldBytes(f[3], 'value'),
        expireAtSeconds: fieldInt(f[4], 'expiry'),
        deletes: f[5] === true,
        nowSeconds: fieldInt(f[6], 'time'),
      };
    case OP_EXPIRE:
      return { type: 'expire', key, expireAtSeconds: fieldInt(f[2], 'expiry') };
    default:
      throw new RecordError(`unknown operation ${String(f[0])}`);
  }
}

const packChange = (change: PeerChange): unknown[] => [CHANGE_TYPES.indexOf(change.type), packPeer(change.peer)];

function unpackChange(value: unknown): PeerChange {
  const f = fieldArray(value, 'peer change');
  return { type: oneOf(CHANGE_TYPES, f[0], 'change type'), peer: unpackPeer(f[1]) };
}

const packChild = (child: SplitChild): unknown[] => [child.splitKey, child.newRegionId, child.newPeerIds];

function unpackChild(value: unknown): SplitChild {
  const f = fieldArray(value, 'split child');
  return {
    splitKey: fieldBytes(f[0], 'split key'),
    newRegionId: fieldInt(f[1], 'new region id'),
    newPeerIds: fieldArray(f[2], 'new peer ids').map((id) => fieldInt(id, 'new peer id')),
  };
}

const ADMIN_SPLIT = 1;
const ADMIN_PREPARE_MERGE = 2;
const ADMIN_COMMIT_MERGE = 3;
const ADMIN_ROLLBACK_MERGE = 4;
const ADMIN_COMPACT_LOG = 5;
const ADMIN_COMPUTE_HASH = 6;
const ADMIN_VERIFY_HASH = 7;
const ADMIN_CHANGE_PEER = 8;

function packAdmin(command: AdminCommand): unknown[] {
  switch (command.type) {
    case 'batch-split':
      return [ADMIN_SPLIT, command.children.map(packChild)];
    case 'prepare-merge':
      return [ADMIN_PREPARE_MERGE, command.minIndex, packRegion(command.target)];
    case 'commit-merge':
      return [ADMIN_COMMIT_MERGE, packRegion(command.source), command.commit, command.entries.map(packEntry)];
    case 'rollback-merge':
      return [ADMIN_ROLLBACK_MERGE, command.commit];
    case 'compact-log':
      return [ADMIN_COMPACT_LOG, command.index, command.term];
    case 'compute-hash':
      return [ADMIN_COMPUTE_HASH];
    case 'verify-hash':
      return [ADMIN_VERIFY_HASH, command.index, command.hash];
    case 'change-peer':
      return [ADMIN_CHANGE_PEER, command.changes.map(packChange)];
  }
}

function unpackAdmin(value: unknown): AdminCommand {
  const f = fieldArray(value, 'admin command');
  switch (f[0]) {
    case ADMIN_SPLIT:
      return { type: 'batch-split', children: fieldArray(f[1], 'children').map(unpackChild) };
    case ADMIN_PREPARE_MERGE:
      return { type: 'prepare-merge', minIndex: fieldInt(f[1], 'min index'), target: unpackRegion(f[2]) };
    case ADMIN_COMMIT_MERGE:
      return {
        type: 'commit-merge',
        source: unpackRegion(f[1]),
        commit: fieldInt(f[2], 'commit'),
        entries: fieldArray(f[3], 'entries').map(unpackEntry),
      };
    case ADMIN_ROLLBACK_MERGE:
      return { type: 'rollback-merge', commit: fieldInt(f[1], 'commit') };
    case ADMIN_COMPACT_LOG:
      return { type: 'compact-log', index: fieldInt(f[1], 'index'), term: fieldInt(f[2], 'term') };
    case ADMIN_COMPUTE_HASH:
      return { type: 'compute-hash' };
    case ADMIN_VERIFY_HASH:
      return { type: 'verify-hash', index: fieldInt(f[1], 'index'), hash: fieldBytes(f[2], 'hash') };
    case ADMIN_CHANGE_PEER:
      return { type: 'change-peer', changes: fieldArray(f[1], 'changes').map(unpackChange) };
    default:
      throw new RecordError(`unknown admin command ${String(f[0])}`);
  }
}

const KIND_WRITE = 0;
const KIND_ADMIN = 1;

export function encodeRaftCommand(command: RaftCommand): Uint8Array {
  const { epoch } = command;
  return command.type === 'write'
    ? encodeRecord(VERSION, [KIND_WRITE, epoch.confVer, epoch.version, command.ops.map(packOp)])
    : encodeRecord(VERSION, [KIND_ADMIN, epoch.confVer, epoch.version, packAdmin(command.command)]);
}

/** @throws RecordError for bytes that are not a command this program knows. */
export function decodeRaftCommand(bytes: Uint8Array): RaftCommand {
  const { fields: f } = decodeRecord(bytes, 'command', VERSION, 4);
  const epoch = unpackEpoch(f[1], f[2]);
  switch (f[0]) {
    case KIND_WRITE:
      return { type: 'write', epoch, ops: fieldArray(f[3], 'operations').map(unpackOp) };
    case KIND_ADMIN:
      return { type: 'admin', epoch, command: unpackAdmin(f[3]) };
    default:
      throw new RecordError(`unknown command kind ${String(f[0])}`);
  }
}
