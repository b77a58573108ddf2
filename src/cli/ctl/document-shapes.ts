/** How documents look. In YAML and JSON a document has the words its authors write. */
import type { DocumentInfo, DocumentResult } from '../../client/documents.ts';
import { type Document, toPlainYaml } from '../output/document.ts';
import { type Field, type ListShape, type Section, type Single, section } from '../output/printer.ts';
import { formatAge, type KeyFormat } from '../text-form.ts';
import { regionObject } from './shapes.ts';

type Fields = Readonly<Record<string, unknown>>;

const asFields = (value: unknown): Fields => (typeof value === 'object' && value !== null ? (value as Fields) : {});
const textOf = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));

/** `partition/part1` */
export const documentName = (document: { readonly kind: string; readonly name: string }): string =>
  `${document.kind.replace(/\B[A-Z]/g, '-$&').toLowerCase()}/${document.name}`;

const pairs = (value: unknown): string =>
  Object.entries(asFields(value))
    .map(([name, state]) => `${name} ${textOf(state)}`)
    .join(', ');

function rangeText(value: unknown): string {
  const range = asFields(value);
  const start = range['start'] === undefined ? '-inf' : textOf(range['start']);
  const end = range['end'] === undefined ? '+inf' : textOf(range['end']);
  return `[${start}, ${end})`;
}

function ruleText(spec: Fields): string {
  const constraints = Array.isArray(spec['constraints']) ? (spec['constraints'] as Fields[]) : [];
  const stores = constraints.map(({ key, op, values }) =>
    [key, op, ...(Array.isArray(values) ? [values.map(textOf).join(',')] : [])].map(textOf).join(' '),
  );
  return [
    rangeText(spec['range']),
    `${textOf(spec['count'])} ${textOf(spec['role'])}${spec['count'] === 1 ? '' : 's'}`,
    ...(stores.length === 0 ? [] : [`where ${stores.join(' and ')}`]),
    ...(spec['override'] === true ? ['override'] : []),
  ].join(' ');
}

const settingsText = (values: unknown): string =>
  Object.entries(asFields(values))
    .map(([name, value]) => `${name}=${Array.isArray(value) ? value.map(textOf).join(',') : textOf(value)}`)
    .join(' ');

/** A Partition's range and pods; an Assignment's type and what it is about; what a rule, scheduler or config says. */
function whatText({ kind, spec }: DocumentInfo): string {
  switch (kind) {
    case 'PlacementRule':
      return ruleText(spec);
    case 'Scheduler':
      return [spec['enabled'] === true ? 'on' : 'off', settingsText(spec['parameters'])].join(' ').trimEnd();
    case 'Config':
      return settingsText(spec);
    default:
      return resourceText(kind, spec);
  }
}

function resourceText(kind: DocumentInfo['kind'], spec: Fields): string {
  if (kind === 'Partition') {
    const pods = Array.isArray(spec['assignedPods'])
      ? (spec['assignedPods'] as Fields[]).map((pod) => `${textOf(pod['type'])} ${textOf(pod['name'])}`)
      : ['primary', 'proxy'].filter((role) => role in spec).map((role) => `${role} ${textOf(spec[role])}`);
    return [rangeText(spec['range']), ...pods].join(' ');
  }
  const params = Object.entries(spec).find(([name]) => name.endsWith('Params'))?.[1];
  const about = Object.entries(asFields(params)).map(([name, value]) =>
    Array.isArray(value)
      ? value.map(textOf).join(' ')
      : name === 'partition'
        ? textOf(value)
        : `${name} ${textOf(value)}`,
  );
  return [textOf(spec['type']), ...about].join(' ');
}

/** The status in one line. */
export function statusText({ kind, status }: DocumentInfo): string {
  if (status === null || status === undefined) {
    return '';
  }
  if (typeof status === 'string') {
    return status;
  }
  if (kind === 'Partition') {
    return pairs(status);
  }
  const inner = asFields(Object.values(asFields(status))[0]);
  const rest = Object.entries(inner)
    .filter(([name]) => name !== 'status')
    .map(([name, value]) => (typeof value === 'string' ? `${name} ${value}` : pairs(value)))
    .filter((text) => text !== '');
  return `${textOf(inner['status'])}${rest.length === 0 ? '' : ` (${rest.join(', ')})`}`;
}

