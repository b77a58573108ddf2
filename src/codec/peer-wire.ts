/**
 * braid.peer.v1 frames: messages between stores as bytes. Written by hand because every Raft message of every region
 * passes here; `test/property/codec-peer-wire.test.ts` holds it against the generated code.
 *
 * Decoded byte fields are copies: log entries are kept for long, frames are not.
 */
import { EMPTY_BYTES } from '../base/bytes.ts';
import { peerId, regionId, storeId } from '../base/ids.ts';
import type { KeyRange } from '../base/key-range.ts';
import type { Peer, PeerRole, Region, RegionEpoch } from '../meta/region.ts';
import { type ConfState, type Entry, type EntryType, type Message, MsgType, type Snapshot } from '../raft/types.ts';
import { assert, unreachable } from '../base/assert.ts';
import { BadMessageError } from './bad-message-error.ts';
import type { PeerMessage, PeerMessageBody } from './peer-message.ts';
import { type SnapshotChunk, decodeSnapshotChunk, encodeSnapshotChunk } from './snapshot-record.ts';
import { WireReader } from './wire-reader.ts';
import { WireWriter } from './wire-writer.ts';

/** A message between members of a group that is not one of regions. */
export type GroupMessage = Message;

/** First part of a snapshot transfer, and all following ones. */
export type SnapshotPart =
  | { readonly type: 'message'; readonly message: PeerMessage }
  | { readonly type: 'chunk'; readonly chunk: SnapshotChunk };

const ROLES: readonly PeerRole[] = ['voter', 'learner', 'incoming-voter', 'demoting-voter'];

/** Messages that never leave their process. */
const LOCAL_TYPES: ReadonlySet<number> = new Set<MsgType>([
  MsgType.Hup,
  MsgType.Beat,
  MsgType.Unreachable,
  MsgType.SnapStatus,
  MsgType.CheckQuorum,
  MsgType.StorageAppend,
  MsgType.StorageAppendResp,
  MsgType.StorageApply,
  MsgType.StorageApplyResp,
  MsgType.ForgetLeader,
]);
const MSG_TYPE_MAX: number = Math.max(...Object.values(MsgType));
const ENTRY_TYPE_MAX = 2;

const varint = (field: number): number => field << 3;
const section = (field: number): number => (field << 3) | 2;

/** Field tags of RaftEnvelope, RaftMessage and their parts, as in peer.proto and metapb.proto. */
const FRAME_ENVELOPE = section(1);

const ENVELOPE_REGION_ID = varint(1);
const ENVELOPE_FROM = section(2);
const ENVELOPE_TO = section(3);
const ENVELOPE_EPOCH = section(4);
const ENVELOPE_RANGE = section(5);
const ENVELOPE_RAFT = section(10);
const ENVELOPE_GC = section(11);
const ENVELOPE_CHECK_STALE = section(12);
const ENVELOPE_CHECK_STALE_RESPONSE = section(13);
const ENVELOPE_WANT_ROLLBACK = section(14);
const ENVELOPE_WAKE_UP = section(15);
const ENVELOPE_HASH_REPORT = section(16);

const FIELD_1_VARINT = varint(1);
const FIELD_2_VARINT = varint(2);
const FIELD_3_VARINT = varint(3);
const FIELD_5_VARINT = varint(5);
const FIELD_1_SECTION = section(1);
const FIELD_2_SECTION = section(2);
const FIELD_3_SECTION = section(3);
const FIELD_4_SECTION = section(4);
const FIELD_5_SECTION = section(5);

const RAFT_TYPE = varint(1);
const RAFT_TO = varint(2);
const RAFT_FROM = varint(3);
const RAFT_TERM = varint(4);
const RAFT_LOG_TERM = varint(5);
const RAFT_INDEX = varint(6);
const RAFT_ENTRIES = section(7);
const RAFT_COMMIT = varint(8);
const RAFT_VOTE = varint(9);
const RAFT_SNAPSHOT = section(10);
const RAFT_REJECT = varint(11);
const RAFT_REJECT_HINT = varint(12);
const RAFT_CONTEXT = section(13);
const RAFT_REPORTED_COMMIT = varint(14);
const RAFT_VOTE_COMMIT = varint(15);
const RAFT_VOTE_COMMIT_TERM = varint(16);

