/**
 * A cluster of real `RaftStore`s on virtual time with memory disks and a simulated network: the vocabulary of the
 * raftstore scenarios (mustPut, mustSplit, mustMerge, partition, drop, crash …). The placement service is a scripted
 * one: it hands out ids and records heartbeats; tests play its part.
 */
import { assert } from '../../src/base/assert.ts';
import { compareBytes, fromUtf8, utf8 } from '../../src/base/bytes.ts';
import { peerId, regionId, storeId, type PeerId, type RegionId, type StoreId } from '../../src/base/ids.ts';
import { rangeContains } from '../../src/base/key-range.ts';
import { decodeDataValue, isExpired } from '../../src/codec/data-value.ts';
import type { WriteOp } from '../../src/codec/command.ts';
import type { PeerMessage } from '../../src/codec/peer-message.ts';
import { decodeFrame, encodeFrame } from '../../src/codec/peer-wire.ts';
import type { SnapshotChunk } from '../../src/codec/snapshot-record.ts';
import type { RegionError } from '../../src/codec/region-error.ts';
import type { Engine } from '../../src/env/engine.ts';
import type { Env } from '../../src/env/env.ts';
import type { FailpointAction, Failpoints } from '../../src/env/failpoints.ts';
import { type Logger, SILENT_LOGGER } from '../../src/env/log.ts';
import { createRng, type Rng } from '../../src/env/rng.ts';
import {
  createMemoryEngineFactory,
  dataKey,
  dataRange,
  MemoryDisk,
  userKeyOf,
  type CrashKind,
} from '../../src/engine/index.ts';
import type { RegionHeartbeat, StoreHeartbeat } from '../../src/meta/heartbeat.ts';
import {
  findPeerOnStore,
  formatRegion,
  INITIAL_EPOCH,
  type Peer,
  type PeerRole,
  type Region,
} from '../../src/meta/region.ts';
import { DEFAULT_RAFTSTORE_CONFIG, type RaftstoreConfig } from '../../src/raftstore/config.ts';
import type { PdClient, PeerTransport, SnapshotSource } from '../../src/raftstore/context.ts';
import type {
  AdminOutcome,
  AdminRequestBody,
  OpResult,
  SplitIdsResult,
  WriteOutcome,
} from '../../src/raftstore/msg.ts';
import { SnapshotSender } from '../../src/raftstore/snapshot/send.ts';
import {
  bootstrapStore,
  countStart,
  prepareFirstRegion,
  StoreRolledBackError,
} from '../../src/raftstore/store/bootstrap.ts';
import { RaftStore } from '../../src/raftstore/store/raft-store.ts';
import { isBiasName } from '../../src/raftstore/bias.ts';
import type { Bias } from './nemesis/bias.ts';
import { LinkFaults } from './nemesis/links.ts';
import { changesSince, OldMailbox } from './old-mail.ts';
import { Scheduler } from './scheduler.ts';
import { SimClock, type WallShape } from './sim-clock.ts';

export interface NetworkConfig {
  readonly delayMs: readonly [number, number];
  readonly lossChance: number;
  readonly duplicateChance: number;
  /** Share of messages that arrive up to {@link LATE_MS} later than others. */
  readonly lateChance: number;
}

/** How long a request may wait at a store. */
const REQUEST_DEADLINE_MS = 5_000;
const LATE_MS = 3_000;
/** After this long a call to the placement service has failed. */
const PD_TIMEOUT_MS = 3_000;

export type MessageFault = 'drop' | 'duplicate' | 'delay';

/** Events at one moment of virtual time after which something must be spinning. */
const STUCK_STEPS_MAX = 20_000;

/** Returning true drops the message. */
export type MessageFilter = (message: PeerMessage) => boolean;

/** Ends the code of a simulated process at the point of its death. */
export class FailStop extends Error {
  override name: string = 'FailStop';
}

interface Machine {
  readonly id: StoreId;
  readonly disk: MemoryDisk;
  clock: SimClock;
  engine: Engine | undefined;
  store: RaftStore | undefined;
  incarnation: number;
  /** Speed of its monotonic clock and course of its wall clock; survive restarts. */
  rate: number;
  wall: WallShape;
  /** A start under way. */
  booting: Promise<void> | undefined;
  /** Called when the process dies. */
  readonly deathWatch: (() => void)[];
}

/** Sees what a run does; see `invariants.ts`. */
export interface ClusterObserver {
  afterEvent(node: number, kind: string): void;
  /** A store lets a message leave. */
  onSend(message: PeerMessage, store: number): void;
  onArrive?(message: PeerMessage): void;
  /** A store has read its disk after a crash and runs again. */
  onBoot(store: number): void;
  /** A message reaches its store. */
  onReceive?(message: PeerMessage, store: number): void;
  /** A store dies in this moment. */
  beforeDeath?(store: number): void;
}

export interface ClusterOptions {
  readonly seed: number;
  readonly stores: number;
  readonly config?: Partial<RaftstoreConfig>;
  /** Gets what stores log, unless it is printed. */
  readonly logger?: Logger;
  readonly network?: Partial<NetworkConfig>;
  /** Roles of the first region's peers by store number; default voters on the first three stores. */
  readonly firstPeers?: readonly (readonly [store: number, role: PeerRole])[];
}

