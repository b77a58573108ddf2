/**
 * The numbers that checkers and schedulers work with and that administrators may change at run time: their units,
 * ranges and defaults. A parameter that stands for a setting of the service has the configured value as its default and
 * takes the place of that setting everywhere while it is set.
 */
import { MIB } from '../../base/units.ts';
import type { PlacementConfig } from '../defaults.ts';
import type { SwitchName } from './switches.ts';

/** `count` and `milliseconds` are whole numbers, as are bytes; a `ratio` may have a fraction. */
export type ParameterUnit = 'count' | 'ratio' | 'bytes' | 'bytes-per-second' | 'milliseconds';

export interface ParameterSpec {
  readonly name: string;
  readonly unit: ParameterUnit;
  readonly description: string;
  readonly defaultOf: (config: PlacementConfig) => number;
  /** Smallest and largest value, both allowed. */
  readonly minOf: (config: PlacementConfig) => number;
  readonly maxOf: (config: PlacementConfig) => number;
  /** The setting of the service it takes the place of. */
  readonly setting: ParameterSetting | undefined;
}

/** Settings of the service that are parameters, too. */
export type ParameterSetting =
  | 'leaderTolerance'
  | 'regionToleranceRatio'
  | 'leaderScheduleLimit'
  | 'regionScheduleLimit'
  | 'replicaScheduleLimit'
  | 'mergeScheduleLimit'
  | 'splitMergeIntervalMs'
  | 'mergeSourceSizeMaxBytes'
  | 'mergeSourceKeysMax';

/** The parameters of each part that has some, in the order in which they are shown. */
export interface ParameterNames {
  readonly 'balance-leader': 'tolerance' | 'batch' | 'limit' | 'interval';
  readonly 'balance-region': 'tolerance' | 'batch' | 'limit' | 'interval';
  readonly 'evict-leader': 'batch' | 'interval';
  readonly 'grant-leader': 'batch' | 'interval';
  readonly 'hot-region': 'ratio' | 'min-rate' | 'rest' | 'interval';
  readonly 'shuffle-leader': 'batch' | 'interval';
  readonly 'shuffle-region': 'batch' | 'interval';
  readonly 'random-merge': 'batch' | 'interval';
  readonly 'merge-checker': 'max-merge-region-size' | 'max-merge-region-keys' | 'limit' | 'split-merge-interval';
  readonly 'replica-checker': 'limit';
  readonly 'split-checker': 'batch';
}

export type ParameterOwner = keyof ParameterNames;

/** Parts that work in rounds. */
export type RoundOwner = {
  [S in ParameterOwner]: 'interval' extends ParameterNames[S] ? S : never;
}[ParameterOwner];

/** Parts that make a number of operators at a time. */
export type BatchOwner = {
  [S in ParameterOwner]: 'batch' extends ParameterNames[S] ? S : never;
}[ParameterOwner];

/** Operators of one round. */
const BATCH_MAX = 64;
/** Borders of placement rules at which one operator splits a region. */
const BORDERS_MAX = 128;
/** Leaders of one store above another one. */
const LEADER_TOLERANCE_MAX = 100_000;
/** Multiples of the average region size. */
const REGION_TOLERANCE_MAX = 1_000;
const HOT_RATIO_MAX = 100;
const HOT_RATE_MAX_BYTES: number = 1024 * 1024 * MIB;
const HOUR_MS: number = 60 * 60 * 1_000;
const DAY_MS: number = 24 * HOUR_MS;

type Bound = number | ((config: PlacementConfig) => number);

const boundOf = (bound: Bound): ((config: PlacementConfig) => number) =>
  typeof bound === 'number' ? () => bound : bound;

const spec = <N extends string>(
  name: N,
  unit: ParameterUnit,
  description: string,
  [initial, min, max]: readonly [initial: Bound, min: Bound, max: Bound],
): ParameterSpec & { readonly name: N } => ({
  name,
  unit,
  description,
  defaultOf: boundOf(initial),
  minOf: boundOf(min),
  maxOf: boundOf(max),
  setting: undefined,
});

/** The configured value is in range whatever it is: a service is not refused what it was started with. */
const settingSpec = <N extends string>(
  name: N,
  unit: ParameterUnit,
  description: string,
  setting: ParameterSetting,
  [min, max]: readonly [min: Bound, max: Bound],
): ParameterSpec & { readonly name: N } => ({
  name,
  unit,
  description,
  defaultOf: (config) => config[setting],
  minOf: (config) => Math.min(boundOf(min)(config), config[setting]),
  maxOf: (config) => Math.max(boundOf(max)(config), config[setting]),
  setting,
});

