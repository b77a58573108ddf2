/**
 * The SDK's end of the store protocol: commands to request messages, replies back. Owns the rule that bytes handed to
 * users never pin a whole received message.
 */
import { EMPTY_BYTES } from '../base/bytes.ts';
import { intersectRanges } from '../base/key-range.ts';
import { InvariantError, assert, unreachable } from '../base/assert.ts';
import { type Channel, RpcError, RpcStatus } from '../env/net.ts';
import { decodeBatchResponse, encodeBatchRequest } from '../codec/batch-commands.ts';
import { fromWireRegionError } from '../codec/error-wire.ts';
import { toWirePeer } from '../codec/meta-wire.ts';
import { unaryCall } from '../rpc/call.ts';
import type { Method } from '../rpc/method.ts';
import { healthMethods, tikvMethods } from '../rpc/services.ts';
import type { Call } from './call.ts';
import { type Command, type CommandType, DONE, type Entry, type Reply } from './command.ts';

export const BATCH_METHOD: string = tikvMethods.batchCommands.path;

type RequestOf<M> = M extends Method<infer Request, unknown> ? Request : never;
type ReplyOf<M> = M extends Method<infer _Request, infer R> ? R : never;

type BatchRequest = RequestOf<typeof tikvMethods.batchCommands>;
type BatchCommand = BatchRequest['requests'][number];
type BatchReply = NonNullable<ReplyOf<typeof tikvMethods.batchCommands>['responses'][number]['cmd']>;
type WireContext = NonNullable<RequestOf<typeof tikvMethods.rawGet>['context']>;
type WireError = NonNullable<ReplyOf<typeof tikvMethods.rawGet>['regionError']>;

/** The default column family; the others belong to transactions. */
const DEFAULT_CF = '';

function contextOf(call: Call, clusterId: string, nowMs: number): WireContext {
  const { entry, peer } = call;
  assert(entry !== undefined && peer !== undefined, 'only routed calls are encoded');
  const { id, epoch } = entry.region;
  return {
    regionId: id,
    regionEpoch: { confVer: epoch.confVer, version: epoch.version },
    peer: toWirePeer(peer),
    term: 0,
    priority: 0,
    replicaRead: call.read === 'follower',
    // What has not begun by then must never begin: the caller has given up.
    maxExecutionDurationMs: Math.max(1, Math.floor(call.dueMs - nowMs)),
    staleRead: false,
    isRetryRequest: call.attempts > 0,
    apiVersion: 0,
    // Stores answer this client with the current regions instead of working for its outdated ones.
    requestSource: 'braid',
    busyThresholdMs: 0,
    keyspaceId: 0,
    clusterId,
  };
}

/** Decimal cluster id that is not checked. */
export const ANY_CLUSTER = '0';

/**
 * One message with the commands of several calls. Only its first command carries the cluster id, and needs to only in
 * the first message of a stream: a store process belongs to one cluster for life.
 */
export function encodeCalls(calls: readonly Call[], clusterId: string, nowMs: number): Uint8Array {
  const requests: BatchCommand[] = [];
  const requestIds: number[] = [];
  for (const call of calls) {
    const id = requests.length === 0 ? clusterId : ANY_CLUSTER;
    requests.push(batchCommandOf(call, contextOf(call, id, nowMs)));
    requestIds.push(call.requestId);
  }
  return encodeBatchRequest({ requests, requestIds });
}

