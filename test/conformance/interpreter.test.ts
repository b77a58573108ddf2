/** The interpreter itself: file syntax, output rules and commands that the etcd-raft files here may not use. */
import { describe, expect, test } from 'vitest';
import {
  HarnessError,
  parseDirectiveLine,
  parseFile,
  runDirectives,
  unifiedDiff,
  withoutLogLines,
} from './datadriven.ts';
import { confChangeHandler } from './confchange-files.ts';
import { InteractionEnv } from './interaction-files.ts';
import { quorumHandler } from './quorum-files.ts';

/** Runs a script and returns the outputs of its directives. */
function outputs(script: string, showLog = true): string[] {
  const env = new InteractionEnv({ random: () => 0, showLog });
  return parseFile(script).map((d) => env.handle(d));
}

const directives = (...lines: string[]): string => lines.map((line) => `${line}\n----\n\n`).join('');

const lastOutput = (...lines: string[]): string => outputs(directives(...lines)).at(-1) ?? '';

describe('the file syntax', () => {
  test('separates directives, input and expectation', () => {
    const file = '# comment\n\ncmd a b=1\nin put\nmore\n----\n  out\nput\n\n   # another\nnext\n----\nlast line';
    expect(parseFile(file)).toEqual([
      {
        line: 3,
        text: 'cmd a b=1',
        command: 'cmd',
        args: [
          { key: 'a', values: [] },
          { key: 'b', values: ['1'] },
        ],
        input: 'in put\nmore',
        expected: '  out\nput\n',
      },
      { line: 11, text: 'next', command: 'next', args: [], input: '', expected: 'last line\n' },
    ]);
  });

  test('joins continued lines and reads expectations with blank lines', () => {
    const [a, b] = parseFile('cmd x \\\n  y=2\n----\n----\none\n\ntwo\n----\n----\n\nsecond\n----\nok\n');
    expect(a?.text).toBe('cmd x  y=2');
    expect(a?.args.map((arg) => arg.key)).toEqual(['x', 'y']);
    expect(a?.expected).toBe('one\n\ntwo\n');
    expect(b?.command).toBe('second');
  });

  test('takes a directive without output', () => {
    expect(parseFile('a\n----\n\nb\n----\n')).toMatchObject([{ expected: '' }, { expected: '' }]);
    expect(parseFile('subtest one\n\na\n----\nok\n').map((d) => d.command)).toEqual(['subtest', 'a']);
  });

  test('reads values with parentheses, spaces and nothing', () => {
    expect(parseDirectiveLine('c k= l m=(1, 2,3) n=(a (b, c),  d) o="x').args).toEqual([
      { key: 'k', values: [''] },
      { key: 'l', values: [] },
      { key: 'm', values: ['1', '2', '3'] },
      { key: 'n', values: ['a (b, c)', 'd'] },
      { key: 'o', values: ['"x'] },
    ]);
  });

  test('refuses what is malformed', () => {
    expect(() => parseDirectiveLine('c k=(1, 2')).toThrow(HarnessError);
    expect(() => parseDirectiveLine('c =1')).toThrow(HarnessError);
    expect(() => parseFile('cmd\ninput without end\n')).toThrow(HarnessError);
    expect(() => parseFile('cmd\n----\n----\nno end\n')).toThrow(HarnessError);
  });
});

describe('comparison', () => {
  test('reports the first difference with its line and stops', () => {
    const seen: string[] = [];
    const mismatch = runDirectives(parseFile('a\n----\nx\n\nb\n----\ny\n\nc\n----\nz\n'), (d) => {
      seen.push(d.command);
      return d.command === 'b' ? 'other' : d.command === 'a' ? 'x' : 'z';
    });
    expect(mismatch).toEqual({ line: 5, directive: 'b', expected: 'y\n', actual: 'other\n' });
    expect(seen).toEqual(['a', 'b']);
  });

  test('turns a failure of the core into a difference', () => {
    const mismatch = runDirectives(parseFile('a\n----\nok\n'), () => {
      throw new Error('broken');
    });
    expect(mismatch?.actual).toBe('Error: broken\n');
  });

  test('shows a unified diff', () => {
    expect(unifiedDiff('a\nb\nc\n', 'a\nx\nc\n')).toBe('--- expected\n+++ actual\n@@ -1 +1 @@\n a\n-b\n+x\n c\n ');
  });

  test('leaves out log lines in behavioral mode', () => {
    expect(withoutLogLines('INFO 1 a\n  DEBUG b\n> 1 handling Ready\n')).toBe('> 1 handling Ready\n');
    expect(withoutLogLines('WARN x\n')).toBe('ok\n');
  });
});

