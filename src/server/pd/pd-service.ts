/** pdpb.PD: cluster identity, stores, routing, splits, operators, safe points. Streams of time are in tso-stream.ts. */
import { fromUtf8, utf8 } from '../../base/bytes.ts';
import { toRegionId, toStoreId } from '../../codec/meta-wire.ts';
import { toWireSplitIds, toWireStats } from '../../codec/pd-wire.ts';
import type { ServerCall } from '../../env/net.ts';
import { RpcError, RpcStatus } from '../../env/net.ts';
import { NodeState } from '../../gen/metapb.ts';
import {
  ErrorType,
  type GetOperatorResponse,
  OperatorStatus,
  type ResponseHeader,
  SplitReason,
  type StoreHeartbeatResponse,
} from '../../gen/pdpb.ts';
import type { StoreHeartbeat } from '../../meta/heartbeat.ts';
import type { SplitCause } from '../../pd/schedule/coordinator.ts';
import type { Operator } from '../../pd/schedule/operator/operator.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { pdMethods, placementMethods } from '../../rpc/services.ts';
import { startsOf, STORE_STARTS } from '../transport/identity.ts';
import type { ServiceContext } from './context.ts';
import { addRoutingCalls } from './routing-calls.ts';
import { scatterRegions, splitRegions } from './split-calls.ts';
import { regionOf, statsOf, storeOf, storeReportOf, storeToWire } from './wire.ts';

const SPLIT_CAUSES: ReadonlyMap<SplitReason, SplitCause> = new Map([
  [SplitReason.ADMIN, 'admin'],
  [SplitReason.SIZE, 'size'],
  [SplitReason.LOAD, 'load'],
]);

/** Version stores and clients see; clients only compare it with old releases of TiKV. */
const CLUSTER_VERSION = '8.5.0';

export function addPdService(builder: ServiceBuilder, context: ServiceContext): void {
  addClusterCalls(builder, context);
  addStoreCalls(builder, context);
  addRoutingCalls(builder, context);
  addSplitCalls(builder, context);
  addOperatorCalls(builder, context);
  addSafePointCalls(builder, context);
}

function addClusterCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  builder
    .unary(pdMethods.isBootstrapped, (request, call) => {
      context.check(request.header, call);
      return { header: context.header(), bootstrapped: node.isBootstrapped };
    })
    .unary(pdMethods.bootstrap, async (request, call) => {
      context.check(request.header, call);
      const refusal = await node.bootstrap(storeOf(request.store), regionOf(request.region));
      return { header: refusal === undefined ? context.header() : context.refusal(refusal) };
    })
    .unary(pdMethods.allocID, async (request, call) => {
      context.check(request.header, call);
      const count = Math.max(1, request.count);
      const first = await node.allocIds(count);
      return first.type === 'refused'
        ? { header: context.refusal(first.refusal), id: 0, count: 0 }
        : { header: context.header(), id: first.value + count - 1, count };
    })
    .unary(pdMethods.getClusterConfig, (request, call) => {
      context.check(request.header, call);
      return {
        header: context.notBootstrapped() ?? context.header(),
        cluster: { id: String(node.clusterId), maxPeerCount: node.placement.cluster.config.maxReplicas },
      };
    })
    .unary(pdMethods.putClusterConfig, async (request, call) => {
      context.check(request.header, call);
      const refusal = await node.setMaxReplicas(request.cluster?.maxPeerCount ?? 0);
      return { header: refusal === undefined ? context.header() : context.refusal(refusal) };
    });
}

function addStoreCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  builder
    .unary(pdMethods.putStore, async (request, call) => {
      context.check(request.header, call);
      const refusal = await node.putStore(storeOf(request.store), startsOf(call.metadata[STORE_STARTS]));
      return { header: refusal === undefined ? context.header() : context.refusal(refusal) };
    })
    .unary(pdMethods.getStore, (request, call) => {
      context.check(request.header, call);
      const info = node.placement.cluster.store(toStoreId(request.storeId));
      if (info === undefined) {
        // Old clients ignore the header's error and retry an answer without a store for 20 s, so the call itself fails.
        throw new RpcError(RpcStatus.UNKNOWN, `invalid store ID ${request.storeId}, not found`);
      }
      return {
        header: context.header(),
        store: storeToWire(info),
        stats: info.stats === undefined ? undefined : toWireStats(info.stats),
      };
    })
    .unary(pdMethods.getAllStores, (request, call) => {
      context.check(request.header, call);
      const stores = node.placement.cluster
        .stores()
        .filter((info) => !request.excludeTombstoneStores || info.record.store.state !== 'tombstone');
      return { header: context.notBootstrapped() ?? context.header(), stores: stores.map(storeToWire) };
    })
    .unary(pdMethods.storeHeartbeat, (request, call) => {
      context.check(request.header, call);
      return onStoreHeartbeat(context, statsOf(request.stats));
    })
    .unary(placementMethods.reportStore, (report, call) => {
      context.check(report.heartbeat?.header, call);
      const heartbeat = storeReportOf(report);
      return {
        heartbeat: onStoreHeartbeat(context, heartbeat),
        retireRedirects: [...node.placement.redirects.toRetireOn(heartbeat.storeId)],
      };
    });
}

function onStoreHeartbeat(context: ServiceContext, stats: StoreHeartbeat): StoreHeartbeatResponse {
  const { node } = context;
  const missing = context.notBootstrapped();
  const refusal = missing === undefined ? node.onStoreHeartbeat(stats) : undefined;
  const info = node.placement.cluster.store(stats.storeId);
  return {
    header: missing ?? (refusal === undefined ? context.header() : context.refusal(refusal)),
    clusterVersion: CLUSTER_VERSION,
    state: info === undefined ? NodeState.Serving : storeToWire(info).nodeState,
  };
}

function addSplitCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  builder
    .unary(pdMethods.askBatchSplit, async (request, call) => {
      context.check(request.header, call);
      const ids = await node.askBatchSplit(
        regionOf(request.region),
        request.splitCount,
        SPLIT_CAUSES.get(request.reason),
      );
      return ids.type === 'refused'
        ? { header: context.refusal(ids.refusal), ids: [] }
        : { header: context.header(), ids: ids.value.map(toWireSplitIds) };
    })
    .unary(pdMethods.askSplit, async (request, call) => {
      context.check(request.header, call);
      const ids = await node.askBatchSplit(regionOf(request.region), 1);
      if (ids.type === 'refused') {
        return { header: context.refusal(ids.refusal), newRegionId: 0, newPeerIds: [] };
      }
      const [id] = ids.value;
      return { header: context.header(), newRegionId: id?.newRegionId ?? 0, newPeerIds: [...(id?.newPeerIds ?? [])] };
    })
    .unary(pdMethods.reportBatchSplit, (request, call) => {
      context.check(request.header, call);
      node.onSplitReport(request.regions.map((region) => regionOf(region)));
      return { header: context.header() };
    })
    .unary(pdMethods.reportSplit, (request, call) => {
      context.check(request.header, call);
      node.onSplitReport([regionOf(request.left), regionOf(request.right)]);
      return { header: context.header() };
    })
    .unary(pdMethods.splitRegions, async (request, call) => {
      context.check(request.header, call);
      const result = await splitRegions(context, request.splitKeys, waitBudgetMs(call));
      return { header: context.header(), finishedPercentage: result.percentage, regionsId: result.newRegions };
    })
    .unary(pdMethods.scatterRegion, (request, call) => {
      context.check(request.header, call);
      const single = request.regionId === 0 ? (request.region?.id ?? 0) : request.regionId;
      const ids = request.regionsId.length > 0 ? request.regionsId : [single];
      const failed = scatterRegions(context, ids, request.group);
      return {
        header: context.header(),
        finishedPercentage: percentage(ids.length - failed.length, ids.length),
        failedRegionsId: failed,
      };
    })
    .unary(pdMethods.splitAndScatterRegions, async (request, call) => {
      context.check(request.header, call);
      const result = await splitRegions(context, request.splitKeys, waitBudgetMs(call));
      const failed = scatterRegions(context, result.newRegions, request.group);
      return {
        header: context.header(),
        splitFinishedPercentage: result.percentage,
        scatterFinishedPercentage: percentage(result.newRegions.length - failed.length, result.newRegions.length),
        regionsId: result.newRegions,
      };
    });
}

