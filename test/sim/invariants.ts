/**
 * What must hold at every moment, checked from outside while a history runs. The checker reads stores through their
 * status and their disks, and keeps its own memory across crashes. Names follow the reference (simulation-and-faults
 * 2.11, region-merge 16).
 */
import { compareBytes } from '../../src/base/bytes.ts';
import { logIndex, regionId as brandRegionId } from '../../src/base/ids.ts';
import { compareEnds, rangesOverlap } from '../../src/base/key-range.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import {
  decodeApplyState,
  decodeEntry,
  decodeRaftCommand,
  decodeRaftLocalState,
  decodeRegionLocalState,
} from '../../src/codec/raft-records.ts';
import {
  applyStateKey,
  dataRange,
  raftLogKey,
  raftStateKey,
  regionIdOfStateKey,
  regionStateKey,
  regionStateRange,
} from '../../src/engine/index.ts';
import type { MemoryDatabase } from '../../src/engine/memory/crash-model.ts';
import { formatRegion, type Region } from '../../src/meta/region.ts';
import type { RaftStore, RegionStatus } from '../../src/raftstore/store/raft-store.ts';
import { MsgType } from '../../src/raft/types.ts';

export class InvariantError extends Error {
  readonly invariant: string;

  constructor(invariant: string, text: string) {
    super(`${invariant}: ${text}`);
    this.invariant = invariant;
  }
}

/** How the checker sees one machine. */
export interface ObservedMachine {
  readonly id: number;
  readonly store: RaftStore | undefined;
  readonly incarnation: number;
  /** The store's database as its readers see it; undefined before the first start. */
  readonly database: MemoryDatabase | undefined;
}

interface SeenPeer {
  incarnation: number;
  peerId: number;
  term: number;
  commit: number;
  applied: number;
  version: number;
  confVer: number;
}

/** What a replica let others believe; it must hold whatever happens to it. */
interface Promise_ {
  term: number;
  /** Whom it voted for in `term`; 0 if it did not. */
  vote: number;
  /** Highest index acknowledged in `ackTerm`. */
  ackIndex: number;
  ackTerm: number;
}

/** Expensive checks run once in so many events. */
const DISK_CHECK_EVENTS = 400;
/** A store's status is read after so many of its rounds. */
const STATUS_ROUNDS = 4;

function hashBytes(bytes: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < bytes.length; i++) {
    hash = Math.imul(hash ^ (bytes[i] as number), 0x01000193);
  }
  return hash >>> 0;
}

function isDeletingRange(entry: Uint8Array | undefined): boolean {
  const data = entry === undefined ? undefined : decodeEntry(entry).data;
  if (data === undefined || data.length === 0) {
    return false;
  }
  try {
    const command = decodeRaftCommand(data);
    return command.type === 'write' && command.ops.some((op) => op.type === 'delete-range');
  } catch {
    // A membership change is wrapped in the core's own form.
    return false;
  }
}

export class Invariants {
  readonly #machines: () => readonly ObservedMachine[];
  readonly #machine: (id: number) => ObservedMachine | undefined;
  readonly #leaders: Map<string, number> = new Map();
  readonly #descriptors: Map<string, string> = new Map();
  readonly #seen: Map<string, SeenPeer> = new Map();
  /** `region` → hash of the entry at each index, as first seen applied anywhere. */
  readonly #committed: Map<number, Map<number, number>> = new Map();
  /** `store/region/incarnation` → last index compared. */
  readonly #compared: Map<string, number> = new Map();
  readonly #promises: Map<string, Promise_> = new Map();
  readonly #tombstones: Map<string, { readonly peerId: number; readonly incarnation: number; isBuried: boolean }> =
    new Map();
  #rounds = 0;
  #events = 0;
  /** Checks made, by name; a run that checked nothing proves nothing. */
  readonly counts: Record<string, number> = {};

  constructor(machines: () => readonly ObservedMachine[], machine: (id: number) => ObservedMachine | undefined) {
    this.#machines = machines;
    this.#machine = machine;
  }

