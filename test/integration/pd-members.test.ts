/** Three placement members on the real network of this machine, in one process. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { PdClient } from '../../src/client/pd-client.ts';
import { createMemoryEngineFactory } from '../../src/engine/memory/memory-engine.ts';
import { MemoryDisk } from '../../src/engine/memory/crash-model.ts';
import { sleep } from '../../src/env/clock.ts';
import type { Env } from '../../src/env/env.ts';
import { NO_FAILPOINTS } from '../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import { realClock } from '../../src/env/real/index.ts';
import { createRng } from '../../src/env/rng.ts';
import { unaryCall } from '../../src/rpc/call.ts';
import { createGrpcNet, type GrpcNet } from '../../src/rpc/grpc/grpc-net.ts';
import { pdMethods } from '../../src/rpc/services.ts';
import type { PdConfigInput } from '../../src/server/pd/config.ts';
import { type PdProcess, startPd } from '../../src/server/pd/pd-process.ts';
import { freePorts } from '../support/free-ports.ts';

const CALL = { timeoutMs: 2_000 };
/** A quick group: its members share this process, no network delays them. */
const GROUP = { tickMs: 20, electionTicks: 15, leaderLeaseMs: 200 };

interface Slot {
  readonly name: string;
  readonly address: string;
  readonly disk: MemoryDisk;
  net: GrpcNet;
  pd: PdProcess | undefined;
}

