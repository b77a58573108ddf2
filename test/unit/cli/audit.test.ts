/** Who changed what and why: reasons and expected versions that changes carry, and how the audit log is shown. */
import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { buildProgram } from '../../../src/cli/program.ts';
import { FakeAdmin, auditEntry, event } from './fake-admin.ts';
import { MemorySink } from './harness.ts';

interface Asked {
  readonly header?: { readonly reason: string };
  readonly expectVersion?: number;
  readonly expectEpoch?: unknown;
  readonly options?: { readonly expectEpoch?: unknown; readonly reason?: string };
}

const asked = (admin: FakeAdmin): Asked[] =>
  [...admin.changes, ...admin.storeChanges, ...admin.memberChanges, ...admin.pauses] as Asked[];

/** Changes of things with a version. */
const VERSIONED: readonly (readonly string[])[] = [
  ['ctl', 'store', 'label', '2', 'zone=a'],
  ['ctl', 'store', 'weight', '2', '--leader', '2'],
  ['ctl', 'store', 'limit', '2', '10'],
  ['ctl', 'store', 'evict-leaders', '2'],
  ['ctl', 'store', 'drain', '2', '--yes', '--detach'],
  ['ctl', 'store', 'cancel-drain', '2'],
  ['ctl', 'store', 'remove', '2', '--yes'],
  ['ctl', 'pd', 'member', 'remove', 'silent', '--yes'],
  ['ctl', 'pd', 'member', 'transfer-leader', 'pd2'],
  ['ctl', 'switch', 'on', 'merge-checker'],
  ['ctl', 'switch', 'off', 'merge-checker'],
  ['ctl', 'scheduler', 'pause', 'merge-checker'],
  ['ctl', 'scheduler', 'resume', 'merge-checker'],
  ['ctl', 'rule', 'set', 'r1', '--role', 'voter', '--count', '3'],
  ['ctl', 'rule', 'delete', 'r1', '--yes'],
];

/** Changes of regions, whose version is their epoch. */
const OF_REGIONS: readonly (readonly string[])[] = [
  ['ctl', 'region', 'pin', '2'],
  ['ctl', 'region', 'pause', '2'],
  ['ctl', 'region', 'resume', '2'],
  ['ctl', 'region', 'split', '2', '--key', 'c'],
  ['ctl', 'region', 'merge', '4', '2'],
  ['ctl', 'region', 'move', '2', '--from', '1', '--to', '3'],
  ['ctl', 'region', 'scatter', '2'],
  ['ctl', 'region', 'transfer-leader', '2', '--to', '2'],
];

