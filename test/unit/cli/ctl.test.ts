import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { utf8 } from '../../../src/base/bytes.ts';
import { SILENT_LOGGER } from '../../../src/env/log.ts';
import { realClock } from '../../../src/env/real/index.ts';
import { createRng } from '../../../src/env/rng.ts';
import type { adminMethods } from '../../../src/rpc/services.ts';
import { type OperatorInfo, type StoreInfo, storeInfoFromWire } from '../../../src/client/admin-wire.ts';
import * as clientErrors from '../../../src/client/errors.ts';
import { ERROR_CODES } from '../../../src/cli/ctl/error-catalogue.ts';
import { OperatorDisplay, operatorPicture } from '../../../src/cli/ctl/operator-watch.ts';
import { formatAge } from '../../../src/cli/text-form.ts';
import { drainLine } from '../../../src/cli/ctl/store-commands.ts';
import { FakeNet } from '../client/fake-net.ts';
import { CANCELED, DONE, FakeAdmin, RUNNING, type RequestOf, TIMED_OUT, store } from './fake-admin.ts';
import { MemorySink, connectorOf, runWith } from './harness.ts';

const READS: readonly (readonly string[])[] = [
  ['ctl', 'status'],
  ['ctl', 'pd', 'member', 'list'],
  ['ctl', 'check'],
  ['ctl', 'store', 'list'],
  ['ctl', 'store', 'show', '1'],
  ['ctl', 'region', 'list'],
  ['ctl', 'region', 'show', '2'],
  ['ctl', 'region', 'locate', 'x'],
  ['ctl', 'region', 'siblings', '4'],
  ['ctl', 'region', 'top', '--by', 'keys'],
  ['ctl', 'region', 'holes'],
  ['ctl', 'operator', 'list'],
  ['ctl', 'operator', 'list', '--ended'],
  ['ctl', 'operator', 'show', '95'],
  ['ctl', 'events'],
  ['ctl', 'rule', 'list'],
  ['ctl', 'rule', 'get', 'default/ssd'],
  ['ctl', 'rule', 'set', 'ssd', '--role', 'voter', '--count', '3', '--where', 'disk = ssd', '--dry-run'],
  ['ctl', 'rule', 'delete', 'ssd', '--yes'],
  ['ctl', 'switch', 'list'],
  ['ctl', 'scheduler', 'list'],
  ['ctl', 'scheduler', 'pause', 'merge-checker', '--for', '10m'],
  ['ctl', 'scheduler', 'resume', 'merge-checker'],
  ['ctl', 'region', 'pause', '2', '--for', '10m', '--reason', 'disk check'],
  ['ctl', 'region', 'resume', '2'],
  ['ctl', 'explain', 'code'],
  ['ctl', 'explain', 'region', '2'],
  ['ctl', 'explain', 'scheduler', 'balance-leader'],
  ['ctl', 'store', 'drain', '2', '--dry-run'],
  ['ctl', 'store', 'drain', '2', '--yes', '--detach'],
  ['ctl', 'store', 'cancel-drain', '2'],
  ['ctl', 'store', 'remove', '2', '--yes'],
  ['ctl', 'store', 'label', '2', 'zone=a'],
  ['ctl', 'store', 'weight', '2', '--leader', '2'],
  ['ctl', 'store', 'limit', '2', 'default'],
  ['ctl', 'store', 'evict-leaders', '2'],
];

describe('every reading command', () => {
  test.each(READS.map((args) => [args.join(' '), args] as const))('%s works in every mode', async (_, args) => {
    const admin = new FakeAdmin();
    const json = await admin.run([...args, '-o', 'json']);
    expect(json.code).toBe(0);
    const document = JSON.parse(json.stdout) as Record<string, unknown>;
    expect(document).toMatchObject({
      apiVersion: 'braid/v1',
      kind: expect.stringMatching(/^[A-Z][A-Za-z]+$/) as string,
    });
    const yaml = await admin.run([...args, '-o', 'yaml']);
    expect(parse(yaml.stdout)).toEqual(document);
    const table = await admin.run(args);
    expect(table.stdout).toMatch(/^ *[A-Z]/);
    expect(table.stdout).not.toMatch(/ \n/);
    const wide = await admin.run([...args, '-o', 'wide', '--no-headers']);
    expect(wide.code).toBe(0);
    const lines = await admin.run([...args, '-o', 'jsonl']);
    for (const line of lines.stdout.split('\n').filter((text) => text !== '')) {
      expect(JSON.parse(line)).toBeTypeOf('object');
    }
  });
});

