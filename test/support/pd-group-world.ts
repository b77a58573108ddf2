/**
 * Members of a placement service on virtual time, memory disks and a network that loses, repeats, delays and cuts. The
 * members are unmodified; only what is below the transport seam is replaced. Deterministic for a seed.
 */
import { assert } from '../../src/base/assert.ts';
import { AppError } from '../../src/base/app-error.ts';
import { createMemoryEngineFactory } from '../../src/engine/memory/memory-engine.ts';
import { type CrashKind, MemoryDisk } from '../../src/engine/memory/crash-model.ts';
import type { EngineFactory } from '../../src/env/engine.ts';
import type { Env } from '../../src/env/env.ts';
import { NO_FAILPOINTS } from '../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import { createRng, type Rng } from '../../src/env/rng.ts';
import { DEFAULT_ALLOCATION_CONFIG, DEFAULT_PLACEMENT_CONFIG } from '../../src/pd/defaults.ts';
import { DEFAULT_GROUP_CONFIG, type GroupConfig } from '../../src/pd/group/config.ts';
import { foundGroup, joinGroup } from '../../src/pd/group/group-disk.ts';
import type { GroupTransport } from '../../src/pd/group/group-loop.ts';
import type { Member } from '../../src/pd/group/membership.ts';
import { type Recovery, type RecoveryOptions, recoverGroup } from '../../src/pd/group/recover.ts';
import { openDirectory, PdMember } from '../../src/pd/pd-member.ts';
import type { PdNode } from '../../src/pd/pd-node.ts';
import { copyMessage } from '../../src/raft/message.ts';
import type { Message } from '../../src/raft/types.ts';
import { consoleLogger } from '../sim/store-cluster.ts';
import { Scheduler, SimClock } from '../sim/scheduler.ts';

const ABORTED = Symbol('aborted');
/** How late a message is that a sweep delays. */
const LATE_MS = 2_000;

export interface Machine {
  readonly name: string;
  readonly disk: MemoryDisk;
  clock: SimClock;
  member: PdMember | undefined;
  incarnation: number;
  wasRemoved: boolean;
}

export interface NetBehavior {
  delayMs: readonly [number, number];
  lossChance: number;
  repeatChance: number;
}

export class PdGroupWorld {
  readonly rng: Rng;
  readonly scheduler: Scheduler;
  readonly machines: Map<string, Machine> = new Map();
  readonly aborts: string[] = [];
  readonly net: NetBehavior = { delayMs: [0.2, 3], lossChance: 0, repeatChance: 0 };
  /** What members did so far that others or a later life can see: messages and writes; and the messages among them. */
  effects = 0;
  sent = 0;
  /** Told of the k-th effect before it takes place; may crash machines. */
  onEffect: ((number: number, name: string) => void) | undefined;
  /** Decides the fate of the k-th message, for sweeps. */
  messageFault: ((number: number) => 'drop' | 'duplicate' | 'delay' | undefined) | undefined;
  readonly #config: GroupConfig;
  /** Cut links, as `from>to`. */
  readonly #cuts = new Set<string>();

  constructor(seed: number, config: Partial<GroupConfig> = {}) {
    this.rng = createRng(seed).fork('pd-group');
    this.scheduler = new Scheduler(this.rng.fork('sched'));
    this.#config = { ...DEFAULT_GROUP_CONFIG, ...config };
    this.scheduler.onThrow = (error) => {
      if (error !== ABORTED) {
        throw error;
      }
    };
  }

  get nowMs(): number {
    return this.scheduler.nowMs;
  }

  machine(name: string): Machine {
    let machine = this.machines.get(name);
    if (machine === undefined) {
      machine = {
        name,
        disk: new MemoryDisk(this.rng.fork(`disk-${name}`)),
        clock: new SimClock(this.scheduler),
        member: undefined,
        incarnation: 0,
        wasRemoved: false,
      };
      this.machines.set(name, machine);
    }
    return machine;
  }

