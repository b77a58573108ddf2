/**
 * One TCP port. HTTP/2 connections go to the gRPC server; with an HTTP handler, connections that do not start with the
 * HTTP/2 preface are served as HTTP/1.1. With certificates every connection is TLS first, and only those whose
 * certificate is accepted go on. Owns every socket, so that closing really closes.
 */
import {
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
  createServer as createHttpServer,
} from 'node:http';
import { type Server as TcpServer, type Socket, createServer as createTcpServer } from 'node:net';
import { constants } from 'node:crypto';
import { type Server as TlsServer, type TLSSocket, createServer as createTlsServer } from 'node:tls';
import { InvariantError } from '../../base/assert.ts';
import { RpcError, RpcStatus } from '../../env/net.ts';
import type { TlsCredentials } from './tls-credentials.ts';
import { refusalFrames, refusalOf } from './tls-refusal.ts';

/** How long a client that is turned away may take to read why. */
const REFUSAL_LINGER_MS = 1_000;

const HTTP2_PREFACE_START = 'PRI';
/** A connection that says nothing for so long is dropped; a handshake may take as long. */
const FIRST_BYTES_TIMEOUT_MS = 10_000;

export interface PortHandlers {
  readonly onHttp2: (socket: Socket) => void;
  readonly onHttp1: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;
  /** Undefined serves plain text. */
  readonly tls: TlsCredentials | undefined;
  readonly onTlsRefused: (peer: string, why: string) => void;
}

export class Port {
  readonly #handlers: PortHandlers;
  readonly #tcp: TcpServer;
  /** Never listens: it is handed the sockets of `#tcp`. */
  readonly #tls: TlsServer | undefined;
  readonly #http1: HttpServer | undefined;
  readonly #sockets = new Set<Socket>();
  /** HTTP/1.1 connections and their running requests; an idle one must not delay closing. */
  readonly #http1Requests = new Map<Socket, number>();
  #closing: Promise<void> | undefined;

