/** Interpreter of the quorum files: commit index and vote result of majorities and joint quorums. */
import { UNLIMITED } from '../../src/raft/entry.ts';
import {
  Ballot,
  jointQuorumValue,
  jointVote,
  majorityOf,
  majorityVote,
  quorumValue,
  type VoteResult,
} from '../../src/raft/quorum.ts';
import { type Directive, HarnessError, parseNumber } from './datadriven.ts';

interface Input {
  readonly cfg: readonly number[];
  readonly cfgj: readonly number[];
  readonly isJoint: boolean;
  /** Distinct ids in the order in which values are assigned. */
  readonly ids: readonly number[];
  readonly indexes: readonly number[];
  readonly ballots: readonly Ballot[];
}

function parse(directive: Directive): Input {
  let cfg: number[] = [];
  let cfgj: number[] = [];
  let isJoint = false;
  const indexes: number[] = [];
  const ballots: Ballot[] = [];
  for (const { key, values } of directive.args) {
    switch (key) {
      case 'cfg':
        cfg = values.map(parseNumber);
        break;
      case 'cfgj':
        isJoint = true;
        cfgj = values.length === 1 && values[0] === 'zero' ? [] : values.map(parseNumber);
        break;
      case 'idx':
        for (const value of values) {
          const index = value === '_' ? 0 : parseNumber(value);
          if (index === 0 && value !== '_') {
            throw new HarnessError('0 is not an index here');
          }
          indexes.push(index);
        }
        break;
      case 'votes':
        for (const value of values) {
          const ballot = value === 'y' ? Ballot.Granted : value === 'n' ? Ballot.Rejected : Ballot.None;
          if (ballot === Ballot.None && value !== '_') {
            throw new HarnessError(`unknown vote ${value}`);
          }
          ballots.push(ballot);
        }
        break;
      default:
        throw new HarnessError(`unknown argument ${key}`);
    }
  }
  const ids = [...new Set([...cfg, ...cfgj])];
  return { cfg: [...new Set(cfg)], cfgj: [...new Set(cfgj)], isJoint, ids, indexes, ballots };
}

function mismatch(ids: readonly number[], values: readonly (number | string)[]): string {
  const voters = [...ids].sort((a, b) => a - b).map((id) => `${id}:{}`);
  return `error: mismatched input (explicit or _) for voters map[${voters.join(' ')}]: [${values.join(' ')}]`;
}

export const indexText = (index: number): string => (index >= UNLIMITED ? '∞' : String(index));

/** Bars that show how far every member is, relative to the others. */
function describeMajority(ids: readonly number[], acked: ReadonlyMap<number, number>): string {
  const n = ids.length;
  if (n === 0) {
    return '<empty majority quorum>';
  }
  const members = ids.map((id) => ({ id, index: acked.get(id), bar: 0 }));
  members.sort((a, b) => (a.index ?? 0) - (b.index ?? 0) || a.id - b.id);
  members.forEach((member, i) => {
    const before = members[i - 1];
    if (before !== undefined) {
      member.bar = (before.index ?? 0) < (member.index ?? 0) ? i : before.bar;
    }
  });
  members.sort((a, b) => a.id - b.id);
  let text = `${' '.repeat(n)}    idx\n`;
  for (const { id, index, bar } of members) {
    const field = index === undefined ? `?${' '.repeat(n)}` : `${'x'.repeat(bar)}>${' '.repeat(n - bar)}`;
    text += `${field} ${String(index ?? 0).padStart(5)}    (id=${id.toString(16)})\n`;
  }
  return text;
}

/** The definition taken literally: the largest acknowledged index that a majority has reached. */
function alternativeCommitted(ids: readonly number[], acked: ReadonlyMap<number, number>): number {
  if (ids.length === 0) {
    return UNLIMITED;
  }
  let best = 0;
  for (const candidate of acked.values()) {
    const reached = ids.filter((id) => (acked.get(id) ?? 0) >= candidate).length;
    if (reached >= majorityOf(ids.length) && candidate > best) {
      best = candidate;
    }
  }
  return best;
}

function committed(input: Input): string {
  const { cfg, cfgj, isJoint, ids, indexes } = input;
  if (ids.length !== indexes.length) {
    return mismatch(ids, indexes);
  }
  const acked = new Map<number, number>();
  ids.forEach((id, i) => {
    const index = indexes[i] as number;
    if (index !== 0) {
      acked.set(id, index);
    }
  });
  const of = (map: ReadonlyMap<number, number>) => (id: number) => map.get(id) ?? 0;
  const index = isJoint ? jointQuorumValue(cfg, cfgj, of(acked)) : quorumValue(cfg, of(acked));
  let text = describeMajority(ids, acked);
  const disagree = (other: number, how: string): void => {
    if (other !== index) {
      text += `${indexText(other)} <-- ${how}\n`;
    }
  };
  if (isJoint) {
    disagree(jointQuorumValue(cfgj, cfg, of(acked)), 'via symmetry');
    disagree(
      Math.min(alternativeCommitted(cfg, acked), alternativeCommitted(cfgj, acked)),
      'via alternative computation',
    );
  } else {
    disagree(alternativeCommitted(cfg, acked), 'via alternative computation');
    disagree(jointQuorumValue(cfg, [], of(acked)), 'via zero-joint quorum');
    disagree(jointQuorumValue(cfg, cfg, of(acked)), 'via self-joint quorum');
    for (const id of cfg) {
      const own = acked.get(id);
      if (own !== undefined && own < index) {
        for (const lowered of own > 1 ? [own - 1, 0] : [0]) {
          const changed = new Map(acked);
          changed.set(id, lowered);
          disagree(quorumValue(cfg, of(changed)), `overlaying ${id}->${lowered}`);
        }
      }
    }
  }
  return `${text}${indexText(index)}\n`;
}

const VOTE_NAMES: Readonly<Record<VoteResult, string>> = { pending: 'VotePending', lost: 'VoteLost', won: 'VoteWon' };
/** The numbers the error text of votes shows. */
const BALLOT_NUMBERS: Readonly<Record<Ballot, number>> = {
  [Ballot.None]: 0,
  [Ballot.Rejected]: 1,
  [Ballot.Granted]: 2,
};

function vote(input: Input): string {
  const { cfg, cfgj, isJoint, ids, ballots } = input;
  if (ids.length !== ballots.length) {
    return mismatch(
      ids,
      ballots.map((b) => BALLOT_NUMBERS[b]),
    );
  }
  const ballotOf = (id: number): Ballot => ballots[ids.indexOf(id)] as Ballot;
  if (!isJoint) {
    const result = majorityVote(cfg, ballotOf);
    const zero = jointVote(cfg, [], ballotOf);
    const self = jointVote(cfg, cfg, ballotOf);
    const extra =
      (zero === result ? '' : `${VOTE_NAMES[zero]} <-- via zero-joint quorum\n`) +
      (self === result ? '' : `${VOTE_NAMES[self]} <-- via self-joint quorum\n`);
    return `${extra}${VOTE_NAMES[result]}\n`;
  }
  const result = jointVote(cfg, cfgj, ballotOf);
  const swapped = jointVote(cfgj, cfg, ballotOf);
  return `${swapped === result ? '' : `${VOTE_NAMES[swapped]} <-- via symmetry\n`}${VOTE_NAMES[result]}\n`;
}

export function quorumHandler(): (directive: Directive) => string {
  return (directive) => {
    switch (directive.command) {
      case 'committed':
        return committed(parse(directive));
      case 'vote':
        return vote(parse(directive));
      default:
        throw new HarnessError(`unknown command ${directive.command}`);
    }
  };
}
