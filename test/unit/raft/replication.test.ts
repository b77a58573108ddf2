import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { type Message, MsgType } from '../../../src/raft/index.ts';
import { RaftInvariantError } from '../../../src/raft/errors.ts';
import { confState, entriesOfTerms, entry, Lab, LabNode, message, type NodeOptions, ofType, typesOf } from './lab.ts';

const PAIR: NodeOptions = { voters: [1, 2] };
const TRIO: NodeOptions = { voters: [1, 2, 3] };
const data = (bytes: number): Uint8Array => new Uint8Array(bytes);

function leader(options: NodeOptions = PAIR): LabNode {
  const node = new LabNode(1, options);
  node.becomeQuietLeader();
  return node;
}

describe('proposals at the leader', () => {
  test('sit in unstable, and the own match moves only with the durable self acknowledgement', () => {
    const node = leader();
    node.progress(2).becomeReplicate();
    const before = node.progress(1).match;
    for (let i = 0; i < 5; i++) {
      node.raw.propose(data(1));
    }
    expect(node.raft.log.unstable.length).toBe(5);
    expect(node.progress(1).match).toBe(before);
    const rd = node.raw.ready();
    expect(rd.entries).toHaveLength(5);
    expect(node.progress(1).match).toBe(before);
    node.storage.append(rd.entries);
    node.raw.advance();
    expect(node.progress(1).match).toBe(before + 5);
  });

  test('beyond the uncommitted limit are dropped, an oversized one enters an empty tail, an empty one always', () => {
    const size = 100;
    const count = 10;
    const node = leader({ voters: [1, 2, 3], maxUncommittedBytes: size * count });
    for (const id of [2, 3]) {
      node.progress(id).becomeReplicate();
    }
    for (let i = 0; i < count; i++) {
      expect(node.raw.propose(data(size)).type).toBe('proposed');
    }
    expect(node.raw.propose(data(1))).toEqual({ type: 'dropped', reason: 'uncommitted-limit' });
    expect(node.raw.propose(data(0)).type).toBe('proposed');
    acknowledge(node, 2);
    node.take();
    expect(node.raw.uncommittedBytes).toBe(0);
    // Larger than the limit, but nothing is in front of it.
    expect(node.raw.propose(data(2 * size * count)).type).toBe('proposed');
    expect(node.raw.propose(data(size)).type).toBe('dropped');
    expect(node.raw.propose(data(0)).type).toBe('proposed');
    acknowledge(node, 2);
    node.take();
    expect(node.raw.uncommittedBytes).toBe(0);
  });

  test('commit on all members, also across a change of leader', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.propose(1, 'a');
    expect(lab.committed()).toEqual([2, 2, 2]);
    lab.campaign(2);
    lab.propose(2, 'b');
    expect(lab.committed()).toEqual([4, 4, 4]);
    for (const node of lab.nodes.values()) {
      expect(node.applied.filter((e) => e.data.length > 0).map((e) => String.fromCharCode(...e.data))).toEqual([
        'a',
        'b',
      ]);
    }
  });

  test('reach learners, whose match the leader tracks', () => {
    const lab = new Lab([1, 2].map((id) => new LabNode(id, { voters: [1], learners: [2] })));
    lab.campaign(1);
    lab.propose(1);
    expect(lab.committed()).toEqual([2, 2]);
    expect(lab.node(1).progress(2).match).toBe(2);
    expect(lab.node(1).progress(2).isLearner).toBe(true);
  });

  test('commit alone at a single voter', () => {
    const lab = Lab.of(1);
    lab.campaign(1);
    lab.propose(1);
    lab.propose(1);
    expect(lab.raw(1).committed).toBe(3);
  });

  test('of an old term stay uncommitted although replicated until one of the current term is (paper 5.4.2)', () => {
    const lab = Lab.of(5);
    lab.campaign(1);
    for (const other of [3, 4, 5]) {
      lab.cut(1, other);
    }
    lab.propose(1);
    lab.propose(1);
    expect(lab.raw(1).committed).toBe(1);
    lab.recover();
    lab.ignore(MsgType.App);
    lab.campaign(2);
    expect(lab.raw(2).committed).toBe(1);
    lab.recover();
    // Its own entry was lost with the appends; a heartbeat round replicates everything and commits nothing old alone.
    lab.filter = (m) => !(m.type === MsgType.App && m.entries.some((e) => e.term === lab.raw(2).term));
    lab.raw(2).ping();
    lab.settle();
    expect(lab.raw(2).committed).toBe(1);
    lab.filter = () => true;
    lab.propose(2);
    lab.raw(2).ping();
    lab.settle();
    expect(lab.raw(2).committed).toBe(5);
  });

  test('of an old term commit with the empty entry of a new leader', () => {
    const lab = Lab.of(5);
    lab.campaign(1);
    for (const other of [3, 4, 5]) {
      lab.cut(1, other);
    }
    lab.propose(1);
    lab.propose(1);
    expect(lab.raw(1).committed).toBe(1);
    lab.recover();
    lab.campaign(2);
    expect(lab.raw(1).committed).toBe(4);
  });

  test('are replicated if and only if a quorum is reachable', () => {
    const cases: [number, number[], boolean][] = [
      [3, [], true],
      [3, [3], true],
      [3, [2, 3], false],
      [4, [3, 4], false],
      [5, [4, 5], true],
    ];
    for (const [size, silent, succeeds] of cases) {
      const lab = Lab.of(size);
      lab.campaign(1);
      const before = lab.raw(1).committed;
      for (const id of silent) {
        lab.isolate(id);
      }
      lab.propose(1, 'some data');
      expect(lab.raw(1).committed > before, `${size} members without ${silent.join()}`).toBe(succeeds);
      if (succeeds) {
        const reachable = [...lab.nodes.values()].filter((n) => !silent.includes(n.id));
        expect(reachable.every((n) => n.applied.some((e) => e.data.length > 0))).toBe(true);
      }
    }
  });

  test('at a follower reach the leader', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    expect(lab.propose(2, 'by proxy')).toEqual({ type: 'forwarded', reason: 'forwarded to the leader', to: 1 });
    expect(lab.committed()).toEqual([2, 2, 2]);
  });

  test('at a candidate or without a leader are dropped', () => {
    const node = new LabNode(1, TRIO);
    expect(node.raw.propose(data(1))).toEqual({ type: 'dropped', reason: 'no-leader' });
    node.becomeCandidate();
    expect(node.raw.propose(data(1))).toEqual({ type: 'dropped', reason: 'no-leader' });
  });

  test('at a follower are dropped when forwarding is disabled', () => {
    const lab = Lab.of(3, { disableProposalForwarding: true });
    lab.campaign(1);
    expect(lab.propose(2)).toEqual({ type: 'dropped', reason: 'not-leader' });
    expect(lab.committed()).toEqual([1, 1, 1]);
  });

  test('name the position that tells whether they were overwritten', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.isolate(1);
    const lost = lab.propose(1, 'lost');
    lab.campaign(2);
    const kept = lab.propose(2, 'kept');
    lab.recover();
    lab.raw(2).ping();
    lab.settle();
    expect(lost).toEqual({ type: 'proposed', index: 2, term: 1 });
    expect(kept).toEqual({ type: 'proposed', index: 3, term: 2 });
    expect(lab.raw(1).termAt(2)).toBe(2);
    expect(lab.raw(1).termAt(3)).toBe(2);
  });
});

