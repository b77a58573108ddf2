import { describe, expect, test } from 'vitest';
import { MsgType, type Role } from '../../../src/raft/index.ts';
import { RaftInvariantError } from '../../../src/raft/errors.ts';
import { TRANSFER_CONTEXT } from '../../../src/raft/raft.ts';
import { confState, entry, Lab, LabNode, message, type NodeOptions, ofType, snapshotAt, typesOf } from './lab.ts';

const TRIO: NodeOptions = { voters: [1, 2, 3] };
const both = [false, true];
const suffix = (preVote: boolean): string => (preVote ? ', with pre-vote' : '');

/** Puts a member into a role at term 1 or so. */
function inRole(role: Role, options: NodeOptions = TRIO): LabNode {
  const node = new LabNode(1, options);
  switch (role) {
    case 'follower':
      node.becomeFollower(node.raw.term, 3);
      break;
    case 'candidate':
      node.becomeCandidate();
      break;
    case 'pre-candidate':
      node.becomePreCandidate();
      break;
    case 'leader':
      node.becomeLeader();
      break;
  }
  node.take();
  return node;
}

const ROLES: readonly Role[] = ['follower', 'candidate', 'pre-candidate', 'leader'];

describe('elections', () => {
  for (const preVote of both) {
    test(`are won with a majority, undecided without answers and lost against longer logs${suffix(preVote)}`, () => {
      const role = (lab: Lab): string => {
        lab.campaign(1);
        return `${lab.raw(1).role} ${lab.raw(1).term}`;
      };
      const waiting = preVote ? 'pre-candidate 0' : 'candidate 1';
      const options = { preVote };
      expect(role(Lab.withLogs([[], [], []], options))).toBe('leader 1');
      expect(role(Lab.withLogs([[], [], null], options))).toBe('leader 1');
      expect(role(Lab.withLogs([[], null, null], options))).toBe(waiting);
      expect(role(Lab.withLogs([[], null, null, []], options))).toBe(waiting);
      expect(role(Lab.withLogs([[], null, null, [], []], options))).toBe('leader 1');
      // Members 2 and 3 have an entry that member 1 lacks: their term counts, their log wins.
      const longer = Lab.withLogs([[], [1], [1], [1], []], options);
      expect(role(longer)).toBe(preVote ? 'follower 1' : 'follower 1');
    });

    test(`let every member become leader in turn${suffix(preVote)}`, () => {
      const lab = Lab.of(3, { preVote });
      for (const id of [1, 2, 3]) {
        lab.campaign(id);
        expect(lab.leader()).toBe(id);
      }
    });

    test(`let a member with an older tail win after a failed round and overwrite a newer uncommitted entry${suffix(preVote)}`, () => {
      // 1 led term 1, 3 led term 2 and wrote an entry only it has; 2, 4, 5 voted in both.
      const voters = [1, 2, 3, 4, 5];
      const node = (id: number, terms: number[], vote: number): LabNode =>
        new LabNode(id, { voters, terms, preVote, hardState: { term: 2, vote } });
      const lab = new Lab([node(1, [1], 3), node(2, [1], 3), node(3, [2], 3), node(4, [], 3), node(5, [], 3)]);
      lab.campaign(1);
      if (!preVote) {
        // Its term was known already: the first round only raises it.
        expect(lab.raw(1).term).toBe(3);
      }
      if (lab.raw(1).role !== 'leader') {
        lab.campaign(1);
      }
      expect(lab.leader()).toBe(1);
      const terms = lab.node(1).terms();
      expect(terms[0]).toBe(1);
      for (const id of voters) {
        expect(lab.node(id).terms()).toEqual(terms);
      }
    });

    test(`ignore a campaign of the leader${suffix(preVote)}`, () => {
      const lab = Lab.of(3, { preVote });
      lab.campaign(1);
      const { term } = lab.raw(1);
      lab.campaign(1);
      expect([lab.raw(1).role, lab.raw(1).term]).toEqual(['leader', term]);
    });

    test(`do not count an own vote that is delivered after losing${suffix(preVote)}`, () => {
      const node = new LabNode(1, { ...TRIO, preVote });
      node.raw.campaign();
      const rd = node.raw.ready();
      expect(typesOf(rd.messages)).toEqual([
        preVote ? MsgType.PreVote : MsgType.Vote,
        preVote ? MsgType.PreVote : MsgType.Vote,
      ]);
      const response = preVote ? MsgType.PreVoteResp : MsgType.VoteResp;
      for (const from of [2, 3]) {
        node.step(response, { from, term: node.raw.term === 0 ? 1 : node.raw.term, reject: true });
      }
      expect(node.raw.role).toBe('follower');
      node.raw.advance();
      expect(node.raw.role).toBe('follower');
      expect(node.progress(1).ballot).toBe(0);
    });
  }

  test('never start at a learner whose timeout passes', () => {
    const node = new LabNode(2, { voters: [1], learners: [2] });
    node.ticks(50);
    expect(node.raw.role).toBe('follower');
    expect(node.take()).toEqual([]);
  });

  test('can be won by a former learner once it is promoted on both sides', () => {
    const lab = new Lab([1, 2].map((id) => new LabNode(id, { voters: [1], learners: [2] })));
    lab.campaign(1);
    lab.changeMembers(1, { transition: 0, changes: [{ type: 0, nodeId: 2 }], context: new Uint8Array(0) });
    expect(lab.raw(2).isLearner).toBe(false);
    lab.campaign(2);
    expect(lab.leader()).toBe(2);
  });

  test('take the vote of a learner, which may have been promoted without knowing', () => {
    const node = new LabNode(2, { voters: [1], learners: [2] });
    node.step(MsgType.Vote, { from: 1, term: 2, logTerm: 11, index: 11 });
    const [answer] = node.take();
    expect(answer).toMatchObject({ type: MsgType.VoteResp, to: 1, term: 2, reject: false });
  });

  test('a higher-term vote request is granted in every role and resets role, term and vote', () => {
    for (const role of ROLES) {
      const node = inRole(role);
      const term = node.raw.term + 1;
      node.step(MsgType.Vote, { from: 2, term, logTerm: term, index: 42 });
      const answers = ofType(node.take(), MsgType.VoteResp);
      expect(answers, role).toHaveLength(1);
      expect(answers[0]).toMatchObject({ to: 2, term, reject: false });
      expect([node.raw.role, node.raw.term, node.raw.vote]).toEqual(['follower', term, 2]);
    }
  });

  test('a pre-vote request for a future term is granted in every role and changes nothing', () => {
    for (const role of ROLES) {
      const node = inRole(role);
      const before = [node.raw.role, node.raw.term, node.raw.vote];
      const term = node.raw.term + 1;
      node.step(MsgType.PreVote, { from: 2, term, logTerm: term, index: 42 });
      const answers = ofType(node.take(), MsgType.PreVoteResp);
      expect(answers[0], role).toMatchObject({ to: 2, term, reject: false });
      expect([node.raw.role, node.raw.term, node.raw.vote]).toEqual(before);
    }
  });

  test('a candidate behind a partition returns, deposes the leader and loses for its log', () => {
    const lab = Lab.of(3);
    lab.cut(1, 3);
    lab.campaign(1);
    lab.campaign(3);
    expect(lab.raw(1).role).toBe('leader');
    expect(lab.raw(3).role).toBe('candidate');
    lab.recover();
    lab.campaign(3);
    expect([lab.raw(1).role, lab.raw(1).term]).toEqual(['follower', 2]);
    expect(lab.raw(3).role).toBe('follower');
    expect(lab.node(1).log()).toEqual([[1, 1]]);
    expect(lab.node(3).log()).toEqual([]);
  });

  test('with pre-vote a candidate behind a partition does not disturb the leader', () => {
    const lab = Lab.of(3, { preVote: true });
    lab.cut(1, 3);
    lab.campaign(1);
    lab.campaign(3);
    expect(lab.raw(1).role).toBe('leader');
    lab.recover();
    lab.campaign(3);
    expect([lab.raw(1).role, lab.raw(1).term]).toEqual(['leader', 1]);
    expect([lab.raw(3).role, lab.raw(3).term]).toEqual(['follower', 1]);
  });

  test('an isolated candidate yields to a leader of its term and takes its log', () => {
    const lab = Lab.of(3);
    lab.isolate(1);
    lab.campaign(1);
    lab.campaign(3);
    lab.recover();
    lab.raw(3).ping();
    lab.settle();
    lab.propose(3, 'force follower');
    expect([lab.raw(1).role, lab.raw(1).term]).toEqual(['follower', 1]);
    expect(lab.node(1).log()).toEqual(lab.node(3).log());
  });

  test('a single voter wins its election alone', () => {
    const lab = Lab.of(1);
    lab.campaign(1);
    expect(lab.raw(1).role).toBe('leader');
  });

  test('a single voter wins its pre-election and its election alone', () => {
    const lab = Lab.of(1, { preVote: true });
    lab.campaign(1);
    expect([lab.raw(1).role, lab.raw(1).term]).toEqual(['leader', 1]);
  });

  test('the probability of a timeout grows linearly over the random range', () => {
    const draws = 10_000;
    for (const [elapsed, probability] of [
      [5, 0],
      [10, 0.1],
      [13, 0.4],
      [15, 0.6],
      [18, 0.9],
      [20, 1],
    ] as const) {
      let state = 12345;
      const node = new LabNode(1, {
        voters: [1],
        random: (n) => {
          state = (state * 1103515245 + 12345) % 2147483648;
          return Math.floor((state / 2147483648) * n);
        },
      });
      let passed = 0;
      for (let i = 0; i < draws; i++) {
        node.becomeFollower(node.raw.term);
        if (elapsed >= node.raft.randomizedElectionTimeout) {
          passed++;
        }
      }
      expect(Math.abs(passed / draws - probability), `after ${elapsed} ticks`).toBeLessThan(0.02);
    }
  });

  test('votes follow a grant table of last position, earlier vote and role', () => {
    const cases: [Role, number, number, number, boolean][] = [
      // role, index, term, earlier vote, granted
      ['follower', 0, 0, 0, false],
      ['follower', 0, 1, 0, false],
      ['follower', 0, 2, 0, false],
      ['follower', 0, 3, 0, true],
      ['follower', 1, 0, 0, false],
      ['follower', 1, 1, 0, false],
      ['follower', 1, 2, 0, false],
      ['follower', 1, 3, 0, true],
      ['follower', 2, 1, 0, false],
      ['follower', 2, 2, 0, true],
      ['follower', 2, 3, 0, true],
      ['follower', 3, 1, 0, false],
      ['follower', 3, 2, 0, true],
      ['follower', 3, 3, 0, true],
      ['follower', 3, 2, 2, true],
      ['follower', 3, 2, 1, false],
      ['leader', 3, 3, 1, false],
      ['candidate', 3, 3, 1, false],
      ['pre-candidate', 3, 3, 1, false],
    ];
    for (const [role, index, term, vote, granted] of cases) {
      const node = new LabNode(1, { voters: [1, 2], terms: [2, 2] });
      const ownTerm = Math.max(node.raft.log.lastTerm, term);
      node.becomeFollower(ownTerm);
      node.raft.vote = vote;
      node.raft.role = role;
      node.step(MsgType.Vote, { from: 2, term: ownTerm, index, logTerm: term });
      const answer = node.raft.messagesAfterAppend[0];
      expect(answer?.reject, `${role} ${index}/${term} vote ${vote}`).toBe(!granted);
    }
  });

  test('pre-votes follow a grant table of last position whatever the earlier vote', () => {
    const cases: [Role, number, number, number, boolean][] = [
      ['follower', 0, 3, 0, true],
      ['follower', 1, 2, 0, false],
      ['follower', 2, 2, 0, true],
      ['follower', 3, 2, 2, true],
      ['follower', 3, 2, 1, true],
      ['leader', 3, 3, 1, true],
      ['candidate', 3, 3, 1, true],
      ['pre-candidate', 3, 1, 1, false],
    ];
    for (const [role, index, term, vote, granted] of cases) {
      const node = new LabNode(1, { voters: [1, 2], terms: [2, 2] });
      const ownTerm = Math.max(node.raft.log.lastTerm, term);
      node.becomeFollower(ownTerm);
      node.raft.vote = vote;
      node.raft.role = role;
      node.step(MsgType.PreVote, { from: 2, term: ownTerm + 1, index, logTerm: term });
      const answer = node.raft.messagesAfterAppend[0];
      expect(answer?.reject, `${role} ${index}/${term} vote ${vote}`).toBe(!granted);
      expect(node.raft.role).toBe(role);
    }
  });

  test('only the legal transitions between roles are possible, with their term and leader', () => {
    const go: Record<Role, (node: LabNode) => void> = {
      follower: (node) => node.raft.becomeFollower(node.raw.term, 0),
      'pre-candidate': (node) => node.raft.campaign('pre-election'),
      candidate: (node) => node.raft.campaign('election'),
      leader: (node) => node.raft.becomeLeader(),
    };
    const cases: [Role, Role, boolean, number, number][] = [
      // from, to, allowed, term gained, leader
      ['follower', 'follower', true, 0, 0],
      ['follower', 'pre-candidate', true, 0, 0],
      ['follower', 'candidate', true, 1, 0],
      ['follower', 'leader', false, 0, 0],
      ['pre-candidate', 'follower', true, 0, 0],
      ['pre-candidate', 'pre-candidate', true, 0, 0],
      ['pre-candidate', 'candidate', true, 1, 0],
      ['pre-candidate', 'leader', true, 0, 1],
      ['candidate', 'follower', true, 0, 0],
      ['candidate', 'pre-candidate', true, 0, 0],
      ['candidate', 'candidate', true, 1, 0],
      ['candidate', 'leader', true, 0, 1],
      ['leader', 'follower', true, 0, 0],
      ['leader', 'pre-candidate', false, 0, 0],
      ['leader', 'candidate', false, 0, 0],
      ['leader', 'leader', true, 0, 1],
    ];
    for (const [from, to, allowed, gained, lead] of cases) {
      const node = new LabNode(1, { voters: [1] });
      node.raft.role = from;
      const { term } = node.raw;
      if (!allowed) {
        expect(() => go[to](node), `${from} to ${to}`).toThrow(RaftInvariantError);
        continue;
      }
      go[to](node);
      expect([node.raw.role, node.raw.term - term, node.raw.lead], `${from} to ${to}`).toEqual([to, gained, lead]);
    }
  });

  test('a higher-term message makes every role a follower; only an append names the leader', () => {
    for (const role of ROLES) {
      for (const type of [MsgType.Vote, MsgType.App]) {
        const node = inRole(role);
        node.step(type, {
          from: 2,
          term: 3,
          logTerm: type === MsgType.App ? 0 : 3,
          index: type === MsgType.App ? 0 : 9,
        });
        expect([node.raw.role, node.raw.term], role).toEqual(['follower', 3]);
        expect(node.raw.lead).toBe(type === MsgType.App ? 2 : 0);
      }
    }
  });

  for (const type of [MsgType.Heartbeat, MsgType.App]) {
    const name = type === MsgType.Heartbeat ? 'a heartbeat' : 'an append';
    test(`an isolated candidate rejoins as follower at the term of the leader through ${name}`, () => {
      const lab = Lab.of(3);
      lab.campaign(1);
      lab.isolate(3);
      lab.campaign(2);
      lab.campaign(1);
      lab.raw(3).campaign();
      lab.node(3).take();
      lab.recover();
      // The candidate's term may not be larger than the leader's here.
      expect(lab.raw(3).term).toBeLessThanOrEqual(lab.raw(1).term);
      lab.raw(3).step(message(type, { from: 1, to: 3, term: lab.raw(1).term }));
      lab.node(3).take();
      expect([lab.raw(3).role, lab.raw(3).term, lab.raw(3).lead]).toEqual(['follower', lab.raw(1).term, 1]);
    });
  }

  test('a delayed own pre-vote does not count in the real election, the own real vote completes the quorum', () => {
    const node = new LabNode(1, { ...TRIO, preVote: true, asyncStorageWrites: true });
    node.raw.campaign();
    const preVote = node.raw.ready().messages.at(-1);
    const ownPreVote = preVote?.responses[0];
    expect(ownPreVote).toMatchObject({ type: MsgType.PreVoteResp, to: 1, term: 1 });
    for (const from of [2, 3]) {
      node.step(MsgType.PreVoteResp, { from, term: 1 });
    }
    expect(node.raw.role).toBe('candidate');
    const own = node.raw.ready().messages.at(-1)?.responses[0];
    if (ownPreVote === undefined || own === undefined) {
      throw new Error('no own votes');
    }
    node.raw.step(ownPreVote);
    expect(node.raw.role).toBe('candidate');
    node.step(MsgType.VoteResp, { from: 2, term: 1 });
    expect(node.raw.role).toBe('candidate');
    node.raw.step(own);
    expect(node.raw.role).toBe('leader');
  });

  test('of two pre-candidates a returning lower-term member or the deposed leader wins after the leader vanished', () => {
    const lab = Lab.of(3, { preVote: true });
    lab.campaign(1);
    lab.isolate(3);
    lab.propose(1);
    lab.campaign(2);
    expect([lab.raw(1).role, lab.raw(2).role]).toEqual(['follower', 'leader']);
    lab.recover();
    lab.isolate(2);
    lab.campaign(3);
    lab.campaign(1);
    const roles = [lab.raw(1).role, lab.raw(3).role];
    expect(roles).toContain('leader');
    expect(roles).toContain('follower');
  });

  test('with pre-vote the round after a split vote succeeds', () => {
    const lab = Lab.of(3, { preVote: true });
    lab.campaign(1);
    lab.isolate(1);
    // Both pre-elections succeed before either vote arrives.
    lab.ignore(MsgType.Vote);
    lab.raw(2).campaign();
    lab.raw(3).campaign();
    lab.settle();
    expect([lab.raw(2).role, lab.raw(3).role]).toEqual(['candidate', 'candidate']);
    lab.recover();
    lab.isolate(1);
    lab.campaign(2);
    expect([lab.raw(2).role, lab.raw(3).role, lab.raw(2).term]).toEqual(['leader', 'follower', 3]);
  });

  test('a mixed pre-vote rollout with a high-term short-log member still elects', () => {
    const lab = rollout();
    lab.isolate(1);
    lab.campaign(3);
    lab.campaign(2);
    lab.campaign(3);
    lab.campaign(2);
    expect([lab.raw(2).role, lab.raw(3).role].sort()).toEqual(['follower', 'leader']);
  });

  test('a stuck high-term pre-candidate is freed by answering the heartbeat of the leader', () => {
    const lab = rollout();
    lab.campaign(3);
    expect(lab.raw(1).role).toBe('leader');
    expect(lab.raw(3).role).toBe('pre-candidate');
    lab.raw(3).step(message(MsgType.Heartbeat, { from: 1, to: 3, term: lab.raw(1).term }));
    lab.settle();
    // The answer carries the higher term: the leader steps down and the group elects again.
    expect([lab.raw(1).role, lab.raw(1).term]).toEqual(['follower', lab.raw(3).term]);
  });
});

