/** What a candidate or pre-candidate does with a message of its own term. */
import { handleAppend, handleHeartbeat, handleSnapshot } from './follower.ts';
import { bcastAppend } from './leader.ts';
import { hexId, roleText } from './log-text.ts';
import type { Raft } from './raft.ts';
import { dropped, OK, type StepResult } from './ready.ts';
import { MsgType, type Message } from './types.ts';

export function stepCandidate(r: Raft, m: Message): StepResult {
  switch (m.type) {
    case MsgType.Prop:
      if (r.infoOn) {
        r.logger.info(`${hexId(r.id)} no leader at term ${r.term}; dropping proposal`);
      }
      return dropped('no-leader');
    case MsgType.ReadIndex:
      return dropped('no-leader');
    case MsgType.App:
      r.becomeFollower(m.term, m.from);
      handleAppend(r, m);
      return OK;
    case MsgType.Heartbeat:
      r.becomeFollower(m.term, m.from);
      handleHeartbeat(r, m);
      return OK;
    case MsgType.Snap:
      r.becomeFollower(m.term, m.from);
      handleSnapshot(r, m);
      return OK;
    case MsgType.VoteResp:
    case MsgType.PreVoteResp:
      // A late answer of the pre-election says nothing about the election.
      if ((m.type === MsgType.PreVoteResp) === (r.role === 'pre-candidate')) {
        countVote(r, m);
      }
      return OK;
    case MsgType.TimeoutNow:
      if (r.debugOn) {
        r.logger.debug(
          `${hexId(r.id)} [term ${r.term} state ${roleText(r.role)}] ignored MsgTimeoutNow from ${hexId(m.from)}`,
        );
      }
      return OK;
    default:
      return OK;
  }
}

function countVote(r: Raft, m: Message): void {
  const result = r.recordVote(m);
  if (result === 'won') {
    if (r.role === 'pre-candidate') {
      r.campaign('election');
      return;
    }
    // D1: without the own vote on disk a crash could forget this term, and the node could win it a second time.
    if (r.hasOwnVote) {
      r.becomeLeader();
      bcastAppend(r);
      return;
    }
  } else if (result === 'lost') {
    r.becomeFollower(r.term, 0);
  }
  r.commitByVote(m);
}
