/**
 * The processes of the full world: a placement service, stores behind their real services and transport, and SDK
 * clients, each with a clock, a place on the network and, where they have one, a disk. Starts, crashes and watches them;
 * decides nothing about when.
 */
import { AppError } from '../../src/base/app-error.ts';
import { assert } from '../../src/base/assert.ts';
import { storeId as brandStoreId } from '../../src/base/ids.ts';
import { connectCore } from '../../src/client/connect.ts';
import { type Braid, rootView } from '../../src/client/kv.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import { decodeFrame, encodeFrame } from '../../src/codec/peer-wire.ts';
import { type CrashKind, createMemoryEngineFactory, MemoryDisk } from '../../src/engine/index.ts';
import type { Engine, EngineFactory } from '../../src/env/engine.ts';
import type { Env } from '../../src/env/env.ts';
import type { FailpointAction } from '../../src/env/failpoints.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import { createRng, type Rng } from '../../src/env/rng.ts';
import type { RegionHeartbeatReply } from '../../src/meta/heartbeat.ts';
import type { Store } from '../../src/meta/region.ts';
import { DEFAULT_RAFTSTORE_CONFIG, type RaftstoreConfig } from '../../src/raftstore/config.ts';
import type { PeerTransport } from '../../src/raftstore/context.ts';
import { bootstrapStore, readStoreIdent } from '../../src/raftstore/store/bootstrap.ts';
import { RaftStore } from '../../src/raftstore/store/raft-store.ts';
import { ServiceBuilder } from '../../src/rpc/service-builder.ts';
import { joinCluster } from '../../src/server/data-dir.ts';
import { Metrics } from '../../src/server/metrics.ts';
import type { PdNode } from '../../src/pd/pd-node.ts';
import { type PdProcess, startPd } from '../../src/server/pd/pd-process.ts';
import { StorePd } from '../../src/server/pd-client.ts';
import { HealthService } from '../../src/server/service/health-service.ts';
import { RedirectingKv } from '../../src/server/service/redirecting-kv.ts';
import { RequestMetrics } from '../../src/server/service/request-metrics.ts';
import { TikvService } from '../../src/server/service/tikv-service.ts';
import { addPeerService, StoreTransport } from '../../src/server/transport/store-transport.ts';
import type { FullConfig } from './full-case.ts';
import { Invariants, type ObservedMachine } from './invariants.ts';
import { changesSince, OldMailbox } from './old-mail.ts';
import { PdChecks } from './pd-checks.ts';
import { Scheduler, SimClock } from './scheduler.ts';
import { SimHost, SimNetwork } from './sim-net.ts';
import { consoleLogger, FailStop } from './store-cluster.ts';

export const PD_ADDRESS = 'pd:2379';
/** Number of the placement service among the machines of the trace. */
export const PD_NODE = 100;
const CLIENT_TIMEOUT_MS = 3_000;
/** Regions that a client remembers at most. */
const REGION_CACHES = [2, 4, 50, 50] as const;
/** More than there are. */
const MAP_REGIONS = 50;
const GIB = 2 ** 30;
const OLD_COMMANDS_MAX = 64;
/** Share of messages between stores that may be kept for later. */
const OLD_MAIL_SHARE = 0.2;

/** One machine with a store process, which may be down. */
export interface Machine {
  readonly id: number;
  disk: MemoryDisk;
  incarnation: number;
  /** Disks it has had; a new one means a new store. */
  disks: number;
  clock: SimClock;
  rate: number;
  host: SimHost | undefined;
  store: RaftStore | undefined;
  /** As the placement service numbered it; 0 before it did. */
  storeId: number;
  /** An injected disk fault may stop it. */
  mayStop: boolean;
}

/** A client process. */
export interface ClientProcess {
  readonly name: string;
  readonly braid: Braid;
  readonly host: SimHost;
  /** Rejects when the process is killed: nobody will hear of what it was doing. */
  readonly died: Promise<never>;
  /** Lets the client hear what the placement service believes of all regions, which may be older than what it knows. */
  hearMap(): Promise<void>;
  kill(): void;
}

