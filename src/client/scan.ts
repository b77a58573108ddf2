/**
 * Ordered reading of a range, page by page. A page is one command to one region and therefore one moment of that
 * region; the next page goes on behind the last key returned. Only when a store returned fewer entries than asked for,
 * which it does only when its region has no more, does the scan step over to the end of exactly that region, as the
 * store checked it by epoch. So whatever splits or merges meanwhile, a key that was there all the time is returned
 * once, in order.
 */
import { compareBytes, keyAfter } from '../base/bytes.ts';
import { type KeyRange, compareEnds, isEmptyRange } from '../base/key-range.ts';
import type { CallLimits } from './call.ts';
import type { Entry } from './command.ts';
import type { ClientCore } from './core.ts';
import { KEY_BYTES_MAX, SCAN_PAGE_BYTES_TARGET } from './defaults.ts';
import { InvalidArgumentError } from './errors.ts';

export interface ScanPlan<T> {
  readonly core: ClientCore;
  /** Raw keys; what was already read before a resume is cut off. */
  readonly range: KeyRange;
  readonly reverse: boolean;
  readonly keysOnly: boolean;
  /** Entries in all; undefined = all there are. */
  readonly limit: number | undefined;
  readonly pageSize: number;
  /** Bounds of each page, made when the page is asked for. */
  readonly limits: () => CallLimits;
  readonly decode: (entry: Entry) => T;
}

export interface ScanPage<T, K> {
  readonly entries: readonly T[];
  /** Give it to the option `resume` of a later scan of the same range to go on behind this page; undefined at the end. */
  readonly resume: K | undefined;
}

/** Above every legal key: what a descending scan without an upper bound starts from, since the protocol needs a bound. */
const ABOVE_ALL_KEYS: Uint8Array = new Uint8Array(KEY_BYTES_MAX + 1).fill(0xff);

interface RawPage {
  readonly entries: readonly Entry[];
  /** What is left; undefined at the end. */
  readonly rest: KeyRange | undefined;
}

/** Entries one at a time, in order. Reading ahead by one page; ends only at the end of the range, else it throws. */
export class Scan<T extends { readonly key: K }, K> implements AsyncIterable<T> {
  readonly #plan: ScanPlan<T>;

  constructor(plan: ScanPlan<T>) {
    this.#plan = plan;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for await (const page of this.pages()) {
      yield* page.entries;
    }
  }

  /** Pages as they come from the stores: at most `pageSize` entries, never over a region's border; none is empty. */
  async *pages(): AsyncGenerator<ScanPage<T, K>, void, undefined> {
    const { reverse, limit, decode } = this.#plan;
    let left = limit ?? Infinity;
    let ask = this.#plan.pageSize;
    const range = this.#plan.range;
    const first: KeyRange = reverse && range.end.length === 0 ? { start: range.start, end: ABOVE_ALL_KEYS } : range;
    if (left <= 0 || isEmptyRange(first)) {
      return;
    }
    let next: Promise<RawPage> | undefined = this.#fetch(first, Math.min(ask, left));
    while (next !== undefined) {
      const page: RawPage = await next;
      left -= page.entries.length;
      ask = adaptPage(ask, page.entries, this.#plan.pageSize);
      next = page.rest === undefined || left <= 0 ? undefined : this.#fetch(page.rest, Math.min(ask, left));
      // A page that is read ahead and then not wanted must not become an unhandled rejection.
      next?.catch(() => {});
      if (page.entries.length > 0) {
        const entries = page.entries.map(decode);
        yield { entries, resume: page.rest === undefined ? undefined : (entries.at(-1) as T).key };
      }
    }
  }

  /** All entries, at most `max`; more than that is an error, because a cut-off result would look complete. */
  async toArray(options: { readonly max?: number } = {}): Promise<T[]> {
    const max = options.max ?? Infinity;
    const all: T[] = [];
    for await (const page of this.pages()) {
      if (all.length + page.entries.length > max) {
        throw new InvalidArgumentError(`the range holds more than ${max} entries`, {
          hint: 'raise max, or give the scan a limit to read only the first ones',
        });
      }
      all.push(...page.entries);
    }
    return all;
  }

  #fetch(range: KeyRange, limit: number): Promise<RawPage> {
    const { core, reverse, keysOnly, limits } = this.#plan;
    return core.run({ type: 'scan', range, limit, keysOnly, reverse }, limits(), (answer, { region }) => {
      const entries = answer.type === 'entries' ? answer.entries : [];
      return {
        entries,
        rest: reverse ? restBelow(range, region.range, entries, limit) : restAbove(range, region.range, entries, limit),
      };
    });
  }
}

function restAbove(range: KeyRange, region: KeyRange, entries: readonly Entry[], limit: number): KeyRange | undefined {
  if (entries.length >= limit) {
    return nonEmpty({ start: keyAfter((entries.at(-1) as Entry)[0]), end: range.end });
  }
  // The region is exhausted.
  return compareEnds(region.end, range.end) >= 0 ? undefined : nonEmpty({ start: region.end, end: range.end });
}

function restBelow(range: KeyRange, region: KeyRange, entries: readonly Entry[], limit: number): KeyRange | undefined {
  const end = entries.length >= limit ? (entries.at(-1) as Entry)[0] : region.start;
  // An empty upper bound would mean "no bound"; here it means that nothing lies below.
  return end.length === 0 || compareBytes(end, range.start) <= 0 ? undefined : { start: range.start, end };
}

const nonEmpty = (range: KeyRange): KeyRange | undefined => (isEmptyRange(range) ? undefined : range);

/** Fewer entries after a heavy page, slowly more after a light one, never above what the user asked for. */
function adaptPage(ask: number, entries: readonly Entry[], pageSize: number): number {
  let bytes = 0;
  for (const [key, value] of entries) {
    bytes += key.length + value.length;
  }
  if (bytes > SCAN_PAGE_BYTES_TARGET) {
    return Math.max(1, Math.floor((entries.length * SCAN_PAGE_BYTES_TARGET) / bytes));
  }
  return bytes * 2 <= SCAN_PAGE_BYTES_TARGET ? Math.min(pageSize, ask * 2) : ask;
}

/** What is left of a range behind `resume`, the last key read. */
export function rangeAfter(range: KeyRange, resume: Uint8Array, reverse: boolean): KeyRange {
  if (!reverse) {
    return compareBytes(resume, range.start) < 0 ? range : { start: keyAfter(resume), end: range.end };
  }
  if (resume.length === 0) {
    // Nothing lies below the empty key: an empty range, not an unbounded one.
    return { start: Uint8Array.of(0), end: Uint8Array.of(0) };
  }
  return compareEnds(resume, range.end) >= 0 ? range : { start: range.start, end: resume };
}