const GROUP_MESSAGE = section(1);

const CHUNK_MESSAGE = section(1);
const CHUNK_RECORD = section(2);

/** Estimates for the writer's first allocation. */
const ENVELOPE_BYTES_GUESS = 160;
const ENTRY_BYTES_GUESS = 32;

// ------------------------------------------------------------------------------------------------------------ writing

function sizeGuess(message: PeerMessage): number {
  const { body } = message;
  let size = ENVELOPE_BYTES_GUESS;
  if (body.type === 'raft') {
    size += body.message.context.length + (body.message.snapshot?.data.length ?? 0);
    for (const entry of body.message.entries) {
      size += entry.data.length + ENTRY_BYTES_GUESS;
    }
  }
  return size;
}

function writePeer(w: WireWriter, tag: number, peer: Peer): void {
  const before = w.size;
  w.optionalNumber(FIELD_3_VARINT, ROLES.indexOf(peer.role));
  w.optionalNumber(FIELD_2_VARINT, peer.storeId);
  w.optionalNumber(FIELD_1_VARINT, peer.id);
  w.section(tag, before);
}

function writeEpoch(w: WireWriter, tag: number, epoch: RegionEpoch): void {
  const before = w.size;
  w.optionalNumber(FIELD_2_VARINT, epoch.version);
  w.optionalNumber(FIELD_1_VARINT, epoch.confVer);
  w.section(tag, before);
}

function writeRange(w: WireWriter, tag: number, range: KeyRange): void {
  const before = w.size;
  w.optionalBytes(FIELD_2_SECTION, range.end);
  w.optionalBytes(FIELD_1_SECTION, range.start);
  w.section(tag, before);
}

function writeRegion(w: WireWriter, tag: number, region: Region): void {
  const before = w.size;
  for (let i = region.peers.length - 1; i >= 0; i--) {
    writePeer(w, FIELD_5_SECTION, region.peers[i] as Peer);
  }
  writeEpoch(w, FIELD_4_SECTION, region.epoch);
  w.optionalBytes(FIELD_3_SECTION, region.range.end);
  w.optionalBytes(FIELD_2_SECTION, region.range.start);
  w.optionalNumber(FIELD_1_VARINT, region.id);
  w.section(tag, before);
}

function writeEntry(w: WireWriter, tag: number, entry: Entry): void {
  const before = w.size;
  w.optionalBytes(FIELD_4_SECTION, entry.data);
  w.optionalNumber(FIELD_3_VARINT, entry.index);
  w.optionalNumber(FIELD_2_VARINT, entry.term);
  w.optionalNumber(FIELD_1_VARINT, entry.type);
  w.section(tag, before);
}

function writePacked(w: WireWriter, tag: number, values: readonly number[]): void {
  if (values.length > 0) {
    const before = w.size;
    for (let i = values.length - 1; i >= 0; i--) {
      w.number(values[i] as number);
    }
    w.section(tag, before);
  }
}

function writeSnapshot(w: WireWriter, tag: number, { data, metadata }: Snapshot): void {
  const before = w.size;
  const { confState } = metadata;
  const beforeConf = w.size;
  w.optionalBool(FIELD_5_VARINT, confState.autoLeave);
  writePacked(w, FIELD_4_SECTION, confState.learnersNext);
  writePacked(w, FIELD_3_SECTION, confState.learners);
  writePacked(w, FIELD_2_SECTION, confState.votersOutgoing);
  writePacked(w, FIELD_1_SECTION, confState.voters);
  w.section(FIELD_4_SECTION, beforeConf);
  w.optionalNumber(FIELD_3_VARINT, metadata.term);
  w.optionalNumber(FIELD_2_VARINT, metadata.index);
  w.optionalBytes(FIELD_1_SECTION, data);
  w.section(tag, before);
}

