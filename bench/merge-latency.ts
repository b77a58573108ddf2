/**
 * What requests feel while regions split and merge:
 *
 *   npm run bench:merge                            20 cycles of a split and a merge under 500 requests a second
 *   npm run bench:merge -- --cycles 5 --rate 2000 --save merge.json
 *
 * Requests arrive at a fixed rate whatever the store does (open loop), and their latency counts from the moment they
 * were due, so a pause is felt by every request that should have been sent during it. A few
 * writers do nothing but write into the source of the merge; the longest time without a finished write of theirs is the source's write pause.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, Option } from 'commander';
import type { AdminClient, Submission } from '../src/client/admin.ts';
import type { OperatorInfo, RegionDetails } from '../src/client/admin-wire.ts';
import { connect, connectAdmin } from '../src/client/real.ts';
import { compareBytes } from '../src/base/bytes.ts';
import { BraidTarget } from '../src/cli/bench/braid-target.ts';
import { Histogram } from '../src/cli/bench/histogram.ts';
import { errorCode, summarize, type LatencySummary } from '../src/cli/bench/driver.ts';
import { commitOf, machineInfo } from '../src/cli/bench/suite.ts';
import { DataSet, preload, seededRandom } from '../src/cli/bench/workload.ts';
import { formatUs } from '../src/cli/bench/shapes.ts';
import { count, sizeBytes } from '../src/cli/common-options.ts';
import { formatTable } from '../src/cli/output/table.ts';
import { startBraid } from './braid-cluster.ts';

const root: string = fileURLToPath(new URL('..', import.meta.url));
const CALL_TIMEOUT_MS = 10_000;
/** Requests without an answer; more are counted as refused by the benchmark itself. */
const IN_FLIGHT_MAX = 8192;
/** Each has one write under way at any time. */
const PROBE_WRITERS = 4;
/** Quiet time before and after every change. */
const REST_MS = 500;
const WRITE_SHARE = 0.5;
/** The promise of the design: p99 of requests during a merge or split on a healthy cluster. */
const GOAL_P99_MS = 100;

interface Flags {
  readonly cycles: number;
  readonly rate: number;
  readonly keys: number;
  readonly valueSize: number;
  readonly dir: string;
  readonly save?: string;
  readonly check?: true;
}

interface Sample {
  readonly kind: 'read' | 'write';
  readonly dueMs: number;
  readonly doneMs: number;
  /** Undefined for success. */
  readonly error: string | undefined;
}

interface Change {
  readonly kind: 'split' | 'merge';
  readonly startMs: number;
  readonly endMs: number;
  readonly operator: OperatorInfo;
  /** Longest time without a finished probe in the source while the merge ran. */
  readonly pauseMs: number | undefined;
}

const wait = (ms: number): Promise<void> =>
  new Promise((done) => {
    setTimeout(done, ms);
  });

/** Starts `launch` at a fixed rate until stopped; what came due while the event loop was busy is started late but counts. */
class Pacer {
  readonly #intervalMs: number;
  readonly #launch: (dueMs: number) => void;
  #nextMs: number = performance.now();
  #isStopped = false;
  readonly #ended: Promise<void>;

  constructor(perSecond: number, launch: (dueMs: number) => void) {
    this.#intervalMs = 1000 / perSecond;
    this.#launch = launch;
    this.#ended = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      const now = performance.now();
      while (this.#nextMs <= now) {
        this.#launch(this.#nextMs);
        this.#nextMs += this.#intervalMs;
      }
      await wait(1);
    }
  }

  stop(): Promise<void> {
    this.#isStopped = true;
    return this.#ended;
  }
}

async function finished(admin: AdminClient, submission: Submission): Promise<OperatorInfo> {
  if (submission.type !== 'started') {
    throw new Error(`the change was not started: ${submission.type}`);
  }
  return admin.waitOperator(submission.operator.id);
}

/** Writes one key of the source again and again and remembers when each write was finished. */
class Probe {
  readonly doneMs: number[] = [performance.now()];
  #isStopped = false;
  readonly #ended: Promise<unknown>;

  constructor(target: BraidTarget, key: Uint8Array, value: Uint8Array) {
    this.#ended = Promise.all(
      Array.from({ length: PROBE_WRITERS }, async () => {
        while (!this.#isStopped) {
          await target.put(key, value);
          this.doneMs.push(performance.now());
        }
      }),
    );
  }

  /** Resolves when the last write is finished; rejects if one has failed. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#ended;
  }

  /** The longest gap between finished writes that touches the window. */
  longestGapMs(startMs: number, endMs: number): number {
    let longest = 0;
    for (let i = 1; i < this.doneMs.length; i++) {
      const [from, to] = [this.doneMs[i - 1] as number, this.doneMs[i] as number];
      if (to >= startMs && from <= endMs) {
        longest = Math.max(longest, to - from);
      }
    }
    return longest;
  }
}

