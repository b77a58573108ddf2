/**
 * Counters that only grow: every acknowledged increment counts exactly once, none that was refused counts, one of
 * unknown outcome counts at most once, and no later read shows less.
 */
import type { Operation } from '../history.ts';
import type { Problem } from './problem.ts';

export function checkCounters(operations: readonly Operation[], problems: Problem[]): void {
  const keys = new Set(
    operations.flatMap(({ request }) =>
      request.f === 'increment' || request.f === 'read-counter' ? [request.key] : [],
    ),
  );
  for (const key of keys) {
    checkOne(operations, key, problems);
  }
}

function checkOne(operations: readonly Operation[], key: string, problems: Problem[]): void {
  const increments = operations.filter(
    ({ request, outcome }) => request.f === 'increment' && request.key === key && outcome.type !== 'fail',
  );
  const byOf = ({ request }: Operation): number => (request.f === 'increment' ? request.by : 0);
  const reads: { readonly op: Operation; readonly count: number }[] = [];
  for (const op of operations) {
    if (
      op.request.f === 'read-counter' &&
      op.request.key === key &&
      op.outcome.type === 'ok' &&
      op.outcome.response.f === 'count'
    ) {
      reads.push({ op, count: op.outcome.response.count });
    }
  }
  for (const { op, count } of reads) {
    let least = 0;
    let most = 0;
    for (const increment of increments) {
      least += increment.outcome.type === 'ok' && increment.returnNs < op.callNs ? byOf(increment) : 0;
      most += increment.callNs <= op.returnNs ? byOf(increment) : 0;
    }
    if (count < least || count > most) {
      problems.push({
        promise: 'counter',
        key,
        text: `${key}: read #${op.i} shows ${count}; acknowledged increments make ${least}, all that may count make ${most}`,
      });
    }
  }
  for (const later of reads) {
    const before = reads.find(({ op, count }) => op.returnNs < later.op.callNs && count > later.count);
    if (before !== undefined) {
      problems.push({
        promise: 'counter',
        key,
        text: `${key}: read #${later.op.i} shows ${later.count} after #${before.op.i} had shown ${before.count}`,
      });
    }
  }
}

/**
 * The bare numbers of one counter: acknowledged increments of one, those of unknown outcome, and the final value.
 * Returns a sentence or undefined.
 */
export function checkCounter(acknowledged: number, unknown: number, final: number): string | undefined {
  return final >= acknowledged && final <= acknowledged + unknown
    ? undefined
    : `the counter says ${final} after ${acknowledged} acknowledged and ${unknown} unknown increments`;
}
