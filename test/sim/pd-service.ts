/**
 * The members of the placement service in the world that holds nothing else: each a real member on a machine with a
 * clock and a disk of its own. They crash, stall, are cut off, hand the lead over, join, leave and are replaced. One
 * member alone takes the same way.
 */
import { AppError } from '../../src/base/app-error.ts';
import { createMemoryEngineFactory, MemoryDisk } from '../../src/engine/index.ts';
import type { Env } from '../../src/env/env.ts';
import { NO_FAILPOINTS } from '../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import type { Rng } from '../../src/env/rng.ts';
import { DEFAULT_GROUP_CONFIG } from '../../src/pd/group/config.ts';
import { foundGroup, joinGroup } from '../../src/pd/group/group-disk.ts';
import type { GroupTransport } from '../../src/pd/group/group-loop.ts';
import type { Member } from '../../src/pd/group/membership.ts';
import { openDirectory, PdMember } from '../../src/pd/pd-member.ts';
import type { PdNode, PdNodeConfig } from '../../src/pd/pd-node.ts';
import { copyMessage } from '../../src/raft/message.ts';
import type { Message } from '../../src/raft/types.ts';
import { type Scheduler, SimClock } from './scheduler.ts';
import { FailStop } from './store-cluster.ts';

export interface PdMachine {
  readonly name: string;
  readonly disk: MemoryDisk;
  clock: SimClock;
  member: PdMember | undefined;
  incarnation: number;
  isStarting: boolean;
  /** Its place in the group, as the leader gave it; an empty disk without one founds the group. */
  place: { readonly id: number; readonly clusterId: bigint } | undefined;
  wallOffsetMs: number;
  /** Taken out of the group for good. */
  isRetired: boolean;
}

export interface PdServiceOptions {
  readonly scheduler: Scheduler;
  readonly rng: Rng;
  readonly config: PdNodeConfig;
  readonly writeDelayMs: readonly [number, number];
  /** Time a message between members takes, ms. */
  readonly delayMs: readonly [number, number];
  readonly lossChance: () => number;
  /** Whether a member may stop because of its disk. */
  readonly mayStop: () => boolean;
  readonly onFailStop: (text: string) => void;
}

const SNAPSHOT_REFUSED_MS = 5;

export class PdService {
  readonly machines: PdMachine[] = [];
  readonly #options: PdServiceOptions;
  /** Links that carry nothing at present, as `from>to`. */
  readonly #cuts = new Map<string, number>();
  #latest: PdNode | undefined;

  constructor(options: PdServiceOptions) {
    this.#options = options;
  }

  /** The node that serves, or did so last and is not closed; undefined while there is none. */
  get node(): PdNode | undefined {
    const leading = this.#members().find(({ node }) => node?.isLeading === true)?.node;
    if (leading !== undefined) {
      this.#latest = leading;
    } else if (this.#latest !== undefined && !this.#members().some(({ node }) => node === this.#latest)) {
      this.#latest = undefined;
    }
    return this.#latest;
  }

  /** Members that would answer as leaders now. */
  get leading(): readonly PdMachine[] {
    return this.machines.filter(({ member }) => member?.node?.isLeading === true);
  }

  /** The machine of the node that serves. */
  get leader(): PdMachine | undefined {
    const { node } = this;
    return node === undefined ? undefined : this.machines.find(({ member }) => member?.node === node);
  }

  get active(): readonly PdMachine[] {
    return this.machines.filter(({ isRetired }) => !isRetired);
  }

