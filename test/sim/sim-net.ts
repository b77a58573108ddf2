/**
 * The network seam on virtual links. A channel is one connection, opened by its first call; a connection keeps the
 * order of everything sent in one direction, as TCP does, and breaks as a whole: nothing of it is ever lost in the
 * middle. A blocked link holds bytes back; held back for long, the connection is given up on both ends, each by itself.
 */
import {
  type ByteStream,
  type CallOptions,
  type Channel,
  type Listener,
  type Net,
  RpcError,
  RpcStatus,
  type RpcStatusCode,
  type ServerCall,
  type ServiceTable,
  type StreamEnd,
} from '../../src/env/net.ts';
import type { Rng } from '../../src/env/rng.ts';
import type { Scheduler, SimClock } from './scheduler.ts';

/** A connection whose bytes do not move for so long is given up (keep-alive). */
const GIVE_UP_MS = 4_000;
/** Time between looks at a blocked link. */
const BLOCKED_RETRY_MS = 25;
/** Unsent bytes of one stream above which its sender is told to stop. */
const HIGH_WATER_BYTES = 1024 * 1024;
/** Deadline grace: the server is told slightly less than what the client waits. */
const RETRANSMIT_MS = 200;

export interface LinkConfig {
  readonly delayMs: readonly [number, number];
  /** Chance that a message needs a retransmission. */
  readonly retransmitChance: number;
  /** Chance that sending a message finds the connection reset. */
  readonly resetChance: number;
}

/** One process on the network. */
export class SimHost {
  readonly network: SimNetwork;
  readonly name: string;
  readonly node: number;
  readonly clock: SimClock;
  isAlive = true;

  constructor(network: SimNetwork, name: string, node: number, clock: SimClock) {
    this.network = network;
    this.name = name;
    this.node = node;
    this.clock = clock;
  }

  /** Runs `fn` on this host unless it is dead; waits while it is stalled. */
  run(fn: () => void, kind: string): void {
    if (this.isAlive) {
      this.clock.deliver(() => {
        if (this.isAlive) {
          fn();
        }
      }, kind);
    }
  }

  get net(): Net {
    return {
      dial: (address) => new SimChannel(this, address),
      listen: (address, services) => this.network.listen(this, address, services),
    };
  }
}

interface BoundPort {
  readonly host: SimHost;
  services: ServiceTable | undefined;
}

export class SimNetwork {
  readonly scheduler: Scheduler;
  readonly rng: Rng;
  config: LinkConfig;
  readonly #ports: Map<string, BoundPort> = new Map();
  readonly #connections: Set<Connection> = new Set();
  /** Returning true holds back everything from one host to another. */
  readonly blocks: Set<(from: string, to: string) => boolean> = new Set();
  /** Returning true breaks the connection when a server answers: what was asked for has happened, nobody hears of it. */
  readonly lostReplies: Set<(from: string, to: string) => boolean> = new Set();
  delivered = 0;
  /** Told of everything a process is about to send; it may kill the process. True: the connection breaks instead. */
  onSend: ((host: SimHost) => boolean) | undefined;

  constructor(scheduler: Scheduler, rng: Rng, config: LinkConfig) {
    this.scheduler = scheduler;
    this.rng = rng;
    this.config = config;
  }

  isBlocked(from: SimHost, to: SimHost): boolean {
    for (const block of this.blocks) {
      if (block(from.name, to.name)) {
        return true;
      }
    }
    return false;
  }

  delayMs(): number {
    const { delayMs, retransmitChance } = this.config;
    const [min, max] = delayMs;
    return min + this.rng.float() * (max - min) + (this.rng.chance(retransmitChance) ? RETRANSMIT_MS : 0);
  }

