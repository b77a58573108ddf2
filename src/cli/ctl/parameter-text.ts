/** Values of parameters as people write and read them: exact, so that what is printed can be given back. */
import { parseDurationMs, parseSizeBytes } from '../../base/units.ts';
import type { SchedulerParameter } from '../../client/schedulers.ts';
import { UsageError } from '../failure.ts';

type Unit = SchedulerParameter['unit'];

const SIZES: readonly (readonly [word: string, bytes: number])[] = [
  ['TiB', 1024 ** 4],
  ['GiB', 1024 ** 3],
  ['MiB', 1024 ** 2],
  ['KiB', 1024],
];
const TIMES: readonly (readonly [word: string, ms: number])[] = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
];

/** In the largest unit that leaves a whole number. */
function inUnits(value: number, units: readonly (readonly [string, number])[], smallest: string): string {
  const found = value === 0 ? undefined : units.find(([, size]) => value % size === 0);
  return found === undefined ? `${value}${smallest}` : `${value / found[1]}${found[0]}`;
}

export function parameterText(value: number, unit: Unit): string {
  switch (unit) {
    case 'count':
    case 'ratio':
      return String(value);
    case 'bytes':
      return inUnits(value, SIZES, 'B');
    case 'bytes-per-second':
      return `${inUnits(value, SIZES, 'B')}/s`;
    case 'milliseconds':
      return inUnits(value, TIMES, 'ms');
  }
}

export const rangeText = ({ min, max, unit }: Pick<SchedulerParameter, 'min' | 'max' | 'unit'>): string =>
  `${parameterText(min, unit)} to ${parameterText(max, unit)}`;

const FORMS: Readonly<Record<Unit, string>> = {
  count: 'a whole number',
  ratio: 'a number such as 1.5',
  bytes: 'a size such as 4MiB',
  'bytes-per-second': 'a size per second such as 4MiB',
  milliseconds: 'a time such as 500ms or 5m',
};

/** Whether it lies in the range is asked of the placement service. @throws UsageError */
export function parseParameter(parameter: SchedulerParameter, text: string): number {
  const value = parseValue(parameter.unit, text.trim());
  if (value === undefined || !Number.isFinite(value)) {
    throw new UsageError(
      `${JSON.stringify(text)} is no value for ${parameter.name}`,
      `give ${FORMS[parameter.unit]}, from ${rangeText(parameter)}`,
    );
  }
  return value;
}

function parseValue(unit: Unit, text: string): number | undefined {
  switch (unit) {
    case 'count':
      return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
    case 'ratio':
      return /^\d{1,15}(\.\d{1,9})?$/.test(text) ? Number(text) : undefined;
    case 'bytes':
      return parseBytes(text);
    case 'bytes-per-second':
      return parseBytes(text.replace(/\/s$/, ''));
    case 'milliseconds':
      return text === '0' ? 0 : parseDurationMs(text);
  }
}

const parseBytes = (text: string): number | undefined =>
  /^\d{1,15}$/.test(text) ? Number(text) : parseSizeBytes(text);
