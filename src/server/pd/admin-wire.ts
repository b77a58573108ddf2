/** Domain -> braid.admin.v1. Ids stay numbers, absent times are 0, ages are relative to `nowMs`. */
import type { StoreId } from '../../base/ids.ts';
import {
  type AuditEntry as WireAuditEntry,
  type Check as WireCheck,
  type Event as WireEvent,
  type Finding as WireFinding,
  type Operator as WireOperator,
  OperatorPriority,
  OperatorStatus,
  type Peer as WirePeer,
  PeerRole as WirePeerRole,
  type Problem as WireProblem,
  type Refusal as WireRefusal,
  type Region as WireRegion,
  type Step as WireStep,
  type StepRefusal as WireStepRefusal,
  StepState,
  type Store as WireStore,
  StoreState,
  type StoresSummary,
} from '../../gen/braid/admin/v1/admin.ts';
import type { Peer, PeerRole } from '../../meta/region.ts';
import type { ClusterEvent } from '../../pd/cluster/events.ts';
import type { RegionPause } from '../../pd/cluster/pauses.ts';
import type { RegionInfo } from '../../pd/cluster/region-info.ts';
import type { Problem } from '../../pd/cluster/statistics.ts';
import { type StoreInfo, livenessOf, settingsOf } from '../../pd/cluster/store-info.ts';
import type { PlacementConfig } from '../../pd/defaults.ts';
import type { Placement } from '../../pd/placement.ts';
import type { Check } from '../../pd/schedule/checker/merge-checks.ts';
import type { Finding } from '../../pd/schedule/explain.ts';
import type { Operator, OperatorRefusal, Priority } from '../../pd/schedule/operator/operator.ts';
import {
  type ProgressState,
  type StepProgress,
  phaseProgress,
  stepProgress,
} from '../../pd/schedule/operator/progress.ts';
import type { OperatorStatus as DomainStatus } from '../../pd/schedule/operator/status.ts';
import type { Refusal } from '../../pd/schedule/verdict.ts';
import type { AuditEntry } from '../../pd/state/audit-log.ts';

const ROLES: Readonly<Record<PeerRole, WirePeerRole>> = {
  voter: WirePeerRole.PEER_ROLE_VOTER,
  learner: WirePeerRole.PEER_ROLE_LEARNER,
  'incoming-voter': WirePeerRole.PEER_ROLE_INCOMING_VOTER,
  'demoting-voter': WirePeerRole.PEER_ROLE_DEMOTING_VOTER,
};

const STATUSES: Readonly<Record<DomainStatus, OperatorStatus>> = {
  created: OperatorStatus.OPERATOR_STATUS_CREATED,
  started: OperatorStatus.OPERATOR_STATUS_RUNNING,
  success: OperatorStatus.OPERATOR_STATUS_SUCCESS,
  canceled: OperatorStatus.OPERATOR_STATUS_CANCELED,
  replaced: OperatorStatus.OPERATOR_STATUS_REPLACED,
  expired: OperatorStatus.OPERATOR_STATUS_EXPIRED,
  timeout: OperatorStatus.OPERATOR_STATUS_TIMEOUT,
};

const PRIORITIES: Readonly<Record<Priority, OperatorPriority>> = {
  low: OperatorPriority.OPERATOR_PRIORITY_LOW,
  medium: OperatorPriority.OPERATOR_PRIORITY_MEDIUM,
  high: OperatorPriority.OPERATOR_PRIORITY_HIGH,
  urgent: OperatorPriority.OPERATOR_PRIORITY_URGENT,
};

const STEP_STATES: Readonly<Record<ProgressState, StepState>> = {
  waiting: StepState.STEP_STATE_WAITING,
  running: StepState.STEP_STATE_RUNNING,
  done: StepState.STEP_STATE_DONE,
  failed: StepState.STEP_STATE_FAILED,
  skipped: StepState.STEP_STATE_SKIPPED,
};

const wallMs = (ms: number): number => Math.max(0, Math.floor(ms));

export const refusalToWire = (refusal: Refusal): WireRefusal => ({
  code: refusal.code,
  message: refusal.message,
  hint: refusal.hint,
  details: new Map(Object.entries(refusal.details)),
});

const peerToWire = (peer: Peer): WirePeer => ({ id: peer.id, storeId: peer.storeId, role: ROLES[peer.role] });

