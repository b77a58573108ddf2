/**
 * One run against a real cluster: start, smoke, load, faults, healing, final reads, kill -9 of everything, the same
 * reads again, checks. Everything a reader needs afterwards stays in the run's directory.
 */
import {
  appendFileSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { compareBytes } from '../../src/base/bytes.ts';
import { Histogram } from '../../src/cli/bench/histogram.ts';
import { type LatencySummary, summarize } from '../../src/cli/bench/driver.ts';
import type { AdminClient } from '../../src/client/admin.ts';
import type { Braid } from '../../src/client/kv.ts';
import { connect, connectAdmin } from '../../src/client/real.ts';
import { createRng } from '../../src/env/rng.ts';
import { checkCounter, checkHistory, type CheckReport } from '../checkers.ts';
import { HistoryRecorder } from '../history.ts';
import { perform } from '../perform.ts';
import { Nemesis, type NemesisPlan, type RegionChange } from './nemesis.ts';
import { Processes } from './processes.ts';
import { type CounterTotals, Workload } from './workload.ts';
import { writeReport } from './report.ts';

export interface RunOptions {
  readonly directory: string;
  readonly seed: number;
  /** How long faults last, ms. */
  readonly faultsMs: number;
  readonly stores: number;
  readonly clients: number;
  /** Operations per second of all clients together, as a goal. */
  readonly rate: number;
  readonly plan: NemesisPlan;
  /** Where progress is told. */
  readonly onProgress: (line: string) => void;
}

export type Verdict = 'pass' | 'wrong-result' | 'no-progress' | 'crash' | 'vacuous' | 'invalid';

export interface ChangeCount {
  readonly kind: RegionChange['kind'];
  readonly done: number;
  readonly other: number;
}

export interface LatencyRow {
  readonly when: 'all' | 'merge' | 'merge-without-outage' | 'outage';
  readonly kind: 'read' | 'write';
  readonly answered: number;
  readonly failed: number;
  readonly latency: LatencySummary;
}

export interface RunSummary {
  readonly verdict: Verdict;
  readonly problems: readonly string[];
  readonly seed: number;
  readonly seconds: number;
  readonly operations: number;
  readonly unknown: number;
  readonly failed: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly keys: number;
  readonly undecided: number;
  readonly outages: number;
  readonly changes: readonly ChangeCount[];
  readonly latencies: readonly LatencyRow[];
}

const FAULT_FREE_MS = 5000;
const FIRST_SUCCESS_MS = 10_000;
const CONVERGE_MS = 120_000;
const CALL_TIMEOUT_MS = 5000;
const READ_TIMEOUT_MS = 30_000;
const START_TIMEOUT_MS = 60_000;
/** Steps of the search for a linearization of one key. */
const SEARCH_BUDGET = 20_000_000;
/** More undecided keys than this share make the run vacuous: there was too much concurrency to judge. */
const UNDECIDED_SHARE_MAX = 0.01;
const REPLICAS = 3;
/** Real clocks of one machine, and the server's sweep of expired keys is lazy only for space, not for reads. */
const TTL_SLACK_NS = 1e9;
/** Effects of an outage on latency end some time after it. */
const AFTER_OUTAGE_MS = 8000;

/** Words in a member's log that no run may leave behind. */
const FORBIDDEN_IN_LOGS: readonly RegExp[] = [/unhandledRejection/i, /assertion failed/i, /TimeoutOverflowWarning/];

const wait = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms);
  });

/** Asks until `check` says yes. */
async function until(limitMs: number, check: () => Promise<boolean>): Promise<boolean> {
  const end = performance.now() + limitMs;
  while (performance.now() < end) {
    if (await check().catch(() => false)) {
      return true;
    }
    await wait(100);
  }
  return false;
}

async function isCalm(admin: AdminClient): Promise<boolean> {
  const [{ regions }, operators] = await Promise.all([
    admin.regions({ timeoutMs: CALL_TIMEOUT_MS }),
    admin.operators({ timeoutMs: CALL_TIMEOUT_MS }),
  ]);
  return (
    regions.length > 0 &&
    operators.length === 0 &&
    regions.every(
      (region) =>
        !region.merging &&
        region.leader !== undefined &&
        region.pendingPeers.length === 0 &&
        region.downPeers.length === 0 &&
        region.peers.length === REPLICAS &&
        region.peers.every((peer) => peer.role === 'voter'),
    ) &&
    regions
      .toSorted((a, b) => compareBytes(a.range.start, b.range.start))
      .every((region, i, all) => compareBytes(region.range.start, all[i - 1]?.range.end ?? new Uint8Array()) === 0)
  );
}

async function readAll(
  client: Braid,
  history: HistoryRecorder,
  keys: readonly string[],
  read: 'leader' | 'follower',
): Promise<void> {
  const process = history.newProcess();
  const BATCH = 64;
  for (let i = 0; i < keys.length; i += BATCH) {
    const request = { f: 'batch-get' as const, keys: keys.slice(i, i + BATCH), isAtomic: false };
    history.invoke(process, request);
    history.ok(process, await perform(client, request, { read, pageSize: 100 }));
  }
}

