/**
 * Histories: what clients asked for and what they were told, one JSON object per line, written at the call and at the
 * completion. The simulator and the harness for real processes write them, `checkers.ts` judges them.
 *
 * A process has one operation at a time. `info` means that nobody knows whether the operation took effect; such a
 * process never acts again under its number. All times come from one monotonic clock.
 */

/** Absent values are null, as JSON has no undefined. */
export type Value = string | null;

export type Request =
  | { readonly f: 'get'; readonly key: string }
  | { readonly f: 'put'; readonly key: string; readonly value: string; readonly ttlSeconds?: number }
  | { readonly f: 'delete'; readonly key: string }
  /** Writes `value` (null deletes) if the current value equals `expected`. */
  | { readonly f: 'cas'; readonly key: string; readonly expected: Value; readonly value: Value }
  | { readonly f: 'delete-range'; readonly start: string; readonly end: string }
  /** All pairs are written at one moment; `isAtomic` is false if they may lie in several regions. */
  | { readonly f: 'batch'; readonly pairs: readonly (readonly [string, string])[]; readonly isAtomic: boolean }
  | { readonly f: 'batch-get'; readonly keys: readonly string[]; readonly isAtomic: boolean }
  | {
      readonly f: 'scan';
      readonly start: string;
      readonly end: string;
      readonly limit: number;
      readonly isAtomic: boolean;
      /** Descending order. */
      readonly reverse?: boolean;
    };

/** Operations on data structures that a client builds from several requests; each counts as one operation. */
export type CollectionRequest =
  /** Puts an element, unique in the history, into a set that only grows. */
  | { readonly f: 'add'; readonly key: string; readonly element: string }
  | { readonly f: 'read-set'; readonly key: string }
  /** Appends an element, unique in the history, to a list. */
  | { readonly f: 'append'; readonly key: string; readonly element: string }
  | { readonly f: 'read-list'; readonly key: string }
  /** `by` is at least 1. */
  | { readonly f: 'increment'; readonly key: string; readonly by: number }
  | { readonly f: 'read-counter'; readonly key: string };

export type AnyRequest = Request | CollectionRequest;

/** One page of a scan: it speaks for the keys from `start` up to `end`, exclusive, at one moment of its own interval. */
export interface ScanPart {
  readonly start: string;
  /** '' = no end. */
  readonly end: string;
  readonly callNs: number;
  readonly returnNs: number;
}

export type Response =
  | { readonly f: 'get'; readonly value: Value }
  | { readonly f: 'done' }
  | { readonly f: 'cas'; readonly swapped: boolean; readonly actual: Value }
  | { readonly f: 'batch-get'; readonly values: readonly Value[] }
  /**
   * Rows in the order asked for. An ascending answer speaks for all keys from the request's start up to `coveredTo`,
   * exclusive ('' = no end); a descending one for all from `coveredTo` up to the request's end. `parts` say which pages
   * it came in, if that is known.
   */
  | {
      readonly f: 'scan';
      readonly rows: readonly (readonly [string, string])[];
      readonly coveredTo: string;
      readonly parts?: readonly ScanPart[];
    }
  /** Elements of a set in any order, of a list from first to last. */
  | { readonly f: 'elements'; readonly elements: readonly string[] }
  | { readonly f: 'count'; readonly count: number };

export type HistoryEvent =
  | {
      readonly i: number;
      readonly t: number;
      readonly process: number;
      readonly type: 'invoke';
      readonly request: AnyRequest;
      readonly at?: string;
    }
  | {
      readonly i: number;
      readonly t: number;
      readonly process: number;
      readonly type: 'ok';
      readonly response: Response;
      readonly at?: string;
    }
  | { readonly i: number; readonly t: number; readonly process: number; readonly type: 'fail'; readonly error: string }
  | { readonly i: number; readonly t: number; readonly process: number; readonly type: 'info'; readonly error: string };

/** One operation: request, outcome, and the closed interval in which it took effect if it did. */
export interface Operation {
  /** Number of its invoke event. */
  readonly i: number;
  readonly process: number;
  readonly request: AnyRequest;
  readonly outcome:
    | { readonly type: 'ok'; readonly response: Response }
    | { readonly type: 'fail' }
    | { readonly type: 'info' };
  readonly callNs: number;
  /** Infinity while unknown. */
  readonly returnNs: number;
  /** Who answered, if that is known. */
  readonly at?: string;
}

/** Collects events of a running history. */
export class HistoryRecorder {
  readonly events: HistoryEvent[] = [];
  readonly #nowNs: () => number;
  readonly #onLine: ((line: string) => void) | undefined;
  #nextProcess = 0;

  constructor(nowNs: () => number, onLine?: (line: string) => void) {
    this.#nowNs = nowNs;
    this.#onLine = onLine;
  }

  newProcess(): number {
    return this.#nextProcess++;
  }