function writeRaft(w: WireWriter, tag: number, m: Message): void {
  assert(!LOCAL_TYPES.has(m.type) && m.responses.length === 0, 'local messages are never sent', { type: m.type });
  const before = w.size;
  w.optionalNumber(RAFT_VOTE_COMMIT_TERM, m.voteCommitTerm);
  w.optionalNumber(RAFT_VOTE_COMMIT, m.voteCommit);
  w.optionalNumber(RAFT_REPORTED_COMMIT, m.reportedCommit);
  w.optionalBytes(RAFT_CONTEXT, m.context);
  w.optionalNumber(RAFT_REJECT_HINT, m.rejectHint);
  w.optionalBool(RAFT_REJECT, m.reject);
  if (m.snapshot !== null) {
    writeSnapshot(w, RAFT_SNAPSHOT, m.snapshot);
  }
  w.optionalNumber(RAFT_VOTE, m.vote);
  w.optionalNumber(RAFT_COMMIT, m.commit);
  for (let i = m.entries.length - 1; i >= 0; i--) {
    writeEntry(w, RAFT_ENTRIES, m.entries[i] as Entry);
  }
  w.optionalNumber(RAFT_INDEX, m.index);
  w.optionalNumber(RAFT_LOG_TERM, m.logTerm);
  w.optionalNumber(RAFT_TERM, m.term);
  w.optionalNumber(RAFT_FROM, m.from);
  w.optionalNumber(RAFT_TO, m.to);
  w.optionalNumber(RAFT_TYPE, m.type);
  w.section(tag, before);
}

function writeBody(w: WireWriter, body: PeerMessageBody): void {
  const before = w.size;
  switch (body.type) {
    case 'raft':
      writeRaft(w, ENVELOPE_RAFT, body.message);
      return;
    case 'gc':
      if (body.mergeTarget !== undefined) {
        writeRegion(w, FIELD_1_SECTION, body.mergeTarget);
      }
      w.section(ENVELOPE_GC, before);
      return;
    case 'check-stale-peer':
      w.section(ENVELOPE_CHECK_STALE, before);
      return;
    case 'check-stale-peer-response':
      writeRegion(w, FIELD_1_SECTION, body.region);
      w.section(ENVELOPE_CHECK_STALE_RESPONSE, before);
      return;
    case 'want-rollback-merge':
      w.optionalNumber(FIELD_1_VARINT, body.commit);
      w.section(ENVELOPE_WANT_ROLLBACK, before);
      return;
    case 'wake-up':
      w.section(ENVELOPE_WAKE_UP, before);
      return;
    case 'hash-report':
      w.optionalBytes(FIELD_2_SECTION, body.hash);
      w.optionalNumber(FIELD_1_VARINT, body.index);
      w.section(ENVELOPE_HASH_REPORT, before);
      return;
    default:
      unreachable(body);
  }
}

function writeEnvelope(w: WireWriter, tag: number, message: PeerMessage): void {
  const before = w.size;
  writeBody(w, message.body);
  if (message.range !== undefined) {
    writeRange(w, ENVELOPE_RANGE, message.range);
  }
  writeEpoch(w, ENVELOPE_EPOCH, message.epoch);
  writePeer(w, ENVELOPE_TO, message.to);
  writePeer(w, ENVELOPE_FROM, message.from);
  w.optionalNumber(ENVELOPE_REGION_ID, message.regionId);
  w.section(tag, before);
}

/** One frame with all messages, in order. */
export function encodeFrame(messages: readonly PeerMessage[]): Uint8Array {
  const w = new WireWriter(messages.reduce((sum, message) => sum + sizeGuess(message), 0));
  for (let i = messages.length - 1; i >= 0; i--) {
    writeEnvelope(w, FRAME_ENVELOPE, messages[i] as PeerMessage);
  }
  return w.finish();
}

/** Messages of a group that needs no envelope: braid.pd.v1 GroupFrame, and SnapshotRequest with its one message. */
export function encodeGroupFrame(messages: readonly Message[]): Uint8Array {
  let bytes = 0;
  for (const message of messages) {
    bytes += ENVELOPE_BYTES_GUESS + message.context.length + (message.snapshot?.data.length ?? 0);
    for (const entry of message.entries) {
      bytes += entry.data.length + ENTRY_BYTES_GUESS;
    }
  }
  const w = new WireWriter(bytes);
  for (let i = messages.length - 1; i >= 0; i--) {
    writeRaft(w, GROUP_MESSAGE, messages[i] as Message);
  }
  return w.finish();
}

