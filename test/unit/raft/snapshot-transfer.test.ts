import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { type ConfState, type LogStorage, MemoryStorage, MsgType } from '../../../src/raft/index.ts';
import { RawNode } from '../../../src/raft/raw-node.ts';
import {
  addLearner,
  addNode,
  change,
  confState,
  configOf,
  entriesOfTerms,
  Lab,
  LabNode,
  message,
  type NodeOptions,
  ofType,
  removeNode,
  snapshotAt,
} from './lab.ts';

const TRIO: NodeOptions = { voters: [1, 2, 3] };
const SNAPSHOT = snapshotAt(11, 11, confState([1, 2]));

/** A leader of members 1 and 2 whose log starts at 12 behind a snapshot at 11. */
function compactedLeader(): LabNode {
  const storage = new MemoryStorage();
  storage.applySnapshot(SNAPSHOT);
  storage.setHardState({ term: 11, vote: 0, commit: 11 });
  const node = new LabNode(1, { storage, applied: 11 });
  node.becomeQuietLeader();
  return node;
}

const restore = (node: LabNode, index: number, term: number, state: ConfState): boolean =>
  node.raft.restoreSnapshot(snapshotAt(index, term, state));

describe('sending snapshots', () => {
  test('remembers the index of the snapshot as pending', () => {
    const node = compactedLeader();
    node.progress(2).next = node.raw.firstIndex;
    node.step(MsgType.AppResp, { from: 2, term: node.raw.term, index: node.progress(2).next - 1, reject: true });
    expect(node.progress(2).pendingSnapshot).toBe(11);
    expect(ofType(node.take(), MsgType.Snap)).toHaveLength(1);
  });

  test('pauses replication while it is pending', () => {
    const node = compactedLeader();
    node.progress(2).becomeSnapshot(11);
    node.raw.propose(utf8('somedata'));
    expect(ofType(node.take(), MsgType.App)).toEqual([]);
  });

  test('a failure clears it and probes behind the match, paused', () => {
    const node = compactedLeader();
    node.progress(2).next = 1;
    node.progress(2).becomeSnapshot(11);
    node.raw.reportSnapshot(2, false);
    const { pendingSnapshot, next, flowPaused, state } = node.progress(2);
    expect({ pendingSnapshot, next, flowPaused, state }).toEqual({
      pendingSnapshot: 0,
      next: 1,
      flowPaused: true,
      state: 'probe',
    });
  });

  test('a success clears it and probes behind the snapshot, paused', () => {
    const node = compactedLeader();
    node.progress(2).next = 1;
    node.progress(2).becomeSnapshot(11);
    node.raw.reportSnapshot(2, true);
    const { pendingSnapshot, next, flowPaused, state } = node.progress(2);
    expect({ pendingSnapshot, next, flowPaused, state }).toEqual({
      pendingSnapshot: 0,
      next: 12,
      flowPaused: true,
      state: 'probe',
    });
  });

  test('an acknowledgement at its index resumes replication and sends the tail at once', () => {
    const node = compactedLeader();
    node.progress(2).next = 1;
    node.progress(2).becomeSnapshot(11);
    node.step(MsgType.AppResp, { from: 2, term: node.raw.term, index: 11 });
    expect(node.progress(2)).toMatchObject({ pendingSnapshot: 0, state: 'replicate', next: 13, inflightCount: 1 });
  });

  test('a report for a member that waits for none changes nothing', () => {
    const node = compactedLeader();
    const before = { ...node.progress(2) };
    node.raw.reportSnapshot(2, true);
    node.raw.reportSnapshot(9, true);
    expect({ ...node.progress(2) }).toEqual(before);
  });

  test('is what a rejection below the first index leads to', () => {
    const node = compactedLeader();
    node.step(MsgType.AppResp, { from: 2, term: node.raw.term, index: node.progress(2).next - 1, reject: true });
    expect(ofType(node.take(), MsgType.Snap)).toHaveLength(1);
  });

  test('does not happen towards an inactive peer', () => {
    const node = compactedLeader();
    node.progress(2).next = node.raw.firstIndex - 1;
    node.progress(2).recentActive = false;
    node.raw.propose(utf8('somedata'));
    expect(ofType(node.take(), MsgType.Snap)).toEqual([]);
  });

  test('waits while the snapshot is being made', () => {
    const memory = new MemoryStorage();
    memory.applySnapshot(SNAPSHOT);
    memory.setHardState({ term: 11, vote: 0, commit: 11 });
    let available = false;
    const storage: LogStorage = {
      initialState: () => memory.initialState(),
      firstIndex: () => memory.firstIndex(),
      lastIndex: () => memory.lastIndex(),
      term: (i) => memory.term(i),
      entries: (lo, hi, max) => memory.entries(lo, hi, max),
      snapshot: () => (available ? SNAPSHOT : null),
    };
    const raw = new RawNode(configOf(1, storage, { applied: 11, asyncStorageWrites: true }));
    raw.campaign();
    for (const m of raw.ready().messages.at(-1)?.responses ?? []) {
      raw.step(m);
    }
    raw.step(message(MsgType.VoteResp, { from: 2, to: 1, term: 12 }));
    expect(raw.role).toBe('leader');
    const reject = (): void => {
      const next = raw.internals.tracker.get(2)?.next ?? 0;
      raw.step(message(MsgType.AppResp, { from: 2, to: 1, term: 12, index: next - 1, reject: true }));
    };
    raw.ready();
    reject();
    expect(ofType(raw.ready().messages, MsgType.Snap)).toEqual([]);
    available = true;
    raw.step(message(MsgType.HeartbeatResp, { from: 2, to: 1, term: 12 }));
    expect(ofType(raw.ready().messages, MsgType.Snap)).toHaveLength(1);
  });
});

