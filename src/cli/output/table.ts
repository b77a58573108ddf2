/** Tables for people and for grep and awk: no borders, upper-case heads, one line per row, nothing truncated. */

export interface Column<R> {
  /** Head as shown; also the name for --columns, without case. */
  readonly head: string;
  readonly cell: (row: R) => string | number;
  /** What `--where` and `--sort-by` compare when the cell is not it: bytes, milliseconds, counts. */
  readonly value?: (row: R) => string | number | bigint | boolean | undefined;
  readonly align?: 'left' | 'right';
  /** Left out unless the output mode is wide or the column is asked for by name. */
  readonly isWide?: boolean;
}

const GAP = '   ';
/** Rows that decide the widths of a table that is written while its rows still come. */
export const WIDTH_SAMPLE_ROWS = 200;

/** What an empty cell looks like, so that columns can be counted by awk. */
const EMPTY_CELL = '-';

/** Control characters would break lines and columns. */
function cellText(value: string | number): string {
  const text = String(value).replace(
    /[\u0000-\u001f\u007f-\u009f]/g,
    (c) => `\\x${(c.codePointAt(0) as number).toString(16).padStart(2, '0')}`,
  );
  return text === '' ? EMPTY_CELL : text;
}

/** Code points; wide characters count as one. */
const widthOf = (text: string): number => [...text].length;

const pad = (text: string, width: number, align: 'left' | 'right'): string => {
  const space = ' '.repeat(Math.max(0, width - widthOf(text)));
  return align === 'right' ? space + text : text + space;
};

/** Writes rows in blocks: the first block fixes the widths, later rows may only widen their own line. */
export class TableLayout<R> {
  readonly #columns: readonly Column<R>[];
  readonly #hasHead: boolean;
  #widths: number[] | undefined;

  constructor(columns: readonly Column<R>[], hasHead: boolean) {
    this.#columns = columns;
    this.#hasHead = hasHead;
  }

  /** The lines of a block of rows, the head before the first one. */
  block(rows: readonly R[]): string {
    const cells = rows.map((row) => this.#columns.map((column) => cellText(column.cell(row))));
    const isFirst = this.#widths === undefined;
    this.#widths ??= this.#columns.map((column, i) =>
      Math.max(this.#hasHead ? widthOf(column.head) : 0, ...cells.map((line) => widthOf(line[i] as string))),
    );
    let text = '';
    if (isFirst && this.#hasHead) {
      text += this.#line(this.#columns.map((column) => column.head.toUpperCase()));
    }
    for (const line of cells) {
      text += this.#line(line);
    }
    return text;
  }

  #line(cells: readonly string[]): string {
    const widths = this.#widths as number[];
    return `${cells
      .map((cell, i) => pad(cell, widths[i] as number, this.#columns[i]?.align ?? 'left'))
      .join(GAP)
      .trimEnd()}\n`;
  }
}

export function formatTable<R>(columns: readonly Column<R>[], rows: readonly R[], hasHead: boolean): string {
  return new TableLayout(columns, hasHead).block(rows);
}
