/**
 * The placement service's half of retiring redirects. Stores send requests for regions that changed or were merged away
 * on to where the keys went, and list those regions in every report. When nobody needs that any more, because an
 * Assignment says so or the threshold has passed, each store is told in the answer to its report, again and again until
 * a report comes without them. Nothing is kept over a restart: whoever waits asks again, and the threshold begins anew.
 */
import type { RegionId, StoreId } from '../../base/ids.ts';
import type { Cluster } from '../cluster/cluster.ts';
import type { Redirects } from './assignment-step.ts';

/** A wish that nobody has repeated for so long is forgotten. */
const WISH_MS_MAX = 60_000;
/** Region ids whose redirects are timed; the oldest go first. */
const TIMED_MAX = 20_000;

interface Wish {
  readonly firstMs: number;
  lastMs: number;
}

export interface RedirectsOptions {
  readonly cluster: Cluster;
  /** Monotonic. */
  readonly nowMs: () => number;
  /** Whether somebody will ask by himself when the redirects of this region end. */
  readonly isKept: (region: RegionId) => boolean;
}

export class ClusterRedirects implements Redirects {
  readonly #options: RedirectsOptions;
  /** When somebody asked for a region's redirects to be retired. */
  readonly #wishes = new Map<number, Wish>();
  /** When a store first told of a region's redirects. */
  readonly #toldMs = new Map<RegionId, number>();

  constructor(options: RedirectsOptions) {
    this.#options = options;
  }

  retire(regions: readonly number[]): void {
    const nowMs = this.#options.nowMs();
    for (const [region, { lastMs }] of this.#wishes) {
      if (nowMs - lastMs > WISH_MS_MAX) {
        this.#wishes.delete(region);
      }
    }
    for (const region of regions) {
      const wish = this.#wishes.get(region);
      if (wish === undefined) {
        this.#wishes.set(region, { firstMs: nowMs, lastMs: nowMs });
      } else {
        wish.lastMs = nowMs;
      }
    }
  }

  /** Stores that are down or silent do not count: they forget by themselves, or report when they are back. */
  areRetired(regions: readonly number[]): boolean {
    const { cluster, nowMs } = this.#options;
    return cluster
      .stores()
      .filter(({ record }) => cluster.isUsable(record.store.id, nowMs()))
      .every(
        // A store that has not reported to this service yet may still redirect.
        ({ stats, seenAtMs }) =>
          stats !== undefined &&
          regions.every((region) => {
            const asked = this.#wishes.get(region);
            const isTold = stats.redirectedRegions === undefined || asked === undefined || seenAtMs >= asked.firstMs;
            return isTold && stats.redirectedRegions?.includes(region as RegionId) !== true;
          }),
      );
  }

  /** Stores that still answer for what the region was, as they told last. */
  holders(region: number): StoreId[] {
    return this.#options.cluster
      .stores()
      .filter(({ stats }) => stats?.redirectedRegions?.includes(region as RegionId) === true)
      .map(({ record }) => record.store.id);
  }

  /** What to tell a store in the answer to its latest report. */
  toRetireOn(store: StoreId): readonly RegionId[] {
    const { cluster, nowMs, isKept } = this.#options;
    const now = nowMs();
    const reported = cluster.store(store)?.stats?.redirectedRegions ?? [];
    return reported.filter((region) => {
      if (this.#wishes.has(region)) {
        return true;
      }
      const toldMs = this.#toldMs.get(region);
      if (toldMs === undefined) {
        this.#remember(region, now);
        return false;
      }
      const isDue = now - toldMs >= cluster.config.proxyThresholdMs && !isKept(region);
      if (isDue) {
        // Should the region change again its redirects are timed anew.
        this.#toldMs.delete(region);
      }
      return isDue;
    });
  }

  #remember(region: RegionId, nowMs: number): void {
    this.#toldMs.set(region, nowMs);
    for (const oldest of this.#toldMs.keys()) {
      if (this.#toldMs.size <= TIMED_MAX) {
        break;
      }
      this.#toldMs.delete(oldest);
    }
  }
}
