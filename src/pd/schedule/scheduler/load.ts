/** Load of the stores as it will be when the running operators are done. */
import type { StoreId } from '../../../base/ids.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import type { OperatorController } from '../operator/controller.ts';
import type { Operator } from '../operator/operator.ts';

export interface StoreLoad {
  readonly storeId: StoreId;
  leaders: number;
  regions: number;
  sizeBytes: number;
}

export function projectedLoads(cluster: Cluster, controller: OperatorController): StoreLoad[] {
  const loads = new Map<StoreId, StoreLoad>();
  for (const { record } of cluster.stores()) {
    const sets = cluster.tree.ofStore(record.store.id);
    loads.set(record.store.id, {
      storeId: record.store.id,
      leaders: sets.leaders.size,
      regions: sets.peers.size,
      sizeBytes: cluster.tree.sizeOfStoreBytes(record.store.id),
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
