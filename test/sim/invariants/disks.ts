/**
 * Checks of whole disks, once in so many events: I2, I4, I9, I15, I16, R2, R6 and R7. R7 and S1 compare every replica with
 * the model at its applied index, so that one replica alone can be wrong.
 */
import { compareBytes, fromUtf8 } from '../../../src/base/bytes.ts';
import { logIndex, regionId as brandRegionId } from '../../../src/base/ids.ts';
import { isBeforeEnd, type KeyRange, rangeContains } from '../../../src/base/key-range.ts';
import {
  decodeCleanTask,
  decodeEntry,
  decodeRaftCommand,
  decodeRegionLocalState,
} from '../../../src/codec/raft-records.ts';
import { INIT_LOG_INDEX, type RegionLocalState } from '../../../src/codec/store-record.ts';
import {
  dataRange,
  pendingCleanRange,
  raftLogKey,
  regionIdOfStateKey,
  regionStateRange,
  userKeyOf,
} from '../../../src/engine/index.ts';
import { formatRegion, type Region } from '../../../src/meta/region.ts';
import { EntryType } from '../../../src/raft/types.ts';
import type { CommittedLog } from './committed-log.ts';
import { applyStateOn, type DiskView, raftStateOn } from './durable.ts';
import { type ObservedMachine, RowDigest, type Tally, violated } from './observed.ts';
import { checkedLiveRegions } from './records.ts';
import type { RegionModel } from './region-model.ts';
import type { Grave } from './replicas.ts';

/** Ranges are deleted page by page under an unchanged applied index. */
function isDeletingRange(entry: Uint8Array | undefined): boolean {
  const decoded = entry === undefined ? undefined : decodeEntry(entry);
  if (decoded === undefined || decoded.data.length === 0 || decoded.type !== EntryType.Normal) {
    return false;
  }
  const command = decodeRaftCommand(decoded.data);
  return command.type === 'write' && command.ops.some((op) => op.type === 'delete-range');
}

/** Ranges that are given up and still to be deleted. */
function cleanTasksOn(view: DiskView): KeyRange[] {
  const ranges: KeyRange[] = [];
  const { start, end } = pendingCleanRange();
  for (const [key, bytes] of view.entriesFrom(start)) {
    if (compareBytes(key, end) >= 0) {
      break;
    }
    ranges.push(decodeCleanTask(bytes).range);
  }
  return ranges;
}

interface Digested {
  readonly store: number;
  readonly text: string;
}

export class DiskChecks {
  readonly #log: CommittedLog;
  readonly #model: RegionModel;
  readonly #graves: Map<string, Grave>;
  readonly #tally: Tally;
  /** `store/region/incarnation` → last index compared. */
  readonly #compared: Map<string, number> = new Map();

  constructor(log: CommittedLog, model: RegionModel, graves: Map<string, Grave>, tally: Tally) {
    this.#log = log;
    this.#model = model;
    this.#graves = graves;
    this.#tally = tally;
  }

  check(machines: readonly ObservedMachine[]): void {
    const byPosition = new Map<string, Digested>();
    for (const machine of machines) {
      if (machine.store !== undefined && machine.database !== undefined) {
        this.#checkDisk(machine, machine.database.view, byPosition);
      }
    }
    this.#tally.add('disks');
  }

