import { existsSync, mkdtempSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import {
  DeadlineExceededError,
  EntryTooLargeError,
  UnavailableError,
  UndeterminedResultError,
} from '../../../src/client/errors.ts';
import { formatOf } from '../../../src/cli/import/command.ts';
import { type SourceLine, readLines } from '../../../src/cli/import/line-reader.ts';
import { LoadStoppedError, Loader, type LoaderOptions } from '../../../src/cli/import/loader.ts';
import {
  type ImportFormat,
  type Reject,
  type SourceRecord,
  readRecords,
} from '../../../src/cli/import/record-reader.ts';
import { type MapperOptions, type Row, RowMapper } from '../../../src/cli/import/row-mapper.ts';
import { FakeCluster } from '../client/fake-cluster.ts';
import { runAlone, runOn, runWith } from './harness.ts';

async function* chunks(data: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += size) {
    yield data.subarray(at, at + size);
  }
}

async function linesOf(data: string | Uint8Array, size = 7, max = 1000): Promise<SourceLine[]> {
  const all: SourceLine[] = [];
  for await (const block of readLines(chunks(Buffer.from(data as Uint8Array), size), max, () => {})) {
    all.push(...block);
  }
  return all;
}

async function recordsOf(
  text: string,
  format: ImportFormat,
  options: { delimiter?: string; max?: number; chunk?: number } = {},
): Promise<SourceRecord[]> {
  const delimiter = options.delimiter ?? (format === 'tsv' ? '\t' : ',');
  const lines = readLines(chunks(Buffer.from(text), options.chunk ?? 5), 1000, () => {});
  const all: SourceRecord[] = [];
  for await (const block of readRecords(lines, { format, delimiter, recordCharsMax: options.max ?? 1000 })) {
    all.push(...block);
  }
  return all;
}

/** Fields of good rows as they are, `line:code` of bad ones. */
const brief = (records: readonly SourceRecord[]): unknown[] =>
  records.map((record) => {
    switch (record.type) {
      case 'fields':
        return [record.line, ...record.fields];
      case 'object':
        return [record.line, record.object];
      case 'reject':
        return `${record.reject.line}:${record.reject.code}`;
    }
  });

describe('readLines', () => {
  test('gives the same lines whatever the chunks are', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.string({ unit: fc.constantFrom('a', '\n', '\r', 'é', '"', '\t') }),
        fc.integer({ min: 1, max: 9 }),
        async (text, size) => {
          const found = (await linesOf(text, size)).map((line) => (line.type === 'line' ? line.text : 'bad'));
          const expected = text.split('\n');
          if (expected.at(-1) === '') {
            expected.pop();
          }
          expect(found).toEqual(expected);
        },
      ),
    );
  });

  test('takes off a byte order mark, once', async () => {
    expect(await linesOf('\uFEFFa\n\uFEFFb')).toEqual([
      { type: 'line', line: 1, text: 'a' },
      { type: 'line', line: 2, text: '\uFEFFb' },
    ]);
  });

  test('refuses lines that are not UTF-8 or too long, and goes on', async () => {
    const data = Buffer.concat([Buffer.from('ok\n'), Buffer.from([0xff, 0x0a]), Buffer.from(`${'x'.repeat(30)}\nend`)]);
    expect(await linesOf(data, 4, 20)).toEqual([
      { type: 'line', line: 1, text: 'ok' },
      { type: 'bad', line: 2, problem: 'not-utf8' },
      { type: 'bad', line: 3, problem: 'too-long' },
      { type: 'line', line: 4, text: 'end' },
    ]);
  });
});

