/** Key ranges as users write them: half-open, strings are UTF-8. */
import { EMPTY_BYTES, prefixEnd, utf8 } from '../base/bytes.ts';
import { FULL_RANGE, type KeyRange, formatRange, isEmptyRange } from '../base/key-range.ts';
import type { KeyCodec } from './codecs.ts';
import { InvalidArgumentError } from './errors.ts';

const toBytes = (value: string | Uint8Array): Uint8Array => (typeof value === 'string' ? utf8(value) : value);

/** All keys that start with `p`. */
export function prefix(p: string | Uint8Array): KeyRange {
  const start = toBytes(p);
  return { start, end: prefixEnd(start) };
}

/** Keys from `start` (inclusive) to `end` (exclusive). An empty `end` means no bound. */
export function range(start: string | Uint8Array, end: string | Uint8Array): KeyRange;
/** The same with typed keys; undefined leaves that side open. */
export function range<K>(start: K | undefined, end: K | undefined, codec: KeyCodec<K>): KeyRange;
export function range<K>(start: K | undefined, end: K | undefined, codec?: KeyCodec<K>): KeyRange {
  if (codec === undefined) {
    return { start: toBytes(start as string | Uint8Array), end: toBytes(end as string | Uint8Array) };
  }
  return {
    start: start === undefined ? EMPTY_BYTES : codec.encode(start),
    end: end === undefined ? EMPTY_BYTES : codec.encode(end),
  };
}

/** Keys at and after `start`. */
export const from = (start: string | Uint8Array): KeyRange => ({ start: toBytes(start), end: EMPTY_BYTES });

/** Every key. */
export const all = (): KeyRange => FULL_RANGE;

/** Refuses ranges that cannot hold a key; they are nearly always swapped arguments. */
export function requireNonEmptyRange(value: KeyRange, call: string): void {
  if (!(value?.start instanceof Uint8Array && value.end instanceof Uint8Array)) {
    throw new InvalidArgumentError(`${call} needs a key range`, {
      hint: 'make one with prefix(), range(), from() or all()',
    });
  }
  if (isEmptyRange(value)) {
    throw new InvalidArgumentError(
      `${call}: the range ${formatRange(value)} is empty because its start is not below its end`,
      {
        hint: 'ranges are half-open: range(start, end) covers start <= key < end',
      },
    );
  }
}
