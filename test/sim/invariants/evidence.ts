/**
 * What certainly happened between replicas, gathered from the messages they send, and what rests on it: a leader was
 * elected by a quorum of votes, a lease rests on a quorum that answered lately, a voter does not help to replace a
 * leader whose lease it supports, a read index was asked of a quorum after the read came. Each is checked at the moment
 * in which it would be broken, whether or not a client could ever see the consequence.
 */
import { regionId as brandRegionId } from '../../../src/base/ids.ts';
import type { PeerMessage } from '../../../src/codec/peer-message.ts';
import { TRANSFER_CONTEXT } from '../../../src/raft/raft.ts';
import { type ConfState, type Message, MsgType } from '../../../src/raft/types.ts';
import type { RaftPeer } from '../../../src/raftstore/peer/raft-peer.ts';
import { DurableState, raftStateOn } from './durable.ts';
import { hasQuorum, type ObservedMachine, type Tally, textOf, violated } from './observed.ts';

/** Slowest clock that leases must bear, as a share of true time. */
const RATE_MIN = 0.95;
/** Rounding of clocks. */
const ROUNDING_MS = 1;

/** When a voter last answered a leader. */
interface Answer {
  readonly nowMs: number;
  /** Time that passed on the leader's machine, suspensions not counted. */
  readonly awakeMs: number;
}

/** The leader a voter last answered. */
interface Support {
  readonly leader: number;
  readonly term: number;
  /** When it had heard from it, before the answer. */
  readonly heardMs: number;
  /** The life of the voter's process in which it heard. */
  readonly incarnation: number;
}

interface Question {
  /** The life of the replica that asked. */
  readonly life: object;
  readonly nowMs: number;
  /** Index of the region that somebody had been shown. */
  readonly acknowledged: number;
}

interface RegionEvidence {
  /** `term/candidate` → voters. */
  readonly votes: Map<string, Set<number>>;
  /** Terms for which a candidate stood because its leader asked it to. */
  readonly transfers: Set<number>;
  /** Terms in which the leader asked another one to take over. */
  readonly handedOver: Set<number>;
  /** `term/leader/voter` → when. */
  readonly answers: Map<string, Answer>;
  readonly heard: Map<number, Support>;
  readonly supports: Map<number, Support>;
  readonly questions: Map<string, Question>;
  /** Keys of questions that came back to the one who asked. */
  readonly returned: Set<string>;
  /** Highest index that a message to the member vouched for. */
  readonly vouched: Map<number, number>;
}

const isTransfer = ({ context }: Message): boolean => textOf(context) === textOf(TRANSFER_CONTEXT);
const isFromLeader = ({ type }: Message): boolean =>
  type === MsgType.App || type === MsgType.Heartbeat || type === MsgType.Snap;
/** The index up to which a message says that the receiver's log is committed. */
function vouchedBy(raft: Message): number {
  switch (raft.type) {
    case MsgType.App:
      return Math.min(raft.commit, raft.index + raft.entries.length);
    case MsgType.Snap:
      return raft.snapshot?.metadata.index ?? 0;
    default:
      return Math.max(raft.commit, raft.voteCommit);
  }
}
const contextOf = ({ entries }: Message): string | undefined =>
  entries[0] === undefined ? undefined : textOf(entries[0].data);

export class Evidence {
  readonly #regions: Map<number, RegionEvidence> = new Map();
  readonly #machine: (store: number) => ObservedMachine | undefined;
  readonly #machines: () => readonly ObservedMachine[];
  readonly #acknowledged: (region: number) => number;
  readonly #tally: Tally;
  /** False if clocks are worse than leases bear. */
  checksTimes = true;

  /** @param acknowledged highest index of the region whose outcome a client was told */
  constructor(
    machine: (store: number) => ObservedMachine | undefined,
    machines: () => readonly ObservedMachine[],
    acknowledged: (region: number) => number,
    tally: Tally,
  ) {
    this.#machine = machine;
    this.#machines = machines;
    this.#acknowledged = acknowledged;
    this.#tally = tally;
  }

