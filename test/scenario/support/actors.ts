/**
 * Control over the actors inside a store: every message between peer FSMs, apply FSMs, disks and workers passes here
 * and can be held back, in order, per sender and receiver. That is what an unfair scheduler of real threads does. Held
 * messages of a channel keep their order; channels overtake each other freely.
 */
import type { RegionId } from '../../../src/base/ids.ts';
import type { Rng } from '../../../src/env/rng.ts';
import type { ApplyTask, PeerMsg } from '../../../src/raftstore/msg.ts';
import type { RaftStore } from '../../../src/raftstore/store/raft-store.ts';
import type { StoreCluster } from '../../sim/store-cluster.ts';

/** One message inside a store. */
export type Post =
  | { readonly to: 'peer'; readonly store: number; readonly region: RegionId; readonly msg: PeerMsg }
  | { readonly to: 'apply'; readonly store: number; readonly region: RegionId; readonly msg: ApplyTask };

export type PostFilter = (post: Post) => boolean;

/** Messages held back by a script. */
export interface Hold {
  /** Messages held so far that were first in their channel; those behind them are not counted. */
  readonly caught: number;
  /** Lets everything go, in order, and holds nothing more. */
  release(): void;
}

type ChannelName = string;

interface Channel {
  readonly queue: { readonly post: Post; readonly deliver: () => void }[];
  /** Virtual time until which the scheduler starves the channel. */
  starvedUntilMs: number;
}

/** Who sends a message of this type: messages of one sender to one receiver stay in order. */
const SENDERS: Readonly<Partial<Record<PeerMsg['type'] | ApplyTask['type'], string>>> = {
  applied: 'apply-fsm',
  'apply-destroyed': 'apply-fsm',
  'snapshot-generated': 'apply-fsm',
  apply: 'peer-fsm',
  'gen-snapshot': 'peer-fsm',
  destroy: 'peer-fsm',
  'logs-up-to-date': 'peer-fsm',
  persisted: 'disk',
  'destroyed-on-disk': 'disk',
};

const channelOf = ({ to, region, msg }: Post): ChannelName => `${to}/${region}/${SENDERS[msg.type] ?? msg.type}`;

/** How unfair the scheduler is: share of messages that begin a pause of their channel, and its longest length. */
export interface Unfairness {
  readonly chance: number;
  readonly maxMs: number;
}

export class Actors {
  readonly #cluster: StoreCluster;
  readonly #rng: Rng;
  readonly #holds: Set<{ readonly filter: PostFilter }> = new Set();
  readonly #counts: Map<string, number> = new Map();
  readonly #pumps: Set<() => void> = new Set();
  unfairness: Unfairness;
  /** Sees every message when it is sent. */
  onPost: ((post: Post) => void) | undefined;

  constructor(cluster: StoreCluster, rng: Rng, unfairness: Unfairness) {
    this.#cluster = cluster;
    this.#rng = rng;
    this.unfairness = unfairness;
  }

  /** Holds back what the filter names from now on, and everything behind it on the same channel. */
  hold(filter: PostFilter): Hold {
    const caught = new Set<Post>();
    const counting = {
      filter: (post: Post): boolean => {
        const isCaught = filter(post);
        if (isCaught) {
          caught.add(post);
        }
        return isCaught;
      },
    };
    this.#holds.add(counting);
    return {
      get caught() {
        return caught.size;
      },
      release: () => {
        this.#holds.delete(counting);
        this.pump();
      },
    };
  }

  /** How many messages of this type were sent to a region's actor on a store, over all lives of the store. */
  posted(store: number, region: number, type: Post['msg']['type']): number {
    return this.#counts.get(`${store}/${region}/${type}`) ?? 0;
  }

  /** Fair from now on, nothing held. */
  calm(): void {
    this.unfairness = { chance: 0, maxMs: 0 };
    this.#holds.clear();
    this.pump();
  }

  /** Looks at all channels again. */
  pump(): void {
    for (const run of this.#pumps) {
      run();
    }
  }

  /** Takes over the mailboxes of a store that has just started. */
  attach(id: number, store: RaftStore): void {
    const channels = new Map<ChannelName, Channel>();
    const machine = this.#cluster.machine(id);
    const isAlive = (): boolean => machine.store === store;
    const toPeer = store.toPeer.bind(store);
    const toApply = store.toApply.bind(store);
    const closePeer = store.closePeer.bind(store);
    const registerApply = store.registerApply.bind(store);

    const flow = (name: ChannelName, channel: Channel): void => {
      if (!isAlive()) {
        channels.clear();
        return;
      }
      for (;;) {
        const [head] = channel.queue;
        if (head === undefined) {
          return;
        }
        if (channel.starvedUntilMs > this.#cluster.scheduler.nowMs || this.#isHeld(head.post)) {
          return;
        }
        channel.queue.shift();
        head.deliver();
        if (channels.get(name) !== channel) {
          return;
        }
      }
    };
    const send = (post: Post, deliver: () => void): void => {
      const { scheduler } = this.#cluster;
      this.onPost?.(post);
      const count = `${id}/${post.region}/${post.msg.type}`;
      this.#counts.set(count, (this.#counts.get(count) ?? 0) + 1);
      const name = channelOf(post);
      let channel = channels.get(name);
      if (channel === undefined) {
        channel = { queue: [], starvedUntilMs: 0 };
        channels.set(name, channel);
      }
      const { chance, maxMs } = this.unfairness;
      if (chance > 0 && channel.starvedUntilMs <= scheduler.nowMs && this.#rng.chance(chance)) {
        channel.starvedUntilMs = scheduler.nowMs + this.#rng.float() * maxMs;
        const starved = channel;
        scheduler.at(channel.starvedUntilMs - scheduler.nowMs + 0.001, () => flow(name, starved), {
          node: id,
          kind: 'starved',
        });
      }
      channel.queue.push({ post, deliver });
      flow(name, channel);
    };
    /** Everything on its way to an actor whose life ends here. */
    const flush = (region: RegionId, to: Post['to'] | undefined): void => {
      for (const [name, channel] of [...channels]) {
        const [kind, owner] = name.split('/');
        if (Number(owner) === region && (to === undefined || kind === to)) {
          channels.delete(name);
          for (const { deliver } of channel.queue) {
            deliver();
          }
        }
      }
    };

    store.toPeer = (region, msg) => {
      // Requests of clients are not messages between actors: the answer says whether the region is here.
      if (msg.type === 'admin' || !store.hasPeer(region)) {
        return toPeer(region, msg);
      }
      send({ to: 'peer', store: id, region, msg }, () => toPeer(region, msg));
      return true;
    };
    store.toApply = (region, msg) => {
      if (!store.hasApply(region)) {
        return toApply(region, msg);
      }
      send({ to: 'apply', store: id, region, msg }, () => toApply(region, msg));
      return true;
    };
    store.closePeer = (region, peerId) => {
      closePeer(region, peerId);
      flush(region, undefined);
    };
    store.registerApply = (registration) => {
      flush(registration.region.id, 'apply');
      registerApply(registration);
    };
    const pump = (): void => {
      if (!isAlive()) {
        this.#pumps.delete(pump);
        return;
      }
      for (const [name, channel] of [...channels]) {
        flow(name, channel);
      }
    };
    this.#pumps.add(pump);
  }

  #isHeld(post: Post): boolean {
    for (const { filter } of this.#holds) {
      if (filter(post)) {
        return true;
      }
    }
    return false;
  }
}
