/** Quorum arithmetic and membership changes against naive models. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type ConfChangeBase,
  confStatesEquivalent,
  enterJoint,
  leaveJoint,
  restoreMembership,
  simpleChange,
  tryDecodeConfChangeV2,
  encodeConfChangeV2,
} from '../../src/raft/conf-change.ts';
import { Ballot, jointQuorumValue, jointVote, majorityVote, quorumValue } from '../../src/raft/quorum.ts';
import { EMPTY_MEMBERSHIP, type Membership } from '../../src/raft/tracker.ts';
import type { ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfState } from '../../src/raft/types.ts';

const RUNS = 2000;
const LIMITS = { maxMsgs: 10, maxBytes: 0 };

const values = fc.array(fc.integer({ min: 0, max: 12 }), { maxLength: 9 });
const ballots = fc.array(fc.constantFrom(Ballot.None, Ballot.Granted, Ballot.Rejected), { maxLength: 9 });
const self = <T>(x: T): T => x;

/** The largest candidate that more than half of the members have reached. */
function naiveCommitted(members: readonly number[]): number {
  if (members.length === 0) {
    return Number.MAX_SAFE_INTEGER;
  }
  const reached = members.filter((v) => members.filter((w) => w >= v).length * 2 > members.length);
  return Math.max(0, ...reached);
}

/** By trying out every way the missing ballots could go. */
function naiveVote(members: readonly Ballot[]): string {
  if (members.length === 0) {
    return 'won';
  }
  const missing = members.filter((b) => b === Ballot.None).length;
  const granted = members.filter((b) => b === Ballot.Granted).length;
  const wins = Array.from({ length: missing + 1 }, (_, extra) => (granted + extra) * 2 > members.length);
  return wins.every(self) ? 'won' : wins.some(self) ? 'pending' : 'lost';
}

describe('quorums', () => {
  test('the commit index equals the definition taken literally', () => {
    fc.assert(
      fc.property(values, values, (a, b) => {
        expect(quorumValue(a, self)).toBe(naiveCommitted(a));
        expect(jointQuorumValue(a, b, self)).toBe(Math.min(naiveCommitted(a), naiveCommitted(b)));
      }),
      { numRuns: RUNS },
    );
  });

  test('the vote result equals trying out every missing ballot', () => {
    fc.assert(
      fc.property(ballots, ballots, (a, b) => {
        expect(majorityVote(a, self)).toBe(naiveVote(a));
        const both = [naiveVote(a), naiveVote(b)];
        const joint = both.includes('lost') ? 'lost' : both.includes('pending') ? 'pending' : 'won';
        expect(jointVote(a, b, self)).toBe(joint);
        expect(jointVote(b, a, self)).toBe(joint);
      }),
      { numRuns: RUNS },
    );
  });

  test('lowering a member below the commit index changes nothing', () => {
    fc.assert(
      fc.property(values, fc.nat(), (members, pick) => {
        const committed = quorumValue(members, self);
        const below = members.flatMap((v, i) => (v < committed ? [i] : []));
        const at = below[pick % Math.max(below.length, 1)];
        if (at !== undefined) {
          expect(quorumValue(members.with(at, 0), self)).toBe(committed);
        }
      }),
      { numRuns: RUNS },
    );
  });
});

const change = fc.record({
  type: fc.integer({ min: 0, max: 3 }) as fc.Arbitrary<ConfChangeType>,
  nodeId: fc.integer({ min: 0, max: 7 }),
});

const base = (membership: Membership, lastIndex = 10): ConfChangeBase => ({ membership, lastIndex, limits: LIMITS });

function founded(ids: readonly number[]): Membership {
  let membership = EMPTY_MEMBERSHIP;
  for (const nodeId of ids) {
    const result = simpleChange(base(membership), [{ type: 0, nodeId }]);
    if (result.type === 'error') {
      throw new Error(result.message);
    }
    membership = result.membership;
  }
  return membership;
}

const founders = fc.uniqueArray(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 5 });

/** What must hold in every configuration, in words of the reference. */
function checkInvariants({ config, progress }: Membership): void {
  const { voters, votersOutgoing, learners, learnersNext } = config;
  const all = [...new Set([...voters, ...votersOutgoing, ...learners, ...learnersNext])].sort((a, b) => a - b);
  expect(progress.map((p) => p.id)).toEqual(all);
  expect(voters.length).toBeGreaterThan(0);
  for (const id of learners) {
    expect(voters.includes(id) || votersOutgoing.includes(id)).toBe(false);
  }
  for (const id of learnersNext) {
    expect(votersOutgoing.includes(id) && !voters.includes(id) && !learners.includes(id)).toBe(true);
  }
  for (const p of progress) {
    expect(p.isLearner).toBe(learners.includes(p.id));
  }
  if (votersOutgoing.length === 0) {
    expect([learnersNext.length, config.autoLeave]).toEqual([0, false]);
  }
}

