/**
 * Plans a request for documents of all kinds: Partitions and Assignments, placement rules, schedulers, and the settings
 * of the service. All documents are taken or none, and those of one request fit each other. Pure; nothing takes effect here.
 */
import type { Cluster } from '../cluster/cluster.ts';
import type { Author } from '../cluster/events.ts';
import type { PlacementConfig } from '../defaults.ts';
import { type RunTimeSettings, type SettingsChange, effectiveSettings, relationRefusal } from '../settings.ts';
import {
  DEFAULT_RULE_NAME,
  type PlacementRule,
  defaultRule,
  ruleName,
  rulesEqual,
} from '../schedule/placement/rule.ts';
import {
  type RuleChange,
  type RulePlanView,
  planDeleteRule,
  problemTogether,
  ruleNotFound,
} from '../schedule/placement/rule-plan.ts';
import { RuleSet } from '../schedule/placement/rule-set.ts';
import { notAdded, planSchedulerChange } from '../schedule/scheduler-plan.ts';
import type { SchedulerRecord } from '../schedule/scheduler-settings.ts';
import { SWITCHES, type SwitchName, type SwitchSetting, isSwitchName } from '../schedule/switches.ts';
import { type Refusal, refuse } from '../schedule/verdict.ts';
import type { DocumentChanges } from '../state/pd-state.ts';
import { CONFIG_NAME, type ParsedConfig, isUnset, parseConfigDocument, settingsEqual } from './config-document.ts';
import { isFields } from './fields.ts';
import { DOCUMENT_KINDS, type DocumentKind, type Resource } from './resource.ts';
import { type DocumentResult, type Resources, nameLike, refusalOfCount, resourceNotFound } from './resources.ts';
import { type ParsedRule, parseRuleDocument, parseRuleName, refusalOfRule } from './rule-document.ts';
import {
  type ParsedScheduler,
  type SchedulerDocument,
  isLastingOn,
  isUnchanged,
  parseSchedulerDocument,
} from './scheduler-document.ts';

export interface RuleDocument {
  readonly kind: 'PlacementRule';
  readonly rule: PlacementRule;
}

export interface ConfigDocument {
  readonly kind: 'Config';
  readonly settings: RunTimeSettings;
}

export type AnyDocument = Resource | RuleDocument | SchedulerDocument | ConfigDocument;
export type AnyResult = DocumentResult<AnyDocument>;

/** What a request means. With a refusal nothing is to be changed. */
export interface DocumentsPlan {
  readonly refusal: Refusal | undefined;
  /** One per document, in their order. */
  readonly results: readonly AnyResult[];
  /** Empty if nothing is to be written. */
  readonly changes: DocumentChanges;
}

/** What a request is planned on. */
export interface DocumentsView {
  readonly cluster: Cluster;
  readonly resources: Resources;
  readonly rules: RulePlanView;
  readonly settings: RunTimeSettings;
  /** Switches that were ever set. */
  readonly switches: ReadonlyMap<string, SwitchSetting>;
  /** How often each of them was set. */
  readonly switchVersions: ReadonlyMap<string, number>;
  readonly author: Author | undefined;
  readonly wallMs: number;
}

const kindLike = (document: unknown): unknown => (isFields(document) ? document['kind'] : undefined);

export function planDocuments(view: DocumentsView, documents: readonly unknown[]): DocumentsPlan {
  const tooMany = refusalOfCount(documents.length);
  if (tooMany !== undefined) {
    return { refusal: tooMany, results: [], changes: {} };
  }
  const of = (wanted: DocumentKind): number[] =>
    documents.flatMap((document, i) => (kindLike(document) === wanted ? [i] : []));
  const [configs, rules, schedulers] = [of('Config'), of('PlacementRule'), of('Scheduler')];
  const results = new Map<number, AnyResult>();
  const take = (indexes: readonly number[], made: readonly AnyResult[]): void =>
    indexes.forEach((index, i) => results.set(index, made[i] as AnyResult));

  const settings = planConfigs(
    view,
    configs.map((i) => documents[i]),
  );
  take(configs, settings.results);
  const { config } = effectiveSettings(view.cluster.baseConfig, settings.values);
  const ruled = planRules(
    view,
    config,
    rules.map((i) => documents[i]),
  );
  take(rules, ruled.results);
  const scheduled = planSchedulers(
    view,
    schedulers.map((i) => documents[i]),
  );
  take(schedulers, scheduled.results);
  const last = rules.at(-1) ?? configs.at(-1);
  const isSound = [...results.values()].every((result) => result.refusal === undefined);
  if (ruled.problem !== undefined && last !== undefined && isSound) {
    results.set(last, refusedAs(results.get(last) as AnyResult, ruled.problem));
  }
  const others = documents.flatMap((_, i) => (results.has(i) ? [] : [i]));
  const planned = view.resources.planApply(
    others.map((i) => documents[i]),
    view.author,
    ruled.set,
  );
  take(others, planned.results);

  const inOrder = documents.map((_, i) => results.get(i) as AnyResult);
  const refusal = inOrder.find((result) => result.refusal !== undefined)?.refusal;
  if (refusal !== undefined) {
    return { refusal, results: inOrder.map(skipped), changes: {} };
  }
  return {
    refusal,
    results: inOrder,
    changes: {
      ...(planned.change === undefined ? {} : { resources: planned.change }),
      ...(ruled.change === undefined ? {} : { rules: ruled.change }),
      ...(settings.change === undefined ? {} : { settings: settings.change }),
      ...scheduled.changes,
    },
  };
}

