/**
 * Reads documents as users write them: plain values, as JSON or YAML parsers give them. Every refusal names the path of
 * the field and what is expected there. Accepts the forms of older documents: a missing kind beside `spec.range`,
 * `status` for `type` in an entry of `assignedPods`, and a status that is ignored with a warning.
 */
import { type KeyRange, isEmptyRange } from '../../base/key-range.ts';
import { parseDurationMs } from '../../base/units.ts';
import type { Result } from '../schedule/verdict.ts';
import {
  type Fields,
  encodingOf,
  envelopeOf,
  fail,
  fieldsOf,
  flagOf,
  headOf,
  isAbsent,
  isFields,
  keyOf,
  listOf,
  nameOf,
  optionalName,
  reading,
  wordOf,
} from './fields.ts';
import {
  ASSIGNMENT_TYPES,
  type AssignmentSpec,
  DOCUMENT_KINDS,
  type GapPolicy,
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

const THRESHOLD_MS_MAX: number = 24 * 3_600_000;

const POD_ROLES: readonly PodRole[] = ['primary', 'follower', 'proxy'];
const PARAMS = ['newParams', 'splitParams', 'mergeParams', 'moveParams'] as const;

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
    fail('kind', 'is missing', `write kind: ${DOCUMENT_KINDS.join(' or kind: ')}`);
  }
  const found = RESOURCE_KINDS.find((known) => known === kind);
  if (found === undefined) {
    fail(
      'kind',
      `is not known: ${String(JSON.stringify(kind)).slice(0, 80)}`,
      `write ${DOCUMENT_KINDS.join(' or ')}`,
      'UnknownKind',
    );
  }
  return found;
}

function parse(document: unknown): ParsedDocument {
  const warnings: string[] = [];
  const fields = envelopeOf(document);
  const kind = kindOf(fields, warnings);
  const head = headOf(fields, warnings);
  return {
    kind,
    name: nameOf(head.name, 'metadata.name'),
    resourceVersion: head.resourceVersion,
    uid: head.uid,
    spec: kind === 'Partition' ? partitionSpec(fields['spec']) : assignmentSpec(fields['spec']),
    warnings,
  };
}

/** Reads one document. */
export const parseDocument = (document: unknown): Result<ParsedDocument> => reading(() => parse(document));
