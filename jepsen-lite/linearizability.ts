/**
 * Whether the operations on one register can be put into one order that respects real time. The search is Wing and
 * Gong's with Lowe's memory of visited (set of placed operations, state) pairs: take any operation whose call precedes
 * the first return still in the list, apply it, and go back one choice when a return is reached that nothing explains.
 */
import type { Value } from './history.ts';

/** One operation on a register. `returnNs` is Infinity if nobody knows whether it happened. */
export interface RegisterOp {
  /** Identifies the operation in reports. */
  readonly i: number;
  readonly callNs: number;
  readonly returnNs: number;
  /** Who answered, for reports. */
  readonly at?: string | undefined;
  readonly step:
    | { readonly type: 'read'; readonly value: Value }
    | { readonly type: 'write'; readonly value: Value }
    /** `outcome` is undefined if unknown. */
    | {
        readonly type: 'cas';
        readonly expected: Value;
        readonly value: Value;
        readonly outcome: { readonly swapped: boolean; readonly actual: Value } | undefined;
      };
}

export type Verdict =
  | { readonly type: 'linearizable' }
  /** `stuckAt`: the operations that could not be placed behind the longest explained prefix. */
  | {
      readonly type: 'violation';
      readonly placed: number;
      readonly stuckAt: readonly RegisterOp[];
      readonly state: Value;
    }
  /** The search gave up at its budget. */
  | { readonly type: 'unknown' };

/** The state after `step`, or undefined if it cannot have happened in `state`. */
function apply(state: Value, step: RegisterOp['step']): { readonly state: Value } | undefined {
  switch (step.type) {
    case 'read':
      return step.value === state ? { state } : undefined;
    case 'write':
      return { state: step.value };
    case 'cas': {
      const { outcome } = step;
      const swaps = state === step.expected;
      if (outcome !== undefined && (outcome.swapped !== swaps || outcome.actual !== state)) {
        return undefined;
      }
      return { state: swaps ? step.value : state };
    }
  }
}

/** Values that somebody saw, with the earliest time by which each was seen. */
function observations(ops: readonly RegisterOp[]): Map<string, number> {
  const seen = new Map<string, number>();
  for (const { step, returnNs } of ops) {
    const value = step.type === 'read' ? step.value : step.type === 'cas' ? (step.outcome?.actual ?? null) : null;
    if (value !== null && returnNs < (seen.get(value) ?? Infinity)) {
      seen.set(value, returnNs);
    }
  }
  return seen;
}

/**
 * Unknown writes of values that are written only once: never seen means that leaving it out changes nothing for
 * anybody (failed conditions report what they saw); seen means that it happened before the first observer returned.
 */
function narrowUnknown(ops: readonly RegisterOp[]): RegisterOp[] {
  const writers = new Map<string, number>();
  for (const { step } of ops) {
    if (step.type !== 'read' && step.value !== null) {
      writers.set(step.value, (writers.get(step.value) ?? 0) + 1);
    }
  }
  const seen = observations(ops);
  // A conditional write of unknown outcome may have met what it expected without telling anybody.
  const perhapsMet = new Set(
    ops.flatMap(({ step }) => (step.type === 'cas' && step.outcome === undefined ? [step.expected] : [])),
  );
  const out: RegisterOp[] = [];
  for (const op of ops) {
    const { step } = op;
    if (op.returnNs !== Infinity || step.type === 'read' || step.value === null || writers.get(step.value) !== 1) {
      out.push(op);
      continue;
    }
    const seenNs = seen.get(step.value);
    if (seenNs !== undefined) {
      out.push({ ...op, returnNs: Math.max(op.callNs, seenNs) });
    } else if (perhapsMet.has(step.value)) {
      out.push(op);
    }
  }
  return out;
}

interface Node {
  readonly op: number;
  readonly isCall: boolean;
  prev: Node | undefined;
  next: Node | undefined;
  /** Return node of a call node; undefined if it never returns. */
  match: Node | undefined;
}

const DEFAULT_BUDGET = 2_000_000;

