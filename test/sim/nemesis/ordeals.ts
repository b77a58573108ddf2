/**
 * Short sequences of faults that bring a region into a state which single faults seldom reach together: a leader that
 * comes back with what only it has, candidates of one term, voters that restart inside a lease, stores whose apply lags
 * behind splits and merges, learners that are removed behind their backs.
 */
import { utf8 } from '../../../src/base/bytes.ts';
import { peerId, storeId } from '../../../src/base/ids.ts';
import { isLeftNeighbour, rangeContains } from '../../../src/base/key-range.ts';
import type { PeerMessage } from '../../../src/codec/peer-message.ts';
import { findPeerOnStore, isInJointState, type Peer, type Region } from '../../../src/meta/region.ts';
import { MsgType } from '../../../src/raft/types.ts';
import type { MessageFilter } from '../store-cluster.ts';
import { keyName, type NemesisAction } from '../case.ts';
import { pick, type NemesisHost } from './host.ts';

/** Longer than the longest election timeout: by then a leader that reaches nobody has stepped down. */
const DEPOSED_MS = 1_300;
/** How often and how far apart a leadership is asked back. */
const RETURN_ASKS = 12;
const RETURN_ASK_MS = 40;
/** Restarts of one voter, and the time between them. */
const RESTARTS = 6;
const RESTART_MS = 350;
/** A request for a vote, and whatever the leader says meanwhile, waits so long for a voter that restarts before it. */
const VOTER_AWAY_MS = 40;
/** Where the apply of a lagging store stands still. */
const LAGGING_AT = [
  'apply::before-split',
  'apply::before-split',
  'apply::before-change-peer',
  'apply::before-write',
] as const;

export class Ordeals {
  readonly #host: NemesisHost;

  readonly #act: (action: NemesisAction) => void;

  constructor(host: NemesisHost, act: (action: NemesisAction) => void) {
    this.#host = host;
    this.#act = act;
  }

  /** False if the action is of another kind. */
  act(action: NemesisAction): boolean {
    const region = pick(this.#host.leaders(), action.a);
    const leader = region === undefined ? undefined : this.#host.cluster.leaderStore(region.id);
    switch (action.kind) {
      case 'shatter':
        this.#note(action, 'no store reaches another one', 0, DEPOSED_MS + (action.b % 1_200));
        this.#cut(action, DEPOSED_MS + (action.b % 1_200), () => true);
        return true;
      case 'depose':
        if (region !== undefined && leader !== undefined) {
          this.#depose(action, region, leader);
        }
        return true;
      case 'rivals':
        if (region !== undefined) {
          this.#rivals(action, region);
        }
        return true;
      case 'restart-voter':
        if (region !== undefined && leader !== undefined) {
          this.#restartVoter(action, region, leader);
        }
        return true;
      case 'lag':
        if (region !== undefined && leader !== undefined) {
          this.#lag(action, region, leader);
        }
        return true;
      case 'forsake':
        if (region !== undefined) {
          this.#forsake(action, region);
        }
        return true;
      default:
        return false;
    }
  }

  #note({ kind }: NemesisAction, text: string, lane: number, forMs: number): void {
    this.#host.count(kind);
    this.#host.note(lane, text, forMs);
  }

