/** Why a member of the placement service does not carry out what it was asked. */
import { AppError } from '../../base/app-error.ts';
import type { Member } from './membership.ts';

/** How another member is named in errors and logs. */
export const describeMember = (member: Member): string => `${member.name} at ${member.address}`;

/** This member does not lead, or not certainly; nothing was done. The leader, if it is known, is named. */
export class NotLeaderError extends AppError {
  readonly leader: Member | undefined;

  constructor(leader: Member | undefined, why = 'this member does not lead') {
    super(
      'NotLeader',
      leader === undefined
        ? `not leader: ${why}; no leader is known at the moment`
        : `not leader: ${why}; ${describeMember(leader)} does`,
      {
        retry: 'route',
        outcome: 'not-applied',
        details: leader === undefined ? {} : { leader: leader.address, member: leader.name },
        hint: leader === undefined ? 'ask again, or ask another member' : `ask the leader at ${leader.address}`,
      },
    );
    this.leader = leader;
  }
}

/** The member lost the lead, or stopped, while a change was on its way: a later leader may carry it out or not. */
export class LeadershipLostError extends AppError {
  constructor() {
    super('LeadershipLost', 'the lead was lost before the change was confirmed; it may have been made', {
      retry: 'route',
      outcome: 'unknown',
      hint: 'look at the state of the cluster before sending the change again',
    });
  }
}

/** Too many changes wait for the disk or for other members. */
export class GroupBusyError extends AppError {
  constructor() {
    super('GroupBusy', 'too many changes wait to be written', { retry: 'backoff', hint: 'try again later' });
  }
}
