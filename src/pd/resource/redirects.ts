/**
 * The placement service's half of retiring redirects. Stores send requests for regions that were merged away on to where
 * the keys went. When nobody needs that any more, each store is told in the answer to its report, again and again until
 * a report comes without them. Nothing is kept over a restart: whoever waits asks again.
 */
import type { RegionId, StoreId } from '../../base/ids.ts';
import type { Cluster } from '../cluster/cluster.ts';
import type { Redirects } from './assignment-step.ts';

/** A wish that nobody has repeated for so long is forgotten. */
const WISH_MS_MAX = 60_000;

export class ClusterRedirects implements Redirects {
  readonly #cluster: Cluster;
  readonly #nowMs: () => number;
  /** When somebody last asked for a region's redirects to be retired, monotonic. */
  readonly #askedAtMs = new Map<number, number>();

  constructor(cluster: Cluster, nowMs: () => number) {
    this.#cluster = cluster;
    this.#nowMs = nowMs;
  }

  retire(regions: readonly number[]): void {
    const nowMs = this.#nowMs();
    for (const [region, askedAtMs] of this.#askedAtMs) {
      if (nowMs - askedAtMs > WISH_MS_MAX) {
        this.#askedAtMs.delete(region);
      }
    }
    for (const region of regions) {
      this.#askedAtMs.set(region, nowMs);
    }
  }

  /** Stores that are down or silent do not count: they forget by themselves, or report when they are back. */
  areRetired(regions: readonly number[]): boolean {
    const wanted = new Set(regions);
    const nowMs = this.#nowMs();
    return this.#cluster
      .stores()
      .filter(({ record }) => this.#cluster.isUsable(record.store.id, nowMs))
      .every(
        // A store that has not reported to this service yet may still redirect.
        ({ stats }) => stats !== undefined && !(stats.redirectedRegions ?? []).some((region) => wanted.has(region)),
      );
  }

  /** What to tell a store in the answer to its latest report. */
  toRetireOn(store: StoreId): readonly RegionId[] {
    const reported = this.#cluster.store(store)?.stats?.redirectedRegions ?? [];
    return reported.filter((region) => this.#askedAtMs.has(region));
  }
}
