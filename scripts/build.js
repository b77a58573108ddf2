#!/usr/bin/env node
/**
 * Compiles `src/` into `dist/` and makes the command executable. Needs nothing but the installed TypeScript.
 * The output is replaced as a whole only after the compiler succeeded, so a failed build leaves the last good one.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const SHEBANG = '#!/usr/bin/env node\n';
const EXECUTABLE = 0o755;

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
const fresh = join(ROOT, '.tmp', `dist-${process.pid}`);
const dist = join(ROOT, 'dist');

/** The compiler's command-line program, wherever npm put it. */
function compilerPath() {
  const require = createRequire(join(ROOT, 'package.json'));
  const packagePath = require.resolve('typescript/package.json');
  const { bin } = JSON.parse(readFileSync(packagePath, 'utf8'));
  return join(dirname(packagePath), typeof bin === 'string' ? bin : bin.tsc);
}

/** Pages, styles and other files that the program reads at run time keep their place beside the compiled code. */
function copyAssets() {
  cpSync(join(ROOT, 'src'), fresh, {
    recursive: true,
    filter: (source) => statSync(source).isDirectory() || !/\.(ts|tsx|md)$/.test(source),
  });
}

/** Tools without a terminal start the command by its first line. */
function makeExecutable(file) {
  const text = readFileSync(file, 'utf8');
  if (!text.startsWith('#!')) {
    writeFileSync(file, SHEBANG + text);
  }
  chmodSync(file, EXECUTABLE);
}

function build() {
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  const compiled = spawnSync(process.execPath, [compilerPath(), '-p', 'tsconfig.build.json', '--outDir', fresh], {
    cwd: ROOT,
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (compiled.error !== undefined) {
    throw compiled.error;
  }
  if (compiled.status !== 0) {
    return compiled.status ?? 1;
  }
  copyAssets();
  for (const target of Object.values(manifest.bin)) {
    const file = join(fresh, target.replace(/^(\.\/)?dist\//, ''));
    if (!existsSync(file)) {
      process.stderr.write(`build: ${target} is named in package.json but was not compiled\n`);
      return 1;
    }
    makeExecutable(file);
  }
  rmSync(dist, { recursive: true, force: true });
  renameSync(fresh, dist);
  return 0;
}

try {
  process.exitCode = build();
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
