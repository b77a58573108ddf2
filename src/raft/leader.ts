/**
 * What a leader does: proposals, replication, commit, heartbeats, reads, transfer (Raft paper 5.3, 5.4; thesis 3.10,
 * 6.2, 6.4, 10.2.1). Functions over the shared state in raft.ts; none of them looks at terms, which are equal here.
 */
import { EMPTY_BYTES } from '../base/bytes.ts';
import { changeMembership, isLeaveJoint, LEAVE_JOINT, tryDecodeConfChangeV2 } from './conf-change.ts';
import { PENDING_READS_MAX } from './config.ts';
import { EMPTY_ENTRIES, payloadsBytes, UNLIMITED } from './entry.ts';
import { raftPanic } from './errors.ts';
import { configText, confChangeText, hexId, progressText } from './log-text.ts';
import type { Progress } from './progress.ts';
import type { Raft } from './raft.ts';
import { contextToPosition, ReadQueue } from './read-index.ts';
import { type DropReason, dropped, OK, type StepResult } from './ready.ts';
import { COMPACTED, EntryType, MsgType, type ConfChangeV2, type Entry, type Message } from './types.ts';

export function stepLeader(r: Raft, m: Message): StepResult {
  switch (m.type) {
    case MsgType.Prop: {
      const reason = propose(r, m.entries);
      return reason === undefined ? OK : dropped(reason);
    }
    case MsgType.ReadIndex:
      return readIndex(r, m);
    default:
      break;
  }
  const progress = r.tracker.get(m.from);
  if (progress === undefined) {
    if (r.debugOn) {
      r.logger.debug(`${hexId(r.id)} no progress available for ${hexId(m.from)}`);
    }
    return OK;
  }
  switch (m.type) {
    case MsgType.AppResp:
      return handleAppResp(r, progress, m);
    case MsgType.HeartbeatResp:
      return handleHeartbeatResp(r, progress, m);
    case MsgType.TransferLeader:
      startTransfer(r, progress);
      return OK;
    default:
      return OK;
  }
}

// ------------------------------------------------------------------------------------------------ proposals

/** Why this membership change may not be proposed now, or undefined. */
export function confChangeRefusal(r: Raft, cc: ConfChangeV2 | undefined): string | undefined {
  if (cc === undefined) {
    return 'the change cannot be decoded';
  }
  if (r.config.disableConfChangeValidation) {
    return undefined;
  }
  const { applied } = r.log;
  if (r.pendingConfIndex > applied) {
    return `possible unapplied conf change at index ${r.pendingConfIndex} (applied to ${applied})`;
  }
  const leaves = cc.changes.length === 0;
  if (r.tracker.isJoint && !leaves) {
    return 'must transition out of joint config first';
  }
  if (!r.tracker.isJoint && leaves) {
    return 'not in joint state; refusing empty conf change';
  }
  // Nothing is pending, so the change will meet exactly this configuration. An error then would stop every replica.
  const base = { membership: r.tracker.membership, lastIndex: r.log.lastIndex, limits: r.tracker.limits };
  const result = changeMembership(base, isLeaveJoint(cc) ? LEAVE_JOINT : cc);
  return result.type === 'error' ? result.message : undefined;
}

/** Why proposals are not taken at all, or undefined. */
export function proposalRefusal(r: Raft): DropReason | undefined {
  if (r.tracker.get(r.id) === undefined) {
    return 'removed';
  }
  if (r.leadTransferee !== 0) {
    if (r.debugOn) {
      r.logger.debug(
        `${hexId(r.id)} [term ${r.term}] transfer leadership to ${hexId(r.leadTransferee)} is in progress; dropping proposal`,
      );
    }
    return 'transferring';
  }
  return undefined;
}