  listen(host: SimHost, address: string, services: ServiceTable): Promise<Listener> {
    const old = this.#ports.get(address);
    if (old !== undefined && old.host.isAlive && old.services !== undefined) {
      return Promise.reject(new Error(`${address} is in use`));
    }
    const port: BoundPort = { host, services };
    this.#ports.set(address, port);
    return Promise.resolve({
      address,
      close: () => {
        port.services = undefined;
        for (const connection of [...this.#connections]) {
          if (connection.port === port) {
            connection.breakFrom(host, 'the port was closed');
          }
        }
        return Promise.resolve();
      },
    });
  }

  connect(client: SimHost, address: string): Connection {
    const connection = new Connection(this, client, address, () => this.#ports.get(address));
    this.#connections.add(connection);
    return connection;
  }

  forget(connection: Connection): void {
    this.#connections.delete(connection);
  }

  /** The process on a host died: its ends are gone, the others find out. */
  kill(host: SimHost): void {
    host.isAlive = false;
    for (const connection of [...this.#connections]) {
      if (connection.client === host || connection.port?.host === host) {
        connection.breakFrom(host, 'connection reset');
      }
    }
  }

  /** Resets connections that touch a host. */
  reset(name: string): void {
    for (const connection of [...this.#connections]) {
      if (connection.client.name === name || connection.port?.host.name === name) {
        connection.breakBoth('connection reset');
      }
    }
  }
}

interface Packet {
  readonly atMs: number;
  readonly sentMs: number;
  readonly run: () => void;
}

/** One direction of a connection: a queue whose head leaves when its time has come and the link is open. */
class Pipe {
  readonly #connection: Connection;
  readonly #toServer: boolean;
  readonly #queue: Packet[] = [];
  #isArmed = false;
  #lastMs = 0;

  constructor(connection: Connection, toServer: boolean) {
    this.#connection = connection;
    this.#toServer = toServer;
  }

  push(run: () => void): void {
    const { network } = this.#connection;
    const { nowMs } = network.scheduler;
    this.#lastMs = Math.max(nowMs + network.delayMs(), this.#lastMs);
    this.#queue.push({ atMs: this.#lastMs, sentMs: nowMs, run });
    this.#arm(this.#lastMs - nowMs);
  }

  #arm(delayMs: number): void {
    if (!this.#isArmed && this.#queue.length > 0) {
      this.#isArmed = true;
      const { network } = this.#connection;
      network.scheduler.at(
        Math.max(0, delayMs) + 0.001,
        () => {
          this.#isArmed = false;
          this.#drain();
        },
        { node: 0, kind: this.#toServer ? 'net:request' : 'net:reply' },
      );
    }
  }

  #drain(): void {
    const connection = this.#connection;
    const { network } = connection;
    const { nowMs } = network.scheduler;
    while (connection.isOpen) {
      const head = this.#queue[0];
      if (head === undefined) {
        return;
      }
      if (head.atMs > nowMs) {
        this.#arm(head.atMs - nowMs);
        return;
      }
      const server = connection.port?.host ?? connection.findPort()?.host;
      const isBlocked =
        server !== undefined &&
        (this.#toServer ? network.isBlocked(connection.client, server) : network.isBlocked(server, connection.client));
      if (isBlocked) {
        if (nowMs - head.sentMs > GIVE_UP_MS) {
          connection.breakBoth('keep-alive timed out');
          return;
        }
        this.#arm(BLOCKED_RETRY_MS);
        return;
      }
      this.#queue.shift();
      network.delivered++;
      head.run();
    }
  }
}

interface End {
  /** The connection is gone for this end. */
  broken(message: string): void;
}

class Connection {
  readonly network: SimNetwork;
  readonly client: SimHost;
  readonly address: string;
  readonly findPort: () => BoundPort | undefined;
  /** Set once the other side answered to the connection. */
  port: BoundPort | undefined;
  isOpen = true;
  readonly #up: Pipe;
  readonly #down: Pipe;
  readonly clientEnds: Set<End> = new Set();
  readonly serverEnds: Set<End> = new Set();
  #wasConnected = false;

  constructor(network: SimNetwork, client: SimHost, address: string, findPort: () => BoundPort | undefined) {
    this.network = network;
    this.client = client;
    this.address = address;
    this.findPort = findPort;
    this.#up = new Pipe(this, true);
    this.#down = new Pipe(this, false);
  }

  get wasConnected(): boolean {
    return this.#wasConnected;
  }

  /** Carries `run` to the server's process. */
  up(run: (services: ServiceTable) => void): void {
    // What a dead process still does within the turn of its death leaves no trace.
    if (this.client.isAlive && this.#sends(this.client) && !this.#mayReset()) {
      this.#up.push(() => {
        if (this.port === undefined) {
          const port = this.findPort();
          if (port === undefined || !port.host.isAlive || port.services === undefined) {
            this.breakBoth('connection refused');
            return;
          }
          this.port = port;
          this.#wasConnected = true;
        }
        const { port } = this;
        port.host.run(() => {
          if (this.isOpen && port.services !== undefined) {
            run(port.services);
          }
        }, 'net');
      });
    }
  }

  down(run: () => void): void {
    const { port } = this;
    if (port === undefined || !port.host.isAlive) {
      return;
    }
    for (const isLost of this.network.lostReplies) {
      if (isLost(port.host.name, this.client.name)) {
        this.breakBoth('connection reset');
        return;
      }
    }
    if (this.#sends(port.host) && !this.#mayReset()) {
      this.#down.push(() =>
        this.client.run(() => {
          if (this.isOpen) {
            run();
          }
        }, 'net'),
      );
    }
  }

  #sends(host: SimHost): boolean {
    if (this.network.onSend?.(host) === true) {
      this.breakBoth('connection reset');
      return false;
    }
    return host.isAlive;
  }

