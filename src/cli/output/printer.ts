/**
 * Prints what a command found: data to stdout in the chosen mode, remarks to stderr. Commands describe their data once
 * (columns for people, an object for machines) and never look at the mode.
 */
import { closestName } from '../../client/options.ts';
import type { CliIo } from '../io.ts';
import { UsageError } from '../failure.ts';
import { type Document, JsonListWriter, YamlListWriter, toJson, toJsonLine, toYaml } from './document.ts';
import type { OutputMode } from './mode.ts';
import { type Condition, filterRows, findColumn, sortRows, withFields } from './select.ts';
import { type Column, TableLayout, WIDTH_SAMPLE_ROWS, formatTable } from './table.ts';

export interface PrinterOptions {
  readonly mode: OutputMode;
  readonly hasHead: boolean;
  /** Heads of the columns to show, in this order; undefined shows the usual ones. */
  readonly columns: readonly string[] | undefined;
  /** Column or field to sort by; a leading minus reverses. */
  readonly sortBy: string | undefined;
  /** Only rows for which all of these hold. */
  readonly where: readonly Condition[];
  /** At most so many rows; undefined shows all. */
  readonly limit: number | undefined;
  /** Only these fields of each row; undefined shows the usual ones. */
  readonly fields: readonly string[] | undefined;
  /** No remarks on stderr; errors are printed all the same. */
  readonly isQuiet: boolean;
}

/** How one kind of list looks. */
export interface ListShape<R> {
  /** For example `StoreList`. */
  readonly kind: string;
  readonly columns: readonly Column<R>[];
  readonly toObject: (row: R) => object;
  /** For the mode `name`. */
  readonly name?: (row: R) => string;
  /** For the mode `raw`, line feeds included. */
  readonly raw?: (row: R) => string | Uint8Array;
}

/** One named value of a single thing. */
export interface Field {
  readonly name: string;
  readonly value: string | number;
  readonly isWide?: boolean;
}

/** A table below the fields of a single thing. */
export interface Section {
  readonly title: string;
  readonly text: (hasHead: boolean) => string;
}

export const section = <R>(title: string, columns: readonly Column<R>[], rows: readonly R[]): Section => ({
  title,
  text: (hasHead) => formatTable(columns, rows, hasHead),
});

export interface Single {
  readonly document: Document;
  readonly fields: readonly Field[];
  readonly sections?: readonly Section[];
  /** For the modes `name` and `raw`. */
  readonly name?: string;
  readonly raw?: string | Uint8Array;
}

const FIELD_COLUMNS: readonly Column<Field>[] = [
  { head: 'field', cell: (field) => field.name },
  { head: 'value', cell: (field) => field.value },
];

export class Printer {
  readonly #io: CliIo;
  readonly #options: PrinterOptions;

  constructor(io: CliIo, options: PrinterOptions) {
    this.#io = io;
    this.#options = options;
  }

  get mode(): OutputMode {
    return this.#options.mode;
  }

  /** A remark for people, ending in a line feed. */
  async note(text: string): Promise<void> {
    if (!this.#options.isQuiet) {
      await this.#io.stderr.write(`${text}\n`);
    }
  }

  /** Whether rows are chosen or ordered here, so that all of them must be known first. */
  get isChoosy(): boolean {
    return this.#options.where.length > 0 || this.#options.sortBy !== undefined;
  }

