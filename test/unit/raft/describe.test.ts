import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../src/base/bytes.ts';
import {
  describeEntries,
  describeEntry,
  describeHardState,
  describeMessage,
  describeProgressMap,
  describeReady,
  describeSnapshot,
  describeSoftState,
  encodeConfChangeV2,
  EntryType,
  LOCAL_APPEND_THREAD,
  LOCAL_APPLY_THREAD,
  MsgType,
} from '../../../src/raft/index.ts';
import { confChangeText, configText, messageTypeText, quoteBytes } from '../../../src/raft/log-text.ts';
import { Progress } from '../../../src/raft/progress.ts';
import { addLearner, addNode, change, confState, entry, message, removeNode, snapshotAt, updateNode } from './lab.ts';

describe('printers', () => {
  test('entries show term, index, type and quoted payload', () => {
    expect(describeEntry(entry(1, 2, 'hello\u0000'))).toBe('1/2 EntryNormal "hello\\x00"');
    expect(describeEntry(entry(1, 2))).toBe('1/2 EntryNormal ""');
    const data = encodeConfChangeV2(change([addNode(1), addLearner(2), removeNode(3), updateNode(14)]));
    expect(describeEntry({ type: EntryType.ConfChangeV2, term: 3, index: 4, data })).toBe(
      '3/4 EntryConfChangeV2 v1 l2 r3 u14',
    );
    expect(describeEntry({ type: EntryType.ConfChangeV2, term: 3, index: 4, data: utf8('') })).toBe(
      '3/4 EntryConfChangeV2',
    );
    const single = encodeConfChangeV2(change([addNode(11)]));
    expect(describeEntry({ type: EntryType.ConfChange, term: 3, index: 4, data: single })).toBe(
      '3/4 EntryConfChange v11',
    );
    expect(describeEntry({ type: EntryType.ConfChange, term: 3, index: 4, data: utf8('?') })).toContain(
      'cannot be decoded',
    );
    expect(describeEntries([entry(1, 1), entry(1, 2)])).toBe('1/1 EntryNormal ""\n1/2 EntryNormal ""\n');
  });

  test('payloads are quoted with escapes, valid UTF-8 kept', () => {
    expect(quoteBytes(utf8('a"b\\c\n\t\r'))).toBe('"a\\"b\\\\c\\n\\t\\r"');
    expect(quoteBytes(utf8('größe €😀'))).toBe('"größe €😀"');
    expect(quoteBytes(Uint8Array.of(0xff, 0x41, 0xc3, 0x7f))).toBe('"\\xffA\\xc3\\x7f"');
    expect(quoteBytes(Uint8Array.of(7, 8, 12, 11))).toBe('"\\a\\b\\f\\v"');
    expect(quoteBytes(utf8('\u200b'))).toBe('"\\u200b"');
  });

  test('messages show every part that is set, ids in hexadecimal', () => {
    const m = message(MsgType.AppResp, {
      from: 10,
      to: 255,
      term: 3,
      logTerm: 2,
      index: 9,
      reject: true,
      rejectHint: 4,
    });
    expect(describeMessage(m)).toBe('a->ff MsgAppResp Term:3 Log:2/9 Rejected (Hint: 4)');
    const snap = message(MsgType.Snap, {
      from: 1,
      to: 2,
      term: 3,
      commit: 5,
      snapshot: snapshotAt(7, 3, confState([2, 1])),
    });
    expect(describeMessage(snap)).toBe(
      '1->2 MsgSnap Term:3 Log:0/0 Commit:5\n  Snapshot: Index:7 Term:3 ConfState:Voters:[1 2] VotersOutgoing:[] Learners:[] LearnersNext:[] AutoLeave:false',
    );
    const append = message(MsgType.StorageAppend, {
      from: 1,
      to: LOCAL_APPEND_THREAD,
      vote: 11,
      entries: [entry(1, 1), entry(1, 2, 'x')],
      responses: [
        message(MsgType.StorageApplyResp, { from: LOCAL_APPLY_THREAD, to: 1, entries: [entry(1, 1)] }),
        message(MsgType.Hup, {}),
      ],
    });
    expect(describeMessage(append)).toBe(
      '1->AppendThread MsgStorageAppend Term:0 Log:0/0 Vote:11 Entries:[\n  1/1 EntryNormal ""\n  1/2 EntryNormal "x"\n] Responses:[\n' +
        '  ApplyThread->1 MsgStorageApplyResp Term:0 Log:0/0 Entries:[1/1 EntryNormal ""]\n  None->None MsgHup Term:0 Log:0/0\n]',
    );
    expect(messageTypeText(99 as MsgType)).toBe('Msg(99)');
  });

  test('states and Readies show only what changed', () => {
    expect(describeHardState({ term: 1, vote: 0, commit: 2 })).toBe('Term:1 Commit:2');
    expect(describeHardState({ term: 1, vote: 12, commit: 2 })).toBe('Term:1 Vote:12 Commit:2');
    expect(describeSoftState({ lead: 12, role: 'pre-candidate' })).toBe('Lead:12 State:StatePreCandidate');
    const empty = {
      softState: null,
      hardState: null,
      entries: [],
      snapshot: null,
      committedEntries: [],
      messages: [],
      leaderMessages: false,
      readStates: [],
      mustSync: false,
    };
    expect(describeReady(empty)).toBe('<empty Ready>');
    const full = {
      ...empty,
      softState: { lead: 1, role: 'leader' as const },
      hardState: { term: 1, vote: 1, commit: 1 },
      readStates: [{ index: 3, requestContext: Uint8Array.of(1, 2) }],
      entries: [entry(1, 2)],
      snapshot: snapshotAt(1, 1, confState([1])),
      committedEntries: [entry(1, 1)],
      messages: [message(MsgType.Heartbeat, { from: 1, to: 2, term: 1 })],
      mustSync: true,
    };
    expect(describeReady(full)).toBe(
      'Ready MustSync=true:\nLead:1 State:StateLeader\nHardState Term:1 Vote:1 Commit:1\nReadStates [{3 [1 2]}]\nEntries:\n1/2 EntryNormal ""\n' +
        `Snapshot ${describeSnapshot(full.snapshot)}\nCommittedEntries:\n1/1 EntryNormal ""\nMessages:\n1->2 MsgHeartbeat Term:1 Log:0/0\n`,
    );
  });

  test('configurations and changes name their parts', () => {
    expect(configText(confState([]))).toBe('voters=()');
    const joint = confState([1, 10], { votersOutgoing: [1, 2], learners: [3], learnersNext: [2], autoLeave: true });
    expect(configText(joint)).toBe('voters=(1 a)&&(1 2) learners=(3) learners_next=(2) autoleave');
    expect(confChangeText({ transition: 2, changes: [addNode(16)], context: utf8('c') })).toBe(
      'transition:ConfChangeTransitionJointExplicit changes:{type:ConfChangeAddNode node_id:16} context:"c"',
    );
  });

  test('progress shows state, pause, snapshot, activity and window', () => {
    const p = new Progress(11, 5, true, { maxMsgs: 1, maxBytes: 0 });
    p.match = 4;
    expect(describeProgressMap([p])).toBe('11: StateProbe match=4 next=5 learner inactive\n');
    p.recentActive = true;
    p.isLearner = false;
    p.becomeReplicate();
    p.sentEntries(2, 10);
    expect(describeProgressMap([p])).toBe('11: StateReplicate match=4 next=7 paused inflight=1[full]\n');
    p.becomeSnapshot(9);
    expect(describeProgressMap([p])).toBe('11: StateSnapshot match=4 next=10 paused pendingSnap=9\n');
  });
});
