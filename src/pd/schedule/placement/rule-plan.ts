/** What a request to change the placement rules means: the rules afterwards, or why not. Pure; nothing takes effect here. */
import { escapeKey } from '../../../base/bytes.ts';
import type { Cluster } from '../../cluster/cluster.ts';
import { type Refusal, type Result, ok, refuse, refused, versionConflict } from '../verdict.ts';
import { DEFAULT_RULE_NAME, type PlacementRule, checkRule, ruleName, rulesEqual } from './rule.ts';
import { RuleSet } from './rule-set.ts';

/** The rules as they are to be, written as one command. */
export interface RuleChange {
  /** Version of the rules it was planned on. */
  readonly baseVersion: number;
  readonly version: number;
  readonly puts: readonly PlacementRule[];
  readonly deletes: readonly { readonly group: string; readonly id: string }[];
}

export interface RulePlan {
  readonly outcome: 'created' | 'changed' | 'unchanged' | 'deleted';
  /** As it is to be; of a deletion as it was. */
  readonly rule: PlacementRule;
  /** Undefined if nothing is to be written. */
  readonly change: RuleChange | undefined;
  /** Regions that will be split at a border of rules. */
  readonly regionsToSplit: number;
  /** Regions in the rule's range whose replicas will have to change as the stores are now. */
  readonly regionsToChange: number;
}

export interface RulePlanView {
  readonly cluster: Cluster;
  /** The largest version given to a rule so far. */
  readonly version: number;
  /** A Partition with keys on both sides of the key. */
  partitionAround(key: Uint8Array): string | undefined;
}

export function planSetRule(
  view: RulePlanView,
  wanted: PlacementRule,
  expectVersion: number | undefined,
): Result<RulePlan> {
  const { cluster, version } = view;
  const checked = checkRule(wanted, cluster.config.locationLabels);
  if (checked.type === 'refused') {
    return checked;
  }
  const rule: PlacementRule = { ...checked.value, version: version + 1 };
  const before = cluster.rules.get(rule.group, rule.id);
  const conflict = checkVersion(rule, before, expectVersion);
  if (conflict !== undefined) {
    return refused(conflict);
  }
  if (before !== undefined && rulesEqual(before, rule)) {
    return ok({ outcome: 'unchanged', rule: before, change: undefined, regionsToSplit: 0, regionsToChange: 0 });
  }
  return finish(view, before === undefined ? 'created' : 'changed', rule, [rule], []);
}

export function planDeleteRule(
  view: RulePlanView,
  group: string,
  id: string,
  expectVersion: number | undefined,
): Result<RulePlan> {
  const before = view.cluster.rules.get(group, id);
  if (before === undefined) {
    return refused(ruleNotFound(group, id));
  }
  const conflict = checkVersion(before, before, expectVersion);
  return conflict === undefined ? finish(view, 'deleted', before, [], [{ group, id }]) : refused(conflict);
}

export const ruleNotFound = (group: string, id: string): Refusal =>
  refuse(
    'RuleNotFound',
    ruleName({ group, id }) === ruleName(DEFAULT_RULE_NAME)
      ? 'the rule default/default was never changed: it asks for as many voters as the cluster wants replicas'
      : `there is no rule ${ruleName({ group, id })}`,
    'list them: braid ctl rule list',
    { rule: ruleName({ group, id }) },
  );

function checkVersion(
  rule: PlacementRule,
  before: PlacementRule | undefined,
  expected: number | undefined,
): Refusal | undefined {
  const current = before?.version ?? 0;
  if (expected === undefined || expected === current) {
    return undefined;
  }
  const name = ruleName(rule);
  return before === undefined
    ? refuse(
        'Conflict',
        `rule ${name} does not exist; version ${expected} was expected`,
        'look at it again and repeat your change',
        { rule: name, version: 0, expected_version: expected },
      )
    : versionConflict(`rule ${name}`, current, expected, { rule: name });
}

function finish(
  view: RulePlanView,
  outcome: RulePlan['outcome'],
  rule: PlacementRule,
  puts: RuleChange['puts'],
  deletes: RuleChange['deletes'],
): Result<RulePlan> {
  const { cluster, version } = view;
  const kept = cluster.rules.rules.filter((other) => ruleName(other) !== ruleName(rule));
  const next = new RuleSet([...kept, ...puts], cluster.config.maxReplicas);
  const problem = problemTogether(view, next);
  if (problem !== undefined) {
    return refused(problem);
  }
  const inRange = cluster.tree.overlaps(rule.range);
  return ok({
    outcome,
    rule,
    change: { baseVersion: version, version: version + 1, puts, deletes },
    regionsToSplit: inRange.filter(({ region }) => next.bordersIn(region.range).length > 0).length,
    regionsToChange: inRange.filter((info) => !cluster.isFullyReplicated(info, next)).length,
  });
}

/** Why rules that make sense one by one cannot hold together. */
export const problemTogether = (view: RulePlanView, next: RuleSet): Refusal | undefined =>
  next.problem() ?? checkPartitions(view, next);

/** A Partition is one region, and a region has one list of rules. */
function checkPartitions(view: RulePlanView, next: RuleSet): Refusal | undefined {
  for (const segment of next.segments) {
    const { start } = segment.range;
    const isNew = start.length > 0 && !view.cluster.rules.isBorder(start);
    const partition = isNew ? view.partitionAround(start) : undefined;
    if (partition !== undefined) {
      return refuse(
        'RuleBorder',
        `the border ${escapeKey(start)} lies inside Partition ${partition}, which is one region`,
        'choose the borders of the Partition, or split it first',
        { partition },
      );
    }
  }
  return undefined;
}