function batchCommandOf(call: Call, context: WireContext): BatchCommand {
  const { command } = call;
  const cf = DEFAULT_CF;
  switch (command.type) {
    case 'get':
      return { cmd: { $case: 'RawGet', value: { context, key: command.key, cf } } };
    case 'batch-get':
      return { cmd: { $case: 'RawBatchGet', value: { context, keys: [...command.keys], cf } } };
    case 'put':
      return {
        cmd: {
          $case: 'RawPut',
          value: { context, key: command.key, value: command.value, cf, ttl: command.ttlSeconds, forCas: false },
        },
      };
    case 'batch-put': {
      const pairs = command.entries.map(({ key, value }) => ({ key, value }));
      const ttls = command.entries.some((entry) => entry.ttlSeconds > 0)
        ? command.entries.map((entry) => entry.ttlSeconds)
        : [];
      return { cmd: { $case: 'RawBatchPut', value: { context, pairs, cf, ttl: 0, forCas: false, ttls } } };
    }
    case 'delete':
      return { cmd: { $case: 'RawDelete', value: { context, key: command.key, cf, forCas: false } } };
    case 'batch-delete':
      return { cmd: { $case: 'RawBatchDelete', value: { context, keys: [...command.keys], cf, forCas: false } } };
    case 'delete-range': {
      const { start, end } = partInRegion(call);
      return { cmd: { $case: 'RawDeleteRange', value: { context, startKey: start, endKey: end, cf } } };
    }
    case 'scan': {
      const { start, end } = partInRegion(call);
      return {
        cmd: {
          $case: 'RawScan',
          value: {
            context,
            // A descending scan starts at its exclusive upper bound.
            startKey: command.reverse ? end : start,
            endKey: command.reverse ? start : end,
            limit: command.limit,
            keyOnly: command.keysOnly,
            cf,
            reverse: command.reverse,
          },
        },
      };
    }
    case 'locate':
    case 'ttl':
    case 'compare-and-swap':
      throw new InvariantError('not a command of the batch stream', { type: command.type });
    default:
      return unreachable(command);
  }
}

/** The part of a scan or range deletion that lies in the region it goes to. */
function partInRegion(call: Call): { readonly start: Uint8Array; readonly end: Uint8Array } {
  const { command, entry } = call;
  assert(entry !== undefined && (command.type === 'scan' || command.type === 'delete-range'), 'a routed range command');
  const part = intersectRanges(command.range, entry.region.range);
  assert(part !== undefined, 'a range command is routed by a key of its range', { regionId: entry.region.id });
  return part;
}

/** Calls `onReply` for each reply of a message. Throws on malformed messages, then possibly after some calls. */
export function decodeReplies(message: Uint8Array, onReply: (id: number, reply: Reply) => void): void {
  const { responses, requestIds } = decodeBatchResponse(message);
  if (responses.length !== requestIds.length) {
    throw new RpcError(RpcStatus.INTERNAL, `${responses.length} responses for ${requestIds.length} request ids`);
  }
  for (let i = 0; i < responses.length; i++) {
    onReply(requestIds[i] as number, replyOf(responses[i]?.cmd, message.length));
  }
}

function replyOf(cmd: BatchReply | undefined, messageBytes: number): Reply {
  if (cmd === undefined) {
    return { type: 'failed', message: 'the store does not know this command' };
  }
  switch (cmd.$case) {
    case 'RawGet': {
      const { regionError, error, notFound, value } = cmd.value;
      return refusal(regionError, error) ?? { type: 'value', value: notFound ? undefined : owned(value, messageBytes) };
    }
    case 'RawBatchGet':
      return refusal(cmd.value.regionError, '') ?? entriesReply(cmd.value.pairs, messageBytes);
    case 'RawScan':
      return refusal(cmd.value.regionError, '') ?? entriesReply(cmd.value.kvs, messageBytes);
    case 'RawPut':
    case 'RawBatchPut':
    case 'RawDelete':
    case 'RawBatchDelete':
    case 'RawDeleteRange':
      return refusal(cmd.value.regionError, cmd.value.error) ?? DONE;
    default:
      return { type: 'failed', message: `the store answered with an unexpected ${cmd.$case}` };
  }
}

interface WirePair {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly error?: { readonly retryable: string; readonly abort: string } | undefined;
}

