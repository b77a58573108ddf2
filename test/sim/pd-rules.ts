/**
 * Placement rules in the world of the placement service: drawn as administrators would set them, and judged by a check
 * of its own that shares no code with the product: which rules hold at a key, and whether the replicas of a region can be
 * matched to them one by one (all ways are tried; there are at most a dozen replicas).
 */
import { compareBytes, utf8 } from '../../src/base/bytes.ts';
import type { StoreId } from '../../src/base/ids.ts';
import { FULL_RANGE, formatRange, type KeyRange } from '../../src/base/key-range.ts';
import { formatRegion, type Region } from '../../src/meta/region.ts';
import type { LabelConstraint, PlacementRule } from '../../src/pd/schedule/placement/rule.ts';
import type { ModelRegion } from './pd-model.ts';

/** Replicas that the rules of a key may ask for at most here; more are not matched in reasonable time. */
const REPLICAS_MAX = 9;
const ZONES = 3;

export const zoneOf = (store: StoreId): string => `z${store % ZONES}`;

const ruleKey = (n: number): Uint8Array => utf8(`k${String(n % 1000).padStart(3, '0')}`);

/** A rule out of three random numbers; many make no sense beside those that exist, and are refused. */
export function drawRule(a: number, b: number, c: number): PlacementRule {
  const role = (['voter', 'voter', 'learner', 'leader', 'follower'] as const)[a % 5] ?? 'voter';
  const [from, to] = [b % 1000, (b >>> 10) % 1000].sort((x, y) => x - y) as [number, number];
  const range: KeyRange = c % 4 === 0 ? FULL_RANGE : { start: ruleKey(from), end: ruleKey(to + 1) };
  const zone = `z${(c >>> 4) % ZONES}`;
  const constraints: LabelConstraint[] =
    (c >>> 8) % 3 === 0
      ? [{ key: 'zone', op: 'in', values: [zone] }]
      : (c >>> 8) % 3 === 1
        ? [{ key: 'zone', op: 'not-in', values: [zone] }]
        : [];
  return {
    group: `g${(a >>> 4) % 2}`,
    id: `r${(a >>> 6) % 3}`,
    index: (a >>> 8) % 3,
    override: role === 'voter' && (a >>> 10) % 2 === 0,
    range,
    role,
    count: role === 'leader' ? 1 : role === 'voter' ? 1 + ((c >>> 12) % 3) : 1 + ((c >>> 12) % 2),
    constraints,
    locationLabels: [],
    isolationLevel: '',
    version: 0,
  };
}

const holds = (range: KeyRange, key: Uint8Array): boolean =>
  compareBytes(range.start, key) <= 0 && (range.end.length === 0 || compareBytes(key, range.end) < 0);

const compareText = (x: string, y: string): number => (x < y ? -1 : x > y ? 1 : 0);

/** The rules at a key: those from the last one that overrides on. */
function rulesAt(key: Uint8Array, rules: readonly PlacementRule[]): readonly PlacementRule[] {
  const here = rules
    .filter(({ range }) => holds(range, key))
    .sort((x, y) => x.index - y.index || compareText(x.group, y.group) || compareText(x.id, y.id));
  let from = 0;
  for (const [i, { override }] of here.entries()) {
    from = override ? i : from;
  }
  return here.slice(from);
}

/** The rule of every cluster, unless another took its name. */
function withDefault(rules: readonly PlacementRule[], maxReplicas: number): readonly PlacementRule[] {
  return rules.some(({ group, id }) => group === 'default' && id === 'default')
    ? rules
    : [
        ...rules,
        {
          group: 'default',
          id: 'default',
          index: 0,
          override: false,
          range: FULL_RANGE,
          role: 'voter',
          count: maxReplicas,
          constraints: [],
          locationLabels: [],
          isolationLevel: '',
          version: 0,
        },
      ];
}

const allows = (rule: PlacementRule, store: StoreId): boolean =>
  rule.constraints.every(({ op, values }) => values.includes(zoneOf(store)) === (op === 'in'));

/** Gives every slot a holder of its own; tries all ways. */
function canMatch<T>(
  slots: readonly PlacementRule[],
  holders: readonly T[],
  fits: (rule: PlacementRule, holder: T) => boolean,
): boolean {
  const taken = new Set<T>();
  const place = (at: number): boolean => {
    const rule = slots[at];
    if (rule === undefined) {
      return true;
    }
    for (const holder of holders) {
      if (!taken.has(holder) && fits(rule, holder)) {
        taken.add(holder);
        if (place(at + 1)) {
          return true;
        }
        taken.delete(holder);
      }
    }
    return false;
  };
  return place(0);
}

const slotsOf = (rules: readonly PlacementRule[]): PlacementRule[] =>
  rules.flatMap((rule) => Array.from({ length: rule.count }, () => rule));

export interface RuleView {
  readonly rules: readonly PlacementRule[];
  readonly maxReplicas: number;
}

function bordersOf({ rules }: RuleView): Uint8Array[] {
  return rules.flatMap(({ range }) => [range.start, range.end]).filter((key) => key.length > 0);
}

/**
 * What to take back, one after the other, where the stores that are left cannot meet the rules or they ask for more than
 * this world looks at: first the rules of that place, then those that only another rule holds down. None if all is well.
 */
export function unmeetable(view: RuleView, stores: readonly StoreId[]): readonly PlacementRule[] {
  const all = withDefault(view.rules, view.maxReplicas);
  for (const key of [new Uint8Array(0), ...bordersOf(view)]) {
    const slots = slotsOf(rulesAt(key, all));
    if (slots.length > Math.min(REPLICAS_MAX, stores.length) || !canMatch(slots, stores, allows)) {
      const isHere = ({ range }: PlacementRule): boolean => holds(range, key);
      return [...view.rules.filter(isHere), ...view.rules.filter((rule) => !isHere(rule))];
    }
  }
  return [];
}

/** What keeps a region from being what its rules ask for; undefined if nothing does. */
export function brokenRule(view: RuleView, truth: ModelRegion): string | undefined {
  const { region, leaderId } = truth;
  const { start } = region.range;
  const border = bordersOf(view).find((key) => compareBytes(key, start) > 0 && holds(region.range, key));
  if (border !== undefined) {
    return `${formatRegion(region)} lies across a border of rules in ${formatRange(region.range)}`;
  }
  const here = rulesAt(start, withDefault(view.rules, view.maxReplicas));
  const slots = slotsOf(here);
  const names = here.map(({ group, id, role, count }) => `${group}/${id}: ${count} ${role}`).join(', ');
  const fits = (rule: PlacementRule, peer: Region['peers'][number]): boolean =>
    allows(rule, peer.storeId) && (peer.role === 'learner') === (rule.role === 'learner');
  if (slots.length !== region.peers.length || !canMatch(slots, region.peers, fits)) {
    return `${formatRegion(region)} does not meet ${names}`;
  }
  const lead = region.peers.find(({ id }) => id === leaderId);
  const leading = here.filter(({ role }) => role === 'leader');
  const able = leading.length > 0 ? leading : here.filter(({ role }) => role === 'voter');
  if (lead !== undefined && !able.some((rule) => allows(rule, lead.storeId))) {
    return `${formatRegion(region)} is led by store ${lead.storeId}, against ${names}`;
  }
  return undefined;
}
