/**
 * Front end of the whole-cluster simulator.
 *
 *   npm run sim -- --profile merge-storm --seeds 1000 --first-seed 7 --jobs 2
 *   npm run sim -- --profile lite --seed 42 [--trace out.html] [--history out.jsonl] [--shrink]
 *   npm run sim -- --profile sweep --seed 300008
 *   npm run sim -- --replay FILE [--trace out.html] [--shrink]
 *   npm run sim -- --profile merge-storm --seeds 300 --goals --matrix
 *   npm run sim -- --defects [--only NAME,NAME] [--tries 3] [--cpu-seconds 60] [--minutes 1]
 *
 * Bundles test/sim/main.ts (with one planted defect if asked), runs it in worker processes and counts. A failing seed is
 * one line with the seed, the commit, the profile and the command that replays it; exit code 1.
 */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { DEFECTS } from './sim-defects.js';
import { GOAL_HISTORIES, matrix, unmetGoals, vacuous, VACUITY_HISTORIES } from './sim-goals.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const cache = join(root, 'node_modules', '.cache', 'sim');

const { values: flags } = parseArgs({
  options: {
    profile: { type: 'string', default: 'lite' },
    seeds: { type: 'string', default: '100' },
    'first-seed': { type: 'string', default: '1' },
    seed: { type: 'string' },
    jobs: { type: 'string', default: '2' },
    minutes: { type: 'string' },
    trace: { type: 'string' },
    history: { type: 'string' },
    replay: { type: 'string' },
    shrink: { type: 'boolean', default: false },
    'shrink-minutes': { type: 'string', default: '10' },
    defect: { type: 'string' },
    defects: { type: 'boolean', default: false },
    only: { type: 'string' },
    tries: { type: 'string', default: '3' },
    'cpu-seconds': { type: 'string', default: '60' },
    hashes: { type: 'boolean', default: false },
    goals: { type: 'boolean', default: false },
    matrix: { type: 'boolean', default: false },
    'keep-going': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

function usage(message) {
  const text = readFileSync(fileURLToPath(import.meta.url), 'utf8');
  process.stderr.write(
    `${message === undefined ? '' : `${message}\n`}${text.slice(text.indexOf('/**') + 4, text.indexOf('*/')).replaceAll(/^ \* ?/gm, '')}`,
  );
  process.exit(message === undefined ? 0 : 2);
}

const PROFILES = [
  'lite',
  'full',
  'merge-storm',
  'move-storm',
  'disk',
  'clock',
  'membership',
  'overload',
  'lossy',
  'disaster',
  'unsafe-clock',
  'chaos',
  'chaos-snapshots',
  'chaos-orders',
  'chaos-starved',
  'sweep',
  'pd-chaos',
  'pd',
  'pd-members',
  'pd-rules',
];

function number(name) {
  const value = Number(flags[name]);
  if (!Number.isSafeInteger(value) || value < 0) {
    usage(`--${name} must be a whole number, not ${flags[name]}`);
  }
  return value;
}

/** Replaces product source while it is bundled; the text must occur exactly once, so that a stale defect is noticed. */
function planting(defect) {
  const path = join(root, defect.file);
  return {
    name: 'planted-defect',
    setup(context) {
      context.onLoad({ filter: /\.ts$/ }, (args) => {
        if (args.path !== path) {
          return undefined;
        }
        const source = readFileSync(path, 'utf8');
        const parts = source.split(defect.find);
        if (parts.length !== 2) {
          throw new Error(`defect ${defect.name}: its text occurs ${parts.length - 1} times in ${defect.file}`);
        }
        return { contents: parts.join(defect.replace), loader: 'ts' };
      });
    },
  };
}

/** Builds the worker; returns its path. */
async function bundle(defect) {
  mkdirSync(cache, { recursive: true });
  const outfile = join(cache, `${defect?.name ?? 'main'}-${process.pid}.mjs`);
  await build({
    entryPoints: [join(root, 'test/sim/main.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    packages: 'external',
    sourcemap: 'inline',
    logLevel: 'error',
    plugins: defect === undefined ? [] : [planting(defect)],
  });
  return outfile;
}

/** Workers that run. A history that hangs would outlive an interrupted run, at full speed. */
const workers = new Set();
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
]) {
  process.once(signal, () => {
    for (const child of workers) {
      child.kill('SIGKILL');
    }
    process.exit(code);
  });
}

/** Runs one worker; calls `onLine` for each JSON line it prints. */
function work(program, order, onLine) {
  const child = spawn(
    process.execPath,
    // Errors are part of most histories: deep stacks are for looking at one.
    [
      '--enable-source-maps',
      `--stack-trace-limit=${order.type === 'seeds' ? 10 : 30}`,
      '--max-semi-space-size=64',
      program,
      JSON.stringify(order),
    ],
    {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  workers.add(child);
  let rest = '';
  let errors = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (chunk) => {
    rest += chunk;
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      onLine(JSON.parse(line), child);
    }
  });
  child.stderr.setEncoding('utf8');
  child.stderr.on('data', (chunk) => {
    if (process.env.SIM_LOG !== undefined) {
      process.stderr.write(chunk);
    }
    errors = (errors + chunk).slice(-20_000);
  });
  return new Promise((done) => {
    child.on('close', (code, signal) => {
      workers.delete(child);
      done({ code, signal, errors });
    });
  });
}

function commit() {
  try {
    const hash = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
    const isDirty =
      execFileSync('git', ['status', '--porcelain', 'src', 'test/sim', 'jepsen-lite'], {
        cwd: root,
        encoding: 'utf8',
      }) !== '';
    return isDirty ? `${hash}+changes` : hash;
  } catch {
    return 'unknown';
  }
}

function saveFailure(result) {
  const folder = join(cache, 'failures');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${result.profile}-${result.seed}.json`);
  writeFileSync(path, JSON.stringify({ commit: commit(), node: process.version, ...result }, null, 1));
  return path;
}

const sentence = (text) => text.replaceAll(/\n\s*/g, ' ').slice(0, 400);

/** Runs seeds over jobs; returns totals. */
async function runSeeds(program, options) {
  const { profile, first, count, jobs, stopMs, onResult } = options;
  const totals = {
    runs: 0,
    failures: [],
    events: 0,
    ok: 0,
    unknown: 0,
    cpuMs: 0,
    actions: {},
    checks: {},
    marks: {},
    cells: {},
    points: {},
    broken: [],
  };
  const children = new Set();
  const workers = [];
  let isOver = false;
  for (let job = 0; job < jobs; job++) {
    const mine = Math.ceil((count - job) / jobs);
    if (mine <= 0) {
      continue;
    }
    let lastSeed;
    const order = { type: 'seeds', profile, first: first + job, step: jobs, count: mine, stopMs };
    workers.push(
      work(program, order, (result, child) => {
        children.add(child);
        if (isOver) {
          return;
        }
        lastSeed = result.seed;
        totals.runs++;
        totals.events += result.stats.events;
        totals.ok += result.stats.ok;
        totals.unknown += result.stats.unknown;
        totals.cpuMs += result.cpuMs;
        for (const group of ['actions', 'checks', 'points', 'marks', 'cells']) {
          for (const [name, n] of Object.entries(result.stats[group] ?? {})) {
            totals[group][name] = (totals[group][name] ?? 0) + n;
          }
        }
        if (result.failure !== undefined) {
          totals.failures.push(result);
        }
        if (onResult?.(result) === 'stop') {
          isOver = true;
          for (const other of children) {
            other.kill('SIGKILL');
          }
        }
      }).then((end) => {
        if (end.code !== 0 && !isOver) {
          totals.broken.push({ after: lastSeed, ...end });
        }
      }),
    );
  }
  await Promise.all(workers);
  return totals;
}

/** Every failpoint of the program. */
function failpointNames() {
  const text = readFileSync(join(root, 'src/env/failpoint-names.ts'), 'utf8');
  return [...text.matchAll(/^ {2}'([\w:-]+)',$/gm)].map((match) => match[1]);
}

function replayCommand(result, more = '') {
  return `npm run sim -- --profile ${result.profile} --seed ${result.seed}${more}`;
}

function report(result) {
  saveFailure(result);
  process.stdout.write(
    `FAIL seed ${result.seed} commit ${commit()} profile ${result.profile}: ${result.failure.invariant} at ${result.failure.atMs.toFixed(1)} ms: ${sentence(result.failure.message)} | replay: ${replayCommand(result)}\n`,
  );
}

async function loop(program) {
  const startMs = performance.now();
  const limitMs = flags.minutes === undefined ? Number.MAX_SAFE_INTEGER : Number(flags.minutes) * 60_000;
  let shown = 0;
  const totals = await runSeeds(program, {
    profile: flags.profile,
    first: number('first-seed'),
    count: number('seeds'),
    jobs: Math.max(1, number('jobs')),
    stopMs: limitMs,
    onResult: (result) => {
      if (flags.hashes) {
        process.stdout.write(`${result.profile} ${result.seed} ${result.traceHash}\n`);
      }
      if (flags.json) {
        process.stdout.write(`${JSON.stringify(result)}\n`);
      }
      if (result.failure !== undefined && shown++ < 20) {
        report(result);
      }
      return undefined;
    },
  });
  for (const broken of totals.broken) {
    process.stdout.write(
      `FAIL a worker ended with ${broken.signal ?? broken.code} after seed ${broken.after}: ${broken.errors.slice(-2000)}\n`,
    );
  }
  const seconds = (performance.now() - startMs) / 1000;
  const cpu = totals.cpuMs / 1000;
  const show = (counts) =>
    Object.entries(counts)
      .sort((a, b) => b[1] - a[1])
      .map(([name, n]) => `${name} ${n}`)
      .join(', ');
  if (!flags.hashes && !flags.json) {
    process.stdout.write(`actions: ${show(totals.actions)}\nchecks: ${show(totals.checks)}\n`);
    const missed = failpointNames().filter((name) => totals.points[name] === undefined);
    if (Object.keys(totals.points).length > 0) {
      process.stdout.write(`points never passed: ${missed.length === 0 ? 'none' : missed.join(', ')}\n`);
    }
  }
  const reached = reach(totals);
  const bad = totals.failures.length + totals.broken.length + reached;
  process.stdout.write(
    `${flags.profile}: ${totals.runs} histories, ${bad} failed, ${totals.ok} operations, ${totals.unknown} unknown, ${totals.events} events; ` +
      `${seconds.toFixed(1)} s, ${((totals.runs / seconds) * 60).toFixed(0)} a minute, ${(totals.events / Math.max(0.001, cpu) / 1000).toFixed(1)} k events/s/worker\n`,
  );
  return bad === 0 ? 0 : 1;
}

/** Reports what a run should have reached and did not; returns how many of these fail it. */
function reach(totals) {
  if (flags.matrix) {
    process.stdout.write(`${matrix(totals.cells)}\n`);
  }
  const missing = totals.runs >= VACUITY_HISTORIES ? vacuous(flags.profile, totals) : [];
  for (const name of missing) {
    process.stdout.write(`FAIL vacuous: ${totals.runs} histories of ${flags.profile} without any ${name}\n`);
  }
  const isLong = flags.goals || totals.runs >= GOAL_HISTORIES;
  const unmet = isLong ? unmetGoals(flags.profile, totals) : [];
  for (const name of unmet) {
    process.stdout.write(`FAIL unmet goal: ${name}\n`);
  }
  return missing.length + unmet.length;
}

/** The case behind --seed or --replay. */
async function findCase(program) {
  if (flags.replay !== undefined) {
    return JSON.parse(readFileSync(resolve(flags.replay), 'utf8')).case;
  }
  const seed = Number(flags.seed);
  let found;
  await work(program, { type: 'draw', profile: flags.profile, seed }, (line) => {
    found = line.case;
  });
  return found;
}

async function one(program) {
  const simCase = await findCase(program);
  let result;
  const end = await work(
    program,
    {
      type: 'case',
      case: simCase,
      ...(flags.trace === undefined ? {} : { trace: resolve(flags.trace) }),
      ...(flags.history === undefined ? {} : { history: resolve(flags.history) }),
    },
    (line) => {
      result = line;
    },
  );
  if (result === undefined) {
    process.stdout.write(`FAIL the worker ended with ${end.signal ?? end.code}: ${end.errors}\n`);
    return 1;
  }
  process.stdout.write(
    `seed ${result.seed} profile ${result.profile}: trace ${result.traceHash}, ${result.stats.events} events, ${result.stats.ok} operations, ${result.cpuMs} ms\n`,
  );
  if (result.failure === undefined) {
    return 0;
  }
  report(result);
  process.stdout.write(`${result.failure.message}\n`);
  if (flags.shrink) {
    let shrunk;
    await work(
      program,
      { type: 'shrink', case: simCase, budgetMs: Number(flags['shrink-minutes']) * 60_000 },
      (line) => {
        if (line.type === 'progress') {
          process.stdout.write(`  ${line.text}\n`);
        } else {
          shrunk = line;
        }
      },
    );
    if (shrunk !== undefined) {
      const path = saveFailure({
        ...result,
        profile: `${result.profile}-shrunk`,
        failure: shrunk.failure,
        case: shrunk.case,
      });
      process.stdout.write(
        `shrunk from ${shrunk.actionsBefore} to ${shrunk.case.schedule.length} actions in ${shrunk.runs} runs: ${sentence(shrunk.failure.message)}\nreplay: npm run sim -- --replay ${path}\n`,
      );
    }
  }
  return 1;
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

/** How many seeds and CPU seconds each planted defect survives, over several starting points. */
async function defects() {
  const wanted = DEFECTS.filter((defect) => flags.only === undefined || flags.only.split(',').includes(defect.name));
  const tries = number('tries');
  const cpuLimitMs = number('cpu-seconds') * 1000;
  const limitMs = Number(flags.minutes ?? 1) * 60_000;
  let missed = 0;
  process.stdout.write(
    '| defect | room | profile | found by | seeds (median) | CPU s (median) |\n|---|---|---|---|---|---|\n',
  );
  for (const defect of wanted) {
    let program;
    try {
      program = await bundle(defect);
    } catch (error) {
      missed++;
      process.stdout.write(
        `| ${defect.name} | ${defect.room} | ${defect.profile} | does not fit: ${sentence(String(error.message))} | | |\n`,
      );
      continue;
    }
    const seeds = [];
    const cpu = [];
    const by = new Set();
    for (let attempt = 0; attempt < tries; attempt++) {
      let usedMs = 0;
      const totals = await runSeeds(program, {
        profile: defect.profile,
        first: 1 + attempt * 10_000,
        count: 5_000,
        jobs: 1,
        stopMs: limitMs,
        onResult: (result) => {
          usedMs += result.cpuMs;
          return result.failure === undefined && usedMs < cpuLimitMs ? undefined : 'stop';
        },
      });
      if (totals.failures.length > 0 || totals.broken.length > 0) {
        seeds.push(totals.runs);
        cpu.push(totals.cpuMs / 1000);
        by.add(totals.failures[0]?.failure.invariant ?? 'worker died');
      }
    }
    const isMissed = seeds.length * 2 <= tries;
    if (isMissed) {
      missed++;
    }
    process.stdout.write(
      `| ${defect.name} | ${defect.room} | ${defect.profile} | ${[...by].join(', ') || 'not found'} | ${isMissed ? `missed ${tries - seeds.length} of ${tries}` : median(seeds)} | ${isMissed ? '' : median(cpu).toFixed(1)} |\n`,
    );
  }
  return missed === 0 ? 0 : 1;
}

async function main() {
  if (flags.help) {
    usage();
  }
  if (!PROFILES.includes(flags.profile)) {
    usage(`there is no profile ${flags.profile}; profiles are ${PROFILES.join(', ')}`);
  }
  if (flags.defects) {
    return defects();
  }
  const defect = flags.defect === undefined ? undefined : DEFECTS.find(({ name }) => name === flags.defect);
  if (flags.defect !== undefined && defect === undefined) {
    usage(`there is no defect ${flags.defect}; defects are ${DEFECTS.map(({ name }) => name).join(', ')}`);
  }
  const program = await bundle(defect);
  if (flags.profile === 'sweep' && flags.seed !== undefined) {
    // A seed of the sweep names an operation and a fault, not a case that could be traced or shrunk.
    if (flags.trace !== undefined || flags.history !== undefined || flags.shrink) {
      usage('--trace, --history and --shrink are not for the profile sweep');
    }
    flags['first-seed'] = flags.seed;
    flags.seeds = '1';
    return loop(program);
  }
  return flags.seed !== undefined || flags.replay !== undefined ? one(program) : loop(program);
}

process.exitCode = await main();
