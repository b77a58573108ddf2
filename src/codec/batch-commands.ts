/**
 * The messages of the BatchCommands stream, written by hand because every request and every reply of hot clients passes
 * here. Shapes are those of the generated code, so either can stand in for the other;
 * `test/property/codec-batch-commands.test.ts` holds them against each other. Rare commands and region errors go
 * through the generated code.
 *
 * Differences to the generated decoder: byte fields are views of the message all the same, but amounts that may
 * legally be huge (`ttl`, `max_execution_duration_ms`, `term`) saturate at 2^53-1 instead of breaking the stream for
 * everybody, and a field that reaches beyond its message is an error.
 */
import { EMPTY_BYTES } from '../base/bytes.ts';
import { Error as WireRegionError } from '../gen/errorpb.ts';
import {
  type APIVersion,
  type CommandPri,
  type Context,
  GetHealthFeedbackRequest,
  GetHealthFeedbackResponse,
  HealthFeedback,
  KeyError,
  type KvPair,
  RawBatchScanRequest,
  RawCoprocessorRequest,
  RawCoprocessorResponse,
} from '../gen/kvrpcpb.ts';
import type { Peer, PeerRole, RegionEpoch } from '../gen/metapb.ts';
import {
  BatchCommandsEmptyRequest,
  BatchCommandsEmptyResponse,
  type BatchCommandsRequest,
  type BatchCommandsRequest_Request,
  type BatchCommandsResponse,
  type BatchCommandsResponse_Response,
} from '../gen/tikvpb.ts';
import { BadMessageError } from './bad-message-error.ts';
import { WireReader } from './wire-reader.ts';
import { WireWriter } from './wire-writer.ts';

type Command = NonNullable<BatchCommandsRequest_Request['cmd']>;
type Reply = NonNullable<BatchCommandsResponse_Response['cmd']>;
type CommandOf<Case extends Command['$case']> = Extract<Command, { $case: Case }>['value'];
type ReplyOf<Case extends Reply['$case']> = Extract<Reply, { $case: Case }>['value'];

const varint = (field: number): number => field << 3;
const section = (field: number): number => (field << 3) | 2;

/** Field numbers of the commands, the same on both sides. */
const RAW_GET = section(13);
const RAW_BATCH_GET = section(14);
const RAW_PUT = section(15);
const RAW_BATCH_PUT = section(16);
const RAW_DELETE = section(17);
const RAW_BATCH_DELETE = section(18);
const RAW_SCAN = section(19);
const RAW_DELETE_RANGE = section(20);
const RAW_BATCH_SCAN = section(21);
const RAW_COPROCESSOR = section(34);
const GET_HEALTH_FEEDBACK = section(39);
const EMPTY = section(255);

const V1 = varint(1);
const V2 = varint(2);
const V3 = varint(3);
const V4 = varint(4);
const V5 = varint(5);
const V6 = varint(6);
const S1 = section(1);
const S2 = section(2);
const S3 = section(3);
const S4 = section(4);
const S5 = section(5);
const S6 = section(6);
const S7 = section(7);

const CONTEXT_REGION_ID = varint(1);
const CONTEXT_EPOCH = section(2);
const CONTEXT_PEER = section(3);
const CONTEXT_TERM = varint(5);
const CONTEXT_PRIORITY = varint(6);
const CONTEXT_REPLICA_READ = varint(12);
const CONTEXT_MAX_EXECUTION_MS = varint(14);
const CONTEXT_STALE_READ = varint(17);
const CONTEXT_IS_RETRY = varint(20);
const CONTEXT_API_VERSION = varint(21);
const CONTEXT_REQUEST_SOURCE = section(24);
const CONTEXT_BUSY_THRESHOLD = varint(27);
const CONTEXT_KEYSPACE_ID = varint(32);
const CONTEXT_CLUSTER_ID = varint(35);

/** Estimates for the writer's first allocation. */
const COMMAND_BYTES_GUESS = 96;
const REPLY_BYTES_GUESS = 24;
const PAIR_BYTES_GUESS = 12;

// ------------------------------------------------------------------------------------------------------ reading: parts

function readEpoch(r: WireReader): RegionEpoch {
  const epoch: RegionEpoch = { confVer: 0, version: 0 };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === V1) {
      epoch.confVer = r.uint64();
    } else if (tag === V2) {
      epoch.version = r.uint64();
    } else {
      r.skip(tag);
    }
  }
  return epoch;
}

