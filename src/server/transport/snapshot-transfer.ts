/**
 * Sending and receiving region snapshots, each on a call and a connection of its own so that a large copy never delays
 * heartbeats. The sender keeps a few chunks under way; the receiver answers each one when it is durable.
 */
import { BoundedQueue } from '../../base/bounded-queue.ts';
import type { PeerMessage } from '../../codec/peer-message.ts';
import type { SnapshotPart } from '../../codec/peer-wire.ts';
import type { SnapshotChunk } from '../../codec/snapshot-record.ts';
import type { Clock, TimerId } from '../../env/clock.ts';
import type { Engine } from '../../env/engine.ts';
import type { Logger } from '../../env/log.ts';
import { type Net, RpcStatus } from '../../env/net.ts';
import type { SnapshotReply } from '../../gen/braid/peer/v1/peer.ts';
import type { SnapshotSource } from '../../raftstore/context.ts';
import type { StagedSnapshot } from '../../raftstore/msg.ts';
import type { SnapshotReceiver } from '../../raftstore/snapshot/receive.ts';
import { SnapshotSender } from '../../raftstore/snapshot/send.ts';
import { openStream, type TypedStream } from '../../rpc/call.ts';
import { peerMethods } from '../../rpc/services.ts';
import type { StoreIdentity } from '../service/request-context.ts';
import { callMetadata } from './identity.ts';

/** A transfer in which nothing happens for so long is given up by both sides. */
export const TRANSFER_STALL_MS = 30_000;
/** Chunks under way that the receiver has not staged yet. */
const CHUNKS_UNDER_WAY_MAX = 4;
/** What a receiver lets wait; a sender that keeps to the rules never gets here. */
const CHUNKS_WAITING_MAX: number = 2 * CHUNKS_UNDER_WAY_MAX;
/** Transfers waiting for their turn; each pins a view of the engine. */
const TRANSFERS_WAITING_MAX = 32;

// ------------------------------------------------------------------------------------------------- sending

export interface SnapshotSendsOptions {
  readonly env: { readonly net: Net; readonly clock: Clock; readonly log: Logger };
  readonly self: StoreIdentity;
  readonly engine: Engine;
  readonly resolve: (storeId: number) => Promise<string>;
  /** Most transfers at a time. */
  readonly sendsMax: number;
  readonly chunkBytes: number;
}

interface Transfer {
  readonly message: PeerMessage;
  readonly source: SnapshotSource;
  readonly done: (ok: boolean) => void;
}

export class SnapshotSends {
  readonly #options: SnapshotSendsOptions;
  readonly #waiting = new BoundedQueue<Transfer>(TRANSFERS_WAITING_MAX);
  readonly #running = new Set<Promise<void>>();
  readonly #cancels = new Set<() => void>();
  #isClosed = false;

  constructor(options: SnapshotSendsOptions) {
    this.#options = options;
  }

  get running(): number {
    return this.#running.size;
  }

  /** Takes the source over. `done` is called exactly once, never before this returns. */
  send(message: PeerMessage, source: SnapshotSource, done: (ok: boolean) => void): void {
    const transfer = { message, source, done };
    if (this.#isClosed || !this.#waiting.push(transfer)) {
      source.close();
      this.#options.env.clock.defer(() => done(false), 'snapshot-not-sent');
      return;
    }
    this.#startNext();
  }

  /** Breaks every transfer and waits until their sources are closed. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { source, done } of this.#waiting.drain()) {
      source.close();
      done(false);
    }
    for (const cancel of [...this.#cancels]) {
      cancel();
    }
    await Promise.all([...this.#running]);
  }

  #startNext(): void {
    if (this.#running.size >= this.#options.sendsMax) {
      return;
    }
    const transfer = this.#waiting.shift();
    if (transfer === undefined) {
      return;
    }
    const run = this.#run(transfer).then((ok) => {
      this.#running.delete(run);
      transfer.done(ok);
      if (!this.#isClosed) {
        this.#startNext();
      }
    });
    this.#running.add(run);
  }

  /** Never rejects. */
  async #run({ message, source }: Transfer): Promise<boolean> {
    const { env, engine, chunkBytes } = this.#options;
    const toStore = message.to.storeId;
    const fields = { region: message.regionId, toStore, index: source.index };
    const sender = new SnapshotSender({ engine, source, chunkBytes });
    const startMs = env.clock.monoMs();
    try {
      env.log.info(fields, 'sending a region snapshot');
      const address = await this.#options.resolve(toStore);
      const problem = await this.#transfer(address, message, sender);
      if (problem === undefined) {
        env.log.info({ ...fields, tookMs: Math.round(env.clock.monoMs() - startMs) }, 'a region snapshot was sent');
        return true;
      }
      env.log.warn({ ...fields, reason: problem }, 'a region snapshot was not sent');
    } catch (cause) {
      env.log.warn({ ...fields, cause }, 'a region snapshot was not sent');
    } finally {
      sender.close();
    }
    return false;
  }

  /** Undefined if the receiver has everything, else what went wrong. */
  async #transfer(address: string, message: PeerMessage, sender: SnapshotSender): Promise<string | undefined> {
    const { env, self } = this.#options;
    const channel = env.net.dial(address);
    const stream = openStream(channel, peerMethods.snapshot, { metadata: callMetadata(self, message.to.storeId) });
    const events = new Events(env.clock);
    let outcome: { readonly problem: string | undefined } | undefined;
    const finish = (problem: string | undefined): void => {
      outcome ??= { problem };
      events.signal();
    };
    let staged = 0;
    stream.onMessage = ({ reply }) => {
      if (reply?.$case === 'staged') {
        staged = reply.value;
        events.signal();
      } else if (reply?.$case === 'done') {
        finish(reply.value.accepted ? undefined : `refused: ${reply.value.reason}`);
      }
    };
    stream.onEnd = (end) => finish(`the call ended: ${end.message === '' ? `status ${end.status}` : end.message}`);
    const cancel = (): void => finish('this store is stopping');
    this.#cancels.add(cancel);
    try {
      stream.send({ type: 'message', message });
      let sent = 0;
      let isAllSent = false;
      while (outcome === undefined) {
        if (!isAllSent && sent - staged < CHUNKS_UNDER_WAY_MAX) {
          const chunk = await sender.next();
          if (outcome === undefined && chunk !== undefined) {
            stream.send({ type: 'chunk', chunk });
            sent++;
            isAllSent = chunk.type === 'end';
          }
        } else if (!(await events.next(TRANSFER_STALL_MS))) {
          finish(`no answer for ${TRANSFER_STALL_MS} ms`);
        }
      }
      return outcome.problem;
    } finally {
      this.#cancels.delete(cancel);
      stream.cancel(RpcStatus.CANCELLED, 'the transfer is over');
      channel.close();
    }
  }
}

