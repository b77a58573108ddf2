/**
 * The face of one Raft group member: inputs are method calls, outputs come in Readies. No I/O, no time, no chance of
 * its own; same inputs give the same outputs. How to drive it, and what must be durable before what is sent, is in
 * docs/raft.md. Source of the protocol: Raft paper and thesis; shapes follow etcd-io/raft: rawnode.go.
 */
import { EMPTY_BYTES } from '../base/bytes.ts';
import { encodeConfChangeV2 } from './conf-change.ts';
import { configProblem, type RaftConfig } from './config.ts';
import type { DefectSet } from './defects.ts';
import { EMPTY_ENTRIES, entriesSizeBytes } from './entry.ts';
import { raftPanic } from './errors.ts';
import { forgetLeader } from './follower.ts';
import {
  bcastHeartbeat,
  confChangeRefusal,
  proposalRefusal,
  reportSnapshot,
  reportUnreachable,
  startTransfer,
} from './leader.ts';
import {
  EMPTY_MESSAGES,
  isLocalMessage,
  isLocalThread,
  isResponseMessage,
  messageProblem,
  newMessage,
  POSITION_JUMP_MAX,
  POSITION_MAX,
} from './message.ts';
import { Raft } from './raft.ts';
import {
  LOCAL_MESSAGE,
  PEER_NOT_FOUND,
  type ProgressView,
  type ProposeResult,
  type RaftStatus,
  type Ready,
  type StepResult,
} from './ready.ts';
import type { Progress } from './progress.ts';
import {
  EntryType,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  MsgType,
  type ConfChangeV2,
  type ConfState,
  type Entry,
  type HardState,
  type Message,
  type Role,
  type Snapshot,
} from './types.ts';

const EMPTY_HARD_STATE: HardState = Object.freeze({ term: 0, vote: 0, commit: 0 });

export class RawNode {
  readonly #raft: Raft;
  readonly #async: boolean;
  /** Set while a method runs, and for good if one of them threw: a broken member must not be used any more. */
  #busy = false;
  #lastLead: number;
  #lastRole: Role;
  #lastTerm: number;
  #lastVote: number;
  #lastCommit: number;
  /** Sync mode: what `advance` delivers. */
  #onAdvance: readonly Message[] = EMPTY_MESSAGES;

  /**
   * @param defects Planted defects; tests only.
   * @throws RaftInvariantError for a configuration or stored state that contradicts itself.
   */
  constructor(config: RaftConfig, defects: DefectSet | null = null) {
    const problem = configProblem(config);
    if (problem !== undefined) {
      raftPanic(`raft configuration: ${problem}`);
    }
    this.#raft = new Raft(config, defects);
    this.#async = config.asyncStorageWrites;
    this.#lastLead = this.#raft.lead;
    this.#lastRole = this.#raft.role;
    this.#lastTerm = this.#raft.term;
    this.#lastVote = this.#raft.vote;
    this.#lastCommit = this.#raft.log.committed;
  }

  #enter(): Raft {
    if (this.#busy) {
      raftPanic('a raft member was entered again while it was busy, or used after it failed', { id: this.#raft.id });
    }
    this.#busy = true;
    return this.#raft;
  }

  // ---------------------------------------------------------------------------------------------- time

  tick(): void {
    this.#enter().tick();
    this.#busy = false;
  }

  /** The same effect as `n` calls of `tick`. */
  advanceTicks(n: number): void {
    this.#enter().advanceTicks(n);
    this.#busy = false;
  }

  /** Ticks until a tick can do more than count; unlimited for a member that can only wait for messages. */
  ticksToNextEvent(): number {
    return this.#raft.ticksToNextEvent();
  }

  // ---------------------------------------------------------------------------------------------- input

  /**
   * Takes a message from another member, or a response of a local thread. Whatever is not `ok` had no effect. The
   * message and everything in it belong to the core from here on.
   */
  step(m: Message): StepResult {
    const r = this.#enter();
    const result = this.#step(r, m);
    this.#busy = false;
    return result;
  }

  #step(r: Raft, m: Message): StepResult {
    const problem = messageProblem(m, r.id);
    if (problem !== undefined) {
      return { type: 'malformed', reason: problem };
    }
    if (!isLocalThread(m.from)) {
      if (isLocalMessage(m.type) || m.type === MsgType.ForgetLeader) {
        return LOCAL_MESSAGE;
      }
      if (isResponseMessage(m.type) && r.tracker.get(m.from) === undefined) {
        return PEER_NOT_FOUND;
      }
      if (m.term > r.term + POSITION_JUMP_MAX || m.commit > r.log.lastIndex + POSITION_JUMP_MAX) {
        return {
          type: 'malformed',
          reason: `term ${m.term} or commit ${m.commit} is absurd beside ${r.term} and ${r.log.lastIndex} here`,
        };
      }
    }
    return r.step(m);
  }

