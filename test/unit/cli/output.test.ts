import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { JsonListWriter, YamlListWriter, toJson, toJsonLine, toYaml } from '../../../src/cli/output/document.ts';
import { Printer, type ListShape, type PrinterOptions, section } from '../../../src/cli/output/printer.ts';
import { formatProgress, ProgressLine } from '../../../src/cli/output/progress.ts';
import { type Column, TableLayout, formatTable } from '../../../src/cli/output/table.ts';
import type { CliIo } from '../../../src/cli/io.ts';
import { MemorySink } from './harness.ts';

interface Row {
  readonly id: number;
  readonly name: string;
  readonly size: number;
}

const ROWS: readonly Row[] = [
  { id: 2, name: 'beta', size: 10 },
  { id: 11, name: '', size: 9 },
];

const SHAPE: ListShape<Row> = {
  kind: 'RowList',
  columns: [
    { head: 'id', cell: (row) => row.id, align: 'right' },
    { head: 'name', cell: (row) => row.name },
    { head: 'size', cell: (row) => row.size, align: 'right', isWide: true },
  ],
  toObject: (row) => ({ ...row }),
  name: (row) => String(row.id),
  raw: (row) => `${row.name};`,
};

function printerOf(options: Partial<PrinterOptions> = {}): {
  printer: Printer;
  stdout: MemorySink;
  stderr: MemorySink;
} {
  const stdout = new MemorySink();
  const stderr = new MemorySink();
  const io = { stdout, stderr } as unknown as CliIo;
  const printer = new Printer(io, {
    mode: 'table',
    hasHead: true,
    columns: undefined,
    sortBy: undefined,
    where: [],
    limit: undefined,
    fields: undefined,
    isQuiet: false,
    ...options,
  });
  return { printer, stdout, stderr };
}

async function listed(options: Partial<PrinterOptions>): Promise<string> {
  const { printer, stdout } = printerOf(options);
  await printer.list(SHAPE, ROWS);
  return stdout.text;
}

describe('tables', () => {
  test('have upper-case heads, no borders and no space at the end of a line', async () => {
    expect(await listed({})).toBe('ID   NAME\n 2   beta\n11   -\n');
  });

  test('show more columns when they are wide', async () => {
    expect(await listed({ mode: 'wide' })).toBe('ID   NAME   SIZE\n 2   beta     10\n11   -         9\n');
  });

  test('leave out the heads on request', async () => {
    expect(await listed({ hasHead: false })).toBe(' 2   beta\n11   -\n');
  });

  test('show the columns asked for, in that order and without case', async () => {
    expect(await listed({ columns: ['SIZE', 'id'] })).toBe('SIZE   ID\n  10    2\n   9   11\n');
  });

  test('suggest the nearest column', async () => {
    await expect(listed({ columns: ['nmae'] })).rejects.toMatchObject({
      code: 'Usage',
      hint: expect.stringContaining('did you mean name?') as string,
    });
  });

  test('are sorted by number where cells are numbers, and reversed by a minus', async () => {
    expect(await listed({ sortBy: 'size', hasHead: false })).toBe('11   -\n 2   beta\n');
    expect(await listed({ sortBy: '-id', hasHead: false })).toBe('11   -\n 2   beta\n');
    expect(await listed({ sortBy: 'id', hasHead: false })).toBe(' 2   beta\n11   -\n');
  });

  test('never break lines and never truncate', () => {
    const columns: Column<string>[] = [
      { head: 'a', cell: (row) => row },
      { head: 'b', cell: () => 'x' },
    ];
    expect(formatTable(columns, ['line\nbreak\u001B[31m'], true)).toBe(
      'A                       B\nline\\x0abreak\\x1b[31m   x\n',
    );
    expect(formatTable(columns, ['y'.repeat(500)], false)).toContain('y'.repeat(500));
  });

  test('keep their widths when rows come in blocks, with one head', () => {
    const layout = new TableLayout(SHAPE.columns.slice(0, 2), true);
    expect(layout.block([ROWS[1] as Row]) + layout.block([ROWS[0] as Row])).toBe('ID   NAME\n11   -\n 2   beta\n');
  });

  test('an empty table is its head', () => {
    expect(formatTable(SHAPE.columns.slice(0, 2), [], true)).toBe('ID   NAME\n');
  });
});