async function finalCounters(client: Braid, counters: ReadonlyMap<string, CounterTotals>): Promise<string[]> {
  const problems: string[] = [];
  for (const [key, { acknowledged, unknown }] of counters) {
    const value = await perform(client, { f: 'get', key }, { read: 'leader', pageSize: 1 });
    const problem = checkCounter(acknowledged, unknown, value.f === 'get' ? Number(value.value ?? '0') : Number.NaN);
    if (problem !== undefined) {
      problems.push(`${key}: ${problem}`);
    }
  }
  return problems;
}

function logProblems(directory: string): string[] {
  return readdirSync(directory).flatMap((name) => {
    const text = readFileSync(join(directory, name), 'utf8');
    return FORBIDDEN_IN_LOGS.filter((pattern) => pattern.test(text)).map((pattern) => `${name} says ${pattern.source}`);
  });
}

const overlaps = (a: { startMs: number; endMs: number }, b: { startMs: number; endMs: number }): boolean =>
  a.startMs <= b.endMs && a.endMs >= b.startMs;

function latencyRows(workload: Workload, nemesis: Nemesis): LatencyRow[] {
  const merges = nemesis.changes.filter((change) => change.kind === 'merge' && change.isDone);
  const outages = nemesis.outages.map(({ startMs, endMs }) => ({ startMs, endMs: endMs + AFTER_OUTAGE_MS }));
  const calmMerges = merges.filter((merge) => !outages.some((outage) => overlaps(outage, merge)));
  const windows = {
    all: undefined,
    merge: merges,
    'merge-without-outage': calmMerges,
    outage: nemesis.outages,
  } as const;
  return (Object.keys(windows) as LatencyRow['when'][]).flatMap((when) =>
    (['read', 'write'] as const).map((kind) => {
      const histogram = new Histogram();
      let failed = 0;
      for (const sample of workload.latencies) {
        if (sample.kind === kind && (windows[when]?.some((window) => overlaps(window, sample)) ?? true)) {
          if (sample.isOk) {
            histogram.record((sample.endMs - sample.startMs) * 1000);
          } else {
            failed++;
          }
        }
      }
      return { when, kind, answered: histogram.count, failed, latency: summarize(histogram) };
    }),
  );
}