  #mayReset(): boolean {
    const { resetChance } = this.network.config;
    if (resetChance > 0 && this.network.rng.chance(resetChance)) {
      this.breakBoth('connection reset');
      return true;
    }
    return !this.isOpen;
  }

  /** One end died or closed; the other one is told over the link. */
  breakFrom(host: SimHost, message: string): void {
    this.breakBoth(message, host);
  }

  breakBoth(message: string, silent?: SimHost): void {
    if (!this.isOpen) {
      return;
    }
    this.isOpen = false;
    this.network.forget(this);
    const tell = (host: SimHost | undefined, ends: Set<End>): void => {
      const waiting = [...ends];
      ends.clear();
      if (host === undefined || (host === silent && !host.isAlive)) {
        return;
      }
      const delayMs = host === silent ? 0 : this.network.delayMs();
      for (const end of waiting) {
        this.network.scheduler.at(delayMs, () => host.run(() => end.broken(message), 'net-break'), {
          node: host.node,
          kind: 'net-break',
        });
      }
    };
    tell(this.client, this.clientEnds);
    tell(this.port?.host, this.serverEnds);
  }
}

const ignore = (): void => undefined;

class SimStream implements ByteStream, End {
  onMessage: (message: Uint8Array) => void = ignore;
  onHalfClose: () => void = ignore;
  onDrain: () => void = ignore;
  onEnd: (end: StreamEnd) => void = ignore;
  readonly #host: SimHost;
  readonly #send: (run: (peer: SimStream) => void) => void;
  readonly #isServer: boolean;
  readonly #release: () => void;
  #buffered = 0;
  #isOver = false;
  #isSendClosed = false;
  #isHigh = false;

  constructor(options: {
    host: SimHost;
    send: (run: (peer: SimStream) => void) => void;
    isServer: boolean;
    release: () => void;
  }) {
    this.#host = options.host;
    this.#send = options.send;
    this.#isServer = options.isServer;
    this.#release = options.release;
  }

  get bufferedBytes(): number {
    return this.#buffered;
  }

  send(message: Uint8Array): boolean {
    if (this.#isOver || this.#isSendClosed) {
      return true;
    }
    // A copy: what the sender does to its buffer afterwards must not travel.
    const bytes = new Uint8Array(message);
    this.#buffered += bytes.length;
    this.#send((peer) => {
      this.#sent(bytes.length);
      peer.#receive(bytes);
    });
    if (this.#buffered > HIGH_WATER_BYTES) {
      this.#isHigh = true;
      return false;
    }
    return true;
  }

  #sent(size: number): void {
    this.#buffered -= size;
    if (this.#isHigh && this.#buffered * 2 <= HIGH_WATER_BYTES && !this.#isOver) {
      this.#isHigh = false;
      this.#host.run(() => {
        if (!this.#isOver) {
          this.onDrain();
        }
      }, 'net-drain');
    }
  }

  #receive(bytes: Uint8Array): void {
    if (!this.#isOver) {
      this.onMessage(bytes);
    }
  }

  end(): void {
    if (this.#isOver || this.#isSendClosed) {
      return;
    }
    this.#isSendClosed = true;
    if (this.#isServer) {
      const end: StreamEnd = { status: RpcStatus.OK, message: '' };
      this.#send((peer) => peer.#finish(end));
      this.#later(end);
    } else {
      this.#send((peer) => {
        if (!peer.#isOver) {
          peer.onHalfClose();
        }
      });
    }
  }

  cancel(status: RpcStatusCode, message: string): void {
    if (!this.#isOver) {
      this.#isSendClosed = true;
      const end: StreamEnd = { status, message };
      this.#send((peer) => peer.#finish(this.#isServer ? end : { status: RpcStatus.CANCELLED, message }));
      this.#later(end);
    }
  }

  broken(message: string): void {
    this.#finish({ status: RpcStatus.UNAVAILABLE, message });
  }

  #later(end: StreamEnd): void {
    this.#host.clock.defer(() => this.#finish(end), 'stream-end');
  }

  #finish(end: StreamEnd): void {
    if (!this.#isOver) {
      this.#isOver = true;
      this.#release();
      this.onEnd(end);
    }
  }
}

