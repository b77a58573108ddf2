/** braid.admin.v1.Admin: administration of the cluster. Refusals are values in the answer, never errors of the call. */
import { copyBytes } from '../../base/bytes.ts';
import { type RegionId, isSafeId, regionId, storeId } from '../../base/ids.ts';
import { RpcError, RpcStatus, type ServerCall } from '../../env/net.ts';
import {
  type ExplainRequest,
  type ListRegionsRequest,
  type ListRegionsResponse,
  type OperatorOptions,
  RegionFilter as WireFilter,
  type RequestHeader,
  type SetStoreSettingsRequest,
  SplitPolicy,
  type StepRefusal as WireStepRefusal,
  StoreTarget as WireTarget,
  type SubmitOperatorResponse,
  type Switch,
} from '../../gen/braid/admin/v1/admin.ts';
import { matchesFilter, findProblems, regionTotals, type RegionFilter } from '../../pd/cluster/statistics.ts';
import type { RegionInfo } from '../../pd/cluster/region-info.ts';
import type { Placement, RequestOptions, Submitted } from '../../pd/placement.ts';
import type { StoreTarget } from '../../pd/store-planner.ts';
import type { StoreSettingsChange } from '../../pd/cluster/store-settings.ts';
import type { Finding } from '../../pd/schedule/explain.ts';
import type { Operator } from '../../pd/schedule/operator/operator.ts';
import { SWITCHES, type SwitchInfo } from '../../pd/schedule/switches.ts';
import {
  type Refusal,
  type Result,
  refuse,
  regionNotFound,
  storeNotFound,
  unknownSwitch,
} from '../../pd/schedule/verdict.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { adminMethods } from '../../rpc/services.ts';
import {
  auditToWire,
  checkToWire,
  eventToWire,
  findingToWire,
  operatorToWire,
  problemToWire,
  refusalToWire,
  regionToWire,
  stepRefusalToWire,
  stepsToWire,
  storeToWire,
  storesSummary,
} from './admin-wire.ts';
import type { ServiceContext } from './context.ts';
import { memberProblems, memberToWire } from './member-calls.ts';

/** Regions, events and operators in one answer at most. */
const REGIONS_PER_ANSWER_MAX = 1_024;
const EVENTS_PER_ANSWER_MAX = 1_000;
const AUDIT_PER_ANSWER_MAX = 1_000;
const HOLES_PER_ANSWER_MAX = 64;
/** Longest time an answer about an operator is held back. */
const OPERATOR_WAIT_MAX_MS = 30_000;

export function addAdminService(builder: ServiceBuilder, context: ServiceContext): void {
  addStatusCalls(builder, context);
  addStoreCalls(builder, context);
  addRegionCalls(builder, context);
  addChangeCalls(builder, context);
  addOperatorCalls(builder, context);
  addSettingCalls(builder, context);
}

const actorOf = (header: RequestHeader | undefined): string =>
  header === undefined || header.actor === '' ? 'an administrator' : header.actor;

/** Ids from outside: out of range is an error of the request, not of the program. */
function id<T>(make: (value: number) => T, value: number): T {
  if (!isSafeId(value)) {
    throw new RpcError(RpcStatus.INVALID_ARGUMENT, `${value} is not an id`);
  }
  return make(value);
}

function addStatusCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  const { placement } = node;
  builder.unary(adminMethods.getStatus, (request, call) => {
    context.check(request.header, call);
    const nowMs = context.clock.monoMs();
    const totals = regionTotals(placement.cluster);
    const warmup = placement.coordinator.warmup();
    return {
      clusterId: String(node.clusterId),
      bootstrapped: node.isBootstrapped,
      members: context.members().members.map((member) => memberToWire(member, context.scheme)),
      stores: storesSummary(placement, nowMs),
      regions: {
        ...totals,
        holes: node.isBootstrapped ? placement.cluster.tree.holes(HOLES_PER_ANSWER_MAX).length : 0,
        reported: placement.cluster.tree.reportedCount,
      },
      runningOperators: placement.controller.running().length,
      problems: [...findProblems(placement.cluster, nowMs), ...memberProblems(context.members())].map(problemToWire),
      warmup: {
        done: warmup.done,
        reportedRegions: warmup.reportedRegions,
        knownRegions: warmup.knownRegions,
        elapsedMs: Math.floor(warmup.elapsedMs),
        limitMs: placement.cluster.config.warmupMaxMs,
      },
      maxReplicas: placement.cluster.config.maxReplicas,
      uptimeMs: Math.floor(nowMs - node.startedMs),
    };
  });
  builder.unary(adminMethods.listEvents, (request, call) => {
    context.check(request.header, call);
    const limit = request.limit === 0 ? EVENTS_PER_ANSWER_MAX : Math.min(request.limit, EVENTS_PER_ANSWER_MAX);
    const term = context.member.group.leadTerm ?? 0;
    const isOtherLead = request.afterTerm !== 0 && request.afterTerm !== term;
    return {
      events: placement.events.after(isOtherLead ? 0 : request.afterSequence, limit).map(eventToWire),
      oldestSequence: placement.events.oldestSequence,
      term,
    };
  });
  builder.unary(adminMethods.listAudit, (request, call) => {
    context.check(request.header, call);
    const limit = request.limit === 0 ? AUDIT_PER_ANSWER_MAX : Math.min(request.limit, AUDIT_PER_ANSWER_MAX);
    const { audit } = node;
    return {
      entries: audit.after(request.afterSequence, limit).map(auditToWire),
      oldestSequence: audit.entries[0]?.sequence ?? 1,
      lastSequence: audit.lastSequence,
    };
  });
}

const TARGETS: ReadonlyMap<WireTarget, StoreTarget> = new Map([
  [WireTarget.STORE_TARGET_UP, 'up'],
  [WireTarget.STORE_TARGET_REMOVING, 'removing'],
  [WireTarget.STORE_TARGET_REMOVED, 'removed'],
]);

function addStoreCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  const { placement } = node;
  builder
    .unary(adminMethods.listStores, (request, call) => {
      context.check(request.header, call);
      const nowMs = context.clock.monoMs();
      return {
        stores: placement.cluster
          .stores()
          .filter((info) => request.includeRemoved || info.record.store.state !== 'tombstone')
          .map((info) => storeToWire(info, placement, nowMs)),
      };
    })
    .unary(adminMethods.getStore, (request, call) => {
      context.check(request.header, call);
      const info = placement.cluster.store(id(storeId, request.storeId));
      return info === undefined
        ? { refusal: refusalToWire(storeNotFound(request.storeId)), store: undefined }
        : { refusal: undefined, store: storeToWire(info, placement, context.clock.monoMs()) };
    })
    .unary(adminMethods.setStoreSettings, async (request, call) => {
      context.check(request.header, call);
      const store = id(storeId, request.storeId);
      const refusal = await node.setStoreSettings(store, settingsChangeOf(request), {
        actor: actorOf(request.header),
        reason: request.header?.reason ?? '',
        ...expected(request.expectVersion),
      });
      const info = placement.cluster.store(store);
      return {
        refusal: refusal === undefined ? undefined : refusalToWire(refusal),
        store: info === undefined ? undefined : storeToWire(info, placement, context.clock.monoMs()),
      };
    })
    .unary(adminMethods.setStoreState, async (request, call) => {
      context.check(request.header, call);
      const target = TARGETS.get(request.target);
      if (target === undefined) {
        return {
          refusal: refusalToWire(
            refuse('InvalidArgument', 'no target state was given', 'give up, removing or removed'),
          ),
          store: undefined,
        };
      }
      const store = id(storeId, request.storeId);
      const refusal = await node.setStoreState(store, target, {
        physicallyDestroyed: request.physicallyDestroyed,
        dryRun: request.dryRun,
        actor: actorOf(request.header),
        reason: request.header?.reason ?? '',
        ...expected(request.expectVersion),
      });
      const info = placement.cluster.store(store);
      return {
        refusal: refusal === undefined ? undefined : refusalToWire(refusal),
        store: info === undefined ? undefined : storeToWire(info, placement, context.clock.monoMs()),
      };
    });
}