/**
 * @param initial state before the first operation
 * @param budget most steps of the search
 */
export function checkRegister(
  history: readonly RegisterOp[],
  initial: Value = null,
  budget: number = DEFAULT_BUDGET,
): Verdict {
  const ops = narrowUnknown(history);
  const marks: { readonly atNs: number; readonly op: number; readonly isCall: boolean }[] = [];
  for (const [n, op] of ops.entries()) {
    marks.push({ atNs: op.callNs, op: n, isCall: true });
    if (op.returnNs !== Infinity) {
      marks.push({ atNs: op.returnNs, op: n, isCall: false });
    }
  }
  // Intervals are closed: operations that touch in one instant are concurrent.
  marks.sort((a, b) => a.atNs - b.atNs || Number(b.isCall) - Number(a.isCall) || a.op - b.op);
  const head: Node = { op: -1, isCall: false, prev: undefined, next: undefined, match: undefined };
  const calls = new Map<number, Node>();
  let tail = head;
  for (const { op, isCall } of marks) {
    const node: Node = { op, isCall, prev: tail, next: undefined, match: undefined };
    tail.next = node;
    tail = node;
    if (isCall) {
      calls.set(op, node);
    } else {
      (calls.get(op) as Node).match = node;
    }
  }
  let mustPlace = ops.filter((op) => op.returnNs !== Infinity).length;
  const placed = new Uint32Array((ops.length >> 5) + 1);
  const visited = new Set<string>();
  const stack: { readonly node: Node; readonly before: Value }[] = [];
  let state = initial;
  let best: Extract<Verdict, { type: 'violation' }> = { type: 'violation', placed: -1, stuckAt: [], state };
  let steps = 0;
  let at = head.next;
  while (mustPlace > 0) {
    if (++steps > budget) {
      return { type: 'unknown' };
    }
    if (at?.isCall === true) {
      const { op } = at;
      const result = apply(state, (ops[op] as RegisterOp).step);
      if (result !== undefined) {
        placed[op >> 5] = (placed[op >> 5] as number) | (1 << (op & 31));
        const key = `${placed.join(',')}|${result.state === null ? '' : `=${result.state}`}`;
        if (!visited.has(key)) {
          visited.add(key);
          stack.push({ node: at, before: state });
          state = result.state;
          if ((ops[op] as RegisterOp).returnNs !== Infinity) {
            mustPlace--;
          }
          lift(at);
          at = head.next;
          continue;
        }
        placed[op >> 5] = (placed[op >> 5] as number) & ~(1 << (op & 31));
      }
      at = at.next;
      continue;
    }
    // A return that nothing explains yet: take the last choice back.
    if (stack.length > best.placed) {
      best = { type: 'violation', placed: stack.length, stuckAt: openCalls(head, ops), state };
    }
    const last = stack.pop();
    if (last === undefined) {
      return best;
    }
    const { op } = last.node;
    state = last.before;
    placed[op >> 5] = (placed[op >> 5] as number) & ~(1 << (op & 31));
    if ((ops[op] as RegisterOp).returnNs !== Infinity) {
      mustPlace++;
    }
    unlift(last.node);
    at = last.node.next;
  }
  return { type: 'linearizable' };
}

function openCalls(head: Node, ops: readonly RegisterOp[]): RegisterOp[] {
  const out: RegisterOp[] = [];
  for (let node = head.next; node?.isCall === true; node = node.next) {
    out.push(ops[node.op] as RegisterOp);
  }
  return out;
}

function unlink(node: Node): void {
  (node.prev as Node).next = node.next;
  if (node.next !== undefined) {
    node.next.prev = node.prev;
  }
}

function relink(node: Node): void {
  (node.prev as Node).next = node;
  if (node.next !== undefined) {
    node.next.prev = node;
  }
}

function lift(call: Node): void {
  unlink(call);
  if (call.match !== undefined) {
    unlink(call.match);
  }
}

function unlift(call: Node): void {
  if (call.match !== undefined) {
    relink(call.match);
  }
  relink(call);
}