const conditionText = (document: DocumentInfo): string =>
  document.conditions.map(({ type, message }) => `${type}: ${message}`).join('; ');

const peersText = ({ regions, pods }: DocumentInfo): string =>
  regions
    .map((region) =>
      region.peers
        .map((peer) => {
          const pod = pods.get(peer.storeId);
          const name = pod === undefined || pod === '' ? `store ${peer.storeId}` : pod;
          return `${name}${region.leader?.id === peer.id ? '*' : ''}${peer.role === 'voter' ? '' : `(${peer.role})`}`;
        })
        .join(','),
    )
    .join(' ');

/** The words of the document; nothing of what is only observed. */
export const plainDocument = ({ kind, metadata, spec, status }: DocumentInfo): Document => {
  const { name, resourceVersion } = metadata;
  // Settings have neither an identity nor a status of their own.
  return metadata.uid === '' ? { kind, metadata: { name, resourceVersion }, spec } : { kind, metadata, spec, status };
};

/** What a file for `apply` needs: no status, no versions. */
export const exportedDocument = ({ kind, metadata, spec }: DocumentInfo): Document => ({
  kind,
  metadata: { name: metadata.name },
  spec,
});

/** Everything known about a document. */
export function fullDocument(document: DocumentInfo, format: KeyFormat): Document {
  const { conditions, regions, pods, remainingMs, kind, changedBy, changeReason } = document;
  return {
    ...plainDocument(document),
    conditions,
    ...(changedBy === '' ? {} : { lastChange: { by: changedBy, reason: changeReason } }),
    observed:
      document.observed ??
      (kind === 'Partition'
        ? { regions: regions.map((region) => regionObject(region, format)), pods: Object.fromEntries(pods) }
        : { remainingMs }),
  };
}

export const DOCUMENT_SHAPE: ListShape<DocumentInfo> = {
  kind: 'DocumentList',
  columns: [
    { head: 'kind', cell: (document) => document.kind },
    { head: 'name', cell: (document) => document.metadata.name },
    { head: 'what', cell: whatText },
    { head: 'status', cell: statusText },
    { head: 'regions', cell: ({ regions }) => regions.map(({ id }) => id).join(','), isWide: true },
    {
      head: 'epoch',
      cell: ({ regions }) => regions.map(({ epoch }) => `${epoch.confVer}:${epoch.version}`).join(','),
      isWide: true,
    },
    { head: 'peers', cell: peersText, isWide: true },
    { head: 'conditions', cell: conditionText, isWide: true },
    { head: 'version', cell: ({ metadata }) => metadata.resourceVersion, align: 'right', isWide: true },
  ],
  toObject: plainDocument,
  name: ({ kind, metadata }) => documentName({ kind, name: metadata.name }),
};

export function documentSingle(document: DocumentInfo, format: KeyFormat, nowUnixMs: number): Single {
  const { kind, metadata, conditions, createdUnixMs, remainingMs } = document;
  const sections: Section[] = [];
  if (conditions.length > 0) {
    sections.push(
      section(
        'Conditions',
        [
          { head: 'condition', cell: ({ type }) => type },
          { head: 'message', cell: ({ message }) => message },
        ],
        conditions,
      ),
    );
  }
  const fields: Field[] = [
    { name: 'kind', value: kind },
    { name: 'name', value: metadata.name },
    { name: 'what', value: whatText(document) },
    { name: 'status', value: statusText(document) },
    ...(metadata.uid === '' ? [] : [{ name: 'generation', value: metadata.generation }]),
    { name: 'version', value: metadata.resourceVersion },
    ...(metadata.uid === '' ? [] : [{ name: 'uid', value: metadata.uid }]),
    ...(createdUnixMs === 0
      ? []
      : [
          {
            name: metadata.uid === '' ? 'changed' : 'age',
            value: `${formatAge(Math.max(0, nowUnixMs - createdUnixMs))}${metadata.uid === '' ? ' ago' : ''}`,
          },
        ]),
    ...(document.changedBy === ''
      ? []
      : [
          {
            name: 'last change',
            value: `by ${document.changedBy}${document.changeReason === '' ? '' : `: ${document.changeReason}`}`,
          },
        ]),
  ];
  if (kind === 'Partition') {
    fields.push(
      { name: 'regions', value: document.regions.map(({ id }) => id).join(', ') },
      { name: 'peers', value: peersText(document) },
    );
  } else if (document.observed !== undefined) {
    fields.push(...observedFields(document.observed));
    sections.push(...observedSections(document.observed));
  } else if (remainingMs > 0) {
    fields.push({ name: 'old routes served for', value: formatAge(remainingMs) });
  }
  return {
    document: fullDocument(document, format),
    name: documentName({ kind, name: metadata.name }),
    fields,
    sections,
  };
}