const limit = (what: string, setting: ParameterSetting): ParameterSpec & { readonly name: 'limit' } =>
  settingSpec('limit', 'count', what, setting, [0, (config) => config.runningOperatorsMax]);

const batch = (initial: number): ParameterSpec & { readonly name: 'batch' } =>
  spec('batch', 'count', 'Operators it makes per round at most.', [initial, 1, BATCH_MAX]);

/** Rounds cannot be more frequent than the clock that all schedulers share. */
const interval: ParameterSpec & { readonly name: 'interval' } = spec(
  'interval',
  'milliseconds',
  'Time between two rounds, to the nearest scheduler-interval of the service.',
  [
    (config) => config.schedulerIntervalMs,
    (config) => config.schedulerIntervalMs,
    (config) => Math.max(HOUR_MS, config.schedulerIntervalMs),
  ],
);

type Specs = { readonly [S in ParameterOwner]: readonly (ParameterSpec & { readonly name: ParameterNames[S] })[] };

const SPECS: Specs = {
  'balance-leader': [
    settingSpec(
      'tolerance',
      'count',
      'Leaders a store may have above another one before a leader is moved.',
      'leaderTolerance',
      [1, LEADER_TOLERANCE_MAX],
    ),
    batch(4),
    limit('Most running operators that move leaders, of all schedulers together. 0 stops them.', 'leaderScheduleLimit'),
    interval,
  ],
  'balance-region': [
    settingSpec(
      'tolerance',
      'ratio',
      'Difference of data between two stores, in average regions, from which one is moved.',
      'regionToleranceRatio',
      [0, REGION_TOLERANCE_MAX],
    ),
    batch(1),
    limit('Most running operators that move regions, of all schedulers together. 0 stops them.', 'regionScheduleLimit'),
    interval,
  ],
  'evict-leader': [batch(8), interval],
  'grant-leader': [batch(8), interval],
  'hot-region': [
    spec('ratio', 'ratio', 'Traffic of the busiest store, as a multiple of what the other one would have afterwards.', [
      1.25,
      1,
      HOT_RATIO_MAX,
    ]),
    spec('min-rate', 'bytes-per-second', 'Regions and stores with less traffic are never hot.', [
      1 * MIB,
      1,
      HOT_RATE_MAX_BYTES,
    ]),
    spec(
      'rest',
      'milliseconds',
      'A region whose lead was moved for its traffic keeps it so long: reports lag behind.',
      [60_000, 0, HOUR_MS],
    ),
    interval,
  ],
  'shuffle-leader': [batch(1), interval],
  'shuffle-region': [batch(1), interval],
  'random-merge': [batch(1), interval],
  'merge-checker': [
    settingSpec(
      'max-merge-region-size',
      'bytes',
      'Larger regions are never merged away automatically.',
      'mergeSourceSizeMaxBytes',
      [0, (config) => config.regionMaxSizeBytes],
    ),
    settingSpec(
      'max-merge-region-keys',
      'count',
      'Regions with more keys are never merged away automatically.',
      'mergeSourceKeysMax',
      [0, (config) => config.regionMaxKeys],
    ),
    limit('Most running operators that merge regions; a merge counts two. 0 stops merges.', 'mergeScheduleLimit'),
    settingSpec(
      'split-merge-interval',
      'milliseconds',
      'A region is not merged automatically so long after a split, nor after a start of the service.',
      'splitMergeIntervalMs',
      [0, 7 * DAY_MS],
    ),
  ],
  'replica-checker': [
    limit(
      'Most running operators that repair replicas, of all checkers together. 0 stops repairs.',
      'replicaScheduleLimit',
    ),
  ],
  'split-checker': [
    spec('batch', 'count', 'Borders of placement rules at which one operator splits a region.', [16, 1, BORDERS_MAX]),
  ],
};

const isOwner = (name: SwitchName): name is SwitchName & ParameterOwner => Object.hasOwn(SPECS, name);

/** The parameters of a checker or scheduler; some have none. */
export const parametersOf = (name: SwitchName): readonly ParameterSpec[] => (isOwner(name) ? SPECS[name] : []);

/** Counts, times and bytes are whole. */
export const isWholeUnit = (unit: ParameterUnit): boolean => unit !== 'ratio';
