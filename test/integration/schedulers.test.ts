/** What is set for checkers and schedulers on the command line, while the leading member of the placement service is killed. */
import { expect, test } from 'vitest';
import { freePorts } from '../support/free-ports.ts';
import { type Ended, Program } from './cluster.ts';
import { Members } from './placement-members.ts';

interface Listed {
  readonly items: readonly {
    readonly name: string;
    readonly state: string;
    readonly version: number;
    readonly parameters: readonly { readonly name: string; readonly value: number }[];
  }[];
}

test('parameters, added and removed schedulers hold under the next leader', async () => {
  await using members = new Members(await freePorts(3));
  await members.found();
  const ctl = (...words: readonly string[]): Promise<Ended> =>
    new Program(['ctl', ...words, '--timeout', '60s', '--pd', members.endpoints]).ended;
  const done = async (...words: readonly string[]): Promise<void> => {
    const ended = await ctl(...words);
    expect(ended.code, ended.stderr).toBe(0);
  };
  await done('checker', 'config', 'merge-checker', 'limit=3', 'split-merge-interval=90s', '--expect-version', '0');
  await done('scheduler', 'add', 'shuffle-leader', '--reason', 'a test');
  await done('scheduler', 'remove', 'balance-region');
  await members.kill(await members.leader());
  const listed = JSON.parse((await ctl('scheduler', 'list', '-o', 'json')).stdout) as Listed;
  const named = (name: string) => listed.items.find((one) => one.name === name);
  expect(named('merge-checker')).toMatchObject({ version: 1 });
  const values = Object.fromEntries(named('merge-checker')?.parameters.map(({ name, value }) => [name, value]) ?? []);
  expect(values).toMatchObject({ limit: 3, 'split-merge-interval': 90_000, 'max-merge-region-keys': 40_000 });
  expect([named('shuffle-leader')?.state, named('balance-region')?.state]).toEqual(['on', 'removed']);
  const late = await ctl('checker', 'config', 'merge-checker', 'limit=4', '--expect-version', '0');
  expect([late.code, late.stderr]).toEqual([3, expect.stringContaining('(Refused: Conflict)')]);
  const wide = await ctl('checker', 'config', 'merge-checker', 'limit=4', 'max-merge-region-size=1TiB');
  expect([wide.code, wide.stderr]).toEqual([3, expect.stringContaining('above the largest value')]);
  const shown = await ctl('scheduler', 'config', 'merge-checker');
  expect(shown.stdout).toMatch(/limit +3 +8 +0 to 4096 +count/);
  await done('checker', 'config', 'merge-checker', '--reset');
  expect((await ctl('scheduler', 'config', 'merge-checker')).stdout).toMatch(/limit +8 +8 +0 to 4096/);
});