async function regionsInOrder(admin: AdminClient): Promise<readonly RegionDetails[]> {
  return (await admin.regions()).regions.toSorted((a, b) => compareBytes(a.range.start, b.range.start));
}

async function cycle(admin: AdminClient, target: BraidTarget, data: DataSet, number: number): Promise<Change[]> {
  const middle = Math.floor(data.settings.keys / 2);
  const [whole] = await regionsInOrder(admin);
  if (whole === undefined) {
    throw new Error('the cluster has no region');
  }
  const splitStart = performance.now();
  const split = await finished(admin, await admin.splitRegion(whole.id, [data.key(middle)]));
  const splitEnd = performance.now();
  await wait(REST_MS);
  const [left, right] = await regionsInOrder(admin);
  if (left === undefined || right === undefined) {
    throw new Error('the split left no second region');
  }
  // The source is in turn on the right and on the left of its target.
  const [source, into, probed] = number % 2 === 0 ? [right, left, data.settings.keys - 1] : [left, right, 0];
  const probe = new Probe(target, data.key(probed), data.value(probed, 0));
  await wait(REST_MS);
  const mergeStart = performance.now();
  const merge = await finished(admin, await admin.mergeRegions({ source: source.id, target: into.id }));
  const mergeEnd = performance.now();
  await wait(REST_MS);
  await probe.stop();
  return [
    { kind: 'split', startMs: splitStart, endMs: splitEnd, operator: split, pauseMs: undefined },
    {
      kind: 'merge',
      startMs: mergeStart,
      endMs: mergeEnd,
      operator: merge,
      pauseMs: probe.longestGapMs(mergeStart, mergeEnd),
    },
  ];
}

interface Row {
  readonly when: 'quiet' | 'split' | 'merge';
  readonly kind: 'read' | 'write';
  readonly requests: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly latency: LatencySummary;
}

function evaluate(samples: readonly Sample[], changes: readonly Change[]): Row[] {
  const rows: Row[] = [];
  for (const when of ['quiet', 'split', 'merge'] as const) {
    for (const kind of ['read', 'write'] as const) {
      const histogram = new Histogram();
      const errors: Record<string, number> = {};
      let requests = 0;
      for (const sample of samples) {
        const touched = changes.find((change) => sample.dueMs <= change.endMs && sample.doneMs >= change.startMs);
        if (sample.kind !== kind || (touched?.kind ?? 'quiet') !== when) {
          continue;
        }
        requests++;
        if (sample.error === undefined) {
          histogram.record((sample.doneMs - sample.dueMs) * 1000);
        } else {
          errors[sample.error] = (errors[sample.error] ?? 0) + 1;
        }
      }
      rows.push({ when, kind, requests, errors, latency: summarize(histogram) });
    }
  }
  return rows;
}

