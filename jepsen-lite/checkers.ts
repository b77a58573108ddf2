/**
 * Judges a history against what braid promises: point operations linearizable per key, atomic batches inside a region,
 * scans that return every key exactly once and in order, expiry within bounds, counters that count exactly once.
 * Everything here sees only requests and answers, so it judges simulated and real clusters alike.
 */
import { checkTags } from './checker/atomic-batch.ts';
import { checkCounters } from './checker/counter.ts';
import { checkLists } from './checker/list.ts';
import { inRange, type Problem, showNs, showValue } from './checker/problem.ts';
import { checkScan, partsOf } from './checker/scan.ts';
import { checkSets, type SetCounts } from './checker/set.ts';
import { checkTtl } from './checker/ttl.ts';
import { operationsOf, type HistoryEvent, type Operation, type Value } from './history.ts';
import { checkRegister, type RegisterOp } from './linearizability.ts';

export { checkCounter } from './checker/counter.ts';
export type { Problem } from './checker/problem.ts';

export interface CheckReport {
  readonly problems: readonly Problem[];
  readonly keys: number;
  readonly operations: number;
  /** Keys whose search ran out of budget. */
  readonly undecided: readonly string[];
  readonly sets: SetCounts;
}

export interface CheckOptions {
  /** Steps of the search per key. */
  readonly budget?: number;
  /** Groups of keys that are only ever written together, by one atomic batch with one value. */
  readonly tagGroups?: readonly (readonly string[])[];
  /** How far clocks that decide expiry may be off, in nanoseconds. */
  readonly ttlSlackNs?: number;
}

/** All keys that operations name. */
function universe(operations: readonly Operation[]): Set<string> {
  const keys = new Set<string>();
  for (const { request, outcome } of operations) {
    switch (request.f) {
      case 'get':
      case 'put':
      case 'delete':
      case 'cas':
        keys.add(request.key);
        break;
      case 'batch':
        request.pairs.forEach(([key]) => keys.add(key));
        break;
      case 'batch-get':
        request.keys.forEach((key) => keys.add(key));
        break;
      case 'delete-range':
        break;
      case 'scan':
        if (outcome.type === 'ok' && outcome.response.f === 'scan') {
          outcome.response.rows.forEach(([key]) => keys.add(key));
        }
        break;
      // Sets, lists and counters have names of their own and checkers of their own.
      case 'add':
      case 'read-set':
      case 'append':
      case 'read-list':
      case 'increment':
      case 'read-counter':
        break;
    }
  }
  return keys;
}

/** What an operation means for each single key. */
function decompose(
  op: Operation,
  keys: ReadonlySet<string>,
  emit: (
    key: string,
    step: RegisterOp['step'],
    within?: { readonly callNs: number; readonly returnNs: number },
  ) => void,
): void {
  const { request, outcome } = op;
  const isOk = outcome.type === 'ok';
  switch (request.f) {
    case 'get':
      if (isOk && outcome.response.f === 'get') {
        emit(request.key, { type: 'read', value: outcome.response.value });
      }
      return;
    case 'put':
      emit(request.key, { type: 'write', value: request.value });
      return;
    case 'delete':
      emit(request.key, { type: 'write', value: null });
      return;
    case 'cas':
      emit(request.key, {
        type: 'cas',
        expected: request.expected,
        value: request.value,
        outcome:
          isOk && outcome.response.f === 'cas'
            ? { swapped: outcome.response.swapped, actual: outcome.response.actual }
            : undefined,
      });
      return;
    case 'batch':
      for (const [key, value] of request.pairs) {
        emit(key, { type: 'write', value });
      }
      return;
    case 'batch-get':
      if (isOk && outcome.response.f === 'batch-get') {
        const { values } = outcome.response;
        request.keys.forEach((key, n) => emit(key, { type: 'read', value: values[n] ?? null }));
      }
      return;
    case 'delete-range':
      for (const key of keys) {
        if (inRange(key, request.start, request.end)) {
          emit(key, { type: 'write', value: null });
        }
      }
      return;
    case 'scan':
      if (isOk && outcome.response.f === 'scan') {
        const rows = new Map(outcome.response.rows);
        for (const part of partsOf(op, outcome.response)) {
          for (const key of keys) {
            if (inRange(key, part.start, part.end)) {
              emit(key, { type: 'read', value: rows.get(key) ?? null }, part);
            }
          }
        }
      }
      return;
    case 'add':
    case 'read-set':
    case 'append':
    case 'read-list':
    case 'increment':
    case 'read-counter':
      return;
  }
}

