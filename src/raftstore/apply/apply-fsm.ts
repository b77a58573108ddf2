/**
 * The applier of one region: takes committed entries in log order and turns them into batches of data plus apply
 * state. Dispatch, pausing and resuming live here; what commands do lives in `exec-write.ts` and `exec-admin.ts`.
 *
 * Batches of plain writes are pipelined: the next entries execute while earlier batches are on their way to the disk,
 * and read through the buffers of those. The proposer of a plain write is answered when its entry was executed: the
 * entry is committed, so a majority has it on disk, and its outcome cannot change. Whoever reads meanwhile must ask
 * `conflictIndex`. Everything else – admin commands, deleted ranges, snapshots, the end of the FSM – waits until all
 * batches are durable, and so does the result for the peer FSM. A crash at any point repeats the entries behind the
 * durable applied index; nothing of them is on disk, except pages of a delete-range, which are deleted again.
 *
 * Never reads a clock, never draws a random number, never awaits. Reference: TiKV
 * `components/raftstore/src/store/fsm/apply.rs` (`ApplyFsm`, `ApplyDelegate`).
 */
import { assert, unreachable } from '../../base/assert.ts';
import { BoundedQueue } from '../../base/bounded-queue.ts';
import { keyAfter } from '../../base/bytes.ts';
import type { PeerId, RegionId } from '../../base/ids.ts';
import type { KeyRange } from '../../base/key-range.ts';
import { KIB, MIB } from '../../base/units.ts';
import type { AdminCommand, AdminType, RaftCommand } from '../../codec/command.ts';
import {
  decodeRaftCommand,
  decodeRegionLocalState,
  encodeApplyState,
  encodeRegionLocalState,
} from '../../codec/raft-records.ts';
import type { ApplyState } from '../../codec/store-record.ts';
import { applyStateKey, dataRange, regionStateKey, userKeyOf } from '../../engine/keyspace.ts';
import type { WriteBatch } from '../../env/engine.ts';
import type { FailpointName } from '../../env/failpoint-names.ts';
import { findPeer, type Region } from '../../meta/region.ts';
import { decodeConfChangeV2 } from '../../raft/conf-change.ts';
import { EntryType, type ConfChangeV2, type Entry, type Snapshot } from '../../raft/types.ts';
import type { StoreContext } from '../context.ts';
import type { ApplyTask, CatchUpFlag, EntryOutcome, ExecResult, OpResult, PendingProposal } from '../msg.ts';
import { checkEpochAtApply } from '../operation/region-change.ts';
import { messageOnly } from '../refusal.ts';
import { isBiased } from '../bias.ts';
import { freezeRegion } from '../snapshot/generate.ts';
import { stopOnReadFailure } from '../worker/engine-failure.ts';
import { HashJob } from '../worker/consistency-hash.ts';
import { advance, withCommit } from './apply-state.ts';
import { execAdmin, execChangePeer, type AdminExecution, type AdminInput } from './exec-admin.ts';
import { WriteBuffer, checkOpsInRegion, deletedRanges, executeOps } from './exec-write.ts';

/** A batch this large is written although more entries are waiting. */
const BATCH_BYTES_MAX: number = 4 * MIB;
const BATCH_ENTRIES_MAX = 4096;
/** Tasks waiting in one FSM beyond which something is badly wrong; they may never be refused. */
const TASKS_WARN = 10_000;
/** Batches of plain writes on their way to the disk at once. */
const FLIGHTS_MAX = 8;
/** How long a step held back by a failpoint waits before it is tried again. */
const PAUSE_RETRY_MS = 10;
/** Bytes of one page of keys to delete. */
const RANGE_PAGE_BYTES: number = 256 * KIB;

/** Where the FSM of a region starts from. */
export interface ApplyRegistration {
  /** The replica this FSM applies for. */
  readonly peerId: PeerId;
  /** Initialized. */
  readonly region: Region;
  readonly applyState: ApplyState;
  /** The region is `merging` on disk: log compaction is suspended. */
  readonly isMerging: boolean;
}

type Task<T extends ApplyTask['type']> = Extract<ApplyTask, { type: T }>;