async function main(flags: Flags): Promise<void> {
  const dir = resolve(flags.dir);
  mkdirSync(dir, { recursive: true });
  const directory = mkdtempSync(join(dir, 'merge-'));
  const signal = new AbortController().signal;
  const data = new DataSet({
    keys: flags.keys,
    valueBytes: flags.valueSize,
    scanLimit: 1,
    keyPrefix: 'merge/',
    seed: 1,
  });
  const samples: Sample[] = [];
  const changes: Change[] = [];
  try {
    // The regions of this benchmark change only when it says so.
    const cluster = await startBraid({ directory });
    try {
      await using db = await connect({ pd: cluster.pd, name: 'merge-latency', timeoutMs: CALL_TIMEOUT_MS });
      await using admin = await connectAdmin({ pd: cluster.pd, name: 'merge-latency', timeoutMs: CALL_TIMEOUT_MS });
      for (const one of await admin.schedulers.list()) {
        if (one.kind !== 'all' && one.state === 'on') {
          await admin.setSwitch(one.name, false);
        }
      }
      const target = new BraidTarget(db);
      process.stderr.write(`writing ${flags.keys} keys\n`);
      await preload(target, data, signal);
      const random = seededRandom(2);
      let inFlight = 0;
      const load = new Pacer(flags.rate, (dueMs) => {
        const kind = random() < WRITE_SHARE ? 'write' : 'read';
        const number = Math.floor(random() * flags.keys);
        const end = (error: string | undefined): void => {
          samples.push({ kind, dueMs, doneMs: performance.now(), error });
        };
        if (inFlight >= IN_FLIGHT_MAX) {
          end('TooManyInFlight');
          return;
        }
        inFlight++;
        const key = data.key(number);
        const call =
          kind === 'write'
            ? target.put(key, data.value(number, random()))
            : target.get(key).then((value) => {
                if (value === undefined || !data.isValueOf(number, value)) {
                  throw Object.assign(new Error('another value'), { code: 'WrongAnswer' });
                }
              });
        call.then(
          () => {
            inFlight--;
            end(undefined);
          },
          (error: unknown) => {
            inFlight--;
            end(errorCode(error));
          },
        );
      });
      await wait(2 * REST_MS);
      for (let i = 0; i < flags.cycles; i++) {
        const done = await cycle(admin, target, data, i);
        changes.push(...done);
        const [split, merge] = done as [Change, Change];
        process.stderr.write(
          `cycle ${i + 1} of ${flags.cycles}: split ${Math.round(split.endMs - split.startMs)} ms, merge ${Math.round(merge.endMs - merge.startMs)} ms, source's write pause ${merge.pauseMs?.toFixed(1)} ms\n`,
        );
        await wait(REST_MS);
      }
      await load.stop();
    } finally {
      await cluster.stop();
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  report(flags, samples, changes);
}

function report(flags: Flags, samples: readonly Sample[], changes: readonly Change[]): void {
  const rows = evaluate(samples, changes);
  const pauses = new Histogram();
  for (const change of changes) {
    if (change.pauseMs !== undefined) {
      pauses.record(change.pauseMs * 1000);
    }
  }
  const us = (pick: (latency: LatencySummary) => number) => (row: Row) => formatUs(pick(row.latency));
  process.stdout.write(
    formatTable(
      [
        { head: 'when', cell: (row: Row) => row.when },
        { head: 'kind', cell: (row) => row.kind },
        { head: 'requests', cell: (row) => row.requests, align: 'right' },
        { head: 'p50-ms', cell: us((l) => l.p50Us), align: 'right' },
        { head: 'p99-ms', cell: us((l) => l.p99Us), align: 'right' },
        { head: 'p99.9-ms', cell: us((l) => l.p999Us), align: 'right' },
        { head: 'max-ms', cell: us((l) => l.maxUs), align: 'right' },
        {
          head: 'errors',
          cell: (row) =>
            Object.entries(row.errors)
              .map(([code, n]) => `${code} ${n}`)
              .join(', ') || '0',
        },
      ],
      rows,
      true,
    ),
  );
  process.stdout.write(
    `\nwrite pause of the source over ${pauses.count} merges: p50 ${formatUs(pauses.quantile(0.5))} ms, p99 ${formatUs(pauses.quantile(0.99))} ms, max ${formatUs(pauses.max)} ms\n`,
  );
  const worst = Math.max(...rows.filter((row) => row.when !== 'quiet').map((row) => row.latency.p99Us)) / 1000;
  const pause = pauses.quantile(0.99) / 1000;
  const isMet = worst <= GOAL_P99_MS && pause <= GOAL_P99_MS;
  process.stdout.write(
    `goal: p99 of requests during changes and of the pause at most ${GOAL_P99_MS} ms: ${worst.toFixed(1)} and ${pause.toFixed(1)} ms, ${isMet ? 'met' : 'missed'}\n`,
  );
  if (flags.save !== undefined) {
    const document = {
      apiVersion: 'braid/v1',
      kind: 'MergeLatencyReport',
      commit: commitOf(root),
      machine: machineInfo(),
      settings: { cycles: flags.cycles, rate: flags.rate, keys: flags.keys, valueBytes: flags.valueSize },
      rows,
      pause: summarize(pauses),
      changes: changes.map(({ kind, startMs, endMs, operator, pauseMs }) => ({
        kind,
        tookMs: endMs - startMs,
        pauseMs,
        phases: operator.phases.map((phase) => ({
          name: phase.name,
          tookMs:
            phase.startedUnixMs === undefined || phase.finishedUnixMs === undefined
              ? undefined
              : phase.finishedUnixMs - phase.startedUnixMs,
        })),
      })),
    };
    writeFileSync(flags.save, `${JSON.stringify(document, undefined, 2)}\n`);
  }
  if (rows.some((row) => Object.keys(row.errors).length > 0)) {
    process.exitCode = 2;
  } else if (flags.check === true && !isMet) {
    process.exitCode = 5;
  }
}

const program = new Command('merge-latency')
  .description('Measures request latency during splits and merges, and the write pause of a merged region.')
  .addOption(new Option('--cycles <count>', 'splits and merges').default(20).argParser(count(1, 10_000)))
  .addOption(
    new Option('--rate <count>', 'requests per second, half of them writes').default(500).argParser(count(1, 100_000)),
  )
  .addOption(new Option('--keys <count>', 'keys in the data set').default(20_000).argParser(count(2, 10_000_000)))
  .addOption(new Option('--value-size <size>', 'bytes per value').default(256).argParser(sizeBytes))
  .addOption(
    new Option('--dir <directory>', 'where data directories are made; must be on a disk').default(
      join(root, '.tmp'),
      '.tmp',
    ),
  )
  .addOption(new Option('--save <file>', 'write the whole result there'))
  .addOption(new Option('--check', 'exit code 5 when the goal is missed'))
  .action((_, command: Command) => main(command.opts<Flags>()));
await program.parseAsync();
