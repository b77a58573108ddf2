/**
 * One member of the replicated placement service as a synchronous state machine: ticks, messages and proposals go in,
 * batches to write, messages to send and results come out. It owns the Raft core, its log, the membership, the
 * deterministic state and the leader's lease; it reads no clock but the monotonic one it is given and awaits nothing.
 * The loop in `group-loop.ts` runs its effects and reports back.
 *
 * ```text
 * propose ─► Raft log ─► batch (synced) ─► majority ─► committed ─► PdState.apply ─► result
 *                                                                        └► changed records join the next batch
 * ```
 *
 * A member serves only while it leads, has applied an entry of its own term, holds the lease and has waited out the
 * lease an earlier leader may have held.
 */
import { assert } from '../../base/assert.ts';
import type { WriteBatch } from '../../env/engine.ts';
import type { Logger } from '../../env/log.ts';
import { decodeConfChangeV2 } from '../../raft/conf-change.ts';
import { RawNode } from '../../raft/raw-node.ts';
import type { ProgressView } from '../../raft/ready.ts';
import {
  type ConfChangeV2,
  type Entry,
  EntryType,
  type HardState,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  type Message,
  MsgType,
  type Role,
  type Snapshot,
} from '../../raft/types.ts';
import { encodeRegion } from '../../codec/raft-records.ts';
import type { PdCommand, PdRecordKey, PdResult, PdState } from '../state/pd-state.ts';
import { writeRecord } from '../state/state-log.ts';
import { regionKey } from '../state/record.ts';
import type { GroupConfig } from './config.ts';
import {
  APPLIED_KEY,
  type GroupCommand,
  type LogPosition,
  MEMBERS_KEY,
  decodeGroupEntry,
  encodeApplied,
  encodeGroupEntry,
} from './group-record.ts';
import { GroupStorage, type SavedLog } from './group-storage.ts';
import { Lead } from './lead.ts';
import {
  type Member,
  type Membership,
  auditOfChange,
  changedMembership,
  encodeMembership,
  findMember,
  isSoleVoter,
  updatedMembership,
  wasRemoved,
} from './membership.ts';

/** Proposals without a result at one time; more are refused. */
export const PROPOSALS_MAX = 10_000;
/** Payload bytes proposed and not applied. */
const UNCOMMITTED_BYTES_MAX: number = 64 * 1024 * 1024;
const APPEND_BYTES_MAX: number = 1024 * 1024;
const APPEND_INFLIGHT_MAX = 64;
/** Rounds of one `collect`: each hands out what the one before made possible. */
const READIES_MAX = 64;
/** Unknown members remembered. */
const PASSING_MAX = 16;

/** What became of a proposal. */
export type ProposalOutcome =
  | { readonly type: 'applied'; readonly result: PdResult }
  /** Certainly without effect. */
  | { readonly type: 'not-leader' }
  | { readonly type: 'busy' }
  /** A membership change that is not possible now. */
  | { readonly type: 'refused'; readonly reason: string }
  /** A later leader may have carried it out, or not. */
  | { readonly type: 'lost' };

export type GroupEffect =
  | { readonly type: 'send'; readonly to: Member; readonly message: Message }
  /** Raft waits for `snapshotSent` after each one. */
  | { readonly type: 'send-snapshot'; readonly to: Member; readonly message: Message }
  | { readonly type: 'make-snapshot' }
  /** Nothing else is collected before `installed`. */
  | { readonly type: 'install'; readonly snapshot: Snapshot; readonly hardState: HardState }
  /** Leads and has applied everything earlier leaders can have committed. */
  | { readonly type: 'lead'; readonly term: number }
  | { readonly type: 'step-down'; readonly term: number }
  /** The membership without this member is in force. */
  | { readonly type: 'removed' };

export interface SavedGroup extends Omit<SavedLog, 'confState'> {
  readonly membership: Membership;
  readonly applied: LogPosition;
  readonly state: PdState;
}

export interface GroupFsmOptions {
  readonly id: number;
  readonly config: GroupConfig;
  readonly saved: SavedGroup;
  readonly monoMs: () => number;
  /** Uniform integer in [0, n). */
  readonly random: (n: number) => number;
  readonly log: Logger;
  /** The process was started before and may have forgotten whose lease it supports. */
  readonly restarted: boolean;
}

