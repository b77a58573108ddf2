/**
 * One random history of a placement service: members crash with power loss, freeze, are cut off, lag, are removed and
 * joined, hand over the lead, while clients ask whoever claims to lead for ids and timestamps. `run` throws when a
 * promise of the service is broken. Deterministic for a seed.
 */
import { deepStrictEqual, ok as holds } from 'node:assert/strict';
import { fromUtf8, toHex } from '../../src/base/bytes.ts';
import { createRng, type Rng } from '../../src/env/rng.ts';
import type { PdNode } from '../../src/pd/pd-node.ts';
import { composeTimestamp } from '../../src/pd/tso/timestamp-oracle.ts';
import { PdGroupWorld } from './pd-group-world.ts';

const STEPS = 25;
const NAMES_MAX = 5;

interface Answer {
  readonly askedMs: number;
  readonly gotMs: number;
  readonly first: bigint;
  readonly last: bigint;
}

export class PdHistory {
  readonly seed: number;
  readonly rng: Rng;
  readonly world: PdGroupWorld;
  readonly timestamps: Answer[] = [];
  readonly ids: Answer[] = [];
  /** The largest value of a setting whose change was confirmed, and the last one that was asked for. */
  confirmed = 0;
  asked = 0;
  /** Values whose change was confirmed to somebody. */
  readonly #acknowledged = new Set<number>();
  served = 0;
  #nextName = 4;

  constructor(seed: number) {
    this.seed = seed;
    this.rng = createRng(seed).fork('history');
    this.world = new PdGroupWorld(seed, { logKeepEntries: this.rng.pick([8, 64, 2_048]) });
  }

  /**
   * Asks every member that leads or led when it was last heard from. One that is frozen finds the question when it goes
   * on, perhaps before anything else.
   */
  ask(): void {
    const { world } = this;
    const askedMs = world.nowMs;
    for (const machine of world.machines.values()) {
      const { member, clock, incarnation } = machine;
      const node = member?.node;
      if (node === undefined) {
        continue;
      }
      // Nobody hears what a process says after its death.
      const isHeard = (): boolean => machine.incarnation === incarnation;
      clock.deliver(() => {
        const count = 1 + this.rng.below(50);
        node.timestamps(count).then(
          (ts) => {
            if (!isHeard()) {
              return;
            }
            const last = composeTimestamp(ts);
            this.timestamps.push({ askedMs, gotMs: world.nowMs, first: last - BigInt(count - 1), last });
          },
          () => undefined,
        );
        const ids = 1 + this.rng.below(12);
        node.allocIds(ids).then(
          (result) => {
            if (result.type === 'ok' && isHeard()) {
              const first = BigInt(result.value);
              this.ids.push({ askedMs, gotMs: world.nowMs, first, last: first + BigInt(ids - 1) });
            }
          },
          () => undefined,
        );
      }, 'ask');
    }
  }

  /** Changes a setting to a value larger than all before. */
  change(): void {
    const [leader] = this.world.serving();
    if (leader !== undefined) {
      const value = ++this.asked;
      const machine = this.world.machine(leader.name);
      const { incarnation } = machine;
      leader.node.setMaxReplicas(value).then(
        () => {
          if (machine.incarnation === incarnation) {
            this.confirmed = Math.max(this.confirmed, value);
            this.#acknowledged.add(value);
          }
        },
        () => undefined,
      );
    }
  }

  async disturb(): Promise<void> {
    const { world, rng } = this;
    const running = [...world.machines.values()].filter(({ member }) => member !== undefined);
    const stopped = [...world.machines.values()].filter(
      ({ member, wasRemoved }) => member === undefined && !wasRemoved,
    );
    const victim = running.length === 0 ? undefined : rng.pick(running).name;
    switch (rng.below(12)) {
      case 0:
      case 1:
        if (victim !== undefined) {
          world.crash(victim, rng.chance(0.5) ? 'kill' : 'power-loss');
        }
        break;
      case 2:
      case 3: {
        const back = stopped.length === 0 ? undefined : rng.pick(stopped).name;
        if (back !== undefined) {
          // A member that was removed while it was away is told so at its start.
          await world.settle(world.boot(back)).catch(() => {
            world.machine(back).wasRemoved = true;
          });
        }
        break;
      }
      case 4: {
        const [leader] = world.serving();
        const frozen = rng.chance(0.7) ? (leader?.name ?? victim) : victim;
        if (frozen !== undefined) {
          world.freeze(frozen, rng.below(6_000));
        }
        break;
      }
      case 5:
        if (victim !== undefined) {
          world.isolate(victim);
        }
        break;
      case 6:
        if (running.length >= 2) {
          world.cut(rng.pick(running).name, rng.pick(running).name);
        }
        break;
      case 7:
        world.heal();
        break;
      case 8: {
        const [leader] = world.serving();
        if (leader !== undefined) {
          try {
            leader.member.group.transferLeader(undefined);
          } catch {
            // It has just lost the lead.
          }
        }
        break;
      }
      case 9:
        if (victim !== undefined) {
          world.machine(victim).clock.setRate(0.98 + rng.float() * 0.04);
        }
        break;
      case 10: {
        const [leader] = world.serving();
        if (victim !== undefined && leader !== undefined) {
          leader.member.group.removeMember(victim, false).catch(() => undefined);
        }
        break;
      }
      default: {
        const [leader] = world.serving();
        if (leader !== undefined && world.machines.size < NAMES_MAX) {
          const name = `pd${this.#nextName++}`;
          const joined = await Promise.race([
            leader.member.group.addMember({ name, address: name }).catch(() => undefined),
            world.run(5_000),
          ]);
          if (typeof joined === 'object' && joined.type === 'ok') {
            await world.settle(world.boot(name, { id: joined.value.id, clusterId: leader.member.clusterId }));
          }
        }
      }
    }
  }

