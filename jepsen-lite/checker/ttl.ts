/**
 * Keys with a time to live, where expiry acts like a delete that nobody asked for and the register search does not
 * apply. An interval model instead: a value is there from its put until it is due, gone once it is due, and what was
 * once absent or overwritten does not come back without a new write. Values must be unique in the history.
 */
import type { Operation, Value } from '../history.ts';
import { inRange, type Problem, showValue } from './problem.ts';
import { partsOf } from './scan.ts';

/** Expiry is counted in whole seconds by the server: that much slack on both sides besides the clocks' own. */
const TTL_GRAIN_NS = 2e9;

interface Write {
  readonly op: Operation;
  /** Null for a delete. */
  readonly value: Value;
  readonly ttlSeconds: number | undefined;
}

interface Read {
  readonly i: number;
  readonly callNs: number;
  readonly returnNs: number;
  readonly value: Value;
}

/** @param slackNs how far the clocks that decide expiry may be off */
export function checkTtl(operations: readonly Operation[], key: string, slackNs: number, problems: Problem[]): void {
  const writes = operations.flatMap((op) => writesOf(op, key));
  const reads = operations.flatMap((op) => readsOf(op, key));
  const byValue = new Map(writes.flatMap((write) => (write.value === null ? [] : [[write.value, write] as const])));
  const say = (read: Read, text: string): void => {
    problems.push({ promise: 'ttl', key, text: `#${read.i} read ${showValue(read.value)} at ${key}: ${text}` });
  };
  for (const read of reads) {
    if (read.value === null) {
      checkAbsent(read, writes, slackNs, say);
    } else {
      checkPresent(read, byValue.get(read.value), { writes, reads, slackNs, say });
    }
  }
}

function writesOf(op: Operation, key: string): Write[] {
  const { request, outcome } = op;
  if (outcome.type === 'fail') {
    return [];
  }
  switch (request.f) {
    case 'put':
      return request.key === key ? [{ op, value: request.value, ttlSeconds: request.ttlSeconds }] : [];
    case 'delete':
      return request.key === key ? [{ op, value: null, ttlSeconds: undefined }] : [];
    case 'delete-range':
      return inRange(key, request.start, request.end) ? [{ op, value: null, ttlSeconds: undefined }] : [];
    case 'batch':
      return request.pairs.filter(([name]) => name === key).map(([, value]) => ({ op, value, ttlSeconds: undefined }));
    default:
      return [];
  }
}

function readsOf(op: Operation, key: string): Read[] {
  const { i, callNs, returnNs, request, outcome } = op;
  if (outcome.type !== 'ok') {
    return [];
  }
  const { response } = outcome;
  if (request.f === 'get' && request.key === key && response.f === 'get') {
    return [{ i, callNs, returnNs, value: response.value }];
  }
  if (request.f === 'batch-get' && response.f === 'batch-get') {
    const at = request.keys.indexOf(key);
    return at < 0 ? [] : [{ i, callNs, returnNs, value: response.values[at] ?? null }];
  }
  if (request.f === 'scan' && response.f === 'scan') {
    const part = partsOf(op, response).find(({ start, end }) => inRange(key, start, end));
    const row = response.rows.find(([name]) => name === key);
    return part === undefined
      ? []
      : [{ i, callNs: part.callNs, returnNs: part.returnNs, value: row === undefined ? null : row[1] }];
  }
  return [];
}

function checkPresent(
  read: Read,
  put: Write | undefined,
  context: {
    readonly writes: readonly Write[];
    readonly reads: readonly Read[];
    readonly slackNs: number;
    readonly say: (read: Read, text: string) => void;
  },
): void {
  const { writes, reads, slackNs, say } = context;
  if (put === undefined || put.op.callNs > read.returnNs) {
    say(read, 'nobody had written that');
    return;
  }
  const { returnNs } = put.op;
  // The server decided when it is due at some moment before it acknowledged, and before anybody saw it.
  if (put.ttlSeconds !== undefined) {
    const firstSeenNs = reads.reduce((low, r) => (r.value === read.value ? Math.min(low, r.returnNs) : low), Infinity);
    const writtenNs = Math.min(returnNs, firstSeenNs);
    if (read.callNs > writtenNs + put.ttlSeconds * 1e9 + slackNs + TTL_GRAIN_NS) {
      say(read, 'it had expired');
      return;
    }
  }
  if (returnNs === Infinity) {
    return;
  }
  const overwritten = writes.find(
    (other) => other !== put && other.op.callNs > returnNs && other.op.returnNs < read.callNs,
  );
  if (overwritten !== undefined) {
    say(read, `it was overwritten by #${overwritten.op.i}`);
    return;
  }
  // Absent stays absent until a new write.
  const gone = reads.find((other) => other.value === null && other.callNs > returnNs && other.returnNs < read.callNs);
  if (gone !== undefined) {
    say(read, `#${gone.i} had found the key empty after that value was acknowledged`);
  }
}

function checkAbsent(
  read: Read,
  writes: readonly Write[],
  slackNs: number,
  say: (read: Read, text: string) => void,
): void {
  // A put that was complete, is not due yet, and that no other write can have followed.
  const put = writes.find(
    (write) =>
      write.value !== null &&
      write.op.returnNs < read.callNs &&
      (write.ttlSeconds === undefined ||
        read.returnNs < write.op.callNs + write.ttlSeconds * 1e9 - slackNs - TTL_GRAIN_NS) &&
      writes.every(
        (other) => other === write || other.op.returnNs < write.op.callNs || other.op.callNs > read.returnNs,
      ),
  );
  if (put !== undefined) {
    say(read, `${showValue(put.value)} was acknowledged and had not expired`);
  }
}