const words = (name: string): string => name.replace(/[A-Z]/g, ' $&').toLowerCase();

/** What is observed of a rule or a scheduler, value by value; lists of numbers are named, others have a table. */
const observedFields = (observed: Fields): Field[] =>
  Object.entries(observed)
    .filter(([name]) => name !== 'settings' && name !== 'parameters')
    .map(([name, value]) => ({
      name: words(name),
      value: Array.isArray(value) ? value.map(textOf).join(', ') : value === null ? '' : textOf(value),
    }));

const cellOf = (name: string) => ({
  head: words(name),
  cell: (row: Fields): string => {
    const value = row[name];
    return Array.isArray(value) ? value.map(textOf).join(',') : value === undefined ? '' : textOf(value);
  },
});

/** Every setting of a config with where it comes from; every parameter of a scheduler. */
function observedSections(observed: Fields): Section[] {
  const rowsOf = (name: string): Fields[] => (Array.isArray(observed[name]) ? (observed[name] as Fields[]) : []);
  const [settings, parameters] = [rowsOf('settings'), rowsOf('parameters')];
  return [
    ...(settings.length === 0
      ? []
      : [section('Settings', ['name', 'value', 'source', 'otherwise', 'min', 'max'].map(cellOf), settings)]),
    ...(parameters.length === 0
      ? []
      : [section('Parameters', ['name', 'value', 'default', 'min', 'max', 'description'].map(cellOf), parameters)]),
  ];
}

export const RESULT_SHAPE: ListShape<DocumentResult> = {
  kind: 'DocumentResultList',
  columns: [
    { head: 'kind', cell: ({ kind }) => kind },
    { head: 'name', cell: ({ name }) => name },
    { head: 'result', cell: ({ outcome }) => outcome },
    { head: 'reason', cell: ({ problem }) => (problem === undefined ? '' : `${problem.code}: ${problem.message}`) },
    { head: 'warnings', cell: ({ warnings }) => warnings.join('; '), isWide: true },
  ],
  toObject: ({ kind, name, outcome, problem, warnings }) => ({ kind, name, outcome, problem, warnings }),
  name: documentName,
};

/** Lines that went and came, with two lines around them. Both texts are short, so every pair of lines is compared. */
export function lineDiff(before: string, after: string): string[] {
  const [a, b] = [linesOf(before), linesOf(after)];
  const common: number[][] = Array.from({ length: a.length + 1 }, () => Array.from({ length: b.length + 1 }, () => 0));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const row = common[i] as number[];
      row[j] =
        a[i] === b[j] ? (common[i + 1]?.[j + 1] ?? 0) + 1 : Math.max(common[i + 1]?.[j] ?? 0, common[i]?.[j + 1] ?? 0);
    }
  }
  const out: string[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      out.push(`  ${a[i]}`);
      i++;
      j++;
    } else if (j >= b.length || (i < a.length && (common[i + 1]?.[j] ?? 0) >= (common[i]?.[j + 1] ?? 0))) {
      out.push(`- ${a[i++]}`);
    } else {
      out.push(`+ ${b[j++]}`);
    }
  }
  return out;
}

const linesOf = (text: string): string[] => text.split('\n').filter((line) => line !== '');

export const specYaml = (document: DocumentInfo | undefined): string =>
  document === undefined ? '' : toPlainYaml(exportedDocument(document));
