/**
 * Settings of the placement service that administrators may change while it runs: their names as configuration files
 * write them, the limits of their values, and how they are read and written as text. A value set at run time wins over
 * the file; which ones are set is part of the replicated state. What is not in this table needs a restart.
 */
import { GIB, KIB, MIB, parseDurationMs, parseSizeBytes } from '../base/units.ts';
import type { Author } from './cluster/events.ts';
import { LABEL_CHARS_MAX } from './cluster/store-settings.ts';
import {
  type AllocationConfig,
  DEFAULT_ALLOCATION_CONFIG,
  DEFAULT_PLACEMENT_CONFIG,
  type PlacementConfig,
  checkPlacementConfig,
} from './defaults.ts';
import { DEFAULT_GROUP_CONFIG, type GroupConfig } from './group/config.ts';
import { RULE_REPLICAS_MAX } from './schedule/placement/rule.ts';
import { type Refusal, type Result, ok, refuse, refused } from './schedule/verdict.ts';

export type SettingValue = number | boolean | readonly string[];

/** What is set at run time, as one value of the replicated state. */
export interface RunTimeSettings {
  /** Grows with every change; 0 = nothing was ever set. */
  readonly version: number;
  /** By the names of the settings. A name that this program does not know has no effect. */
  readonly values: ReadonlyMap<string, SettingValue>;
  /** Who made the latest change and why; undefined before the first one. */
  readonly author: Author | undefined;
  /** Wall clock of the latest change; 0 before the first one. */
  readonly changedWallMs: number;
}

export const NO_SETTINGS: RunTimeSettings = Object.freeze({
  version: 0,
  values: new Map<string, SettingValue>(),
  author: undefined,
  changedWallMs: 0,
});

/** The settings as they are to be, written as one command. */
export interface SettingsChange {
  /** Version they were planned on. */
  readonly baseVersion: number;
  readonly settings: RunTimeSettings;
}

/** Read once when the service starts, or said to the stores as well. */
type FixedKey = 'eventHistoryMax' | 'regionMaxSizeBytes' | 'regionMaxKeys';
export type SettableKey = Exclude<keyof PlacementConfig, FixedKey>;

type SettingKind = 'duration' | 'size' | 'integer' | 'ratio' | 'boolean' | 'labels';

