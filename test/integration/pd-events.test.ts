/** `braid ctl events -w` and the audit log while the leading member of the placement service is killed. */
import { expect, test } from 'vitest';
import { freePorts } from '../support/free-ports.ts';
import { Program, waitFor } from './cluster.ts';
import { Members } from './placement-members.ts';

test('events are followed over a change of the lead, each printed once; the audit log outlives the lead', async () => {
  await using members = new Members(await freePorts(3));
  await members.found();
  const pd = ['--pd', members.endpoints];
  const watching = new Program(['ctl', 'events', '-w', '-o', 'jsonl', '--where', 'type=switch', ...pd]);
  members.others.push(watching);
  const turn = async (to: 'on' | 'off', reason: string): Promise<void> => {
    const flags = ['--reason', reason, '--timeout', '20s', ...pd];
    const ended = await new Program(['ctl', 'switch', to, 'merge-checker', ...flags]).ended;
    expect(ended.code, ended.stderr).toBe(0);
    await waitFor(`the event of ${reason}`, () => watching.stdout.includes(`"${reason}"`));
  };
  await turn('off', 'first');
  await members.kill(await members.leader());
  await turn('on', 'second');
  await turn('off', 'third');
  const ended = await watching.kill('SIGINT');
  const events = ended.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as { readonly reason: string; readonly sequence: number });
  expect(events.map(({ reason }) => reason)).toEqual(['first', 'second', 'third']);
  expect(ended.code).toBe(130);
  expect(ended.stderr).toContain('another lead of the placement service has begun');
  // Kept under the lead that was killed, still there, and there once.
  for (const command of [['maintenance', 'log'], ['events'], ['events', '--audit']]) {
    const flags = ['--where', 'type=switch', '-o', 'jsonl', ...pd];
    const listed = await new Program(['ctl', ...command, ...flags]).ended;
    expect(listed.code, listed.stderr).toBe(0);
    const reasons = listed.stdout
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { readonly reason: string }).reason);
    expect(reasons).toEqual(['first', 'second', 'third']);
  }
  // The switch was set three times: what was made for an earlier state of it is refused.
  const stale = ['ctl', 'switch', 'on', 'merge-checker', '--expect-version', '2', ...pd];
  const refused = await new Program(stale).ended;
  expect([refused.code, refused.stderr]).toEqual([3, expect.stringContaining('version 3, not 2')]);
  const fitting = await new Program([...stale.with(stale.indexOf('2'), '3')]).ended;
  expect(fitting.code, fitting.stderr).toBe(0);
});