export function encodeSnapshotPart(part: SnapshotPart): Uint8Array {
  if (part.type === 'message') {
    const w = new WireWriter(sizeGuess(part.message));
    writeEnvelope(w, CHUNK_MESSAGE, part.message);
    return w.finish();
  }
  const record = encodeSnapshotChunk(part.chunk);
  const w = new WireWriter(record.length + ENTRY_BYTES_GUESS);
  w.bytes(CHUNK_RECORD, record);
  return w.finish();
}

// ------------------------------------------------------------------------------------------------------------ reading

function readPeer(r: WireReader): Peer {
  let id = 0;
  let store = 0;
  let role = 0;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === FIELD_1_VARINT) {
      id = r.uint64();
    } else if (tag === FIELD_2_VARINT) {
      store = r.uint64();
    } else if (tag === FIELD_3_VARINT) {
      role = r.int32();
    } else {
      r.skip(tag);
    }
  }
  const roleName = ROLES[role];
  if (roleName === undefined) {
    throw new Error(`unknown peer role ${role}`);
  }
  return { id: peerId(id), storeId: storeId(store), role: roleName };
}

function readEpoch(r: WireReader): RegionEpoch {
  let confVer = 0;
  let version = 0;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === FIELD_1_VARINT) {
      confVer = r.uint64();
    } else if (tag === FIELD_2_VARINT) {
      version = r.uint64();
    } else {
      r.skip(tag);
    }
  }
  return { confVer, version };
}

function readRange(r: WireReader): KeyRange {
  let start = EMPTY_BYTES;
  let end = EMPTY_BYTES;
  for (const sectionEnd = r.sectionEnd(); r.isBefore(sectionEnd); ) {
    const tag = r.tag();
    if (tag === FIELD_1_SECTION) {
      start = r.bytesCopy();
    } else if (tag === FIELD_2_SECTION) {
      end = r.bytesCopy();
    } else {
      r.skip(tag);
    }
  }
  return { start, end };
}

function readRegion(r: WireReader): Region {
  let id = 0;
  let start = EMPTY_BYTES;
  let endKey = EMPTY_BYTES;
  let epoch: RegionEpoch = { confVer: 0, version: 0 };
  const peers: Peer[] = [];
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === FIELD_1_VARINT) {
      id = r.uint64();
    } else if (tag === FIELD_2_SECTION) {
      start = r.bytesCopy();
    } else if (tag === FIELD_3_SECTION) {
      endKey = r.bytesCopy();
    } else if (tag === FIELD_4_SECTION) {
      epoch = readEpoch(r);
    } else if (tag === FIELD_5_SECTION) {
      peers.push(readPeer(r));
    } else {
      r.skip(tag);
    }
  }
  return { id: regionId(id), range: { start, end: endKey }, epoch, peers };
}

/** A message whose only field is a region at number 1. */
function readRegionField(r: WireReader): Region | undefined {
  let region: Region | undefined;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === FIELD_1_SECTION) {
      region = readRegion(r);
    } else {
      r.skip(tag);
    }
  }
  return region;
}

function readEntry(r: WireReader): Entry {
  let type = 0;
  let term = 0;
  let index = 0;
  let data = EMPTY_BYTES;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === FIELD_1_VARINT) {
      type = r.uint32();
    } else if (tag === FIELD_2_VARINT) {
      term = r.uint64();
    } else if (tag === FIELD_3_VARINT) {
      index = r.uint64();
    } else if (tag === FIELD_4_SECTION) {
      data = r.bytesCopy();
    } else {
      r.skip(tag);
    }
  }
  if (type > ENTRY_TYPE_MAX) {
    throw new Error(`unknown entry type ${type}`);
  }
  return { type: type as EntryType, term, index, data };
}

/** Packed and unpacked forms are both legal. */
function readNumbers(r: WireReader, tag: number, into: number[]): void {
  if ((tag & 7) === 0) {
    into.push(r.uint64());
    return;
  }
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    into.push(r.uint64());
  }
}