  async run(): Promise<void> {
    const { world, rng } = this;
    await world.form('pd1', 'pd2', 'pd3');
    world.net.lossChance = rng.pick([0, 0.02, 0.1]);
    world.net.repeatChance = rng.pick([0, 0.1]);
    world.net.delayMs = rng.pick([
      [0.2, 3],
      [1, 60],
    ] as const);
    for (let step = 0; step < STEPS; step++) {
      await this.disturb();
      const untilMs = world.nowMs + rng.below(2_500);
      while (world.nowMs < untilMs) {
        await world.run(20 + rng.below(300));
        this.ask();
        if (rng.chance(0.2)) {
          this.change();
        }
        this.served += world.serving().length > 0 ? 1 : 0;
        holds(world.serving().length <= 1, 'two members serve at the same time');
      }
    }
    await this.recover();
    this.check();
  }

  /** When everything is well again, somebody serves and all members agree. */
  async recover(): Promise<void> {
    const { world } = this;
    world.heal();
    world.net.lossChance = 0;
    await world.run(5_000);
    for (const { name, member, wasRemoved } of [...world.machines.values()]) {
      if (member === undefined && !wasRemoved) {
        await world.settle(world.boot(name)).catch(() => {
          world.machine(name).wasRemoved = true;
        });
      }
    }
    const { node, member } = await world.leader(30_000);
    this.ask();
    await world.run(3_000);
    const { maxReplicas } = node.placement.cluster.config;
    holds(
      this.confirmed === 0 || (maxReplicas >= this.confirmed && maxReplicas <= this.asked),
      'a confirmed change is lost',
    );
    this.#checkAudit(node.audit.entries);
    const { appliedIndex } = member.group.status();
    const voters = member.group.membership.confState.voters;
    const others = [...world.machines.values()].filter(
      (machine) => machine.member !== undefined && voters.includes(machine.member.id),
    );
    await world.until(
      () => others.every((machine) => (machine.member?.group.status().appliedIndex ?? 0) >= appliedIndex),
      'all voters catch up',
    );
    await world.run(500);
    for (const { name } of others) {
      deepStrictEqual(this.#records(name), this.#records(others[0]?.name ?? name), 'members differ');
    }
  }

  /** Every confirmed change has left one entry, every other one at most one, and they are numbered without gaps. */
  #checkAudit(entries: PdNode['audit']['entries']): void {
    const told = entries.filter(({ type }) => type === 'replica-count').map(({ message }) => message);
    holds(new Set(told).size === told.length, 'the audit log tells of a change twice');
    for (const value of this.#acknowledged) {
      const message = `the cluster is to have ${value} replicas of everything`;
      holds(told.includes(message), `the audit log does not tell of the change to ${value}`);
    }
    deepStrictEqual(
      entries.map(({ sequence }) => sequence),
      entries.map((_, i) => i + 1),
      'the audit log has gaps',
    );
  }

  /** The replicated records on the disk of a member; the reservation of time changes all the while. */
  #records(name: string): Map<string, string> {
    const database = this.world.machine(name).disk.database('pd');
    const records = new Map<string, string>();
    for (const [key, value] of database?.view.entries() ?? []) {
      const text = fromUtf8(key);
      if (text.startsWith('pd/') && text !== 'pd/tso') {
        records.set(text, toHex(value));
      }
    }
    holds(records.size > 2, 'a member has no records');
    return records;
  }

  check(): void {
    deepStrictEqual(this.world.aborts, []);
    for (const answers of [this.timestamps, this.ids]) {
      const byValue = [...answers].sort((a, b) => (a.first < b.first ? -1 : 1));
      for (const [i, answer] of byValue.entries()) {
        const before = byValue[i - 1];
        holds(before === undefined || before.last < answer.first, 'given twice');
      }
    }
    // Timestamps: what is asked for after an answer was received is larger.
    const byAsking = [...this.timestamps].sort((a, b) => a.askedMs - b.askedMs);
    const byGetting = [...this.timestamps].sort((a, b) => a.gotMs - b.gotMs);
    let largest = 0n;
    let received = 0;
    for (const { askedMs, first } of byAsking) {
      for (; (byGetting[received]?.gotMs ?? Infinity) < askedMs; received++) {
        const { last } = byGetting[received] as Answer;
        largest = last > largest ? last : largest;
      }
      holds(first > largest, 'a timestamp went back');
    }
  }
}
