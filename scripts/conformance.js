#!/usr/bin/env node
/**
 * Replays a folder of etcd-raft conformance files against the consensus core, byte for byte and by behavior, with the
 * shortest, the longest and several random election timeouts. Usage:
 *
 *   npm run conformance            the folder named by BRAID_CONFORMANCE_DIR, or the default beside the repository
 *   npm run conformance -- DIR     this folder, or this one file
 *
 * Prints one line per file and a unified diff for each that differs; the last line is `N passed, N failed`. The exit
 * code is 0 only if nothing failed.
 */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(join(ROOT, 'package.json'));
const loader = require.resolve('tsx');

const [dir] = process.argv.slice(2);
const result = spawnSync(
  process.execPath,
  [
    '--import',
    `file://${loader}`,
    join(ROOT, 'test/conformance/run-folder.ts'),
    ...(dir === undefined ? [] : [resolve(process.env.INIT_CWD ?? process.cwd(), dir)]),
  ],
  { cwd: ROOT, stdio: 'inherit' },
);
process.exitCode = result.status ?? 1;
