/**
 * A whole cluster in the calling process, for tests of programs that use the SDK: real stores and a real placement
 * service on loopback ports, with their data in a temporary directory that `close` removes. Only the process borders
 * are missing. Must never be used for data that matters.
 */
import { Mutex } from 'async-mutex';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assert } from '../base/assert.ts';
import { AppError } from '../base/app-error.ts';
import type { AdminClient } from '../client/admin.ts';
import type { Braid } from '../client/kv.ts';
import { type ConnectOptions, requireKnownOptions } from '../client/options.ts';
import { connect, connectAdmin } from '../client/real.ts';
import { sleep } from '../env/clock.ts';
import type { Env } from '../env/env.ts';
import { createPinoLogger, type LogLevel, realClock, realEnv } from '../env/real/index.ts';
import { createLevelEngineFactory } from '../engine/index.ts';
import type { PlacementConfig } from '../pd/defaults.ts';
import { type GrpcNet, createGrpcNet } from '../rpc/grpc/grpc-net.ts';
import { type PdProcess, startPd } from '../server/pd/pd-process.ts';
import { DEFAULT_STORE_CONFIG, type StoreProcessConfig } from '../server/settings.ts';
import { type StoreProcess, startStore } from '../server/store-process.ts';

export interface StartClusterOptions {
  /** Number of stores, 1 to 9. Default 3. */
  readonly stores?: number;
  /** Members of the placement service, 1 to 5. Default 1. */
  readonly pdMembers?: number;
  /** Replicas of each region. Default: one per store, at most 3. */
  readonly replicas?: number;
  /** Where the servers' log lines of this level and worse go: standard error. Default `error`, so that a store that stops the process says why. */
  readonly logLevel?: LogLevel;
  /** How long the start may take until every region has its replicas, ms. Default 60000. */
  readonly startTimeoutMs?: number;
  /** Changes of the placement service's settings, for tests of what it does. */
  readonly placement?: Partial<PlacementConfig>;
  /** Changes of the stores' settings. */
  readonly raftstore?: Partial<StoreProcessConfig['raftstore']>;
}

export interface TestPdMember {
  /** 1, 2, 3 … in order of start. */
  readonly number: number;
  readonly name: string;
  readonly address: string;
  readonly isRunning: boolean;
  /** Whether it serves at this moment. */
  readonly isLeader: boolean;
}

export interface TestStore {
  /** 1, 2, 3 … in order of start; not the store's id in the cluster. */
  readonly number: number;
  /** Id in the cluster. */
  readonly id: number;
  /** Undefined while stopped. */
  readonly address: string | undefined;
  readonly isRunning: boolean;
}

/** The cluster did not become ready in time. */
export class TestClusterError extends AppError {
  constructor(message: string) {
    super('TestCluster', message, { hint: "start it with logLevel: 'info' to see what the servers do" });
  }
}

const STORES_MAX = 9;
const PD_MEMBERS_MAX = 5;
const START_TIMEOUT_MS = 60_000;
/** Interval of looks at a condition that nobody announces. */
const POLL_MS = 50;
/** A test cluster decides quickly: there is no network that could delay its messages. */
const TICK_MS = 50;
const STORE_HEARTBEAT_MS = 500;
const REGION_HEARTBEAT_MS = 1000;

interface PdSlot {
  readonly number: number;
  readonly dataDir: string;
  /** Fixed after the first start. */
  address: string;
  running: { readonly process: PdProcess; readonly net: GrpcNet } | undefined;
}

interface Slot {
  readonly number: number;
  readonly dataDir: string;
  /** Fixed after the first start, so that a store comes back where it was. */
  address: string;
  id: number;
  running: { readonly process: StoreProcess; readonly net: GrpcNet } | undefined;
}

export class TestCluster implements AsyncDisposable {
  /** Starting and stopping share directories and addresses: one change of a store at a time. */
  readonly #changes: Mutex = new Mutex();
  readonly #options: StartClusterOptions;
  readonly #root: string;
  readonly #pds: PdSlot[] = [];
  readonly #slots: Slot[] = [];
  readonly #clients: (Braid | AdminClient)[] = [];
  #closing: Promise<void> | undefined;

  /** For `startCluster`. `root` is taken over and removed in the end. */
  constructor(root: string, options: StartClusterOptions) {
    this.#root = root;
    this.#options = options;
  }

