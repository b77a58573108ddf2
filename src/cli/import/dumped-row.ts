/**
 * Rows as `braid offline dump` and `braid scan -o jsonl` print them: key and value in their text forms, and when the
 * entry expires. Nothing is lost on the way, whatever bytes they hold.
 */
import { concatBytes, utf8 } from '../../base/bytes.ts';
import { UsageError } from '../failure.ts';
import { type KeyFormat, parseKey } from '../text-form.ts';
import type { RejectCode, SourceRecord } from './record-reader.ts';
import type { MappedRow } from './row-mapper.ts';

export interface DumpedRowOptions {
  /** Form of the keys in the file. */
  readonly keyFormat: KeyFormat;
  /** Put before every key. */
  readonly keyPrefix: string;
  readonly keyBytesMax: number;
  readonly entryBytesMax: number;
  /** Unix milliseconds; rows that expired before are passed over. */
  readonly nowMs: number;
}

const FIELDS: ReadonlySet<string> = new Set(['key', 'value', 'encoding', 'expireAt']);

/** Maps records to rows; the same face as `RowMapper`. */
export class DumpedRowMapper {
  readonly #options: DumpedRowOptions;
  readonly #prefix: Uint8Array;
  /** Rows passed over because they have expired. */
  expired = 0;

  constructor(options: DumpedRowOptions) {
    this.#options = options;
    this.#prefix = utf8(options.keyPrefix);
  }

  /** Undefined for a row that has expired. */
  map(record: SourceRecord): MappedRow | undefined {
    switch (record.type) {
      case 'reject':
        return record;
      case 'fields':
        return rejected(record.line, 'NotARow', 'the line has columns, not a row');
      case 'object':
        return this.#mapObject(record.line, record.object);
    }
  }

  #mapObject(line: number, object: Readonly<Record<string, unknown>>): MappedRow | undefined {
    const unknown = Object.keys(object).find((name) => !FIELDS.has(name));
    if (unknown !== undefined) {
      return rejected(line, 'NotARow', `the field ${JSON.stringify(unknown)} is none of a row`);
    }
    const { key: keyText, value: valueText, encoding = 'utf8', expireAt } = object;
    if (typeof keyText !== 'string') {
      return rejected(line, 'NoKeyField', 'the field "key" is missing or no text');
    }
    if (typeof valueText !== 'string') {
      return rejected(line, 'NotARow', 'the field "value" is missing or no text');
    }
    const expireAtMs = expireAt === undefined ? undefined : typeof expireAt === 'string' ? Date.parse(expireAt) : NaN;
    if (Number.isNaN(expireAtMs)) {
      return rejected(line, 'NotARow', 'the field "expireAt" is no time such as 2030-01-31T12:00:00Z');
    }
    const { keyFormat, keyBytesMax, entryBytesMax, nowMs } = this.#options;
    const own = bytesOf(keyText, keyFormat);
    const value = bytesOf(valueText, encoding);
    if (own === undefined) {
      return rejected(line, 'NotARow', `the key is not in the form ${keyFormat}; say --key-format`);
    }
    if (value === undefined) {
      return rejected(line, 'NotARow', `the value is not in the form ${JSON.stringify(encoding)}`);
    }
    if (own.length === 0) {
      return rejected(line, 'EmptyKey', 'the key is empty');
    }
    const key = concatBytes(this.#prefix, own);
    if (key.length > keyBytesMax) {
      return rejected(line, 'KeyTooLarge', `the key has ${key.length} bytes, the limit is ${keyBytesMax}`);
    }
    if (key.length + value.length > entryBytesMax) {
      const size = key.length + value.length;
      return rejected(line, 'ValueTooLarge', `key and value have ${size} bytes, the limit is ${entryBytesMax}`);
    }
    if (expireAtMs !== undefined && expireAtMs <= nowMs) {
      this.expired++;
      return undefined;
    }
    return { type: 'row', row: { line, key, value, ...(expireAtMs === undefined ? {} : { expireAtMs }) } };
  }
}

/** Bytes of a text form; undefined when it is not in that form. */
function bytesOf(text: string, form: unknown): Uint8Array | undefined {
  switch (form) {
    case 'utf8':
      return utf8(text);
    case 'escaped':
    case 'hex':
    case 'base64':
      try {
        return parseKey(text, form);
      } catch (error) {
        if (!(error instanceof UsageError)) {
          throw error;
        }
        return undefined;
      }
    default:
      return undefined;
  }
}

const rejected = (line: number, code: RejectCode, reason: string): MappedRow => ({
  type: 'reject',
  reject: { line, code, reason },
});
