/** The administration service's answers in the SDK's words: what the command line prints and the dashboard shows. */
import { copyBytes } from '../base/bytes.ts';
import type { KeyRange } from '../base/key-range.ts';
import type { Method } from '../rpc/method.ts';
import type { adminMethods, processMethods } from '../rpc/services.ts';
import type { PeerRole, RegionEpoch } from '../meta/region.ts';

type ReplyOf<M> = M extends Method<infer _Request, infer R> ? R : never;
type Admin = typeof adminMethods;
type WireStatus = ReplyOf<Admin['getStatus']>;
type WireProblem = WireStatus['problems'][number];
type WireStore = NonNullable<ReplyOf<Admin['getStore']>['store']>;
type WireRegion = NonNullable<ReplyOf<Admin['getRegion']>['region']>;
type WirePeer = WireRegion['peers'][number];
type WireRegionList = ReplyOf<Admin['listRegions']>;
export type WireSubmission = ReplyOf<Admin['moveRegion']>;
type WireOperator = NonNullable<WireSubmission['operator']>;
type WireStep = WireOperator['steps'][number];
type WirePhase = WireOperator['phases'][number];
export type WireRefusal = NonNullable<WireSubmission['refusal']>;
type WireExplanation = ReplyOf<Admin['explainMerge']>;
type WireFinding = ReplyOf<Admin['explain']>['findings'][number];
type WireSwitch = ReplyOf<Admin['listSwitches']>['switches'][number];
type WirePauseAnswer = ReplyOf<Admin['pauseRegion']>;
type WireSettings = ReplyOf<(typeof processMethods)['getSettings']>;
type WireEvents = ReplyOf<Admin['listEvents']>;
type WireAudit = ReplyOf<Admin['listAudit']>;

export interface WireHeader {
  readonly clusterId: string;
  readonly actor: string;
  readonly reason: string;
}

/** Something that keeps the cluster from being healthy, or a store from being removed. */
export interface Problem {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  /** Undefined when no store is concerned. */
  readonly storeId: number | undefined;
  readonly regionId: number | undefined;
}

/** What a store or placement member runs with. */
export interface ProcessSettings {
  /** Of the program; empty if it does not say. */
  readonly version: string;
  /** `store` or `pd` */
  readonly role: string;
  /** By `section.key`, in the order of the configuration file. */
  readonly settings: ReadonlyMap<string, ProcessSetting>;
}

export interface ProcessSetting {
  /** Durations are milliseconds, sizes bytes. */
  readonly value: unknown;
  /** As it is written in a file, such as `"96MiB"`. */
  readonly text: string;
  /** `default`, `file`, `environment` or `flag` */
  readonly origin: string;
}

export const processSettingsFromWire = ({ version, role, settings }: WireSettings): ProcessSettings => ({
  version,
  role,
  settings: new Map(
    settings.map(({ name, value, text, origin }) => [name, { value: JSON.parse(value) as unknown, text, origin }]),
  ),
});

export interface PlacementMember {
  readonly name: string;
  readonly id: number;
  readonly clientUrls: readonly string[];
  readonly isLeader: boolean;
  /** A member that has just joined votes when it has caught up. */
  readonly isVoter: boolean;
  /** Heard from within the last election timeout. */
  readonly isAnswering: boolean;
  /** Log entries it is behind the leader. */
  readonly lag: number;
}

export interface StoresSummary {
  readonly up: number;
  readonly disconnected: number;
  readonly down: number;
  readonly removing: number;
  readonly removed: number;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly availableBytes: number;
}

export interface RegionsSummary {
  readonly total: number;
  readonly withoutLeader: number;
  readonly withDownPeers: number;
  readonly withPendingPeers: number;
  readonly underReplicated: number;
  readonly overReplicated: number;
  readonly inJointState: number;
  readonly withLearners: number;
  /** Parts of the key space that no known region covers. */
  readonly holes: number;
  readonly sizeBytes: number;
  readonly keys: number;
  /** Regions whose leader has reported since the placement leader started. */
  readonly reported: number;
}

