/** Bytes of what administrators set at run time: one record, because it is small and read as a whole. */
import { utf8 } from '../../base/bytes.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldInt } from '../../codec/record.ts';
import type { RunTimeSettings, SettingValue } from '../settings.ts';

const VERSION = 1;

export const SETTINGS_KEY: Uint8Array = utf8('pd/settings');

/** In an order that every member writes. */
export const settingsFields = ({ version, values, author, changedWallMs }: RunTimeSettings): readonly unknown[] => [
  version,
  [...values].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, value]) => [name, value]),
  author?.actor ?? null,
  author?.reason ?? '',
  changedWallMs,
];

/** @throws RecordError */
export function settingsOfFields(value: unknown): RunTimeSettings {
  const f = fieldArray(value, 'settings');
  const actor = f[2];
  return {
    version: fieldInt(f[0], 'version of the settings'),
    values: new Map(
      fieldArray(f[1], 'settings').map((item) => {
        const [name, setting] = fieldArray(item, 'setting');
        return [text(name), valueOf(setting)] as const;
      }),
    ),
    author: actor === null ? undefined : { actor: text(actor), reason: text(f[3]) },
    changedWallMs: fieldInt(f[4], 'time of the change'),
  };
}

export const encodeSettings = (settings: RunTimeSettings): Uint8Array =>
  encodeRecord(VERSION, settingsFields(settings));

export const decodeSettings = (bytes: Uint8Array): RunTimeSettings =>
  settingsOfFields(decodeRecord(bytes, 'settings', VERSION, 5).fields);

function text(value: unknown): string {
  if (typeof value !== 'string') {
    throw new RecordError('a field of a setting is not text');
  }
  return value;
}

function valueOf(value: unknown): SettingValue {
  // Integers above 32 bits may be read as bigint.
  const plain = typeof value === 'bigint' ? Number(value) : value;
  if (typeof plain === 'number' || typeof plain === 'boolean') {
    return plain;
  }
  return fieldArray(plain, 'value of a setting').map(text);
}