export class StoreCluster {
  readonly rng: Rng;
  readonly scheduler: Scheduler;
  readonly config: RaftstoreConfig;
  readonly machines: Map<StoreId, Machine> = new Map();
  readonly filters: Set<MessageFilter> = new Set();
  /** Sees every report of a region. */
  onRegionHeartbeat: ((heartbeat: RegionHeartbeat) => void) | undefined;
  readonly failpoints: Map<string, FailpointAction> = new Map();
  /** How often the run passed each failpoint. */
  readonly hits: Map<string, { times: number }> = new Map();
  /** Which sites of `raftstore/bias.ts` bend choices, and how often; undefined: none. */
  bias: Bias | undefined;
  /** Processes that died at a failpoint. */
  pointCrashes = 0;
  readonly heartbeats: Map<RegionId, RegionHeartbeat> = new Map();
  readonly #starts: Map<StoreId, number> = new Map();
  readonly #netRng: Rng;
  #network: NetworkConfig;
  #nextId = 1000;
  #stuckAtMs = 0;
  readonly #transfers: Set<{
    readonly sender: StoreId;
    readonly receiver: StoreId;
    readonly abort: () => void;
    readonly fail: () => void;
  }> = new Set();
  #stuckSteps = 0;
  readonly #stuckKinds: Set<string> = new Set();
  observer: ClusterObserver | undefined;
  readonly #logger: Logger;
  /** Messages sent so far. */
  sent = 0;
  /** Decides the fate of the k-th message, for sweeps. */
  messageFault: ((number: number, message: PeerMessage) => MessageFault | undefined) | undefined;
  /** What other machines or a later life of the process can see of a store: messages, writes, snapshots, calls. So far. */
  effects = 0;
  /** Told of the k-th effect before it takes place; true: the store has died at this point. */
  effectFault: ((number: number, store: number) => boolean) | undefined;
  /** A received snapshot is told to its store only when this promise is fulfilled. */
  snapshotGate: ((message: PeerMessage) => Promise<void>) | undefined;
  /** What arrives in place of a chunk of a snapshot. */
  damageChunk: ((chunk: SnapshotChunk) => SnapshotChunk) | undefined;
  /** Snapshots that set out, by `region>store`. */
  readonly snapshotsSent: Map<string, number> = new Map();
  /** How the placement service answers requests for split ids: virtual delay, and whether it refuses. */
  splitIds: { delayMs: number; refuses: boolean } = { delayMs: 1, refuses: false };
  /** What the placement service says about a region, in place of what it heard. */
  regionAnswer: ((region: RegionId) => Region | undefined) | undefined;
  /** Copies of delivered messages, for delivering them once more much later; off unless given a size. */
  readonly oldMail: OldMailbox = new OldMailbox(0);
  /** Told what has changed for an old message that is delivered once more. */
  onOldMail: ((change: string) => void) | undefined;
  /** Stores that are allowed to stop themselves: a disk fault was injected. */
  readonly mayStop: Set<number> = new Set();
  /** Fail-stops that tests did not expect. */
  readonly failStops: string[] = [];
  /** Stores that are gone for ever. */
  readonly retired: Map<StoreId, Machine> = new Map();
  /** Called when a store stopped itself. */
  onStop: ((store: number, cause: unknown) => void) | undefined;
  /** Whether a store is right not to start: its disk was damaged. */
  mayRefuse: ((store: number, error: unknown) => boolean) | undefined;
  /** State of single links: clogs, limits. */
  readonly links: LinkFaults = new LinkFaults();
  /** Messages of these are late by so many milliseconds. */
  readonly delays: Set<(message: PeerMessage) => number> = new Set();
  /** Received snapshots wait in this list while it exists. */
  heldSnapshots: (() => void)[] | undefined;
  /** Stores that do not reach the placement service, and those its answers do not reach. */
  readonly pdDeaf: Set<number> = new Set();
  readonly pdMute: Set<number> = new Set();

  private constructor(options: ClusterOptions) {
    this.rng = createRng(options.seed);
    this.#logger = options.logger ?? SILENT_LOGGER;
    this.scheduler = new Scheduler(this.rng.fork('sched'));
    this.scheduler.onThrow = (error) => {
      if (!(error instanceof FailStop)) {
        throw error;
      }
    };
    this.scheduler.afterEvent = (node, kind) => this.#afterEvent(node, kind);
    this.#netRng = this.rng.fork('net');
    this.config = { ...DEFAULT_RAFTSTORE_CONFIG, ...options.config };
    this.#network = { delayMs: [0.2, 2], lossChance: 0, duplicateChance: 0, lateChance: 0, ...options.network };
  }

  static async start(options: ClusterOptions): Promise<StoreCluster> {
    const cluster = new StoreCluster(options);
    const first = options.firstPeers ?? [
      [1, 'voter'],
      [2, 'voter'],
      [3, 'voter'],
    ];
    const peers: Peer[] = first.map(([store, role]) => ({ id: peerId(store), storeId: storeId(store), role }));
    const region: Region = { id: regionId(1), range: { start: utf8(''), end: utf8('') }, epoch: INITIAL_EPOCH, peers };
    for (let i = 1; i <= options.stores; i++) {
      const id = storeId(i);
      cluster.#addMachine(id);
      await cluster.run(cluster.#start(id, peers.some((p) => p.storeId === id) ? region : undefined));
    }
    return cluster;
  }

  /** A service of the store has read damaged data: the process ends. */
  stopDamaged(id: number, cause: Error): void {
    if (!this.isUp(id)) {
      return;
    }
    if (!this.mayStop.has(id)) {
      this.failStops.push(`store ${id} storage: ${cause.message}`);
    }
    this.crash(id, 'kill');
    this.onStop?.(id, cause);
  }

  // ------------------------------------------------------------------------------------------ replacing stores

  /** A store is gone for ever: its process, its disk and its id. */
  retire(id: number): void {
    this.crash(id, 'power-loss');
    const machine = this.machine(id);
    this.machines.delete(machine.id);
    this.retired.set(machine.id, machine);
  }

  /** An empty store under an id nobody had. Starts it without waiting. */
  addStore(): number {
    const id = storeId(Math.max(...this.machines.keys(), ...this.retired.keys()) + 1);
    this.#addMachine(id);
    this.reboot(id);
    return id;
  }

  #addMachine(id: StoreId): void {
    this.machines.set(id, {
      id,
      disk: new MemoryDisk(this.rng.fork(`disk-${id}`)),
      clock: new SimClock(this.scheduler, id, this.rng.fork(`clock-${id}`)),
      engine: undefined,
      store: undefined,
      incarnation: 0,
      rate: 1,
      wall: { type: 'true' },
      booting: undefined,
      deathWatch: [],
    });
  }

  // ------------------------------------------------------------------------------------------ machines

  async #boot(id: StoreId, firstRegion: Region | undefined): Promise<void> {
    const machine = this.machine(id);
    machine.clock = new SimClock(this.scheduler, id, this.rng.fork(`clock-${id}-${machine.incarnation + 1}`));
    machine.clock.setRate(machine.rate);
    machine.clock.setWallShape(machine.wall);
    machine.incarnation++;
    let isDead = false;
    machine.deathWatch.push(() => {
      isDead = true;
    });
    const factory = createMemoryEngineFactory(machine.disk, machine.clock);
    const engine = await factory.open({ path: 'db', createIfMissing: machine.incarnation === 1 });
    machine.engine = engine;
    const write = engine.write.bind(engine);
    engine.write = (batch) => {
      if (!isDead) {
        this.#effect(id);
      }
      return write(batch);
    };
    if (machine.incarnation === 1) {
      await bootstrapStore(engine, { clusterId: 1n, storeId: id });
      if (firstRegion !== undefined) {
        const self = findPeerOnStore(firstRegion, id);
        assert(self !== undefined, 'first region without this store');
        await prepareFirstRegion(engine, {
          ...firstRegion,
          peers: [self, ...firstRegion.peers.filter((p) => p !== self)],
        });
        await this.#fixFirstRegion(engine, firstRegion);
      }
    }
    await this.#announce(id, await countStart(engine));
    const env: Env = {
      clock: machine.clock,
      rng: this.rng.fork(`store-${id}-${machine.incarnation}`),
      net: undefined as never,
      engines: factory,
      failpoints: this.#failpointsOf(id, () => isDead),
      log:
        process.env['SIM_LOG'] === undefined ? this.#logger : consoleLogger(() => this.scheduler.nowMs, { store: id }),
      abort: (kind, reason, cause) => {
        if (isDead) {
          // What a process does after its death, nobody sees.
          throw new FailStop(reason, { cause });
        }
        if (!(kind === 'storage' && this.mayStop.has(id))) {
          this.failStops.push(`store ${id} ${kind}: ${reason}`);
        }
        if (process.env['SIM_LOG'] !== undefined) {
          process.stderr.write(`${cause instanceof Error ? (cause.stack ?? '') : ''}\n`);
        }
        this.crash(id, 'kill');
        this.onStop?.(id, cause);
        throw new FailStop(`store ${id} ${kind}: ${reason}`, { cause });
      },
    };
    const incarnation = machine.incarnation;
    const store = await RaftStore.open({
      env,
      config: this.config,
      storeId: id,
      engine,
      transport: this.#transportOf(id, incarnation),
      pd: this.#pdOf(id),
    });
    machine.store = store;
    store.start();
    this.observer?.onBoot(id);
  }

  /** PutStore: the placement service refuses a start it has seen already. */
  async #announce(id: StoreId, starts: number): Promise<void> {
    // On the machine's own clock: a process that dies meanwhile never hears the answer.
    await new Promise<void>((resolve) => {
      this.machine(id).clock.setTimer(1, resolve, 'put-store');
    });
    const known = this.#starts.get(id) ?? 0;
    if (starts <= known) {
      throw new StoreRolledBackError(id, `it announces start ${starts}, but start ${known} was seen`);
    }
    this.#starts.set(id, starts);
  }

  async #fixFirstRegion(engine: Engine, region: Region): Promise<void> {
    const { encodeRegionLocalState } = await import('../../src/codec/raft-records.ts');
    const { regionStateKey } = await import('../../src/engine/index.ts');
    const batch = engine.createBatch();
    batch.put(regionStateKey(region.id), encodeRegionLocalState({ state: 'normal', region, mergeState: undefined }));
    await engine.write(batch);
  }

  machine(id: number): Machine {
    const machine = this.machines.get(storeId(id));
    assert(machine !== undefined, 'no such store', { id });
    return machine;
  }

  store(id: number): RaftStore {
    const { store } = this.machine(id);
    assert(store !== undefined, 'store is down', { id });
    return store;
  }

  isUp(id: number): boolean {
    return this.machines.get(storeId(id))?.store !== undefined;
  }

  crash(id: number, kind: CrashKind = 'power-loss'): void {
    const machine = this.machines.get(storeId(id));
    if (machine === undefined || (machine.store === undefined && machine.booting === undefined)) {
      return;
    }
    machine.booting = undefined;
    if (machine.store !== undefined) {
      this.observer?.beforeDeath?.(id);
    }
    for (const tell of machine.deathWatch.splice(0)) {
      tell();
    }
    machine.store = undefined;
    machine.engine = undefined;
    machine.clock.kill();
    machine.disk.crash(kind);
  }

  /** The process of a start that failed is gone, and its lock on the database with it. */
  endFailedStart(id: number): void {
    const machine = this.machine(id);
    assert(machine.store === undefined, 'the store runs', { id });
    machine.engine = undefined;
    machine.clock.kill();
    machine.disk.crash('kill');
  }

  /** Starts a store that is down and waits until it runs. */
  async restart(id: number): Promise<void> {
    const machine = this.machine(id);
    await this.run(machine.booting ?? this.#start(storeId(id), undefined));
  }

  /** Starts booting a crashed store without waiting for it. */
  reboot(id: number): void {
    const machine = this.machine(id);
    if (machine.store !== undefined || machine.booting !== undefined) {
      return;
    }
    this.#start(storeId(id), undefined).catch((error: unknown) => {
      if (this.mayRefuse?.(id, error) === true) {
        return;
      }
      if (error instanceof FailStop && !this.isUp(id)) {
        // A crash point struck while it was starting, or `abort` has noted why it ended.
        return;
      }
      this.failStops.push(
        `store ${id} did not start: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      );
    });
  }

  #start(id: StoreId, firstRegion: Region | undefined): Promise<void> {
    const machine = this.machine(id);
    const boot = this.#boot(id, firstRegion).finally(() => {
      if (machine.booting === boot) {
        machine.booting = undefined;
      }
    });
    machine.booting = boot;
    return boot;
  }

  /**
   * Active points by `name`, `name#region`, `store!name` for one store, or `store!name#region`. A crash strikes once: the
   * process dies at the point and the point is spent.
   */
  #failpointsOf(store: number, isDead: () => boolean): Failpoints {
    return {
      hit: (name, key) => {
        const passed = this.hits.get(name);
        if (passed === undefined) {
          this.hits.set(name, { times: 1 });
        } else {
          passed.times++;
        }
        if (isDead()) {
          return undefined;
        }
        if (isBiasName(name)) {
          return this.bias?.fires(name) === true ? { type: 'fail' } : undefined;
        }
        if (this.failpoints.size === 0) {
          return undefined;
        }
        for (const spec of [`${store}!${name}#${key}`, `${name}#${key}`, `${store}!${name}`, name]) {
          const action = this.failpoints.get(spec);
          if (action?.type === 'crash') {
            this.failpoints.delete(spec);
            this.pointCrashes++;
            this.crash(store, 'power-loss');
            throw new FailStop(`store ${store} dies at ${name}`);
          }
          if (action !== undefined) {
            return action;
          }
        }
        return undefined;
      },
    };
  }

  /** The code of a process that dies at this effect runs no further. */
  #effect(store: number): void {
    const number = ++this.effects;
    if (this.effectFault?.(number, store) === true) {
      throw new FailStop(`store ${store} dies at its effect ${number}`);
    }
  }

  // ------------------------------------------------------------------------------------------ network

  setNetwork(change: Partial<NetworkConfig>): void {
    this.#network = { ...this.#network, ...change };
  }

  /** Adds a filter; the returned function removes it. */
  drop(filter: MessageFilter): () => void {
    this.filters.add(filter);
    return () => {
      this.filters.delete(filter);
    };
  }

  /** Cuts a store off from all others in both directions. */
  isolate(id: number): () => void {
    return this.drop((m) => m.from.storeId === id || m.to.storeId === id);
  }

  #deliver(message: PeerMessage, bytes: Uint8Array): void {
    const machine = this.machines.get(message.to.storeId);
    if (machine?.store === undefined) {
      // The connection breaks, and the sender hears of it.
      const sender = this.machines.get(message.from.storeId);
      sender?.clock.deliver(() => sender.store?.storeUnreachable(message.to.storeId), 'unreachable');
      return;
    }
    if ([...this.filters].some((f) => f(message))) {
      return;
    }
    this.oldMail.offer(this.#netRng, {
      message,
      bytes,
      atMs: this.scheduler.nowMs,
      incarnation: machine.incarnation,
    });
    this.observer?.onArrive?.(message);
    const { clock } = machine;
    clock.deliver(() => {
      for (const decoded of decodeFrame(bytes)) {
        this.observer?.onReceive?.(decoded, machine.id);
        machine.store?.receive(decoded);
      }
    }, 'mail');
  }

  /** Delivers a copy of an old message once more. */
  replayOldMail(rng: Rng): void {
    const mail = this.oldMail.pick(rng);
    const machine = mail === undefined ? undefined : this.machines.get(mail.message.to.storeId);
    if (mail === undefined || machine === undefined) {
      return;
    }
    this.scheduler.trace.add('old-mail', mail.message.regionId);
    machine.clock.deliver(() => {
      const { store, incarnation } = machine;
      if (store === undefined) {
        return;
      }
      if (this.onOldMail !== undefined) {
        for (const change of changesSince(mail, { store, incarnation, nowMs: this.scheduler.nowMs })) {
          this.onOldMail(change);
        }
      }
      for (const decoded of decodeFrame(mail.bytes)) {
        this.observer?.onReceive?.(decoded, machine.id);
        store.receive(decoded);
      }
    }, 'mail');
  }

  #delay(): number {
    const [min, max] = this.#network.delayMs;
    return min + this.#netRng.float() * (max - min);
  }

  #transportOf(id: StoreId, incarnation: number): PeerTransport {
    return {
      send: (message) => {
        const sender = this.machines.get(id);
        if (sender?.incarnation !== incarnation || (sender.store === undefined && sender.engine === undefined)) {
          return;
        }
        this.#effect(id);
        this.observer?.onSend(message, id);
        const number = ++this.sent;
        const fault = this.messageFault?.(number, message);
        if (fault === 'drop') {
          return;
        }
        const copies = fault === 'duplicate' || this.#netRng.chance(this.#network.duplicateChance) ? 2 : 1;
        const bytes = encodeFrame([message]);
        const { body } = message;
        const kind = body.type === 'raft' ? `mail:${body.message.type}` : `mail:${body.type}`;
        if (body.type === 'raft') {
          this.scheduler.trace.add(kind, message.regionId, body.message.term, body.message.index, body.message.commit);
        }
        for (let i = 0; i < copies; i++) {
          if (!this.#netRng.chance(this.#network.lossChance)) {
            const late =
              fault === 'delay' || this.#netRng.chance(this.#network.lateChance) ? LATE_MS * this.#netRng.float() : 0;
            const queued = this.links.admit(id, message.to.storeId, bytes.length, this.scheduler.nowMs);
            if (queued === undefined) {
              continue;
            }
            let extra = late + queued;
            for (const delayOf of this.delays) {
              extra += delayOf(message);
            }
            this.scheduler.at(this.#delay() + extra, () => this.#deliver(message, bytes), {
              node: message.to.storeId,
              kind,
            });
          }
        }
      },
      sendSnapshot: (message, source, done) => {
        this.#effect(id);
        this.#sendSnapshot(id, incarnation, message, source, done);
      },
      flush: () => {},
    };
  }

  #sendSnapshot(
    id: StoreId,
    incarnation: number,
    message: PeerMessage,
    source: SnapshotSource,
    done: (ok: boolean) => void,
  ): void {
    const sender = this.machine(id);
    const { engine } = sender;
    const route = `${message.regionId}>${message.to.storeId}`;
    this.snapshotsSent.set(route, (this.snapshotsSent.get(route) ?? 0) + 1);
    let isFinished = false;
    let abortReceiver: (() => void) | undefined;
    const run = async (): Promise<boolean> => {
      if (engine === undefined || (this.filters.size > 0 && [...this.filters].some((f) => f(message)))) {
        return false;
      }
      const target = this.machines.get(message.to.storeId);
      const store = target?.store;
      if (target === undefined || store === undefined) {
        return false;
      }
      const receiver = store.receiveSnapshot(decodeFrame(encodeFrame([message]))[0] as PeerMessage);
      abortReceiver = () => receiver.abort();
      this.#transfers.add({
        sender: id,
        receiver: target.id,
        abort: () => receiver.abort(),
        fail: () => finish(false),
      });
      // When the sending process dies the receiver sees the stream end.
      sender.deathWatch.push(() => {
        if (!isFinished) {
          receiver.abort();
        }
      });
      const chunks = new SnapshotSender({ engine, source, chunkBytes: this.config.snapshotChunkBytes });
      for await (const chunk of chunks) {
        await this.sleep(this.#delay());
        if (target.store !== store || sender.incarnation !== incarnation || sender.store === undefined) {
          // A broken connection: the receiving process, if it still runs, sees the stream end.
          receiver.abort();
          return false;
        }
        // When the receiving process dies its connections break.
        const verdict = await Promise.race([
          receiver.accept(this.damageChunk?.(chunk) ?? chunk),
          this.#deathOf(target),
        ]);
        if (verdict.type === 'refused' || target.store !== store) {
          return false;
        }
        if (verdict.type === 'complete') {
          await this.snapshotGate?.(message);
          const held = this.heldSnapshots;
          if (held !== undefined) {
            await Promise.race([new Promise<void>((resolve) => held.push(resolve)), this.#deathOf(target)]);
          }
          if (target.store !== store) {
            return false;
          }
          this.observer?.onReceive?.(message, target.id);
          store.snapshotReceived(decodeFrame(encodeFrame([message]))[0] as PeerMessage, verdict.staged);
          return true;
        }
      }
      return false;
    };
    const finish = (ok: boolean): void => {
      if (!isFinished) {
        isFinished = true;
        source.close();
        done(ok);
      }
    };
    run().then(finish, () => {
      // The sender could not read on: the receiver sees the stream end.
      abortReceiver?.();
      finish(false);
    });
  }

  #deathOf(machine: Machine): Promise<{ readonly type: 'refused' }> {
    return new Promise((resolve) => {
      machine.deathWatch.push(() =>
        this.scheduler.at(this.#delay(), () => resolve({ type: 'refused' }), { node: machine.id, kind: 'reset' }),
      );
    });
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      this.scheduler.at(ms, resolve);
    });
  }

  // ------------------------------------------------------------------------------------------ placement service

  nextId(): number {
    return this.#nextId++;
  }

  /** One call to the placement service, there and back. A call that is lost fails after its deadline. */
  async #callPd<T>(id: number, serve: () => T): Promise<T> {
    if (this.isUp(id)) {
      this.#effect(id);
    }
    await this.sleep(1);
    const lost = (): Promise<never> =>
      this.sleep(PD_TIMEOUT_MS).then(() => {
        throw new Error('the placement service did not answer in time');
      });
    if (this.pdDeaf.has(id)) {
      return lost();
    }
    const answer = serve();
    return this.pdMute.has(id) ? lost() : answer;
  }

  #pdOf(id: number): PdClient {
    return {
      regionHeartbeat: (heartbeat: RegionHeartbeat) => {
        this.#effect(id);
        if (this.pdDeaf.has(id)) {
          return;
        }
        this.onRegionHeartbeat?.(heartbeat);
        const known = this.heartbeats.get(heartbeat.region.id);
        if (
          known === undefined ||
          (heartbeat.region.epoch.version >= known.region.epoch.version &&
            heartbeat.region.epoch.confVer >= known.region.epoch.confVer &&
            heartbeat.term >= known.term)
        ) {
          this.heartbeats.set(heartbeat.region.id, heartbeat);
        }
      },
      storeHeartbeat: (_: StoreHeartbeat) => Promise.resolve([]),
      askBatchSplit: async (region: Region, count: number): Promise<readonly SplitIdsResult[]> => {
        const { delayMs, refuses } = this.splitIds;
        await this.sleep(delayMs);
        if (refuses) {
          throw new Error('no ids today');
        }
        return this.#callPd(id, () =>
          Array.from({ length: count }, () => ({
            newRegionId: this.nextId(),
            newPeerIds: region.peers.map(() => this.nextId()),
          })),
        );
      },
      reportBatchSplit: () => {},
      getRegionById: (region) =>
        this.#callPd(id, () =>
          this.regionAnswer === undefined ? this.heartbeats.get(region)?.region : this.regionAnswer(region),
        ),
    };
  }

  // ------------------------------------------------------------------------------------------ running

  /** Runs events until the promise settles. */
  async run<T>(promise: Promise<T>, limitMs = 600_000): Promise<T> {
    let settled = false;
    const settle = (): void => {
      settled = true;
    };
    promise.then(settle, settle);
    if (!(await this.scheduler.pump(() => settled, this.scheduler.nowMs + limitMs))) {
      throw new Error(`nothing settled the awaited promise within ${limitMs} virtual ms`);
    }
    return promise;
  }

  #afterEvent(node: number, kind: string): void {
    const { nowMs } = this.scheduler;
    if (nowMs === this.#stuckAtMs) {
      if (++this.#stuckSteps > STUCK_STEPS_MAX - 50) {
        this.#stuckKinds.add(`${kind} on store ${node}`);
      }
      if (this.#stuckSteps >= STUCK_STEPS_MAX) {
        throw new Error(
          `events go on for ever without time passing: ${[...this.#stuckKinds].join(', ')}\n${this.describe()}`,
        );
      }
    } else {
      this.#stuckAtMs = nowMs;
      this.#stuckSteps = 0;
    }
    this.observer?.afterEvent(node, kind);
  }

  /** Lets virtual time pass. */
  async advance(ms: number): Promise<void> {
    await this.run(this.sleep(ms));
  }

  /** Runs until the condition holds. */
  async until(what: string, condition: () => boolean, limitMs = 60_000): Promise<void> {
    if (!(await this.scheduler.pump(condition, this.scheduler.nowMs + limitMs))) {
      throw new Error(`not within ${limitMs} virtual ms: ${what}\n${this.describe()}`);
    }
  }

  describe(): string {
    const lines = [...this.failStops];
    for (const { id, store } of this.machines.values()) {
      lines.push(`store ${id}: ${store === undefined ? 'down' : ''}`);
      for (const s of store?.status() ?? []) {
        lines.push(
          `  ${formatRegion(s.region)} peer ${s.peerId} ${s.role} t${s.term} lead ${s.leaderPeerId} ${s.state} applied ${s.appliedIndex} commit ${s.commitIndex} last ${s.lastIndex}`,
        );
      }
    }
    return lines.join('\n');
  }

  // ------------------------------------------------------------------------------------------ looking

  /** The store whose peer leads the region with the highest term. */
  leaderStore(region: number): number | undefined {
    let best: { store: number; term: number } | undefined;
    for (const { id, store } of this.machines.values()) {
      const peer = store?.inspect().replicas.get(regionId(region))?.fsm.peer;
      if (peer?.role === 'leader' && (best === undefined || peer.node.term > best.term)) {
        best = { store: id, term: peer.node.term };
      }
    }
    return best?.store;
  }

  async mustLeader(region: number): Promise<number> {
    await this.until(`a leader of region ${region}`, () => this.leaderStore(region) !== undefined);
    return this.leaderStore(region) as number;
  }

  /** The newest descriptor of a region any live store has. */
  region(id: number): Region | undefined {
    let best: Region | undefined;
    for (const { store } of this.machines.values()) {
      const found = store?.inspect().replicas.get(regionId(id))?.fsm.peer.region;
      if (
        found !== undefined &&
        (best === undefined || found.epoch.version > best.epoch.version || found.epoch.confVer > best.epoch.confVer)
      ) {
        best = found;
      }
    }
    return best;
  }

  /** The region that a leader somewhere serves for `key`, with the newest version. */
  regionOf(key: string): Region | undefined {
    const bytes = utf8(key);
    let best: Region | undefined;
    for (const { store } of this.machines.values()) {
      for (const s of store?.status() ?? []) {
        if (
          s.role === 'leader' &&
          s.region.peers.length > 0 &&
          rangeContains(s.region.range, bytes) &&
          (best === undefined || s.region.epoch.version > best.epoch.version)
        ) {
          best = s.region;
        }
      }
    }
    return best;
  }

  /** Live value on one store's disk, whatever region it belongs to. */
  async valueOn(store: number, key: string): Promise<string | undefined> {
    const { engine } = this.machine(store);
    assert(engine !== undefined, 'store is down', { store });
    const stored = await this.run(engine.get(dataKey(utf8(key))));
    const value = stored === undefined ? undefined : decodeDataValue(stored);
    return value === undefined || isExpired(value.expireAtSeconds, 0) ? undefined : fromUtf8(value.value);
  }

  /** All user keys on a store's disk. */
  async keysOn(store: number): Promise<string[]> {
    const { engine } = this.machine(store);
    assert(engine !== undefined, 'store is down', { store });
    const keys: string[] = [];
    let range = dataRange({ start: utf8(''), end: utf8('') });
    for (;;) {
      const page = await this.run(engine.scan({ range, limit: 1000, keysOnly: true }));
      for (const [key] of page.entries) {
        keys.push(fromUtf8(userKeyOf(key)));
      }
      const last = page.entries.at(-1);
      if (!page.more || last === undefined) {
        return keys;
      }
      range = { start: Uint8Array.of(...last[0], 0), end: range.end };
    }
  }

  // ------------------------------------------------------------------------------------------ doing

  /** Of a request, on the clock of the store that looks at it: that may be far from true time. */
  #deadlineAt(store: number): number {
    return this.machine(store).clock.monoMs() + REQUEST_DEADLINE_MS;
  }

  /** One attempt of a write at the current leader. */
  writeOnce(ops: readonly WriteOp[], key: string): Promise<WriteOutcome | { readonly type: 'no-leader' }> {
    const region = this.regionOf(key);
    const leader = region === undefined ? undefined : this.leaderStore(region.id);
    const peer = region === undefined || leader === undefined ? undefined : findPeerOnStore(region, storeId(leader));
    if (region === undefined || leader === undefined || peer === undefined) {
      return Promise.resolve({ type: 'no-leader' });
    }
    return new Promise((resolve) => {
      this.store(leader).write({
        header: {
          regionId: region.id,
          epoch: region.epoch,
          peerId: peer.id,
          term: 0,
          deadlineMonoMs: this.#deadlineAt(leader),
        },
        ops,
        respond: resolve,
      });
    });
  }

  /** Writes with retries on definite refusals. */
  async mustWrite(op: WriteOp, key: string, limitMs = 60_000): Promise<OpResult> {
    const deadline = this.scheduler.nowMs + limitMs;
    let last: unknown;
    while (this.scheduler.nowMs < deadline) {
      const outcome = await this.run(
        Promise.race([this.writeOnce([op], key), this.sleep(8000).then(() => ({ type: 'no-leader' }) as const)]),
      );
      last = outcome;
      if (outcome.type === 'ok') {
        return outcome.results[0] as OpResult;
      }
      await this.advance(20);
    }
    throw new Error(`write of ${key} was not accepted: ${JSON.stringify(last)}\n${this.describe()}`);
  }

  async mustPut(key: string, value: string, limitMs = 60_000): Promise<void> {
    await this.mustWrite({ type: 'put', key: utf8(key), value: utf8(value), expireAtSeconds: 0 }, key, limitMs);
  }

  async mustDelete(key: string): Promise<void> {
    await this.mustWrite({ type: 'delete', key: utf8(key) }, key);
  }

  /** One linearizable read at the leader. */
  readOnce(
    key: string,
  ): Promise<{ readonly value: string | undefined } | { readonly error: RegionError | 'no-leader' }> {
    const region = this.regionOf(key);
    const leader = region === undefined ? undefined : this.leaderStore(region.id);
    const peer = region === undefined || leader === undefined ? undefined : findPeerOnStore(region, storeId(leader));
    if (region === undefined || leader === undefined || peer === undefined) {
      return Promise.resolve({ error: 'no-leader' });
    }
    return this.readAt(leader, region, peer.id, key, false);
  }

  readAt(
    store: number,
    region: Region,
    peer: PeerId,
    key: string,
    replicaRead: boolean,
  ): Promise<{ readonly value: string | undefined } | { readonly error: RegionError }> {
    const { engine } = this.machine(store);
    return new Promise((resolve) => {
      this.store(store).read({
        header: {
          regionId: region.id,
          epoch: region.epoch,
          peerId: peer,
          term: 0,
          deadlineMonoMs: this.#deadlineAt(store),
        },
        keys: [utf8(key)],
        replicaRead,
        respond: (outcome) => {
          if (outcome.type === 'refused' || engine === undefined) {
            resolve({ error: outcome.type === 'refused' ? outcome.error : { type: 'message', message: 'down' } });
            return;
          }
          engine.get(dataKey(utf8(key))).then(
            (stored) => {
              const value = stored === undefined ? undefined : decodeDataValue(stored);
              resolve({ value: value === undefined ? undefined : fromUtf8(value.value) });
            },
            () => resolve({ error: { type: 'message', message: 'read failed' } }),
          );
        },
      });
    });
  }

  async mustGet(key: string, limitMs = 60_000): Promise<string | undefined> {
    const deadline = this.scheduler.nowMs + limitMs;
    let last: unknown;
    while (this.scheduler.nowMs < deadline) {
      const outcome = await this.run(
        Promise.race([this.readOnce(key), this.sleep(8000).then(() => ({ error: 'no-leader' }) as const)]),
      );
      if (!('error' in outcome)) {
        return outcome.value;
      }
      last = outcome.error;
      await this.advance(20);
    }
    throw new Error(`read of ${key} was not answered: ${JSON.stringify(last)}\n${this.describe()}`);
  }

  /** One admin request at the leader of the region. */
  admin(region: number, body: AdminRequestBody): Promise<AdminOutcome | { readonly type: 'no-leader' }> {
    const leader = this.leaderStore(region);
    const known =
      leader === undefined
        ? undefined
        : this.store(leader)
            .status()
            .find((s) => s.region.id === region)?.region;
    if (leader === undefined || known === undefined) {
      return Promise.resolve({ type: 'no-leader' });
    }
    return Promise.race([
      new Promise<AdminOutcome>((resolve) => {
        this.store(leader).admin({ regionId: known.id, epoch: known.epoch, body, respond: resolve });
      }),
      this.sleep(10_000).then(() => ({ type: 'no-leader' }) as const),
    ]);
  }

  async mustAdmin(region: number, body: () => AdminRequestBody, limitMs = 60_000): Promise<readonly Region[]> {
    const deadline = this.scheduler.nowMs + limitMs;
    let last: unknown;
    while (this.scheduler.nowMs < deadline) {
      const outcome = await this.run(this.admin(region, body()));
      last = outcome;
      if (outcome.type === 'ok') {
        return outcome.regions;
      }
      await this.advance(50);
    }
    throw new Error(`admin request was not carried out: ${JSON.stringify(last)}\n${this.describe()}`);
  }

  /** Splits at a key; returns the left and right region. */
  async mustSplit(key: string): Promise<readonly [Region, Region]> {
    await this.until(`a region of ${key}`, () => this.regionOf(key) !== undefined);
    const parts = await this.mustAdmin((this.regionOf(key) as Region).id, () => ({ type: 'split', keys: [utf8(key)] }));
    const sorted = [...parts].sort((a, b) => compareBytes(a.range.start, b.range.start));
    assert(sorted.length === 2, 'a split at one key gives two regions', { parts: sorted.length });
    await this.until('leaders of both parts', () => sorted.every((r) => this.leaderStore(r.id) !== undefined));
    return [sorted[0] as Region, sorted[1] as Region];
  }

  /** Starts a merge and waits until PrepareMerge is applied at the leader. */
  async prepareMerge(source: number, target: number): Promise<void> {
    await this.mustAdmin(source, () => ({ type: 'merge', target: this.region(target) as Region }));
  }

  /** Merges and waits until the target covers the source on its leader. */
  async mustMerge(source: number, target: number): Promise<Region> {
    const before = this.region(source) as Region;
    await this.prepareMerge(source, target);
    await this.until(`region ${target} took in region ${source}`, () => {
      const leader = this.leaderStore(target);
      const region =
        leader === undefined
          ? undefined
          : this.store(leader)
              .status()
              .find((s) => s.region.id === target)?.region;
      return (
        region !== undefined &&
        region.epoch.version > before.epoch.version + 1 &&
        rangeContains(region.range, before.range.start)
      );
    });
    return this.region(target) as Region;
  }

  async mustTransferLeader(region: number, to: number): Promise<void> {
    await this.until(`region ${region} is led by store ${to}`, () => {
      const leader = this.leaderStore(region);
      if (leader !== undefined && leader !== to) {
        const known = this.store(leader)
          .status()
          .find((s) => s.region.id === region)?.region;
        const peer = known === undefined ? undefined : findPeerOnStore(known, storeId(to));
        if (peer !== undefined && this.scheduler.steps % 500 === 0) {
          this.store(leader).admin({
            regionId: regionId(region),
            epoch: undefined,
            body: { type: 'transfer-leader', peer },
            respond: () => {},
          });
        }
      }
      return leader === to;
    });
  }

  /** Waits until every live member replica of every region applied the same index and nothing is in transition. */
  async settle(limitMs = 60_000): Promise<void> {
    await this.until(
      'all replicas are equal and at rest',
      () => {
        const byRegion = new Map<number, { applied: Set<number>; region: Region; count: number; leader: boolean }>();
        for (const { store } of this.machines.values()) {
          for (const s of store?.status() ?? []) {
            if (s.state !== 'normal' || s.appliedIndex !== s.commitIndex || s.commitIndex !== s.lastIndex) {
              return false;
            }
            const item = byRegion.get(s.region.id) ?? { applied: new Set(), region: s.region, count: 0, leader: false };
            item.applied.add(s.appliedIndex);
            item.count++;
            item.leader ||= s.role === 'leader';
            byRegion.set(s.region.id, item);
          }
        }
        return [...byRegion.values()].every(
          (item) =>
            item.applied.size === 1 &&
            item.leader &&
            item.count === item.region.peers.filter((p) => this.isUp(p.storeId)).length,
        );
      },
      limitMs,
    );
  }

  /** Checks that regions tile the key space and replicas hold equal data; call at rest. */
  async checkConsistent(): Promise<void> {
    assert(this.failStops.length === 0, `a store stopped: ${this.failStops.join('; ')}`);
    const regions = new Map<number, Region>();
    for (const { store } of this.machines.values()) {
      for (const s of store?.status() ?? []) {
        const known = regions.get(s.region.id);
        assert(
          known === undefined || formatRegion(known) === formatRegion(s.region),
          'replicas disagree about their region',
          {
            a: known === undefined ? '' : formatRegion(known),
            b: formatRegion(s.region),
          },
        );
        regions.set(s.region.id, s.region);
      }
    }
    const sorted = [...regions.values()].sort((a, b) => compareBytes(a.range.start, b.range.start));
    let end = utf8('');
    for (const [i, region] of sorted.entries()) {
      assert(
        compareBytes(region.range.start, end) === 0 && (i === 0 || end.length > 0),
        'regions do not tile the key space',
        {
          regions: sorted.map(formatRegion).join(' '),
        },
      );
      end = region.range.end;
    }
    assert(end.length === 0, 'regions do not reach the end of the key space', {
      regions: sorted.map(formatRegion).join(' '),
    });
    for (const region of sorted) {
      let first: { store: number; pairs: string } | undefined;
      for (const { storeId: store } of region.peers) {
        if (!this.isUp(store)) {
          continue;
        }
        const pairs = await this.#pairsOf(store, region);
        assert(first === undefined || first.pairs === pairs, 'replicas hold different data', {
          region: formatRegion(region),
          a: first?.store,
          b: store,
          dataA: first?.pairs,
          dataB: pairs,
        });
        first ??= { store, pairs };
      }
    }
  }

  async #pairsOf(store: number, region: Region): Promise<string> {
    const { engine } = this.machine(store);
    assert(engine !== undefined, 'store is down', { store });
    const out: string[] = [];
    let range = dataRange(region.range);
    for (;;) {
      const page = await this.run(engine.scan({ range, limit: 1000 }));
      for (const [key, value] of page.entries) {
        out.push(`${fromUtf8(userKeyOf(key))}=${fromUtf8(value)}`);
      }
      const last = page.entries.at(-1);
      if (!page.more || last === undefined) {
        return out.join('\n');
      }
      range = { start: Uint8Array.of(...last[0], 0), end: range.end };
    }
  }
}

export function consoleLogger(now: () => number, fields: Readonly<Record<string, unknown>>): Logger {
  const line = (level: string, more: Readonly<Record<string, unknown>>, text: string): void => {
    process.stderr.write(
      `${now().toFixed(3).padStart(12)} ${level} ${text} ${JSON.stringify({ ...fields, ...more })}\n`,
    );
  };
  return {
    debug: (f, m) => line('debug', f, m),
    info: (f, m) => line('info ', f, m),
    warn: (f, m) => line('warn ', f, m),
    error: (f, m) => line('error', f, m),
    child: (f) => consoleLogger(now, { ...fields, ...f }),
    debugEnabled: process.env['SIM_LOG'] === 'debug',
  };
}
