import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { putRequest, rangeRequest, readRangeReply, readStatusReply } from '../../../bench/etcd/messages.ts';
import { type RunResult, runWorkload } from '../../../src/cli/bench/driver.ts';
import { Histogram } from '../../../src/cli/bench/histogram.ts';
import {
  type BenchReport,
  cellsOf,
  differences,
  median,
  newReport,
  parseReport,
  ratiosBetween,
  ratiosWithin,
} from '../../../src/cli/bench/report.ts';
import { formatUs } from '../../../src/cli/bench/shapes.ts';
import { type BenchTarget, DataSet, parseWorkload, preload, seededRandom } from '../../../src/cli/bench/workload.ts';
import { compareBytes } from '../../../src/base/bytes.ts';
import { runAlone } from './harness.ts';

describe('Histogram', () => {
  test('knows every quantile to 0.8 percent', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 2 ** 35 }), { minLength: 1, maxLength: 200 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (values, share) => {
          const histogram = new Histogram();
          values.forEach((value) => histogram.record(value));
          const sorted = values.toSorted((a, b) => a - b);
          const exact = sorted[Math.max(1, Math.ceil(share * sorted.length)) - 1] as number;
          const found = histogram.quantile(share);
          expect(found).toBeGreaterThanOrEqual(exact);
          expect(found).toBeLessThanOrEqual(exact + Math.max(0, exact / 127));
        },
      ),
    );
  });

  test('keeps count, mean and the exact ends', () => {
    const histogram = new Histogram();
    for (const value of [5, 1_000_003, 70]) {
      histogram.record(value);
    }
    expect([histogram.count, histogram.min, histogram.max]).toEqual([3, 5, 1_000_003]);
    expect(histogram.mean).toBeCloseTo(333_359.33, 1);
    expect(histogram.quantile(1)).toBe(1_000_003);
  });

  test('of two is the histogram of all their values', () => {
    const [a, b, both] = [new Histogram(), new Histogram(), new Histogram()];
    for (let i = 0; i < 1000; i++) {
      const value = i * i;
      (i % 3 === 0 ? a : b).record(value);
      both.record(value);
    }
    a.add(b);
    expect([a.count, a.mean, a.max]).toEqual([both.count, both.mean, both.max]);
    expect(a.quantile(0.5)).toBe(both.quantile(0.5));
  });

  test('without values is zero', () => {
    const histogram = new Histogram();
    expect([histogram.quantile(0.99), histogram.min, histogram.mean]).toEqual([0, 0, 0]);
  });
});

class MapTarget implements BenchTarget {
  readonly name = 'map';
  readonly data = new Map<string, Uint8Array>();
  readonly order: string[] = [];
  concurrent = 0;
  concurrentMax = 0;
  get: BenchTarget['get'] = async (key) => {
    await this.#turn();
    return this.data.get(Buffer.from(key).toString('latin1'));
  };

  async put(key: Uint8Array, value: Uint8Array): Promise<void> {
    await this.#turn();
    this.order.push(Buffer.from(key).toString('latin1'));
    this.data.set(Buffer.from(key).toString('latin1'), value);
  }

  async scan(start: Uint8Array, end: Uint8Array, limit: number): Promise<number> {
    await this.#turn();
    const keys = [...this.data.keys()].map((key) => Buffer.from(key, 'latin1'));
    return Math.min(limit, keys.filter((key) => compareBytes(key, start) >= 0 && compareBytes(key, end) < 0).length);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #turn(): Promise<void> {
    this.concurrent++;
    this.concurrentMax = Math.max(this.concurrentMax, this.concurrent);
    await new Promise((resolve) => setImmediate(resolve));
    this.concurrent--;
  }
}

const SETTINGS = { keys: 50, valueBytes: 40, scanLimit: 10, keyPrefix: 'b/', seed: 3 };
const NEVER = new AbortController().signal;

