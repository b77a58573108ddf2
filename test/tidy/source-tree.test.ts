import { describe, expect, test } from 'vitest';
import { readSource, stripCode } from './source-tree.ts';

describe('stripCode', () => {
  test.each([
    ['a // b', 'a     '],
    ['a /* b */ c', 'a         c'],
    ["f('it\\'s // x')", "f('          ')"],
    ['f("x") // y', 'f(" ")     '],
    ['`a ${b("}")} c` + d', '`             ` + d'],
    ['x = /["/]/.test(y)', 'x = /    /.test(y)'],
    ['a / b / c', 'a / b / c'],
    ["return /'/g; // c", 'return / /g;     '],
  ])('blanks %j', (input, output) => {
    expect(stripCode(input)).toBe(output);
  });

  test('keeps texts when asked to, and line numbers always', () => {
    expect(stripCode("import 'x'; // y", true)).toBe("import 'x';     ");
    expect(stripCode('/* a\nb */ c\n`d\ne`')).toBe('    \n     c\n` \n `');
  });
});

describe('readSource', () => {
  test('finds this file and its imports', () => {
    const file = readSource('test/tidy/source-tree.test.ts');
    expect(file.imports).toEqual([
      { specifier: 'vitest', target: undefined, isTypeOnly: false },
      { specifier: './source-tree.ts', target: 'test/tidy/source-tree.ts', isTypeOnly: false },
    ]);
  });

  test('tells type imports from others', () => {
    const file = readSource('src/env/env.ts');
    expect(file.imports.length).toBeGreaterThan(3);
    expect(file.imports.every(({ isTypeOnly }) => isTypeOnly)).toBe(true);
  });
});