interface Waiting {
  readonly index: number;
  readonly term: number;
  readonly done: (outcome: ProposalOutcome) => void;
}

interface InflightReady {
  readonly number: number;
  readonly isWritten: boolean;
  readonly responses: readonly Message[];
  readonly held: readonly Message[];
  /** Proposers of membership changes. */
  readonly answers: readonly Answer[];
}

interface Answer {
  readonly done: (outcome: ProposalOutcome) => void;
  readonly outcome: ProposalOutcome;
}

export class GroupFsm {
  readonly id: number;
  readonly #config: GroupConfig;
  readonly #monoMs: () => number;
  readonly #log: Logger;
  readonly #storage: GroupStorage;
  readonly #node: RawNode;
  readonly #lead: Lead;
  #state: PdState;
  #membership: Membership;
  #applied: LogPosition;
  #role: Role = 'follower';
  #isInstalling = false;
  #isRemoved = false;
  #effects: GroupEffect[] = [];
  #number = 0;
  readonly #inflight: InflightReady[] = [];
  #waiting: Waiting[] = [];
  /** Membership changes applied and not yet in a batch. */
  #changesApplied: Answer[] = [];
  readonly #progress: ProgressView[] = [];
  /** When each member was last heard from. The core's own mark is taken back at every check of the quorum. */
  readonly #heardMs = new Map<number, number>();
  /**
   * Senders this member does not know yet: one that joins knows nobody before its first snapshot, and one that was away
   * for long may be led by a member that joined meanwhile.
   */
  readonly #passing = new Map<number, Member>();

