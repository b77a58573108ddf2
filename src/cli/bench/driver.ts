/**
 * Runs one workload: N clients in one process, each with one operation under way at any time (closed loop). Operations
 * that start after the warm-up and end before the end of the measured time count. A closed loop slows down together
 * with the store, so its latencies are those of N patient clients, not of a fixed arrival rate.
 */
import { Histogram } from './histogram.ts';
import { type BenchTarget, type DataSet, type WorkloadName, operationOf, seededRandom } from './workload.ts';

export interface RunSettings {
  readonly workload: WorkloadName;
  readonly clients: number;
  readonly warmupMs: number;
  readonly durationMs: number;
}

export interface LatencySummary {
  readonly minUs: number;
  readonly meanUs: number;
  readonly p50Us: number;
  readonly p90Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
}

export interface RunResult {
  readonly target: string;
  readonly workload: WorkloadName;
  readonly clients: number;
  /** From 1; the same run is repeated in several rounds. */
  readonly round: number;
  readonly operations: number;
  /** Failed operations by code; they are not among `operations`. */
  readonly errors: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly perSecond: number;
  /** Throughput of the slowest and the fastest whole second. */
  readonly perSecondMin: number;
  readonly perSecondMax: number;
  readonly latency: LatencySummary;
  /** CPU time of the client process as a share of one core: near 1 means that the client is the limit. */
  readonly clientCpu: number;
}

/** The first message per error code is kept for the user. */
export type OnError = (code: string, error: unknown) => void;

export async function runWorkload(
  target: BenchTarget,
  data: DataSet,
  settings: RunSettings,
  round: number,
  signal: AbortSignal,
  onError: OnError,
): Promise<RunResult> {
  const operation = operationOf(settings.workload, target, data);
  const histogram = new Histogram();
  const errors = new Map<string, number>();
  const startMs = performance.now();
  const countFromMs = startMs + settings.warmupMs;
  const endMs = countFromMs + settings.durationMs;
  const perSecond = new Array<number>(Math.ceil(settings.durationMs / 1000)).fill(0);
  let cpuAtStart: NodeJS.CpuUsage | undefined;

  const client = async (index: number): Promise<void> => {
    const random = seededRandom(data.settings.seed + 7919 * (index + 1) + 104_729 * round);
    for (;;) {
      const beganMs = performance.now();
      if (beganMs >= endMs || signal.aborted) {
        return;
      }
      const isCounted = beganMs >= countFromMs;
      if (isCounted) {
        cpuAtStart ??= process.cpuUsage();
      }
      try {
        await operation(random);
        const doneMs = performance.now();
        if (isCounted && doneMs < endMs) {
          histogram.record((doneMs - beganMs) * 1000);
          const second = Math.floor((doneMs - countFromMs) / 1000);
          perSecond[second] = (perSecond[second] as number) + 1;
        }
      } catch (error) {
        const code = errorCode(error);
        if (!errors.has(code)) {
          onError(code, error);
        }
        if (isCounted) {
          errors.set(code, (errors.get(code) ?? 0) + 1);
        } else {
          errors.set(code, errors.get(code) ?? 0);
        }
        // An operation that fails at once must not keep the event loop from everything else.
        await new Promise((resolve) => {
          setImmediate(resolve);
        });
      }
    }
  };
  await Promise.all(Array.from({ length: settings.clients }, (_, i) => client(i)));
  signal.throwIfAborted();

  const seconds = settings.durationMs / 1000;
  const cpu = process.cpuUsage(cpuAtStart);
  const whole = perSecond.slice(0, Math.floor(seconds));
  return {
    target: target.name,
    workload: settings.workload,
    clients: settings.clients,
    round,
    operations: histogram.count,
    errors: Object.fromEntries([...errors].filter(([, n]) => n > 0)),
    seconds,
    perSecond: histogram.count / seconds,
    perSecondMin: whole.length === 0 ? histogram.count / seconds : Math.min(...whole),
    perSecondMax: whole.length === 0 ? histogram.count / seconds : Math.max(...whole),
    latency: summarize(histogram),
    clientCpu: cpuAtStart === undefined ? 0 : (cpu.user + cpu.system) / 1000 / (performance.now() - countFromMs),
  };
}

export function summarize(histogram: Histogram): LatencySummary {
  return {
    minUs: histogram.min,
    meanUs: Math.round(histogram.mean),
    p50Us: histogram.quantile(0.5),
    p90Us: histogram.quantile(0.9),
    p99Us: histogram.quantile(0.99),
    p999Us: histogram.quantile(0.999),
    maxUs: histogram.max,
  };
}

export function errorCode(error: unknown): string {
  const code: unknown = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' || typeof code === 'number' ? String(code) : 'Error';
}