function readPeer(r: WireReader): Peer {
  const peer: Peer = { id: 0, storeId: 0, role: 0, isWitness: false };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === V1) {
      peer.id = r.uint64();
    } else if (tag === V2) {
      peer.storeId = r.uint64();
    } else if (tag === V3) {
      peer.role = r.int32() as PeerRole;
    } else if (tag === V4) {
      peer.isWitness = r.bool();
    } else {
      r.skip(tag);
    }
  }
  return peer;
}

function readContext(r: WireReader): Context {
  const context: Context = {
    regionId: 0,
    regionEpoch: undefined,
    peer: undefined,
    term: 0,
    priority: 0,
    replicaRead: false,
    maxExecutionDurationMs: 0,
    staleRead: false,
    isRetryRequest: false,
    apiVersion: 0,
    requestSource: '',
    busyThresholdMs: 0,
    keyspaceId: 0,
    clusterId: '0',
  };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    switch (tag) {
      case CONTEXT_REGION_ID:
        context.regionId = r.uint64();
        break;
      case CONTEXT_EPOCH:
        context.regionEpoch = readEpoch(r);
        break;
      case CONTEXT_PEER:
        context.peer = readPeer(r);
        break;
      case CONTEXT_TERM:
        context.term = r.uint64Saturated();
        break;
      case CONTEXT_PRIORITY:
        context.priority = r.int32() as CommandPri;
        break;
      case CONTEXT_REPLICA_READ:
        context.replicaRead = r.bool();
        break;
      case CONTEXT_MAX_EXECUTION_MS:
        context.maxExecutionDurationMs = r.uint64Saturated();
        break;
      case CONTEXT_STALE_READ:
        context.staleRead = r.bool();
        break;
      case CONTEXT_IS_RETRY:
        context.isRetryRequest = r.bool();
        break;
      case CONTEXT_API_VERSION:
        context.apiVersion = r.int32() as APIVersion;
        break;
      case CONTEXT_REQUEST_SOURCE:
        context.requestSource = r.string();
        break;
      case CONTEXT_BUSY_THRESHOLD:
        context.busyThresholdMs = r.uint32();
        break;
      case CONTEXT_KEYSPACE_ID:
        context.keyspaceId = r.uint32();
        break;
      case CONTEXT_CLUSTER_ID:
        context.clusterId = r.uint64Text();
        break;
      default:
        r.skip(tag);
    }
  }
  return context;
}

function readPair(r: WireReader): KvPair {
  const pair: KvPair = { error: undefined, key: EMPTY_BYTES, value: EMPTY_BYTES };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S2) {
      pair.key = r.bytes();
    } else if (tag === S3) {
      pair.value = r.bytes();
    } else if (tag === S1) {
      pair.error = KeyError.decode(r.bytes());
    } else {
      r.skip(tag);
    }
  }
  return pair;
}

/** Elements of a packed field, saturated. */
function readPackedSaturated(r: WireReader, into: number[]): void {
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    into.push(r.uint64Saturated());
  }
}

// --------------------------------------------------------------------------------------------------- reading: requests

