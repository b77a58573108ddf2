/** Two of three placement members are lost for good: the third goes on alone, and everybody follows it. */
import { rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EMPTY_BYTES, fromUtf8 } from '../../src/base/bytes.ts';
import { connect } from '../../src/index.ts';
import { freePorts } from '../support/free-ports.ts';
import { type Ended, Program, waitFor } from './cluster.ts';
import { CALL_LIMIT_MS, Load, Members } from './placement-members.ts';

interface Status {
  readonly clusterId: string;
  readonly stores: { readonly up: number };
  readonly regions: { readonly withoutLeader: number; readonly total: number };
}

describe('a placement service that lost its majority', () => {
  let members: Members;

  const load = async (): Promise<Load> => {
    const client = members.client();
    await client.connect(CALL_LIMIT_MS);
    return new Load(client);
  };
  const recover = (n: number, ...flags: readonly string[]): Promise<Ended> =>
    new Program(['pd', 'recover', '--data-dir', members.directory.join(`pd${n}`), ...flags]).ended;

  const status = async (): Promise<Status> => {
    const { stdout } = await new Program(['ctl', 'status', '-o', 'json', '--pd', members.endpoints]).ended;
    return JSON.parse(stdout) as Status;
  };

  beforeEach(async () => {
    members = new Members(await freePorts(5));
    await members.found();
  });

  afterEach(async () => {
    await members[Symbol.asyncDispose]();
  });

  test('is recovered from the member that is left: ids and time never repeat, stores and clients follow', async () => {
    await Promise.all([1, 2, 3].map((n) => members.store(n)));
    await using db = await connect({ pd: members.endpoints.split(','), timeoutMs: CALL_LIMIT_MS });
    await db.put('a', 'before');
    const before = await load();
    await before.progress(100);
    const { clusterId } = await status();

    // The survivor is cut off first and misses what the others decide.
    const leader = await members.leader();
    const survivor = [1, 2, 3].find((n) => n !== leader) as number;
    const lost = [1, 2, 3].filter((n) => n !== survivor);
    members.programs.get(survivor)?.child.kill('SIGSTOP');
    await before.progress(300);
    await before.stop();
    await Promise.all(lost.map((n) => members.kill(n)));
    members.programs.get(survivor)?.child.kill('SIGCONT');

    // Data is served without a placement service; the directory of a running member is not touched.
    expect(fromUtf8((await db.get('a')) ?? EMPTY_BYTES)).toBe('before');
    const running = await recover(survivor, '--yes');
    expect([running.code, running.stderr]).toEqual([1, expect.stringContaining('another process')]);
    await members.kill(survivor);

    const unasked = await recover(survivor);
    expect([unasked.code, unasked.stderr]).toEqual([1, expect.stringContaining('add --yes')]);
    const planned = await recover(survivor, '--dry-run', '-o', 'json');
    expect(planned.code, planned.stderr).toBe(0);
    const recovered = await recover(survivor, '--yes', '-o', 'json');
    expect(recovered.code, recovered.stderr).toBe(0);
    const report = JSON.parse(recovered.stdout) as { readonly ids: { readonly after: number } };
    expect(report).toMatchObject({
      kind: 'PlacementRecovery',
      survivor: { name: `pd${survivor}` },
      lost: lost.map((n) => ({ name: `pd${n}` })),
    });
    expect((JSON.parse(planned.stdout) as typeof report).ids).toEqual(report.ids);
    const again = await recover(survivor, '--yes');
    expect([again.code, again.stderr]).toEqual([3, expect.stringContaining('alone')]);

    await members.start(survivor);
    const after = await load();
    await after.progress(50);
    await after.stop();
    expect(Math.min(...after.ids)).toBeGreaterThan(Math.max(...before.ids));
    const latest = before.timestamps.reduce((most, { value }) => (value > most ? value : most), 0n);
    expect(after.timestamps.every(({ value }) => value > latest)).toBe(true);

    // Stores report to it, an old client goes on, a new one finds the same cluster.
    await waitFor('the stores report to the member that is left', async () => {
      const { stores, regions } = await status();
      return stores.up === 3 && regions.total > 0 && regions.withoutLeader === 0;
    });
    await db.put('b', 'after');
    await using late = await connect({ pd: members.endpoints.split(','), timeoutMs: CALL_LIMIT_MS });
    expect((await status()).clusterId).toBe(clusterId);
    expect(fromUtf8((await late.get('b')) ?? EMPTY_BYTES)).toBe('after');
    // Regions that are split get new ids.
    const { stdout } = await new Program(['ctl', 'region', 'list', '-o', 'name', '--pd', members.endpoints]).ended;
    const split = await new Program([
      'ctl',
      'region',
      'split',
      stdout.trim(),
      '--key',
      'b',
      '--wait',
      '--timeout',
      '30s',
      '--pd',
      members.endpoints,
    ]).ended;
    expect(split.code, split.stderr).toBe(0);
    const ids = await new Program(['ctl', 'region', 'list', '-o', 'name', '--pd', members.endpoints]).ended;
    expect(Math.max(...ids.stdout.trim().split('\n').map(Number))).toBeGreaterThan(Math.max(...before.ids));

    // A lost member that comes back all the same has no place, and the group grows again.
    const [ghost, gone] = lost as [number, number];
    await members.start(ghost);
    const ended = await members.programs.get(ghost)?.ended;
    expect([ended?.code, ended?.stderr]).toEqual([1, expect.stringContaining(`pd${ghost} was removed`)]);
    rmSync(members.directory.join(`pd${gone}`), { recursive: true });
    await members.start(gone, ['--join', `http://${members.addresses[survivor - 1]}`]);
    await members.untilVoters(2);
  });
});