const refusedAs = (result: AnyResult, refusal: Refusal): AnyResult => ({
  ...result,
  outcome: 'refused',
  refusal,
  before: undefined,
  after: undefined,
});

const skipped = (result: AnyResult): AnyResult =>
  result.refusal === undefined ? { ...result, outcome: 'skipped', after: result.before } : result;

const unreadable = (document: unknown, refusal: Refusal): AnyResult => ({
  ...nameLike(document),
  outcome: 'refused',
  refusal,
  warnings: [],
  before: undefined,
  after: undefined,
});

function conflict(kind: DocumentKind, name: string, current: number, given: number | undefined): Refusal | undefined {
  const path = 'metadata.resourceVersion';
  return given === undefined || given === current
    ? undefined
    : refuse(
        'Conflict',
        `${path} is not the current one: ${kind} ${name} ${current === 0 ? 'was never set' : `has the version ${current}`}`,
        'get the document again and repeat your change, or leave the field out',
        { path, name, resource_version: current },
      );
}

// ---------------------------------------------------------------------------------------------------------- settings

interface ConfigsPlan {
  readonly results: readonly AnyResult[];
  readonly values: RunTimeSettings['values'];
  readonly change: SettingsChange | undefined;
}

function planConfigs(view: DocumentsView, documents: readonly unknown[]): ConfigsPlan {
  let draft = view.settings;
  const results = documents.map((document): AnyResult => {
    const parsed = parseConfigDocument(document);
    if (parsed.type === 'refused') {
      return unreadable(document, parsed.refusal);
    }
    const refusal = admitConfig(view, parsed.value);
    if (refusal !== undefined) {
      return unreadable(document, refusal);
    }
    const before: ConfigDocument = { kind: 'Config', settings: draft };
    const { values, warnings } = parsed.value;
    const isSame = settingsEqual(draft.values, values);
    const outcome = isSame ? 'unchanged' : isUnset(draft) ? 'created' : 'changed';
    draft = isSame ? draft : nextSettings(view, values);
    const after: ConfigDocument = { kind: 'Config', settings: draft };
    return { kind: 'Config', name: CONFIG_NAME, outcome, refusal: undefined, warnings, before, after };
  });
  return { results, values: draft.values, change: settingsChange(view, draft) };
}

const admitConfig = (view: DocumentsView, { resourceVersion, values }: ParsedConfig): Refusal | undefined =>
  conflict('Config', CONFIG_NAME, view.settings.version, resourceVersion) ??
  relationRefusal(view.cluster.baseConfig, values);

const nextSettings = (view: DocumentsView, values: RunTimeSettings['values']): RunTimeSettings => ({
  version: view.settings.version + 1,
  values,
  author: view.author,
  changedWallMs: view.wallMs,
});

const settingsChange = ({ settings }: DocumentsView, draft: RunTimeSettings): SettingsChange | undefined =>
  draft === settings || settingsEqual(draft.values, settings.values)
    ? undefined
    : { baseVersion: settings.version, settings: draft };

// ------------------------------------------------------------------------------------------------------------- rules

interface RulesPlan {
  readonly results: readonly AnyResult[];
  /** Why the rules cannot hold together. */
  readonly problem: Refusal | undefined;
  /** As they are to be. */
  readonly set: RuleSet;
  readonly change: RuleChange | undefined;
}

