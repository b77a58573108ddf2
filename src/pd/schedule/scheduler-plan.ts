/** Plans changes of checkers and schedulers on what is set now: the record to write, or why there is none. */
import type { StoreId } from '../../base/ids.ts';
import type { Cluster } from '../cluster/cluster.ts';
import { settingsOf } from '../cluster/store-info.ts';
import { type ParameterSpec, type ParameterUnit, isWholeUnit, parametersOf } from './parameters.ts';
import type { SchedulerRecord } from './scheduler-settings.ts';
import { type SwitchName, switchInfo } from './switches.ts';
import { type Refusal, type Result, ok, refuse, refused, storeNotFound } from './verdict.ts';

export type SchedulerChange =
  | { readonly type: 'add'; readonly storeId: StoreId | undefined }
  /** With a store, the scheduler leaves that one alone; without one, it takes no part at all. */
  | { readonly type: 'remove'; readonly storeId: StoreId | undefined }
  | {
      readonly type: 'configure';
      readonly set: readonly { readonly name: string; readonly value: number }[];
      /** Parameters that go back to their defaults, before others are set. */
      readonly reset: readonly string[] | 'all';
    };

export interface SchedulerPlan {
  readonly name: SwitchName;
  /** Undefined: everything is as wanted. */
  readonly record: SchedulerRecord | undefined;
  readonly baseVersion: number;
  /** Completes "<name> …". */
  readonly text: string;
}

/**
 * @param expectVersion refuse unless the record has exactly this version; undefined = whatever it has
 */
export function planSchedulerChange(
  cluster: Cluster,
  name: SwitchName,
  change: SchedulerChange,
  expectVersion: number | undefined,
): Result<SchedulerPlan> {
  const current = cluster.schedulers.record(name);
  if (expectVersion !== undefined && expectVersion !== current.version) {
    return refused(
      refuse(
        'Conflict',
        `${name} has version ${current.version}, not ${expectVersion}`,
        'look at it again, then repeat the change with its version',
        { name, version: current.version },
      ),
    );
  }
  const next = change.type === 'configure' ? configured(cluster, name, change) : present(cluster, name, change);
  if (next.type === 'refused') {
    return next;
  }
  const { text, ...parts } = next.value;
  const record: SchedulerRecord = { ...current, ...parts, version: current.version + 1 };
  return ok({
    name,
    record: isSame(record, current) ? undefined : record,
    baseVersion: current.version,
    text,
  });
}

type Parts = Partial<Pick<SchedulerRecord, 'presence' | 'stores' | 'parameters'>> & { readonly text: string };

const isSame = (a: SchedulerRecord, b: SchedulerRecord): boolean =>
  a.presence === b.presence && JSON.stringify([a.stores, a.parameters]) === JSON.stringify([b.stores, b.parameters]);

// ------------------------------------------------------------------------------------------------- added and removed

function present(
  cluster: Cluster,
  name: SwitchName,
  { type, storeId }: Extract<SchedulerChange, { type: 'add' | 'remove' }>,
): Result<Parts> {
  const { kind, isOptional } = switchInfo(name);
  if (kind !== 'scheduler') {
    return refused(notAScheduler(name, type));
  }
  const { stores } = cluster.schedulers.record(name);
  // Records say only what differs from the default.
  const added = isOptional === true ? 'added' : undefined;
  const absent = isOptional === true ? undefined : 'removed';
  if (name !== 'grant-leader') {
    return storeId === undefined
      ? ok({ presence: type === 'add' ? added : absent, text: type === 'add' ? 'was added' : 'was removed' })
      : refused(
          refuse(
            'InvalidArgument',
            `${name} is not about a store`,
            `leave --store out: braid ctl scheduler ${type} ${name}`,
            {
              name,
            },
          ),
        );
  }
  if (type === 'remove') {
    const left = storeId === undefined ? [] : stores.filter((store) => store !== storeId);
    return ok({
      presence: left.length === 0 ? absent : added,
      stores: left,
      text: storeId === undefined ? 'was removed' : `was removed for store ${storeId}`,
    });
  }
  if (storeId === undefined) {
    return refused(
      refuse(
        'InvalidArgument',
        'grant-leader needs the store that is to lead',
        'name it: braid ctl scheduler add grant-leader --store N',
        { name },
      ),
    );
  }
  const refusal = refusalOfGrant(cluster, storeId);
  if (refusal !== undefined) {
    return refused(refusal);
  }
  // Stores that are gone for good would stay in the list for ever.
  const living = stores.filter((store) => cluster.store(store)?.record.store.state !== 'tombstone');
  return ok({
    presence: added,
    stores: [...new Set([...living, storeId])].sort((a, b) => a - b),
    text: `was added for store ${storeId}`,
  });
}

