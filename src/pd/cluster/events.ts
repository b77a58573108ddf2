/**
 * What happened lately, for people: a bounded list in order. Lost at a restart; those that the audit log keeps, too,
 * carry their number there.
 */
import type { RegionId, StoreId } from '../../base/ids.ts';
import { isLeftNeighbour, rangeCovers, rangesEqual } from '../../base/key-range.ts';
import { AUDIT_TEXT_CHARS_MAX, type AuditInput } from '../state/audit-log.ts';
import type { RegionInfo } from './region-info.ts';

export type EventType =
  | 'bootstrap'
  | 'region-created'
  | 'split'
  | 'merge'
  | 'leader-changed'
  | 'peers-changed'
  | 'store-joined'
  | 'member-added'
  | 'member-removed'
  | 'member-leader'
  | 'store-state'
  | 'store-settings'
  | 'operator-started'
  | 'operator-ended'
  | 'operator-canceled'
  | 'step-refused'
  | 'replica-damaged'
  | 'switch'
  | 'scheduler-changed'
  | 'replica-count'
  | 'region-pinned'
  | 'region-paused'
  | 'rule-changed'
  | 'config-changed'
  | 'document';

export interface ClusterEvent {
  /** Grows by one per event while this process lives. */
  readonly sequence: number;
  readonly wallMs: number;
  readonly type: EventType;
  readonly message: string;
  readonly regionId?: RegionId;
  readonly storeId?: StoreId;
  readonly operatorId?: number;
  readonly actor?: string;
  /** What the actor gave as the reason; undefined or empty when none was. */
  readonly reason?: string;
  /** Its number in the audit log; absent for events that are not kept there. */
  readonly audit?: number;
}

/** Who asks for a change, and why. */
export interface Author {
  readonly actor: string;
  readonly reason: string;
}

export type EventInput = Omit<ClusterEvent, 'sequence' | 'wallMs' | 'audit'>;

/** The entry of the audit log that tells of the same as an event. */
export const auditOf = (event: EventInput, wallMs: number): AuditInput => ({
  wallMs: Math.max(0, Math.floor(wallMs)),
  type: event.type,
  message: event.message.substring(0, AUDIT_TEXT_CHARS_MAX),
  actor: (event.actor ?? '').substring(0, AUDIT_TEXT_CHARS_MAX),
  reason: (event.reason ?? '').substring(0, AUDIT_TEXT_CHARS_MAX),
  regionId: event.regionId ?? 0,
  storeId: event.storeId ?? 0,
  operatorId: event.operatorId ?? 0,
});

export class EventList {
  readonly #max: number;
  #events: ClusterEvent[] = [];
  #sequence = 0;
  /** In their order. */
  readonly #pending = new Set<number>();

  constructor(max: number) {
    this.#max = max;
  }

  /** @param audit its number in the audit log; `pending`: nobody sees it, or what comes after it, before `settle` */
  add(event: EventInput, wallMs: number, audit?: number | 'pending'): number {
    const sequence = ++this.#sequence;
    this.#events.push({ ...event, sequence, wallMs, ...(typeof audit === 'number' ? { audit } : {}) });
    if (audit === 'pending') {
      this.#pending.add(sequence);
    }
    if (this.#events.length > this.#max * 2) {
      this.#events = this.#events.slice(-this.#max);
    }
    return sequence;
  }

  /** The entry for a pending event is durable, or will never be. */
  settle(sequence: number, audit: number | undefined): void {
    this.#pending.delete(sequence);
    const at = this.#events.findIndex((event) => event.sequence === sequence);
    const event = this.#events[at];
    if (event !== undefined && audit !== undefined) {
      this.#events[at] = { ...event, audit };
    }
  }

  /** Events with a greater sequence number, oldest first, at most `limit`. */
  after(sequence: number, limit: number): ClusterEvent[] {
    const [end = Number.POSITIVE_INFINITY] = this.#pending;
    return this.#kept()
      .filter((event) => event.sequence > sequence && event.sequence < end)
      .slice(0, limit);
  }

  get oldestSequence(): number {
    return this.#kept()[0]?.sequence ?? this.#sequence + 1;
  }

  #kept(): ClusterEvent[] {
    return this.#events.slice(-this.#max);
  }
}

/** Events that follow from an accepted report. */
export function eventsOfReport(
  info: RegionInfo,
  previous: RegionInfo | undefined,
  evicted: readonly RegionInfo[],
): EventInput[] {
  const { region } = info;
  const events: EventInput[] = [];
  for (const gone of evicted) {
    if (rangeCovers(region.range, gone.region.range)) {
      events.push({
        type: 'merge',
        message: `region ${gone.region.id} was merged into region ${region.id}`,
        regionId: region.id,
      });
    }
  }
  if (previous === undefined) {
    events.push({ type: 'region-created', message: `region ${region.id} appeared`, regionId: region.id });
    return events;
  }
  const before = previous.region;
  if (!rangesEqual(before.range, region.range) && rangeCovers(before.range, region.range)) {
    const side = isLeftNeighbour(region.range, { start: region.range.end, end: before.range.end }) ? 'right' : 'left';
    events.push({ type: 'split', message: `region ${region.id} gave its ${side} part away`, regionId: region.id });
  }
  if (before.epoch.confVer !== region.epoch.confVer) {
    const stores = region.peers
      .map((peer) => peer.storeId + (peer.role === 'voter' ? '' : ` (${peer.role})`))
      .join(', ');
    events.push({
      type: 'peers-changed',
      message: `region ${region.id} now has peers on stores ${stores}`,
      regionId: region.id,
    });
  }
  if (previous.leader !== undefined && info.leader !== undefined && previous.leader.id !== info.leader.id) {
    events.push({
      type: 'leader-changed',
      message: `the leader of region ${region.id} moved from store ${previous.leader.storeId} to store ${info.leader.storeId}`,
      regionId: region.id,
      storeId: info.leader.storeId,
    });
  }
  return events;
}
