import { describe, expect, test } from 'vitest';
import { EMPTY_BYTES, utf8 } from '../../../src/base/bytes.ts';
import {
  ConfChangeTransition,
  type ConfChangeV2,
  type ConfState,
  decodeConfChangeV2,
  encodeConfChangeV2,
  EntryType,
  LEAVE_JOINT,
  MsgType,
  restoreMembership,
  tryDecodeConfChangeV2,
} from '../../../src/raft/index.ts';
import { RaftInvariantError } from '../../../src/raft/errors.ts';
import { leaveJoint, simpleChange } from '../../../src/raft/conf-change.ts';
import { EMPTY_MEMBERSHIP } from '../../../src/raft/tracker.ts';
import {
  addLearner,
  addNode,
  change,
  confState,
  entry,
  Lab,
  LabNode,
  message,
  type NodeOptions,
  ofType,
  removeNode,
  updateNode,
} from './lab.ts';

const TRIO: NodeOptions = { voters: [1, 2, 3] };
const LIMITS = { maxMsgs: 10, maxBytes: 0 };

function leader(options: NodeOptions): LabNode {
  const node = new LabNode(1, options);
  node.becomeQuietLeader();
  return node;
}

describe('proposing a membership change', () => {
  test('appends it and remembers its index as pending', () => {
    const node = leader({ voters: [1, 2] });
    const before = node.raw.lastIndex;
    expect(node.raw.proposeConfChange(change([addNode(3)]))).toEqual({ type: 'proposed', index: before + 1, term: 1 });
    expect([node.raw.lastIndex, node.raw.pendingConfIndex]).toEqual([before + 1, before + 1]);
  });

  test('a second one is refused and reported, or becomes an empty normal entry, with the pending index unchanged', () => {
    const node = leader({ voters: [1, 2] });
    node.raw.proposeConfChange(change([addNode(3)]));
    const { lastIndex, pendingConfIndex } = node.raw;
    const refused = node.raw.proposeConfChange(change([addNode(4)]));
    expect(refused).toEqual({ type: 'refused', reason: 'possible unapplied conf change at index 2 (applied to 0)' });
    expect(node.raw.lastIndex).toBe(lastIndex);
    // The same as a forwarded proposal: nobody can be told, so an empty entry takes its place.
    const data = encodeConfChangeV2(change([addNode(4)]));
    const forwarded = { type: EntryType.ConfChangeV2, term: 0, index: 0, data };
    node.step(MsgType.Prop, { from: 2, entries: [forwarded] });
    const [last] = node.raw.slice(lastIndex + 1, lastIndex + 2, 1000);
    expect(last).toMatchObject({ type: EntryType.Normal, data: EMPTY_BYTES });
    expect(node.raw.pendingConfIndex).toBe(pendingConfIndex);
  });

  test('the empty entry of a refused one is appended where that is configured', () => {
    const node = leader({ voters: [1, 2], appendRefusedConfChanges: true });
    node.raw.proposeConfChange(change([addNode(3)]));
    expect(node.raw.proposeConfChange(change([addNode(4)])).type).toBe('refused');
    expect(node.raw.lastIndex).toBe(3);
    expect(node.raw.slice(3, 4, 100)[0]?.type).toBe(EntryType.Normal);
  });

  test('a new leader takes its last index as pending index', () => {
    const node = leader({ voters: [1, 2], terms: [1, 1] });
    expect(node.raw.pendingConfIndex).toBe(2);
  });

  test('of another kind than the configuration allows is refused', () => {
    const lab = Lab.of(1);
    lab.campaign(1);
    expect(lab.raw(1).proposeConfChange(LEAVE_JOINT)).toEqual({
      type: 'refused',
      reason: 'not in joint state; refusing empty conf change',
    });
    lab.changeMembers(1, change([addLearner(2)], ConfChangeTransition.JointExplicit));
    expect(lab.raw(1).isJoint).toBe(true);
    expect(lab.raw(1).proposeConfChange(change([addLearner(3)]))).toEqual({
      type: 'refused',
      reason: 'must transition out of joint config first',
    });
    expect(lab.changeMembers(1, LEAVE_JOINT).type).toBe('proposed');
    expect(lab.raw(1).confState).toEqual(confState([1], { learners: [2] }));
  });

  test('that could not be applied is refused instead of stopping every replica later', () => {
    const lab = Lab.of(1);
    lab.campaign(1);
    expect(lab.raw(1).proposeConfChange(change([removeNode(1)]))).toEqual({
      type: 'refused',
      reason: 'removed all voters',
    });
    const data = encodeConfChangeV2(change([removeNode(1)]));
    lab
      .raw(1)
      .step(
        message(MsgType.Prop, { from: 1, to: 1, entries: [{ type: EntryType.ConfChangeV2, term: 0, index: 0, data }] }),
      );
    lab.settle();
    expect(lab.raw(1).confState).toEqual(confState([1]));
    const junk = { type: EntryType.ConfChangeV2, term: 0, index: 0, data: Uint8Array.of(9, 9) };
    lab.raw(1).step(message(MsgType.Prop, { from: 1, to: 1, entries: [junk] }));
    lab.settle();
    expect(lab.node(1).applied.every((e) => e.type === EntryType.Normal)).toBe(true);
    expect(lab.raw(1).proposeConfChange(change([addNode(-3)])).type).toBe('refused');
  });

  test('without validation is left to the layer above', () => {
    const node = leader({ voters: [1, 2], disableConfChangeValidation: true });
    expect(node.raw.proposeConfChange(change([addNode(3)])).type).toBe('proposed');
    expect(node.raw.proposeConfChange(change([addNode(4)])).type).toBe('proposed');
    expect(node.raw.pendingConfIndex).toBe(3);
  });
});