describe('readRecords', () => {
  test('of tsv take quotes and backslashes as they are and skip empty lines', async () => {
    expect(brief(await recordsOf('a\t"b"\tc\r\n\nd\te "x\\t', 'tsv'))).toEqual([
      [1, 'a', '"b"', 'c'],
      [3, 'd', 'e "x\\t'],
    ]);
  });

  test('of csv know quoting, doubled quotes and line feeds inside quotes', async () => {
    expect(brief(await recordsOf('a,"b,c"\n"x ""y""","1\n2"\r\n\nlast,', 'csv'))).toEqual([
      [1, 'a', 'b,c'],
      [2, 'x "y"', '1\n2'],
      [5, 'last', ''],
    ]);
  });

  test('of csv refuse only the line with the forgotten quote', async () => {
    expect(brief(await recordsOf('a,1\n"b,2\nc,3\n"d",4\n', 'csv'))).toEqual([
      [1, 'a', '1'],
      '2:BadQuoting',
      [3, 'c', '3'],
      [4, 'd', '4'],
    ]);
    expect(brief(await recordsOf('a,1\nb"ad,2\nc,3\n"x"y,4\ne,5', 'csv'))).toEqual([
      [1, 'a', '1'],
      '2:BadQuoting',
      [3, 'c', '3'],
      '4:BadQuoting',
      [5, 'e', '5'],
    ]);
    expect(brief(await recordsOf('"a,1\nb,2\n"c,3\nd,4\n', 'csv'))).toEqual([
      '1:BadQuoting',
      [2, 'b', '2'],
      '3:BadQuoting',
      [4, 'd', '4'],
    ]);
  });

  test('of csv give up a quoted field beyond its limit and read its lines again', async () => {
    const rows = Array.from({ length: 20 }, (_, i) => `r${i},${i}`);
    const found = brief(await recordsOf(`"open,1\n${rows.join('\n')}\n`, 'csv', { max: 40 }));
    expect(found[0]).toBe('1:BadQuoting');
    expect(found).toHaveLength(21);
  });

  test('of csv come back for every table that was written correctly', async () => {
    const cell = fc.string({ unit: fc.constantFrom('a', ',', '"', '\n', 'é', ' '), minLength: 1 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(cell, { minLength: 2, maxLength: 3 }), { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 16 }),
        async (table, chunk) => {
          const text = table.map((row) => row.map((c) => `"${c.replaceAll('"', '""')}"`).join(',')).join('\n');
          const records = await recordsOf(text, 'csv', { max: 100_000, chunk });
          expect(records.map((record) => (record.type === 'fields' ? record.fields : record))).toEqual(table);
        },
      ),
    );
  });

  test('of json lines are objects, and everything else is refused with its line', async () => {
    expect(brief(await recordsOf('{"a":1}\n[1]\nnull\n{"a":\n"x"\n{"b":2}', 'jsonl'))).toEqual([
      [1, { a: 1 }],
      '2:NotJson',
      '3:NotJson',
      '4:NotJson',
      '5:NotJson',
      [6, { b: 2 }],
    ]);
  });
});

const OPTIONS: MapperOptions = {
  keyColumn: 'id',
  valueColumns: undefined,
  valueAs: 'json',
  columns: undefined,
  header: undefined,
  keyPrefix: '',
  keyBytesMax: 8,
  entryBytesMax: 64,
};

/** `key=value` of rows, `line:code` of refused ones, in order. */
function mapped(
  options: Partial<MapperOptions>,
  rows: readonly (readonly string[])[],
): { out: string[]; mapper: RowMapper } {
  const mapper = new RowMapper({ ...OPTIONS, ...options });
  const out: string[] = [];
  rows.forEach((fields, i) => {
    const one = mapper.map({ type: 'fields', line: i + 1, fields, raw: fields.join('\t') });
    if (one?.type === 'row') {
      out.push(`${Buffer.from(one.row.key).toString()}=${Buffer.from(one.row.value).toString()}`);
    } else if (one !== undefined) {
      out.push(`${one.reject.line}:${one.reject.code}`);
    }
  });
  return { out, mapper };
}