describe('output rules', () => {
  test('a command without output prints ok', () => {
    expect(lastOutput('log-level none', 'add-nodes 1 voters=(1) index=2')).toBe('ok');
    expect(lastOutput('log-level info')).toBe('ok');
    expect(lastOutput('_breakpoint')).toBe('ok');
  });

  test('an error stands alone at level none and behind the output otherwise', () => {
    expect(lastOutput('log-level none', 'nonsense')).toBe('unknown command');
    expect(lastOutput('log-level loud')).toBe('log levels must be either of [DEBUG INFO WARN ERROR FATAL NONE]');
    const dropped = outputs(directives('add-nodes 1 voters=(1) index=2', 'propose 1 x'));
    expect(dropped.at(-1)).toBe('INFO 1 no leader at term 0; dropping proposal\nraft proposal dropped');
  });

  test('levels filter log lines only', () => {
    const out = outputs(
      directives('log-level warn', 'add-nodes 1 voters=(1) index=2', 'campaign 1', 'process-ready 1'),
    );
    expect(out[1]).toBe('ok');
    expect(out[3]).toContain('Ready MustSync=true:\nLead:0 State:StateCandidate\n');
    expect(out[3]).not.toContain('INFO');
  });

  test('a Ready of one node has no header, of several nodes one each, indented with its log lines', () => {
    const script = ['add-nodes 2 voters=(1,2) index=2', 'campaign 1'];
    expect(lastOutput(...script, 'process-ready 1')).toMatch(/^Ready MustSync=true:\n/);
    const both = lastOutput(...script, 'process-ready 1 2');
    expect(both).toMatch(/^> 1 handling Ready\n {2}Ready MustSync=true:\n/);
    expect(both).toContain('\n  INFO 1 received MsgVoteResp from 1 at term 1\n');
    expect(both).toMatch(/> 2 handling Ready\n {2}<empty Ready>\n$/);
  });
});