function planRules(view: DocumentsView, config: PlacementConfig, documents: readonly unknown[]): RulesPlan {
  const { cluster, version } = view.rules;
  const draft = new Map(cluster.rules.rules.map((rule) => [ruleName(rule), rule]));
  const results = documents.map((document): AnyResult => {
    const parsed = parseRuleDocument(document);
    if (parsed.type === 'refused') {
      return unreadable(document, parsed.refusal);
    }
    const name = ruleName(parsed.value.rule);
    const refusal = admitRule(view, config, parsed.value);
    if (refusal !== undefined) {
      return { ...unreadable(document, refusal), name };
    }
    const before = draft.get(name);
    const isSame = before !== undefined && rulesEqual(before, parsed.value.rule);
    const rule = isSame ? before : { ...parsed.value.rule, version: version + 1 };
    draft.set(name, rule);
    return {
      kind: 'PlacementRule',
      name,
      outcome: isSame ? 'unchanged' : before === undefined ? 'created' : 'changed',
      refusal: undefined,
      warnings: parsed.value.warnings,
      before: before === undefined ? undefined : { kind: 'PlacementRule', rule: before },
      after: { kind: 'PlacementRule', rule },
    };
  });
  const puts = [...draft.values()].filter((rule) => rule !== cluster.rules.get(rule.group, rule.id));
  const isReshaped = config.maxReplicas !== cluster.config.maxReplicas || labelsOf(config) !== labelsOf(cluster.config);
  if (puts.length === 0 && !isReshaped) {
    return { results, problem: undefined, set: cluster.rules, change: undefined };
  }
  const set = new RuleSet([...draft.values()], config.maxReplicas);
  return {
    results,
    problem: problemTogether(view.rules, set) ?? isolationProblem(set, config),
    set,
    change: puts.length === 0 ? undefined : { baseVersion: version, version: version + 1, puts, deletes: [] },
  };
}

const labelsOf = (config: PlacementConfig): string => config.locationLabels.join('\n');

const admitRule = (
  view: DocumentsView,
  config: PlacementConfig,
  { rule, resourceVersion }: ParsedRule,
): Refusal | undefined =>
  conflict(
    'PlacementRule',
    ruleName(rule),
    view.cluster.rules.get(rule.group, rule.id)?.version ?? 0,
    resourceVersion,
  ) ?? refusalOfRule(rule, config.locationLabels);

/** Rules that name no location labels keep replicas apart by those of the cluster. */
function isolationProblem(set: RuleSet, { locationLabels }: PlacementConfig): Refusal | undefined {
  const known = locationLabels.map((label) => label.toLowerCase());
  const broken = set.rules.find(
    (rule) =>
      rule.locationLabels.length === 0 &&
      rule.isolationLevel !== '' &&
      !known.includes(rule.isolationLevel.toLowerCase()),
  );
  return broken === undefined
    ? undefined
    : refuse(
        'InvalidRule',
        `spec.location-labels: rule ${ruleName(broken)} isolates by ${broken.isolationLevel}, which would be no location label`,
        `keep the label, or change the rule first: braid ctl rule get ${ruleName(broken)}`,
        { path: 'spec.location-labels', rule: ruleName(broken) },
      );
}

// -------------------------------------------------------------------------------------------------------- schedulers

type SchedulerChanges = Pick<DocumentChanges, 'schedulers' | 'switches'>;

interface SchedulersPlan {
  readonly results: readonly AnyResult[];
  readonly changes: SchedulerChanges;
}

function schedulerDocument(view: DocumentsView, name: SwitchName): SchedulerDocument {
  const record = view.cluster.schedulers.record(name);
  return {
    kind: 'Scheduler',
    name,
    version: record.version + (view.switchVersions.get(name) ?? 0),
    record,
    enabled: isLastingOn(name, view.switches.get(name)),
  };
}