function readConfState(r: WireReader): ConfState {
  const lists: [number[], number[], number[], number[]] = [[], [], [], []];
  let autoLeave = false;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    const list = lists[(tag >>> 3) - 1];
    if (list !== undefined && ((tag & 7) === 0 || (tag & 7) === 2)) {
      readNumbers(r, tag, list);
    } else if (tag === FIELD_5_VARINT) {
      autoLeave = r.bool();
    } else {
      r.skip(tag);
    }
  }
  const [voters, votersOutgoing, learners, learnersNext] = lists;
  return { voters, votersOutgoing, learners, learnersNext, autoLeave };
}

function readSnapshot(r: WireReader): Snapshot {
  let data = EMPTY_BYTES;
  let index = 0;
  let term = 0;
  let confState: ConfState = { voters: [], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === FIELD_1_SECTION) {
      data = r.bytesCopy();
    } else if (tag === FIELD_2_VARINT) {
      index = r.uint64();
    } else if (tag === FIELD_3_VARINT) {
      term = r.uint64();
    } else if (tag === FIELD_4_SECTION) {
      confState = readConfState(r);
    } else {
      r.skip(tag);
    }
  }
  return { data, metadata: { index, term, confState } };
}

function readRaft(r: WireReader): Message {
  const entries: Entry[] = [];
  const m: Message = {
    type: MsgType.Hup,
    to: 0,
    from: 0,
    term: 0,
    logTerm: 0,
    index: 0,
    entries,
    commit: 0,
    vote: 0,
    snapshot: null,
    reject: false,
    rejectHint: 0,
    context: EMPTY_BYTES,
    responses: [],
    reportedCommit: 0,
    voteCommit: 0,
    voteCommitTerm: 0,
  };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    switch (tag) {
      case RAFT_TYPE:
        m.type = r.uint32() as MsgType;
        break;
      case RAFT_TO:
        m.to = r.uint64();
        break;
      case RAFT_FROM:
        m.from = r.uint64();
        break;
      case RAFT_TERM:
        m.term = r.uint64();
        break;
      case RAFT_LOG_TERM:
        m.logTerm = r.uint64();
        break;
      case RAFT_INDEX:
        m.index = r.uint64();
        break;
      case RAFT_ENTRIES:
        entries.push(readEntry(r));
        break;
      case RAFT_COMMIT:
        m.commit = r.uint64();
        break;
      case RAFT_VOTE:
        m.vote = r.uint64();
        break;
      case RAFT_SNAPSHOT:
        m.snapshot = readSnapshot(r);
        break;
      case RAFT_REJECT:
        m.reject = r.bool();
        break;
      case RAFT_REJECT_HINT:
        m.rejectHint = r.uint64();
        break;
      case RAFT_CONTEXT:
        m.context = r.bytesCopy();
        break;
      case RAFT_REPORTED_COMMIT:
        m.reportedCommit = r.uint64();
        break;
      case RAFT_VOTE_COMMIT:
        m.voteCommit = r.uint64();
        break;
      case RAFT_VOTE_COMMIT_TERM:
        m.voteCommitTerm = r.uint64();
        break;
      default:
        r.skip(tag);
    }
  }
  if (m.type > MSG_TYPE_MAX || LOCAL_TYPES.has(m.type)) {
    throw new Error(`message type ${m.type} does not travel`);
  }
  return m;
}

function readWantRollback(r: WireReader): number {
  let commit = 0;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === FIELD_1_VARINT) {
      commit = r.uint64();
    } else {
      r.skip(tag);
    }
  }
  return commit;
}

function readHashReport(r: WireReader): { readonly index: number; readonly hash: Uint8Array } {
  let index = 0;
  let hash: Uint8Array = EMPTY_BYTES;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === FIELD_1_VARINT) {
      index = r.uint64();
    } else if (tag === FIELD_2_SECTION) {
      hash = r.bytesCopy();
    } else {
      r.skip(tag);
    }
  }
  return { index, hash };
}