export interface ClusterStatus {
  readonly clusterId: bigint;
  readonly bootstrapped: boolean;
  readonly members: readonly PlacementMember[];
  readonly stores: StoresSummary;
  readonly regions: RegionsSummary;
  readonly runningOperators: number;
  /** Empty means healthy. */
  readonly problems: readonly Problem[];
  /** Before enough regions were heard from nothing is scheduled. */
  readonly warmup: {
    readonly done: boolean;
    readonly reportedRegions: number;
    readonly knownRegions: number;
    readonly elapsedMs: number;
    readonly limitMs: number;
  };
  readonly maxReplicas: number;
  readonly uptimeMs: number;
}

export type AdminStoreState = 'unknown' | 'up' | 'disconnected' | 'down' | 'removing' | 'removed';
export type StoreTarget = 'up' | 'removing' | 'removed';

export interface StoreInfo {
  readonly id: number;
  readonly address: string;
  readonly statusAddress: string;
  readonly state: AdminStoreState;
  readonly labels: Readonly<Record<string, string>>;
  readonly version: string;
  readonly capacityBytes: number;
  readonly availableBytes: number;
  readonly usedBytes: number;
  readonly regionCount: number;
  readonly leaderCount: number;
  readonly learnerCount: number;
  readonly pendingPeerCount: number;
  readonly regionSizeBytes: number;
  /** Undefined before the first heartbeat. */
  readonly lastHeartbeatAgeMs: number | undefined;
  readonly startUnixMs: number;
  readonly isBusy: boolean;
  readonly isStopping: boolean;
  readonly sendingSnapshots: number;
  readonly receivingSnapshots: number;
  readonly applyingSnapshots: number;
  /** Why a store that is being removed is not removed yet. */
  readonly blockers: readonly Problem[];
  /** Set by an administrator: leaders are moved away and none is moved there. */
  readonly leadersEvicted: boolean;
  readonly leaderWeight: number;
  readonly regionWeight: number;
  /** Large peers added or removed per minute and direction; 0 = no limit. */
  readonly limitPerMinute: number;
  /** False while the limit is the cluster's. */
  readonly limitIsOwn: boolean;
  /** Undefined while the store is not being emptied. */
  /** Changes of the settings, the labels and the wanted state since the store joined; what `expectVersion` compares. */
  readonly settingsVersion: number;
  readonly removal: { readonly sinceUnixMs: number; readonly peers: number; readonly sizeBytes: number } | undefined;
}

/** What an administrator changes about a store; absent parts stay as they are. */
export interface StoreSettingsChange {
  readonly leadersEvicted?: boolean;
  /** 0.01 to 100. */
  readonly leaderWeight?: number;
  readonly regionWeight?: number;
  /** 0 = no limit, null = the cluster's limit. */
  readonly limitPerMinute?: number | null;
  /** Added to those the store has; an empty value removes a label. */
  readonly labels?: Readonly<Record<string, string>>;
  /** The labels take the place of those the store has. */
  readonly replaceLabels?: boolean;
}

/** One finding of an explanation. */
export interface Finding {
  readonly name: string;
  readonly passed: boolean;
  readonly detail: string;
  readonly refusal: { readonly code: string; readonly message: string; readonly hint: string } | undefined;
}

export const findingFromWire = ({ name, detail, refusal }: WireFinding): Finding => ({
  name,
  passed: refusal === undefined,
  detail,
  refusal: refusal === undefined ? undefined : { code: refusal.code, message: refusal.message, hint: refusal.hint },
});

export interface AdminPeer {
  readonly id: number;
  readonly storeId: number;
  readonly role: PeerRole;
}

