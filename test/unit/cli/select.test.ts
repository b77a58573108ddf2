import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareValues, filterRows, parseCondition, sortRows, withFields } from '../../../src/cli/output/select.ts';
import { FakeAdmin, event } from './fake-admin.ts';

interface Row {
  readonly id: number;
  readonly bytes: number;
  readonly up: boolean;
  readonly peers: readonly { readonly store: number }[];
  readonly leader: { readonly store: number } | null;
  readonly big: bigint;
  readonly name: string;
}

const row = (id: number, bytes: number, stores: readonly number[], leader: number | undefined): Row => ({
  id,
  bytes,
  up: id % 2 === 0,
  peers: stores.map((store) => ({ store })),
  leader: leader === undefined ? null : { store: leader },
  big: 2n ** 60n + BigInt(id),
  name: `Row-${id}`,
});

const SHAPE = {
  columns: [
    { head: 'id', cell: (one: Row) => one.id },
    { head: 'size', cell: (one: Row) => `about ${one.bytes}`, value: (one: Row) => one.bytes },
    { head: 'idle because', cell: (one: Row) => (one.up ? '' : 'tired') },
  ],
  toObject: (one: Row) => ({ ...one }),
};
const ROWS = [row(1, 900, [1, 2], 1), row(2, 1_048_576, [2, 3], 3), row(10, 5_000_000, [], undefined)];

const ids = (...conditions: readonly string[]): number[] =>
  filterRows(
    SHAPE,
    ROWS,
    conditions.map((text) => parseCondition(text) as NonNullable<ReturnType<typeof parseCondition>>),
    false,
  ).map((one) => one.id);

describe('conditions', () => {
  test.each([
    ['size<1MiB', [1]],
    ['size<=1MiB', [1, 2]],
    ['size >= 1 MiB', [2, 10]],
    ['SIZE=900', [1]],
    ['bytes!=900', [2, 10]],
    ['id>2', [10]],
    ['up=yes', [2, 10]],
    ['up!=true', [1]],
    ['name~ROW-1', [1, 10]],
    ['name=Row-2', [2]],
    ['leader.store=3', [2]],
    ['leader=', [10]],
    ['leader!=', [1, 2]],
    ['peers.store=2', [1, 2]],
    ['peers.store!=2', [10]],
    ['peers.store=', [10]],
    ['peers.store>2', [2]],
    ['idle because=tired', [1]],
    ['big=1152921504606846978', [2]],
    ['big>1152921504606846977', [2, 10]],
  ])('%s keeps %j', (text, expected) => {
    expect(ids(text)).toEqual(expected);
  });

  test('all hold together', () => {
    expect(ids('size>1KiB', 'up=true', 'id<10')).toEqual([2]);
  });

  test('that make no sense are refused with the way out', () => {
    expect(parseCondition('size')).toBeUndefined();
    expect(parseCondition('=5')).toBeUndefined();
    expect(() => ids('sizze=5')).toThrow('names no column and no field');
    expect(() => ids('size=large')).toThrow('is a number');
    expect(() => ids('up=perhaps')).toThrow('true or false');
  });

  test('of a field that only some rows of a part have are none for the others', () => {
    const condition = { name: 'status.phase', operator: '=', literal: 'done' } as const;
    expect(filterRows(SHAPE, ROWS, [condition], true)).toEqual([]);
  });
});

describe('order', () => {
  test('is by exact values, reversed by a minus, and keeps equal rows as they are', () => {
    expect(sortRows(SHAPE, ROWS, '-size').map((one) => one.id)).toEqual([10, 2, 1]);
    expect(sortRows(SHAPE, ROWS, 'name').map((one) => one.id)).toEqual([1, 10, 2]);
    expect(sortRows(SHAPE, ROWS, 'up').map((one) => one.id)).toEqual([1, 2, 10]);
    expect(sortRows(SHAPE, ROWS, 'leader.store').map((one) => one.id)).toEqual([10, 1, 2]);
  });

  test('is a total order over values of one kind', () => {
    const value = fc.oneof(fc.integer(), fc.bigInt(), fc.string(), fc.constant(undefined));
    fc.assert(
      fc.property(value, value, (a, b) => {
        expect(Math.sign(compareValues(a, b)) + Math.sign(compareValues(b, a))).toBe(0);
        expect(compareValues(a, a)).toBe(0);
      }),
    );
  });
});

test('fields are columns of tables and fields of documents, with nothing for what a row lacks', () => {
  const shape = withFields(SHAPE, ROWS, ['id', 'leader.store', 'peers.store', 'size']);
  expect(shape.columns.map(({ head }) => head)).toEqual(['id', 'leader.store', 'peers.store', 'size']);
  expect(ROWS.map((one) => shape.columns.map(({ cell }) => cell(one)))).toEqual([
    [1, 1, '1,2', 900],
    [2, 3, '2,3', 1_048_576],
    [10, '', '', 5_000_000],
  ]);
  expect(shape.toObject(ROWS[2] as Row)).toEqual({ id: 10, 'leader.store': null, 'peers.store': [], size: 5_000_000 });
});

