/**
 * What becomes of a store's record when the store announces itself, when an administrator wants it emptied, gone or
 * back, and when its settings change; and what keeps it from going. Only plans: nothing takes effect here.
 */
import type { StoreId } from '../base/ids.ts';
import type { Clock } from '../env/clock.ts';
import type { Store } from '../meta/region.ts';
import type { Cluster } from './cluster/cluster.ts';
import {
  DEFAULT_STORE_SETTINGS,
  type StoreInfo,
  type StoreRecord,
  changedSettings,
  isUp,
  labelsEqual,
  livenessOf,
  mergeLabels,
  settingsOf,
} from './cluster/store-info.ts';
import { type StoreSettingsChange, changedRecord, problemOfSettings, sameRecord } from './cluster/store-settings.ts';
import { POD_LABEL, podNameOf } from './resource/facts.ts';
import type { Coordinator } from './schedule/coordinator.ts';
import { checkLeaderTarget } from './schedule/filter/store-filter.ts';
import type { OperatorController } from './schedule/operator/controller.ts';
import { type Refusal, type Result, ok, refuse, refused, storeNotFound, versionConflict } from './schedule/verdict.ts';

/** Where an administrator wants a store. */
export type StoreTarget = 'up' | 'removing' | 'removed';

/** Blockers listed per store at most. */
const BLOCKERS_MAX = 16;

export interface StorePlannerView {
  readonly cluster: Cluster;
  readonly clock: Pick<Clock, 'monoMs' | 'wallMs'>;
  readonly coordinator: Coordinator;
  readonly controller: OperatorController;
}

export class StorePlanner {
  readonly #view: StorePlannerView;

  constructor(view: StorePlannerView) {
    this.#view = view;
  }

  /**
   * The record to write for a store that announces itself, or why it may not join.
   * @param starts how often the store has started, this time included; undefined if it does not say
   */
  planPutStore(store: Store, starts: number | undefined): Result<StoreRecord> {
    if (store.id === 0) {
      return refused(refuse('InvalidArgument', 'a store id must not be 0', 'ask for an id first'));
    }
    const known = this.#view.cluster.store(store.id)?.record;
    if (known?.store.state === 'tombstone') {
      return refused(storeRemoved(store.id));
    }
    if (known !== undefined && starts !== undefined && isRolledBack(known, store, starts)) {
      return refused(storeRolledBack(store.id, starts, known.starts ?? 0));
    }
    for (const other of this.#view.cluster.stores()) {
      const { record } = other;
      const lives = record.store.state !== 'tombstone' && !record.physicallyDestroyed;
      if (lives && record.store.id !== store.id && record.store.address === store.address) {
        return refused(
          refuse(
            'DuplicateAddress',
            `store ${record.store.id} already has the address ${store.address}`,
            `if its data is gone, remove store ${record.store.id} as physically destroyed first; else use another address`,
            { store_id: record.store.id },
          ),
        );
      }
      const pod = podNameOf(store.labels);
      if (lives && record.store.id !== store.id && pod !== undefined && podNameOf(record.store.labels) === pod) {
        return refused(
          refuse(
            'DuplicatePod',
            `store ${record.store.id} already has the label ${POD_LABEL}=${pod}`,
            'documents name stores by this label: give every store another one',
            { store_id: record.store.id },
          ),
        );
      }
    }
    const latestStarts = starts ?? known?.starts;
    const labels = known === undefined ? store.labels : mergeLabels(known.store.labels, store.labels);
    const settings =
      known === undefined || labelsEqual(known.store.labels, labels) ? known?.settings : changedSettings(known, {});
    return ok({
      store: { ...store, state: known?.store.state ?? 'up', labels },
      physicallyDestroyed: known?.physicallyDestroyed ?? false,
      lastHeartbeatWallMs: known?.lastHeartbeatWallMs ?? 0,
      ...(latestStarts === undefined ? {} : { starts: latestStarts }),
      ...(settings === undefined ? {} : { settings }),
    });
  }

