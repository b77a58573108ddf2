/**
 * The whole cluster in one process on virtual time: a placement service, stores behind their real services and
 * transport, and SDK clients, all unmodified, on virtual links and memory disks. Slower than the lite world, which
 * speaks to stores directly; it covers what lies between.
 */
import { checkHistory } from '../../jepsen-lite/checkers.ts';
import { HistoryRecorder, type Request, type Response } from '../../jepsen-lite/history.ts';
import { assert } from '../../src/base/assert.ts';
import { fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { storeId as brandStoreId } from '../../src/base/ids.ts';
import type { AdminClient } from '../../src/client/admin.ts';
import { connectWith } from '../../src/client/connect.ts';
import { UndeterminedResultError } from '../../src/client/errors.ts';
import type { Braid } from '../../src/client/kv.ts';
import { createMemoryEngineFactory, MemoryDisk } from '../../src/engine/index.ts';
import { AppError } from '../../src/base/app-error.ts';
import type { Engine } from '../../src/env/engine.ts';
import type { Env } from '../../src/env/env.ts';
import { SILENT_LOGGER } from '../../src/env/log.ts';
import { createRng, type Rng } from '../../src/env/rng.ts';
import type { Store } from '../../src/meta/region.ts';
import { DEFAULT_RAFTSTORE_CONFIG, type RaftstoreConfig } from '../../src/raftstore/config.ts';
import { bootstrapStore, readStoreIdent } from '../../src/raftstore/store/bootstrap.ts';
import { RaftStore } from '../../src/raftstore/store/raft-store.ts';
import { ServiceBuilder } from '../../src/rpc/service-builder.ts';
import { joinCluster } from '../../src/server/data-dir.ts';
import { Metrics } from '../../src/server/metrics.ts';
import { startPd } from '../../src/server/pd/pd-process.ts';
import { StorePd } from '../../src/server/pd-client.ts';
import { HealthService } from '../../src/server/service/health-service.ts';
import { RawKv } from '../../src/server/service/raw-kv.ts';
import { RequestMetrics } from '../../src/server/service/request-metrics.ts';
import { TikvService } from '../../src/server/service/tikv-service.ts';
import { addPeerService, StoreTransport } from '../../src/server/transport/store-transport.ts';
import type { NemesisAction, SimCase } from './case.ts';
import { InvariantError, Invariants } from './invariants.ts';
import { keyName } from './lite-world.ts';
import type { RunFailure, RunResult, TimelineEntry } from './run-result.ts';
import { Scheduler, SimClock } from './scheduler.ts';
import { SimHost, SimNetwork } from './sim-net.ts';
import { consoleLogger, FailStop } from './store-cluster.ts';

const PD_ADDRESS = 'pd:2379';
const CLIENT_TIMEOUT_MS = 3_000;
const CONVERGE_MS = 120_000;
const GIB = 2 ** 30;

interface Machine {
  readonly id: number;
  readonly disk: MemoryDisk;
  incarnation: number;
  clock: SimClock;
  host: SimHost | undefined;
  store: RaftStore | undefined;
  /** As the placement service numbered it. */
  storeId: number;
}

class WorldError extends Error {
  readonly invariant: string;

  constructor(invariant: string, message: string) {
    super(message);
    this.invariant = invariant;
  }
}

const errorCode = (error: unknown): string => (error instanceof AppError ? error.code : String(error));

export class FullWorld {
  readonly simCase: SimCase;
  readonly rng: Rng;
  readonly scheduler: Scheduler;
  readonly network: SimNetwork;
  readonly history: HistoryRecorder;
  readonly invariants: Invariants;
  readonly machines: Map<number, Machine> = new Map();
  readonly actions: Record<string, number> = {};
  readonly timeline: TimelineEntry[] = [];
  readonly failStops: string[] = [];
  readonly #raftstore: RaftstoreConfig;
  readonly #pdDisk: MemoryDisk;
  #pdHost: SimHost | undefined;
  #pdIncarnation = 0;
  readonly #heal: Set<() => void> = new Set();
  #stopping = false;
  #ok = 0;
  #failed = 0;
  #unknown = 0;
  #nextValue = 1;

  constructor(simCase: SimCase) {
    const { config, seed } = simCase;
    this.simCase = simCase;
    this.rng = createRng(seed).fork('full');
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
    this.history = new HistoryRecorder(() => Math.round(this.scheduler.nowMs * 1e6));
    this.#pdDisk = new MemoryDisk(this.rng.fork('disk-pd'));
    this.#raftstore = {
      ...DEFAULT_RAFTSTORE_CONFIG,
      pdHeartbeatMs: 1_000,
      storeHeartbeatMs: 1_000,
      maintenanceTickMs: 300,
      splitCheckMs: 5_000,
      abnormalLeaderMissingMs: 4_000,
      maxLeaderMissingMs: 8_000,
      logGcThreshold: config.logGcThreshold,
      logGcCountLimit: config.logGcCountLimit,
      mergeMaxLogGap: config.mergeMaxLogGap,
      snapshotChunkBytes: Math.max(256, config.snapshotChunkBytes),
      leaderLeaseMs: config.leaderLeaseMs,
    };
    const observed = (m: Machine) => ({
      id: m.storeId,
      store: m.store,
      incarnation: m.incarnation,
      database: m.disk.database('db'),
    });
    this.invariants = new Invariants(
      () => [...this.machines.values()].map(observed),
      (node) => {
        const machine = this.machines.get(node);
        return machine === undefined ? undefined : observed(machine);
      },
    );
    this.scheduler.afterEvent = (node, kind) => this.invariants.afterEvent(node, kind);
    for (let id = 1; id <= config.stores; id++) {
      this.machines.set(id, {
        id,
        disk: new MemoryDisk(this.rng.fork(`disk-${id}`), { writeDelayMs: config.writeDelayMs }),
        incarnation: 0,
        clock: new SimClock(this.scheduler, id),
        host: undefined,
        store: undefined,
        storeId: 0,
      });
    }
  }

  // ------------------------------------------------------------------------------------------ processes

  #env(host: SimHost, disk: MemoryDisk, label: string): Env {
    return {
      clock: host.clock,
      rng: this.rng.fork(label),
      net: host.net,
      engines: createMemoryEngineFactory(disk, host.clock),
      failpoints: { hit: () => undefined },
      log:
        process.env['SIM_LOG'] === undefined
          ? SILENT_LOGGER
          : consoleLogger(() => this.scheduler.nowMs, { host: host.name }),
      abort: (kind, reason, cause) => {
        this.failStops.push(`${host.name} ${kind}: ${reason}`);
        this.network.kill(host);
        host.clock.kill();
        throw new FailStop(reason, { cause });
      },
    };
  }

  async #startPd(): Promise<void> {
    const clock = new SimClock(this.scheduler, 100);
    const host = new SimHost(this.network, 'pd', 100, clock);
    this.#pdHost = host;
    this.#pdIncarnation++;
    await startPd({
      env: this.#env(host, this.#pdDisk, `pd-${this.#pdIncarnation}`),
      config: {
        dataDir: 'pd',
        createIfMissing: this.#pdIncarnation === 1,
        listenAddress: PD_ADDRESS,
        cluster: {
          maxReplicas: 3,
          storeDisconnectedMs: 5_000,
          storeDownMs: 30_000,
          patrolIntervalMs: 200,
          schedulerIntervalMs: 500,
          pushIntervalMs: 200,
          pushQuickMs: 500,
          pushSlowMs: 1_000,
          warmupMaxMs: 5_000,
        },
      },
    });
  }

  #crashPd(): void {
    if (this.#pdHost !== undefined) {
      this.network.kill(this.#pdHost);
      this.#pdHost.clock.kill();
      this.#pdHost = undefined;
      this.#pdDisk.crash('power-loss');
    }
  }

  /** The order of a store process (`server/store-process.ts`) without directory, status port and signals. */
  async #startStore(id: number): Promise<void> {
    const machine = this.machines.get(id) as Machine;
    const clock = new SimClock(this.scheduler, id);
    const host = new SimHost(this.network, `store-${id}`, id, clock);
    machine.clock = clock;
    machine.host = host;
    machine.incarnation++;
    const env = this.#env(host, machine.disk, `store-${id}-${machine.incarnation}`);
    const address = `store-${id}:20160`;
    const pd = new StorePd({ env, endpoints: [PD_ADDRESS] });
    await pd.connect(600_000);
    const engine: Engine = await env.engines.open({ path: 'db', createIfMissing: machine.storeId === 0 });
    engine.onPoisoned((reason) => env.abort('storage', reason));
    let ident = await readStoreIdent(engine);
    if (ident === undefined) {
      const storeId = await this.#allocate(pd, env);
      ident = { clusterId: pd.clusterId, storeId };
      await bootstrapStore(engine, ident);
    }
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
    const store = await RaftStore.open({ env, config: this.#raftstore, storeId: ident.storeId, engine, transport, pd });
    transport.onUnreachable = (storeId) => store.storeUnreachable(storeId);
    pd.onStep = (step) => store.onStep(step);
    const kv = new RawKv({
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
    addPeerService(services, { env, self: identity, target: store });
    await env.net.listen(address, services.build());
    await this.#retry(env, () => pd.putStore(self));
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
        })
        .catch(() => {})
        .then(() => clock.setTimer(this.#raftstore.storeHeartbeatMs, report, 'store-heartbeat'));
    };
    report();
    this.invariants.onBoot(id);
  }

  async #allocate(pd: StorePd, env: Env): Promise<number> {
    const [id] = await this.#retry(env, () => pd.allocIds(1));
    assert(id !== undefined, 'the placement service gave no store id');
    return id;
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

  #crashStore(id: number, kind: 'kill' | 'power-loss'): void {
    const machine = this.machines.get(id) as Machine;
    if (machine.host !== undefined) {
      this.network.kill(machine.host);
      machine.clock.kill();
      machine.host = undefined;
      machine.store = undefined;
      machine.disk.crash(kind);
    }
  }

  #bootStore(id: number): void {
    const machine = this.machines.get(id) as Machine;
    if (machine.host === undefined) {
      this.#startStore(id).catch((error: unknown) => {
        if (!(error instanceof FailStop)) {
          this.failStops.push(
            `store ${id} did not start: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
          );
        }
      });
    }
  }

  async #connect(name: string): Promise<Braid> {
    const clock = new SimClock(this.scheduler, 0);
    const host = new SimHost(this.network, name, 0, clock);
    return connectWith(
      { clock, rng: this.rng.fork(name), net: host.net, log: SILENT_LOGGER },
      { pd: [PD_ADDRESS], name, timeoutMs: CLIENT_TIMEOUT_MS, connectTimeoutMs: 60_000 },
    );
  }

  // ------------------------------------------------------------------------------------------ running

  async #pump<T>(promise: Promise<T>, limitMs: number, what: string): Promise<T> {
    let settled = false;
    const settle = (): void => {
      settled = true;
    };
    promise.then(settle, settle);
    if (!(await this.scheduler.pump(() => settled, this.scheduler.nowMs + limitMs))) {
      throw new WorldError('liveness', `${what} took longer than ${limitMs} ms\n${this.describe()}`);
    }
    return promise;
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.scheduler.at(ms, resolve, { node: 0, kind: 'sleep' });
    });
  }

  describe(): string {
    const lines = [...this.failStops];
    for (const { id, store, storeId } of this.machines.values()) {
      lines.push(`store ${storeId} on machine ${id}: ${store === undefined ? 'down' : ''}`);
      for (const s of store?.status() ?? []) {
        lines.push(
          `  region ${s.region.id} v${s.region.epoch.version}:${s.region.epoch.confVer} peers ${s.region.peers.map((p) => `${p.id}@${p.storeId}${p.role === 'voter' ? '' : p.role}`).join()} ${s.role} t${s.term} lead ${s.leaderPeerId} ${s.state} applied ${s.appliedIndex} commit ${s.commitIndex} last ${s.lastIndex}`,
        );
      }
    }
    return lines.join('\n');
  }

  async run(): Promise<void> {
    const { config, schedule } = this.simCase;
    await this.#pump(this.#startPd(), 60_000, 'starting the placement service');
    for (const id of this.machines.keys()) {
      this.#bootStore(id);
    }
    const wanted = Math.min(3, config.stores);
    const isReplicated = (): boolean => {
      const regions = [...this.machines.values()].flatMap(({ store }) => store?.status() ?? []);
      return (
        regions.some(
          (s) => s.role === 'leader' && s.region.peers.filter((p) => p.role === 'voter').length === wanted,
        ) && !regions.some((s) => s.state !== 'normal')
      );
    };
    if (!(await this.scheduler.pump(isReplicated, 60_000))) {
      throw new WorldError('liveness', `the first region did not reach ${wanted} replicas\n${this.describe()}`);
    }
    const clients: Promise<void>[] = [];
    for (let i = 0; i < config.clients; i++) {
      clients.push(this.#client(i, this.rng.fork(`client-${i}`)));
    }
    const admin = (await this.#pump(this.#connect('admin'), 60_000, 'connecting')).admin();
    for (const action of schedule) {
      this.scheduler.at(action.atMs, () => this.#act(action, admin), { node: 0, kind: `nemesis:${action.kind}` });
    }
    await this.#pump(this.sleep(config.durationMs), config.durationMs + 1, 'the safety phase');
    this.#assertNoFailStop();
    this.#stopping = true;
    for (const heal of this.#heal) {
      heal();
    }
    this.#heal.clear();
    this.network.blocks.clear();
    this.network.config = { delayMs: [0.2, 2], retransmitChance: 0, resetChance: 0 };
    if (this.#pdHost === undefined) {
      await this.#pump(this.#startPd(), 60_000, 'starting the placement service');
    }
    for (const machine of this.machines.values()) {
      machine.disk.setBehavior({ writeDelayMs: [0.1, 1] });
      this.#bootStore(machine.id);
    }
    await this.#pump(Promise.all(clients), 60_000, 'the last answers of clients');
    await this.#converge();
    await this.#finalReads();
    this.#assertNoFailStop();
    this.invariants.checkDisks();
    const [problem] = checkHistory(this.history.events, { tagGroups: [TAGS], ttlSlackNs: 1e9 }).problems;
    if (problem !== undefined) {
      throw new WorldError(problem.promise, problem.text);
    }
    if (this.#ok < 20) {
      throw new WorldError('vacuous', `only ${this.#ok} operations succeeded`);
    }
  }

  #assertNoFailStop(): void {
    if (this.failStops.length > 0) {
      throw new WorldError('fail-stop', this.failStops.join('; '));
    }
  }

  async #converge(): Promise<void> {
    const isCalm = (): boolean => {
      const byRegion = new Map<number, { applied: number; count: number; leaders: number; peers: number }>();
      for (const { store } of this.machines.values()) {
        if (store === undefined) {
          return false;
        }
        for (const s of store.status()) {
          if (
            s.state !== 'normal' ||
            s.region.peers.some((p) => p.role === 'incoming-voter' || p.role === 'demoting-voter')
          ) {
            return false;
          }
          const item = byRegion.get(s.region.id) ?? {
            applied: s.appliedIndex,
            count: 0,
            leaders: 0,
            peers: s.region.peers.length,
          };
          if (
            item.applied !== s.appliedIndex ||
            s.appliedIndex !== s.lastIndex ||
            item.peers !== s.region.peers.length
          ) {
            return false;
          }
          item.count++;
          item.leaders += s.role === 'leader' ? 1 : 0;
          byRegion.set(s.region.id, item);
        }
      }
      return (
        byRegion.size > 0 && [...byRegion.values()].every((item) => item.count === item.peers && item.leaders === 1)
      );
    };
    if (!(await this.scheduler.pump(isCalm, this.scheduler.nowMs + CONVERGE_MS))) {
      this.#assertNoFailStop();
      throw new WorldError('liveness', `no rest within ${CONVERGE_MS} ms\n${this.describe()}`);
    }
  }

  async #finalReads(): Promise<void> {
    const client = await this.#pump(this.#connect('reader'), 60_000, 'connecting');
    const process = this.history.newProcess();
    for (const key of [...Array.from({ length: this.simCase.config.keys }, (_, i) => keyName(i)), ...TAGS]) {
      this.history.invoke(process, { f: 'get', key });
      const value = await this.#pump(client.get(utf8(key)), 10_000, `reading ${key}`);
      this.history.ok(process, { f: 'get', value: value === undefined ? null : fromUtf8(value) });
    }
    await this.#pump(client.put(utf8('last'), utf8('word')), 10_000, 'the last write');
    client.destroy();
  }

  // ------------------------------------------------------------------------------------------ clients

  async #client(n: number, rng: Rng): Promise<void> {
    let client = await this.#connect(`client-${n}`);
    let process = this.history.newProcess();
    const seen = new Map<string, string>();
    while (!this.#stopping) {
      await this.sleep(rng.float() * 2 * this.simCase.config.thinkMs + 10);
      if (this.#stopping) {
        break;
      }
      if (rng.chance(0.005)) {
        client.destroy();
        client = await this.#connect(`client-${n}-${this.history.events.length}`);
      }
      const request = this.#draw(rng, n, seen);
      const isRead = request.f === 'get' || request.f === 'scan' || request.f === 'batch-get';
      this.history.invoke(process, request);
      try {
        const response = await perform(client, request, rng);
        this.#ok++;
        this.history.ok(process, response);
        if (request.f === 'get' && response.f === 'get' && response.value !== null) {
          seen.set(request.key, response.value);
        }
      } catch (error) {
        // The SDK says by the type of the error whether a write may have happened.
        const isUnknown =
          !isRead &&
          (!(error instanceof AppError) || error instanceof UndeterminedResultError || error.outcome === 'unknown');
        if (isUnknown) {
          this.#unknown++;
          this.history.info(process, errorCode(error));
          process = this.history.newProcess();
        } else {
          this.#failed++;
          this.history.fail(process, errorCode(error));
        }
      }
    }
    client.destroy();
  }

  #draw(rng: Rng, n: number, seen: ReadonlyMap<string, string>): Request {
    const { config } = this.simCase;
    const key = keyName(rng.below(config.keys));
    const value = `${n}:${this.#nextValue++}`;
    if (rng.chance(config.reads)) {
      return rng.chance(0.75)
        ? { f: 'get', key }
        : rng.chance(0.5)
          ? { f: 'scan', start: key, end: '', limit: rng.pick([1, 3, 100]), isAtomic: false }
          : { f: 'batch-get', keys: TAGS, isAtomic: false };
    }
    const kind = rng.float();
    if (kind < 0.6) {
      return { f: 'put', key, value };
    }
    if (kind < 0.7) {
      return { f: 'delete', key };
    }
    if (kind < 0.85) {
      return { f: 'cas', key, expected: seen.get(key) ?? null, value };
    }
    if (kind < 0.95) {
      return { f: 'batch', pairs: TAGS.map((tag) => [tag, value] as const), isAtomic: true };
    }
    const i = rng.below(config.keys);
    return { f: 'delete-range', start: keyName(i), end: keyName(i + 2) };
  }

  // ------------------------------------------------------------------------------------------ nemesis

  #count(action: string): void {
    this.actions[action] = (this.actions[action] ?? 0) + 1;
  }

  #later(forMs: number, undo: () => void): void {
    const heal = (): void => {
      if (this.#heal.delete(heal)) {
        undo();
      }
    };
    this.#heal.add(heal);
    this.scheduler.at(forMs, heal, { node: 0, kind: 'heal' });
  }

  #ask(action: string, submitted: Promise<unknown>): void {
    submitted.then(
      () => this.#count(action),
      (error: unknown) => this.#count(`${action}:${errorCode(error)}`),
    );
  }

  #block(forMs: number, isBlocked: (from: string, to: string) => boolean): void {
    this.network.blocks.add(isBlocked);
    this.#later(forMs, () => this.network.blocks.delete(isBlocked));
  }

  #act(action: NemesisAction, admin: AdminClient): void {
    if (this.#stopping) {
      return;
    }
    const { kind, a, b, c, forMs } = action;
    const machine = [...this.machines.values()][a % this.machines.size] as Machine;
    const host = `store-${machine.id}`;
    const known = new Map<number, { id: number; start: Uint8Array; peers: readonly { storeId: number }[] }>();
    for (const { store } of this.machines.values()) {
      for (const s of store?.status() ?? []) {
        if (s.role === 'leader' && s.region.peers.length > 0) {
          known.set(s.region.id, { id: s.region.id, start: s.region.range.start, peers: s.region.peers });
        }
      }
    }
    const regions = [...known.values()].sort((x, y) => Buffer.compare(x.start, y.start));
    const at = regions.length === 0 ? 0 : b % regions.length;
    const region = regions[at];
    const storeIds = [...this.machines.values()].map((m) => m.storeId).filter((id) => id !== 0);
    switch (kind) {
      case 'split':
        if (region !== undefined && regions.length < this.simCase.config.regionsMax) {
          const key = utf8(keyName(c % this.simCase.config.keys));
          const owner = regions.findLast((r) => Buffer.compare(r.start, key) <= 0);
          if (owner !== undefined) {
            this.#ask(kind, admin.splitRegion(owner.id, [key]));
          }
        }
        return;
      case 'merge':
      case 'retarget': {
        const next = regions[at + 1];
        if (region !== undefined && next !== undefined) {
          this.#ask(
            'merge',
            admin.mergeRegions(
              c % 2 === 0 ? { source: region.id, target: next.id } : { source: next.id, target: region.id },
            ),
          );
        }
        return;
      }
      case 'transfer':
        if (region !== undefined) {
          this.#ask(
            kind,
            admin.transferLeader(region.id, (region.peers[c % region.peers.length] as { storeId: number }).storeId),
          );
        }
        return;
      case 'move':
      case 'joint':
      case 'learner': {
        const free = storeIds.filter((id) => region?.peers.every((p) => p.storeId !== id));
        const to = free[c % Math.max(1, free.length)];
        if (region !== undefined && to !== undefined) {
          const { storeId: fromStore } = region.peers[c % region.peers.length] as { storeId: number };
          this.#ask('move', admin.moveRegion(region.id, { fromStore, toStore: to }));
        }
        return;
      }
      case 'leave-joint':
        // Once in a while the placement service itself loses power.
        this.#count('crash-pd');
        this.#crashPd();
        this.#later(forMs, () => {
          if (this.#pdHost === undefined) {
            this.#startPd().catch((error: unknown) =>
              this.failStops.push(`the placement service did not start: ${String(error)}`),
            );
          }
        });
        return;
      case 'crash':
        this.#count(kind);
        this.#crashStore(machine.id, c % 2 === 0 ? 'kill' : 'power-loss');
        this.#later(forMs, () => this.#bootStore(machine.id));
        return;
      case 'stall':
        this.#count(kind);
        machine.clock.stall(forMs);
        return;
      case 'isolate':
        this.#count(kind);
        this.#block(forMs, (from, to) => from === host || to === host);
        return;
      case 'one-way':
        this.#count(kind);
        this.#block(forMs, (from, to) => (c % 2 === 0 ? from : to) === host);
        return;
      case 'bisect':
        this.#count(kind);
        this.#block(forMs, (from, to) => side(from, c) !== side(to, c));
        return;
      case 'clog':
        this.#count(kind);
        this.network.reset(host);
        return;
      default:
        this.#count(`${kind}:not offered`);
    }
  }

  failureOf(error: unknown): RunFailure {
    const base = { atMs: this.scheduler.nowMs, event: this.scheduler.steps };
    if (error instanceof WorldError || error instanceof InvariantError) {
      return { ...base, invariant: error.invariant, message: error.message };
    }
    if (this.failStops.length > 0) {
      return { ...base, invariant: 'fail-stop', message: this.failStops.join('; ') };
    }
    return {
      ...base,
      invariant: 'crash',
      message: error instanceof Error ? (error.stack ?? error.message) : String(error),
    };
  }

  result(failure: RunFailure | undefined): RunResult {
    return {
      case: this.simCase,
      failure,
      stats: {
        events: this.scheduler.steps,
        virtualMs: this.scheduler.nowMs,
        ok: this.#ok,
        failed: this.#failed,
        unknown: this.#unknown,
        actions: this.actions,
        checks: this.invariants.counts,
      },
      traceHash: this.scheduler.trace.text,
      checkpoints: this.scheduler.trace.checkpoints,
      history: this.history.events,
      timeline: this.timeline,
    };
  }
}