  constructor(options: GroupFsmOptions) {
    const { id, config, saved, random, log } = options;
    this.id = id;
    this.#config = config;
    this.#monoMs = options.monoMs;
    this.#log = log;
    this.#state = saved.state;
    this.#membership = saved.membership;
    this.#applied = saved.applied;
    this.#lead = new Lead({ leaseMs: config.leaderLeaseMs, firstRenewal: random(2 ** 32) * 2 ** 20 + 1 });
    this.#storage = new GroupStorage({
      hardState: { ...saved.hardState, commit: Math.max(saved.hardState.commit, saved.applied.index) },
      confState: saved.membership.confState,
      truncated: saved.truncated,
      entries: saved.entries,
    });
    this.#node = new RawNode({
      id,
      electionTick: config.electionTicks,
      heartbeatTick: config.heartbeatTicks,
      storage: this.#storage,
      applied: saved.applied.index,
      random,
      logger: {
        debugEnabled: log.debugEnabled,
        infoEnabled: log.debugEnabled,
        debug: (line) => log.debug({}, line),
        info: (line) => log.debug({}, line),
        warn: (line) => log.warn({}, line),
        error: (line) => log.error({}, line),
      },
      asyncStorageWrites: true,
      preVote: true,
      checkQuorum: true,
      stepDownOnRemoval: true,
      maxSizePerMsg: APPEND_BYTES_MAX,
      maxInflightMsgs: APPEND_INFLIGHT_MAX,
      maxInflightBytes: 0,
      maxUncommittedBytes: UNCOMMITTED_BYTES_MAX,
      maxCommittedSizePerReady: 0,
      disableProposalForwarding: true,
      disableConfChangeValidation: false,
      reportCommit: true,
      commitByVote: true,
      voteGraceTicks: options.restarted && !isSoleVoter(saved.membership, id) ? config.electionTicks : 0,
      skipBcastCommit: false,
    });
  }

  // ------------------------------------------------------------------------------------------------------ views

  get state(): PdState {
    return this.#state;
  }

  get membership(): Membership {
    return this.#membership;
  }

  get applied(): LogPosition {
    return this.#applied;
  }

  get truncated(): LogPosition {
    return this.#storage.truncated;
  }

  get term(): number {
    return this.#node.term;
  }

  get role(): Role {
    return this.#role;
  }

  get isLeader(): boolean {
    return this.#lead.term !== undefined;
  }

  /** The leader as far as known, this member included. */
  get leader(): Member | undefined {
    return this.#node.lead === 0 ? undefined : findMember(this.#membership, this.#node.lead);
  }

  get commitIndex(): number {
    return this.#node.committed;
  }

  get lastIndex(): number {
    return this.#node.lastIndex;
  }

  /** Whether nothing but a membership change in progress stands against another one. */
  get changesMembership(): boolean {
    return this.#node.pendingConfIndex > this.#applied.index || this.#node.isJoint;
  }

  get leadTransferee(): number {
    return this.#node.leadTransferee;
  }

  /** A leader's view of every member, itself included; overwritten by the next call. Empty on others. */
  progress(): readonly ProgressView[] {
    const count = this.#node.forEachProgressInto(this.#progress);
    return this.#progress.slice(0, count);
  }

  /** Whether a member was heard from within the last election timeout; true for this one. */
  isAnswering(id: number): boolean {
    const { electionTicks, tickMs } = this.#config;
    const heardMs = this.#heardMs.get(id);
    return id === this.id || (heardMs !== undefined && this.#monoMs() - heardMs < electionTicks * tickMs);
  }

  /**
   * Whether this member may answer as the leader of `term` at this moment. The lease is counted from when the majority
   * was asked; a process that was stopped for longer finds it expired before anything else.
   */
  servesTerm(term: number): boolean {
    return (
      this.#node.term === term &&
      this.#node.role === 'leader' &&
      this.#lead.serves(term, this.#monoMs(), isSoleVoter(this.#membership, this.id))
    );
  }

  /** From when on the lease of an earlier leader is certainly over; 0 for a member that does not lead. */
  get serveFromMs(): number {
    return this.#lead.serveFromMs;
  }

  // ------------------------------------------------------------------------------------------------------ input

  /** A group of one needs no election timeout. */
  start(): void {
    if (isSoleVoter(this.#membership, this.id)) {
      this.#node.campaign();
    }
  }

  tick(): void {
    this.#node.tick();
    this.#settleTransfer();
    this.#renewLease();
  }

  /** A message from another member. Whatever makes no sense is dropped. */
  receive(message: Message): void {
    const { from } = message;
    const result = this.#node.step(message);
    if (result.type === 'ok') {
      this.#heardMs.set(from, this.#monoMs());
    }
    if (result.type === 'malformed') {
      this.#log.warn(
        { from: message.from, reason: result.reason },
        'a malformed message of another member was dropped',
      );
    }
  }

  /** Asks for a command to be carried out in `term`; `done` is called exactly once. */
  propose(term: number, command: GroupCommand, done: (outcome: ProposalOutcome) => void): void {
    if (this.#refused(term, done)) {
      return;
    }
    const result = this.#node.propose(encodeGroupEntry({ term, command }));
    this.#await(result, done);
  }

  /** Asks for a membership change; `done` is called exactly once. */
  proposeChange(term: number, change: ConfChangeV2, done: (outcome: ProposalOutcome) => void): void {
    if (this.#refused(term, done)) {
      return;
    }
    this.#await(this.#node.proposeConfChange(change), done);
  }

  #refused(term: number, done: (outcome: ProposalOutcome) => void): boolean {
    if (this.#lead.term !== term || this.#node.term !== term) {
      done({ type: 'not-leader' });
      return true;
    }
    if (this.#waiting.length >= PROPOSALS_MAX) {
      done({ type: 'busy' });
      return true;
    }
    return false;
  }

  #await(result: ReturnType<RawNode['propose']>, done: (outcome: ProposalOutcome) => void): void {
    switch (result.type) {
      case 'proposed':
        this.#waiting.push({ index: result.index, term: result.term, done });
        return;
      case 'refused':
        done({ type: 'refused', reason: result.reason });
        return;
      case 'dropped':
        done(result.reason === 'uncommitted-limit' ? { type: 'busy' } : { type: 'not-leader' });
        return;
      case 'forwarded':
        assert(false, 'proposals are never forwarded');
    }
  }

  /** Starts handing the lead to another voter. The lease ends when that one is told to take over. */
  transferLeader(to: number): void {
    this.#node.transferLeader(to);
  }

  unreachable(id: number): void {
    this.#node.reportUnreachable(id);
  }

  snapshotSent(id: number, ok: boolean): void {
    this.#node.reportSnapshot(id, ok);
  }

  /** The snapshot asked for; undefined if it could not be made. */
  snapshotMade(snapshot: Snapshot | undefined): void {
    this.#storage.offerSnapshot(snapshot);
  }

  /** Everything up to batch `number` is durable. */
  persisted(number: number): void {
    while (this.#inflight.length > 0 && (this.#inflight[0] as InflightReady).number <= number) {
      this.#release();
    }
    this.#releaseUnwritten();
  }

  /** The snapshot is durable; `saved` is what the database holds now. */
  installed(
    saved: { readonly state: PdState; readonly membership: Membership },
    snapshot: Snapshot,
    hardState: HardState,
  ): void {
    assert(this.#isInstalling, 'no snapshot was being installed');
    this.#isInstalling = false;
    const { index, term } = snapshot.metadata;
    this.#storage.reset(snapshot, hardState);
    this.#state = saved.state;
    this.#membership = saved.membership;
    this.#applied = { index, term };
    this.#forgetPassing();
    this.#checkOwnMembership();
    this.persisted(this.#number);
  }

  /** The process stops or cannot write any more: nobody gets an answer that would be a promise. */
  abandon(): void {
    this.#stepDown();
    for (const { done } of [...this.#inflight.flatMap(({ answers }) => answers), ...this.#changesApplied]) {
      done(LOST);
    }
    this.#changesApplied = [];
    this.#inflight.length = 0;
    this.#effects = [];
  }

  // ------------------------------------------------------------------------------------------------------ output

  get hasWork(): boolean {
    return !this.#isInstalling && (this.#node.hasReady() || this.#effects.length > 0);
  }

  takeEffects(): readonly GroupEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  /**
   * Takes what the core wants done. The batch must be written in order with those of earlier calls; then `persisted`
   * must be called with the returned number. Undefined: nothing waits for this batch (it may be empty).
   */
  collect(batch: WriteBatch): number | undefined {
    let mustReport: number | undefined;
    const before = this.#applied.index;
    for (let i = 0; i < READIES_MAX && !this.#isInstalling && this.#node.hasReady(); i++) {
      mustReport = this.#collectOne(batch) ?? mustReport;
    }
    if (this.#applied.index !== before) {
      this.#compact(batch);
      batch.put(APPLIED_KEY, encodeApplied({ applied: this.#applied, truncated: this.#storage.truncated }));
    }
    if (this.#changesApplied.length > 0) {
      const answers = this.#changesApplied;
      this.#changesApplied = [];
      mustReport = ++this.#number;
      this.#inflight.push({ number: mustReport, isWritten: true, responses: [], held: [], answers });
    }
    if (this.#storage.takeWanted()) {
      this.#effects.push({ type: 'make-snapshot' });
    }
    return mustReport;
  }

  #collectOne(batch: WriteBatch): number | undefined {
    const ready = this.#node.ready();
    if (ready.softState !== null) {
      this.#changeRole(ready.softState.role);
    }
    for (const { requestContext } of ready.readStates) {
      this.#lead.answered(requestContext);
    }
    let append: Message | undefined;
    let apply: Message | undefined;
    const held: Message[] = [];
    for (const message of ready.messages) {
      if (message.to === LOCAL_APPEND_THREAD) {
        append = message;
      } else if (message.to === LOCAL_APPLY_THREAD) {
        apply = message;
      } else if (ready.leaderMessages) {
        this.#send(message);
      } else {
        held.push(message);
      }
    }
    const number = append === undefined && held.length === 0 ? undefined : this.#store(batch, append, held);
    if (apply !== undefined) {
      this.#applyEntries(batch, apply);
    }
    this.#announce();
    return number;
  }

  /** Adds log entries and promises to the batch; what promises them leaves when it is durable. */
  #store(batch: WriteBatch, append: Message | undefined, held: readonly Message[]): number | undefined {
    const entries = append?.entries ?? [];
    const hardState = append === undefined ? undefined : hardStateOf(append);
    const snapshot = append?.snapshot ?? undefined;
    const saved = this.#storage.hardState;
    const isPromise = hardState !== undefined && (hardState.term !== saved.term || hardState.vote !== saved.vote);
    const isWritten = entries.length > 0 || isPromise || snapshot !== undefined;
    if (snapshot !== undefined) {
      this.#isInstalling = true;
      this.#effects.push({
        type: 'install',
        snapshot,
        hardState: hardState ?? { ...saved, commit: snapshot.metadata.index },
      });
    } else if (isWritten) {
      this.#storage.append(batch, entries, hardState ?? saved);
    } else if (hardState !== undefined) {
      this.#storage.noteCommit(hardState.commit);
    }
    this.#number++;
    this.#inflight.push({ number: this.#number, isWritten, responses: append?.responses ?? [], held, answers: [] });
    if (!isWritten) {
      this.#releaseUnwritten();
      return undefined;
    }
    return snapshot === undefined ? this.#number : undefined;
  }

  #releaseUnwritten(): void {
    while (this.#inflight.length > 0 && !(this.#inflight[0] as InflightReady).isWritten) {
      this.#release();
    }
  }

  #release(): void {
    const { held, responses, answers } = this.#inflight.shift() as InflightReady;
    for (const { done, outcome } of answers) {
      done(outcome);
    }
    for (const message of held) {
      this.#send(message);
    }
    for (const message of responses) {
      if (message.to === this.id) {
        this.#node.step(message);
      } else {
        this.#send(message);
      }
    }
  }

  #send(message: Message): void {
    const to = findMember(this.#membership, message.to) ?? this.#passing.get(message.to);
    if (message.type === MsgType.TimeoutNow) {
      // The other one may win at any later time of this term without waiting for the lease.
      this.#lead.handOver();
    }
    if (to === undefined) {
      if (message.type === MsgType.Snap) {
        this.#node.reportSnapshot(message.to, false);
      }
      return;
    }
    this.#effects.push({ type: message.type === MsgType.Snap ? 'send-snapshot' : 'send', to, message });
  }

  /** Remembers how to answer somebody this member does not know yet. */
  introduce(member: Member): void {
    const { id } = member;
    const isUnknown = findMember(this.#membership, id) === undefined && !wasRemoved(this.#membership, id);
    if (isUnknown && (this.#passing.has(id) || this.#passing.size < PASSING_MAX)) {
      this.#passing.set(id, member);
    }
  }

  // ------------------------------------------------------------------------------------------------------ apply

  #applyEntries(batch: WriteBatch, apply: Message): void {
    let membersChanged = false;
    for (const entry of apply.entries) {
      assert(entry.index === this.#applied.index + 1, 'entries are applied in order', {
        index: entry.index,
        applied: this.#applied.index,
      });
      const result = this.#applyEntry(entry, batch);
      membersChanged ||= result.membersChanged;
      this.#applied = { index: entry.index, term: entry.term };
      this.#answer(entry, result.outcome);
    }
    if (membersChanged) {
      batch.put(MEMBERS_KEY, encodeMembership(this.#membership));
      this.#forgetPassing();
      this.#checkOwnMembership();
    }
    for (const response of apply.responses) {
      this.#node.step(response);
    }
  }

  #applyEntry(
    entry: Entry,
    batch: WriteBatch,
  ): { readonly outcome: ProposalOutcome; readonly membersChanged: boolean } {
    if (entry.type !== EntryType.Normal) {
      return { outcome: this.#applyChange(decodeConfChangeV2(entry.data), batch), membersChanged: true };
    }
    if (entry.data.length === 0) {
      return { outcome: DONE, membersChanged: false };
    }
    const { term, command } = decodeGroupEntry(entry.data);
    if (term !== entry.term) {
      // Proposed for another leadership: it must not take effect in this one.
      return { outcome: { type: 'not-leader' }, membersChanged: false };
    }
    switch (command.type) {
      case 'command':
        return {
          outcome: { type: 'applied', result: this.#applyCommand(command.command, batch) },
          membersChanged: false,
        };
      case 'regions':
        for (const region of command.changes.saves) {
          batch.put(regionKey(region.id), encodeRegion(region));
        }
        for (const id of command.changes.deletes) {
          batch.del(regionKey(id));
        }
        return { outcome: DONE, membersChanged: false };
      case 'member':
        this.#membership = updatedMembership(this.#membership, command.member);
        return { outcome: DONE, membersChanged: true };
    }
  }

  #applyChange(change: ConfChangeV2, batch: WriteBatch): ProposalOutcome {
    const wasAlone = isSoleVoter(this.#membership, this.id);
    this.#membership = changedMembership(this.#membership, change, this.#node.applyConfChange(change));
    if (wasAlone && !isSoleVoter(this.#membership, this.id)) {
      // Until now nobody else could lead, and the new voter alone is no majority.
      this.#lead.renewAlone(this.#monoMs());
      this.#renewLease();
    }
    const audit = auditOfChange(change);
    if (audit === undefined) {
      return DONE;
    }
    const touched: PdRecordKey[] = [];
    const firstAudit = this.#state.note([audit], touched);
    this.#writeRecords(touched, batch);
    return { type: 'applied', result: { type: 'done', ...(firstAudit === undefined ? {} : { firstAudit }) } };
  }

  #applyCommand(command: PdCommand, batch: WriteBatch): PdResult {
    const touched: PdRecordKey[] = [];
    const result = this.#state.apply(command, touched);
    assert(result.type === 'done' || touched.length === 0, 'a refused command changed the state');
    this.#writeRecords(touched, batch);
    return result;
  }

  #writeRecords(touched: readonly PdRecordKey[], batch: WriteBatch): void {
    for (const key of touched) {
      writeRecord(this.#state, key, batch);
    }
  }

  #answer(entry: Entry, outcome: ProposalOutcome): void {
    for (let head = this.#waiting[0]; head !== undefined && head.index <= entry.index; head = this.#waiting[0]) {
      this.#waiting.shift();
      const answer = head.index === entry.index && head.term === entry.term ? outcome : LOST;
      if (entry.type === EntryType.Normal) {
        head.done(answer);
      } else {
        // Whoever asked may now switch off a member that was removed. Until this member has the new membership on disk
        // it would need that one's vote after a restart.
        this.#changesApplied.push({ done: head.done, outcome: answer });
      }
    }
  }

  /** Members that lag less than the kept part of the log need no snapshot. */
  #compact(batch: WriteBatch): void {
    const { logKeepEntries, logKeepBytes } = this.#config;
    const { truncated, bytes } = this.#storage;
    const kept = this.#applied.index - truncated.index;
    if (kept > 2 * logKeepEntries) {
      this.#storage.compact(batch, this.#applied.index - logKeepEntries);
    } else if (bytes > logKeepBytes && kept > 1) {
      this.#storage.compact(batch, truncated.index + Math.ceil(kept / 2));
    }
  }

  #forgetPassing(): void {
    for (const id of this.#passing.keys()) {
      if (id <= this.#membership.lastId) {
        this.#passing.delete(id);
      }
    }
    for (const id of this.#heardMs.keys()) {
      if (wasRemoved(this.#membership, id)) {
        this.#heardMs.delete(id);
      }
    }
  }

  #checkOwnMembership(): void {
    if (
      !this.#isRemoved &&
      this.#membership.members.length > 0 &&
      findMember(this.#membership, this.id) === undefined
    ) {
      this.#isRemoved = true;
      this.#effects.push({ type: 'removed' });
    }
  }

  // ------------------------------------------------------------------------------------------------------ leading

  #changeRole(role: Role): void {
    this.#role = role;
    const { term } = this.#node;
    if (role !== 'leader') {
      this.#stepDown();
    } else if (this.#lead.term !== term) {
      this.#stepDown();
      this.#lead.begin(term, this.#monoMs(), isSoleVoter(this.#membership, this.id));
    }
  }

  #stepDown(): void {
    const announcedTerm = this.#lead.end();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { done } of waiting) {
      done(LOST);
    }
    if (announcedTerm !== undefined) {
      this.#effects.push({ type: 'step-down', term: announcedTerm });
    }
  }

  #announce(): void {
    if (this.#lead.term === undefined || !this.#node.appliedInTerm()) {
      return;
    }
    const term = this.#lead.announce();
    if (term !== undefined) {
      this.#renewLease();
      this.#effects.push({ type: 'lead', term });
    }
  }

  /** Asks the majority whether it still follows; the answer is worth the time since the question. */
  #renewLease(): void {
    const context = isSoleVoter(this.#membership, this.id) ? undefined : this.#lead.ask(this.#monoMs());
    if (context !== undefined) {
      this.#node.readIndex(context);
    }
  }

  /**
   * A handover that came to nothing: the other one may still take over in this term, so the lease stays void, and
   * nobody would serve. Giving up the lead makes room for a new term, in which it cannot.
   */
  #settleTransfer(): void {
    if (this.#lead.isHandedOver && this.#node.leadTransferee === 0) {
      this.#node.stepDown();
    }
  }
}

const LOST: ProposalOutcome = Object.freeze({ type: 'lost' });
const DONE: ProposalOutcome = Object.freeze({ type: 'applied', result: Object.freeze({ type: 'done' }) });

function hardStateOf(append: Message): HardState | undefined {
  const { term, vote, commit } = append;
  return term === 0 && vote === 0 && commit === 0 ? undefined : { term, vote, commit };
}