/** Waits for "something happened", with a limit. */
class Events {
  readonly #clock: Clock;
  #pending = false;
  #wake: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  signal(): void {
    this.#pending = true;
    this.#wake?.();
  }

  /** True as soon as there was a signal since the last call, false after `limitMs` without one. */
  async next(limitMs: number): Promise<boolean> {
    if (!this.#pending) {
      await new Promise<void>((resolve) => {
        const timer = this.#clock.setTimer(limitMs, resolve, 'snapshot-stall');
        this.#wake = (): void => {
          this.#clock.clearTimer(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    const happened = this.#pending;
    this.#pending = false;
    return happened;
  }
}

// ------------------------------------------------------------------------------------------------- receiving

/** The part of the raftstore that takes snapshots in. */
export interface SnapshotTarget {
  /** Throws if the snapshot is not wanted now. */
  receiveSnapshot(message: PeerMessage): SnapshotReceiver;
  snapshotReceived(message: PeerMessage, staged: StagedSnapshot): void;
}

/** Serves one incoming transfer. */
export function receiveTransfer(
  stream: TypedStream<SnapshotReply, SnapshotPart>,
  options: {
    readonly env: { readonly clock: Clock; readonly log: Logger };
    readonly target: SnapshotTarget;
    readonly self: StoreIdentity;
    readonly fromStore: number;
  },
): void {
  const { env, target, self, fromStore } = options;
  const chunks = new BoundedQueue<SnapshotChunk>(CHUNKS_WAITING_MAX);
  let transfer: { readonly message: PeerMessage; readonly receiver: SnapshotReceiver } | undefined;
  let isWorking = false;
  let isOver = false;
  let staged = 0;
  let stall: TimerId | undefined;

  const over = (): void => {
    isOver = true;
    if (stall !== undefined) {
      env.clock.clearTimer(stall);
    }
    // Has no effect on a complete one.
    transfer?.receiver.abort();
  };
  const answer = (accepted: boolean, reason: string): void => {
    if (!isOver) {
      if (!accepted) {
        env.log.warn({ region: transfer?.message.regionId, fromStore, reason }, 'a region snapshot was refused');
      }
      stream.send({ reply: { $case: 'done', value: { accepted, reason } } });
      stream.end();
      over();
    }
  };
  const armStall = (): void => {
    if (stall !== undefined) {
      env.clock.clearTimer(stall);
    }
    stall = env.clock.setTimer(TRANSFER_STALL_MS, () => answer(false, 'the sender stopped sending'), 'snapshot-stall');
  };
  const work = async (): Promise<void> => {
    for (let chunk = chunks.shift(); chunk !== undefined && transfer !== undefined && !isOver; chunk = chunks.shift()) {
      const { message, receiver } = transfer;
      const verdict = await receiver.accept(chunk);
      if (verdict.type === 'complete') {
        // The snapshot is ours now even if the sender has gone.
        target.snapshotReceived(message, verdict.staged);
        answer(true, '');
      } else if (verdict.type === 'refused') {
        answer(false, verdict.reason);
      } else if (!isOver) {
        staged++;
        stream.send({ reply: { $case: 'staged', value: staged } });
        armStall();
      }
    }
  };

  armStall();
  stream.onMessage = (part) => {
    if (isOver) {
      return;
    }
    if (part.type === 'message') {
      if (transfer !== undefined || part.message.to.storeId !== self.storeId) {
        answer(
          false,
          transfer === undefined
            ? `this is store ${self.storeId}, not ${part.message.to.storeId}`
            : 'a transfer carries one snapshot',
        );
        return;
      }
      try {
        transfer = { message: part.message, receiver: target.receiveSnapshot(part.message) };
      } catch (cause) {
        answer(false, cause instanceof Error ? cause.message : String(cause));
      }
      return;
    }
    if (transfer === undefined || !chunks.push(part.chunk)) {
      answer(
        false,
        transfer === undefined ? 'a chunk came before its snapshot' : 'more chunks than allowed are under way',
      );
      return;
    }
    if (!isWorking) {
      isWorking = true;
      work().then(
        () => {
          isWorking = false;
        },
        (cause: unknown) => {
          env.log.warn({ region: transfer?.message.regionId, fromStore, cause }, 'a region snapshot was not received');
          answer(false, 'the receiving store cannot write');
        },
      );
    }
  };
  stream.onEnd = over;
}
