/**
 * What the placement service believes about one store: the persisted record plus the last heartbeat. Liveness is
 * computed from the age of the heartbeat and never stored.
 */
import type { StoreHeartbeat } from '../../meta/heartbeat.ts';
import type { Store, StoreLabel } from '../../meta/region.ts';
import type { PlacementConfig } from '../defaults.ts';

/** The persisted part. */
export interface StoreRecord {
  readonly store: Store;
  /** The machine and its disk are gone; the removal cannot be taken back. */
  readonly physicallyDestroyed: boolean;
  /** Wall clock of a recent heartbeat, written seldom; 0 = never. */
  readonly lastHeartbeatWallMs: number;
  /** How often the store had started when it announced itself last; absent if it never said so. */
  readonly starts?: number;
  /** Absent = the defaults. */
  readonly settings?: StoreSettings;
}

/** What administrators have set for one store. It outlives restarts of the store and of the placement service. */
export interface StoreSettings {
  /** Leaders are moved away and none is moved there. */
  readonly leadersEvicted: boolean;
  /** Share of leaders and of data relative to other stores, 0.01 to 100. */
  readonly leaderWeight: number;
  readonly regionWeight: number;
  /** Peers of large regions added to, or removed from, the store per minute; 0 = no limit; undefined = the cluster's setting. */
  readonly limitPerMinute: number | undefined;
  /** Set while the store is being emptied: when that began and how much it held then. */
  readonly removal: { readonly sinceWallMs: number; readonly peers: number; readonly sizeBytes: number } | undefined;
  /** Changes of the settings, the labels and the wanted state since the store joined. */
  readonly version: number;
}

export const DEFAULT_STORE_SETTINGS: StoreSettings = Object.freeze({
  leadersEvicted: false,
  leaderWeight: 1,
  regionWeight: 1,
  limitPerMinute: undefined,
  removal: undefined,
  version: 0,
});

export const settingsOf = (info: StoreInfo | undefined): StoreSettings =>
  info?.record.settings ?? DEFAULT_STORE_SETTINGS;

/** The settings with one change more. */
export const changedSettings = (record: StoreRecord, change: Partial<StoreSettings>): StoreSettings => {
  const old = record.settings ?? DEFAULT_STORE_SETTINGS;
  return { ...old, ...change, version: old.version + 1 };
};

export interface StoreInfo {
  readonly record: StoreRecord;
  readonly stats: StoreHeartbeat | undefined;
  /** Monotonic time of the last heartbeat, or of loading the record: a restarted service must not call a store down. */
  readonly seenAtMs: number;
}

/** `offline` and `tombstone` come from the record, the others from the age of the heartbeat. */
export type StoreLiveness = 'up' | 'disconnected' | 'down';

export function livenessOf(info: StoreInfo, config: PlacementConfig, nowMs: number): StoreLiveness {
  const silentMs = nowMs - info.seenAtMs;
  if (silentMs >= config.storeDownMs) {
    return 'down';
  }
  return silentMs >= config.storeDisconnectedMs ? 'disconnected' : 'up';
}

export const isUp = (info: StoreInfo): boolean => info.record.store.state === 'up';

/** Value of a label; keys are compared without case. */
export function labelOf(labels: readonly StoreLabel[], key: string): string | undefined {
  const wanted = key.toLowerCase();
  return labels.find((label) => label.key.toLowerCase() === wanted)?.value;
}

/** Whether both hold the same labels, in whatever order. */
export const labelsEqual = (a: readonly StoreLabel[], b: readonly StoreLabel[]): boolean =>
  a.length === b.length && a.every(({ key, value }) => labelOf(b, key) === value);

/** Labels of `added` replace those with the same key; the others stay. */
export function mergeLabels(old: readonly StoreLabel[], added: readonly StoreLabel[]): readonly StoreLabel[] {
  const replaced = new Set(added.map((label) => label.key.toLowerCase()));
  return [...old.filter((label) => !replaced.has(label.key.toLowerCase())), ...added];
}

/** Whether less than the allowed share of the capacity is left. Unknown capacity is not low. */
export function isLowOnSpace(info: StoreInfo, config: PlacementConfig): boolean {
  const stats = info.stats;
  return (
    stats !== undefined &&
    stats.capacityBytes > 0 &&
    stats.availableBytes / stats.capacityBytes < 1 - config.lowSpaceRatio
  );
}

/**
 * How far apart two stores are along the location labels: the number of levels from the first differing one on, so 0
 * means the same innermost domain. A missing label counts as a domain of its own value: the empty one.
 */
export function distance(a: Store, b: Store, locationLabels: readonly string[]): number {
  for (const [level, key] of locationLabels.entries()) {
    if (labelOf(a.labels, key) !== labelOf(b.labels, key)) {
      return locationLabels.length - level;
    }
  }
  return 0;
}

/** Weight of one level of distance: larger than the number of replicas any region has. */
const ISOLATION_BASE = 100;

/** How well `candidate` is separated from `others`; larger is better (tikv/pd DistinctScore). */
export function isolationScore(candidate: Store, others: readonly Store[], locationLabels: readonly string[]): number {
  let score = 0;
  for (const other of others) {
    if (other.id !== candidate.id) {
      const levels = distance(candidate, other, locationLabels);
      score += levels === 0 ? 0 : ISOLATION_BASE ** (levels - 1);
    }
  }
  return score;
}