/** Effects of executed entries that are not handed to the engine yet. */
interface Pending {
  readonly batch: WriteBatch;
  readonly writes: WriteBuffer;
  readonly outcomes: { readonly proposal: PendingProposal; readonly outcome: EntryOutcome }[];
  readonly results: ExecResult[];
  readonly cleanTasks: number[];
  entries: number;
  /** Bytes of region records in `batch`. */
  adminBytes: number;
  /** Keys that a delete-range removed. */
  keysDeleted: number;
}

/** A batch on its way to the disk. */
interface Flight {
  readonly number: number;
  readonly pending: Pending;
  /** Undefined for a page of a delete-range, which changes data only. */
  readonly applyState: ApplyState | undefined;
}

/** An entry with delete-range operations: its other effects are computed, the keys in its ranges are being deleted. */
interface RangeDeletion {
  readonly ranges: readonly KeyRange[];
  at: number;
  /** Next user key to look at. */
  from: Uint8Array;
  readonly results: readonly OpResult[];
  keysDeleted: number;
}

type RunState =
  | { readonly type: 'running' }
  /** The next step needs every pipelined batch to be durable, or there are too many of them. */
  | { readonly type: 'draining' }
  /** A failpoint holds the next step back. */
  | { readonly type: 'paused' }
  /** A batch is in flight; `resume` says what its completion continues. */
  | { readonly type: 'writing'; readonly flight: Flight; readonly deletion: RangeDeletion | undefined }
  /** CommitMerge waits until the source's apply FSM is complete and dead. */
  | { readonly type: 'wait-merge-source'; readonly sourceId: number; readonly flag: CatchUpFlag }
  | { readonly type: 'wait-range-page'; readonly deletion: RangeDeletion }
  | { readonly type: 'stopped' };

const RUNNING: RunState = Object.freeze({ type: 'running' });

const ADMIN_FAILPOINTS: Readonly<Record<AdminType, FailpointName>> = Object.freeze({
  'batch-split': 'apply::before-split',
  'prepare-merge': 'apply::before-prepare-merge',
  'commit-merge': 'apply::before-commit-merge',
  'rollback-merge': 'apply::before-rollback-merge',
  'compact-log': 'apply::before-compact-log',
  'compute-hash': 'apply::before-compute-hash',
  'verify-hash': 'apply::before-verify-hash',
  'change-peer': 'apply::before-change-peer',
});

/** What an entry turned out to be. */
type Payload =
  | { readonly type: 'noop' }
  | { readonly type: 'command'; readonly command: RaftCommand }
  | { readonly type: 'conf-change'; readonly confChange: ConfChangeV2; readonly command: RaftCommand | undefined };

export class ApplyFsm {
  readonly #ctx: StoreContext;
  readonly regionId: RegionId;
  readonly #peerId: PeerId;
  #region: Region;
  #applyState: ApplyState;
  /** What the engine certainly holds. */
  #durable: ApplyState;
  #isMerging: boolean;
  /** A conf change removed this replica: nothing behind that entry is applied. */
  #isRemoved = false;
  #state: RunState = RUNNING;
  /** Pipelined batches of plain writes, oldest first. */
  readonly #flights: (Flight & { readonly applyState: ApplyState })[] = [];
  #pending: Pending;
  #batchNumber = 0;
  readonly #tasks: BoundedQueue<ApplyTask> = new BoundedQueue(TASKS_WARN);
  #task: ApplyTask | undefined;
  /** Commit position of the newest task of this incarnation. */
  #lastCommitIndex = 0;
  /** Position inside the current apply task. */
  #next = 0;
  #payload: { readonly index: number; readonly payload: Payload } | undefined;
  #proposals: PendingProposal[] = [];
  /** Source of the CommitMerge about to run its second pass; 0 if none. */
  #readySourceId = 0;
  /** The newest consistency check of this region. */
  #hash: HashJob | undefined;
  /** Results of a consistency check whose command is not durable yet. */
  #earlyHash: ExecResult[] = [];

  constructor(ctx: StoreContext, registration: ApplyRegistration) {
    const { region, peerId, applyState, isMerging } = registration;
    assert(findPeer(region, peerId) !== undefined, 'apply FSM for a peer that is not a member', {
      region: region.id,
      peerId,
    });
    assert(applyState.truncatedIndex <= applyState.appliedIndex, 'log is compacted beyond the applied index', {
      region: region.id,
      truncatedIndex: applyState.truncatedIndex,
      appliedIndex: applyState.appliedIndex,
    });
    this.#ctx = ctx;
    this.regionId = region.id;
    this.#peerId = peerId;
    this.#region = region;
    this.#applyState = applyState;
    this.#durable = applyState;
    this.#isMerging = isMerging;
    this.#pending = this.#newPending();
  }

