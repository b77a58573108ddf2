/**
 * The settings of the placement service as a document: there is one Config, called `placement`, and its spec names what
 * is set at run time. A setting that the spec does not name has the value of the file.
 */
import {
  NO_SETTINGS,
  RUN_TIME_SETTINGS,
  type RunTimeSettings,
  type SettingValue,
  formatValue,
  parseValue,
  restartHint,
  settingOf,
} from '../settings.ts';
import type { Result } from '../schedule/verdict.ts';
import { DocumentError, envelopeOf, fail, headOf, isAbsent, isFields, reading, textOf } from './fields.ts';

/** The only Config there is. */
export const CONFIG_NAME = 'placement';

export interface ParsedConfig {
  /** Given to be refused when the settings have changed since; undefined = any. */
  readonly resourceVersion: number | undefined;
  readonly values: RunTimeSettings['values'];
  readonly warnings: readonly string[];
}

export const parseConfigDocument = (document: unknown): Result<ParsedConfig> => reading(() => parse(document));

function parse(document: unknown): ParsedConfig {
  const warnings: string[] = [];
  const fields = envelopeOf(document);
  const head = headOf(fields, warnings);
  if (textOf(head.name, 'metadata.name') !== CONFIG_NAME) {
    fail('metadata.name', `is not ${CONFIG_NAME}`, `there is one Config: call it ${CONFIG_NAME}`);
  }
  if (head.uid !== undefined) {
    fail('metadata.uid', 'does not belong to a Config', 'leave it out');
  }
  const { spec } = fields;
  if (!isFields(spec)) {
    fail('spec', isAbsent(spec) ? 'is missing' : 'must be an object', 'write the settings below it, or {} for none');
  }
  const values = new Map<string, SettingValue>();
  for (const [name, value] of Object.entries(spec)) {
    const path = `spec.${name}`;
    const setting = settingOf(name);
    if (setting === undefined) {
      const hint = restartHint(name);
      if (hint !== undefined) {
        fail(path, 'cannot change while the service runs', hint, 'NeedsRestart');
      }
      fail(path, 'is not a known setting', settingNames(name), 'UnknownField');
    }
    if (isAbsent(value)) {
      fail(path, 'has no value', 'write one, or leave the setting out to return to the file');
    }
    const read = parseValue(setting, value, path);
    if (read.type === 'refused') {
      throw new DocumentError(read.refusal);
    }
    values.set(name, read.value);
  }
  return { resourceVersion: head.resourceVersion, values, warnings };
}

/** Settings that share a word with the unknown one; all of them if none does. */
function settingNames(name: string): string {
  const words = new Set(name.toLowerCase().split(/[^a-z]+/));
  const names = RUN_TIME_SETTINGS.map((setting) => setting.name);
  const related = names.filter((known) => known.split('-').some((word) => words.has(word)));
  return `settings are ${(related.length > 0 ? related : names).join(', ')}; see "braid ctl describe config placement"`;
}

/** What is set at run time, in the order of the settings; names of newer programs come last. */
export function configSpecShown({ values }: RunTimeSettings): Readonly<Record<string, unknown>> {
  const known = RUN_TIME_SETTINGS.flatMap((setting) => {
    const value = values.get(setting.name);
    return value === undefined ? [] : [[setting.name, formatValue(setting, value)] as const];
  });
  const others = [...values].filter(([name]) => settingOf(name) === undefined);
  return Object.fromEntries([...known, ...others]);
}

export const settingsEqual = (a: RunTimeSettings['values'], b: RunTimeSettings['values']): boolean =>
  a.size === b.size && [...a].every(([name, value]) => JSON.stringify(b.get(name)) === JSON.stringify(value));

export const isUnset = ({ values }: RunTimeSettings): boolean => values.size === NO_SETTINGS.values.size;
