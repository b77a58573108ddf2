import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import type { RegionDetails } from '../../../src/client/admin-wire.ts';
import { CELLS_PER_ROW, heatMap, shade } from '../../../src/cli/ctl/heat.ts';
import { FakeAdmin } from './fake-admin.ts';

const key = (i: number): Uint8Array => utf8(String(i).padStart(6, '0'));

const regionsOf = (rates: readonly (readonly [read: number, written: number])[]): readonly RegionDetails[] =>
  rates.map(
    ([bytesReadPerSecond, bytesWrittenPerSecond], i) =>
      ({
        id: i + 1,
        range: { start: i === 0 ? key(0).subarray(0, 0) : key(i), end: i === rates.length - 1 ? utf8('') : key(i + 1) },
        bytesReadPerSecond,
        bytesWrittenPerSecond,
      }) as RegionDetails,
  );

describe('the heat map', () => {
  test('adds up to what the regions say, covers every key once and keeps its size', () => {
    const rate = fc.integer({ min: 0, max: 1_000_000 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(rate, rate), { minLength: 1, maxLength: 400 }),
        fc.integer({ min: 1, max: 20 }),
        fc.constantFrom('read', 'write', 'both'),
        (rates, rowsMax, measure) => {
          const regions = regionsOf(rates);
          const map = heatMap(regions, measure, rowsMax);
          expect(map.rows.length).toBeLessThanOrEqual(rowsMax);
          const total = (value: (row: (typeof map.rows)[number]) => number): number =>
            map.rows.reduce((all, row) => all + value(row), 0);
          expect(total((row) => row.regions)).toBe(regions.length);
          expect(total((row) => row.bytesReadPerSecond)).toBe(rates.reduce((all, [read]) => all + read, 0));
          expect(total((row) => row.bytesWrittenPerSecond)).toBe(rates.reduce((all, [, written]) => all + written, 0));
          map.rows.forEach((row, i) => {
            expect(row.range.start).toEqual(i === 0 ? utf8('') : map.rows[i - 1]?.range.end);
            expect(row.heat.length).toBeLessThanOrEqual(CELLS_PER_ROW);
          });
          expect(map.rows.at(-1)?.range.end).toEqual(utf8(''));
        },
      ),
    );
  });

  test('gives few regions a row each, whose bar is as long as they are hot', () => {
    const { rows, regionsPerCell } = heatMap(
      regionsOf([
        [0, 0],
        [100, 0],
        [50, 900],
      ]),
      'read',
      10,
    );
    expect(regionsPerCell).toBe(1);
    expect(rows.map(({ heat }) => heat)).toEqual(['', '@'.repeat(CELLS_PER_ROW), '+'.repeat(CELLS_PER_ROW / 2)]);
    expect(rows.map(({ share }) => share)).toEqual([0, 100 / 150, 50 / 150]);
  });

  test('gives many regions a character each, then several a character', () => {
    const hot = regionsOf(Array.from({ length: 70 }, (_, i) => [i === 40 ? 1000 : i === 41 ? 1 : 0, 0]));
    const map = heatMap(hot, 'both', 5);
    expect(map).toMatchObject({ regionsPerCell: 1, bytesReadPerSecond: 1001 });
    expect(map.rows.map(({ regions }) => regions)).toEqual([32, 32, 6]);
    expect(map.rows[1]?.heat).toBe(`${' '.repeat(8)}@.${' '.repeat(22)}`);
    expect(heatMap(hot, 'both', 1)).toMatchObject({ regionsPerCell: 3, rows: [{ regions: 70 }] });
  });

  test('shades rise with the value, blank is nothing and the darkest the hottest', () => {
    expect([0, 1, 499, 999, 1000].map((value) => shade(value, 1000))).toEqual([' ', '.', '=', '%', '@']);
    expect(shade(0, 0)).toBe(' ');
  });
});

describe('ctl heat', () => {
  test('prints rows with rates and the top regions', async () => {
    const { code, stdout } = await new FakeAdmin().run(['ctl', 'heat', 'read']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^START +END +REGIONS +READ +WRITTEN +SHARE +HEAT$/m);
    expect(stdout).toMatch(/^-inf +m +1 +2\.0 KiB\/s +0 B\/s +50 % +@{32}$/m);
    expect(stdout).toMatch(/^m +\+inf +1 +2\.0 KiB\/s/m);
    expect(stdout).toMatch(/Top regions:\n *REGION/);
  });

  test('says so when nothing happens, and refuses other words', async () => {
    const quiet = await new FakeAdmin().run(['ctl', 'heat', 'write', '-o', 'json']);
    expect(quiet.stderr).toContain('nothing was read or written');
    expect(JSON.parse(quiet.stdout)).toMatchObject({
      kind: 'HeatMap',
      by: 'write',
      bytesReadPerSecond: 4096,
      rows: [
        { startKey: null, endKey: 'm', heat: '' },
        { startKey: 'm', endKey: null },
      ],
      top: [],
    });
    const wrong = await new FakeAdmin().run(['ctl', 'heat', 'rite']);
    expect([wrong.code, wrong.stdout]).toEqual([1, '']);
    expect(wrong.stderr).toContain('Did you mean write?');
    expect((await new FakeAdmin().run(['__complete', '--', 'ctl', 'heat', 'w'])).stdout).toBe('write\n');
  });
});
