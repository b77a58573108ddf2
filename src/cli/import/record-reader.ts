/**
 * Turns lines into records of fields for each format. A line that is no record becomes a rejection with its number and
 * the reason; reading goes on with the next line. The only importer of `csv-parse`.
 *
 * - tsv: fields are separated by one tab; there is no quoting and no escape, a quote is a character like any other.
 * - csv: RFC 4180; a quoted field may contain delimiters, doubled quotes and line feeds.
 * - jsonl: one JSON object per line.
 * - rows: the same, each object a row as `braid offline dump` prints it.
 */
import { parse } from 'csv-parse/sync';
import type { SourceLine } from './line-reader.ts';

export const IMPORT_FORMATS = ['tsv', 'csv', 'jsonl', 'rows'] as const;
export type ImportFormat = (typeof IMPORT_FORMATS)[number];

export type RejectCode =
  | 'NotUtf8'
  | 'LineTooLong'
  | 'BadQuoting'
  | 'NotJson'
  | 'NotARow'
  | 'WrongColumnCount'
  | 'NoKeyField'
  | 'EmptyKey'
  | 'KeyTooLarge'
  | 'ValueTooLarge'
  | 'DuplicateKey'
  | 'WriteFailed'
  | 'OutcomeUnknown';

export interface Reject {
  /** Number of the line where the row starts, from 1. */
  readonly line: number;
  readonly code: RejectCode;
  readonly reason: string;
}

export type SourceRecord =
  | { readonly type: 'fields'; readonly line: number; readonly fields: readonly string[]; readonly raw: string }
  | {
      readonly type: 'object';
      readonly line: number;
      readonly object: Readonly<Record<string, unknown>>;
      readonly raw: string;
    }
  | { readonly type: 'reject'; readonly reject: Reject };

/** A quoted field may span so many lines; beyond that its opening quote is taken for a mistake. */
const CSV_LINES_PER_RECORD_MAX = 10_000;

const BAD_LINE: Readonly<Record<'not-utf8' | 'too-long', { code: RejectCode; reason: string }>> = {
  'not-utf8': { code: 'NotUtf8', reason: 'the line is not UTF-8 text' },
  'too-long': { code: 'LineTooLong', reason: 'the line is longer than any value may be' },
};

const badLine = (line: number, problem: 'not-utf8' | 'too-long'): SourceRecord => ({
  type: 'reject',
  reject: { line, ...BAD_LINE[problem] },
});

const withoutReturn = (text: string): string => (text.endsWith('\r') ? text.substring(0, text.length - 1) : text);

export interface RecordReaderOptions {
  readonly format: ImportFormat;
  /** One or more characters; used by tsv and csv. */
  readonly delimiter: string;
  /** Characters of one record spanning lines beyond which its opening quote is taken for a mistake. */
  readonly recordCharsMax: number;
}

/** Blocks of records in file order. Empty lines are left out. */
export async function* readRecords(
  blocks: AsyncIterable<readonly SourceLine[]>,
  options: RecordReaderOptions,
): AsyncGenerator<readonly SourceRecord[], void, undefined> {
  if (options.format === 'csv') {
    yield* readCsv(blocks, options);
    return;
  }
  const one = options.format === 'tsv' ? tsvRecord : jsonRecord;
  for await (const lines of blocks) {
    const records: SourceRecord[] = [];
    for (const line of lines) {
      if (line.type === 'bad') {
        records.push(badLine(line.line, line.problem));
        continue;
      }
      const text = withoutReturn(line.text);
      if (text !== '') {
        records.push(one(text, line.line, options.delimiter));
      }
    }
    yield records;
  }
}

function tsvRecord(text: string, line: number, delimiter: string): SourceRecord {
  return { type: 'fields', line, fields: text.split(delimiter), raw: text };
}

function jsonRecord(text: string, line: number): SourceRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { type: 'reject', reject: { line, code: 'NotJson', reason: `not JSON: ${reason}` } };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return { type: 'reject', reject: { line, code: 'NotJson', reason: 'the line is JSON, but not an object' } };
  }
  return { type: 'object', line, object: value as Record<string, unknown>, raw: text.trim() };
}

interface CsvRecord {
  readonly line: number;
  /** The lines the record consists of. */
  readonly lines: readonly { readonly line: number; readonly text: string }[];
}

/**
 * Every well-formed record has an even number of quotes, so lines are joined until the number is even. Complete records
 * are parsed many at a time; if that fails, one by one, and of a broken record only the first line is rejected and its
 * other lines are looked at again: one forgotten quote does not swallow the rest of the file.
 */
async function* readCsv(
  blocks: AsyncIterable<readonly SourceLine[]>,
  options: RecordReaderOptions,
): AsyncGenerator<readonly SourceRecord[], void, undefined> {
  const splitter = new CsvSplitter(options);
  for await (const lines of blocks) {
    yield splitter.take(lines);
  }
  yield splitter.end();
}

