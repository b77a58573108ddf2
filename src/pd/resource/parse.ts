/**
 * Reads documents as users write them: plain values, as JSON or YAML parsers give them. Every refusal names the path of
 * the field and what is expected there. Accepts the forms of older documents: a missing kind beside `spec.range`,
 * `status` for `type` in an entry of `assignedPods`, and a status that is ignored with a warning.
 */
import { fromHex, utf8 } from '../../base/bytes.ts';
import { type KeyRange, isEmptyRange } from '../../base/key-range.ts';
import { parseDurationMs } from '../../base/units.ts';
import { type Refusal, type RefusalCode, type Result, ok, refuse, refused } from '../schedule/verdict.ts';
import {
  ASSIGNMENT_TYPES,
  type AssignmentSpec,
  type GapPolicy,
  type KeyEncoding,
  type PartitionSpec,
  type PodAssignment,
  type PodRole,
  RESOURCE_KINDS,
  type ResourceKind,
} from './resource.ts';

/** A document that makes sense by itself; whether it fits the cluster is decided later. */
export interface ParsedDocument {
  readonly kind: ResourceKind;
  readonly name: string;
  /** Given to be refused when the document has changed since; undefined = any. */
  readonly resourceVersion: number | undefined;
  readonly uid: string | undefined;
  readonly spec: PartitionSpec | AssignmentSpec;
  readonly warnings: readonly string[];
}

/** Longest start or end of a range. */
export const RANGE_KEY_BYTES_MAX: number = 4_096;
/** Longest name of a document or a pod. */
export const NAME_CHARS_MAX: number = 63;
/** Pods in one Partition, parts in one Assignment. */
export const ENTRIES_MAX: number = 64;
const THRESHOLD_MS_MAX: number = 24 * 3_600_000;
export const API_VERSION = 'braid/v1';

const POD_ROLES: readonly PodRole[] = ['primary', 'follower', 'proxy'];
const PARAMS = ['newParams', 'splitParams', 'mergeParams', 'moveParams'] as const;

class DocumentError extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.message);
    this.refusal = refusal;
  }
}

function fail(path: string, problem: string, hint: string, code: RefusalCode = 'InvalidDocument'): never {
  throw new DocumentError(refuse(code, `${path} ${problem}`, hint, { path }));
}

type Fields = Readonly<Record<string, unknown>>;

