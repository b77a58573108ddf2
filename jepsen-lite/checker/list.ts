/**
 * Lists built by appending unique elements with compare-and-swap: all reads lie on one line of versions (each is a
 * prefix of every longer one), nothing acknowledged is missing, nothing refused or unheard of is there, and the order
 * agrees with real time. Prefixes give the version order directly, as in Elle's list-append analysis.
 */
import type { Operation } from '../history.ts';
import type { Problem } from './problem.ts';

interface Read {
  readonly op: Operation;
  readonly elements: readonly string[];
}

export function checkLists(operations: readonly Operation[], problems: Problem[]): void {
  const keys = new Set(
    operations.flatMap(({ request }) => (request.f === 'append' || request.f === 'read-list' ? [request.key] : [])),
  );
  for (const key of keys) {
    checkList(operations, key, (text) => problems.push({ promise: 'list', key, text: `${key}: ${text}` }));
  }
}

function checkList(operations: readonly Operation[], key: string, say: (text: string) => void): void {
  const appends = new Map<string, Operation>();
  const reads: Read[] = [];
  for (const op of operations) {
    const { request, outcome } = op;
    if (request.f === 'append' && request.key === key) {
      if (appends.has(request.element)) {
        say(`the history appends ${request.element} twice; elements must be unique`);
      }
      appends.set(request.element, op);
    } else if (
      request.f === 'read-list' &&
      request.key === key &&
      outcome.type === 'ok' &&
      outcome.response.f === 'elements'
    ) {
      reads.push({ op, elements: outcome.response.elements });
    }
  }
  for (const { op, elements } of reads) {
    checkRead(op, elements, appends, say);
  }
  // One line of versions: sorted by length, each read is a prefix of the next.
  const byLength = [...reads].sort((a, b) => a.elements.length - b.elements.length || a.op.i - b.op.i);
  for (let n = 1; n < byLength.length; n++) {
    const [shorter, longer] = [byLength[n - 1] as Read, byLength[n] as Read];
    const at = shorter.elements.findIndex((element, i) => longer.elements[i] !== element);
    if (at >= 0) {
      say(
        `reads #${shorter.op.i} and #${longer.op.i} differ at ${at}: ${String(shorter.elements[at])} and ${String(longer.elements[at])}`,
      );
      return;
    }
  }
  // Real time: a read that begins after another ended does not show less.
  const ended = [...reads].sort((a, b) => a.op.returnNs - b.op.returnNs);
  let best: Read | undefined;
  let next = 0;
  for (const read of [...reads].sort((a, b) => a.op.callNs - b.op.callNs)) {
    for (; next < ended.length && (ended[next] as Read).op.returnNs < read.op.callNs; next++) {
      const candidate = ended[next] as Read;
      best = best === undefined || candidate.elements.length > best.elements.length ? candidate : best;
    }
    if (best !== undefined && best.elements.length > read.elements.length) {
      say(
        `read #${read.op.i} shows ${read.elements.length} elements after #${best.op.i} showed ${best.elements.length}`,
      );
    }
  }
  checkOrder(byLength.at(-1), appends, say);
}

function checkRead(
  op: Operation,
  elements: readonly string[],
  appends: ReadonlyMap<string, Operation>,
  say: (text: string) => void,
): void {
  const seen = new Set(elements);
  if (seen.size !== elements.length) {
    say(`read #${op.i} holds an element twice`);
  }
  for (const element of seen) {
    const append = appends.get(element);
    if (append === undefined || append.outcome.type === 'fail' || append.callNs > op.returnNs) {
      say(`read #${op.i} holds ${element}, which nobody had appended`);
    }
  }
  for (const [element, append] of appends) {
    if (append.outcome.type === 'ok' && append.returnNs < op.callNs && !seen.has(element)) {
      say(`read #${op.i} lacks ${element}, acknowledged by #${append.i}`);
    }
  }
}

/** In the longest read, no element stands before one whose append had ended before its own began. */
function checkOrder(
  longest: Read | undefined,
  appends: ReadonlyMap<string, Operation>,
  say: (text: string) => void,
): void {
  let latestCallNs = -Infinity;
  let latest = '';
  for (const element of longest?.elements ?? []) {
    const append = appends.get(element);
    if (append === undefined) {
      continue;
    }
    if (append.returnNs < latestCallNs) {
      say(`${latest} stands before ${element}, whose append had ended before that of ${latest} began`);
    }
    if (append.callNs > latestCallNs) {
      latestCallNs = append.callNs;
      latest = element;
    }
  }
}
