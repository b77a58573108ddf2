/** The table of scenarios in `docs/testing.md` names every scenario, and scripts that exist. */
import { describe, expect, test } from 'vitest';
import { readText } from './source-tree.ts';

const numbers = (group: string, from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, i) => `${group}-${String(from + i).padStart(2, '0')}`);

const ALL: readonly string[] = [
  ...[...numbers('M', 1, 22), ...numbers('M', 30, 38), ...numbers('M', 40, 48), ...numbers('M', 50, 53)],
  ...[...numbers('M', 60, 65), ...numbers('M', 70, 76), ...numbers('S', 1, 20), ...numbers('C', 1, 16)],
  ...[...numbers('P', 1, 14), ...numbers('T', 1, 11), ...numbers('R', 1, 18), ...numbers('G', 1, 5)],
];

const ID = /\b[MSCPTRG]-\d\d\b/g;
const section = readText('docs/testing.md').split('### Scenarios')[1]?.split('\n## ')[0] ?? '';
const [table = '', unwritten = ''] = section.split('| not written |');
const rows = table
  .split('\n')
  .map((line) => ({ ids: line.match(ID) ?? [], file: /`([\w-]+\.test\.ts)`/.exec(line.split('|')[2] ?? '')?.[1] }))
  .flatMap(({ ids, file }) => (file === undefined ? [] : [{ ids, file }]));

/** Scenario numbers in the names of a file's scripts. */
const titlesOf = (file: string): Set<string> => {
  const text = readText(`test/scenario/${file}`);
  const titles = text.matchAll(/\b(?:scenario|test|script|describe)\(\s*(['"`])([\s\S]*?)\1/g);
  return new Set([...titles].flatMap(([, , title]) => title?.match(ID) ?? []));
};

describe('the table of scenarios', () => {
  test('names every scenario once as written, or says why it is not', () => {
    const written = new Set(rows.flatMap(({ ids }) => ids));
    const reasons = unwritten
      .split('\n')
      .filter((line) => line.startsWith('| ') && (line.split('|')[2] ?? '').trim().length > 20)
      .flatMap((line) => line.match(ID) ?? []);
    expect(ALL.filter((id) => !written.has(id) && !reasons.includes(id))).toEqual([]);
    expect([...written, ...reasons].filter((id) => !ALL.includes(id))).toEqual([]);
    expect(reasons.filter((id) => written.has(id))).toEqual([]);
  });

  test('names scripts that exist', () => {
    for (const { ids, file } of rows) {
      const titles = titlesOf(file);
      expect(
        ids.filter((id) => !titles.has(id)),
        file,
      ).toEqual([]);
    }
  });
});
