/**
 * Majority and joint quorums (Raft paper 5.2, 5.4; thesis 4.3). Pure arithmetic over lists of members; how a member
 * maps to an acknowledged index or a ballot is the caller's. No allocation: these run on every acknowledgement.
 */
import { UNLIMITED } from './entry.ts';

/** What a member said in an election. */
export const Ballot = { None: 0, Granted: 1, Rejected: 2 } as const;
export type Ballot = (typeof Ballot)[keyof typeof Ballot];

export type VoteResult = 'pending' | 'lost' | 'won';

/** Smallest number of members that is more than half of `n`. */
export const majorityOf = (n: number): number => Math.floor(n / 2) + 1;

/**
 * The largest value that a majority of `members` has reached; unlimited for an empty list, so that an empty half of a
 * joint quorum never holds the other one back.
 */
export function quorumValue<T>(members: readonly T[], valueOf: (member: T) => number): number {
  const n = members.length;
  if (n === 0) {
    return UNLIMITED;
  }
  if (n === 1) {
    return valueOf(members[0] as T);
  }
  if (n === 3) {
    const a = valueOf(members[0] as T);
    const b = valueOf(members[1] as T);
    const c = valueOf(members[2] as T);
    return a < b ? (b < c ? b : a < c ? c : a) : a < c ? a : b < c ? c : b;
  }
  // A dozen members at most: counting beats sorting and needs no scratch array.
  const needed = majorityOf(n);
  let best = 0;
  for (let i = 0; i < n; i++) {
    const value = valueOf(members[i] as T);
    if (value <= best) {
      continue;
    }
    let reached = 0;
    for (let j = 0; j < n; j++) {
      if (valueOf(members[j] as T) >= value) {
        reached++;
      }
    }
    if (reached >= needed) {
      best = value;
    }
  }
  return best;
}

/** The value reached by a majority of both halves. */
export function jointQuorumValue<T>(
  incoming: readonly T[],
  outgoing: readonly T[],
  valueOf: (member: T) => number,
): number {
  const a = quorumValue(incoming, valueOf);
  return outgoing.length === 0 ? a : Math.min(a, quorumValue(outgoing, valueOf));
}

/** Result of an election in one majority; an empty one is won. */
export function majorityVote<T>(members: readonly T[], ballotOf: (member: T) => Ballot): VoteResult {
  const n = members.length;
  if (n === 0) {
    return 'won';
  }
  let granted = 0;
  let missing = 0;
  for (let i = 0; i < n; i++) {
    const ballot = ballotOf(members[i] as T);
    if (ballot === Ballot.Granted) {
      granted++;
    } else if (ballot === Ballot.None) {
      missing++;
    }
  }
  const needed = majorityOf(n);
  return granted >= needed ? 'won' : granted + missing >= needed ? 'pending' : 'lost';
}

/** Result of an election in a joint quorum: both halves must be won, one lost half loses. */
export function jointVote<T>(
  incoming: readonly T[],
  outgoing: readonly T[],
  ballotOf: (member: T) => Ballot,
): VoteResult {
  const a = majorityVote(incoming, ballotOf);
  const b = majorityVote(outgoing, ballotOf);
  if (a === 'lost' || b === 'lost') {
    return 'lost';
  }
  return a === 'won' && b === 'won' ? 'won' : 'pending';
}