describe('RowMapper', () => {
  test('takes names from a header line that contains the key column', () => {
    expect(
      mapped({}, [
        ['name', 'id'],
        ['Ada', '1'],
      ]).out,
    ).toEqual(['1={"name":"Ada","id":"1"}']);
  });

  test('takes names from --columns, and skips a header line only if told', () => {
    const columns = ['id', 'name'];
    expect(mapped({ columns }, [['1', 'Ada']]).out).toEqual(['1={"id":"1","name":"Ada"}']);
    expect(
      mapped({ columns, header: true }, [
        ['x', 'y'],
        ['1', 'Ada'],
      ]).out,
    ).toEqual(['1={"id":"1","name":"Ada"}']);
  });

  test('takes the first column as the key when the first line can be no header, and says so', () => {
    const { out, mapper } = mapped({ keyColumn: 'package' }, [['0ad', '0.0.26-3', '28591']]);
    expect(out).toEqual(['0ad={"package":"0ad","column2":"0.0.26-3","column3":"28591"}']);
    expect(mapper.layout?.remark).toContain('the first column is taken as "package"');
  });

  test('guesses nothing when the first line may be a header', () => {
    expect(() => mapped({ keyColumn: 'packge' }, [['package', 'version']])).toThrow(
      expect.objectContaining({
        code: 'Usage',
        hint: expect.stringContaining('did you mean --key-column package?') as string,
      }),
    );
    expect(() => mapped({ keyColumn: '1' }, [['package', 'version']])).toThrow(/may be a header or a row/);
  });

  test('takes columns by number', () => {
    expect(mapped({ keyColumn: '2', header: false, valueColumns: ['1'], valueAs: 'raw' }, [['v', 'k']]).out).toEqual([
      'k=v',
    ]);
    expect(
      mapped({ keyColumn: '2', header: true }, [
        ['a', 'b'],
        ['v', 'k'],
      ]).out,
    ).toEqual(['k={"a":"v","b":"k"}']);
    expect(() => mapped({ keyColumn: '3', header: true }, [['a', 'b']])).toThrow(/names no column/);
  });

  test('makes the value that is asked for', () => {
    const rows = [
      ['id', 'a', 'b'],
      ['1', 'x', 'y'],
    ];
    expect(mapped({ valueColumns: ['b', 'a'] }, rows).out).toEqual(['1={"b":"y","a":"x"}']);
    expect(mapped({ valueColumns: ['b'], valueAs: 'raw' }, rows).out).toEqual(['1=y']);
    expect(mapped({ valueAs: 'raw' }, rows).out).toEqual(['1=1\tx\ty']);
    expect(mapped({ keyPrefix: 'p:' }, [['id'], ['1']]).out).toEqual(['p:1={"id":"1"}']);
    expect(() => mapped({ valueAs: 'raw', valueColumns: ['a', 'b'] }, [])).toThrow(/one value column/);
  });

  test('refuses bad rows one by one with line and reason', () => {
    const { out } = mapped({}, [
      ['id', 'v'],
      ['1'],
      ['1', '2', '3'],
      ['', 'x'],
      ['123456789', 'x'],
      ['ok', 'x'.repeat(80)],
      ['ok', 'x'],
    ]);
    expect(out).toEqual([
      '2:WrongColumnCount',
      '3:WrongColumnCount',
      '4:EmptyKey',
      '5:KeyTooLarge',
      '6:ValueTooLarge',
      'ok={"id":"ok","v":"x"}',
    ]);
  });

  test('counts the prefix against the limit of the key, in bytes', () => {
    expect(mapped({ keyPrefix: 'é:' }, [['id'], ['12345'], ['123456']]).out).toEqual([
      'é:12345={"id":"12345"}',
      '3:KeyTooLarge',
    ]);
  });

  test('refuses a header with a name twice', () => {
    expect(() => mapped({}, [['id', 'id']])).toThrow(/twice/);
  });

  test('of JSON objects takes the key from a field and keeps the text as it is', () => {
    const mapper = new RowMapper(OPTIONS);
    const map = (raw: string): string => {
      const one = mapper.map({ type: 'object', line: 1, object: JSON.parse(raw) as Record<string, unknown>, raw });
      return one?.type === 'row'
        ? `${Buffer.from(one.row.key).toString()}=${Buffer.from(one.row.value).toString()}`
        : (one?.reject.code ?? '');
    };
    expect(map('{"id": 1, "n": 1.50}')).toBe('1={"id": 1, "n": 1.50}');
    expect(map('{"x": 1}')).toBe('NoKeyField');
    expect(map('{"id": null}')).toBe('NoKeyField');
    expect(map('{"id": {}}')).toBe('NoKeyField');
    expect(map('{"__proto__": 1}')).toBe('NoKeyField');
  });
});