class SimChannel implements Channel {
  readonly address: string;
  readonly #host: SimHost;
  #connection: Connection | undefined;
  #isClosed = false;

  constructor(host: SimHost, address: string) {
    this.#host = host;
    this.address = address;
  }

  #open(): Connection {
    if (this.#connection?.isOpen !== true) {
      this.#connection = this.#host.network.connect(this.#host, this.address);
    }
    return this.#connection;
  }

  unary(method: string, request: Uint8Array, call: CallOptions): Promise<Uint8Array> {
    const host = this.#host;
    return new Promise((resolve, reject) => {
      if (this.#isClosed || call.signal?.aborted === true) {
        reject(new RpcError(RpcStatus.CANCELLED, 'the channel is closed', { sent: false }));
        return;
      }
      const connection = this.#open();
      let isOver = false;
      const finish = (settle: () => void): void => {
        if (!isOver) {
          isOver = true;
          host.clock.clearTimer(timer);
          connection.clientEnds.delete(end);
          call.signal?.removeEventListener('abort', onAbort);
          settle();
        }
      };
      const end: End = {
        broken: (message) =>
          finish(() =>
            reject(
              new RpcError(RpcStatus.UNAVAILABLE, `${this.address}: ${message}`, { sent: connection.wasConnected }),
            ),
          ),
      };
      const onAbort = (): void => finish(() => reject(new RpcError(RpcStatus.CANCELLED, 'canceled by the caller')));
      const timer = host.clock.setTimer(
        call.timeoutMs,
        () =>
          finish(() =>
            reject(new RpcError(RpcStatus.DEADLINE_EXCEEDED, `${method} took longer than ${call.timeoutMs} ms`)),
          ),
        'rpc-deadline',
      );
      call.signal?.addEventListener('abort', onAbort, { once: true });
      connection.clientEnds.add(end);
      const bytes = new Uint8Array(request);
      const serverCall: ServerCall = { peer: host.name, metadata: call.metadata ?? {}, timeoutMs: call.timeoutMs };
      connection.up((services) => {
        const handler = services.unary.get(method);
        const answer =
          handler === undefined
            ? Promise.reject(new RpcError(RpcStatus.UNIMPLEMENTED, `no method ${method}`))
            : handler(bytes, serverCall);
        answer.then(
          (reply) => {
            const copy = new Uint8Array(reply);
            connection.down(() => finish(() => resolve(copy)));
          },
          (error: unknown) => {
            const status = error instanceof RpcError ? error.status : RpcStatus.UNKNOWN;
            const message = error instanceof Error ? error.message : String(error);
            connection.down(() => finish(() => reject(new RpcError(status, message))));
          },
        );
      });
    });
  }

  stream(method: string, options: { readonly metadata?: Readonly<Record<string, string>> } = {}): ByteStream {
    const host = this.#host;
    if (this.#isClosed) {
      const dead = new SimStream({ host, send: ignore, isServer: false, release: ignore });
      host.clock.defer(() => dead.broken('the channel is closed'), 'stream-end');
      return dead;
    }
    const connection = this.#open();
    let server: SimStream | undefined;
    const client: SimStream = new SimStream({
      host,
      send: (run) =>
        connection.up(() => {
          if (server !== undefined) {
            run(server);
          }
        }),
      isServer: false,
      release: () => connection.clientEnds.delete(client),
    });
    connection.clientEnds.add(client);
    connection.up((services) => {
      const handler = services.stream.get(method);
      const port = connection.port as BoundPort;
      const made: SimStream = new SimStream({
        host: port.host,
        send: (run) => connection.down(() => run(client)),
        isServer: true,
        release: () => connection.serverEnds.delete(made),
      });
      server = made;
      connection.serverEnds.add(made);
      if (handler === undefined) {
        made.cancel(RpcStatus.UNIMPLEMENTED, `no method ${method}`);
      } else {
        handler(made, { peer: host.name, metadata: options.metadata ?? {}, timeoutMs: undefined });
      }
    });
    return client;
  }

  close(): void {
    this.#isClosed = true;
    this.#connection?.breakFrom(this.#host, 'the channel was closed');
  }
}