/** Appends all proposed entries or none. A refused membership change becomes an empty entry. */
export function propose(r: Raft, proposed: readonly Entry[]): DropReason | undefined {
  if (proposed.length === 0) {
    raftPanic(`${hexId(r.id)} stepped empty MsgProp`);
  }
  const refusal = proposalRefusal(r);
  if (refusal !== undefined) {
    return refusal;
  }
  const { lastIndex } = r.log;
  let entries = proposed;
  let pendingConfIndex = r.pendingConfIndex;
  for (let i = 0; i < proposed.length; i++) {
    const entry = proposed[i] as Entry;
    if (entry.type === EntryType.Normal) {
      continue;
    }
    const cc = tryDecodeConfChangeV2(entry.data);
    // A second change of the same proposal is behind the first: not applied either.
    const reason =
      pendingConfIndex > lastIndex && !r.config.disableConfChangeValidation
        ? `possible unapplied conf change at index ${pendingConfIndex} (applied to ${r.log.applied})`
        : confChangeRefusal(r, cc);
    if (reason === undefined) {
      pendingConfIndex = lastIndex + i + 1;
      continue;
    }
    if (r.infoOn) {
      const text = cc === undefined ? '?' : confChangeText(cc);
      r.logger.info(`${hexId(r.id)} ignoring conf change ${text} at config ${configText(r.tracker.config)}: ${reason}`);
    }
    if (entries === proposed) {
      entries = proposed.slice();
    }
    (entries as Entry[])[i] = { type: EntryType.Normal, term: 0, index: 0, data: EMPTY_BYTES };
  }
  if (!appendAsLeader(r, entries)) {
    return 'uncommitted-limit';
  }
  if (!r.planted('proposal-forgets-pending-conf-index')) {
    r.pendingConfIndex = pendingConfIndex;
  }
  bcastAppend(r);
  return undefined;
}

/** Gives the entries term and index and appends them; false if the limit of uncommitted payload forbids it. */
export function appendAsLeader(r: Raft, proposed: readonly Entry[]): boolean {
  const bytes = payloadsBytes(proposed);
  if (r.uncommittedBytes > 0 && bytes > 0 && r.uncommittedBytes + bytes > r.maxUncommittedBytes) {
    r.logger.warn(
      `${hexId(r.id)} appending new entries to log would exceed uncommitted entry size limit; dropping proposal`,
    );
    return false;
  }
  r.uncommittedBytes += bytes;
  const first = r.log.lastIndex + 1;
  const entries: Entry[] = [];
  for (let i = 0; i < proposed.length; i++) {
    const { type, data } = proposed[i] as Entry;
    entries.push({ type, term: r.term, index: first + i, data });
  }
  r.log.append(entries);
  // The own acknowledgement counts when the entries are durable.
  r.sendAfterAppend(r.appResp(r.id, r.log.lastIndex));
  return true;
}

/** Leaves a joint configuration that was entered implicitly. */
export function proposeAutoLeave(r: Raft): void {
  const reason = propose(r, [{ type: EntryType.ConfChangeV2, term: 0, index: 0, data: EMPTY_BYTES }]);
  if (reason !== undefined) {
    if (r.debugOn) {
      r.logger.debug(
        `not initiating automatic transition out of joint configuration ${configText(r.tracker.config)}: raft proposal dropped`,
      );
    }
  } else if (r.infoOn) {
    r.logger.info(`initiating automatic transition out of joint configuration ${configText(r.tracker.config)}`);
  }
}

// ------------------------------------------------------------------------------------------------ replication

/** Sends what the member lacks; returns whether a message was sent, so that callers can fill the window. */
export function maybeSendAppend(r: Raft, progress: Progress, sendIfEmpty: boolean): boolean {
  if (progress.paused) {
    return false;
  }
  const { log } = r;
  const previous = progress.next - 1;
  const previousTerm = log.term(previous);
  if (previousTerm < 0) {
    return maybeSendSnapshot(r, progress);
  }
  let entries: readonly Entry[] = EMPTY_ENTRIES;
  if (progress.state !== 'replicate' || !progress.inflightFull) {
    const maxSize = r.planted('message-size-ignored') ? UNLIMITED : r.config.maxSizePerMsg;
    const found = log.entriesFrom(progress.next, maxSize);
    if (typeof found === 'number') {
      return found === COMPACTED ? maybeSendSnapshot(r, progress) : false;
    }
    entries = found;
  } else if (r.planted('no-empty-append-on-full-window')) {
    return false;
  }
  // With a full window an empty append still goes out: if the whole window was lost, its answer reveals that.
  if (entries.length === 0 && !sendIfEmpty) {
    return false;
  }
  const m = r.message(MsgType.App, progress.id);
  m.index = previous;
  m.logTerm = previousTerm;
  m.entries = entries;
  m.commit = log.committed;
  r.send(m);
  progress.sentEntries(entries.length, payloadsBytes(entries));
  progress.sentCommit = log.committed;
  return true;
}