function readRawGet(r: WireReader): CommandOf<'RawGet'> {
  const m: CommandOf<'RawGet'> = { context: undefined, key: EMPTY_BYTES, cf: '' };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.context = readContext(r);
    } else if (tag === S2) {
      m.key = r.bytes();
    } else if (tag === S3) {
      m.cf = r.string();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

function readRawBatchGet(r: WireReader): CommandOf<'RawBatchGet'> {
  const m: CommandOf<'RawBatchGet'> = { context: undefined, keys: [], cf: '' };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.context = readContext(r);
    } else if (tag === S2) {
      m.keys.push(r.bytes());
    } else if (tag === S3) {
      m.cf = r.string();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

function readRawPut(r: WireReader): CommandOf<'RawPut'> {
  const m: CommandOf<'RawPut'> = {
    context: undefined,
    key: EMPTY_BYTES,
    value: EMPTY_BYTES,
    cf: '',
    ttl: 0,
    forCas: false,
  };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.context = readContext(r);
    } else if (tag === S2) {
      m.key = r.bytes();
    } else if (tag === S3) {
      m.value = r.bytes();
    } else if (tag === S4) {
      m.cf = r.string();
    } else if (tag === V5) {
      m.ttl = r.uint64Saturated();
    } else if (tag === V6) {
      m.forCas = r.bool();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

function readRawBatchPut(r: WireReader): CommandOf<'RawBatchPut'> {
  const m: CommandOf<'RawBatchPut'> = { context: undefined, pairs: [], cf: '', ttl: 0, forCas: false, ttls: [] };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.context = readContext(r);
    } else if (tag === S2) {
      m.pairs.push(readPair(r));
    } else if (tag === S3) {
      m.cf = r.string();
    } else if (tag === V4) {
      m.ttl = r.uint64Saturated();
    } else if (tag === V5) {
      m.forCas = r.bool();
    } else if (tag === S6) {
      readPackedSaturated(r, m.ttls);
    } else if (tag === V6) {
      m.ttls.push(r.uint64Saturated());
    } else {
      r.skip(tag);
    }
  }
  return m;
}

function readRawDelete(r: WireReader): CommandOf<'RawDelete'> {
  const m: CommandOf<'RawDelete'> = { context: undefined, key: EMPTY_BYTES, cf: '', forCas: false };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.context = readContext(r);
    } else if (tag === S2) {
      m.key = r.bytes();
    } else if (tag === S3) {
      m.cf = r.string();
    } else if (tag === V4) {
      m.forCas = r.bool();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

function readRawBatchDelete(r: WireReader): CommandOf<'RawBatchDelete'> {
  const m: CommandOf<'RawBatchDelete'> = { context: undefined, keys: [], cf: '', forCas: false };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.context = readContext(r);
    } else if (tag === S2) {
      m.keys.push(r.bytes());
    } else if (tag === S3) {
      m.cf = r.string();
    } else if (tag === V4) {
      m.forCas = r.bool();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

function readRawScan(r: WireReader): CommandOf<'RawScan'> {
  const m: CommandOf<'RawScan'> = {
    context: undefined,
    startKey: EMPTY_BYTES,
    limit: 0,
    keyOnly: false,
    cf: '',
    reverse: false,
    endKey: EMPTY_BYTES,
  };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.context = readContext(r);
    } else if (tag === S2) {
      m.startKey = r.bytes();
    } else if (tag === V3) {
      m.limit = r.uint32();
    } else if (tag === V4) {
      m.keyOnly = r.bool();
    } else if (tag === S5) {
      m.cf = r.string();
    } else if (tag === V6) {
      m.reverse = r.bool();
    } else if (tag === S7) {
      m.endKey = r.bytes();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

function readRawDeleteRange(r: WireReader): CommandOf<'RawDeleteRange'> {
  const m: CommandOf<'RawDeleteRange'> = { context: undefined, startKey: EMPTY_BYTES, endKey: EMPTY_BYTES, cf: '' };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.context = readContext(r);
    } else if (tag === S2) {
      m.startKey = r.bytes();
    } else if (tag === S3) {
      m.endKey = r.bytes();
    } else if (tag === S4) {
      m.cf = r.string();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

/** Undefined if the field is none of ours; then nothing was read. */
function readCommandField(r: WireReader, tag: number): Command | undefined {
  switch (tag) {
    case RAW_GET:
      return { $case: 'RawGet', value: readRawGet(r) };
    case RAW_BATCH_GET:
      return { $case: 'RawBatchGet', value: readRawBatchGet(r) };
    case RAW_PUT:
      return { $case: 'RawPut', value: readRawPut(r) };
    case RAW_BATCH_PUT:
      return { $case: 'RawBatchPut', value: readRawBatchPut(r) };
    case RAW_DELETE:
      return { $case: 'RawDelete', value: readRawDelete(r) };
    case RAW_BATCH_DELETE:
      return { $case: 'RawBatchDelete', value: readRawBatchDelete(r) };
    case RAW_SCAN:
      return { $case: 'RawScan', value: readRawScan(r) };
    case RAW_DELETE_RANGE:
      return { $case: 'RawDeleteRange', value: readRawDeleteRange(r) };
    case RAW_BATCH_SCAN:
      return { $case: 'RawBatchScan', value: RawBatchScanRequest.decode(r.bytes()) };
    case RAW_COPROCESSOR:
      return { $case: 'RawCoprocessor', value: RawCoprocessorRequest.decode(r.bytes()) };
    case GET_HEALTH_FEEDBACK:
      return { $case: 'GetHealthFeedback', value: GetHealthFeedbackRequest.decode(r.bytes()) };
    case EMPTY:
      return { $case: 'Empty', value: BatchCommandsEmptyRequest.decode(r.bytes()) };
    default:
      return undefined;
  }
}

function readRequest(r: WireReader): BatchCommandsRequest_Request {
  const request: BatchCommandsRequest_Request = { cmd: undefined };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    const command = readCommandField(r, tag);
    if (command === undefined) {
      r.skip(tag);
    } else {
      request.cmd = command;
    }
  }
  return request;
}

function readIds(r: WireReader, into: number[]): void {
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    into.push(r.uint64());
  }
}

/**
 * A command that this program does not know is a request without `cmd`; it must be answered all the same. The number
 * of requests and ids is not compared here.
 *
 * @throws BadMessageError
 */
export function decodeBatchRequest(bytes: Uint8Array): BatchCommandsRequest {
  const message: BatchCommandsRequest = { requests: [], requestIds: [] };
  try {
    const r = new WireReader(bytes);
    while (r.isBefore(r.length)) {
      const tag = r.tag();
      if (tag === S1) {
        message.requests.push(readRequest(r));
      } else if (tag === S2) {
        readIds(r, message.requestIds);
      } else if (tag === V2) {
        message.requestIds.push(r.uint64());
      } else {
        r.skip(tag);
      }
    }
  } catch (cause) {
    throw new BadMessageError('tikvpb.BatchCommandsRequest', cause);
  }
  return message;
}

// ---------------------------------------------------------------------------------------------------- reading: replies

function readRawGetReply(r: WireReader): ReplyOf<'RawGet'> {
  const m: ReplyOf<'RawGet'> = { regionError: undefined, error: '', value: EMPTY_BYTES, notFound: false };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S3) {
      m.value = r.bytes();
    } else if (tag === V4) {
      m.notFound = r.bool();
    } else if (tag === S1) {
      m.regionError = WireRegionError.decode(r.bytes());
    } else if (tag === S2) {
      m.error = r.string();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

/** The common form of all writes. */
function readWriteReply(r: WireReader): ReplyOf<'RawPut'> {
  const m: ReplyOf<'RawPut'> = { regionError: undefined, error: '' };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S1) {
      m.regionError = WireRegionError.decode(r.bytes());
    } else if (tag === S2) {
      m.error = r.string();
    } else {
      r.skip(tag);
    }
  }
  return m;
}

/** The common form of all reads of several pairs; only the name of the list differs. */
function readPairsReply(r: WireReader, pairs: KvPair[]): WireRegionError | undefined {
  let regionError: WireRegionError | undefined;
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    if (tag === S2) {
      pairs.push(readPair(r));
    } else if (tag === S1) {
      regionError = WireRegionError.decode(r.bytes());
    } else {
      r.skip(tag);
    }
  }
  return regionError;
}

function readKvsReply(r: WireReader): ReplyOf<'RawScan'> {
  const kvs: KvPair[] = [];
  const regionError = readPairsReply(r, kvs);
  return { regionError, kvs };
}

function readReplyField(r: WireReader, tag: number): Reply | undefined {
  switch (tag) {
    case RAW_GET:
      return { $case: 'RawGet', value: readRawGetReply(r) };
    case RAW_BATCH_GET: {
      const pairs: KvPair[] = [];
      const regionError = readPairsReply(r, pairs);
      return { $case: 'RawBatchGet', value: { regionError, pairs } };
    }
    case RAW_PUT:
      return { $case: 'RawPut', value: readWriteReply(r) };
    case RAW_BATCH_PUT:
      return { $case: 'RawBatchPut', value: readWriteReply(r) };
    case RAW_DELETE:
      return { $case: 'RawDelete', value: readWriteReply(r) };
    case RAW_BATCH_DELETE:
      return { $case: 'RawBatchDelete', value: readWriteReply(r) };
    case RAW_SCAN:
      return { $case: 'RawScan', value: readKvsReply(r) };
    case RAW_DELETE_RANGE:
      return { $case: 'RawDeleteRange', value: readWriteReply(r) };
    case RAW_BATCH_SCAN:
      return { $case: 'RawBatchScan', value: readKvsReply(r) };
    case RAW_COPROCESSOR:
      return { $case: 'RawCoprocessor', value: RawCoprocessorResponse.decode(r.bytes()) };
    case GET_HEALTH_FEEDBACK:
      return { $case: 'GetHealthFeedback', value: GetHealthFeedbackResponse.decode(r.bytes()) };
    case EMPTY:
      return { $case: 'Empty', value: BatchCommandsEmptyResponse.decode(r.bytes()) };
    default:
      return undefined;
  }
}

function readReply(r: WireReader): BatchCommandsResponse_Response {
  const response: BatchCommandsResponse_Response = { cmd: undefined };
  for (const end = r.sectionEnd(); r.isBefore(end); ) {
    const tag = r.tag();
    const reply = readReplyField(r, tag);
    if (reply === undefined) {
      r.skip(tag);
    } else {
      response.cmd = reply;
    }
  }
  return response;
}

/** @throws BadMessageError */
export function decodeBatchResponse(bytes: Uint8Array): BatchCommandsResponse {
  const message: BatchCommandsResponse = {
    responses: [],
    requestIds: [],
    transportLayerLoad: 0,
    healthFeedback: undefined,
  };
  try {
    const r = new WireReader(bytes);
    while (r.isBefore(r.length)) {
      const tag = r.tag();
      if (tag === S1) {
        message.responses.push(readReply(r));
      } else if (tag === S2) {
        readIds(r, message.requestIds);
      } else if (tag === V2) {
        message.requestIds.push(r.uint64());
      } else if (tag === V3) {
        message.transportLayerLoad = r.uint64Saturated();
      } else if (tag === S4) {
        message.healthFeedback = HealthFeedback.decode(r.bytes());
      } else {
        r.skip(tag);
      }
    }
  } catch (cause) {
    throw new BadMessageError('tikvpb.BatchCommandsResponse', cause);
  }
  return message;
}

// ------------------------------------------------------------------------------------------------------ writing: parts
// Everything is written from the last field to the first.

function writeEpoch(w: WireWriter, tag: number, epoch: RegionEpoch): void {
  const before = w.size;
  w.optionalNumber(V2, epoch.version);
  w.optionalNumber(V1, epoch.confVer);
  w.section(tag, before);
}

function writePeer(w: WireWriter, tag: number, peer: Peer): void {
  const before = w.size;
  w.optionalBool(V4, peer.isWitness);
  w.optionalNumber(V3, peer.role);
  w.optionalNumber(V2, peer.storeId);
  w.optionalNumber(V1, peer.id);
  w.section(tag, before);
}

function writeContext(w: WireWriter, context: Context | undefined): void {
  if (context === undefined) {
    return;
  }
  const before = w.size;
  w.optionalDecimal(CONTEXT_CLUSTER_ID, context.clusterId);
  w.optionalNumber(CONTEXT_KEYSPACE_ID, context.keyspaceId);
  w.optionalNumber(CONTEXT_BUSY_THRESHOLD, context.busyThresholdMs);
  w.optionalString(CONTEXT_REQUEST_SOURCE, context.requestSource);
  w.optionalNumber(CONTEXT_API_VERSION, context.apiVersion);
  w.optionalBool(CONTEXT_IS_RETRY, context.isRetryRequest);
  w.optionalBool(CONTEXT_STALE_READ, context.staleRead);
  w.optionalNumber(CONTEXT_MAX_EXECUTION_MS, context.maxExecutionDurationMs);
  w.optionalBool(CONTEXT_REPLICA_READ, context.replicaRead);
  w.optionalNumber(CONTEXT_PRIORITY, context.priority);
  w.optionalNumber(CONTEXT_TERM, context.term);
  if (context.peer !== undefined) {
    writePeer(w, CONTEXT_PEER, context.peer);
  }
  if (context.regionEpoch !== undefined) {
    writeEpoch(w, CONTEXT_EPOCH, context.regionEpoch);
  }
  w.optionalNumber(CONTEXT_REGION_ID, context.regionId);
  w.section(S1, before);
}

function writeKeys(w: WireWriter, keys: readonly Uint8Array[]): void {
  for (let i = keys.length - 1; i >= 0; i--) {
    w.bytes(S2, keys[i] as Uint8Array);
  }
}

/** A list of pairs, which is field 2 wherever it occurs. */
function writePairs(w: WireWriter, pairs: readonly KvPair[]): void {
  for (let i = pairs.length - 1; i >= 0; i--) {
    const pair = pairs[i] as KvPair;
    const before = w.size;
    w.optionalBytes(S3, pair.value);
    w.optionalBytes(S2, pair.key);
    if (pair.error !== undefined) {
      w.bytes(S1, KeyError.encode(pair.error).finish());
    }
    w.section(S2, before);
  }
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

// --------------------------------------------------------------------------------------------------- writing: requests

function writeCommand(w: WireWriter, command: Command): void {
  const before = w.size;
  switch (command.$case) {
    case 'RawGet':
      w.optionalString(S3, command.value.cf);
      w.optionalBytes(S2, command.value.key);
      writeContext(w, command.value.context);
      w.section(RAW_GET, before);
      return;
    case 'RawBatchGet':
      w.optionalString(S3, command.value.cf);
      writeKeys(w, command.value.keys);
      writeContext(w, command.value.context);
      w.section(RAW_BATCH_GET, before);
      return;
    case 'RawPut':
      w.optionalBool(V6, command.value.forCas);
      w.optionalNumber(V5, command.value.ttl);
      w.optionalString(S4, command.value.cf);
      w.optionalBytes(S3, command.value.value);
      w.optionalBytes(S2, command.value.key);
      writeContext(w, command.value.context);
      w.section(RAW_PUT, before);
      return;
    case 'RawBatchPut':
      writePacked(w, S6, command.value.ttls);
      w.optionalBool(V5, command.value.forCas);
      w.optionalNumber(V4, command.value.ttl);
      w.optionalString(S3, command.value.cf);
      writePairs(w, command.value.pairs);
      writeContext(w, command.value.context);
      w.section(RAW_BATCH_PUT, before);
      return;
    case 'RawDelete':
      w.optionalBool(V4, command.value.forCas);
      w.optionalString(S3, command.value.cf);
      w.optionalBytes(S2, command.value.key);
      writeContext(w, command.value.context);
      w.section(RAW_DELETE, before);
      return;
    case 'RawBatchDelete':
      w.optionalBool(V4, command.value.forCas);
      w.optionalString(S3, command.value.cf);
      writeKeys(w, command.value.keys);
      writeContext(w, command.value.context);
      w.section(RAW_BATCH_DELETE, before);
      return;
    case 'RawScan':
      w.optionalBytes(S7, command.value.endKey);
      w.optionalBool(V6, command.value.reverse);
      w.optionalString(S5, command.value.cf);
      w.optionalBool(V4, command.value.keyOnly);
      w.optionalNumber(V3, command.value.limit);
      w.optionalBytes(S2, command.value.startKey);
      writeContext(w, command.value.context);
      w.section(RAW_SCAN, before);
      return;
    case 'RawDeleteRange':
      w.optionalString(S4, command.value.cf);
      w.optionalBytes(S3, command.value.endKey);
      w.optionalBytes(S2, command.value.startKey);
      writeContext(w, command.value.context);
      w.section(RAW_DELETE_RANGE, before);
      return;
    case 'RawBatchScan':
      w.bytes(RAW_BATCH_SCAN, RawBatchScanRequest.encode(command.value).finish());
      return;
    case 'RawCoprocessor':
      w.bytes(RAW_COPROCESSOR, RawCoprocessorRequest.encode(command.value).finish());
      return;
    case 'GetHealthFeedback':
      w.bytes(GET_HEALTH_FEEDBACK, GetHealthFeedbackRequest.encode(command.value).finish());
      return;
    case 'Empty':
      w.bytes(EMPTY, BatchCommandsEmptyRequest.encode(command.value).finish());
  }
}

const sizeOfPairs = (pairs: readonly KvPair[]): number =>
  pairs.reduce((sum, { key, value }) => sum + key.length + value.length + PAIR_BYTES_GUESS, 0);

const sizeOfKeys = (keys: readonly Uint8Array[]): number =>
  keys.reduce((sum, key) => sum + key.length + PAIR_BYTES_GUESS, 0);

function guessCommand(command: Command | undefined): number {
  switch (command?.$case) {
    case 'RawGet':
    case 'RawDelete':
      return COMMAND_BYTES_GUESS + command.value.key.length;
    case 'RawPut':
      return COMMAND_BYTES_GUESS + command.value.key.length + command.value.value.length;
    case 'RawBatchGet':
    case 'RawBatchDelete':
      return COMMAND_BYTES_GUESS + sizeOfKeys(command.value.keys);
    case 'RawBatchPut':
      return COMMAND_BYTES_GUESS + sizeOfPairs(command.value.pairs);
    default:
      return COMMAND_BYTES_GUESS;
  }
}

export function encodeBatchRequest(message: BatchCommandsRequest): Uint8Array {
  const { requests, requestIds } = message;
  let capacity = requestIds.length * 10;
  for (const { cmd } of requests) {
    capacity += guessCommand(cmd);
  }
  const w = new WireWriter(capacity);
  writePacked(w, S2, requestIds);
  for (let i = requests.length - 1; i >= 0; i--) {
    const before = w.size;
    const { cmd } = requests[i] as BatchCommandsRequest_Request;
    if (cmd !== undefined) {
      writeCommand(w, cmd);
    }
    w.section(S1, before);
  }
  return w.finish();
}

// ---------------------------------------------------------------------------------------------------- writing: replies

function writeRegionError(w: WireWriter, error: WireRegionError | undefined): void {
  if (error !== undefined) {
    w.bytes(S1, WireRegionError.encode(error).finish());
  }
}

function writeReply(w: WireWriter, reply: Reply): void {
  const before = w.size;
  switch (reply.$case) {
    case 'RawGet':
      w.optionalBool(V4, reply.value.notFound);
      w.optionalBytes(S3, reply.value.value);
      w.optionalString(S2, reply.value.error);
      writeRegionError(w, reply.value.regionError);
      w.section(RAW_GET, before);
      return;
    case 'RawBatchGet':
      writePairs(w, reply.value.pairs);
      writeRegionError(w, reply.value.regionError);
      w.section(RAW_BATCH_GET, before);
      return;
    case 'RawScan':
    case 'RawBatchScan':
      writePairs(w, reply.value.kvs);
      writeRegionError(w, reply.value.regionError);
      w.section(reply.$case === 'RawScan' ? RAW_SCAN : RAW_BATCH_SCAN, before);
      return;
    case 'RawPut':
    case 'RawBatchPut':
    case 'RawDelete':
    case 'RawBatchDelete':
    case 'RawDeleteRange':
      w.optionalString(S2, reply.value.error);
      writeRegionError(w, reply.value.regionError);
      w.section(WRITE_REPLY_TAGS[reply.$case], before);
      return;
    case 'RawCoprocessor':
      w.bytes(RAW_COPROCESSOR, RawCoprocessorResponse.encode(reply.value).finish());
      return;
    case 'GetHealthFeedback':
      w.bytes(GET_HEALTH_FEEDBACK, GetHealthFeedbackResponse.encode(reply.value).finish());
      return;
    case 'Empty':
      w.bytes(EMPTY, BatchCommandsEmptyResponse.encode(reply.value).finish());
  }
}

const WRITE_REPLY_TAGS = {
  RawPut: RAW_PUT,
  RawBatchPut: RAW_BATCH_PUT,
  RawDelete: RAW_DELETE,
  RawBatchDelete: RAW_BATCH_DELETE,
  RawDeleteRange: RAW_DELETE_RANGE,
} as const;

function guessReply(reply: Reply | undefined): number {
  switch (reply?.$case) {
    case 'RawGet':
      return REPLY_BYTES_GUESS + reply.value.value.length;
    case 'RawBatchGet':
      return REPLY_BYTES_GUESS + sizeOfPairs(reply.value.pairs);
    case 'RawScan':
    case 'RawBatchScan':
      return REPLY_BYTES_GUESS + sizeOfPairs(reply.value.kvs);
    default:
      return REPLY_BYTES_GUESS;
  }
}

export function encodeBatchResponse(message: BatchCommandsResponse): Uint8Array {
  const { responses, requestIds } = message;
  let capacity = requestIds.length * 10;
  for (const { cmd } of responses) {
    capacity += guessReply(cmd);
  }
  const w = new WireWriter(capacity);
  if (message.healthFeedback !== undefined) {
    w.bytes(S4, HealthFeedback.encode(message.healthFeedback).finish());
  }
  w.optionalNumber(V3, message.transportLayerLoad);
  writePacked(w, S2, requestIds);
  for (let i = responses.length - 1; i >= 0; i--) {
    const before = w.size;
    const { cmd } = responses[i] as BatchCommandsResponse_Response;
    if (cmd !== undefined) {
      writeReply(w, cmd);
    }
    w.section(S1, before);
  }
  return w.finish();
}