  #members(): PdMember[] {
    return this.machines.flatMap(({ member }) => (member === undefined ? [] : [member]));
  }

  addMachine(place: PdMachine['place'], wallOffsetMs: number): PdMachine {
    const { rng, scheduler, writeDelayMs } = this.#options;
    const name = `pd${this.machines.length + 1}`;
    const machine: PdMachine = {
      name,
      disk: new MemoryDisk(rng.fork(`disk-${name}`), { writeDelayMs }),
      clock: new SimClock(scheduler, 1),
      member: undefined,
      incarnation: 0,
      isStarting: false,
      place,
      wallOffsetMs,
      isRetired: false,
    };
    this.machines.push(machine);
    return machine;
  }

  boot(machine: PdMachine): void {
    if (machine.isStarting || machine.member !== undefined || machine.isRetired) {
      return;
    }
    machine.isStarting = true;
    this.#start(machine).catch((error: unknown) => {
      if (error instanceof AppError && error.code === 'MemberRemoved') {
        // It was taken out while it was away, and its disk says so.
        this.retire(machine);
      } else if (!(error instanceof FailStop)) {
        const text = error instanceof Error ? error.stack : String(error);
        this.#options.onFailStop(`${machine.name} did not start: ${text}`);
      }
    });
  }

  async #start(machine: PdMachine): Promise<void> {
    const { rng, scheduler, config, mayStop, onFailStop } = this.#options;
    const { name, disk } = machine;
    const incarnation = ++machine.incarnation;
    const clock = new SimClock(scheduler, 1);
    clock.jumpWall(machine.wallOffsetMs);
    machine.clock = clock;
    const env: Env = {
      clock,
      rng: rng.fork(`${name}-${incarnation}`),
      net: undefined as never,
      engines: createMemoryEngineFactory(disk, clock),
      failpoints: NO_FAILPOINTS,
      log: SILENT_LOGGER,
      abort: (kind, reason, cause) => {
        if (incarnation === machine.incarnation) {
          if (!(kind === 'storage' && mayStop())) {
            onFailStop(`${name} ${kind}: ${reason}`);
          }
          this.crash(machine, 'kill');
        }
        throw new FailStop(reason, { cause });
      },
    };
    const engine = await env.engines.open({ path: 'pd', createIfMissing: true });
    const content = await openDirectory(engine, config.clusterId);
    let ident = content.type === 'member' ? content.ident : undefined;
    if (ident === undefined && machine.place !== undefined) {
      ident = { memberId: machine.place.id, name, clusterId: machine.place.clusterId };
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
      config: { ...config, group: DEFAULT_GROUP_CONFIG },
      events: {
        onRemoved: () => {
          scheduler.at(0, () => machine.incarnation === incarnation && this.retire(machine), {
            node: 1,
            kind: 'leave',
          });
        },
      },
    });
    if (machine.incarnation === incarnation) {
      machine.isStarting = false;
      machine.member = member;
    }
  }

  #transport(from: PdMachine): GroupTransport {
    const { scheduler, rng, delayMs, lossChance } = this.#options;
    const { incarnation } = from;
    const dice = rng.fork(`link-${from.name}-${incarnation}`);
    const isAlive = (): boolean => from.incarnation === incarnation && from.member !== undefined;
    const deliver = (to: Member, message: Message, then: (ok: boolean) => void): void => {
      if (from.incarnation !== incarnation) {
        return;
      }
      const target = this.machines.find(({ name }) => name === to.name);
      if (target === undefined || this.#isCut(from.name, to.name) || dice.chance(lossChance())) {
        scheduler.at(SNAPSHOT_REFUSED_MS, () => isAlive() && then(false), { node: 1, kind: 'lost' });
        return;
      }
      const copy = copyMessage(message);
      const life = target.incarnation;
      const [min, max] = delayMs;
      const sender = { id: message.from, name: from.name, address: from.name };
      scheduler.at(
        min + dice.float() * (max - min),
        () => {
          if (target.incarnation === life && target.member?.id === message.to) {
            target.clock.deliver(() => target.member?.group.receive(copy, sender), 'message');
          }
        },
        { node: 1, kind: 'message' },
      );
      scheduler.at(max * 2, () => isAlive() && then(true), { node: 1, kind: 'sent' });
    };
    return {
      send: (to, message) => deliver(to, message, () => undefined),
      flush: () => undefined,
      sendSnapshot: (to, message, done) => deliver(to, message, done),
    };
  }

  crash(machine: PdMachine, kind: 'kill' | 'power-loss'): void {
    machine.incarnation++;
    machine.isStarting = false;
    machine.member = undefined;
    machine.clock.kill();
    machine.disk.crash(kind);
  }

  /** It belongs to the group no more: its process ends, and its disk is never used again. */
  retire(machine: PdMachine): void {
    machine.isRetired = true;
    this.crash(machine, 'kill');
  }

  #isCut(from: string, to: string): boolean {
    return (this.#cuts.get(`${from}>${to}`) ?? 0) > 0;
  }

  /** Cuts one machine off from the others: both ways, or only what it says. The returned function undoes it. */
  isolate(machine: PdMachine, isOneWay: boolean): () => void {
    const links = this.machines
      .filter((other) => other !== machine)
      .flatMap(({ name }) => [`${machine.name}>${name}`, ...(isOneWay ? [] : [`${name}>${machine.name}`])]);
    const add = (count: number): void => {
      for (const link of links) {
        this.#cuts.set(link, (this.#cuts.get(link) ?? 0) + count);
      }
    };
    add(1);
    return () => add(-1);
  }

  /** A new machine asks the leader for a place. False if it did not get one now. */
  async join(): Promise<boolean> {
    const { leader } = this;
    if (leader?.member === undefined) {
      return false;
    }
    const name = `pd${this.machines.length + 1}`;
    const { clusterId, group } = leader.member;
    const joined = await refusedAsUndefined(group.addMember({ name, address: name }));
    if (joined?.type !== 'ok' || this.machines.some((machine) => machine.name === name)) {
      return false;
    }
    this.boot(this.addMachine({ id: joined.value.id, clusterId }, leader.wallOffsetMs));
    return true;
  }

  async remove(machine: PdMachine): Promise<boolean> {
    const removed = await refusedAsUndefined(this.leader?.member?.group.removeMember(machine.name, false));
    return removed?.type === 'ok';
  }

  /** Whether every voter, as the leader has them, runs: none is lost for good and still counted. */
  get isEveryVoterUp(): boolean {
    const running = new Set(this.active.map(({ member }) => member?.group.id));
    const voters = this.leader?.member?.group.membership.confState.voters ?? [];
    return voters.length > 0 && voters.every((id) => running.has(id));
  }

  /** Voters as the leader has them. */
  get voters(): number {
    return this.leader?.member?.group.membership.confState.voters.length ?? 0;
  }
}

/** The lead may be lost at any time; whoever asks tries again. */
async function refusedAsUndefined<T>(asked: Promise<T> | undefined): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof AppError || error instanceof FailStop) {
      return undefined;
    }
    throw error;
  }
}