  /** The FSM is dead and may be forgotten; tasks given to it are still answered. */
  get isStopped(): boolean {
    return this.#state.type === 'stopped';
  }

  get peerId(): PeerId {
    return this.#peerId;
  }

  /** Handles one task of the mailbox. Batches are collected until {@link endRound}. */
  handle(task: ApplyTask): void {
    switch (task.type) {
      case 'batch-written':
        this.#onBatchWritten(task.batchNumber);
        break;
      case 'range-page':
        this.#onRangePage(task);
        break;
      case 'hash-computed':
        this.#onHashComputed(task);
        break;
      case 'noop':
        this.#onWake();
        break;
      case 'apply':
      case 'gen-snapshot':
      case 'destroy':
      case 'logs-up-to-date':
        if (this.#state.type === 'stopped') {
          this.#answerDead(task);
        } else {
          if (!this.#tasks.push(task)) {
            this.#ctx.log.warn({ region: this.regionId, waiting: this.#tasks.length }, 'apply is falling behind');
            this.#tasks.forcePush(task);
          }
        }
        break;
      default:
        unreachable(task);
    }
    this.#run();
  }

  /** The store loop has handed over everything of this round: what was collected goes to the engine. */
  endRound(): void {
    if (this.#state.type === 'running' && !this.#isFlushed) {
      this.#submitPlain();
    }
  }

  /**
   * Index that must be applied durably before the engine may be read for `keys` (undefined: for anything): writes to
   * them may have been answered although their batch is still on its way. 0 if the engine may be read now.
   */
  conflictIndex(keys: readonly Uint8Array[] | undefined): number {
    let index = 0;
    for (const { pending, applyState } of this.#flights) {
      if (keys === undefined || pending.writes.touches(keys)) {
        index = applyState.appliedIndex;
      }
    }
    return index;
  }

  // -------------------------------------------------------------------------------------------------- batches

  #newPending(): Pending {
    return {
      batch: this.#ctx.engine.createBatch(),
      writes: new WriteBuffer(this.#ctx.engine, () => this.#flights.map((flight) => flight.pending.writes)),
      outcomes: [],
      results: [],
      cleanTasks: [],
      entries: 0,
      adminBytes: 0,
      keysDeleted: 0,
    };
  }