/** Acknowledges everything a leader has, from these members. */
function acknowledge(node: LabNode, ...from: number[]): void {
  node.drain();
  for (const id of from) {
    node.step(MsgType.AppResp, { from: id, term: node.raw.term, index: node.raw.lastIndex });
  }
}

describe('flow control', () => {
  test('sending a heartbeat keeps a paused peer paused, its response ends the pause', () => {
    const node = leader();
    node.progress(2).flowPaused = true;
    node.raw.tick();
    expect(node.progress(2).flowPaused).toBe(true);
    node.progress(2).becomeReplicate();
    node.progress(2).flowPaused = true;
    node.step(MsgType.HeartbeatResp, { from: 2, term: node.raw.term });
    expect(node.progress(2).flowPaused).toBe(false);
  });

  test('three proposals to a probing peer produce one append', () => {
    const node = leader();
    node.progress(2).becomeProbe();
    for (let i = 0; i < 3; i++) {
      node.raw.propose(data(5));
    }
    expect(ofType(node.take(), MsgType.App)).toHaveLength(1);
  });

  test('the window is limited by messages and by bytes, and acknowledgements refill it', () => {
    const node = leader({ ...PAIR, maxSizePerMsg: 2048, maxInflightMsgs: 3, maxInflightBytes: 9000 });
    node.progress(2).becomeProbe();
    const blob = data(1000);
    const large = data(5000);
    for (let i = 0; i < 10; i++) {
      node.raw.propose(blob);
    }
    for (let i = 0; i < 5; i++) {
      node.raw.propose(large);
    }
    for (let i = 0; i < 3; i++) {
      node.raw.propose(data(0));
    }
    let sent = ofType(node.take(), MsgType.App);
    // Probing: one message. It carries the leader's empty entry and the first blob.
    expect(sizes(sent)).toEqual([[0, 1000]]);
    const ack = (m: Message): Message[] => {
      node.step(MsgType.AppResp, { from: 2, term: node.raw.term, index: m.index + m.entries.length });
      return ofType(node.take(), MsgType.App);
    };
    sent = ack(sent[0] as Message);
    // Small entries are packed to the message limit, three messages are in flight.
    expect(sizes(sent)).toEqual([
      [1000, 1000],
      [1000, 1000],
      [1000, 1000],
    ]);
    const third = sent[2] as Message;
    sent = ack(third);
    // All three are acknowledged: two more of blobs and large ones until the byte limit is crossed.
    expect(sizes(sent)).toEqual([[1000, 1000], [1000], [5000]]);
    sent = ack(sent[2] as Message);
    expect(sizes(sent)).toEqual([[5000], [5000]]);
    expect(node.progress(2).inflightFull).toBe(true);
    sent = ack(sent[1] as Message);
    expect(sizes(sent)).toEqual([[5000], [5000]]);
    sent = ack(sent[1] as Message);
    expect(sizes(sent)).toEqual([[0, 0, 0]]);
  });

  test('the acknowledgement of one peer opens the window of that peer only', () => {
    const node = leader(TRIO);
    for (const id of [2, 3]) {
      expect(node.progress(id).state).toBe('probe');
    }
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 1 });
    node.take();
    node.raw.propose(data(1));
    const appends = ofType(node.take(), MsgType.App).filter((m) => m.entries.length > 0);
    expect(appends.map((m) => m.to)).toEqual([2]);
    node.step(MsgType.AppResp, { from: 3, term: 1, index: 1 });
    expect(
      ofType(node.take(), MsgType.App)
        .filter((m) => m.entries.length > 0)
        .map((m) => m.to),
    ).toEqual([3]);
  });

  test('a full window stops appends with entries', () => {
    const node = leader({ ...PAIR, maxInflightMsgs: 4 });
    node.progress(2).becomeReplicate();
    for (let i = 0; i < 4; i++) {
      node.raw.propose(data(1));
      expect(ofType(node.take(), MsgType.App)).toHaveLength(1);
    }
    expect(node.progress(2).inflightFull).toBe(true);
    for (let i = 0; i < 5; i++) {
      node.raw.propose(data(1));
      expect(ofType(node.take(), MsgType.App)).toEqual([]);
    }
  });

  test('an acknowledgement moves the window, an old one does not', () => {
    const node = leader({ ...PAIR, maxInflightMsgs: 4 });
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 1 });
    for (let i = 0; i < 4; i++) {
      node.raw.propose(data(1));
      node.take();
    }
    const first = node.progress(2).match + 1;
    for (let index = first; index < first + 4; index++) {
      node.step(MsgType.AppResp, { from: 2, term: 1, index });
      node.take();
      node.raw.propose(data(1));
      expect(ofType(node.take(), MsgType.App)).toHaveLength(1);
      expect(node.progress(2).inflightFull).toBe(true);
      for (let old = 0; old < index; old++) {
        node.step(MsgType.AppResp, { from: 2, term: 1, index: old });
        expect(node.progress(2).inflightFull).toBe(true);
      }
    }
  });

  test('a full window lets one empty append out per heartbeat response', () => {
    const node = leader({ ...PAIR, maxInflightMsgs: 3 });
    node.progress(2).becomeReplicate();
    for (let i = 0; i < 3; i++) {
      node.raw.propose(data(1));
    }
    node.take();
    expect(node.progress(2).inflightFull).toBe(true);
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 2; i++) {
        node.step(MsgType.HeartbeatResp, { from: 2, term: 1 });
        const sent = ofType(node.take(), MsgType.App);
        expect(sent).toHaveLength(1);
        expect(sent[0]?.entries).toEqual([]);
        expect(node.progress(2).paused).toBe(true);
      }
      node.raw.propose(data(1));
      expect(ofType(node.take(), MsgType.App)).toEqual([]);
    }
  });

  test('next advances with what is sent while replicating and not while probing', () => {
    for (const [state, expected] of [
      ['replicate', 3],
      ['probe', 2],
    ] as const) {
      const node = leader();
      const progress = node.progress(2);
      progress.match = 1;
      if (state === 'replicate') {
        progress.becomeReplicate();
      } else {
        progress.becomeProbe();
      }
      node.raw.propose(data(1));
      expect(progress.next, state).toBe(expected);
    }
  });

  test('a probing peer gets one append and then nothing until it answers a heartbeat', () => {
    const node = leader();
    node.progress(2).becomeProbe();
    for (let round = 0; round < 3; round++) {
      node.raw.propose(data(1));
      if (round === 0) {
        expect(ofType(node.take(), MsgType.App)).toHaveLength(1);
        expect(node.progress(2).flowPaused).toBe(true);
      }
      for (let i = 0; i < 10; i++) {
        node.raw.propose(data(1));
      }
      expect(ofType(node.take(), MsgType.App)).toEqual([]);
      node.ticks(1);
      expect(typesOf(node.take())).toEqual([MsgType.Heartbeat]);
      expect(node.progress(2).flowPaused).toBe(true);
    }
    node.step(MsgType.HeartbeatResp, { from: 2, term: 1 });
    const sent = ofType(node.take(), MsgType.App);
    expect(sent).toHaveLength(1);
    expect(sent[0]?.index).toBe(0);
    expect(node.progress(2).flowPaused).toBe(true);
  });

  test('a replicating peer gets an append with every call', () => {
    const node = leader();
    node.progress(2).becomeReplicate();
    for (let i = 0; i < 10; i++) {
      node.raw.propose(data(1));
      expect(ofType(node.take(), MsgType.App)).toHaveLength(1);
    }
  });

  test('a peer in snapshot state gets no append', () => {
    const node = leader();
    node.progress(2).becomeSnapshot(10);
    for (let i = 0; i < 10; i++) {
      node.raw.propose(data(1));
      expect(ofType(node.take(), MsgType.App)).toEqual([]);
    }
  });

  test('an unreachable report turns replicating into probing behind the match', () => {
    const node = leader();
    const progress = node.progress(2);
    progress.match = 0;
    progress.becomeReplicate();
    node.raw.propose(data(1));
    expect(progress.next).toBe(3);
    node.raw.reportUnreachable(2);
    expect([progress.state, progress.next]).toEqual(['probe', 1]);
  });

  test('every entry goes alone when messages may hold one only', () => {
    const node = leader({ ...PAIR, maxSizePerMsg: 0, maxCommittedSizePerReady: 1000 });
    node.progress(2).becomeReplicate();
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 1 });
    node.progress(2).becomeProbe();
    for (let i = 0; i < 3; i++) {
      node.raw.propose(data(10));
    }
    const first = ofType(node.take(), MsgType.App).at(-1);
    expect(first?.entries).toHaveLength(1);
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 2 });
    expect(
      ofType(node.take(), MsgType.App)
        .filter((m) => m.entries.length > 0)
        .map((m) => m.entries.length),
    ).toEqual([1, 1]);
  });
});