  /** The record to write so that a store goes where an administrator wants it; undefined if it is there. */
  planStoreState(
    id: StoreId,
    target: StoreTarget,
    physicallyDestroyed: boolean,
    expectVersion?: number,
  ): Result<StoreRecord | undefined> {
    const info = this.#view.cluster.store(id);
    if (info === undefined) {
      return refused(storeNotFound(id));
    }
    const conflict = storeConflict(info, expectVersion);
    if (conflict !== undefined) {
      return refused(conflict);
    }
    switch (target) {
      case 'up':
        return this.#planUp(info);
      case 'removing':
        return this.#planRemoving(info, physicallyDestroyed);
      case 'removed':
        return this.#planRemoved(info, physicallyDestroyed);
    }
  }

  #planUp({ record }: StoreInfo): Result<StoreRecord | undefined> {
    const { id, state } = record.store;
    if (state === 'up') {
      return ok(undefined);
    }
    if (state === 'tombstone') {
      return refused(storeRemoved(id));
    }
    if (record.physicallyDestroyed) {
      return refused(
        refuse(
          'PhysicallyDestroyed',
          `store ${id} is marked as destroyed`,
          'start a new store with an empty directory',
          {
            store_id: id,
          },
        ),
      );
    }
    return ok({
      ...record,
      store: { ...record.store, state: 'up' },
      settings: changedSettings(record, { removal: undefined }),
    });
  }

  #planRemoving({ record }: StoreInfo, physicallyDestroyed: boolean): Result<StoreRecord | undefined> {
    const { id, state } = record.store;
    if (state === 'tombstone') {
      return refused(storeRemoved(id));
    }
    if (state === 'offline' && (record.physicallyDestroyed || !physicallyDestroyed)) {
      return ok(undefined);
    }
    const staying = this.#view.cluster.stores().filter((other) => isUp(other) && other.record.store.id !== id).length;
    const { maxReplicas } = this.#view.cluster.config;
    if (!physicallyDestroyed && staying < maxReplicas) {
      return refused(
        refuse(
          'TooFewStores',
          `without store ${id} only ${staying} stores are left for ${maxReplicas} replicas`,
          'add a store first',
          { store_id: id, stores_left: staying, max_replicas: maxReplicas },
        ),
      );
    }
    const settings = record.settings ?? DEFAULT_STORE_SETTINGS;
    const removal = settings.removal ?? {
      sinceWallMs: Math.floor(this.#view.clock.wallMs()),
      peers: this.#view.cluster.tree.ofStore(id).peers.size,
      sizeBytes: this.#view.cluster.tree.sizeOfStoreBytes(id),
    };
    return ok({
      ...record,
      store: { ...record.store, state: 'offline' },
      physicallyDestroyed,
      settings: changedSettings(record, { removal }),
    });
  }

  /** The record to write for changed settings or labels of a store; undefined if nothing changes. */
  planStoreSettings(id: StoreId, change: StoreSettingsChange, expectVersion?: number): Result<StoreRecord | undefined> {
    const info = this.#view.cluster.store(id);
    if (info === undefined) {
      return refused(storeNotFound(id));
    }
    const conflict = storeConflict(info, expectVersion);
    if (conflict !== undefined) {
      return refused(conflict);
    }
    if (info.record.store.state === 'tombstone') {
      return refused(storeRemoved(id));
    }
    const problem = problemOfSettings(change);
    if (problem !== undefined) {
      return refused(problem);
    }
    const record = changedRecord(info.record, change);
    if (
      record.settings?.leadersEvicted === true &&
      this.#view.cluster.schedulers.record('grant-leader').stores.includes(id)
    ) {
      return refused(
        refuse(
          'LeadersGranted',
          `grant-leader brings leaders to store ${id}`,
          `end that first: braid ctl scheduler remove grant-leader --store ${id}`,
          { store_id: id },
        ),
      );
    }
    if (record.settings?.leadersEvicted === true && settingsOf(info).leadersEvicted === false) {
      const nowMs = this.#view.clock.monoMs();
      const others = this.#view.cluster
        .stores()
        .filter(
          (other) =>
            other.record.store.id !== id &&
            checkLeaderTarget(this.#view.cluster, other.record.store.id, nowMs) === undefined,
        );
      if (others.length === 0) {
        return refused(
          refuse(
            'TooFewStores',
            `no other store could lead the regions of store ${id}`,
            'let another store lead first',
            {
              store_id: id,
            },
          ),
        );
      }
    }
    return ok(sameRecord(record, info.record) ? undefined : record);
  }

  #planRemoved(info: StoreInfo, physicallyDestroyed: boolean): Result<StoreRecord | undefined> {
    const { id, state } = info.record.store;
    if (state === 'tombstone') {
      return ok(undefined);
    }
    if (livenessOf(info, this.#view.cluster.config, this.#view.clock.monoMs()) !== 'down') {
      return refused(
        refuse('StoreNotDown', `store ${id} still reports`, 'let it be emptied: set it to removing', { store_id: id }),
      );
    }
    const peers = this.#view.cluster.tree.ofStore(id).peers.size;
    if (peers > 0) {
      return refused(
        refuse('PeersLeft', `${peers} regions still have a peer on store ${id}`, 'set it to removing and wait', {
          store_id: id,
          peers,
        }),
      );
    }
    return ok({ ...removedRecord(info.record), physicallyDestroyed });
  }

  /** Records of removing stores that are empty and may be marked as removed. */
  planRemovals(): StoreRecord[] {
    if (!this.#view.coordinator.warmup().done) {
      return [];
    }
    return this.#view.cluster
      .stores()
      .filter(
        ({ record }) =>
          record.store.state === 'offline' && this.#view.cluster.tree.ofStore(record.store.id).peers.size === 0,
      )
      .map(({ record }) => removedRecord(record));
  }

  /** What keeps a removing store from being removed, most common causes first. */
  removalBlockers(id: StoreId): Refusal[] {
    const info = this.#view.cluster.store(id);
    if (info === undefined || info.record.store.state !== 'offline') {
      return [];
    }
    const blockers: Refusal[] = [];
    for (const region of [...this.#view.cluster.tree.ofStore(id).peers].slice(0, BLOCKERS_MAX)) {
      const running = this.#view.controller.runningOn(region);
      const reason = this.#view.coordinator.blockedReason(region);
      const leader = this.#view.cluster.tree.get(region)?.leader;
      if (running !== undefined) {
        blockers.push(
          refuse('PeersLeft', `operator ${running.id} (${running.brief}) is running on region ${region}`, 'wait', {
            region_id: region,
            operator_id: running.id,
          }),
        );
      } else if (reason !== undefined) {
        blockers.push(reason);
      } else if (leader === undefined) {
        blockers.push(
          refuse('NoLeader', `region ${region} has no known leader`, 'check its stores', { region_id: region }),
        );
      } else {
        blockers.push(refuse('PeersLeft', `region ${region} has a peer on store ${id}`, 'wait', { region_id: region }));
      }
    }
    return blockers;
  }
}

const removedRecord = (record: StoreRecord): StoreRecord => ({
  ...record,
  store: { ...record.store, state: 'tombstone' },
  settings: changedSettings(record, {}),
});

const storeConflict = (info: StoreInfo, expected: number | undefined): Refusal | undefined => {
  const { version } = settingsOf(info);
  const { id } = info.record.store;
  return expected === undefined || expected === version
    ? undefined
    : versionConflict(`the settings record of store ${id}`, version, expected, { store_id: id });
};

/**
 * A start has a larger count than all before it, unless the same process repeats its announcement. A disk that was
 * put back to an earlier state counts from there again.
 */
const isRolledBack = (known: StoreRecord, store: Store, starts: number): boolean =>
  known.starts !== undefined &&
  (starts < known.starts || (starts === known.starts && store.startTimestamp !== known.store.startTimestamp));

const storeRolledBack = (id: StoreId, starts: number, known: number): Refusal =>
  refuse(
    'StoreRolledBack',
    `store ${id} announces its start number ${starts}, but has started ${known} times: its disk shows an older state`,
    'keep its directory aside, remove the store and start an empty one',
    { store_id: id, starts, known_starts: known },
  );

export const storeRemoved = (id: StoreId): Refusal =>
  refuse('StoreRemoved', `store ${id} was removed from the cluster`, 'start a new store with an empty directory', {
    store_id: id,
  });
