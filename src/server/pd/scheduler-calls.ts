/** Calls of braid.admin.v1.Admin about checkers and schedulers: their parameters, adding and removing them. */
import { type StoreId, isSafeId, storeId } from '../../base/ids.ts';
import { RpcError, RpcStatus } from '../../env/net.ts';
import type {
  ChangeSchedulerRequest,
  ChangeSchedulerResponse,
  RequestHeader,
  Scheduler as WireScheduler,
} from '../../gen/braid/admin/v1/admin.ts';
import { settingsOf } from '../../pd/cluster/store-info.ts';
import type { PdNode } from '../../pd/pd-node.ts';
import type { Placement } from '../../pd/placement.ts';
import { parametersOf } from '../../pd/schedule/parameters.ts';
import { type SchedulerChange, notAdded } from '../../pd/schedule/scheduler-plan.ts';
import { SchedulerSettings } from '../../pd/schedule/scheduler-settings.ts';
import { SWITCHES, type SwitchName, isSwitchName, switchInfo } from '../../pd/schedule/switches.ts';
import { type Refusal, refuse, unknownSwitch } from '../../pd/schedule/verdict.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { adminMethods } from '../../rpc/services.ts';
import { refusalToWire } from './admin-wire.ts';
import type { ServiceContext } from './context.ts';

const actorOf = (header: RequestHeader | undefined): string =>
  header === undefined || header.actor === '' ? 'an administrator' : header.actor;

export function addSchedulerCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  const { placement } = node;
  builder
    .unary(adminMethods.listSchedulers, (request, call) => {
      context.check(request.header, call);
      const { schedulers } = placement.cluster;
      return { schedulers: SWITCHES.map(({ name }) => schedulerToWire(placement, name, schedulers)) };
    })
    .unary(adminMethods.changeScheduler, async (request, call) => {
      context.check(request.header, call);
      const { name } = request;
      if (!isSwitchName(name)) {
        return refusedWith(unknownSwitch(name));
      }
      const change = changeFromWire(request.change);
      if (change === undefined) {
        return refusedWith(refuse('InvalidArgument', 'the request names no change', 'add, remove or configure it'));
      }
      return name === 'evict-leader' && change.type !== 'configure' && change.storeId !== undefined
        ? evict(node, request, change.type, change.storeId)
        : changeScheduler(node, name, request, change);
    });
}

async function changeScheduler(
  node: PdNode,
  name: SwitchName,
  { header, dryRun, expectVersion }: ChangeSchedulerRequest,
  change: SchedulerChange,
): Promise<ChangeSchedulerResponse> {
  const planned = await node.schedulers.change(name, change, {
    dryRun,
    expectVersion,
    actor: actorOf(header),
    reason: header?.reason ?? '',
  });
  if (planned.type === 'refused') {
    return refusedWith(planned.refusal);
  }
  const { record } = planned.value;
  const { schedulers } = node.placement.cluster;
  const view = new SchedulerSettings(schedulers.configured);
  view.load([record ?? schedulers.record(name)]);
  return {
    refusal: undefined,
    scheduler: schedulerToWire(node.placement, name, view),
    changed: record !== undefined,
  };
}

/** To be about a store is a setting of that store, and the version is that of the store's settings. */
async function evict(
  node: PdNode,
  { header, dryRun, expectVersion }: ChangeSchedulerRequest,
  type: 'add' | 'remove',
  id: StoreId,
): Promise<ChangeSchedulerResponse> {
  const { placement } = node;
  const { cluster } = placement;
  const absent = type === 'add' ? notAdded(cluster, 'evict-leader') : undefined;
  if (absent !== undefined) {
    return refusedWith(absent);
  }
  const change = { leadersEvicted: type === 'add' };
  const planned = placement.planStoreSettings(id, change, expectVersion);
  if (planned.type === 'refused') {
    return refusedWith(planned.refusal);
  }
  const isEvicted = settingsOf(cluster.store(id)).leadersEvicted;
  if (!dryRun) {
    const refusal = await node.setStoreSettings(id, change, {
      actor: actorOf(header),
      reason: header?.reason ?? '',
      ...(expectVersion === undefined ? {} : { expectVersion }),
    });
    if (refusal !== undefined) {
      return refusedWith(refusal);
    }
  }
  const now = schedulerToWire(placement, 'evict-leader', cluster.schedulers);
  const others = now.storeIds.filter((other) => other !== id);
  const storeIds = type === 'add' ? [...others, id].sort((a, b) => a - b) : others;
  return { refusal: undefined, scheduler: { ...now, storeIds }, changed: isEvicted !== change.leadersEvicted };
}

const refusedWith = (refusal: Refusal): ChangeSchedulerResponse => ({
  refusal: refusalToWire(refusal),
  scheduler: undefined,
  changed: false,
});

function changeFromWire(change: ChangeSchedulerRequest['change']): SchedulerChange | undefined {
  switch (change?.$case) {
    case 'add':
    case 'remove': {
      const { storeId: id } = change.value;
      if (id !== 0 && !isSafeId(id)) {
        throw new RpcError(RpcStatus.INVALID_ARGUMENT, `${id} is not an id`);
      }
      return { type: change.$case, storeId: id === 0 ? undefined : storeId(id) };
    }
    case 'configure': {
      const { set, reset, resetAll } = change.value;
      return { type: 'configure', set, reset: resetAll ? 'all' : reset };
    }
    case undefined:
      return undefined;
  }
}

/** @param settings those in force, or those that a dry run would leave */
function schedulerToWire(placement: Placement, name: SwitchName, settings: SchedulerSettings): WireScheduler {
  const { kind, description, isOptional } = switchInfo(name);
  const { cluster, coordinator, switches } = placement;
  const { stores, version } = settings.record(name);
  const isOn = switches.isOn(name);
  const absent = isOptional === true ? 'not-added' : 'removed';
  const state = settings.isPresent(name) ? (isOn ? 'on' : 'off') : absent;
  return {
    name,
    kind,
    description,
    state,
    idleReason: state === 'on' && cluster.schedulers.isPresent(name) ? (coordinator.idleReason(name) ?? '') : '',
    offUntilUnixMs: switches.offUntilWallMs(name) ?? 0,
    storeIds:
      name === 'evict-leader'
        ? cluster
            .stores()
            .filter((info) => settingsOf(info).leadersEvicted)
            .map(({ record }) => record.store.id)
        : [...stores],
    version,
    parameters: parametersOf(name).map((spec) => ({
      name: spec.name,
      unit: spec.unit,
      description: spec.description,
      value: settings.valueOf(name, spec),
      defaultValue: spec.defaultOf(settings.configured),
      min: spec.minOf(settings.configured),
      max: spec.maxOf(settings.configured),
    })),
  };
}