export interface RunTimeSetting {
  readonly property: SettableKey;
  /** As in configuration files, without section and unit. */
  readonly name: string;
  readonly kind: SettingKind;
  /** Both inclusive; of durations ms, of sizes bytes, of labels how many. */
  readonly min: number;
  readonly max: number;
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const TIB = 1_024 * GIB;
const LOCATION_LABELS_MAX = 16;

const LIMITS: Readonly<Record<SettableKey, readonly [kind: SettingKind, min: number, max: number]>> = {
  maxReplicas: ['integer', 1, RULE_REPLICAS_MAX],
  locationLabels: ['labels', 0, LOCATION_LABELS_MAX],
  jointConsensus: ['boolean', 0, 1],
  storeDisconnectedMs: ['duration', 100, HOUR],
  storeDownMs: ['duration', 100, 7 * DAY],
  stepStoreSilentMs: ['duration', 100, DAY],
  storeCheckMs: ['duration', 100, HOUR],
  storeHeartbeatSaveMs: ['duration', 0, DAY],
  lowSpaceRatio: ['ratio', 0.01, 1],
  leaderScheduleLimit: ['integer', 0, 100_000],
  regionScheduleLimit: ['integer', 0, 100_000],
  replicaScheduleLimit: ['integer', 0, 100_000],
  mergeScheduleLimit: ['integer', 0, 100_000],
  runningOperatorsMax: ['integer', 1, 100_000],
  waitingPerMakerMax: ['integer', 1, 10_000],
  storeLimitPerMinute: ['integer', 1, 1_000_000],
  storeSnapshotsMax: ['integer', 1, 10_000],
  storePendingPeersMax: ['integer', 1, 10_000],
  operatorExpiryMs: ['duration', 100, HOUR],
  fastStepMs: ['duration', SECOND, DAY],
  fastStepMsPerMib: ['integer', 0, HOUR],
  slowStepMs: ['duration', SECOND, DAY],
  slowStepMsPerMib: ['integer', 0, HOUR],
  pushIntervalMs: ['duration', 10, MINUTE],
  pushQuickMs: ['duration', 10, 10 * MINUTE],
  pushSlowMs: ['duration', 10, 10 * MINUTE],
  operatorHistoryMax: ['integer', 1, 100_000],
  patrolIntervalMs: ['duration', 10, MINUTE],
  patrolBatchMax: ['integer', 1, 10_000],
  schedulerIntervalMs: ['duration', 10, 10 * MINUTE],
  warmupReportedRatio: ['ratio', 0, 1],
  warmupMaxMs: ['duration', 0, HOUR],
  leaderTolerance: ['integer', 0, 10_000],
  regionToleranceRatio: ['ratio', 0, 1_000],
  reconcileIntervalMs: ['duration', 10, MINUTE],
  proxyThresholdMs: ['duration', 0, DAY],
  splitMergeIntervalMs: ['duration', 0, 7 * DAY],
  mergeSourceSizeMaxBytes: ['size', 0, TIB],
  mergeSourceKeysMax: ['integer', 0, 1_000_000_000],
  mergedSizeMaxBytes: ['size', 1, TIB],
};

/** `storeDownMs` is `store-down`, `mergedSizeMaxBytes` is `merged-size-max`, as in configuration files. */
const nameOf = (property: string): string =>
  property.replace(/(?:Ms|Bytes)$/, '').replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

export const RUN_TIME_SETTINGS: readonly RunTimeSetting[] = Object.freeze(
  (Object.entries(LIMITS) as [SettableKey, (typeof LIMITS)[SettableKey]][]).map(([property, [kind, min, max]]) =>
    Object.freeze({ property, name: nameOf(property), kind, min, max }),
  ),
);

export const settingOf = (name: string): RunTimeSetting | undefined =>
  RUN_TIME_SETTINGS.find((setting) => setting.name === name);

/** Why a known setting cannot change while the service runs, by its name; what to do instead. */
const FIXED: ReadonlyMap<string, string> = new Map([
  [
    nameOf('eventHistoryMax' satisfies FixedKey),
    'set placement.event-history-max in the configuration of every member of the placement service and restart them one by one',
  ],
  ...(['regionMaxSizeBytes', 'regionMaxKeys'] satisfies FixedKey[]).map(
    (property) =>
      [
        nameOf(property),
        `stores split by it: set raftstore.${nameOf(property)} of every store and placement.${nameOf(property)} of every member of the placement service, and restart them one by one`,
      ] as const,
  ),
  ...(Object.keys(DEFAULT_ALLOCATION_CONFIG) as (keyof AllocationConfig)[]).map(inFile('allocation')),
  ...(Object.keys(DEFAULT_GROUP_CONFIG) as (keyof GroupConfig)[]).map(inFile('group')),
]);

function inFile(section: string): (property: string) => readonly [string, string] {
  return (property) => [
    nameOf(property),
    `set ${section}.${nameOf(property)} in the configuration of every member of the placement service and restart them one by one`,
  ];
}

/** What to do about a setting that needs a restart; undefined for other names. */
export const restartHint = (name: string): string | undefined => FIXED.get(name);

// ------------------------------------------------------------------------------------------------------ effect

export interface EffectiveSettings {
  readonly config: PlacementConfig;
  /** Why nothing of what is set at run time has an effect; undefined if all of it has. */
  readonly problem: string | undefined;
}

/**
 * The configuration with what is set at run time. Members may have different files: together with one of them the
 * values may make no sense, and then the file alone counts.
 */
export function effectiveSettings(base: PlacementConfig, values: RunTimeSettings['values']): EffectiveSettings {
  if (values.size === 0) {
    return { config: base, problem: undefined };
  }
  const known = RUN_TIME_SETTINGS.filter(({ name }) => values.has(name)).map(
    ({ property, name }) => [property, values.get(name)] as const,
  );
  const config: PlacementConfig = { ...base, ...(Object.fromEntries(known) as Partial<PlacementConfig>) };
  const problem = checkPlacementConfig(config);
  return problem === undefined ? { config, problem } : { config: base, problem: inNames(problem) };
}

/** A sentence about properties in the names of their settings. */
const inNames = (sentence: string): string =>
  sentence.replaceAll(/[a-z]+(?:[A-Z][A-Za-z]*)/g, (word) => (word in DEFAULT_PLACEMENT_CONFIG ? nameOf(word) : word));

/** Where the value of a setting comes from. */
export type SettingSource = 'default' | 'file' | 'cluster' | 'run-time' | 'scheduler';

export interface SettingShown {
  readonly name: string;
  /** As a document writes it. */
  readonly value: unknown;
  readonly source: SettingSource;
  /** The value without what is set at run time. */
  readonly otherwise: unknown;
}

/**
 * Every setting with its value and where that comes from.
 * @param file what the process was started with: from flags, environment, file and defaults
 * @param base the same with what the cluster itself remembers of its founding
 * @param parameters of checkers and schedulers that take the place of settings
 */
export function showSettings(
  file: PlacementConfig,
  base: PlacementConfig,
  values: RunTimeSettings['values'],
  parameters: Partial<PlacementConfig>,
): SettingShown[] {
  const { config, problem } = effectiveSettings(base, values);
  const isSame = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
  return RUN_TIME_SETTINGS.map((setting) => {
    const { property, name } = setting;
    const source = ((): SettingSource => {
      if (parameters[property] !== undefined) {
        return 'scheduler';
      }
      if (problem === undefined && values.has(name)) {
        return 'run-time';
      }
      if (!isSame(base[property], file[property])) {
        return 'cluster';
      }
      return isSame(base[property], DEFAULT_PLACEMENT_CONFIG[property]) ? 'default' : 'file';
    })();
    return {
      name,
      value: formatValue(setting, parameters[property] ?? config[property]),
      source,
      otherwise: formatValue(setting, base[property]),
    };
  });
}

// ------------------------------------------------------------------------------------------------ reading, writing

const DURATIONS: readonly (readonly [string, number])[] = [
  ['h', HOUR],
  ['m', MINUTE],
  ['s', SECOND],
  ['ms', 1],
];
const SIZES: readonly (readonly [string, number])[] = [
  ['GiB', GIB],
  ['MiB', MIB],
  ['KiB', KIB],
  ['B', 1],
];

/** In the largest unit that leaves a whole number. */
function withUnit(value: number, units: readonly (readonly [string, number])[]): string {
  const found = units.find(([, factor]) => value !== 0 && value % factor === 0) ?? units.at(-1);
  return found === undefined ? String(value) : `${value / found[1]}${found[0]}`;
}

/** A value as documents write it: durations and sizes with their unit, everything else as it is. */
export function formatValue({ kind }: Pick<RunTimeSetting, 'kind'>, value: SettingValue): unknown {
  switch (kind) {
    case 'duration':
      return withUnit(value as number, DURATIONS);
    case 'size':
      return withUnit(value as number, SIZES);
    default:
      return value;
  }
}

/** Reads a value as a document writes it. A refusal names the path of the field and what is allowed there. */
export function parseValue(setting: RunTimeSetting, value: unknown, path: string): Result<SettingValue> {
  const { kind } = setting;
  const no = (problem: string, hint: string): Result<SettingValue> =>
    refused(refuse('InvalidDocument', `${path} ${problem}`, hint, { path }));
  switch (kind) {
    case 'boolean':
      return typeof value === 'boolean' ? ok(value) : no('must be true or false', 'write true or false without quotes');
    case 'labels':
      return parseLabels(setting, value, no);
    case 'duration':
    case 'size': {
      const isDuration = kind === 'duration';
      const zero = value === 0 || value === '0' ? 0 : undefined;
      const parse = isDuration ? parseDurationMs : parseSizeBytes;
      const number = zero ?? (typeof value === 'string' ? parse(value) : undefined);
      const example = isDuration ? '250ms, 10s or 5m' : '512KiB or 8MiB';
      return number === undefined
        ? no(`must be a ${isDuration ? 'duration' : 'size'} with its unit`, `write it like ${example}`)
        : inLimits(setting, Math.round(number), path);
    }
    case 'integer':
    case 'ratio':
      if (
        typeof value !== 'number' ||
        !Number.isFinite(value) ||
        (kind === 'integer' && !Number.isSafeInteger(value))
      ) {
        const what = kind === 'integer' ? 'a whole number' : 'a number';
        return no(`must be ${what}`, `write ${what} without quotes`);
      }
      return inLimits(setting, value, path);
  }
}

function inLimits(setting: RunTimeSetting, value: number, path: string): Result<SettingValue> {
  const { min, max } = setting;
  if (value >= min && value <= max) {
    return ok(value);
  }
  const shown = (number: number): string => String(formatValue(setting, number));
  return refused(
    refuse('InvalidDocument', `${path} must not be ${shown(value)}`, `give ${shown(min)} to ${shown(max)}`, {
      path,
      min: shown(min),
      max: shown(max),
    }),
  );
}

function parseLabels(
  { max }: RunTimeSetting,
  value: unknown,
  no: (problem: string, hint: string) => Result<SettingValue>,
): Result<SettingValue> {
  if (!Array.isArray(value) || value.length > max) {
    return no(`must be a list of at most ${max} labels`, 'write the widest first, for example [zone, rack, host]');
  }
  const labels = value as readonly unknown[];
  const isLabel = (label: unknown): label is string =>
    typeof label === 'string' && label.length > 0 && label.length <= LABEL_CHARS_MAX;
  if (!labels.every(isLabel)) {
    return no('holds something that is not a label', `labels are text of 1 to ${LABEL_CHARS_MAX} characters`);
  }
  return new Set(labels.map((label) => label.toLowerCase())).size === labels.length
    ? ok([...labels])
    : no('names a label twice', 'name each label once; upper and lower case do not differ');
}

/** Why values that make sense one by one make none together with the rest; the path of the first one that is involved. */
export function relationRefusal(base: PlacementConfig, values: RunTimeSettings['values']): Refusal | undefined {
  const { problem } = effectiveSettings(base, values);
  if (problem === undefined) {
    return undefined;
  }
  const named = problem.split(/[\s,]+/).find((word) => values.has(word));
  const path = named === undefined ? 'spec' : `spec.${named}`;
  const text = named !== undefined && problem.startsWith(named) ? `spec.${problem}` : `${path}: ${problem}`;
  return refuse('InvalidDocument', text, 'see what holds now: braid ctl describe config placement', { path });
}
