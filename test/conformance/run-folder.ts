/**
 * Runs a folder of etcd-raft conformance files and reports per file. Started by scripts/conformance.js:
 *
 *   npm run conformance -- [DIR]
 */
import { existsSync } from 'node:fs';
import {
  checkDigests,
  CONFORMANCE_DIR_SETTING,
  conformanceDir,
  discoverFiles,
  maximumTimeouts,
  minimumTimeouts,
  mismatchText,
  runFile,
  type ConformanceFile,
  type RunMode,
  seededTimeouts,
} from './conformance-data.ts';

const RANDOM_SEEDS = 8;

const print = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

function modes(): { readonly name: string; readonly mode: RunMode }[] {
  const draws = [
    { name: 'minimum timeouts', random: () => minimumTimeouts },
    { name: 'maximum timeouts', random: () => maximumTimeouts },
    ...Array.from({ length: RANDOM_SEEDS }, (_, seed) => ({
      name: `random timeouts ${seed + 1}`,
      random: () => seededTimeouts(seed + 1),
    })),
  ];
  return draws.flatMap(({ name, random }) => [
    { name: `byte-exact, ${name}`, mode: { isExact: true, random: random() } },
    { name: `behavioural, ${name}`, mode: { isExact: false, random: random() } },
  ]);
}

/** The first mode a file fails in, as text. */
function failureOf(file: ConformanceFile): string | undefined {
  for (const { name, mode } of modes()) {
    try {
      const mismatch = runFile(file, mode);
      if (mismatch !== undefined) {
        return `${name}\n${mismatchText(file, mismatch)}`;
      }
    } catch (error) {
      return `${name}\n${error instanceof Error ? error.message : String(error)}`;
    }
  }
  return undefined;
}

function main(argument: string | undefined): number {
  const dir = argument === undefined ? conformanceDir(process.env[CONFORMANCE_DIR_SETTING]) : argument;
  if (!existsSync(dir)) {
    print(`FAIL  there is no folder ${dir}`);
    print('0 passed, 1 failed');
    return 1;
  }
  let passed = 0;
  let failed = 0;
  const digests = checkDigests(dir);
  if (digests !== undefined && digests.wrong.length > 0) {
    failed++;
    print(`FAIL  SHA256SUMS: ${digests.wrong.join(', ')}`);
  }
  const files = discoverFiles(dir);
  if (files.length === 0) {
    failed++;
    print(`FAIL  no conformance files below ${dir}`);
  }
  for (const file of files) {
    const failure = failureOf(file);
    if (failure === undefined) {
      passed++;
      print(`pass  ${file.name}`);
    } else {
      failed++;
      print(`FAIL  ${file.name}: ${failure}`);
    }
  }
  print(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

process.exitCode = main(process.argv[2]);