describe('taking a snapshot', () => {
  test('takes over position, term and voters; the same one again is refused; no campaign before it is durable', () => {
    const node = new LabNode(1, { voters: [1, 2] });
    expect(restore(node, 11, 11, confState([1, 2, 3]))).toBe(true);
    expect([node.raw.lastIndex, node.raw.termAt(11)]).toEqual([11, 11]);
    expect(node.raw.confState.voters).toEqual([1, 2, 3]);
    expect(restore(node, 11, 11, confState([1, 2, 3]))).toBe(false);
    node.ticks(30);
    expect(node.raw.role).toBe('follower');
  });

  test('takes over learners and their flags', () => {
    const node = new LabNode(3, { voters: [1, 2], learners: [3] });
    expect(restore(node, 11, 11, confState([1, 2], { learners: [3] }))).toBe(true);
    expect(node.raw.confState).toEqual(confState([1, 2], { learners: [3] }));
    expect([1, 2, 3].map((id) => node.progress(id).isLearner)).toEqual([false, false, true]);
    expect(node.raw.isLearner).toBe(true);
  });

  test('a member of the outgoing half only accepts a joint configuration', () => {
    const node = new LabNode(1, { voters: [1, 2] });
    const joint = confState([2, 3, 4], { votersOutgoing: [1, 2, 3] });
    expect(restore(node, 11, 11, joint)).toBe(true);
    expect(node.raw.confState).toEqual(joint);
    expect(restore(node, 11, 11, joint)).toBe(false);
  });

  test('a voter accepts one that makes it a learner', () => {
    const node = new LabNode(3, TRIO);
    expect(node.raw.isLearner).toBe(false);
    expect(restore(node, 11, 11, confState([1, 2], { learners: [3] }))).toBe(true);
    expect(node.raw.isLearner).toBe(true);
  });

  test('a learner accepts one that makes it a voter', () => {
    const node = new LabNode(3, { voters: [1, 2], learners: [3] });
    expect(restore(node, 11, 11, confState([1, 2, 3]))).toBe(true);
    expect(node.raw.isLearner).toBe(false);
  });

  test('a learner ends at the commit index of the leader', () => {
    const leader = new LabNode(1, leaderBehindSnapshot({ learners: [2] }, [1]));
    const lab = new Lab([leader, new LabNode(2, {})]);
    lab.campaign(1);
    lab.raw(1).ping();
    lab.settle();
    expect(lab.raw(2).committed).toBe(lab.raw(1).committed);
    expect(lab.raw(2).isLearner).toBe(true);
  });

  test('at or below the commit index is ignored, and moves only the commit index if its entry is in the log', () => {
    const node = new LabNode(1, { voters: [1, 2], terms: [1, 1, 1], hardState: { commit: 1 } });
    expect(restore(node, 1, 1, confState([1, 2]))).toBe(false);
    expect(node.raw.committed).toBe(1);
    expect(restore(node, 2, 1, confState([1, 2]))).toBe(false);
    expect([node.raw.committed, node.raw.lastIndex, node.raw.pendingSnapshotIndex]).toEqual([2, 3, 0]);
  });

  test('makes the sender the leader', () => {
    const node = new LabNode(2, { voters: [1, 2] });
    node.step(MsgType.Snap, { from: 1, term: 11, snapshot: SNAPSHOT });
    expect(node.raw.lead).toBe(1);
    const [answer] = ofType(node.take(), MsgType.AppResp);
    expect(answer).toMatchObject({ index: 11, reject: false });
  });

  test('without naming this member is ignored', () => {
    const node = new LabNode(9, { voters: [1, 2] });
    node.step(MsgType.Snap, { from: 1, term: 11, snapshot: SNAPSHOT });
    expect(ofType(node.take(), MsgType.AppResp)[0]).toMatchObject({ index: 0 });
    expect(node.raw.lastIndex).toBe(0);
  });

  test('replaces a divergent tail', () => {
    const node = new LabNode(2, { voters: [1, 2], terms: [1, 2, 2, 2], hardState: { commit: 1 } });
    node.step(MsgType.Snap, { from: 1, term: 3, snapshot: snapshotAt(3, 3, confState([1, 2])) });
    node.drain();
    expect([node.raw.lastIndex, node.raw.committed, node.raw.termAt(3)]).toEqual([3, 3, 3]);
  });

  test('a second, newer one before the first is durable replaces it', () => {
    const node = new LabNode(2, { voters: [1, 2], asyncStorageWrites: true });
    node.step(MsgType.Snap, { from: 1, term: 11, snapshot: SNAPSHOT });
    const first = node.raw.ready().messages.at(-1)?.responses.at(-1);
    node.step(MsgType.Snap, { from: 1, term: 11, snapshot: snapshotAt(15, 11, confState([1, 2])) });
    expect(node.raw.pendingSnapshotIndex).toBe(15);
    const second = node.raw.ready().messages.at(-1)?.responses.at(-1);
    if (first === undefined || second === undefined) {
      throw new Error('no storage responses');
    }
    node.raw.step(first);
    expect([node.raw.pendingSnapshotIndex, node.raw.applied]).toEqual([15, 11]);
    node.raw.step(second);
    expect([node.raw.pendingSnapshotIndex, node.raw.applied]).toEqual([0, 15]);
  });

  test('a member isolated for long catches up by snapshot and then by log', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.isolate(3);
    for (let i = 0; i < 100; i++) {
      lab.propose(1);
    }
    const { storage } = lab.node(1);
    storage.createSnapshot(lab.raw(1).applied, lab.raw(1).confState, utf8('state'));
    storage.compact(lab.raw(1).applied);
    lab.recover();
    lab.raw(1).ping();
    lab.settle();
    lab.propose(1);
    expect(lab.committed()).toEqual([102, 102, 102]);
    expect(lab.node(3).readies.some((rd) => rd.snapshot !== null)).toBe(true);
  });
});