const sizes = (messages: readonly Message[]): number[][] =>
  messages.filter((m) => m.entries.length > 0).map((m) => m.entries.map((e) => e.data.length));

describe('a follower', () => {
  test('ignores an append of an earlier term', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.campaign(2);
    lab.campaign(1);
    lab.raw(1).step(message(MsgType.App, { from: 2, to: 1, term: 2, index: 2, logTerm: 1, entries: [entry(2, 3)] }));
    lab.settle();
    lab.propose(1, 'somedata');
    for (const node of lab.nodes.values()) {
      expect(node.terms()).toEqual([1, 2, 3, 3]);
      expect(node.raw.committed).toBe(4);
    }
  });

  test('rejects a missing or different previous entry, replaces conflicts, and commits to its last new entry at most', () => {
    const cases: [Partial<Message>, number, number, boolean][] = [
      // message, last index, committed, rejected
      [{ term: 2, logTerm: 3, index: 2, commit: 3 }, 2, 0, true],
      [{ term: 2, logTerm: 2, index: 3, commit: 3 }, 2, 0, true],
      [{ term: 2, logTerm: 1, index: 1, commit: 1 }, 2, 1, false],
      [{ term: 2, logTerm: 0, index: 0, commit: 1, entries: [entry(2, 1)] }, 1, 1, false],
      [{ term: 2, logTerm: 2, index: 2, commit: 3, entries: [entry(2, 3), entry(2, 4)] }, 4, 3, false],
      [{ term: 2, logTerm: 2, index: 2, commit: 4, entries: [entry(2, 3)] }, 3, 3, false],
      [{ term: 2, logTerm: 1, index: 1, commit: 4, entries: [entry(2, 2)] }, 2, 2, false],
      [{ term: 1, logTerm: 1, index: 1, commit: 3 }, 2, 1, false],
      [{ term: 1, logTerm: 1, index: 1, commit: 3, entries: [entry(2, 2)] }, 2, 2, false],
      [{ term: 2, logTerm: 2, index: 2, commit: 3 }, 2, 2, false],
      [{ term: 2, logTerm: 2, index: 2, commit: 4 }, 2, 2, false],
    ];
    for (const [parts, lastIndex, committed, rejected] of cases) {
      const node = new LabNode(1, { voters: [1, 2], terms: [1, 2] });
      node.becomeFollower(3, 2);
      node.step(MsgType.App, { from: 2, ...parts, term: 3 });
      expect([node.raw.lastIndex, node.raw.committed], JSON.stringify(parts)).toEqual([lastIndex, committed]);
      const answers = ofType(node.take(), MsgType.AppResp);
      expect(answers).toHaveLength(1);
      expect(answers[0]?.reject).toBe(rejected);
    }
  });

  test('follows the commit index of heartbeats, never back, and answers', () => {
    for (const [commit, expected] of [
      [3, 3],
      [1, 2],
    ] as const) {
      const node = new LabNode(1, { voters: [1, 2], terms: [1, 2, 3] });
      node.becomeFollower(3, 2);
      node.raft.log.commitTo(2);
      node.step(MsgType.Heartbeat, { from: 2, term: 3, commit });
      expect(node.raw.committed).toBe(expected);
      expect(typesOf(node.take())).toEqual([MsgType.HeartbeatResp]);
    }
  });

  test('does not truncate for a duplicated or overtaken append (paper 5.3)', () => {
    const node = new LabNode(1, { voters: [1, 2] });
    node.step(MsgType.App, { from: 2, term: 1, entries: entriesOfTerms([1, 1, 1]) });
    node.step(MsgType.App, { from: 2, term: 1, entries: entriesOfTerms([1]) });
    expect(node.raw.lastIndex).toBe(3);
    const answers = ofType(node.take(), MsgType.AppResp);
    expect(answers.map((m) => m.index)).toEqual([3, 1]);
  });

  test('stops for good when it is told to commit what it does not have', () => {
    const node = new LabNode(1, { voters: [1, 2], terms: [1] });
    expect(() => node.step(MsgType.Heartbeat, { from: 2, term: 1, commit: 5 })).toThrow(RaftInvariantError);
    expect(() => node.raw.tick()).toThrow(RaftInvariantError);
  });
});

