/**
 * Judges a history against what braid promises: point operations linearizable per key, atomic batches inside a region,
 * scans that return every key exactly once and in order, expiry within bounds, counters that count exactly once.
 * Everything here sees only requests and answers, so it judges simulated and real clusters alike.
 */
import { operationsOf, type HistoryEvent, type Operation, type Value } from './history.ts';
import { checkRegister, type RegisterOp } from './linearizability.ts';

export interface Problem {
  /** Stable name of the broken promise. */
  readonly promise: 'linearizable' | 'scan-order' | 'atomic-batch' | 'ttl' | 'history-format';
  readonly key?: string;
  readonly text: string;
}

export interface CheckReport {
  readonly problems: readonly Problem[];
  readonly keys: number;
  readonly operations: number;
  /** Keys whose search ran out of budget. */
  readonly undecided: readonly string[];
}

export interface CheckOptions {
  /** Steps of the search per key. */
  readonly budget?: number;
  /** Groups of keys that are only ever written together, by one atomic batch with one value. */
  readonly tagGroups?: readonly (readonly string[])[];
  /** How far clocks that decide expiry may be off, in nanoseconds. */
  readonly ttlSlackNs?: number;
}

const inRange = (key: string, start: string, end: string): boolean => key >= start && (end === '' || key < end);

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
    }
  }
  return keys;
}

/** What an operation means for each single key. */
function decompose(
  op: Operation,
  keys: ReadonlySet<string>,
  emit: (key: string, step: RegisterOp['step']) => void,
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
        for (const key of keys) {
          if (inRange(key, request.start, outcome.response.coveredTo)) {
            emit(key, { type: 'read', value: rows.get(key) ?? null });
          }
        }
      }
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
    decompose(op, keys, (key, step) => {
      if (step.type === 'read' && op.outcome.type !== 'ok') {
        return;
      }
      const list = byKey.get(key) ?? [];
      list.push({ i: op.i, callNs: op.callNs, returnNs: op.returnNs, at: op.at, step });
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
  return { problems, keys: byKey.size, operations: operations.length, undecided };
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
    return `#${op.i} ${what.replaceAll(/\.{3,}/g, '')}${op.at === undefined ? '' : ` (${op.at})`} [${(op.callNs / 1e6).toFixed(2)}, ${op.returnNs === Infinity ? '…' : (op.returnNs / 1e6).toFixed(2)} ms]`;
  };
  const first = stuckAt.reduce((low, op) => Math.min(low, op.callNs), Infinity);
  const near = ops
    .filter((op) => op.callNs <= first && (op.returnNs === Infinity || op.returnNs >= first - 3e8))
    .slice(-20);
  return `${key}: ${placed} of ${ops.length} operations fit one order; then the value is ${String(state).replace(/\.{3,}$/, '')} and none of these fits:\n  ${stuckAt
    .map(show)
    .join('\n  ')}\nShortly before:\n  ${near.map(show).join('\n  ')}`;
}

function checkScan(op: Operation, problems: Problem[]): void {
  const { request, outcome } = op;
  if (request.f !== 'scan' || outcome.type !== 'ok' || outcome.response.f !== 'scan') {
    return;
  }
  const { rows, coveredTo } = outcome.response;
  const say = (text: string): void => {
    problems.push({ promise: 'scan-order', text: `scan #${op.i} of [${request.start}, ${request.end}): ${text}` });
  };
  if (rows.length > request.limit) {
    say(`${rows.length} rows exceed the limit ${request.limit}`);
  }
  for (const [n, [key]] of rows.entries()) {
    if (!inRange(key, request.start, request.end) || !inRange(key, request.start, coveredTo)) {
      say(`${key} was not asked for`);
    }
    if (n > 0 && (rows[n - 1] as readonly [string, string])[0] >= key) {
      say(`${key} does not come after ${(rows[n - 1] as readonly [string, string])[0]}`);
    }
  }
}

/** Keys that are always written together show one value to whoever reads them together. */
function checkTags(operations: readonly Operation[], group: readonly string[], problems: Problem[]): void {
  for (const { i, request, outcome } of operations) {
    if (outcome.type !== 'ok') {
      continue;
    }
    let values: Value[] | undefined;
    if (request.f === 'batch-get' && request.isAtomic && outcome.response.f === 'batch-get') {
      const { values: got } = outcome.response;
      const found = group.map((key) => request.keys.indexOf(key));
      values = found.every((n) => n >= 0) ? found.map((n) => got[n] ?? null) : undefined;
    } else if (request.f === 'scan' && request.isAtomic && outcome.response.f === 'scan') {
      const { rows, coveredTo } = outcome.response;
      const map = new Map(rows);
      values = group.every((key) => inRange(key, request.start, coveredTo))
        ? group.map((key) => map.get(key) ?? null)
        : undefined;
    }
    if (values !== undefined && new Set(values).size > 1) {
      problems.push({
        promise: 'atomic-batch',
        text: `#${i} saw half of a batch: ${group.map((k, n) => `${k}=${String(values[n])}`).join(' ')}`,
      });
    }
  }
}

/** Expiry is counted in whole seconds by the server: one second of slack on both sides besides the clocks' own. */
const TTL_GRAIN_NS = 2e9;

function checkTtl(operations: readonly Operation[], key: string, slackNs: number, problems: Problem[]): void {
  const writes = operations.filter(
    (op) =>
      (op.request.f === 'put' || op.request.f === 'delete') && op.request.key === key && op.outcome.type !== 'fail',
  );
  for (const read of operations) {
    if (
      read.request.f !== 'get' ||
      read.request.key !== key ||
      read.outcome.type !== 'ok' ||
      read.outcome.response.f !== 'get'
    ) {
      continue;
    }
    const { value } = read.outcome.response;
    const say = (text: string): void => {
      problems.push({ promise: 'ttl', key, text: `get #${read.i} of ${key} gave ${String(value)}: ${text}` });
    };
    if (value !== null) {
      const put = writes.find(({ request }) => request.f === 'put' && request.value === value);
      if (put === undefined || put.callNs > read.returnNs) {
        say('nobody had written that');
      } else if (put.request.f === 'put' && put.request.ttlSeconds !== undefined) {
        const latest = Math.min(put.returnNs, read.callNs) + put.request.ttlSeconds * 1e9 + slackNs + TTL_GRAIN_NS;
        if (put.returnNs !== Infinity && read.callNs > latest) {
          say('it had expired');
        }
      }
    } else {
      // Absent although the newest write was complete, alone, and is not due yet.
      const before = writes.filter((op) => op.callNs <= read.returnNs);
      const last = before.at(-1);
      const isAlone = last !== undefined && before.every((op) => op === last || op.returnNs < last.callNs);
      if (last?.request.f === 'put' && isAlone && last.returnNs < read.callNs) {
        const ttl = last.request.ttlSeconds;
        if (ttl === undefined || read.returnNs < last.callNs + ttl * 1e9 - slackNs - TTL_GRAIN_NS) {
          say(`${last.request.value} was acknowledged and had not expired`);
        }
      }
    }
  }
}

/**
 * Counters: every acknowledged increment counts once, none that failed counts, an unknown one counts at most once.
 * Returns a sentence or undefined.
 */
export function checkCounter(acknowledged: number, unknown: number, final: number): string | undefined {
  return final >= acknowledged && final <= acknowledged + unknown
    ? undefined
    : `the counter says ${final} after ${acknowledged} acknowledged and ${unknown} unknown increments`;
}
