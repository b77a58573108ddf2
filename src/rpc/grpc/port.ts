/**
 * One TCP port. HTTP/2 connections go to the gRPC server; with an HTTP handler, connections that do not start with the
 * HTTP/2 preface are served as HTTP/1.1. Owns every socket, so that closing really closes.
 */
import {
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
  createServer as createHttpServer,
} from 'node:http';
import { type Server as TcpServer, type Socket, createServer as createTcpServer } from 'node:net';
import { RpcError, RpcStatus } from '../../env/net.ts';

const HTTP2_PREFACE_START = 'PRI';
/** A connection that says nothing for so long is dropped. */
const FIRST_BYTES_TIMEOUT_MS = 10_000;

export interface PortHandlers {
  readonly onHttp2: (socket: Socket) => void;
  readonly onHttp1: ((request: IncomingMessage, response: ServerResponse) => void) | undefined;
}

export class Port {
  readonly #handlers: PortHandlers;
  readonly #tcp: TcpServer;
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