const TAGS = ['k003a', 'k003b', 'k003c'] as const;

/** Which half of a cut network a host is in. */
function side(host: string, cut: number): boolean {
  let hash = cut;
  for (let i = 0; i < host.length; i++) {
    hash = Math.imul(hash ^ host.charCodeAt(i), 0x01000193);
  }
  return ((hash >>> 13) & 1) === 1;
}

async function perform(client: Braid, request: Request, rng: Rng): Promise<Response> {
  const mode = { read: rng.chance(0.3) ? ('follower' as const) : ('leader' as const) };
  switch (request.f) {
    case 'get': {
      const value = await client.get(utf8(request.key), mode);
      return { f: 'get', value: value === undefined ? null : fromUtf8(value) };
    }
    case 'put':
      await client.put(
        utf8(request.key),
        utf8(request.value),
        request.ttlSeconds === undefined ? {} : { ttlMs: request.ttlSeconds * 1000 },
      );
      return { f: 'done' };
    case 'delete':
      await client.delete(utf8(request.key));
      return { f: 'done' };
    case 'cas': {
      const result = await client.compareAndSwap(utf8(request.key), {
        expected: request.expected === null ? undefined : utf8(request.expected),
        value: request.value === null ? undefined : utf8(request.value),
      });
      return {
        f: 'cas',
        swapped: result.swapped,
        actual: result.previous === undefined ? null : fromUtf8(result.previous),
      };
    }
    case 'batch': {
      const results = await client.writeMany(
        request.pairs.map(([key, value]) => ({ type: 'put' as const, key: utf8(key), value: utf8(value) })),
        { atomic: 'region' },
      );
      for (const result of results) {
        if (result.type === 'failed') {
          throw result.error;
        }
      }
      return { f: 'done' };
    }
    case 'batch-get': {
      const values = await client.getMany(
        request.keys.map((key) => utf8(key)),
        mode,
      );
      return { f: 'batch-get', values: values.map((value) => (value === undefined ? null : fromUtf8(value))) };
    }
    case 'delete-range':
      await client.deleteRange({ start: utf8(request.start), end: utf8(request.end) });
      return { f: 'done' };
    case 'scan': {
      const rows: (readonly [string, string])[] = [];
      for await (const { key, value } of client.scan(
        { start: utf8(request.start), end: utf8(request.end) },
        { limit: request.limit, pageSize: 4, ...mode },
      )) {
        rows.push([fromUtf8(key), fromUtf8(value)]);
      }
      const last = rows.at(-1);
      return {
        f: 'scan',
        rows,
        coveredTo: rows.length >= request.limit && last !== undefined ? `${last[0]}\u0000` : request.end,
      };
    }
  }
}

export async function runFull(simCase: SimCase): Promise<RunResult> {
  const world = new FullWorld(simCase);
  let failure: RunFailure | undefined;
  try {
    await world.run();
  } catch (error) {
    failure = world.failureOf(error);
  }
  return world.result(failure);
}