/** A body type this program does not know (from a newer store) gives undefined. */
function readEnvelope(r: WireReader): PeerMessage | undefined {
  let region = 0;
  let from: Peer | undefined;
  let to: Peer | undefined;
  let epoch: RegionEpoch = { confVer: 0, version: 0 };
  let range: KeyRange | undefined;
  let body: PeerMessageBody | undefined;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    switch (tag) {
      case ENVELOPE_REGION_ID:
        region = r.uint64();
        break;
      case ENVELOPE_FROM:
        from = readPeer(r);
        break;
      case ENVELOPE_TO:
        to = readPeer(r);
        break;
      case ENVELOPE_EPOCH:
        epoch = readEpoch(r);
        break;
      case ENVELOPE_RANGE:
        range = readRange(r);
        break;
      case ENVELOPE_RAFT:
        body = { type: 'raft', message: readRaft(r) };
        break;
      case ENVELOPE_GC:
        body = { type: 'gc', mergeTarget: readRegionField(r) };
        break;
      case ENVELOPE_CHECK_STALE:
        r.skip(tag);
        body = { type: 'check-stale-peer' };
        break;
      case ENVELOPE_CHECK_STALE_RESPONSE: {
        const current = readRegionField(r);
        if (current === undefined) {
          throw new Error('an answer about a stale peer names no region');
        }
        body = { type: 'check-stale-peer-response', region: current };
        break;
      }
      case ENVELOPE_WANT_ROLLBACK:
        body = { type: 'want-rollback-merge', commit: readWantRollback(r) };
        break;
      case ENVELOPE_WAKE_UP:
        r.skip(tag);
        body = { type: 'wake-up' };
        break;
      case ENVELOPE_HASH_REPORT:
        body = { type: 'hash-report', ...readHashReport(r) };
        break;
      default:
        r.skip(tag);
    }
  }
  if (from === undefined || to === undefined) {
    throw new Error('a message names no sender or no receiver');
  }
  return body === undefined ? undefined : { regionId: regionId(region), from, to, epoch, range, body };
}

/** @throws BadMessageError */
export function decodeGroupFrame(bytes: Uint8Array): Message[] {
  const messages: Message[] = [];
  try {
    const r = new WireReader(bytes);
    while (r.isBefore(r.length)) {
      const tag = r.tag();
      if (tag === GROUP_MESSAGE) {
        messages.push(readRaft(r));
      } else {
        r.skip(tag);
      }
    }
  } catch (cause) {
    throw new BadMessageError('braid.pd.v1.GroupFrame', cause);
  }
  return messages;
}

/** Messages with a body that only newer stores know are left out. @throws BadMessageError */
export function decodeFrame(bytes: Uint8Array): PeerMessage[] {
  const messages: PeerMessage[] = [];
  try {
    const r = new WireReader(bytes);
    while (r.isBefore(r.length)) {
      const tag = r.tag();
      if (tag === FRAME_ENVELOPE) {
        const message = readEnvelope(r);
        if (message !== undefined) {
          messages.push(message);
        }
      } else {
        r.skip(tag);
      }
    }
  } catch (cause) {
    throw new BadMessageError('braid.peer.v1.RaftFrame', cause);
  }
  return messages;
}

/** @throws BadMessageError, also for a part that is neither a message nor a chunk */
export function decodeSnapshotPart(bytes: Uint8Array): SnapshotPart {
  let part: SnapshotPart | undefined;
  try {
    const r = new WireReader(bytes);
    while (r.isBefore(r.length)) {
      const tag = r.tag();
      if (tag === CHUNK_MESSAGE) {
        const message = readEnvelope(r);
        part = message === undefined ? undefined : { type: 'message', message };
      } else if (tag === CHUNK_RECORD) {
        part = { type: 'chunk', chunk: decodeSnapshotChunk(r.bytes()) };
      } else {
        r.skip(tag);
      }
    }
  } catch (cause) {
    throw new BadMessageError('braid.peer.v1.SnapshotChunk', cause);
  }
  if (part === undefined) {
    throw new BadMessageError('braid.peer.v1.SnapshotChunk', new Error('empty'));
  }
  return part;
}
