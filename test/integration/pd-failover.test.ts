/** Three placement members as processes: killed, stopped, replaced and restarted under load. */
import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EMPTY_BYTES, fromUtf8 } from '../../src/base/bytes.ts';
import { connect } from '../../src/index.ts';
import { freePorts } from '../support/free-ports.ts';
import { Program, waitFor } from './cluster.ts';
import { CALL_LIMIT_MS, Load, Members } from './placement-members.ts';

describe('three placement members', () => {
  let members: Members;

  const load = async (): Promise<Load> => {
    const client = members.client();
    await client.connect(CALL_LIMIT_MS);
    return new Load(client);
  };

  beforeEach(async () => {
    members = new Members(await freePorts(4));
    await members.found();
  });

  afterEach(async () => {
    await members[Symbol.asyncDispose]();
  });

  test('the leader is killed again and again under load: no call fails, time and ids only grow', async () => {
    const running = await load();
    for (let round = 0; round < 3; round++) {
      await running.progress(50);
      const n = await members.leader();
      await members.kill(n);
      await running.progress(50);
      await members.start(n);
      await members.untilVoters(3);
    }
    await running.stop();
    expect(running.longestMs).toBeLessThan(CALL_LIMIT_MS / 2);
  });

  test('a leader that is stopped and goes on answers nothing old', async () => {
    const running = await load();
    for (let round = 0; round < 2; round++) {
      await running.progress(50);
      const n = await members.leader();
      members.programs.get(n)?.child.kill('SIGSTOP');
      await running.progress(50);
      // Administration follows the lead as well.
      expect((await members.list()).find((member) => member.isLeader)?.name).not.toBe(`pd${n}`);
      members.programs.get(n)?.child.kill('SIGCONT');
      await members.untilVoters(3);
    }
    await running.stop();
    expect(running.longestMs).toBeLessThan(CALL_LIMIT_MS / 2);
  });

  test('the lead moves on request, and a lost member is replaced, while everything is served', async () => {
    const running = await load();
    const first = await members.leader();
    const moved = await members.ctl('transfer-leader', '-o', 'json');
    expect(moved).toMatchObject({ code: 0 });
    const n = await members.leader();
    expect(n).not.toBe(first);
    const lost = [1, 2, 3].find((other) => other !== n) as number;
    await members.kill(lost);
    rmSync(members.directory.join(`pd${lost}`), { recursive: true });
    const other = [1, 2, 3].find((each) => each !== n && each !== lost) as number;
    await waitFor('the loss is noticed', async () => (await members.list()).some(({ isAnswering }) => !isAnswering));
    const refused = await members.ctl('remove', `pd${other}`, '--yes');
    expect([refused.code, refused.stderr]).toEqual([3, expect.stringContaining('WouldLoseQuorum')]);
    expect(await members.ctl('remove', `pd${lost}`, '--yes')).toMatchObject({ code: 0 });
    await members.start(4, ['--join', `http://${members.addresses[n - 1]},http://${members.addresses[other - 1]}`]);
    await members.untilVoters(3);
    const listed = await members.ctl('list', '-o', 'name');
    expect(
      listed.stdout
        .split('\n')
        .filter((name) => name !== '')
        .toSorted(),
    ).toEqual([1, 2, 3, 4].filter((each) => each !== lost).map((each) => `pd${each}`));
    await members.kill(await members.leader());
    await running.progress(50);
    await running.stop();
  });

  test('a member that is removed ends and says why', async () => {
    const n = await members.leader();
    const removed = [1, 2, 3].find((other) => other !== n) as number;
    expect(await members.ctl('remove', `pd${removed}`, '--yes')).toMatchObject({ code: 0 });
    const ended = await members.programs.get(removed)?.ended;
    expect([ended?.code, ended?.stderr]).toEqual([1, expect.stringContaining(`pd${removed} was removed`)]);
    await expect(members.start(removed)).rejects.toThrow('was removed from the cluster');
  });

  test('all are killed at once and go on where they were', async () => {
    const before = await load();
    await before.progress(100);
    await before.stop();
    await Promise.all([1, 2, 3].map((n) => members.kill(n)));
    await Promise.all([1, 2, 3].map((n) => members.start(n)));
    const after = await load();
    await after.progress(20);
    await after.stop();
    expect(Math.min(...after.ids)).toBeGreaterThan(Math.max(...before.ids));
    const values = (run: Load): bigint[] => run.timestamps.map(({ value }) => value);
    expect(values(after).every((value) => values(before).every((old) => value > old))).toBe(true);
  });

  test('stores and clients follow the lead', async () => {
    await Promise.all([1, 2, 3].map((n) => members.store(n)));
    await using db = await connect({ pd: members.endpoints.split(','), timeoutMs: CALL_LIMIT_MS });
    await db.put('a', 'before');
    const old = await members.leader();
    await members.kill(old);
    // A client that knows nothing yet finds everything through the members that are left.
    await using late = await connect({
      pd: members.endpoints.split(','),
      timeoutMs: CALL_LIMIT_MS,
      connectTimeoutMs: CALL_LIMIT_MS,
    });
    await late.put('b', 'after');
    expect(fromUtf8((await db.get('a')) ?? EMPTY_BYTES)).toBe('before');
    expect(fromUtf8((await db.get('b')) ?? EMPTY_BYTES)).toBe('after');
    await waitFor('the new leader hears from all stores and regions', async () => {
      const { stdout } = await new Program(['ctl', 'status', '-o', 'json', '--pd', members.endpoints]).ended;
      const status = JSON.parse(stdout) as {
        readonly stores: { readonly up: number };
        readonly regions: { readonly withoutLeader: number; readonly total: number };
        readonly problems: readonly { readonly code: string }[];
      };
      return (
        status.stores.up === 3 &&
        status.regions.total > 0 &&
        status.regions.withoutLeader === 0 &&
        status.problems.some(({ code }) => code === 'MemberSilent')
      );
    });
  });
});
