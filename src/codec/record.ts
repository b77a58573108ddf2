/**
 * The one place that packs what is stored or replicated. Records are fixed-position msgpack arrays whose first element
 * is a format version; unknown trailing elements are ignored, so that newer stores may add fields. Bytes in a decoded
 * record are copies and may be kept.
 */
import { Packr, Unpackr } from 'msgpackr';
import { AppError } from '../base/app-error.ts';

const packr = new Packr({ useRecords: false, moreTypes: false });
const unpackr = new Unpackr({ useRecords: false, moreTypes: false, copyBuffers: true, int64AsType: 'bigint' });

/** Stored bytes that cannot be understood: damaged, or written by a newer program. */
export class RecordError extends AppError {
  constructor(message: string, cause?: unknown) {
    super('BadRecord', message, {
      hint: 'the data directory may have been written by a newer version of braid, or is damaged',
      cause,
    });
  }
}

/** Packs `[version, ...fields]`. */
export function encodeRecord(version: number, fields: readonly unknown[]): Uint8Array {
  return packr.pack([version, ...fields]);
}

export interface DecodedRecord {
  readonly version: number;
  readonly fields: readonly unknown[];
}

/** Unpacks a record of at most `versionMax` with at least `fieldsMin` fields. @throws RecordError */
export function decodeRecord(bytes: Uint8Array, what: string, versionMax: number, fieldsMin: number): DecodedRecord {
  let value: unknown;
  try {
    value = unpackr.unpack(bytes);
  } catch (cause) {
    throw new RecordError(`${what} is not a record`, cause);
  }
  if (!Array.isArray(value) || typeof value[0] !== 'number') {
    throw new RecordError(`${what} is not a record`);
  }
  const fields = value as unknown[];
  const version = fields.shift() as number;
  if (version < 1 || version > versionMax) {
    throw new RecordError(`${what} has format version ${version}; this program reads up to ${versionMax}`);
  }
  if (fields.length < fieldsMin) {
    throw new RecordError(`${what} has ${fields.length} fields, at least ${fieldsMin} are needed`);
  }
  return { version, fields };
}

/** A safe non-negative integer from a decoded field. @throws RecordError */
export function fieldInt(value: unknown, what: string): number {
  const number = typeof value === 'bigint' ? Number(value) : value;
  if (typeof number !== 'number' || !Number.isSafeInteger(number) || number < 0) {
    throw new RecordError(`${what} is not a non-negative safe integer`);
  }
  return number;
}

export function fieldBytes(value: unknown, what: string): Uint8Array {
  if (!(value instanceof Uint8Array)) {
    throw new RecordError(`${what} is not a byte string`);
  }
  return value;
}

export function fieldArray(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new RecordError(`${what} is not a list`);
  }
  return value as readonly unknown[];
}