describe('applying a membership change', () => {
  test('adds a voter', () => {
    const node = new LabNode(1, { voters: [1] });
    expect(node.raw.applyConfChange(change([addNode(2)]))).toEqual(confState([1, 2]));
  });

  test('adds, promotes and demotes learners, and the own learner flag follows', () => {
    const node = new LabNode(1, { voters: [1] });
    node.raw.applyConfChange(change([addLearner(2)]));
    expect(node.progress(2).isLearner).toBe(true);
    node.raw.applyConfChange(change([addNode(2)]));
    expect(node.progress(2).isLearner).toBe(false);
    node.raw.applyConfChange(change([addLearner(1)]));
    expect([node.raw.isLearner, node.progress(1).isLearner]).toEqual([true, true]);
    node.raw.applyConfChange(change([addNode(1)]));
    expect([node.raw.isLearner, node.raw.promotable()]).toEqual([false, true]);
  });

  test('a new silent peer does not depose the leader at once, but after a full timeout', () => {
    const node = leader({ voters: [1], checkQuorum: true });
    node.raw.applyConfChange(change([addNode(2)]));
    node.ticks(10);
    expect(node.raw.role).toBe('leader');
    node.ticks(10);
    expect(node.raw.role).toBe('follower');
  });

  test('removes a voter, and removing the last one is fatal', () => {
    const node = new LabNode(1, { voters: [1, 2] });
    expect(node.raw.applyConfChange(change([removeNode(2)])).voters).toEqual([1]);
    expect(() => node.raw.applyConfChange(change([removeNode(1)]))).toThrow(RaftInvariantError);
  });

  test('removes a learner, and removing the last voter is fatal then too', () => {
    const node = new LabNode(1, { voters: [1], learners: [2] });
    expect(node.raw.applyConfChange(change([removeNode(2)]))).toEqual(confState([1]));
    expect(() => node.raw.applyConfChange(change([removeNode(1)]))).toThrow(RaftInvariantError);
  });

  test('reports voters sorted', () => {
    for (const ids of [
      [1, 2, 3],
      [3, 2, 1],
    ]) {
      expect(new LabNode(1, { voters: ids }).raw.confState.voters).toEqual([1, 2, 3]);
    }
  });

  test('that lowers the quorum commits the entry that waited for it', () => {
    const lab = new Lab([new LabNode(1, { voters: [1, 2] })]);
    const node = lab.node(1);
    node.becomeQuietLeader();
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 1 });
    node.take();
    node.appliesChanges = false;
    node.raw.proposeConfChange(change([removeNode(2)]));
    node.raw.propose(utf8('hello'));
    node.drain();
    expect(node.raw.committed).toBe(1);
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 2 });
    node.drain();
    expect(node.raw.committed).toBe(2);
    node.raw.applyConfChange(change([removeNode(2)]));
    expect(node.raw.committed).toBe(3);
  });

  test('adding a member twice does not hurt a later addition', () => {
    const lab = new Lab([1, 2].map((id) => new LabNode(id, { voters: [1] })));
    lab.campaign(1);
    for (const id of [1, 1, 2]) {
      expect(lab.changeMembers(1, change([addNode(id)])).type).toBe('proposed');
    }
    expect(lab.raw(1).confState.voters).toEqual([1, 2]);
    expect(lab.node(1).applied.filter((e) => e.type !== EntryType.Normal)).toHaveLength(3);
  });

  test('stops a leader that is removed or demoted, where that is configured', () => {
    for (const cc of [change([removeNode(1)]), change([addLearner(1)])]) {
      const stays = Lab.of(3);
      stays.campaign(1);
      stays.changeMembers(1, cc);
      expect(stays.raw(1).role).toBe('leader');
      const stops = Lab.of(3, { stepDownOnRemoval: true });
      stops.campaign(1);
      stops.changeMembers(1, cc);
      expect(stops.raw(1).role).toBe('follower');
    }
  });

  test('a removed leader refuses proposals and does not count itself', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.changeMembers(1, change([removeNode(1)]));
    expect(lab.raw(1).propose(utf8('x'))).toEqual({ type: 'dropped', reason: 'removed' });
    expect(lab.raw(1).forEachProgressInto([])).toBe(2);
  });

  test('commits need both halves of a joint configuration', () => {
    const cc = change([addNode(4), addNode(5), removeNode(2), removeNode(3)], ConfChangeTransition.JointExplicit);
    for (const silent of [
      [2, 3],
      [4, 5],
    ]) {
      const lab = new Lab([1, 2, 3, 4, 5].map((id) => new LabNode(id, TRIO)));
      lab.campaign(1);
      lab.changeMembers(1, cc);
      expect(lab.raw(1).confState).toEqual(confState([1, 4, 5], { votersOutgoing: [1, 2, 3] }));
      const { committed } = lab.raw(1);
      for (const id of silent) {
        lab.isolate(id);
      }
      lab.propose(1);
      lab.raw(1).ping();
      lab.settle();
      expect(lab.raw(1).committed, `without ${silent.join()}`).toBe(committed);
      lab.recover();
      lab.raw(1).ping();
      lab.settle();
      expect(lab.raw(1).committed).toBe(committed + 1);
    }
  });

  test('elections need both halves of a joint configuration', () => {
    const lab = new Lab(
      [1, 2, 3, 4, 5].map((id) => new LabNode(id, { confState: confState([1, 4, 5], { votersOutgoing: [1, 2, 3] }) })),
    );
    lab.isolate(2);
    lab.isolate(3);
    lab.campaign(1);
    expect(lab.raw(1).role).toBe('candidate');
    lab.recover();
    lab.campaign(1);
    expect(lab.raw(1).role).toBe('leader');
  });
});

