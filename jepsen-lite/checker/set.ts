/**
 * Sets that only grow: no element is lost once it was acknowledged or seen, none appears that nobody added, none twice.
 * After the set checks of Jepsen: an element is known from the first moment at which somebody was told of it.
 */
import type { Operation } from '../history.ts';
import type { Problem } from './problem.ts';

export interface SetCounts {
  acknowledged: number;
  /** Added with unknown outcome and seen later. */
  recovered: number;
  /** Acknowledged, but no read began afterwards. */
  neverRead: number;
}

interface Element {
  readonly add: Operation;
  /** Earliest moment at which it was certainly there. */
  knownNs: number;
  wasSeen: boolean;
}

interface Read {
  readonly op: Operation;
  readonly elements: ReadonlySet<string>;
}

/** @param counts filled in, for reports */
export function checkSets(operations: readonly Operation[], problems: Problem[], counts: SetCounts): void {
  const keys = new Set(
    operations.flatMap(({ request }) => (request.f === 'add' || request.f === 'read-set' ? [request.key] : [])),
  );
  for (const key of keys) {
    checkSet(operations, key, problems, counts);
  }
}

function checkSet(operations: readonly Operation[], key: string, problems: Problem[], counts: SetCounts): void {
  const elements = new Map<string, Element>();
  const reads: Read[] = [];
  const say = (text: string): void => {
    problems.push({ promise: 'set', key, text: `${key}: ${text}` });
  };
  for (const op of operations) {
    const { request, outcome } = op;
    if (request.f === 'add' && request.key === key) {
      if (elements.has(request.element)) {
        say(`the history adds ${request.element} twice; elements must be unique`);
      }
      elements.set(request.element, {
        add: op,
        knownNs: outcome.type === 'ok' ? op.returnNs : Infinity,
        wasSeen: false,
      });
    } else if (
      request.f === 'read-set' &&
      request.key === key &&
      outcome.type === 'ok' &&
      outcome.response.f === 'elements'
    ) {
      const { elements: seen } = outcome.response;
      reads.push({ op, elements: new Set(seen) });
      if (new Set(seen).size !== seen.length) {
        say(`read #${op.i} holds an element twice`);
      }
    }
  }
  for (const { op, elements: seen } of reads) {
    for (const name of seen) {
      const element = elements.get(name);
      if (element === undefined || element.add.outcome.type === 'fail' || element.add.callNs > op.returnNs) {
        say(`read #${op.i} holds ${name}, which nobody had added`);
        continue;
      }
      element.wasSeen = true;
      element.knownNs = Math.min(element.knownNs, op.returnNs);
    }
  }
  for (const [name, { add, knownNs, wasSeen }] of elements) {
    const later = reads.filter(({ op }) => op.callNs > knownNs);
    const missing = later.filter(({ elements: seen }) => !seen.has(name));
    const [first] = missing;
    if (first !== undefined) {
      const isLost = later.at(-1) === missing.at(-1);
      say(`${name} (#${add.i}) ${isLost ? 'was lost' : 'was missing for a while'}: read #${first.op.i} lacks it`);
    }
    counts.acknowledged += add.outcome.type === 'ok' ? 1 : 0;
    counts.recovered += add.outcome.type === 'info' && wasSeen ? 1 : 0;
    counts.neverRead += add.outcome.type === 'ok' && later.length === 0 && !wasSeen ? 1 : 0;
  }
}