/** 0 is a version, too: that of what was never changed. */
const expected = (version: number | undefined): { readonly expectVersion?: number } =>
  version === undefined ? {} : { expectVersion: version };

/** @throws RpcError when both a limit and none is asked for */
function settingsChangeOf(request: SetStoreSettingsRequest): StoreSettingsChange {
  if (request.clearLimit && request.limitPerMinute !== undefined) {
    throw new RpcError(RpcStatus.INVALID_ARGUMENT, 'a limit is both set and cleared');
  }
  return {
    ...(request.leadersEvicted === undefined ? {} : { leadersEvicted: request.leadersEvicted }),
    ...(request.leaderWeight === undefined ? {} : { leaderWeight: request.leaderWeight }),
    ...(request.regionWeight === undefined ? {} : { regionWeight: request.regionWeight }),
    ...(request.clearLimit ? { limitPerMinute: null } : {}),
    ...(request.limitPerMinute === undefined ? {} : { limitPerMinute: request.limitPerMinute }),
    ...(request.labels.length === 0 && !request.replaceLabels
      ? {}
      : { labels: request.labels, replaceLabels: request.replaceLabels }),
  };
}

const FILTERS: ReadonlyMap<WireFilter, RegionFilter> = new Map([
  [WireFilter.REGION_FILTER_ALL, 'all'],
  [WireFilter.REGION_FILTER_WITHOUT_LEADER, 'without-leader'],
  [WireFilter.REGION_FILTER_DOWN_PEER, 'down-peer'],
  [WireFilter.REGION_FILTER_PENDING_PEER, 'pending-peer'],
  [WireFilter.REGION_FILTER_UNDER_REPLICATED, 'under-replicated'],
  [WireFilter.REGION_FILTER_OVER_REPLICATED, 'over-replicated'],
  [WireFilter.REGION_FILTER_JOINT_STATE, 'joint-state'],
  [WireFilter.REGION_FILTER_LEARNER, 'learner'],
  [WireFilter.REGION_FILTER_WITH_OPERATOR, 'with-operator'],
  [WireFilter.REGION_FILTER_PAUSED, 'paused'],
]);

function addRegionCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { placement } = context.node;
  const { tree } = placement.cluster;
  builder
    .unary(adminMethods.listRegions, (request, call) => {
      context.check(request.header, call);
      return listRegions(context, request);
    })
    .unary(adminMethods.getRegion, (request, call) => {
      context.check(request.header, call);
      const info = findRegion(placement, request.which);
      if (info === undefined) {
        return {
          refusal: refusalToWire(regionMissing(request.which)),
          region: undefined,
          previous: undefined,
          next: undefined,
        };
      }
      const nowMs = context.clock.monoMs();
      const { previous, next } = tree.neighbours(info);
      return {
        refusal: undefined,
        region: regionToWire(info, placement, nowMs),
        previous: previous === undefined ? undefined : regionToWire(previous, placement, nowMs),
        next: next === undefined ? undefined : regionToWire(next, placement, nowMs),
      };
    });
}

type Which =
  | { readonly $case: 'id'; readonly value: number }
  | { readonly $case: 'key'; readonly value: Uint8Array }
  | undefined;

function findRegion(placement: Placement, which: Which): RegionInfo | undefined {
  const { tree } = placement.cluster;
  switch (which?.$case) {
    case 'id':
      return tree.get(id(regionId, which.value));
    case 'key':
      return tree.find(which.value);
    case undefined:
      return tree.find(new Uint8Array(0));
  }
}

const regionMissing = (which: Which): Refusal =>
  which?.$case === 'id'
    ? regionNotFound(which.value)
    : refuse('RegionNotFound', 'no known region covers the key at the moment', 'ask again: a leader will report soon');