describe('workloads', () => {
  test('make the same keys and values from the same seed', () => {
    const [a, b, c] = [new DataSet(SETTINGS), new DataSet(SETTINGS), new DataSet({ ...SETTINGS, seed: 4 })];
    expect(a.value(7, 0.5)).toEqual(b.value(7, 0.5));
    expect(a.value(7, 0.5)).not.toEqual(c.value(7, 0.5));
    expect(a.isValueOf(7, b.value(7, 0.1))).toBe(true);
    expect(a.isValueOf(8, b.value(7, 0.1))).toBe(false);
    const [r, s] = [seededRandom(9), seededRandom(9)];
    expect(Array.from({ length: 5 }, r)).toEqual(Array.from({ length: 5 }, s));
  });

  test('keys sort as their numbers, below the end of the data set', () => {
    const data = new DataSet(SETTINGS);
    expect(compareBytes(data.key(9), data.key(10))).toBeLessThan(0);
    expect(compareBytes(data.key(999_999), data.end())).toBeLessThan(0);
  });

  test.each(['put', 'get', 'scan', 'mixed'] as const)(
    '%s counts operations and finds every answer right',
    async (workload) => {
      const target = new MapTarget();
      const data = new DataSet(SETTINGS);
      await preload(target, data, NEVER);
      expect(target.data.size).toBe(50);
      target.concurrentMax = 0;
      const result = await runWorkload(
        target,
        data,
        { workload, clients: 7, warmupMs: 20, durationMs: 100 },
        1,
        NEVER,
        () => {},
      );
      expect(result.operations).toBeGreaterThan(0);
      expect(result.errors).toEqual({});
      expect(result.perSecond).toBeCloseTo(result.operations / 0.1, 5);
      expect(target.concurrentMax).toBe(7);
      expect(result.latency.p50Us).toBeGreaterThan(0);
    },
  );

  test('a wrong answer is an error and not an operation', async () => {
    const target = new MapTarget();
    const data = new DataSet(SETTINGS);
    await preload(target, data, NEVER);
    target.get = () => Promise.resolve(data.value(1, 0));
    const seen: string[] = [];
    const result = await runWorkload(
      target,
      data,
      { workload: 'get', clients: 2, warmupMs: 0, durationMs: 50 },
      1,
      NEVER,
      (code) => seen.push(code),
    );
    expect(result.errors['WrongAnswer']).toBeGreaterThan(0);
    expect(result.operations).toBeLessThan(result.errors['WrongAnswer'] as number);
    expect(seen).toEqual(['WrongAnswer']);
  });

  test('an incomplete data set is never measured', async () => {
    const target = new MapTarget();
    target.put = () => Promise.reject(new Error('full'));
    await expect(preload(target, new DataSet(SETTINGS), NEVER)).rejects.toThrow('full');
  });

  test('an unknown name is answered with the nearest one', () => {
    expect(() => parseWorkload('mixd')).toThrow(
      expect.objectContaining({ hint: expect.stringContaining('did you mean mixed?') as string }),
    );
  });
});

const run = (
  target: string,
  workload: RunResult['workload'],
  clients: number,
  perSecond: number,
  round = 1,
): RunResult => ({
  target,
  workload,
  clients,
  round,
  operations: perSecond,
  errors: {},
  seconds: 1,
  perSecond,
  perSecondMin: perSecond,
  perSecondMax: perSecond,
  latency: { minUs: 1, meanUs: 2, p50Us: 1000, p90Us: 3, p99Us: 8000, p999Us: 9, maxUs: 10 * round },
  clientCpu: 0.5,
});

const report = (runs: readonly RunResult[]): BenchReport =>
  newReport({
    startedAt: '2000-01-01T00:00:00.000Z',
    commit: 'abc',
    machine: { cpu: 'x', cores: 2, memoryBytes: 1, os: 'o', node: 'v20' },
    targets: [],
    settings: { ...SETTINGS, warmupMs: 1, durationMs: 1, rounds: 3 },
    runs,
  });

describe('reports', () => {
  test('take the median over rounds and the worst maximum', () => {
    const [cell] = cellsOf(
      report([run('braid', 'put', 1, 100, 1), run('braid', 'put', 1, 300, 2), run('braid', 'put', 1, 120, 3)]),
    );
    expect(cell).toMatchObject({
      rounds: 3,
      perSecond: 120,
      perSecondLow: 100,
      perSecondHigh: 300,
      latency: { maxUs: 30 },
    });
    expect([median([]), median([1, 2]), median([3, 1, 2])]).toEqual([0, 1.5, 2]);
  });

  test('compare two targets within one file and two files with each other', () => {
    const before = report([run('braid', 'put', 1, 100), run('etcd', 'put', 1, 50), run('braid', 'get', 1, 10)]);
    expect(ratiosWithin(before, 'braid', 'etcd').map((r) => [r.workload, r.throughput])).toEqual([['put', 2]]);
    const after = report([run('braid', 'put', 1, 90)]);
    expect(ratiosBetween(before, after).map((r) => [r.other.target, r.throughput])).toEqual([['braid', 0.9]]);
    expect(differences(before, { ...after, machine: { ...after.machine, cores: 4 } })).toEqual(['cores: 2 and 4']);
  });

  test('survive being written and read', () => {
    const one = report([run('braid', 'put', 1, 100)]);
    expect(parseReport(JSON.stringify(one), 'f')).toEqual(one);
  });

  test.each([
    ['', /JSON/],
    ['[]', /kind/],
    ['{"kind":"BenchReport","apiVersion":"braid/v9"}', /braid\/v9/],
    ['{"kind":"BenchReport","apiVersion":"braid/v1"}', /missing/],
    [
      '{"kind":"BenchReport","apiVersion":"braid/v1","machine":{},"settings":{},"runs":[{"target":"x"}]}',
      /a run lacks/,
    ],
  ])('text %s is refused with what is wrong', (text, why) => {
    expect(() => parseReport(text, 'f')).toThrow(why);
  });

  test.each([
    [123, '0.12'],
    [9994, '9.99'],
    [12_345, '12.3'],
    [123_456, '123'],
  ])('%d µs read as %s ms', (us, text) => {
    expect(formatUs(us)).toBe(text);
  });
});