describe('a leader hearing answers', () => {
  test('sends a lagging peer an append for each heartbeat response and none once it has everything', () => {
    const node = new LabNode(1, { voters: [1, 2], terms: [1, 1, 1] });
    node.becomeQuietLeader();
    for (let i = 0; i < 2; i++) {
      node.step(MsgType.HeartbeatResp, { from: 2, term: node.raw.term });
      expect(ofType(node.take(), MsgType.App)).toHaveLength(1);
    }
    node.step(MsgType.AppResp, { from: 2, term: node.raw.term, index: node.raw.lastIndex });
    node.take();
    node.step(MsgType.HeartbeatResp, { from: 2, term: node.raw.term });
    expect(node.take()).toEqual([]);
  });

  test('tells a stale rejection from a real one, takes acknowledgements, also at the match while probing', () => {
    const cases: [number, boolean, number, number, number, number][] = [
      // index, reject, match, next, messages, index of the append
      [3, true, 0, 3, 0, 0],
      [2, true, 0, 2, 1, 1],
      [2, false, 2, 4, 2, 2],
      [0, false, 0, 4, 1, 0],
    ];
    for (const [index, reject, match, next, messages, position] of cases) {
      const node = new LabNode(1, { ...TRIO, terms: [1, 1] });
      node.becomeQuietLeader();
      const progress = node.progress(2);
      // As after the election: probing from the end of the old log.
      expect([progress.match, progress.next, progress.state]).toEqual([0, 3, 'probe']);
      node.step(MsgType.AppResp, { from: 2, term: node.raw.term, index, reject, rejectHint: reject ? index : 0 });
      expect([progress.match, progress.next], `index ${index} reject ${reject}`).toEqual([match, next]);
      const sent = ofType(node.take(), MsgType.App);
      expect(sent.filter((m) => m.to === 2).length).toBe(messages === 2 ? 1 : messages);
      if (messages > 0) {
        expect(sent.find((m) => m.to === 2)?.index).toBe(position);
      }
    }
  });

  test('sends heartbeats without position, their commit capped by the match of the peer', () => {
    const node = new LabNode(1, { ...TRIO, terms: Array.from({ length: 10 }, () => 1), hardState: { commit: 9 } });
    node.becomeQuietLeader();
    node.progress(2).match = 5;
    node.progress(2).next = 6;
    node.progress(3).match = node.raw.lastIndex;
    node.progress(3).next = node.raw.lastIndex + 1;
    node.raw.tick();
    const beats = node.take();
    expect(beats.map((m) => [m.to, m.type, m.index, m.logTerm, m.entries.length, m.commit])).toEqual([
      [2, MsgType.Heartbeat, 0, 0, 0, 5],
      [3, MsgType.Heartbeat, 0, 0, 0, 9],
    ]);
  });

  test('a heartbeat records the commit index it carried', () => {
    const node = new LabNode(1, { ...TRIO, terms: [1, 1, 1], hardState: { commit: 3 } });
    node.becomeQuietLeader();
    const progress = node.progress(2);
    progress.match = 2;
    progress.next = 5;
    progress.sentCommit = 3;
    node.raw.tick();
    expect(progress.sentCommit).toBe(2);
  });

  test('is the only role that reacts to the heartbeat tick', () => {
    const counts = (['leader', 'candidate', 'follower'] as const).map((role) => {
      const node = new LabNode(1, TRIO);
      if (role === 'leader') {
        node.becomeLeader();
      } else if (role === 'candidate') {
        node.becomeCandidate();
      }
      node.take();
      node.raw.tick();
      return ofType(node.take(), MsgType.Heartbeat).length;
    });
    expect(counts).toEqual([2, 0, 0]);
  });

  test('commits the largest index of its term that a quorum has', () => {
    const cases: [number[], number[], number, number][] = [
      // matches, terms of the log, current term, committed
      [[1], [1], 1, 1],
      [[1], [1], 2, 0],
      [[2], [1, 2], 2, 2],
      [[1], [2], 2, 1],
      [[2, 1, 1], [1, 2], 1, 1],
      [[2, 1, 1], [1, 1], 2, 0],
      [[2, 1, 2], [1, 2], 2, 2],
      [[2, 1, 2], [1, 1], 2, 0],
      [[2, 1, 1, 1], [1, 2], 1, 1],
      [[2, 1, 1, 1], [1, 1], 2, 0],
      [[2, 1, 1, 2], [1, 2], 1, 1],
      [[2, 1, 1, 2], [1, 1], 2, 0],
      [[2, 1, 2, 2], [1, 2], 2, 2],
      [[2, 1, 2, 2], [1, 1], 2, 0],
    ];
    for (const [matches, terms, term, committed] of cases) {
      const voters = matches.map((_, i) => i + 1);
      const node = new LabNode(1, { voters, terms, hardState: { term: Math.max(term, ...terms) } });
      node.raft.term = term;
      // A leader of `term` whose entries of that term begin where the log says so.
      node.raft.role = 'leader';
      node.raft.termStart = terms.indexOf(term) < 0 ? terms.length + 1 : terms.indexOf(term) + 1;
      matches.forEach((match, i) => {
        const progress = node.progress(i + 1);
        progress.match = i === 0 ? match - 1 : match;
        progress.next = match + 1;
      });
      node.step(MsgType.AppResp, { from: 1, term, index: matches[0] as number });
      expect(node.raw.committed, `${matches.join()} of ${terms.join()} at ${term}`).toBe(committed);
    }
  });

  test('ignores its own acknowledgement of an earlier term', () => {
    const node = new LabNode(1, { ...TRIO, asyncStorageWrites: true });
    node.raw.campaign();
    deliverLocal(node);
    node.step(MsgType.VoteResp, { from: 2, term: 1 });
    const storageMessage = node.raw.ready().messages.at(-1);
    const ack = storageMessage?.responses.find((m) => m.type === MsgType.AppResp);
    expect(ack).toMatchObject({ from: 1, to: 1, term: 1, index: 1 });
    node.step(MsgType.App, { from: 2, term: 2 });
    expect(node.raw.role).toBe('follower');
    if (ack !== undefined) {
      node.raw.step(ack);
    }
    expect([node.raw.role, node.raw.term]).toEqual(['follower', 2]);
    expect(node.progress(1).match).toBe(1);
    expect(node.raw.committed).toBe(0);
  });

  test('a late rejection never moves next to or below the match (reordered messages)', () => {
    const lab = new Lab([new LabNode(1, PAIR)]);
    const node = lab.node(1);
    node.becomeQuietLeader();
    const progress = node.progress(2);
    for (let i = 0; i < 20; i++) {
      node.raw.propose(data(1));
    }
    node.take();
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 10 });
    expect([progress.state, progress.match]).toEqual(['replicate', 10]);
    // A rejection of an old probe arrives now.
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 5, reject: true, rejectHint: 2 });
    expect(progress.next).toBeGreaterThan(progress.match);
    progress.becomeProbe();
    node.step(MsgType.AppResp, { from: 2, term: 1, index: 10, reject: true, rejectHint: 3, logTerm: 0 });
    expect(progress.next).toBe(11);
  });
});

