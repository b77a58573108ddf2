import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { type Channel, RpcError, RpcStatus, type ServiceTable, type StreamEnd } from '../../../src/env/net.ts';
import { type GrpcNet, createGrpcNet } from '../../../src/rpc/grpc/grpc-net.ts';
import { type TlsSources, loadTls } from '../../../src/rpc/grpc/tls-credentials.ts';
import { TlsFailure } from '../../../src/rpc/tls-failure.ts';
import { type Authority, type CertificateFiles, type Issued, createAuthority } from '../../support/certificates.ts';
import { deferred } from './deferred.ts';

const LOOPBACK = '127.0.0.1:0';
const CALL = { timeoutMs: 5000 };
const bytes = (text: string): Uint8Array => Buffer.from(text);

const echo: ServiceTable = {
  unary: new Map([['/t.T/Echo', async (request) => utf8(`${fromUtf8(request)}!`)]]),
  stream: new Map([
    [
      '/t.T/Flow',
      (stream) => {
        stream.onMessage = (message) => stream.send(message);
        stream.onHalfClose = () => stream.end();
      },
    ],
  ]),
};

let ours: Authority;
let theirs: Authority;
let good: Issued;

beforeAll(() => {
  ours = createAuthority('our authority');
  theirs = createAuthority('their authority');
  good = ours.issue({ name: 'a store' });
});

const sourcesOf = (authority: Authority, issued?: Issued): TlsSources => ({
  ca: bytes(authority.ca),
  ...(issued === undefined ? {} : { cert: bytes(issued.cert), key: bytes(issued.key) }),
});

describe('certificates of a process', () => {
  let directory: string;
  let files: CertificateFiles;

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'braid-tls-'));
    files = ours.write(directory, good);
  });

  afterAll(() => rmSync(directory, { recursive: true, force: true }));

  const refused = (sources: TlsSources): TlsFailure => {
    try {
      loadTls(sources);
    } catch (error) {
      expect(error).toBeInstanceOf(TlsFailure);
      return error as TlsFailure;
    }
    throw new Error('they were taken');
  };

  test('are read from files or given as bytes', () => {
    expect(loadTls(files).own?.cert.toString()).toBe(good.cert);
    expect(loadTls(sourcesOf(ours, good)).own?.key.toString()).toBe(good.key);
    expect(loadTls({ ca: files.ca }).own).toBeUndefined();
  });

  test('a missing file is named with its flag', () => {
    const failure = refused({ ...files, key: join(directory, 'nothing.pem') });
    expect(failure.reason).toBe('file-missing');
    expect(failure.message).toContain(join(directory, 'nothing.pem'));
    expect(failure.hint).toContain('--tls-key');
  });

  test('a key of another certificate is refused with both files', () => {
    const other = ours.write(directory, ours.issue(), 'other');
    const failure = refused({ ...files, key: other.key });
    expect(failure.reason).toBe('key-mismatch');
    expect(failure.message).toBe(`the private key in ${other.key} does not belong to the certificate in ${files.cert}`);
  });

  test('a certificate without key, and a key without certificate, are refused', () => {
    expect(refused({ ca: files.ca, cert: files.cert }).message).toBe('there is a certificate, but no private key');
    expect(refused({ ca: files.ca, key: files.key }).reason).toBe('incomplete');
  });

  test('files that hold something else are refused', () => {
    const odd = join(directory, 'odd.pem');
    writeFileSync(odd, 'not PEM at all\n');
    expect(refused({ ...files, ca: odd }).reason).toBe('not-a-certificate');
    expect(refused({ ...files, cert: files.key }).reason).toBe('not-a-certificate');
    expect(refused({ ...files, key: files.cert }).reason).toBe('not-a-key');
  });

  test('an own certificate out of its time is refused before anybody is dialed', () => {
    const expired = refused(sourcesOf(ours, ours.issue({ fromDays: -3, toDays: -1 })));
    expect(expired.reason).toBe('own-expired');
    expect(expired.message).toMatch(/has expired at \d{4}-\d\d-\d\dT/);
    expect(refused(sourcesOf(ours, ours.issue({ fromDays: 1, toDays: 2 }))).reason).toBe('own-not-yet-valid');
  });
});