describe('braid bench compare', () => {
  let dir = '';
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'braid-bench-'));
    writeFileSync(
      join(dir, 'a.json'),
      JSON.stringify(report([run('braid', 'put', 1, 100), run('braid', 'get', 1, 100)])),
    );
    writeFileSync(
      join(dir, 'b.json'),
      JSON.stringify(report([run('braid', 'put', 1, 80), run('braid', 'get', 1, 200)])),
    );
  });
  afterAll(() => {
    rmSync(dir, { recursive: true });
  });

  test('prints golden ratios and fails below the limit', async () => {
    const outcome = await runAlone([
      'bench',
      'compare',
      join(dir, 'a.json'),
      join(dir, 'b.json'),
      '--fail-below',
      '0.9',
    ]);
    expect(outcome.code).toBe(5);
    expect(outcome.stdout).toBe(
      [
        'TARGET   WORKLOAD   CLIENTS   BEFORE-OPS/S   AFTER-OPS/S   THROUGHPUT     P50     P99',
        'braid    put              1            100            80        0.80x   1.00x   1.00x',
        'braid    get              1            100           200        2.00x   1.00x   1.00x',
        '',
      ].join('\n'),
    );
    expect((await runAlone(['bench', 'compare', join(dir, 'a.json'), join(dir, 'b.json')])).code).toBe(0);
  });

  test('refuses a file of another kind', async () => {
    writeFileSync(join(dir, 'c.json'), '{}');
    const outcome = await runAlone(['bench', 'compare', join(dir, 'c.json'), join(dir, 'b.json')]);
    expect(outcome.code).toBe(1);
    expect(outcome.stderr).toContain('is no benchmark result');
  });
});

describe('messages of the peer', () => {
  const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

  test('a read of one key leaves the range end out', () => {
    expect([...rangeRequest(bytes('k'), undefined, 0)]).toEqual([0x0a, 1, 0x6b]);
    const reader = new BinaryReader(rangeRequest(bytes('a'), bytes('b'), 5));
    const fields: number[] = [];
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag();
      fields.push(field);
      reader.skip(type);
    }
    expect(fields).toEqual([1, 2, 3]);
  });

  test('a put has key and value', () => {
    expect([...putRequest(bytes('k'), bytes('vv'))]).toEqual([0x0a, 1, 0x6b, 0x12, 2, 0x76, 0x76]);
  });

  test('entries are counted and the first value is found', () => {
    const entry = (value: string): Uint8Array =>
      new BinaryWriter().uint32(10).bytes(bytes('k')).uint32(16).int64(7).uint32(42).bytes(bytes(value)).finish();
    const reply = new BinaryWriter()
      .uint32(10)
      .bytes(new Uint8Array(3))
      .uint32(18)
      .bytes(entry('one'))
      .uint32(18)
      .bytes(entry('two'))
      .uint32(32)
      .int64(2)
      .finish();
    expect(readRangeReply(reply)).toMatchObject({ count: 2 });
    expect(Buffer.from(readRangeReply(reply).value as Uint8Array).toString()).toBe('one');
    expect(readRangeReply(new Uint8Array(0))).toEqual({ count: 0, value: undefined });
  });

  test('a member tells whether it leads', () => {
    const id = 2n ** 63n + 5n;
    const header = new BinaryWriter().uint32(8).uint64(1).uint32(16).uint64(id).finish();
    const reply = new BinaryWriter()
      .uint32(10)
      .bytes(header)
      .uint32(18)
      .string('3.4.23')
      .uint32(24)
      .int64(9)
      .uint32(32)
      .uint64(id)
      .finish();
    expect(readStatusReply(reply)).toEqual({ version: '3.4.23', memberId: id, leaderId: id });
  });
});