/** Async mode: carries the storage messages of the next Ready out and delivers the responses to the node itself. */
function deliverLocal(node: LabNode): void {
  node.take();
}

describe('log repair', () => {
  /** Runs one probe cycle between a leader log and a follower log and returns what travelled. */
  function probe(leaderTerms: number[], followerTerms: number[], compactedTo = 0): { hint: Message; next: Message } {
    const term = Math.max(...leaderTerms, ...followerTerms) + 1;
    const node = new LabNode(1, { ...TRIO, terms: leaderTerms, hardState: { term: term - 1 } });
    node.becomeQuietLeader();
    const follower = new LabNode(2, {
      ...TRIO,
      terms: followerTerms,
      hardState: { term: term - 1, commit: compactedTo },
    });
    if (compactedTo > 0) {
      follower.storage.compact(compactedTo);
      follower.restart(compactedTo);
    }
    node.raft.tracker.get(2)?.becomeProbe();
    const progress = node.progress(2);
    progress.next = node.raw.lastIndex;
    node.step(MsgType.HeartbeatResp, { from: 2, term: node.raw.term });
    const append = ofType(node.take(), MsgType.App).find((m) => m.to === 2);
    if (append === undefined) {
      throw new Error('no probe');
    }
    follower.raw.step(append);
    const hint = follower.take().find((m) => m.type === MsgType.AppResp);
    if (hint === undefined) {
      throw new Error('no answer');
    }
    node.raw.step(hint);
    const next = ofType(node.take(), MsgType.App).find((m) => m.to === 2);
    if (next === undefined) {
      throw new Error('no second probe');
    }
    return { hint, next };
  }

  test('a rejection hint and the next probe skip whole terms on either side, for nine log shapes', () => {
    const cases: [number[], number[], number, number, number, number, number][] = [
      // leader, follower, hint index, hint term, next probe index, next probe term, compacted to
      [[1, 3, 3, 3, 5, 5, 5, 5, 5], [1, 1, 1, 1, 2, 2], 6, 2, 1, 1, 0],
      [[1, 3, 3, 3, 5, 5, 5, 5], [1, 1, 1, 1, 2, 2, 2], 7, 2, 1, 1, 0],
      [[1, 1, 1, 1, 4, 5], [1, 1, 1, 1, 2, 2, 4], 6, 2, 4, 1, 0],
      [[1, 1, 1, 1, 4, 5], [1, 1, 1, 1, 2, 2], 6, 2, 4, 1, 0],
      [[1, 1, 1, 1, 4, 4], [1, 1, 1, 1, 6, 6, 6, 6], 4, 1, 4, 1, 0],
      [[1, 1, 1, 1, 3, 3, 3, 7], [1, 1, 1, 1, 2, 2, 2, 2], 8, 2, 4, 1, 0],
      [[1, 1, 1, 1, 4, 5, 5], [1, 1, 1, 1, 2, 2], 6, 2, 4, 1, 0],
      [[5, 5, 5, 5, 5, 5, 6, 6], [1, 1, 1, 4, 4], 5, 4, 0, 0, 0],
      [[1, 1, 1, 1, 1, 1, 4, 5], [1, 1, 1, 1, 2, 2], 6, 2, 6, 1, 4],
    ];
    for (const [leaderTerms, followerTerms, hintIndex, hintTerm, nextIndex, nextTerm, compacted] of cases) {
      const { hint, next } = probe(leaderTerms, followerTerms, compacted);
      const shape = `${leaderTerms.join()} against ${followerTerms.join()}`;
      expect([hint.reject, hint.rejectHint, hint.logTerm], shape).toEqual([true, hintIndex, hintTerm]);
      expect([next.index, next.logTerm], shape).toEqual([nextIndex, nextTerm]);
    }
  });

  test('a compacted hint position has no term and is probed as it is', () => {
    const node = new LabNode(2, { ...TRIO, terms: [5, 5, 5, 5], hardState: { commit: 3 } });
    node.storage.compact(3);
    node.restart(3);
    node.step(MsgType.App, { from: 1, term: 6, index: 4, logTerm: 3, entries: [] });
    const [answer] = ofType(node.take(), MsgType.AppResp);
    expect(answer).toMatchObject({ reject: true, index: 4, rejectHint: 2, logTerm: 0 });
  });

  test('an append below the commit index is answered with the commit index', () => {
    const node = new LabNode(2, { ...TRIO, terms: [1, 1, 1], hardState: { commit: 3 } });
    node.step(MsgType.App, { from: 1, term: 1, index: 1, logTerm: 1, entries: [entry(1, 2)] });
    expect(ofType(node.take(), MsgType.AppResp)[0]).toMatchObject({ reject: false, index: 3 });
  });

  test('a peer that lost its place gets its commit index again with the next append', () => {
    const lab = Lab.of(3);
    lab.campaign(1);
    lab.drop(1, 3);
    lab.propose(1);
    lab.recover();
    const progress = lab.node(1).progress(3);
    lab.raw(1).reportUnreachable(3);
    expect(progress.sentCommit).toBeLessThanOrEqual(progress.next - 1);
    lab.raw(1).ping();
    lab.settle();
    expect(lab.committed()).toEqual([2, 2, 2]);
  });
});

