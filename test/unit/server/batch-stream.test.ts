import { beforeEach, describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { type ByteStream, RpcStatus, type RpcStatusCode, type ServerCall } from '../../../src/env/net.ts';
import {
  BatchCommandsRequest,
  type BatchCommandsRequest_Request,
  BatchCommandsResponse,
} from '../../../src/gen/tikvpb.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { tikvMethods } from '../../../src/rpc/services.ts';
import { Metrics } from '../../../src/server/metrics.ts';
import { REPLIES_PER_MESSAGE_MAX } from '../../../src/server/service/batch-stream.ts';
import { RequestMetrics } from '../../../src/server/service/request-metrics.ts';
import { TikvService } from '../../../src/server/service/tikv-service.ts';
import { drainMicrotasks } from '../../support/manual-clock.ts';
import { context, KvFixture } from './kv-fixture.ts';

/** The server's end of a stream whose other end is the test. */
class FakeStream implements ByteStream {
  readonly sent: BatchCommandsResponse[] = [];
  onMessage: (message: Uint8Array) => void = () => undefined;
  onHalfClose: () => void = () => undefined;
  onDrain: () => void = () => undefined;
  onEnd: () => void = () => undefined;
  bufferedBytes = 0;
  isFull = false;
  ended = false;
  canceled: { readonly status: RpcStatusCode; readonly message: string } | undefined;

  send(message: Uint8Array): boolean {
    this.sent.push(BatchCommandsResponse.decode(message));
    return !this.isFull;
  }

  end(): void {
    this.ended = true;
  }

  cancel(status: RpcStatusCode, message: string): void {
    this.canceled = { status, message };
  }
}

const CALL: ServerCall = { peer: 'test', metadata: {}, timeoutMs: undefined };

let store: KvFixture;
let metrics: Metrics;
let service: TikvService;
let stream: FakeStream;

beforeEach(async () => {
  store = await KvFixture.open();
  metrics = new Metrics();
  service = new TikvService({
    kv: store.kv,
    clock: store.clock,
    metrics: new RequestMetrics(metrics),
    ownAddresses: ['me:1'],
  });
  stream = new FakeStream();
  open(stream);
});

function open(fake: FakeStream, call: ServerCall = CALL): void {
  const builder = new ServiceBuilder();
  service.addTo(builder);
  builder.build().stream.get(tikvMethods.batchCommands.path)?.(fake, call);
}

const put = (key: string): BatchCommandsRequest_Request => ({
  cmd: {
    $case: 'RawPut',
    value: { context: context(), key: utf8(key), value: utf8('v'), cf: '', ttl: 0, forCas: false },
  },
});
const get = (key: string): BatchCommandsRequest_Request => ({
  cmd: { $case: 'RawGet', value: { context: context(), key: utf8(key), cf: '' } },
});
const message = (
  requests: readonly BatchCommandsRequest_Request[],
  requestIds = requests.map((_, i) => i + 1),
): Uint8Array => BatchCommandsRequest.encode({ requests: [...requests], requestIds }).finish();

const ids = (): number[][] => stream.sent.map(({ requestIds }) => requestIds);

describe('the batch stream', () => {
  test('answers every command under its id with the matching kind', async () => {
    const requests: BatchCommandsRequest_Request[] = [
      put('k1'),
      get('k1'),
      { cmd: { $case: 'RawDelete', value: { context: context(), key: utf8('k2'), cf: '', forCas: false } } },
      { cmd: { $case: 'RawBatchGet', value: { context: context(), keys: [utf8('k1')], cf: '' } } },
      {
        cmd: {
          $case: 'RawBatchPut',
          value: {
            context: context(),
            pairs: [{ key: utf8('k3'), value: utf8('v') }],
            cf: '',
            ttl: 0,
            forCas: false,
            ttls: [],
          },
        },
      },
      { cmd: { $case: 'RawBatchDelete', value: { context: context(), keys: [utf8('k4')], cf: '', forCas: false } } },
      {
        cmd: {
          $case: 'RawScan',
          value: {
            context: context(),
            startKey: utf8('b'),
            endKey: utf8(''),
            limit: 9,
            keyOnly: false,
            cf: '',
            reverse: false,
          },
        },
      },
      {
        cmd: { $case: 'RawDeleteRange', value: { context: context(), startKey: utf8('m'), endKey: utf8('n'), cf: '' } },
      },
      {
        cmd: {
          $case: 'RawBatchScan',
          value: { context: context(), ranges: [], eachLimit: 1, keyOnly: false, cf: '', reverse: false },
        },
      },
      {
        cmd: {
          $case: 'RawCoprocessor',
          value: { context: context(), coprName: '', coprVersionReq: '', ranges: [], data: utf8('') },
        },
      },
      { cmd: { $case: 'GetHealthFeedback', value: { context: context() } } },
      { cmd: { $case: 'Empty', value: { testId: 7, delayTime: 0 } } },
      {},
    ];
    const numbers = requests.map((_, i) => 1000 + i);
    stream.onMessage(message(requests, numbers));
    await store.clock.runAll();
    const answers = new Map(
      stream.sent.flatMap(({ requestIds, responses }) => requestIds.map((id, i) => [id, responses[i]?.cmd] as const)),
    );
    expect([...answers.keys()].sort((a, b) => a - b)).toEqual(numbers);
    for (const [i, { cmd }] of requests.entries()) {
      expect(answers.get(1000 + i)?.$case).toBe(cmd?.$case);
    }
    expect(answers.get(1011)).toEqual({ $case: 'Empty', value: { testId: 7 } });
    expect(metrics.text()).toContain('braid_grpc_msg_duration_seconds_count{type="raw_put"} 1');
  });

  test('what completes in one turn leaves in one message, at most 128 answers each', async () => {
    store.isHolding = true;
    const count = REPLIES_PER_MESSAGE_MAX + 2;
    store.refusal = { type: 'stale-command' };
    stream.onMessage(message(Array.from({ length: count }, (_, i) => put(`k${i}`))));
    await drainMicrotasks();
    expect(stream.sent).toEqual([]);
    store.release();
    await drainMicrotasks();
    expect(ids().map(({ length }) => length)).toEqual([REPLIES_PER_MESSAGE_MAX, 2]);
    stream.onMessage(message([get('k1')], [500]));
    await store.clock.runAll();
    expect(ids()[2]).toEqual([500]);
    expect(metrics.text()).toContain(`braid_grpc_msg_fail_total{type="raw_put"} ${count}`);
  });

  test('answers wait while the client does not read, and a client that never reads is cut off', async () => {
    stream.isFull = true;
    stream.onMessage(message([get('k1')], [1]));
    await store.clock.runAll();
    stream.onMessage(message([get('k2')], [2]));
    await store.clock.runAll();
    expect(ids()).toEqual([[1]]);
    stream.isFull = false;
    stream.onDrain();
    expect(ids()).toEqual([[1], [2]]);
    stream.isFull = true;
    stream.onMessage(message([get('k3')], [3]));
    await store.clock.runAll();
    stream.bufferedBytes = 2 ** 30;
    stream.onMessage(message([get('k4')], [4]));
    await store.clock.runAll();
    expect(stream.canceled?.status).toBe(RpcStatus.RESOURCE_EXHAUSTED);
  });

  test('Empty waits as long as it is told', async () => {
    stream.onMessage(message([{ cmd: { $case: 'Empty', value: { testId: 1, delayTime: 50 } } }]));
    await drainMicrotasks();
    expect(stream.sent).toEqual([]);
    await store.clock.step();
    expect(store.clock.monoMs()).toBe(50);
    expect(ids()).toEqual([[1]]);
  });

  test('a malformed message breaks the stream, a lost stream drops its answers', async () => {
    stream.onMessage(Uint8Array.of(255, 255, 255));
    expect(stream.canceled?.status).toBe(RpcStatus.INVALID_ARGUMENT);
    stream = new FakeStream();
    open(stream);
    stream.onMessage(message([get('k')], [1, 2]));
    expect(stream.canceled?.message).toBe('1 requests came with 2 ids');
    stream = new FakeStream();
    open(stream);
    store.isHolding = true;
    stream.onMessage(message([get('k')]));
    stream.onEnd();
    store.release();
    await store.clock.runAll();
    expect(stream.sent).toEqual([]);
  });

  test('ends after its last answer when the client or the store stops', async () => {
    store.isHolding = true;
    stream.onMessage(message([get('k')]));
    expect(service.streamCount).toBe(1);
    service.endStreams();
    expect(stream.ended).toBe(false);
    store.release();
    await store.clock.runAll();
    expect(ids()).toEqual([[1]]);
    expect(stream.ended).toBe(true);
    stream.onEnd();
    expect(service.streamCount).toBe(0);
  });

  test('a client that wants to be forwarded elsewhere is refused', () => {
    const other = { ...CALL, metadata: { 'tikv-forwarded-host': 'other:1' } };
    expect(() => open(new FakeStream(), other)).toThrow('does not forward to other:1');
    open(new FakeStream(), { ...CALL, metadata: { 'tikv-forwarded-host': 'http://me:1' } });
    expect(service.streamCount).toBe(2);
  });
});

describe('unary twins', () => {
  test('answer like the stream and pass the deadline of the call on', async () => {
    const builder = new ServiceBuilder();
    service.addTo(builder);
    const { unary } = builder.build();
    const ask = async <Request, Reply>(
      method: { path: string; request: { encode(r: Request): Uint8Array }; reply: { decode(b: Uint8Array): Reply } },
      request: Request,
    ) => {
      const handler = unary.get(method.path);
      if (handler === undefined) {
        throw new Error(`no ${method.path}`);
      }
      return method.reply.decode(
        await store.clock.settle(handler(method.request.encode(request), { ...CALL, timeoutMs: 200 })),
      );
    };
    await store.put('k', 'v');
    const found = await ask(tikvMethods.rawGet, { context: context(), key: utf8('k'), cf: '' });
    expect(fromUtf8(found.value)).toBe('v');
    expect(store.reads[0]?.header.deadlineMonoMs).toBeLessThanOrEqual(store.clock.monoMs() + 200);
    expect(await ask(tikvMethods.rawGetKeyTTL, { context: context(), key: utf8('k'), cf: '' })).toMatchObject({
      ttl: 0,
      notFound: false,
    });
    expect(
      await ask(tikvMethods.unsafeDestroyRange, { context: context(), startKey: utf8('a'), endKey: utf8('b') }),
    ).toMatchObject({
      error: expect.stringContaining('not supported') as string,
    });
    // Every method of the contract has a handler.
    expect([...unary.keys(), tikvMethods.batchCommands.path].sort()).toEqual(
      Object.values(tikvMethods)
        .map(({ path }) => path)
        .sort(),
    );
  });
});
