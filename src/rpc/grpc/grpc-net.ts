/**
 * The network seam over gRPC (HTTP/2, plain or with mutual TLS). This folder is the only one that knows grpc-js; it
 * moves bytes and knows no message. A process has one network, and with it one set of certificates for all it dials
 * and serves.
 */
import type { Channel, Listener, Net, ServiceTable } from '../../env/net.ts';
import { assert } from '../../base/assert.ts';
import { GrpcChannel } from './grpc-channel.ts';
import { type GrpcListener, listenGrpc } from './grpc-listener.ts';
import { type GrpcNetOptions, type ResolvedGrpcNetOptions, resolveGrpcNetOptions } from './options.ts';
import type { TlsCredentials } from './tls-credentials.ts';

/** A Net whose channels and listeners are closed together. */
export class GrpcNet implements Net {
  #options: ResolvedGrpcNetOptions;
  readonly #channels = new Set<GrpcChannel>();
  readonly #listeners = new Set<GrpcListener>();

  constructor(options: GrpcNetOptions) {
    this.#options = resolveGrpcNetOptions(options);
  }

  /** @param address `host:port` without a scheme. */
  dial(address: string): Channel {
    const channel = new GrpcChannel(address, this.#options, (closed) => this.#channels.delete(closed));
    this.#channels.add(channel);
    return channel;
  }

  async listen(address: string, services: ServiceTable): Promise<Listener> {
    const listener = await listenGrpc(address, services, this.#options);
    this.#listeners.add(listener);
    return {
      address: listener.address,
      close: async (graceMs) => {
        await listener.close(graceMs);
        this.#listeners.delete(listener);
      },
    };
  }

  /**
   * Other certificates for every channel that is dialed and every connection that is accepted from now on; what is open
   * stays open. A network that speaks plain text stays so.
   */
  renewTls(tls: TlsCredentials): void {
    assert(this.#options.tls !== undefined, 'only certificates are renewed');
    this.#options = { ...this.#options, tls };
    for (const listener of this.#listeners) {
      listener.renewTls(tls);
    }
  }

  /** Closes every channel, then every listener. Idempotent. */
  async close(graceMs: number): Promise<void> {
    for (const channel of [...this.#channels]) {
      channel.close();
    }
    await Promise.all([...this.#listeners].map((listener) => listener.close(graceMs)));
    this.#listeners.clear();
  }
}

export const createGrpcNet = (options: GrpcNetOptions = {}): GrpcNet => new GrpcNet(options);
