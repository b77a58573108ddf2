/**
 * Store-to-store traffic of one store: a link to each other store for Raft messages, transfers for snapshots, and the
 * service other stores call. Decides nothing about regions.
 */
import type { PeerMessage } from '../../codec/peer-message.ts';
import type { Engine } from '../../env/engine.ts';
import { RpcStatus } from '../../env/net.ts';
import type { PeerTransport, SnapshotSource } from '../../raftstore/context.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { peerMethods } from '../../rpc/services.ts';
import type { StoreIdentity } from '../service/request-context.ts';
import { checkCaller } from './identity.ts';
import { ACK_EVERY_FRAMES, Link, type LinkEnv } from './link.ts';
import { receiveTransfer, SnapshotSends, type SnapshotTarget } from './snapshot-transfer.ts';

export interface TransportOptions {
  readonly env: LinkEnv;
  readonly self: StoreIdentity;
  readonly engine: Engine;
  /** `host:port` of a store as the placement service knows it now. */
  readonly resolve: (storeId: number) => Promise<string>;
  readonly snapshotSendsMax: number;
  readonly snapshotChunkBytes: number;
}

export interface TransportStats {
  readonly sentMessages: number;
  readonly sentFrames: number;
  readonly droppedMessages: number;
  readonly connects: number;
  readonly openLinks: number;
}

export class StoreTransport implements PeerTransport {
  readonly #options: TransportOptions;
  readonly #links = new Map<number, Link>();
  readonly #dirty = new Set<Link>();
  readonly #snapshots: SnapshotSends;
  /** Told when a connection broke; set once, before the first message. */
  onUnreachable: (storeId: number) => void = () => undefined;
  #isClosed = false;

  constructor(options: TransportOptions) {
    this.#options = options;
    this.#snapshots = new SnapshotSends({
      env: options.env,
      self: options.self,
      engine: options.engine,
      resolve: options.resolve,
      sendsMax: options.snapshotSendsMax,
      chunkBytes: options.snapshotChunkBytes,
    });
  }

  get sendingSnapshots(): number {
    return this.#snapshots.running;
  }

  send(message: PeerMessage): void {
    const link = this.#linkTo(message.to.storeId);
    link.send(message);
    this.#dirty.add(link);
  }

  sendSnapshot(message: PeerMessage, source: SnapshotSource, done: (ok: boolean) => void): void {
    this.#snapshots.send(message, source, done);
  }

  flush(): void {
    for (const link of this.#dirty) {
      link.flush();
    }
    this.#dirty.clear();
  }

  stats(): TransportStats {
    let stats: TransportStats = { sentMessages: 0, sentFrames: 0, droppedMessages: 0, connects: 0, openLinks: 0 };
    for (const link of this.#links.values()) {
      stats = {
        sentMessages: stats.sentMessages + link.stats.sentMessages,
        sentFrames: stats.sentFrames + link.stats.sentFrames,
        droppedMessages: stats.droppedMessages + link.stats.droppedMessages,
        connects: stats.connects + link.stats.connects,
        openLinks: stats.openLinks + (link.isOpen ? 1 : 0),
      };
    }
    return stats;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const link of this.#links.values()) {
      link.close();
    }
    await this.#snapshots.close();
  }

  #linkTo(toStore: number): Link {
    let link = this.#links.get(toStore);
    if (link === undefined) {
      link = new Link({
        env: this.#options.env,
        self: this.#options.self,
        toStore,
        resolve: this.#options.resolve,
        onUnreachable: (storeId) => this.onUnreachable(storeId),
      });
      if (this.#isClosed) {
        link.close();
      }
      this.#links.set(toStore, link);
    }
    return link;
  }
}

/** What incoming messages are given to. */
export interface PeerTarget extends SnapshotTarget {
  receive(message: PeerMessage): void;
}

/** Adds the service that other stores call. */
export function addPeerService(
  builder: ServiceBuilder,
  options: { readonly env: Pick<LinkEnv, 'clock' | 'log'>; readonly self: StoreIdentity; readonly target: PeerTarget },
): void {
  const { env, self, target } = options;
  builder.stream(peerMethods.raftStream, (stream, call) => {
    const fromStore = checkCaller(call, self);
    let frames = 0;
    stream.onMessage = (messages) => {
      for (const message of messages) {
        if (message.to.storeId !== self.storeId) {
          stream.cancel(
            RpcStatus.INVALID_ARGUMENT,
            `a message is for store ${message.to.storeId}, this is store ${self.storeId}`,
          );
          return;
        }
        target.receive(message);
      }
      frames++;
      if (frames % ACK_EVERY_FRAMES === 0) {
        stream.send({ frames });
      }
    };
    stream.onHalfClose = () => stream.end();
    stream.onEnd = (end) => {
      env.log.debug({ fromStore, status: end.status, reason: end.message }, 'the stream of another store ended');
    };
  });
  builder.stream(peerMethods.snapshot, (stream, call) => {
    receiveTransfer(stream, { env, target, self, fromStore: checkCaller(call, self) });
  });
}