describe('membership changes', () => {
  test('simple changes one by one give the same configuration as one joint change', () => {
    fc.assert(
      fc.property(founders, fc.array(change, { maxLength: 8 }), (ids, changes) => {
        let membership = founded(ids);
        const taken: ConfChangeSingle[] = [];
        for (const cc of changes) {
          const result = simpleChange(base(membership), [cc]);
          if (result.type === 'ok') {
            ({ membership } = result);
            taken.push(cc);
          }
        }
        const joint = enterJoint(base(founded(ids)), false, taken);
        if (joint.type === 'error') {
          throw new Error(joint.message);
        }
        checkInvariants(joint.membership);
        const left = leaveJoint(base(joint.membership));
        if (left.type === 'error') {
          throw new Error(left.message);
        }
        expect(left.membership.config).toEqual(membership.config);
        expect(left.membership.progress.map((p) => p.id)).toEqual(membership.progress.map((p) => p.id));
      }),
      { numRuns: RUNS },
    );
  });

  type Step = {
    readonly kind: 'simple' | 'enter' | 'leave';
    readonly changes: ConfChangeSingle[];
    readonly auto: boolean;
  };
  const step: fc.Arbitrary<Step> = fc.record({
    kind: fc.constantFrom<Step['kind']>('simple', 'enter', 'leave'),
    changes: fc.array(change, { maxLength: 4 }),
    auto: fc.boolean(),
  });

  test('any configuration is restored from its own description', () => {
    fc.assert(
      fc.property(founders, fc.array(step, { maxLength: 10 }), (ids, steps) => {
        let membership = founded(ids);
        for (const { kind, changes, auto } of steps) {
          const from = base(membership);
          const result =
            kind === 'simple'
              ? simpleChange(from, changes)
              : kind === 'enter'
                ? enterJoint(from, auto, changes)
                : leaveJoint(from);
          if (result.type === 'error') {
            expect(result.message.length).toBeGreaterThan(5);
            continue;
          }
          ({ membership } = result);
          checkInvariants(membership);
          const restored = restoreMembership(membership.config, 10, LIMITS);
          if (restored.type === 'error') {
            throw new Error(restored.message);
          }
          expect(restored.membership.config).toEqual(membership.config);
          expect(restored.membership.progress.map((p) => [p.id, p.isLearner])).toEqual(
            membership.progress.map((p) => [p.id, p.isLearner]),
          );
        }
      }),
      { numRuns: RUNS },
    );
  });

  test('changes keep the progress of members that stay', () => {
    fc.assert(
      fc.property(founders, fc.array(change, { maxLength: 4 }), (ids, changes) => {
        const membership = founded(ids);
        for (const p of membership.progress) {
          p.match = 100 + p.id;
          p.next = 200;
        }
        const result = enterJoint(base(membership), true, changes);
        if (result.type === 'ok') {
          for (const p of result.membership.progress) {
            // The outgoing half still needs every founder.
            expect(p.match).toBe(ids.includes(p.id) ? 100 + p.id : 0);
          }
        }
      }),
      { numRuns: RUNS },
    );
  });

  test('descriptions are equal as sets', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 9 })), fc.boolean(), (voters, autoLeave) => {
        const state: ConfState = { voters, votersOutgoing: [], learners: [], learnersNext: [], autoLeave };
        expect(confStatesEquivalent(state, { ...state, voters: [...voters].reverse() })).toBe(true);
        expect(confStatesEquivalent(state, { ...state, voters: [...voters, 10] })).toBe(false);
        expect(confStatesEquivalent(state, { ...state, autoLeave: !autoLeave })).toBe(false);
      }),
    );
  });

  test('encodings come back equal, and other bytes are refused or decode to a valid change', () => {
    const transition = fc.integer({ min: 0, max: 2 }) as fc.Arbitrary<ConfChangeTransition>;
    const wide = fc.record({ type: change.map((c) => c.type), nodeId: fc.maxSafeNat() });
    fc.assert(
      fc.property(
        transition,
        fc.array(wide, { maxLength: 5 }),
        fc.uint8Array({ maxLength: 9 }),
        (t, changes, context) => {
          const decoded = tryDecodeConfChangeV2(encodeConfChangeV2({ transition: t, changes, context }));
          expect(decoded).toEqual({ transition: t, changes, context: new Uint8Array(context) });
        },
      ),
      { numRuns: RUNS },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 30 }), (bytes) => {
        const decoded = tryDecodeConfChangeV2(bytes);
        if (decoded !== undefined && bytes.length > 0) {
          expect(tryDecodeConfChangeV2(encodeConfChangeV2(decoded))).toEqual(decoded);
        }
      }),
      { numRuns: RUNS },
    );
  });
});
