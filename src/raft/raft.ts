/**
 * The rules all roles share (Raft paper figure 2; etcd-io/raft: raft.go): terms, votes, transitions, timers,
 * elections, applying and membership. What a role does with a message is in follower.ts, candidate.ts and leader.ts.
 * Internal to this room; everything outside uses RawNode.
 *
 * Two out-boxes: `messages` may leave at once (as far as `Ready.leaderMessages` allows), `messagesAfterAppend` holds
 * acknowledgements, also those to the node itself, that promise the durability of everything unstable at that moment.
 */
import { stepCandidate } from './candidate.ts';
import { changeMembership, isLeaveJoint, LEAVE_JOINT, restoreMembership } from './conf-change.ts';
import { orUnlimited, type RaftConfig } from './config.ts';
import type { Defect, DefectSet } from './defects.ts';
import { EMPTY_ENTRIES, entriesSizeBytes, payloadsBytes, UNLIMITED } from './entry.ts';
import { raftPanic } from './errors.ts';
import { stepFollower } from './follower.ts';
import {
  afterConfigChange,
  appendAsLeader,
  bcastHeartbeat,
  checkQuorum,
  proposeAutoLeave,
  stepLeader,
} from './leader.ts';
import { configText, hexId, messageTypeText } from './log-text.ts';
import { EMPTY_MESSAGES, newMessage } from './message.ts';
import type { Progress } from './progress.ts';
import { Ballot } from './quorum.ts';
import { RaftLog } from './raft-log.ts';
import type { ReadQueue } from './read-index.ts';
import { OK, type StepResult } from './ready.ts';
import { type Membership, Tracker } from './tracker.ts';
import {
  EntryType,
  MsgType,
  type ConfChangeV2,
  type ConfState,
  type Entry,
  type Message,
  type RaftLogger,
  type ReadState,
  type Role,
  type Snapshot,
} from './types.ts';

export type CampaignKind = 'pre-election' | 'election' | 'transfer';

/** Marks vote requests of a leadership transfer: leases of other voters do not hold them back. */
export const TRANSFER_CONTEXT: Uint8Array = new TextEncoder().encode('CampaignTransfer');

const NO_READ_STATES: readonly ReadState[] = Object.freeze([]) as readonly ReadState[];

function isTransfer(context: Uint8Array): boolean {
  return context.length === TRANSFER_CONTEXT.length && context.every((byte, i) => byte === TRANSFER_CONTEXT[i]);
}

export class Raft {
  readonly id: number;
  readonly config: RaftConfig;
  readonly logger: RaftLogger;
  readonly log: RaftLog;
  readonly tracker: Tracker;
  readonly #defects: DefectSet | null;
  readonly maxUncommittedBytes: number;

  term = 0;
  vote = 0;
  lead = 0;
  role: Role = 'follower';
  isLearner = false;
  leadTransferee = 0;
  /** Index of the newest membership change that may be unapplied; leaders only. */
  pendingConfIndex = 0;
  /** Payload bytes appended in this leadership and not applied; may underestimate. */
  uncommittedBytes = 0;
  /** Index of the first entry of this leadership; 0 unless leader. */
  termStart = 0;

  electionElapsed = 0;
  heartbeatElapsed = 0;
  randomizedElectionTimeout = 0;
  /** Ticks for which a restarted node still honors leases it may have supported (D13). */
  graceTicks: number;

  /** Reads waiting for a quorum, and reads waiting for the first commit of the term. Null while there are none. */
  reads: ReadQueue | null = null;
  parkedReads: Message[] | null = null;

  messages: readonly Message[] = EMPTY_MESSAGES;
  messagesAfterAppend: readonly Message[] = EMPTY_MESSAGES;
  readStates: readonly ReadState[] = NO_READ_STATES;

