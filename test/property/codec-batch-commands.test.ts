import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../src/base/bytes.ts';
import { BadMessageError } from '../../src/codec/bad-message-error.ts';
import {
  decodeBatchRequest,
  decodeBatchResponse,
  encodeBatchRequest,
  encodeBatchResponse,
} from '../../src/codec/batch-commands.ts';
import { toWireRegionError } from '../../src/codec/error-wire.ts';
import type { Context, KvPair } from '../../src/gen/kvrpcpb.ts';
import { Context as WireContext, RawPutRequest } from '../../src/gen/kvrpcpb.ts';
import {
  BatchCommandsRequest,
  type BatchCommandsRequest_Request,
  BatchCommandsResponse,
  type BatchCommandsResponse_Response,
} from '../../src/gen/tikvpb.ts';
import { bytes, longBytes, regionError, safeInt, uint64 } from './codec-arbitraries.ts';

type Command = NonNullable<BatchCommandsRequest_Request['cmd']>;
type Reply = NonNullable<BatchCommandsResponse_Response['cmd']>;

const uint32 = fc.oneof(fc.nat(300), fc.nat(2 ** 31 - 1), fc.constantFrom(2 ** 32 - 1, 2 ** 28, 2 ** 31));
const cf = fc.constantFrom('', 'default', 'lock', 'größe');
const enumValue = fc.constantFrom(0 as const, 1 as const, 2 as const);

const context: fc.Arbitrary<Context | undefined> = fc.option(
  fc.record({
    regionId: safeInt,
    regionEpoch: fc.option(fc.record({ confVer: safeInt, version: safeInt }), { nil: undefined }),
    peer: fc.option(
      fc.record({ id: safeInt, storeId: safeInt, role: fc.constantFrom(0, 1, 2, 3), isWitness: fc.boolean() }),
      { nil: undefined },
    ),
    term: safeInt,
    priority: enumValue,
    replicaRead: fc.boolean(),
    maxExecutionDurationMs: safeInt,
    staleRead: fc.boolean(),
    isRetryRequest: fc.boolean(),
    apiVersion: enumValue,
    requestSource: fc.string(),
    busyThresholdMs: uint32,
    keyspaceId: uint32,
    clusterId: uint64.map(String),
  }),
  { nil: undefined },
);

const pair: fc.Arbitrary<KvPair> = fc.record({
  error: fc.option(fc.record({ retryable: fc.string(), abort: fc.string() }), { nil: undefined }),
  key: bytes,
  value: longBytes,
});
const keys = fc.array(bytes, { maxLength: 4 });
const pairs = fc.array(pair, { maxLength: 4 });

const cmd = <C extends string, V>($case: C, value: fc.Arbitrary<V>): fc.Arbitrary<{ $case: C; value: V }> =>
  value.map((v) => ({ $case, value: v }));

const command: fc.Arbitrary<Command> = fc.oneof(
  cmd('RawGet', fc.record({ context, key: bytes, cf })),
  cmd('RawBatchGet', fc.record({ context, keys, cf })),
  cmd('RawPut', fc.record({ context, key: bytes, value: longBytes, cf, ttl: safeInt, forCas: fc.boolean() })),
  cmd(
    'RawBatchPut',
    fc.record({
      context,
      pairs,
      cf,
      ttl: safeInt,
      forCas: fc.boolean(),
      ttls: fc.array(safeInt, { maxLength: 4 }),
    }),
  ),
  cmd('RawDelete', fc.record({ context, key: bytes, cf, forCas: fc.boolean() })),
  cmd('RawBatchDelete', fc.record({ context, keys, cf, forCas: fc.boolean() })),
  cmd(
    'RawScan',
    fc.record({
      context,
      startKey: bytes,
      limit: uint32,
      keyOnly: fc.boolean(),
      cf,
      reverse: fc.boolean(),
      endKey: bytes,
    }),
  ),
  cmd('RawDeleteRange', fc.record({ context, startKey: bytes, endKey: bytes, cf })),
  cmd(
    'RawBatchScan',
    fc.record({
      context,
      ranges: fc.array(fc.record({ startKey: bytes, endKey: bytes }), { maxLength: 3 }),
      eachLimit: uint32,
      keyOnly: fc.boolean(),
      cf,
      reverse: fc.boolean(),
    }),
  ),
  cmd(
    'RawCoprocessor',
    fc.record({
      context,
      coprName: fc.string(),
      coprVersionReq: fc.string(),
      ranges: fc.array(fc.record({ startKey: bytes, endKey: bytes }), { maxLength: 3 }),
      data: bytes,
    }),
  ),
  cmd('GetHealthFeedback', fc.record({ context })),
  cmd('Empty', fc.record({ testId: safeInt, delayTime: safeInt })),
);