describe('ctl rule', () => {
  test('set sends every field, and says what will follow', async () => {
    const admin = new FakeAdmin();
    const args = [
      'ctl',
      'rule',
      'set',
      'tenants/a',
      '--start',
      'a',
      '--end',
      'f',
      '--role',
      'follower',
      '--count',
      '2',
    ];
    const more = [
      '--where',
      'zone in x,y',
      '--where',
      'disk not-in hdd',
      '--where',
      'ssd exists',
      '--isolation',
      'zone',
    ];
    const last = [
      '--location-labels',
      'zone,host',
      '--index',
      '3',
      '--override',
      '--expect-version',
      '0',
      '--reason',
      'r',
    ];
    const { code, stderr } = await admin.run([...args, ...more, ...last]);
    expect(code).toBe(0);
    expect(stderr).toContain('placement rule tenants/a was created: 1 regions are split, replicas of 2 regions change');
    expect(admin.changes).toMatchObject([
      {
        dryRun: false,
        expectVersion: 0,
        reason: 'r',
        rule: {
          group: 'tenants',
          id: 'a',
          start: utf8('a'),
          end: utf8('f'),
          role: 'follower',
          count: 2,
          constraints: [
            { key: 'zone', op: 'in', values: ['x', 'y'] },
            { key: 'disk', op: 'not-in', values: ['hdd'] },
            { key: 'ssd', op: 'exists', values: [] },
          ],
          isolationLevel: 'zone',
          locationLabels: ['zone', 'host'],
          index: 3,
          override: true,
        },
      },
    ]);
  });

  test.each([
    [['set', 'a/b/c', '--role', 'voter', '--count', '1'], 'is not the name of a rule'],
    [['set', 'a', '--count', '1'], 'the role of the rule is missing'],
    [['set', 'a', '--role', 'voter'], 'the count of the rule is missing'],
    [['set', 'a', '--role', 'voter', '--count', '1', '--where', 'zone'], 'is not a condition on labels'],
    [['set', 'a', '--role', 'voter', '--count', '1', '--where', 'zone exists x'], 'is not a condition on labels'],
    [['set', 'a', '--role', 'chief', '--count', '1'], 'Allowed words are leader, voter, follower, learner'],
  ])('rule %j is a mistake of the caller', async (args, message) => {
    const admin = new FakeAdmin();
    const { code, stderr } = await admin.run(['ctl', 'rule', ...args]);
    expect([code, admin.changes]).toEqual([1, []]);
    expect(stderr).toContain(message);
  });

  test('a refusal has three lines and its exit code; a rule that is not there is the answer no', async () => {
    const admin = new FakeAdmin();
    admin.refuse = 'NoVoterRule';
    const { code, stderr } = await admin.run(['ctl', 'rule', 'set', 'a', '--role', 'learner', '--count', '1']);
    expect(code).toBe(3);
    expect(stderr.trimEnd().split('\n')).toHaveLength(3);
    expect((await admin.run(['ctl', 'rule', 'get', 'none'])).code).toBe(5);
  });

  test('delete asks first, and a dry run changes nothing', async () => {
    const admin = new FakeAdmin();
    expect((await admin.run(['ctl', 'rule', 'delete', 'default/ssd'])).code).toBe(1);
    expect((await admin.run(['ctl', 'rule', 'delete', 'default/ssd', '--dry-run'])).code).toBe(0);
    expect(admin.changes).toMatchObject([{ dryRun: true }, { dryRun: true }]);
    expect((await admin.run(['ctl', 'rule', 'delete', 'default/ssd', '--yes'])).code).toBe(0);
    expect(admin.changes.at(-1)).toMatchObject({ dryRun: false, group: 'default', id: 'ssd' });
  });
});

