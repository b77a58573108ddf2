/** Checks of keys, values and ranges as typed, made before anything is sent. */
import { EMPTY_BYTES, compareBytes, prefixEnd, utf8 } from '../../base/bytes.ts';
import { type KeyRange, formatRange } from '../../base/key-range.ts';
import { ENTRY_BYTES_MAX, KEY_BYTES_MAX } from '../../client/defaults.ts';
import { EntryTooLargeError, InvalidArgumentError } from '../../client/errors.ts';
import { UsageError } from '../failure.ts';
import { readAll } from '../io.ts';
import type { Session } from '../session.ts';
import { parseKey } from '../text-form.ts';

/** The key an argument stands for; neither empty nor too long. */
export function keyArgument(session: Session, text: string): Uint8Array {
  const key = parseKey(text, session.options.keyFormat);
  if (key.length === 0) {
    throw new UsageError('the key is empty', 'keys have at least one byte');
  }
  return requireKeyLength(key, 'the key');
}

function requireKeyLength(key: Uint8Array, what: string): Uint8Array {
  if (key.length > KEY_BYTES_MAX) {
    throw new InvalidArgumentError(`${what} has ${key.length} bytes, at most ${KEY_BYTES_MAX} are possible`, {
      hint: 'use a shorter key, for example a hash of the long one',
      details: { sizeBytes: key.length, limitBytes: KEY_BYTES_MAX },
    });
  }
  return key;
}

/** The value an argument stands for: its text as UTF-8, or all of stdin for `-`. */
export async function valueArgument(session: Session, key: Uint8Array, text: string): Promise<Uint8Array> {
  const limit = ENTRY_BYTES_MAX - key.length;
  const value = text === '-' ? await readAll(session.io.stdin, limit) : utf8(text);
  if (value === undefined || value.length > limit) {
    const size = value === undefined ? 'more than' : `${value.length} bytes, more than`;
    throw new EntryTooLargeError(`the value has ${size} the ${limit} bytes that are possible beside this key`, {
      hint: 'store large values in several keys',
    });
  }
  return value;
}

/** The range of START, END and `--prefix`; undefined and empty ends are open. Refuses ranges that hold no key. */
export function rangeArgument(
  session: Session,
  start: string | undefined,
  end: string | undefined,
  prefix: string | undefined,
): KeyRange {
  const format = session.options.keyFormat;
  if (prefix !== undefined) {
    if (start !== undefined) {
      throw new UsageError('START and --prefix exclude each other', 'leave one of them out');
    }
    const bytes = requireKeyLength(parseKey(prefix, format), 'the prefix');
    return { start: bytes, end: prefixEnd(bytes) };
  }
  const range = {
    start: start === undefined ? EMPTY_BYTES : requireKeyLength(parseKey(start, format), 'START'),
    end: end === undefined ? EMPTY_BYTES : requireKeyLength(parseKey(end, format), 'END'),
  };
  if (range.end.length > 0) {
    const order = compareBytes(range.start, range.end);
    if (order === 0) {
      throw new UsageError(
        `the range ${formatRange(range)} is empty: END is not part of a range`,
        'give an END above START, or use "braid get" for one key',
      );
    }
    if (order > 0) {
      throw new UsageError(
        `the range ${formatRange(range)} is reversed: START sorts after END`,
        'swap START and END; --reverse prints a range in descending order',
      );
    }
  }
  return range;
}
