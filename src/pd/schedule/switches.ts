/** What can be switched on and off at run time. Changed switches are persisted; the others keep these defaults. */

export type SwitchName =
  | 'scheduling'
  | 'joint-state-checker'
  | 'learner-checker'
  | 'replica-checker'
  | 'merge-checker'
  | 'assigner'
  | 'balance-leader'
  | 'balance-region'
  | 'evict-leader'
  | 'hot-region';

export interface SwitchInfo {
  readonly name: SwitchName;
  readonly enabledByDefault: boolean;
  readonly description: string;
}

export const SWITCHES: readonly SwitchInfo[] = [
  {
    name: 'scheduling',
    enabledByDefault: true,
    description: 'Everything automatic; requests of administrators still run when it is off.',
  },
  {
    name: 'joint-state-checker',
    enabledByDefault: true,
    description: 'Brings regions out of a joint state that was left behind.',
  },
  {
    name: 'learner-checker',
    enabledByDefault: true,
    description: 'Promotes learners that were left behind, or removes them when enough voters exist.',
  },
  {
    name: 'replica-checker',
    enabledByDefault: true,
    description:
      'Adds missing replicas, replaces those on lost stores, removes surplus ones, separates them by location.',
  },
  { name: 'merge-checker', enabledByDefault: false, description: 'Merges small regions into a neighbor.' },
  {
    name: 'assigner',
    enabledByDefault: false,
    description: 'Merges small Partitions that lie side by side on one pod, each time by an Assignment.',
  },
  { name: 'balance-leader', enabledByDefault: true, description: 'Spreads leaders evenly over the stores.' },
  { name: 'balance-region', enabledByDefault: true, description: 'Spreads data evenly over the stores.' },
  {
    name: 'evict-leader',
    enabledByDefault: true,
    description: 'Moves leaders away from stores that are set to lead nothing.',
  },
  {
    name: 'hot-region',
    enabledByDefault: true,
    description: 'Moves the lead of busy regions from the busiest store to the least busy one.',
  },
];

export const isSwitchName = (name: string): name is SwitchName => SWITCHES.some((info) => info.name === name);

export class Switches {
  readonly #values = new Map<SwitchName, boolean>(SWITCHES.map((info) => [info.name, info.enabledByDefault]));

  isOn(name: SwitchName): boolean {
    return this.#values.get(name) ?? false;
  }

  set(name: SwitchName, enabled: boolean): void {
    this.#values.set(name, enabled);
  }
}
