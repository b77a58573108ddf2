/** `braid import`: many rows of a file become entries. A bad row is refused with its line number, the others go in. */
import type { ReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { extname } from 'node:path';
import { createGunzip } from 'node:zlib';
import { pipeline } from 'node:stream';
import { type Command, Option } from 'commander';
import { KIB } from '../../base/units.ts';
import { ENTRY_BYTES_MAX, KEY_BYTES_MAX } from '../../client/defaults.ts';
import type { Braid } from '../../client/kv.ts';
import { type App, addCommand } from '../command.ts';
import { choice, count, flag, words } from '../common-options.ts';
import { EXIT_DONE, EXIT_INTERRUPTED, EXIT_PARTLY, type ExitCode, exitCodeOf } from '../exit-code.ts';
import { InputFileError, UsageError } from '../failure.ts';
import { COMMON_MODES } from '../output/mode.ts';
import { section } from '../output/printer.ts';
import { ProgressLine } from '../output/progress.ts';
import type { Session } from '../session.ts';
import { formatAge, formatCount } from '../text-form.ts';
import { DumpedRowMapper } from './dumped-row.ts';
import { LoadStoppedError, Loader, type DuplicatePolicy, type WriteRows } from './loader.ts';
import { readLines } from './line-reader.ts';
import { IMPORT_FORMATS, type ImportFormat, type Reject, type RejectCode, readRecords } from './record-reader.ts';
import { type Row, RowMapper } from './row-mapper.ts';

export interface ImportFlags {
  readonly format?: ImportFormat;
  readonly keyColumn?: string;
  readonly keyPrefix: string;
  readonly valueColumns?: readonly string[];
  readonly valueAs: 'json' | 'raw';
  readonly delimiter?: string;
  readonly header?: boolean;
  /** Takes the place of the common flag of that name. */
  readonly columns?: readonly string[];
  readonly onDuplicate: DuplicatePolicy;
  readonly batch: number;
  readonly concurrency: number;
  readonly rejects?: string;
  readonly dryRun?: true;
}

const BATCH_ROWS_DEFAULT = 256;
const BATCH_ROWS_MAX = 4096;
const BATCH_BYTES_MAX: number = 512 * KIB;
const CONCURRENCY_DEFAULT = 8;
const CONCURRENCY_MAX = 256;
/** A row's text may be longer than its entry, by quoting and by columns that are not stored. */
const LINE_BYTES_MAX: number = 2 * ENTRY_BYTES_MAX;
/** Rejected rows kept for the summary; all of them go to `--rejects`. */
const REJECTS_KEPT_MAX = 1000;
/** Of those, shown to people. */
const REJECTS_SHOWN_MAX = 50;
/** Longest text of a rejected row in the file of `--rejects`. */
const REJECT_REASON_CHARS_MAX = 500;

const DELIMITERS: Readonly<Record<ImportFormat, string>> = { tsv: '\t', csv: ',', jsonl: '', rows: '' };

export function registerImportCommand(program: Command, app: App): void {
  addCommand<ImportFlags>(program, app, {
    usage: 'import <file>',
    summary: 'Store the rows of a TSV, CSV or JSON lines file, or of a dump',
    details: [
      'The key is one column; the value is the whole row as a JSON object, or what --value-columns and --value-as say.',
      'With --format rows it reads what "braid offline dump" and "braid scan -o jsonl" print: keys, values and times to live come back as they were.',
      'FILE may be - for stdin and may be compressed (.gz).',
      'A row with the wrong number of columns, an empty key, or a key or value over its limit is refused with its line number, and the others go in; the exit code is then 2.',
      'Of several rows with one key the last one in the file wins; --on-duplicate refuse refuses all but the first.',
      'Rows are written in batches that are not atomic; run an interrupted import again.',
    ].join(' '),
    arguments: { file: 'path, or - for stdin' },
    examples: [
      'braid import packages.tsv --format tsv --key-column package',
      'braid import packages.tsv.gz --columns package,version,section,size,description --key-column package --key-prefix pkg:',
      'braid import users.csv --key-column 1 --header --value-columns name,email',
      'braid import events.jsonl --key-column id --concurrency 16',
      'braid import rows.jsonl --format rows',
    ],
    modes: COMMON_MODES,
    mode: 'table',
    options: [
      flag('--format <format>', `${IMPORT_FORMATS.join(', ')}; by default what the file name ends in`).argParser(
        choice(IMPORT_FORMATS),
      ),
      flag(
        '--key-column <column>',
        'name or number (from 1) of the column with the key; the field of a JSON object; not for rows',
      ),
      flag('--key-prefix <text>', 'put before every key').default(''),
      flag('--value-columns <columns>', 'columns of the value, separated by commas; by default all').argParser(words),
      flag(
        '--value-as <form>',
        'json: an object of the columns; raw: the text of the only value column, or the row as it is',
      )
        .default('json')
        .argParser(choice(['json', 'raw'] as const)),
      flag('--delimiter <text>', 'between columns; by default a tab for tsv and a comma for csv'),
      flag('--header', 'the first line has the names of the columns; by default it is looked at'),
      flag('--no-header', 'the first line is a row'),
      // Without an environment twin: BRAID_COLUMNS means the columns of tables.
      new Option(
        '--columns <names>',
        'names of the columns of a file without a header line, separated by commas',
      ).argParser(words),
      flag('--on-duplicate <policy>', 'last: a later row replaces an earlier one; refuse: it is refused')
        .default('last')
        .argParser(choice(['last', 'refuse'] as const)),
      flag('--batch <rows>', 'rows per request').default(BATCH_ROWS_DEFAULT).argParser(count(1, BATCH_ROWS_MAX)),
      flag('--concurrency <requests>', 'requests under way')
        .default(CONCURRENCY_DEFAULT)
        .argParser(count(1, CONCURRENCY_MAX)),
      flag('--rejects <file>', 'write every refused row there, as JSON lines'),
      flag('--dry-run', 'check every row and store nothing'),
    ],
    task: ([file]) => `import ${file}`,
    run: (session, [file], flags) => importFile(session, file as string, flags),
  }).helpGroup('Data:');
}

/** The format a file name ends in, `.gz` aside. */
export function formatOf(file: string, given: ImportFormat | undefined): ImportFormat {
  if (given !== undefined) {
    return given;
  }
  const ending = extname(file.replace(/\.gz$/, '')).replace('.', '').toLowerCase();
  const found = IMPORT_FORMATS.find(
    (format) =>
      format === ending || (format === 'jsonl' && ending === 'ndjson') || (format === 'tsv' && ending === 'tab'),
  );
  if (found === undefined) {
    throw new UsageError(
      `the format of ${file} is not known from its name`,
      `say --format ${IMPORT_FORMATS.join(', ')}`,
    );
  }
  return found;
}

function delimiterOf(format: ImportFormat, given: string | undefined): string {
  if (given === undefined) {
    return DELIMITERS[format];
  }
  if (format === 'jsonl' || format === 'rows') {
    throw new UsageError('JSON lines have no delimiter', 'leave --delimiter out');
  }
  const delimiter = given.replaceAll(String.raw`\t`, '\t');
  if (delimiter === '' || /["\r\n]/.test(delimiter)) {
    throw new UsageError(
      'the delimiter is empty, a quote or a line break',
      String.raw`for example --delimiter ";" or --delimiter "\t"`,
    );
  }
  return delimiter;
}

interface Input {
  readonly stream: AsyncIterable<Uint8Array>;
  /** 0 when unknown. */
  readonly sizeBytes: number;
  /** Bytes of the file read so far, as stored on disk. */
  readonly readBytes: () => number;
  /** Gives the file back, also one that was not read to its end. */
  readonly close: () => void;
}

async function openInput(session: Session, file: string): Promise<Input> {
  let read = 0;
  const counted = async function* (source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const part of source) {
      read += part.length;
      yield part;
    }
  };
  if (file === '-') {
    return { stream: counted(session.io.stdin), sizeBytes: 0, readBytes: () => read, close: () => {} };
  }
  let sizeBytes: number;
  let source: ReadStream;
  try {
    const found = await stat(file);
    if (found.isDirectory()) {
      throw new InputFileError(`${file} is a directory`, 'name a file');
    }
    sizeBytes = found.size;
    const handle = await open(file, 'r');
    source = handle.createReadStream({ highWaterMark: 256 * KIB });
  } catch (error) {
    if (error instanceof InputFileError) {
      throw error;
    }
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new InputFileError(
      `${file} cannot be read: ${code === 'ENOENT' ? 'there is no such file' : code}`,
      'check the path',
      { cause: error },
    );
  }
  const raw = counted(source as AsyncIterable<Uint8Array>);
  // A failure ends the iteration over the result; the callback has nothing to add.
  const stream = file.endsWith('.gz') ? pipeline(raw, createGunzip(), () => {}) : raw;
  return {
    stream: stream as AsyncIterable<Uint8Array>,
    sizeBytes,
    readBytes: () => read,
    close: () => source.destroy(),
  };
}

/** Everything the summary tells. */
interface Tally {
  rows: number;
  rejected: number;
  readonly byCode: Map<RejectCode, number>;
  readonly kept: Reject[];
  lastLine: number;
}

function mapperOf(session: Session, format: ImportFormat, flags: ImportFlags): RowMapper | DumpedRowMapper {
  const { keyColumn, valueColumns, valueAs, columns, header, keyPrefix } = flags;
  const limits = { keyPrefix, keyBytesMax: KEY_BYTES_MAX, entryBytesMax: ENTRY_BYTES_MAX };
  if (format === 'rows') {
    if (keyColumn !== undefined || valueColumns !== undefined || valueAs !== 'json') {
      throw new UsageError(
        'rows say themselves what is key and value',
        'leave --key-column, --value-columns and --value-as out',
      );
    }
    return new DumpedRowMapper({ ...limits, keyFormat: session.options.keyFormat, nowMs: Date.now() });
  }
  if (keyColumn === undefined) {
    throw new UsageError(
      'nothing says which column is the key',
      'name it with --key-column; only --format rows goes without',
    );
  }
  return new RowMapper({ ...limits, keyColumn, valueColumns, valueAs, columns, header });
}

async function importFile(session: Session, file: string, flags: ImportFlags): Promise<ExitCode> {
  const format = formatOf(file, flags.format);
  const delimiter = delimiterOf(format, flags.delimiter);
  if ((format === 'jsonl' || format === 'rows') && (flags.columns !== undefined || flags.header !== undefined)) {
    throw new UsageError('JSON lines name their fields themselves', 'leave --columns and --header out');
  }
  const mapper = mapperOf(session, format, flags);
  const input = await openInput(session, file);
  let rejectFile: RejectFile | undefined;
  try {
    rejectFile = flags.rejects === undefined ? undefined : await RejectFile.open(flags.rejects);
    const write = flags.dryRun === true ? writeNothing : writerTo(await session.db(), session);
    return await load(session, file, { format, delimiter, flags, mapper, input, rejectFile, write });
  } finally {
    input.close();
    await rejectFile?.close();
  }
}

interface LoadParts {
  readonly format: ImportFormat;
  readonly delimiter: string;
  readonly flags: ImportFlags;
  readonly mapper: RowMapper | DumpedRowMapper;
  readonly input: Input;
  readonly rejectFile: RejectFile | undefined;
  readonly write: WriteRows;
}

async function load(session: Session, file: string, parts: LoadParts): Promise<ExitCode> {
  const { flags, mapper, input, rejectFile } = parts;
  const tally: Tally = { rows: 0, rejected: 0, byCode: new Map(), kept: [], lastLine: 0 };
  const onReject = (reject: Reject): void => {
    tally.rejected++;
    tally.byCode.set(reject.code, (tally.byCode.get(reject.code) ?? 0) + 1);
    if (tally.kept.length < REJECTS_KEPT_MAX) {
      tally.kept.push(reject);
    }
    rejectFile?.add(reject);
  };
  const loader = new Loader({
    write: parts.write,
    batchRowsMax: flags.batch,
    batchBytesMax: BATCH_BYTES_MAX,
    concurrency: flags.concurrency,
    onDuplicate: flags.onDuplicate,
    onReject,
  });
  const progress = new ProgressLine(session.io.stderr, session.options.quiet);
  const stateOf = (): Parameters<typeof progress.update>[0] => () => ({
    done: input.readBytes(),
    total: input.sizeBytes,
    unit: 'rows',
    count: loader.writtenRows,
    remark: tally.rejected === 0 ? '' : `${formatCount(tally.rejected)} refused`,
  });
  // The answers of the cluster move the count also while nothing is read.
  let failure: unknown;
  try {
    await readInto(session, parts, loader, tally, onReject, () => progress.update(stateOf()));
  } catch (error) {
    failure = error;
  }
  try {
    await loader.finish();
  } catch (error) {
    failure ??= error;
  }
  await rejectFile?.flush();
  await progress.clear();
  if (failure instanceof UsageError) {
    throw failure;
  }
  if (mapper instanceof DumpedRowMapper && mapper.expired > 0) {
    await session.printer.note(`${formatCount(mapper.expired)} rows have expired and were left out`);
  }
  const remark = mapper instanceof RowMapper ? mapper.layout?.remark : undefined;
  if (remark !== undefined) {
    await session.printer.note(remark);
  }
  await printSummary(session, file, tally, loader, progress.elapsedMs, flags.dryRun === true, failure === undefined);
  if (failure === undefined) {
    return tally.rejected === 0 ? EXIT_DONE : EXIT_PARTLY;
  }
  if (session.signal.aborted) {
    await session.printer.note(`interrupted after line ${tally.lastLine}; run the import again to store the rest`);
    return EXIT_INTERRUPTED;
  }
  if (loader.writtenRows === 0) {
    throw failure instanceof LoadStoppedError ? failure.cause : failure;
  }
  await session.io.stderr.write(
    `error: the import of ${file} stopped after line ${tally.lastLine}\nwhy:   ${reasonOf(failure)}\nnext:  run it again when the cluster works; rows already stored are stored once more\n`,
  );
  return exitCodeOf(failure) === 1 ? EXIT_PARTLY : exitCodeOf(failure);
}

async function readInto(
  session: Session,
  parts: LoadParts,
  loader: Loader,
  tally: Tally,
  onReject: (reject: Reject) => void,
  tick: () => Promise<void>,
): Promise<void> {
  const { input, format, delimiter, mapper } = parts;
  const lines = readLines(wrapReadErrors(input.stream), LINE_BYTES_MAX, () => {});
  for await (const block of readRecords(lines, { format, delimiter, recordCharsMax: LINE_BYTES_MAX })) {
    for (const record of block) {
      session.signal.throwIfAborted();
      const mapped = mapper.map(record);
      if (mapped === undefined) {
        continue;
      }
      tally.rows++;
      if (mapped.type === 'reject') {
        tally.lastLine = mapped.reject.line;
        onReject(mapped.reject);
      } else {
        tally.lastLine = mapped.row.line;
        await loader.add(mapped.row);
      }
      await tick();
    }
  }
}

/** A file that breaks off is not a fault of this program. */
async function* wrapReadErrors(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  try {
    yield* source;
  } catch (error) {
    const code = error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? error.message) : String(error);
    throw new InputFileError(
      `the file cannot be read to its end: ${code}`,
      'check the file; a .gz file must be whole',
      { cause: error },
    );
  }
}