const row = (line: number, key: string, value = 'v'): Row => ({ line, key: utf8(key), value: utf8(value) });

/** A store whose answers the test gives one by one. */
class SlowStore {
  readonly batches: {
    readonly keys: string[];
    readonly answer: (outcomes?: readonly (Error | undefined)[]) => void;
  }[] = [];
  inFlightMax = 0;
  #inFlight = 0;

  readonly write = (rows: readonly Row[]): Promise<readonly (Error | undefined)[]> =>
    new Promise((resolve) => {
      this.#inFlight++;
      this.inFlightMax = Math.max(this.inFlightMax, this.#inFlight);
      this.batches.push({
        keys: rows.map((one) => `${Buffer.from(one.key).toString()}=${Buffer.from(one.value).toString()}`),
        answer: (outcomes) => {
          this.#inFlight--;
          resolve(outcomes ?? rows.map(() => undefined));
        },
      });
    });
}

function loaderOf(options: Partial<LoaderOptions> & Pick<LoaderOptions, 'write'>): {
  loader: Loader;
  rejects: Reject[];
} {
  const rejects: Reject[] = [];
  const loader = new Loader({
    batchRowsMax: 2,
    batchBytesMax: 1000,
    concurrency: 2,
    onDuplicate: 'last',
    onReject: (reject) => rejects.push(reject),
    ...options,
  });
  return { loader, rejects };
}

describe('Loader', () => {
  test('keeps at most so many batches under way', async () => {
    const store = new SlowStore();
    const { loader } = loaderOf({ write: store.write });
    const adding = (async () => {
      for (let i = 0; i < 20; i++) {
        await loader.add(row(i, `k${i}`));
      }
      await loader.finish();
    })();
    for (let answered = 0; answered < 10; answered++) {
      await expect.poll(() => store.batches.length).toBeGreaterThan(answered);
      store.batches[answered]?.answer();
    }
    await adding;
    expect([store.inFlightMax, loader.writtenRows]).toEqual([2, 20]);
  });

  test('of rows with one key the last wins, also across batches', async () => {
    const store = new SlowStore();
    const { loader } = loaderOf({ write: store.write });
    const adding = (async () => {
      await loader.add(row(1, 'a', '1'));
      await loader.add(row(2, 'a', '2'));
      await loader.add(row(3, 'b', '1'));
      await loader.add(row(4, 'a', '3'));
      await loader.finish();
    })();
    await expect.poll(() => store.batches.length).toBe(1);
    expect(store.batches[0]?.keys).toEqual(['a=2', 'b=1']);
    // The second batch has a key of the first and must wait although there is room for it.
    await new Promise((resolve) => setImmediate(resolve));
    expect(store.batches).toHaveLength(1);
    store.batches[0]?.answer();
    await expect.poll(() => store.batches.length).toBe(2);
    expect(store.batches[1]?.keys).toEqual(['a=3']);
    store.batches[1]?.answer();
    await adding;
    expect(loader.writtenRows).toBe(4);
  });

  test('refuses later rows with a key that was there when told so', async () => {
    const { loader, rejects } = loaderOf({
      write: (rows) => Promise.resolve(rows.map(() => undefined)),
      onDuplicate: 'refuse',
    });
    await loader.add(row(1, 'a'));
    await loader.add(row(2, 'b'));
    await loader.add(row(3, 'a'));
    await loader.finish();
    expect(loader.writtenRows).toBe(2);
    expect(rejects).toEqual([{ line: 3, code: 'DuplicateKey', reason: 'the key was already in line 1' }]);
  });

  test('reports every row of a failed batch, and tells unknown outcomes apart', async () => {
    const outcomes = [[new EntryTooLargeError('too large'), new UndeterminedResultError('lost')], [undefined]];
    const { loader, rejects } = loaderOf({ write: () => Promise.resolve(outcomes.shift() ?? []) });
    await loader.add(row(1, 'a'));
    await loader.add(row(2, 'a'));
    await loader.add(row(3, 'b'));
    await loader.add(row(4, 'c'));
    await loader.finish();
    expect(rejects.map((reject) => [reject.line, reject.code])).toEqual([
      [1, 'WriteFailed'],
      [2, 'WriteFailed'],
      [3, 'OutcomeUnknown'],
    ]);
    expect(loader.writtenRows).toBe(1);
  });

  test('gives up when no batch gets through any more', async () => {
    let calls = 0;
    const { loader } = loaderOf({
      concurrency: 1,
      write: (rows) => {
        calls++;
        return Promise.resolve(rows.map(() => new DeadlineExceededError('late')));
      },
    });
    const add = async (): Promise<void> => {
      for (let i = 0; i < 100; i++) {
        await loader.add(row(i, `k${i}`));
      }
    };
    await expect(add()).rejects.toBeInstanceOf(LoadStoppedError);
    expect(calls).toBeLessThan(6);
    await expect(loader.finish()).rejects.toBeInstanceOf(LoadStoppedError);
  });
});

test.each([
  ['a.tsv', undefined, 'tsv'],
  ['a.csv.gz', undefined, 'csv'],
  ['A.JSONL', undefined, 'jsonl'],
  ['a.ndjson', undefined, 'jsonl'],
  ['a.txt', 'csv', 'csv'],
] as const)('the format of %s given %s is %s', (file, given, format) => {
  expect(formatOf(file, given)).toBe(format);
});

describe('braid import', () => {
  let dir = '';
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'braid-import-'));
  });
  afterAll(() => {
    rmSync(dir, { recursive: true });
  });

  const BAD_ROWS = 'id\tname\n1\tAda\n2\n\tnobody\n4\tGrace\tHopper\n5\tAlan\n';

  test('stores the good rows, refuses the bad ones with their lines, and ends with 2', async () => {
    const cluster = new FakeCluster({ splits: ['3'] });
    const outcome = await runOn(cluster, ['import', '-', '--format', 'tsv', '--key-column', 'id', '-o', 'json'], {
      stdin: BAD_ROWS,
    });
    expect(outcome.code).toBe(2);
    expect(cluster.get('1')).toBe('{"id":"1","name":"Ada"}');
    expect(cluster.get('5')).toBe('{"id":"5","name":"Alan"}');
    expect(cluster.get('2')).toBeUndefined();
    expect(JSON.parse(outcome.stdout)).toMatchObject({
      kind: 'ImportSummary',
      complete: true,
      rows: 5,
      stored: 2,
      refused: 3,
      refusedByCode: { WrongColumnCount: 2, EmptyKey: 1 },
      refusedRows: [
        { line: 3, code: 'WrongColumnCount', reason: '1 columns instead of 2' },
        { line: 4, code: 'EmptyKey', reason: 'the key is empty' },
        { line: 5, code: 'WrongColumnCount', reason: '3 columns instead of 2' },
      ],
    });
  });

  test('shows the refused rows in the table as well', async () => {
    const outcome = await runAlone(['import', '-', '--format', 'tsv', '--key-column', 'id', '--dry-run'], {
      stdin: BAD_ROWS,
    });
    expect(outcome.code).toBe(2);
    expect(outcome.stdout).toContain('would store       2\n');
    expect(outcome.stdout).toContain(
      'LINE   CODE               REASON\n   3   WrongColumnCount   1 columns instead of 2\n',
    );
  });

  test('ends with 0 when every row went in', async () => {
    const cluster = new FakeCluster();
    const args = ['import', '-', '--format', 'csv', '--key-column', 'k', '--key-prefix', 'p:'];
    expect((await runOn(cluster, args, { stdin: 'k,v\na,1\nb,2\n' })).code).toBe(0);
    expect(cluster.get('p:b')).toBe('{"k":"b","v":"2"}');
  });

  test('reads compressed files and writes refused rows to a file', async () => {
    const file = join(dir, 'rows.tsv.gz');
    writeFileSync(file, gzipSync(BAD_ROWS));
    const rejects = join(dir, 'rejects.jsonl');
    const outcome = await runAlone(['import', file, '--key-column', 'id', '--dry-run', '--rejects', rejects]);
    expect(outcome.code).toBe(2);
    const written = readFileSync(rejects, 'utf8').trimEnd().split('\n');
    expect(written.map((line) => (JSON.parse(line) as Reject).line)).toEqual([3, 4, 5]);
  });

  test('a compressed file that breaks off is an error and not a shorter file', async () => {
    const file = join(dir, 'broken.tsv.gz');
    writeFileSync(file, gzipSync(BAD_ROWS.repeat(500)).subarray(0, 90));
    const outcome = await runAlone(['import', file, '--key-column', 'id', '--dry-run', '-o', 'json']);
    expect(outcome.code).not.toBe(0);
    expect(outcome.stderr).toContain('cannot be read to its end');
  });

  // Only some systems show the open files of a process.
  test.runIf(existsSync('/proc/self/fd'))('a file is given back also when the cluster cannot be reached', async () => {
    const path = join(dir, 'held.tsv');
    writeFileSync(path, 'id\tname\n1\tAda\n');
    const nobody = (): Promise<never> => Promise.reject(new UnavailableError('nobody is there'));
    const ended = await runWith({ data: nobody, admin: nobody }, ['import', path, '--key-column', 'id']);
    expect(ended.code).toBe(1);
    const held = (): string[] =>
      readdirSync('/proc/self/fd').flatMap((fd) => {
        try {
          return [readlinkSync(`/proc/self/fd/${fd}`)];
        } catch {
          // It was closed meanwhile.
          return [];
        }
      });
    await vi.waitFor(() => expect(held()).not.toContain(path));
  });

  test('a directory and flags that make no sense are refused', async () => {
    expect((await runAlone(['import', dir, '--format', 'tsv', '--key-column', 'id', '--dry-run'])).stderr).toContain(
      'is a directory',
    );
    expect(
      (await runAlone(['import', '-', '--format', 'jsonl', '--key-column', 'id', '--columns', 'a'])).stderr,
    ).toContain('name their fields');
    expect(
      (await runAlone(['import', '-', '--format', 'jsonl', '--key-column', 'id', '--delimiter', ';'])).stderr,
    ).toContain('no delimiter');
  });

  test('a cluster that stops taking rows ends the import with what was stored', async () => {
    const cluster = new FakeCluster();
    let served = 0;
    cluster.interfere = () => (served++ < 2 ? 'serve' : 'ignore');
    const stdin = `id\n${Array.from({ length: 200 }, (_, i) => String(i)).join('\n')}\n`;
    const args = [
      'import',
      '-',
      '--format',
      'tsv',
      '--key-column',
      'id',
      '--batch',
      '5',
      '--concurrency',
      '1',
      '--timeout',
      '500ms',
    ];
    const outcome = await runOn(cluster, args, { stdin });
    expect(outcome.code).toBe(2);
    expect(outcome.stdout).toContain('stored            10\n');
    expect(outcome.stderr).toMatch(/the import of - stopped after line \d+/);
  });
});
