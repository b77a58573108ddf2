/** Changes of what administrators set for a store: checking them, and the record that follows. */
import type { StoreLabel } from '../../meta/region.ts';
import { type Refusal, refuse } from '../schedule/verdict.ts';
import { DEFAULT_STORE_SETTINGS, type StoreRecord, changedSettings, mergeLabels } from './store-info.ts';

/** Absent parts stay as they are. */
export interface StoreSettingsChange {
  readonly leadersEvicted?: boolean;
  readonly leaderWeight?: number;
  readonly regionWeight?: number;
  /** Null returns to the cluster's setting; 0 = no limit. */
  readonly limitPerMinute?: number | null;
  /** Added to the store's labels, or put in their place. An empty value removes a label. */
  readonly labels?: readonly StoreLabel[];
  readonly replaceLabels?: boolean;
}

export const WEIGHT_MIN = 0.01;
export const WEIGHT_MAX = 100;
export const STORE_LIMIT_MAX = 1_000_000;
export const LABELS_MAX = 32;
export const LABEL_CHARS_MAX = 128;
const LABEL_KEY: RegExp = /^[A-Za-z0-9][A-Za-z0-9_./-]*$/u;

/** Why a change makes no sense; undefined if it does. */
export function problemOfSettings(change: StoreSettingsChange): Refusal | undefined {
  for (const [name, weight] of [
    ['leader weight', change.leaderWeight],
    ['region weight', change.regionWeight],
  ] as const) {
    if (weight !== undefined && !(weight >= WEIGHT_MIN && weight <= WEIGHT_MAX)) {
      return refuse('InvalidArgument', `the ${name} ${weight} is out of range`, `give ${WEIGHT_MIN} to ${WEIGHT_MAX}`);
    }
  }
  const { limitPerMinute } = change;
  if (
    limitPerMinute !== undefined &&
    limitPerMinute !== null &&
    !(Number.isSafeInteger(limitPerMinute) && limitPerMinute >= 0 && limitPerMinute <= STORE_LIMIT_MAX)
  ) {
    return refuse(
      'InvalidArgument',
      `the limit ${limitPerMinute} is out of range`,
      `give 0 (no limit) to ${STORE_LIMIT_MAX} peers a minute`,
    );
  }
  const labels = change.labels ?? [];
  const bad = labels.find(
    ({ key, value }) => !LABEL_KEY.test(key) || key.length > LABEL_CHARS_MAX || value.length > LABEL_CHARS_MAX,
  );
  if (bad !== undefined || labels.length > LABELS_MAX) {
    return refuse(
      'InvalidArgument',
      bad === undefined ? `${labels.length} labels are too many` : `${bad.key}=${bad.value} is not a label`,
      `give at most ${LABELS_MAX} labels; keys are letters, digits and _ . / -, at most ${LABEL_CHARS_MAX} characters`,
    );
  }
  return undefined;
}

export function changedRecord(record: StoreRecord, change: StoreSettingsChange): StoreRecord {
  const old = record.settings ?? DEFAULT_STORE_SETTINGS;
  const { labels } = change;
  const merged =
    labels === undefined
      ? record.store.labels
      : mergeLabels(change.replaceLabels === true ? [] : record.store.labels, labels);
  return {
    ...record,
    store: { ...record.store, labels: merged.filter((label) => label.value !== '') },
    settings: changedSettings(record, {
      leadersEvicted: change.leadersEvicted ?? old.leadersEvicted,
      leaderWeight: change.leaderWeight ?? old.leaderWeight,
      regionWeight: change.regionWeight ?? old.regionWeight,
      limitPerMinute: change.limitPerMinute === null ? undefined : (change.limitPerMinute ?? old.limitPerMinute),
    }),
  };
}

/** Whether a change left labels and settings as they were. */
export function sameRecord(a: StoreRecord, b: StoreRecord): boolean {
  const text = ({ store, settings = DEFAULT_STORE_SETTINGS }: StoreRecord): string =>
    JSON.stringify([
      store.labels.map(({ key, value }) => [key, value]),
      settings.leadersEvicted,
      settings.leaderWeight,
      settings.regionWeight,
      settings.limitPerMinute ?? null,
    ]);
  return text(a) === text(b);
}
