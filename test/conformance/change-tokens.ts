/** Tokens of membership changes in interaction and confchange files: `v1` add voter, `l2` learner, `r3` remove, `u4` update. */
import { ConfChangeType, type ConfChangeSingle } from '../../src/raft/types.ts';

const LETTERS: Readonly<Record<string, ConfChangeType>> = {
  v: ConfChangeType.AddNode,
  l: ConfChangeType.AddLearnerNode,
  r: ConfChangeType.RemoveNode,
  u: ConfChangeType.UpdateNode,
};

/** The changes, or the text of what is wrong with the input. */
export function parseChangeTokens(input: string): ConfChangeSingle[] | string {
  const trimmed = input.trim();
  const changes: ConfChangeSingle[] = [];
  for (const token of trimmed === '' ? [] : trimmed.split(' ')) {
    if (token.length < 2) {
      return `unknown token ${token}`;
    }
    const type = LETTERS[token[0] as string];
    if (type === undefined) {
      return `unknown input: ${token}`;
    }
    const digits = token.substring(1);
    if (!/^\d+$/.test(digits)) {
      return `strconv.ParseUint: parsing "${digits}": invalid syntax`;
    }
    const nodeId = Number(digits);
    if (!Number.isSafeInteger(nodeId)) {
      return `strconv.ParseUint: parsing "${digits}": value out of range`;
    }
    changes.push({ type, nodeId });
  }
  return changes;
}