describe('demotion', () => {
  test('a demotion is staged while joint and takes effect on leaving', () => {
    const node = new LabNode(1, { voters: [1, 2, 3] });
    node.raw.applyConfChange(change([addLearner(3), addNode(4)], ConfChangeTransition.JointExplicit));
    expect(node.raw.confState).toEqual(confState([1, 2, 4], { votersOutgoing: [1, 2, 3], learnersNext: [3] }));
    expect(node.progress(3).isLearner).toBe(false);
    node.raw.applyConfChange(LEAVE_JOINT);
    expect(node.raw.confState).toEqual(confState([1, 2, 4], { learners: [3] }));
    expect(node.progress(3).isLearner).toBe(true);
  });
});

describe('the kinds of change', () => {
  const cases: [string, ConfChangeV2, boolean, ConfState, ConfState | undefined][] = [
    ['V1', change([addNode(2)]), true, confState([1, 2]), undefined],
    ['V2 simple', change([addNode(2)]), false, confState([1, 2]), undefined],
    ['V2 simple learner', change([addLearner(2)]), false, confState([1], { learners: [2] }), undefined],
    [
      'V2 explicit',
      change([addLearner(2)], ConfChangeTransition.JointExplicit),
      false,
      confState([1], { votersOutgoing: [1], learners: [2] }),
      confState([1], { learners: [2] }),
    ],
    [
      'V2 implicit',
      change([addLearner(2)], ConfChangeTransition.JointImplicit),
      false,
      confState([1], { votersOutgoing: [1], learners: [2], autoLeave: true }),
      confState([1], { learners: [2] }),
    ],
    [
      'V2 automatic joint with demotion',
      change([addNode(2), addLearner(1), addLearner(3)]),
      false,
      confState([2], { votersOutgoing: [1], learners: [3], learnersNext: [1], autoLeave: true }),
      confState([2], { learners: [1, 3] }),
    ],
    [
      'V2 explicit with demotion',
      change([addNode(2), addLearner(1), addLearner(3)], ConfChangeTransition.JointExplicit),
      false,
      confState([2], { votersOutgoing: [1], learners: [3], learnersNext: [1] }),
      confState([2], { learners: [1, 3] }),
    ],
  ];
  for (const [name, cc, isV1, first, second] of cases) {
    test(`${name} gives its entry, its configuration, its pending index and its way out`, () => {
      const lab = new Lab([1, 2, 3].map((id) => new LabNode(id, { voters: [1] })));
      lab.campaign(1);
      const node = lab.node(1);
      const seen: ConfState[] = [];
      const { apply } = node;
      node.apply = function record(entries): void {
        apply.call(this, entries);
        if (entries.some((e) => e.type !== EntryType.Normal)) {
          seen.push(node.raw.confState);
        }
      };
      const index = node.raw.lastIndex + 1;
      const proposed = isV1 ? node.raw.proposeConfChangeV1(cc) : node.raw.proposeConfChange(cc);
      expect(proposed).toEqual({ type: 'proposed', index, term: 1 });
      expect(node.raw.pendingConfIndex).toBe(index);
      const [written] = node.raw.slice(index, index + 1, 1000);
      expect(written?.type).toBe(isV1 ? EntryType.ConfChange : EntryType.ConfChangeV2);
      expect(decodeConfChangeV2(written?.data ?? EMPTY_BYTES)).toEqual(cc);
      lab.settle();
      expect(seen[0]).toEqual(first);
      if (second === undefined) {
        expect(seen).toHaveLength(1);
        return;
      }
      if (first.autoLeave) {
        expect(seen[1]).toEqual(second);
        const left = node.applied.filter((e) => e.type === EntryType.ConfChangeV2).at(-1);
        expect(left?.data).toHaveLength(0);
      } else {
        expect(seen).toHaveLength(1);
        expect(lab.changeMembers(1, { ...LEAVE_JOINT, context: utf8('manual') }).type).toBe('proposed');
        expect(seen[1]).toEqual(second);
      }
    });
  }

  test('a joint configuration is left by the next leadership if this one is lost while applying', () => {
    const lab = new Lab([new LabNode(1, { voters: [1] })]);
    const node = lab.node(1);
    lab.campaign(1);
    node.appliesChanges = false;
    node.raw.proposeConfChange(change([addLearner(2)], ConfChangeTransition.JointImplicit));
    // Handed out, but leadership is lost before it is applied.
    const rd = node.raw.ready();
    node.storage.append(rd.entries);
    node.raw.advance();
    const second = node.raw.ready();
    const entries = second.committedEntries.filter((e) => e.type !== EntryType.Normal);
    expect(entries).toHaveLength(1);
    node.raft.becomeFollower(node.raw.term, 0);
    node.raw.applyConfChange(decodeConfChangeV2(entries[0]?.data ?? EMPTY_BYTES));
    node.raw.advance();
    expect(node.raw.isJoint).toBe(true);
    expect(node.raw.lastIndex).toBe(2);
    node.appliesChanges = true;
    lab.campaign(1);
    expect(node.raw.isJoint).toBe(false);
    expect(node.raw.confState).toEqual(confState([1], { learners: [2] }));
  });

  test('leaving waits until every inherited entry is applied', () => {
    const node = leader({
      confState: confState([1], { votersOutgoing: [1], learners: [2], autoLeave: true }),
      terms: [1, 1, 1],
      hardState: { commit: 1 },
    });
    expect(node.raw.confState.autoLeave).toBe(false);
    const leaves = node.applied.filter((e) => e.type === EntryType.ConfChangeV2);
    expect(leaves).toHaveLength(1);
    expect(leaves[0]?.index).toBeGreaterThan(3);
  });
});