function listRegions(context: ServiceContext, request: ListRegionsRequest): ListRegionsResponse {
  const { placement } = context.node;
  const { tree } = placement.cluster;
  const limit = request.limit === 0 ? REGIONS_PER_ANSWER_MAX : Math.min(request.limit, REGIONS_PER_ANSWER_MAX);
  const filter = FILTERS.get(request.filter) ?? 'all';
  const matches = (info: RegionInfo): boolean =>
    (request.storeId === 0 || info.region.peers.some((peer) => peer.storeId === request.storeId)) &&
    (filter === 'with-operator'
      ? placement.controller.runningOn(info.region.id) !== undefined
      : filter === 'paused'
        ? placement.resources.pauses.on(info) !== undefined
        : matchesFilter(info, filter, placement.cluster));
  const found: RegionInfo[] = [];
  let next: RegionInfo | undefined;
  for (const info of tree.scan({ start: request.start, end: request.end }, Number.POSITIVE_INFINITY)) {
    if (found.length === limit) {
      next = info;
      break;
    }
    if (matches(info)) {
      found.push(info);
    }
  }
  const nowMs = context.clock.monoMs();
  return {
    regions: found.map((info) => regionToWire(info, placement, nowMs)),
    more: next !== undefined,
    nextStart: next?.region.range.start ?? new Uint8Array(0),
    holes: context.node.isBootstrapped
      ? tree.holes(HOLES_PER_ANSWER_MAX).map((hole) => ({ startKey: hole.start, endKey: hole.end }))
      : [],
  };
}

function optionsOf(header: RequestHeader | undefined, options: OperatorOptions | undefined): RequestOptions {
  const note = options?.reason || (header?.reason ?? '');
  return {
    actor: actorOf(header),
    dryRun: options?.dryRun ?? false,
    ...(note === '' ? {} : { note }),
    ...(options?.expectEpoch === undefined ? {} : { expectEpoch: options.expectEpoch }),
  };
}

/** Requests that start operators. */
function addChangeCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const submit = async (
    request: { readonly header?: RequestHeader | undefined; readonly options?: OperatorOptions | undefined },
    call: ServerCall,
    start: (placement: Placement, options: RequestOptions) => Result<Submitted>,
  ): Promise<SubmitOperatorResponse> => {
    context.check(request.header, call);
    const options = optionsOf(request.header, request.options);
    const result = context.node.isBootstrapped
      ? context.node.act((placement) => start(placement, options))
      : ({
          type: 'refused',
          refusal: refuse('NotBootstrapped', 'the cluster has no store yet', 'start a store'),
        } as const);
    const answer = submitted(context, result, options.dryRun === true);
    // Whoever has the answer finds the request in the audit log, whichever member leads then.
    await context.node.auditor.written();
    return answer;
  };
  builder
    .unary(adminMethods.moveRegion, (request, call) =>
      submit(request, call, (placement, options) =>
        placement.moveRegion(
          id(regionId, request.regionId),
          id(storeId, request.fromStore),
          id(storeId, request.toStore),
          options,
        ),
      ),
    )
    .unary(adminMethods.mergeRegion, (request, call) =>
      submit(request, call, (placement, options) =>
        placement.mergeRegions(id(regionId, request.sourceId), id(regionId, request.targetId), options),
      ),
    )
    .unary(adminMethods.splitRegion, (request, call) =>
      submit(request, call, (placement, options) => {
        const region = id(regionId, request.regionId);
        if (request.policy === SplitPolicy.SPLIT_POLICY_USE_KEYS && request.keys.length === 0) {
          return {
            type: 'refused',
            refusal: refuse('NoSplitKeys', 'no split keys were given', 'give keys, or split in the middle'),
          };
        }
        const keys = request.policy === SplitPolicy.SPLIT_POLICY_USE_KEYS ? request.keys.map(copyBytes) : [];
        return placement.splitRegion(region, keys, options);
      }),
    )
    .unary(adminMethods.transferLeader, (request, call) =>
      submit(request, call, (placement, options) =>
        placement.transferLeader(id(regionId, request.regionId), id(storeId, request.toStore), options),
      ),
    )
    .unary(adminMethods.addPeer, (request, call) =>
      submit(request, call, (placement, options) =>
        placement.addPeer(
          id(regionId, request.regionId),
          id(storeId, request.storeId),
          request.learner ? 'learner' : 'voter',
          options,
        ),
      ),
    )
    .unary(adminMethods.scatterRegion, (request, call) =>
      submit(request, call, (placement, options) =>
        placement.scatterRegion(id(regionId, request.regionId), 'admin', options),
      ),
    )
    .unary(adminMethods.removePeer, (request, call) =>
      submit(request, call, (placement, options) =>
        placement.removePeer(id(regionId, request.regionId), id(storeId, request.storeId), options),
      ),
    );
}