export class ClientDiedError extends Error {}

/** What a history wants to hear. */
export interface ClusterObserver {
  /** A store sends a message to another machine. */
  onSend(message: PeerMessage, machine: Machine): void;
  onArrive(message: PeerMessage, machine: Machine): void;
  onStart(machine: Machine | undefined): void;
}

export class FullCluster {
  readonly config: FullConfig;
  readonly rng: Rng;
  readonly scheduler: Scheduler;
  readonly network: SimNetwork;
  readonly invariants: Invariants;
  readonly pdChecks: PdChecks = new PdChecks();
  readonly machines: Map<number, Machine> = new Map();
  /** Unwanted ends of processes. */
  readonly failStops: string[] = [];
  /** Active points by `machine!name`. */
  readonly failpoints: Map<string, FailpointAction> = new Map();
  readonly clients: Set<ClientProcess> = new Set();
  /** What the placement service and stores did so far that others or a later life can see: packets and writes. */
  effects = 0;
  /** Told of the k-th effect before it takes place; may crash processes. True breaks the connection of a packet. */
  onEffect: ((number: number, host: SimHost) => boolean) | undefined;
  observer: ClusterObserver | undefined;
  readonly pdDisk: MemoryDisk;
  pdHost: SimHost | undefined;
  #pd: PdProcess | undefined;
  #watchedNode: PdNode | undefined;
  pdRate = 1;
  pdMayStop = false;
  /** Reports of regions are lost: the placement service goes on telling what it knew last. */
  hidesRegions = false;
  #pdIncarnation = 0;
  #wasPdUp = false;
  /** Wall clocks survive restarts. */
  readonly #wallOffsetMs: Map<number, number> = new Map();
  readonly #raftstore: RaftstoreConfig;
  readonly #oldMail: OldMailbox;
  /** Told what has changed for an old message that is delivered once more. */
  onOldMail: ((change: string) => void) | undefined;
  readonly #oldCommands: { readonly to: number; readonly reply: RegionHeartbeatReply }[] = [];
  readonly #mailRng: Rng;
  /** In every other history stores work for clients with an outdated idea of a region, instead of telling them. */
  readonly #servesSelfRouting: boolean;

  constructor(seed: number, config: FullConfig) {
    this.config = config;
    this.#oldMail = new OldMailbox(config.oldMail);
    this.#servesSelfRouting = seed % 2 === 1;
    this.rng = createRng(seed).fork('full');
    this.#mailRng = this.rng.fork('old-mail');
    this.scheduler = new Scheduler(this.rng.fork('sched'));
    this.scheduler.onThrow = (error) => {
      if (!(error instanceof FailStop)) {
        throw error;
      }
    };
    this.network = new SimNetwork(this.scheduler, this.rng.fork('net'), {
      delayMs: config.delayMs,
      retransmitChance: config.lossChance,
      resetChance: config.lossChance / 50,
    });
    this.network.onSend = (host) => this.#effect(host);
    this.pdDisk = new MemoryDisk(this.rng.fork('disk-pd'), { writeDelayMs: config.pdWriteDelayMs });
    this.#raftstore = raftstoreConfig(config);
    const observed = (m: Machine): ObservedMachine => ({
      id: m.storeId,
      store: m.store,
      incarnation: m.incarnation,
      database: m.disk.database('db'),
      times: m.clock.times,
    });
    // The checker speaks of stores, the scheduler of machines.
    const byStore = (id: number): Machine | undefined => [...this.machines.values()].find((m) => m.storeId === id);
    this.invariants = new Invariants(
      () => [...this.machines.values()].map(observed),
      (id) => {
        const machine = byStore(id);
        return machine === undefined ? undefined : observed(machine);
      },
    );
    this.scheduler.afterEvent = (node, kind) => {
      if (node === PD_NODE) {
        this.#followPd();
      }
      this.invariants.afterEvent(this.machines.get(node)?.storeId ?? 0, kind);
    };
    for (let id = 1; id <= config.stores; id++) {
      this.machines.set(id, {
        id,
        disk: this.#newDisk(id, 1),
        incarnation: 0,
        disks: 1,
        clock: new SimClock(this.scheduler, id),
        rate: 1,
        host: undefined,
        store: undefined,
        storeId: 0,
        mayStop: false,
      });
    }
  }