const wireError = fc.option(regionError.map(toWireRegionError), { nil: undefined });
const writeReply = fc.record({ regionError: wireError, error: fc.string() });
const healthFeedback = fc.record({ storeId: safeInt, feedbackSeqNo: safeInt, slowScore: fc.integer() });

const reply: fc.Arbitrary<Reply> = fc.oneof(
  cmd('RawGet', fc.record({ regionError: wireError, error: fc.string(), value: longBytes, notFound: fc.boolean() })),
  cmd('RawBatchGet', fc.record({ regionError: wireError, pairs })),
  cmd('RawPut', writeReply),
  cmd('RawBatchPut', writeReply),
  cmd('RawDelete', writeReply),
  cmd('RawBatchDelete', writeReply),
  cmd('RawScan', fc.record({ regionError: wireError, kvs: pairs })),
  cmd('RawDeleteRange', writeReply),
  cmd('RawBatchScan', fc.record({ regionError: wireError, kvs: pairs })),
  cmd('RawCoprocessor', fc.record({ regionError: wireError, error: fc.string(), data: bytes })),
  cmd(
    'GetHealthFeedback',
    fc.record({ regionError: wireError, healthFeedback: fc.option(healthFeedback, { nil: undefined }) }),
  ),
  cmd('Empty', fc.record({ testId: safeInt })),
);

const request: fc.Arbitrary<BatchCommandsRequest> = fc.record({
  requests: fc.array(fc.record({ cmd: fc.option(command, { nil: undefined }) }), { maxLength: 5 }),
  requestIds: fc.array(safeInt, { maxLength: 5 }),
});

const response: fc.Arbitrary<BatchCommandsResponse> = fc.record({
  responses: fc.array(fc.record({ cmd: fc.option(reply, { nil: undefined }) }), { maxLength: 5 }),
  requestIds: fc.array(safeInt, { maxLength: 5 }),
  transportLayerLoad: safeInt,
  healthFeedback: fc.option(healthFeedback, { nil: undefined }),
});

const hex = (message: Uint8Array): string => Buffer.from(message).toString('hex');

const RUNS = { numRuns: 500 };
/** Fields of numbers that no contract uses, one of each wire type. */
const UNKNOWN = Uint8Array.of(0xc2, 0x3e, 3, 1, 2, 3, 0xc8, 0x3e, 0x96, 0x01, 0xcd, 0x3e, 9, 9, 9, 9);