function planSchedulers(view: DocumentsView, documents: readonly unknown[]): SchedulersPlan {
  const schedulers = new Map<string, NonNullable<SchedulerChanges['schedulers']>[number]>();
  const switches = new Map<string, NonNullable<SchedulerChanges['switches']>[number]>();
  const results = documents.map((document): AnyResult => {
    const parsed = parseSchedulerDocument(document);
    if (parsed.type === 'refused') {
      return unreadable(document, parsed.refusal);
    }
    const { name, enabled, warnings } = parsed.value;
    const before = schedulerDocument(view, name);
    const planned = planScheduler(view, before, parsed.value);
    if ('code' in planned) {
      return unreadable(document, planned);
    }
    // The last document about a scheduler counts.
    schedulers.delete(name);
    switches.delete(name);
    if (planned !== before.record) {
      schedulers.set(name, { record: planned, baseVersion: before.record.version });
    }
    if (enabled !== before.enabled) {
      switches.set(name, { name, enabled });
    }
    const isSame = !schedulers.has(name) && !switches.has(name);
    const outcome = isSame ? 'unchanged' : isUnchanged(before) ? 'created' : 'changed';
    const version = before.version + Number(schedulers.has(name)) + Number(switches.has(name));
    const after: SchedulerDocument = { ...before, version, record: planned, enabled };
    return { kind: 'Scheduler', name, outcome, refusal: undefined, warnings, before, after };
  });
  return {
    results,
    changes: {
      ...(schedulers.size === 0 ? {} : { schedulers: [...schedulers.values()] }),
      ...(switches.size === 0 ? {} : { switches: [...switches.values()] }),
    },
  };
}

/** The record as it is to be: the current one if nothing of it changes. */
function planScheduler(
  view: DocumentsView,
  before: SchedulerDocument,
  { name, enabled, parameters, resourceVersion }: ParsedScheduler,
): SchedulerRecord | Refusal {
  const refusal =
    conflict('Scheduler', name, before.version, resourceVersion) ??
    (enabled === before.enabled ? undefined : notAdded(view.cluster, name));
  if (refusal !== undefined) {
    return { ...refusal, details: { path: 'spec.enabled', ...refusal.details } };
  }
  const change = { type: 'configure', set: parameters, reset: 'all' } as const;
  const planned = planSchedulerChange(view.cluster, name, change, undefined);
  if (planned.type === 'refused') {
    const { code, message, hint, details } = planned.refusal;
    const path = `spec.parameters.${details['parameter'] ?? ''}`;
    return refuse(code, `${path}: ${message}`, hint, { ...details, path });
  }
  return planned.value.record ?? before.record;
}

function planSchedulerDelete(view: DocumentsView, name: string, expectVersion: number): DocumentsPlan {
  if (!isSwitchName(name)) {
    return refusedDelete('Scheduler', name, resourceNotFound('Scheduler', name));
  }
  const before = schedulerDocument(view, name);
  if (isUnchanged(before)) {
    const message = `nothing is set for ${name}: everything is as by default`;
    const refusal = refuse('ResourceNotFound', message, `see "braid ctl describe scheduler ${name}"`, { name });
    return refusedDelete('Scheduler', name, refusal);
  }
  const document = { kind: 'Scheduler', metadata: { name }, spec: {} };
  const given = expectVersion === 0 ? {} : { resourceVersion: expectVersion };
  const { results, changes } = planSchedulers(view, [{ ...document, metadata: { name, ...given } }]);
  const [result] = results as [AnyResult];
  return result.refusal === undefined
    ? { refusal: undefined, results: [{ ...result, outcome: 'deleted', after: undefined }], changes }
    : { refusal: result.refusal, results, changes: {} };
}

// ----------------------------------------------------------------------------------------------- deleting, listing

/** @param expectVersion 0 is not checked */
export function planDeleteDocument(
  view: DocumentsView,
  kind: string,
  name: string,
  expectVersion: number,
): DocumentsPlan {
  switch (kind.toLowerCase()) {
    case 'placementrule':
      return planRuleDelete(view, name, expectVersion);
    case 'scheduler':
      return planSchedulerDelete(view, name, expectVersion);
    case 'config':
      return planConfigDelete(view, name, expectVersion);
    default: {
      const { refusal, results, change } = view.resources.planDelete(kind, name, expectVersion, view.author);
      return { refusal, results, changes: change === undefined ? {} : { resources: change } };
    }
  }
}

const refusedDelete = (kind: DocumentKind, name: string, refusal: Refusal): DocumentsPlan => ({
  refusal,
  results: [{ kind, name, outcome: 'refused', refusal, warnings: [], before: undefined, after: undefined }],
  changes: {},
});

