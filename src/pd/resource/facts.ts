/** What reconcilers and admission may know: the region map, pods, running operators. A view, never a copy. */
import { equalBytes } from '../../base/bytes.ts';
import type { StoreId } from '../../base/ids.ts';
import { type KeyRange, compareEnds, rangeContains } from '../../base/key-range.ts';
import type { Cluster } from '../cluster/cluster.ts';
import type { RegionInfo } from '../cluster/region-info.ts';
import { isUp } from '../cluster/store-info.ts';
import type { PlacementConfig } from '../defaults.ts';
import { findPeerOnStore } from '../../meta/region.ts';
import { chooseTarget } from '../schedule/checker/placement-choice.ts';
import type { Result } from '../schedule/verdict.ts';
import type { OperatorController } from '../schedule/operator/controller.ts';
import type { Operator } from '../schedule/operator/operator.ts';

/** The label of a store that names its pod. */
export const POD_LABEL = 'name';

export interface Facts {
  readonly config: PlacementConfig;
  readonly wallMs: number;
  /** Regions that share a key with the range, in key order; undefined while a part of it is in no known region. */
  regionsIn(range: KeyRange): readonly RegionInfo[] | undefined;
  regionAt(key: Uint8Array): RegionInfo | undefined;
  storeOfPod(pod: string): StoreId | undefined;
  podOfStore(store: StoreId): string | undefined;
  /** Up, and heard from recently. */
  isUsable(store: StoreId): boolean;
  runningOn(info: RegionInfo): Operator | undefined;
  /** Whether another store could take the replica that is on `store`. */
  hasSpareStore(info: RegionInfo, store: StoreId): boolean;
}

export function podNameOf(labels: readonly { readonly key: string; readonly value: string }[]): string | undefined {
  return labels.find((label) => label.key.toLowerCase() === POD_LABEL)?.value;
}

export class ClusterFacts implements Facts {
  readonly wallMs: number;
  readonly #cluster: Cluster;
  readonly #controller: OperatorController;
  readonly #monoMs: number;
  readonly #stores = new Map<string, StoreId>();
  readonly #pods = new Map<StoreId, string>();

  constructor(
    cluster: Cluster,
    controller: OperatorController,
    now: { readonly wallMs: number; readonly monoMs: number },
  ) {
    this.#cluster = cluster;
    this.#controller = controller;
    this.wallMs = now.wallMs;
    this.#monoMs = now.monoMs;
    for (const info of cluster.stores()) {
      const { store } = info.record;
      const pod = podNameOf(store.labels);
      if (pod !== undefined && store.state !== 'tombstone') {
        this.#pods.set(store.id, pod);
        if (isUp(info) || !this.#stores.has(pod)) {
          this.#stores.set(pod, store.id);
        }
      }
    }
  }

  get config(): PlacementConfig {
    return this.#cluster.config;
  }

  get pods(): readonly string[] {
    return [...this.#stores.keys()].sort();
  }

  regionsIn(range: KeyRange): readonly RegionInfo[] | undefined {
    const found = this.#cluster.tree.overlaps(range);
    let at: Uint8Array | undefined;
    for (const { region } of found) {
      if (at === undefined ? !rangeContains(region.range, range.start) : !equalBytes(at, region.range.start)) {
        return undefined;
      }
      at = region.range.end;
    }
    return at === undefined || compareEnds(at, range.end) < 0 ? undefined : found;
  }

  regionAt(key: Uint8Array): RegionInfo | undefined {
    return this.#cluster.tree.find(key);
  }

  storeOfPod(pod: string): StoreId | undefined {
    return this.#stores.get(pod);
  }

  podOfStore(store: StoreId): string | undefined {
    return this.#pods.get(store);
  }

  isUsable(store: StoreId): boolean {
    return this.#cluster.isUsable(store, this.#monoMs);
  }

  runningOn(info: RegionInfo): Operator | undefined {
    return this.#controller.runningOn(info.region.id);
  }

  /** The store that would take the replica that is on `store`. */
  spareStore(info: RegionInfo, store: StoreId): Result<StoreId> {
    return chooseTarget(this.#cluster, info, findPeerOnStore(info.region, store), this.#monoMs, () => true);
  }

  hasSpareStore(info: RegionInfo, store: StoreId): boolean {
    return this.spareStore(info, store).type === 'ok';
  }

  sizeOf(range: KeyRange): number {
    return this.#cluster.tree.overlaps(range).reduce((sum, info) => sum + info.sizeBytes, 0);
  }
}