export interface RegionDetails {
  readonly id: number;
  readonly range: KeyRange;
  readonly epoch: RegionEpoch;
  readonly peers: readonly AdminPeer[];
  readonly leader: AdminPeer | undefined;
  readonly term: number;
  readonly sizeBytes: number;
  readonly keys: number;
  readonly downPeers: readonly { readonly peer: AdminPeer; readonly downSeconds: number }[];
  readonly pendingPeers: readonly AdminPeer[];
  /** Of the running operator. */
  readonly operatorId: number | undefined;
  /** A merge of this region is prepared. */
  readonly merging: boolean;
  readonly bytesWrittenPerSecond: number;
  readonly bytesReadPerSecond: number;
  /** Undefined before the leader's first report. */
  readonly lastReportAgeMs: number | undefined;
  /** Neither split nor merged automatically. */
  readonly pinned: boolean;
  /** Name of the Partition that has this range. */
  readonly partition: string | undefined;
  /** The latest comparison of the replicas. */
  readonly consistency: ConsistencyCheck | undefined;
  /** Peers whose data differ from the others'; they serve nothing. */
  readonly damagedPeerIds: readonly number[];
  /** Undefined unless it is paused: then the placement service does nothing with it. */
  readonly pause: RegionPause | undefined;
}

export interface RegionPause {
  readonly reason: string;
  readonly actor: string;
  readonly sinceUnixMs: number;
  /** Undefined = until it is resumed. */
  readonly untilUnixMs: number | undefined;
  /** The region that was named; another one after a split or a merge. */
  readonly regionId: number;
}

/** What became of a request to pause or resume a region. */
export interface PauseAnswer {
  readonly changed: boolean;
  readonly stoppedOperatorIds: readonly number[];
  /** Merges that the stores finish or roll back by themselves. */
  readonly goingOperatorIds: readonly number[];
}

export interface ConsistencyCheck {
  /** Log index behind which the replicas were compared. */
  readonly index: number;
  readonly unixMs: number;
  /** `consistent`, `divergent`, `unclear` or `incomplete`. */
  readonly result: string;
}

export interface RegionNeighbourhood {
  readonly region: RegionDetails;
  /** Undefined at the ends of the key space and next to a hole. */
  readonly previous: RegionDetails | undefined;
  readonly next: RegionDetails | undefined;
}

export interface RegionList {
  readonly regions: readonly RegionDetails[];
  /** Gaps between the listed regions. */
  readonly holes: readonly KeyRange[];
  /** Whether there are more regions than asked for. */
  readonly more: boolean;
}

const FILTERS = [
  'all',
  'without-leader',
  'down-peer',
  'pending-peer',
  'under-replicated',
  'over-replicated',
  'joint-state',
  'learner',
  'with-operator',
  'paused',
] as const;
export type RegionFilter = (typeof FILTERS)[number];
export const REGION_FILTERS: readonly RegionFilter[] = FILTERS;

export type OperatorStatus =
  | 'unknown'
  | 'created'
  | 'running'
  | 'success'
  | 'canceled'
  | 'replaced'
  | 'expired'
  | 'timeout';
export type OperatorPriority = 'low' | 'medium' | 'high' | 'urgent';
export type StepState = 'waiting' | 'running' | 'done' | 'failed' | 'skipped';

export interface OperatorStep {
  readonly type: string;
  readonly text: string;
  readonly state: StepState;
  readonly startedUnixMs: number | undefined;
  readonly finishedUnixMs: number | undefined;
  /** Last thing known, such as the store's refusal; may be empty. */
  readonly detail: string;
  readonly current: boolean;
  /** How often the command was sent. */
  readonly sends: number;
  readonly phase: string;
  readonly timeoutMs: number;
}

export interface OperatorPhase {
  /** For merges `align prepare catch-up commit` (or `rollback`), for moves `add-learner promote transfer remove`. */
  readonly name: string;
  readonly state: StepState;
  readonly startedUnixMs: number | undefined;
  readonly finishedUnixMs: number | undefined;
  readonly detail: string;
}

