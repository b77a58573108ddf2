/**
 * What disks may lose, and what is done about it. Chance must not destroy data that the design does not promise to
 * keep: at most a minority of the voters of any region may be on damaged disks at a time, and the next disk is damaged
 * only once the checker itself (nobody's report) sees every region free of the lost copies. Runs over budget damage
 * whatever they like; there the verdict is "refuse or stay unavailable, never lie".
 *
 * The atlas also plays the operator and the placement service of a cluster with lost stores: a damaged store is
 * retired with its id, an empty one joins under a new id, and regions are replicated to it.
 */
import { peerId } from '../../../src/base/ids.ts';
import { CorruptionError, EngineOpenError, EnginePoisonedError } from '../../../src/env/engine.ts';
import { findPeerOnStore, isInJointState, type Peer, type Region } from '../../../src/meta/region.ts';
import { StoreRolledBackError } from '../../../src/raftstore/store/bootstrap.ts';
import type { NemesisHost } from './host.ts';

/** How often repairs go one step. */
const REPAIR_MS = 150;
/** From the loss of a store to the arrival of an empty one. */
const REPLACE_MS = 100;
/** Voters a region must have again before the next loss. */
const VOTERS_WANTED = 3;

export class FaultAtlas {
  readonly #host: NemesisHost;
  readonly #isOverBudget: boolean;
  /** Stores whose copies may be lost, retired ones included, until every region does without them. */
  readonly #damaged: Set<number> = new Set();
  #isTicking = false;

  constructor(host: NemesisHost, isOverBudget: boolean) {
    this.#host = host;
    this.#isOverBudget = isOverBudget;
    const { cluster } = host;
    cluster.mayRefuse = (store, error) => {
      if (error instanceof EnginePoisonedError && cluster.mayStop.has(store)) {
        // An injected fault struck while the store was starting; whoever watches processes starts it again.
        cluster.endFailedStart(store);
        cluster.scheduler.at(REPLACE_MS, () => host.reboot(store), { node: 0, kind: 'reboot' });
        return true;
      }
      const isRefusal =
        error instanceof EngineOpenError || error instanceof StoreRolledBackError || error instanceof CorruptionError;
      if (!isRefusal || !this.#damaged.has(store)) {
        return false;
      }
      host.count(error instanceof StoreRolledBackError ? 'refused-rolled-back' : 'refused-damaged');
      this.#replaceLater(store);
      return true;
    };
    cluster.onStop = (store, cause) => {
      if (cause instanceof CorruptionError && this.#damaged.has(store)) {
        host.count('stopped-by-damage');
        this.#replaceLater(store);
      }
    };
  }

  /** Whether copies are lost that were not replaced yet. Membership is left to repairs meanwhile. */
  get isDegraded(): boolean {
    return this.#damaged.size > 0 && !this.#isOverBudget;
  }

  /** Takes a store into the books if its disk may be damaged now; false if the budget does not allow it. */
  claim(store: number): boolean {
    if (!this.#isOverBudget && !this.#fits(store)) {
      this.#host.count('over-budget');
      return false;
    }
    this.#damaged.add(store);
    this.#host.cluster.mayStop.add(store);
    this.#startTicking();
    return true;
  }

  /** The damage did not destroy anything after all. */
  release(store: number): void {
    this.#damaged.delete(store);
  }

  isDamaged(store: number): boolean {
    return this.#damaged.has(store);
  }

  /** The store is gone for ever; an empty one takes its place. */
  replace(store: number): void {
    const { cluster } = this.#host;
    if ([...cluster.machines.keys()].some((id) => id === store)) {
      cluster.retire(store);
      const fresh = cluster.addStore();
      this.#host.note(fresh, `store ${fresh} joins with an empty disk instead of store ${store}`, 0);
    }
  }

  /** No new faults from now on: what is damaged is replaced. */
  finish(): void {
    for (const store of this.#damaged) {
      this.replace(store);
    }
  }

