/**
 * Decides what the columns are called and turns records into keys and values. Pure: no I/O, no order between rows.
 *
 * Column names come from `--columns`, else from the header line. Whether the first line is a header is decided by
 * `--header` or `--no-header`; without either it is one exactly if it contains the name of the key column. A first line
 * that can be no header (an empty field, a number, a repeated field) is data, and the key column's name then stands
 * for the first column. Anything less certain is refused instead of guessed.
 */
import { utf8 } from '../../base/bytes.ts';
import { closestName } from '../../client/options.ts';
import { UsageError } from '../failure.ts';
import type { Reject, RejectCode, SourceRecord } from './record-reader.ts';

export interface MapperOptions {
  /** Name or number (from 1) of the key column, or the field of a JSON object. */
  readonly keyColumn: string;
  /** Columns that make up the value; undefined means all of them. */
  readonly valueColumns: readonly string[] | undefined;
  /** `json`: an object of the columns. `raw`: the text of the only value column, or the whole row as it stands. */
  readonly valueAs: 'json' | 'raw';
  readonly columns: readonly string[] | undefined;
  /** Undefined lets the first line decide. */
  readonly header: boolean | undefined;
  /** Put before every key. */
  readonly keyPrefix: string;
  readonly keyBytesMax: number;
  readonly entryBytesMax: number;
}

export interface Row {
  readonly line: number;
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  /** Unix milliseconds; without it the row never expires. */
  readonly expireAtMs?: number;
}

export type MappedRow =
  | { readonly type: 'row'; readonly row: Row }
  | { readonly type: 'reject'; readonly reject: Reject };

/** What the columns are, found from the first record. */
export interface Layout {
  readonly names: readonly string[];
  readonly keyAt: number;
  /** Undefined means all. */
  readonly valueAt: readonly number[] | undefined;
  /** Whether the first record is a row as well. */
  readonly isFirstData: boolean;
  /** How the columns were understood, when that was not told; shown to the user. */
  readonly remark: string | undefined;
}

const isNumberText = (text: string): boolean => /^\s*[-+]?\d+(?:[.,]\d+)*\s*$/.test(text);

const canBeHeader = (fields: readonly string[]): boolean =>
  new Set(fields).size === fields.length && fields.every((field) => field.trim() !== '' && !isNumberText(field));

const columnNumber = (text: string): number | undefined => (/^[1-9]\d{0,4}$/.test(text) ? Number(text) : undefined);

/** Finds names, key column and value columns from the first record of a file with columns. */
export function resolveLayout(first: readonly string[], options: MapperOptions): Layout {
  const { keyColumn, columns, header } = options;
  if (columns !== undefined) {
    requireDistinct(columns, '--columns');
    // With --header as well the file's own names are skipped.
    return layoutOf(columns, options, header !== true, undefined);
  }
  const isHeader = header ?? first.includes(keyColumn);
  if (isHeader) {
    requireDistinct(first, 'the header line');
    return layoutOf(first, options, false, undefined);
  }
  const unnamed = first.map((_, i) => `column${i + 1}`);
  if (columnNumber(keyColumn) !== undefined) {
    if (header === undefined && canBeHeader(first)) {
      throw new UsageError(
        `the first line may be a header or a row: ${preview(first)}`,
        'say --header or --no-header, or name the columns with --columns',
      );
    }
    return layoutOf(unnamed, options, true, undefined);
  }
  const closest = closestName(keyColumn, first);
  if (header === undefined && canBeHeader(first)) {
    throw new UsageError(
      `no column ${JSON.stringify(keyColumn)} in the first line: ${preview(first)}`,
      closest === undefined
        ? 'if the file has no header line, name its columns with --columns, or give the number of the key column'
        : `did you mean --key-column ${closest}? If the file has no header line, name its columns with --columns`,
    );
  }
  const names = [keyColumn, ...unnamed.slice(1)];
  return layoutOf(
    names,
    options,
    true,
    `no header line: the first column is taken as ${JSON.stringify(keyColumn)}, the columns are ${names.join(', ')}; name them with --columns`,
  );
}

function layoutOf(
  names: readonly string[],
  options: MapperOptions,
  isFirstData: boolean,
  remark: string | undefined,
): Layout {
  const keyAt = columnAt(names, options.keyColumn, '--key-column');
  const valueAt = options.valueColumns?.map((column) => columnAt(names, column, '--value-columns'));
  return { names, keyAt, valueAt, isFirstData, remark };
}

function columnAt(names: readonly string[], wanted: string, flag: string): number {
  const named = names.indexOf(wanted);
  if (named >= 0) {
    return named;
  }
  const number = columnNumber(wanted);
  if (number !== undefined && number <= names.length) {
    return number - 1;
  }
  const closest = closestName(wanted, names);
  throw new UsageError(
    `${flag} names no column ${JSON.stringify(wanted)}`,
    `${closest === undefined ? '' : `did you mean ${closest}? `}columns: ${names.join(', ')}`,
  );
}