function entriesReply(pairs: readonly WirePair[], messageBytes: number): Reply {
  const failed = pairs.find((pair) => pair.error !== undefined)?.error;
  if (failed !== undefined) {
    return { type: 'failed', message: failed.abort === '' ? failed.retryable : failed.abort };
  }
  return {
    type: 'entries',
    entries: pairs.map(({ key, value }): Entry => [owned(key, messageBytes), owned(value, messageBytes)]),
  };
}

function refusal(regionError: WireError | undefined, error: string): Reply | undefined {
  if (regionError !== undefined) {
    return { type: 'refused', error: fromWireRegionError(regionError) };
  }
  return error === '' ? undefined : { type: 'failed', message: error };
}

/** A plain array of its own, without copying when the bytes are most of the message anyway. */
function owned(bytes: Uint8Array, messageBytes: number): Uint8Array {
  if (bytes.length === 0) {
    return EMPTY_BYTES;
  }
  return bytes.length * 2 > messageBytes
    ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
    : new Uint8Array(bytes);
}

/** A command that the batch stream does not carry. Rejects with RpcError. */
export async function callUnary(
  channel: Channel,
  call: Call,
  clusterId: string,
  timeoutMs: number,
  nowMs: number,
): Promise<Reply> {
  const { command } = call;
  const context = contextOf(call, clusterId, nowMs);
  if (command.type === 'ttl') {
    const reply = await unaryCall(
      channel,
      tikvMethods.rawGetKeyTTL,
      { context, key: command.key, cf: DEFAULT_CF },
      { timeoutMs },
    );
    return refusal(reply.regionError, reply.error) ?? { type: 'ttl', seconds: reply.notFound ? undefined : reply.ttl };
  }
  assert(command.type === 'compare-and-swap', 'not a unary command', { type: command.type });
  const { key, expected, value, ttlSeconds } = command;
  const reply = await unaryCall(
    channel,
    tikvMethods.rawCompareAndSwap,
    {
      context,
      key,
      value: value ?? EMPTY_BYTES,
      previousNotExist: expected === undefined,
      previousValue: expected ?? EMPTY_BYTES,
      cf: DEFAULT_CF,
      ttl: ttlSeconds,
      delete: value === undefined,
    },
    { timeoutMs },
  );
  return (
    refusal(reply.regionError, reply.error) ?? {
      type: 'swap',
      swapped: reply.succeed,
      previous: reply.previousNotExist ? undefined : owned(reply.previousValue, 0),
    }
  );
}

const METHODS: Readonly<Record<Exclude<CommandType, 'locate'>, { readonly path: string }>> = {
  get: tikvMethods.rawGet,
  'batch-get': tikvMethods.rawBatchGet,
  ttl: tikvMethods.rawGetKeyTTL,
  scan: tikvMethods.rawScan,
  put: tikvMethods.rawPut,
  'batch-put': tikvMethods.rawBatchPut,
  delete: tikvMethods.rawDelete,
  'batch-delete': tikvMethods.rawBatchDelete,
  'delete-range': tikvMethods.rawDeleteRange,
  'compare-and-swap': tikvMethods.rawCompareAndSwap,
};

/** What the protocol calls a command, also when it travels in a batch. */
export const methodOf = (command: Command): string => (command.type === 'locate' ? '' : METHODS[command.type].path);

export const HEALTH_METHOD: string = healthMethods.check.path;

/** grpc.health.v1 answers. */
const NOT_SERVING = 2;

/** Resolves if the store takes requests; rejects with the reason otherwise. */
export async function probeHealth(channel: Channel, timeoutMs: number): Promise<void> {
  try {
    const { status } = await unaryCall(channel, healthMethods.check, { service: '' }, { timeoutMs });
    if (status === NOT_SERVING) {
      throw new RpcError(RpcStatus.UNAVAILABLE, 'the store says that it is not serving');
    }
  } catch (error) {
    if (error instanceof RpcError && error.status === RpcStatus.UNIMPLEMENTED) {
      // It has no health service, but it answers.
      return;
    }
    throw error;
  }
}