  /** For the option `pd` of `connect`. */
  get pd(): string[] {
    assert(this.#pds.length > 0, 'the cluster runs');
    return this.#pds.map(({ address }) => address);
  }

  /** Members of the placement service in the order of their start; `pd1` is the first. */
  get pdMembers(): readonly TestPdMember[] {
    return this.#pds.map(({ number, address, running }) => ({
      number,
      name: `pd${number}`,
      address,
      isRunning: running !== undefined,
      isLeader: running?.process.member.node?.isLeading === true,
    }));
  }

  /** Stops a member of the placement service; with three of them the others go on. */
  stopPdMember(number: number): Promise<void> {
    return this.#changes.runExclusive(() => this.#stopPd(this.#pdSlot(number)));
  }

  /** Starts a stopped member again with its data, at the same address. */
  startPdMember(number: number): Promise<void> {
    return this.#changes.runExclusive(async () => {
      const slot = this.#pdSlot(number);
      if (slot.running === undefined) {
        await this.#startPd(slot);
      }
    });
  }

  get stores(): readonly TestStore[] {
    return this.#slots.map(({ number, id, running }) => ({
      number,
      id,
      address: running?.process.address,
      isRunning: running !== undefined,
    }));
  }

  /** A connection that `close` closes, too. */
  async connect(options: Omit<ConnectOptions, 'pd'> = {}): Promise<Braid> {
    const db = await connect({ ...options, pd: this.pd });
    this.#clients.push(db);
    return db;
  }

  /** An administration client that `close` closes, too. */
  async admin(): Promise<AdminClient> {
    const admin = await connectAdmin({ pd: this.pd, name: 'test-cluster' });
    this.#clients.push(admin);
    return admin;
  }

  /** Stops a store. Graceful lets its leaders move away first; otherwise it is gone as after a crash, but closes its files. */
  stopStore(number: number, options: { readonly graceful?: boolean } = {}): Promise<void> {
    return this.#changes.runExclusive(async () => {
      const slot = this.#slot(number);
      const { running } = slot;
      if (running !== undefined) {
        slot.running = undefined;
        await running.process.close({ graceful: options.graceful ?? false });
        await running.net.close(0);
      }
    });
  }

  /** Starts a stopped store again with its data, at the same address. */
  startStore(number: number): Promise<void> {
    return this.#changes.runExclusive(async () => {
      const slot = this.#slot(number);
      if (slot.running === undefined) {
        await this.#start(slot);
      }
    });
  }

  /** Adds an empty store and returns it. */
  addStore(): Promise<TestStore> {
    return this.#changes.runExclusive(async () => {
      const number = this.#slots.length + 1;
      const slot: Slot = {
        number,
        dataDir: join(this.#root, `store-${number}`),
        address: '127.0.0.1:0',
        id: 0,
        running: undefined,
      };
      await this.#start(slot);
      this.#slots.push(slot);
      return this.stores[number - 1] as TestStore;
    });
  }

  /** Closes clients, stores and placement service and removes the data. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** For `startCluster`. */
  async start(): Promise<void> {
    const count = this.#options.stores ?? 3;
    await this.#startPds(this.#options.pdMembers ?? 1);
    for (let i = 0; i < count; i++) {
      await this.addStore();
    }
    await this.#waitForReplicas(Math.min(this.#replicas, count));
  }

  get #replicas(): number {
    return this.#options.replicas ?? Math.min(3, this.#options.stores ?? 3);
  }

  /** The first one founds the cluster; each further one joins and votes before the next one comes. */
  async #startPds(count: number): Promise<void> {
    const clock = realClock();
    const deadlineMs = clock.monoMs() + (this.#options.startTimeoutMs ?? START_TIMEOUT_MS);
    for (let number = 1; number <= count; number++) {
      const slot: PdSlot = {
        number,
        dataDir: join(this.#root, `pd-${number}`),
        address: '127.0.0.1:0',
        running: undefined,
      };
      await this.#startPd(slot);
      this.#pds.push(slot);
      const voters = (): number => slot.running?.process.member.group.membership.confState.voters.length ?? 0;
      while (voters() < number) {
        if (clock.monoMs() >= deadlineMs) {
          throw new TestClusterError(`member ${number} of the placement service did not join in time`);
        }
        await sleep(clock, POLL_MS, 'test-cluster');
      }
    }
  }

  async #startPd(slot: PdSlot): Promise<void> {
    const net = createGrpcNet();
    try {
      const process = await startPd({
        env: this.#env(net),
        config: {
          name: `pd${slot.number}`,
          dataDir: slot.dataDir,
          listenAddress: slot.address,
          join: this.#pds.filter((other) => other !== slot).map(({ address }) => address),
          cluster: { maxReplicas: this.#replicas, ...this.#options.placement },
        },
      });
      slot.running = { process, net };
      slot.address = process.address;
    } catch (cause) {
      await net.close(0);
      throw cause;
    }
  }

  async #stopPd(slot: PdSlot): Promise<void> {
    const { running } = slot;
    if (running !== undefined) {
      slot.running = undefined;
      await running.process.close();
      await running.net.close(0);
    }
  }

  #pdSlot(number: number): PdSlot {
    const slot = this.#pds[number - 1];
    if (slot === undefined) {
      throw new TestClusterError(`there is no placement member ${number}, only 1 to ${this.#pds.length}`);
    }
    return slot;
  }

  async #start(slot: Slot): Promise<void> {
    const net = createGrpcNet();
    const { server, storage, raftstore, tls, log } = DEFAULT_STORE_CONFIG;
    try {
      const process = await startStore({
        env: this.#env(net),
        config: {
          server: { ...server, addr: slot.address, statusAddr: '', dataDir: slot.dataDir, pd: this.pd },
          storage,
          raftstore: {
            ...raftstore,
            tickMs: TICK_MS,
            // The relation to the election timeout is that of the defaults.
            leaderLeaseMs: (raftstore.leaderLeaseMs * TICK_MS) / raftstore.tickMs,
            storeHeartbeatMs: STORE_HEARTBEAT_MS,
            pdHeartbeatMs: REGION_HEARTBEAT_MS,
            ...this.#options.raftstore,
          },
          tls,
          log,
        },
        // A store that was removed from the cluster cannot go on; its slot stays, as a stopped store.
        onFatal: () => void this.stopStore(slot.number),
      });
      slot.running = { process, net };
      slot.address = process.address;
      slot.id = process.storeId;
    } catch (cause) {
      await net.close(0);
      throw cause;
    }
  }

  #env(net: GrpcNet): Env {
    return realEnv({
      net,
      engines: createLevelEngineFactory(),
      log: createPinoLogger({ level: this.#options.logLevel ?? 'error' }),
    });
  }

  #slot(number: number): Slot {
    const slot = this.#slots[number - 1];
    if (slot === undefined) {
      throw new TestClusterError(`there is no store number ${number}, only 1 to ${this.#slots.length}`);
    }
    return slot;
  }

  /** Every region has its replicas and a leader. */
  async #waitForReplicas(replicas: number): Promise<void> {
    const clock = realClock();
    const deadlineMs = clock.monoMs() + (this.#options.startTimeoutMs ?? START_TIMEOUT_MS);
    await using admin = await connectAdmin({ pd: this.pd });
    for (;;) {
      const { regions } = await admin.regions();
      const isReady =
        regions.length > 0 &&
        regions.every(
          (region) =>
            region.leader !== undefined &&
            region.pendingPeers.length === 0 &&
            region.peers.filter((peer) => peer.role === 'voter').length === replicas,
        );
      if (isReady) {
        return;
      }
      if (clock.monoMs() >= deadlineMs) {
        const state = regions.map(
          ({ id, peers, leader }) => `region ${id}: ${peers.length} replicas, leader ${leader?.id ?? 'unknown'}`,
        );
        throw new TestClusterError(`the regions did not get their ${replicas} replicas in time: ${state.join('; ')}`);
      }
      await sleep(clock, POLL_MS, 'test-cluster');
    }
  }

  async #close(): Promise<void> {
    for (const client of this.#clients) {
      await client.close({ drainMs: 0 });
    }
    await Promise.all(this.#slots.map((slot) => this.stopStore(slot.number)));
    await Promise.all(this.#pds.map((slot) => this.#stopPd(slot)));
    await rm(this.#root, { recursive: true, force: true });
  }
}

const OPTION_NAMES: readonly (keyof StartClusterOptions)[] = [
  'stores',
  'pdMembers',
  'replicas',
  'logLevel',
  'startTimeoutMs',
  'placement',
  'raftstore',
];

/**
 * Starts a cluster and resolves when every region has its replicas and a leader:
 * `await using cluster = await startCluster({ stores: 3 }); const db = await cluster.connect();`
 */
export async function startCluster(options: StartClusterOptions = {}): Promise<TestCluster> {
  requireKnownOptions('startCluster', options, OPTION_NAMES);
  const { stores } = options;
  if (stores !== undefined && !(Number.isSafeInteger(stores) && stores >= 1 && stores <= STORES_MAX)) {
    throw new TestClusterError(`stores must be 1 to ${STORES_MAX}, got ${stores}`);
  }
  const { pdMembers } = options;
  if (pdMembers !== undefined && !(Number.isSafeInteger(pdMembers) && pdMembers >= 1 && pdMembers <= PD_MEMBERS_MAX)) {
    throw new TestClusterError(`pdMembers must be 1 to ${PD_MEMBERS_MAX}, got ${pdMembers}`);
  }
  const cluster = new TestCluster(await mkdtemp(join(tmpdir(), 'braid-test-')), options);
  try {
    await cluster.start();
  } catch (error) {
    await cluster.close();
    throw error;
  }
  return cluster;
}
