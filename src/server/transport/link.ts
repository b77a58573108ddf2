/**
 * The stream to one other store: collects messages, sends each store round as one frame, reconnects with growing
 * pauses. Messages may be dropped at any time (Raft repeats what matters); what has a limit here drops beyond it.
 */
import { unreachable } from '../../base/assert.ts';
import { MIB } from '../../base/units.ts';
import type { PeerMessage } from '../../codec/peer-message.ts';
import type { Clock, TimerId } from '../../env/clock.ts';
import type { Logger } from '../../env/log.ts';
import { type Channel, type Net, RpcStatus } from '../../env/net.ts';
import type { Rng } from '../../env/rng.ts';
import { openStream, type TypedStream } from '../../rpc/call.ts';
import { peerMethods } from '../../rpc/services.ts';
import type { RaftAck } from '../../gen/braid/peer/v1/peer.ts';
import type { StoreIdentity } from '../service/request-context.ts';
import { callMetadata } from './identity.ts';

/** Messages and bytes waiting for one store. */
export const QUEUE_MESSAGES_MAX = 8192;
export const QUEUE_BYTES_MAX: number = 64 * MIB;
/** Frames are cut at about this size, so that one does not keep the receiver busy for long. */
const FRAME_BYTES_MAX: number = 1 * MIB;
const MESSAGE_OVERHEAD_BYTES = 128;
/** Frames the receiver has not acknowledged; it acknowledges every {@link ACK_EVERY_FRAMES}. */
const FRAMES_UNACKED_MAX = 2048;
export const ACK_EVERY_FRAMES = 32;
/** Bounds of the pause after a broken connection. */
const BACKOFF_MIN_MS = 50;
const BACKOFF_MAX_MS = 2_000;
/** A connection that lived so long was a good one: the next pause is short again. */
const GOOD_CONNECTION_MS = 5_000;

export interface LinkEnv {
  readonly net: Net;
  readonly clock: Clock;
  readonly rng: Rng;
  readonly log: Logger;
}

export interface LinkOptions {
  readonly env: LinkEnv;
  readonly self: StoreIdentity;
  readonly toStore: number;
  /** Looks up the address of the store. */
  readonly resolve: (storeId: number) => Promise<string>;
  /** The connection broke or could not be made. */
  readonly onUnreachable: (storeId: number) => void;
}

type LinkState =
  | { readonly type: 'idle' }
  | { readonly type: 'resolving' }
  | {
      readonly type: 'open';
      readonly channel: Channel;
      readonly stream: TypedStream<readonly PeerMessage[], RaftAck>;
      readonly sinceMs: number;
    }
  /** Messages are dropped until the pause is over. */
  | { readonly type: 'pausing'; readonly timer: TimerId }
  | { readonly type: 'closed' };

export interface LinkStats {
  sentMessages: number;
  sentFrames: number;
  droppedMessages: number;
  connects: number;
}

function bytesOf(message: PeerMessage): number {
  const { body } = message;
  let bytes = MESSAGE_OVERHEAD_BYTES;
  if (body.type === 'raft') {
    for (const entry of body.message.entries) {
      bytes += entry.data.length + 16;
    }
  }
  return bytes;
}

export class Link {
  readonly stats: LinkStats = { sentMessages: 0, sentFrames: 0, droppedMessages: 0, connects: 0 };
  readonly #options: LinkOptions;
  #state: LinkState = { type: 'idle' };
  #queue: PeerMessage[] = [];
  #queueBytes = 0;
  #isFull = false;
  #framesSent = 0;
  #framesAcked = 0;
  #failures = 0;

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  get isOpen(): boolean {
    return this.#state.type === 'open';
  }

  /** Takes a message for the next flush, or drops it. */
  send(message: PeerMessage): void {
    const { type } = this.#state;
    if (
      type === 'pausing' ||
      type === 'closed' ||
      this.#queue.length >= QUEUE_MESSAGES_MAX ||
      this.#queueBytes >= QUEUE_BYTES_MAX
    ) {
      this.stats.droppedMessages++;
      return;
    }
    this.#queue.push(message);
    this.#queueBytes += bytesOf(message);
  }

