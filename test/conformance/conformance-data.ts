/**
 * Where the etcd-raft conformance files are, and how one of them is run. The folder is input only; it is named by the
 * setting BRAID_CONFORMANCE_DIR, by default `../shared/conformance/etcd-raft` beside the repository.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { confChangeHandler } from './confchange-files.ts';
import {
  type Directive,
  HarnessError,
  type Mismatch,
  parseFile,
  runDirectives,
  unifiedDiff,
  withoutLogLines,
} from './datadriven.ts';
import { InteractionEnv } from './interaction-files.ts';
import { quorumHandler } from './quorum-files.ts';

export const REPOSITORY: string = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const CONFORMANCE_DIR_SETTING = 'BRAID_CONFORMANCE_DIR';
const DEFAULT_DIR = '../shared/conformance/etcd-raft';

/** The folder to read; relative settings start at the repository. */
export const conformanceDir = (setting: string | undefined): string =>
  resolve(REPOSITORY, setting === undefined || setting === '' ? DEFAULT_DIR : setting);

export const SUITES = ['interaction', 'confchange', 'quorum'] as const;
export type Suite = (typeof SUITES)[number];

export interface ConformanceFile {
  readonly suite: Suite;
  /** Relative to the folder, with forward slashes. */
  readonly name: string;
  readonly path: string;
}

function listFiles(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true })
    .flatMap((entry) => (entry.isDirectory() ? listFiles(join(dir, entry.name)) : [join(dir, entry.name)]))
    .sort();
}

const COMMANDS: Readonly<Record<Exclude<Suite, 'interaction'>, readonly string[]>> = {
  confchange: ['simple', 'enter-joint', 'leave-joint'],
  quorum: ['committed', 'vote'],
};

/** The suite of a file: from a folder on its path, else from its commands. */
function suiteOf(path: string, root: string): Suite {
  const folders = relative(root, path).split(sep).slice(0, -1).reverse();
  const named = folders.find((name): name is Suite => (SUITES as readonly string[]).includes(name));
  if (named !== undefined) {
    return named;
  }
  const own = root.split(sep).at(-1) ?? '';
  if ((SUITES as readonly string[]).includes(own)) {
    return own as Suite;
  }
  const commands = parseFile(readFileSync(path, 'utf8')).map((d) => d.command);
  if (commands.some((c) => COMMANDS.confchange.includes(c))) {
    return 'confchange';
  }
  return commands.some((c) => COMMANDS.quorum.includes(c)) ? 'quorum' : 'interaction';
}

/** All conformance files below `root`, or below a single file's path. Empty if there are none. */
export function discoverFiles(root: string): ConformanceFile[] {
  if (statSync(root).isFile()) {
    return [{ suite: suiteOf(root, dirname(root)), name: relative(dirname(root), root), path: root }];
  }
  return listFiles(root)
    .filter((path) => path.endsWith('.txt'))
    .map((path) => ({ suite: suiteOf(path, root), name: relative(root, path).split(sep).join('/'), path }));
}

export interface DigestReport {
  /** Names whose content differs, or that are listed and missing. */
  readonly wrong: readonly string[];
  /** Number of names checked. */
  readonly checked: number;
}

/** Compares the folder with its SHA256SUMS; undefined if it has none. */
export function checkDigests(root: string): DigestReport | undefined {
  const list = join(root, 'SHA256SUMS');
  if (!existsSync(list)) {
    return undefined;
  }
  const wrong: string[] = [];
  let checked = 0;
  for (const line of readFileSync(list, 'utf8').split('\n')) {
    const match = /^([0-9a-f]{64}) [ *](.+)$/.exec(line);
    if (match === null) {
      if (line.trim() !== '') {
        wrong.push(`unreadable line: ${line}`);
      }
      continue;
    }
    const [, digest, name] = match as unknown as [string, string, string];
    const path = join(root, name);
    checked++;
    if (!existsSync(path) || createHash('sha256').update(readFileSync(path)).digest('hex') !== digest) {
      wrong.push(name);
    }
  }
  return { wrong, checked };
}

export interface RunMode {
  /** True: the output must match byte for byte; false: core log lines are neither written nor expected. */
  readonly isExact: boolean;
  /** How election timeouts are drawn. */
  readonly random: (n: number) => number;
}

/** Timeouts at the minimum. */
export const minimumTimeouts = (): number => 0;
/** Timeouts at the maximum. */
export const maximumTimeouts = (n: number): number => n - 1;

/** Timeouts drawn from a seeded stream (xorshift32). */
export function seededTimeouts(seed: number): (n: number) => number {
  let state = (seed * 2654435761 + 1) >>> 0 || 1;
  return (n) => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % n;
  };
}

function handlerOf(suite: Suite, mode: RunMode): (directive: Directive) => string {
  switch (suite) {
    case 'interaction': {
      const env = new InteractionEnv({ random: mode.random, showLog: mode.isExact });
      return (directive) => env.handle(directive);
    }
    case 'confchange':
      return confChangeHandler();
    case 'quorum':
      return quorumHandler();
  }
}

/** Runs one file; undefined if it passes. */
export function runFile(file: ConformanceFile, mode: RunMode): Mismatch | undefined {
  const directives = parseFile(readFileSync(file.path, 'utf8'));
  if (directives.length === 0) {
    throw new HarnessError(`${file.name} has no directives`);
  }
  return runDirectives(directives, handlerOf(file.suite, mode), mode.isExact ? undefined : withoutLogLines);
}

/** A mismatch for people: place, directive, unified diff. */
export function mismatchText(file: ConformanceFile, mismatch: Mismatch): string {
  return `${file.path}:${mismatch.line}: ${mismatch.directive}\n${unifiedDiff(mismatch.expected, mismatch.actual)}`;
}
