/**
 * Every line of the behavior reference's test list (sections 23.1 to 23.6) and the test here that covers it, or the
 * reason why it does not apply. The names are checked against the sources of the tests.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const ROOT = dirname(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));

/** Number of lines per section. */
const COUNTS: Readonly<Record<string, number>> = {
  '23.1': 118,
  '23.2': 26,
  '23.3': 12,
  '23.4': 5,
  '23.5': 21,
};

type Cover = string | readonly string[] | { readonly notApplicable: string };

/** Section, first line, then one cover per line. Two lines for the plain and the pre-vote variant share a name. */
const COVERS: readonly (readonly [section: string, line: number, cover: Cover])[] = [
  ['23.1', 1, 'sit in unstable, and the own match moves only with the durable self acknowledgement'],
  ['23.1', 2, 'sending a heartbeat keeps a paused peer paused, its response ends the pause'],
  ['23.1', 3, 'three proposals to a probing peer produce one append'],
  ['23.1', 4, 'the window is limited by messages and by bytes, and acknowledgements refill it'],
  ['23.1', 5, 'beyond the uncommitted limit are dropped, an oversized one enters an empty tail, an empty one always'],
  ['23.1', 6, 'are won with a majority, undecided without answers and lost against longer logs'],
  ['23.1', 7, 'are won with a majority, undecided without answers and lost against longer logs'],
  ['23.1', 8, 'never start at a learner whose timeout passes'],
  ['23.1', 9, 'can be won by a former learner once it is promoted on both sides'],
  ['23.1', 10, 'take the vote of a learner, which may have been promoted without knowing'],
  ['23.1', 11, 'let every member become leader in turn'],
  ['23.1', 12, 'let every member become leader in turn'],
  ['23.1', 13, 'let a member with an older tail win after a failed round and overwrite a newer uncommitted entry'],
  ['23.1', 14, 'let a member with an older tail win after a failed round and overwrite a newer uncommitted entry'],
  ['23.1', 15, 'a higher-term vote request is granted in every role and resets role, term and vote'],
  ['23.1', 16, 'a pre-vote request for a future term is granted in every role and changes nothing'],
  ['23.1', 17, 'commit on all members, also across a change of leader'],
  ['23.1', 18, 'reach learners, whose match the leader tracks'],
  ['23.1', 19, 'commit alone at a single voter'],
  ['23.1', 20, 'of an old term stay uncommitted although replicated until one of the current term is (paper 5.4.2)'],
  ['23.1', 21, 'of an old term commit with the empty entry of a new leader'],
  ['23.1', 22, 'a candidate behind a partition returns, deposes the leader and loses for its log'],
  ['23.1', 23, 'with pre-vote a candidate behind a partition does not disturb the leader'],
  ['23.1', 24, 'an isolated candidate yields to a leader of its term and takes its log'],
  ['23.1', 25, 'a single voter wins its election alone'],
  ['23.1', 26, 'a single voter wins its pre-election and its election alone'],
  ['23.1', 27, 'ignores an append of an earlier term'],
  ['23.1', 28, 'are replicated if and only if a quorum is reachable'],
  ['23.1', 29, 'at a follower reach the leader'],
  ['23.1', 30, 'commits the largest index of its term that a quorum has'],
  ['23.1', 31, 'the probability of a timeout grows linearly over the random range'],
  ['23.1', 32, 'a lower-term message never reaches the role function'],
  [
    '23.1',
    33,
    'rejects a missing or different previous entry, replaces conflicts, and commits to its last new entry at most',
  ],
  ['23.1', 34, 'follows the commit index of heartbeats, never back, and answers'],
  ['23.1', 35, 'sends a lagging peer an append for each heartbeat response and none once it has everything'],
  ['23.1', 36, 'leave the queue when they are confirmed'],
  ['23.1', 37, 'the acknowledgement of one peer opens the window of that peer only'],
  ['23.1', 38, 'votes follow a grant table of last position, earlier vote and role'],
  ['23.1', 39, 'pre-votes follow a grant table of last position whatever the earlier vote'],
  ['23.1', 40, 'only the legal transitions between roles are possible, with their term and leader'],
  ['23.1', 41, 'a higher-term message makes every role a follower; only an append names the leader'],
  ['23.1', 42, 'an isolated candidate rejoins as follower at the term of the leader through '],
  ['23.1', 43, 'an isolated candidate rejoins as follower at the term of the leader through '],
  ['23.1', 44, 'do not count an own vote that is delivered after losing'],
  ['23.1', 45, 'do not count an own vote that is delivered after losing'],
  ['23.1', 46, 'a delayed own pre-vote does not count in the real election, the own real vote completes the quorum'],
  ['23.1', 47, 'ignores its own acknowledgement of an earlier term'],
  ['23.1', 48, 'responses keep a leader in office'],
  ['23.1', 49, 'silence for an election timeout makes a leader follower'],
  ['23.1', 50, 'a voter within its lease ignores a candidate and grants after the timeout'],
  ['23.1', 51, 'fresh members vote at once, later only after the timeout'],
  ['23.1', 52, 'a candidate with a too high term answers the heartbeat of the leader and the group elects again'],
  ['23.1', 53, 'a member outside its own configuration follows the leader'],
  ['23.1', 54, 'delayed heartbeats make a follower campaign, whose answer deposes the leader'],
  ['23.1', 55, 'with pre-vote the same delay does not disturb the leader'],
  ['23.1', 56, 'issued at any member return at least the commit index of their time, one answer each'],
  ['23.1', 57, 'work in a group of one voter and one learner, at both'],
  ['23.1', 58, 'by lease are answered without a round trip'],
  ['23.1', 59, 'before the first commit of the term are postponed and then answered with that commit'],
  ['23.1', 60, 'a repeated context and delayed heartbeat responses do not confirm a later read of a deposed leader'],
  ['23.1', 61, 'tells a stale rejection from a real one, takes acknowledgements, also at the match while probing'],
  ['23.1', 62, 'sends heartbeats without position, their commit capped by the match of the peer'],
  ['23.1', 63, 'is the only role that reacts to the heartbeat tick'],
  ['23.1', 64, 'next advances with what is sent while replicating and not while probing'],
  ['23.1', 65, 'a probing peer gets one append and then nothing until it answers a heartbeat'],
  ['23.1', 66, 'a replicating peer gets an append with every call'],
  ['23.1', 67, 'a peer in snapshot state gets no append'],
  ['23.1', 68, 'an unreachable report turns replicating into probing behind the match'],
  ['23.1', 69, 'takes over position, term and voters; the same one again is refused; no campaign before it is durable'],
  ['23.1', 70, 'takes over learners and their flags'],
  ['23.1', 71, 'a member of the outgoing half only accepts a joint configuration'],
  ['23.1', 72, 'a voter accepts one that makes it a learner'],
  ['23.1', 73, 'a learner accepts one that makes it a voter'],
  ['23.1', 74, 'a learner ends at the commit index of the leader'],
  ['23.1', 75, 'at or below the commit index is ignored, and moves only the commit index if its entry is in the log'],
  ['23.1', 76, 'is what a rejection below the first index leads to'],
  ['23.1', 77, 'does not happen towards an inactive peer'],
  ['23.1', 78, 'makes the sender the leader'],
  ['23.1', 79, 'a member isolated for long catches up by snapshot and then by log'],
  ['23.1', 80, 'appends it and remembers its index as pending'],
  [
    '23.1',
    81,
    'a second one is refused and reported, or becomes an empty normal entry, with the pending index unchanged',
  ],
  ['23.1', 82, 'a new leader takes its last index as pending index'],
  ['23.1', 83, 'adds a voter'],
  ['23.1', 84, 'adds, promotes and demotes learners, and the own learner flag follows'],
  ['23.1', 85, 'a new silent peer does not depose the leader at once, but after a full timeout'],
  ['23.1', 86, 'removes a voter, and removing the last one is fatal'],
  ['23.1', 87, 'removes a learner, and removing the last voter is fatal then too'],
  ['23.1', 88, 'only a member of its own configuration is promotable'],
  ['23.1', 89, 'reports voters sorted'],
  ['23.1', 90, 'ignore a campaign of the leader'],
  ['23.1', 91, 'ignore a campaign of the leader'],
  ['23.1', 92, 'that lowers the quorum commits the entry that waited for it'],
  ['23.1', 93, 'to an up-to-date member is immediate, and back again after a write'],
  ['23.1', 94, 'asked at a follower is forwarded'],
  ['23.1', 95, 'is not blocked by leases'],
  ['23.1', 96, 'to a slow member sends the log first and TimeoutNow after the acknowledgement'],
  ['23.1', 97, 'waits until a snapshot is acknowledged'],
  ['23.1', 98, 'to itself has no effect'],
  ['23.1', 99, 'to somebody who is not a member has no effect'],
  ['23.1', 100, 'is given up after an election timeout, and the leader stays'],
  ['23.1', 101, 'proposals are dropped while it is pending'],
  ['23.1', 102, 'the election of a third member ends it'],
  ['23.1', 103, 'is given up when its target is removed'],
  ['23.1', 104, 'is given up when its target is demoted through a joint change'],
  ['23.1', 105, 'one to the leader itself cancels a pending one'],
  ['23.1', 106, 'a second one to another member replaces the first'],
  ['23.1', 107, 'a second one to the same member does not extend the timeout'],
  ['23.1', 108, 'TimeoutNow at a removed member has no effect, even if votes arrive'],
  [
    '23.1',
    109,
    'of two pre-candidates a returning lower-term member or the deposed leader wins after the leader vanished',
  ],
  ['23.1', 110, 'with pre-vote the round after a split vote succeeds'],
  ['23.1', 111, 'a pre-vote is refused within the lease and possible later'],
  ['23.1', 112, 'a learner ignores campaign and TimeoutNow'],
  ['23.1', 113, 'a mixed pre-vote rollout with a high-term short-log member still elects'],
  ['23.1', 114, 'a stuck high-term pre-candidate is freed by answering the heartbeat of the leader'],
  ['23.1', 115, 'neither timeout nor transfer starts an election while a committed '],
  ['23.1', 116, 'neither timeout nor transfer starts an election while a committed '],
  ['23.1', 117, 'a rejection hint and the next probe skip whole terms on either side, for nine log shapes'],
  ['23.1', 118, 'a late rejection never moves next to or below the match (reordered messages)'],

  ['23.2', 1, ' adopts a higher term and becomes follower'],
  ['23.2', 2, ' adopts a higher term and becomes follower'],
  ['23.2', 3, ' adopts a higher term and becomes follower'],
  ['23.2', 4, 'a request of a lower term is not processed'],
  ['23.2', 5, 'a member starts as follower'],
  ['23.2', 6, 'a leader sends heartbeats to all followers at its interval'],
  ['23.2', 7, ' whose timeout passes raises its term, votes for itself and asks all others'],
  ['23.2', 8, ' whose timeout passes raises its term, votes for itself and asks all others'],
  ['23.2', 9, 'one round of answers wins, loses or leaves open the election of one, three or five members'],
  ['23.2', 10, 'a member gives one vote per term, first come first served, and repeats it'],
  ['23.2', 11, 'an append of the same or a higher term ends a candidacy'],
  ['23.2', 12, 'every timeout of the range occurs at a '],
  ['23.2', 13, 'every timeout of the range occurs at a '],
  ['23.2', 14, 'simultaneous timeouts of five '],
  ['23.2', 15, 'simultaneous timeouts of five '],
  ['23.2', 16, 'a leader appends a proposal and sends it to all with the previous position'],
  ['23.2', 17, 'an acknowledged entry is committed, handed out, and named in the next messages'],
  ['23.2', 18, 'an entry is committed by these sets of acceptors in groups of one, three and five'],
  ['23.2', 19, 'entries of earlier terms are committed together with a new one'],
  ['23.2', 20, 'a follower hands out entries in order up to the commit index of the leader'],
  ['23.2', 21, 'a follower accepts or rejects an append with index and hint'],
  ['23.2', 22, 'a follower truncates a conflicting suffix and keeps exactly the new log'],
  ['23.2', 23, 'the follower logs of figure 7 converge to the log of the leader'],
  ['23.2', 24, 'a vote request names the last entry and goes to all others'],
  ['23.2', 25, 'a voter refuses candidates with older logs'],
  ['23.2', 26, 'a leader commits by counting only entries of its own term'],

  ['23.3', 1, 'local message types from outside are refused'],
  ['23.3', 2, ' gives its entry, its configuration, its pending index and its way out'],
  ['23.3', 3, 'a joint configuration is left by the next leadership if this one is lost while applying'],
  ['23.3', 4, 'adding a member twice does not hurt a later addition'],
  ['23.3', 5, 'several waiting ones are confirmed by one round, in order'],
  ['23.3', 6, 'boot a single voter from a bootstrapped storage, step by step'],
  ['23.3', 7, 'after a restart contain the committed entries again and no hard state'],
  ['23.3', 8, 'after a restart above a snapshot contain the committed entries behind it'],
  ['23.3', 9, 'the status shows progress only at a leader'],
  ['23.3', 10, 'a pagination after a restart skips no index although storage ignores the size hint'],
  ['23.3', 11, 'a bounded log does not grow without end while a quorum is away, and applying gives the size back'],
  ['23.3', 12, 'looking does not take, taking does, and messages added meanwhile survive advance'],

  ['23.4', 1, 'remembers the index of the snapshot as pending'],
  ['23.4', 2, 'pauses replication while it is pending'],
  ['23.4', 3, 'a failure clears it and probes behind the match, paused'],
  ['23.4', 4, 'a success clears it and probes behind the snapshot, paused'],
  ['23.4', 5, 'an acknowledgement at its index resumes replication and sends the tail at once'],

  ['23.5', 1, 'finds the first entry that differs or is new'],
  ['23.5', 2, 'guesses where logs part by the term of the other side, also beyond both ends'],
  ['23.5', 3, 'calls a log up to date by its last term first, then by its length'],
  ['23.5', 4, 'appends behind its end and replaces a conflicting suffix from the first or a later entry'],
  ['23.5', 5, 'a follower append needs a matching position and commits no further than its own last entry'],
  ['23.5', 6, 'keeps terms, matching, unstable part and appends across a compaction'],
  ['23.5', 7, 'tells whether committed entries are waiting to be handed out'],
  ['23.5', 8, 'hands out committed entries that are durable or allowed to be unstable'],
  ['23.5', 9, 'pauses applying when the outstanding size reaches the limit or the batch was cut short'],
  ['23.5', 10, 'applied entries give their size back, never below zero, and end the pause'],
  ['23.5', 11, 'gives out exactly the entries that are not in storage'],
  ['23.5', 12, 'the commit index never decreases and never passes the end'],
  ['23.5', 13, 'a durability report with another index or term is ignored'],
  ['23.5', 14, 'a durability report above a snapshot is ignored below the unstable part'],
  ['23.5', 15, 'compaction leaves the rest and reports what is out of bounds'],
  ['23.5', 16, 'starts right behind a snapshot'],
  ['23.5', 17, 'slicing below the first index is compacted, beyond the last one fatal'],
  ['23.5', 18, 'knows the term of the compacted position and of every entry, and nothing else'],
  ['23.5', 19, 'an unstable snapshot hides the terms of storage'],
  ['23.5', 20, 'slices across the border of storage under one size limit, always at least one entry'],
  ['23.5', 21, 'pages concatenate to the whole slice and are filled to the limit'],
];