  /** Lets everything taken so far leave. */
  flush(): void {
    if (this.#queue.length === 0) {
      return;
    }
    switch (this.#state.type) {
      case 'idle':
        this.#connect();
        return;
      case 'open':
        this.#write(this.#state.stream);
        return;
      case 'resolving':
      case 'pausing':
      case 'closed':
        return;
      default:
        unreachable(this.#state);
    }
  }

  close(): void {
    const state = this.#state;
    this.#state = { type: 'closed' };
    this.#dropQueue();
    if (state.type === 'open') {
      state.channel.close();
    } else if (state.type === 'pausing') {
      this.#options.env.clock.clearTimer(state.timer);
    }
  }

  #connect(): void {
    const { resolve, toStore } = this.#options;
    this.#state = { type: 'resolving' };
    resolve(toStore).then(
      (address) => {
        if (this.#state.type === 'resolving') {
          this.#open(address);
        }
      },
      (cause: unknown) => {
        if (this.#state.type === 'resolving') {
          this.#pause(`its address is unknown: ${cause instanceof Error ? cause.message : String(cause)}`);
        }
      },
    );
  }

  #open(address: string): void {
    const { env, self, toStore } = this.#options;
    const channel = env.net.dial(address);
    const stream = openStream(channel, peerMethods.raftStream, { metadata: callMetadata(self, toStore) });
    const sinceMs = env.clock.monoMs();
    this.#state = { type: 'open', channel, stream, sinceMs };
    this.#isFull = false;
    this.#framesSent = 0;
    this.#framesAcked = 0;
    this.stats.connects++;
    stream.onMessage = (ack) => {
      this.#failures = 0;
      this.#framesAcked = ack.frames;
      this.flush();
    };
    stream.onDrain = () => {
      this.#isFull = false;
      this.flush();
    };
    stream.onHalfClose = () => stream.cancel(RpcStatus.CANCELLED, 'the other store ended the stream');
    stream.onEnd = (end) => {
      if (this.#state.type === 'open' && this.#state.stream === stream) {
        channel.close();
        if (env.clock.monoMs() - sinceMs >= GOOD_CONNECTION_MS) {
          this.#failures = 0;
        }
        this.#pause(`${address}: ${end.message}`);
      }
    };
    env.log.debug({ toStore, address }, 'connecting to another store');
    this.#write(stream);
  }

  #pause(reason: string): void {
    const { env, toStore, onUnreachable } = this.#options;
    this.#dropQueue();
    const limitMs = Math.min(BACKOFF_MIN_MS * 2 ** this.#failures, BACKOFF_MAX_MS);
    this.#failures++;
    const delayMs = limitMs * (0.5 + env.rng.float() / 2);
    const timer = env.clock.setTimer(
      delayMs,
      () => {
        if (this.#state.type === 'pausing') {
          this.#state = { type: 'idle' };
        }
      },
      'peer-link-pause',
    );
    this.#state = { type: 'pausing', timer };
    // One line when it starts and few afterwards: a store may be away for hours.
    const fields = { toStore, reason, failures: this.#failures };
    if (Number.isInteger(Math.log2(this.#failures))) {
      env.log.warn(fields, 'no connection to another store');
    } else {
      env.log.debug(fields, 'no connection to another store');
    }
    onUnreachable(toStore);
  }

  #write(stream: TypedStream<readonly PeerMessage[], RaftAck>): void {
    let at = 0;
    while (at < this.#queue.length && !this.#isFull && this.#framesSent - this.#framesAcked < FRAMES_UNACKED_MAX) {
      let bytes = 0;
      const from = at;
      while (at < this.#queue.length && bytes < FRAME_BYTES_MAX) {
        bytes += bytesOf(this.#queue[at] as PeerMessage);
        at++;
      }
      const frame = from === 0 && at === this.#queue.length ? this.#queue : this.#queue.slice(from, at);
      this.#framesSent++;
      this.stats.sentFrames++;
      this.stats.sentMessages += frame.length;
      this.#isFull = !stream.send(frame);
    }
    if (at >= this.#queue.length) {
      this.#queue = [];
      this.#queueBytes = 0;
    } else if (at > 0) {
      this.#queue = this.#queue.slice(at);
      this.#queueBytes = this.#queue.reduce((sum, message) => sum + bytesOf(message), 0);
    }
  }

  #dropQueue(): void {
    this.stats.droppedMessages += this.#queue.length;
    this.#queue = [];
    this.#queueBytes = 0;
  }
}
