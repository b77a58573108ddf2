import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AppError } from '../../../src/base/app-error.ts';
import { InvariantError } from '../../../src/base/assert.ts';
import { utf8 } from '../../../src/base/bytes.ts';
import { RpcStatus, type StreamEnd } from '../../../src/env/net.ts';
import { HealthCheckResponse_ServingStatus as Serving } from '../../../src/gen/grpc/health/v1/health.ts';
import { GetRegionResponse, QueryRegionRequest, QueryRegionResponse, ResponseHeader } from '../../../src/gen/pdpb.ts';
import { openStream, unaryCall } from '../../../src/rpc/call.ts';
import { type GrpcNet, createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { healthMethods, pdMethods, peerMethods, tikvMethods } from '../../../src/rpc/services.ts';
import { deferred } from './deferred.ts';

const LOOPBACK = '127.0.0.1:0';
const CALL = { timeoutMs: 5000 };

describe('methods', () => {
  test('paths and kinds come from the generated definitions', () => {
    expect(pdMethods.getRegionByID).toMatchObject({ path: '/pdpb.PD/GetRegionByID', kind: 'unary' });
    expect(tikvMethods.batchCommands).toMatchObject({ path: '/tikvpb.Tikv/BatchCommands', kind: 'bidi' });
    expect(healthMethods.watch).toMatchObject({ path: '/grpc.health.v1.Health/Watch', kind: 'server-stream' });
    expect(peerMethods.snapshot).toMatchObject({ path: '/braid.peer.v1.Peer/Snapshot', kind: 'bidi' });
  });
});

describe('typed calls', () => {
  let net: GrpcNet;

  beforeEach(() => {
    net = createGrpcNet();
  });

  afterEach(async () => {
    await net.close(0);
  });

  test('a unary call carries messages and a cluster id of 64 bits', async () => {
    const services = new ServiceBuilder()
      .unary(pdMethods.getRegion, (request) =>
        GetRegionResponse.create({
          header: ResponseHeader.create({ clusterId: request.header?.clusterId ?? '0' }),
          region: { id: 2 ** 53 - 1, startKey: request.regionKey, endKey: utf8('z'), peers: [{ id: 2, storeId: 3 }] },
        }),
      )
      .build();
    const listener = await net.listen(LOOPBACK, services);
    const reply = await unaryCall(
      net.dial(listener.address),
      pdMethods.getRegion,
      {
        header: { clusterId: '18446744073709551615', senderId: 0, callerId: '', callerComponent: '' },
        regionKey: utf8('k'),
        needBuckets: false,
      },
      CALL,
    );
    expect(reply.header?.clusterId).toBe('18446744073709551615');
    expect(reply.region?.id).toBe(2 ** 53 - 1);
    expect(Buffer.from(reply.region?.startKey ?? []).toString()).toBe('k');
  });

  test('an error of the handler that is no RpcError arrives as UNKNOWN with its code word', async () => {
    const services = new ServiceBuilder()
      .unary(pdMethods.getRegion, () => {
        throw new AppError('NotBootstrapped', 'the cluster has no region yet');
      })
      .build();
    const listener = await net.listen(LOOPBACK, services);
    const request = { regionKey: utf8(''), needBuckets: false };
    await expect(unaryCall(net.dial(listener.address), pdMethods.getRegion, request, CALL)).rejects.toMatchObject({
      status: RpcStatus.UNKNOWN,
      message: 'NotBootstrapped: the cluster has no region yet',
    });
  });

  test('a malformed request is refused with INVALID_ARGUMENT and a malformed reply with BadMessage', async () => {
    const services = new ServiceBuilder()
      .unary(pdMethods.getRegion, () => GetRegionResponse.create())
      .rawUnary(pdMethods.getStore.path, async () => Uint8Array.of(0x0a, 0x7f))
      .build();
    const listener = await net.listen(LOOPBACK, services);
    const channel = net.dial(listener.address);
    await expect(channel.unary(pdMethods.getRegion.path, Uint8Array.of(0x0a, 0x7f), CALL)).rejects.toMatchObject({
      status: RpcStatus.INVALID_ARGUMENT,
    });
    await expect(unaryCall(channel, pdMethods.getStore, { storeId: 1 }, CALL)).rejects.toMatchObject({
      code: 'BadMessage',
    });
  });

  test('a number above 2^53-1 is refused', async () => {
    const services = new ServiceBuilder().unary(pdMethods.getRegionByID, () => GetRegionResponse.create()).build();
    const listener = await net.listen(LOOPBACK, services);
    const tooLarge = Uint8Array.of(0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10);
    await expect(net.dial(listener.address).unary(pdMethods.getRegionByID.path, tooLarge, CALL)).rejects.toThrow(
      /MAX_SAFE_INTEGER/,
    );
  });

  test('a bidirectional stream carries typed messages', async () => {
    const services = new ServiceBuilder()
      .stream(pdMethods.queryRegion, (stream) => {
        stream.onMessage = (request) => {
          const regionsById = new Map(request.ids.map((id) => [id, { downPeers: [], pendingPeers: [] }]));
          stream.send(QueryRegionResponse.create({ regionsById }));
        };
        stream.onHalfClose = () => stream.end();
      })
      .build();
    const listener = await net.listen(LOOPBACK, services);
    const stream = openStream(net.dial(listener.address), pdMethods.queryRegion);
    const answers: number[][] = [];
    const ended = deferred<StreamEnd>();
    stream.onMessage = (reply) => answers.push([...reply.regionsById.keys()]);
    stream.onEnd = ended.resolve;
    stream.send(QueryRegionRequest.create({ ids: [4, 5] }));
    stream.send(QueryRegionRequest.create({ ids: [6] }));
    stream.end();
    expect((await ended.promise).status).toBe(RpcStatus.OK);
    expect(answers).toEqual([[4, 5], [6]]);
  });

  test('a server stream sends many replies to one request, and one reply can follow many requests', async () => {
    const services = new ServiceBuilder()
      .stream(healthMethods.watch, (stream) => {
        stream.onMessage = () => {
          stream.send({ status: Serving.NOT_SERVING });
          stream.send({ status: Serving.SERVING });
          stream.end();
        };
      })
      .stream(peerMethods.snapshot, (stream) => {
        let chunks = 0;
        stream.onMessage = () => {
          chunks++;
        };
        stream.onHalfClose = () => {
          stream.send({ reply: { $case: 'staged', value: chunks } });
          stream.end();
        };
      })
      .build();
    const listener = await net.listen(LOOPBACK, services);
    const channel = net.dial(listener.address);

    const watch = openStream(channel, healthMethods.watch);
    const states: number[] = [];
    const watchEnded = deferred<StreamEnd>();
    watch.onMessage = (reply) => states.push(reply.status);
    watch.onEnd = watchEnded.resolve;
    watch.send({ service: '' });
    watch.end();
    expect((await watchEnded.promise).status).toBe(RpcStatus.OK);
    expect(states).toEqual([Serving.NOT_SERVING, Serving.SERVING]);

    const snapshot = openStream(channel, peerMethods.snapshot);
    const done = deferred<unknown>();
    snapshot.onMessage = ({ reply }) => done.resolve(reply);
    for (let i = 0; i < 3; i++) {
      snapshot.send({ type: 'chunk', chunk: { type: 'data', sequence: i, payload: utf8('p'), digest: utf8('d') } });
    }
    snapshot.end();
    expect(await done.promise).toEqual({ $case: 'staged', value: 3 });
  });

  test('a malformed message breaks the stream instead of being delivered', async () => {
    const delivered: unknown[] = [];
    const services = new ServiceBuilder()
      .stream(pdMethods.queryRegion, (stream) => {
        stream.onMessage = (request) => delivered.push(request);
      })
      .build();
    const listener = await net.listen(LOOPBACK, services);
    const stream = net.dial(listener.address).stream(pdMethods.queryRegion.path);
    const ended = deferred<StreamEnd>();
    stream.onEnd = ended.resolve;
    stream.send(Uint8Array.of(0x0a, 0x7f));
    stream.send(QueryRegionRequest.encode(QueryRegionRequest.create({ ids: [1] })).finish());
    const end = await ended.promise;
    expect(end.status).toBe(RpcStatus.INTERNAL);
    expect(end.message).toContain('/pdpb.PD/QueryRegion');
    expect(delivered).toEqual([]);
  });
});

describe('ServiceBuilder', () => {
  test('refuses two handlers for one method', () => {
    const builder = new ServiceBuilder().unary(pdMethods.getRegion, () => GetRegionResponse.create());
    expect(() => builder.rawUnary(pdMethods.getRegion.path, async () => utf8(''))).toThrow(InvariantError);
    expect(() => builder.merge(builder.build())).toThrow(InvariantError);
  });

  test('merges the tables of several services', () => {
    const pd = new ServiceBuilder().unary(pdMethods.getRegion, () => GetRegionResponse.create()).build();
    const health = new ServiceBuilder().stream(healthMethods.watch, () => undefined).build();
    const all = new ServiceBuilder().merge(pd).merge(health).build();
    expect([...all.unary.keys()]).toEqual(['/pdpb.PD/GetRegion']);
    expect([...all.stream.keys()]).toEqual(['/grpc.health.v1.Health/Watch']);
  });
});
