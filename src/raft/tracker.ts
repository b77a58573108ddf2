/**
 * The members of a group as one node sees them: the configuration it has applied and a progress per member. Lists are
 * sorted by id and replaced as a whole when the configuration changes, so iteration order never depends on history.
 */
import type { InflightLimits } from './inflights.ts';
import type { Progress } from './progress.ts';
import { Ballot, jointQuorumValue, jointVote, type VoteResult } from './quorum.ts';
import type { ConfState } from './types.ts';

/** A configuration (lists sorted ascending) with the progress of exactly its members, sorted by id. */
export interface Membership {
  readonly config: ConfState;
  readonly progress: readonly Progress[];
}

export const EMPTY_CONF_STATE: ConfState = Object.freeze({
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
});

export const EMPTY_MEMBERSHIP: Membership = Object.freeze({ config: EMPTY_CONF_STATE, progress: [] });

const matchOf = (p: Progress): number => p.match;
const readAckOf = (p: Progress): number => p.readAck;
const ballotOf = (p: Progress): Ballot => p.ballot;
const activityOf = (p: Progress): Ballot => (p.recentActive ? Ballot.Granted : Ballot.Rejected);

const NO_PROGRESS: readonly Progress[] = Object.freeze([]) as readonly Progress[];

function pick(progress: readonly Progress[], ids: readonly number[]): readonly Progress[] {
  return ids.length === 0 ? NO_PROGRESS : progress.filter((p) => ids.includes(p.id));
}

export class Tracker {
  readonly limits: InflightLimits;
  config: ConfState = EMPTY_CONF_STATE;
  /** All members, ascending id. */
  progress: readonly Progress[] = NO_PROGRESS;
  #incoming: readonly Progress[] = NO_PROGRESS;
  #outgoing: readonly Progress[] = NO_PROGRESS;

  constructor(limits: InflightLimits) {
    this.limits = limits;
  }

  install(membership: Membership): void {
    this.config = membership.config;
    this.progress = membership.progress;
    this.#incoming = pick(membership.progress, membership.config.voters);
    this.#outgoing = pick(membership.progress, membership.config.votersOutgoing);
  }

  get membership(): Membership {
    return { config: this.config, progress: this.progress };
  }

  get(id: number): Progress | undefined {
    const { progress } = this;
    for (let i = 0; i < progress.length; i++) {
      if ((progress[i] as Progress).id === id) {
        return progress[i];
      }
    }
    return undefined;
  }

  get isJoint(): boolean {
    return this.config.votersOutgoing.length > 0;
  }

  /** Whether `id` votes in either half. */
  isVoter(id: number): boolean {
    return this.config.voters.includes(id) || this.config.votersOutgoing.includes(id);
  }

  /** Whether `id` is the only voter. */
  isOnlyVoter(id: number): boolean {
    const { voters, votersOutgoing } = this.config;
    return (
      voters.length === 1 &&
      voters[0] === id &&
      (votersOutgoing.length === 0 || (votersOutgoing.length === 1 && votersOutgoing[0] === id))
    );
  }

  /** Voters of either half, ascending. */
  voterIds(): number[] {
    const ids: number[] = [];
    for (const p of this.progress) {
      if (this.isVoter(p.id)) {
        ids.push(p.id);
      }
    }
    return ids;
  }

  /** Highest index that a quorum of the configuration has. */
  committed(): number {
    return jointQuorumValue(this.#incoming, this.#outgoing, matchOf);
  }

  /** Highest index that a majority of the incoming half alone has; only for planted defects. */
  committedIncoming(): number {
    return jointQuorumValue(this.#incoming, NO_PROGRESS, matchOf);
  }

  /** Highest read position that a quorum has echoed. */
  confirmedReads(): number {
    return jointQuorumValue(this.#incoming, this.#outgoing, readAckOf);
  }

  voteResult(): VoteResult {
    return jointVote(this.#incoming, this.#outgoing, ballotOf);
  }

  /** The vote of the incoming half alone; only for planted defects. */
  voteResultIncoming(): VoteResult {
    return jointVote(this.#incoming, NO_PROGRESS, ballotOf);
  }

  /** Whether a quorum was heard from since the last check. */
  quorumActive(): boolean {
    return jointVote(this.#incoming, this.#outgoing, activityOf) === 'won';
  }

  countBallots(ballot: Ballot): number {
    let n = 0;
    for (let i = 0; i < this.progress.length; i++) {
      const p = this.progress[i] as Progress;
      if (!p.isLearner && p.ballot === ballot) {
        n++;
      }
    }
    return n;
  }

  clearBallots(): void {
    for (let i = 0; i < this.progress.length; i++) {
      (this.progress[i] as Progress).ballot = Ballot.None;
    }
  }
}
