/**
 * What the client believes about regions: ranges, epochs, leaders. A belief may be wrong; every request carries the
 * epoch it was routed by, and the store refuses it when that epoch is no longer its own. Two rules keep an old view
 * from replacing a newer one (tikv/client-go: internal/locate/region_cache.go): a region is refused if the cached one
 * with its id has a higher `version` or `confVer`, or if any cached region that overlaps it has a higher `version`.
 */
import { EMPTY_BYTES, compareBytes } from '../base/bytes.ts';
import type { RegionId, StoreId } from '../base/ids.ts';
import { KeyMap } from '../base/key-map.ts';
import { isBeforeEnd } from '../base/key-range.ts';
import { type Peer, type Region, epochsEqual, findPeer, findPeerOnStore, isEpochStale } from '../meta/region.ts';

/** Entries looked at by one round of eviction at most, so that an insert never walks the whole cache. */
const EVICTION_STEPS_MAX = 64;

/** One cached region. Only the cache creates, changes and drops entries; a dropped one has `inCache` false. */
export class CachedRegion {
  readonly region: Region;
  /** Undefined while unknown. Always one of the region's peers. */
  leader: Peer | undefined;
  inCache = true;
  /** The placement service should be asked again although the entry may still be used meanwhile. */
  needsReload = false;
  /** How many replicas were tried since the leader was last known. */
  rotation = 0;
  /** Set by every use, cleared by eviction rounds. */
  used = true;

  constructor(region: Region, leader: Peer | undefined) {
    this.region = region;
    this.leader = leader;
  }

  contains(key: Uint8Array): boolean {
    return compareBytes(this.region.range.start, key) <= 0 && isBeforeEnd(key, this.region.range.end);
  }
}

/** What an epoch refusal taught the cache. */
export type EpochLesson =
  /** The store is behind the cached view: try again a little later. */
  | 'store-behind'
  /** Newer regions are cached now: try again at once. */
  | 'updated'
  /** The region was dropped: ask the placement service. */
  | 'dropped';

