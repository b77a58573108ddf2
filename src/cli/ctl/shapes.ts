/** How stores, regions, operators and events look, in tables and in documents. Field names are API. */
import { formatBytes } from '../../base/units.ts';
import type { KeyRange } from '../../base/key-range.ts';
import type {
  AdminPeer,
  AuditEntry,
  ClusterEvent,
  OperatorInfo,
  OperatorStep,
  Problem,
  RegionDetails,
  StepRefusal,
  StoreInfo,
  SwitchInfo,
} from '../../client/admin-wire.ts';
import { type Column, formatTable } from '../output/table.ts';
import type { ListShape, Section, Single } from '../output/printer.ts';
import { section } from '../output/printer.ts';
import { type KeyFormat, formatAge, formatCount, formatEnd, formatKey, formatStart } from '../text-form.ts';

export const timeText = (unixMs: number | undefined): string | undefined =>
  unixMs === undefined ? undefined : new Date(unixMs).toISOString();
const ageText = (ms: number | undefined): string => (ms === undefined ? 'never' : formatAge(ms));

/** Time between two moments of an operator or step; undefined while one of them has not come. */
const spanMs = (from: number | undefined, to: number | undefined): number | undefined =>
  from === undefined || to === undefined ? undefined : Math.max(0, to - from);

// -------------------------------------------------------------------------------------------------------- stores

