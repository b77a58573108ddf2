/** Calls of braid.admin.v1.Admin about placement rules. */
import { copyBytes } from '../../base/bytes.ts';
import type { ChangeRuleResponse, PlacementRule as WireRule, RequestHeader } from '../../gen/braid/admin/v1/admin.ts';
import {
  CONSTRAINT_OPS,
  DEFAULT_RULE_NAME,
  type PlacementRule,
  RULE_ROLES,
  defaultRule,
  ruleName,
} from '../../pd/schedule/placement/rule.ts';
import { type RulePlan, ruleNotFound } from '../../pd/schedule/placement/rule-plan.ts';
import { type Refusal, type Result, ok, refuse, refused } from '../../pd/schedule/verdict.ts';
import type { ServiceBuilder } from '../../rpc/service-builder.ts';
import { adminMethods } from '../../rpc/services.ts';
import { refusalToWire } from './admin-wire.ts';
import type { ServiceContext } from './context.ts';

const actorOf = (header: RequestHeader | undefined): string =>
  header === undefined || header.actor === '' ? 'an administrator' : header.actor;

export function addRuleCalls(builder: ServiceBuilder, context: ServiceContext): void {
  const { node } = context;
  const { cluster } = node.placement;
  const notBootstrapped = (): Result<RulePlan> =>
    refused(refuse('NotBootstrapped', 'the cluster has no store yet', 'start a store'));
  builder
    .unary(adminMethods.listRules, (request, call) => {
      context.check(request.header, call);
      const first = defaultRule(cluster.config.maxReplicas);
      const { rules } = cluster.rules;
      const all =
        request.key !== undefined
          ? cluster.rules.at(request.key).rules
          : rules.some((rule) => ruleName(rule) === ruleName(DEFAULT_RULE_NAME))
            ? rules
            : [first, ...rules];
      const found = all.filter(
        ({ group, id }) =>
          (request.group === '' || group === request.group) && (request.id === '' || id === request.id),
      );
      return request.id !== '' && found.length === 0
        ? { refusal: refusalToWire(ruleNotFound(request.group, request.id)), rules: [] }
        : { refusal: undefined, rules: found.map(ruleToWire) };
    })
    .unary(adminMethods.setRule, async (request, call) => {
      context.check(request.header, call);
      const { dryRun, expectVersion } = request;
      const note = request.reason || (request.header?.reason ?? '');
      const rule = ruleFromWire(request.rule);
      if (rule.type === 'refused') {
        return answer(rule);
      }
      return answer(
        node.isBootstrapped
          ? await node.changeRules((placement, version) => placement.planSetRule(version, rule.value, expectVersion), {
              dryRun,
              note,
              actor: actorOf(request.header),
            })
          : notBootstrapped(),
      );
    })
    .unary(adminMethods.deleteRule, async (request, call) => {
      context.check(request.header, call);
      const { group, id, dryRun, expectVersion } = request;
      const note = request.reason || (request.header?.reason ?? '');
      return answer(
        await node.changeRules((placement, version) => placement.planDeleteRule(version, group, id, expectVersion), {
          dryRun,
          note,
          actor: actorOf(request.header),
        }),
      );
    });
}

function answer(plan: Result<RulePlan>): ChangeRuleResponse {
  if (plan.type === 'refused') {
    const refusal = refusalToWire(plan.refusal);
    return { refusal, outcome: '', rule: undefined, regionsToSplit: 0, regionsToChange: 0 };
  }
  const { outcome, rule, regionsToSplit, regionsToChange } = plan.value;
  return { refusal: undefined, outcome, rule: ruleToWire(rule), regionsToSplit, regionsToChange };
}

const ruleToWire = (rule: PlacementRule): WireRule => ({
  group: rule.group,
  id: rule.id,
  index: rule.index,
  override: rule.override,
  start: rule.range.start,
  end: rule.range.end,
  role: rule.role,
  count: rule.count,
  constraints: rule.constraints.map(({ key, op, values }) => ({ key, op, values: [...values] })),
  locationLabels: [...rule.locationLabels],
  isolationLevel: rule.isolationLevel,
  version: rule.version,
});

const unknownWord = (field: string, word: string, known: readonly string[]): Refusal =>
  refuse('InvalidRule', `${field}: ${JSON.stringify(word)} is not known`, `use ${known.join(', ')}`, { field });

/** The words of a rule; whether they make sense together is checked where rules are planned. */
function ruleFromWire(rule: WireRule | undefined): Result<PlacementRule> {
  if (rule === undefined) {
    return refused(refuse('InvalidRule', 'no rule was given', 'give a rule'));
  }
  const role = RULE_ROLES.find((known) => known === rule.role);
  if (role === undefined) {
    return refused(unknownWord('role', rule.role, RULE_ROLES));
  }
  const constraints: PlacementRule['constraints'][number][] = [];
  for (const { key, op: word, values } of rule.constraints) {
    const op = CONSTRAINT_OPS.find((known) => known === word);
    if (op === undefined) {
      return refused(unknownWord('constraints', word, CONSTRAINT_OPS));
    }
    constraints.push({ key, op, values: [...values] });
  }
  return ok({
    group: rule.group,
    id: rule.id,
    index: rule.index,
    override: rule.override,
    range: { start: copyBytes(rule.start), end: copyBytes(rule.end) },
    role,
    count: rule.count,
    constraints,
    locationLabels: [...rule.locationLabels],
    isolationLevel: rule.isolationLevel,
    version: 0,
  });
}