  #newDisk(id: number, number: number): MemoryDisk {
    return new MemoryDisk(this.rng.fork(`disk-${id}-${number}`), {
      writeDelayMs: this.config.writeDelayMs,
      // Small segments: what a crash of the machine may leave half flushed is always some of the log.
      segmentBytes: 16 * 1024,
    });
  }

  machine(id: number): Machine {
    const machine = this.machines.get(id);
    assert(machine !== undefined, 'no such machine', { id });
    return machine;
  }

  machineOfStore(storeId: number): Machine | undefined {
    return [...this.machines.values()].find((m) => m.storeId === storeId);
  }

  #clock(node: number, rate: number): SimClock {
    const clock = new SimClock(this.scheduler, node);
    clock.setRate(rate);
    clock.jumpWall(this.#wallOffsetMs.get(node) ?? 0);
    return clock;
  }

  /** Moves the wall clock of a machine, 100 for the placement service, for good. */
  jumpWall(node: number, byMs: number): void {
    this.#wallOffsetMs.set(node, (this.#wallOffsetMs.get(node) ?? 0) + byMs);
    const clock = node === PD_NODE ? this.pdHost?.clock : this.machine(node).clock;
    clock?.jumpWall(byMs);
  }

  #env(host: SimHost, disk: MemoryDisk, label: string, stop: (kind: 'bug' | 'storage', reason: string) => void): Env {
    const { machines } = this;
    const prefix = `${host.node}!`;
    return {
      clock: host.clock,
      rng: this.rng.fork(label),
      net: host.net,
      engines: this.#countedEngines(createMemoryEngineFactory(disk, host.clock), host),
      failpoints: {
        hit: (name) => {
          if (this.failpoints.size === 0) {
            return undefined;
          }
          const key = `${prefix}${name}`;
          const action = this.failpoints.get(key);
          if (action?.type !== 'crash') {
            return action;
          }
          this.failpoints.delete(key);
          if (machines.get(host.node)?.host === host) {
            this.crashStore(host.node, 'kill');
          }
          throw new FailStop(`died at ${name}`);
        },
      },
      log:
        process.env['SIM_LOG'] === undefined
          ? SILENT_LOGGER
          : consoleLogger(() => this.scheduler.nowMs, { host: host.name }),
      abort: (kind, reason, cause) => {
        // What a process does after its death, nobody sees.
        if (host.isAlive) {
          stop(kind, reason);
        }
        throw new FailStop(reason, { cause });
      },
    };
  }

  #effect(host: SimHost): boolean {
    if (!host.isAlive || host.node === 0) {
      return false;
    }
    this.effects++;
    return this.onEffect?.(this.effects, host) === true;
  }

  #countedEngines(factory: EngineFactory, host: SimHost): EngineFactory {
    return {
      open: async (options) => {
        const engine = await factory.open(options);
        const write = engine.write.bind(engine);
        engine.write = (batch) => {
          this.#effect(host);
          return write(batch);
        };
        return engine;
      },
    };
  }

  // ------------------------------------------------------------------------------------------ placement service

  get isPdUp(): boolean {
    return this.pdHost !== undefined;
  }

  async startPd(): Promise<void> {
    if (this.pdHost !== undefined) {
      return;
    }
    const clock = this.#clock(PD_NODE, this.pdRate);
    const host = new SimHost(this.network, 'pd', PD_NODE, clock);
    this.pdHost = host;
    this.#pdIncarnation++;
    const env = this.#env(host, this.pdDisk, `pd-${this.#pdIncarnation}`, (kind, reason) => {
      if (!(kind === 'storage' && this.pdMayStop)) {
        this.failStops.push(`pd ${kind}: ${reason}`);
      }
      this.pdMayStop = false;
      this.crashPd('kill');
    });
    const { config } = this;
    const pd = await startPd({
      env,
      config: {
        dataDir: 'pd',
        createIfMissing: !this.#wasPdUp,
        listenAddress: PD_ADDRESS,
        allocation: { idWindow: 20, tsoWindowMs: 500 },
        cluster: {
          maxReplicas: 3,
          storeDisconnectedMs: 3_000,
          storeDownMs: config.storeDownMs,
          stepStoreSilentMs: 5_000,
          storeCheckMs: 1_000,
          patrolIntervalMs: 200,
          schedulerIntervalMs: 500,
          pushIntervalMs: 200,
          pushQuickMs: 500,
          pushSlowMs: 1_000,
          warmupMaxMs: 5_000,
          fastStepMs: 10_000,
          slowStepMs: 30_000,
          splitMergeIntervalMs: 2_000,
        },
      },
    });
    if (this.pdHost !== host) {
      return;
    }
    this.#pd = pd;
    this.#wasPdUp = true;
    this.#followPd();
    this.observer?.onStart(undefined);
  }

  /** The checks follow the node that serves; after each loss of the lead it is another one. */
  #followPd(): void {
    const node = this.#pd?.member.node;
    const clock = this.pdHost?.clock;
    if (node === this.#watchedNode) {
      return;
    }
    this.#watchedNode = node;
    if (node === undefined || clock === undefined) {
      this.pdChecks.detach();
    } else {
      this.pdChecks.attach(node, () => clock.monoMs());
    }
  }

  crashPd(kind: CrashKind): void {
    const host = this.pdHost;
    if (host !== undefined) {
      this.pdHost = undefined;
      this.#pd = undefined;
      this.#followPd();
      this.network.kill(host);
      host.clock.kill();
      this.pdDisk.crash(kind);
    }
  }

  bootPd(): void {
    this.startPd().catch((error: unknown) => this.#onStartFailure('the placement service', error));
  }

  #onStartFailure(who: string, error: unknown): void {
    if (!(error instanceof FailStop)) {
      this.failStops.push(
        `${who} did not start: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      );
    }
  }

  // ------------------------------------------------------------------------------------------ stores

  bootStore(id: number): void {
    if (this.machine(id).host === undefined) {
      this.#startStore(id).catch((error: unknown) => this.#onStartFailure(`machine ${id}`, error));
    }
  }

  crashStore(id: number, kind: CrashKind): void {
    const machine = this.machine(id);
    const { host } = machine;
    if (host !== undefined) {
      this.invariants.beforeDeath(machine.storeId);
      machine.host = undefined;
      machine.store = undefined;
      this.network.kill(host);
      machine.clock.kill();
      machine.disk.crash(kind);
    }
  }

  /** The machine loses its disk; what starts on it next is a new, empty store. */
  wipe(id: number): void {
    const machine = this.machine(id);
    this.crashStore(id, 'power-loss');
    machine.disks++;
    machine.disk = this.#newDisk(id, machine.disks);
    machine.storeId = 0;
    machine.mayStop = false;
  }

  address(machine: Machine): string {
    return `store-${machine.id}:${20_160 + machine.disks}`;
  }

  /** The order of a store process (`server/store-process.ts`) without directory, status port and signals. */
  async #startStore(id: number): Promise<void> {
    const machine = this.machine(id);
    const clock = this.#clock(id, machine.rate);
    const host = new SimHost(this.network, `store-${id}`, id, clock);
    machine.clock = clock;
    machine.host = host;
    machine.incarnation++;
    // What goes on after the process died in the middle of its start, nobody sees.
    const alive = (): void => {
      if (machine.host !== host) {
        throw new FailStop('it died while it started');
      }
    };
    const env = this.#env(host, machine.disk, `store-${id}-${machine.incarnation}`, (kind, reason) => {
      if (!(kind === 'storage' && machine.mayStop)) {
        this.failStops.push(`store ${machine.storeId} on machine ${id} ${kind}: ${reason}`);
      }
      machine.mayStop = false;
      this.crashStore(id, 'kill');
    });
    const address = this.address(machine);
    const pd = new StorePd({ env, endpoints: [PD_ADDRESS] });
    await this.#retry(env, () => pd.connect(600_000));
    alive();
    const engine: Engine = await env.engines.open({ path: 'db', createIfMissing: machine.storeId === 0 });
    alive();
    engine.onPoisoned((reason) => env.abort('storage', reason));
    let ident = await readStoreIdent(engine);
    if (ident === undefined) {
      const [storeId] = await this.#retry(env, () => pd.allocIds(1));
      assert(storeId !== undefined, 'the placement service gave no store id');
      this.pdChecks.onIds([storeId], `the store on machine ${id}, disk ${machine.disks}`);
      ident = { clusterId: pd.clusterId, storeId };
      await bootstrapStore(engine, ident);
    }
    alive();
    machine.storeId = ident.storeId;
    const identity = { clusterId: String(ident.clusterId), storeId: ident.storeId };
    const self: Store = {
      id: brandStoreId(ident.storeId),
      address,
      statusAddress: '',
      state: 'up',
      labels: [{ key: 'host', value: `h${id}` }],
      version: '8.5.0',
      startTimestamp: Math.floor(clock.wallMs() / 1000),
    };
    await this.#retry(env, () => joinCluster({ engine, pd, store: self, log: env.log }));
    const transport = new StoreTransport({
      env,
      self: identity,
      engine,
      resolve: async (storeId) => (await pd.getStore(brandStoreId(storeId))).address,
      snapshotSendsMax: this.#raftstore.snapshotSendsMax,
      snapshotChunkBytes: this.#raftstore.snapshotChunkBytes,
    });
    const store = await RaftStore.open({
      env,
      config: this.#raftstore,
      storeId: ident.storeId,
      engine,
      transport: this.#watched(machine, transport),
      pd,
    });
    const reportRegion = pd.regionHeartbeat.bind(pd);
    pd.regionHeartbeat = (heartbeat) => {
      if (!this.hidesRegions) {
        reportRegion(heartbeat);
      }
    };
    transport.onUnreachable = (storeId) => store.storeUnreachable(storeId);
    pd.onStep = (step) => {
      this.#keepCommand(machine, step);
      store.onStep(step);
    };
    // Only wiped machines are reported as gone: nothing that lives may hear that it was removed.
    pd.onRemoved = () => env.abort('bug', 'the placement service says that this store was removed');
    const kv = new RedirectingKv({
      redirects: store,
      net: env.net,
      log: env.log,
      resolve: async (id) => (await pd.getStore(brandStoreId(id))).address,
      holdMs: this.#raftstore.proxyHoldMs,
      servesSelfRouting: this.#servesSelfRouting,
      identity,
      clock,
      engine,
      backend: store,
      enableTtl: true,
      keySizeMaxBytes: this.#raftstore.keySizeMaxBytes,
      onDamage: (error) => env.abort('storage', error.message, error),
    });
    const tikv = new TikvService({ kv, clock, metrics: new RequestMetrics(new Metrics()), ownAddresses: [address] });
    const services = new ServiceBuilder();
    tikv.addTo(services);
    const health = new HealthService();
    health.addTo(services);
    addPeerService(services, {
      env,
      self: identity,
      target: {
        receive: (message) => {
          this.#keepMail(machine, message);
          this.observer?.onArrive(message, machine);
          this.invariants.onReceive(message, machine.storeId);
          store.receive(message);
        },
        receiveSnapshot: (message) => store.receiveSnapshot(message),
        snapshotReceived: (message, staged) => {
          this.invariants.onReceive(message, machine.storeId);
          store.snapshotReceived(message, staged);
        },
      },
    });
    await env.net.listen(address, services.build());
    await this.#retry(env, () => pd.putStore(self));
    alive();
    machine.store = store;
    store.start();
    pd.start(ident.storeId);
    health.isServing = true;
    const report = (): void => {
      void pd
        .storeHeartbeat({
          storeId: self.id,
          capacityBytes: GIB,
          availableBytes: GIB,
          usedBytes: 1,
          regionCount: store.regionCount(),
          sendingSnapshots: transport.sendingSnapshots,
          receivingSnapshots: store.load().receiving,
          applyingSnapshots: store.load().installing,
          startTimeSeconds: self.startTimestamp,
          isBusy: false,
          isStopping: false,
          damagedPeers: store.damagedPeers(),
          redirectedRegions: store.redirectedRegions(),
        })
        .then((retired) => store.retireRedirects(retired))
        .catch(() => {})
        .then(() => clock.setTimer(this.#raftstore.storeHeartbeatMs, report, 'store-heartbeat'));
    };
    report();
    this.invariants.onBoot(machine.storeId);
    this.observer?.onStart(machine);
  }

  /** Starting a process again after a failed start, as a supervisor does. */
  async #retry<T>(env: Env, attempt: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof AppError)) {
          throw error;
        }
        await new Promise<void>((resolve) => env.clock.setTimer(300, resolve, 'start-again'));
      }
    }
  }

  /** The real transport; promises are noted when they leave. */
  #watched(machine: Machine, transport: StoreTransport): PeerTransport {
    return {
      send: (message) => {
        this.invariants.onSend(message, machine.storeId);
        this.observer?.onSend(message, machine);
        transport.send(message);
      },
      sendSnapshot: (message, source, done) => transport.sendSnapshot(message, source, done),
      flush: () => transport.flush(),
    };
  }

  // ------------------------------------------------------------------------------------------ old mail

  #keepMail(machine: Machine, message: PeerMessage): void {
    if (this.config.oldMail > 0 && this.#mailRng.chance(OLD_MAIL_SHARE)) {
      this.#oldMail.offer(this.#mailRng, {
        message,
        bytes: encodeFrame([message]),
        atMs: this.scheduler.nowMs,
        incarnation: machine.incarnation,
      });
    }
  }

  #keepCommand(machine: Machine, reply: RegionHeartbeatReply): void {
    if (this.#oldCommands.length < OLD_COMMANDS_MAX) {
      this.#oldCommands.push({ to: machine.storeId, reply });
    } else {
      this.#oldCommands[this.#mailRng.below(OLD_COMMANDS_MAX)] = { to: machine.storeId, reply };
    }
  }

  /** Delivers messages between stores once more, as a connection that hung for long would. */
  replayMail(count: number): void {
    for (let i = 0; i < count; i++) {
      const mail = this.#oldMail.pick(this.#mailRng);
      const machine = mail === undefined ? undefined : this.machineOfStore(mail.message.to.storeId);
      if (mail === undefined || machine === undefined) {
        continue;
      }
      machine.host?.run(() => {
        const { store, incarnation } = machine;
        if (store === undefined) {
          return;
        }
        for (const change of changesSince(mail, { store, incarnation, nowMs: this.scheduler.nowMs })) {
          this.onOldMail?.(change);
        }
        for (const message of decodeFrame(mail.bytes)) {
          this.invariants.onReceive(message, machine.storeId);
          store.receive(message);
        }
      }, 'old-mail');
    }
  }

  /** Lets stores hear commands of the placement service once more. */
  replayCommands(count: number): void {
    for (let i = 0; i < count && this.#oldCommands.length > 0; i++) {
      const { to, reply } = this.#mailRng.pick(this.#oldCommands);
      const machine = this.machineOfStore(to);
      machine?.host?.run(() => machine.store?.onStep(reply), 'old-command');
    }
  }

  // ------------------------------------------------------------------------------------------ clients

  newHost(name: string): SimHost {
    return new SimHost(this.network, name, 0, new SimClock(this.scheduler, 0));
  }

  async connect(name: string): Promise<ClientProcess> {
    const host = this.newHost(name);
    let kill: (error: Error) => void = () => undefined;
    const died = new Promise<never>((_, reject) => {
      kill = reject;
    });
    died.catch(() => undefined);
    const core = await connectCore(
      { clock: host.clock, rng: this.rng.fork(name), net: host.net, log: SILENT_LOGGER },
      {
        pd: [PD_ADDRESS],
        name,
        timeoutMs: CLIENT_TIMEOUT_MS,
        connectTimeoutMs: 600_000,
        // Whoever remembers few regions asks the placement service often, and hears of the neighbours what that believes.
        regionCacheMax: this.rng.fork(`cache-${name}`).pick(REGION_CACHES),
      },
    );
    this.invariants.watchCache(name, core.router.cache);
    const braid = rootView(core);
    const client: ClientProcess = {
      name,
      braid,
      host,
      died,
      hearMap: () => core.router.load(new Uint8Array(0), MAP_REGIONS, CLIENT_TIMEOUT_MS),
      kill: () => {
        this.clients.delete(client);
        this.network.kill(host);
        host.clock.kill();
        kill(new ClientDiedError(`${name} was killed`));
      },
    };
    this.clients.add(client);
    return client;
  }

  /** Whether an injected disk fault still waits for a write to strike. */
  get isFaultWaiting(): boolean {
    return this.pdMayStop || [...this.machines.values()].some(({ mayStop }) => mayStop);
  }

  describe(): string {
    const lines = [...this.failStops, `placement service ${this.isPdUp ? 'up' : 'down'}`];
    for (const { id, store, storeId } of this.machines.values()) {
      lines.push(
        `store ${storeId} on machine ${id}: ${store === undefined ? 'down' : `${store.load().receiving} snapshots coming, ${store.load().installing} being installed`}`,
      );
      for (const s of store?.status() ?? []) {
        lines.push(
          `  region ${s.region.id} v${s.region.epoch.version}:${s.region.epoch.confVer} peers ${s.region.peers.map((p) => `${p.id}@${p.storeId}${p.role === 'voter' ? '' : p.role}`).join()} ${s.role} t${s.term} lead ${s.leaderPeerId} ${s.state} applied ${s.appliedIndex} commit ${s.commitIndex} last ${s.lastIndex}`,
        );
      }
    }
    return lines.join('\n');
  }
}

function raftstoreConfig(config: FullConfig): RaftstoreConfig {
  const splitKeys =
    config.splitKeys === 0
      ? {}
      : { regionMaxKeys: config.splitKeys, regionSplitKeys: Math.ceil(config.splitKeys / 2), splitCheckMs: 1_500 };
  return {
    ...DEFAULT_RAFTSTORE_CONFIG,
    pdHeartbeatMs: 1_000,
    storeHeartbeatMs: 1_000,
    maintenanceTickMs: 300,
    splitCheckMs: 5_000,
    abnormalLeaderMissingMs: 4_000,
    maxLeaderMissingMs: 8_000,
    maxPeerDownMs: config.storeDownMs,
    logGcThreshold: config.logGcThreshold,
    logGcCountLimit: config.logGcCountLimit,
    mergeMaxLogGap: config.mergeMaxLogGap,
    snapshotChunkBytes: config.snapshotChunkBytes,
    proposalBatchOpsMax: config.proposalBatchOpsMax,
    leaderLeaseMs: config.leaderLeaseMs,
    maxSizePerMsgBytes: config.maxSizePerMsgBytes,
    maxInflightMsgs: config.maxInflightMsgs,
    maxCommittedPerReadyBytes: config.maxCommittedPerReadyBytes,
    ...splitKeys,
  };
}
