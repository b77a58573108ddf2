/** `braid ctl events -w` while the leading member of the placement service is killed. */
import { expect, test } from 'vitest';
import { freePorts } from '../support/free-ports.ts';
import { Program, waitFor } from './cluster.ts';
import { Members } from './placement-members.ts';

test('events are followed over a change of the lead, each printed once', async () => {
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
});
