/**
 * Checkers and schedulers as documents: whether they are on, and their parameters. What the spec does not name has its
 * default. A pause for a time is no part of the document, nor is whether a scheduler was added at all.
 */
import { parseDurationMs, parseSizeBytes } from '../../base/units.ts';
import { type ParameterSpec, type ParameterUnit, isWholeUnit, parametersOf } from '../schedule/parameters.ts';
import { type SwitchName, type SwitchSetting, isSwitchName, switchInfo } from '../schedule/switches.ts';
import type { SchedulerRecord } from '../schedule/scheduler-settings.ts';
import { type Result, refuse } from '../schedule/verdict.ts';
import { formatValue } from '../settings.ts';
import {
  DocumentError,
  envelopeOf,
  fail,
  fieldsOf,
  headOf,
  isAbsent,
  isFields,
  join,
  reading,
  textOf,
} from './fields.ts';

export interface ParsedScheduler {
  readonly name: SwitchName;
  /** Given to be refused when the parameters have changed since; undefined = any. */
  readonly resourceVersion: number | undefined;
  readonly enabled: boolean;
  readonly parameters: readonly { readonly name: string; readonly value: number }[];
  readonly warnings: readonly string[];
}

export const parseSchedulerDocument = (document: unknown): Result<ParsedScheduler> => reading(() => parse(document));

function parse(document: unknown): ParsedScheduler {
  const warnings: string[] = [];
  const fields = envelopeOf(document);
  const head = headOf(fields, warnings);
  const name = textOf(head.name, 'metadata.name');
  if (!isSwitchName(name)) {
    const path = 'metadata.name';
    const message = `${path} ${JSON.stringify(name.slice(0, 80))} is no checker or scheduler`;
    throw new DocumentError(refuse('UnknownSwitch', message, 'list them: braid ctl get scheduler', { path }));
  }
  if (head.uid !== undefined) {
    fail('metadata.uid', 'does not belong to a Scheduler', 'leave it out');
  }
  const spec = fieldsOf(fields['spec'], 'spec', ['enabled', 'parameters']);
  const { enabled, parameters } = spec as { readonly enabled?: unknown; readonly parameters?: unknown };
  if (!isAbsent(enabled) && typeof enabled !== 'boolean') {
    fail('spec.enabled', 'must be true or false', 'write true or false without quotes');
  }
  return {
    name,
    resourceVersion: head.resourceVersion,
    enabled: isAbsent(enabled) ? switchInfo(name).enabledByDefault : enabled,
    parameters: parametersIn(name, parameters),
    warnings,
  };
}

function parametersIn(name: SwitchName, written: unknown): ParsedScheduler['parameters'] {
  if (isAbsent(written)) {
    return [];
  }
  const path = 'spec.parameters';
  if (!isFields(written)) {
    fail(path, 'must be an object', 'write parameter: value below it');
  }
  const specs = parametersOf(name);
  return Object.entries(written).map(([parameter, value]) => {
    const spec = specs.find((one) => one.name === parameter);
    if (spec === undefined) {
      const known = specs.map((one) => one.name).join(', ');
      const hint = known === '' ? `${name} has no parameters` : `parameters of ${name} are ${known}`;
      fail(join(path, parameter), 'is not a known parameter', hint, 'UnknownField');
    }
    return { name: parameter, value: valueOf(spec, value, join(path, parameter)) };
  });
}

/** Whether a value is in range is decided where the change is planned. */
function valueOf(spec: ParameterSpec, value: unknown, path: string): number {
  const isDuration = spec.unit === 'milliseconds';
  if (isDuration || spec.unit.startsWith('bytes')) {
    const parse = isDuration ? parseDurationMs : parseSizeBytes;
    const number = value === 0 ? 0 : typeof value === 'string' ? parse(value) : undefined;
    if (number === undefined) {
      const what = isDuration ? 'a duration' : 'a size';
      fail(
        path,
        `must be ${what} with its unit`,
        `write it like ${isDuration ? '250ms, 10s or 5m' : '512KiB or 8MiB'}`,
      );
    }
    return Math.round(number);
  }
  if (
    typeof value !== 'number' ||
    !Number.isFinite(value) ||
    (isWholeUnit(spec.unit) && !Number.isSafeInteger(value))
  ) {
    const what = isWholeUnit(spec.unit) ? 'a whole number' : 'a number';
    fail(path, `must be ${what}`, `write ${what} without quotes`);
  }
  return value;
}

const KIND_OF: Readonly<Record<ParameterUnit, Parameters<typeof formatValue>[0]['kind']>> = {
  count: 'integer',
  ratio: 'ratio',
  bytes: 'size',
  'bytes-per-second': 'size',
  milliseconds: 'duration',
};

export const parameterShown = ({ unit }: ParameterSpec, value: number): unknown =>
  formatValue({ kind: KIND_OF[unit] }, value);

/** One checker or scheduler as it was set. */
export interface SchedulerDocument {
  readonly kind: 'Scheduler';
  readonly record: SchedulerRecord;
  readonly name: SwitchName;
  /** Grows with every change of the switch and of the record. */
  readonly version: number;
  /** Whether it is on, apart from a pause that ends by itself. */
  readonly enabled: boolean;
}

/** On for good, or off only for a time. */
export const isLastingOn = (name: SwitchName, setting: SwitchSetting | undefined): boolean =>
  setting === undefined ? switchInfo(name).enabledByDefault : setting.enabled || setting.untilWallMs !== undefined;

/** Whether nothing of it differs from the defaults. */
export const isUnchanged = ({ name, record, enabled }: SchedulerDocument): boolean =>
  record.parameters.length === 0 && enabled === switchInfo(name).enabledByDefault;

export function schedulerSpecShown({ name, record, enabled }: SchedulerDocument): Readonly<Record<string, unknown>> {
  const values = new Map(record.parameters);
  const set = parametersOf(name).flatMap((spec) => {
    const value = values.get(spec.name);
    return value === undefined ? [] : [[spec.name, parameterShown(spec, value)] as const];
  });
  return { enabled, ...(set.length === 0 ? {} : { parameters: Object.fromEntries(set) }) };
}