describe('lists', () => {
  test('are chosen, ordered, cut and narrowed in every mode', async () => {
    const admin = new FakeAdmin();
    const args = ['ctl', 'region', 'list', '--where', 'id>1', '--sort-by', '-id', '--limit', '1'];
    expect((await admin.run([...args, '-o', 'name'])).stdout).toBe('4\n');
    const json = await admin.run([...args, '--fields', 'id,leader.storeId', '-o', 'json']);
    expect((JSON.parse(json.stdout) as { items: unknown }).items).toEqual([{ id: 4, 'leader.storeId': 1 }]);
    const table = await admin.run([...args, '--fields', 'id,leader.storeId']);
    expect(table.stdout).toBe('ID   LEADER.STOREID\n4    1\n');
  });

  test('take several conditions, and one from the environment', async () => {
    const admin = new FakeAdmin();
    const both = await admin.run(['ctl', 'store', 'list', '--where', 'id>1', '--where', 'leaders=0', '-o', 'name']);
    expect(both.stdout).toBe('2\n3\n');
    // Commander reads twins from the process itself.
    process.env['BRAID_WHERE'] = 'id=3';
    try {
      expect((await admin.run(['ctl', 'store', 'list', '-o', 'name'])).stdout).toBe('3\n');
    } finally {
      delete process.env['BRAID_WHERE'];
    }
  });

  test.each([
    [['--where', 'sizze<5']],
    [['--where', 'size']],
    [['--sort-by', 'sizze']],
    [['--fields', 'sizze']],
    [['--limit', '0']],
  ])('refuse %j with code 1 and print nothing', async (flags) => {
    const { code, stdout, stderr } = await new FakeAdmin().run(['ctl', 'region', 'list', ...flags]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr.split('\n')).toHaveLength(4);
  });
});

describe('events', () => {
  const many = Array.from({ length: 8 }, (_, i) => event(i + 1, i % 2 === 0 ? 'merge' : 'split', `number ${i + 1}`));

  test('are read to the last one however many answers that takes, and the latest are shown', async () => {
    const admin = new FakeAdmin();
    admin.audit = [];
    admin.events = many;
    expect((await admin.run(['ctl', 'events', '--limit', '2', '-o', 'name'])).stdout).toBe('7\n8\n');
    expect((await admin.run(['ctl', 'events', '--after', '6', '-o', 'name'])).stdout).toBe('7\n8\n');
    const merges = await admin.run(['ctl', 'events', '--where', 'type=merge', '--limit', '2', '-o', 'name']);
    expect(merges.stdout).toBe('5\n7\n');
    expect((await admin.run(['ctl', 'events', '--since', '1h', '-o', 'name'])).stdout).toBe('');
    expect((await admin.run(['ctl', 'events', '--since', '2000-01-01T00:00:00.007Z', '-o', 'name'])).stdout).toBe(
      '7\n8\n',
    );
    expect((await admin.run(['ctl', 'events', '--since', 'yesterday'])).code).toBe(1);
  });

  test('that are watched come once each, also when another lead counts from 1 again', async () => {
    const admin = new FakeAdmin();
    admin.audit = [];
    admin.events = many.slice(0, 2);
    let looks = 0;
    const stop = new AbortController();
    admin.onEvents = () => {
      looks++;
      if (looks === 4) {
        admin.events = many.slice(0, 4);
      } else if (looks === 6) {
        admin.term++;
        admin.events = [event(1, 'split', 'under the next lead'), event(2, 'merge', 'under the next lead, too')];
      } else if (looks === 9) {
        stop.abort();
      }
    };
    const { code, stdout, stderr } = await admin.run(['ctl', 'events', '-w', '-o', 'jsonl'], { signal: stop.signal });
    expect(code).toBe(130);
    const shown = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { sequence: number; message: string });
    expect(shown.map(({ message }) => message)).toEqual([
      'number 1',
      'number 2',
      'number 3',
      'number 4',
      'under the next lead',
      'under the next lead, too',
    ]);
    expect(stderr).toContain('another lead');
  });

  test('that were forgotten between two looks are counted', async () => {
    const admin = new FakeAdmin();
    admin.audit = [];
    admin.events = many.slice(0, 1);
    admin.onEvents = () => {
      admin.events = admin.events[0]?.sequence === 1 && looks++ > 2 ? many.slice(5) : admin.events;
    };
    let looks = 0;
    const { stdout, stderr } = await admin.run(['ctl', 'events', '-w', '-o', 'name', '--timeout', '2500ms']);
    expect(stdout).toBe('1\n6\n7\n8\n');
    expect(stderr).toContain('4 events came and were forgotten');
  });

  test('cannot be watched and sorted', async () => {
    expect((await new FakeAdmin().run(['ctl', 'events', '-w', '--sort-by', 'type'])).code).toBe(1);
  });
});
