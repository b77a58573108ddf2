/** Bytes of what administrators have set for checkers and schedulers: one record holds all of it, because it is small. */
import { utf8 } from '../../base/bytes.ts';
import { storeId } from '../../base/ids.ts';
import { RecordError, decodeRecord, encodeRecord, fieldArray, fieldInt } from '../../codec/record.ts';
import type { SchedulerPresence, SchedulerRecord } from '../schedule/scheduler-settings.ts';

const VERSION = 1;
/** Numbers of the states; never given another meaning. */
const PRESENCES: readonly (SchedulerPresence | undefined)[] = [undefined, 'added', 'removed'];

export const SCHEDULERS_KEY: Uint8Array = utf8('pd/schedulers');

/** In an order that every member writes. */
export const encodeSchedulers = (records: Iterable<SchedulerRecord>): Uint8Array =>
  encodeRecord(VERSION, [[...records].sort((a, b) => (a.name < b.name ? -1 : 1)).map(schedulerFields)]);

export const decodeSchedulers = (bytes: Uint8Array): SchedulerRecord[] =>
  fieldArray(decodeRecord(bytes, 'schedulers', VERSION, 1).fields[0], 'schedulers').map(schedulerOfFields);

export const schedulerFields = (record: SchedulerRecord): readonly unknown[] => [
  record.name,
  record.version,
  PRESENCES.indexOf(record.presence),
  record.stores,
  record.parameters,
];

/** @throws RecordError */
export function schedulerOfFields(value: unknown): SchedulerRecord {
  const f = fieldArray(value, 'scheduler');
  const presence = fieldInt(f[2], 'state of a scheduler');
  if (presence >= PRESENCES.length) {
    throw new RecordError(`a scheduler has the unknown state ${presence}`);
  }
  return {
    name: text(f[0]),
    version: fieldInt(f[1], 'version of a scheduler'),
    presence: PRESENCES[presence],
    stores: fieldArray(f[3], 'stores of a scheduler').map((id) => storeId(fieldInt(id, 'store of a scheduler'))),
    parameters: fieldArray(f[4], 'parameters').map((item) => {
      const [name, number] = fieldArray(item, 'parameter');
      if (typeof number !== 'number' || !Number.isFinite(number)) {
        throw new RecordError('a parameter is not a number');
      }
      return [text(name), number] as const;
    }),
  };
}

function text(value: unknown): string {
  if (typeof value !== 'string') {
    throw new RecordError('a name of a scheduler or parameter is not text');
  }
  return value;
}
