#!/usr/bin/env node
/**
 * Adds the entries that package-lock.json lacks for optional packages of other platforms. A registry mirror that does
 * not carry them makes `npm install` leave them out, and `npm ci` refuses such a file anywhere. The entries name version
 * and platform, which is all that npm needs to skip a package that does not fit; it fetches one that fits.
 *
 *   node scripts/complete-lock.js           write package-lock.json
 *   node scripts/complete-lock.js --check   only say what is missing, exit code 1 if anything is
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const LOCK = join(dirname(dirname(fileURLToPath(import.meta.url))), 'package-lock.json');
const SYSTEMS = ['aix', 'android', 'darwin', 'freebsd', 'linux', 'netbsd', 'openbsd', 'openharmony', 'sunos', 'win32'];
const PROCESSORS = ['arm64', 'ia32', 'loong64', 'mips64el', 'ppc64', 'riscv64', 's390x', 'wasm32', 'x64'];

/** What npm calls the platform that a package like `@scope/binding-linux-arm-gnueabihf` is for. */
function platformOf(name) {
  const words = name.split(/[/-]/);
  const os = SYSTEMS.filter((system) => words.includes(system));
  const cpu = words.some((word) => /^arm(v\d)?$/.test(word))
    ? ['arm']
    : PROCESSORS.filter((each) => words.includes(each));
  const libc = words.some((word) => word.startsWith('musl'))
    ? ['musl']
    : words.some((word) => /^(gnu|glibc)/.test(word))
      ? ['glibc']
      : [];
  return {
    ...(cpu.length > 0 ? { cpu } : {}),
    ...(os.length > 0 ? { os } : {}),
    ...(libc.length > 0 ? { libc } : {}),
  };
}

const lock = JSON.parse(readFileSync(LOCK, 'utf8'));
const missing = [];
for (const [path, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const isPresent = [`${path}/node_modules/${name}`, `node_modules/${name}`].some((each) => each in lock.packages);
    if (!isPresent && /^\d+\.\d+\.\d+$/.test(version)) {
      const dev = entry.dev === true ? { dev: true } : {};
      missing.push({ path: `node_modules/${name}`, entry: { version, ...platformOf(name), ...dev, optional: true } });
    }
  }
}
if (process.argv.includes('--check')) {
  for (const { path } of missing) {
    console.log(`${path} is missing`);
  }
  process.exitCode = missing.length > 0 ? 1 : 0;
} else if (missing.length > 0) {
  const [[rootPath, root], ...rest] = Object.entries(lock.packages);
  const sorted = [...rest, ...missing.map(({ path, entry }) => [path, entry])].sort(([a], [b]) => (a < b ? -1 : 1));
  lock.packages = Object.fromEntries([[rootPath, root], ...sorted]);
  writeFileSync(LOCK, `${JSON.stringify(lock, undefined, 2)}\n`);
  console.log(`${missing.length} entries added`);
}
