import { connect as connectSocket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { RpcStatus } from '../../../src/env/net.ts';
import { HealthCheckResponse_ServingStatus as Status } from '../../../src/gen/grpc/health/v1/health.ts';
import { openStream, unaryCall } from '../../../src/rpc/call.ts';
import { type GrpcNet, createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import { ServiceBuilder } from '../../../src/rpc/service-builder.ts';
import { healthMethods, peerMethods, tikvMethods } from '../../../src/rpc/services.ts';
import { DeferredServices } from '../../../src/server/service/deferred-services.ts';
import { HealthService } from '../../../src/server/service/health-service.ts';
import { jsonPage, startStatusServer, type StatusServer } from '../../../src/server/status-server.ts';

describe('status pages', () => {
  let server: StatusServer;

  beforeEach(async () => {
    server = await startStatusServer('127.0.0.1:0', {
      '/status': () => jsonPage({ id: 5n }),
      '/regions/': (rest) => (rest === '7' ? jsonPage({ rest }) : undefined),
    });
  });

  afterEach(() => server.close());

  const get = (path: string, init?: RequestInit): Promise<Response> => fetch(`http://${server.address}${path}`, init);

  test('answer GET with JSON, 64-bit numbers as text', async () => {
    const response = await get('/status?x=1');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(await response.json()).toEqual({ id: '5' });
    expect(await (await get('/regions/7')).json()).toEqual({ rest: '7' });
  });

  test('what is not there is 404 and names what is, writing is 405', async () => {
    const missing = await get('/nothing');
    expect(missing.status).toBe(404);
    expect(await missing.json()).toMatchObject({ pages: ['/status', '/regions/'] });
    expect((await get('/regions/8')).status).toBe(404);
    expect((await get('/status', { method: 'POST', body: 'x' })).status).toBe(405);
  });

  test('a port in use is named', async () => {
    await expect(startStatusServer(server.address, {})).rejects.toMatchObject({
      code: 'Listen',
      message: expect.stringContaining(server.address) as string,
      hint: expect.stringContaining('--status-addr') as string,
    });
  });

  test('closing does not wait for idle connections', async () => {
    const [host = '', port] = server.address.split(':');
    const socket = connectSocket(Number(port), host);
    await new Promise((resolve) => socket.once('connect', resolve));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.on('error', () => undefined);
    await server.close();
    await closed;
  });
});

describe('health and late services', () => {
  let net: GrpcNet;

  beforeEach(() => {
    net = createGrpcNet();
  });

  afterEach(() => net.close(0));

  const CALL = { timeoutMs: 3000 };

  test('a watcher hears every change, and its stream ends when asked', async () => {
    const health = new HealthService();
    const services = new ServiceBuilder();
    health.addTo(services);
    const listener = await net.listen('127.0.0.1:0', services.build());
    const channel = net.dial(listener.address);
    expect(await unaryCall(channel, healthMethods.check, { service: '' }, CALL)).toEqual({
      status: Status.NOT_SERVING,
    });
    const watch = openStream(channel, healthMethods.watch);
    const seen: number[] = [];
    watch.onMessage = ({ status }) => seen.push(status);
    const ended = new Promise<number>((resolve) => {
      watch.onEnd = ({ status }) => resolve(status);
    });
    watch.send({ service: '' });
    await vi.waitFor(() => expect(seen).toEqual([Status.NOT_SERVING]));
    health.isServing = true;
    health.isServing = true;
    await vi.waitFor(() => expect(seen).toEqual([Status.NOT_SERVING, Status.SERVING]));
    expect(await unaryCall(channel, healthMethods.check, { service: 'any' }, CALL)).toEqual({ status: Status.SERVING });
    health.endWatches();
    expect(await ended).toBe(RpcStatus.OK);
  });

  test('calls before the services are there are UNAVAILABLE with the reason, later ones are served', async () => {
    const deferred = new DeferredServices('store 4 is starting');
    const methods = [healthMethods.check, tikvMethods.rawGet, peerMethods.raftStream, tikvMethods.batchCommands];
    const listener = await net.listen('127.0.0.1:0', deferred.table(methods));
    const channel = net.dial(listener.address);
    await expect(unaryCall(channel, healthMethods.check, { service: '' }, CALL)).rejects.toMatchObject({
      status: RpcStatus.UNAVAILABLE,
      message: 'store 4 is starting',
    });
    const early = channel.stream(tikvMethods.batchCommands.path);
    expect(await new Promise((resolve) => (early.onEnd = resolve))).toMatchObject({ status: RpcStatus.UNAVAILABLE });
    const services = new ServiceBuilder();
    const health = new HealthService();
    health.addTo(services);
    services.rawStream(tikvMethods.batchCommands.path, (stream) => {
      stream.onMessage = (message) => stream.send(message);
    });
    deferred.open(services.build());
    expect(await unaryCall(channel, healthMethods.check, { service: '' }, CALL)).toEqual({
      status: Status.NOT_SERVING,
    });
    await expect(unaryCall(channel, tikvMethods.rawGet, { key: utf8('k'), cf: '' }, CALL)).rejects.toMatchObject({
      status: RpcStatus.UNIMPLEMENTED,
    });
    const stream = channel.stream(tikvMethods.batchCommands.path);
    const echo = new Promise<Uint8Array>((resolve) => (stream.onMessage = resolve));
    stream.send(utf8('hello'));
    expect(Buffer.from(await echo).toString()).toBe('hello');
  });
});