class CsvSplitter {
  readonly #delimiter: string;
  readonly #charsMax: number;
  /** Lines of a record whose last quote is still open. */
  #open: { readonly line: number; readonly text: string }[] = [];
  #openChars = 0;

  constructor(options: RecordReaderOptions) {
    this.#delimiter = options.delimiter;
    this.#charsMax = options.recordCharsMax;
  }

  take(lines: readonly SourceLine[]): SourceRecord[] {
    const out: SourceRecord[] = [];
    let complete: CsvRecord[] = [];
    const flush = (): void => {
      out.push(...this.#parse(complete));
      complete = [];
    };
    // Grows at its end while lines of a broken record are put back; read with an index for that reason.
    const queue: SourceLine[] = [...lines];
    for (let i = 0; i < queue.length; i++) {
      const line = queue[i] as SourceLine;
      if (line.type === 'bad') {
        flush();
        if (this.#open.length > 0) {
          queue.splice(i, 0, ...this.#giveUp(out));
          i--;
          continue;
        }
        out.push(badLine(line.line, line.problem));
        continue;
      }
      if (this.#open.length === 0) {
        if (isEven(line.text)) {
          if (withoutReturn(line.text) !== '') {
            complete.push({ line: line.line, lines: [line] });
          }
          continue;
        }
        this.#open = [line];
        this.#openChars = line.text.length;
        continue;
      }
      this.#open.push(line);
      this.#openChars += line.text.length + 1;
      if (!isEven(line.text)) {
        const record: CsvRecord = { line: (this.#open[0] as { line: number }).line, lines: this.#open };
        this.#open = [];
        // Parsed alone: if it is broken, its lines go back into the queue before anything after them is looked at.
        flush();
        const parsed = this.#parseOne(record);
        out.push(parsed);
        if (parsed.type === 'reject') {
          queue.splice(i + 1, 0, ...record.lines.slice(1).map((part) => ({ type: 'line' as const, ...part })));
        }
      } else if (this.#open.length >= CSV_LINES_PER_RECORD_MAX || this.#openChars > this.#charsMax) {
        flush();
        queue.splice(i + 1, 0, ...this.#giveUp(out));
      }
    }
    flush();
    return out;
  }

  /** What is left at the end of the file. */
  end(): SourceRecord[] {
    const out: SourceRecord[] = [];
    while (this.#open.length > 0) {
      const rest = this.#giveUp(out);
      out.push(...this.take(rest));
    }
    return out;
  }

  /** Rejects the first line of the open record and returns the others. */
  #giveUp(out: SourceRecord[]): SourceLine[] {
    const [first, ...rest] = this.#open;
    this.#open = [];
    if (first !== undefined) {
      out.push({
        type: 'reject',
        reject: { line: first.line, code: 'BadQuoting', reason: 'a quote is opened in this line and never closed' },
      });
    }
    return rest.map((part) => ({ type: 'line', ...part }));
  }

  #parse(records: readonly CsvRecord[]): SourceRecord[] {
    if (records.length === 0) {
      return [];
    }
    const raws = records.map(rawOf);
    let rows: string[][];
    try {
      rows = this.#fields(raws.join('\n'));
    } catch {
      return records.map((record) => this.#parseOne(record));
    }
    if (rows.length !== records.length) {
      return records.map((record) => this.#parseOne(record));
    }
    return rows.map((fields, i) => ({
      type: 'fields',
      line: (records[i] as CsvRecord).line,
      fields,
      raw: raws[i] as string,
    }));
  }

  #parseOne(record: CsvRecord): SourceRecord {
    const raw = rawOf(record);
    const reject = (reason: string): SourceRecord => ({
      type: 'reject',
      reject: { line: record.line, code: 'BadQuoting', reason },
    });
    let rows: string[][];
    try {
      rows = this.#fields(raw);
    } catch (error) {
      return reject(error instanceof Error ? error.message.replace(/ at line \d+/, '') : String(error));
    }
    const [fields] = rows;
    if (rows.length !== 1 || fields === undefined) {
      return reject('the quotes of this row do not pair up');
    }
    return { type: 'fields', line: record.line, fields, raw };
  }

  #fields(text: string): string[][] {
    return parse(text, {
      delimiter: this.#delimiter,
      record_delimiter: '\n',
      relax_column_count: true,
      bom: false,
    });
  }
}

const rawOf = (record: CsvRecord): string => withoutReturn(record.lines.map((part) => part.text).join('\n'));

function isEven(text: string): boolean {
  let isEvenSoFar = true;
  for (let at = text.indexOf('"'); at >= 0; at = text.indexOf('"', at + 1)) {
    isEvenSoFar = !isEvenSoFar;
  }
  return isEvenSoFar;
}