describe('BatchCommandsRequest', () => {
  test('the hand-written encoder writes the bytes of the generated one', () => {
    fc.assert(
      fc.property(request, (message) => {
        expect(hex(encodeBatchRequest(message))).toBe(hex(BatchCommandsRequest.encode(message).finish()));
      }),
      RUNS,
    );
  });

  test('the hand-written decoder reads what the generated one reads', () => {
    fc.assert(
      fc.property(request, (message) => {
        const encoded = BatchCommandsRequest.encode(message).finish();
        expect(decodeBatchRequest(encoded)).toEqual(BatchCommandsRequest.decode(encoded));
        expect(decodeBatchRequest(encoded)).toEqual(message);
      }),
      RUNS,
    );
  });

  test('request ids are read packed, unpacked and mixed', () => {
    const mixed = Uint8Array.of(0x10, 7, 0x12, 3, 8, 0x80, 0x01, 0x10, 9);
    expect(decodeBatchRequest(mixed).requestIds).toEqual([7, 8, 128, 9]);
    const ttls = Uint8Array.of(0x0a, 11, 0x82, 0x01, 8, 0x30, 5, 0x32, 2, 6, 7, 0x30, 8);
    expect(decodeBatchRequest(ttls).requests[0]?.cmd).toMatchObject({
      $case: 'RawBatchPut',
      value: { ttls: [5, 6, 7, 8] },
    });
  });

  test('unknown fields are skipped in the message, the command and its context', () => {
    const ctx = Buffer.concat([UNKNOWN, WireContext.encode(WireContext.create({ regionId: 4 })).finish(), UNKNOWN]);
    const put = Buffer.concat([
      Uint8Array.of(0x0a, ctx.length),
      ctx,
      UNKNOWN,
      RawPutRequest.encode(RawPutRequest.create({ key: utf8('k'), value: utf8('v') })).finish(),
    ]);
    const oneof = Buffer.concat([UNKNOWN, Uint8Array.of(0x7a, put.length), put, UNKNOWN]);
    expect(oneof.length).toBeLessThan(128);
    const message = decodeBatchRequest(Buffer.concat([UNKNOWN, Uint8Array.of(0x0a, oneof.length), oneof, UNKNOWN]));
    expect(message.requests).toHaveLength(1);
    expect(message.requests[0]?.cmd).toMatchObject({ $case: 'RawPut', value: { context: { regionId: 4 } } });
  });

  test('a command of the transactional API becomes a request without a command', () => {
    const prewrite = Uint8Array.of(0x0a, 4, 0x1a, 2, 0x0a, 0, 0x10, 1);
    expect(decodeBatchRequest(prewrite)).toEqual({ requests: [{ cmd: undefined }], requestIds: [1] });
  });

  test('a huge ttl or time limit saturates instead of breaking the stream for all commands in it', () => {
    const max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    const put = [0x0a, 11, 0x70, ...max, 0x28, ...max];
    const message = decodeBatchRequest(Uint8Array.of(0x0a, put.length + 2, 0x7a, put.length, ...put));
    expect(message.requests[0]?.cmd).toMatchObject({
      value: { ttl: Number.MAX_SAFE_INTEGER, context: { maxExecutionDurationMs: Number.MAX_SAFE_INTEGER } },
    });
  });

  test('ids above 2^53-1 are refused', () => {
    const tooLarge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    expect(() => decodeBatchRequest(Uint8Array.of(0x10, ...tooLarge))).toThrow(/2\^53-1/);
    const get = [0x0a, 9, 0x08, ...tooLarge];
    expect(() => decodeBatchRequest(Uint8Array.of(0x0a, get.length + 2, 0x6a, get.length, ...get))).toThrow(
      BadMessageError,
    );
  });

  test('cut messages are refused, damaged ones refused or read, and nothing else happens', () => {
    fc.assert(
      fc.property(request, fc.nat(), fc.nat(255), (message, at, byte) => {
        const encoded = encodeBatchRequest(message);
        fc.pre(encoded.length > 0);
        const damaged = Uint8Array.from(encoded);
        damaged[at % encoded.length] = byte;
        for (const input of [encoded.subarray(0, at % encoded.length), damaged]) {
          try {
            decodeBatchRequest(input);
          } catch (error) {
            expect(error).toBeInstanceOf(BadMessageError);
          }
        }
      }),
      RUNS,
    );
    const whole = encodeBatchRequest({
      requests: [{ cmd: { $case: 'RawGet', value: { key: utf8('abcdef'), cf: '' } } }],
      requestIds: [],
    });
    for (let length = 1; length < whole.length; length++) {
      expect(() => decodeBatchRequest(whole.subarray(0, length))).toThrow(BadMessageError);
    }
  });

  test('keys and values are views of the message', () => {
    const encoded = encodeBatchRequest({
      requests: [{ cmd: { $case: 'RawGet', value: { key: utf8('k'), cf: '' } } }],
      requestIds: [1],
    });
    const get = decodeBatchRequest(encoded).requests[0]?.cmd;
    expect(get?.$case === 'RawGet' && get.value.key.buffer).toBe(encoded.buffer);
  });
});

describe('BatchCommandsResponse', () => {
  test('the hand-written encoder writes the bytes of the generated one', () => {
    fc.assert(
      fc.property(response, (message) => {
        expect(hex(encodeBatchResponse(message))).toBe(hex(BatchCommandsResponse.encode(message).finish()));
      }),
      RUNS,
    );
  });

  test('the hand-written decoder reads what the generated one reads', () => {
    fc.assert(
      fc.property(response, (message) => {
        const encoded = BatchCommandsResponse.encode(message).finish();
        expect(decodeBatchResponse(encoded)).toEqual(BatchCommandsResponse.decode(encoded));
        expect(decodeBatchResponse(encoded)).toEqual(message);
      }),
      RUNS,
    );
  });

  test('cut or damaged messages are refused with BadMessageError or read', () => {
    fc.assert(
      fc.property(response, fc.nat(), fc.nat(255), (message, at, byte) => {
        const encoded = encodeBatchResponse(message);
        fc.pre(encoded.length > 0);
        const damaged = Uint8Array.from(encoded);
        damaged[at % encoded.length] = byte;
        for (const input of [encoded.subarray(0, at % encoded.length), damaged]) {
          try {
            decodeBatchResponse(input);
          } catch (error) {
            expect(error).toBeInstanceOf(BadMessageError);
          }
        }
      }),
      RUNS,
    );
  });
});