export function regionToWire(info: RegionInfo, placement: Placement, nowMs: number): WireRegion {
  const { region } = info;
  return {
    id: region.id,
    startKey: region.range.start,
    endKey: region.range.end,
    epoch: { confVer: region.epoch.confVer, version: region.epoch.version },
    peers: region.peers.map(peerToWire),
    leader: info.leader === undefined ? undefined : peerToWire(info.leader),
    term: info.term,
    sizeBytes: info.sizeBytes,
    keys: info.keys,
    downPeers: info.downPeers.map((down) => ({ peer: peerToWire(down.peer), downSeconds: down.downSeconds })),
    pendingPeers: info.pendingPeers.map(peerToWire),
    operatorId: placement.controller.runningOn(region.id)?.id ?? 0,
    merging: info.merging,
    bytesWrittenPerSecond: info.bytesWrittenPerSecond,
    bytesReadPerSecond: info.bytesReadPerSecond,
    lastReportAgeMs: info.reportedAtMs === undefined ? 0 : wallMs(nowMs - info.reportedAtMs),
    reportSeen: info.reportedAtMs !== undefined,
    pinned: placement.resources.pinnedReason(info) !== undefined,
    partition: placement.resources.partitionOf(info)?.meta.name ?? '',
    consistency:
      info.consistency === undefined
        ? undefined
        : { index: info.consistency.index, unixMs: wallMs(info.consistency.wallMs), result: info.consistency.result },
    damagedPeerIds: region.peers
      .filter((peer) => placement.cluster.damageOf(region.id, peer) !== undefined)
      .map((peer) => peer.id),
    pause: pauseToWire(placement.resources.pauses.on(info)),
  };
}

const pauseToWire = (pause: RegionPause | undefined): WireRegion['pause'] =>
  pause === undefined
    ? undefined
    : {
        reason: pause.reason,
        actor: pause.actor,
        sinceUnixMs: pause.sinceWallMs,
        untilUnixMs: pause.untilWallMs ?? 0,
        regionId: pause.regionId,
      };

function storeState(info: StoreInfo, config: PlacementConfig, nowMs: number): StoreState {
  switch (info.record.store.state) {
    case 'tombstone':
      return StoreState.STORE_STATE_REMOVED;
    case 'offline':
      return StoreState.STORE_STATE_REMOVING;
    case 'up':
      break;
  }
  switch (livenessOf(info, config, nowMs)) {
    case 'up':
      return StoreState.STORE_STATE_UP;
    case 'disconnected':
      return StoreState.STORE_STATE_DISCONNECTED;
    case 'down':
      return StoreState.STORE_STATE_DOWN;
  }
}

export function storeToWire(info: StoreInfo, placement: Placement, nowMs: number): WireStore {
  const { store } = info.record;
  const { leadersEvicted, leaderWeight, regionWeight, limitPerMinute, removal, version } = settingsOf(info);
  const { stats } = info;
  const sets = placement.cluster.tree.ofStore(store.id);
  return {
    id: store.id,
    address: store.address,
    statusAddress: store.statusAddress,
    state: storeState(info, placement.cluster.config, nowMs),
    labels: store.labels.map((label) => ({ key: label.key, value: label.value })),
    version: store.version,
    capacityBytes: stats?.capacityBytes ?? 0,
    availableBytes: stats?.availableBytes ?? 0,
    usedBytes: stats?.usedBytes ?? 0,
    regionCount: sets.peers.size,
    leaderCount: sets.leaders.size,
    learnerCount: sets.learners.size,
    pendingPeerCount: sets.pending.size,
    regionSizeBytes: placement.cluster.tree.sizeOfStoreBytes(store.id),
    lastHeartbeatAgeMs: wallMs(nowMs - info.seenAtMs),
    heartbeatSeen: stats !== undefined,
    startUnixMs: store.startTimestamp * 1000,
    isBusy: stats?.isBusy ?? false,
    isStopping: stats?.isStopping ?? false,
    sendingSnapshots: stats?.sendingSnapshots ?? 0,
    receivingSnapshots: stats?.receivingSnapshots ?? 0,
    applyingSnapshots: stats?.applyingSnapshots ?? 0,
    blockers: placement.removalBlockers(store.id).map((refusal) => blockerToWire(refusal, store.id)),
    leadersEvicted,
    leaderWeight,
    regionWeight,
    limitPerMinute: limitPerMinute ?? placement.cluster.config.storeLimitPerMinute,
    limitIsOwn: limitPerMinute !== undefined,
    removingSinceUnixMs: removal?.sinceWallMs ?? 0,
    removingPeers: removal?.peers ?? 0,
    removingSizeBytes: removal?.sizeBytes ?? 0,
    settingsVersion: version,
  };
}

function blockerToWire(refusal: Refusal, store: StoreId): WireProblem {
  return {
    code: refusal.code,
    message: refusal.message,
    hint: refusal.hint,
    storeId: store,
    regionId: Number(refusal.details['region_id'] ?? 0),
  };
}

