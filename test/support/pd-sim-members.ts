/**
 * Members of a placement service as whole processes – port, services, links to each other, discovery – on the
 * simulator's network, clocks and disks. For worlds that want more than one placement member: `start` and `crash` are
 * what a nemesis needs, `addresses` what stores and clients need.
 */
import { PdClient } from '../../src/client/pd-client.ts';
import { createMemoryEngineFactory } from '../../src/engine/memory/memory-engine.ts';
import { MemoryDisk } from '../../src/engine/memory/crash-model.ts';
import type { Env } from '../../src/env/env.ts';
import { NO_FAILPOINTS } from '../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import type { Rng } from '../../src/env/rng.ts';
import type { PdConfigInput } from '../../src/server/pd/config.ts';
import { type PdProcess, startPd } from '../../src/server/pd/pd-process.ts';
import { type Scheduler, SimClock } from '../sim/scheduler.ts';
import { SimHost, type SimNetwork } from '../sim/sim-net.ts';
import { consoleLogger, FailStop } from '../sim/store-cluster.ts';

const PORT = 2379;

interface SimMember {
  readonly number: number;
  readonly disk: MemoryDisk;
  host: SimHost | undefined;
  process: PdProcess | undefined;
  incarnation: number;
}

export class PdSimMembers {
  readonly members: readonly SimMember[];
  /** Reasons of members that stopped themselves. */
  readonly failStops: string[] = [];
  readonly #scheduler: Scheduler;
  readonly #network: SimNetwork;
  readonly #rng: Rng;
  readonly #config: Partial<PdConfigInput>;
  /** Node numbers of the hosts in traces begin here. */
  readonly #nodeBase: number;

  constructor(options: {
    readonly scheduler: Scheduler;
    readonly network: SimNetwork;
    readonly rng: Rng;
    readonly count: number;
    readonly config?: Partial<PdConfigInput>;
    readonly nodeBase?: number;
  }) {
    this.#scheduler = options.scheduler;
    this.#network = options.network;
    this.#rng = options.rng;
    this.#config = options.config ?? {};
    this.#nodeBase = options.nodeBase ?? 100;
    this.members = Array.from({ length: options.count }, (_, i) => ({
      number: i + 1,
      disk: new MemoryDisk(this.#rng.fork(`disk-pd${i + 1}`)),
      host: undefined,
      process: undefined,
      incarnation: 0,
    }));
  }

  /** For the option `pd` of clients and stores. */
  get addresses(): string[] {
    return this.members.map(({ number }) => `pd${number}:${PORT}`);
  }

  /** Starts a member; the first start of all of them founds the cluster. Resolves when it takes part. */
  async start(number: number): Promise<void> {
    const member = this.#member(number);
    const clock = new SimClock(this.#scheduler, this.#nodeBase + number);
    const host = new SimHost(this.#network, `pd${number}`, this.#nodeBase + number, clock);
    member.host = host;
    member.incarnation++;
    const { incarnation } = member;
    const process = await startPd({
      env: this.#env(host, member.disk, `pd${number}-${incarnation}`),
      config: {
        name: `pd${number}`,
        dataDir: 'pd',
        listenAddress: this.addresses[number - 1] as string,
        initialCluster: this.addresses.map((address, i) => `pd${i + 1}=http://${address}`),
        ...this.#config,
      },
    });
    if (member.incarnation === incarnation && member.host === host) {
      member.process = process;
    }
  }

  startAll(): Promise<unknown> {
    return Promise.all(this.members.map(({ number }) => this.start(number)));
  }

  crash(number: number, kind: 'kill' | 'power-loss' = 'power-loss'): void {
    const member = this.#member(number);
    if (member.host !== undefined) {
      this.#network.kill(member.host);
      member.host.clock.kill();
      member.host = undefined;
      member.process = undefined;
      member.disk.crash(kind);
    }
  }

  /** The number of the member that serves at this moment. */
  serving(): number | undefined {
    return this.members.find(
      ({ process, host }) => process?.member.node?.isLeading === true && host?.clock.stalledMs === 0,
    )?.number;
  }

  client(host: SimHost, rng: Rng): PdClient {
    return new PdClient({
      env: { net: host.net, clock: host.clock, rng, log: SILENT_LOGGER },
      endpoints: this.addresses,
      name: 'sim',
    });
  }

  #env(host: SimHost, disk: MemoryDisk, label: string): Env {
    return {
      clock: host.clock,
      rng: this.#rng.fork(label),
      net: host.net,
      engines: createMemoryEngineFactory(disk, host.clock),
      failpoints: NO_FAILPOINTS,
      log:
        globalThis.process.env['SIM_LOG'] === undefined
          ? SILENT_LOGGER
          : consoleLogger(() => this.#scheduler.nowMs, { host: host.name }),
      abort: (kind, reason, cause) => {
        this.failStops.push(`${host.name} ${kind}: ${reason}`);
        this.#network.kill(host);
        host.clock.kill();
        throw new FailStop(reason, { cause });
      },
    };
  }

  #member(number: number): SimMember {
    const member = this.members[number - 1];
    if (member === undefined) {
      throw new Error(`there is no placement member ${number}`);
    }
    return member;
  }
}
