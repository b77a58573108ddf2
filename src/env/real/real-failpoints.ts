/**
 * Failpoints of a real process: a fixed table given at start, from a test or from an environment variable that the
 * command line hands over. Without a table the shared inert registry is used.
 */
import { AppError } from '../../base/app-error.ts';
import type { FailpointAction, Failpoints } from '../failpoints.ts';
import { FAILPOINT_NAMES, isFailpointName, type FailpointName } from '../failpoint-names.ts';

/** When a point acts. */
export interface FailpointRule {
  readonly name: FailpointName;
  readonly action: FailpointAction['type'];
  /** Only hits with this key count; default all. */
  readonly key?: number;
  /** Hits to let pass before the first action. Default 0. */
  readonly skip?: number;
  /** Actions after which the rule is spent. Default no limit. */
  readonly times?: number;
}

/** A failpoint text that cannot be understood. */
export class FailpointSyntaxError extends AppError {
  constructor(text: string, reason: string) {
    super('FailpointSyntax', `cannot read the failpoint "${text}": ${reason}`, {
      hint: 'write name[(key)]=crash|fail|pause[@skip][*times], several separated by semicolons',
    });
  }
}

/**
 * Reads `name[(key)]=action[@skip][*times]`, several separated by `;`, for example
 * `raftstore::commit-merge(7)=crash@2*1`: let two hits of region 7 pass, then stop the process.
 */
export function parseFailpoints(text: string): readonly FailpointRule[] {
  const rules: FailpointRule[] = [];
  for (const part of text.split(';').map((each) => each.trim())) {
    if (part === '') {
      continue;
    }
    const match = /^([\w:.-]+)(?:\((\d+)\))?=(crash|fail|pause)(?:@(\d+))?(?:\*(\d+))?$/.exec(part);
    if (match === null) {
      throw new FailpointSyntaxError(part, 'it has another form');
    }
    const [, name, key, action, skip, times] = match;
    if (name === undefined || !isFailpointName(name)) {
      throw new FailpointSyntaxError(part, `there is no point "${name}"; known are ${FAILPOINT_NAMES.join(', ')}`);
    }
    rules.push({
      name,
      action: action as FailpointAction['type'],
      ...(key === undefined ? {} : { key: Number(key) }),
      ...(skip === undefined ? {} : { skip: Number(skip) }),
      ...(times === undefined ? {} : { times: Number(times) }),
    });
  }
  return rules;
}

interface RuleState {
  readonly rule: FailpointRule;
  skipsLeft: number;
  timesLeft: number;
}

class RealFailpoints implements Failpoints {
  readonly #rules = new Map<FailpointName, RuleState[]>();
  readonly #crash: (name: FailpointName) => never;

  constructor(rules: readonly FailpointRule[], crash: (name: FailpointName) => never) {
    this.#crash = crash;
    for (const rule of rules) {
      const state = { rule, skipsLeft: rule.skip ?? 0, timesLeft: rule.times ?? Number.POSITIVE_INFINITY };
      this.#rules.set(rule.name, [...(this.#rules.get(rule.name) ?? []), state]);
    }
  }

  hit(name: FailpointName, key?: number): FailpointAction | undefined {
    for (const state of this.#rules.get(name) ?? []) {
      if ((state.rule.key !== undefined && state.rule.key !== key) || state.timesLeft === 0) {
        continue;
      }
      if (state.skipsLeft > 0) {
        state.skipsLeft--;
        continue;
      }
      state.timesLeft--;
      return state.rule.action === 'crash' ? this.#crash(name) : { type: state.rule.action };
    }
    return undefined;
  }
}

/** A registry with these rules; `crash` stops the process at once and without any cleaning up. */
export const createFailpoints = (rules: readonly FailpointRule[], crash: (name: FailpointName) => never): Failpoints =>
  new RealFailpoints(rules, crash);