/** Section 23.6 and our own additions, by topic. */
const TOPICS: Readonly<Record<string, Cover>> = {
  'flow control: full window': 'a full window stops appends with entries',
  'flow control: moving window': 'an acknowledgement moves the window, an old one does not',
  'flow control: one empty append per heartbeat': 'a full window lets one empty append out per heartbeat response',
  'unstable: first index': 'begins behind its snapshot',
  'unstable: last index': 'ends behind its last entry',
  'unstable: terms': 'knows the terms of its entries and of its snapshot only',
  'unstable: restore': 'a snapshot replaces everything',
  'unstable: next entries': 'hands out each entry once',
  'unstable: next snapshot': 'hands out a snapshot once',
  'unstable: accept in progress': 'hands out each entry once',
  'unstable: stable to': 'marks entries stable by index and term',
  'unstable: truncate and append': 'truncates without touching lists that were handed out',
  'storage: term': 'knows the term of its dummy and of its entries',
  'storage: entries': 'returns entries within a size, at least one',
  'storage: last index': 'knows its last index',
  'storage: first index': 'knows its first index',
  'storage: compact': 'compacts up to and including an index',
  'storage: create snapshot': 'makes snapshots of positions in its log',
  'storage: append': 'appends, replaces a suffix, ignores what is compacted and refuses a hole',
  'storage: apply snapshot': 'takes newer snapshots only',
  'node: step and step unblock': {
    notApplicable: 'upstream tests of the channel-based wrapper with cancellation; the core here is synchronous',
  },
  'node: propose': 'name the position that tells whether they were overwritten',
  'node: forwarding disabled': 'at a follower are dropped when forwarding is disabled',
  'node: read index': 'issued at any member return at least the commit index of their time, one answer each',
  'node: read index reaches the old leader': {
    notApplicable: 'forwarding of reads over a real wrapper; the same rule is the test of reads at any member',
  },
  'node: propose conf change and duplicates': 'adding a member twice does not hurt a later addition',
  'node: block and unblock proposals': {
    notApplicable: 'blocking of the channel-based wrapper; proposals here return',
  },
  'node: propose waits for drop': 'at a candidate or without a leader are dropped',
  'node: tick and stop': { notApplicable: 'goroutine of the wrapper; a tick here is a call' },
  'node: start and restart': [
    'boot a single voter from a bootstrapped storage, step by step',
    'after a restart contain the committed entries again and no hard state',
    'after a restart above a snapshot contain the committed entries behind it',
  ],
  'node: advance': 'two in a row without advance are fatal in sync mode',
  'node: soft state equality': 'tell changes of role, leader, term, vote and commit once',
  'node: hard state equality': 'must be synced for entries, term and vote, and not for a commit index or nothing',
  'node: propose add learner': 'adds, promotes and demotes learners, and the own learner flag follows',
  'node: append pagination': 'every entry goes alone when messages may hold one only',
  'node: commit pagination, sync': 'committed entries are handed out within their size limit, in ',
  'node: commit pagination, async': 'outstanding apply work counts against the limit in async mode',
  'node: commit pagination after restart':
    'a pagination after a restart skips no index although storage ignores the size hint',
  'tracker: inflights add': 'adds at the end, also around the ring',
  'tracker: inflights free': 'frees up to an index, nothing for a smaller one',
  'tracker: inflights full': 'is full by messages or by bytes, the last one may cross the byte limit',
  'tracker: inflights reset': 'a reset forgets messages and bytes',
  'tracker: progress string': 'progress shows state, pause, snapshot, activity and window',
  'tracker: is paused': 'is paused by its flow flag while probing or replicating, always in snapshot state',
  'tracker: resume': 'an accepted rejection or acknowledgement ends the pause',
  'tracker: become probe': 'becomes probe behind its match, or behind a snapshot that was sent',
  'tracker: become replicate': 'becomes replicating behind its match',
  'tracker: become snapshot': 'waits for a snapshot with its index pending',
  'tracker: update': 'takes acknowledgements above its match only',
  'tracker: decrease': 'a rejection moves next back unless it is stale',
  'confchange: simple sequence equals one joint change':
    'simple changes one by one give the same configuration as one joint change',
  'confchange: restore round trip': 'any configuration is restored from its own description',
  'quorum: against the naive definition': 'the commit index equals the definition taken literally',
  'util: describe entry': 'entries show term, index, type and quoted payload',
  'util: limit size': 'a size limit leaves at least one entry',
  'util: local and response tables': 'the tables of local and response types are complete',
  'util: payload of an empty entry': 'an empty payload counts as nothing, an empty entry as something',
  'own: D1 crash': 'a candidate that crashed with a stalled disk cannot lead the same term twice (D1)',
  'own: advanceTicks equivalence': 'advancing many ticks equals as many single ticks',
  'own: appendCommitted idempotence': 'are appended, persisted, committed and applied in the ordinary way, once',
  'own: sync against async': 'sync and async mode commit the same log from the same inputs',
  'own: ids of ten and more': 'messages show every part that is set, ids in hexadecimal',
  'own: codec round trip with unknown fields': {
    notApplicable:
      'the wire form of messages belongs to the codec room, which tests it; the core has no encoding of messages',
  },
  '17.1 old terms by counting': 'a leader commits by counting only entries of its own term',
  '17.2 pending index of a new leader': 'a new leader takes its last index as pending index',
  '17.3 pending index of a proposal': 'appends it and remembers its index as pending',
  '17.4 auto-leave waits': 'leaving waits until every inherited entry is applied',
  '17.5 no vote while a leader is known': 'votes are refused while a leader is known, in the same term',
  '17.6 async applies only durable entries': 'entries are handed to apply only when they are durable',
  '17.7 answers to lower terms':
    'a lower-term heartbeat or append is answered only where quorum checks or pre-votes need it',
  '17.8 stale rejections while probing': 'a rejection moves next back unless it is stale',
  '17.9 sentCommit after a rejection': 'a rejection moves next back unless it is stale',
  '17.10 heartbeats record sentCommit': 'a heartbeat records the commit index it carried',
  '17.11 no snapshot to an inactive peer': 'does not happen towards an inactive peer',
  '17.12 TimeoutNow without pre-vote': 'TimeoutNow never starts a pre-election',
  '17.13 transfer resets the timer': 'restarts the timer that limits it',
  '17.14 a vote resets the timer': 'a vote restarts the election timer, a pre-vote does not',
  '17.15 fast-forward':
    'at or below the commit index is ignored, and moves only the commit index if its entry is in the log',
  '17.16 stale appends': 'does not truncate for a duplicated or overtaken append (paper 5.3)',
  '17.17 apply size pause': 'outstanding apply work counts against the limit in async mode',
  '17.18 order of self acknowledgements':
    'acknowledgements wait in the append message, the own one first, the report last',
  '17 joint commit': 'commits need both halves of a joint configuration',
  '17 learner votes': 'take the vote of a learner, which may have been promoted without knowing',
  '17 ABA term check': 'a report of an earlier term does not mark a tail durable that was replaced and came back (ABA)',
  '17 demotion staged while joint': 'a demotion is staged while joint and takes effect on leaving',
};

