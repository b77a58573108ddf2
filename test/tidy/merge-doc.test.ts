/** `docs/merge.md` names the script that covers each line; every name must be the title of a test. */
import { describe, expect, test } from 'vitest';
import { listFiles, readText } from './source-tree.ts';

const DOC = 'docs/merge.md';

/** Titles of all tests, as patterns: parts that a template fills in match anything. */
function titles(): RegExp[] {
  const call = /\b(?:scenario|test|describe)\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g;
  const out: RegExp[] = [];
  for (const path of listFiles('test')) {
    if (path.endsWith('.test.ts')) {
      for (const [, quote, title = ''] of readText(path).matchAll(call)) {
        const parts = quote === '`' ? title.split(/\$\{(?:[^{}]|\{[^{}]*\})*\}/) : [title];
        const escaped = parts.map((part) => part.replace(/\\(.)/g, '$1').replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
        // A title that is nothing but a placeholder says nothing.
        if (parts.join('').trim().length > 3) {
          out.push(new RegExp(`^${escaped.join('.+')}$`));
        }
      }
    }
  }
  return out;
}

/** Cells of the table rows whose first cell matches. */
function rows(first: RegExp): string[][] {
  return readText(DOC)
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    )
    .filter(([head]) => first.test(head ?? ''));
}

const namesIn = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name as string);

describe('the document about merges', () => {
  const known = titles();
  const isTitle = (name: string): boolean => known.some((title) => title.test(name));

  test('has every race once, each with a script that exists or a reason', () => {
    const races = rows(/^R\d+$/);
    expect(races.map(([id]) => id)).toEqual(Array.from({ length: 54 }, (_, i) => `R${i + 1}`));
    for (const [id, , rule = '', covered = ''] of races) {
      const names = namesIn(covered);
      expect(
        names.filter((name) => !isTitle(name)),
        `${id}`,
      ).toEqual([]);
      expect(names.length > 0 || /^– not here: .{20,}/.test(rule), `${id} has a script or a reason`).toBe(true);
    }
  });

  test('has a script for every line of the crash table and of what a returning store finds', () => {
    const crashes = rows(/^C\d+$/);
    expect(new Set(crashes.map(([id]) => id)).size).toBe(11);
    const text = readText(DOC);
    const found = text.slice(text.indexOf('## What a store finds'), text.indexOf('## Races'));
    const returning = found.split('\n').filter((line) => line.startsWith('| ') && !line.startsWith('| situation'));
    expect(returning.length).toBeGreaterThan(8);
    for (const line of [...crashes.map((cells) => cells.at(-1) ?? ''), ...returning]) {
      const names = namesIn(line);
      expect(names.length, line).toBeGreaterThan(0);
      expect(names.filter((name) => !isTitle(name))).toEqual([]);
    }
  });

  test('accounts for every merge scenario: a script or a reason', () => {
    const groups: readonly (readonly [number, number])[] = [
      [1, 9],
      [10, 22],
      [30, 38],
      [40, 48],
      [50, 53],
      [60, 65],
      [70, 76],
    ];
    const absent = new Set(rows(/^M-\d\d$/).map(([id]) => id));
    const all = groups.flatMap(([from, to]) =>
      Array.from({ length: to - from + 1 }, (_, i) => `M-${String(from + i).padStart(2, '0')}`),
    );
    const scripted = known.map((title) => title.source).join('\n');
    expect(all.filter((id) => !absent.has(id) && !scripted.includes(id))).toEqual([]);
    expect(all.filter((id) => absent.has(id) && scripted.includes(id))).toEqual([]);
  });
});