/** Members 1 and 2 use pre-vote, 3 did not and was behind a partition: higher term, shorter log. */
function rollout(): Lab {
  const lab = new Lab([1, 2, 3].map((id) => new LabNode(id, { ...TRIO, preVote: id !== 3 })));
  lab.campaign(1);
  lab.isolate(3);
  lab.propose(1);
  lab.campaign(3);
  lab.campaign(3);
  expect(lab.raw(3).role).toBe('candidate');
  expect(lab.raw(3).term).toBeGreaterThan(lab.raw(1).term);
  const { term, vote, committed } = lab.raw(3);
  // The same disk, restarted with pre-vote on.
  const upgraded = new LabNode(3, { ...TRIO, preVote: true, storage: lab.node(3).storage });
  expect([upgraded.raw.term, upgraded.raw.vote, upgraded.raw.committed]).toEqual([term, vote, committed]);
  lab.nodes.set(3, upgraded);
  lab.recover();
  return lab;
}

describe('quorum checks and leases', () => {
  const CHECKED: NodeOptions = { checkQuorum: true };

  /** Makes the members willing to vote. */
  function expire(lab: Lab, ...ids: number[]): void {
    for (const id of ids) {
      lab.node(id).raft.electionElapsed = 10;
    }
  }

  test('responses keep a leader in office', () => {
    const node = new LabNode(1, { ...TRIO, ...CHECKED });
    node.becomeQuietLeader();
    for (let i = 0; i < 25; i++) {
      node.step(MsgType.HeartbeatResp, { from: 2, term: node.raw.term });
      node.raw.tick();
    }
    expect(node.raw.role).toBe('leader');
  });

  test('silence for an election timeout makes a leader follower', () => {
    const node = new LabNode(1, { ...TRIO, ...CHECKED });
    node.becomeQuietLeader();
    node.ticks(9);
    expect(node.raw.role).toBe('leader');
    node.ticks(1);
    expect(node.raw.role).toBe('follower');
  });

  test('a voter within its lease ignores a candidate and grants after the timeout', () => {
    const lab = Lab.of(3, CHECKED);
    expire(lab, 2);
    lab.campaign(1);
    lab.campaign(3);
    expect([lab.raw(1).role, lab.raw(3).role]).toEqual(['leader', 'candidate']);
    expire(lab, 2);
    lab.campaign(3);
    expect(lab.raw(3).role).toBe('leader');
  });

  test('fresh members vote at once, later only after the timeout', () => {
    const lab = Lab.of(3, CHECKED);
    lab.campaign(1);
    expect(lab.leader()).toBe(1);
    expire(lab, 1, 2);
    lab.campaign(3);
    expect([lab.raw(1).role, lab.raw(3).role]).toEqual(['follower', 'leader']);
  });

  test('a candidate with a too high term answers the heartbeat of the leader and the group elects again', () => {
    const lab = Lab.of(3, CHECKED);
    lab.campaign(1);
    lab.isolate(1);
    lab.campaign(3);
    lab.campaign(3);
    expect(lab.raw(2).term).toBe(1);
    expect([lab.raw(3).role, lab.raw(3).term]).toEqual(['candidate', 3]);
    lab.recover();
    lab.raw(3).step(message(MsgType.Heartbeat, { from: 1, to: 3, term: 1 }));
    lab.settle();
    expect([lab.raw(1).role, lab.raw(1).term]).toEqual(['follower', 3]);
    expire(lab, 2);
    lab.campaign(3);
    expect(lab.leader()).toBe(3);
  });

  test('a member outside its own configuration follows the leader', () => {
    const lab = new Lab([new LabNode(1, { voters: [1], ...CHECKED }), new LabNode(2, { voters: [1], ...CHECKED })]);
    expect(lab.raw(2).promotable()).toBe(false);
    lab.campaign(1);
    lab.raw(2).step(message(MsgType.Heartbeat, { from: 1, to: 2, term: 1 }));
    lab.settle();
    expect([lab.raw(2).role, lab.raw(2).lead]).toEqual(['follower', 1]);
  });

  test('delayed heartbeats make a follower campaign, whose answer deposes the leader', () => {
    const lab = Lab.of(3, CHECKED);
    lab.campaign(1);
    lab.node(3).raft.randomizedElectionTimeout = 12;
    lab.node(3).ticks(12);
    expect([lab.raw(3).role, lab.raw(3).term]).toEqual(['candidate', 2]);
    lab.node(3).take();
    lab.raw(3).step(message(MsgType.Heartbeat, { from: 1, to: 3, term: 1 }));
    lab.settle();
    expect([lab.raw(1).role, lab.raw(1).term]).toEqual(['follower', 2]);
  });

  test('with pre-vote the same delay does not disturb the leader', () => {
    const lab = Lab.of(3, { ...CHECKED, preVote: true });
    lab.campaign(1);
    lab.isolate(3);
    lab.propose(1);
    lab.recover();
    lab.campaign(3);
    expect(lab.raw(3).role).toBe('pre-candidate');
    lab.raw(3).step(message(MsgType.Heartbeat, { from: 1, to: 3, term: 1 }));
    lab.settle();
    expect(lab.raw(1).role).toBe('leader');
    expect(lab.raw(3).role).toBe('follower');
  });

  test('a pre-vote is refused within the lease and possible later', () => {
    const lab = Lab.of(3, { ...CHECKED, preVote: true });
    lab.campaign(1);
    lab.isolate(1);
    // Member 3 heard from the leader lately, member 2 too: no pre-election succeeds yet.
    lab.campaign(2);
    expect(lab.raw(2).role).toBe('pre-candidate');
    expire(lab, 3);
    lab.campaign(2);
    expect(lab.raw(2).role).toBe('leader');
  });

  test('a transfer is not held back by leases', () => {
    const node = new LabNode(2, { ...TRIO, ...CHECKED });
    node.becomeFollower(1, 1);
    node.step(MsgType.Vote, { from: 3, term: 2, context: TRANSFER_CONTEXT, index: 9, logTerm: 1 });
    expect(ofType(node.take(), MsgType.VoteResp)[0]).toMatchObject({ reject: false, term: 2 });
  });

  test('forgetting the leader makes a voter grant although quorum checks are on, and leaves term and timer alone', () => {
    const node = new LabNode(2, { ...TRIO, ...CHECKED });
    node.becomeFollower(1, 1);
    node.ticks(3);
    node.raw.forgetLeader();
    expect([node.raw.lead, node.raw.term, node.raft.electionElapsed]).toEqual([0, 1, 3]);
    node.step(MsgType.Vote, { from: 3, term: 2, index: 9, logTerm: 1 });
    expect(ofType(node.take(), MsgType.VoteResp)[0]).toMatchObject({ reject: false, term: 2 });
  });
});

