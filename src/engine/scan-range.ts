/** What part of the database a scan may see: everything but the engine's own room. */
import { compareBytes } from '../base/bytes.ts';
import { compareEnds, type KeyRange } from '../base/key-range.ts';
import { ENGINE_PREFIX } from './keyspace.ts';

/** Page size in bytes when a scan names none. */
export const SCAN_BYTES_DEFAULT: number = 1024 * 1024;

const FIRST_USER_KEY: Uint8Array = Uint8Array.of(ENGINE_PREFIX + 1);

/** The range without the engine's room; empty (start >= end) if nothing of it is left. */
export function userScanRange(range: KeyRange): KeyRange {
  const start = compareBytes(range.start, FIRST_USER_KEY) >= 0 ? range.start : FIRST_USER_KEY;
  return { start, end: compareEnds(range.end, FIRST_USER_KEY) >= 0 ? range.end : FIRST_USER_KEY };
}