function requireDistinct(names: readonly string[], where: string): void {
  const seen = new Set<string>();
  for (const name of names) {
    if (name === '' || seen.has(name)) {
      throw new UsageError(
        name === '' ? `${where} has a column without a name` : `${where} has the column ${JSON.stringify(name)} twice`,
        'name the columns with --columns a,b,c',
      );
    }
    seen.add(name);
  }
}

function preview(fields: readonly string[]): string {
  const shown = fields.slice(0, 5).map((field) => (field.length > 24 ? `${field.slice(0, 24)}…` : field));
  return `${shown.join(', ')}${fields.length > 5 ? ', …' : ''}`;
}

/** Maps records to rows. Feed it the records in file order: the first one may be the header. */
export class RowMapper {
  readonly #options: MapperOptions;
  #layout: Layout | undefined;

  constructor(options: MapperOptions) {
    if (options.valueAs === 'raw' && options.valueColumns !== undefined && options.valueColumns.length !== 1) {
      throw new UsageError(
        '--value-as raw takes one value column or the whole row',
        'name one column with --value-columns, leave it out, or use --value-as json',
      );
    }
    this.#options = options;
  }

  /** Undefined until the first record with columns was seen, and for JSON lines. */
  get layout(): Layout | undefined {
    return this.#layout;
  }

  /** Undefined for a header line. */
  map(record: SourceRecord): MappedRow | undefined {
    switch (record.type) {
      case 'reject':
        return record;
      case 'object':
        return this.#mapObject(record.line, record.object, record.raw);
      case 'fields': {
        const isFirst = this.#layout === undefined;
        this.#layout ??= resolveLayout(record.fields, this.#options);
        return isFirst && !this.#layout.isFirstData
          ? undefined
          : this.#mapFields(this.#layout, record.line, record.fields, record.raw);
      }
    }
  }

  #mapFields(layout: Layout, line: number, fields: readonly string[], raw: string): MappedRow {
    const { names, keyAt, valueAt } = layout;
    if (fields.length !== names.length) {
      return rejected(line, 'WrongColumnCount', `${fields.length} columns instead of ${names.length}`);
    }
    let value: string;
    if (this.#options.valueAs === 'raw') {
      value = valueAt === undefined ? raw : (fields[valueAt[0] as number] as string);
    } else {
      const shown = valueAt ?? names.map((_, i) => i);
      value = JSON.stringify(Object.fromEntries(shown.map((i) => [names[i] as string, fields[i] as string])));
    }
    return this.#row(line, fields[keyAt] as string, value);
  }

  #mapObject(line: number, object: Readonly<Record<string, unknown>>, raw: string): MappedRow {
    const { keyColumn, valueColumns, valueAs } = this.#options;
    const key = Object.hasOwn(object, keyColumn) ? object[keyColumn] : undefined;
    if (typeof key !== 'string' && typeof key !== 'number') {
      const found = key === undefined ? 'is missing' : 'is neither text nor a number';
      return rejected(line, 'NoKeyField', `the key field ${JSON.stringify(keyColumn)} ${found}`);
    }
    if (valueColumns === undefined) {
      return this.#row(line, String(key), raw);
    }
    const absent = valueColumns.find((column) => !Object.hasOwn(object, column));
    if (absent !== undefined) {
      return rejected(line, 'WrongColumnCount', `the field ${JSON.stringify(absent)} is missing`);
    }
    if (valueAs === 'raw') {
      const only = object[valueColumns[0] as string];
      return this.#row(line, String(key), typeof only === 'string' ? only : JSON.stringify(only));
    }
    return this.#row(
      line,
      String(key),
      JSON.stringify(Object.fromEntries(valueColumns.map((name) => [name, object[name]]))),
    );
  }

  #row(line: number, keyText: string, valueText: string): MappedRow {
    const { keyPrefix, keyBytesMax, entryBytesMax } = this.#options;
    if (keyText === '') {
      return rejected(line, 'EmptyKey', 'the key is empty');
    }
    const key = utf8(keyPrefix + keyText);
    if (key.length > keyBytesMax) {
      return rejected(line, 'KeyTooLarge', `the key has ${key.length} bytes, the limit is ${keyBytesMax}`);
    }
    const value = utf8(valueText);
    if (key.length + value.length > entryBytesMax) {
      return rejected(
        line,
        'ValueTooLarge',
        `key and value have ${key.length + value.length} bytes, the limit is ${entryBytesMax}`,
      );
    }
    return { type: 'row', row: { line, key, value } };
  }
}

const rejected = (line: number, code: RejectCode, reason: string): MappedRow => ({
  type: 'reject',
  reject: { line, code, reason },
});