/** @throws HistoryFormatError */
export function checkHistory(events: readonly HistoryEvent[], options: CheckOptions = {}): CheckReport {
  const operations = operationsOf(events);
  const problems: Problem[] = [];
  const undecided: string[] = [];
  const keys = universe(operations);
  const ttlKeys = new Set(
    operations.flatMap(({ request }) => (request.f === 'put' && request.ttlSeconds !== undefined ? [request.key] : [])),
  );
  const byKey = new Map<string, RegisterOp[]>();
  for (const op of operations) {
    if (op.outcome.type === 'fail') {
      continue;
    }
    decompose(op, keys, (key, step, within) => {
      if (step.type === 'read' && op.outcome.type !== 'ok') {
        return;
      }
      const list = byKey.get(key) ?? [];
      const { callNs, returnNs } = within ?? op;
      list.push({ i: op.i, callNs, returnNs, at: op.at, step });
      byKey.set(key, list);
    });
    checkScan(op, problems);
  }
  for (const [key, ops] of byKey) {
    if (ttlKeys.has(key)) {
      continue;
    }
    const verdict = checkRegister(ops, null, options.budget);
    if (verdict.type === 'unknown') {
      undecided.push(key);
    } else if (verdict.type === 'violation') {
      problems.push({
        promise: 'linearizable',
        key,
        text: explain(key, verdict.placed, verdict.state, verdict.stuckAt, ops),
      });
    }
  }
  for (const group of options.tagGroups ?? []) {
    checkTags(operations, group, problems);
  }
  for (const key of ttlKeys) {
    checkTtl(operations, key, options.ttlSlackNs ?? 0, problems);
  }
  const sets: SetCounts = { acknowledged: 0, recovered: 0, neverRead: 0 };
  checkSets(operations, problems, sets);
  checkLists(operations, problems);
  checkCounters(operations, problems);
  return { problems, keys: byKey.size, operations: operations.length, undecided, sets };
}

function explain(
  key: string,
  placed: number,
  state: Value,
  stuckAt: readonly RegisterOp[],
  ops: readonly RegisterOp[],
): string {
  const show = (op: RegisterOp): string => {
    const { step } = op;
    const what =
      step.type === 'read'
        ? `read ${String(step.value)}`
        : step.type === 'write'
          ? `write ${String(step.value)}`
          : `cas ${String(step.expected)} to ${String(step.value)} (${step.outcome === undefined ? 'unknown' : `${step.outcome.swapped ? 'swapped' : 'refused'}, was ${String(step.outcome.actual)}`})`;
    return `#${op.i} ${what.replaceAll(/\.{3,}/g, '')}${op.at === undefined ? '' : ` (${op.at})`} [${showNs(op.callNs)}, ${showNs(op.returnNs)} ms]`;
  };
  const first = stuckAt.reduce((low, op) => Math.min(low, op.callNs), Infinity);
  const near = ops
    .filter((op) => op.callNs <= first && (op.returnNs === Infinity || op.returnNs >= first - 3e8))
    .slice(-20);
  return `${key}: ${placed} of ${ops.length} operations fit one order; then the value is ${showValue(state)} and none of these fits:\n  ${stuckAt
    .map(show)
    .join('\n  ')}\nShortly before:\n  ${near.map(show).join('\n  ')}`;
}