  /** Nothing executed is waiting for the disk. */
  get #isFlushed(): boolean {
    const { entries, batch, writes, outcomes, results } = this.#pending;
    return entries === 0 && batch.count === 0 && writes.count === 0 && outcomes.length === 0 && results.length === 0;
  }

  /** Hands plain writes over without waiting for them; anything else in the batch makes it one to wait for. */
  #submitPlain(): void {
    const pending = this.#pending;
    if (pending.results.length > 0 || pending.cleanTasks.length > 0 || pending.batch.count > 0) {
      this.#submit(undefined);
      return;
    }
    const applyState = this.#applyState;
    pending.writes.drainTo(pending.batch);
    pending.batch.put(applyStateKey(this.regionId), encodeApplyState(applyState));
    const number = ++this.#batchNumber;
    this.#flights.push({ number, pending, applyState });
    this.#pending = this.#newPending();
    const { router } = this.#ctx;
    this.#ctx.writeLazily(pending.batch, () => {
      router.toApply(this.regionId, { type: 'batch-written', batchNumber: number });
    });
    for (const { proposal, outcome } of pending.outcomes) {
      proposal.complete(outcome);
    }
    if (this.#flights.length >= FLIGHTS_MAX) {
      this.#drain();
    }
  }

  /** Executes nothing more until every pipelined batch is durable. */
  #drain(): void {
    this.#state = { type: 'draining' };
    this.#ctx.flushWrites();
  }

  /** Hands the pending batch to the engine. With `deletion` it is a page of keys and moves no index. */
  #submit(deletion: RangeDeletion | undefined): void {
    assert(this.#state.type !== 'writing', 'two apply batches in flight', { region: this.regionId });
    const pending = this.#pending;
    const applyState = deletion === undefined ? this.#applyState : undefined;
    if (applyState !== undefined) {
      pending.writes.drainTo(pending.batch);
      pending.batch.put(applyStateKey(this.regionId), encodeApplyState(applyState));
      this.#pending = this.#newPending();
    } else {
      // The buffered effects of the entry itself wait for the last page.
      this.#pending = { ...this.#newPending(), writes: pending.writes };
    }
    const number = ++this.#batchNumber;
    this.#state = { type: 'writing', flight: { number, pending, applyState }, deletion };
    const { router } = this.#ctx;
    this.#ctx.write(pending.batch, () => {
      router.toApply(this.regionId, { type: 'batch-written', batchNumber: number });
    });
  }

  #onBatchWritten(batchNumber: number): void {
    const [plain] = this.#flights;
    if (plain !== undefined && plain.number === batchNumber) {
      this.#flights.shift();
      this.#durable = plain.applyState;
      this.#report(this.#earlyHash.splice(0), plain.pending.writes.count, plain.pending.writes.bytes);
      if (this.#state.type === 'draining' && this.#flights.length === 0) {
        this.#state = RUNNING;
      }
      return;
    }
    assert(
      this.#state.type === 'writing' && this.#state.flight.number === batchNumber,
      'unexpected end of an apply batch',
      {
        region: this.regionId,
        batchNumber,
        state: this.#state.type,
      },
    );
    const { flight, deletion } = this.#state;
    this.#state = RUNNING;
    if (deletion !== undefined) {
      this.#askForPage(deletion);
      return;
    }
    const { pending, applyState } = flight;
    assert(applyState !== undefined, 'an apply batch without its state', { region: this.regionId });
    this.#durable = applyState;
    for (const { proposal, outcome } of pending.outcomes) {
      proposal.complete(outcome);
    }
    this.#report(
      [...pending.results, ...this.#earlyHash.splice(0)],
      pending.writes.count + pending.keysDeleted,
      pending.writes.bytes,
    );
    for (const task of pending.cleanTasks) {
      this.#ctx.workers.startCleaning(task);
    }
  }

  #report(results: readonly ExecResult[], keysWritten: number, bytesWritten: number): void {
    this.#ctx.router.toPeer(this.regionId, {
      type: 'applied',
      result: { peerId: this.#peerId, applyState: this.#durable, results, keysWritten, bytesWritten },
    });
  }

  // -------------------------------------------------------------------------------------------------- tasks

  #run(): void {
    while (this.#state.type === 'running') {
      const task = this.#task ?? this.#takeTask();
      if (task === undefined) {
        return;
      }
      if (this.#runTask(task)) {
        this.#task = undefined;
      }
    }
  }

  #takeTask(): ApplyTask | undefined {
    const task = this.#tasks.shift();
    if (task?.type === 'apply') {
      assert(task.commitIndex >= this.#lastCommitIndex, 'commit position goes back', {
        region: this.regionId,
        commitIndex: task.commitIndex,
        before: this.#lastCommitIndex,
      });
      this.#lastCommitIndex = task.commitIndex;
      this.#applyState = withCommit(this.#applyState, task.commitIndex, task.commitTerm);
      this.#proposals.push(...task.proposals);
      this.#next = 0;
    }
    this.#task = task;
    return task;
  }

  /** Runs a task as far as possible; true when it is finished. False with a state that says what it waits for. */
  #runTask(task: ApplyTask): boolean {
    switch (task.type) {
      case 'apply':
        return this.#runEntries(task);
      case 'gen-snapshot':
        return this.#flushed() && this.#generateSnapshot(task);
      case 'destroy':
        return this.#flushed() && this.#destroy(task);
      case 'logs-up-to-date':
        return this.#flushed() && this.#finishSource(task);
      default:
        throw new Error(`task ${task.type} is not queued`);
    }
  }

  /** Whether everything executed is durable; if not, sees to it, and the state says what is waited for. */
  #flushed(): boolean {
    if (!this.#isFlushed) {
      this.#submit(undefined);
      return false;
    }
    if (this.#flights.length > 0) {
      this.#drain();
      return false;
    }
    return true;
  }

  #answerDead(task: ApplyTask): void {
    switch (task.type) {
      case 'apply':
        for (const proposal of task.proposals) {
          proposal.complete({ type: 'region-removed' });
        }
        return;
      case 'gen-snapshot':
        this.#answerSnapshot(task.requestId, undefined);
        return;
      case 'destroy':
        this.#reportDestroyed(task.mergeFromSnapshot);
        return;
      default:
        return;
    }
  }

  #answerSnapshot(requestId: number, snapshot: Snapshot | undefined): void {
    this.#ctx.router.toPeer(this.regionId, { type: 'snapshot-generated', requestId, snapshot });
  }

  /** Freezes everything applied so far for sending. Only a normal region may serve as a source. */
  #generateSnapshot(task: Task<'gen-snapshot'>): boolean {
    if (this.#isMerging || this.#isRemoved) {
      this.#answerSnapshot(task.requestId, undefined);
      return true;
    }
    const { failpoints } = this.#ctx;
    if (isBiased(failpoints, 'bias::fail-snapshot-generation', this.regionId)) {
      this.#answerSnapshot(task.requestId, undefined);
      return true;
    }
    failpoints.hit('snapshot::before-freeze', this.regionId);
    const frozen = freezeRegion(this.#ctx, this.#region, this.#durable);
    failpoints.hit('snapshot::after-freeze', this.regionId);
    this.#answerSnapshot(task.requestId, frozen);
    return true;
  }

  #destroy(task: Task<'destroy'>): boolean {
    this.#stop();
    this.#reportDestroyed(task.mergeFromSnapshot);
    return true;
  }

  #reportDestroyed(mergeFromSnapshot: boolean): void {
    this.#ctx.router.toPeer(this.regionId, { type: 'apply-destroyed', peerId: this.#peerId, mergeFromSnapshot });
  }

  /**
   * This region is a merge source and complete: die, then set the target's flag, then wake it. The order is what lets
   * the target write this region's records without a rival [4.9].
   */
  #finishSource(task: Task<'logs-up-to-date'>): boolean {
    const { catchUp } = task;
    if (!this.#isMerging || catchUp.commit > this.#durable.appliedIndex || catchUp.source.id !== this.regionId) {
      return this.#ctx.abort(
        `region ${this.regionId} is called complete for a merge at ${catchUp.commit} but has applied ${this.#durable.appliedIndex}`,
      );
    }
    this.#stop();
    assert(catchUp.flag.sourceRegionId === 0, 'a catch-up flag is set twice', { region: this.regionId });
    catchUp.flag.sourceRegionId = this.regionId;
    this.#ctx.router.toApply(catchUp.targetRegionId, { type: 'noop' });
    return true;
  }

  #stop(): void {
    assert(this.#isFlushed && this.#flights.length === 0, 'apply FSM stops with unwritten effects', {
      region: this.regionId,
    });
    this.#state = { type: 'stopped' };
    this.#hash?.cancel();
    this.#hash = undefined;
    for (const proposal of this.#proposals.splice(0)) {
      proposal.complete({ type: 'region-removed' });
    }
    for (const task of this.#tasks.drain()) {
      this.#answerDead(task);
    }
  }

  #onWake(): void {
    const state = this.#state;
    if (state.type === 'paused') {
      this.#state = RUNNING;
    } else if (state.type === 'wait-merge-source' && state.flag.sourceRegionId !== 0) {
      this.#readySourceId = state.flag.sourceRegionId;
      this.#state = RUNNING;
    }
  }

  /** Whether a failpoint holds the step back. */
  #isHeld(name: FailpointName): boolean {
    if (this.#ctx.failpoints.hit(name, this.regionId)?.type !== 'pause') {
      return false;
    }
    if (!this.#flushed()) {
      // What stands before the step takes effect; then the point is asked again.
      return true;
    }
    this.#state = { type: 'paused' };
    const { router, clock } = this.#ctx;
    clock.setTimer(PAUSE_RETRY_MS, () => router.toApply(this.regionId, { type: 'noop' }), 'apply-paused');
    return true;
  }

  // -------------------------------------------------------------------------------------------------- entries

  #runEntries(task: Task<'apply'>): boolean {
    while (this.#next < task.entries.length) {
      if (this.#isRemoved) {
        break;
      }
      const { entries, adminBytes, writes } = this.#pending;
      if (entries >= BATCH_ENTRIES_MAX || writes.bytes + adminBytes >= BATCH_BYTES_MAX) {
        this.#submitPlain();
        if (this.#state.type !== 'running') {
          return false;
        }
      }
      const entry = task.entries[this.#next] as Entry;
      if (!this.#execute(entry)) {
        return false;
      }
    }
    if (this.#isRemoved) {
      // The proposals of the entries that are not applied; answered with the batch that holds the removal.
      for (const proposal of this.#proposals.splice(0)) {
        this.#pending.outcomes.push({ proposal, outcome: { type: 'region-removed' } });
      }
    }
    return true;
  }

  /** Executes one entry; false if it has to be tried again later (the state says when). */
  #execute(entry: Entry): boolean {
    if (this.#payload?.index !== entry.index) {
      const { appliedIndex } = this.#applyState;
      if (entry.index !== appliedIndex + 1) {
        this.#ctx.abort(`region ${this.regionId} is to apply entry ${entry.index} but has applied ${appliedIndex}`);
      }
      this.#payload = { index: entry.index, payload: this.#decode(entry) };
    }
    const { payload } = this.#payload;
    switch (payload.type) {
      case 'noop':
        this.#finishEntry(entry, { type: 'write-applied', results: [] });
        return true;
      case 'conf-change':
        return this.#executeConfChange(entry, payload.confChange, payload.command);
      case 'command':
        if (payload.command.type === 'write') {
          return this.#executeWrite(entry, payload.command);
        }
        return this.#executeAdmin(entry, payload.command, payload.command.command);
    }
  }

  /** An entry this program cannot read stops the store: skipping it would make this replica differ from the others. */
  #decode(entry: Entry): Payload {
    try {
      if (entry.type === EntryType.ConfChangeV2) {
        const confChange = decodeConfChangeV2(entry.data);
        const command = confChange.context.length === 0 ? undefined : decodeRaftCommand(confChange.context);
        return { type: 'conf-change', confChange, command };
      }
      assert(entry.type === EntryType.Normal, 'an entry has a type that is never proposed', { type: entry.type });
      return entry.data.length === 0 ? { type: 'noop' } : { type: 'command', command: decodeRaftCommand(entry.data) };
    } catch (cause) {
      return this.#ctx.abort(`entry ${entry.index} of region ${this.regionId} cannot be decoded`, cause);
    }
  }

  #finishEntry(entry: Entry, outcome: EntryOutcome): void {
    this.#applyState = advance(this.#applyState, entry.index, entry.term);
    this.#payload = undefined;
    this.#next++;
    this.#pending.entries++;
    const proposal = this.#takeProposal(entry);
    if (proposal !== undefined) {
      this.#pending.outcomes.push({ proposal, outcome });
    }
  }

  /** The proposal of this entry. Older proposals that were waiting have lost their place in the log. */
  #takeProposal(entry: Entry): PendingProposal | undefined {
    const queue = this.#proposals;
    let taken = 0;
    let found: PendingProposal | undefined;
    while (taken < queue.length && found === undefined) {
      const head = queue[taken] as PendingProposal;
      const isBehind = head.term > entry.term || (head.term === entry.term && head.index > entry.index);
      if (isBehind) {
        break;
      }
      taken++;
      if (head.index === entry.index && head.term === entry.term) {
        found = head;
      } else {
        this.#pending.outcomes.push({ proposal: head, outcome: { type: 'overwritten' } });
      }
    }
    if (taken > 0) {
      queue.splice(0, taken);
    }
    return found;
  }

  // -------------------------------------------------------------------------------------------------- data

  #executeWrite(entry: Entry, command: Extract<RaftCommand, { type: 'write' }>): boolean {
    const error = checkEpochAtApply(command, this.#region) ?? checkOpsInRegion(command.ops, this.#region);
    if (error !== undefined) {
      this.#finishEntry(entry, { type: 'refused', error });
      return true;
    }
    if (this.#isHeld('apply::before-write')) {
      return false;
    }
    const ranges = deletedRanges(command.ops);
    if (ranges.length === 0) {
      this.#finishEntry(entry, { type: 'write-applied', results: executeOps(command.ops, this.#pending.writes) });
      return true;
    }
    // Keys of the ranges leave in batches of their own, before the batch that advances the applied index. Nothing else
    // of the entry may be on disk by then, or a repetition after a crash would compare against its own effects.
    if (!this.#flushed()) {
      return false;
    }
    const results = executeOps(command.ops, this.#pending.writes);
    const [first] = ranges;
    assert(first !== undefined, 'no range to delete');
    this.#askForPage({ ranges, at: 0, from: first.start, results, keysDeleted: 0 });
    return false;
  }

  #askForPage(deletion: RangeDeletion): void {
    const range = deletion.ranges[deletion.at] as KeyRange;
    this.#state = { type: 'wait-range-page', deletion };
    const { engine, router, config, failpoints } = this.#ctx;
    engine
      .scan({
        range: dataRange({ start: deletion.from, end: range.end }),
        limit: isBiased(failpoints, 'bias::small-range-page', this.regionId) ? 1 : config.cleanBatchKeys,
        maxBytes: RANGE_PAGE_BYTES,
        keysOnly: true,
      })
      .then(
        (page) => router.toApply(this.regionId, { type: 'range-page', entries: page.entries, more: page.more }),
        (cause: unknown) => stopOnReadFailure(this.#ctx, `keys of region ${this.regionId}`, cause),
      );
  }

  #onRangePage(task: Task<'range-page'>): void {
    assert(this.#state.type === 'wait-range-page', 'unexpected page of keys', { region: this.regionId });
    const { deletion } = this.#state;
    for (const [key] of task.entries) {
      this.#pending.batch.del(key);
    }
    deletion.keysDeleted += task.entries.length;
    if (task.more) {
      const last = task.entries[task.entries.length - 1];
      assert(last !== undefined, 'an empty page claims to have a successor', { region: this.regionId });
      deletion.from = keyAfter(userKeyOf(last[0]));
      this.#submit(deletion);
      return;
    }
    deletion.at++;
    const next = deletion.ranges[deletion.at];
    if (next !== undefined) {
      deletion.from = next.start;
      this.#submit(deletion);
      return;
    }
    this.#state = RUNNING;
    this.#pending.keysDeleted = deletion.keysDeleted;
    this.#finishEntry(this.#currentEntry(), { type: 'write-applied', results: deletion.results });
  }

  #currentEntry(): Entry {
    assert(this.#task?.type === 'apply', 'no entry is being applied', { region: this.regionId });
    const entry = this.#task.entries[this.#next];
    assert(entry !== undefined, 'no entry is being applied', { region: this.regionId });
    return entry;
  }

  // -------------------------------------------------------------------------------------------------- admin

  #input(entry: Entry): AdminInput {
    return {
      ctx: this.#ctx,
      peerId: this.#peerId,
      region: this.#region,
      applyState: this.#applyState,
      isMerging: this.#isMerging,
      entry,
      isFlushed: this.#isFlushed && this.#flights.length === 0,
      readySourceId: this.#readySourceId,
      batch: this.#pending.batch,
    };
  }

  #executeAdmin(entry: Entry, envelope: RaftCommand, command: AdminCommand): boolean {
    if (this.#readySourceId === 0 && this.#isHeld(ADMIN_FAILPOINTS[command.type])) {
      return false;
    }
    const error = checkEpochAtApply(envelope, this.#region);
    if (error !== undefined) {
      this.#finishEntry(entry, { type: 'refused', error });
      return true;
    }
    switch (command.type) {
      case 'compute-hash':
        return this.#startHash(entry);
      case 'verify-hash':
        this.#verifyHash(command.index, command.hash);
        this.#finishEntry(entry, { type: 'admin-applied', regions: [this.#region] });
        return true;
      case 'change-peer':
        return this.#ctx.abort(`a conf change of region ${this.regionId} came in a normal entry`);
      default:
        return this.#conclude(entry, execAdmin(this.#input(entry), command));
    }
  }

  #executeConfChange(entry: Entry, confChange: ConfChangeV2, envelope: RaftCommand | undefined): boolean {
    if (this.#isHeld('apply::before-change-peer')) {
      return false;
    }
    const command =
      envelope?.type === 'admin' && envelope.command.type === 'change-peer' ? envelope.command : undefined;
    const execution: AdminExecution =
      envelope === undefined || command === undefined
        ? { type: 'refused', error: messageOnly('the conf change carries no command') }
        : this.#checkedConfChange(entry, confChange, envelope, command);
    if (execution.type === 'refused') {
      // The Raft core must hear of it as well: it must not change its configuration.
      this.#pending.results.push({
        type: 'change-peer',
        index: entry.index,
        confChange,
        changes: command?.changes ?? [],
        region: this.#region,
        applied: false,
      });
    }
    return this.#conclude(entry, execution);
  }

  #checkedConfChange(
    entry: Entry,
    confChange: ConfChangeV2,
    envelope: RaftCommand,
    command: Extract<AdminCommand, { type: 'change-peer' }>,
  ): AdminExecution {
    const error = checkEpochAtApply(envelope, this.#region);
    return error === undefined ? execChangePeer(this.#input(entry), command, confChange) : { type: 'refused', error };
  }

  #conclude(entry: Entry, execution: AdminExecution): boolean {
    switch (execution.type) {
      case 'flush-first':
        assert(!this.#flushed(), 'an admin command asks for a flush that is done', { region: this.regionId });
        return false;
      case 'wait-merge-source':
        this.#waitForSource(execution);
        return false;
      case 'refused':
        this.#finishEntry(entry, execution);
        return true;
      case 'applied': {
        this.#readySourceId = 0;
        this.#region = execution.region;
        this.#applyState = execution.applyState;
        this.#isMerging = execution.isMerging;
        this.#pending.adminBytes = this.#pending.batch.bytes;
        this.#pending.cleanTasks.push(...execution.cleanTasks);
        if (execution.result !== undefined) {
          this.#pending.results.push(execution.result);
        }
        if (findPeer(execution.region, this.#peerId) === undefined) {
          this.#isRemoved = true;
        }
        this.#finishEntry(entry, { type: 'admin-applied', regions: execution.regions });
        return true;
      }
    }
  }

  /**
   * CommitMerge, first pass: nothing is written. The source peer on this store completes its log, its apply FSM dies,
   * sets the flag and wakes this one. After a crash the entry runs again with a new flag.
   */
  #waitForSource(execution: Extract<AdminExecution, { type: 'wait-merge-source' }>): void {
    const { source, commit, entries } = execution;
    const flag: CatchUpFlag = { sourceRegionId: 0 };
    this.#state = { type: 'wait-merge-source', sourceId: source.id, flag };
    const sent = this.#ctx.router.toPeer(source.id, {
      type: 'catch-up-logs',
      request: { targetRegionId: this.regionId, source, commit, entries, flag },
    });
    if (!sent) {
      this.#ctx.abort(`source ${source.id} of a merge into region ${this.regionId} has no peer on this store`);
    }
  }

  // -------------------------------------------------------------------------------------------------- consistency

  /** Hashes the region as of exactly this index, from an engine snapshot, while later entries go on. */
  #startHash(entry: Entry): boolean {
    if (!this.#flushed()) {
      return false;
    }
    const { engine, router } = this.#ctx;
    const bytes = engine.getSync(regionStateKey(this.regionId));
    if (bytes === undefined) {
      return this.#ctx.abort(`region ${this.regionId} has no record of its own`);
    }
    this.#hash?.cancel();
    this.#earlyHash = [];
    const job = new HashJob({
      ctx: this.#ctx,
      index: entry.index,
      range: this.#region.range,
      regionState: encodeRegionLocalState(decodeRegionLocalState(bytes)),
      done: (hash) => {
        router.toApply(this.regionId, { type: 'hash-computed', index: entry.index, hash });
      },
    });
    this.#hash = job;
    this.#finishEntry(entry, { type: 'admin-applied', regions: [this.#region] });
    return true;
  }

  #onHashComputed(task: Task<'hash-computed'>): void {
    const job = this.#hash;
    if (job === undefined || job.index !== task.index || this.#state.type === 'stopped') {
      return;
    }
    const results: ExecResult[] = [{ type: 'compute-hash', index: task.index, hash: task.hash }];
    const verdict = job.finish(task.hash);
    if (verdict !== undefined) {
      results.push({ type: 'verify-hash', index: task.index, matched: verdict, isUnclear: job.isUnclear });
    }
    if (this.#durable.appliedIndex < task.index) {
      this.#earlyHash = results;
    } else {
      this.#report(results, 0, 0);
    }
  }

  /** Compares the verdict's hash with the own one for the same index, now or when it is ready; other indexes are ignored. */
  #verifyHash(index: number, expected: Uint8Array): void {
    if (this.#hash === undefined || this.#hash.index !== index) {
      return;
    }
    const matched = this.#hash.expect(expected);
    if (matched !== undefined) {
      this.#pending.results.push({ type: 'verify-hash', index, matched, isUnclear: this.#hash.isUnclear });
    }
  }
}