describe('completion', () => {
  test.each(['bash', 'zsh', 'fish'])('prints a script for %s that asks the program', async (shell) => {
    const { code, stdout } = await new FakeAdmin().run(['ctl', 'completion', shell]);
    expect(code).toBe(0);
    expect(stdout).toContain('braid __complete --');
  });

  test('knows no other shell', async () => {
    expect(await new FakeAdmin().run(['ctl', 'completion', 'tcsh'])).toMatchObject({ code: 1, stdout: '' });
  });

  test.each([
    [['ctl', 'sto'], ['store']],
    [['ctl', 'store', 'd'], ['drain']],
    [
      ['ctl', 'store', 'show', ''],
      ['1', '2', '3'],
    ],
    [
      ['ctl', 'region', 'move', '2', '--from', ''],
      ['1', '2', '3'],
    ],
    [
      ['ctl', 'region', 'merge', '2', ''],
      ['2', '4'],
    ],
    [['ctl', 'switch', 'on', 'mer'], ['merge-checker']],
    [['ctl', 'scheduler', 'pause', 'mer'], ['merge-checker']],
    [
      ['ctl', 'checker', 'pause', ''],
      ['merge-checker', 'learner-checker'],
    ],
    [
      ['ctl', 'scheduler', 'config', 'hot-region', ''],
      ['ratio=', 'min-rate='],
    ],
    [['ctl', 'scheduler', 'config', 'hot-region', 'ratio=2', 'm'], ['min-rate=']],
    [
      ['ctl', 'region', 'pause', ''],
      ['2', '4'],
    ],
    [['ctl', 'store', 'list', '--no-h'], ['--no-headers']],
    [
      ['ctl', 'store', 'list', '-o', 'js'],
      ['json', 'jsonl'],
    ],
    [['nonsense', ''], []],
  ])('of %j offers %j', async (words, expected) => {
    const { code, stdout } = await new FakeAdmin().run(['__complete', '--', ...words]);
    expect(code).toBe(0);
    expect(stdout.split('\n').filter((word) => word !== '')).toEqual(expected);
  });

  test('offers nothing live when no cluster answers', async () => {
    const env = { clock: realClock(), rng: createRng(1), net: new FakeNet(realClock()), log: SILENT_LOGGER };
    const { code, stdout, stderr } = await runWith(connectorOf(env, 'nobody:1'), [
      '__complete',
      '--',
      'ctl',
      'store',
      'show',
      '',
    ]);
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: '', stderr: '' });
  });
});

describe('--watch', () => {
  test('prints again what changed, until the deadline', async () => {
    const admin = new FakeAdmin();
    const change = setTimeout(() => {
      admin.problems = [{ code: 'StoreDown', message: 'store 2 is down', hint: 'start it', storeId: 2, regionId: 0 }];
    }, 300);
    const { code, stdout } = await admin.run(['ctl', 'check', '--watch', '-o', 'yaml', '--timeout', '2500ms']);
    clearTimeout(change);
    expect(code).toBe(0);
    const documents = stdout.split('---\n').map((text) => parse(text) as { healthy: boolean });
    expect(documents.map((one) => one.healthy)).toEqual([true, false]);
  });

  test('ends with the exit code of a question that is refused', async () => {
    expect((await new FakeAdmin().run(['ctl', 'store', 'show', '9', '-w', '--timeout', '2s'])).code).toBe(5);
  });
});