function maybeSendSnapshot(r: Raft, progress: Progress): boolean {
  if (!progress.recentActive && !r.planted('snapshot-to-inactive')) {
    if (r.debugOn) {
      r.logger.debug(`ignore sending snapshot to ${hexId(progress.id)} since it is not recently active`);
    }
    return false;
  }
  const snapshot = r.log.snapshot(progress.id);
  if (snapshot === null) {
    if (r.debugOn) {
      r.logger.debug(
        `${hexId(r.id)} failed to send snapshot to ${hexId(progress.id)} because snapshot is temporarily unavailable`,
      );
    }
    return false;
  }
  const { index, term } = snapshot.metadata;
  if (index === 0) {
    raftPanic('need non-empty snapshot', { id: r.id, to: progress.id });
  }
  if (r.debugOn) {
    r.logger.debug(
      `${hexId(r.id)} [firstindex: ${r.log.firstIndex}, commit: ${r.log.committed}] sent ` +
        `snapshot[index: ${index}, term: ${term}] to ${hexId(progress.id)} [${progressText(progress)}]`,
    );
  }
  progress.becomeSnapshot(index);
  if (r.debugOn) {
    r.logger.debug(
      `${hexId(r.id)} paused sending replication messages to ${hexId(progress.id)} [${progressText(progress)}]`,
    );
  }
  const m = r.message(MsgType.Snap, progress.id);
  m.snapshot = snapshot;
  r.send(m);
  return true;
}

/** An append to every other member, empty where nothing is missing. */
export function bcastAppend(r: Raft): void {
  const { progress } = r.tracker;
  for (let i = 0; i < progress.length; i++) {
    const p = progress[i] as Progress;
    if (p.id !== r.id) {
      maybeSendAppend(r, p, true);
    }
  }
}

/** Commits what a quorum has, if it is of this term (paper 5.4.2). */
function maybeCommit(r: Raft): boolean {
  const index = r.planted('joint-commit-incoming-only') ? r.tracker.committedIncoming() : r.tracker.committed();
  // Entries of earlier terms commit only together with one of this term: every entry from termStart on is one.
  if (index <= r.log.committed || (index < r.termStart && !r.planted('commit-old-term-by-counting'))) {
    return false;
  }
  r.log.commitTo(index);
  return true;
}

function commitAdvanced(r: Raft): void {
  releaseParkedReads(r);
  const skips = r.config.skipBcastCommit && r.pendingConfIndex <= r.log.applied;
  if (!skips) {
    bcastAppend(r);
  }
}

