/**
 * The region map: which region owns which keys. Owns the rules of when a report may displace what is known
 * (tikv/pd pkg/core/region.go and region_tree.go) and never holds two regions whose ranges overlap. The check and the
 * replacement are one synchronous call; persisting is the caller's business and happens afterwards.
 */
import { assert } from '../../base/assert.ts';
import { equalBytes } from '../../base/bytes.ts';
import type { RegionId, StoreId } from '../../base/ids.ts';
import { KeyMap } from '../../base/key-map.ts';
import {
  type KeyRange,
  isBeforeEnd,
  isEmptyRange,
  isLeftNeighbour,
  rangeContains,
  rangesEqual,
  rangesOverlap,
} from '../../base/key-range.ts';
import type { Region } from '../../meta/region.ts';
import type { RegionInfo } from './region-info.ts';

/** Why a report was not accepted. */
export type StaleReason = 'overlap-version' | 'own-version' | 'own-conf-ver' | 'own-term';

export type OfferVerdict =
  | {
      readonly type: 'accepted';
      /** Belief about the same id before. */
      readonly previous: RegionInfo | undefined;
      /** Other regions that overlapped and left the map. */
      readonly evicted: readonly RegionInfo[];
    }
  | { readonly type: 'stale'; readonly reason: StaleReason; readonly known: RegionInfo };

/** Counts of one store's replicas, kept up to date with every change of the map. */
export interface StoreRegionSets {
  readonly peers: ReadonlySet<RegionId>;
  readonly leaders: ReadonlySet<RegionId>;
  readonly learners: ReadonlySet<RegionId>;
  readonly pending: ReadonlySet<RegionId>;
}

interface MutableSets {
  readonly peers: Set<RegionId>;
  readonly leaders: Set<RegionId>;
  readonly learners: Set<RegionId>;
  readonly pending: Set<RegionId>;
  sizeBytes: number;
}

const NO_SETS: StoreRegionSets = {
  peers: new Set(),
  leaders: new Set(),
  learners: new Set(),
  pending: new Set(),
};

/** A region made anew by disaster recovery: first epoch, but not the whole key space. It may displace anything. */
const isRecreated = (region: Region): boolean =>
  region.epoch.version === 1 &&
  region.epoch.confVer === 1 &&
  (region.range.start.length > 0 || region.range.end.length > 0);

export class RegionTree {
  readonly #byStart = new KeyMap<RegionInfo>();
  readonly #byId = new Map<RegionId, RegionInfo>();
  readonly #byStore = new Map<StoreId, MutableSets>();
  #reportedCount = 0;

  get size(): number {
    return this.#byId.size;
  }

  /** Regions whose leader has reported since this process started. */
  get reportedCount(): number {
    return this.#reportedCount;
  }

  get(id: RegionId): RegionInfo | undefined {
    return this.#byId.get(id);
  }

  /** The region containing `key`; undefined inside a hole. */
  find(key: Uint8Array): RegionInfo | undefined {
    const info = this.#byStart.floor(key)?.[1];
    return info !== undefined && rangeContains(info.region.range, key) ? info : undefined;
  }

  /** The region directly left of the one containing `key`; undefined unless both exist and touch. */
  findPrevious(key: Uint8Array): RegionInfo | undefined {
    const info = this.find(key);
    return info === undefined ? undefined : this.neighbours(info).previous;
  }

  /** The touching regions on both sides; a hole has no neighbours across it. */
  neighbours(info: RegionInfo): { readonly previous: RegionInfo | undefined; readonly next: RegionInfo | undefined } {
    const { start, end } = info.region.range;
    const previous = this.#byStart.lower(start)?.[1];
    const next = end.length === 0 ? undefined : this.#byStart.get(end);
    return {
      previous:
        previous !== undefined && isLeftNeighbour(previous.region.range, info.region.range) ? previous : undefined,
      next,
    };
  }

  /** All known regions that share a key with `range`, in key order. */
  overlaps(range: KeyRange): RegionInfo[] {
    const found: RegionInfo[] = [];
    const first = this.#byStart.floor(range.start);
    const from = first !== undefined && rangesOverlap(first[1].region.range, range) ? first[0] : range.start;
    for (const [start, info] of this.#byStart.entriesFrom(from)) {
      if (!isBeforeEnd(start, range.end)) {
        break;
      }
      found.push(info);
    }
    return found;
  }

  /** Up to `limit` regions in key order, from the one containing `range.start` (or the next one) up to `range.end`. */
  scan(range: KeyRange, limit: number): RegionInfo[] {
    const found: RegionInfo[] = [];
    const first = this.find(range.start);
    for (const [start, info] of this.#byStart.entriesFrom(first?.region.range.start ?? range.start)) {
      if (found.length >= limit || !isBeforeEnd(start, range.end)) {
        break;
      }
      found.push(info);
    }
    return found;
  }

  values(): IterableIterator<RegionInfo> {
    return this.#byStart.values();
  }

  /** Parts of the key space that no known region covers, in key order, at most `limit`. */
  holes(limit: number): KeyRange[] {
    const found: KeyRange[] = [];
    let at: Uint8Array = new Uint8Array(0);
    for (const info of this.#byStart.values()) {
      if (found.length >= limit) {
        return found;
      }
      const { start, end } = info.region.range;
      if (!equalBytes(at, start)) {
        found.push({ start: at, end: start });
      }
      if (end.length === 0) {
        return found;
      }
      at = end;
    }
    found.push({ start: at, end: new Uint8Array(0) });
    return found;
  }

  ofStore(store: StoreId): StoreRegionSets {
    return this.#byStore.get(store) ?? NO_SETS;
  }

