import { describe, expect, test } from 'vitest';
import { fromUtf8, utf8 } from '../../../src/base/bytes.ts';
import { type Message, MsgType, PENDING_READS_MAX } from '../../../src/raft/index.ts';
import { contextToPosition, positionToContext } from '../../../src/raft/read-index.ts';
import { addLearner, change, Lab, LabNode, message, type NodeOptions, ofType, removeNode } from './lab.ts';

const TRIO: NodeOptions = { voters: [1, 2, 3] };

/** Reads at a member and returns the answers it got: context and index. */
function read(lab: Lab, id: number, context: string): [string, number][] {
  const node = lab.node(id);
  const before = node.readStates.length;
  node.raw.readIndex(utf8(context));
  lab.settle();
  return node.readStates.slice(before).map((s) => [fromUtf8(s.requestContext), s.index]);
}

describe('linearizable reads', () => {
  test('issued at any member return at least the commit index of their time, one answer each', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    let count = 0;
    for (const [id, proposals] of [
      [1, 10],
      [2, 10],
      [3, 10],
      [1, 10],
      [2, 10],
      [3, 10],
    ] as const) {
      for (let i = 0; i < proposals; i++) {
        lab.propose(1);
      }
      const context = `read ${count++}`;
      expect(read(lab, id, context)).toEqual([[context, lab.raw(1).committed]]);
    }
  });

  test('work in a group of one voter and one learner, at both', () => {
    const lab = new Lab([1, 2].map((id) => new LabNode(id, { voters: [1], learners: [2] })));
    lab.campaign(1);
    for (const id of [1, 2, 1, 2]) {
      for (let i = 0; i < 3; i++) {
        lab.propose(1);
      }
      expect(read(lab, id, `at ${id}`)).toEqual([[`at ${id}`, lab.raw(1).committed]]);
    }
  });

  test('by lease are answered without a round trip', () => {
    const lab = Lab.of(3, { checkQuorum: true, leaseReads: true });
    lab.campaign(1);
    for (const id of [1, 2, 3]) {
      lab.propose(1);
      expect(read(lab, id, 'c')).toEqual([['c', lab.raw(1).committed]]);
    }
    lab.node(1).take();
    lab.raw(1).readIndex(utf8('alone'));
    expect(lab.node(1).take()).toEqual([]);
    expect(lab.node(1).readStates.at(-1)?.index).toBe(lab.raw(1).committed);
  });

  test('before the first commit of the term are postponed and then answered with that commit', () => {
    for (const leaseReads of [false, true]) {
      const lab = Lab.of(3, { checkQuorum: leaseReads, leaseReads });
      lab.campaign(1);
      // A new leader whose first entry nobody has.
      lab.ignore(MsgType.App);
      lab.node(1).raft.electionElapsed = 10;
      lab.node(3).raft.electionElapsed = 10;
      lab.campaign(2);
      expect(lab.raw(2).committedInTerm()).toBe(false);
      expect(read(lab, 2, 'early')).toEqual([]);
      lab.recover();
      lab.raw(2).ping();
      lab.settle();
      expect(lab.node(2).readStates.map((s) => s.index)).toEqual([lab.raw(2).committed]);
      expect(lab.raw(2).committedInTerm()).toBe(true);
    }
  });

  test('a repeated context and delayed heartbeat responses do not confirm a later read of a deposed leader', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    const delayed: Message[] = [];
    lab.filter = (m) => {
      if (m.type === MsgType.HeartbeatResp && m.from === 3) {
        delayed.push(m);
        return false;
      }
      return true;
    };
    // The first read is confirmed by member 2; the answer of member 3 is still on its way.
    expect(read(lab, 1, 'same')).toEqual([['same', 1]]);
    lab.isolate(1);
    lab.campaign(2);
    lab.propose(2);
    expect(lab.raw(2).committed).toBe(3);
    // The old leader does not know that it is deposed.
    lab.raw(1).readIndex(utf8('same'));
    lab.settle();
    for (const m of delayed) {
      lab.raw(1).step(m);
    }
    lab.settle();
    expect(lab.node(1).readStates.map((s) => s.index)).toEqual([1]);
  });

  test('leave the queue when they are confirmed', () => {
    const node = new LabNode(1, TRIO);
    node.becomeQuietLeader();
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 1 });
    node.take();
    node.raw.readIndex(utf8('ctx'));
    expect(node.raft.reads?.length).toBe(1);
    const beat = ofType(node.take(), MsgType.Heartbeat)[0];
    expect(contextToPosition(beat?.context ?? new Uint8Array(0))).toBe(1);
    node.step(MsgType.HeartbeatResp, { from: 2, term: 1, context: beat?.context ?? new Uint8Array(0) });
    expect(node.raft.reads?.length).toBe(0);
    node.drain();
    expect(node.readStates.map((s) => s.index)).toEqual([1]);
  });

  test('a lost round is repeated by the next regular heartbeat', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.ignore(MsgType.Heartbeat);
    expect(read(lab, 1, 'lost')).toEqual([]);
    lab.recover();
    lab.ticks(1, 1);
    expect(lab.node(1).readStates).toHaveLength(1);
  });

  test('several waiting ones are confirmed by one round, in order', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    for (const context of ['a', 'b', 'c']) {
      lab.raw(1).readIndex(utf8(context));
    }
    lab.settle();
    expect(lab.node(1).readStates.map((s) => fromUtf8(s.requestContext))).toEqual(['a', 'b', 'c']);
  });

  test('of a single voter wait for the first commit of its term too', () => {
    const node = new LabNode(1, { voters: [1], asyncStorageWrites: true });
    node.raw.campaign();
    for (const m of node.raw.ready().messages.at(-1)?.responses ?? []) {
      node.raw.step(m);
    }
    expect(node.raw.role).toBe('leader');
    node.raw.readIndex(utf8('early'));
    expect(node.raft.readStates).toEqual([]);
    expect(node.raft.parkedReads).toHaveLength(1);
    node.drain();
    expect(node.readStates.map((s) => s.index)).toEqual([1]);
  });

  test('are released when a smaller configuration has a quorum for them already', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.isolate(2);
    lab.isolate(3);
    expect(read(lab, 1, 'waiting')).toEqual([]);
    lab.raw(1).applyConfChange(change([removeNode(2)]));
    lab.raw(1).applyConfChange(change([removeNode(3)]));
    lab.node(1).drain();
    expect(lab.node(1).readStates.map((s) => s.index)).toEqual([1]);
  });

  test('need both halves of a joint configuration', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.raw(1).applyConfChange(change([{ type: 0, nodeId: 4 }, { type: 0, nodeId: 5 }, removeNode(2), removeNode(3)]));
    lab.raw(1).readIndex(utf8('joint'));
    lab.node(1).take();
    const answer = (from: number): void => {
      lab.raw(1).step(message(MsgType.HeartbeatResp, { from, to: 1, term: 1, context: positionToContext(1) }));
      lab.node(1).drain();
    };
    answer(2);
    answer(3);
    expect(lab.node(1).readStates).toEqual([]);
    answer(4);
    expect(lab.node(1).readStates).toHaveLength(1);
  });

  test('parked and waiting ones end with the leadership, and both are bounded', () => {
    const node = new LabNode(1, TRIO);
    node.becomeQuietLeader();
    for (let i = 0; i < PENDING_READS_MAX; i++) {
      expect(node.raw.readIndex(utf8('x'))).toEqual({ type: 'ok' });
    }
    expect(node.raw.readIndex(utf8('x'))).toEqual({ type: 'dropped', reason: 'too-many-reads' });
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 1 });
    expect(node.raft.parkedReads).toBeNull();
    expect(node.raft.reads?.length).toBe(PENDING_READS_MAX);
    expect(node.raw.readIndex(utf8('x'))).toEqual({ type: 'dropped', reason: 'too-many-reads' });
    node.raft.becomeFollower(2, 0);
    expect([node.raft.parkedReads, node.raft.reads]).toEqual([null, null]);
  });

  test('without a leader are reported as dropped', () => {
    const node = new LabNode(1, TRIO);
    expect(node.raw.readIndex(utf8('x'))).toEqual({ type: 'dropped', reason: 'no-leader' });
    node.becomeCandidate();
    expect(node.raw.readIndex(utf8('x'))).toEqual({ type: 'dropped', reason: 'no-leader' });
  });

  test('unknown and malformed heartbeat contexts confirm nothing', () => {
    const node = new LabNode(1, TRIO);
    node.becomeQuietLeader();
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 1 });
    node.raw.readIndex(utf8('x'));
    for (const context of [utf8('x'), positionToContext(2), positionToContext(2 ** 50), new Uint8Array(8).fill(255)]) {
      node.step(MsgType.HeartbeatResp, { from: 2, term: 1, context });
      expect(node.raft.reads?.length).toBe(1);
    }
    expect(contextToPosition(positionToContext(2 ** 40 + 3))).toBe(2 ** 40 + 3);
    expect(addLearner(1).type).toBe(3);
  });
});
