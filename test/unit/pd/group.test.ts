/** Members of a placement service on a virtual network: who leads, what survives, who may answer. */
import { describe, expect, test } from 'vitest';
import { LeadershipLostError, NotLeaderError } from '../../../src/pd/group/errors.ts';
import { composeTimestamp } from '../../../src/pd/tso/timestamp-oracle.ts';
import { PdGroupWorld } from '../../support/pd-group-world.ts';
import { S, makeRegion } from './world.ts';

const NAMES = ['pd1', 'pd2', 'pd3'] as const;

async function three(seed: number, config: ConstructorParameters<typeof PdGroupWorld>[1] = {}): Promise<PdGroupWorld> {
  const world = new PdGroupWorld(seed, config);
  await world.form(...NAMES);
  return world;
}

const ids = async (world: PdGroupWorld, count = 1): Promise<number> => {
  const { node } = await world.leader();
  const result = await world.settle(node.allocIds(count));
  if (result.type === 'refused') {
    throw new Error(result.refusal.message);
  }
  return result.value;
};

const timestamp = async (world: PdGroupWorld): Promise<bigint> => {
  const { node } = await world.leader();
  return composeTimestamp(await world.settle(node.timestamps(1)));
};

const states = (world: PdGroupWorld): unknown[] =>
  [...world.machines.values()].map(({ member }) => {
    const state = member?.group.state;
    return {
      meta: state?.meta,
      idLimit: state?.idLimit,
      tsoSavedMs: state?.tsoSavedMs,
      switches: [...(state?.switches ?? [])],
      schedulers: [...(state?.schedulers ?? [])],
      members: member?.group.membership,
    };
  });

const caughtUp = (world: PdGroupWorld, ...names: readonly string[]): boolean => {
  const machines = [...world.machines.values()].filter(({ name }) => names.length === 0 || names.includes(name));
  const positions = machines.map(({ member }) => member?.group.status().appliedIndex);
  return positions.every((position) => position !== undefined && position === positions[0]);
};

describe('a group of one', () => {
  test('serves at once and keeps its identity, ids and time over a power loss', async () => {
    const world = new PdGroupWorld(1);
    await world.settle(world.boot('pd1'));
    const { node } = await world.leader();
    expect(world.nowMs).toBeLessThan(500);
    const first = await ids(world);
    const time = await timestamp(world);
    world.crash('pd1');
    await world.settle(world.boot('pd1'));
    const again = await world.leader();
    expect(again.node.clusterId).toBe(node.clusterId);
    expect(await ids(world)).toBeGreaterThan(first);
    expect(await timestamp(world)).toBeGreaterThan(time);
    expect(world.aborts).toEqual([]);
  });
});

