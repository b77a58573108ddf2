/** Placement members as whole processes on the simulated network, while clients that follow the leader take ids and time. */
import { expect, test } from 'vitest';
import { createRng } from '../../src/env/rng.ts';
import { composeTimestamp } from '../../src/pd/tso/timestamp-oracle.ts';
import { pdMethods } from '../../src/rpc/services.ts';
import { PdSimMembers } from '../support/pd-sim-members.ts';
import { Scheduler, SimClock } from './scheduler.ts';
import { SimHost, SimNetwork } from './sim-net.ts';
import { FailStop } from './store-cluster.ts';

const SEEDS = Number(process.env['PD_SEEDS'] ?? 12);
const ROUNDS = 8;
/** Longer than any election, lease and pause of a link together. */
const CALL_LIMIT_MS = 25_000;

async function runSeed(seed: number): Promise<number> {
  const rng = createRng(seed).fork('pd-members');
  const scheduler = new Scheduler(rng.fork('sched'));
  scheduler.onThrow = (error) => {
    if (!(error instanceof FailStop)) {
      throw error;
    }
  };
  const network = new SimNetwork(scheduler, rng.fork('net'), {
    delayMs: [0.2, rng.pick([2, 20])],
    retransmitChance: rng.pick([0, 0.02]),
    resetChance: rng.pick([0, 0.001]),
  });
  const pd = new PdSimMembers({ scheduler, network, rng: rng.fork('members'), count: 3 });
  const run = (forMs: number): Promise<boolean> => scheduler.pump(() => false, scheduler.nowMs + forMs);
  const until = async (what: string, done: () => boolean): Promise<void> => {
    expect(await scheduler.pump(done, scheduler.nowMs + 60_000), what).toBe(true);
  };
  const start = async (number: number): Promise<void> => {
    let isStarted = false;
    pd.start(number).then(
      () => {
        isStarted = true;
      },
      (error: unknown) => {
        if (!(error instanceof FailStop)) {
          throw error;
        }
      },
    );
    await until(`member ${number} starts`, () => isStarted);
  };
  let isFounded = false;
  void pd.startAll().then(() => {
    isFounded = true;
  });
  await until('the cluster is founded', () => isFounded);
  const voters = (): number => {
    const number = pd.serving();
    const member = number === undefined ? undefined : pd.members[number - 1]?.process?.member;
    return member?.group.membership.confState.voters.length ?? 0;
  };
  await until('three voters', () => voters() === 3);

  const clock = new SimClock(scheduler, 1);
  const host = new SimHost(network, 'client', 1, clock);
  const client = pd.client(host, rng.fork('client'));
  const failures: string[] = [];
  const ids: number[] = [];
  const times: bigint[] = [];
  let isStopping = false;
  let running = 0;
  const loop = async (call: () => Promise<void>): Promise<void> => {
    running++;
    while (!isStopping) {
      await call().catch((error: unknown) => failures.push(String(error)));
    }
    running--;
  };
  const header = { clusterId: '0', senderId: 0, callerId: '', callerComponent: '' };
  void loop(async () => {
    ids.push((await client.call(pdMethods.allocID, { header, count: 1 }, { timeoutMs: CALL_LIMIT_MS })).id);
  });
  void loop(async () => {
    const { timestamp } = await client.call(pdMethods.getMinTS, { header }, { timeoutMs: CALL_LIMIT_MS });
    times.push(composeTimestamp({ physical: Number(timestamp?.physical), logical: Number(timestamp?.logical) }));
  });
  for (let round = 0; round < ROUNDS; round++) {
    await run(1_000 + rng.below(2_000));
    const victim = pd.serving() ?? 1 + rng.below(3);
    const stalled = pd.members[victim - 1]?.host;
    switch (rng.below(3)) {
      case 0:
        pd.crash(victim, rng.chance(0.5) ? 'kill' : 'power-loss');
        await run(rng.below(5_000));
        await start(victim);
        break;
      case 1:
        stalled?.clock.stall(rng.below(6_000));
        break;
      default: {
        const block = (from: string, to: string): boolean => (from === `pd${victim}`) !== (to === `pd${victim}`);
        network.blocks.add(block);
        await run(rng.below(6_000));
        network.blocks.delete(block);
      }
    }
    await until('somebody serves', () => pd.serving() !== undefined);
  }
  isStopping = true;
  await until('the clients end', () => running === 0);
  client.close();
  expect(failures).toEqual([]);
  expect(pd.failStops).toEqual([]);
  expect(ids).toEqual([...new Set(ids)].sort((a, b) => a - b));
  for (const [i, time] of times.entries()) {
    expect(i === 0 || time > (times[i - 1] as bigint), 'a timestamp went back').toBe(true);
  }
  return ids.length + times.length;
}

test(`the leader is lost again and again in ${SEEDS} histories: no call fails, ids and time only grow`, async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const answers = await runSeed(seed).catch((cause: unknown) => {
      throw new Error(`seed ${seed}`, { cause });
    });
    expect(answers).toBeGreaterThan(100);
  }
});