function handleAppResp(r: Raft, progress: Progress, m: Message): StepResult {
  const { lastIndex } = r.log;
  if (m.index > lastIndex || m.reportedCommit > lastIndex) {
    return {
      type: 'malformed',
      reason: `member ${m.from} answers for index ${m.index} and commit ${m.reportedCommit}, the log ends at ${lastIndex}`,
    };
  }
  progress.recentActive = true;
  progress.reportedCommit = Math.max(progress.reportedCommit, m.reportedCommit);
  if (m.reject) {
    handleRejection(r, progress, m);
    return OK;
  }
  const isNews = progress.maybeUpdate(m.index) || (progress.match === m.index && progress.state === 'probe');
  if (!isNews) {
    return OK;
  }
  if (progress.state === 'probe') {
    progress.becomeReplicate();
  } else if (progress.state === 'replicate') {
    progress.freeInflights(m.index);
  } else if (progress.match + 1 >= r.log.firstIndex) {
    // The log reaches the member again, by whatever snapshot it got there.
    if (r.debugOn) {
      r.logger.debug(
        `${hexId(r.id)} recovered from needing snapshot, resumed sending replication messages to ${hexId(m.from)} [${progressText(progress)}]`,
      );
    }
    progress.becomeProbe();
    progress.becomeReplicate();
  }
  const isOwn = m.from === r.id;
  if (maybeCommit(r)) {
    commitAdvanced(r);
  } else if (!isOwn && !r.config.skipBcastCommit && progress.canBumpCommit(r.log.committed)) {
    maybeSendAppend(r, progress, true);
  }
  if (!isOwn) {
    // The acknowledgement may have made room for several messages.
    while (maybeSendAppend(r, progress, false)) {
      // Each turn moves `next` or pauses the member.
    }
  }
  if (m.from === r.leadTransferee && progress.match === r.log.lastIndex) {
    if (r.infoOn) {
      r.logger.info(`${hexId(r.id)} sent MsgTimeoutNow to ${hexId(m.from)} after received MsgAppResp`);
    }
    r.send(r.message(MsgType.TimeoutNow, m.from));
  }
  return OK;
}

function handleRejection(r: Raft, progress: Progress, m: Message): void {
  if (r.debugOn) {
    r.logger.debug(
      `${hexId(r.id)} received MsgAppResp(rejected, hint: (index ${m.rejectHint}, term ${m.logTerm})) from ` +
        `${hexId(m.from)} for index ${m.index}`,
    );
  }
  let probe = m.rejectHint;
  if (m.logTerm > 0) {
    // Everything of larger terms than the member's cannot match: skip it (the member skipped on its side already).
    probe = r.log.findConflictByTerm(Math.min(m.rejectHint, r.log.lastIndex), m.logTerm).index;
  }
  const sentCommit = progress.sentCommit;
  if (r.planted('probe-accepts-stale-rejection') && progress.state !== 'replicate' && m.index !== progress.next - 1) {
    progress.next = Math.max(Math.min(m.index, probe + 1), 1);
    progress.flowPaused = false;
  } else if (!progress.maybeDecrTo(m.index, probe)) {
    return;
  }
  if (r.debugOn) {
    r.logger.debug(`${hexId(r.id)} decreased progress of ${hexId(m.from)} to [${progressText(progress)}]`);
  }
  if (progress.state === 'replicate') {
    progress.becomeProbe();
  }
  if (r.planted('sent-commit-not-regressed')) {
    progress.sentCommit = sentCommit;
  }
  maybeSendAppend(r, progress, true);
}

/** A message to this member was probably lost. */
export function reportUnreachable(r: Raft, id: number): void {
  const progress = r.role === 'leader' ? r.tracker.get(id) : undefined;
  if (progress === undefined) {
    return;
  }
  if (progress.state === 'replicate') {
    progress.becomeProbe();
  }
  if (r.debugOn) {
    r.logger.debug(
      `${hexId(r.id)} failed to send message to ${hexId(id)} because it is unreachable [${progressText(progress)}]`,
    );
  }
}

/** The fate of a snapshot that this leader asked to be sent. */
export function reportSnapshot(r: Raft, id: number, ok: boolean): void {
  const progress = r.role === 'leader' ? r.tracker.get(id) : undefined;
  if (progress === undefined || progress.state !== 'snapshot' || r.planted('snapshot-status-ignored')) {
    return;
  }
  if (!ok && !r.planted('snapshot-failure-probes-behind-it')) {
    // Before the change of state: probing must start behind what is known, not behind a snapshot that never arrived.
    progress.pendingSnapshot = 0;
  }
  progress.becomeProbe();
  if (r.debugOn) {
    r.logger.debug(
      `${hexId(r.id)} snapshot ${ok ? 'succeeded' : 'failed'}, resumed sending replication messages to ${hexId(id)} [${progressText(progress)}]`,
    );
  }
  // Wait for the member's own acknowledgement, or for the next heartbeat before the next try.
  progress.flowPaused = true;
}

// ------------------------------------------------------------------------------------------------ heartbeats