export class RegionCache {
  readonly #max: number;
  readonly #byStart = new KeyMap<CachedRegion>();
  readonly #byId = new Map<RegionId, CachedRegion>();
  /** Start key at which the next eviction round begins. */
  #hand: Uint8Array = EMPTY_BYTES;

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#byId.size;
  }

  byId(id: RegionId): CachedRegion | undefined {
    return this.#byId.get(id);
  }

  /** The cached region that contains `key`. */
  locate(key: Uint8Array): CachedRegion | undefined {
    const found = this.#byStart.floor(key);
    if (found === undefined || !isBeforeEnd(key, found[1].region.range.end)) {
      return undefined;
    }
    found[1].used = true;
    return found[1];
  }

  /** The cached region that contains the keys directly below `end`; `end` must not be empty. */
  locateBefore(end: Uint8Array): CachedRegion | undefined {
    const found = this.#byStart.lower(end);
    if (found === undefined) {
      return undefined;
    }
    const regionEnd = found[1].region.range.end;
    if (regionEnd.length !== 0 && compareBytes(end, regionEnd) > 0) {
      return undefined;
    }
    found[1].used = true;
    return found[1];
  }

  /** Entries in key order, for tools and tests. */
  entries(): CachedRegion[] {
    return [...this.#byStart.values()];
  }

  /**
   * Takes over a region unless it is older than what is cached. With equal epochs only a known leader is taken over.
   * Returns the entry now cached under the region's id, undefined if the region was refused as stale.
   */
  insert(region: Region, leader: Peer | undefined): CachedRegion | undefined {
    const same = this.#byId.get(region.id);
    if (same !== undefined) {
      if (isEpochStale(region.epoch, same.region.epoch)) {
        return undefined;
      }
      if (epochsEqual(region.epoch, same.region.epoch)) {
        same.needsReload = false;
        // The rotation goes on: the placement service may name the old leader for a long time.
        same.leader = leader === undefined ? same.leader : findPeer(same.region, leader.id);
        return same;
      }
    }
    const overlapping = this.#overlapping(region);
    if (overlapping.some((entry) => entry.region.epoch.version > region.epoch.version)) {
      return undefined;
    }
    for (const entry of overlapping) {
      this.drop(entry);
    }
    if (same !== undefined) {
      this.drop(same);
    }
    const entry = new CachedRegion(region, leader === undefined ? undefined : findPeer(region, leader.id));
    this.#byStart.set(region.range.start, entry);
    this.#byId.set(region.id, entry);
    if (this.#byId.size > this.#max) {
      this.#evict(entry);
    }
    return entry;
  }

  /** Forgets the entry, so that the next look-up asks the placement service and takes whatever it says. */
  drop(entry: CachedRegion): void {
    if (!entry.inCache) {
      return;
    }
    entry.inCache = false;
    this.#byId.delete(entry.region.id);
    this.#byStart.delete(entry.region.range.start);
  }

  /** A store named the leader. False if the peer is unknown to the cached region, which then needs a reload. */
  setLeader(entry: CachedRegion, leader: Peer): boolean {
    const peer = findPeer(entry.region, leader.id);
    if (peer === undefined) {
      entry.leader = undefined;
      entry.needsReload = true;
      return false;
    }
    entry.leader = peer;
    entry.rotation = 0;
    return true;
  }

  /** The leader is not where it was thought to be and nobody said where it is. */
  forgetLeader(entry: CachedRegion): void {
    entry.leader = undefined;
    entry.rotation++;
    if (entry.rotation >= entry.region.peers.length) {
      entry.needsReload = true;
    }
  }

  /** Learns from a refusal with `EpochNotMatch`; `answeredBy` is the store that sent it. */
  learnEpochs(entry: CachedRegion, current: readonly Region[], answeredBy: StoreId): EpochLesson {
    if (current.length === 0) {
      this.drop(entry);
      return 'dropped';
    }
    const own = current.find((region) => region.id === entry.region.id);
    if (own !== undefined && entry.inCache) {
      const { epoch } = entry.region;
      if (isEpochStale(own.epoch, epoch) || epochsEqual(own.epoch, epoch)) {
        return 'store-behind';
      }
    }
    this.drop(entry);
    let inserted = false;
    for (const region of current) {
      const before = this.#byId.get(region.id);
      const isKnown = before !== undefined && epochsEqual(before.region.epoch, region.epoch);
      // The store that answered leads its own region of old, so most likely its parts as well.
      const leader = isKnown ? undefined : findPeerOnStore(region, answeredBy);
      inserted = this.insert(region, leader) !== undefined || inserted;
    }
    return inserted ? 'updated' : 'dropped';
  }

  #overlapping(region: Region): CachedRegion[] {
    const { start, end } = region.range;
    const found: CachedRegion[] = [];
    const left = this.#byStart.lower(start);
    if (left !== undefined && isBeforeEnd(start, left[1].region.range.end)) {
      found.push(left[1]);
    }
    for (const [key, entry] of this.#byStart.entriesFrom(start)) {
      if (!isBeforeEnd(key, end)) {
        break;
      }
      found.push(entry);
    }
    return found;
  }

  /** Second chance: walks on from where the last round stopped and drops the first entry not used since the round before. */
  #evict(keep: CachedRegion): void {
    let victim: CachedRegion | undefined;
    for (let step = 0; step < EVICTION_STEPS_MAX; step++) {
      const next = this.#byStart.higher(this.#hand) ?? this.#byStart.ceiling(EMPTY_BYTES);
      if (next === undefined) {
        return;
      }
      this.#hand = next[0];
      if (next[1] === keep) {
        continue;
      }
      victim = next[1];
      if (!victim.used) {
        break;
      }
      victim.used = false;
    }
    if (victim !== undefined) {
      this.drop(victim);
    }
  }
}