  #of(region: number): RegionEvidence {
    let found = this.#regions.get(region);
    if (found === undefined) {
      found = {
        votes: new Map(),
        transfers: new Set(),
        handedOver: new Set(),
        answers: new Map(),
        heard: new Map(),
        supports: new Map(),
        questions: new Map(),
        returned: new Set(),
        vouched: new Map(),
      };
      this.#regions.set(region, found);
    }
    return found;
  }

  // ------------------------------------------------------------------------------------------ messages

  onReceive({ regionId, from, to, body }: PeerMessage, store: number): void {
    if (body.type !== 'raft') {
      return;
    }
    const { message: raft } = body;
    const evidence = this.#of(regionId);
    evidence.vouched.set(to.id, Math.max(evidence.vouched.get(to.id) ?? 0, vouchedBy(raft)));
    const machine = this.#machine(store);
    if (machine?.times !== undefined && isFromLeader(raft)) {
      const { incarnation, times } = machine;
      evidence.heard.set(to.id, { leader: from.id, term: raft.term, heardMs: times.nowMs, incarnation });
    }
  }

  /**
   * R4: a follower takes for committed only what a message said of entries that the message brought or named, not
   * whatever its own log holds behind them.
   * @param merged index up to which the region is known to be finished by a merge
   */
  checkCommitHeard(peer: RaftPeer, merged: number): void {
    const { node, regionId } = peer;
    const vouched = this.#regions.get(regionId)?.vouched.get(peer.peer.id);
    if (vouched !== undefined && node.committed > Math.max(vouched, merged, node.firstIndex - 1)) {
      violated(
        'R4',
        `peer ${peer.peer.id} of region ${regionId} takes entry ${node.committed} for committed; messages vouched for ${vouched} entries`,
      );
    }
    this.#tally.add('commits heard');
  }

  onSend(message: PeerMessage, store: number): void {
    if (message.body.type !== 'raft') {
      return;
    }
    const { message: raft } = message.body;
    switch (raft.type) {
      case MsgType.Vote:
        if (isTransfer(raft)) {
          this.#of(message.regionId).transfers.add(raft.term);
        }
        return;
      case MsgType.TimeoutNow:
        this.#of(message.regionId).handedOver.add(raft.term);
        return;
      case MsgType.VoteResp:
        if (!raft.reject) {
          this.#onVote(message, raft, store);
        }
        return;
      case MsgType.PreVoteResp:
        if (!raft.reject) {
          this.#checkEarlierLife(message, raft.term, store);
        }
        return;
      case MsgType.AppResp:
        if (!raft.reject) {
          this.#checkDurableAck(message, raft, store);
          this.#onAnswer(message, raft);
        }
        return;
      case MsgType.HeartbeatResp:
        this.#onAnswer(message, raft);
        return;
      case MsgType.ReadIndex:
        this.#onQuestion(message, raft, store);
        return;
      case MsgType.ReadIndexResp:
        this.#onReadIndex(message, raft, store);
        return;
      default:
    }
  }

  #peer(store: number, region: number, peer: number): RaftPeer | undefined {
    const found = this.#machine(store)?.store?.inspect().replicas.get(brandRegionId(region))?.fsm.peer;
    return found?.peer.id === peer ? found : undefined;
  }

  // ------------------------------------------------------------------------------------------ promises

  /** P1: a vote that leaves is on the voter's disk. */
  #onVote(message: PeerMessage, raft: Message, store: number): void {
    const { regionId, from, to } = message;
    const { votes } = this.#of(regionId);
    const key = `${raft.term}/${to.id}`;
    let voters = votes.get(key);
    if (voters === undefined) {
      voters = new Set();
      votes.set(key, voters);
    }
    voters.add(from.id);
    const view = this.#machine(store)?.database?.view;
    const onDisk = view === undefined ? undefined : raftStateOn(view, regionId);
    if (onDisk !== undefined && onDisk.peerId === from.id) {
      const holds = onDisk.term > raft.term || (onDisk.term === raft.term && onDisk.vote === to.id);
      if (!holds) {
        violated(
          'P1',
          `peer ${from.id} of region ${regionId} votes for ${to.id} in term ${raft.term}; its disk says ${onDisk.vote} in term ${onDisk.term}`,
        );
      }
      this.#tally.add('votes');
    }
    this.#checkSupport(regionId, from.id, to.id, raft.term);
    this.#checkEarlierLife(message, raft.term, store);
  }

  /** P1: what a replica acknowledges is on its disk. */
  #checkDurableAck({ regionId, from }: PeerMessage, raft: Message, store: number): void {
    const view = this.#machine(store)?.database?.view;
    const node = this.#peer(store, regionId, from.id)?.node;
    // A later leader may have replaced what was acknowledged; what a snapshot covers has no term here.
    const term = node === undefined || node.term !== raft.term ? -1 : node.termAt(raft.index);
    if (view === undefined || term <= 0 || raftStateOn(view, regionId)?.peerId !== from.id) {
      return;
    }
    if (!DurableState.holdsIn(view, regionId, raft.index, term)) {
      violated(
        'P1',
        `peer ${from.id} of region ${regionId} acknowledges entry ${raft.index} of term ${term}, which is not on its disk`,
      );
    }
    this.#tally.add('acknowledgements');
  }

  // ------------------------------------------------------------------------------------------ elections

  /**
   * E1: whoever leads was given the votes of a quorum of each half of its configuration, and of that which its own log
   * had named by then and called committed.
   */
  checkElection(
    peer: RaftPeer,
    confs: readonly ConfState[],
    committed: { readonly voters: readonly number[]; readonly outgoing: readonly number[] } | undefined,
  ): void {
    const { node, regionId } = peer;
    const voters = this.#of(regionId).votes.get(`${node.term}/${peer.peer.id}`);
    const voted = (id: number): boolean => id === peer.peer.id || voters?.has(id) === true;
    if (!confs.some((conf) => hasQuorum(conf.voters, conf.votersOutgoing, voted))) {
      violated(
        'E1',
        `peer ${peer.peer.id} leads region ${regionId} in term ${node.term} by the votes of [${[...(voters ?? [])]}]; voters are [${node.confState.voters}] and [${node.confState.votersOutgoing}]`,
      );
    }
    if (committed !== undefined && !hasQuorum(committed.voters, committed.outgoing, voted)) {
      violated(
        'E1',
        `peer ${peer.peer.id} leads region ${regionId} in term ${node.term} by the votes of [${[...(voters ?? [])]}]; it knew that voters are [${committed.voters}] and [${committed.outgoing}]`,
      );
    }
    this.#tally.add('elections by quorum');
  }

  // ------------------------------------------------------------------------------------------ leases

  #onAnswer({ regionId, from, to }: PeerMessage, raft: Message): void {
    const times = this.#machine(to.storeId)?.times;
    if (times === undefined) {
      return;
    }
    const evidence = this.#of(regionId);
    evidence.answers.set(`${raft.term}/${to.id}/${from.id}`, times);
    const heard = evidence.heard.get(from.id);
    if (heard?.term === raft.term && heard.leader === to.id) {
      evidence.supports.set(from.id, heard);
    }
  }

  /**
   * L2: who would answer from its lease has answers of a quorum that are not older than a lease, and has not asked
   * anybody to take over.
   */
  checkLease(peer: RaftPeer, confs: readonly ConfState[]): void {
    const { node, regionId, ctx } = peer;
    const now = this.#machine(ctx.storeId)?.times;
    if (now === undefined || !this.checksTimes) {
      return;
    }
    const evidence = this.#of(regionId);
    const where = `peer ${peer.peer.id} of region ${regionId} on store ${ctx.storeId} (term ${node.term})`;
    if (evidence.handedOver.has(node.term)) {
      violated('L2', `${where} would answer a read and has asked another one to take over`);
    }
    const longestMs = ctx.config.leaderLeaseMs / RATE_MIN + ROUNDING_MS;
    const answered = (id: number): boolean => {
      const answer = evidence.answers.get(`${node.term}/${peer.peer.id}/${id}`);
      return id === peer.peer.id || (answer !== undefined && now.awakeMs - answer.awakeMs <= longestMs);
    };
    if (!confs.some((conf) => hasQuorum(conf.voters, conf.votersOutgoing, answered))) {
      violated(
        'L2',
        `${where} would answer a read; of voters [${node.confState.voters}] and [${node.confState.votersOutgoing}] no quorum has answered it within ${ctx.config.leaderLeaseMs} ms`,
      );
    }
    this.#tally.add('lease quorums');
  }

  /** L2: a voter helps nobody to replace the leader it heard from less than a lease ago, unless that one wishes so. */
  #checkSupport(region: number, voter: number, candidate: number, term: number): void {
    const { supports, transfers } = this.#of(region);
    const support = supports.get(voter);
    // A vote that was held up by its disk may leave when the voter is in a later term already.
    const peer = support === undefined || support.term >= term ? undefined : this.#leaderOf(region, support);
    const now = peer === undefined ? undefined : this.#machine(peer.ctx.storeId)?.times;
    if (support === undefined || peer === undefined || now === undefined || !this.checksTimes) {
      return;
    }
    for (let t = support.term + 1; t <= term; t++) {
      if (transfers.has(t)) {
        return;
      }
    }
    const sinceMs = now.nowMs - support.heardMs;
    if (support.leader !== candidate && sinceMs < peer.ctx.config.leaderLeaseMs) {
      violated(
        'L2',
        `peer ${voter} of region ${region} votes for ${candidate} in term ${term}, ${sinceMs.toFixed(1)} ms after it heard from ${support.leader}, which still leads in term ${support.term}`,
      );
    }
    this.#tally.add('votes beside leases');
  }

  /**
   * L2: a restart forgets which leader a replica heard from, and until a lease has passed it therefore helps nobody, not
   * even by a vote beforehand: whether that leader still leads it cannot know.
   */
  #checkEarlierLife({ regionId, from, to }: PeerMessage, term: number, store: number): void {
    const { supports, transfers } = this.#of(regionId);
    const support = supports.get(from.id);
    const machine = this.#machine(store);
    if (support === undefined || machine?.times === undefined || !this.checksTimes) {
      return;
    }
    const leaseMs = this.#peer(store, regionId, from.id)?.ctx.config.leaderLeaseMs ?? 0;
    const sinceMs = machine.times.nowMs - support.heardMs;
    if (support.incarnation === machine.incarnation || support.leader === to.id || sinceMs >= leaseMs) {
      return;
    }
    for (let t = support.term + 1; t <= term; t++) {
      if (transfers.has(t)) {
        return;
      }
    }
    violated(
      'L2',
      `peer ${from.id} of region ${regionId} on store ${store} has restarted and helps ${to.id} into term ${term}, ${sinceMs.toFixed(1)} ms after it heard from ${support.leader}, whose lease lasts ${leaseMs} ms`,
    );
  }

  /** The leader, if its process still holds that leadership. */
  #leaderOf(region: number, support: Support): RaftPeer | undefined {
    for (const machine of this.#machines()) {
      const peer = this.#peer(machine.id, region, support.leader);
      if (peer !== undefined) {
        return peer.isLeader && peer.node.role === 'leader' && peer.node.term === support.term ? peer : undefined;
      }
    }
    return undefined;
  }

  // ------------------------------------------------------------------------------------------ reads

  /** I21: no life of a replica asks under an id of an earlier life, whose answer may still be on its way. */
  #onQuestion({ regionId, from, to }: PeerMessage, raft: Message, store: number): void {
    const context = contextOf(raft);
    if (context !== undefined && raft.from === to.id) {
      // Passed on to the one who asked, whom the sender takes for the leader; a later life may pass it on again.
      this.#of(regionId).returned.add(`${raft.from}/${context}`);
    }
    const life = this.#peer(store, regionId, from.id);
    const machine = this.#machine(store);
    // What a follower passes on is the question of somebody else.
    if (context === undefined || life === undefined || raft.from !== from.id) {
      return;
    }
    const { questions, returned } = this.#of(regionId);
    const key = `${from.id}/${context}`;
    const known = questions.get(key);
    if (known !== undefined && known.life !== life && !returned.has(key)) {
      violated('I21', `peer ${from.id} of region ${regionId} asks for a read index under an id of its earlier life`);
    }
    if (known === undefined) {
      questions.set(key, {
        life,
        nowMs: machine?.times?.nowMs ?? Number.NEGATIVE_INFINITY,
        acknowledged: this.#acknowledged(regionId),
      });
    }
  }

  /** I21: a read index covers what was shown before the question, and a quorum was asked after it. */
  #onReadIndex({ regionId, from, to }: PeerMessage, raft: Message, store: number): void {
    const context = contextOf(raft);
    const evidence = this.#of(regionId);
    const question = context === undefined ? undefined : evidence.questions.get(`${to.id}/${context}`);
    const peer = this.#peer(store, regionId, from.id);
    if (question === undefined || peer === undefined || peer.node.role !== 'leader') {
      return;
    }
    const where = `peer ${from.id} of region ${regionId} on store ${store} (term ${raft.term})`;
    if (raft.index < question.acknowledged && this.checksTimes) {
      violated('I21', `${where} gives the read index ${raft.index}; ${question.acknowledged} was shown before`);
    }
    const answered = (id: number): boolean =>
      id === from.id ||
      (evidence.answers.get(`${raft.term}/${from.id}/${id}`)?.nowMs ?? Number.NEGATIVE_INFINITY) >= question.nowMs;
    const { voters, votersOutgoing } = peer.node.confState;
    if (!hasQuorum(voters, votersOutgoing, answered)) {
      violated(
        'I21',
        `${where} gives a read index; no quorum of [${voters}] and [${votersOutgoing}] was asked after the read`,
      );
    }
    this.#tally.add('read indexes');
  }
}