/** A heartbeat to every other member; repeats the newest read position while reads wait. */
export function bcastHeartbeat(r: Raft): void {
  const context = r.reads === null ? EMPTY_BYTES : r.reads.heartbeatContext();
  const { progress } = r.tracker;
  for (let i = 0; i < progress.length; i++) {
    const p = progress[i] as Progress;
    if (p.id === r.id) {
      continue;
    }
    // Never beyond what is known to match: the member's log may diverge there.
    const commit = r.planted('heartbeat-commit-uncapped') ? r.log.committed : Math.min(p.match, r.log.committed);
    const m = r.message(MsgType.Heartbeat, p.id);
    m.commit = commit;
    m.context = context;
    r.send(m);
    if (!r.planted('heartbeat-forgets-sent-commit')) {
      p.sentCommit = commit;
    }
  }
}

function handleHeartbeatResp(r: Raft, progress: Progress, m: Message): StepResult {
  const { lastIndex } = r.log;
  if (m.reportedCommit > lastIndex) {
    return {
      type: 'malformed',
      reason: `member ${m.from} reports commit ${m.reportedCommit}, the log ends at ${lastIndex}`,
    };
  }
  progress.recentActive = true;
  progress.reportedCommit = Math.max(progress.reportedCommit, m.reportedCommit);
  progress.flowPaused = false;
  if (progress.match < lastIndex || progress.state === 'probe') {
    maybeSendAppend(r, progress, true);
  }
  if (m.context.length > 0 && r.reads !== null) {
    acknowledgeRead(r, progress, m.context);
  }
  return OK;
}

/** Steps down if no quorum answered since the last check. */
export function checkQuorum(r: Raft): void {
  if (!r.tracker.quorumActive()) {
    r.logger.warn(`${hexId(r.id)} stepped down to follower since quorum is not active`);
    r.becomeFollower(r.term, 0);
  }
  const { progress } = r.tracker;
  for (let i = 0; i < progress.length; i++) {
    const p = progress[i] as Progress;
    if (p.id !== r.id) {
      p.recentActive = false;
    }
  }
}

// ------------------------------------------------------------------------------------------------ reads

function readIndex(r: Raft, m: Message): StepResult {
  if (r.log.committed < r.termStart && !r.planted('read-before-own-term-commit')) {
    // D2, also for a single voter: the commit index may lie behind writes that were acknowledged in an earlier term.
    if (r.parkedReads !== null && r.parkedReads.length >= PENDING_READS_MAX) {
      return dropped('too-many-reads');
    }
    r.parkedReads ??= [];
    r.parkedReads.push(m);
    return OK;
  }
  if (r.config.leaseReads === true) {
    answerRead(r, m, r.log.committed);
    return OK;
  }
  if (r.reads !== null && r.reads.length >= PENDING_READS_MAX) {
    return dropped('too-many-reads');
  }
  queueRead(r, m);
  askForReads(r);
  return OK;
}

function queueRead(r: Raft, m: Message): void {
  r.reads ??= new ReadQueue();
  const position = r.reads.add(m, r.log.committed);
  const own = r.tracker.get(r.id);
  if (own !== undefined) {
    own.readAck = position;
  }
}

/** Confirms what is confirmed already (a single voter) and asks the others for the rest. */
function askForReads(r: Raft): void {
  confirmReads(r);
  if (r.reads !== null && r.reads.length > 0) {
    if (r.planted('read-keyed-by-context')) {
      bcastHeartbeatWithUserContext(r);
    } else {
      bcastHeartbeat(r);
    }
  }
}

function bcastHeartbeatWithUserContext(r: Raft): void {
  const context = r.reads?.newestContext() ?? EMPTY_BYTES;
  for (const p of r.tracker.progress) {
    if (p.id !== r.id) {
      const m = r.message(MsgType.Heartbeat, p.id);
      m.commit = Math.min(p.match, r.log.committed);
      m.context = context;
      r.send(m);
    }
  }
}