export interface OperatorInfo {
  readonly id: number;
  readonly regionId: number;
  /** The other half of a merge pair. */
  readonly relatedRegionId: number | undefined;
  readonly relatedOperatorId: number | undefined;
  /** Who made it, such as `admin-merge-region`. */
  readonly desc: string;
  /** What it does, such as `merge region 7 into 8`. */
  readonly brief: string;
  readonly kinds: readonly string[];
  readonly priority: OperatorPriority;
  readonly status: OperatorStatus;
  /** Stable word for an end without success; empty otherwise. */
  readonly reasonCode: string;
  readonly reason: string;
  readonly hint: string;
  readonly createdUnixMs: number | undefined;
  readonly startedUnixMs: number | undefined;
  readonly finishedUnixMs: number | undefined;
  readonly timeoutMs: number;
  /** The region's epoch when the operator was made. */
  readonly epoch: RegionEpoch;
  readonly steps: readonly OperatorStep[];
  readonly phases: readonly OperatorPhase[];
  /** False once a merge was prepared: only the stores decide then between commit and rollback. */
  readonly cancelable: boolean;
  readonly isMergeSource: boolean;
  readonly isMergeTarget: boolean;
  /** Given by the one who asked. */
  readonly note: string;
  /** The last step a store would not carry out. */
  readonly lastRefusal: StepRefusal | undefined;
}

/** Every word with which a store refuses a step. */
export { STEP_REFUSALS } from '../meta/step-refusal.ts';

/** A step of an operator that a store refused; it changed nothing. */
export interface StepRefusal {
  /** Stable word such as `LogGapTooLarge`. */
  readonly code: string;
  readonly message: string;
  /** What to do next. */
  readonly hint: string;
  readonly storeId: number;
  readonly regionId: number;
  /** Of the latest one. */
  readonly unixMs: number;
  /** How often in a row. */
  readonly count: number;
  /** The operator was ended for it; else the step is sent again. */
  readonly lasting: boolean;
  readonly step: string;
}

export interface MergeCheck {
  readonly name: string;
  readonly passed: boolean;
  /** Why it did not pass. */
  readonly refusal: { readonly code: string; readonly message: string; readonly hint: string } | undefined;
}

export interface MergeExplanation {
  readonly allowed: boolean;
  readonly checks: readonly MergeCheck[];
  /** The steps the merge would take. */
  readonly steps: readonly OperatorStep[];
  /** What a store refused of the latest attempt. */
  readonly lastRefusal: StepRefusal | undefined;
}

export interface SwitchInfo {
  readonly name: string;
  readonly enabled: boolean;
  readonly description: string;
  /** Why it does nothing now although it is on; empty when it works or is off. */
  readonly idleReason: string;
  /** When one that is off goes on again by itself; undefined = when it is switched on. */
  readonly offUntilUnixMs: number | undefined;
  /** How often it was set. */
  readonly version: number;
}

export interface ClusterEvent {
  readonly sequence: number;
  readonly unixMs: number;
  readonly type: string;
  readonly message: string;
  readonly regionId: number | undefined;
  readonly storeId: number | undefined;
  readonly operatorId: number | undefined;
  readonly actor: string;
  /** What the actor gave as the reason; empty when none was given. */
  readonly reason: string;
  /** Its number in the audit log; undefined for events that are not kept there. */
  readonly auditSequence: number | undefined;
}

/** An entry of the audit log. */
export interface AuditEntry {
  /** From 1, without gaps, whoever leads. */
  readonly sequence: number;
  readonly unixMs: number;
  /** The word of the event that tells of the same. */
  readonly type: string;
  readonly message: string;
  readonly regionId: number | undefined;
  readonly storeId: number | undefined;
  readonly operatorId: number | undefined;
  /** Empty for what the placement service did by itself. */
  readonly actor: string;
  readonly reason: string;
}