describe('commands', () => {
  test('add-nodes checks its arguments', () => {
    expect(lastOutput('add-nodes 1 voters=(1) index=1')).toBe('index must be specified as > 1 due to bootstrap');
    expect(lastOutput('add-nodes 1 read-only=fast')).toBe('invalid read-only option "fast"');
    expect(() => lastOutput('add-nodes 1 colour=red')).toThrow(HarnessError);
    expect(lastOutput('add-nodes 1 voters=(1) index=2 prevote=true checkquorum=true content=abc')).toContain(
      'newRaft 1',
    );
  });

  test('threads without work say so', () => {
    const one = 'add-nodes 1 voters=(1) index=2 async-storage-writes=true';
    expect(lastOutput(one, 'process-append-thread 1')).toBe('no append work to perform');
    expect(lastOutput(one, 'process-apply-thread 1')).toBe('no apply work to perform');
  });

  test('a single thread id prints without header', () => {
    const out = lastOutput(
      'add-nodes 1 voters=(1) index=2 async-storage-writes=true',
      'campaign 1',
      'process-ready 1',
      'process-append-thread 1',
    );
    expect(out).toBe(
      'Processing:\n1->AppendThread MsgStorageAppend Term:1 Log:0/0 Commit:2 Vote:1\n' +
        'Responses:\n1->1 MsgVoteResp Term:1 Log:0/0\n',
    );
  });

  test('deliver-msgs reports nothing to do, drops, and keeps local messages when dropping', () => {
    const start = ['add-nodes 2 voters=(1,2) index=2 async-storage-writes=true', 'campaign 1', 'process-ready 1'];
    expect(lastOutput('add-nodes 1 voters=(1) index=2', 'deliver-msgs 1')).toBe('no messages\n');
    expect(lastOutput(...start, 'deliver-msgs drop=(2)')).toBe('dropped: 1->2 MsgVote Term:1 Log:1/2\n');
    expect(lastOutput(...start, 'process-append-thread 1', 'deliver-msgs drop=(1)')).toBe('no messages\n');
    expect(lastOutput(...start, 'deliver-msgs 2 type=MsgHeartbeat')).toBe('no messages\n');
    expect(() => lastOutput(...start, 'deliver-msgs 2 drop=(2)')).toThrow(HarnessError);
    expect(() => lastOutput(...start, 'deliver-msgs 2 type=MsgNone')).toThrow(HarnessError);
  });

  test('a response from a stranger is an error line', () => {
    const out = lastOutput(
      'add-nodes 2 voters=(1,2) index=2',
      'add-nodes 1',
      'campaign 1',
      'stabilize 1 2',
      'send-snapshot 1 3',
      'deliver-msgs 3',
    );
    expect(out).toContain('attempted to restore snapshot but it is not in the ConfState');
    const refused = lastOutput(
      'add-nodes 2 voters=(1,2) index=2',
      'add-nodes 1',
      'campaign 1',
      'stabilize 1 2 log-level=none',
      'send-snapshot 1 3',
      'deliver-msgs 3',
      'process-ready 3',
      'deliver-msgs 1',
    );
    expect(refused).toContain('raft: cannot step as peer not found\n');
  });

  test('propose-conf-change checks tokens, transition and form', () => {
    const propose = (line: string, input: string): string =>
      outputs(`add-nodes 1 voters=(1) index=2\n----\n\n${line}\n${input}\n----\n\n`).at(-1) ?? '';
    expect(propose('propose-conf-change 1 transition=slow', 'v2')).toBe('unknown transition slow');
    expect(propose('propose-conf-change 1 speed=slow', 'v2')).toBe('unknown command speed');
    expect(propose('propose-conf-change 1', 'v')).toBe('unknown token v');
    expect(propose('propose-conf-change 1', 'x2')).toBe('unknown input: x2');
    expect(propose('propose-conf-change 1', 'vx')).toBe('strconv.ParseUint: parsing "x": invalid syntax');
    const message = 'v1 conf change can only have one operation and no transition';
    expect(propose('propose-conf-change 1 v1=true', 'v2 v3')).toBe(message);
    expect(propose('propose-conf-change 1 v1=true transition=explicit', 'v2')).toBe(message);
    expect(propose('propose-conf-change 1 transition=auto', 'v2')).toContain('raft proposal dropped');
  });

  test('an implicit change of one voter is entered and left by itself', () => {
    const script =
      'log-level none\n----\n\nadd-nodes 1 voters=(1) index=2\n----\n\nadd-nodes 1\n----\n\ncampaign 1\n----\n\nstabilize\n----\n\n' +
      'propose-conf-change 1 transition=implicit\nl2\n----\n\nlog-level info\n----\n\nstabilize 1\n----\n\n';
    const out = outputs(script).at(-1);
    expect(out).toContain('INFO 1 switched to configuration voters=(1)&&(1) learners=(2) autoleave');
    expect(out).toContain(
      'INFO initiating automatic transition out of joint configuration voters=(1)&&(1) learners=(2) autoleave',
    );
    expect(out).toContain('INFO 1 switched to configuration voters=(1) learners=(2)\n');
  });

  test('raft-log, compact, raft-state, status and report-unreachable print what they find', () => {
    const start = ['log-level none', 'add-nodes 2 voters=(1,2) index=2', 'campaign 1', 'stabilize', 'log-level debug'];
    expect(lastOutput('log-level none', 'add-nodes 1', 'log-level debug', 'raft-log 1')).toBe(
      'log is empty: first index=1, last index=0',
    );
    expect(lastOutput(...start, 'raft-log 1')).toBe('1/3 EntryNormal ""\n');
    expect(lastOutput(...start, 'compact 1 3')).toBe('log is empty: first index=4, last index=3');
    expect(lastOutput(...start, 'compact 1 2')).toBe('requested index is unavailable due to compaction');
    expect(lastOutput(...start, 'raft-state')).toBe(
      '1: StateLeader (Voter) Term:1 Lead:1\n2: StateFollower (Voter) Term:1 Lead:1\n',
    );
    expect(lastOutput(...start, 'status 1')).toBe(
      '1: StateReplicate match=3 next=4\n2: StateReplicate match=3 next=4\n',
    );
    expect(lastOutput(...start, 'status 2')).toBe('ok');
    expect(lastOutput(...start, 'report-unreachable 1 2')).toBe(
      'DEBUG 1 failed to send message to 2 because it is unreachable [StateProbe match=3 next=4]\n',
    );
    expect(lastOutput(...start, 'report-unreachable 1')).toBe(
      'must specify exactly two node indexes: node on which to report, and reported node',
    );
  });

  test('ids of ten and more are hexadecimal in messages and decimal in states', () => {
    const ids = Array.from({ length: 11 }, (_, i) => i + 1);
    const out = outputs(
      directives(`add-nodes 11 voters=(${ids.join(',')}) index=2`, 'campaign 10', 'process-ready 10', 'raft-state'),
    );
    expect(out[0]).toContain('switched to configuration voters=(1 2 3 4 5 6 7 8 9 a b)');
    expect(out[0]).toContain('newRaft b [peers: [1,2,3,4,5,6,7,8,9,a,b], term: 0');
    expect(out[2]).toContain('a->b MsgVote Term:1 Log:1/2');
    expect(out[2]).toContain('HardState Term:1 Vote:10 Commit:2');
    expect(out[3]).toContain('\n10: StateCandidate (Voter) Term:1 Lead:0\n11: StateFollower (Voter) Term:0 Lead:0\n');
  });

  test('a lease-based node keeps its leader when told to forget it', () => {
    const out = lastOutput(
      'log-level none',
      'add-nodes 2 voters=(1,2) index=2 checkquorum=true read-only=lease-based',
      'campaign 1',
      'stabilize',
      'log-level debug',
      'forget-leader 2',
    );
    expect(out).toBe('ERROR ignoring MsgForgetLeader due to ReadOnlyLeaseBased\n');
  });
});

