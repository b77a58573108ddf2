/**
 * The stream to one other member of the placement service: sends each round's messages as one frame, reconnects with
 * growing pauses. Messages may be dropped at any time; Raft repeats what matters.
 */
import type { Clock, TimerId } from '../../env/clock.ts';
import type { Logger } from '../../env/log.ts';
import { type Channel, type Net, RpcStatus } from '../../env/net.ts';
import type { Rng } from '../../env/rng.ts';
import type { GroupAck } from '../../gen/braid/pd/v1/pd.ts';
import { describeMember } from '../../pd/group/errors.ts';
import type { Member } from '../../pd/group/membership.ts';
import type { Message } from '../../raft/types.ts';
import { openStream, type TypedStream } from '../../rpc/call.ts';
import { groupMethods } from '../../rpc/services.ts';
import { type GroupIdentity, REMOVED_WORDS, groupMetadata } from './group-identity.ts';

/** Unsent bytes above which messages are dropped: the other member does not take them. */
const BUFFERED_BYTES_MAX: number = 16 * 1024 * 1024;
/** Bounds of the pause after a broken connection. */
const PAUSE_MIN_MS = 50;
const PAUSE_MAX_MS = 1_000;
/** A connection that lived so long was a good one: the next pause is short again. */
const GOOD_CONNECTION_MS = 3_000;

export interface GroupLinkOptions {
  readonly env: { readonly net: Net; readonly clock: Clock; readonly rng: Rng; readonly log: Logger };
  readonly to: Member;
  readonly identity: () => GroupIdentity;
  readonly onUnreachable: (id: number) => void;
  /** The other member knows that this one was removed. */
  readonly onRemoved: () => void;
}

type LinkState =
  | { readonly type: 'idle' }
  | {
      readonly type: 'open';
      readonly channel: Channel;
      readonly stream: TypedStream<readonly Message[], GroupAck>;
      readonly sinceMs: number;
    }
  /** Messages are dropped until the pause is over. */
  | { readonly type: 'pausing'; readonly timer: TimerId }
  | { readonly type: 'closed' };

export class GroupLink {
  readonly #options: GroupLinkOptions;
  #state: LinkState = { type: 'idle' };
  #queue: Message[] = [];
  #failures = 0;

  constructor(options: GroupLinkOptions) {
    this.#options = options;
  }

  get address(): string {
    return this.#options.to.address;
  }

  send(message: Message): void {
    if (this.#state.type === 'idle' || this.#state.type === 'open') {
      this.#queue.push(message);
    }
  }

  /** Lets everything taken since the last call leave. */
  flush(): void {
    if (this.#queue.length === 0) {
      return;
    }
    if (this.#state.type === 'idle') {
      this.#open();
    }
    const queue = this.#queue;
    this.#queue = [];
    if (this.#state.type === 'open' && this.#state.stream.bufferedBytes <= BUFFERED_BYTES_MAX) {
      this.#state.stream.send(queue);
    }
  }

  close(): void {
    const state = this.#state;
    this.#state = { type: 'closed' };
    this.#queue = [];
    if (state.type === 'open') {
      state.channel.close();
    } else if (state.type === 'pausing') {
      this.#options.env.clock.clearTimer(state.timer);
    }
  }

  #open(): void {
    const { env, to, identity, onRemoved } = this.#options;
    const channel = env.net.dial(to.address);
    const stream = openStream(channel, groupMethods.raft, { metadata: groupMetadata(identity(), to) });
    const sinceMs = env.clock.monoMs();
    this.#state = { type: 'open', channel, stream, sinceMs };
    stream.onHalfClose = () => stream.cancel(RpcStatus.CANCELLED, 'the other member ended the stream');
    stream.onEnd = (end) => {
      if (this.#state.type !== 'open' || this.#state.stream !== stream) {
        return;
      }
      channel.close();
      if (env.clock.monoMs() - sinceMs >= GOOD_CONNECTION_MS) {
        this.#failures = 0;
      }
      this.#pause(end.message);
      if (end.status === RpcStatus.FAILED_PRECONDITION && end.message.includes(REMOVED_WORDS)) {
        onRemoved();
      }
    };
  }

  #pause(reason: string): void {
    const { env, to, onUnreachable } = this.#options;
    this.#queue = [];
    const limitMs = Math.min(PAUSE_MIN_MS * 2 ** this.#failures, PAUSE_MAX_MS);
    this.#failures++;
    const timer = env.clock.setTimer(
      limitMs * (0.5 + env.rng.float() / 2),
      () => {
        if (this.#state.type === 'pausing') {
          this.#state = { type: 'idle' };
        }
      },
      'pd-link-pause',
    );
    this.#state = { type: 'pausing', timer };
    // One line when it starts and few afterwards: a member may be away for hours.
    const fields = { to: describeMember(to), reason, failures: this.#failures };
    if (Number.isInteger(Math.log2(this.#failures))) {
      env.log.warn(fields, 'no connection to another placement member');
    } else {
      env.log.debug(fields, 'no connection to another placement member');
    }
    onUnreachable(to.id);
  }
}