describe('votes', () => {
  test('votes are refused while a leader is known, in the same term', () => {
    const node = new LabNode(2, TRIO);
    node.becomeFollower(1, 1);
    node.step(MsgType.Vote, { from: 3, term: 1, index: 9, logTerm: 1 });
    expect(ofType(node.take(), MsgType.VoteResp)[0]).toMatchObject({ reject: true, term: 1 });
  });

  test('a vote restarts the election timer, a pre-vote does not', () => {
    const node = new LabNode(2, TRIO);
    node.becomeFollower(1);
    node.ticks(5);
    node.step(MsgType.PreVote, { from: 3, term: 2, index: 9, logTerm: 1 });
    expect(node.raft.electionElapsed).toBe(5);
    node.step(MsgType.Vote, { from: 3, term: 1, index: 9, logTerm: 1 });
    expect(node.raft.electionElapsed).toBe(0);
  });
});

describe('campaign conditions', () => {
  test('a learner ignores campaign and TimeoutNow', () => {
    const node = new LabNode(2, { voters: [1], learners: [2] });
    node.becomeFollower(1);
    node.raw.campaign();
    expect(node.raw.role).toBe('follower');
    node.step(MsgType.TimeoutNow, { from: 1, term: 1 });
    expect(node.raw.role).toBe('follower');
  });

  for (const isV1 of [true, false]) {
    test(`neither timeout nor transfer starts an election while a committed ${isV1 ? 'V1' : 'V2'} change is unapplied`, () => {
      const lab = Lab.of(3);
      lab.campaign(1);
      // Member 2 commits the change but does not apply it.
      const node = lab.node(2);
      const cc = { transition: 0, changes: [{ type: 0, nodeId: 4 }], context: new Uint8Array(0) } as const;
      const raw = lab.raw(1);
      expect((isV1 ? raw.proposeConfChangeV1(cc) : raw.proposeConfChange(cc)).type).toBe('proposed');
      lab.filter = (m) => m.to !== 2 || m.commit < raw.lastIndex;
      lab.settle();
      lab.filter = () => true;
      const commit = raw.committed;
      node.raw.step(message(MsgType.Heartbeat, { from: 1, to: 2, term: 1, commit }));
      expect(node.raw.committed).toBe(commit);
      expect(node.raft.hasUnappliedConfChange()).toBe(true);
      node.raw.campaign();
      expect(node.raw.role).toBe('follower');
      node.step(MsgType.TimeoutNow, { from: 1, term: 1 });
      expect(node.raw.role).toBe('follower');
      node.drain();
      node.raw.campaign();
      expect(node.raw.role).toBe('candidate');
    });
  }

  test('only a member of its own configuration is promotable', () => {
    const cases: [number[], boolean][] = [
      [[1], true],
      [[1, 2, 3], true],
      [[], false],
      [[2, 3], false],
    ];
    for (const [voters, promotable] of cases) {
      expect(new LabNode(1, { voters }).raw.promotable(), voters.join()).toBe(promotable);
    }
  });

  test('no campaign starts before a snapshot is durable', () => {
    const node = new LabNode(1, TRIO);
    node.step(MsgType.Snap, { from: 2, term: 3, snapshot: snapshotAt(11, 2, confState([1, 2, 3])) });
    expect(node.raw.promotable()).toBe(false);
    node.ticks(40);
    expect(node.raw.role).toBe('follower');
    node.drain();
    expect(node.raw.promotable()).toBe(true);
    node.ticks(10);
    expect(node.raw.role).toBe('candidate');
  });

  test('a lower-term message never reaches the role function', () => {
    const node = new LabNode(1, TRIO);
    node.becomeFollower(2, 2);
    node.step(MsgType.App, { from: 3, term: 1, entries: [entry(1, 1)] });
    expect([node.raw.lead, node.raw.lastIndex]).toEqual([2, 0]);
  });
});
