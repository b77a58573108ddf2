/**
 * What administrators have set for checkers and schedulers besides their switches: parameters, whether a scheduler takes
 * part at all, and the stores it is about. Owned by the cluster; records come from the replicated state.
 */
import { assert } from '../../base/assert.ts';
import type { StoreId } from '../../base/ids.ts';
import type { PlacementConfig } from '../defaults.ts';
import {
  type ParameterNames,
  type ParameterOwner,
  type ParameterSetting,
  type ParameterSpec,
  parametersOf,
} from './parameters.ts';
import { type SwitchName, isSwitchName, switchInfo } from './switches.ts';

/** One checker or scheduler as it was last changed. */
export interface SchedulerRecord {
  readonly name: string;
  /** Grows by one with each change; a record that was never written has version 0. */
  readonly version: number;
  /** Undefined: as by default. */
  readonly presence: SchedulerPresence | undefined;
  /** Stores that it is about, in order of their ids; only `grant-leader` has some. */
  readonly stores: readonly StoreId[];
  /** Values that differ from the defaults, in order of their names. */
  readonly parameters: readonly (readonly [name: string, value: number])[];
}

export type SchedulerPresence = 'added' | 'removed';

export const unchangedRecord = (name: string): SchedulerRecord => ({
  name,
  version: 0,
  presence: undefined,
  stores: [],
  parameters: [],
});

export class SchedulerSettings {
  #configured: PlacementConfig;
  readonly #records = new Map<string, SchedulerRecord>();

  /** @param configured see {@link configured} */
  constructor(configured: PlacementConfig) {
    this.#configured = configured;
  }

  /** The settings of the service changed: defaults and ranges follow. */
  configure(configured: PlacementConfig): void {
    this.#configured = configured;
  }

  /** The settings of the service, from its start and from its Config document: defaults and ranges come from them. */
  get configured(): PlacementConfig {
    return this.#configured;
  }

  /** Takes over all records; those of parts that this program does not know have no effect. */
  load(records: Iterable<SchedulerRecord>): void {
    this.#records.clear();
    for (const record of records) {
      this.#records.set(record.name, record);
    }
  }

  record(name: SwitchName): SchedulerRecord {
    return this.#records.get(name) ?? unchangedRecord(name);
  }

  /** Whether the part takes part at all, switched on or not. */
  isPresent(name: SwitchName): boolean {
    const { presence } = this.record(name);
    return presence === undefined ? switchInfo(name).isOptional !== true : presence === 'added';
  }

  /** The value in force. One that was set before the service was given narrower limits counts as the nearest one. */
  valueOf(name: SwitchName, { name: parameter, ...spec }: ParameterSpec): number {
    const set = this.#records.get(name)?.parameters.find(([one]) => one === parameter)?.[1];
    return set === undefined
      ? spec.defaultOf(this.#configured)
      : Math.min(Math.max(set, spec.minOf(this.#configured)), spec.maxOf(this.#configured));
  }

  value<S extends ParameterOwner>(name: S, parameter: ParameterNames[S]): number {
    const spec = parametersOf(name).find((one) => one.name === parameter);
    assert(spec !== undefined, 'a parameter is described', { name, parameter });
    return this.valueOf(name, spec);
  }

  /** Settings of the service that parameters take the place of. */
  overrides(): Partial<Record<ParameterSetting, number>> {
    const out: Partial<Record<ParameterSetting, number>> = {};
    for (const [name, { parameters }] of this.#records) {
      if (!isSwitchName(name)) {
        continue;
      }
      for (const spec of parametersOf(name)) {
        if (spec.setting !== undefined && parameters.some(([one]) => one === spec.name)) {
          out[spec.setting] = this.valueOf(name, spec);
        }
      }
    }
    return out;
  }
}