function submitted(context: ServiceContext, result: Result<Submitted>, planned: boolean): SubmitOperatorResponse {
  if (result.type === 'refused') {
    return { refusal: refusalToWire(result.refusal), operator: undefined, nothingToDo: false };
  }
  const { operator } = result.value;
  return {
    refusal: undefined,
    operator:
      operator === undefined ? undefined : operatorToWire(operator, context.node.placement.cluster.config, planned),
    nothingToDo: operator === undefined,
  };
}

type WhichOperator =
  | { readonly $case: 'id'; readonly value: number }
  | { readonly $case: 'regionId'; readonly value: number }
  | undefined;

function findOperator(placement: Placement, which: WhichOperator): Operator | undefined {
  const { controller } = placement;
  switch (which?.$case) {
    case 'id':
      return controller.find(which.value);
    case 'regionId': {
      const region: RegionId = id(regionId, which.value);
      return controller.runningOn(region) ?? controller.history().find((operator) => operator.regionId === region);
    }
    case undefined:
      return undefined;
  }
}

const operatorMissing = (which: WhichOperator): Refusal =>
  which?.$case === 'regionId'
    ? refuse('OperatorNotFound', `region ${which.value} has no operator`, 'list the operators', {
        region_id: which.value,
      })
    : refuse(
        'OperatorNotFound',
        `operator ${which?.value ?? 0} is not known`,
        'only the latest operators are remembered',
        {
          operator_id: which?.value ?? 0,
        },
      );

function addOperatorCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  const { placement } = node;
  const { controller, cluster } = placement;
  const toWire = (operator: Operator): ReturnType<typeof operatorToWire> => operatorToWire(operator, cluster.config);
  builder
    .unary(adminMethods.listOperators, (request, call) => {
      context.check(request.header, call);
      const operators = [...controller.running(), ...(request.includeWaiting ? controller.waiting() : [])];
      return {
        operators: operators
          .filter((operator) => request.kind === '' || operator.kinds.some((kind) => kind === request.kind))
          .map(toWire),
      };
    })
    .unary(adminMethods.getOperator, async (request, call) => {
      context.check(request.header, call);
      const operator = findOperator(placement, request.which);
      if (operator === undefined) {
        return { refusal: refusalToWire(operatorMissing(request.which)), operator: undefined };
      }
      await node.waitForOperator(operator, Math.min(request.waitMs, OPERATOR_WAIT_MAX_MS));
      return { refusal: undefined, operator: toWire(operator) };
    })
    .unary(adminMethods.finishedOperators, (request, call) => {
      context.check(request.header, call);
      const found = controller
        .history()
        .filter(
          (operator) =>
            (request.regionId === 0 || operator.regionId === request.regionId) &&
            operator.finishedWallMs >= request.sinceUnixMs,
        );
      return { operators: (request.limit === 0 ? found : found.slice(0, request.limit)).map(toWire) };
    })
    .unary(adminMethods.cancelOperator, async (request, call) => {
      context.check(request.header, call);
      const operator = findOperator(placement, request.which);
      if (operator === undefined) {
        return { refusal: refusalToWire(operatorMissing(request.which)), operator: undefined };
      }
      const reason = request.header?.reason ?? '';
      const refusal = node.act((p) => p.cancelOperator(operator, actorOf(request.header), reason));
      await node.auditor.written();
      return { refusal: refusal === undefined ? undefined : refusalToWire(refusal), operator: toWire(operator) };
    })
    .unary(adminMethods.explain, (request, call) => {
      context.check(request.header, call);
      const { which } = request;
      const [findings, missing] = explain(placement, which);
      return {
        refusal: findings === undefined ? refusalToWire(missing) : undefined,
        findings: (findings ?? []).map(findingToWire),
      };
    })
    .unary(adminMethods.explainMerge, (request, call) => {
      context.check(request.header, call);
      const [source, target] = [id(regionId, request.sourceId), id(regionId, request.targetId)];
      const checks = placement.explainMerge(source, target, request.automatic);
      const allowed = checks.every((check) => check.refusal === undefined);
      const plan = allowed ? placement.mergeRegions(source, target, { dryRun: true }) : undefined;
      return {
        allowed,
        checks: checks.map(checkToWire),
        steps:
          plan?.type === 'ok' && plan.value.operator !== undefined
            ? stepsToWire(plan.value.operator, cluster.config)
            : [],
        lastRefusal: lastRefusalOfMerge(placement, source, target),
      };
    });
}