describe('three members', () => {
  const clock = realClock();
  let slots: Slot[];
  let clientNet: GrpcNet;

  const slot = (index: number): Slot => slots[index] as Slot;

  function makeEnv(at: Slot): Env {
    return {
      clock,
      rng: createRng(at.address.length + Number(at.name.slice(2))),
      net: at.net,
      engines: createMemoryEngineFactory(at.disk, clock),
      failpoints: NO_FAILPOINTS,
      log: SILENT_LOGGER,
      abort: (_kind, reason, cause) => {
        throw new Error(`aborted: ${reason}`, { cause });
      },
    };
  }

  async function start(at: Slot, config: Partial<PdConfigInput> = {}): Promise<PdProcess> {
    at.net = createGrpcNet();
    at.pd = await startPd({
      env: makeEnv(at),
      config: {
        name: at.name,
        dataDir: 'pd',
        listenAddress: at.address,
        closeGraceMs: 50,
        group: GROUP,
        startTimeoutMs: 10_000,
        ...config,
      },
    });
    return at.pd;
  }

  async function stop(at: Slot): Promise<void> {
    await at.pd?.close();
    at.pd = undefined;
    await at.net.close(0);
  }

  const initialCluster = (): string[] => slots.slice(0, 3).map(({ name, address }) => `${name}=http://${address}`);

  async function until(what: string, done: () => boolean | Promise<boolean>): Promise<void> {
    for (const deadlineMs = clock.monoMs() + 8_000; !(await done()); ) {
      if (clock.monoMs() > deadlineMs) {
        throw new Error(`not in time: ${what}`);
      }
      await sleep(clock, 20, 'test');
    }
  }

  const leader = (): Slot | undefined => slots.find(({ pd }) => pd?.member.node?.isLeading === true);

  async function untilVoters(count: number): Promise<Slot> {
    await until(`${count} voters`, () => leader()?.pd?.member.group.membership.confState.voters.length === count);
    return leader() as Slot;
  }

  const client = (): PdClient =>
    new PdClient({
      env: { net: clientNet, clock, rng: createRng(1), log: SILENT_LOGGER },
      endpoints: slots.slice(0, 3).map(({ address }) => address),
      name: 'test',
    });

  beforeEach(async () => {
    clientNet = createGrpcNet();
    const ports = await freePorts(5);
    slots = ports.map((port, i) => ({
      name: `pd${i + 1}`,
      address: `127.0.0.1:${port}`,
      disk: new MemoryDisk(createRng(i + 1), { writeDelayMs: [0, 1], readDelayMs: [0, 1] }),
      net: createGrpcNet(),
      pd: undefined,
    }));
  });

  afterEach(async () => {
    await Promise.all(slots.map(stop));
    await clientNet.close(0);
  });

  test('start together from one list, name each other, and refuse calls only the leader answers', async () => {
    const [first, ...others] = await Promise.all(
      slots.slice(0, 3).map((at) => start(at, { initialCluster: initialCluster() })),
    );
    const { name, address } = await untilVoters(3);
    expect(others.map(({ clusterId }) => clusterId)).toEqual([first?.clusterId, first?.clusterId]);
    const follower = slots.slice(0, 3).find((at) => at.name !== name) as Slot;
    await until('the follower knows the leader', () => follower.pd?.member.leader?.name === name);
    const channel = clientNet.dial(follower.address);
    const members = await unaryCall(channel, pdMethods.getMembers, { header: undefined }, CALL);
    expect(members.members.map((member) => member.name).sort()).toEqual(['pd1', 'pd2', 'pd3']);
    expect(members.leader?.clientUrls).toEqual([`http://${address}`]);
    expect(members.header?.clusterId).toBe(String(first?.clusterId));
    const header = { clusterId: '0', senderId: 0, callerId: '', callerComponent: '' };
    await expect(unaryCall(channel, pdMethods.isBootstrapped, { header }, CALL)).rejects.toMatchObject({
      status: 14,
      message: expect.stringMatching(new RegExp(`not leader.*${name} at ${address}`, 'u')),
    });
    channel.close();
  });

  test('a client with several endpoints sees no failure while leaders come and go; ids never repeat', async () => {
    await Promise.all(slots.slice(0, 3).map((at) => start(at, { initialCluster: initialCluster() })));
    await untilVoters(3);
    const pd = client();
    await pd.connect(5_000);
    const seen: number[] = [];
    let isDone = false;
    const header = { clusterId: String(pd.clusterId), senderId: 0, callerId: '', callerComponent: '' };
    const load = (async () => {
      while (!isDone) {
        const { id } = await pd.call(pdMethods.allocID, { header, count: 1 }, { timeoutMs: 5_000 });
        seen.push(id);
      }
    })();
    for (let round = 0; round < 3; round++) {
      await until('some calls', () => seen.length > (round + 1) * 20);
      // A leader that gets no time is not sure of its lead for a moment.
      await until('a leader', () => leader() !== undefined);
      const old = leader() as Slot;
      await stop(old);
      await until('another leader', () => leader() !== undefined);
      await start(old);
      await until('everybody is back', () => old.pd?.member.leader !== undefined);
    }
    isDone = true;
    await load;
    pd.close();
    expect(new Set(seen).size).toBe(seen.length);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  test('a member that lost its data is refused under its name until it was removed', async () => {
    await Promise.all(slots.slice(0, 3).map((at) => start(at, { initialCluster: initialCluster() })));
    const { name } = await untilVoters(3);
    const lost = slots.slice(0, 3).find((at) => at.name !== name) as Slot;
    await stop(lost);
    lost.disk.crash('kill');
    const emptied = { ...lost, disk: new MemoryDisk(createRng(77), { writeDelayMs: [0, 1], readDelayMs: [0, 1] }) };
    slots[slots.indexOf(lost)] = emptied;
    const list = { initialCluster: initialCluster() };
    await expect(start(emptied, list)).rejects.toMatchObject({
      code: 'MemberExists',
      hint: expect.stringContaining(`member remove ${lost.name}`),
    });
    await emptied.net.close(0);
    const removed = await leader()?.pd?.member.group.removeMember(lost.name, false);
    expect(removed?.type).toBe('ok');
    await start(emptied, list);
    await untilVoters(3);
    expect(emptied.pd?.member.id).toBe(4);
  });

  test('a member joins a member that ran alone, and learns of its removal', async () => {
    const alone = await start(slot(0));
    const joined = await start(slot(1), { join: [`http://${slot(0).address}`] });
    expect(joined.clusterId).toBe(alone.clusterId);
    const leading = (await untilVoters(2)).pd as PdProcess;
    const { group } = leading.member;
    const other = leader() === slot(0) ? slot(1) : slot(0);
    const removed = (other.pd as PdProcess).removed;
    expect((await group.removeMember(other.name, false)).type).toBe('ok');
    await expect(removed).resolves.toMatchObject({ code: 'MemberRemoved', hint: expect.stringContaining('--join') });
    await stop(other);
    await expect(start(other)).rejects.toMatchObject({ code: 'MemberRemoved' });
  });

  test('a member that was removed while it was away learns it from the others', async () => {
    await Promise.all(slots.slice(0, 3).map((at) => start(at, { initialCluster: initialCluster() })));
    const { name, pd } = await untilVoters(3);
    const away = slots.slice(0, 3).find((at) => at.name !== name) as Slot;
    await stop(away);
    expect((await pd?.member.group.removeMember(away.name, false))?.type).toBe('ok');
    const { removed } = await start(away);
    await expect(removed).resolves.toMatchObject({ code: 'MemberRemoved' });
  });

  test('a member that comes back at another address makes it known', async () => {
    await Promise.all(slots.slice(0, 3).map((at) => start(at, { initialCluster: initialCluster() })));
    const { name } = await untilVoters(3);
    const moved = slots.slice(0, 3).find((at) => at.name !== name) as Slot;
    await stop(moved);
    const { address } = slot(4);
    await start(moved, { listenAddress: address });
    await until('the leader knows the address', () =>
      (leader()?.pd?.member.group.membership.members ?? []).some((each) => each.address === address),
    );
  });

  test('a list without this member, or with a bad address, and a founder nobody answers are refused', async () => {
    const bad = (config: Partial<PdConfigInput>) => start(slot(0), config);
    await expect(bad({ initialCluster: ['pd9=http://127.0.0.1:1'] })).rejects.toMatchObject({ code: 'BadConfig' });
    await expect(bad({ initialCluster: ['pd1'] })).rejects.toMatchObject({ code: 'BadConfig' });
    await expect(bad({ initialCluster: ['pd1=h:1'], join: ['h:1'] })).rejects.toMatchObject({ code: 'BadConfig' });
    await expect(bad({ initialCluster: initialCluster(), startTimeoutMs: 600 })).rejects.toMatchObject({
      code: 'MembersSilent',
      message: expect.stringContaining('pd2'),
    });
    await expect(bad({ join: [slot(1).address], startTimeoutMs: 600 })).rejects.toMatchObject({
      code: 'JoinFailed',
      hint: expect.stringMatching(/./u),
    });
  });
});