export interface AuditPage {
  readonly entries: readonly AuditEntry[];
  /** Entries before this number are forgotten. */
  readonly oldestSequence: number;
  /** Of the latest entry; 0 = there is none. */
  readonly lastSequence: number;
}

export interface ClusterEvents {
  readonly events: readonly ClusterEvent[];
  /** Events before this sequence number are forgotten. */
  readonly oldestSequence: number;
  /** The placement lead that noted them; sequence numbers begin again with every lead. */
  readonly term: number;
}

const STORE_STATES: readonly AdminStoreState[] = ['unknown', 'up', 'disconnected', 'down', 'removing', 'removed'];
const STORE_TARGETS: readonly (StoreTarget | 'unknown')[] = ['unknown', 'up', 'removing', 'removed'];
const OPERATOR_STATUSES: readonly OperatorStatus[] = [
  'unknown',
  'created',
  'running',
  'success',
  'canceled',
  'replaced',
  'expired',
  'timeout',
];
const PRIORITIES: readonly OperatorPriority[] = ['low', 'medium', 'high', 'urgent'];
const STEP_STATES: readonly StepState[] = ['waiting', 'running', 'done', 'failed', 'skipped'];
const ROLES: readonly PeerRole[] = ['voter', 'learner', 'incoming-voter', 'demoting-voter'];

/** Whether an operator will not change any more. */
export const isEnded = (status: OperatorStatus): boolean =>
  status !== 'created' && status !== 'running' && status !== 'unknown';

export const filterToWire = (filter: RegionFilter): 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 =>
  FILTERS.indexOf(filter) as 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9;

export const targetToWire = (target: StoreTarget): 0 | 1 | 2 | 3 => STORE_TARGETS.indexOf(target) as 0 | 1 | 2 | 3;

/** Ids and times use 0 for "none". */
const given = (value: number): number | undefined => (value === 0 ? undefined : value);

const problemFromWire = (problem: WireProblem): Problem => ({
  code: problem.code,
  message: problem.message,
  hint: problem.hint,
  storeId: given(problem.storeId),
  regionId: given(problem.regionId),
});

export const memberFromWire = ({
  name,
  id,
  clientUrls,
  isLeader,
  isVoter,
  isAnswering,
  lag,
}: WireStatus['members'][number]): PlacementMember => ({ name, id, clientUrls, isLeader, isVoter, isAnswering, lag });

export function statusFromWire(status: WireStatus): ClusterStatus {
  const { stores, regions, warmup } = status;
  return {
    clusterId: BigInt(status.clusterId),
    bootstrapped: status.bootstrapped,
    members: status.members.map(memberFromWire),
    stores: {
      up: stores?.up ?? 0,
      disconnected: stores?.disconnected ?? 0,
      down: stores?.down ?? 0,
      removing: stores?.removing ?? 0,
      removed: stores?.removed ?? 0,
      capacityBytes: stores?.capacityBytes ?? 0,
      usedBytes: stores?.usedBytes ?? 0,
      availableBytes: stores?.availableBytes ?? 0,
    },
    regions: {
      total: regions?.total ?? 0,
      withoutLeader: regions?.withoutLeader ?? 0,
      withDownPeers: regions?.withDownPeers ?? 0,
      withPendingPeers: regions?.withPendingPeers ?? 0,
      underReplicated: regions?.underReplicated ?? 0,
      overReplicated: regions?.overReplicated ?? 0,
      inJointState: regions?.inJointState ?? 0,
      withLearners: regions?.withLearners ?? 0,
      holes: regions?.holes ?? 0,
      sizeBytes: regions?.sizeBytes ?? 0,
      keys: regions?.keys ?? 0,
      reported: regions?.reported ?? 0,
    },
    runningOperators: status.runningOperators,
    problems: status.problems.map(problemFromWire),
    warmup: {
      done: warmup?.done ?? false,
      reportedRegions: warmup?.reportedRegions ?? 0,
      knownRegions: warmup?.knownRegions ?? 0,
      elapsedMs: warmup?.elapsedMs ?? 0,
      limitMs: warmup?.limitMs ?? 0,
    },
    maxReplicas: status.maxReplicas,
    uptimeMs: status.uptimeMs,
  };
}