const reasonOf = (failure: unknown): string => {
  const cause = failure instanceof LoadStoppedError ? failure.cause : failure;
  return cause instanceof Error ? cause.message.replace(/\s*\n\s*/g, '; ') : String(cause);
};

function writerTo(db: Braid, session: Session): WriteRows {
  return async (rows: readonly Row[]) => {
    const nowMs = Date.now();
    const ops = rows.map(({ key, value, expireAtMs }) => ({
      type: 'put' as const,
      key,
      value,
      // One that expired while it waited lives on for the shortest time there is.
      ...(expireAtMs === undefined ? {} : { ttlMs: Math.max(1, expireAtMs - nowMs) }),
    }));
    // The deadline holds for each request, not for the whole file.
    const results = await db.writeMany(ops, { timeoutMs: session.options.timeout });
    return results.map((result) => (result.type === 'written' ? undefined : result.error));
  };
}

const writeNothing: WriteRows = (rows) => Promise.resolve(rows.map(() => undefined));

async function printSummary(
  session: Session,
  file: string,
  tally: Tally,
  loader: Loader,
  elapsedMs: number,
  isDryRun: boolean,
  isComplete: boolean,
): Promise<void> {
  const rowsPerSecond = elapsedMs > 0 ? Math.round((loader.writtenRows / elapsedMs) * 1000) : 0;
  const byCode = [...tally.byCode].toSorted(([, a], [, b]) => b - a);
  const shown = tally.kept.slice(0, REJECTS_SHOWN_MAX);
  await session.printer.single({
    document: {
      kind: 'ImportSummary',
      file,
      dryRun: isDryRun,
      complete: isComplete,
      rows: tally.rows,
      stored: isDryRun ? 0 : loader.writtenRows,
      refused: tally.rejected,
      storedBytes: isDryRun ? 0 : loader.writtenBytes,
      elapsedMs: Math.round(elapsedMs),
      rowsPerSecond,
      refusedByCode: Object.fromEntries(byCode),
      refusedRows: tally.kept,
      refusedRowsLeftOut: tally.rejected - tally.kept.length,
    },
    fields: [
      { name: 'rows', value: formatCount(tally.rows) },
      { name: isDryRun ? 'would store' : 'stored', value: formatCount(loader.writtenRows) },
      { name: 'refused', value: formatCount(tally.rejected) },
      { name: 'time', value: formatAge(elapsedMs) },
      { name: 'rows per second', value: formatCount(rowsPerSecond) },
    ],
    sections:
      tally.rejected === 0
        ? []
        : [
            section(
              tally.rejected > shown.length
                ? `Refused rows, the first ${shown.length} (all of them with --rejects FILE)`
                : 'Refused rows',
              [
                { head: 'line', cell: (reject: Reject) => reject.line, align: 'right' },
                { head: 'code', cell: (reject: Reject) => reject.code },
                { head: 'reason', cell: (reject: Reject) => reject.reason },
              ],
              shown,
            ),
          ],
  });
}