describe('documents', () => {
  const document = {
    kind: 'Thing',
    id: 7,
    ts: 2n ** 60n,
    absent: undefined,
    list: [{ x: undefined, y: 1n }],
    none: null,
  };

  test('name their version and kind, and 64-bit values are text', () => {
    expect(toJson(document)).toBe(
      `{\n  "apiVersion": "braid/v1",\n  "kind": "Thing",\n  "id": 7,\n  "ts": "1152921504606846976",\n  "list": [\n    {\n      "y": "1"\n    }\n  ],\n  "none": null\n}\n`,
    );
  });

  test('say the same in YAML', () => {
    expect(toYaml(document)).toBe(
      `apiVersion: braid/v1\nkind: Thing\nid: 7\nts: "1152921504606846976"\nlist:\n  - y: "1"\nnone: null\n`,
    );
  });

  test('rows of a stream are one line each', () => {
    expect(toJsonLine({ key: 'a', value: 'x\ny' })).toBe('{"key":"a","value":"x\\ny"}\n');
  });

  test.each([
    [[]],
    [[{ a: 1 }]],
    [
      [
        { a: 1, text: 'x\n  y: z\n' },
        { b: [1, 2], c: { d: '' } },
      ],
    ],
  ])('a list written row by row is the text of the whole document: %j', (rows) => {
    const json = new JsonListWriter('RowList');
    const text = json.head() + rows.map((row) => json.row(row)).join('') + json.end();
    expect(text).toBe(toJson({ kind: 'RowList', items: rows }));
    const yaml = new YamlListWriter('RowList');
    const yamlText = yaml.head() + rows.map((row) => yaml.row(row)).join('') + yaml.end();
    expect(parse(yamlText)).toEqual({ apiVersion: 'braid/v1', kind: 'RowList', items: rows });
  });

  test('fields after the items are part of the document', () => {
    const json = new JsonListWriter('RowList');
    expect(JSON.parse(json.head() + json.row({ a: 1 }) + json.end({ more: true }))).toEqual({
      apiVersion: 'braid/v1',
      kind: 'RowList',
      items: [{ a: 1 }],
      more: true,
    });
  });
});

describe('modes', () => {
  test('a list can be JSON, JSON lines, YAML, names or raw', async () => {
    expect(JSON.parse(await listed({ mode: 'json' }))).toEqual({
      apiVersion: 'braid/v1',
      kind: 'RowList',
      items: ROWS,
    });
    expect(await listed({ mode: 'jsonl' })).toBe('{"id":2,"name":"beta","size":10}\n{"id":11,"name":"","size":9}\n');
    expect(parse(await listed({ mode: 'yaml' }))).toEqual({ apiVersion: 'braid/v1', kind: 'RowList', items: ROWS });
    expect(await listed({ mode: 'name' })).toBe('2\n11\n');
    expect(await listed({ mode: 'raw' })).toBe('beta;;');
  });

  test.each(['table', 'wide', 'json', 'jsonl', 'name', 'raw'] as const)(
    'a stream of blocks prints the same %s as the list',
    async (mode) => {
      const { printer, stdout } = printerOf({ mode });
      const blocks = async function* (): AsyncGenerator<readonly Row[]> {
        yield [ROWS[0] as Row];
        yield [ROWS[1] as Row];
      };
      expect(await printer.stream(SHAPE, blocks())).toBe(2);
      expect(stdout.text).toBe(await listed({ mode }));
    },
  );

  test('a stream of more rows than the sample keeps every row', async () => {
    const { printer, stdout } = printerOf();
    const blocks = async function* (): AsyncGenerator<readonly Row[]> {
      for (let block = 0; block < 9; block++) {
        yield Array.from({ length: 50 }, (_, i) => ({ id: block * 50 + i, name: 'n', size: 0 }));
      }
    };
    expect(await printer.stream(SHAPE, blocks())).toBe(450);
    expect(stdout.text.trimEnd().split('\n')).toHaveLength(451);
  });

  test('a single thing is fields and sections for people', async () => {
    const { printer, stdout } = printerOf();
    await printer.single({
      document: { kind: 'Thing' },
      fields: [
        { name: 'id', value: 7 },
        { name: 'secret', value: 1, isWide: true },
      ],
      sections: [section('Rows', SHAPE.columns, ROWS.slice(0, 1))],
    });
    expect(stdout.text).toBe('FIELD   VALUE\nid      7\n\nRows:\nID   NAME   SIZE\n 2   beta     10\n');
  });

  test('remarks go to stderr, unless quiet', async () => {
    const loud = printerOf();
    await loud.printer.note('hello');
    expect([loud.stdout.text, loud.stderr.text]).toEqual(['', 'hello\n']);
    const quiet = printerOf({ isQuiet: true });
    await quiet.printer.note('hello');
    expect(quiet.stderr.text).toBe('');
  });
});

describe('progress', () => {
  const state = { done: 25, total: 100, unit: 'rows', count: 5000, remark: '3 refused' };

  test('shows a bar, the speed and the time left when the total is known', () => {
    expect(formatProgress(state, 2000, 0)).toBe(
      '[######..................]  25%  5,000 rows  2,500/s  6.0s left  3 refused',
    );
  });

  test('invents no share when the total is unknown', () => {
    expect(formatProgress({ ...state, total: 0, remark: '' }, 2000, 0)).toBe('5,000 rows  2,500/s');
  });

  test('never is wider than the terminal', () => {
    expect(formatProgress(state, 2000, 20).length).toBeLessThan(20);
  });

  test('is redrawn in place on a terminal and written rarely elsewhere', async () => {
    for (const isTerminal of [true, false]) {
      let now = 0;
      const sink = new MemorySink(isTerminal, isTerminal ? 80 : 0);
      const line = new ProgressLine(sink, false, () => now);
      for (now = 0; now <= 10_000; now += 50) {
        await line.update(() => state);
      }
      await line.clear();
      const drawn = sink.text.split('5,000 rows').length - 1;
      expect(drawn).toBe(isTerminal ? 100 : 1);
      expect(sink.text.includes('\r')).toBe(isTerminal);
    }
  });

  test('is silent when quiet', async () => {
    let now = 0;
    const sink = new MemorySink(true, 80);
    const line = new ProgressLine(sink, true, () => now);
    now = 60_000;
    await line.update(() => state);
    await line.clear();
    expect(sink.text).toBe('');
  });
});