describe('three members', () => {
  test('hold the same state, of which exactly one serves', async () => {
    const world = await three(2);
    const { node } = await world.leader();
    await world.settle(node.setSwitch('merge-checker', true, 'test'));
    await world.until(() => caughtUp(world), 'everybody has applied everything');
    const [a, b, c] = states(world);
    expect(b).toEqual(a);
    expect(c).toEqual(a);
    expect(world.serving()).toHaveLength(1);
    expect(world.aborts).toEqual([]);
  });

  test('go on without the leader; nothing acknowledged is lost, ids and time go on above', async () => {
    const world = await three(3);
    const before = await world.leader();
    await world.settle(before.node.setSwitch('merge-checker', true, 'test'));
    const change = { type: 'configure', set: [{ name: 'batch', value: 9 }], reset: [] } as const;
    const how = { actor: 'test', reason: '', dryRun: false, expectVersion: 0 };
    await world.settle(before.node.schedulers.change('balance-leader', change, how));
    const id = await ids(world, 30);
    const time = await timestamp(world);
    world.crash(before.name);
    const after = await world.leader(10_000);
    expect(after.name).not.toBe(before.name);
    expect(after.node.clusterId).toBe(before.node.clusterId);
    expect(after.node.placement.switches.isOn('merge-checker')).toBe(true);
    expect(after.node.placement.cluster.schedulers.value('balance-leader', 'batch')).toBe(9);
    expect(await world.settle(after.node.schedulers.change('balance-leader', change, how))).toMatchObject({
      refusal: { code: 'Conflict' },
    });
    expect(await ids(world)).toBeGreaterThanOrEqual(id + 30);
    expect(await timestamp(world)).toBeGreaterThan(time);
  });

  test('the map of regions is there under the next leader', async () => {
    const world = await three(4);
    const before = await world.leader();
    const region = makeRegion({ id: 2, on: ['1'] });
    const store = {
      id: S(1),
      address: 'store:1',
      statusAddress: '',
      state: 'up' as const,
      labels: [],
      version: '1',
      startTimestamp: 1,
    };
    expect(await world.settle(before.node.bootstrap(store, region))).toBeUndefined();
    before.node.onSplitReport([
      makeRegion({ id: 2, start: '', end: 'm', on: ['1'], version: 2 }),
      makeRegion({ id: 3, start: 'm', on: ['1'], version: 2 }),
    ]);
    await world.run(500);
    world.crash(before.name);
    const after = await world.leader(10_000);
    expect([...after.node.placement.cluster.tree.values()].map((info) => info.region.id)).toEqual([2, 3]);
    expect(after.node.placement.cluster.store(S(1))?.record.store.address).toBe('store:1');
  });

  test('a leader cut off from the majority stops answering before another one starts', async () => {
    const world = await three(5);
    const old = await world.leader();
    world.isolate(old.name);
    let overlap = 0;
    let stoppedAtMs = 0;
    await world.until(
      () => {
        const serving = world.serving();
        overlap = Math.max(overlap, serving.length);
        if (stoppedAtMs === 0 && !old.node.isLeading) {
          stoppedAtMs = world.nowMs;
        }
        return serving.some(({ name }) => name !== old.name);
      },
      'another member serves',
      15_000,
    );
    expect(overlap).toBe(1);
    expect(stoppedAtMs).toBeGreaterThan(0);
    await expect(world.settle(old.node.timestamps(1))).rejects.toThrow(NotLeaderError);
    await expect(world.settle(old.node.allocIds(1))).rejects.toThrow(NotLeaderError);
    world.heal();
    await world.until(() => old.member.leader !== undefined && old.member.leader.name !== old.name, 'it follows');
    const refusal = old.member.notLeader();
    expect(refusal.leader?.name).toBe(world.serving()[0]?.name);
    expect(refusal.message).toContain('not leader');
    expect(world.aborts).toEqual([]);
  });

  test('a change that was on its way when the lead was lost is reported as unknown', async () => {
    const world = await three(6);
    const old = await world.leader();
    world.isolate(old.name);
    const change = world.settle(old.node.setSwitch('merge-checker', true, 'test'), 15_000);
    await expect(change).rejects.toThrow(LeadershipLostError);
  });

  test('a leader that was stopped for a while answers nothing when it goes on', async () => {
    const world = await three(7);
    const old = await world.leader();
    world.freeze(old.name, 8_000);
    const after = await world.leader(7_500);
    expect(after.name).not.toBe(old.name);
    const frozen = world.machine(old.name);
    let answered = 0;
    // The first thing that runs on it again asks for a timestamp: its core has not heard of the new leader yet.
    frozen.clock.deliver(() => {
      expect(old.node.isLeading).toBe(false);
      old.node.timestamps(1).then(
        () => {
          answered++;
        },
        () => undefined,
      );
    }, 'first-call');
    await world.run(12_000);
    expect(answered).toBe(0);
    expect(old.member.node).toBeUndefined();
  });

  test('nobody serves without a majority, and the survivor goes on when another one is back', async () => {
    const world = await three(8);
    const { name } = await world.leader();
    const others = NAMES.filter((other) => other !== name);
    for (const other of others) {
      world.crash(other);
    }
    await world.run(3_000);
    expect(world.serving()).toEqual([]);
    await world.settle(world.boot(others[0] as string));
    await world.leader(15_000);
    expect(world.aborts).toEqual([]);
  });

  test('all stop at once and start again with everything they acknowledged', async () => {
    const world = await three(9);
    const { node } = await world.leader();
    await world.settle(node.setMaxReplicas(5));
    const id = await ids(world, 7);
    for (const name of NAMES) {
      world.crash(name);
    }
    for (const name of NAMES) {
      await world.settle(world.boot(name));
    }
    const after = await world.leader(15_000);
    expect(after.node.placement.cluster.config.maxReplicas).toBe(5);
    expect(await ids(world)).toBeGreaterThanOrEqual(id + 7);
  });
});

