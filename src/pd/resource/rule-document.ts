/** Placement rules as documents: `metadata.name` is GROUP/ID, the spec is the rule itself. */
import { fromUtf8, toHex, utf8, equalBytes } from '../../base/bytes.ts';
import {
  CONSTRAINT_OPS,
  DEFAULT_RULE_NAME,
  type LabelConstraint,
  type PlacementRule,
  RULE_ROLES,
  problemOfRule,
  ruleName,
} from '../schedule/placement/rule.ts';
import { type Refusal, type Result, refuse } from '../schedule/verdict.ts';
import {
  encodingOf,
  envelopeOf,
  fail,
  fieldsOf,
  flagOf,
  headOf,
  isAbsent,
  keyOf,
  listOf,
  reading,
  textOf,
  wordOf,
} from './fields.ts';

/** A rule that can be read; whether it fits the others is decided later. */
export interface ParsedRule {
  /** Given to be refused when the rule has changed since; undefined = any. */
  readonly resourceVersion: number | undefined;
  readonly rule: PlacementRule;
  readonly warnings: readonly string[];
}

/** `group/id`; a word alone is a rule of the group `default`. Undefined for anything else. */
export function parseRuleName(text: string): { readonly group: string; readonly id: string } | undefined {
  const [first, second, ...more] = text.split('/');
  if (first === undefined || first === '' || second === '' || more.length > 0) {
    return undefined;
  }
  return second === undefined ? { group: DEFAULT_RULE_NAME.group, id: first } : { group: first, id: second };
}

export const parseRuleDocument = (document: unknown): Result<ParsedRule> => reading(() => parse(document));

function parse(document: unknown): ParsedRule {
  const warnings: string[] = [];
  const fields = envelopeOf(document);
  const head = headOf(fields, warnings);
  const written = textOf(head.name, 'metadata.name');
  const name = parseRuleName(written);
  if (name === undefined) {
    fail(
      'metadata.name',
      `is not the name of a rule: ${JSON.stringify(written.slice(0, 80))}`,
      'write GROUP/ID, for example default/ssd',
    );
  }
  if (head.uid !== undefined) {
    fail('metadata.uid', 'does not belong to a PlacementRule', 'leave it out');
  }
  const spec = fieldsOf(fields['spec'], 'spec', [
    'index',
    'override',
    'range',
    'role',
    'count',
    'constraints',
    'locationLabels',
    'isolationLevel',
  ]);
  const rule: PlacementRule = {
    ...name,
    index: isAbsent(spec['index']) ? 0 : integerOf(spec['index'], 'spec.index'),
    override: flagOf(spec['override'], 'spec.override'),
    range: rangeOf(spec['range']),
    role: wordOf(spec['role'], 'spec.role', RULE_ROLES),
    count: integerOf(spec['count'], 'spec.count'),
    constraints: isAbsent(spec['constraints'])
      ? []
      : listOf(spec['constraints'], 'spec.constraints').map((item, i) => constraintOf(item, `spec.constraints[${i}]`)),
    locationLabels: textsOf(spec['locationLabels'], 'spec.locationLabels'),
    isolationLevel: isAbsent(spec['isolationLevel']) ? '' : textOf(spec['isolationLevel'], 'spec.isolationLevel'),
    version: 0,
  };
  return { resourceVersion: head.resourceVersion, rule, warnings };
}

function rangeOf(value: unknown): PlacementRule['range'] {
  if (isAbsent(value)) {
    return { start: new Uint8Array(0), end: new Uint8Array(0) };
  }
  const written = fieldsOf(value, 'spec.range', ['start', 'end', 'encoding']);
  const encoding = encodingOf(written['encoding'], 'spec.range.encoding');
  return {
    start: keyOf(written['start'], 'spec.range.start', encoding),
    end: keyOf(written['end'], 'spec.range.end', encoding),
  };
}

function constraintOf(value: unknown, path: string): LabelConstraint {
  const written = fieldsOf(value, path, ['key', 'op', 'values']);
  return {
    key: textOf(written['key'], `${path}.key`),
    op: wordOf(written['op'], `${path}.op`, CONSTRAINT_OPS),
    values: textsOf(written['values'], `${path}.values`),
  };
}

const textsOf = (value: unknown, path: string): readonly string[] =>
  isAbsent(value) ? [] : listOf(value, path).map((item, i) => textOf(item, `${path}[${i}]`));

function integerOf(value: unknown, path: string): number {
  if (!Number.isSafeInteger(value)) {
    fail(path, isAbsent(value) ? 'is missing' : 'must be a whole number', 'write a whole number without quotes');
  }
  return value as number;
}

/** Why a rule makes no sense by itself, with the path of the field in its document. */
export function refusalOfRule(rule: PlacementRule, clusterLabels: readonly string[]): Refusal | undefined {
  const problem = problemOfRule(rule, clusterLabels);
  if (problem === undefined) {
    return undefined;
  }
  const { field, why, hint } = problem;
  const path = field === 'group' || field === 'id' ? 'metadata.name' : `spec.${field}`;
  return refuse('InvalidRule', `${path}: ${why}`, hint, { path, rule: ruleName(rule) });
}

/** The spec as its author may have written it: what has its default is left out, role and count never are. */
export function ruleSpecShown(rule: PlacementRule): Readonly<Record<string, unknown>> {
  const { start, end } = rule.range;
  const isText = [start, end].every(isPlainText);
  const shown = (key: Uint8Array): string => (isText ? fromUtf8(key) : toHex(key));
  const range = {
    ...(start.length === 0 ? {} : { start: shown(start) }),
    ...(end.length === 0 ? {} : { end: shown(end) }),
    ...(isText ? {} : { encoding: 'hex' }),
  };
  return {
    ...(Object.keys(range).length === 0 ? {} : { range }),
    role: rule.role,
    count: rule.count,
    ...(rule.index === 0 ? {} : { index: rule.index }),
    ...(rule.override ? { override: true } : {}),
    ...(rule.constraints.length === 0
      ? {}
      : {
          constraints: rule.constraints.map(({ key, op, values }) => ({
            key,
            op,
            ...(values.length === 0 ? {} : { values }),
          })),
        }),
    ...(rule.locationLabels.length === 0 ? {} : { locationLabels: rule.locationLabels }),
    ...(rule.isolationLevel === '' ? {} : { isolationLevel: rule.isolationLevel }),
  };
}

/** Whether a key can be written as text and read again, and looks like what it is. */
const isPlainText = (key: Uint8Array): boolean =>
  key.every((byte) => byte >= 0x20 && byte !== 0x7f) && equalBytes(utf8(fromUtf8(key)), key);
