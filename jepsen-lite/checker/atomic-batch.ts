/** Keys that are always written together show one value to whoever reads them at one moment. */
import type { Operation, Value } from '../history.ts';
import { inRange, type Problem, showValue } from './problem.ts';
import { partsOf } from './scan.ts';

export function checkTags(operations: readonly Operation[], group: readonly string[], problems: Problem[]): void {
  for (const op of operations) {
    const values = seenAtOnce(op, group);
    if (values !== undefined && new Set(values).size > 1) {
      problems.push({
        promise: 'atomic-batch',
        text: `#${op.i} saw half of a batch: ${group.map((k, n) => `${k}=${showValue(values[n] ?? null)}`).join(' ')}`,
      });
    }
  }
}

/** The group's values if one moment's answer holds them all. */
function seenAtOnce(op: Operation, group: readonly string[]): Value[] | undefined {
  const { request, outcome } = op;
  if (outcome.type !== 'ok') {
    return undefined;
  }
  if (request.f === 'batch-get' && request.isAtomic && outcome.response.f === 'batch-get') {
    const { values } = outcome.response;
    const found = group.map((key) => request.keys.indexOf(key));
    return found.every((n) => n >= 0) ? found.map((n) => values[n] ?? null) : undefined;
  }
  if (request.f !== 'scan' || outcome.response.f !== 'scan') {
    return undefined;
  }
  const { rows, parts } = outcome.response;
  if (!request.isAtomic && parts === undefined) {
    return undefined;
  }
  const rowsByKey = new Map(rows);
  const holdsAll = partsOf(op, outcome.response).some(({ start, end }) =>
    group.every((key) => inRange(key, start, end)),
  );
  return holdsAll ? group.map((key) => rowsByKey.get(key) ?? null) : undefined;
}
