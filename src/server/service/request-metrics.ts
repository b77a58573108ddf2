/** Counts and times requests by type. */
import type { Counter, LatencyHistogram, Metrics } from '../metrics.ts';

const REQUEST_TYPES = [
  'raw_get',
  'raw_put',
  'raw_delete',
  'raw_batch_get',
  'raw_batch_put',
  'raw_batch_delete',
  'raw_scan',
  'raw_batch_scan',
  'raw_delete_range',
  'raw_compare_and_swap',
  'raw_get_key_ttl',
  'raw_checksum',
  'split_region',
  'other',
] as const;

export type RequestType = (typeof REQUEST_TYPES)[number];

export class RequestMetrics {
  readonly #durations: Readonly<Record<RequestType, LatencyHistogram>>;
  readonly #failures: Readonly<Record<RequestType, Counter>>;

  constructor(metrics: Metrics) {
    this.#durations = metrics.histograms(
      'braid_grpc_msg_duration_seconds',
      'Time from the arrival of a request to its answer.',
      'type',
      REQUEST_TYPES,
    );
    this.#failures = metrics.counters(
      'braid_grpc_msg_fail_total',
      'Requests answered with a region error.',
      'type',
      REQUEST_TYPES,
    );
  }

  done(type: RequestType, durationMs: number, isFailed: boolean): void {
    this.#durations[type].observe(durationMs);
    if (isFailed) {
      this.#failures[type].add();
    }
  }
}
