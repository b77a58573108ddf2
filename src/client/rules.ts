/** Placement rules of a cluster: list, set, delete. The placement service checks them and says what they change. */
import type { UnaryMethod } from '../rpc/method.ts';
import { adminMethods } from '../rpc/services.ts';
import type { DocumentCalls } from './documents.ts';
import { ServerRefusedError } from './errors.ts';
import { type CallOptions, requireKnownOptions } from './options.ts';

type ReplyOf<M> = M extends UnaryMethod<infer _Request, infer Reply> ? Reply : never;
type WireRule = ReplyOf<(typeof adminMethods)['listRules']>['rules'][number];
type WireChange = ReplyOf<(typeof adminMethods)['setRule']>;

/** A condition on the labels of a store. */
export interface RuleConstraint {
  readonly key: string;
  readonly op: 'in' | 'not-in' | 'exists' | 'not-exists';
  /** Only for `in` and `not-in`. */
  readonly values?: readonly string[];
}

export interface RuleSettings {
  readonly group: string;
  readonly id: string;
  /** Rules apply in the order of index, group, id. Default 0. */
  readonly index?: number;
  /** Rules before this one do not hold where it does. Default false. */
  readonly override?: boolean;
  /** First key. Default: the first of all. */
  readonly start?: Uint8Array;
  /** Exclusive. Default: no end. */
  readonly end?: Uint8Array;
  readonly role: 'leader' | 'voter' | 'follower' | 'learner';
  readonly count: number;
  /** A store must meet all of them. */
  readonly constraints?: readonly RuleConstraint[];
  /** Default: those of the cluster. */
  readonly locationLabels?: readonly string[];
  /** One of the location labels that two replicas of this rule never share. */
  readonly isolationLevel?: string;
}

export interface RuleInfo extends Required<RuleSettings> {
  /** Grows with every change of any rule; 0 for the rule that every cluster begins with. */
  readonly version: number;
}

export interface RuleChange {
  readonly outcome: 'created' | 'changed' | 'unchanged' | 'deleted';
  /** As it is to be; of a deletion as it was. */
  readonly rule: RuleInfo;
  /** Regions that will be split at a border of rules. */
  readonly regionsToSplit: number;
  /** Regions in the rule's range whose replicas will have to change. */
  readonly regionsToChange: number;
}

export interface RuleChangeOptions extends CallOptions {
  readonly dryRun?: boolean;
  /** Refused unless the rule has this version; 0 = it must not exist. */
  readonly expectVersion?: number;
  /** Kept with the event. */
  readonly reason?: string;
}

const SETTINGS: readonly (keyof RuleSettings)[] = [
  'group',
  'id',
  'index',
  'override',
  'start',
  'end',
  'role',
  'count',
  'constraints',
  'locationLabels',
  'isolationLevel',
];
const CHANGE_OPTIONS = ['dryRun', 'expectVersion', 'reason'] as const;

export class Rules {
  readonly #calls: DocumentCalls;

  constructor(calls: DocumentCalls) {
    this.#calls = calls;
  }

  /** In the order they apply: all, those of a group, one, or those that hold at a key. A name that is not there is refused. */
  async list(
    options: CallOptions & { readonly group?: string; readonly id?: string; readonly key?: Uint8Array } = {},
  ): Promise<readonly RuleInfo[]> {
    const request = {
      header: this.#calls.header(),
      group: options.group ?? '',
      id: options.id ?? '',
      ...(options.key === undefined ? {} : { key: options.key }),
    };
    const { rules } = await this.#calls.call(adminMethods.listRules, request, options, {
      once: false,
      known: ['group', 'id', 'key'],
    });
    return rules.map(ruleFromWire);
  }

  /** Creates a rule or takes the place of the one with its name. */
  async set(rule: RuleSettings, options: RuleChangeOptions = {}): Promise<RuleChange> {
    requireKnownOptions('set', rule, SETTINGS);
    const request = {
      ...this.#request(options),
      rule: {
        group: rule.group,
        id: rule.id,
        index: rule.index ?? 0,
        override: rule.override ?? false,
        start: rule.start ?? new Uint8Array(0),
        end: rule.end ?? new Uint8Array(0),
        role: rule.role,
        count: rule.count,
        constraints: (rule.constraints ?? []).map(({ key, op, values }) => ({ key, op, values: [...(values ?? [])] })),
        locationLabels: [...(rule.locationLabels ?? [])],
        isolationLevel: rule.isolationLevel ?? '',
        version: 0,
      },
    };
    const how = { once: true, known: CHANGE_OPTIONS };
    return changeFromWire(await this.#calls.call(adminMethods.setRule, request, options, how));
  }

  async delete(group: string, id: string, options: RuleChangeOptions = {}): Promise<RuleChange> {
    const request = { ...this.#request(options), group, id };
    const how = { once: true, known: CHANGE_OPTIONS };
    return changeFromWire(await this.#calls.call(adminMethods.deleteRule, request, options, how));
  }

  #request({ dryRun, expectVersion, reason }: RuleChangeOptions): {
    readonly header: ReturnType<DocumentCalls['header']>;
    readonly dryRun: boolean;
    readonly reason: string;
    readonly expectVersion?: number;
  } {
    return {
      header: this.#calls.header(),
      dryRun: dryRun ?? false,
      reason: reason ?? '',
      ...(expectVersion === undefined ? {} : { expectVersion }),
    };
  }
}

const ruleFromWire = (rule: WireRule): RuleInfo => ({
  group: rule.group,
  id: rule.id,
  index: rule.index,
  override: rule.override,
  start: new Uint8Array(rule.start),
  end: new Uint8Array(rule.end),
  role: rule.role as RuleInfo['role'],
  count: rule.count,
  constraints: rule.constraints.map(({ key, op, values }) => ({
    key,
    op: op as RuleConstraint['op'],
    values: [...values],
  })),
  locationLabels: [...rule.locationLabels],
  isolationLevel: rule.isolationLevel,
  version: rule.version,
});

function changeFromWire(reply: WireChange): RuleChange {
  if (reply.rule === undefined) {
    throw new ServerRefusedError('the placement service answered without the rule');
  }
  return {
    outcome: reply.outcome as RuleChange['outcome'],
    rule: ruleFromWire(reply.rule),
    regionsToSplit: reply.regionsToSplit,
    regionsToChange: reply.regionsToChange,
  };
}
