/** Interpreter of the confchange files: the pure configuration changer against an empty start. */
import {
  type ConfChangeBase,
  type ConfChangeResult,
  enterJoint,
  leaveJoint,
  simpleChange,
} from '../../src/raft/conf-change.ts';
import { describeProgressMap } from '../../src/raft/describe.ts';
import { configText } from '../../src/raft/log-text.ts';
import { EMPTY_MEMBERSHIP, type Membership } from '../../src/raft/tracker.ts';
import { parseChangeTokens } from './change-tokens.ts';
import { type Directive, HarnessError, onlyValue, parseBoolean } from './datadriven.ts';

const LIMITS = { maxMsgs: 10, maxBytes: 0 };

/** A handler with the state of one file. */
export function confChangeHandler(): (directive: Directive) => string {
  let membership: Membership = EMPTY_MEMBERSHIP;
  let lastIndex = 0;
  return (directive) => {
    try {
      const result = run({ membership, lastIndex, limits: LIMITS }, directive);
      if (typeof result === 'string') {
        return result;
      }
      if (result.type === 'error') {
        return `${result.message}\n`;
      }
      membership = result.membership;
      return `${configText(membership.config)}\n${describeProgressMap(membership.progress)}`;
    } finally {
      lastIndex++;
    }
  };
}

function run(base: ConfChangeBase, directive: Directive): ConfChangeResult | string {
  const changes = parseChangeTokens(directive.input);
  if (typeof changes === 'string') {
    return changes;
  }
  let autoLeave = false;
  for (const arg of directive.args) {
    if (arg.key !== 'autoleave' || directive.command !== 'enter-joint') {
      throw new HarnessError(`unknown argument ${arg.key}`);
    }
    autoLeave = parseBoolean(onlyValue(arg));
  }
  switch (directive.command) {
    case 'simple':
      return simpleChange(base, changes);
    case 'enter-joint':
      return enterJoint(base, autoLeave, changes);
    case 'leave-joint':
      return changes.length > 0 ? { type: 'error', message: 'this command takes no input' } : leaveJoint(base);
    default:
      return 'unknown command';
  }
}
