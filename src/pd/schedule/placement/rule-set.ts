/**
 * All placement rules of a cluster, and which of them hold where. Key space between two neighboring borders of rules has
 * one list of rules; regions are split at those borders and never merged across them. Immutable: a change makes another.
 */
import { compareBytes, equalBytes } from '../../../base/bytes.ts';
import { type KeyRange, formatRange, rangeContains } from '../../../base/key-range.ts';
import { type Refusal, refuse } from '../verdict.ts';
import {
  DEFAULT_RULE_NAME,
  type PlacementRule,
  RULES_MAX,
  RULE_REPLICAS_MAX,
  bordersInside,
  compareRules,
  defaultRule,
  isVoting,
  ruleName,
} from './rule.ts';

/** Consecutive keys with the same rules. */
export interface RuleSegment {
  readonly range: KeyRange;
  /** In the order they apply; never empty. */
  readonly rules: readonly PlacementRule[];
  /** Only the rule that every cluster begins with. */
  readonly isDefault: boolean;
}

export class RuleSet {
  readonly #rules: readonly PlacementRule[];
  readonly #segments: readonly RuleSegment[];
  readonly #borders: readonly Uint8Array[];

  /**
   * @param rules set by administrators, in any order
   * @param maxReplicas voters wanted where no rule says otherwise
   */
  constructor(rules: readonly PlacementRule[], maxReplicas: number) {
    this.#rules = [...rules].sort(compareRules);
    this.#borders = bordersOf(this.#rules);
    const isReplaced = rules.some((rule) => ruleName(rule) === ruleName(DEFAULT_RULE_NAME));
    const first = defaultRule(maxReplicas);
    const all = isReplaced ? this.#rules : [...this.#rules, first].sort(compareRules);
    const starts = [new Uint8Array(0), ...this.#borders];
    this.#segments = starts.map((start, i) => {
      const held = effective(all.filter((rule) => rangeContains(rule.range, start)));
      return {
        range: { start, end: starts[i + 1] ?? new Uint8Array(0) },
        rules: held,
        isDefault: held.length === 1 && held[0] === first,
      };
    });
  }

  /** Set by administrators, in the order they apply. */
  get rules(): readonly PlacementRule[] {
    return this.#rules;
  }

  get segments(): readonly RuleSegment[] {
    return this.#segments;
  }

  get(group: string, id: string): PlacementRule | undefined {
    return this.#rules.find((rule) => rule.group === group && rule.id === id);
  }

  /** The rules at a key. */
  at(key: Uint8Array): RuleSegment {
    let low = 0;
    let high = this.#segments.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (compareBytes((this.#segments[middle] as RuleSegment).range.start, key) <= 0) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return this.#segments[low] as RuleSegment;
  }

  isBorder(key: Uint8Array): boolean {
    return this.#borders.some((border) => equalBytes(border, key));
  }

  /** Keys strictly inside the range at which other rules begin to hold. */
  bordersIn(range: KeyRange): readonly Uint8Array[] {
    return this.#borders.length === 0 ? this.#borders : bordersInside(range, this.#borders);
  }

  /** Why these rules as a whole cannot hold; undefined if they can. */
  problem(): Refusal | undefined {
    if (this.#rules.length > RULES_MAX) {
      return refuse('TooManyRules', `there are ${RULES_MAX} rules already`, 'delete rules that are not needed');
    }
    for (const { range, rules } of this.#segments) {
      const names = rules.map(ruleName).join(', ');
      const details = { range: formatRange(range), rules: names };
      if (!rules.some(({ role }) => role === 'voter' || role === 'leader')) {
        return refuse(
          'NoVoterRule',
          `in ${formatRange(range)} no rule lets a replica lead: ${names === '' ? 'no rule holds' : names}`,
          'add a rule of role voter or leader there, or leave override out',
          details,
        );
      }
      const leaders = rules.filter(({ role }) => role === 'leader').length;
      if (leaders > 1) {
        return refuse(
          'InvalidRule',
          `in ${formatRange(range)} ${leaders} rules ask for the leader`,
          'keep one',
          details,
        );
      }
      const replicas = rules.reduce((sum, { count }) => sum + count, 0);
      if (replicas > RULE_REPLICAS_MAX) {
        return refuse(
          'InvalidRule',
          `in ${formatRange(range)} the rules ask for ${replicas} replicas`,
          `ask for at most ${RULE_REPLICAS_MAX} together, or let one rule override the others`,
          details,
        );
      }
    }
    return undefined;
  }
}

/** What is left when overriding rules have replaced those before them. */
function effective(rules: readonly PlacementRule[]): readonly PlacementRule[] {
  const last = rules.findLastIndex((rule) => rule.override);
  return last < 0 ? rules : rules.slice(last);
}

function bordersOf(rules: readonly PlacementRule[]): Uint8Array[] {
  const keys = rules
    .flatMap(({ range }) => [range.start, range.end])
    .filter((key) => key.length > 0)
    .sort(compareBytes);
  return keys.filter((key, i) => i === 0 || compareBytes(keys[i - 1] as Uint8Array, key) !== 0);
}

/** Voters that the rules of a segment ask for. */
export const wantedVoters = (segment: RuleSegment): number =>
  segment.rules.reduce((sum, { role, count }) => sum + (isVoting(role) ? count : 0), 0);
