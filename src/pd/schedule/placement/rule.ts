/**
 * Placement rules: how many replicas of which role a key range has, and on which stores (tikv/pd
 * pkg/schedule/placement). A rule is a value; {@link RuleSet} says which rules hold for a key.
 */
import { compareBytes } from '../../../base/bytes.ts';
import { FULL_RANGE, type KeyRange, formatRange, isEmptyRange, rangesEqual } from '../../../base/key-range.ts';
import type { Store } from '../../../meta/region.ts';
import { labelOf } from '../../cluster/store-info.ts';
import { type Result, ok, refuse, refused } from '../verdict.ts';

/**
 * - `leader`: a voter that leads if it can;
 * - `voter`: votes and may lead;
 * - `follower`: votes and never leads for long;
 * - `learner`: holds the data and does not vote.
 */
export const RULE_ROLES = ['leader', 'voter', 'follower', 'learner'] as const;
export type RuleRole = (typeof RULE_ROLES)[number];

export const CONSTRAINT_OPS = ['in', 'not-in', 'exists', 'not-exists'] as const;
export type ConstraintOp = (typeof CONSTRAINT_OPS)[number];

/** A condition on the labels of a store. Label keys are compared without case. */
export interface LabelConstraint {
  readonly key: string;
  readonly op: ConstraintOp;
  /** Only for `in` and `not-in`. */
  readonly values: readonly string[];
}

export interface PlacementRule {
  readonly group: string;
  readonly id: string;
  /** Rules apply in the order of index, group, id. */
  readonly index: number;
  /** Rules before this one do not hold where it does. */
  readonly override: boolean;
  readonly range: KeyRange;
  readonly role: RuleRole;
  /** Replicas of this role. */
  readonly count: number;
  /** A store must meet all of them. */
  readonly constraints: readonly LabelConstraint[];
  /** Empty = those of the cluster. */
  readonly locationLabels: readonly string[];
  /** One of the location labels, or empty: replicas of this rule never share a place of this label. */
  readonly isolationLevel: string;
  /** Of the rules when this one was set last; 0 = never. */
  readonly version: number;
}

/** The rule every key has while nothing replaces it. */
export const DEFAULT_RULE_NAME: { readonly group: string; readonly id: string } = Object.freeze({
  group: 'default',
  id: 'default',
});

/** Rules of a cluster at most. */
export const RULES_MAX = 1_000;
/** Replicas that all rules of one key may ask for at most. */
export const RULE_REPLICAS_MAX = 15;
const CONSTRAINTS_MAX = 16;
const CONSTRAINT_VALUES_MAX = 64;
const INDEX_MAX = 1_000_000;
const LABEL_LENGTH_MAX = 128;
const NAME = /^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$/i;

export const defaultRule = (maxReplicas: number): PlacementRule => ({
  ...DEFAULT_RULE_NAME,
  index: 0,
  override: false,
  range: FULL_RANGE,
  role: 'voter',
  count: maxReplicas,
  constraints: [],
  locationLabels: [],
  isolationLevel: '',
  version: 0,
});

export const ruleName = ({ group, id }: { readonly group: string; readonly id: string }): string => `${group}/${id}`;

export const compareRules = (a: PlacementRule, b: PlacementRule): number =>
  a.index - b.index || compareText(a.group, b.group) || compareText(a.id, b.id);

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

export function rulesEqual(a: PlacementRule, b: PlacementRule): boolean {
  const plain = (rule: PlacementRule): string => JSON.stringify({ ...rule, range: undefined, version: 0 });
  return rangesEqual(a.range, b.range) && plain(normalized(a)) === plain(normalized(b));
}

/** The same rule with its fields in one order. */
const normalized = (rule: PlacementRule): PlacementRule => ({
  group: rule.group,
  id: rule.id,
  index: rule.index,
  override: rule.override,
  range: rule.range,
  role: rule.role,
  count: rule.count,
  constraints: rule.constraints.map(({ key, op, values }) => ({ key, op, values })),
  locationLabels: rule.locationLabels,
  isolationLevel: rule.isolationLevel,
  version: rule.version,
});

/** Whether a replica of this rule votes. */
export const isVoting = (role: RuleRole): boolean => role !== 'learner';

/** Whether a store meets all constraints. */
export const meetsConstraints = (store: Store, constraints: readonly LabelConstraint[]): boolean =>
  constraints.every(({ key, op, values }) => {
    const value = labelOf(store.labels, key);
    switch (op) {
      case 'in':
        return value !== undefined && values.includes(value);
      case 'not-in':
        return value === undefined || !values.includes(value);
      case 'exists':
        return value !== undefined;
      case 'not-exists':
        return value === undefined;
    }
  });

