/** What docs/cli.md and docs/benchmarks.md say about the command line exists, and the reverse. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { buildProgram } from '../../../src/cli/program.ts';
import { ERROR_CODES } from '../../../src/cli/ctl/error-catalogue.ts';
import { registerOfflineCommands } from '../../../src/cli/offline/index.ts';
import { MemorySink } from './harness.ts';

const cli = readFileSync(new URL('../../../docs/cli.md', import.meta.url), 'utf8');
const benchmarks = readFileSync(new URL('../../../docs/benchmarks.md', import.meta.url), 'utf8');

const program = buildProgram(
  {
    io: {
      env: {},
      stdout: new MemorySink(),
      stderr: new MemorySink(),
      stdin: (async function* () {})(),
      isStdinTerminal: false,
      signal: new AbortController().signal,
    },
    connector: { data: () => Promise.reject(new Error('unused')), admin: () => Promise.reject(new Error('unused')) },
    exitCode: 0,
  },
  [registerOfflineCommands],
);

function leaves(command: Command, path: readonly string[] = []): { path: readonly string[]; command: Command }[] {
  return command.commands.length === 0
    ? [{ path, command }]
    : command.commands.flatMap((child) => leaves(child, [...path, child.name()]));
}

const LEAVES = leaves(program);
/** Run by other rooms and documented there. */
const ELSEWHERE = new Set(['dev', 'server', 'pd', 'config']);

/** Flags whose help says everything. */
const UNDOCUMENTED = new Set(
  '--page-size --kind --region --limit --after --ended --all --store --filter --value-size --keys --scan-limit --warmup --seed'.split(
    ' ',
  ),
);

/** Words of every `braid …` line in the code blocks. */
const blocks = [...`${cli}\n${benchmarks}`.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block]) => block).join('\n');
const shownCommands = [...blocks.matchAll(/^braid ([^#\n]+)/gm)]
  .map(([, line]) => (line as string).trim().split(/\s+(?=(?:[^']*'[^']*')*[^']*$)/))
  .filter(([word]) => !ELSEWHERE.has(word as string));

function find(words: readonly string[]): { command: Command; rest: readonly string[] } {
  let command = program;
  let at = 0;
  for (; at < words.length; at++) {
    const child = command.commands.find((one) => one.name() === words[at]);
    if (child === undefined) {
      break;
    }
    command = child;
  }
  return { command, rest: words.slice(at) };
}

describe('the documentation', () => {
  test('shows commands that exist, with flags that they have', () => {
    expect(shownCommands.length).toBeGreaterThan(20);
    for (const words of shownCommands) {
      const { command, rest } = find(words);
      expect(command.commands, words.join(' ')).toHaveLength(0);
      for (const word of rest.filter((one) => /^--?[a-z]/.test(one))) {
        const isKnown = command.options.some((option) => option.long === word || option.short === word);
        expect(isKnown, `${words.join(' ')}: ${word}`).toBe(true);
      }
    }
  });

  test.each(
    LEAVES.filter(({ path }) => path[0] !== 'version').map(({ path, command }) => [path.join(' '), command] as const),
  )('names %s and its own flags', (path, command) => {
    // `show ID` in a list stands for the command with the group's name before it.
    const words = path.split(' ');
    const last = words.at(-1) as string;
    expect(cli).toMatch(new RegExp(String.raw`\b${last}\b`));
    expect(cli).toContain(words.slice(0, -1).join(' '));
    const own = command.options
      .filter((option) => option.helpGroupHeading !== 'Common options:')
      .map((option) => option.long as string);
    const isMeasuring = words[0] === 'bench';
    const known = isMeasuring ? `${cli}${benchmarks}` : cli;
    const missing = own.filter((flag) => !known.includes(flag) && !UNDOCUMENTED.has(flag));
    expect(missing).toEqual([]);
  });

  test('names exit codes and codes of refused rows that exist', () => {
    for (const code of ['0', '1', '2', '3', '4', '5', '130']) {
      expect(cli).toContain(`| ${code} | `);
    }
    expect(ERROR_CODES.length).toBeGreaterThan(20);
  });
});
