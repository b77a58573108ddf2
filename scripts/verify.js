#!/usr/bin/env node
/**
 * The one gate: runs every check in turn and says at the end what ran, for how long, and how many tests passed.
 * It only reads the sources. Usage:
 *
 *   node scripts/verify.js              types, lint, format, generated code, unit, property, simulator
 *   node scripts/verify.js --all        everything, as `npm test` does
 *   node scripts/verify.js --only NAME  the named gates, separated by commas
 *   node scripts/verify.js --list       the names
 *
 * The last line is `N passed, N failed`. A check other than a test run counts as one failure if it fails. A test run
 * without tests is a failure: it would prove nothing. The exit code is 0 only if nothing failed.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const require = createRequire(join(ROOT, 'package.json'));
const MINUTE_MS = 60_000;
/** A gate that hangs is stopped, so that the run ends; all of them together need about 25 minutes on two cores. */
const CHECK_LIMIT_MS = 3 * MINUTE_MS;
const KILL_GRACE_MS = 5000;

/** The program of an installed package, run by this Node rather than through a shell. */
function binary(packageName, name = packageName) {
  const manifestPath = require.resolve(`${packageName}/package.json`);
  const { bin } = JSON.parse(readFileSync(manifestPath, 'utf8'));
  return join(dirname(manifestPath), typeof bin === 'string' ? bin : bin[name]);
}

const vitest = (project, limitMs, isQuick) => ({ name: project, type: 'tests', project, limitMs, isQuick });
const check = (name, args, isQuick = true) => ({ name, type: 'check', args, limitMs: CHECK_LIMIT_MS, isQuick });

function gates() {
  const list = [
    check('types', () => [binary('typescript', 'tsc'), '--noEmit']),
    check('lint', () => [binary('oxlint'), '--type-aware', '--deny-warnings']),
    check('format', () => [binary('@biomejs/biome', 'biome'), 'format', '.']),
  ];
  if (existsSync(join(ROOT, 'scripts/gen.js'))) {
    list.push(check('generated', () => ['scripts/gen.js', '--check']));
  }
  list.push(
    vitest('unit', 6 * MINUTE_MS, true),
    vitest('contract', 5 * MINUTE_MS, false),
    vitest('property', 6 * MINUTE_MS, true),
    vitest('conformance', 12 * MINUTE_MS, false),
    vitest('sim', 14 * MINUTE_MS, true),
    check('build', () => ['scripts/build.js'], false),
    vitest('integration', 26 * MINUTE_MS, false),
  );
  return list;
}

/** Runs a program without standard input; resolves with its exit code, or undefined if it had to be stopped. */
function run(args, limitMs) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, {
      cwd: ROOT,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, CI: '1', NO_COLOR: '1' },
      // A group of its own, so that stopping it also stops what it started.
      detached: true,
    });
    let isStopped = false;
    const signal = (name) => {
      try {
        process.kill(-Number(child.pid), name);
      } catch {
        // The group has ended meanwhile.
      }
    };
    const stop = () => {
      isStopped = true;
      signal('SIGTERM');
      setTimeout(signal, KILL_GRACE_MS, 'SIGKILL').unref();
    };
    const timer = setTimeout(stop, limitMs);
    const forward = () => {
      signal('SIGKILL');
      process.exit(1);
    };
    process.on('SIGINT', forward);
    process.on('SIGTERM', forward);
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      process.off('SIGINT', forward);
      process.off('SIGTERM', forward);
      resolve(isStopped ? undefined : (code ?? 1));
    });
  });
}

/** Runs one gate. */
async function runGate(gate, scratch) {
  const startMs = performance.now();
  const result = (fields) => ({ passed: 0, failed: 0, skipped: 0, note: '', ...fields, name: gate.name });
  const finish = (fields) => ({ ...result(fields), seconds: (performance.now() - startMs) / 1000 });
  if (gate.type === 'check') {
    const code = await run(gate.args(), gate.limitMs);
    return code === 0
      ? finish({ note: 'ok' })
      : finish({ failed: 1, note: code === undefined ? 'took too long' : `exit code ${code}` });
  }
  const report = join(scratch, `${gate.project}.json`);
  const args = [binary('vitest'), 'run', '--project', gate.project, '--reporter=default'];
  const code = await run([...args, '--reporter=json', `--outputFile.json=${report}`], gate.limitMs);
  if (!existsSync(report)) {
    return finish({ failed: 1, note: code === undefined ? 'took too long' : 'ended without a report' });
  }
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests } = JSON.parse(readFileSync(report, 'utf8'));
  const counts = { passed: numPassedTests, failed: numFailedTests, skipped: numPendingTests + numTodoTests };
  if (numPassedTests + numFailedTests === 0) {
    return finish({ ...counts, failed: 1, note: 'no tests ran' });
  }
  if (code !== 0 && numFailedTests === 0) {
    return finish({ ...counts, failed: 1, note: code === undefined ? 'took too long' : 'errors outside tests' });
  }
  return finish({ ...counts, note: numFailedTests === 0 ? 'ok' : 'failed' });
}

function printSummary(results) {
  const width = Math.max(...results.map(({ name }) => name.length));
  console.log('\nGates');
  for (const { name, passed, failed, skipped, note, seconds } of results) {
    const tests = passed + failed + skipped === 0 || note === 'ok' ? '' : `, ${failed} failed`;
    const counts = passed > 0 || skipped > 0 ? ` ${passed} passed${skipped > 0 ? `, ${skipped} skipped` : ''}` : '';
    console.log(`  ${name.padEnd(width)}  ${seconds.toFixed(1).padStart(6)} s  ${note}${tests}${counts}`);
  }
  const sum = (field) => results.reduce((total, each) => total + each[field], 0);
  console.log(`  ${'total'.padEnd(width)}  ${sum('seconds').toFixed(1).padStart(6)} s\n`);
  console.log(`${sum('passed')} passed, ${sum('failed')} failed`);
  return sum('failed');
}

async function main() {
  const { values } = parseArgs({
    options: {
      all: { type: 'boolean', default: false },
      only: { type: 'string' },
      list: { type: 'boolean', default: false },
    },
  });
  const known = gates();
  if (values.list) {
    console.log(known.map(({ name }) => name).join('\n'));
    return 0;
  }
  const names = values.only?.split(',').map((name) => name.trim());
  const unknown = names?.filter((name) => !known.some((gate) => gate.name === name)) ?? [];
  if (unknown.length > 0) {
    console.error(
      `verify: there is no gate ${unknown.join(', ')}; known are ${known.map(({ name }) => name).join(', ')}`,
    );
    return 2;
  }
  const chosen = known.filter((gate) => (names === undefined ? values.all || gate.isQuick : names.includes(gate.name)));
  const scratch = mkdtempSync(join(tmpdir(), 'braid-verify-'));
  const results = [];
  try {
    for (const gate of chosen) {
      console.log(`\n== ${gate.name}`);
      results.push(await runGate(gate, scratch));
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return printSummary(results) === 0 ? 0 : 1;
}

process.exitCode = await main();