const labelText = (store: StoreInfo): string =>
  Object.entries(store.labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');

export const STORE_SHAPE: ListShape<StoreInfo> = {
  kind: 'StoreList',
  columns: [
    { head: 'id', cell: (store) => store.id, align: 'right' },
    { head: 'address', cell: (store) => store.address },
    { head: 'state', cell: (store) => store.state },
    { head: 'regions', cell: (store) => store.regionCount, align: 'right' },
    { head: 'leaders', cell: (store) => store.leaderCount, align: 'right' },
    {
      head: 'size',
      cell: (store) => formatBytes(store.regionSizeBytes),
      value: (store) => store.regionSizeBytes,
      align: 'right',
    },
    {
      head: 'used',
      cell: (store) => formatBytes(store.usedBytes),
      value: (store) => store.usedBytes,
      align: 'right',
    },
    {
      head: 'capacity',
      cell: (store) => formatBytes(store.capacityBytes),
      value: (store) => store.capacityBytes,
      align: 'right',
    },
    {
      head: 'heartbeat',
      cell: (store) => ageText(store.lastHeartbeatAgeMs),
      value: (store) => store.lastHeartbeatAgeMs,
      align: 'right',
    },
    { head: 'version', cell: (store) => store.version, isWide: true },
    { head: 'status-address', cell: (store) => store.statusAddress, isWide: true },
    { head: 'labels', cell: labelText, isWide: true },
  ],
  toObject: storeObject,
  name: (store) => String(store.id),
};

export function storeObject(store: StoreInfo): Record<string, unknown> {
  return { ...store, startedAt: store.startUnixMs === 0 ? undefined : timeText(store.startUnixMs) };
}

export function storeSingle(store: StoreInfo): Single {
  return {
    document: { kind: 'Store', ...storeObject(store) },
    name: String(store.id),
    fields: [
      { name: 'id', value: store.id },
      { name: 'address', value: store.address },
      { name: 'status address', value: store.statusAddress },
      { name: 'state', value: `${store.state}${store.isBusy ? ', busy' : ''}${store.isStopping ? ', stopping' : ''}` },
      { name: 'version', value: store.version },
      { name: 'labels', value: labelText(store) },
      {
        name: 'settings',
        value: `${store.leadersEvicted ? 'leads nothing, ' : ''}leader weight ${store.leaderWeight}, region weight ${store.regionWeight}, ${store.limitPerMinute === 0 ? 'no limit' : `${store.limitPerMinute} large replicas a minute`}`,
      },
      { name: 'settings version', value: store.settingsVersion },
      ...(store.removal === undefined
        ? []
        : [
            {
              name: 'draining',
              value: `${store.regionCount} of ${store.removal.peers} replicas left since ${timeText(store.removal.sinceUnixMs)}`,
            },
          ]),
      { name: 'last heartbeat', value: ageText(store.lastHeartbeatAgeMs) },
      {
        name: 'regions',
        value: `${store.regionCount} (${store.leaderCount} leaders, ${store.learnerCount} learners, ${store.pendingPeerCount} pending)`,
      },
      { name: 'region size', value: formatBytes(store.regionSizeBytes) },
      {
        name: 'disk',
        value: `${formatBytes(store.usedBytes)} used, ${formatBytes(store.availableBytes)} available of ${formatBytes(store.capacityBytes)}`,
      },
      {
        name: 'snapshots',
        value: `${store.sendingSnapshots} sending, ${store.receivingSnapshots} receiving, ${store.applyingSnapshots} applying`,
      },
    ],
    sections: store.blockers.length === 0 ? [] : [problemSection('Not removed yet because', store.blockers)],
  };
}

const PROBLEM_COLUMNS: readonly Column<Problem>[] = [
  { head: 'code', cell: (problem) => problem.code },
  { head: 'problem', cell: (problem) => problem.message },
  { head: 'next step', cell: (problem) => problem.hint },
];

export const PROBLEM_SHAPE: ListShape<Problem> = {
  kind: 'ProblemList',
  columns: PROBLEM_COLUMNS,
  toObject: (problem) => ({ ...problem }),
};

export const SWITCH_SHAPE: ListShape<SwitchInfo> = {
  kind: 'SwitchList',
  columns: [
    { head: 'name', cell: (one) => one.name },
    {
      head: 'state',
      cell: ({ enabled, offUntilUnixMs }) =>
        enabled ? 'on' : `off${offUntilUnixMs === undefined ? '' : ` until ${timeText(offUntilUnixMs) ?? ''}`}`,
    },
    { head: 'idle because', cell: (one) => one.idleReason },
    { head: 'what', cell: (one) => one.description },
    { head: 'version', cell: (one) => one.version, align: 'right', isWide: true },
  ],
  toObject: ({ offUntilUnixMs, ...rest }) => ({ ...rest, offUntil: timeText(offUntilUnixMs) }),
  name: (one) => one.name,
};

export const problemSection = (title: string, problems: readonly Problem[]): Section =>
  section(title, PROBLEM_COLUMNS, problems);

// -------------------------------------------------------------------------------------------------------- regions

/** `1*` marks the leader's store; roles other than voter are named. */
export function peersText(region: RegionDetails): string {
  return region.peers
    .map((peer) => {
      const isLeader = region.leader?.id === peer.id;
      return `${peer.storeId}${isLeader ? '*' : ''}${peer.role === 'voter' ? '' : `(${peer.role})`}`;
    })
    .join(',');
}

/** What keeps a region from being ordinary; empty when nothing does. */
function remarkText(region: RegionDetails): string {
  const remarks: string[] = [];
  if (region.leader === undefined) {
    remarks.push('no leader');
  }
  if (region.merging) {
    remarks.push('merging');
  }
  if (region.partition !== undefined) {
    remarks.push(`Partition ${region.partition}`);
  } else if (region.pinned) {
    remarks.push('pinned');
  }
  if (region.pause !== undefined) {
    remarks.push('paused');
  }
  if (region.downPeers.length > 0) {
    remarks.push(`${region.downPeers.length} down`);
  }
  if (region.pendingPeers.length > 0) {
    remarks.push(`${region.pendingPeers.length} pending`);
  }
  if (region.damagedPeerIds.length > 0) {
    remarks.push(`${region.damagedPeerIds.length} damaged`);
  }
  if (region.operatorId !== undefined) {
    remarks.push(`operator ${region.operatorId}`);
  }
  return remarks.join(', ');
}

/** Open ends are null; `range` says the same in words. */
export function rangeObject(range: KeyRange, format: KeyFormat): Record<string, unknown> {
  return {
    startKey: range.start.length === 0 ? null : formatKey(range.start, format),
    endKey: range.end.length === 0 ? null : formatKey(range.end, format),
    range: rangeText(range, format),
  };
}

export const rangeText = (range: KeyRange, format: KeyFormat): string =>
  `[${formatStart(range.start, format)}, ${formatEnd(range.end, format)})`;

export function regionObject(region: RegionDetails, format: KeyFormat): Record<string, unknown> {
  const { id, range, leader, consistency, pause, ...rest } = region;
  return {
    id,
    ...rangeObject(range, format),
    leader: leader ?? null,
    ...rest,
    consistency:
      consistency === undefined
        ? null
        : { index: consistency.index, result: consistency.result, at: timeText(consistency.unixMs) },
    pause:
      pause === undefined
        ? null
        : {
            reason: pause.reason,
            by: pause.actor,
            since: timeText(pause.sinceUnixMs),
            until: timeText(pause.untilUnixMs),
            regionId: pause.regionId,
          },
  };
}

/** Who paused a region, until when and why. */
function pauseText({ pause }: RegionDetails): string {
  if (pause === undefined) {
    return 'no';
  }
  const until = pause.untilUnixMs === undefined ? 'until it is resumed' : `until ${timeText(pause.untilUnixMs) ?? ''}`;
  return `by ${pause.actor} ${until}${pause.reason === '' ? '' : `: ${pause.reason}`}`;
}

/** When the replicas were compared, and with what result. */
export function consistencyText({ consistency }: RegionDetails): string {
  return consistency === undefined
    ? 'not compared yet'
    : `${consistency.result} at log index ${consistency.index}, ${timeText(consistency.unixMs) ?? ''}`;
}

/** For `ctl check consistency`. */
export function consistencyShape(format: KeyFormat): ListShape<RegionDetails> {
  return {
    kind: 'ConsistencyList',
    columns: [
      { head: 'region', cell: (region) => region.id, align: 'right' },
      { head: 'range', cell: (region) => rangeText(region.range, format) },
      { head: 'result', cell: (region) => region.consistency?.result ?? 'not compared yet' },
      { head: 'index', cell: (region) => region.consistency?.index ?? '', align: 'right' },
      { head: 'compared', cell: (region) => timeText(region.consistency?.unixMs) ?? '' },
      {
        head: 'damaged',
        cell: (region) =>
          region.peers
            .filter((peer) => region.damagedPeerIds.includes(peer.id))
            .map((peer) => `peer ${peer.id} on store ${peer.storeId}`)
            .join(', '),
      },
    ],
    toObject: (region) => regionObject(region, format),
    name: (region) => String(region.id),
  };
}

export function regionShape(format: KeyFormat): ListShape<RegionDetails> {
  return {
    kind: 'RegionList',
    columns: [
      { head: 'id', cell: (region) => region.id, align: 'right' },
      { head: 'start', cell: (region) => formatStart(region.range.start, format) },
      { head: 'end', cell: (region) => formatEnd(region.range.end, format) },
      { head: 'stores', cell: peersText },
      {
        head: 'size',
        cell: (region) => formatBytes(region.sizeBytes),
        value: (region) => region.sizeBytes,
        align: 'right',
      },
      { head: 'keys', cell: (region) => formatCount(region.keys), value: (region) => region.keys, align: 'right' },
      { head: 'epoch', cell: (region) => `${region.epoch.confVer}:${region.epoch.version}` },
      { head: 'remarks', cell: remarkText },
      { head: 'term', cell: (region) => region.term, align: 'right', isWide: true },
      {
        head: 'written/s',
        cell: (region) => formatBytes(region.bytesWrittenPerSecond),
        value: (region) => region.bytesWrittenPerSecond,
        align: 'right',
        isWide: true,
      },
      {
        head: 'read/s',
        cell: (region) => formatBytes(region.bytesReadPerSecond),
        value: (region) => region.bytesReadPerSecond,
        align: 'right',
        isWide: true,
      },
      {
        head: 'reported',
        cell: (region) => ageText(region.lastReportAgeMs),
        value: (region) => region.lastReportAgeMs,
        align: 'right',
        isWide: true,
      },
    ],
    toObject: (region) => regionObject(region, format),
    name: (region) => String(region.id),
  };
}

interface PeerRow extends AdminPeer {
  readonly isLeader: boolean;
  readonly state: string;
}

const PEER_COLUMNS: readonly Column<PeerRow>[] = [
  { head: 'peer', cell: (peer) => peer.id, align: 'right' },
  { head: 'store', cell: (peer) => peer.storeId, align: 'right' },
  { head: 'role', cell: (peer) => `${peer.role}${peer.isLeader ? ', leader' : ''}` },
  { head: 'state', cell: (peer) => peer.state },
];

function peerRows(region: RegionDetails): PeerRow[] {
  return region.peers.map((peer) => {
    const down = region.downPeers.find((d) => d.peer.id === peer.id);
    const isPending = region.pendingPeers.some((p) => p.id === peer.id);
    return {
      ...peer,
      isLeader: region.leader?.id === peer.id,
      state: region.damagedPeerIds.includes(peer.id)
        ? 'damaged, serves nothing'
        : down === undefined
          ? isPending
            ? 'catching up'
            : 'ok'
          : `down for ${formatAge(down.downSeconds * 1000)}`,
    };
  });
}

export interface RegionView {
  readonly region: RegionDetails;
  readonly previous: RegionDetails | undefined;
  readonly next: RegionDetails | undefined;
}

export function regionSingle({ region, previous, next }: RegionView, format: KeyFormat): Single {
  const neighbour = (other: RegionDetails | undefined): string =>
    other === undefined ? 'none' : `${other.id} ${rangeText(other.range, format)}`;
  return {
    document: {
      kind: 'Region',
      ...regionObject(region, format),
      previousId: previous?.id ?? null,
      nextId: next?.id ?? null,
    },
    name: String(region.id),
    fields: [
      { name: 'id', value: region.id },
      { name: 'start', value: formatStart(region.range.start, format) },
      { name: 'end', value: formatEnd(region.range.end, format) },
      { name: 'epoch', value: `conf_ver ${region.epoch.confVer}, version ${region.epoch.version}` },
      {
        name: 'leader',
        value:
          region.leader === undefined
            ? 'none'
            : `peer ${region.leader.id} on store ${region.leader.storeId}, term ${region.term}`,
      },
      { name: 'size', value: `${formatBytes(region.sizeBytes)}, ${formatCount(region.keys)} keys` },
      {
        name: 'traffic',
        value: `${formatBytes(region.bytesWrittenPerSecond)}/s written, ${formatBytes(region.bytesReadPerSecond)}/s read`,
      },
      {
        name: 'merging',
        value: region.merging ? 'yes, writes wait until the merge is committed or rolled back' : 'no',
      },
      { name: 'operator', value: region.operatorId ?? 'none' },
      {
        name: 'pinned',
        value: region.partition === undefined ? (region.pinned ? 'yes' : 'no') : `by Partition ${region.partition}`,
      },
      { name: 'paused', value: pauseText(region) },
      { name: 'consistency', value: consistencyText(region) },
      { name: 'reported', value: ageText(region.lastReportAgeMs) },
      { name: 'left of it', value: neighbour(previous) },
      { name: 'right of it', value: neighbour(next) },
    ],
    sections: [section('Peers', PEER_COLUMNS, peerRows(region))],
  };
}

// ------------------------------------------------------------------------------------------------------ operators

/** Name of the phase or step under way; the last finished one of an ended operator. */
export function currentPhase(operator: OperatorInfo): string {
  const phases =
    operator.phases.length > 0
      ? operator.phases
      : operator.steps.map((step) => ({ name: step.type, state: step.state }));
  const current = phases.find((phase) => phase.state === 'running' || phase.state === 'failed');
  return (current ?? phases.findLast((phase) => phase.state === 'done') ?? phases[0])?.name ?? '';
}

const tookMs = (operator: OperatorInfo, nowUnixMs: number): number | undefined =>
  spanMs(operator.startedUnixMs ?? operator.createdUnixMs, operator.finishedUnixMs ?? nowUnixMs);

const tookText = (operator: OperatorInfo, nowUnixMs: number): string => {
  const ms = tookMs(operator, nowUnixMs);
  return ms === undefined ? '' : formatAge(ms);
};

const reasonText = (operator: OperatorInfo): string => {
  const why = operator.reason === '' ? operator.reasonCode : operator.reason;
  return why === '' ? operator.note : why;
};

function stepObject(step: OperatorStep): Record<string, unknown> {
  const { startedUnixMs, finishedUnixMs, ...rest } = step;
  return {
    ...rest,
    startedAt: timeText(startedUnixMs),
    finishedAt: timeText(finishedUnixMs),
    tookMs: spanMs(startedUnixMs, finishedUnixMs),
  };
}

export function refusalObject({ unixMs, ...refusal }: StepRefusal): Record<string, unknown> {
  return { ...refusal, at: timeText(unixMs) };
}

export function operatorObject(operator: OperatorInfo): Record<string, unknown> {
  const { createdUnixMs, startedUnixMs, finishedUnixMs, steps, phases, lastRefusal, ...rest } = operator;
  return {
    ...rest,
    lastRefusal: lastRefusal === undefined ? null : refusalObject(lastRefusal),
    createdAt: timeText(createdUnixMs),
    startedAt: timeText(startedUnixMs),
    finishedAt: timeText(finishedUnixMs),
    tookMs: spanMs(startedUnixMs, finishedUnixMs),
    steps: steps.map(stepObject),
    phases: phases.map((phase) => ({
      name: phase.name,
      state: phase.state,
      detail: phase.detail,
      startedAt: timeText(phase.startedUnixMs),
      finishedAt: timeText(phase.finishedUnixMs),
      tookMs: spanMs(phase.startedUnixMs, phase.finishedUnixMs),
    })),
  };
}

export function operatorShape(nowUnixMs: number): ListShape<OperatorInfo> {
  return {
    kind: 'OperatorList',
    columns: [
      { head: 'id', cell: (operator) => operator.id, align: 'right' },
      { head: 'region', cell: (operator) => operator.regionId, align: 'right' },
      { head: 'what', cell: (operator) => operator.brief },
      { head: 'status', cell: (operator) => operator.status },
      { head: 'phase', cell: currentPhase },
      {
        head: 'time',
        cell: (operator) => tookText(operator, nowUnixMs),
        value: (operator) => tookMs(operator, nowUnixMs),
        align: 'right',
      },
      { head: 'reason', cell: reasonText },
      { head: 'made-by', cell: (operator) => operator.desc, isWide: true },
      { head: 'priority', cell: (operator) => operator.priority, isWide: true },
      { head: 'created', cell: (operator) => timeText(operator.createdUnixMs) ?? '', isWide: true },
    ],
    toObject: operatorObject,
    name: (operator) => String(operator.id),
  };
}

const STEP_COLUMNS: readonly Column<OperatorStep>[] = [
  { head: '', cell: (step) => (step.current ? '>' : ' ') },
  { head: 'step', cell: (step) => step.text },
  { head: 'state', cell: (step) => step.state },
  { head: 'time', cell: (step) => textOr(spanMs(step.startedUnixMs, step.finishedUnixMs)), align: 'right' },
  { head: 'sent', cell: (step) => step.sends, align: 'right' },
  { head: 'detail', cell: (step) => step.detail },
];

const textOr = (ms: number | undefined): string => (ms === undefined ? '' : formatAge(ms));

/** `store 2 refused LogGapTooLarge 3 times: …` */
export const refusalText = ({ storeId, code, count, message }: StepRefusal): string =>
  `store ${storeId} refused ${code}${count > 1 ? ` ${count} times` : ''}: ${message}`;

function refusalFields({ lastRefusal, status }: OperatorInfo): Single['fields'] {
  if (lastRefusal === undefined) {
    return [];
  }
  const ends = status === 'running' || status === 'created' ? lastRefusal.hint : '';
  return [
    { name: 'last refusal', value: refusalText(lastRefusal) },
    ...(ends === '' ? [] : [{ name: 'what helps', value: ends }]),
  ];
}

export function operatorSingle(operator: OperatorInfo, nowUnixMs: number): Single {
  const sections: Section[] = [];
  if (operator.phases.length > 0) {
    sections.push({
      title: 'Phases',
      text: (hasHead) =>
        formatTable(
          [
            { head: 'phase', cell: (phase: OperatorInfo['phases'][number]) => phase.name },
            { head: 'state', cell: (phase) => phase.state },
            {
              head: 'time',
              cell: (phase) => textOr(spanMs(phase.startedUnixMs, phase.finishedUnixMs)),
              align: 'right',
            },
            { head: 'detail', cell: (phase) => phase.detail },
          ],
          operator.phases,
          hasHead,
        ),
    });
  }
  sections.push(section('Steps', STEP_COLUMNS, operator.steps));
  return {
    document: { kind: 'Operator', ...operatorObject(operator) },
    name: String(operator.id),
    fields: [
      { name: 'id', value: operator.id },
      { name: 'what', value: operator.brief },
      {
        name: 'region',
        value:
          operator.relatedRegionId === undefined
            ? operator.regionId
            : `${operator.regionId}, with ${operator.relatedRegionId}`,
      },
      { name: 'made by', value: operator.desc },
      { name: 'status', value: operator.status },
      { name: 'reason', value: reasonText(operator) },
      { name: 'next step', value: operator.hint },
      ...refusalFields(operator),
      { name: 'created', value: timeText(operator.createdUnixMs) ?? '' },
      { name: 'time', value: tookText(operator, nowUnixMs) },
      { name: 'time limit', value: formatAge(operator.timeoutMs) },
      { name: 'cancelable', value: operator.cancelable ? 'yes' : 'no' },
    ],
    sections,
  };
}

// --------------------------------------------------------------------------------------------------------- events

export const EVENT_SHAPE: ListShape<ClusterEvent> = {
  kind: 'EventList',
  columns: [
    { head: 'time', cell: (event) => timeText(event.unixMs) ?? '' },
    { head: 'type', cell: (event) => event.type },
    { head: 'event', cell: (event) => event.message },
    { head: 'by', cell: (event) => event.actor },
    { head: 'reason', cell: (event) => event.reason },
    { head: 'sequence', cell: ({ sequence }) => (sequence === 0 ? '' : sequence), align: 'right', isWide: true },
    { head: 'audit', cell: (event) => event.auditSequence ?? '', align: 'right', isWide: true },
  ],
  // What an earlier lead noted has a number in the audit log alone.
  toObject: ({ unixMs, sequence, ...event }) => ({
    sequence: sequence === 0 ? undefined : sequence,
    ...event,
    time: timeText(unixMs),
  }),
  name: ({ sequence, auditSequence }) => (sequence === 0 ? `audit-${auditSequence}` : String(sequence)),
};

export const AUDIT_SHAPE: ListShape<AuditEntry> = {
  kind: 'AuditLog',
  columns: [
    { head: 'sequence', cell: (entry) => entry.sequence, align: 'right' },
    { head: 'time', cell: (entry) => timeText(entry.unixMs) ?? '' },
    { head: 'by', cell: (entry) => entry.actor },
    { head: 'what', cell: (entry) => entry.message },
    { head: 'reason', cell: (entry) => entry.reason },
    { head: 'type', cell: (entry) => entry.type, isWide: true },
    { head: 'region', cell: (entry) => entry.regionId ?? '', align: 'right', isWide: true },
    { head: 'store', cell: (entry) => entry.storeId ?? '', align: 'right', isWide: true },
    { head: 'operator', cell: (entry) => entry.operatorId ?? '', align: 'right', isWide: true },
  ],
  toObject: ({ unixMs, ...entry }) => ({ ...entry, time: timeText(unixMs) }),
  name: (entry) => String(entry.sequence),
};