describe('the change encoding', () => {
  test('comes back equal, with large ids and context, and refuses other bytes', () => {
    const cc: ConfChangeV2 = {
      transition: ConfChangeTransition.JointImplicit,
      changes: [addNode(1), addLearner(2 ** 40 + 7), removeNode(3), updateNode(4)],
      context: utf8('context'),
    };
    expect(decodeConfChangeV2(encodeConfChangeV2(cc))).toEqual(cc);
    expect(decodeConfChangeV2(EMPTY_BYTES)).toEqual(LEAVE_JOINT);
    expect(decodeConfChangeV2(encodeConfChangeV2(LEAVE_JOINT))).toEqual(LEAVE_JOINT);
    expect(encodeConfChangeV2(change([addNode(5)]))).toEqual(Uint8Array.of(1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5));
    for (const bytes of [[2, 0, 0, 0], [1, 9, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1], [1]]) {
      expect(tryDecodeConfChangeV2(Uint8Array.from(bytes)), bytes.join()).toBeUndefined();
    }
    expect(() => decodeConfChangeV2(Uint8Array.of(7))).toThrow(RaftInvariantError);
  });
});

describe('restoring a configuration', () => {
  test('refuses one that contradicts itself', () => {
    const bad: ConfState[] = [
      confState([], { learners: [1] }),
      confState([1], { learners: [1] }),
      confState([1], { learnersNext: [2] }),
      confState([1], { autoLeave: true }),
      confState([1, 2], { votersOutgoing: [2, 3], learners: [3] }),
    ];
    for (const state of bad) {
      expect(restoreMembership(state, 10, LIMITS).type, JSON.stringify(state)).toBe('error');
    }
    expect(() => new LabNode(1, { confState: confState([1], { learners: [1] }) })).toThrow(RaftInvariantError);
  });

  test('starts members as probed from the last index and recently active', () => {
    const result = restoreMembership(confState([1, 2], { learners: [3] }), 10, LIMITS);
    if (result.type === 'error') {
      throw new Error(result.message);
    }
    expect(
      result.membership.progress.map((p) => [p.id, p.match, p.next, p.state, p.recentActive, p.isLearner]),
    ).toEqual([
      [1, 0, 10, 'probe', true, false],
      [2, 0, 10, 'probe', true, false],
      [3, 0, 10, 'probe', true, true],
    ]);
  });

  test('a failed change leaves its base untouched', () => {
    const base = { membership: EMPTY_MEMBERSHIP, lastIndex: 1, limits: LIMITS };
    const one = simpleChange(base, [addNode(1)]);
    if (one.type === 'error') {
      throw new Error(one.message);
    }
    const before = JSON.stringify(one.membership);
    expect(simpleChange({ ...base, membership: one.membership }, [removeNode(1)]).type).toBe('error');
    expect(leaveJoint({ ...base, membership: one.membership }).type).toBe('error');
    expect(JSON.stringify(one.membership)).toBe(before);
  });
});

describe('removed members', () => {
  test('get no messages, and their answers are refused', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.changeMembers(1, change([removeNode(3)]));
    lab.raw(1).ping();
    expect(ofType(lab.node(1).take(), MsgType.Heartbeat).map((m) => m.to)).toEqual([2]);
    expect(lab.node(1).step(MsgType.AppResp, { from: 3, term: 1, index: 1 })).toEqual({ type: 'peer-not-found' });
    expect(entry(1, 1).term).toBe(1);
  });
});