/** Why leaders cannot be brought to a store for good. A store that is silent for the moment may be named. */
function refusalOfGrant(cluster: Cluster, id: StoreId): Refusal | undefined {
  const info = cluster.store(id);
  if (info === undefined) {
    return storeNotFound(id);
  }
  const { state } = info.record.store;
  if (state !== 'up') {
    return refuse(
      state === 'offline' ? 'StoreRemoving' : 'StoreRemoved',
      `store ${id} ${state === 'offline' ? 'is being emptied' : 'was removed'}`,
      'choose another store',
      { store_id: id },
    );
  }
  return settingsOf(info).leadersEvicted
    ? refuse(
        'LeadersEvicted',
        `store ${id} is set to lead nothing`,
        `let it lead again first: braid ctl scheduler remove evict-leader --store ${id}`,
        { store_id: id },
      )
    : undefined;
}

function notAScheduler(name: SwitchName, type: 'add' | 'remove'): Refusal {
  const isChecker = switchInfo(name).kind === 'checker';
  const noun = isChecker ? 'checker' : 'scheduler';
  const verb = type === 'add' ? 'resume' : 'pause';
  return refuse(
    'NotAScheduler',
    isChecker
      ? `${name} is a checker: checkers are always there`
      : `${name} stands for everything automatic and is always there`,
    `${type === 'add' ? 'let it work' : 'stop it'}: braid ctl ${noun} ${verb} ${name}`,
    { name },
  );
}

/** A scheduler that takes no part is neither paused nor resumed. */
export const notAdded = (cluster: Cluster, name: SwitchName): Refusal | undefined =>
  cluster.schedulers.isPresent(name)
    ? undefined
    : refuse(
        'NotAdded',
        `${name} was ${switchInfo(name).isOptional === true ? 'not added' : 'removed'}`,
        `add it: braid ctl scheduler add ${name}${name === 'grant-leader' ? ' --store N' : ''}`,
        { name },
      );

// --------------------------------------------------------------------------------------------------------- parameters

function configured(
  cluster: Cluster,
  name: SwitchName,
  { set, reset }: Extract<SchedulerChange, { type: 'configure' }>,
): Result<Parts> {
  const { schedulers } = cluster;
  const values = new Map(schedulers.record(name).parameters);
  const specs = parametersOf(name);
  for (const parameter of reset === 'all' ? specs.map((spec) => spec.name) : reset) {
    if (!specs.some((spec) => spec.name === parameter)) {
      return refused(unknownParameter(name, parameter));
    }
    values.delete(parameter);
  }
  const given = new Set<string>();
  for (const { name: parameter, value } of set) {
    const spec = specs.find((one) => one.name === parameter);
    if (spec === undefined) {
      return refused(unknownParameter(name, parameter));
    }
    if (given.has(parameter)) {
      return refused(
        refuse('InvalidArgument', `the parameter ${parameter} of ${name} is given twice`, 'give it once', { name }),
      );
    }
    given.add(parameter);
    const problem = problemOfValue(cluster, name, spec, value);
    if (problem !== undefined) {
      return refused(problem);
    }
    values.set(parameter, value);
  }
  const back =
    reset === 'all' ? ['all parameters back to their defaults'] : reset.map((one) => `${one} back to its default`);
  const changes = [...back, ...set.map(({ name: one, value }) => `${one}=${value}`)].join(', ');
  return ok({
    parameters: [...values].sort(([a], [b]) => (a < b ? -1 : 1)),
    text: `was configured: ${changes === '' ? 'nothing' : changes}`,
  });
}

function unknownParameter(name: SwitchName, parameter: string): Refusal {
  const known = parametersOf(name).map((spec) => spec.name);
  return refuse(
    'UnknownParameter',
    `${name} has no parameter ${parameter}`,
    known.length === 0 ? 'it has none at all; pause or resume it' : `it has ${known.join(', ')}`,
    { name, parameter },
  );
}

const UNIT_WORDS: Readonly<Record<ParameterUnit, string>> = {
  count: '',
  ratio: '',
  bytes: ' bytes',
  'bytes-per-second': ' bytes per second',
  milliseconds: ' ms',
};

function problemOfValue(cluster: Cluster, name: SwitchName, spec: ParameterSpec, value: number): Refusal | undefined {
  const { configured } = cluster.schedulers;
  const [min, max] = [spec.minOf(configured), spec.maxOf(configured)];
  const unit = UNIT_WORDS[spec.unit];
  const details = { name, parameter: spec.name, min, max };
  if (isWholeUnit(spec.unit) && Number.isFinite(value) && !Number.isSafeInteger(value)) {
    return refuse(
      'OutOfRange',
      `${spec.name} of ${name} must be a whole number, not ${value}`,
      `give ${min} to ${max}${unit}`,
      details,
    );
  }
  if (value >= min && value <= max) {
    return undefined;
  }
  const bound = value < min ? `below the smallest value, ${min}${unit}` : `above the largest value, ${max}${unit}`;
  return refuse(
    'OutOfRange',
    `${value}${unit} for ${spec.name} of ${name} is ${Number.isNaN(value) ? 'not a number' : bound}`,
    `give ${min} to ${max}${unit}`,
    details,
  );
}
