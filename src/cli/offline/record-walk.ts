/**
 * Reads ranges of an engine page by page, past damaged values: the engine refuses a page with one, so such a page is
 * read again value by value, and what cannot be read is handed on as damage.
 */
import { keyAfter } from '../../base/bytes.ts';
import { isEmptyRange, type KeyRange } from '../../base/key-range.ts';
import { MIB } from '../../base/units.ts';
import { CorruptionError, type Engine } from '../../env/engine.ts';

const PAGE_RECORDS = 1024;
const PAGE_BYTES: number = MIB;

export type WalkedRecord =
  | { readonly type: 'record'; readonly key: Uint8Array; readonly value: Uint8Array }
  /** The value under this key does not match its checksum. */
  | { readonly type: 'damaged'; readonly key: Uint8Array; readonly reason: string }
  /** The database cannot read its files behind this key; the walk ends. */
  | { readonly type: 'unreadable'; readonly key: Uint8Array; readonly reason: string };

/** Pages of records in key order, at most about 1 MiB each. @throws only what is no damage */
export async function* walkRecords(
  engine: Engine,
  range: KeyRange,
): AsyncGenerator<readonly WalkedRecord[], void, undefined> {
  let { start } = range;
  for (let more = true; more && !isEmptyRange({ start, end: range.end }); ) {
    const rest = { start, end: range.end };
    try {
      const page = await engine.scan({ range: rest, limit: PAGE_RECORDS, maxBytes: PAGE_BYTES });
      yield page.entries.map(([key, value]) => ({ type: 'record', key, value }));
      ({ more } = page);
      start = nextStart(start, page.entries);
      continue;
    } catch (error) {
      if (!(error instanceof CorruptionError)) {
        throw error;
      }
    }
    const page = await walkDamaged(engine, rest);
    yield page.records;
    if (page.next === undefined) {
      return;
    }
    start = page.next;
  }
}

const nextStart = (start: Uint8Array, entries: readonly (readonly [Uint8Array, Uint8Array])[]): Uint8Array => {
  const last = entries.at(-1);
  return last === undefined ? start : keyAfter(last[0]);
};

/** One page of keys, each value read by itself. */
async function walkDamaged(
  engine: Engine,
  range: KeyRange,
): Promise<{ readonly records: readonly WalkedRecord[]; readonly next: Uint8Array | undefined }> {
  let entries: readonly (readonly [Uint8Array, Uint8Array])[];
  let more: boolean;
  try {
    ({ entries, more } = await engine.scan({ range, limit: PAGE_RECORDS, keysOnly: true }));
  } catch (error) {
    return { records: [{ type: 'unreadable', key: range.start, reason: reasonOf(error) }], next: undefined };
  }
  const records: WalkedRecord[] = [];
  for (const [key] of entries) {
    try {
      const value = await engine.get(key);
      if (value !== undefined) {
        records.push({ type: 'record', key, value });
      }
    } catch (error) {
      records.push({ type: 'damaged', key, reason: reasonOf(error) });
    }
  }
  return { records, next: more ? nextStart(range.start, entries) : undefined };
}

/** The message of damage. @throws anything else */
export function reasonOf(error: unknown): string {
  if (error instanceof CorruptionError) {
    return error.message;
  }
  throw error;
}
