/** Partitions of all shapes, single bad links, lost and late classes of messages, old mail, held snapshots. */
import type { PeerMessage } from '../../../src/codec/peer-message.ts';
import { MsgType } from '../../../src/raft/types.ts';
import { messageName, type NemesisAction } from '../case.ts';
import type { MessageFilter } from '../store-cluster.ts';
import { pick, type NemesisHost } from './host.ts';

/** Types a filter may take out, alone or together. */
const CLASSES: readonly (readonly MsgType[])[] = [
  [MsgType.Snap],
  [MsgType.App],
  [MsgType.AppResp],
  [MsgType.Vote],
  [MsgType.VoteResp],
  [MsgType.PreVote, MsgType.PreVoteResp],
  [MsgType.Heartbeat],
  [MsgType.HeartbeatResp],
  [MsgType.TimeoutNow],
  [MsgType.ReadIndex, MsgType.ReadIndexResp],
  [MsgType.AppResp, MsgType.HeartbeatResp, MsgType.VoteResp, MsgType.ReadIndexResp],
];
const LATE_BY_MS = 300;

export class NetworkFaults {
  readonly #host: NemesisHost;

  constructor(host: NemesisHost) {
    this.#host = host;
  }

  /** False if the action is not about the network. */
  act(action: NemesisAction): boolean {
    const { cluster, config } = this.#host;
    const { kind, a, b, c, forMs } = action;
    const ids: readonly number[] = [...cluster.machines.keys()];
    const region = pick(this.#host.leaders(), a);
    const store = pick(ids, a) as number;
    const say = (text: string, lane = 0): void => {
      this.#host.count(kind);
      this.#host.note(lane, text, forMs);
    };
    const cut = (filter: MessageFilter): void => this.#host.later(forMs, kind, cluster.drop(filter));
    switch (kind) {
      case 'isolate': {
        const leader = region === undefined ? undefined : cluster.leaderStore(region.id);
        const id = b % 2 === 0 && leader !== undefined ? leader : store;
        say(`store ${id} is cut off`, id);
        this.#host.later(forMs, kind, cluster.isolate(id));
        return true;
      }
      case 'one-way':
        say(`store ${store} is ${b % 2 === 0 ? 'mute' : 'deaf'}`, store);
        cut((m) => (b % 2 === 0 ? m.from.storeId : m.to.storeId) === store);
        return true;
      case 'bisect': {
        const side = (id: number): boolean => ((b >>> (id % 16)) & 1) === 1;
        const isOneWay = c % 3 === 0;
        say(`the network falls in two${isOneWay ? ', one way' : ''}`);
        cut((m) =>
          isOneWay ? side(m.from.storeId) && !side(m.to.storeId) : side(m.from.storeId) !== side(m.to.storeId),
        );
        return true;
      }
      case 'bridge': {
        // Two halves that see each other only through one store.
        const side = (id: number): boolean => ids.indexOf(id) % 2 === b % 2;
        say(`two halves, joined by store ${store}`, store);
        cut((m) => m.from.storeId !== store && m.to.storeId !== store && side(m.from.storeId) !== side(m.to.storeId));
        return true;
      }
      case 'ring': {
        // Every store sees itself and the next ones around a ring, as few as make a majority: all majorities differ.
        const n = ids.length;
        const reach = Math.floor(n / 2);
        say('every store sees another majority');
        cut((m) => {
          const steps = (ids.indexOf(m.to.storeId) - ids.indexOf(m.from.storeId) + n) % n;
          return c % 2 === 0 ? steps > reach : Math.min(steps, n - steps) > Math.ceil(reach / 2);
        });
        return true;
      }
      case 'clog':
        say('messages take long');
        cluster.setNetwork({ delayMs: [10, 50 + (b % 900)] });
        this.#host.later(forMs, kind, () => cluster.setNetwork({ delayMs: config.delayMs }));
        return true;
      case 'swizzle':
        this.#swizzle(action, ids);
        return true;
      case 'bandwidth': {
        const limits = {
          bytesPerMs: pick([0.5, 2, 10, 100], b) as number,
          ...(c % 2 === 0 ? { inFlightMax: 1 + (c % 20) } : {}),
        };
        say(`links carry ${limits.bytesPerMs} bytes a millisecond`);
        cluster.links.setLimits(limits);
        this.#host.later(forMs, kind, () => cluster.links.setLimits({}));
        return true;
      }
      case 'drop-class':
      case 'delay-class':
        this.#onClass(action, store, region?.id, say);
        return true;
      case 'capture-snapshots': {
        // Several snapshots are complete, but arrive at their regions only together.
        const held: (() => void)[] = [];
        say('received snapshots are held');
        cluster.heldSnapshots = held;
        this.#host.later(forMs, kind, () => {
          cluster.heldSnapshots = undefined;
          if (held.length > 1) {
            this.#host.count('several-snapshots-at-once');
          }
          for (const release of b % 2 === 0 ? held : held.toReversed()) {
            release();
          }
        });
        return true;
      }
      case 'old-mail':
        say('old mail arrives again');
        for (let i = 0; i < 1 + (b % 12); i++) {
          cluster.replayOldMail(cluster.rng.fork(`old-${a}-${i}`));
        }
        return true;
      case 'pd-cut':
        this.#cutPd(action, ids, say);
        return true;
      default:
        return false;
    }
  }

  /** Clogs links one after another and frees them in another order; each then brings everything at once. */
  #swizzle({ kind, b, c, forMs }: NemesisAction, ids: readonly number[]): void {
    const { cluster } = this.#host;
    this.#host.count(kind);
    this.#host.note(0, 'links clog one after another', forMs);
    const links = ids.flatMap((from) => ids.filter((to) => to !== from).map((to) => [from, to] as const));
    const chosen = links.filter((_, i) => ((b >>> (i % 30)) & 1) === 1);
    for (const [i, [from, to]] of chosen.entries()) {
      const startMs = (forMs * i) / (2 * chosen.length);
      const freeMs = forMs * (0.5 + (((i * 7 + c) % chosen.length) + 1) / (2 * chosen.length));
      cluster.scheduler.at(startMs, () => cluster.links.clog(from, to, cluster.scheduler.nowMs + freeMs - startMs), {
        node: 0,
        kind: 'clog',
      });
    }
  }

  /** Loses or delays messages of a class, perhaps only to one store, only of one region, or only the first few. */
  #onClass(
    { kind, b, c, forMs }: NemesisAction,
    store: number,
    region: number | undefined,
    say: (text: string, lane?: number) => void,
  ): void {
    const { cluster } = this.#host;
    const types = pick(CLASSES, b) as readonly MsgType[];
    const at = c % 2 === 0 ? store : 0;
    const isOutward = c % 4 === 0;
    const only = c % 3 === 0 ? region : undefined;
    let left = c % 5 === 0 ? 1 + (c % 7) : Number.POSITIVE_INFINITY;
    const matches = (m: PeerMessage): boolean =>
      m.body.type === 'raft' &&
      types.includes(m.body.message.type) &&
      (at === 0 || (isOutward ? m.from.storeId : m.to.storeId) === at) &&
      (only === undefined || m.regionId === only) &&
      left-- > 0;
    const names = types.map(messageName).join(', ');
    if (kind === 'drop-class') {
      say(`messages ${names} are lost`, at);
      this.#host.later(forMs, kind, cluster.drop(matches));
    } else {
      say(`messages ${names} are late`, at);
      const delayOf = (m: PeerMessage): number => (matches(m) ? LATE_BY_MS : 0);
      cluster.delays.add(delayOf);
      this.#host.later(forMs, kind, () => {
        cluster.delays.delete(delayOf);
      });
    }
  }

  /** Some or all stores lose the placement service, both ways or one way. */
  #cutPd({ b, c, forMs, kind }: NemesisAction, ids: readonly number[], say: (text: string) => void): void {
    const { cluster } = this.#host;
    const cut = ids.filter((id) => b % 3 === 0 || ((b >>> (id % 16)) & 1) === 1);
    const sets = pick([[cluster.pdDeaf, cluster.pdMute], [cluster.pdDeaf], [cluster.pdMute]], c) as Set<number>[];
    say(`stores ${cut.join(', ')} lose the placement service`);
    for (const set of sets) {
      for (const id of cut) {
        set.add(id);
      }
    }
    this.#host.later(forMs, kind, () => {
      for (const id of cut) {
        cluster.pdDeaf.delete(id);
        cluster.pdMute.delete(id);
      }
    });
  }
}