describe('changing stores', () => {
  test('draining asks first: without a terminal and --yes nothing is sent but the dry run', async () => {
    const admin = new FakeAdmin();
    const { code, stderr } = await admin.run(['ctl', 'store', 'drain', '2']);
    expect(code).toBe(1);
    expect(stderr).toContain('--yes');
    expect(admin.storeChanges).toMatchObject([{ storeId: 2, dryRun: true }]);
  });

  test('draining waits, shows progress and an estimate, and ends when the store is removed', async () => {
    const admin = new FakeAdmin();
    const { code, stdout } = await admin.run(['ctl', 'store', 'drain', '2', '--yes', '-o', 'json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ kind: 'Store', id: 2 });
    expect(admin.storeChanges).toMatchObject([
      { storeId: 2, dryRun: true },
      { storeId: 2, dryRun: false },
    ]);
    const now = 1_700_000_100_000;
    const at: StoreInfo = {
      ...storeInfoFromWire(store(2)),
      regionCount: 30,
      removal: { sinceUnixMs: now - 60_000, peers: 120, sizeBytes: 1 },
    };
    expect(drainLine(at, now)).toBe(
      `store 2: 30 of 120 replicas left, 75 % done in ${formatAge(60_000)}, about ${formatAge(20_000)} left`,
    );
    expect(drainLine({ ...at, regionCount: 120 }, now)).toContain('no estimate yet');
    expect(drainLine({ ...at, state: 'removed' }, now)).toContain('removed');
  });

  test('refusals have their exit code and change nothing', async () => {
    const admin = new FakeAdmin();
    admin.refuse = 'TooFewStores';
    const { code, stderr } = await admin.run(['ctl', 'store', 'drain', '2', '--yes']);
    expect(code).toBe(3);
    expect(stderr).toContain('TooFewStores');
    expect(admin.storeChanges).toHaveLength(1);
    expect((await admin.run(['ctl', 'store', 'cancel-drain', '9'])).code).toBe(3);
  });

  test('settings are sent as given; what makes no sense is not sent', async () => {
    const admin = new FakeAdmin();
    await admin.run(['ctl', 'store', 'label', '1', 'zone=a', 'rack=', '--replace']);
    await admin.run(['ctl', 'store', 'weight', '1', '--region', '0.5']);
    await admin.run(['ctl', 'store', 'limit', '1', '0']);
    await admin.run(['ctl', 'store', 'evict-leaders', '1', '--off']);
    expect(admin.storeChanges).toMatchObject([
      {
        storeId: 1,
        replaceLabels: true,
        labels: [
          { key: 'zone', value: 'a' },
          { key: 'rack', value: '' },
        ],
      },
      { storeId: 1, regionWeight: 0.5 },
      { storeId: 1, limitPerMinute: 0, clearLimit: false },
      { storeId: 1, leadersEvicted: false },
    ]);
    for (const args of [
      ['label', '1', 'zone'],
      ['label', '1'],
      ['weight', '1'],
      ['weight', '1', '--leader', '-1'],
      ['limit', '1', 'many'],
      ['drain', '1', '--wait', '--detach'],
    ]) {
      expect((await admin.run(['ctl', 'store', ...args])).code, args.join(' ')).toBe(1);
    }
    expect(admin.storeChanges).toHaveLength(4);
  });

  test('an explanation with a refusal answers no', async () => {
    const admin = new FakeAdmin();
    const { code, stdout } = await admin.run(['ctl', 'explain', 'store', '1']);
    expect(code).toBe(5);
    expect(stdout).toContain('StoreBusy');
    expect((await admin.run(['ctl', 'explain', 'scheduler', 'nonsense'])).code).toBe(5);
  });
});

describe('members of the placement service', () => {
  test('are listed with who leads and who is silent', async () => {
    const { stdout } = await new FakeAdmin().run(['ctl', 'pd', 'member', 'list']);
    expect(stdout).toBe(
      [
        'NAME     ID   URL            STATE      VOTER   LAG',
        'pd        1   http://adm:1   leader     yes       0',
        'pd2       2   http://adm:2   follower   yes       0',
        'silent    3   http://adm:3   silent     yes       0',
        '',
      ].join('\n'),
    );
  });

  test('a removal asks first, is planned before and sent by id', async () => {
    const admin = new FakeAdmin();
    expect((await admin.run(['ctl', 'pd', 'member', 'remove', 'silent'])).code).toBe(1);
    expect(admin.memberChanges).toMatchObject([{ member: 'silent', dryRun: true }]);
    const { code, stdout } = await admin.run(['ctl', 'pd', 'member', 'remove', 'silent', '--yes', '-o', 'json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ kind: 'PlacementMember', name: 'silent', id: 3, state: 'silent' });
    expect(admin.memberChanges.at(-1)).toMatchObject({ member: '3', dryRun: false });
    expect((await admin.run(['ctl', 'pd', 'member', 'remove', 'silent', '--dry-run'])).code).toBe(0);
    expect(admin.memberChanges.at(-1)).toMatchObject({ dryRun: true });
  });

  test('a refused change ends with 3 and its reason', async () => {
    const admin = new FakeAdmin();
    admin.refuse = 'WouldLoseQuorum';
    const { code, stderr } = await admin.run(['ctl', 'pd', 'member', 'remove', 'pd2', '--yes']);
    expect([code, stderr]).toEqual([3, expect.stringContaining('WouldLoseQuorum')]);
    admin.refuse = 'MemberNotReady';
    expect((await admin.run(['ctl', 'pd', 'member', 'transfer-leader', 'silent'])).code).toBe(3);
  });

  test('a handover returns when the other one leads', async () => {
    const admin = new FakeAdmin();
    const { code, stdout } = await admin.run(['ctl', 'pd', 'member', 'transfer-leader', '-o', 'json']);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ name: 'pd2', state: 'leader' });
    expect(admin.memberChanges).toMatchObject([{ member: '' }]);
  });
});

describe('tables', () => {
  test('of stores are golden', async () => {
    expect((await new FakeAdmin().run(['ctl', 'store', 'list'])).stdout).toBe(
      [
        'ID   ADDRESS           STATE   REGIONS   LEADERS      SIZE       USED     CAPACITY   HEARTBEAT',
        ' 1   127.0.0.1:20161   up            2         2   2.0 MiB   10.0 MiB   1024.0 GiB       250ms',
        ' 2   127.0.0.1:20162   up            2         0   2.0 MiB   10.0 MiB   1024.0 GiB       250ms',
        ' 3   127.0.0.1:20163   up            2         0   2.0 MiB   10.0 MiB   1024.0 GiB       250ms',
        '',
      ].join('\n'),
    );
  });

  test('of regions name the ends of the key space and mark leader and learner', async () => {
    expect((await new FakeAdmin().run(['ctl', 'region', 'list'])).stdout).toBe(
      [
        'ID   START   END    STORES               SIZE    KEYS   EPOCH   REMARKS',
        ' 2   -inf    m      1*,2,3(learner)   1.0 MiB   1,234   3:2     -',
        ' 4   m       +inf   1*,2,3(learner)   1.0 MiB   1,234   3:4     -',
        '',
      ].join('\n'),
    );
  });

  test('can be names alone', async () => {
    expect((await new FakeAdmin().run(['ctl', 'region', 'list', '-o', 'name'])).stdout).toBe('2\n4\n');
  });

  test('of an operator show its phases and mark the current step', async () => {
    const admin = new FakeAdmin();
    admin.operatorAnswers = [RUNNING];
    const { stdout } = await admin.run(['ctl', 'operator', 'show', '95']);
    expect(stdout).toContain(
      'PHASE      STATE     TIME   DETAIL\nalign      done      40ms   -\nprepare    running      -   waiting\n',
    );
    expect(stdout).toMatch(/^> {3}merge region 4 into region 2/m);
  });
});

describe('documents', () => {
  test('of a region have open ends as null and say the range in words', async () => {
    const { stdout } = await new FakeAdmin().run(['ctl', 'region', 'show', '4', '-o', 'json', '--key-format', 'hex']);
    expect(JSON.parse(stdout)).toMatchObject({
      kind: 'Region',
      id: 4,
      startKey: '6d',
      endKey: null,
      range: '[6d, +inf)',
      epoch: { confVer: 3, version: 4 },
      leader: { id: 11, storeId: 1, role: 'voter' },
      previousId: 2,
      nextId: null,
    });
  });

  test('of an operator are objects with steps and times', async () => {
    const { stdout } = await new FakeAdmin().run(['ctl', 'operator', 'show', '95', '-o', 'json']);
    expect(JSON.parse(stdout)).toMatchObject({
      kind: 'Operator',
      id: 95,
      status: 'success',
      startedAt: '2000-01-01T00:00:01.000Z',
      tookMs: 250,
      steps: [{ type: 'merge-region', state: 'done', current: false, tookMs: 250 }],
      phases: [
        { name: 'align' },
        { name: 'prepare' },
        { name: 'catch-up' },
        { name: 'commit', state: 'done', tookMs: 40 },
      ],
    });
  });

  test('of the status keep the cluster id as text', async () => {
    const { stdout } = await new FakeAdmin().run(['ctl', 'status', '-o', 'json']);
    expect(JSON.parse(stdout)).toMatchObject({ healthy: true, clusterId: '77', regions: { total: 2 } });
  });
});

describe('changes', () => {
  test('without a terminal print the operator and how to follow it', async () => {
    const outcome = await new FakeAdmin().run(['ctl', 'region', 'merge', '4', '2']);
    expect(outcome.code).toBe(0);
    expect(outcome.stdout).toContain('merge region 4 into region 2   running   prepare');
    expect(outcome.stderr).toBe('follow it with: braid ctl operator show 95 --watch\n');
    expect((await new FakeAdmin().run(['ctl', 'region', 'merge', '4', '2', '-o', 'name', '-q'])).stdout).toBe('95\n');
  });

  test('send what was typed', async () => {
    const admin = new FakeAdmin();
    await admin.run(['ctl', 'region', 'split', '2', '--key', String.raw`c\x00`, '--reason', 'too hot']);
    await admin.run(['ctl', 'region', 'move', '2', '--from', '1', '--to', '4', '--expect-epoch', '3:2', '--dry-run']);
    const [split, move] = admin.changes as [
      RequestOf<typeof adminMethods.splitRegion>,
      RequestOf<typeof adminMethods.moveRegion>,
    ];
    expect(split).toMatchObject({ regionId: 2, policy: 0, options: { reason: 'too hot', dryRun: false } });
    expect(split.keys.map((key) => [...key])).toEqual([[0x63, 0]]);
    expect(split.header?.actor).toBe('braid-cli');
    expect(move).toMatchObject({
      regionId: 2,
      fromStore: 1,
      toStore: 4,
      options: { dryRun: true, expectEpoch: { confVer: 3, version: 2 } },
    });
  });

  test('that are waited for show each phase once and end with the result', async () => {
    const admin = new FakeAdmin();
    admin.operatorAnswers = [RUNNING, RUNNING, DONE];
    const outcome = await admin.run(['ctl', 'region', 'merge', '4', '2', '--wait']);
    expect(outcome.code).toBe(0);
    expect(outcome.stdout).toContain('success');
    expect(outcome.stderr.match(/prepare {2}running/g)).toHaveLength(1);
    expect(outcome.stderr.match(/commit {2}done/g)).toHaveLength(1);
    expect(outcome.stderr).not.toContain('%');
  });

  test('wait by default on a terminal, redrawing in place', async () => {
    const admin = new FakeAdmin();
    admin.operatorAnswers = [RUNNING, DONE];
    const outcome = await admin.run(['ctl', 'region', 'merge', '4', '2'], { isTerminal: true });
    expect(outcome.stderr).toContain('\u001B[5A');
    expect(outcome.stdout).toContain('success');
  });

  test.each([
    ['a canceled operator', CANCELED, 3, 'region 4 has a down peer (OperatorFailed)'],
    ['an operator that ran out of time', TIMED_OUT, 4, 'it took too long (OperatorFailed)'],
  ])('%s is a failure', async (_, ended, code, why) => {
    const admin = new FakeAdmin();
    admin.operatorAnswers = [ended];
    const outcome = await admin.run(['ctl', 'region', 'merge', '4', '2', '--wait', '-q']);
    expect(outcome).toMatchObject({ code, stdout: '' });
    expect(outcome.stderr).toContain(why);
  });

  test('that still run at the deadline end with 4', async () => {
    const admin = new FakeAdmin();
    admin.operatorAnswers = [RUNNING];
    const outcome = await admin.run(['ctl', 'region', 'merge', '4', '2', '--wait', '-q', '--timeout', '300ms']);
    expect(outcome.code).toBe(4);
  });

  test('go on when Ctrl-C stops the watching', async () => {
    const admin = new FakeAdmin();
    admin.operatorAnswers = [RUNNING];
    const controller = new AbortController();
    const running = admin.run(['ctl', 'operator', 'show', '95', '--watch'], { signal: controller.signal });
    await expect.poll(() => admin.operatorCalls).toBeGreaterThan(1);
    controller.abort(new Error('interrupted'));
    const outcome = await running;
    expect(outcome.code).toBe(130);
    expect(outcome.stderr).toContain('the operator goes on, pick it up again with: braid ctl operator show 95 --watch');
  });

  test('that the cluster refuses end with 3 and its reason', async () => {
    const admin = new FakeAdmin();
    admin.refuse = 'NotAdjacent';
    const outcome = await admin.run(['ctl', 'region', 'merge', '4', '9']);
    expect(outcome).toMatchObject({ code: 3, stdout: '' });
    expect(outcome.stderr).toBe(
      'error: cannot merge region 4 into 9\nwhy:   refused as NotAdjacent (Refused: NotAdjacent)\nnext:  do something else\n',
    );
  });

  test('that change nothing say so', async () => {
    const outcome = await new FakeAdmin().run(['ctl', 'region', 'transfer-leader', '2', '--to', '1', '-o', 'json']);
    expect(outcome).toMatchObject({ code: 0 });
    expect(JSON.parse(outcome.stdout)).toMatchObject({ kind: 'NothingToDo' });
  });
});

describe('answers that are no', () => {
  test('end with 5: an unknown object, a problem, a merge that would be refused', async () => {
    expect((await new FakeAdmin().run(['ctl', 'region', 'show', '9'])).code).toBe(5);
    expect((await new FakeAdmin().run(['ctl', 'store', 'show', '9'])).code).toBe(5);
    const sick = new FakeAdmin();
    sick.problems = [{ code: 'StoreDown', message: 'store 3 is down', hint: 'start it', storeId: 3, regionId: 0 }];
    const status = await sick.run(['ctl', 'status']);
    expect(status.code).toBe(0);
    expect(status.stdout).toContain('StoreDown   store 3 is down   start it\n');
    const check = await sick.run(['ctl', 'check']);
    expect(check.code).toBe(5);
    expect(check.stdout).toContain('StoreDown   store 3 is down   start it\n');
    const explained = await new FakeAdmin().run(['ctl', 'explain', 'merge', '4', '2']);
    expect(explained.code).toBe(5);
    expect(explained.stdout).toContain(
      'source-has-leader   refused   NoLeader   refused as NoLeader   do something else\n',
    );
  });
});

describe('OperatorDisplay', () => {
  const info = (phases: readonly [string, OperatorInfo['phases'][number]['state'], number, number][]): OperatorInfo =>
    ({
      id: 5,
      brief: 'move region 2',
      steps: [],
      phases: phases.map(([name, state, from, to]) => ({
        name,
        state,
        startedUnixMs: from === 0 ? undefined : from,
        finishedUnixMs: to === 0 ? undefined : to,
        detail: '',
      })),
    }) as unknown as OperatorInfo;

  test('draws every phase with its mark, state and time', () => {
    expect(
      operatorPicture(
        info([
          ['add-learner', 'done', 1000, 3500],
          ['promote', 'running', 3500, 0],
          ['remove', 'waiting', 0, 0],
        ]),
        3600,
      ),
    ).toEqual([
      'operator 5: move region 2',
      '  + add-learner  done       2.5s',
      '  > promote      running   100ms',
      '    remove       waiting',
    ]);
  });

  test('writes a line per change where it cannot redraw', async () => {
    const sink = new MemorySink();
    const display = new OperatorDisplay(sink, () => 9000);
    display.show(
      info([
        ['a', 'running', 8000, 0],
        ['b', 'waiting', 0, 0],
      ]),
    );
    display.show(
      info([
        ['a', 'running', 8000, 0],
        ['b', 'waiting', 0, 0],
      ]),
    );
    display.show(
      info([
        ['a', 'done', 8000, 8500],
        ['b', 'done', 8500, 9000],
      ]),
    );
    await display.flush();
    expect(sink.text.split('\n').map((line) => line.trim().replace(/ +/g, ' '))).toEqual([
      'operator 5: move region 2',
      '> a running 1.0s',
      '+ a done 500ms',
      '+ b done 500ms',
      '',
    ]);
  });
});

describe('the catalogue of codes', () => {
  const sample = (name: string): string | undefined => {
    const Candidate = (clientErrors as unknown as Record<string, unknown>)[name];
    if (
      typeof Candidate !== 'function' ||
      !name.endsWith('Error') ||
      ['BraidError', 'RegionRefusalError', 'RefusedError'].includes(name)
    ) {
      return undefined;
    }
    return new (Candidate as new (message: string) => { code: string })('m').code;
  };

  test('explains every error of the SDK', () => {
    const codes = Object.keys(clientErrors)
      .map(sample)
      .filter((code) => code !== undefined);
    expect(codes.length).toBeGreaterThan(10);
    const known = ERROR_CODES.map((entry) => entry.code);
    expect(codes.filter((code) => !known.includes(code))).toEqual([]);
  });

  test('has each code once, with a meaning and a next step', () => {
    expect(new Set(ERROR_CODES.map((entry) => entry.code)).size).toBe(ERROR_CODES.length);
    for (const entry of ERROR_CODES) {
      expect(entry.meaning).toMatch(/\.$/);
      expect(entry.next.length).toBeGreaterThan(5);
    }
  });
});
