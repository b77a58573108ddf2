/** Recovery of a placement service that lost its majority: nothing repeats, whatever the member that is left knows. */
import { describe, expect, test } from 'vitest';
import { RECOVERY_VERSIONS_AHEAD } from '../../../src/pd/group/recover.ts';
import { composeTimestamp } from '../../../src/pd/tso/timestamp-oracle.ts';
import { PdGroupWorld } from '../../support/pd-group-world.ts';

const NAMES = ['pd1', 'pd2', 'pd3'] as const;

async function three(seed: number): Promise<PdGroupWorld> {
  const world = new PdGroupWorld(seed);
  await world.form(...NAMES);
  return world;
}

class Seen {
  readonly ids: number[] = [];
  readonly times: bigint[] = [];

  async take(world: PdGroupWorld, rounds: number): Promise<void> {
    for (let i = 0; i < rounds; i++) {
      const { node } = await world.leader();
      const id = await world.settle(node.allocIds(7));
      if (id.type === 'refused') {
        throw new Error(id.refusal.message);
      }
      this.ids.push(id.value);
      this.times.push(composeTimestamp(await world.settle(node.timestamps(3))));
    }
  }
}

const aliveApart = (world: PdGroupWorld, name: string): string[] =>
  [...world.machines.values()].filter((one) => one.name !== name).map((one) => one.name);

const switchOf = (world: PdGroupWorld, name: string): boolean | undefined =>
  world.machine(name).member?.group.state.switches.get('merge-checker')?.enabled;

describe('a member that is left', () => {
  test.each(Array.from({ length: 12 }, (_, seed) => seed + 1))(
    'goes on alone above everything that was given out, however far behind it was (seed %i)',
    async (seed) => {
      const world = await three(seed);
      const seen = new Seen();
      await seen.take(world, 5);
      const { node, name: leader } = await world.leader();
      await world.settle(node.setSwitch('merge-checker', false, 'test'));
      const { clusterId } = node;
      // The one that will be left is the leader, a follower, or one that missed the latest decisions.
      const survivor = NAMES[seed % 3] as string;
      const missed = seed % 2 === 0 && survivor !== leader;
      if (missed) {
        world.isolate(survivor);
        await seen.take(world, 20);
      }
      if (!missed) {
        await world.until(() => switchOf(world, survivor) === false, 'the survivor knows the switch');
      }
      for (const name of NAMES) {
        world.crash(name, seed % 4 === 0 ? 'kill' : 'power-loss');
      }
      world.heal();
      const planned = await world.settle(world.recover(survivor, { isDryRun: true }));
      expect(planned.lost.map(({ name }) => name)).toEqual(aliveApart(world, survivor));
      const recovery = await world.settle(world.recover(survivor));
      // A dry run changes nothing.
      expect({ ...recovery, timeMs: 0 }).toEqual({ ...planned, timeMs: 0 });
      await world.settle(world.boot(survivor));
      const alone = await world.leader();
      expect(alone.node.clusterId).toBe(clusterId);
      expect(alone.member.group.membership.members.map(({ name }) => name)).toEqual([survivor]);
      if (!missed) {
        expect(switchOf(world, survivor)).toBe(false);
      }
      const after = new Seen();
      await after.take(world, 3);
      expect(Math.min(...after.ids)).toBeGreaterThan(Math.max(...seen.ids) + 7);
      expect(after.times.every((time) => seen.times.every((old) => time > old + 3n))).toBe(true);
      expect(alone.member.group.state.resourceVersion).toBeGreaterThanOrEqual(RECOVERY_VERSIONS_AHEAD);
      expect(world.aborts).toEqual([]);
    },
  );

  test('counts what was written but not known to be decided: somebody may have been told', async () => {
    let found = 0;
    for (let seed = 100; seed < 130; seed++) {
      const world = await three(seed);
      const { node, name: leader } = await world.leader();
      await world.settle(node.setSwitch('merge-checker', false, 'test'));
      const survivors = NAMES.filter((name) => name !== leader && switchOf(world, name) === undefined);
      for (const name of NAMES) {
        world.crash(name, 'kill');
      }
      let told = 0;
      for (const survivor of survivors) {
        const { unconfirmedEntries } = await world.settle(world.recover(survivor));
        await world.settle(world.boot(survivor));
        await world.leader();
        told += Number(switchOf(world, survivor) === false);
        found += Number(unconfirmedEntries > 0 && switchOf(world, survivor) === false);
        world.crash(survivor);
      }
      // Whoever was told relied on the leader and one other: on one of these two.
      expect(told).toBeGreaterThanOrEqual(survivors.length - 1);
    }
    expect(found).toBeGreaterThan(5);
  });

  test('takes new members afterwards and never gives an id of a member again', async () => {
    const world = await three(21);
    const { lastId } = (await world.leader()).member.group.membership;
    for (const name of NAMES) {
      world.crash(name);
    }
    await world.settle(world.recover('pd2'));
    await world.settle(world.boot('pd2'));
    for (const [i, name] of ['pd4', 'pd5'].entries()) {
      await world.join(name);
      await world.untilVoters(i + 2);
    }
    const { member } = await world.leader();
    const added = member.group.membership.members.filter(({ name }) => name !== 'pd2').map(({ id }) => id);
    expect(Math.min(...added)).toBeGreaterThan(lastId);
    world.crash('pd2');
    const seen = new Seen();
    await seen.take(world, 2);
    expect(world.aborts).toEqual([]);
  });

  test('is recovered over a crash in the middle as if there had been none', async () => {
    const world = await three(33);
    const seen = new Seen();
    await seen.take(world, 3);
    for (const name of NAMES) {
      world.crash(name);
    }
    const first = await world.settle(world.recover('pd3'));
    world.crash('pd3');
    // It is alone now: there is nothing to recover any more.
    await expect(world.settle(world.recover('pd3'))).rejects.toThrow('this member is alone');
    await world.settle(world.boot('pd3'));
    const after = new Seen();
    await after.take(world, 1);
    expect(after.ids[0]).toBeGreaterThan(first.ids.after);
  });
});

describe('refused, and nothing is changed', () => {
  test('for a directory that is empty, one that was always alone, and one that was removed', async () => {
    const world = new PdGroupWorld(41);
    await expect(world.settle(world.recover('nobody'))).rejects.toMatchObject({ code: 'Refused' });
    await world.settle(world.boot('pd1'));
    await world.leader();
    world.crash('pd1');
    await expect(world.settle(world.recover('pd1'))).rejects.toThrow('alone');
    await world.settle(world.boot('pd1'));
    await world.join('pd2');
    await world.untilVoters(2);
    await world.join('pd3');
    await world.untilVoters(3);
    const { member, name } = await world.leader();
    const removed = NAMES.find((one) => one !== name) as string;
    await world.settle(member.group.removeMember(removed, false));
    await world.until(() => world.machine(removed).wasRemoved, 'it knows that it was removed');
    await world.until(() => world.machine(removed).member === undefined, 'it has ended');
    await expect(world.settle(world.recover(removed))).rejects.toThrow('was removed');
  });
});