describe('a change', () => {
  for (const words of VERSIONED) {
    test(`${words.join(' ')} carries why, and the version it was made for, also in its plan`, async () => {
      const admin = new FakeAdmin();
      const { code, stderr } = await admin.run([...words, '--reason', 'why', '--expect-version', '0']);
      expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
      expect(asked(admin).length).toBeGreaterThan(0);
      for (const request of asked(admin)) {
        expect([request.header?.reason, request.expectVersion]).toEqual(['why', 0]);
      }
      // Without it nothing is compared.
      const other = new FakeAdmin();
      await other.run(words);
      expect(asked(other).every(({ expectVersion }) => expectVersion === undefined)).toBe(true);
    });
  }

  for (const words of OF_REGIONS) {
    test(`${words.join(' ')} carries why, and the epoch it was made for`, async () => {
      const admin = new FakeAdmin();
      const { code, stderr } = await admin.run([...words, '--reason', 'why', '--expect-version', '5.12']);
      expect([code, code === 0 ? '' : stderr]).toEqual([0, '']);
      const [request] = asked(admin);
      expect(request?.header?.reason).toBe('why');
      expect(request?.expectEpoch ?? request?.options?.expectEpoch).toEqual({ confVer: 5, version: 12 });
    });
  }

  test('carries who makes it: what was said, else who is logged in', async () => {
    const actorOf = async (env: Readonly<Record<string, string>>): Promise<unknown> => {
      const admin = new FakeAdmin();
      const { code } = await admin.run(['ctl', 'switch', 'on', 'merge-checker'], { env });
      return [code, (asked(admin)[0]?.header as { readonly actor?: string } | undefined)?.actor];
    };
    expect(await actorOf({})).toEqual([0, 'braid-cli']);
    expect(await actorOf({ USER: 'ada' })).toEqual([0, 'ada']);
    expect(await actorOf({ USER: 'ada', BRAID_ACTOR: 'night job' })).toEqual([0, 'night job']);
    expect(await actorOf({ BRAID_ACTOR: 'x'.repeat(200) })).toEqual([1, undefined]);
  });

  test('of an operator carries why', async () => {
    const admin = new FakeAdmin();
    await admin.run(['ctl', 'operator', 'cancel', '95', '--reason', 'why']);
    expect(asked(admin)[0]?.header?.reason).toBe('why');
  });

  test('that was made for another version ends with 3, and one that makes no sense with 1', async () => {
    const admin = new FakeAdmin();
    admin.refuse = 'Conflict';
    const refused = await admin.run(['ctl', 'switch', 'on', 'merge-checker', '--expect-version', '3']);
    expect([refused.code, refused.stdout]).toEqual([3, '']);
    expect(refused.stderr).toContain('(Refused: Conflict)');
    for (const wrong of ['5', '5.', 'x', '5.1.2']) {
      expect((await admin.run(['ctl', 'region', 'pin', '2', '--expect-version', wrong])).code).toBe(1);
    }
    expect((await admin.run(['ctl', 'switch', 'on', 'merge-checker', '--expect-version', '5.1'])).code).toBe(1);
    const both = ['--expect-version', '5.1', '--expect-epoch', '5:1'];
    expect((await admin.run(['ctl', 'region', 'scatter', '2', ...both])).code).toBe(1);
  });

  test('shows the versions that the next one may expect', async () => {
    const admin = new FakeAdmin();
    const json = async (...words: string[]): Promise<unknown> =>
      JSON.parse((await admin.run([...words, '-o', 'json'])).stdout) as unknown;
    expect(await json('ctl', 'store', 'show', '1')).toMatchObject({ settingsVersion: 5 });
    expect((await admin.run(['ctl', 'store', 'show', '1'])).stdout).toMatch(/settings version +5/);
    expect(await json('ctl', 'pd', 'member', 'list')).toMatchObject({ version: 5 });
    expect(await json('ctl', 'switch', 'list')).toMatchObject({ items: [{ version: 3 }, { version: 1 }] });
  });
});

