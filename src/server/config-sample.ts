/** Prints configurations as TOML: the commented sample of a role, and files with given values. */
import { MIB, GIB, KIB } from '../base/units.ts';
import { type Role, type Setting, settingName, SETTINGS, settingVariable } from './settings.ts';

const DURATION_UNITS: readonly (readonly [string, number])[] = [
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
];
const SIZE_UNITS: readonly (readonly [string, number])[] = [
  ['GiB', GIB],
  ['MiB', MIB],
  ['KiB', KIB],
  ['B', 1],
];

/** The largest unit that leaves a whole number. */
function withUnit(value: number, units: readonly (readonly [string, number])[]): string {
  if (value === 0) {
    return '0';
  }
  for (const [unit, factor] of units) {
    if (value % factor === 0) {
      return `"${value / factor}${unit}"`;
    }
  }
  return `"${value}${units[units.length - 1]?.[0] ?? ''}"`;
}

/** A value as it is written in a file. */
export function formatSetting(setting: Setting, value: unknown): string {
  switch (setting.kind) {
    case 'duration':
      return withUnit(value as number, DURATION_UNITS);
    case 'size':
      return withUnit(value as number, SIZE_UNITS);
    case 'texts':
      return `[${(value as readonly string[]).map((text) => JSON.stringify(text)).join(', ')}]`;
    case 'integer':
    case 'ratio':
    case 'boolean':
      return String(value);
    default:
      return JSON.stringify(value);
  }
}

/** Every key of a role with its meaning, default and environment variable. Loading it changes nothing. */
export function configSample(role: Role): string {
  const out: string[] = [];
  let section = '';
  for (const setting of SETTINGS[role]) {
    if (setting.section !== section) {
      ({ section } = setting);
      out.push(...(out.length === 0 ? [] : ['']), `[${section}]`);
    }
    out.push(`# ${setting.description}`);
    if (setting.words !== undefined) {
      out.push(`# One of ${setting.words.join(', ')}.`);
    }
    out.push(
      `# Environment: ${settingVariable(setting)}`,
      `${setting.key} = ${formatSetting(setting, setting.initial)}`,
    );
  }
  return `${out.join('\n')}\n`;
}

/** A file that sets only the given values, named by `section.key`. */
export function configFile(role: Role, values: Readonly<Record<string, unknown>>): string {
  const out: string[] = [];
  let section = '';
  for (const setting of SETTINGS[role]) {
    const value = values[settingName(setting)];
    if (value === undefined) {
      continue;
    }
    if (setting.section !== section) {
      ({ section } = setting);
      out.push(...(out.length === 0 ? [] : ['']), `[${section}]`);
    }
    out.push(`${setting.key} = ${formatSetting(setting, value)}`);
  }
  return `${out.join('\n')}\n`;
}