  constructor(config: RaftConfig, defects: DefectSet | null) {
    this.id = config.id;
    this.config = config;
    this.logger = config.logger;
    this.#defects = defects;
    this.maxUncommittedBytes = this.planted('uncommitted-size-ignored')
      ? orUnlimited(0)
      : orUnlimited(config.maxUncommittedBytes);
    this.graceTicks = this.planted('restart-votes-inside-lease') ? 0 : config.voteGraceTicks;
    const { storage } = config;
    this.log = new RaftLog({
      storage,
      logger: config.logger,
      maxApplyingBytes: config.maxCommittedSizePerReady === 0 ? config.maxSizePerMsg : config.maxCommittedSizePerReady,
      ignoresApplySize: this.planted('apply-size-ignored'),
      truncatesOnStaleAppend: this.planted('stale-append-truncates'),
      commitsBeyondMessage: this.planted('commit-beyond-message'),
      stableIgnoresTerm: this.planted('stable-ignores-term'),
    });
    this.tracker = new Tracker({
      maxMsgs: config.maxInflightMsgs,
      maxBytes: this.planted('inflight-bytes-ignored') ? 0 : config.maxInflightBytes,
    });
    const { hardState, confState } = storage.initialState();
    this.#restoreConfig(confState, this.log.lastIndex);
    if (hardState.term !== 0 || hardState.vote !== 0 || hardState.commit !== 0) {
      if (hardState.commit < this.log.committed || hardState.commit > this.log.lastIndex) {
        raftPanic(
          `${hexId(this.id)} state.commit ${hardState.commit} is out of range [${this.log.committed}, ${this.log.lastIndex}]`,
        );
      }
      if (this.log.lastTerm > hardState.term) {
        raftPanic(`${hexId(this.id)} state.term ${hardState.term} is behind its log at term ${this.log.lastTerm}`);
      }
      this.log.committed = this.planted('restart-forgets-commit') ? this.log.committed : hardState.commit;
      this.term = hardState.term;
      this.vote = this.planted('restart-forgets-vote') ? 0 : hardState.vote;
    }
    if (config.applied > 0) {
      this.log.appliedTo(config.applied, 0);
    }
    this.becomeFollower(this.term, 0);
    if (this.infoOn) {
      const { log } = this;
      const peers = this.tracker.voterIds().map(hexId).join(',');
      this.logger.info(
        `newRaft ${hexId(this.id)} [peers: [${peers}], term: ${this.term}, commit: ${log.committed}, ` +
          `applied: ${log.applied}, lastindex: ${log.lastIndex}, lastterm: ${log.lastTerm}]`,
      );
    }
  }

  get infoOn(): boolean {
    return this.logger.infoEnabled !== false;
  }

  get debugOn(): boolean {
    return this.logger.debugEnabled;
  }

  /** Whether a test planted this defect; always false in production. */
  planted(defect: Defect): boolean {
    return this.#defects !== null && this.#defects.has(defect);
  }

  // ---------------------------------------------------------------------------------------------- sending

  /** Queues a message to another node with the current term. */
  send(m: Message): void {
    if (m.to === this.id) {
      raftPanic(`message should not be self-addressed when sending ${messageTypeText(m.type)}`);
    }
    if (this.messages.length === 0) {
      this.messages = [m];
    } else {
      (this.messages as Message[]).push(m);
    }
  }

  /** Queues an acknowledgement that may leave once everything unstable is durable; `to` may be the node itself. */
  sendAfterAppend(m: Message): void {
    if (this.planted('acknowledge-before-durable') && m.to !== this.id) {
      this.send(m);
      return;
    }
    if (this.messagesAfterAppend.length === 0) {
      this.messagesAfterAppend = [m];
    } else {
      (this.messagesAfterAppend as Message[]).push(m);
    }
  }

  /** A message of the current term. */
  message(type: MsgType, to: number): Message {
    return newMessage(type, to, this.id, this.term);
  }

  /**
   * An acknowledgement of an append, with the applied index if that is reported (D5): a commit index that is only known
   * is forgotten in a crash, what is applied is not.
   */
  appResp(to: number, index: number): Message {
    const m = this.message(MsgType.AppResp, to);
    m.index = index;
    if (this.config.reportCommit) {
      m.reportedCommit = this.log.applied;
    }
    return m;
  }