export function storesSummary(placement: Placement, nowMs: number): StoresSummary {
  const { cluster } = placement;
  const summary: StoresSummary = {
    up: 0,
    disconnected: 0,
    down: 0,
    removing: 0,
    removed: 0,
    capacityBytes: 0,
    usedBytes: 0,
    availableBytes: 0,
  };
  for (const info of cluster.stores()) {
    const state = storeState(info, cluster.config, nowMs);
    summary.up += Number(state === StoreState.STORE_STATE_UP);
    summary.disconnected += Number(state === StoreState.STORE_STATE_DISCONNECTED);
    summary.down += Number(state === StoreState.STORE_STATE_DOWN);
    summary.removing += Number(state === StoreState.STORE_STATE_REMOVING);
    summary.removed += Number(state === StoreState.STORE_STATE_REMOVED);
    if (state !== StoreState.STORE_STATE_REMOVED) {
      summary.capacityBytes += info.stats?.capacityBytes ?? 0;
      summary.usedBytes += info.stats?.usedBytes ?? 0;
      summary.availableBytes += info.stats?.availableBytes ?? 0;
    }
  }
  return summary;
}

export const problemToWire = (problem: Problem): WireProblem => ({
  code: problem.code,
  message: problem.message,
  hint: problem.hint,
  storeId: problem.storeId ?? 0,
  regionId: problem.regionId ?? 0,
});

export const checkToWire = (check: Check): WireCheck => ({
  name: check.name,
  passed: check.refusal === undefined,
  refusal: check.refusal === undefined ? undefined : refusalToWire(check.refusal),
});

export const findingToWire = ({ name, detail, refusal }: Finding): WireFinding => ({
  name,
  detail,
  refusal: refusal === undefined ? undefined : refusalToWire(refusal),
});

export const eventToWire = (event: ClusterEvent): WireEvent => ({
  sequence: event.sequence,
  unixMs: wallMs(event.wallMs),
  type: event.type,
  message: event.message,
  regionId: event.regionId ?? 0,
  storeId: event.storeId ?? 0,
  operatorId: event.operatorId ?? 0,
  actor: event.actor ?? '',
  reason: event.reason ?? '',
  auditSequence: event.audit ?? 0,
});

export const auditToWire = ({ wallMs: unixMs, ...entry }: AuditEntry): WireAuditEntry => ({ ...entry, unixMs });

const stepToWire = (step: StepProgress): WireStep => ({
  type: step.type,
  text: step.text,
  state: STEP_STATES[step.state],
  startedUnixMs: wallMs(step.startedWallMs),
  finishedUnixMs: wallMs(step.finishedWallMs),
  detail: step.detail,
  current: step.current,
  sends: step.sends,
  phase: step.phase,
  timeoutMs: wallMs(step.timeoutMs),
});

export const stepsToWire = (operator: Operator, config: PlacementConfig): WireStep[] =>
  stepProgress(operator, config).map(stepToWire);

export const stepRefusalToWire = (refusal: OperatorRefusal): WireStepRefusal => ({
  code: refusal.code,
  message: refusal.message,
  hint: refusal.hint,
  storeId: refusal.storeId,
  regionId: refusal.regionId,
  unixMs: wallMs(refusal.wallMs),
  count: refusal.count,
  lasting: refusal.outlook === 'lasting',
  step: refusal.step,
});

/** A planned operator that was not started is shown with id 0. */
export function operatorToWire(operator: Operator, config: PlacementConfig, planned = false): WireOperator {
  return {
    id: planned ? 0 : operator.id,
    regionId: operator.regionId,
    relatedRegionId: operator.related?.regionId ?? 0,
    relatedOperatorId: planned ? 0 : (operator.related?.id ?? 0),
    desc: operator.maker,
    brief: operator.brief,
    kinds: [...operator.kinds],
    priority: PRIORITIES[operator.priority],
    status: STATUSES[operator.status],
    reasonCode: operator.reason?.code ?? '',
    reason: operator.reason?.text ?? '',
    hint: operator.reason?.hint ?? '',
    createdUnixMs: wallMs(operator.created.wallMs),
    startedUnixMs: wallMs(operator.startedWallMs),
    finishedUnixMs: wallMs(operator.finishedWallMs),
    timeoutMs: wallMs(operator.timeoutMs),
    epoch: { confVer: operator.epoch.confVer, version: operator.epoch.version },
    steps: stepsToWire(operator, config),
    phases: phaseProgress(operator, config).map((phase) => ({
      name: phase.name,
      state: STEP_STATES[phase.state],
      startedUnixMs: wallMs(phase.startedWallMs),
      finishedUnixMs: wallMs(phase.finishedWallMs),
      detail: phase.detail,
    })),
    cancelable: operator.isCancelable,
    isMergeSource: operator.isMergeSource,
    isMergeTarget: operator.isMergeTarget,
    note: operator.note,
    lastRefusal: operator.lastRefusal === undefined ? undefined : stepRefusalToWire(operator.lastRefusal),
  };
}