/** Longest time a call may wait for operators, and the part of the caller's deadline that is left for the way back. */
const WAIT_MAX_MS = 60_000;
const REPLY_MARGIN = 0.9;

const waitBudgetMs = (call: ServerCall): number =>
  Math.max(1, Math.min(WAIT_MAX_MS, (call.timeoutMs ?? WAIT_MAX_MS) * REPLY_MARGIN));

const percentage = (done: number, of: number): number => (of === 0 ? 100 : Math.floor((done * 100) / of));

function addOperatorCalls(builder: ServiceBuilder, context: ServiceContext): void {
  builder.unary(pdMethods.getOperator, (request, call): GetOperatorResponse => {
    context.check(request.header, call);
    const { controller } = context.node.placement;
    const id = toRegionId(request.regionId);
    const operator = controller.runningOn(id) ?? controller.history().find((ended) => ended.regionId === id);
    return operator === undefined
      ? operatorReply(context.errorHeader(ErrorType.REGION_NOT_FOUND, `region ${id} has no operator`), id, undefined)
      : operatorReply(context.header(), id, operator);
  });
}

function operatorReply(header: ResponseHeader, id: number, operator: Operator | undefined): GetOperatorResponse {
  return {
    header,
    regionId: id,
    desc: utf8(operator?.maker ?? ''),
    kind: utf8(operator?.kinds.join(',') ?? ''),
    status: operator === undefined ? OperatorStatus.CANCEL : statusToWire(operator),
  };
}

function statusToWire(operator: Operator): OperatorStatus {
  switch (operator.status) {
    case 'created':
    case 'started':
      return OperatorStatus.RUNNING;
    case 'success':
      return OperatorStatus.SUCCESS;
    case 'replaced':
      return OperatorStatus.REPLACE;
    case 'timeout':
    case 'expired':
      return OperatorStatus.TIMEOUT;
    case 'canceled':
      return OperatorStatus.CANCEL;
  }
}

function addSafePointCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  builder
    .unary(pdMethods.getGCSafePoint, (request, call) => {
      context.check(request.header, call);
      return { header: context.header(), safePoint: String(node.gcSafePoint) };
    })
    .unary(pdMethods.updateGCSafePoint, async (request, call) => {
      context.check(request.header, call);
      const effective = await node.advanceGcSafePoint(BigInt(request.safePoint));
      return { header: context.header(), newSafePoint: String(effective) };
    })
    .unary(pdMethods.updateServiceGCSafePoint, async (request, call) => {
      context.check(request.header, call);
      const ttlSeconds = BigInt(request.TTL);
      const nowSeconds = Math.floor(context.clock.wallMs() / 1000);
      const lowest = await node.updateServiceSafePoint(
        fromUtf8(request.serviceId),
        Number(ttlSeconds > BigInt(Number.MAX_SAFE_INTEGER) ? BigInt(Number.MAX_SAFE_INTEGER) : ttlSeconds),
        BigInt(request.safePoint),
      );
      return {
        header: context.header(),
        serviceId: utf8(lowest?.serviceId ?? ''),
        TTL: String(lowest === undefined ? 0 : Math.max(0, lowest.expiresAtSeconds - nowSeconds)),
        minSafePoint: String(lowest?.safePoint ?? node.gcSafePoint),
      };
    });
}