const FOLDERS = ['test/unit/raft', 'test/property'];

function testSources(): string {
  return FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder))
      .filter((name) => name.endsWith('.test.ts') && !name.startsWith('reference-map'))
      .map((name) => readFileSync(join(ROOT, folder, name), 'utf8')),
  ).join('\n');
}

/** All texts that name a test. */
function testNames(source: string): string[] {
  const names: string[] = [];
  for (const match of source.matchAll(/\btest(?:\.each\([^\n]*\))?\(\s*(['`])((?:\\.|(?!\1)[^\\])*)\1/g)) {
    names.push((match[2] as string).replaceAll(/\\(.)/g, '$1'));
  }
  return names;
}

describe('the behavior reference', () => {
  const names = testNames(testSources());
  const missing = (cover: Cover): string[] => {
    if (typeof cover === 'string') {
      return names.some((name) => name === cover || name.replaceAll(/\$\{[^}]*\}/g, '\u0000').includes(cover))
        ? []
        : [cover];
    }
    return 'notApplicable' in cover ? [] : cover.flatMap(missing);
  };

  test('has every numbered line mapped once', () => {
    for (const [section, count] of Object.entries(COUNTS)) {
      const lines = COVERS.filter(([s]) => s === section).map(([, line]) => line);
      expect(lines, section).toEqual(Array.from({ length: count }, (_, i) => i + 1));
    }
  });

  test('names only tests that exist', () => {
    expect(
      COVERS.flatMap(([section, line, cover]) => missing(cover).map((name) => `${section} ${line}: ${name}`)),
    ).toEqual([]);
    expect(
      Object.entries(TOPICS).flatMap(([topic, cover]) => missing(cover).map((name) => `${topic}: ${name}`)),
    ).toEqual([]);
  });

  test('gives a reason for everything that does not apply', () => {
    for (const cover of [...COVERS.map(([, , c]) => c), ...Object.values(TOPICS)]) {
      if (typeof cover === 'object' && 'notApplicable' in cover) {
        expect(cover.notApplicable.length).toBeGreaterThan(30);
      }
    }
  });
});
