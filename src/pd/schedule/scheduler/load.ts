/** Load of the stores as it will be when the running operators are done. */
import type { StoreId } from '../../../base/ids.ts';
import { MIB } from '../../../base/units.ts';
import { settingsOf } from '../../cluster/store-info.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import type { OperatorController } from '../operator/controller.ts';
import type { Operator } from '../operator/operator.ts';

export interface StoreLoad {
  readonly storeId: StoreId;
  leaders: number;
  regions: number;
  sizeBytes: number;
  readonly leaderWeight: number;
  readonly regionWeight: number;
}

/** Leaders relative to the store's share. */
export const leaderScore = (load: StoreLoad): number => load.leaders / load.leaderWeight;

/** Every replica costs something, however small its data: a store full of empty regions is loaded, too. */
export const REPLICA_COST_BYTES: number = 1 * MIB;

/** Data relative to the store's share, bytes. */
export const regionScore = (load: StoreLoad): number =>
  (load.sizeBytes + load.regions * REPLICA_COST_BYTES) / load.regionWeight;

export function projectedLoads(cluster: Cluster, controller: OperatorController): StoreLoad[] {
  const loads = new Map<StoreId, StoreLoad>();
  for (const info of cluster.stores()) {
    const { record } = info;
    const { leaderWeight, regionWeight } = settingsOf(info);
    const sets = cluster.tree.ofStore(record.store.id);
    loads.set(record.store.id, {
      storeId: record.store.id,
      leaders: sets.leaders.size,
      regions: sets.peers.size,
      sizeBytes: cluster.tree.sizeOfStoreBytes(record.store.id),
      leaderWeight,
      regionWeight,
    });
  }
  for (const operator of controller.running()) {
    addInfluence(operator, cluster, loads);
  }
  return [...loads.values()];
}

/** Steps that are done already show in the map and count no more. */
function addInfluence(operator: Operator, cluster: Cluster, loads: ReadonlyMap<StoreId, StoreLoad>): void {
  let leader = cluster.tree.get(operator.regionId)?.leader?.storeId;
  for (const step of operator.steps.slice(operator.currentIndex)) {
    if (step.type === 'add-learner' || step.type === 'remove-peer') {
      const load = loads.get(step.storeId);
      if (load !== undefined) {
        const sign = step.type === 'add-learner' ? 1 : -1;
        load.regions += sign;
        load.sizeBytes += sign * operator.sizeBytes;
      }
    } else if (step.type === 'transfer-leader') {
      const [from, to] = [leader === undefined ? undefined : loads.get(leader), loads.get(step.toStore)];
      if (from !== undefined) {
        from.leaders--;
      }
      if (to !== undefined) {
        to.leaders++;
      }
      leader = step.toStore;
    }
  }
}
