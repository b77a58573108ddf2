/** What a follower does with a message of its own term, and the handlers a candidate shares once it has conceded. */
import { hexId } from './log-text.ts';
import { copyMessage } from './message.ts';
import type { Raft } from './raft.ts';
import { dropped, OK, type StepResult } from './ready.ts';
import { type Entry, MsgType, type Message } from './types.ts';

export function stepFollower(r: Raft, m: Message): StepResult {
  switch (m.type) {
    case MsgType.Prop:
      return forwardProposal(r, m);
    case MsgType.App:
      r.electionElapsed = 0;
      r.lead = m.from;
      handleAppend(r, m);
      return OK;
    case MsgType.Heartbeat:
      r.electionElapsed = 0;
      r.lead = m.from;
      handleHeartbeat(r, m);
      return OK;
    case MsgType.Snap:
      r.electionElapsed = 0;
      r.lead = m.from;
      handleSnapshot(r, m);
      return OK;
    case MsgType.TransferLeader:
      if (r.lead === 0) {
        if (r.infoOn) {
          r.logger.info(`${hexId(r.id)} no leader at term ${r.term}; dropping leader transfer msg`);
        }
        return dropped('no-leader');
      }
      forward(r, m, r.term);
      return OK;
    case MsgType.TimeoutNow:
      if (r.infoOn) {
        r.logger.info(
          `${hexId(r.id)} [term ${r.term}] received MsgTimeoutNow from ${hexId(m.from)} and starts an election to get leadership.`,
        );
      }
      // Never a pre-election: the leader asked for this, there is nothing to probe.
      r.hup('transfer');
      return OK;
    case MsgType.ReadIndex:
      if (r.lead === 0) {
        if (r.infoOn) {
          r.logger.info(`${hexId(r.id)} no leader at term ${r.term}; dropping index reading msg`);
        }
        return dropped('no-leader');
      }
      forward(r, m, 0);
      return OK;
    case MsgType.ReadIndexResp:
      r.addReadState({ index: m.index, requestContext: (m.entries[0] as Entry).data });
      return OK;
    default:
      return OK;
  }
}

function forwardProposal(r: Raft, m: Message): StepResult {
  if (r.lead === 0) {
    if (r.infoOn) {
      r.logger.info(`${hexId(r.id)} no leader at term ${r.term}; dropping proposal`);
    }
    return dropped('no-leader');
  }
  if (r.config.disableProposalForwarding) {
    if (r.infoOn) {
      r.logger.info(`${hexId(r.id)} not forwarding to leader ${hexId(r.lead)} at term ${r.term}; dropping proposal`);
    }
    return dropped('not-leader');
  }
  forward(r, m, 0);
  return OK;
}

/** Sends a request on to the leader; the sender stays, so that an answer finds it. */
function forward(r: Raft, m: Message, term: number): void {
  const copy = copyMessage(m);
  copy.to = r.lead;
  copy.term = term;
  r.send(copy);
}

/** Forgets the leader: this node then grants (pre-)votes although it heard from a leader lately. Term and timer stay. */
export function forgetLeader(r: Raft): void {
  if (r.role !== 'follower') {
    return;
  }
  if (r.config.leaseReads === true) {
    r.logger.error('ignoring MsgForgetLeader due to ReadOnlyLeaseBased');
    return;
  }
  if (r.lead !== 0) {
    if (r.infoOn) {
      r.logger.info(`${hexId(r.id)} forgetting leader ${hexId(r.lead)} at term ${r.term}`);
    }
    r.lead = 0;
  }
}

export function handleAppend(r: Raft, m: Message): void {
  const { log } = r;
  if (m.index < log.committed) {
    r.sendAfterAppend(r.appResp(m.from, log.committed));
    return;
  }
  const last = log.maybeAppend(m.index, m.logTerm, m.entries, m.commit);
  if (last >= 0) {
    // The end of the message, not of the log: what follows may diverge from the leader.
    r.sendAfterAppend(r.appResp(m.from, last));
    return;
  }
  if (r.debugOn) {
    r.logger.debug(
      `${hexId(r.id)} [logterm: ${log.termOrZero(m.index)}, index: ${m.index}] rejected MsgApp ` +
        `[logterm: ${m.logTerm}, index: ${m.index}] from ${hexId(m.from)}`,
    );
  }
  const hint = log.findConflictByTerm(Math.min(m.index, log.lastIndex), m.logTerm);
  const answer = r.appResp(m.from, m.index);
  answer.reject = true;
  answer.rejectHint = hint.index;
  answer.logTerm = hint.term;
  r.sendAfterAppend(answer);
}

export function handleHeartbeat(r: Raft, m: Message): void {
  r.log.commitTo(m.commit);
  const answer = r.message(MsgType.HeartbeatResp, m.from);
  answer.context = m.context;
  if (r.config.reportCommit) {
    answer.reportedCommit = r.log.applied;
  }
  r.send(answer);
}

export function handleSnapshot(r: Raft, m: Message): void {
  const { snapshot } = m;
  if (snapshot === null) {
    return;
  }
  const { index, term } = snapshot.metadata;
  const restored = r.restoreSnapshot(snapshot);
  if (r.infoOn) {
    r.logger.info(
      `${hexId(r.id)} [commit: ${r.log.committed}] ${restored ? 'restored' : 'ignored'} snapshot [index: ${index}, term: ${term}]`,
    );
  }
  // Leaves after the snapshot is durable, like every acknowledgement.
  r.sendAfterAppend(r.appResp(m.from, restored ? r.log.lastIndex : r.log.committed));
}