  /** Starts an election now, with a pre-election first if that is configured. */
  campaign(): void {
    const r = this.#enter();
    r.hup(r.config.preVote ? 'pre-election' : 'election');
    this.#busy = false;
  }

  /** Proposes a normal entry. The core keeps `data` and never copies it. */
  propose(data: Uint8Array): ProposeResult {
    return this.#propose(EntryType.Normal, data);
  }

  /** Proposes a membership change; `refused` says why it is not possible now. */
  proposeConfChange(cc: ConfChangeV2): ProposeResult {
    return this.#proposeConfChange(cc, EntryType.ConfChangeV2);
  }

  /** Proposes a single change in the older entry form. */
  proposeConfChangeV1(cc: ConfChangeV2): ProposeResult {
    if (cc.changes.length !== 1 || cc.transition !== 0) {
      raftPanic('a V1 change has one operation and no transition');
    }
    return this.#proposeConfChange(cc, EntryType.ConfChange);
  }

  #proposeConfChange(cc: ConfChangeV2, type: EntryType): ProposeResult {
    const r = this.#raft;
    const unfit = cc.changes.find((c) => !(Number.isSafeInteger(c.nodeId) && c.nodeId >= 0 && c.nodeId < POSITION_MAX));
    if (unfit !== undefined) {
      return { type: 'refused', reason: `node id ${unfit.nodeId} is out of range` };
    }
    if (r.role === 'leader' && proposalRefusal(r) === undefined) {
      const reason = confChangeRefusal(r, cc);
      if (reason !== undefined) {
        if (r.config.appendRefusedConfChanges === true) {
          this.#propose(type, encodeConfChangeV2(cc));
        }
        return { type: 'refused', reason };
      }
    }
    return this.#propose(type, encodeConfChangeV2(cc));
  }

  #propose(type: EntryType, data: Uint8Array): ProposeResult {
    const r = this.#enter();
    const m = newMessage(MsgType.Prop, r.id, r.id, 0);
    m.entries = [{ type, term: 0, index: 0, data }];
    const result = r.step(m);
    this.#busy = false;
    if (result.type === 'dropped') {
      return result;
    }
    return r.role === 'leader'
      ? { type: 'proposed', index: r.log.lastIndex, term: r.term }
      : { type: 'forwarded', reason: 'forwarded to the leader', to: r.lead };
  }

  /**
   * Applies a committed membership change: for every one, in order, before its entry is acknowledged as applied. One
   * that the state machine refuses on all replicas is not applied at all.
   * @returns the configuration to persist with the applied index.
   */
  applyConfChange(cc: ConfChangeV2): ConfState {
    const state = this.#enter().applyConfChange(cc);
    this.#busy = false;
    return state;
  }

  /** Asks for a linearizable read; a ReadState with this context follows, or nothing if messages get lost: ask again. */
  readIndex(context: Uint8Array): StepResult {
    const r = this.#enter();
    const m = newMessage(MsgType.ReadIndex, r.id, r.id, 0);
    m.entries = [{ type: EntryType.Normal, term: 0, index: 0, data: context }];
    const result = r.step(m);
    this.#busy = false;
    return result;
  }

  /** Asks the leader, which may be this member, to hand over to `to`. Look at `leadTransferee` for what came of it. */
  transferLeader(to: number): void {
    const r = this.#enter();
    const target = r.tracker.get(to);
    if (r.role !== 'leader') {
      r.step(newMessage(MsgType.TransferLeader, r.id, to, 0));
    } else if (target !== undefined) {
      startTransfer(r, target);
    }
    this.#busy = false;
  }

  /** A leader gives up the lead without naming a successor; its term stays. */
  stepDown(): void {
    const r = this.#enter();
    if (r.role === 'leader') {
      r.becomeFollower(r.term, 0);
    }
    this.#busy = false;
  }

  /** A follower that knows from elsewhere that its leader is gone stops protecting it. */
  forgetLeader(): void {
    forgetLeader(this.#enter());
    this.#busy = false;
  }

  /** A leader sends heartbeats now, to renew a lease or to wake its followers. */
  ping(): void {
    const r = this.#enter();
    if (r.role === 'leader') {
      bcastHeartbeat(r);
    }
    this.#busy = false;
  }

  /** Sending to this member failed. For real failures only: it slows replication down. */
  reportUnreachable(id: number): void {
    reportUnreachable(this.#enter(), id);
    this.#busy = false;
  }

  /** What became of a MsgSnap. Mandatory for every one, also when it was dropped: nothing else ends the wait. */
  reportSnapshot(id: number, ok: boolean): void {
    reportSnapshot(this.#enter(), id, ok);
    this.#busy = false;
  }

  /**
   * Region merge: entries of this (finished) group that arrived outside Raft, all committed up to `commit`. They take
   * the normal way: unstable, persisted, handed out, applied. Calling it again with the same entries changes nothing.
   */
  appendCommitted(entries: readonly Entry[], commit: number): void {
    this.#enter().appendCommitted(entries, commit);
    this.#busy = false;
  }

  // ---------------------------------------------------------------------------------------------- output

  /** Whether `ready` would contain anything. */
  hasReady(): boolean {
    const r = this.#raft;
    const { log } = r;
    return (
      r.messages.length > 0 ||
      r.messagesAfterAppend.length > 0 ||
      log.unstable.hasNext ||
      log.committed !== this.#lastCommit ||
      r.term !== this.#lastTerm ||
      r.vote !== this.#lastVote ||
      r.lead !== this.#lastLead ||
      r.role !== this.#lastRole ||
      r.readStates.length > 0 ||
      log.hasNextCommitted(this.#appliesUnstable) ||
      log.unstable.nextSnapshot() !== null
    );
  }

  get #appliesUnstable(): boolean {
    return !this.#async || this.#raft.planted('async-applies-unstable');
  }

  /** Takes everything that is to be done. In sync mode `advance` must follow before the next call. */
  ready(): Ready {
    const r = this.#enter();
    if (!this.#async && this.#onAdvance.length > 0) {
      raftPanic('two accepted Ready structs without call to Advance');
    }
    const { log } = r;
    const softState = r.lead === this.#lastLead && r.role === this.#lastRole ? null : { lead: r.lead, role: r.role };
    const promisesChanged = r.term !== this.#lastTerm || r.vote !== this.#lastVote;
    const hardState =
      promisesChanged || log.committed !== this.#lastCommit
        ? { term: r.term, vote: r.vote, commit: log.committed }
        : null;
    const entries = log.unstable.next();
    const snapshot = log.unstable.nextSnapshot();
    const committedEntries = log.nextCommitted(this.#appliesUnstable);
    const readStates = r.readStates;
    const leaderMessages = r.role === 'leader';
    const mustSync = entries.length > 0 || promisesChanged;

    const afterAppend = r.messagesAfterAppend;
    const attests = snapshot !== null || log.unstable.length > 0;
    let { messages } = r;
    if (this.#async) {
      if (entries.length > 0 || hardState !== null || snapshot !== null || afterAppend.length > 0) {
        messages = push(messages, this.#storageAppend(r, entries, hardState, snapshot, afterAppend, attests));
      }
      if (committedEntries.length > 0) {
        messages = push(messages, storageApply(r.id, committedEntries));
      }
    } else {
      let onAdvance: readonly Message[] = EMPTY_MESSAGES;
      for (let i = 0; i < afterAppend.length; i++) {
        const m = afterAppend[i] as Message;
        if (m.to === r.id) {
          onAdvance = push(onAdvance, m);
        } else {
          messages = push(messages, m);
        }
      }
      if (attests) {
        onAdvance = push(onAdvance, storageAppendResp(r, snapshot));
      }
      if (committedEntries.length > 0) {
        onAdvance = push(onAdvance, storageApplyResp(r.id, committedEntries));
      }
      this.#onAdvance = r.planted('advance-order-reversed') ? [...onAdvance].reverse() : onAdvance;
    }

    // Accepted at once: what was handed out is not handed out again.
    this.#lastLead = r.lead;
    this.#lastRole = r.role;
    this.#lastTerm = r.term;
    this.#lastVote = r.vote;
    this.#lastCommit = log.committed;
    r.clearReadStates();
    r.messages = EMPTY_MESSAGES;
    r.messagesAfterAppend = EMPTY_MESSAGES;
    log.unstable.acceptInProgress();
    const last = committedEntries[committedEntries.length - 1];
    if (last !== undefined) {
      log.acceptApplying(last.index, entriesSizeBytes(committedEntries), this.#appliesUnstable);
    }
    this.#busy = false;
    return {
      softState,
      hardState,
      entries,
      snapshot,
      committedEntries,
      messages,
      leaderMessages,
      readStates,
      mustSync,
    };
  }

  #storageAppend(
    r: Raft,
    entries: readonly Entry[],
    hardState: HardState | null,
    snapshot: Snapshot | null,
    afterAppend: readonly Message[],
    attests: boolean,
  ): Message {
    const { term, vote, commit } = hardState ?? EMPTY_HARD_STATE;
    const m = newMessage(MsgType.StorageAppend, LOCAL_APPEND_THREAD, r.id, term);
    m.vote = vote;
    m.commit = commit;
    m.entries = entries;
    m.snapshot = snapshot;
    // The own acknowledgements come first: they commit while the terms are still in memory.
    m.responses = attests ? push(afterAppend, storageAppendResp(r, snapshot)) : afterAppend;
    return m;
  }

  /** Sync mode: the last Ready is persisted and its committed entries are applied. */
  advance(): void {
    const r = this.#enter();
    if (this.#async) {
      raftPanic('Advance must not be called when using AsyncStorageWrites');
    }
    const steps = this.#onAdvance;
    this.#onAdvance = EMPTY_MESSAGES;
    for (let i = 0; i < steps.length; i++) {
      r.step(steps[i] as Message);
    }
    this.#busy = false;
  }

  // ---------------------------------------------------------------------------------------------- views

  get id(): number {
    return this.#raft.id;
  }

  get role(): Role {
    return this.#raft.role;
  }

  get term(): number {
    return this.#raft.term;
  }

  get vote(): number {
    return this.#raft.vote;
  }

  /** Id of the known leader, 0 if none. */
  get lead(): number {
    return this.#raft.lead;
  }

  get committed(): number {
    return this.#raft.log.committed;
  }

  /** Last index acknowledged as applied. */
  get applied(): number {
    return this.#raft.log.applied;
  }

  get firstIndex(): number {
    return this.#raft.log.firstIndex;
  }

  get lastIndex(): number {
    return this.#raft.log.lastIndex;
  }

  /** Target of a transfer in progress, 0 if none. */
  get leadTransferee(): number {
    return this.#raft.leadTransferee;
  }

  /** On a leader: no membership change beyond this index exists. */
  get pendingConfIndex(): number {
    return this.#raft.pendingConfIndex;
  }

  /** Payload bytes this leader appended that are not applied. */
  get uncommittedBytes(): number {
    return this.#raft.uncommittedBytes;
  }

  /** Index of an accepted snapshot that is not reported durable yet; 0 if none. */
  get pendingSnapshotIndex(): number {
    return this.#raft.log.unstable.snapshot?.metadata.index ?? 0;
  }

  get isJoint(): boolean {
    return this.#raft.tracker.isJoint;
  }

  get isLearner(): boolean {
    return this.#raft.isLearner;
  }

  /** The configuration in effect here; lists sorted. */
  get confState(): ConfState {
    return this.#raft.tracker.config;
  }

  /** Whether this member may become leader; a leader stays one until it hands over. */
  set barred(isBarred: boolean) {
    this.#raft.isBarred = isBarred;
  }

  /** Whether this member may campaign. */
  promotable(): boolean {
    return this.#raft.promotable();
  }

  /** Whether the last committed entry is of the current term. */
  committedInTerm(): boolean {
    return this.#inTerm(this.#raft.log.committed);
  }

  /** Whether the last applied entry is of the current term: the gate for leases and administrative proposals. */
  appliedInTerm(): boolean {
    return this.#inTerm(this.#raft.log.applied);
  }

  #inTerm(index: number): boolean {
    const r = this.#raft;
    return r.role === 'leader' ? index >= r.termStart : r.log.matchesTerm(index, r.term);
  }

  /** Term of the entry at `index`; negative (COMPACTED, UNAVAILABLE) if unknown. */
  termAt(index: number): number {
    return this.#raft.log.term(index);
  }

  /** Entries [lo, hi) within `maxBytes` encoding bytes, at least one; empty if `lo` is compacted or `hi` beyond the log. */
  slice(lo: number, hi: number, maxBytes: number): readonly Entry[] {
    const { log } = this.#raft;
    if (lo >= hi || hi > log.lastIndex + 1) {
      return EMPTY_ENTRIES;
    }
    const entries = log.slice(lo, hi, maxBytes);
    return typeof entries === 'number' ? EMPTY_ENTRIES : entries;
  }

  /**
   * Writes a view of every member into `out`, reusing its objects, and returns their number. 0 unless leader.
   */
  forEachProgressInto(out: ProgressView[]): number {
    const r = this.#raft;
    if (r.role !== 'leader') {
      return 0;
    }
    const { progress } = r.tracker;
    for (let i = 0; i < progress.length; i++) {
      const p = progress[i] as Progress;
      const view = out[i] ?? newView();
      out[i] = view;
      view.id = p.id;
      view.match = p.match;
      view.next = p.next;
      view.state = p.state;
      view.committed = p.id === r.id ? r.log.applied : p.reportedCommit;
      view.recentActive = p.recentActive;
      view.isLearner = p.isLearner;
      view.pendingSnapshot = p.pendingSnapshot;
    }
    return progress.length;
  }

  /** A view of every member, the leader itself included; empty unless leader. */
  progress(): readonly ProgressView[] {
    const out: ProgressView[] = [];
    this.forEachProgressInto(out);
    return out;
  }

  /** For people and tests; allocates. */
  status(): RaftStatus {
    const r = this.#raft;
    return {
      id: r.id,
      term: r.term,
      vote: r.vote,
      committed: r.log.committed,
      applied: r.log.applied,
      lead: r.lead,
      role: r.role,
      leadTransferee: r.leadTransferee,
      config: r.tracker.config,
      progress: this.progress(),
    };
  }

  /** The shared state behind this face, for white-box tests and printers of this room. */
  get internals(): Raft {
    return this.#raft;
  }
}

function newView(): ProgressView {
  return {
    id: 0,
    match: 0,
    next: 0,
    state: 'probe',
    committed: 0,
    recentActive: false,
    isLearner: false,
    pendingSnapshot: 0,
  };
}

/** Adds to a list that is the shared empty one or our own. */
function push(list: readonly Message[], m: Message): readonly Message[] {
  if (list.length === 0) {
    return [m];
  }
  (list as Message[]).push(m);
  return list;
}

/**
 * Says that everything unstable now is durable. It names the last log position, not that of its own batch: after a
 * change of term earlier responses are ignored, and this one then attests the whole tail.
 */
function storageAppendResp(r: Raft, snapshot: Snapshot | null): Message {
  const m = newMessage(MsgType.StorageAppendResp, r.id, LOCAL_APPEND_THREAD, r.term);
  if (r.log.unstable.length > 0) {
    m.index = r.log.lastIndex;
    m.logTerm = r.log.lastTerm;
  }
  m.snapshot = snapshot;
  return m;
}

function storageApply(id: number, entries: readonly Entry[]): Message {
  const m = newMessage(MsgType.StorageApply, LOCAL_APPLY_THREAD, id, 0);
  m.entries = entries;
  m.responses = [storageApplyResp(id, entries)];
  return m;
}

function storageApplyResp(id: number, entries: readonly Entry[]): Message {
  const m = newMessage(MsgType.StorageApplyResp, id, LOCAL_APPLY_THREAD, 0);
  m.entries = entries;
  m.context = EMPTY_BYTES;
  return m;
}
