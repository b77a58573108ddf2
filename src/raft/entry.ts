/** Sizes and ranges of log entries. Entries are immutable; nothing here changes one. */
import type { Entry } from './types.ts';

/** Shared empty list; never written to. */
export const EMPTY_ENTRIES: readonly Entry[] = Object.freeze([]) as readonly Entry[];

/** Number that means "no limit" for sizes and counts. Compared only, never added to. */
export const UNLIMITED: number = Number.MAX_SAFE_INTEGER;

/** Bytes added to the payload of every entry by the encoding size, so that no entry counts as free. */
export const ENTRY_OVERHEAD_BYTES = 16;

/** Encoding size of one entry: used by message and apply limits. Storage must use the same function. */
export const entrySizeBytes = (entry: Entry): number => entry.data.length + ENTRY_OVERHEAD_BYTES;

/** Encoding size of a list of entries. */
export function entriesSizeBytes(entries: readonly Entry[]): number {
  let size = 0;
  for (let i = 0; i < entries.length; i++) {
    size += (entries[i] as Entry).data.length + ENTRY_OVERHEAD_BYTES;
  }
  return size;
}

/** Payload size of a list: used by the uncommitted and inflight limits. Empty payloads count as nothing. */
export function payloadsBytes(entries: readonly Entry[]): number {
  let size = 0;
  for (let i = 0; i < entries.length; i++) {
    size += (entries[i] as Entry).data.length;
  }
  return size;
}

/** The longest prefix within `maxSize` encoding bytes, but at least one entry. Returns the list itself if all fit. */
export function limitSize(entries: readonly Entry[], maxSize: number): readonly Entry[] {
  if (maxSize >= UNLIMITED || entries.length <= 1) {
    return entries;
  }
  let size = 0;
  for (let i = 0; i < entries.length; i++) {
    size += (entries[i] as Entry).data.length + ENTRY_OVERHEAD_BYTES;
    if (size > maxSize && i > 0) {
      return entries.slice(0, i);
    }
  }
  return entries;
}