  invoke(process: number, request: AnyRequest, at?: string): number {
    return this.#add({
      i: this.events.length,
      t: this.#nowNs(),
      process,
      type: 'invoke',
      request,
      ...(at === undefined ? {} : { at }),
    });
  }

  /** @param at who answered, for reports */
  ok(process: number, response: Response, at?: string): void {
    this.#add({
      i: this.events.length,
      t: this.#nowNs(),
      process,
      type: 'ok',
      response,
      ...(at === undefined ? {} : { at }),
    });
  }

  /** Certainly without effect. */
  fail(process: number, error: string): void {
    this.#add({ i: this.events.length, t: this.#nowNs(), process, type: 'fail', error });
  }

  /** Nobody knows. */
  info(process: number, error: string): void {
    this.#add({ i: this.events.length, t: this.#nowNs(), process, type: 'info', error });
  }

  #add(event: HistoryEvent): number {
    this.events.push(event);
    this.#onLine?.(JSON.stringify(event));
    return event.i;
  }
}

export const toJsonl = (events: readonly HistoryEvent[]): string =>
  events.map((event) => `${JSON.stringify(event)}\n`).join('');

/** The history is not one: a line is no event, or events contradict each other. */
export class HistoryFormatError extends Error {}

const TYPES: readonly string[] = ['invoke', 'ok', 'fail', 'info'];

/** @throws HistoryFormatError */
export function parseJsonl(text: string): HistoryEvent[] {
  const events: HistoryEvent[] = [];
  for (const [n, line] of text.split('\n').entries()) {
    if (line === '') {
      continue;
    }
    let event: HistoryEvent;
    try {
      event = JSON.parse(line) as HistoryEvent;
    } catch (cause) {
      throw new HistoryFormatError(`line ${n + 1} is not JSON`, { cause });
    }
    const { i, t, process, type } = event;
    if (
      ![i, t, process].every((x) => Number.isSafeInteger(x) && x >= 0) ||
      !TYPES.includes(type) ||
      i !== events.length
    ) {
      throw new HistoryFormatError(`line ${n + 1} is not the event ${events.length}`);
    }
    const keys = Object.keys(event).filter((key) => !['i', 't', 'process', 'type', 'at'].includes(key));
    const wanted = type === 'invoke' ? 'request' : type === 'ok' ? 'response' : 'error';
    if (keys.length !== 1 || keys[0] !== wanted) {
      throw new HistoryFormatError(`line ${n + 1} lacks ${wanted} or has more than that: ${keys.join(', ')}`);
    }
    events.push(event);
  }
  return events;
}

const ANSWERS: Readonly<Record<AnyRequest['f'], Response['f']>> = {
  get: 'get',
  put: 'done',
  delete: 'done',
  cas: 'cas',
  'delete-range': 'done',
  batch: 'done',
  'batch-get': 'batch-get',
  scan: 'scan',
  add: 'done',
  'read-set': 'elements',
  append: 'done',
  'read-list': 'elements',
  increment: 'done',
  'read-counter': 'count',
};

/** Pairs calls with completions. @throws HistoryFormatError */
export function operationsOf(events: readonly HistoryEvent[]): Operation[] {
  const open = new Map<number, Extract<HistoryEvent, { type: 'invoke' }>>();
  const retired = new Set<number>();
  const out: Operation[] = [];
  let last = 0;
  for (const event of events) {
    if (event.t < last) {
      throw new HistoryFormatError(`time goes back at event ${event.i}`);
    }
    last = event.t;
    const call = open.get(event.process);
    if (event.type === 'invoke') {
      if (call !== undefined || retired.has(event.process)) {
        throw new HistoryFormatError(`process ${event.process} calls at event ${event.i} while it cannot`);
      }
      if (ANSWERS[event.request.f] === undefined) {
        throw new HistoryFormatError(`event ${event.i} asks for ${String(event.request.f)}`);
      }
      open.set(event.process, event);
      continue;
    }
    if (call === undefined) {
      throw new HistoryFormatError(`process ${event.process} completes at event ${event.i} without a call`);
    }
    open.delete(event.process);
    const base = { i: call.i, process: call.process, request: call.request, callNs: call.t };
    if (event.type === 'info') {
      retired.add(event.process);
      out.push({ ...base, outcome: { type: 'info' }, returnNs: Infinity });
    } else if (event.type === 'fail') {
      out.push({ ...base, outcome: { type: 'fail' }, returnNs: event.t });
    } else {
      if (event.response.f !== ANSWERS[call.request.f]) {
        throw new HistoryFormatError(`event ${event.i} answers ${call.request.f} with ${String(event.response.f)}`);
      }
      out.push({
        ...base,
        outcome: { type: 'ok', response: event.response },
        returnNs: event.t,
        ...(event.at === undefined ? {} : { at: event.at }),
      });
    }
  }
  for (const call of open.values()) {
    out.push({
      i: call.i,
      process: call.process,
      request: call.request,
      callNs: call.t,
      outcome: { type: 'info' },
      returnNs: Infinity,
    });
  }
  return out.sort((a, b) => a.i - b.i);
}
