/** The two ways of driving a member, Ready and advance or storage messages, must not differ in what they commit. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromUtf8 } from '../../src/base/bytes.ts';
import { EntryType, LEAVE_JOINT } from '../../src/raft/index.ts';
import { addLearner, addNode, change, Lab, LabNode, type NodeOptions, removeNode } from '../unit/raft/lab.ts';

const RUNS = 300;
const MEMBERS = [1, 2, 3, 4] as const;

type Action =
  | { readonly type: 'campaign' | 'isolate' | 'ping' | 'tick'; readonly at: number }
  | { readonly type: 'heal' }
  | { readonly type: 'propose'; readonly at: number; readonly count: number }
  | { readonly type: 'transfer'; readonly at: number; readonly to: number }
  | { readonly type: 'change'; readonly at: number; readonly kind: number; readonly id: number };

const member = fc.constantFrom(...MEMBERS);
const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({
    type: fc.constantFrom('campaign' as const, 'isolate' as const, 'ping' as const, 'tick' as const),
    at: member,
  }),
  fc.constant({ type: 'heal' } as const),
  fc.record({ type: fc.constant('propose' as const), at: member, count: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ type: fc.constant('propose' as const), at: fc.constant(1), count: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ type: fc.constant('transfer' as const), at: member, to: member }),
  fc.record({ type: fc.constant('change' as const), at: member, kind: fc.nat({ max: 3 }), id: member }),
);

function run(actions: readonly Action[], options: NodeOptions): Lab {
  const lab = new Lab(MEMBERS.map((id) => new LabNode(id, { voters: [1, 2, 3], ...options })));
  lab.campaign(1);
  let proposals = 0;
  for (const a of actions) {
    switch (a.type) {
      case 'campaign':
        lab.campaign(a.at);
        break;
      case 'isolate':
        lab.isolate(a.at);
        break;
      case 'ping':
        lab.raw(a.at).ping();
        lab.settle();
        break;
      case 'tick':
        lab.ticks(a.at, 3);
        break;
      case 'heal':
        lab.recover();
        break;
      case 'propose':
        for (let i = 0; i < a.count; i++) {
          lab.propose(a.at, `p${++proposals}`);
        }
        break;
      case 'transfer':
        lab.transfer(a.at, a.to);
        break;
      case 'change': {
        const parts = [
          [addNode(a.id)],
          [addLearner(a.id)],
          [removeNode(a.id)],
          [addNode(a.id), addLearner((a.id % 4) + 1)],
        ];
        lab.changeMembers(a.at, change(parts[a.kind] ?? []));
        break;
      }
    }
  }
  lab.recover();
  // Somebody who can win leads, leaves what is joint, and everybody hears of it.
  for (let round = 0; round < 3; round++) {
    for (const id of MEMBERS) {
      if (!lab.roles().includes('leader')) {
        lab.campaign(id);
      }
    }
    for (const node of lab.nodes.values()) {
      node.raw.ping();
      node.ticks(1);
    }
    lab.settle();
    for (const node of lab.nodes.values()) {
      node.raw.proposeConfChange(LEAVE_JOINT);
    }
    lab.settle();
  }
  return lab;
}

const history = (lab: Lab, id: number): string[] =>
  lab.node(id).applied.map((e) => `${e.term}/${e.index} ${e.type === EntryType.Normal ? fromUtf8(e.data) : 'change'}`);

describe('driving a member', () => {
  for (const options of [
    {},
    { preVote: true, checkQuorum: true },
    { maxSizePerMsg: 0, maxCommittedSizePerReady: 60 },
  ]) {
    test(`sync and async mode commit the same log from the same inputs, ${JSON.stringify(options)}`, () => {
      fc.assert(
        fc.property(fc.array(action, { maxLength: 25 }), (actions) => {
          const sync = run(actions, { ...options, asyncStorageWrites: false });
          const async = run(actions, { ...options, asyncStorageWrites: true });
          expect(async.roles()).toEqual(sync.roles());
          for (const id of MEMBERS) {
            expect(history(async, id), `member ${id}`).toEqual(history(sync, id));
            expect(async.raw(id).confState).toEqual(sync.raw(id).confState);
            expect(async.raw(id).term).toBe(sync.raw(id).term);
          }
        }),
        { numRuns: RUNS },
      );
    });
  }
});