/** Options of a leader whose log starts behind a snapshot that names these members. */
function leaderBehindSnapshot(parts: Partial<ConfState>, voters: number[]): NodeOptions {
  const storage = new MemoryStorage();
  storage.applySnapshot(snapshotAt(11, 11, confState(voters, parts)));
  storage.setHardState({ term: 11, vote: 0, commit: 11 });
  storage.append(entriesOfTerms([11], 12));
  return { storage, applied: 11 };
}

describe('leadership transfer', () => {
  const states = (lab: Lab, id: number): unknown => [lab.raw(id).role, lab.raw(id).lead];

  test('to an up-to-date member is immediate, and back again after a write', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.transfer(1, 2);
    expect(states(lab, 1)).toEqual(['follower', 2]);
    lab.propose(2);
    lab.transfer(2, 1);
    expect(states(lab, 1)).toEqual(['leader', 1]);
  });

  test('asked at a follower is forwarded', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.transfer(2, 2);
    expect(states(lab, 1)).toEqual(['follower', 2]);
    lab.propose(2);
    lab.transfer(1, 1);
    expect(states(lab, 1)).toEqual(['leader', 1]);
  });

  test('is not blocked by leases', () => {
    const lab = Lab.of(3, { checkQuorum: true });
    lab.campaign(1);
    lab.transfer(1, 2);
    expect(states(lab, 1)).toEqual(['follower', 2]);
    lab.propose(2);
    lab.transfer(2, 1);
    expect(states(lab, 1)).toEqual(['leader', 1]);
  });

  test('to a slow member sends the log first and TimeoutNow after the acknowledgement', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.isolate(3);
    lab.propose(1);
    lab.recover();
    expect(lab.node(1).progress(3).match).toBe(1);
    lab.transfer(1, 3);
    expect(states(lab, 1)).toEqual(['follower', 3]);
  });

  test('waits until a snapshot is acknowledged', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.isolate(3);
    lab.propose(1);
    const { storage } = lab.node(1);
    storage.createSnapshot(lab.raw(1).applied, lab.raw(1).confState, utf8(''));
    storage.compact(lab.raw(1).applied);
    lab.recover();
    // The acknowledgement of the snapshot is held back.
    const held: Parameters<typeof lab.filter>[0][] = [];
    lab.filter = (m) => {
      if (m.type !== MsgType.AppResp || m.from !== 3 || m.reject) {
        return true;
      }
      held.push(m);
      return false;
    };
    lab.transfer(1, 3);
    expect(states(lab, 1)).toEqual(['leader', 1]);
    lab.filter = () => true;
    const ack = held.at(-1);
    if (ack === undefined) {
      throw new Error('no acknowledgement was held back');
    }
    lab.raw(1).step(ack);
    lab.settle();
    expect(states(lab, 1)).toEqual(['follower', 3]);
  });

  test('to itself has no effect', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.transfer(1, 1);
    expect([...(states(lab, 1) as unknown[]), lab.raw(1).leadTransferee]).toEqual(['leader', 1, 0]);
  });

  test('to somebody who is not a member has no effect', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.transfer(1, 4);
    expect([...(states(lab, 1) as unknown[]), lab.raw(1).leadTransferee]).toEqual(['leader', 1, 0]);
  });

  test('to a learner has no effect', () => {
    const lab = new Lab([1, 2].map((id) => new LabNode(id, { voters: [1], learners: [2] })));
    lab.campaign(1);
    lab.transfer(1, 2);
    expect([...(states(lab, 1) as unknown[]), lab.raw(1).leadTransferee]).toEqual(['leader', 1, 0]);
  });

  /** A transfer to member 3 that hangs because 3 is unreachable. */
  function hanging(options: NodeOptions = {}): Lab {
    const lab = Lab.of(3, options);
    lab.campaign(1);
    lab.isolate(3);
    lab.propose(1);
    lab.transfer(1, 3);
    expect(lab.raw(1).leadTransferee).toBe(3);
    return lab;
  }

  test('is given up after an election timeout, and the leader stays', () => {
    const lab = hanging();
    lab.ticks(1, 9);
    expect(lab.raw(1).leadTransferee).toBe(3);
    lab.ticks(1, 1);
    expect([...(states(lab, 1) as unknown[]), lab.raw(1).leadTransferee]).toEqual(['leader', 1, 0]);
  });

  test('proposals are dropped while it is pending', () => {
    const lab = hanging();
    const { lastIndex } = lab.raw(1);
    expect(lab.propose(1)).toEqual({ type: 'dropped', reason: 'transferring' });
    expect(lab.raw(1).proposeConfChange(change([addNode(4)]))).toEqual({ type: 'dropped', reason: 'transferring' });
    expect(lab.raw(1).lastIndex).toBe(lastIndex);
  });

  test('the election of a third member ends it', () => {
    const lab = hanging();
    lab.campaign(2);
    expect([lab.raw(1).role, lab.raw(1).leadTransferee]).toEqual(['follower', 0]);
    expect(lab.raw(2).role).toBe('leader');
  });

  test('is given up when its target is removed', () => {
    const lab = hanging();
    lab.raw(1).applyConfChange(change([removeNode(3)]));
    expect([...(states(lab, 1) as unknown[]), lab.raw(1).leadTransferee]).toEqual(['leader', 1, 0]);
  });

  test('is given up when its target is demoted through a joint change', () => {
    const lab = hanging();
    lab.raw(1).applyConfChange(change([addLearner(3), addNode(4)]));
    // Still a voter of the outgoing half.
    expect(lab.raw(1).leadTransferee).toBe(3);
    lab.raw(1).applyConfChange(change([]));
    expect(lab.raw(1).leadTransferee).toBe(0);
  });

  test('one to the leader itself cancels a pending one', () => {
    const lab = hanging();
    lab.transfer(1, 1);
    expect([...(states(lab, 1) as unknown[]), lab.raw(1).leadTransferee]).toEqual(['leader', 1, 0]);
  });

  test('a second one to another member replaces the first', () => {
    const lab = hanging();
    lab.transfer(1, 2);
    expect(states(lab, 1)).toEqual(['follower', 2]);
  });

  test('a second one to the same member does not extend the timeout', () => {
    const lab = hanging();
    lab.ticks(1, 5);
    lab.transfer(1, 3);
    lab.ticks(1, 5);
    expect([...(states(lab, 1) as unknown[]), lab.raw(1).leadTransferee]).toEqual(['leader', 1, 0]);
  });

  test('TimeoutNow at a removed member has no effect, even if votes arrive', () => {
    const node = new LabNode(1, { voters: [2, 3, 4] });
    node.step(MsgType.TimeoutNow, { from: 2, term: 1 });
    expect(node.step(MsgType.VoteResp, { from: 2, term: 1 })).toEqual({ type: 'ok' });
    node.step(MsgType.VoteResp, { from: 3, term: 1 });
    expect(node.raw.role).toBe('follower');
  });

  test('TimeoutNow never starts a pre-election', () => {
    const node = new LabNode(2, { ...TRIO, preVote: true });
    node.becomeFollower(1, 1);
    node.step(MsgType.TimeoutNow, { from: 1, term: 1 });
    expect([node.raw.role, node.raw.term]).toEqual(['candidate', 2]);
  });

  test('restarts the timer that limits it', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.isolate(3);
    lab.propose(1);
    lab.ticks(1, 8);
    lab.transfer(1, 3);
    lab.ticks(1, 8);
    expect(lab.raw(1).leadTransferee).toBe(3);
    lab.ticks(1, 2);
    expect(lab.raw(1).leadTransferee).toBe(0);
  });
});