  /** Sum of the sizes of a store's replicas. */
  sizeOfStoreBytes(store: StoreId): number {
    return this.#byStore.get(store)?.sizeBytes ?? 0;
  }

  /**
   * Accepts a report unless it is older than anything it would displace. Accepting removes every other region that
   * overlaps: this is how the source of a merge, and the parent's old range after a split, leave the map.
   */
  offer(info: RegionInfo): OfferVerdict {
    const verdict = this.check(info);
    if (verdict.type === 'stale') {
      return verdict;
    }
    for (const evicted of verdict.evicted) {
      this.#unlink(evicted);
    }
    if (verdict.previous?.region === info.region) {
      this.#relink(verdict.previous, info);
      return verdict;
    }
    if (verdict.previous !== undefined) {
      this.#unlink(verdict.previous);
    }
    this.#link(info);
    return verdict;
  }

  /** What {@link offer} would answer, without changing anything. */
  check(info: RegionInfo): OfferVerdict {
    const { region } = info;
    assert(!isEmptyRange(region.range), 'a reported region must have keys', { region: region.id });
    const previous = this.#byId.get(region.id);
    const rangeChanged =
      previous === undefined || (previous.region !== region && !rangesEqual(previous.region.range, region.range));
    const overlapping = rangeChanged ? this.overlaps(region.range) : [];
    if (!isRecreated(region)) {
      for (const known of overlapping) {
        if (region.epoch.version < known.region.epoch.version) {
          return { type: 'stale', reason: 'overlap-version', known };
        }
      }
      if (previous !== undefined) {
        const reason = staleAgainstOwn(info, previous);
        if (reason !== undefined) {
          return { type: 'stale', reason, known: previous };
        }
      }
    }
    return { type: 'accepted', previous, evicted: overlapping.filter((known) => known.region.id !== region.id) };
  }

  remove(id: RegionId): RegionInfo | undefined {
    const info = this.#byId.get(id);
    if (info !== undefined) {
      this.#unlink(info);
    }
    return info;
  }

  #link(info: RegionInfo): void {
    const { region } = info;
    assert(!this.#byStart.has(region.range.start), 'two regions start at one key', { region: region.id });
    this.#byStart.set(region.range.start, info);
    this.#byId.set(region.id, info);
    if (info.reportedAtMs !== undefined) {
      this.#reportedCount++;
    }
    for (const peer of region.peers) {
      const sets = this.#setsOf(peer.storeId);
      sets.peers.add(region.id);
      sets.sizeBytes += info.sizeBytes;
      if (peer.role === 'learner') {
        sets.learners.add(region.id);
      }
      if (info.leader?.id === peer.id) {
        sets.leaders.add(region.id);
      }
    }
    for (const peer of info.pendingPeers) {
      this.#setsOf(peer.storeId).pending.add(region.id);
    }
  }

  #unlink(info: RegionInfo): void {
    const { region } = info;
    assert(this.#byStart.get(region.range.start) === info, 'index by key and index by id disagree', {
      region: region.id,
    });
    this.#byStart.delete(region.range.start);
    this.#byId.delete(region.id);
    if (info.reportedAtMs !== undefined) {
      this.#reportedCount--;
    }
    for (const peer of region.peers) {
      const sets = this.#setsOf(peer.storeId);
      sets.peers.delete(region.id);
      sets.sizeBytes -= info.sizeBytes;
      sets.learners.delete(region.id);
      sets.leaders.delete(region.id);
    }
    for (const peer of info.pendingPeers) {
      this.#setsOf(peer.storeId).pending.delete(region.id);
    }
  }

  /** The same descriptor with fresh news, by far the most frequent case: indexes by key and by peer stay as they are. */
  #relink(previous: RegionInfo, info: RegionInfo): void {
    const { region } = info;
    this.#byStart.set(region.range.start, info);
    this.#byId.set(region.id, info);
    this.#reportedCount += Number(info.reportedAtMs !== undefined) - Number(previous.reportedAtMs !== undefined);
    const grownBytes = info.sizeBytes - previous.sizeBytes;
    for (const peer of region.peers) {
      const sets = this.#setsOf(peer.storeId);
      sets.sizeBytes += grownBytes;
      // To the end of the set: whoever looks at a part of a store's regions sees others the next time.
      sets.peers.delete(region.id);
      sets.peers.add(region.id);
      if (info.leader?.id !== previous.leader?.id) {
        sets.leaders.delete(region.id);
        if (info.leader?.id === peer.id) {
          sets.leaders.add(region.id);
        }
      }
    }
    for (const peer of previous.pendingPeers) {
      this.#setsOf(peer.storeId).pending.delete(region.id);
    }
    for (const peer of info.pendingPeers) {
      this.#setsOf(peer.storeId).pending.add(region.id);
    }
  }

  #setsOf(store: StoreId): MutableSets {
    let sets = this.#byStore.get(store);
    if (sets === undefined) {
      sets = { peers: new Set(), leaders: new Set(), learners: new Set(), pending: new Set(), sizeBytes: 0 };
      this.#byStore.set(store, sets);
    }
    return sets;
  }
}

/** The membership counter and the term are compared only with the same id: other regions count their own. */
function staleAgainstOwn(info: RegionInfo, known: RegionInfo): StaleReason | undefined {
  if (info.region.epoch.version < known.region.epoch.version) {
    return 'own-version';
  }
  if (info.region.epoch.confVer < known.region.epoch.confVer) {
    return 'own-conf-ver';
  }
  return info.term > 0 && info.term < known.term ? 'own-term' : undefined;
}
