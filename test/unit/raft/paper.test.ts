/** Rules of the Raft paper, by section. */
import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import { type Message, MsgType, type Role } from '../../../src/raft/index.ts';
import { entry, Lab, LabNode, type NodeOptions, ofType, typesOf } from './lab.ts';

const TRIO: NodeOptions = { voters: [1, 2, 3] };

/** A deterministic stream of integers. */
function stream(seed: number): (n: number) => number {
  let state = seed >>> 0 || 1;
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

function inRole(role: Role, options: NodeOptions = TRIO): LabNode {
  const node = new LabNode(1, options);
  if (role === 'follower') {
    node.becomeFollower(1, 2);
  } else if (role === 'candidate') {
    node.becomeCandidate();
  } else {
    node.becomeLeader();
  }
  node.take();
  return node;
}

/** Answers everything a leader sent as if all of these members had appended it. */
function answerAppends(node: LabNode, messages: readonly Message[], from: readonly number[]): void {
  for (const m of messages) {
    if (m.type === MsgType.App && from.includes(m.to)) {
      node.step(MsgType.AppResp, { from: m.to, term: m.term, index: m.index + m.entries.length });
    }
  }
}

/** A leader whose first entry everybody has. */
function settledLeader(size: number): LabNode {
  const voters = Array.from({ length: size }, (_, i) => i + 1);
  const node = new LabNode(1, { voters });
  node.becomeLeader();
  answerAppends(node, node.take(), voters);
  node.take();
  return node;
}

describe('section 5.1: terms', () => {
  for (const role of ['follower', 'candidate', 'leader'] as const) {
    test(`a ${role} adopts a higher term and becomes follower`, () => {
      const node = inRole(role);
      node.step(MsgType.App, { from: 2, term: 7 });
      expect([node.raw.term, node.raw.role, node.raw.lead]).toEqual([7, 'follower', 2]);
    });
  }

  test('a request of a lower term is not processed', () => {
    const node = new LabNode(1, TRIO);
    node.becomeFollower(2);
    node.take();
    node.step(MsgType.App, { from: 2, term: 1, entries: [entry(1, 1)] });
    expect([node.raw.lastIndex, node.raw.lead]).toEqual([0, 0]);
    expect(node.take()).toEqual([]);
  });
});

describe('section 5.2: leader election', () => {
  test('a member starts as follower', () => {
    expect(new LabNode(1, TRIO).raw.role).toBe('follower');
  });

  test('a leader sends heartbeats to all followers at its interval', () => {
    const node = inRole('leader', { ...TRIO, heartbeatTick: 3 });
    for (let round = 0; round < 3; round++) {
      node.ticks(2);
      expect(node.take()).toEqual([]);
      node.ticks(1);
      expect(node.take().map((m) => [m.type, m.to])).toEqual([
        [MsgType.Heartbeat, 2],
        [MsgType.Heartbeat, 3],
      ]);
    }
  });

  for (const role of ['follower', 'candidate'] as const) {
    test(`a ${role} whose timeout passes raises its term, votes for itself and asks all others`, () => {
      const node = inRole(role);
      const { term } = node.raw;
      node.ticks(10);
      expect([node.raw.term, node.raw.role, node.raw.vote]).toEqual([term + 1, 'candidate', 1]);
      expect(node.take().map((m) => [m.type, m.to, m.term])).toEqual([
        [MsgType.Vote, 2, term + 1],
        [MsgType.Vote, 3, term + 1],
      ]);
      expect(node.progress(1).ballot).toBe(1);
    });
  }

  test('one round of answers wins, loses or leaves open the election of one, three or five members', () => {
    const cases: [number, Record<number, boolean>, Role][] = [
      [1, {}, 'leader'],
      [3, { 2: true, 3: true }, 'leader'],
      [3, { 2: true }, 'leader'],
      [5, { 2: true, 3: true, 4: true, 5: true }, 'leader'],
      [5, { 2: true, 3: true, 4: true }, 'leader'],
      [5, { 2: true, 3: true }, 'leader'],
      [3, { 2: false, 3: false }, 'follower'],
      [5, { 2: false, 3: false, 4: false, 5: false }, 'follower'],
      [5, { 2: true, 3: false, 4: false, 5: false }, 'follower'],
      [3, {}, 'candidate'],
      [5, { 2: true }, 'candidate'],
      [5, { 2: false, 3: false }, 'candidate'],
      [5, {}, 'candidate'],
    ];
    for (const [size, votes, role] of cases) {
      const node = new LabNode(1, { voters: Array.from({ length: size }, (_, i) => i + 1) });
      node.raw.campaign();
      node.drain();
      for (const [id, granted] of Object.entries(votes)) {
        node.step(MsgType.VoteResp, { from: Number(id), term: 1, reject: !granted });
      }
      expect([node.raw.role, node.raw.term], `${size} ${JSON.stringify(votes)}`).toEqual([role, 1]);
    }
  });

  test('a member gives one vote per term, first come first served, and repeats it', () => {
    const cases: [number, number, boolean][] = [
      [0, 2, true],
      [0, 3, true],
      [2, 2, true],
      [3, 3, true],
      [2, 3, false],
      [3, 2, false],
    ];
    for (const [vote, asked, granted] of cases) {
      const node = new LabNode(1, { ...TRIO, hardState: { term: 1, vote } });
      node.step(MsgType.Vote, { from: asked, term: 1 });
      expect(ofType(node.take(), MsgType.VoteResp)[0]?.reject, `${vote} ${asked}`).toBe(!granted);
    }
  });

  test('an append of the same or a higher term ends a candidacy', () => {
    for (const term of [1, 2]) {
      const node = new LabNode(1, TRIO);
      node.raw.campaign();
      expect(node.raw.role).toBe('candidate');
      node.step(MsgType.App, { from: 2, term });
      expect([node.raw.role, node.raw.term]).toEqual(['follower', term]);
    }
  });

  for (const role of ['follower', 'candidate'] as const) {
    test(`every timeout of the range occurs at a ${role}`, () => {
      const node = new LabNode(1, { ...TRIO, random: stream(7) });
      const seen = new Set<number>();
      for (let round = 0; round < 1000; round++) {
        if (role === 'follower') {
          node.becomeFollower(node.raw.term + 1, 2);
        } else {
          node.becomeCandidate();
        }
        let ticks = 0;
        const { term } = node.raw;
        while (node.raw.term === term) {
          node.raw.tick();
          ticks++;
        }
        seen.add(ticks);
        node.drain();
        node.take();
      }
      expect([...seen].sort((a, b) => a - b)).toEqual([10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
    });

    test(`simultaneous timeouts of five ${role}s are rare`, () => {
      const random = stream(11);
      const nodes = [1, 2, 3, 4, 5].map((id) => new LabNode(id, { voters: [1, 2, 3, 4, 5], random }));
      let conflicts = 0;
      const rounds = 1000;
      for (let round = 0; round < rounds; round++) {
        for (const node of nodes) {
          if (role === 'follower') {
            node.becomeFollower(node.raw.term + 1, 0);
          } else {
            node.becomeCandidate();
          }
          node.take();
        }
        let timedOut = 0;
        while (timedOut === 0) {
          for (const node of nodes) {
            const { term } = node.raw;
            node.raw.tick();
            timedOut += node.raw.term > term ? 1 : 0;
          }
        }
        conflicts += timedOut > 1 ? 1 : 0;
      }
      expect(conflicts / rounds).toBeLessThan(0.3);
    });
  }
});

describe('section 5.3: log replication', () => {
  test('a leader appends a proposal and sends it to all with the previous position', () => {
    const node = settledLeader(3);
    const { lastIndex } = node.raw;
    node.raw.propose(utf8('some data'));
    expect([node.raw.lastIndex, node.raw.committed]).toEqual([lastIndex + 1, lastIndex]);
    const rd = node.raw.ready();
    expect(rd.entries.map((e) => [e.term, e.index])).toEqual([[1, lastIndex + 1]]);
    expect(rd.messages.map((m) => [m.type, m.to, m.index, m.logTerm, m.commit, m.entries.length])).toEqual([
      [MsgType.App, 2, lastIndex, 1, lastIndex, 1],
      [MsgType.App, 3, lastIndex, 1, lastIndex, 1],
    ]);
  });

  test('an acknowledged entry is committed, handed out, and named in the next messages', () => {
    const node = settledLeader(3);
    const { lastIndex } = node.raw;
    node.raw.propose(utf8('some data'));
    answerAppends(node, node.take(), [2, 3]);
    expect(node.raw.committed).toBe(lastIndex + 1);
    const rd = node.handleReady();
    expect(rd.committedEntries.map((e) => e.index)).toEqual([lastIndex + 1]);
    expect(rd.messages.map((m) => [m.type, m.to, m.commit])).toEqual([
      [MsgType.App, 2, lastIndex + 1],
      [MsgType.App, 3, lastIndex + 1],
    ]);
  });

  test('an entry is committed by these sets of acceptors in groups of one, three and five', () => {
    const cases: [number, number[], boolean][] = [
      [1, [], true],
      [3, [], false],
      [3, [2], true],
      [3, [2, 3], true],
      [5, [], false],
      [5, [2], false],
      [5, [2, 3], true],
      [5, [2, 3, 4], true],
      [5, [2, 3, 4, 5], true],
    ];
    for (const [size, acceptors, committed] of cases) {
      const node = settledLeader(size);
      const { lastIndex } = node.raw;
      node.raw.propose(utf8('some data'));
      answerAppends(node, node.take(), acceptors);
      node.drain();
      expect(node.raw.committed > lastIndex, `${size} ${acceptors.join()}`).toBe(committed);
    }
  });

  test('entries of earlier terms are committed together with a new one', () => {
    for (const terms of [[], [2], [1, 2], [1]]) {
      const node = new LabNode(1, { ...TRIO, terms, hardState: { term: 2 } });
      node.becomeLeader();
      node.raw.propose(utf8('some data'));
      answerAppends(node, node.take(), [2, 3]);
      // A probing member got what there was; it is told the rest now.
      answerAppends(node, node.take(), [2, 3]);
      node.drain();
      expect(node.applied.map((e) => e.term)).toEqual([...terms, 3, 3]);
    }
  });

  test('a follower hands out entries in order up to the commit index of the leader', () => {
    const cases: [ReturnType<typeof entry>[], number][] = [
      [[entry(1, 1, 'a')], 1],
      [[entry(1, 1, 'a'), entry(1, 2, 'b')], 2],
      [[entry(1, 1, 'b'), entry(1, 2, 'a')], 2],
      [[entry(1, 1, 'a'), entry(1, 2, 'b')], 1],
    ];
    for (const [entries, commit] of cases) {
      const node = new LabNode(1, TRIO);
      node.becomeFollower(1, 2);
      node.step(MsgType.App, { from: 2, term: 1, entries, commit });
      expect(node.raw.committed).toBe(commit);
      node.drain();
      expect(node.applied).toEqual(entries.slice(0, commit));
    }
  });

  test('a follower accepts or rejects an append with index and hint', () => {
    const cases: [number, number, number, boolean, number, number][] = [
      // term and index of the previous entry, answered index, reject, hint, hint term
      [0, 0, 1, false, 0, 0],
      [1, 1, 1, false, 0, 0],
      [2, 2, 2, false, 0, 0],
      [1, 2, 2, true, 1, 1],
      [3, 3, 3, true, 2, 2],
    ];
    for (const [term, index, answered, reject, hint, hintTerm] of cases) {
      const node = new LabNode(1, { ...TRIO, terms: [1, 2], hardState: { commit: 1 } });
      node.becomeFollower(3, 2);
      node.step(MsgType.App, { from: 2, term: 3, logTerm: term, index });
      expect(ofType(node.take(), MsgType.AppResp)[0], `${term}/${index}`).toMatchObject({
        index: answered,
        reject,
        rejectHint: hint,
        logTerm: hintTerm,
      });
    }
  });

  test('a follower truncates a conflicting suffix and keeps exactly the new log', () => {
    const cases: [number, number, ReturnType<typeof entry>[], number[], number[]][] = [
      // previous index and term, entries, terms of the log, indexes of the unstable part
      [2, 2, [entry(3, 3)], [1, 2, 3], [3]],
      [1, 1, [entry(3, 2), entry(4, 3)], [1, 3, 4], [2, 3]],
      [0, 0, [entry(1, 1)], [1, 2], []],
      [0, 0, [entry(3, 1)], [3], [1]],
    ];
    for (const [index, logTerm, entries, terms, unstable] of cases) {
      const node = new LabNode(1, { ...TRIO, terms: [1, 2] });
      node.becomeFollower(4, 2);
      node.step(MsgType.App, { from: 2, term: 4, logTerm, index, entries });
      expect(node.terms()).toEqual(terms);
      expect(node.raft.log.unstable.next().map((e) => e.index)).toEqual(unstable);
    }
  });

  test('the follower logs of figure 7 converge to the log of the leader', () => {
    const leaderLog = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    const followers = [
      [1, 1, 1, 4, 4, 5, 5, 6, 6],
      [1, 1, 1, 4],
      [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
      [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
      [1, 1, 1, 4, 4, 4, 4],
      [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for (const terms of followers) {
      const lab = Lab.withLogs([leaderLog, terms, []]);
      for (const node of lab.nodes.values()) {
        node.becomeFollower(8);
      }
      lab.campaign(1);
      lab.propose(1);
      expect(lab.leader()).toBe(1);
      expect(lab.node(2).terms(), terms.join()).toEqual(lab.node(1).terms());
      expect(lab.node(1).terms()).toEqual([...leaderLog, 9, 9]);
    }
  });
});

describe('section 5.4: safety', () => {
  test('a vote request names the last entry and goes to all others', () => {
    for (const terms of [[2], [1, 2]]) {
      const node = new LabNode(1, { ...TRIO, terms });
      node.becomeFollower(2, 2);
      node.take();
      node.ticks(10);
      const requests = node.take();
      expect(typesOf(requests)).toEqual([MsgType.Vote, MsgType.Vote]);
      for (const [i, m] of requests.entries()) {
        expect([m.to, m.term, m.index, m.logTerm]).toEqual([i + 2, 3, terms.length, 2]);
      }
    }
  });

  test('a voter refuses candidates with older logs', () => {
    const cases: [number[], number, number, boolean][] = [
      // own terms, candidate's last term and index, refused
      [[1], 1, 1, false],
      [[1], 1, 2, false],
      [[1, 1], 1, 1, true],
      [[1], 2, 1, false],
      [[1], 2, 2, false],
      [[1, 1], 2, 1, false],
      [[2], 1, 1, true],
      [[2], 1, 2, true],
      [[2, 2], 1, 1, true],
    ];
    for (const [terms, logTerm, index, refused] of cases) {
      const node = new LabNode(1, { voters: [1, 2], terms });
      node.step(MsgType.Vote, { from: 2, term: 3, logTerm, index });
      expect(ofType(node.take(), MsgType.VoteResp)[0]?.reject, `${terms.join()} ${logTerm}/${index}`).toBe(refused);
    }
  });

  test('a leader commits by counting only entries of its own term', () => {
    for (const [index, committed] of [
      [1, 0],
      [2, 0],
      [3, 3],
    ] as const) {
      const node = new LabNode(1, { voters: [1, 2], terms: [1, 2], hardState: { term: 2 } });
      node.becomeQuietLeader();
      node.raw.propose(utf8('x'));
      node.drain();
      node.step(MsgType.AppResp, { from: 2, term: 3, index });
      expect(node.raw.committed, `acknowledged ${index}`).toBe(committed);
    }
  });
});
