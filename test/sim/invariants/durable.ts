/**
 * What every machine certainly has on disk, crashed machines included: a disk loses its view when its process dies, so
 * the last one is kept here.
 */
import { logIndex, regionId as brandRegionId } from '../../../src/base/ids.ts';
import type { KeyMap } from '../../../src/base/key-map.ts';
import {
  decodeApplyState,
  decodeEntry,
  decodeRaftLocalState,
  decodeRegionLocalState,
} from '../../../src/codec/raft-records.ts';
import type { ApplyState, RaftLocalState, RegionLocalState } from '../../../src/codec/store-record.ts';
import { applyStateKey, raftLogKey, raftStateKey, regionStateKey } from '../../../src/engine/index.ts';
import type { ObservedMachine } from './observed.ts';

export type DiskView = KeyMap<Uint8Array>;

export function regionStateOn(view: DiskView, region: number): RegionLocalState | undefined {
  const bytes = view.get(regionStateKey(brandRegionId(region)));
  return bytes === undefined ? undefined : decodeRegionLocalState(bytes);
}

export function applyStateOn(view: DiskView, region: number): ApplyState | undefined {
  const bytes = view.get(applyStateKey(brandRegionId(region)));
  return bytes === undefined ? undefined : decodeApplyState(bytes);
}

export function raftStateOn(view: DiskView, region: number): RaftLocalState | undefined {
  const bytes = view.get(raftStateKey(brandRegionId(region)));
  return bytes === undefined ? undefined : decodeRaftLocalState(bytes);
}

export class DurableState {
  readonly #views: Map<number, DiskView> = new Map();

  observe(machine: ObservedMachine): void {
    if (machine.store !== undefined && machine.database !== undefined) {
      this.#views.set(machine.id, machine.database.view);
    }
  }

  viewOf(store: number): DiskView | undefined {
    return this.#views.get(store);
  }

  isTombstone(store: number, region: number): boolean {
    const view = this.#views.get(store);
    return view !== undefined && regionStateOn(view, region)?.state === 'tombstone';
  }

  /** Whether the replica has the entry on disk, in its log or as part of a snapshot. */
  holds(store: number, region: number, peer: number, index: number, term: number): boolean {
    const view = this.#views.get(store);
    return (
      view !== undefined &&
      raftStateOn(view, region)?.peerId === peer &&
      DurableState.holdsIn(view, region, index, term)
    );
  }

  static holdsIn(view: DiskView, region: number, index: number, term: number): boolean {
    const bytes = view.get(raftLogKey(brandRegionId(region), logIndex(index)));
    return bytes === undefined
      ? (applyStateOn(view, region)?.truncatedIndex ?? 0) >= index
      : decodeEntry(bytes).term === term;
  }
}