const isAbsent = (value: unknown): value is undefined | null => value === undefined || value === null;

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An object of which every field must be known. */
function fieldsOf(value: unknown, path: string, known: readonly string[]): Fields {
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

const join = (path: string, name: string): string => (path === 'the document' ? name : `${path}.${name}`);

function textOf(value: unknown, path: string): string {
  if (typeof value !== 'string') {
    const what = isAbsent(value) ? 'is missing' : `must be text, not ${Array.isArray(value) ? 'a list' : typeof value}`;
    fail(path, what, isAbsent(value) ? 'add it' : 'put the value in quotes');
  }
  return value;
}

function nameOf(value: unknown, path: string): string {
  const name = textOf(value, path);
  if (name.length > NAME_CHARS_MAX || !/^[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?$/.test(name)) {
    fail(path, `is not a name: ${JSON.stringify(name.slice(0, NAME_CHARS_MAX))}`, nameHint);
  }
  return name;
}

const nameHint = `use up to ${NAME_CHARS_MAX} letters, digits, dashes, dots and underscores; start and end with a letter or digit`;

function optionalName(value: unknown, path: string): string | undefined {
  return isAbsent(value) ? undefined : nameOf(value, path);
}

function wordOf<T extends string>(value: unknown, path: string, words: readonly T[]): T {
  const found = words.find((word) => word === value);
  if (found === undefined) {
    fail(path, isAbsent(value) ? 'is missing' : `is not one of ${words.join(', ')}`, `write ${words.join(', or ')}`);
  }
  return found;
}

function flagOf(value: unknown, path: string): boolean {
  if (isAbsent(value)) {
    return false;
  }
  if (typeof value !== 'boolean') {
    fail(path, 'must be true or false', 'write true or false without quotes');
  }
  return value;
}

function thresholdOf(value: unknown, path: string): number | undefined {
  if (isAbsent(value)) {
    return undefined;
  }
  const ms = typeof value === 'string' ? parseDurationMs(value) : undefined;
  if (ms === undefined || ms < 0 || ms > THRESHOLD_MS_MAX) {
    fail(path, 'must be a duration of at most 24 hours', 'write it with its unit, for example 500ms, 60s or 5m');
  }
  return Math.round(ms);
}

function listOf(value: unknown, path: string): readonly unknown[] {
  if (!Array.isArray(value)) {
    fail(path, isAbsent(value) ? 'is missing' : 'must be a list', 'write a list, one entry per line after a dash');
  }
  if (value.length > ENTRIES_MAX) {
    fail(path, `has ${value.length} entries`, `at most ${ENTRIES_MAX} are taken`);
  }
  return value as readonly unknown[];
}

function keyOf(value: unknown, path: string, encoding: KeyEncoding): Uint8Array {
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

const encodingOf = (value: unknown, path: string): KeyEncoding =>
  isAbsent(value) ? 'text' : wordOf<KeyEncoding>(value, path, ['text', 'hex']);

// --------------------------------------------------------------------------------------------------------- partitions

function partitionSpec(value: unknown): PartitionSpec {
  const spec = fieldsOf(value, 'spec', ['range', 'primary', 'proxy', 'assignedPods']);
  const written = fieldsOf(spec['range'], 'spec.range', ['start', 'end', 'encoding']);
  const encoding = encodingOf(written['encoding'], 'spec.range.encoding');
  const range: KeyRange = {
    start: keyOf(written['start'], 'spec.range.start', encoding),
    end: keyOf(written['end'], 'spec.range.end', encoding),
  };
  if (isEmptyRange(range)) {
    fail('spec.range.end', 'is not behind spec.range.start', 'the start belongs to the range, the end does not');
  }
  if (isAbsent(spec['assignedPods'])) {
    return { form: 'primary', range, encoding, pods: podsOfWords(spec) };
  }
  for (const field of ['primary', 'proxy']) {
    if (!isAbsent(spec[field])) {
      fail(`spec.${field}`, 'cannot stand beside spec.assignedPods', 'name the pods in one of the two ways');
    }
  }
  return { form: 'pods', range, encoding, pods: podsOfList(spec['assignedPods']) };
}

function podsOfWords(spec: Fields): PodAssignment[] {
  const pods: PodAssignment[] = [];
  for (const type of ['primary', 'proxy'] as const) {
    const name = optionalName(spec[type], `spec.${type}`);
    if (name !== undefined) {
      if (pods.some((pod) => pod.name === name)) {
        fail(`spec.${type}`, 'names the pod that is primary', 'a pod has one role');
      }
      pods.push({ name, type });
    }
  }
  return pods;
}

function podsOfList(value: unknown): PodAssignment[] {
  const pods = listOf(value, 'spec.assignedPods').map((entry, i): PodAssignment => {
    const path = `spec.assignedPods[${i}]`;
    const fields = fieldsOf(entry, path, ['name', 'type', 'status']);
    const hasBoth = !isAbsent(fields['type']) && !isAbsent(fields['status']);
    if (hasBoth && fields['type'] !== fields['status']) {
      fail(`${path}.status`, 'says something else than type', 'leave status out; it is another name of type');
    }
    const field = isAbsent(fields['type']) && !isAbsent(fields['status']) ? 'status' : 'type';
    return { name: nameOf(fields['name'], `${path}.name`), type: wordOf(fields[field], `${path}.${field}`, POD_ROLES) };
  });
  pods.forEach((pod, i) => {
    if (pods.findIndex((other) => other.name === pod.name) !== i) {
      fail(`spec.assignedPods[${i}].name`, `names ${pod.name} a second time`, 'a pod has one role');
    }
    if (pod.type === 'primary' && pods.findIndex((other) => other.type === 'primary') !== i) {
      fail(`spec.assignedPods[${i}].type`, 'is the second primary', 'exactly one pod is primary');
    }
  });
  return pods;
}

// -------------------------------------------------------------------------------------------------------- assignments

function assignmentSpec(value: unknown): AssignmentSpec {
  const spec = fieldsOf(value, 'spec', ['type', ...PARAMS]);
  const type = wordOf(spec['type'], 'spec.type', ASSIGNMENT_TYPES);
  const field = (
    {
      New: 'newParams',
      InWorkerSplit: 'splitParams',
      InWorkerMerge: 'mergeParams',
      InterWorkerMove: 'moveParams',
    } as const
  )[type];
  for (const other of PARAMS) {
    if (other !== field && !isAbsent(spec[other])) {
      fail(`spec.${other}`, `does not belong to the type ${type}`, `write spec.${field}`);
    }
  }
  const path = `spec.${field}`;
  const params = spec[field];
  switch (type) {
    case 'New': {
      const given = fieldsOf(params, path, ['partition', 'primary']);
      return {
        type,
        partition: nameOf(given['partition'], `${path}.partition`),
        primary: nameOf(given['primary'], `${path}.primary`),
      };
    }
    case 'InWorkerSplit':
      return splitSpec(params, path);
    case 'InWorkerMerge':
      return mergeSpec(params, path);
    case 'InterWorkerMove': {
      const given = fieldsOf(params, path, ['partition', 'from', 'to', 'proxyThreshold']);
      const [from, to] = [nameOf(given['from'], `${path}.from`), nameOf(given['to'], `${path}.to`)];
      if (from === to) {
        fail(`${path}.to`, 'is the pod it moves from', 'name another pod');
      }
      return {
        type,
        partition: nameOf(given['partition'], `${path}.partition`),
        from,
        to,
        proxyThresholdMs: thresholdOf(given['proxyThreshold'], `${path}.proxyThreshold`),
      };
    }
  }
}

function splitSpec(params: unknown, path: string): AssignmentSpec {
  const given = fieldsOf(params, path, ['partition', 'splitKey', 'encoding', 'names']);
  const encoding = encodingOf(given['encoding'], `${path}.encoding`);
  const splitKey = keyOf(given['splitKey'], `${path}.splitKey`, encoding);
  if (splitKey.length === 0) {
    fail(`${path}.splitKey`, 'is missing', 'give the first key of the right part');
  }
  let names: readonly [string, string] | undefined;
  if (!isAbsent(given['names'])) {
    const list = listOf(given['names'], `${path}.names`).map((name, i) => nameOf(name, `${path}.names[${i}]`));
    const [left, right] = list;
    if (left === undefined || right === undefined || list.length !== 2 || left === right) {
      fail(`${path}.names`, 'must be two different names', 'name the left and the right part');
    }
    names = [left, right];
  }
  return {
    type: 'InWorkerSplit',
    partition: nameOf(given['partition'], `${path}.partition`),
    splitKey,
    encoding,
    names,
  };
}

function mergeSpec(params: unknown, path: string): AssignmentSpec {
  const given = fieldsOf(params, path, ['partitions', 'mergedName', 'gapPolicy', 'strict', 'force', 'proxyThreshold']);
  const partitions = listOf(given['partitions'], `${path}.partitions`).map((name, i) =>
    nameOf(name, `${path}.partitions[${i}]`),
  );
  if (partitions.length < 2) {
    fail(
      `${path}.partitions`,
      `names ${partitions.length === 1 ? 'one Partition' : 'no Partition'}`,
      'name at least two',
    );
  }
  partitions.forEach((name, i) => {
    if (partitions.indexOf(name) !== i) {
      fail(`${path}.partitions[${i}]`, `names ${name} a second time`, 'name each Partition once');
    }
  });
  return {
    type: 'InWorkerMerge',
    partitions,
    mergedName: optionalName(given['mergedName'], `${path}.mergedName`),
    gapPolicy: isAbsent(given['gapPolicy'])
      ? undefined
      : wordOf<GapPolicy>(given['gapPolicy'], `${path}.gapPolicy`, ['absorb', 'reject']),
    strict: flagOf(given['strict'], `${path}.strict`),
    force: flagOf(given['force'], `${path}.force`),
    proxyThresholdMs: thresholdOf(given['proxyThreshold'], `${path}.proxyThreshold`),
  };
}

// ---------------------------------------------------------------------------------------------------------- documents

function kindOf(fields: Fields, warnings: string[]): ResourceKind {
  const { kind, spec } = fields;
  if (isAbsent(kind)) {
    if (isFields(spec) && !isAbsent(spec['range'])) {
      warnings.push('kind is missing; taken as Partition because it has spec.range');
      return 'Partition';
    }
    fail('kind', 'is missing', `write kind: ${RESOURCE_KINDS.join(' or kind: ')}`);
  }
  const found = RESOURCE_KINDS.find((known) => known === kind);
  if (found === undefined) {
    fail(
      'kind',
      `is not known: ${String(JSON.stringify(kind)).slice(0, 80)}`,
      `write ${RESOURCE_KINDS.join(' or ')}`,
      'UnknownKind',
    );
  }
  return found;
}

function parse(document: unknown): ParsedDocument {
  const warnings: string[] = [];
  const fields = fieldsOf(document, 'the document', ['apiVersion', 'kind', 'metadata', 'spec', 'status']);
  if (!isAbsent(fields['apiVersion']) && fields['apiVersion'] !== API_VERSION) {
    fail('apiVersion', 'is not known', `write ${API_VERSION}, or leave it out`);
  }
  const kind = kindOf(fields, warnings);
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
    kind,
    name: nameOf(metadata['name'], 'metadata.name'),
    resourceVersion: isAbsent(version) ? undefined : (version as number),
    uid: isAbsent(metadata['uid']) ? undefined : textOf(metadata['uid'], 'metadata.uid'),
    spec: kind === 'Partition' ? partitionSpec(fields['spec']) : assignmentSpec(fields['spec']),
    warnings,
  };
}

/** Reads one document. */
export function parseDocument(document: unknown): Result<ParsedDocument> {
  try {
    return ok(parse(document));
  } catch (error) {
    if (error instanceof DocumentError) {
      return refused(error.refusal);
    }
    throw error;
  }
}