  /**
   * The rows that `--where` leaves. With `isPart` they are some rows of a list that goes on: a field
   * that they all lack may be there in later ones.
   */
  chosen<R>(shape: ListShape<R>, rows: readonly R[], isPart = false): readonly R[] {
    return filterRows(shape, rows, this.#options.where, isPart);
  }

  /** `tail` adds fields to the document of the whole list. */
  async list<R>(given: ListShape<R>, rows: readonly R[], tail: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const { mode, hasHead, sortBy, limit, fields } = this.#options;
    const chosen = this.chosen(given, rows);
    const sorted = (sortBy === undefined ? chosen : sortRows(given, chosen, sortBy)).slice(0, limit);
    const shape = fields === undefined ? given : { ...given, ...withFields(given, rows, fields) };
    switch (mode) {
      case 'table':
      case 'wide':
        await this.#out(formatTable(this.#shownColumns(shape.columns), sorted, hasHead));
        break;
      case 'json':
        await this.#out(toJson({ kind: shape.kind, items: sorted.map(shape.toObject), ...tail }));
        break;
      case 'yaml':
        await this.#out(toYaml({ kind: shape.kind, items: sorted.map(shape.toObject), ...tail }));
        break;
      case 'jsonl':
        await this.#out(sorted.map((row) => toJsonLine(shape.toObject(row))).join(''));
        break;
      case 'name':
        await this.#out(sorted.map((row) => `${shape.name?.(row) ?? ''}\n`).join(''));
        break;
      case 'raw':
        for (const row of sorted) {
          await this.#out(shape.raw?.(row) ?? '');
        }
        break;
    }
  }

  /** Prints while the blocks still come; memory does not grow with their number. Returns how many rows there were. */
  async stream<R>(shape: ListShape<R>, blocks: AsyncIterable<readonly R[]>): Promise<number> {
    const { mode, hasHead } = this.#options;
    if (this.#options.sortBy !== undefined) {
      throw new UsageError(
        'rows that are printed while they are read cannot be sorted',
        'leave --sort-by out, or pass the output to sort',
      );
    }
    const json = new JsonListWriter(shape.kind);
    const yaml = new YamlListWriter(shape.kind);
    const isTable = mode === 'table' || mode === 'wide';
    const table = isTable ? new TableLayout(this.#shownColumns(shape.columns), hasHead) : undefined;
    let sample: R[] | undefined = [];
    let count = 0;
    if (mode === 'json') {
      await this.#out(json.head());
    } else if (mode === 'yaml') {
      await this.#out(yaml.head());
    }
    for await (const rows of blocks) {
      count += rows.length;
      switch (mode) {
        case 'json':
          await this.#out(rows.map((row) => json.row(shape.toObject(row))).join(''));
          break;
        case 'yaml':
          await this.#out(rows.map((row) => yaml.row(shape.toObject(row))).join(''));
          break;
        case 'jsonl':
          await this.#out(rows.map((row) => toJsonLine(shape.toObject(row))).join(''));
          break;
        case 'name':
          await this.#out(rows.map((row) => `${shape.name?.(row) ?? ''}\n`).join(''));
          break;
        case 'raw':
          for (const row of rows) {
            await this.#out(shape.raw?.(row) ?? '');
          }
          break;
        case 'table':
        case 'wide':
          if (sample === undefined) {
            await this.#out((table as TableLayout<R>).block(rows));
            break;
          }
          sample.push(...rows);
          if (sample.length >= WIDTH_SAMPLE_ROWS) {
            await this.#out((table as TableLayout<R>).block(sample));
            sample = undefined;
          }
          break;
      }
    }
    if (mode === 'json') {
      await this.#out(json.end());
    } else if (mode === 'yaml') {
      await this.#out(yaml.end());
    } else if (table !== undefined && sample !== undefined) {
      await this.#out(table.block(sample));
    }
    return count;
  }

  async single(thing: Single): Promise<void> {
    const { mode, hasHead } = this.#options;
    switch (mode) {
      case 'json':
        await this.#out(toJson(thing.document));
        break;
      case 'yaml':
        await this.#out(toYaml(thing.document));
        break;
      case 'jsonl':
        await this.#out(toJsonLine(thing.document));
        break;
      case 'name':
        await this.#out(`${thing.name ?? ''}\n`);
        break;
      case 'raw':
        await this.#out(thing.raw ?? '');
        break;
      case 'table':
      case 'wide': {
        const fields = thing.fields.filter((field) => mode === 'wide' || field.isWide !== true);
        let text = formatTable(FIELD_COLUMNS, fields, hasHead);
        for (const part of thing.sections ?? []) {
          text += `\n${hasHead ? `${part.title}:\n` : ''}${part.text(hasHead)}`;
        }
        await this.#out(text);
        break;
      }
    }
  }

  #out(data: string | Uint8Array): Promise<void> {
    return this.#io.stdout.write(data);
  }

  #shownColumns<R>(all: readonly Column<R>[]): readonly Column<R>[] {
    const wanted = this.#options.columns;
    if (wanted === undefined) {
      return all.filter((column) => this.#options.mode === 'wide' || column.isWide !== true);
    }
    return wanted.map((head) => requireColumn(all, head, '--columns'));
  }
}

function requireColumn<R>(all: readonly Column<R>[], head: string, flag: string): Column<R> {
  const found = findColumn(all, head);
  if (found === undefined) {
    const heads = all.map((column) => column.head);
    const closest = closestName(head, heads);
    throw new UsageError(
      `${flag} names no column ${JSON.stringify(head)}`,
      closest === undefined ? `columns: ${heads.join(', ')}` : `did you mean ${closest}? columns: ${heads.join(', ')}`,
    );
  }
  return found;
}
