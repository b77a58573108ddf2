import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { type ByteStream, RpcError, RpcStatus, type ServiceTable, type StreamEnd } from '../../../src/env/net.ts';
import { type GrpcNet, createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import { deferred } from './deferred.ts';

const LOOPBACK = '127.0.0.1:0';
const CALL = { timeoutMs: 5000 };

const table = (parts: Partial<ServiceTable>): ServiceTable => ({ unary: new Map(), stream: new Map(), ...parts });

function whenEnded(stream: ByteStream): Promise<StreamEnd> {
  const end = deferred<StreamEnd>();
  stream.onEnd = end.resolve;
  return end.promise;
}

describe('GrpcNet', () => {
  let net: GrpcNet;

  beforeEach(() => {
    net = createGrpcNet({ sendBufferHighBytes: 64 * 1024, receiveWindowBytes: 64 * 1024, cancelFlushMs: 5000 });
  });

  afterEach(async () => {
    await net.close(0);
  });

  test('listen on port 0 returns the real port and unary calls reach the handler', async () => {
    const listener = await net.listen(
      LOOPBACK,
      table({ unary: new Map([['/t.T/Echo', async (request) => utf8(`${fromUtf8(request)}!`)]]) }),
    );
    expect(listener.address).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    const reply = await net.dial(listener.address).unary('/t.T/Echo', utf8('hello'), CALL);
    expect(fromUtf8(reply)).toBe('hello!');
  });

  test('listen rejects when the address is taken', async () => {
    const listener = await net.listen(LOOPBACK, table({}));
    await expect(net.listen(listener.address, table({}))).rejects.toThrow(/cannot listen on/);
  });

  test('a handler sees metadata, caller and remaining time', async () => {
    const seen = deferred<unknown>();
    const listener = await net.listen(
      LOOPBACK,
      table({
        unary: new Map([
          [
            '/t.T/Look',
            async (_request, call) => {
              seen.resolve({ to: call.metadata['braid-to-store'], peer: call.peer, timeoutMs: call.timeoutMs });
              return utf8('');
            },
          ],
        ]),
      }),
    );
    await net.dial(listener.address).unary('/t.T/Look', utf8(''), { ...CALL, metadata: { 'braid-to-store': '7' } });
    const { to, peer, timeoutMs } = (await seen.promise) as { to: string; peer: string; timeoutMs: number };
    expect(to).toBe('7');
    expect(peer).toContain('127.0.0.1');
    expect(timeoutMs).toBeGreaterThan(0);
    expect(timeoutMs).toBeLessThanOrEqual(5000);
  });

  test('an RpcError of a handler keeps its status, any other error becomes UNKNOWN with its text', async () => {
    const listener = await net.listen(
      LOOPBACK,
      table({
        unary: new Map([
          ['/t.T/Refuse', () => Promise.reject(new RpcError(RpcStatus.FAILED_PRECONDITION, 'not leader'))],
          ['/t.T/Fail', () => Promise.reject(new Error('invalid store ID 9, not found'))],
          [
            '/t.T/Throw',
            () => {
              throw new Error('thrown at once');
            },
          ],
        ]),
      }),
    );
    const channel = net.dial(listener.address);
    await expect(channel.unary('/t.T/Refuse', utf8(''), CALL)).rejects.toMatchObject({
      status: RpcStatus.FAILED_PRECONDITION,
      message: 'not leader',
      sent: true,
    });
    await expect(channel.unary('/t.T/Fail', utf8(''), CALL)).rejects.toMatchObject({
      status: RpcStatus.UNKNOWN,
      message: 'invalid store ID 9, not found',
    });
    await expect(channel.unary('/t.T/Throw', utf8(''), CALL)).rejects.toMatchObject({ message: 'thrown at once' });
    await expect(channel.unary('/t.T/Nothing', utf8(''), CALL)).rejects.toMatchObject({
      status: RpcStatus.UNIMPLEMENTED,
    });
  });

  test('a call to an address where nobody listens certainly never left', async () => {
    const listener = await net.listen(LOOPBACK, table({}));
    await listener.close(0);
    await expect(net.dial(listener.address).unary('/t.T/Echo', utf8(''), CALL)).rejects.toMatchObject({
      status: RpcStatus.UNAVAILABLE,
      sent: false,
      outcome: 'not-applied',
    });
  });

  test('a call that is not answered ends at its deadline with an unknown outcome', async () => {
    const never = deferred<Uint8Array>();
    const listener = await net.listen(LOOPBACK, table({ unary: new Map([['/t.T/Hang', () => never.promise]]) }));
    await expect(net.dial(listener.address).unary('/t.T/Hang', utf8(''), { timeoutMs: 50 })).rejects.toMatchObject({
      status: RpcStatus.DEADLINE_EXCEEDED,
      sent: true,
      outcome: 'unknown',
    });
    never.resolve(utf8(''));
  });

  test('a call whose connection breaks after sending has an unknown outcome', async () => {
    const never = deferred<Uint8Array>();
    const reached = deferred<void>();
    const listener = await net.listen(
      LOOPBACK,
      table({
        unary: new Map([
          [
            '/t.T/Hang',
            () => {
              reached.resolve();
              return never.promise;
            },
          ],
        ]),
      }),
    );
    const call = net.dial(listener.address).unary('/t.T/Hang', utf8(''), CALL);
    const refused = expect(call).rejects.toMatchObject({
      status: RpcStatus.UNAVAILABLE,
      sent: true,
      outcome: 'unknown',
      retry: 'backoff',
    });
    await reached.promise;
    await listener.close(0);
    await refused;
    never.resolve(utf8(''));
  });

  test('a stream carries metadata to its handler', async () => {
    const seen = deferred<unknown>();
    const listener = await net.listen(
      LOOPBACK,
      table({ stream: new Map([['/t.T/Look', (_stream, call) => seen.resolve(call.metadata['braid-from-store'])]]) }),
    );
    const stream = net.dial(listener.address).stream('/t.T/Look', { metadata: { 'braid-from-store': '3' } });
    expect(await seen.promise).toBe('3');
    stream.cancel(RpcStatus.CANCELLED, 'done');
  });

  test('aborting the signal cancels the call, and an aborted signal prevents it', async () => {
    const never = deferred<Uint8Array>();
    const reached = deferred<void>();
    const listener = await net.listen(
      LOOPBACK,
      table({
        unary: new Map([
          [
            '/t.T/Hang',
            () => {
              reached.resolve();
              return never.promise;
            },
          ],
        ]),
      }),
    );
    const channel = net.dial(listener.address);
    const abort = new AbortController();
    const call = channel.unary('/t.T/Hang', utf8(''), { ...CALL, signal: abort.signal });
    await reached.promise;
    abort.abort();
    await expect(call).rejects.toMatchObject({ status: RpcStatus.CANCELLED, sent: true });
    await expect(channel.unary('/t.T/Hang', utf8(''), { ...CALL, signal: abort.signal })).rejects.toMatchObject({
      status: RpcStatus.CANCELLED,
      sent: false,
    });
    never.resolve(utf8(''));
  });

  test('closing a channel breaks its calls and streams and refuses new ones', async () => {
    const never = deferred<Uint8Array>();
    const reached = deferred<void>();
    const listener = await net.listen(
      LOOPBACK,
      table({
        unary: new Map([
          [
            '/t.T/Hang',
            () => {
              reached.resolve();
              return never.promise;
            },
          ],
        ]),
        stream: new Map([['/t.T/Stream', () => undefined]]),
      }),
    );
    const channel = net.dial(listener.address);
    const call = channel.unary('/t.T/Hang', utf8(''), CALL);
    const ended = whenEnded(channel.stream('/t.T/Stream'));
    await reached.promise;
    channel.close();
    channel.close();
    await expect(call).rejects.toMatchObject({ status: RpcStatus.CANCELLED });
    expect((await ended).status).toBe(RpcStatus.CANCELLED);
    await expect(channel.unary('/t.T/Hang', utf8(''), CALL)).rejects.toMatchObject({ sent: false });
    expect((await whenEnded(channel.stream('/t.T/Stream'))).status).toBe(RpcStatus.CANCELLED);
    never.resolve(utf8(''));
  });

  test('a stream keeps the order of messages in both directions and ends with OK', async () => {
    const count = 300;
    const listener = await net.listen(
      LOOPBACK,
      table({
        stream: new Map([
          [
            '/t.T/Echo',
            (stream) => {
              stream.onMessage = (message) => stream.send(message);
              stream.onHalfClose = () => stream.end();
            },
          ],
        ]),
      }),
    );
    const stream = net.dial(listener.address).stream('/t.T/Echo');
    const received: string[] = [];
    stream.onMessage = (message) => received.push(fromUtf8(message));
    const ended = whenEnded(stream);
    const sent: string[] = [];
    for (let i = 0; i < count; i++) {
      sent.push(`message ${i}`);
      stream.send(utf8(`message ${i}`));
    }
    stream.end();
    expect((await ended).status).toBe(RpcStatus.OK);
    expect(received).toEqual(sent);
  });

  test('the last messages before an error status are still delivered', async () => {
    const listener = await net.listen(
      LOOPBACK,
      table({
        stream: new Map([
          [
            '/t.T/Fail',
            (stream) => {
              for (let i = 0; i < 20; i++) {
                stream.send(utf8(String(i)));
              }
              stream.cancel(RpcStatus.ABORTED, 'enough');
              stream.send(utf8('after the end'));
            },
          ],
        ]),
      }),
    );
    const stream = net.dial(listener.address).stream('/t.T/Fail');
    let received = 0;
    stream.onMessage = () => {
      received++;
    };
    expect(await whenEnded(stream)).toEqual({ status: RpcStatus.ABORTED, message: 'enough' });
    expect(received).toBe(20);
  });

  test('a stream to an address where nobody listens ends with UNAVAILABLE', async () => {
    const listener = await net.listen(LOOPBACK, table({}));
    await listener.close(0);
    expect((await whenEnded(net.dial(listener.address).stream('/t.T/Echo'))).status).toBe(RpcStatus.UNAVAILABLE);
  });

  test('a server learns that the caller canceled its stream', async () => {
    const opened = deferred<void>();
    const serverEnded = deferred<StreamEnd>();
    const listener = await net.listen(
      LOOPBACK,
      table({
        stream: new Map([
          [
            '/t.T/Wait',
            (stream) => {
              stream.onEnd = serverEnded.resolve;
              opened.resolve();
            },
          ],
        ]),
      }),
    );
    const stream = net.dial(listener.address).stream('/t.T/Wait');
    const ended = whenEnded(stream);
    await opened.promise;
    stream.cancel(RpcStatus.CANCELLED, 'no longer needed');
    expect(await ended).toEqual({ status: RpcStatus.CANCELLED, message: 'no longer needed' });
    expect((await serverEnded.promise).status).toBe(RpcStatus.CANCELLED);
  });

  test('a port with an HTTP handler answers HTTP/1.1 and gRPC alike', async () => {
    const both = createGrpcNet({
      onHttpRequest: (request, response) => {
        response.end(`path ${request.url}`);
      },
    });
    try {
      const listener = await both.listen(
        LOOPBACK,
        table({ unary: new Map([['/t.T/Echo', async (request: Uint8Array) => request]]) }),
      );
      const response = await fetch(`http://${listener.address}/config`);
      expect(await response.text()).toBe('path /config');
      expect(fromUtf8(await both.dial(listener.address).unary('/t.T/Echo', utf8('grpc'), CALL))).toBe('grpc');
      await listener.close(60_000);
    } finally {
      await both.close(0);
    }
  });

  test('closing a listener lets running calls finish within the grace time', async () => {
    const release = deferred<Uint8Array>();
    const reached = deferred<void>();
    const listener = await net.listen(
      LOOPBACK,
      table({
        unary: new Map([
          [
            '/t.T/Slow',
            () => {
              reached.resolve();
              return release.promise;
            },
          ],
        ]),
      }),
    );
    const call = net.dial(listener.address).unary('/t.T/Slow', utf8(''), CALL);
    await reached.promise;
    const closed = listener.close(5000);
    release.resolve(utf8('done'));
    expect(fromUtf8(await call)).toBe('done');
    await closed;
  });

  test('send tells when the buffer is full and onDrain tells when it is not', async () => {
    const listener = await net.listen(
      LOOPBACK,
      table({ stream: new Map([['/t.T/Swallow', (stream) => void (stream.onHalfClose = () => stream.end())]]) }),
    );
    const stream = net.dial(listener.address).stream('/t.T/Swallow');
    const drained = deferred<void>();
    stream.onDrain = drained.resolve;
    const ended = whenEnded(stream);
    const chunk = new Uint8Array(16 * 1024);
    let sent = 0;
    while (stream.send(chunk)) {
      sent++;
      expect(sent).toBeLessThan(10);
    }
    expect(stream.bufferedBytes).toBeGreaterThan(64 * 1024);
    await drained.promise;
    expect(stream.bufferedBytes).toBeLessThanOrEqual(32 * 1024);
    stream.end();
    expect((await ended).status).toBe(RpcStatus.OK);
  });

  test('messages above the default limit of 4 MiB pass', async () => {
    const size = 6 * 1024 * 1024;
    const listener = await net.listen(LOOPBACK, table({ unary: new Map([['/t.T/Echo', async (request) => request]]) }));
    const reply = await net.dial(listener.address).unary('/t.T/Echo', new Uint8Array(size), CALL);
    expect(reply.length).toBe(size);
  });

  test('closing a listener breaks streams that outlive the grace time', async () => {
    const opened = deferred<void>();
    const listener = await net.listen(
      LOOPBACK,
      table({
        stream: new Map([
          [
            '/t.T/Stay',
            (stream) => {
              stream.onMessage = () => opened.resolve();
            },
          ],
        ]),
      }),
    );
    const stream = net.dial(listener.address).stream('/t.T/Stay');
    const ended = whenEnded(stream);
    stream.send(utf8('here'));
    await opened.promise;
    await listener.close(10);
    expect((await ended).status).not.toBe(RpcStatus.OK);
  });

  test('a channel reaches a server again that came back on the same port', async () => {
    const services = table({ unary: new Map([['/t.T/Echo', async (request: Uint8Array) => request]]) });
    const first = await net.listen(LOOPBACK, services);
    const channel = net.dial(first.address);
    await channel.unary('/t.T/Echo', utf8('a'), CALL);
    await first.close(0);
    await expect(channel.unary('/t.T/Echo', utf8('b'), CALL)).rejects.toMatchObject({ status: RpcStatus.UNAVAILABLE });
    await net.listen(first.address, services);
    let reply: Uint8Array | undefined;
    for (let attempt = 0; attempt < 1_000_000 && reply === undefined; attempt++) {
      reply = await channel.unary('/t.T/Echo', utf8('c'), CALL).catch((error: RpcError) => {
        expect(error.status).toBe(RpcStatus.UNAVAILABLE);
        return undefined;
      });
    }
    expect(fromUtf8(reply as Uint8Array)).toBe('c');
  });

  test('a broken stream whose reader stopped reading is reset', async () => {
    const strict = createGrpcNet({ sendBufferHighBytes: 64 * 1024, cancelFlushMs: 20 });
    const opened = deferred<{ stream: ByteStream; ended: Promise<StreamEnd> }>();
    const listener = await strict.listen(
      LOOPBACK,
      table({
        stream: new Map([['/t.T/Flood', (stream) => opened.resolve({ stream, ended: whenEnded(stream) })]]),
      }),
    );
    // A reader below the seam, because streams of the seam always read.
    const { Client, credentials } = await import('@grpc/grpc-js');
    const client = new Client(listener.address, credentials.createInsecure());
    const call = client.makeBidiStreamRequest(
      '/t.T/Flood',
      (b: Buffer) => b,
      (b: Buffer) => b,
    );
    call.on('error', () => undefined);
    const { stream, ended } = await opened.promise;
    let isRoomLeft = true;
    for (let i = 0; i < 100 && isRoomLeft; i++) {
      isRoomLeft = stream.send(new Uint8Array(64 * 1024));
    }
    expect(isRoomLeft).toBe(false);
    stream.cancel(RpcStatus.RESOURCE_EXHAUSTED, 'the reader is too slow');
    expect((await ended).status).toBe(RpcStatus.RESOURCE_EXHAUSTED);
    client.close();
    await strict.close(0);
  });

  test('a broken invariant in a handler is reported to the owner', async () => {
    const { InvariantError } = await import('../../../src/base/assert.ts');
    const reported: unknown[] = [];
    const strict = createGrpcNet({ onInvariantError: (error) => reported.push(error) });
    try {
      const listener = await strict.listen(
        LOOPBACK,
        table({ unary: new Map([['/t.T/Break', () => Promise.reject(new InvariantError('impossible'))]]) }),
      );
      await expect(strict.dial(listener.address).unary('/t.T/Break', utf8(''), CALL)).rejects.toThrow('impossible');
      expect(reported).toHaveLength(1);
    } finally {
      await strict.close(0);
    }
  });
});
