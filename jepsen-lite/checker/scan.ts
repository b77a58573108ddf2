/**
 * Scans: rows in order, each key once, nothing that was not asked for, not more than the limit, and an answer that
 * covers its range without a gap: whole pages one behind the other.
 */
import type { Operation, Response, ScanPart } from '../history.ts';
import { inRange, type Problem } from './problem.ts';

type ScanResponse = Extract<Response, { f: 'scan' }>;

/** A key range that was read at one moment within an interval. */
export interface ReadPart {
  readonly start: string;
  readonly end: string;
  readonly callNs: number;
  readonly returnNs: number;
}

const above = (a: string, b: string): boolean => (b === '' ? false : a === '' || a > b);

/** The range an answer speaks for, and the pages it consists of: for itself one page when nothing is known. */
export function partsOf(op: Operation, response: ScanResponse): readonly ReadPart[] {
  const { request } = op;
  if (request.f !== 'scan') {
    return [];
  }
  if (response.parts !== undefined) {
    return response.parts;
  }
  const { callNs, returnNs } = op;
  return request.reverse === true
    ? [{ start: response.coveredTo, end: request.end, callNs, returnNs }]
    : [{ start: request.start, end: response.coveredTo, callNs, returnNs }];
}

export function checkScan(op: Operation, problems: Problem[]): void {
  const { request, outcome } = op;
  if (request.f !== 'scan' || outcome.type !== 'ok' || outcome.response.f !== 'scan') {
    return;
  }
  const { rows, coveredTo, parts } = outcome.response;
  const reverse = request.reverse === true;
  const say = (text: string): void => {
    problems.push({
      promise: 'scan-order',
      text: `scan #${op.i} of [${request.start}, ${request.end})${reverse ? ' downwards' : ''}: ${text}`,
    });
  };
  if (rows.length > request.limit) {
    say(`${rows.length} rows exceed the limit ${request.limit}`);
  }
  const [from, to] = reverse ? [coveredTo, request.end] : [request.start, coveredTo];
  for (const [n, [key]] of rows.entries()) {
    if (!inRange(key, request.start, request.end) || !inRange(key, from, to)) {
      say(`${key} was not asked for`);
    }
    const previous = rows[n - 1]?.[0];
    if (previous !== undefined && (reverse ? previous <= key : previous >= key)) {
      say(`${key} does not come after ${previous}`);
    }
  }
  // An answer that stops early without having reached its limit would be incomplete without saying so.
  const isWhole = reverse ? coveredTo <= request.start : !above(request.end, coveredTo) || coveredTo === '';
  if (!isWhole && request.isAtomic === false && rows.length < request.limit) {
    say(`it stopped at ${coveredTo} after ${rows.length} rows although ${request.limit} were wanted`);
  }
  if (parts !== undefined) {
    checkParts(op, parts, { from, to, reverse, say });
  }
}

function checkParts(
  op: Operation,
  parts: readonly ScanPart[],
  scan: { readonly from: string; readonly to: string; readonly reverse: boolean; readonly say: (text: string) => void },
): void {
  const { from, to, reverse, say } = scan;
  let at = reverse ? to : from;
  let lastNs = op.callNs;
  for (const part of parts) {
    if ((reverse ? part.end : part.start) !== at) {
      say(`a page covers [${part.start}, ${part.end}), but the one before ended at ${at}`);
    }
    if (part.callNs < lastNs || part.returnNs < part.callNs || part.returnNs > op.returnNs) {
      say(`a page was read from ${part.callNs} to ${part.returnNs}, outside its turn`);
    }
    // A page is asked for once the one before has arrived.
    lastNs = part.callNs;
    at = reverse ? part.start : part.end;
  }
  if (at !== (reverse ? from : to)) {
    say(`its pages end at ${at}`);
  }
}