/** Findings, and the refusal if there are none because the object is not known. */
function explain(
  placement: Placement,
  which: ExplainRequest['which'],
): readonly [readonly Finding[] | undefined, Refusal] {
  switch (which?.$case) {
    case 'regionId':
      return [placement.explainRegion(id(regionId, which.value)), regionNotFound(which.value)];
    case 'storeId':
      return [placement.explainStore(id(storeId, which.value)), storeNotFound(which.value)];
    case 'scheduler':
      return [placement.explainScheduler(which.value), unknownSwitch(which.value)];
    case undefined:
      return [
        undefined,
        refuse('InvalidArgument', 'nothing to explain was named', 'name a region, a store or a scheduler'),
      ];
  }
}

/** Of the running attempt, else of the latest one that is remembered. */
function lastRefusalOfMerge(placement: Placement, source: RegionId, target: RegionId): WireStepRefusal | undefined {
  const attempt = [...placement.controller.running(), ...placement.controller.history()].find(
    (operator) => operator.isMergeSource && operator.regionId === source && operator.related?.regionId === target,
  );
  return attempt?.lastRefusal === undefined ? undefined : stepRefusalToWire(attempt.lastRefusal);
}

function addSettingCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  const { placement } = node;
  const toWire = (info: SwitchInfo): Switch => {
    const enabled = placement.switches.isOn(info.name);
    return {
      name: info.name,
      enabled,
      description: info.description,
      idleReason: enabled ? (placement.coordinator.idleReason(info.name) ?? '') : '',
      offUntilUnixMs: placement.switches.offUntilWallMs(info.name) ?? 0,
      version: node.switchVersion(info.name),
    };
  };
  builder
    .unary(adminMethods.listSwitches, (request, call) => {
      context.check(request.header, call);
      return { switches: SWITCHES.map(toWire) };
    })
    .unary(adminMethods.setSwitch, async (request, call) => {
      context.check(request.header, call);
      const name = placement.switchName(request.name);
      if (name.type === 'refused') {
        return { refusal: refusalToWire(name.refusal), switch: undefined };
      }
      const refusal = await node.setSwitch(name.value, request.enabled, actorOf(request.header), {
        offMs: request.offMs,
        reason: request.header?.reason ?? '',
        ...expected(request.expectVersion),
      });
      if (refusal !== undefined) {
        return { refusal: refusalToWire(refusal), switch: undefined };
      }
      const info = SWITCHES.find((candidate) => candidate.name === name.value);
      return { refusal: undefined, switch: info === undefined ? undefined : toWire(info) };
    });
}
