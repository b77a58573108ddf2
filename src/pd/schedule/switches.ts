/** What can be switched on and off at run time. Changed switches are persisted; the others keep these defaults. */
import { assert } from '../../base/assert.ts';
import type { Clock } from '../../env/clock.ts';

export type SwitchName =
  | 'scheduling'
  | 'joint-state-checker'
  | 'split-checker'
  | 'learner-checker'
  | 'replica-checker'
  | 'merge-checker'
  | 'assigner'
  | 'balance-leader'
  | 'balance-region'
  | 'evict-leader'
  | 'hot-region'
  | 'grant-leader'
  | 'shuffle-leader'
  | 'shuffle-region'
  | 'random-merge';

/** Checkers look at one region after the other; schedulers look at all stores. */
export type SwitchKind = 'all' | 'checker' | 'scheduler';

export interface SwitchInfo {
  readonly name: SwitchName;
  readonly kind: SwitchKind;
  readonly enabledByDefault: boolean;
  /** Takes part only after it was added; all other schedulers do until they are removed. */
  readonly isOptional?: true;
  readonly description: string;
}

export const SWITCHES: readonly SwitchInfo[] = [
  {
    name: 'scheduling',
    kind: 'all',
    enabledByDefault: true,
    description: 'Everything automatic; requests of administrators still run when it is off.',
  },
  {
    name: 'joint-state-checker',
    kind: 'checker',
    enabledByDefault: true,
    description: 'Brings regions out of a joint state that was left behind.',
  },
  {
    name: 'split-checker',
    kind: 'checker',
    enabledByDefault: true,
    description: 'Splits regions at the borders of placement rules.',
  },
  {
    name: 'learner-checker',
    kind: 'checker',
    enabledByDefault: true,
    description: 'Promotes learners that were left behind, or removes them when enough voters exist.',
  },
  {
    name: 'replica-checker',
    kind: 'checker',
    enabledByDefault: true,
    description:
      'Adds missing replicas, replaces those on lost stores, removes surplus ones, separates them by location.',
  },
  {
    name: 'merge-checker',
    kind: 'checker',
    enabledByDefault: false,
    description: 'Merges small regions into a neighbor.',
  },
  {
    name: 'assigner',
    kind: 'scheduler',
    enabledByDefault: false,
    description: 'Merges small Partitions that lie side by side on one pod, each time by an Assignment.',
  },
  {
    name: 'balance-leader',
    kind: 'scheduler',
    enabledByDefault: true,
    description: 'Spreads leaders evenly over the stores.',
  },
  {
    name: 'balance-region',
    kind: 'scheduler',
    enabledByDefault: true,
    description: 'Spreads data evenly over the stores.',
  },
  {
    name: 'evict-leader',
    kind: 'scheduler',
    enabledByDefault: true,
    description: 'Moves leaders away from stores that are set to lead nothing.',
  },
  {
    name: 'hot-region',
    kind: 'scheduler',
    enabledByDefault: true,
    description: 'Moves the lead of busy regions from the busiest store to the least busy one.',
  },
  {
    name: 'grant-leader',
    kind: 'scheduler',
    enabledByDefault: true,
    isOptional: true,
    description: 'Brings the lead of all regions that have a voter there to the stores it was added for.',
  },
  {
    name: 'shuffle-leader',
    kind: 'scheduler',
    enabledByDefault: true,
    isOptional: true,
    description: 'Moves leaders at random, for tests.',
  },
  {
    name: 'shuffle-region',
    kind: 'scheduler',
    enabledByDefault: true,
    isOptional: true,
    description: 'Moves replicas at random, for tests.',
  },
  {
    name: 'random-merge',
    kind: 'scheduler',
    enabledByDefault: true,
    isOptional: true,
    description: 'Merges regions at random, for tests.',
  },
];

export const switchInfo = (name: SwitchName): SwitchInfo => {
  const info = SWITCHES.find((one) => one.name === name);
  assert(info !== undefined, 'every switch is described', { name });
  return info;
};

export const isSwitchName = (name: string): name is SwitchName => SWITCHES.some((info) => info.name === name);

/** How a switch was set. */
export interface SwitchSetting {
  readonly enabled: boolean;
  /** Of one that is off: when it goes on again by itself, wall clock of the leader; absent = when somebody says so. */
  readonly untilWallMs?: number;
}

/** Longest time for which a switch goes off and on again by itself. */
export const SWITCH_OFF_MAX_MS: number = 366 * 24 * 60 * 60 * 1_000;

export class Switches {
  readonly #clock: Pick<Clock, 'wallMs'>;
  readonly #settings = new Map<SwitchName, SwitchSetting>(
    SWITCHES.map((info) => [info.name, { enabled: info.enabledByDefault }]),
  );

  constructor(clock: Pick<Clock, 'wallMs'>) {
    this.#clock = clock;
  }

  isOn(name: SwitchName): boolean {
    const setting = this.#settings.get(name);
    return (
      setting !== undefined &&
      (setting.enabled || (setting.untilWallMs !== undefined && setting.untilWallMs <= this.#clock.wallMs()))
    );
  }

  /** When a switch that is off goes on again by itself; undefined if it is on or stays off. */
  offUntilWallMs(name: SwitchName): number | undefined {
    return this.isOn(name) ? undefined : this.#settings.get(name)?.untilWallMs;
  }

  set(name: SwitchName, enabled: boolean, untilWallMs?: number): void {
    this.#settings.set(name, untilWallMs === undefined ? { enabled } : { enabled, untilWallMs });
  }
}
