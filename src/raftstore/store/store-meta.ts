/**
 * The store-wide map of regions and the bookkeeping of merges and snapshots that concerns more than one region.
 * Reference: TiKV components/raftstore/src/store/fsm/store.rs StoreMeta. One event loop makes every method and every
 * synchronous handler a critical section; never suspend between reading and writing it.
 */
import { assert } from '../../base/assert.ts';
import type { RegionId } from '../../base/ids.ts';
import { type KeyRange, rangeContains, rangesOverlap } from '../../base/key-range.ts';
import { KeyMap } from '../../base/key-map.ts';
import { compareBytes, equalBytes } from '../../base/bytes.ts';
import type { PeerMessage } from '../../codec/peer-message.ts';
import type { Region, RegionEpoch } from '../../meta/region.ts';
import { StoreCounters } from './counters.ts';
import { Redirects } from './redirects.ts';

/** Why a range is occupied by a region that is about to disappear through a target's snapshot. */
export type DestroyForSnapshot = { readonly needAtomic: boolean };

/** What a gc message told about a merge that happened elsewhere: the target when it took the source in. */
export interface PendingMergeTarget {
  readonly targetId: RegionId;
  readonly epoch: RegionEpoch;
  readonly peers: Region['peers'];
}

/** First votes and appends for peers that a split here is about to create; newest kept. */
const PENDING_MSGS_MAX = 100;

export class StoreMeta {
  /** Every live peer's descriptor, uninitialized ones included. */
  readonly regions: Map<RegionId, Region> = new Map();
  /** Initialized regions by start key; ranges never overlap. */
  readonly #byStart: KeyMap<RegionId> = new KeyMap();
  /** Ranges of accepted snapshots that are not persisted yet, by region. */
  readonly pendingSnapshotRegions: Map<RegionId, Region> = new Map();
  /** target -> source -> the target as recorded (without its range). */
  readonly pendingMergeTargets: Map<RegionId, Map<RegionId, PendingMergeTarget>> = new Map();
  /** source -> target, the inverse. */
  readonly targetsMap: Map<RegionId, RegionId> = new Map();
  /** target -> source -> whether the source's apply FSM has stopped. */
  readonly atomicSnapRegions: Map<RegionId, Map<RegionId, boolean>> = new Map();
  readonly destroyedForSnapshot: Map<RegionId, DestroyForSnapshot> = new Map();
  readonly counters: StoreCounters = new StoreCounters();
  readonly redirects: Redirects = new Redirects();
  readonly #pendingMsgs: PeerMessage[] = [];

  /** Puts an initialized region into the range index. */
  insertRange(region: Region): void {
    for (const other of this.overlapping(region.range)) {
      assert(other.id === region.id, 'regions overlap on this store', { region: region.id, other: other.id });
    }
    this.#byStart.set(region.range.start, region.id);
  }

  removeRange(region: Region): void {
    assert(this.#byStart.get(region.range.start) === region.id, 'range index does not hold the region', {
      region: region.id,
    });
    this.#byStart.delete(region.range.start);
  }

  /** Whether the range index holds this region at its start key. */
  hasRange(region: Region): boolean {
    return this.#byStart.get(region.range.start) === region.id;
  }

  regionOfKey(key: Uint8Array): Region | undefined {
    const found = this.#byStart.floor(key);
    const region = found === undefined ? undefined : this.regions.get(found[1]);
    return region !== undefined && rangeContains(region.range, key) ? region : undefined;
  }

  /** The initialized region whose range ends exactly at `key`. */
  regionEndingAt(key: Uint8Array): Region | undefined {
    const found = this.#byStart.lower(key);
    const region = found === undefined ? undefined : this.regions.get(found[1]);
    return region !== undefined && equalBytes(region.range.end, key) ? region : undefined;
  }

  /** Initialized regions that overlap the range, in key order. */
  overlapping(range: KeyRange): Region[] {
    const out: Region[] = [];
    const before = this.#byStart.lower(range.start);
    if (before !== undefined) {
      const region = this.regions.get(before[1]);
      assert(region !== undefined, 'range index names an unknown region', { region: before[1] });
      if (rangesOverlap(region.range, range)) {
        out.push(region);
      }
    }
    for (const [start, id] of this.#byStart.entriesFrom(range.start)) {
      if (range.end.length > 0 && compareBytes(start, range.end) >= 0) {
        break;
      }
      const region = this.regions.get(id);
      assert(region !== undefined, 'range index names an unknown region', { region: id });
      out.push(region);
    }
    return out;
  }

  /** Initialized regions in key order. */
  *initialized(): IterableIterator<Region> {
    for (const id of this.#byStart.values()) {
      const region = this.regions.get(id);
      assert(region !== undefined, 'range index names an unknown region', { region: id });
      yield region;
    }
  }

  /** Sizes of the notes about transitions between regions; all zero when nothing is under way. */
  notes(): Readonly<Record<string, number>> {
    return {
      pendingSnapshotRegions: this.pendingSnapshotRegions.size,
      pendingMergeTargets: this.pendingMergeTargets.size,
      targetsMap: this.targetsMap.size,
      atomicSnapRegions: this.atomicSnapRegions.size,
      destroyedForSnapshot: this.destroyedForSnapshot.size,
    };
  }

  /** Keeps a message for a peer that a split may create soon. */
  keepMessage(message: PeerMessage): void {
    if (this.#pendingMsgs.length >= PENDING_MSGS_MAX) {
      this.#pendingMsgs.shift();
    }
    this.#pendingMsgs.push(message);
  }

  /** Takes out the messages kept for this peer. */
  takeMessages(region: RegionId, peer: number): PeerMessage[] {
    const taken: PeerMessage[] = [];
    for (let i = this.#pendingMsgs.length - 1; i >= 0; i--) {
      const message = this.#pendingMsgs[i] as PeerMessage;
      if (message.regionId === region) {
        this.#pendingMsgs.splice(i, 1);
        if (message.to.id === peer) {
          taken.unshift(message);
        }
      }
    }
    return taken;
  }
}

/** Who is about to create a peer of a region: a raft message or a split in apply. */
export interface PendingCreate {
  readonly peerId: number;
  readonly isSplitting: boolean;
  /** The replica has accepted a snapshot, and regions that were merged into it die with that: no split may replace it. */
  readonly hasSnapshot?: boolean;
}

/** Arbitrates creation by message against creation by split (reference 9.2). */
export type PendingCreatePeers = Map<RegionId, PendingCreate>;
