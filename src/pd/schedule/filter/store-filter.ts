/**
 * Whether a store may take part in a change (tikv/pd pkg/schedule/filter). Each function answers with a refusal that
 * names the store, or undefined.
 */
import type { StoreId } from '../../../base/ids.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import { isLowOnSpace, livenessOf, settingsOf } from '../../cluster/store-info.ts';
import { type Refusal, refuse, storeNotFound } from '../verdict.ts';

/** Present, not on its way out, and heard from recently. Holds for everything a store is asked to do. */
export function checkUsable(cluster: Cluster, id: StoreId, nowMs: number): Refusal | undefined {
  const info = cluster.store(id);
  if (info === undefined) {
    return storeNotFound(id);
  }
  const details = { store_id: id };
  switch (info.record.store.state) {
    case 'tombstone':
      return refuse('StoreRemoved', `store ${id} was removed`, 'choose another store', details);
    case 'offline':
      return refuse(
        'StoreRemoving',
        `store ${id} is being emptied`,
        'choose another store or take the removal back',
        details,
      );
    case 'up':
      break;
  }
  const liveness = livenessOf(info, cluster.config, nowMs);
  return liveness === 'up'
    ? undefined
    : refuse(
        'StoreDisconnected',
        `store ${id} is ${liveness}`,
        `start store ${id} again or choose another one`,
        details,
      );
}

/** Temporary conditions that only automatic changes respect. */
export function checkRoom(cluster: Cluster, id: StoreId): Refusal | undefined {
  const info = cluster.store(id);
  const stats = info?.stats;
  if (info === undefined || stats === undefined) {
    return refuse('StoreBusy', `store ${id} has not reported its load yet`, 'wait for its next heartbeat', {
      store_id: id,
    });
  }
  if (isLowOnSpace(info, cluster.config)) {
    return refuse('StoreLowOnSpace', `store ${id} is low on space`, 'add a store or free space', { store_id: id });
  }
  const snapshots = Math.max(stats.sendingSnapshots, stats.receivingSnapshots, stats.applyingSnapshots);
  if (stats.isBusy || stats.isStopping || snapshots > cluster.config.storeSnapshotsMax) {
    return refuse('StoreBusy', `store ${id} is busy`, 'wait until it has less to do', { store_id: id });
  }
  if (cluster.tree.ofStore(id).pending.size > cluster.config.storePendingPeersMax) {
    return refuse('StoreBusy', `store ${id} has many peers that are catching up`, 'wait until they caught up', {
      store_id: id,
    });
  }
  return undefined;
}

/** A store to add a replica to. */
export const checkPeerTarget = (cluster: Cluster, id: StoreId, nowMs: number): Refusal | undefined =>
  checkUsable(cluster, id, nowMs);

/** A store to move a leader to. */
export function checkLeaderTarget(cluster: Cluster, id: StoreId, nowMs: number): Refusal | undefined {
  const refusal = checkUsable(cluster, id, nowMs);
  if (refusal !== undefined) {
    return refusal;
  }
  const info = cluster.store(id);
  if (info?.stats?.isStopping === true) {
    return refuse('StoreBusy', `store ${id} is stopping`, 'choose another store', { store_id: id });
  }
  return settingsOf(info).leadersEvicted
    ? refuse('LeadersEvicted', `store ${id} is set to lead nothing`, 'choose another store, or let it lead again', {
        store_id: id,
      })
    : undefined;
}