/** Runs to the end whatever happens; the verdict says what came out. @throws only if the cluster cannot be started */
export async function runReal(options: RunOptions): Promise<RunSummary> {
  const { directory, onProgress } = options;
  mkdirSync(directory, { recursive: true });
  const rng = createRng(options.seed);
  const started = performance.now();
  const processes = new Processes({
    directory,
    stores: options.stores,
    storeSettings: [],
    pdSettings: [],
  });
  const file = openSync(join(directory, 'history.jsonl'), 'w');
  const history = new HistoryRecorder(
    () => Math.round((performance.now() - started) * 1e6),
    (line) => writeSync(file, `${line}\n`),
  );
  const workload = new Workload(history);
  const problems: string[] = [];
  let verdict: Verdict = 'pass';
  const fail = (kind: Verdict, text: string): void => {
    verdict = verdict === 'pass' ? kind : verdict;
    problems.push(text);
    onProgress(`problem: ${text}`);
  };
  let nemesis: Nemesis | undefined;
  const clients: Braid[] = [];
  let admin: AdminClient | undefined;
  try {
    await processes.start();
    const pd = processes.pd.address;
    const newClient = async (name: string, timeoutMs: number): Promise<Braid> => {
      const client = await connect({ pd, name, timeoutMs, connectTimeoutMs: START_TIMEOUT_MS });
      clients.push(client);
      return client;
    };
    admin = await connectAdmin({ pd, timeoutMs: START_TIMEOUT_MS });
    const control = admin;
    if (!(await until(START_TIMEOUT_MS, () => isCalm(control)))) {
      throw new Error(`the cluster did not become complete within ${START_TIMEOUT_MS / 1000} s`);
    }
    const users = await Promise.all(
      Array.from({ length: options.clients }, (_, i) => newClient(`client-${i + 1}`, CALL_TIMEOUT_MS)),
    );
    const [smoke] = users as [Braid, ...Braid[]];
    await smoke.put('smoke', 'fire');
    await smoke.get('smoke');
    await smoke.delete('smoke');
    const load = Promise.all(
      users.map((client, i) => workload.run(client, rng.fork(`client-${i}`), (1000 * options.clients) / options.rate)),
    );
    await wait(FAULT_FREE_MS);
    const before = workload.latencies.length;
    nemesis = new Nemesis({
      processes,
      admin,
      plan: options.plan,
      rng: rng.fork('nemesis'),
      generation: () => workload.generation,
      onEvent: (event) => appendFileSync(join(directory, 'nemesis.jsonl'), `${JSON.stringify(event)}\n`),
    });
    const running = nemesis;
    const ended = nemesis.run();
    let isOver = false;
    // A member that cannot start again ends the faults at once; the reason is told below.
    const broken = ended.then(
      () => undefined,
      (error: unknown) => {
        isOver = true;
        return error instanceof Error ? error.message : 'the nemesis has failed';
      },
    );
    const endMs = performance.now() + options.faultsMs;
    const PROGRESS_MS = 10_000;
    let nextMs = performance.now() + PROGRESS_MS;
    while (!isOver && performance.now() < endMs && processes.unexpected.length === 0) {
      await wait(100);
      if (performance.now() >= nextMs) {
        nextMs += PROGRESS_MS;
        const done = running.changes.filter((change) => change.isDone).length;
        onProgress(
          `${Math.round((performance.now() - started) / 1000)} s: ${workload.latencies.length} operations, ${running.outages.length} outages, ${done} changes of regions`,
        );
      }
    }
    const during = workload.latencies.length;
    running.stop();
    const error = await broken;
    if (error !== undefined) {
      fail('crash', error);
    }
    for (const end of processes.unexpected) {
      fail(
        end.signal === 'SIGKILL' ? 'invalid' : 'crash',
        `${end.name} ended by itself (${end.code ?? end.signal}): ${end.output}`,
      );
    }
    if (verdict === 'pass') {
      onProgress('healed; waiting for rest');
      const healedMs = performance.now();
      if (!(await until(FIRST_SUCCESS_MS, async () => smoke.put('healed', 'yes').then(() => true)))) {
        fail('no-progress', `no write succeeded within ${FIRST_SUCCESS_MS / 1000} s after healing`);
      }
      if (!(await until(CONVERGE_MS, () => isCalm(control)))) {
        fail('no-progress', `regions did not come to rest within ${CONVERGE_MS / 1000} s after healing`);
      }
      onProgress(`at rest after ${((performance.now() - healedMs) / 1000).toFixed(1)} s`);
      await wait(FAULT_FREE_MS);
      workload.stop();
      await load;
      const after = workload.latencies.length - during;
      const keys = workload.keys();
      await readAll(await newClient('reader', READ_TIMEOUT_MS), history, keys, 'leader');
      await readAll(await newClient('follower-reader', READ_TIMEOUT_MS), history, keys, 'follower');
      onProgress('kill -9 of everything');
      await Promise.all(processes.all.map((member) => member.kill()));
      await processes.start();
      const again = await newClient('reader-again', READ_TIMEOUT_MS);
      await readAll(again, history, keys, 'leader');
      for (const problem of await finalCounters(again, workload.counters)) {
        fail('wrong-result', problem);
      }
      const MIN_OPERATIONS = 50;
      if (Math.min(before, during - before, after) < MIN_OPERATIONS) {
        fail('vacuous', `too few operations: ${before} before, ${during - before} during, ${after} after the faults`);
      }
    }
    workload.stop();
    await load;
  } finally {
    workload.stop();
    for (const client of clients) {
      client.destroy();
    }
    await admin?.close().catch(() => undefined);
    await processes.stop();
    closeSync(file);
  }
  for (const problem of logProblems(join(directory, 'log'))) {
    fail('crash', problem);
  }
  onProgress(`checking ${history.events.length} events`);
  const report: CheckReport = checkHistory(history.events, {
    budget: SEARCH_BUDGET,
    tagGroups: workload.tagGroups(),
    ttlSlackNs: TTL_SLACK_NS,
  });
  for (const problem of report.problems) {
    fail('wrong-result', `${problem.promise}: ${problem.text}`);
  }
  if (report.undecided.length > report.keys * UNDECIDED_SHARE_MAX) {
    fail('vacuous', `${report.undecided.length} of ${report.keys} keys could not be judged`);
  }
  const changes = (['split', 'merge', 'move', 'transfer'] as const).map((kind) => {
    const all = nemesis?.changes.filter((change) => change.kind === kind) ?? [];
    const done = all.filter((change) => change.isDone).length;
    return { kind, done, other: all.length - done };
  });
  for (const { kind, done } of changes) {
    // Three stores with three replicas leave nothing to move to.
    if (done === 0 && verdict === 'pass' && (kind !== 'move' || options.stores > REPLICAS)) {
      fail('vacuous', `no ${kind} was carried out`);
    }
  }
  const count = (type: 'info' | 'fail'): number => history.events.filter((event) => event.type === type).length;
  const summary: RunSummary = {
    verdict,
    problems,
    seed: options.seed,
    seconds: Math.round((performance.now() - started) / 1000),
    operations: report.operations,
    unknown: count('info'),
    failed: count('fail'),
    errors: Object.fromEntries(workload.errors),
    keys: report.keys,
    undecided: report.undecided.length,
    outages: nemesis?.outages.length ?? 0,
    changes,
    latencies: nemesis === undefined ? [] : latencyRows(workload, nemesis),
  };
  writeFileSync(join(directory, 'summary.json'), `${JSON.stringify(summary, undefined, 2)}\n`);
  if (nemesis !== undefined) {
    writeReport(join(directory, 'report.html'), summary, workload.latencies, nemesis);
  }
  return summary;
}