  constructor(handlers: PortHandlers) {
    this.#handlers = handlers;
    const { onHttp1 } = handlers;
    this.#http1 =
      onHttp1 === undefined
        ? undefined
        : createHttpServer((request, response) => {
            this.#track(request.socket, response);
            onHttp1(request, response);
          });
    this.#tls = handlers.tls === undefined ? undefined : this.#createTls(handlers.tls);
    this.#tcp = createTcpServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  /**
   * @param address `host:port`, where port 0 asks for a free one and brackets around an IPv6 host are kept.
   * @returns the address with the real port. Rejects with an RpcError that was certainly not sent.
   */
  bind(address: string): Promise<string> {
    const colon = address.lastIndexOf(':');
    const host = address.substring(0, colon);
    const port = Number(address.substring(colon + 1));
    return new Promise((resolve, reject) => {
      const refuse = (cause: Error): void => {
        reject(
          new RpcError(RpcStatus.UNAVAILABLE, `cannot listen on ${address}: ${cause.message}`, { sent: false, cause }),
        );
      };
      if (colon < 0 || !Number.isInteger(port) || port < 0 || port > 65_535) {
        refuse(new Error('not an address of the form host:port'));
        return;
      }
      this.#tcp.once('error', refuse);
      this.#tcp.listen({ host: host.replace(/^\[(.*)\]$/, '$1'), port }, () => {
        this.#tcp.off('error', refuse);
        const bound = this.#tcp.address();
        resolve(`${host}:${bound !== null && typeof bound === 'object' ? bound.port : port}`);
      });
    });
  }

  /** Stops accepting; sockets still open after `graceMs` are destroyed. Resolves when all are closed. */
  close(graceMs: number): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      const timer = setTimeout(() => {
        for (const socket of this.#sockets) {
          socket.destroy();
        }
      }, graceMs);
      this.#tcp.close(() => {
        clearTimeout(timer);
        resolve();
      });
      for (const [socket, requests] of this.#http1Requests) {
        if (requests === 0) {
          socket.destroy();
        }
      }
    });
    return this.#closing;
  }

  #track(socket: Socket, response: ServerResponse): void {
    this.#http1Requests.set(socket, (this.#http1Requests.get(socket) ?? 0) + 1);
    response.once('close', () => {
      const left = (this.#http1Requests.get(socket) ?? 1) - 1;
      this.#http1Requests.set(socket, left);
      if (left === 0 && this.#closing !== undefined) {
        socket.end();
      }
    });
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    // Resets by the other end; whoever serves the socket sees its end.
    socket.on('error', () => undefined);
    if (this.#tls === undefined) {
      this.#serve(socket);
    } else {
      this.#tls.emit('connection', socket);
    }
  }

  /** Open connections keep what they began with. */
  renewTls(tls: TlsCredentials): void {
    this.#tls?.setSecureContext(secureSettings(tls));
  }

  #createTls(tls: TlsCredentials): TlsServer {
    const { onTlsRefused } = this.#handlers;
    const server = createTlsServer({
      ...secureSettings(tls),
      ALPNProtocols: this.#http1 === undefined ? ['h2'] : ['h2', 'http/1.1'],
      handshakeTimeout: FIRST_BYTES_TIMEOUT_MS,
      // Every client is asked for a certificate. The verdict is ours, below, so that the client can be told why.
      requestCert: true,
      rejectUnauthorized: false,
    });
    server.on('secureConnection', (socket: TLSSocket) => {
      socket.on('error', () => undefined);
      const refusal = refusalOf(socket);
      if (refusal === undefined) {
        this.#serve(socket);
        return;
      }
      onTlsRefused(peerOf(socket), refusal);
      socket.end(refusalFrames(refusal));
      // What the client may have sent already must be read, or the end of the connection overtakes the refusal.
      socket.resume();
      const timer = setTimeout(() => socket.destroy(), REFUSAL_LINGER_MS);
      socket.once('close', () => clearTimeout(timer));
    });
    server.on('tlsClientError', (error: Error & { readonly code?: string }, socket: TLSSocket) => {
      onTlsRefused(peerOf(socket), error.code ?? error.message);
      socket.destroy();
    });
    return server;
  }

  #serve(socket: Socket): void {
    const http1 = this.#http1;
    if (http1 === undefined) {
      this.#handlers.onHttp2(socket);
      return;
    }
    const timer = setTimeout(() => socket.destroy(), FIRST_BYTES_TIMEOUT_MS);
    socket.once('close', () => clearTimeout(timer));
    const look = (): void => {
      const first = socket.read() as Buffer | null;
      if (first === null) {
        socket.once('readable', look);
        return;
      }
      clearTimeout(timer);
      socket.unshift(first);
      // In practice the first segment holds the whole preface or a whole request line.
      if (first.toString('latin1', 0, HTTP2_PREFACE_START.length) === HTTP2_PREFACE_START.substring(0, first.length)) {
        this.#handlers.onHttp2(socket);
      } else {
        this.#http1Requests.set(socket, 0);
        socket.once('close', () => this.#http1Requests.delete(socket));
        http1.emit('connection', socket);
      }
    };
    socket.once('readable', look);
  }
}

interface SecureSettings {
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly secureOptions: number;
}

function secureSettings({ ca, own }: TlsCredentials): SecureSettings {
  if (own === undefined) {
    throw new InvariantError('a listener with TLS has a certificate');
  }
  // No session is resumed: each connection shows its certificate anew. Connections are few and live long.
  return { ca, cert: own.cert, key: own.key, secureOptions: constants.SSL_OP_NO_TICKET };
}

/** Who is at the other end, for logs. */
const peerOf = (socket: Socket): string => `${socket.remoteAddress ?? 'unknown'}:${socket.remotePort ?? 0}`;