export const storeInfoFromWire = (store: WireStore): StoreInfo => ({
  id: store.id,
  address: store.address,
  statusAddress: store.statusAddress,
  state: STORE_STATES[store.state] ?? 'unknown',
  labels: Object.fromEntries(store.labels.map(({ key, value }) => [key, value])),
  version: store.version,
  capacityBytes: store.capacityBytes,
  availableBytes: store.availableBytes,
  usedBytes: store.usedBytes,
  regionCount: store.regionCount,
  leaderCount: store.leaderCount,
  learnerCount: store.learnerCount,
  pendingPeerCount: store.pendingPeerCount,
  regionSizeBytes: store.regionSizeBytes,
  lastHeartbeatAgeMs: store.heartbeatSeen ? store.lastHeartbeatAgeMs : undefined,
  startUnixMs: store.startUnixMs,
  isBusy: store.isBusy,
  isStopping: store.isStopping,
  sendingSnapshots: store.sendingSnapshots,
  receivingSnapshots: store.receivingSnapshots,
  applyingSnapshots: store.applyingSnapshots,
  blockers: store.blockers.map(problemFromWire),
  leadersEvicted: store.leadersEvicted,
  leaderWeight: store.leaderWeight,
  regionWeight: store.regionWeight,
  limitPerMinute: store.limitPerMinute,
  limitIsOwn: store.limitIsOwn,
  settingsVersion: store.settingsVersion,
  removal:
    store.removingSinceUnixMs === 0
      ? undefined
      : {
          sinceUnixMs: store.removingSinceUnixMs,
          peers: store.removingPeers,
          sizeBytes: store.removingSizeBytes,
        },
});

const peerFromWire = (peer: WirePeer): AdminPeer => ({
  id: peer.id,
  storeId: peer.storeId,
  role: ROLES[peer.role] ?? 'voter',
});

const epochFromWire = (epoch: { readonly confVer: number; readonly version: number } | undefined): RegionEpoch => ({
  confVer: epoch?.confVer ?? 0,
  version: epoch?.version ?? 0,
});

const rangeFromWire = (part: { readonly startKey: Uint8Array; readonly endKey: Uint8Array }): KeyRange => ({
  start: copyBytes(part.startKey),
  end: copyBytes(part.endKey),
});

export const regionDetailsFromWire = (region: WireRegion): RegionDetails => ({
  id: region.id,
  range: rangeFromWire(region),
  epoch: epochFromWire(region.epoch),
  peers: region.peers.map(peerFromWire),
  leader: region.leader === undefined || region.leader.id === 0 ? undefined : peerFromWire(region.leader),
  term: region.term,
  sizeBytes: region.sizeBytes,
  keys: region.keys,
  downPeers: region.downPeers.flatMap(({ peer, downSeconds }) =>
    peer === undefined ? [] : [{ peer: peerFromWire(peer), downSeconds }],
  ),
  pendingPeers: region.pendingPeers.map(peerFromWire),
  operatorId: given(region.operatorId),
  merging: region.merging,
  bytesWrittenPerSecond: region.bytesWrittenPerSecond,
  bytesReadPerSecond: region.bytesReadPerSecond,
  lastReportAgeMs: region.reportSeen ? region.lastReportAgeMs : undefined,
  pinned: region.pinned,
  partition: region.partition === '' ? undefined : region.partition,
  consistency: region.consistency,
  damagedPeerIds: region.damagedPeerIds,
  pause: region.pause === undefined ? undefined : { ...region.pause, untilUnixMs: given(region.pause.untilUnixMs) },
});