  #count(name: string): void {
    this.counts[name] = (this.counts[name] ?? 0) + 1;
  }

  afterEvent(node: number, kind: string): void {
    if (kind === 'store-round' && ++this.#rounds % STATUS_ROUNDS === 0) {
      const machine = this.#machine(node);
      if (machine?.store !== undefined) {
        this.#checkStatus(machine, machine.store);
      }
    }
    if (++this.#events % DISK_CHECK_EVENTS === 0) {
      this.checkDisks();
    }
  }

  // ------------------------------------------------------------------------------------------ memory

  #checkStatus(machine: ObservedMachine, store: RaftStore): void {
    const status = store.status();
    let last: Region | undefined;
    // I1, G3: no two live replicas of a store overlap. The store hands its regions out in key order.
    for (const region of store.regionsByKey()) {
      if (last !== undefined && rangesOverlap(last.range, region.range)) {
        throw new InvariantError('I1', `store ${machine.id} holds ${formatRegion(last)} and ${formatRegion(region)}`);
      }
      last = region;
    }
    for (const s of status) {
      this.#checkPeer(machine, s);
    }
    this.#count('status');
  }

  #checkPeer(machine: ObservedMachine, s: RegionStatus): void {
    const { region } = s;
    if (s.fence !== undefined) {
      throw new InvariantError(
        'I11',
        `the data of ${formatRegion(region)} on store ${machine.id} differ (${s.fence.reason})`,
      );
    }
    if (s.role === 'leader') {
      // R1: one leader per region and term.
      const key = `${region.id}/${s.term}`;
      const other = this.#leaders.get(key);
      if (other !== undefined && other !== s.peerId) {
        throw new InvariantError(
          'R1',
          `peers ${other} and ${s.peerId} both lead region ${region.id} in term ${s.term}`,
        );
      }
      this.#leaders.set(key, s.peerId);
    }
    if (region.peers.length > 0) {
      // G1: an epoch of a region has one meaning.
      const key = `${region.id}@${region.epoch.version}:${region.epoch.confVer}`;
      const text = formatRegion(region);
      const other = this.#descriptors.get(key);
      if (other !== undefined && other !== text) {
        throw new InvariantError('G1', `one epoch, two descriptors: ${other} and ${text}`);
      }
      this.#descriptors.set(key, text);
    }
    // R6: order of the log positions.
    if (s.appliedIndex > s.commitIndex || s.commitIndex > s.lastIndex || s.firstIndex > s.appliedIndex + 1) {
      if (s.state !== 'installing' && s.state !== 'uninitialized') {
        throw new InvariantError(
          'R6',
          `region ${region.id} on store ${machine.id}: first ${s.firstIndex}, applied ${s.appliedIndex}, commit ${s.commitIndex}, last ${s.lastIndex}`,
        );
      }
    }
    const key = `${machine.id}/${region.id}`;
    const dead = this.#tombstones.get(key);
    if (dead !== undefined && s.peerId <= dead.peerId && (dead.isBuried || dead.incarnation !== machine.incarnation)) {
      // G6, I4: what was removed stays removed. (The FSM of a replica outlives its record by a moment.)
      throw new InvariantError(
        'I4',
        `peer ${s.peerId} of region ${region.id} lives on store ${machine.id} after tombstone ${dead.peerId}`,
      );
    }
    const seen = this.#seen.get(key);
    if (
      seen === undefined ||
      seen.peerId !== s.peerId ||
      seen.incarnation !== machine.incarnation ||
      seen.applied === 0
    ) {
      // A replica without data promised nothing about commits: a split may replace it and start over.
      if (seen !== undefined && s.peerId < seen.peerId) {
        throw new InvariantError(
          'I4',
          `peer id of region ${region.id} on store ${machine.id} fell from ${seen.peerId} to ${s.peerId}`,
        );
      }
      if (
        seen !== undefined &&
        seen.peerId === s.peerId &&
        s.term < seen.term &&
        this.#promises.get(`${key}/${s.peerId}`)?.term === seen.term
      ) {
        throw new InvariantError(
          'R5',
          `region ${region.id} on store ${machine.id} forgot term ${seen.term}, has ${s.term}`,
        );
      }
      this.#seen.set(key, {
        incarnation: machine.incarnation,
        peerId: s.peerId,
        term: s.term,
        commit: s.commitIndex,
        applied: s.appliedIndex,
        version: region.epoch.version,
        confVer: region.epoch.confVer,
      });
      return;
    }
    // R5, I12: within a life nothing goes back.
    if (s.term < seen.term || s.commitIndex < seen.commit || s.appliedIndex < seen.applied) {
      throw new InvariantError(
        'R5',
        `region ${region.id} on store ${machine.id} went back: term ${seen.term} to ${s.term}, commit ${seen.commit} to ${s.commitIndex}, applied ${seen.applied} to ${s.appliedIndex}`,
      );
    }
    if (region.epoch.version < seen.version || region.epoch.confVer < seen.confVer) {
      throw new InvariantError(
        'I12',
        `the epoch of region ${region.id} on store ${machine.id} went back to ${formatRegion(region)}`,
      );
    }
    seen.term = s.term;
    seen.commit = s.commitIndex;
    seen.applied = s.appliedIndex;
    seen.version = region.epoch.version;
    seen.confVer = region.epoch.confVer;
  }

  // ------------------------------------------------------------------------------------------ promises

  onSend(message: PeerMessage, store: number): void {
    const { body } = message;
    if (body.type !== 'raft') {
      return;
    }
    const { message: raft } = body;
    const isVote = raft.type === MsgType.VoteResp && !raft.reject;
    const isAck = raft.type === MsgType.AppResp && !raft.reject;
    if (!isVote && !isAck) {
      return;
    }
    const key = `${store}/${message.regionId}/${message.from.id}`;
    const promise = this.#promises.get(key) ?? { term: 0, vote: 0, ackIndex: 0, ackTerm: 0 };
    if (isVote) {
      if (promise.term === raft.term && promise.vote !== 0 && promise.vote !== message.to.id) {
        throw new InvariantError(
          'P1',
          `peer ${message.from.id} of region ${message.regionId} voted for ${promise.vote} and ${message.to.id} in term ${raft.term}`,
        );
      }
      if (raft.term >= promise.term) {
        promise.vote = message.to.id;
      }
    }
    if (isAck && raft.term >= promise.ackTerm) {
      promise.ackIndex = raft.term === promise.ackTerm ? Math.max(promise.ackIndex, raft.index) : raft.index;
      promise.ackTerm = raft.term;
    }
    if (raft.term > promise.term) {
      promise.term = raft.term;
      promise.vote = isVote ? message.to.id : 0;
    }
    this.#promises.set(key, promise);
  }

  /** A store has restarted: its disk must still hold whatever it promised (P1). */
  onBoot(id: number): void {
    const machine = this.#machine(id);
    const view = machine?.database?.view;
    if (view === undefined) {
      return;
    }
    for (const [key, promise] of this.#promises) {
      const [store, region, peer] = key.split('/').map(Number) as [number, number, number];
      if (store !== id) {
        continue;
      }
      const stateBytes = view.get(regionStateKey(brandRegionId(region)));
      const raftBytes = view.get(raftStateKey(brandRegionId(region)));
      const state = stateBytes === undefined ? undefined : decodeRegionLocalState(stateBytes);
      if (state?.state === 'tombstone') {
        continue;
      }
      if (raftBytes === undefined) {
        if (promise.term > 0) {
          throw new InvariantError(
            'P1',
            `store ${id} forgot peer ${peer} of region ${region}, which answered in term ${promise.term}`,
          );
        }
        continue;
      }
      const raft = decodeRaftLocalState(raftBytes);
      if (raft.peerId !== peer) {
        continue;
      }
      this.#count('promises');
      if (raft.term < promise.term) {
        throw new InvariantError(
          'P1',
          `peer ${peer} of region ${region} on store ${id} answered in term ${promise.term}, now has ${raft.term}`,
        );
      }
      if (promise.vote !== 0 && raft.term === promise.term && raft.vote !== promise.vote) {
        throw new InvariantError(
          'P1',
          `peer ${peer} of region ${region} on store ${id} voted for ${promise.vote} in term ${promise.term}, now for ${raft.vote}`,
        );
      }
      if (raft.term === promise.ackTerm && raft.lastIndex < promise.ackIndex) {
        throw new InvariantError(
          'P1',
          `peer ${peer} of region ${region} on store ${id} acknowledged ${promise.ackIndex} in term ${promise.ackTerm}, holds ${raft.lastIndex}`,
        );
      }
    }
  }

  // ------------------------------------------------------------------------------------------ disks

  /** I2, R2, R7, I11 on all disks as they are now. */
  checkDisks(): void {
    const byPosition = new Map<string, { readonly store: number; readonly digest: string }>();
    for (const machine of this.#machines()) {
      if (machine.store !== undefined && machine.database !== undefined) {
        this.#checkDisk(machine, machine.database, byPosition);
      }
    }
    this.#count('disks');
  }

  #checkDisk(
    machine: ObservedMachine,
    database: MemoryDatabase,
    byPosition: Map<string, { readonly store: number; readonly digest: string }>,
  ): void {
    const { view } = database;
    const live: Region[] = [];
    const range = regionStateRange();
    for (const [key, bytes] of view.entriesFrom(range.start)) {
      if (compareBytes(key, range.end) >= 0) {
        break;
      }
      const id = regionIdOfStateKey(key);
      const state = decodeRegionLocalState(bytes);
      if (state.state === 'tombstone') {
        const own = state.region.peers.find((p) => p.storeId === machine.id);
        if (own !== undefined) {
          // A descriptor at the time of removal may still list the peer that was removed.
          const key = `${machine.id}/${id}`;
          if ((this.#tombstones.get(key)?.peerId ?? 0) < own.id) {
            this.#tombstones.set(key, { peerId: own.id, incarnation: machine.incarnation, isBuried: false });
          }
        }
        const grave = this.#tombstones.get(`${machine.id}/${id}`);
        if (grave !== undefined && !grave.isBuried && machine.store?.hasPeer(id) === false) {
          grave.isBuried = true;
        }
        continue;
      }
      if (state.region.peers.length === 0) {
        continue;
      }
      live.push(state.region);
      this.#checkLog(machine, database, id);
      if (state.state === 'normal') {
        const applyBytes = view.get(applyStateKey(id));
        if (applyBytes !== undefined) {
          const { appliedIndex } = decodeApplyState(applyBytes);
          if (isDeletingRange(view.get(raftLogKey(id, logIndex(appliedIndex + 1))))) {
            // Ranges are deleted page by page under an unchanged applied index.
            continue;
          }
          this.#compareReplica(machine.id, database, state.region, appliedIndex, byPosition);
        }
      }
    }
    live.sort((a, b) => compareBytes(a.range.start, b.range.start) || compareEnds(a.range.end, b.range.end));
    for (let i = 1; i < live.length; i++) {
      const [left, right] = [live[i - 1] as Region, live[i] as Region];
      if (rangesOverlap(left.range, right.range)) {
        throw new InvariantError(
          'I2',
          `the disk of store ${machine.id} holds ${formatRegion(left)} and ${formatRegion(right)}`,
        );
      }
    }
  }

  /** R2: an applied entry is the same on every replica, for ever. */
  #checkLog(machine: ObservedMachine, { view }: MemoryDatabase, region: number): void {
    const id = brandRegionId(region);
    const applyBytes = view.get(applyStateKey(id));
    if (applyBytes === undefined) {
      return;
    }
    const { appliedIndex, truncatedIndex } = decodeApplyState(applyBytes);
    const key = `${machine.id}/${region}/${machine.incarnation}`;
    const from = Math.max(this.#compared.get(key) ?? 0, truncatedIndex) + 1;
    const known = this.#committed.get(region) ?? new Map<number, number>();
    this.#committed.set(region, known);
    for (let i = from; i <= appliedIndex; i++) {
      const bytes = view.get(raftLogKey(id, logIndex(i)));
      if (bytes === undefined) {
        continue;
      }
      const hash = hashBytes(bytes);
      const other = known.get(i);
      if (other !== undefined && other !== hash) {
        throw new InvariantError(
          'R2',
          `entry ${i} of region ${region} differs on store ${machine.id} from what was applied elsewhere`,
        );
      }
      known.set(i, hash);
      this.#count('entries');
    }
    this.#compared.set(key, Math.max(appliedIndex, from - 1));
  }

  /** R7, I11: equal region and applied index means equal data and equal descriptor. */
  #compareReplica(
    store: number,
    { view }: MemoryDatabase,
    region: Region,
    appliedIndex: number,
    byPosition: Map<string, { readonly store: number; readonly digest: string }>,
  ): void {
    const { start, end } = dataRange(region.range);
    let a = 0x811c9dc5;
    let b = 0x9e3779b9;
    let rows = 0;
    for (const [key, value] of view.entriesFrom(start)) {
      if (compareBytes(key, end) >= 0) {
        break;
      }
      const k = hashBytes(key);
      const v = hashBytes(value);
      a = Math.imul(a ^ k, 0x01000193) ^ v;
      b = Math.imul((b << 7) ^ (b >>> 25) ^ v, 0x85ebca6b) ^ k;
      rows++;
    }
    const digest = `${formatRegion(region)} ${rows} rows ${a >>> 0} ${b >>> 0}`;
    const position = `${region.id}/${appliedIndex}`;
    const other = byPosition.get(position);
    if (other !== undefined && other.digest !== digest) {
      throw new InvariantError(
        'R7',
        `replicas differ at index ${appliedIndex}: store ${other.store} ${other.digest}, store ${store} ${digest}`,
      );
    }
    if (other !== undefined) {
      this.#count('replicas');
    }
    byPosition.set(position, { store, digest });
  }
}