  addReadState(state: ReadState): void {
    if (this.readStates.length === 0) {
      this.readStates = [state];
    } else {
      (this.readStates as ReadState[]).push(state);
    }
  }

  clearReadStates(): void {
    this.readStates = NO_READ_STATES;
  }

  // ---------------------------------------------------------------------------------------------- stepping

  /** Term rules, then what is the same in every role, then the role. The message is well formed. */
  step(m: Message): StepResult {
    if (m.term === 0) {
      // Local, or a forwarded proposal or read.
    } else if (m.term > this.term) {
      if (!this.#takeHigherTerm(m)) {
        return OK;
      }
    } else if (m.term < this.term && !(m.type === MsgType.StorageAppendResp && this.planted('no-aba-term-check'))) {
      this.#refuseLowerTerm(m);
      return OK;
    }
    switch (m.type) {
      case MsgType.StorageAppendResp:
        if (m.index !== 0) {
          this.log.stableTo(m.index, m.logTerm);
        }
        if (m.snapshot !== null) {
          this.#appliedSnapshot(m.snapshot);
        }
        return OK;
      case MsgType.StorageApplyResp: {
        const last = m.entries[m.entries.length - 1];
        if (last !== undefined) {
          this.appliedTo(last.index, entriesSizeBytes(m.entries));
          this.uncommittedBytes = Math.max(0, this.uncommittedBytes - payloadsBytes(m.entries));
        }
        return OK;
      }
      case MsgType.Vote:
      case MsgType.PreVote:
        this.#answerVote(m);
        return OK;
      default:
        break;
    }
    switch (this.role) {
      case 'leader':
        return stepLeader(this, m);
      case 'follower':
        return stepFollower(this, m);
      default:
        return stepCandidate(this, m);
    }
  }