/** Collects refused rows and writes them one after the other. */
class RejectFile {
  readonly #handle: FileHandle;
  #waiting = '';
  #tail: Promise<void> = Promise.resolve();

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  static async open(path: string): Promise<RejectFile> {
    try {
      return new RejectFile(await open(path, 'w'));
    } catch (error) {
      throw new InputFileError(
        `${path} cannot be written: ${(error as NodeJS.ErrnoException).code ?? String(error)}`,
        'name another file with --rejects',
        {
          cause: error,
        },
      );
    }
  }

  add(reject: Reject): void {
    const reason = reject.reason.substring(0, REJECT_REASON_CHARS_MAX);
    this.#waiting += `${JSON.stringify({ ...reject, reason })}\n`;
    if (this.#waiting.length >= 64 * KIB) {
      void this.flush();
    }
  }

  /** Rejects when something could not be written. */
  flush(): Promise<void> {
    const text = this.#waiting;
    this.#waiting = '';
    this.#tail = this.#tail.then(async () => {
      await this.#handle.writeFile(text);
    });
    // Who awaits the last flush learns of the failure; nobody else has to.
    this.#tail.catch(() => {});
    return this.#tail;
  }

  async close(): Promise<void> {
    await this.#tail.catch(() => {});
    await this.#handle.close();
  }
}