  #cut({ kind }: NemesisAction, forMs: number, filter: MessageFilter): void {
    this.#host.later(forMs, kind, this.#host.cluster.drop(filter));
  }

  #after(ms: number, act: () => void): void {
    this.#host.soon(ms, act);
  }

  /** A leader is cut off until others have taken over, and is then asked to lead again while it still has old proposals. */
  #depose(action: NemesisAction, region: Region, leader: number): void {
    const { cluster } = this.#host;
    const forMs = DEPOSED_MS + (action.b % 1_500);
    const isMute = action.c % 3 === 0;
    this.#note(action, `store ${leader} is cut off and comes back to lead region ${region.id}`, leader, forMs);
    this.#cut(action, forMs, (m) => m.from.storeId === leader || (!isMute && m.to.storeId === leader));
    for (let i = 1; i <= RETURN_ASKS; i++) {
      this.#after(forMs + i * RETURN_ASK_MS, () => {
        const peer = findPeerOnStore(cluster.region(region.id) ?? region, storeId(leader));
        if (peer !== undefined && cluster.leaderStore(region.id) !== leader) {
          this.#host.fire(region.id, { type: 'transfer-leader', peer }, 'return');
        }
      });
    }
  }

  /** Two members are asked to take over at nearly the same time: both stand for election in one term. */
  #rivals(action: NemesisAction, region: Region): void {
    const voters = region.peers.filter((p) => p.role === 'voter' || p.role === 'incoming-voter');
    const first = pick(voters, action.b);
    const second = pick(voters, action.b + 1 + (action.c % Math.max(1, voters.length - 1)));
    this.#note(action, `two members of region ${region.id} stand for election`, 0, action.forMs);
    for (const [i, peer] of [first, second, first].entries()) {
      if (peer !== undefined) {
        this.#after(i * (0.1 + (action.c % 40) / 10), () =>
          this.#host.fire(region.id, { type: 'transfer-leader', peer }, 'rivals'),
        );
      }
    }
  }

  /** A voter restarts again and again under a leader's lease while another one does not hear from that leader. */
  #restartVoter(action: NemesisAction, region: Region, leader: number): void {
    const { cluster } = this.#host;
    const others = region.peers.filter((p) => p.storeId !== leader && p.role === 'voter');
    const voter = pick(others, action.b)?.storeId;
    const deaf = pick(others, action.b + 1)?.storeId;
    if (voter === undefined || deaf === undefined || voter === deaf) {
      return;
    }
    const forMs = RESTARTS * RESTART_MS + 200;
    // Nobody votes for a log that lacks entries, so nobody may write meanwhile.
    this.#act({ ...action, kind: 'clients-cut', b: 0, forMs });
    this.#note(action, `store ${voter} restarts under a lease that store ${deaf} does not see`, voter, forMs);
    this.#cut(
      action,
      forMs,
      (m) =>
        (m.from.storeId === leader && m.to.storeId === deaf) || (m.from.storeId === deaf && m.to.storeId === leader),
    );
    const restart = (awayMs: number): void => {
      if (cluster.leaderStore(region.id) === leader && cluster.isUp(voter)) {
        cluster.crash(voter, 'kill');
        this.#host.later(awayMs, 'reboot', () => this.#host.reboot(voter));
      }
    };
    if (action.c % 4 === 0) {
      for (let i = 1; i <= RESTARTS; i++) {
        this.#after(i * RESTART_MS + (action.c % 100), () => restart(1 + (action.c % 20)));
      }
      return;
    }
    // It restarts whenever it is asked for its vote, and hears that before it hears the leader again.
    let awayUntilMs = 0;
    const delayOf = (m: PeerMessage): number => {
      const { nowMs } = cluster.scheduler;
      if (m.regionId !== region.id || m.to.storeId !== voter || m.body.type !== 'raft') {
        return 0;
      }
      const { type } = m.body.message;
      if (type === MsgType.PreVote && nowMs >= awayUntilMs) {
        awayUntilMs = nowMs + 2 * VOTER_AWAY_MS;
        this.#after(0, () => restart(1 + (action.c % 5)));
      }
      if (nowMs >= awayUntilMs || type === MsgType.Vote) {
        return 0;
      }
      return type === MsgType.PreVote ? VOTER_AWAY_MS : awayUntilMs - nowMs;
    };
    cluster.delays.add(delayOf);
    this.#host.later(forMs, 'late-vote', () => {
      cluster.delays.delete(delayOf);
    });
  }

  /** A store does not apply, or gets no entries, while its region splits, merges with its child, and is compacted. */
  #lag(action: NemesisAction, region: Region, leader: number): void {
    const { cluster, config } = this.#host;
    const { b, c } = action;
    const store = pick(
      region.peers.filter((p) => p.storeId !== leader),
      b,
    )?.storeId;
    if (store === undefined) {
      return;
    }
    const forMs = 500 + (c % 1_500);
    this.#note(action, `store ${store} lags behind region ${region.id}`, store, forMs);
    if (b % 4 === 0) {
      this.#cut(
        action,
        forMs,
        (m) => m.to.storeId === store && m.body.type === 'raft' && m.body.message.type === MsgType.App,
      );
    } else {
      const key = `${store}!${pick(LAGGING_AT, c >>> 3)}`;
      cluster.failpoints.set(key, { type: 'pause' });
      this.#host.later(forMs, 'hold', () => {
        cluster.failpoints.delete(key);
      });
    }
    const known = new Set(this.#host.leaders().map(({ id }) => id));
    if (known.size < config.regionsMax + 1) {
      const inside = Array.from({ length: config.keys }, (_, i) => keyName(i)).filter(
        (key) => rangeContains(region.range, utf8(key)) && key !== Buffer.from(region.range.start).toString(),
      );
      const key = pick(inside, b >>> 4);
      if (key !== undefined) {
        this.#after(5, () => this.#host.fire(region.id, { type: 'split', keys: [utf8(key)] }, 'split'));
      }
    }
    this.#after(40 + (c % 60), () => this.#changeLearner(region.id, storeId(store)));
    for (const ms of [150, 250, 350]) {
      this.#after(ms + (b % 60), () => this.#mergeWithChild(region.id, known, c % 4 === 0));
    }
    for (const ms of [120, 300, 450, 600]) {
      this.#after(ms + (b % 90), () => {
        for (const { id } of this.#host.leaders()) {
          if (id === region.id || !known.has(id)) {
            this.#compact(id);
          }
        }
      });
    }
  }

  #mergeWithChild(id: number, known: ReadonlySet<number>, isReversed: boolean): void {
    const regions = this.#host.leaders();
    const parent = regions.find((r) => r.id === id);
    const child = regions.find(
      (r) =>
        parent !== undefined &&
        !known.has(r.id) &&
        (isLeftNeighbour(parent.range, r.range) || isLeftNeighbour(r.range, parent.range)),
    );
    if (parent !== undefined && child !== undefined) {
      const [source, target] = isReversed ? [child, parent] : [parent, child];
      this.#host.fire(source.id, { type: 'merge', target }, 'merge-with-child');
    }
  }

  #compact(id: number): void {
    const { cluster } = this.#host;
    const leader = cluster.leaderStore(id);
    const status =
      leader === undefined
        ? undefined
        : cluster
            .store(leader)
            .status()
            .find((s) => s.region.id === id);
    if (status !== undefined && status.appliedIndex > status.firstIndex + 1) {
      this.#host.fire(id, { type: 'compact-log', index: status.appliedIndex - 1 }, 'compact');
    }
  }

  /** Removes the learner of a region, or adds one somewhere. */
  #changeLearner(id: number, except: number): void {
    const { cluster } = this.#host;
    const region = this.#host.leaders().find((r) => r.id === id);
    if (region === undefined || isInJointState(region)) {
      return;
    }
    const learner = region.peers.find((p) => p.role === 'learner');
    if (learner !== undefined) {
      this.#host.fire(id, { type: 'change-peer', changes: [{ type: 'remove', peer: learner }] }, 'remove-learner');
      return;
    }
    const free = [...cluster.machines.keys()].find((s) => s !== except && findPeerOnStore(region, s) === undefined);
    if (free !== undefined && region.peers.length < 5) {
      const peer: Peer = { id: peerId(cluster.nextId()), storeId: free, role: 'learner' };
      this.#host.fire(id, { type: 'change-peer', changes: [{ type: 'add-learner', peer }] }, 'add-learner');
    }
  }

  /** A learner gets its data, is cut off, and is removed without hearing of it. */
  #forsake(action: NemesisAction, region: Region): void {
    const { cluster } = this.#host;
    if (!region.peers.some((p) => p.role === 'learner')) {
      this.#changeLearner(region.id, 0);
    }
    const forMs = 700 + (action.c % 1_000);
    this.#note(action, `a learner of region ${region.id} is forsaken`, 0, forMs);
    this.#after(350 + (action.b % 300), () => {
      const learner = this.#host
        .leaders()
        .find((r) => r.id === region.id)
        ?.peers.find((p) => p.role === 'learner');
      if (learner !== undefined && cluster.isUp(learner.storeId)) {
        this.#cut(action, forMs, (m) => m.from.storeId === learner.storeId || m.to.storeId === learner.storeId);
        this.#changeLearner(region.id, 0);
      }
    });
  }
}