  /** Returns false if the message is to be dropped. */
  #takeHigherTerm(m: Message): boolean {
    const isVoteRequest = m.type === MsgType.Vote || m.type === MsgType.PreVote;
    if (isVoteRequest && this.#holdsLease(m)) {
      return false;
    }
    if (m.type === MsgType.PreVote || (m.type === MsgType.PreVoteResp && !m.reject)) {
      // Both name a term that nobody has entered yet.
      return true;
    }
    if (this.infoOn) {
      this.logger.info(
        `${hexId(this.id)} [term: ${this.term}] received a ${messageTypeText(m.type)} message with higher term from ` +
          `${hexId(m.from)} [term: ${m.term}]`,
      );
    }
    const fromLeader = m.type === MsgType.App || m.type === MsgType.Heartbeat || m.type === MsgType.Snap;
    this.becomeFollower(m.term, fromLeader ? m.from : 0);
    return true;
  }

  /** Whether a vote request meets a lease this node supports, or may have supported before it restarted. */
  #holdsLease(m: Message): boolean {
    const inLease = this.config.checkQuorum && this.lead !== 0 && this.electionElapsed < this.config.electionTick;
    if ((!inLease && this.graceTicks === 0) || isTransfer(m.context)) {
      return false;
    }
    if (this.infoOn) {
      const remaining = inLease ? this.config.electionTick - this.electionElapsed : this.graceTicks;
      this.logger.info(
        `${this.#voteHead()} ignored ${this.#voteTail(m)}: lease is not expired (remaining ticks: ${remaining})`,
      );
    }
    return true;
  }

  #voteHead(): string {
    return `${hexId(this.id)} [logterm: ${this.log.lastTerm}, index: ${this.log.lastIndex}, vote: ${hexId(this.vote)}]`;
  }

  #voteTail(m: Message, verb = 'from'): string {
    return `${messageTypeText(m.type)} ${verb} ${hexId(m.from)} [logterm: ${m.logTerm}, index: ${m.index}] at term ${this.term}`;
  }

  #refuseLowerTerm(m: Message): void {
    const { checkQuorum, preVote } = this.config;
    const fromLeader = m.type === MsgType.Heartbeat || m.type === MsgType.App;
    if (fromLeader && (checkQuorum || preVote || this.planted('answer-lower-term-always'))) {
      // The sender leads a term that is over; without an answer this node could stay stuck behind its higher term.
      this.sendAfterAppend(this.message(MsgType.AppResp, m.from));
    } else if (m.type === MsgType.PreVote) {
      if (this.infoOn) {
        this.logger.info(`${this.#voteHead()} rejected ${this.#voteTail(m)}`);
      }
      this.#refuseVote(m);
    } else if (m.type === MsgType.StorageAppendResp) {
      if (m.index !== 0 && this.infoOn) {
        // The entries may have been replaced since; a later response attests the present ones.
        this.logger.info(
          `${hexId(this.id)} [term: ${this.term}] ignored entry appends from a ${messageTypeText(m.type)} message with lower term [term: ${m.term}]`,
        );
      }
      if (m.snapshot !== null) {
        this.#appliedSnapshot(m.snapshot);
      }
    } else if (this.infoOn) {
      this.logger.info(
        `${hexId(this.id)} [term: ${this.term}] ignored a ${messageTypeText(m.type)} message with lower term from ` +
          `${hexId(m.from)} [term: ${m.term}]`,
      );
    }
  }

  // ---------------------------------------------------------------------------------------------- elections

  #answerVote(m: Message): void {
    if (this.graceTicks > 0 && !isTransfer(m.context)) {
      // Same term as ours: also a vote, so the lease this node may have supported before its restart forbids it.
      return;
    }
    if (this.isLearner && this.planted('learner-refuses-vote')) {
      this.#refuseVote(m);
      return;
    }
    const canVote =
      this.vote === m.from ||
      (this.vote === 0 && (this.lead === 0 || this.planted('vote-although-leader-known'))) ||
      (m.type === MsgType.PreVote && m.term > this.term) ||
      (m.type === MsgType.Vote && this.planted('double-vote'));
    if (canVote && (this.log.isUpToDate(m.index, m.logTerm) || this.planted('vote-for-outdated-log'))) {
      if (this.infoOn) {
        this.logger.info(`${this.#voteHead()} cast ${this.#voteTail(m, 'for')}`);
      }
      const type = m.type === MsgType.Vote ? MsgType.VoteResp : MsgType.PreVoteResp;
      // A granted answer carries the term of the request: for a pre-vote that is the term to come.
      this.sendAfterAppend(newMessage(type, m.from, this.id, m.term));
      if (m.type === MsgType.Vote) {
        if (!this.planted('vote-keeps-election-timer')) {
          this.electionElapsed = 0;
        }
        this.vote = m.from;
      }
    } else {
      if (this.infoOn) {
        this.logger.info(`${this.#voteHead()} rejected ${this.#voteTail(m)}`);
      }
      this.#refuseVote(m);
    }
    this.commitByVote(m);
  }

  #refuseVote(m: Message): void {
    const type = m.type === MsgType.Vote ? MsgType.VoteResp : MsgType.PreVoteResp;
    const answer = this.message(type, m.from);
    answer.reject = true;
    this.#attachCommit(answer);
    this.sendAfterAppend(answer);
  }

  #attachCommit(m: Message): void {
    if (this.config.commitByVote) {
      m.voteCommit = this.log.committed;
      m.voteCommitTerm = this.log.termOrZero(this.log.committed);
    }
  }

  /**
   * D11: a commit position in vote traffic. If this log has that entry, log matching makes everything up to it
   * committed here as well. A candidate that thereby has to apply a membership change gives up first.
   */
  commitByVote(m: Message): void {
    const { voteCommit, voteCommitTerm } = m;
    const isNews = voteCommit > this.log.committed && voteCommitTerm > 0;
    if (!this.config.commitByVote || !isNews || this.role === 'leader') {
      return;
    }
    if (voteCommit > this.log.lastIndex || !this.log.matchesTerm(voteCommit, voteCommitTerm)) {
      return;
    }
    this.log.commitTo(voteCommit);
    if (this.role !== 'follower' && this.hasUnappliedConfChange()) {
      this.becomeFollower(this.term, 0);
    }
  }

  /** Starts an election unless something forbids it. */
  hup(kind: CampaignKind): void {
    if (this.role === 'leader') {
      if (this.debugOn) {
        this.logger.debug(`${hexId(this.id)} ignoring MsgHup because already leader`);
      }
      return;
    }
    if (!this.promotable()) {
      this.logger.warn(`${hexId(this.id)} is unpromotable and can not campaign`);
      return;
    }
    if (this.hasUnappliedConfChange() && !this.planted('campaign-with-pending-conf-change')) {
      this.logger.warn(
        `${hexId(this.id)} cannot campaign at term ${this.term} since there are still pending configuration changes to apply`,
      );
      return;
    }
    if (this.graceTicks > 0 && kind !== 'transfer' && !this.tracker.isOnlyVoter(this.id)) {
      // The own vote counts like any other: not while a lease supported before the restart may hold (D13).
      if (this.infoOn) {
        this.logger.info(`${hexId(this.id)} does not campaign within ${this.graceTicks} ticks after its restart`);
      }
      return;
    }
    if (this.infoOn) {
      this.logger.info(`${hexId(this.id)} is starting a new election at term ${this.term}`);
    }
    this.campaign(
      kind === 'transfer' && this.planted('timeout-now-uses-pre-vote') && this.config.preVote ? 'pre-election' : kind,
    );
  }

  campaign(kind: CampaignKind): void {
    const isPre = kind === 'pre-election';
    let term: number;
    if (isPre) {
      this.#becomePreCandidate();
      term = this.term + 1;
    } else {
      this.#becomeCandidate();
      term = this.term;
    }
    const request = isPre ? MsgType.PreVote : MsgType.Vote;
    const { lastIndex, lastTerm } = this.log;
    for (const id of this.tracker.voterIds()) {
      if (id === this.id) {
        // The own vote counts when it is durable, like everybody's.
        this.sendAfterAppend(newMessage(isPre ? MsgType.PreVoteResp : MsgType.VoteResp, id, id, term));
        continue;
      }
      if (this.infoOn) {
        this.logger.info(
          `${hexId(this.id)} [logterm: ${lastTerm}, index: ${lastIndex}] sent ${messageTypeText(request)} request to ${hexId(id)} at term ${this.term}`,
        );
      }
      const m = newMessage(request, id, this.id, term);
      m.index = lastIndex;
      m.logTerm = lastTerm;
      if (kind === 'transfer') {
        m.context = TRANSFER_CONTEXT;
      }
      this.#attachCommit(m);
      this.send(m);
    }
  }

  /** Records an answer (only the first of each member counts) and returns how the election stands. */
  recordVote(m: Message): 'pending' | 'lost' | 'won' {
    const progress = this.tracker.get(m.from);
    if (this.infoOn) {
      this.logger.info(
        `${hexId(this.id)} received ${messageTypeText(m.type)}${m.reject ? ' rejection' : ''} from ${hexId(m.from)} at term ${this.term}`,
      );
    }
    if (progress !== undefined && progress.ballot === Ballot.None) {
      progress.ballot = m.reject ? Ballot.Rejected : Ballot.Granted;
    }
    const result = this.planted('joint-vote-incoming-only')
      ? this.tracker.voteResultIncoming()
      : this.tracker.voteResult();
    if (this.infoOn) {
      const granted = this.tracker.countBallots(Ballot.Granted);
      const rejected = this.tracker.countBallots(Ballot.Rejected);
      this.logger.info(
        `${hexId(this.id)} has received ${granted} ${messageTypeText(m.type)} votes and ${rejected} vote rejections`,
      );
    }
    return result;
  }

  /** Whether the own granted vote of this election was recorded, hence is durable (D1). */
  get hasOwnVote(): boolean {
    return (
      this.tracker.get(this.id)?.ballot === Ballot.Granted ||
      this.config.requireOwnVote === false ||
      this.planted('leader-without-own-vote')
    );
  }

  /** Must not lead: its owner does not trust its state machine. It goes on voting and taking entries. */
  isBarred = false;

  /** A member that votes, knows its configuration, and has its state machine. */
  promotable(): boolean {
    const progress = this.tracker.get(this.id);
    return (
      progress !== undefined &&
      !progress.isLearner &&
      !this.isBarred &&
      (this.log.unstable.snapshot === null || this.planted('campaign-with-pending-snapshot'))
    );
  }

  /** Whether a committed membership change waits to be applied here. */
  hasUnappliedConfChange(): boolean {
    const { committed } = this.log;
    let next = this.log.applied + 1;
    while (next <= committed) {
      const page = this.log.slice(next, committed + 1, this.#scanBytes);
      if (typeof page === 'number' || page.length === 0) {
        // Compacted in front of an unstable snapshot: the snapshot brings its own configuration.
        return false;
      }
      for (let i = 0; i < page.length; i++) {
        if ((page[i] as Entry).type !== EntryType.Normal) {
          return true;
        }
      }
      next += page.length;
    }
    return false;
  }

  get #scanBytes(): number {
    const { maxCommittedSizePerReady, maxSizePerMsg } = this.config;
    return maxCommittedSizePerReady === 0 ? maxSizePerMsg : maxCommittedSizePerReady;
  }

  // ---------------------------------------------------------------------------------------------- transitions

  #reset(term: number): void {
    if (this.term !== term) {
      this.term = term;
      this.vote = 0;
    }
    this.lead = 0;
    this.electionElapsed = 0;
    this.heartbeatElapsed = 0;
    this.randomizedElectionTimeout = this.config.electionTick + this.config.random(this.config.electionTick);
    this.leadTransferee = 0;
    const { lastIndex } = this.log;
    const { progress } = this.tracker;
    for (let i = 0; i < progress.length; i++) {
      const p = progress[i] as Progress;
      p.resetForTerm(lastIndex);
      if (p.id === this.id) {
        // Every entry of a candidate is durable before its own vote is, so its leadership may count all of them.
        p.match = lastIndex;
      }
    }
    this.pendingConfIndex = 0;
    this.uncommittedBytes = 0;
    this.termStart = 0;
    this.reads = null;
    this.parkedReads = null;
  }

  becomeFollower(term: number, lead: number): void {
    this.#reset(term);
    this.lead = lead;
    this.role = 'follower';
    if (this.infoOn) {
      this.logger.info(`${hexId(this.id)} became follower at term ${this.term}`);
    }
  }

  #becomeCandidate(): void {
    if (this.role === 'leader') {
      raftPanic('invalid transition [leader -> candidate]');
    }
    this.#reset(this.term + 1);
    this.vote = this.id;
    this.role = 'candidate';
    if (this.infoOn) {
      this.logger.info(`${hexId(this.id)} became candidate at term ${this.term}`);
    }
  }

  /** Term, vote and timers stay: a pre-election must not disturb anything. */
  #becomePreCandidate(): void {
    if (this.role === 'leader') {
      raftPanic('invalid transition [leader -> pre-candidate]');
    }
    this.tracker.clearBallots();
    this.lead = 0;
    this.role = 'pre-candidate';
    if (this.infoOn) {
      this.logger.info(`${hexId(this.id)} became pre-candidate at term ${this.term}`);
    }
  }

  becomeLeader(): void {
    if (this.role === 'follower') {
      raftPanic('invalid transition [follower -> leader]');
    }
    this.#reset(this.term);
    this.lead = this.id;
    this.role = 'leader';
    const own = this.tracker.get(this.id);
    if (own !== undefined) {
      own.becomeReplicate();
      own.recentActive = true;
    }
    // Any inherited entry may be a membership change: all of them must be applied before the next one is proposed.
    this.pendingConfIndex = this.planted('new-leader-forgets-pending-conf-index') ? 0 : this.log.lastIndex;
    this.termStart = this.log.lastIndex + 1;
    if (this.log.lastTerm > this.term) {
      raftPanic('a leader has entries of a later term', { id: this.id, term: this.term, lastTerm: this.log.lastTerm });
    }
    if (!appendAsLeader(this, [{ type: EntryType.Normal, term: 0, index: 0, data: new Uint8Array(0) }])) {
      raftPanic('empty entry was dropped');
    }
    if (this.infoOn) {
      this.logger.info(`${hexId(this.id)} became leader at term ${this.term}`);
    }
  }

  // ---------------------------------------------------------------------------------------------- time

  tick(): void {
    if (this.graceTicks > 0) {
      this.graceTicks--;
    }
    if (this.role === 'leader') {
      this.#tickLeader();
      return;
    }
    this.electionElapsed++;
    if (this.electionElapsed >= this.randomizedElectionTimeout && this.promotable()) {
      this.electionElapsed = 0;
      this.hup(this.config.preVote ? 'pre-election' : 'election');
    }
  }

  #tickLeader(): void {
    this.heartbeatElapsed++;
    this.electionElapsed++;
    if (this.electionElapsed >= this.config.electionTick) {
      this.electionElapsed = 0;
      if (this.config.checkQuorum) {
        checkQuorum(this);
      }
      if (this.role === 'leader') {
        // The target did not win in time; the leader takes proposals again.
        this.leadTransferee = 0;
      }
    }
    if (this.role === 'leader' && this.heartbeatElapsed >= this.config.heartbeatTick) {
      this.heartbeatElapsed = 0;
      bcastHeartbeat(this);
    }
  }

  /** Ticks until something but a counter can change; at least 1, unlimited for a member that can only wait. */
  ticksToNextEvent(): number {
    const { electionTick, heartbeatTick } = this.config;
    if (this.role === 'leader') {
      return Math.max(Math.min(heartbeatTick - this.heartbeatElapsed, electionTick - this.electionElapsed), 1);
    }
    return this.promotable() ? Math.max(this.randomizedElectionTimeout - this.electionElapsed, 1) : UNLIMITED;
  }

  /** The same as `n` calls of `tick`. */
  advanceTicks(n: number): void {
    let left = n;
    while (left > 0) {
      // Everything before the next event only counts.
      const idle = Math.min(left, this.ticksToNextEvent()) - 1;
      if (idle > 0) {
        this.electionElapsed += idle;
        if (this.role === 'leader') {
          this.heartbeatElapsed += idle;
        }
        this.graceTicks = Math.max(0, this.graceTicks - idle);
        left -= idle;
      }
      this.tick();
      left--;
    }
  }

  // ---------------------------------------------------------------------------------------------- applying

  /** Entries up to `index` are applied. A leader in a joint configuration that leaves by itself does so now. */
  appliedTo(index: number, bytes: number): void {
    const applied = Math.max(index, this.log.applied);
    this.log.appliedTo(applied, bytes);
    const mayLeave = applied >= this.pendingConfIndex || this.planted('auto-leave-ignores-pending-conf-index');
    if (this.tracker.config.autoLeave && mayLeave && this.role === 'leader') {
      // Refused during a transfer, for example; tried again with every later entry.
      proposeAutoLeave(this);
    }
  }

  #appliedSnapshot(snapshot: Snapshot): void {
    const { index } = snapshot.metadata;
    this.log.stableSnapTo(index);
    this.appliedTo(index, 0);
  }

  // ---------------------------------------------------------------------------------------------- membership

  applyConfChange(cc: ConfChangeV2): ConfState {
    const base = { membership: this.tracker.membership, lastIndex: this.log.lastIndex, limits: this.tracker.limits };
    const result = changeMembership(base, isLeaveJoint(cc) ? LEAVE_JOINT : cc);
    if (result.type === 'error') {
      return raftPanic(`a committed membership change cannot be applied: ${result.message}`, { id: this.id });
    }
    this.#switchTo(result.membership);
    return this.tracker.config;
  }

  #restoreConfig(state: ConfState, lastIndex: number): void {
    const result = restoreMembership(state, lastIndex, this.tracker.limits);
    if (result.type === 'error') {
      raftPanic(`the configuration cannot be restored: ${result.message}`, { id: this.id });
    }
    this.#switchTo(result.membership);
  }

  #switchTo(membership: Membership): void {
    this.tracker.install(membership);
    if (this.infoOn) {
      this.logger.info(`${hexId(this.id)} switched to configuration ${configText(membership.config)}`);
    }
    const own = this.tracker.get(this.id);
    this.isLearner = own !== undefined && own.isLearner;
    if (this.role !== 'leader') {
      return;
    }
    if (own === undefined || own.isLearner) {
      if (this.config.stepDownOnRemoval) {
        this.becomeFollower(this.term, 0);
      }
      return;
    }
    afterConfigChange(this);
  }

  /** Takes a snapshot of the leader; false if there is no use for it. */
  restoreSnapshot(snapshot: Snapshot): boolean {
    const { index, term, confState } = snapshot.metadata;
    if (index <= this.log.committed) {
      return false;
    }
    if (this.role !== 'follower') {
      this.logger.warn(`${hexId(this.id)} attempted to restore snapshot as leader; should never happen`);
      this.becomeFollower(this.term + 1, 0);
      return false;
    }
    const { voters, learners, votersOutgoing } = confState;
    if (!voters.includes(this.id) && !learners.includes(this.id) && !votersOutgoing.includes(this.id)) {
      this.logger.warn(
        `${hexId(this.id)} attempted to restore snapshot but it is not in the ConfState; should never happen`,
      );
      return false;
    }
    if (this.log.matchesTerm(index, term) && !this.planted('no-snapshot-fast-forward')) {
      if (this.infoOn) {
        const { committed, lastIndex, lastTerm } = this.log;
        this.logger.info(
          `${hexId(this.id)} [commit: ${committed}, lastindex: ${lastIndex}, lastterm: ${lastTerm}] ` +
            `fast-forwarded commit to snapshot [index: ${index}, term: ${term}]`,
        );
      }
      this.log.commitTo(index);
      return false;
    }
    this.log.restore(snapshot);
    this.#restoreConfig(confState, this.log.lastIndex);
    if (this.infoOn) {
      const { committed, lastIndex, lastTerm } = this.log;
      this.logger.info(
        `${hexId(this.id)} [commit: ${committed}, lastindex: ${lastIndex}, lastterm: ${lastTerm}] ` +
          `restored snapshot [index: ${index}, term: ${term}]`,
      );
    }
    return true;
  }

  /**
   * Entries of a finished group that arrived outside Raft (region merge): the part this log lacks is appended and
   * committed as if a leader had sent it. Everything up to `commit` is committed in the group.
   */
  appendCommitted(entries: readonly Entry[], commit: number): void {
    if (this.log.unstable.snapshot !== null) {
      raftPanic('entries of a finished group met an unstable snapshot', { id: this.id });
    }
    let from = 0;
    while (from < entries.length && (entries[from] as Entry).index <= this.log.committed) {
      from++;
    }
    const rest = from === 0 ? entries : from === entries.length ? EMPTY_ENTRIES : entries.slice(from);
    const first = rest[0];
    const last = rest[rest.length - 1];
    if (first !== undefined && last !== undefined) {
      if (last.term > this.term) {
        this.becomeFollower(last.term, 0);
      } else if (this.role === 'candidate' || this.role === 'pre-candidate') {
        this.becomeFollower(this.term, 0);
      }
      const previous = first.index - 1;
      const previousTerm = this.log.term(previous);
      const lastBefore = this.log.lastIndex;
      if (previousTerm < 0 || this.log.maybeAppend(previous, previousTerm, rest, 0) < 0) {
        raftPanic('entries of a finished group leave a hole', {
          id: this.id,
          first: first.index,
          lastIndex: lastBefore,
        });
      }
      if (this.role === 'leader' && this.log.lastIndex !== lastBefore) {
        raftPanic('a leader lacked committed entries', { id: this.id, lastIndex: lastBefore });
      }
    }
    this.log.commitTo(commit);
  }
}
