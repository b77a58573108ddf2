/** What happened lately, for people: a bounded list in order. Lost at a restart. */
import type { RegionId, StoreId } from '../../base/ids.ts';
import { isLeftNeighbour, rangeCovers, rangesEqual } from '../../base/key-range.ts';
import type { RegionInfo } from './region-info.ts';

export type EventType =
  | 'bootstrap'
  | 'region-created'
  | 'split'
  | 'merge'
  | 'leader-changed'
  | 'peers-changed'
  | 'store-joined'
  | 'member-removed'
  | 'store-state'
  | 'store-settings'
  | 'operator-started'
  | 'operator-ended'
  | 'step-refused'
  | 'replica-damaged'
  | 'switch'
  | 'scheduler-changed'
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
}

/** Who asks for a change, and why. */
export interface Author {
  readonly actor: string;
  readonly reason: string;
}

export type EventInput = Omit<ClusterEvent, 'sequence' | 'wallMs'>;

export class EventList {
  readonly #max: number;
  #events: ClusterEvent[] = [];
  #sequence = 0;

  constructor(max: number) {
    this.#max = max;
  }

  add(event: EventInput, wallMs: number): void {
    this.#sequence++;
    this.#events.push({ ...event, sequence: this.#sequence, wallMs });
    if (this.#events.length > this.#max * 2) {
      this.#events = this.#events.slice(-this.#max);
    }
  }

  /** Events with a greater sequence number, oldest first, at most `limit`. */
  after(sequence: number, limit: number): ClusterEvent[] {
    return this.#kept()
      .filter((event) => event.sequence > sequence)
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