export const regionListFromWire = (list: WireRegionList): RegionList => ({
  regions: list.regions.map(regionDetailsFromWire),
  holes: list.holes.map(rangeFromWire),
  more: list.more,
});

const stepFromWire = (step: WireStep): OperatorStep => ({
  type: step.type,
  text: step.text,
  state: STEP_STATES[step.state] ?? 'waiting',
  startedUnixMs: given(step.startedUnixMs),
  finishedUnixMs: given(step.finishedUnixMs),
  detail: step.detail,
  current: step.current,
  sends: step.sends,
  phase: step.phase,
  timeoutMs: step.timeoutMs,
});

const phaseFromWire = (phase: WirePhase): OperatorPhase => ({
  name: phase.name,
  state: STEP_STATES[phase.state] ?? 'waiting',
  startedUnixMs: given(phase.startedUnixMs),
  finishedUnixMs: given(phase.finishedUnixMs),
  detail: phase.detail,
});

export const operatorFromWire = (operator: WireOperator): OperatorInfo => ({
  id: operator.id,
  regionId: operator.regionId,
  relatedRegionId: given(operator.relatedRegionId),
  relatedOperatorId: given(operator.relatedOperatorId),
  desc: operator.desc,
  brief: operator.brief,
  kinds: operator.kinds,
  priority: PRIORITIES[operator.priority] ?? 'medium',
  status: OPERATOR_STATUSES[operator.status] ?? 'unknown',
  reasonCode: operator.reasonCode,
  reason: operator.reason,
  hint: operator.hint,
  createdUnixMs: given(operator.createdUnixMs),
  startedUnixMs: given(operator.startedUnixMs),
  finishedUnixMs: given(operator.finishedUnixMs),
  timeoutMs: operator.timeoutMs,
  epoch: epochFromWire(operator.epoch),
  steps: operator.steps.map(stepFromWire),
  phases: operator.phases.map(phaseFromWire),
  cancelable: operator.cancelable,
  isMergeSource: operator.isMergeSource,
  isMergeTarget: operator.isMergeTarget,
  note: operator.note,
  lastRefusal: operator.lastRefusal,
});

export const explanationFromWire = (explanation: WireExplanation): MergeExplanation => ({
  allowed: explanation.allowed,
  checks: explanation.checks.map(({ name, passed, refusal }) => ({
    name,
    passed,
    refusal: refusal === undefined ? undefined : { code: refusal.code, message: refusal.message, hint: refusal.hint },
  })),
  steps: explanation.steps.map(stepFromWire),
  lastRefusal: explanation.lastRefusal,
});

export const switchFromWire = ({
  name,
  enabled,
  description,
  idleReason,
  offUntilUnixMs,
  version,
}: WireSwitch): SwitchInfo => ({
  name,
  enabled,
  description,
  idleReason,
  offUntilUnixMs: given(offUntilUnixMs),
  version,
});

export const pauseAnswerFromWire = ({
  changed,
  stoppedOperatorIds,
  goingOperatorIds,
}: WirePauseAnswer): PauseAnswer => ({
  changed,
  stoppedOperatorIds,
  goingOperatorIds,
});

export const eventsFromWire = (reply: WireEvents): ClusterEvents => ({
  events: reply.events.map((event) => ({
    sequence: event.sequence,
    unixMs: event.unixMs,
    type: event.type,
    message: event.message,
    regionId: given(event.regionId),
    storeId: given(event.storeId),
    operatorId: given(event.operatorId),
    actor: event.actor,
    reason: event.reason,
    auditSequence: given(event.auditSequence),
  })),
  oldestSequence: reply.oldestSequence,
  term: reply.term,
});

export const auditFromWire = ({ entries, oldestSequence, lastSequence }: WireAudit): AuditPage => ({
  entries: entries.map((entry) => ({
    ...entry,
    regionId: given(entry.regionId),
    storeId: given(entry.storeId),
    operatorId: given(entry.operatorId),
  })),
  oldestSequence,
  lastSequence,
});