  #env(machine: Machine): Env {
    const { clock, name, incarnation } = machine;
    return {
      clock,
      rng: this.rng.fork(`${name}-${incarnation}`),
      net: {
        dial: () => {
          throw new Error('members of this world have no other network');
        },
        listen: () => Promise.reject(new Error('members of this world have no other network')),
      },
      engines: this.#countedEngines(machine, createMemoryEngineFactory(machine.disk, clock)),
      failpoints: NO_FAILPOINTS,
      log:
        process.env['SIM_LOG'] === undefined
          ? SILENT_LOGGER
          : consoleLogger(() => this.scheduler.nowMs, { host: name }),
      abort: (kind, reason, cause) => {
        if (machine.incarnation !== incarnation) {
          // What a process does after its death, nobody sees.
          throw ABORTED as unknown as Error;
        }
        this.aborts.push(`${name} ${kind}: ${reason} ${cause instanceof Error ? (cause.stack ?? '') : ''}`);
        clock.kill();
        throw ABORTED as unknown as Error;
      },
    };
  }

  #effect(name: string): void {
    this.effects++;
    this.onEffect?.(this.effects, name);
  }

  #countedEngines(machine: Machine, factory: EngineFactory): EngineFactory {
    const { incarnation } = machine;
    return {
      open: async (options) => {
        const engine = await factory.open(options);
        const write = engine.write.bind(engine);
        engine.write = (batch) => {
          if (machine.incarnation === incarnation) {
            this.#effect(machine.name);
          }
          return write(batch);
        };
        return engine;
      },
    };
  }

  #transport(from: Machine): GroupTransport {
    const { incarnation } = from;
    const isAlive = (): boolean => from.incarnation === incarnation && from.member !== undefined;
    const deliver = (to: Member, message: Message, then: (ok: boolean) => void): void => {
      if (from.incarnation === incarnation) {
        this.#effect(from.name);
      }
      if (from.incarnation !== incarnation) {
        return;
      }
      this.sent++;
      const fault = this.messageFault?.(this.sent);
      const target = this.machines.get(to.name);
      const sender = { id: message.from, name: from.name, address: from.name };
      const { delayMs, lossChance, repeatChance } = this.net;
      const isCut = fault === 'drop' || this.#cuts.has(`${from.name}>${to.name}`);
      if (target === undefined || isCut || this.rng.chance(lossChance)) {
        this.scheduler.at(5, () => isAlive() && then(false));
        return;
      }
      const copies = fault === 'duplicate' || this.rng.chance(repeatChance) ? 2 : 1;
      const lateMs = fault === 'delay' ? LATE_MS : 0;
      for (let i = 0; i < copies; i++) {
        const copy = copyMessage(message);
        const life = target.incarnation;
        this.scheduler.at(lateMs + delayMs[0] + this.rng.float() * (delayMs[1] - delayMs[0]), () => {
          if (target.incarnation === life && target.member?.id === message.to) {
            target.clock.deliver(() => target.member?.group.receive(copy, sender), 'message');
          }
        });
      }
      this.scheduler.at(delayMs[1] * 2, () => isAlive() && then(true));
    };
    return {
      send: (to, message) => deliver(to, message, () => undefined),
      flush: () => undefined,
      sendSnapshot: (to, message, done) => deliver(to, message, done),
    };
  }

  /** Starts the process on a machine. An empty disk founds a group, or holds the given place in one. */
  boot(name: string, joinAs?: { readonly id: number; readonly clusterId: bigint }): Promise<void> {
    const machine = this.machine(name);
    assert(machine.member === undefined, 'the machine runs already', { name });
    machine.clock = new SimClock(this.scheduler);
    machine.incarnation++;
    const life = machine.incarnation;
    const env = this.#env(machine);
    const run = async (): Promise<void> => {
      const engine = await env.engines.open({ path: 'pd', createIfMissing: true });
      const content = await openDirectory(engine, undefined);
      let ident = content.type === 'member' ? content.ident : undefined;
      if (ident === undefined && joinAs !== undefined) {
        ident = { memberId: joinAs.id, name, clusterId: joinAs.clusterId };
        await joinGroup(engine, ident);
      }
      ident ??= await foundGroup(engine, { id: 1, name, address: name }, 0n);
      const member = await PdMember.open({
        env,
        engine,
        ident,
        address: name,
        transport: this.#transport(machine),
        restarted: content.type !== 'empty',
        config: {
          group: this.#config,
          placement: DEFAULT_PLACEMENT_CONFIG,
          allocation: { ...DEFAULT_ALLOCATION_CONFIG, idWindow: 20, tsoWindowMs: 200 },
        },
        events: {
          onRemoved: () => {
            machine.wasRemoved = true;
            this.scheduler.at(0, () => machine.incarnation === life && this.crash(name));
          },
        },
      });
      if (machine.incarnation === life) {
        machine.member = member;
      }
    };
    return run();
  }

  /** Works on the disk of a machine that does not run. */
  async recover(name: string, options: Partial<RecoveryOptions> = {}): Promise<Recovery> {
    const machine = this.machine(name);
    assert(machine.member === undefined, 'the machine runs', { name });
    machine.clock = new SimClock(this.scheduler);
    const env = this.#env(machine);
    const engine = await env.engines.open({ path: 'pd', createIfMissing: true });
    try {
      return await recoverGroup(engine, {
        wallMs: env.clock.wallMs(),
        idsAhead: 10_000,
        timeAheadMs: 10_000,
        isDryRun: false,
        ...options,
      });
    } finally {
      await engine.close();
      machine.clock.kill();
      machine.incarnation++;
    }
  }

  /** The process is gone; what was not synced may be. */
  crash(name: string, kind: CrashKind = 'power-loss'): void {
    const machine = this.machine(name);
    machine.clock.kill();
    machine.member = undefined;
    machine.incarnation++;
    machine.disk.crash(kind);
  }

  /** Nothing of this machine runs for so long, its clock goes on. */
  freeze(name: string, forMs: number): void {
    this.machine(name).clock.stall(forMs);
  }

  cut(from: string, to: string): void {
    this.#cuts.add(`${from}>${to}`);
  }

  /** Separates one machine from all others. */
  isolate(name: string): void {
    for (const other of this.machines.keys()) {
      if (other !== name) {
        this.cut(name, other);
        this.cut(other, name);
      }
    }
  }

  heal(): void {
    this.#cuts.clear();
  }

  // ---------------------------------------------------------------------------------------------- running

  run(forMs: number): Promise<boolean> {
    // Time passes also when nothing runs.
    this.scheduler.at(forMs + 0.001, () => undefined);
    return this.scheduler.pump(() => false, this.nowMs + forMs);
  }

  async until(done: () => boolean, what: string, withinMs = 60_000): Promise<void> {
    if (!(await this.scheduler.pump(done, this.nowMs + withinMs))) {
      throw new Error(`not within ${withinMs} ms of virtual time: ${what}; aborts: ${this.aborts.join('; ')}`);
    }
  }

  async settle<T>(promise: Promise<T>, withinMs = 60_000): Promise<T> {
    let isSettled = false;
    const mark = (): void => {
      isSettled = true;
    };
    promise.then(mark, mark);
    await this.until(() => isSettled, 'the promise settles', withinMs);
    return promise;
  }

  /** Members that would answer as the leader at this moment. */
  serving(): readonly { readonly name: string; readonly node: PdNode; readonly member: PdMember }[] {
    return [...this.machines.values()].flatMap(({ name, member, clock }) =>
      member?.node !== undefined && member.node.isLeading && clock.stalledMs === 0
        ? [{ name, node: member.node, member }]
        : [],
    );
  }

  async leader(
    withinMs?: number,
  ): Promise<{ readonly name: string; readonly node: PdNode; readonly member: PdMember }> {
    await this.until(() => this.serving().length > 0, 'somebody serves', withinMs);
    const [leader] = this.serving();
    assert(leader !== undefined, 'somebody serves');
    return leader;
  }

  /** Joins a machine with an empty disk through the leader, again and again until it succeeds. */
  async join(name: string): Promise<void> {
    const leader = await this.leader();
    const joined = await this.settle(leader.member.group.addMember({ name, address: name }));
    if (joined.type === 'refused') {
      throw new AppError(joined.refusal.code, joined.refusal.message);
    }
    await this.settle(this.boot(name, { id: joined.value.id, clusterId: leader.member.clusterId }));
  }

  async untilVoters(count: number): Promise<void> {
    await this.until(() => {
      const [leader] = this.serving();
      return leader?.member.group.membership.confState.voters.length === count;
    }, `${count} voters`);
  }

  /** A group of `names` in which everybody votes. */
  async form(...names: readonly string[]): Promise<void> {
    const [first, ...others] = names;
    await this.settle(this.boot(first as string));
    for (const [i, name] of others.entries()) {
      await this.join(name);
      await this.untilVoters(i + 2);
    }
  }
}