export const formatConstraint = ({ key, op, values }: LabelConstraint): string =>
  op === 'in' || op === 'not-in' ? `${key} ${op} ${values.join(',')}` : `${key} ${op}`;

/** Checks a rule by itself; names the field that makes no sense. */
export function checkRule(rule: PlacementRule, clusterLabels: readonly string[]): Result<PlacementRule> {
  const problem = problemOfRule(rule, clusterLabels);
  if (problem === undefined) {
    return ok(normalized(rule));
  }
  const { field, why, hint } = problem;
  const name = ruleName(rule);
  return refused(refuse('InvalidRule', `${field} of rule ${name}: ${why}`, hint, { field, rule: name }));
}

/** What makes no sense in a rule by itself. */
export interface RuleProblem {
  readonly field: keyof PlacementRule;
  readonly why: string;
  readonly hint: string;
}

const invalid = (field: keyof PlacementRule, why: string, hint: string): RuleProblem => ({ field, why, hint });

/** @param clusterLabels location labels of rules that name none */
export function problemOfRule(rule: PlacementRule, clusterLabels: readonly string[]): RuleProblem | undefined {
  for (const field of ['group', 'id'] as const) {
    if (!NAME.test(rule[field])) {
      return invalid(
        field,
        `${JSON.stringify(rule[field])} is not a name`,
        'use 1 to 63 letters, digits, dots, dashes and underscores',
      );
    }
  }
  if (!Number.isSafeInteger(rule.index) || rule.index < 0 || rule.index > INDEX_MAX) {
    return invalid('index', `${rule.index} is out of range`, `give 0 to ${INDEX_MAX}`);
  }
  if (isEmptyRange(rule.range)) {
    return invalid('range', `${formatRange(rule.range)} holds no key`, 'give a start before the end');
  }
  if (!RULE_ROLES.includes(rule.role)) {
    return invalid('role', `${String(rule.role)} is not a role`, `roles are ${RULE_ROLES.join(', ')}`);
  }
  const countMax = rule.role === 'leader' ? 1 : RULE_REPLICAS_MAX;
  if (!Number.isSafeInteger(rule.count) || rule.count < 1 || rule.count > countMax) {
    return invalid('count', `${rule.count} replicas of role ${rule.role}`, `give 1 to ${countMax}`);
  }
  return problemOfLabels(rule, clusterLabels);
}

const isLabel = (text: string): boolean => text.length > 0 && text.length <= LABEL_LENGTH_MAX;

function problemOfLabels(rule: PlacementRule, clusterLabels: readonly string[]): RuleProblem | undefined {
  if (rule.constraints.length > CONSTRAINTS_MAX) {
    return invalid('constraints', `${rule.constraints.length} of them`, `give at most ${CONSTRAINTS_MAX}`);
  }
  for (const { key, op, values } of rule.constraints) {
    if (!isLabel(key)) {
      return invalid('constraints', `${JSON.stringify(key)} is not a label`, 'name a label of stores');
    }
    if (!CONSTRAINT_OPS.includes(op)) {
      return invalid('constraints', `${String(op)} is not a comparison`, `use ${CONSTRAINT_OPS.join(', ')}`);
    }
    const wantsValues = op === 'in' || op === 'not-in';
    if (wantsValues !== values.length > 0 || values.length > CONSTRAINT_VALUES_MAX || !values.every(isLabel)) {
      return invalid(
        'constraints',
        `${key} ${op} has ${values.length} values`,
        wantsValues ? `give 1 to ${CONSTRAINT_VALUES_MAX} values` : 'give no value',
      );
    }
  }
  const labels = rule.locationLabels.length > 0 ? rule.locationLabels : clusterLabels;
  const lower = labels.map((label) => label.toLowerCase());
  if (!rule.locationLabels.every(isLabel) || new Set(lower).size !== lower.length) {
    return invalid('locationLabels', 'empty or named twice', 'list labels from the widest to the narrowest');
  }
  if (rule.isolationLevel !== '' && !lower.includes(rule.isolationLevel.toLowerCase())) {
    return invalid(
      'isolationLevel',
      `${rule.isolationLevel} is not a location label`,
      labels.length === 0 ? 'give location labels' : `location labels are ${labels.join(', ')}`,
    );
  }
  return undefined;
}

/** Borders of a rule strictly inside a range, in key order. */
export function bordersInside(range: KeyRange, borders: readonly Uint8Array[]): Uint8Array[] {
  return borders.filter(
    (key) => compareBytes(range.start, key) < 0 && (range.end.length === 0 || compareBytes(key, range.end) < 0),
  );
}
