/**
 * Replays the etcd-raft conformance files: one test per file and mode. Without the folder there is one skipped test
 * that says where it was looked for; a folder that is there must be complete.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  checkDigests,
  CONFORMANCE_DIR_SETTING,
  conformanceDir,
  discoverFiles,
  maximumTimeouts,
  minimumTimeouts,
  mismatchText,
  runFile,
  seededTimeouts,
  SUITES,
  type ConformanceFile,
} from './conformance-data.ts';

const dir = conformanceDir(process.env[CONFORMANCE_DIR_SETTING]);
const RANDOM_SEEDS = 20;

function expectPass(file: ConformanceFile, isExact: boolean, random: (n: number) => number): void {
  const mismatch = runFile(file, { isExact, random });
  expect(mismatch === undefined ? '' : mismatchText(file, mismatch)).toBe('');
}

if (existsSync(dir)) {
  const files = discoverFiles(dir);

  describe('the etcd-raft conformance folder', () => {
    test('has files in every suite', () => {
      for (const suite of SUITES) {
        expect(existsSync(join(dir, suite)), `folder ${suite}`).toBe(true);
        expect(files.filter((f) => f.suite === suite).length, `files of ${suite}`).toBeGreaterThan(0);
      }
    });

    test('is unchanged', () => {
      const digests = checkDigests(dir);
      if (digests !== undefined) {
        expect(digests.wrong).toEqual([]);
        expect(digests.checked).toBeGreaterThanOrEqual(files.length);
      }
    });
  });

  describe.each(files)('$name', (file) => {
    test('is reproduced byte for byte', () => {
      expectPass(file, true, minimumTimeouts);
    });

    test('is reproduced in behavior without log lines', () => {
      expectPass(file, false, minimumTimeouts);
    });

    if (file.suite === 'interaction') {
      test('does not depend on the election timeout drawn', () => {
        expectPass(file, true, maximumTimeouts);
        expectPass(file, false, maximumTimeouts);
        for (let seed = 1; seed <= RANDOM_SEEDS; seed++) {
          expectPass(file, seed % 2 === 0, seededTimeouts(seed));
        }
      });
    }
  });
} else {
  // The files are not part of the repository; without them there is nothing to replay.
  test.skip(`etcd-raft conformance data not found at ${dir} (set ${CONFORMANCE_DIR_SETTING})`, () => {});
}