describe('confchange files', () => {
  const run = (script: string): string[] => {
    const handle = confChangeHandler();
    return parseFile(script).map(handle);
  };

  test('count the index with every directive, also a failed one', () => {
    const [a, b, c] = run('simple\nv1\n----\n\nsimple\nv2 v3\n----\n\nsimple\nv2\n----\n\n');
    expect(a).toBe('voters=(1)\n1: StateProbe match=0 next=1\n');
    expect(b).toBe('more than one voter changed without entering joint config\n');
    expect(c).toBe('voters=(1 2)\n1: StateProbe match=0 next=1\n2: StateProbe match=0 next=2\n');
  });

  test('print errors and unknown input', () => {
    expect(run('leave-joint\nv1\n----\n\n')[0]).toBe('this command takes no input\n');
    expect(run('leave-joint\n----\n\n')[0]).toBe("can't leave a non-joint config\n");
    expect(run('enter-joint\n----\n\n')[0]).toBe("can't make a zero-voter config joint\n");
    expect(run('simple\nl1\n----\n\n')[0]).toBe('removed all voters\n');
    expect(run('simple\nq1\n----\n\n')[0]).toBe('unknown input: q1');
    expect(run('dance\n----\n\n')[0]).toBe('unknown command');
  });

  test('demote through the joint configuration, also when staged while already joint', () => {
    const out = run(
      'simple\nv1\n----\n\nenter-joint autoleave=true\nv2 v3 l1\n----\n\nenter-joint\nv4\n----\n\nsimple\nv4\n----\n\nleave-joint\n----\n\n',
    );
    expect(out[1]).toBe(
      'voters=(2 3)&&(1) learners_next=(1) autoleave\n1: StateProbe match=0 next=1\n2: StateProbe match=0 next=1\n3: StateProbe match=0 next=1\n',
    );
    expect(out[2]).toBe('config is already joint\n');
    expect(out[3]).toBe("can't apply simple config change in joint config\n");
    expect(out[4]).toBe(
      'voters=(2 3) learners=(1)\n1: StateProbe match=0 next=1 learner\n2: StateProbe match=0 next=1\n3: StateProbe match=0 next=1\n',
    );
  });
});

describe('quorum files', () => {
  const run = (line: string): string => quorumHandler()(parseFile(`${line}\n----\n`)[0] as never);

  test('describe a majority and its commit index', () => {
    expect(run('committed cfg=(1,2,3) idx=(100,_,101)')).toBe(
      '       idx\nx>     100    (id=1)\n?        0    (id=2)\nxx>    101    (id=3)\n100\n',
    );
    expect(run('committed')).toBe('<empty majority quorum>∞\n');
  });

  test('take the smaller half of a joint quorum and give shared ids one value', () => {
    expect(run('committed cfg=(1,2,3) cfgj=(3,4) idx=(5,6,7,2)')).toContain('\n2\n');
    expect(run('committed cfg=(1) cfgj=zero idx=(5)')).toBe('     idx\n>      5    (id=1)\n5\n');
    expect(run('vote cfg=(1,2,3) cfgj=(3,4) votes=(y,y,_,y)')).toBe('VotePending\n');
    expect(run('vote cfg=(1,2) votes=(y,n)')).toBe('VoteLost\n');
  });

  test('report a wrong number of values', () => {
    expect(run('committed cfg=(2,1) idx=(5)')).toBe(
      'error: mismatched input (explicit or _) for voters map[1:{} 2:{}]: [5]',
    );
    expect(run('vote cfg=(1,2) votes=(y,n,_)')).toBe(
      'error: mismatched input (explicit or _) for voters map[1:{} 2:{}]: [2 1 0]',
    );
  });
});