describe('the audit log', () => {
  const entries = Array.from({ length: 5 }, (_, i) => auditEntry(i + 3, `change ${i + 3}`));

  test('is read to the last entry, filtered and cut like every list', async () => {
    const admin = new FakeAdmin();
    admin.audit = entries;
    const names = async (...words: string[]): Promise<string> =>
      (await admin.run(['ctl', 'maintenance', 'log', '-o', 'name', ...words])).stdout;
    expect(await names()).toBe('3\n4\n5\n6\n7\n');
    expect(await names('--limit', '2')).toBe('6\n7\n');
    expect(await names('--after', '5')).toBe('6\n7\n');
    expect(await names('--where', 'what=change 4')).toBe('4\n');
    expect(await names('--since', '2000-01-01T00:00:00.006Z')).toBe('6\n7\n');
    expect(await names('--since', '1h')).toBe('');
    expect((await admin.run(['ctl', 'maintenance', 'log', '--since', 'never'])).code).toBe(1);
    const { stdout } = await admin.run(['ctl', 'maintenance', 'log', '--limit', '1']);
    expect(stdout).toMatch(
      /SEQUENCE +TIME +BY +WHAT +REASON\n +7 +2000-01-01T00:00:00.007Z +ada +change 7 +old disk\n/,
    );
    const shown = JSON.parse((await admin.run(['ctl', 'maintenance', 'log', '-o', 'json'])).stdout) as unknown;
    expect(shown).toMatchObject({
      kind: 'AuditLog',
      oldestSequence: 3,
      items: [{ actor: 'ada', storeId: 2 }, {}, {}, {}, {}],
    });
  });

  test('and the list of events are one list in the order of time, with nothing twice', async () => {
    const admin = new FakeAdmin();
    admin.audit = entries.slice(0, 3);
    admin.events = [
      { ...event(4, 'switch', 'change 5'), unixMs: entries[2]?.unixMs ?? 0, auditSequence: 5 },
      { ...event(5, 'split', 'a split'), unixMs: (entries[2]?.unixMs ?? 0) + 1 },
    ];
    const shown = async (...words: string[]): Promise<unknown> => {
      const { stdout } = await admin.run(['ctl', 'events', '-o', 'json', ...words]);
      const { items } = JSON.parse(stdout) as { readonly items: readonly Record<string, unknown>[] };
      return items.map(({ message, sequence, auditSequence }) => [message, sequence, auditSequence]);
    };
    const both = [
      ['change 3', undefined, 3],
      ['change 4', undefined, 4],
      ['change 5', 4, 5],
    ];
    expect(await shown()).toEqual([...both, ['a split', 5, undefined]]);
    expect(await shown('--audit')).toEqual(both);
    // Numbers of the present lead count only what it noted.
    expect(await shown('--after', '4')).toEqual([['a split', 5, undefined]]);
    expect((await admin.run(['ctl', 'events', '-o', 'name'])).stdout).toBe('audit-3\naudit-4\n4\n5\n');
  });

  test('fills what a watch missed under the lead before, and repeats nothing', async () => {
    const admin = new FakeAdmin();
    admin.audit = entries.slice(0, 1);
    admin.events = [{ ...event(1, 'switch', 'change 3'), auditSequence: 3 }];
    let looks = 0;
    const stop = new AbortController();
    admin.onEvents = () => {
      looks++;
      if (looks === 4) {
        // The lead before kept 4 and 5 in its last moments; the next one has noted 6 already.
        admin.term++;
        admin.audit = entries.slice(0, 4);
        admin.events = [
          event(1, 'split', 'under the next lead'),
          { ...event(2, 'switch', 'change 6'), auditSequence: 6 },
        ];
      } else if (looks === 6) {
        admin.audit = entries;
        admin.events = [...admin.events, { ...event(3, 'switch', 'change 7'), auditSequence: 7 }];
      } else if (looks === 9) {
        stop.abort();
      }
    };
    const { stdout } = await admin.run(['ctl', 'events', '-w', '-o', 'jsonl'], { signal: stop.signal });
    const messages = stdout
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { readonly message: string }).message);
    expect(messages.toSorted()).toEqual([
      'change 3',
      'change 4',
      'change 5',
      'change 6',
      'change 7',
      'under the next lead',
    ]);
    expect(messages.indexOf('change 4')).toBeLessThan(messages.indexOf('change 5'));
  });
});

describe('every command of ctl that changes something', () => {
  const program = buildProgram(
    {
      io: {
        env: {},
        stdout: new MemorySink(),
        stderr: new MemorySink(),
        stdin: (async function* () {})(),
        isStdinTerminal: false,
        signal: new AbortController().signal,
      },
      connector: { data: () => Promise.reject(new Error('unused')), admin: () => Promise.reject(new Error('unused')) },
      exitCode: 0,
    },
    [],
  );
  const leaves = (command: Command, path: string): readonly (readonly [string, readonly (string | undefined)[]])[] =>
    command.commands.length === 0
      ? [[path, command.options.map(({ long }) => long)]]
      : command.commands.flatMap((child) => leaves(child, path === '' ? child.name() : `${path} ${child.name()}`));
  const ctl = program.commands.find((command) => command.name() === 'ctl') as Command;
  /** Change nothing, or only a file of the user. A command that is in neither list has to take a reason. */
  const READS =
    /^(status|check|completion|diff|get|describe|export|heat|events|maintenance log|context .*|explain .*|.* (list|show|get|locate|siblings|top|holes|history))$/;
  /** What they change has no version, or the document says which one it was made for. */
  const UNVERSIONED = ['apply', 'move', 'operator cancel'];
  const changing = leaves(ctl, '').filter(([path]) => !READS.test(path));

  test('is found', () => {
    expect(changing.length).toBeGreaterThan(30);
  });

  test.each(changing)('%s takes a reason, and the version it was made for', (path, options) => {
    expect(options).toContain('--reason');
    if (!UNVERSIONED.includes(path)) {
      expect(options).toContain('--expect-version');
    }
  });
});