describe('commit propagation options', () => {
  test('without a broadcast followers learn the commit index from the next append or heartbeat', () => {
    const lab = Lab.of(3, { skipBcastCommit: true });
    lab.campaign(1);
    lab.propose(1);
    expect(lab.committed()).toEqual([2, 1, 1]);
    lab.raw(1).ping();
    lab.settle();
    expect(lab.committed()).toEqual([2, 2, 2]);
  });

  test('a pending membership change is broadcast all the same', () => {
    const lab = Lab.of(3, { skipBcastCommit: true });
    lab.campaign(1);
    lab.changeMembers(1, { transition: 0, changes: [{ type: 3, nodeId: 4 }], context: utf8('c') });
    expect(lab.raw(2).confState.learners).toEqual([4]);
  });

  test('members report their commit index, which the leader keeps per member', () => {
    const lab = Lab.of(3, { reportCommit: true });
    lab.campaign(1);
    lab.propose(1);
    lab.raw(1).ping();
    lab.settle();
    expect(
      lab
        .raw(1)
        .progress()
        .map((v) => [v.id, v.match, v.committed]),
    ).toEqual([
      [1, 2, 2],
      [2, 2, 2],
      [3, 2, 2],
    ]);
    lab.drop(1, 3);
    lab.propose(1);
    lab.raw(1).ping();
    lab.settle();
    expect(
      lab
        .raw(1)
        .progress()
        .map((v) => v.committed),
    ).toEqual([3, 3, 2]);
    expect(lab.raw(2).progress()).toEqual([]);
  });

  test('commit positions in vote traffic reach a voter with the entry and a refused candidate', () => {
    const lab = Lab.of(3, { commitByVote: true });
    lab.campaign(1);
    // Member 2 has the entry and does not know that it is committed.
    lab.filter = (m) => !(m.to === 2 && m.commit >= 2);
    lab.propose(1);
    lab.filter = () => true;
    expect(lab.committed()).toEqual([2, 1, 2]);
    lab.isolate(1);
    lab.raw(3).campaign();
    const [request] = ofType(lab.node(3).take(), MsgType.Vote).filter((m) => m.to === 2);
    expect(request).toMatchObject({ commit: 0, voteCommit: 2, voteCommitTerm: 1 });
    lab.raw(2).step(request as Message);
    expect(lab.raw(2).committed).toBe(2);
    expect(confState([1])).toBeDefined();
  });
});
