/**
 * Reads the fields of documents: plain values, as JSON or YAML parsers give them. Every refusal is thrown as a
 * {@link DocumentError} that names the path of the field and what is expected there.
 */
import { fromHex, utf8 } from '../../base/bytes.ts';
import { type Refusal, type RefusalCode, type Result, ok, refuse, refused } from '../schedule/verdict.ts';
import type { KeyEncoding } from './resource.ts';

/** Longest start or end of a range. */
export const RANGE_KEY_BYTES_MAX: number = 4_096;
/** Longest name of a document or a pod. */
export const NAME_CHARS_MAX: number = 63;
/** Pods in one Partition, parts in one Assignment, entries of any other list. */
export const ENTRIES_MAX: number = 64;

export const API_VERSION = 'braid/v1';

export class DocumentError extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.message);
    this.refusal = refusal;
  }
}

export function fail(path: string, problem: string, hint: string, code: RefusalCode = 'InvalidDocument'): never {
  throw new DocumentError(refuse(code, `${path} ${problem}`, hint, { path }));
}

export type Fields = Readonly<Record<string, unknown>>;

export const isAbsent = (value: unknown): value is undefined | null => value === undefined || value === null;

export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An object of which every field must be known. */
export function fieldsOf(value: unknown, path: string, known: readonly string[]): Fields {
  if (!isFields(value)) {
    fail(path, isAbsent(value) ? 'is missing' : 'must be an object', `write the fields ${known.join(', ')} below it`);
  }
  for (const name of Object.keys(value)) {
    if (!known.includes(name)) {
      fail(join(path, name), 'is not a known field', `fields here are ${known.join(', ')}`, 'UnknownField');
    }
  }
  return value;
}

export const join = (path: string, name: string): string => (path === 'the document' ? name : `${path}.${name}`);

export function textOf(value: unknown, path: string): string {
  if (typeof value !== 'string') {
    const what = isAbsent(value) ? 'is missing' : `must be text, not ${Array.isArray(value) ? 'a list' : typeof value}`;
    fail(path, what, isAbsent(value) ? 'add it' : 'put the value in quotes');
  }
  return value;
}

export function nameOf(value: unknown, path: string): string {
  const name = textOf(value, path);
  if (name.length > NAME_CHARS_MAX || !/^[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?$/.test(name)) {
    fail(path, `is not a name: ${JSON.stringify(name.slice(0, NAME_CHARS_MAX))}`, nameHint);
  }
  return name;
}

const nameHint = `use up to ${NAME_CHARS_MAX} letters, digits, dashes, dots and underscores; start and end with a letter or digit`;

export function optionalName(value: unknown, path: string): string | undefined {
  return isAbsent(value) ? undefined : nameOf(value, path);
}

export function wordOf<T extends string>(value: unknown, path: string, words: readonly T[]): T {
  const found = words.find((word) => word === value);
  if (found === undefined) {
    fail(path, isAbsent(value) ? 'is missing' : `is not one of ${words.join(', ')}`, `write ${words.join(', or ')}`);
  }
  return found;
}

export function flagOf(value: unknown, path: string): boolean {
  if (isAbsent(value)) {
    return false;
  }
  if (typeof value !== 'boolean') {
    fail(path, 'must be true or false', 'write true or false without quotes');
  }
  return value;
}

export function listOf(value: unknown, path: string): readonly unknown[] {
  if (!Array.isArray(value)) {
    fail(path, isAbsent(value) ? 'is missing' : 'must be a list', 'write a list, one entry per line after a dash');
  }
  if (value.length > ENTRIES_MAX) {
    fail(path, `has ${value.length} entries`, `at most ${ENTRIES_MAX} are taken`);
  }
  return value as readonly unknown[];
}

export function keyOf(value: unknown, path: string, encoding: KeyEncoding): Uint8Array {
  if (isAbsent(value)) {
    return new Uint8Array(0);
  }
  const text = textOf(value, path);
  const key = encoding === 'hex' ? fromHex(text) : utf8(text);
  if (key === undefined) {
    fail(path, 'is not hexadecimal', 'write two hexadecimal digits per byte, or leave range.encoding out for text');
  }
  if (key.length > RANGE_KEY_BYTES_MAX) {
    fail(path, `has ${key.length} bytes`, `keys of a range have at most ${RANGE_KEY_BYTES_MAX} bytes`);
  }
  return key;
}

export const encodingOf = (value: unknown, path: string): KeyEncoding =>
  isAbsent(value) ? 'text' : wordOf<KeyEncoding>(value, path, ['text', 'hex']);

/** What every document has beside its kind and its spec. */
export interface DocumentHead {
  /** Not checked yet: kinds have different names. */
  readonly name: unknown;
  /** Given to be refused when the document has changed since; undefined = any. */
  readonly resourceVersion: number | undefined;
  readonly uid: string | undefined;
}

/** The fields of a document, of which nothing but the version of its form was read. */
export function envelopeOf(document: unknown): Fields {
  const fields = fieldsOf(document, 'the document', ['apiVersion', 'kind', 'metadata', 'spec', 'status']);
  if (!isAbsent(fields['apiVersion']) && fields['apiVersion'] !== API_VERSION) {
    fail('apiVersion', 'is not known', `write ${API_VERSION}, or leave it out`);
  }
  return fields;
}

export function headOf(fields: Fields, warnings: string[]): DocumentHead {
  const metadata = fieldsOf(fields['metadata'], 'metadata', [
    'name',
    'uid',
    'generation',
    'resourceVersion',
    'createdAt',
  ]);
  const version = metadata['resourceVersion'];
  if (!isAbsent(version) && !(Number.isSafeInteger(version) && (version as number) >= 0)) {
    fail('metadata.resourceVersion', 'must be a whole number', 'leave it out, or write what "ctl get" shows');
  }
  if (!isAbsent(fields['status']) && fields['status'] !== '') {
    warnings.push('status is written by the placement service alone and was ignored');
  }
  return {
    name: metadata['name'],
    resourceVersion: isAbsent(version) ? undefined : (version as number),
    uid: isAbsent(metadata['uid']) ? undefined : textOf(metadata['uid'], 'metadata.uid'),
  };
}

/** Runs a reader, and makes a value of its refusal. */
export function reading<T>(read: () => T): Result<T> {
  try {
    return ok(read());
  } catch (error) {
    if (error instanceof DocumentError) {
      return refused(error.refusal);
    }
    throw error;
  }
}