  #checkDisk(machine: ObservedMachine, view: DiskView, byPosition: Map<string, Digested>): void {
    const range = regionStateRange();
    for (const [key, bytes] of view.entriesFrom(range.start)) {
      if (compareBytes(key, range.end) >= 0) {
        break;
      }
      const id = regionIdOfStateKey(key);
      const state = decodeRegionLocalState(bytes);
      if (state.state === 'tombstone') {
        this.#bury(machine, state, id);
        this.#checkMergedAway(machine, view, state, id);
      } else if (state.region.peers.length > 0) {
        this.#checkLog(machine, view, id);
        if (state.state === 'merging') {
          this.#checkGapReadable(machine, view, state, id);
        }
        if (state.state !== 'applying') {
          this.#checkData(machine.id, view, state.region, byPosition);
        }
      }
    }
    checkedLiveRegions(view, machine.id);
  }

  /** I9: at rest, data outside the regions of its store is at least noted for cleaning. */
  checkOwners(machines: readonly ObservedMachine[]): void {
    for (const { id, store, database } of machines) {
      if (store !== undefined && database !== undefined) {
        this.#checkOwnersOn(id, database.view);
      }
    }
  }

  #checkOwnersOn(store: number, view: DiskView): void {
    const live = checkedLiveRegions(view, store);
    const given = cleanTasksOn(view);
    const data = dataRange({ start: new Uint8Array(0), end: new Uint8Array(0) });
    let at = 0;
    for (const [key] of view.entriesFrom(data.start)) {
      if (compareBytes(key, data.end) >= 0) {
        break;
      }
      const userKey = userKeyOf(key);
      while (at < live.length && !isBeforeEnd(userKey, (live[at] as Region).range.end)) {
        at++;
      }
      const owner = live[at];
      const isOwned = owner !== undefined && rangeContains(owner.range, userKey);
      if (!isOwned && !given.some((range) => rangeContains(range, userKey))) {
        violated(
          'I9',
          `the disk of store ${store} holds ${fromUtf8(userKey)}, which lies in none of its regions and is not noted for cleaning`,
        );
      }
    }
  }

  #bury(machine: ObservedMachine, { region }: RegionLocalState, id: number): void {
    const key = `${machine.id}/${id}`;
    const own = region.peers.find((p) => p.storeId === machine.id);
    // A descriptor at the time of removal may still list the peer that was removed.
    if (own !== undefined && (this.#graves.get(key)?.peerId ?? 0) < own.id) {
      this.#graves.set(key, { peerId: own.id, incarnation: machine.incarnation, isBuried: false });
    }
    const grave = this.#graves.get(key);
    if (grave !== undefined && !grave.isBuried && machine.store?.hasPeer(brandRegionId(id)) === false) {
      grave.isBuried = true;
    }
  }

  /** G7, I15: a source that CommitMerge took in here had applied its PrepareMerge. */
  #checkMergedAway(machine: ObservedMachine, view: DiskView, { mergeState }: RegionLocalState, id: number): void {
    const applied = applyStateOn(view, id)?.appliedIndex;
    if (mergeState !== undefined && applied !== undefined && applied < mergeState.commit) {
      violated(
        'G7',
        `region ${id} on store ${machine.id} was taken in at ${mergeState.commit} and had applied ${applied}`,
      );
    }
  }

  /** I16: while a source is merging, what some replica may lack stays readable. */
  #checkGapReadable(machine: ObservedMachine, view: DiskView, { mergeState }: RegionLocalState, id: number): void {
    const truncated = applyStateOn(view, id)?.truncatedIndex ?? 0;
    if (mergeState === undefined || truncated >= mergeState.minIndex) {
      violated(
        'I16',
        `region ${id} on store ${machine.id} merges with entries from ${mergeState?.minIndex ?? 'nowhere'} on; its log is compacted up to ${truncated}`,
      );
    }
  }

  /** R2: an applied entry is the committed one. R6: nothing is applied that is not in the log. */
  #checkLog(machine: ObservedMachine, view: DiskView, region: number): void {
    const state = applyStateOn(view, region);
    if (state === undefined) {
      return;
    }
    const { appliedIndex, truncatedIndex } = state;
    const last = raftStateOn(view, region)?.lastIndex;
    // A child of a split gets its apply state with the split and its Raft state in the next round.
    if (last !== undefined && last < appliedIndex && appliedIndex > INIT_LOG_INDEX) {
      violated('R6', `region ${region} on store ${machine.id} has applied ${appliedIndex}, its log ends at ${last}`);
    }
    const key = `${machine.id}/${region}/${machine.incarnation}`;
    const from = Math.max(this.#compared.get(key) ?? 0, truncatedIndex) + 1;
    const id = brandRegionId(region);
    for (let i = from; i <= appliedIndex; i++) {
      const bytes = view.get(raftLogKey(id, logIndex(i)));
      if (bytes !== undefined && this.#log.compare(region, i, bytes, `store ${machine.id}`)) {
        this.#tally.add('entries');
      }
    }
    this.#compared.set(key, Math.max(appliedIndex, from - 1));
  }

  /** R7, S1, I11: a replica has the data and the descriptor that belong to its applied index. */
  #checkData(store: number, view: DiskView, region: Region, byPosition: Map<string, Digested>): void {
    const index = applyStateOn(view, region.id)?.appliedIndex;
    if (index === undefined || isDeletingRange(view.get(raftLogKey(region.id, logIndex(index + 1))))) {
      return;
    }
    const digest = new RowDigest();
    const { start, end } = dataRange(region.range);
    for (const [key, value] of view.entriesFrom(start)) {
      if (compareBytes(key, end) >= 0) {
        break;
      }
      digest.add(key, value);
    }
    const descriptor = formatRegion(region);
    const expected = this.#model.expected(region.id, index);
    if (expected !== undefined) {
      this.#tally.add('model');
      if (expected.descriptor !== descriptor || expected.digest !== digest.text) {
        violated(
          'R7',
          `store ${store} holds ${descriptor} with ${digest.text} at index ${index}; the log makes it ${expected.descriptor} with ${expected.digest}`,
        );
      }
    }
    const text = `${descriptor} ${digest.text}`;
    const position = `${region.id}/${index}`;
    const other = byPosition.get(position);
    if (other !== undefined) {
      this.#tally.add('replicas');
      if (other.text !== text) {
        violated('R7', `replicas differ at index ${index}: store ${other.store} ${other.text}, store ${store} ${text}`);
      }
    }
    byPosition.set(position, { store, text });
  }
}