function planRuleDelete(view: DocumentsView, text: string, expectVersion: number): DocumentsPlan {
  const name = parseRuleName(text);
  if (name === undefined) {
    return refusedDelete('PlacementRule', text, resourceNotFound('PlacementRule', text));
  }
  const planned = planDeleteRule(view.rules, name.group, name.id, expectVersion === 0 ? undefined : expectVersion);
  if (planned.type === 'refused') {
    return refusedDelete('PlacementRule', ruleName(name), planned.refusal);
  }
  const { change, rule } = planned.value;
  const before: RuleDocument = { kind: 'PlacementRule', rule };
  const about = { kind: 'PlacementRule', name: ruleName(rule), refusal: undefined, warnings: [] } as const;
  return {
    refusal: undefined,
    results: [{ ...about, outcome: 'deleted', before, after: undefined }],
    changes: change === undefined ? {} : { rules: change },
  };
}

function planConfigDelete(view: DocumentsView, name: string, expectVersion: number): DocumentsPlan {
  const { settings } = view;
  if (name !== CONFIG_NAME || isUnset(settings)) {
    const refusal =
      name === CONFIG_NAME
        ? refuse(
            'ResourceNotFound',
            'nothing is set at run time: every setting has the value of the file',
            'see them with "braid ctl describe config placement"',
            { name },
          )
        : noSuchConfig(name);
    return refusedDelete('Config', name, refusal);
  }
  const after = nextSettings(view, new Map());
  const { config } = effectiveSettings(view.cluster.baseConfig, after.values);
  const refusal =
    conflict('Config', name, settings.version, expectVersion === 0 ? undefined : expectVersion) ??
    planRules(view, config, []).problem;
  if (refusal !== undefined) {
    return refusedDelete('Config', name, refusal);
  }
  const before: ConfigDocument = { kind: 'Config', settings };
  const about = { kind: 'Config', name, refusal: undefined, warnings: [] } as const;
  return {
    refusal: undefined,
    results: [{ ...about, outcome: 'deleted', before, after: undefined }],
    changes: { settings: { baseVersion: settings.version, settings: after } },
  };
}

const noSuchConfig = (name: string): Refusal =>
  refuse('ResourceNotFound', `there is no Config ${name}`, `there is one, called ${CONFIG_NAME}`, { name });

/**
 * Documents of a kind, or the one of a name. Without a kind only what somebody has written: not the rule and the settings
 * that every cluster begins with.
 */
export function listDocuments(view: DocumentsView, kind: string, name: string): readonly AnyDocument[] | Refusal {
  const known = DOCUMENT_KINDS.find((candidate) => candidate.toLowerCase() === kind.toLowerCase());
  if (known === 'PlacementRule') {
    return listRules(view, name);
  }
  const schedulers = SWITCHES.map((info) => schedulerDocument(view, info.name));
  if (known === 'Scheduler') {
    const found = schedulers.filter((document) => name === '' || document.name === name);
    return found.length === 0 ? resourceNotFound('Scheduler', name) : found;
  }
  const config: ConfigDocument = { kind: 'Config', settings: view.settings };
  if (known === 'Config') {
    return name === '' || name === CONFIG_NAME ? [config] : noSuchConfig(name);
  }
  if (known !== undefined || kind !== '') {
    return view.resources.list(kind, name);
  }
  const settled: AnyDocument[] = [
    ...view.cluster.rules.rules.map((rule): RuleDocument => ({ kind: 'PlacementRule', rule })),
    ...schedulers.filter((document) => !isUnchanged(document)),
    ...(isUnset(view.settings) ? [] : [config]),
  ];
  const found = settled.filter((document) => name === '' || nameOf(document) === name);
  const resources = view.resources.list('', name);
  return 'code' in resources ? (found.length > 0 ? found : resources) : [...resources, ...found];
}

function listRules({ cluster }: DocumentsView, text: string): readonly AnyDocument[] | Refusal {
  const { rules } = cluster.rules;
  const isReplaced = cluster.rules.get(DEFAULT_RULE_NAME.group, DEFAULT_RULE_NAME.id) !== undefined;
  const all = isReplaced ? rules : [defaultRule(cluster.config.maxReplicas), ...rules];
  const name = text === '' ? undefined : parseRuleName(text);
  const found = all.filter((rule) => text === '' || (name !== undefined && ruleName(rule) === ruleName(name)));
  return text !== '' && found.length === 0
    ? name === undefined
      ? resourceNotFound('PlacementRule', text)
      : ruleNotFound(name.group, name.id)
    : found.map((rule) => ({ kind: 'PlacementRule', rule }));
}

export function nameOf(document: AnyDocument): string {
  switch (document.kind) {
    case 'PlacementRule':
      return ruleName(document.rule);
    case 'Scheduler':
      return document.name;
    case 'Config':
      return CONFIG_NAME;
    default:
      return document.meta.name;
  }
}
