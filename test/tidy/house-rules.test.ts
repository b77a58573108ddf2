/** House rules about form that a machine can check. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { FAILPOINT_NAMES } from '../../src/env/failpoint-names.ts';
import { findAll, isIn, listFiles, readSources, readText, ROOT } from './source-tree.ts';

const sources = readSources('src');
const tests = readSources('test');
const tools = ['bench', 'jepsen-lite', 'scripts'].flatMap((folder) => readSources(folder, /\.(ts|js)$/));
const all = [...sources, ...tests, ...tools];

const TEST_FOLDERS = [
  'unit',
  'tidy',
  'contract',
  'property',
  'conformance',
  'scenario',
  'sim',
  'integration',
  'dashboard',
];
/** Written by the test runner, the package manager or a foreign project. */
const FOREIGN_FILES = /^(package-lock\.json|src\/gen\/|test\/conformance\/.*testdata\/)/;
const TEXT_FILES = /\.(ts|js|mjs|json|md|toml|ya?ml|sh|txt|proto|html|css|tla|cfg)$|^\.ci\/run$/;

const places = (pattern: RegExp, files = all, from: 'code' | 'text' = 'code'): string[] =>
  findAll(files, pattern, from).map(({ place }) => place);

describe('sources', () => {
  test('start with a comment that says what the file owns', () => {
    expect(sources.filter(({ text }) => !/^(#!.*\n)?\/\*\*/.test(text)).map(({ path }) => path)).toEqual([]);
  });

  test('write to the console only from the command line and the tools', () => {
    const silent = [...sources.filter(({ path }) => !isIn(path, 'src/cli')), ...tests];
    expect(places(/(?<![.\w])console\.\w+/, silent)).toEqual([]);
  });

  test('export by name', () => {
    const ours = all.filter(({ path }) => path !== 'vitest.config.ts');
    expect(places(/\bexport default\b|\bas default\b/, ours)).toEqual([]);
  });

  test('never slice bytes, which copies or aliases depending on their class', () => {
    const names =
      '(bytes|Bytes|buffer|Buffer|buf|key|Key|value|Value|payload|Payload|chunk|frame|encoded|packet|digest)';
    const files = sources.filter(({ path }) => !isIn(path, 'src/cli', 'src/dashboard'));
    expect(places(new RegExp(`\\b\\w*${names}\\.slice\\(`), files)).toEqual([]);
  });

  test('show Uint8Array in signatures, not Buffer', () => {
    const files = sources.filter(
      ({ path }) => !isIn(path, 'src/rpc/grpc', 'src/engine/level', 'src/server', 'src/cli'),
    );
    expect(places(/[:|<]\s*Buffer\b(?!\.)/, files)).toEqual([]);
  });

  test('use no any, no enum, no namespace and no suppressed type errors', () => {
    expect(places(/(:|<|\bas|\|)\s*any\b/)).toEqual([]);
    expect(places(/^\s*(export )?(declare )?(const )?(enum|namespace) \w+/m)).toEqual([]);
    const suppressions = /@ts-(ignore|nocheck|expect-error)|(eslint|oxlint)-disable(?!-next-line [\w/-]+ -- \S)/;
    expect(places(suppressions, sources, 'text')).toEqual([]);
  });

  test('have names that say what is inside', () => {
    const drawers = /(^|\/)(utils?|helpers?|common|shared|misc|types|constants|interfaces)(\.[jt]s$|\/)/;
    expect(all.map(({ path }) => path).filter((path) => drawers.test(path) && path !== 'src/raft/types.ts')).toEqual(
      [],
    );
    const kebab = /^[a-z0-9]+(-[a-z0-9]+)*(\.(test|spec|bench|d|config))?\.[jt]s$/;
    expect(all.map(({ path }) => path).filter((path) => !kebab.test(path.split('/').at(-1) as string))).toEqual([]);
  });

  test('leave nothing to fix', () => {
    expect(
      places(new RegExp('FIX' + 'ME|XX' + 'X\\b|not implemented|unimplemented'), [...sources, ...tools], 'text'),
    ).toEqual([]);
    expect(places(/TODO(?!\([\w-]+\): \S)/, [...sources, ...tools], 'text')).toEqual([]);
  });

  test('use every failpoint that is listed', () => {
    const unused = FAILPOINT_NAMES.filter(
      (name) =>
        name !== 'test::point' &&
        !sources.some(({ path, text }) => !path.endsWith('failpoint-names.ts') && text.includes(`'${name}'`)),
    );
    expect(unused).toEqual([]);
  });
});

describe('tests', () => {
  test('run in one of the projects', () => {
    const strays = tests
      .map(({ path }) => path)
      .filter((path) => path.endsWith('.test.ts') && !TEST_FOLDERS.some((folder) => isIn(path, `test/${folder}`)));
    expect(strays).toEqual([]);
  });

  test('are all run, and once', () => {
    expect(places(/\b(test|it|describe)(\.\w+)*\.only\b/, tests)).toEqual([]);
    expect(places(/\b(test|it|describe)(\.\w+)*\.(todo|fails)\b/, tests)).toEqual([]);
    expect(places(/\bretry: ?[1-9]/, tests)).toEqual([]);
  });

  test('say why they are skipped', () => {
    const skips = findAll(tests, /^.*\b(?:describe|it|test)(?:\.\w+)*\.(skip|skipIf|runIf)\b.*$/m, 'code');
    const lines = (path: string): string[] => readText(path).split('\n');
    const unexplained = skips.filter(({ place, path }) => {
      const line = Number(place.slice(path.length + 1).split(':')[0]);
      return !(lines(path)[line - 2] ?? '').trim().startsWith('//');
    });
    expect(unexplained.map(({ place }) => place)).toEqual([]);
  });
});

describe('files', () => {
  const texts = listFiles()
    .filter((path) => TEXT_FILES.test(path) && !FOREIGN_FILES.test(path))
    .map((path) => ({ path, text: readText(path) }));

  test('name no path of one machine', () => {
    const pattern = new RegExp('(^|[\\s"\'`(=:])/' + '(work|root|farm|home/\\w+|Users/\\w+)/');
    expect(texts.filter(({ text }) => pattern.test(text)).map(({ path }) => path)).toEqual([]);
  });

  test('in Markdown have exactly one title', () => {
    const titles = (text: string): number =>
      text
        .replace(/^(```|~~~)[\s\S]*?^\1/gm, '')
        .split('\n')
        .filter((line) => line.startsWith('# ')).length;
    expect(
      texts.filter(({ path, text }) => path.endsWith('.md') && titles(text) !== 1).map(({ path }) => path),
    ).toEqual([]);
  });

  test('lock every package for every platform, as npm ci demands', () => {
    const check = spawnSync(process.execPath, [join(ROOT, 'scripts/complete-lock.js'), '--check'], {
      encoding: 'utf8',
    });
    expect({ status: check.status, missing: check.stdout }).toEqual({ status: 0, missing: '' });
  });

  test('end with a line end and hold no carriage return', () => {
    const odd = texts.filter(({ text }) => text.includes('\r') || (text.length > 0 && !text.endsWith('\n')));
    expect(odd.map(({ path }) => path)).toEqual([]);
  });
});