describe('the log', () => {
  test('stays short, and a member that lags beyond it receives the whole state', async () => {
    const world = await three(10, { logKeepEntries: 20 });
    const { name, member } = await world.leader();
    const lagging = NAMES.find((other) => other !== name) as string;
    world.crash(lagging);
    for (let i = 0; i < 60; i++) {
      await ids(world, 25);
    }
    expect(member.group.status().appliedIndex - member.group.logBegin).toBeLessThanOrEqual(41);
    const id = await ids(world, 1);
    await world.settle(world.boot(lagging));
    await world.until(() => caughtUp(world), 'the member has caught up');
    expect(states(world)[1]).toEqual(states(world)[0]);
    // What it received is durable: it leads with it.
    for (const other of NAMES) {
      world.crash(other);
    }
    await world.settle(world.boot(lagging));
    await world.settle(world.boot(name));
    await world.leader(15_000);
    expect(await ids(world)).toBeGreaterThan(id);
    expect(world.aborts).toEqual([]);
  });
});

describe('members', () => {
  test('a lost member is replaced while the others serve', async () => {
    const world = await three(11);
    const { name, member } = await world.leader();
    const lost = NAMES.find((other) => other !== name) as string;
    world.crash(lost);
    await world.run(3_000);
    const removed = await world.settle(member.group.removeMember(lost, false));
    expect(removed.type).toBe('ok');
    await world.untilVoters(2);
    world.machines.delete(lost);
    await world.join('pd4');
    await world.untilVoters(3);
    const status = (await world.leader()).member.group.status();
    expect(status.members.map(({ id, name: each, isVoter }) => [id, each, isVoter])).toHaveLength(3);
    expect(status.members.find((each) => each.name === 'pd4')?.id).toBe(4);
    world.crash((await world.leader()).name);
    await world.leader(15_000);
    expect(world.aborts).toEqual([]);
  });

  test('a member that was away is led by one it has never heard of', async () => {
    const world = await three(17);
    const away = NAMES.find((other) => other !== world.serving()[0]?.name) as string;
    world.crash(away);
    await world.join('pd4');
    await world.untilVoters(4);
    const { member, name } = await world.leader();
    expect(member.group.transferLeader('pd4').type).toBe('ok');
    await world.until(() => world.serving()[0]?.name === 'pd4', 'the new member serves', 10_000);
    world.crash(name);
    await world.settle(world.boot(away));
    await world.until(() => caughtUp(world, away, 'pd4'), 'it catches up', 20_000);
    expect(world.aborts).toEqual([]);
  });

  test('a removed member learns it and stays away', async () => {
    const world = await three(12);
    const { name, member } = await world.leader();
    const other = NAMES.find((each) => each !== name) as string;
    await world.settle(member.group.removeMember(other, false));
    await world.until(() => world.machine(other).wasRemoved, 'it learns of its removal', 20_000);
    await world.run(1);
    await expect(world.settle(world.boot(other))).rejects.toThrow('was removed from the cluster');
  });

  test('a removal that would leave no majority, the leader itself and unknown names are refused', async () => {
    const world = await three(13);
    const { name, member } = await world.leader();
    const [dead, alive] = NAMES.filter((other) => other !== name) as [string, string];
    const refusalOf = async (which: string): Promise<string> => {
      const result = await world.settle(member.group.removeMember(which, false));
      return result.type === 'refused' ? result.refusal.code : 'done';
    };
    expect(await refusalOf(name)).toBe('MemberIsLeader');
    expect(await refusalOf('pd9')).toBe('MemberNotFound');
    world.crash(dead);
    await world.run(4_000);
    expect(await refusalOf(alive)).toBe('WouldLoseQuorum');
    expect(await refusalOf(dead)).toBe('done');
    expect(await refusalOf(alive)).toBe('done');
    expect(await refusalOf(name)).toBe('WouldLoseQuorum');
    expect((await world.leader()).member.group.membership.confState.voters).toHaveLength(1);
    world.crash(name);
    await world.settle(world.boot(name));
    await world.leader(2_000);
  });

  test('members that answer are never shown as silent, at whatever moment one looks', async () => {
    const world = await three(20);
    const { member } = await world.leader();
    for (let i = 0; i < 400; i++) {
      await world.run(7);
      expect(member.group.status().members.map(({ isAnswering }) => isAnswering)).toEqual([true, true, true]);
    }
  });

  test('a name or address that is taken is refused; a learner that never came up is replaced under a new id', async () => {
    const world = await three(14);
    const { member } = await world.leader();
    const join = async (name: string, address: string): Promise<string | number> => {
      const result = await world.settle(member.group.addMember({ name, address }));
      return result.type === 'refused' ? result.refusal.code : result.value.id;
    };
    expect(await join('pd2', 'elsewhere')).toBe('MemberExists');
    expect(await join('pd9', 'pd2')).toBe('MemberExists');
    expect(await join('bad name', 'x')).toBe('InvalidArgument');
    expect(await join('pd9', 'pd9')).toBe(4);
    expect(await join('pd9', 'pd9')).toBe(5);
    expect(member.group.membership.members.map(({ id }) => id)).toEqual([1, 2, 3, 5]);
    // The dead learner counts for nothing.
    await ids(world, 30);
  });

  test('the lead moves to a named member, which then serves', async () => {
    const world = await three(15);
    const { name, member, node } = await world.leader();
    const target = NAMES.find((other) => other !== name) as string;
    const time = await timestamp(world);
    expect(member.group.transferLeader(target).type).toBe('ok');
    await world.until(() => world.serving()[0]?.name === target, 'the other one serves', 10_000);
    expect(node.isLeading).toBe(false);
    expect(await timestamp(world)).toBeGreaterThan(time);
    const unready = member.group.status();
    expect(unready.leader?.name).toBe(target);
    expect(() => member.group.transferLeader(name)).toThrow(NotLeaderError);
  });

  test('a leader that stops in order hands over first; one alone, or a follower, has nobody to wait for', async () => {
    const world = await three(18);
    const { name, member } = await world.leader();
    await world.settle(member.handOver(1_000));
    expect(member.group.leadTerm).toBeUndefined();
    expect(world.nowMs).toBeLessThan(10_000);
    const next = await world.leader(2_000);
    expect(next.name).not.toBe(name);
    await world.settle(member.handOver(1_000));
    expect((await world.leader()).name).toBe(next.name);
    const alone = new PdGroupWorld(19);
    await alone.settle(alone.boot('pd1'));
    await alone.settle((await alone.leader()).member.handOver(1_000));
    expect(alone.serving()).toHaveLength(1);
  });

  test('a handover that comes to nothing ends in another leadership, never in two', async () => {
    const world = await three(16);
    const { name, member } = await world.leader();
    const target = NAMES.find((other) => other !== name) as string;
    member.group.transferLeader(target);
    // The request to take over leaves, and is lost with the machine.
    world.cut(name, target);
    world.crash(target);
    let overlap = 0;
    await world.run(300);
    await world.until(
      () => {
        overlap = Math.max(overlap, world.serving().length);
        return world.serving().length > 0;
      },
      'somebody serves',
      20_000,
    );
    expect(overlap).toBe(1);
    expect(world.aborts).toEqual([]);
  });
});