  /** Whether every region does without the damaged stores. */
  get isRepaired(): boolean {
    const { cluster } = this.#host;
    for (const { store } of cluster.machines.values()) {
      // A store that is down may know a region that nobody else knows.
      if (store === undefined) {
        return false;
      }
      for (const { region } of store.status()) {
        const voters = region.peers.filter((p) => p.role === 'voter');
        if (
          isInJointState(region) ||
          region.peers.some((p) => this.#damaged.has(p.storeId)) ||
          (region.peers.length > 0 && voters.length < VOTERS_WANTED)
        ) {
          return false;
        }
      }
    }
    return this.#allRetired();
  }

  /** Whether every region keeps a majority of undamaged voters without this store, whatever changes are under way. */
  #fits(store: number): boolean {
    const { cluster } = this.#host;
    if (this.#damaged.has(store) || this.#host.openMembershipChanges() > 0) {
      return false;
    }
    for (const machine of cluster.machines.values()) {
      // A store that is down knows descriptors that nobody can read now: wait for it.
      if (machine.store === undefined) {
        return false;
      }
      for (const { region } of machine.store.status()) {
        const voters = region.peers.filter((p) => p.role === 'voter');
        // A learner may be a voter in a moment.
        const lost = region.peers.filter((p) => p.storeId === store || this.#damaged.has(p.storeId)).length;
        if (isInJointState(region) || (region.peers.length > 0 && lost > Math.floor((voters.length - 1) / 2))) {
          return false;
        }
      }
    }
    return true;
  }

  #replaceLater(store: number): void {
    this.#host.cluster.scheduler.at(REPLACE_MS, () => this.replace(store), { node: 0, kind: 'replace-store' });
  }

  #startTicking(): void {
    if (!this.#isTicking) {
      this.#isTicking = true;
      this.#tick();
    }
  }

  #tick(): void {
    if (this.#damaged.size === 0 || this.isRepaired) {
      if (this.#damaged.size > 0) {
        this.#host.count('re-replicated');
      }
      this.#damaged.clear();
      this.#isTicking = false;
      return;
    }
    for (const region of this.#host.leaders()) {
      this.#repairStep(region);
    }
    this.#host.cluster.scheduler.at(REPAIR_MS, () => this.#tick(), { node: 0, kind: 'repair' });
  }

  #allRetired(): boolean {
    const gone = new Set<number>(this.#host.cluster.retired.keys());
    return [...this.#damaged].every((store) => gone.has(store));
  }

  /** One step towards replacing the peers of a region that are gone. */
  #repairStep(region: Region): void {
    const { cluster } = this.#host;
    const isGone = (peer: Peer): boolean => !cluster.machines.has(peer.storeId) || this.#damaged.has(peer.storeId);
    const gone = region.peers.find(isGone);
    const voters = region.peers.filter((p) => p.role === 'voter');
    const live = voters.filter((p) => !isGone(p));
    if (isInJointState(region)) {
      this.#change(region, []);
    } else if (gone?.role === 'learner' || (gone !== undefined && live.length >= VOTERS_WANTED)) {
      this.#change(region, [{ type: 'remove', peer: gone }]);
    } else if (gone !== undefined || live.length < VOTERS_WANTED) {
      const learner = region.peers.find((p) => p.role === 'learner');
      const free = [...cluster.machines.keys()].find(
        (id) => cluster.isUp(id) && !this.#damaged.has(id) && findPeerOnStore(region, id) === undefined,
      );
      if (learner !== undefined) {
        this.#change(region, [{ type: 'add-voter', peer: { ...learner, role: 'voter' } }]);
      } else if (free !== undefined) {
        const peer: Peer = { id: peerId(cluster.nextId()), storeId: free, role: 'learner' };
        this.#change(region, [{ type: 'add-learner', peer }]);
      }
    }
  }

  #change(
    region: Region,
    changes: readonly { readonly type: 'add-voter' | 'add-learner' | 'remove'; readonly peer: Peer }[],
  ): void {
    this.#host.fire(region.id, { type: 'change-peer', changes }, 'repair');
  }
}