describe('GrpcNet with TLS', () => {
  const nets: GrpcNet[] = [];
  let refusals: string[];

  beforeEach(() => {
    refusals = [];
  });

  afterEach(async () => {
    await Promise.all(nets.splice(0).map((net) => net.close(0)));
  });

  function netOf(sources: TlsSources | undefined, nowMs?: number): GrpcNet {
    const net = createGrpcNet({
      ...(sources === undefined ? {} : { tls: loadTls(sources, nowMs) }),
      onTlsRefused: (_peer, why) => refusals.push(why),
    });
    nets.push(net);
    return net;
  }

  const serve = async (sources: TlsSources | undefined, nowMs?: number): Promise<string> =>
    (await netOf(sources, nowMs).listen(LOOPBACK, echo)).address;

  async function failureOf(net: GrpcNet, address: string): Promise<RpcError> {
    try {
      await net.dial(address).unary('/t.T/Echo', utf8('hello'), CALL);
    } catch (error) {
      expect(error).toBeInstanceOf(RpcError);
      return error as RpcError;
    }
    throw new Error('the call succeeded');
  }

  async function tlsFailureOf(net: GrpcNet, address: string): Promise<TlsFailure> {
    const error = await failureOf(net, address);
    expect(error.status).toBe(RpcStatus.UNAVAILABLE);
    expect(error.sent).toBe(false);
    expect(error.cause).toBeInstanceOf(TlsFailure);
    expect(error.message).toBe((error.cause as TlsFailure).message);
    return error.cause as TlsFailure;
  }

  test('calls and streams pass between two processes of one authority, by address and by name', async () => {
    const address = await serve(sourcesOf(ours, good));
    const client = netOf(sourcesOf(ours, ours.issue({ name: 'a client' })));
    expect(fromUtf8(await client.dial(address).unary('/t.T/Echo', utf8('hello'), CALL))).toBe('hello!');
    const byName = address.replace('127.0.0.1', 'localhost');
    expect(fromUtf8(await client.dial(byName).unary('/t.T/Echo', utf8('name'), CALL))).toBe('name!');
    const stream = client.dial(address).stream('/t.T/Flow');
    const got = deferred<string>();
    const end = deferred<StreamEnd>();
    stream.onMessage = (message) => got.resolve(fromUtf8(message));
    stream.onEnd = end.resolve;
    stream.send(utf8('over a stream'));
    expect(await got.promise).toBe('over a stream');
    stream.end();
    expect((await end.promise).status).toBe(RpcStatus.OK);
    expect(refusals).toEqual([]);
  });

  test('HTTP/1.1 is served behind TLS on the same port, and to nobody without a certificate', async () => {
    const net = createGrpcNet({
      tls: loadTls(sourcesOf(ours, good)),
      onHttpRequest: (_, response) => response.end('hi'),
    });
    nets.push(net);
    const { address } = await net.listen(LOOPBACK, echo);
    const { get } = await import('node:https');
    const ask = (more: object): Promise<string> =>
      new Promise((resolve, reject) => {
        get(`https://${address}/`, { ca: ours.ca, agent: false, ...more }, (response) => {
          let text = '';
          response.on('data', (part: Buffer) => (text += part.toString()));
          response.on('end', () => resolve(text));
        }).on('error', reject);
      });
    expect(await ask({ cert: good.cert, key: good.key })).toBe('hi');
    await expect(ask({})).rejects.toThrow();
  });

  test('a client without a certificate is refused and told so, and so are its streams', async () => {
    const address = await serve(sourcesOf(ours, good));
    const client = netOf(sourcesOf(ours));
    const failure = await tlsFailureOf(client, address);
    expect(failure.reason).toBe('certificate-required');
    expect(failure.hint).toContain('--tls-cert');
    expect(refusals).toContain('certificate-required');
    const end = deferred<StreamEnd>();
    const stream = client.dial(address).stream('/t.T/Flow');
    stream.onEnd = end.resolve;
    expect((await end.promise).message).toBe(failure.message);
  });

  test.each([
    ['without a certificate', (): Issued | undefined => undefined, 'certificate-required'],
    ['of another authority', (): Issued | undefined => theirs.issue(), 'unknown-authority'],
  ] as const)('a session %s that was refused cannot be resumed into one that is served', async (_, issued, word) => {
    const address = await serve(sourcesOf(ours, good));
    const own = issued();
    /** What the server answers; it gives tickets for later sessions on the way. */
    const answerTo = (tickets: Buffer[], session?: Buffer): Promise<string> =>
      new Promise((resolve, reject) => {
        let text = '';
        const socket = connectTls({
          host: '127.0.0.1',
          port: Number(address.split(':')[1]),
          ca: ours.ca,
          ALPNProtocols: ['h2'],
          ...(own === undefined || session !== undefined ? {} : own),
          ...(session === undefined ? {} : { session }),
        });
        socket.on('session', (ticket: Buffer) => tickets.push(ticket));
        socket.on('secureConnect', () => socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'));
        socket.on('data', (part: Buffer) => {
          text += part.toString('latin1').replace(/[^ -~]/g, '.');
        });
        const timer = setTimeout(() => socket.destroy(), 2_000);
        socket.on('error', reject);
        socket.on('close', () => {
          clearTimeout(timer);
          resolve(text);
        });
      });
    const tickets: Buffer[] = [];
    expect(await answerTo(tickets)).toContain(word);
    const resumed = await answerTo([], tickets.at(-1));
    expect(resumed).toContain('braid-tls-refused');
    expect(refusals).toHaveLength(2);
  });

  test('a client with a certificate of another authority, or an expired one, is refused and told so', async () => {
    const address = await serve(sourcesOf(ours, good));
    const stranger = await tlsFailureOf(netOf({ ...sourcesOf(theirs, theirs.issue()), ca: bytes(ours.ca) }), address);
    expect(stranger.reason).toBe('certificate-refused');
    expect(stranger.message).toContain('signed by another authority');
    const old = ours.issue({ fromDays: -3, toDays: -1 });
    const late = await tlsFailureOf(netOf(sourcesOf(ours, old), Date.now() - 2 * 86_400_000), address);
    expect(late.reason).toBe('certificate-refused');
    expect(late.message).toContain('it has expired');
    expect(refusals).toEqual(expect.arrayContaining(['unknown-authority', 'expired']));
  });

  test('a server of another authority, an expired one and one of another name are not trusted', async () => {
    const client = netOf(sourcesOf(ours, good));
    const stranger = await tlsFailureOf(client, await serve(sourcesOf(theirs, theirs.issue())));
    expect(stranger.reason).toBe('unknown-authority');
    expect(stranger.message).toContain('their authority');
    const old = ours.issue({ fromDays: -3, toDays: -1 });
    const late = await tlsFailureOf(client, await serve(sourcesOf(ours, old), Date.now() - 2 * 86_400_000));
    expect(late.reason).toBe('expired');
    const named = ours.issue({ hosts: ['store-1.example'] });
    const elsewhere = await tlsFailureOf(client, await serve(sourcesOf(ours, named)));
    expect(elsewhere.reason).toBe('wrong-name');
    expect(elsewhere.message).toContain('store-1.example');
  });

  test('one side that speaks TLS and one that does not find out', async () => {
    const secret = await serve(sourcesOf(ours, good));
    const open = await serve(undefined);
    expect((await tlsFailureOf(netOf(undefined), secret)).reason).toBe('server-is-tls');
    expect((await tlsFailureOf(netOf(sourcesOf(ours, good)), open)).reason).toBe('server-is-plain');
    expect(refusals.length).toBeGreaterThan(0);
  });

  test('a port where nobody listens, and one that hangs up, are no question of TLS', async () => {
    const quiet = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => quiet.listen(0, '127.0.0.1', resolve));
    const port = (quiet.address() as { readonly port: number }).port;
    for (const net of [netOf(sourcesOf(ours, good)), netOf(undefined)]) {
      const hungUp = await failureOf(net, `127.0.0.1:${port}`);
      expect([hungUp.status, hungUp.cause]).toEqual([RpcStatus.UNAVAILABLE, undefined]);
    }
    await new Promise((resolve) => quiet.close(resolve));
    const closed = await failureOf(netOf(sourcesOf(ours, good)), `127.0.0.1:${port}`);
    expect(closed.message).toContain('ECONNREFUSED');
    expect(closed.cause).toBeUndefined();
  });

  test('renewed certificates serve new connections in both directions, and open ones stay', async () => {
    const server = netOf(sourcesOf(ours, good));
    const { address } = await server.listen(LOOPBACK, echo);
    const client = netOf(sourcesOf(ours, ours.issue()));
    const open = client.dial(address);
    const call = async (channel: Channel): Promise<string> =>
      fromUtf8(await channel.unary('/t.T/Echo', utf8('still'), CALL));
    expect(await call(open)).toBe('still!');
    const later = createAuthority('later authority');
    server.renewTls(loadTls(sourcesOf(later, later.issue())));
    expect(await call(open)).toBe('still!');
    expect((await tlsFailureOf(client, address)).reason).toBe('unknown-authority');
    client.renewTls(loadTls(sourcesOf(later, later.issue())));
    expect(await call(client.dial(address))).toBe('still!');
    expect((await tlsFailureOf(netOf({ ...sourcesOf(ours, good), ca: bytes(later.ca) }), address)).reason).toBe(
      'certificate-refused',
    );
    // Whoever speaks plain text is not switched over by chance.
    expect(() => netOf(undefined).renewTls(loadTls(sourcesOf(ours, good)))).toThrow('only certificates are renewed');
  });

  test('a server that is closed ends connections it was about to refuse', async () => {
    const net = netOf(sourcesOf(ours, good));
    const listener = await net.listen(LOOPBACK, echo);
    await tlsFailureOf(netOf(sourcesOf(ours)), listener.address);
    const startMs = performance.now();
    await listener.close(0);
    expect(performance.now() - startMs).toBeLessThan(1000);
  });
});