function acknowledgeRead(r: Raft, progress: Progress, context: Uint8Array): void {
  const { reads } = r;
  if (reads === null) {
    return;
  }
  const position = r.planted('read-keyed-by-context')
    ? (reads.byContext(context)?.position ?? 0)
    : contextToPosition(context);
  if (position > reads.lastPosition || position <= progress.readAck) {
    return;
  }
  progress.readAck = position;
  confirmReads(r);
}

/** Answers every read whose position a quorum has echoed. */
function confirmReads(r: Raft): void {
  const { reads } = r;
  if (reads === null || reads.length === 0) {
    return;
  }
  const confirmed = r.planted('read-without-quorum') ? reads.lastPosition : r.tracker.confirmedReads();
  if (!reads.isWaiting(confirmed)) {
    return;
  }
  for (const { request, index } of reads.confirm(confirmed)) {
    answerRead(r, request, index);
  }
}

function answerRead(r: Raft, request: Message, index: number): void {
  if (request.from === 0 || request.from === r.id) {
    r.addReadState({ index, requestContext: (request.entries[0] as Entry).data });
    return;
  }
  const m = r.message(MsgType.ReadIndexResp, request.from);
  m.index = index;
  m.entries = request.entries;
  r.send(m);
}

/** The first entry of this term is committed: reads that waited for it go on. */
function releaseParkedReads(r: Raft): void {
  const parked = r.parkedReads;
  if (parked === null || r.log.committed < r.termStart) {
    return;
  }
  r.parkedReads = null;
  if (r.config.leaseReads === true) {
    for (const m of parked) {
      answerRead(r, m, r.log.committed);
    }
    return;
  }
  for (const m of parked) {
    queueRead(r, m);
  }
  askForReads(r);
}

// ------------------------------------------------------------------------------------------------ transfer, membership

export function startTransfer(r: Raft, target: Progress): void {
  if (target.isLearner) {
    if (r.debugOn) {
      r.logger.debug(`${hexId(r.id)} is learner. Ignored transferring leadership`);
    }
    return;
  }
  const to = hexId(target.id);
  const before = r.leadTransferee;
  if (before !== 0) {
    if (before === target.id) {
      if (r.infoOn) {
        r.logger.info(
          `${hexId(r.id)} [term ${r.term}] transfer leadership to ${to} is in progress, ignores request to same node ${to}`,
        );
      }
      return;
    }
    r.leadTransferee = 0;
    if (r.infoOn) {
      r.logger.info(`${hexId(r.id)} [term ${r.term}] abort previous transferring leadership to ${hexId(before)}`);
    }
  }
  if (target.id === r.id) {
    if (r.debugOn) {
      r.logger.debug(`${hexId(r.id)} is already leader. Ignored transferring leadership to self`);
    }
    return;
  }
  if (r.infoOn) {
    r.logger.info(`${hexId(r.id)} [term ${r.term}] starts to transfer leadership to ${to}`);
  }
  // The target gets one election timeout.
  if (!r.planted('transfer-keeps-election-timer')) {
    r.electionElapsed = 0;
  }
  r.leadTransferee = target.id;
  if (target.match === r.log.lastIndex) {
    r.send(r.message(MsgType.TimeoutNow, target.id));
    if (r.infoOn) {
      r.logger.info(`${hexId(r.id)} sends MsgTimeoutNow to ${to} immediately as ${to} already has up-to-date log`);
    }
  } else {
    maybeSendAppend(r, target, true);
  }
}

/** A leader that still is a voter has a new configuration: quorums may be smaller, members new. */
export function afterConfigChange(r: Raft): void {
  if (maybeCommit(r)) {
    releaseParkedReads(r);
    bcastAppend(r);
  } else {
    for (const p of r.tracker.progress) {
      if (p.id !== r.id) {
        maybeSendAppend(r, p, false);
      }
    }
  }
  if (!r.planted('reads-stuck-after-shrink')) {
    // D3: a smaller quorum may have confirmed reads already, and no further answer may be on its way.
    confirmReads(r);
  }
  if (r.leadTransferee !== 0 && !r.tracker.isVoter(r.leadTransferee)) {
    r.leadTransferee = 0;
  }
}
